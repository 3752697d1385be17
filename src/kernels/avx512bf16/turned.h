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

/* Right rows on their way to chain order: [block][row][word]. */
typedef struct bf_ordering {
    const uint16_t *from;
    size_t ld;
    uint32_t *out;
    const uint16_t *ahead; /* what will be wanted after them */
} bf_ordering;

/* Block b of n rows. */
LC_INLINE void order_block(const bf_ordering *o, size_t b, const size_t n) {
    for (size_t i = 0; i < n; i++) {
        __m512i v = _mm512_loadu_si512(o->from + i * o->ld + b);
        __builtin_prefetch(o->ahead + i * o->ld + b, 0, 2);
        v = _mm512_permutexvar_epi16(chain_order(), v);
        _mm512_storeu_si512(o->out + (n * b / LC_K_BLOCK + i) * BF_WORDS, v);
    }
}

/* `rows` right rows in chain order, of n that lie together, times 16 lanes; c [rows][16]. Between
 * its blocks BF_ROWS others are put in order, if any: alone that would wait for memory. */
LC_INLINE void turned_tile(const uint32_t *right, const size_t n, const uint32_t *words, size_t k,
                           const int rows, const bf_ordering *others, float *c) {
    bf_sums acc;
    LC_EACH_ROW acc[r] = _mm512_setzero_ps();
    for (size_t b = 0; b < k; b += LC_K_BLOCK, right += n * BF_WORDS, words += BF_WORDS * 16) {
        if (others) order_block(others, b, BF_ROWS);
        bf_block(right, words, rows, acc);
    }
    LC_EACH_ROW _mm512_storeu_ps(c + (size_t)r * 16, acc[r]);
}

/* Up to BF_ORDERED right rows of one of several products. */
typedef struct bf_window {
    const lc_product *p;
    size_t first, n;
} bf_window;

static bf_window window_at(const lc_product *p, size_t first) {
    if (p && first >= p->columns) p = p->then, first = 0;
    size_t n = !p ? 0 : p->columns - first < BF_ORDERED ? p->columns - first : BF_ORDERED;
    return (bf_window){p, first, n};
}

static const uint16_t *window_row(const bf_window *w, size_t i) {
    return (const uint16_t *)w->p->right + (w->first + i) * w->p->ld;
}

/* How rows i .. of a window are put in order, and what lies there in the one behind it. */
static bf_ordering ordering_of(const bf_window *w, const bf_window *behind, size_t i, size_t k,
                               uint32_t *out) {
    const uint16_t *from = window_row(w, i);
    const uint16_t *ahead = i + BF_ROWS <= behind->n ? window_row(behind, i) : from;
    return (bf_ordering){from, w->p->ld, out + i * k / 2, ahead};
}

/* Those from row `i` on, which no tile has done. */
static void order_rest(const bf_window *w, const bf_window *behind, size_t i, size_t k,
                       uint32_t *out) {
    for (; i < w->n; i += BF_ROWS) {
        bf_ordering o = ordering_of(w, behind, i, k, out);
        size_t n = w->n - i < BF_ROWS ? w->n - i : BF_ROWS;
        for (size_t b = 0; b < k; b += LC_K_BLOCK) order_block(&o, b, n);
    }
}

static void bf_multiply_turned(const lc_product *p) {
    size_t k = lc_pad_k(p->k);
    uint32_t *ordered = p->scratch, *other = ordered + BF_ORDERED * k / 2;
    bf_window w = window_at(p, 0), next = window_at(p, w.n);
    order_rest(&w, &next, 0, k, ordered);
    while (w.p) {
        bf_window behind = window_at(next.p, next.first + next.n);
        size_t whole = w.n / BF_ROWS * BF_ROWS, done = next.n < w.n ? next.n : w.n;
        done = done / BF_ROWS * BF_ROWS;
        for (size_t row = 0; row < p->rows; row += 16) {
            const uint32_t *words = (const uint32_t *)p->left + row * k / 2;
            float *c = w.p->c + row * w.p->columns + w.first * 16;
            for (size_t i = 0; i < whole; i += BF_ROWS)
                if (row == 0 && i < done) {
                    bf_ordering o = ordering_of(&next, &behind, i, k, other);
                    turned_tile(ordered + i * k / 2, BF_ROWS, words, k, BF_ROWS, &o, c + i * 16);
                } else {
                    turned_tile(ordered + i * k / 2, BF_ROWS, words, k, BF_ROWS, NULL, c + i * 16);
                }
            for (size_t i = whole; i < w.n; i++)
                turned_tile(ordered + whole * k / 2 + (i - whole) * BF_WORDS, w.n - whole, words, k,
                            1, NULL, c + i * 16);
        }
        order_rest(&next, &behind, done, k, other);
        uint32_t *swap = ordered;
        ordered = other;
        other = swap;
        w = next;
        next = behind;
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
    for (size_t i = 0; i < n; i++) _mm512_storeu_si512(out + i * BF_WORDS, word[i]);
}

#define BF_PACK_TURNED
static void bf_pack_turned(const lc_turned *t, void *out) {
    for (size_t first = 0; first < t->rows; first += 16) {
        size_t n = t->rows - first < 16 ? t->rows - first : 16;
        for (size_t b = t->begin; b < t->end; b += LC_K_BLOCK)
            turn_block(t, first, n, b, (uint32_t *)out + (first * lc_pad_k(t->k) + n * b) / 2);
    }
}

#endif
