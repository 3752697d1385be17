/* words.h (AVX2): 16 words of 32 bits as two registers of 8. */
#ifndef LC_KERNELS_AVX2_WORDS_H
#define LC_KERNELS_AVX2_WORDS_H

#include "kernels/avx2/lanes.h"

typedef struct {
    __m256i lo, hi;
} lc_w;
#define LC_CODED_ROWS 4
#define LC_CODED_STRIPS 1
#define LC_CODED_STREAMS 2

static inline lc_w w_zero(void) { return (lc_w){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
static inline lc_w w_set(int32_t a) { return (lc_w){_mm256_set1_epi32(a), _mm256_set1_epi32(a)}; }
static inline __m256i load_8(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline lc_w w_load(const void *p) { return (lc_w){load_8(p), load_8((const char *)p + 32)}; }
static inline void w_store(void *p, lc_w w) {
    _mm256_storeu_si256((__m256i *)p, w.lo);
    _mm256_storeu_si256((__m256i *)(void *)((char *)p + 32), w.hi);
}
static inline lc_w w_load_n(const void *p, size_t bytes) {
    uint8_t t[64] = {0};
    memcpy(t, p, bytes < 64 ? bytes : 64);
    return w_load(t);
}
static inline lc_w w_load_i16_n(const int16_t *p, size_t n) {
    int16_t t[16] = {0};
    memcpy(t, p, n * sizeof *p);
    return (lc_w){_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)t)),
                  _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(t + 8)))};
}

#define LC_WORD_OP(name, instruction)                                                              \
    static inline lc_w name(lc_w a, lc_w b) {                                                      \
        return (lc_w){instruction(a.lo, b.lo), instruction(a.hi, b.hi)};                           \
    }
LC_WORD_OP(w_add, _mm256_add_epi32)
LC_WORD_OP(w_sub, _mm256_sub_epi32)
LC_WORD_OP(w_mul, _mm256_mullo_epi32)
LC_WORD_OP(w_and, _mm256_and_si256)
LC_WORD_OP(w_xor, _mm256_xor_si256)
LC_WORD_OP(w_max, _mm256_max_epi32)
LC_WORD_OP(w_mul_halves, _mm256_mullo_epi16)
LC_WORD_OP(w_madd_halves, _mm256_madd_epi16)
static inline lc_w w_down4(lc_w a) {
    return (lc_w){_mm256_srli_epi32(a.lo, 4), _mm256_srli_epi32(a.hi, 4)};
}

#define LC_WORD_FOLD(name, instruction)                                                            \
    static inline int32_t name(lc_w a) {                                                           \
        __m256i both = _mm256_##instruction(a.lo, a.hi);                                           \
        __m128i w =                                                                                \
            _mm_##instruction(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));    \
        w = _mm_##instruction(w, _mm_shuffle_epi32(w, _MM_SHUFFLE(1, 0, 3, 2)));                   \
        w = _mm_##instruction(w, _mm_shuffle_epi32(w, _MM_SHUFFLE(2, 3, 0, 1)));                   \
        return _mm_cvtsi128_si32(w);                                                               \
    }
LC_WORD_FOLD(w_largest, max_epi32)
LC_WORD_FOLD(w_total, add_epi32)

static inline lc_w w_bits(lc_v v) {
    return (lc_w){_mm256_castps_si256(v.lo), _mm256_castps_si256(v.hi)};
}
static inline lc_v v_bits(lc_w w) {
    return (lc_v){_mm256_castsi256_ps(w.lo), _mm256_castsi256_ps(w.hi)};
}
static inline lc_v w_floats(lc_w w) {
    return (lc_v){_mm256_cvtepi32_ps(w.lo), _mm256_cvtepi32_ps(w.hi)};
}
static inline lc_w w_nearest(lc_v v) {
    return (lc_w){_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi)};
}
/* Moves of floats keep any bits. */
static inline void w_transpose(lc_w w[16]) {
    lc_v v[16];
    for (int i = 0; i < 16; i++) v[i] = v_bits(w[i]);
    v_transpose(v);
    for (int i = 0; i < 16; i++) w[i] = w_bits(v[i]);
}
static inline lc_w w_split(lc_w w) {
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    return (lc_w){_mm256_permutevar8x32_epi32(w.lo, order),
                  _mm256_permutevar8x32_epi32(w.hi, order)};
}
static inline __m256i shorts_of(lc_w w) {
    /* packs work in halves of 128 bits: words 0-3 8-11 4-7 12-15 */
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(w.lo, w.hi), 0xd8);
}
static inline void w_store_bytes(int8_t *p, lc_w w) {
    __m256i shorts = shorts_of(w);
    __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256(shorts, 1));
    _mm_storeu_si128((__m128i *)(void *)p, bytes);
}
static inline void w_store_pairs(int8_t *p, lc_w w) {
    __m256i shorts = _mm256_shufflelo_epi16(shorts_of(w), _MM_SHUFFLE(3, 1, 2, 0));
    shorts = _mm256_shufflehi_epi16(shorts, _MM_SHUFFLE(3, 1, 2, 0));
    _mm256_storeu_si256((__m256i *)(void *)p, shorts);
}
static inline __m256i set_q(const char *q) {
    int32_t word;
    memcpy(&word, q, sizeof word);
    return _mm256_set1_epi32(word);
}
static inline lc_w w_set_q(const char *q) { return (lc_w){set_q(q), set_q(q)}; }

/* Sums in turn: gcc would add words up as a tree, whose leaves don't fit the registers. */
static inline __m256i in_turn(__m256i sum) {
    __asm__("" : "+x"(sum));
    return sum;
}
static inline __m256i madd_8(__m256i acc, __m256i a, __m256i b) {
    return in_turn(_mm256_add_epi32(acc, _mm256_madd_epi16(a, b)));
}
static inline lc_w w_madd(lc_w acc, lc_w a, lc_w b) {
    return (lc_w){madd_8(acc.lo, a.lo, b.lo), madd_8(acc.hi, a.hi, b.hi)};
}
static inline __m256i maddubs_16(__m256i acc, __m256i a, __m256i b) {
    return in_turn(_mm256_add_epi16(acc, _mm256_maddubs_epi16(a, b)));
}
static inline lc_w w_maddubs(lc_w acc, lc_w a, lc_w b) {
    return (lc_w){maddubs_16(acc.lo, a.lo, b.lo), maddubs_16(acc.hi, a.hi, b.hi)};
}
static inline lc_w w_odd_bytes(lc_w w) {
    return (lc_w){_mm256_srli_epi16(w.lo, 8), _mm256_srli_epi16(w.hi, 8)};
}

#endif
