/*
 * mat.c: binding checkpoint tensors as matrices: shapes and dtypes of a weight and its companions.
 *
 * Bargain: data is used where it lies in the mapped file; only plain, FP8 and row-scaled tensors
 * that are not aligned to their elements are copied, once, at bind time. Finding the tensors is
 * stored.c's matter, decoding rows mat_rows.c's.
 */
#include "format/mat.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/pages.h"
#include "format/stored.h"
#include "format/tensors.h"

#include <stdio.h>

enum { MAX_TEXT = 96 };

typedef struct binding {
    const lc_tensors *tensors;
    lc_stored stored;
    lc_mat *m;
    lc_err *err;
} binding;

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

static bool in_strips(const lc_tensor *t, size_t strips) {
    return t->rank == 3 && t->shape[0] == strips && t->shape[2] == LC_STRIP_ROWS;
}

static bool is_float(lc_dtype type) { return type == LC_F32 || type == LC_F16 || type == LC_BF16; }

static int wrong_shape(const binding *b) {
    char text[MAX_TEXT];
    const lc_tensor *t = b->stored.codes;
    return lc_fail(b->err, LC_EFORMAT, "%s: tensor %s: expected shape [%zu][%zu], found %s",
                   t->file, t->name, b->m->rows, b->m->cols, describe(t, text));
}

/* A companion that must be `what`: "F32 [3][4]". */
static int wrong_companion(const binding *b, const lc_tensor *t, const char *what) {
    char text[MAX_TEXT];
    return lc_fail(b->err, LC_EFORMAT, "%s: tensor %s of %s [%zu][%zu] must be %s, found %s",
                   t->file, t->name, b->stored.codes->name, b->m->rows, b->m->cols, what,
                   describe(t, text));
}

static int wrong_matrix(const binding *b, const lc_tensor *t, const char *types, size_t rows,
                        size_t cols) {
    char what[MAX_TEXT];
    snprintf(what, sizeof what, "%s [%zu][%zu]", types, rows, cols);
    return wrong_companion(b, t, what);
}

/* ---- FP8 and plain ---- */

static int bind_blocks(binding *b) {
    lc_mat *m = b->m;
    const lc_tensor *s = b->stored.scales;
    size_t rows = (m->rows - 1) / LC_SCALE_BLOCK_SIZE + 1;
    size_t cols = (m->cols - 1) / LC_SCALE_BLOCK_SIZE + 1;
    if (!shape_is(b->stored.codes, m->rows, m->cols)) return wrong_shape(b);
    if (!shape_is(s, rows, cols) || s->dtype != LC_F32)
        return wrong_matrix(b, s, "F32", rows, cols);
    m->scales = s->data;
    m->scaling = LC_SCALE_BLOCK;
    return LC_OK;
}

static int bind_plain(binding *b) {
    const lc_tensor *t = b->stored.codes;
    if (!shape_is(t, b->m->rows, b->m->cols)) return wrong_shape(b);
    if (!is_float(t->dtype))
        return lc_fail(b->err, LC_EUNSUPPORTED,
                       "%s: tensor %s: dtype %.16s, expected F32, F16, BF16, F8_E4M3, I8 or U32",
                       t->file, t->name, t->dtype_name);
    return LC_OK;
}

/* ---- groups ---- */

/* Scales [rows][count] of any float type, or [rows] for one group; by_column: [count][rows]. */
static int bind_scales(binding *b, bool by_column) {
    lc_mat *m = b->m;
    lc_groups *g = &m->groups;
    const lc_tensor *s = b->stored.scales;
    size_t count = s->rank == 2 ? s->shape[by_column ? 0 : 1] : 1;
    bool fits = s->rank == 2 ? s->shape[by_column ? 1 : 0] == m->rows
                             : s->rank == 1 && s->shape[0] == m->rows;
    if (!fits || !count || count > m->cols || !is_float(s->dtype)) {
        char what[MAX_TEXT];
        snprintf(what, sizeof what,
                 by_column ? "F32, F16 or BF16 [groups][%zu]" : "F32, F16 or BF16 [%zu][groups]",
                 m->rows);
        return wrong_companion(b, s, what);
    }
    g->count = count;
    g->size = lc_quant_group(&b->tensors->quant, m->cols, count);
    if (!g->size || (g->size % 8 && count > 1))
        return lc_fail(b->err, LC_EUNSUPPORTED,
                       "%s: tensor %s: %zu groups of %zu columns: the group size is not told by "
                       "config.json, or no multiple of 8",
                       s->file, s->name, count, m->cols);
    g->scale_type = s->dtype;
    g->scales = s->data;
    return LC_OK;
}

