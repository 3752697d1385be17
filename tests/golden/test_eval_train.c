/*
 * test_eval_train.c: `longcat eval grad`, `eval steps` and `eval hash --weights` as a user runs
 * them: inputs cut out of tests/golden/model/<case>/train.safetensors, every output compared with
 * what is stored there by the rules of train.json; equal files for threads, instruction sets and
 * recompute; what is refused, and with which words.
 * uses-threads
 */
#include "base/file.h"
#include "golden.h"

#include "train/loop.h"

#include <ftw.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const cases[] = {"flash-tiny", "lite-tiny", "two-tiny"};

static char folder[] = "/tmp/longcat-eval-XXXXXX";

typedef struct eval_case {
    const char *name;
    golden g; /* train.safetensors, train.json */
    char coefficients[256];
    size_t steps, rows, length, mtp;
    double gradient_limit, loss_limit;
    bool index;
} eval_case;

/* ---- running it ---- */

/* longcat eval ARGS; its exit code. *text: what it printed, both streams. */
static int run(lc_buf *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int run(lc_buf *text, const char *fmt, ...) {
    char args[1024], piece[512];
    lc_buf command = {0};
    va_list list;
    va_start(list, fmt);
    vsnprintf(args, sizeof args, fmt, list);
    va_end(list);
    lc_buf_clear(text);
    assert_true(lc_buf_printf(&command, "%s eval %s 2>&1", test_program(), args));
    FILE *pipe = popen(command.data, "r");
    assert_non_null(pipe);
    for (size_t n; (n = fread(piece, 1, sizeof piece, pipe));) lc_buf_append(text, piece, n);
    int status = pclose(pipe);
    lc_buf_free(&command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void must_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void must_run(const char *fmt, ...) {
    char args[1024];
    lc_buf text = {0};
    va_list list;
    va_start(list, fmt);
    vsnprintf(args, sizeof args, fmt, list);
    va_end(list);
    int code = run(&text, "%s", args);
    if (code) fail_msg("eval %s: %d, %s", args, code, text.len ? text.data : "");
    lc_buf_free(&text);
}

/* ids and mask of the first `steps` steps as FOLDER/NAME.safetensors; 0: [B][T] of the first. */
static void write_input(eval_case *c, const char *name, size_t steps) {
    char path[300];
    lc_err err = {0};
    size_t drop = steps ? 0 : 1, elements = (steps ? steps : 1) * c->rows * c->length;
    lc_tensor t[2] = {*golden_get(&c->g, "ids"), *golden_get(&c->g, "mask")};
    for (int i = 0; i < 2; i++) {
        t[i].rank = drop ? 2 : 3;
        if (steps) t[i].shape[0] = steps;
        for (size_t d = 0; drop && d < 2; d++) t[i].shape[d] = t[i].shape[d + 1];
        t[i].count = elements;
        t[i].size = elements * lc_dtype_size(t[i].dtype);
    }
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, name);
    assert_ok(lc_safetensors_write(path, t, 2, &err), err);
}

static void open_out(golden *g, const char *name) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, name);
    golden_open_tensors(g, path);
}

static void open_case(eval_case *c, const char *name) {
    char path[256];
    lc_err err = {0};
    lc_config config;
    *c = (eval_case){.name = name};
    snprintf(path, sizeof path, "tests/golden/model/%s/train.safetensors", name);
    golden_open_tensors(&c->g, path);
    snprintf(path, sizeof path, "tests/golden/model/%s/train.json", name);
    assert_ok(lc_json_load(path, 0, &c->g.json, &err), err);
    snprintf(path, sizeof path, "tests/golden/model/%s", name);
    assert_ok(lc_config_load(path, &config, &err), err);
    const lc_tensor *ids = golden_get(&c->g, "ids");
    c->steps = ids->shape[0];
    c->rows = ids->shape[1];
    c->length = ids->shape[2];
    c->mtp = config.mtp_steps;
    c->index = config.index_heads > 0;
    c->gradient_limit = golden_value(&c->g, "tolerance", "gradient");
    c->loss_limit = golden_value(&c->g, "tolerance", "loss");
    struct json_object *k = NULL;
    assert_true(json_object_object_get_ex(c->g.json, "target_topk", &k));
    snprintf(c->coefficients, sizeof c->coefficients,
             "mtp_weight=%.9g,balance_coeff=%.9g,router_z_coeff=%.9g,hidden_z_coeff=%.9g,"
             "kl_weight=%.9g,target_topk=%.9g",
             golden_value(&c->g, "coefficients", "mtp_weight"),
             golden_value(&c->g, "coefficients", "balance_coeff"),
             golden_value(&c->g, "coefficients", "router_z_coeff"),
             golden_value(&c->g, "coefficients", "hidden_z_coeff"),
             golden_value(&c->g, "coefficients", "kl_weight"), json_object_get_double(k));
}

