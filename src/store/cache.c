/*
 * cache.c: names of blocks, the RAM tier, what is evicted.
 *
 * Eviction needs no tree: whoever uses a block uses all blocks before it, so a block's hits and its
 * time of use are never above its parent's, and the lowest score (ties: the deepest) is always a
 * leaf. Times are set a nanosecond apart along a chain to keep the order on the disk too.
 */
#include "store/cache_internal.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BUCKETS = 1 << 16, READ_AHEAD = 64 };
static const double half_life = 6 * 3600; /* seconds */

struct lc_cache {
    lc_cache_options o;
    lc_cache_key root; /* of the model */
    size_t block_bytes;
    lc_disk *disk; /* NULL: no such tier */
    lc_cache_block **buckets;
    lc_cache_stats stats;
    pthread_mutex_t lock; /* of told; never held while a disk is waited for */
    lc_cache_stats told;  /* what stats were after the last call */
};

static void tell_stats(lc_cache *c) {
    pthread_mutex_lock(&c->lock);
    c->told = c->stats;
    pthread_mutex_unlock(&c->lock);
}

/* ---- names ---- */

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

/* The first 128 bits of SHA-256 over secret, what comes before, and data. */
static bool make_key(const lc_cache *c, const lc_cache_key *before, uint64_t tenant,
                     const void *data, size_t size, lc_cache_key *out) {
    char hex[65];
    lc_hash *h = lc_hash_new(LC_HASH_SHA256);
    if (!h) return false;
    lc_hash_update(h, c->o.secret, sizeof c->o.secret);
    lc_hash_update(h, before, sizeof *before);
    lc_hash_update(h, &tenant, sizeof tenant);
    lc_hash_update(h, data, size);
    lc_hash_finish(h, hex);
    for (size_t i = 0; i < 16; i++)
        out->bytes[i] = (uint8_t)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
    return *hex;
}

static size_t bucket_of(const lc_cache_key *key) {
    return (size_t)key->bytes[0] | (size_t)key->bytes[1] << 8;
}

static lc_cache_block *find(const lc_cache *c, const lc_cache_key *key) {
    lc_cache_block *b = c->buckets[bucket_of(key)];
    while (b && memcmp(&b->key, key, sizeof *key) != 0) b = b->next;
    return b;
}

static lc_cache_block *add(lc_cache *c, const lc_cache_key *key) {
    lc_cache_block *b = lc_calloc(1, sizeof *b), **place = &c->buckets[bucket_of(key)];
    if (!b) return NULL;
    b->key = *key;
    b->next = *place;
    *place = b;
    return b;
}

static void drop_data(lc_cache *c, lc_cache_block *b) {
    if (!b->data) return;
    lc_kv_block_drop(b->data);
    b->data = NULL;
    c->stats.ram_blocks--;
    c->stats.ram_bytes -= c->block_bytes;
}

static void drop_file(lc_cache *c, lc_cache_block *b) {
    if (!b->file) return;
    b->file = false;
    c->stats.disk_blocks--;
    c->stats.disk_bytes -= lc_disk_file_bytes(c->disk);
}

/* A block that is in no tier is forgotten. */
static void forget(lc_cache *c, lc_cache_block *b) {
    if (b->data || b->file) return;
    lc_cache_block **place = &c->buckets[bucket_of(&b->key)];
    while (*place != b) place = &(*place)->next;
    *place = b->next;
    lc_free(b);
}

/* A file that isn't there for us is removed for good, so that none is left uncounted: it may still
 * be with the writer. */
static void lose_file(lc_cache *c, lc_cache_block *b) {
    if (b->file) lc_disk_remove(c->disk, &b->key);
    drop_file(c, b);
}

/* Blocks that the writer could not write are offered again at their next save. */
static void take_lost(lc_cache *c) {
    for (lc_cache_key key; c->disk && lc_disk_lost(c->disk, &key);) {
        lc_cache_block *b = find(c, &key);
        if (!b) continue;
        lose_file(c, b);
        forget(c, b);
    }
}

/* ---- use and eviction ---- */

static double score(const lc_cache_block *b, uint64_t now) {
    double age = now > b->used_ns ? (double)(now - b->used_ns) / 1e9 : 0;
    return (b->hits + 1) * exp2(-age / half_life);
}

static void use(lc_cache *c, lc_cache_block *b, uint64_t now, bool hit) {
    double age = now > b->used_ns ? (double)(now - b->used_ns) / 1e9 : 0;
    b->hits = b->hits * exp2(-age / half_life) + (hit ? 1 : 0);
    b->used_ns = now - b->depth;
    if (hit && b->file) lc_disk_touch(c->disk, &b->key, b->used_ns);
}

