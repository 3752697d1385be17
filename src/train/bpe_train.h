/*
 * bpe_train.h: byte-pair merges from counted pieces. The rules are those of `BpeTrainer` in Hugging
 * Face's tokenizers, so that both make the same merges from the same corpus:
 *
 *   - ids: special tokens, then the 256 characters of the byte alphabet by code point, then one for
 *     each merge whose result is new;
 *   - each step merges the pair with the highest count over all pieces; of equal counts the one
 * with the lower left id, then the lower right id;
 *   - it ends when the vocabulary is full or no pair is left.
 * One difference: a pair that comes up again (after another pair has made its part anew) is merged,
 * but doesn't get a second line.
 */
#ifndef LC_TRAIN_BPE_TRAIN_H
#define LC_TRAIN_BPE_TRAIN_H

#include "train/piece_count.h"

typedef struct lc_bpe_pair {
    uint32_t left, right;
} lc_bpe_pair;

typedef struct lc_bpe_model {
    lc_buf text;         /* contents of all ids, each with a NUL */
    size_t *offset;      /* [vocab] */
    size_t vocab;        /* ids in use */
    lc_bpe_pair *merges; /* in order of rank */
    size_t n_merges;
    size_t peak; /* bytes that the merging needed, without counts */
} lc_bpe_model;

typedef struct lc_bpe_options {
    const char *const *special;
    size_t n_special;
    size_t vocab;                            /* ids wanted, special tokens included */
    bool (*progress)(void *ctx, size_t ids); /* false stops: LC_ECANCELED. May be NULL */
    void *ctx;
} lc_bpe_options;

static inline const char *lc_bpe_model_content(const lc_bpe_model *model, size_t id) {
    return model->text.data + model->offset[id];
}

/* Empties the counts on the way, to save memory. */
int lc_bpe_train(lc_piece_counts *counts, const lc_bpe_options *options, lc_bpe_model *out,
                 lc_err *err);
void lc_bpe_model_free(lc_bpe_model *model);

#endif
