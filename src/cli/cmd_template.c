/*
 * cmd_template.c: `longcat template`: a conversation through a model's chat template, for people
 * (one conversation, plain text) and for programs (--jsonl: one process for any number).
 *
 * In --jsonl a line that can't be done gives {"error":...} in its place and the run goes on, so
 * line n of the output always answers line n of the input. The line shapes are those of the golden
 * files, so that they can be fed as they are. --raw renders templates without the chat rules.
 */
#include "base/file.h"
#include "cli/cli.h"
#include "text/chat.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { MAX_INPUT = 1 << 30, MAX_RUNS = 64 << 20 };

typedef struct template_opts {
    bool jsonl, raw, ids, unsanitized;
    const char *tokenizer;
} template_opts;

typedef struct job {
    const template_opts *opts;
    lc_chat_template *tmpl; /* NULL with --raw */
    lc_tokenizer *tokenizer;
    lc_buf text, out;
    lc_ids ids;
    lc_jinja_fault fault;
    lc_err err;
} job;

static int no_memory(lc_err *err) { return lc_fail(err, LC_ENOMEM, "out of memory"); }

static void put_ids(lc_buf *out, const lc_ids *ids) {
    for (size_t i = 0; i < ids->len; i++)
        lc_buf_printf(out, "%s%d", i ? "," : "", (int)ids->data[i]);
}

static struct json_object *field(struct json_object *line, const char *key) {
    struct json_object *value = NULL;
    if (json_object_is_type(line, json_type_object)) json_object_object_get_ex(line, key, &value);
    return value;
}

/* "2026-03-04T05:06:07" or seconds since 1970. */
static int read_clock(struct json_object *line, int64_t *out, lc_err *err) {
    struct json_object *value = field(line, "now");
    struct tm tm = {0};
    *out = 0;
    if (!value) return LC_OK;
    if (json_object_is_type(value, json_type_int)) {
        *out = json_object_get_int64(value);
        return LC_OK;
    }
    const char *text =
        json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end || *end)
        return lc_fail(err, LC_EINVAL, "now is no time such as \"2026-03-04T05:06:07\"");
    *out = timegm(&tm);
    return LC_OK;
}

/* ---- a conversation ---- */

/* What becomes a member of the template's arguments: all but the names that mean something here. */
static bool is_argument(const char *key) {
    static const char *const known[] = {"messages", "tools", "now", "kwargs",
                                        "chat_template_kwargs"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i], key)) return false;
    return true;
}

static bool add_members(struct json_object *to, struct json_object *from, bool all) {
    bool ok = true;
    if (!json_object_is_type(from, json_type_object)) return true;
    json_object_object_foreach(from, key, value) {
        if (all || is_argument(key))
            ok = ok && !json_object_object_add(to, key, json_object_get(value));
    }
    return ok;
}

/* The conversation in a line; arguments is to be freed. */
static int read_chat(job *j, struct json_object *line, lc_chat *chat,
                     struct json_object **arguments) {
    *arguments = json_object_new_object();
    *chat = (lc_chat){.messages = field(line, "messages"),
                      .tools = field(line, "tools"),
                      .arguments = *arguments,
                      .fault = &j->fault};
    if (json_object_is_type(line, json_type_array)) chat->messages = line;
    if (!*arguments || !add_members(*arguments, line, false) ||
        !add_members(*arguments, field(line, "kwargs"), true) ||
        !add_members(*arguments, field(line, "chat_template_kwargs"), true))
        return no_memory(&j->err);
    return read_clock(line, &chat->now, &j->err);
}

static int do_chat(job *j, struct json_object *line) {
    struct json_object *arguments = NULL;
    lc_chat chat;
    int status = read_chat(j, line, &chat, &arguments);
    if (status == LC_OK) status = lc_chat_render(j->tmpl, &chat, &j->text, &j->err);
    if (status == LC_OK && j->opts->ids)
        status =
            lc_chat_encode(j->tmpl, &chat, j->tokenizer, !j->opts->unsanitized, &j->ids, &j->err);
    json_object_put(arguments);
    return status;
}

/* ---- --raw ---- */

