/*
 * test_backward.c: the gradient of every operator of the training net against differences of its
 * own forward along random directions, on every instruction set's fp32 path in turn, and lanes.
 *
 * The loss is the sum of an operator's outputs times fixed random numbers, so the gradient that
 * goes in is those numbers. All shapes are odd, so that every tail is met.
 */
#include "test.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/rng.h"
#include "train/attention.h"
#include "train/embedding.h"
#include "train/experts.h"
#include "train/head.h"
#include "train/index.h"
#include "train/lanes.h"

#include <math.h>

enum { FLOATS = 1 << 18, MOST = 400, ROWS = 2, LENGTH = 21, M = ROWS * LENGTH };

typedef struct bench {
    lc_tape tape;
    lc_space space;
    lc_pool *pool;
    float *scratch[2];
    float *values, *grad; /* blocks of all weights */
    size_t used;
    lc_weight *bound[MOST];
    size_t n_bound;
    void *owned[1024];
    size_t n_owned;
    uint64_t stream;
    double worst;
} bench;

static void *own(bench *b, void *block) {
    assert_true(block && b->n_owned < sizeof b->owned / sizeof *b->owned);
    return b->owned[b->n_owned++] = block;
}
static float *zeros(bench *b, size_t n) { return own(b, lc_calloc(n + 64, sizeof(float))); }

/* Numbers in (-size, size). */
static void fill(bench *b, size_t n, float size, float *x) {
    b->stream++;
    for (size_t i = 0; i < n; i++) x[i] = size * (float)(2 * lc_rng_uniform(7, b->stream, i) - 1);
}
static float *numbers(bench *b, size_t n, float size) {
    float *x = zeros(b, n);
    fill(b, n, size, x);
    return x;
}

static void bench_open(bench *b, const lc_kernels *k, size_t scratch) {
    lc_err err = {0};
    *b = (bench){0};
    assert_ok(lc_pool_new(2, &b->pool, &err), err);
    for (int i = 0; i < 2; i++) b->scratch[i] = zeros(b, scratch);
    b->values = zeros(b, FLOATS);
    b->grad = zeros(b, FLOATS);
    b->tape = (lc_tape){.space = &b->space, .grad = b->grad};
    for (int i = 0; i < LC_NORMS; i++) b->tape.rates[i] = zeros(b, M);
    b->tape.sums = own(b, lc_calloc(2 * 256, sizeof(double)));
    b->tape.op = (lc_op){.k = k, .path = &k->f32, .pool = b->pool, .scratch = b->scratch};
    b->tape.exact = b->tape.op;
}

static void bench_close(bench *b) {
    for (size_t i = 0; i < b->n_owned; i++) lc_free(b->owned[i]);
    lc_space_free(&b->space);
    lc_pool_free(b->pool);
}

static void weight(bench *b, lc_weight *w, size_t rows, size_t cols, float size) {
    size_t forward = lc_weight_forward_bytes(b->tape.op.path, rows, cols),
           back = lc_weight_back_bytes(b->tape.op.path, rows, cols);
    *w = (lc_weight){.rows = rows,
                     .cols = cols,
                     .values = b->values + b->used,
                     .forward = zeros(b, forward / sizeof(float)),
                     .back = zeros(b, back / sizeof(float)),
                     .at = b->used};
    fill(b, rows * cols, size, b->values + b->used);
    if (rows == 1) /* norms around 1 */
        for (size_t i = 0; i < cols; i++) b->values[b->used + i] += 1.0f;
    b->used += rows * cols;
    assert_true(b->used <= FLOATS && b->n_bound < MOST);
    b->bound[b->n_bound++] = w;
}

static void refresh(bench *b) {
    for (size_t i = 0; i < b->n_bound; i++) {
        lc_weight_pack_forward(b->tape.op.path, b->bound[i], 0, b->bound[i]->cols);
        lc_weight_pack_back(b->tape.op.path, b->bound[i], 0, b->bound[i]->rows);
    }
}

