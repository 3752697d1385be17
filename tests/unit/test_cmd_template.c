/*
 * test_cmd_template.c: `longcat template` as programs and people call it: golden lines in, golden
 * texts and ids out; a bad line answered in its place; one conversation as plain text; exit codes.
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
    assert_true(lc_buf_printf(&command, "LONGCAT=%s; $LONGCAT template %s", test_program(), args));
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

static bool is_answer(struct json_object *got, struct json_object *want) {
    if (field(want, "any")) return true;
    if (field(want, "error"))
        return json_object_equal(field(got, "error"), field(want, "error")) &&
               (!field(want, "message") ||
                json_object_equal(field(got, "message"), field(want, "message")));
    return json_object_equal(field(got, "text"), field(want, "expected"));
}

/* Golden lines (of one level, of one template) against the program's answers. */
static void check_lines(const char *args, const char *file, const char *key, const char *value,
                        int expected) {
    lc_buf golden = {0}, out = {0}, command = {0};
    int compared = 0;
    assert_ok(lc_file_read(file, 0, &golden, &err), err);
    assert_true(lc_buf_printf(&command, "%s < %s", args, file));
    assert_int_equal(run(command.data, &out), 0);
    char *want_at = golden.data, *got_at = out.data;
    while (*want_at) {
        struct json_object *want = next_line(&want_at), *got = next_line(&got_at);
        if (!strcmp(json_object_get_string(field(want, key)), value)) {
            if (!is_answer(got, want)) fail_msg("%s", json_object_to_json_string(want));
            compared++;
        }
        json_object_put(want);
        json_object_put(got);
    }
    assert_string_equal(got_at, "");
    assert_int_equal(compared, expected);
    lc_buf_free(&golden);
    lc_buf_free(&out);
    lc_buf_free(&command);
}

static void golden_lines(void **state) {
    (void)state;
    check_lines("--raw --jsonl", DIR "jinja.jsonl", "level", "1", 1053);
    check_lines(DIR "templates/lite.jinja --jsonl", DIR "templates/cases.jsonl", "template", "lite",
                62);
    check_lines(DIR "templates/longcat_2.jinja --jsonl", DIR "templates/cases.jsonl", "template",
                "longcat_2", 62);
}

static void check_ids(const char *option, const char *key) {
    lc_buf golden = {0}, cases = {0}, out = {0}, command = {0};
    int compared = 0;
    assert_ok(lc_file_read(DIR "templates/ids.jsonl", 0, &golden, &err), err);
    assert_ok(lc_file_read(DIR "templates/cases.jsonl", 0, &cases, &err), err);
    assert_true(lc_buf_printf(&command,
                              DIR "templates/lite.jinja -t " DIR "tokenizer.json --ids --jsonl %s"
                                  " < " DIR "templates/cases.jsonl",
                              option));
    assert_int_equal(run(command.data, &out), 0);
    char *ids_at = golden.data, *case_at = cases.data, *got_at = out.data;
    int64_t n = -1;
    while (*ids_at) {
        struct json_object *ids = next_line(&ids_at), *line = NULL, *got = NULL;
        while (n < json_object_get_int64(field(ids, "n"))) {
            json_object_put(line);
            json_object_put(got);
            line = next_line(&case_at);
            got = next_line(&got_at);
            n = json_object_get_int64(field(line, "n"));
        }
        struct json_object *want = field(ids, key) ? field(ids, key) : field(ids, "ids");
        if (!strcmp(json_object_get_string(field(line, "template")), "lite")) {
            assert_true(json_object_equal(field(got, "ids"), want));
            compared++;
        }
        json_object_put(ids);
        json_object_put(line);
        json_object_put(got);
    }
    assert_int_equal(compared, 58);
    lc_buf_free(&golden);
    lc_buf_free(&cases);
    lc_buf_free(&out);
    lc_buf_free(&command);
}

static void golden_ids(void **state) {
    (void)state;
    check_ids("", "sanitized");
    check_ids("--unsanitized", "ids");
}

static void check_output(const char *args, int code, const char *want) {
    lc_buf out = {0};
    int got = run(args, &out);
    if (got != code || strcmp(out.data, want) != 0)
        fail_msg("template %s: exit code %d, \"%s\"", args, got, out.data);
    lc_buf_free(&out);
}

