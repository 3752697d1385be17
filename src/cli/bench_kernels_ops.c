/*
 * bench_kernels_ops.c: the kernels that aren't products with weights: attention over a cache
 * (lc_attend, as a forward pass runs it), products with both sides packed (kv_b), and kernels of
 * single rows. Shapes are those of LongCat-Flash-Lite.
 */
#include "cli/bench_kernels.h"

#include "base/mem.h"
#include "ops/attend.h"
#include "store/kv.h"

#include <math.h>
#include <string.h>

enum { HEADS = 32, RANK = 512, ROPE = 64, NOPE = 128, WIDTH = RANK + ROPE };

/* ---- attention ---- */

typedef struct attention {
    lc_kernel_bench *b;
    lc_op op;
    lc_mla_shape shape;
    lc_kv kv;
    lc_row rows[64];
    size_t m;
    float *queries, *work, *expected; /* [HEADS][64][WIDTH], [HEADS][m][WIDTH], [HEADS][WIDTH] */
} attention;

static void run_attention(void *ctx, size_t i) {
    attention *a = ctx;
    lc_mla_args args = {.rows = a->rows};
    (void)i;
    /* The context takes the place of the queries: start from fresh ones. */
    for (size_t h = 0; h < HEADS; h++)
        memcpy(a->work + h * a->m * WIDTH, a->queries + h * 64 * WIDTH,
               a->m * WIDTH * sizeof *a->work);
    lc_attend(&a->op, &a->shape, a->m, &args, a->work);
}

/* m rows that end a context of `context` positions. */
static void set_rows(attention *a, size_t m, size_t context) {
    a->m = m;
    for (size_t i = 0; i < m; i++) a->rows[i] = (lc_row){.kv = &a->kv, .pos = context - m + i};
}

static int fill_cache(attention *a, bool bf16, size_t positions) {
    lc_kv_layout layout = {.slots = 1, .width = WIDTH, .element = bf16 ? 2 : 4};
    lc_kv_init(&a->kv, &layout);
    int status = lc_kv_reserve(&a->kv, 0, positions, a->b->err);
    for (size_t i = 0; i < positions && status == LC_OK; i++) {
        float row[WIDTH];
        lc_kernel_floats(a->b, i * WIDTH, WIDTH, row);
        lc_kv_store(&a->op, layout.element, WIDTH, row, lc_kv_latent(&a->kv, 0, i));
    }
    return status;
}

/* Bits of the last row alone with the scalar kernels; ready to compare. */
static int attend_scalar(attention *a, bool bf16, size_t context) {
    int status = lc_kernel_op(a->b, LC_ISA_SCALAR, bf16, 0, &a->op);
    if (status == LC_OK)
        status =
            lc_kernel_op(a->b, LC_ISA_SCALAR, bf16, lc_attend_scratch(&a->op, &a->shape), &a->op);
    if (status != LC_OK) return status;
    size_t m = a->m;
    for (size_t h = 0; h < HEADS; h++)
        memcpy(a->work + h * WIDTH, a->queries + (h * 64 + m - 1) * WIDTH, WIDTH * sizeof *a->work);
    set_rows(a, 1, context);
    lc_attend(&a->op, &a->shape, 1, &(lc_mla_args){.rows = a->rows}, a->work);
    memcpy(a->expected, a->work, HEADS * WIDTH * sizeof *a->work);
    set_rows(a, m, context);
    return LC_OK;
}

