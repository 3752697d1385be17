/* kernels.c: which table runs. A path is used only after it has shown the scalar one's bits on this
 * machine; of those with equal bits, the fastest is used. */
#include "kernels/kernels.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "kernels/coded.h"

#include <pthread.h>
#include <string.h>

extern const lc_kernels lc_kernels_scalar;
#if defined(__x86_64__)
extern const lc_kernels lc_kernels_avx2, lc_kernels_avx512, lc_kernels_avx512bf16, lc_kernels_amx;
#elif defined(__aarch64__)
extern const lc_kernels lc_kernels_neon, lc_kernels_neonbf16;
#endif

/* The tables with the coded path that this processor's features allow. Filled once by make_tables,
 * constant afterwards. */
static struct {
    pthread_once_t once;
    lc_kernels of[LC_ISA_COUNT];
} tables = {.once = PTHREAD_ONCE_INIT};

static void make_tables(void) {
    static const lc_kernels *const built[] = {
        &lc_kernels_scalar,
#if defined(__x86_64__)
        &lc_kernels_avx2,
        &lc_kernels_avx512,
        &lc_kernels_avx512bf16,
        &lc_kernels_amx,
#elif defined(__aarch64__)
        &lc_kernels_neon,
        &lc_kernels_neonbf16,
#endif
    };
    for (size_t i = 0; i < sizeof built / sizeof *built; i++) {
        lc_kernels *table = &tables.of[built[i]->isa];
        *table = *built[i];
        table->coded = *lc_coded_path_of(table->isa);
    }
}

const lc_kernels *lc_kernels_of(lc_isa isa) {
    if (!lc_cpu_has(isa)) return NULL;
    pthread_once(&tables.once, make_tables);
    return tables.of[isa].max ? &tables.of[isa] : NULL; /* NULL: not built in */
}

enum { TEST_ROWS = 37, TEST_K = 96, TEST_N = 40, TEST_ELEMENTS = 61, TEST_F8_ROWS = 5 };

