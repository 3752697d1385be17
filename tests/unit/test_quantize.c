/*
 * test_quantize.c: `longcat quantize`: what it writes is what compressed-tensors reads (hashes made
 * by that tool), on any instruction set and number of threads; scales are no worse than plain
 * rounding; runs go on after kill -9 and end with the same bytes; errors leave nothing half done.
 */
#include "unit/quantize_runs.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "format/names.h"

#include <fcntl.h>
#include <math.h>
#include <sys/file.h>
#include <sys/resource.h>

#define SOURCE "tests/golden/quant/source"

/* Name, size and hash of each file of two folders. */
static void same_files(const char *a, const char *b) {
    DIR *dir = opendir(a);
    char path[512], x[65], y[65];
    lc_err err = {0};
    int files = 0, others = 0;
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", a, e->d_name);
        assert_ok(lc_quantize_hash_file(path, x, &err), err);
        snprintf(path, sizeof path, "%s/%s", b, e->d_name);
        assert_ok(lc_quantize_hash_file(path, y, &err), err);
        if (strcmp(x, y)) fail_msg("%s differs", path);
        files++;
    }
    closedir(dir);
    dir = opendir(b);
    for (struct dirent *e; (e = readdir(dir));) others += e->d_name[0] != '.';
    closedir(dir);
    assert_int_equal(files, others);
}

/* ---- as compressed-tensors reads it ---- */

typedef struct reading {
    const lc_tensors *tensors, *source;
    struct json_object *hashes;
    size_t quantised, kept;
} reading;

static int read_weight(void *ctx, const lc_name *n) {
    reading *r = ctx;
    lc_mat m;
    lc_err err = {0};
    char hex[65];
    struct json_object *want = NULL;
    size_t rows = n->rank == 1 ? 1 : n->shape[0], cols = n->rank == 1 ? n->shape[0] : n->shape[1];
    if (n->part >= LC_PART_MTP) return LC_OK;
    assert_ok(lc_mat_bind(r->tensors, n->name, rows, cols, &m, &err), err);
    if (!json_object_object_get_ex(r->hashes, n->name, &want)) {
        const lc_tensor *a = lc_tensors_find(r->tensors, n->name),
                        *b = lc_tensors_find(r->source, n->name);
        assert_int_equal(m.scaling, LC_SCALE_NONE);
        assert_true(a && b && a->size == b->size && a->dtype == b->dtype);
        assert_memory_equal(a->data, b->data, a->size);
        r->kept++;
    } else {
        float *values = lc_alloc(rows * cols * sizeof *values);
        lc_mat_rows_f32(lc_kernels_of(LC_ISA_SCALAR), &m, 0, rows, values, cols);
        for (size_t i = 0; i < rows * cols; i++)
            values[i] += 0.0f; /* the tool's -0 were made 0 too */
        lc_hash *h = lc_hash_new(LC_HASH_SHA256);
        lc_hash_update(h, values, rows * cols * sizeof *values);
        lc_hash_finish(h, hex);
        if (strcmp(hex, json_object_get_string(want))) fail_msg("%s is not as expected", n->name);
        lc_free(values);
        r->quantised++;
    }
    lc_mat_unbind(&m);
    return LC_OK;
}

static void check_folder(const char *folder, struct json_object *hashes) {
    lc_config config;
    lc_tensors *tensors, *source;
    lc_err err = {0};
    assert_ok(lc_config_load(folder, &config, &err), err);
    assert_ok(lc_tensors_open(folder, &tensors, &err), err);
    assert_ok(lc_tensors_open(SOURCE, &source, &err), err);
    lc_tensors_set_quant(tensors, &config.quant);
    reading r = {tensors, source, hashes, 0, 0};
    lc_names_expected(&config, read_weight, &r);
    assert_int_equal(r.quantised, json_object_object_length(hashes));
    assert_int_equal(r.quantised + r.kept, lc_tensors_count(source));
    lc_inventory v;
    assert_ok(lc_inventory_take(&config, tensors, &v, &err), err);
    assert_int_equal(v.n_missing + v.n_unknown + v.n_wrong + v.misaligned, 0);
    lc_inventory_free(&v);
    lc_tensors_close(tensors);
    lc_tensors_close(source);
}

