/*
 * test_train_curve.c: 200 steps of AdamW in f32 on tiny-code's config against the same run in
 * PyTorch (tests/golden/train_curve/, made by bench/peers/train/curve.py). The losses of what is
 * predicted, and the objective, stay within a thousandth at every step; all other terms and the
 * gradient's norm do as long as both runs choose the same experts. Then one token's other choice
 * shows in them (balance is made of counts of 128 tokens): they are printed only.
 * uses-threads
 */
#include "golden.h"

#include "train/bias.h"
#include "train/net.h"
#include "train/optim.h"

#define FOLDER "tests/golden/train_curve"

enum { SAME_CHOICES = 40 }; /* steps; the first other choice is seen in step 49 */

/* curve.py's first numbers: FNV-1a of the name, murmur's finaliser of the element. */
static void first_numbers(const lc_param *p, float *to) {
    uint32_t seed = 2166136261u;
    const float wide = (float)(0.02 * sqrt(12));
    for (const char *c = p->name; *c; c++) seed = (seed ^ (unsigned char)*c) * 16777619u;
    for (size_t i = 0; i < p->count; i++) {
        uint32_t x = (uint32_t)i * 2654435769u + seed;
        x ^= x >> 16;
        x *= 0x85ebca6bu;
        x ^= x >> 13;
        x *= 0xc2b2ae35u;
        x ^= x >> 16;
        float unit = (float)(x >> 8) / 16777216.0f - 0.5f;
        to[i] = p->group == LC_GROUP_BIAS ? 0 : p->rank == 1 ? 1 : unit * wide;
    }
}

static double option(struct json_object *json, const char *name) {
    struct json_object *value = NULL;
    if (!json_object_object_get_ex(json, name, &value)) fail_msg(FOLDER "/curve.json: no %s", name);
    return json_object_get_double(value);
}

typedef struct worst {
    double off;
    char where[64];
} worst;

typedef struct curve {
    struct json_object *losses;
    size_t compared;
    worst predicted, early, late; /* losses of predictions; the other terms */
} curve;

static bool predicts(const char *name) {
    return !strcmp(name, "lm") || !strncmp(name, "mtp.", 4) || !strcmp(name, "objective") ||
           !strcmp(name, "reported");
}

static void compare(curve *c, const char *name, size_t step, double got) {
    struct json_object *list = NULL;
    if (!json_object_object_get_ex(c->losses, name, &list)) fail_msg("no curve of %s", name);
    double want = json_object_get_double(json_object_array_get_idx(list, step));
    double off = fabs(got - want) / (fabs(want) > 1 ? fabs(want) : 1);
    c->compared++;
    worst *w = predicts(name) ? &c->predicted : step < SAME_CHOICES ? &c->early : &c->late;
    if (off <= w->off) return;
    w->off = off;
    snprintf(w->where, sizeof w->where, "%s of step %zu", name, step + 1);
}

static void compare_all(curve *c, size_t step, const lc_losses *l, const lc_loss_weights *w,
                        size_t drafts) {
    double tokens = (double)l->counts.tokens;
    compare(c, "lm", step, l->lm / ((double)l->counts.lm + 1e-10));
    compare(c, "balance", step, l->balance / tokens);
    compare(c, "router_z", step, l->router_z / tokens);
    compare(c, "hidden_z", step, l->hidden_z / tokens);
    compare(c, "kl", step, l->kl / tokens);
    compare(c, "objective", step, lc_losses_objective(l, w));
    compare(c, "reported", step, lc_losses_reported(l, w));
    for (size_t k = 0; k < drafts; k++) {
        char name[32];
        snprintf(name, sizeof name, "mtp.%zu", k + 1);
        compare(c, name, step, l->mtp[k] / ((double)l->counts.mtp[k] + 1e-10));
    }
}

static lc_loss_weights weights_of(struct json_object *json, size_t drafts) {
    struct json_object *by = NULL;
    json_object_object_get_ex(json, "coefficients", &by);
    lc_loss_weights w = {.lm = (float)option(by, "lm"),
                         .balance = (float)option(by, "balance"),
                         .router_z = (float)option(by, "router_z"),
                         .hidden_z = (float)option(by, "hidden_z"),
                         .kl = (float)option(by, "kl"),
                         .kl_stage = LC_KL_SPARSE,
                         .balance_form.target_topk = option(json, "target_topk")};
    for (size_t k = 0; k < drafts; k++) w.mtp[k] = (float)(option(by, "mtp") / (double)drafts);
    return w;
}

