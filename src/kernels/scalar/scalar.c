/* scalar.c: the kernels in portable C. */
#include "kernels/kernels.h"

#include "kernels/scalar/lanes.h"

extern const lc_kernels lc_kernels_scalar;
#define LC_KERNELS_TABLE lc_kernels_scalar
#define LC_KERNELS_ISA LC_ISA_SCALAR
#include "kernels/kernels.inc"
