/*
 * coded.c (AVX2): codes of 4 bits by vpmaddubsw, whose sums of neighbours in 16 bits are added up
 * there; bytes, as halves that left values are packed as, by vpmaddwd: 0 and 2 of a word, then 1
 * and
 * 3. Nothing saturates.
 */
#include "kernels/coded.h"

#include "kernels/avx2/words.h"

#define LC_CODED_PAIRS

/* Sums in turn: gcc would add words up as a tree, whose leaves don't fit the registers. */
static inline __m256i in_turn(__m256i sum) {
    __asm__("" : "+x"(sum));
    return sum;
}

static inline __m256i join_8(__m256i acc, __m256i pairs, __m256i x) {
    return in_turn(_mm256_add_epi32(acc, _mm256_madd_epi16(pairs, x)));
}

static inline __m256i pairs_8(__m256i acc, __m256i codes, __m256i x) {
    return in_turn(_mm256_add_epi16(acc, _mm256_maddubs_epi16(codes, x)));
}

static inline __m256i dot_8(__m256i acc, __m256i codes, __m256i even, __m256i odd) {
    acc = join_8(acc, _mm256_and_si256(codes, _mm256_set1_epi16(0xff)), even);
    return join_8(acc, _mm256_srli_epi16(codes, 8), odd);
}

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    __m256i even = set_q(q), odd = set_q(q + 4);
    return (lc_w){dot_8(acc.lo, codes.lo, even, odd), dot_8(acc.hi, codes.hi, even, odd)};
}

static inline lc_w w_pairs(lc_w acc, lc_w codes, const char *q) {
    __m256i x = set_q(q);
    return (lc_w){pairs_8(acc.lo, codes.lo, x), pairs_8(acc.hi, codes.hi, x)};
}

static inline lc_w w_join(lc_w acc, lc_w pairs) {
    __m256i ones = _mm256_set1_epi16(1);
    return (lc_w){join_8(acc.lo, pairs.lo, ones), join_8(acc.hi, pairs.hi, ones)};
}

static inline void w_store_pairs(int8_t *p, lc_w w) {
    /* packs work in halves of 128 bits: words 0-3 8-11 4-7 12-15 */
    __m256i halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(w.lo, w.hi), 0xd8);
    halves = _mm256_shufflelo_epi16(halves, _MM_SHUFFLE(3, 1, 2, 0));
    halves = _mm256_shufflehi_epi16(halves, _MM_SHUFFLE(3, 1, 2, 0));
    _mm256_storeu_si256((__m256i *)(void *)p, halves);
}

#include "kernels/coded.inc"

extern const lc_coded_path lc_coded_avx2;
const lc_coded_path lc_coded_avx2 = LC_CODED_PATH("vpmaddubsw, vpmaddwd, 256 bits");