/* Numbers over a wide range of exponents, both signs, some zeros and denormals. */
static float test_value(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    uint32_t bits = (*state & 0x807fffffu) | ((*state >> 9 & 0x3fu) + 96u) << 23;
    if ((*state >> 3 & 63u) == 0) bits &= 0x800fffffu;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Results of all kernels on the same inputs. */
typedef struct test_result {
    float product[8][TEST_ROWS][TEST_N]; /* nk, kn, turned, gated in fp32; the same in BF16 */
    float norm[TEST_ELEMENTS], exp[TEST_ELEMENTS], swiglu[TEST_ELEMENTS], rounded[TEST_ELEMENTS];
    float acc[2][TEST_ELEMENTS], sum, max;
    float joined[2][TEST_ROWS][TEST_N]; /* kn with decay, in fp32 and BF16 */
    float strips[TEST_ROWS][TEST_N];
    float relu[TEST_N], probs[2][LC_LANES * TEST_N], state[2][3][LC_LANES]; /* rows, turned */
    uint32_t order[TEST_ELEMENTS], kept[TEST_ELEMENTS + 1];
    int32_t picked[TEST_ELEMENTS + 1];
    float decoded[LC_CODE_KINDS][TEST_ELEMENTS];
    float coded[3][2][TEST_ROWS][TEST_N]; /* kinds; by row, by column */
    uint16_t narrow[TEST_ELEMENTS + 1], halves[LC_CODE_KINDS][TEST_ELEMENTS + 1];
    uint16_t f8[TEST_F8_ROWS][256];
    float gradient[7][TEST_ELEMENTS], dot, rate, turned[TEST_K][TEST_ROWS];
} test_result;

typedef struct test_input {
    float left[TEST_ROWS][TEST_K], right[TEST_K][TEST_K], x[TEST_K], small[TEST_K];
    uint16_t right_bf16[TEST_K][TEST_K];
    uint8_t codes[256 + TEST_F8_ROWS];
    int16_t zeros[TEST_N * TEST_K / LC_K_BLOCK];
    _Alignas(64) float packed[TEST_ROWS * TEST_K], hidden[TEST_ROWS * LC_K_BLOCK];
    _Alignas(64) char scratch[]; /* as the path needs */
} test_input;

/* What multiply_turned gives, as rows; without one, what multiply_nk gives. */
static void run_turned(const lc_gemm_path *path, lc_product p, test_input *in,
                       float c[TEST_ROWS][TEST_N]) {
    float turned[(TEST_ROWS + LC_LANES - 1) / LC_LANES][TEST_N][LC_LANES];
    p.c = path->multiply_turned ? turned[0][0] : c[0];
    if (path->multiply_turned) path->pack_lanes(TEST_ROWS, TEST_K, in->left[0], TEST_K, in->packed);
    (path->multiply_turned ? path->multiply_turned : path->multiply_nk)(&p);
    for (int i = 0; i < TEST_ROWS && path->multiply_turned; i++)
        for (int j = 0; j < TEST_N; j++) c[i][j] = turned[i / LC_LANES][j][i % LC_LANES];
}

/* A product of what multiply_gated gives for p's rows (gate, then up); without one, of the same in
 * steps. */
static void run_gated(const lc_kernels *k, const lc_gemm_path *path, lc_product p, test_input *in,
                      float c[TEST_ROWS][TEST_N]) {
    enum { WIDTH = LC_K_BLOCK };
    float gate[TEST_ROWS * WIDTH], up[TEST_ROWS * WIDTH];
    lc_gated g = {.gate = p, .hidden = in->hidden, .width = WIDTH};
    g.gate.columns = WIDTH;
    g.up = (const char *)p.right + WIDTH * p.ld * path->element;
    if (path->multiply_gated) {
        path->multiply_gated(&g);
    } else {
        lc_product part = g.gate;
        part.ldc = WIDTH;
        part.c = gate;
        path->multiply_nk(&part);
        part.right = g.up;
        part.c = up;
        path->multiply_nk(&part);
        k->swiglu(TEST_ROWS * WIDTH, gate, up, gate);
        path->pack_nk(TEST_ROWS, WIDTH, gate, WIDTH, in->hidden);
    }
    p.k = WIDTH;
    p.left = in->hidden;
    p.c = c[0];
    path->multiply_nk(&p);
}

static void run_products(const lc_kernels *k, const lc_gemm_path *path, test_input *in,
                         float product[4][TEST_ROWS][TEST_N], float strips[TEST_ROWS][TEST_N],
                         float joined[TEST_ROWS][TEST_N]) {
    bool bf16 = path->element == sizeof(uint16_t);
    lc_product p = {.rows = TEST_ROWS,
                    .k = TEST_K,
                    .columns = TEST_N,
                    .left = in->packed,
                    .right = bf16 ? (const void *)in->right_bf16 : (const void *)in->right,
                    .ld = TEST_K,
                    .ldc = TEST_N,
                    .scratch = in->scratch};
    path->pack_nk(TEST_ROWS, TEST_K, in->left[0], TEST_K, in->packed);
    p.c = product[0][0];
    path->multiply_nk(&p);
    run_gated(k, path, p, in, product[3]);
    run_turned(path, p, in, product[2]);
    path->pack_kn(TEST_ROWS, TEST_K, in->left[0], TEST_K, in->packed);
    p.c = product[1][0];
    path->multiply_kn(&p);
    if (path->multiply_strips) {
        p.c = strips[0];
        path->multiply_strips(&p);
    }
    float decay[TEST_ROWS];
    for (int i = 0; i < TEST_ROWS; i++) {
        memcpy(joined[i], in->right[i], sizeof joined[i]);
        decay[i] = (float)(i % 5 - 1) * 0.3f; /* some negative, some zero */
    }
    p.c = joined[0];
    p.decay = decay;
    lc_product next = p;
    p.then = &next;
    path->multiply_kn(&p);
}

/* As rows, then turned: some rows see all scores, some a part, two none. */
static void run_softmax(const lc_kernels *k, const test_input *in, test_result *out) {
    float lo[LC_LANES], hi[LC_LANES];
    for (int i = 0; i < LC_LANES; i++) {
        lo[i] = (float)(i % 4);
        hi[i] = (float)(i == 5 || i == 6 ? 0 : TEST_N - i % 3);
    }
    for (int turned = 0; turned < 2; turned++) {
        float *x = out->probs[turned];
        float(*state)[LC_LANES] = out->state[turned];
        for (int i = 0; i < LC_LANES; i++) {
            for (int j = 0; j < TEST_N; j++)
                x[turned ? j * LC_LANES + i : i * TEST_N + j] = in->left[i % TEST_ROWS][i + j];
            state[0][i] = i % 3 ? in->small[i] : -__builtin_inff();
            state[1][i] = i % 3 ? 1.0f : 0.0f;
        }
        k->softmax_block(&(lc_softmax_block){LC_LANES, TEST_N, x, turned, 1e-3f, lo, hi, state[0],
                                             state[1], state[2]});
    }
}

static void run_choices(const lc_kernels *k, const test_input *in, test_result *out) {
    enum { N = TEST_ELEMENTS };
    run_softmax(k, in, out);
    k->sum_scaled_relu(TEST_ROWS, TEST_N, in->x, out->product[0][0], out->relu);
    k->order_floats(N, in->x, out->order);
    uint32_t t = out->order[N / 2];
    out->picked[N] = (int32_t)k->pick_above(N, out->order, t, 1, 5, out->picked);
    out->kept[N] = (uint32_t)k->keep_prefix(N, out->order, 24, t >> 24, out->kept);
}

/* Products with codes: groups of 32, or one; the plain zero, or zeros and biases. */
static void run_coded(const lc_coded_path *path, test_input *in, test_result *out) {
    lc_coded_product p = {.rows = TEST_ROWS,
                          .k = TEST_K,
                          .columns = TEST_N,
                          .left = in->packed,
                          .right = {.codes = (const uint8_t *)in->right_bf16,
                                    .size = LC_K_BLOCK,
                                    .scale_type = LC_SCALES_BF16,
                                    .scales = in->right_bf16[1],
                                    .scale_row = TEST_K / LC_K_BLOCK,
                                    .scale_group = 1,
                                    .zero = 8},
                          .ldc = TEST_N,
                          .scratch = in->scratch};
    for (int kind = LC_CODES_U4; kind <= LC_CODES_I8; kind++) {
        p.right.kind = (lc_code_kind)kind;
        p.right.layout = LC_CODES_BY_ROW;
        p.right.stride = kind == LC_CODES_U4 ? TEST_K / 2 : TEST_K;
        p.right.zeros = NULL;
        p.right.biases = NULL;
        p.c = out->coded[kind][0][0];
        path->pack(p.right.kind, p.right.size, TEST_ROWS, TEST_K, in->left[0], TEST_K, in->packed);
        path->multiply(&p);
        p.right.layout = LC_CODES_BY_COLUMN;
        p.right.stride = 4 * TEST_N;
        p.right.zeros = in->zeros;
        p.right.biases = in->right_bf16[3];
        p.c = out->coded[kind][1][0];
        path->multiply(&p);
    }
}

static void run_gradients(const lc_kernels *k, const test_input *in, test_result *out) {
    enum { N = TEST_ELEMENTS };
    lc_norm_gradient norm = {.n = N,
                             .x = in->small,
                             .w = in->left[0],
                             .dy = in->x,
                             .eps = 1e-5f,
                             .scale = 1.5f,
                             .dx = out->gradient[0]};
    for (int i = 0; i < 7; i++) memcpy(out->gradient[i], in->left[i], sizeof out->gradient[i]);
    out->dot = k->dot(N, in->x, in->left[0]);
    out->rate = k->norm_gradient(&norm);
    memcpy(out->gradient[1], in->small, sizeof out->gradient[1]);
    k->swiglu_gradient(N, in->x, out->gradient[1], out->gradient[2]);
    k->softmax_gradient(N, in->x, 0.7f, 0.3f, out->gradient[3]);
    k->scale_chosen(N, 0.3f, (const uint8_t *)in->zeros, out->gradient[4]);
    k->relu_gradient(N, 0.3f, in->x, out->gradient[5], out->gradient[6]);
    k->transpose(TEST_ROWS, TEST_K, in->left[0], TEST_K, out->turned[0], TEST_ROWS);
}

static void run_all(const lc_kernels *k, test_input *in, test_result *out) {
    uint32_t state = 12345;
    enum { N = TEST_ELEMENTS };
    for (int i = 0; i < TEST_ROWS; i++)
        for (int j = 0; j < TEST_K; j++) in->left[i][j] = test_value(&state);
    for (int i = 0; i < TEST_K; i++) {
        for (int j = 0; j < TEST_K; j++) in->right[i][j] = test_value(&state);
        k->narrow_bf16(TEST_K, in->right[i], in->right_bf16[i]);
        in->x[i] = test_value(&state);
        in->small[i] = (float)(i - 40) * 2.7f;
    }
    for (int i = 0; i < 256 + TEST_F8_ROWS; i++) in->codes[i] = (uint8_t)(89 * i);
    memset(out, 0, sizeof *out);
    run_products(k, &k->f32, in, out->product, out->strips, out->joined[0]);
    run_products(k, &k->bf16, in, out->product + 4, out->strips, out->joined[1]);
    k->rms_norm(N, in->x, in->left[0], 1e-5f, out->norm);
    out->max = k->max(N, in->x);
    out->sum = k->exp_sum(N, in->small, 3.0f, out->exp);
    k->swiglu(N, in->small, in->x, out->swiglu);
    k->round_bf16(N, in->x, out->rounded);
    k->narrow_bf16(N, in->x, out->narrow);
    for (int kind = 0; kind < LC_CODE_KINDS; kind++) {
        bool group = kind <= LC_CODES_I8;
        lc_coded_row row = {
            in->codes,   (lc_code_kind)kind,        N, 24, group ? in->left[1] : NULL,
            in->left[2], group ? in->left[3] : NULL};
        k->decode(&row, out->decoded[kind]);
        k->decode_bf16(&row, out->halves[kind]);
    }
    k->decode_f8_rows(&(lc_f8_rows){TEST_F8_ROWS, 251, in->codes, 1, in->left[2], out->f8[0], 256});
    for (int i = 0; i < TEST_N * TEST_K / LC_K_BLOCK; i++) in->zeros[i] = (int16_t)(i % 16);
    run_coded(&k->coded, in, out);
    for (int i = 0; i < 2; i++) memcpy(out->acc[i], in->left[i], sizeof out->acc[i]);
    k->scale_add(N, 0.3f, 1.7f, in->x, out->acc[0]);
    k->add_scaled(N, 0.3f, in->x, out->acc[1]);
    run_choices(k, in, out);
    run_gradients(k, in, out);
}

static size_t test_scratch(const lc_kernels *k) {
    size_t a = k->f32.scratch_bytes(TEST_ROWS, TEST_K),
           b = k->bf16.scratch_bytes(TEST_ROWS, TEST_K),
           c = k->coded.scratch_bytes(TEST_ROWS, TEST_K, LC_K_BLOCK);
    a = a > b ? a : b;
    return a > c ? a : c;
}

typedef enum self_test { PASSED, FAILED, NO_MEMORY } self_test;

static self_test equal_bits(const lc_kernels *k) {
    const lc_kernels *scalar = lc_kernels_of(LC_ISA_SCALAR);
    size_t a = test_scratch(scalar), b = test_scratch(k);
    test_input *in = lc_calloc(1, sizeof *in + (a > b ? a : b));
    test_result *want = lc_calloc(2, sizeof *want), *got = want ? want + 1 : NULL;
    self_test result = NO_MEMORY;
    if (in && want) {
        uint64_t fp = lc_fp_enter();
        run_all(scalar, in, want);
        run_all(k, in, got);
        lc_fp_leave(fp);
        result = memcmp(want, got, sizeof *want) == 0 ? PASSED : FAILED;
    }
    lc_free(in);
    lc_free(want);
    return result;
}

/* With too little memory for the test the scalar kernels serve. */
const lc_kernels *lc_kernels_best(lc_isa cap, lc_isa *dropped) {
    if (dropped) *dropped = LC_ISA_COUNT;
    for (int isa = (int)cap; isa > LC_ISA_SCALAR; isa--) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        if (equal_bits(k) == PASSED) return k;
        if (dropped) *dropped = (lc_isa)isa;
    }
    return lc_kernels_of(LC_ISA_SCALAR);
}

