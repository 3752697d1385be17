/*
 * neonbf16.c: BF16 products with BFMLALB and BFMLALT (FEAT_BF16); the rest is NEON.
 *
 * They multiply the even and the odd BF16 elements of two registers and add in fp32: fused, rounded
 * once, under all bits of FPCR that fp32 arithmetic obeys, flush-to-zero included (Arm Architecture
 * Reference Manual; FPCR.EBF is for BFDOT and BFMMLA only, whose sums have other orders). So they
 * are the two chains of numerics.md 1 as they stand: a 32-bit word holds k = 2j and 2j + 1 of a
 * column. What is saved over fp32 lanes is half of the panel's bytes and the widening.
 */
#include "kernels/kernels.h"

#include "kernels/neon/lanes.h"

enum {
    BF_ROWS = 2,     /* rows of a register tile: 16 chains, 8 sums */
    BF_COLUMNS = 16, /* columns of a panel */
    BF_WIDE = BF_COLUMNS,
    BF_TASK = BF_COLUMNS,
    BF_WORDS = 16, /* 32-bit words of a block */
    BF_QUADS = BF_COLUMNS / 4,
};

/* Left rows: each block of a row is 16 words. */
static void pack_left(size_t rows, size_t k, const float *x, size_t ldx, void *out) {
    for (size_t i = 0; i < rows; i++) {
        uint16_t *y = (uint16_t *)out + i * lc_pad_k(k);
        for (size_t b = 0; b < lc_pad_k(k); b += LC_LANES) {
            size_t n = b >= k ? 0 : k - b < LC_LANES ? k - b : LC_LANES;
            v_store_bf16(y + b, v_load_n(x + i * ldx + (n ? b : 0), n));
        }
    }
}

/* Panels: [pair of k][16 columns], words of two k. */
static size_t bf_scratch(size_t rows, size_t k) {
    (void)rows;
    return lc_pad_k(k) / 2 * BF_COLUMNS * sizeof(uint32_t);
}

/* k from begin to end, whole blocks. */
typedef struct bf_chunk {
    size_t begin, end;
} bf_chunk;

/* Moves of floats keep any bits. */
static void panel_of_rows(const lc_product *p, size_t column, size_t n, bf_chunk k,
                          uint32_t *panel) {
    const uint16_t *right = (const uint16_t *)p->right + column * p->ld;
    float *to = (float *)(void *)panel;
    for (size_t b = k.begin; b < k.end; b += LC_K_BLOCK, to += BF_WORDS * BF_COLUMNS) {
        lc_v r[16];
        for (size_t i = 0; i < 16; i++)
            r[i] = i < n ? v_load((const float *)(const void *)(right + i * p->ld + b)) : v_zero();
        v_transpose(r);
        for (size_t w = 0; w < BF_WORDS; w++) v_store(to + w * BF_COLUMNS, r[w]);
    }
}

static void right_row(const lc_product *p, size_t k, size_t column, size_t n,
                      uint16_t to[BF_COLUMNS]) {
    memset(to, 0, BF_COLUMNS * sizeof *to);
    if (k < p->k) memcpy(to, (const uint16_t *)p->right + k * p->ld + column, n * sizeof *to);
}

static void panel_of_columns(const lc_product *p, size_t column, size_t n, bf_chunk chunk,
                             uint32_t *panel) {
    for (size_t k = chunk.begin; k < chunk.end; k += 2, panel += BF_COLUMNS) {
        uint16_t even[BF_COLUMNS], odd[BF_COLUMNS];
        right_row(p, k, column, n, even);
        right_row(p, k + 1, column, n, odd);
        for (size_t i = 0; i < 2; i++) {
            uint16x8x2_t both = vzipq_u16(vld1q_u16(even + 8 * i), vld1q_u16(odd + 8 * i));
            vst1q_u32(panel + 8 * i, vreinterpretq_u32_u16(both.val[0]));
            vst1q_u32(panel + 8 * i + 4, vreinterpretq_u32_u16(both.val[1]));
        }
    }
}

/* `rows` is a constant in every call. */
LC_INLINE void bf_rows(const lc_product *p, size_t row, const int rows, const uint32_t *panel,
                       size_t column, size_t n, bf_chunk chunk) {
    size_t k = lc_pad_k(p->k);
    const uint32_t *left = (const uint32_t *)p->left + row * k / 2;
    float *c = p->c + row * p->ldc + column;
    lc_v acc[BF_ROWS];
    for (int r = 0; r < rows; r++)
        acc[r] = chunk.begin ? v_load_n(c + (size_t)r * p->ldc, n) : v_zero();
    for (size_t b = chunk.begin / LC_K_BLOCK; b < chunk.end / LC_K_BLOCK; b++) {
        float32x4_t even[BF_ROWS][BF_QUADS], odd[BF_ROWS][BF_QUADS];
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < BF_QUADS; q++) even[r][q] = odd[r][q] = vdupq_n_f32(0.0f);
        for (size_t w = 0; w < BF_WORDS; w++, panel += BF_COLUMNS) {
            bfloat16x8_t x[BF_ROWS];
            for (int r = 0; r < rows; r++)
                x[r] = vreinterpretq_bf16_u32(
                    vld1q_dup_u32(left + (size_t)r * k / 2 + b * BF_WORDS + w));
            for (int q = 0; q < BF_QUADS; q++) {
                bfloat16x8_t y = vreinterpretq_bf16_u32(vld1q_u32(panel + 4 * q));
                for (int r = 0; r < rows; r++) {
                    even[r][q] = vbfmlalbq_f32(even[r][q], x[r], y);
                    odd[r][q] = vbfmlaltq_f32(odd[r][q], x[r], y);
                }
            }
        }
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < BF_QUADS; q++)
                acc[r].q[q] = vaddq_f32(acc[r].q[q], vaddq_f32(even[r][q], odd[r][q]));
    }
    for (int r = 0; r < rows; r++, c += p->ldc) {
        float decay = p->decay ? p->decay[row + (size_t)r] : 0.0f;
        if (decay < 0.0f) continue;
        if (p->decay) acc[r] = v_fma(v_load_n(c, n), v_set(decay), acc[r]);
        if (p->add) acc[r] = v_add(v_load_n(c, n), acc[r]);
        if (n == BF_COLUMNS)
            v_store(c, acc[r]);
        else
            v_store_n(c, acc[r], n);
    }
}

extern const lc_kernels lc_kernels_neonbf16;
#define LC_KERNELS_TABLE lc_kernels_neonbf16
#define LC_KERNELS_ISA LC_ISA_NEONBF16
#define BF_NAME "bfmlal"
#include "kernels/bf_panels.inc"
#include "kernels/kernels.inc"
