/*
 * cmd_tokenize.c: `longcat tokenize`: text to ids and back, for people (a table), for scripts
 * (--ids) and for programs (--jsonl: one process for any number of texts).
 *
 * In --jsonl a line that can't be done gives {"error":...} in its place and the run goes on, so
 * line n of the output always answers line n of the input. The line shapes are those of the golden
 * files, so that they can be fed as they are.
 */
#include "base/json.h"
#include "cli/cli.h"
#include "text/tokenizer.h"

#include <string.h>

enum {
    LC_RUN_BYTES_MAX = 256 << 20, /* what "runs" and "ids_runs" may grow to */
    STDIN_LIMIT = 1 << 30,
};

typedef struct tokenize_opts {
    bool jsonl, decode, stream, ids, skip_special;
    const char *mode;
} tokenize_opts;

typedef struct mode {
    lc_encode_mode encode;
    bool bos;
} mode;

static int parse_mode(const char *name, mode *out, lc_err *err) {
    static const struct {
        const char *name;
        mode mode;
    } modes[] = {
        {"all", {LC_ENCODE_ALL, false}},
        {"no_special", {LC_ENCODE_NO_SPECIAL, false}},
        {"plain", {LC_ENCODE_PLAIN, false}},
        {"bos", {LC_ENCODE_ALL, true}},
    };
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(modes[i].name, name)) {
            *out = modes[i].mode;
            return LC_OK;
        }
    return lc_fail(err, LC_EINVAL, "mode is none of all, no_special, plain, bos");
}

static int no_memory(lc_err *err) { return lc_fail(err, LC_ENOMEM, "out of memory"); }

static bool put_ids(lc_buf *out, const lc_ids *ids) {
    for (size_t i = 0; i < ids->len; i++)
        lc_buf_printf(out, "%s%d", i ? "," : "", (int)ids->data[i]);
    return !out->failed;
}

/* ---- lines of JSON ---- */

static struct json_object *field(struct json_object *line, const char *key) {
    struct json_object *value = NULL;
    json_object_object_get_ex(line, key, &value);
    return value;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) return (c | 0x20) - 'a' + 10;
    return -1;
}

static int read_hex(struct json_object *hex, lc_buf *text, lc_err *err) {
    const char *s = json_object_get_string(hex);
    size_t len = (size_t)json_object_get_string_len(hex);
    if (len % 2) return lc_fail(err, LC_EINVAL, "hex has an odd number of digits");
    for (size_t i = 0; i < len; i += 2) {
        int high = hex_digit(s[i]), low = hex_digit(s[i + 1]);
        if (high < 0 || low < 0)
            return lc_fail(err, LC_EINVAL, "hex is not hexadecimal at digit %zu", i);
        if (!lc_buf_putc(text, (char)(high << 4 | low))) return no_memory(err);
    }
    return LC_OK;
}

/* Checks one entry of runs or ids_runs, [value, count], and that the whole stays in bounds. */
static int read_run(struct json_object *run, enum json_type type, struct json_object **value,
                    int64_t *count, size_t *budget, lc_err *err) {
    bool pair = json_object_is_type(run, json_type_array) && json_object_array_length(run) == 2;
    struct json_object *number = pair ? json_object_array_get_idx(run, 1) : NULL;
    *value = pair ? json_object_array_get_idx(run, 0) : NULL;
    if (!json_object_is_type(*value, type) || !json_object_is_type(number, json_type_int))
        return lc_fail(err, LC_EINVAL, "a run is not [value, count]");
    *count = json_object_get_int64(number);
    size_t each = type == json_type_string ? (size_t)json_object_get_string_len(*value)
                                           : json_object_array_length(*value) * sizeof(int32_t);
    size_t total;
    if (*count < 0 || !lc_size_mul(each + 1, (size_t)*count, &total) || total > *budget)
        return lc_fail(err, LC_ELIMIT, "runs are longer than %d bytes", LC_RUN_BYTES_MAX);
    *budget -= total;
    return LC_OK;
}

