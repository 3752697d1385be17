/*
 * muon.c: Muon (spec/model.md 5.6): the momentum's matrix is moved towards the nearest one with
 * orthonormal rows by five Newton-Schulz steps, x <- a x + (b s + c s s) x with s = x x^T.
 *
 * Tensors are worked on in groups of some millions of elements, so that the products of many small
 * matrices (experts) run as one list, and the memory for them is bounded by the largest tensor or
 * the group.
 */
#include "train/optim_parts.h"

#include "base/err.h"
#include "base/mem.h"
#include "train/matmul.h"

#include <math.h>
#include <string.h>

enum { GROUP_FLOATS = 4 << 20, GROUP_TENSORS = 64, STEPS = 5, GRAIN = 16384 };

static const float A = 3.4445f, B = -4.7750f, C = 2.0315f;

/* A matrix on its way: m <= n; turned if the tensor has more rows than columns. */
typedef struct matrix {
    const lc_param *p;
    size_t m, n;
    bool turned;
    float *x, *y, *s, *t; /* [m][n] twice, [m][m] twice */
} matrix;

typedef struct group {
    lc_optim *optim;
    const lc_muon_step *step;
    lc_op op;
    lc_space *space, *buffers;
    double *sums;
    matrix list[GROUP_TENSORS];
    size_t count;
} group;

static size_t floats_of(const lc_param *p) {
    size_t m = p->rows < p->cols ? p->rows : p->cols;
    return 2 * p->count + 2 * m * m;
}

typedef struct range_task {
    float *a, *b;
    const float *c;
    float f, g;
} range_task;

/* a = momentum * a + g * f; b = momentum * a + g * f once more: Nesterov. f: the clipping. */
static void momentum_range(void *ctx, size_t begin, size_t end, int thread) {
    const range_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float g = t->c[i] * t->f;
        t->a[i] = t->g * t->a[i] + g;
        t->b[i] = g + t->g * t->a[i];
    }
}

static void scale_range(void *ctx, size_t begin, size_t end, int thread) {
    const range_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) t->a[i] = t->c[i] * t->f;
}

/* a = f a + g c */
static void mix_range(void *ctx, size_t begin, size_t end, int thread) {
    const range_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) t->a[i] = t->f * t->a[i] + t->g * t->c[i];
}

/* x = u / (|u| + 1e-7), its shorter side first. */
static void begin_matrix(group *g, matrix *x) {
    lc_optim *o = g->optim;
    const lc_param *p = x->p;
    range_task t = {o->first + p->offset, x->y, g->step->grad + p->offset, (float)g->step->scale,
                    (float)o->o.momentum};
    lc_pool_for(o->o.pool, p->count, GRAIN, momentum_range, &t);
    double norm = sqrt(lc_optim_squares(o->o.pool, p->count, x->y, g->sums));
    float *to = x->turned ? x->y : x->x;
    range_task s = {.a = to, .c = x->y, .f = (float)(1 / (norm + 1e-7))};
    lc_pool_for(o->o.pool, p->count, GRAIN, scale_range, &s);
    if (x->turned) g->op.k->transpose(p->rows, p->cols, x->y, p->cols, x->x, p->rows);
}

/* One product of every matrix. */
typedef enum product { GRAM, SQUARE, APPLY } product;

static int multiply(group *g, product which, lc_err *err) {
    lc_matmul list[GROUP_TENSORS];
    for (size_t i = 0; i < g->count; i++) {
        matrix *x = &g->list[i];
        size_t m = x->m, n = x->n;
        list[i] = (lc_matmul){.rows = m, .k = m, .columns = m, .ldx = m, .ld = m, .ldc = m};
        switch (which) {
        case GRAM: /* s = x x^T */
            list[i].k = list[i].ldx = list[i].ld = n;
            list[i].x = list[i].right_rows = x->x;
            list[i].c = x->s;
            break;
        case SQUARE: /* t = s s, and s is its own transpose */
            list[i].x = list[i].right_rows = x->s;
            list[i].c = x->t;
            break;
        case APPLY: /* y += s x */
            list[i].columns = list[i].ld = list[i].ldc = n;
            list[i].x = x->s;
            list[i].right_rows = x->x;
            list[i].c = x->y;
            list[i].kn = list[i].add = true;
            break;
        }
    }
    return lc_matmul_run(&g->op, g->space, list, g->count, err);
}

