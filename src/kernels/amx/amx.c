/*
 * amx.c: BF16 products with tdpbf16ps, which has the order of numerics.md 1 in hardware; the rest
 * is AVX-512.
 *
 * nk products compute the transposed result: weight rows are the left tile. With few step rows they
 * are read where they lie, 32 at a time, side by side: streams that the hardware fetches ahead.
 * With many, as many as fit into the second cache are copied into whole tiles first, whose rows
 * don't compete for places of the first cache, and all step rows pass them, the next ones fetched
 * meanwhile. The step's rows are the right tile: 16 rows are packed as [block][pair of k][row][2].
 * A group's tiles are as wide as the group, so a single row costs a single column.
 *
 * kn products have the natural orientation; pairs of right rows are interleaved into tiles.
 * Products whose right side is packed once for many uses are packed.h.
 */
#include "kernels/kernels.h"

#include "kernels/amx/tiles.h"
#include "kernels/avx512/lanes.h"
#include "kernels/avx512/transpose.h"

enum {
    WIDE = 512, /* weight rows of a task with many step rows */
    PAIRS = 16, /* rows of a right tile: pairs of k */
    K_BYTES = LC_K_BLOCK * sizeof(uint16_t),
    C_GROUP = 1024,     /* floats of the results of 32 weight rows and 32 step rows */
    COPIED_ROWS = 128,  /* step rows from which on weight rows are copied */
    COPIED_PAIRS = 16,  /* of tiles of weight rows, at most */
    COPIED = 384 << 10, /* elements of them that stay in the second cache beside the step's rows */
};

static size_t at_most(size_t n, size_t most) { return n < most ? n : most; }

/* ---- nk ---- */

