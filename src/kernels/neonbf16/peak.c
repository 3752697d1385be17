/* peak.c (NEON with BF16): 24 chains of bfmlalb, as those of fmla in neon/peak.c. */
#include "kernels/peak.h"

#include <arm_neon.h>

enum { CHAINS = 24, LANES = 4 };

static void run(size_t rounds) {
    uint32x4_t a = vdupq_n_u32(0x3f003f00), b = vdupq_n_u32(0x3f00be80); /* pairs */
    __asm__ volatile(".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n"
                     "movi v\\r\\().4s, #0\n"
                     ".endr\n"
                     "1:\n"
                     ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n"
                     "bfmlalb v\\r\\().4s, %1.8h, %2.8h\n"
                     ".endr\n"
                     "subs %0, %0, #1\n"
                     "b.ne 1b\n"
                     : "+r"(rounds)
                     : "w"(a), "w"(b)
                     : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10",
                       "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21",
                       "v22", "v23");
}

extern const lc_peak lc_peak_neonbf16_bf16;
const lc_peak lc_peak_neonbf16_bf16 = {"bfmlalb", LC_ISA_NEONBF16, LC_PEAK_BF16,
                                       CHAINS *LANES * 2.0, run};
