/*
 * cmd_quantize.c: `longcat quantize MODEL OUT --type ...`. Options and what a person sees; the work
 * is format/quantize.h. On a terminal one line is redrawn, elsewhere a line every half minute.
 */
#include "cli/cli.h"

#include "base/cpu.h"
#include "format/quantize.h"

#include <math.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { REDRAW_MS = 200, PLAIN_MS = 30000 };

typedef struct screen {
    bool terminal, line_open;
    uint64_t begun, drawn; /* ms; begun: of the first byte that this call computed */
    uint64_t first;        /* bytes that were done then */
    size_t checked;
    sigset_t signals;
} screen;

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static const char *show_bytes(char out[32], uint64_t bytes) {
    if (bytes < 1000000000)
        snprintf(out, 32, "%.1f MB", (double)bytes / 1e6);
    else
        snprintf(out, 32, "%.2f GB", (double)bytes / 1e9);
    return out;
}

/* True if one of the signals that end the program has come. */
static bool interrupted(const screen *s) {
    const struct timespec now = {0, 0};
    return sigtimedwait(&s->signals, NULL, &now) > 0;
}

static void show(screen *s, const lc_quantize_progress *p) {
    double percent = p->bytes ? 100 * (double)p->done / (double)p->bytes : 100;
    uint64_t time = s->begun ? now_ms() - s->begun : 0;
    double rate = time > 500 ? (double)(p->done - s->first) * 1000 / (double)time : 0;
    char done[32], all[32];
    fprintf(stderr, "%s%3.0f%%  %s of %s  shard %zu of %zu", s->terminal ? "\r" : "", percent,
            show_bytes(done, p->done), show_bytes(all, p->bytes),
            p->shards_done + (p->shards_done < p->shards), p->shards);
    if (p->checking) fprintf(stderr, "  checking %s", p->shard);
    if (!p->checking && rate >= 1) {
        uint64_t left = (uint64_t)((double)(p->bytes - p->done) / rate);
        fprintf(stderr, "  %.0f MB/s  %llu:%02llu:%02llu left", rate / 1e6,
                (unsigned long long)left / 3600, (unsigned long long)left / 60 % 60,
                (unsigned long long)left % 60);
    }
    fputs(s->terminal ? "\033[K" : "\n", stderr);
    fflush(stderr);
    s->line_open = s->terminal;
}

static bool on_progress(void *ctx, const lc_quantize_progress *p) {
    screen *s = ctx;
    uint64_t now = now_ms();
    if (!p->checking && (!s->begun || p->checked != s->checked)) {
        s->begun = now;
        s->first = p->done;
        s->checked = p->checked;
    }
    bool last = p->shards_done == p->shards;
    if (!s->drawn || last || now - s->drawn >= (uint64_t)(s->terminal ? REDRAW_MS : PLAIN_MS)) {
        s->drawn = now;
        show(s, p);
    }
    return !interrupted(s);
}

static int finish(const char *out, int status, const lc_quantize_result *r, const lc_err *err) {
    if (status != LC_OK) {
        if (status == LC_ECANCELED)
            fprintf(stderr, "longcat: stopped\n");
        else
            lc_cli_fail(err);
        if (status == LC_ECANCELED || status == LC_EIO)
            fprintf(stderr,
                    "longcat: finished shards stay in %s, and the same command goes on "
                    "from there\n",
                    out);
        return LC_EXIT_FAILED;
    }
    char bytes[32], source[32];
    printf("%s: %zu of %zu tensors quantised, %s from %s, %zu shard%s", out, r->quantised,
           r->tensors, show_bytes(bytes, r->bytes), show_bytes(source, r->source_bytes), r->shards,
           r->shards == 1 ? "" : "s");
    if (r->kept) printf(" (%zu were there)", r->kept);
    if (r->power > 0)
        printf(", error %.3f %% of the weights' RMS", 100 * sqrt(r->error / r->power));
    putchar('\n');
    if (r->by_row)
        fprintf(stderr,
                "longcat: %zu weights whose width is no multiple of 32 are int8 with a scale a "
                "row\n",
                r->by_row);
    return LC_EXIT_OK;
}

