/* words.h (NEON, AArch64): 16 words of 32 bits as four registers of 4. */
#ifndef LC_KERNELS_NEON_WORDS_H
#define LC_KERNELS_NEON_WORDS_H

#include "kernels/neon/lanes.h"

typedef struct {
    int32x4_t q[4];
} lc_w;
#define LC_CODED_ROWS 4
#define LC_CODED_STRIPS 1
#define LC_CODED_CHUNK 512
#define LC_CODED_SIGNED /* both operands of SDOT and SMULL are signed */

static inline lc_w w_set(int32_t a) {
    lc_w w;
    LC_EACH_QUAD w.q[i] = vdupq_n_s32(a);
    return w;
}
static inline lc_w w_zero(void) { return w_set(0); }
static inline lc_w w_load(const void *p) {
    lc_w w;
    LC_EACH_QUAD w.q[i] = vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)p + 16 * i));
    return w;
}
static inline void w_store(void *p, lc_w w) {
    LC_EACH_QUAD vst1q_u8((uint8_t *)p + 16 * i, vreinterpretq_u8_s32(w.q[i]));
}
static inline lc_w w_load_n(const void *p, size_t bytes) {
    uint8_t t[64] = {0};
    memcpy(t, p, bytes < 64 ? bytes : 64);
    return w_load(t);
}
static inline lc_w w_load_i16_n(const int16_t *p, size_t n) {
    int16_t t[16] = {0};
    lc_w w;
    memcpy(t, p, n * sizeof *p);
    LC_EACH_QUAD w.q[i] = vmovl_s16(vld1_s16(t + 4 * i));
    return w;
}

#define LC_WORD_OP(name, function)                                                                 \
    static inline lc_w name(lc_w a, lc_w b) {                                                      \
        LC_EACH_QUAD a.q[i] = function(a.q[i], b.q[i]);                                            \
        return a;                                                                                  \
    }
LC_WORD_OP(w_add, vaddq_s32)
LC_WORD_OP(w_sub, vsubq_s32)
LC_WORD_OP(w_mul, vmulq_s32)
LC_WORD_OP(w_and, vandq_s32)
LC_WORD_OP(w_xor, veorq_s32)
LC_WORD_OP(w_max, vmaxq_s32)
static inline lc_w w_down4(lc_w a) {
    LC_EACH_QUAD a.q[i] = vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.q[i]), 4));
    return a;
}
static inline int32_t w_largest(lc_w a) {
    return vmaxvq_s32(vmaxq_s32(vmaxq_s32(a.q[0], a.q[1]), vmaxq_s32(a.q[2], a.q[3])));
}
static inline int32_t w_total(lc_w a) {
    return vaddvq_s32(vaddq_s32(vaddq_s32(a.q[0], a.q[1]), vaddq_s32(a.q[2], a.q[3])));
}

static inline lc_w w_bits(lc_v v) {
    lc_w w;
    LC_EACH_QUAD w.q[i] = vreinterpretq_s32_f32(v.q[i]);
    return w;
}
static inline lc_v v_bits(lc_w w) {
    lc_v v;
    LC_EACH_QUAD v.q[i] = vreinterpretq_f32_s32(w.q[i]);
    return v;
}
static inline lc_v w_floats(lc_w w) {
    lc_v v;
    LC_EACH_QUAD v.q[i] = vcvtq_f32_s32(w.q[i]);
    return v;
}
static inline lc_w w_nearest(lc_v v) {
    lc_w w;
    LC_EACH_QUAD w.q[i] = vcvtnq_s32_f32(v.q[i]);
    return w;
}
/* Moves of floats keep any bits. */
static inline void w_transpose(lc_w w[16]) {
    lc_v v[16];
    for (int i = 0; i < 16; i++) v[i] = v_bits(w[i]);
    v_transpose(v);
    for (int i = 0; i < 16; i++) w[i] = w_bits(v[i]);
}
static inline lc_w w_split(lc_w w) {
    lc_w out;
    for (int i = 0; i < 4; i += 2) {
        out.q[i] = vuzp1q_s32(w.q[i], w.q[i + 1]);
        out.q[i + 1] = vuzp2q_s32(w.q[i], w.q[i + 1]);
    }
    return out;
}
static inline void w_store_bytes(int8_t *p, lc_w w) {
    for (int i = 0; i < 4; i += 2)
        vst1_s8(p + 4 * i, vmovn_s16(vcombine_s16(vmovn_s32(w.q[i]), vmovn_s32(w.q[i + 1]))));
}
/* A word of four values in each place. */
static inline int8x16_t set_q(const char *q) {
    int32_t word;
    memcpy(&word, q, sizeof word);
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

#endif
