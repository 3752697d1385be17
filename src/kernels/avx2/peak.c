/* peak.c (AVX2): vfmadd, and vpmaddubsw with the addition that it needs, as it keeps no sums. */
#include "kernels/peak.h"
#include "kernels/avx2/chains.h"

#include <immintrin.h>

enum { LANES = 8 };

static void run_f32(size_t rounds) {
    __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0x1p-20f);
    LC_RUN_CHAINS("vfmadd213ps %2, %1, ", rounds, a, b);
}

static void run_int8(size_t rounds) {
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-2);
    LC_RUN_CHAINS("vpmaddubsw %2, %1, %%ymm12\nvpaddw %%ymm12, %%ymm\\r, ", rounds, a, b);
}

extern const lc_peak lc_peak_avx2_f32, lc_peak_avx2_int8;
const lc_peak lc_peak_avx2_f32 = {"vfmadd, 256 bits", LC_ISA_AVX2, LC_PEAK_F32,
                                  LC_CHAINS *LANES * 2.0, run_f32};
const lc_peak lc_peak_avx2_int8 = {"vpmaddubsw, vpaddw", LC_ISA_AVX2, LC_PEAK_INT8,
                                   LC_CHAINS *LANES * 4 * 2.0, run_int8};
