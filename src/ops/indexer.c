/*
 * indexer.c: index scores by blocks of 64 keys, and selection by radix select on the scores' bits.
 * A tile of rows shares each block of keys. With fewer tiles than threads, the threads share a
 * tile's blocks and then its rows; a score is one thread's in both.
 */
#include "ops/indexer.h"

#include "ops/attend.h"

#include <math.h>
#include <string.h>

enum {
    TILE = 4,       /* rows that share a block of keys */
    BLOCK_GRAIN = 4 /* blocks of a shared tile that a thread takes at a time */
};

void lc_index_shape_init(lc_index_shape *s, const lc_config *c) {
    *s = (lc_index_shape){
        .hidden = c->hidden,
        .heads = c->index_heads,
        .dim = c->index_dim,
        .q_rank = c->q_rank,
        .rope = c->rope_dim,
        .topk = c->index_topk,
        .sink = c->index_sink,
        .window = c->index_window,
        .norm_eps = (float)c->switches.k_norm_eps,
        .q_scale =
            c->switches.index_scaled_cq ? (float)sqrt((double)c->hidden / (double)c->q_rank) : 1.0f,
    };
}

void lc_index_floats(const lc_index_shape *s, size_t m, size_t floats[LC_INDEX_BUFFERS]) {
    floats[0] = m * s->heads * s->dim;
    floats[1] = m * s->dim;
    floats[2] = m * s->heads;
    floats[3] = lc_left_floats(m, s->hidden);
}

static size_t whole_blocks(size_t context) {
    return lc_ceil_div(context, LC_KV_BLOCK) * LC_KV_BLOCK + LC_KV_BLOCK;
}

size_t lc_index_scratch(const lc_op *op, const lc_index_shape *s, size_t context) {
    size_t rows = TILE * s->heads;
    return lc_product_floats(op, rows, s->dim) + LC_KV_BLOCK * lc_pad_k(s->dim) +
           lc_left_floats(rows, s->dim) + rows * LC_KV_BLOCK + (TILE + 2) * whole_blocks(context);
}

/* ---- choice ---- */

enum { MOST_BITS = 11, FEW_BITS = 8, FEW = 4096 }; /* of a digit; of few keys */

/* hist[d] = keys whose digit (x >> shift) % size is d. Two tables: equal digits in a row would wait
 * for each other. */
static void count_digits(const uint32_t *x, size_t n, int shift, size_t size, uint32_t *hist) {
    uint32_t second[1 << MOST_BITS];
    uint32_t mask = (uint32_t)size - 1;
    size_t i = 0;
    memset(hist, 0, size * sizeof *hist);
    memset(second, 0, size * sizeof *second);
    for (; i + 2 <= n; i += 2) {
        hist[x[i] >> shift & mask]++;
        second[x[i + 1] >> shift & mask]++;
    }
    if (i < n) hist[x[i] >> shift & mask]++;
    for (size_t d = 0; d < size; d++) hist[d] += second[d];
}

/* The *rank-th largest of n keys, 1 <= *rank <= n, digit by digit from the top. *rank becomes the
 * number of keys with its value that belong to the *rank largest. rest: n keys. */
static uint32_t find_threshold(const lc_kernels *k, const uint32_t *x, size_t n, size_t *rank,
                               uint32_t *rest) {
    uint32_t hist[1 << MOST_BITS], prefix = 0;
    int bits = n > FEW ? MOST_BITS : FEW_BITS, shift = 32;
    while (shift > 0) {
        int digit = shift < bits ? shift : bits;
        size_t d = ((size_t)1 << digit) - 1;
        shift -= digit;
        count_digits(x, n, shift, d + 1, hist);
        while (hist[d] < *rank) *rank -= hist[d--];
        prefix = prefix << digit | (uint32_t)d;
        if (shift > 0) n = k->keep_prefix(n, x, shift, prefix, rest);
        x = rest;
    }
    return prefix;
}

size_t lc_index_select(const lc_kernels *k, const lc_index_shape *s, const lc_index_scores *x,
                       uint32_t *work, int32_t *list) {
    size_t count = 0, n = x->n;
    int32_t start = (int32_t)x->start;
    if (n <= s->topk) {
        for (size_t i = 0; i < n; i++) list[count++] = start + (int32_t)i;
        return count;
    }
    size_t picks = s->topk - s->sink - s->window, first = s->sink, last = n - s->window;
    for (size_t i = 0; i < first; i++) list[count++] = start + (int32_t)i;
    if (picks > 0) {
        k->order_floats(last - first, x->score + first, work);
        uint32_t t = find_threshold(k, work, last - first, &picks, work + (last - first));
        count += k->pick_above(last - first, work, t, picks, start + (int32_t)first, list + count);
    }
    for (size_t i = last; i < n; i++) list[count++] = start + (int32_t)i;
    return count;
}

