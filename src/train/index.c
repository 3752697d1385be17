/*
 * index.c: index scores 8 queries at a time, selection with the inference code's function, and the
 * index loss. The loss needs one [M][T] array of scores and one of targets while a group is worked
 * on; everything else is a tile.
 */
#include "train/index.h"

#include <math.h>
#include <string.h>

enum { SCORE_ROWS = 8, TILE = LC_QUERY_TILE, KEY_ALIGN = LC_K_BLOCK };

typedef struct index_task {
    const lc_tape *t;
    const lc_index_pass *p;
    const lc_index_member *members; /* one, or all of the loss */
    size_t n_members;
    bool sparse;
    float scale;
} index_task;

static size_t round_up(size_t n) { return lc_ceil_div(n, LC_LANES) * LC_LANES; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* ---- memory ---- */

typedef struct index_scratch {
    float *left, *product, *dots, *dots_back, *turned, *dkeys, *ones;
    size_t ld;
} index_scratch;

static size_t cut_scratch(const lc_op *op, const lc_index_shape *s, size_t length, float *base,
                          index_scratch *c) {
    size_t rows = larger(SCORE_ROWS * s->heads, TILE), ld = round_up(length), used = 0;
    size_t left = larger(lc_left_floats(rows, s->dim), lc_left_floats(ld, TILE));
    left = larger(left, lc_left_floats(TILE, length));
    size_t bytes = larger(op->path->scratch_bytes(rows, s->dim), op->path->scratch_bytes(ld, TILE));
    bytes = larger(bytes, op->path->scratch_bytes(TILE, length));
    float **parts[] = {&c->left,      &c->product, &c->dots, &c->turned,
                       &c->dots_back, &c->dkeys,   &c->ones};
    size_t floats[] = {
        left, bytes / sizeof(float) + 1, rows * ld, ld * TILE, TILE * ld, ld * s->dim, ld};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        *parts[i] = base ? base + used : NULL;
        used += round_up(floats[i]);
    }
    c->ld = ld;
    return used;
}

size_t lc_index_loss_floats(const lc_op *op, const lc_mla_shape *mla, const lc_index_shape *s,
                            size_t length) {
    index_scratch c;
    size_t ld = round_up(length);
    size_t member = lc_attention_floats(op, mla, length) + 2 * TILE * ld;
    return larger(larger(cut_scratch(op, s, length, NULL, &c), member), 3 * ld);
}

static char *element_row(const index_task *k, void *block, size_t row) {
    return (char *)block + row * lc_pad_k(k->p->shape->dim) * k->t->op.path->element;
}

/* ---- scores ---- */

static void finish_rows(void *ctx, size_t begin, size_t end, int thread) {
    const index_task *k = ctx;
    const lc_index_shape *s = k->p->shape;
    const lc_index_state *state = k->p->s;
    size_t half = s->rope / 2;
    float unit = 1.0f / sqrtf((float)s->heads * (float)s->dim);
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        size_t position = i % k->p->rows->length;
        const float *cosines = k->p->rows->cosines + position * half,
                    *sines = k->p->rows->sines + position * half;
        float *key = state->k + i * s->dim;
        for (size_t h = 0; h < s->heads; h++) {
            float *q = state->q + (i * s->heads + h) * s->dim;
            for (size_t j = 0; j < s->dim; j++) q[j] *= s->q_scale;
            lc_rope_rotate(half, cosines, sines, q);
            state->weights[i * s->heads + h] *= unit;
        }
        k->t->op.k->rms_norm(s->dim, state->raw + i * s->dim, k->p->w->k_norm.values, s->norm_eps,
                             key);
        lc_rope_rotate(half, cosines, sines, key);
        lc_elements(&k->t->op, 1, s->dim, key, s->dim, element_row(k, state->keys, i));
    }
}

/* Items are groups of SCORE_ROWS queries of one sequence. */
static void score_groups(void *ctx, size_t begin, size_t end, int thread) {
    const index_task *k = ctx;
    const lc_index_shape *s = k->p->shape;
    const lc_gemm_path *path = k->t->op.path;
    size_t length = k->p->rows->length, groups = lc_ceil_div(length, SCORE_ROWS);
    index_scratch c;
    cut_scratch(&k->t->op, s, length, k->t->op.scratch[thread], &c);
    for (size_t item = begin; item < end; item++) {
        size_t at = item % groups * SCORE_ROWS, base = item / groups * length, row = base + at;
        size_t n = length - at < SCORE_ROWS ? length - at : SCORE_ROWS;
        size_t first = lc_rows_start(k->p->rows, row), keys = at + n - first;
        path->pack_nk(n * s->heads, s->dim, k->p->s->q + row * s->heads * s->dim, s->dim, c.left);
        path->multiply_nk(&(lc_product){.rows = n * s->heads,
                                        .k = s->dim,
                                        .columns = keys,
                                        .left = c.left,
                                        .right = element_row(k, k->p->s->keys, base + first),
                                        .ld = lc_pad_k(s->dim),
                                        .c = c.dots,
                                        .ldc = keys,
                                        .scratch = c.product});
        for (size_t i = 0; i < n; i++)
            k->t->op.k->sum_scaled_relu(s->heads, keys, k->p->s->weights + (row + i) * s->heads,
                                        c.dots + i * s->heads * keys,
                                        k->p->scores + (row + i) * k->p->ld + first);
    }
}

