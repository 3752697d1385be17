/*
 * cmd_pull.c: `longcat pull OWNER/NAME`. Options, the token, signals and what a person sees; the
 * download itself is format/hub.h. On a terminal one line is redrawn; elsewhere finished files are
 * printed one a line, and every half minute a line says how far it is.
 */
#include "cli/cli.h"
#include "format/hub.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { REDRAW_MS = 200, PLAIN_MS = 30000, RATE_MS = 10000, SAMPLES = 50 };

typedef struct screen {
    bool terminal;
    uint64_t drawn; /* ms of the last line */
    lc_hub_phase phase;
    bool line_open; /* the cursor stands behind a line that may be redrawn */
    sigset_t signals;
    struct {
        uint64_t time, received;
    } samples[SAMPLES]; /* of the last seconds, oldest first */
    size_t n_samples;
} screen;

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static const char *show_bytes(char out[32], double bytes) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    for (; bytes >= 1000 && unit < 4; unit++) bytes /= 1000;
    snprintf(out, 32, unit && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

static const char *show_time(char out[32], double seconds) {
    uint64_t s = (uint64_t)seconds;
    if (seconds > 360000)
        snprintf(out, 32, "days");
    else if (s >= 3600)
        snprintf(out, 32, "%llu:%02llu:%02llu", (unsigned long long)s / 3600,
                 (unsigned long long)s / 60 % 60, (unsigned long long)s % 60);
    else
        snprintf(out, 32, "%llu:%02llu", (unsigned long long)s / 60, (unsigned long long)s % 60);
    return out;
}

/* Bytes a second over the last ten seconds, 0 while nothing is known. */
static double current_rate(screen *s, uint64_t received) {
    uint64_t now = now_ms();
    size_t old = s->n_samples == SAMPLES; /* one sample older than the window is kept */
    while (old + 1 < s->n_samples && now - s->samples[old + 1].time > RATE_MS) old++;
    s->n_samples -= old;
    memmove(s->samples, s->samples + old, s->n_samples * sizeof *s->samples);
    s->samples[s->n_samples].time = now;
    s->samples[s->n_samples++].received = received;
    uint64_t time = now - s->samples[0].time;
    return time ? 1000 * (double)(received - s->samples[0].received) / (double)time : 0;
}

static void status_text(screen *s, const lc_hub_progress *p, lc_buf *out) {
    char done[32], all[32], rate[32], left[32];
    double speed = current_rate(s, p->received);
    if (p->phase == LC_HUB_LISTING) {
        lc_buf_puts(out, "asking for the list of files");
        return;
    }
    lc_buf_printf(out, "%s%3.0f%%  %s of %s  %zu of %zu files",
                  p->phase == LC_HUB_CHECKING ? "checking what is here  " : "",
                  p->bytes ? 100.0 * (double)p->bytes_done / (double)p->bytes : 100.0,
                  show_bytes(done, (double)p->bytes_done), show_bytes(all, (double)p->bytes),
                  p->files_done, p->files);
    if (p->phase == LC_HUB_LOADING && speed >= 1)
        lc_buf_printf(out, "  %s/s  %s left", show_bytes(rate, speed),
                      show_time(left, (double)(p->bytes - p->bytes_done) / speed));
    if (p->n_active) lc_buf_printf(out, "  %s", p->active[0].path);
    if (p->n_active > 1) lc_buf_printf(out, " +%zu", p->n_active - 1);
}

static void draw_line(screen *s, const char *text) {
    struct winsize size;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    /* Cut by bytes: a name in another script may lose more than needed, never less. */
    fprintf(stderr, "\r%.*s\033[K", columns - 1, text);
    fflush(stderr);
    s->line_open = true;
}

static void print_line(screen *s, const char *text) {
    fprintf(stderr, "%s%s%s\n", s->line_open ? "\r" : "", text, s->terminal ? "\033[K" : "");
    s->line_open = false;
}

/* True if one of the signals that end the program has come. */
static bool interrupted(const screen *s) {
    const struct timespec now = {0, 0};
    return sigtimedwait(&s->signals, NULL, &now) > 0;
}

static bool on_progress(void *ctx, const lc_hub_progress *p) {
    screen *s = ctx;
    lc_buf text = {0};
    uint64_t now = now_ms();
    if (p->note) print_line(s, p->note);
    if (p->finished) {
        lc_buf_printf(&text, "%s: done", p->finished);
        if (!text.failed) print_line(s, text.data);
        lc_buf_clear(&text);
    }
    bool new_phase = p->phase != s->phase || !s->drawn;
    if (!p->finished &&
        (new_phase || now - s->drawn >= (s->terminal ? (uint64_t)REDRAW_MS : (uint64_t)PLAIN_MS))) {
        s->drawn = now;
        s->phase = p->phase;
        status_text(s, p, &text);
        if (!text.failed && s->terminal)
            draw_line(s, text.data);
        else if (!text.failed)
            print_line(s, text.data);
    }
    lc_buf_free(&text);
    return !interrupted(s);
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
    printf("%s: %zu files, %s", o->out, r->files, show_bytes(bytes, (double)r->bytes));
    printf(" (%s downloaded, %zu files were here)", show_bytes(received, (double)r->received),
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
    screen s = {.terminal = isatty(STDERR_FILENO) == 1};
    sigset_t before;
    lc_hub_result result;
    lc_err err;
    sigemptyset(&s.signals);
    sigaddset(&s.signals, SIGINT);
    sigaddset(&s.signals, SIGTERM);
    sigaddset(&s.signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &s.signals, &before);
    lc_hub_options o = *given;
    o.progress = on_progress;
    o.ctx = &s;
    int status = lc_hub_pull(&o, &result, &err);
    if (s.line_open) fputs("\r\033[K", stderr);
    int code = finish(&o, status, &result, &err);
    sigprocmask(SIG_SETMASK, &before, NULL);
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
