/*
 * attention.c: scores, probabilities and context of 64 queries and one head at a time. Heads and
 * sequences are independent: a thread packs a head's keys and values once, for all its tiles, which
 * run in order backward, since each adds to the gradients of all keys before it.
 */
#include "train/attention.h"

#include <math.h>
#include <string.h>

enum { TILE = LC_QUERY_TILE, KEY_ALIGN = LC_K_BLOCK };

typedef struct core_task {
    const lc_tape *t;
    const lc_mla_pass *p;
} core_task;

static size_t head_dim(const lc_mla_shape *s) { return s->nope + s->rope; }

/* ---- memory ---- */

static size_t round_up(size_t n) { return lc_ceil_div(n, LC_LANES) * LC_LANES; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t product_floats(const lc_op *op, const lc_mla_shape *s, size_t length) {
    size_t widest = larger(head_dim(s), s->v), bytes = op->path->scratch_bytes(TILE, widest);
    bytes = larger(bytes, op->path->scratch_bytes(TILE, length));
    bytes = larger(bytes, op->path->scratch_bytes(length, TILE));
    return round_up(bytes / sizeof(float) + 1);
}

static size_t right_floats(const lc_op *op, size_t k, size_t columns) {
    return round_up(lc_right_bytes(op->path, k, columns) / sizeof(float) + 1);
}

/* A thread's scratch, cut. */
typedef struct core_scratch {
    float *left;           /* packed rows: a tile's, or all keys' of a turned tile */
    float *product;        /* of the path */
    float *probs, *dprobs; /* [TILE][ld] */
    /* Right sides of a head's keys and values, packed along the head's dimension and along the
     * positions; of a tile's queries or gradients. */
    float *keys[2], *values[2], *tile;
    float *dkeys, *dvalues; /* [length][head_dim], [length][v] */
    uint8_t *on;            /* [length + 8] a query's chosen keys */
    size_t ld;
} core_scratch;

static size_t cut_scratch(const lc_op *op, const lc_mla_shape *s, size_t length, float *base,
                          core_scratch *c) {
    size_t ld = round_up(length), left = lc_left_floats(TILE, larger(head_dim(s), s->v)), used = 0;
    left = larger(left, lc_left_floats(TILE, length));
    left = larger(left, lc_left_floats(round_up(length), TILE));
    float *on = NULL;
    float **parts[] = {&c->left,    &c->product, &c->probs,     &c->dprobs,
                       &c->keys[0], &c->keys[1], &c->values[0], &c->values[1],
                       &c->tile,    &c->dkeys,   &c->dvalues,   &on};
    size_t floats[] = {left,
                       product_floats(op, s, length),
                       TILE * ld,
                       TILE * ld,
                       right_floats(op, head_dim(s), length),
                       right_floats(op, length, head_dim(s)),
                       right_floats(op, s->v, length),
                       right_floats(op, length, s->v),
                       right_floats(op, TILE, larger(head_dim(s), s->v)),
                       ld * head_dim(s),
                       ld * s->v,
                       ld / sizeof(float) + 2};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        *parts[i] = base ? base + used : NULL;
        used += round_up(floats[i]);
    }
    c->on = (uint8_t *)on;
    c->ld = ld;
    return used;
}

size_t lc_attention_floats(const lc_op *op, const lc_mla_shape *s, size_t length) {
    core_scratch c;
    return cut_scratch(op, s, length, NULL, &c);
}

size_t lc_attention_key_bytes(const lc_op *op, const lc_mla_shape *s, size_t m) {
    return m * s->heads * lc_pad_k(head_dim(s)) * op->path->element;
}

/* Element rows of (sequence, head, position) in work->keys. */
static char *key_rows(const core_task *k, size_t row, size_t head, size_t position) {
    size_t length = k->p->rows->length;
    size_t at = (row * k->p->shape->heads + head) * length + position;
    return (char *)k->p->work->keys + at * lc_pad_k(head_dim(k->p->shape)) * k->t->op.path->element;
}

/* ---- operands ---- */

