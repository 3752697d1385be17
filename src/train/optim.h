/*
 * optim.h: what a gradient does to the weights: clipping, AdamW and Muon by parameter group
 * (spec/model.md 5.6), decoupled decay, and the controller of the expert biases (5.1).
 *
 * Bits depend on the gradient, the moments and the numbers given here, never on threads or the
 * instruction set: elements are plain fp32, products are matmul.h's, sums are trees of doubles.
 *
 * Muon: hidden matrices, each expert for itself, n-gram projections and the indexer's wq_b and wk.
 * AdamW: everything else. Rates that change with time are schedule.h's.
 */
#ifndef LC_TRAIN_OPTIM_H
#define LC_TRAIN_OPTIM_H

#include "kernels/kernels.h"
#include "train/params.h"

typedef struct lc_optim_options {
    const lc_kernels *kernels; /* borrowed */
    lc_pool *pool;             /* borrowed; may be NULL */
    bool muon;                 /* else AdamW for all */
    bool bf16;                 /* operands of Muon's products are rounded to BF16 */
    double beta1, beta2, eps;  /* of AdamW */
    double momentum;           /* of Muon */
    double decay;              /* of matrices: w *= 1 - lr * decay before the update */
    double clip;               /* largest global norm of the gradient; 0 = any */
    double embedding_rate;     /* times the rate for tables and n-gram projections (5.5) */
} lc_optim_options;

/* Which parts of the model a stage trains. What isn't trained keeps values, moments and count. */
typedef enum lc_optim_part {
    LC_OPTIM_MAIN,
    LC_OPTIM_INDEXER,
    LC_OPTIM_DRAFT,
    LC_OPTIM_DRAFT_INDEXER,
    LC_OPTIM_PARTS,
} lc_optim_part;
lc_optim_part lc_optim_part_of(const lc_param *param);

typedef struct lc_optim {
    lc_optim_options o;
    lc_params *params;              /* borrowed */
    float *first;                   /* a block: AdamW's first moments, Muon's momentum */
    float *second;                  /* a block: AdamW's second moments */
    uint64_t steps[LC_OPTIM_PARTS]; /* that a part has seen */
} lc_optim;

/* A checkpoint keeps and restores the blocks and steps. */
int lc_optim_new(lc_params *params, const lc_optim_options *options, lc_optim **out, lc_err *err);
void lc_optim_free(lc_optim *optim);

/* One step with gradient `grad` (a block, left as it is) at rate lr; changes params->values. *norm:
 * global norm before clipping, over the trained parts. A gradient that isn't finite is LC_EFORMAT
 * and changes nothing; after LC_ENOMEM in the middle of a step the weights are
 * of no use. */
int lc_optim_step(lc_optim *optim, const float *grad, const bool trained[LC_OPTIM_PARTS], double lr,
                  double *norm, lc_err *err);

/* b += rate * (K_e / K / E - T_e / sum of T) for routed experts; zero entries keep theirs.
 * counts: [layers][experts + zero] of the step, as lc_losses.experts. */
void lc_bias_update(lc_params *params, const int64_t *counts, double target_topk, double rate);

#endif
