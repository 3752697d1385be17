/*
 * experts.c: dense and expert feed-forward layers and the router, forward and backward. Rows are
 * grouped by expert; a token's sums run over its experts in increasing id, in both directions.
 */
#include "train/experts.h"

#include <string.h>

/* ---- dense ---- */

typedef struct swiglu_task {
    const lc_kernels *k;
    size_t width;
    float *gate, *up, *act; /* forward: act out; backward: act = gradient of swiglu, in */
    bool back;
} swiglu_task;

static void swiglu_rows(void *ctx, size_t begin, size_t end, int thread) {
    const swiglu_task *t = ctx;
    size_t at = begin * t->width, n = (end - begin) * t->width;
    (void)thread;
    if (t->back)
        t->k->swiglu_gradient(n, t->act + at, t->gate + at, t->up + at);
    else
        t->k->swiglu(n, t->gate + at, t->up + at, t->act + at);
}

static void run_swiglu(const lc_tape *t, size_t rows, swiglu_task task) {
    task.k = t->op.k;
    lc_pool_for(t->op.pool, rows, LC_ROW_GRAIN, swiglu_rows, &task);
}

int lc_ffn_run(const lc_tape *t, const lc_ffn_net *w, size_t m, const float *x,
               const lc_ffn_state *s, float *out, lc_err *err) {
    size_t hidden = w->gate.cols, ffn = w->gate.rows;
    lc_matmul products[] = {lc_linear_forward(&w->gate, m, x, hidden, s->gate, ffn),
                            lc_linear_forward(&w->up, m, x, hidden, s->up, ffn)};
    products[1].chained = true;
    int status = lc_matmul_run(&t->op, t->space, products, 2, err);
    if (status != LC_OK) return status;
    run_swiglu(t, m, (swiglu_task){.width = ffn, .gate = s->gate, .up = s->up, .act = s->act});
    return lc_linear_run(t, &w->down, m, s->act, out, err);
}

int lc_ffn_back(const lc_tape *t, const lc_ffn_net *w, size_t m, const float *x,
                const lc_ffn_state *s, const float *dout, float *dx, lc_err *err) {
    size_t hidden = w->gate.cols, ffn = w->gate.rows;
    run_swiglu(t, m, (swiglu_task){.width = ffn, .gate = s->gate, .up = s->up, .act = s->act});
    int status = lc_linear_back(t, &w->down, m, dout, s->act, s->dact, false, err);
    if (status != LC_OK) return status;
    run_swiglu(
        t, m,
        (swiglu_task){.width = ffn, .gate = s->gate, .up = s->up, .act = s->dact, .back = true});
    lc_matmul first[] = {lc_linear_to_weight(t, &w->gate, m, s->gate, ffn, x, hidden),
                         lc_linear_to_weight(t, &w->up, m, s->up, ffn, x, hidden),
                         lc_linear_to_input(&w->gate, m, s->gate, ffn, dx, hidden, true)};
    lc_matmul second = lc_linear_to_input(&w->up, m, s->up, ffn, dx, hidden, true);
    status = lc_matmul_run(&t->op, t->space, first, 3, err);
    return status != LC_OK ? status : lc_matmul_run(&t->op, t->space, &second, 1, err);
}

/* ---- router ---- */

typedef struct moe_task {
    const lc_tape *t;
    const lc_moe_shape *shape;
    const lc_moe_net *w;
    const lc_moe_state *s;
    lc_router_weights losses;
    const float *in; /* u, or dout */
    const float *u;
    float *out;
} moe_task;

static size_t entries_of(const lc_moe_shape *s) { return s->experts + s->zero_experts; }

static void route_rows(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    size_t n = entries_of(k->shape), topk = k->shape->topk;
    const lc_kernels *kernels = k->t->op.k;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const float *logits = k->s->logits + i * n;
        float *probs = k->s->probs + i * n, max = kernels->max(n, logits);
        float sum = kernels->exp_sum(n, logits, max, probs);
        for (size_t e = 0; e < n; e++) probs[e] /= sum;
        k->s->lse[i] = (float)((double)max + lc_ln((double)sum));
        lc_route_row(n, topk, probs, k->w->bias, k->shape->routed_scale, k->s->ids + i * topk,
                     k->s->weights + i * topk);
    }
}

