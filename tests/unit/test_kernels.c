/*
 * test_kernels.c: every instruction set of this machine against a slow writing of numerics.md that
 * shares no code with the kernels, and exp against the C library in double precision.
 */
#include "test.h"

#include "base/mem.h"
#include "format/dtype.h"
#include "kernels/kernels.h"

#include <math.h>
#include <pthread.h>

static uint32_t state = 1;
static float random_value(void) { /* mostly near one, sometimes tiny, huge, zero */
    state = state * 1664525u + 1013904223u;
    float f = (float)(int32_t)(state & 0xffffff) / 8388608.0f - 1.0f;
    uint32_t pick = state >> 24;
    if (pick < 8) return 0.0f;
    if (pick < 24) return f * 1e-30f;
    if (pick < 40) return f * 1e15f;
    return f;
}

/* numerics.md 1, as it stands there. */
static float dot_reference(const float *a, const float *b, size_t stride_b, size_t k) {
    float acc = 0.0f;
    for (size_t block = 0; block < k; block += 32) {
        float e = 0.0f, o = 0.0f;
        for (size_t j = 0; j < 16; j++) {
            e = fmaf(a[block + 2 * j], b[(block + 2 * j) * stride_b], e);
            o = fmaf(a[block + 2 * j + 1], b[(block + 2 * j + 1) * stride_b], o);
        }
        acc = acc + (e + o);
    }
    return acc;
}

static float lane_sum_reference(const float *x, size_t n, bool squares) {
    float lane[16] = {0};
    for (size_t i = 0; i < n; i++)
        lane[i % 16] = squares ? fmaf(x[i], x[i], lane[i % 16]) : lane[i % 16] + x[i];
    for (size_t half = 8; half; half /= 2)
        for (size_t i = 0; i < half; i++) lane[i] = lane[i] + lane[i + half];
    return lane[0];
}

static float bf16_value(float f) { return lc_bf16_to_f32(lc_f32_to_bf16(f)); }

enum { GUARD = 1 << 16 }; /* bytes behind scratch that must not change */

/* x [rows][cols] transposed; the caller frees it. */
static float *transposed(const float *x, size_t rows, size_t cols, size_t ldx) {
    float *y = calloc(rows * cols, sizeof *y);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) y[j * rows + i] = x[i * ldx + j];
    return y;
}

/* A product with both sides packed, from rows and from columns, in two pieces along k, overwriting
 * and adding. left [rows][k], right [columns][kp] as they are before rounding. */
static void check_packed(const lc_gemm_path *path, size_t rows, size_t k, size_t columns,
                         const float *left, const float *right) {
    size_t kp = lc_pad_k(k), ldc = columns + 5, middle = k / 64 * 32;
    bool bf16 = path->element == 2;
    float *turned = transposed(left, rows, k, k), *across = transposed(right, columns, k, kp);
    float *c = calloc(rows * ldc, 4), *a = calloc(rows * kp, 4), *b = calloc(columns * kp, 4);
    char *packed = aligned_alloc(64, (lc_left_bytes(path, rows, k) + 63) / 64 * 64);
    char *panels = aligned_alloc(64, (lc_right_bytes(path, k, columns) + 63) / 64 * 64);
    void *scratch = aligned_alloc(64, (path->scratch_bytes(rows, k) + 63) / 64 * 64);
    for (size_t i = 0; i < k; i++) {
        for (size_t r = 0; r < rows; r++)
            a[r * kp + i] = bf16 ? bf16_value(left[r * k + i]) : left[r * k + i];
        for (size_t j = 0; j < columns; j++)
            b[j * kp + i] = bf16 ? bf16_value(right[j * kp + i]) : right[j * kp + i];
    }
    for (int way = 0; way < 4; way++) { /* bit 0: from the transposes; bit 1: add */
        lc_turned l = {.rows = rows, .k = k, .x = turned, .ldx = rows};
        lc_right r = {.k = k, .columns = columns, .kn = way & 1};
        r.x = r.kn ? across : right;
        r.ld = r.kn ? columns : kp;
        for (int piece = 0; piece < 2; piece++) {
            l.begin = r.begin = piece ? middle : 0;
            l.end = r.end = piece ? k : middle;
            if (r.begin == r.end) continue;
            path->pack_right(&r, panels);
            if (way & 1) path->pack_turned(&l, packed);
        }
        if (!(way & 1)) path->pack_kn(rows, k, left, k, packed);
        for (size_t i = 0; i < rows * ldc; i++) c[i] = 7.0f;
        path->multiply(&(lc_product){.rows = rows,
                                     .k = k,
                                     .columns = columns,
                                     .left = packed,
                                     .right = panels,
                                     .c = c,
                                     .ldc = ldc,
                                     .scratch = scratch,
                                     .add = way & 2});
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < ldc; j++) {
                float want = j < columns ? dot_reference(a + i * kp, b + j * kp, 1, kp) : 7.0f;
                if (way & 2 && j < columns) want += 7.0f;
                if (memcmp(&want, &c[i * ldc + j], 4))
                    fail_msg("%s packed, way %d: %zu x %zu x %zu: [%zu][%zu] is %a, not %a",
                             path->name, way, rows, k, columns, i, j, (double)c[i * ldc + j],
                             (double)want);
            }
    }
    free(turned), free(across), free(c), free(a), free(b), free(packed), free(panels);
    free(scratch);
}

