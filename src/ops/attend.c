/*
 * attend.c: tiles of rows share each block of keys: all heads of all rows of a tile are the left
 * rows of one product with 64 keys. Rows with chosen keys are tiles of their own, since each has
 * its own keys. A row's arithmetic is the same in both.
 */
#include "ops/attend.h"

#include <math.h>
#include <string.h>

enum { TILE = 8 }; /* dense rows that share a block of keys */

/* A thread's scratch, cut into its parts; rows are (row of the tile, head). */
typedef struct attend_scratch {
    float *product;           /* scratch of products */
    float *keys;              /* [64][W p] copied keys */
    float *left;              /* packed queries of the tile */
    float *scores;            /* [rows][64] */
    float *probs;             /* packed */
    float *partial;           /* [rows][R] */
    float *context;           /* [rows][R] */
    float *max, *sum, *alpha; /* [rows] */
} attend_scratch;

typedef struct attend_task {
    const lc_op *op;
    const lc_mla_shape *s;
    const lc_mla_args *args;
    float *queries;
    size_t m, width;
} attend_task;

static size_t product_floats(const lc_op *op, const lc_mla_shape *s) {
    size_t rows = TILE * s->heads, width = s->kv_rank + s->rope;
    size_t a = lc_product_floats(op, rows, width), b = lc_product_floats(op, rows, LC_KV_BLOCK);
    return a > b ? a : b;
}

static size_t round16(size_t n) { return lc_ceil_div(n, 16) * 16; }

size_t lc_attend_scratch(const lc_op *op, const lc_mla_shape *s) {
    size_t rows = TILE * s->heads, width = s->kv_rank + s->rope;
    return product_floats(op, s) + LC_KV_BLOCK * lc_pad_k(width) + lc_left_floats(rows, width) +
           2 * rows * LC_KV_BLOCK + 2 * rows * s->kv_rank + 3 * round16(rows);
}

static attend_scratch cut_scratch(const attend_task *t, float *p) {
    size_t rows = TILE * t->s->heads;
    attend_scratch a;
    a.product = p;
    a.keys = a.product + product_floats(t->op, t->s);
    a.left = a.keys + LC_KV_BLOCK * lc_pad_k(t->width);
    a.scores = a.left + lc_left_floats(rows, t->width);
    a.probs = a.scores + rows * LC_KV_BLOCK;
    a.max = a.probs + rows * LC_KV_BLOCK;
    a.sum = a.max + round16(rows);
    a.alpha = a.sum + round16(rows);
    a.partial = a.alpha + round16(rows);
    a.context = a.partial + rows * t->s->kv_rank;
    return a;
}

const void *lc_kv_right_rows(size_t element, size_t width, const char *rows, float *scratch,
                             size_t *ld) {
    *ld = lc_pad_k(width);
    if (width == *ld) return rows;
    memset(scratch, 0, LC_KV_BLOCK * *ld * element);
    for (size_t i = 0; i < LC_KV_BLOCK; i++)
        memcpy((char *)scratch + i * *ld * element, rows + i * width * element, width * element);
    return scratch;
}

static void begin_tile(const attend_task *t, const attend_scratch *a, size_t first, size_t n) {
    size_t rows = n * t->s->heads;
    t->op->path->pack_nk(rows, t->width, t->queries + first * t->s->heads * t->width, t->width,
                         a->left);
    memset(a->context, 0, rows * t->s->kv_rank * sizeof *a->context);
    for (size_t i = 0; i < rows; i++) a->max[i] = -INFINITY, a->sum[i] = 0.0f;
}

/* Softmax of a block's scores of one (row, head): keys lo..hi-1 count. */
static void weigh(const attend_task *t, const attend_scratch *a, size_t i, size_t lo, size_t hi) {
    const lc_kernels *k = t->op->k;
    float *score = a->scores + i * LC_KV_BLOCK;
    for (size_t j = 0; j < lo; j++) score[j] = -INFINITY;
    for (size_t j = lo; j < hi; j++) score[j] *= t->s->softmax_scale;
    for (size_t j = hi; j < LC_KV_BLOCK; j++) score[j] = -INFINITY;
    float block_max = k->max(LC_KV_BLOCK, score);
    float new_max = block_max > a->max[i] ? block_max : a->max[i];
    float drop = a->max[i] - new_max;
    k->exp_sum(1, &drop, 0.0f, &a->alpha[i]);
    a->max[i] = new_max;
    float block_sum = k->exp_sum(LC_KV_BLOCK, score, new_max, score);
    k->scale_add(1, a->alpha[i], 1.0f, &block_sum, &a->sum[i]);
}

