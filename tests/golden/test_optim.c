/*
 * test_optim.c: five steps of AdamW and of Muon against tests/golden/model/<case>/train.*: losses
 * and gradient norms of every step, weights after every step, expert biases. train.json says how
 * each is compared. Then: equal bits for every thread count and instruction set.
 */
#include "golden.h"

#include "base/hash.h"
#include "train/net.h"
#include "train/optim.h"
#include "train/schedule.h"

enum { STEPS = 5 };

typedef struct run_options {
    const char *name, *optimizer;
    const lc_kernels *kernels; /* NULL: the best */
    int threads;
    bool bf16;
} run_options;

typedef struct run {
    golden g;
    run_options o;
    lc_config config;
    lc_params *params;
    lc_pool *pool;
    lc_net *net;
    lc_optim *optim;
    lc_loss_weights weights;
    int32_t *ids;
    uint8_t *mask;
    size_t rows, length, checked, elements, off;
    double worst_loss, worst_bias;
} run;

static double number_of(run *r, const char *key) {
    struct json_object *x = NULL;
    assert_true(json_object_object_get_ex(r->g.json, key, &x));
    return json_object_get_double(x);
}

static void open_weights(run *r) {
    lc_loss_weights *w = &r->weights;
    w->lm = 1;
    for (size_t k = 0; k < r->config.mtp_steps; k++)
        w->mtp[k] = (float)(golden_value(&r->g, "coefficients", "mtp_weight") /
                            (double)r->config.mtp_steps);
    w->balance = (float)golden_value(&r->g, "coefficients", "balance_coeff");
    w->router_z = (float)golden_value(&r->g, "coefficients", "router_z_coeff");
    w->hidden_z = (float)golden_value(&r->g, "coefficients", "hidden_z_coeff");
    w->target_topk = number_of(r, "target_topk");
    if (!r->config.index_heads) return;
    w->kl = (float)golden_value(&r->g, "coefficients", "kl_weight");
    w->kl_stage = LC_KL_SPARSE;
}

static void open_data(run *r) {
    const lc_tensor *ids = golden_get(&r->g, "ids"), *mask = golden_get(&r->g, "mask");
    assert_int_equal(ids->shape[0], STEPS);
    r->rows = ids->shape[1];
    r->length = ids->shape[2];
    r->ids = golden_ids(ids);
    r->mask = lc_calloc(mask->count, 1);
    assert_non_null(r->mask);
    for (size_t i = 0; i < mask->count; i++) r->mask[i] = golden_number(mask, i) != 0;
}

static void open_run(run *r, run_options o) {
    char path[256];
    lc_err err = {0};
    lc_tensors *tensors;
    *r = (run){.o = o};
    snprintf(path, sizeof path, "tests/golden/model/%s/train.safetensors", o.name);
    golden_open_tensors(&r->g, path);
    snprintf(path, sizeof path, "tests/golden/model/%s/train.json", o.name);
    assert_ok(lc_json_load(path, 0, &r->g.json, &err), err);
    snprintf(path, sizeof path, "tests/golden/model/%s", o.name);
    assert_ok(lc_config_load(path, &r->config, &err), err);
    assert_ok(lc_tensors_open(path, &tensors, &err), err);
    assert_ok(lc_params_load(&r->config, tensors, &r->params, &err), err);
    lc_tensors_close(tensors);
    open_weights(r);
    open_data(r);
    if (o.threads > 1) assert_ok(lc_pool_new(o.threads, &r->pool, &err), err);
    const lc_kernels *k = o.kernels ? o.kernels : lc_kernels_best(LC_ISA_COUNT - 1, NULL);
    lc_net_options net = {.kernels = k,
                          .pool = r->pool,
                          .bf16 = o.bf16,
                          .tokens = r->rows * r->length,
                          .length = r->length,
                          .mtp_steps = r->config.mtp_steps};
    assert_ok(lc_net_new(r->params, &net, &r->net, &err), err);
    lc_optim_options options = {.kernels = k,
                                .pool = r->pool,
                                .muon = !strcmp(o.optimizer, "muon"),
                                .bf16 = o.bf16,
                                .beta1 = 0.9,
                                .beta2 = 0.95,
                                .eps = golden_value(&r->g, "adamw", "eps"),
                                .momentum = golden_value(&r->g, "muon", "momentum"),
                                .decay = golden_value(&r->g, "adamw", "decay"),
                                .clip = 1,
                                .embedding_rate = 1};
    assert_ok(lc_optim_new(r->params, &options, &r->optim, &err), err);
}

static void close_run(run *r) {
    lc_optim_free(r->optim);
    lc_net_free(r->net);
    lc_pool_free(r->pool);
    lc_params_free(r->params);
    lc_free(r->ids);
    lc_free(r->mask);
    golden_close(&r->g);
}

