/*
 * test_mat.c: element types and matrices. Expected values come from the golden tables and
 * checkpoints and from definitions computed another way (ldexp).
 */
#include "test.h"

#include "base/mem.h"
#include "format/mat.h"

#include <math.h>

static lc_tensors *open_golden(const char *name) {
    char path[128];
    lc_tensors *t;
    lc_err err = {0};
    snprintf(path, sizeof path, "tests/golden/model/%s", name);
    assert_ok(lc_tensors_open(path, &t, &err), err);
    return t;
}

static bool same_float(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

static void test_f8(void **state) {
    (void)state;
    lc_tensors *t = open_golden("ops/ops.safetensors");
    const lc_tensor *code = lc_tensors_find(t, "fp8_e4m3.code"),
                    *value = lc_tensors_find(t, "fp8_e4m3.value");
    assert_int_equal(code->count, 256);
    for (size_t i = 0; i < 256; i++) {
        float want;
        memcpy(&want, (const char *)value->data + 4 * i, 4);
        float got = lc_f8_e4m3_to_f32(((const uint8_t *)code->data)[i]);
        if (!same_float(got, want)) fail_msg("code %zu: %g, expected %g", i, got, want);
    }
    print_message("# 256 of 256 e4m3 codes\n");
    lc_tensors_close(t);
}

static void test_f16(void **state) {
    (void)state;
    for (int h = 0; h < 65536; h++) {
        int exponent = h >> 10 & 31, fraction = h & 1023;
        double want = exponent == 31 ? (fraction ? NAN : INFINITY)
                      : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                     : ldexp(fraction, -24);
        if (h & 0x8000) want = -want;
        float got = lc_f16_to_f32((uint16_t)h);
        if (!same_float(got, (float)want)) fail_msg("f16 %04x: %g, expected %g", h, got, want);
    }
}

static void test_bf16(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) { /* exact in both directions */
        float f = lc_bf16_to_f32((uint16_t)h);
        if (isnan(f))
            assert_true(isnan(lc_bf16_to_f32(lc_f32_to_bf16(f))));
        else
            assert_int_equal(lc_f32_to_bf16(f), h);
    }
    /* nearest, ties to even: between two neighbours, around the middle */
    for (uint32_t h = 0; h < 0x7f80; h++) {
        static const struct {
            uint32_t low;
            int up; /* -1: to the even one */
        } steps[] = {{0x0001, 0}, {0x7fff, 0}, {0x8000, -1}, {0x8001, 1}, {0xffff, 1}};
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
            uint32_t bits = h << 16 | steps[k].low;
            uint32_t want = h + (steps[k].up < 0 ? (h & 1) : (uint32_t)steps[k].up);
            float f;
            memcpy(&f, &bits, 4);
            assert_int_equal(lc_f32_to_bf16(f), want);
            assert_int_equal(lc_f32_to_bf16(-f), want | 0x8000);
        }
    }
}

static void test_names(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t size;
    } types[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F8_E4M3", 1}, {"I8", 1},
                 {"U8", 1},  {"I32", 4}, {"I64", 8},  {"F64", 8},     {"BOOL", 1}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        lc_dtype type;
        assert_true(lc_dtype_from_name(types[i].name, &type));
        assert_string_equal(lc_dtype_name(type), types[i].name);
        assert_int_equal(lc_dtype_size(type), types[i].size);
    }
    lc_dtype type = LC_F64;
    assert_false(lc_dtype_from_name("F8_E5M2", &type));
    assert_false(lc_dtype_from_name("f32", &type));
    assert_false(lc_dtype_from_name("", &type));
    assert_int_equal(type, LC_F64);
    assert_int_equal(lc_dtype_size(LC_DTYPE_COUNT), 0);
}

/* All rows at once as BF16, from the second on if there is one, on every instruction set. */
static void check_bf16(const lc_mat *mat) {
    size_t first = mat->rows > 1, n = mat->rows - first, ld = mat->cols + 5;
    uint16_t *halves = malloc(n * ld * sizeof *halves);
    float *row = malloc(mat->cols * sizeof *row);
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        for (size_t i = 0; i < n * ld; i++) halves[i] = 7;
        lc_mat_rows_bf16(k, mat, first, n, halves, ld);
        for (size_t r = 0; r < n; r++) {
            lc_mat_row_f32(mat, first + r, row);
            for (size_t i = 0; i < ld; i++)
                assert_int_equal(halves[r * ld + i], i < mat->cols ? lc_f32_to_bf16(row[i]) : 7);
        }
    }
    free(halves), free(row);
}

