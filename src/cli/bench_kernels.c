/*
 * bench_kernels.c: `longcat bench kernels`: products with weights of every type, by shape and
 * instruction set. They run as a forward pass runs them: left rows are packed, then lc_linear.
 *
 * A case with operands from the caches repeats one matrix; one with operands from memory walks
 * through copies that together are far larger than the caches. Its limit is the later of two: all
 * operations at the rate of the best instruction, all bytes at the read bandwidth.
 */
#include "cli/bench_kernels.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "ops/linear.h"

#include <math.h>
#include <string.h>

enum { MAX_REPEAT = 64, SAMPLE = 4 };

/* ---- timing ---- */

bool lc_kernel_wanted(const lc_kernel_bench *b, const char *name, size_t rows) {
    return rows <= b->most_rows && (!b->only || strstr(name, b->only));
}

void lc_kernel_table(lc_kernel_bench *b) {
    static const lc_column columns[] = {
        {"case", "case", -21, 0, 0},
        {"type", "type", -6, 0, 0},
        {"isa", "isa", -12, 0, 0},
        {"rows", "rows", 6, 0, 0},
        {"k", "K", 6, 0, 0},
        {"columns", "N", 6, 0, 0},
        {"operands", "operands", 10, 0, 0},
        {"min_ops_per_s", NULL, 0, 0, 0},
        {"ops_per_s", "Gop/s", 9, 1, 1e9},
        {"max_ops_per_s", NULL, 0, 0, 0},
        {"bytes_per_s", "GB/s", 8, 1, 1e9},
        {"limit", "limit", -17, 0, 0},
        {"share", "% of it", 8, 1, 0.01},
        {"bits", "bits", 8, 0, 0},
    };
    lc_bench_table(&b->report, "kernels", NULL, columns, sizeof columns / sizeof *columns);
}

static double time_runs(lc_kernel_run *run, void *ctx, size_t n, size_t *number) {
    uint64_t begin = lc_clock_ns();
    for (size_t i = 0; i < n; i++) run(ctx, (*number)++);
    return (double)(lc_clock_ns() - begin + 1) / 1e9 / (double)n;
}

/* Seconds of a run. A run that takes more than a second is not repeated. */
static lc_spread time_case(const lc_kernel_bench *b, lc_kernel_run *run, void *ctx) {
    double times[MAX_REPEAT];
    size_t number = 0;
    times[0] = time_runs(run, ctx, 1, &number);
    if (times[0] > 1) return lc_spread_of(times, 1);
    double once = time_runs(run, ctx, 1, &number); /* warm */
    size_t n = once < b->seconds ? (size_t)(b->seconds / once) : 1;
    for (size_t i = 0; i < b->repeat; i++) times[i] = time_runs(run, ctx, n, &number);
    return lc_spread_of(times, b->repeat);
}

void lc_kernel_measure(lc_kernel_bench *b, const lc_kernel_case *c, lc_isa isa, lc_kernel_run *run,
                       void *ctx, int equal) {
    lc_spread s = time_case(b, run, ctx);
    lc_limit limit = {0};
    if (!c->unlimited) limit = lc_limits_of(&b->limits, isa, c->kind);
    double least = limit.name ? c->operations / limit.rate : NAN;
    if (c->memory && limit.name && c->bytes / b->bandwidth > least) {
        least = c->bytes / b->bandwidth;
        limit.name = "memory";
    }
    const lc_cell cells[] = {
        {.text = c->name},
        {.text = c->type},
        {.text = lc_isa_name(isa)},
        {.number = c->rows ? (double)c->rows : NAN},
        {.number = c->k ? (double)c->k : NAN},
        {.number = c->columns ? (double)c->columns : NAN},
        {.text = c->memory ? "memory" : "cache"},
        {.number = c->operations / s.max},
        {.number = c->operations / s.median},
        {.number = c->operations / s.min},
        {.number = c->bytes / s.median},
        {.text = limit.name ? limit.name : "-"},
        {.number = least / s.median},
        {.text = equal < 0 ? "-"
                 : equal   ? "equal"
                           : "DIFFER"},
    };
    if (!equal) b->differ++;
    lc_bench_row(&b->report, cells);
}

