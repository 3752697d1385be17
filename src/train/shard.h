/*
 * shard.h: token shards, what `longcat train data` writes and training reads. Layout (all integers
 * little-endian; docs/training.md has the table):
 *
 *   header    128 bytes, see shard.c; its last 8 bytes are the XXH3-64 of the others
 *   tokens    uint16 or uint32 each, documents one behind the other, each ended by EOS
 *   mask      one byte a token, only where a document of the shard has one: 1 = the token is a
 *             target
 *   index     16 bytes a document: its first token, and the XXH3-64 of its tokens, with the XXH3-64
 *             of its mask as the seed (0 where the mask is all ones)
 *
 * Sections begin at multiples of 64. The header holds the checksum of the index and the index those
 * of the documents, so the header's checksum stands for the whole file; the manifest keeps it.
 * A reader checks header and index when it opens a file and each document when it reads it.
 */
#ifndef LC_TRAIN_SHARD_H
#define LC_TRAIN_SHARD_H

#include "base/buf.h"
#include "base/err.h"

enum {
    LC_SHARD_HEADER = 128,
    LC_SHARD_DOC_MAX = 1 << 28,   /* tokens of a document */
    LC_SHARD_VOCAB_MAX = 1 << 22, /* ids are below this */
};

/* What all shards of a set have in common. */
typedef struct lc_shard_kind {
    uint32_t token_bytes; /* 2 or 4 */
    uint32_t vocab;       /* ids are below this */
    uint32_t eos;
    uint8_t tokenizer[32]; /* SHA-256 of tokenizer.json */
} lc_shard_kind;

/* ---- reading ---- */

typedef struct lc_shard lc_shard;

/* Errors name the file and what is wrong with it. Memory: 8 bytes a document. */
int lc_shard_open(const char *path, lc_shard **out, lc_err *err);
void lc_shard_close(lc_shard *shard);
const lc_shard_kind *lc_shard_what(const lc_shard *shard);
uint64_t lc_shard_documents(const lc_shard *shard);
uint64_t lc_shard_tokens(const lc_shard *shard);
uint64_t lc_shard_checksum(const lc_shard *shard);             /* of the header, so of everything */
uint32_t lc_shard_length(const lc_shard *shard, uint64_t doc); /* tokens, EOS included; >= 1 */

/* A part of a document: tokens[0..count) from its token `first` on. The whole document is read and
 * checked. mask NULL = not wanted; a shard without masks gives ones. Threads may share a shard. */
typedef struct lc_shard_part {
    uint64_t doc;
    size_t first, count;
    int32_t *tokens;
    uint8_t *mask;
} lc_shard_part;
int lc_shard_read(const lc_shard *shard, const lc_shard_part *part, lc_err *err);

/* ---- writing ---- */

typedef struct lc_shard_writer lc_shard_writer;

/* Writes to <path>.part; finish syncs it and renames it to path. Memory: 16 bytes a document, and
 * a byte a token once there is a mask. */
int lc_shard_create(const char *path, const lc_shard_kind *kind, uint32_t number,
                    lc_shard_writer **out, lc_err *err);
/* mask NULL = all ones. count >= 1. */
int lc_shard_add(lc_shard_writer *writer, const int32_t *tokens, const uint8_t *mask, size_t count,
                 lc_err *err);
uint64_t lc_shard_written(const lc_shard_writer *writer); /* bytes so far, index included */
int lc_shard_finish(lc_shard_writer *writer, uint64_t *checksum, lc_err *err); /* frees it */
void lc_shard_abandon(lc_shard_writer *writer); /* removes the .part file; NULL is fine */

#endif
