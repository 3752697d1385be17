/* tiles.h (AMX): the eight tiles and what they hold: 0-3 results [a][b], 4 and 5 left tiles a, 6
 * and 7 right tiles b. */
#ifndef LC_KERNELS_AMX_TILES_H
#define LC_KERNELS_AMX_TILES_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

enum { TILE = 16 }; /* rows of a tile, and columns of 32 bits */

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* gcc's tile intrinsics don't tell that they read memory: stores before them must be finished. */
static inline void finish_stores(void) { __asm__ volatile("" ::: "memory"); }

/* a: rows of the left tiles, of `bytes` each; b: columns of the right ones, whose rows are words of
 * 4 bytes of k. A size of 0 leaves a tile out. `now` is what is loaded (all zero: nothing). */
static inline void configure(tile_config *now, size_t a0, size_t a1, size_t b0, size_t b1,
                             size_t bytes) {
    if (now->palette && now->rows[4] == a0 && now->rows[5] == a1 && now->row_bytes[6] == b0 * 4 &&
        now->row_bytes[7] == b1 * 4 && now->row_bytes[4] == bytes)
        return;
    *now = (tile_config){.palette = 1};
    size_t a[2] = {a0, a1}, b[2] = {b0, b1};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 2; j++)
            if (a[i] && b[j]) {
                now->rows[2 * i + j] = (uint8_t)a[i];
                now->row_bytes[2 * i + j] = (uint16_t)(b[j] * 4);
            }
        now->rows[4 + i] = (uint8_t)a[i];
        now->row_bytes[4 + i] = a[i] ? (uint16_t)bytes : 0;
        now->rows[6 + i] = b[i] ? (uint8_t)(bytes / 4) : 0;
        now->row_bytes[6 + i] = (uint16_t)(b[i] * 4);
    }
    finish_stores();
    _tile_loadconfig(now);
}

#endif
