/*
 * test_bench.c: the parts of `longcat bench`: costs against the parameter counts of the config,
 * measured runs against ordinary sessions, limits, and that the reports are JSON. No speed is
 * asserted. uses-threads
 */
#include "test.h"

#include "base/hash.h"
#include "base/json.h"
#include "engine/bench.h"
#include "engine/machine.h"
#include "engine/synthetic.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const models[] = {
    "tests/golden/model/flash-tiny",  "tests/golden/model/lite-odd",
    "tests/golden/model/sparse-tiny", "tests/golden/model/two-tiny-bf16",
    "tests/golden/model/two-fp8",     "tests/golden/model/int8",
};
enum { MODELS = sizeof models / sizeof *models };

static lc_engine *open_engine(const char *path, const char *isa, size_t chunk) {
    lc_engine *engine;
    lc_err err = {0};
    lc_engine_options options = {.threads = 2, .chunk = chunk, .isa = isa};
    assert_ok(lc_engine_open(path, &options, &engine, &err), err);
    return engine;
}

/* ---- costs ---- */

/* A checkpoint's codes are multiplied as codes in the BF16 compute type, those of 4 bits as such.
 */
static void check_codes(const char *path, lc_peak_kind codes) {
    lc_engine *e = open_engine(path, NULL, 0);
    const lc_config *c = &e->model->config;
    lc_cost_rows rows = {0, 1};
    lc_op_times hit = {.expert_rows = 3};
    lc_cost bf16 = {0}, f32 = {0};
    double experts = 3 * 2.0 * 3 * (double)(c->hidden * c->expert_ffn);
    lc_cost_step(e->model, 2, &rows, 1, 1, &bf16);
    lc_cost_experts(e->model, 2, &hit, &bf16);
    lc_cost_step(e->model, 4, &rows, 1, 1, &f32);
    lc_cost_experts(e->model, 4, &hit, &f32);
    for (int kind = 0; kind < LC_PEAK_KINDS; kind++) {
        assert_true(bf16.operations[kind][LC_STAGE_EXPERTS] ==
                    ((lc_peak_kind)kind == codes ? experts : 0));
        assert_true(f32.operations[kind][LC_STAGE_EXPERTS] == (kind == LC_PEAK_F32 ? experts : 0));
    }
    assert_true(lc_cost_operations(&bf16) == lc_cost_operations(&f32));
    lc_engine_close(e);
}

static void codes_count_apart(void **state) {
    (void)state;
    check_codes("tests/golden/model/int8", LC_PEAK_INT8);
    check_codes("tests/golden/quant/auto-round", LC_PEAK_INT4);
}

/* What products read of kv_b is a copy of ours: codes with their scales, or values. */
static void kv_b_counts_as_packed(void **state) {
    (void)state;
    lc_engine *e = open_engine("models/nano", NULL, 0); /* int8 */
    lc_cost_rows rows = {0, 1};
    lc_cost cost = {0}, f32 = {0};
    double kv_b = 0, others = 0, stored = 0, products = 0;
    for (size_t l = 0; l < e->model->config.layers; l++)
        for (int s = 0; s < 2; s++) {
            const lc_mla_weights *w = &e->model->layers[l].attn[s];
            const lc_mat *mats[] = {&w->q_a, &w->q_b, &w->kv_a, &w->o};
            for (int i = 0; i < 4; i++) {
                others += (double)lc_mat_bytes(mats[i]);
                products += (double)(mats[i]->rows * mats[i]->cols);
            }
            kv_b += (double)(w->kv_b.rows * w->kv_b.cols);
            stored += (double)lc_mat_bytes(&w->kv_b);
        }
    lc_cost_step(e->model, 2, &rows, 1, 1, &cost);
    lc_cost_step(e->model, 4, &rows, 1, 1, &f32);
    assert_true(cost.operations[LC_PEAK_BF16][LC_STAGE_PROJECT] == 0);
    assert_true(cost.operations[LC_PEAK_INT8][LC_STAGE_PROJECT] == 2 * (products + kv_b));
    assert_true(f32.operations[LC_PEAK_F32][LC_STAGE_PROJECT] == 2 * (products + kv_b));
    double read = cost.bytes[LC_STAGE_PROJECT] - others;
    assert_true(read >= stored && read < 1.05 * stored);
    lc_engine_close(e);
}

