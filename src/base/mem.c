/* mem.c: counted allocation with fault injection, and arenas. A block's size stands in the 64 bytes
 * before it. */
#include "base/mem.h"

#include "base/pages.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { LC_BLOCK_HEADER = 64 };

static atomic_size_t mem_current, mem_peak;
static atomic_long mem_countdown = -1;

void lc_mem_fail_after(long n) { atomic_store(&mem_countdown, n); }
size_t lc_mem_current(void) { return atomic_load(&mem_current); }
size_t lc_mem_peak(void) { return atomic_load(&mem_peak); }

static bool fault_now(void) {
    long n = atomic_load_explicit(&mem_countdown, memory_order_relaxed);
    if (n < 0) return false;
    if (n == 0) return true;
    atomic_fetch_sub(&mem_countdown, 1);
    return false;
}

static void count_up(size_t size) {
    size_t now = atomic_fetch_add(&mem_current, size) + size;
    size_t peak = atomic_load(&mem_peak);
    while (now > peak && !atomic_compare_exchange_weak(&mem_peak, &peak, now)) {
    }
}

void *lc_alloc(size_t size) {
    size_t total;
    if (!lc_size_add(size, LC_BLOCK_HEADER, &total) || !lc_size_align(total, 64, &total) ||
        fault_now())
        return NULL;
    char *base = aligned_alloc(64, total);
    if (!base) return NULL;
    memcpy(base, &size, sizeof size);
    count_up(size);
    return base + LC_BLOCK_HEADER;
}

void *lc_calloc(size_t count, size_t size) {
    size_t total;
    if (!lc_size_mul(count, size, &total)) return NULL;
    void *block = lc_alloc(total);
    if (block) memset(block, 0, total);
    return block;
}

static size_t block_size(const void *block) {
    size_t size;
    memcpy(&size, (const char *)block - LC_BLOCK_HEADER, sizeof size);
    return size;
}

void *lc_alloc_dense(size_t size, bool zero) {
    void *block = lc_alloc(size);
    if (block) lc_pages_want(block, size, true);
    if (block && zero) memset(block, 0, size);
    return block;
}

void *lc_realloc(void *block, size_t count, size_t size) {
    size_t total;
    if (!lc_size_mul(count, size, &total)) return NULL;
    void *fresh = lc_alloc(total);
    if (!fresh || !block) return fresh;
    size_t old = block_size(block);
    memcpy(fresh, block, old < total ? old : total);
    lc_free(block);
    return fresh;
}

void lc_free(void *block) {
    if (!block) return;
    atomic_fetch_sub(&mem_current, block_size(block));
    free((char *)block - LC_BLOCK_HEADER);
}

char *lc_strndup(const char *text, size_t len) {
    size_t total;
    char *copy = lc_size_add(len, 1, &total) ? lc_alloc(total) : NULL;
    if (!copy) return NULL;
    memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}

char *lc_strdup(const char *text) { return lc_strndup(text, strlen(text)); }

typedef struct arena_chunk {
    struct arena_chunk *next;
    size_t size, used;
    char *data;
} arena_chunk;

struct lc_arena {
    arena_chunk *head;
    size_t limit, used, peak;
};

lc_arena *lc_arena_new(size_t limit) {
    lc_arena *arena = lc_calloc(1, sizeof *arena);
    if (arena) arena->limit = limit;
    return arena;
}

static arena_chunk *chunk_new(size_t size) {
    arena_chunk *chunk = lc_calloc(1, sizeof *chunk);
    if (!chunk) return NULL;
    chunk->data = lc_alloc(size);
    if (!chunk->data) {
        lc_free(chunk);
        return NULL;
    }
    chunk->size = size;
    return chunk;
}

static void chunks_free(arena_chunk *chunk) {
    while (chunk) {
        arena_chunk *next = chunk->next;
        lc_free(chunk->data);
        lc_free(chunk);
        chunk = next;
    }
}

void *lc_arena_alloc(lc_arena *arena, size_t size) {
    size_t need, after;
    if (!lc_size_align(size ? size : 1, 64, &need) || !lc_size_add(arena->used, need, &after))
        return NULL;
    if (arena->limit && after > arena->limit) return NULL;
    arena_chunk *chunk = arena->head;
    if (!chunk || chunk->size - chunk->used < need) {
        size_t grow = chunk ? chunk->size * 2 : 4096;
        if (grow > (64u << 20)) grow = 64u << 20;
        chunk = chunk_new(need > grow ? need : grow);
        if (!chunk) return NULL;
        chunk->next = arena->head;
        arena->head = chunk;
    }
    void *block = chunk->data + chunk->used;
    chunk->used += need;
    arena->used = after;
    if (after > arena->peak) arena->peak = after;
    return block;
}

void *lc_arena_calloc(lc_arena *arena, size_t count, size_t size) {
    size_t total;
    if (!lc_size_mul(count, size, &total)) return NULL;
    void *block = lc_arena_alloc(arena, total);
    if (block) memset(block, 0, total);
    return block;
}

char *lc_arena_strndup(lc_arena *arena, const char *text, size_t len) {
    size_t total;
    char *copy = lc_size_add(len, 1, &total) ? lc_arena_alloc(arena, total) : NULL;
    if (!copy) return NULL;
    memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}

void lc_arena_reset(lc_arena *arena) {
    if (arena->head &&
        arena->head->next) { /* several chunks: replace them by one that fits the peak */
        chunks_free(arena->head);
        arena->head = chunk_new(arena->peak);
    }
    if (arena->head) arena->head->used = 0;
    arena->used = 0;
}

size_t lc_arena_used(const lc_arena *arena) { return arena->used; }
size_t lc_arena_peak(const lc_arena *arena) { return arena->peak; }

void lc_arena_free(lc_arena *arena) {
    if (!arena) return;
    chunks_free(arena->head);
    lc_free(arena);
}
