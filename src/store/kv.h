/* kv.h (store): memory of a sequence's cache, in blocks of 64 positions. */
#ifndef LC_STORE_KV_H
#define LC_STORE_KV_H

#include "ops/kv.h"

void lc_kv_init(lc_kv *kv, const lc_kv_layout *layout);
/* Blocks for positions 0..positions-1; what is there stays. LC_ENOMEM names the bytes. */
int lc_kv_reserve(lc_kv *kv, size_t positions, lc_err *err);
/* Gives back blocks beyond `positions`. */
void lc_kv_trim(lc_kv *kv, size_t positions);
void lc_kv_free(lc_kv *kv);

#endif
