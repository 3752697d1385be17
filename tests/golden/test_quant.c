/*
 * test_quant.c: checkpoints that other projects' tools quantised (tests/golden/quant): every weight
 * equals the tool's own dequantised one bit for bit, whatever the instruction set and the number of
 * rows asked for; logits equal those of the dequantised checkpoint, and mlx-lm's.
 */
#include "golden.h"

#include "base/file.h"
#include "base/hash.h"
#include "format/names.h"
#include "format/quantize.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOT "tests/golden/quant/"

static const char *const folders[] = {"compressed-tensors", "gptq", "auto-round", "mlx"};
enum { N_FOLDERS = sizeof folders / sizeof *folders, TOKENS = 24 };

typedef struct checkpoint {
    char dir[320];
    lc_config config;
    lc_tensors *tensors;
    struct json_object *hashes;
    /* the dequantised weights */
    lc_tensor plain[128];
    char names[128][128];
    size_t count, quantised;
} checkpoint;

static void open_checkpoint(checkpoint *c, const char *folder) {
    char path[400];
    struct json_object *json = NULL;
    lc_err err = {0};
    *c = (checkpoint){0};
    snprintf(c->dir, sizeof c->dir, ROOT "%s", folder);
    assert_ok(lc_config_load(c->dir, &c->config, &err), err);
    snprintf(path, sizeof path, "%s/model.safetensors", c->dir);
    assert_ok(lc_tensors_open(path, &c->tensors, &err), err);
    lc_tensors_set_quant(c->tensors, &c->config.quant);
    snprintf(path, sizeof path, "%s/expected.json", c->dir);
    assert_ok(lc_json_load(path, 0, &json, &err), err);
    assert_true(json_object_object_get_ex(json, "weights", &c->hashes));
    json_object_get(c->hashes);
    json_object_put(json);
}

static void close_checkpoint(checkpoint *c) {
    for (size_t i = 0; i < c->count; i++) lc_free((void *)(uintptr_t)c->plain[i].data);
    json_object_put(c->hashes);
    lc_tensors_close(c->tensors);
}

static void check_hash(const checkpoint *c, const char *name, const float *values, size_t count) {
    struct json_object *want = NULL;
    char hex[65];
    lc_hash *h = lc_hash_new(LC_HASH_SHA256);
    assert_non_null(h);
    lc_hash_update(h, values, count * sizeof *values);
    lc_hash_finish(h, hex);
    if (!json_object_object_get_ex(c->hashes, name, &want)) fail_msg("%s: no hash", name);
    if (strcmp(hex, json_object_get_string(want)))
        fail_msg("%s: %s is not as its tool dequantises it", c->dir, name);
}

/* All rows, `block` at a time. */
static void decode(const lc_mat *m, lc_isa isa, size_t block, float *out) {
    for (size_t row = 0; row < m->rows; row += block) {
        size_t n = m->rows - row < block ? m->rows - row : block;
        lc_mat_rows_f32(lc_kernels_of(isa), m, row, n, out + row * m->cols, m->cols);
    }
}

static int take_weight(void *ctx, const lc_name *n) {
    checkpoint *c = ctx;
    lc_mat m;
    lc_err err = {0};
    size_t rows = n->rank == 1 ? 1 : n->shape[0], cols = n->rank == 1 ? n->shape[0] : n->shape[1];
    if (n->part >= LC_PART_MTP) return LC_OK;
    assert_ok(lc_mat_bind(c->tensors, n->name, rows, cols, &m, &err), err);
    float *first = lc_alloc(rows * cols * sizeof *first), *other = lc_alloc(rows * cols * 4);
    assert_true(first && other);
    decode(&m, LC_ISA_SCALAR, rows, first);
    check_hash(c, n->name, first, rows * cols);
    static const size_t blocks[] = {1, 5, 16, 33, 1000};
    for (int isa = LC_ISA_SCALAR; isa < LC_ISA_COUNT; isa++)
        for (size_t b = 0; b < 5 && lc_kernels_of((lc_isa)isa); b++) {
            memset(other, 0, rows * cols * sizeof *other);
            decode(&m, (lc_isa)isa, blocks[b], other);
            assert_memory_equal(first, other, rows * cols * sizeof *first);
        }
    c->quantised += m.scaling != LC_SCALE_NONE;
    lc_free(other);
    lc_mat_unbind(&m);
    assert_true(c->count < 128);
    snprintf(c->names[c->count], sizeof c->names[0], "%s", n->name);
    c->plain[c->count] = (lc_tensor){.name = c->names[c->count],
                                     .dtype = LC_F32,
                                     .rank = n->rank,
                                     .shape = {n->shape[0], n->shape[1]},
                                     .data = first};
    c->count++;
    return LC_OK;
}

