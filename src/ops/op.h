/*
 * op.h: what every operator shares: the context, the rows of a step, the cache view and the shape
 * alphabet.
 *
 * Shapes, declared once: M rows of a step (tokens, of one or many sequences), H hidden, N heads, D
 * head dim, R latent rank, W = R + rope width of a cached row, E routed experts, Z identity
 * experts, K chosen entries, F ffn width, V vocabulary, L layers, T n-gram tables. Activations are
 * fp32, row-major. A suffix p means padded to whole 32-blocks.
 *
 * Operators don't allocate: the caller (model/work.c) cuts every buffer from one block planned in
 * advance. They fail only where a streamed weight can't be read.
 */
#ifndef LC_OPS_OP_H
#define LC_OPS_OP_H

#include "base/pool.h"
#include "format/mat.h"
#include "kernels/kernels.h"
#include "ops/kv.h"

typedef struct lc_op {
    const lc_kernels *k;
    const lc_gemm_path *path; /* products of the compute type: &k->bf16 or &k->f32 */
    lc_pool *pool;
    bool round_quantised;  /* FP8 and I8 weights are rounded to BF16 after decoding, in fp32 too */
    float *const *scratch; /* [threads]: private memory of a thread, as planned */
} lc_op;

/* A row of a step: one token of one sequence. */
typedef struct lc_row {
    lc_kv *kv;             /* cache that it is written to and attends over */
    size_t pos;            /* its position in that cache, and its rotary position */
    size_t start;          /* first position that it may see (> 0 only in packed documents) */
    const int32_t *tokens; /* token list for the embedding; tokens[at] is this row's token */
    size_t at;
} lc_row;

/* Where activations go when someone wants to see them; NULL members and a NULL probe are skipped.
 */
typedef struct lc_probe {
    void (*emit)(void *ctx, const char *name, lc_dtype type, size_t rows, size_t cols,
                 size_t stride, const void *data);
    void *ctx;
    float *scores; /* [M][ld_scores]: index scores, filled by the indexer */
    size_t ld_scores;
} lc_probe;

/* Row-wise loop bodies get this much work at a time. */
enum { LC_ROW_GRAIN = 4 };

static inline size_t lc_ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

#endif
