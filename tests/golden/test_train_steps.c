/*
 * test_train_steps.c: five steps of AdamW and of Muon against tests/golden/model/<case>/train.*:
 * losses of every step, stored tensors after every step, biases of the load controller. train.json
 * says how weights are compared: by the share of elements off by more than a hundredth of the
 * learning rate. Then equal bits for threads and instruction sets.
 * uses-threads
 */
#include "golden.h"

#include "base/hash.h"
#include "train/bias.h"
#include "train/net.h"
#include "train/optim.h"

static const char *const cases[] = {"flash-tiny", "lite-tiny", "two-tiny"};

typedef struct steps {
    golden g;
    lc_config config;
    lc_params *params;
    size_t n, rows, length;
    int32_t *tokens;
    uint8_t *mask;
    lc_loss_weights weights;
    double loss_limit;
} steps;

static void open_steps(steps *c, const char *name) {
    char path[256];
    lc_err err = {0};
    lc_tensors *tensors;
    *c = (steps){0};
    snprintf(path, sizeof path, "tests/golden/model/%s/train.safetensors", name);
    golden_open_tensors(&c->g, path);
    snprintf(path, sizeof path, "tests/golden/model/%s/train.json", name);
    assert_ok(lc_json_load(path, 0, &c->g.json, &err), err);
    snprintf(path, sizeof path, "tests/golden/model/%s", name);
    assert_ok(lc_config_load(path, &c->config, &err), err);
    assert_ok(lc_tensors_open(path, &tensors, &err), err);
    assert_ok(lc_params_load(&c->config, tensors, &c->params, &err), err);
    lc_tensors_close(tensors);
    const lc_tensor *ids = golden_get(&c->g, "ids"), *mask = golden_get(&c->g, "mask");
    c->n = ids->shape[0];
    c->rows = ids->shape[1];
    c->length = ids->shape[2];
    c->tokens = golden_ids(ids);
    c->mask = lc_calloc(mask->count, 1);
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
    c->loss_limit = golden_value(&c->g, "tolerance", "loss");
}

static void close_steps(steps *c) {
    lc_free(c->tokens);
    lc_free(c->mask);
    lc_params_free(c->params);
    golden_close(&c->g);
}

/* ---- against the golden values ---- */

typedef struct tally {
    unsigned losses, tensors, biases;
    size_t elements, off;
    double worst_loss, worst_bias;
} tally;

static void check_loss(steps *c, const char *kind, const char *name, size_t step, double got,
                       tally *t) {
    char full[64];
    snprintf(full, sizeof full, "%s.loss.%s", kind, name);
    double want = golden_number(golden_get(&c->g, full), step);
    double off = fabs(got - want) / (fabs(want) > 1 ? fabs(want) : 1);
    if (!(off <= c->loss_limit))
        fail_msg("%s: %s of step %zu is %.9g, expected %.9g", c->g.dir, full, step, got, want);
    if (off > t->worst_loss) t->worst_loss = off;
    t->losses++;
}

static void check_losses(steps *c, const char *kind, size_t step, const lc_losses *l, double norm,
                         tally *t) {
    double tokens = (double)l->counts.tokens;
    check_loss(c, kind, "lm", step, l->lm / ((double)l->counts.lm + 1e-10), t);
    check_loss(c, kind, "balance", step, l->balance / tokens, t);
    check_loss(c, kind, "router_z", step, l->router_z / tokens, t);
    check_loss(c, kind, "hidden_z", step, l->hidden_z / tokens, t);
    check_loss(c, kind, "objective", step, lc_losses_objective(l, &c->weights), t);
    check_loss(c, kind, "reported", step, lc_losses_reported(l, &c->weights), t);
    check_loss(c, kind, "grad_norm", step, norm, t);
    for (size_t k = 0; k < c->config.mtp_steps; k++) {
        char name[32];
        snprintf(name, sizeof name, "mtp.%zu", k + 1);
        check_loss(c, kind, name, step, l->mtp[k] / ((double)l->counts.mtp[k] + 1e-10), t);
    }
    if (c->config.index_heads) check_loss(c, kind, "kl", step, l->kl / tokens, t);
}

