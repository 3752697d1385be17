/*
 * bench_model.c: `longcat bench model`: prefill and decode of a model, as shares of what the
 * machine can do, and where the time goes.
 *
 * Where two instruction sets are compared, their repetitions take turns (A B A B), so that both see
 * the same disturbances. The limits are measured again before every row.
 */
#include "base/pages.h"
#include "cli/bench.h"
#include "cli/engine_options.h"
#include "cli/progress.h"
#include "engine/bench.h"

#include <math.h>
#include <string.h>

enum { MAX_REPEAT = 64, MAX_TESTS = 64, MAX_BATCH = 64, BAR = 30 };

typedef struct model_flags {
    lc_engine_flags engine;
    const char *prefill, *depths, *compare;
    int64_t steps, batch, batch_depth, repeat, project;
    double gb;
    bool json;
} model_flags;

/* An engine under test. */
typedef struct variant {
    char isa[16];
    lc_engine *engine;
    lc_session *sessions[MAX_BATCH];
    double open_seconds, first_seconds; /* opening; the first token after it */
} variant;

typedef struct test {
    char name[40];
    size_t prefill; /* tokens; 0: decode */
    size_t depth, batch;
} test;

/* What one variant did in a test. */
typedef struct result {
    const test *test;
    const variant *variant;
    lc_spread rate; /* tokens a second */
    lc_bench_run run;
    double read_rate;
    lc_limit limits[LC_PEAK_KINDS];
} result;

typedef struct model_bench {
    const model_flags *flags;
    lc_bench_report report;
    variant variants[2];
    size_t n_variants;
    lc_read_buffer buffer;
    lc_limits limits;
    test tests[MAX_TESTS];
    size_t n_tests;
    result results[2 * MAX_TESTS];
    size_t n_results;
    lc_err *err;
} model_bench;

/* ---- what to run ---- */

static test *add_test(model_bench *b) {
    return b->n_tests < MAX_TESTS ? &b->tests[b->n_tests++] : NULL;
}

static int list_tests(model_bench *b) {
    const model_flags *f = b->flags;
    lc_ids prefill = {0}, depths = {0};
    int status = lc_cli_ids("--prefill", f->prefill, &prefill, b->err);
    if (status == LC_OK) status = lc_cli_ids("--depths", f->depths, &depths, b->err);
    if (status == LC_OK && prefill.len + depths.len + 1 > MAX_TESTS)
        status = lc_fail(b->err, LC_ELIMIT, "more than %d tests", MAX_TESTS);
    for (size_t i = 0; i < prefill.len && status == LC_OK; i++) {
        test *t = prefill.data[i] ? add_test(b) : NULL;
        if (!t) continue;
        *t = (test){.prefill = (size_t)prefill.data[i], .batch = 1};
        snprintf(t->name, sizeof t->name, "prefill %zu", t->prefill);
    }
    for (size_t i = 0; i < depths.len && status == LC_OK; i++) {
        test *t = add_test(b);
        *t = (test){.depth = (size_t)depths.data[i], .batch = 1};
        snprintf(t->name, sizeof t->name, "decode at %zu", t->depth);
    }
    if (status == LC_OK && f->batch > 1) {
        test *t = add_test(b);
        *t = (test){.depth = (size_t)f->batch_depth, .batch = (size_t)f->batch};
        snprintf(t->name, sizeof t->name, "decode %zu at %zu", t->batch, t->depth);
    }
    lc_ids_free(&prefill);
    lc_ids_free(&depths);
    return status;
}

/* Opens the engine and the sessions; the first token is timed before anything is warm. */
static int open_variant(model_bench *b, const char *model, const char *isa, variant *v) {
    lc_engine_options options = lc_cli_engine_options(&b->flags->engine);
    lc_bench_run first = {0};
    if (isa) options.isa = isa;
    uint64_t begin = lc_clock_ns();
    int status = lc_engine_open(model, &options, &v->engine, b->err);
    v->open_seconds = (double)(lc_clock_ns() - begin) / 1e9;
    size_t n = b->flags->batch > 1 ? (size_t)b->flags->batch : 1;
    for (size_t i = 0; i < n && status == LC_OK; i++)
        status = lc_session_open(v->engine, &v->sessions[i], b->err);
    if (status == LC_OK) status = lc_bench_prefill(v->engine, 1, &first, b->err);
    if (status != LC_OK) return status;
    v->first_seconds = first.seconds;
    snprintf(v->isa, sizeof v->isa, "%s", lc_isa_name(v->engine->kernels->isa));
    lc_bench_warm(v->engine);
    return LC_OK;
}

