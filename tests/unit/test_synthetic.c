/*
 * test_synthetic.c: checkpoints of random weights: they are complete by the list of names, weigh
 * what the parameter counts say, have the statistics that keep activations in size, load, run, and
 * spread tokens over the router's entries. uses-threads
 */
#include "test.h"

#include "base/file.h"
#include "base/json.h"
#include "engine/engine.h"
#include "engine/synthetic.h"
#include "format/names.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[256];

static const char *in_folder(const char *name) {
    static char path[4][600];
    static int next;
    char *out = path[next = (next + 1) % 4];
    snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static int make_folder(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/longcat-XXXXXX", base ? base : P_tmpdir);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

/* A config of every kind of tensor: n-gram tables, sparse attention, identity experts. */
static const char mixed[] =
    "{\"architectures\":[\"LongcatCausalLM\"],\"attention_method\":\"LSA\",\"vocab_size\":512,"
    "\"hidden_size\":256,\"num_layers\":2,\"num_hidden_layers\":4,\"num_attention_heads\":4,"
    "\"q_lora_rank\":96,\"kv_lora_rank\":64,\"qk_nope_head_dim\":32,\"qk_rope_head_dim\":16,"
    "\"v_head_dim\":32,\"ffn_hidden_size\":320,\"expert_ffn_hidden_size\":160,"
    "\"n_routed_experts\":64,\"zero_expert_num\":32,\"moe_topk\":12,\"routed_scaling_factor\":6.0,"
    "\"rope_theta\":10000.0,\"max_position_embeddings\":4096,\"bos_token_id\":1,"
    "\"eos_token_id\":2,\"torch_dtype\":\"bfloat16\",\"oe_neighbor_num\":3,\"oe_split_num\":2,"
    "\"oe_vocab_size_ratio\":4,\"index_n_heads\":2,\"index_head_dim\":32,\"index_topk\":64,"
    "\"index_init_tokens\":4,\"index_local_tokens\":16,\"mtp_num_layers\":1}";

static lc_synthetic arguments(lc_dtype type) {
    return (lc_synthetic){.config = mixed,
                          .config_len = sizeof mixed - 1,
                          .name = "mixed",
                          .draft = true,
                          .type = type,
                          .shard_bytes = 2000000,
                          .threads = 2};
}

/* The texts in the program are the published ones. */
static void shapes_are_the_published_ones(void **state) {
    (void)state;
    static const char *const names[][2] = {{"flash", "tests/data/configs/flash.json"},
                                           {"lite", "tests/data/configs/lite.json"},
                                           {"sparse", "tests/data/configs/sparse.json"},
                                           {"2.0", "tests/data/configs/two.json"}};
    lc_err err = {0};
    for (size_t i = 0; i < 4; i++) {
        lc_buf text = {0};
        struct json_object *want, *got;
        assert_ok(lc_synthetic_shape(names[i][0], &text, &err), err);
        assert_ok(lc_json_parse(text.data, text.len, names[i][0], &got, &err), err);
        assert_ok(lc_json_load(names[i][1], 0, &want, &err), err);
        if (!json_object_equal(want, got)) fail_msg("shape %s differs", names[i][0]);
        json_object_put(want);
        json_object_put(got);
        lc_buf_free(&text);
    }
    lc_buf none = {0};
    assert_int_equal(lc_synthetic_shape("3.0", &none, &err), LC_ENOTFOUND);
    lc_buf_free(&none);
}

static lc_tensors *open_checkpoint(const char *path, lc_config *config) {
    lc_tensors *tensors;
    lc_err err = {0};
    assert_ok(lc_config_load(path, config, &err), err);
    assert_ok(lc_tensors_open(path, &tensors, &err), err);
    lc_tensors_set_quant(tensors, &config->quant);
    return tensors;
}

/* Bytes that the list of names says: F32, or one of the estimates. */
static uint64_t expected_bytes(const lc_config *c, lc_dtype type) {
    lc_part_sum parts[LC_PART_COUNT];
    lc_storage storage = type == LC_F8_E4M3 ? LC_STORE_FP8
                         : type == LC_I8    ? LC_STORE_INT8
                         : type == LC_I32   ? LC_STORE_INT4
                                            : LC_STORE_BF16;
    uint64_t sum = 0;
    lc_names_estimate(c, storage, parts);
    for (int p = 0; p < LC_PART_COUNT; p++)
        sum += type == LC_F32 ? 4 * parts[p].elements : parts[p].bytes;
    return sum;
}

static void checkpoints_are_complete(void **state) {
    (void)state;
    static const struct {
        lc_dtype type;
        const char *name;
    } types[] = {
        {LC_F32, "f32"}, {LC_BF16, "bf16"}, {LC_F8_E4M3, "fp8"}, {LC_I8, "int8"}, {LC_I32, "int4"}};
    lc_err err = {0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        lc_synthetic how = arguments(types[i].type);
        lc_config config;
        lc_inventory inventory;
        uint64_t bytes;
        const char *path = in_folder(types[i].name);
        assert_ok(lc_synthetic_write(&how, path, &bytes, &err), err);
        lc_tensors *tensors = open_checkpoint(path, &config);
        assert_int_equal(bytes, expected_bytes(&config, types[i].type));
        assert_int_equal(bytes, lc_tensors_bytes(tensors));
        assert_ok(lc_inventory_take(&config, tensors, &inventory, &err), err);
        assert_int_equal(inventory.n_missing, 0);
        assert_int_equal(inventory.n_wrong, 0);
        assert_int_equal(inventory.n_unknown, 0);
        assert_int_equal(inventory.misaligned, 0);
        uint64_t of_type = inventory.dtype_bytes[types[i].type];
        assert_true(of_type > bytes / (types[i].type == LC_I32 ? 4 : 2));
        print_message("# %s: %llu bytes in %zu tensors\n", types[i].name, (unsigned long long)bytes,
                      lc_tensors_count(tensors));
        lc_inventory_free(&inventory);
        lc_tensors_close(tensors);
    }
}

static void assert_same_file(const char *a, const char *b, const char *name) {
    lc_buf x = {0}, y = {0};
    char path[700];
    lc_err err = {0};
    snprintf(path, sizeof path, "%s/%s", a, name);
    assert_ok(lc_file_read(path, 0, &x, &err), err);
    snprintf(path, sizeof path, "%s/%s", b, name);
    assert_ok(lc_file_read(path, 0, &y, &err), err);
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    lc_buf_free(&x);
    lc_buf_free(&y);
}

static void same_arguments_give_the_same_bytes(void **state) {
    (void)state;
    lc_synthetic how = arguments(LC_F8_E4M3);
    lc_err err = {0};
    how.shard_bytes = 3000000;
    assert_ok(lc_synthetic_write(&how, in_folder("a"), NULL, &err), err);
    how.threads = 3;
    assert_ok(lc_synthetic_write(&how, in_folder("b"), NULL, &err), err);
    assert_same_file(in_folder("a"), in_folder("b"), "config.json");
    assert_same_file(in_folder("a"), in_folder("b"), "model.safetensors.index.json");
    lc_config config;
    lc_tensors *a = open_checkpoint(in_folder("a"), &config);
    lc_tensors *b = open_checkpoint(in_folder("b"), &config);
    size_t files = 0, last = 0;
    for (size_t i = 0; i < lc_tensors_count(a); i++) {
        const lc_tensor *x = lc_tensors_at(a, i), *y = lc_tensors_at(b, i);
        assert_string_equal(x->name, y->name);
        assert_string_equal(strrchr(x->file, '/'), strrchr(y->file, '/'));
        assert_int_equal(x->size, y->size);
        assert_memory_equal(x->data, y->data, x->size);
        size_t number = (size_t)atoi(strrchr(x->file, '/') + strlen("/model-"));
        if (number > last) last = number;
    }
    for (size_t i = 1; i <= last; i++) { /* no file is above the limit */
        char name[64];
        struct stat st;
        snprintf(name, sizeof name, "a/model-%05zu-of-%05zu.safetensors", i, last);
        assert_int_equal(stat(in_folder(name), &st), 0);
        assert_true(st.st_size < 3000000 + 100000);
        files++;
    }
    assert_true(files > 1);
    lc_tensors_close(b);
    how.seed = 1;
    assert_ok(lc_synthetic_write(&how, in_folder("c"), NULL, &err), err);
    lc_tensors *c = open_checkpoint(in_folder("c"), &config);
    const lc_tensor *x = lc_tensors_find(a, "lm_head.weight"),
                    *y = lc_tensors_find(c, "lm_head.weight");
    assert_true(memcmp(x->data, y->data, x->size) != 0);
    lc_tensors_close(a);
    lc_tensors_close(c);
}

/* Mean and standard deviation of a weight's values, by the program's own reader. */
static void moments(const lc_tensors *tensors, const char *name, double *mean, double *deviation) {
    const lc_tensor *t = lc_tensors_find(tensors, name);
    char packed[160];
    lc_mat mat;
    lc_err err = {0};
    snprintf(packed, sizeof packed, "%s_packed", name);
    size_t codes = t ? 1 : 8; /* of an element */
    if (!t) t = lc_tensors_find(tensors, packed);
    assert_non_null(t);
    size_t rows = t->rank == 2 ? t->shape[0] : 1;
    size_t cols = t->rank == 2 ? codes * t->shape[1] : t->shape[0];
    float *row = calloc(cols, sizeof *row);
    double sum = 0, squares = 0, n = (double)rows * (double)cols;
    assert_ok(lc_mat_bind(tensors, name, rows, cols, &mat, &err), err);
    for (size_t r = 0; r < rows; r++) {
        lc_mat_row_f32(&mat, r, row);
        for (size_t i = 0; i < cols; i++) sum += row[i], squares += (double)row[i] * row[i];
    }
    *mean = sum / n;
    *deviation = sqrt(squares / n - *mean * *mean);
    lc_mat_unbind(&mat);
    free(row);
}

/* A uniform law's sample deviation stays well within 3 % here; scales vary by 5 %. */
static void values_have_the_right_size(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double deviation;
    } weights[] = {
        {"model.embed_tokens.weight", 2.2360680}, /* sqrt(1 + 4 tables) */
        {"model.oe_embed_tokens2.weight", 2.2360680},
        {"model.layers.0.self_attn.1.q_a_proj.weight", 1 / 16.0},
        {"model.layers.0.self_attn.0.kv_b_proj.weight", 1 / 16.0}, /* of scaled latents */
        {"model.layers.1.self_attn.0.o_proj.weight", 0.0883883},
        {"model.layers.1.mlp.experts.63.down_proj.weight", 0.0790569},
        {"model.layers.0.mlps.1.gate_proj.weight", 1 / 16.0},
        {"model.layers.0.mlp.router.classifier.weight", 1 / 16.0},
        {"lm_head.weight", 1 / 16.0},
    };
    static const lc_dtype types[] = {LC_F32, LC_BF16, LC_F8_E4M3, LC_I8, LC_I32};
    lc_err err = {0};
    for (size_t k = 0; k < 4; k++) {
        char name[8];
        double mean, deviation;
        lc_config config;
        lc_synthetic how = arguments(types[k]);
        snprintf(name, sizeof name, "v%zu", k);
        assert_ok(lc_synthetic_write(&how, in_folder(name), NULL, &err), err);
        lc_tensors *tensors = open_checkpoint(in_folder(name), &config);
        for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
            moments(tensors, weights[i].name, &mean, &deviation);
            double want = weights[i].deviation, slack = k < 2 ? 0.03 : 0.08;
            if (fabs(deviation - want) > slack * want || fabs(mean) > 0.03 * want)
                fail_msg("%s: mean %g, deviation %g, not %g", weights[i].name, mean, deviation,
                         want);
        }
        moments(tensors, "model.norm.weight", &mean, &deviation);
        assert_true(fabs(mean - 1) < 0.02 && deviation > 0.04 && deviation < 0.08);
        moments(tensors, "model.layers.0.mlp.router.e_score_correction_bias", &mean, &deviation);
        assert_true(mean == 0 && deviation == 0);
        lc_tensors_close(tensors);
    }
}

