/* coded.c (AVX2): coded products by way of 16 bits. */
#include "kernels/coded.h"

#include "kernels/avx2/words.h"

#include "kernels/pairs.h"

#define LC_CODED_FEW
#include "kernels/coded.inc"

#include "kernels/avx2/few.h"

extern const lc_coded_path lc_coded_avx2;
const lc_coded_path lc_coded_avx2 = LC_CODED_PATH("vpmaddubsw, vpmaddwd, 256 bits");
