/*
 * attend.h: softmax attention of absorbed queries over cached rows, 64 keys at a time in increasing
 * position (numerics.md 4). The running maximum and sum are merged block by block; masked and
 * missing keys are zeros.
 */
#ifndef LC_OPS_ATTEND_H
#define LC_OPS_ATTEND_H

#include "ops/mla.h"

/* queries [N][M][W] -> context in their place: the first R values of each row, normalised. */
void lc_attend(const lc_op *op, const lc_mla_shape *s, size_t m, const lc_mla_args *args,
               float *queries);

/* Scratch floats of a thread. */
size_t lc_attend_scratch(const lc_op *op, const lc_mla_shape *s);

/* Right rows of a block of 64 cached rows (`width` elements each, contiguous) for nk products: in
 * place, or copied to scratch (64 * lc_pad_k(width) floats) with zeros up to whole blocks. */
const void *lc_kv_right_rows(size_t element, size_t width, const char *rows, float *scratch,
                             size_t *ld);

#endif