/* Operations of a token's products are two a parameter: config_count.c counts those apart from
 * norms, biases and attention over the cache. */
static void a_token_costs_two_operations_a_parameter(void **state) {
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        lc_engine *e = open_engine(models[i], NULL, 0);
        const lc_config *c = &e->model->config;
        lc_param_counts n;
        lc_cost cost = {0};
        lc_cost_rows rows = {0, 1};
        lc_op_times hit = {.expert_rows = c->layers * 2}; /* two experts a layer */
        lc_config_count(c, &n);
        lc_cost_step(e->model, 2, &rows, 1, 1, &cost);
        lc_cost_experts(e->model, 2, &hit, &cost);
        uint64_t vectors = n.norms + 2 * c->layers * (c->q_rank + c->kv_rank) +
                           c->layers * (c->experts + c->zero_experts) +
                           (c->index_heads ? c->layers * c->index_dim : 0);
        double weights = (double)(n.active_zero - vectors + n.experts / c->experts * 2);
        double attend = cost.operations[LC_PEAK_BF16][LC_STAGE_ATTEND];
        assert_true(attend > 0);
        assert_true(lc_cost_operations(&cost) - attend == 2 * weights);
        /* The cache of one position. */
        double kv = cost.bytes[LC_STAGE_ATTEND];
        assert_true(kv == (double)(2 * c->layers * (c->kv_rank + c->rope_dim) * 2));
        lc_engine_close(e);
    }
}

/* All weights but experts, word table and n-gram tables are read once a step, whatever its rows:
 * the files' own bytes. */
static void a_step_reads_the_shared_weights_once(void **state) {
    (void)state;
    lc_engine *e = open_engine("tests/golden/model/two-tiny-bf16", NULL, 0);
    const lc_config *c = &e->model->config;
    lc_param_counts n;
    lc_config_count(c, &n);
    lc_cost one = {0}, many = {0};
    lc_cost_step(e->model, 2, &(lc_cost_rows){0, 1}, 1, 1, &one);
    lc_cost_step(e->model, 2, &(lc_cost_rows){0, 1}, 1, 1, &many);
    for (int s = 0; s < LC_STAGE_COUNT; s++) assert_true(one.bytes[s] == many.bytes[s]);
    lc_cost_step(e->model, 2, &(lc_cost_rows){0, 9}, 1, 9, &many);
    static const lc_stage shared[] = {LC_STAGE_PROJECT, LC_STAGE_ROUTE, LC_STAGE_DENSE,
                                      LC_STAGE_HEAD};
    for (size_t i = 0; i < 4; i++) {
        assert_true(many.bytes[shared[i]] == 2 * one.bytes[shared[i]]);
        assert_true(one.bytes[shared[i]] > 0);
        for (int kind = 0; kind < LC_PEAK_KINDS; kind++)
            assert_true(many.operations[kind][shared[i]] == 10 * one.operations[kind][shared[i]]);
    }
    assert_true(one.bytes[LC_STAGE_DENSE] == 2.0 * (double)n.dense_ffn);
    assert_true(one.bytes[LC_STAGE_HEAD] == 2.0 * (double)n.head);
    assert_true(one.bytes[LC_STAGE_ROUTE] ==
                4.0 * (double)(c->layers * (c->experts + c->zero_experts) * c->hidden));
    /* Sparse attention reads at most the chosen keys; the indexer then sees all. */
    lc_cost deep = {0};
    size_t depth = 10 * c->index_topk, width = c->kv_rank + c->rope_dim;
    lc_cost_step(e->model, 2, &(lc_cost_rows){depth, 1}, 1, 1, &deep);
    assert_true(deep.bytes[LC_STAGE_ATTEND] == (double)(2 * c->layers * c->index_topk * width * 2));
    assert_true(deep.bytes[LC_STAGE_INDEX] - one.bytes[LC_STAGE_INDEX] ==
                (double)(c->layers * (depth + 1) * c->index_dim * 2));
    lc_engine_close(e);
}

/* ---- runs ---- */

/* Prefill of n tokens, decode of n tokens from nothing, other chunks and instruction sets: the same
 * logits, and the experts that the steps hit. */
