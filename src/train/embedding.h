/*
 * embedding.h: word and n-gram embedding of the training net (docs/model.md 2.1). Gradients of
 * looked-up rows are sorted by row and added in token order.
 */
#ifndef LC_TRAIN_EMBEDDING_H
#define LC_TRAIN_EMBEDDING_H

#include "ops/embed.h"
#include "train/tape.h"

typedef struct lc_embed_net {
    lc_weight words;
    size_t n_tables;
    const lc_ngram_table *tables; /* [n_tables] moduli and powers; their matrices aren't used */
    const lc_weight *table_rows, *projections;
    bool full_word, eos_reset;
    int32_t eos;
} lc_embed_net;

typedef struct lc_embed_pass {
    const lc_embed_net *w;
    size_t rows, length;
    const int32_t *tokens; /* [rows][length] */
    /* scratch */
    int64_t *ids;        /* [1 + n_tables][M]: words, then tables */
    float *gathered;     /* [n_tables][M][H/T] */
    float *sum;          /* [M][H] */
    uint32_t *order;     /* [1 + n_tables][2][M] */
    lc_matmul *products; /* [2 n_tables] */
} lc_embed_pass;

/* out [M][H]. */
int lc_embed_run(const lc_tape *t, const lc_embed_pass *p, float *out, lc_err *err);
/* After lc_embed_run with the same pass. */
int lc_embed_back(const lc_tape *t, const lc_embed_pass *p, const float *dout, lc_err *err);

#endif