/* Words of two k: even in the low half. */
static inline __m512i join_pairs(__m512 even, __m512 odd) {
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

static inline __mmask16 lanes_of(size_t n) { return n >= TILE ? 0xffff : first_lanes(n); }

/* 32 values of a row, rounded; what lies behind n is zero. */
static inline __m512i round_block(const float *x, size_t n) {
    __m512 low = _mm512_maskz_loadu_ps(lanes_of(n), x);
    __m512 high = _mm512_setzero_ps();
    if (n > TILE) high = _mm512_maskz_loadu_ps(lanes_of(n - TILE), x + TILE);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* Groups of 16 rows: [block][pair][row of the group], words of two k. */
static void pack_step_rows(size_t rows, size_t k, const float *x, size_t ldx, void *out) {
    for (size_t first = 0; first < rows; first += TILE) {
        size_t n = at_most(rows - first, TILE);
        uint32_t *y = (uint32_t *)out + first * lc_pad_k(k) / 2;
        for (size_t b = 0; b < k; b += LC_K_BLOCK, y += PAIRS * n) {
            __m512i r[16];
            for (size_t i = 0; i < 16; i++)
                r[i] =
                    i < n ? round_block(x + (first + i) * ldx + b, k - b) : _mm512_setzero_si512();
            transpose_16x16(r);
            for (size_t pair = 0; pair < PAIRS; pair++)
                _mm512_mask_storeu_epi32(y + pair * n, n == 16 ? 0xffff : first_lanes(n), r[pair]);
        }
    }
}

/* 32 weight rows against a pair of groups of step rows. */
typedef struct nk_block {
    const uint16_t *w[2]; /* two tiles of weight rows, at the first block of k */
    size_t ld, step;      /* elements from weight row to weight row, from block to block */
    const uint32_t *x[2]; /* two groups of step rows */
    size_t n[2];          /* rows of each group */
    size_t blocks;
    float *c; /* where the results will go: 2 lines a row, fetched meanwhile; NULL: nowhere far */
    size_t ldc;
    const char *next; /* step rows that follow, NEXT lines a block: fetched meanwhile */
} nk_block;

enum { FETCH = 2, NEXT = 8 }; /* lines of c, of step rows a block of k */

static inline void fetch_next(const nk_block *k, size_t b, size_t part) {
    for (size_t i = part * NEXT / 4; i < (part + 1) * NEXT / 4; i++)
        __builtin_prefetch(k->next + (b * NEXT + i) * 64, 0, 2);
}

/* two_w, two_x are constants in every call. Results accumulate in tiles 0-3. */
LC_INLINE void run_blocks(const nk_block *k, const bool two_w, const bool two_x, const bool fetch) {
    size_t w_row = k->ld * sizeof *k->w[0], lines = two_x ? 4 * TILE : 2 * k->n[0];
    if (!k->c) lines = 0;
    for (size_t b = 0; b < k->blocks; b++) {
        for (size_t i = b * FETCH; i < (b + 1) * FETCH && i < lines; i++)
            __builtin_prefetch(k->c + i / 2 * k->ldc + i % 2 * TILE, 1);
        _tile_loadd(4, k->w[0] + b * k->step, w_row);
        if (fetch) fetch_next(k, b, 0);
        _tile_loadd(6, k->x[0] + b * PAIRS * k->n[0], k->n[0] * 4);
        if (fetch) fetch_next(k, b, 1);
        if (two_w) _tile_loadd(5, k->w[1] + b * k->step, w_row);
        if (fetch) fetch_next(k, b, 2);
        if (two_x) _tile_loadd(7, k->x[1] + b * PAIRS * k->n[1], k->n[1] * 4);
        if (fetch) fetch_next(k, b, 3);
        _tile_dpbf16ps(0, 4, 6);
        if (two_w) _tile_dpbf16ps(2, 5, 6);
        if (two_x) _tile_dpbf16ps(1, 4, 7);
        if (two_w && two_x) _tile_dpbf16ps(3, 5, 7);
    }
}

static void run_block(const nk_block *k, bool two_w, bool two_x) {
    if (two_w && two_x && k->next)
        run_blocks(k, true, true, true);
    else if (two_w && two_x)
        run_blocks(k, true, true, false);
    else if (two_w)
        run_blocks(k, true, false, false);
    else if (two_x)
        run_blocks(k, false, true, false);
    else
        run_blocks(k, false, false, false);
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

/* Transposes a tile of [weight row][step row] into c. */
static void write_tile(float *c, size_t ldc, const float *tile, size_t rows, size_t columns) {
    __m512i r[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(tile + i * TILE);
    transpose_16x16(r);
    __mmask16 mask = columns == 16 ? 0xffff : first_lanes(columns);
    for (size_t i = 0; i < rows; i++) _mm512_mask_storeu_epi32(c + i * ldc, mask, r[i]);
}

/* 32 weight rows, at most, where they lie or copied. */
typedef struct nk_rows {
    const uint16_t *w[2];
    size_t n, ld, step;
    size_t column; /* of the first */
} nk_rows;

/* Weight rows times the pair of groups from `row`, into tiles 0-3; results go to `out` later, 2
 * lines every ldc. next may be NULL. */
static void multiply_pair(const lc_product *p, const nk_rows *w, size_t row, float *out, size_t ldc,
                          const char *next, tile_config *config) {
    size_t k = lc_pad_k(p->k), w0 = at_most(w->n, TILE), w1 = w->n - w0;
    size_t x0 = at_most(p->rows - row, TILE), x1 = at_most(p->rows - row - x0, TILE);
    const uint32_t *left = (const uint32_t *)p->left + row * k / 2;
    nk_block block = {
        .w = {w->w[0], w->w[1]},
        .ld = w->ld,
        .step = w->step,
        .x = {left, left + TILE * k / 2},
        .n = {x0, x1},
        .blocks = k / LC_K_BLOCK,
        .c = out,
        .ldc = ldc,
        .next = next,
    };
    configure(config, w0, w1, x0, x1, K_BYTES);
    zero_results(w1 > 0, x1 > 0);
    run_block(&block, w1 > 0, x1 > 0);
}

static inline lc_v v_swiglu(lc_v gate, lc_v up);

/* A group of n step rows: 16 columns of results become 16 k of hidden rows. */
static void write_hidden(const lc_gated *g, const float *gate, const float *up, size_t row,
                         size_t n, size_t column) {
    uint32_t *words = (uint32_t *)g->hidden + row * g->width / 2 + (g->column + column) / 2 * n;
    for (size_t pair = 0; pair < TILE / 2; pair++, gate += 2 * TILE, up += 2 * TILE) {
        __m512i pairs = join_pairs(v_swiglu(v_load(gate), v_load(up)),
                                   v_swiglu(v_load(gate + TILE), v_load(up + TILE)));
        _mm512_mask_storeu_epi32(words + pair * n, lanes_of(n), pairs);
    }
}

/* 16 gate rows and 16 up rows against a pair of groups. */
static void gated_groups(const lc_gated *g, const nk_rows *w, size_t row, const char *next,
                         tile_config *config) {
    const lc_product *p = &g->gate;
    size_t x0 = at_most(p->rows - row, TILE), x1 = at_most(p->rows - row - x0, TILE);
    float *c = p->scratch;
    multiply_pair(p, w, row, NULL, 0, next, config);
    store_results(c, true, x1 > 0);
    write_hidden(g, c, c + 512, row, x0, w->column);
    if (x1) write_hidden(g, c + 256, c + 768, row + TILE, x1, w->column);
}

/* Weight rows against a pair of groups, to c. */
static void plain_groups(const lc_product *p, const nk_rows *w, size_t row, const char *next,
                         tile_config *config) {
    size_t w0 = at_most(w->n, TILE), w1 = w->n - w0;
    size_t x0 = at_most(p->rows - row, TILE), x1 = at_most(p->rows - row - x0, TILE);
    float *out = p->c + row * p->ldc + w->column, *c = p->scratch;
    multiply_pair(p, w, row, out, p->ldc, next, config);
    store_results(c, w1 > 0, x1 > 0);
    write_tile(out, p->ldc, c, x0, w0);
    if (x1) write_tile(out + TILE * p->ldc, p->ldc, c + 256, x1, w0);
    if (w1) write_tile(out + TILE, p->ldc, c + 512, x0, w1);
    if (w1 && x1) write_tile(out + TILE * p->ldc + TILE, p->ldc, c + 768, x1, w1);
}

static nk_rows rows_in_place(const lc_product *p, size_t column) {
    const uint16_t *w = (const uint16_t *)p->right + column * p->ld;
    return (nk_rows){.w = {w, w + TILE * p->ld},
                     .n = at_most(p->columns - column, 2 * TILE),
                     .ld = p->ld,
                     .step = LC_K_BLOCK,
                     .column = column};
}

/* What amx_multiply_nk and amx_multiply_gated go through: weight rows, 32 at a time, and what
 * becomes of their products. */
typedef struct nk_task {
    const lc_product *p;
    const lc_gated *g; /* NULL: rows of p, to its c */
} nk_task;

static size_t columns_of_pair(const nk_task *t) { return t->g ? TILE : 2 * TILE; }

static nk_rows rows_of_pair(const nk_task *t, size_t column) {
    nk_rows rows = rows_in_place(t->p, column);
    if (!t->g) return rows;
    rows.w[1] = (const uint16_t *)t->g->up + column * t->p->ld;
    rows.n = 2 * TILE;
    return rows;
}

static void pair_of_groups(const nk_task *t, const nk_rows *w, size_t row, const char *next,
                           tile_config *config) {
    if (t->g)
        gated_groups(t->g, w, row, next, config);
    else
        plain_groups(t->p, w, row, next, config);
}

/* The same rows as whole tiles, [block of k][16 rows][32], 16 rows after 16. */
static nk_rows copy_rows(nk_rows in, size_t k, uint16_t *copy) {
    nk_rows out = in;
    out.ld = LC_K_BLOCK;
    out.step = TILE * LC_K_BLOCK;
    for (size_t i = 0; i < 2; i++) out.w[i] = copy + i * TILE * k;
    for (size_t r = 0; r < in.n; r++) {
        const uint16_t *from = in.w[r / TILE] + r % TILE * in.ld;
        uint16_t *to = copy + r / TILE * TILE * k + r % TILE * LC_K_BLOCK;
        for (size_t b = 0; b < k / LC_K_BLOCK; b++)
            _mm512_storeu_si512(to + b * out.step, _mm512_loadu_si512(from + b * LC_K_BLOCK));
    }
    return out;
}

/* Pairs of weight tiles whose copies stay in the second cache. */
static size_t copied_pairs(size_t k) {
    size_t n = COPIED / (lc_pad_k(k) * 2 * TILE);
    return n < 1 ? 1 : at_most(n, COPIED_PAIRS);
}

static void multiply_copied(const nk_task *t, tile_config *config) {
    const lc_product *p = t->p;
    size_t k = lc_pad_k(p->k), most = copied_pairs(p->k);
    uint16_t *copies = (uint16_t *)((float *)p->scratch + C_GROUP);
    for (size_t column = 0; column < p->columns;) {
        nk_rows w[COPIED_PAIRS];
        size_t n = 0;
        for (; n < most && column < p->columns; n++, column += columns_of_pair(t))
            w[n] = copy_rows(rows_of_pair(t, column), k, copies + n * 2 * TILE * k);
        finish_stores();
        for (size_t row = 0; row < p->rows; row += 2 * TILE) {
            const char *next = (const char *)p->left + (row + 2 * TILE) * k * sizeof *copies;
            size_t lines = row + 4 * TILE <= p->rows ? k : 0;
            for (size_t i = 0; i < n; i++) {
                size_t begin = i * k / LC_K_BLOCK * NEXT;
                pair_of_groups(t, &w[i], row, begin < lines ? next + begin * 64 : NULL, config);
            }
        }
    }
}

static void multiply_nk_task(const nk_task *t) {
    tile_config config = {0};
    finish_stores();
    if (t->p->rows >= COPIED_ROWS) {
        multiply_copied(t, &config);
    } else {
        for (size_t column = 0; column < t->p->columns; column += columns_of_pair(t)) {
            nk_rows w = rows_of_pair(t, column);
            for (size_t row = 0; row < t->p->rows; row += 2 * TILE)
                pair_of_groups(t, &w, row, NULL, &config);
        }
    }
    _tile_release();
}

static void amx_multiply_nk(const lc_product *p) { multiply_nk_task(&(nk_task){p, NULL}); }
static void amx_multiply_gated(const lc_gated *g) { multiply_nk_task(&(nk_task){&g->gate, g}); }

/* Results stay as the tiles have them. */
static void amx_multiply_turned(const lc_product *p) {
    tile_config config = {0};
    finish_stores();
    for (size_t row = 0; row < p->rows; row += 2 * TILE)
        for (size_t column = 0; column < p->columns; column += 2 * TILE) {
            nk_rows w = rows_in_place(p, column);
            bool two_w = w.n > TILE, two_x = p->rows - row > TILE;
            float *first = p->c + row * p->columns + column * TILE,
                  *second = first + TILE * p->columns;
            multiply_pair(p, &w, row, first, 2 * TILE, NULL, &config);
            _tile_stored(0, first, 64);
            if (two_x) _tile_stored(1, second, 64);
            if (two_w) _tile_stored(2, first + TILE * TILE, 64);
            if (two_w && two_x) _tile_stored(3, second + TILE * TILE, 64);
        }
    _tile_release();
}

/* ---- kn ---- */

enum {
    JOINED = 4,  /* products whose sums join c together */
    PANELS = 16, /* of interleaved right rows; rows of c are written as far as these go */
};

/* Tiles 0-3 where they lie in the result. */
static inline void store_results_at(float *c, size_t ldc, bool two_rows, bool two_columns) {
    size_t bytes = ldc * sizeof *c;
    _tile_stored(0, c, bytes);
    if (two_columns) _tile_stored(1, c + TILE, bytes);
    if (two_rows) _tile_stored(2, c + TILE * ldc, bytes);
    if (two_rows && two_columns) _tile_stored(3, c + TILE * ldc + TILE, bytes);
}

#include "kernels/amx/packed.h"

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
static void kn_tile(const lc_product *p, const uint32_t *panel, size_t row, bool two_columns,
                    float *c, size_t ldc) {
    size_t k = lc_pad_k(p->k), n0 = at_most(p->rows - row, TILE);
    size_t n1 = at_most(p->rows - row - n0, TILE);
    const uint32_t *left = (const uint32_t *)p->left + row * k / 2, *second = left + TILE * k / 2;
    bool two_rows = n1 > 0;
    finish_stores();
    zero_results(two_rows, two_columns);
    for (size_t b = 0; b < k / LC_K_BLOCK; b++) {
        const uint32_t *right = panel + b * PAIRS * 2 * TILE;
        _tile_loadd(4, left + b * n0 * PAIRS, 64);
        _tile_loadd(6, right, 2 * TILE * sizeof *right);
        _tile_dpbf16ps(0, 4, 6);
        if (two_columns) {
            _tile_loadd(7, right + TILE, 2 * TILE * sizeof *right);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (!two_rows) continue;
        _tile_loadd(5, second + b * n1 * PAIRS, 64);
        _tile_dpbf16ps(2, 5, 6);
        if (two_columns) _tile_dpbf16ps(3, 5, 7);
    }
    store_results_at(c, ldc, two_rows, two_columns);
}

/* 32 x 32 results of n products, of which `rows` x `columns` count, join c in turn. n is a constant
 * in one of the calls. */
LC_INLINE void join_some(const lc_product *const p[JOINED], const size_t n, const float *products,
                         size_t row, size_t rows, size_t column, size_t columns) {
    __mmask16 low = lanes_of(columns), high = columns > TILE ? lanes_of(columns - TILE) : 0;
    for (size_t i = 0; i < rows; i++, products += SIDE) {
        float *c = p[0]->c + (row + i) * p[0]->ldc + column;
        __m512 a = _mm512_maskz_loadu_ps(low, c), b = _mm512_maskz_loadu_ps(high, c + TILE);
        for (size_t j = 0; j < n; j++) {
            const float *product = products + j * SIDE * SIDE;
            if (p[j]->decay[row + i] < 0.0f) continue;
            __m512 d = _mm512_set1_ps(p[j]->decay[row + i]);
            a = _mm512_fmadd_ps(a, d, _mm512_loadu_ps(product));
            b = _mm512_fmadd_ps(b, d, _mm512_loadu_ps(product + TILE));
        }
        _mm512_mask_storeu_ps(c, low, a);
        _mm512_mask_storeu_ps(c + TILE, high, b);
    }
}

static size_t interleaved_floats(size_t k) { return lc_pad_k(k) * TILE; }

static void configure_kn(size_t rows, size_t columns, tile_config *config) {
    size_t x = at_most(rows, TILE), w = at_most(columns, TILE);
    configure(config, x, rows - x, w, columns - w, K_BYTES);
}

static void multiply_joined(const lc_product *const p[JOINED], size_t n, tile_config *config) {
    size_t rows = p[0]->rows, columns = p[0]->columns, panel = interleaved_floats(p[0]->k);
    uint32_t *panels = p[0]->scratch;
    float *products = (float *)p[0]->scratch + PANELS * panel;
    for (size_t column = 0; column < columns; column += SIDE) {
        size_t w = at_most(columns - column, SIDE);
        for (size_t j = 0; j < n; j++) interleave(p[j], column, w, panels + j * panel);
        for (size_t row = 0; row < rows; row += SIDE) {
            configure_kn(at_most(rows - row, SIDE), w, config);
            for (size_t j = 0; j < n; j++)
                kn_tile(p[j], panels + j * panel, row, w > TILE, products + j * SIDE * SIDE, SIDE);
            if (n == JOINED)
                join_some(p, JOINED, products, row, at_most(rows - row, SIDE), column, w);
            else
                join_some(p, n, products, row, at_most(rows - row, SIDE), column, w);
        }
    }
}

static void multiply_plain(const lc_product *p, tile_config *config) {
    size_t panel = interleaved_floats(p->k);
    uint32_t *panels = p->scratch;
    for (size_t first = 0; first < p->columns; first += PANELS * SIDE) {
        size_t end = at_most(p->columns, first + PANELS * SIDE);
        for (size_t at = first; at < end; at += SIDE)
            interleave(p, at, at_most(end - at, SIDE), panels + (at - first) / SIDE * panel);
        for (size_t row = 0; row < p->rows; row += SIDE)
            for (size_t at = first; at < end; at += SIDE) {
                configure_kn(at_most(p->rows - row, SIDE), at_most(end - at, SIDE), config);
                kn_tile(p, panels + (at - first) / SIDE * panel, row, end - at > TILE,
                        p->c + row * p->ldc + at, p->ldc);
            }
    }
}

static void amx_multiply_kn(const lc_product *p) {
    tile_config config = {0};
    if (!p->decay) multiply_plain(p, &config);
    while (p && p->decay) {
        const lc_product *joined[JOINED];
        size_t n = 0;
        for (; p && n < JOINED; p = p->then) joined[n++] = p;
        multiply_joined(joined, n, &config);
    }
    _tile_release();
}

static size_t amx_scratch(size_t rows, size_t k) {
    size_t nk = C_GROUP * sizeof(float),
           kn = (PANELS * interleaved_floats(k) + JOINED * SIDE * SIDE) * sizeof(float);
    if (rows >= COPIED_ROWS) nk += copied_pairs(k) * 2 * TILE * lc_pad_k(k) * sizeof(uint16_t);
    if (packed_scratch(rows) > nk) nk = packed_scratch(rows);
    return nk > kn ? nk : kn;
}

extern const lc_kernels lc_kernels_amx;
#define LC_KERNELS_TABLE lc_kernels_amx
#define LC_KERNELS_ISA LC_ISA_AMX
#define LC_KERNELS_BF16_PATH                                                                       \
    {                                                                                              \
        .name = "tdpbf16ps", .element = sizeof(uint16_t), .left = sizeof(uint16_t),                \
        .right = sizeof(uint16_t), .panel = SIDE, .wide = WIDE, .scratch_bytes = amx_scratch,      \
        .pack_nk = pack_step_rows, .pack_kn = pack_rows, .multiply_nk = amx_multiply_nk,           \
        .multiply_kn = amx_multiply_kn, .multiply_turned = amx_multiply_turned,                    \
        .multiply_gated = amx_multiply_gated, .pack_turned = pack_turned,                          \
        .pack_right = amx_pack_right, .multiply = amx_multiply                                     \
    }
#include "kernels/kernels.inc"
