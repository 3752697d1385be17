/*
 * indexer.h: LongCat sparse attention's choice of keys (docs/model.md 2.8): a light scorer per
 * layer ranks every causal key; sinks, the recent window and the best of the rest are attended to
 * by both sublayers of the layer.
 */
#ifndef LC_OPS_INDEXER_H
#define LC_OPS_INDEXER_H

#include "ops/mla.h"

typedef struct lc_indexer_weights {
    lc_mat wq_b;    /* [heads*dim][q_rank] */
    lc_mat wk;      /* [dim][H] */
    lc_mat weights; /* weights_proj [heads][H] */
    const float *k_norm;
} lc_indexer_weights;

typedef struct lc_index_shape {
    size_t hidden, heads, dim, q_rank, rope;
    size_t topk, sink, window;
    float norm_eps, q_scale; /* q_scale: sqrt(H/q_rank) with the switch index_scaled_cq, else 1 */
} lc_index_shape;
void lc_index_shape_init(lc_index_shape *shape, const lc_config *config);

typedef struct lc_index_buffers {
    float *q;       /* [M][heads][dim] */
    float *k;       /* [M][dim] */
    float *weights; /* [M][heads] */
    float *x;       /* the normed input, packed in fp32: lc_left_floats(M, H) */
    int32_t *list;  /* [M][topk] chosen keys, ascending */
    size_t *count;  /* [M] */
} lc_index_buffers;
enum { LC_INDEX_BUFFERS = 4 };
void lc_index_floats(const lc_index_shape *s, size_t m, size_t floats[LC_INDEX_BUFFERS]);
/* Scratch floats of a thread for contexts up to `context` positions. */
size_t lc_index_scratch(const lc_op *op, const lc_index_shape *s, size_t context);

typedef struct lc_index_args {
    const lc_row *rows;
    lc_rope_rows rope;
    size_t indexer; /* cache slot of the index keys */
    lc_operand *x;  /* normed sublayer input */
    lc_operand *c_q;
    size_t context; /* as given to lc_index_scratch */
    bool
        force_lists; /* fill lists and scores even where every causal key is chosen (for a probe) */
    const lc_probe *probe;
} lc_index_args;

/* Stores the rows' index keys and fills b->list and b->count. */
int lc_index(const lc_op *op, const lc_index_shape *s, const lc_indexer_weights *w,
             const lc_index_args *args, const lc_index_buffers *b, lc_err *err);

/* Scores of positions start .. start + n - 1. */
typedef struct lc_index_scores {
    size_t start, n;
    const float *score; /* [n] */
} lc_index_scores;

/* Chooses min(topk, n) positions: the first `sink`, the last `window`, then the highest scores
 * (equal scores, 0.0 and -0.0 included, go to the lower position; NaN is beyond the infinity of its
 * sign). Writes them ascending to list, returns their number. work: 2 n words. */
size_t lc_index_select(const lc_kernels *k, const lc_index_shape *s, const lc_index_scores *x,
                       uint32_t *work, int32_t *list);

#endif
