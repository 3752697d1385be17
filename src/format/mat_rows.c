/*
 * mat_rows.c: rows of a matrix as fp32 values, whatever it is stored as. One formula and one
 * rounding a format (mat.h), so every instruction set gives the same bits.
 *
 * Bargain: a row of codes lies in one piece in most formats and goes through the decode kernel.
 * GPTQ packs along the columns, so a row's codes are a row's width apart, and in strips words of 16
 * rows alternate: 16 rows are decoded together, lane by lane, and turned. MLX keeps a head's part
 * of kv_b turned: its columns are cut out of decoded rows. BF16 values in strips are moved, not
 * decoded.
 */
#include "format/mat.h"

#include "base/mem.h"

enum {
    GROUPS = 64, /* of a row, whose scales are widened at a time */
    BLOCK = 16,  /* rows that are decoded together, word by word */
    LINES = 64,  /* of a strip, which stay in the first cache while their rows are taken apart */
};

_Static_assert((int)BLOCK == (int)LC_STRIP_ROWS, "a block is in one strip");

_Static_assert((int)LC_F8_BLOCK == (int)LC_SCALE_BLOCK_SIZE, "the kernel knows the block's size");

/* Where rows go, as what. */
typedef struct sink {
    void *at;
    size_t ld;
    bool bf16;
} sink;

/* The sink from (row, column) on. */
static sink sink_from(sink s, size_t row, size_t column) {
    size_t element = s.bf16 ? sizeof(uint16_t) : sizeof(float);
    s.at = (char *)s.at + (row * s.ld + column) * element;
    return s;
}

static void decode_into(const lc_kernels *k, const lc_coded_row *row, sink s) {
    if (s.bf16)
        k->decode_bf16(row, s.at);
    else
        k->decode(row, s.at);
}

static float load_float(const void *base, size_t i, lc_dtype type) {
    uint16_t half;
    float f;
    if (type == LC_F32) {
        memcpy(&f, (const char *)base + i * sizeof f, sizeof f);
        return f;
    }
    memcpy(&half, (const char *)base + i * sizeof half, sizeof half);
    return type == LC_BF16 ? lc_bf16_to_f32(half) : lc_f16_to_f32(half);
}

/* n numbers from number i on. */
static void load_floats(const lc_kernels *k, const void *base, size_t i, size_t n, lc_dtype type,
                        float *out) {
    const char *from = (const char *)base + i * (type == LC_F32 ? sizeof(float) : sizeof(uint16_t));
    if (type == LC_F32)
        memcpy(out, from, n * sizeof *out);
    else if (type == LC_BF16 && (uintptr_t)from % sizeof(uint16_t) == 0)
        k->widen_bf16(n, (const uint16_t *)(const void *)from, out);
    else
        for (size_t j = 0; j < n; j++) out[j] = load_float(base, i + j, type);
}

/* Code i of a run of words; bytes lie as little-endian words have them. */
static int packed_code(const unsigned char *bytes, size_t i, lc_code_kind kind) {
    return kind == LC_CODES_U4 ? bytes[i / 2] >> 4 * (i % 2) & 15 : bytes[i];
}

/* Code i of words that are `stride` bytes apart. */
static int spread_code(const unsigned char *bytes, size_t i, size_t stride, lc_code_kind kind) {
    size_t per_word = kind == LC_CODES_U4 ? 8 : 4;
    return packed_code(bytes + i / per_word * stride, i % per_word, kind);
}

static int zero_of(const lc_mat *m, size_t row, size_t group) {
    const lc_groups *g = &m->groups;
    int z = 0;
    if (!g->zeros) return g->zero_base;
    if (g->zeros_layout == LC_ZEROS_I8) {
        z = g->zeros[row * g->count + group];
        z = z < 128 ? z : z - 256; /* signed */
    } else if (g->zeros_layout == LC_ZEROS_BY_ROW) {
        z = spread_code(g->zeros + 4 * group, row, 4 * g->count, g->kind);
    } else {
        size_t per_word = g->kind == LC_CODES_U4 ? 8 : 4;
        size_t words = (m->rows - 1) / per_word + 1;
        z = packed_code(g->zeros + 4 * words * group, row, g->kind);
    }
    return (z + g->zero_base) & g->zero_mask;
}

