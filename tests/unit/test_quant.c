/*
 * test_quant.c: group-quantised weights against exact arithmetic written here: each format's codes,
 * zero points, scales and biases are drawn, the expected values follow from them in double
 * precision, and the format's bytes are laid out by slow code from its description in
 * docs/formats.md. Then companions that don't fit, which must be refused by name.
 */
#include "test.h"

#include "base/buf.h"
#include "base/file.h"
#include "format/config.h"
#include "format/mat.h"

#include <math.h>

/* ---- a checkpoint in memory, built tensor by tensor ---- */

typedef struct image {
    char header[4096];
    unsigned char data[1 << 20];
    size_t head, used;
    unsigned char *bytes; /* the file, at an odd address in `block` */
    unsigned char *block;
} image;

static image file; /* of the present case */

static void image_start(void) {
    file.head = file.used = 0;
    file.header[file.head++] = '{';
}

static unsigned char *add(const char *name, const char *type, const char *shape, size_t bytes) {
    unsigned char *at = file.data + file.used;
    file.head +=
        (size_t)snprintf(file.header + file.head, sizeof file.header - file.head,
                         "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                         file.head > 1 ? "," : "", name, type, shape, file.used, file.used + bytes);
    file.used += bytes;
    assert_true(file.used <= sizeof file.data && file.head < sizeof file.header);
    memset(at, 0, bytes);
    return at;
}

static char *shape2(size_t a, size_t b) {
    static char text[8][64];
    static int next;
    char *out = text[next++ % 8];
    snprintf(out, 64, "[%zu,%zu]", a, b);
    return out;
}

static lc_tensors *image_open(const lc_quant *quant) {
    lc_tensors *t;
    lc_err err = {0};
    file.header[file.head] = '}';
    uint64_t length = file.head + 1;
    file.block = malloc(8 + length + file.used + 1);
    file.bytes = file.block + 1;
    memcpy(file.bytes, &length, 8);
    memcpy(file.bytes + 8, file.header, length);
    memcpy(file.bytes + 8 + length, file.data, file.used);
    assert_ok(lc_tensors_parse(file.bytes, 8 + length + file.used, "mem.safetensors", &t, &err),
              err);
    if (quant) lc_tensors_set_quant(t, quant);
    return t;
}

static void image_close(lc_tensors *t) {
    lc_tensors_close(t);
    free(file.block);
}

/* ---- drawing ---- */

static uint32_t state = 1;
static uint32_t draw(uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

/* Scales of all sizes; bits that the type doesn't have are zero. Returns the value, stores it. */
static double put_float(unsigned char *at, const char *type, bool negative) {
    static const double tenths[] = {1e-30, 1e-7, 0.003, 0.11, 1.7, 900, 1e20};
    bool half = !strcmp(type, "F16");
    double d = half ? ldexp(1024 + draw(1024), (int)draw(20) - 24)
                    : tenths[draw(7)] * (1 + draw(1000) / 1000.0);
    float f = (float)(negative && draw(2) ? -d : d);
    uint16_t h;
    if (!strcmp(type, "F32")) {
        memcpy(at, &f, 4);
    } else if (!strcmp(type, "BF16")) {
        h = lc_f32_to_bf16(f);
        f = lc_bf16_to_f32(h);
        memcpy(at, &h, 2);
    } else { /* F16: exponent and fraction as drawn */
        int exponent;
        double m = frexp(fabs((double)f), &exponent); /* 0.5 <= m < 1 */
        h = (uint16_t)((f < 0 ? 0x8000 : 0) | (exponent + 14) << 10 | ((int)ldexp(m, 11) & 1023));
        memcpy(at, &h, 2);
    }
    return (double)f;
}

static size_t type_size(const char *type) { return !strcmp(type, "F32") ? 4 : 2; }

enum { MAX_ROWS = 48, MAX_COLS = 400 };

typedef struct drawing {
    size_t rows, cols, size, groups;
    int bits;
    const char *scale_type;
    int code[MAX_ROWS][MAX_COLS]; /* as stored, unsigned */
    int zero[MAX_ROWS][MAX_COLS]; /* by group; subtracted from code */
    double scale[MAX_ROWS][MAX_COLS], bias[MAX_ROWS][MAX_COLS];
} drawing;

static drawing d;

/* One fp32 rounding of the exact value: a whole number below 2^9 times an fp32 scale is exact in
 * double; with a bias, fmaf. Group formats have no -0. */
static float expected(size_t r, size_t c) {
    size_t g = c / d.size;
    double product = (double)(d.code[r][c] - d.zero[r][g]) * d.scale[r][g];
    return d.bias[r][g] == 0 ? (float)product + 0.0f
                             : fmaf((float)(d.code[r][c] - d.zero[r][g]), (float)d.scale[r][g],
                                    (float)d.bias[r][g]);
}

static void put_code(unsigned char *words, size_t i, int bits, int code) {
    size_t bit = i * (size_t)bits;
    words[bit / 8] = (unsigned char)(words[bit / 8] | code << bit % 8);
}

static size_t words_of(size_t n, int bits) { return (n * (size_t)bits + 31) / 32; }

static void draw_codes(size_t rows, size_t cols, size_t size, int bits, const char *scale_type) {
    memset(&d, 0, sizeof d);
    d.rows = rows;
    d.cols = cols;
    d.size = size;
    d.groups = (cols + size - 1) / size;
    d.bits = bits;
    d.scale_type = scale_type;
    assert_true(rows <= MAX_ROWS && cols <= MAX_COLS);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) d.code[r][c] = (int)draw(1u << bits);
}

/* Scales (or biases) [rows][groups], or turned. */
static void put_scales(const char *name, bool turned, bool negative,
                       double out[MAX_ROWS][MAX_COLS]) {
    size_t n = type_size(d.scale_type);
    unsigned char *at =
        add(name, d.scale_type, turned ? shape2(d.groups, d.rows) : shape2(d.rows, d.groups),
            d.rows * d.groups * n);
    for (size_t r = 0; r < d.rows; r++)
        for (size_t g = 0; g < d.groups; g++)
            out[r][g] = put_float(at + n * (turned ? g * d.rows + r : r * d.groups + g),
                                  d.scale_type, negative);
}

static void put_rows(const char *name, const char *type) {
    size_t words = words_of(d.cols, d.bits);
    unsigned char *at = add(name, type, shape2(d.rows, words), d.rows * words * 4);
    for (size_t r = 0; r < d.rows; r++)
        for (size_t c = 0; c < d.cols; c++) put_code(at + r * words * 4, c, d.bits, d.code[r][c]);
}

/* ---- the formats ---- */

static void put_packed(bool zeros) {
    put_rows("w.weight_packed", "I32");
    put_scales("w.weight_scale", false, true, d.scale);
    int64_t shape[2] = {(int64_t)d.rows, (int64_t)d.cols};
    memcpy(add("w.weight_shape", "I64", "[2]", 16), shape, 16);
    size_t words = words_of(d.rows, d.bits);
    unsigned char *at =
        zeros ? add("w.weight_zero_point", "I32", shape2(words, d.groups), words * d.groups * 4)
              : NULL;
    for (size_t r = 0; r < d.rows; r++)
        for (size_t g = 0; g < d.groups; g++) {
            d.zero[r][g] = zeros ? (int)draw(1u << d.bits) : 1 << (d.bits - 1);
            size_t per = 32 / (size_t)d.bits; /* words run down the rows */
            if (zeros) put_code(at + 4 * (r / per * d.groups + g), r % per, d.bits, d.zero[r][g]);
        }
}

static void put_gptq(bool zeros, bool as_stored, bool order) {
    size_t words = words_of(d.cols, d.bits), per = 32 / (size_t)d.bits;
    unsigned char *at = add("w.qweight", "I32", shape2(words, d.rows), words * d.rows * 4);
    for (size_t r = 0; r < d.rows; r++)
        for (size_t c = 0; c < d.cols; c++)
            put_code(at + 4 * (c / per * d.rows + r), c % per, d.bits, d.code[r][c]);
    put_scales("w.scales", true, false, d.scale);
    size_t across = words_of(d.rows, d.bits);
    at = zeros ? add("w.qzeros", "I32", shape2(d.groups, across), d.groups * across * 4) : NULL;
    for (size_t r = 0; r < d.rows; r++)
        for (size_t g = 0; g < d.groups; g++) {
            int stored = (int)draw(1u << d.bits);
            d.zero[r][g] = !zeros      ? 1 << (d.bits - 1)
                           : as_stored ? stored
                                       : (stored + 1) & ((1 << d.bits) - 1);
            if (zeros) put_code(at + 4 * g * across, r, d.bits, stored);
        }
    if (!order) return;
    char shape[32];
    snprintf(shape, sizeof shape, "[%zu]", d.cols);
    at = add("w.g_idx", "I32", shape, 4 * d.cols);
    for (size_t c = 0; c < d.cols; c++) {
        int32_t g = (int32_t)(c / d.size);
        memcpy(at + 4 * c, &g, 4);
    }
}

static void put_affine(void) {
    put_rows("w.weight", "U32");
    put_scales("w.scales", false, true, d.scale);
    put_scales("w.biases", false, true, d.bias);
}

static void put_int8(bool zeros) {
    unsigned char *at = add("w.weight", "I8", shape2(d.rows, d.cols), d.rows * d.cols);
    for (size_t r = 0; r < d.rows; r++)
        for (size_t c = 0; c < d.cols; c++) {
            at[r * d.cols + c] = (unsigned char)d.code[r][c];
            d.code[r][c] = (int8_t)at[r * d.cols + c];
        }
    put_scales("w.weight_scale", false, true, d.scale);
    at = zeros ? add("w.weight_zero_point", "I8", shape2(d.rows, d.groups), d.rows * d.groups)
               : NULL;
    for (size_t r = 0; r < d.rows; r++)
        for (size_t g = 0; g < d.groups && zeros; g++) {
            at[r * d.groups + g] = (unsigned char)draw(256);
            d.zero[r][g] = (int8_t)at[r * d.groups + g];
        }
}

/* Strips of 16 rows, what lies behind the last row set to anything. */
static void put_strips(int way) {
    size_t strips = (d.rows + 15) / 16, words = words_of(d.cols, d.bits), per = d.cols / words;
    char shape[64];
    (void)way;
    snprintf(shape, sizeof shape, "[%zu,%zu,16]", strips, words);
    unsigned char *at = add("w.weight_strips", "I32", shape, strips * words * 64);
    memset(at, 0xa5, strips * words * 64);
    for (size_t r = 0; r < d.rows; r++) {
        for (size_t w = 0; w < words; w++) {
            unsigned char *word = at + ((r / 16 * words + w) * 16 + r % 16) * 4;
            memset(word, 0, 4);
            for (size_t i = 0; i < per; i++) put_code(word, i, d.bits, d.code[r][w * per + i]);
        }
        for (size_t c = 0; c < d.cols && d.bits == 8; c++) d.code[r][c] = (int8_t)d.code[r][c];
    }
    snprintf(shape, sizeof shape, "[%zu,%zu,16]", strips, d.groups);
    size_t n = type_size(d.scale_type);
    at = add("w.weight_strip_scale", d.scale_type, shape, strips * d.groups * 16 * n);
    memset(at, 0xff, strips * d.groups * 16 * n);
    for (size_t r = 0; r < d.rows; r++)
        for (size_t g = 0; g < d.groups; g++) {
            d.scale[r][g] =
                put_float(at + n * ((r / 16 * d.groups + g) * 16 + r % 16), d.scale_type, true);
            d.zero[r][g] = d.bits == 4 ? 8 : 0;
        }
}

/* BF16 in strips, any bits; columns 2w and 2w + 1 of a row in a word. What lies behind the last row
 * is set to anything. */
static uint16_t value[MAX_ROWS][MAX_COLS];
static void put_value_strips(size_t rows, size_t cols) {
    size_t strips = (rows + 15) / 16, words = cols / 2;
    char shape[64];
    snprintf(shape, sizeof shape, "[%zu,%zu,16]", strips, words);
    unsigned char *at = add("w.weight_strips", "I32", shape, strips * words * 64);
    memset(at, 0xa5, strips * words * 64);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            uint16_t v = value[r][c] = (uint16_t)draw(1 << 16);
            unsigned char *to = at + r / 16 * words * 64 + c / 2 * 64 + r % 16 * 4 + c % 2 * 2;
            to[0] = (unsigned char)v;
            to[1] = (unsigned char)(v >> 8);
        }
}

