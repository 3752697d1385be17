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
    BF_ROWS = 8,     /* rows of a register tile */
    BF_COLUMNS = 16, /* columns of a panel */
    BF_ORDERED = 32, /* right rows that are put in order while as many are used, turned.h */
    BF_TASK = 160,   /* columns of a task with few left rows, */
    BF_WIDE = 32,    /* and with many */
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

/* Left rows: 16 after 16, fewer in the last group: [block][row][word]. */
static void pack_left(size_t rows, size_t k, const float *x, size_t ldx, void *out) {
    __m512i order = chain_order();
    uint32_t *y = out;
    for (size_t first = 0; first < rows; first += 16)
        for (size_t b = 0; b < k; b += LC_K_BLOCK)
            for (size_t i = first; i < rows && i < first + 16; i++, y += BF_WORDS) {
                __m512i v = round_32(x + i * ldx + b, k - b < LC_K_BLOCK ? k - b : LC_K_BLOCK);
                _mm512_storeu_si512(y, _mm512_permutexvar_epi16(order, v));
            }
}

/* Panels: [block][word][16 columns]. */
static size_t bf_scratch(size_t rows, size_t k) {
    (void)rows;
    return lc_pad_k(k) * 2 * BF_ORDERED * sizeof(uint16_t);
}

/* k from begin to end, whole blocks. */
typedef struct bf_chunk {
    size_t begin, end;
} bf_chunk;

static void panel_of_rows(const lc_product *p, size_t column, size_t n, bf_chunk k,
                          uint32_t *panel) {
    __m512i order = chain_order();
    const uint16_t *right = (const uint16_t *)p->right + column * p->ld;
    for (size_t b = k.begin; b < k.end; b += LC_K_BLOCK, panel += BF_WORDS * BF_COLUMNS) {
        __m512i r[16];
        for (size_t i = 0; i < 16; i++) {
            r[i] = _mm512_setzero_si512();
            if (i >= n) continue;
            const uint16_t *w = right + i * p->ld + b;
            __builtin_prefetch(w + FETCH, 0, 2);
            r[i] = _mm512_permutexvar_epi16(order, _mm512_loadu_si512(w));
        }
        transpose_16x16(r);
        for (size_t w = 0; w < BF_WORDS; w++) _mm512_storeu_si512(panel + w * BF_COLUMNS, r[w]);
    }
}

static inline __m512i right_row(const lc_product *p, size_t k, size_t column, __mmask16 columns) {
    if (k >= p->k) return _mm512_setzero_si512();
    const uint16_t *from = (const uint16_t *)p->right + k * p->ld + column;
    return _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(columns, from));
}

/* Lanes of two right rows side by side: of `even` in the even slots. */
static inline __m512i slots_of_rows(__m512i even, __m512i odd) {
    uint16_t order[32];
    for (uint16_t i = 0; i < 16; i++) {
        order[2 * i] = i;
        order[2 * i + 1] = (uint16_t)(32 + i);
    }
    return _mm512_permutex2var_epi16(even, _mm512_loadu_si512(order), odd);
}

static void panel_of_columns(const lc_product *p, size_t column, size_t n, bf_chunk chunk,
                             uint32_t *panel) {
    __mmask16 columns = n == 16 ? 0xffff : first_lanes(n);
    for (size_t b = chunk.begin; b < chunk.end; b += LC_K_BLOCK)
        for (size_t w = 0; w < BF_WORDS; w++, panel += BF_COLUMNS) {
            size_t k = b + 4 * (w % 8) + w / 8;
            _mm512_storeu_si512(panel, slots_of_rows(right_row(p, k + 2, column, columns),
                                                     right_row(p, k, column, columns)));
        }
}

/* acc += the word at left times each of 16 words. The compiler would broadcast it by an instruction
 * of its own. */
static inline __m512 dot(__m512 acc, const uint32_t *left, __m512i right) {
    __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(right), "m"(*left));
    return acc;
}

/* `rows` is a constant in every call, so that loops over it unroll and sums stay in registers. */
#define LC_EACH_ROW _Pragma("GCC unroll 8") for (int r = 0; r < rows; r++)

typedef __m512 bf_sums[BF_ROWS];

/* A block of k of `rows` left rows times 16 lanes. */
LC_INLINE void bf_block(const uint32_t *left, const uint32_t *words, const int rows, bf_sums acc) {
    bf_sums even, odd;
    LC_EACH_ROW even[r] = odd[r] = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (size_t w = 0; w < 8; w++) {
        __m512i word = _mm512_loadu_si512(words + w * 16);
        LC_EACH_ROW even[r] = dot(even[r], left + (size_t)r * BF_WORDS + w, word);
    }
#pragma GCC unroll 8
    for (size_t w = 8; w < BF_WORDS; w++) {
        __m512i word = _mm512_loadu_si512(words + w * 16);
        LC_EACH_ROW odd[r] = dot(odd[r], left + (size_t)r * BF_WORDS + w, word);
    }
    LC_EACH_ROW acc[r] = _mm512_add_ps(acc[r], _mm512_add_ps(even[r], odd[r]));
}