static void check_tensors(steps *c, const char *kind, size_t step, double rate, tally *t) {
    char prefix[32];
    size_t n = (size_t)snprintf(prefix, sizeof prefix, "%s.step%zu.", kind, step + 1);
    for (size_t i = 0; i < lc_tensors_count(c->g.file); i++) {
        const lc_tensor *want = lc_tensors_at(c->g.file, i);
        if (strncmp(want->name, prefix, n)) continue;
        golden_get(&c->g, want->name);
        const lc_param *p = lc_params_find(c->params, want->name + n);
        if (!p || p->count != want->count) fail_msg("%s: no such tensor", want->name);
        const float *got = lc_param_values(c->params, p);
        for (size_t j = 0; j < p->count; j++) {
            double off = fabs((double)got[j] - golden_number(want, j));
            if (p->group == LC_GROUP_BIAS && off > t->worst_bias) t->worst_bias = off;
            if (p->group != LC_GROUP_BIAS) t->off += off <= 0.01 * rate ? 0 : 1;
        }
        if (p->group == LC_GROUP_BIAS)
            t->biases++;
        else
            t->elements += p->count;
        t->tensors++;
    }
}

typedef struct run_options {
    const lc_kernels *kernels;
    int threads;
    lc_optim_kind kind;
    bool bf16;
    tally *check;
} run_options;

/* Bias rule of train.json: rate 0.1, always. */
static void run_steps(steps *c, run_options o, char hex[65]) {
    enum { EXPERTS = 512 };
    const char *kind = o.kind == LC_OPTIM_MUON ? "muon" : "adamw";
    lc_err err = {0};
    lc_pool *pool = NULL;
    lc_net *net;
    lc_optim *optim;
    if (o.threads > 1) assert_ok(lc_pool_new(o.threads, &pool, &err), err);
    lc_net_options no = {.kernels = o.kernels,
                         .pool = pool,
                         .bf16 = o.bf16,
                         .tokens = c->rows * c->length,
                         .length = c->length,
                         .mtp_steps = c->config.mtp_steps};
    assert_ok(lc_net_new(c->params, &no, &net, &err), err);
    lc_optim_options oo = lc_optim_defaults();
    oo.kind = o.kind;
    oo.kernels = o.kernels;
    oo.pool = pool;
    oo.bf16 = o.bf16;
    assert_ok(lc_optim_new(c->params, &oo, &optim, &err), err);
    float *grad = lc_params_block(c->params);
    bool *learns = lc_calloc(c->params->count, sizeof *learns);
    for (size_t i = 0; i < c->params->count; i++) learns[i] = c->params->list[i].gradient;
    lc_bias_rule rule = {.rate = 0.1, .target_topk = c->weights.balance_form.target_topk};
    for (size_t s = 0; s < c->n; s++) {
        int64_t experts[EXPERTS] = {0};
        double norm, rate = 1e-3;
        lc_losses losses = {.experts = experts};
        size_t at = s * c->rows * c->length;
        lc_batch batch = {
            .rows = c->rows, .length = c->length, .tokens = c->tokens + at, .mask = c->mask + at};
        lc_counts totals = {0};
        lc_net_count(net, &batch, &totals);
        memset(grad, 0, c->params->floats * sizeof *grad);
        assert_ok(lc_net_run(net, &batch, &c->weights, &totals, grad, &losses, &err), err);
        lc_update update = {rate, learns, grad};
        assert_ok(lc_optim_step(optim, &update, &norm, &err), err);
        lc_bias_update(c->params, &rule, (int64_t)s, experts);
        lc_net_refresh(net);
        if (o.check) {
            check_losses(c, kind, s, &losses, norm, o.check);
            check_tensors(c, kind, s, rate, o.check);
        }
    }
    lc_hash *hash = lc_hash_new(LC_HASH_XXH128);
    lc_hash_update(hash, c->params->values, c->params->floats * sizeof(float));
    lc_hash_finish(hash, hex);
    lc_free(learns);
    lc_free(grad);
    lc_optim_free(optim);
    lc_net_free(net);
    lc_pool_free(pool);
}

static void check_kind(const char *name, lc_optim_kind kind) {
    steps c;
    tally t = {0};
    char hex[65];
    open_steps(&c, name);
    run_steps(&c,
              (run_options){.kernels = lc_kernels_best(LC_ISA_COUNT - 1, NULL),
                            .threads = 2,
                            .kind = kind,
                            .check = &t},
              hex);
    printf("# %s, %s: %u losses, worst %.1g; %u tensors, %zu of %zu elements off by more than a "
           "hundredth of the rate; %u biases, worst %.1g\n",
           name, kind ? "muon" : "adamw", t.losses, t.worst_loss, t.tensors, t.off, t.elements,
           t.biases, t.worst_bias);
    assert_true(t.tensors > 0 && t.off * 1000 <= t.elements);
    assert_true(t.worst_bias < 1e-6);
    close_steps(&c);
}

