/*
 * mat.c: binding checkpoint tensors as matrices and decoding single rows.
 *
 * Bargain: data is used where it lies in the mapped file; only tensors that are not aligned to
 * their elements are copied, once, at bind time. Products with whole matrices are the kernels'
 * matter.
 */
#include "format/mat.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdio.h>

enum { MAX_TEXT = 96 };

/* "F32 [3][4]" for messages. */
static const char *describe(const lc_tensor *t, char out[MAX_TEXT]) {
    int used = snprintf(out, MAX_TEXT, "%.16s ", t->dtype_name);
    for (int i = 0; i < t->rank && used < MAX_TEXT; i++)
        used += snprintf(out + used, (size_t)(MAX_TEXT - used), "[%zu]", t->shape[i]);
    return out;
}

static bool shape_is(const lc_tensor *t, size_t rows, size_t cols) {
    if (t->rank == 1) return rows == 1 && t->shape[0] == cols;
    return t->rank == 2 && t->shape[0] == rows && t->shape[1] == cols;
}

static bool aligned(const void *data, lc_dtype type) {
    return (uintptr_t)data % lc_dtype_size(type) == 0;
}

/* Finds <name><suffix>; NULL if absent. */
static const lc_tensor *companion(const lc_tensors *tensors, const char *name, const char *suffix) {
    char text[1100]; /* names are at most 1,000 bytes */
    int len = snprintf(text, sizeof text, "%s%s", name, suffix);
    return len > 0 && (size_t)len < sizeof text ? lc_tensors_find(tensors, text) : NULL;
}

static int find_scales(const lc_tensors *tensors, const lc_tensor *t, lc_mat *m, lc_err *err) {
    const lc_tensor *block = companion(tensors, t->name, "_scale_inv");
    const lc_tensor *row = companion(tensors, t->name, "_scale");
    bool f8 = t->dtype == LC_F8_E4M3, i8 = t->dtype == LC_I8;
    const lc_tensor *s = f8 ? block : i8 ? row : block ? block : row;
    char text[MAX_TEXT];
    if (!f8 && !i8 && !s) return LC_OK;
    if (!s)
        return lc_fail(err, LC_EFORMAT, "%s: tensor %s is %s, but %s%s is missing", t->file,
                       t->name, t->dtype_name, t->name, f8 ? "_scale_inv" : "_scale");
    if (!f8 && !i8)
        return lc_fail(err, LC_EFORMAT, "%s: tensor %s is %s, but has scales %s (%s)", t->file,
                       t->name, t->dtype_name, s->name, s->file);
    size_t rows = m->rows, cols = 1;
    bool fits;
    if (f8) {
        rows = (m->rows - 1) / LC_SCALE_BLOCK_SIZE + 1;
        cols = (m->cols - 1) / LC_SCALE_BLOCK_SIZE + 1;
        fits = shape_is(s, rows, cols);
    } else {
        fits = shape_is(s, rows, 1) || (s->rank == 1 && s->shape[0] == rows);
    }
    if (!fits || s->dtype != LC_F32)
        return lc_fail(err, LC_EFORMAT,
                       "%s: tensor %s: scales of %s [%zu][%zu] must be F32 [%zu][%zu], found %s",
                       s->file, s->name, t->name, m->rows, m->cols, rows, cols, describe(s, text));
    m->scales = s->data;
    m->scaling = f8 ? LC_SCALE_BLOCK : LC_SCALE_ROW;
    return LC_OK;
}

int lc_mat_probe(const lc_tensors *tensors, const char *name, size_t rows, size_t cols, lc_mat *out,
                 lc_err *err) {
    char text[MAX_TEXT];
    *out = (lc_mat){0};
    if (!rows || !cols) return lc_fail(err, LC_EINVAL, "tensor %s: empty shape asked for", name);
    const lc_tensor *t = lc_tensors_find(tensors, name);
    if (!t) return lc_fail(err, LC_ENOTFOUND, "tensor %s is missing in the checkpoint", name);
    if (!shape_is(t, rows, cols))
        return lc_fail(err, LC_EFORMAT, "%s: tensor %s: expected shape [%zu][%zu], found %s",
                       t->file, name, rows, cols, describe(t, text));
    if (t->dtype > LC_I8) /* the five types of weights come first */
        return lc_fail(err, LC_EUNSUPPORTED,
                       "%s: tensor %s: dtype %.16s, expected F32, F16, BF16, F8_E4M3 or I8",
                       t->file, name, t->dtype_name);
    lc_mat m = {.name = t->name, .type = t->dtype, .rows = rows, .cols = cols, .data = t->data};
    int status = find_scales(tensors, t, &m, err);
    if (status == LC_OK) *out = m;
    return status;
}

