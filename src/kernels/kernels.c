/* kernels.c: which table runs. A path is used only after it has shown the scalar one's bits on this
 * machine. */
#include "kernels/kernels.h"

#include <string.h>

extern const lc_kernels lc_kernels_scalar;
#if defined(__x86_64__)
extern const lc_kernels lc_kernels_avx2, lc_kernels_avx512;
#elif defined(__aarch64__)
extern const lc_kernels lc_kernels_neon;
#endif

const lc_kernels *lc_kernels_of(lc_isa isa) {
    if (!lc_cpu_has(isa)) return NULL;
    switch (isa) {
    case LC_ISA_SCALAR: return &lc_kernels_scalar;
#if defined(__x86_64__)
    case LC_ISA_AVX2: return &lc_kernels_avx2;
    case LC_ISA_AVX512: return &lc_kernels_avx512;
#elif defined(__aarch64__)
    case LC_ISA_NEON: return &lc_kernels_neon;
#endif
    default: return NULL;
    }
}

enum { TEST_ROWS = 9, TEST_K = 64 };

/* Numbers over a wide range of exponents, both signs, some zeros and denormals. */
static float test_value(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    uint32_t bits = (*state & 0x807fffffu) | ((*state >> 9 & 0x3fu) + 96u) << 23;
    if ((*state >> 3 & 63u) == 0) bits &= 0x800fffffu;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Runs every kernel on the same inputs and stores all results behind each other. */
typedef struct test_result {
    float gemm[TEST_ROWS][LC_LANES], norm[TEST_K - 3], exp[TEST_K - 3], swiglu[TEST_K - 3],
        rounded[TEST_K - 3];
    float acc[3][TEST_K - 3], sum, max;
    uint16_t narrow[TEST_K - 3];
    uint16_t pad;
} test_result;

static void run_all(const lc_kernels *k, test_result *out) {
    float a[TEST_ROWS][TEST_K], panel[TEST_K][LC_LANES], x[TEST_K], small[TEST_K];
    uint32_t state = 12345;
    enum { N = TEST_K - 3 };
    for (int i = 0; i < TEST_ROWS; i++)
        for (int j = 0; j < TEST_K; j++) a[i][j] = test_value(&state);
    for (int i = 0; i < TEST_K; i++) {
        for (int j = 0; j < LC_LANES; j++) panel[i][j] = test_value(&state);
        x[i] = test_value(&state);
        small[i] = (float)(i - 40) * 2.7f;
    }
    memset(out, 0, sizeof *out);
    lc_gemm g = {TEST_ROWS, TEST_K,       a[0],     TEST_K,  panel[0],
                 LC_LANES,  out->gemm[0], LC_LANES, LC_LANES};
    k->gemm(&g);
    k->rms_norm(N, x, a[0], 1e-5f, out->norm);
    out->max = k->max(N, x);
    out->sum = k->exp_sum(N, small, 3.0f, out->exp);
    k->swiglu(N, small, x, out->swiglu);
    k->round_bf16(N, x, out->rounded);
    k->narrow_bf16(N, x, out->narrow);
    for (int i = 0; i < 3; i++) memcpy(out->acc[i], a[i], sizeof out->acc[i]);
    k->scale_add(N, 0.3f, 1.7f, x, out->acc[0]);
    k->add_scaled(N, 0.3f, x, out->acc[1]);
    k->add_scaled_relu(N, 0.3f, x, out->acc[2]);
}

static bool equal_bits(const lc_kernels *k) {
    test_result want, got;
    uint64_t fp = lc_fp_enter();
    run_all(&lc_kernels_scalar, &want);
    run_all(k, &got);
    lc_fp_leave(fp);
    return memcmp(&want, &got, sizeof want) == 0;
}

const lc_kernels *lc_kernels_best(lc_isa cap, lc_isa *dropped) {
    if (dropped) *dropped = LC_ISA_COUNT;
    for (int isa = (int)cap; isa > LC_ISA_SCALAR; isa--) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        if (equal_bits(k)) return k;
        if (dropped) *dropped = (lc_isa)isa;
    }
    return &lc_kernels_scalar;
}
