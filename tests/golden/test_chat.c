/*
 * test_chat.c: chat templates against the reference runtime's renders and token ids
 * (tests/golden/text/README.md 2): templates/cases.jsonl and templates/ids.jsonl. Then what no file
 * holds: where templates come from, and data that tries to get around the sanitising.
 */
#include "base/file.h"
#include "test.h"
#include "text/chat.h"

#define FOLDER "tests/golden/text/templates/"

static struct json_object *member(struct json_object *line, const char *name) {
    struct json_object *value = NULL;
    json_object_object_get_ex(line, name, &value);
    return value;
}

static const char *text_of(struct json_object *line, const char *name) {
    struct json_object *value = member(line, name);
    return value ? json_object_get_string(value) : NULL;
}

/* ---- templates, tokenizer, lines ---- */

enum { TEMPLATES = 4 };

typedef struct fixture {
    lc_chat_template *templates[TEMPLATES];
    lc_tokenizer *tokenizer;
    struct json_object *cases; /* array by n */
} fixture;

static const char *const names[TEMPLATES] = {"flash_chat", "lite", "thinking_2601", "longcat_2"};

typedef void (*line_fn)(struct json_object *line, void *state);

static void each_line(const char *path, line_fn fn, void *state) {
    lc_buf file = {0};
    lc_err err = {0};
    assert_ok(lc_file_read(path, 0, &file, &err), err);
    for (char *line = file.data, *end; line < file.data + file.len; line = end + 1) {
        struct json_object *json;
        end = strchr(line, '\n');
        assert_non_null(end);
        assert_ok(lc_json_parse(line, (size_t)(end - line), path, &json, &err), err);
        fn(json, state);
        json_object_put(json);
    }
    lc_buf_free(&file);
}

static void keep_line(struct json_object *line, void *state) {
    json_object_array_add(state, json_object_get(line));
}

static int set_up(void **state) {
    static fixture f;
    lc_err err = {0};
    for (int i = 0; i < TEMPLATES; i++) {
        char path[200];
        snprintf(path, sizeof path, FOLDER "%s.jinja", names[i]);
        assert_ok(lc_chat_template_load(path, &f.templates[i], &err), err);
    }
    assert_ok(lc_tokenizer_load("tests/golden/text/tokenizer.json", &f.tokenizer, &err), err);
    f.cases = json_object_new_array();
    each_line(FOLDER "cases.jsonl", keep_line, f.cases);
    *state = &f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    for (int i = 0; i < TEMPLATES; i++) lc_chat_template_free(f->templates[i]);
    lc_tokenizer_free(f->tokenizer);
    json_object_put(f->cases);
    return 0;
}

static const lc_chat_template *template_of(const fixture *f, struct json_object *line) {
    for (int i = 0; i < TEMPLATES; i++)
        if (!strcmp(names[i], text_of(line, "template"))) return f->templates[i];
    fail_msg("no template %s", text_of(line, "template"));
    return NULL;
}

static lc_chat chat_of(struct json_object *line) {
    return (lc_chat){.messages = member(line, "messages"),
                     .tools = member(line, "tools"),
                     .arguments = member(line, "kwargs")};
}

/* ---- cases.jsonl ---- */

static bool right_render(const fixture *f, struct json_object *line) {
    lc_buf out = {0};
    lc_jinja_fault fault = {0};
    lc_err err = {0};
    lc_chat chat = chat_of(line);
    chat.fault = &fault;
    char *before = strdup(json_object_to_json_string(chat.messages));
    int status = lc_chat_render(template_of(f, line), &chat, &out, &err);
    bool right;
    if (member(line, "error")) {
        const char *message = text_of(line, "message");
        right = status != LC_OK &&
                !strcmp(lc_jinja_kind_name(fault.kind), text_of(line, "error")) &&
                (!message || !strcmp(fault.message.data, message));
    } else {
        struct json_object *expected = member(line, "expected");
        size_t len = (size_t)json_object_get_string_len(expected);
        right = status == LC_OK && out.len == len &&
                !memcmp(out.data, json_object_get_string(expected), len);
    }
    assert_string_equal(before, json_object_to_json_string(chat.messages)); /* not changed */
    free(before);
    if (!right)
        print_message("cases.jsonl %s: %s\n", text_of(line, "n"),
                      status     ? err.text
                      : out.data ? out.data
                                 : "");
    lc_jinja_fault_free(&fault);
    lc_buf_free(&out);
    return right;
}

static void renders(void **state) {
    const fixture *f = *state;
    size_t n = json_object_array_length(f->cases), right = 0;
    for (size_t i = 0; i < n; i++) right += right_render(f, json_object_array_get_idx(f->cases, i));
    printf("# cases.jsonl: %zu of %zu\n", right, n);
    assert_int_equal(n, 248);
    assert_int_equal(right, n);
}

/* ---- ids.jsonl ---- */

typedef struct ids_counts {
    const fixture *f;
    int lines, plain, sanitized, differ;
} ids_counts;

static bool same_ids(const lc_ids *ids, struct json_object *expected) {
    if (ids->len != json_object_array_length(expected)) return false;
    for (size_t i = 0; i < ids->len; i++)
        if (ids->data[i] != json_object_get_int(json_object_array_get_idx(expected, i)))
            return false;
    return true;
}

static bool right_ids(const ids_counts *c, struct json_object *line, bool sanitize,
                      struct json_object *expected) {
    lc_ids ids = {0};
    lc_err err = {0};
    struct json_object *wanted =
        json_object_array_get_idx(c->f->cases, json_object_get_uint64(member(line, "n")));
    lc_chat chat = chat_of(wanted);
    int status =
        lc_chat_encode(template_of(c->f, wanted), &chat, c->f->tokenizer, sanitize, &ids, &err);
    bool right = status == LC_OK && same_ids(&ids, expected);
    if (!right) {
        lc_buf text = {0};
        lc_tokenizer_decode(c->f->tokenizer, ids.data, ids.len, false, &text, &err);
        print_message("ids.jsonl %s%s: %s\n%s\n", text_of(line, "n"), sanitize ? " sanitized" : "",
                      status ? err.text : "other ids", text.data ? text.data : "");
        lc_buf_free(&text);
    }
    lc_ids_free(&ids);
    return right;
}

static void judge_ids(struct json_object *line, void *state) {
    ids_counts *c = state;
    struct json_object *ids = member(line, "ids"), *sanitized = member(line, "sanitized");
    c->lines++;
    c->differ += sanitized != NULL;
    c->plain += right_ids(c, line, false, ids);
    c->sanitized += right_ids(c, line, true, sanitized ? sanitized : ids);
}

static void token_ids(void **state) {
    ids_counts c = {.f = *state};
    each_line(FOLDER "ids.jsonl", judge_ids, &c);
    printf("# ids.jsonl: ids %d of %d, sanitized %d of %d (%d differ)\n", c.plain, c.lines,
           c.sanitized, c.lines, c.differ);
    assert_int_equal(c.lines, 237);
    assert_int_equal(c.plain, c.lines);
    assert_int_equal(c.sanitized, c.lines);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders),
        cmocka_unit_test(token_ids),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
