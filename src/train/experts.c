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
    const lc_ffn_state *s;
} swiglu_task;

static void swiglu_rows(void *ctx, size_t begin, size_t end, int thread) {
    const swiglu_task *t = ctx;
    size_t at = begin * t->width, n = (end - begin) * t->width;
    (void)thread;
    t->k->swiglu(n, t->s->gate + at, t->s->up + at, t->s->act + at);
}

/* act again, for the down projection's gradient; gate and up become their gradients. */
static void swiglu_back(void *ctx, size_t begin, size_t end, int thread) {
    const swiglu_task *t = ctx;
    size_t at = begin * t->width, n = (end - begin) * t->width;
    swiglu_rows(ctx, begin, end, thread);
    t->k->swiglu_gradient(n, t->s->dact + at, t->s->gate + at, t->s->up + at);
}

/* gate, up and down of one net on m rows; the three are a chain. */
static void forward_products(const lc_ffn_net *w, size_t m, const float *x, const lc_ffn_state *s,
                             float *out, lc_matmul products[3]) {
    size_t hidden = w->gate.cols, ffn = w->gate.rows;
    products[0] = lc_linear_forward(&w->gate, m, x, hidden, s->gate, ffn);
    products[1] = lc_linear_forward(&w->up, m, x, hidden, s->up, ffn);
    products[2] = lc_linear_forward(&w->down, m, s->act, ffn, out, hidden);
    products[1].chained = products[2].chained = true;
}

enum { BACK_PRODUCTS = 6 };

/* The same backwards. Weights' sides are packed before dx is written, which may be x. Behind the
 * first product dact becomes gradients of gate and up. */
static void back_products(const lc_tape *t, const lc_ffn_net *w, size_t m, const lc_ffn_pass *p,
                          const float *dout, float *dx, lc_matmul products[BACK_PRODUCTS]) {
    size_t hidden = w->gate.cols, ffn = w->gate.rows;
    const lc_ffn_state *s = p->s;
    products[0] = lc_linear_to_input(&w->down, m, dout, hidden, s->dact, ffn, false);
    products[1] = lc_linear_to_weight(t, &w->down, m, dout, hidden, s->act, ffn);
    products[2] = lc_linear_to_weight(t, &w->gate, m, s->gate, ffn, p->x, hidden);
    products[3] = lc_linear_to_weight(t, &w->up, m, s->up, ffn, p->x, hidden);
    products[4] = lc_linear_to_input(&w->gate, m, s->gate, ffn, dx, hidden, false);
    products[5] = lc_linear_to_input(&w->up, m, s->up, ffn, dx, hidden, true);
    for (int i = 1; i < BACK_PRODUCTS; i++) products[i].chained = true;
}

int lc_ffn_run(const lc_tape *t, const lc_ffn_pass *p, float *out, lc_err *err) {
    lc_matmul products[3];
    swiglu_task task = {t->op.k, p->w->gate.rows, p->s};
    forward_products(p->w, p->m, p->x, p->s, out, products);
    products[0].before = p->before;
    products[1].behind = (lc_rows_step){swiglu_rows, &task, 0};
    products[2].behind = p->behind;
    return lc_matmul_run(&t->op, t->space, products, 3, err);
}

int lc_ffn_back(const lc_tape *t, const lc_ffn_pass *p, const float *dout, float *dx, lc_err *err) {
    lc_matmul products[BACK_PRODUCTS];
    swiglu_task task = {t->op.k, p->w->gate.rows, p->s};
    back_products(t, p->w, p->m, p, dout, dx, products);
    products[0].behind = (lc_rows_step){swiglu_back, &task, 0};
    products[5].behind = p->behind;
    return lc_matmul_run(&t->op, t->space, products, BACK_PRODUCTS, err);
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

/* Fills first, choices and place, and adds to counts. */
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
        s->choices[at] = (int32_t)i;
    }
    for (size_t e = experts; e > 0; e--) s->first[e] = s->first[e - 1];
    s->first[0] = 0;
}