typedef double loss_function(bench *b, void *ctx);

static double weighted_sum(size_t n, const float *x, const float *r) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)r[i];
    return sum;
}

/* d loss along a random direction of x against g. */
static void check(bench *b, const char *name, loss_function *loss, void *ctx, float *x,
                  const float *g, size_t n, double h) {
    float *v = numbers(b, n, 1.0f), *kept = zeros(b, n);
    double want[2], slope, squares = 0;
    memcpy(kept, x, n * sizeof *x);
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++) x[i] = kept[i] + (side ? -1 : 1) * (float)h * v[i];
        refresh(b);
        want[side] = loss(b, ctx);
    }
    memcpy(x, kept, n * sizeof *x);
    refresh(b);
    slope = (want[0] - want[1]) / (2 * h);
    double got = weighted_sum(n, g, v);
    for (size_t i = 0; i < n; i++) squares += (double)g[i] * (double)g[i];
    double error = fabs(got - slope) / sqrt(squares + 1e-12); /* <g, v> has this size */
    if (error > b->worst) b->worst = error;
    if (!(error < 1e-2 && squares > 0))
        fail_msg("%s: slope %.7g, gradient %.7g (size %.3g)", name, slope, got, sqrt(squares));
}

static void check_weights(bench *b, const char *name, loss_function *loss, void *ctx, double h) {
    for (size_t i = 0; i < b->n_bound; i++) {
        char text[64];
        const lc_weight *w = b->bound[i];
        snprintf(text, sizeof text, "%s: weight %zu", name, i);
        check(b, text, loss, ctx, b->values + w->at, b->grad + w->at, w->rows * w->cols, h);
    }
}

/* Runs a test on every instruction set of this machine. */
static void on_all(void (*test)(const lc_kernels *k, double *worst), const char *name) {
    double worst = 0;
    unsigned sets = 0;
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        const lc_kernels *k = lc_kernels_of((lc_isa)isa);
        if (!k) continue;
        test(k, &worst);
        sets++;
    }
    printf("# %s: %u instruction sets, off by at most %.2g of the gradient's size\n", name, sets,
           worst);
}

static void done(bench *b, double *worst) {
    if (b->worst > *worst) *worst = b->worst;
    bench_close(b);
}

/* ---- linear and norm ---- */

typedef struct layer_case {
    lc_weight w, norm;
    lc_norm_pass pass;
    float *x, *y, *z, *r;
} layer_case;

static double layer_loss(bench *b, void *ctx) {
    layer_case *c = ctx;
    lc_err err = {0};
    lc_norm_run(&b->tape, &c->pass, c->y, 37);
    assert_ok(lc_linear_run(&b->tape, &c->w, M, c->y, c->z, &err), err);
    return weighted_sum(M * 19, c->z, c->r);
}

static void layer_on(const lc_kernels *k, double *worst) {
    bench b;
    layer_case c;
    lc_err err = {0};
    bench_open(&b, k, 64);
    weight(&b, &c.w, 19, 37, 0.3f);
    weight(&b, &c.norm, 1, 37, 0.5f);
    c.x = numbers(&b, M * 40, 1.0f);
    c.y = zeros(&b, M * 37);
    c.z = zeros(&b, M * 19);
    c.r = numbers(&b, M * 19, 1.0f);
    c.pass = (lc_norm_pass){&c.norm, M, 1e-5f, 1.5f, c.x, 40};
    refresh(&b);
    layer_loss(&b, &c);
    float *dy = zeros(&b, M * 37), *dx = zeros(&b, M * 40);
    assert_ok(lc_linear_back(&b.tape, &c.w, M, c.r, c.y, dy, false, &err), err);
    lc_norm_back(&b.tape, &c.pass, dy, 37, dx, 40);
    check(&b, "norm and linear: input", layer_loss, &c, c.x, dx, M * 40, 1e-3);
    check_weights(&b, "norm and linear", layer_loss, &c, 1e-3);
    done(&b, worst);
}
static void test_layer(void **unused) {
    (void)unused;
    on_all(layer_on, "norm and linear");
}