/* ---- operands ---- */

static void fill_data(void *ctx, size_t begin, size_t end, int thread) {
    enum { CHUNK = 1 << 20 };
    const lc_read_buffer *data = ctx;
    (void)thread;
    for (size_t chunk = begin; chunk < end; chunk++)
        for (size_t at = 0; at < CHUNK; at += sizeof(lc_rng_block)) {
            lc_rng_block block = lc_rng(1, 0, (chunk * CHUNK + at) / sizeof block);
            /* BF16 values of 2^-7 to 2^-4, both signs; no byte is a NaN of FP8. */
            for (int i = 0; i < 4; i++) block.word[i] = (block.word[i] & 0x81fe81feu) | 0x3c003c00u;
            memcpy(data->data + chunk * CHUNK + at, &block, sizeof block);
        }
}

static int make_data(lc_kernel_bench *b, size_t bytes) {
    int status = lc_read_buffer_new(bytes, b->pool, &b->data, b->err);
    if (status == LC_OK) lc_pool_for(b->pool, b->data.bytes >> 20, 1, fill_data, &b->data);
    return status;
}

void lc_kernel_floats(const lc_kernel_bench *b, size_t from, size_t n, float *out) {
    const uint16_t *halves = (const uint16_t *)(const void *)b->data.data;
    size_t count = b->data.bytes / sizeof *halves;
    for (size_t i = 0; i < n; i++) out[i] = lc_bf16_to_f32(halves[(from + i) % count]);
}

int lc_kernel_op(lc_kernel_bench *b, lc_isa isa, bool bf16, size_t floats, lc_op *out) {
    size_t threads = (size_t)lc_pool_threads(b->pool);
    if (floats > b->scratch_floats) {
        floats = (floats + 15) / 16 * 16;
        float *block = lc_calloc(threads, floats * sizeof *block);
        if (!block) return lc_fail(b->err, LC_ENOMEM, "bench kernels: out of memory");
        lc_free(b->scratch[0]);
        for (size_t t = 0; t < threads; t++) b->scratch[t] = block + t * floats;
        b->scratch_floats = floats;
    }
    const lc_kernels *k = lc_kernels_of(isa);
    *out =
        (lc_op){.k = k, .path = bf16 ? &k->bf16 : &k->f32, .pool = b->pool, .scratch = b->scratch};
    return LC_OK;
}

/* ---- products with weights ---- */

typedef struct weight_type {
    const char *name;
    lc_dtype type;
    lc_scaling scaling;
    lc_peak_kind kind;
    lc_code_kind codes;    /* with LC_SCALE_GROUP */
    lc_code_layout layout; /* and with BF16 */
} weight_type;

static const weight_type types[] = {
    {"f32", LC_F32, LC_SCALE_NONE, LC_PEAK_F32, 0, 0},
    {"bf16", LC_BF16, LC_SCALE_NONE, LC_PEAK_BF16, 0, 0},
    {"bf16 strips", LC_BF16, LC_SCALE_NONE, LC_PEAK_BF16, 0, LC_CODES_IN_STRIPS},
    {"fp8", LC_F8_E4M3, LC_SCALE_BLOCK, LC_PEAK_BF16, 0, 0},
    {"int8", LC_I8, LC_SCALE_ROW, LC_PEAK_INT8, 0, 0},
    {"int8 strips", LC_I32, LC_SCALE_GROUP, LC_PEAK_INT8, LC_CODES_I8, LC_CODES_IN_STRIPS},
    {"int4", LC_I32, LC_SCALE_GROUP, LC_PEAK_INT4, LC_CODES_U4, LC_CODES_BY_ROW},
    {"int4 strips", LC_I32, LC_SCALE_GROUP, LC_PEAK_INT4, LC_CODES_U4, LC_CODES_IN_STRIPS},
};
enum { GROUP = 64 }; /* of 4-bit codes; others have a scale a row */

typedef struct shape {
    const char *name;
    size_t k, columns, rows[6];
} shape;

