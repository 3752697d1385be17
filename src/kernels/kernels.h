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
    LC_LANES = 16,      /* lanes of every fp32 reduction and columns of a panel */
    LC_K_BLOCK = 32,    /* block of the contraction index in a matrix product */
    LC_STRIP_ROWS = 16, /* weight rows whose words lie side by side, where weights lie in strips */
};

/* K rounded up to whole blocks: the padded length of both operands along the contraction. */
static inline size_t lc_pad_k(size_t k) { return (k + LC_K_BLOCK - 1) / LC_K_BLOCK * LC_K_BLOCK; }

/* Enough space, in floats, for `rows` packed left rows of any path. */
static inline size_t lc_left_floats(size_t rows, size_t k) { return rows * lc_pad_k(k); }

/*
 * A matrix product c[i][j] = sum over k of left[i][k] * right(k, j), in the order of numerics.md 1:
 * inside each block of 32 an even and an odd chain of fused multiply-adds from zero, the two added,
 * the result added to the accumulator.
 */
typedef struct lc_product {
    size_t rows, k, columns;
    const void *left;  /* as pack_nk or pack_kn of the same path wrote it, `rows` rows */
    const void *right; /* elements of the path's type: nk [columns][ld], kn [k][ld] */
    size_t ld;         /* nk: >= lc_pad_k(k), elements k .. lc_pad_k(k)-1 of each row are zero */
    float *c;          /* [rows][ldc] */
    size_t ldc;
    void *scratch; /* path->scratch_bytes(rows, k) bytes, 64-byte aligned */
    /* kn only. NULL, or [rows]: instead of being overwritten, c becomes fma(c, decay[i], product);
     * a row i with a negative decay keeps its c. */
    const float *decay;
    /* With decay: NULL, or what joins c next: equal in all but left, right, decay and then. Of
     * multiply_turned: NULL, or what comes next: equal in all but right, c and then. */
    const struct lc_product *then;
    bool add; /* multiply only: c[i][j] += the product, one rounding */
} lc_product;

/*
 * SwiGLU of two nk products as left rows for the next one: h[i][j] = swiglu(left[i] . gate row j,
 * left[i] . up row j), rounded and packed as pack_nk packs rows of `width` values. The columns and
 * the place of the first one are whole blocks of k of that next product.
 */
typedef struct lc_gated {
    lc_product gate; /* c, ldc, decay, then and add aren't used */
    const void *up;  /* as gate.right */
    void *hidden;    /* all packed rows */
    size_t width;    /* whole blocks */
    size_t column;   /* of the first gate row in them */
} lc_gated;

/*
 * Sides of products that are packed from fp32 values, some blocks of k at a time: k from `begin`, a
 * multiple of LC_K_BLOCK, to `end`, another one or the side's k.
 */
typedef struct lc_right { /* kn: right(k, j) = x[k][j], else x[j][k] */
    size_t k, columns, begin, end;
    const float *x; /* kn: [k][ld], else [columns][ld] */
    size_t ld;
    bool kn;
} lc_right;

typedef struct lc_turned { /* left(i, k) = x[k][i] */
    size_t rows, k, begin, end;
    const float *x; /* [k][ldx] */
    size_t ldx;
} lc_turned;

/* For functions with parameters that are constants in every call: loops over them unroll. */
#define LC_INLINE static inline __attribute__((always_inline))
/* For functions that gcc compiles better alone than inside of others. */
#define LC_APART static __attribute__((noinline))

enum { LC_FEW_ROWS = 32 };

