/*
 * test_train_run.c: recipes and whole training runs of a tiny 2.0 model on a made-up corpus: equal
 * bits of weights and moments for threads, instruction sets, recompute, stops and kills; damaged
 * checkpoints; a full disk; and that it learns.
 * uses-threads
 */
#include "train/loop.h"

#include "base/mem.h"
#include "format/safetensors.h"
#include "train_files.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static lc_err err;
static char folder[256], model[1024];

/* ---- files ---- */

/* Documents that count in steps of their own from a start of their own. */
static void write_corpus(const char *path) {
    static const lc_shard_kind kind = {2, 163, 2, {1, 2, 3}};
    lc_shard_writer *w;
    uint64_t sum;
    size_t total = 0;
    char manifest[512];
    mkdir(path, 0777);
    assert_ok(lc_shard_create(in(path, "0.tokens"), &kind, 0, &w, &err), err);
    for (int d = 0; d < 60; d++) {
        int32_t tokens[64];
        size_t n = 20 + (size_t)d % 40;
        for (size_t i = 0; i < n; i++)
            tokens[i] = (int32_t)(10 + ((size_t)d * 7 + i * (1 + (size_t)d % 3)) % 30);
        tokens[n - 1] = 2;
        assert_ok(lc_shard_add(w, tokens, NULL, n, &err), err);
        total += n;
    }
    assert_ok(lc_shard_finish(w, &sum, &err), err);
    snprintf(manifest, sizeof manifest,
             "{\"format\": \"longcat-train-data\", \"version\": 1, \"name\": \"x\", \"shards\": "
             "[{\"file\": \"0.tokens\", \"documents\": 60, \"tokens\": %zu, \"xxh3\": "
             "\"%016llx\"}]}",
             total, (unsigned long long)sum);
    put_text(in(path, "manifest.json"), manifest);
}

