/*
 * attend.c: attention in spans of up to 16 blocks of 64 keys, three steps a span: scores of each
 * block; softmax weights, 16 left rows at a time; the context, a panel of latent columns at a time.
 * A left row is (step row, head). The items of a step don't depend on each other, so with fewer
 * tiles than threads the threads share a tile step by step; otherwise a thread does whole tiles. No
 * sum is cut: a row's arithmetic is the same in both, and for every span and panel.
 *
 * Dense rows of one cache share a tile, and so each block of keys. A row with chosen keys is a tile
 * of its own, since it has its own keys; they are copied together.
 */
#include "ops/attend.h"

#include <math.h>
#include <string.h>

enum {
    DENSE_ROWS = 256, /* left rows that a tile of several dense rows aims at */
    MOST_DENSE = 32,  /* step rows of a tile */
    SPAN = 16,        /* blocks of keys of a span, less with many left rows: */
    SPAN_ROWS = 1024, /* most blocks x left rows */
    GROUP = 16,       /* left rows that are weighed together */
    PANEL = 128,      /* latent columns of a panel, less with many left rows: */
    PANEL_FLOATS = 8192,
    PANEL_LEAST = 32,
};

typedef struct attend_task {
    const lc_op *op;
    const lc_mla_shape *s;
    const lc_mla_args *args;
    float *queries;
    size_t m, width;
} attend_task;

/* A tile on its way through its keys. */
typedef struct tile {
    const attend_task *t;
    size_t begin, end, rows; /* step rows; left rows */
    bool chosen, shared;     /* has keys of its own; is worked on by all threads */
    size_t panel, panels;    /* columns of a panel; panels */
    size_t span;             /* blocks of a whole span */
    float *left;             /* packed queries */
    float *scores;           /* [span][rows][64] */
    float *probs;            /* [span] packed */
    float *alpha;            /* [span][rows], -1: the row has no key in the block */
    float *max, *sum;        /* [rows] */
    float *context;          /* [panels][rows][panel] */
    char *keys;              /* chosen: [span][64][W p] */
    size_t first, blocks;    /* the present span: position or rank of its first key; its blocks */
    bool last;
} tile;

/* ---- memory ---- */

/* Cuts pieces from a block; with NULL it only counts. */
static float *cut(float **base, size_t *used, size_t floats) {
    float *piece = *base ? *base + *used : NULL;
    *used += lc_ceil_div(floats, LC_LANES) * LC_LANES;
    return piece;
}

static size_t dense_rows(const lc_mla_shape *s) {
    size_t rows = DENSE_ROWS / s->heads;
    return rows < 1 ? 1 : rows > MOST_DENSE ? MOST_DENSE : rows;
}

static size_t span_of(size_t rows) {
    size_t span = SPAN_ROWS / rows;
    return span < 1 ? 1 : span > SPAN ? SPAN : span;
}

/* Places the tile's arrays from base; returns their floats. */
static size_t place_tile(const lc_op *op, const lc_mla_shape *s, float *base, tile *a) {
    size_t used = 0, width = s->kv_rank + s->rope, keys = LC_KV_BLOCK * lc_pad_k(width);
    a->left = cut(&base, &used, lc_left_floats(a->rows, width));
    a->scores = cut(&base, &used, a->span * a->rows * LC_KV_BLOCK);
    a->probs = cut(&base, &used, a->span * lc_left_floats(a->rows, LC_KV_BLOCK));
    a->alpha = cut(&base, &used, a->span * a->rows);
    a->max = cut(&base, &used, a->rows);
    a->sum = cut(&base, &used, a->rows);
    a->context = cut(&base, &used, a->panels * a->rows * a->panel);
    a->keys = (char *)cut(&base, &used,
                          a->chosen ? a->span * keys * op->path->element / sizeof(float) : 0);
    return used;
}

static size_t most_rows(const lc_mla_shape *s) { return dense_rows(s) * s->heads; }

