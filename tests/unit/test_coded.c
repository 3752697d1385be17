/*
 * test_coded.c: products with coded weights on every implementation that this machine can run,
 * against a second, slow writing of numerics.md 1: one result at a time, whole numbers in 64 bits.
 * Buffers have the exact sizes that the contract names, so that a sanitizer sees any step outside.
 */
#include "test.h"

#include "kernels/coded.h"

#include <math.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { EVERY = 5 }; /* slow there: a part of the cases */
#else
enum { EVERY = 1 };
#endif

static uint32_t state;

static uint32_t random_bits(void) {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static float float_from(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* ---- a case ---- */

enum scale_order { BY_ROW, BY_GROUP, APART, SCALE_ORDERS };
enum left_values { USUAL, ZEROS, FAR_APART, TINY, ODD_ONES, LEFT_VALUES };

typedef struct a_case {
    size_t rows, k, columns, size;
    lc_code_kind kind;
    lc_code_layout layout;
    bool with_zeros, with_biases;
    lc_scale_type scale_type;
    enum scale_order order;
    enum left_values values;
} a_case;

typedef struct operands {
    a_case c;
    size_t groups, ldx, ldc;
    float *x;
    lc_coded_rows right;
    uint8_t *codes;
    void *scales, *biases;
    int16_t *zeros;
    float *want; /* [rows][columns] */
} operands;

static float left_value(enum left_values values, size_t group) {
    float f = (float)((int32_t)random_bits() - (1 << 23)) / (float)(1 << 23);
    uint32_t pick = random_bits() % 40;
    switch (values) {
    case USUAL: return pick ? f : 0.0f;
    case ZEROS: return group % 2 ? 0.0f : f;
    case FAR_APART: return pick < 10 ? f * 1e30f : pick < 30 ? f * 1e-20f : f * 3e38f;
    case TINY:
        return f * (group % 3 ? 3e-36f : 2e-38f); /* steps about the smallest normal number */
    default:
        return pick == 0 && group % 5 == 1   ? NAN
               : pick == 1 && group % 5 == 2 ? -INFINITY
               : pick == 2                   ? 1e-40f
                                             : f;
    }
}

static void make_scales(operands *o, void *out, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float f = (float)(random_bits() % 2000) / 1000.0f - 1.0f;
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        uint16_t half = (uint16_t)(random_bits() % 0x7c00u | (random_bits() & 1u) << 15);
        if (o->c.scale_type == LC_SCALES_BF16) half = (uint16_t)(bits >> 16);
        if (o->c.scale_type == LC_SCALES_F32)
            memcpy((char *)out + 4 * i, &f, 4);
        else
            memcpy((char *)out + 2 * i, &half, 2);
    }
}

static void make(operands *o, const a_case *c) {
    *o = (operands){.c = *c, .groups = c->size >= c->k ? 1 : (c->k + c->size - 1) / c->size};
    size_t bits = c->kind == LC_CODES_U4 ? 4 : 8, per_word = 32 / bits;
    size_t words = (c->k + per_word - 1) / per_word, row = (c->k * bits + 7) / 8;
    o->ldx = c->k + 3, o->ldc = c->columns + 5;
    o->x = malloc(((c->rows - 1) * o->ldx + c->k) * sizeof *o->x);
    for (size_t i = 0; i < c->rows; i++)
        for (size_t k = 0; k < c->k; k++)
            o->x[i * o->ldx + k] = left_value(c->values, i + k / (c->k < c->size ? c->k : c->size));
    size_t strips = (c->columns + 15) / 16, stride = row + 1;
    size_t bytes = (c->columns - 1) * stride + row;
    if (c->layout == LC_CODES_BY_COLUMN)
        stride = 4 * c->columns + 4, bytes = (words - 1) * stride + 4 * c->columns;
    else if (c->layout == LC_CODES_IN_STRIPS)
        stride = words * 64, bytes = strips * stride;
    o->codes = malloc(bytes);
    for (size_t i = 0; i < bytes; i++) o->codes[i] = (uint8_t)random_bits();
    size_t scale_row = o->groups, scale_group = 1;
    if (c->order == BY_GROUP) scale_row = 1, scale_group = c->columns + 1;
    if (c->order == APART) scale_row = 2 * o->groups, scale_group = 2;
    size_t count = (c->columns - 1) * scale_row + (o->groups - 1) * scale_group + 1;
    if (c->layout == LC_CODES_IN_STRIPS) count = strips * o->groups * 16;
    size_t scale_bytes = count * (c->scale_type == LC_SCALES_F32 ? 4 : 2);
    make_scales(o, o->scales = malloc(scale_bytes), count);
    if (c->with_biases) make_scales(o, o->biases = malloc(scale_bytes), count);
    if (c->with_zeros) {
        o->zeros = malloc(c->columns * o->groups * sizeof *o->zeros);
        for (size_t i = 0; i < c->columns * o->groups; i++)
            o->zeros[i] = (int16_t)(random_bits() % 300) - 20;
    }
    o->right = (lc_coded_rows){.kind = c->kind,
                               .layout = c->layout,
                               .codes = o->codes,
                               .stride = stride,
                               .size = c->size,
                               .scale_type = c->scale_type,
                               .scales = o->scales,
                               .biases = o->biases,
                               .scale_row = scale_row,
                               .scale_group = scale_group,
                               .zeros = o->zeros,
                               .zero = (int)(random_bits() % 200) - 60};
}

static void drop(operands *o) {
    free(o->x), free(o->codes), free(o->scales), free(o->biases), free(o->zeros), free(o->want);
}

/* ---- the second writing ---- */

static int64_t code_of(const lc_coded_rows *w, size_t row, size_t k) {
    const unsigned bits = w->kind == LC_CODES_U4 ? 4 : 8;
    unsigned code;
    if (w->layout != LC_CODES_BY_ROW) {
        size_t word_of_row = k / (32 / bits);
        const uint8_t *p =
            w->layout == LC_CODES_BY_COLUMN
                ? w->codes + word_of_row * w->stride + 4 * row
                : w->codes + row / 16 * w->stride + (word_of_row * 16 + row % 16) * 4;
        uint32_t word =
            (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        code = word >> k % (32 / bits) * bits & ((1u << bits) - 1u);
    } else {
        uint8_t byte = w->codes[row * w->stride + k * bits / 8];
        code = bits == 8 ? byte : k % 2 ? byte / 16u : byte % 16u;
    }
    return w->kind == LC_CODES_I8 && code > 127 ? (int64_t)code - 256 : (int64_t)code;
}

static float scale_of(const lc_coded_rows *w, size_t groups, const void *scales, size_t row,
                      size_t group) {
    size_t at = row * w->scale_row + group * w->scale_group;
    if (w->layout == LC_CODES_IN_STRIPS) at = row / 16 * groups * 16 + group * 16 + row % 16;
    if (w->scale_type == LC_SCALES_F32) return ((const float *)scales)[at];
    uint16_t h = ((const uint16_t *)scales)[at];
    if (w->scale_type == LC_SCALES_BF16) return float_from((uint32_t)h << 16);
    int exponent = h >> 10 & 31;
    double value = exponent ? ldexp(1024 + (h & 1023), exponent - 25) : ldexp(h & 1023, -24);
    return (float)(h & 0x8000 ? -value : value);
}

/* Whole numbers that stand for n values, and their step. */
static float step_of(const float *x, size_t n, int64_t *q) {
    float m = 0, step;
    bool number = true;
    memset(q, 0, n * sizeof *q);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) number = false;
        if (fabsf(x[i]) > m) m = fabsf(x[i]);
    }
    if (!number) return NAN;
    step = (float)((double)m / 127.0);
    if ((double)m / 127.0 < 0x1p-126) return 0;
    float r = 127.0f / m;
    for (size_t i = 0; i < n; i++) {
        float y = (float)((double)x[i] * (double)r);
        q[i] = (int64_t)nearbyint(fabs((double)x[i]) < 0x1p-126 ? 0.0 : (double)y);
        assert_in_range(q[i] + 127, 0, 254);
    }
    return step;
}

