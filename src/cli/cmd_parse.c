/*
 * cmd_parse.c: `longcat parse`, what the model wrote split into reasoning, content and tool calls.
 * With --jsonl it is a filter over lines of JSON, for tests and other programs; without, it shows
 * one text from standard input to a person.
 */
#include "base/json.h"
#include "base/rng.h"
#include "cli/cli.h"
#include "text/toolcall.h"

#include <string.h>

enum { STDIN_LIMIT = 1 << 30, PRINT = JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE };

typedef struct parse_input {
    const char *text;
    size_t len;
    struct json_object *tools;
    bool thinking_open;
    lc_finish finish;
    bool stream; /* feed in random pieces, drawn from seed and line */
    uint64_t seed, line;
} parse_input;

/* Pieces of mixed length: single bytes up to what a network packet brings. */
static size_t piece_length(const parse_input *in, size_t at) {
    if (!in->stream) return in->len - at;
    lc_rng_block random = lc_rng(in->seed, in->line, at);
    size_t n = 1 + random.word[0] % (1u << random.word[1] % 9);
    return n < in->len - at ? n : in->len - at;
}

static int parse(const parse_input *in, lc_toolparser **out, lc_err *err) {
    int status = lc_toolparser_new(in->tools, in->thinking_open, out, err);
    for (size_t at = 0, n; status == LC_OK && at < in->len; at += n) {
        n = piece_length(in, at);
        status = lc_toolparser_push(*out, in->text + at, n, err);
    }
    return status == LC_OK ? lc_toolparser_finish(*out, in->finish, err) : status;
}

/* Adds a value (which it takes over); false when memory is short. */
static bool add(struct json_object *object, const char *key, struct json_object *value) {
    if (value && json_object_object_add(object, key, value) == 0) return true;
    json_object_put(value);
    return false;
}

static struct json_object *text_json(const char *text, size_t len) {
    return json_object_new_string_len(text, (int)len); /* not longer than its line */
}

static struct json_object *calls_json(const lc_parsed *r) {
    struct json_object *calls = json_object_new_array();
    for (size_t i = 0; calls && i < r->n_calls; i++) {
        struct json_object *call = json_object_new_object();
        if (!call || json_object_array_add(calls, call) ||
            !add(call, "name", json_object_new_string(r->calls[i].name)) ||
            !add(call, "arguments", json_object_get(r->calls[i].arguments))) {
            json_object_put(calls);
            return NULL;
        }
    }
    return calls;
}

static int put_json(const lc_toolparser *parser, lc_buf *out, lc_err *err) {
    lc_parsed r = lc_toolparser_result(parser);
    struct json_object *line = json_object_new_object();
    bool ok = line != NULL;
    if (r.has_reasoning)
        ok = ok && add(line, "reasoning", text_json(r.reasoning, r.reasoning_len));
    else
        ok = ok && json_object_object_add(line, "reasoning", NULL) == 0;
    ok = ok && add(line, "content", text_json(r.content, r.content_len)) &&
         add(line, "tool_calls", calls_json(&r)) &&
         add(line, "unfinished", json_object_new_boolean(r.unfinished));
    const char *text = ok ? json_object_to_json_string_ext(line, PRINT) : NULL;
    ok = text && lc_buf_puts(out, text);
    json_object_put(line);
    return ok ? LC_OK : lc_fail(err, LC_ENOMEM, "out of memory");
}

static void print_part(const char *title, const char *text, size_t len) {
    printf("%s:\n", title);
    fwrite(text, 1, len, stdout);
    if (!len || text[len - 1] != '\n') putchar('\n');
}

static void print_readable(const lc_toolparser *parser) {
    lc_parsed r = lc_toolparser_result(parser);
    if (r.has_reasoning) print_part("reasoning", r.reasoning, r.reasoning_len);
    if (r.content_len || (!r.has_reasoning && !r.n_calls))
        print_part("content", r.content, r.content_len);
    for (size_t i = 0; i < r.n_calls; i++)
        printf("call %zu: %s %s\n", i + 1, r.calls[i].name,
               json_object_to_json_string_ext(r.calls[i].arguments, PRINT));
    if (r.unfinished) puts("unfinished: the text ends inside a call, which was dropped");
}

static struct json_object *member(struct json_object *line, const char *key) {
    struct json_object *value = NULL;
    json_object_object_get_ex(line, key, &value);
    return value;
}

