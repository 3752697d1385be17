/*
 * eval_complete.c: `longcat eval complete`: greedy completions of the beginnings of files. A file
 * is cut behind a line; what the model writes is compared with what stands there: is its first line
 * the next line, and how near is it. Completions go out as JSONL, so that a script can see whether
 * they compile. With --drafts also how often the draft module guessed the model's own next tokens.
 */
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "cli/eval.h"
#include "cli/progress.h"

#include <math.h>
#include <string.h>

enum { MAX_FILES = 65536, LINE_LIMIT = 400, FILE_LIMIT = 8 << 20, LEAST_LINES = 3 };

typedef struct complete_flags {
    lc_engine_flags engine;
    const char *jsonl, *out;
    int64_t count, max_tokens, context, drafts, seed;
    double prefix; /* below 1: share of the file's lines; else lines; 0: chosen by the seed */
    bool json;
} complete_flags;

/* One completion to make. */
typedef struct sample {
    const char *name; /* of the file, or NULL */
    size_t line;      /* lines of the prefix; the number of a JSONL line */
    const char *prefix, *reference;
    size_t prefix_len, reference_len;
    bool scored; /* there is a reference */
} sample;

typedef struct results {
    size_t samples, scored, exact, ended, tokens, prompt_tokens, cut;
    double similarity, seconds, prefill_seconds;
    lc_eval_drafts drafts;
} results;

typedef struct complete {
    const complete_flags *flags;
    const char **files;
    size_t n_files;
    lc_engine *engine;
    lc_session *session;
    FILE *out;
    results r;
    lc_progress progress;
} complete;

/* ---- comparing ---- */

/* The first line with anything but white space, without white space around it. */
static const char *first_line(const char *text, size_t len, size_t *line_len) {
    size_t a = 0;
    while (a < len && strchr(" \t\r\n", text[a])) a++;
    size_t b = a;
    while (b < len && text[b] != '\n') b++;
    while (b > a && strchr(" \t\r", text[b - 1])) b--;
    *line_len = b - a;
    return text + a;
}

/* 1 - edit distance / length of the longer one, of at most LINE_LIMIT bytes each. */
static double similarity(const char *a, size_t n, const char *b, size_t m) {
    size_t row[LINE_LIMIT + 1];
    if (n > LINE_LIMIT) n = LINE_LIMIT;
    if (m > LINE_LIMIT) m = LINE_LIMIT;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]), least = row[j] + 1;
            diagonal = row[j];
            if (row[j - 1] + 1 < least) least = row[j - 1] + 1;
            row[j] = change < least ? change : least;
        }
    }
    size_t longer = n > m ? n : m;
    return longer ? 1 - (double)row[m] / (double)longer : 1;
}

/* ---- one completion ---- */

static void add(struct json_object *o, const char *key, struct json_object *value) {
    json_object_object_add(o, key, value);
}

static struct json_object *text_of(const char *text, size_t len) {
    return json_object_new_string_len(text && len ? text : "", (int)len);
}

static int write_line(complete *c, const sample *s, const lc_eval_answer *a, bool exact,
                      double near, lc_err *err) {
    struct json_object *o = json_object_new_object();
    if (!o) return lc_fail(err, LC_ENOMEM, "output: out of memory");
    if (s->name) add(o, "file", json_object_new_string(s->name));
    add(o, "line", json_object_new_int64((int64_t)s->line));
    add(o, "prefix", text_of(s->prefix, s->prefix_len));
    add(o, "completion", text_of(a->text.data, a->text.len));
    if (s->scored) {
        add(o, "reference", text_of(s->reference, s->reference_len));
        add(o, "exact", json_object_new_boolean(exact));
        add(o, "similarity", json_object_new_double(near));
    }
    add(o, "tokens", json_object_new_int64((int64_t)a->ids.len));
    add(o, "finish", json_object_new_string(a->ended ? "stop" : "length"));
    bool failed = fprintf(c->out, "%s\n",
                          json_object_to_json_string_ext(
                              o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)) < 0;
    json_object_put(o);
    return failed ? lc_fail(err, LC_EIO, "%s: can't be written", c->flags->out) : LC_OK;
}

