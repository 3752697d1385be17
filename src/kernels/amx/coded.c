/*
 * coded.c (AMX-INT8): coded products with tdpbssd, those of a few left rows with vpdpbusd.
 *
 * A strip of codes is a right tile as it stands: [word of k][16 columns][4]. 16 packed left rows
 * are a left tile. Tiles of int32 sums are stored at the end of a group; some groups together they
 * become fp32 in AVX-512.
 */
#include "kernels/coded.h"

#include "kernels/amx/tiles.h"
#include "kernels/avx512vnni/dot.h"

#define LC_CODED_TILES
#define LC_CODED_SIGNED
#define LC_CODED_FEW
#define LC_CODED_CHUNK 2048 /* results leave the tiles at the end of a chunk: seldom, then */
#define LC_CODED_WIDE 256   /* left rows come from the third cache once for so many columns */
#define LC_CODED_PASS 64
#include "kernels/coded.inc"

#define FEW_FETCH(p) __builtin_prefetch((p) + PART_AHEAD)
#include "kernels/avx512vnni/few.h"

enum {
    TILE_SUMS = TILE * TILE, /* words of a result tile */
    TILES = 4,               /* of a block: [16 rows][strip] */
    BATCH = 4,               /* groups whose sums join together */
    FETCH = 2,               /* lines of results that are fetched with a tile's width of k */
};

/* k of a tile: groups and chunks hold whole tiles. */
static inline size_t tile_k(const coded_work *w) { return w->k % 64 || w->size % 64 ? 32 : 64; }

/* Some rows and strips at work: up to 32 rows, one strip or two. */
typedef struct block {
    const coded_work *w;
    size_t row, strip, rows[2]; /* the first ones; rows of both tiles */
    const char *left;
    const uint8_t *words[2];
    size_t fetched; /* lines of the results: in time for them */
    _Alignas(64) float acc[TILES][TILE_SUMS];
    _Alignas(64) int32_t sums[BATCH][TILES][TILE_SUMS];
} block;

/* Groups whose sums lie in b->sums. */
typedef struct done_groups {
    size_t group, place; /* the first one; place of its first strip's scales */
    bool zeros, biases;  /* constants in every call: whether weights have them */
} done_groups;

/* A tile's sums of n groups, a constant in every call, join. */
LC_INLINE void join_tile(block *b, const done_groups *g, size_t t, const int n) {
    const coded_work *w = b->w;
    const size_t groups = w->groups, row_bytes = w->row_bytes, rows = b->rows[t / 2];
    const size_t at = g->place + t % 2 * w->places;
    const char *left = b->left + t / 2 * TILE * row_bytes + w->k + g->group * sizeof(float);
    float *accs = b->acc[t];
    lc_v scale[BATCH], bias[BATCH];
    lc_w zero[BATCH];
    for (int i = 0; i < n; i++) {
        scale[i] = v_load(w->scales + at + i * STRIP);
        if (g->biases) bias[i] = v_load(w->biases + at + i * STRIP);
        if (g->zeros) zero[i] = w_load(w->zeros + at + i * STRIP);
    }
    for (size_t r = 0; r < rows; r++, left += row_bytes) {
        const float *step = (const float *)(const void *)left;
        const int32_t *of_left = (const int32_t *)(const void *)(step + groups);
        lc_v acc = v_load(accs + r * STRIP);
        for (int i = 0; i < n; i++) {
            lc_w sum = w_load(b->sums[i][t] + r * STRIP);
            if (g->zeros) sum = w_sub(sum, w_mul(zero[i], w_set(of_left[i])));
            lc_v by = v_set(step[i]);
            acc = v_fma(w_floats(sum), v_mul(by, scale[i]), acc);
            if (g->biases) acc = v_fma(v_set((float)of_left[i]), v_mul(by, bias[i]), acc);
        }
        v_store(accs + r * STRIP, acc);
    }
}

/* Constants in every call. */
typedef struct block_shape {
    bool two_rows, two_strips;
} block_shape;

