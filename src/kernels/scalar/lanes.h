/* lanes.h (scalar): 16 lanes as a plain array. This is the arithmetic that the other instruction
 * sets must equal. */
#ifndef LC_KERNELS_SCALAR_LANES_H
#define LC_KERNELS_SCALAR_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    float x[16];
} lc_v;
enum { LC_GEMM_ROWS = 2, LC_GEMM_PANELS = 1 };

#define LC_EACH_LANE for (int i = 0; i < 16; i++)
static inline lc_v v_set(float a) {
    lc_v v;
    LC_EACH_LANE v.x[i] = a;
    return v;
}
static inline lc_v v_zero(void) { return v_set(0.0f); }
static inline lc_v v_load(const float *p) {
    lc_v v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void v_store(float *p, lc_v v) { memcpy(p, &v, sizeof v); }
static inline lc_v v_load_n(const float *p, size_t n) {
    lc_v v = v_zero();
    memcpy(&v, p, n * sizeof *p);
    return v;
}
static inline void v_store_n(float *p, lc_v v, size_t n) { memcpy(p, &v, n * sizeof *p); }

#define LC_LANE_OP(name, expr)                                                                     \
    static inline lc_v name(lc_v a, lc_v b) {                                                      \
        LC_EACH_LANE a.x[i] = (expr);                                                              \
        return a;                                                                                  \
    }
LC_LANE_OP(v_add, a.x[i] + b.x[i])
LC_LANE_OP(v_sub, a.x[i] - b.x[i])
LC_LANE_OP(v_mul, a.x[i] * b.x[i])
LC_LANE_OP(v_div, a.x[i] / b.x[i])
LC_LANE_OP(v_max, a.x[i] > b.x[i] ? a.x[i] : b.x[i])
LC_LANE_OP(v_min, a.x[i] < b.x[i] ? a.x[i] : b.x[i])

static inline lc_v v_number(lc_v x, lc_v y) {
    LC_EACH_LANE y.x[i] = x.x[i] == x.x[i] ? y.x[i] : x.x[i];
    return y;
}

static inline lc_v v_fma(lc_v a, lc_v b, lc_v c) {
    LC_EACH_LANE c.x[i] = fmaf(a.x[i], b.x[i], c.x[i]);
    return c;
}
static inline lc_v v_sqrt(lc_v a) {
    LC_EACH_LANE a.x[i] = sqrtf(a.x[i]);
    return a;
}
static inline lc_v v_round(lc_v a) {
    LC_EACH_LANE a.x[i] = rintf(a.x[i]);
    return a;
}
static inline lc_v v_less(lc_v a, lc_v b, lc_v x, lc_v y) {
    LC_EACH_LANE y.x[i] = a.x[i] < b.x[i] ? x.x[i] : y.x[i];
    return y;
}
static inline lc_v v_pow2(lc_v n) {
    LC_EACH_LANE {
        int32_t whole =
            n.x[i] >= -126.0f && n.x[i] <= 127.0f ? (int32_t)n.x[i] : 0; /* NaN: any power */
        uint32_t bits = (uint32_t)(whole + 127) << 23;
        memcpy(&n.x[i], &bits, sizeof bits);
    }
    return n;
}
static inline void v_transpose(lc_v r[16]) {
    LC_EACH_LANE for (int j = i + 1; j < 16; j++) {
        float t = r[i].x[j];
        r[i].x[j] = r[j].x[i];
        r[j].x[i] = t;
    }
}
static inline uint16_t bf16_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
static inline lc_v v_load_bf16(const uint16_t *p) {
    lc_v v;
    LC_EACH_LANE {
        uint32_t bits = (uint32_t)p[i] << 16;
        memcpy(&v.x[i], &bits, sizeof bits);
    }
    return v;
}
static inline lc_v v_load_pairs(const uint16_t *p) {
    lc_v v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline lc_v map_bits(lc_v v, int left, uint32_t mask) {
    LC_EACH_LANE {
        uint32_t bits;
        memcpy(&bits, &v.x[i], sizeof bits);
        bits = bits << left & mask;
        memcpy(&v.x[i], &bits, sizeof bits);
    }
    return v;
}
static inline lc_v v_first(lc_v pairs) { return map_bits(pairs, 16, 0xffffffff); }
static inline lc_v v_second(lc_v pairs) { return map_bits(pairs, 0, 0xffff0000); }
static inline void v_store_bf16(uint16_t *p, lc_v v) { LC_EACH_LANE p[i] = bf16_of(v.x[i]); }
static inline lc_v v_bf16(lc_v v) {
    uint16_t h[16];
    v_store_bf16(h, v);
    return v_load_bf16(h);
}

static inline lc_v v_load_u8(const uint8_t *p) {
    lc_v v;
    LC_EACH_LANE v.x[i] = (float)p[i];
    return v;
}
static inline lc_v v_load_i8(const uint8_t *p) {
    lc_v v;
    LC_EACH_LANE v.x[i] = (float)(int8_t)p[i];
    return v;
}
static inline lc_v v_load_u4(const uint8_t *p) {
    lc_v v;
    LC_EACH_LANE v.x[i] = (float)(p[i / 2] >> 4 * (i % 2) & 15);
    return v;
}

static inline void v_order(const float *x, uint32_t *y) {
    LC_EACH_LANE {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        if (bits == 0x80000000u) bits = 0;
        y[i] = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    }
}
static inline unsigned v_at_least(const uint32_t *x, uint32_t t) {
    unsigned mask = 0;
    LC_EACH_LANE mask |= (unsigned)(x[i] >= t) << i;
    return mask;
}
static inline float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
/* The bits of a small format's magnitude as a float, without denormals on the way. */
static inline float small_float(uint32_t magnitude, uint32_t fraction_bits, uint32_t bias) {
    if (magnitude >> fraction_bits)
        return float_of((magnitude << (23 - fraction_bits)) + ((127 - bias) << 23));
    return (float)magnitude * float_of((128 - bias - fraction_bits) << 23);
}
static inline lc_v v_load_f8(const uint8_t *p) {
    lc_v v;
    LC_EACH_LANE {
        uint32_t magnitude = p[i] & 0x7fu;
        float f = magnitude == 0x7fu ? __builtin_nanf("") : small_float(magnitude, 3, 7);
        v.x[i] = p[i] & 0x80u ? -f : f;
    }
    return v;
}
static inline lc_v v_load_f16(const uint8_t *p) {
    lc_v v;
    LC_EACH_LANE {
        uint32_t h = p[2 * i] | (uint32_t)p[2 * i + 1] << 8, magnitude = h & 0x7fffu;
        float f = small_float(magnitude, 10, 15);
        if (magnitude >= 0x7c00u) { /* infinity, or NaN, made a quiet one */
            uint32_t quiet = magnitude > 0x7c00u ? 0x400000u : 0;
            f = float_of(0x7f800000u | (magnitude & 0x3ffu) << 13 | quiet);
        }
        v.x[i] = h & 0x8000u ? -f : f;
    }
    return v;
}

#endif