static int score(complete *c, const sample *s, const lc_eval_answer *a, lc_err *err) {
    results *r = &c->r;
    size_t got_len = 0, want_len = 0;
    const char *got = first_line(a->text.data ? a->text.data : "", a->text.len, &got_len);
    const char *want = first_line(s->reference ? s->reference : "", s->reference_len, &want_len);
    bool exact = got_len == want_len && !memcmp(got, want, got_len);
    double near = similarity(got, got_len, want, want_len);
    r->samples++;
    r->tokens += a->ids.len;
    r->ended += a->ended;
    r->seconds += a->seconds - a->first_seconds;
    r->prefill_seconds += a->first_seconds;
    if (s->scored) {
        r->scored++;
        r->exact += exact;
        r->similarity += near;
    }
    return c->out ? write_line(c, s, a, exact, near, err) : LC_OK;
}

static int run_sample(complete *c, const sample *s, lc_err *err) {
    lc_ids ids = {0};
    lc_eval_answer answer = {0};
    lc_eval_greedy how = {.max_tokens = (size_t)c->flags->max_tokens,
                          .drafts = (size_t)c->flags->drafts,
                          .counts = &c->r.drafts};
    int status = lc_tokenizer_encode(c->engine->tokenizer, s->prefix, s->prefix_len, LC_ENCODE_ALL,
                                     false, &ids, err);
    size_t most = (size_t)c->flags->context, drop = ids.len > most ? ids.len - most : 0;
    lc_ids kept = {.data = ids.data + drop, .len = ids.len - drop};
    if (status == LC_OK && lc_progress_interrupted(&c->progress))
        status = lc_fail(err, LC_ECANCELED, "stopped");
    if (status == LC_OK) status = lc_eval_greedy_answer(c->session, &kept, &how, &answer, err);
    if (status == LC_OK) {
        c->r.prompt_tokens += kept.len;
        c->r.cut += drop > 0;
        status = score(c, s, &answer, err);
    }
    lc_eval_answer_free(&answer);
    lc_ids_free(&ids);
    char text[96];
    snprintf(text, sizeof text, "%zu completions, %zu tokens", c->r.samples, c->r.tokens);
    if (status == LC_OK && lc_progress_due(&c->progress)) lc_progress_draw(&c->progress, text);
    return status;
}

/* ---- files ---- */

static size_t count_lines(const char *text, size_t len) {
    size_t n = 0;
    for (const char *at = text; (at = memchr(at, '\n', len - (size_t)(at - text))); at++) n++;
    return n;
}

/* Bytes of the first n lines. */
static size_t lines_end(const char *text, size_t len, size_t n) {
    const char *at = text;
    for (; n; n--) at = (const char *)memchr(at, '\n', len - (size_t)(at - text)) + 1;
    return (size_t)(at - text);
}

/* Cuts file i behind a line; false if it is too short for that. round: how often it had its turn.
 */
static bool cut_file(const complete *c, size_t i, size_t round, const lc_buf *text, sample *s) {
    size_t lines = text->len ? count_lines(text->data, text->len) : 0, keep;
    if (lines < LEAST_LINES) return false;
    if (c->flags->prefix >= 1)
        keep = (size_t)c->flags->prefix;
    else {
        uint64_t seed = (uint64_t)c->flags->seed;
        double share = c->flags->prefix > 0 ? c->flags->prefix : lc_rng_uniform(seed, i, round);
        keep = 1 + (size_t)(share * (double)(lines - 1));
    }
    size_t at = keep < lines ? lines_end(text->data, text->len, keep) : text->len, line, next;
    for (; at < text->len; at += line, keep++) { /* white space belongs to the prefix */
        const char *end = memchr(text->data + at, '\n', text->len - at);
        line = end ? (size_t)(end - text->data) + 1 - at : text->len - at;
        first_line(text->data + at, line, &next);
        if (next) break;
    }
    if (at == text->len) return false;
    *s = (sample){c->files[i], keep, text->data, text->data + at, at, text->len - at, true};
    return true;
}

static int run_files(complete *c, lc_err *err) {
    size_t rounds = c->flags->prefix > 0 ? 1 : (size_t)c->flags->count, failed = 0;
    int status = LC_OK;
    for (size_t round = 0; round < rounds && status == LC_OK; round++) {
        failed = 0;
        for (size_t i = 0; i < c->n_files && c->r.samples < (size_t)c->flags->count; i++) {
            lc_buf text = {0};
            sample s;
            status = lc_file_read(c->files[i], FILE_LIMIT, &text, err);
            bool ready = status == LC_OK && cut_file(c, i, round, &text, &s);
            if (ready) status = run_sample(c, &s, err);
            failed += !ready;
            lc_buf_free(&text);
            if (status != LC_OK) return status;
        }
        if (failed == c->n_files || c->r.samples == (size_t)c->flags->count) break;
    }
    return status;
}

