/* peak.c (AVX2): 12 chains of vfmadd on 16 registers. In assembly, so that no compiler and no
 * optimisation level moves a register. */
#include "kernels/peak.h"

#include <immintrin.h>

enum { CHAINS = 12, LANES = 8 };

static void run(size_t rounds) {
    __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0x1p-20f);
    __asm__ volatile(".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n"
                     "vxorps %%ymm\\r, %%ymm\\r, %%ymm\\r\n"
                     ".endr\n"
                     "1:\n"
                     ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n"
                     "vfmadd213ps %2, %1, %%ymm\\r\n"
                     ".endr\n"
                     "dec %0\n"
                     "jnz 1b\n"
                     : "+r"(rounds)
                     : "x"(a), "x"(b)
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11");
}

extern const lc_peak lc_peak_avx2_f32;
const lc_peak lc_peak_avx2_f32 = {"vfmadd, 256 bits", LC_ISA_AVX2, LC_PEAK_F32, CHAINS *LANES * 2.0,
                                  run};
