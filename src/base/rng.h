/*
 * rng.h: counter-based random numbers, Philox 4x32-10 (Salmon et al., SC 2011). A number is a pure
 * function of (seed, stream, counter): no state, no thread or rank in it.
 */
#ifndef LC_BASE_RNG_H
#define LC_BASE_RNG_H

#include <stdint.h>

typedef struct lc_rng_block {
    uint32_t word[4];
} lc_rng_block;

/* key = seed, counter = (counter low, counter high, stream low, stream high). */
lc_rng_block lc_rng(uint64_t seed, uint64_t stream, uint64_t counter);
/* Uniform in [0, 1), 53 bits. */
double lc_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter);

#endif