/* ---- JSONL ---- */

static bool string_at(struct json_object *o, const char *key, const char **text, size_t *len) {
    struct json_object *value = NULL;
    if (!json_object_object_get_ex(o, key, &value) || !json_object_is_type(value, json_type_string))
        return false;
    *text = json_object_get_string(value);
    *len = (size_t)json_object_get_string_len(value);
    return true;
}

static int run_jsonl(complete *c, lc_err *err) {
    const char *path = c->flags->jsonl;
    lc_buf text = {0};
    int status = lc_file_read(path, 0, &text, err);
    size_t number = 0;
    for (size_t at = 0;
         at < text.len && status == LC_OK && c->r.samples < (size_t)c->flags->count;) {
        const char *line = text.data + at, *end = memchr(line, '\n', text.len - at);
        size_t len = end ? (size_t)(end - line) : text.len - at;
        struct json_object *o = NULL;
        char name[300];
        sample s = {.line = ++number};
        at += len + 1;
        if (strspn(line, " \t\r") >= len) continue;
        snprintf(name, sizeof name, "%.256s:%zu", path, number);
        status = lc_json_parse(line, len, name, &o, err);
        if (status == LC_OK && (!json_object_is_type(o, json_type_object) ||
                                !string_at(o, "prefix", &s.prefix, &s.prefix_len)))
            status = lc_fail(err, LC_EFORMAT, "%s: needs an object with \"prefix\"", name);
        if (status == LC_OK) {
            s.scored = string_at(o, "reference", &s.reference, &s.reference_len);
            status = run_sample(c, &s, err);
        }
        json_object_put(o);
    }
    lc_buf_free(&text);
    return status;
}

/* ---- results ---- */

static double share(double part, double all) { return all > 0 ? part / all : 0; }

static void print_results(const complete *c) {
    const results *r = &c->r;
    double scored = (double)r->scored;
    bool json = c->flags->json;
    printf(json ? "{\"samples\":%zu,\"prompt_tokens\":%zu,\"cut\":%zu,\"tokens\":%zu,\"ended\":%zu,"
                  "\"tokens_per_s\":%.6g,\"prefill_tokens_per_s\":%.6g"
                : "completions        %10zu\nprompt tokens      %10zu\nprompts cut        %10zu\n"
                  "tokens             %10zu\nended by the model %10zu\ntokens/s           %10.1f\n"
                  "tokens/s, prompts  %10.1f\n",
           r->samples, r->prompt_tokens, r->cut, r->tokens, r->ended,
           share((double)r->tokens, r->seconds),
           share((double)r->prompt_tokens, r->prefill_seconds));
    if (r->scored)
        printf(json ? ",\"next_line_exact\":%.6g,\"next_line_similarity\":%.6g"
                    : "next line exact, %% %10.1f\nits similarity, %%  %10.1f\n",
               share((double)r->exact, scored) * (json ? 1 : 100),
               share(r->similarity, scored) * (json ? 1 : 100));
    if (json && c->flags->drafts) printf(",\"draft_acceptance\":[");
    double chain = 1, length = 1;
    for (size_t k = 0; k < (size_t)c->flags->drafts; k++) {
        double rate = share((double)r->drafts.right[k], (double)r->drafts.asked[k]);
        chain *= rate;
        length += chain;
        if (json)
            printf("%s%.6g", k ? "," : "", rate);
        else
            printf("draft step %zu, %%     %10.1f of %zu\n", k + 1, 100 * rate, r->drafts.asked[k]);
    }
    if (c->flags->drafts)
        printf(json ? "],\"tokens_per_pass\":%.6g" : "tokens per pass    %10.2f\n", length);
    if (json) puts("}");
}

