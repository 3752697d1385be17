/*
 * optim.c: norms, AdamW, averages. Tensors are worked on in chunks, so that one large table and a
 * thousand small norms keep all threads busy alike. The rule, step by step, is train.json's
 * "adamw.order"; powers of the betas are products, not libm, for equal bits everywhere.
 */
#include "train/optim.h"

#include "base/err.h"
#include "base/mem.h"
#include "train/optim_internal.h"

#include <math.h>

enum { CHUNK = 16384 /* floats */, WIDTH = 16 };

typedef struct lc_optim_chunk {
    uint32_t param;
    size_t begin, count; /* in the block */
} lc_optim_chunk;

lc_optim_options lc_optim_defaults(void) {
    lc_optim_options o = {.kind = LC_OPTIM_ADAMW,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .eps = 1e-16,
                          .momentum = 0.95,
                          .decay = 0.1,
                          .clip = 1.0};
    for (int i = 0; i < LC_GROUP_COUNT; i++) o.rates[i] = 1;
    return o;
}

bool lc_optim_is_muon(const lc_optim *x, const lc_param *p) {
    return x->o.kind == LC_OPTIM_MUON && lc_muon_takes(p);
}

double lc_optim_rate(const lc_optim_pass *pass, const lc_param *p) {
    return pass->update->rate * pass->optim->o.rates[p->group];
}

float lc_optim_keep(const lc_optim_pass *pass, const lc_param *p) {
    return p->decay ? (float)(1 - lc_optim_rate(pass, p) * pass->optim->o.decay) : 1.0f;
}

/* ---- memory ---- */

static size_t chunks_of(const lc_param *p) { return (p->count + CHUNK - 1) / CHUNK; }

static void make_chunks(lc_optim *x) {
    lc_optim_chunk *out = x->chunks;
    for (size_t i = 0; i < x->params->count; i++) {
        const lc_param *p = &x->params->list[i];
        for (size_t at = 0; at < p->count; at += CHUNK)
            *out++ = (lc_optim_chunk){(uint32_t)i, p->offset + at,
                                      p->count - at < CHUNK ? p->count - at : CHUNK};
    }
}

static size_t threads_of(const lc_optim_options *o) {
    return o->pool ? (size_t)lc_pool_threads(o->pool) : 1;
}

static bool take_memory(lc_optim *x) {
    const lc_params *p = x->params;
    x->state.first = lc_params_block(p);
    x->state.second = lc_params_block(p);
    x->state.steps = lc_calloc(p->count, sizeof *x->state.steps);
    x->chunks = lc_calloc(x->n_chunks, sizeof *x->chunks);
    x->sums = lc_calloc(x->n_chunks, sizeof *x->sums);
    if (x->o.average > 0 && !(x->state.average = lc_params_block(p))) return false;
    x->n_workers = threads_of(&x->o);
    x->workers = lc_calloc(x->n_workers, sizeof *x->workers);
    return x->state.first && x->state.second && x->state.steps && x->chunks && x->sums &&
           x->workers;
}

size_t lc_optim_bytes(const lc_params *p, const lc_optim_options *o) {
    size_t blocks = o->average > 0 ? 3 : 2;
    return sizeof(float) * blocks * p->floats +
           (o->kind == LC_OPTIM_MUON ? lc_muon_bytes(p, threads_of(o)) : 0);
}

int lc_optim_new(lc_params *params, const lc_optim_options *o, lc_optim **out, lc_err *err) {
    lc_optim *x = *out = lc_calloc(1, sizeof *x);
    if (!x) return lc_fail(err, LC_ENOMEM, "optimiser: out of memory");
    x->params = params;
    x->o = *o;
    for (size_t i = 0; i < params->count; i++) x->n_chunks += chunks_of(&params->list[i]);
    if (!take_memory(x)) {
        lc_optim_free(x);
        *out = NULL;
        return lc_fail(err, LC_ENOMEM, "optimiser: no %zu bytes left", lc_optim_bytes(params, o));
    }
    make_chunks(x);
    if (x->state.average) memcpy(x->state.average, params->values, params->floats * sizeof(float));
    return LC_OK;
}

void lc_optim_free(lc_optim *x) {
    if (!x) return;
    lc_free(x->state.first);
    lc_free(x->state.second);
    lc_free(x->state.average);
    lc_free(x->state.steps);
    lc_free(x->chunks);
    lc_free(x->sums);
    for (size_t i = 0; x->workers && i < x->n_workers; i++) {
        lc_space_free(&x->workers[i].scratch);
        lc_space_free(&x->workers[i].products);
    }
    lc_free(x->workers);
    lc_free(x);
}

lc_optim_state lc_optim_state_of(lc_optim *x) { return x->state; }

/* ---- the norm ---- */

static void sum_squares(void *ctx, size_t begin, size_t end, int thread) {
    const lc_optim_pass *pass = ctx;
    lc_optim *x = pass->optim;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const lc_optim_chunk *c = &x->chunks[i];
        const float *g = pass->update->grad + c->begin;
        double sum = 0; /* rows of a few hundred in fp32, their sums in order in double */
        for (size_t at = 0; pass->update->learns[c->param] && at < c->count; at += 512) {
            size_t n = c->count - at < 512 ? c->count - at : 512;
            sum += (double)x->o.kernels->dot(n, g + at, g + at);
        }
        x->sums[i] = sum;
    }
}

/* Sum of tensors [begin, end) in name order, joined in halves. The depth is log2 of their number.
 */
static double tree(const lc_optim *x, const double *of, size_t begin, size_t end) {
    if (end - begin == 1) return of[x->params->sorted[begin] - x->params->list];
    size_t middle = begin + (end - begin + 1) / 2;
    return tree(x, of, begin, middle) + tree(x, of, middle, end);
}