static int by_score(const void *a, const void *b) {
    const lc_cache_block *x = *(lc_cache_block *const *)a, *y = *(lc_cache_block *const *)b;
    if (x->score != y->score) return x->score < y->score ? -1 : 1;
    return x->depth > y->depth ? -1 : x->depth < y->depth;
}

/* All blocks of a tier, the worst first; lc_free. */
static lc_cache_block **ranked(const lc_cache *c, bool ram, uint64_t now, size_t *n) {
    size_t most = ram ? c->stats.ram_blocks : c->stats.disk_blocks;
    lc_cache_block **list = lc_calloc(most + 1, sizeof *list);
    *n = 0;
    for (size_t i = 0; list && i < BUCKETS; i++)
        for (lc_cache_block *b = c->buckets[i]; b; b = b->next) {
            if (ram ? !b->data : !b->file) continue;
            b->score = score(b, now);
            list[(*n)++] = b;
        }
    if (list) qsort(list, *n, sizeof(lc_cache_block *), by_score);
    return list;
}

/* Makes room for one block, and then for a share of the tier, since ranking looks at all of it. */
static bool make_room(lc_cache *c, bool ram, uint64_t now) {
    uint64_t size = ram ? c->block_bytes : lc_disk_file_bytes(c->disk), free_bytes = 0, n_used;
    uint64_t budget = ram ? c->o.ram_bytes : c->o.disk_bytes;
    n_used = ram ? c->stats.ram_bytes : c->stats.disk_bytes;
    if (n_used + size <= budget) return true;
    if (size > budget) return false;
    uint64_t wanted = n_used + size - budget + budget / 32;
    size_t n;
    lc_cache_block **list = ranked(c, ram, now, &n);
    for (size_t i = 0; list && i < n && free_bytes < wanted; i++) {
        if (ram) {
            drop_data(c, list[i]);
        } else {
            lose_file(c, list[i]);
        }
        free_bytes += size;
        c->stats.evicted++;
        forget(c, list[i]);
    }
    lc_free(list);
    return (ram ? c->stats.ram_bytes : c->stats.disk_bytes) + size <= budget;
}

/* ---- a chain of blocks ---- */

typedef struct chain {
    const int32_t *tokens;
    size_t blocks; /* whole ones that may be used */
    uint64_t tenant;
    size_t at;
    lc_cache_key parent, key; /* of block `at` */
} chain;

static bool next_block(const lc_cache *c, chain *w) {
    if (w->at) w->parent = w->key;
    return make_key(c, &w->parent, w->tenant, w->tokens + w->at * LC_CACHE_BLOCK,
                    LC_CACHE_BLOCK * sizeof *w->tokens, &w->key);
}

static chain begin_chain(const lc_cache *c, uint64_t tenant, const int32_t *tokens, size_t count) {
    return (chain){
        .tokens = tokens, .blocks = count / LC_CACHE_BLOCK, .tenant = tenant, .parent = c->root};
}

static bool same(const lc_cache_block *b, const chain *w) {
    return b->tenant == w->tenant && !memcmp(&b->parent, &w->parent, sizeof b->parent) &&
           !memcmp(b->tokens, w->tokens + w->at * LC_CACHE_BLOCK, sizeof b->tokens);
}

size_t lc_cache_match(lc_cache *c, uint64_t tenant, const int32_t *tokens, size_t count) {
    chain w = begin_chain(c, tenant, tokens, count ? count - 1 : 0);
    for (; w.at < w.blocks && next_block(c, &w); w.at++) {
        const lc_cache_block *b = find(c, &w.key);
        if (!b || (b->described && !same(b, &w))) break;
    }
    return w.at * LC_CACHE_BLOCK;
}

static void describe(lc_cache_block *b, const chain *w) {
    b->parent = w->parent;
    b->tenant = w->tenant;
    memcpy(b->tokens, w->tokens + w->at * LC_CACHE_BLOCK, sizeof b->tokens);
    b->depth = (uint32_t)w->at;
    b->described = true;
}

/* Files of consecutive blocks, read together by all threads. */
typedef struct read_ahead {
    lc_cache *c;
    size_t first, n; /* blocks of the chain */
    struct {
        lc_disk_block block;
        bool whole, damaged;
    } files[READ_AHEAD];
} read_ahead;

static void read_files(void *ctx, size_t begin, size_t end, int thread) {
    read_ahead *a = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        lc_disk_block *file = &a->files[i].block;
        a->files[i].whole =
            file->data && lc_disk_read(a->c->disk, &file->key, file, &a->files[i].damaged);
    }
}

