/* peak.c (NEON): 24 chains of fmla on 32 registers. In assembly, so that no compiler and no
 * optimisation level moves a register. */
#include "kernels/peak.h"

#include <arm_neon.h>

enum { CHAINS = 24, LANES = 4 };

static void run(size_t rounds) {
    float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(0x1p-20f);
    __asm__ volatile(".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n"
                     "movi v\\r\\().4s, #0\n"
                     ".endr\n"
                     "1:\n"
                     ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n"
                     "fmla v\\r\\().4s, %1.4s, %2.4s\n"
                     ".endr\n"
                     "subs %0, %0, #1\n"
                     "b.ne 1b\n"
                     : "+r"(rounds)
                     : "w"(a), "w"(b)
                     : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10",
                       "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21",
                       "v22", "v23");
}

extern const lc_peak lc_peak_neon_f32;
const lc_peak lc_peak_neon_f32 = {"fmla", LC_ISA_NEON, LC_PEAK_F32, CHAINS *LANES * 2.0, run};
