/*
 * linear.c: matrix products, norms and sums of rows. A product is cut into panels of 16 output
 * columns: a thread decodes and transposes the 16 weight rows once and multiplies all rows of the
 * step with them. The contraction is never cut.
 */
#include "ops/linear.h"

#include <string.h>

void lc_operand_row(const lc_op *op, size_t cols, const float *x, float *out) {
    if (op->bf16)
        op->k->round_bf16(cols, x, out);
    else if (out != x)
        memcpy(out, x, cols * sizeof *x);
    memset(out + cols, 0, (lc_pad_k(cols) - cols) * sizeof *out);
}

typedef struct prepare_task {
    const lc_op *op;
    size_t cols, ldx, stride;
    const float *x;
    float *out;
} prepare_task;

static void prepare_rows(void *ctx, size_t begin, size_t end, int thread) {
    const prepare_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        lc_operand_row(t->op, t->cols, t->x + i * t->ldx, t->out + i * t->stride);
}

lc_operand lc_operand_prepare(const lc_op *op, size_t rows, size_t cols, const float *x, size_t ldx,
                              float *out) {
    prepare_task t = {op, cols, ldx, lc_pad_k(cols), x, out};
    lc_pool_for(op->pool, rows, LC_ROW_GRAIN, prepare_rows, &t);
    return (lc_operand){out, rows, cols, t.stride};
}

void lc_weight_row(const lc_op *op, const lc_mat *w, size_t row, float *out) {
    lc_mat_row_f32(w, row, out);
    if (op->bf16 || (op->round_quantised && w->scaling != LC_SCALE_NONE))
        op->k->round_bf16(w->cols, out, out);
}

void lc_panel_pack(const lc_op *op, const lc_mat *w, size_t row0, size_t n, float *panel,
                   float *scratch) {
    size_t stride = lc_pad_k(w->cols);
    for (size_t i = 0; i < LC_LANES; i++) {
        float *row = scratch + i * stride;
        size_t filled = 0;
        if (i < n) {
            lc_weight_row(op, w, row0 + i, row);
            filled = w->cols;
        }
        memset(row + filled, 0, (stride - filled) * sizeof *row);
    }
    op->k->transpose(LC_LANES, stride, scratch, stride, panel, LC_LANES);
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
    float *panel = t->op->scratch[thread], *rows = panel + LC_LANES * t->x.stride;
    for (size_t p = begin; p < end; p++) {
        size_t row0 = p * LC_LANES, n = t->w->rows - row0 < LC_LANES ? t->w->rows - row0 : LC_LANES;
        lc_panel_pack(t->op, t->w, row0, n, panel, rows);
        t->op->k->gemm(&(lc_gemm){.rows = t->x.rows,
                                  .k = t->x.stride,
                                  .a = t->x.data,
                                  .lda = t->x.stride,
                                  .panel = panel,
                                  .ldp = LC_LANES,
                                  .c = t->y + row0,
                                  .ldc = t->ldy,
                                  .columns = n});
    }
}

size_t lc_linear_scratch(size_t k) { return 2 * LC_LANES * lc_pad_k(k); }

int lc_linear(const lc_op *op, const lc_mat *w, lc_operand x, float *y, size_t ldy, lc_err *err) {
    int status = lc_mat_acquire(w, err);
    if (status != LC_OK) return status;
    linear_task t = {op, w, x, y, ldy};
    lc_pool_for(op->pool, lc_ceil_div(w->rows, LC_LANES), 1, linear_panels, &t);
    lc_mat_release(w);
    return LC_OK;
}

int lc_linear_f32(const lc_op *op, const lc_mat *w, lc_operand x, float *y, size_t ldy,
                  lc_err *err) {
    lc_op exact = *op;
    exact.bf16 = exact.round_quantised = false;
    return lc_linear(&exact, w, x, y, ldy, err);
}

typedef struct norm_task {
    const lc_op *op;
    size_t n, ldx, ldy;
    const float *x, *w;
    float eps, scale;
    float *y;
} norm_task;

static void norm_rows(void *ctx, size_t begin, size_t end, int thread) {
    const norm_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float *y = t->y + i * t->ldy;
        t->op->k->rms_norm(t->n, t->x + i * t->ldx, t->w, t->eps, y);
        if (t->scale != 1.0f)
            for (size_t j = 0; j < t->n; j++) y[j] *= t->scale;
    }
}

void lc_norm_rows(const lc_op *op, size_t rows, size_t n, const float *x, size_t ldx,
                  const float *w, float eps, float scale, float *y, size_t ldy) {
    norm_task t = {op, n, ldx, ldy, x, w, eps, scale, y};
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
