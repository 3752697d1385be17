/*
 * shard_internal.h: the header of a shard as it is on disk, shared by reader and writer.
 */
#ifndef LC_TRAIN_SHARD_INTERNAL_H
#define LC_TRAIN_SHARD_INTERNAL_H

#include "train/shard.h"

#include <stddef.h>
#include <string.h>
#include <xxhash.h>

#define LC_SHARD_MAGIC "LCTOKENS"
enum { LC_SHARD_VERSION = 1, LC_SHARD_MASKED = 1, LC_SHARD_ALIGN = 64 };

typedef struct lc_shard_head {
    char magic[8];
    uint32_t version, token_bytes;
    uint32_t flags, vocab;
    uint32_t eos, number;
    uint64_t documents, tokens;
    uint8_t tokenizer[32];
    uint64_t index_sum; /* XXH3-64 of the index */
    uint8_t zero[32];
    uint64_t sum; /* XXH3-64 of the bytes before */
} lc_shard_head;
_Static_assert(sizeof(lc_shard_head) == LC_SHARD_HEADER, "the header's size is part of the format");
_Static_assert(offsetof(lc_shard_head, sum) == 120, "the header's layout is part of the format");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are little-endian");

typedef struct lc_shard_entry {
    uint64_t first, sum;
} lc_shard_entry;

/* Where the sections begin, and the file's size. */
typedef struct lc_shard_layout {
    uint64_t mask, index, end;
} lc_shard_layout;

static inline uint64_t lc_shard_up(uint64_t n) {
    return (n + LC_SHARD_ALIGN - 1) & ~(uint64_t)(LC_SHARD_ALIGN - 1);
}
/* documents and tokens are below 2^48. */
static inline lc_shard_layout lc_shard_plan(const lc_shard_head *h) {
    lc_shard_layout l;
    l.mask = lc_shard_up(LC_SHARD_HEADER + h->tokens * h->token_bytes);
    l.index = l.mask + (h->flags & LC_SHARD_MASKED ? lc_shard_up(h->tokens) : 0);
    l.end = l.index + h->documents * sizeof(lc_shard_entry);
    return l;
}

/* The checksum of a document; mask NULL = all ones. */
static inline uint64_t lc_shard_sum(const void *tokens, size_t bytes, const uint8_t *mask,
                                    size_t count) {
    uint64_t seed = mask && memchr(mask, 0, count) ? XXH3_64bits(mask, count) : 0;
    return XXH3_64bits_withSeed(tokens, bytes, seed);
}

#endif
