/* coded.c (AVX-VNNI): coded products with vpdpbusd on 256 bits, never its saturating form. */
#include "kernels/coded.h"

#include "kernels/avx2/words.h"

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    __m256i x = set_q(q);
    return (lc_w){_mm256_dpbusd_avx_epi32(acc.lo, codes.lo, x),
                  _mm256_dpbusd_avx_epi32(acc.hi, codes.hi, x)};
}

#include "kernels/coded.inc"

extern const lc_coded_path lc_coded_avxvnni;
const lc_coded_path lc_coded_avxvnni = LC_CODED_PATH("vpdpbusd, 256 bits");