/* n keys of a head from a row of the batch on: [n][head_dim]. */
static void gather_keys(const core_task *k, size_t first, size_t n, size_t head, float *keys) {
    const lc_mla_shape *s = k->p->shape;
    size_t dim = head_dim(s), ld = s->heads * (s->nope + s->v);
    const float *kvb = k->p->s->kvb + first * ld + head * (s->nope + s->v);
    for (size_t i = 0; i < n; i++) {
        memcpy(keys + i * dim, kvb + i * ld, s->nope * sizeof *keys);
        memcpy(keys + i * dim + s->nope, k->p->s->key + (first + i) * s->rope,
               s->rope * sizeof *keys);
    }
}

/* Items are (sequence, head, tile of positions). */
static void prepare_rows(void *ctx, size_t begin, size_t end, int thread) {
    const core_task *k = ctx;
    const lc_mla_shape *s = k->p->shape;
    const lc_op *op = &k->t->op;
    size_t length = k->p->rows->length, tiles = lc_ceil_div(length, TILE), dim = head_dim(s);
    float *keys = op->scratch[thread];
    for (size_t item = begin; item < end; item++) {
        size_t at = item % tiles * TILE, head = item / tiles % s->heads,
               row = item / tiles / s->heads;
        size_t n = length - at < TILE ? length - at : TILE;
        gather_keys(k, row * length + at, n, head, keys);
        lc_elements(op, n, dim, keys, dim, key_rows(k, row, head, at));
    }
}

void lc_attention_prepare(const lc_tape *t, const lc_mla_pass *p) {
    core_task k = {t, p};
    size_t tiles = lc_ceil_div(p->rows->length, TILE);
    lc_pool_for(t->op.pool, p->rows->rows * p->shape->heads * tiles, 1, prepare_rows, &k);
}

static void pack_right(const core_task *k, lc_right right, float *out) {
    right.end = right.k;
    k->t->op.path->pack_right(&right, out);
}

/* Right sides of a head: keys for scores and values for context; the other two for the way back.
 * dkeys serves as scratch. */
static void pack_head(const core_task *k, size_t row, size_t head, bool back,
                      const core_scratch *c) {
    const lc_mla_shape *s = k->p->shape;
    size_t n = k->p->rows->length, dim = head_dim(s), ld = s->heads * (s->nope + s->v);
    const float *values = k->p->s->kvb + row * n * ld + head * (s->nope + s->v) + s->nope;
    gather_keys(k, row * n, n, head, c->dkeys);
    pack_right(k, (lc_right){.k = dim, .columns = n, .x = c->dkeys, .ld = dim}, c->keys[0]);
    if (!back) {
        pack_right(k, (lc_right){.k = n, .columns = s->v, .x = values, .ld = ld, .kn = true},
                   c->values[1]);
        return;
    }
    pack_right(k, (lc_right){.k = n, .columns = dim, .x = c->dkeys, .ld = dim, .kn = true},
               c->keys[1]);
    pack_right(k, (lc_right){.k = s->v, .columns = n, .x = values, .ld = ld}, c->values[0]);
}

/* c [tile][ldc] = packed left rows times keys or values of the tile: packed along the dimension k,
 * columns are the tile's keys. */
static void times_keys(const core_task *k, const lc_query_tile *q, size_t dim, const float *right,
                       float *out, const core_scratch *c) {
    const lc_gemm_path *path = k->t->op.path;
    path->multiply(&(lc_product){.rows = q->end - q->begin,
                                 .k = dim,
                                 .columns = q->end - q->first,
                                 .left = c->left,
                                 .right = (const char *)right + lc_right_bytes(path, dim, q->first),
                                 .c = out,
                                 .ldc = c->ld,
                                 .scratch = c->product});
}

/* The same, packed along the positions, of which the tile's are contracted: panel by panel. */
static void over_keys(const core_task *k, const lc_query_tile *q, size_t dim, const float *right,
                      float *out, size_t ldc, const core_scratch *c) {
    const lc_gemm_path *path = k->t->op.path;
    size_t length = k->p->rows->length, skip = lc_right_bytes(path, q->first, path->panel);
    for (size_t column = 0; column < dim; column += path->panel)
        path->multiply(&(lc_product){
            .rows = q->end - q->begin,
            .k = q->end - q->first,
            .columns = dim - column < path->panel ? dim - column : path->panel,
            .left = c->left,
            .right = (const char *)right + lc_right_bytes(path, length, column) + skip,
            .c = out + column,
            .ldc = ldc,
            .scratch = c->product});
}

/* ---- tiles ---- */

