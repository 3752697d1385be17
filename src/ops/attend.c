/*
 * attend.c: one row at a time for chosen keys; for dense rows, tiles of rows that share each
 * gathered block of keys. A row's arithmetic is the same in both.
 */
#include "ops/attend.h"

#include <math.h>
#include <string.h>

enum { TILE = 8 }; /* dense rows that share a gathered block */

/* A thread's scratch, cut into its parts. */
typedef struct attend_scratch {
    float *rows;    /* [64][Wp] gathered keys */
    float *columns; /* [Wp][64] the same transposed */
    float *scores;  /* [N][64] */
    float *partial; /* [N][R up to 16] */
    float *state;   /* [TILE] x { max [N], sum [N], alpha [N], context [N][R16] } */
} attend_scratch;

typedef struct attend_task {
    const lc_op *op;
    const lc_mla_shape *s;
    const lc_mla_args *args;
    float *queries;
    size_t m, width, stride, r16, state_floats;
} attend_task;

static size_t round16(size_t n) { return lc_ceil_div(n, LC_LANES) * LC_LANES; }
static size_t state_floats(const lc_mla_shape *s) {
    return round16(s->heads * 3) + s->heads * round16(s->kv_rank);
}

size_t lc_attend_scratch(const lc_mla_shape *s) {
    size_t stride = lc_pad_k(s->kv_rank + s->rope);
    return 2 * LC_KV_BLOCK * stride + s->heads * (LC_KV_BLOCK + round16(s->kv_rank)) +
           TILE * state_floats(s);
}

static attend_scratch cut_scratch(const attend_task *t, float *p) {
    attend_scratch a;
    a.rows = p;
    a.columns = a.rows + LC_KV_BLOCK * t->stride;
    a.scores = a.columns + LC_KV_BLOCK * t->stride;
    a.partial = a.scores + t->s->heads * LC_KV_BLOCK;
    a.state = a.partial + t->s->heads * t->r16;
    return a;
}

static void state_init(const attend_task *t, float *state) {
    memset(state, 0, t->state_floats * sizeof *state);
    for (size_t h = 0; h < t->s->heads; h++) state[h] = -INFINITY;
}

/* Adds keys lo..hi-1 of the gathered block to a row's state. */
static void add_block(const attend_task *t, const attend_scratch *a, const float *query, size_t lo,
                      size_t hi, float *state) {
    const lc_kernels *k = t->op->k;
    size_t heads = t->s->heads;
    float *max = state, *sum = max + heads, *alpha = sum + heads,
          *context = state + round16(heads * 3);
    for (size_t c = 0; c < LC_KV_BLOCK; c += LC_LANES)
        k->gemm(&(lc_gemm){.rows = heads,
                           .k = t->stride,
                           .a = query,
                           .lda = t->stride,
                           .panel = a->columns + c,
                           .ldp = LC_KV_BLOCK,
                           .c = a->scores + c,
                           .ldc = LC_KV_BLOCK,
                           .columns = LC_LANES});
    for (size_t h = 0; h < heads; h++) {
        float *score = a->scores + h * LC_KV_BLOCK;
        for (size_t i = 0; i < LC_KV_BLOCK; i++)
            score[i] = i >= lo && i < hi ? score[i] * t->s->softmax_scale : -INFINITY;
        float block_max = k->max(LC_KV_BLOCK, score);
        float new_max = block_max > max[h] ? block_max : max[h];
        alpha[h] = max[h] - new_max;
        max[h] = new_max;
    }
    k->exp_sum(heads, alpha, 0.0f, alpha);
    for (size_t h = 0; h < heads; h++) {
        float *score = a->scores + h * LC_KV_BLOCK;
        float block_sum = k->exp_sum(LC_KV_BLOCK, score, max[h], score);
        k->scale_add(1, alpha[h], 1.0f, &block_sum, &sum[h]);
    }
    if (t->op->bf16) k->round_bf16(heads * LC_KV_BLOCK, a->scores, a->scores);
    for (size_t c = 0; c < t->r16; c += LC_LANES)
        k->gemm(&(lc_gemm){.rows = heads,
                           .k = LC_KV_BLOCK,
                           .a = a->scores,
                           .lda = LC_KV_BLOCK,
                           .panel = a->rows + c,
                           .ldp = t->stride,
                           .c = a->partial + c,
                           .ldc = t->r16,
                           .columns = LC_LANES});
    for (size_t h = 0; h < heads; h++)
        k->scale_add(t->r16, alpha[h], 1.0f, a->partial + h * t->r16, context + h * t->r16);
}