/* ---- the fastest way to BF16 products ---- */

enum { TIMED_K = 256, TIMED_COLUMNS = 128, TIMED_ROWS = 64, TIMED_RUNS = 3 };

typedef struct timed_input {
    float left[TIMED_ROWS * TIMED_K], packed[TIMED_ROWS * TIMED_K], c[TIMED_ROWS * TIMED_COLUMNS];
    uint16_t right[TIMED_COLUMNS * TIMED_K];
} timed_input;

/* The shortest of a few runs after a first one that wakes the units up. */
static double time_rows(const lc_gemm_path *path, timed_input *in, void *scratch, size_t rows) {
    lc_product p = {.rows = rows,
                    .k = TIMED_K,
                    .columns = TIMED_COLUMNS,
                    .left = in->packed,
                    .right = in->right,
                    .ld = TIMED_K,
                    .c = in->c,
                    .ldc = TIMED_COLUMNS,
                    .scratch = scratch};
    double best = 1e9;
    path->pack_nk(rows, TIMED_K, in->left, TIMED_K, in->packed);
    for (int run = 0; run <= TIMED_RUNS; run++) {
        uint64_t begin = lc_clock_ns();
        path->multiply_nk(&p);
        double seconds = (double)(lc_clock_ns() - begin + 1) / 1e9;
        if (run && seconds < best) best = seconds;
    }
    return best;
}