static size_t values;

static void check(const lc_quant *quant) {
    static float rows[MAX_ROWS * MAX_COLS];
    static uint16_t halves[MAX_ROWS * MAX_COLS];
    lc_tensors *t = image_open(quant);
    lc_mat m, probe;
    lc_err err = {0};
    assert_ok(lc_mat_probe(t, "w.weight", d.rows, d.cols, &probe, &err), err);
    assert_ok(lc_mat_bind(t, "w.weight", d.rows, d.cols, &m, &err), err);
    assert_int_equal(lc_mat_bytes(&m), lc_tensors_bytes(t));
    assert_int_equal(lc_mat_bytes(&probe), lc_mat_bytes(&m));
    for (int isa = LC_ISA_SCALAR; isa < LC_ISA_COUNT; isa++) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        for (size_t n = 1; n <= d.rows; n = n == 1 ? 16 : n * 2) {
            for (size_t r = 0; r < d.rows; r += n) {
                size_t take = d.rows - r < n ? d.rows - r : n;
                lc_mat_rows_f32(k, &m, r, take, rows + r * d.cols, d.cols);
                lc_mat_rows_bf16(k, &m, r, take, halves + r * d.cols, d.cols);
            }
            for (size_t r = 0; r < d.rows; r++)
                for (size_t c = 0; c < d.cols; c++) {
                    float want = expected(r, c), got = rows[r * d.cols + c];
                    assert_int_equal(halves[r * d.cols + c], lc_f32_to_bf16(got));
                    if (m.scaling == LC_SCALE_ROW && got == 0) got = 0.0f;
                    if (memcmp(&want, &got, 4))
                        fail_msg("%zux%zu, group %zu, %d bits, %s, row %zu, column %zu: %.9g, "
                                 "expected %.9g",
                                 d.rows, d.cols, d.size, d.bits, d.scale_type, r, c, got, want);
                    values++;
                }
        }
    }
    lc_mat_unbind(&m);
    image_close(t);
}

