/*
 * attend.c: attention in spans of up to 16 blocks of 64 keys, three steps a span: scores of each
 * block; softmax weights, 16 left rows at a time; the context, a panel of latent columns at a time.
 * A left row is (head, step row). The items of a step don't depend on each other, so with fewer
 * tiles than threads the heads are parted, or the threads share a tile step by step; otherwise a
 * thread does whole tiles. No sum is cut: a row's arithmetic is the same in all, and for every span
 * and panel.
 *
 * Dense rows of one cache share a tile, and so each block of keys; with many of them a tile has a
 * part of the heads. A row with chosen keys is a tile of its own, since it has its own keys; they
 * are copied together.
 */
#include "ops/attend.h"

#include <math.h>
#include <string.h>

enum {
    LEFT_ROWS = 256,  /* left rows that a tile of several dense rows aims at */
    GROUP = 16,       /* left rows that are packed and weighed together: whole heads, with */
    LEAST_DENSE = 16, /* as many step rows, */
    MOST_DENSE = 32,  /* or twice as many, of few heads */
    SPAN = 16,        /* blocks of keys of a span, less with many left rows: */
    SPAN_ROWS = 1024, /* most blocks x left rows */
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
    size_t most_heads, parts; /* of a tile; of all heads, at most */
} attend_task;

