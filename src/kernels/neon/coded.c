/* coded.c (NEON without SDOT): products of bytes in 16 bits, which hold 128 * 127, added in 32. */
#include "kernels/coded.h"

#include "kernels/neon/words.h"

static inline lc_w w_dot(lc_w acc, lc_w codes, const char *q) {
    int8x16_t x = set_q(q);
    LC_EACH_QUAD {
        int8x16_t c = vreinterpretq_s8_s32(codes.q[i]);
        int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(c), vget_low_s8(x)));
        int32x4_t high = vpaddlq_s16(vmull_high_s8(c, x));
        acc.q[i] = vaddq_s32(acc.q[i], vpaddq_s32(low, high));
    }
    return acc;
}

#include "kernels/coded.inc"

extern const lc_coded_path lc_coded_neon;
const lc_coded_path lc_coded_neon = LC_CODED_PATH("smull");
