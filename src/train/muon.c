/*
 * muon.c: Muon's direction: the momentum's nearest orthogonal matrix, by five Newton-Schulz steps
 * (train.json, "muon.order"). A small tensor is one thread's, from the momentum to the weights, so
 * that it stays in that thread's cache; a large one is all threads'.
 */
#include "train/optim_internal.h"

#include "base/err.h"

#include <math.h>

enum { STEPS = 5, SMALL_FLOATS = 1 << 20, GRAIN = 8 };
static const float COEFFICIENT_A = 3.4445f, COEFFICIENT_B = -4.7750f, COEFFICIENT_C = 2.0315f;

/* A tensor on its way; rows <= cols, turned if it is stored the other way round. */
typedef struct matrix {
    const lc_optim_pass *pass;
    const lc_param *param;
    lc_pool *pool; /* NULL: one thread's */
    size_t rows, cols;
    bool turned;
    float *x, *y, *s, *t; /* [rows][cols] twice, [rows][rows] twice */
    float inverse;        /* 1 / (norm + 1e-7) */
    double *squares;      /* [rows] */
} matrix;

bool lc_muon_takes(const lc_param *p) {
    return p->rank == 2 && (p->group == LC_GROUP_MATRIX || p->group == LC_GROUP_PROJECTION ||
                            p->group == LC_GROUP_INDEXER);
}

static size_t smaller(const lc_param *p) { return p->rows < p->cols ? p->rows : p->cols; }

/* Floats of a tensor's scratch; the squares are doubles. Each part is padded to 16 floats. */
static size_t pad(size_t n) { return (n + 15) / 16 * 16; }
static size_t floats_of(const lc_param *p) {
    size_t r = smaller(p);
    return 2 * pad(p->count) + 2 * pad(r * r) + pad(2 * r);
}
static bool small(const lc_param *p) { return floats_of(p) <= SMALL_FLOATS; }

size_t lc_muon_bytes(const lc_params *params, size_t threads) {
    size_t most[2] = {0};
    for (size_t i = 0; i < params->count; i++) {
        const lc_param *p = &params->list[i];
        if (lc_muon_takes(p) && floats_of(p) > most[small(p)]) most[small(p)] = floats_of(p);
    }
    if (most[0] < most[1]) most[0] = most[1];
    return (most[0] + (threads - 1) * most[1]) * sizeof(float);
}

static matrix place(const lc_optim_pass *pass, const lc_param *p, lc_pool *pool, float *at) {
    size_t r = smaller(p);
    matrix m = {.pass = pass,
                .param = p,
                .pool = pool,
                .rows = r,
                .cols = p->count / r,
                .turned = p->rows > p->cols,
                .x = at};
    m.y = m.x + pad(p->count);
    m.s = m.y + pad(p->count);
    m.t = m.s + pad(r * r);
    m.squares = (double *)(void *)(m.t + pad(r * r));
    return m;
}

/* ---- row by row ---- */

/* Row i of the (turned) tensor, element by element. */
static inline size_t element(const matrix *m, size_t i, size_t j) {
    return m->turned ? j * m->rows + i : i * m->cols + j;
}

/* x = gradient + momentum * buffer (Nesterov), and its squares. */
static void begin_rows(void *ctx, size_t begin, size_t end, int thread) {
    const matrix *m = ctx;
    const lc_optim *o = m->pass->optim;
    const float *grad = m->pass->update->grad + m->param->offset;
    const float *buffer = o->state.first + m->param->offset;
    float factor = m->pass->factor, momentum = (float)o->o.momentum;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float *out = m->x + i * m->cols;
        for (size_t j = 0; j < m->cols; j++) {
            size_t at = element(m, i, j);
            out[j] = factor * grad[at] + momentum * buffer[at];
        }
        m->squares[i] = (double)o->o.kernels->dot(m->cols, out, out);
    }
}

static void scale_rows(void *ctx, size_t begin, size_t end, int thread) {
    const matrix *m = ctx;
    (void)thread;
    for (size_t i = begin * m->cols; i < end * m->cols; i++) m->x[i] *= m->inverse;
}

/* t = b s + c t */
static void mix_squares(void *ctx, size_t begin, size_t end, int thread) {
    const matrix *m = ctx;
    const float *restrict s = m->s;
    float *restrict t = m->t;
    (void)thread;
    for (size_t i = begin * m->rows; i < end * m->rows; i++)
        t[i] = COEFFICIENT_B * s[i] + COEFFICIENT_C * t[i];
}

/* x = a x + y */
static void mix_rows(void *ctx, size_t begin, size_t end, int thread) {
    const matrix *m = ctx;
    const float *restrict y = m->y;
    float *restrict x = m->x;
    (void)thread;
    for (size_t i = begin * m->cols; i < end * m->cols; i++) x[i] = COEFFICIENT_A * x[i] + y[i];
}