/* Binds every weight of a checkpoint; visits each row as fp32. */
typedef void row_check(const lc_tensors *tensors, const lc_mat *mat, size_t row, const float *got);

static int each_weight(const lc_tensors *tensors, row_check *check) {
    int mats = 0;
    float *row = NULL;
    for (size_t i = 0; i < lc_tensors_count(tensors); i++) {
        const lc_tensor *t = lc_tensors_at(tensors, i);
        lc_mat mat;
        lc_err err = {0};
        if (t->rank > 2 || strstr(t->name, "_scale")) continue;
        size_t rows = t->rank == 2 ? t->shape[0] : 1, cols = t->shape[t->rank - 1];
        assert_ok(lc_mat_bind(tensors, t->name, rows, cols, &mat, &err), err);
        assert_int_equal(mat.place, LC_PLACE_MAPPED);
        assert_ptr_equal(mat.data, t->data);
        assert_int_equal(lc_mat_misaligned(&mat), 0);
        assert_ok(lc_mat_acquire(&mat, &err), err);
        row = realloc(row, cols * sizeof *row);
        for (size_t r = 0; r < rows; r++) {
            lc_mat_row_f32(&mat, r, row);
            check(tensors, &mat, r, row);
        }
        check_bf16(&mat);
        lc_mat_release(&mat);
        lc_mat_unbind(&mat);
        mats++;
    }
    free(row);
    return mats;
}

/* two-tiny-bf16 holds the weights of two-tiny rounded to bf16. */
static lc_tensors *exact;
static int rounded;

static void check_rounded(const lc_tensors *tensors, const lc_mat *mat, size_t row,
                          const float *got) {
    (void)tensors;
    const lc_tensor *t = lc_tensors_find(exact, mat->name);
    assert_non_null(t);
    const float *want = (const float *)t->data + row * mat->cols;
    for (size_t i = 0; i < mat->cols; i++) {
        float w = mat->type == LC_BF16 ? lc_bf16_to_f32(lc_f32_to_bf16(want[i])) : want[i];
        assert_true(got[i] == w);
        rounded++;
    }
}

static void test_bf16_checkpoint(void **state) {
    (void)state;
    exact = open_golden("two-tiny");
    lc_tensors *t = open_golden("two-tiny-bf16");
    int mats = each_weight(t, check_rounded);
    print_message("# two-tiny-bf16: %d tensors, %d values\n", mats, rounded);
    assert_int_equal(mats, 202);
    lc_tensors_close(t);
    lc_tensors_close(exact);
}

static int scaled;

static void check_scaled(const lc_tensors *tensors, const lc_mat *mat, size_t row,
                         const float *got) {
    char name[256];
    if (mat->scaling == LC_SCALE_NONE) return;
    bool block = mat->type == LC_F8_E4M3;
    assert_int_equal(mat->scaling, block ? LC_SCALE_BLOCK : LC_SCALE_ROW);
    snprintf(name, sizeof name, "%s%s", mat->name, block ? "_scale_inv" : "_scale");
    const lc_tensor *s = lc_tensors_find(tensors, name), *t = lc_tensors_find(tensors, mat->name);
    for (size_t i = 0; i < mat->cols; i++) {
        size_t at = block ? row / 128 * s->shape[1] + i / 128 : row;
        uint8_t code = ((const uint8_t *)t->data)[row * mat->cols + i];
        int e = code >> 3 & 15, m = code & 7;
        double value = block ? ldexp(e ? 8 + m : m, (e ? e : 1) - 10) : (int8_t)code;
        if (block && code & 0x80) value = -value;
        float want = (float)(value * ((const float *)s->data)[at]); /* one rounding */
        assert_true(got[i] == want);
    }
    assert_int_equal(lc_mat_bytes(mat), t->size + s->size);
    scaled++;
}

static void test_quantised_checkpoints(void **state) {
    (void)state;
    static const char *const names[] = {"two-fp8", "int8"};
    for (int i = 0; i < 2; i++) {
        lc_tensors *t = open_golden(names[i]);
        scaled = 0;
        each_weight(t, check_scaled);
        print_message("# %s: %d quantised rows\n", names[i], scaled);
        assert_true(scaled > 1000);
        lc_tensors_close(t);
    }
}

