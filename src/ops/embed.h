/*
 * embed.h: token embedding, with n-gram tables where the model has them (docs/model.md 2.1):
 *     x = (E[token] + sum over tables i of P_i Tab_i[id_i]) / (1 + T), tables in index order.
 */
#ifndef LC_OPS_EMBED_H
#define LC_OPS_EMBED_H

#include "format/config.h"
#include "ops/linear.h"

enum { LC_MAX_NGRAM_ORDER = 16 };

typedef struct lc_ngram_table {
    lc_mat rows;                       /* Tab_i [M_i][H/T] */
    lc_mat projection;                 /* P_i [H][H/T] */
    int64_t modulus;                   /* M_i */
    int64_t power[LC_MAX_NGRAM_ORDER]; /* V^d mod M_i */
    size_t order;                      /* n: looks at n tokens, its own included */
} lc_ngram_table;

typedef struct lc_embedding {
    const lc_mat *words;    /* E [V][H] */
    lc_ngram_table *tables; /* [n_tables]; NULL without n-grams */
    size_t n_tables;
    bool full_word, eos_reset; /* switches ngram_fusion and ngram_eos_reset */
    int32_t eos;
} lc_embedding;

/* Fills modulus, powers and order of a table. */
void lc_ngram_table_init(lc_ngram_table *table, const lc_config *config, size_t index);

/* Row id of the token at tokens[at], looking back in tokens[0..at]. */
int64_t lc_ngram_row(const lc_ngram_table *table, const int32_t *tokens, size_t at, bool eos_reset,
                     int32_t eos);

/* Floats of the buffer of packed n-gram rows for M rows, and of a thread's scratch. */
size_t lc_embed_gather_floats(const lc_op *op, size_t rows, size_t hidden, size_t n_tables);
size_t lc_embed_scratch(const lc_op *op, size_t rows, size_t hidden, size_t n_tables);

/* out [M][H]; gather: the buffer above. Token ids must be in 0..V-1 (the session checks). */
int lc_embed(const lc_op *op, const lc_embedding *e, size_t m, const lc_row *rows, float *gather,
             float *out, lc_err *err);

#endif
