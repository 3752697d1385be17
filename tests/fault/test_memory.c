/*
 * test_memory.c: memory that runs out. Each call is repeated with the first allocation failing,
 * then the second, and so on until it succeeds: it must say LC_ENOMEM, leave what it was given
 * usable, and leave nothing behind (lc_mem_current; the sanitizers look for the rest).
 */
#include "golden/golden.h"

#define CASES "tests/golden/model/"

enum { LENGTH = 100, SHORT = 5, DRAFTS = 3, MOST_TRIES = 100000 };

/* Runs call(ctx) with ever later faults; returns how many were met. */
typedef int fault_call(void *ctx, lc_err *err);

static long with_faults(fault_call *call, void *ctx, const char *what) {
    for (long n = 0; n < MOST_TRIES; n++) {
        lc_err err = {0};
        lc_mem_fail_after(n);
        int status = call(ctx, &err);
        lc_mem_fail_after(-1);
        if (status == LC_OK) return n;
        if (status != LC_ENOMEM || !err.text[0])
            fail_msg("%s: allocation %ld failed, status %d (%s)", what, n, status, err.text);
    }
    fail_msg("%s: never succeeded", what);
    return 0;
}

/* ---- opening ---- */

typedef struct opening {
    const char *dir;
    lc_engine_options options;
} opening;

static int open_and_close(void *ctx, lc_err *err) {
    const opening *o = ctx;
    lc_engine *engine = NULL;
    size_t before = lc_mem_current();
    int status = lc_engine_open(o->dir, &o->options, &engine, err);
    if (status != LC_OK) {
        assert_null(engine);
        assert_int_equal(lc_mem_current(), before);
    }
    lc_engine_close(engine);
    assert_int_equal(lc_mem_current(), before);
    return status;
}

static void opening_a_model(void **unused) {
    (void)unused;
    static const char *const settings[] = {"mtp_ngram=true", "mla_eps=1e-3"};
    static opening openings[] = {
        {CASES "flash-tiny", {.threads = 1, .chunk = 8}},
        {CASES "lite-tiny", {.threads = 2, .chunk = 8, .drafts = true}},
        {CASES "two-tiny",
         {.threads = 1, .chunk = 8, .drafts = true, .settings = settings, .n_settings = 2}},
        {CASES "two-tiny-bf16", {.threads = 1, .chunk = 8}}, /* shards */
        {CASES "two-fp8", {.threads = 1, .chunk = 8, .drafts = true}},
        {CASES "int8", {.threads = 1, .chunk = 8}},
        {"tests/golden/tiny-code",
         {.threads = 1, .chunk = 8, .drafts = true}}, /* with a tokenizer */
    };
    for (size_t i = 0; i < sizeof openings / sizeof *openings; i++)
        printf("# %s: %ld allocations failed in turn\n", openings[i].dir,
               with_faults(open_and_close, &openings[i], openings[i].dir));
}

/* ---- sessions ---- */

typedef struct scene {
    lc_engine *engine;
    lc_session *session;
    int32_t tokens[LENGTH];
    size_t vocab;
    float *want;   /* [LENGTH][V] */
    float *drafts; /* [DRAFTS][V] after SHORT tokens; NULL without a draft module */
} scene;

/* Logits of a draft chain. */
static void draft_logits(lc_session *session, float *logits) {
    lc_err err = {0};
    int32_t out[DRAFTS];
    lc_draft_trace trace = {.logits = logits};
    assert_ok(lc_session_draft_traced(session, 3, DRAFTS, out, &trace, &err), err);
}

static void scene_open(scene *s, const char *dir, bool drafts) {
    golden g;
    lc_err err = {0};
    golden_open(&g, dir);
    const lc_tensor *ids = golden_get(&g, "input_ids"); /* both sequences, one behind the other */
    for (size_t i = 0; i < LENGTH; i++) s->tokens[i] = (int32_t)golden_number(ids, i % ids->count);
    golden_close(&g);
    s->engine =
        golden_engine(dir, (golden_engine_options){.chunk = 16, .threads = 1, .drafts = drafts});
    s->session = NULL;
    s->vocab = lc_engine_vocab(s->engine);
    lc_eval_input input = {
        .tokens = s->tokens, .batch = 1, .length = LENGTH, .chunk = 16, .together = 1};
    lc_eval_result result;
    assert_ok(lc_eval_logits(s->engine, &input, false, false, &result, &err), err);
    s->want = lc_alloc(LENGTH * s->vocab * sizeof *s->want);
    assert_non_null(s->want);
    memcpy(s->want, golden_entry(&result, "logits")->data, LENGTH * s->vocab * sizeof *s->want);
    lc_eval_free(&result);
    s->drafts = drafts ? lc_alloc(DRAFTS * s->vocab * sizeof *s->drafts) : NULL;
    if (!drafts) return;
    lc_session *fresh;
    assert_non_null(s->drafts);
    assert_ok(lc_session_open(s->engine, &fresh, &err), err);
    assert_ok(lc_session_sync(fresh, s->tokens, SHORT, &err), err);
    draft_logits(fresh, s->drafts);
    lc_session_close(fresh);
}