int lc_index_run(const lc_tape *t, const lc_index_pass *p, const float *x, const float *cq,
                 lc_err *err) {
    const lc_index_shape *s = p->shape;
    size_t m = lc_rows_count(p->rows);
    index_task k = {.t = t, .p = p};
    lc_matmul products[] = {
        lc_linear_forward(&p->w->wq_b, m, cq, s->q_rank, p->s->q, s->heads * s->dim),
        lc_linear_forward(&p->w->wk, m, x, s->hidden, p->s->raw, s->dim)};
    lc_matmul weights = lc_linear_forward(&p->w->weights, m, x, s->hidden, p->s->weights, s->heads);
    int status = lc_matmul_run(&t->op, t->space, products, 2, err);
    if (status == LC_OK) status = lc_matmul_run(&t->exact, t->space, &weights, 1, err);
    if (status != LC_OK) return status;
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, finish_rows, &k);
    lc_pool_for(t->op.pool, p->rows->rows * lc_ceil_div(p->rows->length, SCORE_ROWS), 1,
                score_groups, &k);
    return LC_OK;
}

/* ---- choice ---- */

static void choose_rows(void *ctx, size_t begin, size_t end, int thread) {
    const index_task *k = ctx;
    size_t length = k->p->rows->length, words = lc_choice_words(length);
    uint32_t *work = (uint32_t *)(void *)k->t->op.scratch[thread];
    int32_t *list = (int32_t *)(void *)(k->t->op.scratch[thread] + 2 * round_up(length));
    for (size_t i = begin; i < end; i++) {
        size_t start = lc_rows_start(k->p->rows, i), n = i % length + 1 - start;
        lc_index_scores x = {start, n, k->p->scores + i * k->p->ld + start};
        size_t count = lc_index_select(k->t->op.k, k->p->shape, &x, work, list);
        uint64_t *bits = k->p->chosen + i * words;
        memset(bits, 0, words * sizeof *bits);
        for (size_t j = 0; j < count; j++) bits[list[j] / 64] |= (uint64_t)1 << list[j] % 64;
    }
}

void lc_index_choose(const lc_tape *t, const lc_index_pass *p) {
    index_task k = {.t = t, .p = p};
    lc_pool_for(t->op.pool, lc_rows_count(p->rows), LC_ROW_GRAIN, choose_rows, &k);
}

/* ---- targets ---- */

bool lc_index_row_counts(const lc_rows *rows, size_t row, size_t skip) {
    size_t i = row % rows->length;
    return i + skip < rows->length && lc_rows_start(rows, row + skip) <= i;
}

void lc_index_loss_begin(const lc_tape *t, const lc_index_pass *p) {
    size_t m = lc_rows_count(p->rows);
    (void)t;
    memset(p->targets, 0, m * p->ld * sizeof *p->targets);
    memset(p->s->entropy, 0, m * sizeof *p->s->entropy);
}

/* Items are tiles of queries. */
static void target_tiles(void *ctx, size_t begin, size_t end, int thread) {
    const index_task *k = ctx;
    const lc_mla_pass *a = k->members->attention;
    const lc_rows *rows = k->p->rows;
    size_t ld = round_up(rows->length), heads = a->shape->heads;
    float *mean = k->t->op.scratch[thread], *probs = mean + TILE * ld, *scratch = probs + TILE * ld;
    for (size_t tile = begin; tile < end; tile++) {
        lc_query_tile q = lc_query_tile_of(rows, tile);
        size_t n = q.end - q.begin, keys = q.end - q.first;
        memset(mean, 0, n * ld * sizeof *mean);
        for (size_t h = 0; h < heads; h++) {
            lc_attention_probs(k->t, a, &q, h, probs, ld, scratch);
            for (size_t i = 0; i < n; i++)
                k->t->op.k->add_scaled(keys, 1.0f, probs + i * ld, mean + i * ld);
        }
        for (size_t i = 0; i < n; i++) {
            size_t row = q.row * rows->length + q.begin + i;
            if (!lc_index_row_counts(rows, row, k->members->skip)) continue;
            float *target = k->p->targets + row * k->p->ld + q.first;
            double sum = 0;
            for (size_t j = 0; j < keys; j++) {
                float p = mean[i * ld + j] / (float)heads;
                if (p > 0) sum += (double)p * lc_ln((double)p);
                target[j] += p;
            }
            k->p->s->entropy[row] += sum;
        }
    }
}