static void check_loss(run *r, size_t step, const char *term, double got) {
    char name[64];
    snprintf(name, sizeof name, "%s.loss.%s", r->o.optimizer, term);
    double want = golden_number(golden_get(&r->g, name), step);
    double error = fabs(got - want) / (fabs(want) > 1 ? fabs(want) : 1);
    if (!(error <= golden_value(&r->g, "tolerance", "loss")))
        fail_msg("%s step %zu: %s is %.9g, expected %.9g", r->o.name, step, term, got, want);
    if (error > r->worst_loss) r->worst_loss = error;
    r->checked++;
}

static void check_losses(run *r, size_t step, const lc_losses *l, double norm) {
    double tokens = (double)l->counts.tokens;
    check_loss(r, step, "lm", l->lm / ((double)l->counts.lm + 1e-10));
    for (size_t k = 0; k < r->config.mtp_steps; k++) {
        char name[32];
        snprintf(name, sizeof name, "mtp.%zu", k + 1);
        check_loss(r, step, name, l->mtp[k] / ((double)l->counts.mtp[k] + 1e-10));
    }
    check_loss(r, step, "balance", l->balance / tokens);
    check_loss(r, step, "router_z", l->router_z / tokens);
    check_loss(r, step, "hidden_z", l->hidden_z / tokens);
    if (r->config.index_heads) check_loss(r, step, "kl", l->kl / tokens);
    check_loss(r, step, "objective", lc_losses_objective(l, &r->weights));
    check_loss(r, step, "reported", lc_losses_reported(l, &r->weights));
    check_loss(r, step, "grad_norm", norm);
}

/* The rule: at most one element in a thousand off by more than 0.01 lr, a tensor at a time; biases
 * move by whole counts, so they must be equal but for rounding. */
static size_t check_weights(run *r, size_t step, double lr) {
    char prefix[32];
    size_t n = (size_t)snprintf(prefix, sizeof prefix, "%s.step%zu.", r->o.optimizer, step + 1);
    size_t tensors = 0;
    for (size_t i = 0; i < lc_tensors_count(r->g.file); i++) {
        const lc_tensor *t = lc_tensors_at(r->g.file, i);
        if (strncmp(t->name, prefix, n)) continue;
        const lc_param *p = lc_params_find(r->params, t->name + n);
        if (!p) fail_msg("no parameter %s", t->name + n);
        assert_int_equal(p->count, t->count);
        size_t off = 0;
        for (size_t j = 0; j < p->count; j++) {
            double error = fabs((double)lc_param_values(r->params, p)[j] - golden_number(t, j));
            if (p->group == LC_GROUP_BIAS && error > r->worst_bias) r->worst_bias = error;
            if (!(error <= 0.01 * lr)) off++;
        }
        if (off * 1000 > p->count && off > 0)
            fail_msg("%s: %zu of %zu elements are off", t->name, off, p->count);
        r->elements += p->count;
        r->off += off;
        tensors++;
    }
    return tensors;
}

static void run_steps(run *r, bool check) {
    lc_err err = {0};
    float *grad = lc_params_block(r->params);
    size_t n = r->rows * r->length, tensors = 0;
    double lr = golden_value(&r->g, r->o.optimizer, "lr");
    bool trained[LC_OPTIM_PARTS] = {true, true, true, true};
    for (size_t step = 0; step < STEPS; step++) {
        int64_t experts[512] = {0};
        lc_batch batch = {.rows = r->rows,
                          .length = r->length,
                          .tokens = r->ids + step * n,
                          .mask = r->mask + step * n};
        lc_counts totals = {0};
        lc_losses losses = {.experts = experts};
        double norm;
        lc_net_count(r->net, &batch, &totals);
        memset(grad, 0, r->params->floats * sizeof *grad);
        assert_ok(lc_net_run(r->net, &batch, &r->weights, &totals, grad, &losses, &err), err);
        assert_ok(lc_optim_step(r->optim, grad, trained, lr, &norm, &err), err);
        lc_bias_update(r->params, experts, r->weights.target_topk, 0.1);
        lc_net_refresh(r->net);
        if (!check) continue;
        check_losses(r, step, &losses, norm);
        tensors += check_weights(r, step, lr);
    }
    lc_free(grad);
    if (!check) return;
    printf("# %s %s: %zu losses and norms, worst %.2g; %zu tensors, %zu of %zu elements off; "
           "biases within %.2g\n",
           r->o.name, r->o.optimizer, r->checked, r->worst_loss, tensors, r->off, r->elements,
           r->worst_bias);
    assert_true(tensors >= STEPS * 10);
    assert_true(r->worst_bias <= 1e-6);
}

static void test_steps(void **state) {
    run r;
    open_run(&r, *(run_options *)*state);
    run_steps(&r, true);
    close_run(&r);
}

static void hash_after(run_options o, char hex[65]) {
    run r;
    open_run(&r, o);
    run_steps(&r, false);
    lc_hash *h = lc_hash_new(LC_HASH_XXH128);
    assert_non_null(h);
    lc_hash_update(h, r.params->values, r.params->floats * sizeof(float));
    lc_hash_update(h, r.optim->first, r.params->floats * sizeof(float));
    lc_hash_update(h, r.optim->second, r.params->floats * sizeof(float));
    lc_hash_finish(h, hex);
    close_run(&r);
}