/* Right rows [columns][k] in strips; what fills the last one up is NaN. */
static void check_strips(const lc_gemm_path *path, size_t rows, size_t k, size_t columns,
                         const float *left, const float *right, const float *products) {
    if (!path->multiply_strips || k % LC_K_BLOCK) return;
    size_t strips = (columns + 15) / 16, ldc = columns + 5;
    size_t bytes = (path->scratch_bytes(rows, k) + 63) / 64 * 64;
    float *c = calloc(rows * ldc, 4), *packed = calloc(rows * k, 4);
    uint16_t *stored = malloc(strips * 16 * k * sizeof *stored);
    char *scratch = aligned_alloc(64, bytes + GUARD);
    memset(scratch + bytes, 0x5a, GUARD);
    memset(stored, 0xff, strips * 16 * k * sizeof *stored);
    for (size_t j = 0; j < columns; j++)
        for (size_t i = 0; i < k; i++)
            stored[j / 16 * 16 * k + i / 2 * 32 + j % 16 * 2 + i % 2] =
                lc_f32_to_bf16(right[j * k + i]);
    for (size_t i = 0; i < rows * ldc; i++) c[i] = 7.0f;
    path->pack_kn(rows, k, left, k, packed);
    path->multiply_strips(&(lc_product){.rows = rows,
                                        .k = k,
                                        .columns = columns,
                                        .left = packed,
                                        .right = stored,
                                        .c = c,
                                        .ldc = ldc,
                                        .scratch = scratch});
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < ldc; j++) {
            float want = j < columns ? products[i * columns + j] : 7.0f;
            if (memcmp(&want, &c[i * ldc + j], 4))
                fail_msg("%s strips: %zu x %zu x %zu: [%zu][%zu] is %a, not %a", path->name, rows,
                         k, columns, i, j, (double)c[i * ldc + j], (double)want);
        }
    for (size_t i = 0; i < GUARD; i++) assert_int_equal(scratch[bytes + i], 0x5a);
    free(c), free(packed), free(stored), free(scratch);
}

enum { SEVERAL = 6 }; /* products that are computed together */

/* Results as groups of 16 left rows, from left rows a [rows][kp], by `parts` products of a part of
 * the columns each. */
static void check_turned(const lc_gemm_path *path, size_t rows, size_t k, size_t columns,
                         const float *a, const void *stored, const float *products, size_t parts) {
    if (!path->multiply_turned || columns < parts) return;
    size_t kp = lc_pad_k(k), groups = (rows + 15) / 16, some = columns / parts;
    float *packed = calloc(groups * 16 * kp, 4), *c = calloc(groups * columns * 16, 4);
    void *scratch = aligned_alloc(64, (path->scratch_bytes(rows, k) + 63) / 64 * 64);
    lc_product part[SEVERAL];
    path->pack_lanes(rows, k, a, kp, packed);
    for (size_t i = 0; i < parts; i++)
        part[i] = (lc_product){.rows = rows,
                               .k = k,
                               .columns = some,
                               .left = packed,
                               .right = (const char *)stored + i * some * kp * path->element,
                               .ld = kp,
                               .c = c + i * groups * some * 16,
                               .scratch = scratch,
                               .then = i + 1 < parts ? &part[i + 1] : NULL};
    path->multiply_turned(part);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < parts * some; j++)
            assert_memory_equal(&products[i * columns + j],
                                &part[j / some].c[(i / 16 * some + j % some) * 16 + i % 16],
                                sizeof *c);
    free(packed), free(c), free(scratch);
}

/* SwiGLU of two products, packed, in two parts: as in steps. */
static void check_gated(const lc_kernels *k, size_t rows, size_t inner, size_t width) {
    const lc_gemm_path *path = &k->bf16;
    if (!path->multiply_gated) return;
    size_t kp = lc_pad_k(inner), part = width / 2 / 32 * 32;
    float *left = calloc(rows * inner, 4), *packed = calloc(rows * kp, 4);
    float *c = calloc(2 * rows * width, 4), *want = calloc(rows * width, 4),
          *got = calloc(rows * width, 4);
    uint16_t *right = calloc(2 * width * kp, 2);
    void *scratch = aligned_alloc(64, (path->scratch_bytes(rows, inner) + 63) / 64 * 64);
    for (size_t i = 0; i < rows * inner; i++) left[i] = random_value();
    for (size_t i = 0; i < 2 * width * kp; i++)
        right[i] = i % kp < inner ? lc_f32_to_bf16(random_value() * 0.2f) : 0;
    lc_product p = {.rows = rows,
                    .k = inner,
                    .columns = width,
                    .left = packed,
                    .right = right,
                    .ld = kp,
                    .c = c,
                    .ldc = width,
                    .scratch = scratch};
    path->pack_nk(rows, inner, left, inner, packed);
    lc_gated g = {.gate = p, .up = right + width * kp, .hidden = got, .width = width};
    for (g.column = 0; g.column < width; g.column += g.gate.columns) {
        g.gate.columns = g.column || !part ? width - g.column : part;
        g.gate.right = right + g.column * kp;
        g.up = right + (width + g.column) * kp;
        path->multiply_gated(&g);
    }
    path->multiply_nk(&p);
    p.right = right + width * kp;
    p.c = c + rows * width;
    path->multiply_nk(&p);
    k->swiglu(rows * width, c, p.c, c);
    path->pack_nk(rows, width, c, width, want);
    assert_memory_equal(want, got, lc_left_bytes(path, rows, width));
    free(left), free(packed), free(c), free(want), free(got), free(right), free(scratch);
}

