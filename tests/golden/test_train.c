/*
 * test_train.c: losses and gradients of the training net against tests/golden/model/<case>/train.*
 * (train.json says what each entry is and the limits): the whole objective and every term alone,
 * both stages of the index loss; equal gradient bits for every thread count, instruction set,
 * recompute and lane split.
 */
#include "golden.h"

#include "base/hash.h"
#include "train/lanes.h"
#include "train/net.h"

static const char *const cases[] = {"flash-tiny", "lite-tiny", "two-tiny"};

typedef struct golden_case {
    golden g;
    lc_config config;
    lc_tensors *tensors;
    lc_params *params;
    size_t rows, length;
    int32_t *tokens; /* of step 0 */
    uint8_t *mask;
    lc_loss_weights weights; /* of the objective */
    double gradient_limit, loss_limit;
} golden_case;

static void open_case(golden_case *c, const char *name) {
    char path[256];
    lc_err err = {0};
    *c = (golden_case){0};
    snprintf(path, sizeof path, "tests/golden/model/%s/train.safetensors", name);
    golden_open_tensors(&c->g, path);
    snprintf(path, sizeof path, "tests/golden/model/%s/train.json", name);
    assert_ok(lc_json_load(path, 0, &c->g.json, &err), err);
    snprintf(path, sizeof path, "tests/golden/model/%s", name);
    assert_ok(lc_config_load(path, &c->config, &err), err);
    assert_ok(lc_tensors_open(path, &c->tensors, &err), err);
    assert_ok(lc_params_load(&c->config, c->tensors, &c->params, &err), err);
    const lc_tensor *ids = golden_get(&c->g, "ids"), *mask = golden_get(&c->g, "mask");
    c->rows = ids->shape[1];
    c->length = ids->shape[2];
    c->tokens = golden_ids(ids);
    c->mask = lc_calloc(mask->count, 1);
    assert_non_null(c->mask);
    for (size_t i = 0; i < mask->count; i++) c->mask[i] = golden_number(mask, i) != 0;
    lc_loss_weights *w = &c->weights;
    w->lm = 1;
    for (size_t k = 0; k < c->config.mtp_steps; k++)
        w->mtp[k] = (float)(golden_value(&c->g, "coefficients", "mtp_weight") /
                            (double)c->config.mtp_steps);
    w->balance = (float)golden_value(&c->g, "coefficients", "balance_coeff");
    w->router_z = (float)golden_value(&c->g, "coefficients", "router_z_coeff");
    w->hidden_z = (float)golden_value(&c->g, "coefficients", "hidden_z_coeff");
    if (c->config.index_heads) {
        w->kl = (float)golden_value(&c->g, "coefficients", "kl_weight");
        w->kl_stage = LC_KL_SPARSE;
    }
    struct json_object *k = NULL;
    assert_true(json_object_object_get_ex(c->g.json, "target_topk", &k));
    w->balance_form.target_topk = json_object_get_double(k);
    c->gradient_limit = golden_value(&c->g, "tolerance", "gradient");
    c->loss_limit = golden_value(&c->g, "tolerance", "loss");
}

static void close_case(golden_case *c) {
    lc_free(c->tokens);
    lc_free(c->mask);
    lc_params_free(c->params);
    lc_tensors_close(c->tensors);
    golden_close(&c->g);
}

/* How a run is made; zero: scalar-best, one thread, f32. */
typedef struct run_options {
    const lc_kernels *kernels;
    int threads;
    bool bf16, recompute, forward_only;
    const lc_loss_weights *weights; /* NULL: the objective's */
} run_options;

typedef struct run_result {
    float *grad;
    lc_losses losses;
    double groups[64];
    int64_t experts[512];
} run_result;

static lc_batch batch_of(const golden_case *c) {
    return (lc_batch){.rows = c->rows, .length = c->length, .tokens = c->tokens, .mask = c->mask};
}

static void run_case(const golden_case *c, run_options o, run_result *r) {
    lc_err err = {0};
    lc_pool *pool = NULL;
    lc_net *net = NULL;
    if (o.threads > 1) assert_ok(lc_pool_new(o.threads, &pool, &err), err);
    lc_net_options options = {.kernels =
                                  o.kernels ? o.kernels : lc_kernels_best(LC_ISA_COUNT - 1, NULL),
                              .pool = pool,
                              .bf16 = o.bf16,
                              .tokens = c->rows * c->length,
                              .length = c->length,
                              .mtp_steps = c->config.mtp_steps,
                              .recompute = o.recompute};
    assert_ok(lc_net_new(c->params, &options, &net, &err), err);
    *r = (run_result){0};
    r->losses.kl_groups = r->groups;
    r->losses.experts = r->experts;
    if (!o.forward_only) r->grad = lc_params_block(c->params);
    lc_batch batch = batch_of(c);
    lc_counts totals = {0};
    lc_net_count(net, &batch, &totals);
    assert_ok(lc_net_run(net, &batch, o.weights ? o.weights : &c->weights, &totals, r->grad,
                         &r->losses, &err),
              err);
    lc_net_free(net);
    lc_pool_free(pool);
}