/* "A,B": the two sets to compare. */
static int open_variants(model_bench *b, const char *model) {
    const char *pair = b->flags->compare, *comma = pair ? strchr(pair, ',') : NULL;
    char names[2][32];
    if (!pair) {
        b->n_variants = 1;
        return open_variant(b, model, NULL, &b->variants[0]);
    }
    if (!comma || strchr(comma + 1, ','))
        return lc_fail(b->err, LC_EINVAL, "--compare-isa takes two names, as in avx2,avx512");
    snprintf(names[0], sizeof names[0], "%.*s", (int)(comma - pair), pair);
    snprintf(names[1], sizeof names[1], "%s", comma + 1);
    int status = LC_OK;
    for (; b->n_variants < 2 && status == LC_OK; b->n_variants++)
        status = open_variant(b, model, names[b->n_variants], &b->variants[b->n_variants]);
    return status;
}

/* ---- runs ---- */

static int run_once(model_bench *b, const test *t, variant *v, lc_bench_run *run) {
    if (t->prefill) return lc_bench_prefill(v->engine, t->prefill, run, b->err);
    return lc_bench_decode(v->sessions, t->batch, t->depth, (size_t)b->flags->steps, run, b->err);
}

/* The limits of this minute: memory, and the instructions that the report began with as the best.
 */
static void measure_limits(const model_bench *b, const variant *v, result *r) {
    lc_pool *pool = v->engine->pool;
    lc_isa isa = v->engine->kernels->isa;
    for (int i = 0; i < 3; i++) {
        double rate = lc_read_rate(&b->buffer, pool);
        if (rate > r->read_rate) r->read_rate = rate;
    }
    for (int kind = 0; kind < LC_PEAK_KINDS; kind++) {
        lc_limit *limit = &r->limits[kind];
        *limit = lc_limits_of(&b->limits, isa, (lc_peak_kind)kind);
        if (kind && limit->peak == limit[-1].peak)
            *limit = limit[-1];
        else if (limit->peak)
            limit->rate = lc_peak_best(limit->peak, pool, 0.03);
    }
}

/* Seconds that a stage's operations take at the best instructions' rates; NAN if those are unknown.
 */
static double stage_arithmetic(const result *r, int s) {
    double seconds = 0;
    if (!r->limits[LC_PEAK_F32].name) return NAN;
    for (int kind = 0; kind < LC_PEAK_KINDS; kind++)
        seconds += r->run.cost.operations[kind][s] / r->limits[kind].rate;
    return seconds;
}

/* The limit of most operations. */
static const lc_limit *main_limit(const result *r) {
    double most = 0;
    int main = 0;
    for (int kind = 0; kind < LC_PEAK_KINDS; kind++) {
        double sum = 0;
        for (int s = 0; s < LC_STAGE_COUNT; s++) sum += r->run.cost.operations[kind][s];
        if (sum > most) most = sum, main = kind;
    }
    return &r->limits[main];
}

static void report_result(model_bench *b, const result *r) {
    double tokens = (double)r->run.tokens, seconds = r->run.seconds;
    double bytes = lc_cost_bytes(&r->run.cost), operations = lc_cost_operations(&r->run.cost),
           arithmetic = 0;
    const lc_limit *limit = main_limit(r);
    for (int s = 0; s < LC_STAGE_COUNT; s++) arithmetic += stage_arithmetic(r, s);
    const lc_cell cells[] = {
        {.text = r->test->name},
        {.text = r->variant->isa},
        {.number = r->rate.min},
        {.number = r->rate.median},
        {.number = r->rate.max},
        {.number = bytes / tokens},
        {.number = bytes / seconds},
        {.number = r->read_rate},
        {.number = bytes / seconds / r->read_rate},
        {.number = operations / seconds},
        {.text = limit->name ? limit->name : "-"},
        {.number = limit->name ? limit->rate : NAN},
        {.number = arithmetic / seconds},
        {.text = r->run.logits},
    };
    lc_bench_row(&b->report, cells);
}