static void write_context(const attend_task *t, const float *state, float *out) {
    size_t heads = t->s->heads;
    const float *sum = state + heads, *context = state + round16(heads * 3);
    for (size_t h = 0; h < heads; h++) {
        float inverse = 1.0f / sum[h];
        for (size_t i = 0; i < t->s->kv_rank; i++)
            out[h * t->stride + i] = context[h * t->r16 + i] * inverse;
        lc_operand_row(t->op, t->s->kv_rank, out + h * t->stride, out + h * t->stride);
    }
}

/* Gathers up to 64 cached rows and their transpose; missing ones are zero. */
static void load_block(const attend_task *t, const attend_scratch *a, const lc_kv *kv,
                       const char *const *from, size_t n) {
    lc_kv_gather(t->op, kv->layout.element, t->width, from, n, t->stride, a->rows);
    memset(a->rows + n * t->stride, 0, (LC_KV_BLOCK - n) * t->stride * sizeof *a->rows);
    t->op->k->transpose(LC_KV_BLOCK, t->stride, a->rows, t->stride, a->columns, LC_KV_BLOCK);
}

static void attend_chosen(const attend_task *t, const attend_scratch *a, size_t i) {
    const lc_row *row = &t->args->rows[i];
    const lc_keys *keys = &t->args->keys;
    const int32_t *list = keys->list + i * keys->stride;
    float *query = t->queries + i * t->s->heads * t->stride;
    state_init(t, a->state);
    for (size_t first = 0; first < keys->count[i]; first += LC_KV_BLOCK) {
        const char *from[LC_KV_BLOCK];
        size_t n = keys->count[i] - first < LC_KV_BLOCK ? keys->count[i] - first : LC_KV_BLOCK;
        for (size_t j = 0; j < n; j++)
            from[j] = lc_kv_latent(row->kv, t->args->slot, (size_t)list[first + j]);
        load_block(t, a, row->kv, from, n);
        add_block(t, a, query, 0, n, a->state);
    }
    write_context(t, a->state, query);
}

/* Rows [begin, end) attend to all of their start..pos in one cache. */
static void attend_dense(const attend_task *t, const attend_scratch *a, size_t begin, size_t end) {
    const lc_row *rows = t->args->rows;
    lc_kv *kv = rows[begin].kv;
    size_t first = rows[begin].start, last = rows[begin].pos;
    for (size_t i = begin; i < end; i++) {
        if (rows[i].start < first) first = rows[i].start;
        if (rows[i].pos > last) last = rows[i].pos;
        state_init(t, a->state + (i - begin) * t->state_floats);
    }
    for (size_t base = first / LC_KV_BLOCK * LC_KV_BLOCK; base <= last; base += LC_KV_BLOCK) {
        const char *from[LC_KV_BLOCK];
        size_t n = last + 1 - base < LC_KV_BLOCK ? last + 1 - base : LC_KV_BLOCK;
        for (size_t j = 0; j < n; j++) from[j] = lc_kv_latent(kv, t->args->slot, base + j);
        load_block(t, a, kv, from, n);
        for (size_t i = begin; i < end; i++) {
            size_t lo = rows[i].start > base ? rows[i].start - base : 0;
            size_t hi = rows[i].pos + 1 > base ? rows[i].pos + 1 - base : 0;
            if (hi > LC_KV_BLOCK) hi = LC_KV_BLOCK;
            if (lo < hi)
                add_block(t, a, t->queries + i * t->s->heads * t->stride, lo, hi,
                          a->state + (i - begin) * t->state_floats);
        }
    }
    for (size_t i = begin; i < end; i++)
        write_context(t, a->state + (i - begin) * t->state_floats,
                      t->queries + i * t->s->heads * t->stride);
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
    size_t width = s->kv_rank + s->rope;
    attend_task t = {
        op, s, args, queries, m, width, lc_pad_k(width), round16(s->kv_rank), state_floats(s)};
    lc_pool_for(op->pool, m, TILE, attend_rows, &t);
}