static int read_runs(struct json_object *runs, lc_buf *text, lc_err *err) {
    size_t budget = LC_RUN_BYTES_MAX;
    for (size_t i = 0; i < json_object_array_length(runs); i++) {
        struct json_object *part;
        int64_t count = 0;
        int status = read_run(json_object_array_get_idx(runs, i), json_type_string, &part, &count,
                              &budget, err);
        if (status) return status;
        for (int64_t j = 0; j < count; j++)
            lc_buf_append(text, json_object_get_string(part),
                          (size_t)json_object_get_string_len(part));
        if (text->failed) return no_memory(err);
    }
    return LC_OK;
}

static int read_text(struct json_object *line, lc_buf *text, lc_err *err) {
    struct json_object *value;
    if ((value = field(line, "text")) && json_object_is_type(value, json_type_string))
        return lc_buf_append(text, json_object_get_string(value),
                             (size_t)json_object_get_string_len(value))
                   ? LC_OK
                   : no_memory(err);
    if ((value = field(line, "hex")) && json_object_is_type(value, json_type_string))
        return read_hex(value, text, err);
    if ((value = field(line, "runs")) && json_object_is_type(value, json_type_array))
        return read_runs(value, text, err);
    return lc_fail(err, LC_EINVAL, "the line has no string \"text\" or \"hex\", nor \"runs\"");
}

static int read_id_list(struct json_object *list, lc_ids *ids, lc_err *err) {
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *id = json_object_array_get_idx(list, i);
        int64_t value = json_object_is_type(id, json_type_int) ? json_object_get_int64(id) : -1;
        if (value < 0 || value > INT32_MAX)
            return lc_fail(err, LC_EINVAL, "ids[%zu] is not a token id", i);
        if (!lc_ids_push(ids, (int32_t)value)) return no_memory(err);
    }
    return LC_OK;
}

static int read_ids(struct json_object *line, lc_ids *ids, lc_err *err) {
    struct json_object *list = field(line, "ids"), *runs = field(line, "ids_runs");
    size_t budget = LC_RUN_BYTES_MAX;
    int status = LC_OK;
    if (json_object_is_type(list, json_type_array)) return read_id_list(list, ids, err);
    if (!json_object_is_type(runs, json_type_array))
        return lc_fail(err, LC_EINVAL, "the line has no list \"ids\" or \"ids_runs\"");
    for (size_t i = 0; i < json_object_array_length(runs) && !status; i++) {
        int64_t count = 0;
        status = read_run(json_object_array_get_idx(runs, i), json_type_array, &list, &count,
                          &budget, err);
        for (int64_t j = 0; j < count && !status; j++) status = read_id_list(list, ids, err);
    }
    return status;
}

static int read_flag(struct json_object *line, const char *key, bool *out, lc_err *err) {
    struct json_object *value = field(line, key);
    if (!value) return LC_OK;
    if (!json_object_is_type(value, json_type_boolean))
        return lc_fail(err, LC_EINVAL, "%s is not true or false", key);
    *out = json_object_get_boolean(value);
    return LC_OK;
}

typedef struct job {
    const lc_tokenizer *tokenizer;
    const tokenize_opts *opts;
    lc_buf text, out;
    lc_ids ids;
    lc_err err;
} job;

static int encode_line(job *j, struct json_object *line) {
    struct json_object *name = field(line, "mode");
    mode m = {LC_ENCODE_ALL, false};
    int status = parse_mode(name ? json_object_get_string(name) : j->opts->mode, &m, &j->err);
    if (!status) status = read_flag(line, "bos", &m.bos, &j->err);
    if (!status) status = read_text(line, &j->text, &j->err);
    if (!status)
        status = lc_tokenizer_encode(j->tokenizer, j->text.data, j->text.len, m.encode, m.bos,
                                     &j->ids, &j->err);
    if (status) return status;
    lc_buf_puts(&j->out, "{\"ids\":[");
    put_ids(&j->out, &j->ids);
    return lc_buf_puts(&j->out, "]}") ? LC_OK : no_memory(&j->err);
}

static int decode_line(job *j, bool skip_special) {
    int status =
        lc_tokenizer_decode(j->tokenizer, j->ids.data, j->ids.len, skip_special, &j->text, &j->err);
    if (status) return status;
    lc_buf_puts(&j->out, "{\"text\":");
    lc_cli_put_json(&j->out, j->text.data, j->text.len);
    return lc_buf_putc(&j->out, '}') ? LC_OK : no_memory(&j->err);
}

