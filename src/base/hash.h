/* hash.h: XXH3-128 for cache integrity and result hashes, SHA-256 for what the hub states.
 * Streaming and as hex. */
#ifndef LC_BASE_HASH_H
#define LC_BASE_HASH_H

#include "longcat.h"

typedef struct lc_hash lc_hash;
typedef enum lc_hash_kind { LC_HASH_XXH128, LC_HASH_SHA256, LC_HASH_SHA1 } lc_hash_kind;

lc_hash *lc_hash_new(lc_hash_kind kind); /* NULL when memory is short */
void lc_hash_update(lc_hash *hash, const void *data, size_t size);
/* Writes lower-case hex with NUL (32, 64 or 40 digits) and frees the hash. Should the library have
 * failed, the text is empty, so that it equals no expected hash. */
void lc_hash_finish(lc_hash *hash, char hex[65]);

#endif
