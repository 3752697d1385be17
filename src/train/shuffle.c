/*
 * shuffle.c: see shuffle.h. The round function only has to scatter; MurmurHash3's finaliser does
 * (Appleby, public domain). Cycle walking: a value that lands at n or above is sent through the
 * network again, which keeps a bijection of the values below n; fewer than four turns on average.
 */
#include "train/shuffle.h"

#include "base/rng.h"

static uint64_t scatter(uint64_t x) {
    x ^= x >> 33;
    x *= 0xFF51AFD7ED558CCDu;
    x ^= x >> 33;
    x *= 0xC4CEB9FE1A85EC53u;
    return x ^ x >> 33;
}

void lc_shuffle_init(lc_shuffle *shuffle, uint64_t n, uint64_t seed, uint64_t stream) {
    shuffle->n = n;
    shuffle->half = 1;
    while (shuffle->half < 31 && (uint64_t)1 << 2 * shuffle->half < n) shuffle->half++;
    for (uint32_t i = 0; i < LC_SHUFFLE_ROUNDS; i++) {
        lc_rng_block r = lc_rng(seed, stream, i);
        shuffle->key[i] = (uint64_t)r.word[0] << 32 | r.word[1];
    }
}

uint64_t lc_shuffle_at(const lc_shuffle *shuffle, uint64_t i) {
    uint64_t mask = ((uint64_t)1 << shuffle->half) - 1;
    do {
        uint64_t left = i >> shuffle->half, right = i & mask;
        for (uint32_t r = 0; r < LC_SHUFFLE_ROUNDS; r++) {
            uint64_t next = left ^ (scatter(right + shuffle->key[r]) & mask);
            left = right;
            right = next;
        }
        i = left << shuffle->half | right;
    } while (i >= shuffle->n);
    return i;
}