static void test_hashes(void **unused) {
    (void)unused;
    struct json_object *json = NULL, *runs = NULL;
    lc_err err = {0};
    size_t n = 0;
    assert_ok(lc_json_load(SOURCE "/quantized.json", 0, &json, &err), err);
    assert_true(json_object_object_get_ex(json, "runs", &runs));
    json_object_object_foreach(runs, key, hashes) {
        char type[16];
        lc_quantize_options o = {.group = strstr(key, "--group 32") ? 32 : 0};
        o.embeddings = strstr(key, "--embeddings") != NULL;
        o.head = strstr(key, "--head") != NULL;
        sscanf(key, "%15s", type);
        assert_true(lc_quantize_type_from_name(type, &o.type));
        for (int isa = LC_ISA_SCALAR; isa < LC_ISA_COUNT; isa++) {
            if (!(o.kernels = lc_kernels_of((lc_isa)isa))) continue;
            const char *out = in_scratch("hashes");
            assert_ok(lc_pool_new(isa % 3 + 1, &o.pool, &err), err);
            quantize(SOURCE, out, o);
            lc_pool_free(o.pool);
            check_folder(out, hashes);
            remove_folder(out);
            n++;
        }
    }
    json_object_put(json);
    printf("# %zu runs as compressed-tensors reads them\n", n);
}

/* ---- scales ---- */

static uint32_t state = 1;
static float draw(void) {
    double sum = 0;
    for (int i = 0; i < 6; i++) {
        state = state * 1664525u + 1013904223u;
        sum += (double)(state >> 8) / (1 << 24) - 0.5;
    }
    return (float)sum;
}

/* Squared error of rounding with the scale that maps the largest weight to the last code. */
static double plain_error(const float *w, size_t n, int bits) {
    double top = 0, sum = 0;
    int last = (1 << (bits - 1)) - 1;
    for (size_t i = 0; i < n; i++) top = fmax(top, fabs((double)w[i]));
    float scale =
        bits == 4 ? lc_bf16_to_f32(lc_f32_to_bf16((float)(top / last))) : (float)(top / last);
    for (size_t i = 0; i < n; i++) {
        double q = fmin(fmax(rint((double)w[i] / (double)scale), -last - 1), last);
        double d = (double)w[i] - q * (double)scale;
        sum += d * d;
    }
    return sum;
}

static void encode(const float *w, size_t cols, size_t group, int bits, lc_quantize_row *row) {
    static float room[2][512 + 32];
    static unsigned char codes[1024], scales[256];
    memset(room, 0, sizeof room);
    memcpy(room[0], w, cols * sizeof *w);
    *row = (lc_quantize_row){.cols = cols,
                             .group = group,
                             .bits = bits,
                             .w = room[0],
                             .work = room[1],
                             .codes = codes,
                             .scales = scales};
    assert_true(lc_quantize_encode(row));
}

/* Never worse than plain rounding, and clearly better on average. */
static void test_search(void **unused) {
    (void)unused;
    static const struct {
        size_t cols, group;
        int bits;
        double most; /* of the plain error, over all */
    } cases[] = {{128, 32, 4, 0.85}, {128, 64, 4, 0.85}, {256, 128, 4, 0.85},
                 {200, 0, 8, 1.0},   {61, 0, 8, 1.0},    {96, 32, 8, 1.0}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double ours = 0, plain = 0;
        for (int i = 0; i < 400; i++) {
            float w[512];
            lc_quantize_row row;
            size_t cols = cases[c].cols, group = cases[c].group ? cases[c].group : cols;
            for (size_t k = 0; k < cols; k++) w[k] = draw() * (k % 50 == 7 ? 3.0f : 1.0f);
            encode(w, cols, cases[c].group, cases[c].bits, &row);
            double bound = 0;
            for (size_t k = 0; k < cols; k += group)
                bound += plain_error(w + k, group, cases[c].bits);
            assert_true(row.error <= bound * 1.001); /* codes are found in fp32 */
            ours += row.error;
            plain += bound;
        }
        printf("# %zu columns, group %zu, int%d: error %.3f of plain rounding's\n", cases[c].cols,
               cases[c].group, cases[c].bits, sqrt(ours / plain));
        if (cases[c].bits == 4) assert_true(ours < cases[c].most * plain);
    }
}