void lc_choice_bytes(const uint64_t *words, size_t first, size_t end, uint8_t *on) {
    for (size_t i = first / 8 * 8; i < end; i += 8) { /* bit j of a byte to byte j of eight */
        uint64_t bits = (words[i / 64] >> i % 64 & 0xff) * 0x0101010101010101u;
        bits &= 0x8040201008040201u;
        memcpy(on + i, &bits, sizeof bits);
    }
}

size_t lc_query_tiles(const lc_rows *rows) { return rows->rows * lc_ceil_div(rows->length, TILE); }

lc_query_tile lc_query_tile_of(const lc_rows *rows, size_t tile) {
    size_t tiles = lc_ceil_div(rows->length, TILE), begin = tile % tiles * TILE;
    lc_query_tile q = {.row = tile / tiles, .begin = begin, .end = begin + TILE, .first = begin};
    if (q.end > rows->length) q.end = rows->length;
    for (size_t i = q.begin; i < q.end; i++) {
        size_t start = lc_rows_start(rows, q.row * rows->length + i);
        if (start < q.first) q.first = start;
    }
    q.first = q.first / KEY_ALIGN * KEY_ALIGN;
    return q;
}

/* scores [n][ld] = queries of the tile times its keys, without the softmax scale. */
static void tile_scores(const core_task *k, const lc_query_tile *q, size_t head, float *scores,
                        const core_scratch *c) {
    const lc_mla_shape *s = k->p->shape;
    size_t dim = head_dim(s), row = q->row * k->p->rows->length + q->begin;
    k->t->op.path->pack_kn(q->end - q->begin, dim, k->p->s->q + (row * s->heads + head) * dim,
                           s->heads * dim, c->left);
    times_keys(k, q, dim, c->keys[0], scores, c);
}

/* The range of query i's keys among the tile's, *lo < *hi; scales them and removes what is not
 * chosen; the rest of the row becomes zero. */
static void scale_row(const core_task *k, const lc_query_tile *q, size_t i, float *scores,
                      const core_scratch *c, size_t *lo, size_t *hi) {
    const lc_rows *rows = k->p->rows;
    size_t row = q->row * rows->length + i;
    float scale = k->p->shape->softmax_scale;
    *lo = lc_rows_start(rows, row) - q->first;
    *hi = i + 1 - q->first;
    memset(scores, 0, *lo * sizeof *scores);
    memset(scores + *hi, 0, (q->end - q->first - *hi) * sizeof *scores);
    const uint8_t *on = NULL;
    if (k->p->chosen) {
        lc_choice_bytes(k->p->chosen + row * lc_choice_words(rows->length), *lo + q->first,
                        *hi + q->first, c->on);
        on = c->on + *lo + q->first;
    }
    k->t->op.k->scale_chosen(*hi - *lo, scale, on, scores + *lo);
}

/* Probabilities from scores, with the maxima and sums of the forward pass. */
static void tile_probs(const core_task *k, const lc_query_tile *q, size_t head, float *scores,
                       size_t ld, const core_scratch *c) {
    const lc_kernels *kernels = k->t->op.k;
    size_t heads = k->p->shape->heads, row = q->row * k->p->rows->length;
    for (size_t i = q->begin; i < q->end; i++, scores += ld) {
        size_t lo, hi, at = (row + i) * heads + head;
        scale_row(k, q, i, scores, c, &lo, &hi);
        kernels->exp_sum(hi - lo, scores + lo, k->p->s->max[at], scores + lo);
        kernels->scale(hi - lo, k->p->s->inverse[at], scores + lo);
    }
}

void lc_attention_probs(const lc_tape *t, const lc_mla_pass *p, const lc_query_tile *tile,
                        size_t head, float *probs, size_t ld, float *scratch) {
    core_task k = {t, p};
    core_scratch c;
    const lc_mla_shape *s = p->shape;
    size_t dim = head_dim(s), n = tile->end - tile->begin;
    size_t row = tile->row * p->rows->length + tile->begin;
    cut_scratch(&t->op, s, p->rows->length, scratch, &c);
    t->op.path->pack_nk(n, dim, p->s->q + (row * s->heads + head) * dim, s->heads * dim, c.left);
    t->op.path->multiply_nk(&(lc_product){.rows = n,
                                          .k = dim,
                                          .columns = tile->end - tile->first,
                                          .left = c.left,
                                          .right = key_rows(&k, tile->row, head, tile->first),
                                          .ld = lc_pad_k(dim),
                                          .c = probs,
                                          .ldc = ld,
                                          .scratch = c.product});
    tile_probs(&k, tile, head, probs, ld, &c);
}

