/* coded.c (AVX-512 without VNNI): codes of 4 bits by vpmaddubsw, bytes by vpmaddwd, as avx2/coded.c
 * has them. */
#include "kernels/coded.h"

#include "kernels/avx512/words.h"

#define LC_CODED_PAIRS

/* Sums in turn: gcc would add words up as a tree, whose leaves don't fit the registers. */
static inline lc_w in_turn(lc_w sum) {
    __asm__("" : "+v"(sum));
    return sum;
}

static inline lc_w join_16(lc_w acc, lc_w pairs, lc_w x) {
    return in_turn(w_add(acc, _mm512_madd_epi16(pairs, x)));
}

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    acc = join_16(acc, w_and(codes, w_set(0x00ff00ff)), w_set_q(q));
    return join_16(acc, _mm512_srli_epi16(codes, 8), w_set_q(q + 4));
}

static inline lc_w w_pairs(lc_w acc, lc_w codes, const char *q) {
    return in_turn(_mm512_add_epi16(acc, _mm512_maddubs_epi16(codes, w_set_q(q))));
}

static inline lc_w w_join(lc_w acc, lc_w pairs) { return join_16(acc, pairs, w_set(0x00010001)); }

static inline void w_store_pairs(int8_t *p, lc_w w) {
    __m256i halves = _mm512_cvtepi32_epi16(w);
    halves = _mm256_shufflelo_epi16(halves, _MM_SHUFFLE(3, 1, 2, 0));
    halves = _mm256_shufflehi_epi16(halves, _MM_SHUFFLE(3, 1, 2, 0));
    _mm256_storeu_si256((__m256i *)(void *)p, halves);
}

#include "kernels/coded.inc"

extern const lc_coded_path lc_coded_avx512;
const lc_coded_path lc_coded_avx512 = LC_CODED_PATH("vpmaddubsw, vpmaddwd, 512 bits");