/* A tile on its way through its keys. */
typedef struct tile {
    const attend_task *t;
    size_t begin, steps;     /* step rows */
    size_t head, heads;      /* its part of the heads */
    size_t rows;             /* left rows: row i is step row i % steps of head i / steps */
    bool chosen, shared;     /* has keys of its own; is worked on by all threads */
    size_t panel, panels;    /* columns of a panel; panels */
    size_t span;             /* blocks of a whole span */
    float *left;             /* packed queries */
    float *scores;           /* [span][rows, whole groups][64] */
    float *probs;            /* [span] packed */
    float *alpha;            /* [span][rows], -1: the row has no key in the block */
    float *max, *sum;        /* [rows] */
    float *context;          /* [panels][rows][panel] */
    char *keys;              /* chosen: [span][64][W p] */
    size_t all_from, all_to; /* keys that all rows see */
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

/* Most step rows of a tile. */
static size_t dense_rows(const lc_mla_shape *s) {
    return LEFT_ROWS / s->heads >= MOST_DENSE ? MOST_DENSE : LEAST_DENSE;
}

/* Heads of a tile with so many step rows. */
static size_t heads_of(const attend_task *t, size_t steps) {
    size_t heads = steps == 1 ? t->s->heads : LEFT_ROWS / steps;
    return heads < t->most_heads ? heads : t->most_heads;
}

static size_t span_of(size_t rows) {
    size_t span = SPAN_ROWS / rows;
    return span < 1 ? 1 : span > SPAN ? SPAN : span;
}

static size_t whole_groups(size_t rows) { return lc_ceil_div(rows, GROUP) * GROUP; }

/* Places the tile's arrays from base; returns their floats. */
static size_t place_tile(const lc_op *op, const lc_mla_shape *s, float *base, tile *a) {
    size_t used = 0, width = s->kv_rank + s->rope, keys = LC_KV_BLOCK * lc_pad_k(width);
    a->left = cut(&base, &used, lc_left_floats(whole_groups(a->rows), width));
    a->scores = cut(&base, &used, a->span * whole_groups(a->rows) * LC_KV_BLOCK);
    a->probs = cut(&base, &used, a->span * lc_left_floats(a->rows, LC_KV_BLOCK));
    a->alpha = cut(&base, &used, a->span * a->rows);
    a->max = cut(&base, &used, a->rows);
    a->sum = cut(&base, &used, a->rows);
    a->context = cut(&base, &used, a->panels * a->rows * a->panel);
    a->keys = (char *)cut(&base, &used,
                          a->chosen ? a->span * keys * op->path->element / sizeof(float) : 0);
    return used;
}

static size_t most_rows(const lc_mla_shape *s) {
    return s->heads > LEFT_ROWS ? s->heads : LEFT_ROWS;
}

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

/* Floats of a tile of so many left rows. */
static size_t tile_floats(const lc_op *op, const lc_mla_shape *s, size_t rows, bool chosen) {
    tile a = {.rows = rows, .chosen = chosen};
    set_shape(s, 1, &a); /* the widest panels take most */
    return place_tile(op, s, NULL, &a);
}

size_t lc_attend_scratch(const lc_op *op, const lc_mla_shape *s) {
    size_t most = tile_floats(op, s, s->heads, true);
    for (size_t rows = 1; rows <= most_rows(s); rows++) /* a span shrinks as rows grow */
        most = larger(most, tile_floats(op, s, rows, false));
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

/* A step row's first key and the end of its keys: positions, or ranks of chosen keys. */
static size_t first_key(const tile *a, size_t i) {
    return a->chosen ? 0 : a->t->args->rows[i].start;
}
static size_t end_key(const tile *a, size_t i) {
    return a->chosen ? a->t->args->keys.count[i] : a->t->args->rows[i].pos + 1;
}

/* The tile's keys, from a whole block on, and those that all of its rows see. */
static void key_range(tile *a, size_t *first, size_t *end) {
    *first = a->all_from = first_key(a, a->begin);
    *end = a->all_to = end_key(a, a->begin);
    for (size_t i = a->begin + 1; i < a->begin + a->steps; i++) {
        size_t from = first_key(a, i), to = end_key(a, i);
        if (from < *first) *first = from;
        if (from > a->all_from) a->all_from = from;
        if (to > *end) *end = to;
        if (to < a->all_to) a->all_to = to;
    }
    *first = *first / LC_KV_BLOCK * LC_KV_BLOCK;
}

/* Which of a block's keys left rows first .. first+n-1 see: lo[i] .. hi[i] - 1 for row first + i.
 */
static void block_ranges(const tile *a, size_t block, size_t first, size_t n, float lo[GROUP],
                         float hi[GROUP]) {
    size_t base = a->first + block * LC_KV_BLOCK, past = base + LC_KV_BLOCK;
    for (size_t i = 0; i < n; i++) {
        size_t step = a->begin + (first + i) % a->steps;
        size_t from = first_key(a, step), to = end_key(a, step);
        lo[i] = from < base ? 0 : from < past ? (float)(from - base) : LC_KV_BLOCK;
        hi[i] = to < base ? 0 : to < past ? (float)(to - base) : LC_KV_BLOCK;
    }
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

static float *query_of(const tile *a, size_t row) {
    const attend_task *t = a->t;
    size_t step = a->begin + row % a->steps, head = a->head + row / a->steps;
    return t->queries + (head * t->m + step) * t->width;
}

/* Packs the queries. Rows of a group that aren't equally far apart are copied together first. */
static void pack_queries(const tile *a, float *copy) {
    const lc_gemm_path *path = a->t->op->path;
    size_t width = a->t->width;
    for (size_t first = 0; first < a->rows; first += GROUP) {
        size_t n = a->rows - first < GROUP ? a->rows - first : GROUP;
        size_t ldx = a->steps == 1 ? a->t->m * width : width;
        const float *x = query_of(a, first);
        if (a->steps > 1 && a->steps % GROUP) {
            for (size_t i = 0; i < n; i++)
                memcpy(copy + i * width, query_of(a, first + i), width * sizeof *copy);
            x = copy;
        }
        (path->multiply_turned ? path->pack_lanes : path->pack_nk)(
            n, width, x, ldx, (char *)a->left + lc_left_bytes(path, first, width));
    }
}

static float *scores_of(const tile *a, size_t block) {
    return a->scores + block * whole_groups(a->rows) * LC_KV_BLOCK;
}

static void multiply_scores(const lc_gemm_path *path, lc_product *blocks, size_t n) {
    for (size_t i = 0; i < n; i++) {
        blocks[i].then = i + 1 < n ? &blocks[i + 1] : NULL;
        if (!path->multiply_turned) path->multiply_nk(&blocks[i]);
    }
    if (path->multiply_turned) path->multiply_turned(blocks);
}

static void score_blocks(void *ctx, size_t begin, size_t end, int thread) {
    const tile *a = ctx;
    const attend_task *t = a->t;
    const lc_kv *kv = t->args->rows[a->begin].kv;
    float *product = t->op->scratch[thread], *copy = product + product_floats(t->op, t->s);
    lc_product blocks[SPAN];
    size_t n = 0;
    for (size_t block = begin; block < end; block++) {
        size_t ld = lc_pad_k(t->width), pos = a->first + block * LC_KV_BLOCK;
        const void *keys = a->chosen
                               ? gather_keys(a, block)
                               : lc_kv_right_rows(kv->layout.element, t->width,
                                                  lc_kv_latent(kv, t->args->slot, pos), copy, &ld);
        blocks[n++] = (lc_product){.rows = a->rows,
                                   .k = t->width,
                                   .columns = LC_KV_BLOCK,
                                   .left = a->left,
                                   .right = keys,
                                   .ld = ld,
                                   .c = scores_of(a, block),
                                   .ldc = LC_KV_BLOCK,
                                   .scratch = product};
        if (keys != copy && block + 1 < end) continue; /* the copy has one block */
        multiply_scores(t->op->path, blocks, n);
        n = 0;
    }
}

/* Left rows first .. first+n-1 through the softmax of a block: packed weights, alpha. */
static void weigh_rows(const tile *a, size_t block, size_t first, size_t n) {
    const lc_op *op = a->t->op;
    const lc_gemm_path *path = op->path;
    size_t base = a->first + block * LC_KV_BLOCK;
    float lo[GROUP], hi[GROUP], *scores = scores_of(a, block) + first * LC_KV_BLOCK;
    lc_softmax_block b = {.rows = n,
                          .n = LC_KV_BLOCK,
                          .scores = scores,
                          .turned = path->multiply_turned != NULL,
                          .scale = a->t->s->softmax_scale,
                          .max = a->max + first,
                          .sum = a->sum + first,
                          .alpha = a->alpha + block * a->rows + first};
    if (base < a->all_from || base + LC_KV_BLOCK > a->all_to) {
        block_ranges(a, block, first, n, lo, hi);
        b.lo = lo;
        b.hi = hi;
    }
    op->k->softmax_block(&b);
    void *out = (char *)(a->probs + block * lc_left_floats(a->rows, LC_KV_BLOCK)) +
                lc_left_bytes(path, first, LC_KV_BLOCK);
    if (b.turned)
        path->pack_turned(
            &(lc_turned){
                .rows = n, .k = LC_KV_BLOCK, .end = LC_KV_BLOCK, .x = scores, .ldx = LC_LANES},
            out);
    else
        path->pack_kn(n, LC_KV_BLOCK, scores, LC_KV_BLOCK, out);
}

static void weigh_groups(void *ctx, size_t begin, size_t end, int thread) {
    const tile *a = ctx;
    (void)thread;
    for (size_t group = begin; group < end; group++) {
        size_t first = group * GROUP, left = a->rows - first;
        for (size_t block = 0; block < a->blocks; block++)
            weigh_rows(a, block, first, left < GROUP ? left : GROUP);
    }
}

/* The normalised context of a panel, in the place of the queries. */
static void write_panel(const tile *a, size_t panel) {
    size_t column = panel * a->panel, left = a->t->s->kv_rank - column;
    size_t n = left < a->panel ? left : a->panel;
    float *context = a->context + panel * a->rows * a->panel;
    for (size_t i = 0; i < a->rows; i++, context += a->panel) {
        a->t->op->k->scale(n, 1.0f / a->sum[i], context);
        memcpy(query_of(a, i) + column, context, n * sizeof *context);
    }
}

static void add_panels(void *ctx, size_t begin, size_t end, int thread) {
    const tile *a = ctx;
    const attend_task *t = a->t;
    const lc_kv *kv = t->args->rows[a->begin].kv;
    size_t ld = a->chosen ? lc_pad_k(t->width) : t->width, element = kv->layout.element;
    for (size_t panel = begin; panel < end; panel++) {
        size_t column = panel * a->panel, left = t->s->kv_rank - column;
        lc_product blocks[SPAN];
        for (size_t block = 0; block < a->blocks; block++) {
            const char *keys =
                a->chosen ? a->keys + block * LC_KV_BLOCK * ld * element
                          : lc_kv_latent(kv, t->args->slot, a->first + block * LC_KV_BLOCK);
            blocks[block] =
                (lc_product){.rows = a->rows,
                             .k = LC_KV_BLOCK,
                             .columns = left < a->panel ? left : a->panel,
                             .left = a->probs + block * lc_left_floats(a->rows, LC_KV_BLOCK),
                             .right = keys + column * element,
                             .ld = ld,
                             .c = a->context + panel * a->rows * a->panel,
                             .ldc = a->panel,
                             .scratch = t->op->scratch[thread],
                             .decay = a->alpha + block * a->rows,
                             .then = block + 1 < a->blocks ? &blocks[block + 1] : NULL};
        }
        t->op->path->multiply_kn(blocks);
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

/* With the memory of `thread`, by that thread alone or by all. */
static void run_tile(const attend_task *t, tile a, int thread) {
    size_t first, end, threads = a.shared ? (size_t)lc_pool_threads(t->op->pool) : 1;
    float *own = t->op->scratch[thread];
    a.rows = a.steps * a.heads;
    set_shape(t->s, (int)threads, &a);
    place_tile(t->op, t->s, own + own_floats(t->op, t->s), &a);
    pack_queries(&a, own + product_floats(t->op, t->s));
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

/* A part of the tile that starts at row i; no heads: there is none. */
static tile tile_at(const attend_task *t, size_t i, size_t part) {
    tile a = {.t = t, .begin = i, .steps = 1, .chosen = !is_dense(t, i)};
    while (i + a.steps < t->m && !starts_tile(t, i + a.steps)) a.steps++;
    size_t heads = heads_of(t, a.steps);
    a.head = part * heads;
    if (a.head < t->s->heads) a.heads = heads < t->s->heads - a.head ? heads : t->s->heads - a.head;
    return a;
}

/* Items are (first row, part). */
static void attend_tiles(void *ctx, size_t begin, size_t end, int thread) {
    const attend_task *t = ctx;
    for (size_t item = begin; item < end; item++) {
        if (!starts_tile(t, item / t->parts)) continue;
        tile a = tile_at(t, item / t->parts, item % t->parts);
        if (a.heads) run_tile(t, a, thread);
    }
}

static size_t count_tiles(attend_task *t, size_t most_heads) {
    size_t tiles = 0;
    t->most_heads = most_heads;
    t->parts = lc_ceil_div(t->s->heads, heads_of(t, dense_rows(t->s)));
    for (size_t i = 0; i < t->m; i++)
        for (size_t part = 0; starts_tile(t, i) && part < t->parts; part++)
            tiles += tile_at(t, i, part).heads > 0;
    return tiles;
}

/* Whether tiles of a part of the heads occupy all threads, which then share no data but the keys:
 * every part reads all. */
static bool splits_heads(attend_task *t, size_t tiles, size_t threads) {
    size_t groups = lc_ceil_div(t->s->heads, GROUP), parts = lc_ceil_div(threads, tiles);
    if (!t->op->path->arithmetic_binds || parts > groups || t->args->keys.list) return false;
    return 4 * count_tiles(t, lc_ceil_div(groups, parts) * GROUP) >= 3 * threads;
}

void lc_attend(const lc_op *op, const lc_mla_shape *s, size_t m, const lc_mla_args *args,
               float *queries) {
    attend_task t = {op, s, args, queries, m, s->kv_rank + s->rope, 0, 0};
    size_t threads = (size_t)lc_pool_threads(op->pool), tiles = count_tiles(&t, s->heads);
    if (!tiles || 4 * tiles >= 3 * threads || splits_heads(&t, tiles, threads)) {
        lc_pool_for(op->pool, m * t.parts, 1, attend_tiles, &t);
        return;
    }
    count_tiles(&t, s->heads);
    for (size_t item = 0; item < m * t.parts; item++) {
        if (!starts_tile(&t, item / t.parts)) continue;
        tile a = tile_at(&t, item / t.parts, item % t.parts);
        a.shared = true;
        if (a.heads) run_tile(&t, a, 0);
    }
}