static void every_isa_gates(void **unused) {
    (void)unused;
    static const size_t shapes[][3] = {{1, 64, 32},   {15, 96, 64},    {16, 100, 32}, {33, 576, 96},
                                       {47, 32, 160}, {150, 2100, 96}, {300, 64, 352}};
    uint64_t fp = lc_fp_enter();
    for (int isa = 0; isa < LC_ISA_COUNT; isa++)
        for (size_t i = 0; i < 7 && lc_kernels_of((lc_isa)isa); i++)
            check_gated(lc_kernels_of((lc_isa)isa), shapes[i][0], shapes[i][1], shapes[i][2]);
    lc_fp_leave(fp);
}

/* One product of a path, every way, against dot_reference. */
static void check_product(const lc_gemm_path *path, size_t rows, size_t k, size_t columns) {
    size_t kp = lc_pad_k(k), ld_nk = kp, ld_kn = columns + 3, ldc = columns + 5;
    bool bf16 = path->element == 2;
    float *left = calloc(rows * k, 4), *packed = calloc(rows * kp, 4), *c = calloc(rows * ldc, 4);
    float *right = calloc(columns * kp, 4), *a = calloc(rows * kp, 4);
    float *nk = calloc(columns * ld_nk, 4), *kn = calloc(k * ld_kn, 4);
    float *products = calloc(rows * columns, 4);
    size_t bytes = (path->scratch_bytes(rows, k) + 63) / 64 * 64;
    char *scratch = aligned_alloc(64, bytes + GUARD);
    memset(scratch + bytes, 0x5a, GUARD);
    for (size_t i = 0; i < rows * k; i++) left[i] = random_value();
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < k; j++)
            a[i * kp + j] = bf16 ? bf16_value(left[i * k + j]) : left[i * k + j];
    for (size_t j = 0; j < columns; j++)
        for (size_t i = 0; i < k; i++) {
            float v = right[j * kp + i] = bf16 ? bf16_value(random_value()) : random_value();
            uint16_t h = lc_f32_to_bf16(v);
            memcpy((char *)nk + (j * ld_nk + i) * path->element, bf16 ? (void *)&h : (void *)&v,
                   path->element);
            memcpy((char *)kn + (i * ld_kn + j) * path->element, bf16 ? (void *)&h : (void *)&v,
                   path->element);
        }
    for (size_t i = 0; i < rows * columns; i++)
        products[i] = dot_reference(a + i / columns * kp, right + i % columns * kp, 1, kp);
    static const char *const ways[] = {"nk", "kn", "kn with decay", "kn, several join"};
    for (int way = 0; way < 4; way++) {
        float decay[320 + SEVERAL];
        lc_product several[SEVERAL];
        for (size_t i = 0; i < rows + SEVERAL; i++)
            decay[i] = i % 5 == 2 ? -1.0f : (float)(i % 5) * 0.4f;
        lc_product p = {.rows = rows,
                        .k = k,
                        .columns = columns,
                        .left = packed,
                        .c = c,
                        .ldc = ldc,
                        .scratch = scratch};
        p.right = way ? kn : nk;
        p.ld = way ? ld_kn : ld_nk;
        if (way >= 2) p.decay = decay;
        for (size_t i = 0; i < rows * ldc; i++) c[i] = 7.0f;
        for (size_t i = 0; i < rows; i += 16) { /* groups of 16 may be packed apart */
            void *out = (char *)packed + lc_left_bytes(path, i, k);
            size_t n = rows - i < 16 ? rows - i : 16;
            (way ? path->pack_kn : path->pack_nk)(n, k, left + i * k, k, out);
        }
        for (size_t i = 0; i < SEVERAL; i++) {
            several[i] = p;
            if (p.decay) several[i].decay = decay + i;
            several[i].then = i + 1 < SEVERAL ? &several[i + 1] : NULL;
        }
        (way ? path->multiply_kn : path->multiply_nk)(way == 3 ? several : &p);
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < ldc; j++) {
                float want = way < 2 && j < columns ? products[i * columns + j] : 7.0f;
                size_t join = way < 2 ? 0 : way == 2 ? 1 : SEVERAL;
                for (size_t n = 0; n < join && j < columns; n++)
                    if (decay[i + n] >= 0)
                        want = fmaf(want, decay[i + n], products[i * columns + j]);
                if (memcmp(&want, &c[i * ldc + j], 4))
                    fail_msg("%s %s: %zu x %zu x %zu: [%zu][%zu] is %a, not %a", path->name,
                             ways[way], rows, k, columns, i, j, (double)c[i * ldc + j],
                             (double)want);
            }
    }
    for (size_t i = 0; i < GUARD; i++) assert_int_equal(scratch[bytes + i], 0x5a);
    check_turned(path, rows, k, columns, a, nk, products, 1);
    check_turned(path, rows, k, columns, a, nk, products, SEVERAL);
    check_packed(path, rows, k, columns, left, right);
    check_strips(path, rows, k, columns, left, right, products);
    free(left), free(packed), free(c), free(right), free(a), free(nk), free(kn), free(scratch);
    free(products);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { EVERY = 7 }; /* slow there, and looked at for memory only: a part of the shapes */
