/* coded.c (AVX512-VNNI): coded products with vpdpbusd. */
#include "kernels/coded.h"

#include "kernels/avx512vnni/dot.h"

#define LC_CODED_FEW
#include "kernels/coded.inc"

#define FEW_FETCH(p) __builtin_prefetch((p) + 1024, 0, 2)
#include "kernels/avx512vnni/few.h"

extern const lc_coded_path lc_coded_avx512vnni;
const lc_coded_path lc_coded_avx512vnni = LC_CODED_PATH("vpdpbusd");