static void compute(operands *o) {
    const a_case *c = &o->c;
    int64_t *q = malloc(c->k * sizeof *q);
    o->want = malloc(c->rows * c->columns * sizeof *o->want);
    for (size_t i = 0; i < c->rows; i++)
        for (size_t j = 0; j < c->columns; j++) o->want[i * c->columns + j] = 0;
    for (size_t i = 0; i < c->rows; i++)
        for (size_t g = 0, k0 = 0; g < o->groups; g++, k0 += c->size) {
            size_t n = c->k - k0 < c->size ? c->k - k0 : c->size;
            float step = step_of(o->x + i * o->ldx + k0, n, q);
            for (size_t j = 0; j < c->columns; j++) {
                int64_t zero = o->zeros ? o->zeros[j * o->groups + g] : o->right.zero;
                int64_t sum = 0, plain = 0;
                for (size_t k = 0; k < n; k++) {
                    sum += (code_of(&o->right, j, k0 + k) - zero) * q[k];
                    plain += q[k];
                }
                float *acc = o->want + i * c->columns + j;
                float scale = step * scale_of(&o->right, o->groups, o->scales, j, g);
                *acc = fmaf((float)sum, scale, *acc);
                if (!o->biases) continue;
                scale = step * scale_of(&o->right, o->groups, o->biases, j, g);
                *acc = fmaf((float)plain, scale, *acc);
            }
        }
    for (size_t i = 0; i < c->rows * c->columns; i++)
        if (isnan(o->want[i])) o->want[i] = float_from(0x7fc00000u);
    free(q);
}

