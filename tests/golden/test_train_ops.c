/*
 * test_train_ops.c: gradients and losses of single operations against
 * tests/golden/model/ops (ops.json says what each entry is), on every instruction set. The head and
 * the router get the identity as weight, so the gradient of their input is that of the logits.
 *
 * Floats are compared at a few units of fp32: |got - want| <= 2e-6 |want| + absolute, the absolute
 * part where a difference of larger numbers is taken.
 */
#include "golden.h"

#include "train/experts.h"
#include "train/head.h"

static golden ops;
static unsigned values;

static void compare(const char *name, const float *got, double absolute) {
    const lc_tensor *want = golden_get(&ops, name);
    for (size_t i = 0; i < want->count; i++, values++) {
        double w = golden_number(want, i), d = fabs((double)got[i] - w);
        if (!(d <= 2e-6 * fabs(w) + absolute))
            fail_msg("%s[%zu] is %.9g, expected %.9g", name, i, (double)got[i], w);
    }
}

enum { MOST = 256 };

typedef struct bench {
    lc_tape tape;
    lc_space space;
    float *scratch[1];
    float *owned[64];
    size_t n_owned;
} bench;

static float *own(bench *b, float *x) {
    assert_true(x && b->n_owned < sizeof b->owned / sizeof *b->owned);
    return b->owned[b->n_owned++] = x;
}
static float *zeros(bench *b, size_t n) { return own(b, lc_calloc(n + 64, sizeof(float))); }
static float *floats(bench *b, const char *name) {
    return own(b, golden_floats(golden_get(&ops, name)));
}

static void bench_open(bench *b, const lc_kernels *k) {
    *b = (bench){0};
    b->scratch[0] = zeros(b, MOST);
    b->tape = (lc_tape){.space = &b->space, .grad = zeros(b, 1 << 16)};
    for (int i = 0; i < LC_NORMS; i++) b->tape.rates[i] = zeros(b, MOST);
    b->tape.sums = (double *)(void *)zeros(b, 4 * MOST);
    b->tape.op = (lc_op){.k = k, .path = &k->f32, .scratch = b->scratch};
    b->tape.exact = b->tape.op;
}

static void bench_close(bench *b) {
    for (size_t i = 0; i < b->n_owned; i++) lc_free(b->owned[i]);
    lc_space_free(&b->space);
}

/* An identity matrix as weight. */
static lc_weight identity(bench *b, size_t n) {
    const lc_gemm_path *path = b->tape.op.path;
    float *ones = zeros(b, n * n);
    for (size_t i = 0; i < n; i++) ones[i * n + i] = 1;
    lc_weight w = {.rows = n,
                   .cols = n,
                   .values = ones,
                   .forward = zeros(b, lc_weight_forward_bytes(path, n, n) / sizeof(float)),
                   .back = zeros(b, lc_weight_back_bytes(path, n, n) / sizeof(float))};
    lc_weight_pack_forward(path, &w, 0, n);
    lc_weight_pack_back(path, &w, 0, n);
    return w;
}

#define EACH_SET(b)                                                                                \
    for (int isa = 0; isa < LC_ISA_COUNT; isa++)                                                   \
        if (lc_kernels_of((lc_isa)isa) && (bench_open(b, lc_kernels_of((lc_isa)isa)), true))

static void test_rms_norm(void **unused) {
    (void)unused;
    bench b;
    EACH_SET(&b) {
        for (int i = 0; i < 2; i++) {
            const lc_tensor *x = golden_get(&ops, "rms_norm.x");
            size_t m = x->shape[0], n = x->shape[1];
            lc_weight w = {.rows = 1, .cols = n, .values = floats(&b, "rms_norm.w")};
            lc_norm_pass pass = {&w, m, i ? 1e-6f : 1e-5f, 1.0f, floats(&b, "rms_norm.x"), n};
            float *dx = zeros(&b, m * n);
            memset(b.tape.grad, 0, n * sizeof *b.tape.grad);
            lc_norm_back(&b.tape, &pass, floats(&b, "rms_norm.dy"), n, dx, n);
            /* rows of very different size: each by its own largest gradient */
            const lc_tensor *want = golden_get(&ops, i ? "rms_norm.1e-06.dx" : "rms_norm.1e-05.dx");
            for (size_t r = 0; r < m; r++) {
                double most = 0;
                for (size_t j = 0; j < n; j++)
                    most = fmax(most, fabs(golden_number(want, r * n + j)));
                for (size_t j = 0; j < n; j++, values++)
                    assert_true(fabs((double)dx[r * n + j] - golden_number(want, r * n + j)) <=
                                2e-6 * most);
            }
            compare(i ? "rms_norm.1e-06.dw" : "rms_norm.1e-05.dw", b.tape.grad, 2e-6);
        }
        bench_close(&b);
    }
    printf("# rms_norm: %u values\n", values);
}