/* ---- feed-forward ---- */

enum { HIDDEN = 22, FFN = 35 };

static void ffn_weights(bench *b, lc_ffn_net *w, size_t ffn) {
    weight(b, &w->gate, ffn, HIDDEN, 0.5f);
    weight(b, &w->up, ffn, HIDDEN, 0.5f);
    weight(b, &w->down, HIDDEN, ffn, 0.5f);
}

typedef struct ffn_case {
    lc_ffn_net w;
    lc_ffn_state s;
    float *x, *out, *r;
} ffn_case;

static double ffn_loss(bench *b, void *ctx) {
    ffn_case *c = ctx;
    lc_err err = {0};
    assert_ok(lc_ffn_run(&b->tape, &(lc_ffn_pass){.w = &c->w, .m = M, .x = c->x, .s = &c->s},
                         c->out, &err),
              err);
    return weighted_sum(M * HIDDEN, c->out, c->r);
}

static void ffn_on(const lc_kernels *k, double *worst) {
    bench b;
    ffn_case c;
    lc_err err = {0};
    bench_open(&b, k, 64);
    ffn_weights(&b, &c.w, FFN);
    c.s = (lc_ffn_state){zeros(&b, M * FFN), zeros(&b, M * FFN), zeros(&b, M * FFN),
                         zeros(&b, M * FFN)};
    c.x = numbers(&b, M * HIDDEN, 1.0f);
    c.out = zeros(&b, M * HIDDEN);
    c.r = numbers(&b, M * HIDDEN, 1.0f);
    refresh(&b);
    ffn_loss(&b, &c);
    float *dx = zeros(&b, M * HIDDEN);
    assert_ok(
        lc_ffn_back(&b.tape, &(lc_ffn_pass){.w = &c.w, .m = M, .x = c.x, .s = &c.s}, c.r, dx, &err),
        err);
    check(&b, "ffn: input", ffn_loss, &c, c.x, dx, M * HIDDEN, 1e-3);
    check_weights(&b, "ffn", ffn_loss, &c, 1e-3);
    done(&b, worst);
}
static void test_ffn(void **unused) {
    (void)unused;
    on_all(ffn_on, "ffn");
}

enum { EXPERTS = 5, IDENTITIES = 3, TOPK = 3, ENTRIES = EXPERTS + IDENTITIES };

typedef struct moe_case {
    lc_moe_shape shape;
    lc_moe_net w;
    lc_ffn_net experts[EXPERTS];
    lc_moe_state s;
    lc_router_weights losses;
    float *u, *out, *r;
} moe_case;

static double moe_loss(bench *b, void *ctx) {
    moe_case *c = ctx;
    lc_err err = {0};
    int64_t counts[ENTRIES] = {0};
    double balance = 0, z = 0;
    assert_ok(lc_moe_run(&b->tape, &c->shape, &c->w, M, c->u, &c->s, counts, c->out, &err), err);
    lc_router_losses(&b->tape, &c->shape, M, &c->s, &balance, &z);
    return weighted_sum(M * HIDDEN, c->out, c->r) + (double)c->losses.balance * balance +
           (double)c->losses.z * z;
}

static void moe_state(bench *b, lc_moe_state *s) {
    size_t n = M * TOPK;
    *s = (lc_moe_state){.probs = zeros(b, M * ENTRIES),
                        .lse = zeros(b, M),
                        .ids = own(b, lc_calloc(n, sizeof *s->ids)),
                        .weights = zeros(b, n),
                        .first = own(b, lc_calloc(EXPERTS + 1, sizeof *s->first)),
                        .choices = own(b, lc_calloc(n, sizeof *s->choices)),
                        .place = own(b, lc_calloc(n, sizeof *s->place)),
                        .shares = numbers(b, ENTRIES, 1.0f),
                        .gate = zeros(b, n * FFN),
                        .up = zeros(b, n * FFN),
                        .logits = zeros(b, M * ENTRIES),
                        .dweights = zeros(b, n),
                        .x = zeros(b, n * HIDDEN),
                        .y = zeros(b, n * HIDDEN),
                        .act = zeros(b, n * FFN),
                        .dact = zeros(b, n * FFN),
                        .products = own(b, lc_calloc(6 * EXPERTS, sizeof *s->products))};
}