static void free_result(run_result *r) { lc_free(r->grad); }

/* ---- losses ---- */

static double first_loss(golden_case *c, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "adamw.loss.%s", name);
    return golden_number(golden_get(&c->g, full), 0);
}

static void check_loss(golden_case *c, const char *name, double got, double limit) {
    double want = first_loss(c, name), scale = fabs(want) > 1 ? fabs(want) : 1;
    if (!(fabs(got - want) <= limit * scale))
        fail_msg("%s: %s is %.9g, expected %.9g", c->g.dir, name, got, want);
}

static unsigned check_losses(golden_case *c, const run_result *r, double limit) {
    const lc_losses *l = &r->losses;
    double tokens = (double)l->counts.tokens;
    unsigned checked = 6;
    check_loss(c, "lm", l->lm / ((double)l->counts.lm + 1e-10), limit);
    check_loss(c, "balance", l->balance / tokens, limit);
    check_loss(c, "router_z", l->router_z / tokens, limit);
    check_loss(c, "hidden_z", l->hidden_z / tokens, limit);
    check_loss(c, "objective", lc_losses_objective(l, &c->weights), limit);
    check_loss(c, "reported", lc_losses_reported(l, &c->weights), limit);
    for (size_t k = 0; k < c->config.mtp_steps; k++, checked++) {
        char name[32];
        snprintf(name, sizeof name, "mtp.%zu", k + 1);
        check_loss(c, name, l->mtp[k] / ((double)l->counts.mtp[k] + 1e-10), limit);
    }
    if (c->config.index_heads) check_loss(c, "kl", l->kl / tokens, limit), checked++;
    return checked;
}

/* ---- gradients ---- */

/* Entries `prefix<tensor>` against the gradient; returns how many. Others of it are not looked at.
 */
static unsigned check_gradients(golden_case *c, const run_result *r, const char *prefix,
                                double limit, double *worst, char worst_name[128]) {
    unsigned checked = 0;
    size_t n = strlen(prefix);
    for (size_t i = 0; i < lc_tensors_count(c->g.file); i++) {
        const lc_tensor *t = lc_tensors_at(c->g.file, i);
        if (strncmp(t->name, prefix, n)) continue;
        const lc_param *p = lc_params_find(c->params, t->name + n);
        if (!p) fail_msg("%s: no parameter %s", c->g.dir, t->name + n);
        assert_int_equal(p->count, t->count);
        double error = golden_error(r->grad + p->offset, golden_get(&c->g, t->name));
        if (!(error <= limit)) {
            print_message("# %s %s: %.3g of the RMS, limit %.3g\n", c->g.dir, t->name, error,
                          limit);
            if (!worst) fail();
        }
        if (worst && error > *worst) {
            *worst = error;
            snprintf(worst_name, 128, "%s", t->name);
        }
        checked++;
    }
    return checked;
}

static void test_objective(void **state) {
    golden_case *c = *state;
    run_result r;
    run_case(c, (run_options){.threads = 2}, &r);
    unsigned losses = check_losses(c, &r, c->loss_limit);
    double worst = 0;
    char name[128] = "";
    unsigned checked = check_gradients(c, &r, "grad.", c->gradient_limit, &worst, name);
    unsigned trained = 0;
    for (size_t i = 0; i < c->params->count; i++) trained += c->params->list[i].gradient;
    printf("# %s: %u losses, %u of %u gradients, worst %.2g of the RMS (%s)\n", c->g.dir, losses,
           checked, trained, worst, name);
    assert_int_equal(checked, trained);
    assert_true(worst <= c->gradient_limit);
    for (size_t i = 0; i < c->params->count; i++) {
        const lc_param *p = &c->params->list[i];
        for (size_t j = 0; !p->gradient && j < p->count; j++)
            assert_true(r.grad[p->offset + j] == 0);
    }
    free_result(&r);
}

/* ---- terms alone ---- */

typedef struct term {
    const char *name;
    lc_loss_weights weights;
} term;

