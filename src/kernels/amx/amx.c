/*
 * amx.c: BF16 products with tdpbf16ps, which has the order of numerics.md 1 in hardware; the rest
 * is AVX-512.
 *
 * nk products compute the transposed result: weight rows are the left tile. With few step rows they
 * are read where they lie, 32 at a time, side by side: streams that the hardware fetches ahead.
 * With many, as many as fit into the second cache are copied into whole tiles first, whose rows
 * don't compete for places of the first cache, and all step rows pass them, the next ones fetched
 * meanwhile. The step's rows are the right tile: 16 rows are packed as [block][pair of k][row][2].
 * A group's tiles are as wide as the group, so a single row costs a single column. Results are
 * turned on their way to c, stay as they are (turned), or, where a weight tile is of gate rows and
 * the other of up rows, become the next product's step rows (gated).
 *
 * Products along right rows are kn.h, those whose right side is packed once for many uses packed.h.
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
static void turned_product(const lc_product *p, tile_config *config) {
    for (size_t row = 0; row < p->rows; row += 2 * TILE)
        for (size_t column = 0; column < p->columns; column += 2 * TILE) {
            nk_rows w = rows_in_place(p, column);
            bool two_w = w.n > TILE, two_x = p->rows - row > TILE;
            float *first = p->c + row * p->columns + column * TILE,
                  *second = first + TILE * p->columns;
            multiply_pair(p, &w, row, first, 2 * TILE, NULL, config);
            _tile_stored(0, first, 64);
            if (two_x) _tile_stored(1, second, 64);
            if (two_w) _tile_stored(2, first + TILE * TILE, 64);
            if (two_w && two_x) _tile_stored(3, second + TILE * TILE, 64);
        }
}

static void amx_multiply_turned(const lc_product *p) {
    tile_config config = {0};
    finish_stores();
    for (; p; p = p->then) turned_product(p, &config);
    _tile_release();
}

/* Tiles 0-3 where they lie in the result. */
static inline void store_results_at(float *c, size_t ldc, bool two_rows, bool two_columns) {
    size_t bytes = ldc * sizeof *c;
    _tile_stored(0, c, bytes);
    if (two_columns) _tile_stored(1, c + TILE, bytes);
    if (two_rows) _tile_stored(2, c + TILE * ldc, bytes);
    if (two_rows && two_columns) _tile_stored(3, c + TILE * ldc + TILE, bytes);
}

#include "kernels/amx/packed.h"

#include "kernels/amx/kn.h"

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
        .right = sizeof(uint16_t), .panel = SIDE, .few = SIDE, .wide = WIDE,                       \
        .scratch_bytes = amx_scratch, .pack_lanes = pack_step_rows, .pack_nk = pack_step_rows,     \
        .pack_kn = pack_rows, .multiply_nk = amx_multiply_nk, .multiply_kn = amx_multiply_kn,      \
        .multiply_turned = amx_multiply_turned, .multiply_gated = amx_multiply_gated,              \
        .pack_turned = pack_turned, .pack_right = amx_pack_right, .multiply = amx_multiply,        \
        .multiply_strips = amx_multiply_strips                                                     \
    }
#include "kernels/kernels.inc"
