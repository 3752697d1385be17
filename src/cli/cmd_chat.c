/*
 * cmd_chat.c: `longcat chat`: a conversation in the terminal. Each turn renders the whole
 * conversation with the model's own template and hands the session the full token list; the session
 * computes only what is new.
 */
#include "cli/engine_options.h"
#include "cli/line.h"
#include "engine/engine.h"
#include "text/chat.h"
#include "text/toolcall.h"

#include <ctype.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_TOKENS = 1024, STEP_ROWS = 512 }; /* rows between two looks at Ctrl-C */

static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}

typedef struct chat_flags {
    lc_engine_flags engine;
    lc_sampling_flags sampling;
    const char *system;
    int64_t context;
    bool think;
} chat_flags;

typedef struct chat_state {
    lc_engine *engine;
    lc_session *session;
    lc_chat_template *tmpl;
    const chat_flags *flags;
    struct json_object *messages;
    bool colour;
    lc_line *terminal; /* NULL: lines come from a file or a pipe */
    /* the present answer */
    lc_toolparser *parser;
    size_t reasoning_shown, content_shown;
    lc_err *err;
} chat_state;

static int add_message(chat_state *s, const char *role, const char *content, lc_err *err) {
    struct json_object *m = json_object_new_object();
    if (!m) return lc_fail(err, LC_ENOMEM, "out of memory");
    json_object_object_add(m, "role", json_object_new_string(role));
    json_object_object_add(m, "content", json_object_new_string(content));
    json_object_array_add(s->messages, m);
    return LC_OK;
}

static int reset(chat_state *s, lc_err *err) {
    json_object_put(s->messages);
    s->messages = json_object_new_array();
    if (!s->messages) return lc_fail(err, LC_ENOMEM, "out of memory");
    return s->flags->system ? add_message(s, "system", s->flags->system, err) : LC_OK;
}

/* Prints what has become certain: reasoning dim, then content. */
static void show_progress(chat_state *s) {
    lc_parsed p = lc_toolparser_result(s->parser);
    if (p.reasoning_len > s->reasoning_shown) {
        printf("%s%s%s", s->colour ? "\x1b[2m" : "", p.reasoning + s->reasoning_shown,
               s->colour ? "\x1b[0m" : "");
        s->reasoning_shown = p.reasoning_len;
    }
    if (p.content_len > s->content_shown) {
        if (s->reasoning_shown && !s->content_shown) printf("\n\n");
        fputs(p.content + s->content_shown, stdout);
        s->content_shown = p.content_len;
    }
    fflush(stdout);
}

static int on_token(void *ctx, int32_t token, const char *text, size_t len) {
    chat_state *s = ctx;
    (void)token;
    if (interrupted || lc_toolparser_push(s->parser, text, len, s->err) != LC_OK) return 1;
    show_progress(s);
    return 0;
}

static int encode(chat_state *s, lc_ids *ids, lc_err *err) {
    struct json_object *arguments = json_object_new_object();
    if (!arguments) return lc_fail(err, LC_ENOMEM, "out of memory");
    json_object_object_add(arguments, "add_generation_prompt", json_object_new_boolean(true));
    json_object_object_add(arguments, "enable_thinking", json_object_new_boolean(s->flags->think));
    lc_chat chat = {.messages = s->messages, .arguments = arguments};
    int status = lc_chat_encode(s->tmpl, &chat, s->engine->tokenizer, true, ids, err);
    json_object_put(arguments);
    return status;
}

/* Computes the prompt in steps that Ctrl-C can come between; lc_generate finds it done. */
static int prefill(chat_state *s, const lc_ids *ids, lc_err *err) {
    lc_step_part part = {.session = s->session, .rows = SIZE_MAX};
    int status = lc_session_begin(s->session, ids->data, ids->len, err);
    while (status == LC_OK && s->session->length < ids->len)
        status = interrupted ? lc_fail(err, LC_ECANCELED, "stopped; this turn is forgotten")
                             : lc_step_batch(s->engine, &part, 1, STEP_ROWS, err);
    if (status != LC_OK) lc_session_abandon(s->session);
    return status;
}

