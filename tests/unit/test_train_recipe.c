/* test_train_recipe.c: recipes that are refused, with line and reason; what defaults and lists
 * mean; the hash; schedules against their formulas. */
#include "test.h"

#include "train/recipe.h"

#include <math.h>

static lc_err err;

#define HEAD "[model]\nconfig = c.json\n[source a]\nfolder = a\n"
#define STAGE "[stage s]\ncontext = 8\ntokens = 64\nbatch = 4\nrate = 1e-3\n"

static lc_recipe *parse(const char *text) {
    lc_recipe *r;
    assert_ok(lc_recipe_parse(text, strlen(text), "dir/x.recipe", &r, &err), err);
    return r;
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"x = 1\n", "dir/x.recipe:1: \"x\" stands before"},
        {"[model]\nconfg = x\n", ":2: [model] has no key \"confg\"; it has config, from"},
        {"[modell]\n", ":1: no section [modell]"},
        {"[model]\nconfig = a\nconfig = b\n", ":3: config is given twice; before in line 2"},
        {"[model]\n[train]\n[model]\n", ":3: [model] is given twice; before in line 1"},
        {"[train]\nlanes = x\n", ":2: lanes: \"x\" is not a number"},
        {"[train]\nlanes = 1.5\n", ":2: lanes: 1.5 is not a whole number"},
        {"[train]\nlanes = 0\n", ":2: lanes: 0 is not between 1 and"},
        {"[train]\nlanes = nan\n", ":2: lanes: \"nan\" is not a number"},
        {"[train]\nlanes = 0x10\n", ":2: lanes: \"0x10\" is not a number"},
        {"[train]\nlanes = 4Q\n", ":2: lanes: \"4Q\" is not a number"},
        {"[train]\nlanes =\n", ":2: lanes: no value"},
        {"[train]\nlanes\n", ":2: \"lanes\" is neither"},
        {"[train\n", ":1: \"[train\": ']' is missing"},
        {"[train]\noptimizer = sgd\n", ":2: optimizer: \"sgd\" is none of: adamw muon"},
        {"[train x]\n", ":1: [train] takes no name"},
        {"[stage]\n", ":1: [stage NAME]: a name has"},
        {"[stage a/b]\n", ":1: [stage NAME]: a name has"},
        {"[stage a]\n[stage a]\n", ":2: stage \"a\" is given twice"},
        {"[source a]\n[source a]\n", ":2: source \"a\" is given twice"},
        {"[train]\n", "dir/x.recipe: [model] has neither config nor from"},
        {"[model]\nconfig = c\ngrow = 2\n", "grow needs from"},
        {"[model]\nconfig = c\nfrom = d\ngrow = 2\n", "grow makes the config"},
        {HEAD, "no [stage NAME]"},
        {"[model]\nconfig = c\n" STAGE, "no [source NAME]"},
        {"[model]\nconfig = c\n[source a]\nweight = 2\n" STAGE, ":3: source a: folder is not"},
        {HEAD "[train]\nlanes = 3\n" STAGE, ":5: [train] lanes = 3 is not a power of two"},
        {HEAD "[train]\nlanes = 8\n" STAGE, ":7: stage s: batch 4 is no multiple of the 8 lanes"},
        {HEAD "[train]\npublish = average\n" STAGE, "needs average above 0"},
        {HEAD "[stage s]\ncontext = 8\n", ":5: stage s: tokens is not given"},
        {HEAD STAGE "micro = 5\n", "stage s: micro 5 is above a lane's share of 4"},
        {HEAD STAGE "warmup = 0.9\n", "warmup and decay are more than the whole stage"},
        {HEAD STAGE "kl = 1\nindex = dense\n", "kl needs index = warmup or sparse"},
        {HEAD STAGE "index = warmup\n", "index = warmup needs kl above 0"},
        {HEAD STAGE "lm = 0\n", "nothing is learned"},
        {HEAD STAGE "freeze = router, moe\n", ":5: stage s: freeze: no group \"moe\""},
        {HEAD STAGE "learn = draft\n", "learn: no group \"draft\""},
        {HEAD STAGE "mix = b 1\n", "mix: no source \"b\""},
        {HEAD STAGE "mix = a\n", "mix: a weight above 0 must follow \"a\""},
        {HEAD STAGE "mix = a -1\n", "mix: a weight above 0 must follow \"a\""},
        {HEAD STAGE "rate = 0\n", "rate is given twice"},
    };
    enum { CASES = sizeof cases / sizeof *cases };
    for (int i = 0; i < CASES; i++) {
        lc_recipe *r;
        err = (lc_err){0};
        int status =
            lc_recipe_parse(cases[i].text, strlen(cases[i].text), "dir/x.recipe", &r, &err);
        assert_int_equal(status, LC_EFORMAT);
        assert_null(r);
        if (strncmp(err.text, "dir/x.recipe", 12) || !strstr(err.text, cases[i].want))
            fail_msg("%s: got \"%s\", expected \"%s\"", cases[i].text, err.text, cases[i].want);
    }
    printf("# %d recipes refused with place and reason\n", CASES);
}