/* ---- codes by row ---- */

static void row_of_codes(const lc_kernels *k, const lc_mat *m, size_t row, sink s) {
    const lc_groups *g = &m->groups;
    float zeros[GROUPS], scales[GROUPS], biases[GROUPS] = {0};
    const unsigned char *codes = (const unsigned char *)m->data + row * g->stride;
    for (size_t first = 0; first < g->count; first += GROUPS) {
        size_t n = g->count - first < GROUPS ? g->count - first : GROUPS, at = first * g->size;
        size_t number = row * g->count + first;
        for (size_t i = 0; i < n; i++) zeros[i] = (float)zero_of(m, row, first + i);
        load_floats(k, g->scales, number, n, g->scale_type, scales);
        if (g->biases) load_floats(k, g->biases, number, n, g->scale_type, biases);
        size_t left = m->cols - at, values = n * g->size < left ? n * g->size : left;
        decode_into(k,
                    &(lc_coded_row){.codes = codes + (g->kind == LC_CODES_U4 ? at / 2 : at),
                                    .kind = g->kind,
                                    .n = values,
                                    .size = g->size,
                                    .zeros = zeros,
                                    .scales = scales,
                                    .biases = biases},
                    sink_from(s, 0, at));
    }
}

/* ---- codes by column and in strips: value = (code - zero) * scale ---- */

/* The words of columns w*8.. (w*4..) of n rows. */
static void load_words(const lc_mat *m, size_t w, size_t row, size_t n, uint32_t out[BLOCK]) {
    const lc_groups *g = &m->groups;
    size_t at = g->layout == LC_CODES_BY_COLUMN
                    ? w * g->stride + 4 * row
                    : row / BLOCK * g->stride + 4 * (w * BLOCK + row % BLOCK);
    memset(out, 0, BLOCK * sizeof *out);
    memcpy(out, (const char *)m->data + at, n * sizeof *out);
    for (size_t r = 0; r < BLOCK && g->kind == LC_CODES_I8; r++)
        out[r] ^= 0x80808080u; /* signed bytes with 128 added */
}

static float scale_of(const lc_mat *m, size_t row, size_t group) {
    const lc_groups *g = &m->groups;
    size_t at = row * g->count + group;
    if (g->layout == LC_CODES_BY_COLUMN) at = group * m->rows + row;
    if (g->layout == LC_CODES_IN_STRIPS)
        at = (row / BLOCK * g->count + group) * BLOCK + row % BLOCK;
    return load_float(g->scales, at, g->scale_type);
}

/* Of at most 16 rows, in strips all of one. */
static void block_of_words(const lc_kernels *k, const lc_mat *m, size_t row, size_t n, sink s) {
    const lc_groups *g = &m->groups;
    size_t bits = g->kind == LC_CODES_U4 ? 4 : 8, per_word = 32 / bits, group = SIZE_MAX;
    float zeros[BLOCK] = {0}, scales[BLOCK] = {0}, values[BLOCK];
    uint32_t words[BLOCK], mask = (1u << bits) - 1;
    int added = g->kind == LC_CODES_I8 ? 128 : 0;
    for (size_t col = 0; col < m->cols; col++) {
        if (col / g->size != group) {
            group = col / g->size;
            for (size_t r = 0; r < n; r++) {
                zeros[r] = (float)(zero_of(m, row + r, group) + added);
                scales[r] = scale_of(m, row + r, group);
            }
        }
        if (col % per_word == 0) load_words(m, col / per_word, row, n, words);
        for (size_t r = 0; r < BLOCK; r++) {
            /* + 0: no -0 here either, as the fused form has none */
            values[r] = ((float)(int32_t)(words[r] & mask) - zeros[r]) * scales[r] + 0.0f;
            words[r] >>= bits;
        }
        if (s.bf16) {
            uint16_t halves[BLOCK], *out = (uint16_t *)s.at + col;
            k->narrow_bf16(BLOCK, values, halves);
            for (size_t r = 0; r < n; r++) out[r * s.ld] = halves[r];
        } else {
            for (size_t r = 0; r < n; r++) ((float *)s.at)[r * s.ld + col] = values[r];
        }
    }
}