/* The objective with one weight. */
static lc_loss_weights *add_term(const golden_case *c, const char *name, term *list, size_t *n) {
    term *t = &list[(*n)++];
    *t = (term){name, {.kl_stage = c->weights.kl_stage, .balance_form = c->weights.balance_form}};
    return &t->weights;
}

static size_t make_terms(const golden_case *c, term *list) {
    static const char *const drafts[] = {"mtp.1", "mtp.2", "mtp.3"};
    size_t n = 0;
    add_term(c, "lm", list, &n)->lm = 1;
    add_term(c, "balance", list, &n)->balance = 1;
    add_term(c, "router_z", list, &n)->router_z = 1;
    add_term(c, "hidden_z", list, &n)->hidden_z = 1;
    for (size_t k = 0; k < c->config.mtp_steps; k++) add_term(c, drafts[k], list, &n)->mtp[k] = 1;
    if (c->config.index_heads) add_term(c, "kl", list, &n)->kl = 1;
    return n;
}

static void test_terms(void **state) {
    golden_case *c = *state;
    term list[16];
    size_t n = make_terms(c, list);
    unsigned checked = 0, found = 0;
    double worst = 0;
    char name[128] = "";
    for (size_t i = 0; i < n; i++) {
        run_result r;
        char prefix[64];
        run_case(c, (run_options){.threads = 2, .weights = &list[i].weights}, &r);
        snprintf(prefix, sizeof prefix, "term.%s.grad.", list[i].name);
        checked += check_gradients(c, &r, prefix, c->gradient_limit, &worst, name);
        free_result(&r);
    }
    for (size_t i = 0; i < lc_tensors_count(c->g.file); i++)
        found += !strncmp(lc_tensors_at(c->g.file, i)->name, "term.", 5);
    printf("# %s: %u of %u gradients of terms, worst %.2g of the RMS (%s)\n", c->g.dir, checked,
           found, worst, name);
    assert_int_equal(checked, found);
    assert_true(worst <= c->gradient_limit);
}

/* ---- the index loss ---- */

static unsigned check_groups(golden_case *c, const run_result *r, const char *name) {
    const lc_tensor *sums = golden_get(&c->g, name);
    for (size_t i = 0; i < sums->count; i++) {
        double want = golden_number(sums, i);
        if (!(fabs(r->groups[i] - want) <= c->loss_limit * (fabs(want) > 1 ? fabs(want) : 1)))
            fail_msg("%s[%zu] is %.9g, expected %.9g", name, i, r->groups[i], want);
    }
    return (unsigned)sums->count;
}

static void test_index_loss(void **state) {
    golden_case *c = *state;
    static const char *const stages[] = {"warmup", "sparse"};
    for (int i = 0; i < 2; i++) {
        /* the file has gradients of the sum, not of its mean over tokens */
        lc_loss_weights w = {.kl = (float)(c->rows * c->length),
                             .kl_stage = i ? LC_KL_SPARSE : LC_KL_WARMUP,
                             .balance_form = c->weights.balance_form};
        run_result r;
        char prefix[64], name[128] = "";
        double worst = 0;
        run_case(c, (run_options){.threads = 2, .weights = &w}, &r);
        snprintf(prefix, sizeof prefix, "kl.%s.grad.", stages[i]);
        unsigned checked = check_gradients(c, &r, prefix, c->gradient_limit, &worst, name);
        assert_int_equal(checked, 4 * (c->config.layers + 1));
        snprintf(prefix, sizeof prefix, "kl.%s.sums", stages[i]);
        unsigned sums = check_groups(c, &r, prefix);
        for (size_t j = 0; j < c->params->count; j++) { /* nothing else learns */
            const lc_param *p = &c->params->list[j];
            for (size_t e = 0; !p->indexer && e < p->count; e++)
                assert_true(r.grad[p->offset + e] == 0);
        }
        free_result(&r);
        c->params->config.switches.index_scaled_cq = true;
        run_case(c, (run_options){.weights = &w, .forward_only = true}, &r);
        c->params->config.switches.index_scaled_cq = false;
        snprintf(prefix, sizeof prefix, "alt.index_scaled_cq.kl.%s.sums", stages[i]);
        sums += check_groups(c, &r, prefix);
        free_result(&r);
        printf("# kl %s: %u sums, %u gradients, worst %.2g of the RMS (%s)\n", stages[i], sums,
               checked, worst, name);
        assert_true(worst <= c->gradient_limit);
    }
}

/* ---- equal bits ---- */