/* ---- checks ---- */

static void *aligned(size_t bytes) {
    void *p = NULL;
    assert_int_equal(posix_memalign(&p, 64, bytes), 0);
    return p;
}

/* Rows [first, first + rows) of the product, packed `together` at a time. */
static void run(const lc_coded_path *path, const operands *o, size_t first, size_t rows,
                size_t together, float *c) {
    const a_case *a = &o->c;
    size_t bytes = path->left_bytes(rows, a->k, a->size);
    assert_true(bytes <= rows * (3 * lc_pad_k(a->k) + 64));
    char *left = aligned(bytes);
    void *scratch = aligned(path->scratch_bytes(rows, a->k, a->size));
    memset(left, 0x5a, bytes);
    for (size_t i = 0; i < rows; i += together)
        path->pack(a->kind, a->size, rows - i < together ? rows - i : together, a->k,
                   o->x + (first + i) * o->ldx, o->ldx, left + path->left_bytes(i, a->k, a->size));
    for (size_t i = 0; i < rows * o->ldc; i++) c[i] = 7.0f;
    path->multiply(&(lc_coded_product){rows, a->k, a->columns, left, o->right, c, o->ldc, scratch});
    free(left), free(scratch);
}

static void compare(const lc_coded_path *path, const operands *o, size_t first, size_t rows,
                    const float *c) {
    const a_case *a = &o->c;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < o->ldc; j++) {
            float want = j < a->columns ? o->want[(first + i) * a->columns + j] : 7.0f;
            if (memcmp(&want, &c[i * o->ldc + j], sizeof want))
                fail_msg("%s: rows %zu k %zu columns %zu size %zu kind %d layout %d zeros %d "
                         "biases %d scales %d order %d values %d: [%zu][%zu] is %a, not %a",
                         path->name, rows, a->k, a->columns, a->size, a->kind, a->layout,
                         a->with_zeros, a->with_biases, a->scale_type, a->order, a->values,
                         first + i, j, (double)c[i * o->ldc + j], (double)want);
        }
}

static size_t products;

static void check(const a_case *c) {
    const lc_coded_path *paths[LC_CODED_PATHS];
    size_t n = lc_coded_paths(paths);
    operands o;
    make(&o, c);
    compute(&o);
    float *got = malloc(c->rows * o.ldc * sizeof *got);
    for (size_t i = 0; i < n; i++) {
        run(paths[i], &o, 0, c->rows, c->rows, got);
        compare(paths[i], &o, 0, c->rows, got);
        run(paths[i], &o, 0, c->rows, 16, got); /* packed apart */
        compare(paths[i], &o, 0, c->rows, got);
        products += 2;
    }
    free(got);
    drop(&o);
}

/* Everything that can differ, in turn. */
static a_case with_options(a_case c, size_t number) {
    c.kind = (lc_code_kind)(number % 3);
    c.layout = (lc_code_layout)(number / 3 % 3);
    c.with_zeros = number / 2 % 2;
    c.with_biases = number / 4 % 2;
    c.scale_type = (lc_scale_type)(number / 5 % 3);
    c.order = (enum scale_order)(number / 7 % SCALE_ORDERS);
    c.values = (enum left_values)(number / 11 % LEFT_VALUES);
    return c;
}

