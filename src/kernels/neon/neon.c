/* neon.c: the kernels for AArch64. */
#include "kernels/kernels.h"

#include "kernels/neon/lanes.h"

extern const lc_kernels lc_kernels_neon;
#define LC_KERNELS_TABLE lc_kernels_neon
#define LC_KERNELS_ISA LC_ISA_NEON
#include "kernels/kernels.inc"
