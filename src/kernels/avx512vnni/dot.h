/* dot.h (AVX512-VNNI): vpdpbusd, never its saturating form. In assembly, because gcc 12 copies
 * every sum twice around its intrinsic. */
#ifndef LC_KERNELS_AVX512VNNI_DOT_H
#define LC_KERNELS_AVX512VNNI_DOT_H

#include "kernels/avx512/words.h"

static inline lc_w add_dots(lc_w acc, lc_w codes, lc_w q) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(q));
    return acc;
}

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    return add_dots(acc, codes, w_set_q(q));
}

#endif
