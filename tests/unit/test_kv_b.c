/*
 * test_kv_b.c (uses-threads): kv_b as codes, in every layout that checkpoints have them in, against
 * a slow writing of numerics.md 1, bit for bit, for every instruction set; which weights become
 * codes; their difference from exact products of the decoded weights.
 */
#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "ops/kv_b.h"

#include <math.h>

enum { THREADS = 2, MOST_ROWS = 300 };

/* A kv_b: codes less their zero points, scales, and what a checkpoint has of them. */
typedef struct kv_b_case {
    size_t heads, nope, v, rank, group; /* group 0: one a row */
    lc_code_kind kind;
    lc_code_layout layout;
    lc_dtype scale_type;
} kv_b_case;

/* clang-format off */
static const kv_b_case cases[] = {
    {3, 32, 16, 64, 32, LC_CODES_U4, LC_CODES_BY_ROW, LC_BF16},
    {3, 24, 20, 96, 64, LC_CODES_U4, LC_CODES_BY_ROW, LC_F16}, /* a short last group */
    {2, 24, 24, 96, 32, LC_CODES_U4, LC_CODES_BY_COLUMN, LC_F16},
    {2, 8, 20, 160, 0, LC_CODES_U4, LC_CODES_IN_STRIPS, LC_F32},
    {5, 128, 128, 512, 64, LC_CODES_U4, LC_CODES_IN_STRIPS, LC_BF16},
    {2, 24, 20, 96, 32, LC_CODES_U8, LC_CODES_BY_ROW, LC_F32},
    {2, 24, 20, 96, 0, LC_CODES_U8, LC_CODES_BY_COLUMN, LC_F16},
    {3, 24, 20, 40, 0, LC_CODES_I8, LC_CODES_BY_ROW, LC_F32}, /* LongCat's INT8 */
    {2, 128, 128, 512, 0, LC_CODES_I8, LC_CODES_IN_STRIPS, LC_F32},
};
/* clang-format on */

typedef struct weights {
    const kv_b_case *c;
    size_t rows, groups;
    int *codes;    /* [rows][rank] less their zero points */
    float *scales; /* [rows][groups] */
    unsigned char *data, *stored_scales;
    lc_mat mat;
} weights;

static void *zeroed(size_t bytes) {
    void *p = calloc(1, bytes);
    assert_non_null(p);
    return p;
}

static size_t random_below(size_t n, uint64_t stream, uint64_t i) {
    return lc_rng(7, stream, i).word[0] % n;
}

static float uniform(uint64_t stream, uint64_t i) {
    return (float)(int32_t)lc_rng(11, stream, i).word[0] / 2147483648.0f;
}

/* Of `width` columns' numbers of a row, where number i of `row` lies. */
static size_t place_of(const weights *w, size_t row, size_t i, size_t width) {
    switch (w->c->layout) {
    case LC_CODES_BY_COLUMN: return i * w->rows + row;
    case LC_CODES_IN_STRIPS: return (row / 16 * width + i) * 16 + row % 16;
    default: return row * width + i;
    }
}

static void put_code(weights *w, size_t row, size_t col, unsigned code) {
    bool four = w->c->kind == LC_CODES_U4;
    size_t byte = four ? col / 2 : col, words = w->c->rank / (four ? 8 : 4);
    unsigned char *at = w->data + 4 * place_of(w, row, byte / 4, words) + byte % 4;
    *at |= (unsigned char)(four ? code << 4 * (col % 2) : code);
}

static float put_scale(weights *w, size_t row, size_t group, float value) {
    size_t at = place_of(w, row, group, w->groups);
    uint16_t half = 0x2c00 | (uint16_t)(row * 7 + group * 3) % 0x3ff; /* F16 of about 1/16 */
    switch (w->c->scale_type) {
    case LC_F32: memcpy(w->stored_scales + 4 * at, &value, sizeof value); return value;
    case LC_BF16: half = lc_f32_to_bf16(value); break;
    default: break;
    }
    memcpy(w->stored_scales + 2 * at, &half, sizeof half);
    return w->c->scale_type == LC_BF16 ? lc_bf16_to_f32(half) : lc_f16_to_f32(half);
}