static int run_test(model_bench *b, const test *t) {
    double rates[2][MAX_REPEAT];
    size_t repeat = (size_t)b->flags->repeat;
    result *results = &b->results[b->n_results];
    int status = LC_OK;
    for (size_t v = 0; v < b->n_variants && status == LC_OK; v++) {
        lc_bench_run warm = {0};
        results[v] = (result){.test = t, .variant = &b->variants[v]};
        measure_limits(b, &b->variants[v], &results[v]);
        status = run_once(b, t, &b->variants[v], &warm);
    }
    for (size_t i = 0; i < repeat && status == LC_OK; i++)
        for (size_t v = 0; v < b->n_variants && status == LC_OK; v++) {
            lc_bench_run *run = &results[v].run;
            double before = run->seconds;
            size_t tokens = run->tokens;
            status = run_once(b, t, &b->variants[v], run);
            rates[v][i] = (double)(run->tokens - tokens) / (run->seconds - before);
        }
    for (size_t v = 0; v < b->n_variants && status == LC_OK; v++) {
        results[v].rate = lc_spread_of(rates[v], repeat);
        report_result(b, &results[v]);
        b->n_results++;
    }
    return status;
}

/* ---- reports ---- */

static void open_results(lc_bench_report *r) {
    static const lc_column columns[] = {
        {"test", "test", -19, 0, 0},
        {"isa", "isa", -10, 0, 0},
        {"min_tokens_per_s", "min", 9, 2, 0},
        {"tokens_per_s", "median", 9, 2, 0},
        {"max_tokens_per_s", "max tok/s", 11, 2, 0},
        {"bytes_per_token", "MB/tok", 9, 1, 1e6},
        {"bytes_per_s", "GB/s", 8, 1, 1e9},
        {"limit_bytes_per_s", "of", 7, 1, 1e9},
        {"share_of_bandwidth", "%", 7, 1, 0.01},
        {"ops_per_s", "Gop/s", 9, 1, 1e9},
        {"limit", NULL, 0, 0, 0},
        {"limit_ops_per_s", "of", 9, 1, 1e9},
        {"share_of_instructions", "%", 7, 1, 0.01},
        {"logits", NULL, 0, 0, 0},
    };
    lc_bench_table(r, "results", NULL, columns, sizeof columns / sizeof *columns);
}

static void report_stages(model_bench *b, const result *r) {
    static const lc_column columns[] = {
        {"test", NULL, 0, 0, 0},
        {"isa", NULL, 0, 0, 0},
        {"stage", "stage", -22, 0, 0},
        {"seconds_per_token", "ms/token", 11, 3, 1e-3},
        {"share", "%", 7, 1, 0.01},
        {NULL, "time", -BAR, 0, 0},
        {"bytes_per_s", "GB/s", 8, 1, 1e9},
        {"ops_per_s", "Gop/s", 9, 1, 1e9},
        {"share_of_limit", "% of limit", 12, 1, 0.01},
    };
    char title[160], bar[BAR + 1];
    double tokens = (double)r->run.tokens, most = 0, stages = 0;
    for (int s = 0; s < LC_STAGE_COUNT; s++) {
        double seconds = (double)r->run.times.ns[s] / 1e9;
        if (seconds > most) most = seconds;
        stages += seconds;
    }
    snprintf(title, sizeof title, "%s, %s: %.6g ms a token, %.6g of them in stages", r->test->name,
             r->variant->isa, r->run.seconds / tokens * 1e3, stages / tokens * 1e3);
    lc_bench_table(&b->report, "stages", title, columns, sizeof columns / sizeof *columns);
    for (int s = 0; s < LC_STAGE_COUNT; s++) {
        const lc_cost *c = &r->run.cost;
        double seconds = (double)r->run.times.ns[s] / 1e9, operations = 0;
        for (int kind = 0; kind < LC_PEAK_KINDS; kind++) operations += c->operations[kind][s];
        if (seconds == 0) continue;
        double least = c->bytes[s] / r->read_rate;
        double arithmetic = stage_arithmetic(r, s);
        if (arithmetic > least) least = arithmetic;
        bool counted = c->bytes[s] > 0;
        const lc_cell cells[] = {
            {.text = r->test->name},
            {.text = r->variant->isa},
            {.text = lc_stage_name((lc_stage)s)},
            {.number = seconds / tokens},
            {.number = seconds / r->run.seconds},
            {.text = lc_bench_bar(bar, BAR, seconds, most)},
            {.number = counted ? c->bytes[s] / seconds : NAN},
            {.number = counted ? operations / seconds : NAN},
            {.number = counted ? least / seconds : NAN},
        };
        lc_bench_row(&b->report, cells);
    }
}