#else
enum { EVERY = 1 };
#endif

static void check_products(const lc_kernels *k) {
    static const size_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 64, 75};
    static const size_t ks[] = {32, 1, 20, 64, 100, 576, 1056};
    static const size_t columns[] = {1, 5, 16, 17, 31, 32, 64, 70};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t j = 0; j < sizeof ks / sizeof *ks; j++)
            for (size_t l = 0; l < sizeof columns / sizeof *columns; l++) {
                if (ks[j] > 500 && (i + l) % 3) continue; /* big ones: a third of the cases */
                if ((i + 2 * j + 3 * l) % EVERY) continue;
                check_product(&k->f32, rows[i], ks[j], columns[l]);
                check_product(&k->bf16, rows[i], ks[j], columns[l]);
            }
}

/* So many rows that a path copies right rows together before it uses them, some groups of columns
 * and a part of one (amx.c: from 128 rows on, 160 columns with 2100 k, 64 with 4128); so many k
 * and so many rows that sums wait in c (panels.inc: 512, 72); whole parts of 16 columns (few.h). */
static void every_isa_multiplies_many_rows(void **unused) {
    (void)unused;
    static const size_t shapes[][3] = {{280, 2100, 170}, {300, 4128, 100}, {257, 4096, 16},
                                       {128, 100, 70},   {150, 576, 600},  {5, 576, 271}};
    size_t count = 0;
    uint64_t fp = lc_fp_enter();
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        state = 1;
        for (size_t i = 0; i < (EVERY == 1 ? 6 : 1); i++, count++)
            check_product(&k->bf16, shapes[i][0], shapes[i][1], shapes[i][2]);
        check_product(&k->f32, 65, 4128, 17);
    }
    lc_fp_leave(fp);
    print_message("# %zu products of many rows\n", count);
}

static void check_rows(const lc_kernels *k) {
    static float x[133], w[133], y[133], g[133];
    static uint16_t h[133];
    for (size_t n = 1; n <= 133; n += 11) {
        for (size_t i = 0; i < n; i++)
            x[i] = random_value(), w[i] = random_value(), g[i] = random_value() * 20;
        k->rms_norm(n, x, w, 1e-5f, y);
        float r = 1.0f / sqrtf(lane_sum_reference(x, n, true) / (float)n + 1e-5f);
        for (size_t i = 0; i < n; i++) {
            float want = w[i] * (x[i] * r);
            assert_memory_equal(&want, &y[i], sizeof want);
        }
        float max = k->max(n, g);
        for (size_t i = 0; i < n; i++) assert_true(g[i] <= max);
        float sum = k->exp_sum(n, g, max, y);
        float want_sum = lane_sum_reference(y, n, false);
        assert_memory_equal(&sum, &want_sum, sizeof sum);
        for (size_t i = 0; i < n; i++) {
            double want = exp((double)(g[i] - max));
            if (g[i] - max > -87)
                assert_true(fabs(y[i] - want) <= 2e-7 * want);
            else
                assert_true(y[i] == 0 || y[i] < 2e-38f);
        }
        k->round_bf16(n, x, y);
        k->narrow_bf16(n, x, h);
        k->widen_bf16(n, h, w);
        assert_memory_equal(w, y, n * sizeof *y);
        for (size_t i = 0; i < n; i++) { /* nearest: within half a unit of the 8th bit */
            assert_true(fabsf(y[i] - x[i]) <= fabsf(x[i]) * 0x1p-8f);
        }
    }
}

static void check_exp_limits(const lc_kernels *k) {
    float x[4] = {-INFINITY, NAN, 100.0f, -1000.0f}, y[4];
    k->exp_sum(4, x, 0.0f, y);
    assert_true(y[0] == 0 && isnan(y[1]) && isinf(y[2]) && y[3] == 0);
    float gate[3] = {-1000.0f, 1000.0f, 0.0f}, up[3] = {2, 2, 2};
    k->swiglu(3, gate, up, y);
    assert_true(y[0] == 0 && y[1] == 2000 && y[2] == 0);
}

static void check_ties_to_even(const lc_kernels *k) {
    float x[4] = {1.0f + 0x1p-8f, 1.0f + 3 * 0x1p-8f, -1.0f - 0x1p-8f, NAN}, y[4];
    k->round_bf16(4, x, y);
    assert_true(y[0] == 1.0f && y[1] == 1.0f + 0x1p-6f && y[2] == -1.0f && isnan(y[3]));
}