/* A step of one token and a prompt count alike. 0: no memory. */
static double time_path(const lc_gemm_path *path, timed_input *in) {
    void *scratch = lc_calloc(1, path->scratch_bytes(TIMED_ROWS, TIMED_K));
    if (!scratch) return 0;
    double seconds = time_rows(path, in, scratch, 1) * time_rows(path, in, scratch, TIMED_ROWS);
    lc_free(scratch);
    return seconds;
}

/* The best table, with the BF16 products of any other one that is faster. A measurement is noisy:
 * a lower set must win clearly. false: no memory. */
static bool choose(lc_kernels *out, lc_isa *dropped, timed_input *in) {
    double best = 0;
    *dropped = LC_ISA_COUNT;
    *out = *lc_kernels_of(LC_ISA_SCALAR);
    for (int isa = LC_ISA_COUNT - 1; isa > LC_ISA_SCALAR; isa--) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        self_test test = equal_bits(k);
        if (test == NO_MEMORY) return false;
        if (test == FAILED) {
            *dropped = (lc_isa)isa;
            continue;
        }
        double seconds = time_path(&k->bf16, in);
        if (seconds == 0) return false;
        if (out->isa == LC_ISA_SCALAR)
            *out = *k;
        else if (seconds < 0.8 * best)
            out->bf16 = k->bf16;
        else
            continue;
        best = seconds;
    }
    return true;
}

