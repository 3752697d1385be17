/* coded.c (AVX-VNNI): coded products with vpdpbusd on 256 bits, never its saturating form. In
 * assembly, because gcc 12 copies every sum twice around its intrinsic. */
#include "kernels/coded.h"

#include "kernels/avx2/words.h"

static inline __m256i dot_8(__m256i acc, __m256i codes, __m256i x) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(x));
    return acc;
}

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    __m256i x = set_q(q);
    return (lc_w){dot_8(acc.lo, codes.lo, x), dot_8(acc.hi, codes.hi, x)};
}

#define LC_CODED_FEW
#include "kernels/coded.inc"

#define LC_FEW_DOT dot_8
#include "kernels/avx2/few.h"

extern const lc_coded_path lc_coded_avxvnni;
const lc_coded_path lc_coded_avxvnni = LC_CODED_PATH("vpdpbusd, 256 bits");
