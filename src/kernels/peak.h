/*
 * peak.h: the arithmetic limit of this processor: loops of one instruction on registers only, with
 * enough independent chains to hide its latency. Nothing is loaded, so no product can be faster.
 * What the kernels reach of it is what `longcat bench` states.
 */
#ifndef LC_KERNELS_PEAK_H
#define LC_KERNELS_PEAK_H

#include "base/cpu.h"

typedef enum lc_peak_kind {
    LC_PEAK_F32,  /* fused multiply-adds */
    LC_PEAK_BF16, /* dot products of BF16 pairs into fp32 */
    LC_PEAK_INT8, /* dot products of bytes into int32 */
    LC_PEAK_INT4, /* of codes of 4 bits and bytes, where these take fewer instructions */
    LC_PEAK_KINDS,
} lc_peak_kind;

typedef struct lc_peak {
    const char *name; /* the instruction: "vdpbf16ps" */
    lc_isa isa;       /* the lowest that has it */
    lc_peak_kind kind;
    double operations;          /* multiplications and additions of one round */
    void (*run)(size_t rounds); /* rounds >= 1 */
} lc_peak;

enum { LC_PEAKS = 9 };

/* Those that this processor can run; returns their number. Entries are constant. */
size_t lc_peaks(const lc_peak *out[LC_PEAKS]);

#endif
