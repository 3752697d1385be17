/*
 * optim.h: the step from gradients to weights: clipping by the global norm, AdamW, Muon, averages
 * of weights. Arithmetic is fp32 on whole blocks of the layout of params.h; every element is
 * independent but for norms and Muon's products, whose orders are fixed, so bits don't depend on
 * threads or instruction set.
 *
 * Muon takes hidden matrices, n-gram projections and the indexer's two matrices (train.json's
 * list); the rest stays on AdamW. Learning rates over time are schedule.h, the biases of routers
 * bias.h.
 */
#ifndef LC_TRAIN_OPTIM_H
#define LC_TRAIN_OPTIM_H

#include "kernels/kernels.h"
#include "train/params.h"
#include "train/profile.h"

typedef enum lc_optim_kind { LC_OPTIM_ADAMW, LC_OPTIM_MUON } lc_optim_kind;

typedef struct lc_optim_options {
    lc_optim_kind kind;
    double beta1, beta2, eps;     /* AdamW */
    double momentum;              /* Muon's */
    double decay;                 /* decoupled; matrices and tables only */
    double clip;                  /* most global norm of the gradient; 0 = any */
    double average;               /* weight of the past in the average; 0 = none is kept */
    double rates[LC_GROUP_COUNT]; /* of a group, times the learning rate */
    bool bf16;                    /* products of Muon take BF16 operands */
    const lc_kernels *kernels;    /* borrowed */
    lc_pool *pool;                /* borrowed; may be NULL */
    lc_profile *profile;          /* borrowed; normally NULL */
} lc_optim_options;

/* train.json's constants, all rates 1, no average. */
lc_optim_options lc_optim_defaults(void);

typedef struct lc_optim lc_optim;

/* params is borrowed, its values are what a step changes. The average starts as the values. */
int lc_optim_new(lc_params *params, const lc_optim_options *options, lc_optim **out, lc_err *err);
void lc_optim_free(lc_optim *optim);
size_t lc_optim_bytes(const lc_params *params, const lc_optim_options *options);

/* What a checkpoint holds: blocks of params' layout. */
typedef struct lc_optim_state {
    float *first;   /* AdamW's first moment, Muon's momentum */
    float *second;  /* AdamW's second moment; zero for Muon's tensors */
    float *average; /* NULL without */
    int64_t *steps; /* [params->count] updates that a tensor has had */
} lc_optim_state;
lc_optim_state lc_optim_state_of(lc_optim *optim);

bool lc_optim_is_muon(const lc_optim *optim, const lc_param *param);

typedef struct lc_update {
    double rate;        /* learning rate of this step */
    const bool *learns; /* [params->count]: tensors to change; the others aren't touched at all */
    const float *grad;  /* a block */
} lc_update;

/* *norm: of the gradient of what learns, before clipping: a tree over tensors in name order. One
 * that isn't finite is LC_EFORMAT, and nothing has changed. LC_ENOMEM: Muon's products found no
 * memory; weights are then undefined. */
int lc_optim_step(lc_optim *optim, const lc_update *update, double *norm, lc_err *err);

/* Moves the average towards the present values, biases too: d = min(average, (1 + n) / (10 + n))
 * after n earlier steps. */
void lc_optim_average(lc_optim *optim, int64_t n);

#endif