static void drop_ahead(read_ahead *a) {
    for (size_t i = 0; i < a->n; i++) lc_kv_block_drop(a->files[i].block.data);
    a->n = 0;
}

/* Block w->at and those behind it, as long as they are in files only; files that aren't whole are
 * forgotten. */
static void read_from(read_ahead *a, chain w) {
    drop_ahead(a);
    a->first = w.at;
    do {
        const lc_cache_block *b = find(a->c, &w.key);
        if (!b || b->data || !b->file) break;
        memset(&a->files[a->n], 0, sizeof *a->files);
        a->files[a->n].block.key = w.key;
        a->files[a->n++].block.data = lc_kv_block_new(a->c->block_bytes);
    } while (a->n < READ_AHEAD && ++w.at < w.blocks && next_block(a->c, &w));
    lc_pool_for(a->c->o.pool, a->n, 1, read_files, a);
    for (size_t i = 0; i < a->n; i++) {
        if (a->files[i].whole || !a->files[i].block.data) continue;
        lc_cache_block *b = find(a->c, &a->files[i].block.key);
        if (a->files[i].damaged) a->c->stats.damaged++;
        lose_file(a->c, b);
        if (i > 0) forget(a->c, b); /* the first is the caller's */
    }
}

/* Takes the block from its file. False: it isn't there, isn't whole, or isn't this block. */
static bool fetch(read_ahead *a, lc_cache_block *b, const chain *w, uint64_t now) {
    lc_cache *c = a->c;
    if (!b->file || !make_room(c, true, now)) return false;
    if (w->at - a->first >= a->n) read_from(a, *w);
    if (!a->files[w->at - a->first].whole) return false;
    lc_disk_block *file = &a->files[w->at - a->first].block;
    b->parent = file->parent;
    b->tenant = file->tenant;
    memcpy(b->tokens, file->tokens, sizeof b->tokens);
    b->depth = (uint32_t)w->at;
    b->described = true;
    b->data = file->data;
    file->data = NULL;
    c->stats.ram_blocks++;
    c->stats.ram_bytes += c->block_bytes;
    return true;
}

int lc_cache_load(lc_cache *c, uint64_t tenant, const int32_t *tokens, size_t count, lc_kv *kv,
                  size_t *loaded, lc_err *err) {
    chain w = begin_chain(c, tenant, tokens, count ? count - 1 : 0);
    uint64_t now = now_ns();
    int status = LC_OK;
    *loaded = 0;
    if (kv->n_blocks) return lc_fail(err, LC_EINVAL, "prompt cache: the sequence isn't empty");
    read_ahead *ahead = lc_calloc(1, sizeof *ahead);
    if (!ahead) return lc_fail(err, LC_ENOMEM, "prompt cache: out of memory");
    ahead->c = c;
    take_lost(c);
    c->stats.queries += count;
    for (; w.at < w.blocks && next_block(c, &w); w.at++) {
        lc_cache_block *b = find(c, &w.key);
        bool from_disk = b && !b->data;
        if (!b || (from_disk && !fetch(ahead, b, &w, now)) || !same(b, &w)) {
            if (b) forget(c, b);
            break;
        }
        status = lc_kv_append(kv, b->data, err);
        if (status != LC_OK) break;
        use(c, b, now, true);
        c->stats.hits += LC_CACHE_BLOCK;
        if (from_disk) c->stats.hits_disk += LC_CACHE_BLOCK;
    }
    drop_ahead(ahead);
    lc_free(ahead);
    tell_stats(c);
    *loaded = w.at * LC_CACHE_BLOCK;
    return status;
}

/* A block that the writer refuses is offered again at the next save. */
static void save_file(lc_cache *c, lc_cache_block *b, uint64_t now) {
    if (!c->disk || b->file || !make_room(c, false, now)) return;
    lc_disk_block file = {.key = b->key, .parent = b->parent, .tenant = b->tenant, .data = b->data};
    memcpy(file.tokens, b->tokens, sizeof file.tokens);
    if (!lc_disk_write(c->disk, &file, b->used_ns)) return;
    b->file = true;
    c->stats.disk_blocks++;
    c->stats.disk_bytes += lc_disk_file_bytes(c->disk);
}

