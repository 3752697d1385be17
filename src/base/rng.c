/*
 * rng.c: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3;
 * SC 2011). Ten rounds of two 32x32 -> 64 bit products; the constants are the paper's.
 */
#include "base/rng.h"

enum { PHILOX_ROUNDS = 10 };
static const uint32_t MUL0 = 0xD2511F53u, MUL1 = 0xCD9E8D57u;
static const uint32_t WEYL0 = 0x9E3779B9u, WEYL1 = 0xBB67AE85u; /* golden ratio, sqrt(3) - 1 */

lc_rng_block lc_rng(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)MUL0 * c0, p1 = (uint64_t)MUL1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c3 = (uint32_t)p0;
        key0 += WEYL0;
        key1 += WEYL1;
    }
    return (lc_rng_block){{c0, c1, c2, c3}};
}

double lc_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter) {
    lc_rng_block block = lc_rng(seed, stream, counter);
    uint64_t bits = (uint64_t)block.word[1] << 32 | block.word[0];
    return (double)(bits >> 11) * 0x1p-53;
}