const lc_kernels *lc_kernels_fastest(lc_isa *dropped) {
    /* Filled once, constant afterwards. */
    static struct {
        pthread_mutex_t lock;
        bool done;
        lc_isa dropped;
        lc_kernels table;
    } chosen = {.lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_mutex_lock(&chosen.lock);
    if (!chosen.done) {
        timed_input *in = lc_calloc(1, sizeof *in);
        uint64_t fp = lc_fp_enter();
        chosen.done = in && choose(&chosen.table, &chosen.dropped, in);
        lc_fp_leave(fp);
        lc_free(in);
    }
    bool done = chosen.done;
    pthread_mutex_unlock(&chosen.lock);
    if (dropped) *dropped = done ? chosen.dropped : LC_ISA_COUNT;
    return done ? &chosen.table : lc_kernels_of(LC_ISA_SCALAR);
}

int lc_kernels_named(const char *isa, const lc_kernels **out, lc_err *err) {
    lc_isa cap = (lc_isa)(LC_ISA_COUNT - 1), dropped;
    if (isa && !lc_isa_from_name(isa, &cap))
        return lc_fail(err, LC_EINVAL,
                       "instruction set \"%s\" is unknown: scalar, neon, neonbf16, avx2, avx512, "
                       "avx512bf16 or amx",
                       isa);
    if (isa && !lc_kernels_of(cap))
        return lc_fail(err, LC_EUNSUPPORTED, "this machine has no %s", isa);
    *out = isa ? lc_kernels_best(cap, &dropped) : lc_kernels_fastest(&dropped);
    if (dropped != LC_ISA_COUNT)
        lc_log(LC_LOG_WARN, "%s gives other bits than the reference on this machine: using %s",
               lc_isa_name(dropped), lc_isa_name((*out)->isa));
    return LC_OK;
}