static int quantize(const char *model, const char *out, const lc_quantize_options *given,
                    int threads) {
    lc_quantize_options o = *given;
    screen s = {.terminal = isatty(STDERR_FILENO) == 1};
    sigset_t before;
    lc_quantize_result result = {0};
    lc_err err = {0};
    lc_pool *pool = NULL;
    sigemptyset(&s.signals);
    sigaddset(&s.signals, SIGINT);
    sigaddset(&s.signals, SIGTERM);
    sigaddset(&s.signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &s.signals, &before); /* before the threads, which inherit it */
    int status = lc_pool_new(threads, &pool, &err);
    o.pool = pool;
    o.kernels = lc_kernels_best(LC_ISA_COUNT - 1, NULL);
    o.progress = on_progress;
    o.ctx = &s;
    if (status == LC_OK) status = lc_quantize(model, out, &o, &result, &err);
    if (s.line_open) fputs("\n", stderr);
    int code = finish(out, status, &result, &err);
    lc_pool_free(pool);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return code;
}

int lc_cmd_quantize(int argc, char **argv) {
    lc_quantize_options o = {0};
    const char *type = NULL, *args[2];
    int64_t group = 0, threads = 0, shard_mb = 4000;
    int n_args;
    const lc_opt options[] = {
        {"type", 0, LC_OPT_STRING, &type, "TYPE",
         "int8, int4, or mixed: routed experts int4, the rest int8", 0, 0},
        {"group", 0, LC_OPT_INT, &group, "N",
         "weights that share a scale: 32, 64 or 128 (default: 64 with int4, a whole row with int8)",
         32, 128},
        {"embeddings", 0, LC_OPT_FLAG, &o.embeddings, NULL,
         "also the word and n-gram tables and the n-gram projections", 0, 0},
        {"head", 0, LC_OPT_FLAG, &o.head, NULL, "also the output head", 0, 0},
        {"mtp", 0, LC_OPT_FLAG, &o.mtp, NULL, "also the draft module", 0, 0},
        {"shard-size", 0, LC_OPT_INT, &shard_mb, "MB", "largest file, MB (default: 4000)", 1,
         1000000},
        {"threads", 't', LC_OPT_INT, &threads, "N", "threads (default: the CPUs that may be used)",
         1, 1024},
        {0},
    };
    const lc_usage usage = {
        "longcat quantize MODEL OUT --type int8|int4|mixed [--group N] [options]",
        "Writes a smaller checkpoint: attention projections, FFNs and experts as int4 or int8 "
        "with\n"
        "scales of least squared error. Routers, norms and indexer weights stay as they are; so "
        "do\n"
        "embeddings, head and draft module unless an option says otherwise. OUT has the layout of\n"
        "compressed-tensors, with the source's tokenizer and templates (docs/formats.md).\n\n"
        "OUT must be empty or not exist. Stop it at any time: the same command checks the "
        "finished\n"
        "shards and goes on.",
        options, 2, 2};
    int code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    if (!type || !lc_quantize_type_from_name(type, &o.type)) {
        if (type)
            fprintf(stderr, "longcat: --type: \"%s\" is neither int8, int4 nor mixed\n", type);
        else
            fprintf(stderr, "longcat: --type int8, int4 or mixed is needed\n");
        return LC_EXIT_USAGE;
    }
    if (group && group != 32 && group != 64 && group != 128) {
        fprintf(stderr, "longcat: --group: %d is neither 32, 64 nor 128\n", (int)group);
        return LC_EXIT_USAGE;
    }
    o.group = (size_t)group;
    o.shard_bytes = (size_t)shard_mb * 1000000;
    return quantize(args[0], args[1], &o, (int)threads);
}
