/*
 * shuffle.h: a permutation of 0..n-1 as a pure function, without a table: a Feistel network over
 * the next power of four, applied until the result is below n. A step costs some ten nanoseconds.
 */
#ifndef LC_TRAIN_SHUFFLE_H
#define LC_TRAIN_SHUFFLE_H

#include <stdint.h>

enum { LC_SHUFFLE_ROUNDS = 8 };

typedef struct lc_shuffle {
    uint64_t n;
    uint32_t half; /* bits of each half */
    uint64_t key[LC_SHUFFLE_ROUNDS];
} lc_shuffle;

/* n from 1 to 2^62. The keys are random numbers (base/rng.h) of seed and stream. */
void lc_shuffle_init(lc_shuffle *shuffle, uint64_t n, uint64_t seed, uint64_t stream);
uint64_t lc_shuffle_at(const lc_shuffle *shuffle, uint64_t i); /* i < n */

#endif
