/* cpu.h: instruction sets of this machine, and the floating-point mode of a thread. */
#ifndef LC_BASE_CPU_H
#define LC_BASE_CPU_H

#include "longcat.h"

/* Kernel families in rising order; each implies nothing about the others. */
typedef enum lc_isa {
    LC_ISA_SCALAR,
    LC_ISA_NEON,
    LC_ISA_NEONBF16,   /* the same and BF16 */
    LC_ISA_AVX2,       /* with FMA and F16C */
    LC_ISA_AVX512,     /* F, BW, VL, DQ */
    LC_ISA_AVX512BF16, /* the same and BF16 */
    LC_ISA_AMX,        /* the same and AMX tiles with BF16 */
    LC_ISA_COUNT,
} lc_isa;

/* Features that no family stands for: processors have them with several. */
typedef enum lc_cpu_feature {
    LC_CPU_AVX_VNNI,    /* with LC_ISA_AVX2: vpdpbusd on 256 bits */
    LC_CPU_AVX512_VNNI, /* with LC_ISA_AVX512 */
    LC_CPU_AMX_INT8,    /* with LC_ISA_AMX */
    LC_CPU_DOTPROD,     /* with LC_ISA_NEON: sdot */
    LC_CPU_FEATURES,
} lc_cpu_feature;

bool lc_cpu_has(lc_isa isa); /* CPU features and OS permission */
bool lc_cpu_can(lc_cpu_feature feature);
const char *lc_isa_name(lc_isa isa); /* "scalar", "avx2", ... */
bool lc_isa_from_name(const char *name, lc_isa *out);
const char *lc_cpu_model(void); /* "AMD EPYC 9R14" or "unknown CPU" */
int lc_cpu_count(void);         /* CPUs that this process may use */
size_t lc_cpu_memory(void);     /* bytes of RAM */

/* Flush-to-zero and denormals-are-zero (x86), FZ (Arm): enter returns the old state, leave restores
 * it. */
uint64_t lc_fp_enter(void);
void lc_fp_leave(uint64_t state);

#endif
