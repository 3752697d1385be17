/*
 * mat.h: lc_mat, a weight matrix anywhere. The model never knows whether a matrix is BF16 in RAM,
 * FP8 in a mapped file or (later) int4 on an SSD: it acquires it for a use, reads elements through
 * type and scales, and releases it. Storage is row-major [rows][cols] = [out][in], as in the
 * checkpoint.
 */
#ifndef LC_FORMAT_MAT_H
#define LC_FORMAT_MAT_H

#include "format/safetensors.h"
#include "kernels/kernels.h"

typedef enum lc_place {
    LC_PLACE_MAPPED,   /* pages of the checkpoint file */
    LC_PLACE_RESIDENT, /* owned memory: only where the file's bytes can't be used in place
                          (misaligned data) */
} lc_place;

typedef enum lc_scaling {
    LC_SCALE_NONE,
    LC_SCALE_ROW, /* I8: value = q * scales[row]; companion <name>_scale F32 [rows][1] or [rows] */
    LC_SCALE_BLOCK, /* F8_E4M3: value = q * scales[row/128][col/128]; companion <name>_scale_inv F32
                     */
    LC_SCALE_GROUP, /* I8, I32, U32: see lc_groups */
} lc_scaling;

enum {
    LC_SCALE_BLOCK_SIZE = 128,
    LC_MAX_HALF = 8192,   /* columns of a head's keys */
    LC_MAX_GROUP = 65536, /* codes of a group in products, so that their sum fits 32 bits */
};

/*
 * Codes in groups along the columns: value = fma(code - zero, scale, bias) in fp32, one rounding.
 * zero is a whole number and 0 in MLX's format, bias is 0 in all others. Nothing here is aligned:
 * read with memcpy. Scales, biases and zeros are [rows][count], by column [count][rows]; scales in
 * strips are [strips][count][16].
 */
typedef struct lc_groups {
    lc_code_kind kind;
    lc_code_layout layout;
    size_t size, count; /* columns of a group (the last may be short), groups of a row */
    size_t stride;      /* bytes from row to row, by column from word to word, in strips from one to
                           the next */
    lc_dtype scale_type;
    const void *scales;         /* F32, F16 or BF16 */
    const void *biases;         /* of scale_type, or NULL */
    const unsigned char *zeros; /* or NULL: every zero is zero_base */
    enum {
        LC_ZEROS_I8,      /* a byte each */
        LC_ZEROS_BY_ROW,  /* words of rows, [words of rows][count] */
        LC_ZEROS_IN_ROWS, /* by column: [count][words of rows] */
    } zeros_layout;
    int zero_base; /* the zero point, or what is added to a stored one */
    int zero_mask; /* after the addition; -1 = none */
} lc_groups;

typedef struct lc_mat lc_mat;
struct lc_mat {
    const char *name; /* the tensor's; lives as long as the lc_tensors */
    lc_dtype type;    /* F32, F16, BF16, F8_E4M3, I8, I32 or U32; LC_DTYPE_COUNT with halves */
    lc_scaling scaling;
    lc_place place;
    size_t rows, cols;
    size_t bytes;     /* of all tensors that carry the weight */
    const void *data; /* aligned to the element's size, but for LC_SCALE_GROUP and strips */
    const float *
        scales; /* LC_SCALE_ROW, LC_SCALE_BLOCK: block grids are [ceil(rows/128)][ceil(cols/128)] */
    /* LC_SCALE_GROUP. BF16 values may lie in strips, too (LC_SCALE_NONE): then only layout and
     * stride are used; a word has two columns of a row, the first in its low half. */
    lc_groups groups;
    /* kv_b as MLX stores it, or NULL: two matrices, keys [heads * cols][nope] and values [heads *
     * v][cols]. A head's rows are the nope columns of its keys, then its v rows of values. */
    lc_mat *halves;
    void *owned[2]; /* resident copies of data and scales, or NULL */
};

/* Binds the tensor `name` and its scale companion, checking shape [rows][cols] (a 1-D tensor counts
 * as one row) and dtype. LC_ENOTFOUND names the missing tensor; LC_EFORMAT names file, tensor,
 * expected and found shape. How it is stored is told by the tensors that are there (stored.h).
 * Release with lc_mat_unbind. */
int lc_mat_bind(const lc_tensors *tensors, const char *name, size_t rows, size_t cols, lc_mat *out,
                lc_err *err);
void lc_mat_unbind(lc_mat *mat);

/* The same checks without the copy of misaligned data: for looking at a checkpoint, not for use.
 * Nothing to release; halves are checked, but left out. lc_mat_misaligned then gives the bytes that
 * lc_mat_bind would copy. */
int lc_mat_probe(const lc_tensors *tensors, const char *name, size_t rows, size_t cols, lc_mat *out,
                 lc_err *err);
size_t lc_mat_misaligned(const lc_mat *mat);

/* Its rows will be looked up one at a time: no large pages for it. */
void lc_mat_scattered(const lc_mat *mat);

/* Pins the matrix for a use; data and scales are valid until the matching release. Mapped and
 * resident ones always succeed; streamed ones may wait for the disk and fail with LC_EIO. */
int lc_mat_acquire(const lc_mat *mat, lc_err *err);
void lc_mat_release(const lc_mat *mat);

/* One row as fp32 values, scale applied in fp32 (one rounding): out[cols]. The matrix must be
 * acquired. */
void lc_mat_row_f32(const lc_mat *mat, size_t row, float *out);
/* Rows row .. row+n-1, out[n][ld], with the kernels of an instruction set: the same bits. Formats
 * that keep a row's codes apart are decoded much faster with many rows at a time. */
void lc_mat_rows_f32(const lc_kernels *kernels, const lc_mat *mat, size_t row, size_t n, float *out,
                     size_t ld);
/* The same rows rounded to BF16, in one pass: the bits of narrow_bf16 on them, but for the payload
 * of NaNs. FP8 is fastest with many rows at a time. */
void lc_mat_rows_bf16(const lc_kernels *kernels, const lc_mat *mat, size_t row, size_t n,
                      uint16_t *out, size_t ld);

/* Whether the weight is codes in groups that int8 products take as they are: fills kind and group
 * size (cols where a row has one group). */
bool lc_mat_groups(const lc_mat *mat, lc_code_kind *kind, size_t *size);
/* Whether both are such codes with the same kind and size, or neither is. */
bool lc_mat_same_groups(const lc_mat *a, const lc_mat *b);
/* Of such a weight, acquired: rows row .. row+n-1; with codes in strips, row must be a multiple of
 * LC_STRIP_ROWS. zeros: space for n * groups values, used where zero points are stored. */
void lc_mat_coded_rows(const lc_mat *mat, size_t row, size_t n, int16_t *zeros, lc_coded_rows *out);

/* Of such a weight: whether value = code * scale once codes of 4 bits are less 8, unsigned bytes
 * less 128; and, if so, rows row .. row+n-1 as these signed codes [n][cols] with scales
 * [n][groups]. The second one needs an acquired weight. */
bool lc_mat_symmetric(const lc_mat *mat);
void lc_mat_signed_codes(const lc_mat *mat, size_t row, size_t n, int8_t *codes, float *scales);

/* Codes or BF16 values in strips of LC_STRIP_ROWS rows, as `longcat pack` writes them. */
static inline bool lc_mat_in_strips(const lc_mat *mat) {
    return !mat->halves && mat->groups.layout == LC_CODES_IN_STRIPS;
}

/* Bytes as stored, all companions included. */
size_t lc_mat_bytes(const lc_mat *mat);

#endif