/* g_idx: the group of each column. Only the trivial order is read. */
static int check_order(const binding *b) {
    const lc_tensor *t = b->stored.order;
    const lc_groups *g = &b->m->groups;
    if (!t) return LC_OK;
    if (t->dtype != LC_I32 || !shape_is(t, 1, b->m->cols))
        return wrong_matrix(b, t, "I32", 1, b->m->cols);
    for (size_t i = 0; i < b->m->cols; i++) {
        int32_t group;
        memcpy(&group, (const char *)t->data + i * sizeof group, sizeof group);
        if (group >= 0 && (size_t)group == i / g->size) continue;
        if (group < 0 || (size_t)group >= g->count)
            return lc_fail(b->err, LC_EFORMAT,
                           "%s: tensor %s: group %d of column %zu, there are %zu", t->file, t->name,
                           group, i, g->count);
        return lc_fail(b->err, LC_EUNSUPPORTED,
                       "%s: tensor %s: column %zu is in group %d: reordered columns (desc_act, "
                       "actorder \"group\") are not supported",
                       t->file, t->name, i, group);
    }
    return LC_OK;
}

/* weight_shape: what the packed words hold. */
static int check_shape_tensor(const binding *b) {
    const lc_tensor *t = b->stored.shape;
    int64_t shape[2];
    if (!t) return LC_OK;
    if (t->dtype != LC_I64 || !shape_is(t, 1, 2)) return wrong_companion(b, t, "I64 [2]");
    memcpy(shape, t->data, sizeof shape);
    if (shape[0] >= 0 && (size_t)shape[0] == b->m->rows && shape[1] >= 0 &&
        (size_t)shape[1] == b->m->cols)
        return LC_OK;
    return lc_fail(b->err, LC_EFORMAT, "%s: tensor %s holds [%lld][%lld], expected [%zu][%zu]",
                   t->file, t->name, (long long)shape[0], (long long)shape[1], b->m->rows,
                   b->m->cols);
}

static size_t words_of(size_t n, int bits) {
    size_t per_word = (size_t)(32 / bits);
    return (n - 1) / per_word + 1;
}

/* 4 or 8 if `words` words hold n codes of so many bits, else 0. Four codes or less fit one word
 * either way: then the words of 4 bits are meant. */
static int bits_of(size_t n, size_t words) {
    return words == words_of(n, 4) ? 4 : words == words_of(n, 8) ? 8 : 0;
}

/* The packed codes, [rows][words] or [words][rows]. *bits = 4 or 8. */
static int bind_codes(binding *b, lc_dtype word, bool by_column, int *bits) {
    lc_mat *m = b->m;
    const lc_tensor *t = b->stored.codes;
    size_t words = t->rank == 2 ? t->shape[by_column ? 0 : 1] : 0;
    bool fits = t->rank == 2 && t->shape[by_column ? 1 : 0] == m->rows;
    if (t->dtype != word || !fits || !words)
        return wrong_matrix(b, t, by_column ? "I32, packed by column," : "packed words", m->rows,
                            m->cols);
    *bits = bits_of(m->cols, words);
    if (!*bits)
        return lc_fail(b->err, LC_EUNSUPPORTED,
                       "%s: tensor %s: %zu words for %zu columns are %.3g bits each; 4 and 8 are "
                       "supported",
                       t->file, t->name, words, m->cols, 32.0 * (double)words / (double)m->cols);
    m->scaling = LC_SCALE_GROUP;
    m->groups.kind = *bits == 4 ? LC_CODES_U4 : LC_CODES_U8;
    m->groups.layout = by_column ? LC_CODES_BY_COLUMN : LC_CODES_BY_ROW;
    m->groups.stride = 4 * (by_column ? m->rows : words);
    m->groups.zero_mask = -1;
    return LC_OK;
}

static int bind_packed(binding *b) {
    lc_mat *m = b->m;
    lc_groups *g = &m->groups;
    const lc_tensor *z = b->stored.zeros;
    int bits = 0;
    int status = bind_codes(b, LC_I32, false, &bits);
    if (status == LC_OK) status = bind_scales(b, false);
    if (status == LC_OK) status = check_shape_tensor(b);
    if (status == LC_OK) status = check_order(b);
    if (status != LC_OK) return status;
    g->zero_base = 1 << (bits - 1); /* codes are stored with this added */
    if (!z) return LC_OK;
    g->zeros = z->data;
    if (z->dtype == LC_I8 && shape_is(z, m->rows, g->count)) {
        g->zeros_layout = LC_ZEROS_I8;
        return LC_OK;
    }
    if (z->dtype != LC_I32 || !shape_is(z, words_of(m->rows, bits), g->count))
        return wrong_matrix(b, z, "I32", words_of(m->rows, bits), g->count);
    g->zeros_layout = LC_ZEROS_BY_ROW;
    g->zero_base = 0; /* they too */
    return LC_OK;
}