static int set_up(void **state) {
    (void)state;
    char here[512];
    make_folder(folder);
    assert_non_null(getcwd(here, sizeof here));
    snprintf(model, sizeof model, "%s/tests/golden/model/two-tiny", here);
    write_corpus(in(folder, "a"));
    write_corpus(in(folder, "b"));
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* ---- recipes ---- */

/* The usual recipe with lines replaced: train's and the first stage's. */
static const char *recipe_text(const char *out, const char *train, const char *stage) {
    static char text[4096];
    snprintf(text, sizeof text,
             "# a recipe\n[model]\nconfig = %s  # two-tiny\n[data]\nsource = a 2\n"
             "source = b 1 whole\n[train]\nout = %s\nseed = 3\nlanes = 4\nkeep = 2\n"
             "compute = f32\n%s\n"
             "[stage main]\ncontext = 32\nbatch = 8\ntokens = 1k\nlr = 0.003\nschedule = wsd\n"
             "warmup = 1\ncooldown = 2\nmtp = 0.3\nbalance = 0.02\nrouter_z = 0.001\n"
             "hidden_z = 1e-4\n%s\n"
             "[stage index]\ncontext = 48\nbatch = 4\ntokens = 384\nlr = 1e-3\nlm = 0\nkl = 1\n"
             "kl_stage = warmup\n"
             "[stage sparse]\ncontext = 48\nbatch = 4\ntokens = 384\nlr = 1e-3\nkl = 1\n"
             "kl_stage = sparse\nmtp = 0.1\nsource = b 1\n",
             model, out, train, stage);
    return text;
}

static lc_recipe *open_recipe(const char *text) {
    lc_recipe *r;
    put_text(in(folder, "r.recipe"), text);
    assert_ok(lc_recipe_load(in(folder, "r.recipe"), &r, &err), err);
    return r;
}

static void test_recipe_values(void **state) {
    (void)state;
    lc_recipe *r = open_recipe(recipe_text("run", "decay = 0.05", "attention = dense"));
    assert_int_equal(r->n_stages, 3);
    assert_int_equal(r->stages[0].steps, 4); /* 1000 tokens at 256 a step */
    assert_int_equal(lc_recipe_steps(r), 8);
    assert_string_equal(r->stages[1].name, "index");
    assert_true(r->stages[0].dense && !r->stages[1].dense);
    assert_true(r->stages[1].lm == 0 && r->stages[2].lm == 1);
    assert_int_equal(r->stages[1].kl_stage, LC_KL_WARMUP);
    assert_int_equal(r->stages[0].schedule.kind, LC_SCHEDULE_WSD);
    assert_true(r->optim.decay == 0.05 && r->optim.muon && !r->bf16);
    assert_int_equal(r->sources.count, 2);
    assert_true(r->sources.list[1].whole && !r->sources.list[0].whole);
    assert_string_equal(r->sources.list[0].folder, in(folder, "a"));
    assert_string_equal(r->out, in(folder, "run"));
    assert_string_equal(lc_recipe_sources_of(r, 2)->list[0].folder, in(folder, "b"));
    lc_recipe *other =
        open_recipe(recipe_text("elsewhere", "decay = 0.05\nrecompute = yes", "attention = dense"));
    assert_string_equal(r->hash, other->hash); /* where it goes doesn't change the weights */
    lc_recipe_free(other);
    other = open_recipe(recipe_text("run", "decay = 0.06", "attention = dense"));
    assert_string_not_equal(r->hash, other->hash);
    lc_recipe_free(other);
    lc_recipe_free(r);
}

/* Each line is put into the recipe; the error must name its line and say this. */
static void test_recipe_errors(void **state) {
    (void)state;
    static const struct {
        const char *train, *stage, *says;
    } cases[] = {
        {"colour = red", "", ":13: no key colour"},
        {"clip 1", "", ":13: \"clip 1\": must be key = value"},
        {"clip =", "", ":13: clip: has no value"},
        {"clip = one", "", ":13: clip: \"one\" is no number"},
        {"clip = nan", "", ":13: clip: \"nan\" is no number"},
        {"clip = 1e999", "", ":13: clip"},
        {"clip = -1", "", ":13: clip: -1 is out of range"},
        {"keep = 0", "", ":13: keep: line 11 has set it"},
        {"bias_halving = 1.5", "", ":13: bias_halving: \"1.5\" is no whole number"},
        {"optimizer = sgd", "", ":13: optimizer: \"sgd\" is none of adamw|muon"},
        {"recompute = 1", "", ":13: recompute: \"1\" is none of no|yes"},
        {"[stage main]\nlr = 1", "", "stage main: line 13 has it"},
        {"[rain]", "", ":13: no section [rain]"},
        {"[train", "", ":13: \"[train\": no ] at the end"},
        {"[stage a b]", "", ":13: a stage's name"},
        {"[stage empty]", "", ":13: stage empty: context is missing"},
        {"[model]\ntarget_experts = 4", "", ":14: target_experts: the model chooses 3"},
        {"[model]\nstart = nowhere\nstd = 1", "", ":15: std: has no effect with start"},
        {"[data]\nsource = a", "", ":14: source: must be FOLDER WEIGHT"},
        {"[data]\nsource = a -1", "", ":14: source: must be FOLDER WEIGHT"},
        {"", "context = 16", ":26: context: line 15 has set it"},
        {"", "kl = 1", ":26: kl: has no effect without kl_stage"},
        {"", "kl_stage = sparse\nattention = dense", ":27: attention = dense: not with kl_stage"},
    };
    size_t n = sizeof cases / sizeof *cases;
    for (size_t i = 0; i < n; i++) {
        lc_recipe *r;
        const char *text = recipe_text("run", cases[i].train, cases[i].stage);
        put_text(in(folder, "bad.recipe"), text);
        assert_int_not_equal(lc_recipe_load(in(folder, "bad.recipe"), &r, &err), LC_OK);
        if (!strstr(err.text, cases[i].says))
            fail_msg("\"%s\" instead of \"%s\"", err.text, cases[i].says);
        assert_non_null(strstr(err.text, "bad.recipe"));
    }
    printf("# %zu wrong recipes refused\n", n);
}

/* Any cut of a recipe is refused or read, without a fault. */
static void test_recipe_cuts(void **state) {
    (void)state;
    const char *text = recipe_text("run", "", "");
    char cut[4096];
    size_t refused = 0;
    for (size_t n = 0; n < strlen(text); n += 3) {
        lc_recipe *r;
        memcpy(cut, text, n);
        put_file(in(folder, "cut.recipe"), cut, n);
        refused += lc_recipe_load(in(folder, "cut.recipe"), &r, &err) != LC_OK;
        lc_recipe_free(r);
    }
    assert_true(refused > 100);
}

/* ---- runs ---- */

typedef struct watch {
    uint64_t stop, kill; /* steps, 0 = never */
    size_t notes, steps;
    char note[512];
    double first, last, routed;
} watch;

static bool on_step(void *ctx, const lc_train_progress *p) {
    watch *w = ctx;
    if (!w->steps++) w->first = p->loss;
    w->last = p->loss;
    w->routed = p->routed;
    if (w->kill == p->step) raise(SIGKILL);
    return w->stop != p->step;
}
static void on_note(void *ctx, const char *text) {
    watch *w = ctx;
    w->notes++;
    snprintf(w->note, sizeof w->note, "%s", text);
}

typedef struct setting {
    int threads;
    lc_isa cap;
    bool changed;
} setting;

static int try_run(const lc_recipe *r, setting s, watch *w, lc_train_run_result *result) {
    lc_pool *pool = NULL;
    assert_ok(lc_pool_new(s.threads, &pool, &err), err);
    lc_train_run_options o = {.kernels = lc_kernels_best(s.cap, NULL),
                              .pool = pool,
                              .changed = s.changed,
                              .progress = on_step,
                              .note = on_note,
                              .ctx = w};
    int status = lc_train_run(r, &o, result, &err);
    lc_pool_free(pool);
    return status;
}

static const setting usual = {2, LC_ISA_COUNT - 1, false};

static void run(const lc_recipe *r, setting s, watch *w, lc_train_run_result *result) {
    assert_ok(try_run(r, s, w, result), err);
}

/* The run's last state is the reference's, byte for byte. */
static void assert_same(const char *got, const char *want) {
    assert_true(same_files(in(got, "step-00000008/state.safetensors"),
                           in(want, "step-00000008/state.safetensors")));
    assert_true(same_files(in(got, "step-00000008/model.safetensors"),
                           in(want, "step-00000008/model.safetensors")));
}

static lc_recipe *named(const char *out, const char *train) {
    char lines[256];
    snprintf(lines, sizeof lines, "checkpoint = 2\n%s", train);
    return open_recipe(recipe_text(out, lines, ""));
}

static void reference(const char *train) {
    watch w = {0};
    lc_train_run_result result;
    lc_recipe *r = open_recipe(recipe_text("reference", train, ""));
    remove_folder(in(folder, "reference"));
    run(r, usual, &w, &result);
    assert_true(result.finished);
    assert_int_equal(result.steps, 8);
    assert_int_equal(result.tokens, 4 * 256 + 4 * 192);
    assert_int_equal(w.notes, 0);
    assert_true(w.routed > 0 && w.routed < 3);
    lc_recipe_free(r);
}

static void run_and_compare(const char *train, setting s) {
    watch w = {0};
    lc_train_run_result result;
    lc_recipe *r = open_recipe(recipe_text("other", train, "")); /* one checkpoint */
    remove_folder(in(folder, "other"));
    run(r, s, &w, &result);
    assert_same(in(folder, "other"), in(folder, "reference"));
    lc_recipe_free(r);
}

static void test_equal_bits(void **state) {
    (void)state;
    static const char *const optimizers[] = {"optimizer = muon", "optimizer = adamw"};
    size_t runs = 0;
    for (size_t k = 0; k < (SANITIZED ? 1 : 2); k++) {
        char recompute[64];
        snprintf(recompute, sizeof recompute, "%s\nrecompute = yes", optimizers[k]);
        reference(optimizers[k]);
        for (int threads = 1; threads <= 3; threads++, runs++)
            run_and_compare(optimizers[k], (setting){threads, LC_ISA_COUNT - 1, false});
        run_and_compare(recompute, usual);
        runs++;
        for (lc_isa isa = 0; isa < LC_ISA_COUNT && !SANITIZED; isa++)
            if (lc_kernels_of(isa)) {
                run_and_compare(optimizers[k], (setting){2, isa, false});
                runs++;
            }
    }
    printf("# %zu runs of 8 steps in 3 stages with equal bits\n", runs);
}

static void test_stop_and_resume(void **state) {
    (void)state;
    reference("");
    lc_recipe *r = named("stopped", "");
    static const uint64_t stops[] = {1, 4, 5, 7}; /* stages end after 4, 6 and 8 */
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        uint64_t stop = stops[i];
        watch w = {.stop = stop};
        lc_train_run_result result;
        remove_folder(in(folder, "stopped"));
        run(r, usual, &w, &result);
        assert_true(!result.finished && result.steps == stop);
        w = (watch){0};
        run(r, usual, &w, &result);
        assert_true(result.finished && result.resumed == stop);
        assert_same(in(folder, "stopped"), in(folder, "reference"));
    }
    watch w = {0}; /* a finished run has nothing to do */
    lc_train_run_result result;
    run(r, usual, &w, &result);
    assert_true(result.finished && w.steps == 0);
    lc_buf log = get_file(in(folder, "stopped/log.jsonl"));
    size_t lines = 0;
    for (size_t i = 0; i < log.len; i++) lines += log.data[i] == '\n';
    assert_int_equal(lines, 8);
    lc_buf_free(&log);
    lc_recipe_free(r);
}

