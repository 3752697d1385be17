/*
 * index.h: the indexer of LSA in the training net (docs/model.md 2.8, 5.8): scores of all causal
 * keys, the choice of keys, and the KL loss against the attention of the sublayers that share the
 * index. Its inputs are constants: only the indexer's own tensors get a gradient.
 */
#ifndef LC_TRAIN_INDEX_H
#define LC_TRAIN_INDEX_H

#include "ops/indexer.h"
#include "train/attention.h"

typedef struct lc_index_net {
    lc_weight wq_b, wk, k_norm, weights; /* the copy of weights is fp32 */
} lc_index_net;

/* Valid from lc_index_run of a group until that of the next. */
typedef struct lc_index_state {
    float *q;        /* [M][heads][dim] scaled and rotated */
    float *raw, *k;  /* [M][dim] before and after norm and rotation */
    float *weights;  /* [M][heads] */
    void *keys;      /* elements [M][dim p] */
    void *queries;   /* elements [heads][M][dim p] */
    double *entropy; /* [M] sum of p log p over members */
    float *dq;       /* [M][heads][dim] */
    float *dk;       /* [heads][M][dim]; then [M][dim], [M][dim] in front */
    float *dweights; /* [M][heads] */
} lc_index_state;

/* Floats from one row of scores to the next, for sequences of `length`. */
static inline size_t lc_index_stride(size_t length) { return (length + 15) / 16 * 16; }

typedef struct lc_index_pass {
    const lc_index_shape *shape;
    const lc_index_net *w;
    const lc_rows *rows;
    const lc_index_state *s;
    float *scores;    /* [M][ld] I(t, s) of the document's causal keys */
    float *targets;   /* [M][ld] sum of the members' target probabilities; loss only */
    size_t ld;        /* lc_index_stride(T) or more */
    uint64_t *chosen; /* [M][words] */
} lc_index_pass;

/* Scores from the normed input x and the query latent cq. */
int lc_index_run(const lc_tape *t, const lc_index_pass *p, const float *x, const float *cq,
                 lc_err *err);
/* Fills p->chosen. */
void lc_index_choose(const lc_tape *t, const lc_index_pass *p);

/* The loss: begin, members in order, end. Keys: p->chosen if `sparse`, else all. A member's target
 * is the mean over heads of its attention's probabilities; row i counts if i % T < length - skip
 * and, with documents, its token `skip` rows on is of the same one. */
typedef struct lc_index_member {
    const lc_mla_pass *attention;
    size_t skip;
} lc_index_member;
void lc_index_loss_begin(const lc_tape *t, const lc_index_pass *p);
void lc_index_loss_add(const lc_tape *t, const lc_index_pass *p, const lc_index_member *member);
/* Adds sum of KL(target || softmax of I) over members and a sequence's rows to its place in sums
 * [p->rows->rows]; with t->grad the indexer's gradients times scale. */
int lc_index_loss_end(const lc_tape *t, const lc_index_pass *p, const lc_index_member *members,
                      size_t n_members, bool sparse, float scale, const float *x, const float *cq,
                      double *sums, lc_err *err);

size_t lc_index_loss_floats(const lc_op *op, const lc_mla_shape *mla, const lc_index_shape *s,
                            size_t length);
bool lc_index_row_counts(const lc_rows *rows, size_t row, size_t skip);

#endif