static void attend_tile(const core_task *k, const lc_query_tile *q, size_t head,
                        const core_scratch *c) {
    const lc_mla_shape *s = k->p->shape;
    const lc_kernels *kernels = k->t->op.k;
    size_t n = q->end - q->begin, row = q->row * k->p->rows->length + q->begin;
    tile_scores(k, q, head, c->probs, c);
    for (size_t i = 0; i < n; i++) {
        size_t lo, hi, at = (row + i) * s->heads + head;
        float *scores = c->probs + i * c->ld;
        scale_row(k, q, q->begin + i, scores, c, &lo, &hi);
        float max = k->p->s->max[at] = kernels->max(hi - lo, scores + lo);
        float sum = kernels->exp_sum(hi - lo, scores + lo, max, scores + lo);
        k->p->s->inverse[at] = 1.0f / sum;
    }
    size_t ld = s->heads * s->v;
    float *out = k->p->s->heads + (row * s->heads + head) * s->v;
    k->t->op.path->pack_kn(n, q->end - q->first, c->probs, c->ld, c->left);
    over_keys(k, q, s->v, c->values[1], out, ld, c);
    for (size_t i = 0; i < n; i++)
        kernels->scale(s->v, k->p->s->inverse[(row + i) * s->heads + head], out + i * ld);
}

/* Items are (sequence, head). */
static void attend_heads(void *ctx, size_t begin, size_t end, int thread) {
    const core_task *k = ctx;
    const lc_mla_shape *s = k->p->shape;
    size_t tiles = lc_ceil_div(k->p->rows->length, TILE);
    core_scratch c;
    cut_scratch(&k->t->op, s, k->p->rows->length, k->t->op.scratch[thread], &c);
    for (size_t item = begin; item < end; item++) {
        size_t head = item % s->heads, row = item / s->heads;
        pack_head(k, row, head, false, &c);
        for (size_t tile = 0; tile < tiles; tile++) {
            lc_query_tile q = lc_query_tile_of(k->p->rows, row * tiles + tile);
            attend_tile(k, &q, head, &c);
        }
    }
}

/* ---- backward of a tile ---- */

/* Adds turned(x) [keys][n] times n rows of the tile, right [n][ld], to out's rows from q->first on.
 */
static void add_turned(const core_task *k, const lc_query_tile *q, const float *x, lc_right right,
                       float *out, const core_scratch *c) {
    const lc_gemm_path *path = k->t->op.path;
    size_t n = q->end - q->begin, keys = q->end - q->first;
    right.k = n;
    right.kn = true;
    pack_right(k, right, c->tile);
    path->pack_turned(&(lc_turned){.rows = keys, .k = n, .end = n, .x = x, .ldx = c->ld}, c->left);
    path->multiply(&(lc_product){.rows = keys,
                                 .k = n,
                                 .columns = right.columns,
                                 .left = c->left,
                                 .right = c->tile,
                                 .c = out + q->first * right.columns,
                                 .ldc = right.columns,
                                 .scratch = c->product,
                                 .add = true});
}

/* dprobs = gradient of the unscaled scores. */
static void scores_back(const core_task *k, const lc_query_tile *q, size_t head,
                        const core_scratch *c) {
    const lc_mla_shape *s = k->p->shape;
    size_t n = q->end - q->begin, keys = q->end - q->first, ldv = s->heads * s->v;
    size_t row = q->row * k->p->rows->length + q->begin, at = (row * s->heads + head) * s->v;
    const float *dout = k->p->work->dheads + at, *out = k->p->s->heads + at;
    k->t->op.path->pack_kn(n, s->v, dout, ldv, c->left);
    times_keys(k, q, s->v, c->values[0], c->dprobs, c);
    for (size_t i = 0; i < n; i++) {
        float *d = c->dprobs + i * c->ld, mean;
        size_t lo = lc_rows_start(k->p->rows, row + i) - q->first, hi = q->begin + i + 1 - q->first;
        mean = k->t->op.k->dot(s->v, dout + i * ldv, out + i * ldv);
        memset(d, 0, lo * sizeof *d);
        memset(d + hi, 0, (keys - hi) * sizeof *d);
        k->t->op.k->softmax_gradient(hi - lo, c->probs + i * c->ld + lo, mean, s->softmax_scale,
                                     d + lo);
    }
}