static const struct {
    size_t rows, cols, size;
} shapes[] = {{3, 32, 32},  {17, 128, 64}, {5, 256, 128}, {48, 96, 32}, {8, 200, 64},
              {33, 72, 32}, {1, 64, 64},   {7, 61, 61},   {16, 9, 9},   {2, 320, 8}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };
static const char *const types[] = {"F32", "F16", "BF16"};

/* Every shape, width and scale type; the last group is short in some, which only the config tells.
 */
static void each_case(void (*put)(int way), int ways) {
    values = 0;
    for (int s = 0; s < N_SHAPES; s++)
        for (int bits = 4; bits <= 8; bits += 4)
            for (int type = 0; type < 3; type++)
                for (int way = 0; way < ways; way++) {
                    lc_quant q = {.sizes = {48, shapes[s].size, 1000}, .n_sizes = 3};
                    q.zeros_as_stored = way == 2;
                    draw_codes(shapes[s].rows, shapes[s].cols, shapes[s].size, bits, types[type]);
                    image_start();
                    put(way);
                    check(&q);
                }
    printf("# %zu values\n", values);
}

static void packed_way(int way) { put_packed(way == 1); }
static void gptq_way(int way) { put_gptq(way > 0, way == 2, way == 1); }
static void affine_way(int way) { (void)way, put_affine(); }
static void int8_way(int way) {
    for (size_t r = 0; r < d.rows; r++)
        for (size_t c = 0; c < d.cols; c++) d.code[r][c] = (int)draw(256);
    put_int8(way == 1);
}

static void test_packed(void **unused) { (void)unused, each_case(packed_way, 2); }
static void test_gptq(void **unused) { (void)unused, each_case(gptq_way, 3); }
static void test_affine(void **unused) { (void)unused, each_case(affine_way, 1); }
static void test_int8(void **unused) { (void)unused, each_case(int8_way, 2); }

static void test_strips(void **unused) {
    (void)unused;
    static const size_t whole[][3] = {{3, 32, 32}, {17, 128, 64}, {16, 256, 128}, {48, 96, 32},
                                      {1, 64, 64}, {33, 96, 96},  {15, 160, 160}, {47, 320, 32}};
    values = 0;
    for (size_t s = 0; s < sizeof whole / sizeof *whole; s++)
        for (int bits = 4; bits <= 8; bits += 4)
            for (int type = 0; type < 3; type++) {
                draw_codes(whole[s][0], whole[s][1], whole[s][2], bits, types[type]);
                image_start();
                put_strips(0);
                check(NULL);
            }
    printf("# %zu values\n", values);
}