/* One way to run products. Left rows are packed once and used with many right sides. */
typedef struct lc_gemm_path {
    const char *name;
    size_t element; /* bytes of a right element: 4 (fp32) or 2 (BF16) */
    size_t left;    /* bytes of a packed left element */
    size_t right;   /* and of a packed right one */
    size_t panel;   /* columns of a panel */
    size_t few;     /* columns that a task should take at a time with up to LC_FEW_ROWS left rows */
    size_t wide;    /* and with more: both multiples of panel */
    size_t (*scratch_bytes)(size_t rows, size_t k);
    /* x [rows][ldx] -> out, lc_left_bytes of space, rounded to BF16 if the element is. Groups of 16
     * rows may be packed apart: row 16 i begins at byte lc_left_bytes(path, 16 i, k). nk and kn
     * products need their own packing. */
    void (*pack_nk)(size_t rows, size_t k, const float *x, size_t ldx, void *out);
    void (*pack_kn)(size_t rows, size_t k, const float *x, size_t ldx, void *out);
    void (*multiply_nk)(const lc_product *p);
    void (*multiply_kn)(const lc_product *p);
    /* NULL, or nk products that come as groups of 16 left rows, c [group][column][16]; ldc isn't
     * used. A path has it where that is cheaper than rows. Its left rows are packed by pack_lanes,
     * in the space of whole groups. */
    void (*multiply_turned)(const lc_product *p);
    void (*pack_lanes)(size_t rows, size_t k, const float *x, size_t ldx, void *out);
    /* With it: 16 left rows take longer than reading the right ones, so several threads that share
     * the left rows may each read all right ones. */
    bool arithmetic_binds;
    void (*multiply_gated)(const lc_gated *g); /* may be NULL */
    /* What pack_kn writes for the transpose. */
    void (*pack_turned)(const lc_turned *left, void *out);
    /* Panels of `panel` columns, which may be packed and multiplied apart: column j, a multiple of
     * panel, begins at byte lc_right_bytes(path, k, j). */
    void (*pack_right)(const lc_right *right, void *out);
    /* Both sides packed: left by pack_kn or pack_turned, right by pack_right; ld isn't used. */
    void (*multiply)(const lc_product *p);
    /* NULL, or left rows packed by pack_kn times BF16 columns in strips of LC_STRIP_ROWS, the last
     * one whole too: [strip][k / 2][column], words of two k, the even one in the low half, as
     * lc_mat has them; k is whole blocks, ld, decay, then and add aren't used. */
    void (*multiply_strips)(const lc_product *p);
} lc_gemm_path;

/* Bytes of `columns` packed right columns. */
static inline size_t lc_right_bytes(const lc_gemm_path *path, size_t k, size_t columns) {
    return (columns + path->panel - 1) / path->panel * path->panel * lc_pad_k(k) * path->right;
}

/* Bytes of `rows` packed left rows. */
static inline size_t lc_left_bytes(const lc_gemm_path *path, size_t rows, size_t k) {
    return rows * lc_pad_k(k) * path->left;
}

/* Columns of a task for `rows` left rows. */
static inline size_t lc_panel(const lc_gemm_path *path, size_t rows) {
    return rows > LC_FEW_ROWS ? path->wide : path->few;
}

/*
 * A row of codes in groups: y[i] = fma(code[i] - zeros[g], scales[g], biases[g]) with g = i / size:
 * one rounding. Codes lie one after the other, the low half of a byte first.
 */
typedef enum lc_code_kind {
    LC_CODES_U4,
    LC_CODES_U8,
    LC_CODES_I8,
    LC_CODES_F8,  /* E4M3: bias 7, no infinity, 0x7f and 0xff are NaN */
    LC_CODES_F16, /* two bytes each, little endian */
    LC_CODE_KINDS,
} lc_code_kind;
typedef struct lc_coded_row {
    const uint8_t *codes;
    lc_code_kind kind;
    size_t n, size; /* elements; those of a group: a multiple of 8 unless there is one group only */
    const float *zeros;  /* [ceil(n / size)], whole numbers, or NULL: 0 */
    const float *scales; /* [ceil(n / size)] */
    const float *biases; /* the same, or NULL: y = (code - zero) * scale, -0 kept */
} lc_coded_row;

/* Rows of FP8 codes that share their scales, one for LC_F8_BLOCK columns, to BF16: y = code * scale
 * rounded to fp32, then to BF16. */
enum { LC_F8_BLOCK = 128 };
typedef struct lc_f8_rows {
    size_t rows, n;
    const uint8_t *codes; /* [rows][stride] */
    size_t stride;
    const float *scales; /* [ceil(n / LC_F8_BLOCK)] */
    uint16_t *y;         /* [rows][ld] */
    size_t ld;
} lc_f8_rows;

/*
 * Weight rows of group-quantised codes as a checkpoint stores them; nothing is aligned.
 * value = (code - zero) * scale + bias, one zero, scale and bias for each row and group. Words are
 * little-endian ones of 32 bits, each with 8 (U4) or 4 codes of consecutive k of one row, lowest
 * bits first.
 */