/* Fills `in` from a line's fields; the line owns what it points to. */
static int read_line(struct json_object *line, parse_input *in, lc_err *err) {
    if (!json_object_is_type(line, json_type_object))
        return lc_fail(err, LC_EFORMAT, "not a JSON object");
    struct json_object *text = member(line, "text"), *open = member(line, "thinking_open");
    struct json_object *finish = member(line, "finish");
    const char *how = finish ? json_object_get_string(finish) : "stop";
    if (!json_object_is_type(text, json_type_string))
        return lc_fail(err, LC_EFORMAT, "\"text\" is not a string");
    if (open && !json_object_is_type(open, json_type_boolean))
        return lc_fail(err, LC_EFORMAT, "\"thinking_open\" is not true or false");
    if (strcmp(how, "stop") != 0 && strcmp(how, "length") != 0)
        return lc_fail(err, LC_EFORMAT, "\"finish\" is neither \"stop\" nor \"length\"");
    in->text = json_object_get_string(text);
    in->len = (size_t)json_object_get_string_len(text);
    in->tools = member(line, "tools");
    in->thinking_open = json_object_get_boolean(open);
    in->finish = strcmp(how, "length") ? LC_FINISH_STOP : LC_FINISH_LENGTH;
    return LC_OK;
}

static int answer(void *ctx, const lc_buf *text, lc_buf *out, lc_err *err) {
    parse_input *in = ctx;
    struct json_object *line = NULL;
    lc_toolparser *parser = NULL;
    in->line++;
    int status = lc_json_parse(text->data, text->len, "line", &line, err);
    if (status == LC_OK) status = read_line(line, in, err);
    if (status == LC_OK) status = parse(in, &parser, err);
    if (status == LC_OK) status = put_json(parser, out, err);
    lc_toolparser_free(parser);
    json_object_put(line);
    return status;
}

static int parse_stdin(parse_input *in) {
    lc_buf buf = {0};
    lc_err err;
    lc_toolparser *parser = NULL;
    int status = lc_cli_stdin(STDIN_LIMIT, &buf, &err);
    in->text = buf.data;
    in->len = buf.len;
    if (status == LC_OK) status = parse(in, &parser, &err);
    if (status == LC_OK) print_readable(parser);
    lc_toolparser_free(parser);
    lc_buf_free(&buf);
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}

int lc_cmd_parse(int argc, char **argv) {
    bool jsonl = false, cut = false;
    const char *tools_path = NULL;
    int64_t seed = -1;
    parse_input in = {0};
    const lc_opt options[] = {
        {"jsonl", 0, LC_OPT_FLAG, &jsonl, NULL, "read lines of JSON, write lines of JSON", 0, 0},
        {"stream", 0, LC_OPT_INT, &seed, "SEED",
         "feed the same text in random pieces drawn from SEED; the result must not change", 0,
         9007199254740992.0},
        {"tools", 0, LC_OPT_STRING, &tools_path, "FILE",
         "JSON array of tools (without --jsonl); without tools calls are plain text", 0, 0},
        {"thinking-open", 0, LC_OPT_FLAG, &in.thinking_open, NULL,
         "the prompt ended inside a think block (without --jsonl)", 0, 0},
        {"cut", 0, LC_OPT_FLAG, &cut, NULL,
         "the text was cut off by a length limit (without --jsonl)", 0, 0},
        {0},
    };
    const lc_usage usage = {
        "longcat parse --jsonl [--stream SEED] < LINES\n"
        "       longcat parse [--tools FILE] [--thinking-open] [--cut] < TEXT",
        "Splits what a model wrote into reasoning, content and tool calls.\n\n"
        "With --jsonl each line is an object\n"
        "  {\"text\": \"...\", \"tools\": [...] or null, \"thinking_open\": false,\n"
        "   \"finish\": \"stop\"}\n"
        "(finish \"length\": the text was cut off) and gives one line\n"
        "  {\"reasoning\": \"...\" or null, \"content\": \"...\",\n"
        "   \"tool_calls\": [{\"name\": \"...\", \"arguments\": {...}}], \"unfinished\": false}",
        options, 0, 0};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    if (jsonl && (tools_path || in.thinking_open || cut)) {
        fprintf(stderr, "longcat: --jsonl takes tools, thinking_open and finish from its lines\n");
        return LC_EXIT_USAGE;
    }
    in.stream = seed >= 0;
    in.seed = (uint64_t)seed;
    in.finish = cut ? LC_FINISH_LENGTH : LC_FINISH_STOP;
    if (jsonl) return lc_cli_filter(answer, &in);
    lc_err err;
    if (tools_path && lc_json_load(tools_path, 0, &in.tools, &err) != LC_OK)
        return lc_cli_fail(&err);
    code = parse_stdin(&in);
    json_object_put(in.tools);
    return code;
}
