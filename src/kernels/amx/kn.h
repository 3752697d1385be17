/*
 * kn.h (AMX): products that run along right rows (kn), in their natural orientation; pairs of right
 * rows are interleaved into tiles. Products that join c (decay) do so some at a time.
 */
#ifndef LC_KERNELS_AMX_KN_H
#define LC_KERNELS_AMX_KN_H

enum {
    JOINED = 4,  /* products whose sums join c together */
    PANELS = 16, /* of interleaved right rows; rows of c are written as far as these go */
};

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

#endif
