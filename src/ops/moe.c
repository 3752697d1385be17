/*
 * moe.c: tokens are grouped by expert; experts run in increasing id, and each thread owns 16 output
 * columns, so a token's sum over its experts has one order whatever the batch and the threads.
 */
#include "ops/moe.h"

#include <string.h>

/* ---- SwiGLU of one group of rows ---- */

/* A feed-forward layer on `rows` operand rows: hidden gets the gated activations as operands. */
typedef struct ffn_group {
    const lc_ffn_weights *w;
    lc_operand x;
    float *hidden;         /* [rows][F p] */
    const int32_t *tokens; /* output row of each, NULL: the same */
    const float *weights;  /* factor of each, NULL: plain store */
} ffn_group;

typedef struct ffn_task {
    const lc_op *op;
    const ffn_group *groups;
    size_t n_groups, panels; /* panels of F (up) or H (down) */
    size_t f_stride, hidden;
    float *out; /* [M][H] */
} ffn_task;

size_t lc_ffn_scratch(size_t hidden, size_t ffn, size_t m) {
    size_t up = 3 * LC_LANES * lc_pad_k(hidden) + 2 * LC_LANES * m;
    size_t down = lc_linear_scratch(ffn) + LC_LANES * m;
    return up > down ? up : down;
}

/* 16 columns of silu(gate x) * (up x) for one group. */
static void gate_up_panel(const ffn_task *t, const ffn_group *g, size_t panel, float *scratch) {
    const lc_op *op = t->op;
    size_t k = g->x.stride, column = panel * LC_LANES, f = g->w->gate.rows;
    size_t n = column >= f ? 0 : f - column < LC_LANES ? f - column : LC_LANES;
    float *gate = scratch, *up = gate + LC_LANES * g->x.rows, *columns = up + LC_LANES * g->x.rows;
    float *decoded = columns + LC_LANES * k;
    lc_gemm product = {.rows = g->x.rows,
                       .k = k,
                       .a = g->x.data,
                       .lda = k,
                       .panel = columns,
                       .ldp = LC_LANES,
                       .c = gate,
                       .ldc = LC_LANES,
                       .columns = LC_LANES};
    lc_panel_pack(op, &g->w->gate, column, n, columns, decoded);
    op->k->gemm(&product);
    lc_panel_pack(op, &g->w->up, column, n, columns, decoded);
    product.c = up;
    op->k->gemm(&product);
    op->k->swiglu(LC_LANES * g->x.rows, gate, up,
                  gate); /* beyond F: silu(0) * 0 = 0, the padding */
    if (op->bf16) op->k->round_bf16(LC_LANES * g->x.rows, gate, gate);
    for (size_t i = 0; i < g->x.rows; i++)
        memcpy(g->hidden + i * t->f_stride + column, gate + i * LC_LANES, LC_LANES * sizeof *gate);
}

static void gate_up(void *ctx, size_t begin, size_t end, int thread) {
    const ffn_task *t = ctx;
    for (size_t i = begin; i < end; i++)
        gate_up_panel(t, &t->groups[i / t->panels], i % t->panels, t->op->scratch[thread]);
}

/* 16 output columns over all groups, in order. */
static void down(void *ctx, size_t begin, size_t end, int thread) {
    const ffn_task *t = ctx;
    const lc_op *op = t->op;
    float *columns = op->scratch[thread], *decoded = columns + LC_LANES * t->f_stride;
    float *product = decoded + LC_LANES * t->f_stride;
    for (size_t p = begin; p < end; p++) {
        size_t column = p * LC_LANES,
               n = t->hidden - column < LC_LANES ? t->hidden - column : LC_LANES;
        for (const ffn_group *g = t->groups; g < t->groups + t->n_groups; g++) {
            lc_panel_pack(op, &g->w->down, column, n, columns, decoded);
            op->k->gemm(&(lc_gemm){.rows = g->x.rows,
                                   .k = t->f_stride,
                                   .a = g->hidden,
                                   .lda = t->f_stride,
                                   .panel = columns,
                                   .ldp = LC_LANES,
                                   .c = product,
                                   .ldc = LC_LANES,
                                   .columns = n});
            for (size_t i = 0; i < g->x.rows; i++) {
                float *out = t->out + (g->tokens ? (size_t)g->tokens[i] : i) * t->hidden + column;
                if (g->weights)
                    op->k->add_scaled(n, g->weights[i], product + i * LC_LANES, out);
                else
                    memcpy(out, product + i * LC_LANES, n * sizeof *out);
            }
        }
    }
}