/* Rows of codes against the formula, tails of rows and groups included. */
static void check_decode(const lc_kernels *k) {
    static const struct {
        size_t n, size;
    } shapes[] = {{128, 32}, {200, 64}, {96, 128}, {61, 61}, {72, 24}, {7, 7}, {40, 8}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int kind = LC_CODES_U4; kind <= LC_CODES_I8; kind++) {
            size_t n = shapes[s].n, size = shapes[s].size, groups = (n + size - 1) / size;
            size_t bytes = kind == LC_CODES_U4 ? (n + 1) / 2 : n;
            uint8_t *codes = malloc(bytes); /* exactly: reads past the end are seen */
            float zeros[16], scales[16], biases[16], got[256];
            for (size_t i = 0; i < bytes; i++) {
                random_value();
                codes[i] = (uint8_t)(state >> 16);
            }
            for (size_t g = 0; g < groups; g++) {
                zeros[g] = (float)(g * 5 % 17);
                scales[g] = random_value();
                biases[g] = random_value();
            }
            got[n] = 7.0f;
            lc_coded_row row = {codes, (lc_code_kind)kind, n, size, zeros, scales, biases};
            uint16_t halves[256];
            halves[n] = 7;
            k->decode(&row, got);
            k->decode_bf16(&row, halves);
            for (size_t i = 0; i < n; i++) {
                size_t g = i / size;
                int code = kind == LC_CODES_U4   ? codes[i / 2] >> 4 * (i % 2) & 15
                           : kind == LC_CODES_U8 ? codes[i]
                                                 : (int8_t)codes[i];
                float want = fmaf((float)code - zeros[g], scales[g], biases[g]);
                assert_memory_equal(&got[i], &want, sizeof want);
                assert_int_equal(halves[i], lc_f32_to_bf16(want));
            }
            assert_true(got[n] == 7.0f && halves[n] == 7);
            free(codes);
        }
}

/* Reads of exactly n bytes: what goes past the end is seen. */
static uint8_t *some_codes(size_t n) {
    uint8_t *codes = malloc(n);
    for (size_t i = 0; i < n; i++) {
        random_value();
        codes[i] = (uint8_t)(state >> 16);
    }
    return codes;
}

/* Every E4M3 code with many scales, as fp32 and as BF16: code * scale, rounded once, then again. */
static void check_f8_codes(const lc_kernels *k) {
    static const float fixed[] = {1.0f,      -1.0f,           0.0f,    0x1p-117f,
                                  0x1p-126f, 0x1.fffffep118f, 0x1p127f};
    enum { FIXED = sizeof fixed / sizeof *fixed, SCALES = 300 };
    uint8_t codes[256];
    float got[256];
    uint16_t halves[256];
    for (size_t i = 0; i < 256; i++) codes[i] = (uint8_t)i;
    for (size_t s = 0; s < SCALES; s++) {
        float scale[2] = {s < FIXED ? fixed[s] : random_value()};
        scale[1] = scale[0];
        k->decode(&(lc_coded_row){codes, LC_CODES_F8, 256, 128, .scales = scale}, got);
        k->decode_bf16(&(lc_coded_row){codes, LC_CODES_F8, 256, 256, .scales = scale}, halves);
        for (size_t i = 0; i < 256; i++) {
            float want = lc_f8_e4m3_to_f32(codes[i]) * scale[0];
            uint16_t half = lc_f32_to_bf16(want);
            if (memcmp(&want, &got[i], sizeof want) != 0 || half != halves[i])
                fail_msg("code %02zx times %a: %a and %04x, not %a", i, (double)scale[0],
                         (double)got[i], halves[i], (double)want);
        }
    }
}

/* Rows of FP8 that share scales, with tails of blocks and few and many rows. */
static void check_f8_rows(const lc_kernels *k) {
    static const size_t rows[] = {1, 3, 4, 5, 32},
                        columns[] = {1, 31, 32, 127, 128, 200, 2048, 2100};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t j = 0; j < sizeof columns / sizeof *columns; j++) {
            size_t m = rows[i], n = columns[j], ld = n + 3;
            uint8_t *codes = some_codes(m * n);
            uint16_t *y = calloc(m * ld, sizeof *y);
            float scales[17];
            for (size_t b = 0; b < 17; b++) scales[b] = random_value();
            k->decode_f8_rows(&(lc_f8_rows){m, n, codes, n, scales, y, ld});
            for (size_t r = 0; r < m; r++)
                for (size_t c = 0; c < ld; c++) {
                    float value = c < n ? lc_f8_e4m3_to_f32(codes[r * n + c]) * scales[c / 128] : 0;
                    assert_int_equal(y[r * ld + c], lc_f32_to_bf16(value));
                }
            free(codes), free(y);
        }
}