/* ---- rows ---- */

typedef struct index_task {
    const lc_op *op;
    const lc_index_shape *s;
    const lc_indexer_weights *w;
    const lc_index_args *args;
    const lc_index_buffers *b;
} index_task;

/* Rotates the rows' index queries into operands; norms, rotates and stores their index keys. */
static void finish_rows(void *ctx, size_t begin, size_t end, int thread) {
    const index_task *t = ctx;
    const lc_index_shape *s = t->s;
    size_t half = s->rope / 2;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const float *cosines = t->args->rope.cosines + i * half,
                    *sines = t->args->rope.sines + i * half;
        for (size_t h = 0; h < s->heads; h++) {
            float *q = t->b->q + (i * s->heads + h) * s->dim;
            t->op->k->scale(s->dim, s->q_scale, q);
            lc_rope_rotate(half, cosines, sines, q);
        }
        float *k = t->b->k + i * s->dim;
        t->op->k->rms_norm(s->dim, k, t->w->k_norm, s->norm_eps, k);
        lc_rope_rotate(half, cosines, sines, k);
        const lc_row *row = &t->args->rows[i];
        lc_kv_store(t->op, row->kv->layout.element, s->dim, k,
                    lc_kv_index(row->kv, t->args->indexer, row->pos));
        float unit = 1.0f / sqrtf((float)s->heads * (float)s->dim);
        for (size_t h = 0; h < s->heads; h++) t->b->weights[i * s->heads + h] *= unit;
    }
}

/* ---- scores ---- */

/* A thread's scratch, cut into its parts. */
typedef struct index_scratch {
    float *product;
    uint32_t *work; /* 2 x whole blocks */
    float *scores;  /* [TILE][whole blocks], scores[r][p - base] */
    float *keys;    /* [64][dim p] copied keys */
    float *left;    /* packed queries of the tile */
    float *dots;    /* [rows * heads][64] */
    size_t ld;
} index_scratch;

static index_scratch cut_scratch(const index_task *t, int thread) {
    index_scratch a;
    size_t rows = TILE * t->s->heads;
    a.ld = whole_blocks(t->args->context);
    a.product = t->op->scratch[thread];
    a.work = (uint32_t *)(void *)(a.product + lc_product_floats(t->op, rows, t->s->dim));
    a.scores = (float *)(void *)(a.work + 2 * a.ld);
    a.keys = a.scores + TILE * a.ld;
    a.left = a.keys + LC_KV_BLOCK * lc_pad_k(t->s->dim);
    a.dots = a.left + lc_left_floats(rows, t->s->dim);
    return a;
}

/* Rows [begin, end) of one cache, at most TILE. Their packed queries and scores are in the scratch
 * of `owner`. */
typedef struct index_tile {
    const index_task *t;
    size_t begin, end;
    size_t base, blocks; /* position of the first block that a row sees; blocks */
    bool needed;         /* there is something to choose, or someone to show it to */
    index_scratch owner;
} index_tile;

static index_tile tile_of(const index_task *t, size_t begin, size_t end, int owner) {
    const lc_row *rows = t->args->rows;
    index_tile a = {t, begin, end, .needed = t->args->force_lists, .owner = cut_scratch(t, owner)};
    size_t first = rows[begin].start, last = rows[begin].pos;
    for (size_t i = begin; i < end; i++) {
        if (rows[i].start < first) first = rows[i].start;
        if (rows[i].pos > last) last = rows[i].pos;
        if (rows[i].pos + 1 - rows[i].start > t->s->topk) a.needed = true;
    }
    a.base = first / LC_KV_BLOCK * LC_KV_BLOCK;
    a.blocks = a.needed ? lc_ceil_div(last + 1 - a.base, LC_KV_BLOCK) : 0;
    size_t heads = t->s->heads;
    if (a.needed)
        t->op->path->pack_nk((end - begin) * heads, t->s->dim, t->b->q + begin * heads * t->s->dim,
                             t->s->dim, a.owner.left);
    return a;
}

/* I(t, s) = sum over heads, in order, of w_h relu(q_h . k_s), for the 64 keys of blocks and the
 * tile's rows. */