static void hash_result(const golden_case *c, const run_result *r, char hex[65]) {
    lc_hash *hash = lc_hash_new(LC_HASH_XXH128);
    assert_non_null(hash);
    const lc_losses *l = &r->losses;
    double sums[] = {l->lm, l->balance, l->router_z, l->hidden_z, l->kl};
    if (r->grad) lc_hash_update(hash, r->grad, c->params->floats * sizeof *r->grad);
    lc_hash_update(hash, sums, sizeof sums);
    lc_hash_update(hash, l->mtp, sizeof l->mtp);
    lc_hash_update(hash, r->experts, sizeof r->experts);
    lc_hash_finish(hash, hex);
}

/* The hash that other machines have seen, made by the scalar kernels. */
static const char *kept_hash(const golden_case *c, struct json_object *file, bool bf16) {
    struct json_object *entry = NULL, *text = NULL;
    struct json_object *name = NULL;
    assert_true(json_object_object_get_ex(c->g.json, "case", &name));
    assert_true(json_object_object_get_ex(file, json_object_get_string(name), &entry));
    assert_true(json_object_object_get_ex(entry, bf16 ? "bf16" : "f32", &text));
    return json_object_get_string(text);
}

static void test_equal_bits(void **state) {
    golden_case *c = *state;
    unsigned runs = 0;
    lc_err err = {0};
    struct json_object *kept = NULL;
    assert_ok(lc_json_load("tests/golden/model/train_hashes.json", 0, &kept, &err), err);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const char *want = kept_hash(c, kept, bf16);
        const lc_kernels *best = lc_kernels_best(LC_ISA_COUNT - 1, NULL);
        for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
            const lc_kernels *kernels = lc_kernels_of((lc_isa)isa);
            if (!kernels || (GOLDEN_SANITIZED && isa != LC_ISA_SCALAR && isa != LC_ISA_AVX2))
                continue;
            for (int threads = 1; threads <= 3; threads++)
                for (int recompute = 0; recompute < 2; recompute++) {
                    run_result r;
                    /* all of it on the best set, the corners on the others */
                    if (kernels != best && (threads == 2 || recompute != (threads == 3))) continue;
                    char hex[65];
                    run_case(c,
                             (run_options){.kernels = kernels,
                                           .threads = threads,
                                           .bf16 = bf16,
                                           .recompute = recompute},
                             &r);
                    hash_result(c, &r, hex);
                    free_result(&r);
                    runs++;
                    if (strcmp(hex, want))
                        fail_msg("%s, %d threads, recompute %d, bf16 %d: %s, kept hash %s",
                                 lc_isa_name((lc_isa)isa), threads, recompute, bf16, hex, want);
                }
        }
        printf("# %s %s: %s\n", c->g.dir, bf16 ? "bf16" : "f32", want);
    }
    json_object_put(kept);
    printf("# %u runs of equal bits\n", runs);
}

/* ---- bf16 ---- */

/* In bf16 some tokens choose other experts and keys; losses stay near, and the gradient as a whole
 * keeps its direction. */
static void test_bf16(void **state) {
    golden_case *c = *state;
    run_result a, b;
    run_case(c, (run_options){.threads = 2}, &a);
    run_case(c, (run_options){.threads = 2, .bf16 = true}, &b);
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < c->params->floats; i++) {
        ab += (double)a.grad[i] * (double)b.grad[i];
        aa += (double)a.grad[i] * (double)a.grad[i];
        bb += (double)b.grad[i] * (double)b.grad[i];
    }
    double cosine = ab / sqrt(aa * bb), size = sqrt(bb / aa);
    double lm = b.losses.lm / a.losses.lm;
    printf("# %s: gradient cosine %.5f, size %.5f, lm %.5f of f32's\n", c->g.dir, cosine, size, lm);
    assert_true(cosine > 0.98 && fabs(size - 1) < 0.05 && fabs(lm - 1) < 0.02);
    free_result(&a);
    free_result(&b);
}

/* ---- documents ---- */

/* Two documents packed into one row learn what two rows learn: only rotary positions differ, and
 * they are relative. The first ends in EOS, so n-grams don't look back over the border. */
