/*
 * test_cmd_tokenize.c: `longcat tokenize` as programs and people call it: golden lines in, golden
 * ids, texts and steps out; a bad line answered in its place; the forms for people; exit codes.
 */
#include "base/file.h"
#include "base/json.h"
#include "test.h"

#include <sys/wait.h>

#define DIR "tests/golden/text/"

static lc_err err;

/* Runs the program through the shell; its standard output. */
static int run(const char *args, lc_buf *out) {
    lc_buf command = {0};
    size_t got;
    lc_buf_clear(out);
    assert_true(lc_buf_printf(&command, "%s tokenize %s", test_program(), args));
    FILE *pipe = popen(command.data, "r");
    assert_non_null(pipe);
    do {
        assert_true(lc_buf_reserve(out, 65536));
        got = fread(out->data + out->len, 1, 65536, pipe);
        out->len += got;
    } while (got);
    out->data[out->len] = 0;
    int status = pclose(pipe);
    lc_buf_free(&command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static struct json_object *next_line(char **at) {
    struct json_object *line;
    char *end = strchr(*at, '\n');
    assert_non_null(end);
    assert_ok(lc_json_parse(*at, (size_t)(end - *at), "line", &line, &err), err);
    *at = end + 1;
    return line;
}

static struct json_object *field(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    json_object_object_get_ex(object, key, &value);
    return value;
}

/* Each member of `keys` in the answer equals the golden line's (or that of the key after the /). */
static void check_file(const char *args, const char *file, const char *const *keys, int expected) {
    lc_buf golden = {0}, out = {0}, command = {0};
    int lines = 0, good = 0, compared = 0;
    assert_ok(lc_file_read(file, 0, &golden, &err), err);
    assert_true(lc_buf_printf(&command, "%s < %s", args, file));
    assert_int_equal(run(command.data, &out), 0);
    char *want_at = golden.data, *got_at = out.data;
    for (; *want_at; lines++) {
        struct json_object *want = next_line(&want_at), *got = next_line(&got_at);
        bool same = true;
        for (size_t k = 0; keys[k]; k += 2)
            if (field(want, keys[k + 1])) { /* long cases hold runs instead */
                same = same && json_object_equal(field(got, keys[k]), field(want, keys[k + 1]));
                compared++;
            }
        good += same;
        json_object_put(want);
        json_object_put(got);
    }
    assert_string_equal(got_at, "");
    printf("# %s: %d of %d\n", file, good, lines);
    assert_int_equal(good, lines);
    assert_int_equal(compared, expected);
    lc_buf_free(&golden);
    lc_buf_free(&out);
    lc_buf_free(&command);
}

static void test_golden_lines(void **state) {
    (void)state;
    static const char *const ids[] = {"ids", "ids", NULL};
    static const char *const text[] = {"text", "decoded", NULL};
    static const char *const steps[] = {"steps", "steps", "end", "end", NULL};
    check_file(DIR "tokenizer.json --jsonl", DIR "cases.jsonl", ids, 7857);
    check_file(DIR "tokenizer.json --jsonl", DIR "bytes.jsonl", ids, 300);
    check_file(DIR "tokenizer_llama3.json --jsonl", DIR "cases_llama3.jsonl", ids, 1099);
    check_file(DIR "tokenizer.json --jsonl --decode", DIR "cases.jsonl", text, 7857);
    check_file(DIR "tokenizer.json --jsonl --decode --stream", DIR "decode.jsonl", steps, 840);
}

static void check_output(const char *args, int code, const char *want) {
    lc_buf out = {0};
    int got = run(args, &out);
    if (got != code || strcmp(out.data, want) != 0)
        fail_msg("tokenize %s: exit code %d, \"%s\"", args, got, out.data);
    lc_buf_free(&out);
}

static void test_bad_lines(void **state) {
    static const char *const lines =
        "'{\"text\":\"a\"}\\n\\nx\\n[]\\n{\"hex\":\"4z\"}\\n{\"hex\":\"414\"}\\n{\"text\":1}\\n"
        "{\"text\":\"a\",\"mode\":\"odd\"}\\n{\"text\":\"a\",\"bos\":1}\\n{\"runs\":[[\"a\"]]}\\n"
        "{\"runs\":[[\"a\",-1]]}\\n{\"runs\":[[\"a\",99999999999]]}\\n{\"text\":\"a\"}'";
    lc_buf out = {0}, args = {0};
    (void)state;
    lc_buf_printf(&args,
                  DIR "tokenizer_gpt2.json --jsonl < /dev/null; printf %s | %s tokenize " DIR
                      "tokenizer_gpt2.json --jsonl",
                  lines, test_program());
    assert_int_equal(run(args.data, &out), 0);
    char *at = out.data;
    for (int i = 0; i < 13; i++) {
        struct json_object *line = next_line(&at);
        if (i == 0 || i == 12)
            assert_string_equal(json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN),
                                "{\"ids\":[64]}");
        else
            assert_true(json_object_get_string_len(field(line, "error")) > 0);
        json_object_put(line);
    }
    assert_string_equal(at, "");
    lc_buf_free(&out);
    lc_buf_free(&args);
    check_output(DIR "tokenizer_gpt2.json --jsonl --decode < /dev/null", 0, "");
}

static void test_for_people(void **state) {
    (void)state;
    check_output(DIR "tokenizer_gpt2.json --ids 'a b'", 0, "64,312\n");
    check_output(DIR "tokenizer_gpt2.json 'a <|endoftext|>'", 0,
                 "     id  piece                 text\n"
                 "     64  a                     \"a\"\n"
                 "    220  \xC4\xA0                     \" \"\n"
                 "   1000  <|endoftext|>         \"<|endoftext|>\"  special\n"
                 "3 tokens\n");
    check_output(DIR "tokenizer_gpt2.json --decode 64,312 1000", 0, "a b<|endoftext|>\n");
    check_output(DIR "tokenizer_gpt2.json -d --skip-special 64,312 1000", 0, "a b\n");
    check_output(DIR "tokenizer_llama3.json --ids --mode bos a", 0, "968,64\n");
    check_output("tests/golden/tiny-code --ids '' </dev/null", 0, "\n");
    check_output("tests/golden/tiny-code --ids '</longcat_s>'", 0, "2\n");
    check_output("nowhere a 2>/dev/null", 1, "");
    check_output("tests/golden/tiny-code --decode 99999999 2>/dev/null", 1, "");
    check_output("tests/golden/tiny-code --decode x 2>/dev/null", 1, "");
    check_output("2>/dev/null", 2, "");
    check_output("tests/golden/tiny-code --mode odd a 2>/dev/null", 2, "");
    check_output("tests/golden/tiny-code --stream a 2>/dev/null", 2, "");
    check_output("tests/golden/tiny-code --odd 2>/dev/null", 2, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_lines),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_for_people),
    };
    return test_main(tests);
}