/* No two tensors, and no two pieces of a long one, are alike. */
static void nothing_is_repeated(void **state) {
    (void)state;
    enum { PROBE = 32 };
    lc_synthetic how = arguments(LC_BF16);
    lc_config config;
    lc_err err = {0};
    how.vocab = 20000; /* a table of 5 million values */
    how.layers = 1;
    how.ngram_ratio = 0.1;
    assert_ok(lc_synthetic_write(&how, in_folder("long"), NULL, &err), err);
    lc_tensors *tensors = open_checkpoint(in_folder("long"), &config);
    size_t compared = 0;
    const lc_tensor *words = lc_tensors_find(tensors, "model.embed_tokens.weight");
    for (size_t at = 65536; at + PROBE <= words->size; at += 65536, compared++)
        assert_memory_not_equal(words->data, (const char *)words->data + at, PROBE);
    const lc_tensor *first =
        lc_tensors_find(tensors, "model.layers.0.mlp.experts.0.up_proj.weight");
    for (size_t i = 0; i < lc_tensors_count(tensors); i++) {
        const lc_tensor *t = lc_tensors_at(tensors, i);
        if (t == first || t->dtype != LC_BF16 || t->size != first->size) continue;
        assert_memory_not_equal(first->data, t->data, PROBE);
        compared++;
    }
    assert_true(compared > 300);
    lc_tensors_close(tensors);
}