static void runs_give_the_sessions_logits(void **state) {
    (void)state;
    enum { N = 21 };
    for (size_t i = 0; i < MODELS; i++) {
        char logits[4][33];
        lc_err err = {0};
        for (int way = 0; way < 4; way++) {
            lc_engine *e = open_engine(models[i], way == 3 ? "scalar" : NULL, way == 1 ? 5 : 64);
            const lc_config *c = &e->model->config;
            lc_bench_run run = {0};
            lc_session *s;
            if (way == 2) {
                assert_ok(lc_session_open(e, &s, &err), err);
                assert_ok(lc_bench_decode(&s, 1, 0, N, &run, &err), err);
                lc_session_close(s);
            } else {
                assert_ok(lc_bench_prefill(e, N, &run, &err), err);
            }
            assert_int_equal(run.tokens, N);
            memcpy(logits[way], run.logits, sizeof run.logits);
            assert_true(run.times.expert_rows <= N * c->layers * c->topk);
            assert_true(run.times.experts <= run.times.expert_rows);
            if (way == 2) assert_int_equal(run.times.experts, run.times.expert_rows);
            uint64_t ns = 0;
            for (int stage = 0; stage < LC_STAGE_COUNT; stage++) ns += run.times.ns[stage];
            assert_true(ns > 0 && (double)ns / 1e9 <= run.seconds);
            assert_true((run.times.ns[LC_STAGE_INDEX] > 0) == (c->index_heads > 0));
            assert_null(e->work->op.times);
            lc_engine_close(e);
        }
        for (int way = 1; way < 4; way++) assert_string_equal(logits[0], logits[way]);
    }
}

/* The hash is that of an ordinary session's logits for the same tokens. */
static void the_hash_is_of_the_logits(void **state) {
    (void)state;
    lc_engine *e = open_engine("tests/golden/model/lite-tiny", NULL, 0);
    lc_session *s;
    lc_bench_run run = {0};
    lc_err err = {0};
    size_t count;
    char hex[65];
    assert_ok(lc_session_open(e, &s, &err), err);
    assert_ok(lc_bench_decode(&s, 1, 0, 9, &run, &err), err);
    const int32_t *list = lc_session_tokens(s, &count);
    assert_int_equal(count, 9);
    lc_session *plain;
    assert_ok(lc_session_open(e, &plain, &err), err);
    assert_ok(lc_session_sync(plain, list, count, &err), err);
    lc_hash *hash = lc_hash_new(LC_HASH_XXH128);
    lc_hash_update(hash, lc_session_logits(plain), lc_engine_vocab(e) * sizeof(float));
    lc_hash_finish(hash, hex);
    assert_string_equal(hex, run.logits);
    lc_session_close(plain);
    lc_session_close(s);
    lc_engine_close(e);
}

/* A filled context is the same for every order of depths, and batches don't change a sequence. */
static void deep_contexts_are_reproducible(void **state) {
    (void)state;
    lc_engine *e = open_engine("tests/golden/model/long", NULL, 0);
    lc_session *a[2], *b[2];
    lc_bench_run first = {0}, again = {0}, other = {0}, both = {0};
    lc_err err = {0};
    for (int i = 0; i < 2; i++) {
        assert_ok(lc_session_open(e, &a[i], &err), err);
        assert_ok(lc_session_open(e, &b[i], &err), err);
    }
    assert_ok(lc_bench_decode(a, 1, 150, 7, &first, &err), err);
    assert_ok(lc_bench_decode(b, 1, 3, 80, &other, &err), err);
    assert_ok(lc_bench_decode(b, 1, 300, 2, &other, &err), err);
    assert_ok(lc_bench_decode(b, 1, 150, 7, &again, &err), err);
    assert_string_equal(first.logits, again.logits);
    assert_string_not_equal(first.logits, other.logits);
    assert_ok(lc_bench_decode(b, 2, 150, 7, &both, &err), err);
    assert_int_equal(both.tokens, 14);
    const float *alone = lc_session_logits(a[0]), *together = lc_session_logits(b[0]);
    assert_memory_equal(alone, together, lc_engine_vocab(e) * sizeof(float));
    assert_memory_not_equal(together, lc_session_logits(b[1]), lc_engine_vocab(e) * sizeof(float));
    double squares = 0; /* cached values have the scale of real ones: nothing explodes */
    for (size_t i = 0; i < lc_engine_vocab(e); i++) squares += (double)(alone[i] * alone[i]);
    assert_true(isfinite(squares) && squares > 0);
    assert_int_equal(lc_bench_fill(a[0], e->context + 1, &err), LC_ELIMIT);
    for (int i = 0; i < 2; i++) {
        lc_session_close(a[i]);
        lc_session_close(b[i]);
    }
    lc_engine_close(e);
}

