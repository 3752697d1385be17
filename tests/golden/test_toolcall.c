/*
 * Tool calls and reasoning against tests/golden/text/toolcalls.jsonl, which an independent parser
 * made: every case whole, cut into single bytes and single characters, and under random cuttings.
 * At every moment what has been emitted must be a beginning of the final result and not be more
 * than 32 characters behind what the reference had sent.
 */
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "test.h"
#include "text/toolcall.h"

#include <math.h>

enum { RANDOM_CUTS = 64, MAX_LAG = 32 };
static const char path[] = "tests/golden/text/toolcalls.jsonl";

typedef struct golden {
    struct json_object *line, *tools;
    const char *text;
    size_t len;
    bool thinking_open;
    lc_finish finish;
} golden;

static struct json_object *field(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    if (!json_object_object_get_ex(object, key, &value)) fail_msg("no field %s", key);
    return value;
}

static bool same_number(struct json_object *a, struct json_object *b) {
    bool ints = json_object_is_type(a, json_type_int) && json_object_is_type(b, json_type_int);
    if (ints)
        return json_object_get_int64(a) == json_object_get_int64(b) &&
               json_object_get_uint64(a) == json_object_get_uint64(b);
    double x = json_object_get_double(a), y = json_object_get_double(b);
    return x <= y && y <= x;
}

/* Equal as JSON values: an object's order doesn't count, integers are compared exactly. */
static bool same_json(struct json_object *a, struct json_object *b) {
    json_type type = json_object_get_type(a), other = json_object_get_type(b);
    if (type == json_type_int || type == json_type_double)
        return (other == json_type_int || other == json_type_double) && same_number(a, b);
    if (type != other) return false;
    if (type == json_type_object) {
        if (json_object_object_length(a) != json_object_object_length(b)) return false;
        json_object_object_foreach(a, key, value) {
            struct json_object *twin;
            if (!json_object_object_get_ex(b, key, &twin) || !same_json(value, twin)) return false;
        }
        return true;
    }
    if (type == json_type_array) {
        size_t n = json_object_array_length(a);
        if (n != json_object_array_length(b)) return false;
        for (size_t i = 0; i < n; i++)
            if (!same_json(json_object_array_get_idx(a, i), json_object_array_get_idx(b, i)))
                return false;
        return true;
    }
    return json_object_equal(a, b);
}

static bool same_text(struct json_object *want, const char *got, size_t len) {
    return (size_t)json_object_get_string_len(want) == len &&
           !memcmp(json_object_get_string(want), got, len);
}

/* What is wrong with the final result, or NULL. */
static const char *final_problem(const golden *g, lc_parsed r) {
    struct json_object *reasoning = field(g->line, "reasoning"),
                       *calls = field(g->line, "tool_calls");
    if (r.has_reasoning != (reasoning != NULL)) return "reasoning block";
    if (reasoning && !same_text(reasoning, r.reasoning, r.reasoning_len)) return "reasoning";
    if (!same_text(field(g->line, "content"), r.content, r.content_len)) return "content";
    if (r.unfinished != json_object_get_boolean(field(g->line, "unfinished"))) return "unfinished";
    if (r.n_calls != json_object_array_length(calls)) return "number of calls";
    for (size_t i = 0; i < r.n_calls; i++) {
        struct json_object *call = json_object_array_get_idx(calls, i);
        const char *name = r.calls[i].name;
        if (!same_text(field(call, "name"), name, strlen(name))) return "name";
        if (!same_json(field(call, "arguments"), r.calls[i].arguments)) return "arguments";
    }
    return NULL;
}

static bool is_prefix(const char *text, size_t len, struct json_object *whole) {
    return len == 0 || (len <= (size_t)json_object_get_string_len(whole) &&
                        !memcmp(text, json_object_get_string(whole), len));
}

static size_t count_chars(const char *text, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++) n += (text[i] & 0xC0) != 0x80;
    return n;
}

/* What is wrong in the middle of the text, or NULL. chars: characters fed so far, or SIZE_MAX. */
static const char *middle_problem(const golden *g, lc_parsed r, size_t chars) {
    if (!is_prefix(r.reasoning, r.reasoning_len, field(g->line, "reasoning")))
        return "reasoning is no beginning of the final one";
    if (!is_prefix(r.content, r.content_len, field(g->line, "content")))
        return "content is no beginning of the final one";
    struct json_object *progress = field(g->line, "progress");
    for (size_t i = 0; i < json_object_array_length(progress); i++) {
        struct json_object *point = json_object_array_get_idx(progress, i);
        size_t want[3];
        for (size_t k = 0; k < 3; k++)
            want[k] = (size_t)json_object_get_int(json_object_array_get_idx(point, k));
        if (want[0] == chars && (count_chars(r.reasoning, r.reasoning_len) + MAX_LAG < want[1] ||
                                 count_chars(r.content, r.content_len) + MAX_LAG < want[2]))
            return "too far behind";
    }
    return NULL;
}

typedef enum cutting { WHOLE, BYTES, CHARS, RANDOM } cutting;

static size_t next_piece(const golden *g, size_t at, cutting how, uint64_t seed) {
    size_t left = g->len - at, n = 1;
    if (how == WHOLE) return left;
    if (how == BYTES) return 1;
    if (how == CHARS) {
        while (n < left && (g->text[at + n] & 0xC0) == 0x80) n++;
        return n;
    }
    static const uint32_t spans[] = {2, 4, 8, 24, 64, 200};
    lc_rng_block random = lc_rng(seed, 1, at);
    n = random.word[0] % spans[seed % 6] + 1;
    return n < left ? n : left;
}