static const shape shapes[] = {
    {"square", 2048, 2048, {1, 8, 64, 512, 2048}},
    {"Lite expert up", 3072, 1024, {1, 8, 64}},
    {"Lite expert down", 1024, 3072, {1, 8, 64}},
    {"Lite dense up", 3072, 6144, {1, 512}},
    {"Lite q_b", 1536, 6144, {1, 512}},
    {"Lite kv_a", 3072, 576, {1, 512}},
    {"Lite o", 4096, 3072, {1, 512}},
};

/* A product and its copies. */
typedef struct linear {
    lc_kernel_bench *b;
    lc_op op;
    const weight_type *type;
    size_t rows, k, columns, stride, copies; /* stride: bytes from copy to copy */
    float *x, *packed, *y, *expected;        /* y: expected of SAMPLE rows */
    float *scales;
} linear;

/* The compute type. */
static bool is_bf16(const linear *l) { return l->type->kind != LC_PEAK_F32; }

/* Without scales. */
static size_t matrix_bytes(const weight_type *t, size_t k, size_t columns) {
    if (t->scaling == LC_SCALE_GROUP) return k * columns / (t->codes == LC_CODES_U4 ? 2 : 1);
    return k * columns * lc_dtype_size(t->type);
}

static lc_mat matrix(const linear *l, size_t copy) {
    lc_mat w = {.name = "bench",
                .type = l->type->type,
                .scaling = l->type->scaling,
                .place = LC_PLACE_RESIDENT,
                .rows = l->columns,
                .cols = l->k,
                .bytes = l->stride,
                .data = l->b->data.data + copy * l->stride};
    if (w.scaling == LC_SCALE_ROW || w.scaling == LC_SCALE_BLOCK) w.scales = l->scales;
    size_t rows = l->type->layout == LC_CODES_IN_STRIPS ? LC_STRIP_ROWS : 1;
    w.groups.layout = l->type->layout;
    w.groups.stride = rows * l->k * lc_dtype_size(l->type->type);
    if (w.scaling != LC_SCALE_GROUP) return w;
    bool four = l->type->codes == LC_CODES_U4;
    w.groups = (lc_groups){.kind = l->type->codes,
                           .layout = l->type->layout,
                           .size = four ? GROUP : l->k,
                           .count = four ? l->k / GROUP : 1,
                           .stride = rows * (four ? l->k / 2 : l->k),
                           .scale_type = LC_F32,
                           .scales = l->scales,
                           .zero_base = four ? 8 : 0,
                           .zero_mask = -1};
    return w;
}

static void run_linear(void *ctx, size_t i) {
    const linear *l = ctx;
    lc_mat w = matrix(l, i % l->copies);
    lc_operand x = lc_operand_of(l->rows, l->k, l->x, l->k, l->packed);
    lc_linear(&l->op, &w, &x, l->y, l->columns, NULL); /* resident: never fails */
}

/* Row of x that stands for sample s. */
static size_t sample_row(const linear *l, size_t s) {
    size_t n = l->rows < SAMPLE ? l->rows : SAMPLE;
    return n > 1 ? s * (l->rows - 1) / (n - 1) : 0;
}

/* The scalar kernels' rows, one at a time: a row never depends on its neighbours. */
static int run_scalar(linear *l) {
    lc_op op;
    lc_mat w = matrix(l, 0);
    int status = lc_kernel_op(l->b, LC_ISA_SCALAR, is_bf16(l), 0, &op);
    if (status == LC_OK)
        status =
            lc_kernel_op(l->b, LC_ISA_SCALAR, is_bf16(l), lc_columns_floats(&op, 1, l->k), &op);
    for (size_t s = 0; s < SAMPLE && s < l->rows && status == LC_OK; s++) {
        const float *row = l->x + sample_row(l, s) * l->k;
        lc_operand x = lc_operand_of(1, l->k, row, l->k, l->packed);
        status = lc_linear(&op, &w, &x, l->expected + s * l->columns, l->columns, l->b->err);
    }
    return status;
}

static bool equal_rows(linear *l) {
    run_linear(l, 0);
    for (size_t s = 0; s < SAMPLE && s < l->rows; s++)
        if (memcmp(l->y + sample_row(l, s) * l->columns, l->expected + s * l->columns,
                   l->columns * sizeof *l->y))
            return false;
    return true;
}