/* Two columns a word: BF16 values, which have no scales. */
static int bind_value_strips(binding *b) {
    lc_mat *m = b->m;
    const lc_tensor *t = b->stored.codes, *s = b->stored.scales;
    if (s)
        return lc_fail(b->err, LC_EFORMAT,
                       "%s: tensor %s: %zu words for %zu columns are BF16 values, but there are "
                       "scales %s (%s)",
                       t->file, t->name, t->shape[1], m->cols, s->name, s->file);
    m->type = LC_BF16;
    m->groups.layout = LC_CODES_IN_STRIPS;
    m->groups.stride = t->shape[1] * 4 * LC_STRIP_ROWS;
    return LC_OK;
}

static int bind_code_strips(binding *b) {
    lc_mat *m = b->m;
    const lc_tensor *t = b->stored.codes, *s = b->stored.scales;
    size_t strips = t->shape[0], words = t->shape[1], cols = m->cols;
    char what[MAX_TEXT];
    if (!s)
        return lc_fail(
            b->err, LC_EFORMAT,
            "%s: tensor %s: %zu words for %zu columns are codes, but %.*s_strip_scale is "
            "missing",
            t->file, t->name, words, cols, (int)(strlen(t->name) - strlen("_strips")), t->name);
    size_t count = in_strips(s, strips) ? s->shape[1] : 0;
    if (!is_float(s->dtype) || !count || cols % count || (count > 1 && cols / count % LC_K_BLOCK)) {
        snprintf(what, sizeof what, "F32, F16 or BF16 [%zu][groups of whole 32 columns][16]",
                 strips);
        return wrong_companion(b, s, what);
    }
    bool four = words == cols / 8;
    m->scaling = LC_SCALE_GROUP;
    m->groups = (lc_groups){.kind = four ? LC_CODES_U4 : LC_CODES_I8,
                            .layout = LC_CODES_IN_STRIPS,
                            .size = cols / count,
                            .count = count,
                            .stride = words * 4 * LC_STRIP_ROWS,
                            .scale_type = s->dtype,
                            .scales = s->data,
                            .zero_base = four ? 8 : 0,
                            .zero_mask = -1};
    return LC_OK;
}

/* What `longcat pack` writes: words [strips][words][16], of codes scales [strips][groups][16]. */
static int bind_strips(binding *b) {
    const lc_tensor *t = b->stored.codes;
    size_t strips = (b->m->rows - 1) / LC_STRIP_ROWS + 1, cols = b->m->cols;
    char what[MAX_TEXT];
    if (cols % LC_K_BLOCK)
        return lc_fail(b->err, LC_EFORMAT,
                       "%s: tensor %s: %zu columns: strips have a multiple of 32", t->file, t->name,
                       cols);
    size_t words = in_strips(t, strips) && t->dtype == LC_I32 ? t->shape[1] : 0;
    if (words == cols / 2) return bind_value_strips(b);
    if (words == cols / 8 || words == cols / 4) return bind_code_strips(b);
    snprintf(what, sizeof what, "I32 [%zu][%zu, %zu or %zu][16]", strips, cols / 8, cols / 4,
             cols / 2);
    return wrong_companion(b, t, what);
}

static int bind_gptq(binding *b) {
    lc_mat *m = b->m;
    lc_groups *g = &m->groups;
    const lc_tensor *t = b->stored.codes, *z = b->stored.zeros;
    int bits = 0;
    if (t->rank == 2 && t->shape[0] == m->cols && t->shape[1] == words_of(m->rows, 4) &&
        t->shape[1] != m->rows)
        return lc_fail(b->err, LC_EUNSUPPORTED,
                       "%s: tensor %s is packed along the rows (AWQ), which is not supported",
                       t->file, t->name);
    int status = bind_codes(b, LC_I32, true, &bits);
    if (status == LC_OK) status = bind_scales(b, true);
    if (status == LC_OK) status = check_order(b);
    if (status != LC_OK) return status;
    g->zero_base = 1 << (bits - 1);
    if (!z) return LC_OK;
    if (z->dtype != LC_I32 || !shape_is(z, g->count, words_of(m->rows, bits)))
        return wrong_matrix(b, z, "I32", g->count, words_of(m->rows, bits));
    g->zeros = z->data;
    g->zeros_layout = LC_ZEROS_IN_ROWS;
    g->zero_base = b->tensors->quant.zeros_as_stored ? 0 : 1;
    g->zero_mask = (1 << bits) - 1;
    return LC_OK;
}

