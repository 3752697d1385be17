/*
 * test_names.c: the list of expected tensors against the published key counts (spec 1.2) and the
 * golden checkpoints, and `longcat inspect` on both.
 */
#include "test.h"

#include "base/json.h"
#include "base/mem.h"
#include "format/names.h"

#include <sys/wait.h>

static const char *const members[] = {"flash", "lite", "sparse", "two"};

static void load(const char *path, lc_config *c) {
    lc_err err = {0};
    assert_ok(lc_config_load(path, c, &err), err);
}

static void load_member(const char *name, lc_config *c) {
    char path[128];
    snprintf(path, sizeof path, "tests/data/configs/%s.json", name);
    load(path, c);
}

typedef struct counts {
    size_t main, mtp, mtp_ngram;
    size_t stop_at, seen;
} counts;

static int count(void *ctx, const lc_name *name) {
    counts *k = ctx;
    assert_in_range(name->rank, 1, 2);
    if (name->part < LC_PART_MTP)
        k->main++;
    else if (name->part == LC_PART_MTP)
        k->mtp++;
    else
        k->mtp_ngram++;
    return ++k->seen == k->stop_at ? LC_ECANCELED : LC_OK;
}

static void test_key_counts(void **state) {
    (void)state;
    static const struct {
        size_t keys, mtp, mtp_ngram;
        bool with_mtp; /* the published count includes the draft module */
    } want[] = {{43739, 17, 0, false},
                {11160, 17, 0, true},
                {11220, 21, 24, true}, /* 24 possible, none in Sparse's checkpoint */
                {88780, 21, 32, true}};
    for (int i = 0; i < 4; i++) {
        lc_config c;
        counts k = {0};
        load_member(members[i], &c);
        assert_int_equal(lc_names_expected(&c, count, &k), LC_OK);
        assert_int_equal(k.mtp, want[i].mtp);
        assert_int_equal(k.mtp_ngram, want[i].mtp_ngram);
        size_t keys =
            k.main + (want[i].with_mtp ? k.mtp : 0) + (c.member == LC_MEMBER_TWO ? k.mtp_ngram : 0);
        assert_int_equal(keys, want[i].keys);
        k = (counts){.stop_at = 1000};
        assert_int_equal(lc_names_expected(&c, count, &k), LC_ECANCELED);
        assert_int_equal(k.seen, 1000);
    }
}

/* Two ways to the same number: shapes of the names, and the formulas of config_count.c. */
static void test_estimates(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        lc_config c;
        lc_param_counts n;
        lc_part_sum bf16[LC_PART_COUNT], other[LC_PART_COUNT];
        load_member(members[i], &c);
        lc_config_count(&c, &n);
        lc_names_estimate(&c, LC_STORE_BF16, bf16);
        assert_int_equal(bf16[LC_PART_EMBEDDING].elements, n.embedding);
        assert_int_equal(bf16[LC_PART_NGRAM_TABLES].elements, n.ngram_tables);
        assert_int_equal(bf16[LC_PART_NGRAM_PROJECTIONS].elements, n.ngram_projections);
        assert_int_equal(bf16[LC_PART_ATTENTION].elements, n.attention);
        assert_int_equal(bf16[LC_PART_DENSE].elements, n.dense_ffn);
        assert_int_equal(bf16[LC_PART_EXPERTS].elements, n.experts);
        assert_int_equal(bf16[LC_PART_ROUTERS].elements, n.routers);
        assert_int_equal(bf16[LC_PART_INDEXERS].elements, n.indexers);
        assert_int_equal(bf16[LC_PART_NORMS].elements, n.norms);
        assert_int_equal(bf16[LC_PART_HEAD].elements, n.head);
        assert_int_equal(bf16[LC_PART_MTP].elements, n.mtp);
        assert_int_equal(bf16[LC_PART_MTP_NGRAM].elements, n.mtp_ngram);
        assert_int_equal(bf16[LC_PART_EXPERTS].bytes, 2 * n.experts);
        assert_int_equal(bf16[LC_PART_ROUTERS].bytes, 4 * n.routers);
        lc_names_estimate(&c, LC_STORE_FP8, other); /* widths are multiples of 128 */
        assert_int_equal(other[LC_PART_EXPERTS].bytes, n.experts + n.experts / 16384 * 4);
        assert_int_equal(other[LC_PART_EMBEDDING].bytes, 2 * n.embedding);
        uint64_t kv_b = 2 * c.layers * c.heads * (c.nope_dim + c.v_dim) * c.kv_rank;
        assert_int_equal(other[LC_PART_ATTENTION].packed, kv_b);
        assert_int_equal(other[LC_PART_ATTENTION].replaced, kv_b + kv_b / 16384 * 4);
        assert_int_equal(bf16[LC_PART_ATTENTION].replaced, 2 * kv_b);
        lc_names_estimate(&c, LC_STORE_INT8, other);
        uint64_t rows = c.layers * c.experts * (2 * c.expert_ffn + c.hidden);
        assert_int_equal(other[LC_PART_EXPERTS].bytes, n.experts + 4 * rows);
        assert_int_equal(other[LC_PART_ATTENTION].bytes, 2 * n.attention);
        lc_names_estimate(&c, LC_STORE_INT4, other);
        assert_int_equal(other[LC_PART_EXPERTS].bytes, n.experts / 2 + n.experts / 32);
        assert_int_equal(other[LC_PART_ATTENTION].packed_codes, kv_b / 2 + kv_b / 32);
        assert_int_equal(other[LC_PART_ATTENTION].packed + other[LC_PART_ATTENTION].replaced, 0);
    }
}

