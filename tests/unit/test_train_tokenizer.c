/*
 * test_train_tokenizer.c: the tokenizer trainer against Hugging Face's BpeTrainer: the same merges
 * and ids from the same corpus (tests/golden/train/make.py), and what it makes encodes as theirs.
 * Then the bargains of tokenizer_train.h: threads and order don't matter, memory is bounded, small
 * corpora end early, Ctrl-C stops. uses-threads
 */
#include "base/json.h"
#include "text/tokenizer.h"
#include "train/tokenizer_train.h"
#include "train_files.h"

#define DIR_ "tests/golden/train/"

static lc_err err;
static char folder[256];

static int set_up(void **state) {
    (void)state;
    make_folder(folder);
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

typedef struct setup {
    const char *const *paths;
    size_t n_paths, vocab, memory;
    int threads;
} setup;

static lc_tokenizer_result train(const char *out, const setup *s) {
    lc_tokenizer_options o = {.corpus = {.paths = s->paths, .n_paths = s->n_paths},
                              .vocab = s->vocab,
                              .memory = s->memory};
    lc_tokenizer_result result;
    assert_ok(lc_pool_new(s->threads, &o.pool, &err), err);
    assert_ok(lc_tokenizer_train(&o, out, &result, &err), err);
    lc_pool_free(o.pool);
    return result;
}

static struct json_object *field(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    assert_true(json_object_object_get_ex(object, key, &value));
    return value;
}

static const char *const golden_corpus[] = {DIR_ "corpus.jsonl"};

static void test_same_merges(void **state) {
    (void)state;
    struct json_object *ours, *theirs;
    lc_tokenizer_result r = train(in(folder, "a.json"), &(setup){golden_corpus, 1, 1200, 0, 2});
    assert_ok(lc_json_load(in(folder, "a.json"), 0, &ours, &err), err);
    assert_ok(lc_json_load(DIR_ "merges.json", 0, &theirs, &err), err);
    struct json_object *model = field(ours, "model");
    assert_int_equal(r.vocab, 1200);
    assert_true(json_object_equal(field(model, "merges"), field(theirs, "merges")));
    assert_true(json_object_equal(field(model, "vocab"), field(theirs, "vocab")));
    printf("# %zu merges and %zu ids equal Hugging Face's\n", r.merges, r.vocab);
    json_object_put(ours);
    json_object_put(theirs);
}

static void test_encodes_equally(void **state) {
    (void)state;
    lc_tokenizer *t;
    lc_buf cases = get_file(DIR_ "cases.jsonl"), back = {0};
    lc_ids ids = {0};
    size_t n = 0;
    train(in(folder, "a.json"), &(setup){golden_corpus, 1, 1200, 0, 1});
    assert_ok(lc_tokenizer_load(in(folder, "a.json"), &t, &err), err);
    for (char *line = cases.data, *end; (end = strchr(line, '\n')); line = end + 1, n++) {
        struct json_object *json;
        assert_ok(lc_json_parse(line, (size_t)(end - line), "cases.jsonl", &json, &err), err);
        struct json_object *text = field(json, "text"), *want = field(json, "ids");
        const char *bytes = json_object_get_string(text);
        size_t len = (size_t)json_object_get_string_len(text);
        ids.len = 0;
        assert_ok(lc_tokenizer_encode(t, bytes, len, LC_ENCODE_ALL, false, &ids, &err), err);
        assert_int_equal(ids.len, json_object_array_length(want));
        for (size_t i = 0; i < ids.len; i++)
            assert_int_equal(ids.data[i], json_object_get_int(json_object_array_get_idx(want, i)));
        lc_buf_clear(&back);
        assert_ok(lc_tokenizer_decode(t, ids.data, ids.len, false, &back, &err), err);
        assert_int_equal(back.len, len);
        assert_memory_equal(back.data ? back.data : "", bytes, len);
        json_object_put(json);
    }
    printf("# cases.jsonl: %zu of %zu\n", n, n);
    assert_int_equal(n, 1000);
    lc_ids_free(&ids);
    lc_buf_free(&back);
    lc_buf_free(&cases);
    lc_tokenizer_free(t);
}

static void test_threads_and_order(void **state) {
    (void)state;
    const char *const forth[] = {DIR_ "corpus.jsonl", "tests/golden/text", "docs"};
    const char *const back[] = {"docs", "tests/golden/text", DIR_ "corpus.jsonl"};
    for (int threads = 1; threads <= 3; threads++)
        train(in(folder, threads == 1 ? "one.json" : "more.json"),
              &(setup){forth, 3, 2000, 0, threads}),
            assert_true(threads == 1 ||
                        same_files(in(folder, "one.json"), in(folder, "more.json")));
    train(in(folder, "more.json"), &(setup){back, 3, 2000, 0, 2});
    assert_true(same_files(in(folder, "one.json"), in(folder, "more.json")));
}

static void test_memory_limit(void **state) {
    (void)state;
    const char *const paths[] = {DIR_ "corpus.jsonl", "tests/golden/text"};
    lc_tokenizer_result r = {0};
    for (int threads = 1; threads <= 3; threads++) {
        const char *name = threads == 1 ? "one.json" : "more.json";
        r = train(in(folder, name), &(setup){paths, 2, 1000, 600000, threads});
        assert_true(r.dropped > 0 && r.rarest > 0);
        assert_true(same_files(in(folder, "one.json"), in(folder, name)));
    }
    printf("# %zu pieces kept, %llu occurrences dropped\n", r.pieces,
           (unsigned long long)r.dropped);
}

static void test_small_corpus(void **state) {
    (void)state;
    const char *const paths[] = {in(folder, "t.txt")};
    lc_tokenizer *t;
    put_text(paths[0], "aaaa aaaa aaaa\n");
    lc_tokenizer_result r = train(in(folder, "a.json"), &(setup){paths, 1, 8192, 0, 1});
    assert_true(r.vocab > 278 && r.vocab < 290);
    assert_ok(lc_tokenizer_load(in(folder, "a.json"), &t, &err), err);
    assert_int_equal(lc_tokenizer_id(t, "</longcat_s>"), 2);
    assert_true(lc_tokenizer_is_special(t, 21));
    assert_string_equal(lc_tokenizer_content(t, 21), "<longcat_observation>");
    lc_tokenizer_free(t);
}

static bool stop(void *ctx, const lc_tokenizer_progress *p) {
    (void)ctx;
    return p->ids < 400;
}

static void test_refusals(void **state) {
    (void)state;
    const char *const twice[] = {"<x>", "<x>"}, *const blank[] = {in(folder, "blank.txt")};
    lc_tokenizer_result r;
    lc_tokenizer_options o = {.corpus = {.paths = golden_corpus, .n_paths = 1}, .vocab = 277};
    const char *out = in(folder, "none.json");
    assert_int_equal(lc_tokenizer_train(&o, out, &r, &err), LC_EINVAL);
    assert_non_null(strstr(err.text, "278"));
    o.vocab = 1000;
    o.special = twice;
    o.n_special = 2;
    assert_int_equal(lc_tokenizer_train(&o, out, &r, &err), LC_EINVAL);
    o.n_special = 0;
    o.progress = stop;
    assert_int_equal(lc_tokenizer_train(&o, out, &r, &err), LC_ECANCELED);
    put_text(blank[0], " \n\n ");
    o.corpus.paths = blank;
    assert_int_equal(lc_tokenizer_train(&o, out, &r, &err), LC_EINVAL);
    assert_non_null(strstr(err.text, "blank.txt"));
    assert_int_equal(access(out, F_OK), -1);
}

static void test_no_memory(void **state) {
    (void)state;
    const char *const paths[] = {in(folder, "t.txt")};
    lc_tokenizer_result r;
    lc_tokenizer_options o = {.corpus = {.paths = paths, .n_paths = 1}, .vocab = 300};
    const char *out = in(folder, "m.json");
    size_t before = lc_mem_current();
    put_text(paths[0], "some words, some more words, and some words again\n");
    long n = 0;
    for (int status = LC_ENOMEM; status; n++) {
        lc_mem_fail_after(n);
        status = lc_tokenizer_train(&o, out, &r, &err);
        lc_mem_fail_after(-1);
        if (status) assert_int_equal(status, LC_ENOMEM);
        assert_int_equal(lc_mem_current(), before);
    }
    printf("# %ld allocations failed one by one\n", n - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_same_merges, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_encodes_equally, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_threads_and_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_memory_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_small_corpus, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_memory, set_up, tear_down),
    };
    return test_main(tests);
}
