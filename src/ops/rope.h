/*
 * rope.h: rotary position embedding with YaRN (docs/model.md 2.2): frequencies in the fp32 steps of
 * the reference runtime, angle = one fp32 product of position and frequency, pairs interleaved (2j,
 * 2j+1).
 */
#ifndef LC_OPS_ROPE_H
#define LC_OPS_ROPE_H

#include "format/config.h"
#include "ops/op.h"

typedef struct lc_rope {
    size_t half;             /* rotary pairs: rope_dim / 2 */
    float *frequency;        /* [half], owned */
    double *exact_frequency; /* [half], owned: float64, for rope_exact_angles */
    bool exact_angles;
    float multiplier; /* of cos and sin */
} lc_rope;

int lc_rope_init(lc_rope *rope, const lc_config *config, lc_err *err);
void lc_rope_free(lc_rope *rope);

/* Softmax scale of attention: (nope + rope)^-0.5 * mscale(mscale_all_dim)^2. */
float lc_rope_softmax_scale(const lc_config *config);

/* cos[half] and sin[half] of a position, multiplier applied. */
void lc_rope_table(const lc_rope *rope, size_t pos, float *cosines, float *sines);

/* Rotates x[2 * half] in place. */
void lc_rope_rotate(size_t half, const float *cosines, const float *sines, float *x);

#endif
