/* linear.h: y = x W^T for weights of any type and place, in the order of numerics.md 1. */
#ifndef LC_OPS_LINEAR_H
#define LC_OPS_LINEAR_H

#include "ops/op.h"

/* Rows ready to be the left side of products: zero-padded to stride = lc_pad_k(cols), rounded in
 * bf16. */
typedef struct lc_operand {
    const float *data; /* [rows][stride] */
    size_t rows, cols, stride;
} lc_operand;

/* x [rows][ldx] -> out [rows][lc_pad_k(cols)]. */
lc_operand lc_operand_prepare(const lc_op *op, size_t rows, size_t cols, const float *x, size_t ldx,
                              float *out);
/* The same for one row: rounds (in bf16) x[cols] into out[lc_pad_k(cols)] and zeroes the padding.
 * out may be x. */
void lc_operand_row(const lc_op *op, size_t cols, const float *x, float *out);

/* y[i][j] = x[i] . w[j], y [x.rows][ldy], ldy >= w->rows. Errors: LC_EIO from a streamed weight. */
int lc_linear(const lc_op *op, const lc_mat *w, lc_operand x, float *y, size_t ldy, lc_err *err);
/* The same with everything in fp32 whatever the compute type (router, index weights). */
int lc_linear_f32(const lc_op *op, const lc_mat *w, lc_operand x, float *y, size_t ldy,
                  lc_err *err);
/* Scratch floats a thread needs for products with contraction length k. */
size_t lc_linear_scratch(size_t k);

/* panel[k][16] = weight rows row0 .. row0+n-1 (n <= 16), decoded, transposed, zero-padded. scratch:
 * 16 * lc_pad_k(cols). */
void lc_panel_pack(const lc_op *op, const lc_mat *w, size_t row0, size_t n, float *panel,
                   float *scratch);
/* One weight row as an operand of the compute type: out[cols]. */
void lc_weight_row(const lc_op *op, const lc_mat *w, size_t row, float *out);

/* RMS norm of rows, then times `scale`: y[i] = rms(x[i]) * scale. In place is fine. */
void lc_norm_rows(const lc_op *op, size_t rows, size_t n, const float *x, size_t ldx,
                  const float *w, float eps, float scale, float *y, size_t ldy);
/* y[i] += x[i] over `count` contiguous values. */
void lc_add(const lc_op *op, size_t count, const float *x, float *y);

#endif