/* Tokens a second of a model with N layers like these: the time in layers grows with their number,
 * that of embedding and head does not. What no stage has counts to the layers. */
static void report_projection(model_bench *b) {
    static const lc_column columns[] = {
        {"test", "test", -19, 0, 0},
        {"isa", "isa", -10, 0, 0},
        {"layer_seconds", "ms/layer", 11, 3, 1e-3},
        {"rest_seconds", "ms/rest", 11, 3, 1e-3},
        {"tokens_per_s", "tok/s", 11, 2, 0},
    };
    char title[128];
    double n = (double)b->flags->project;
    size_t layers = b->variants[0].engine->model->config.layers;
    snprintf(title, sizeof title, "Projected from %zu to %.0f layers: 1 / (%.0f layers + rest)",
             layers, n, n);
    lc_bench_table(&b->report, "projection", title, columns, 5);
    for (size_t i = 0; i < b->n_results; i++) {
        const result *r = &b->results[i];
        double tokens = (double)r->run.tokens;
        double rest = (double)(r->run.times.ns[LC_STAGE_EMBED] + r->run.times.ns[LC_STAGE_HEAD]) /
                      1e9 / tokens;
        double layer = (r->run.seconds / tokens - rest) / (double)layers;
        const lc_cell cells[] = {
            {.text = r->test->name}, {.text = r->variant->isa},          {.number = layer},
            {.number = rest},        {.number = 1 / (n * layer + rest)},
        };
        lc_bench_row(&b->report, cells);
    }
}

static void report_comparison(model_bench *b) {
    static const lc_column columns[] = {
        {"test", "test", -19, 0, 0},
        {"faster", "B / A", 8, 3, 0},
        {"bits", "logits", 9, 0, 0},
    };
    char title[80];
    snprintf(title, sizeof title, "A = %s, B = %s", b->variants[0].isa, b->variants[1].isa);
    lc_bench_table(&b->report, "comparison", title, columns, 3);
    for (size_t i = 0; i + 1 < b->n_results; i += 2) {
        const result *x = &b->results[i], *y = x + 1;
        const lc_cell cells[] = {
            {.text = x->test->name},
            {.number = y->rate.median / x->rate.median},
            {.text = strcmp(x->run.logits, y->run.logits) ? "DIFFER" : "equal"},
        };
        lc_bench_row(&b->report, cells);
    }
}

static void report_model(model_bench *b, const char *path) {
    const variant *v = &b->variants[0];
    const lc_model *m = v->engine->model;
    char size[32];
    lc_bench_note(&b->report, "%s: %s shape, %zu layers, %s; compute %s, chunk %zu", path,
                  lc_member_name(m->config.member), m->config.layers,
                  lc_show_bytes(size, (double)lc_tensors_bytes(m->tensors)),
                  v->engine->bf16 ? "bf16" : "f32", v->engine->chunk);
    double mapped = (double)lc_pages_large() / (double)lc_tensors_bytes(m->tensors);
    lc_bench_fact(&b->report, "large_pages", mapped, "%.0f %% of the weights are in large pages",
                  100 * mapped);
    lc_bench_fact(&b->report, "open_seconds", v->open_seconds, "opened in %.3f s", v->open_seconds);
    lc_bench_fact(&b->report, "first_token_seconds", v->first_seconds,
                  "first token of a prompt of one after %.3f s more", v->first_seconds);
}

