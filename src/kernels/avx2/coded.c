/* coded.c (AVX2): the dot product on pairs of 16 bits, which can't saturate: bytes 0 and 2 of a
 * word, then bytes 1 and 3. */
#include "kernels/coded.h"

#include "kernels/avx2/words.h"

static inline __m256i dot_8(__m256i acc, __m256i codes, __m256i even, __m256i odd) {
    __m256i low = _mm256_and_si256(codes, _mm256_set1_epi32(0x00ff00ff));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(low, even));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_srli_epi16(codes, 8), odd));
}

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    __m256i x = set_q(q), even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8),
            odd = _mm256_srai_epi16(x, 8);
    return (lc_w){dot_8(acc.lo, codes.lo, even, odd), dot_8(acc.hi, codes.hi, even, odd)};
}

#include "kernels/coded.inc"

extern const lc_coded_path lc_coded_avx2;
const lc_coded_path lc_coded_avx2 = LC_CODED_PATH("vpmaddwd, 256 bits");
