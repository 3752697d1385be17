/*
 * train_run.c: `longcat train run RECIPE`: options, progress and the closing lines; the work is
 * train/loop.h. Ctrl-C drops the step that is being computed, writes a checkpoint and says how to
 * go on.
 */
#include "cli/bench.h"
#include "cli/train.h"

#include "base/cpu.h"
#include "engine/machine.h"
#include "train/loop.h"

#include <math.h>
#include <string.h>

typedef struct run_flags {
    const char *run, *isa, *recompute;
    int64_t threads, steps;
    bool changed, check, profile;
} run_flags;

typedef struct run_view {
    lc_progress line;
    double peak; /* operations a second of the instruction that the products use */
    bool signalled;
    lc_profile *profile; /* NULL: nobody measures */
    double seconds, operations;
    int64_t steps; /* that are in the profile */
} run_view;

static void on_step(void *ctx, const lc_step_report *r) {
    run_view *v = ctx;
    char left[32];
    v->seconds += r->seconds;
    v->operations += r->operations;
    v->steps++;
    double rate = lc_progress_rate(&v->line, (uint64_t)r->tokens);
    if (!lc_progress_due(&v->line)) return;
    if (!(rate > 0) && r->seconds > 0) rate = r->step_tokens / r->seconds;
    lc_buf text = {0};
    lc_buf_printf(&text, "%s  step %lld of %lld  loss %.4f  %.0f tokens/s  %.1f M tokens", r->stage,
                  (long long)r->step, (long long)r->steps, r->lm > 0 ? r->lm : r->objective, rate,
                  (double)r->tokens / 1e6);
    if (v->peak > 0 && r->step_tokens > 0)
        lc_buf_printf(&text, "  %.0f %% of peak",
                      100 * r->operations / r->step_tokens * rate / v->peak);
    lc_buf_printf(&text, "  %.2f experts", r->load.routed);
    if (rate > 0)
        lc_buf_printf(&text, "  %s left",
                      lc_show_time(left, (r->all_tokens - (double)r->tokens) / rate));
    if (!text.failed) lc_progress_draw(&v->line, text.data);
    lc_buf_free(&text);
}

static void on_note(void *ctx, const char *text) {
    run_view *v = ctx;
    lc_progress_print(&v->line, text);
}

static bool on_stop(void *ctx) {
    run_view *v = ctx;
    if (!v->signalled && lc_progress_interrupted(&v->line)) {
        v->signalled = true;
        lc_progress_print(&v->line, "stopping: a checkpoint is written");
    }
    return v->signalled;
}

/* What the widest instruction that the kernels may use reaches, measured now, briefly. */
static double peak_of(const lc_kernels *kernels, bool bf16, lc_pool *pool) {
    const lc_peak *peaks[LC_PEAKS];
    double best = 0;
    size_t n = lc_peaks(peaks);
    for (size_t i = 0; i < n; i++) {
        bool fits = peaks[i]->kind == LC_PEAK_F32 || (bf16 && peaks[i]->kind == LC_PEAK_BF16);
        if (!fits || peaks[i]->isa > kernels->isa) continue;
        double rate = lc_peak_best(peaks[i], pool, 0.01);
        if (rate > best) best = rate;
    }
    return best;
}

static int choose(const run_flags *f, lc_loop_options *o, lc_err *err) {
    int status = lc_kernels_named(f->isa, &o->kernels, err);
    if (status != LC_OK) return status;
    static const char *const words[] = {"auto", "off", "on"};
    for (int i = 0; f->recompute && i < 3; i++)
        if (!strcmp(words[i], f->recompute)) {
            o->recompute = (lc_recompute)i;
            return LC_OK;
        }
    return f->recompute ? lc_fail(err, LC_EINVAL, "--recompute %s: auto, off or on", f->recompute)
                        : LC_OK;
}

