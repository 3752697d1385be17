/*
 * straight.h (AVX512-BF16): products with weights in strips, which are read from end to end. Words
 * of two neighbouring k become those of the two chains by two shuffles, in registers; with many
 * left rows the first ones keep them for the others, so that weights come from memory while
 * something is computed.
 */
#ifndef LC_KERNELS_AVX512BF16_STRAIGHT_H
#define LC_KERNELS_AVX512BF16_STRAIGHT_H

#define BF_STRAIGHT straight_columns

enum {
    KEPT_ROWS = LC_FEW_ROWS, /* left rows beyond which words are kept */
    /* The processor follows one stream by itself while little is computed between two lines; with
     * this many rows it doesn't reach across pages any more (as in strips.inc). */
    AHEAD_ROWS = 5,
    STRIP_AHEAD = 8192 /* halves: 16 KB */
};

/* Indices of vpermt2w: of the even and of the odd k of two words. */
typedef struct chain_words {
    __m512i even, odd;
} chain_words;

static inline chain_words chains_of_pairs(void) {
    uint16_t even[32], odd[32];
    for (uint16_t i = 0; i < 16; i++) { /* the second word's k in the even slot, see chain_order */
        even[2 * i] = (uint16_t)(32 + 2 * i);
        even[2 * i + 1] = (uint16_t)(2 * i);
        odd[2 * i] = (uint16_t)(33 + 2 * i);
        odd[2 * i + 1] = (uint16_t)(2 * i + 1);
    }
    return (chain_words){_mm512_loadu_si512(even), _mm512_loadu_si512(odd)};
}

static inline const uint16_t *strip_at(const lc_product *p, size_t column) {
    return (const uint16_t *)p->right + column * lc_pad_k(p->k);
}

/* A bf_tile. */
LC_INLINE void straight_strip(const lc_product *p, size_t row, const int rows, size_t column,
                              uint32_t *panel) {
    const chain_words order = chains_of_pairs();
    const uint16_t *from = strip_at(p, column);
    bf_left left = left_from(p, row);
    __mmask16 lanes = p->columns - column >= 16 ? 0xffff : first_lanes(p->columns - column);
    bf_sums acc;
    LC_EACH_ROW acc[r] = _mm512_setzero_ps();
    for (size_t b = 0; b < p->k; b += LC_K_BLOCK, left.words += left.step) {
        bf_sums even, odd;
        LC_EACH_ROW even[r] = odd[r] = _mm512_setzero_ps();
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; j++, from += 64) {
            if (rows >= AHEAD_ROWS) {
                __builtin_prefetch(from + STRIP_AHEAD, 0, 2);
                __builtin_prefetch(from + STRIP_AHEAD + 32, 0, 2);
            }
            __m512i first = _mm512_loadu_si512(from), second = _mm512_loadu_si512(from + 32);
            __m512i low = _mm512_permutex2var_epi16(first, order.even, second);
            __m512i high = _mm512_permutex2var_epi16(first, order.odd, second);
            if (panel) {
                _mm512_storeu_si512(panel + (b / 2 + j) * BF_COLUMNS, low);
                _mm512_storeu_si512(panel + (b / 2 + 8 + j) * BF_COLUMNS, high);
            }
            LC_EACH_ROW {
                const uint32_t *x = left.words + (size_t)r * BF_WORDS + j;
                even[r] = dot(even[r], x, low);
                odd[r] = dot(odd[r], x + 8, high);
            }
        }
        LC_EACH_ROW acc[r] = _mm512_add_ps(acc[r], _mm512_add_ps(even[r], odd[r]));
    }
    LC_EACH_ROW _mm512_mask_storeu_ps(p->c + (row + (size_t)r) * p->ldc + column, lanes, acc[r]);
}

static void straight_columns(const lc_product *p) {
    for (size_t column = 0; column < p->columns; column += BF_COLUMNS)
        run_strip(straight_strip, p, column, KEPT_ROWS);
}

#endif
