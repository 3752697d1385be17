/* peak.c (AVX-VNNI): vpdpbusd on 256 bits. */
#include "kernels/peak.h"
#include "kernels/avx2/chains.h"

#include <immintrin.h>

enum { LANES = 8 };

static void run(size_t rounds) {
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-2);
    LC_RUN_CHAINS("%{vex%} vpdpbusd %2, %1, ", rounds, a, b);
}

extern const lc_peak lc_peak_avxvnni_int8;
const lc_peak lc_peak_avxvnni_int8 = {"vpdpbusd, 256 bits", LC_ISA_AVX2, LC_PEAK_INT8,
                                      LC_CHAINS *LANES * 4 * 2.0, run};