static void scene_close(scene *s) {
    lc_session_close(s->session);
    lc_engine_close(s->engine);
    lc_free(s->want);
    lc_free(s->drafts);
}

static void right_logits(const scene *s, const lc_session *session, size_t count) {
    assert_non_null(lc_session_logits(session));
    assert_memory_equal(lc_session_logits(session), s->want + (count - 1) * s->vocab,
                        s->vocab * sizeof *s->want);
}

static int open_session(void *ctx, lc_err *err) {
    scene *s = ctx;
    size_t before = lc_mem_current();
    int status = lc_session_open(s->engine, &s->session, err);
    if (status != LC_OK) {
        assert_null(s->session);
        assert_int_equal(lc_mem_current(), before);
    }
    return status;
}

/* After a failed sync the session gives the right answer to another list, then to the same. */
static int sync_session(void *ctx, lc_err *err) {
    scene *s = ctx;
    int status = lc_session_sync(s->session, s->tokens, LENGTH, err);
    if (status == LC_OK) {
        right_logits(s, s->session, LENGTH);
        return status;
    }
    lc_err other = {0};
    size_t count;
    assert_null(lc_session_logits(s->session));
    lc_session_tokens(s->session, &count);
    assert_true(count < LENGTH);
    lc_mem_fail_after(-1);
    assert_ok(lc_session_sync(s->session, s->tokens, SHORT, &other), other);
    right_logits(s, s->session, SHORT);
    if (s->drafts) {
        float *logits = lc_alloc(DRAFTS * s->vocab * sizeof *logits);
        assert_non_null(logits);
        draft_logits(s->session, logits);
        assert_memory_equal(logits, s->drafts, DRAFTS * s->vocab * sizeof *logits);
        lc_free(logits);
    }
    return status;
}

/* The whole life of a session. */
static int live(void *ctx, lc_err *err) {
    scene *s = ctx;
    lc_session *session = NULL;
    size_t before = lc_mem_current(), grown = s->engine->cap_logits;
    int32_t out[DRAFTS];
    int status = lc_session_open(s->engine, &session, err);
    if (status == LC_OK) status = lc_session_sync(session, s->tokens, 70, err);
    if (status == LC_OK && s->engine->drafts)
        status = lc_session_draft(session, 3, DRAFTS, out, err);
    if (status == LC_OK) status = lc_session_sync(session, s->tokens, 90, err);
    if (status == LC_OK) right_logits(s, session, 90);
    lc_session_close(session);
    assert_true(s->engine->cap_logits == grown); /* the scene's evaluation has made it large */
    assert_int_equal(lc_mem_current(), before);
    return status;
}

/* Two sessions in one call: both usable after a fault. */
static int sync_two(void *ctx, lc_err *err) {
    scene *s = ctx;
    lc_session *two[2] = {0};
    lc_err other = {0};
    size_t before = lc_mem_current();
    int status = lc_session_open(s->engine, &two[0], err);
    if (status == LC_OK) status = lc_session_open(s->engine, &two[1], err);
    lc_prompt prompts[] = {{two[0], s->tokens, 30}, {two[1], s->tokens, 66}};
    bool opened = status == LC_OK;
    if (opened) status = lc_sync_batch(s->engine, prompts, 2, err);
    if (opened && status != LC_OK) {
        lc_mem_fail_after(-1);
        assert_ok(lc_sync_batch(s->engine, prompts, 2, &other), other);
    }
    for (size_t i = 0; opened && i < 2; i++) right_logits(s, two[i], prompts[i].count);
    lc_session_close(two[0]);
    lc_session_close(two[1]);
    assert_int_equal(lc_mem_current(), before);
    return status;
}