/* Panels as wide as a context that stays in the first cache allows, and enough for all threads. */
static void set_shape(const lc_mla_shape *s, int threads, tile *a) {
    a->span = span_of(a->rows);
    a->panel = PANEL;
    while (a->panel > PANEL_LEAST && (a->rows * a->panel > PANEL_FLOATS ||
                                      lc_ceil_div(s->kv_rank, a->panel) < (size_t)threads))
        a->panel /= 2;
    a->panels = lc_ceil_div(s->kv_rank, a->panel);
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* A thread's own part of its scratch: of products, then 64 copied keys. */
static size_t product_floats(const lc_op *op, const lc_mla_shape *s) {
    return larger(lc_product_floats(op, most_rows(s), s->kv_rank + s->rope),
                  lc_product_floats(op, most_rows(s), LC_KV_BLOCK));
}

static size_t own_floats(const lc_op *op, const lc_mla_shape *s) {
    return product_floats(op, s) + LC_KV_BLOCK * lc_pad_k(s->kv_rank + s->rope);
}

size_t lc_attend_scratch(const lc_op *op, const lc_mla_shape *s) {
    size_t most = 0;
    for (size_t n = 1; n <= dense_rows(s); n++) /* a span shrinks as rows grow */
        for (int chosen = 0; chosen <= (n == 1); chosen++) {
            tile a = {.rows = n * s->heads, .chosen = chosen};
            set_shape(s, 1, &a); /* the widest panels take most */
            most = larger(most, place_tile(op, s, NULL, &a));
        }
    return own_floats(op, s) + most;
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

/* ---- keys ---- */

/* Which of a block's keys are step row i's: *lo .. *hi - 1; none if equal. */
static void block_range(const tile *a, size_t i, size_t block, size_t *lo, size_t *hi) {
    size_t base = a->first + block * LC_KV_BLOCK;
    const lc_row *row = &a->t->args->rows[i];
    size_t end = a->chosen ? a->t->args->keys.count[i] : row->pos + 1;
    size_t past = end > base ? end - base : 0;
    *lo = !a->chosen && row->start > base ? row->start - base : 0;
    *hi = past < LC_KV_BLOCK ? past : LC_KV_BLOCK;
    if (*lo > *hi) *lo = *hi;
}

/* Copies the chosen keys of a block together. */
static char *gather_keys(const tile *a, size_t block) {
    const lc_row *row = &a->t->args->rows[a->begin];
    const lc_keys *keys = &a->t->args->keys;
    size_t at = a->first + block * LC_KV_BLOCK, left = keys->count[a->begin] - at;
    size_t n = left < LC_KV_BLOCK ? left : LC_KV_BLOCK;
    const int32_t *list = keys->list + a->begin * keys->stride + at;
    size_t bytes = a->t->width * row->kv->layout.element;
    size_t ld = lc_pad_k(a->t->width) * row->kv->layout.element;
    char *out = a->keys + block * LC_KV_BLOCK * ld;
    for (size_t j = 0; j < n; j++) {
        memcpy(out + j * ld, lc_kv_latent(row->kv, a->t->args->slot, (size_t)list[j]), bytes);
        memset(out + j * ld + bytes, 0, ld - bytes);
    }
    memset(out + n * ld, 0, (LC_KV_BLOCK - n) * ld);
    return out;
}

/* ---- the steps of a span ---- */

static void score_blocks(void *ctx, size_t begin, size_t end, int thread) {
    const tile *a = ctx;
    const attend_task *t = a->t;
    const lc_kv *kv = t->args->rows[a->begin].kv;
    float *product = t->op->scratch[thread], *copy = product + product_floats(t->op, t->s);
    for (size_t block = begin; block < end; block++) {
        size_t ld = lc_pad_k(t->width), pos = a->first + block * LC_KV_BLOCK;
        const void *keys = a->chosen
                               ? gather_keys(a, block)
                               : lc_kv_right_rows(kv->layout.element, t->width,
                                                  lc_kv_latent(kv, t->args->slot, pos), copy, &ld);
        t->op->path->multiply_nk(&(lc_product){.rows = a->rows,
                                               .k = t->width,
                                               .columns = LC_KV_BLOCK,
                                               .left = a->left,
                                               .right = keys,
                                               .ld = ld,
                                               .c = a->scores + block * a->rows * LC_KV_BLOCK,
                                               .ldc = LC_KV_BLOCK,
                                               .scratch = product});
    }
}

/* Left rows [row, end), all of one step row, through the softmax of a block. */
static void weigh_rows(const tile *a, size_t block, size_t row, size_t end) {
    size_t lo, hi, at = block * a->rows + row;
    block_range(a, a->begin + row / a->t->s->heads, block, &lo, &hi);
    float *scores = a->scores + at * LC_KV_BLOCK;
    if (lo < hi) {
        a->t->op->k->softmax_block(&(lc_softmax_block){.rows = end - row,
                                                       .n = LC_KV_BLOCK,
                                                       .scores = scores,
                                                       .scale = a->t->s->softmax_scale,
                                                       .lo = lo,
                                                       .hi = hi,
                                                       .max = a->max + row,
                                                       .sum = a->sum + row,
                                                       .alpha = a->alpha + at});
        return;
    }
    memset(scores, 0, (end - row) * LC_KV_BLOCK * sizeof *scores);
    for (size_t i = 0; i < end - row; i++) a->alpha[at + i] = -1.0f;
}

static void weigh_groups(void *ctx, size_t begin, size_t end, int thread) {
    const tile *a = ctx;
    const lc_gemm_path *path = a->t->op->path;
    size_t heads = a->t->s->heads, probs = lc_left_floats(a->rows, LC_KV_BLOCK);
    (void)thread;
    for (size_t group = begin; group < end; group++) {
        size_t first = group * GROUP, last = first + GROUP < a->rows ? first + GROUP : a->rows;
        for (size_t block = 0; block < a->blocks; block++) {
            for (size_t row = first, next; row < last; row = next) {
                next = (row / heads + 1) * heads < last ? (row / heads + 1) * heads : last;
                weigh_rows(a, block, row, next);
            }
            path->pack_kn(last - first, LC_KV_BLOCK,
                          a->scores + (block * a->rows + first) * LC_KV_BLOCK, LC_KV_BLOCK,
                          (char *)(a->probs + block * probs) +
                              lc_left_bytes(path, first, LC_KV_BLOCK));
        }
    }
}

/* The normalised context of a panel, in the place of the queries. */
static void write_panel(const tile *a, size_t panel) {
    const attend_task *t = a->t;
    size_t column = panel * a->panel, left = t->s->kv_rank - column;
    size_t n = left < a->panel ? left : a->panel;
    float *out = t->queries + a->begin * t->s->heads * t->width + column;
    const float *context = a->context + panel * a->rows * a->panel;
    for (size_t i = 0; i < a->rows; i++) {
        float inverse = 1.0f / a->sum[i];
        for (size_t j = 0; j < n; j++) out[i * t->width + j] = context[i * a->panel + j] * inverse;
    }
}

static void add_panels(void *ctx, size_t begin, size_t end, int thread) {
    const tile *a = ctx;
    const attend_task *t = a->t;
    const lc_kv *kv = t->args->rows[a->begin].kv;
    size_t ld = a->chosen ? lc_pad_k(t->width) : t->width, element = kv->layout.element;
    for (size_t panel = begin; panel < end; panel++) {
        size_t column = panel * a->panel, left = t->s->kv_rank - column;
        float *context = a->context + panel * a->rows * a->panel;
        for (size_t block = 0; block < a->blocks; block++) {
            const char *keys =
                a->chosen ? a->keys + block * LC_KV_BLOCK * ld * element
                          : lc_kv_latent(kv, t->args->slot, a->first + block * LC_KV_BLOCK);
            t->op->path->multiply_kn(
                &(lc_product){.rows = a->rows,
                              .k = LC_KV_BLOCK,
                              .columns = left < a->panel ? left : a->panel,
                              .left = a->probs + block * lc_left_floats(a->rows, LC_KV_BLOCK),
                              .right = keys + column * element,
                              .ld = ld,
                              .c = context,
                              .ldc = a->panel,
                              .scratch = t->op->scratch[thread],
                              .decay = a->alpha + block * a->rows});
        }
        if (a->last) write_panel(a, panel);
    }
}

/* ---- tiles ---- */

static void run_step(tile *a, size_t n, lc_pool_task *step, int thread) {
    if (a->shared)
        lc_pool_for(a->t->op->pool, n, 1, step, a);
    else
        step(a, 0, n, thread);
}

/* The tile's first and last key: positions from a whole block, or ranks. */
static void key_range(const tile *a, size_t *first, size_t *end) {
    const lc_row *rows = a->t->args->rows;
    *first = a->chosen ? 0 : rows[a->begin].start;
    *end = a->chosen ? a->t->args->keys.count[a->begin] : rows[a->begin].pos + 1;
    if (a->chosen) return;
    for (size_t i = a->begin; i < a->end; i++) {
        if (rows[i].start < *first) *first = rows[i].start;
        if (rows[i].pos + 1 > *end) *end = rows[i].pos + 1;
    }
    *first = *first / LC_KV_BLOCK * LC_KV_BLOCK;
}

/* Step rows [begin, end) with the memory of `thread`, by that thread alone or by all. */
static void run_tile(const attend_task *t, tile a, int thread) {
    size_t first, end, threads = a.shared ? (size_t)lc_pool_threads(t->op->pool) : 1;
    a.t = t;
    a.rows = (a.end - a.begin) * t->s->heads;
    set_shape(t->s, (int)threads, &a);
    place_tile(t->op, t->s, t->op->scratch[thread] + own_floats(t->op, t->s), &a);
    t->op->path->pack_nk(a.rows, t->width, t->queries + a.begin * t->s->heads * t->width, t->width,
                         a.left);
    memset(a.context, 0, a.panels * a.rows * a.panel * sizeof *a.context);
    for (size_t i = 0; i < a.rows; i++) a.max[i] = -INFINITY, a.sum[i] = 0.0f;
    key_range(&a, &first, &end);
    size_t blocks = lc_ceil_div(end - first, LC_KV_BLOCK);
    for (size_t block = 0; block < blocks; block += a.span) {
        a.first = first + block * LC_KV_BLOCK;
        a.blocks = blocks - block < a.span ? blocks - block : a.span;
        a.last = block + a.blocks == blocks;
        run_step(&a, a.blocks, score_blocks, thread);
        run_step(&a, lc_ceil_div(a.rows, GROUP), weigh_groups, thread);
        run_step(&a, a.panels, add_panels, thread);
    }
}

static bool is_dense(const attend_task *t, size_t i) {
    const lc_keys *keys = &t->args->keys;
    const lc_row *row = &t->args->rows[i];
    return !keys->list || keys->count[i] == row->pos + 1 - row->start;
}

static bool starts_tile(const attend_task *t, size_t i) {
    return i == 0 || i % dense_rows(t->s) == 0 || t->args->rows[i].kv != t->args->rows[i - 1].kv ||
           !is_dense(t, i) || !is_dense(t, i - 1);
}

/* The tile that starts at row i. */
static tile tile_at(const attend_task *t, size_t i) {
    tile a = {.begin = i, .end = i + 1, .chosen = !is_dense(t, i)};
    while (a.end < t->m && !starts_tile(t, a.end)) a.end++;
    return a;
}

static void attend_rows(void *ctx, size_t begin, size_t end, int thread) {
    const attend_task *t = ctx;
    for (size_t i = begin; i < end; i++)
        if (starts_tile(t, i)) run_tile(t, tile_at(t, i), thread);
}

void lc_attend(const lc_op *op, const lc_mla_shape *s, size_t m, const lc_mla_args *args,
               float *queries) {
    attend_task t = {op, s, args, queries, m, s->kv_rank + s->rope};
    size_t tiles = 0, threads = (size_t)lc_pool_threads(op->pool);
    for (size_t i = 0; i < m; i++) tiles += starts_tile(&t, i);
    if (4 * tiles >= 3 * threads) {
        lc_pool_for(op->pool, m, 1, attend_rows, &t);
        return;
    }
    for (size_t i = 0; i < m;) {
        tile a = tile_at(&t, i);
        a.shared = true;
        i = a.end;
        run_tile(&t, a, 0);
    }
}
