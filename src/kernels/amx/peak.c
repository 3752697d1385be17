/*
 * peak.c (AMX): six tiles of results, two of operands; tdpbf16ps, and tdpbssd where there is
 * AMX-INT8. The operands are spread like weights, not constant: with equal values the clock of a
 * Xeon stays a quarter higher than any real product sees.
 */
#include "kernels/peak.h"

#include <immintrin.h>

enum { CHAINS = 6, TILE = 16, ROW_BYTES = 64 };

/* Bytes of BF16 values of both signs between 1/2 and 2, or of any int8. */
static void fill(uint8_t *operand, bool bf16) {
    uint32_t state = 12345;
    for (int i = 0; i < TILE * ROW_BYTES; i++) {
        state = state * 1664525u + 1013904223u;
        operand[i] = (uint8_t)(state >> 24);
        if (bf16 && i % 2) operand[i] = (uint8_t)(0x3f | (operand[i] & 0x80));
    }
}

static void begin(bool bf16) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    uint8_t operand[TILE * ROW_BYTES];
    for (int i = 0; i < 8; i++) config.bytes[i] = ROW_BYTES, config.rows[i] = TILE;
    fill(operand, bf16);
    __asm__ volatile("" ::: "memory"); /* gcc's tile intrinsics don't tell that they read memory */
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_loadd(6, operand, ROW_BYTES);
    _tile_loadd(7, operand, ROW_BYTES);
}

static void run_bf16(size_t rounds) {
    begin(true);
    for (size_t r = 0; r < rounds; r++) {
        _tile_dpbf16ps(0, 6, 7);
        _tile_dpbf16ps(1, 6, 7);
        _tile_dpbf16ps(2, 6, 7);
        _tile_dpbf16ps(3, 6, 7);
        _tile_dpbf16ps(4, 6, 7);
        _tile_dpbf16ps(5, 6, 7);
    }
    _tile_release();
}

__attribute__((target("amx-int8"))) static void run_int8(size_t rounds) {
    begin(false);
    for (size_t r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 6, 7);
        _tile_dpbssd(1, 6, 7);
        _tile_dpbssd(2, 6, 7);
        _tile_dpbssd(3, 6, 7);
        _tile_dpbssd(4, 6, 7);
        _tile_dpbssd(5, 6, 7);
    }
    _tile_release();
}

extern const lc_peak lc_peak_amx_bf16, lc_peak_amx_int8;
const lc_peak lc_peak_amx_bf16 = {"tdpbf16ps", LC_ISA_AMX, LC_PEAK_BF16,
                                  CHAINS *TILE *TILE * 32 * 2.0, run_bf16};
const lc_peak lc_peak_amx_int8 = {"tdpbssd", LC_ISA_AMX, LC_PEAK_INT8,
                                  CHAINS *TILE *TILE * 64 * 2.0, run_int8};
