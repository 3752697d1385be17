/* peak.c (NEON): fmla. */
#include "kernels/peak.h"
#include "kernels/neon/chains.h"

#include <arm_neon.h>

enum { LANES = 4 };

static void run(size_t rounds) {
    float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(0x1p-20f);
    LC_RUN_CHAINS("fmla v\\r\\().4s, %1.4s, %2.4s", rounds, a, b);
}

extern const lc_peak lc_peak_neon_f32;
const lc_peak lc_peak_neon_f32 = {"fmla", LC_ISA_NEON, LC_PEAK_F32, LC_CHAINS *LANES * 2.0, run};
