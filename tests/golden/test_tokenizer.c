/*
 * test_tokenizer.c: every case of the golden files against the tokenizer: encode, decode, decode
 * without special tokens, bytes that are not UTF-8, streaming decode
 * (tests/golden/text/README.md says where they are from); then normalisers, pre-tokenizers and
 * added tokens that those files don't have (tools/make_tokenizer_variants.py).
 */
#include "base/file.h"
#include "base/json.h"
#include "test.h"
#include "text/tokenizer.h"

#define DIR "tests/golden/text/"

static lc_err err;

static lc_tokenizer *load(const char *path) {
    lc_tokenizer *t = NULL;
    assert_ok(lc_tokenizer_load(path, &t, &err), err);
    return t;
}

static struct json_object *field(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    json_object_object_get_ex(object, key, &value);
    return value;
}

static void add_string(lc_buf *buf, struct json_object *text) {
    assert_true(
        lc_buf_append(buf, json_object_get_string(text), (size_t)json_object_get_string_len(text)));
}

/* `key` as a string, or `runs` as a list of [string, count]. false: neither is there. */
static bool read_text(struct json_object *line, const char *key, const char *runs, lc_buf *out) {
    struct json_object *text = field(line, key), *list = field(line, runs);
    lc_buf_clear(out);
    assert_true(lc_buf_reserve(out, 0));
    if (text) add_string(out, text);
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *run = json_object_array_get_idx(list, i);
        int64_t count = json_object_get_int64(json_object_array_get_idx(run, 1));
        for (int64_t j = 0; j < count; j++) add_string(out, json_object_array_get_idx(run, 0));
    }
    return text || list;
}

static void add_ids(lc_ids *ids, struct json_object *list) {
    for (size_t i = 0; i < json_object_array_length(list); i++)
        assert_true(lc_ids_push(ids, json_object_get_int(json_object_array_get_idx(list, i))));
}

static void read_ids(struct json_object *line, lc_ids *out) {
    struct json_object *runs = field(line, "ids_runs");
    out->len = 0;
    if (!runs) {
        add_ids(out, field(line, "ids"));
        return;
    }
    for (size_t i = 0; i < json_object_array_length(runs); i++) {
        struct json_object *run = json_object_array_get_idx(runs, i);
        int64_t count = json_object_get_int64(json_object_array_get_idx(run, 1));
        for (int64_t j = 0; j < count; j++) add_ids(out, json_object_array_get_idx(run, 0));
    }
    assert_int_equal(out->len, json_object_get_int64(field(line, "n_ids")));
}

static bool same_ids(const lc_ids *a, const lc_ids *b) {
    return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len * sizeof *a->data));
}

