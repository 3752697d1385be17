/* optim_internal.h: what optim.c and muon.c share. */
#ifndef LC_TRAIN_OPTIM_INTERNAL_H
#define LC_TRAIN_OPTIM_INTERNAL_H

#include "train/matmul.h"
#include "train/optim.h"

/* A thread's part of Muon's step. */
typedef struct lc_muon_worker {
    lc_space scratch, products;
    int status;
    lc_err err;
} lc_muon_worker;

struct lc_optim {
    lc_params *params;
    lc_optim_options o;
    lc_optim_state state;
    struct lc_optim_chunk *chunks; /* every tensor in pieces */
    size_t n_chunks;
    double *sums;            /* [n_chunks] squares of the gradient */
    lc_muon_worker *workers; /* [n_workers]: one for each thread */
    size_t n_workers;
    double operations; /* of Muon's products so far; whoever measures takes them from here */
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

/* Whether a tensor is Muon's where Muon is the optimiser. */
bool lc_muon_takes(const lc_param *param);
/* Muon's tensors; their momentum is up to date. Errors: LC_ENOMEM. */
int lc_muon_step(const lc_optim_pass *pass, lc_err *err);
/* Scratch of a step, without packed operands. */
size_t lc_muon_bytes(const lc_params *params, size_t threads);

#endif
