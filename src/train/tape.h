/*
 * tape.h: what the operators of the training net share: weights with their compute copies, linear
 * layers and norms forward and backward.
 *
 * Operators here differ from those of ops/ on purpose: they see whole sequences, keep what their
 * backward needs, and never a cache. Every operator is a pair: forward, and below it the backward,
 * which adds to the weights' gradients at their offsets in tape->grad. M is the number of rows
 * (tokens) of a batch everywhere.
 */
#ifndef LC_TRAIN_TAPE_H
#define LC_TRAIN_TAPE_H

#include "train/matmul.h"
#include "train/profile.h"

typedef struct lc_tape {
    lc_op op, exact;     /* the compute type; fp32 (router, index weights) */
    lc_space *space;     /* of products */
    float *grad;         /* gradient block; NULL: forward only */
    float *rates[3];     /* [LC_NORMS][M] scratch of norms */
    double *sums;        /* [2][M] scratch of losses */
    lc_profile *profile; /* normally NULL: nobody measures */
    /* Where sequences begin among the M rows, and M: sums over tokens run sequence by sequence,
     * each sequence's joining the gradient on its own, so that it doesn't matter which sequences
     * run together. NULL: M rows are one. */
    const size_t *cuts;
    size_t pieces;
} lc_tape;

/* The time since the lap before, and the products, belong to this part. */
static inline void lc_tape_lap(const lc_tape *t, lc_lap part) {
    lc_profile_lap(t->profile, part, &t->space->operations);
}

/* A tensor as operators see it. */
typedef struct lc_weight {
    size_t rows, cols;
    const float *values; /* fp32 master */
    /* As right sides of the compute type, for y = x W^T and for dx = dy W; NULL: vectors, tables.
     */
    void *forward, *back;
    size_t at; /* offset of its gradient in a block */
} lc_weight;
/* Bytes of the two packed sides, each a multiple of 64. */
size_t lc_weight_forward_bytes(const lc_gemm_path *path, size_t rows, size_t cols);
size_t lc_weight_back_bytes(const lc_gemm_path *path, size_t rows, size_t cols);
/* Packs rows [begin, end) (multiples of LC_K_BLOCK, or the last) of w->values for the way back, or
 * columns of them for the way forward. */
void lc_weight_pack_forward(const lc_gemm_path *path, const lc_weight *w, size_t begin, size_t end);
void lc_weight_pack_back(const lc_gemm_path *path, const lc_weight *w, size_t begin, size_t end);
static inline float *lc_weight_grad(const lc_tape *t, const lc_weight *w) {
    return t->grad + w->at;
}

/* The products of a linear layer on m rows; x and dy are [m][ld...]. */
lc_matmul lc_linear_forward(const lc_weight *w, size_t m, const float *x, size_t ldx, float *y,
                            size_t ldy);
lc_matmul lc_linear_to_input(const lc_weight *w, size_t m, const float *dy, size_t lddy, float *dx,
                             size_t lddx, bool add);
lc_matmul lc_linear_to_weight(const lc_tape *t, const lc_weight *w, size_t m, const float *dy,
                              size_t lddy, const float *x, size_t ldx);

/* y = x W^T. */
int lc_linear_run(const lc_tape *t, const lc_weight *w, size_t m, const float *x, float *y,
                  lc_err *err);
/* dx = dy W, or += with add; dW += dy^T x. dx NULL: the weight's only. */
int lc_linear_back(const lc_tape *t, const lc_weight *w, size_t m, const float *dy, const float *x,
                   float *dx, bool add, lc_err *err);

/* y = rms(x) w scale, and its gradient: dx += .., dw += ... x, dy, dx: [m][w->cols] at their
 * strides. */
typedef struct lc_norm_pass {
    const lc_weight *w;
    size_t m;
    float eps, scale;
    const float *x;
    size_t ldx;
} lc_norm_pass;
/* Rows of it as a step of a chain. */
typedef struct lc_norm_step {
    const lc_tape *t;
    lc_norm_pass n;
    float *y; /* forward: [m][ldy] */
    size_t ldy;
    const float *dy; /* backward */
    size_t lddy;
    float *dx;
    size_t lddx;
    float *rates; /* [m] for the weight's gradient: one of the tape's, its own while it is used */
} lc_norm_step;
void lc_norm_forward_rows(void *step, size_t begin, size_t end, int thread);
void lc_norm_back_rows(void *step, size_t begin, size_t end, int thread);
/* What rows are left with: the weights' gradients of n <= LC_NORMS norms. */
enum { LC_NORMS = 3 };
void lc_norm_weights_back(const lc_norm_step *list, size_t n);

/* All rows at once. */
void lc_norm_run(const lc_tape *t, const lc_norm_pass *n, float *y, size_t ldy);
void lc_norm_back(const lc_tape *t, const lc_norm_pass *n, const float *dy, size_t lddy, float *dx,
                  size_t lddx);

/* Natural logarithm of a positive normal number, the same bits on every machine; good to 1e-15. */
double lc_ln(double x);

#endif