/* One shape and type with `rows` rows, on every instruction set. */
static int measure_linear(linear *l, const char *name) {
    lc_kernel_bench *b = l->b;
    int status = run_scalar(l);
    for (size_t i = 0; i < b->n_isas && status == LC_OK; i++) {
        status = lc_kernel_op(b, b->isas[i], is_bf16(l), 0, &l->op);
        if (status == LC_OK)
            status = lc_kernel_op(b, b->isas[i], is_bf16(l),
                                  lc_columns_floats(&l->op, l->rows, l->k), &l->op);
        if (status != LC_OK) break;
        l->copies = 1;
        bool equal = equal_rows(l);
        lc_kernel_case c = {.name = name,
                            .type = l->type->name,
                            .rows = l->rows,
                            .k = l->k,
                            .columns = l->columns,
                            .operations = 2.0 * (double)l->rows * (double)l->k * (double)l->columns,
                            .bytes = (double)matrix_bytes(l->type, l->k, l->columns),
                            .kind = l->type->kind};
        lc_kernel_measure(b, &c, b->isas[i], run_linear, l, equal);
        l->copies = b->data.bytes / l->stride;
        if (l->rows > 64) continue; /* arithmetic binds by far */
        c.memory = true;
        lc_kernel_measure(b, &c, b->isas[i], run_linear, l, equal);
    }
    return status;
}

static int bench_shape(lc_kernel_bench *b, const shape *s, const weight_type *t) {
    size_t most = 1, n_scales = s->columns * (s->k / GROUP); /* as many as any type has */
    for (size_t i = 0; i < 6; i++)
        if (s->rows[i] > most) most = s->rows[i];
    linear l = {.b = b, .type = t, .k = s->k, .columns = s->columns};
    l.stride = (matrix_bytes(t, s->k, s->columns) + 63) / 64 * 64;
    if (l.stride > b->data.bytes)
        return lc_fail(b->err, LC_ELIMIT, "bench kernels: --memory-gb must be at least %.3f",
                       (double)l.stride / 1e9);
    l.x = lc_calloc(most, s->k * sizeof *l.x);
    l.packed = lc_calloc(lc_left_floats(most, s->k), sizeof *l.packed);
    l.y = lc_calloc(most, s->columns * sizeof *l.y);
    l.expected = lc_calloc(SAMPLE, s->columns * sizeof *l.expected);
    l.scales = lc_calloc(n_scales, sizeof *l.scales);
    int status = LC_OK;
    if (!l.x || !l.packed || !l.y || !l.expected || !l.scales)
        status = lc_fail(b->err, LC_ENOMEM, "bench kernels: out of memory");
    if (status == LC_OK) {
        lc_kernel_floats(b, 12345, most * s->k, l.x);
        for (size_t i = 0; i < n_scales; i++) l.scales[i] = 0.01f + (float)(i % 7) * 0.001f;
    }
    for (size_t i = 0; i < 6 && s->rows[i] && status == LC_OK; i++) {
        l.rows = s->rows[i];
        if (lc_kernel_wanted(b, s->name, l.rows)) status = measure_linear(&l, s->name);
    }
    lc_free(l.x);
    lc_free(l.packed);
    lc_free(l.y);
    lc_free(l.expected);
    lc_free(l.scales);
    return status;
}

static int bench_products(lc_kernel_bench *b) {
    int status = LC_OK;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        if (!lc_kernel_wanted(b, shapes[s].name, 1)) continue;
        for (size_t t = 0; t < sizeof types / sizeof *types && status == LC_OK; t++)
            status = bench_shape(b, &shapes[s], &types[t]);
    }
    return status;
}

/* ---- the command ---- */

static void measure_limits(lc_kernel_bench *b) {
    lc_read_rate(&b->data, b->pool); /* once for nothing */
    for (size_t i = 0; i < 3; i++) {
        double rate = lc_read_rate(&b->data, b->pool);
        if (rate > b->bandwidth) b->bandwidth = rate;
    }
    lc_limits_measure(b->pool, 0.03, &b->limits);
    lc_bench_limits(&b->report, b->bandwidth, &b->limits);
}

