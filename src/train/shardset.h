/*
 * shardset.h: one source of training data: a folder that `longcat train data` has finished. Its
 * manifest.json names the shards; documents are numbered through all of them, in that order.
 */
#ifndef LC_TRAIN_SHARDSET_H
#define LC_TRAIN_SHARDSET_H

#include "train/shard.h"

#define LC_SHARDSET_FORMAT "longcat-train-data"
enum { LC_SHARDSET_VERSION = 1, LC_SHARDSET_MAX = 65536 /* shards */ };

typedef struct lc_shardset lc_shardset;

/* Opens and checks the manifest and every shard against it; an unfinished folder is an error. */
int lc_shardset_open(const char *folder, lc_shardset **out, lc_err *err);
void lc_shardset_close(lc_shardset *set);
const char *lc_shardset_name(const lc_shardset *set);
const lc_shard_kind *lc_shardset_what(const lc_shardset *set);
uint64_t lc_shardset_documents(const lc_shardset *set);
uint64_t lc_shardset_tokens(const lc_shardset *set);
uint64_t lc_shardset_checksum(const lc_shardset *set); /* stands for every byte of every shard */
/* doc below lc_shardset_documents. */
uint32_t lc_shardset_length(const lc_shardset *set, uint64_t doc);
int lc_shardset_read(const lc_shardset *set, const lc_shard_part *part, lc_err *err);

#endif