static int iterate(group *g, lc_err *err) {
    lc_pool *pool = g->op.pool;
    int status = multiply(g, GRAM, err);
    if (status == LC_OK) status = multiply(g, SQUARE, err);
    for (size_t i = 0; i < g->count && status == LC_OK; i++) {
        matrix *x = &g->list[i];
        range_task s = {.a = x->s, .c = x->t, .f = B, .g = C};
        lc_pool_for(pool, x->m * x->m, GRAIN, mix_range, &s);
        range_task y = {.a = x->y, .c = x->x, .f = A};
        lc_pool_for(pool, x->m * x->n, GRAIN, scale_range, &y);
    }
    if (status == LC_OK) status = multiply(g, APPLY, err);
    for (size_t i = 0; i < g->count; i++) {
        float *x = g->list[i].x;
        g->list[i].x = g->list[i].y;
        g->list[i].y = x;
    }
    return status;
}

/* w = w (1 - rate decay) - rate 0.2 sqrt(max(m, n)) x */
static void end_matrix(group *g, matrix *x) {
    const lc_optim *o = g->optim;
    const lc_param *p = x->p;
    double rate = lc_optim_rate(o, p, g->step->lr);
    const float *update = x->x;
    if (x->turned) {
        g->op.k->transpose(p->cols, p->rows, x->x, p->rows, x->y, p->cols);
        update = x->y;
    }
    range_task t = {.a = lc_param_values(o->params, p),
                    .c = update,
                    .f = (float)(1 - rate * o->o.decay),
                    .g = (float)(-rate * 0.2 * sqrt((double)x->n))};
    lc_pool_for(o->o.pool, p->count, GRAIN, mix_range, &t);
}

static int run_group(group *g, lc_err *err) {
    float *at = g->buffers->block ? (float *)(void *)g->buffers->block : NULL;
    int status = LC_OK;
    for (size_t i = 0; i < g->count; i++) {
        matrix *x = &g->list[i];
        size_t r = x->p->rows, c = x->p->cols;
        x->turned = r > c;
        x->m = x->turned ? c : r;
        x->n = x->turned ? r : c;
        x->x = at;
        x->y = x->x + r * c;
        x->s = x->y + r * c;
        x->t = x->s + x->m * x->m;
        at = x->t + x->m * x->m;
        begin_matrix(g, x);
    }
    for (int i = 0; i < STEPS && status == LC_OK; i++) status = iterate(g, err);
    for (size_t i = 0; i < g->count && status == LC_OK; i++) end_matrix(g, &g->list[i]);
    g->count = 0;
    return status;
}

/* Groups in the list's order. */
static int run_all(group *g, lc_err *err) {
    const lc_params *p = g->optim->params;
    size_t floats = 0;
    int status = LC_OK;
    for (size_t i = 0; i < p->count && status == LC_OK; i++) {
        const lc_param *t = &p->list[i];
        if (!lc_optim_by_muon(g->optim, t) || !lc_optim_trains(t, g->step->trained)) continue;
        size_t more = floats_of(t);
        if (g->count == GROUP_TENSORS || (g->count && floats + more > GROUP_FLOATS)) {
            status = run_group(g, err);
            floats = 0;
        }
        g->list[g->count++].p = t;
        floats += more;
    }
    return status == LC_OK && g->count ? run_group(g, err) : status;
}

int lc_muon(lc_optim *optim, const lc_muon_step *step, lc_err *err) {
    const lc_params *p = optim->params;
    const lc_kernels *k = optim->o.kernels;
    size_t most = GROUP_FLOATS, pieces = 1;
    for (size_t i = 0; i < p->count; i++) {
        if (!lc_optim_by_muon(optim, &p->list[i])) continue;
        if (floats_of(&p->list[i]) > most) most = floats_of(&p->list[i]);
        if (lc_optim_pieces(p->list[i].count) > pieces) pieces = lc_optim_pieces(p->list[i].count);
    }
    lc_space space = {0}, buffers = {0};
    group *g = lc_calloc(1, sizeof *g);
    double *sums = lc_alloc(pieces * sizeof *sums);
    int status = lc_space_take(&buffers, most * sizeof(float)) && g && sums
                     ? LC_OK
                     : lc_fail(err, LC_ENOMEM, "Muon: no %zu bytes left", most * sizeof(float));
    if (status == LC_OK) {
        *g = (group){
            .optim = optim,
            .step = step,
            .op = {.k = k, .path = optim->o.bf16 ? &k->bf16 : &k->f32, .pool = optim->o.pool},
            .space = &space,
            .buffers = &buffers,
            .sums = sums};
        status = run_all(g, err);
    }
    lc_free(g);
    lc_free(sums);
    lc_space_free(&space);
    lc_space_free(&buffers);
    return status;
}