static void write_rows(void *ctx, size_t begin, size_t end, int thread) {
    const matrix *m = ctx;
    float *w = m->pass->optim->params->values + m->param->offset;
    float keep = lc_optim_keep(m->pass, m->param);
    float rate =
        (float)(lc_optim_rate(m->pass, m->param) * 0.2 * sqrt((double)m->cols)); /* cols = max */
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const float *from = m->x + i * m->cols;
        for (size_t j = 0; j < m->cols; j++) {
            size_t at = element(m, i, j);
            w[at] = w[at] * keep - rate * from[j];
        }
    }
}

static void by_rows(matrix *m, lc_pool_task *task) {
    lc_pool_for(m->pool, m->rows, GRAIN, task, m);
}

/* ---- products ---- */

typedef enum product_kind { X_XT, S_S, T_X } product_kind;

static lc_matmul product_of(const matrix *m, product_kind kind) {
    size_t r = m->rows, c = m->cols;
    switch (kind) {
    case X_XT:
        return (lc_matmul){.rows = r,
                           .k = c,
                           .columns = r,
                           .x = m->x,
                           .ldx = c,
                           .right_rows = m->x,
                           .ld = c,
                           .c = m->s,
                           .ldc = r};
    case S_S: /* s is symmetric to the bit, so rows serve as columns */
        return (lc_matmul){.rows = r,
                           .k = r,
                           .columns = r,
                           .x = m->s,
                           .ldx = r,
                           .right_rows = m->s,
                           .ld = r,
                           .c = m->t,
                           .ldc = r};
    default:
        return (lc_matmul){.rows = r,
                           .k = r,
                           .columns = c,
                           .x = m->t,
                           .ldx = r,
                           .right_rows = m->x,
                           .ld = c,
                           .kn = true,
                           .c = m->y,
                           .ldc = c};
    }
}

static int multiply(const matrix *m, product_kind kind, lc_space *space, lc_err *err) {
    const lc_optim *o = m->pass->optim;
    lc_op op = {.k = o->o.kernels,
                .path = o->o.bf16 ? &o->o.kernels->bf16 : &o->o.kernels->f32,
                .pool = m->pool};
    lc_matmul product = product_of(m, kind);
    return lc_matmul_run(&op, space, &product, 1, err);
}

static int step_tensor(const lc_optim_pass *pass, const lc_param *p, lc_pool *pool,
                       lc_muon_worker *w, lc_err *err) {
    float *scratch = lc_space_take(&w->scratch, floats_of(p) * sizeof(float));
    if (!scratch) return lc_fail(err, LC_ENOMEM, "Muon: out of memory");
    matrix m = place(pass, p, pool, scratch);
    double sum = 0;
    int status = LC_OK;
    by_rows(&m, begin_rows);
    for (size_t i = 0; i < m.rows; i++) sum += m.squares[i];
    m.inverse = (float)(1 / (sqrt(sum) + 1e-7));
    by_rows(&m, scale_rows);
    for (int step = 0; step < STEPS && status == LC_OK; step++) {
        status = multiply(&m, X_XT, &w->products, err);
        if (status == LC_OK) status = multiply(&m, S_S, &w->products, err);
        by_rows(&m, mix_squares);
        if (status == LC_OK) status = multiply(&m, T_X, &w->products, err);
        by_rows(&m, mix_rows);
    }
    if (status == LC_OK) by_rows(&m, write_rows);
    return status;
}

/* ---- tensors ---- */

static bool moves(const lc_optim_pass *pass, size_t i) {
    return pass->update->learns[i] && lc_optim_is_muon(pass->optim, &pass->optim->params->list[i]);
}

static void step_small(void *ctx, size_t begin, size_t end, int thread) {
    const lc_optim_pass *pass = ctx;
    lc_muon_worker *w = &pass->optim->workers[thread];
    for (size_t i = begin; i < end && w->status == LC_OK; i++) {
        const lc_param *p = &pass->optim->params->list[i];
        if (moves(pass, i) && small(p)) w->status = step_tensor(pass, p, NULL, w, &w->err);
    }
}

int lc_muon_step(const lc_optim_pass *pass, lc_err *err) {
    lc_optim_pass shared = *pass;
    lc_optim *o = pass->optim;
    int status = LC_OK;
    for (size_t i = 0; i < o->n_workers; i++) o->workers[i].status = LC_OK;
    lc_pool_for(o->o.pool, o->params->count, 1, step_small, &shared);
    for (size_t i = 0; i < o->n_workers && status == LC_OK; i++) {
        status = o->workers[i].status;
        if (status != LC_OK && err) *err = o->workers[i].err;
    }
    for (size_t i = 0; i < o->params->count && status == LC_OK; i++) {
        const lc_param *p = &o->params->list[i];
        if (moves(pass, i) && !small(p))
            status = step_tensor(pass, p, o->o.pool, &o->workers[0], err);
    }
    for (size_t i = 0; i < o->n_workers; i++) {
        o->operations += o->workers[i].products.operations;
        o->workers[i].products.operations = 0;
    }
    return status;
}
