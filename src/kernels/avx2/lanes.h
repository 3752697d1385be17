/* lanes.h (AVX2 + FMA): 16 lanes as two registers of 8. */
#ifndef LC_KERNELS_AVX2_LANES_H
#define LC_KERNELS_AVX2_LANES_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    __m256 lo, hi;
} lc_v;
enum { LC_GEMM_ROWS = 3, LC_GEMM_PANELS = 1 };

static inline lc_v v_set(float a) { return (lc_v){_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
static inline lc_v v_zero(void) { return (lc_v){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline lc_v v_load(const float *p) {
    return (lc_v){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
static inline void v_store(float *p, lc_v v) {
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
}
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

#define LC_LANE_OP(name, instruction)                                                              \
    static inline lc_v name(lc_v a, lc_v b) {                                                      \
        return (lc_v){instruction(a.lo, b.lo), instruction(a.hi, b.hi)};                           \
    }
LC_LANE_OP(v_add, _mm256_add_ps)
LC_LANE_OP(v_sub, _mm256_sub_ps)
LC_LANE_OP(v_mul, _mm256_mul_ps)
LC_LANE_OP(v_div, _mm256_div_ps)
LC_LANE_OP(v_max, _mm256_max_ps)
LC_LANE_OP(v_min, _mm256_min_ps)

static inline __m256 number_8(__m256 x, __m256 y) {
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}
static inline lc_v v_number(lc_v x, lc_v y) {
    return (lc_v){number_8(x.lo, y.lo), number_8(x.hi, y.hi)};
}

static inline lc_v v_fma(lc_v a, lc_v b, lc_v c) {
    return (lc_v){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
static inline lc_v v_sqrt(lc_v a) { return (lc_v){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
static inline lc_v v_round(lc_v a) {
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    return (lc_v){_mm256_round_ps(a.lo, NEAREST), _mm256_round_ps(a.hi, NEAREST)};
}
static inline lc_v v_less(lc_v a, lc_v b, lc_v x, lc_v y) {
    return (lc_v){_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
                  _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
static inline __m256 pow2_8(__m256 n) {
    __m256i whole = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(whole, 23));
}
static inline lc_v v_pow2(lc_v n) { return (lc_v){pow2_8(n.lo), pow2_8(n.hi)}; }

static inline void transpose_8x8(__m256 r[8]) {
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) { /* pairs */
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) { /* quads */
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) { /* 128-bit halves */
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    memcpy(r, t, sizeof t);
}
static inline void v_transpose(lc_v r[16]) {
    __m256 block[2][2][8]; /* [rows 0-7, 8-15][columns 0-7, 8-15] */
    for (int i = 0; i < 16; i++) {
        block[i / 8][0][i % 8] = r[i].lo;
        block[i / 8][1][i % 8] = r[i].hi;
    }
    for (int b = 0; b < 4; b++) transpose_8x8(block[b / 2][b % 2]);
    for (int i = 0; i < 16; i++) r[i] = (lc_v){block[0][i / 8][i % 8], block[1][i / 8][i % 8]};
}

/* The 8 values rounded to BF16, as the upper halves of 32-bit words. */
static inline __m256i bf16_words(__m256 v) {
    __m256i bits = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i even = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_and_si256(_mm256_blendv_epi8(even, nan, is_nan),
                            _mm256_set1_epi32((int)0xffff0000));
}
static inline lc_v v_bf16(lc_v v) {
    return (lc_v){_mm256_castsi256_ps(bf16_words(v.lo)), _mm256_castsi256_ps(bf16_words(v.hi))};
}
static inline lc_v v_load_bf16(const uint16_t *p) {
    __m256i lo = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    __m256i hi = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p + 8)));
    return (lc_v){_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)),
                  _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
}
static inline lc_v v_load_pairs(const uint16_t *p) {
    __m256i lo = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i hi = _mm256_loadu_si256((const __m256i *)(const void *)(p + 16));
    return (lc_v){_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi)};
}
static inline __m256 first_8(__m256 pairs) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
}
static inline lc_v v_first(lc_v pairs) { return (lc_v){first_8(pairs.lo), first_8(pairs.hi)}; }
static inline lc_v v_second(lc_v pairs) {
    __m256 high = _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000));
    return (lc_v){_mm256_and_ps(pairs.lo, high), _mm256_and_ps(pairs.hi, high)};
}
static inline void v_store_bf16(uint16_t *p, lc_v v) {
    __m256i lo = _mm256_srli_epi32(bf16_words(v.lo), 16),
            hi = _mm256_srli_epi32(bf16_words(v.hi), 16);
    __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), _MM_SHUFFLE(3, 1, 2, 0));
    _mm256_storeu_si256((__m256i *)(void *)p, both);
}

static inline lc_v bytes_of(__m128i codes) {
    return (lc_v){_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)),
                  _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8)))};
}
static inline lc_v v_load_u8(const uint8_t *p) {
    return bytes_of(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline lc_v v_load_i8(const uint8_t *p) {
    __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)p);
    return (lc_v){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
                  _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8)))};
}
static inline lc_v v_load_u4(const uint8_t *p) {
    __m128i pairs = _mm_loadl_epi64((const __m128i *)(const void *)p), low = _mm_set1_epi8(15);
    return bytes_of(
        _mm_unpacklo_epi8(_mm_and_si128(pairs, low), _mm_and_si128(_mm_srli_epi16(pairs, 4), low)));
}
static inline lc_v halves_of(__m256i halves) {
    return (lc_v){_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                  _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
static inline lc_v v_load_f16(const uint8_t *p) {
    return halves_of(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
/* The bits of an E4M3 code are those of a half 2^8 times as small. The conversion of halves knows
 * subnormals whatever the mode. */
static inline lc_v v_load_f8(const uint8_t *p) {
    __m256i codes = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    __m256i magnitude = _mm256_and_si256(codes, _mm256_set1_epi16(0x7f));
    __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f));
    __m256i half =
        _mm256_blendv_epi8(_mm256_slli_epi16(magnitude, 7), _mm256_set1_epi16(0x7e00), nan);
    __m256i sign = _mm256_slli_epi16(_mm256_srli_epi16(codes, 7), 15);
    lc_v v = halves_of(_mm256_or_si256(half, sign));
    return v_mul(v, v_set(256.0f));
}

static inline void order_8(const float *x, uint32_t *y) {
    __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)x);
    __m256i sign = _mm256_set1_epi32(INT32_MIN);
    bits = _mm256_andnot_si256(_mm256_cmpeq_epi32(bits, sign), bits);
    __m256i flip = _mm256_or_si256(_mm256_srai_epi32(bits, 31), sign);
    _mm256_storeu_si256((__m256i *)(void *)y, _mm256_xor_si256(bits, flip));
}
static inline void v_order(const float *x, uint32_t *y) {
    order_8(x, y);
    order_8(x + 8, y + 8);
}
static inline unsigned at_least_8(const uint32_t *x, __m256i t) {
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)x);
    __m256i hits = _mm256_cmpeq_epi32(_mm256_max_epu32(v, t), v);
    return (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(hits));
}
static inline unsigned v_at_least(const uint32_t *x, uint32_t t) {
    __m256i all = _mm256_set1_epi32((int)t);
    return at_least_8(x, all) | at_least_8(x + 8, all) << 8;
}

#endif