static int measure_attention(attention *a, bool bf16, size_t m, size_t context) {
    char name[48];
    lc_kernel_bench *b = a->b;
    double keys = (double)m * (double)context - (double)m * (double)(m - 1) / 2;
    snprintf(name, sizeof name, "%s attention %zuK", m == 1 ? "decode" : "prefill", context / 1024);
    if (!lc_kernel_wanted(b, name, m)) return LC_OK;
    lc_kernel_case c = {.name = name,
                        .type = bf16 ? "bf16" : "f32",
                        .rows = m,
                        .k = WIDTH,
                        .columns = context,
                        .operations = 2.0 * HEADS * (WIDTH + RANK) * keys,
                        .bytes = (double)(context * WIDTH * a->kv.layout.element),
                        .kind = bf16 ? LC_PEAK_BF16 : LC_PEAK_F32};
    set_rows(a, m, context);
    int status = attend_scalar(a, bf16, context);
    for (size_t i = 0; i < b->n_isas && status == LC_OK; i++) {
        status = lc_kernel_op(b, b->isas[i], bf16, 0, &a->op);
        if (status == LC_OK)
            status =
                lc_kernel_op(b, b->isas[i], bf16, lc_attend_scratch(&a->op, &a->shape), &a->op);
        if (status != LC_OK) break;
        run_attention(a, 0);
        bool equal = true; /* of the context: the rest of a row is left over from the query */
        for (size_t h = 0; h < HEADS; h++)
            if (memcmp(a->work + (h * m + m - 1) * WIDTH, a->expected + h * WIDTH,
                       RANK * sizeof *a->work))
                equal = false;
        lc_kernel_measure(b, &c, b->isas[i], run_attention, a, equal);
    }
    return status;
}

int lc_bench_attention(lc_kernel_bench *b) {
    static const struct {
        size_t m, context;
    } cases[] = {{1, 1024}, {1, 8192}, {1, 32768}, {64, 1024}, {64, 8192}};
    enum { MOST = 32768, FLOATS = 64 * HEADS * WIDTH };
    attention a = {.b = b};
    a.shape = (lc_mla_shape){.heads = HEADS,
                             .kv_rank = RANK,
                             .nope = NOPE,
                             .rope = ROPE,
                             .v = NOPE,
                             .softmax_scale = 1 / sqrtf(NOPE + ROPE)};
    a.queries = lc_calloc(FLOATS, sizeof *a.queries);
    a.work = lc_calloc(FLOATS, sizeof *a.work);
    a.expected = lc_calloc(FLOATS, sizeof *a.expected);
    int status = a.queries && a.work && a.expected
                     ? LC_OK
                     : lc_fail(b->err, LC_ENOMEM, "bench kernels: out of memory");
    if (status == LC_OK) lc_kernel_floats(b, 777, FLOATS, a.queries);
    for (int bf16 = 0; bf16 < 2 && status == LC_OK; bf16++) {
        status = lc_kernel_op(b, LC_ISA_SCALAR, bf16, 0, &a.op);
        if (status == LC_OK) status = fill_cache(&a, bf16, MOST);
        for (size_t i = 0; i < sizeof cases / sizeof *cases && status == LC_OK; i++)
            status = measure_attention(&a, bf16, cases[i].m, cases[i].context);
        lc_kv_free(&a.kv);
    }
    lc_free(a.queries);
    lc_free(a.work);
    lc_free(a.expected);
    return status;
}

/* ---- products with both sides packed ---- */

/* Absorbed queries: per head [rows][NOPE] times [NOPE][RANK]. */
typedef struct absorb {
    lc_op op;
    size_t rows;
    const float *x, *w; /* [rows][HEADS][NOPE], [HEADS][NOPE][RANK] */
    char *right;        /* w packed */
    float *left, *c;    /* [HEADS] packed; [HEADS][rows][RANK] */
} absorb;

static char *right_of(const absorb *a, size_t head) {
    return a->right + head * lc_right_bytes(a->op.path, NOPE, RANK);
}

static void absorb_heads(void *ctx, size_t begin, size_t end, int thread) {
    const absorb *a = ctx;
    const lc_gemm_path *path = a->op.path;
    for (size_t h = begin; h < end; h++) {
        float *left = a->left + h * lc_left_floats(a->rows, NOPE);
        path->pack_kn(a->rows, NOPE, a->x + h * NOPE, HEADS * NOPE, left);
        path->multiply(&(lc_product){.rows = a->rows,
                                     .k = NOPE,
                                     .columns = RANK,
                                     .left = left,
                                     .right = right_of(a, h),
                                     .c = a->c + h * a->rows * RANK,
                                     .ldc = RANK,
                                     .scratch = a->op.scratch[thread]});
    }
}

static void run_absorb(void *ctx, size_t i) {
    absorb *a = ctx;
    (void)i;
    lc_pool_for(a->op.pool, HEADS, 1, absorb_heads, a);
}