/* BF16 values in words of two: of at most 16 rows, all of one strip. */
static void block_of_values(const lc_kernels *k, const lc_mat *m, size_t row, size_t n, sink s) {
    const char *words = (const char *)m->data + row / BLOCK * m->groups.stride + row % BLOCK * 4;
    uint16_t run[2 * LINES];
    for (size_t w = 0, count = m->cols / 2; w < count; w += LINES) {
        size_t lines = count - w < LINES ? count - w : LINES;
        for (size_t r = 0; r < n; r++) {
            void *to = sink_from(s, r, 2 * w).at;
            const char *from = words + (w * BLOCK + r) * 4;
            for (size_t i = 0; i < lines; i++) memcpy(run + 2 * i, from + i * BLOCK * 4, 4);
            if (s.bf16)
                memcpy(to, run, lines * 4);
            else
                k->widen_bf16(2 * lines, run, to);
        }
    }
}

static void rows_of_words(const lc_kernels *k, const lc_mat *m, size_t row, size_t n, sink s) {
    bool strips = m->groups.layout == LC_CODES_IN_STRIPS;
    for (size_t i = 0, take; i < n; i += take) {
        size_t most = strips ? BLOCK - (row + i) % BLOCK : BLOCK;
        take = n - i < most ? n - i : most;
        if (m->scaling == LC_SCALE_NONE)
            block_of_values(k, m, row + i, take, sink_from(s, i, 0));
        else
            block_of_words(k, m, row + i, take, sink_from(s, i, 0));
    }
}

/* ---- halves ---- */

static void rows_into(const lc_kernels *k, const lc_mat *mat, size_t row, size_t n, sink s);

/* Columns first .. first+n-1 of a head's keys as rows. */
static void key_columns(const lc_kernels *k, const lc_mat *m, size_t head, size_t first, size_t n,
                        sink s) {
    const lc_mat *keys = &m->halves[0];
    float row[LC_MAX_HALF];
    for (size_t i = 0; i < m->cols; i++) {
        rows_into(k, keys, head * m->cols + i, 1, (sink){row, keys->cols, s.bf16});
        for (size_t j = 0; j < n; j++) {
            if (s.bf16)
                ((uint16_t *)s.at)[j * s.ld + i] = ((uint16_t *)(void *)row)[first + j];
            else
                ((float *)s.at)[j * s.ld + i] = row[first + j];
        }
    }
}

static void rows_of_halves(const lc_kernels *k, const lc_mat *m, size_t row, size_t n, sink s) {
    const lc_mat *values = &m->halves[1];
    size_t nope = m->halves[0].cols, heads = m->halves[0].rows / m->cols;
    size_t v = values->rows / heads, per_head = nope + v;
    while (n) {
        size_t head = row / per_head, i = row % per_head;
        size_t limit = i < nope ? nope - i : per_head - i, take = n < limit ? n : limit;
        if (i < nope)
            key_columns(k, m, head, i, take, s);
        else
            rows_into(k, values, head * v + (i - nope), take, s);
        row += take;
        n -= take;
        s = sink_from(s, take, 0);
    }
}

/* ---- a value each, a scale a row ---- */

static void plain_row(const lc_kernels *k, const lc_mat *mat, size_t row, sink s) {
    static const float one = 1.0f;
    size_t n = mat->cols;
    const void *data = (const char *)mat->data + row * n * lc_dtype_size(mat->type);
    if (mat->type == LC_F32 && !s.bf16)
        memcpy(s.at, data, n * sizeof(float));
    else if (mat->type == LC_F32)
        k->narrow_bf16(n, data, s.at);
    else if (mat->type == LC_BF16 && s.bf16)
        memcpy(s.at, data, n * sizeof(uint16_t));
    else if (mat->type == LC_BF16)
        k->widen_bf16(n, data, s.at);
    else if (mat->type == LC_F16)
        decode_into(k, &(lc_coded_row){data, LC_CODES_F16, n, n, .scales = &one}, s);
    else
        decode_into(k, &(lc_coded_row){data, LC_CODES_I8, n, n, .scales = mat->scales + row}, s);
}