/* RECIPE without its extension, if neither the recipe nor --run names a folder. */
static int name_run(lc_recipe *r, const char *given, lc_err *err) {
    if (r->run && !given) return LC_OK;
    const char *from = given ? given : r->path, *dot = strrchr(from, '.');
    const char *slash = strrchr(from, '/');
    size_t n = strlen(from);
    if (!given && (!dot || (slash && dot < slash) || dot == from))
        return lc_fail(err, LC_EINVAL, "%s: has no [train] run = FOLDER; give --run FOLDER",
                       r->path);
    if (!given) n = (size_t)(dot - from);
    lc_free(r->run);
    r->run = lc_strndup(from, n);
    return r->run ? LC_OK : lc_fail(err, LC_ENOMEM, "out of memory");
}

static int finish(const lc_recipe *r, const lc_loop_result *result) {
    if (result->complete) {
        printf("%s: %lld steps done, weights %s, model in %s/latest\n", r->run,
               (long long)result->step, result->hash, r->run);
        return LC_EXIT_OK;
    }
    if (result->step)
        fprintf(stderr,
                "longcat: stopped after step %lld of %lld; `longcat train run %s` goes on from "
                "there\n",
                (long long)result->step, (long long)result->steps, r->path);
    else
        fprintf(stderr, "longcat: stopped before the first step was done; nothing was written\n");
    printf("%s: %lld of %lld steps done, weights %s\n", r->run, (long long)result->step,
           (long long)result->steps, result->hash);
    return LC_EXIT_OK;
}

enum { BAR = 24 };

static void profile_row(lc_bench_report *report, const run_view *v, lc_lap part, bool back,
                        double most) {
    char bar[BAR + 1];
    double steps = (double)v->steps, seconds = (double)v->profile->of[back][part].ns / 1e9,
           rate = v->profile->of[back][part].operations / seconds;
    if (!(seconds > 0)) return;
    const lc_cell cells[] = {{.text = lc_lap_name(part)},
                             {.text = back ? "backward" : ""},
                             {.number = seconds / steps},
                             {.number = seconds / v->seconds},
                             {.text = lc_bench_bar(bar, BAR, seconds, most)},
                             {.number = rate > 0 ? rate : NAN},
                             {.number = rate > 0 ? rate / v->peak : NAN}};
    lc_bench_row(report, cells);
}

/* Where the steps of this sitting spent their time. */
static void show_profile(const run_view *v) {
    static const lc_column columns[] = {{NULL, "operator", -22, 0, 0},   {NULL, "", -9, 0, 0},
                                        {NULL, "ms/step", 10, 1, 1e-3},  {NULL, "%", 7, 1, 0.01},
                                        {NULL, "time", -BAR, 0, 0},      {NULL, "Gop/s", 9, 1, 1e9},
                                        {NULL, "% of peak", 11, 1, 0.01}};
    lc_bench_report report = {0};
    char title[160];
    double most = 0;
    if (!v->profile || !v->steps) return;
    for (int back = 0; back < 2; back++)
        for (int part = 0; part < LC_LAPS; part++)
            if ((double)v->profile->of[back][part].ns / 1e9 > most)
                most = (double)v->profile->of[back][part].ns / 1e9;
    snprintf(title, sizeof title,
             "%lld steps: %.1f ms each, %.1f Gop/s in all, %.1f %% of the peak of %.0f Gop/s",
             (long long)v->steps, v->seconds / (double)v->steps * 1e3,
             v->operations / v->seconds / 1e9, 100 * v->operations / v->seconds / v->peak,
             v->peak / 1e9);
    lc_bench_table(&report, NULL, title, columns, sizeof columns / sizeof *columns);
    for (int part = 0; part < LC_LAPS; part++)
        for (int back = 0; back < 2; back++) profile_row(&report, v, (lc_lap)part, back, most);
}