/* A checkpoint in memory with its data at an odd address. */
static lc_tensors *parse(const char *header, size_t data, unsigned char **owner) {
    size_t len = strlen(header);
    unsigned char *image = malloc(8 + len + data + 8), *base = image;
    while ((uintptr_t)(base + 8 + len) % 4 != 1) base++;
    uint64_t length = len;
    memcpy(base, &length, 8);
    memcpy(base + 8, header, len);
    for (size_t i = 0; i < data; i++) base[8 + len + i] = (unsigned char)(i * 37 % 96);
    lc_tensors *t;
    lc_err err = {0};
    assert_ok(lc_tensors_parse(base, 8 + len + data, "mem.safetensors", &t, &err), err);
    *owner = image;
    return t;
}

#define T(name, type, shape, a, b)                                                                 \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" #a "," #b "]}"

static void test_misaligned(void **state) {
    (void)state;
    unsigned char *owner;
    lc_tensors *t =
        parse("{" T("w", "F32", "[2,3]", 0, 24) "," T("h", "BF16", "[4]", 24, 32) "," T(
                  "q", "I8", "[2,3]", 32, 38) "," T("q_scale", "F32", "[2]", 38, 46) "}",
              46, &owner);
    size_t before = lc_mem_current();
    static const struct {
        const char *name;
        size_t rows, cols, copied;
        lc_place place;
    } cases[] = {{"w", 2, 3, 24, LC_PLACE_RESIDENT},
                 {"h", 1, 4, 8, LC_PLACE_RESIDENT},
                 {"q", 2, 3, 8, LC_PLACE_MAPPED}};
    for (int i = 0; i < 3; i++) {
        lc_mat m, probe;
        lc_err err = {0};
        float row[4];
        assert_ok(lc_mat_probe(t, cases[i].name, cases[i].rows, cases[i].cols, &probe, &err), err);
        assert_int_equal(lc_mat_misaligned(&probe), cases[i].copied);
        assert_int_equal(lc_mem_current(), before);
        assert_ok(lc_mat_bind(t, cases[i].name, cases[i].rows, cases[i].cols, &m, &err), err);
        assert_int_equal(m.place, cases[i].place);
        assert_int_equal(lc_mem_current(), before + cases[i].copied);
        const lc_tensor *raw = lc_tensors_find(t, cases[i].name);
        assert_int_equal((uintptr_t)m.data % lc_dtype_size(m.type), 0);
        assert_memory_equal(m.data, raw->data, raw->size);
        lc_mat_row_f32(&m, cases[i].rows - 1, row);
        lc_mat_unbind(&m);
        assert_int_equal(lc_mem_current(), before);
        lc_mem_fail_after(0);
        assert_int_equal(lc_mat_bind(t, cases[i].name, cases[i].rows, cases[i].cols, &m, &err),
                         LC_ENOMEM);
        lc_mem_fail_after(-1);
        assert_int_equal(lc_mem_current(), before);
    }
    lc_tensors_close(t);
    free(owner);
}

static void refuse(const char *header, size_t data, const char *name, int want, const char *words) {
    unsigned char *owner;
    lc_tensors *t = parse(header, data, &owner);
    lc_mat m;
    lc_err err = {0};
    int got = lc_mat_bind(t, name, 200, 300, &m, &err);
    if (got != want || !strstr(err.text, words) || !strstr(err.text, name))
        fail_msg("%s: status %d, \"%s\", expected %d, \"%s\"", header, got, err.text, want, words);
    assert_null(m.data);
    lc_tensors_close(t);
    free(owner);
}

