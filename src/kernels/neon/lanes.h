/* lanes.h (NEON, AArch64): 16 lanes as four registers of 4. */
#ifndef LC_KERNELS_NEON_LANES_H
#define LC_KERNELS_NEON_LANES_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    float32x4_t q[4];
} lc_v;
enum { LC_GEMM_ROWS = 3, LC_GEMM_PANELS = 1 };

#define LC_EACH_QUAD for (int i = 0; i < 4; i++)
static inline lc_v v_set(float a) {
    lc_v v;
    LC_EACH_QUAD v.q[i] = vdupq_n_f32(a);
    return v;
}
static inline lc_v v_zero(void) { return v_set(0.0f); }
static inline lc_v v_load(const float *p) {
    lc_v v;
    LC_EACH_QUAD v.q[i] = vld1q_f32(p + 4 * i);
    return v;
}
static inline void v_store(float *p, lc_v v) { LC_EACH_QUAD vst1q_f32(p + 4 * i, v.q[i]); }
static inline lc_v v_load_n(const float *p, size_t n) {
    float t[16] = {0};
    memcpy(t, p, n * sizeof *p);
    return v_load(t);
}
static inline void v_store_n(float *p, lc_v v, size_t n) {
    float t[16];
    v_store(t, v);
    memcpy(p, t, n * sizeof *p);
}

#define LC_LANE_OP(name, expr)                                                                     \
    static inline lc_v name(lc_v a, lc_v b) {                                                      \
        LC_EACH_QUAD a.q[i] = (expr);                                                              \
        return a;                                                                                  \
    }
LC_LANE_OP(v_add, vaddq_f32(a.q[i], b.q[i]))
LC_LANE_OP(v_sub, vsubq_f32(a.q[i], b.q[i]))
LC_LANE_OP(v_mul, vmulq_f32(a.q[i], b.q[i]))
LC_LANE_OP(v_div, vdivq_f32(a.q[i], b.q[i]))
LC_LANE_OP(v_max, vbslq_f32(vcgtq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]))
LC_LANE_OP(v_min, vbslq_f32(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]))

static inline lc_v v_number(lc_v x, lc_v y) {
    LC_EACH_QUAD y.q[i] = vbslq_f32(vceqq_f32(x.q[i], x.q[i]), y.q[i], x.q[i]);
    return y;
}

static inline lc_v v_fma(lc_v a, lc_v b, lc_v c) {
    LC_EACH_QUAD c.q[i] = vfmaq_f32(c.q[i], a.q[i], b.q[i]);
    return c;
}
static inline lc_v v_sqrt(lc_v a) {
    LC_EACH_QUAD a.q[i] = vsqrtq_f32(a.q[i]);
    return a;
}
static inline lc_v v_round(lc_v a) {
    LC_EACH_QUAD a.q[i] = vrndnq_f32(a.q[i]);
    return a;
}
static inline lc_v v_less(lc_v a, lc_v b, lc_v x, lc_v y) {
    LC_EACH_QUAD y.q[i] = vbslq_f32(vcltq_f32(a.q[i], b.q[i]), x.q[i], y.q[i]);
    return y;
}
static inline lc_v v_pow2(lc_v n) {
    LC_EACH_QUAD {
        int32x4_t whole = vaddq_s32(vcvtnq_s32_f32(n.q[i]), vdupq_n_s32(127));
        n.q[i] = vreinterpretq_f32_s32(vshlq_n_s32(whole, 23));
    }
    return n;
}
static inline void transpose_4x4(float32x4_t r[4]) {
    float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}
