/* coded.c (AVX-512 without VNNI): the dot product on pairs of 16 bits, which can't saturate: bytes
 * 0 and 2 of a word, then bytes 1 and 3. */
#include "kernels/coded.h"

#include "kernels/avx512/words.h"

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    lc_w bytes = w_set(0x00ff00ff), x = w_set_q(q);
    lc_w even = _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8), odd = _mm512_srai_epi16(x, 8);
    acc = w_add(acc, _mm512_madd_epi16(_mm512_and_si512(codes, bytes), even));
    return w_add(acc, _mm512_madd_epi16(_mm512_srli_epi16(codes, 8), odd));
}

#include "kernels/coded.inc"

extern const lc_coded_path lc_coded_avx512;
const lc_coded_path lc_coded_avx512 = LC_CODED_PATH("vpmaddwd, 512 bits");
