/*
 * muon.c: Muon's direction: the momentum's nearest orthogonal matrix, by five Newton-Schulz steps
 * (train.json, "muon.order"). Tensors are taken in groups, so that experts' many small products
 * run as one list; the scratch of a group is bounded unless a single tensor is larger.
 */
#include "train/optim_internal.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>

enum { STEPS = 5, GROUP_FLOATS = 1 << 22, GROUP_TENSORS = 256, GRAIN = 8 };
static const float COEFFICIENT_A = 3.4445f, COEFFICIENT_B = -4.7750f, COEFFICIENT_C = 2.0315f;

/* A tensor on its way; rows <= cols, turned if it is stored the other way round. */
typedef struct item {
    const lc_param *param;
    size_t rows, cols, first_row; /* first_row: rows of the items before it */
    bool turned;
    float *x, *y, *s, *t; /* [rows][cols] twice, [rows][rows] twice */
    float inverse;        /* 1 / (norm + 1e-7) */
    double *squares;      /* [rows] */
} item;

typedef struct group {
    const lc_optim_pass *pass;
    item items[GROUP_TENSORS];
    lc_matmul products[GROUP_TENSORS];
    size_t n, rows; /* tensors; rows of all */
} group;

static size_t smaller(const lc_param *p) { return p->rows < p->cols ? p->rows : p->cols; }

/* Floats of a tensor's scratch; the squares are doubles. Each part is padded to 16 floats. */
static size_t pad(size_t n) { return (n + 15) / 16 * 16; }
static size_t floats_of(const lc_param *p) {
    size_t r = smaller(p);
    return 2 * pad(p->count) + 2 * pad(r * r) + pad(2 * r);
}

size_t lc_muon_floats(const lc_params *params) {
    size_t most = GROUP_FLOATS;
    for (size_t i = 0; i < params->count; i++)
        if (params->list[i].rank == 2 && params->list[i].group != LC_GROUP_EMBEDDING &&
            params->list[i].group != LC_GROUP_HEAD && params->list[i].gradient &&
            floats_of(&params->list[i]) > most)
            most = floats_of(&params->list[i]);
    return most;
}

static void place(group *g, const lc_param *p, float *at) {
    item *x = &g->items[g->n++];
    size_t r = smaller(p);
    *x = (item){.param = p,
                .rows = r,
                .cols = p->count / r,
                .first_row = g->rows,
                .turned = p->rows > p->cols,
                .x = at};
    x->y = x->x + pad(p->count);
    x->s = x->y + pad(p->count);
    x->t = x->s + pad(r * r);
    x->squares = (double *)(void *)(x->t + pad(r * r));
    g->rows += r;
}

/* ---- row by row ---- */

static const item *item_of(const group *g, size_t row) {
    size_t low = 0, high = g->n;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (g->items[middle].first_row <= row)
            low = middle;
        else
            high = middle;
    }
    return &g->items[low];
}

/* Row i of the (turned) tensor at `from`, element by element. */
static inline size_t element(const item *x, size_t i, size_t j) {
    return x->turned ? j * x->rows + i : i * x->cols + j;
}

/* x = gradient + momentum * buffer (Nesterov), and its squares. */
static void begin_rows(void *ctx, size_t begin, size_t end, int thread) {
    const group *g = ctx;
    const lc_optim *o = g->pass->optim;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const item *x = item_of(g, row);
        size_t i = row - x->first_row;
        const float *grad = g->pass->update->grad + x->param->offset;
        const float *buffer = o->state.first + x->param->offset;
        float *out = x->x + i * x->cols, factor = g->pass->factor, momentum = (float)o->o.momentum;
        for (size_t j = 0; j < x->cols; j++) {
            size_t at = element(x, i, j);
            out[j] = factor * grad[at] + momentum * buffer[at];
        }
        x->squares[i] = (double)o->o.kernels->dot(x->cols, out, out);
    }
}

static void scale_rows(void *ctx, size_t begin, size_t end, int thread) {
    const group *g = ctx;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const item *x = item_of(g, row);
        float *out = x->x + (row - x->first_row) * x->cols;
        for (size_t j = 0; j < x->cols; j++) out[j] *= x->inverse;
    }
}

/* t = b s + c t */
static void mix_squares(void *ctx, size_t begin, size_t end, int thread) {
    const group *g = ctx;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const item *x = item_of(g, row);
        size_t at = (row - x->first_row) * x->rows;
        const float *restrict s = x->s + at;
        float *restrict t = x->t + at;
        for (size_t j = 0; j < x->rows; j++) t[j] = COEFFICIENT_B * s[j] + COEFFICIENT_C * t[j];
    }
}