/* How often each entry of each layer's router is chosen. */
typedef struct load {
    size_t entries, layers, tokens, count[2][96];
    double largest[2]; /* RMS of a layer's output */
} load;

static void count_choices(void *ctx, const char *name, lc_dtype type, size_t rows, size_t cols,
                          size_t stride, const void *data) {
    load *l = ctx;
    size_t layer = strncmp(name, "layers.1.", 9) == 0;
    if (type == LC_I32 && strstr(name, "router.ids")) {
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < cols; i++)
                l->count[layer][((const int32_t *)data)[r * stride + i]]++;
        l->tokens += rows;
    }
    if (type == LC_F32 && strstr(name, ".out")) {
        double squares = 0;
        for (size_t i = 0; i < rows * cols; i++)
            squares += (double)((const float *)data)[i] * ((const float *)data)[i];
        l->largest[layer] = sqrt(squares / (double)(rows * cols));
    }
}

/* 2/3 of the choices are routed experts, and entries are used alike: a token's choices are 12 of 96
 * entries, so 512 tokens give an entry 64 on average, with a deviation of 7.5 if tokens are
 * independent. */
static void the_router_spreads_its_load(void **state) {
    (void)state;
    enum { TOKENS = 512 };
    lc_synthetic how = arguments(LC_BF16);
    lc_engine *engine;
    lc_session *session;
    load l = {0};
    lc_err err = {0};
    assert_ok(lc_synthetic_write(&how, in_folder("router"), NULL, &err), err);
    lc_engine_options options = {.threads = 2, .chunk = TOKENS};
    assert_ok(lc_engine_open(in_folder("router"), &options, &engine, &err), err);
    assert_ok(lc_session_open(engine, &session, &err), err);
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = 3 + i * 131 % 500;
    assert_ok(lc_kv_reserve(&session->kv, 0, TOKENS, &err), err);
    for (size_t i = 0; i < TOKENS; i++) engine->rows[i] = (lc_row){&session->kv, i, 0, tokens, i};
    size_t last = TOKENS - 1;
    float *logits = calloc(512, sizeof *logits);
    lc_probe probe = {.emit = count_choices, .ctx = &l};
    lc_step step = {.rows = engine->rows,
                    .m = TOKENS,
                    .logit_rows = &last,
                    .n_logits = 1,
                    .logits = logits,
                    .probe = &probe};
    assert_ok(lc_forward(engine->model, engine->work, &step, &err), err);
    assert_int_equal(l.tokens, 2 * TOKENS);
    for (int layer = 0; layer < 2; layer++) {
        size_t routed = 0, least = SIZE_MAX, most = 0;
        for (size_t e = 0; e < 96; e++) {
            if (e < 64) routed += l.count[layer][e];
            if (l.count[layer][e] < least) least = l.count[layer][e];
            if (l.count[layer][e] > most) most = l.count[layer][e];
        }
        double mean = (double)routed / TOKENS;
        print_message("# layer %d: %.2f routed experts a token, entries chosen %zu to %zu times, "
                      "output of RMS %.2f\n",
                      layer, mean, least, most, l.largest[layer]);
        assert_true(mean > 7.4 && mean < 8.6);
        assert_true(least > 16 && most < 192);
        assert_true(l.largest[layer] > 0.3 && l.largest[layer] < 30);
    }
    double squares = 0;
    for (int i = 0; i < 512; i++) squares += (double)logits[i] * logits[i];
    assert_true(squares / 512 > 0.1 && squares / 512 < 10);
    free(logits);
    lc_session_close(session);
    lc_engine_close(engine);
}

