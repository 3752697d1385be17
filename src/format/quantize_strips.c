/*
 * quantize_strips.c: strips of 16 rows, the order in which products read weights
 * (docs/formats.md): which ones can lie so, their codes or BF16 values by row from whatever layout,
 * and a strip from rows.
 *
 * Bargain: no value changes. Strips have no zero points: codes of 4 bits have 8, signed bytes 0, so
 * a weight with others stays as it is.
 */
#include "format/quantize_internal.h"

size_t lc_quantize_groups(const lc_quantize_item *item) {
    return item->group ? (item->cols + item->group - 1) / item->group : 1;
}

size_t lc_quantize_rows(const lc_quantize_item *item, size_t rows) {
    return item->strips ? (rows + LC_STRIP_ROWS - 1) / LC_STRIP_ROWS * LC_STRIP_ROWS : rows;
}

bool lc_quantize_strips_fit(size_t cols, size_t group) {
    if (cols % LC_K_BLOCK) return false;
    return group ? cols % group == 0 && group % LC_K_BLOCK == 0 : cols <= LC_MAX_GROUP;
}

bool lc_quantize_can_pack(const lc_mat *mat, lc_quantize_item *item) {
    lc_code_kind kind;
    size_t size;
    bool by_row = mat->scaling == LC_SCALE_ROW;
    if (mat->type == LC_BF16 && mat->scaling == LC_SCALE_NONE) {
        item->bits = LC_QUANTIZE_VALUES;
        return mat->cols % LC_K_BLOCK == 0;
    }
    if (!lc_mat_groups(mat, &kind, &size)) return false;
    item->group = by_row || mat->groups.count == 1 ? 0 : size;
    item->bits = kind == LC_CODES_U4 ? 4 : 8;
    item->scale_type = by_row ? LC_F32 : mat->groups.scale_type;
    return lc_quantize_strips_fit(mat->cols, item->group) && lc_mat_symmetric(mat);
}

/* Numbers of `size` bytes, `stride` bytes apart, one after the other. */
static void gather(const unsigned char *from, size_t stride, size_t n, size_t size,
                   unsigned char *out) {
    if (stride == size)
        memcpy(out, from, n * size);
    else
        for (size_t i = 0; i < n; i++) memcpy(out + i * size, from + i * stride, size);
}

void lc_quantize_take_rows(const lc_quantize_item *item, const lc_mat *mat, size_t row, size_t n,
                           unsigned char *codes, unsigned char *scales) {
    size_t bytes = lc_quantize_code_bytes(item), groups = lc_quantize_groups(item);
    size_t size = lc_dtype_size(item->scale_type);
    lc_mat plain = *mat;
    if (item->bits == LC_QUANTIZE_VALUES) {
        lc_mat_rows_bf16(lc_kernels_of(LC_ISA_SCALAR), mat, row, n, (uint16_t *)(void *)codes,
                         mat->cols);
        return;
    }
    plain.groups.zeros = NULL; /* known */
    for (size_t i = 0; i < n; i++, codes += bytes, scales += groups * size) {
        lc_coded_rows from;
        lc_mat_coded_rows(&plain, row + i, 1, NULL, &from);
        bool by_column = from.layout == LC_CODES_BY_COLUMN;
        gather(from.codes, by_column ? from.stride : 4, bytes / 4, 4, codes);
        gather(from.scales, from.scale_group * size, groups, size, scales);
        for (size_t j = 0; j < bytes && from.kind == LC_CODES_U8; j++)
            codes[j] ^= 0x80; /* 128 less, signed */
    }
}

void lc_quantize_strip(const unsigned char *rows, size_t n, size_t numbers, size_t size,
                       unsigned char *out) {
    if (n < LC_STRIP_ROWS) memset(out, 0, numbers * LC_STRIP_ROWS * size);
    for (size_t i = 0; i < numbers; i++)
        for (size_t r = 0; r < n; r++) {
            unsigned char *to = out + (i * LC_STRIP_ROWS + r) * size;
            const unsigned char *from = rows + (r * numbers + i) * size;
            if (size == 4) /* known to the compiler: no call */
                memcpy(to, from, 4);
            else
                memcpy(to, from, 2);
        }
}
