/*
 * linear.c: matrix products, norms and sums of rows. A product is cut into panels of output
 * columns; the contraction is never cut.
 */
#include "ops/linear.h"

#include <string.h>

lc_op lc_op_exact(const lc_op *op) {
    lc_op exact = *op;
    exact.path = &op->k->f32;
    exact.round_quantised = false;
    return exact;
}

/* ---- left rows ---- */

lc_form lc_form_of(const lc_op *op, const lc_mat *w) {
    lc_form form = {0};
    if (op->path->element != sizeof(uint16_t)) return form;
    form.strips = lc_mat_in_strips(w);
    form.coded = lc_mat_groups(w, &form.kind, &form.size);
    return form;
}

static bool equal_forms(lc_form a, lc_form b) {
    if (a.coded != b.coded) return false;
    return a.coded ? a.kind == b.kind && a.size == b.size : a.strips == b.strips;
}

size_t lc_form_bytes(const lc_op *op, lc_form form, size_t rows, size_t k) {
    return form.coded ? op->k->coded.left_bytes(rows, k, form.size)
                      : lc_left_bytes(op->path, rows, k);
}

void lc_form_pack(const lc_op *op, lc_form form, size_t rows, size_t k, const float *x, size_t ldx,
                  void *out) {
    if (form.coded)
        op->k->coded.pack(form.kind, form.size, rows, k, x, ldx, out);
    else
        (form.strips ? op->path->pack_kn : op->path->pack_nk)(rows, k, x, ldx, out);
}