/* Weights that the format can hold are held: codes -8..7 of a BF16 scale of either sign. */
static void test_exact(void **unused) {
    (void)unused;
    for (int i = 0; i < 200; i++) {
        float w[64], scale = lc_bf16_to_f32(lc_f32_to_bf16(draw() + 2.0f));
        lc_quantize_row row;
        if (i % 2) scale = -scale;
        for (int k = 0; k < 64; k++) {
            state = state * 1664525u + 1013904223u;
            w[k] = (float)((int)(state >> 28) - 8) * scale;
        }
        w[i % 64] = -8.0f * scale; /* the last code of each group */
        w[(i + 32) % 64] = -8.0f * scale;
        encode(w, 64, 32, 4, &row);
        assert_true(row.error == 0);
    }
    static const float odd[][64] = {{0}, {1e-38f, -1e-38f}, {1e-30f, 2e-30f}, {3e37f, -1e20f, 5}};
    for (int i = 0; i < 4; i++) { /* nothing, too small, small, large */
        lc_quantize_row row;
        encode(odd[i], 64, 64, 4, &row);
        assert_true(isfinite(row.error) && row.error <= row.power);
        encode(odd[i], 64, 0, 8, &row);
        assert_true(isfinite(row.error) && row.error <= row.power);
    }
    float bad[64] = {0};
    lc_quantize_row row = {.cols = 64, .group = 64, .bits = 4, .w = bad};
    bad[9] = INFINITY;
    assert_false(lc_quantize_encode(&row));
    bad[9] = NAN;
    assert_false(lc_quantize_encode(&row));
}

/* ---- kill -9 ---- */

static void test_resume(void **unused) {
    (void)unused;
    const char *whole = in_scratch("whole"), *out = in_scratch("resumed");
    lc_quantize_options o = options_of(LC_QUANTIZE_MIXED, 32);
    o.shard_bytes = 20000;
    lc_quantize_result all = quantize(SOURCE, whole, o);
    assert_true(all.shards >= 5);
    assert_true(exists(whole, "model.safetensors.index.json"));
    assert_false(exists(whole, "quantize.state"));
    size_t kept = 0;
    for (size_t shards = 0; shards < all.shards; shards++) {
        run_and_die(SOURCE, out, o, (killing){0, shards});
        assert_true(exists(out, "quantize.state"));
        assert_false(exists(out, "config.json")); /* nobody takes it for a model */
        lc_quantize_result r = quantize(SOURCE, out, o);
        assert_int_equal(r.kept, shards);
        kept += r.kept;
        same_files(whole, out);
        remove_folder(out);
    }
    printf("# killed after each of %zu shards, %zu kept, the same files\n", all.shards, kept);

    /* inside a shard, twice in a row; a finished shard that was changed or lost is made again */
    run_and_die(SOURCE, out, o, (killing){1, 2});
    run_and_die(SOURCE, out, o, (killing){1, 3});
    char first[512], second[512];
    snprintf(first, sizeof first, "%s/model-00001-of-%05zu.safetensors", out, all.shards);
    snprintf(second, sizeof second, "%s/model-00002-of-%05zu.safetensors", out, all.shards);
    FILE *f = fopen(first, "r+");
    assert_non_null(f);
    fseek(f, -1, SEEK_END);
    int last = fgetc(f);
    fseek(f, -1, SEEK_END);
    fputc(last ^ 1, f);
    fclose(f);
    assert_int_equal(unlink(second), 0);
    lc_quantize_result r = quantize(SOURCE, out, o);
    assert_int_equal(r.kept, 1);
    same_files(whole, out);
    remove_folder(out);
    remove_folder(whole);
}

/* A kill before the first state was there leaves a folder to go on in; two processes don't write
 * into one. */
static void test_folder(void **unused) {
    (void)unused;
    const char *whole = in_scratch("alone"), *out = in_scratch("begun");
    lc_quantize_options o = options_of(LC_QUANTIZE_INT8, 0);
    quantize(SOURCE, whole, o);
    assert_int_equal(mkdir(out, 0755), 0);
    fclose(fopen(in_scratch("begun/quantize.state.part"), "w"));
    int other = open(out, O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(other, LOCK_EX), 0);
    refuse(SOURCE, out, o, LC_EINVAL, "another process");
    close(other);
    quantize(SOURCE, out, o);
    same_files(whole, out);
    remove_folder(whole);
    remove_folder(out);
}

/* ---- errors ---- */