typedef enum lc_code_layout {
    LC_CODES_BY_ROW, /* row r's codes begin at r * stride, one after the other, low half of a byte
                        first */
    LC_CODES_BY_COLUMN, /* GPTQ: word w of row r at w * stride + 4 * r */
    LC_CODES_IN_STRIPS, /* strips of 16 rows, the last one whole too, so that a product reads them
                           from end to end: word w of row r at r / 16 * stride + 64 * w + r % 16 * 4
                         */
} lc_code_layout;
typedef enum lc_scale_type { LC_SCALES_F32, LC_SCALES_F16, LC_SCALES_BF16 } lc_scale_type;
typedef struct lc_coded_rows {
    lc_code_kind kind;
    lc_code_layout layout;
    const uint8_t *codes; /* in strips: of a row that begins one */
    size_t stride;        /* bytes */
    size_t size; /* k of a group: a multiple of 32, or >= k for a single one; at most 65536 k of a
                  * group with U8 and I8. The last group may be short. */
    lc_scale_type scale_type;
    const void *scales, *biases; /* of row r, group g at r * scale_row + g * scale_group, in strips
                                  * at (r / 16 * groups + g) * 16 + r % 16; biases may be NULL, else
                                  * they have the scales' type and places */
    size_t scale_row, scale_group;
    const int16_t *zeros; /* [rows][groups], or NULL: `zero` for all */
    int zero;             /* in the range of zeros, too */
} lc_coded_rows;

/* c[i][j] = left row i times weight row j, in the order of numerics.md 1. */
typedef struct lc_coded_product {
    size_t rows, k, columns;
    const void *left;    /* packed by the same path for this kind, k and group size */
    lc_coded_rows right; /* `columns` rows */
    float *c;            /* [rows][ldc] */
    size_t ldc;
    void *scratch; /* path->scratch_bytes(rows, k, size) bytes, 64-byte aligned */
} lc_coded_product;

/* Products of fp32 rows, quantised to int8 group by group, with coded rows; exact sums inside a
 * group. */
typedef struct lc_coded_path {
    const char *name;
    size_t few, wide; /* columns of a task, as in lc_gemm_path */
    /* Space of packed rows: at most 3 bytes a value of rows padded to 32, and 64 bytes a row. A
     * multiple of 64. */
    size_t (*left_bytes)(size_t rows, size_t k, size_t size);
    size_t (*scratch_bytes)(size_t rows, size_t k, size_t size);
    /* x [rows][ldx] -> out. Any groups of rows may be packed apart: row i begins at byte
     * left_bytes(i, k, size). out should be 64-byte aligned. */
    void (*pack)(lc_code_kind kind, size_t size, size_t rows, size_t k, const float *x, size_t ldx,
                 void *out);
    void (*multiply)(const lc_coded_product *p);
} lc_coded_path;

/*
 * A block of attention scores of up to 16 rows on its way into their running softmax (numerics.md
 * 3). Of row i's n scores, lo[i] .. hi[i]-1 count; the others get p = 0. A row of which none does
 * keeps its max and sum and gets alpha = -1.
 */
typedef struct lc_softmax_block {
    size_t rows, n;
    float *scores; /* [rows][n], turned: [n][16]: products in, p = exp(product * scale - new max)
                      out */
    bool turned;
    float scale;
    const float *lo, *hi;     /* [rows], whole numbers, or NULL: all scores count */
    float *max, *sum, *alpha; /* [rows]: running, running, exp(old max - new max) out */
} lc_softmax_block;

/* Gradient of y[i] = w[i] * (x[i] * r) * scale, r = 1 / sqrt(mean(x^2) + eps). */
typedef struct lc_norm_gradient {
    size_t n;
    const float *x, *w, *dy;
    float eps, scale;
    float *dx; /* added to: fma(r, dy w scale - x r^2 mean(dy w scale x), dx) */
} lc_norm_gradient;

/* Gradient of w in the same, over rows. */
typedef struct lc_norm_weights {
    size_t rows, n;
    const float *dy, *x; /* [rows][lddy], [rows][ldx] */
    size_t lddy, ldx;
    const float *rates; /* [rows] what norm_gradient returned */
    float *sums;        /* [n] */
} lc_norm_weights;

