/*
 * coded.c (AVX2): dot products by vpmaddubsw, of unsigned codes and signed values, which adds
 * neighbours in 16 bits: those of 4-bit codes many times over, those of bytes once, magnitudes of
 * codes against values that take their sign. 2 * 128 * 127 doesn't saturate.
 */
#include "kernels/coded.h"

#include "kernels/avx2/words.h"

#define LC_CODED_SIGNED
#define LC_CODED_PAIRS

/* Sums in turn: gcc would add words up as a tree, whose leaves don't fit the registers. */
static inline __m256i in_turn(__m256i sum) {
    __asm__("" : "+x"(sum));
    return sum;
}

static inline __m256i join_8(__m256i acc, __m256i pairs) {
    return in_turn(_mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}

static inline __m256i pairs_8(__m256i acc, __m256i codes, __m256i x) {
    return in_turn(_mm256_add_epi16(acc, _mm256_maddubs_epi16(codes, x)));
}

static inline __m256i dot_8(__m256i acc, __m256i codes, __m256i x) {
    return join_8(acc, _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes)));
}

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    __m256i x = set_q(q);
    return (lc_w){dot_8(acc.lo, codes.lo, x), dot_8(acc.hi, codes.hi, x)};
}

static inline lc_w w_pairs(lc_w acc, lc_w codes, const char *q) {
    __m256i x = set_q(q);
    return (lc_w){pairs_8(acc.lo, codes.lo, x), pairs_8(acc.hi, codes.hi, x)};
}

static inline lc_w w_join(lc_w acc, lc_w pairs) {
    return (lc_w){join_8(acc.lo, pairs.lo), join_8(acc.hi, pairs.hi)};
}

#include "kernels/coded.inc"

extern const lc_coded_path lc_coded_avx2;
const lc_coded_path lc_coded_avx2 = LC_CODED_PATH("vpmaddubsw, 256 bits");