static void moe_once(const lc_kernels *k, bool scaled, double *worst) {
    bench b;
    moe_case c = {.shape = {HIDDEN, FFN, EXPERTS, IDENTITIES, TOPK, 2.5f, scaled},
                  .losses = {0.7f, 0.3f}};
    lc_err err = {0};
    bench_open(&b, k, 64);
    for (int e = 0; e < EXPERTS; e++) ffn_weights(&b, &c.experts[e], FFN);
    weight(&b, &c.w.router, ENTRIES, HIDDEN, 0.4f);
    c.w.bias = numbers(&b, ENTRIES, 0.1f);
    c.w.experts = c.experts;
    moe_state(&b, &c.s);
    c.u = numbers(&b, M * HIDDEN, 1.0f);
    c.out = zeros(&b, M * HIDDEN);
    c.r = numbers(&b, M * HIDDEN, 1.0f);
    refresh(&b);
    moe_loss(&b, &c);
    float *du = zeros(&b, M * HIDDEN);
    assert_ok(lc_moe_back(&b.tape, &c.shape, &c.w, M, c.u, &c.s, c.losses, c.r, du, &err), err);
    /* small steps: a changed choice would be a jump */
    check(&b, "moe: input", moe_loss, &c, c.u, du, M * HIDDEN, 1e-4);
    check_weights(&b, "moe", moe_loss, &c, 1e-4);
    done(&b, worst);
}
static void moe_on(const lc_kernels *k, double *worst) {
    moe_once(k, true, worst);
    moe_once(k, false, worst);
}
static void test_moe(void **unused) {
    (void)unused;
    on_all(moe_on, "experts, router and its losses");
}

/* ---- attention ---- */

enum { HEADS = 3, Q_RANK = 10, KV_RANK = 11, NOPE = 7, ROPE = 6, V = 5, DIM = NOPE + ROPE };

typedef struct attention_case {
    lc_mla_shape shape;
    lc_mla_net w;
    lc_rows rows;
    lc_mla_state s;
    lc_mla_work work;
    lc_mla_pass pass;
    int32_t starts[M];
    uint64_t chosen[M];
    float *x, *out, *r;
} attention_case;