static void test_weights(void **state) {
    static checkpoint c;
    open_checkpoint(&c, *state);
    lc_names_expected(&c.config, take_weight, &c);
    printf("# %s: %zu weights, %zu of them quantised\n", c.dir, c.count, c.quantised);
    assert_int_equal(c.count, (size_t)json_object_object_length(c.hashes));
    assert_true(c.quantised >= 17);
    close_checkpoint(&c);
}

/* Every tensor belongs to a weight, and parts add up to the file. */
static void test_inventory(void **state) {
    static checkpoint c;
    lc_inventory v;
    lc_err err = {0};
    uint64_t bytes = 0;
    open_checkpoint(&c, *state);
    assert_ok(lc_inventory_take(&c.config, c.tensors, &v, &err), err);
    if (v.n_wrong) fail_msg("%s", v.wrong.data);
    if (v.n_unknown) fail_msg("unknown: %s", v.unknown.data);
    assert_int_equal(v.n_missing, 0);
    for (int p = 0; p < LC_PART_COUNT; p++) bytes += v.parts[p].bytes;
    assert_int_equal(bytes, lc_tensors_bytes(c.tensors));
    lc_inventory_free(&v);
    close_checkpoint(&c);
}

/* ---- logits ---- */

static float *logits_of(const char *dir, golden_engine_options o, const int32_t *tokens,
                        size_t batch, size_t *count) {
    lc_err err = {0};
    o.chunk = 2 * TOKENS;
    lc_engine *engine = golden_engine(dir, o);
    lc_eval_input input = {.tokens = tokens,
                           .batch = batch,
                           .length = TOKENS,
                           .chunk = o.threads == 1 ? 5 : TOKENS,
                           .together = 2};
    lc_eval_result result;
    assert_ok(lc_eval_logits(engine, &input, false, false, &result, &err), err);
    const lc_eval_entry *e = golden_entry(&result, "logits");
    *count = batch * e->rows * e->cols;
    float *logits = lc_alloc(*count * sizeof *logits);
    assert_non_null(logits);
    memcpy(logits, e->data, *count * sizeof *logits);
    lc_eval_free(&result);
    lc_engine_close(engine);
    return logits;
}

/* The dequantised checkpoint in a folder of its own. */
static void write_plain(const checkpoint *c, char folder[64]) {
    char path[128], source[400];
    lc_err err = {0};
    lc_buf config = {0};
    snprintf(folder, 64, "/tmp/longcat-quant-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_ok(lc_safetensors_write(path, c->plain, c->count, &err), err);
    snprintf(source, sizeof source, "%s/config.json", c->dir);
    assert_ok(lc_file_read(source, 0, &config, &err), err);
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(config.data, 1, config.len, f), config.len);
    fclose(f);
    lc_buf_free(&config);
}

static void remove_plain(const char *folder) {
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    rmdir(folder);
}

/* Distance of two lists as a share of the second's root mean square. */
static double distance(const float *a, const float *b, size_t n) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / size);
}

/*
 * In fp32, quantised and dequantised give the same bits. In bf16 codes meet activations of 8 bits:
 * the same bits with any instruction set and number of threads, and not farther from the
 * dequantised model in fp32 than the two roundings allow. A step of int8 is m / 127, m the largest
 * of a group, 2.5 to 3 times its RMS for 64 to 128 normal values: an error of m / 127 / sqrt(12),
 * 0.6 to 0.7 % of the RMS. BF16 rounds a value to within 2^-9 of it, 0.11 % in the RMS, and here
 * also the weights, together 0.16 %: so the same model in BF16 is taken as the measure, and 4.5
 * times its distance as the limit.
 */
static const double int8_over_bf16 = 4.5;