static int stream_line(job *j, bool skip_special) {
    lc_decode_stream stream = {.skip_special = skip_special};
    lc_buf_puts(&j->out, "{\"steps\":[");
    for (size_t i = 0; i < j->ids.len; i++) {
        lc_buf_clear(&j->text);
        int status = lc_decode_push(j->tokenizer, &stream, j->ids.data[i], &j->text, &j->err);
        if (status) return status;
        if (i) lc_buf_putc(&j->out, ',');
        lc_cli_put_json(&j->out, j->text.data, j->text.len);
    }
    lc_buf_clear(&j->text);
    if (!lc_decode_finish(&stream, &j->text)) return no_memory(&j->err);
    lc_buf_puts(&j->out, "],\"end\":");
    lc_cli_put_json(&j->out, j->text.data, j->text.len);
    return lc_buf_putc(&j->out, '}') ? LC_OK : no_memory(&j->err);
}

static int do_line(job *j, const lc_buf *input) {
    struct json_object *line;
    bool skip_special = j->opts->skip_special;
    int status = lc_json_parse(input->data, input->len, "line", &line, &j->err);
    if (status) return status;
    if (!json_object_is_type(line, json_type_object))
        status = lc_fail(&j->err, LC_EINVAL, "the line is not a JSON object");
    else if (!j->opts->decode)
        status = encode_line(j, line);
    else if (!(status = read_flag(line, "skip_special", &skip_special, &j->err)) &&
             !(status = read_ids(line, &j->ids, &j->err)))
        status = j->opts->stream ? stream_line(j, skip_special) : decode_line(j, skip_special);
    json_object_put(line);
    return status;
}

static int answer(void *ctx, const lc_buf *line, lc_buf *out, lc_err *err) {
    job *j = ctx;
    lc_buf_clear(&j->text);
    lc_buf_clear(&j->out);
    lc_ids_free(&j->ids);
    int status = do_line(j, line);
    if (status != LC_OK) {
        *err = j->err;
        return status;
    }
    return lc_buf_append(out, j->out.data, j->out.len) ? LC_OK : no_memory(err);
}

/* ---- for people ---- */

static int decode_args(job *j, const char **args, int n_args) {
    int status = LC_OK;
    for (int i = 0; i < n_args && !status; i++)
        status = lc_cli_ids("token ids", args[i], &j->ids, &j->err);
    if (!n_args && !(status = lc_cli_stdin(STDIN_LIMIT, &j->text, &j->err))) {
        for (char *c = j->text.data; *c; c++)
            if (strchr("\t\r\n[]", *c)) *c = ' ';
        status = lc_cli_ids("token ids", j->text.data, &j->ids, &j->err);
    }
    if (!status)
        status = lc_tokenizer_decode(j->tokenizer, j->ids.data, j->ids.len, j->opts->skip_special,
                                     &j->out, &j->err);
    if (!status && !lc_buf_putc(&j->out, '\n')) status = no_memory(&j->err);
    return status;
}

