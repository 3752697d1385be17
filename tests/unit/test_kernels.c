/*
 * test_kernels.c: every instruction set of this machine against a slow writing of numerics.md that
 * shares no code with the kernels, and exp against the C library in double precision.
 */
#include "test.h"

#include "format/dtype.h"
#include "kernels/kernels.h"

#include <math.h>

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

/* One product of a path, both ways, against dot_reference. */
static void check_product(const lc_gemm_path *path, size_t rows, size_t k, size_t columns) {
    size_t kp = lc_pad_k(k), ld_nk = kp, ld_kn = columns + 3, ldc = columns + 5;
    bool bf16 = path->element == 2;
    float *left = calloc(rows * k, 4), *packed = calloc(rows * kp, 4), *c = calloc(rows * ldc, 4);
    float *right = calloc(columns * kp, 4), *a = calloc(rows * kp, 4);
    float *nk = calloc(columns * ld_nk, 4), *kn = calloc(k * ld_kn, 4);
    void *scratch = aligned_alloc(64, (path->scratch_bytes(rows, k) + 63) / 64 * 64);
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
    for (int way = 0; way < 3; way++) { /* nk, kn, kn with decay */
        float decay[128];
        for (size_t i = 0; i < rows; i++) decay[i] = i % 5 == 2 ? -1.0f : (float)(i % 5) * 0.4f;
        lc_product p = {.rows = rows,
                        .k = k,
                        .columns = columns,
                        .left = packed,
                        .c = c,
                        .ldc = ldc,
                        .scratch = scratch};
        p.right = way ? kn : nk;
        p.ld = way ? ld_kn : ld_nk;
        if (way == 2) p.decay = decay;
        for (size_t i = 0; i < rows * ldc; i++) c[i] = 7.0f;
        for (size_t i = 0; i < rows; i += 16) { /* groups of 16 may be packed apart */
            void *out = packed + lc_left_floats(i, k);
            size_t n = rows - i < 16 ? rows - i : 16;
            (way ? path->pack_kn : path->pack_nk)(n, k, left + i * k, k, out);
        }
        (way ? path->multiply_kn : path->multiply_nk)(&p);
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < ldc; j++) {
                float want = j < columns ? dot_reference(a + i * kp, right + j * kp, 1, kp) : 7.0f;
                if (way == 2 && j < columns)
                    want = decay[i] < 0 ? 7.0f : fmaf(7.0f, decay[i], want);
                if (memcmp(&want, &c[i * ldc + j], 4))
                    fail_msg("%s %s: %zu x %zu x %zu: [%zu][%zu] is %a, not %a", path->name,
                             way == 2 ? "kn with decay"
                             : way    ? "kn"
                                      : "nk",
                             rows, k, columns, i, j, (double)c[i * ldc + j], (double)want);
            }
    }
    free(left), free(packed), free(c), free(right), free(a), free(nk), free(kn), free(scratch);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { EVERY = 7 }; /* slow there, and looked at for memory only: a part of the shapes */
#else
enum { EVERY = 1 };
#endif

static void check_products(const lc_kernels *k) {
    static const size_t rows[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 75};
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
            k->decode(&row, got);
            for (size_t i = 0; i < n; i++) {
                size_t g = i / size;
                int code = kind == LC_CODES_U4   ? codes[i / 2] >> 4 * (i % 2) & 15
                           : kind == LC_CODES_U8 ? codes[i]
                                                 : (int8_t)codes[i];
                float want = fmaf((float)code - zeros[g], scales[g], biases[g]);
                assert_memory_equal(&got[i], &want, sizeof want);
            }
            assert_true(got[n] == 7.0f);
            free(codes);
        }
}

/* A block against the formulas, of rows in any state. */
static void check_softmax(const lc_kernels *k, size_t rows, size_t n, size_t lo, size_t hi) {
    static float scores[40 * 70], got[40 * 70], want[70];
    float max[40], sum[40], alpha[40], old_max[40], old_sum[40];
    const lc_kernels *scalar = lc_kernels_of(LC_ISA_SCALAR);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < n; j++) scores[i * n + j] = random_value() * 9;
        max[i] = old_max[i] = i % 4 ? random_value() : -INFINITY;
        sum[i] = old_sum[i] = i % 4 ? 1.5f : 0.0f;
    }
    memcpy(got, scores, sizeof got);
    k->softmax_block(&(lc_softmax_block){rows, n, got, 0.3f, lo, hi, max, sum, alpha});
    for (size_t i = 0; i < rows; i++) {
        float most = old_max[i], block_sum;
        for (size_t j = 0; j < n; j++) {
            want[j] = j >= lo && j < hi ? scores[i * n + j] * 0.3f : -INFINITY;
            if (want[j] > most) most = want[j];
        }
        scalar->exp_sum(n, want, most, want);
        block_sum = lane_sum_reference(want, n, false);
        float drop = old_max[i] - most, decay;
        scalar->exp_sum(1, &drop, 0.0f, &decay);
        block_sum = fmaf(old_sum[i], decay, block_sum);
        assert_memory_equal(want, got + i * n, n * sizeof *want);
        assert_true(max[i] == most);
        assert_memory_equal(&alpha[i], &decay, sizeof decay);
        assert_memory_equal(&sum[i], &block_sum, sizeof block_sum);
    }
}

static void check_attention_rows(const lc_kernels *k) {
    static const size_t shapes[][4] = {{1, 64, 0, 64},  {16, 64, 0, 64}, {17, 64, 5, 64},
                                       {33, 64, 0, 19}, {5, 64, 30, 31}, {40, 70, 16, 65},
                                       {3, 7, 2, 6},    {2, 16, 15, 16}};
    static float x[9 * 150], w[9], y[150];
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_softmax(k, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
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

static void best_passes_the_self_test(void **unused) {
    (void)unused;
    lc_isa dropped;
    const lc_kernels *k = lc_kernels_best((lc_isa)(LC_ISA_COUNT - 1), &dropped);
    assert_non_null(k);
    assert_int_equal(dropped, LC_ISA_COUNT);
    assert_int_equal(lc_kernels_best(LC_ISA_SCALAR, NULL)->isa, LC_ISA_SCALAR);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar_is_the_written_order),
        cmocka_unit_test(avx2_is_the_written_order),
        cmocka_unit_test(avx512_is_the_written_order),
        cmocka_unit_test(avx512bf16_is_the_written_order),
        cmocka_unit_test(amx_is_the_written_order),
        cmocka_unit_test(neon_is_the_written_order),
        cmocka_unit_test(best_passes_the_self_test),
    };
    return test_main(tests);
}