/* Samples the answer to the conversation, prints it and adds it to the messages. */
static int answer(chat_state *s, lc_err *err) {
    lc_ids ids = {0};
    size_t count = 0;
    lc_finish finish = LC_FINISH_STOP;
    int32_t *tokens = lc_calloc((size_t)s->flags->sampling.max_tokens, sizeof *tokens);
    int status = tokens ? encode(s, &ids, err) : lc_fail(err, LC_ENOMEM, "out of memory");
    if (status == LC_OK) status = prefill(s, &ids, err);
    if (status == LC_OK) status = lc_toolparser_new(NULL, s->flags->think, &s->parser, err);
    if (status == LC_OK) {
        lc_generation how = lc_cli_generation(&s->flags->sampling, &s->engine->model->config);
        how.special_text = true;
        how.on_token = on_token;
        how.ctx = s;
        s->reasoning_shown = s->content_shown = 0;
        s->err = err;
        status = lc_generate(s->session, ids.data, ids.len, &how, tokens, &count, &finish, err);
        if (status == LC_ECANCELED && interrupted) {
            finish = LC_FINISH_LENGTH;
            status = LC_OK;
        }
    }
    if (status == LC_OK) status = lc_toolparser_finish(s->parser, finish, err);
    if (status == LC_OK) {
        show_progress(s);
        printf("%s\n", finish == LC_FINISH_LENGTH ? " [cut off]" : "");
        status = add_message(s, "assistant", lc_toolparser_result(s->parser).content, err);
    }
    lc_toolparser_free(s->parser);
    s->parser = NULL;
    lc_free(tokens);
    lc_ids_free(&ids);
    return status;
}

/* ---- the conversation ---- */

static lc_line_end read_line(lc_line *terminal, const char *prompt, lc_buf *out) {
    if (terminal) return lc_line_read(terminal, prompt, out);
    char *line = NULL;
    size_t cap = 0;
    ssize_t len = getline(&line, &cap, stdin);
    if (len > 0) lc_buf_append(out, line, (size_t)len - (line[len - 1] == '\n'));
    free(line);
    return len < 0 ? LC_LINE_OVER : LC_LINE_TYPED;
}

/* What is said next: lines, as long as they end with a backslash. false at the end. */
static bool read_turn(lc_line *terminal, lc_buf *turn) {
    const char *prompt = "> ";
    for (lc_buf_clear(turn);;) {
        size_t before = turn->len;
        lc_line_end end = read_line(terminal, prompt, turn);
        if (end == LC_LINE_OVER) return turn->len > 0;
        bool more = turn->len > before && turn->data[turn->len - 1] == '\\';
        if (end == LC_LINE_TYPED && !more) return lc_buf_reserve(turn, 0);
        if (more) turn->data[turn->len - 1] = '\n';
        prompt = more ? ". " : "> ";
        if (more) continue;
        lc_buf_clear(turn);
        putchar('\n');
    }
}

static const char help[] =
    "/reset   forget the conversation, start over\n"
    "/exit    leave, as Ctrl-D does at an empty prompt\n"
    "/help    show this text\n"
    "Ctrl-C stops an answer, or clears what is being typed. A line that ends with a\n"
    "backslash goes on in the next one.\n";

/* Bytes of the command at the beginning of a turn: a slash and letters, a first word of its own
 * (/usr/bin is none); 0 = something to say. */
static size_t command_length(const char *turn) {
    size_t n = 1;
    if (*turn != '/') return 0;
    while (isalpha((unsigned char)turn[n])) n++;
    return n > 1 && (!turn[n] || isspace((unsigned char)turn[n])) ? n : 0;
}

/* *leave: the conversation is over. */
static int command(chat_state *s, const char *name, size_t len, bool *leave, lc_err *err) {
    *leave = len == 5 && !strncmp(name, "/exit", len);
    if (*leave) return LC_OK;
    if (len == 6 && !strncmp(name, "/reset", len)) return reset(s, err);
    if (len == 5 && !strncmp(name, "/help", len))
        fputs(help, stdout);
    else
        fprintf(stderr, "longcat: %.*s is no command; /help lists them\n", (int)len, name);
    return LC_OK;
}

