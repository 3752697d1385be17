/* words.h (AVX-512 F, BW, VL, DQ): 16 words of 32 bits are one register. */
#ifndef LC_KERNELS_AVX512_WORDS_H
#define LC_KERNELS_AVX512_WORDS_H

#include "kernels/avx512/lanes.h"

typedef __m512i lc_w;
#define LC_CODED_ROWS 6
#define LC_CODED_STRIPS 2

static inline lc_w w_zero(void) { return _mm512_setzero_si512(); }
static inline lc_w w_set(int32_t a) { return _mm512_set1_epi32(a); }
static inline lc_w w_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void w_store(void *p, lc_w w) { _mm512_storeu_si512(p, w); }
static inline lc_w w_load_n(const void *p, size_t bytes) {
    return _mm512_maskz_loadu_epi8(bytes < 64 ? ((__mmask64)1 << bytes) - 1 : ~(__mmask64)0, p);
}
static inline lc_w w_load_i16_n(const int16_t *p, size_t n) {
    return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
static inline lc_w w_add(lc_w a, lc_w b) { return _mm512_add_epi32(a, b); }
static inline lc_w w_sub(lc_w a, lc_w b) { return _mm512_sub_epi32(a, b); }
static inline lc_w w_sub_bytes(lc_w a, lc_w b) { return _mm512_sub_epi8(a, b); }
static inline lc_w w_mul(lc_w a, lc_w b) { return _mm512_mullo_epi32(a, b); }
static inline lc_w w_and(lc_w a, lc_w b) { return _mm512_and_si512(a, b); }
static inline lc_w w_xor(lc_w a, lc_w b) { return _mm512_xor_si512(a, b); }
static inline lc_w w_max(lc_w a, lc_w b) { return _mm512_max_epi32(a, b); }
static inline lc_w w_down4(lc_w a) { return _mm512_srli_epi32(a, 4); }
static inline int32_t w_largest(lc_w a) { return _mm512_reduce_max_epi32(a); }
static inline int32_t w_total(lc_w a) { return _mm512_reduce_add_epi32(a); }
static inline void w_transpose(lc_w w[16]) { transpose_16x16(w); }

static inline lc_w w_bits(lc_v v) { return _mm512_castps_si512(v); }
static inline lc_v v_bits(lc_w w) { return _mm512_castsi512_ps(w); }
static inline lc_v w_floats(lc_w w) { return _mm512_cvtepi32_ps(w); }
static inline lc_w w_nearest(lc_v v) { return _mm512_cvtps_epi32(v); }
static inline lc_w w_split(lc_w w) {
    const __m512i order = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    return _mm512_permutexvar_epi32(order, w);
}
static inline void w_store_bytes(int8_t *p, lc_w w) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(w));
}
static inline void w_store_pairs(int8_t *p, lc_w w) {
    __m256i shorts = _mm512_cvtepi32_epi16(w);
    shorts = _mm256_shufflelo_epi16(shorts, _MM_SHUFFLE(3, 1, 2, 0));
    shorts = _mm256_shufflehi_epi16(shorts, _MM_SHUFFLE(3, 1, 2, 0));
    _mm256_storeu_si256((__m256i *)(void *)p, shorts);
}
static inline lc_w w_set_q(const char *q) {
    int32_t word;
    memcpy(&word, q, sizeof word);
    return _mm512_set1_epi32(word);
}

static inline lc_w w_mul_halves(lc_w a, lc_w b) { return _mm512_mullo_epi16(a, b); }
static inline lc_w w_madd_halves(lc_w a, lc_w b) { return _mm512_madd_epi16(a, b); }

/* Sums in turn: gcc would add words up as a tree, whose leaves don't fit the registers. */
static inline lc_w in_turn(lc_w sum) {
    __asm__("" : "+v"(sum));
    return sum;
}
static inline lc_w w_madd(lc_w acc, lc_w a, lc_w b) {
    return in_turn(w_add(acc, w_madd_halves(a, b)));
}
static inline lc_w w_maddubs(lc_w acc, lc_w a, lc_w b) {
    return in_turn(_mm512_add_epi16(acc, _mm512_maddubs_epi16(a, b)));
}
static inline lc_w w_odd_bytes(lc_w w) { return _mm512_srli_epi16(w, 8); }

#endif