static const char *problem(const golden *g, cutting how, uint64_t seed) {
    lc_toolparser *parser;
    lc_err err;
    assert_ok(lc_toolparser_new(g->tools, g->thinking_open, &parser, &err), err);
    const char *bad = NULL;
    size_t chars = 0;
    for (size_t at = 0, n; at < g->len && !bad; at += n) {
        n = next_piece(g, at, how, seed);
        chars += count_chars(g->text + at, n);
        assert_ok(lc_toolparser_push(parser, g->text + at, n, &err), err);
        bad = middle_problem(g, lc_toolparser_result(parser), how == CHARS ? chars : SIZE_MAX);
    }
    if (!bad) {
        assert_ok(lc_toolparser_finish(parser, g->finish, &err), err);
        bad = final_problem(g, lc_toolparser_result(parser));
    }
    lc_toolparser_free(parser);
    return bad;
}

static golden read_case(struct json_object *line, struct json_object *lists) {
    const char *list = json_object_get_string(field(line, "tools"));
    const char *finish = json_object_get_string(field(line, "finish"));
    struct json_object *text = field(line, "text");
    return (golden){
        .line = line,
        .tools = strcmp(list, "none") ? field(lists, list) : NULL,
        .text = json_object_get_string(text),
        .len = (size_t)json_object_get_string_len(text),
        .thinking_open = json_object_get_boolean(field(line, "thinking_open")),
        .finish = strcmp(finish, "length") ? LC_FINISH_STOP : LC_FINISH_LENGTH,
    };
}

typedef struct tally {
    int cases, whole, streamed;
} tally;

static void run_case(const golden *g, void *ctx) {
    tally *t = ctx;
    int n = json_object_get_int(field(g->line, "n"));
    const char *bad = problem(g, WHOLE, 0);
    t->cases++;
    if (bad)
        print_message("# case %d whole: %s\n", n, bad);
    else
        t->whole++;
    bad = problem(g, BYTES, 0);
    if (!bad) bad = problem(g, CHARS, 0);
    for (uint64_t seed = 1; seed <= RANDOM_CUTS && !bad; seed++) bad = problem(g, RANDOM, seed);
    if (bad)
        print_message("# case %d streamed: %s\n", n, bad);
    else
        t->streamed++;
}

/* Calls `visit` for each case of the file. */
static void each_case(void (*visit)(const golden *g, void *ctx), void *ctx) {
    lc_err err;
    lc_buf file = {0};
    struct json_object *header = NULL;
    assert_ok(lc_file_read(path, 0, &file, &err), err);
    for (char *at = file.data, *end; (end = strchr(at, '\n')); at = end + 1) {
        struct json_object *line;
        assert_ok(lc_json_parse(at, (size_t)(end - at), path, &line, &err), err);
        if (!header) {
            header = line;
            continue;
        }
        golden g = read_case(line, field(header, "tools"));
        visit(&g, ctx);
        json_object_put(line);
    }
    json_object_put(header);
    lc_buf_free(&file);
}

static void golden_cases(void **state) {
    (void)state;
    size_t before = lc_mem_current();
    tally t = {0};
    each_case(run_case, &t);
    print_message("# toolcalls.jsonl: %d of %d whole, %d of %d streamed (bytes, characters, %d "
                  "random cuttings each)\n",
                  t.whole, t.cases, t.streamed, t.cases, RANDOM_CUTS);
    assert_int_equal(t.cases, 310);
    assert_int_equal(t.whole, t.cases);
    assert_int_equal(t.streamed, t.cases);
    assert_int_equal(lc_mem_current(), before);
}

/* ---- the same through the program ---- */

/* What `longcat parse --jsonl` reads for a case. */
static void write_case(const golden *g, void *ctx) {
    struct json_object *line = json_object_new_object();
    static const char *const same[] = {"text", "thinking_open", "finish"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        json_object_object_add(line, same[i], json_object_get(field(g->line, same[i])));
    json_object_object_add(line, "tools", json_object_get(g->tools));
    fprintf(ctx, "%s\n", json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN));
    json_object_put(line);
}

typedef struct answers {
    FILE *file;
    char *line;
    size_t size;
    int good, cases;
} answers;

static void compare_case(const golden *g, void *ctx) {
    static const char *const keys[] = {"reasoning", "content", "tool_calls", "unfinished"};
    answers *a = ctx;
    struct json_object *got = NULL;
    lc_err err;
    ssize_t len = getline(&a->line, &a->size, a->file);
    assert_true(len > 0);
    assert_ok(lc_json_parse(a->line, (size_t)len, "answer", &got, &err), err);
    bool good = json_object_object_length(got) == 4;
    for (size_t i = 0; i < 4; i++)
        good = good && same_json(field(g->line, keys[i]), field(got, keys[i]));
    a->good += good;
    a->cases++;
    json_object_put(got);
}

static void program(void **state) {
    static const char *const options[] = {"", "--stream 1", "--stream 9007199254740992"};
    (void)state;
    char input[] = P_tmpdir "/longcat-parse-XXXXXX", command[512];
    int fd = mkstemp(input);
    FILE *file = fdopen(fd, "w");
    assert_non_null(file);
    each_case(write_case, file);
    fclose(file);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        snprintf(command, sizeof command, "%s parse --jsonl %s < %s", test_program(), options[i],
                 input);
        answers a = {.file = popen(command, "r")};
        assert_non_null(a.file);
        each_case(compare_case, &a);
        assert_int_equal(fgetc(a.file), EOF);
        assert_int_equal(pclose(a.file), 0);
        free(a.line);
        print_message("# longcat parse %s: %d of %d\n", options[i], a.good, a.cases);
        assert_int_equal(a.good, 310);
    }
    remove(input);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden_cases), cmocka_unit_test(program)};
    return test_main(tests);
}