static void tile_back(const core_task *k, const lc_query_tile *q, size_t head,
                      const core_scratch *c) {
    const lc_mla_shape *s = k->p->shape;
    size_t n = q->end - q->begin, dim = head_dim(s);
    size_t row = q->row * k->p->rows->length + q->begin, at = row * s->heads + head;
    tile_scores(k, q, head, c->probs, c);
    tile_probs(k, q, head, c->probs, c->ld, c);
    scores_back(k, q, head, c);
    k->t->op.path->pack_kn(n, q->end - q->first, c->dprobs, c->ld, c->left);
    over_keys(k, q, dim, c->keys[1], k->p->work->dq + at * dim, s->heads * dim, c);
    add_turned(k, q, c->dprobs,
               (lc_right){.columns = dim, .x = k->p->s->q + at * dim, .ld = s->heads * dim},
               c->dkeys, c);
    add_turned(
        k, q, c->probs,
        (lc_right){.columns = s->v, .x = k->p->work->dheads + at * s->v, .ld = s->heads * s->v},
        c->dvalues, c);
}

/* Items are (sequence, head). */
static void heads_back(void *ctx, size_t begin, size_t end, int thread) {
    const core_task *k = ctx;
    const lc_mla_shape *s = k->p->shape;
    const lc_rows *rows = k->p->rows;
    size_t length = rows->length, tiles = lc_ceil_div(length, TILE), dim = head_dim(s);
    core_scratch c;
    cut_scratch(&k->t->op, s, length, k->t->op.scratch[thread], &c);
    for (size_t item = begin; item < end; item++) {
        size_t head = item % s->heads, row = item / s->heads;
        pack_head(k, row, head, true, &c);
        memset(c.dkeys, 0, length * dim * sizeof *c.dkeys);
        memset(c.dvalues, 0, length * s->v * sizeof *c.dvalues);
        for (size_t tile = 0; tile < tiles; tile++) {
            lc_query_tile q = lc_query_tile_of(rows, row * tiles + tile);
            tile_back(k, &q, head, &c);
        }
        for (size_t i = 0; i < length; i++) {
            size_t at = row * length + i;
            float *kvb = k->p->work->dkvb + (at * s->heads + head) * (s->nope + s->v);
            memcpy(kvb, c.dkeys + i * dim, s->nope * sizeof *kvb);
            memcpy(kvb + s->nope, c.dvalues + i * s->v, s->v * sizeof *kvb);
            memcpy(k->p->work->dkey + (head * lc_rows_count(rows) + at) * s->rope,
                   c.dkeys + i * dim + s->nope, s->rope * sizeof *kvb);
        }
    }
}

/* ---- around the core ---- */

static lc_norm_pass query_norm(const lc_mla_pass *p) {
    return (lc_norm_pass){&p->w->q_a_norm, lc_rows_count(p->rows), p->shape->norm_eps, 1.0f,
                          p->s->qa,        p->shape->q_rank};
}

static lc_norm_pass latent_norm(const lc_mla_pass *p) {
    return (lc_norm_pass){&p->w->kv_a_norm,   lc_rows_count(p->rows),
                          p->shape->norm_eps, p->shape->kv_scale,
                          p->s->kv,           p->shape->kv_rank + p->shape->rope};
}

int lc_mla_latent_run(const lc_tape *t, const lc_mla_pass *p, const float *x, lc_err *err) {
    size_t m = lc_rows_count(p->rows);
    lc_matmul product =
        lc_linear_forward(&p->w->q_a, m, x, p->shape->hidden, p->s->qa, p->shape->q_rank);
    lc_norm_step norm = {.t = t, .n = query_norm(p), .y = p->s->cq, .ldy = p->shape->q_rank};
    product.before = p->before;
    product.behind = (lc_rows_step){lc_norm_forward_rows, &norm, 0};
    int status = lc_matmul_run(&t->op, t->space, &product, 1, err);
    lc_tape_lap(t, LC_LAP_PROJECT);
    return status;
}

