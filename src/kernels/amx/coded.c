/*
 * coded.c (AMX-INT8): coded products with tdpbsud where 16 left rows or more meet, else with
 * vpdpbusd.
 *
 * A strip of codes is a right tile as it stands: [word of k][16 columns][4]. 16 packed left rows
 * are a left tile. A tile of int32 sums is stored at the end of a group and becomes fp32 in
 * AVX-512; the next group's tiles multiply meanwhile.
 */
#include "kernels/coded.h"

#include "kernels/avx512/words.h"

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    return _mm512_dpbusd_epi32(acc, codes, w_set_q(q));
}

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
    float acc[2 * TILE][2][STRIP];
    int32_t sums[2][4 * TILE_SUMS]; /* [parity of the group][rows][strip] */
} block;

/* Sums of k0 .. k1-1 to `sums`. two_rows, two_strips are constants in every call. */
LC_INLINE void multiply_tiles(block *b, size_t k0, size_t k1, int32_t *sums, const bool two_rows,
                              const bool two_strips) {
    size_t step = tile_k(b->w), row_bytes = b->w->row_bytes;
    _tile_zero(0);
    if (two_strips) _tile_zero(1);
    if (two_rows) _tile_zero(2);
    if (two_rows && two_strips) _tile_zero(3);
    for (size_t k = k0; k < k1; k += step) {
        size_t word = (k - b->w->k0) * STRIP;
        _tile_loadd(4, b->left + k, row_bytes);
        _tile_loadd(6, b->words[0] + word, 4 * STRIP);
        _tile_dpbsud(0, 4, 6);
        if (two_strips) {
            _tile_loadd(7, b->words[1] + word, 4 * STRIP);
            _tile_dpbsud(1, 4, 7);
        }
        if (!two_rows) continue;
        _tile_loadd(5, b->left + TILE * row_bytes + k, row_bytes);
        _tile_dpbsud(2, 5, 6);
        if (two_strips) _tile_dpbsud(3, 5, 7);
    }
    _tile_stored(0, sums, 4 * STRIP);
    if (two_strips) _tile_stored(1, sums + TILE_SUMS, 4 * STRIP);
    if (two_rows) _tile_stored(2, sums + 2 * TILE_SUMS, 4 * STRIP);
    if (two_rows && two_strips) _tile_stored(3, sums + 3 * TILE_SUMS, 4 * STRIP);
    finish_stores();
}

LC_INLINE lc_w sum_of(const int32_t *sums, size_t r, int s) {
    return w_load(sums + (r / TILE * 2 + (size_t)s) * TILE_SUMS + r % TILE * STRIP);
}

/* What a row's sum of a group begins from, or the stored zeros times its values' sum. */
LC_INLINE lc_w shift_of(const coded_work *w, size_t row, size_t group, size_t at, int32_t sum) {
    if (w->start) return w_set(w->start[row * w->groups + group]);
    return w_sub(w_zero(), w_mul(w_load(w->zeros + at), w_set(sum)));
}

LC_INLINE void join_group(block *b, size_t group, size_t place, const int32_t *tiles,
                          const size_t rows, const int strips) {
    const coded_work *w = b->w;
    for (size_t r = 0; r < rows; r++) {
        const char *end = b->left + r * w->row_bytes + w->k;
        const float *steps = (const float *)(const void *)end;
        int32_t sum = ((const int32_t *)(const void *)(steps + w->groups))[group];
        lc_v step = v_set(steps[group]);
        for (int s = 0; s < strips; s++) {
            size_t at = place + (size_t)s * w->places;
            lc_w whole = w_add(sum_of(tiles, r, s), shift_of(w, b->row + r, group, at, sum));
            lc_v acc = v_load(b->acc[r][s]);
            acc = v_fma(w_floats(whole), v_mul(step, v_load(w->scales + at)), acc);
            if (w->biases) acc = v_fma(v_set((float)sum), v_mul(step, v_load(w->biases + at)), acc);
            v_store(b->acc[r][s], acc);
        }
    }
}

static size_t columns_of(const block *b, int s) {
    return coded_least(b->w->columns - (b->strip + (size_t)s) * STRIP, STRIP);
}

static float *place_of(const block *b, size_t r, int s) {
    const coded_work *w = b->w;
    return w->p->c + (b->row + r) * w->p->ldc + w->column + (b->strip + (size_t)s) * STRIP;
}

static void store_some(float *c, lc_v v, size_t n) {
    if (n < LC_LANES)
        v_store_n(c, v, n);
    else
        v_store(c, v);
}

/* A part of the only group: c carries whole sums between chunks. */
LC_INLINE void only_group(block *b, const bool two_rows, const bool two_strips) {
    const coded_work *w = b->w;
    size_t rows = two_rows ? 2 * TILE : TILE;
    int strips = two_strips ? 2 : 1;
    multiply_tiles(b, w->k0, w->k1, b->sums[0], two_rows, two_strips);
    for (size_t r = 0; r < rows && w->k0; r++)
        for (int s = 0; s < strips; s++) {
            int32_t *to = b->sums[0] + (r / TILE * 2 + (size_t)s) * TILE_SUMS + r % TILE * STRIP;
            lc_v before = load_some(place_of(b, r, s), columns_of(b, s));
            w_store(to, w_add(w_load(to), w_bits(before)));
        }
    if (!waits(w)) {
        memset(b->acc, 0, sizeof b->acc);
        join_group(b, 0, b->strip * w->places, b->sums[0], rows, strips);
    }
    for (size_t r = 0; r < rows; r++)
        for (int s = 0; s < strips; s++)
            store_some(place_of(b, r, s),
                       waits(w) ? v_bits(sum_of(b->sums[0], r, s)) : quiet(v_load(b->acc[r][s])),
                       columns_of(b, s));
}

/* The groups of a chunk: one's sums join while the next one's multiply. */
LC_INLINE void whole_groups(block *b, const bool two_rows, const bool two_strips) {
    const coded_work *w = b->w;
    size_t rows = two_rows ? 2 * TILE : TILE, group = w->group0, place = b->strip * w->places;
    int strips = two_strips ? 2 : 1, parity = 0;
    for (size_t r = 0; r < rows; r++)
        for (int s = 0; s < strips; s++)
            v_store(b->acc[r][s],
                    w->k0 ? load_some(place_of(b, r, s), columns_of(b, s)) : v_zero());
    for (size_t k = w->k0; k < w->k1; k += w->size, parity ^= 1) {
        multiply_tiles(b, k, coded_least(w->k1, k + w->size), b->sums[parity], two_rows,
                       two_strips);
        if (k == w->k0) continue;
        join_group(b, group++, place, b->sums[parity ^ 1], rows, strips);
        place += STRIP;
    }
    join_group(b, group, place, b->sums[parity ^ 1], rows, strips);
    for (size_t r = 0; r < rows; r++)
        for (int s = 0; s < strips; s++) {
            lc_v acc = v_load(b->acc[r][s]);
            store_some(place_of(b, r, s), w->k1 == w->k ? quiet(acc) : acc, columns_of(b, s));
        }
}

static void run_block(block *b, const bool two_rows, const bool two_strips) {
    for (size_t r = 0; r < (two_rows ? 2 * TILE : TILE); r++) /* in time for the results */
        for (int s = 0; s < (two_strips ? 2 : 1); s++) __builtin_prefetch(place_of(b, r, s), 1);
    if (b->w->groups == 1)
        only_group(b, two_rows, two_strips);
    else
        whole_groups(b, two_rows, two_strips);
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
