/*
 * amx.c: BF16 products with tdpbf16ps, which has the order of numerics.md 1 in hardware; the rest
 * is AVX-512.
 *
 * nk products compute the transposed result: weight rows are the left tile. With few step rows they
 * are read as the checkpoint has them; with more, a chunk of k of 128 weight rows is copied
 * together and stays in the second cache while all step rows pass, 32 at a time, from the first.
 * The step's rows are the right tile: 16 rows are packed as [block][pair of k][row][2]. A group's
 * tiles are as wide as the group, so a single row costs a single column.
 *
 * kn products have the natural orientation; pairs of right rows are interleaved into tiles.
 */
#include "kernels/kernels.h"

#include "kernels/avx512/lanes.h"
#include "kernels/avx512/transpose.h"

enum {
    TILE = 16,      /* rows of a tile, and columns of fp32 */
    WIDE = 128,     /* weight rows of a task with many step rows */
    PAIRS = 16,     /* rows of a right tile: pairs of k */
    K_CHUNK = 4096, /* k of a panel of weights that is copied together */
    C_GROUP = 1024, /* floats of the results of 32 weight rows and 32 step rows */
};

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* gcc's tile intrinsics don't tell that they read memory: stores before them must be finished. */
static inline void finish_stores(void) { __asm__ volatile("" ::: "memory"); }

/* Tiles 0-3: results [a][b]; 4, 5: left tiles a; 6, 7: right tiles b. A size of 0 leaves a tile
 * out. `now` is what is loaded (all zero: nothing). */
static inline void configure(tile_config *now, size_t a0, size_t a1, size_t b0, size_t b1) {
    if (now->palette && now->rows[4] == a0 && now->rows[5] == a1 && now->row_bytes[6] == b0 * 4 &&
        now->row_bytes[7] == b1 * 4)
        return;
    *now = (tile_config){.palette = 1};
    size_t a[2] = {a0, a1}, b[2] = {b0, b1};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 2; j++)
            if (a[i] && b[j]) {
                now->rows[2 * i + j] = (uint8_t)a[i];
                now->row_bytes[2 * i + j] = (uint16_t)(b[j] * 4);
            }
        now->rows[4 + i] = (uint8_t)a[i];
        now->row_bytes[4 + i] = a[i] ? 64 : 0;
        now->rows[6 + i] = b[i] ? PAIRS : 0;
        now->row_bytes[6 + i] = (uint16_t)(b[i] * 4);
    }
    finish_stores();
    _tile_loadconfig(now);
}

static size_t at_most(size_t n, size_t most) { return n < most ? n : most; }

/* ---- nk ---- */

static inline void round_row(const float *x, size_t n, uint32_t words[PAIRS]) {
    float t[LC_K_BLOCK] = {0};
    uint16_t h[LC_K_BLOCK];
    if (n < LC_K_BLOCK) {
        memcpy(t, x, n * sizeof *x);
        x = t;
    }
    v_store_bf16(h, v_load(x));
    v_store_bf16(h + 16, v_load(x + 16));
    memcpy(words, h, sizeof h);
}

/* Groups of 16 rows: [block][pair][row of the group], words of two k. */
static void pack_step_rows(size_t rows, size_t k, const float *x, size_t ldx, void *out) {
    for (size_t first = 0; first < rows; first += TILE) {
        size_t n = at_most(rows - first, TILE);
        uint32_t *y = (uint32_t *)out + lc_left_floats(first, k);
        for (size_t b = 0; b < k; b += LC_K_BLOCK, y += PAIRS * n) {
            __m512i r[16];
            for (size_t i = 0; i < 16; i++) {
                uint32_t words[PAIRS] = {0};
                if (i < n) round_row(x + (first + i) * ldx + b, at_most(k - b, LC_K_BLOCK), words);
                r[i] = _mm512_loadu_si512(words);
            }
            transpose_16x16(r);
            for (size_t pair = 0; pair < PAIRS; pair++)
                _mm512_mask_storeu_epi32(y + pair * n, n == 16 ? 0xffff : first_lanes(n), r[pair]);
        }
    }
}

/* 32 weight rows against a pair of groups of step rows, over some blocks of k. */
typedef struct nk_block {
    const uint16_t *w[2]; /* two tiles of weight rows, at the first block */
    size_t w_row, w_step; /* bytes from row to row, elements from block to block */
    const uint32_t *x[2]; /* two groups of step rows, at the first block */
    size_t n[2];          /* rows of each group */
    size_t blocks;
} nk_block;

