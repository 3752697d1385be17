/*
 * coded.c (AMX-INT8): coded products with tdpbsud where 16 left rows or more meet, else with
 * vpdpbusd.
 *
 * A strip of codes is a right tile as it stands: [word of k][16 columns][4]. 16 packed left rows
 * are a left tile. A tile of int32 sums is stored at the end of a group and becomes fp32 in
 * AVX-512; the next group's tiles multiply meanwhile.
 */
#include "kernels/coded.h"

#include "kernels/avx512vnni/dot.h"

#define LC_CODED_TILES
#define LC_CODED_FEW
#define LC_CODED_CHUNK 2048 /* results leave the tiles at the end of a chunk: seldom, then */
#include "kernels/coded.inc"

#include "kernels/avx512vnni/few.h"

enum {
    TILE = 16,
    TILE_SUMS = TILE * TILE, /* words of a result tile */
};

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* gcc's tile intrinsics don't tell that they read memory: stores before them must be finished. */
static inline void finish_stores(void) { __asm__ volatile("" ::: "memory"); }

/* k of a tile: groups and chunks hold whole tiles. */
static inline size_t tile_k(const coded_work *w) { return w->k % 64 || w->size % 64 ? 32 : 64; }

/* Tiles 0-3: sums [rows][strip]; 4, 5: left rows; 6, 7: strips. */
static void begin_tiles(const coded_work *w) {
    tile_config config = {.palette = 1};
    size_t k = tile_k(w);
    for (int i = 0; i < 8; i++) {
        config.rows[i] = i < 6 ? TILE : (uint8_t)(k / 4);
        config.row_bytes[i] = i == 4 || i == 5 ? (uint16_t)k : 64;
    }
    finish_stores();
    _tile_loadconfig(&config);
}

static void end_tiles(void) { _tile_release(); }

/* Some rows and strips at work: 16 or 32 rows, one strip or two. */
typedef struct block {
    const coded_work *w;
    size_t row, strip;
    const char *left;
    const uint8_t *words[2];
    /* [16 rows][strip] tiles of [16][16]: 4 KiB each, so that a load of one never looks like a
     * young store to the other */
    float acc[4 * TILE_SUMS];
    int32_t sums[4 * TILE_SUMS];
} block;

/* Tile [a][s] of a block: left rows 16 a and on, strip s. */
static inline size_t at_tile(size_t a, size_t s) { return (2 * a + s) * TILE_SUMS; }

/* A group whose sums lie in b->sums. */
typedef struct done_group {
    size_t group, place; /* place of its first strip's scales */
    bool zeros, biases;  /* constants in every call: whether weights have them */
} done_group;

/* The sums of tile [a][s] join. */
LC_INLINE void join_tile(block *b, const done_group *g, size_t a, size_t s) {
    const coded_work *w = b->w;
    const size_t groups = w->groups, row_bytes = w->row_bytes, at = g->place + s * w->places;
    const char *left = b->left + a * TILE * row_bytes + w->k + g->group * sizeof(float);
    const int32_t *start = g->zeros ? NULL : w->start + (b->row + a * TILE) * groups + g->group;
    const int32_t *sums = b->sums + at_tile(a, s);
    float *accs = b->acc + at_tile(a, s);
    lc_v scale = v_load(w->scales + at), bias = g->biases ? v_load(w->biases + at) : v_zero();
    lc_w zero = g->zeros ? w_load(w->zeros + at) : w_zero();
    for (size_t r = 0; r < TILE; r++, left += row_bytes) {
        const float *step = (const float *)(const void *)left;
        int32_t sum = ((const int32_t *)(const void *)step)[groups];
        lc_w shift = g->zeros ? w_sub(w_zero(), w_mul(zero, w_set(sum))) : w_set(start[r * groups]);
        lc_v acc = v_load(accs + r * STRIP), by = v_set(*step);
        acc = v_fma(w_floats(w_add(w_load(sums + r * STRIP), shift)), v_mul(by, scale), acc);
        if (g->biases) acc = v_fma(v_set((float)sum), v_mul(by, bias), acc);
        v_store(accs + r * STRIP, acc);
    }
}

/* One tile's width of k. With `done`, a former group joins between the products, tile by tile: the
 * processor looks some hundred instructions ahead, and finds both kinds of work there. two_rows,
 * two_strips are constants in every call. */
LC_INLINE void multiply_step(block *b, size_t k, const done_group *done, const bool two_rows,
                             const bool two_strips) {
    size_t row_bytes = b->w->row_bytes, word = (k - b->w->k0) * STRIP;
    _tile_loadd(4, b->left + k, row_bytes);
    _tile_loadd(6, b->words[0] + word, 4 * STRIP);
    _tile_dpbsud(0, 4, 6);
    if (done) join_tile(b, done, 0, 0);
    if (two_strips) {
        _tile_loadd(7, b->words[1] + word, 4 * STRIP);
        _tile_dpbsud(1, 4, 7);
        if (done) join_tile(b, done, 0, 1);
    }
    if (!two_rows) return;
    _tile_loadd(5, b->left + TILE * row_bytes + k, row_bytes);
    _tile_dpbsud(2, 5, 6);
    if (done) join_tile(b, done, 1, 0);
    if (!two_strips) return;
    _tile_dpbsud(3, 5, 7);
    if (done) join_tile(b, done, 1, 1);
}

