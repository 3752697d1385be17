/* coded.c (NEON with FEAT_DotProd): coded products with SDOT. */
#include "kernels/coded.h"

#include "kernels/neon/words.h"

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    int8x16_t x = set_q(q);
    LC_EACH_QUAD acc.q[i] = vdotq_s32(acc.q[i], vreinterpretq_s8_s32(codes.q[i]), x);
    return acc;
}

#include "kernels/coded.inc"

extern const lc_coded_path lc_coded_neondot;
const lc_coded_path lc_coded_neondot = LC_CODED_PATH("sdot");