static weights weights_of(const kv_b_case *c) {
    weights w = {.c = c, .rows = c->heads * (c->nope + c->v)};
    size_t padded = (w.rows + 15) / 16 * 16, four = c->kind == LC_CODES_U4;
    int middle = four ? 8 : c->kind == LC_CODES_U8 ? 128 : 0;
    w.groups = c->group ? (c->rank + c->group - 1) / c->group : 1;
    w.codes = zeroed(w.rows * c->rank * sizeof *w.codes);
    w.scales = zeroed(w.rows * w.groups * sizeof *w.scales);
    w.data = zeroed(padded * c->rank);
    w.stored_scales = zeroed(padded * w.groups * sizeof(float));
    for (size_t i = 0; i < w.rows * c->rank; i++) {
        w.codes[i] = four ? (int)random_below(16, 1, i) - 8 : (int)random_below(256, 1, i) - 128;
        put_code(&w, i / c->rank, i % c->rank, (unsigned)(w.codes[i] + middle) & 255);
    }
    for (size_t i = 0; i < w.rows * w.groups; i++)
        w.scales[i] = put_scale(&w, i / w.groups, i % w.groups, 0.01f * (1.5f + uniform(2, i)));
    size_t stride = c->rank / (four ? 2 : 1);
    if (c->layout == LC_CODES_BY_COLUMN) stride = 4 * w.rows;
    if (c->layout == LC_CODES_IN_STRIPS) stride *= 16;
    bool by_row = c->kind == LC_CODES_I8 && c->layout == LC_CODES_BY_ROW;
    w.mat = (lc_mat){.name = "kv_b",
                     .type = c->kind == LC_CODES_I8 ? LC_I8 : LC_I32,
                     .scaling = by_row ? LC_SCALE_ROW : LC_SCALE_GROUP,
                     .rows = w.rows,
                     .cols = c->rank,
                     .data = w.data,
                     .scales = (const float *)(const void *)w.stored_scales};
    if (by_row) return w;
    w.mat.groups = (lc_groups){.kind = c->kind,
                               .layout = c->layout,
                               .size = c->group ? c->group : c->rank,
                               .count = w.groups,
                               .stride = stride,
                               .scale_type = c->scale_type,
                               .scales = w.stored_scales,
                               .zero_base = middle,
                               .zero_mask = -1};
    return w;
}

static void weights_free(weights *w) {
    free(w->codes);
    free(w->scales);
    free(w->data);
    free(w->stored_scales);
}

static lc_mla_shape shape_of(const kv_b_case *c) {
    return (lc_mla_shape){
        .heads = c->heads, .kv_rank = c->rank, .nope = c->nope, .rope = 6, .v = c->v};
}

/* ---- numerics.md 1, slowly ---- */

/* n values to int8; returns the step. */
static float quantise(const float *x, size_t n, int *q) {
    float m = 0;
    for (size_t i = 0; i < n; i++) m = fmaxf(m, fabsf(x[i]));
    bool tiny = m < 127 * 0x1p-126f;
    for (size_t i = 0; i < n; i++) q[i] = tiny ? 0 : (int)rintf(x[i] * (127.0f / m));
    return tiny ? 0.0f : m / 127.0f;
}

/* Latent column `column` of a head's absorbed query. */
static float absorbed(const weights *w, size_t head, size_t column, const float *q) {
    size_t group = w->c->group ? column / w->c->group : 0, row = head * (w->c->nope + w->c->v);
    float x[128];
    int quantised[128], sum = 0;
    for (size_t i = 0; i < w->c->nope; i++) x[i] = q[i] * w->scales[(row + i) * w->groups + group];
    float step = quantise(x, w->c->nope, quantised);
    for (size_t i = 0; i < w->c->nope; i++)
        sum += quantised[i] * w->codes[(row + i) * w->c->rank + column];
    return fmaf((float)sum, step, 0.0f);
}

/* Value v of a head. */
static float expanded(const weights *w, size_t head, size_t v, const float *context) {
    size_t row = head * (w->c->nope + w->c->v) + w->c->nope + v;
    size_t size = w->c->group ? w->c->group : w->c->rank;
    float acc = 0.0f;
    for (size_t g = 0; g < w->groups; g++) {
        size_t first = g * size, n = w->c->rank - first < size ? w->c->rank - first : size;
        int q[512], sum = 0;
        float step = quantise(context + first, n, q);
        for (size_t i = 0; i < n; i++) sum += q[i] * w->codes[row * w->c->rank + first + i];
        acc = fmaf((float)sum, step * w->scales[row * w->groups + g], acc);
    }
    return acc;
}

/* ---- ours ---- */

typedef struct products {
    size_t m, head_dim, width;
    float *q, *absorbed, *context, *heads;
} products;

