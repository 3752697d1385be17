/*
 * test_train_learn.c: training does what it is for: a model of two layers learns to copy, to the
 * last token of sequences that it hasn't seen, with either optimiser and both compute types; and
 * the load controller holds the mean number of routed experts at its target.
 */
#include "golden.h"

#include "base/rng.h"
#include "train/bias.h"
#include "train/net.h"
#include "train/optim.h"
#include "train/schedule.h"

enum {
    VOCAB = 40,
    HALF = 8,
    LENGTH = 2 * HALF + 1,
    ROWS = 48,
    TESTS = 64,
    LAYERS = 2,
    ENTRIES = 9
};

static const char config_text[] =
    "{\"architectures\": [\"LongcatFlashForCausalLM\"], \"vocab_size\": 40, \"hidden_size\": 64, "
    "\"num_layers\": 2, \"num_attention_heads\": 4, \"q_lora_rank\": 32, \"kv_lora_rank\": 32, "
    "\"qk_nope_head_dim\": 16, \"qk_rope_head_dim\": 16, \"v_head_dim\": 16, "
    "\"ffn_hidden_size\": 64, \"expert_ffn_hidden_size\": 32, \"n_routed_experts\": 6, "
    "\"zero_expert_num\": 3, \"zero_expert_type\": \"identity\", \"moe_topk\": 3, "
    "\"routed_scaling_factor\": 2.0, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
    "\"max_position_embeddings\": 64, \"bos_token_id\": 1, \"eos_token_id\": 2, "
    "\"attention_method\": \"MLA\", \"mla_scale_q_lora\": true, \"mla_scale_kv_lora\": true}";

/* Random tokens, a mark, the same tokens again; only the second half is learned. */
static void make_rows(uint64_t stream, size_t rows, int32_t *tokens, uint8_t *mask) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < LENGTH; j++) {
            size_t from = j <= HALF ? j : j - HALF - 1;
            uint32_t random = lc_rng(5, stream, i * LENGTH + from).word[0];
            tokens[i * LENGTH + j] = j == HALF ? 3 : 4 + (int32_t)(random % (VOCAB - 4));
            mask[i * LENGTH + j] = j > HALF;
        }
}

typedef struct school {
    lc_params *params;
    lc_net *net;
    lc_optim *optim;
    lc_pool *pool;
    lc_loss_weights weights;
    lc_bias_rule rule;
    float *grad;
    bool *learns;
    int32_t tokens[TESTS * LENGTH];
    uint8_t mask[TESTS * LENGTH];
    double routed; /* mean of the last steps */
} school;

static void open_school(school *s, lc_optim_kind kind, bool bf16) {
    lc_err err = {0};
    lc_config config;
    lc_params_init init = {.seed = 3, .std = 0.08, .embedding = 0.5};
    const lc_kernels *k = lc_kernels_best(LC_ISA_COUNT - 1, NULL);
    *s = (school){.weights = {.lm = 1, .balance = 1e-3f, .balance_form.target_topk = 2},
                  .rule = {.rate = 0.1, .half_after = 60, .floor = 0.003, .target_topk = 2}};
    assert_ok(lc_config_parse(config_text, sizeof config_text - 1, "config", &config, &err), err);
    assert_ok(lc_params_new(&config, &init, &s->params, &err), err);
    assert_ok(lc_pool_new(2, &s->pool, &err), err);
    lc_net_options no = {
        .kernels = k, .pool = s->pool, .bf16 = bf16, .tokens = ROWS * LENGTH, .length = LENGTH};
    assert_ok(lc_net_new(s->params, &no, &s->net, &err), err);
    lc_optim_options oo = lc_optim_defaults();
    oo.kind = kind;
    oo.decay = 0.01;
    oo.kernels = k;
    oo.pool = s->pool;
    oo.bf16 = bf16;
    assert_ok(lc_optim_new(s->params, &oo, &s->optim, &err), err);
    s->grad = lc_params_block(s->params);
    s->learns = lc_calloc(s->params->count, sizeof *s->learns);
    for (size_t i = 0; i < s->params->count; i++) s->learns[i] = s->params->list[i].gradient;
}

static void close_school(school *s) {
    lc_free(s->grad);
    lc_free(s->learns);
    lc_optim_free(s->optim);
    lc_net_free(s->net);
    lc_pool_free(s->pool);
    lc_params_free(s->params);
}

static double teach(school *s, int64_t step, int64_t steps, double rate) {
    lc_err err = {0};
    int64_t experts[LAYERS * ENTRIES] = {0};
    lc_losses losses = {.experts = experts};
    lc_counts totals = {0};
    double norm;
    lc_schedule schedule = {LC_SCHEDULE_WSD, rate, 0.05, 0.5, 0};
    make_rows((uint64_t)step + 100, ROWS, s->tokens, s->mask);
    lc_batch batch = {.rows = ROWS, .length = LENGTH, .tokens = s->tokens, .mask = s->mask};
    lc_net_count(s->net, &batch, &totals);
    memset(s->grad, 0, s->params->floats * sizeof(float));
    assert_ok(lc_net_run(s->net, &batch, &s->weights, &totals, s->grad, &losses, &err), err);
    lc_update update = {lc_schedule_rate(&schedule, step, steps), s->learns, s->grad};
    assert_ok(lc_optim_step(s->optim, &update, &norm, &err), err);
    lc_bias_update(s->params, &s->rule, step, experts);
    lc_net_refresh(s->net);
    if (step >= steps - 50)
        s->routed += lc_load_of(&s->params->config, experts, totals.tokens).routed / 50;
    return losses.lm / (double)losses.counts.lm;
}

/* A sequence is right for certain if -log p over its second half is below log 2: then every token
 * has more than half of the mass. */
static unsigned count_right(school *s) {
    unsigned right = 0;
    lc_err err = {0};
    make_rows(1, TESTS, s->tokens, s->mask);
    for (size_t i = 0; i < TESTS; i++) {
        lc_losses losses = {0};
        lc_counts totals = {0};
        lc_batch one = {.rows = 1,
                        .length = LENGTH,
                        .tokens = s->tokens + i * LENGTH,
                        .mask = s->mask + i * LENGTH};
        lc_net_count(s->net, &one, &totals);
        assert_ok(lc_net_run(s->net, &one, &s->weights, &totals, NULL, &losses, &err), err);
        right += losses.lm < log(2);
    }
    return right;
}

static void learn(lc_optim_kind kind, bool bf16, int64_t steps, double rate) {
    school *s = lc_calloc(1, sizeof *s);
    double first = 0, last = 0;
    open_school(s, kind, bf16);
    for (int64_t i = 0; i < steps; i++) {
        last = teach(s, i, steps, rate);
        if (!i) first = last;
    }
    unsigned right = count_right(s);
    printf("# %s, %s: loss %.2f, after %lld steps %.4f; %u of %d unseen sequences copied; %.3f "
           "routed experts a token, target 2\n",
           kind ? "muon" : "adamw", bf16 ? "bf16" : "f32", first, (long long)steps, last, right,
           TESTS, s->routed);
    assert_int_equal(right, TESTS);
    assert_true(fabs(s->routed - 2) < 0.02); /* 1 % */
    close_school(s);
    lc_free(s);
}

static void test_adamw(void **state) {
    (void)state;
    learn(LC_OPTIM_ADAMW, false, 300, 4e-3);
}
static void test_muon(void **state) {
    (void)state;
    learn(LC_OPTIM_MUON, true, 200, 6e-3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_adamw), cmocka_unit_test(test_muon)};
    return test_main(tests);
}
