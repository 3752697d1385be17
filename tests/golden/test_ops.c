/*
 * test_ops.c: single operations of the forward pass against tests/golden/model/ops (ops.json says
 * what each entry is), on every instruction set of this machine where kernels take part.
 *
 * ops.json states no tolerance. Floats here are compared element by element at a few units of fp32
 * (1.2e-7 relative), as many as the operation has roundings; choices, rows and codes exactly. What
 * belongs to training (gradients, balance and z losses, bias updates, Newton-Schulz) is training's.
 */
#include "golden.h"

#include "base/rng.h"
#include "ops/embed.h"
#include "ops/indexer.h"
#include "ops/moe.h"
#include "ops/rope.h"

#define OPS "tests/golden/model/ops/ops.safetensors"

static golden ops;
static unsigned values; /* compared in the present test */

static const lc_tensor *get(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static const lc_tensor *get(const char *fmt, ...) {
    char name[96];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    return golden_get(&ops, name);
}

/* |got - want| <= relative * |want| + absolute, for every element. */
static void compare(const lc_tensor *want, const float *got, double relative, double absolute) {
    for (size_t i = 0; i < want->count; i++) {
        double w = golden_number(want, i), d = fabs((double)got[i] - w);
        if (!(d <= relative * fabs(w) + absolute))
            fail_msg("%s[%zu] is %.9g, expected %.9g", want->name, i, (double)got[i], w);
        values++;
    }
}

static void compare_exact(const lc_tensor *want, size_t first, const int32_t *got, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (got[i] != (int32_t)golden_number(want, first + i))
            fail_msg("%s[%zu] is %d, expected %d", want->name, first + i, got[i],
                     (int32_t)golden_number(want, first + i));
        values++;
    }
}

static void report(const char *what) {
    printf("# %s: %u values\n", what, values);
    values = 0;
}

/* An operator's context for one instruction set, one thread, fp32. */
typedef struct bench {
    lc_op op;
    float *scratch[1];
} bench;

/* false: this machine lacks it. bench_scratch must follow before operators with scratch. */
static bool bench_open(bench *b, lc_isa isa) {
    const lc_kernels *k = lc_kernels_of(isa);
    if (!k) return false;
    b->scratch[0] = NULL;
    b->op = (lc_op){.k = k, .path = &k->f32, .scratch = b->scratch};
    return true;
}

static void bench_scratch(bench *b, size_t floats) {
    b->scratch[0] = lc_calloc(floats, sizeof(float));
    assert_non_null(b->scratch[0]);
}

static void bench_close(bench *b) { lc_free(b->scratch[0]); }

/* A weight in memory. */
static lc_mat matrix(const float *data, size_t rows, size_t cols) {
    return (lc_mat){.name = "test",
                    .type = LC_F32,
                    .place = LC_PLACE_RESIDENT,
                    .rows = rows,
                    .cols = cols,
                    .data = data};
}

static void test_rms_norm(void **unused) {
    (void)unused;
    float *x = golden_floats(get("rms_norm.x")), *w = golden_floats(get("rms_norm.w"));
    size_t rows = get("rms_norm.x")->shape[0], n = get("rms_norm.x")->shape[1];
    float *y = lc_calloc(rows * n, sizeof *y);
    assert_non_null(y);
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        bench b;
        if (!bench_open(&b, (lc_isa)isa)) continue;
        lc_norm_rows(&b.op, rows, n, x, n, (lc_norm){w, 1e-5f, 1.0f}, y, n);
        compare(get("rms_norm.1e-05.y"), y, 6e-7, 0);
        lc_norm_rows(&b.op, rows, n, x, n, (lc_norm){w, 1e-6f, 1.0f}, y, n);
        compare(get("rms_norm.1e-06.y"), y, 6e-7, 0);
        bench_close(&b);
    }
    lc_free(x);
    lc_free(w);
    lc_free(y);
    report("rms_norm");
}

static void test_swiglu(void **unused) {
    (void)unused;
    const lc_tensor *want = get("swiglu.y");
    float *gate = golden_floats(get("swiglu.gate")), *up = golden_floats(get("swiglu.up"));
    float *y = lc_calloc(want->count, sizeof *y);
    assert_non_null(y);
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        k->swiglu(want->count, gate, up, y);
        compare(want, y, 6e-7, 0);
    }
    lc_free(gate);
    lc_free(up);
    lc_free(y);
    report("swiglu");
}

