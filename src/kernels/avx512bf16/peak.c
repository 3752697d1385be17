/* peak.c (AVX512-BF16): vdpbf16ps. */
#include "kernels/peak.h"
#include "kernels/avx512/chains.h"

#include <immintrin.h>

enum { LANES = 16 };

static void run(size_t rounds) {
    __m512i a = _mm512_set1_epi32(0x3f00be80), b = _mm512_set1_epi32(0x3f003f40); /* pairs */
    LC_RUN_CHAINS("vdpbf16ps %2, %1, ", rounds, a, b);
}

extern const lc_peak lc_peak_avx512bf16_bf16;
const lc_peak lc_peak_avx512bf16_bf16 = {"vdpbf16ps", LC_ISA_AVX512BF16, LC_PEAK_BF16,
                                         LC_CHAINS *LANES * 2 * 2.0, run};