/* two_w, two_x are constants in every call. Results accumulate in tiles 0-3. */
static inline __attribute__((always_inline)) void run_blocks(const nk_block *k, const bool two_w,
                                                             const bool two_x) {
    for (size_t b = 0; b < k->blocks; b++) {
        _tile_loadd(4, k->w[0] + b * k->w_step, k->w_row);
        _tile_loadd(6, k->x[0] + b * PAIRS * k->n[0], k->n[0] * 4);
        _tile_dpbf16ps(0, 4, 6);
        if (two_w) {
            _tile_loadd(5, k->w[1] + b * k->w_step, k->w_row);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (!two_x) continue;
        _tile_loadd(7, k->x[1] + b * PAIRS * k->n[1], k->n[1] * 4);
        _tile_dpbf16ps(1, 4, 7);
        if (two_w) _tile_dpbf16ps(3, 5, 7);
    }
}

/* The results of a pair of groups wait in c: four tiles of [weight row][step row]. */
static void load_results(const float *c, bool two_w, bool two_x) {
    _tile_loadd(0, c, 64);
    if (two_x) _tile_loadd(1, c + 256, 64);
    if (two_w) _tile_loadd(2, c + 512, 64);
    if (two_w && two_x) _tile_loadd(3, c + 768, 64);
}

static void store_results(float *c, bool two_w, bool two_x) {
    _tile_stored(0, c, 64);
    if (two_x) _tile_stored(1, c + 256, 64);
    if (two_w) _tile_stored(2, c + 512, 64);
    if (two_w && two_x) _tile_stored(3, c + 768, 64);
}

static void zero_results(bool two_w, bool two_x) {
    _tile_zero(0);
    if (two_x) _tile_zero(1);
    if (two_w) _tile_zero(2);
    if (two_w && two_x) _tile_zero(3);
}

/* Transposes a tile of [weight row][step row] into p->c. */
static void write_tile(const lc_product *p, const float *tile, size_t row, size_t rows,
                       size_t column, size_t columns) {
    __m512i r[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(tile + i * TILE);
    transpose_16x16(r);
    __mmask16 mask = columns == 16 ? 0xffff : first_lanes(columns);
    for (size_t i = 0; i < rows; i++)
        _mm512_mask_storeu_epi32(p->c + (row + i) * p->ldc + column, mask, r[i]);
}

/* A panel of up to WIDE weight rows on its way through the step rows. */
typedef struct nk_panel {
    const lc_product *p;
    size_t column, columns, k;
    float *results;   /* [pair of groups][32 weight rows] x C_GROUP */
    uint16_t *packed; /* a chunk of k: [32 weight rows][block][row][32], or unused */
    tile_config config;
} nk_panel;

static size_t chunk_length(const nk_panel *n, size_t chunk) {
    return at_most(n->k - chunk, K_CHUNK);
}

/* Copies a chunk of the weight rows block by block: rows that lie a power of two apart would push
 * each other out of the first cache. */
static void pack_chunk(const nk_panel *n, size_t chunk) {
    const uint16_t *weights = (const uint16_t *)n->p->right + n->column * n->p->ld + chunk;
    size_t blocks = chunk_length(n, chunk) / LC_K_BLOCK;
    for (size_t i = 0; i < n->columns; i++) {
        uint16_t *to = n->packed + i / 32 * 32 * K_CHUNK + i % 32 * LC_K_BLOCK;
        for (size_t b = 0; b < blocks; b++)
            _mm512_storeu_si512(to + b * 32 * LC_K_BLOCK,
                                _mm512_loadu_si512(weights + i * n->p->ld + b * LC_K_BLOCK));
    }
}

/* 32 weight rows from `sub` of the panel against a pair of groups from `row`. */
static void pair_of_groups(nk_panel *n, size_t chunk, size_t row, size_t sub) {
    const lc_product *p = n->p;
    size_t w0 = at_most(n->columns - sub, TILE), w1 = at_most(n->columns - sub - w0, TILE);
    size_t x0 = at_most(p->rows - row, TILE), x1 = at_most(p->rows - row - x0, TILE);
    const uint32_t *left = (const uint32_t *)p->left;
    const uint16_t *weights = (const uint16_t *)p->right + (n->column + sub) * p->ld + chunk;
    nk_block block = {
        .w = {weights, weights + TILE * p->ld},
        .w_row = p->ld * sizeof *weights,
        .w_step = LC_K_BLOCK,
        .x = {left + lc_left_floats(row, n->k) + chunk / 2 * x0,
              left + lc_left_floats(row + TILE, n->k) + chunk / 2 * x1},
        .n = {x0, x1},
        .blocks = chunk_length(n, chunk) / LC_K_BLOCK,
    };
    if (n->packed) {
        block.w[0] = n->packed + sub * K_CHUNK;
        block.w[1] = block.w[0] + TILE * LC_K_BLOCK;
        block.w_row = LC_K_BLOCK * sizeof *weights;
        block.w_step = 32 * LC_K_BLOCK;
    }
    float *c = n->results + (row / 32 * (WIDE / 32) + sub / 32) * C_GROUP;
    configure(&n->config, w0, w1, x0, x1);
    if (chunk)
        load_results(c, w1 > 0, x1 > 0);
    else
        zero_results(w1 > 0, x1 > 0);
    if (w1 && x1)
        run_blocks(&block, true, true);
    else if (w1)
        run_blocks(&block, true, false);
    else if (x1)
        run_blocks(&block, false, true);
    else
        run_blocks(&block, false, false);
    store_results(c, w1 > 0, x1 > 0);
    if (chunk + K_CHUNK < n->k) return;
    size_t column = n->column + sub;
    write_tile(p, c, row, x0, column, w0);
    if (x1) write_tile(p, c + 256, row + TILE, x1, column, w0);
    if (w1) write_tile(p, c + 512, row, x0, column + TILE, w1);
    if (w1 && x1) write_tile(p, c + 768, row + TILE, x1, column + TILE, w1);
}

static size_t results_floats(size_t rows) { return (rows + 31) / 32 * (WIDE / 32) * C_GROUP; }

static void amx_multiply_nk(const lc_product *p) {
    nk_panel n = {.p = p, .k = lc_pad_k(p->k), .results = p->scratch};
    if (p->rows > LC_FEW_ROWS) n.packed = (uint16_t *)(void *)(n.results + results_floats(p->rows));
    for (n.column = 0; n.column < p->columns; n.column += WIDE) {
        n.columns = at_most(p->columns - n.column, WIDE);
        for (size_t chunk = 0; chunk < n.k; chunk += K_CHUNK) {
            if (n.packed) pack_chunk(&n, chunk);
            finish_stores();
            for (size_t row = 0; row < p->rows; row += 2 * TILE) {
                for (size_t sub = 0; sub < n.columns; sub += 2 * TILE)
                    pair_of_groups(&n, chunk, row, sub);
            }
        }
    }
    _tile_release();
}

/* ---- kn ---- */

static void pack_rows(size_t rows, size_t k, const float *x, size_t ldx, void *out) {
    for (size_t i = 0; i < rows; i++) {
        uint32_t *y = (uint32_t *)out + i * lc_pad_k(k); /* half of the space is used */
        for (size_t b = 0; b < k; b += LC_K_BLOCK, y += PAIRS)
            round_row(x + i * ldx + b, at_most(k - b, LC_K_BLOCK), y);
    }
}

/* Interleaves pairs of right rows: [pair][32 columns] words of two k. */
static void interleave(const lc_product *p, size_t column, size_t n, uint32_t *panel) {
    uint16_t low[32], high[32];
    for (uint16_t i = 0; i < 32; i++) {
        low[i] = (uint16_t)(i / 2 + (i % 2 ? 32 : 0));
        high[i] = (uint16_t)(16 + i / 2 + (i % 2 ? 32 : 0));
    }
    __m512i first = _mm512_loadu_si512(low), second = _mm512_loadu_si512(high);
    __mmask32 columns = n == 32 ? 0xffffffffu : (1u << n) - 1u;
    const uint16_t *right = (const uint16_t *)p->right + column;
    for (size_t k = 0; k < lc_pad_k(p->k); k += 2, panel += 2 * TILE) {
        __m512i even = _mm512_setzero_si512(), odd = even;
        if (k < p->k) even = _mm512_maskz_loadu_epi16(columns, right + k * p->ld);
        if (k + 1 < p->k) odd = _mm512_maskz_loadu_epi16(columns, right + (k + 1) * p->ld);
        _mm512_storeu_si512(panel, _mm512_permutex2var_epi16(even, first, odd));
        _mm512_storeu_si512(panel + TILE, _mm512_permutex2var_epi16(even, second, odd));
    }
}

/* Rows [row, row + x0 + x1) times a panel of b0 + b1 columns, to c. */
static void kn_tile(const lc_product *p, const uint32_t *panel, size_t row, bool two_rows,
                    bool two_columns, float *c, size_t ldc) {
    size_t k = lc_pad_k(p->k);
    const uint32_t *left = (const uint32_t *)p->left + row * k;
    finish_stores();
    zero_results(two_rows, two_columns);
    for (size_t b = 0; b < k / LC_K_BLOCK; b++) {
        const uint32_t *right = panel + b * PAIRS * 2 * TILE;
        _tile_loadd(4, left + b * PAIRS, k * sizeof *left);
        _tile_loadd(6, right, 2 * TILE * sizeof *right);
        _tile_dpbf16ps(0, 4, 6);
        if (two_columns) {
            _tile_loadd(7, right + TILE, 2 * TILE * sizeof *right);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (!two_rows) continue;
        _tile_loadd(5, left + TILE * k + b * PAIRS, k * sizeof *left);
        _tile_dpbf16ps(2, 5, 6);
        if (two_columns) _tile_dpbf16ps(3, 5, 7);
    }
    size_t bytes = ldc * sizeof *c;
    _tile_stored(0, c, bytes);
    if (two_columns) _tile_stored(1, c + TILE, bytes);
    if (two_rows) _tile_stored(2, c + TILE * ldc, bytes);
    if (two_rows && two_columns) _tile_stored(3, c + TILE * ldc + TILE, bytes);
}

/* Products [32][32], of which `rows` x `columns` count, join p->c from (row, column). */
static void join_products(const lc_product *p, const float *products, size_t row, size_t rows,
                          size_t column, size_t columns) {
    __mmask16 low = columns >= TILE ? 0xffff : first_lanes(columns);
    __mmask16 high = columns > TILE ? first_lanes(columns - TILE) : 0;
    for (size_t i = 0; i < rows; i++, products += 2 * TILE) {
        float *c = p->c + (row + i) * p->ldc + column;
        if (p->decay[row + i] < 0.0f) continue;
        __m512 d = _mm512_set1_ps(p->decay[row + i]);
        __m512 a = _mm512_maskz_loadu_ps(low, c), b = _mm512_maskz_loadu_ps(high, c + TILE);
        a = _mm512_fmadd_ps(a, d, _mm512_loadu_ps(products));
        b = _mm512_fmadd_ps(b, d, _mm512_loadu_ps(products + TILE));
        _mm512_mask_storeu_ps(c, low, a);
        _mm512_mask_storeu_ps(c + TILE, high, b);
    }
}

static size_t interleaved_floats(size_t k) { return lc_pad_k(k) * TILE; }

static void amx_multiply_kn(const lc_product *p) {
    tile_config config = {0};
    uint32_t *panel = p->scratch;
    float *products = (float *)p->scratch + interleaved_floats(p->k);
    for (size_t column = 0; column < p->columns; column += 2 * TILE) {
        size_t n = at_most(p->columns - column, 2 * TILE), b0 = at_most(n, TILE), b1 = n - b0;
        interleave(p, column, n, panel);
        for (size_t row = 0; row < p->rows; row += 2 * TILE) {
            size_t x0 = at_most(p->rows - row, TILE), x1 = at_most(p->rows - row - x0, TILE);
            configure(&config, x0, x1, b0, b1);
            if (p->decay) {
                kn_tile(p, panel, row, x1 > 0, b1 > 0, products, 2 * TILE);
                join_products(p, products, row, x0 + x1, column, n);
            } else {
                kn_tile(p, panel, row, x1 > 0, b1 > 0, p->c + row * p->ldc + column, p->ldc);
            }
        }
    }
    _tile_release();
}

static size_t amx_scratch(size_t rows, size_t k) {
    size_t nk = results_floats(rows) * sizeof(float) + WIDE * K_CHUNK * sizeof(uint16_t),
           kn = (interleaved_floats(k) + 4 * TILE * TILE) * sizeof(float);
    return nk > kn ? nk : kn;
}

extern const lc_kernels lc_kernels_amx;
#define LC_KERNELS_TABLE lc_kernels_amx
#define LC_KERNELS_ISA LC_ISA_AMX
#define LC_KERNELS_BF16_PATH                                                                       \
    {                                                                                              \
        .name = "tdpbf16ps", .element = sizeof(uint16_t), .panel = 2 * TILE, .wide = WIDE,         \
        .scratch_bytes = amx_scratch, .pack_nk = pack_step_rows, .pack_kn = pack_rows,             \
        .multiply_nk = amx_multiply_nk, .multiply_kn = amx_multiply_kn                             \
    }
#include "kernels/kernels.inc"