static void score_blocks(void *ctx, size_t begin, size_t end, int thread) {
    const index_tile *a = ctx;
    const index_task *t = a->t;
    const lc_row *rows = t->args->rows;
    size_t heads = t->s->heads, ld;
    index_scratch own = cut_scratch(t, thread);
    lc_kv *kv = rows[a->begin].kv;
    for (size_t b = begin; b < end; b++) {
        size_t pos = a->base + b * LC_KV_BLOCK;
        const void *right = lc_kv_right_rows(kv->layout.element, t->s->dim,
                                             lc_kv_index(kv, t->args->indexer, pos), own.keys, &ld);
        t->op->path->multiply_nk(&(lc_product){.rows = (a->end - a->begin) * heads,
                                               .k = t->s->dim,
                                               .columns = LC_KV_BLOCK,
                                               .left = a->owner.left,
                                               .right = right,
                                               .ld = ld,
                                               .c = own.dots,
                                               .ldc = LC_KV_BLOCK,
                                               .scratch = own.product});
        for (size_t i = a->begin; i < a->end; i++)
            if (pos <= rows[i].pos)
                t->op->k->sum_scaled_relu(heads, LC_KV_BLOCK, t->b->weights + i * heads,
                                          own.dots + (i - a->begin) * heads * LC_KV_BLOCK,
                                          a->owner.scores + (i - a->begin) * a->owner.ld +
                                              b * LC_KV_BLOCK);
    }
}

/* Lists of the tile's rows begin + first .. begin + last - 1. */
static void choose_keys(void *ctx, size_t first, size_t last, int thread) {
    const index_tile *a = ctx;
    const index_task *t = a->t;
    index_scratch own = cut_scratch(t, thread);
    for (size_t r = first; r < last; r++) {
        const lc_row *row = &t->args->rows[a->begin + r];
        size_t i = a->begin + r, n = row->pos + 1 - row->start;
        lc_index_scores scores = {row->start, n,
                                  a->owner.scores + r * a->owner.ld + (row->start - a->base)};
        t->b->count[i] = n < t->s->topk ? n : t->s->topk;
        if (a->needed)
            lc_index_select(t->op->k, t->s, &scores, own.work, t->b->list + i * t->s->topk);
        if (t->args->probe && t->args->probe->scores) {
            float *out = t->args->probe->scores + i * t->args->probe->ld_scores;
            memset(out, 0, t->args->probe->ld_scores * sizeof *out);
            memcpy(out + row->start, scores.score, n * sizeof *out);
        }
    }
}

static bool starts_tile(const index_task *t, size_t i) {
    return i % TILE == 0 || t->args->rows[i].kv != t->args->rows[i - 1].kv;
}

static size_t end_of_tile(const index_task *t, size_t i) {
    size_t end = i + 1;
    while (end < t->args->x->left.rows && !starts_tile(t, end)) end++;
    return end;
}

static void choose_rows(void *ctx, size_t begin, size_t end, int thread) {
    const index_task *t = ctx;
    for (size_t i = begin; i < end; i++) {
        if (!starts_tile(t, i)) continue;
        index_tile a = tile_of(t, i, end_of_tile(t, i), thread);
        score_blocks(&a, 0, a.blocks, thread);
        choose_keys(&a, 0, a.end - a.begin, thread);
    }
}

static void choose_all(index_task *t) {
    size_t m = t->args->x->left.rows, tiles = 0;
    for (size_t i = 0; i < m; i++) tiles += starts_tile(t, i);
    if (4 * tiles >= 3 * (size_t)lc_pool_threads(t->op->pool)) {
        lc_pool_for(t->op->pool, m, 1, choose_rows, t);
        return;
    }
    for (size_t i = 0; i < m; i = end_of_tile(t, i)) {
        index_tile a = tile_of(t, i, end_of_tile(t, i), 0);
        lc_pool_for(t->op->pool, a.blocks, BLOCK_GRAIN, score_blocks, &a);
        lc_pool_for(t->op->pool, a.end - a.begin, 1, choose_keys, &a);
    }
}

int lc_index(const lc_op *op, const lc_index_shape *s, const lc_indexer_weights *w,
             const lc_index_args *args, const lc_index_buffers *b, lc_err *err) {
    size_t m = args->x->left.rows;
    index_task t = {op, s, w, args, b};
    lc_op exact = lc_op_exact(op);
    lc_operand x = lc_operand_of(m, s->hidden, args->x->x, args->x->ldx, b->x);
    int status = lc_linear(op, &w->wq_b, args->c_q, b->q, s->heads * s->dim, err);
    if (status == LC_OK) status = lc_linear(op, &w->wk, args->x, b->k, s->dim, err);
    if (status == LC_OK) status = lc_linear(&exact, &w->weights, &x, b->weights, s->heads, err);
    if (status != LC_OK) return status;
    lc_pool_for(op->pool, m, LC_ROW_GRAIN, finish_rows, &t);
    choose_all(&t);
    return LC_OK;
}