static void run_killed(const lc_recipe *r, uint64_t step) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        watch w = {.kill = step};
        lc_train_run_result result;
        try_run(r, usual, &w, &result);
        _exit(0);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
}

static void test_kill_and_resume(void **state) {
    (void)state;
    reference("");
    lc_recipe *r = named("killed", "");
    for (uint64_t step = 1; step < 8; step += 2) run_killed(r, step);
    watch w = {0};
    lc_train_run_result result;
    mkdir(in(folder, "killed/step-00000099.part"), 0777); /* as if killed while writing */
    put_text(in(folder, "killed/step-00000099.part/config.json"), "{");
    run(r, usual, &w, &result);
    assert_true(result.finished && result.resumed == 6);
    assert_same(in(folder, "killed"), in(folder, "reference"));
    assert_int_equal(access(in(folder, "killed/step-00000099.part"), F_OK), -1);
    assert_int_equal(access(in(folder, "killed/step-00000004"), F_OK), -1); /* keep = 2 */
    assert_int_equal(access(in(folder, "killed/step-00000006"), F_OK), 0);
    lc_recipe_free(r);
}

/* ---- damage ---- */

static void test_damage(void **state) {
    (void)state;
    static const char *const files[] = {"state.safetensors", "model.safetensors", "config.json",
                                        "manifest.json"};
    reference("");
    lc_recipe *r = named("damaged", "");
    for (int i = 0; i < 4; i++) {
        watch w = {.stop = 4};
        lc_train_run_result result;
        remove_folder(in(folder, "damaged"));
        run(r, usual, &w, &result);
        char path[512];
        snprintf(path, sizeof path, "%s/damaged/step-00000004/%s", folder, files[i]);
        lc_buf file = get_file(path);
        if (i % 2) file.data[file.len / 2] ^= 4;
        put_file(path, file.data, i % 2 ? file.len : file.len / 2);
        lc_buf_free(&file);
        w = (watch){0};
        run(r, usual, &w, &result);
        assert_int_equal(result.resumed, 2);
        assert_int_equal(w.notes, 1);
        assert_non_null(strstr(w.note, "damaged checkpoint"));
        assert_non_null(strstr(w.note, "step-00000004"));
        assert_same(in(folder, "damaged"), in(folder, "reference"));
    }
    lc_train_run_result result;
    watch w = {0};
    put_text(in(folder, "damaged/step-00000006/manifest.json"), "");
    put_text(in(folder, "damaged/step-00000008/manifest.json"), "");
    assert_int_equal(try_run(r, usual, &w, &result), LC_EFORMAT);
    assert_non_null(strstr(err.text, "every checkpoint is damaged"));
    lc_recipe_free(r);
}

