/* optim_internal.h: what optim.c and muon.c share. */
#ifndef LC_TRAIN_OPTIM_INTERNAL_H
#define LC_TRAIN_OPTIM_INTERNAL_H

#include "train/matmul.h"
#include "train/optim.h"

struct lc_optim {
    lc_params *params;
    lc_optim_options o;
    lc_optim_state state;
    struct lc_optim_chunk *chunks; /* every tensor in pieces */
    size_t n_chunks;
    double *sums;   /* [n_chunks] squares of the gradient */
    float *scratch; /* Muon's, for one group of tensors */
    lc_space space; /* of products */
};

/* An update with what follows from it. */
typedef struct lc_optim_pass {
    lc_optim *optim;
    const lc_update *update;
    float factor; /* of clipping */
} lc_optim_pass;

/* Learning rate of a tensor, and what decay leaves of it: 1 - rate * decay. */
double lc_optim_rate(const lc_optim_pass *pass, const lc_param *param);
float lc_optim_keep(const lc_optim_pass *pass, const lc_param *param);

/* Muon's tensors; their momentum is up to date. */
int lc_muon_step(const lc_optim_pass *pass, lc_err *err);
size_t lc_muon_floats(const lc_params *params);

#endif