static size_t floats_of(size_t bytes) { return lc_ceil_div(bytes, 64) * 16; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

size_t lc_operand_floats(const lc_op *op, size_t rows, size_t k) {
    size_t plain = lc_left_bytes(op->path, rows, k);
    return floats_of(larger(plain, op->k->coded.left_bytes(rows, k, LC_K_BLOCK)));
}

lc_operand lc_operand_of(size_t rows, size_t k, const float *x, size_t ldx, float *space) {
    return (lc_operand){.x = x, .ldx = ldx, .left = {.rows = rows, .k = k}, .space = space};
}

typedef struct pack_task {
    const lc_op *op;
    const lc_operand *x;
} pack_task;

static void pack_rows(void *ctx, size_t begin, size_t end, int thread) {
    const pack_task *t = ctx;
    const lc_left *left = &t->x->left;
    (void)thread;
    for (size_t row = begin * LC_PACK_ROWS; row < end * LC_PACK_ROWS && row < left->rows;
         row += LC_PACK_ROWS) {
        size_t n = left->rows - row < LC_PACK_ROWS ? left->rows - row : LC_PACK_ROWS;
        char *out = (char *)t->x->space + lc_form_bytes(t->op, left->form, row, left->k);
        lc_form_pack(t->op, left->form, n, left->k, t->x->x + row * t->x->ldx, t->x->ldx, out);
    }
}

const lc_left *lc_operand_pack(const lc_op *op, lc_operand *x, lc_form form) {
    if (x->left.data && equal_forms(x->left.form, form)) return &x->left;
    x->left.form = form;
    x->left.data = x->space;
    pack_task t = {op, x};
    lc_pool_for(op->pool, lc_ceil_div(x->left.rows, LC_PACK_ROWS), 1, pack_rows, &t);
    return &x->left;
}

/* ---- right rows ---- */

static bool usable_in_place(const lc_op *op, const lc_mat *w) {
    lc_dtype wanted = op->path->element == sizeof(float) ? LC_F32 : LC_BF16;
    return w->type == wanted && w->scaling == LC_SCALE_NONE && !lc_mat_in_strips(w) &&
           w->cols % LC_K_BLOCK == 0;
}

static size_t right_floats(size_t n, size_t cols) { return n * lc_pad_k(cols); }

/* Rows row0 .. row0+n-1 for nk products of op->path: *ld elements apart, zero up to lc_pad_k(cols).
 * scratch: right_floats(n, cols) floats. */
static const void *right_rows(const lc_op *op, const lc_mat *w, size_t row0, size_t n,
                              float *scratch, size_t *ld) {
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

/* ---- products ---- */

size_t lc_product_floats(const lc_op *op, size_t rows, size_t k) {
    return floats_of(op->path->scratch_bytes(rows, k));
}

/* With a few left rows weights are read from memory: the longer the piece, the better, but threads
 * should end together. */
enum { FEW_LEAST = 64, FEW_MOST = 768, FEW_TASKS = 2 /* a thread */ };

static size_t few_width(size_t columns, size_t threads) {
    size_t width = lc_ceil_div(lc_ceil_div(columns, FEW_TASKS * threads), LC_STRIP_ROWS);
    width *= LC_STRIP_ROWS;
    return width < FEW_LEAST ? FEW_LEAST : width > FEW_MOST ? FEW_MOST : width;
}

size_t lc_columns_most(const lc_op *op, size_t rows) {
    const lc_coded_path *coded = &op->k->coded;
    size_t most = larger(lc_panel(op->path, rows), rows > LC_FEW_ROWS ? coded->wide : coded->few);
    return rows > LC_FEW_ROWS ? most : larger(most, FEW_MOST);
}

/* Zero points of a panel's groups. */
static size_t zeros_floats(size_t n, size_t groups) {
    return floats_of(n * groups * sizeof(int16_t));
}

size_t lc_columns_floats(const lc_op *op, size_t rows, size_t k) {
    size_t n = larger(lc_columns_most(op, rows), lc_columns_most(op, 1)); /* fewer rows fit too */
    size_t plain = lc_product_floats(op, rows, k) + right_floats(n, k);
    size_t coded = floats_of(op->k->coded.scratch_bytes(rows, k, LC_K_BLOCK)) +
                   zeros_floats(n, lc_ceil_div(k, LC_K_BLOCK));
    return larger(plain, coded);
}

size_t lc_columns_width(const lc_op *op, lc_form form, size_t rows, size_t columns) {
    const lc_coded_path *coded = &op->k->coded;
    size_t step = form.coded ? coded->few : op->path->panel;
    size_t most = form.coded ? coded->wide : op->path->wide;
    size_t threads = (size_t)lc_pool_threads(op->pool), tasks = lc_ceil_div(columns, most);
    if (rows <= LC_FEW_ROWS) {
        size_t width = few_width(columns, threads);
        if (form.strips) return width;
        return form.coded ? coded->few : width < op->path->few ? width : op->path->few;
    }
    tasks = lc_ceil_div(tasks, threads) * threads;
    size_t width = lc_ceil_div(lc_ceil_div(columns, tasks), step) * step;
    return width < most ? width : most;
}

static void coded_columns(const lc_op *op, const lc_mat *w, const lc_left *left, size_t row0,
                          size_t n, float *c, size_t ldc, float *scratch) {
    size_t groups = lc_ceil_div(left->k, left->form.size);
    lc_coded_product p = {.rows = left->rows,
                          .k = left->k,
                          .columns = n,
                          .left = left->data,
                          .c = c,
                          .ldc = ldc,
                          .scratch = scratch + zeros_floats(n, groups)};
    lc_mat_coded_rows(w, row0, n, (int16_t *)(void *)scratch, &p.right);
    op->k->coded.multiply(&p);
}

void lc_columns(const lc_op *op, const lc_mat *w, const lc_left *left, size_t row0, size_t n,
                float *c, size_t ldc, float *scratch) {
    if (left->form.coded) {
        coded_columns(op, w, left, row0, n, c, ldc, scratch);
        return;
    }
    lc_product p = {.rows = left->rows,
                    .k = left->k,
                    .columns = n,
                    .left = left->data,
                    .c = c,
                    .ldc = ldc,
                    .scratch = scratch};
    if (left->form.strips) {
        p.right = (const char *)w->data + row0 / LC_STRIP_ROWS * w->groups.stride;
        op->path->multiply_strips(&p);
        return;
    }
    p.right =
        right_rows(op, w, row0, n, scratch + lc_product_floats(op, left->rows, left->k), &p.ld);
    op->path->multiply_nk(&p);
}

void lc_gated_columns(const lc_op *op, const lc_mat *gate, const lc_mat *up, const lc_left *left,
                      size_t row0, size_t n, const lc_operand *hidden, float *scratch) {
    float *rows = scratch + lc_product_floats(op, left->rows, left->k);
    lc_gated g = {.gate = {.rows = left->rows,
                           .k = left->k,
                           .columns = n,
                           .left = left->data,
                           .scratch = scratch},
                  .hidden = hidden->space,
                  .width = hidden->left.k,
                  .column = row0};
    g.gate.right = right_rows(op, gate, row0, n, rows, &g.gate.ld);
    g.up = right_rows(op, up, row0, n, rows + right_floats(n, left->k), &g.gate.ld);
    op->path->multiply_gated(&g);
}

typedef struct linear_task {
    const lc_op *op;
    const lc_mat *w;
    const lc_left *left;
    size_t width;
    float *y;
    size_t ldy;
} linear_task;

static void linear_panels(void *ctx, size_t begin, size_t end, int thread) {
    const linear_task *t = ctx;
    for (size_t p = begin; p < end; p++) {
        size_t row0 = p * t->width, left = t->w->rows - row0;
        lc_columns(t->op, t->w, t->left, row0, left < t->width ? left : t->width, t->y + row0,
                   t->ldy, t->op->scratch[thread]);
    }
}

int lc_linear(const lc_op *op, const lc_mat *w, lc_operand *x, float *y, size_t ldy, lc_err *err) {
    int status = lc_mat_acquire(w, err);
    if (status != LC_OK) return status;
    lc_form form = lc_form_of(op, w);
    linear_task t = {.op = op, .w = w, .left = lc_operand_pack(op, x, form), .y = y, .ldy = ldy};
    t.width = lc_columns_width(op, form, x->left.rows, w->rows);
    lc_pool_for(op->pool, lc_ceil_div(w->rows, t.width), 1, linear_panels, &t);
    lc_mat_release(w);
    return LC_OK;
}

/* ---- rows ---- */

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
        if (t->norm.scale != 1.0f) t->op->k->scale(t->n, t->norm.scale, y);
    }
}

void lc_norm_rows(const lc_op *op, size_t rows, size_t n, const float *x, size_t ldx, lc_norm norm,
                  float *y, size_t ldy) {
    norm_task t = {op, n, ldx, ldy, x, norm, y};
    lc_pool_for(op->pool, rows, LC_ROW_GRAIN, norm_rows, &t);
}

typedef struct add_task {
    const lc_kernels *k;
    const float *x;
    float *y;
} add_task;

static void add_range(void *ctx, size_t begin, size_t end, int thread) {
    const add_task *t = ctx;
    (void)thread;
    t->k->add(end - begin, t->y + begin, t->x + begin, t->y + begin);
}

void lc_add(const lc_op *op, size_t count, const float *x, float *y) {
    add_task t = {op->k, x, y};
    lc_pool_for(op->pool, count, 16384, add_range, &t);
}
