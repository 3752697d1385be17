/* peak.c (NEON with BF16): bfmlalb. */
#include "kernels/peak.h"
#include "kernels/neon/chains.h"

#include <arm_neon.h>

enum { LANES = 4 };

static void run(size_t rounds) {
    uint32x4_t a = vdupq_n_u32(0x3f003f00), b = vdupq_n_u32(0x3f00be80); /* pairs */
    LC_RUN_CHAINS("bfmlalb v\\r\\().4s, %1.8h, %2.8h", rounds, a, b);
}

extern const lc_peak lc_peak_neonbf16_bf16;
const lc_peak lc_peak_neonbf16_bf16 = {"bfmlalb", LC_ISA_NEONBF16, LC_PEAK_BF16,
                                       LC_CHAINS *LANES * 2.0, run};