/* ---- comparing ---- */

typedef struct tally {
    unsigned n;
    double worst;
    char name[160];
} tally;

static void worse(tally *t, double error, const char *name) {
    t->n++;
    if (error <= t->worst) return;
    t->worst = error;
    snprintf(t->name, sizeof t->name, "%s", name);
}

static bool starts(const char *text, const char *with) {
    return !strncmp(text, with, strlen(with));
}

/* Every golden entry `prefix<tensor>` against `out_prefix<tensor>` of the output. */
static void check_gradients(eval_case *c, golden *out, const char *prefix, const char *out_prefix,
                            tally *t) {
    for (size_t i = 0; i < lc_tensors_count(c->g.file); i++) {
        const lc_tensor *want = lc_tensors_at(c->g.file, i);
        char name[200];
        if (!starts(want->name, prefix)) continue;
        snprintf(name, sizeof name, "%s%s", out_prefix, want->name + strlen(prefix));
        const lc_tensor *got = golden_get(out, name);
        assert_int_equal(got->dtype, LC_F32);
        assert_int_equal(got->rank, want->rank);
        assert_memory_equal(got->shape, want->shape, (size_t)want->rank * sizeof *want->shape);
        float *values = golden_floats(got);
        double error = golden_error(values, golden_get(&c->g, want->name));
        lc_free(values);
        if (!(error <= c->gradient_limit)) fail_msg("%s %s: %.3g", c->name, want->name, error);
        worse(t, error, want->name);
    }
}

/* loss.<term> of step s: every golden entry <kind>.loss.<term>, but for grad_norm if `norm` is
 * false. */
static void check_losses(eval_case *c, golden *out, const char *kind, size_t s, bool norm,
                         tally *t) {
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s.loss.", kind);
    for (size_t i = 0; i < lc_tensors_count(c->g.file); i++) {
        const lc_tensor *want = lc_tensors_at(c->g.file, i);
        if (!starts(want->name, prefix)) continue;
        const char *term = want->name + strlen(prefix);
        char name[64];
        if (!strcmp(term, "grad_norm") && !norm) continue;
        snprintf(name, sizeof name, "loss.%s", term);
        const lc_tensor *got = golden_get(out, name);
        assert_int_equal(got->dtype, LC_F64);
        double w = golden_number(golden_get(&c->g, want->name), s), g = golden_number(got, s);
        double error = fabs(g - w) / (fabs(w) > 1 ? fabs(w) : 1);
        if (!(error <= c->loss_limit))
            fail_msg("%s %s[%zu]: %.9g, expected %.9g", c->name, want->name, s, g, w);
        worse(t, error, want->name);
    }
}

/* ---- eval grad ---- */