/* ---- FP8 ---- */

/* Rows are taken as far as they share their scales. */
static void rows_of_f8(const lc_kernels *k, const lc_mat *mat, size_t row, size_t n, sink s) {
    size_t blocks = (mat->cols - 1) / LC_F8_BLOCK + 1;
    for (size_t i = 0; i < n;) {
        size_t most = LC_F8_BLOCK - (row + i) % LC_F8_BLOCK, take = n - i < most ? n - i : most;
        const uint8_t *codes = (const uint8_t *)mat->data + (row + i) * mat->cols;
        const float *scales = mat->scales + (row + i) / LC_F8_BLOCK * blocks;
        sink to = sink_from(s, i, 0);
        if (s.bf16)
            k->decode_f8_rows(
                &(lc_f8_rows){take, mat->cols, codes, mat->cols, scales, to.at, to.ld});
        for (size_t j = 0; j < take && !s.bf16; j++)
            k->decode(&(lc_coded_row){codes + j * mat->cols, LC_CODES_F8, mat->cols, LC_F8_BLOCK,
                                      .scales = scales},
                      sink_from(to, j, 0).at);
        i += take;
    }
}

static void rows_into(const lc_kernels *k, const lc_mat *mat, size_t row, size_t n, sink s) {
    if (mat->halves) {
        rows_of_halves(k, mat, row, n, s);
    } else if (mat->groups.layout != LC_CODES_BY_ROW) {
        rows_of_words(k, mat, row, n, s);
    } else if (mat->type == LC_F8_E4M3) {
        rows_of_f8(k, mat, row, n, s);
    } else {
        for (size_t i = 0; i < n; i++) {
            if (mat->scaling == LC_SCALE_GROUP)
                row_of_codes(k, mat, row + i, sink_from(s, i, 0));
            else
                plain_row(k, mat, row + i, sink_from(s, i, 0));
        }
    }
}

void lc_mat_rows_f32(const lc_kernels *kernels, const lc_mat *mat, size_t row, size_t n, float *out,
                     size_t ld) {
    rows_into(kernels, mat, row, n, (sink){out, ld, false});
}

void lc_mat_rows_bf16(const lc_kernels *kernels, const lc_mat *mat, size_t row, size_t n,
                      uint16_t *out, size_t ld) {
    rows_into(kernels, mat, row, n, (sink){out, ld, true});
}

/* ---- codes as they are ---- */

bool lc_mat_groups(const lc_mat *mat, lc_code_kind *kind, size_t *size) {
    const lc_groups *g = &mat->groups;
    if (mat->halves || (mat->scaling != LC_SCALE_ROW && mat->scaling != LC_SCALE_GROUP))
        return false;
    bool single = mat->scaling == LC_SCALE_ROW || g->count == 1;
    *kind = mat->scaling == LC_SCALE_ROW ? LC_CODES_I8 : g->kind;
    *size = single ? mat->cols : g->size;
    return *size <= LC_MAX_GROUP && (single || g->size % LC_K_BLOCK == 0);
}

bool lc_mat_same_groups(const lc_mat *a, const lc_mat *b) {
    lc_code_kind kind[2] = {0};
    size_t size[2] = {0};
    bool one = lc_mat_groups(a, &kind[0], &size[0]), other = lc_mat_groups(b, &kind[1], &size[1]);
    return one == other && (!one || (kind[0] == kind[1] && size[0] == size[1]));
}

static lc_scale_type scale_type(lc_dtype type) {
    return type == LC_F32 ? LC_SCALES_F32 : type == LC_F16 ? LC_SCALES_F16 : LC_SCALES_BF16;
}