static void test_other_recipe(void **state) {
    (void)state;
    reference("");
    lc_train_run_result result;
    watch w = {0};
    lc_recipe *r = open_recipe(recipe_text("reference", "decay = 0.2", ""));
    assert_int_equal(try_run(r, usual, &w, &result), LC_EINVAL);
    assert_non_null(strstr(err.text, "another recipe"));
    setting changed = usual;
    changed.changed = true;
    assert_ok(try_run(r, changed, &w, &result), err);
    lc_recipe_free(r);
}

/* Files can't grow beyond 100 kB: no checkpoint, and the run still ends. */
static void test_full_disk(void **state) {
    (void)state;
    lc_recipe *r = named("full", "");
    struct rlimit before, small;
    watch w = {0};
    lc_train_run_result result;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 100000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int status = try_run(r, usual, &w, &result);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_ok(status, err);
    assert_int_equal(result.steps, 8);
    assert_int_equal(w.notes, 4); /* at steps 2, 4, 6, 8 */
    assert_non_null(strstr(w.note, "no checkpoint at step 8"));
    assert_string_equal(result.checkpoint, "");
    assert_int_equal(access(in(folder, "full/step-00000008.part"), F_OK), -1);
    lc_recipe_free(r);
}

/* ---- learning ---- */

static void test_learns(void **state) {
    (void)state;
    char text[2048];
    snprintf(text, sizeof text,
             "[model]\nconfig = %s\n[data]\nsource = a 1\n[train]\nout = learn\nlanes = 2\n"
             "compute = bf16\ncheckpoint = 1000\ndecay = 0.01\n[stage s]\ncontext = 64\n"
             "batch = 8\ntokens = %d\nlr = 0.01\nschedule = cosine\nwarmup = 3\n",
             model, 8 * 64 * (SANITIZED ? 5 : 60));
    lc_recipe *r = open_recipe(text);
    watch w = {0};
    lc_train_run_result result;
    run(r, usual, &w, &result);
    printf("# loss %.3f, after %zu steps %.3f\n", w.first, w.steps, w.last);
    assert_true(w.first > 4.5);                  /* ln 163 = 5.09 */
    assert_true(w.last < (SANITIZED ? 5 : 1.0)); /* 30 ids, mostly in sequence */
    char want[512];
    snprintf(want, sizeof want, "%s/learn/step-%08zu", folder, w.steps);
    assert_string_equal(result.checkpoint, want);
    lc_recipe_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_recipe_values, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_recipe_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_recipe_cuts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_equal_bits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stop_and_resume, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kill_and_resume, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_recipe, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_full_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_learns, set_up, tear_down),
    };
    return test_main(tests);
}
