/*
 * linear.c: matrix products, norms and sums of rows. A product is cut into panels of output
 * columns; the contraction is never cut.
 */
#include "ops/linear.h"

#include <string.h>

enum { GROUP = 16 }; /* left rows that are packed together */

lc_op lc_op_exact(const lc_op *op) {
    lc_op exact = *op;
    exact.path = &op->k->f32;
    exact.round_quantised = false;
    return exact;
}

typedef struct pack_task {
    const lc_gemm_path *path;
    size_t rows, k, ldx;
    const float *x;
    float *out;
} pack_task;

static void pack_groups(void *ctx, size_t begin, size_t end, int thread) {
    const pack_task *t = ctx;
    size_t first = begin * GROUP, last = end * GROUP < t->rows ? end * GROUP : t->rows;
    (void)thread;
    t->path->pack_nk(last - first, t->k, t->x + first * t->ldx, t->ldx,
                     t->out + lc_left_floats(first, t->k));
}

lc_operand lc_operand_pack(const lc_op *op, size_t rows, size_t k, const float *x, size_t ldx,
                           float *out) {
    pack_task t = {op->path, rows, k, ldx, x, out};
    lc_pool_for(op->pool, lc_ceil_div(rows, GROUP), 1, pack_groups, &t);
    return (lc_operand){out, rows, k};
}

static bool usable_in_place(const lc_op *op, const lc_mat *w) {
    lc_dtype wanted = op->path->element == sizeof(float) ? LC_F32 : LC_BF16;
    return w->type == wanted && w->scaling == LC_SCALE_NONE && w->cols % LC_K_BLOCK == 0;
}

const void *lc_right_rows(const lc_op *op, const lc_mat *w, size_t row0, size_t n, float *scratch,
                          size_t *ld) {
    size_t stride = lc_pad_k(w->cols), element = op->path->element;
    *ld = stride;
    if (usable_in_place(op, w)) return (const char *)w->data + row0 * stride * element;
    bool narrow = element == sizeof(uint16_t);
    if (narrow)
        lc_mat_rows_bf16(op->k, w, row0, n, (uint16_t *)(void *)scratch, stride);
    else
        lc_mat_rows_f32(op->k, w, row0, n, scratch, stride);
    for (size_t i = 0; i < n; i++) {
        memset((char *)scratch + (i * stride + w->cols) * element, 0, (stride - w->cols) * element);
        if (!narrow && op->round_quantised && w->scaling != LC_SCALE_NONE)
            op->k->round_bf16(w->cols, scratch + i * stride, scratch + i * stride);
    }
    return scratch;
}

size_t lc_product_floats(const lc_op *op, size_t rows, size_t k) {
    return lc_ceil_div(op->path->scratch_bytes(rows, k), 64) * 16;
}

size_t lc_linear_floats(const lc_op *op, size_t rows, size_t k) {
    return lc_product_floats(op, rows, k) + lc_right_floats(lc_panel(op->path, rows), k);
}

typedef struct linear_task {
    const lc_op *op;
    const lc_mat *w;
    lc_operand x;
    float *y;
    size_t ldy;
} linear_task;

static void linear_panels(void *ctx, size_t begin, size_t end, int thread) {
    const linear_task *t = ctx;
    const lc_gemm_path *path = t->op->path;
    float *scratch = t->op->scratch[thread];
    float *rows = scratch + lc_product_floats(t->op, t->x.rows, t->x.k);
    size_t panel = lc_panel(path, t->x.rows);
    for (size_t p = begin; p < end; p++) {
        size_t row0 = p * panel, ld, n = t->w->rows - row0 < panel ? t->w->rows - row0 : panel;
        const void *right = lc_right_rows(t->op, t->w, row0, n, rows, &ld);
        path->multiply_nk(&(lc_product){.rows = t->x.rows,
                                        .k = t->x.k,
                                        .columns = n,
                                        .left = t->x.data,
                                        .right = right,
                                        .ld = ld,
                                        .c = t->y + row0,
                                        .ldc = t->ldy,
                                        .scratch = scratch});
    }
}

int lc_linear(const lc_op *op, const lc_mat *w, lc_operand x, float *y, size_t ldy, lc_err *err) {
    int status = lc_mat_acquire(w, err);
    if (status != LC_OK) return status;
    linear_task t = {op, w, x, y, ldy};
    lc_pool_for(op->pool, lc_ceil_div(w->rows, lc_panel(op->path, x.rows)), 1, linear_panels, &t);
    lc_mat_release(w);
    return LC_OK;
}

typedef struct norm_task {
    const lc_op *op;
    size_t n, ldx, ldy;
    const float *x;
    lc_norm norm;
    float *y;
} norm_task;

static void norm_rows(void *ctx, size_t begin, size_t end, int thread) {
    const norm_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float *y = t->y + i * t->ldy;
        t->op->k->rms_norm(t->n, t->x + i * t->ldx, t->norm.weight, t->norm.eps, y);
        if (t->norm.scale != 1.0f)
            for (size_t j = 0; j < t->n; j++) y[j] *= t->norm.scale;
    }
}

void lc_norm_rows(const lc_op *op, size_t rows, size_t n, const float *x, size_t ldx, lc_norm norm,
                  float *y, size_t ldy) {
    norm_task t = {op, n, ldx, ldy, x, norm, y};
    lc_pool_for(op->pool, rows, LC_ROW_GRAIN, norm_rows, &t);
}

typedef struct add_task {
    const float *x;
    float *y;
} add_task;

static void add_range(void *ctx, size_t begin, size_t end, int thread) {
    const add_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) t->y[i] += t->x[i];
}

void lc_add(const lc_op *op, size_t count, const float *x, float *y) {
    add_task t = {x, y};
    lc_pool_for(op->pool, count, 16384, add_range, &t);
}
