/*
 * test_train_loop.c: whole runs of `longcat train run` on a model of 100 thousand numbers: equal
 * weights for threads, instruction sets, recompute, sequences that run together, interruptions by
 * step count, signal and kill -9; damaged checkpoints; a disk that is full; what recipes are
 * refused. uses-threads
 */
#include "../unit/train_files.h"
#include "golden.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "train/checkpoint.h"
#include "train/loop.h"
#include "train/shard.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

static lc_err err;
static char folder[256];

/* ---- a corpus and a recipe ---- */

enum { VOCAB = 163, DOCS = 120 };

/* Documents of a few words that follow each other by a rule, so that something can be learned. */
static void write_source(const char *path, uint64_t seed) {
    const lc_shard_kind kind = {2, VOCAB, 2, {0}};
    lc_shard_writer *w;
    lc_buf manifest = {0};
    uint64_t sum, tokens = 0;
    mkdir(path, 0777);
    assert_ok(lc_shard_create(in(path, "0.tokens"), &kind, 0, &w, &err), err);
    for (uint64_t d = 0; d < DOCS; d++) {
        int32_t doc[64];
        size_t n = 8 + lc_rng(seed, 1, d).word[0] % 50;
        for (size_t i = 0; i < n; i++)
            doc[i] = i ? 3 + (doc[i - 1] * 7 + (int32_t)(d % 3)) % (VOCAB - 3)
                       : 3 + (int32_t)(lc_rng(seed, 2, d).word[0] % (VOCAB - 3));
        doc[n - 1] = 2;
        assert_ok(lc_shard_add(w, doc, NULL, n, &err), err);
        tokens += n;
    }
    assert_ok(lc_shard_finish(w, &sum, &err), err);
    lc_buf_printf(&manifest,
                  "{\"format\": \"longcat-train-data\", \"version\": 1, \"name\": \"x\", "
                  "\"shards\": [{\"file\": \"0.tokens\", \"documents\": %d, \"tokens\": %llu, "
                  "\"xxh3\": \"%016llx\"}]}",
                  DOCS, (unsigned long long)tokens, (unsigned long long)sum);
    put_file(in(path, "manifest.json"), manifest.data, manifest.len);
    lc_buf_free(&manifest);
}

static const char recipe_head[] = "[model]\nconfig = config.json\n"
                                  "[train]\nseed = 7\nlanes = 2\noptimizer = muon # the default\n"
                                  "average = 0.9\nkeep = 2\n"
                                  "checkpoint_minutes = 0\ncheckpoint_tokens = 200\n";
static const char recipe_tail[] =
    "[source a]\nfolder = a\n[source b]\nfolder = b\nweight = 0.5\n"
    "[eval]\nfolder = b\nsequences = 2\n"
    "[stage short]\ncontext = 16\ntokens = 512\nbatch = 4\nmicro = 1\nrate = 3e-3\nmtp = 0.3\n"
    "balance = 1e-3\nmix = a 1\nindex = dense\n"
    "[stage warm]\ncontext = 32\ntokens = 256\nbatch = 2\nrate = 1e-3\nlm = 0\nkl = 1\n"
    "index = warmup\nschedule = constant\n"
    "[stage long]\ncontext = 32\ntokens = 512\nbatch = 4\nrate = 1e-3\nmtp = 0.1\nkl = 1\n"
    "schedule = cosine\nhidden_z = 1e-5\nrouter_z = 1e-4\nbalance = 1e-3\n";
enum { STEPS = 8 + 4 + 4 };

static void write_recipe(const char *name, const char *more) {
    lc_buf text = {0};
    lc_buf_printf(&text, "%s%s%s", recipe_head, more, recipe_tail);
    put_file(in(folder, name), text.data, text.len);
    lc_buf_free(&text);
}