static void test_swiglu(void **unused) {
    (void)unused;
    bench b;
    EACH_SET(&b) {
        float *gate = floats(&b, "swiglu.gate"), *up = floats(&b, "swiglu.up");
        size_t n = golden_get(&ops, "swiglu.gate")->count;
        b.tape.op.k->swiglu_gradient(n, floats(&b, "swiglu.dy"), gate, up);
        compare("swiglu.dgate", gate, 1e-6);
        compare("swiglu.dup", up, 1e-6);
        bench_close(&b);
    }
    printf("# swiglu: %u values\n", values);
}

static void test_cross_entropy(void **unused) {
    (void)unused;
    bench b;
    EACH_SET(&b) {
        lc_err err = {0};
        const lc_tensor *mask = golden_get(&ops, "cross_entropy.mask");
        size_t m = mask->count, vocab = golden_get(&ops, "cross_entropy.logits")->shape[1];
        int32_t *targets = golden_ids(golden_get(&ops, "cross_entropy.target"));
        double count = 0, sum = 0;
        for (size_t i = 0; i < m; i++) {
            if (golden_number(mask, i) == 0)
                targets[i] = -1;
            else
                count++;
        }
        lc_weight w = identity(&b, vocab);
        size_t chunk = lc_head_chunk(vocab), list[MOST];
        assert_true(m <= MOST && vocab * vocab <= 1 << 16);
        lc_head_pass pass = {&w,
                             m,
                             floats(&b, "cross_entropy.logits"),
                             targets,
                             (float)(1 / (count + 1e-10)),
                             zeros(&b, chunk * vocab),
                             zeros(&b, chunk * vocab),
                             zeros(&b, chunk * vocab),
                             list};
        float *d = zeros(&b, m * vocab), loss;
        assert_ok(lc_head_run(&b.tape, &pass, d, &sum, &err), err);
        loss = (float)(sum / (count + 1e-10));
        compare("cross_entropy.loss", &loss, 0);
        compare("cross_entropy.dlogits", d, 1e-8);
        lc_free(targets);
        bench_close(&b);
    }
    printf("# cross_entropy: %u values\n", values);
}

enum { EXPERTS = 8, ENTRIES = 12, TOPK = 3, TOKENS = 20, FFN = 1 };

/* The router with the identity as weight, and experts that give nothing. */
static void router_back(bench *b, lc_router_weights losses, double *balance, double *z,
                        float *dlogits) {
    lc_err err = {0};
    lc_moe_shape shape = {ENTRIES, FFN, EXPERTS, ENTRIES - EXPERTS, TOPK, 6.0f, true};
    lc_ffn_net experts[EXPERTS];
    float *nothing = zeros(b, 64 * 64); /* weights of zeros, packed by any path */
    for (int e = 0; e < EXPERTS; e++) {
        experts[e].gate = experts[e].up = (lc_weight){FFN, ENTRIES, NULL, nothing, nothing, 1024};
        experts[e].down = (lc_weight){ENTRIES, FFN, NULL, nothing, nothing, 2048};
    }
    lc_moe_net w = {identity(b, ENTRIES), floats(b, "balance.bias"), experts};
    int32_t ids[TOKENS * TOPK], choices[TOKENS * TOPK], place[TOKENS * TOPK];
    size_t first[EXPERTS + 1];
    int64_t counts[ENTRIES] = {0};
    lc_matmul products[6 * EXPERTS];
    size_t n = TOKENS * TOPK;
    lc_moe_state s = {.probs = zeros(b, TOKENS * ENTRIES),
                      .lse = zeros(b, TOKENS),
                      .ids = ids,
                      .weights = zeros(b, n),
                      .first = first,
                      .choices = choices,
                      .place = place,
                      .shares = zeros(b, ENTRIES),
                      .gate = zeros(b, n),
                      .up = zeros(b, n),
                      .logits = zeros(b, TOKENS * ENTRIES),
                      .dweights = zeros(b, n),
                      .x = zeros(b, n * ENTRIES),
                      .y = zeros(b, n * ENTRIES),
                      .act = zeros(b, n),
                      .dact = zeros(b, n),
                      .products = products};
    const float *u = floats(b, "balance.logits");
    float *out = zeros(b, TOKENS * ENTRIES);
    assert_ok(lc_moe_run(&b->tape, &shape, &w, TOKENS, u, &s, counts, out, &err), err);
    lc_balance_shares(&shape, counts, TOKENS, (lc_balance_form){0, 2}, s.shares);
    lc_router_losses(&b->tape, &shape, TOKENS, &s, balance, z);
    memset(out, 0, TOKENS * ENTRIES * sizeof *out);
    assert_ok(lc_moe_back(&b->tape, &shape, &w, TOKENS, u, &s, losses, out, dlogits, &err), err);
}

