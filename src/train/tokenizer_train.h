/*
 * tokenizer_train.h: from a corpus to a tokenizer.json of the 2.0 family: its pre-tokenizer, its
 * special tokens (ids from 0), byte-level BPE. The file is one that Hugging Face's `tokenizers`
 * loads and encodes with as we do. Same corpus and options, same bytes: threads don't matter, and
 * the order of documents only if the memory limit was reached.
 */
#ifndef LC_TRAIN_TOKENIZER_TRAIN_H
#define LC_TRAIN_TOKENIZER_TRAIN_H

#include "base/pool.h"
#include "train/corpus.h"

enum { LC_TOKENIZER_SPECIAL_MAX = 256 };

typedef struct lc_tokenizer_progress {
    uint64_t bytes, all_bytes; /* of the corpus */
    size_t ids, all_ids;       /* 0 while the corpus is read */
} lc_tokenizer_progress;

typedef struct lc_tokenizer_options {
    lc_corpus_options corpus;
    size_t vocab;               /* ids, special ones included; at least 278 + n_special */
    const char *const *special; /* beyond the family's 22, which come first */
    size_t n_special;
    size_t memory; /* bytes for counting and merging, about; 0 = 1 GB. A third is for pieces */
    lc_pool *pool;
    bool (*progress)(void *ctx, const lc_tokenizer_progress *p); /* false stops. May be NULL */
    void *ctx;
} lc_tokenizer_options;

typedef struct lc_tokenizer_result {
    lc_corpus_counts counts;
    size_t pieces; /* different ones that the merges were learned from */
    size_t vocab, merges;
    uint64_t dropped, rarest; /* pieces lost to the memory limit: occurrences, highest count */
} lc_tokenizer_result;

/* Writes path (to <path>.part first, synced, renamed). A corpus too small for `vocab` gives fewer
 * ids; result says so. */
int lc_tokenizer_train(const lc_tokenizer_options *options, const char *path,
                       lc_tokenizer_result *result, lc_err *err);

/* The family's special tokens, in the order of their ids. */
extern const char *const lc_family_tokens[];
extern const size_t lc_family_n_tokens;

#endif