/* Every golden checkpoint holds exactly the expected tensors, and scales. */
static void test_golden_inventories(void **state) {
    (void)state;
    static const struct {
        const char *path;
        size_t mtp, mtp_ngram;
    } cases[] = {
        {"tests/golden/model/flash-tiny", 0, 0},
        {"tests/golden/model/flash-yarn", 17, 0},
        {"tests/golden/model/lite-tiny", 17, 0},
        {"tests/golden/model/lite-odd", 17, 0},
        {"tests/golden/model/sparse-tiny", 21, 0},
        {"tests/golden/model/two-tiny", 21, 32},
        {"tests/golden/model/two-tiny-bf16", 21, 32},
        {"tests/golden/model/two-fp8", 21, 16},
        {"tests/golden/model/int8", 21, 16},
        {"tests/golden/model/long", 21, 0},
        {"tests/golden/tiny-code", 21, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lc_config c;
        lc_tensors *t;
        lc_err err = {0};
        lc_inventory v;
        lc_param_counts n;
        load(cases[i].path, &c);
        assert_ok(lc_tensors_open(cases[i].path, &t, &err), err);
        assert_ok(lc_inventory_take(&c, t, &v, &err), err);
        if (v.n_missing || v.n_unknown || v.n_wrong)
            fail_msg("%s: missing %s, unknown %s, wrong %s", cases[i].path, v.missing.data,
                     v.unknown.data, v.wrong.data);
        lc_config_count(&c, &n);
        uint64_t elements = 0, bytes = 0, by_type = 0;
        for (int p = 0; p < LC_PART_COUNT; p++) {
            if (p < LC_PART_MTP) elements += v.parts[p].elements;
            bytes += v.parts[p].bytes;
        }
        for (int d = 0; d <= LC_DTYPE_COUNT; d++) by_type += v.dtype_bytes[d];
        assert_int_equal(elements, n.total);
        assert_int_equal(bytes, lc_tensors_bytes(t));
        assert_int_equal(by_type, lc_tensors_bytes(t));
        assert_int_equal(v.parts[LC_PART_MTP].tensors, cases[i].mtp);
        assert_int_equal(v.parts[LC_PART_MTP_NGRAM].tensors, cases[i].mtp_ngram);
        assert_int_equal(v.misaligned, 0);
        lc_inventory_free(&v);
        lc_tensors_close(t);
    }
    print_message("# %zu checkpoints hold what their configs ask for\n",
                  sizeof cases / sizeof *cases);
}

/* A config that asks for something else. */
static void test_differences(void **state) {
    (void)state;
    lc_config c;
    lc_tensors *t;
    lc_err err = {0};
    lc_inventory v;
    load("tests/golden/model/lite-tiny", &c);
    assert_ok(lc_tensors_open("tests/golden/model/lite-tiny", &t, &err), err);
    c.layers = 3;  /* one layer more: 4 + 14 + 6 + 24 + 2 tensors missing */
    c.vocab = 150; /* wrong: embedding, head, draft embedding, 12 tables */
    assert_ok(lc_inventory_take(&c, t, &v, &err), err);
    assert_int_equal(v.n_missing, 50);
    assert_string_equal(v.missing.data, "model.layers.2.input_layernorm.0.weight");
    assert_int_equal(v.n_wrong, 15);
    assert_non_null(strstr(v.wrong.data, "model.embed_tokens.weight: expected shape [150][96]"));
    assert_int_equal(v.n_unknown, 0);
    lc_inventory_free(&v);
    load("tests/golden/model/lite-tiny", &c);
    c.layers = 1;
    c.ngram_order = 0;
    assert_ok(lc_inventory_take(&c, t, &v, &err), err);
    assert_int_equal(v.n_missing + v.n_wrong, 0);
    assert_int_equal(v.n_unknown, 50 + 24);
    assert_string_equal(v.unknown.data, "model.layers.1.input_layernorm.0.weight");
    lc_inventory_free(&v);
    size_t before = lc_mem_current();
    for (long n = 0;; n++) {
        lc_mem_fail_after(n);
        int status = lc_inventory_take(&c, t, &v, &err);
        lc_mem_fail_after(-1);
        if (status == LC_OK) break;
        assert_int_equal(status, LC_ENOMEM);
        assert_int_equal(lc_mem_current(), before);
    }
    lc_inventory_free(&v);
    lc_tensors_close(t);
}

/* Runs inspect; its output (the caller's) and exit code. */
static char *inspect(const char *arguments, int *code) {
    char command[512];
    snprintf(command, sizeof command, "%s inspect %s 2>&1", test_program(), arguments);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t cap = 1 << 20, len = 0, n;
    char *text = malloc(cap);
    while (len < cap - 1 && (n = fread(text + len, 1, cap - 1 - len, pipe)) > 0) len += n;
    text[len] = 0;
    int status = pclose(pipe);
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return text;
}

static void expect(const char *arguments, int want, const char *const *words) {
    int code;
    char *text = inspect(arguments, &code);
    if (code != want) fail_msg("inspect %s: exit code %d\n%s", arguments, code, text);
    for (; *words; words++)
        if (!strstr(text, *words))
            fail_msg("inspect %s: no \"%s\" in\n%s", arguments, *words, text);
    free(text);
}

static void test_inspect_table(void **state) {
    (void)state;
    const char *const two[] = {"LongCat-2.0",
                               "1,638,616,807,424",
                               "1,775,560,491,136",
                               "135,045,980,160",
                               "33.42B",
                               "48.72B",
                               "56.37B",
                               "97,280 B",
                               "23.75 GiB",
                               "95.00 GiB",
                               "mla_eps",
                               NULL};
    expect("tests/data/configs/two.json --memory 256G", 0, two);
    const char *const flash[] = {"560,664,980,480", "18.69B", "64,512 B", "LongCat-Flash ", NULL};
    expect("tests/data/configs/flash.json", 0, flash);
    const char *const lite[] = {"68,562,465,024", "31,406,985,216", "510,870,528", NULL};
    expect("tests/data/configs/lite.json", 0, lite);
    const char *const sparse[] = {"68,612,700,160", "50,235,136", "514,458,752", "2.98B", NULL};
    expect("tests/data/configs/sparse.json", 0, sparse);
    const char *const tiny[] = {"12,170,272", "25.59 MiB", "all that the config asks for",
                                "0 B copied", NULL};
    expect("tests/golden/tiny-code", 0, tiny);
    const char *const small[] = {"short", NULL};
    expect("tests/golden/tiny-code --memory 20M", 0, small);
    const char *const usage[] = {"usage: longcat inspect", NULL};
    expect("", 2, usage);
    expect("--help", 0, usage);
    const char *const size[] = {"--memory: \"12Q\" is not a size", NULL};
    expect("tests/golden/tiny-code --memory 12Q", 2, size);
    const char *const absent[] = {"longcat: ", "absent", NULL};
    expect("tests/absent", 1, absent);
}

static uint64_t at(struct json_object *o, const char *path) {
    char copy[128], *key, *rest = copy;
    snprintf(copy, sizeof copy, "%s", path);
    while ((key = strsep(&rest, "/")))
        if (!json_object_object_get_ex(o, key, &o)) fail_msg("no %s", path);
    return json_object_get_uint64(o);
}

static void test_inspect_json(void **state) {
    (void)state;
    static const uint64_t totals[] = {560664980480, 68562465024, 68612700160, 1638616807424};
    for (int i = 0; i < 4; i++) {
        char arguments[128];
        int code;
        struct json_object *o;
        lc_err err = {0};
        snprintf(arguments, sizeof arguments,
                 "tests/data/configs/%s.json --json --context 1000 --memory 1.5T", members[i]);
        char *text = inspect(arguments, &code);
        assert_int_equal(code, 0);
        assert_ok(lc_json_parse(text, strlen(text), arguments, &o, &err), err);
        assert_int_equal(at(o, "parameters/total"), totals[i]);
        assert_int_equal(at(o, "memory/ram"), 3ULL << 39);
        assert_int_equal(at(o, "memory/context"), 1000);
        json_object_put(o);
        free(text);
    }
    int code;
    struct json_object *o;
    lc_err err = {0};
    char *text = inspect("tests/golden/model/two-fp8 --json", &code);
    assert_int_equal(code, 0);
    assert_ok(lc_json_parse(text, strlen(text), "two-fp8", &o, &err), err);
    assert_int_equal(at(o, "tensors/count"), 229);
    assert_int_equal(at(o, "tensors/missing_count") + at(o, "tensors/unknown_count"), 0);
    json_object_put(o);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_counts),         cmocka_unit_test(test_estimates),
        cmocka_unit_test(test_golden_inventories), cmocka_unit_test(test_differences),
        cmocka_unit_test(test_inspect_table),      cmocka_unit_test(test_inspect_json),
    };
    return test_main(tests);
}
