/*
 * turned.h (AVX512-BF16): nk products whose left rows are lanes: those are turned once, when they
 * are packed, and right rows are only put in chain order. Attention has the same queries for many
 * keys.
 */
#ifndef LC_KERNELS_AVX512BF16_TURNED_H
#define LC_KERNELS_AVX512BF16_TURNED_H

/* 16 rows after 16: [block][word][16 rows]. */
static void pack_lanes(size_t rows, size_t k, const float *x, size_t ldx, void *out) {
    __m512i order = chain_order();
    uint32_t *y = out;
    for (size_t first = 0; first < rows; first += 16)
        for (size_t b = 0; b < k; b += LC_K_BLOCK, y += BF_WORDS * 16) {
            __m512i word[16];
            for (size_t i = 0; i < 16; i++) {
                word[i] = _mm512_setzero_si512();
                if (first + i >= rows) continue;
                size_t n = k - b < LC_K_BLOCK ? k - b : LC_K_BLOCK;
                word[i] = _mm512_permutexvar_epi16(order, round_32(x + (first + i) * ldx + b, n));
            }
            transpose_16x16(word);
            for (size_t w = 0; w < BF_WORDS; w++) _mm512_storeu_si512(y + w * 16, word[w]);
        }
}

/* n right rows as pack_left packs left ones. */
static void right_rows_in_order(const lc_product *p, size_t first, size_t n, uint32_t *out) {
    __m512i order = chain_order();
    const uint16_t *right = (const uint16_t *)p->right + first * p->ld;
    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < p->k; b += LC_K_BLOCK, out += BF_WORDS) {
            __m512i v = _mm512_loadu_si512(right + i * p->ld + b);
            _mm512_storeu_si512(out, _mm512_permutexvar_epi16(order, v));
        }
}

static void bf_multiply_turned(const lc_product *p) {
    size_t k = lc_pad_k(p->k);
    bf_chunk all = {0, k};
    for (size_t first = 0; first < p->columns; first += BF_COLUMNS) {
        size_t n = p->columns - first < BF_COLUMNS ? p->columns - first : BF_COLUMNS;
        right_rows_in_order(p, first, n, p->scratch);
        for (size_t row = 0; row < p->rows; row += 32) {
            const uint32_t *words = (const uint32_t *)p->left + row * k / 2;
            size_t lanes = p->rows - row > 16 ? 32 : 16, i = 0;
            const bf_lanes at = {16, lanes > 16 ? 16 * k / 2 : 0, 16 * p->columns};
            lc_product q = {.rows = n,
                            .k = p->k,
                            .left = p->scratch,
                            .c = p->c + row * p->columns + first * 16,
                            .ldc = 16};
            for (; i + BF_ROWS <= n; i += BF_ROWS)
                bf_multiply_rows(&q, i, BF_ROWS, words, at, 0, lanes, all);
            for (; i < n; i++) bf_multiply_rows(&q, i, 1, words, at, 0, lanes, all);
        }
    }
}

#endif