/* Says so where the model has too few positions for a test. */
static bool fits_context(model_bench *b, const test *t) {
    size_t context = b->variants[0].engine->context;
    size_t needed = t->prefill ? t->prefill : t->depth + (size_t)b->flags->steps;
    if (needed <= context) return true;
    lc_bench_note(&b->report, "%s: left out, the model has %zu positions", t->name, context);
    return false;
}

static int run_all(model_bench *b, const char *model) {
    int status = list_tests(b);
    if (status == LC_OK) status = open_variants(b, model);
    if (status == LC_OK)
        status = lc_bench_begin(&b->report, b->flags->json, "bench model",
                                lc_pool_threads(b->variants[0].engine->pool), b->err);
    if (status != LC_OK) return status;
    report_model(b, model);
    status = lc_read_buffer_new((size_t)(b->flags->gb * 1e9), b->variants[0].engine->pool,
                                &b->buffer, b->err);
    if (status != LC_OK) return status;
    lc_limits_measure(b->variants[0].engine->pool, 0.03, &b->limits);
    lc_bench_limits(&b->report, lc_read_rate(&b->buffer, b->variants[0].engine->pool), &b->limits);
    open_results(&b->report);
    for (size_t i = 0; i < b->n_tests && status == LC_OK; i++)
        if (fits_context(b, &b->tests[i])) status = run_test(b, &b->tests[i]);
    if (status != LC_OK) return status;
    if (b->n_variants == 2) report_comparison(b);
    if (b->flags->project) report_projection(b);
    for (size_t i = 0; i < b->n_results; i++) report_stages(b, &b->results[i]);
    lc_bench_end(&b->report);
    return LC_OK;
}

static void close_variants(model_bench *b) {
    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < MAX_BATCH; i++) lc_session_close(b->variants[v].sessions[i]);
        lc_engine_close(b->variants[v].engine);
    }
}

int lc_bench_model(int argc, char **argv) {
    model_flags f = {.prefill = "512,2048",
                     .depths = "0,1024,8192,32768",
                     .steps = 32,
                     .batch = 8,
                     .batch_depth = 1024,
                     .repeat = 3};
    const lc_opt options[] = {
        {"prefill", 0, LC_OPT_STRING, &f.prefill, "LIST",
         "lengths of prompts (default: 512,2048; 0: none)", 0, 0},
        {"depths", 0, LC_OPT_STRING, &f.depths, "LIST",
         "contexts to decode at, filled with random cache entries (default: 0,1024,8192,32768)", 0,
         0},
        {"steps", 0, LC_OPT_INT, &f.steps, "N", "tokens of a decode run (default: 32)", 1, 1 << 20},
        {"batch", 0, LC_OPT_INT, &f.batch, "N",
         "also decode so many sequences at once (default: 8; 1: don't)", 1, MAX_BATCH},
        {"batch-depth", 0, LC_OPT_INT, &f.batch_depth, "N", "context of each (default: 1024)", 0,
         1 << 30},
        {"repeat", 0, LC_OPT_INT, &f.repeat, "N", "repetitions (default: 3)", 1, MAX_REPEAT},
        {"compare-isa", 0, LC_OPT_STRING, &f.compare, "A,B",
         "run two instruction sets in turns, A B A B", 0, 0},
        {"project", 0, LC_OPT_INT, &f.project, "N", "also tokens a second of N layers like these",
         1, 1024},
        {"memory-gb", 0, LC_OPT_FLOAT, &f.gb, "GB",
         "memory to read for the limit (default: 4 times the largest cache, at least 1 GiB)", 0.01,
         100000},
        {"json", 0, LC_OPT_FLAG, &f.json, NULL, "print JSON", 0, 0},
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {
        "longcat bench model MODEL [options]",
        "Measures prefill and decode with random tokens: tokens a second, what share that is of\n"
        "the read bandwidth (decode) and of the instructions (prefill), and the time of each\n"
        "stage of the forward pass. `longcat bench make` writes models to measure.",
        options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    lc_err err = {0};
    model_bench b = {.flags = &f, .err = &err};
    int status = run_all(&b, args[0]);
    close_variants(&b);
    lc_read_buffer_free(&b.buffer);
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
