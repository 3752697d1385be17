/*
 * optim.c: norms as trees, AdamW in one pass over memory, and the controller of biases. Muon's
 * iterations are muon.c.
 */
#include "train/optim_parts.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

lc_optim_part lc_optim_part_of(const lc_param *p) {
    bool draft = p->part == LC_PART_MTP || p->part == LC_PART_MTP_NGRAM;
    return (lc_optim_part)((draft ? LC_OPTIM_DRAFT : LC_OPTIM_MAIN) + (p->indexer ? 1 : 0));
}

int lc_optim_new(lc_params *params, const lc_optim_options *o, lc_optim **out, lc_err *err) {
    lc_optim *x = *out = lc_calloc(1, sizeof *x);
    if (!x) return lc_fail(err, LC_ENOMEM, "optimiser: out of memory");
    *x = (lc_optim){.o = *o, .params = params};
    x->first = lc_params_block(params);
    x->second = lc_params_block(params);
    if (x->first && x->second) return LC_OK;
    lc_optim_free(x);
    *out = NULL;
    return lc_fail(err, LC_ENOMEM, "optimiser: no 2 x %zu bytes left for moments",
                   params->floats * sizeof(float));
}

void lc_optim_free(lc_optim *x) {
    if (!x) return;
    lc_free(x->first);
    lc_free(x->second);
    lc_free(x);
}

/* ---- norms ---- */

typedef struct squares_task {
    const float *x;
    size_t n;
    double *sums; /* of pieces */
} squares_task;

/* Four chains, so that a compiler may use vectors; their order is fixed. */
static double squares(size_t n, const float *x) {
    double sum[4] = {0};
    for (size_t i = 0; i < n; i++) sum[i % 4] += (double)x[i] * (double)x[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void squares_pieces(void *ctx, size_t begin, size_t end, int thread) {
    const squares_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        size_t from = i * LC_OPTIM_PIECE, rest = t->n - from;
        t->sums[i] = squares(rest < LC_OPTIM_PIECE ? rest : LC_OPTIM_PIECE, t->x + from);
    }
}

/* Neighbours are added until one sum is left. */
static double tree(size_t n, double *sums) {
    for (; n > 1; n = (n + 1) / 2) {
        for (size_t i = 0; i + 1 < n; i += 2) sums[i / 2] = sums[i] + sums[i + 1];
        if (n % 2) sums[n / 2] = sums[n - 1];
    }
    return n ? sums[0] : 0;
}

double lc_optim_squares(lc_pool *pool, size_t n, const float *x, double *sums) {
    size_t pieces = lc_optim_pieces(n);
    lc_pool_for(pool, pieces, 8, squares_pieces, &(squares_task){x, n, sums});
    return tree(pieces, sums);
}

bool lc_optim_trains(const lc_param *p, const bool trained[LC_OPTIM_PARTS]) {
    return p->gradient && trained[lc_optim_part_of(p)];
}

/* Over the trained tensors in name order. */
static int global_norm(const lc_optim *x, const float *grad, const bool *trained, double *norm,
                       lc_err *err) {
    const lc_params *p = x->params;
    size_t most = 1, n = 0;
    for (size_t i = 0; i < p->count; i++)
        if (lc_optim_pieces(p->list[i].count) > most) most = lc_optim_pieces(p->list[i].count);
    double *sums = lc_alloc((most + p->count) * sizeof *sums);
    if (!sums) return lc_fail(err, LC_ENOMEM, "gradient norm: out of memory");
    double *tensors = sums + most;
    const lc_param *bad = NULL;
    for (size_t i = 0; i < p->count; i++) {
        const lc_param *t = p->sorted[i];
        if (!lc_optim_trains(t, trained)) continue;
        tensors[n] = lc_optim_squares(x->o.pool, t->count, grad + t->offset, sums);
        if (!isfinite(tensors[n]) && !bad) bad = t;
        n++;
    }
    *norm = sqrt(tree(n, tensors));
    lc_free(sums);
    if (bad)
        return lc_fail(err, LC_EFORMAT, "the gradient of %s isn't finite: training has diverged",
                       bad->name);
    return LC_OK;
}

/* ---- AdamW ---- */

typedef struct adam_task {
    const float *g;
    float *w, *m, *v;
    float scale, keep, beta1, beta2, rest1, rest2, unbias1, unbias2, rate, eps;
} adam_task;

static void adam_range(void *ctx, size_t begin, size_t end, int thread) {
    const adam_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float g = t->g[i] * t->scale;
        float m = t->beta1 * t->m[i] + t->rest1 * g;
        float v = t->beta2 * t->v[i] + t->rest2 * (g * g);
        t->m[i] = m;
        t->v[i] = v;
        t->w[i] =
            t->w[i] * t->keep - t->rate * ((m * t->unbias1) / (sqrtf(v * t->unbias2) + t->eps));
    }
}

