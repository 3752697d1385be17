/*
 * kv.h: the cache as operators see it. A sequence's cache is a list of blocks of 64 positions (the
 * key block of numerics.md 4), each holding for every attention sublayer the 64 latent rows [latent
 * R | rotated key rope] and for every indexer the 64 index keys. Elements are fp32 or BF16 by the
 * compute type; a value is rounded once, when written. Memory is managed in store/kv.c.
 */
#ifndef LC_OPS_KV_H
#define LC_OPS_KV_H

#include "longcat.h"

enum { LC_KV_BLOCK = 64 };

typedef struct lc_kv_layout {
    size_t slots;    /* attention sublayers: layer * 2 + sublayer */
    size_t width;    /* W = R + rope */
    size_t indexers; /* 0 with dense attention */
    size_t index_dim;
    size_t element; /* bytes: 4 (fp32) or 2 (BF16) */
} lc_kv_layout;

typedef struct lc_kv {
    lc_kv_layout layout;
    char **blocks; /* [n_blocks] */
    size_t n_blocks, cap_blocks;
} lc_kv;

static inline size_t lc_kv_block_bytes(const lc_kv_layout *l) {
    return LC_KV_BLOCK * (l->slots * l->width + l->indexers * l->index_dim) * l->element;
}

/* Latent row of a position, `width` elements; rows of one block are contiguous. */
static inline char *lc_kv_latent(const lc_kv *kv, size_t slot, size_t pos) {
    size_t row = slot * LC_KV_BLOCK + pos % LC_KV_BLOCK;
    return kv->blocks[pos / LC_KV_BLOCK] + row * kv->layout.width * kv->layout.element;
}

/* Index key of a position, `index_dim` elements. */
static inline char *lc_kv_index(const lc_kv *kv, size_t indexer, size_t pos) {
    size_t latents = kv->layout.slots * LC_KV_BLOCK * kv->layout.width;
    size_t row = indexer * LC_KV_BLOCK + pos % LC_KV_BLOCK;
    return kv->blocks[pos / LC_KV_BLOCK] +
           (latents + row * kv->layout.index_dim) * kv->layout.element;
}

#endif
