/*
 * matmul.h: lists of matrix products for forward and backward passes, in the order of numerics.md 1
 * along whatever is contracted: features, or tokens for weight gradients.
 *
 *     forward          y = x W^T      { x, right: W packed }
 *     to the input     dx = dy W      { dy, right: W packed the other way round }
 *     to the weight    dW += dy^T x   { dy turned, right_rows: x, kn, add, cuts }
 *
 * What a layer computes for a block of rows (tokens) stays in the caches: products that are chained
 * run one after the other for some rows before the next rows follow, with row-wise steps between
 * them. A turned product takes part by packing those rows of both its sides; it is multiplied when
 * all rows are packed. So a list is at most three parallel loops: packing of right sides that
 * weren't, chains block by block, turned products.
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

/* Something to do with rows at + begin .. at + end of a chain; run NULL: nothing. */
typedef struct lc_rows_step {
    lc_pool_task *run;
    void *ctx;
    size_t at;
} lc_rows_step;

typedef struct lc_matmul {
    size_t rows, k, columns; /* columns 0: the steps only */
    const float *x; /* [rows][ldx], or turned: [k][ldx] and the product takes its transpose */
    size_t ldx;
    bool turned;
    const void *right;       /* packed by the path, or NULL: */
    const float *right_rows; /* kn [k][ld], else [columns][ld]; kn only if turned */
    size_t ld;
    bool kn;
    float *c; /* [rows][ldc] */
    size_t ldc;
    bool add; /* c += product, one rounding */
    /* Turned with add only, or NULL: k falls into pieces, rows [cuts[i], cuts[i + 1]) less cuts[0]
     * with cuts[pieces] - cuts[0] = k, and c takes one piece's product after the other. So products
     * that cut at the same places leave the same bits whether they come in one call or in many.
     * Turned products of a chain have the same cuts. */
    const size_t *cuts;
    size_t pieces;
    /* Belongs to the chain of the product before: as many rows (k, if turned), and behind it for
     * each of them. */
    bool chained;
    lc_rows_step before, behind; /* of this product, for the same rows */
} lc_matmul;

/* Products with no rows, k or columns are skipped (c is then left as it is, or zeroed if k is 0 and
 * not add). Chains have at most LC_CHAIN_MAX members. Errors: LC_ENOMEM. */
enum { LC_CHAIN_MAX = 16 };
int lc_matmul_run(const lc_op *op, lc_space *space, const lc_matmul *list, size_t n, lc_err *err);

/* fp32 rows [n][ldx] -> elements of the path's type [n][lc_pad_k(cols)], padded with zeros. */
void lc_elements(const lc_op *op, size_t n, size_t cols, const float *x, size_t ldx, void *out);

#endif