static int take_norm(lc_optim_pass *pass, double *norm, lc_err *err) {
    lc_optim *x = pass->optim;
    double *of = lc_calloc(x->params->count, sizeof *of);
    if (!of) return lc_fail(err, LC_ENOMEM, "gradient norm: out of memory");
    lc_pool_for(x->o.pool, x->n_chunks, 1, sum_squares, pass);
    for (size_t i = 0; i < x->n_chunks; i++) of[x->chunks[i].param] += x->sums[i];
    *norm = sqrt(tree(x, of, 0, x->params->count));
    int status = LC_OK;
    for (size_t i = 0; !isfinite(*norm) && i < x->params->count && status == LC_OK; i++)
        if (!isfinite(of[i]))
            status = lc_fail(err, LC_EFORMAT, "the gradient of %s isn't finite",
                             x->params->list[i].name);
    if (status == LC_OK && !isfinite(*norm))
        status = lc_fail(err, LC_EFORMAT, "the gradient's norm isn't finite");
    lc_free(of);
    return status;
}

/* ---- AdamW ---- */

/* beta^n */
static double power(double beta, int64_t n) {
    double result = 1;
    for (; n; n >>= 1, beta *= beta)
        if (n & 1) result *= beta;
    return result;
}

typedef struct adam_constants {
    float factor, keep, b1, c1, b2, c2, i1, i2, rate, eps;
} adam_constants;

static adam_constants constants_of(const lc_optim_pass *pass, size_t param) {
    const lc_optim *x = pass->optim;
    const lc_param *p = &x->params->list[param];
    int64_t n = x->state.steps[param];
    return (adam_constants){.factor = pass->factor,
                            .keep = lc_optim_keep(pass, p),
                            .b1 = (float)x->o.beta1,
                            .c1 = (float)(1 - x->o.beta1),
                            .b2 = (float)x->o.beta2,
                            .c2 = (float)(1 - x->o.beta2),
                            .i1 = (float)(1 / (1 - power(x->o.beta1, n))),
                            .i2 = (float)(1 / (1 - power(x->o.beta2, n))),
                            .rate = (float)lc_optim_rate(pass, p),
                            .eps = (float)x->o.eps};
}

static inline void adam_element(const adam_constants *k, float g, float *w, float *m, float *v) {
    g *= k->factor;
    *m = k->b1 * *m + k->c1 * g;
    *v = k->b2 * *v + k->c2 * g * g;
    *w = *w * k->keep - k->rate * (*m * k->i1 / (sqrtf(*v * k->i2) + k->eps));
}

static void adam(const adam_constants *k, size_t n, const float *restrict g, float *restrict w,
                 float *restrict m, float *restrict v) {
    const adam_constants c = *k;
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) /* a constant count, so that the compiler makes vectors */
        for (size_t j = i; j < i + WIDTH; j++) adam_element(&c, g[j], &w[j], &m[j], &v[j]);
    for (; i < n; i++) adam_element(&c, g[i], &w[i], &m[i], &v[i]);
}

static void gather(float momentum, float factor, size_t n, const float *restrict g,
                   float *restrict m) {
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (size_t j = i; j < i + WIDTH; j++) m[j] = momentum * m[j] + factor * g[j];
    for (; i < n; i++) m[i] = momentum * m[i] + factor * g[i];
}

static void update_chunks(void *ctx, size_t begin, size_t end, int thread) {
    const lc_optim_pass *pass = ctx;
    lc_optim *x = pass->optim;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const lc_optim_chunk *c = &x->chunks[i];
        if (!pass->update->learns[c->param]) continue;
        const float *g = pass->update->grad + c->begin;
        float *m = x->state.first + c->begin;
        if (lc_optim_is_muon(x, &x->params->list[c->param])) {
            gather((float)x->o.momentum, pass->factor, c->count, g, m);
            continue;
        }
        adam_constants k = constants_of(pass, c->param);
        adam(&k, c->count, g, x->params->values + c->begin, m, x->state.second + c->begin);
    }
}

int lc_optim_step(lc_optim *x, const lc_update *update, double *norm, lc_err *err) {
    lc_optim_pass pass = {.optim = x, .update = update, .factor = 1};
    int status = take_norm(&pass, norm, err);
    if (status != LC_OK) return status;
    double most = x->o.clip / (*norm + 1e-6);
    if (x->o.clip > 0 && most < 1) pass.factor = (float)most;
    for (size_t i = 0; i < x->params->count; i++) x->state.steps[i] += update->learns[i];
    lc_pool_for(x->o.pool, x->n_chunks, 1, update_chunks, &pass);
    lc_profile_lap(x->o.profile, LC_LAP_ADAM, NULL);
    if (x->o.kind == LC_OPTIM_MUON) status = lc_muon_step(&pass, err);
    lc_profile_lap(x->o.profile, LC_LAP_MUON, &x->operations);
    return status;
}

/* ---- averages ---- */

typedef struct average_task {
    float past, now;
    float *average;
    const float *values;
} average_task;

static void average_range(void *ctx, size_t begin, size_t end, int thread) {
    const average_task *k = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        k->average[i] = k->past * k->average[i] + k->now * k->values[i];
}

void lc_optim_average(lc_optim *x, int64_t n) {
    if (!x->state.average) return;
    double past = (1 + (double)n) / (10 + (double)n);
    if (past > x->o.average) past = x->o.average;
    average_task k = {(float)past, (float)(1 - past), x->state.average, x->params->values};
    lc_pool_for(x->o.pool, x->params->floats, CHUNK, average_range, &k);
}
