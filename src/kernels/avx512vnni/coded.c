/* coded.c (AVX512-VNNI): coded products with vpdpbusd, never its saturating form. */
#include "kernels/coded.h"

#include "kernels/avx512/words.h"

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    return _mm512_dpbusd_epi32(acc, codes, w_set_q(q));
}

#define LC_CODED_FEW
#include "kernels/coded.inc"

#include "kernels/avx512vnni/few.h"

extern const lc_coded_path lc_coded_avx512vnni;
const lc_coded_path lc_coded_avx512vnni = LC_CODED_PATH("vpdpbusd");