static inline void v_transpose(lc_v r[16]) {
    lc_v out[16];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            float32x4_t block[4] = {r[4 * i].q[j], r[4 * i + 1].q[j], r[4 * i + 2].q[j],
                                    r[4 * i + 3].q[j]};
            transpose_4x4(block);
            for (int l = 0; l < 4; l++) out[4 * j + l].q[i] = block[l];
        }
    memcpy(r, out, sizeof out);
}
static inline uint32x4_t bf16_words(float32x4_t v) {
    uint32x4_t bits = vreinterpretq_u32_f32(v);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t even = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    uint32x4_t nan = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vandq_u32(vbslq_u32(vceqq_f32(v, v), even, nan), vdupq_n_u32(0xffff0000u));
}
static inline lc_v v_bf16(lc_v v) {
    LC_EACH_QUAD v.q[i] = vreinterpretq_f32_u32(bf16_words(v.q[i]));
    return v;
}
static inline lc_v v_load_bf16(const uint16_t *p) {
    lc_v v;
    LC_EACH_QUAD v.q[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
    return v;
}
static inline lc_v v_load_pairs(const uint16_t *p) {
    lc_v v;
    LC_EACH_QUAD v.q[i] = vreinterpretq_f32_u16(vld1q_u16(p + 8 * i));
    return v;
}
static inline lc_v v_first(lc_v pairs) {
    LC_EACH_QUAD pairs.q[i] =
        vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pairs.q[i]), 16));
    return pairs;
}
static inline lc_v v_second(lc_v pairs) {
    uint32x4_t high = vdupq_n_u32(0xffff0000);
    LC_EACH_QUAD pairs.q[i] =
        vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pairs.q[i]), high));
    return pairs;
}
static inline void v_store_bf16(uint16_t *p, lc_v v) {
    LC_EACH_QUAD vst1_u16(p + 4 * i, vshrn_n_u32(bf16_words(v.q[i]), 16));
}

static inline lc_v v_load_u8(const uint8_t *p) {
    uint8x16_t bytes = vld1q_u8(p);
    uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
    return (lc_v){{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                   vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
                   vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                   vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))}};
}
static inline lc_v v_load_i8(const uint8_t *p) {
    int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(p));
    int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    return (lc_v){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                   vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                   vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                   vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
static inline lc_v v_load_u4(const uint8_t *p) {
    uint8x8_t pairs = vld1_u8(p);
    uint8x8x2_t codes = vzip_u8(vand_u8(pairs, vdup_n_u8(15)), vshr_n_u8(pairs, 4));
    uint8_t bytes[16];
    vst1_u8(bytes, codes.val[0]);
    vst1_u8(bytes + 8, codes.val[1]);
    return v_load_u8(bytes);
}
static inline lc_v v_load_f16(const uint8_t *p) {
    lc_v v;
    LC_EACH_QUAD v.q[i] = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * i)));
    return v;
}
/* The bits of an E4M3 code are those of a half 2^8 times as small. The conversion of halves knows
 * subnormals whatever the mode. */
static inline uint16x8_t halves_of_f8(uint8x8_t codes) {
    uint8x8_t magnitude = vand_u8(codes, vdup_n_u8(0x7f));
    uint16x8_t nan =
        vreinterpretq_u16_s16(vmovl_s8(vreinterpret_s8_u8(vceq_u8(magnitude, vdup_n_u8(0x7f)))));
    uint16x8_t half = vbslq_u16(nan, vdupq_n_u16(0x7e00), vshll_n_u8(magnitude, 7));
    return vorrq_u16(half, vshlq_n_u16(vmovl_u8(vshr_n_u8(codes, 7)), 15));
}
static inline lc_v v_load_f8(const uint8_t *p) {
    uint16x8_t h[2] = {halves_of_f8(vld1_u8(p)), halves_of_f8(vld1_u8(p + 8))};
    lc_v v;
    LC_EACH_QUAD {
        uint16x4_t half = i % 2 ? vget_high_u16(h[i / 2]) : vget_low_u16(h[i / 2]);
        v.q[i] = vmulq_n_f32(vcvt_f32_f16(vreinterpret_f16_u16(half)), 256.0f);
    }
    return v;
}

static inline void v_order(const float *x, uint32_t *y) {
    uint32x4_t sign = vdupq_n_u32(0x80000000u);
    LC_EACH_QUAD {
        uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(x + 4 * i));
        bits = vbicq_u32(bits, vceqq_u32(bits, sign));
        uint32x4_t spread = vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_u32(bits), 31));
        vst1q_u32(y + 4 * i, veorq_u32(bits, vorrq_u32(spread, sign)));
    }
}
static inline unsigned v_at_least(const uint32_t *x, uint32_t t) {
    static const uint32_t bit[4] = {1, 2, 4, 8};
    uint32x4_t all = vdupq_n_u32(t), bits = vld1q_u32(bit);
    unsigned mask = 0;
    LC_EACH_QUAD mask |= vaddvq_u32(vandq_u32(vcgeq_u32(vld1q_u32(x + 4 * i), all), bits)) << 4 * i;
    return mask;
}

#endif
