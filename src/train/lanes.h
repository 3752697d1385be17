/*
 * lanes.h: gradients of a step as sums in a fixed binary tree over lanes (docs/numerics.md 6).
 * Lanes are worked on in order; their blocks are joined like a binary counter, so at most
 * log2(lanes) + 1 blocks exist at a time.
 */
#ifndef LC_TRAIN_LANES_H
#define LC_TRAIN_LANES_H

#include "base/pool.h"
#include "kernels/kernels.h"

typedef struct lc_lanes lc_lanes;

/* floats: of a block; lanes: a power of two. */
int lc_lanes_new(size_t floats, size_t lanes, lc_pool *pool, lc_lanes **out, lc_err *err);
void lc_lanes_free(lc_lanes *lanes);

/* The next lane's block, zeroed; after the last lane the first of the next step. */
float *lc_lanes_begin(lc_lanes *lanes);
/* The lane is complete: joins what can be joined. */
void lc_lanes_end(lc_lanes *lanes);
/* After the last lane: the sum over all, valid until lc_lanes_begin starts the next step. NULL
 * before. */
float *lc_lanes_sum(lc_lanes *lanes);

#endif
