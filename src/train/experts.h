/*
 * experts.h: feed-forward layers of the training net: dense SwiGLU, and the router with its experts
 * (docs/model.md 2.5) and the two losses on router scores (5.2). The choice has no gradient;
 * weights of chosen entries flow through the softmax over all entries, identity experts' too.
 */
#ifndef LC_TRAIN_EXPERTS_H
#define LC_TRAIN_EXPERTS_H

#include "ops/moe.h"
#include "train/tape.h"

typedef struct lc_ffn_net {
    lc_weight gate, up, down;
} lc_ffn_net;

/* What the forward keeps, and scratch; all [m][F]. */
typedef struct lc_ffn_state {
    float *gate, *up; /* kept; the backward turns them into their gradients */
    float *act, *dact;
} lc_ffn_state;

typedef struct lc_ffn_pass {
    const lc_ffn_net *w;
    size_t m;
    const float *x; /* [m][H] */
    const lc_ffn_state *s;
    /* For rows before they are read, and when the result for them is there. */
    lc_rows_step before, behind;
} lc_ffn_pass;

/* out [m][H] = down(silu(gate x) * (up x)). */
int lc_ffn_run(const lc_tape *t, const lc_ffn_pass *p, float *out, lc_err *err);
/* dx = gradient of x, from dout. `before` isn't used. */
int lc_ffn_back(const lc_tape *t, const lc_ffn_pass *p, const float *dout, float *dx, lc_err *err);

typedef struct lc_moe_net {
    lc_weight router; /* its copy is fp32 */
    const float *bias;
    const lc_ffn_net *experts; /* [E] */
} lc_moe_net;

typedef struct lc_moe_state {
    float *probs;   /* [M][E+Z] */
    float *lse;     /* [M] log of the sum of exp(router logits) */
    int32_t *ids;   /* [M][K] */
    float *weights; /* [M][K] p * scale */
    size_t *first;  /* [E+1] where an expert's rows begin among the grouped */
    int32_t
        *choices;   /* [M*K] choice (token K + slot) of a grouped row, in order inside an expert */
    int32_t *place; /* [M][K] grouped row of a choice, -1: identity */
    float *shares;  /* [E+Z] balance coefficients c_e, set by the caller */
    float *gate, *up; /* [M*K][F] grouped; become their gradients */
    /* scratch, shared by all layers */
    float *logits;       /* [M][E+Z] also the gradient of the logits */
    float *dweights;     /* [M][K] */
    float *x, *y;        /* [M*K][H] grouped */
    float *act, *dact;   /* [M*K][F] grouped */
    lc_matmul *products; /* [6 E] */
    /* Where a sequence's rows of an expert begin, [M*K + 1], and an expert's first of them, [E+1]:
     * used if the tape's rows are several sequences. */
    size_t *cuts, *first_cut;
} lc_moe_state;

/* Chooses entries for u [m][H], then out [m][H] = sum of weight * expert(u), routed ones in
 * increasing id, identity experts last. Adds to counts [E+Z]. */
int lc_moe_run(const lc_tape *t, const lc_moe_shape *shape, const lc_moe_net *w, size_t m,
               const float *u, const lc_moe_state *s, int64_t *counts, float *out, lc_err *err);

/* Weights of the losses a token: balance and router z. */
typedef struct lc_router_weights {
    float balance, z;
} lc_router_weights;

/* du += .., from dout and the losses. */
int lc_moe_back(const lc_tape *t, const lc_moe_shape *shape, const lc_moe_net *w, size_t m,
                const float *u, const lc_moe_state *s, lc_router_weights losses, const float *dout,
                float *du, lc_err *err);

/* c_e of spec 5.2 from counts and tokens of a step: the balance loss is the mean over tokens of
 * sum c_e p_e. Experts are balanced in `groups` equal groups of neighbours (the device level), 0 =
 * each alone; identities are one group more. */
typedef struct lc_balance_form {
    size_t groups;      /* divides the number of experts */
    double target_topk; /* K_e: wanted routed experts a token */
} lc_balance_form;
void lc_balance_shares(const lc_moe_shape *shape, const int64_t *counts, int64_t tokens,
                       lc_balance_form form, float *shares);
/* Sums over a sequence's tokens of sum_e c_e p_e and of lse^2, added to its place in balance and
 * z [sequences of the tape]. */
void lc_router_losses(const lc_tape *t, const lc_moe_shape *shape, size_t m, const lc_moe_state *s,
                      double *balance, double *z);

#endif