static void test_logits(void **state) {
    static checkpoint c;
    char folder[64];
    int32_t tokens[2 * TOKENS];
    for (int i = 0; i < 2 * TOKENS; i++) tokens[i] = (i * 29 + i / 7) % 61 + 3;
    open_checkpoint(&c, *state);
    lc_names_expected(&c.config, take_weight, &c);
    write_plain(&c, folder);
    size_t n, m;
    golden_engine_options f32 = {.compute = "f32"}, bf16 = {.compute = "bf16"};
    float *exact = logits_of(folder, f32, tokens, 2, &n);
    float *rounded = logits_of(folder, bf16, tokens, 2, &n);
    float *coded = logits_of(c.dir, bf16, tokens, 2, &n);
    for (int compute = 0; compute < 2; compute++) {
        golden_engine_options o = compute ? bf16 : f32;
        size_t runs = 0;
        for (int isa = LC_ISA_SCALAR; isa < LC_ISA_COUNT; isa++)
            for (o.threads = 1; o.threads <= 3 && lc_kernels_of((lc_isa)isa); o.threads++) {
                o.isa = lc_isa_name((lc_isa)isa);
                float *got = logits_of(c.dir, o, tokens, 2, &m);
                assert_int_equal(n, m);
                assert_memory_equal(got, compute ? coded : exact, n * sizeof *got);
                lc_free(got);
                runs++;
            }
        printf("# %s, %s: %zu runs, the same bits\n", c.dir, o.compute, runs);
    }
    double off = distance(coded, exact, n), measure = distance(rounded, exact, n);
    printf("# %s: %.4f of the RMS from exact weights and activations, %.4f in BF16\n", c.dir, off,
           measure);
    assert_true(off < int8_over_bf16 * measure);
    lc_free(exact);
    lc_free(rounded);
    lc_free(coded);
    remove_plain(folder);
    close_checkpoint(&c);
}

static void remove_folder(const char *path) {
    DIR *dir = opendir(path);
    char file[400];
    for (struct dirent *e; dir && (e = readdir(dir));) {
        snprintf(file, sizeof file, "%s/%.255s", path, e->d_name);
        unlink(file); /* not the folders */
    }
    if (dir) closedir(dir);
    rmdir(path);
}

/* The model written once more, quantised or in strips. */
static size_t rewrite(const char *model, const char *out, lc_quantize_type type, bool strips) {
    lc_quantize_options o = {.type = type, .group = 32, .strips = strips};
    lc_quantize_result r;
    lc_err err = {0};
    o.embeddings = o.head = true;
    o.kernels = lc_kernels_of(LC_ISA_SCALAR);
    assert_ok(lc_quantize(model, out, &o, &r, &err), err);
    return r.packed;
}

/* Strips give the bits of the same codes or BF16 values by row or by column, on every instruction
 * set. */
static void same_logits(const char *rows, const char *strips) {
    int32_t tokens[2 * TOKENS];
    size_t n, m, runs = 0;
    for (int i = 0; i < 2 * TOKENS; i++) tokens[i] = (i * 23 + i / 3) % 61 + 3;
    for (int compute = 0; compute < 2; compute++)
        for (int isa = LC_ISA_SCALAR; isa < LC_ISA_COUNT; isa++) {
            if (!lc_kernels_of((lc_isa)isa)) continue;
            for (int threads = 1; threads <= 2; threads++, runs++) {
                golden_engine_options o = {.compute = compute ? "bf16" : "f32",
                                           .threads = threads,
                                           .isa = lc_isa_name((lc_isa)isa)};
                float *want = logits_of(rows, o, tokens, 2, &n);
                float *got = logits_of(strips, o, tokens, 2, &m);
                assert_int_equal(n, m);
                assert_memory_equal(want, got, n * sizeof *got);
                lc_free(want);
                lc_free(got);
            }
        }
    printf("# %s: %zu runs, the same bits in strips\n", rows, runs);
}