/* Grouped rows [begin, end) of `out` = rows of their tokens in `in`. */
static void gather(const moe_task *k, const float *in, size_t begin, size_t end, float *out) {
    size_t hidden = k->shape->hidden;
    for (size_t i = begin; i < end; i++)
        memcpy(out + i * hidden, in + (size_t)k->s->choices[i] / k->shape->topk * hidden,
               hidden * sizeof *out);
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

static lc_ffn_state state_of(const lc_moe_state *s, group g, size_t ffn) {
    size_t at = g.at * ffn;
    return (lc_ffn_state){s->gate + at, s->up + at, s->act + at, s->dact + at};
}

static void gather_rows(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    (void)thread;
    gather(k, k->in, begin, end, k->s->x);
}

static void activate_rows(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    lc_ffn_state all = state_of(k->s, (group){0, 0}, k->shape->ffn);
    swiglu_task task = {k->t->op.k, k->shape->ffn, &all};
    swiglu_rows(&task, begin, end, thread);
}

static int experts_run(moe_task *k, lc_err *err) {
    const lc_moe_state *s = k->s;
    size_t hidden = k->shape->hidden;
    for (size_t e = 0; e < k->shape->experts; e++) {
        group g = group_of(s, e);
        lc_ffn_state state = state_of(s, g, k->shape->ffn);
        lc_matmul *products = s->products + 3 * e;
        forward_products(&k->w->experts[e], g.rows, s->x + g.at * hidden, &state,
                         s->y + g.at * hidden, products);
        products[0].before = (lc_rows_step){gather_rows, k, g.at};
        products[1].behind = (lc_rows_step){activate_rows, k, g.at};
    }
    return lc_matmul_run(&k->t->op, k->t->space, s->products, 3 * k->shape->experts, err);
}

int lc_moe_run(const lc_tape *t, const lc_moe_shape *shape, const lc_moe_net *w, size_t m,
               const float *u, const lc_moe_state *s, int64_t *counts, float *out, lc_err *err) {
    lc_matmul scores =
        lc_linear_forward(&w->router, m, u, shape->hidden, s->logits, entries_of(shape));
    moe_task k = {.t = t, .shape = shape, .w = w, .s = s, .in = u, .out = out};
    scores.behind = (lc_rows_step){route_rows, &k, 0};
    int status = lc_matmul_run(&t->exact, t->space, &scores, 1, err);
    if (status != LC_OK) return status;
    group_rows(shape, m, s, counts);
    lc_tape_lap(t, LC_LAP_ROUTE);
    status = experts_run(&k, err);
    if (status != LC_OK) return status;
    lc_tape_lap(t, LC_LAP_EXPERTS);
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, combine_rows, &k);
    lc_tape_lap(t, LC_LAP_ROUTE);
    return LC_OK;
}

static void gather_back(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    (void)thread;
    gather(k, k->u, begin, end, k->s->x);
    gather(k, k->in, begin, end, k->s->y);
}

/* Behind the down projection dact is the gradient of an expert's unweighted result, so its product
 * with act is the gradient of the choice's weight; scaled by the weight, both become what the
 * expert's own gradients need. */
static void weigh_rows(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    size_t ffn = k->shape->ffn, at = begin * ffn, n = (end - begin) * ffn;
    const lc_kernels *kernels = k->t->op.k;
    const lc_moe_state *s = k->s;
    activate_rows(ctx, begin, end, thread);
    for (size_t i = begin; i < end; i++) {
        float *act = s->act + i * ffn, *dact = s->dact + i * ffn;
        float weight = s->weights[s->choices[i]];
        s->dweights[s->choices[i]] = kernels->dot(ffn, act, dact);
        kernels->scale(ffn, weight, act);
        kernels->scale(ffn, weight, dact);
    }
    kernels->swiglu_gradient(n, s->dact + at, s->gate + at, s->up + at);
}

/* Fills cuts and first_cut: an expert's rows are in token order, so each sequence's are together.
 */
static void cut_groups(const lc_tape *t, const lc_moe_shape *shape, const lc_moe_state *s) {
    size_t n = 0;
    if (!t->cuts) return;
    for (size_t e = 0; e < shape->experts; e++) {
        size_t end = 0; /* of the present sequence */
        s->first_cut[e] = n;
        for (size_t i = s->first[e]; i < s->first[e + 1]; i++) {
            size_t token = (size_t)s->choices[i] / shape->topk, length = t->cuts[1];
            if (token < end) continue;
            s->cuts[n++] = i;
            end = (token / length + 1) * length;
        }
    }
    s->first_cut[shape->experts] = n;
    s->cuts[n] = s->first[shape->experts];
}

