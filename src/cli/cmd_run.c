/* cmd_run.c: `longcat run`: continues a text or a list of token ids. */
#include "base/json.h"
#include "cli/engine_options.h"
#include "engine/engine.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_TOKENS = 64, STDIN_LIMIT = 64 << 20 };

typedef struct run_flags {
    lc_engine_flags engine;
    lc_sampling_flags sampling;
    const char *ids;
    int64_t context;
    bool json, ignore_eos;
} run_flags;

/* What on_token collects. */
typedef struct output {
    bool stream; /* print text as it comes */
    lc_buf text;
    double first_token; /* clock */
} output;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int on_token(void *ctx, int32_t token, const char *text, size_t len) {
    output *out = ctx;
    (void)token;
    if (out->first_token == 0) out->first_token = now();
    if (!text) return 0;
    if (out->stream) {
        fwrite(text, 1, len, stdout);
        fflush(stdout);
    }
    return lc_buf_append(&out->text, text, len) ? 0 : 1;
}

/* The prompt's ids: --ids, else the text argument, else standard input. */
static int read_prompt(const lc_engine *engine, const char *model, const run_flags *f,
                       const char *text, lc_ids *ids, lc_err *err) {
    if (f->ids) return lc_cli_ids("--ids", f->ids, ids, err);
    if (!engine->tokenizer)
        return lc_fail(err, LC_ENOTFOUND,
                       "%s: tokenizer.json is missing; --ids gives token ids instead", model);
    lc_buf buf = {0};
    int status = text ? LC_OK : lc_cli_stdin(STDIN_LIMIT, &buf, err);
    if (status == LC_OK)
        status = lc_tokenizer_encode(engine->tokenizer, text ? text : buf.data,
                                     text ? strlen(text) : buf.len, LC_ENCODE_ALL, false, ids, err);
    lc_buf_free(&buf);
    return status;
}

static void print_result(const output *out, size_t prompt, const int32_t *tokens, size_t count,
                         lc_finish finish) {
    struct json_object *info = json_object_new_object();
    json_object_object_add(
        info, "text",
        json_object_new_string_len(out->text.data ? out->text.data : "", (int)out->text.len));
    json_object_object_add(info, "finish",
                           json_object_new_string(finish == LC_FINISH_STOP ? "stop" : "length"));
    json_object_object_add(info, "prompt_tokens", json_object_new_int64((int64_t)prompt));
    json_object_object_add(info, "tokens", json_object_new_int64((int64_t)count));
    puts(json_object_to_json_string_ext(info,
                                        JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(info);
    printf("{\"ids\":[");
    for (size_t i = 0; i < count; i++) printf("%s%d", i ? "," : "", tokens[i]);
    puts("]}");
}

static void print_speed(size_t prompt, size_t count, double start, const output *out) {
    double end = now(), first = out->first_token - start, rest = end - out->first_token;
    fprintf(stderr, "%zu prompt tokens in %.2f s", prompt, first);
    if (count > 1) fprintf(stderr, ", then %.1f tokens/s", (double)(count - 1) / rest);
    fprintf(stderr, "\n");
}

static int run(lc_engine *engine, const char *model, const run_flags *f, const char *text,
               lc_err *err) {
    lc_session *session = NULL;
    lc_ids prompt = {0};
    output out = {.stream = !f->json};
    size_t count = 0;
    lc_finish finish = LC_FINISH_LENGTH;
    int32_t *tokens = lc_calloc((size_t)f->sampling.max_tokens, sizeof *tokens);
    int status = tokens ? LC_OK : lc_fail(err, LC_ENOMEM, "out of memory");
    if (status == LC_OK) status = read_prompt(engine, model, f, text, &prompt, err);
    if (status == LC_OK) status = lc_session_open(engine, &session, err);
    if (status == LC_OK) {
        lc_generation how = lc_cli_generation(&f->sampling, &engine->model->config);
        how.ignore_eos = f->ignore_eos;
        how.on_token = on_token;
        how.ctx = &out;
        double start = now();
        status = lc_generate(session, prompt.data, prompt.len, &how, tokens, &count, &finish, err);
        if (status == LC_OK && f->json) print_result(&out, prompt.len, tokens, count, finish);
        if (out.stream && (status == LC_OK || out.text.len) && engine->tokenizer) puts("");
        if (out.stream && !engine->tokenizer)
            for (size_t i = 0; i < count; i++)
                printf("%d%c", tokens[i], i + 1 < count ? ' ' : '\n');
        if (status == LC_OK && count && isatty(STDERR_FILENO))
            print_speed(prompt.len, count, start, &out);
    }
    lc_session_close(session);
    lc_ids_free(&prompt);
    lc_buf_free(&out.text);
    lc_free(tokens);
    return status;
}

int lc_cmd_run(int argc, char **argv) {
    run_flags f = {.sampling = LC_SAMPLING_UNSET};
    f.sampling.max_tokens = DEFAULT_TOKENS;
    const lc_opt options[] = {
        {"ids", 0, LC_OPT_STRING, &f.ids, "LIST", "the prompt as token ids: 1,2,3", 0, 0},
        {"json", 0, LC_OPT_FLAG, &f.json, NULL,
         "print text and counts as JSON, then a last line {\"ids\":[...]}", 0, 0},
        {"ignore-eos", 0, LC_OPT_FLAG, &f.ignore_eos, NULL, "go on behind the end-of-text token", 0,
         0},
        {"context", 0, LC_OPT_INT, &f.context, "N",
         "longest sequence (default: what the model allows)", 1, 1 << 28},
        LC_SAMPLING_OPTIONS(f.sampling),
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {
        .synopsis = "longcat run MODEL [\"text\"] [options]",
        .description = "Continues the text (standard input if none is given) and prints what "
                       "follows, 64 tokens\n"
                       "unless -n says otherwise. The same model, text and seed give the same "
                       "answer on every\n"
                       "machine and with any number of threads.",
        .options = options,
        .min_args = 1,
        .max_args = 2,
    };
    const char *args[2] = {0};
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    if (f.ids && n_args > 1) {
        fprintf(stderr, "longcat: the prompt is either a text or --ids, not both\n");
        return LC_EXIT_USAGE;
    }
    lc_err err = {0};
    lc_engine_options engine_options = lc_cli_engine_options(&f.engine);
    engine_options.context = (size_t)f.context;
    lc_engine *engine = NULL;
    int status = lc_engine_open(args[0], &engine_options, &engine, &err);
    if (status == LC_OK) status = run(engine, args[0], &f, n_args > 1 ? args[1] : NULL, &err);
    lc_engine_close(engine);
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
