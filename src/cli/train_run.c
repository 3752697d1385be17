/*
 * train_run.c: `longcat train run RECIPE`: options, progress and the closing lines; the work is
 * train/loop.h. Ctrl-C writes a checkpoint after the step at hand.
 */
#include "cli/train.h"

#include "base/clock.h"
#include "train/loop.h"

#include <string.h>

typedef struct display {
    lc_progress line;
    uint64_t start;
    bool stopped;
} display;

static bool on_progress(void *ctx, const lc_train_progress *p) {
    display *d = ctx;
    char left[32];
    double rate = lc_progress_rate(&d->line, p->tokens);
    d->stopped = lc_progress_interrupted(&d->line);
    if (lc_progress_due(&d->line) || p->step == p->steps) {
        lc_buf text = {0};
        lc_buf_printf(&text, "%s  step %llu of %llu  %.1f M tokens  loss %.4f  %.2f routed",
                      p->stage, (unsigned long long)p->step, (unsigned long long)p->steps,
                      (double)p->tokens / 1e6, p->loss, p->routed);
        if (rate >= 1)
            lc_buf_printf(&text, "  %.0f tokens/s  %s left", rate,
                          lc_show_time(left, (double)(p->all_tokens - p->tokens) / rate));
        if (!text.failed) lc_progress_draw(&d->line, text.data);
        lc_buf_free(&text);
    }
    if (d->stopped) lc_progress_print(&d->line, "longcat: stopping, with a checkpoint");
    return !d->stopped;
}

static void on_note(void *ctx, const char *text) {
    display *d = ctx;
    char line[1200];
    snprintf(line, sizeof line, "longcat: %s", text);
    lc_progress_print(&d->line, line);
}

static int finish(const char *path, const lc_train_run_result *r, double seconds) {
    char time[32];
    printf("%s: %s after step %llu, %.1f M tokens, loss %.4f, %s; checkpoint: %s\n", path,
           r->finished ? "finished" : "stopped", (unsigned long long)r->steps,
           (double)r->tokens / 1e6, r->loss, lc_show_time(time, seconds),
           *r->checkpoint ? r->checkpoint : "none could be written");
    if (!r->finished) fprintf(stderr, "longcat: to go on: longcat train run %s\n", path);
    return r->finished && !*r->checkpoint ? LC_EXIT_FAILED : LC_EXIT_OK;
}

typedef struct flags {
    int64_t threads;
    const char *isa;
    bool changed, check;
} flags;

static int train(const char *path, const lc_recipe *recipe, const flags *f, lc_isa cap) {
    lc_err err = {0};
    lc_pool *pool = NULL;
    lc_train_run_result result;
    display d = {.start = lc_clock_ns()};
    lc_progress_begin(&d.line, TRAIN_PLAIN_MS); /* before the threads, which inherit its signals */
    int status = lc_pool_new((int)f->threads, &pool, &err);
    lc_train_run_options o = {.kernels =
                                  f->isa ? lc_kernels_best(cap, NULL) : lc_kernels_fastest(NULL),
                              .pool = pool,
                              .changed = f->changed,
                              .progress = on_progress,
                              .note = on_note,
                              .ctx = &d};
    if (!status) status = lc_train_run(recipe, &o, &result, &err);
    lc_pool_free(pool);
    lc_progress_end(&d.line);
    if (status) return lc_cli_fail(&err);
    return finish(path, &result, (double)(lc_clock_ns() - d.start) / 1e9);
}

static void show(const lc_recipe *r) {
    for (size_t i = 0; i < r->n_stages; i++) {
        const lc_recipe_stage *s = &r->stages[i];
        printf("%s: %llu steps of %llu x %llu tokens, %zu source%s\n", s->name,
               (unsigned long long)s->steps, (unsigned long long)s->batch,
               (unsigned long long)s->context, lc_recipe_sources_of(r, i)->count,
               lc_recipe_sources_of(r, i)->count == 1 ? "" : "s");
    }
}

static int run(const char *path, const flags *f) {
    lc_recipe *recipe = NULL;
    lc_err err = {0};
    lc_isa cap = LC_ISA_COUNT - 1;
    if (f->isa && !lc_isa_from_name(f->isa, &cap)) {
        fprintf(stderr, "longcat: --isa: no instruction set \"%s\"\n", f->isa);
        return LC_EXIT_USAGE;
    }
    if (lc_recipe_load(path, &recipe, &err)) return lc_cli_fail(&err);
    int code = LC_EXIT_OK;
    if (f->check)
        show(recipe);
    else
        code = train(path, recipe, f, cap);
    lc_recipe_free(recipe);
    return code;
}

int lc_train_run_cmd(int argc, char **argv) {
    flags f = {0};
    const char *path;
    int n_args;
    const lc_opt options[] = {
        {"check", 0, LC_OPT_FLAG, &f.check, NULL, "read the recipe, show its stages and stop", 0,
         0},
        {"changed", 0, LC_OPT_FLAG, &f.changed, NULL,
         "go on from a checkpoint that another recipe or other data has made", 0, 0},
        {"threads", 't', LC_OPT_INT, &f.threads, "N",
         "threads (default: the CPUs that may be used); the weights don't depend on them", 1, 1024},
        {"isa", 0, LC_OPT_STRING, &f.isa, "NAME",
         "highest instruction set: scalar, neon, neonbf16, avx2, avx512, avx512bf16, amx; the "
         "weights don't depend on it",
         0, 0},
        {0},
    };
    const lc_usage usage = {
        "longcat train run RECIPE [options]",
        "Trains a model as the recipe says (docs/training.md): from nothing, from a checkpoint, "
        "or\nfrom where its folder of checkpoints stands. Ctrl-C writes a checkpoint; the same "
        "command\ngoes on. A line of log.jsonl in that folder tells about each step.",
        options, 1, 1};
    int code = lc_cli_parse(&usage, argc, argv, &path, &n_args);
    return code < 0 ? run(path, &f) : code;
}