/* Every half, exactly. NaNs stay NaNs. */
static void check_f16_codes(const lc_kernels *k) {
    uint16_t *halves = malloc(65536 * sizeof *halves), *narrow = malloc(65536 * sizeof *narrow);
    float *got = malloc(65536 * sizeof *got), one = 1.0f;
    for (size_t i = 0; i < 65536; i++) halves[i] = (uint16_t)i;
    lc_coded_row row = {(const uint8_t *)halves, LC_CODES_F16, 65536, 65536, .scales = &one};
    k->decode(&row, got);
    k->decode_bf16(&row, narrow);
    for (size_t i = 0; i < 65536; i++) {
        float want = lc_f16_to_f32((uint16_t)i);
        if (isnan(want))
            assert_true(isnan(got[i]) && signbit(got[i]) == signbit(want));
        else
            assert_memory_equal(&want, &got[i], sizeof want);
        assert_int_equal(narrow[i], lc_f32_to_bf16(got[i]));
    }
    free(halves), free(narrow), free(got);
}

/* The other codes: products that keep the sign of zero, tails, and the same as BF16. */
static void check_decode_bf16(const lc_kernels *k) {
    for (int kind = 0; kind < LC_CODE_KINDS; kind++)
        for (size_t n = 1; n <= 100; n += 9) {
            uint8_t *codes = some_codes(kind == LC_CODES_F16 ? 2 * n : n);
            uint16_t halves[101] = {0}, want[101] = {0};
            float values[100], zeros[5], scales[5], biases[5];
            for (size_t g = 0; g < 5; g++)
                zeros[g] = (float)g, scales[g] = random_value(), biases[g] = random_value();
            lc_coded_row row = {codes, (lc_code_kind)kind, n, 24, zeros, scales, biases};
            k->decode(&row, values), k->decode_bf16(&row, halves);
            for (size_t i = 0; i < n; i++) want[i] = lc_f32_to_bf16(values[i]);
            assert_memory_equal(want, halves, sizeof want);
            row.zeros = row.biases = NULL;
            k->decode(&row, values);
            for (size_t i = 0; i < n && kind == LC_CODES_I8; i++) {
                float product = (float)(int8_t)codes[i] * scales[i / 24];
                assert_memory_equal(&product, &values[i], sizeof product);
            }
            free(codes);
        }
}

/* A block against the formulas, of rows in any state; lo, hi: of the first row, the others see a
 * little more and less, some nothing. */
static void check_softmax(const lc_kernels *k, size_t rows, size_t n, size_t lo, size_t hi,
                          bool turned) {
    static float scores[16 * 70], got[70 * 16], want[70];
    float max[16], sum[16], alpha[16], old_max[16], old_sum[16], from[16], to[16];
    const lc_kernels *scalar = lc_kernels_of(LC_ISA_SCALAR);
    bool all = lo == 0 && hi == n;
    size_t row = turned ? 1 : n, key = turned ? 16 : 1;
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < n; j++)
            scores[i * n + j] = got[i * row + j * key] = random_value() * 9;
        max[i] = old_max[i] = i % 4 ? random_value() : -INFINITY;
        sum[i] = old_sum[i] = i % 4 ? 1.5f : 0.0f;
        from[i] = lo + i < n ? (float)(lo + i) : (float)n;
        to[i] = i % 5 == 4 ? from[i] : (float)(hi - i % 2);
    }
    k->softmax_block(&(lc_softmax_block){rows, n, got, turned, 0.3f, all ? NULL : from,
                                         all ? NULL : to, max, sum, alpha});
    for (size_t i = 0; i < rows; i++) {
        float most = old_max[i], block_sum, decay = -1.0f;
        bool any = false;
        for (size_t j = 0; j < n; j++) {
            bool sees = all || ((float)j >= from[i] && (float)j < to[i]);
            any |= sees;
            want[j] = sees ? scores[i * n + j] * 0.3f : -INFINITY;
            if (want[j] > most) most = want[j];
        }
        block_sum = old_sum[i];
        if (any) {
            scalar->exp_sum(n, want, most, want);
            float drop = old_max[i] - most;
            scalar->exp_sum(1, &drop, 0.0f, &decay);
            block_sum = fmaf(old_sum[i], decay, lane_sum_reference(want, n, false));
        }
        for (size_t j = 0; j < n; j++) {
            if (!any) want[j] = 0.0f;
            assert_memory_equal(&want[j], &got[i * row + j * key], sizeof *want);
        }
        assert_true(max[i] == most);
        assert_memory_equal(&alpha[i], &decay, sizeof decay);
        assert_memory_equal(&sum[i], &block_sum, sizeof block_sum);
    }
}

static void check_attention_rows(const lc_kernels *k) {
    static const size_t shapes[][4] = {{1, 64, 0, 64},  {16, 64, 0, 64}, {13, 64, 5, 64},
                                       {16, 64, 0, 19}, {5, 64, 30, 31}, {16, 70, 16, 65},
                                       {3, 7, 2, 6},    {2, 16, 15, 16}, {7, 70, 0, 70}};
    static float x[9 * 150], w[9], y[150];
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int turned = 0; turned < 2; turned++)
            check_softmax(k, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], turned);
    for (size_t n = 1; n <= 150; n += n < 60 ? 9 : 30) {
        for (size_t i = 0; i < 9 * n; i++) x[i] = random_value();
        for (size_t i = 0; i < 9; i++) w[i] = random_value();
        y[n - 1] = 7.0f;
        k->sum_scaled_relu(9, n, w, x, y);
        for (size_t j = 0; j < n; j++) {
            float want = 0.0f;
            for (size_t i = 0; i < 9; i++)
                want = fmaf(w[i], x[i * n + j] > 0 ? x[i * n + j] : 0.0f, want);
            assert_memory_equal(&want, &y[j], sizeof want);
        }
    }
}

