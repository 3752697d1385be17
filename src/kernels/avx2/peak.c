/*
 * peak.c (AVX2): vfmadd, and products of integers with the addition that each needs, as they keep
 * no sums. Codes of 4 bits meet bytes in vpmaddubsw, whose sums of 32 k fit 16 bits; two products
 * of any bytes leave no room there for a third, so bytes are multiplied as halves.
 */
#include "kernels/peak.h"
#include "kernels/avx2/chains.h"

#include <immintrin.h>

enum { LANES = 8 };

static void run_f32(size_t rounds) {
    __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0x1p-20f);
    LC_RUN_CHAINS("vfmadd213ps %2, %1, ", rounds, a, b);
}

static void run_int8(size_t rounds) {
    __m256i a = _mm256_set1_epi16(3), b = _mm256_set1_epi16(-2);
    LC_RUN_CHAINS("vpmaddwd %2, %1, %%ymm12\nvpaddd %%ymm12, %%ymm\\r, ", rounds, a, b);
}

static void run_int4(size_t rounds) {
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-2);
    LC_RUN_CHAINS("vpmaddubsw %2, %1, %%ymm12\nvpaddw %%ymm12, %%ymm\\r, ", rounds, a, b);
}

extern const lc_peak lc_peak_avx2_f32, lc_peak_avx2_int8, lc_peak_avx2_int4;
const lc_peak lc_peak_avx2_f32 = {"vfmadd, 256 bits", LC_ISA_AVX2, LC_PEAK_F32,
                                  LC_CHAINS *LANES * 2.0, run_f32};
const lc_peak lc_peak_avx2_int8 = {"vpmaddwd, vpaddd", LC_ISA_AVX2, LC_PEAK_INT8,
                                   LC_CHAINS *LANES * 2 * 2.0, run_int8};
const lc_peak lc_peak_avx2_int4 = {"vpmaddubsw, vpaddw", LC_ISA_AVX2, LC_PEAK_INT4,
                                   LC_CHAINS *LANES * 4 * 2.0, run_int4};