/* All types run, with drafts. */
static void all_types_run(void **state) {
    (void)state;
    static const lc_dtype types[] = {LC_F32, LC_BF16, LC_F8_E4M3, LC_I8, LC_I32};
    static const int32_t prompt[] = {5, 9, 200, 31, 77};
    lc_err err = {0};
    for (size_t k = 0; k < 4; k++) {
        char name[8];
        lc_engine *engine;
        lc_session *session;
        int32_t drafts[3], out[4];
        size_t count;
        lc_finish finish;
        lc_synthetic how = arguments(types[k]);
        how.layers = 1;
        snprintf(name, sizeof name, "r%zu", k);
        assert_ok(lc_synthetic_write(&how, in_folder(name), NULL, &err), err);
        lc_engine_options options = {.threads = 1, .drafts = true};
        assert_ok(lc_engine_open(in_folder(name), &options, &engine, &err), err);
        assert_int_equal(engine->model->config.layers, 1);
        assert_ok(lc_session_open(engine, &session, &err), err);
        lc_generation generation = {.max_tokens = 4, .ignore_eos = true};
        assert_ok(lc_generate(session, prompt, 5, &generation, out, &count, &finish, &err), err);
        assert_int_equal(count, 4);
        assert_ok(lc_session_draft(session, out[3], 3, drafts, &err), err);
        lc_session_close(session);
        lc_engine_close(engine);
    }
}

