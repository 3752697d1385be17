/*
 * head.h: the losses at the end of the net. The cross entropy is fused with the head: logits exist
 * for some rows at a time, and only for rows that predict something.
 */
#ifndef LC_TRAIN_HEAD_H
#define LC_TRAIN_HEAD_H

#include "train/tape.h"

/* Rows that are worked on together: a function of the vocabulary alone. */
size_t lc_head_chunk(size_t vocab);

/* Floats from one row of logits to the next: rows of a power of two would compete for the same
 * places of the caches. */
static inline size_t lc_head_stride(size_t vocab) { return (vocab + 31) / 16 * 16; }

typedef struct lc_head_pass {
    const lc_weight *w; /* [V][H] */
    size_t m;
    const float *hidden;    /* [M][H] */
    const int32_t *targets; /* [M], -1: the row predicts nothing */
    float scale;            /* weight of a row's loss in the objective */
    /* scratch */
    float *x, *dx, *logits; /* [chunk][H], [chunk][H], [chunk][stride] */
    size_t *list;           /* [M] */
} lc_head_pass;

/* Adds the rows' -log p(target) to *sum. With dhidden [M][H]: it is overwritten by the gradient,
 * and the head's is added. */
int lc_head_run(const lc_tape *t, const lc_head_pass *p, float *dhidden, double *sum, lc_err *err);

/* Adds sum over rows of (log sum exp |z|)^2 to *sum; with dz adds scale times its gradient. */
void lc_hidden_z(const lc_tape *t, size_t m, size_t hidden, const float *z, float scale, float *dz,
                 double *sum);

#endif