/* ---- rotary embedding ---- */

static lc_config published(const char *name) {
    char path[96];
    lc_err err = {0};
    lc_config c;
    snprintf(path, sizeof path, "tests/data/configs/%s.json", name);
    assert_ok(lc_config_load(path, &c, &err), err);
    return c;
}

/* ops.json's odd_mscale and odd_span0. */
static lc_config odd_config(bool mscale) {
    lc_config c = {.nope_dim = 128, .rope_dim = 20};
    c.rope = (lc_rope_config){.theta = 3e4,
                              .yarn = true,
                              .factor = 4,
                              .original_positions = 4,
                              .beta_fast = 2,
                              .beta_slow = 2,
                              .mscale = 1,
                              .mscale_all_dim = 1};
    if (mscale)
        c.rope = (lc_rope_config){.theta = 3e4,
                                  .yarn = true,
                                  .factor = 7.5,
                                  .original_positions = 100,
                                  .beta_fast = 32,
                                  .beta_slow = 1,
                                  .mscale = 0.7,
                                  .mscale_all_dim = 1.3};
    return c;
}

/* cos and sin tables of all positions against the entries of that rounding. */
static void check_tables(const lc_config *c, const char *name, const char *rounding) {
    lc_err err = {0};
    lc_rope rope;
    const lc_tensor *cosines = get("rope.%s.cos.%s", name, rounding),
                    *sines = get("rope.%s.sin.%s", name, rounding), *positions;
    positions = get("rope.positions");
    assert_ok(lc_rope_init(&rope, c, &err), err);
    size_t half = c->rope_dim / 2, rows = cosines->shape[0];
    float *cos_got = lc_calloc(rows * half, sizeof(float));
    float *sin_got = lc_calloc(rows * half, sizeof(float));
    assert_true(cos_got && sin_got && cosines->shape[1] == half);
    for (size_t i = 0; i < rows; i++)
        lc_rope_table(&rope, (size_t)golden_number(positions, i), cos_got + i * half,
                      sin_got + i * half);
    /* rounding of cos, of the multiplier and of their product */
    double limit = 3 * 0x1p-24 * (double)rope.multiplier;
    if (rope.multiplier == 1.0f) limit = 0x1p-25; /* half a unit below 1: correctly rounded */
    compare(cosines, cos_got, 0, limit);
    compare(sines, sin_got, 0, limit);
    lc_free(cos_got);
    lc_free(sin_got);
    lc_rope_free(&rope);
}

static void check_rope(const lc_config *c, const char *name, bool exact_too) {
    lc_err err = {0};
    lc_rope rope;
    assert_ok(lc_rope_init(&rope, c, &err), err);
    const lc_tensor *frequency = get("rope.%s.inv_freq", name);
    assert_int_equal(frequency->count, rope.half);
    for (size_t i = 0; i < rope.half; i++) { /* bit by bit */
        float want = (float)golden_number(frequency, i);
        if (memcmp(&want, &rope.frequency[i], sizeof want))
            fail_msg("%s[%zu] is %.9g, expected %.9g", frequency->name, i,
                     (double)rope.frequency[i], (double)want);
        double exact = golden_number(get("rope.%s.inv_freq_f64", name), i);
        if (!(fabs(rope.exact_frequency[i] - exact) <= 1e-14 * exact))
            fail_msg("rope.%s.inv_freq_f64[%zu] is %.17g, expected %.17g", name, i,
                     rope.exact_frequency[i], exact);
        values += 2;
    }
    compare(get("rope.%s.multiplier", name), &rope.multiplier, 0x1p-24, 0);
    float scale = lc_rope_softmax_scale(c);
    compare(get("rope.%s.softmax_scale", name), &scale, 0x1p-24, 0);
    lc_rope_free(&rope);
    check_tables(c, name, "fp32");
    if (!exact_too) return;
    lc_config exact = *c;
    exact.switches.rope_exact_angles = true;
    check_tables(&exact, name, "exact");
}

static void test_rope(void **unused) {
    (void)unused;
    static const char *const members[] = {"flash", "lite", "sparse", "two"};
    for (size_t i = 0; i < 4; i++) {
        lc_config c = published(members[i]);
        check_rope(&c, members[i], true);
    }
    lc_config c = odd_config(true);
    check_rope(&c, "odd_mscale", false);
    c = odd_config(false);
    check_rope(&c, "odd_span0", false);
    report("rope");
}