static int absorb_with(lc_kernel_bench *b, absorb *a, lc_isa isa, bool bf16) {
    int status = lc_kernel_op(b, isa, bf16, 0, &a->op);
    if (status == LC_OK)
        status = lc_kernel_op(b, isa, bf16, lc_product_floats(&a->op, a->rows, NOPE), &a->op);
    if (status != LC_OK) return status;
    for (size_t h = 0; h < HEADS; h++) {
        lc_right keys = {NOPE, RANK, 0, NOPE, a->w + h * NOPE * RANK, RANK, true};
        a->op.path->pack_right(&keys, right_of(a, h));
    }
    run_absorb(a, 0);
    return LC_OK;
}

static int measure_absorb(lc_kernel_bench *b, absorb *a, bool bf16, float *expected) {
    size_t count = HEADS * a->rows * RANK;
    lc_kernel_case c = {.name = "absorb",
                        .type = bf16 ? "bf16" : "f32",
                        .rows = a->rows,
                        .k = NOPE,
                        .columns = HEADS * RANK,
                        .operations = 2.0 * NOPE * (double)count,
                        .bytes = (double)HEADS * NOPE * RANK * (bf16 ? 2 : 4),
                        .kind = bf16 ? LC_PEAK_BF16 : LC_PEAK_F32};
    int status = absorb_with(b, a, LC_ISA_SCALAR, bf16);
    memcpy(expected, a->c, count * sizeof *expected);
    for (size_t i = 0; i < b->n_isas && status == LC_OK; i++) {
        status = absorb_with(b, a, b->isas[i], bf16);
        bool equal = !memcmp(expected, a->c, count * sizeof *expected);
        if (status == LC_OK) lc_kernel_measure(b, &c, b->isas[i], run_absorb, a, equal);
    }
    return status;
}

static int bench_absorb(lc_kernel_bench *b) {
    static const size_t rows[] = {1, 8, 64, 256};
    enum { MOST = 256 };
    if (!lc_kernel_wanted(b, "absorb", 1)) return LC_OK;
    float *x = lc_calloc(MOST * HEADS * NOPE, sizeof *x);
    float *left = lc_calloc(HEADS * lc_left_floats(MOST, NOPE), sizeof *left);
    float *w = lc_calloc(2 * HEADS * NOPE * RANK, sizeof *w); /* packed ones behind them */
    float *c = lc_calloc(HEADS * MOST * RANK, sizeof *c);
    float *expected = lc_calloc(HEADS * MOST * RANK, sizeof *expected);
    int status = x && left && w && c && expected
                     ? LC_OK
                     : lc_fail(b->err, LC_ENOMEM, "bench kernels: out of memory");
    if (status == LC_OK) {
        lc_kernel_floats(b, 4242, MOST * HEADS * NOPE, x);
        lc_kernel_floats(b, 4343, HEADS * NOPE * RANK, w);
    }
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows && status == LC_OK; i++) {
            if (!lc_kernel_wanted(b, "absorb", rows[i])) continue;
            absorb a = {.rows = rows[i], .x = x, .w = w, .left = left, .c = c};
            a.right = (char *)(w + HEADS * NOPE * RANK);
            status = measure_absorb(b, &a, bf16, expected);
        }
    lc_free(x);
    lc_free(left);
    lc_free(w);
    lc_free(c);
    lc_free(expected);
    return status;
}

/* ---- kernels of single rows, one thread ---- */

enum { ROW = 3072 };

typedef struct row_kernel {
    const lc_kernels *k;
    const float *x, *w;
    float *y; /* [ROW] */
    void (*run)(const struct row_kernel *);
} row_kernel;