static bool cancel_late(void *ctx, const lc_synthetic_progress *p) {
    int *calls = ctx;
    assert_true(p->done <= p->bytes && p->files_done <= p->files);
    return ++*calls < 3;
}

static void what_fails_leaves_nothing(void **state) {
    (void)state;
    lc_synthetic how = arguments(LC_BF16);
    lc_err err = {0};
    struct stat st;
    int calls = 0;
    how.progress = cancel_late;
    how.ctx = &calls;
    assert_int_equal(lc_synthetic_write(&how, in_folder("cancelled"), NULL, &err), LC_ECANCELED);
    assert_int_equal(calls, 3);
    assert_int_equal(stat(in_folder("cancelled"), &st), -1);
    how.progress = NULL;
    /* a folder in use */
    assert_int_equal(mkdir(in_folder("used"), 0700), 0);
    assert_ok(lc_file_write(in_folder("used/config.json"), "{}", 2, &err), err);
    assert_int_equal(lc_synthetic_write(&how, in_folder("used"), NULL, &err), LC_EINVAL);
    assert_non_null(strstr(err.text, "isn't empty"));
    assert_int_equal(stat(in_folder("used/config.json"), &st), 0);
    assert_int_equal(st.st_size, 2);
    /* a file where a folder should be */
    assert_int_equal(lc_synthetic_write(&how, in_folder("used/config.json/x"), NULL, &err), LC_EIO);
    how.type = LC_F16;
    assert_int_equal(lc_synthetic_write(&how, in_folder("f16"), NULL, &err), LC_EINVAL);
    how.type = LC_BF16;
    how.vocab = 2; /* below its eos */
    assert_int_equal(lc_synthetic_write(&how, in_folder("vocab"), NULL, &err), LC_EFORMAT);
    assert_int_equal(stat(in_folder("vocab"), &st), -1);
    /* LongCat-2.0 in whole takes 3.3 TB: refused before anything is written */
    lc_buf text = {0};
    assert_ok(lc_synthetic_shape("2.0", &text, &err), err);
    lc_synthetic huge = {
        .config = text.data, .config_len = text.len, .name = "2.0", .type = LC_F32};
    assert_int_equal(lc_synthetic_write(&huge, in_folder("huge"), NULL, &err), LC_ELIMIT);
    assert_non_null(strstr(err.text, "the checkpoint takes"));
    assert_int_equal(stat(in_folder("huge"), &st), -1);
    lc_buf_free(&text);
}

static void allocation_failures_are_errors(void **state) {
    (void)state;
    lc_synthetic how = arguments(LC_I8);
    size_t before = lc_mem_current(), failures = 0;
    struct stat st;
    how.layers = 1;
    for (long n = 0;; n += n < 40 ? 1 : 97) { /* most of the later ones are names */
        lc_err err = {0};
        lc_mem_fail_after(n);
        int status = lc_synthetic_write(&how, in_folder("alloc"), NULL, &err);
        lc_mem_fail_after(-1);
        assert_int_equal(lc_mem_current(), before);
        if (status == LC_OK) break;
        assert_int_equal(status, LC_ENOMEM);
        assert_int_equal(stat(in_folder("alloc"), &st), -1);
        failures++;
    }
    assert_true(failures > 10);
    print_message("# allocations that failed in turn: %zu\n", failures);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_the_published_ones),
        cmocka_unit_test_setup_teardown(checkpoints_are_complete, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(same_arguments_give_the_same_bytes, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(values_have_the_right_size, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(nothing_is_repeated, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(the_router_spreads_its_load, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(all_types_run, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(what_fails_leaves_nothing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(allocation_failures_are_errors, make_folder, remove_folder),
    };
    return test_main(tests);
}