static void attention_case_open(bench *b, attention_case *c, bool sparse) {
    *c = (attention_case){
        .shape = {HIDDEN, HEADS, Q_RANK, KV_RANK, NOPE, ROPE, V, 1e-6f, 1.4f, 1.3f, 0.3f}};
    weight(b, &c->w.q_a, Q_RANK, HIDDEN, 0.6f);
    weight(b, &c->w.q_a_norm, 1, Q_RANK, 0.5f);
    weight(b, &c->w.q_b, HEADS * DIM, Q_RANK, 0.6f);
    weight(b, &c->w.kv_a, KV_RANK + ROPE, HIDDEN, 0.6f);
    weight(b, &c->w.kv_a_norm, 1, KV_RANK, 0.5f);
    weight(b, &c->w.kv_b, HEADS * (NOPE + V), KV_RANK, 0.6f);
    weight(b, &c->w.o, HIDDEN, HEADS * V, 0.6f);
    float *angles[3];
    for (int i = 0; i < 3; i++) angles[i] = zeros(b, LENGTH * ROPE / 2);
    for (size_t i = 0; i < LENGTH * ROPE / 2; i++) {
        angles[0][i] = cosf((float)i);
        angles[1][i] = sinf((float)i);
        angles[2][i] = -angles[1][i];
    }
    for (int32_t i = 0; i < M; i++) { /* the second row has two documents */
        int32_t at = i % LENGTH;
        c->starts[i] = i >= LENGTH && at >= 9 ? 9 : 0;
        c->chosen[i] = (uint64_t)1 << at | (lc_rng(3, 1, (uint64_t)i).word[0] & 0x1fffff);
    }
    c->rows = (lc_rows){ROWS, LENGTH, c->starts, angles[0], angles[1], angles[2]};
    c->s = (lc_mla_state){zeros(b, M * Q_RANK),
                          zeros(b, M * Q_RANK),
                          zeros(b, M * HEADS * DIM),
                          zeros(b, M * (KV_RANK + ROPE)),
                          zeros(b, M * KV_RANK),
                          zeros(b, M * ROPE),
                          zeros(b, M * HEADS * (NOPE + V)),
                          zeros(b, M * HEADS * V),
                          zeros(b, M * HEADS),
                          zeros(b, M * HEADS)};
    size_t keys = lc_attention_key_bytes(&b->tape.op, &c->shape, M) / sizeof(float);
    c->work = (lc_mla_work){zeros(b, M * HEADS * DIM),
                            zeros(b, M * HEADS * (NOPE + V)),
                            zeros(b, M * HEADS * V),
                            zeros(b, M * Q_RANK),
                            zeros(b, M * Q_RANK),
                            zeros(b, M * KV_RANK),
                            zeros(b, M * (KV_RANK + ROPE)),
                            zeros(b, HEADS * M * ROPE),
                            zeros(b, keys)};
    c->pass = (lc_mla_pass){.shape = &c->shape,
                            .w = &c->w,
                            .rows = &c->rows,
                            .s = &c->s,
                            .work = &c->work,
                            .chosen = sparse ? c->chosen : NULL};
    c->x = numbers(b, M * HIDDEN, 1.0f);
    c->out = zeros(b, M * HIDDEN);
    c->r = numbers(b, M * HIDDEN, 1.0f);
}

static double attention_loss(bench *b, void *ctx) {
    attention_case *c = ctx;
    lc_err err = {0};
    assert_ok(lc_mla_latent_run(&b->tape, &c->pass, c->x, &err), err);
    assert_ok(lc_mla_run(&b->tape, &c->pass, c->x, c->out, &err), err);
    return weighted_sum(M * HIDDEN, c->out, c->r);
}

static const lc_index_shape index_shape = {HIDDEN, 4, 9, Q_RANK, ROPE, 6, 1, 2, 1e-6f, 1.2f};

static size_t attention_scratch(const lc_kernels *k) {
    lc_op op = {.k = k, .path = &k->f32};
    lc_mla_shape shape = {HIDDEN, HEADS, Q_RANK, KV_RANK, NOPE, ROPE, V, 0, 0, 0, 0};
    return lc_index_loss_floats(&op, &shape, &index_shape, LENGTH);
}

static void attention_on(const lc_kernels *k, double *worst) {
    for (int sparse = 0; sparse < 2; sparse++) {
        bench b;
        attention_case c;
        lc_err err = {0};
        bench_open(&b, k, attention_scratch(k));
        attention_case_open(&b, &c, sparse);
        refresh(&b);
        attention_loss(&b, &c);
        float *dx = zeros(&b, M * HIDDEN);
        assert_ok(lc_mla_back(&b.tape, &c.pass, c.x, c.r, dx, &err), err);
        check(&b, "attention: input", attention_loss, &c, c.x, dx, M * HIDDEN, 1e-3);
        check_weights(&b, "attention", attention_loss, &c, 1e-3);
        done(&b, worst);
    }
}
static void test_attention(void **unused) {
    (void)unused;
    on_all(attention_on, "attention");
}

/* ---- indexer ---- */