static int set_up(void **state) {
    (void)state;
    make_folder(folder);
    write_source(in(folder, "a"), 1);
    write_source(in(folder, "b"), 2);
    lc_buf config = get_file("tests/golden/model/two-tiny/config.json");
    put_file(in(folder, "config.json"), config.data, config.len);
    lc_buf_free(&config);
    write_recipe("r.recipe", "");
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* ---- runs in this process ---- */

typedef struct run_options {
    const char *recipe, *run; /* inside the folder; recipe NULL: r.recipe */
    lc_isa isa;
    bool scalar;
    int threads;
    lc_recompute recompute;
    int64_t most_steps;
    bool changed;
} run_options;

static int run(run_options o, lc_loop_result *result) {
    lc_recipe *r;
    lc_pool *pool = NULL;
    int status = lc_recipe_load(in(folder, o.recipe ? o.recipe : "r.recipe"), &r, &err);
    if (status != LC_OK) return status;
    lc_free(r->run);
    r->run = lc_strdup(in(folder, o.run));
    if (o.threads > 1) assert_ok(lc_pool_new(o.threads, &pool, &err), err);
    lc_loop_options options = {.kernels = o.isa || o.scalar
                                              ? lc_kernels_of(o.isa)
                                              : lc_kernels_best(LC_ISA_COUNT - 1, NULL),
                               .pool = pool,
                               .recompute = o.recompute,
                               .most_steps = o.most_steps,
                               .accept_changes = o.changed};
    status = lc_loop_run(r, &options, result, &err);
    lc_pool_free(pool);
    lc_recipe_free(r);
    return status;
}

static char reference[65]; /* weights after an undisturbed run */

static void test_run(void **state) {
    (void)state;
    lc_loop_result result;
    lc_position at;
    assert_ok(run((run_options){.run = "plain", .threads = 2}, &result), err);
    assert_true(result.complete && !result.resumed);
    assert_int_equal(result.step, STEPS);
    memcpy(reference, result.hash, sizeof reference);
    assert_ok(lc_checkpoint_verify(in(folder, "plain/latest"), &at, &err), err);
    assert_int_equal(at.step, STEPS);
    assert_int_equal(at.tokens, 512 + 256 + 512);
    /* The model loads as any other, and what it holds is what was trained. */
    lc_engine *engine = golden_engine(in(folder, "plain/latest"), (golden_engine_options){0});
    assert_int_equal(lc_engine_vocab(engine), VOCAB);
    lc_engine_close(engine);
    /* Once more: there is nothing left to do. */
    assert_ok(run((run_options){.run = "plain"}, &result), err);
    assert_true(result.complete && result.resumed);
    assert_string_equal(result.hash, reference);
}

static void test_permutations(void **state) {
    (void)state;
    static const run_options list[] = {
        {.threads = 1},
        {.threads = 3, .recompute = LC_RECOMPUTE_ON},
        {.isa = LC_ISA_AVX2, .recompute = LC_RECOMPUTE_OFF},
        {.isa = LC_ISA_AVX512, .threads = 2},
        {.isa = LC_ISA_NEON, .threads = 2},
        {.scalar = true, .threads = 2},
    };
    unsigned runs = 0;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        run_options o = list[i];
        char name[16];
        lc_loop_result result;
        if (o.isa && !lc_kernels_of(o.isa)) continue;
        snprintf(name, sizeof name, "p%zu", i);
        o.run = name;
        assert_ok(run(o, &result), err);
        assert_string_equal(result.hash, reference);
        runs++;
    }
    printf("# %u runs of %d steps: equal weights\n", runs, STEPS);
}

/* ---- sequences that run together ---- */

/* Every loss in turn; sequences of 40 and 24 tokens, of packed documents, are no multiple of 32. */
static void write_split(const char *name, const char *optimizer, int micro) {
    static const char stage[] = "batch = 8\nrate = 2e-3\nrouter_z = 1e-3\nhidden_z = 1e-4\n";
    lc_buf text = {0};
    char how[32] = "";
    if (micro) snprintf(how, sizeof how, "micro = %d\n", micro);
    lc_buf_printf(&text,
                  "[model]\nconfig = config.json\n[train]\nseed = 5\nlanes = 2\noptimizer = %s\n"
                  "checkpoint_minutes = 0\n[source a]\nfolder = a\n[source b]\nfolder = b\n"
                  "whole = yes\n[eval]\nfolder = b\nsequences = 3\n"
                  "[stage dense]\ncontext = 40\ntokens = 960\nmtp = 0.3\nbalance = 0.05\n"
                  "index = dense\n%s%s"
                  "[stage warm]\ncontext = 40\ntokens = 640\nlm = 0\nkl = 1\nbatch = 8\n"
                  "rate = 2e-3\nindex = warmup\n%s"
                  "[stage sparse]\ncontext = 24\ntokens = 576\nmtp = 0.3\nbalance = 0.05\n"
                  "kl = 1\n%s%s",
                  optimizer, stage, how, how, stage, how);
    put_file(in(folder, name), text.data, text.len);
    lc_buf_free(&text);
}