/* Pairs of queries and keys that see each other, each once forward and twice backward: scores are
 * not counted again where they are computed again. */
static void count_operations(const lc_tape *t, const lc_mla_pass *p, double passes) {
    size_t pairs = 0, m = lc_rows_count(p->rows);
    if (!t->profile) return;
    for (size_t i = 0; i < m; i++) pairs += i % p->rows->length + 1 - lc_rows_start(p->rows, i);
    t->space->operations += passes * 2 * (double)pairs * (double)p->shape->heads *
                            (double)(head_dim(p->shape) + p->shape->v);
}

static void rotate_queries(void *ctx, size_t begin, size_t end, int thread) {
    const core_task *k = ctx;
    const lc_mla_shape *s = k->p->shape;
    size_t half = s->rope / 2, dim = head_dim(s);
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        size_t at = i % k->p->rows->length * half;
        float *q = k->p->s->q + i * s->heads * dim;
        k->t->op.k->scale(s->heads * dim, s->q_scale, q);
        for (size_t h = 0; h < s->heads; h++)
            lc_rope_rotate(half, k->p->rows->cosines + at, k->p->rows->sines + at,
                           q + h * dim + s->nope);
    }
}

/* The latent, normed, and the key. */
static void finish_latent(void *ctx, size_t begin, size_t end, int thread) {
    const core_task *k = ctx;
    const lc_mla_shape *s = k->p->shape;
    const lc_mla_state *state = k->p->s;
    size_t half = s->rope / 2;
    lc_norm_step norm = {.t = k->t, .n = latent_norm(k->p), .y = state->latent, .ldy = s->kv_rank};
    lc_norm_forward_rows(&norm, begin, end, thread);
    for (size_t i = begin; i < end; i++) {
        size_t at = i % k->p->rows->length * half;
        float *key = state->key + i * s->rope;
        memcpy(key, state->kv + i * (s->kv_rank + s->rope) + s->kv_rank, s->rope * sizeof *key);
        lc_rope_rotate(half, k->p->rows->cosines + at, k->p->rows->sines + at, key);
    }
}

int lc_mla_run(const lc_tape *t, const lc_mla_pass *p, const float *x, float *out, lc_err *err) {
    const lc_mla_shape *s = p->shape;
    size_t m = lc_rows_count(p->rows);
    core_task k = {t, p};
    lc_matmul products[] = {
        lc_linear_forward(&p->w->q_b, m, p->s->cq, s->q_rank, p->s->q, s->heads * head_dim(s)),
        lc_linear_forward(&p->w->kv_a, m, x, s->hidden, p->s->kv, s->kv_rank + s->rope),
        lc_linear_forward(&p->w->kv_b, m, p->s->latent, s->kv_rank, p->s->kvb, p->w->kv_b.rows)};
    products[0].behind = (lc_rows_step){rotate_queries, &k, 0};
    products[1].behind = (lc_rows_step){finish_latent, &k, 0};
    products[1].chained = products[2].chained = true;
    int status = lc_matmul_run(&t->op, t->space, products, 3, err);
    if (status != LC_OK) return status;
    lc_tape_lap(t, LC_LAP_PROJECT);
    lc_pool_for(t->op.pool, p->rows->rows * s->heads, 1, attend_heads, &k);
    count_operations(t, p, 1);
    lc_tape_lap(t, LC_LAP_ATTEND);
    lc_matmul last = lc_linear_forward(&p->w->o, m, p->s->heads, p->w->o.cols, out, s->hidden);
    last.behind = p->behind;
    status = lc_matmul_run(&t->op, t->space, &last, 1, err);
    lc_tape_lap(t, LC_LAP_PROJECT);
    return status;
}