/* Fills first, tokens and place, and adds to counts. */
static void group_rows(const lc_moe_shape *shape, size_t m, const lc_moe_state *s,
                       int64_t *counts) {
    size_t experts = shape->experts, choices = m * shape->topk;
    memset(s->first, 0, (experts + 1) * sizeof *s->first);
    for (size_t i = 0; i < choices; i++) {
        size_t id = (size_t)s->ids[i];
        counts[id]++;
        if (id < experts) s->first[id + 1]++;
    }
    for (size_t e = 0; e < experts; e++) s->first[e + 1] += s->first[e];
    for (size_t i = 0; i < choices; i++) {
        size_t id = (size_t)s->ids[i];
        s->place[i] = -1;
        if (id >= experts) continue;
        size_t at = s->first[id]++;
        s->place[i] = (int32_t)at;
        s->tokens[at] = (int32_t)(i / shape->topk);
    }
    for (size_t e = experts; e > 0; e--) s->first[e] = s->first[e - 1];
    s->first[0] = 0;
}

static size_t grouped(const lc_moe_shape *shape, const lc_moe_state *s) {
    return s->first[shape->experts];
}

/* Grouped row i of `out` = row of its token in `in`. */
static void gather_rows(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    size_t hidden = k->shape->hidden;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        memcpy(k->out + i * hidden, k->in + (size_t)k->s->tokens[i] * hidden,
               hidden * sizeof *k->out);
}

static void gather(const moe_task *k, const float *in, float *out) {
    moe_task task = *k;
    task.in = in;
    task.out = out;
    lc_pool_for(k->t->op.pool, grouped(k->shape, k->s), LC_ROW_GRAIN, gather_rows, &task);
}

/* The slot of the row's next chosen entry in increasing id, from *next on; K when none is left. */
static size_t next_slot(const lc_moe_shape *shape, const int32_t *ids, size_t *next) {
    size_t best = SIZE_MAX, slot = shape->topk;
    for (size_t j = 0; j < shape->topk; j++)
        if ((size_t)ids[j] >= *next && (size_t)ids[j] < best) best = (size_t)ids[j], slot = j;
    if (slot < shape->topk) *next = best + 1;
    return slot;
}

/* Weight of an identity choice. */
static float identity_weight(const lc_moe_shape *shape, float weight) {
    return shape->identity_scaled ? weight : weight / shape->routed_scale;
}

static void combine_rows(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    size_t hidden = k->shape->hidden, topk = k->shape->topk;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float *out = k->out + i * hidden;
        memset(out, 0, hidden * sizeof *out);
        for (size_t next = 0, j; (j = next_slot(k->shape, k->s->ids + i * topk, &next)) < topk;) {
            int32_t place = k->s->place[i * topk + j];
            float weight = k->s->weights[i * topk + j];
            if (place >= 0)
                k->t->op.k->add_scaled(hidden, weight, k->s->y + (size_t)place * hidden, out);
            else
                k->t->op.k->add_scaled(hidden, identity_weight(k->shape, weight),
                                       k->in + i * hidden, out);
        }
    }
}

/* ---- experts ---- */

/* Rows [first[e], first[e+1]) of the grouped arrays. */
typedef struct group {
    size_t at, rows;
} group;
static group group_of(const lc_moe_state *s, size_t e) {
    return (group){s->first[e], s->first[e + 1] - s->first[e]};
}

static int run_products(const lc_tape *t, const lc_moe_state *s, size_t n, lc_err *err) {
    return lc_matmul_run(&t->op, t->space, s->products, n, err);
}

int lc_moe_run(const lc_tape *t, const lc_moe_shape *shape, const lc_moe_net *w, size_t m,
               const float *u, const lc_moe_state *s, int64_t *counts, float *out, lc_err *err) {
    size_t hidden = shape->hidden, ffn = shape->ffn, n = 0;
    lc_matmul scores = lc_linear_forward(&w->router, m, u, hidden, s->logits, entries_of(shape));
    int status = lc_matmul_run(&t->exact, t->space, &scores, 1, err);
    if (status != LC_OK) return status;
    moe_task k = {.t = t, .shape = shape, .w = w, .s = s, .in = u, .out = out};
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, route_rows, &k);
    group_rows(shape, m, s, counts);
    gather(&k, u, s->x);
    for (size_t e = 0; e < shape->experts; e++) {
        group g = group_of(s, e);
        const float *x = s->x + g.at * hidden;
        s->products[n++] =
            lc_linear_forward(&w->experts[e].gate, g.rows, x, hidden, s->gate + g.at * ffn, ffn);
        s->products[n] =
            lc_linear_forward(&w->experts[e].up, g.rows, x, hidden, s->up + g.at * ffn, ffn);
        s->products[n].chained = true;
        n++;
    }
    lc_tape_lap(t, LC_LAP_ROUTE);
    status = run_products(t, s, n, err);
    if (status != LC_OK) return status;
    run_swiglu(t, grouped(shape, s),
               (swiglu_task){.width = ffn, .gate = s->gate, .up = s->up, .act = s->act});
    for (size_t e = 0; e < shape->experts; e++) {
        group g = group_of(s, e);
        s->products[e] = lc_linear_forward(&w->experts[e].down, g.rows, s->act + g.at * ffn, ffn,
                                           s->y + g.at * hidden, hidden);
    }
    status = run_products(t, s, shape->experts, err);
    if (status != LC_OK) return status;
    lc_tape_lap(t, LC_LAP_EXPERTS);
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, combine_rows, &k);
    lc_tape_lap(t, LC_LAP_ROUTE);
    return LC_OK;
}

