/*
 * prepare_internal.h: the parts of prepare.h's work:
 *   prepare.c           the pipeline: batches, verdicts, shards
 *   prepare_document.c  one document: fingerprint, cuts, ids and mask; what threads do
 *   prepare_folder.c    the folder: its lock, its leftovers, the manifest
 */
#ifndef LC_TRAIN_PREPARE_INTERNAL_H
#define LC_TRAIN_PREPARE_INTERNAL_H

#include "text/chat.h"
#include "train/batch.h"
#include "train/dedup.h"
#include "train/exclude.h"
#include "train/prepare.h"
#include "train/shardset.h"

/* ---- documents ---- */

/* What the work on documents needs; shared by threads, not changed. */
typedef struct lc_encoder {
    lc_tokenizer *tokenizer;
    lc_chat_template *chat; /* NULL until a conversation comes */
    lc_exclude *exclude;    /* or NULL */
    int32_t eos, assistant; /* assistant -1: the tokenizer has no such token */
    lc_fim_tokens fim_tokens;
    double fim;
    uint64_t seed;
    bool near;
} lc_encoder;

typedef struct lc_item {
    const lc_document *doc;
    lc_fingerprint *print;
    lc_stretches parts;
    bool drop;                            /* nothing of it is written */
    lc_ids ids;                           /* of all its parts, each with its EOS */
    lc_buf mask;                          /* a byte an id; conversations only */
    size_t ends[LC_EXCLUDE_CUTS_MAX + 1]; /* of the parts in ids */
    size_t n_ends, fim;
    bool bad_chat;
    int status; /* of the whole run: memory */
    lc_err err;
} lc_item;

/* Fingerprint and cuts; words is a thread's scratch. */
void lc_item_scan(const lc_encoder *encoder, lc_item *item, lc_words *words);
/* Ids and mask of the parts. */
void lc_item_encode(const lc_encoder *encoder, lc_item *item);
void lc_item_free(lc_item *item);

/* ---- folder ---- */

typedef struct lc_prepare_folder {
    const char *path;
    int lock;
} lc_prepare_folder;

int lc_prepare_folder_begin(lc_prepare_folder *folder, const char *path, lc_err *err);
int lc_prepare_folder_sync(const lc_prepare_folder *folder, lc_err *err); /* before the manifest */
int lc_prepare_folder_end(lc_prepare_folder *folder, lc_err *err);        /* the set is finished */
void lc_prepare_folder_leave(lc_prepare_folder *folder);                  /* it is not */

#define LC_PREPARE_SHARD "shard-%05u.tokens"

typedef struct lc_shard_note {
    uint64_t checksum, documents, tokens, bytes;
} lc_shard_note;

typedef struct lc_manifest {
    const lc_prepare_options *options;
    const lc_prepare_result *result;
    const lc_shard_kind *kind;
    const lc_shard_note *shards;
    const char *name;
    uint64_t exclude_documents;
} lc_manifest;
int lc_manifest_write(const lc_manifest *manifest, lc_err *err);

#endif