LC_INLINE bool has_tile(const block_shape shape, size_t t) {
    return (t < 2 || shape.two_rows) && (t % 2 == 0 || shape.two_strips);
}

LC_INLINE void join_tiles(block *b, const done_groups *g, const block_shape shape, const int n) {
    for (size_t t = 0; t < TILES; t++)
        if (has_tile(shape, t)) join_tile(b, g, t, n);
}

static size_t columns_of(const block *b, size_t s) {
    return coded_least(b->w->columns - (b->strip + s) * STRIP, STRIP);
}

static float *place_of(const block *b, size_t r, size_t s) {
    const coded_work *w = b->w;
    return w->c + (b->row + r) * w->ldc + (b->strip + s) * STRIP;
}

/* One tile's width of k. */
LC_INLINE void multiply_step(block *b, size_t k, const block_shape shape) {
    size_t row_bytes = b->w->row_bytes, word = (k - b->w->k0) * STRIP;
    for (int i = 0; i < FETCH && b->fetched < 4 * TILE; i++, b->fetched++)
        __builtin_prefetch(place_of(b, b->fetched / 2, b->fetched % 2), 1);
    _tile_loadd(4, b->left + k, row_bytes);
    _tile_loadd(6, b->words[0] + word, 4 * STRIP);
    _tile_dpbssd(0, 4, 6);
    if (shape.two_strips) {
        _tile_loadd(7, b->words[1] + word, 4 * STRIP);
        _tile_dpbssd(1, 4, 7);
    }
    if (!shape.two_rows) return;
    _tile_loadd(5, b->left + TILE * row_bytes + k, row_bytes);
    _tile_dpbssd(2, 5, 6);
    if (shape.two_strips) _tile_dpbssd(3, 5, 7);
}

/* Sums of k0 .. k1-1. */
LC_INLINE void multiply_tiles(block *b, size_t k0, size_t k1, int32_t sums[TILES][TILE_SUMS],
                              const block_shape shape) {
    size_t step = tile_k(b->w);
    finish_stores();
    _tile_zero(0);
    if (has_tile(shape, 1)) _tile_zero(1);
    if (has_tile(shape, 2)) _tile_zero(2);
    if (has_tile(shape, 3)) _tile_zero(3);
    for (size_t k = k0; k < k1; k += step) multiply_step(b, k, shape);
    _tile_stored(0, sums[0], 4 * STRIP);
    if (has_tile(shape, 1)) _tile_stored(1, sums[1], 4 * STRIP);
    if (has_tile(shape, 2)) _tile_stored(2, sums[2], 4 * STRIP);
    if (has_tile(shape, 3)) _tile_stored(3, sums[3], 4 * STRIP);
    finish_stores();
}

static void store_some(float *c, lc_v v, size_t n) {
    if (n < LC_LANES)
        v_store_n(c, v, n);
    else
        v_store(c, v);
}

#define LC_EACH_ROW                                                                                \
    for (size_t a = 0; a < (shape.two_rows ? 2 : 1); a++)                                          \
        for (size_t r = 0; r < b->rows[a]; r++)                                                    \
            for (size_t s = 0; s < (shape.two_strips ? 2 : 1); s++)

/* A part of the only group: c carries whole sums between chunks. */
LC_INLINE void only_group(block *b, const done_groups *only, const block_shape shape) {
    const coded_work *w = b->w;
    int32_t(*sums)[TILE_SUMS] = b->sums[0];
    multiply_tiles(b, w->k0, w->k1, sums, shape);
    if (w->k0) LC_EACH_ROW {
            int32_t *to = sums[2 * a + s] + r * STRIP;
            lc_v before = load_some(place_of(b, a * TILE + r, s), columns_of(b, s));
            w_store(to, w_add(w_load(to), w_bits(before)));
        }
    if (!waits(w)) {
        memset(b->acc, 0, sizeof b->acc);
        join_tiles(b, only, shape, 1);
    }
    LC_EACH_ROW store_some(place_of(b, a * TILE + r, s),
                           waits(w) ? v_bits(w_load(sums[2 * a + s] + r * STRIP))
                                    : quiet(v_load(b->acc[2 * a + s] + r * STRIP)),
                           columns_of(b, s));
}