static int bind_affine(binding *b) {
    lc_groups *g = &b->m->groups;
    const lc_tensor *s = b->stored.scales, *bias = b->stored.biases;
    int bits = 0;
    int status = bind_codes(b, LC_U32, false, &bits);
    if (status == LC_OK) status = bind_scales(b, false);
    if (status != LC_OK) return status;
    if (bias->dtype != s->dtype || bias->rank != s->rank || bias->count != s->count ||
        !shape_is(bias, b->m->rows, g->count))
        return wrong_matrix(b, bias, s->dtype_name, b->m->rows, g->count);
    g->biases = bias->data;
    return LC_OK;
}

/* I8 with F32 scales by row is LC_SCALE_ROW, every other one has groups. */
static int bind_int8(binding *b) {
    lc_mat *m = b->m;
    lc_groups *g = &m->groups;
    const lc_tensor *s = b->stored.scales, *z = b->stored.zeros;
    if (!shape_is(b->stored.codes, m->rows, m->cols)) return wrong_shape(b);
    int status = bind_scales(b, false);
    if (status == LC_OK) status = check_order(b);
    if (status != LC_OK) return status;
    if (s->dtype == LC_F32 && g->count == 1 && !z) {
        m->scales = s->data;
        m->scaling = LC_SCALE_ROW;
        return LC_OK;
    }
    m->scaling = LC_SCALE_GROUP;
    g->kind = LC_CODES_I8;
    g->stride = m->cols;
    g->zero_mask = -1;
    if (!z) return LC_OK;
    if (z->dtype != LC_I8 || !(shape_is(z, m->rows, g->count) ||
                               (z->rank == 1 && g->count == 1 && z->shape[0] == m->rows)))
        return wrong_matrix(b, z, "I8", m->rows, g->count);
    g->zeros = z->data;
    g->zeros_layout = LC_ZEROS_I8;
    return LC_OK;
}

static int bind_one(binding *b) {
    switch (b->stored.kind) {
    case LC_STORED_BLOCKS: return bind_blocks(b);
    case LC_STORED_INT8: return bind_int8(b);
    case LC_STORED_PACKED: return bind_packed(b);
    case LC_STORED_STRIPS: return bind_strips(b);
    case LC_STORED_GPTQ: return bind_gptq(b);
    case LC_STORED_AFFINE: return bind_affine(b);
    default: return bind_plain(b);
    }
}

/* ---- kv_b in two halves ---- */

/* The number of heads follows from the keys: they have cols rows a head. */
static int probe_halves(const binding *b, lc_mat halves[2]) {
    const lc_mat *m = b->m;
    lc_stored half;
    size_t rows[2], heads = 0, nope = 0;
    for (int i = 0; i < 2; i++) {
        int status = lc_stored_find(b->tensors, b->stored.split[i], &half, b->err);
        if (status != LC_OK) return status;
        if (half.kind == LC_STORED_SPLIT || half.codes->rank != 2)
            return lc_fail(b->err, LC_EFORMAT, "%s: tensor %s: not a matrix a head",
                           half.codes ? half.codes->file : "checkpoint", b->stored.split[i]);
        rows[i] = half.codes->shape[0];
    }
    if (rows[0] && rows[0] % m->cols == 0) heads = rows[0] / m->cols;
    if (heads && rows[1] % heads == 0 && m->rows % heads == 0 && m->rows > rows[1])
        nope = (m->rows - rows[1]) / heads;
    if (!nope || nope > LC_MAX_HALF || !rows[1])
        return lc_fail(b->err, LC_EFORMAT,
                       "%s: %zu rows, and %s: %zu rows, do not make kv_b_proj [%zu][%zu]",
                       b->stored.split[0], rows[0], b->stored.split[1], rows[1], m->rows, m->cols);
    int status = lc_mat_probe(b->tensors, b->stored.split[0], rows[0], nope, &halves[0], b->err);
    if (status != LC_OK) return status;
    return lc_mat_probe(b->tensors, b->stored.split[1], rows[1], m->cols, &halves[1], b->err);
}

