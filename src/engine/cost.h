/*
 * cost.h: what a step must at least read and compute, stage by stage, from shapes and from the
 * stored sizes of the weights: the numerator of every "share of the limit". Activations, and cache
 * entries that are written, are small beside it and not counted; a weight counts once a step, for
 * whatever number of rows.
 */
#ifndef LC_ENGINE_COST_H
#define LC_ENGINE_COST_H

#include "kernels/peak.h"
#include "model/model.h"

typedef struct lc_cost {
    double bytes[LC_STAGE_COUNT]; /* of weights and cache */
    /* multiplications and additions, by the instructions that are for them */
    double operations[LC_PEAK_KINDS][LC_STAGE_COUNT];
} lc_cost;

/* Rows of one sequence in a step: positions start .. start + rows - 1. */
typedef struct lc_cost_rows {
    size_t start, rows;
} lc_cost_rows;

/* Adds a step over n sequences, each with a cache of its own of `element` bytes a value, with
 * `logits` rows of logits. Routed experts are not in it: see lc_cost_experts. */
void lc_cost_step(const lc_model *model, size_t element, const lc_cost_rows *sequences, size_t n,
                  size_t logits, lc_cost *cost);
/* Adds the routed experts that steps have hit. */
void lc_cost_experts(const lc_model *model, size_t element, const lc_op_times *times,
                     lc_cost *cost);

/* Sums over the stages. */
double lc_cost_bytes(const lc_cost *cost);
double lc_cost_operations(const lc_cost *cost); /* of all kinds */

#endif