static void row_norm(const row_kernel *r) { r->k->rms_norm(ROW, r->x, r->w, 1e-5f, r->y); }
static void row_swiglu(const row_kernel *r) { r->k->swiglu(ROW, r->x, r->w, r->y); }
static void row_exp_sum(const row_kernel *r) {
    float sum = r->k->exp_sum(ROW, r->x, 1.0f, r->y);
    r->y[0] += sum;
}
static void row_max(const row_kernel *r) { r->y[0] = r->k->max(ROW, r->x); }
static void row_scale_add(const row_kernel *r) { r->k->scale_add(ROW, 0.5f, 0.3f, r->x, r->y); }
static void row_add_scaled(const row_kernel *r) { r->k->add_scaled(ROW, 1e-3f, r->x, r->y); }
static void row_round(const row_kernel *r) { r->k->round_bf16(ROW, r->x, r->y); }
static void row_narrow(const row_kernel *r) {
    r->k->narrow_bf16(ROW, r->x, (uint16_t *)(void *)r->y);
}
static void row_widen(const row_kernel *r) {
    r->k->widen_bf16(ROW, (const uint16_t *)(const void *)r->w, r->y);
}

/* 4-bit codes in groups of 64. */
static void row_decode(const row_kernel *r) {
    float zeros[ROW / 64];
    for (size_t i = 0; i < ROW / 64; i++) zeros[i] = 8;
    r->k->decode(&(lc_coded_row){.codes = (const uint8_t *)r->w,
                                 .kind = LC_CODES_U4,
                                 .n = ROW,
                                 .size = 64,
                                 .zeros = zeros,
                                 .scales = r->x,
                                 .biases = r->x + ROW / 64},
                 r->y);
}

/* Eight rows of FP8, to BF16. */
static void rows_decode_f8(const row_kernel *r) {
    enum { ROWS = 8, COLUMNS = 2 * ROW / ROWS };
    r->k->decode_f8_rows(&(lc_f8_rows){.rows = ROWS,
                                       .n = COLUMNS,
                                       .codes = (const uint8_t *)r->w,
                                       .stride = COLUMNS,
                                       .scales = r->x,
                                       .y = (uint16_t *)(void *)r->y,
                                       .ld = COLUMNS});
}

static void run_row(void *ctx, size_t i) {
    const row_kernel *r = ctx;
    (void)i;
    r->run(r);
}

int lc_bench_rows(lc_kernel_bench *b) {
    static const struct {
        const char *name;
        void (*run)(const row_kernel *);
        double operations, bytes; /* an element */
    } kernels[] = {
        {"row rms_norm", row_norm, 4, 12},         {"row swiglu", row_swiglu, 1, 12},
        {"row exp_sum", row_exp_sum, 1, 8},        {"row max", row_max, 1, 4},
        {"row scale_add", row_scale_add, 3, 12},   {"row add_scaled", row_add_scaled, 2, 12},
        {"row round_bf16", row_round, 1, 8},       {"row narrow_bf16", row_narrow, 1, 6},
        {"row widen_bf16", row_widen, 1, 6},       {"row decode int4", row_decode, 2, 4.5},
        {"rows decode fp8", rows_decode_f8, 2, 6},
    };
    int status = bench_absorb(b);
    float *x = lc_calloc(4 * ROW, sizeof *x);
    if (!x) return lc_fail(b->err, LC_ENOMEM, "bench kernels: out of memory");
    float *w = x + ROW, *y = w + ROW, *expected = y + ROW;
    lc_kernel_floats(b, 99, 2 * ROW, x);
    uint64_t fp = lc_fp_enter();
    for (size_t n = 0; n < sizeof kernels / sizeof *kernels && status == LC_OK; n++) {
        if (!lc_kernel_wanted(b, kernels[n].name, 1)) continue;
        row_kernel r = {lc_kernels_of(LC_ISA_SCALAR), x, w, y, kernels[n].run};
        lc_kernel_floats(b, 5000, ROW, y);
        r.run(&r);
        memcpy(expected, y, ROW * sizeof *y);
        for (size_t i = 0; i < b->n_isas; i++) {
            lc_kernel_case c = {.name = kernels[n].name,
                                .type = "f32",
                                .rows = 1,
                                .k = ROW,
                                .operations = kernels[n].operations * ROW,
                                .bytes = kernels[n].bytes * ROW,
                                .unlimited = true};
            r.k = lc_kernels_of(b->isas[i]);
            lc_kernel_floats(b, 5000, ROW, y);
            r.run(&r);
            bool equal = !memcmp(y, expected, ROW * sizeof *y);
            lc_kernel_measure(b, &c, b->isas[i], run_row, &r, equal);
        }
    }
    lc_fp_leave(fp);
    lc_free(x);
    return status;
}
