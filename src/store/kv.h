/*
 * kv.h (store): memory of a sequence's cache, in blocks of 64 positions. References to a block are
 * counted: sequences and the prompt cache hold the same one. Who writes into it must hold the only
 * reference, which lc_kv_reserve sees to.
 */
#ifndef LC_STORE_KV_H
#define LC_STORE_KV_H

#include "ops/kv.h"

/* A block with one reference, contents undefined; NULL: no memory. */
char *lc_kv_block_new(size_t bytes);
char *lc_kv_block_share(char *block); /* one more reference; any thread */
void lc_kv_block_drop(char *block);   /* one less, the last frees it; any thread; NULL is fine */

void lc_kv_init(lc_kv *kv, const lc_kv_layout *layout);
/* Blocks for positions 0..positions-1, zeroed where they are new. Positions from `from` on will be
 * written: blocks that others hold are copied. LC_ENOMEM names the bytes. */
int lc_kv_reserve(lc_kv *kv, size_t from, size_t positions, lc_err *err);
/* The next block is `block`, of which it takes a reference. LC_ENOMEM. */
int lc_kv_append(lc_kv *kv, char *block, lc_err *err);
/* Gives back blocks beyond `positions`. */
void lc_kv_trim(lc_kv *kv, size_t positions);
void lc_kv_free(lc_kv *kv);

#endif
