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

#include "base/clock.h"
#include "base/pool.h"
#include "format/mat.h"
#include "kernels/kernels.h"
#include "ops/kv.h"

/* The parts of a forward pass that measurements tell apart. */
typedef enum lc_stage {
    LC_STAGE_EMBED,   /* word and n-gram rows and their projections */
    LC_STAGE_NORM,    /* norms, packing of their results, residual sums, rotary tables */
    LC_STAGE_PROJECT, /* attention's projections, absorbed ones too */
    LC_STAGE_ATTEND,  /* scores, softmax and context over cached rows */
    LC_STAGE_INDEX,   /* choice of keys */
    LC_STAGE_ROUTE,
    LC_STAGE_EXPERTS, /* routed and identity */
    LC_STAGE_DENSE,   /* dense FFNs */
    LC_STAGE_HEAD,
    LC_STAGE_COUNT,
} lc_stage;

/* Where the time of forward passes goes, for `longcat bench`. Everything adds up until it is
 * cleared. */
typedef struct lc_op_times {
    uint64_t last; /* clock at the end of the stage before */
    uint64_t ns[LC_STAGE_COUNT];
    uint64_t expert_bytes;         /* weights of the experts that were hit, once a step */
    uint64_t experts, expert_rows; /* distinct experts a layer and step; rows through them */
} lc_op_times;

typedef struct lc_op {
    const lc_kernels *k;
    const lc_gemm_path *path; /* products of the compute type: &k->bf16 or &k->f32 */
    lc_pool *pool;
    bool round_quantised;  /* FP8 and I8 weights are rounded to BF16 after decoding, in fp32 too */
    float *const *scratch; /* [threads]: private memory of a thread, as planned */
    lc_op_times *times;    /* normally NULL: nobody measures */
} lc_op;

/* The time since the end of the stage before belongs to this one. Called between operators, by the
 * thread that runs them. */
static inline void lc_op_lap(const lc_op *op, lc_stage stage) {
    if (!op->times) return;
    uint64_t now = lc_clock_ns();
    op->times->ns[stage] += now - op->times->last;
    op->times->last = now;
}
/* Before the first stage. */
static inline void lc_op_start(const lc_op *op) {
    if (op->times) op->times->last = lc_clock_ns();
}

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
