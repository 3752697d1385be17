/*
 * cmd_pull.c: `longcat pull OWNER/NAME`. Options, the token, signals and what a person sees; the
 * download itself is format/hub.h. On a terminal one line is redrawn; elsewhere finished files are
 * printed one a line, and every half minute a line says how far it is.
 */
#include "base/file.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "format/hub.h"

#include <stdlib.h>
#include <string.h>

enum { PLAIN_MS = 30000 };

typedef struct screen {
    lc_progress line;
    lc_hub_phase phase;
} screen;

static void status_text(screen *s, const lc_hub_progress *p, lc_buf *out) {
    char done[32], all[32], rate[32], left[32];
    double speed = lc_progress_rate(&s->line, p->received);
    if (p->phase == LC_HUB_LISTING) {
        lc_buf_puts(out, "asking for the list of files");
        return;
    }
    lc_buf_printf(out, "%s%3.0f%%  %s of %s  %zu of %zu files",
                  p->phase == LC_HUB_CHECKING ? "checking what is here  " : "",
                  p->bytes ? 100.0 * (double)p->bytes_done / (double)p->bytes : 100.0,
                  lc_show_bytes(done, (double)p->bytes_done), lc_show_bytes(all, (double)p->bytes),
                  p->files_done, p->files);
    if (p->phase == LC_HUB_LOADING && speed >= 1)
        lc_buf_printf(out, "  %s/s  %s left", lc_show_bytes(rate, speed),
                      lc_show_time(left, (double)(p->bytes - p->bytes_done) / speed));
    if (p->n_active) lc_buf_printf(out, "  %s", p->active[0].path);
    if (p->n_active > 1) lc_buf_printf(out, " +%zu", p->n_active - 1);
}

static bool on_progress(void *ctx, const lc_hub_progress *p) {
    screen *s = ctx;
    lc_buf text = {0};
    if (p->note) lc_progress_print(&s->line, p->note);
    if (p->finished) {
        lc_buf_printf(&text, "%s: done", p->finished);
        if (!text.failed) lc_progress_print(&s->line, text.data);
        lc_buf_clear(&text);
    }
    if (!p->finished && (p->phase != s->phase || lc_progress_due(&s->line))) {
        s->phase = p->phase;
        status_text(s, p, &text);
        if (!text.failed) lc_progress_draw(&s->line, text.data);
    }
    lc_buf_free(&text);
    return !lc_progress_interrupted(&s->line);
}

/* The first line of a file, or HF_TOKEN; *token stays NULL if there is neither. */
static int read_token(const char *path, lc_buf *buf, const char **token, lc_err *err) {
    *token = getenv("HF_TOKEN");
    if (!path) return LC_OK;
    int status = lc_file_read(path, 65536, buf, err);
    if (status != LC_OK) return status;
    buf->data[strcspn(buf->data, " \t\r\n")] = 0;
    *token = buf->data;
    return *buf->data ? LC_OK : lc_fail(err, LC_EFORMAT, "%s: holds no token", path);
}

static int finish(const lc_hub_options *o, int status, const lc_hub_result *r, const lc_err *err) {
    char bytes[32], received[32];
    if (status == LC_ECANCELED) {
        fprintf(stderr,
                "longcat: stopped; what has arrived is kept in %s, and the same command goes "
                "on from there\n",
                o->out);
        return LC_EXIT_FAILED;
    }
    if (status != LC_OK) {
        lc_cli_fail(err);
        if (r->received)
            fprintf(stderr,
                    "longcat: what has arrived is kept in %s, and the same command goes on "
                    "from there\n",
                    o->out);
        return LC_EXIT_FAILED;
    }
    printf("%s: %zu files, %s", o->out, r->files, lc_show_bytes(bytes, (double)r->bytes));
    printf(" (%s downloaded, %zu files were here)", lc_show_bytes(received, (double)r->received),
           r->kept);
    if (r->commit[0]) printf(", commit %s", r->commit);
    putchar('\n');
    if (r->unverified)
        fprintf(stderr,
                "longcat: %zu files could not be verified: the hub states no hash for them\n",
                r->unverified);
    return LC_EXIT_OK;
}

static int pull(const lc_hub_options *given) {
    screen s = {0};
    lc_hub_result result;
    lc_err err;
    lc_progress_begin(&s.line, PLAIN_MS);
    lc_hub_options o = *given;
    o.progress = on_progress;
    o.ctx = &s;
    int status = lc_hub_pull(&o, &result, &err);
    lc_progress_clear(&s.line);
    int code = finish(&o, status, &result, &err);
    lc_progress_end(&s.line);
    return code;
}

int lc_cmd_pull(int argc, char **argv) {
    lc_hub_options o = {.endpoint = getenv("HF_ENDPOINT")};
    const char *token_path = NULL;
    int64_t jobs = 4, retries = 6, timeout = 60;
    lc_opt_list include = {0}, exclude = {0};
    const lc_opt options[] = {
        {"out", 'o', LC_OPT_STRING, &o.out, "DIR", "folder to write to (default: ./NAME)", 0, 0},
        {"revision", 0, LC_OPT_STRING, &o.revision, "REV", "branch, tag or commit (default: main)",
         0, 0},
        {"include", 0, LC_OPT_LIST, &include, "PATTERN",
         "only files whose path matches, as in '*.json'; may be repeated", 0, 0},
        {"exclude", 0, LC_OPT_LIST, &exclude, "PATTERN",
         "no files whose path matches; may be repeated", 0, 0},
        {"jobs", 'j', LC_OPT_INT, &jobs, "N", "files at a time (default: 4)", 1, LC_HUB_MAX_JOBS},
        {"endpoint", 0, LC_OPT_STRING, &o.endpoint, "URL",
         "the hub (default: HF_ENDPOINT, else https://huggingface.co)", 0, 0},
        {"token-file", 0, LC_OPT_STRING, &token_path, "FILE",
         "file that holds the access token (default: the variable HF_TOKEN)", 0, 0},
        {"retries", 0, LC_OPT_INT, &retries, "N",
         "failures in a row without progress before a file is given up (default: 6)", 1, 1000},
        {"timeout", 0, LC_OPT_INT, &timeout, "SECONDS",
         "a transfer without data for this long is tried again (default: 60)", 1, 3600},
        {0},
    };
    const lc_usage usage = {
        "longcat pull OWNER/NAME [--out DIR] [options]",
        "Downloads a checkpoint from a hub with Hugging Face's interface.\n\n"
        "Every file is checked against the hash that the hub states. Files that are already there\n"
        "and right are kept, wrong ones are replaced. Stop it at any time: unfinished files stay "
        "as\n"
        "FILE.part, and the same command goes on from there. The token is sent to the hub only,\n"
        "never to the hosts that it redirects to.",
        options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    lc_buf token = {0};
    lc_err err;
    if (o.endpoint && !*o.endpoint) o.endpoint = NULL;
    o.repo = args[0];
    if (!o.out) o.out = strrchr(o.repo, '/') ? strrchr(o.repo, '/') + 1 : o.repo;
    o.include = include.items;
    o.n_include = include.count;
    o.exclude = exclude.items;
    o.n_exclude = exclude.count;
    o.jobs = (int)jobs;
    o.retries = (int)retries;
    o.stall_seconds = (int)timeout;
    code = read_token(token_path, &token, &o.token, &err) == LC_OK ? pull(&o) : lc_cli_fail(&err);
    lc_buf_free(&token);
    return code;
}