static void test_grad(void **state) {
    eval_case *c = *state;
    golden out;
    tally losses = {0}, gradients = {0};
    write_input(c, "in", 0);
    must_run("grad tests/golden/model/%s --in %s/in.safetensors --out %s/out.safetensors --compute "
             "f32 --loss %s",
             c->name, folder, folder, c->coefficients);
    open_out(&out, "out");
    check_losses(c, &out, "adamw", 0, false, &losses);
    check_gradients(c, &out, "grad.", "grad.", &gradients);
    assert_int_equal(losses.n + gradients.n, lc_tensors_count(out.file)); /* and nothing else */
    golden_close(&out);
    printf("# %s: %u losses, worst %.1e; %u gradients, worst %.1e of the RMS (%s)\n", c->name,
           losses.n, losses.worst, gradients.n, gradients.worst, gradients.name);
    assert_true(losses.worst < 1e-6); /* train.json's limit is wider */
    /* without --loss the coefficients are train.json's; only the number of experts is the model's
     */
    must_run("grad tests/golden/model/%s --in %s/in.safetensors --out %s/plain.safetensors",
             c->name, folder, folder);
    open_out(&out, "plain");
    double got = golden_number(golden_get(&out, "loss.hidden_z"), 0);
    assert_true(fabs(got - golden_number(golden_get(&c->g, "adamw.loss.hidden_z"), 0)) < 1e-4);
    golden_close(&out);
}

static void run_term(eval_case *c, const char *loss, golden *out) {
    struct json_object *k = NULL;
    json_object_object_get_ex(c->g.json, "target_topk", &k);
    must_run("grad tests/golden/model/%s --in %s/in.safetensors --out %s/term.safetensors --loss "
             "%s,target_topk=%.9g",
             c->name, folder, folder, loss, json_object_get_double(k));
    open_out(out, "term");
}

/* The draft steps share one coefficient: the mean of their golden gradients. */
static void check_drafts(eval_case *c, tally *t) {
    golden out;
    run_term(c, "lm_weight=0,mtp_weight=1", &out);
    for (size_t i = 0; i < lc_tensors_count(c->g.file); i++) {
        const lc_tensor *first = lc_tensors_at(c->g.file, i);
        static const char prefix[] = "term.mtp.1.grad.";
        char name[200];
        double worst = 0, squares = 0;
        if (!starts(first->name, prefix)) continue;
        snprintf(name, sizeof name, "grad.%s", first->name + strlen(prefix));
        const lc_tensor *got = golden_get(&out, name);
        for (size_t e = 0; e < first->count; e++) {
            double want = 0;
            for (size_t k = 0; k < c->mtp; k++) {
                char step[200];
                snprintf(step, sizeof step, "term.mtp.%zu.grad.%s", k + 1,
                         first->name + strlen(prefix));
                want += golden_number(golden_get(&c->g, step), e) / (double)c->mtp;
            }
            double d = fabs(golden_number(got, e) - want);
            if (d > worst) worst = d;
            squares += want * want;
        }
        double error = worst / sqrt(squares / (double)first->count);
        if (!(error <= c->gradient_limit)) fail_msg("%s %s: %.3g", c->name, first->name, error);
        worse(t, error, first->name);
    }
    golden_close(&out);
}

static void test_terms(void **state) {
    static const char *const terms[][2] = {{"lm", "lm_weight=1"},
                                           {"balance", "lm_weight=0,balance_coeff=1"},
                                           {"router_z", "lm_weight=0,router_z_coeff=1"},
                                           {"hidden_z", "lm_weight=0,hidden_z_coeff=1"},
                                           {"kl", "lm_weight=0,kl_weight=1"}};
    eval_case *c = *state;
    tally t = {0};
    write_input(c, "in", 0);
    for (size_t i = 0; i < sizeof terms / sizeof *terms; i++) {
        golden out;
        char prefix[64];
        if (!strcmp(terms[i][0], "kl") && !c->index) continue;
        snprintf(prefix, sizeof prefix, "term.%s.grad.", terms[i][0]);
        run_term(c, terms[i][1], &out);
        check_gradients(c, &out, prefix, "grad.", &t);
        golden_close(&out);
    }
    if (c->mtp) check_drafts(c, &t);
    printf("# %s: %u gradients of terms, worst %.1e of the RMS (%s)\n", c->name, t.n, t.worst,
           t.name);
    assert_true(t.n > 0);
}