/* A run's log without what the clock says. */
static lc_buf log_of(const char *run_folder) {
    char path[64];
    snprintf(path, sizeof path, "%s/log.jsonl", run_folder);
    lc_buf all = get_file(in(folder, path)), out = {0};
    for (size_t i = 0; i < all.len;) {
        const char *line = all.data + i, *clock = strstr(line, ", \"seconds\"");
        size_t len = strcspn(line, "\n") + 1,
               n = clock && clock < line + len ? (size_t)(clock - line) : len - 1;
        lc_buf_append(&out, line, n);
        lc_buf_putc(&out, '\n');
        i += len;
    }
    lc_buf_putc(&out, 0);
    lc_buf_free(&all);
    return out;
}

static void split_runs(const char *optimizer) {
    static const struct {
        int micro;
        run_options o;
    } list[] = {
        {1, {.threads = 1}},
        {2, {.threads = 3, .recompute = LC_RECOMPUTE_ON}},
        {3, {.threads = 2}}, /* three, then one */
        {4, {.threads = 2, .recompute = LC_RECOMPUTE_OFF}},
        {4, {.threads = 1, .recompute = LC_RECOMPUTE_ON}},
        {0, {.threads = 2}},
        {2, {.scalar = true, .threads = 2}},
    };
    enum { RUNS = sizeof list / sizeof *list };
    char first[65] = "";
    lc_buf log = {0};
    for (size_t i = 0; i < RUNS; i++) {
        run_options o = list[i].o;
        char name[32];
        lc_loop_result result;
        snprintf(name, sizeof name, "split-%s-%zu", optimizer, i);
        write_split("split.recipe", optimizer, list[i].micro);
        o.recipe = "split.recipe";
        o.run = name;
        /* One of them in two sittings: the loads of the step before come from the checkpoint. */
        if (i == 1) {
            o.most_steps = 2;
            assert_ok(run(o, &result), err);
            o.most_steps = 0;
            o.threads = 2;
            write_split("split.recipe", optimizer, 4);
        }
        assert_ok(run(o, &result), err);
        assert_int_equal(result.step, 3 + 2 + 3);
        lc_buf now = log_of(name);
        if (i) {
            assert_string_equal(result.hash, first);
            assert_string_equal(now.data, log.data);
            lc_buf_free(&now);
        } else {
            memcpy(first, result.hash, sizeof first);
            log = now;
            assert_true(log.len > 8 * 100);
        }
    }
    lc_buf_free(&log);
    printf("# %s, %d runs with 1 to 4 sequences at a time: equal weights and losses\n", optimizer,
           RUNS);
}

static void test_split_muon(void **state) {
    (void)state;
    split_runs("muon");
}

static void test_split_adamw(void **state) {
    (void)state;
    split_runs("adamw");
}