static void check_choices(const lc_kernels *k) {
    static const float rising[] = {-INFINITY, -1e30f, -1.0f, -0x1p-149f, 0.0f,
                                   0x1p-149f, 1.0f,   1e30f, INFINITY};
    uint32_t order[40], kept[40];
    float x[40], zeros[2] = {0.0f, -0.0f}, nans[4] = {-NAN, -INFINITY, INFINITY, NAN};
    int32_t picked[40];
    k->order_floats(9, rising, order);
    for (size_t i = 1; i < 9; i++) assert_true(order[i - 1] < order[i]);
    k->order_floats(2, zeros, order);
    assert_true(order[0] == order[1]);
    k->order_floats(4, nans, order);
    for (size_t i = 1; i < 4; i++) assert_true(order[i - 1] < order[i]);
    for (size_t n = 1; n <= 40; n++) {
        for (size_t i = 0; i < n; i++) x[i] = (float)(i * 7 % 5) - 2.0f;
        k->order_floats(n, x, order);
        for (size_t t = 0; t < n; t++)
            for (size_t ties = 0; ties < 4; ties++) {
                size_t count = 0, left = ties, got;
                got = k->pick_above(n, order, order[t], ties, 100, picked);
                for (size_t i = 0; i < n; i++) {
                    if (x[i] < x[t] || (x[i] == x[t] && !left)) continue;
                    left -= x[i] == x[t];
                    assert_true(count < got && picked[count] == 100 + (int32_t)i);
                    count++;
                }
                assert_true(count == got);
            }
        size_t count = k->keep_prefix(n, order, 23, order[0] >> 23, kept), at = 0;
        for (size_t i = 0; i < n; i++)
            if (order[i] >> 23 == order[0] >> 23) assert_true(kept[at++] == order[i]);
        assert_true(at == count);
    }
    for (size_t i = 0; i < 40; i++) order[i] = i % 3 ? UINT32_MAX - (uint32_t)i : 0;
    assert_int_equal(k->keep_prefix(40, order, 0, UINT32_MAX - 1, kept), 1);
    assert_int_equal(k->keep_prefix(40, order, 24, 255, kept), 26);
    assert_int_equal(k->keep_prefix(40, order, 24, 0, kept), 14);
}

static void check_isa(lc_isa isa) {
    const lc_kernels *k = lc_kernels_of(isa);
    if (!k) {
        print_message("# this CPU has no %s\n", lc_isa_name(isa));
        skip();
    }
    uint64_t fp = lc_fp_enter();
    state = 1;
    check_products(k);
    check_rows(k);
    check_exp_limits(k);
    check_ties_to_even(k);
    check_decode(k);
    check_f8_codes(k);
    check_f8_rows(k);
    check_f16_codes(k);
    check_decode_bf16(k);
    check_attention_rows(k);
    lc_fp_leave(fp);
    check_choices(k);
}

static void scalar_is_the_written_order(void **unused) { (void)unused, check_isa(LC_ISA_SCALAR); }
static void avx2_is_the_written_order(void **unused) { (void)unused, check_isa(LC_ISA_AVX2); }
static void avx512_is_the_written_order(void **unused) { (void)unused, check_isa(LC_ISA_AVX512); }
static void avx512bf16_is_the_written_order(void **unused) {
    (void)unused, check_isa(LC_ISA_AVX512BF16);
}
static void amx_is_the_written_order(void **unused) { (void)unused, check_isa(LC_ISA_AMX); }
static void neon_is_the_written_order(void **unused) { (void)unused, check_isa(LC_ISA_NEON); }

/* Products of a table that was put together, its right side narrowed by its own kernels. */
static void check_chosen(const lc_kernels *k) {
    enum { ROWS = 33, K = 100, COLUMNS = 37, PADDED = 128 };
    float left[ROWS][K], a[ROWS][PADDED] = {{0}}, right[COLUMNS][PADDED] = {{0}}, c[ROWS][COLUMNS];
    uint16_t halves[COLUMNS][PADDED];
    float *packed = malloc(lc_left_floats(ROWS, K) * sizeof *packed);
    void *scratch = aligned_alloc(64, (k->bf16.scratch_bytes(ROWS, K) + 63) / 64 * 64);
    for (size_t j = 0; j < COLUMNS; j++) {
        for (size_t i = 0; i < K; i++) right[j][i] = random_value();
        k->narrow_bf16(PADDED, right[j], halves[j]);
        for (size_t i = 0; i < K; i++) right[j][i] = bf16_value(right[j][i]);
    }
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < K; j++) a[i][j] = bf16_value(left[i][j] = random_value());
    k->bf16.pack_nk(ROWS, K, left[0], K, packed);
    k->bf16.multiply_nk(&(lc_product){.rows = ROWS,
                                      .k = K,
                                      .columns = COLUMNS,
                                      .left = packed,
                                      .right = halves,
                                      .ld = PADDED,
                                      .c = c[0],
                                      .ldc = COLUMNS,
                                      .scratch = scratch});
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < COLUMNS; j++) {
            float want = dot_reference(a[i], right[j], 1, PADDED);
            assert_memory_equal(&want, &c[i][j], sizeof want);
        }
    free(packed), free(scratch);
}

