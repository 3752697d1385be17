/*
 * avx512bf16.c: BF16 products with vdpbf16ps; the rest is AVX-512.
 *
 * The instruction adds two products to an accumulator: two fused multiply-adds in sequence, the odd
 * slot first, then the even one, denormals flushed. So both operands are shuffled: inside a block
 * of 32, eight words hold k = 4j in the odd and 4j + 2 in the even slot and feed the even chain of
 * numerics.md 1, eight hold 4j + 1 and 4j + 3 and feed the odd one.
 */
#include "kernels/kernels.h"

#include "kernels/avx512/lanes.h"
#include "kernels/avx512/transpose.h"

enum {
    BF_ROWS = 4,     /* rows of a register tile */
    BF_COLUMNS = 32, /* columns of a panel */
    BF_TASK = 160,   /* columns of a task with few left rows */
    BF_WORDS = 16,   /* 32-bit words of a block: 8 of the even chain, 8 of the odd */
    FETCH = 256,     /* k of a weight row that are fetched ahead, to the second cache */
};

/* Order of the 32 halves of a block: word j < 8 is (4j+2, 4j), word 8 + j is (4j+3, 4j+1). */
static inline __m512i chain_order(void) {
    uint16_t order[32];
    for (uint16_t j = 0; j < 8; j++) {
        order[2 * j] = (uint16_t)(4 * j + 2);
        order[2 * j + 1] = (uint16_t)(4 * j);
        order[16 + 2 * j] = (uint16_t)(4 * j + 3);
        order[16 + 2 * j + 1] = (uint16_t)(4 * j + 1);
    }
    return _mm512_loadu_si512(order);
}

static inline __m512i round_32(const float *x, size_t n) {
    float t[32] = {0};
    uint16_t h[32];
    if (n < 32) {
        memcpy(t, x, n * sizeof *x);
        x = t;
    }
    v_store_bf16(h, v_load(x));
    v_store_bf16(h + 16, v_load(x + 16));
    return _mm512_loadu_si512(h);
}

/* Left rows: each block of a row is 16 words, in chain order. */
static void pack_left(size_t rows, size_t k, const float *x, size_t ldx, void *out) {
    __m512i order = chain_order();
    for (size_t i = 0; i < rows; i++) {
        uint32_t *y = (uint32_t *)out + i * lc_pad_k(k) / 2;
        for (size_t b = 0; b < k; b += LC_K_BLOCK, y += BF_WORDS) {
            __m512i v = round_32(x + i * ldx + b, k - b < LC_K_BLOCK ? k - b : LC_K_BLOCK);
            _mm512_storeu_si512(y, _mm512_permutexvar_epi16(order, v));
        }
    }
}

/* Panels: [block][word][32 columns]. */
static size_t bf_scratch(size_t rows, size_t k) {
    (void)rows;
    return lc_pad_k(k) / LC_K_BLOCK * BF_WORDS * BF_COLUMNS * sizeof(uint32_t);
}

/* k from begin to end, whole blocks. */
typedef struct bf_chunk {
    size_t begin, end;
} bf_chunk;

static void panel_of_rows(const lc_product *p, size_t column, size_t n, bf_chunk k,
                          uint32_t *panel) {
    __m512i order = chain_order();
    const uint16_t *right = p->right;
    for (size_t b = k.begin; b < k.end; b += LC_K_BLOCK, panel += BF_WORDS * BF_COLUMNS)
        for (size_t half = 0; half < 2; half++) {
            __m512i r[16];
            for (size_t i = 0; i < 16; i++) {
                size_t c = half * 16 + i;
                r[i] = _mm512_setzero_si512();
                if (c >= n) continue;
                const uint16_t *w = right + (column + c) * p->ld + b;
                __builtin_prefetch(w + FETCH, 0, 2);
                r[i] = _mm512_permutexvar_epi16(order, _mm512_loadu_si512(w));
            }
            transpose_16x16(r);
            for (size_t w = 0; w < BF_WORDS; w++)
                _mm512_storeu_si512(panel + w * BF_COLUMNS + half * 16, r[w]);
        }
}

static inline __m512i right_row(const lc_product *p, size_t k, size_t column, __mmask32 columns) {
    if (k >= p->k) return _mm512_setzero_si512();
    return _mm512_maskz_loadu_epi16(columns, (const uint16_t *)p->right + k * p->ld + column);
}

static void panel_of_columns(const lc_product *p, size_t column, size_t n, bf_chunk chunk,
                             uint32_t *panel) {
    uint16_t low[32], high[32];
    for (uint16_t i = 0; i < 32; i++) { /* halves of 16 columns, even slot then odd slot */
        low[i] = (uint16_t)(i / 2 + (i % 2 ? 32 : 0));
        high[i] = (uint16_t)(16 + i / 2 + (i % 2 ? 32 : 0));
    }
    __m512i first = _mm512_loadu_si512(low), second = _mm512_loadu_si512(high);
    __mmask32 columns = n == 32 ? 0xffffffffu : (1u << n) - 1u;
    for (size_t b = chunk.begin; b < chunk.end; b += LC_K_BLOCK, panel += BF_WORDS * BF_COLUMNS)
        for (size_t w = 0; w < BF_WORDS; w++) {
            size_t k = b + 4 * (w % 8) + w / 8;
            __m512i odd = right_row(p, k, column, columns);
            __m512i even = right_row(p, k + 2, column, columns);
            _mm512_storeu_si512(panel + w * BF_COLUMNS,
                                _mm512_permutex2var_epi16(even, first, odd));
            _mm512_storeu_si512(panel + w * BF_COLUMNS + 16,
                                _mm512_permutex2var_epi16(even, second, odd));
        }
}