/* The sets to measure: the one that is named, or all of this machine. */
static int choose_isas(lc_kernel_bench *b, const char *name) {
    lc_isa wanted = LC_ISA_SCALAR;
    if (name && !lc_isa_from_name(name, &wanted))
        return lc_fail(b->err, LC_EINVAL, "instruction set \"%s\" is unknown", name);
    if (name && !lc_kernels_of(wanted))
        return lc_fail(b->err, LC_EUNSUPPORTED, "this machine has no %s", name);
    for (int isa = 0; isa < LC_ISA_COUNT; isa++)
        if (lc_kernels_of((lc_isa)isa) && (!name || (lc_isa)isa == wanted))
            b->isas[b->n_isas++] = (lc_isa)isa;
    return LC_OK;
}

static int run_all(lc_kernel_bench *b, size_t bytes) {
    b->scratch = lc_calloc((size_t)lc_pool_threads(b->pool), sizeof *b->scratch);
    int status = b->scratch ? make_data(b, bytes)
                            : lc_fail(b->err, LC_ENOMEM, "bench kernels: out of memory");
    if (status != LC_OK) return status;
    measure_limits(b);
    lc_kernel_table(b);
    status = bench_products(b);
    if (status == LC_OK) status = lc_bench_attention(b);
    if (status == LC_OK) status = lc_bench_rows(b);
    return status;
}

int lc_bench_kernels(int argc, char **argv) {
    const char *isa = NULL;
    int64_t threads = 0, repeat = 5, rows = 1 << 20;
    bool json = false;
    double gb = 0;
    lc_err err = {0};
    lc_kernel_bench b = {.seconds = 0.05, .err = &err};
    const lc_opt options[] = {
        {"isa", 0, LC_OPT_STRING, &isa, "NAME",
         "only this instruction set (default: all of this machine)", 0, 0},
        {"only", 0, LC_OPT_STRING, &b.only, "TEXT", "only cases with this in their name", 0, 0},
        {"rows", 0, LC_OPT_INT, &rows, "N", "only cases with at most N rows: 8 is decode", 1,
         1 << 20},
        {"repeat", 0, LC_OPT_INT, &repeat, "N", "repetitions of a case (default: 5)", 1,
         MAX_REPEAT},
        {"seconds", 0, LC_OPT_FLOAT, &b.seconds, "S", "length of a repetition (default: 0.05)",
         0.0001, 100},
        {"memory-gb", 0, LC_OPT_FLOAT, &gb, "GB",
         "operands that come from memory (default: 4 times the largest cache, at least 1 GiB)",
         0.01, 100000},
        {"threads", 't', LC_OPT_INT, &threads, "N",
         "threads to use (default: the CPUs of this process)", 1, 1024},
        {"json", 0, LC_OPT_FLAG, &json, NULL, "print JSON", 0, 0},
        {0},
    };
    const lc_usage usage = {
        "longcat bench kernels [--isa NAME] [--only TEXT] [options]",
        "Measures products and attention by shape, type and instruction set, as a share of what\n"
        "the machine can do, and compares their bits with those of the scalar kernels.",
        options, 0, 0};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    b.repeat = (size_t)repeat;
    b.most_rows = (size_t)rows;
    int status = choose_isas(&b, isa);
    if (status == LC_OK) status = lc_pool_new((int)threads, &b.pool, &err);
    if (status == LC_OK)
        status = lc_bench_begin(&b.report, json, "bench kernels", lc_pool_threads(b.pool), &err);
    if (status == LC_OK) status = run_all(&b, (size_t)(gb * 1e9));
    if (status == LC_OK) lc_bench_end(&b.report);
    if (status == LC_OK && b.differ)
        status =
            lc_fail(&err, LC_EFORMAT, "%zu results differ from the scalar kernels' bits", b.differ);
    if (b.scratch) lc_free(b.scratch[0]);
    lc_free(b.scratch);
    lc_read_buffer_free(&b.data);
    lc_pool_free(b.pool);
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