static void test_router_losses(void **unused) {
    (void)unused;
    bench b;
    EACH_SET(&b) {
        double balance = 0, z = 0, again = 0;
        float *d = zeros(&b, TOKENS * ENTRIES), *dz = zeros(&b, TOKENS * ENTRIES);
        router_back(&b, (lc_router_weights){1.0f / TOKENS, 0}, &balance, &z, d);
        router_back(&b, (lc_router_weights){0, 1.0f / TOKENS}, &again, &again, dz);
        float loss[2] = {(float)(balance / TOKENS), (float)(z / TOKENS)};
        compare("balance.loss", &loss[0], 0);
        compare("balance.router_z", &loss[1], 0);
        compare("balance.dlogits", d, 1e-8);
        compare("balance.router_z_dlogits", dz, 1e-8);
        bench_close(&b);
    }
    printf("# balance and router z: %u values\n", values);
}

/* The device level of spec 5.2, written as it stands there: sum over groups of f_j P_j. */
static void test_balance_of_groups(void **unused) {
    (void)unused;
    enum { E = 12, Z = 4, T = 50, D = 3, K = 6, KE = 4 };
    static float p[T][E + Z];
    float shares[E + Z];
    int64_t counts[E + Z];
    lc_moe_shape shape = {.experts = E, .zero_experts = Z, .topk = K};
    for (size_t i = 0; i < T; i++) {
        float sum = 0;
        for (size_t e = 0; e < E + Z; e++) sum += p[i][e] = (float)((i * 7 + e * e * 3) % 11 + 1);
        for (size_t e = 0; e < E + Z; e++) p[i][e] /= sum;
    }
    for (size_t e = 0; e < E + Z; e++) counts[e] = (int64_t)(e * 5 % 7 + 10);
    double want = 0, got = 0;
    for (size_t j = 0; j <= D; j++) {
        size_t begin = j * (E / D), end = j < D ? begin + E / D : E + Z;
        double f = 0, mass = 0;
        for (size_t e = begin; e < end; e++) f += (double)counts[e];
        f *= j < D ? (double)D / (KE * T) : 1.0 / ((K - KE) * T);
        for (size_t i = 0; i < T; i++)
            for (size_t e = begin; e < end; e++) mass += (double)p[i][e];
        want += f * mass / T;
    }
    lc_balance_shares(&shape, counts, T, (lc_balance_form){D, KE}, shares);
    for (size_t i = 0; i < T; i++)
        for (size_t e = 0; e < E + Z; e++) got += (double)shares[e] * (double)p[i][e] / T;
    assert_true(fabs(got - want) < 0x1p-23 * want); /* shares are floats: half a unit each */
}

static void test_hidden_z(void **unused) {
    (void)unused;
    bench b;
    EACH_SET(&b) {
        const lc_tensor *z = golden_get(&ops, "hidden_z.z");
        size_t m = z->shape[0], n = z->shape[1];
        float *dz = zeros(&b, m * n), loss;
        double sum = 0;
        lc_hidden_z(&b.tape, m, n, floats(&b, "hidden_z.z"), 1.0f / (float)m, dz, &sum);
        loss = (float)(sum / (double)m);
        compare("hidden_z.loss", &loss, 0);
        compare("hidden_z.dz", dz, 1e-8);
        bench_close(&b);
    }
    printf("# hidden_z: %u values\n", values);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rms_norm),          cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_cross_entropy),     cmocka_unit_test(test_router_losses),
        cmocka_unit_test(test_balance_of_groups), cmocka_unit_test(test_hidden_z),
    };
    golden_open_tensors(&ops, "tests/golden/model/ops/ops.safetensors");
    uint64_t fp = lc_fp_enter();
    int failed = test_main(tests);
    lc_fp_leave(fp);
    golden_close(&ops);
    return failed;
}