typedef struct index_case {
    attention_case a;
    lc_index_net w;
    lc_index_state s;
    lc_index_pass pass;
    lc_index_member members[2];
    bool sparse;
    float *grad; /* NULL while differences are taken */
} index_case;

static double index_loss(bench *b, void *ctx) {
    index_case *c = ctx;
    lc_err err = {0};
    double sums[ROWS] = {0}, sum = 0;
    b->tape.grad = c->grad;
    assert_ok(lc_index_run(&b->tape, &c->pass, c->a.x, c->a.s.cq, &err), err);
    lc_index_loss_begin(&b->tape, &c->pass);
    for (int i = 0; i < 2; i++) lc_index_loss_add(&b->tape, &c->pass, &c->members[i]);
    assert_ok(lc_index_loss_end(&b->tape, &c->pass, c->members, 2, c->sparse, 1.0f, c->a.x,
                                c->a.s.cq, sums, &err),
              err);
    for (int i = 0; i < ROWS; i++) sum += sums[i];
    return sum;
}

static void index_on(const lc_kernels *k, double *worst) {
    const lc_index_shape *s = &index_shape;
    for (int sparse = 0; sparse < 2; sparse++) {
        bench b;
        index_case c = {.sparse = sparse};
        bench_open(&b, k, attention_scratch(k));
        attention_case_open(&b, &c.a, false);
        refresh(&b);
        attention_loss(&b, &c.a);
        b.n_bound = 0; /* only the indexer's are checked */
        weight(&b, &c.w.wq_b, s->heads * s->dim, Q_RANK, 0.6f);
        weight(&b, &c.w.wk, s->dim, HIDDEN, 0.6f);
        weight(&b, &c.w.k_norm, 1, s->dim, 0.5f);
        weight(&b, &c.w.weights, s->heads, HIDDEN, 0.6f);
        size_t row = lc_pad_k(s->dim);
        c.s = (lc_index_state){zeros(&b, M * s->heads * s->dim),
                               zeros(&b, M * s->dim),
                               zeros(&b, M * s->dim),
                               zeros(&b, M * s->heads),
                               zeros(&b, M * row),
                               zeros(&b, M * s->heads * row),
                               own(&b, lc_calloc(M, sizeof(double))),
                               zeros(&b, M * s->heads * s->dim),
                               zeros(&b, M * s->heads * s->dim),
                               zeros(&b, M * s->heads)};
        c.pass = (lc_index_pass){s,
                                 &c.w,
                                 &c.a.rows,
                                 &c.s,
                                 zeros(&b, M * 32),
                                 zeros(&b, M * 32),
                                 32,
                                 own(&b, lc_calloc(M, sizeof(uint64_t)))};
        c.a.pass.chosen = sparse ? c.pass.chosen : NULL;
        c.members[0] = (lc_index_member){&c.a.pass, 0};
        c.members[1] = (lc_index_member){&c.a.pass, 2};
        refresh(&b);
        lc_err err = {0};
        assert_ok(lc_index_run(&b.tape, &c.pass, c.a.x, c.a.s.cq, &err), err);
        lc_index_choose(&b.tape, &c.pass);
        attention_loss(&b, &c.a); /* with these keys */
        c.grad = b.grad;
        double sum = index_loss(&b, &c);
        assert_true(sum > 0);
        c.grad = NULL;
        check_weights(&b, sparse ? "sparse index loss" : "dense index loss", index_loss, &c, 1e-3);
        done(&b, worst);
    }
}
static void test_index(void **unused) {
    (void)unused;
    on_all(index_on, "index loss");
}

/* ---- embedding ---- */

enum { VOCAB = 29, WIDTH = 24, TABLES_MOST = 192 };

typedef struct embed_case {
    lc_embed_net w;
    lc_ngram_table tables[TABLES_MOST];
    lc_weight rows[TABLES_MOST], projections[TABLES_MOST];
    lc_embed_pass pass;
    int32_t tokens[M];
    size_t width;
    float *out, *r;
} embed_case;