static void test_index_loss(void **state) {
    static const char *const stages[] = {"warmup", "sparse"};
    eval_case *c = *state;
    write_input(c, "in", 0);
    for (int i = 0; i < 2; i++) {
        golden out;
        tally t = {0};
        char name[64], prefix[64];
        must_run("grad tests/golden/model/%s --in %s/in.safetensors --out %s/kl.safetensors --kl "
                 "%s --loss lm_weight=0,kl_weight=%zu",
                 c->name, folder, folder, stages[i], c->rows * c->length);
        open_out(&out, "kl");
        snprintf(name, sizeof name, "kl.%s.sums", stages[i]);
        const lc_tensor *want = golden_get(&c->g, name), *got = golden_get(&out, name);
        double sum = 0;
        assert_int_equal(got->count, want->count);
        for (size_t e = 0; e < want->count; e++) {
            double w = golden_number(want, e), limit = c->loss_limit * (fabs(w) > 1 ? fabs(w) : 1);
            assert_true(fabs(golden_number(got, e) - w) <= limit);
            sum += w;
        }
        double mean = golden_number(golden_get(&out, "loss.kl"), 0);
        assert_true(fabs(mean * (double)(c->rows * c->length) - sum) <= c->loss_limit * sum);
        snprintf(prefix, sizeof prefix, "kl.%s.grad.", stages[i]);
        check_gradients(c, &out, prefix, prefix, &t);
        unsigned alone = t.n;
        check_gradients(c, &out, prefix, "grad.", &t); /* of the objective: this coefficient */
        printf("# %s, kl %s: %zu sums, %u gradients twice, worst %.1e of the RMS (%s)\n", c->name,
               stages[i], want->count, alone, t.worst, t.name);
        assert_true(alone > 0 && t.n == 2 * alone);
        golden_close(&out);
    }
}

/* ---- eval steps ---- */

static void check_steps(eval_case *c, const char *kind) {
    golden out;
    tally losses = {0};
    size_t elements = 0, off = 0, tensors = 0;
    double bias = 0;
    write_input(c, "steps", c->steps);
    must_run("steps tests/golden/model/%s --in %s/steps.safetensors --optimizer %s --loss %s --out "
             "%s/after.safetensors",
             c->name, folder, kind, c->coefficients, folder);
    open_out(&out, "after");
    for (size_t s = 0; s < c->steps; s++) check_losses(c, &out, kind, s, true, &losses);
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s.step", kind);
    for (size_t i = 0; i < lc_tensors_count(c->g.file); i++) {
        const lc_tensor *want = lc_tensors_at(c->g.file, i);
        if (!starts(want->name, prefix)) continue;
        const lc_tensor *got = golden_get(&out, want->name + strlen(kind) + 1);
        bool is_bias = strstr(want->name, "e_score_correction_bias") != NULL;
        golden_get(&c->g, want->name);
        assert_int_equal(got->count, want->count);
        for (size_t e = 0; e < want->count; e++) {
            double d = fabs(golden_number(got, e) - golden_number(want, e));
            if (is_bias && d > bias) bias = d;
            if (!is_bias && !(d <= 0.01 * 1e-3)) off++;
        }
        if (!is_bias) elements += want->count;
        tensors++;
    }
    printf("# %s, %s: %u losses, worst %.1e; %zu tensors, %zu of %zu elements off by more than a "
           "hundredth of the rate, biases by at most %.1e\n",
           c->name, kind, losses.n, losses.worst, tensors, off, elements, bias);
    assert_true(tensors > 0 && off * 1000 <= elements && bias < 1e-6);
    golden_close(&out);
}

static void test_adamw(void **state) { check_steps(*state, "adamw"); }
static void test_muon(void **state) { check_steps(*state, "muon"); }

/* ---- equal bits ---- */

static void must_equal(const char *a, const char *b) {
    char path[2][300];
    lc_buf data[2] = {{0}, {0}};
    lc_err err = {0};
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s.safetensors", folder, i ? b : a);
        assert_ok(lc_file_read(path[i], 0, &data[i], &err), err);
    }
    assert_int_equal(data[0].len, data[1].len);
    assert_memory_equal(data[0].data, data[1].data, data[0].len);
    lc_buf_free(&data[0]);
    lc_buf_free(&data[1]);
}