/* "template", or "template_runs": [[text, count], ...] for long ones. */
static int read_source(struct json_object *line, lc_buf *out, lc_err *err) {
    struct json_object *source = field(line, "template"), *runs = field(line, "template_runs");
    out->limit = MAX_RUNS;
    if (json_object_is_type(source, json_type_string)) {
        lc_buf_append(out, json_object_get_string(source),
                      (size_t)json_object_get_string_len(source));
    } else if (json_object_is_type(runs, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(runs); i++) {
            struct json_object *run = json_object_array_get_idx(runs, i);
            bool pair =
                json_object_is_type(run, json_type_array) && json_object_array_length(run) == 2;
            struct json_object *text = pair ? json_object_array_get_idx(run, 0) : NULL;
            if (!json_object_is_type(text, json_type_string))
                return lc_fail(err, LC_EINVAL, "template_runs[%zu] is not [text, count]", i);
            int64_t count = json_object_get_int64(json_object_array_get_idx(run, 1));
            for (int64_t k = 0; k < count && !out->failed; k++)
                lc_buf_append(out, json_object_get_string(text),
                              (size_t)json_object_get_string_len(text));
        }
    } else {
        return lc_fail(err, LC_EINVAL, "the line has no string \"template\"");
    }
    if (out->failed)
        return lc_fail(err, LC_ELIMIT, "a template of more than %d MiB", MAX_RUNS >> 20);
    return LC_OK;
}

static int render_raw(job *j, const lc_buf *source, struct json_object *line) {
    struct json_object *context = field(line, "context");
    bool object = json_object_is_type(context, json_type_object);
    size_t n = object ? (size_t)json_object_object_length(context) : 0;
    lc_jinja_job render = {.fault = &j->fault};
    lc_jinja *tmpl = NULL;
    lc_jinja_var *vars = lc_calloc(n + 1, sizeof *vars);
    if (!vars) return no_memory(&j->err);
    if (object) {
        json_object_object_foreach(context, name, value) {
            vars[render.n_vars++] = (lc_jinja_var){name, value};
        }
    }
    render.vars = vars;
    int status = read_clock(line, &render.now, &j->err);
    if (status == LC_OK)
        status = lc_jinja_compile(source->data ? source->data : "", source->len, "template", &tmpl,
                                  &j->fault, &j->err);
    if (status == LC_OK) status = lc_jinja_render(tmpl, &render, &j->text, &j->err);
    lc_jinja_free(tmpl);
    lc_free(vars);
    return status;
}

static int do_raw(job *j, struct json_object *line) {
    lc_buf source = {0};
    int status = read_source(line, &source, &j->err);
    if (status == LC_OK) status = render_raw(j, &source, line);
    lc_buf_free(&source);
    return status;
}

/* ---- lines ---- */

static int do_line(job *j, const lc_buf *input) {
    struct json_object *line;
    int status = lc_json_parse(input->data, input->len, "line", &line, &j->err);
    if (status != LC_OK) return status;
    if (!json_object_is_type(line, json_type_object))
        status = lc_fail(&j->err, LC_EINVAL, "the line is not a JSON object");
    else
        status = j->opts->raw ? do_raw(j, line) : do_chat(j, line);
    json_object_put(line);
    return status;
}

/* {"error": kind, "message": text}; the kind of what is no failure of a template is "input". */
static void put_error(job *j) {
    bool template_failed = j->fault.kind != LC_JINJA_NONE;
    const char *kind = template_failed ? lc_jinja_kind_name(j->fault.kind) : "input";
    lc_buf_printf(&j->out, "{\"error\":\"%s\",\"message\":", kind);
    if (template_failed && j->fault.message.data)
        lc_cli_put_json(&j->out, j->fault.message.data, j->fault.message.len);
    else
        lc_cli_put_json(&j->out, j->err.text, strlen(j->err.text));
    if (j->fault.line) lc_buf_printf(&j->out, ",\"line\":%u", j->fault.line);
    lc_buf_puts(&j->out, "}");
}

static void put_result(job *j) {
    lc_buf_puts(&j->out, "{\"text\":");
    lc_cli_put_json(&j->out, j->text.data, j->text.len);
    if (j->opts->ids) {
        lc_buf_puts(&j->out, ",\"ids\":[");
        put_ids(&j->out, &j->ids);
        lc_buf_putc(&j->out, ']');
    }
    lc_buf_puts(&j->out, "}");
}

static int answer(void *ctx, const lc_buf *line, lc_buf *out, lc_err *err) {
    job *j = ctx;
    lc_buf_clear(&j->text);
    lc_buf_clear(&j->out);
    lc_ids_free(&j->ids);
    lc_jinja_fault_free(&j->fault);
    int status = do_line(j, line);
    if (status == LC_OK)
        put_result(j);
    else
        put_error(j);
    if (!lc_buf_append(out, j->out.data, j->out.len)) return no_memory(err);
    return status;
}

/* ---- one conversation ---- */