static void test_refused(void **unused) {
    (void)unused;
    const char *out = in_scratch("refused");
    lc_quantize_options o = options_of(LC_QUANTIZE_INT4, 0);
    o.shard_bytes = 20000;
    refuse(SOURCE, out, options_of(LC_QUANTIZE_INT4, 48), LC_EINVAL, "groups of 48");
    refuse(in_scratch("none"), out, o, LC_ENOTFOUND, "none");
    refuse(SOURCE, "tests/golden/quant", o, LC_EINVAL, "not empty");
    refuse(SOURCE, SOURCE "/config.json/x", o, LC_EIO, "config.json");
    static const char *const quantised[] = {"compressed-tensors", "gptq", "auto-round", "mlx"};
    for (int i = 0; i < 4; i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/golden/quant/%s", quantised[i]);
        refuse(path, out, o, LC_EINVAL, "quantised in groups already");
        assert_false(exists(out, ""));
    }
    o.progress = stop;
    lc_quantize_result r;
    assert_int_equal(lc_quantize(SOURCE, out, &o, &r, NULL), LC_ECANCELED);
    assert_int_equal(r.done, 1);
    refuse(SOURCE, out, o, LC_ECANCELED, "cancelled");
    o.progress = NULL;
    o.group = 32; /* other options, another source */
    refuse(SOURCE, out, o, LC_EINVAL, "other options");
    o.group = 0;
    refuse("tests/golden/model/flash-tiny", out, o, LC_EINVAL, "another model");
    assert_int_equal(quantize(SOURCE, out, o).kept, 1);
    refuse(SOURCE, out, o, LC_EINVAL, "not empty");
    remove_folder(out);
}

