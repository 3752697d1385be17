/* peak.c (AVX-512): vfmadd, and vpdpbusd where there is VNNI. */
#include "kernels/peak.h"
#include "kernels/avx512/chains.h"

#include <immintrin.h>

enum { LANES = 16 };

static void run_f32(size_t rounds) {
    __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0x1p-20f);
    LC_RUN_CHAINS("vfmadd213ps %2, %1, ", rounds, a, b);
}

static void run_int8(size_t rounds) {
    __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-2);
    LC_RUN_CHAINS("vpdpbusd %2, %1, ", rounds, a, b);
}

extern const lc_peak lc_peak_avx512_f32, lc_peak_avx512_int8;
const lc_peak lc_peak_avx512_f32 = {"vfmadd, 512 bits", LC_ISA_AVX512, LC_PEAK_F32,
                                    LC_CHAINS *LANES * 2.0, run_f32};
const lc_peak lc_peak_avx512_int8 = {"vpdpbusd", LC_ISA_AVX512, LC_PEAK_INT8,
                                     LC_CHAINS *LANES * 4 * 2.0, run_int8};