static size_t data_bytes(const lc_mat *mat) {
    return mat->rows * mat->cols * lc_dtype_size(mat->type);
}

static size_t scale_bytes(const lc_mat *mat) {
    size_t n = mat->scaling == LC_SCALE_ROW ? mat->rows : 0;
    if (mat->scaling == LC_SCALE_BLOCK)
        n = ((mat->rows - 1) / LC_SCALE_BLOCK_SIZE + 1) *
            ((mat->cols - 1) / LC_SCALE_BLOCK_SIZE + 1);
    return n * sizeof(float);
}

static void *copy(const void *data, size_t size) {
    void *block = lc_alloc(size);
    if (block) memcpy(block, data, size);
    return block;
}

int lc_mat_bind(const lc_tensors *tensors, const char *name, size_t rows, size_t cols, lc_mat *out,
                lc_err *err) {
    int status = lc_mat_probe(tensors, name, rows, cols, out, err);
    if (status != LC_OK) return status;
    if (!aligned(out->data, out->type)) {
        out->data = out->owned[0] = copy(out->data, data_bytes(out));
        out->place = LC_PLACE_RESIDENT;
    }
    if (out->scales && !aligned(out->scales, LC_F32))
        out->scales = out->owned[1] = copy(out->scales, scale_bytes(out));
    if (out->data && (out->scales || out->scaling == LC_SCALE_NONE)) return LC_OK;
    lc_mat_unbind(out);
    return lc_fail(err, LC_ENOMEM, "tensor %s: out of memory", name);
}

void lc_mat_unbind(lc_mat *mat) {
    lc_free(mat->owned[0]);
    lc_free(mat->owned[1]);
    *mat = (lc_mat){0};
}

int lc_mat_acquire(const lc_mat *mat, lc_err *err) {
    (void)mat, (void)err; /* mapped and resident matrices are always there */
    return LC_OK;
}

void lc_mat_release(const lc_mat *mat) { (void)mat; }

static void row_f8(const lc_mat *mat, size_t row, float *out) {
    size_t blocks = (mat->cols - 1) / LC_SCALE_BLOCK_SIZE + 1;
    const uint8_t *codes = (const uint8_t *)mat->data + row * mat->cols;
    const float *scales = mat->scales + row / LC_SCALE_BLOCK_SIZE * blocks;
    for (size_t i = 0; i < mat->cols; i++)
        out[i] = lc_f8_e4m3_to_f32(codes[i]) * scales[i / LC_SCALE_BLOCK_SIZE];
}

void lc_mat_row_f32(const lc_mat *mat, size_t row, float *out) {
    size_t cols = mat->cols, at = row * cols;
    if (mat->type == LC_F32) {
        memcpy(out, (const float *)mat->data + at, cols * sizeof *out);
    } else if (mat->type == LC_BF16) {
        const uint16_t *v = (const uint16_t *)mat->data + at;
        for (size_t i = 0; i < cols; i++) out[i] = lc_bf16_to_f32(v[i]);
    } else if (mat->type == LC_F16) {
        const uint16_t *v = (const uint16_t *)mat->data + at;
        for (size_t i = 0; i < cols; i++) out[i] = lc_f16_to_f32(v[i]);
    } else if (mat->type == LC_F8_E4M3) {
        row_f8(mat, row, out);
    } else {
        const int8_t *v = (const int8_t *)mat->data + at;
        for (size_t i = 0; i < cols; i++) out[i] = (float)v[i] * mat->scales[row];
    }
}

size_t lc_mat_bytes(const lc_mat *mat) { return data_bytes(mat) + scale_bytes(mat); }

size_t lc_mat_misaligned(const lc_mat *mat) {
    size_t bytes = aligned(mat->data, mat->type) ? 0 : data_bytes(mat);
    return bytes + (mat->scales && !aligned(mat->scales, LC_F32) ? scale_bytes(mat) : 0);
}
