/* coded.c: which implementations of coded products this processor can run. They stand beside the
 * kernels, in <isa>/coded.c. */
#include "kernels/coded.h"

extern const lc_coded_path lc_coded_scalar;
#if defined(__x86_64__)
extern const lc_coded_path lc_coded_avx2, lc_coded_avxvnni, lc_coded_avx512, lc_coded_avx512vnni,
    lc_coded_amx;
#elif defined(__aarch64__)
extern const lc_coded_path lc_coded_neon, lc_coded_neondot;
#endif

typedef struct choice {
    const lc_coded_path *path;
    lc_isa isa;
    bool usable;
} choice;

static size_t choices(choice out[LC_CODED_PATHS]) {
    const choice all[] = {
        {&lc_coded_scalar, LC_ISA_SCALAR, true},
#if defined(__x86_64__)
        {&lc_coded_avx2, LC_ISA_AVX2, true},
        {&lc_coded_avxvnni, LC_ISA_AVX2, lc_cpu_can(LC_CPU_AVX_VNNI)},
        {&lc_coded_avx512, LC_ISA_AVX512, true},
        {&lc_coded_avx512vnni, LC_ISA_AVX512, lc_cpu_can(LC_CPU_AVX512_VNNI)},
        {&lc_coded_amx, LC_ISA_AMX, lc_cpu_can(LC_CPU_AMX_INT8)},
#elif defined(__aarch64__)
        {&lc_coded_neon, LC_ISA_NEON, true},
        {&lc_coded_neondot, LC_ISA_NEON, lc_cpu_can(LC_CPU_DOTPROD)},
#endif
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].usable && lc_cpu_has(all[i].isa)) out[n++] = all[i];
    return n;
}

size_t lc_coded_paths(const lc_coded_path *out[LC_CODED_PATHS]) {
    choice all[LC_CODED_PATHS];
    size_t n = choices(all);
    for (size_t i = 0; i < n; i++) out[i] = all[i].path;
    return n;
}

const lc_coded_path *lc_coded_path_of(lc_isa isa) {
    choice all[LC_CODED_PATHS];
    const lc_coded_path *best = &lc_coded_scalar;
    for (size_t i = 0, n = choices(all); i < n; i++)
        if (all[i].isa <= isa) best = all[i].path;
    return best;
}
