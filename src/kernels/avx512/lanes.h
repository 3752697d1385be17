/* lanes.h (AVX-512 F, BW, VL, DQ): 16 lanes are one register. */
#ifndef LC_KERNELS_AVX512_LANES_H
#define LC_KERNELS_AVX512_LANES_H

#include "kernels/avx512/transpose.h"

#include <stdint.h>
#include <string.h>

typedef __m512 lc_v;
enum { LC_GEMM_ROWS = 4, LC_GEMM_PANELS = 3 };

static inline lc_v v_set(float a) { return _mm512_set1_ps(a); }
static inline lc_v v_zero(void) { return _mm512_setzero_ps(); }
static inline lc_v v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, lc_v v) { _mm512_storeu_ps(p, v); }
static inline __mmask16 first_lanes(size_t n) { return (__mmask16)((1u << n) - 1u); }
static inline lc_v v_load_n(const float *p, size_t n) {
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
static inline void v_store_n(float *p, lc_v v, size_t n) {
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
}
static inline lc_v v_add(lc_v a, lc_v b) { return _mm512_add_ps(a, b); }
static inline lc_v v_sub(lc_v a, lc_v b) { return _mm512_sub_ps(a, b); }
static inline lc_v v_mul(lc_v a, lc_v b) { return _mm512_mul_ps(a, b); }
static inline lc_v v_div(lc_v a, lc_v b) { return _mm512_div_ps(a, b); }
static inline lc_v v_max(lc_v a, lc_v b) { return _mm512_max_ps(a, b); }
static inline lc_v v_min(lc_v a, lc_v b) { return _mm512_min_ps(a, b); }
static inline lc_v v_number(lc_v x, lc_v y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), y, x);
}
static inline lc_v v_fma(lc_v a, lc_v b, lc_v c) { return _mm512_fmadd_ps(a, b, c); }
static inline lc_v v_sqrt(lc_v a) { return _mm512_sqrt_ps(a); }
static inline lc_v v_round(lc_v a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline lc_v v_less(lc_v a, lc_v b, lc_v x, lc_v y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
static inline lc_v v_pow2(lc_v n) {
    __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(whole, 23));
}

static inline void v_transpose(lc_v r[16]) {
    __m512i w[16];
    for (int i = 0; i < 16; i++) w[i] = _mm512_castps_si512(r[i]);
    transpose_16x16(w);
    for (int i = 0; i < 16; i++) r[i] = _mm512_castsi512_ps(w[i]);
}

/* The values rounded to BF16, as the upper halves of 32-bit words. */
static inline __m512i bf16_words(lc_v v) {
    __m512i bits = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i even = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __m512i nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    __m512i chosen = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), even, nan);
    return _mm512_and_si512(chosen, _mm512_set1_epi32((int)0xffff0000));
}
static inline lc_v v_bf16(lc_v v) { return _mm512_castsi512_ps(bf16_words(v)); }
static inline lc_v v_load_bf16(const uint16_t *p) {
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}
static inline lc_v v_load_pairs(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_loadu_si512(p));
}
static inline lc_v v_first(lc_v pairs) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
}
static inline lc_v v_second(lc_v pairs) {
    __m512i high = _mm512_set1_epi32((int)0xffff0000);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), high));
}
static inline void v_store_bf16(uint16_t *p, lc_v v) {
    __m256i halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32(bf16_words(v), 16));
    _mm256_storeu_si256((__m256i *)(void *)p, halves);
}

#ifdef __AVX512BF16__ /* the instruction flushes denormals whatever the mode */
#define LC_LANES_STORE_NORMAL
static inline void v_store_normal(uint16_t *p, lc_v v) {
    _mm256_storeu_si256((__m256i *)(void *)p, (__m256i)_mm512_cvtneps_pbh(v));
}
#endif

