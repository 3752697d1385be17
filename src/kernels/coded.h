/*
 * coded.h: what the implementations of coded products share: how packed left rows look, and which
 * implementations there are.
 *
 * A packed row is [values, padded with zeros to 32: int8, or wider where a set wants them so][fp32
 * step of each group][int32 sum of values of each group], rounded up to whole cache lines. Rows are
 * apart from each other, so any of them may be packed alone. Values may be in another order inside
 * 8 consecutive ones.
 */
#ifndef LC_KERNELS_CODED_H
#define LC_KERNELS_CODED_H

#include "kernels/kernels.h"

enum { LC_Q_MAX = 127, LC_CODED_PATHS = 8 };

#define LC_M_TINY 0x1.fcp-120f   /* 127 * 2^-126: below, a step would be denormal */
#define LC_QUIET_NAN 0x7fc00000u /* the only NaN that leaves a product */
#define LC_INFINITY_BITS 0x7f800000u

static inline size_t lc_coded_groups(size_t k, size_t size) {
    return size >= k ? 1 : (k + size - 1) / size;
}

/* values: bytes of a row's values. */
static inline size_t lc_coded_row_bytes(size_t values, size_t groups) {
    return (values + groups * (sizeof(float) + sizeof(int32_t)) + 63) / 64 * 64;
}

/* The parts of a packed row. */
static inline float *lc_coded_steps(void *row, size_t values) {
    return (float *)(void *)((char *)row + values);
}
static inline int32_t *lc_coded_sums(void *row, size_t values, size_t groups) {
    return (int32_t *)(void *)(lc_coded_steps(row, values) + groups);
}

/* All that this processor can run, from the plainest to the fastest; returns their number. */
size_t lc_coded_paths(const lc_coded_path *out[LC_CODED_PATHS]);
/* The fastest that needs no more than that instruction set and features beside it. */
const lc_coded_path *lc_coded_path_of(lc_isa isa);

#endif