static void neonbf16_is_the_written_order(void **unused) {
    (void)unused, check_isa(LC_ISA_NEONBF16);
}

static void best_passes_the_self_test(void **unused) {
    (void)unused;
    lc_isa dropped;
    const lc_kernels *k = lc_kernels_best((lc_isa)(LC_ISA_COUNT - 1), &dropped);
    assert_non_null(k);
    assert_int_equal(dropped, LC_ISA_COUNT);
    assert_int_equal(lc_kernels_best(LC_ISA_SCALAR, NULL)->isa, LC_ISA_SCALAR);
}

/* Any set's rounding with any other set's products: what a choice by measurement can put together.
 */
static void every_choice_has_the_same_bits(void **unused) {
    (void)unused;
    size_t choices = 0;
    uint64_t fp = lc_fp_enter();
    for (int i = 0; i < LC_ISA_COUNT; i++)
        for (int j = 0; j < LC_ISA_COUNT; j++) {
            const lc_kernels *base = lc_kernels_of((lc_isa)i), *other = lc_kernels_of((lc_isa)j);
            if (!base || !other) continue;
            lc_kernels table = *base;
            table.bf16 = other->bf16;
            check_chosen(&table);
            choices++;
        }
    lc_fp_leave(fp);
    print_message("# %zu choices\n", choices);
}

static void *ask_fastest(void *unused) {
    (void)unused;
    return (void *)(uintptr_t)lc_kernels_fastest(NULL);
}

static void fastest_is_chosen_once(void **unused) {
    (void)unused;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    void *got[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_fastest, NULL), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], &got[i]);
    lc_isa dropped;
    const lc_kernels *k = lc_kernels_fastest(&dropped);
    for (int i = 0; i < THREADS; i++) assert_ptr_equal(got[i], k);
    assert_int_equal(dropped, LC_ISA_COUNT);
    assert_int_equal(k->isa, lc_kernels_best((lc_isa)(LC_ISA_COUNT - 1), NULL)->isa);
    bool known = false;
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        const lc_kernels *other = lc_kernels_of((lc_isa)isa);
        known |= other && !memcmp(&other->bf16, &k->bf16, sizeof k->bf16);
    }
    assert_true(known);
    print_message("# %s, BF16 products: %s\n", lc_isa_name(k->isa), k->bf16.name);
    uint64_t fp = lc_fp_enter();
    check_chosen(k);
    lc_fp_leave(fp);
}

/* Before anything was measured: no memory, no choice, and none is kept. */
static void no_memory_no_choice(void **unused) {
    (void)unused;
    for (long n = 0; n < 4; n++) {
        lc_mem_fail_after(n);
        const lc_kernels *k = lc_kernels_fastest(NULL);
        lc_mem_fail_after(-1);
        assert_int_equal(k->isa, LC_ISA_SCALAR);
    }
}

/* --isa of all commands: a set that is not there is an error, not something else in its place. */
static void sets_by_name(void **unused) {
    (void)unused;
    const lc_kernels *k = NULL;
    lc_err err = {0};
    assert_int_equal(lc_kernels_named("sse", &k, &err), LC_EINVAL);
    assert_non_null(strstr(err.text, "sse"));
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        const char *name = lc_isa_name((lc_isa)isa);
        bool there = lc_kernels_of((lc_isa)isa) != NULL;
        assert_int_equal(lc_kernels_named(name, &k, &err), there ? LC_OK : LC_EUNSUPPORTED);
        if (there)
            assert_int_equal(k->isa, isa);
        else
            assert_non_null(strstr(err.text, name));
    }
    assert_int_equal(lc_kernels_named(NULL, &k, &err), LC_OK);
    assert_ptr_equal(k, lc_kernels_fastest(NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar_is_the_written_order),
        cmocka_unit_test(avx2_is_the_written_order),
        cmocka_unit_test(avx512_is_the_written_order),
        cmocka_unit_test(avx512bf16_is_the_written_order),
        cmocka_unit_test(amx_is_the_written_order),
        cmocka_unit_test(neon_is_the_written_order),
        cmocka_unit_test(neonbf16_is_the_written_order),
        cmocka_unit_test(every_isa_multiplies_many_rows),
        cmocka_unit_test(every_isa_gates),
        cmocka_unit_test(best_passes_the_self_test),
        cmocka_unit_test(every_choice_has_the_same_bits),
        cmocka_unit_test(no_memory_no_choice),
        cmocka_unit_test(fastest_is_chosen_once),
        cmocka_unit_test(sets_by_name),
    };
    return test_main(tests);
}