static void test_bits(void **state) {
    static const char *const ways[] = {"-t 1 --isa scalar", "-t 3 --recompute", "-t 2"};
    eval_case *c = *state;
    write_input(c, "in", 0);
    write_input(c, "steps", 2);
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            const char *to = i ? "b" : "a", *type = bf16 ? "bf16" : "f32";
            must_run("grad tests/golden/model/%s --in %s/in.safetensors --out %s/%s.safetensors "
                     "--compute %s %s",
                     c->name, folder, folder, to, type, ways[i]);
            if (i) must_equal("a", "b");
            must_run("steps tests/golden/model/%s --in %s/steps.safetensors --out "
                     "%s/s%s.safetensors --optimizer muon --compute %s %s",
                     c->name, folder, folder, to, type, ways[i]);
            if (i) must_equal("sa", "sb");
        }
}

/* ---- eval hash --weights ---- */

static void test_hash(void **state) {
    (void)state;
    lc_buf a = {0}, b = {0};
    lc_err err = {0};
    lc_config config;
    lc_tensors *tensors;
    lc_params *params;
    char hex[65];
    assert_int_equal(run(&a, "hash tests/golden/model/two-tiny --weights"), 0);
    assert_int_equal(a.len, 33);
    a.data[32] = 0;
    assert_ok(lc_config_load("tests/golden/model/two-tiny", &config, &err), err);
    assert_ok(lc_tensors_open("tests/golden/model/two-tiny", &tensors, &err), err);
    assert_ok(lc_params_load(&config, tensors, &params, &err), err);
    assert_ok(lc_params_hash(params, hex, &err), err);
    assert_string_equal(a.data, hex);
    lc_params_free(params);
    lc_tensors_close(tensors);
    /* the same values in another storage, and other values */
    assert_int_equal(run(&b, "hash tests/golden/model/two-tiny-bf16 --weights"), 0);
    b.data[32] = 0;
    assert_string_equal(a.data, b.data);
    assert_int_equal(run(&b, "hash tests/golden/model/sparse-tiny --weights"), 0);
    b.data[32] = 0;
    assert_string_not_equal(a.data, b.data);
    lc_buf_free(&a);
    lc_buf_free(&b);
}

/* ---- refusals ---- */

/* FOLDER/bad.safetensors: ids [1][3] of these, mask [1][n] of these. */
static void write_bad(const int64_t ids[3], const uint8_t *mask, size_t n, const char *mask_name,
                      lc_dtype type) {
    char path[300];
    lc_err err = {0};
    lc_tensor t[2] = {
        {.name = "ids", .dtype = type, .rank = 2, .shape = {1, 3}, .count = 3, .data = ids},
        {.name = mask_name, .dtype = LC_U8, .rank = 2, .shape = {1, n}, .count = n, .data = mask}};
    snprintf(path, sizeof path, "%s/bad.safetensors", folder);
    for (int i = 0; i < 2; i++) t[i].size = t[i].count * lc_dtype_size(t[i].dtype);
    assert_ok(lc_safetensors_write(path, t, 2, &err), err);
}

static void must_refuse(const char *args, int code, const char *words) {
    lc_buf text = {0};
    int got = run(&text, "%s", args);
    if (got != code || !strstr(text.data, words))
        fail_msg("eval %s: %d \"%s\", expected %d \"%s\"", args, got, text.data, code, words);
    lc_buf_free(&text);
}

#define MODEL "tests/golden/model/two-tiny"

