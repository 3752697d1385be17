/*
 * mem.h: checked sizes, allocation and arenas.
 *
 * Every allocation of the program goes through lc_alloc and its siblings, so that a test can make
 * the n-th one fail and so that sizes that come from outside are bounded. Three lifetimes exist:
 * process (model), session (KV), step (an arena that is reset). All blocks are aligned to 64 bytes.
 */
#ifndef LC_BASE_MEM_H
#define LC_BASE_MEM_H

#include "longcat.h"

/* Checked arithmetic: false on overflow, *out untouched then. */
static inline bool lc_size_add(size_t a, size_t b, size_t *out) {
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}
static inline bool lc_size_mul(size_t a, size_t b, size_t *out) {
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}
/* Rounds up to a power of two `align`. */
static inline bool lc_size_align(size_t a, size_t align, size_t *out) {
    size_t t;
    if (!lc_size_add(a, align - 1, &t)) return false;
    *out = t & ~(align - 1);
    return true;
}

/* NULL when memory is short. lc_alloc's bytes are undefined, lc_calloc's are zero; count*size is
 * checked. */
void *lc_alloc(size_t size);
void *lc_calloc(size_t count, size_t size);
/* Large blocks of which every byte will be used again and again: the system is asked for large
 * pages, which cost fewer table walks. */
void *lc_alloc_dense(size_t size, bool zero);
/* Like realloc with a checked product: keeps min(old, new) bytes; on failure the old block stays
 * valid. Only blocks of lc_alloc, lc_calloc and lc_realloc may be passed (NULL is fine). */
void *lc_realloc(void *block, size_t count, size_t size);
void lc_free(void *block);
char *lc_strdup(const char *text);
char *lc_strndup(const char *text, size_t len);

/* Bytes now allocated and the highest value so far, for memory plans and leak tests. */
size_t lc_mem_current(void);
size_t lc_mem_peak(void);

/* Tests only: the n-th allocation from now (0 = the next) fails, and all after it; -1 switches the
 * fault off. */
void lc_mem_fail_after(long n);

/*
 * Arena: bump allocation in chunks, freed or reset as one. limit 0 = unlimited. Allocation returns
 * NULL past the limit. lc_arena_reset keeps one chunk as large as the peak, so a step arena soon
 * stops allocating.
 */
typedef struct lc_arena lc_arena;
lc_arena *lc_arena_new(size_t limit);
void *lc_arena_alloc(lc_arena *arena, size_t size); /* 64-byte aligned, contents undefined */
void *lc_arena_calloc(lc_arena *arena, size_t count, size_t size);
char *lc_arena_strndup(lc_arena *arena, const char *text, size_t len);
void lc_arena_reset(lc_arena *arena);
size_t lc_arena_used(const lc_arena *arena);
size_t lc_arena_peak(const lc_arena *arena);
void lc_arena_free(lc_arena *arena);

#endif