/* Gradients of the choices' weights; act and dact are scaled by the weights. dact comes in as the
 * gradient of an expert's unweighted output carried through its down projection. */
static void weigh_rows(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    size_t hidden = k->shape->hidden, topk = k->shape->topk, ffn = k->shape->ffn;
    const lc_kernels *kernels = k->t->op.k;
    (void)thread;
    for (size_t i = begin * topk; i < end * topk; i++) {
        float weight = k->s->weights[i], *d = &k->s->dweights[i];
        size_t token = i / topk;
        if (k->s->place[i] < 0) {
            *d = identity_weight(
                k->shape, kernels->dot(hidden, k->in + token * hidden, k->u + token * hidden));
            continue;
        }
        float *act = k->s->act + (size_t)k->s->place[i] * ffn;
        float *dact = k->s->dact + (size_t)k->s->place[i] * ffn;
        *d = kernels->dot(ffn, act, dact);
        for (size_t j = 0; j < ffn; j++) act[j] *= weight, dact[j] *= weight;
    }
}

/* Gradients of the router's logits, in their place. */
static void logits_back(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    size_t n = entries_of(k->shape), topk = k->shape->topk;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const float *p = k->s->probs + i * n;
        float *d = k->s->logits + i * n;
        for (size_t e = 0; e < n; e++) d[e] = k->losses.balance * k->s->shares[e];
        for (size_t j = 0; j < topk; j++)
            d[k->s->ids[i * topk + j]] += k->shape->routed_scale * k->s->dweights[i * topk + j];
        k->t->op.k->softmax_gradient(n, p, k->t->op.k->dot(n, p, d), 1.0f, d);
        float z = 2.0f * k->losses.z * k->s->lse[i];
        for (size_t e = 0; e < n; e++) d[e] += z * p[e];
    }
}

/* Sums of a token's rows in increasing expert id, then its identity experts. */
static void scatter_rows(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    size_t hidden = k->shape->hidden, topk = k->shape->topk;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float *du = k->out + i * hidden;
        for (size_t next = 0, j; (j = next_slot(k->shape, k->s->ids + i * topk, &next)) < topk;) {
            int32_t place = k->s->place[i * topk + j];
            const float *x = place >= 0 ? k->s->x + (size_t)place * hidden : k->in + i * hidden;
            float weight =
                place >= 0 ? 1.0f : identity_weight(k->shape, k->s->weights[i * topk + j]);
            k->t->op.k->add_scaled(hidden, weight, x, du);
        }
    }
}

/* From the grouped gradients of gate and up: the weights', and those of the grouped inputs, which
 * take the inputs' place. */
static int projections_back(const moe_task *k, lc_err *err) {
    const lc_moe_state *s = k->s;
    const lc_tape *t = k->t;
    size_t hidden = k->shape->hidden, ffn = k->shape->ffn, n = 0;
    for (size_t e = 0; e < k->shape->experts; e++) {
        group g = group_of(s, e);
        const lc_ffn_net *w = &k->w->experts[e];
        const float *x = s->x + g.at * hidden;
        s->products[n++] =
            lc_linear_to_weight(t, &w->gate, g.rows, s->gate + g.at * ffn, ffn, x, hidden);
        s->products[n++] =
            lc_linear_to_weight(t, &w->up, g.rows, s->up + g.at * ffn, ffn, x, hidden);
    }
    int status = run_products(t, s, n, err);
    for (int second = 0; second < 2 && status == LC_OK; second++) {
        for (size_t e = 0; e < k->shape->experts; e++) {
            group g = group_of(s, e);
            const lc_weight *w = second ? &k->w->experts[e].up : &k->w->experts[e].gate;
            s->products[e] = lc_linear_to_input(w, g.rows, (second ? s->up : s->gate) + g.at * ffn,
                                                ffn, s->x + g.at * hidden, hidden, second);
        }
        status = run_products(t, s, k->shape->experts, err);
    }
    return status;
}

