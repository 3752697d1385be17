/* peak.c: which loops this processor can run. The loops stand beside the kernels, in
 * <isa>/peak.c. */
#include "kernels/peak.h"

#if defined(__x86_64__)
extern const lc_peak lc_peak_avx2_f32, lc_peak_avx512_f32, lc_peak_avx512_int8,
    lc_peak_avx512bf16_bf16, lc_peak_amx_bf16, lc_peak_amx_int8;

size_t lc_peaks(const lc_peak *out[LC_PEAKS]) {
    bool vnni = lc_cpu_can(LC_CPU_AVX512_VNNI), amx = lc_cpu_can(LC_CPU_AMX_INT8);
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