static void test_rotate(void **unused) {
    (void)unused;
    lc_err err = {0};
    lc_rope rope;
    lc_config c = published("two");
    assert_ok(lc_rope_init(&rope, &c, &err), err);
    const lc_tensor *positions = get("rope.rotate.positions"), *want = get("rope.rotate.y");
    size_t half = rope.half, vectors = want->count / positions->count / (2 * half);
    float *x = golden_floats(get("rope.rotate.x"));
    float *cosines = lc_calloc(half, sizeof *cosines), *sines = lc_calloc(half, sizeof *sines);
    assert_true(cosines && sines);
    for (size_t i = 0; i < positions->count; i++) {
        lc_rope_table(&rope, (size_t)golden_number(positions, i), cosines, sines);
        for (size_t v = 0; v < vectors; v++)
            lc_rope_rotate(half, cosines, sines, x + (i * vectors + v) * 2 * half);
    }
    /* two products and a sum of values of size |x| <= 4: three roundings */
    compare(want, x, 0x1p-24, 4 * 0x1p-23);
    lc_free(x);
    lc_free(cosines);
    lc_free(sines);
    lc_rope_free(&rope);
    report("rotate");
}

/* ---- choices ---- */

static void check_ngram(const char *name, const lc_config *c) {
    const lc_tensor *ids = get("ngram.%s.tokens", name), *want = get("ngram.%s.rows", name);
    size_t tables = lc_config_ngram_tables(c), batch = ids->shape[0], length = ids->shape[1];
    int32_t *tokens = golden_ids(ids);
    assert_int_equal(want->count, tables * batch * length);
    for (size_t i = 0; i < tables; i++) {
        lc_ngram_table table = {0};
        lc_ngram_table_init(&table, c, i);
        for (size_t b = 0; b < batch; b++)
            for (size_t t = 0; t < length; t++) {
                int64_t got = lc_ngram_row(&table, tokens + b * length, t, true, 2);
                compare_exact(want, (i * batch + b) * length + t, &(int32_t){(int32_t)got}, 1);
            }
    }
    lc_free(tokens);
}

static void test_ngram(void **unused) {
    (void)unused;
    lc_config lite = published("lite"), two = published("two");
    lc_config odd = {.vocab = 997, .ngram_order = 7, .ngram_splits = 2, .ngram_ratio = 3.3337};
    check_ngram("lite", &lite);
    check_ngram("two", &two);
    check_ngram("odd", &odd);
    report("ngram rows");
}

/* The router on logits as they are: a unit matrix as classifier gives them back bit by bit. */
static void check_router(const char *name, const char *variant, size_t experts, size_t topk,
                         lc_isa isa) {
    const lc_tensor *logits = get("router.%s.logits", name);
    size_t m = logits->shape[0], n = logits->shape[1];
    bench b;
    if (!bench_open(&b, isa)) return;
    bench_scratch(&b, lc_columns_floats(&b.op, m, n));
    float *u = golden_floats(logits), *bias = golden_floats(get("router.%s.bias", name));
    float *unit = lc_calloc(n * n, sizeof *unit);
    assert_non_null(unit);
    for (size_t i = 0; i < n; i++) unit[i * n + i] = 1.0f;
    if (*variant) memset(bias, 0, n * sizeof *bias);
    lc_moe_shape shape = {.hidden = n,
                          .experts = experts,
                          .zero_experts = n - experts,
                          .topk = topk,
                          .routed_scale = 6.0f,
                          .identity_scaled = true};
    lc_moe_weights weights = {.router = matrix(unit, n, n), .router_bias = bias};
    lc_moe_buffers buffers = {.logits = lc_calloc(m * n, sizeof(float)),
                              .probs = lc_calloc(m * n, sizeof(float)),
                              .ids = lc_calloc(m * topk, sizeof(int32_t)),
                              .weights = lc_calloc(m * topk, sizeof(float)),
                              .x = lc_calloc(lc_left_floats(m, n), sizeof(float))};
    lc_err err = {0};
    assert_ok(lc_route(&b.op, &shape, &weights, m, u, &buffers, &err), err);
    compare(logits, buffers.logits, 0, 0);
    compare(get("router.%s.probs", name), buffers.probs, 8e-7, 0);
    compare_exact(get("router.%s%s.ids", name, variant), 0, buffers.ids, m * topk);
    compare(get("router.%s%s.weights", name, variant), buffers.weights, 8e-7, 0);
    lc_free(buffers.logits);
    lc_free(buffers.probs);
    lc_free(buffers.ids);
    lc_free(buffers.weights);
    lc_free(buffers.x);
    lc_free(unit);
    lc_free(u);
    lc_free(bias);
    bench_close(&b);
}