/* A sitting a step, other threads each time. */
static void test_sittings(void **state) {
    (void)state;
    lc_loop_result result = {0};
    for (int i = 0; i < STEPS; i++) {
        assert_false(result.complete);
        assert_ok(run((run_options){.run = "sit", .threads = 1 + i % 3, .most_steps = 1}, &result),
                  err);
        assert_int_equal(result.step, i + 1);
        if (i == 5) { /* what a kill leaves: later steps, and a line without its end */
            FILE *log = fopen(in(folder, "sit/log.jsonl"), "a");
            fputs("{\"step\": 9, \"rate\": 7}\n{\"step\": 2, \"rate\": 7}", log);
            fclose(log);
        }
    }
    assert_true(result.complete);
    assert_string_equal(result.hash, reference);
    /* Most sittings ended without measuring: only ends of stages can be the best. */
    lc_position best;
    assert_ok(lc_checkpoint_verify(in(folder, "sit/best"), &best, &err), err);
    assert_true(best.loss > 0);
    assert_true(best.step == 8 || best.step == 12 || best.step == 16);
    lc_buf log = get_file(in(folder, "sit/log.jsonl"));
    unsigned steps = 0;
    for (const char *at = log.data; (at = strstr(at, "\"rate\"")); at++) steps++;
    assert_int_equal(steps, STEPS);
    assert_null(strstr(log.data, "\"rate\": 7"));
    lc_buf_free(&log);
}

/* ---- damage ---- */

static char last_log[1024];
static unsigned logged;
static void keep_log(void *ctx, lc_log_level level, const char *text) {
    (void)ctx;
    if (level == LC_LOG_ERROR) {
        logged++;
        if (strstr(text, "damaged") || !*last_log) snprintf(last_log, sizeof last_log, "%s", text);
    }
}

static void damage(const char *path, long at) {
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    fseek(file, at, at < 0 ? SEEK_END : SEEK_SET);
    int c = fgetc(file);
    fseek(file, -1, SEEK_CUR);
    fputc(c ^ 4, file);
    fclose(file);
}

static void test_damage(void **state) {
    (void)state;
    static const struct {
        const char *file;
        long at; /* of the flipped byte; negative: from the end; 0: cut the file in half */
    } cases[] = {{"state.safetensors", -1}, {"model.safetensors", 3000}, {"config.json", 5},
                 {"manifest.json", 60},     {"state.safetensors", 0},    {"manifest.json", 0},
                 {"model.safetensors", 0}};
    enum { CASES = sizeof cases / sizeof *cases };
    for (size_t i = 0; i < CASES; i++) {
        char name[16], path[600];
        lc_loop_result result;
        lc_position at;
        snprintf(name, sizeof name, "d%zu", i);
        assert_ok(run((run_options){.run = name, .most_steps = 9, .threads = 2}, &result), err);
        snprintf(path, sizeof path, "%s/%s/latest/%s", folder, name, cases[i].file);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        if (cases[i].at)
            damage(path, cases[i].at);
        else
            assert_int_equal(truncate(path, st.st_size / 2), 0);
        *last_log = 0;
        logged = 0;
        lc_log_set(LC_LOG_WARN, keep_log, NULL);
        snprintf(path, sizeof path, "%s/%s/latest", folder, name);
        assert_int_equal(lc_checkpoint_verify(path, &at, &err), LC_EFORMAT);
        assert_ok(run((run_options){.run = name, .threads = 2}, &result), err);
        lc_log_set(LC_LOG_WARN, NULL, NULL);
        assert_int_equal(logged, 1);
        if (!strstr(last_log, cases[i].file)) fail_msg("%s", last_log);
        assert_non_null(strstr(last_log, "step-000000009"));
        assert_true(result.resumed && result.complete);
        assert_string_equal(result.hash, reference);
    }
    printf("# %d damaged checkpoints: named, the one before is used, equal weights\n", CASES);
}

/* All that are kept are damaged: the run goes back to an older one, and what it writes then stays.
 */
