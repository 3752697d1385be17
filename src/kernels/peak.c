/* peak.c: which loops this processor can run. The loops stand beside the kernels, in
 * <isa>/peak.c. */
#include "kernels/peak.h"

typedef struct choice {
    const lc_peak *peak;
    bool usable;
} choice;

#if defined(__x86_64__)
extern const lc_peak lc_peak_avx2_f32, lc_peak_avx2_int8, lc_peak_avx2_int4, lc_peak_avxvnni_int8,
    lc_peak_avx512_f32, lc_peak_avx512_int8, lc_peak_avx512bf16_bf16, lc_peak_amx_bf16,
    lc_peak_amx_int8;
#elif defined(__aarch64__)
extern const lc_peak lc_peak_neon_f32, lc_peak_neondot_int8, lc_peak_neonbf16_bf16;
#endif

size_t lc_peaks(const lc_peak *out[LC_PEAKS]) {
    const choice all[] = {
#if defined(__x86_64__)
        {&lc_peak_avx2_f32, true},
        {&lc_peak_avx2_int8, true},
        {&lc_peak_avx2_int4, true},
        {&lc_peak_avxvnni_int8, lc_cpu_can(LC_CPU_AVX_VNNI)},
        {&lc_peak_avx512_f32, true},
        {&lc_peak_avx512bf16_bf16, true},
        {&lc_peak_avx512_int8, lc_cpu_can(LC_CPU_AVX512_VNNI)},
        {&lc_peak_amx_bf16, true},
        {&lc_peak_amx_int8, lc_cpu_can(LC_CPU_AMX_INT8)},
#elif defined(__aarch64__)
        {&lc_peak_neon_f32, true},
        {&lc_peak_neondot_int8, lc_cpu_can(LC_CPU_DOTPROD)},
        {&lc_peak_neonbf16_bf16, true},
#endif
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].usable && lc_cpu_has(all[i].peak->isa)) out[n++] = all[i].peak;
    return n;
}
