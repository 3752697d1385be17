/*
 * turned.h (AVX512-BF16): nk products whose left rows are lanes: those are turned once, when they
 * are packed, and right rows are only put in chain order. Attention has the same queries for many
 * keys. And left rows from such results.
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

/* n right rows as pack_left packs left ones. The next n are fetched. */
static void right_rows_in_order(const lc_product *p, size_t first, size_t n, uint32_t *out) {
    __m512i order = chain_order();
    const uint16_t *right = (const uint16_t *)p->right + first * p->ld;
    for (size_t i = 0; i < n; i++, right += p->ld)
        for (size_t b = 0; b < p->k; b += LC_K_BLOCK, out += BF_WORDS) {
            __builtin_prefetch(right + n * p->ld + b, 0, 2);
            __m512i v = _mm512_loadu_si512(right + b);
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

/* BF16 values of high in the upper halves, of low in the lower ones. */
static inline __m512i pair_of(__m512 high, __m512 low) {
    __m512i h = _mm512_castps_si512(v_bf16(high)), l = _mm512_castps_si512(v_bf16(low));
    return _mm512_or_si512(h, _mm512_srli_epi32(l, 16));
}

/* n <= 16 rows from row `first` on, a block of k: 16 words a row, 16 rows a register, turned. */
static void turn_block(const lc_turned *t, size_t first, size_t n, size_t b, uint32_t *out) {
    __m512i word[16];
    for (size_t w = 0; w < BF_WORDS; w++) {
        size_t k = b + 4 * (w % 8) + w / 8; /* of the upper half; the lower one has k + 2 */
        const float *x = t->x + k * t->ldx + first;
        __m512 high = k < t->k ? v_load_n(x, n) : v_zero();
        __m512 low = k + 2 < t->k ? v_load_n(x + 2 * t->ldx, n) : v_zero();
        word[w] = pair_of(high, low);
    }
    transpose_16x16(word);
    for (size_t i = 0; i < n; i++) _mm512_storeu_si512(out + i * lc_pad_k(t->k) / 2, word[i]);
}

#define BF_PACK_TURNED
static void bf_pack_turned(const lc_turned *t, void *out) {
    for (size_t first = 0; first < t->rows; first += 16) {
        size_t n = t->rows - first < 16 ? t->rows - first : 16;
        for (size_t b = t->begin; b < t->end; b += LC_K_BLOCK)
            turn_block(t, first, n, b, (uint32_t *)out + (first * lc_pad_k(t->k) + b) / 2);
    }
}

#endif