static void test_packed(void **state) {
    golden_case *c = *state;
    size_t rows = c->rows, length = c->length;
    int32_t starts[512], last = c->tokens[length - 1];
    run_result a, b;
    assert_true(rows == 2 && 2 * length <= 512);
    for (size_t i = 0; i < 2 * length; i++) starts[i] = i < length ? 0 : (int32_t)length;
    c->tokens[length - 1] = c->config.eos;
    run_case(c, (run_options){.threads = 2}, &a);
    lc_net *net = NULL;
    lc_err err = {0};
    lc_net_options options = {.kernels = lc_kernels_best(LC_ISA_COUNT - 1, NULL),
                              .tokens = rows * length,
                              .length = rows * length,
                              .mtp_steps = c->config.mtp_steps};
    b = (run_result){.grad = lc_params_block(c->params)};
    assert_ok(lc_net_new(c->params, &options, &net, &err), err);
    lc_batch batch = batch_of(c);
    batch.rows = 1;
    batch.length = rows * length;
    batch.starts = starts;
    lc_counts totals = {0};
    lc_net_count(net, &batch, &totals);
    assert_int_equal(totals.lm, a.losses.counts.lm);
    assert_memory_equal(totals.mtp, a.losses.counts.mtp, sizeof totals.mtp);
    assert_ok(lc_net_run(net, &batch, &c->weights, &totals, b.grad, &b.losses, &err), err);
    double difference = 0, squares = 0;
    for (size_t i = 0; i < c->params->floats; i++) {
        double d = (double)b.grad[i] - (double)a.grad[i];
        difference += d * d;
        squares += (double)a.grad[i] * (double)a.grad[i];
    }
    double error = sqrt(difference / squares);
    printf("# %s: packed gradient off by %.2g of its norm\n", c->g.dir, error);
    assert_true(error < 1e-3);
    assert_true(fabs(a.losses.lm - b.losses.lm) < 1e-4 * a.losses.lm);
    assert_true(fabs(a.losses.kl - b.losses.kl) <= 1e-3 * a.losses.kl);
    c->tokens[length - 1] = last;
    lc_net_free(net);
    free_result(&a);
    free_result(&b);
}

/* ---- refusals ---- */

static void test_refusals(void **state) {
    golden_case *c = *state;
    lc_net *net = NULL;
    lc_err err = {0};
    lc_net_options options = {.kernels = lc_kernels_of(LC_ISA_SCALAR), .tokens = 64, .length = 32};
    options.mtp_steps = c->params->mtp ? LC_MTP_STEPS_MAX + 1 : 1;
    assert_int_equal(lc_net_new(c->params, &options, &net, &err), LC_EINVAL);
    options.mtp_steps = 0;
    options.length = 65;
    assert_int_equal(lc_net_new(c->params, &options, &net, &err), LC_EINVAL);
    options.length = 32;
    for (long n = 0;; n++) { /* every allocation fails once */
        lc_mem_fail_after(n);
        int status = lc_net_new(c->params, &options, &net, &err);
        lc_mem_fail_after(-1);
        if (status == LC_OK) break;
        assert_int_equal(status, LC_ENOMEM);
        assert_null(net);
    }
    int32_t tokens[64] = {0}, starts[64] = {0};
    lc_batch batch = {.rows = 2, .length = 32, .tokens = tokens, .starts = starts};
    lc_counts totals = {.lm = 1, .tokens = 64};
    lc_losses losses = {0};
    tokens[63] = (int32_t)c->config.vocab;
    assert_int_equal(lc_net_run(net, &batch, &c->weights, &totals, NULL, &losses, &err), LC_EINVAL);
    tokens[63] = 0;
    starts[5] = 4;
    assert_int_equal(lc_net_run(net, &batch, &c->weights, &totals, NULL, &losses, &err), LC_EINVAL);
    starts[5] = 0;
    batch.rows = 3;
    assert_int_equal(lc_net_run(net, &batch, &c->weights, &totals, NULL, &losses, &err), LC_EINVAL);
    batch.rows = 2;
    lc_mem_fail_after(0);
    assert_int_equal(lc_net_run(net, &batch, &c->weights, &totals, NULL, &losses, &err), LC_ENOMEM);
    lc_mem_fail_after(-1);
    assert_ok(lc_net_run(net, &batch, &c->weights, &totals, NULL, &losses, &err), err);
    lc_net_free(net);
}

int main(void) {
    static golden_case opened[sizeof cases / sizeof *cases];
    golden_tests tests = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        golden_case *c = &opened[i];
        open_case(c, cases[i]);
        golden_add(&tests, test_objective, c, "%s: objective", cases[i]);
        golden_add(&tests, test_terms, c, "%s: terms", cases[i]);
        if (c->config.index_heads) golden_add(&tests, test_index_loss, c, "%s: kl", cases[i]);
        golden_add(&tests, test_equal_bits, c, "%s: equal bits", cases[i]);
        golden_add(&tests, test_bf16, c, "%s: bf16", cases[i]);
        golden_add(&tests, test_packed, c, "%s: packed documents", cases[i]);
        golden_add(&tests, test_refusals, c, "%s: refusals", cases[i]);
    }
    int failed = golden_run(&tests, "train");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) close_case(&opened[i]);
    return failed;
}