/* By squaring: libm's pow may differ between machines. */
static double power(double base, uint64_t n) {
    double y = 1;
    for (; n; n /= 2, base *= base)
        if (n & 1) y *= base;
    return y;
}

double lc_optim_rate(const lc_optim *x, const lc_param *p, double lr) {
    bool wide = p->group == LC_GROUP_EMBEDDING || p->group == LC_GROUP_PROJECTION;
    return wide ? lr * x->o.embedding_rate : lr;
}

static void adam(lc_optim *x, const lc_param *p, const float *grad, double scale, double lr) {
    const lc_optim_options *o = &x->o;
    uint64_t step = x->steps[lc_optim_part_of(p)];
    double rate = lc_optim_rate(x, p, lr);
    adam_task t = {.g = grad + p->offset,
                   .w = x->params->values + p->offset,
                   .m = x->first + p->offset,
                   .v = x->second + p->offset,
                   .scale = (float)scale,
                   .keep = (float)(p->decay ? 1 - rate * o->decay : 1),
                   .beta1 = (float)o->beta1,
                   .beta2 = (float)o->beta2,
                   .rest1 = (float)(1 - o->beta1),
                   .rest2 = (float)(1 - o->beta2),
                   .unbias1 = (float)(1 / (1 - power(o->beta1, step))),
                   .unbias2 = (float)(1 / (1 - power(o->beta2, step))),
                   .rate = (float)rate,
                   .eps = (float)o->eps};
    lc_pool_for(o->pool, p->count, 16384, adam_range, &t);
}

bool lc_optim_by_muon(const lc_optim *x, const lc_param *p) {
    return x->o.muon && (p->group == LC_GROUP_MATRIX || p->group == LC_GROUP_PROJECTION ||
                         p->group == LC_GROUP_INDEXER);
}

int lc_optim_step(lc_optim *x, const float *grad, const bool trained[LC_OPTIM_PARTS], double lr,
                  double *norm, lc_err *err) {
    const lc_params *p = x->params;
    int status = global_norm(x, grad, trained, norm, err);
    if (status != LC_OK) return status;
    double scale = 1;
    if (x->o.clip > 0 && x->o.clip / (*norm + 1e-6) < 1) scale = x->o.clip / (*norm + 1e-6);
    lc_muon_step step = {grad, trained, scale, lr};
    if (x->o.muon) status = lc_muon(x, &step, err);
    if (status != LC_OK) return status;
    for (int i = 0; i < LC_OPTIM_PARTS; i++) x->steps[i] += trained[i];
    for (size_t i = 0; i < p->count; i++)
        if (lc_optim_trains(&p->list[i], trained) && !lc_optim_by_muon(x, &p->list[i]))
            adam(x, &p->list[i], grad, scale, lr);
    return LC_OK;
}

/* ---- biases ---- */

void lc_bias_update(lc_params *p, const int64_t *counts, double target_topk, double rate) {
    const lc_config *c = &p->config;
    size_t entries = c->experts + c->zero_experts;
    for (size_t layer = 0; layer < c->layers; layer++, counts += entries) {
        char name[128];
        snprintf(name, sizeof name, "model.layers.%zu.mlp.router.e_score_correction_bias", layer);
        const lc_param *b = lc_params_find(p, name);
        int64_t all = 0;
        for (size_t e = 0; e < entries; e++) all += counts[e];
        if (!b || !all) continue;
        double want = target_topk / (double)c->topk / (double)c->experts;
        for (size_t e = 0; e < c->experts; e++) {
            float *value = lc_param_values(p, b) + e;
            *value = (float)(*value + rate * (want - (double)counts[e] / (double)all));
        }
    }
}
