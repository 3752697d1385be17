/*
 * linear.h: y = x W^T for weights of any type and place. Codes in groups (int8, int4) meet int8
 * left rows (numerics.md 2) when the compute type is BF16; all other weights are BF16 or fp32
 * products in the order of numerics.md 1: right rows are used where they lie if they have
 * op->path's element type and whole blocks along K, else they are decoded, a panel at a time.
 */
#ifndef LC_OPS_LINEAR_H
#define LC_OPS_LINEAR_H

#include "ops/op.h"

enum { LC_PACK_ROWS = 16 }; /* left rows that are packed together */

/* How left rows are packed to meet a weight. */
typedef struct lc_form {
    bool coded; /* int8 in the weight's groups, for op->k->coded; else for op->path */
    lc_code_kind kind;
    size_t size;
    bool strips; /* the weight lies in strips; codes' packed rows are the same */
} lc_form;
lc_form lc_form_of(const lc_op *op, const lc_mat *w);

/* Bytes of packed rows, for the place of row 16 i too. */
size_t lc_form_bytes(const lc_op *op, lc_form form, size_t rows, size_t k);
/* Packs x [rows][ldx]; a whole operand, or 16 rows of it at their place. */
void lc_form_pack(const lc_op *op, lc_form form, size_t rows, size_t k, const float *x, size_t ldx,
                  void *out);

/* Packed left rows. */
typedef struct lc_left {
    lc_form form;
    size_t rows, k;
    const void *data;
} lc_left;

/* Left rows that several weights meet. They are packed for the first, and again only for one that
 * wants another form. */
typedef struct lc_operand {
    const float *x; /* [rows][ldx] */
    size_t ldx;
    lc_left left; /* data NULL: not packed yet */
    float *space; /* lc_operand_floats(op, rows, k) */
} lc_operand;
lc_operand lc_operand_of(size_t rows, size_t k, const float *x, size_t ldx, float *space);
/* Enough for every form. */
size_t lc_operand_floats(const lc_op *op, size_t rows, size_t k);
const lc_left *lc_operand_pack(const lc_op *op, lc_operand *x, lc_form form);

/* c [left->rows][ldc] = left times rows row0 .. row0+n-1 of w, which is acquired: what a task of a
 * product does. scratch: lc_columns_floats(op, rows, k) floats. */
void lc_columns(const lc_op *op, const lc_mat *w, const lc_left *left, size_t row0, size_t n,
                float *c, size_t ldc, float *scratch);
size_t lc_columns_floats(const lc_op *op, size_t rows, size_t k);
/* hidden = swiglu of gate's and up's rows row0 .. row0+n-1, packed; hidden is an operand of whole
 * blocks of k, row0 and n too. Scratch: as for lc_columns, for 2 n columns. */
void lc_gated_columns(const lc_op *op, const lc_mat *gate, const lc_mat *up, const lc_left *left,
                      size_t row0, size_t n, const lc_operand *hidden, float *scratch);
/* Columns of a task, so that the threads get equal shares of `columns`. */
size_t lc_columns_width(const lc_op *op, lc_form form, size_t rows, size_t columns);
/* The most that the function above returns for up to `rows` rows. */
size_t lc_columns_most(const lc_op *op, size_t rows);

/* y[i][j] = x[i] . w[j], y [rows of x][ldy], ldy >= w->rows. Errors: LC_EIO from a streamed weight.
 * Scratch: lc_columns_floats. */
int lc_linear(const lc_op *op, const lc_mat *w, lc_operand *x, float *y, size_t ldy, lc_err *err);

/* op with everything in fp32 whatever the compute type (router, index weights). */
lc_op lc_op_exact(const lc_op *op);

/* Floats of a thread's scratch that products of op->path need for `rows` left rows. */
size_t lc_product_floats(const lc_op *op, size_t rows, size_t k);

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