/* Adds a block of 64 keys (W elements each, `ld` apart) to the tile's rows [first, first + n). */
static void add_block(const attend_task *t, const attend_scratch *a, const void *keys, size_t ld,
                      size_t n, const size_t *lo, const size_t *hi) {
    const lc_gemm_path *path = t->op->path;
    size_t heads = t->s->heads, rows = n * heads, rank = t->s->kv_rank;
    path->multiply_nk(&(lc_product){.rows = rows,
                                    .k = t->width,
                                    .columns = LC_KV_BLOCK,
                                    .left = a->left,
                                    .right = keys,
                                    .ld = ld,
                                    .c = a->scores,
                                    .ldc = LC_KV_BLOCK,
                                    .scratch = a->product});
    for (size_t i = 0; i < rows; i++) {
        if (lo[i / heads] < hi[i / heads])
            weigh(t, a, i, lo[i / heads], hi[i / heads]);
        else /* none of the block's keys is this row's */
            memset(a->scores + i * LC_KV_BLOCK, 0, LC_KV_BLOCK * sizeof *a->scores);
    }
    path->pack_kn(rows, LC_KV_BLOCK, a->scores, LC_KV_BLOCK, a->probs);
    path->multiply_kn(&(lc_product){.rows = rows,
                                    .k = LC_KV_BLOCK,
                                    .columns = rank,
                                    .left = a->probs,
                                    .right = keys,
                                    .ld = ld,
                                    .c = a->partial,
                                    .ldc = rank,
                                    .scratch = a->product});
    for (size_t i = 0; i < rows; i++)
        if (lo[i / heads] < hi[i / heads])
            t->op->k->scale_add(rank, a->alpha[i], 1.0f, a->partial + i * rank,
                                a->context + i * rank);
}

static void write_tile(const attend_task *t, const attend_scratch *a, size_t first, size_t n) {
    size_t rank = t->s->kv_rank;
    float *out = t->queries + first * t->s->heads * t->width;
    for (size_t i = 0; i < n * t->s->heads; i++) {
        float inverse = 1.0f / a->sum[i];
        for (size_t j = 0; j < rank; j++)
            out[i * t->width + j] = a->context[i * rank + j] * inverse;
    }
}

/* A row with chosen keys: 64 at a time by rank, copied together. */
static void attend_chosen(const attend_task *t, const attend_scratch *a, size_t i) {
    const lc_row *row = &t->args->rows[i];
    const lc_keys *keys = &t->args->keys;
    const int32_t *list = keys->list + i * keys->stride;
    size_t element = row->kv->layout.element, ld = lc_pad_k(t->width), lo = 0;
    begin_tile(t, a, i, 1);
    for (size_t first = 0; first < keys->count[i]; first += LC_KV_BLOCK) {
        size_t left = keys->count[i] - first, n = left < LC_KV_BLOCK ? left : LC_KV_BLOCK;
        memset(a->keys, 0, LC_KV_BLOCK * ld * element);
        for (size_t j = 0; j < n; j++)
            memcpy((char *)a->keys + j * ld * element,
                   lc_kv_latent(row->kv, t->args->slot, (size_t)list[first + j]),
                   t->width * element);
        add_block(t, a, a->keys, ld, 1, &lo, &n);
    }
    write_tile(t, a, i, 1);
}

/* Rows [begin, end), at most TILE, attend to all of their start..pos in one cache. */
static void attend_dense(const attend_task *t, const attend_scratch *a, size_t begin, size_t end) {
    const lc_row *rows = t->args->rows;
    lc_kv *kv = rows[begin].kv;
    size_t first = rows[begin].start, last = rows[begin].pos;
    for (size_t i = begin; i < end; i++) {
        if (rows[i].start < first) first = rows[i].start;
        if (rows[i].pos > last) last = rows[i].pos;
    }
    begin_tile(t, a, begin, end - begin);
    for (size_t base = first / LC_KV_BLOCK * LC_KV_BLOCK; base <= last; base += LC_KV_BLOCK) {
        size_t lo[TILE] = {0}, hi[TILE] = {0}, ld;
        for (size_t i = begin; i < end; i++) {
            size_t past = rows[i].pos + 1 > base ? rows[i].pos + 1 - base : 0;
            lo[i - begin] = rows[i].start > base ? rows[i].start - base : 0;
            hi[i - begin] = past < LC_KV_BLOCK ? past : LC_KV_BLOCK;
        }
        const void *keys = lc_kv_right_rows(kv->layout.element, t->width,
                                            lc_kv_latent(kv, t->args->slot, base), a->keys, &ld);
        add_block(t, a, keys, ld, end - begin, lo, hi);
    }
    write_tile(t, a, begin, end - begin);
}

static bool is_dense(const attend_task *t, size_t i) {
    const lc_keys *keys = &t->args->keys;
    const lc_row *row = &t->args->rows[i];
    return !keys->list || keys->count[i] == row->pos + 1 - row->start;
}

static void attend_rows(void *ctx, size_t begin, size_t end, int thread) {
    const attend_task *t = ctx;
    attend_scratch a = cut_scratch(t, t->op->scratch[thread]);
    for (size_t i = begin; i < end;) {
        size_t next = i + 1;
        if (!is_dense(t, i)) {
            attend_chosen(t, &a, i);
        } else {
            while (next < end && is_dense(t, next) && t->args->rows[next].kv == t->args->rows[i].kv)
                next++;
            attend_dense(t, &a, i, next);
        }
        i = next;
    }
}

void lc_attend(const lc_op *op, const lc_mla_shape *s, size_t m, const lc_mla_args *args,
               float *queries) {
    attend_task t = {op, s, args, queries, m, s->kv_rank + s->rope};
    lc_pool_for(op->pool, m, TILE, attend_rows, &t);
}
