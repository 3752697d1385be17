/* cache_internal.h: what cache.c (names, RAM, eviction) and cache_disk.c (files) share. */
#ifndef LC_STORE_CACHE_INTERNAL_H
#define LC_STORE_CACHE_INTERNAL_H

#include "store/cache.h"

#include <pthread.h>

typedef struct lc_cache_key {
    uint8_t bytes[16];
} lc_cache_key;

/* A block that is known: in RAM, in a file, or both. */
typedef struct lc_cache_block {
    struct lc_cache_block *next; /* of the same bucket */
    lc_cache_key key, parent;
    uint64_t tenant;
    int32_t tokens[LC_CACHE_BLOCK];
    bool described; /* parent, tenant and tokens are known (a file's are not before it is read) */
    uint32_t depth; /* blocks before it */
    char *data;     /* one block of an lc_kv, or NULL */
    bool file;      /* in a file, or with the writer; whether it is whole is seen when it is read */
    double hits;    /* decayed, as of used_ns */
    uint64_t used_ns; /* CLOCK_REALTIME, so that it compares with files' times */
    double score;     /* scratch of eviction */
} lc_cache_block;

/* Work for the writer, in order. */
typedef enum lc_disk_what { LC_DISK_WRITE, LC_DISK_TOUCH, LC_DISK_REMOVE } lc_disk_what;

typedef struct lc_disk lc_disk;

/* What a file holds; data is a block of payload bytes (lc_kv_block_bytes of the layout). */
typedef struct lc_disk_block {
    lc_cache_key key, parent;
    uint64_t tenant;
    int32_t tokens[LC_CACHE_BLOCK];
    char *data;
} lc_disk_block;

/* Makes the folder, removes what a killed process left half-written, starts the writer. Calls found
 * for each file. */
int lc_disk_open(const char *folder, size_t payload,
                 void (*found)(void *ctx, const lc_cache_key *key, uint64_t used_ns), void *ctx,
                 lc_disk **out, lc_err *err);
void lc_disk_close(lc_disk *disk); /* writes what is queued */
/* Takes a reference to the data; false if the queue is full (nothing is lost but the file). */
bool lc_disk_write(lc_disk *disk, const lc_disk_block *block, uint64_t used_ns);
void lc_disk_touch(lc_disk *disk, const lc_cache_key *key, uint64_t used_ns);
void lc_disk_remove(lc_disk *disk, const lc_cache_key *key);
/* Reads and checks a file into block->data (payload bytes). False: absent or damaged (*damaged). */
bool lc_disk_read(lc_disk *disk, const lc_cache_key *key, lc_disk_block *block, bool *damaged);
/* The key of a block that could not be written, once; false: no more. */
bool lc_disk_lost(lc_disk *disk, lc_cache_key *key);
void lc_disk_flush(lc_disk *disk);
size_t lc_disk_file_bytes(const lc_disk *disk);
/* Blocks written so far, and whether the disk has refused one. */
uint64_t lc_disk_written(lc_disk *disk, bool *failed);

#endif