/* A checkpoint with one weight changed: a tensor missing, a NaN. */
static void write_broken(const char *folder, const char *missing, const char *nan) {
    lc_tensors *t;
    lc_err err = {0};
    char path[512];
    lc_buf config = {0};
    assert_int_equal(mkdir(folder, 0755), 0);
    assert_ok(lc_tensors_open(SOURCE, &t, &err), err);
    size_t n = 0;
    lc_tensor *out = calloc(lc_tensors_count(t), sizeof *out);
    uint16_t *changed = NULL;
    for (size_t i = 0; i < lc_tensors_count(t); i++) {
        out[n] = *lc_tensors_at(t, i);
        if (missing && !strcmp(out[n].name, missing)) continue;
        if (nan && !strcmp(out[n].name, nan)) {
            changed = malloc(out[n].size);
            memcpy(changed, out[n].data, out[n].size);
            changed[65] = 0x7fc0;
            out[n].data = changed;
        }
        n++;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_ok(lc_safetensors_write(path, out, n, &err), err);
    assert_ok(lc_file_read(SOURCE "/config.json", 0, &config, &err), err);
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    assert_true(f && fwrite(config.data, 1, config.len, f) == config.len && !fclose(f));
    lc_buf_free(&config);
    lc_tensors_close(t);
    free(out);
    free(changed);
}

static void test_broken_sources(void **unused) {
    (void)unused;
    static const char o_proj[] = "model.layers.0.self_attn.1.o_proj.weight";
    const char *broken = in_scratch("broken"), *out = in_scratch("from-broken");
    lc_quantize_options o = options_of(LC_QUANTIZE_INT4, 0);
    write_broken(broken, o_proj, NULL);
    refuse(broken, out, o, LC_ENOTFOUND, o_proj);
    remove_folder(broken);
    write_broken(broken, NULL, o_proj);
    refuse(broken, out, o, LC_EFORMAT, "o_proj.weight: row 1 holds an infinity or NaN");
    assert_false(exists(out, "model.safetensors"));
    assert_false(exists(out, "model.safetensors.part"));
    remove_folder(broken);
    remove_folder(out);
}

/* The file system refuses to go on: an error that names the file, no half file, and the same call
 * goes on later. */
static void test_full(void **unused) {
    (void)unused;
    const char *out = in_scratch("full"), *whole = in_scratch("full-whole");
    lc_quantize_options o = options_of(LC_QUANTIZE_INT4, 0);
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 30000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    lc_quantize_result r;
    lc_err err = {0};
    int status = lc_quantize(SOURCE, out, &o, &r, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, LC_EIO);
    assert_non_null(strstr(err.text, "model.safetensors.part"));
    assert_false(exists(out, "model.safetensors.part"));
    quantize(SOURCE, whole, o);
    quantize(SOURCE, out, o);
    same_files(whole, out);
    remove_folder(out);
    remove_folder(whole);
}

/* Every allocation fails once. */
static void test_memory(void **unused) {
    (void)unused;
    const char *out = in_scratch("memory");
    lc_quantize_options o = options_of(LC_QUANTIZE_INT4, 0);
    lc_quantize_result r;
    lc_err err = {0};
    size_t before = lc_mem_current();
    long n = 0;
    int status = LC_ENOMEM, failures = 0;
    for (; status != LC_OK; n += n < 60 ? 1 : 37) {
        lc_mem_fail_after(n);
        status = lc_quantize(SOURCE, out, &o, &r, &err);
        lc_mem_fail_after(-1);
        if (status != LC_OK && status != LC_ENOMEM) fail_msg("allocation %ld: %s", n, err.text);
        assert_int_equal(lc_mem_current(), before);
        failures += status == LC_ENOMEM;
        remove_folder(out);
    }
    assert_true(failures > 60);
    printf("# %d failing allocations\n", failures);
}

/* FP8 and INT8 sources, widths that no group fits, a folder's other files. */
static void test_sources(void **unused) {
    (void)unused;
    static const char *const models[] = {"tests/golden/model/two-fp8", "tests/golden/model/int8",
                                         "tests/golden/model/lite-odd", "tests/golden/tiny-code"};
    for (int i = 0; i < 4; i++) {
        const char *out = in_scratch("source");
        lc_config config;
        lc_tensors *t;
        lc_inventory v;
        lc_err err = {0};
        lc_quantize_options o = options_of(LC_QUANTIZE_INT4, 128);
        o.embeddings = o.head = o.mtp = i == 3;
        o.shard_bytes = 3 << 20;
        lc_quantize_result r = quantize(models[i], out, o);
        printf("# %s: %zu of %zu quantised, %zu by row, %.1f %% error\n", models[i], r.quantised,
               r.tensors, r.by_row, 100 * sqrt(r.error / r.power));
        assert_true(r.error < 0.02 * r.power && r.bytes < r.source_bytes);
        assert_ok(lc_config_load(out, &config, &err), err);
        assert_ok(lc_tensors_open(out, &t, &err), err);
        lc_tensors_set_quant(t, &config.quant);
        assert_int_equal(lc_tensors_bytes(t), r.bytes);
        assert_ok(lc_inventory_take(&config, t, &v, &err), err);
        assert_int_equal(v.n_missing + v.n_wrong, 0);
        lc_inventory_free(&v);
        lc_tensors_close(t);
        if (i == 3) {
            static const char *const files[] = {"tokenizer.json", "tokenizer_config.json",
                                                "chat_template.jinja", "generation_config.json",
                                                "LICENSES.txt"};
            for (size_t k = 0; k < 5; k++) assert_true(exists(out, files[k]));
        }
        remove_folder(out);
    }
}

/* ---- the command ---- */

static void test_command(void **unused) {
    (void)unused;
    char line[256];
    const char *out = in_scratch("command");
    snprintf(line, sizeof line, "quantize " SOURCE " %s", out);
    assert_int_equal(run_command(line), 2);
    said("stderr", "--type int8, int4 or mixed is needed");
    snprintf(line, sizeof line, "quantize " SOURCE " %s --type int5", out);
    assert_int_equal(run_command(line), 2);
    said("stderr", "\"int5\" is neither int8, int4 nor mixed");
    snprintf(line, sizeof line, "quantize " SOURCE " %s --type int4 --group 48", out);
    assert_int_equal(run_command(line), 2);
    said("stderr", "48 is neither 32, 64 nor 128");
    snprintf(line, sizeof line, "quantize " SOURCE " --type int4");
    assert_int_equal(run_command(line), 2);
    snprintf(line, sizeof line, "quantize " SOURCE " " SOURCE " --type int4");
    assert_int_equal(run_command(line), 1);
    said("stderr", "not empty");
    assert_false(exists(out, ""));
    snprintf(line, sizeof line, "quantize " SOURCE " %s --type int4 --group 32", out);
    assert_int_equal(run_command(line), 0);
    said("stdout", "25 of 40 tensors quantised");
    said("stderr", "shard 1 of 1");
    remove_folder(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hashes),         cmocka_unit_test(test_search),
        cmocka_unit_test(test_exact),          cmocka_unit_test(test_resume),
        cmocka_unit_test(test_folder),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_broken_sources), cmocka_unit_test(test_full),
        cmocka_unit_test(test_memory),         cmocka_unit_test(test_sources),
        cmocka_unit_test(test_command),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, make_scratch, drop_scratch);
}
