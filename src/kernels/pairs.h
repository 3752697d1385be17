/*
 * pairs.h: dot products of instruction sets that have none of bytes in 32 bits; between
 * <isa>/words.h and coded.inc, which says what they are for. Codes of 4 bits by vpmaddubsw, whose
 * sums of neighbours in 16 bits are added up there; bytes, as halves that left values are packed
 * as, by vpmaddwd: 0 and 2 of a word, then 1 and 3. Nothing saturates.
 *
 * words.h supplies w_set_q (a word of q everywhere), w_madd and w_maddubs (which add products of
 * halves to words, of bytes to halves), w_odd_bytes (as halves) and w_store_pairs.
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

static inline lc_w w_join(lc_w acc, lc_w pairs) { return w_madd(acc, pairs, w_set(0x00010001)); }

#endif
