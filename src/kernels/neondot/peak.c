/* peak.c (NEON with FEAT_DotProd): sdot. */
#include "kernels/peak.h"
#include "kernels/neon/chains.h"

#include <arm_neon.h>

enum { LANES = 4 };

static void run(size_t rounds) {
    int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-2);
    LC_RUN_CHAINS("sdot v\\r\\().4s, %1.16b, %2.16b", rounds, a, b);
}

extern const lc_peak lc_peak_neondot_int8;
const lc_peak lc_peak_neondot_int8 = {"sdot", LC_ISA_NEON, LC_PEAK_INT8, LC_CHAINS *LANES * 4 * 2.0,
                                      run};