static double embed_loss(bench *b, void *ctx) {
    embed_case *c = ctx;
    lc_err err = {0};
    assert_ok(lc_embed_run(&b->tape, &c->pass, c->out, &err), err);
    return weighted_sum(M * c->width, c->out, c->r);
}

static void embed_once(const lc_kernels *k, size_t order, size_t splits, size_t width, bool full,
                       double *worst) {
    bench b;
    size_t tables = (order - 1) * splits;
    embed_case c = {.w = {.n_tables = tables, .full_word = full, .eos_reset = true, .eos = 2},
                    .width = width};
    lc_config config = {.vocab = VOCAB,
                        .hidden = width,
                        .ngram_order = order,
                        .ngram_splits = splits,
                        .ngram_ratio = 1.5};
    lc_err err = {0};
    bench_open(&b, k, 64);
    weight(&b, &c.w.words, VOCAB, width, 1.0f);
    for (size_t i = 0; i < tables; i++) {
        lc_ngram_table_init(&c.tables[i], &config, i);
        weight(&b, &c.rows[i], (size_t)c.tables[i].modulus, width / tables, 1.0f);
        weight(&b, &c.projections[i], width, width / tables, 0.5f);
    }
    for (uint64_t i = 0; i < M; i++) c.tokens[i] = (int32_t)(lc_rng(5, 2, i).word[0] % VOCAB);
    c.w.tables = c.tables;
    c.w.table_rows = c.rows;
    c.w.projections = c.projections;
    c.pass = (lc_embed_pass){.w = &c.w,
                             .rows = ROWS,
                             .length = LENGTH,
                             .tokens = c.tokens,
                             .ids = own(&b, lc_calloc((1 + tables) * M, sizeof(int64_t))),
                             .gathered = zeros(&b, M * width),
                             .sum = zeros(&b, M * width),
                             .order = own(&b, lc_calloc((1 + tables) * 2 * M, sizeof(uint32_t))),
                             .products = own(&b, lc_calloc(tables, sizeof(lc_matmul)))};
    c.out = zeros(&b, M * width);
    c.r = numbers(&b, M * width, 1.0f);
    refresh(&b);
    embed_loss(&b, &c);
    assert_ok(lc_embed_back(&b.tape, &c.pass, c.r, &err), err);
    if (tables < TABLES_MOST)
        check_weights(&b, "embedding", embed_loss, &c, 1e-2);
    else /* that would take minutes: one direction through all of them */
        check(&b, "embedding", embed_loss, &c, b.values, b.grad, b.used, 1e-2);
    done(&b, worst);
}
static void embed_on(const lc_kernels *k, double *worst) {
    embed_once(k, 2, 2, WIDTH, false, worst);
    embed_once(k, 2, 2, WIDTH, true, worst);
}
static void test_embedding(void **unused) {
    (void)unused;
    on_all(embed_on, "embedding");
}

/* As many tables as a config may have: more products than a chain may hold. */
static void test_most_tables(void **unused) {
    (void)unused;
    double worst = 0;
    embed_once(lc_kernels_of(LC_ISA_SCALAR), 4, 64, TABLES_MOST, false, &worst);
    printf("# %d n-gram tables: off by at most %.2g of the gradient's size\n", TABLES_MOST, worst);
}

/* ---- head ---- */

typedef struct head_case {
    lc_weight w;
    lc_head_pass pass;
    int32_t targets[M];
    float *hidden, *dhidden;
} head_case;

static double head_loss(bench *b, void *ctx) {
    head_case *c = ctx;
    lc_err err = {0};
    double sum = 0, z = 0;
    assert_ok(lc_head_run(&b->tape, &c->pass, NULL, &sum, &err), err);
    lc_hidden_z(&b->tape, M, WIDTH, c->hidden, 0, NULL, &z);
    return 0.7 * sum + 0.1 * z;
}