static void test_adamw(void **state) { check_kind(*state, LC_OPTIM_ADAMW); }
static void test_muon(void **state) { check_kind(*state, LC_OPTIM_MUON); }

/* ---- equal bits ---- */

static void test_bits(void **state) {
    char want[2][65];
    unsigned same = 0;
    for (int isa = 0; isa < LC_ISA_COUNT; isa++)
        for (int threads = 1; threads <= 3; threads++)
            for (int kind = 0; kind < 2; kind++) {
                steps c;
                char hex[65];
                const lc_kernels *k = lc_kernels_of((lc_isa)isa);
                if (!k || threads == 2 || (isa == LC_ISA_SCALAR && threads > 1)) continue;
                open_steps(&c, *state);
                run_steps(&c,
                          (run_options){.kernels = k,
                                        .threads = threads,
                                        .kind = (lc_optim_kind)kind,
                                        .bf16 = true},
                          hex);
                if (isa == 0 && threads == 1) memcpy(want[kind], hex, sizeof hex);
                assert_string_equal(hex, want[kind]);
                same++;
                close_steps(&c);
            }
    printf("# %s: %u runs of 5 steps in bf16, equal weights for each optimiser\n",
           (const char *)*state, same);
}

/* ---- rules that the golden runs don't reach ---- */

static void test_untouched(void **state) {
    steps c;
    lc_err err = {0};
    lc_optim *optim;
    double norm;
    open_steps(&c, *state);
    lc_optim_options o = lc_optim_defaults();
    o.kind = LC_OPTIM_MUON;
    o.average = 0.9;
    o.kernels = lc_kernels_of(LC_ISA_SCALAR);
    assert_ok(lc_optim_new(c.params, &o, &optim, &err), err);
    float *grad = lc_params_block(c.params), *before = lc_params_block(c.params);
    bool *learns = lc_calloc(c.params->count, sizeof *learns);
    memcpy(before, c.params->values, c.params->floats * sizeof(float));
    const lc_param *p = lc_params_find(c.params, "model.norm.weight");
    for (size_t i = 0; i < p->count; i++) grad[p->offset + i] = 3;
    learns[p - c.params->list] = true;
    assert_ok(lc_optim_step(optim, &(lc_update){0.5, learns, grad}, &norm, &err), err);
    assert_true(fabs(norm - 3 * sqrt((double)p->count)) < 1e-5);
    lc_optim_average(optim, 0);
    lc_optim_state s = lc_optim_state_of(optim);
    for (size_t i = 0; i < c.params->floats; i++) {
        bool in = i >= p->offset && i < p->offset + p->count;
        float moved = in ? 0.5f : 0; /* AdamW's first step is the rate; no decay on vectors */
        assert_float_equal(c.params->values[i], before[i] - moved, 1e-4);
        assert_float_equal(s.average[i], before[i] - 0.9f * moved, 1e-4); /* d = 1 / 10 */
    }
    assert_int_equal(s.steps[p - c.params->list], 1);
    grad[p->offset] = NAN; /* of what learns: refused, and nothing changes */
    memcpy(before, c.params->values, c.params->floats * sizeof(float));
    assert_int_equal(lc_optim_step(optim, &(lc_update){0.5, learns, grad}, &norm, &err),
                     LC_EFORMAT);
    assert_non_null(strstr(err.text, "model.norm.weight"));
    assert_memory_equal(before, c.params->values, c.params->floats * sizeof(float));
    lc_free(grad);
    lc_free(before);
    lc_free(learns);
    lc_optim_free(optim);
    close_steps(&c);
}

int main(void) {
    golden_tests tests = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        void *name = (void *)(uintptr_t)cases[i];
        golden_add(&tests, test_adamw, name, "%s: AdamW", cases[i]);
        golden_add(&tests, test_muon, name, "%s: Muon", cases[i]);
    }
    golden_add(&tests, test_bits, (void *)(uintptr_t)cases[2], "equal bits");
    golden_add(&tests, test_untouched, (void *)(uintptr_t)cases[0], "frozen tensors, refusals");
    return golden_run(&tests, "steps");
}