static void test_router(void **unused) {
    (void)unused;
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        check_router("small", "", 8, 3, (lc_isa)isa);
        check_router("small", ".no_bias", 8, 3, (lc_isa)isa);
        check_router("published", "", 256, 12, (lc_isa)isa);
        check_router("published", ".no_bias", 256, 12, (lc_isa)isa);
    }
    report("router");
}

/* More choices than any published model makes, with ties, against choosing the best again and
 * again. */
static void test_many_choices(void **unused) {
    (void)unused;
    enum { ENTRIES = 700, CHOICES = 300 };
    static float probs[ENTRIES], bias[ENTRIES], weights[CHOICES];
    static int32_t ids[CHOICES];
    static bool taken[ENTRIES];
    for (size_t i = 0; i < ENTRIES; i++) {
        probs[i] = (float)lc_rng_uniform(1, 0, i);
        bias[i] = i % 3 ? 0.0f : 0.25f;
        if (i % 5 == 0) probs[i] = 0.5f; /* ties of scores: 0.5 and 0.75 */
    }
    lc_route_row(ENTRIES, CHOICES, probs, bias, 2.0f, ids, weights);
    for (size_t k = 0; k < CHOICES; k++, values++) {
        size_t best = ENTRIES;
        for (size_t i = 0; i < ENTRIES; i++)
            if (!taken[i] && (best == ENTRIES || probs[i] + bias[i] > probs[best] + bias[best]))
                best = i;
        taken[best] = true;
        assert_int_equal(ids[k], best);
        assert_true(weights[k] == probs[best] * 2.0f);
    }
    report("many choices");
}

static void test_select(void **unused) {
    (void)unused;
    const lc_tensor *scores = get("select.scores"), *want = get("select.selected");
    size_t length = scores->shape[1], topk = want->shape[2];
    lc_index_shape shape = {.topk = topk, .sink = 3, .window = 4};
    float *score = golden_floats(scores);
    uint32_t work[128];
    const lc_kernels *k = lc_kernels_of(LC_ISA_SCALAR);
    int32_t list[64];
    assert_true(length <= 64 && topk <= 64);
    for (size_t row = 0; row < scores->shape[0] * length; row++) {
        size_t n = row % length + 1;
        size_t count =
            lc_index_select(k, &shape, &(lc_index_scores){0, n, score + row * length}, work, list);
        assert_int_equal(count, n < topk ? n : topk);
        for (size_t j = count; j < topk; j++) list[j] = -1;
        compare_exact(want, row * topk, list, topk);
        /* the same keys somewhere else in the cache */
        lc_index_select(k, &shape, &(lc_index_scores){1000, n, score + row * length}, work, list);
        for (size_t j = 0; j < count; j++)
            assert_int_equal(list[j], 1000 + (int32_t)golden_number(want, row * topk + j));
    }
    lc_free(score);
    report("select");
}

/* ops.json's indexer and everything that a run of it needs. */
enum { HEADS = 5, DIM = 18, ROPE = 6, MOST = 64 };

typedef struct indexer {
    bench b;
    lc_index_shape shape;
    lc_indexer_weights weights;
    lc_index_buffers buffers;
    lc_rope rope;
    lc_kv kv;
    float *owned[16]; /* all arrays */
    size_t n_owned;
    const float *h, *c_q;
    float *x_op, *q_op, *scores; /* scores [m][m] */
    size_t m;
} indexer;

static float *own(indexer *x, float *array) {
    assert_true(array && x->n_owned < sizeof x->owned / sizeof *x->owned);
    return x->owned[x->n_owned++] = array;
}