/* Sums of k0 .. k1-1, to b->sums after those of `done` have joined. */
LC_INLINE void multiply_tiles(block *b, size_t k0, size_t k1, const done_group *done,
                              const bool two_rows, const bool two_strips) {
    size_t step = tile_k(b->w);
    _tile_zero(0);
    if (two_strips) _tile_zero(1);
    if (two_rows) _tile_zero(2);
    if (two_rows && two_strips) _tile_zero(3);
    multiply_step(b, k0, done, two_rows, two_strips);
    for (size_t k = k0 + step; k < k1; k += step) multiply_step(b, k, NULL, two_rows, two_strips);
    finish_stores();
    _tile_stored(0, b->sums, 4 * STRIP);
    if (two_strips) _tile_stored(1, b->sums + at_tile(0, 1), 4 * STRIP);
    if (two_rows) _tile_stored(2, b->sums + at_tile(1, 0), 4 * STRIP);
    if (two_rows && two_strips) _tile_stored(3, b->sums + at_tile(1, 1), 4 * STRIP);
    finish_stores();
}

LC_INLINE void join_tiles(block *b, const done_group *g, const bool two_rows,
                          const bool two_strips) {
    for (size_t a = 0; a < (two_rows ? 2 : 1); a++)
        for (size_t s = 0; s < (two_strips ? 2 : 1); s++) join_tile(b, g, a, s);
}

static size_t columns_of(const block *b, size_t s) {
    return coded_least(b->w->columns - (b->strip + s) * STRIP, STRIP);
}

static float *place_of(const block *b, size_t r, size_t s) {
    const coded_work *w = b->w;
    return w->p->c + (b->row + r) * w->p->ldc + w->column + (b->strip + s) * STRIP;
}

static void store_some(float *c, lc_v v, size_t n) {
    if (n < LC_LANES)
        v_store_n(c, v, n);
    else
        v_store(c, v);
}

static inline size_t at_row(size_t r, size_t s) { return at_tile(r / TILE, s) + r % TILE * STRIP; }

#define LC_EACH_ROW                                                                                \
    for (size_t r = 0; r < (two_rows ? 2 * TILE : TILE); r++)                                      \
        for (size_t s = 0; s < (two_strips ? 2 : 1); s++)

/* A part of the only group: c carries whole sums between chunks. */
LC_INLINE void only_group(block *b, const done_group *only, const bool two_rows,
                          const bool two_strips) {
    const coded_work *w = b->w;
    multiply_tiles(b, w->k0, w->k1, NULL, two_rows, two_strips);
    if (w->k0) LC_EACH_ROW {
            int32_t *to = b->sums + at_row(r, s);
            lc_v before = load_some(place_of(b, r, s), columns_of(b, s));
            w_store(to, w_add(w_load(to), w_bits(before)));
        }
    if (!waits(w)) {
        memset(b->acc, 0, sizeof b->acc);
        join_tiles(b, only, two_rows, two_strips);
    }
    LC_EACH_ROW store_some(place_of(b, r, s),
                           waits(w) ? v_bits(w_load(b->sums + at_row(r, s)))
                                    : quiet(v_load(b->acc + at_row(r, s))),
                           columns_of(b, s));
}

/* The groups of a chunk: one's sums join while the next one's multiply, and before they are
 * stored, so that no load waits behind a store that waits for tiles. */
LC_INLINE void whole_groups(block *b, done_group *done, const bool two_rows,
                            const bool two_strips) {
    const coded_work *w = b->w;
    LC_EACH_ROW v_store(b->acc + at_row(r, s),
                        w->k0 ? load_some(place_of(b, r, s), columns_of(b, s)) : v_zero());
    size_t k = w->k0, size = w->size;
    multiply_tiles(b, k, coded_least(w->k1, k + size), NULL, two_rows, two_strips);
    for (k += size; k < w->k1; k += size, done->group++, done->place += STRIP)
        multiply_tiles(b, k, coded_least(w->k1, k + size), done, two_rows, two_strips);
    join_tiles(b, done, two_rows, two_strips);
    LC_EACH_ROW {
        lc_v acc = v_load(b->acc + at_row(r, s));
        store_some(place_of(b, r, s), w->k1 == w->k ? quiet(acc) : acc, columns_of(b, s));
    }
}

LC_INLINE void run_groups(block *b, const bool two_rows, const bool two_strips, const bool zeros,
                          const bool biases) {
    const coded_work *w = b->w;
    done_group done = {w->groups == 1 ? 0 : w->group0, b->strip * w->places, zeros, biases};
    if (w->groups == 1)
        only_group(b, &done, two_rows, two_strips);
    else
        whole_groups(b, &done, two_rows, two_strips);
}

static void run_block(block *b, const bool two_rows, const bool two_strips) {
    LC_EACH_ROW __builtin_prefetch(place_of(b, r, s), 1); /* in time for the results */
    bool zeros = !b->w->start, biases = b->w->biases != NULL;
    if (zeros && biases)
        run_groups(b, two_rows, two_strips, true, true);
    else if (zeros)
        run_groups(b, two_rows, two_strips, true, false);
    else if (biases)
        run_groups(b, two_rows, two_strips, false, true);
    else
        run_groups(b, two_rows, two_strips, false, false);
}

static size_t run_tiles(const coded_work *w, size_t row, size_t rows, size_t strip, size_t strips) {
    block b = {.w = w, .row = row, .strip = strip};
    b.left = (const char *)w->p->left + row * w->row_bytes;
    for (size_t s = 0; s < strips; s++) b.words[s] = strip_words(w, strip + s);
    bool two_rows = rows >= 2 * TILE, two_strips = strips == 2;
    if (two_rows && two_strips)
        run_block(&b, true, true);
    else if (two_rows)
        run_block(&b, true, false);
    else if (two_strips)
        run_block(&b, false, true);
    else
        run_block(&b, false, false);
    return two_rows ? 2 * TILE : TILE;
}

extern const lc_coded_path lc_coded_amx;
const lc_coded_path lc_coded_amx = LC_CODED_PATH("tdpbsud");