static void release_groups(const ffn_group *groups, size_t n) {
    for (size_t i = 0; i < n; i++) {
        lc_mat_release(&groups[i].w->gate);
        lc_mat_release(&groups[i].w->up);
        lc_mat_release(&groups[i].w->down);
    }
}

static int acquire_ffn(const lc_ffn_weights *w, lc_err *err) {
    int status = lc_mat_acquire(&w->gate, err);
    if (status != LC_OK) return status;
    status = lc_mat_acquire(&w->up, err);
    if (status == LC_OK) {
        status = lc_mat_acquire(&w->down, err);
        if (status == LC_OK) return LC_OK;
        lc_mat_release(&w->up);
    }
    lc_mat_release(&w->gate);
    return status;
}

static int run_groups(const lc_op *op, const ffn_group *groups, size_t n, size_t hidden, float *out,
                      lc_err *err) {
    for (size_t i = 0; i < n; i++) {
        int status = acquire_ffn(groups[i].w, err);
        if (status != LC_OK) {
            release_groups(groups, i);
            return status;
        }
    }
    size_t f = groups[0].w->gate.rows;
    ffn_task t = {.op = op,
                  .groups = groups,
                  .n_groups = n,
                  .f_stride = lc_pad_k(f),
                  .hidden = hidden,
                  .out = out};
    t.panels = t.f_stride / LC_LANES; /* padding panels are computed too: they write the zeros */
    lc_pool_for(op->pool, n * t.panels, 1, gate_up, &t);
    lc_pool_for(op->pool, lc_ceil_div(hidden, LC_LANES), 1, down, &t);
    release_groups(groups, n);
    return LC_OK;
}

int lc_ffn(const lc_op *op, const lc_ffn_weights *w, lc_operand x, float *hidden, float *out,
           lc_err *err) {
    ffn_group group = {.w = w, .x = x, .hidden = hidden};
    return run_groups(op, &group, 1, w->down.rows, out, err);
}

/* ---- router ---- */

void lc_moe_shape_init(lc_moe_shape *s, const lc_config *c) {
    *s = (lc_moe_shape){c->hidden,
                        c->expert_ffn,
                        c->experts,
                        c->zero_experts,
                        c->topk,
                        (float)c->routed_scale,
                        c->switches.identity_scaled};
}

void lc_route_row(size_t n, size_t k, const float *probs, const float *bias, float scale,
                  int32_t *ids, float *weights) {
    float best[64];
    size_t filled = 0;
    for (size_t e = 0; e < n; e++) {
        float score = probs[e] + bias[e];
        size_t at = filled < k ? filled : k;
        while (at > 0 && score > best[at - 1]) at--; /* equal: behind the lower index */
        if (at == k) continue;
        size_t end = filled < k ? filled : k - 1;
        for (size_t j = end; j > at; j--) best[j] = best[j - 1], ids[j] = ids[j - 1];
        best[at] = score;
        ids[at] = (int32_t)e;
        if (filled < k) filled++;
    }
    for (size_t j = 0; j < k; j++) weights[j] = probs[ids[j]] * scale;
}

typedef struct route_task {
    const lc_op *op;
    const lc_moe_shape *s;
    const lc_moe_weights *w;
    const lc_moe_buffers *b;
} route_task;

static void route_rows(void *ctx, size_t begin, size_t end, int thread) {
    const route_task *t = ctx;
    size_t n = t->s->experts + t->s->zero_experts, k = t->s->topk;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const float *logits = t->b->logits + i * n;
        float *probs = t->b->probs + i * n;
        float sum = t->op->k->exp_sum(n, logits, t->op->k->max(n, logits), probs);
        for (size_t e = 0; e < n; e++) probs[e] /= sum;
        lc_route_row(n, k, probs, t->w->router_bias, t->s->routed_scale, t->b->ids + i * k,
                     t->b->weights + i * k);
    }
}