typedef struct lc_kernels {
    lc_isa isa;

    lc_gemm_path f32, bf16; /* products of fp32 and of BF16 values, fp32 sums */
    lc_coded_path coded;    /* products of int8 values with codes */

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

    void (*softmax_block)(const lc_softmax_block *b);
    /* y[j] = sum over i, in order, of w[i] max(x[i][j], 0): fma(w[i], max(x[i][j], 0), y[j]) from
     * 0. x [rows][n]. */
    void (*sum_scaled_relu)(size_t rows, size_t n, const float *w, const float *x, float *y);

    /* Unsigned integers in the order of the floats: 0.0 and -0.0 are equal, NaN is beyond the
     * infinity of its sign. y may be x. */
    void (*order_floats)(size_t n, const float *x, uint32_t *y);
    /* Indices i of x[i] > t, and of the first `ties` of x[i] == t, ascending, each plus `base`;
     * returns their number. */
    size_t (*pick_above)(size_t n, const uint32_t *x, uint32_t t, size_t ties, int32_t base,
                         int32_t *out);
    /* Copies the x[i] with x[i] >> shift == prefix in order; returns their number. y may be x. */
    size_t (*keep_prefix)(size_t n, const uint32_t *x, int shift, uint32_t prefix, uint32_t *y);

    /* y[i] = x[i] rounded to BF16 (nearest even), as fp32. y may be x. */
    void (*round_bf16)(size_t n, const float *x, float *y);
    void (*widen_bf16)(size_t n, const uint16_t *x, float *y);
    void (*narrow_bf16)(size_t n, const float *x, uint16_t *y); /* nearest even */

    void (*decode)(const lc_coded_row *row, float *y);
    /* The bits of decode, then narrow_bf16. */
    void (*decode_bf16)(const lc_coded_row *row, uint16_t *y);
    void (*decode_f8_rows)(const lc_f8_rows *rows);

    /* For training. sum of x[i] y[i] in the order of numerics.md 3. */
    float (*dot)(size_t n, const float *x, const float *y);
    /* Returns r * scale. */
    float (*norm_gradient)(const lc_norm_gradient *g);
    /* Of swiglu. gate and up become their gradients. */
    void (*swiglu_gradient)(size_t n, const float *dy, float *gate, float *up);
    /* sums[j] += over i, in order, of dy[i][j] * (x[i][j] * rates[i]), from 0, unfused. */
    void (*norm_weights)(const lc_norm_weights *w);
    void (*scale)(size_t n, float a, float *x); /* x[i] = x[i] * a */
    /* z[i] = x[i] * y[i], x[i] + y[i]; z may be either. */
    void (*mul)(size_t n, const float *x, const float *y, float *z);
    void (*add)(size_t n, const float *x, const float *y, float *z);
    /* dp[i] = p[i] * (dp[i] - mean) * scale: from gradients of softmax's results to those of its
     * inputs. */
    void (*softmax_gradient)(size_t n, const float *p, float mean, float scale, float *dp);
    /* x[i] = x[i] * scale where on[i] is not 0, else -infinity. on NULL: all. */
    void (*scale_chosen)(size_t n, float scale, const uint8_t *on, float *x);
    /* dz[i] = d[i] * w and z[i] stays where z[i] > 0; else both are 0. */
    void (*relu_gradient)(size_t n, float w, const float *d, float *z, float *dz);
    /* y [cols][ldy] = x [rows][ldx] transposed. */
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

/*
 * The best table of this machine, with the BF16 products (`bf16`) of the instruction set that is
 * fastest at them here: a higher one isn't always. Tested as above and measured once a process,
 * which takes some milliseconds; bits never depend on it. isa is that of everything else, bf16.name
 * tells the choice. *dropped is the lowest set that failed the test. Thread-safe. The scalar table
 * while there is too little memory to measure.
 */
const lc_kernels *lc_kernels_fastest(lc_isa *dropped);

/* The table to work with: the best one up to the instruction set `isa`, or with NULL the fastest.
 * Warns of a set that was dropped. LC_EINVAL: no such name; LC_EUNSUPPORTED: this machine lacks it.
 */
int lc_kernels_named(const char *isa, const lc_kernels **out, lc_err *err);

#endif
