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
    w->target_topk = json_object_get_double(k);
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
        char name[16];
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

int main(void) {
    static golden_case opened[sizeof cases / sizeof *cases];
    golden_tests tests = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_case(&opened[i], cases[i]);
        golden_add(&tests, test_objective, &opened[i], "%s: objective", cases[i]);
    }
    int failed = golden_run(&tests, "train");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) close_case(&opened[i]);
    return failed;
}