/* A left row's group of 16: words from block to block, the row's first word. */
typedef struct bf_left {
    size_t step;
    const uint32_t *words;
} bf_left;

static inline bf_left left_from(const lc_product *p, size_t row) {
    size_t first = row / 16 * 16, n = p->rows - first < 16 ? p->rows - first : 16;
    const uint32_t *group = (const uint32_t *)p->left + first * lc_pad_k(p->k) / 2;
    return (bf_left){n * BF_WORDS, group + (row - first) * BF_WORDS};
}

/* What becomes of a row's product. */
static inline void bf_store(const lc_product *p, size_t row, size_t column, __mmask16 lanes,
                            __m512 product) {
    float *to = p->c + row * p->ldc + column;
    if (p->decay) {
        float decay = p->decay[row];
        if (decay < 0.0f) return;
        product = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(lanes, to), _mm512_set1_ps(decay), product);
    }
    if (p->add) product = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, to), product);
    _mm512_mask_storeu_ps(to, lanes, product);
}

/* Rows from `row` on times n <= 16 columns from `column` on. */
LC_INLINE void bf_rows(const lc_product *p, size_t row, const int rows, const uint32_t *words,
                       size_t column, size_t n, bf_chunk chunk) {
    bf_left left = left_from(p, row);
    float *c = p->c + row * p->ldc + column;
    __mmask16 lanes = n >= 16 ? 0xffff : first_lanes(n);
    bf_sums acc;
    left.words += chunk.begin / LC_K_BLOCK * left.step;
    LC_EACH_ROW acc[r] =
        chunk.begin ? _mm512_maskz_loadu_ps(lanes, c + (size_t)r * p->ldc) : _mm512_setzero_ps();
    for (size_t b = chunk.begin; b < chunk.end; b += LC_K_BLOCK) {
        bf_block(left.words, words, rows, acc);
        left.words += left.step;
        words += BF_WORDS * BF_COLUMNS;
    }
    LC_EACH_ROW bf_store(p, row + (size_t)r, column, lanes, acc[r]);
}

/* `rows` left rows from `row` on times 16 columns from `column` on, whose words become a panel if
 * that isn't NULL. `rows` is a constant in every call, and so is whether there is a panel. */
typedef void bf_tile(const lc_product *p, size_t row, const int rows, size_t column,
                     uint32_t *panel);

static inline void bf_panel(const lc_product *p, size_t row, const uint32_t *panel, size_t column,
                            bf_chunk k);

/* All left rows times 16 columns. Up to `most` of them make their words again for every BF_ROWS;
 * of more, the first ones keep them for the others. */
LC_INLINE void run_strip(bf_tile *tile, const lc_product *p, size_t column, size_t most) {
    if (p->rows > most) {
        tile(p, 0, BF_ROWS, column, p->scratch);
        bf_panel(p, BF_ROWS, p->scratch, column, (bf_chunk){0, p->k});
        return;
    }
    size_t row = 0;
    for (; row + BF_ROWS <= p->rows; row += BF_ROWS) tile(p, row, BF_ROWS, column, NULL);
    switch (p->rows - row) {
    case 1: tile(p, row, 1, column, NULL); break;
    case 2: tile(p, row, 2, column, NULL); break;
    case 3: tile(p, row, 3, column, NULL); break;
    case 4: tile(p, row, 4, column, NULL); break;
    case 5: tile(p, row, 5, column, NULL); break;
    case 6: tile(p, row, 6, column, NULL); break;
    case 7: tile(p, row, 7, column, NULL); break;
    }
}

#include "kernels/avx512bf16/turned.h"

#include "kernels/avx512bf16/few.h"

#include "kernels/avx512bf16/straight.h"

#include "kernels/avx512bf16/along.h"

extern const lc_kernels lc_kernels_avx512bf16;
#define LC_KERNELS_TABLE lc_kernels_avx512bf16
#define LC_KERNELS_ISA LC_ISA_AVX512BF16
#define BF_NAME "vdpbf16ps"
#define BF_LANES pack_lanes
#define BF_LANES_MULTIPLY bf_multiply_turned
#define BF_ARITHMETIC_BINDS true
#include "kernels/bf_panels.inc"
#include "kernels/kernels.inc"