static int run(lc_recipe *r, const run_flags *f) {
    lc_err err = {0};
    lc_pool *pool = NULL;
    lc_loop_result result = {0};
    lc_profile profile = {0};
    run_view view = {.profile = f->profile ? &profile : NULL};
    lc_loop_options o = {.accept_changes = f->changed,
                         .most_steps = f->steps,
                         .profile = f->profile ? &profile : NULL,
                         .hooks = {&view, on_step, on_note, on_stop}};
    lc_progress_begin(&view.line,
                      TRAIN_PLAIN_MS); /* before the threads, which inherit its signals */
    int status = choose(f, &o, &err);
    if (status == LC_OK) status = lc_pool_new((int)f->threads, &pool, &err);
    o.pool = pool;
    if (status == LC_OK) {
        view.peak = peak_of(o.kernels, !r->compute_f32, pool);
        status = lc_loop_run(r, &o, &result, &err);
    }
    lc_progress_end(&view.line);
    show_profile(&view);
    lc_pool_free(pool);
    return status == LC_OK ? finish(r, &result) : lc_cli_fail(&err);
}

static int show_plan(lc_recipe *r) {
    lc_err err = {0};
    if (lc_loop_check(r, NULL, &err) != LC_OK) return lc_cli_fail(&err);
    printf("%s: %zu sources, %.1f M tokens in %lld steps\n", r->path, r->n_sources,
           lc_recipe_tokens(r) / 1e6, (long long)lc_recipe_steps(r));
    for (size_t i = 0; i < r->n_stages; i++) {
        const lc_recipe_stage *s = &r->stages[i];
        printf("  %-12s %8lld steps of %lld x %lld tokens, %s, highest rate %g\n", s->name,
               (long long)s->steps, (long long)s->batch, (long long)s->context,
               lc_schedule_name((lc_schedule_kind)s->schedule_kind), s->rate);
    }
    return LC_EXIT_OK;
}

int lc_train_run_cmd(int argc, char **argv) {
    run_flags f = {0};
    const lc_opt options[] = {
        {"run", 0, LC_OPT_STRING, &f.run, "FOLDER",
         "where checkpoints and the log go (default: the recipe's `run`, else its name without "
         "extension)",
         0, 0},
        {"threads", 't', LC_OPT_INT, &f.threads, "N",
         "threads (default: all CPUs); never show in "
         "the weights",
         1, 1024},
        {"isa", 0, LC_OPT_STRING, &f.isa, "NAME",
         "highest instruction set to use (default: the fastest); never shows in the weights", 0, 0},
        {"recompute", 0, LC_OPT_STRING, &f.recompute, "WHEN",
         "compute activations again in the backward pass to save memory: auto (default), off, on",
         0, 0},
        {"steps", 0, LC_OPT_INT, &f.steps, "N", "stop after N steps of this sitting", 1, 1e15},
        {"profile", 0, LC_OPT_FLAG, &f.profile, NULL,
         "show at the end where the steps of this sitting spent their time", 0, 0},
        {"changed", 0, LC_OPT_FLAG, &f.changed, NULL,
         "go on though recipe or data have changed since the last checkpoint", 0, 0},
        {"check", 0, LC_OPT_FLAG, &f.check, NULL,
         "only check recipe, model and data, and show the stages", 0, 0},
        {0}};
    const lc_usage usage = {
        "longcat train run RECIPE",
        "Trains a model as RECIPE says (docs/training.md lists its keys). The same command begins, "
        "and goes on\nafter Ctrl-C or a crash: the newest undamaged checkpoint in the run's folder "
        "decides.",
        options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    lc_err err = {0};
    lc_recipe *r;
    int status = lc_recipe_load(args[0], &r, &err);
    if (status == LC_OK && !f.check) status = name_run(r, f.run, &err);
    code = status != LC_OK ? lc_cli_fail(&err) : f.check ? show_plan(r) : run(r, &f);
    lc_recipe_free(r);
    return code;
}