static void test_strips(void **state) {
    char root[] = "/tmp/longcat-strips-XXXXXX", rows[64], strips[64];
    (void)state;
    assert_non_null(mkdtemp(root));
    snprintf(rows, sizeof rows, "%s/rows", root);
    snprintf(strips, sizeof strips, "%s/strips", root);
    static const struct {
        const char *model;
        size_t packed; /* MLX's codes have biases */
    } models[] = {{ROOT "compressed-tensors", 19},
                  {ROOT "gptq", 20},
                  {ROOT "auto-round", 20},
                  {ROOT "mlx", 3},
                  {ROOT "source", 25},
                  {"tests/golden/model/two-tiny-bf16", 66}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const char *model = models[i].model;
        assert_int_equal(rewrite(model, strips, LC_QUANTIZE_NONE, true), models[i].packed);
        same_logits(model, strips);
        remove_folder(strips);
    }
    for (int i = 0; i < 3; i++) {
        lc_quantize_type type =
            (lc_quantize_type[]){LC_QUANTIZE_INT8, LC_QUANTIZE_INT4, LC_QUANTIZE_MIXED}[i];
        assert_int_equal(rewrite(ROOT "source", rows, type, false), 0);
        assert_true(rewrite(ROOT "source", strips, type, true) >= 25);
        same_logits(rows, strips);
        remove_folder(rows);
        remove_folder(strips);
    }
    rmdir(root);
}

static bool stays(const char *name) {
    return strstr(name, "experts.1.down_proj") || strstr(name, "experts.2.");
}

/* Tensors of `from` that `stays` chooses, or the others. */
static size_t choose(const lc_tensors *from, bool staying, lc_tensor *out) {
    size_t n = 0;
    for (size_t i = 0; i < lc_tensors_count(from); i++)
        if (stays(lc_tensors_at(from, i)->name) == staying) out[n++] = *lc_tensors_at(from, i);
    return n;
}

/* Some experts are quantised, of one only a part, others aren't: near what none of that gives. */
static void test_mixed_experts(void **state) {
    static const char model[] = ROOT "source";
    char root[] = "/tmp/longcat-mixed-XXXXXX", int8[64], mixed[64], from[128], to[128];
    static lc_tensor all[512];
    lc_tensors *plain, *coded;
    int32_t tokens[2 * TOKENS];
    lc_err err = {0};
    size_t n, m;
    (void)state;
    for (int i = 0; i < 2 * TOKENS; i++) tokens[i] = (i * 23 + i / 3) % 61 + 3;
    assert_non_null(mkdtemp(root));
    snprintf(int8, sizeof int8, "%s/int8", root);
    snprintf(mixed, sizeof mixed, "%s/mixed", root);
    rewrite(model, int8, LC_QUANTIZE_INT8, false);
    assert_ok(lc_tensors_open(model, &plain, &err), err);
    assert_ok(lc_tensors_open(int8, &coded, &err), err);
    assert_true(lc_tensors_count(plain) + lc_tensors_count(coded) < 512);
    size_t staying = choose(plain, true, all),
           whole = staying + choose(coded, false, all + staying);
    assert_true(staying >= 4 && whole < lc_tensors_count(coded));
    assert_int_equal(mkdir(mixed, 0700), 0);
    snprintf(to, sizeof to, "%s/model.safetensors", mixed);
    assert_ok(lc_safetensors_write(to, all, whole, &err), err);
    snprintf(from, sizeof from, "%s/config.json", int8);
    snprintf(to, sizeof to, "%s/config.json", mixed);
    assert_int_equal(rename(from, to), 0);
    lc_tensors_close(plain);
    lc_tensors_close(coded);
    float *want = logits_of(model, (golden_engine_options){.compute = "bf16"}, tokens, 2, &n);
    float *got = logits_of(mixed, (golden_engine_options){.compute = "bf16"}, tokens, 2, &m);
    assert_int_equal(n, m);
    double off = distance(got, want, n);
    printf("# some experts in int8: %.4f of the RMS away\n", off);
    assert_true(off > 0 && off < 0.1);
    lc_free(want);
    lc_free(got);
    remove_folder(int8);
    remove_folder(mixed);
    rmdir(root);
}

/* mlx-lm's logits of its own checkpoint. Its differences are switched on; f32 against fp32. */
static void test_mlx_logits(void **state) {
    (void)state;
    golden g;
    size_t n;
    golden_open(&g, ROOT "mlx");
    const lc_tensor *ids = golden_get(&g, "input_ids"), *want = golden_get(&g, "logits");
    int32_t *tokens = golden_ids(ids);
    float *got = logits_of(ROOT "mlx", (golden_engine_options){.setting = "mla_eps=1e-5"}, tokens,
                           ids->shape[0], &n);
    assert_int_equal(n, want->count);
    double error = golden_error(got, want);
    printf("# mlx-lm's logits: error %.1e of RMS\n", error);
    assert_true(error < 1e-5);
    lc_free(got);
    lc_free(tokens);
    golden_close(&g);
}