static products products_of(const kv_b_case *c, size_t m) {
    products p = {.m = m, .head_dim = c->nope + 6, .width = c->rank + 6};
    size_t queries = m * c->heads * p.head_dim, latents = c->heads * m * p.width;
    p.q = zeroed(queries * sizeof *p.q);
    p.absorbed = zeroed(latents * sizeof *p.absorbed);
    p.context = zeroed(latents * sizeof *p.context);
    p.heads = zeroed(m * c->heads * c->v * sizeof *p.heads);
    for (size_t i = 0; i < queries; i++) p.q[i] = uniform(3, i);
    for (size_t i = 0; i < latents; i++) p.context[i] = uniform(4, i);
    if (m > 1) memset(p.q + p.head_dim * c->heads, 0, p.head_dim * sizeof *p.q); /* a row of 0 */
    return p;
}

static void products_free(products *p) {
    free(p->q);
    free(p->absorbed);
    free(p->context);
    free(p->heads);
}

/* An operator's context. */
typedef struct bench {
    lc_op op;
    float *scratch[THREADS];
} bench;

static bool bench_open(bench *b, lc_isa isa, bool bf16, const lc_mla_shape *s) {
    const lc_kernels *k = lc_kernels_of(isa);
    lc_err err = {0};
    if (!k) return false;
    b->op = (lc_op){.k = k, .path = bf16 ? &k->bf16 : &k->f32, .scratch = b->scratch};
    assert_ok(lc_pool_new(THREADS, &b->op.pool, &err), err);
    for (int i = 0; i < THREADS; i++)
        b->scratch[i] = lc_calloc(lc_kv_b_scratch(&b->op, s, MOST_ROWS), sizeof(float));
    return true;
}

static void bench_close(bench *b) {
    for (int i = 0; i < THREADS; i++) lc_free(b->scratch[i]);
    lc_pool_free(b->op.pool);
}

static void run(bench *b, const lc_mla_shape *s, const lc_kv_b *kv_b, products *p) {
    lc_kv_b_absorb(&b->op, s, kv_b, p->m, p->q, p->absorbed);
    lc_kv_b_expand(&b->op, s, kv_b, p->m, p->context, p->heads);
}

static void compare(const weights *w, const products *p, const char *isa) {
    const kv_b_case *c = w->c;
    for (size_t h = 0; h < c->heads; h++)
        for (size_t i = 0; i < p->m; i++) {
            const float *q = p->q + (i * c->heads + h) * p->head_dim;
            const float *got = p->absorbed + (h * p->m + i) * p->width;
            const float *context = p->context + (h * p->m + i) * p->width;
            for (size_t j = 0; j < c->rank; j++)
                if (got[j] != absorbed(w, h, j, q))
                    fail_msg("%s, case %zu: row %zu, head %zu, latent %zu: %a, not %a", isa,
                             (size_t)(c - cases), i, h, j, (double)got[j],
                             (double)absorbed(w, h, j, q));
            assert_memory_equal(got + c->rank, q + c->nope, 6 * sizeof *q);
            for (size_t j = 0; j < c->v; j++) {
                float value = p->heads[(i * c->heads + h) * c->v + j];
                if (value != expanded(w, h, j, context))
                    fail_msg("%s, case %zu: row %zu, head %zu, value %zu: %a, not %a", isa,
                             (size_t)(c - cases), i, h, j, (double)value,
                             (double)expanded(w, h, j, context));
            }
        }
}

/* All layouts, instruction sets, and numbers of rows around the blocks of the products. */
static void codes_as_numerics_has_them(void **state) {
    static const size_t rows[] = {1, 2, 7, 33, 131};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        weights w = weights_of(&cases[i]);
        lc_mla_shape s = shape_of(&cases[i]);
        bool large = cases[i].rank == 512; /* a slow check: fewer rows */
        for (int isa = LC_ISA_SCALAR; isa < LC_ISA_COUNT; isa++) {
            bench b;
            lc_kv_b packed;
            lc_err err = {0};
            if (!bench_open(&b, (lc_isa)isa, true, &s)) continue;
            assert_ok(lc_kv_b_pack(&b.op, &s, &w.mat, &packed, &err), err);
            assert_true(packed.coded);
            for (size_t r = 0; r < (large ? 2 : 5); r++) {
                products p = products_of(&cases[i], rows[r]);
                run(&b, &s, &packed, &p);
                compare(&w, &p, lc_isa_name((lc_isa)isa));
                products_free(&p);
            }
            lc_kv_b_free(&packed);
            bench_close(&b);
        }
        weights_free(&w);
    }
}

