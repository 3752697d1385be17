/*
 * moe.c: tokens are grouped by expert; experts run in increasing id, and each thread owns 16 output
 * columns, so a token's sum over its experts has one order whatever the batch and the threads.
 */
#include "ops/moe.h"

#include <string.h>

/* ---- SwiGLU of groups of rows: a dense layer is one group of all rows ---- */

typedef struct ffn_group {
    const lc_ffn_weights *w;
    lc_left in;            /* rows of H */
    float *out_rows;       /* [rows][F] silu(gate x) * (up x) */
    lc_operand hidden;     /* the same, packed */
    const int32_t *tokens; /* output row of each, NULL: the same */
    const float *weights;  /* factor of each, NULL: plain store */
} ffn_group;

typedef struct ffn_task {
    const lc_op *op;
    const ffn_group *groups;
    size_t n_groups, hidden, ffn; /* H, F */
    size_t rows;                  /* of the largest group */
    size_t up_width, down_width;  /* columns of a task */
    bool gated;                   /* gate and up are one product, whose result is packed */
    float *out;                   /* [M][H] */
} ffn_task;

size_t lc_ffn_scratch(const lc_op *op, size_t hidden, size_t ffn, size_t m) {
    size_t width = lc_columns_most(op, m);
    size_t up = lc_columns_floats(op, m, hidden) + 2 * width * m;
    size_t down = lc_columns_floats(op, m, ffn) + width * m;
    return up > down ? up : down;
}

/* A panel of columns of silu(gate x) * (up x) for one group. */
static void gate_up_panel(const ffn_task *t, const ffn_group *g, size_t column, float *scratch) {
    size_t n = t->ffn - column < t->up_width ? t->ffn - column : t->up_width, rows = g->in.rows;
    if (t->gated) {
        size_t most = t->up_width / 2 / LC_K_BLOCK * LC_K_BLOCK;
        for (size_t at = 0; at < n; at += most)
            lc_gated_columns(t->op, &g->w->gate, &g->w->up, &g->in, column + at,
                             n - at < most ? n - at : most, &g->hidden, scratch);
        return;
    }
    float *gate = scratch + lc_columns_floats(t->op, t->rows, t->hidden), *up = gate + rows * n;
    lc_columns(t->op, &g->w->gate, &g->in, column, n, gate, n, scratch);
    lc_columns(t->op, &g->w->up, &g->in, column, n, up, n, scratch);
    for (size_t i = 0; i < rows; i++)
        t->op->k->swiglu(n, gate + i * n, up + i * n, g->out_rows + i * t->ffn + column);
}

/* Items are (group, panel of F). */
static void gate_up(void *ctx, size_t begin, size_t end, int thread) {
    const ffn_task *t = ctx;
    size_t panels = lc_ceil_div(t->ffn, t->up_width);
    for (size_t i = begin; i < end; i++)
        gate_up_panel(t, &t->groups[i / panels], i % panels * t->up_width, t->op->scratch[thread]);
}