static void test_refused(void **state) {
    (void)state;
    const char *f8 = "{" T("w", "F8_E4M3", "[200,300]", 0, 60000);
    static const struct {
        const char *scale, *words;
        size_t data;
    } scales[] = {
        {"}", "tensor w is F8_E4M3, but w_scale_inv is missing", 0},
        {"," T("w_scale", "F32", "[200,1]", 60000, 60800) "}", "w_scale_inv is missing", 800},
        {"," T("w_scale_inv", "F32", "[2,2]", 60000, 60016) "}",
         "must be F32 [2][3], found F32 [2][2]", 16},
        {"," T("w_scale_inv", "F32", "[3,2]", 60000, 60024) "}", "must be F32 [2][3]", 24},
        {"," T("w_scale_inv", "F32", "[6]", 60000, 60024) "}", "must be F32 [2][3]", 24},
        {"," T("w_scale_inv", "F32", "[]", 60000, 60004) "}", "must be F32 [2][3]", 4},
        {"," T("w_scale_inv", "BF16", "[2,3]", 60000, 60012) "}", "must be F32 [2][3], found BF16",
         12},
    };
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        char header[512];
        snprintf(header, sizeof header, "%s%s", f8, scales[i].scale);
        refuse(header, 60000 + scales[i].data, "w", LC_EFORMAT, scales[i].words);
    }
    refuse("{" T("w", "I8", "[200,300]", 0, 60000) "}", 60000, "w", LC_EFORMAT,
           "tensor w is I8, but w_scale is missing");
    refuse(
        "{" T("w", "I8", "[200,300]", 0, 60000) "," T("w_scale", "F32", "[300]", 60000, 61200) "}",
        61200, "w", LC_EFORMAT, "must be F32, F16 or BF16 [200][groups], found F32 [300]");
    refuse("{" T("w", "BF16", "[200,300]", 0, 120000) "," T("w_scale_inv", "F32", "[2,3]", 120000,
                                                            120024) "}",
           120024, "w", LC_EFORMAT, "tensor w is BF16, but has scales w_scale_inv");
    refuse("{" T("w", "BF16", "[200,300]", 0, 120000) "}", 120000, "v", LC_ENOTFOUND,
           "tensor v is missing");
    refuse("{" T("w", "BF16", "[300,200]", 0, 120000) "}", 120000, "w", LC_EFORMAT,
           "expected shape [200][300], found BF16 [300][200]");
    refuse("{" T("w", "BF16", "[60000]", 0, 120000) "}", 120000, "w", LC_EFORMAT, "expected shape");
    refuse("{" T("w", "BF16", "[200,300,1]", 0, 120000) "}", 120000, "w", LC_EFORMAT,
           "expected shape");
    refuse("{" T("w", "I32", "[200,300]", 0, 240000) "}", 240000, "w", LC_EUNSUPPORTED,
           "dtype I32");
    refuse("{" T("w", "F8_E5M2", "[200,300]", 0, 60000) "}", 60000, "w", LC_EUNSUPPORTED,
           "dtype F8_E5M2");
    lc_mat m;
    lc_err err = {0};
    lc_tensors *t = open_golden("two-tiny");
    assert_int_equal(lc_mat_bind(t, "model.norm.weight", 0, 96, &m, &err), LC_EINVAL);
    assert_int_equal(lc_mat_bind(t, "model.norm.weight", 96, 1, &m, &err), LC_EFORMAT);
    assert_ok(lc_mat_bind(t, "model.norm.weight", 1, 96, &m, &err), err);
    lc_mat_unbind(&m);
    lc_tensors_close(t);
}

/* F16 rows and int8 scales given as [rows]. */
static void test_other_rows(void **state) {
    (void)state;
    unsigned char *owner;
    lc_tensors *t = parse("{" T("h", "F16", "[2,3]", 0, 12) "," T("q", "I8", "[2,2]", 12, 16) "," T(
                              "q_scale", "F32", "[2]", 16, 24) "}",
                          24, &owner);
    lc_mat m;
    lc_err err = {0};
    float row[3];
    assert_ok(lc_mat_bind(t, "h", 2, 3, &m, &err), err);
    lc_mat_row_f32(&m, 1, row);
    const uint16_t *h = m.data;
    for (int i = 0; i < 3; i++) assert_true(row[i] == lc_f16_to_f32(h[3 + i]));
    check_bf16(&m);
    lc_mat_unbind(&m);
    assert_ok(lc_mat_bind(t, "q", 2, 2, &m, &err), err);
    lc_mat_row_f32(&m, 1, row);
    for (int i = 0; i < 2; i++)
        assert_true(row[i] == (float)((const int8_t *)m.data)[2 + i] * m.scales[1]);
    check_bf16(&m);
    lc_mat_unbind(&m);
    lc_tensors_close(t);
    free(owner);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f8),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bf16_checkpoint),
        cmocka_unit_test(test_quantised_checkpoints),
        cmocka_unit_test(test_misaligned),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_other_rows),
    };
    return test_main(tests);
}