/* A row's result doesn't depend on the rows beside it, for many rows of a wide model. */
static void rows_alone_as_together(void **state) {
    const kv_b_case *c = &cases[4];
    weights w = weights_of(c);
    lc_mla_shape s = shape_of(c);
    bench b;
    lc_kv_b packed;
    lc_err err = {0};
    (void)state;
    assert_true(bench_open(&b, lc_kernels_fastest(NULL)->isa, true, &s));
    assert_ok(lc_kv_b_pack(&b.op, &s, &w.mat, &packed, &err), err);
    products all = products_of(c, MOST_ROWS), one = products_of(c, 1);
    run(&b, &s, &packed, &all);
    for (size_t i = 0; i < MOST_ROWS; i += 37) {
        memcpy(one.q, all.q + i * c->heads * one.head_dim, c->heads * one.head_dim * sizeof *one.q);
        for (size_t h = 0; h < c->heads; h++)
            memcpy(one.context + h * one.width, all.context + (h * all.m + i) * one.width,
                   one.width * sizeof *one.context);
        run(&b, &s, &packed, &one);
        for (size_t h = 0; h < c->heads; h++)
            assert_memory_equal(one.absorbed + h * one.width,
                                all.absorbed + (h * all.m + i) * one.width,
                                one.width * sizeof *one.absorbed);
        assert_memory_equal(one.heads, all.heads + i * c->heads * c->v,
                            c->heads * c->v * sizeof *one.heads);
    }
    products_free(&all);
    products_free(&one);
    lc_kv_b_free(&packed);
    bench_close(&b);
    weights_free(&w);
}

/* Codes less far from the products of the decoded weights than numerics.md allows: m / 254 for each
 * value of a left row. */
static void near_decoded_weights(void **state) {
    (void)state;
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        const kv_b_case *c = &cases[n];
        weights w = weights_of(c);
        lc_mla_shape s = shape_of(c);
        bench b;
        lc_kv_b packed;
        lc_err err = {0};
        assert_true(bench_open(&b, LC_ISA_SCALAR, true, &s));
        assert_ok(lc_kv_b_pack(&b.op, &s, &w.mat, &packed, &err), err);
        products p = products_of(c, 1);
        run(&b, &s, &packed, &p);
        float *rows = zeroed(w.rows * c->rank * sizeof *rows);
        lc_mat_rows_f32(b.op.k, &w.mat, 0, w.rows, rows, c->rank);
        for (size_t h = 0; h < c->heads; h++) {
            const float *row = rows + h * (c->nope + c->v) * c->rank, *q = p.q + h * p.head_dim;
            for (size_t j = 0; j < c->rank; j++) {
                size_t g = c->group ? j / c->group : 0;
                double exact = 0, bound = 0, m = 0;
                for (size_t i = 0; i < c->nope; i++) {
                    size_t at = h * (c->nope + c->v) + i;
                    exact += (double)q[i] * (double)row[i * c->rank + j];
                    bound += abs(w.codes[at * c->rank + j]);
                    m = fmax(m, fabs((double)q[i] * (double)w.scales[at * w.groups + g]));
                }
                double got = (double)p.absorbed[h * p.width + j];
                /* and fp32 roundings: 2^-24 of sums below 10, of the step and of its inverse */
                assert_true(fabs(got - exact) <= 1.0001 * bound * m / 254 + 1e-6);
            }
        }
        free(rows);
        products_free(&p);
        lc_kv_b_free(&packed);
        bench_close(&b);
        weights_free(&w);
    }
}

/* What stays values: zero points of their own, biases, the fp32 compute type. */
static void others_are_decoded(void **state) {
    const kv_b_case *c = &cases[0];
    weights w = weights_of(c);
    lc_mla_shape s = shape_of(c);
    (void)state;
    for (int way = 0; way < 4; way++) {
        bench b;
        lc_kv_b packed;
        lc_err err = {0};
        lc_mat mat = w.mat;
        unsigned char *zeros = zeroed(w.rows * w.groups);
        memset(zeros, 8, w.rows * w.groups);
        if (way == 1) mat.groups.biases = mat.groups.scales;
        if (way >= 2) {
            mat.groups.zeros = zeros;
            mat.groups.zeros_layout = LC_ZEROS_I8;
            mat.groups.zero_base = 0;
            if (way == 2) zeros[w.rows * w.groups - 1] = 7;
        }
        assert_true(bench_open(&b, LC_ISA_SCALAR, way != 0, &s));
        assert_ok(lc_kv_b_pack(&b.op, &s, &mat, &packed, &err), err);
        assert_int_equal(packed.coded, way == 3); /* stored zeros that are all 8 */
        lc_kv_b_free(&packed);
        bench_close(&b);
        free(zeros);
    }
    weights_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_as_numerics_has_them),
        cmocka_unit_test(rows_alone_as_together),
        cmocka_unit_test(near_decoded_weights),
        cmocka_unit_test(others_are_decoded),
    };
    return test_main(tests);
}