static void test_curve(void **state) {
    (void)state;
    lc_err err = {0};
    lc_config config;
    lc_params *params;
    lc_net *net;
    lc_optim *optim;
    lc_pool *pool;
    struct json_object *json = NULL;
    golden g;
    curve c = {0};
    golden_open_tensors(&g, FOLDER "/ids.safetensors");
    assert_ok(lc_json_load(FOLDER "/curve.json", 0, &json, &err), err);
    json_object_object_get_ex(json, "losses", &c.losses);
    const lc_tensor *ids = golden_get(&g, "ids");
    size_t steps = GOLDEN_SANITIZED ? 5 : ids->shape[0], rows = ids->shape[1],
           length = ids->shape[2];
    int32_t *tokens = golden_ids(ids);
    assert_ok(lc_config_load(FOLDER, &config, &err), err);
    assert_ok(lc_params_new(&config, &(lc_params_init){.std = 1}, &params, &err), err);
    for (size_t i = 0; i < params->count; i++)
        first_numbers(&params->list[i], lc_param_values(params, &params->list[i]));
    assert_ok(lc_pool_new(2, &pool, &err), err);
    const lc_kernels *kernels = lc_kernels_best(LC_ISA_COUNT - 1, NULL);
    lc_net_options no = {.kernels = kernels,
                         .pool = pool,
                         .tokens = rows * length,
                         .length = length,
                         .mtp_steps = config.mtp_steps};
    assert_ok(lc_net_new(params, &no, &net, &err), err);
    lc_optim_options oo = lc_optim_defaults();
    oo.kernels = kernels;
    oo.pool = pool;
    oo.eps = option(json, "eps");
    oo.decay = option(json, "decay");
    oo.clip = option(json, "clip");
    assert_ok(lc_optim_new(params, &oo, &optim, &err), err);
    lc_loss_weights w = weights_of(json, config.mtp_steps);
    lc_bias_rule rule = {.rate = option(json, "bias_rate"),
                         .target_topk = w.balance_form.target_topk};
    float *grad = lc_params_block(params);
    bool *learns = lc_calloc(params->count, sizeof *learns);
    int64_t *experts =
        lc_calloc(config.layers * (config.experts + config.zero_experts), sizeof *experts);
    for (size_t i = 0; i < params->count; i++) learns[i] = params->list[i].gradient;
    for (size_t s = 0; s < steps; s++) {
        double norm;
        lc_counts totals = {0};
        lc_losses losses = {.experts = experts};
        lc_batch batch = {.rows = rows, .length = length, .tokens = tokens + s * rows * length};
        lc_net_count(net, &batch, &totals);
        memset(grad, 0, params->floats * sizeof *grad);
        memset(experts, 0,
               config.layers * (config.experts + config.zero_experts) * sizeof *experts);
        assert_ok(lc_net_run(net, &batch, &w, &totals, grad, &losses, &err), err);
        compare_all(&c, s, &losses, &w, config.mtp_steps);
        lc_update update = {option(json, "rate"), learns, grad};
        assert_ok(lc_optim_step(optim, &update, &norm, &err), err);
        compare(&c, "grad_norm", s, norm);
        lc_bias_update(params, &rule, (int64_t)s, experts);
        lc_net_refresh(net);
    }
    printf("# %zu steps, %zu values: predictions differ by at most %.1e (%s), other terms by %.1e "
           "(%s), after step %d by %.1e (%s)\n",
           steps, c.compared, c.predicted.off, c.predicted.where, c.early.off, c.early.where,
           SAME_CHOICES, c.late.off, c.late.where);
    assert_true(c.predicted.off <= 1e-3);
    assert_true(c.early.off <= 1e-3);
    lc_free(experts);
    lc_free(learns);
    lc_free(grad);
    lc_free(tokens);
    lc_optim_free(optim);
    lc_net_free(net);
    lc_params_free(params);
    lc_pool_free(pool);
    json_object_put(json);
    golden_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_curve)};
    return test_main(tests);
}
