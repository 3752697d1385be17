/* avx512.c: the kernels for x86 with AVX-512 F, BW, VL and DQ. */
#include "kernels/kernels.h"

#include "kernels/avx512/lanes.h"

extern const lc_kernels lc_kernels_avx512;
#define LC_KERNELS_TABLE lc_kernels_avx512
#define LC_KERNELS_ISA LC_ISA_AVX512
#include "kernels/kernels.inc"
