/* peak.c: which loops this processor can run. The loops stand beside the kernels, in
 * <isa>/peak.c. */
#include "kernels/peak.h"

#if defined(__x86_64__)
#include <cpuid.h>

extern const lc_peak lc_peak_avx2_f32, lc_peak_avx512_f32, lc_peak_avx512_int8,
    lc_peak_avx512bf16_bf16, lc_peak_amx_bf16, lc_peak_amx_int8;

/* Two features that no kernel family stands for: AVX512-VNNI and AMX-INT8. */
static void ask_int8(bool *vnni, bool *amx) {
    unsigned a, b, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) c = d = 0;
    *vnni = c >> 11 & 1;
    *amx = d >> 25 & 1;
}

size_t lc_peaks(const lc_peak *out[LC_PEAKS]) {
    bool vnni, amx;
    ask_int8(&vnni, &amx);
    const struct {
        const lc_peak *peak;
        bool usable;
    } all[] = {
        {&lc_peak_avx2_f32, true},    {&lc_peak_avx512_f32, true}, {&lc_peak_avx512bf16_bf16, true},
        {&lc_peak_avx512_int8, vnni}, {&lc_peak_amx_bf16, true},   {&lc_peak_amx_int8, amx},
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].usable && lc_cpu_has(all[i].peak->isa)) out[n++] = all[i].peak;
    return n;
}

#elif defined(__aarch64__)

extern const lc_peak lc_peak_neon_f32, lc_peak_neonbf16_bf16;

size_t lc_peaks(const lc_peak *out[LC_PEAKS]) {
    out[0] = &lc_peak_neon_f32;
    out[1] = &lc_peak_neonbf16_bf16;
    return lc_cpu_has(LC_ISA_NEONBF16) ? 2 : 1;
}

#else

size_t lc_peaks(const lc_peak *out[LC_PEAKS]) {
    (void)out;
    return 0;
}

#endif