static void head_on(const lc_kernels *k, double *worst) {
    bench b;
    head_case c;
    lc_err err = {0};
    double sum = 0;
    bench_open(&b, k, 64);
    weight(&b, &c.w, VOCAB, WIDTH, 0.5f);
    for (int i = 0; i < M; i++) c.targets[i] = i % 5 == 2 ? -1 : i * 7 % VOCAB;
    size_t chunk = lc_head_chunk(VOCAB);
    c.hidden = numbers(&b, M * WIDTH, 1.0f);
    c.dhidden = zeros(&b, M * WIDTH);
    c.pass = (lc_head_pass){.w = &c.w,
                            .m = M,
                            .hidden = c.hidden,
                            .targets = c.targets,
                            .scale = 0.7f,
                            .x = zeros(&b, chunk * WIDTH),
                            .dx = zeros(&b, chunk * WIDTH),
                            .logits = zeros(&b, chunk * lc_head_stride(VOCAB)),
                            .list = own(&b, lc_calloc(M, sizeof(size_t)))};
    refresh(&b);
    assert_ok(lc_head_run(&b.tape, &c.pass, c.dhidden, &sum, &err), err);
    lc_hidden_z(&b.tape, M, WIDTH, c.hidden, 0.1f, c.dhidden, &sum);
    check(&b, "head and hidden z: input", head_loss, &c, c.hidden, c.dhidden, M * WIDTH, 1e-3);
    check_weights(&b, "head", head_loss, &c, 1e-3);
    done(&b, worst);
}
static void test_head(void **unused) {
    (void)unused;
    on_all(head_on, "head and hidden z");
}

/* ---- the rest ---- */

static void test_log(void **unused) {
    (void)unused;
    for (double x = 1e-30; x < 1e30; x *= 1.37)
        assert_true(fabs(lc_ln(x) - log(x)) <= 4e-16 * fabs(log(x)) + 1e-16);
    assert_true(lc_ln(1.0) == 0);
}

/* The sum over lanes [begin, begin + n) as a plain recursion. */
static float tree(const float *lane, size_t n) {
    return n == 1 ? lane[0] : tree(lane, n / 2) + tree(lane + n / 2, n / 2);
}

static void test_lanes(void **unused) {
    (void)unused;
    enum { N = 100 };
    lc_err err = {0};
    lc_lanes *lanes = NULL;
    assert_int_equal(lc_lanes_new(N, 6, NULL, &lanes, &err), LC_EINVAL);
    for (size_t count = 1; count <= 64; count *= 2) {
        assert_ok(lc_lanes_new(N, count, NULL, &lanes, &err), err);
        for (uint64_t step = 0; step < 3; step++) {
            float value[64];
            for (size_t i = 0; i < count; i++) {
                float *block = lc_lanes_begin(lanes);
                value[i] = (float)lc_rng_uniform(1, step, i) - 0.3f;
                for (size_t j = 0; j < N; j++) {
                    assert_true(block[j] == 0);
                    block[j] = value[i];
                }
                assert_true((lc_lanes_sum(lanes) != NULL) == (count == 0));
                lc_lanes_end(lanes);
            }
            const float *sum = lc_lanes_sum(lanes);
            assert_non_null(sum);
            for (size_t j = 0; j < N; j++) assert_true(sum[j] == tree(value, count));
        }
        lc_lanes_free(lanes);
    }
    for (long n = 0; n < 4; n++) {
        lc_mem_fail_after(n);
        assert_int_equal(lc_lanes_new(N, 8, NULL, &lanes, &err), LC_ENOMEM);
        lc_mem_fail_after(-1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer),       cmocka_unit_test(test_ffn),
        cmocka_unit_test(test_moe),         cmocka_unit_test(test_attention),
        cmocka_unit_test(test_index),       cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_most_tables), cmocka_unit_test(test_head),
        cmocka_unit_test(test_log),         cmocka_unit_test(test_lanes),
    };
    return test_main(tests);
}
