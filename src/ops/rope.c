/*
 * rope.c: tables and rotation. Sine and cosine are computed in float64 by this file (argument
 * reduction by pi/2 in three parts, Taylor series), so they don't depend on the C library; their
 * error is far below half an fp32 unit.
 */
#include "ops/rope.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>

static double mscale(double s, double factor) {
    return factor > 1.0 ? 0.1 * s * log(factor) + 1.0 : 1.0;
}

float lc_rope_softmax_scale(const lc_config *c) {
    double m = c->rope.yarn ? mscale(c->rope.mscale_all_dim, c->rope.factor) : 1.0;
    return (float)(1.0 / sqrt((double)(c->nope_dim + c->rope_dim)) * m * m);
}

/* The dimension at which a rotation turns `rotations` times over the original context. */
static double correction_dim(const lc_rope_config *r, double dim, double rotations) {
    return dim * log(r->original_positions / (rotations * 2.0 * M_PI)) / (2.0 * log(r->theta));
}

int lc_rope_init(lc_rope *rope, const lc_config *c, lc_err *err) {
    const lc_rope_config *r = &c->rope;
    size_t half = c->rope_dim / 2;
    *rope =
        (lc_rope){.half = half, .exact_angles = c->switches.rope_exact_angles, .multiplier = 1.0f};
    rope->frequency = lc_calloc(half, sizeof *rope->frequency);
    rope->exact_frequency = lc_calloc(half, sizeof *rope->exact_frequency);
    if (!rope->frequency || !rope->exact_frequency) {
        lc_rope_free(rope);
        return lc_fail(err, LC_ENOMEM, "rope tables: out of memory");
    }
    double dim = (double)c->rope_dim, low = 0.0, high = 1.0;
    if (r->yarn) {
        low = fmax(floor(correction_dim(r, dim, r->beta_fast)), 0.0);
        high = fmin(ceil(correction_dim(r, dim, r->beta_slow)), dim - 1.0);
        if (high == low) high += 0.001;
        rope->multiplier =
            (float)(mscale(r->mscale, r->factor) / mscale(r->mscale_all_dim, r->factor));
    }
    for (size_t j = 0; j < half; j++) {
        double exact = pow(r->theta, -2.0 * (double)j / dim);
        float exponent = (float)(2 * j) / (float)dim;
        float power = (float)pow(r->theta, (double)exponent);
        float plain = 1.0f / power, scaled = plain;
        if (r->yarn) {
            double ramp = fmin(fmax(((double)j - low) / (high - low), 0.0), 1.0);
            exact *= (1.0 - ramp) + ramp / r->factor;
            float ramp32 = fminf(fmaxf(((float)j - (float)low) / (float)(high - low), 0.0f), 1.0f);
            float keep = 1.0f - ramp32;
            scaled = 1.0f / ((float)r->factor * power) * (1.0f - keep) + plain * keep;
        }
        rope->exact_frequency[j] = exact;
        rope->frequency[j] = c->switches.rope_frequency_rounded_once ? (float)exact : scaled;
    }
    return LC_OK;
}

void lc_rope_free(lc_rope *rope) {
    lc_free(rope->frequency);
    lc_free(rope->exact_frequency);
    rope->frequency = NULL;
    rope->exact_frequency = NULL;
}

/* sin and cos of x, |x| < 2^30: x = quarter * pi/2 + r. */
static void sin_cos(double x, double *sine, double *cosine) {
    static const double pi_2[3] = {0x1.921fb544p+0, 0x1.0b4611a6p-34, 0x1.3198a2e037073p-69};
    double quarter = rint(x * (2.0 / M_PI));
    double r = fma(-quarter, pi_2[0], x);
    r = fma(-quarter, pi_2[1], r);
    r = fma(-quarter, pi_2[2], r);
    double r2 = r * r, s = 0.0, c = 0.0;
    for (int i = 9; i >= 1; i--) { /* Horner from r^19/19! and r^18/18! */
        s = fma(-r2 / (double)((2 * i) * (2 * i + 1)), s, -r2 / (double)((2 * i) * (2 * i + 1)));
        c = fma(-r2 / (double)((2 * i - 1) * (2 * i)), c, -r2 / (double)((2 * i - 1) * (2 * i)));
    }
    s = fma(r, s, r);
    c = 1.0 + c;
    switch ((long)quarter & 3) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s; break;
    }
}

void lc_rope_table(const lc_rope *rope, size_t pos, float *cosines, float *sines) {
    for (size_t j = 0; j < rope->half; j++) {
        double angle = rope->exact_angles ? (double)pos * rope->exact_frequency[j]
                                          : (double)((float)pos * rope->frequency[j]);
        double s, c;
        sin_cos(angle, &s, &c);
        cosines[j] = (float)c * rope->multiplier;
        sines[j] = (float)s * rope->multiplier;
    }
}

void lc_rope_rotate(size_t half, const float *cosines, const float *sines, float *x) {
    for (size_t j = 0; j < half; j++) {
        float a = x[2 * j], b = x[2 * j + 1];
        x[2 * j] = a * cosines[j] - b * sines[j];
        x[2 * j + 1] = a * sines[j] + b * cosines[j];
    }
}
