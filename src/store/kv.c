/* kv.c (store): blocks are allocated one by one, so growing never moves or copies a cache. */
#include "store/kv.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdatomic.h>
#include <string.h>

/* In front of a block's first byte; its size keeps the rows aligned. */
typedef struct head {
    _Alignas(64) atomic_size_t references;
} head;

static head *head_of(char *block) { return (head *)(void *)block - 1; }

char *lc_kv_block_new(size_t bytes) {
    head *h = lc_alloc(sizeof *h + bytes);
    if (!h) return NULL;
    atomic_init(&h->references, 1);
    return (char *)(h + 1);
}

char *lc_kv_block_share(char *block) {
    atomic_fetch_add(&head_of(block)->references, 1);
    return block;
}

void lc_kv_block_drop(char *block) {
    if (block && atomic_fetch_sub(&head_of(block)->references, 1) == 1) lc_free(head_of(block));
}

void lc_kv_init(lc_kv *kv, const lc_kv_layout *layout) { *kv = (lc_kv){.layout = *layout}; }

static int no_memory(const lc_kv *kv, size_t blocks, lc_err *err) {
    return lc_fail(err, LC_ENOMEM, "context cache: no memory for %zu positions (%zu bytes per %d)",
                   blocks * LC_KV_BLOCK, lc_kv_block_bytes(&kv->layout), LC_KV_BLOCK);
}

static bool make_list(lc_kv *kv, size_t blocks) {
    if (blocks <= kv->cap_blocks) return true;
    size_t cap = blocks > 2 * kv->cap_blocks ? blocks : 2 * kv->cap_blocks;
    char **list = lc_realloc(kv->blocks, cap, sizeof *list);
    if (!list) return false;
    kv->blocks = list;
    kv->cap_blocks = cap;
    return true;
}

static bool make_own(const lc_kv *kv, size_t block) {
    char *old = kv->blocks[block];
    if (atomic_load(&head_of(old)->references) == 1) return true;
    char *own = lc_kv_block_new(lc_kv_block_bytes(&kv->layout));
    if (!own) return false;
    memcpy(own, old, lc_kv_block_bytes(&kv->layout));
    lc_kv_block_drop(old);
    kv->blocks[block] = own;
    return true;
}

static size_t blocks_of(size_t positions) {
    return positions / LC_KV_BLOCK + (positions % LC_KV_BLOCK != 0);
}

int lc_kv_reserve(lc_kv *kv, size_t from, size_t positions, lc_err *err) {
    size_t want = blocks_of(positions), bytes = lc_kv_block_bytes(&kv->layout);
    if (!make_list(kv, want)) return no_memory(kv, want, err);
    for (size_t i = from / LC_KV_BLOCK; i < kv->n_blocks && i < want; i++)
        if (!make_own(kv, i)) return no_memory(kv, want, err);
    while (kv->n_blocks < want) {
        char *block = lc_kv_block_new(bytes);
        if (!block) return no_memory(kv, want, err);
        memset(block, 0, bytes); /* rows that aren't written yet are read, masked */
        kv->blocks[kv->n_blocks++] = block;
    }
    return LC_OK;
}

int lc_kv_append(lc_kv *kv, char *block, lc_err *err) {
    if (!make_list(kv, kv->n_blocks + 1)) return no_memory(kv, kv->n_blocks + 1, err);
    kv->blocks[kv->n_blocks++] = lc_kv_block_share(block);
    return LC_OK;
}

void lc_kv_trim(lc_kv *kv, size_t positions) {
    size_t keep = blocks_of(positions);
    while (kv->n_blocks > keep) lc_kv_block_drop(kv->blocks[--kv->n_blocks]);
}

void lc_kv_free(lc_kv *kv) {
    lc_kv_trim(kv, 0);
    lc_free(kv->blocks);
    kv->blocks = NULL;
    kv->cap_blocks = 0;
}