static void runs_survive_short_memory(void **state) {
    (void)state;
    lc_engine *e = open_engine("tests/golden/model/sparse-tiny", NULL, 0);
    size_t before = lc_mem_current();
    int failures[2] = {0};
    for (int way = 0; way < 2; way++)
        for (long n = 0;; n++) {
            lc_bench_run run = {0};
            lc_session *s = NULL;
            lc_err err = {0};
            if (way) assert_ok(lc_session_open(e, &s, &err), err);
            lc_mem_fail_after(n);
            int status = way ? lc_bench_decode(&s, 1, 70, 2, &run, &err)
                             : lc_bench_prefill(e, 30, &run, &err);
            lc_mem_fail_after(-1);
            lc_session_close(s);
            if (status == LC_OK) break;
            assert_int_equal(status, LC_ENOMEM);
            failures[way]++;
        }
    assert_true(failures[0] > 3 && failures[1] > 3);
    assert_true(lc_mem_current() <= before + e->model->config.vocab * sizeof(float));
    lc_engine_close(e);
}

/* ---- limits ---- */

static void spreads_are_of_sorted_values(void **state) {
    (void)state;
    double odd[] = {3, 1, 2}, even[] = {4, 1, 3, 2};
    lc_spread s = lc_spread_of(odd, 3);
    assert_true(s.min == 1 && s.median == 2 && s.max == 3 && s.count == 3);
    s = lc_spread_of(even, 4);
    assert_true(s.min == 1 && s.median == 2.5 && s.max == 4);
    s = lc_spread_of(NULL, 0);
    assert_true(s.count == 0 && s.max == 0);
}

static void limits_are_measured(void **state) {
    (void)state;
    lc_pool *pool;
    lc_limits limits;
    lc_read_buffer buffer;
    lc_err err = {0};
    assert_ok(lc_pool_new(2, &pool, &err), err);
    lc_limits_measure(pool, 0.002, &limits);
    for (size_t i = 0; i < limits.n; i++) {
        assert_true(limits.rates[i] > 0 && isfinite(limits.rates[i]));
        assert_true(lc_cpu_has(limits.peaks[i]->isa));
        print_message("# %s runs\n", limits.peaks[i]->name);
    }
    /* An instruction set is limited by its own instructions and lower ones. */
    limits = (lc_limits){.n = 0};
    assert_null(lc_limits_of(&limits, LC_ISA_AMX, LC_PEAK_BF16).name);
    static const lc_peak fma = {"fma", LC_ISA_AVX2, LC_PEAK_F32, 1, NULL},
                         dot = {"dot", LC_ISA_AVX512BF16, LC_PEAK_BF16, 1, NULL};
    limits = (lc_limits){{&fma, &dot}, {10, 30}, 2};
    assert_null(lc_limits_of(&limits, LC_ISA_SCALAR, LC_PEAK_BF16).name);
    assert_string_equal(lc_limits_of(&limits, LC_ISA_AVX512, LC_PEAK_BF16).name, "fma");
    assert_string_equal(lc_limits_of(&limits, LC_ISA_AMX, LC_PEAK_BF16).name, "dot");
    assert_string_equal(lc_limits_of(&limits, LC_ISA_AMX, LC_PEAK_F32).name, "fma");
    limits.rates[1] = 5; /* slower than what it replaces */
    assert_string_equal(lc_limits_of(&limits, LC_ISA_AMX, LC_PEAK_BF16).name, "fma");
    assert_ok(lc_read_buffer_new(9000000, pool, &buffer, &err), err);
    assert_true(buffer.bytes >= 9000000);
    assert_true(lc_read_rate(&buffer, pool) > 0 && lc_read_rate(&buffer, NULL) > 0);
    lc_read_buffer_free(&buffer);
    lc_pool_free(pool);
}