/* Rows row .. row+n-1 of such a matrix: the bits as they were put in, on every instruction set, in
 * rows that lie further apart than they are long. */
static void check_values(const lc_mat *m, size_t row, size_t n) {
    static float wide[MAX_ROWS * (MAX_COLS + 3)];
    static uint16_t halves[MAX_ROWS * (MAX_COLS + 3)];
    size_t ld = m->cols + 3;
    for (int isa = LC_ISA_SCALAR; isa < LC_ISA_COUNT; isa++) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        memset(wide, 0x5a, sizeof wide);
        memset(halves, 0x5a, sizeof halves);
        lc_mat_rows_f32(k, m, row, n, wide, ld);
        lc_mat_rows_bf16(k, m, row, n, halves, ld);
        for (size_t i = 0; i < MAX_ROWS * ld; i++) {
            bool inside = i / ld < n && i % ld < m->cols;
            uint32_t bits, want = 0x5a5a5a5a;
            if (inside) want = (uint32_t)value[row + i / ld][i % ld] << 16;
            memcpy(&bits, &wide[i], 4);
            if (bits != want || halves[i] != want >> 16)
                fail_msg("%zux%zu, row %zu + %zu, column %zu: %08x, %04x, expected %08x", m->rows,
                         m->cols, row, i / ld, i % ld, bits, halves[i], want);
            values += inside;
        }
    }
}

static void test_value_strips(void **unused) {
    (void)unused;
    static const size_t whole[][2] = {{1, 32},  {3, 64},   {15, 160}, {16, 96},
                                      {17, 32}, {33, 352}, {48, 128}};
    values = 0;
    for (size_t s = 0; s < sizeof whole / sizeof *whole; s++) {
        size_t rows = whole[s][0], cols = whole[s][1], size;
        lc_code_kind kind;
        lc_err err = {0};
        lc_mat m, probe;
        image_start();
        put_value_strips(rows, cols);
        lc_tensors *t = image_open(NULL);
        size_t before = lc_mem_current();
        assert_ok(lc_mat_bind(t, "w.weight", rows, cols, &m, &err), err);
        assert_ok(lc_mat_probe(t, "w.weight", rows, cols, &probe, &err), err);
        assert_true(m.type == LC_BF16 && m.scaling == LC_SCALE_NONE && lc_mat_in_strips(&m));
        assert_int_equal(m.groups.stride, cols * 2 * 16);
        assert_int_equal(lc_mat_bytes(&m), (rows + 15) / 16 * 16 * cols * 2);
        assert_int_equal(lc_mat_bytes(&probe), lc_mat_bytes(&m));
        assert_false(lc_mat_groups(&m, &kind, &size));
        /* read where it lies, at an odd address too */
        assert_true(m.data == lc_tensors_at(t, 0)->data && m.place == LC_PLACE_MAPPED);
        assert_int_equal(lc_mat_misaligned(&m), 0);
        assert_int_equal(lc_mem_current(), before);
        for (size_t row = 0; row < rows; row++)
            for (size_t n = 1; row + n <= rows; n += n < 3 ? 1 : 5) check_values(&m, row, n);
        check_values(&m, 0, rows);
        lc_mat_unbind(&m);
        image_close(t);
    }
    printf("# %zu values\n", values);
}

/* Group sizes from the shape alone, from the config, and left open by both. */
static void test_groups(void **unused) {
    (void)unused;
    lc_quant none = {0}, two = {.sizes = {64, 48}, .n_sizes = 2},
             one = {.sizes = {64}, .n_sizes = 1};
    assert_int_equal(lc_quant_group(NULL, 96, 3), 32);
    assert_int_equal(lc_quant_group(&none, 96, 1), 96);
    assert_int_equal(lc_quant_group(&none, 100, 3), 0);
    assert_int_equal(lc_quant_group(&none, 96, 0), 0);
    assert_int_equal(lc_quant_group(&none, 96, 97), 0);
    assert_int_equal(lc_quant_group(&one, 96, 2), 64); /* 64 + 32 */
    assert_int_equal(lc_quant_group(&none, 96, 2), 48);
    assert_int_equal(lc_quant_group(&two, 96, 2), 48); /* both fit, 48 evenly */
    assert_int_equal(lc_quant_group(&two, 128, 2), 64);
    assert_int_equal(lc_quant_group(&one, 100, 2), 64);
    lc_quant open = {.sizes = {64, 56}, .n_sizes = 2};
    assert_int_equal(lc_quant_group(&open, 100, 2), 0); /* both fit unevenly */
}

/* ---- hostile companions ---- */

static void refuse_shape(size_t rows, size_t cols, int want, const char *words) {
    lc_tensors *t = image_open(NULL);
    size_t before = lc_mem_current();
    lc_mat m;
    lc_err err = {0};
    int got = lc_mat_bind(t, "w.weight", rows, cols, &m, &err);
    if (got != want || !strstr(err.text, words))
        fail_msg("status %d, \"%s\"; expected %d, \"%s\"", got, err.text, want, words);
    assert_null(m.data);
    assert_int_equal(lc_mem_current(), before);
    image_close(t);
}

static void refuse(int want, const char *words) { refuse_shape(16, 64, want, words); }

/* One tensor of a format replaced (type NULL: left out), or one added. */
typedef struct change {
    const char *name, *type, *shape;
    size_t bytes;
} change;

static void build(const change *all, const change *c) {
    bool used = false;
    image_start();
    for (; all->name; all++) {
        const change *t = !strcmp(all->name, c->name) ? c : all;
        used = used || t == c;
        if (t->type) add(t->name, t->type, t->shape, t->bytes);
    }
    if (!used) add(c->name, c->type, c->shape, c->bytes);
}

