/*
 * few.h (AVX512-BF16): nk products of a few left rows. Panels in memory would cost more than they
 * give, so a block of k of 16 weight rows is turned in registers and used there.
 *
 * The 16 rows are not neighbours: each begins a part of the product's rows, and a part is read from
 * its beginning to its end, so that memory sees 16 long streams. Parts have an odd
 * number of rows: streams an even number of rows apart often meet in one set of the first cache.
 */
#ifndef LC_KERNELS_AVX512BF16_FEW_H
#define LC_KERNELS_AVX512BF16_FEW_H

#define BF_FEW_ROWS 8 /* left rows up to which this pays */

enum {
    PART_ROWS = 5,    /* most weight rows of a part */
    PART_AHEAD = 1024 /* k of a part that are fetched ahead, to the second cache */
};

/* A block of k of 16 weight rows as words in chain order. */
LC_INLINE void words_of_rows(const uint16_t *from, size_t stride, __m512i word[16]) {
    const __m512i order = chain_order();
    for (size_t i = 0; i < 16; i++) {
        __builtin_prefetch(from + i * stride + PART_AHEAD, 0, 2);
        word[i] = _mm512_permutexvar_epi16(order, _mm512_loadu_si512(from + i * stride));
    }
    transpose_16x16(word);
}

/* 16 columns from `column` on, `spread` apart. `rows` is a constant in every call. */
LC_INLINE void few_strip(const lc_product *p, size_t column, size_t spread, const int rows) {
    const uint32_t *left = p->left;
    const uint16_t *right = (const uint16_t *)p->right + column * p->ld;
    size_t k = lc_pad_k(p->k);
    __m512 acc[BF_FEW_ROWS];
    LC_EACH_ROW acc[r] = _mm512_setzero_ps();
    for (size_t b = 0; b < k; b += LC_K_BLOCK, left += (size_t)rows * BF_WORDS) {
        __m512i word[BF_WORDS];
        words_of_rows(right + b, p->ld * spread, word);
        LC_EACH_ROW {
            const uint32_t *x = left + (size_t)r * BF_WORDS;
            __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
#pragma GCC unroll 8
            for (int w = 0; w < 8; w++) {
                even = dot(even, x + w, word[w]);
                odd = dot(odd, x + w + 8, word[w + 8]);
            }
            acc[r] = _mm512_add_ps(acc[r], _mm512_add_ps(even, odd));
        }
    }
    for (int r = 0; r < rows; r++) {
        float lane[16], *c = p->c + (size_t)r * p->ldc + column;
        v_store(lane, acc[r]);
        for (size_t i = 0; i < 16; i++) c[i * spread] = lane[i];
    }
}

/* The switch makes `rows` a constant. */
static void few_rows(const lc_product *p, size_t column, size_t spread) {
    switch (p->rows) {
    case 1: few_strip(p, column, spread, 1); break;
    case 2: few_strip(p, column, spread, 2); break;
    case 3: few_strip(p, column, spread, 3); break;
    case 4: few_strip(p, column, spread, 4); break;
    case 5: few_strip(p, column, spread, 5); break;
    case 6: few_strip(p, column, spread, 6); break;
    case 7: few_strip(p, column, spread, 7); break;
    case 8: few_strip(p, column, spread, 8); break;
    }
}

/* Whole strips; returns the columns that are done. */
static size_t few_columns(const lc_product *p) {
    size_t column = 0;
    for (size_t parts = p->columns / 16; parts; parts = (p->columns - column) / 16) {
        size_t spread = parts < PART_ROWS ? parts : PART_ROWS;
        for (size_t i = 0; i < spread; i++) few_rows(p, column + i, spread);
        column += 16 * spread;
    }
    return column;
}

#endif