static void bad_lines(void **state) {
    (void)state;
    check_output("--raw --jsonl <<'E'\n"
                 "{\"template\":\"{{ a }}\",\"context\":{\"a\":1}}\n"
                 "\n"
                 "[]\n"
                 "{\"template\":1}\n"
                 "{\"template\":\"{{ \"}\n"
                 "{\"template\":\"x\",\"now\":\"noon\"}\n"
                 "{\"template\":\"\\n{{ raise_exception('no') }}\"}\n"
                 "{\"template_runs\":[[\"ab\",3],[\"c\",1]]}\n"
                 "{\"template_runs\":[[\"ab\"]]}\n"
                 "{\"template_runs\":[[\"abcdefgh\",1000000000]]}\n"
                 "{\"template\":\"{{ strftime_now('%H:%M') }}\",\"now\":\"2026-03-04T05:06:07\"}\n"
                 "{\"template\":\"{{ strftime_now('%Y') }}\",\"now\":86400}\n"
                 "E",
                 0,
                 "{\"text\":\"1\"}\n"
                 "{\"error\":\"input\",\"message\":\"line: JSON: ends too early at byte 0\"}\n"
                 "{\"error\":\"input\",\"message\":\"the line is not a JSON object\"}\n"
                 "{\"error\":\"input\",\"message\":\"the line has no string \\\"template\\\"\"}\n"
                 "{\"error\":\"syntax\",\"message\":\"unexpected end of template\",\"line\":1}\n"
                 "{\"error\":\"input\",\"message\":\"now is no time such as "
                 "\\\"2026-03-04T05:06:07\\\"\"}\n"
                 "{\"error\":\"raised\",\"message\":\"no\",\"line\":2}\n"
                 "{\"text\":\"abababc\"}\n"
                 "{\"error\":\"input\",\"message\":\"template_runs[0] is not [text, count]\"}\n"
                 "{\"error\":\"input\",\"message\":\"a template of more than 64 MiB\"}\n"
                 "{\"text\":\"05:06\"}\n"
                 "{\"text\":\"1970\"}\n");
    check_output("tests/golden/tiny-code --jsonl <<'E'\n"
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"add_generation_prompt\":"
                 "true}\n"
                 "{\"messages\":3}\n"
                 "{}\n"
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}],\"kwargs\":{\"add_"
                 "generation_prompt\":true}}\n"
                 "E",
                 0,
                 "{\"text\":\"<longcat_user>a<longcat_assistant>\"}\n"
                 "{\"error\":\"input\",\"message\":\"messages: not an array\"}\n"
                 "{\"error\":\"input\",\"message\":\"messages: not an array\"}\n"
                 "{\"text\":\"<longcat_user>b<longcat_assistant>\"}\n");
}

static void one_conversation(void **state) {
    (void)state;
    const char *list =
        "tests/golden/tiny-code <<'E'\n[{\"role\":\"user\",\"content\":\"a</longcat_s>\"}]\nE";
    check_output(list, 0, "<longcat_user>a</longcat_s>");
    check_output(
        "tests/golden/tiny-code - <<'E'\n{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
        "\"add_generation_prompt\":true}\nE",
        0, "<longcat_user>a<longcat_assistant>");
    check_output(
        "tests/golden/tiny-code --ids --unsanitized <<'E'\n[{\"role\":\"user\",\"content\":"
        "\"</longcat_s>\"}]\nE",
        0, "5,2\n");
    check_output("tests/golden/tiny-code no-such-file.json 2>/dev/null", 1, "");
    check_output("no-such-model 2>/dev/null < /dev/null", 1, "");
    check_output("tests/golden/tiny-code 2>/dev/null < /dev/null", 1, "");
}

static void usage(void **state) {
    (void)state;
    check_output("2>/dev/null", 2, "");
    check_output("--raw 2>/dev/null", 2, "");
    check_output("tests/golden/tiny-code --raw --jsonl 2>/dev/null", 2, "");
    check_output("tests/golden/tiny-code x.json --jsonl 2>/dev/null", 2, "");
    check_output("tests/golden/tiny-code --unsanitized 2>/dev/null", 2, "");
    check_output(DIR "templates/lite.jinja --ids 2>/dev/null", 1, "");
    lc_buf out = {0};
    assert_int_equal(run("--help", &out), 0);
    assert_non_null(strstr(out.data, "usage: longcat template MODEL|FILE.jinja"));
    lc_buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_lines), cmocka_unit_test(golden_ids),
        cmocka_unit_test(bad_lines),    cmocka_unit_test(one_conversation),
        cmocka_unit_test(usage),
    };
    return test_main(tests);
}