/* One block of a chain; false ends the chain: there is no room. */
static bool save_block(lc_cache *c, const chain *w, const lc_kv *kv, uint64_t now) {
    lc_cache_block *b = find(c, &w->key);
    if (b && b->described && !same(b, w)) return false;
    if (!b || !b->data) {
        if (!make_room(c, true, now)) return false;
        if (w->at && !find(c, &w->parent)) return false; /* the room was its own parent's */
        b = find(c, &w->key);                            /* may have been forgotten just now */
        if (!b) b = add(c, &w->key);
        if (!b) return false;
        b->data = lc_kv_block_share(kv->blocks[w->at]);
        describe(b, w);
        c->stats.ram_blocks++;
        c->stats.ram_bytes += c->block_bytes;
    }
    use(c, b, now, false);
    save_file(c, b, now);
    return true;
}

int lc_cache_save(lc_cache *c, uint64_t tenant, const int32_t *tokens, size_t count,
                  const lc_kv *kv, lc_err *err) {
    chain w = begin_chain(c, tenant, tokens, count);
    uint64_t now = now_ns();
    if (w.blocks > kv->n_blocks)
        return lc_fail(err, LC_EINVAL, "prompt cache: %zu tokens, %zu blocks of 64", count,
                       kv->n_blocks);
    take_lost(c);
    for (; w.at < w.blocks && next_block(c, &w) && save_block(c, &w, kv, now); w.at++) continue;
    tell_stats(c);
    return LC_OK;
}

/* ---- the whole ---- */

int lc_cache_drop(lc_cache *c, uint64_t tenant, lc_err *err) {
    lc_disk_block file = {.data = lc_alloc(c->block_bytes)};
    if (!file.data) return lc_fail(err, LC_ENOMEM, "prompt cache: out of memory");
    if (c->disk) lc_disk_flush(c->disk);
    for (size_t i = 0; i < BUCKETS; i++)
        for (lc_cache_block *b = c->buckets[i], *next; b; b = next) {
            bool damaged;
            next = b->next;
            bool known = b->described || lc_disk_read(c->disk, &b->key, &file, &damaged);
            if (known && (b->described ? b->tenant : file.tenant) != tenant) continue;
            lose_file(c, b);
            drop_data(c, b);
            forget(c, b);
        }
    tell_stats(c);
    if (c->disk) lc_disk_flush(c->disk);
    lc_free(file.data);
    return LC_OK;
}

void lc_cache_flush(lc_cache *c) {
    if (c->disk) lc_disk_flush(c->disk);
}

void lc_cache_stats_get(lc_cache *c, lc_cache_stats *out) {
    pthread_mutex_lock(&c->lock);
    *out = c->told;
    pthread_mutex_unlock(&c->lock);
    if (c->disk) out->written = lc_disk_written(c->disk, &out->disk_failed);
}

static void found(void *ctx, const lc_cache_key *key, uint64_t used_ns) {
    lc_cache *c = ctx;
    lc_cache_block *b = add(c, key);
    if (!b) return;
    b->file = true;
    b->used_ns = used_ns;
    c->stats.disk_blocks++;
}

int lc_cache_open(const lc_cache_options *options, lc_cache **out, lc_err *err) {
    lc_cache *c = lc_calloc(1, sizeof *c);
    *out = NULL;
    if (!c) return lc_fail(err, LC_ENOMEM, "prompt cache: out of memory");
    c->o = *options;
    c->block_bytes = lc_kv_block_bytes(&options->layout);
    pthread_mutex_init(&c->lock, NULL);
    c->buckets = lc_calloc(BUCKETS, sizeof(lc_cache_block *));
    int status = c->buckets && make_key(c, &(lc_cache_key){0}, 0, options->identity,
                                        options->identity_size, &c->root)
                     ? LC_OK
                     : lc_fail(err, LC_ENOMEM, "prompt cache: out of memory");
    if (status == LC_OK && options->folder)
        status = lc_disk_open(options->folder, c->block_bytes, found, c, &c->disk, err);
    if (status != LC_OK) {
        lc_cache_close(c);
        return status;
    }
    if (c->disk) c->stats.disk_bytes = c->stats.disk_blocks * lc_disk_file_bytes(c->disk);
    if (c->disk) make_room(c, false, now_ns());
    tell_stats(c);
    *out = c;
    return LC_OK;
}

void lc_cache_close(lc_cache *c) {
    if (!c) return;
    lc_disk_close(c->disk);
    for (size_t i = 0; i < BUCKETS && c->buckets; i++)
        for (lc_cache_block *b = c->buckets[i], *next; b; b = next) {
            next = b->next;
            lc_kv_block_drop(b->data);
            lc_free(b);
        }
    lc_free(c->buckets);
    pthread_mutex_destroy(&c->lock);
    lc_free(c);
}
