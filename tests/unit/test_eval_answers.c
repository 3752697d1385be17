/*
 * test_eval_answers.c: `longcat eval complete` and `eval needle` as a user runs them. What they
 * score is checked by identities: the reference is what `longcat run --greedy` writes, or that with
 * a letter changed; drafts are counted again here from sessions; prompts have the asked lengths.
 */
#include "base/file.h"
#include "base/json.h"
#include "engine/engine.h"
#include "test.h"

#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODEL "tests/golden/tiny-code"

static char folder[] = "/tmp/longcat-answers-XXXXXX";
static const char prompt[] = "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n";
enum { TOKENS = 12, DRAFTS = 2 };

static int run(const char *args, lc_buf *out) {
    lc_buf command = {0};
    char piece[4096];
    lc_buf_clear(out);
    assert_true(lc_buf_printf(&command, "%s %s", test_program(), args));
    FILE *pipe = popen(command.data, "r");
    assert_non_null(pipe);
    for (size_t n; (n = fread(piece, 1, sizeof piece, pipe));) lc_buf_append(out, piece, n);
    int status = pclose(pipe);
    lc_buf_free(&command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The first `len` bytes of text as JSON. */
static struct json_object *parse(const char *text, size_t len) {
    struct json_object *o = NULL;
    lc_err err = {0};
    assert_ok(lc_json_parse(text, len, "output", &o, &err), err);
    return o;
}

static struct json_object *field(struct json_object *o, const char *key) {
    struct json_object *value = NULL;
    if (!json_object_object_get_ex(o, key, &value)) fail_msg("no %s", key);
    return value;
}

static double number(struct json_object *o, const char *key) {
    return json_object_get_double(field(o, key));
}

static void put_line(FILE *file, const char *reference) {
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "prefix", json_object_new_string(prompt));
    if (reference) json_object_object_add(o, "reference", json_object_new_string(reference));
    fprintf(file, "%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
    json_object_put(o);
}

/* What the model writes behind `prompt`, by another command. */
static void greedy(lc_buf *text) {
    lc_buf out = {0};
    char args[400];
    snprintf(args, sizeof args, "run " MODEL " --greedy -n %d --json \"%s\" 2>/dev/null", TOKENS,
             prompt);
    assert_int_equal(run(args, &out), 0);
    struct json_object *o = parse(out.data, (size_t)(strchr(out.data, '\n') - out.data));
    lc_buf_clear(text);
    lc_buf_puts(text, json_object_get_string(field(o, "text")));
    json_object_put(o);
    lc_buf_free(&out);
}

static void test_complete(void **state) {
    (void)state;
    lc_buf text = {0}, out = {0};
    char path[300], args[700];
    greedy(&text);
    char *line = text.data + strspn(text.data, " \n");
    size_t len = strcspn(line, "\n");
    while (len && line[len - 1] == ' ') len--;
    assert_true(len > 1 && strlen(line) > len); /* a whole line was written */
    snprintf(path, sizeof path, "%s/in.jsonl", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    put_line(file, text.data);
    line[0] ^= 1;
    put_line(file, text.data);
    line[0] ^= 1;
    put_line(file, NULL);
    fclose(file);
    snprintf(args, sizeof args,
             "eval complete " MODEL " --jsonl %s --max-tokens %d --json -o %s/out.jsonl "
             "2>/dev/null",
             path, TOKENS, folder);
    assert_int_equal(run(args, &out), 0);
    struct json_object *o = parse(out.data, out.len);
    assert_int_equal(number(o, "samples"), 3);
    assert_true(number(o, "next_line_exact") == 0.5); /* of those with a reference */
    assert_true(fabs(number(o, "next_line_similarity") - (1 - 0.5 / (double)len)) < 1e-5);
    json_object_put(o);
    snprintf(path, sizeof path, "%s/out.jsonl", folder);
    lc_err err = {0};
    lc_buf_clear(&out);
    assert_ok(lc_file_read(path, 0, &out, &err), err);
    char *at = out.data;
    for (int i = 0; i < 3; i++) {
        char *end = strchr(at, '\n');
        o = parse(at, (size_t)(end - at));
        assert_string_equal(json_object_get_string(field(o, "prefix")), prompt);
        assert_string_equal(json_object_get_string(field(o, "completion")), text.data);
        assert_int_equal(number(o, "line"), i + 1);
        struct json_object *exact = NULL;
        assert_int_equal(json_object_object_get_ex(o, "exact", &exact), i < 2);
        assert_int_equal(json_object_get_boolean(exact), i == 0);
        json_object_put(o);
        at = end + 1;
    }
    assert_int_equal(*at, 0);
    lc_buf_free(&text);
    lc_buf_free(&out);
}

/* A file is cut behind a line: prefix and reference together are the file. */
static void test_files(void **state) {
    (void)state;
    lc_buf out = {0}, text = {0};
    lc_err err = {0};
    char path[300], args[700];
    snprintf(path, sizeof path, "%s/file.py", folder);
    assert_ok(lc_file_write(path, "a = 1\nb = 2\n\nc = 3\nd = 4\n", 25, &err), err);
    assert_ok(lc_file_read(path, 0, &text, &err), err);
    static const struct {
        const char *option;
        int lines, samples;
    } cuts[] = {{"--prefix 3", 3, 1}, {"--prefix 0.5", 3, 1}, {"-n 4", 0, 4}};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        snprintf(args, sizeof args, "eval complete " MODEL " %s %s --max-tokens 2 -o - 2>/dev/null",
                 path, cuts[i].option);
        assert_int_equal(run(args, &out), 0);
        char *at = out.data;
        for (int s = 0; s < cuts[i].samples; s++) {
            char *end = strchr(at, '\n');
            struct json_object *o = parse(at, (size_t)(end - at));
            const char *prefix = json_object_get_string(field(o, "prefix"));
            const char *rest = json_object_get_string(field(o, "reference"));
            size_t n = strlen(prefix);
            assert_true(n > 0 && prefix[n - 1] == '\n');
            assert_memory_equal(prefix, text.data, n);
            assert_string_equal(rest, text.data + n);
            if (cuts[i].lines) assert_int_equal(number(o, "line"), cuts[i].lines);
            json_object_put(o);
            at = end + 1;
        }
        assert_int_equal(*at, 0);
    }
    lc_buf_free(&out);
    lc_buf_free(&text);
}

/* The chains of a session at every token of a greedy answer, counted by the definition. */
static void test_drafts(void **state) {
    (void)state;
    lc_err err = {0};
    lc_engine *engine;
    lc_session *session;
    lc_ids ids = {0};
    int32_t drafts[TOKENS][DRAFTS], answer[TOKENS];
    size_t asked[DRAFTS] = {0}, right[DRAFTS] = {0}, n = 0;
    lc_engine_options options = {.threads = 1, .drafts = true};
    assert_ok(lc_engine_open(MODEL, &options, &engine, &err), err);
    assert_ok(lc_session_open(engine, &session, &err), err);
    assert_ok(lc_tokenizer_encode(engine->tokenizer, prompt, strlen(prompt), LC_ENCODE_ALL, false,
                                  &ids, &err),
              err);
    for (; n < TOKENS; n++) {
        assert_ok(lc_session_sync(session, ids.data, ids.len, &err), err);
        answer[n] = lc_argmax(lc_session_logits(session), lc_engine_vocab(engine));
        if (answer[n] == engine->model->config.eos) break;
        lc_ids_push(&ids, answer[n]);
        assert_ok(lc_session_draft(session, answer[n], DRAFTS, drafts[n], &err), err);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0, good = 1; good && k < DRAFTS && i + k + 1 < n; k++) {
            good = drafts[i][k] == answer[i + k + 1];
            asked[k]++;
            right[k] += good;
        }
    lc_ids_free(&ids);
    lc_session_close(session);
    lc_engine_close(engine);
    char path[300], args[700];
    snprintf(path, sizeof path, "%s/one.jsonl", folder);
    FILE *file = fopen(path, "w");
    put_line(file, NULL);
    fclose(file);
    lc_buf out = {0};
    snprintf(args, sizeof args,
             "eval complete " MODEL " --jsonl %s --max-tokens %d --drafts %d --json 2>/dev/null",
             path, TOKENS, DRAFTS);
    assert_int_equal(run(args, &out), 0);
    struct json_object *o = parse(out.data, out.len), *list = field(o, "draft_acceptance");
    assert_int_equal(json_object_array_length(list), DRAFTS);
    for (size_t k = 0; k < DRAFTS; k++) {
        double want = asked[k] ? (double)right[k] / (double)asked[k] : 0;
        double got = json_object_get_double(json_object_array_get_idx(list, k));
        assert_true(fabs(got - want) < 1e-5);
    }
    printf("# drafts right: %zu of %zu, %zu of %zu\n", right[0], asked[0], right[1], asked[1]);
    json_object_put(o);
    lc_buf_free(&out);
}

static void test_needle(void **state) {
    (void)state;
    lc_buf out = {0}, again = {0};
    static const char args[] =
        "eval needle " MODEL " --lengths 96,160 --depths 0,100 -n 2 --json 2>/dev/null";
    assert_int_equal(run(args, &out), 0);
    assert_int_equal(run(args, &again), 0);
    assert_string_equal(out.data, again.data);
    char *at = out.data;
    static const char *const forms[] = {"plain", "chat"};
    for (int f = 0; f < 2; f++) {
        char *end = strchr(at, '\n');
        struct json_object *o = parse(at, (size_t)(end - at)), *cells = field(o, "cells");
        assert_string_equal(json_object_get_string(field(o, "form")), forms[f]);
        assert_int_equal(json_object_array_length(cells), 4);
        for (size_t i = 0; i < 4; i++) {
            struct json_object *cell = json_object_array_get_idx(cells, i);
            double length = number(cell, "length"), tokens = number(cell, "prompt_tokens");
            assert_true(length == (i < 2 ? 96 : 160));
            assert_true(number(cell, "depth") == (i % 2 ? 100 : 0));
            assert_true(tokens <= length + 2 && tokens > length - 32);
        }
        json_object_put(o);
        at = end + 1;
    }
    assert_int_equal(*at, 0);
    assert_int_equal(run("eval needle " MODEL " --form plain --lengths 128 --depths 50 -n 1 --text "
                         "tests/golden/tiny-code/heldout.txt 2>/dev/null",
                         &out),
                     0);
    assert_non_null(strstr(out.data, "plain: keys found"));
    assert_null(strstr(out.data, "chat"));
    lc_buf_free(&out);
    lc_buf_free(&again);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *args, *words;
        int code;
    } refused[] = {
        {"needle " MODEL " --lengths x", "--lengths x: needs numbers", 1},
        {"needle " MODEL " --lengths 16", "needs numbers from 32", 1},
        {"needle " MODEL " --lengths 1K2", "needs numbers", 1},
        {"needle " MODEL " --lengths 99999K", "needs numbers", 1},
        {"needle " MODEL " --lengths 64K", "allows 4096", 1},
        {"needle " MODEL " --lengths 33", "the question alone", 1},
        {"needle " MODEL " --depths 101", "from 0 to 100", 1},
        {"needle " MODEL " --depths ''", "--depths is empty", 1},
        {"needle " MODEL " --form both", "plain or chat", 1},
        {"needle nowhere", "nowhere", 1},
        {"complete " MODEL, "files or --jsonl FILE are needed", 2},
        {"complete " MODEL " a.py --jsonl b", "files or --jsonl FILE are needed", 2},
        {"complete " MODEL " nowhere.py", "nowhere.py", 1},
        {"complete " MODEL " README.md --context 5000", "allows 4096", 1},
        {"complete " MODEL " README.md --drafts 99", "from 0 to 8", 2},
        {"complete " MODEL " README.md -o nowhere/out", "nowhere/out", 1},
        {"complete " MODEL " --jsonl README.md", "README.md:1", 1},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        lc_buf out = {0};
        char args[512];
        snprintf(args, sizeof args, "eval %s 2>&1", refused[i].args);
        int code = run(args, &out);
        if (code != refused[i].code || !strstr(out.data, refused[i].words))
            fail_msg("%s: %d, \"%s\"", args, code, out.data);
        lc_buf_free(&out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_complete), cmocka_unit_test(test_files),
        cmocka_unit_test(test_drafts),   cmocka_unit_test(test_needle),
        cmocka_unit_test(test_refusals),
    };
    char command[300];
    if (!mkdtemp(folder)) return 1;
    int failed = test_main(tests);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) || failed;
}