static bool indexer_open(indexer *x, lc_isa isa) {
    *x = (indexer){0};
    size_t m = get("indexer.h")->shape[1], hidden = get("indexer.h")->shape[2],
           q_rank = get("indexer.c_q")->shape[2], floats[LC_INDEX_BUFFERS];
    x->m = m;
    x->shape = (lc_index_shape){.hidden = hidden,
                                .heads = HEADS,
                                .dim = DIM,
                                .q_rank = q_rank,
                                .rope = ROPE,
                                .topk = 8,
                                .sink = 2,
                                .window = 3,
                                .norm_eps = 1e-6f,
                                .q_scale = 1.0f};
    if (!bench_open(&x->b, isa)) return false;
    size_t linear = lc_columns_floats(&x->b.op, m, hidden > q_rank ? hidden : q_rank),
           score = lc_index_scratch(&x->b.op, &x->shape, m);
    bench_scratch(&x->b, linear > score ? linear : score);
    lc_err err = {0};
    lc_config config = {.rope_dim = ROPE, .nope_dim = ROPE, .rope = {.theta = 1e4}};
    lc_kv_layout layout = {.indexers = 1, .index_dim = DIM, .element = sizeof(float)};
    lc_kv_init(&x->kv, &layout);
    assert_ok(lc_kv_reserve(&x->kv, 0, m, &err), err);
    assert_ok(lc_rope_init(&x->rope, &config, &err), err);
    x->h = own(x, golden_floats(get("indexer.h")));
    x->c_q = own(x, golden_floats(get("indexer.c_q")));
    x->weights.wq_b =
        matrix(own(x, golden_floats(get("indexer.wq_b.weight"))), HEADS * DIM, q_rank);
    x->weights.wk = matrix(own(x, golden_floats(get("indexer.wk.weight"))), DIM, hidden);
    x->weights.weights =
        matrix(own(x, golden_floats(get("indexer.weights_proj.weight"))), HEADS, hidden);
    x->weights.k_norm = own(x, golden_floats(get("indexer.k_norm.weight")));
    lc_index_floats(&x->shape, m, floats);
    float **parts[LC_INDEX_BUFFERS] = {&x->buffers.q, &x->buffers.k, &x->buffers.weights,
                                       &x->buffers.x};
    for (int i = 0; i < LC_INDEX_BUFFERS; i++)
        *parts[i] = own(x, lc_calloc(floats[i], sizeof(float)));
    x->buffers.list = lc_calloc(m * x->shape.topk, sizeof(int32_t));
    x->buffers.count = lc_calloc(m, sizeof(size_t));
    assert_true(x->buffers.list && x->buffers.count);
    x->x_op = own(x, lc_calloc(lc_left_floats(m, hidden) + 64 * m, sizeof(float)));
    x->q_op = own(x, lc_calloc(lc_left_floats(m, q_rank) + 64 * m, sizeof(float)));
    x->scores = own(x, lc_calloc(m * m, sizeof(float)));
    return true;
}

static void indexer_close(indexer *x) {
    lc_free(x->buffers.list);
    lc_free(x->buffers.count);
    for (size_t i = 0; i < x->n_owned; i++) lc_free(x->owned[i]);
    lc_rope_free(&x->rope);
    lc_kv_free(&x->kv);
    bench_close(&x->b);
}

/* Positions first .. first+n-1. */
static void indexer_step(indexer *x, size_t first, size_t n) {
    size_t hidden = x->shape.hidden, q_rank = x->shape.q_rank;
    lc_err err = {0};
    lc_row rows[MOST];
    float cosines[MOST * ROPE / 2], sines[MOST * ROPE / 2];
    for (size_t i = 0; i < n; i++) rows[i] = (lc_row){.kv = &x->kv, .pos = first + i};
    lc_rope_rows_fill(&x->b.op, &x->rope, n, rows, cosines, sines);
    lc_probe probe = {.scores = x->scores + first * x->m, .ld_scores = x->m};
    lc_operand h = lc_operand_of(n, hidden, x->h + first * hidden, hidden, x->x_op);
    lc_operand c_q = lc_operand_of(n, q_rank, x->c_q + first * q_rank, q_rank, x->q_op);
    lc_index_args args = {.rows = rows,
                          .rope = {cosines, sines},
                          .x = &h,
                          .c_q = &c_q,
                          .context = x->m,
                          .force_lists = true,
                          .probe = &probe};
    assert_ok(lc_index(&x->b.op, &x->shape, &x->weights, &args, &x->buffers, &err), err);
}

/* Products, norm, rotation, cache and scores together, `chunk` rows a step. The file's scores are
 * not masked; ours are 0 for later keys. */
