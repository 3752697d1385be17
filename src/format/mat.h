/*
 * mat.h: lc_mat, a weight matrix anywhere. The model never knows whether a matrix is BF16 in RAM,
 * FP8 in a mapped file or (later) int4 on an SSD: it acquires it for a use, reads elements through
 * type and scales, and releases it. Storage is row-major [rows][cols] = [out][in], as in the
 * checkpoint.
 */
#ifndef LC_FORMAT_MAT_H
#define LC_FORMAT_MAT_H

#include "format/safetensors.h"

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
} lc_scaling;

enum { LC_SCALE_BLOCK_SIZE = 128 };

typedef struct lc_mat {
    const char *name; /* the tensor's; lives as long as the lc_tensors */
    lc_dtype type;    /* F32, F16, BF16, F8_E4M3 or I8 */
    lc_scaling scaling;
    lc_place place;
    size_t rows, cols;
    const void *data; /* aligned to the element's size */
    const float
        *scales;    /* NULL for LC_SCALE_NONE; block grids are [ceil(rows/128)][ceil(cols/128)] */
    void *owned[2]; /* resident copies of data and scales, or NULL */
} lc_mat;

/* Binds the tensor `name` and its scale companion, checking shape [rows][cols] (a 1-D tensor counts
 * as one row) and dtype. LC_ENOTFOUND names the missing tensor; LC_EFORMAT names file, tensor,
 * expected and found shape. A weight is FP8 (I8) if and only if its companion exists. Release with
 * lc_mat_unbind. */
int lc_mat_bind(const lc_tensors *tensors, const char *name, size_t rows, size_t cols, lc_mat *out,
                lc_err *err);
void lc_mat_unbind(lc_mat *mat);

/* The same checks without the copy of misaligned data: for looking at a checkpoint, not for use.
 * Nothing to release. lc_mat_misaligned then gives the bytes that lc_mat_bind would copy. */
int lc_mat_probe(const lc_tensors *tensors, const char *name, size_t rows, size_t cols, lc_mat *out,
                 lc_err *err);
size_t lc_mat_misaligned(const lc_mat *mat);

/* Pins the matrix for a use; data and scales are valid until the matching release. Mapped and
 * resident ones always succeed; streamed ones may wait for the disk and fail with LC_EIO. */
int lc_mat_acquire(const lc_mat *mat, lc_err *err);
void lc_mat_release(const lc_mat *mat);

/* One row as fp32 values, scale applied in fp32 (one rounding): out[cols]. The matrix must be
 * acquired. */
void lc_mat_row_f32(const lc_mat *mat, size_t row, float *out);

/* Bytes of data and scales as stored. */
size_t lc_mat_bytes(const lc_mat *mat);

#endif