/* ---- eval kl ---- */

/* The sums of lc_eval_kl_windows from the logits of both models, by the definition. */
static void test_kl(void **state) {
    (void)state;
    enum { V = 64 };
    int32_t tokens[2 * TOKENS];
    size_t n;
    lc_err err = {0};
    for (int i = 0; i < 2 * TOKENS; i++) tokens[i] = (i * 31 + i / 5) % 61 + 3;
    float *q = logits_of(ROOT "mlx", (golden_engine_options){0}, tokens, 2, &n);
    float *p = logits_of(ROOT "source", (golden_engine_options){0}, tokens, 2, &n);
    long double kl = 0, worst = 0, nll[2] = {0};
    size_t same = 0;
    for (size_t r = 0; r < 2 * TOKENS; r++) {
        long double total[2] = {0}, row = 0;
        const float *x[2] = {q + r * V, p + r * V};
        for (int s = 0; s < 2; s++)
            for (int i = 0; i < V; i++) total[s] += expl((long double)x[s][i]);
        for (int i = 0; i < V; i++) {
            long double lp = (long double)x[1][i] - logl(total[1]);
            row += expl(lp) * (lp - ((long double)x[0][i] - logl(total[0])));
        }
        kl += row;
        if (row > worst) worst = row;
        same += lc_argmax(x[0], V) == lc_argmax(x[1], V);
        for (int s = 0; s < 2 && r % TOKENS + 1 < TOKENS; s++)
            nll[s] += logl(total[s]) - (long double)x[s][tokens[r + 1]];
    }
    lc_engine *model = golden_engine(ROOT "mlx", (golden_engine_options){.chunk = 7});
    lc_engine *reference = golden_engine(ROOT "source", (golden_engine_options){.chunk = 10});
    lc_eval_text text = {tokens, 2 * TOKENS, TOKENS, NULL, NULL};
    lc_eval_kl got;
    assert_ok(lc_eval_kl_windows(model, reference, &text, &got, &err), err);
    printf("# KL %.6f nats a token, largest %.4f, same top token %zu of %zu\n",
           got.nats / (double)got.positions, got.worst, got.same_top, got.positions);
    assert_true(fabsl((long double)got.nats - kl) < 1e-9L * kl);
    assert_true(fabsl((long double)got.worst - worst) < 1e-9L * worst);
    assert_true(fabsl((long double)got.nll - nll[0]) < 1e-9L * nll[0]);
    assert_true(fabsl((long double)got.nll_reference - nll[1]) < 1e-9L * nll[1]);
    assert_int_equal(got.same_top, same);
    assert_int_equal(got.positions, 2 * TOKENS);
    assert_int_equal(got.predicted, 2 * TOKENS - 2);
    assert_ok(lc_eval_kl_windows(model, model, &text, &got, &err), err);
    assert_true(got.nats == 0 && got.same_top == 2 * TOKENS);
    text.window = 1;
    assert_int_equal(lc_eval_kl_windows(model, reference, &text, &got, &err), LC_ELIMIT);
    lc_engine *other = golden_engine("tests/golden/model/lite-tiny", (golden_engine_options){0});
    text.window = 8;
    assert_int_equal(lc_eval_kl_windows(model, other, &text, &got, &err), LC_EINVAL);
    lc_engine_close(other);
    lc_engine_close(model);
    lc_engine_close(reference);
    lc_free(q);
    lc_free(p);
}

int main(void) {
    struct CMUnitTest tests[3 * N_FOLDERS + 4];
    int n = 0;
    for (int i = 0; i < N_FOLDERS; i++) {
        void *folder = (void *)(uintptr_t)folders[i];
        tests[n++] = (struct CMUnitTest)cmocka_unit_test_prestate(test_weights, folder);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test_prestate(test_inventory, folder);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test_prestate(test_logits, folder);
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_strips);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_mixed_experts);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_mlx_logits);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_kl);
    return test_main(tests);
}
