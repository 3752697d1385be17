/* kv.c (store): blocks are allocated one by one, so growing never moves or copies a cache. */
#include "store/kv.h"

#include "base/err.h"
#include "base/mem.h"

void lc_kv_init(lc_kv *kv, const lc_kv_layout *layout) { *kv = (lc_kv){.layout = *layout}; }

int lc_kv_reserve(lc_kv *kv, size_t positions, lc_err *err) {
    size_t want = positions / LC_KV_BLOCK + (positions % LC_KV_BLOCK != 0);
    size_t bytes = lc_kv_block_bytes(&kv->layout);
    if (want > kv->cap_blocks) {
        size_t cap = want > 2 * kv->cap_blocks ? want : 2 * kv->cap_blocks;
        char **blocks = lc_realloc(kv->blocks, cap, sizeof *blocks);
        if (!blocks) return lc_fail(err, LC_ENOMEM, "context cache: out of memory");
        kv->blocks = blocks;
        kv->cap_blocks = cap;
    }
    while (kv->n_blocks < want) {
        char *block =
            lc_calloc(1, bytes); /* rows of a block that aren't written yet are read, masked */
        if (!block)
            return lc_fail(err, LC_ENOMEM,
                           "context cache: no memory for %zu positions (%zu bytes per %d)",
                           positions, bytes, LC_KV_BLOCK);
        kv->blocks[kv->n_blocks++] = block;
    }
    return LC_OK;
}

void lc_kv_trim(lc_kv *kv, size_t positions) {
    size_t keep = positions / LC_KV_BLOCK + (positions % LC_KV_BLOCK != 0);
    while (kv->n_blocks > keep) lc_free(kv->blocks[--kv->n_blocks]);
}

void lc_kv_free(lc_kv *kv) {
    lc_kv_trim(kv, 0);
    lc_free(kv->blocks);
    kv->blocks = NULL;
    kv->cap_blocks = 0;
}