void lc_mat_coded_rows(const lc_mat *mat, size_t row, size_t n, int16_t *zeros,
                       lc_coded_rows *out) {
    const lc_groups *g = &mat->groups;
    const uint8_t *codes = mat->data;
    *out = (lc_coded_rows){.stride = mat->cols};
    lc_mat_groups(mat, &out->kind, &out->size);
    if (mat->scaling == LC_SCALE_ROW) {
        out->codes = codes + row * mat->cols;
        out->scales = mat->scales + row;
        out->scale_row = out->scale_group = 1;
        return;
    }
    size_t bytes = lc_dtype_size(g->scale_type);
    bool by_column = g->layout == LC_CODES_BY_COLUMN;
    out->layout = g->layout;
    out->stride = g->stride;
    if (by_column)
        out->codes = codes + 4 * row;
    else
        out->codes = codes + (g->layout == LC_CODES_IN_STRIPS ? row / BLOCK : row) * g->stride;
    out->scale_type = scale_type(g->scale_type);
    /* row * count numbers lie before those of a strip as before those of a row */
    out->scale_row = by_column ? 1 : g->count;
    out->scale_group = by_column ? mat->rows : 1;
    out->scales = (const char *)g->scales + row * out->scale_row * bytes;
    if (g->biases) out->biases = (const char *)g->biases + row * out->scale_row * bytes;
    out->zero = g->zero_base;
    if (!g->zeros) return;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < g->count; j++)
            zeros[i * g->count + j] = (int16_t)zero_of(mat, row + i, j);
    out->zeros = zeros;
}

bool lc_mat_symmetric(const lc_mat *mat) {
    const lc_groups *g = &mat->groups;
    lc_code_kind kind;
    size_t size;
    if (!lc_mat_groups(mat, &kind, &size) || g->biases) return false;
    if (mat->scaling == LC_SCALE_ROW) return true;
    int middle = kind == LC_CODES_U4 ? 8 : kind == LC_CODES_U8 ? 128 : 0;
    if (!g->zeros) return g->zero_base == middle;
    for (size_t row = 0; row < mat->rows; row++)
        for (size_t group = 0; group < g->count; group++)
            if (zero_of(mat, row, group) != middle) return false;
    return true;
}

/* A row's first word of codes; the next ones are *step bytes apart. */
static const unsigned char *words_of_row(const lc_mat *m, size_t row, size_t *step) {
    const lc_groups *g = &m->groups;
    const unsigned char *data = m->data;
    bool by_column = g->layout == LC_CODES_BY_COLUMN, strips = g->layout == LC_CODES_IN_STRIPS;
    *step = by_column ? g->stride : strips ? 4 * BLOCK : 4;
    if (by_column) return data + 4 * row;
    if (strips) return data + row / BLOCK * g->stride + row % BLOCK * 4;
    return data + row * (m->scaling == LC_SCALE_ROW ? m->cols : g->stride);
}

void lc_mat_signed_codes(const lc_mat *mat, size_t row, size_t n, int8_t *codes, float *scales) {
    const lc_groups *g = &mat->groups;
    size_t size, step, groups = mat->scaling == LC_SCALE_ROW ? 1 : g->count;
    lc_code_kind kind = g->kind;
    lc_mat_groups(mat, &kind, &size);
    for (size_t i = 0; i < n; i++, codes += mat->cols, scales += groups) {
        const unsigned char *words = words_of_row(mat, row + i, &step);
        for (size_t k = 0; k < mat->cols; k++) {
            size_t byte = kind == LC_CODES_U4 ? k / 2 : k;
            int code = words[byte / 4 * step + byte % 4];
            if (kind == LC_CODES_U4)
                code = (code >> 4 * (k % 2) & 15) - 8;
            else
                code -= kind == LC_CODES_U8 ? 128 : code < 128 ? 0 : 256;
            codes[k] = (int8_t)code;
        }
        for (size_t j = 0; j < groups; j++)
            scales[j] =
                mat->scaling == LC_SCALE_ROW ? mat->scales[row + i] : scale_of(mat, row + i, j);
    }
}

void lc_mat_row_f32(const lc_mat *mat, size_t row, float *out) {
    lc_mat_rows_f32(lc_kernels_of(LC_ISA_SCALAR), mat, row, 1, out, mat->cols);
}