/* A panel of output columns over all groups, in order. */
static void down(void *ctx, size_t begin, size_t end, int thread) {
    const ffn_task *t = ctx;
    float *scratch = t->op->scratch[thread];
    for (size_t panel = begin; panel < end; panel++) {
        size_t column = panel * t->down_width, left = t->hidden - column;
        size_t n = left < t->down_width ? left : t->down_width;
        for (const ffn_group *g = t->groups; g < t->groups + t->n_groups; g++) {
            float *out = t->out + column;
            if (!g->weights) { /* the only group */
                lc_columns(t->op, &g->w->down, &g->hidden.left, column, n, out, t->hidden, scratch);
                continue;
            }
            float *product = scratch + lc_columns_floats(t->op, t->rows, t->ffn);
            lc_columns(t->op, &g->w->down, &g->hidden.left, column, n, product, n, scratch);
            for (size_t i = 0; i < g->in.rows; i++)
                t->op->k->add_scaled(n, g->weights[i], product + i * n,
                                     out + (size_t)g->tokens[i] * t->hidden);
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

/* Whether gate, up and down of all groups are neither codes nor in strips. */
static bool all_plain(const lc_op *op, const ffn_group *groups, size_t n) {
    for (size_t i = 0; i < n; i++) {
        lc_form in = groups[i].in.form, down = lc_form_of(op, &groups[i].w->down);
        if (in.coded || in.strips || down.coded || down.strips) return false;
    }
    return true;
}

static int run_groups(const lc_op *op, ffn_group *groups, size_t n, float *out, lc_err *err) {
    for (size_t i = 0; i < n; i++) {
        int status = acquire_ffn(groups[i].w, err);
        if (status != LC_OK) {
            release_groups(groups, i);
            return status;
        }
    }
    ffn_task t = {.op = op,
                  .groups = groups,
                  .n_groups = n,
                  .hidden = groups[0].w->gate.cols,
                  .ffn = groups[0].w->gate.rows,
                  .out = out};
    for (size_t i = 0; i < n; i++)
        if (groups[i].in.rows > t.rows) t.rows = groups[i].in.rows;
    t.up_width = lc_columns_width(op, groups[0].in.form, t.rows, t.ffn);
    t.down_width = lc_columns_width(op, lc_form_of(op, &groups[0].w->down), t.rows, t.hidden);
    t.gated = op->path->multiply_gated && t.ffn % LC_K_BLOCK == 0 && t.up_width >= 2 * LC_K_BLOCK &&
              all_plain(op, groups, n);
    lc_pool_for(op->pool, n * lc_ceil_div(t.ffn, t.up_width), 1, gate_up, &t);
    for (size_t i = 0; i < n; i++)
        if (t.gated)
            groups[i].hidden.left.data = groups[i].hidden.space;
        else
            lc_operand_pack(op, &groups[i].hidden, lc_form_of(op, &groups[i].w->down));
    lc_pool_for(op->pool, lc_ceil_div(t.hidden, t.down_width), 1, down, &t);
    release_groups(groups, n);
    return LC_OK;
}

int lc_ffn(const lc_op *op, const lc_ffn_weights *w, lc_operand *x, const lc_ffn_buffers *b,
           float *out, lc_err *err) {
    size_t ffn = w->down.cols;
    ffn_group group = {.w = w,
                       .in = *lc_operand_pack(op, x, lc_form_of(op, &w->gate)),
                       .out_rows = b->hidden,
                       .hidden = lc_operand_of(x->left.rows, ffn, b->hidden, ffn, b->packed)};
    return run_groups(op, &group, 1, out, err);
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
    float *best = weights; /* scores of the chosen until all are */
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
    lc_op exact = lc_op_exact(op);
    lc_operand x = lc_operand_of(m, s->hidden, u, s->hidden, b->x);
    int status = lc_linear(&exact, &w->router, &x, b->logits, s->experts + s->zero_experts, err);
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
    const lc_moe_weights *w;
    const lc_moe_buffers *b;
    const float *u;
    float *out;
} mixture_task;

size_t lc_moe_scratch(const lc_op *op, const lc_moe_shape *s, size_t m) {
    size_t gather = LC_PACK_ROWS * s->hidden, ffn = lc_ffn_scratch(op, s->hidden, s->ffn, m);
    return gather > ffn ? gather : ffn;
}

/* Place of an expert's packed rows in a buffer for rows of k. */
static float *packed_rows(const mixture_task *t, float *buffer, size_t first, size_t k) {
    return buffer + lc_operand_floats(t->op, first, k);
}

/* Packs the input rows of each expert's tokens. */
static void gather_experts(void *ctx, size_t begin, size_t end, int thread) {
    const mixture_task *t = ctx;
    size_t hidden = t->s->hidden;
    float *rows = t->op->scratch[thread];
    for (size_t e = begin; e < end; e++) {
        size_t first = t->b->first[e], count = t->b->first[e + 1] - first;
        lc_form form = lc_form_of(t->op, &t->w->experts[e].gate);
        char *packed = (char *)packed_rows(t, t->b->gathered, first, hidden);
        for (size_t at = 0; at < count; at += LC_PACK_ROWS) {
            size_t n = count - at < LC_PACK_ROWS ? count - at : LC_PACK_ROWS;
            for (size_t i = 0; i < n; i++)
                memcpy(rows + i * hidden, t->u + (size_t)t->b->tokens[first + at + i] * hidden,
                       hidden * sizeof *rows);
            lc_form_pack(t->op, form, n, hidden, rows, hidden,
                         packed + lc_form_bytes(t->op, form, at, hidden));
        }
    }
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

static void count_expert(lc_op_times *times, const lc_ffn_weights *w, size_t rows) {
    times->experts++;
    times->expert_rows += rows;
    times->expert_bytes += lc_mat_bytes(&w->gate) + lc_mat_bytes(&w->up) + lc_mat_bytes(&w->down);
}

static ffn_group expert_group(const mixture_task *t, size_t e) {
    const lc_ffn_weights *w = &t->w->experts[e];
    const lc_moe_buffers *b = t->b;
    size_t first = b->first[e], rows = b->first[e + 1] - first, hidden = t->s->hidden;
    float *out_rows = b->ffn.hidden + first * t->s->ffn;
    return (ffn_group){.w = w,
                       .in = {lc_form_of(t->op, &w->gate), rows, hidden,
                              packed_rows(t, b->gathered, first, hidden)},
                       .out_rows = out_rows,
                       .hidden = lc_operand_of(rows, t->s->ffn, out_rows, t->s->ffn,
                                               packed_rows(t, b->ffn.packed, first, t->s->ffn)),
                       .tokens = b->tokens + first,
                       .weights = b->token_weights + first};
}

int lc_moe(const lc_op *op, const lc_moe_shape *s, const lc_moe_weights *w, size_t m,
           const float *u, const lc_moe_buffers *b, float *out, lc_err *err) {
    enum { WAVE = 64 }; /* experts pinned at a time */
    mixture_task t = {op, s, w, b, u, out};
    memset(out, 0, m * s->hidden * sizeof *out);
    group_by_expert(s, m, b);
    lc_pool_for(op->pool, s->experts, 1, gather_experts, &t);
    for (size_t e = 0; e < s->experts;) {
        ffn_group groups[WAVE];
        size_t n = 0;
        for (; e < s->experts && n < WAVE; e++) {
            size_t rows = b->first[e + 1] - b->first[e];
            if (!rows) continue;
            if (op->times) count_expert(op->times, &w->experts[e], rows);
            groups[n++] = expert_group(&t, e);
        }
        if (!n) break;
        int status = run_groups(op, groups, n, out, err);
        if (status != LC_OK) return status;
    }
    lc_pool_for(op->pool, m, LC_ROW_GRAIN, add_identity, &t);
    return LC_OK;
}