static void disks_are_read(void **state) {
    (void)state;
    lc_disk_read d;
    struct stat st;
    lc_err err = {0};
    const char *file = "tests/golden/model/lite-odd/model.safetensors";
    assert_int_equal(stat(file, &st), 0);
    assert_ok(lc_disk_read_rate(file, 1 << 30, 3, &d, &err), err);
    assert_int_equal(d.bytes, st.st_size);
    assert_int_equal(d.rate.count, 3);
    assert_true(d.rate.min > 0 && d.rate.min <= d.rate.median && d.rate.median <= d.rate.max);
    assert_ok(lc_disk_read_rate(file, 2 << 20, 1, &d, &err), err); /* a part of it */
    assert_int_equal(d.bytes, 2 << 20);
    assert_ok(lc_disk_read_rate("tests/golden/model/lite-odd", 1 << 30, 1, &d, &err), err);
    assert_true(d.bytes > (uint64_t)st.st_size);
    assert_int_equal(lc_disk_read_rate("tests/absent", 1, 1, &d, &err), LC_ENOTFOUND);
    assert_non_null(strstr(err.text, "tests/absent"));
    assert_int_equal(lc_disk_read_rate("tests/data", 1, 1, &d, &err),
                     LC_ENOTFOUND); /* folders only */
}

/* ---- the program ---- */

/* Runs `longcat bench <arguments>`; *code gets its exit code. */
static lc_buf run_program(const char *arguments, int *code) {
    char command[700], part[4096];
    lc_buf out = {0};
    snprintf(command, sizeof command, "%s bench %s 2>/dev/null", test_program(), arguments);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    for (size_t n; (n = fread(part, 1, sizeof part, pipe)) > 0;) lc_buf_append(&out, part, n);
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    *code = WEXITSTATUS(status);
    assert_true(lc_buf_reserve(&out, 0));
    return out;
}

static struct json_object *run_json(const char *arguments) {
    struct json_object *o, *machine, *cpu;
    lc_err err = {0};
    int code;
    lc_buf out = run_program(arguments, &code);
    if (code) fail_msg("bench %s: exit code %d", arguments, code);
    assert_ok(lc_json_parse(out.data, out.len, arguments, &o, &err), err);
    assert_true(json_object_object_get_ex(o, "machine", &machine));
    assert_true(json_object_object_get_ex(machine, "cpu", &cpu));
    assert_string_equal(json_object_get_string(cpu), lc_cpu_model());
    assert_true(json_object_object_get_ex(machine, "compiler", &cpu));
    lc_buf_free(&out);
    return o;
}

static struct json_object *member(struct json_object *o, const char *key) {
    struct json_object *value = NULL;
    if (!json_object_object_get_ex(o, key, &value)) fail_msg("no %s in the report", key);
    return value;
}

/* Rows of a table. */
static size_t rows_of(struct json_object *report, const char *table) {
    return json_object_array_length(member(report, table));
}

static struct json_object *row_of(struct json_object *report, const char *table, size_t i) {
    return json_object_array_get_idx(member(report, table), i);
}

static void machine_reports_json(void **state) {
    (void)state;
    struct json_object *o =
        run_json("machine --json --repeat 1 --memory-gb 0.01 -t 2 --disk tests/golden/tiny-code");
    const lc_peak *peaks[LC_PEAKS];
    assert_int_equal(rows_of(o, "memory"), 2);
    assert_int_equal(rows_of(o, "instructions"), 2 * lc_peaks(peaks));
    assert_true(json_object_get_double(member(row_of(o, "disk", 0), "bytes_per_s")) > 0);
    assert_true(json_object_get_double(member(row_of(o, "memory", 1), "bytes_per_s")) > 0);
    json_object_put(o);
}