static void check_indexer(lc_isa isa, size_t chunk) {
    indexer x;
    const lc_tensor *want = get("indexer.scores");
    if (!indexer_open(&x, isa)) return;
    size_t m = x.m;
    assert_true(m <= MOST && want->count == m * m);
    for (size_t first = 0; first < m; first += chunk)
        indexer_step(&x, first, m - first < chunk ? m - first : chunk);
    double squares = 0;
    for (size_t i = 0; i < m * m; i++) squares += golden_number(want, i) * golden_number(want, i);
    double limit = 2e-6 * sqrt(squares / (double)(m * m));
    for (size_t t = 0; t < m; t++)
        for (size_t s = 0; s < m; s++, values++) {
            double w = s <= t ? golden_number(want, t * m + s) : 0;
            if (!(fabs((double)x.scores[t * m + s] - w) <= limit))
                fail_msg("indexer.scores[%zu][%zu] is %.9g, expected %.9g", t, s,
                         (double)x.scores[t * m + s], w);
        }
    indexer_close(&x);
}

static void test_indexer(void **unused) {
    (void)unused;
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        check_indexer((lc_isa)isa, 64);
        check_indexer((lc_isa)isa, 5);
        check_indexer((lc_isa)isa, 1);
    }
    report("indexer");
}

/* ---- the rest ---- */

static void test_fp8(void **unused) {
    (void)unused;
    const lc_tensor *code = get("fp8_e4m3.code"), *want = get("fp8_e4m3.value");
    for (size_t i = 0; i < code->count; i++, values++) {
        double got = (double)lc_f8_e4m3_to_f32((uint8_t)golden_number(code, i));
        double w = golden_number(want, i);
        if (isnan(w) ? !isnan(got) : got != w)
            fail_msg("code %zu is %.9g, expected %.9g", i, got, w);
    }
    report("fp8_e4m3");
}

static void test_cross_entropy(void **unused) {
    (void)unused;
    const lc_tensor *want = get("cross_entropy.rows"), *target = get("cross_entropy.target"),
                    *mask = get("cross_entropy.mask");
    size_t rows = want->count, vocab = get("cross_entropy.logits")->shape[1];
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        float *logits = golden_floats(get("cross_entropy.logits")), got[64];
        double sum = 0, count = 0;
        assert_true(rows <= 64);
        for (size_t i = 0; i < rows; i++) {
            double nats =
                lc_eval_nll_row(k, vocab, logits + i * vocab, (int32_t)golden_number(target, i));
            got[i] = (float)nats;
            sum += nats * golden_number(mask, i);
            count += golden_number(mask, i);
        }
        compare(want, got, 6e-7, 0);
        float loss = (float)(sum / (count + 1e-10));
        compare(get("cross_entropy.loss"), &loss, 6e-7, 0);
        lc_free(logits);
    }
    report("cross_entropy");
}

/* What nobody looked at must be training's. */
static void test_complete(void **unused) {
    (void)unused;
    static const char *const training[] = {"expert_bias.", "newton_schulz.", "balance.",
                                           "hidden_z."};
    static const char *const gradients[] = {".dx", ".dw", ".dy", ".dgate", ".dup", ".dlogits"};
    size_t count = lc_tensors_count(ops.file), checked = 0, skipped = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = lc_tensors_at(ops.file, i)->name;
        bool other = false;
        for (size_t j = 0; j < sizeof training / sizeof *training; j++)
            other |= !strncmp(name, training[j], strlen(training[j]));
        for (size_t j = 0; j < sizeof gradients / sizeof *gradients; j++) {
            size_t length = strlen(gradients[j]);
            other |= strlen(name) > length && !strcmp(name + strlen(name) - length, gradients[j]);
        }
        checked += ops.checked[i];
        skipped += other;
        if (!other && !ops.checked[i]) fail_msg("nobody checked %s", name);
    }
    printf("# %zu of %zu entries, %zu more are training's\n", checked, count, skipped);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rms_norm),      cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_rope),          cmocka_unit_test(test_rotate),
        cmocka_unit_test(test_ngram),         cmocka_unit_test(test_router),
        cmocka_unit_test(test_many_choices),  cmocka_unit_test(test_select),
        cmocka_unit_test(test_indexer),       cmocka_unit_test(test_fp8),
        cmocka_unit_test(test_cross_entropy), cmocka_unit_test(test_complete),
    };
    golden_open_tensors(&ops, OPS);
    uint64_t fp = lc_fp_enter(); /* as kernels are always run */
    int failed = test_main(tests);
    lc_fp_leave(fp);
    golden_close(&ops);
    return failed;
}