static size_t count_chars(const char *text) {
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

/* id, content as in the file, text. */
static int put_table(job *j) {
    lc_buf_puts(&j->out, "     id  piece                 text\n");
    for (size_t i = 0; i < j->ids.len; i++) {
        const char *content = lc_tokenizer_content(j->tokenizer, j->ids.data[i]);
        lc_buf_clear(&j->text);
        int status =
            lc_tokenizer_decode(j->tokenizer, &j->ids.data[i], 1, false, &j->text, &j->err);
        if (status) return status;
        size_t width = count_chars(content);
        lc_buf_printf(&j->out, "%7d  %s%*s  ", (int)j->ids.data[i], content,
                      width < 20 ? (int)(20 - width) : 0, "");
        lc_cli_put_json(&j->out, j->text.data, j->text.len);
        if (lc_tokenizer_is_special(j->tokenizer, j->ids.data[i]))
            lc_buf_puts(&j->out, "  special");
        lc_buf_putc(&j->out, '\n');
    }
    lc_buf_printf(&j->out, "%zu token%s\n", j->ids.len, j->ids.len == 1 ? "" : "s");
    return j->out.failed ? no_memory(&j->err) : LC_OK;
}

static int encode_args(job *j, const char **args, int n_args) {
    mode m = {LC_ENCODE_ALL, false};
    int status = parse_mode(j->opts->mode, &m, &j->err);
    if (!status && n_args > 1)
        status = lc_fail(&j->err, LC_EINVAL, "more than one text; put it in quotes");
    if (!status && n_args && !lc_buf_puts(&j->text, args[0])) status = no_memory(&j->err);
    if (!status && !n_args) status = lc_cli_stdin(STDIN_LIMIT, &j->text, &j->err);
    if (!status)
        status = lc_tokenizer_encode(j->tokenizer, j->text.data, j->text.len, m.encode, m.bos,
                                     &j->ids, &j->err);
    if (status || !j->opts->ids) return status ? status : put_table(j);
    put_ids(&j->out, &j->ids);
    return lc_buf_putc(&j->out, '\n') ? LC_OK : no_memory(&j->err);
}

static int run_once(job *j, const char **args, int n_args) {
    int status = j->opts->decode ? decode_args(j, args, n_args) : encode_args(j, args, n_args);
    if (!status && fwrite(j->out.data, 1, j->out.len, stdout) != j->out.len)
        status = lc_fail_errno(&j->err, LC_EIO, "writing the standard output");
    return status ? lc_cli_fail(&j->err) : LC_EXIT_OK;
}

int lc_cmd_tokenize(int argc, char **argv) {
    tokenize_opts opts = {.mode = "all"};
    const lc_opt options[] = {
        {"jsonl", 0, LC_OPT_FLAG, &opts.jsonl, NULL, "one JSON object a line from stdin to stdout",
         0, 0},
        {"decode", 'd', LC_OPT_FLAG, &opts.decode, NULL, "ids to text instead of text to ids", 0,
         0},
        {"stream", 0, LC_OPT_FLAG, &opts.stream, NULL,
         "with --jsonl --decode: what each id makes certain, one by one", 0, 0},
        {"ids", 0, LC_OPT_FLAG, &opts.ids, NULL, "print ids only, with commas between them", 0, 0},
        {"mode", 'm', LC_OPT_STRING, &opts.mode, "NAME",
         "all (default), no_special, plain or bos: see above", 0, 0},
        {"skip-special", 0, LC_OPT_FLAG, &opts.skip_special, NULL,
         "with --decode: leave special tokens out", 0, 0},
        {0},
    };
    const lc_usage usage = {
        "longcat tokenize MODEL|tokenizer.json [TEXT | --decode ID... | --jsonl]",
        "Splits a text into tokens, or joins tokens to a text. Without TEXT or ID the standard\n"
        "input is read. MODEL is a folder that holds a tokenizer.json.\n\n"
        "modes: all         added tokens in the text are recognised\n"
        "       no_special  only those that are not special are\n"
        "       plain       none is: for text from strangers\n"
        "       bos         as all, and the tokens of the file's post-processor are added\n\n"
        "--jsonl lines: {\"text\":...} or {\"hex\":...}, optional \"mode\"; gives "
        "{\"ids\":[...]}.\n"
        "With --decode: {\"ids\":[...]}, optional \"skip_special\"; gives {\"text\":...}, or with\n"
        "--stream {\"steps\":[...],\"end\":...}. A line that fails gives {\"error\":...}.",
        options, 1, 4096};
    const char *args[4096];
    int n_args;
    int code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    if ((opts.stream && !(opts.jsonl && opts.decode)) ||
        (opts.ids && (opts.jsonl || opts.decode)) || (opts.jsonl && n_args > 1)) {
        fprintf(stderr, "longcat: these options don't go together; see longcat tokenize --help\n");
        return LC_EXIT_USAGE;
    }
    lc_tokenizer *tokenizer;
    job j = {.opts = &opts};
    mode checked;
    if (parse_mode(opts.mode, &checked, &j.err)) {
        fprintf(stderr, "longcat: --%s\n", j.err.text);
        return LC_EXIT_USAGE;
    }
    if (lc_tokenizer_load(args[0], &tokenizer, &j.err)) return lc_cli_fail(&j.err);
    j.tokenizer = tokenizer;
    code = opts.jsonl ? lc_cli_filter(answer, &j) : run_once(&j, args + 1, n_args - 1);
    lc_buf_free(&j.text);
    lc_buf_free(&j.out);
    lc_ids_free(&j.ids);
    lc_tokenizer_free(tokenizer);
    return code;
}
