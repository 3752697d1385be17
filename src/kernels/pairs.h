/*
 * pairs.h: dot products of instruction sets that have none of bytes in 32 bits; between
 * <isa>/words.h and coded.inc, which says what they are for. Codes of 4 bits by vpmaddubsw, whose
 * sums of neighbours in 16 bits are added up there; bytes, as halves that left values are packed
 * as, by vpmaddwd: 0 and 2 of a word, then 1 and 3. Nothing saturates.
 *
 * words.h supplies w_set_q (a word of q everywhere), w_madd_halves, w_madd and w_maddubs (which add
 * products of halves up, add them to words, those of bytes to halves), w_mul_halves, w_odd_bytes
 * (as halves) and w_store_pairs.
 */
#ifndef LC_KERNELS_PAIRS_H
#define LC_KERNELS_PAIRS_H

#define LC_CODED_PAIRS

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    acc = w_madd(acc, w_and(codes, w_set(0x00ff00ff)), w_set_q(q));
    return w_madd(acc, w_odd_bytes(codes), w_set_q(q + 4));
}

static inline lc_w w_pairs(lc_w acc, lc_w codes, const char *q) {
    return w_maddubs(acc, codes, w_set_q(q));
}

static inline lc_w w_widen(lc_w pairs) { return w_madd_halves(pairs, w_set(0x00010001)); }

/* Of the values that meet the first and the second half of words: their sums, in two halves. n: 32
 * or 64. */
static inline int32_t w_half_sums(const char *q, size_t n) {
    lc_w pairs = w_maddubs(w_zero(), w_set(0x01010101), w_load_n(q, n));
    int32_t first = w_total(w_madd_halves(pairs, w_set(1)));
    int32_t second = w_total(w_madd_halves(pairs, w_set(1 << 16)));
    return (int32_t)((uint32_t)first & 0xffff) | (int32_t)((uint32_t)second << 16);
}

static inline lc_w w_begin(const char *sums, int32_t less) {
    return w_mul_halves(w_set_q(sums), w_set(less));
}

#endif