static int experts_back(moe_task *k, lc_err *err) {
    const lc_moe_state *s = k->s;
    size_t hidden = k->shape->hidden;
    cut_groups(k->t, k->shape, s);
    for (size_t e = 0; e < k->shape->experts; e++) {
        group g = group_of(s, e);
        lc_ffn_state state = state_of(s, g, k->shape->ffn);
        float *x = s->x + g.at * hidden;
        lc_matmul *products = s->products + BACK_PRODUCTS * e;
        back_products(k->t, &k->w->experts[e], g.rows, &(lc_ffn_pass){.x = x, .s = &state},
                      s->y + g.at * hidden, x, products);
        for (int i = 0; i < BACK_PRODUCTS; i++) {
            if (!products[i].cuts) continue;
            products[i].cuts = s->cuts + s->first_cut[e];
            products[i].pieces = s->first_cut[e + 1] - s->first_cut[e];
        }
        products[0].before = (lc_rows_step){gather_back, k, g.at};
        products[0].behind = (lc_rows_step){weigh_rows, k, g.at};
    }
    return lc_matmul_run(&k->t->op, k->t->space, s->products, BACK_PRODUCTS * k->shape->experts,
                         err);
}

/* Gradients of the weights of a row's identity choices. */
static void identities_back(const moe_task *k, size_t row) {
    size_t hidden = k->shape->hidden, topk = k->shape->topk;
    for (size_t i = row * topk; i < (row + 1) * topk; i++) {
        if (k->s->place[i] >= 0) continue;
        float d = k->t->op.k->dot(hidden, k->in + row * hidden, k->u + row * hidden);
        k->s->dweights[i] = identity_weight(k->shape, d);
    }
}

/* Gradients of the router's logits, in their place. */
static void logits_back(void *ctx, size_t begin, size_t end, int thread) {
    const moe_task *k = ctx;
    size_t n = entries_of(k->shape), topk = k->shape->topk;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        identities_back(k, i);
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

static void back_rows(void *ctx, size_t begin, size_t end, int thread) {
    logits_back(ctx, begin, end, thread);
    scatter_rows(ctx, begin, end, thread);
}

int lc_moe_back(const lc_tape *t, const lc_moe_shape *shape, const lc_moe_net *w, size_t m,
                const float *u, const lc_moe_state *s, lc_router_weights losses, const float *dout,
                float *du, lc_err *err) {
    size_t hidden = shape->hidden, n = entries_of(shape);
    moe_task k = {t, shape, w, s, losses, dout, u, du};
    int status = experts_back(&k, err);
    if (status != LC_OK) return status;
    lc_tape_lap(t, LC_LAP_EXPERTS);
    lc_matmul products[] = {lc_linear_to_weight(t, &w->router, m, s->logits, n, u, hidden),
                            lc_linear_to_input(&w->router, m, s->logits, n, du, hidden, true)};
    products[0].before = (lc_rows_step){back_rows, &k, 0};
    products[1].chained = true;
    status = lc_matmul_run(&t->exact, t->space, products, 2, err);
    lc_tape_lap(t, LC_LAP_ROUTE);
    return status;
}

/* ---- losses on router scores ---- */

void lc_balance_shares(const lc_moe_shape *shape, const int64_t *counts, int64_t tokens,
                       lc_balance_form form, float *shares) {
    size_t groups = form.groups ? form.groups : shape->experts, size = shape->experts / groups;
    double identities = (double)shape->topk - form.target_topk;
    int64_t zeros = 0;
    for (size_t e = shape->experts; e < entries_of(shape); e++) zeros += counts[e];
    for (size_t first = 0; first < shape->experts; first += size) {
        int64_t chosen = 0;
        for (size_t e = first; e < first + size; e++) chosen += counts[e];
        double share = tokens && form.target_topk > 0
                           ? (double)chosen / (double)tokens * (double)groups / form.target_topk
                           : 0;
        for (size_t e = first; e < first + size; e++) shares[e] = (float)share;
    }
    double zero = identities > 0 && tokens ? (double)zeros / (double)tokens / identities : 0;
    for (size_t e = shape->experts; e < entries_of(shape); e++) shares[e] = (float)zero;
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
    for (size_t i = 0, sequence = 0; i < m; i++) {
        if (t->cuts && i == t->cuts[sequence + 1]) sequence++;
        balance[sequence] += t->sums[2 * i];
        z[sequence] += t->sums[2 * i + 1];
    }
}
