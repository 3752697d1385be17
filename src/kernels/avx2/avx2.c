/* avx2.c: the kernels for x86 with AVX2, FMA and F16C. */
#include "kernels/kernels.h"

#include "kernels/avx2/lanes.h"

extern const lc_kernels lc_kernels_avx2;
#define LC_KERNELS_TABLE lc_kernels_avx2
#define LC_KERNELS_ISA LC_ISA_AVX2
#include "kernels/kernels.inc"
