/*
 * test_jinja.c: the interpreter against the reference's results (tests/golden/text/README.md 3):
 * jinja.jsonl by level, and templates that must be stopped (hostile.jsonl). Then what no file
 * holds: limits, marks, memory that runs out at every allocation.
 */
#include "base/file.h"
#include "base/hash.h"
#include "test.h"
#include "text/jinja/jinja.h"

#include <time.h>

typedef struct result {
    int status;
    bool compiled;
    lc_buf out;
    lc_jinja_fault fault;
    lc_err err;
    double seconds;
    size_t memory;
} result;

static void result_free(result *r) {
    lc_buf_free(&r->out);
    lc_jinja_fault_free(&r->fault);
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int64_t parse_clock(const char *iso) {
    struct tm tm = {0};
    assert_non_null(strptime(iso, "%Y-%m-%dT%H:%M:%S", &tm));
    return timegm(&tm);
}

/* Renders a template with the members of context as variables. */
static result render(const char *source, size_t len, struct json_object *context, const char *now) {
    result r = {0};
    lc_jinja *tmpl = NULL;
    lc_jinja_var vars[64];
    lc_jinja_job job = {.vars = vars, .fault = &r.fault};
    size_t before = lc_mem_current();
    double start = seconds_now();
    if (now) job.now = parse_clock(now);
    if (context) {
        json_object_object_foreach(context, name, value) {
            vars[job.n_vars++] = (lc_jinja_var){name, value};
        }
    }
    r.status = lc_jinja_compile(source, len, "test", &tmpl, &r.fault, &r.err);
    r.compiled = r.status == LC_OK;
    if (r.compiled) r.status = lc_jinja_render(tmpl, &job, &r.out, &r.err);
    lc_jinja_free(tmpl);
    r.seconds = seconds_now() - start;
    r.memory = lc_mem_peak() - before;
    return r;
}

static struct json_object *member(struct json_object *line, const char *name) {
    struct json_object *value = NULL;
    json_object_object_get_ex(line, name, &value);
    return value;
}

static const char *text_of(struct json_object *line, const char *name) {
    struct json_object *value = member(line, name);
    return value ? json_object_get_string(value) : NULL;
}

static bool same_text(const lc_buf *out, struct json_object *expected) {
    size_t len = (size_t)json_object_get_string_len(expected);
    return out->len == len && (!len || !memcmp(out->data, json_object_get_string(expected), len));
}

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

/* ---- jinja.jsonl ---- */

typedef struct counts {
    int level, cases, right, unsupported, kinds, errors;
} counts;

static bool judge_error(const result *r, struct json_object *line, counts *c) {
    const char *kind = text_of(line, "error"), *message = text_of(line, "message");
    c->errors++;
    if (r->status == LC_OK) return false;
    if (!strcmp(lc_jinja_kind_name(r->fault.kind), kind)) c->kinds++;
    if (!strcmp(kind, "syntax") && r->compiled) return false;
    if (!message) return true;
    return r->fault.kind == LC_JINJA_RAISED && !strcmp(r->fault.message.data, message);
}

static void judge_case(struct json_object *line, void *state) {
    counts *c = state;
    if (json_object_get_int(member(line, "level")) != c->level) return;
    struct json_object *source = member(line, "template");
    result r = render(json_object_get_string(source), (size_t)json_object_get_string_len(source),
                      member(line, "context"), text_of(line, "now"));
    bool right;
    c->cases++;
    if (member(line, "error"))
        right = judge_error(&r, line, c);
    else if (member(line, "any"))
        right = true;
    else
        right = r.status == LC_OK && same_text(&r.out, member(line, "expected"));
    bool refused = c->level == 2 && r.status == LC_EUNSUPPORTED && r.fault.message.len > 0;
    if (right)
        c->right++;
    else if (refused)
        c->unsupported++;
    if (!right && !refused)
        print_message("jinja.jsonl %s: %s\n  gave %s %s\n", text_of(line, "n"),
                      text_of(line, "template"),
                      r.status ? lc_jinja_kind_name(r.fault.kind) : "text",
                      r.status     ? r.err.text
                      : r.out.data ? r.out.data
                                   : "");
    result_free(&r);
}

static void level_1(void **state) {
    (void)state;
    counts c = {.level = 1};
    each_line("tests/golden/text/jinja.jsonl", judge_case, &c);
    printf("# jinja.jsonl level 1: %d of %d (error kinds: %d of %d)\n", c.right, c.cases, c.kinds,
           c.errors);
    assert_int_equal(c.cases, 1053);
    assert_int_equal(c.right, c.cases);
}

static void level_2(void **state) {
    (void)state;
    counts c = {.level = 2};
    each_line("tests/golden/text/jinja.jsonl", judge_case, &c);
    printf("# jinja.jsonl level 2: %d of %d, %d more refused as unsupported\n", c.right, c.cases,
           c.unsupported);
    assert_int_equal(c.cases, 211);
    assert_int_equal(c.right + c.unsupported, c.cases);
}

/* ---- hostile.jsonl ---- */

typedef struct hostile_counts {
    int cases, right;
    double slowest;
    size_t largest;
} hostile_counts;

static void build_source(struct json_object *line, lc_buf *out) {
    struct json_object *runs = member(line, "template_runs"), *source = member(line, "template");
    if (source) {
        lc_buf_append(out, json_object_get_string(source),
                      (size_t)json_object_get_string_len(source));
        return;
    }
    for (size_t i = 0; i < json_object_array_length(runs); i++) {
        struct json_object *run = json_object_array_get_idx(runs, i);
        struct json_object *text = json_object_array_get_idx(run, 0);
        int count = json_object_get_int(json_object_array_get_idx(run, 1));
        for (int k = 0; k < count; k++)
            lc_buf_append(out, json_object_get_string(text),
                          (size_t)json_object_get_string_len(text));
    }
}

static bool expected_text(struct json_object *line, const result *r) {
    char hex[65];
    if (r->status != LC_OK) return false;
    if (member(line, "expected")) return same_text(&r->out, member(line, "expected"));
    lc_hash *hash = lc_hash_new(LC_HASH_SHA256);
    lc_hash_update(hash, r->out.data, r->out.len);
    lc_hash_finish(hash, hex);
    return r->out.len == (size_t)json_object_get_int64(member(line, "expected_length")) &&
           !strcmp(hex, text_of(line, "expected_sha256"));
}

static bool as_wanted(struct json_object *line, const result *r) {
    const char *want = text_of(line, "want");
    bool limit = r->status == LC_ELIMIT || r->status == LC_EUNSUPPORTED;
    if (!strcmp(want, "limit")) return limit;
    if (!strcmp(want, "error")) return r->status != LC_OK;
    if (!strcmp(want, "expected")) return expected_text(line, r);
    if (!strcmp(want, "limit_or_value")) return r->status == LC_ELIMIT || expected_text(line, r);
    if (!strcmp(want, "bigint")) return limit || expected_text(line, r);
    if (!strcmp(want, "blocked")) return r->status != LC_OK || r->out.len == 0;
    return !strcmp(want, "any");
}

static void judge_hostile(struct json_object *line, void *state) {
    hostile_counts *c = state;
    lc_buf source = {0};
    build_source(line, &source);
    result r = render(source.data ? source.data : "", source.len, member(line, "context"), NULL);
    bool right = as_wanted(line, &r);
    c->cases++;
    c->right += right;
    if (r.seconds > c->slowest) c->slowest = r.seconds;
    if (r.memory > c->largest) c->largest = r.memory;
    if (!right || getenv("VERBOSE"))
        print_message("hostile.jsonl %s (%s, %s): %s %.200s\n", text_of(line, "n"),
                      text_of(line, "name"), text_of(line, "want"), r.status ? r.err.text : "text",
                      r.out.data ? r.out.data : "");
    result_free(&r);
    lc_buf_free(&source);
}

static void hostile(void **state) {
    (void)state;
    hostile_counts c = {0};
    each_line("tests/golden/text/hostile.jsonl", judge_hostile, &c);
    printf("# hostile.jsonl: %d of %d, slowest %.2f s, at most %zu MiB\n", c.right, c.cases,
           c.slowest, c.largest >> 20);
    assert_int_equal(c.cases, 111);
    assert_int_equal(c.right, c.cases);
    assert_true(c.largest < (size_t)256 << 20);
#ifndef __SANITIZE_ADDRESS__
    assert_true(c.slowest < 2);
#endif
}

/* ---- what no file holds ---- */

static void limits_hold(void **state) {
    (void)state;
    const char *source = "{% for i in range(1000) %}{{ i ~ 'abcdefgh' }}{% endfor %}";
    const lc_jinja_limits limits[] = {{.steps = 500}, {.memory = 65536}, {.output = 100}};
    const char *const names[] = {"steps", "memory", "output"};
    lc_jinja *tmpl;
    lc_err err = {0};
    assert_ok(lc_jinja_compile(source, strlen(source), "limits", &tmpl, NULL, &err), err);
    for (int i = 0; i < 3; i++) {
        lc_buf out = {0};
        lc_jinja_fault fault = {0};
        lc_buf_puts(&out, "before");
        lc_jinja_job job = {.limits = limits[i], .fault = &fault};
        int status = lc_jinja_render(tmpl, &job, &out, &err);
        if (i == 1) { /* what a pass of the loop allocates is released: memory is enough */
            assert_int_equal(status, LC_OK);
        } else {
            assert_int_equal(status, LC_ELIMIT);
            assert_non_null(strstr(fault.message.data, names[i]));
            assert_non_null(strstr(err.text, "limits:1: limit:"));
            assert_string_equal(out.data, "before");
        }
        lc_jinja_fault_free(&fault);
        lc_buf_free(&out);
    }
    lc_jinja_free(tmpl);
}

static const char rich[] =
    "{% macro m(x, y=[1, {'k': 2.5}]) %}{{ x ~ y }}{{ caller() if caller }}{% endmacro %}"
    "{% set ns = namespace(s='', l=[]) %}{% for k, v in d.items() if v is not none %}"
    "{% set ns.s = ns.s ~ k ~ ':' ~ v | string | upper %}{% set ns.l = ns.l + [loop.index] %}"
    "{% set block %}<{{ loop.last }}>{% endset %}{{ block | trim('<') }}{{ loop.nextitem }}"
    "{% endfor %}{{ ns.s }}{{ ns.l | map('string') | join(',') }}{{ m(1) }}"
    "{% call m('c') %}body{% endcall %}{{ d | tojson(indent=2) }}{{ d | dictsort }}"
    "{{ ['b', 'a', 'B'] | sort | unique | list }}{{ '%s-%05.1f' % ('x', 2.25) }}"
    "{{ '{0:>6}|{k!r}'.format('y', k='z') }}{{ text.split() | selectattr(0, 'eq', 'a') | list }}"
    "{{ d.s[::-1] }}{{ 'straße' | upper }}{{ text | replace('a', 'bc') | indent(2) }}"
    "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}"
    "{% filter upper %}f{{ ns.l[1:] }}{% endfilter %}{{ {'a': 1} == {'a': 1.0} }}";

/* Every allocation fails once: an error or the same text, no crash, nothing left behind. */
static void memory_runs_out(void **state) {
    (void)state;
    struct json_object *context;
    lc_err err = {0};
    const char *json = "{\"d\": {\"s\": \"h\\u00e9llo\", \"n\": null, \"l\": [1, 2.5, true]},"
                       " \"text\": \"a b\\n\\na c\"}";
    assert_ok(lc_json_parse(json, strlen(json), "context", &context, &err), err);
    result whole = render(rich, strlen(rich), context, NULL);
    if (whole.status) fail_msg("%s", whole.err.text);
    size_t before = lc_mem_current();
    int failures = 0;
    for (long n = 0;; n++) {
        lc_mem_fail_after(n);
        result r = render(rich, strlen(rich), context, NULL);
        lc_mem_fail_after(-1);
        int status = r.status;
        if (status == LC_OK) assert_string_equal(r.out.data, whole.out.data);
        result_free(&r);
        assert_int_equal(lc_mem_current(), before);
        if (status == LC_OK) break;
        assert_int_equal(status, LC_ENOMEM);
        failures++;
    }
    printf("# %d allocations failed in turn\n", failures);
    result_free(&whole);
    json_object_put(context);
}

/* Marks of the caller stay as they are where Python would escape private characters. */
static void marks_survive(void **state) {
    (void)state;
    const char *source = "{{ [s] }}{{ s | tojson(ensure_ascii=true) }}{{ ['\\U000F0005'] }}";
    struct json_object *s = json_object_new_string("\xF3\xB0\x80\x81\xC3\xA9");
    lc_jinja_var vars[] = {{"s", s}};
    lc_jinja_job job = {.vars = vars, .n_vars = 1, .marks_first = 0xF0001, .marks_count = 2};
    lc_jinja *tmpl;
    lc_err err = {0};
    lc_buf out = {0};
    assert_ok(lc_jinja_compile(source, strlen(source), "marks", &tmpl, NULL, &err), err);
    assert_ok(lc_jinja_render(tmpl, &job, &out, &err), err);
    assert_string_equal(out.data, "['\xF3\xB0\x80\x81\xC3\xA9']\"\xF3\xB0\x80\x81\\u00e9\""
                                  "['\\U000f0005']");
    lc_buf_free(&out);
    lc_jinja_free(tmpl);
    json_object_put(s);
}

static void bad_sources(void **state) {
    (void)state;
    lc_jinja *tmpl;
    lc_err err = {0};
    lc_jinja_fault fault = {0};
    assert_int_equal(lc_jinja_compile("a\xFF", 2, "bytes", &tmpl, &fault, &err), LC_EFORMAT);
    assert_null(tmpl);
    assert_int_equal(fault.kind, LC_JINJA_SYNTAX);
    assert_int_equal(lc_jinja_compile("\n\n{% if %}", 10, "line", &tmpl, &fault, &err), LC_EFORMAT);
    assert_int_equal(fault.line, 3);
    assert_non_null(strstr(err.text, "line:3: syntax: "));
    lc_jinja_fault_free(&fault);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(level_1),         cmocka_unit_test(level_2),
        cmocka_unit_test(hostile),         cmocka_unit_test(limits_hold),
        cmocka_unit_test(marks_survive),   cmocka_unit_test(bad_sources),
        cmocka_unit_test(memory_runs_out),
    };
    return test_main(tests);
}