/* Every case of every instruction set of this machine has the scalar kernels' bits. */
static void kernels_report_equal_bits(void **state) {
    (void)state;
    static const char *const only[] = {"row ", "kv_a", "absorb", "decode attention 1K"};
    static const char *const of_int8[] = {"vpdpbusd", "tdpbssd"};
    size_t cases = 0, isas = 0, of_codes = 0;
    for (int isa = 0; isa < LC_ISA_COUNT; isa++)
        if (lc_cpu_has((lc_isa)isa)) isas++;
    for (size_t i = 0; i < 4; i++) {
        char arguments[128];
        snprintf(arguments, sizeof arguments,
                 "kernels --json --repeat 1 --seconds 0.0001 --memory-gb 0.02 --rows 8 --only '%s'",
                 only[i]);
        struct json_object *o = run_json(arguments);
        size_t n = rows_of(o, "kernels");
        assert_true(n > 0 && n % isas == 0);
        for (size_t r = 0; r < n; r++) {
            struct json_object *row = row_of(o, "kernels", r);
            assert_string_equal(json_object_get_string(member(row, "bits")), "equal");
            assert_true(json_object_get_double(member(row, "ops_per_s")) > 0);
            const char *limit = json_object_get_string(member(row, "limit"));
            for (int l = 0; l < 2; l++) of_codes += limit && !strcmp(limit, of_int8[l]);
        }
        cases += n;
        json_object_put(o);
    }
    /* Codes are measured by the instruction that multiplies codes. */
    bool dots = lc_cpu_has(LC_ISA_AVX512) && lc_cpu_can(LC_CPU_AVX512_VNNI);
    assert_true(!dots || of_codes > 0);
    print_message("# %zu cases with equal bits\n", cases);
    int code;
    lc_buf out = run_program("kernels --isa nonsense", &code);
    assert_int_equal(code, 1);
    lc_buf_free(&out);
}

static void models_are_made_and_measured(void **state) {
    (void)state;
    char folder[256], arguments[600];
    const char *base = getenv("TMPDIR");
    int code;
    snprintf(folder, sizeof folder, "%s/longcat-XXXXXX", base ? base : P_tmpdir);
    assert_non_null(mkdtemp(folder));
    snprintf(arguments, sizeof arguments,
             "make --shape tests/golden/model/two-tiny/config.json --type fp8 --layers 2 %s/m",
             folder);
    lc_buf out = run_program(arguments, &code);
    assert_int_equal(code, 0);
    assert_non_null(strstr(out.data, "of weights"));
    lc_buf_free(&out);
    snprintf(arguments, sizeof arguments,
             "model %s/m --json --prefill 20,40 --depths 0,70 --steps 3 --batch 3 --batch-depth 33 "
             "--repeat 2 --memory-gb 0.01 -t 2 --compare-isa scalar,%s",
             folder, lc_isa_name(lc_kernels_best((lc_isa)(LC_ISA_COUNT - 1), NULL)->isa));
    struct json_object *o = run_json(arguments);
    assert_int_equal(rows_of(o, "results"), 10);
    assert_int_equal(rows_of(o, "comparison"), 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(json_object_get_string(member(row_of(o, "comparison", i), "bits")),
                            "equal");
    for (size_t i = 0; i < 10; i++) {
        struct json_object *row = row_of(o, "results", i);
        assert_true(json_object_get_double(member(row, "tokens_per_s")) > 0);
        assert_true(json_object_get_double(member(row, "bytes_per_token")) > 0);
        assert_int_equal(strlen(json_object_get_string(member(row, "logits"))), 32);
    }
    assert_true(rows_of(o, "stages") >= 10 * 7);
    json_object_put(o);
    out = run_program("model tests/absent", &code);
    assert_int_equal(code, 1);
    lc_buf_free(&out);
    out = run_program("nonsense", &code);
    assert_int_equal(code, 2);
    lc_buf_free(&out);
    snprintf(arguments, sizeof arguments, "rm -rf '%s'", folder);
    assert_int_equal(system(arguments), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_costs_two_operations_a_parameter),
        cmocka_unit_test(codes_count_apart),
        cmocka_unit_test(kv_b_counts_as_packed),
        cmocka_unit_test(a_step_reads_the_shared_weights_once),
        cmocka_unit_test(runs_give_the_sessions_logits),
        cmocka_unit_test(the_hash_is_of_the_logits),
        cmocka_unit_test(deep_contexts_are_reproducible),
        cmocka_unit_test(runs_survive_short_memory),
        cmocka_unit_test(spreads_are_of_sorted_values),
        cmocka_unit_test(limits_are_measured),
        cmocka_unit_test(disks_are_read),
        cmocka_unit_test(machine_reports_json),
        cmocka_unit_test(kernels_report_equal_bits),
        cmocka_unit_test(models_are_made_and_measured),
    };
    return test_main(tests);
}
