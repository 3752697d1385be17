/* tape.c: linear layers and norms, forward and backward. */
#include "train/tape.h"

#include "ops/linear.h"

#include <string.h>

/* ---- packed weights ---- */

static size_t whole(size_t bytes) { return (bytes + 63) / 64 * 64; }

size_t lc_weight_forward_bytes(const lc_gemm_path *path, size_t rows, size_t cols) {
    return whole(lc_right_bytes(path, cols, rows));
}

size_t lc_weight_back_bytes(const lc_gemm_path *path, size_t rows, size_t cols) {
    return whole(lc_right_bytes(path, rows, cols));
}

void lc_weight_pack_forward(const lc_gemm_path *path, const lc_weight *w, size_t begin,
                            size_t end) {
    lc_right r = {w->cols, w->rows, begin, end, w->values, w->cols, false};
    path->pack_right(&r, w->forward);
}

void lc_weight_pack_back(const lc_gemm_path *path, const lc_weight *w, size_t begin, size_t end) {
    lc_right r = {w->rows, w->cols, begin, end, w->values, w->cols, true};
    path->pack_right(&r, w->back);
}

/* ---- linear layers ---- */

lc_matmul lc_linear_forward(const lc_weight *w, size_t m, const float *x, size_t ldx, float *y,
                            size_t ldy) {
    return (lc_matmul){.rows = m,
                       .k = w->cols,
                       .columns = w->rows,
                       .x = x,
                       .ldx = ldx,
                       .right = w->forward,
                       .c = y,
                       .ldc = ldy};
}

lc_matmul lc_linear_to_input(const lc_weight *w, size_t m, const float *dy, size_t lddy, float *dx,
                             size_t lddx, bool add) {
    return (lc_matmul){.rows = m,
                       .k = w->rows,
                       .columns = w->cols,
                       .x = dy,
                       .ldx = lddy,
                       .right = w->back,
                       .c = dx,
                       .ldc = lddx,
                       .add = add};
}

lc_matmul lc_linear_to_weight(const lc_tape *t, const lc_weight *w, size_t m, const float *dy,
                              size_t lddy, const float *x, size_t ldx) {
    return (lc_matmul){.rows = w->rows,
                       .k = m,
                       .columns = w->cols,
                       .x = dy,
                       .ldx = lddy,
                       .turned = true,
                       .right_rows = x,
                       .ld = ldx,
                       .kn = true,
                       .c = lc_weight_grad(t, w),
                       .ldc = w->cols,
                       .add = true,
                       .cuts = t->cuts,
                       .pieces = t->pieces};
}

int lc_linear_run(const lc_tape *t, const lc_weight *w, size_t m, const float *x, float *y,
                  lc_err *err) {
    lc_matmul product = lc_linear_forward(w, m, x, w->cols, y, w->rows);
    return lc_matmul_run(&t->op, t->space, &product, 1, err);
}

int lc_linear_back(const lc_tape *t, const lc_weight *w, size_t m, const float *dy, const float *x,
                   float *dx, bool add, lc_err *err) {
    lc_matmul products[] = {lc_linear_to_weight(t, w, m, dy, w->rows, x, w->cols),
                            lc_linear_to_input(w, m, dy, w->rows, dx, w->cols, add)};
    products[1].chained = true;
    return lc_matmul_run(&t->op, t->space, products, dx ? 2 : 1, err);
}

/* ---- norms ---- */

void lc_norm_forward_rows(void *step, size_t begin, size_t end, int thread) {
    const lc_norm_step *s = step;
    const lc_kernels *k = s->t->op.k;
    size_t n = s->n.w->cols;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float *y = s->y + i * s->ldy;
        k->rms_norm(n, s->n.x + i * s->n.ldx, s->n.w->values, s->n.eps, y);
        if (s->n.scale != 1.0f) k->scale(n, s->n.scale, y);
    }
}

void lc_norm_back_rows(void *step, size_t begin, size_t end, int thread) {
    const lc_norm_step *s = step;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        lc_norm_gradient g = {.n = s->n.w->cols,
                              .x = s->n.x + i * s->n.ldx,
                              .w = s->n.w->values,
                              .dy = s->dy + i * s->lddy,
                              .eps = s->n.eps,
                              .scale = s->n.scale,
                              .dx = s->dx + i * s->lddx};
        s->rates[i] = s->t->op.k->norm_gradient(&g);
    }
}

enum { COLUMNS = 64 };

typedef struct weights_task {
    const lc_norm_step *list;
    size_t n;
} weights_task;

/* Items are blocks of columns of all norms, over each sequence's rows in order. */
static void weight_columns(void *ctx, size_t begin, size_t end, int thread) {
    const weights_task *k = ctx;
    (void)thread;
    for (size_t item = begin; item < end; item++) {
        size_t block = item;
        const lc_norm_step *s = k->list;
        while (block >= lc_ceil_div(s->n.w->cols, COLUMNS))
            block -= lc_ceil_div(s->n.w->cols, COLUMNS), s++;
        size_t column = block * COLUMNS, left = s->n.w->cols - column;
        const size_t *cuts = s->t->cuts;
        for (size_t piece = 0; piece < (cuts ? s->t->pieces : 1); piece++) {
            size_t at = cuts ? cuts[piece] : 0, rows = cuts ? cuts[piece + 1] - at : s->n.m;
            s->t->op.k->norm_weights(
                &(lc_norm_weights){.rows = rows,
                                   .n = left < COLUMNS ? left : COLUMNS,
                                   .dy = s->dy + at * s->lddy + column,
                                   .x = s->n.x + at * s->n.ldx + column,
                                   .lddy = s->lddy,
                                   .ldx = s->n.ldx,
                                   .rates = s->rates + at,
                                   .sums = lc_weight_grad(s->t, s->n.w) + column});
        }
    }
}

void lc_norm_weights_back(const lc_norm_step *list, size_t n) {
    weights_task k = {list, n};
    size_t blocks = 0;
    for (size_t i = 0; i < n; i++) blocks += lc_ceil_div(list[i].n.w->cols, COLUMNS);
    lc_pool_for(list->t->op.pool, blocks, 1, weight_columns, &k);
}

void lc_norm_run(const lc_tape *t, const lc_norm_pass *n, float *y, size_t ldy) {
    lc_norm_step s = {.t = t, .n = *n, .y = y, .ldy = ldy};
    lc_pool_for(t->op.pool, n->m, LC_ROW_GRAIN, lc_norm_forward_rows, &s);
}

void lc_norm_back(const lc_tape *t, const lc_norm_pass *n, const float *dy, size_t lddy, float *dx,
                  size_t lddx) {
    lc_norm_step s = {
        .t = t, .n = *n, .dy = dy, .lddy = lddy, .dx = dx, .lddx = lddx, .rates = t->rates[0]};
    lc_pool_for(t->op.pool, n->m, LC_ROW_GRAIN, lc_norm_back_rows, &s);
    lc_norm_weights_back(&s, 1);
}

/* ---- logarithm ---- */

double lc_ln(double x) {
    static const double ln2 = 0x1.62e42fefa39efp-1;
    static const double odd[] = {1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11,
                                 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3,  1.0};
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
    double m, sum = 0;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) m *= 0.5, exponent++;
    double s = (m - 1.0) / (m + 1.0), s2 = s * s; /* ln m = 2 (s + s^3/3 + s^5/5 + ...) */
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) sum = sum * s2 + odd[i];
    return (double)exponent * ln2 + 2.0 * s * sum;
}
