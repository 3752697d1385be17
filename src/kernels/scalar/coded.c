/*
 * coded.c (scalar): coded products as numerics.md 1 defines them, in plain C: every other
 * implementation must equal this one. Not from kernels/coded.inc, so that the two check each other.
 */
#include "kernels/coded.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = 16, STRIP = LC_STRIP_ROWS };

static float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* ---- left rows ---- */

/* One group of n values: q [n], its step and its sum. Magnitudes are compared as bits: NaN is
 * larger than infinity, infinity larger than numbers. */
static void quantise(const float *x, size_t n, int8_t *q, float *step, int32_t *sum) {
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
        if (magnitude > most) most = magnitude;
    }
    float m = float_of(most), r = (float)LC_Q_MAX / m;
    *sum = 0;
    *step = most >= LC_INFINITY_BITS ? float_of(LC_QUIET_NAN) : m / (float)LC_Q_MAX;
    if (most < bits_of(LC_M_TINY)) *step = 0.0f;
    bool empty = most >= LC_INFINITY_BITS || most < bits_of(LC_M_TINY);
    for (size_t i = 0; i < n; i++) {
        float y = empty ? 0.0f : rintf(x[i] * r);
        y = y > (float)LC_Q_MAX ? (float)LC_Q_MAX : y < (float)-LC_Q_MAX ? (float)-LC_Q_MAX : y;
        q[i] = (int8_t)y;
        *sum += q[i];
    }
}

static size_t left_bytes(size_t rows, size_t k, size_t size) {
    return rows * lc_coded_row_bytes(lc_pad_k(k), lc_coded_groups(k, size));
}

static void pack(lc_code_kind kind, size_t size, size_t rows, size_t k, const float *x, size_t ldx,
                 void *out) {
    (void)kind; /* values stay in order */
    size_t groups = lc_coded_groups(k, size), values = lc_pad_k(k);
    size_t bytes = lc_coded_row_bytes(values, groups);
    for (size_t i = 0; i < rows; i++, x += ldx) {
        char *row = (char *)out + i * bytes;
        memset(row, 0, bytes);
        for (size_t g = 0, at = 0; g < groups; g++, at += size)
            quantise(x + at, k - at < size ? k - at : size, (int8_t *)row + at,
                     lc_coded_steps(row, values) + g, lc_coded_sums(row, values, groups) + g);
    }
}

/* ---- right rows ---- */

/* Where byte `byte` of a row's codes lies. */
static size_t place_of(const lc_coded_rows *w, size_t row, size_t byte) {
    switch (w->layout) {
    case LC_CODES_BY_COLUMN: return byte / 4 * w->stride + 4 * row + byte % 4;
    case LC_CODES_IN_STRIPS:
        return row / STRIP * w->stride + byte / 4 * 4 * STRIP + row % STRIP * 4 + byte % 4;
    default: return row * w->stride + byte;
    }
}

static int code_at(const lc_coded_rows *w, size_t row, size_t k) {
    size_t per_byte = w->kind == LC_CODES_U4 ? 2 : 1;
    const uint8_t *p = w->codes + place_of(w, row, k / per_byte);
    switch (w->kind) {
    case LC_CODES_U4: return *p >> 4 * (k % 2) & 15;
    case LC_CODES_U8: return *p;
    default: return (int8_t)*p; /* LC_CODES_I8 */
    }
}

static float f16_value(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, low = h & 0x3ffu;
    if (exponent == 31) return float_of(sign | LC_INFINITY_BITS | low << 13);
    if (exponent) return float_of(sign | (exponent + 112) << 23 | low << 13);
    float tiny = (float)(int)low * 0x1p-24f;
    return sign ? -tiny : tiny;
}

static float scale_at(const lc_coded_rows *w, const void *scales, size_t row, size_t group,
                      size_t groups) {
    size_t at = w->layout == LC_CODES_IN_STRIPS
                    ? (row / STRIP * groups + group) * STRIP + row % STRIP
                    : row * w->scale_row + group * w->scale_group;
    const char *p = (const char *)scales + at * (w->scale_type == LC_SCALES_F32 ? 4 : 2);
    float f;
    uint16_t h;
    if (w->scale_type == LC_SCALES_F32) return memcpy(&f, p, sizeof f), f;
    memcpy(&h, p, sizeof h);
    return w->scale_type == LC_SCALES_F16 ? f16_value(h) : float_of((uint32_t)h << 16);
}

/* ---- product ---- */

/* One left row times weight row `column`, whose codes less their zeros are in w [k]. */
static float dot(const lc_coded_product *p, const char *left, size_t column, const int32_t *w) {
    const lc_coded_rows *right = &p->right;
    size_t groups = lc_coded_groups(p->k, right->size);
    const int8_t *q = (const int8_t *)left;
    const float *steps = (const float *)(const void *)(left + lc_pad_k(p->k));
    const int32_t *sums = (const int32_t *)(const void *)(steps + groups);
    float acc = 0.0f;
    for (size_t g = 0, k = 0; g < groups; g++) {
        size_t end = p->k - k < right->size ? p->k : k + right->size;
        uint32_t sum = 0; /* modulo 2^32 on the way; the result is in range */
        for (; k < end; k++) sum += (uint32_t)(w[k] * q[k]);
        acc = fmaf((float)(int32_t)sum,
                   steps[g] * scale_at(right, right->scales, column, g, groups), acc);
        if (right->biases)
            acc = fmaf((float)sums[g], steps[g] * scale_at(right, right->biases, column, g, groups),
                       acc);
    }
    return isnan(acc) ? float_of(LC_QUIET_NAN) : acc;
}

static size_t scratch(size_t rows, size_t k, size_t size) {
    (void)rows;
    (void)size;
    return k * sizeof(int32_t);
}

static void multiply(const lc_coded_product *p) {
    const lc_coded_rows *right = &p->right;
    size_t groups = lc_coded_groups(p->k, right->size);
    size_t bytes = lc_coded_row_bytes(lc_pad_k(p->k), groups);
    int32_t *w = p->scratch;
    for (size_t j = 0; j < p->columns; j++) {
        for (size_t k = 0; k < p->k; k++) {
            size_t g = groups > 1 ? k / right->size : 0;
            int zero = right->zeros ? right->zeros[j * groups + g] : right->zero;
            w[k] = code_at(right, j, k) - zero;
        }
        for (size_t i = 0; i < p->rows; i++)
            p->c[i * p->ldc + j] = dot(p, (const char *)p->left + i * bytes, j, w);
    }
}

extern const lc_coded_path lc_coded_scalar;
const lc_coded_path lc_coded_scalar = {.name = "plain",
                                       .few = COLUMNS,
                                       .wide = COLUMNS,
                                       .left_bytes = left_bytes,
                                       .scratch_bytes = scratch,
                                       .pack = pack,
                                       .multiply = multiply};
