/*
 * kernels.h: the leaf arithmetic, one table of functions per instruction set, one contract for all
 * of them: equal bits.
 *
 * kernels.inc is the specification in code: it is written once, over 16 fp32 lanes, and compiled
 * for every instruction set with that set's lanes.h. The order of every sum is docs/numerics.md.
 * Kernels don't allocate, lock or know models. Callers run them with flush-to-zero and
 * denormals-are-zero on (lc_pool_for does that; lc_fp_enter elsewhere).
 */
#ifndef LC_KERNELS_KERNELS_H
#define LC_KERNELS_KERNELS_H

#include "base/cpu.h"

enum {
    LC_LANES = 16,   /* lanes of every fp32 reduction and columns of a panel */
    LC_K_BLOCK = 32, /* block of the contraction index in a matrix product */
};

/* K rounded up to whole blocks: the padded length of both operands along the contraction. */
static inline size_t lc_pad_k(size_t k) { return (k + LC_K_BLOCK - 1) / LC_K_BLOCK * LC_K_BLOCK; }

typedef struct lc_gemm {
    size_t rows;    /* m */
    size_t k;       /* padded: a multiple of LC_K_BLOCK; padding is zero in both operands */
    const float *a; /* [rows][lda] */
    size_t lda;
    const float *panel; /* [k][ldp], the first 16 columns are used */
    size_t ldp;
    float *c; /* [rows][ldc] */
    size_t ldc;
    size_t columns; /* columns stored, 1..16 */
} lc_gemm;

typedef struct lc_kernels {
    lc_isa isa;

    /* c[i][j] = sum over k of a[i][k] * panel[k][j] in the order of numerics.md 1: inside each
     * block of 32 an even and an odd chain of fused multiply-adds from zero, the two added, the
     * result added to the accumulator. */
    void (*gemm)(const lc_gemm *g);

    /* y[i] = w[i] * (x[i] * r), r = 1 / sqrt(mean(x^2) + eps), spec 2. x may be y. */
    void (*rms_norm)(size_t n, const float *x, const float *w, float eps, float *y);

    /* y[i] = gate[i] / (1 + exp(-gate[i])) * up[i]. y may be gate or up. */
    void (*swiglu)(size_t n, const float *gate, const float *up, float *y);

    /* y[i] = exp(x[i] - max); returns the sum of y in the order of numerics.md 3. x[i] = -inf gives
     * 0. y may be x. */
    float (*exp_sum)(size_t n, const float *x, float max, float *y);
    /* Largest element; n >= 1. */
    float (*max)(size_t n, const float *x);

    /* y[i] = y[i] * a + x[i] * b, one multiplication, one fma: fma(y, a, x * b). */
    void (*scale_add)(size_t n, float a, float b, const float *x, float *y);
    /* y[i] = fma(a, x[i], y[i]) */
    void (*add_scaled)(size_t n, float a, const float *x, float *y);
    /* y[i] = fma(a, max(x[i], 0), y[i]) */
    void (*add_scaled_relu)(size_t n, float a, const float *x, float *y);

    /* y[i] = x[i] rounded to BF16 (nearest even), as fp32. y may be x. */
    void (*round_bf16)(size_t n, const float *x, float *y);
    void (*widen_bf16)(size_t n, const uint16_t *x, float *y);
    void (*narrow_bf16)(size_t n, const float *x, uint16_t *y); /* nearest even */

    /* y[c][r] = x[r][c], x [rows][ldx], y [cols][ldy] */
    void (*transpose)(size_t rows, size_t cols, const float *x, size_t ldx, float *y, size_t ldy);
} lc_kernels;

/* One instruction set's table, or NULL if it isn't built in or this CPU lacks it. */
const lc_kernels *lc_kernels_of(lc_isa isa);

/*
 * The best table whose instruction set is at most `cap` and that passes a self-test of equal bits
 * against the scalar one. A table that fails is dropped and its name stored in *dropped
 * (LC_ISA_COUNT if none; dropped may be NULL).
 */
const lc_kernels *lc_kernels_best(lc_isa cap, lc_isa *dropped);

#endif
