/*
 * quantize_code.c: a row of weights as codes and scales of least squared error.
 *
 * For a group, scales of both signs are tried whose codes clip the largest weight by up to 40 %,
 * rounded to the type that is stored; the one of least squared error wins, the first of equals. A
 * few least-squares steps (the best scale for given codes) refine it. Codes are rounded to nearest,
 * ties to even. Sums of squares run over 16 lanes in fp32 and fold in float64 in lane order,
 * without contraction, so the codes don't depend on the machine.
 */
#include "format/quantize_internal.h"

#include <math.h>

enum { LANES = 16, CLIPS = 17, REFINEMENTS = 4 };

static const float smallest = 0x1p-120f; /* of scales; groups of smaller weights become zeros */

typedef struct search {
    const float *w; /* [n], zero up to a multiple of 16 */
    size_t n;
    float low, high; /* range of codes */
    bool narrow;     /* the scale is stored as BF16 */
    float best;
    double error;
} search;

/* x, clamped and rounded to a whole number: adding 1.5 * 2^23 leaves no fraction bits. */
static inline float code_of(float x, float low, float high) {
    x = x < low ? low : x;
    x = x > high ? high : x;
    return (x + 12582912.0f) - 12582912.0f;
}

static double error_of(const search *s, float scale) {
    float inverse = 1.0f / scale, lanes[LANES] = {0}, low = s->low, high = s->high;
    for (size_t i = 0; i < s->n; i += LANES)
        for (size_t l = 0; l < LANES; l++) {
            float d = s->w[i + l] - code_of(s->w[i + l] * inverse, low, high) * scale;
            lanes[l] += d * d;
        }
    double sum = 0;
    for (size_t l = 0; l < LANES; l++) sum += (double)lanes[l];
    return sum;
}

static bool try_scale(search *s, float scale) {
    if (s->narrow) scale = lc_bf16_to_f32(lc_f32_to_bf16(scale));
    if (!(fabsf(scale) >= smallest) || !isfinite(scale)) return false;
    double error = error_of(s, scale);
    if (!(error < s->error)) return false;
    s->error = error;
    s->best = scale;
    return true;
}

/* The scale that fits the present codes best. */
static float refit(const search *s) {
    double products = 0, squares = 0;
    float inverse = 1.0f / s->best;
    for (size_t i = 0; i < s->n; i++) {
        double q = (double)code_of(s->w[i] * inverse, s->low, s->high);
        products += q * (double)s->w[i];
        squares += q * q;
    }
    return squares > 0 ? (float)(products / squares) : 0.0f;
}

/* Sets s->best, 0 if the group is stored as zeros. */
static void find_scale(search *s) {
    float top = 0; /* the weight of largest size, the first of equals */
    s->best = 0;
    s->error = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (fabsf(s->w[i]) > fabsf(top)) top = s->w[i];
        s->error += (double)s->w[i] * (double)s->w[i];
    }
    if (!(fabsf(top) >= smallest)) return;
    for (int clip = 0; clip < CLIPS; clip++) {
        float ratio = 1.0f - (float)clip * 0.025f;
        try_scale(s, top / s->low * ratio);
        try_scale(s, top / s->high * ratio);
    }
    if (s->best == 0) { /* squares that overflow: nothing to compare */
        float scale = top / s->low;
        s->best = s->narrow ? lc_bf16_to_f32(lc_f32_to_bf16(scale)) : scale;
        return;
    }
    for (int i = 0; i < REFINEMENTS && try_scale(s, refit(s)); i++) {
    }
}

/* Codes of n weights to their places; returns their squared error in float64. */
static double write_codes(const search *s, int bits, size_t at, unsigned char *codes) {
    float inverse = s->best != 0 ? 1.0f / s->best : 0.0f;
    double error = 0;
    for (size_t i = 0; i < s->n; i++) {
        int q = (int)code_of(s->w[i] * inverse, s->low, s->high);
        double d = (double)s->w[i] - (double)((float)q * s->best);
        error += d * d;
        if (bits == 8)
            codes[at + i] = (unsigned char)q;
        else
            codes[(at + i) / 2] |= (unsigned char)((q + 8) << 4 * ((at + i) % 2));
    }
    return error;
}

static bool all_finite(const lc_quantize_row *r, double *power) {
    double sum = 0;
    for (size_t i = 0; i < r->cols; i++) sum += (double)r->w[i] * (double)r->w[i];
    *power = sum;
    return isfinite(sum); /* squares of finite fp32 values don't overflow in float64 */
}

bool lc_quantize_encode(lc_quantize_row *r) {
    size_t size = r->group ? r->group : r->cols;
    double power;
    if (!all_finite(r, &power)) return false;
    r->power += power;
    if (r->bits == 4) memset(r->codes, 0, (r->cols + 7) / 8 * 4);
    for (size_t at = 0, g = 0; at < r->cols; at += size, g++) {
        size_t n = r->cols - at < size ? r->cols - at : size;
        memcpy(r->work, r->w + at, n * sizeof *r->work);
        memset(r->work + n, 0, LANES * sizeof *r->work);
        search s = {.w = r->work,
                    .n = n,
                    .low = r->bits == 4 ? -8.0f : -127.0f,
                    .high = r->bits == 4 ? 7.0f : 127.0f,
                    .narrow = r->bits == 4};
        find_scale(&s);
        r->error += write_codes(&s, r->bits, at, r->codes);
        uint16_t half = lc_f32_to_bf16(s.best);
        if (r->bits == 4)
            memcpy((char *)r->scales + g * sizeof half, &half, sizeof half);
        else
            memcpy((char *)r->scales + g * sizeof s.best, &s.best, sizeof s.best);
    }
    return true;
}

size_t lc_quantize_code_bytes(const lc_quantize_item *item) {
    if (item->bits == LC_QUANTIZE_VALUES) return item->cols * sizeof(uint16_t);
    return item->bits == 4 ? (item->cols + 7) / 8 * 4 : item->cols;
}

size_t lc_quantize_scale_bytes(const lc_quantize_item *item) {
    if (item->bits == LC_QUANTIZE_VALUES) return 0;
    return lc_quantize_groups(item) * lc_dtype_size(item->scale_type);
}