static int open_all(complete *c, const char *model, lc_err *err) {
    const complete_flags *f = c->flags;
    lc_engine_options options = lc_cli_engine_options(&f->engine);
    options.drafts = f->drafts > 0;
    int status = lc_engine_open(model, &options, &c->engine, err);
    if (status == LC_OK && !c->engine->tokenizer)
        status = lc_fail(err, LC_ENOTFOUND, "%s: tokenizer.json is missing", model);
    if (status == LC_OK && (size_t)(f->context + f->max_tokens) > lc_engine_context(c->engine))
        status = lc_fail(err, LC_ELIMIT, "--context and --max-tokens: %s allows %zu tokens", model,
                         lc_engine_context(c->engine));
    if (status == LC_OK) status = lc_session_open(c->engine, &c->session, err);
    if (status == LC_OK && f->out) {
        c->out = strcmp(f->out, "-") ? fopen(f->out, "w") : stdout;
        if (!c->out) status = lc_fail(err, LC_EIO, "%s: can't be written", f->out);
    }
    return status;
}

static int run(complete *c, const char *model, lc_err *err) {
    int status = open_all(c, model, err);
    if (status == LC_OK) status = c->flags->jsonl ? run_jsonl(c, err) : run_files(c, err);
    lc_progress_clear(&c->progress);
    if (c->out && c->out != stdout && fclose(c->out) && status == LC_OK)
        status = lc_fail(err, LC_EIO, "%s: can't be written", c->flags->out);
    if (status == LC_OK && !c->r.samples)
        status =
            lc_fail(err, LC_EINVAL, "no file has %d lines and text behind the cut", LEAST_LINES);
    if (status == LC_OK && (!c->flags->out || c->out != stdout)) print_results(c);
    return status;
}

int lc_eval_complete_cmd(int argc, char **argv) {
    complete_flags f = {.count = 200, .max_tokens = 64, .context = 1024, .seed = 1};
    const lc_opt options[] = {
        {"jsonl", 0, LC_OPT_STRING, &f.jsonl, "FILE",
         "lines {\"prefix\": TEXT, \"reference\": TEXT} instead of files", 0, 0},
        {"samples", 'n', LC_OPT_INT, &f.count, "N", "completions in all (default 200)", 1, 1000000},
        {"prefix", 0, LC_OPT_FLOAT, &f.prefix, "X",
         "where files are cut: a share of their lines below 1, or so many lines, and the empty "
         "ones "
         "that follow (default: files in turn, at places that --seed chooses)",
         0, 1e9},
        {"max-tokens", 0, LC_OPT_INT, &f.max_tokens, "N", "most tokens to generate (default 64)", 1,
         65536},
        {"context", 0, LC_OPT_INT, &f.context, "N",
         "last tokens of the prefix that are given (default 1024)", 1, 1 << 24},
        {"drafts", 0, LC_OPT_INT, &f.drafts, "N",
         "also draft N tokens behind each one, and count those that were right (default 0)", 0,
         LC_EVAL_DRAFTS},
        {"seed", 0, LC_OPT_INT, &f.seed, "N", "of the places (default 1)", 0, 1e15},
        {"output", 'o', LC_OPT_STRING, &f.out, "FILE",
         "the completions as JSONL: file, line, prefix, completion, reference, exact, similarity, "
         "tokens, finish; - for the standard output, in place of the table",
         0, 0},
        {"json", 0, LC_OPT_FLAG, &f.json, NULL, "print JSON", 0, 0},
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {
        "longcat eval complete MODEL FILE... [options]\n       longcat eval complete MODEL --jsonl "
        "FILE [options]",
        "Greedy completions of the beginnings of files, compared with what stands there: whether "
        "the first\nline with text is the next one, and how similar (1 - edit distance / length).",
        options, 1, MAX_FILES};
    const char **args = lc_calloc(MAX_FILES, sizeof *args);
    lc_err err = {0};
    if (!args) {
        lc_fail(&err, LC_ENOMEM, "out of memory");
        return lc_cli_fail(&err);
    }
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code < 0 && (n_args > 1) == (f.jsonl != NULL)) {
        fprintf(stderr, "longcat: files or --jsonl FILE are needed\nusage: %s\n", usage.synopsis);
        code = LC_EXIT_USAGE;
    }
    if (code < 0) {
        complete c = {.flags = &f, .files = args + 1, .n_files = (size_t)n_args - 1};
        lc_progress_begin(&c.progress, 30000);
        int status = run(&c, args[0], &err);
        lc_progress_end(&c.progress);
        lc_session_close(c.session);
        lc_engine_close(c.engine);
        code = status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
    }
    lc_free(args);
    return code;
}
