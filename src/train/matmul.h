/*
 * matmul.h: lists of matrix products for forward and backward passes, in the order of numerics.md 1
 * along whatever is contracted: features, or tokens for weight gradients. A list runs in two
 * parallel loops, one that packs and converts operands, one over panels of output columns, so many
 * small products (experts, n-gram tables) keep all threads busy.
 *
 *     forward          y = x W^T      { x, right W copy, nk }
 *     to the input     dx = dy W      { dy, right W copy, kn }
 *     to the weight    dW += dy^T x   { dy turned, right rows x, kn, add }
 */
#ifndef LC_TRAIN_MATMUL_H
#define LC_TRAIN_MATMUL_H

#include "ops/op.h"

/* Memory of a call, which grows to what the largest needs; belongs to one net. */
typedef struct lc_space {
    char *block;
    size_t bytes;
    double operations; /* of all products so far; whoever measures takes them from here */
} lc_space;
/* At least `bytes`, 64-byte aligned, contents undefined; NULL when memory is short. */
void *lc_space_take(lc_space *space, size_t bytes);
void lc_space_free(lc_space *space);

typedef struct lc_matmul lc_matmul;
struct lc_matmul {
    size_t rows, k, columns;
    const float *x; /* [rows][ldx], or turned: [k][ldx] and the product takes its transpose */
    size_t ldx;
    bool turned;
    /* One of an earlier product of the list with equal rows, k, x, turned and kn, or NULL: its
     * packed left rows are used. */
    const lc_matmul *same_left;
    /* Either elements of the path's type as lc_product wants them, or fp32 rows, which are
     * converted: nk [columns][ld], kn [k][ld]. */
    const void *right;
    const float *right_rows;
    size_t ld;
    bool kn;
    float *c; /* [rows][ldc] */
    size_t ldc;
    bool add; /* kn only: c += product, one rounding */
};

/* Products with no rows, k or columns are skipped (c is then left as it is, or zeroed if k is 0 and
 * not add). Errors: LC_ENOMEM. */
int lc_matmul_run(const lc_op *op, lc_space *space, const lc_matmul *list, size_t n, lc_err *err);

/* fp32 rows [n][ldx] -> elements of the path's type [n][lc_pad_k(cols)], padded with zeros. */
void lc_elements(const lc_op *op, size_t n, size_t cols, const float *x, size_t ldx, void *out);

#endif