static void shapes(void **unused) {
    (void)unused;
    static const size_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 40};
    static const size_t columns[] = {1, 15, 16, 17, 32, 40, 131};
    static const struct {
        size_t k, size;
    } inner[] = {{32, 32},     {96, 32},   {160, 64},    {200, 96}, {130, 128},   {256, 128},
                 {1, 32},      {7, 7},     {61, 100},    {100, 64}, {736, 32},    {700, 700},
                 {1100, 1100}, {640, 128}, {1312, 576},  {544, 96}, {2080, 2080}, {192, 96},
                 {1024, 32},   {4160, 64}, {4200, 4200}, {4256, 96}};
    size_t number = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t j = 0; j < sizeof columns / sizeof *columns; j++)
            for (size_t l = 0; l < sizeof inner / sizeof *inner; l++, number++) {
                if (number % EVERY) continue;
                if (rows[i] * columns[j] * inner[l].k > 300000 && number % 7) continue;
                a_case c = {
                    .rows = rows[i], .k = inner[l].k, .columns = columns[j], .size = inner[l].size};
                c = with_options(c, number);
                check(&c);
            }
    print_message("# %zu products\n", products);
}

/* All combinations of options on small shapes. */
static void options(void **unused) {
    (void)unused;
    static const a_case small[] = {{.rows = 3, .k = 104, .columns = 18, .size = 64},
                                   {.rows = 18, .k = 72, .columns = 33, .size = 200}};
    products = 0;
    size_t number = 0;
    for (size_t s = 0; s < 2; s++)
        for (unsigned bits = 0; bits < 12; bits++)
            for (int kind = 0; kind < 3; kind++)
                for (int type = 0; type < 3; type++)
                    for (int order = 0; order < SCALE_ORDERS; order++)
                        for (int values = 0; values < LEFT_VALUES; values++, number++) {
                            if (number % EVERY) continue;
                            a_case c = small[s];
                            c.kind = (lc_code_kind)kind;
                            c.layout = (lc_code_layout)(bits / 4);
                            c.with_zeros = bits & 1, c.with_biases = bits & 2;
                            c.scale_type = (lc_scale_type)type;
                            c.order = (enum scale_order)order;
                            c.values = (enum left_values)values;
                            check(&c);
                        }
    print_message("# %zu products\n", products);
}

/* Strips without zeros and biases are read where they lie: every height of a register tile, passes
 * of many left rows, strips that aren't full, all types. */
static void strips_as_they_lie(void **unused) {
    (void)unused;
    static const size_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 17, 70, 300};
    static const size_t columns[] = {3, 16, 33, 144};
    static const struct {
        size_t k, size;
    } inner[] = {{32, 32}, {160, 64}, {256, 128}, {96, 96}, {2080, 4160}, {320, 64}};
    products = 0;
    size_t number = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t j = 0; j < sizeof columns / sizeof *columns; j++)
            for (size_t l = 0; l < sizeof inner / sizeof *inner; l++)
                for (int kind = 0; kind < 3; kind++, number++) {
                    if (number % EVERY) continue;
                    if (rows[i] * columns[j] * inner[l].k > 1000000 && number % 5) continue;
                    a_case c = {.rows = rows[i],
                                .k = inner[l].k,
                                .columns = columns[j],
                                .size = inner[l].size,
                                .kind = (lc_code_kind)kind,
                                .layout = LC_CODES_IN_STRIPS,
                                .scale_type = (lc_scale_type)(number / 3 % 3),
                                .values = (enum left_values)(number % LEFT_VALUES)};
                    check(&c);
                }
    print_message("# %zu products\n", products);
}