static void test_values(void **state) {
    (void)state;
    lc_recipe *r = parse(HEAD "[source b] # conversations\nfolder = /abs/b\nweight=2\n"
                              "whole = yes\n[train]\nlanes = 2\nmemory = 1.5G\n" STAGE
                              "learn = indexer\nkl = 1\n[stage t]\ncontext = 8\ntokens = 65\n"
                              "batch = 4\nrate = 1\nfreeze = draft, head\nmix = b 3\n");
    assert_string_equal(r->config, "dir/c.json");
    assert_string_equal(r->sources[1].folder, "/abs/b");
    assert_true(r->sources[1].whole && r->sources[1].weight == 2);
    assert_int_equal(r->memory, 1500000000);
    const lc_recipe_stage *s = &r->stages[0], *t = &r->stages[1];
    assert_int_equal(s->steps, 2);
    assert_int_equal(t->steps, 3); /* rounded up */
    assert_int_equal(s->micro, 0); /* what fits */
    assert_true(s->learns[LC_GROUP_INDEXER] && s->learns[LC_GROUP_INDEX_WEIGHTS]);
    assert_true(!s->learns[LC_GROUP_MATRIX] && !s->learns[LC_GROUP_NORM] && s->learns_draft);
    assert_true(t->learns[LC_GROUP_MATRIX] && !t->learns[LC_GROUP_HEAD] && !t->learns_draft);
    assert_true(s->weights[0] == 1 && s->weights[1] == 2);
    assert_true(t->weights[0] == 0 && t->weights[1] == 3);
    assert_int_equal(lc_recipe_steps(r), 5);
    lc_recipe_free(r);
}

static void hash_of(const char *text, size_t stages, char hex[65]) {
    lc_recipe *r = parse(text);
    assert_ok(lc_recipe_hash(r, stages, hex, &err), err);
    lc_recipe_free(r);
}

static void test_hash(void **state) {
    (void)state;
    char a[65], b[65];
    hash_of(HEAD STAGE, 1, a);
    hash_of(HEAD "[train]\nmemory = 1G\nkeep = 9\nrun = elsewhere\n" STAGE, 1, b);
    assert_string_equal(a, b);
    hash_of(HEAD STAGE "micro = 2\n", 1, b);
    assert_string_equal(a, b);
    hash_of(HEAD STAGE "[stage later]\ncontext = 8\ntokens = 64\nbatch = 4\nrate = 1\n", 1, b);
    assert_string_equal(a, b);
    hash_of(HEAD STAGE "[stage later]\ncontext = 8\ntokens = 64\nbatch = 4\nrate = 1\n", 2, b);
    assert_string_not_equal(a, b);
    hash_of(HEAD "[train]\nclip = 2\n" STAGE, 1, b);
    assert_string_not_equal(a, b);
    hash_of(HEAD STAGE "lm = 0.5\n", 1, b);
    assert_string_not_equal(a, b);
}

static void test_width(void **state) {
    (void)state;
    lc_recipe *r = parse("[model]\nconfig = c\nbase_width = 64\n[source a]\nfolder = a\n[train]\n"
                         "rate.head = 3\n" STAGE);
    lc_config *c = calloc(1, sizeof *c);
    c->hidden = 256;
    lc_optim_options o = lc_recipe_optim(r, c);
    assert_true(o.rates[LC_GROUP_MATRIX] == 0.25 && o.rates[LC_GROUP_HEAD] == 0.75);
    assert_true(o.rates[LC_GROUP_EMBEDDING] == 1 && o.rates[LC_GROUP_NORM] == 1);
    free(c);
    lc_recipe_free(r);
}

static void test_what_the_model_refuses(void **state) {
    (void)state;
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {HEAD "[train]\ntarget_topk = 7\n" STAGE, "target_topk = 7: the model chooses 6"},
        {HEAD "[train]\ntarget_topk = 4\nbalance_groups = 5\n" STAGE,
         "balance_groups = 5 doesn't divide 12 experts"},
        {HEAD "[train]\ntarget_topk = 4\nbalance_groups = 3\n" STAGE "kl = 1\n",
         "the model has no indexer"},
        {HEAD "[train]\ntarget_topk = 4\nbalance_groups = 3\n" STAGE "mtp = 1\n",
         "the model has no draft module"},
        {HEAD "[train]\ntarget_topk = 4\nbalance_groups = 3\n" STAGE, NULL},
    };
    lc_config *c = calloc(1, sizeof *c);
    c->experts = 12, c->zero_experts = 4, c->topk = 6, c->max_positions = 64;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lc_recipe *r = parse(cases[i].text);
        int status = lc_recipe_check(r, c, false, &err);
        assert_int_equal(status == LC_OK, !cases[i].reason);
        if (cases[i].reason) assert_non_null(strstr(err.text, cases[i].reason));
        lc_recipe_free(r);
    }
    free(c);
}

static void test_schedules(void **state) {
    (void)state;
    lc_schedule s = {LC_SCHEDULE_WSD, 2, 0.1, 0.4, 0.1};
    enum { N = 100 };
    assert_true(fabs(lc_schedule_rate(&s, 0, N) - 0.2) < 1e-12); /* 1 of 10 steps up */
    assert_true(fabs(lc_schedule_rate(&s, 4, N) - 1) < 1e-12);
    assert_true(lc_schedule_rate(&s, 9, N) == 2 && lc_schedule_rate(&s, 60, N) == 2);
    assert_true(fabs(lc_schedule_rate(&s, 80, N) - 2 * (0.1 + 0.9 * 0.5)) < 1e-12);
    assert_true(fabs(lc_schedule_rate(&s, 99, N) - 2 * (0.1 + 0.9 / 40)) < 1e-12);
    s.kind = LC_SCHEDULE_COSINE;
    for (int i = 10; i < N; i++) {
        double want = 2 * (0.1 + 0.9 * 0.5 * (1 + cos(M_PI * (i - 10) / 90)));
        assert_true(fabs(lc_schedule_rate(&s, i, N) - want) < 1e-12);
    }
    s.kind = LC_SCHEDULE_CONSTANT;
    assert_true(lc_schedule_rate(&s, 99, N) == 2);
    s.warmup = 1;
    assert_true(lc_schedule_rate(&s, 99, N) == 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_width),
        cmocka_unit_test(test_what_the_model_refuses),
        cmocka_unit_test(test_schedules),
    };
    return test_main(tests);
}