static int experts_back(const moe_task *k, const float *dout, size_t m, lc_err *err) {
    const lc_moe_state *s = k->s;
    const lc_tape *t = k->t;
    size_t hidden = k->shape->hidden, ffn = k->shape->ffn;
    gather(k, k->u, s->x);
    gather(k, dout, s->y);
    lc_tape_lap(t, LC_LAP_ROUTE);
    for (size_t e = 0; e < k->shape->experts; e++) {
        group g = group_of(s, e);
        s->products[e] = lc_linear_to_input(&k->w->experts[e].down, g.rows, s->y + g.at * hidden,
                                            hidden, s->dact + g.at * ffn, ffn, false);
    }
    int status = run_products(t, s, k->shape->experts, err);
    if (status != LC_OK) return status;
    run_swiglu(t, grouped(k->shape, s),
               (swiglu_task){.width = ffn, .gate = s->gate, .up = s->up, .act = s->act});
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, weigh_rows, (void *)(uintptr_t)k);
    for (size_t e = 0; e < k->shape->experts; e++) {
        group g = group_of(s, e);
        s->products[e] =
            lc_linear_to_weight(t, &k->w->experts[e].down, g.rows, s->y + g.at * hidden, hidden,
                                s->act + g.at * ffn, ffn);
    }
    status = run_products(t, s, k->shape->experts, err);
    if (status != LC_OK) return status;
    run_swiglu(
        t, grouped(k->shape, s),
        (swiglu_task){.width = ffn, .gate = s->gate, .up = s->up, .act = s->dact, .back = true});
    return projections_back(k, err);
}

int lc_moe_back(const lc_tape *t, const lc_moe_shape *shape, const lc_moe_net *w, size_t m,
                const float *u, const lc_moe_state *s, lc_router_weights losses, const float *dout,
                float *du, lc_err *err) {
    size_t hidden = shape->hidden, n = entries_of(shape);
    moe_task k = {t, shape, w, s, losses, dout, u, du};
    int status = experts_back(&k, dout, m, err);
    if (status != LC_OK) return status;
    lc_tape_lap(t, LC_LAP_EXPERTS);
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, logits_back, &k);
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, scatter_rows, &k);
    lc_matmul products[] = {lc_linear_to_weight(t, &w->router, m, s->logits, n, u, hidden),
                            lc_linear_to_input(&w->router, m, s->logits, n, du, hidden, true)};
    status = lc_matmul_run(&t->exact, t->space, products, 2, err);
    lc_tape_lap(t, LC_LAP_ROUTE);
    return status;
}

/* ---- losses on router scores ---- */

void lc_balance_shares(const lc_moe_shape *shape, const int64_t *counts, int64_t tokens,
                       double target_topk, float *shares) {
    double chosen_zero = 0, identities = (double)shape->topk - target_topk;
    for (size_t e = 0; e < shape->zero_experts; e++)
        chosen_zero += (double)counts[shape->experts + e];
    /* mean over zero entries of f_e Z / (K - K_e) */
    double zero = identities > 0 && tokens ? chosen_zero / (double)tokens / identities : 0;
    for (size_t e = 0; e < entries_of(shape); e++) {
        double routed = tokens && target_topk > 0 ? (double)counts[e] / (double)tokens *
                                                        (double)shape->experts / target_topk
                                                  : 0;
        shares[e] = (float)(e < shape->experts ? routed : zero);
    }
}

static void loss_rows(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    size_t n = entries_of(k->shape);
    double *sums = k->t->sums;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        double lse = (double)k->s->lse[i];
        sums[2 * i] = (double)k->t->op.k->dot(n, k->s->probs + i * n, k->s->shares);
        sums[2 * i + 1] = lse * lse;
    }
}

void lc_router_losses(const lc_tape *t, const lc_moe_shape *shape, size_t m, const lc_moe_state *s,
                      double *balance, double *z) {
    moe_task k = {.t = t, .shape = shape, .s = s};
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, loss_rows, &k);
    for (size_t i = 0; i < m; i++) {
        *balance += t->sums[2 * i];
        *z += t->sums[2 * i + 1];
    }
}