static void test_refused(void **unused) {
    (void)unused;
    static const change packed[] = {{"w.weight_packed", "I32", "[16,8]", 512},
                                    {"w.weight_scale", "BF16", "[16,2]", 64},
                                    {"w.weight_zero_point", "I32", "[2,2]", 16},
                                    {0}},
                        gptq[] = {{"w.qweight", "I32", "[8,16]", 512},
                                  {"w.scales", "F16", "[2,16]", 64},
                                  {"w.qzeros", "I32", "[2,2]", 16},
                                  {0}},
                        affine[] = {{"w.weight", "U32", "[16,8]", 512},
                                    {"w.scales", "BF16", "[16,2]", 64},
                                    {"w.biases", "BF16", "[16,2]", 64},
                                    {0}},
                        int8[] = {{"w.weight", "I8", "[16,64]", 1024},
                                  {"w.weight_scale", "BF16", "[16,2]", 64},
                                  {0}},
                        strips[] = {{"w.weight_strips", "I32", "[1,8,16]", 512},
                                    {"w.weight_strip_scale", "BF16", "[1,2,16]", 64},
                                    {0}},
                        values_only[] = {{"w.weight_strips", "I32", "[1,32,16]", 2048}, {0}};
    static const struct {
        const change *format, change;
        int status;
        const char *words;
    } cases[] = {
        {packed, {"w.weight_scale", 0, 0, 0}, LC_EFORMAT, "but w.weight_scale is missing"},
        {packed,
         {"w.weight_scale", "BF16", "[2,16]", 64},
         LC_EFORMAT,
         "[16][groups], found BF16 [2]"},
        {packed, {"w.weight_scale", "BF16", "[16,0]", 0}, LC_EFORMAT, "[16][groups]"},
        {packed, {"w.weight_scale", "I8", "[16,2]", 32}, LC_EFORMAT, "found I8"},
        {packed, {"w.weight_scale", "BF16", "[16,65]", 2080}, LC_EFORMAT, "[16][groups]"},
        {packed, {"w.weight_scale", "BF16", "[16,5]", 160}, LC_EUNSUPPORTED, "5 groups of 64"},
        {packed, {"w.weight_scale", "BF16", "[16,16]", 512}, LC_EUNSUPPORTED, "multiple of 8"},
        {packed, {"w.weight_scale", "BF16", "[2,8,2]", 64}, LC_EFORMAT, "[16][groups]"},
        {packed, {"w.weight_packed", "I32", "[16,6]", 384}, LC_EUNSUPPORTED, "3 bits each"},
        {packed, {"w.weight_packed", "I32", "[15,8]", 480}, LC_EFORMAT, "packed words"},
        {packed, {"w.weight_packed", "U32", "[16,8]", 512}, LC_EFORMAT, "packed words"},
        {packed, {"w.weight_packed", "I32", "[128]", 512}, LC_EFORMAT, "packed words"},
        {packed, {"w.weight_zero_point", "I32", "[16,2]", 128}, LC_EFORMAT, "I32 [2][2]"},
        {packed, {"w.weight_zero_point", "I8", "[2,16]", 32}, LC_EFORMAT, "I32 [2][2]"},
        {packed,
         {"w.weight_shape", "I64", "[2]", 16},
         LC_EFORMAT,
         "holds [0][0], expected [16][64]"},
        {packed, {"w.weight_shape", "I32", "[2]", 8}, LC_EFORMAT, "must be I64 [2]"},
        {packed,
         {"w.weight_g_idx", "I32", "[64]", 256},
         LC_EUNSUPPORTED,
         "w.weight_g_idx: column 32"},
        {packed, {"w.weight_g_idx", "I32", "[63]", 252}, LC_EFORMAT, "I32 [1][64]"},
        {packed,
         {"w.weight", "BF16", "[16,64]", 2048},
         LC_EFORMAT,
         "also stored as w.weight_packed"},
        {packed, {"w.qweight", "I32", "[8,16]", 512}, LC_EFORMAT, "also stored as w.qweight"},
        {strips,
         {"w.weight_strip_scale", 0, 0, 0},
         LC_EFORMAT,
         "but w.weight_strip_scale is missing"},
        {strips,
         {"w.weight_strips", "I32", "[1,7,16]", 448},
         LC_EFORMAT,
         "I32 [1][8, 16 or 32][16]"},
        {strips,
         {"w.weight_strips", "I32", "[1,32,16]", 2048},
         LC_EFORMAT,
         "BF16 values, but there are scales w.weight_strip_scale"},
        {values_only,
         {"w.weight_strip_scale", "F32", "[1,1,16]", 64},
         LC_EFORMAT,
         "BF16 values, but there are scales w.weight_strip_scale"},
        {values_only,
         {"w.weight_strips", "I32", "[1,16,16]", 1024},
         LC_EFORMAT,
         "are codes, but w.weight_strip_scale is missing"},
        {values_only,
         {"w.weight_strips", "I32", "[1,31,16]", 1984},
         LC_EFORMAT,
         "I32 [1][8, 16 or 32][16], found I32 [1][31][16]"},
        {values_only,
         {"w.weight_strips", "I32", "[1,64,16]", 4096},
         LC_EFORMAT,
         "found I32 [1][64]"},
        {values_only,
         {"w.weight_strips", "I32", "[2,32,16]", 4096},
         LC_EFORMAT,
         "found I32 [2][32]"},
        {values_only, {"w.weight_strips", "I32", "[0,32,16]", 0}, LC_EFORMAT, "found I32 [0][32]"},
        {values_only, {"w.weight_strips", "I32", "[1,32,15]", 1920}, LC_EFORMAT, "[1][32][15]"},
        {values_only,
         {"w.weight_strips", "I32", "[16,32]", 2048},
         LC_EFORMAT,
         "found I32 [16][32]"},
        {values_only, {"w.weight_strips", "U32", "[1,32,16]", 2048}, LC_EFORMAT, "found U32"},
        {values_only, {"w.weight_strips", "BF16", "[1,32,16]", 1024}, LC_EFORMAT, "found BF16"},
        {values_only,
         {"w.weight", "BF16", "[16,64]", 2048},
         LC_EFORMAT,
         "w.weight: the same weight is also stored as w.weight_strips"},
        {strips, {"w.weight_strips", "I32", "[2,8,16]", 1024}, LC_EFORMAT, "found I32 [2][8][16]"},
        {strips, {"w.weight_strips", "I32", "[1,8,15]", 480}, LC_EFORMAT, "found I32 [1][8][15]"},
        {strips, {"w.weight_strips", "I32", "[8,16]", 512}, LC_EFORMAT, "found I32 [8][16]"},
        {strips, {"w.weight_strips", "U32", "[1,8,16]", 512}, LC_EFORMAT, "found U32"},
        {strips, {"w.weight_strip_scale", "BF16", "[1,3,16]", 96}, LC_EFORMAT, "whole 32 columns"},
        {strips, {"w.weight_strip_scale", "BF16", "[1,4,16]", 128}, LC_EFORMAT, "whole 32 columns"},
        {strips, {"w.weight_strip_scale", "BF16", "[1,0,16]", 0}, LC_EFORMAT, "found BF16 [1][0]"},
        {strips, {"w.weight_strip_scale", "BF16", "[2,16]", 64}, LC_EFORMAT, "found BF16 [2][16]"},
        {strips, {"w.weight_strip_scale", "I8", "[1,2,16]", 32}, LC_EFORMAT, "found I8"},
        {strips,
         {"w.weight", "BF16", "[16,64]", 2048},
         LC_EFORMAT,
         "w.weight: the same weight is also stored as w.weight_strips"},
        {strips,
         {"w.weight_packed", "I32", "[16,8]", 512},
         LC_EFORMAT,
         "stored as w.weight_strips"},
        {strips, {"w.qweight", "I32", "[8,16]", 512}, LC_EFORMAT, "also stored as w.qweight"},
        {gptq, {"w.scales", 0, 0, 0}, LC_EFORMAT, "but w.scales is missing"},
        {gptq, {"w.scales", "F16", "[16,2]", 64}, LC_EFORMAT, "[groups][16]"},
        {gptq, {"w.qzeros", "I32", "[2,16]", 128}, LC_EFORMAT, "I32 [2][2]"},
        {gptq, {"w.qzeros", "I32", "[0,2]", 0}, LC_EFORMAT, "I32 [2][2]"},
        {gptq, {"w.qweight", "I32", "[64,2]", 512}, LC_EUNSUPPORTED, "(AWQ)"},
        {gptq, {"w.qweight", "I32", "[8,15]", 480}, LC_EFORMAT, "packed by column"},
        {gptq, {"w.qweight", "I32", "[0,16]", 0}, LC_EFORMAT, "packed by column"},
        {gptq, {"w.g_idx", "I32", "[64]", 256}, LC_EUNSUPPORTED, "desc_act"},
        {gptq, {"w.g_idx", "I64", "[64]", 512}, LC_EFORMAT, "I32 [1][64]"},
        {affine, {"w.biases", 0, 0, 0}, LC_EFORMAT, "but w.biases is missing"},
        {affine, {"w.scales", 0, 0, 0}, LC_EFORMAT, "but w.scales is missing"},
        {affine, {"w.biases", "F32", "[16,2]", 128}, LC_EFORMAT, "must be BF16 [16][2]"},
        {affine, {"w.biases", "BF16", "[32]", 64}, LC_EFORMAT, "must be BF16 [16][2]"},
        {affine, {"w.weight", "U32", "[16,12]", 768}, LC_EUNSUPPORTED, "6 bits each"},
        {affine,
         {"w.weight", "BF16", "[16,64]", 2048},
         LC_EFORMAT,
         "is BF16, but has scales w.scales"},
        {int8, {"w.weight_scale", 0, 0, 0}, LC_EFORMAT, "but w.weight_scale is missing"},
        {int8, {"w.weight_scale", "F32", "[64]", 256}, LC_EFORMAT, "[16][groups]"},
        {int8, {"w.weight_zero_point", "I8", "[16,1]", 16}, LC_EFORMAT, "I8 [16][2]"},
        {int8, {"w.weight", "I8", "[64,16]", 1024}, LC_EFORMAT, "expected shape [16][64]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        build(cases[i].format, &cases[i].change);
        refuse(cases[i].status, cases[i].words);
    }
    /* strips of half a block, and a row more than the strips have */
    build(values_only, &(change){"w.weight_strips", "I32", "[1,24,16]", 1536});
    refuse_shape(16, 48, LC_EFORMAT, "48 columns: strips have a multiple of 32");
    build(values_only, &values_only[0]);
    refuse_shape(17, 64, LC_EFORMAT, "I32 [2][8, 16 or 32][16]");
    /* a group that isn't there */
    draw_codes(16, 64, 32, 4, "F16");
    image_start();
    put_gptq(true, false, true);
    int32_t wild = 7;
    memcpy(file.data + file.used - 4 * 64 + 4 * 9, &wild, 4);
    refuse(LC_EFORMAT, "group 7 of column 9, there are 2");
    printf("# %zu companions refused\n", sizeof cases / sizeof *cases + 3);
}

/* ---- mlx-lm's names ---- */

static void test_stacked(void **unused) {
    (void)unused;
    lc_err err = {0};
    lc_mat m;
    float row[4];
    image_start();
    unsigned char *at = add("model.layers.0.mlp.switch_mlp.up_proj.weight", "F32", "[3,2,4]", 96);
    for (int i = 0; i < 24; i++) {
        float f = (float)i;
        memcpy(at + 4 * i, &f, 4);
    }
    add("model.ngram_embeddings.word_embeddings.weight", "BF16", "[2,2]", 8);
    lc_tensors *t = image_open(NULL);
    assert_int_equal(lc_tensors_count(t), 4);
    assert_int_equal(lc_tensors_bytes(t), 104);
    assert_non_null(lc_tensors_find(t, "model.embed_tokens.weight"));
    assert_ok(lc_mat_bind(t, "model.layers.0.mlp.experts.2.up_proj.weight", 2, 4, &m, &err), err);
    lc_mat_row_f32(&m, 1, row);
    for (int i = 0; i < 4; i++) assert_true(row[i] == (float)(20 + i));
    lc_mat_unbind(&m);
    image_close(t);
    image_start(); /* an expert twice */
    add("a.mlp.switch_mlp.up_proj.weight", "F32", "[2,1,1]", 8);
    add("a.mlp.experts.1.up_proj.weight", "F32", "[1,1]", 4);
    file.header[file.head] = '}';
    uint64_t length = file.head + 1;
    memmove(file.data + 8 + length, file.data, file.used);
    memcpy(file.data, &length, 8);
    memcpy(file.data + 8, file.header, length);
    assert_int_equal(lc_tensors_parse(file.data, 8 + length + file.used, "mem", &t, &err),
                     LC_EFORMAT);
    assert_non_null(strstr(err.text, "a.mlp.experts.1.up_proj.weight is given twice"));
}

/* kv_b in two halves, against the rows put together here. */
static void test_halves(void **unused) {
    (void)unused;
    enum { HEADS = 2, R = 8, NOPE = 5, V = 3 };
    float q[HEADS][R][NOPE], v[HEADS][V][R], row[R];
    lc_err err = {0};
    lc_mat m;
    for (int i = 0; i < HEADS * R * NOPE; i++) (&q[0][0][0])[i] = (float)i;
    for (int i = 0; i < HEADS * V * R; i++) (&v[0][0][0])[i] = (float)(1000 + i);
    image_start();
    memcpy(add("a.embed_q.weight", "F32", "[2,8,5]", sizeof q), q, sizeof q);
    memcpy(add("a.unembed_out.weight", "F32", "[2,3,8]", sizeof v), v, sizeof v);
    lc_tensors *t = image_open(NULL);
    size_t before = lc_mem_current();
    assert_ok(lc_mat_bind(t, "a.kv_b_proj.weight", HEADS * (NOPE + V), R, &m, &err), err);
    assert_int_equal(lc_mat_bytes(&m), sizeof q + sizeof v);
    for (size_t r = 0; r < HEADS * (NOPE + V); r++) {
        size_t h = r / (NOPE + V), i = r % (NOPE + V);
        lc_mat_row_f32(&m, r, row);
        for (size_t c = 0; c < R; c++)
            assert_true(row[c] == (i < NOPE ? q[h][c][i] : v[h][i - NOPE][c]));
    }
    float all[HEADS * (NOPE + V)][R + 1], one[R];
    lc_mat_rows_f32(lc_kernels_of(LC_ISA_SCALAR), &m, 1, 14, all[0], R + 1); /* across heads */
    for (size_t r = 0; r < 14; r++) {
        lc_mat_row_f32(&m, r + 1, one);
        assert_memory_equal(all[r], one, sizeof one);
    }
    uint16_t halves[14][R + 3];
    lc_mat_rows_bf16(lc_kernels_of(LC_ISA_SCALAR), &m, 1, 14, halves[0], R + 3);
    for (size_t r = 0; r < 14; r++)
        for (size_t c = 0; c < R; c++) assert_int_equal(halves[r][c], lc_f32_to_bf16(all[r][c]));
    lc_mat_unbind(&m);
    assert_int_equal(lc_mem_current(), before);
    static const struct {
        size_t rows, cols;
    } wrong[] = {{HEADS * (NOPE + V), R + 1}, {15, R}, {HEADS * V, R}, {HEADS * (NOPE + V) + 2, R}};
    for (int i = 0; i < 4; i++)
        assert_int_equal(
            lc_mat_bind(t, "a.kv_b_proj.weight", wrong[i].rows, wrong[i].cols, &m, &err),
            LC_EFORMAT);
    for (int i = 0; i < 4; i++) {
        lc_mem_fail_after(i);
        int status = lc_mat_bind(t, "a.kv_b_proj.weight", HEADS * (NOPE + V), R, &m, &err);
        lc_mem_fail_after(-1);
        assert_true(status == LC_OK || status == LC_ENOMEM);
        lc_mat_unbind(&m);
        assert_int_equal(lc_mem_current(), before);
    }
    image_close(t);
}

/* ---- config.json ---- */

static void test_config(void **unused) {
    (void)unused;
    static const struct {
        const char *text; /* appended to a config */
        int status;
        const char *words; /* or the method */
        size_t sizes[3];
        bool as_stored;
    } cases[] = {
        {"\"quantization\":{\"group_size\":64,\"bits\":4,\"a\":{\"group_size\":32,\"bits\":8},"
         "\"b\":false}",
         LC_OK,
         "mlx",
         {64, 32},
         false},
        {"\"quantization_config\":{\"group_size\":64,\"bits\":4}", LC_OK, "mlx", {64}, false},
        {"\"quantization\":{\"group_size\":32,\"bits\":4,\"mode\":\"mxfp4\"}",
         LC_EUNSUPPORTED,
         "mode is \"mxfp4\"",
         {0},
         false},
        {"\"quantization\":{\"bits\":4,\"a\":{\"mode\":\"nvfp4\"}}",
         LC_EUNSUPPORTED,
         "nvfp4",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"group_size\":128,\"desc_act\":"
         "false}",
         LC_OK,
         "gptq",
         {128},
         false},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"group_size\":-1,\"checkpoint_"
         "format\":\"gptq_v2\"}",
         LC_OK,
         "gptq",
         {0},
         true},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"checkpoint_format\":\"marlin\"}",
         LC_EUNSUPPORTED,
         "marlin",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"group_size\":0}",
         LC_EFORMAT,
         "group_size",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"gptq\",\"group_size\":\"x\"}",
         LC_EFORMAT,
         "group_size",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"auto-round\",\"group_size\":128,\"packing_"
         "format\":\"auto_round:auto_gptq\",\"extra_config\":{\"a\":{\"group_size\":32}}}",
         LC_OK,
         "auto-round",
         {128, 32},
         false},
        {"\"quantization_config\":{\"quant_method\":\"auto-round\",\"packing_format\":\"auto_"
         "round\"}",
         LC_OK,
         "auto-round",
         {0},
         true},
        {"\"quantization_config\":{\"quant_method\":\"auto-round\",\"packing_format\":\"auto_round:"
         "auto_awq\"}",
         LC_EUNSUPPORTED,
         "auto_awq",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4}",
         LC_EUNSUPPORTED,
         "\"awq\"",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}",
         LC_EUNSUPPORTED,
         "bitsandbytes",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}",
         LC_OK,
         "fp8",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[64,128]}",
         LC_EFORMAT,
         "weight_block_size",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-"
         "quantized\",\"config_groups\":{\"g\":{\"weights\":{\"group_size\":128}},\"h\":{"
         "\"weights\":{\"group_size\":null}}}}",
         LC_OK,
         "compressed-tensors",
         {128},
         false},
        {"\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"nvfp4-pack-"
         "quantized\"}",
         LC_EUNSUPPORTED,
         "nvfp4-pack-quantized",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":{"
         "\"g\":{\"format\":\"marlin-24\"}}}",
         LC_EUNSUPPORTED,
         "marlin-24",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"transform_config\":{"
         "\"config_groups\":{}}}",
         LC_EUNSUPPORTED,
         "transform_config",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"transform_config\":{},"
         "\"sparsity_config\":{}}",
         LC_OK,
         "compressed-tensors",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"sparsity_config\":{"
         "\"format\":\"sparse-24-bitmask\"}}",
         LC_EUNSUPPORTED,
         "sparse-24",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":[1]}",
         LC_EFORMAT,
         "config_groups",
         {0},
         false},
        {"\"quantization\":7", LC_EFORMAT, "quantization must be an object", {0}, false},
        {"\"quantization_config\":{\"quant_method\":\"longcat-strips\"}", LC_OK, "", {0}, false},
        {"\"quantization_config\":{\"quant_method\":\"longcat-strips\",\"source\":{"
         "\"quant_method\":\"gptq\",\"checkpoint_format\":\"gptq_v2\",\"group_size\":96}}",
         LC_OK,
         "gptq",
         {96},
         true},
        {"\"quantization_config\":{\"quant_method\":\"longcat-strips\",\"source\":{"
         "\"group_size\":64,\"bits\":4}}",
         LC_OK,
         "mlx",
         {64},
         false},
        {"\"quantization_config\":{\"quant_method\":\"longcat-strips\",\"source\":{"
         "\"quant_method\":\"awq\"}}",
         LC_EUNSUPPORTED,
         "awq",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"longcat-strips\",\"source\":{"
         "\"quant_method\":\"longcat-strips\"}}",
         LC_EFORMAT,
         "source must be of another method",
         {0},
         false},
        {"\"quantization_config\":{\"quant_method\":\"longcat-strips\",\"source\":1}",
         LC_EFORMAT,
         "source must be an object",
         {0},
         false},
    };
    lc_buf base = {0}, text = {0};
    lc_err err = {0};
    assert_ok(lc_file_read("tests/data/configs/flash.json", 0, &base, &err), err);
    size_t end = base.len;
    while (base.data[end - 1] != '}') end--;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lc_config c;
        lc_buf_clear(&text);
        lc_buf_append(&text, base.data, end - 1);
        lc_buf_printf(&text, ",%s}", cases[i].text);
        int status = lc_config_parse(text.data, text.len, "config.json", &c, &err);
        if (status != cases[i].status)
            fail_msg("%s: status %d, %s", cases[i].text, status, err.text);
        if (status != LC_OK) {
            if (!strstr(err.text, cases[i].words)) fail_msg("%s: %s", cases[i].text, err.text);
            continue;
        }
        assert_string_equal(c.quant.method, cases[i].words);
        size_t n = 0;
        while (n < 3 && cases[i].sizes[n]) n++;
        assert_int_equal(c.quant.n_sizes, n);
        for (size_t k = 0; k < n; k++) assert_int_equal(c.quant.sizes[k], cases[i].sizes[k]);
        assert_int_equal(c.quant.zeros_as_stored, cases[i].as_stored);
    }
    lc_buf_free(&base);
    lc_buf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed),  cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_affine),  cmocka_unit_test(test_int8),
        cmocka_unit_test(test_strips),  cmocka_unit_test(test_value_strips),
        cmocka_unit_test(test_groups),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_stacked), cmocka_unit_test(test_halves),
        cmocka_unit_test(test_config),
    };
    return test_main(tests);
}
