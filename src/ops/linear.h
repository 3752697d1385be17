/*
 * linear.h: y = x W^T for weights of any type and place, in the order of numerics.md 1. The compute
 * type's products run through op->path; right rows are used where they lie if they have its element
 * type and whole blocks along K, else they are decoded, 16 or 32 at a time.
 */
#ifndef LC_OPS_LINEAR_H
#define LC_OPS_LINEAR_H

#include "ops/op.h"

/* Left rows, packed for nk products of op->path. Row 16 i begins at float lc_left_floats(16 i, k).
 */
typedef struct lc_operand {
    const float *data; /* lc_left_floats(rows, k) floats */
    size_t rows, k;
} lc_operand;

/* x [rows][ldx] -> out, lc_left_floats(rows, k) floats. */
lc_operand lc_operand_pack(const lc_op *op, size_t rows, size_t k, const float *x, size_t ldx,
                           float *out);

/* y[i][j] = x[i] . w[j], y [x.rows][ldy], ldy >= w->rows. Errors: LC_EIO from a streamed weight. */
int lc_linear(const lc_op *op, const lc_mat *w, lc_operand x, float *y, size_t ldy, lc_err *err);

/* op with everything in fp32 whatever the compute type (router, index weights). */
lc_op lc_op_exact(const lc_op *op);

/* Right rows row0 .. row0+n-1 of a weight for nk products: *ld elements apart, zero up to
 * lc_pad_k(cols). scratch: lc_right_floats(n, cols) floats. */
const void *lc_right_rows(const lc_op *op, const lc_mat *w, size_t row0, size_t n, float *scratch,
                          size_t *ld);
static inline size_t lc_right_floats(size_t n, size_t cols) { return (n + 1) * lc_pad_k(cols); }

/* Floats of a thread's scratch that products of op->path need for `rows` left rows. */
size_t lc_product_floats(const lc_op *op, size_t rows, size_t k);
/* The same for lc_linear with up to `rows` rows: product scratch and right rows. */
size_t lc_linear_floats(const lc_op *op, size_t rows, size_t k);

/* RMS norm of rows, then times `scale`: y[i] = rms(x[i]) * scale. In place is fine. */
typedef struct lc_norm {
    const float *weight;
    float eps, scale;
} lc_norm;
void lc_norm_rows(const lc_op *op, size_t rows, size_t n, const float *x, size_t ldx, lc_norm norm,
                  float *y, size_t ldy);
/* y[i] += x[i] over `count` contiguous values. */
void lc_add(const lc_op *op, size_t count, const float *x, float *y);

#endif