static int bind_split(binding *b, bool use) {
    lc_mat probed[2], *m = b->m;
    int status = probe_halves(b, probed);
    if (status != LC_OK) return status;
    m->name = probed[0].name;
    m->type = LC_DTYPE_COUNT;
    m->scaling = probed[0].scaling != LC_SCALE_NONE ? probed[0].scaling : probed[1].scaling;
    m->bytes = lc_mat_bytes(&probed[0]) + lc_mat_bytes(&probed[1]);
    if (!use) return LC_OK;
    m->halves = lc_calloc(2, sizeof *m->halves);
    if (!m->halves) return lc_fail(b->err, LC_ENOMEM, "tensor %s: out of memory", m->name);
    for (int i = 0; i < 2 && status == LC_OK; i++)
        status = lc_mat_bind(b->tensors, b->stored.split[i], probed[i].rows, probed[i].cols,
                             &m->halves[i], b->err);
    return status;
}

/* ---- binding ---- */

static int look(const lc_tensors *tensors, const char *name, lc_mat *out, bool use, lc_err *err) {
    binding b = {.tensors = tensors, .m = out, .err = err};
    if (!out->rows || !out->cols)
        return lc_fail(err, LC_EINVAL, "tensor %s: empty shape asked for", name);
    int status = lc_stored_find(tensors, name, &b.stored, err);
    if (status != LC_OK) return status;
    if (b.stored.kind == LC_STORED_SPLIT) return bind_split(&b, use);
    out->name = b.stored.codes->name;
    out->type = b.stored.codes->dtype;
    out->data = b.stored.codes->data;
    status = bind_one(&b);
    for (int i = 0; i < b.stored.n_parts; i++) out->bytes += b.stored.parts[i]->size;
    return status;
}

int lc_mat_probe(const lc_tensors *tensors, const char *name, size_t rows, size_t cols, lc_mat *out,
                 lc_err *err) {
    *out = (lc_mat){.rows = rows, .cols = cols};
    int status = look(tensors, name, out, false, err);
    if (status != LC_OK) *out = (lc_mat){0};
    return status;
}

static bool must_copy(const lc_mat *m, const void *data, lc_dtype type) {
    return data && m->scaling != LC_SCALE_GROUP && !lc_mat_in_strips(m) &&
           (uintptr_t)data % lc_dtype_size(type) != 0;
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

/* Copies what is misaligned. */
static int settle(lc_mat *m, lc_err *err) {
    if (m->halves) return LC_OK;
    if (must_copy(m, m->data, m->type)) {
        m->data = m->owned[0] = copy(m->data, data_bytes(m));
        m->place = LC_PLACE_RESIDENT;
    }
    bool scaled = m->scales != NULL;
    if (must_copy(m, m->scales, LC_F32)) m->scales = m->owned[1] = copy(m->scales, scale_bytes(m));
    if (m->data && scaled == (m->scales != NULL)) return LC_OK;
    return lc_fail(err, LC_ENOMEM, "tensor %s: out of memory", m->name);
}

int lc_mat_bind(const lc_tensors *tensors, const char *name, size_t rows, size_t cols, lc_mat *out,
                lc_err *err) {
    *out = (lc_mat){.rows = rows, .cols = cols};
    int status = look(tensors, name, out, true, err);
    if (status == LC_OK) status = settle(out, err);
    if (status != LC_OK) lc_mat_unbind(out);
    return status;
}

void lc_mat_unbind(lc_mat *mat) {
    for (int i = 0; i < 2 && mat->halves; i++) lc_mat_unbind(&mat->halves[i]);
    lc_free(mat->halves);
    lc_free(mat->owned[0]);
    lc_free(mat->owned[1]);
    *mat = (lc_mat){0};
}

int lc_mat_acquire(const lc_mat *mat, lc_err *err) {
    (void)mat, (void)err; /* mapped and resident matrices are always there */
    return LC_OK;
}

void lc_mat_release(const lc_mat *mat) { (void)mat; }

void lc_mat_scattered(const lc_mat *mat) {
    if (mat->place != LC_PLACE_MAPPED || mat->halves) return;
    bool coded = mat->scaling == LC_SCALE_GROUP;
    if (coded && mat->groups.layout != LC_CODES_BY_ROW) return; /* rows don't lie in one piece */
    lc_pages_want(mat->data, coded ? mat->rows * mat->groups.stride : data_bytes(mat), false);
}

size_t lc_mat_bytes(const lc_mat *mat) { return mat->bytes; }

size_t lc_mat_misaligned(const lc_mat *mat) {
    size_t bytes = must_copy(mat, mat->data, mat->type) ? data_bytes(mat) : 0;
    return bytes + (must_copy(mat, mat->scales, LC_F32) ? scale_bytes(mat) : 0);
}