/* dq through rotation and scale; dkv's rope part = the heads' dkey in order, rotated back. */
static void rotate_back(void *ctx, size_t begin, size_t end, int thread) {
    const core_task *k = ctx;
    const lc_mla_shape *s = k->p->shape;
    const lc_mla_work *work = k->p->work;
    size_t half = s->rope / 2, dim = head_dim(s), m = lc_rows_count(k->p->rows);
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        size_t position = i % k->p->rows->length;
        const float *cosines = k->p->rows->cosines + position * half,
                    *minus = k->p->rows->minus + position * half;
        float *q = work->dq + i * s->heads * dim, *kv = work->dkv + i * (s->kv_rank + s->rope);
        for (size_t h = 0; h < s->heads; h++)
            lc_rope_rotate(half, cosines, minus, q + h * dim + s->nope);
        k->t->op.k->scale(s->heads * dim, s->q_scale, q);
        memset(kv, 0, (s->kv_rank + s->rope) * sizeof *kv);
        for (size_t h = 0; h < s->heads; h++)
            k->t->op.k->add(s->rope, kv + s->kv_rank, work->dkey + (h * m + i) * s->rope,
                            kv + s->kv_rank);
        lc_rope_rotate(half, cosines, minus, kv + s->kv_rank);
    }
}

/* Gradients of the norms' results have come through q_b and kv_b. */
typedef struct norms_task {
    lc_norm_step query, latent;
} norms_task;

static void norms_back(void *ctx, size_t begin, size_t end, int thread) {
    norms_task *k = ctx;
    size_t width = k->query.lddx;
    memset(k->query.dx + begin * width, 0, (end - begin) * width * sizeof(float));
    lc_norm_back_rows(&k->query, begin, end, thread);
    lc_norm_back_rows(&k->latent, begin, end, thread);
}

/* From dq, dkvb and the heads' dkey to dx. */
static int projections_back(core_task *k, const float *x, float *dx, lc_err *err) {
    const lc_tape *t = k->t;
    const lc_mla_pass *p = k->p;
    const lc_mla_shape *s = p->shape;
    const lc_mla_work *work = p->work;
    const lc_mla_net *w = p->w;
    size_t m = lc_rows_count(p->rows), width = s->kv_rank + s->rope, lq = s->heads * head_dim(s);
    norms_task norms = {.query = {t, query_norm(p), NULL, 0, work->dcq, s->q_rank, work->dqa,
                                  s->q_rank, t->rates[0]},
                        .latent = {t, latent_norm(p), NULL, 0, work->dlatent, s->kv_rank, work->dkv,
                                   width, t->rates[1]}};
    lc_matmul products[] = {
        lc_linear_to_input(&w->q_b, m, work->dq, lq, work->dcq, s->q_rank, false),
        lc_linear_to_weight(t, &w->q_b, m, work->dq, lq, p->s->cq, s->q_rank),
        lc_linear_to_input(&w->kv_b, m, work->dkvb, w->kv_b.rows, work->dlatent, s->kv_rank, false),
        lc_linear_to_weight(t, &w->kv_b, m, work->dkvb, w->kv_b.rows, p->s->latent, s->kv_rank),
        lc_linear_to_weight(t, &w->q_a, m, work->dqa, s->q_rank, x, s->hidden),
        lc_linear_to_weight(t, &w->kv_a, m, work->dkv, width, x, s->hidden),
        lc_linear_to_input(&w->q_a, m, work->dqa, s->q_rank, dx, s->hidden, false),
        lc_linear_to_input(&w->kv_a, m, work->dkv, width, dx, s->hidden, true)};
    enum { COUNT = sizeof products / sizeof *products };
    for (int i = 1; i < COUNT; i++) products[i].chained = true;
    products[0].before = (lc_rows_step){rotate_back, k, 0};
    products[3].behind = (lc_rows_step){norms_back, &norms, 0};
    products[COUNT - 1].behind = p->behind;
    int status = lc_matmul_run(&t->op, t->space, products, COUNT, err);
    if (status == LC_OK) lc_norm_weights_back(&norms.query, 2);
    return status;
}

int lc_mla_back(const lc_tape *t, const lc_mla_pass *p, const float *x, const float *dout,
                float *dx, lc_err *err) {
    core_task k = {t, p};
    int status = lc_linear_back(t, &p->w->o, lc_rows_count(p->rows), dout, p->s->heads,
                                p->work->dheads, false, err);
    if (status != LC_OK) return status;
    lc_tape_lap(t, LC_LAP_PROJECT);
    lc_pool_for(t->op.pool, p->rows->rows * p->shape->heads, 1, heads_back, &k);
    count_operations(t, p, 2);
    lc_tape_lap(t, LC_LAP_ATTEND);
    status = projections_back(&k, x, dx, err);
    lc_tape_lap(t, LC_LAP_PROJECT);
    return status;
}