static void test_equal_bits(void **state) {
    run_options o = *(run_options *)*state;
    char want[65], got[65];
    size_t same = 0;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        o = (run_options){.name = o.name, .optimizer = o.optimizer, .threads = 1, .bf16 = bf16};
        hash_after(o, want);
        for (o.threads = 2; o.threads <= 3; o.threads++, same++) {
            hash_after(o, got);
            assert_string_equal(got, want);
        }
        o.threads = 2;
        for (lc_isa isa = 0; isa < LC_ISA_COUNT && !GOLDEN_THREADS_ONLY; isa++) {
            if (!(o.kernels = lc_kernels_of(isa))) continue;
            hash_after(o, got);
            assert_string_equal(got, want);
            same++;
        }
    }
    printf("# %s %s: %zu runs of %d steps with equal bits\n", o.name, o.optimizer, same, STEPS);
}

static void test_parts_keep(void **state) {
    (void)state;
    run r;
    lc_err err = {0};
    double norm;
    open_run(&r, (run_options){.name = "two-tiny", .optimizer = "muon"});
    float *grad = lc_params_block(r.params), *before = lc_params_block(r.params);
    for (size_t i = 0; i < r.params->floats; i++) grad[i] = 0.25f;
    memcpy(before, r.params->values, r.params->floats * sizeof *before);
    bool trained[LC_OPTIM_PARTS] = {[LC_OPTIM_INDEXER] = true};
    assert_ok(lc_optim_step(r.optim, grad, trained, 0.01, &norm, &err), err);
    size_t changed = 0;
    for (size_t i = 0; i < r.params->count; i++) {
        const lc_param *p = &r.params->list[i];
        bool same = !memcmp(before + p->offset, lc_param_values(r.params, p), p->count * 4);
        assert_int_equal(same, lc_optim_part_of(p) != LC_OPTIM_INDEXER);
        changed += !same;
    }
    assert_int_equal(changed, 4 * r.config.layers);
    grad[r.params->list[0].offset] = NAN;
    trained[LC_OPTIM_MAIN] = true;
    memcpy(before, r.params->values, r.params->floats * sizeof *before);
    assert_int_equal(lc_optim_step(r.optim, grad, trained, 0.01, &norm, &err), LC_EFORMAT);
    assert_non_null(strstr(err.text, r.params->list[0].name));
    assert_memory_equal(before, r.params->values, r.params->floats * sizeof *before);
    lc_free(grad);
    lc_free(before);
    close_run(&r);
}

static void test_schedules(void **state) {
    (void)state;
    lc_schedule s = {LC_SCHEDULE_CONSTANT, 2, 0.5, 100, 10, 20};
    assert_float_equal(lc_schedule_rate(&s, 0), 0.2, 1e-15);
    assert_float_equal(lc_schedule_rate(&s, 9), 2, 1e-15);
    assert_float_equal(lc_schedule_rate(&s, 99), 2, 1e-15);
    s.kind = LC_SCHEDULE_WSD;
    assert_float_equal(lc_schedule_rate(&s, 80), 2, 1e-15);
    assert_float_equal(lc_schedule_rate(&s, 90), 1.25, 1e-15);
    s.kind = LC_SCHEDULE_COSINE;
    for (uint64_t i = 10; i < 100; i++) {
        double x = (double)(i - 10) / 90, want = 0.5 + 1.5 * 0.5 * (1 + cos(x * 3.141592653589793));
        assert_true(fabs(lc_schedule_rate(&s, i) - want) < 1e-14);
    }
    assert_float_equal(lc_bias_rate(0.1, 1000, 0.01, 999), 0.1, 1e-15);
    assert_float_equal(lc_bias_rate(0.1, 1000, 0.01, 2000), 0.025, 1e-15);
    assert_float_equal(lc_bias_rate(0.1, 1000, 0.01, 1u << 30), 0.01, 1e-15);
}

int main(void) {
    static const char *const cases[] = {"flash-tiny", "lite-tiny", "two-tiny"};
    static const char *const optimizers[] = {"adamw", "muon"};
    static run_options all[6];
    golden_tests tests = {0};
    for (size_t i = 0; i < 6; i++) {
        all[i] = (run_options){.name = cases[i / 2], .optimizer = optimizers[i % 2], .threads = 2};
        golden_add(&tests, test_steps, &all[i], "%s: %s steps", all[i].name, all[i].optimizer);
    }
    golden_add(&tests, test_equal_bits, &all[5], "two-tiny: equal bits");
    golden_add(&tests, test_parts_keep, NULL, "a stage's parts");
    golden_add(&tests, test_schedules, NULL, "schedules");
    return golden_run(&tests, "optim");
}
