/* indexer.c: index scores by blocks of 64 keys, and selection by radix select on (score, position).
 */
#include "ops/indexer.h"

#include "ops/attend.h"

#include <math.h>
#include <string.h>

enum { TILE = 4 }; /* rows that share a block of keys */

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

/* Key of the order "higher score first, then lower position": larger is better, all keys differ. */
static uint64_t rank_key(float score, size_t i) {
    uint32_t bits;
    float s = score == 0.0f ? 0.0f : score; /* -0.0 ranks as 0.0 */
    memcpy(&bits, &s, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t) ~(uint32_t)i;
}

/* The k-th largest of n distinct keys, 1 <= k <= n, byte by byte from the top; work is reordered.
 */
static uint64_t kth_largest(uint64_t *work, size_t n, size_t k) {
    for (int shift = 56; shift >= 0; shift -= 8) {
        size_t histogram[256] = {0};
        for (size_t i = 0; i < n; i++) histogram[work[i] >> shift & 255]++;
        unsigned byte = 255;
        while (histogram[byte] < k) k -= histogram[byte--];
        size_t kept = 0;
        for (size_t i = 0; i < n; i++)
            if ((work[i] >> shift & 255) == byte) work[kept++] = work[i];
        n = kept;
    }
    return work[0];
}

size_t lc_index_select(const lc_index_shape *s, size_t start, size_t n, const float *score,
                       uint64_t *work, int32_t *list) {
    size_t count = 0;
    if (n <= s->topk) {
        for (size_t i = 0; i < n; i++) list[count++] = (int32_t)(start + i);
        return count;
    }
    size_t picks = s->topk - s->sink - s->window, first = s->sink, last = n - s->window;
    uint64_t threshold = UINT64_MAX;
    if (picks > 0) {
        for (size_t i = first; i < last; i++) work[i - first] = rank_key(score[i], i);
        threshold = kth_largest(work, last - first, picks);
    }
    for (size_t i = 0; i < n; i++)
        if (i < first || i >= last || rank_key(score[i], i) >= threshold)
            list[count++] = (int32_t)(start + i);
    return count;
}

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
            for (size_t j = 0; j < s->dim; j++) q[j] *= s->q_scale;
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

/* A thread's scratch, cut into its parts. */
typedef struct index_scratch {
    float *product;
    float *keys;   /* [64][dim p] copied keys */
    float *left;   /* packed queries of the tile */
    float *dots;   /* [rows * heads][64] */
    float *scores; /* [TILE][whole blocks], scores[r][p - base] */
    uint64_t *work;
    size_t ld;
} index_scratch;

static index_scratch cut_scratch(const index_task *t, float *p) {
    index_scratch a;
    size_t rows = TILE * t->s->heads;
    a.ld = whole_blocks(t->args->context);
    a.product = p;
    a.work = (uint64_t *)(void *)(p + lc_product_floats(t->op, rows, t->s->dim));
    a.scores = (float *)(void *)(a.work + a.ld);
    a.keys = a.scores + TILE * a.ld;
    a.left = a.keys + LC_KV_BLOCK * lc_pad_k(t->s->dim);
    a.dots = a.left + lc_left_floats(rows, t->s->dim);
    return a;
}

/* I(t, s) = sum over heads, in order, of w_h relu(q_h . k_s), for 64 keys from `block` and the
 * tile's rows [begin, end). */
static void score_block(const index_task *t, const index_scratch *a, size_t begin, size_t end,
                        size_t base, size_t block) {
    const lc_row *rows = t->args->rows;
    size_t heads = t->s->heads, ld;
    const char *keys = lc_kv_index(rows[begin].kv, t->args->indexer, block);
    const void *right =
        lc_kv_right_rows(rows[begin].kv->layout.element, t->s->dim, keys, a->keys, &ld);
    t->op->path->multiply_nk(&(lc_product){.rows = (end - begin) * heads,
                                           .k = t->s->dim,
                                           .columns = LC_KV_BLOCK,
                                           .left = a->left,
                                           .right = right,
                                           .ld = ld,
                                           .c = a->dots,
                                           .ldc = LC_KV_BLOCK,
                                           .scratch = a->product});
    for (size_t i = begin; i < end; i++) {
        if (block > rows[i].pos) continue;
        float *out = a->scores + (i - begin) * a->ld + (block - base);
        memset(out, 0, LC_KV_BLOCK * sizeof *out);
        for (size_t h = 0; h < heads; h++)
            t->op->k->add_scaled_relu(LC_KV_BLOCK, t->b->weights[i * heads + h],
                                      a->dots + ((i - begin) * heads + h) * LC_KV_BLOCK, out);
    }
}

/* Rows [begin, end) of one cache, at most TILE. */
static void choose_tile(const index_task *t, const index_scratch *a, size_t begin, size_t end) {
    const lc_row *rows = t->args->rows;
    size_t first = rows[begin].start, last = rows[begin].pos;
    bool needed = t->args->force_lists;
    for (size_t i = begin; i < end; i++) {
        if (rows[i].start < first) first = rows[i].start;
        if (rows[i].pos > last) last = rows[i].pos;
        if (rows[i].pos + 1 - rows[i].start > t->s->topk) needed = true;
    }
    size_t base = first / LC_KV_BLOCK * LC_KV_BLOCK, heads = t->s->heads;
    if (needed)
        t->op->path->pack_nk((end - begin) * heads, t->s->dim, t->b->q + begin * heads * t->s->dim,
                             t->s->dim, a->left);
    for (size_t block = base; needed && block <= last; block += LC_KV_BLOCK)
        score_block(t, a, begin, end, base, block);
    for (size_t i = begin; i < end; i++) {
        size_t n = rows[i].pos + 1 - rows[i].start;
        const float *score = a->scores + (i - begin) * a->ld + (rows[i].start - base);
        t->b->count[i] = n < t->s->topk ? n : t->s->topk;
        if (needed)
            lc_index_select(t->s, rows[i].start, n, score, a->work, t->b->list + i * t->s->topk);
        if (t->args->probe && t->args->probe->scores) {
            float *out = t->args->probe->scores + i * t->args->probe->ld_scores;
            memset(out, 0, t->args->probe->ld_scores * sizeof *out);
            memcpy(out + rows[i].start, score, n * sizeof *out);
        }
    }
}

static void choose_rows(void *ctx, size_t begin, size_t end, int thread) {
    const index_task *t = ctx;
    index_scratch a = cut_scratch(t, t->op->scratch[thread]);
    for (size_t i = begin; i < end;) {
        size_t next = i + 1;
        while (next < end && t->args->rows[next].kv == t->args->rows[i].kv) next++;
        choose_tile(t, &a, i, next);
        i = next;
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
    lc_pool_for(op->pool, m, TILE, choose_rows, &t);
    return LC_OK;
}