void lc_index_loss_add(const lc_tape *t, const lc_index_pass *p, const lc_index_member *member) {
    index_task k = {.t = t, .p = p, .members = member};
    lc_attention_prepare(t, member->attention);
    lc_pool_for(t->op.pool, lc_query_tiles(p->rows), 1, target_tiles, &k);
}

/* ---- loss, and its gradient in the place of the scores ---- */

static void loss_rows(void *ctx, size_t begin, size_t end, int thread) {
    const index_task *k = ctx;
    const lc_rows *rows = k->p->rows;
    const lc_kernels *kernels = k->t->op.k;
    float *q = k->t->op.scratch[thread];
    uint8_t *on = (uint8_t *)(q + round_up(rows->length));
    for (size_t i = begin; i < end; i++) {
        size_t start = lc_rows_start(rows, i), n = i % rows->length + 1 - start, members = 0;
        float *scores = k->p->scores + i * k->p->ld + start;
        const float *target = k->p->targets + i * k->p->ld + start;
        const uint64_t *bits = k->sparse ? k->p->chosen + i * lc_choice_words(rows->length) : NULL;
        for (size_t j = 0; j < k->n_members; j++)
            members += lc_index_row_counts(rows, i, k->members[j].skip);
        memcpy(q, scores, n * sizeof *q);
        if (bits) lc_choice_bytes(bits, start, start + n, on);
        kernels->scale_chosen(n, 1.0f, bits ? on + start : NULL, q);
        float max = kernels->max(n, q), sum = kernels->exp_sum(n, q, max, q);
        double lse = (double)max + lc_ln((double)sum), cross = 0;
        float rate = (float)members / sum;
        for (size_t j = 0; j < n; j++) {
            if (target[j] > 0) cross += (double)target[j] * ((double)scores[j] - lse);
            scores[j] = (q[j] * rate - target[j]) * k->scale;
        }
        k->t->sums[i] = k->p->s->entropy[i] - cross;
    }
}

/* ---- backward of the scores ---- */

/* dz = gradient of the dots of a head in a tile: dI w where the dot is positive; also dI relu(dot)
 * summed for dw. */
static void dots_back(const index_task *k, const lc_query_tile *q, size_t head,
                      const index_scratch *c) {
    const lc_index_shape *s = k->p->shape;
    size_t n = q->end - q->begin, keys = q->end - q->first;
    for (size_t i = 0; i < n; i++) {
        size_t row = q->row * k->p->rows->length + q->begin + i;
        size_t lo = lc_rows_start(k->p->rows, row) - q->first, hi = q->begin + i + 1 - q->first;
        const float *dscores = k->p->scores + row * k->p->ld + q->first;
        float *z = c->dots + i * c->ld, *dz = c->dots_back + i * c->ld;
        float weight = k->p->s->weights[row * s->heads + head];
        memset(dz, 0, lo * sizeof *dz);
        memset(dz + hi, 0, (keys - hi) * sizeof *dz);
        k->t->op.k->relu_gradient(hi - lo, weight, dscores + lo, z + lo, dz + lo);
        k->p->s->dweights[row * s->heads + head] = k->t->op.k->dot(hi - lo, dscores + lo, z + lo);
    }
}

static void head_tile_back(const index_task *k, const lc_query_tile *q, size_t head,
                           const index_scratch *c) {
    const lc_index_shape *s = k->p->shape;
    const lc_gemm_path *path = k->t->op.path;
    size_t n = q->end - q->begin, keys = q->end - q->first, base = q->row * k->p->rows->length;
    size_t row = base + q->begin, ld = lc_pad_k(s->dim), m = lc_rows_count(k->p->rows);
    lc_product p = {.rows = n,
                    .k = s->dim,
                    .columns = keys,
                    .left = c->left,
                    .right = element_row(k, k->p->s->keys, base + q->first),
                    .ld = ld,
                    .c = c->dots,
                    .ldc = c->ld,
                    .scratch = c->product};
    path->pack_nk(n, s->dim, k->p->s->q + (row * s->heads + head) * s->dim, s->heads * s->dim,
                  c->left);
    path->multiply_nk(&p);
    dots_back(k, q, head, c);
    path->pack_kn(n, keys, c->dots_back, c->ld, c->left);
    p.k = keys;
    p.columns = s->dim;
    p.c = k->p->s->dq + (row * s->heads + head) * s->dim;
    p.ldc = s->heads * s->dim;
    path->multiply_kn(&p);
    k->t->op.k->transpose(n, keys, c->dots_back, c->ld, c->turned, TILE);
    path->pack_kn(keys, n, c->turned, TILE, c->left);
    p = (lc_product){.rows = keys,
                     .k = n,
                     .columns = s->dim,
                     .left = c->left,
                     .right = element_row(k, k->p->s->queries, head * m + row),
                     .ld = ld,
                     .c = c->dkeys + q->first * s->dim,
                     .ldc = s->dim,
                     .scratch = c->product,
                     .decay = c->ones};
    path->multiply_kn(&p);
}

