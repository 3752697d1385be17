/*
 * cache.h: prompt cache: what sessions computed, kept by content so that any later session with the
 * same beginning goes on from there. Two tiers: RAM, and files that survive kill -9 and power cuts.
 *
 * Identity: blocks of LC_CACHE_BLOCK tokens; a block's 128-bit key is a keyed hash over its
 * parent's key and its tokens; the root's over the model (weights, layout, compute type, program's
 * numerics version) and the tenant's salt. Token ids are stored and compared on a hit. A tree over
 * blocks serves matching, pinning and eviction (leaves first; score: decayed hits and tokens saved
 * over bytes). Hit and miss give the same bits, since a KV row is a pure function of the tokens
 * before it.
 *
 * Disk: one file a block, written beside the engine by a thread of the cache: temporary name,
 * payload, checksum, fdatasync, rename, fsync of the folder. No index is trusted: names are scanned
 * at the start, headers and checksums checked when a block is read; a damaged file is removed and
 * counts as absent. A full or failing disk costs the disk tier only, with one message.
 *
 * Threads: all calls from one thread (the scheduler's), except lc_cache_stats.
 */
#ifndef LC_STORE_CACHE_H
#define LC_STORE_CACHE_H

#include "base/pool.h"
#include "store/kv.h"

enum { LC_CACHE_BLOCK = LC_KV_BLOCK };

typedef struct lc_cache_options {
    lc_kv_layout layout;
    const void *identity; /* what makes two models different, any bytes */
    size_t identity_size;
    size_t ram_bytes;
    const char *folder; /* NULL = no disk tier; made with mode 0700 */
    uint64_t disk_bytes;
    uint8_t secret[32]; /* of the server: keys the hash */
    lc_pool *pool;      /* reads files together; NULL: the caller alone */
} lc_cache_options;

typedef struct lc_cache lc_cache;
int lc_cache_open(const lc_cache_options *options, lc_cache **out, lc_err *err);
/* Waits until what is to be written is on the disk. */
void lc_cache_close(lc_cache *cache);

/* Longest known beginning of tokens, in tokens (a multiple of LC_CACHE_BLOCK, < count: the last
 * token must be computed for its logits). Nothing is read. */
size_t lc_cache_match(lc_cache *cache, uint64_t tenant, const int32_t *tokens, size_t count);
/* Gives an empty kv the blocks of the longest beginning that is really there, from both tiers;
 * *loaded tokens, 0 on a miss. Never fails for a damaged file. */
int lc_cache_load(lc_cache *cache, uint64_t tenant, const int32_t *tokens, size_t count, lc_kv *kv,
                  size_t *loaded, lc_err *err);
/* Keeps the whole blocks of tokens[0..count) that aren't kept yet, shared with kv. */
int lc_cache_save(lc_cache *cache, uint64_t tenant, const int32_t *tokens, size_t count,
                  const lc_kv *kv, lc_err *err);
/* Forgets a tenant in both tiers. */
int lc_cache_drop(lc_cache *cache, uint64_t tenant, lc_err *err);
/* Blocks until the writer has nothing left (tests, shutdown). */
void lc_cache_flush(lc_cache *cache);

typedef struct lc_cache_stats {
    size_t ram_blocks, ram_bytes, disk_blocks;
    uint64_t disk_bytes, hits, hits_disk, queries; /* in tokens */
    uint64_t written, damaged, evicted;            /* blocks */
    bool disk_failed;
} lc_cache_stats;
void lc_cache_stats_get(lc_cache *cache, lc_cache_stats *out);

#endif