/* n groups from k on: a constant in every call. */
LC_INLINE void run_batch(block *b, done_groups *at, size_t k, const block_shape shape,
                         const int n) {
    const coded_work *w = b->w;
    for (int i = 0; i < n; i++, k += w->size)
        multiply_tiles(b, k, coded_least(w->k1, k + w->size), b->sums[i], shape);
    join_tiles(b, at, shape, n);
    at->group += (size_t)n;
    at->place += (size_t)n * STRIP;
}

/* The groups of a chunk: whole batches, then one by one. */
LC_INLINE void whole_groups(block *b, done_groups *at, const block_shape shape) {
    const coded_work *w = b->w;
    LC_EACH_ROW v_store(b->acc[2 * a + s] + r * STRIP,
                        w->k0 ? load_some(place_of(b, a * TILE + r, s), columns_of(b, s))
                              : v_zero());
    size_t k = w->k0;
    for (; k + BATCH * w->size <= w->k1; k += BATCH * w->size) run_batch(b, at, k, shape, BATCH);
    for (; k < w->k1; k += w->size) run_batch(b, at, k, shape, 1);
    LC_EACH_ROW {
        lc_v acc = v_load(b->acc[2 * a + s] + r * STRIP);
        store_some(place_of(b, a * TILE + r, s), w->k1 == w->k ? quiet(acc) : acc,
                   columns_of(b, s));
    }
}

LC_INLINE void run_groups(block *b, const block_shape shape, const bool zeros, const bool biases) {
    const coded_work *w = b->w;
    done_groups first = {w->groups == 1 ? 0 : w->group0, b->strip * w->places, zeros, biases};
    if (w->groups == 1)
        only_group(b, &first, shape);
    else
        whole_groups(b, &first, shape);
}

LC_INLINE void run_block(block *b, const block_shape shape) {
    bool zeros = b->w->zeros != NULL, biases = b->w->biases != NULL;
    if (zeros && biases)
        run_groups(b, shape, true, true);
    else if (zeros)
        run_groups(b, shape, true, false);
    else if (biases)
        run_groups(b, shape, false, true);
    else
        run_groups(b, shape, false, false);
}

/* Rows from `row` on, at most 32 of `rows`, with one strip or two. */
static void run_tiles(const coded_work *w, size_t row, size_t rows, size_t strip, size_t strips,
                      tile_config *config) {
    block b;
    b.w = w;
    b.row = row;
    b.strip = strip;
    b.fetched = 0;
    b.rows[0] = coded_least(rows, TILE);
    b.rows[1] = coded_least(rows - b.rows[0], TILE);
    b.left = (const char *)w->p->left + row * w->row_bytes;
    for (size_t s = 0; s < strips; s++) b.words[s] = strip_words(w, strip + s);
    configure(config, b.rows[0], b.rows[1], TILE, TILE, tile_k(w));
    if (b.rows[1] && strips == 2)
        run_block(&b, (block_shape){true, true});
    else if (b.rows[1])
        run_block(&b, (block_shape){true, false});
    else if (strips == 2)
        run_block(&b, (block_shape){false, true});
    else
        run_block(&b, (block_shape){false, false});
}

static void run_chunk(const coded_work *w) {
    size_t strips = (w->columns + STRIP - 1) / STRIP;
    tile_config config = {0};
    for (size_t first = 0; first < w->p->rows; first += CODED_ROWS) {
        size_t last = coded_least(first + CODED_ROWS, w->p->rows);
        for (size_t strip = 0; strip < strips; strip += 2)
            for (size_t row = first; row < last; row += 2 * TILE)
                run_tiles(w, row, last - row, strip, coded_least(strips - strip, 2), &config);
    }
    _tile_release();
}

extern const lc_coded_path lc_coded_amx;
const lc_coded_path lc_coded_amx = LC_CODED_PATH("tdpbssd");