static inline lc_v bytes_of(__m128i codes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
}
static inline lc_v v_load_u8(const uint8_t *p) {
    return bytes_of(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline lc_v v_load_i8(const uint8_t *p) {
    __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
}
static inline lc_v v_load_u4(const uint8_t *p) {
    __m128i pairs = _mm_loadl_epi64((const __m128i *)(const void *)p), low = _mm_set1_epi8(15);
    return bytes_of(
        _mm_unpacklo_epi8(_mm_and_si128(pairs, low), _mm_and_si128(_mm_srli_epi16(pairs, 4), low)));
}
static inline lc_v v_load_f16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
/* The bits of an E4M3 code are those of a half 2^8 times as small. The conversion of halves knows
 * subnormals whatever the mode. */
static inline lc_v v_load_f8(const uint8_t *p) {
    __m256i codes = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    __m256i magnitude = _mm256_and_si256(codes, _mm256_set1_epi16(0x7f));
    __mmask16 nan = _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x7f));
    __m256i half =
        _mm256_mask_mov_epi16(_mm256_slli_epi16(magnitude, 7), nan, _mm256_set1_epi16(0x7e00));
    __m256i sign = _mm256_slli_epi16(_mm256_srli_epi16(codes, 7), 15);
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_or_si256(half, sign)), v_set(256.0f));
}

#define LC_LANES_U4_TABLE
/* 32 codes of four bits, low halves first. A look-up takes the lowest five bits of a word; the
 * table stands twice, so the fifth doesn't count. */
static inline __m512i u4_look_up(__m512i table, __m128i codes) {
    __m512i pair = _mm512_cvtepu8_epi32(codes);
    pair = _mm512_or_si512(pair, _mm512_slli_epi32(pair, 12)); /* b and b >> 4 */
    return _mm512_permutexvar_epi16(pair, table);
}

/* n codes. */
static inline void u4_from_table(const uint16_t table[16], size_t n, const uint8_t *codes,
                                 uint16_t *y) {
    __m512i t = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)table));
    size_t i = 0;
    for (; i + 32 <= n; i += 32)
        _mm512_storeu_si512(y + i, u4_look_up(t, _mm_loadu_si128((const void *)(codes + i / 2))));
    if (i == n) return;
    __mmask16 bytes = (__mmask16)((1u << (n - i + 1) / 2) - 1u);
    _mm512_mask_storeu_epi16(y + i, (1u << (n - i)) - 1u,
                             u4_look_up(t, _mm_maskz_loadu_epi8(bytes, codes + i / 2)));
}

/* y[i] = table[codes[i] & 127], with the code's sign on top. */
#define LC_LANES_F8_TABLE
static inline __m512i look_up(const __m512i t[4], __m256i codes) {
    __m512i w = _mm512_cvtepu8_epi16(codes);
    __m512i low = _mm512_permutex2var_epi16(t[0], w, t[1]);
    __m512i high = _mm512_permutex2var_epi16(t[2], w, t[3]);
    __mmask32 upper = _mm512_test_epi16_mask(w, _mm512_set1_epi16(0x40));
    __m512i value = _mm512_mask_blend_epi16(upper, low, high);
    enum { A_XOR_B_AND_C = 0x78 };
    return _mm512_ternarylogic_epi32(value, _mm512_slli_epi16(w, 8),
                                     _mm512_set1_epi16((short)0x8000), A_XOR_B_AND_C);
}
static inline void f8_from_table(const uint16_t table[128], size_t n, const uint8_t *codes,
                                 uint16_t *y) {
    __m512i t[4];
    for (int i = 0; i < 4; i++) t[i] = _mm512_loadu_si512(table + 32 * i);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i c = _mm256_loadu_si256((const __m256i *)(const void *)(codes + i));
        _mm512_storeu_si512(y + i, look_up(t, c));
    }
    if (i < n) {
        __mmask32 rest = (1u << (n - i)) - 1u;
        __m256i c = _mm256_maskz_loadu_epi8(rest, codes + i);
        _mm512_mask_storeu_epi16(y + i, rest, look_up(t, c));
    }
}

static inline void v_order(const float *x, uint32_t *y) {
    __m512i bits = _mm512_loadu_si512(x), sign = _mm512_set1_epi32(INT32_MIN);
    __mmask16 zero = _mm512_cmpeq_epi32_mask(bits, sign);
    bits = _mm512_mask_blend_epi32(zero, bits, _mm512_setzero_si512());
    __m512i flip = _mm512_or_si512(_mm512_srai_epi32(bits, 31), sign);
    _mm512_storeu_si512(y, _mm512_xor_si512(bits, flip));
}
static inline unsigned v_at_least(const uint32_t *x, uint32_t t) {
    __mmask16 mask = _mm512_cmpge_epu32_mask(_mm512_loadu_si512(x), _mm512_set1_epi32((int)t));
    unsigned bits; /* left to itself, gcc 12 may spill 16 bits of a mask and load 32 */
    __asm__("kmovw %1, %0" : "=r"(bits) : "k"(mask));
    return bits;
}

#endif
