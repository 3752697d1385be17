/*
 * prepare.h: from a corpus to a shard set (shardset.h), which is one source of a recipe. The steps,
 * for each document in the corpus' order:
 *
 *   1. exact and near duplicates of documents before are dropped (dedup.h);
 *   2. what stands in the --exclude files is cut out (exclude.h); a conversation is dropped whole;
 *   3. texts become ids as plain text (a special token's name in a text is no special token), some
 *      of them rearranged to fill in the middle; conversations are rendered by the chat template,
 *      and only what follows <longcat_assistant>, up to and with its EOS, is a target;
 *   4. each ends with EOS and goes to a shard.
 * Work is shared by threads; the shards are the same bytes for any number of them.
 */
#ifndef LC_TRAIN_PREPARE_H
#define LC_TRAIN_PREPARE_H

#include "base/pool.h"
#include "train/corpus.h"

typedef struct lc_prepare_progress {
    uint64_t bytes, all_bytes; /* of the corpus */
    uint64_t documents, tokens;
} lc_prepare_progress;

typedef struct lc_prepare_options {
    lc_corpus_options corpus;
    const char *out;           /* folder */
    const char *name;          /* of the source; NULL = the folder's */
    const char *tokenizer;     /* tokenizer.json, or a folder with one */
    const char *chat_template; /* for conversations; NULL = the one beside the tokenizer */
    const char *eos;           /* NULL = "</longcat_s>" */
    const char *const *exclude;
    size_t n_exclude;
    double near; /* similarity from which on a document is a near duplicate; 0 = off */
    double fim;  /* share of texts that are rearranged to fill in the middle; 0 = off */
    uint64_t seed;
    size_t shard_bytes; /* 0 = 256 MB */
    lc_pool *pool;
    bool (*progress)(void *ctx, const lc_prepare_progress *p); /* false stops. May be NULL */
    void *ctx;
} lc_prepare_options;

enum { LC_PREPARE_TYPES = 64 };

typedef struct lc_prepare_type {
    char name[16]; /* extension; the last of a full list is "other" */
    uint64_t documents, bytes, tokens;
} lc_prepare_type;

/* What became of the documents. */
#define LC_PREPARE_COUNTS(X)                                                                       \
    X(documents, "documents written")                                                              \
    X(tokens, "tokens, EOS included")                                                              \
    X(targets, "tokens that are targets")                                                          \
    X(fim, "texts rearranged to fill in the middle")                                               \
    X(cut, "texts with a part cut out because it stands in an evaluation file")                    \
    X(cut_bytes, "bytes cut out of them")                                                          \
    X(exact_duplicates, "exact duplicates")                                                        \
    X(near_duplicates, "near duplicates")                                                          \
    X(contaminated, "documents that stand in an evaluation file")                                  \
    X(bad_chat, "conversations that the template refuses")                                         \
    X(no_target, "conversations without an assistant's turn")
typedef struct lc_prepare_result {
    lc_corpus_counts read;
#define LC_PREPARE_FIELD(name, text) uint64_t name;
    LC_PREPARE_COUNTS(LC_PREPARE_FIELD)
#undef LC_PREPARE_FIELD
    uint64_t text_bytes; /* of the written documents' texts */
    size_t shards;
    lc_prepare_type types[LC_PREPARE_TYPES];
    size_t n_types;
    lc_err first_bad_chat; /* why, with file and line */
} lc_prepare_result;

/* The folder must be new, empty, or hold an unfinished run's leftovers, which are removed. One run
 * at a time. manifest.json comes last and makes the set valid. */
int lc_prepare(const lc_prepare_options *options, lc_prepare_result *result, lc_err *err);

#endif