static bool same_text(const lc_buf *a, const lc_buf *b) {
    return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

static lc_encode_mode read_mode(struct json_object *line) {
    struct json_object *mode = field(line, "mode");
    if (!mode) return LC_ENCODE_ALL;
    const char *name = json_object_get_string(mode);
    if (!strcmp(name, "no_special")) return LC_ENCODE_NO_SPECIAL;
    assert_string_equal(name, "plain");
    return LC_ENCODE_PLAIN;
}

typedef struct scratch {
    lc_buf text, want_text, got_text;
    lc_ids want, got;
} scratch;

static void scratch_free(scratch *s) {
    lc_buf_free(&s->text);
    lc_buf_free(&s->want_text);
    lc_buf_free(&s->got_text);
    lc_ids_free(&s->want);
    lc_ids_free(&s->got);
}

static bool decodes_to(const lc_tokenizer *t, scratch *s, bool skip_special, const lc_buf *want) {
    lc_buf_clear(&s->got_text);
    assert_ok(lc_tokenizer_decode(t, s->want.data, s->want.len, skip_special, &s->got_text, &err),
              err);
    return same_text(&s->got_text, want);
}

/* Encoding, decoding and decoding without special tokens. */
static bool text_case(const lc_tokenizer *t, struct json_object *line, scratch *s) {
    bool bos = json_object_get_boolean(field(line, "bos"));
    read_ids(line, &s->want);
    if (field(line, "hex")) {
        const char *hex = json_object_get_string(field(line, "hex"));
        unsigned byte;
        lc_buf_clear(&s->text);
        for (; sscanf(hex, "%2x", &byte) == 1; hex += 2) lc_buf_putc(&s->text, (char)byte);
    } else {
        assert_true(read_text(line, "text", "runs", &s->text));
    }
    s->got.len = 0;
    assert_ok(
        lc_tokenizer_encode(t, s->text.data, s->text.len, read_mode(line), bos, &s->got, &err),
        err);
    if (!same_ids(&s->want, &s->got)) return false;
    if (read_text(line, "decoded", "decoded_runs", &s->want_text)) {
        if (!decodes_to(t, s, false, &s->want_text)) return false;
    } else if (!decodes_to(t, s, false, &s->text)) {
        return false;
    }
    return !field(line, "decoded_skip") || (read_text(line, "decoded_skip", "", &s->want_text) &&
                                            decodes_to(t, s, true, &s->want_text));
}

/* Streaming decode, step by step. */
static bool stream_case(const lc_tokenizer *t, struct json_object *line, scratch *s) {
    struct json_object *steps = field(line, "steps");
    lc_decode_stream stream = {.skip_special =
                                   json_object_get_boolean(field(line, "skip_special"))};
    read_ids(line, &s->want);
    assert_int_equal(s->want.len, json_object_array_length(steps));
    for (size_t i = 0; i < s->want.len; i++) {
        lc_buf_clear(&s->got_text);
        assert_true(lc_buf_reserve(&s->got_text, 0));
        assert_ok(lc_decode_push(t, &stream, s->want.data[i], &s->got_text, &err), err);
        if (strcmp(s->got_text.data, json_object_get_string(json_object_array_get_idx(steps, i))))
            return false;
    }
    lc_buf_clear(&s->got_text);
    assert_true(lc_decode_finish(&stream, &s->got_text));
    if (strcmp(s->got_text.data, json_object_get_string(field(line, "end")))) return false;
    assert_true(read_text(line, "text", "", &s->want_text));
    return decodes_to(t, s, stream.skip_special, &s->want_text);
}

typedef bool case_runner(const lc_tokenizer *t, struct json_object *line, scratch *s);

static void run_file(const char *tokenizer, const char *name, case_runner *run, int expected) {
    lc_tokenizer *t = load(tokenizer);
    lc_buf file = {0}, path = {0};
    scratch s = {0};
    int total = 0, good = 0;
    assert_true(lc_buf_printf(&path, "%s%s", DIR, name));
    assert_ok(lc_file_read(path.data, 0, &file, &err), err);
    for (char *at = file.data, *end; (end = strchr(at, '\n')); at = end + 1) {
        struct json_object *line;
        assert_ok(lc_json_parse(at, (size_t)(end - at), name, &line, &err), err);
        total++;
        if (run(t, line, &s))
            good++;
        else if (total - good <= 10)
            printf("# %s: case %d fails\n", name, json_object_get_int(field(line, "n")));
        json_object_put(line);
    }
    printf("# %s: %d of %d\n", name, good, total);
    scratch_free(&s);
    lc_buf_free(&file);
    lc_buf_free(&path);
    lc_tokenizer_free(t);
    assert_int_equal(good, total);
    assert_int_equal(total, expected);
}

static void test_cases(void **state) {
    (void)state;
    run_file(DIR "tokenizer.json", "cases.jsonl", text_case, 7887);
}

static void test_bytes(void **state) {
    (void)state;
    run_file(DIR "tokenizer.json", "bytes.jsonl", text_case, 300);
}

static void test_decode(void **state) {
    (void)state;
    run_file(DIR "tokenizer.json", "decode.jsonl", stream_case, 420);
}

static void test_gpt2(void **state) {
    (void)state;
    run_file(DIR "tokenizer_gpt2.json", "cases_gpt2.jsonl", text_case, 1113);
}

static void test_llama3(void **state) {
    (void)state;
    run_file(DIR "tokenizer_llama3.json", "cases_llama3.jsonl", text_case, 1129);
}

static void test_qwen(void **state) {
    (void)state;
    run_file(DIR "tokenizer_qwen.json", "cases_qwen.jsonl", text_case, 1121);
}

static void test_case(void **state) {
    (void)state;
    run_file(DIR "tokenizer_case.json", "cases_case.jsonl", text_case, 1105);
}

/* The base file with some members replaced. */
static lc_tokenizer *load_variant(struct json_object *base, struct json_object *change) {
    struct json_object *file = json_object_new_object();
    lc_tokenizer *t = NULL;
    json_object_object_foreach(base, key, value) {
        json_object_object_add(file, key, json_object_get(value));
    }
    json_object_object_foreach(change, member, replacement) {
        json_object_object_add(file, member, json_object_get(replacement));
    }
    const char *text = json_object_to_json_string(file);
    assert_ok(lc_tokenizer_parse(text, strlen(text), "variant", &t, &err), err);
    json_object_put(file);
    return t;
}

static int variant_case(const lc_tokenizer *t, struct json_object *one, scratch *s) {
    const char *mode = json_object_get_string(json_object_array_get_idx(one, 1));
    lc_buf_clear(&s->text);
    assert_true(lc_buf_reserve(&s->text, 0));
    add_string(&s->text, json_object_array_get_idx(one, 0));
    s->want.len = s->got.len = 0;
    add_ids(&s->want, json_object_array_get_idx(one, 2));
    assert_ok(lc_tokenizer_encode(t, s->text.data, s->text.len,
                                  strcmp(mode, "all") ? LC_ENCODE_NO_SPECIAL : LC_ENCODE_ALL, false,
                                  &s->got, &err),
              err);
    return same_ids(&s->want, &s->got);
}

static void test_variants(void **state) {
    const char *path = "tests/data/tokenizer/variants.jsonl";
    struct json_object *base, *line;
    lc_buf file = {0};
    scratch s = {0};
    int total = 0, good = 0;
    (void)state;
    assert_ok(lc_json_load(DIR "tokenizer_gpt2.json", 0, &base, &err), err);
    assert_ok(lc_file_read(path, 0, &file, &err), err);
    for (char *at = file.data, *end; (end = strchr(at, '\n')); at = end + 1) {
        assert_ok(lc_json_parse(at, (size_t)(end - at), path, &line, &err), err);
        lc_tokenizer *t = load_variant(base, field(line, "change"));
        struct json_object *cases = field(line, "cases");
        for (size_t i = 0; i < json_object_array_length(cases); i++, total++)
            if (variant_case(t, json_object_array_get_idx(cases, i), &s))
                good++;
            else if (total - good < 10)
                printf("# variant %d, case %zu fails\n", json_object_get_int(field(line, "n")), i);
        lc_tokenizer_free(t);
        json_object_put(line);
    }
    printf("# variants.jsonl: %d of %d\n", good, total);
    json_object_put(base);
    scratch_free(&s);
    lc_buf_free(&file);
    assert_int_equal(good, total);
    assert_int_equal(total, 2000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),  cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_decode), cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_llama3), cmocka_unit_test(test_qwen),
        cmocka_unit_test(test_case),   cmocka_unit_test(test_variants),
    };
    return test_main(tests);
}