static void test_damaged_ones_are_not_kept_instead_of_new_ones(void **state) {
    (void)state;
    lc_loop_result result;
    lc_position at;
    char old[600], text[2600];
    run_options o = {.run = "back", .most_steps = 3, .threads = 2};
    assert_ok(run(o, &result), err);
    snprintf(old, sizeof old, "%s/back/step-000000003", folder);
    snprintf(text, sizeof text, "cp -r %s %s/back/aside", old, folder);
    assert_int_equal(system(text), 0);
    o.most_steps = 6;
    assert_ok(run(o, &result), err);
    int damaged = 0;
    for (int step = 3; step <= 9; step++) {
        snprintf(text, sizeof text, "%s/back/step-%09d/state.safetensors", folder, step);
        if (access(text, F_OK)) continue;
        damage(text, -1);
        damaged++;
    }
    assert_true(damaged >= 2);
    snprintf(text, sizeof text, "rm -rf %s && mv %s/back/aside %s", old, folder, old);
    assert_int_equal(system(text), 0);
    lc_log_set(LC_LOG_WARN, keep_log, NULL);
    o.most_steps = 2;
    assert_ok(run(o, &result), err);
    lc_log_set(LC_LOG_WARN, NULL, NULL);
    assert_true(result.resumed);
    assert_int_equal(result.step, 5);
    assert_ok(lc_checkpoint_verify(in(folder, "back/latest"), &at, &err), err);
    assert_int_equal(at.step, 5);
    assert_int_not_equal(access(in(folder, "back/best"), F_OK), 0); /* none is measured */
    o.most_steps = 0;
    assert_ok(run(o, &result), err);
    assert_string_equal(result.hash, reference);
}

/* Files may not grow beyond a limit: as on a full disk, only the checkpoint fails. */
static void test_full_disk(void **state) {
    (void)state;
    lc_loop_result result;
    struct rlimit old, small = {200000, 200000};
    assert_ok(run((run_options){.run = "full", .most_steps = 6}, &result), err);
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    *last_log = 0;
    logged = 0;
    lc_log_set(LC_LOG_WARN, keep_log, NULL);
    int status = run((run_options){.run = "full"}, &result);
    lc_log_set(LC_LOG_WARN, NULL, NULL);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, LC_EIO); /* the last checkpoint is missing, and that is said */
    assert_int_equal(result.step, STEPS);
    assert_true(logged >= 2);
    assert_non_null(strstr(err.text, "was not written"));
    assert_int_not_equal(access(in(folder, "full/step-000000016"), F_OK), 0); /* no leftovers */
    assert_ok(run((run_options){.run = "full"}, &result), err);
    assert_true(result.resumed && result.complete);
    assert_string_equal(result.hash, reference);
    printf("# %u failed writes; the run went on, and again from the checkpoint before\n",
           logged / 2);
}

/* ---- the program, killed ---- */