/* A fault in a chain leaves the session as it was. */
static int draft(void *ctx, lc_err *err) {
    scene *s = ctx;
    int32_t out[DRAFTS], again[DRAFTS];
    lc_err other = {0};
    int status = lc_session_draft(s->session, 3, DRAFTS, out, err);
    lc_mem_fail_after(-1);
    assert_ok(lc_session_draft(s->session, 3, DRAFTS, again, &other), other);
    if (status == LC_OK) assert_memory_equal(out, again, sizeof out);
    return status;
}

static void sessions(void **unused) {
    (void)unused;
    static const char *const names[] = {"flash-yarn", "lite-tiny", "two-tiny"};
    for (size_t i = 0; i < 6; i++) {
        scene s;
        char dir[64];
        size_t before = lc_mem_current();
        bool drafts = i >= 3;
        snprintf(dir, sizeof dir, CASES "%s", names[i % 3]);
        scene_open(&s, dir, drafts);
        long n = with_faults(open_session, &s, "lc_session_open");
        n += with_faults(sync_session, &s, "lc_session_sync");
        n += with_faults(live, &s, "a session's life");
        n += with_faults(sync_two, &s, "lc_sync_batch");
        if (drafts) n += with_faults(draft, &s, "lc_session_draft");
        scene_close(&s);
        assert_int_equal(lc_mem_current(), before);
        printf("# %s%s: %ld allocations failed in turn\n", names[i % 3],
               drafts ? " with drafts" : "", n);
    }
}

/* ---- generation and evaluation ---- */

static int32_t generated[24];

static int generate(void *ctx, lc_err *err) {
    scene *s = ctx;
    static const char *const stops[] = {"}\x01", "never"};
    lc_session *session = NULL;
    lc_finish finish;
    int32_t out[24];
    size_t count = 99, before = lc_mem_current();
    lc_generation how = {.max_tokens = 24, .ignore_eos = true, .stop = stops, .n_stop = 2};
    int status = lc_session_open(s->engine, &session, err);
    if (status == LC_OK) {
        status = lc_generate(session, s->tokens, 50, &how, out, &count, &finish, err);
        assert_true(count <= 24 && (status != LC_OK || count == 24));
        if (generated[0] >= 0) assert_memory_equal(out, generated, count * sizeof *out);
        if (status == LC_OK) memcpy(generated, out, sizeof out);
    }
    lc_session_close(session);
    assert_int_equal(lc_mem_current(), before);
    return status;
}

static void generation(void **unused) {
    (void)unused;
    scene s = {0};
    golden g;
    lc_err err = {0};
    golden_open(&g, "tests/golden/tiny-code");
    for (size_t i = 0; i < LENGTH; i++)
        s.tokens[i] = (int32_t)golden_number(golden_get(&g, "1.ids"), i);
    golden_close(&g);
    s.engine = golden_engine("tests/golden/tiny-code", (golden_engine_options){.chunk = 64});
    assert_ok(lc_engine_logits(s.engine, 1, &err), err);
    generated[0] = -1;
    assert_int_equal(generate(&s, &err), LC_OK); /* what it should be */
    printf("# lc_generate: %ld allocations failed in turn\n",
           with_faults(generate, &s, "lc_generate"));
    scene_close(&s);
}

static int evaluate(void *ctx, lc_err *err) {
    scene *s = ctx;
    size_t before = lc_mem_current();
    int32_t document[LENGTH] = {0};
    for (size_t i = 30; i < LENGTH; i++) document[i] = 1;
    lc_eval_input input = {.tokens = s->tokens,
                           .document = document,
                           .batch = 2,
                           .length = LENGTH / 2,
                           .chunk = 8,
                           .together = 2};
    lc_eval_result result;
    int status = lc_eval_logits(s->engine, &input, true, true, &result, err);
    lc_eval_free(&result);
    assert_int_equal(lc_mem_current(), before);
    return status;
}

static int measure(void *ctx, lc_err *err) {
    scene *s = ctx;
    size_t before = lc_mem_current();
    lc_eval_nll n;
    int status = lc_eval_nll_windows(s->engine, s->tokens, LENGTH, 70, NULL, NULL, &n, err);
    assert_int_equal(lc_mem_current(), before);
    return status;
}

static void evaluation(void **unused) {
    (void)unused;
    scene s;
    scene_open(&s, CASES "two-tiny", true);
    long n = with_faults(evaluate, &s, "lc_eval_logits");
    n += with_faults(measure, &s, "lc_eval_nll_windows");
    printf("# evaluation: %ld allocations failed in turn\n", n);
    scene_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_a_model),
        cmocka_unit_test(sessions),
        cmocka_unit_test(generation),
        cmocka_unit_test(evaluation),
    };
    return test_main(tests);
}