static int run_once(job *j, const char *path) {
    struct json_object *json = NULL;
    lc_buf input = {0};
    const char *name = path && strcmp(path, "-") != 0 ? path : NULL;
    int status = name ? lc_file_read(name, MAX_INPUT, &input, &j->err)
                      : lc_cli_stdin(MAX_INPUT, &input, &j->err);
    if (status == LC_OK)
        status = lc_json_parse(input.data ? input.data : "", input.len,
                               name ? name : "standard input", &json, &j->err);
    lc_buf_free(&input);
    if (status == LC_OK) status = do_chat(j, json);
    json_object_put(json);
    if (status != LC_OK) return lc_cli_fail(&j->err);
    if (j->opts->ids) {
        put_ids(&j->out, &j->ids);
        lc_buf_putc(&j->out, '\n');
    }
    const lc_buf *result = j->opts->ids ? &j->out : &j->text;
    if (result->failed) {
        no_memory(&j->err);
        return lc_cli_fail(&j->err);
    }
    fwrite(result->data, 1, result->len, stdout);
    return LC_EXIT_OK;
}

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int run(job *j, const char **args, int n_args) {
    const template_opts *opts = j->opts;
    int status = LC_OK;
    if (!opts->raw) status = lc_chat_template_load(args[0], &j->tmpl, &j->err);
    if (status == LC_OK && opts->ids) {
        const char *path = opts->tokenizer ? opts->tokenizer : is_folder(args[0]) ? args[0] : NULL;
        if (path)
            status = lc_tokenizer_load(path, &j->tokenizer, &j->err);
        else
            status = lc_fail(&j->err, LC_EINVAL, "--ids needs a model folder or --tokenizer");
    }
    if (status != LC_OK) return lc_cli_fail(&j->err);
    return opts->jsonl ? lc_cli_filter(answer, j) : run_once(j, n_args > 1 ? args[1] : NULL);
}

int lc_cmd_template(int argc, char **argv) {
    template_opts opts = {.jsonl = false};
    const lc_opt options[] = {
        {"jsonl", 0, LC_OPT_FLAG, &opts.jsonl, NULL, "one JSON object a line from stdin to stdout",
         0, 0},
        {"raw", 0, LC_OPT_FLAG, &opts.raw, NULL,
         "with --jsonl: lines bring their own templates, no chat rules", 0, 0},
        {"ids", 0, LC_OPT_FLAG, &opts.ids, NULL,
         "token ids too (without --jsonl: instead of the text)", 0, 0},
        {"tokenizer", 't', LC_OPT_STRING, &opts.tokenizer, "FILE",
         "tokenizer.json for --ids (default: the model folder's)", 0, 0},
        {"unsanitized", 0, LC_OPT_FLAG, &opts.unsanitized, NULL,
         "with --ids: tags inside data act as tags", 0, 0},
        {0},
    };
    const lc_usage usage = {
        "longcat template MODEL|FILE.jinja [MESSAGES.json | --jsonl]\n       longcat template "
        "--raw "
        "--jsonl",
        "Renders a conversation with a chat template. MODEL is a folder with chat_template.jinja\n"
        "or a tokenizer_config.json that has one. MESSAGES.json (or the standard input) holds a\n"
        "list of messages, or an object as in a line of --jsonl.\n\n"
        "--jsonl lines: {\"messages\":[...]}, optional \"tools\", \"now\" (a clock such as\n"
        "\"2026-03-04T05:06:07\"); other members are variables of the template, such as\n"
        "\"add_generation_prompt\", and so are those of \"kwargs\". Gives {\"text\":...}, with\n"
        "--ids also \"ids\". With --raw: {\"template\":...}, optional \"context\" and \"now\".\n"
        "A line that fails gives {\"error\":KIND,\"message\":...}: syntax, undefined, type, "
        "value,\n"
        "zero_division, security, runtime, raised, limit, unsupported, memory or input.",
        options, 0, 2};
    const char *args[2];
    int n_args;
    int code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    bool wrong = opts.raw ? !opts.jsonl || n_args || opts.ids : !n_args;
    if (wrong || (opts.jsonl && n_args > 1) || (opts.unsanitized && !opts.ids)) {
        fprintf(stderr,
                "longcat: these arguments don't go together; see longcat template --help\n");
        return LC_EXIT_USAGE;
    }
    job j = {.opts = &opts};
    code = run(&j, args, n_args);
    lc_chat_template_free(j.tmpl);
    lc_tokenizer_free(j.tokenizer);
    lc_jinja_fault_free(&j.fault);
    lc_ids_free(&j.ids);
    lc_buf_free(&j.text);
    lc_buf_free(&j.out);
    return code;
}
