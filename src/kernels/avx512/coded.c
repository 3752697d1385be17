/* coded.c (AVX-512 without VNNI): coded products by way of 16 bits. */
#include "kernels/coded.h"

#include "kernels/avx512/words.h"

#include "kernels/pairs.h"

#include "kernels/coded.inc"

extern const lc_coded_path lc_coded_avx512;
const lc_coded_path lc_coded_avx512 = LC_CODED_PATH("vpmaddubsw, vpmaddwd, 512 bits");
