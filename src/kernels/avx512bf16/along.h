/*
 * along.h (AVX512-BF16): kn products. 16 columns of two right rows become words by one shuffle, in
 * registers, chain after chain; with many left rows the first ones keep the words for the others.
 */
#ifndef LC_KERNELS_AVX512BF16_ALONG_H
#define LC_KERNELS_AVX512BF16_ALONG_H

#define BF_ALONG

enum { REMADE_ROWS = 2 * BF_ROWS /* left rows up to which making words again is cheaper */ };

static inline __m512i load_columns(const uint16_t *from) {
    return _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)from));
}

/* A chain of a block: words of every other right row, the first at `from`. They are kept in
 * the panel, as bf_tile says. */
LC_INLINE void along_chain(const uint16_t *from, size_t ld, const uint32_t *left, const int rows,
                           uint32_t *panel, bf_sums sum) {
    LC_EACH_ROW sum[r] = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; j++, from += 4 * ld) {
        __asm__("" : "+r"(from)); /* or gcc keeps an address of each row, on the stack */
        __m512i word = slots_of_rows(load_columns(from + 2 * ld), load_columns(from));
        if (panel) _mm512_storeu_si512(panel + j * BF_COLUMNS, word);
        LC_EACH_ROW sum[r] = dot(sum[r], left + (size_t)r * BF_WORDS + j, word);
    }
}

/* A bf_tile. */
LC_INLINE void along_tile(const lc_product *p, size_t row, const int rows, size_t column,
                          uint32_t *panel) {
    const uint16_t *from = (const uint16_t *)p->right + column;
    bf_left left = left_from(p, row);
    bf_sums acc, even, odd;
    LC_EACH_ROW acc[r] = _mm512_setzero_ps();
    for (size_t k = 0; k < p->k; k += LC_K_BLOCK, left.words += left.step) {
        uint32_t *words = panel ? panel + k / 2 * BF_COLUMNS : NULL;
        uint32_t *second = panel ? words + BF_WORDS / 2 * BF_COLUMNS : NULL;
        along_chain(from + k * p->ld, p->ld, left.words, rows, words, even);
        along_chain(from + (k + 1) * p->ld, p->ld, left.words + BF_WORDS / 2, rows, second, odd);
        LC_EACH_ROW acc[r] = _mm512_add_ps(acc[r], _mm512_add_ps(even[r], odd[r]));
    }
    LC_EACH_ROW bf_store(p, row + (size_t)r, column, 0xffff, acc[r]);
}

/* Whole strips of columns, if k is whole blocks; returns the columns that are done. */
static size_t along_columns(const lc_product *p) {
    size_t column = 0;
    if (p->k % LC_K_BLOCK) return 0;
    for (; column + BF_COLUMNS <= p->columns; column += BF_COLUMNS)
        run_strip(along_tile, p, column, REMADE_ROWS);
    return column;
}

#endif