static pid_t start(const char *run_folder, int out) {
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(out >= 0 ? out : null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execl(test_program(), "longcat", "train", "run", in(folder, "r.recipe"), "--run",
              in(folder, run_folder), "-t", "2", (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void wait_ms(uint64_t ms) {
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* Runs to the end and compares the hash that the program prints. */
static void check_end(const char *run_folder) {
    int pipes[2], code;
    char text[1024] = "";
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = start(run_folder, pipes[1]);
    close(pipes[1]);
    for (size_t n = 0, got; n < sizeof text - 1; n += got)
        if ((ssize_t)(got = (size_t)read(pipes[0], text + n, sizeof text - 1 - n)) <= 0) break;
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &code, 0), pid);
    assert_true(WIFEXITED(code) && WEXITSTATUS(code) == 0);
    if (!strstr(text, reference)) fail_msg("not %s: %s", reference, text);
}

static void test_kills(void **state) {
    (void)state;
    const char *wanted = getenv("LONGCAT_KILLS"); /* 200 for the long form */
    int kills = wanted ? atoi(wanted) : GOLDEN_SANITIZED ? 4 : 12, finished = 0, going = 0;
    uint64_t seed = (uint64_t)time(NULL), begin = lc_clock_ns();
    check_end("timed");
    uint64_t span = (lc_clock_ns() - begin) / 1000000;
    for (int i = 0; i < kills; i++) {
        int code;
        unlink(in(folder, "killed/log.jsonl")); /* its next appearance tells that steps begin */
        pid_t pid = start("killed", -1);
        /* Every fourth kill may come at any time; the others when steps are being done. */
        for (int k = 0; i % 4 && k < 5000 && access(in(folder, "killed/log.jsonl"), F_OK); k++)
            wait_ms(2);
        wait_ms(lc_rng(seed, 3, (uint64_t)i).word[0] % (i % 4 ? span / 2 + 10 : span + 20));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &code, 0), pid);
        going += access(in(folder, "killed/latest"), F_OK) == 0;
        if (!WIFEXITED(code)) continue;
        assert_int_equal(WEXITSTATUS(code), 0);
        finished++;
        check_end("killed");
        remove_folder(in(folder, "killed")); /* once more from nothing */
    }
    pid_t last = start("killed", -1); /* one goes on from a checkpoint to the end in any case */
    for (int k = 0; k < 5000 && access(in(folder, "killed/latest"), F_OK); k++) wait_ms(2);
    kill(last, SIGKILL);
    assert_int_equal(waitpid(last, NULL, 0), last);
    check_end("killed");
    printf("# %d of %d runs killed at any moment, %d of them with a checkpoint, %d had finished "
           "(seed %llu): equal weights, no unreadable checkpoint\n",
           kills - finished, kills, going, finished, (unsigned long long)seed);
}

static void test_interrupt(void **state) {
    (void)state;
    int code;
    pid_t pid = start("interrupted", -1);
    /* The log is there: signals are held back since long, steps are being done. */
    for (int i = 0; i < 2000 && access(in(folder, "interrupted/log.jsonl"), F_OK); i++) wait_ms(5);
    kill(pid, SIGINT);
    assert_int_equal(waitpid(pid, &code, 0), pid);
    assert_true(WIFEXITED(code) && WEXITSTATUS(code) == 0);
    check_end("interrupted");
}

/* ---- checkpoints that stay, changed recipes, growth ---- */

static void test_kept(void **state) {
    (void)state;
    unsigned kept = 0;
    for (int step = 1; step <= STEPS; step++) {
        char name[64];
        snprintf(name, sizeof name, "plain/step-%09d", step);
        kept += access(in(folder, name), F_OK) == 0;
    }
    assert_true(kept == 2 || kept == 3); /* the last two, and the best if it isn't one of them */
    assert_int_equal(access(in(folder, "plain/best/model.safetensors"), F_OK), 0);
}

static void test_changed(void **state) {
    (void)state;
    lc_loop_result result;
    assert_ok(run((run_options){.run = "ch", .most_steps = 9}, &result), err);
    write_recipe("changed.recipe", "clip = 0.5\n");
    assert_int_equal(run((run_options){.recipe = "changed.recipe", .run = "ch"}, &result),
                     LC_EINVAL);
    assert_non_null(strstr(err.text, "has changed"));
    write_recipe("more.recipe", "memory = 2G\n"); /* doesn't decide the weights */
    assert_ok(run((run_options){.recipe = "more.recipe", .run = "ch", .most_steps = 1}, &result),
              err);
    assert_ok(run((run_options){.recipe = "changed.recipe", .run = "ch", .changed = true}, &result),
              err);
    assert_true(result.complete && strcmp(result.hash, reference));
    write_recipe("small.recipe", "memory = 1M\n");
    assert_int_equal(run((run_options){.recipe = "small.recipe", .run = "sm"}, &result), LC_ELIMIT);
    assert_non_null(strstr(err.text, "needs"));
}

static void test_changed_config(void **state) {
    (void)state;
    lc_loop_result result;
    lc_buf config = get_file(in(folder, "config.json"));
    assert_ok(run((run_options){.run = "cc", .most_steps = 9}, &result), err);
    lc_buf other = {0};
    lc_buf_printf(&other, "{\"rms_norm_eps\": 0.01, %s", strchr(config.data, '{') + 1);
    char *eps = strstr(other.data + 20, "\"rms_norm_eps\"");
    if (eps) eps[1] = '_';
    put_file(in(folder, "config.json"), other.data, other.len);
    assert_int_equal(run((run_options){.run = "cc"}, &result), LC_EINVAL);
    assert_non_null(strstr(err.text, "config.json has changed"));
    assert_ok(run((run_options){.run = "cc", .changed = true}, &result), err);
    assert_string_not_equal(result.hash, reference);
    put_file(in(folder, "config.json"), config.data, config.len);
    lc_buf_free(&other);
    lc_buf_free(&config);
}

/* What a later stage lacks is told before the first step. */
static void test_later_stages(void **state) {
    (void)state;
    static const char one[] = "[model]\nconfig = config.json\n[train]\nmemory = 100M\n"
                              "[source a]\nfolder = a\n[source c]\nfolder = nowhere\n"
                              "[stage one]\ncontext = 16\ntokens = 32\nbatch = 2\nrate = 1e-3\n"
                              "mix = a 1\n[stage two]\nbatch = 1\nrate = 1e-3\n";
    char text[1024];
    lc_loop_result result;
    lc_recipe *r;
    snprintf(text, sizeof text, "%scontext = 16\ntokens = 32\nmix = c 1\n", one);
    put_text(in(folder, "later.recipe"), text);
    assert_int_not_equal(run((run_options){.recipe = "later.recipe", .run = "l"}, &result), LC_OK);
    assert_non_null(strstr(err.text, "nowhere"));
    assert_int_equal(result.step, 0);
    err.text[0] = 0;
    assert_ok(lc_recipe_load(in(folder, "later.recipe"), &r, &err), err);
    assert_int_not_equal(lc_loop_check(r, NULL, &err), LC_OK);
    assert_non_null(strstr(err.text, "nowhere"));
    lc_recipe_free(r);
    /* Its scores of all keys are 2 x 3840 x 3840 fp32, 118 MB. */
    snprintf(text, sizeof text, "%scontext = 3840\ntokens = 3840\nmix = a 1\n", one);
    put_text(in(folder, "later.recipe"), text);
    assert_int_equal(run((run_options){.recipe = "later.recipe", .run = "l"}, &result), LC_ELIMIT);
    assert_non_null(strstr(err.text, "stage two needs"));
    assert_int_equal(result.step, 0);
}

static void test_lock(void **state) {
    (void)state;
    lc_loop_result result;
    int lock;
    assert_ok(lc_run_lock(in(folder, "held"), &lock, &err), err);
    assert_int_equal(run((run_options){.run = "held"}, &result), LC_EINVAL);
    assert_non_null(strstr(err.text, "another process"));
    close(lock);
}

static void test_growth(void **state) {
    (void)state;
    lc_loop_result result;
    static const char text[] = "[model]\nfrom = plain/latest\ngrow = 2\n[train]\nstore = f32\n"
                               "[source a]\nfolder = a\n[stage one]\ncontext = 16\ntokens = 32\n"
                               "batch = 2\nrate = 1e-12\n";
    put_text(in(folder, "grow.recipe"), text);
    assert_ok(run((run_options){.recipe = "grow.recipe", .run = "grown"}, &result), err);
    lc_tensors *small, *large;
    assert_ok(lc_tensors_open(in(folder, "plain/latest"), &small, &err), err);
    assert_ok(lc_tensors_open(in(folder, "grown/latest"), &large, &err), err);
    unsigned same = 0;
    for (size_t i = 0; i < lc_tensors_count(large); i++) {
        const lc_tensor *t = lc_tensors_at(large, i);
        size_t layer;
        int end = 0;
        char from[256];
        if (sscanf(t->name, "model.layers.%zu.%n", &layer, &end) != 1 || t->rank == 1) continue;
        snprintf(from, sizeof from, "model.layers.%zu.%s", layer % 2, t->name + end);
        const lc_tensor *s = lc_tensors_find(small, from);
        assert_non_null(s);
        assert_true(t->dtype == LC_F32 && layer < 4);
        for (size_t j = 0; j < t->count; j += 17) {
            float want;
            uint16_t half;
            if (s->dtype == LC_F32) {
                memcpy(&want, (const float *)s->data + j, sizeof want);
            } else {
                memcpy(&half, (const uint16_t *)s->data + j, sizeof half);
                want = lc_bf16_to_f32(half);
            }
            assert_float_equal(((const float *)t->data)[j], want, 1e-6);
        }
        same++;
    }
    assert_true(same > 100);
    lc_tensors_close(small);
    lc_tensors_close(large);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_permutations),
        cmocka_unit_test(test_sittings),
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_damaged_ones_are_not_kept_instead_of_new_ones),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_kills),
        cmocka_unit_test(test_changed),
        cmocka_unit_test(test_changed_config),
        cmocka_unit_test(test_later_stages),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_split_muon),
        cmocka_unit_test(test_split_adamw),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