/* x = a x + y */
static void mix_rows(void *ctx, size_t begin, size_t end, int thread) {
    const group *g = ctx;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const item *x = item_of(g, row);
        size_t at = (row - x->first_row) * x->cols;
        const float *restrict y = x->y + at;
        float *restrict out = x->x + at;
        for (size_t j = 0; j < x->cols; j++) out[j] = COEFFICIENT_A * out[j] + y[j];
    }
}

static void write_rows(void *ctx, size_t begin, size_t end, int thread) {
    const group *g = ctx;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const item *x = item_of(g, row);
        size_t i = row - x->first_row;
        const float *from = x->x + i * x->cols;
        float *w = g->pass->optim->params->values + x->param->offset;
        float keep = lc_optim_keep(g->pass, x->param);
        float rate = (float)(lc_optim_rate(g->pass, x->param) * 0.2 *
                             sqrt((double)x->cols)); /* cols = max */
        for (size_t j = 0; j < x->cols; j++) {
            size_t at = element(x, i, j);
            w[at] = w[at] * keep - rate * from[j];
        }
    }
}

static void by_rows(group *g, lc_pool_task *task) {
    lc_pool_for(g->pass->optim->o.pool, g->rows, GRAIN, task, g);
}

/* ---- products ---- */

typedef enum product_kind { X_XT, S_S, T_X } product_kind;

static lc_matmul product_of(const item *x, product_kind kind) {
    size_t r = x->rows, c = x->cols;
    switch (kind) {
    case X_XT:
        return (lc_matmul){.rows = r,
                           .k = c,
                           .columns = r,
                           .x = x->x,
                           .ldx = c,
                           .right_rows = x->x,
                           .ld = c,
                           .c = x->s,
                           .ldc = r};
    case S_S: /* s is symmetric to the bit, so rows serve as columns */
        return (lc_matmul){.rows = r,
                           .k = r,
                           .columns = r,
                           .x = x->s,
                           .ldx = r,
                           .right_rows = x->s,
                           .ld = r,
                           .c = x->t,
                           .ldc = r};
    default:
        return (lc_matmul){.rows = r,
                           .k = r,
                           .columns = c,
                           .x = x->t,
                           .ldx = r,
                           .right_rows = x->x,
                           .ld = c,
                           .kn = true,
                           .c = x->y,
                           .ldc = c};
    }
}

static int multiply(group *g, product_kind kind, lc_err *err) {
    lc_optim *o = g->pass->optim;
    lc_op op = {.k = o->o.kernels,
                .path = o->o.bf16 ? &o->o.kernels->bf16 : &o->o.kernels->f32,
                .pool = o->o.pool};
    for (size_t i = 0; i < g->n; i++) g->products[i] = product_of(&g->items[i], kind);
    return lc_matmul_run(&op, &o->space, g->products, g->n, err);
}

static int run_group(group *g, lc_err *err) {
    int status = LC_OK;
    by_rows(g, begin_rows);
    for (size_t i = 0; i < g->n; i++) {
        item *x = &g->items[i];
        double sum = 0;
        for (size_t j = 0; j < x->rows; j++) sum += x->squares[j];
        x->inverse = (float)(1 / (sqrt(sum) + 1e-7));
    }
    by_rows(g, scale_rows);
    for (int step = 0; step < STEPS && status == LC_OK; step++) {
        status = multiply(g, X_XT, err);
        if (status == LC_OK) status = multiply(g, S_S, err);
        by_rows(g, mix_squares);
        if (status == LC_OK) status = multiply(g, T_X, err);
        by_rows(g, mix_rows);
    }
    if (status == LC_OK) by_rows(g, write_rows);
    g->n = g->rows = 0;
    return status;
}

int lc_muon_step(const lc_optim_pass *pass, lc_err *err) {
    const lc_optim *o = pass->optim;
    group *g = lc_calloc(1, sizeof *g);
    size_t used = 0;
    int status = LC_OK;
    if (!g) return lc_fail(err, LC_ENOMEM, "Muon: out of memory");
    g->pass = pass;
    for (size_t i = 0; i < o->params->count && status == LC_OK; i++) {
        const lc_param *p = &o->params->list[i];
        if (!pass->update->learns[i] || !lc_optim_is_muon(o, p)) continue;
        size_t floats = floats_of(p);
        if (g->n == GROUP_TENSORS || (g->n && used + floats > GROUP_FLOATS)) {
            status = run_group(g, err);
            used = 0;
        }
        place(g, p, o->scratch + used);
        used += floats;
    }
    if (g->n && status == LC_OK) status = run_group(g, err);
    lc_free(g);
    return status;
}