/* The largest sums that the contract allows, 65536 times 255 * 127, and those of short groups. */
static void largest_sums(void **unused) {
    (void)unused;
    static const size_t sizes[] = {32, 64, 128, 65536};
    const lc_coded_path *paths[LC_CODED_PATHS];
    for (int kind = LC_CODES_U4; kind <= LC_CODES_I8; kind++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            size_t size = sizes[s], k = size < 65536 ? 256 : size;
            a_case c = {.rows = 1, .k = k, .columns = 2, .size = size, .kind = (lc_code_kind)kind};
            operands o;
            make(&o, &c);
            for (size_t i = 0; i < 2; i++)
                memset(o.codes + i * o.right.stride, kind == LC_CODES_I8 ? 0x80 : 0xff,
                       kind == LC_CODES_U4 ? k / 2 : k);
            for (size_t i = 0; i < k; i++) o.x[i] = i / size % 2 ? 1.0f : -1.0f;
            o.right.zero = 0;
            compute(&o);
            float got[7];
            for (size_t i = 0, n = lc_coded_paths(paths); i < n; i++) {
                run(paths[i], &o, 0, 1, 1, got);
                compare(paths[i], &o, 0, 1, got);
            }
            drop(&o);
        }
}

/* Codes of 4 bits as far from a zero in or near their range as they can be, so that sums in 16 bits
 * come to their ends. */
static void zeros_near_codes(void **unused) {
    (void)unused;
    static const size_t sizes[] = {32, 64, 128, 192, 256};
    static const uint8_t all[] = {0x00, 0xff, 0xf0};
    const lc_coded_path *paths[LC_CODED_PATHS];
    for (int zero = -2; zero <= 17; zero++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (size_t codes = 0; codes <= sizeof all; codes++) {
                a_case c = {.rows = 5,
                            .k = s == 1 && codes == 3 ? 160 : 256,
                            .columns = 18,
                            .size = sizes[s],
                            .layout = codes % 2 ? LC_CODES_IN_STRIPS : LC_CODES_BY_ROW};
                operands o;
                make(&o, &c);
                size_t bytes = c.layout == LC_CODES_IN_STRIPS
                                   ? 2 * o.right.stride
                                   : (c.columns - 1) * o.right.stride + c.k / 2;
                if (codes < sizeof all) memset(o.codes, all[codes], bytes);
                for (size_t i = 0; i < c.rows; i++)
                    for (size_t k = 0; k < c.k; k++)
                        o.x[i * o.ldx + k] = i % 2       ? -1.0f
                                             : i < 3     ? 1.0f
                                             : k % 8 < 4 ? 1.0f
                                                         : -1.0f;
                o.right.zero = zero;
                compute(&o);
                float *got = malloc(c.rows * o.ldc * sizeof *got);
                for (size_t i = 0, n = lc_coded_paths(paths); i < n; i++) {
                    run(paths[i], &o, 0, c.rows, c.rows, got);
                    compare(paths[i], &o, 0, c.rows, got);
                }
                free(got);
                drop(&o);
            }
}

/* Some rows alone, bit for bit what they are among others. */
static void rows_are_independent(void **unused) {
    (void)unused;
    const lc_coded_path *paths[LC_CODED_PATHS];
    operands o;
    for (size_t number = 0; number < 12; number++) {
        a_case c = {.rows = 40, .k = 320, .columns = 48, .size = number % 2 ? 64 : 320};
        c = with_options(c, number * 5);
        make(&o, &c);
        compute(&o);
        float *got = malloc(c.rows * o.ldc * sizeof *got);
        for (size_t i = 0, n = lc_coded_paths(paths); i < n; i++)
            for (size_t first = 0; first < c.rows; first += 1 + first / 3)
                for (size_t rows = 1; first + rows <= c.rows; rows += 1 + 2 * rows) {
                    run(paths[i], &o, first, rows, 16, got);
                    compare(paths[i], &o, first, rows, got);
                }
        free(got);
        drop(&o);
    }
}

static void tables_name_their_path(void **unused) {
    (void)unused;
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        assert_non_null(k->coded.name);
        print_message("# %-10s %s\n", lc_isa_name((lc_isa)isa), k->coded.name);
    }
}

static int begin(void **fp) {
    static uint64_t old;
    state = 1;
    old = lc_fp_enter();
    *fp = &old;
    return 0;
}

static int end(void **fp) {
    lc_fp_leave(*(uint64_t *)*fp);
    return 0;
}

#define WITH_FLUSHING(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FLUSHING(shapes),
        WITH_FLUSHING(options),
        WITH_FLUSHING(strips_as_they_lie),
        WITH_FLUSHING(largest_sums),
        WITH_FLUSHING(zeros_near_codes),
        WITH_FLUSHING(rows_are_independent),
        cmocka_unit_test(tables_name_their_path),
    };
    return test_main(tests);
}