static void test_refusals(void **state) {
    eval_case *c = *state;
    char bad[512], good[512];
    snprintf(bad, sizeof bad, "grad " MODEL " --in %s/bad.safetensors --out %s/x.safetensors",
             folder, folder);
    write_bad((int64_t[]){1, 2, 163}, (uint8_t[]){1, 1, 1}, 3, "mask", LC_I64);
    must_refuse(bad, 1, "ids[2] = 163");
    write_bad((int64_t[]){1, -2, 3}, (uint8_t[]){1, 1, 1}, 3, "mask", LC_I64);
    must_refuse(bad, 1, "ids[1] = -2");
    write_bad((int64_t[]){1, (int64_t)1 << 40, 3}, (uint8_t[]){1, 1, 1}, 3, "mask", LC_I64);
    must_refuse(bad, 1, "no token id");
    write_bad((int64_t[]){1, 2, 3}, (uint8_t[]){1, 2, 1}, 3, "mask", LC_I64);
    must_refuse(bad, 1, "mask[1] = 2");
    write_bad((int64_t[]){1, 2, 3}, (uint8_t[]){1, 1}, 2, "mask", LC_I64);
    must_refuse(bad, 1, "another shape");
    write_bad((int64_t[]){1, 2, 3}, (uint8_t[]){1, 1, 1}, 3, "mask", LC_F32);
    must_refuse(bad, 1, "F32");
    write_bad((int64_t[]){1, 2, 3}, (uint8_t[]){1, 1, 1}, 3, "loss_mask", LC_I64);
    must_refuse(bad, 1, "tensor mask is missing");
    write_input(c, "in", 0);
    static const struct {
        const char *args, *words;
        int code;
    } refused[] = {
        {"--loss mtp=1", "\"mtp\" is unknown", 1},
        {"--loss mtp_weight", "needs a number", 1},
        {"--loss mtp_weight=x", "needs a number", 1},
        {"--loss mtp_weight=-1", "needs a number", 1},
        {"--loss mtp_weight=1,mtp_weight=1", "twice", 1},
        {"--loss target_topk=99", "target_topk", 1},
        {"--loss target_topk=nan", "needs a number", 1},
        {"--kl later", "warmup or sparse", 1},
        {"--compute f16", "bf16 or f32", 1},
        {"--isa mmx", "instruction set \"mmx\" is unknown", 1},
        {"--set nothing=1", "nothing", 1},
        {"--optimizer adamw", "optimizer", 2},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        snprintf(good, sizeof good,
                 "grad " MODEL " --in %s/in.safetensors --out %s/x.safetensors %s", folder, folder,
                 refused[i].args);
        must_refuse(good, refused[i].code, refused[i].words);
    }
    snprintf(good, sizeof good, "grad " MODEL " --out %s/x.safetensors", folder);
    must_refuse(good, 2, "--in FILE is needed");
    snprintf(good, sizeof good,
             "steps " MODEL " --in %s/in.safetensors --out %s/x.safetensors --optimizer adamw",
             folder, folder);
    must_refuse(good, 1, "[steps][batch][tokens]");
    strcat(good, "x");
    must_refuse(good, 1, "adamw or muon");
    snprintf(good, sizeof good,
             "grad tests/golden/model/flash-tiny --kl sparse --in %s/in.safetensors --out "
             "%s/x.safetensors",
             folder, folder);
    must_refuse(good, 1, "has no indexer");
    snprintf(good, sizeof good, "%s/x.safetensors", folder);
    assert_int_equal(access(good, F_OK), -1);
    must_refuse("grad", 2, "too few arguments");
    must_refuse("gradient x", 2, "no subcommand");
    must_refuse("hash " MODEL, 2, "--in or --weights");
    must_refuse("hash nowhere --weights", 1, "nowhere");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *walk) {
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

int main(void) {
    static eval_case opened[sizeof cases / sizeof *cases];
    golden_tests tests = {0};
    if (!mkdtemp(folder)) return 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        eval_case *c = &opened[i];
        open_case(c, cases[i]);
        golden_add(&tests, test_grad, c, "%s: grad", cases[i]);
        golden_add(&tests, test_terms, c, "%s: terms", cases[i]);
        if (c->index) golden_add(&tests, test_index_loss, c, "%s: kl", cases[i]);
        golden_add(&tests, test_adamw, c, "%s: AdamW", cases[i]);
        golden_add(&tests, test_muon, c, "%s: Muon", cases[i]);
    }
    golden_add(&tests, test_bits, &opened[2], "equal bits");
    golden_add(&tests, test_hash, NULL, "hash of weights");
    golden_add(&tests, test_refusals, &opened[2], "refusals");
    int failed = golden_run(&tests, "eval_train");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) golden_close(&opened[i].g);
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return failed;
}