/* Items are (sequence, index head). */
static void heads_back(void *ctx, size_t begin, size_t end, int thread) {
    const index_task *k = ctx;
    const lc_index_shape *s = k->p->shape;
    const lc_rows *rows = k->p->rows;
    size_t length = rows->length, tiles = lc_ceil_div(length, TILE), m = lc_rows_count(rows);
    index_scratch c;
    cut_scratch(&k->t->op, s, length, k->t->op.scratch[thread], &c);
    for (size_t i = 0; i < length; i++) c.ones[i] = 1.0f;
    for (size_t item = begin; item < end; item++) {
        size_t head = item % s->heads, row = item / s->heads, at = head * m + row * length;
        memset(c.dkeys, 0, length * s->dim * sizeof *c.dkeys);
        lc_elements(&k->t->op, length, s->dim,
                    k->p->s->q + (row * length * s->heads + head) * s->dim, s->heads * s->dim,
                    element_row(k, k->p->s->queries, at));
        for (size_t tile = 0; tile < tiles; tile++) {
            lc_query_tile q = lc_query_tile_of(rows, row * tiles + tile);
            head_tile_back(k, &q, head, &c);
        }
        memcpy(k->p->s->dk + at * s->dim, c.dkeys, length * s->dim * sizeof *c.dkeys);
    }
}

/* Gradients of q, of the rotated key (sum over heads in order, in the first head's place) and of
 * the weights, back through rotation and constants. */
static void rows_back(void *ctx, size_t begin, size_t end, int thread) {
    const index_task *k = ctx;
    const lc_index_shape *s = k->p->shape;
    const lc_index_state *state = k->p->s;
    size_t half = s->rope / 2, m = lc_rows_count(k->p->rows);
    float unit = 1.0f / sqrtf((float)s->heads * (float)s->dim);
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        size_t position = i % k->p->rows->length;
        const float *cosines = k->p->rows->cosines + position * half,
                    *minus = k->p->rows->minus + position * half;
        float *dk = state->dk + i * s->dim;
        for (size_t h = 0; h < s->heads; h++) {
            float *q = state->dq + (i * s->heads + h) * s->dim;
            lc_rope_rotate(half, cosines, minus, q);
            for (size_t j = 0; j < s->dim; j++) q[j] *= s->q_scale;
            state->dweights[i * s->heads + h] *= unit;
            for (size_t j = 0; h && j < s->dim; j++) dk[j] += state->dk[(h * m + i) * s->dim + j];
        }
        lc_rope_rotate(half, cosines, minus, dk);
    }
}

static int gradients(const index_task *k, const float *x, const float *cq, lc_err *err) {
    const lc_tape *t = k->t;
    const lc_index_pass *p = k->p;
    const lc_index_shape *s = p->shape;
    size_t m = lc_rows_count(p->rows);
    index_task task = *k;
    lc_pool_for(t->op.pool, p->rows->rows * s->heads, 1, heads_back, &task);
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, rows_back, &task);
    float *draw = p->s->k; /* the keys have been used */
    memset(draw, 0, m * s->dim * sizeof *draw);
    lc_norm_pass norm = {&p->w->k_norm, m, s->norm_eps, 1.0f, p->s->raw, s->dim};
    lc_norm_back(t, &norm, p->s->dk, s->dim, draw, s->dim);
    lc_matmul products[] = {
        lc_linear_to_weight(t, &p->w->wq_b, m, p->s->dq, s->heads * s->dim, cq, s->q_rank),
        lc_linear_to_weight(t, &p->w->wk, m, draw, s->dim, x, s->hidden)};
    lc_matmul weights =
        lc_linear_to_weight(t, &p->w->weights, m, p->s->dweights, s->heads, x, s->hidden);
    int status = lc_matmul_run(&t->op, t->space, products, 2, err);
    return status != LC_OK ? status : lc_matmul_run(&t->exact, t->space, &weights, 1, err);
}

int lc_index_loss_end(const lc_tape *t, const lc_index_pass *p, const lc_index_member *members,
                      size_t n_members, bool sparse, float scale, const float *x, const float *cq,
                      double *sums, lc_err *err) {
    size_t m = lc_rows_count(p->rows);
    index_task k = {t, p, members, n_members, sparse, scale};
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, loss_rows, &k);
    for (size_t i = 0; i < m; i++) sums[i / p->rows->length] += t->sums[i];
    return t->grad && scale != 0 ? gradients(&k, x, cq, err) : LC_OK;
}