int lc_route(const lc_op *op, const lc_moe_shape *s, const lc_moe_weights *w, size_t m,
             const float *u, const lc_moe_buffers *b, lc_err *err) {
    lc_op exact = *op;
    exact.bf16 = false;
    lc_operand x = lc_operand_prepare(&exact, m, s->hidden, u, s->hidden, b->x);
    int status = lc_linear_f32(op, &w->router, x, b->logits, s->experts + s->zero_experts, err);
    if (status != LC_OK) return status;
    route_task t = {op, s, w, b};
    lc_pool_for(op->pool, m, LC_ROW_GRAIN, route_rows, &t);
    return LC_OK;
}

/* ---- mixture ---- */

/* Groups the rows' routed choices by expert: b->first, b->tokens, b->token_weights. */
static void group_by_expert(const lc_moe_shape *s, size_t m, const lc_moe_buffers *b) {
    memset(b->first, 0, (s->experts + 1) * sizeof *b->first);
    for (size_t i = 0; i < m * s->topk; i++)
        if ((size_t)b->ids[i] < s->experts) b->first[b->ids[i] + 1]++;
    for (size_t e = 0; e < s->experts; e++) b->first[e + 1] += b->first[e];
    for (size_t i = 0; i < m * s->topk; i++) {
        if ((size_t)b->ids[i] >= s->experts) continue;
        size_t at = b->first[b->ids[i]]++;
        b->tokens[at] = (int32_t)(i / s->topk);
        b->token_weights[at] = b->weights[i];
    }
    for (size_t e = s->experts; e > 0; e--) b->first[e] = b->first[e - 1];
    b->first[0] = 0;
}

typedef struct mixture_task {
    const lc_op *op;
    const lc_moe_shape *s;
    const lc_moe_buffers *b;
    lc_operand x;
    const float *u;
    float *out;
} mixture_task;

static void gather_rows(void *ctx, size_t begin, size_t end, int thread) {
    const mixture_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        memcpy(t->b->gathered + i * t->x.stride, t->x.data + (size_t)t->b->tokens[i] * t->x.stride,
               t->x.stride * sizeof(float));
}

static void add_identity(void *ctx, size_t begin, size_t end, int thread) {
    const mixture_task *t = ctx;
    size_t k = t->s->topk, total = t->s->experts + t->s->zero_experts;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const int32_t *ids = t->b->ids + i * k;
        for (size_t next = t->s->experts;;) { /* chosen identity experts in increasing id */
            size_t id = total, slot = 0;
            for (size_t j = 0; j < k; j++)
                if ((size_t)ids[j] >= next && (size_t)ids[j] < id) id = (size_t)ids[j], slot = j;
            if (id == total) break;
            float weight = t->b->weights[i * k + slot];
            if (!t->s->identity_scaled) weight = t->b->probs[i * total + id];
            t->op->k->add_scaled(t->s->hidden, weight, t->u + i * t->s->hidden,
                                 t->out + i * t->s->hidden);
            next = id + 1;
        }
    }
}

int lc_moe(const lc_op *op, const lc_moe_shape *s, const lc_moe_weights *w, lc_operand x,
           const float *u, const lc_moe_buffers *b, float *out, lc_err *err) {
    enum { WAVE = 64 }; /* experts pinned at a time */
    size_t m = x.rows, f_stride = lc_pad_k(s->ffn);
    mixture_task t = {op, s, b, x, u, out};
    memset(out, 0, m * s->hidden * sizeof *out);
    group_by_expert(s, m, b);
    lc_pool_for(op->pool, b->first[s->experts], LC_ROW_GRAIN, gather_rows, &t);
    for (size_t e = 0; e < s->experts;) {
        ffn_group groups[WAVE];
        size_t n = 0;
        for (; e < s->experts && n < WAVE; e++) {
            size_t first = b->first[e], rows = b->first[e + 1] - first;
            if (!rows) continue;
            groups[n++] =
                (ffn_group){.w = &w->experts[e],
                            .x = {b->gathered + first * x.stride, rows, s->hidden, x.stride},
                            .hidden = b->hidden + first * f_stride,
                            .tokens = b->tokens + first,
                            .weights = b->token_weights + first};
        }
        if (!n) break;
        int status = run_groups(op, groups, n, s->hidden, out, err);
        if (status != LC_OK) return status;
    }
    lc_pool_for(op->pool, m, LC_ROW_GRAIN, add_identity, &t);
    return LC_OK;
}