/* On a terminal a turn for which the context is too small, and one that was stopped before its
 * answer began, is forgotten. */
static int say(chat_state *s, const char *text, lc_err *err) {
    size_t before = json_object_array_length(s->messages);
    int status = add_message(s, "user", text, err);
    interrupted = 0;
    if (status == LC_OK) status = answer(s, err);
    if (!s->terminal || (status != LC_ELIMIT && status != LC_ECANCELED)) return status;
    bool stopped = status == LC_ECANCELED; /* behind the terminal's ^C */
    fprintf(stderr, "%slongcat: %s%s\n", stopped ? "\n" : "", err->text,
            stopped ? "" : "; /reset starts over");
    json_object_array_del_idx(s->messages, before, json_object_array_length(s->messages) - before);
    return LC_OK;
}

static int converse(chat_state *s, lc_err *err) {
    lc_buf turn = {0};
    bool leave = false;
    int status = reset(s, err);
    if (s->terminal)
        printf("Ctrl-C stops an answer, Ctrl-D or /exit leaves, /help lists commands.\n");
    while (status == LC_OK && !leave && read_turn(s->terminal, &turn)) {
        size_t len = command_length(turn.data);
        if (len)
            status = command(s, turn.data, len, &leave, err);
        else if (*turn.data)
            status = say(s, turn.data, err);
    }
    if (s->terminal && !leave) putchar('\n');
    if (turn.failed) status = lc_fail(err, LC_ENOMEM, "out of memory");
    lc_buf_free(&turn);
    return status;
}

static int chat(const char *model, const chat_flags *f, lc_err *err) {
    lc_engine_options options = lc_cli_engine_options(&f->engine);
    options.context = (size_t)f->context;
    chat_state s = {.flags = f, .colour = isatty(STDOUT_FILENO) != 0};
    int status = lc_engine_open(model, &options, &s.engine, err);
    if (status == LC_OK && !s.engine->tokenizer)
        status = lc_fail(err, LC_ENOTFOUND, "%s: tokenizer.json is missing", model);
    if (status == LC_OK) status = lc_chat_template_load(model, &s.tmpl, err);
    if (status == LC_OK) status = lc_session_open(s.engine, &s.session, err);
    if (status == LC_OK && s.colour && isatty(STDIN_FILENO)) {
        struct sigaction action = {.sa_handler = on_interrupt};
        sigaction(SIGINT, &action, NULL);
        status = lc_line_open(&s.terminal, err);
    }
    if (status == LC_OK) status = converse(&s, err);
    lc_line_close(s.terminal);
    json_object_put(s.messages);
    lc_session_close(s.session);
    lc_chat_template_free(s.tmpl);
    lc_engine_close(s.engine);
    return status;
}

int lc_cmd_chat(int argc, char **argv) {
    chat_flags f = {.sampling = LC_SAMPLING_UNSET};
    f.sampling.max_tokens = DEFAULT_TOKENS;
    const lc_opt options[] = {
        {"system", 0, LC_OPT_STRING, &f.system, "TEXT", "system message", 0, 0},
        {"think", 0, LC_OPT_FLAG, &f.think, NULL,
         "let the model reason first (enable_thinking of its template)", 0, 0},
        {"context", 0, LC_OPT_INT, &f.context, "N",
         "longest conversation in tokens (default: what the model allows)", 1, 1 << 28},
        LC_SAMPLING_OPTIONS(f.sampling),
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {
        .synopsis = "longcat chat MODEL [options]",
        .description =
            "Talks to a model with the chat template of its folder. Without a terminal, "
            "each line of standard\n"
            "input is a turn. A line that ends with a backslash goes on in the next one. "
            "Tags inside\nwhat you type are plain text to the model. /help lists what can "
            "be done during a\nconversation.",
        .options = options,
        .min_args = 1,
        .max_args = 1,
    };
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    lc_err err = {0};
    return chat(args[0], &f, &err) == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