static inline __m512 dot(__m512 acc, uint32_t left, __m512i right) {
    return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_set1_epi32((int)left), (__m512bh)right);
}

/* `rows` is a constant in every call, so that loops over it unroll and sums stay in registers. */
#define LC_EACH_ROW _Pragma("GCC unroll 8") for (int r = 0; r < rows; r++)

typedef __m512 bf_tile[BF_ROWS][2];

/* Where the 32 lanes of a tile are: the words of 16 of them `step` words from word to word, those
 * of the others `half` words behind; their results `apart` floats apart. */
typedef struct bf_lanes {
    size_t step, half, apart;
} bf_lanes;

/* One chain of a block of k; `stride` words from left row to left row. */
LC_INLINE void bf_chain(const uint32_t *left, size_t stride, const uint32_t *words,
                        const bf_lanes lanes, const int rows, bf_tile sum) {
    LC_EACH_ROW sum[r][0] = sum[r][1] = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (size_t w = 0; w < 8; w++, words += lanes.step) {
        __m512i p0 = _mm512_loadu_si512(words), p1 = _mm512_loadu_si512(words + lanes.half);
        LC_EACH_ROW {
            uint32_t x = left[(size_t)r * stride + w];
            sum[r][0] = dot(sum[r][0], x, p0);
            sum[r][1] = dot(sum[r][1], x, p1);
        }
    }
}

/* Rows from `row` on times n lanes, whose results begin at `column`. */
LC_INLINE void bf_multiply_rows(const lc_product *p, size_t row, const int rows,
                                const uint32_t *words, const bf_lanes lanes, size_t column,
                                size_t n, bf_chunk chunk) {
    size_t k = lc_pad_k(p->k);
    const uint32_t *left = (const uint32_t *)p->left + (row * k + chunk.begin) / 2;
    float *out = p->c + row * p->ldc + column;
    __mmask16 low = n >= 16 ? 0xffff : first_lanes(n);
    __mmask16 high = n > 16 ? (n == 32 ? 0xffff : first_lanes(n - 16)) : 0;
    bf_tile acc, even, odd;
    LC_EACH_ROW {
        const float *c = out + (size_t)r * p->ldc;
        acc[r][0] = acc[r][1] = _mm512_setzero_ps();
        if (!chunk.begin) continue;
        acc[r][0] = _mm512_maskz_loadu_ps(low, c);
        acc[r][1] = _mm512_maskz_loadu_ps(high, c + lanes.apart);
    }
    for (size_t b = chunk.begin; b < chunk.end; b += LC_K_BLOCK) {
        bf_chain(left, k / 2, words, lanes, rows, even);
        bf_chain(left + 8, k / 2, words + 8 * lanes.step, lanes, rows, odd);
        LC_EACH_ROW {
            acc[r][0] = _mm512_add_ps(acc[r][0], _mm512_add_ps(even[r][0], odd[r][0]));
            acc[r][1] = _mm512_add_ps(acc[r][1], _mm512_add_ps(even[r][1], odd[r][1]));
        }
        left += BF_WORDS;
        words += BF_WORDS * lanes.step;
    }
    LC_EACH_ROW {
        float *c = out + (size_t)r * p->ldc, *c1 = c + lanes.apart;
        if (p->decay) {
            float decay = p->decay[row + (size_t)r];
            if (decay < 0.0f) continue;
            __m512 d = _mm512_set1_ps(decay);
            acc[r][0] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(low, c), d, acc[r][0]);
            acc[r][1] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(high, c1), d, acc[r][1]);
        }
        if (p->add) {
            acc[r][0] = _mm512_add_ps(_mm512_maskz_loadu_ps(low, c), acc[r][0]);
            acc[r][1] = _mm512_add_ps(_mm512_maskz_loadu_ps(high, c1), acc[r][1]);
        }
        _mm512_mask_storeu_ps(c, low, acc[r][0]);
        _mm512_mask_storeu_ps(c1, high, acc[r][1]);
    }
}

LC_INLINE void bf_rows(const lc_product *p, size_t row, const int rows, const uint32_t *panel,
                       size_t column, size_t n, bf_chunk chunk) {
    const bf_lanes lanes = {BF_COLUMNS, 16, 16};
    bf_multiply_rows(p, row, rows, panel, lanes, column, n, chunk);
}

#include "kernels/avx512bf16/turned.h"

#include "kernels/avx512bf16/few.h"

extern const lc_kernels lc_kernels_avx512bf16;
#define LC_KERNELS_TABLE lc_kernels_avx512bf16
#define LC_KERNELS_ISA LC_ISA_AVX512BF16
#define BF_NAME "vdpbf16ps"
#define BF_LANES pack_lanes
#define BF_LANES_MULTIPLY bf_multiply_turned
#include "kernels/bf_panels.inc"
#include "kernels/kernels.inc"
