/*
 * test_permutations.c (uses-threads): equal bits for every way to run the same tokens. Threads,
 * chunks, batches, instruction sets, cached prefixes and drafts must never change a bit of a
 * result; each of them is varied here and compared with one plain run by memcmp. What is compared
 * are all activations, choices and logits, so the first entry that differs names the operator.
 *
 * Hashes of the bundled model's logits, made by the scalar kernels, are kept in
 * tests/golden/tiny-code/hashes.json: so a machine with other instruction sets checks this one.
 */
#include "golden.h"

#include "base/hash.h"
#include "base/rng.h"

#define TINY "tests/golden/tiny-code"

enum {
    MAX_LENGTH = 256,
    DRAFTS = 3,
    TINY_LENGTH = GOLDEN_SANITIZED ? 24 : 140, /* of its indexer's 128 chosen keys and more */
    KEPT_LENGTH = 192,
};

typedef struct subject {
    const char *name, *dir;
    bool small; /* small enough for all combinations and for activations */
    bool drafts;
    size_t batch, length;
    int32_t *tokens; /* [batch][length] */
} subject;

static subject subjects[] = {
    {.name = "tiny", .dir = TINY, .drafts = true},
    {.name = "two-tiny", .dir = "tests/golden/model/two-tiny", .small = true, .drafts = true},
    {.name = "lite-tiny", .dir = "tests/golden/model/lite-tiny", .small = true, .drafts = true},
    {.name = "flash-yarn", .dir = "tests/golden/model/flash-yarn", .small = true, .drafts = true},
    {.name = "two-fp8", .dir = "tests/golden/model/two-fp8", .small = true, .drafts = true},
    {.name = "int8", .dir = "tests/golden/model/int8", .small = true, .drafts = true},
};
enum { N_SUBJECTS = sizeof subjects / sizeof *subjects };

/* A test: a subject in a compute type. */
typedef struct trial {
    const subject *s;
    const char *compute;
} trial;

/* ---- whole sequences ---- */

typedef struct manner {
    const char *isa;
    int threads;
    size_t chunk, together; /* chunk 0: the whole sequence */
} manner;

static lc_engine *open_engine(const trial *t, manner m, size_t rows, bool drafts) {
    return golden_engine(t->s->dir, (golden_engine_options){.compute = t->compute,
                                                            .isa = m.isa,
                                                            .threads = m.threads,
                                                            .chunk = rows,
                                                            .drafts = drafts});
}

static void run(const trial *t, manner m, lc_eval_result *result) {
    lc_err err = {0};
    size_t chunk = m.chunk ? m.chunk : t->s->length;
    lc_engine *engine = open_engine(t, m, chunk * m.together, t->s->drafts);
    lc_eval_input input = {.tokens = t->s->tokens,
                           .batch = t->s->batch,
                           .length = t->s->length,
                           .chunk = chunk,
                           .together = m.together};
    assert_ok(lc_eval_logits(engine, &input, t->s->small, t->s->drafts, result, &err), err);
    lc_engine_close(engine);
}

static void compare(const trial *t, manner m, const lc_eval_result *want,
                    const lc_eval_result *got) {
    assert_int_equal(want->count, got->count);
    for (size_t i = 0; i < want->count; i++) {
        const lc_eval_entry *a = &want->entries[i], *b = golden_entry(got, a->name);
        assert_true(b && b->rows == a->rows && b->cols == a->cols);
        size_t count = t->s->batch * a->rows * a->cols, at = 0;
        if (!memcmp(a->data, b->data, count * 4)) continue; /* F32 and I32 */
        while (!memcmp((char *)a->data + at * 4, (char *)b->data + at * 4, 4)) at++;
        fail_msg("%s %s: %s differs at row %zu column %zu with isa %s, %d threads, chunk %zu, %zu "
                 "together",
                 t->s->name, t->compute, a->name, at / a->cols, at % a->cols,
                 m.isa ? m.isa : "best", m.threads, m.chunk, m.together);
    }
}

/* Names of the instruction sets that this machine has; returns their number. */
static size_t isa_names(const char *names[LC_ISA_COUNT]) {
    size_t n = 0;
    for (int isa = 0; isa < LC_ISA_COUNT; isa++)
        if (lc_kernels_of((lc_isa)isa)) names[n++] = lc_isa_name((lc_isa)isa);
    return n;
}

static void run_and_compare(const trial *t, manner m, const lc_eval_result *want, size_t *runs) {
    lc_eval_result got;
    run(t, m, &got);
    compare(t, m, want, &got);
    lc_eval_free(&got);
    ++*runs;
}

/* Every chunk size alone and in a batch with the best kernels; every instruction set with every
 * number of threads, chunk sizes taken in turn. */
static void test_manners(void **state) {
    const trial *t = *state;
    static const size_t chunks[] = {0, 7, 64, 1};
    const char *isas[LC_ISA_COUNT];
    size_t n_isas = isa_names(isas), runs = 0;
    lc_eval_result want;
    run(t, (manner){isas[GOLDEN_THREADS_ONLY ? n_isas - 1 : 0], 1, 0, 1}, &want);
    for (size_t c = 0; c < 4; c++)
        for (size_t together = 1; together <= t->s->batch; together++)
            run_and_compare(t, (manner){NULL, 1 + (int)c % 3, chunks[c], together}, &want, &runs);
    /* of the larger model, the first run and the kept hashes are the other instruction sets */
    for (size_t i = t->s->small && !GOLDEN_THREADS_ONLY ? 0 : n_isas - 1; i < n_isas; i++)
        for (int threads = GOLDEN_SANITIZED ? 3 : 1; threads <= 3; threads++) {
            size_t turn = i + (size_t)threads;
            run_and_compare(t, (manner){isas[i], threads, chunks[turn % 3], turn % t->s->batch + 1},
                            &want, &runs);
        }
    printf("# %s %s: %zu entries equal in %zu ways to run\n", t->s->name, t->compute, want.count,
           runs + 1);
    lc_eval_free(&want);
}

/* ---- sessions ---- */

/* Logits after every prefix of sequence b, from one plain run. */
static void plain_logits(const trial *t, lc_eval_result *result) {
    trial plain = *t;
    subject s = *t->s;
    s.small = false; /* logits only */
    plain.s = &s;
    run(&plain, (manner){NULL, 2, 0, 1}, result);
}

static void same_logits(const trial *t, const lc_eval_result *plain, size_t b, size_t count,
                        const lc_session *session, const char *how) {
    const lc_eval_entry *e = golden_entry(plain, "logits");
    const float *want = (const float *)e->data + (b * e->rows + count - 1) * e->cols;
    if (!lc_session_logits(session) ||
        memcmp(want, lc_session_logits(session), e->cols * sizeof *want))
        fail_msg("%s %s: logits after %zu tokens differ: %s", t->s->name, t->compute, count, how);
}

/* The draft after the list and its true next token is the teacher-forced row of the plain run. */
static void same_draft(const trial *t, const lc_eval_result *plain, size_t b, size_t count,
                       lc_session *session) {
    const lc_eval_entry *e = golden_entry(plain, "mtp.1.logits");
    lc_err err = {0};
    int32_t out, next = t->s->tokens[b * t->s->length + count];
    float *got = lc_alloc(e->cols * sizeof *got);
    lc_draft_trace trace = {.logits = got};
    assert_non_null(got);
    assert_ok(lc_session_draft_traced(session, next, 1, &out, &trace, &err), err);
    if (memcmp((const float *)e->data + (b * e->rows + count - 1) * e->cols, got,
               e->cols * sizeof *got))
        fail_msg("%s %s: draft after %zu tokens differs", t->s->name, t->compute, count);
    lc_free(got);
}

static lc_session *open_session(lc_engine *engine) {
    lc_err err = {0};
    lc_session *session;
    assert_ok(lc_session_open(engine, &session, &err), err);
    return session;
}

/* Sessions of different lengths in common steps, joined by others on their way. */
static void test_batch(void **state) {
    const trial *t = *state;
    static const size_t chunks[] = {5, 16, 64};
    enum { SESSIONS = 5 };
    size_t length = t->s->length, vocab = 0;
    lc_eval_result plain;
    lc_err err = {0};
    plain_logits(t, &plain);
    for (size_t c = 0; c < 3; c++) {
        bool drafts = c == 1;
        lc_engine *engine = open_engine(t, (manner){NULL, 3, 0, 0}, chunks[c], drafts);
        vocab = lc_engine_vocab(engine);
        lc_session *sessions[SESSIONS];
        for (size_t i = 0; i < SESSIONS; i++) sessions[i] = open_session(engine);
        size_t counts[3][SESSIONS] = {{length / 2, 1, 0, 9, 3},
                                      {length - 2, 2, length / 3, 10, 4},
                                      {length - 1, 20, length, 11, 5}};
        for (size_t step = 0; step < 3; step++) {
            lc_prompt prompts[SESSIONS];
            size_t n = 0;
            for (size_t i = 0; i < SESSIONS; i++)
                if (counts[step][i])
                    prompts[n++] = (lc_prompt){sessions[i], t->s->tokens + i % t->s->batch * length,
                                               counts[step][i]};
            assert_ok(lc_sync_batch(engine, prompts, n, &err), err);
            for (size_t i = 0; i < SESSIONS; i++) {
                size_t count = counts[step][i], b = i % t->s->batch;
                if (count) same_logits(t, &plain, b, count, sessions[i], "batch of sessions");
                if (count && drafts && count < length) same_draft(t, &plain, b, count, sessions[i]);
            }
        }
        for (size_t i = 0; i < SESSIONS; i++) lc_session_close(sessions[i]);
        lc_engine_close(engine);
    }
    printf("# %s %s: %d sessions in a batch, 3 chunk sizes, %zu logits each\n", t->s->name,
           t->compute, SESSIONS, vocab);
    lc_eval_free(&plain);
}

/* Token by token, without and with the draft module's cache kept, drafting on the way. */
static void test_decode(void **state) {
    const trial *t = *state;
    lc_eval_result plain;
    lc_err err = {0};
    plain_logits(t, &plain);
    for (int drafts = 0; drafts <= t->s->drafts; drafts++) {
        lc_engine *engine = open_engine(t, (manner){NULL, 2, 0, 0}, 8, drafts);
        lc_session *session = open_session(engine);
        size_t first = t->s->length / 2;
        for (size_t count = first; count <= t->s->length; count++) {
            assert_ok(lc_session_sync(session, t->s->tokens, count, &err), err);
            assert_int_equal(lc_session_reused(session), count == first ? 0 : count - 1);
            same_logits(t, &plain, 0, count, session,
                        drafts ? "token by token, with drafts" : "token by token");
            int32_t out[DRAFTS], next = t->s->tokens[0];
            if (drafts && count < t->s->length) same_draft(t, &plain, 0, count, session);
            if (drafts && count % 3 == 0 && count + DRAFTS < t->s->length)
                assert_ok(lc_session_draft(session, next, DRAFTS, out, &err), err);
        }
        lc_session_close(session);
        lc_engine_close(engine);
    }
    lc_eval_free(&plain);
}

/* What a session says: logits, and a draft chain's tokens, sets and logits. */
typedef struct answer {
    size_t vocab, topk;
    float *logits;                 /* [1 + DRAFTS][V] */
    int32_t tokens[DRAFTS], *sets; /* [DRAFTS][topk] */
} answer;

static void answer_init(answer *a, const lc_engine *engine) {
    a->vocab = lc_engine_vocab(engine);
    a->topk = engine->model->index.topk;
    a->logits = lc_calloc((1 + DRAFTS) * a->vocab, sizeof *a->logits);
    a->sets = lc_calloc(DRAFTS * a->topk + 1, sizeof *a->sets);
    assert_true(a->logits && a->sets);
}

static void answer_free(answer *a) {
    lc_free(a->logits);
    lc_free(a->sets);
}

static void ask(lc_session *session, const int32_t *tokens, size_t count, answer *a) {
    lc_err err = {0};
    assert_ok(lc_session_sync(session, tokens, count, &err), err);
    memcpy(a->logits, lc_session_logits(session), a->vocab * sizeof *a->logits);
    lc_draft_trace trace = {a->sets, a->logits + a->vocab};
    int32_t next = lc_argmax(a->logits, a->vocab);
    assert_ok(lc_session_draft_traced(session, next, DRAFTS, a->tokens, &trace, &err), err);
}

/* A long-lived session whose list is cut, changed and extended at random gives the logits and
 * drafts that a fresh one gives. */
static void test_reuse(void **state) {
    const trial *t = *state;
    int rounds = t->s->small ? 24 : 8;
    size_t length = t->s->length, reused = 0, most = length - DRAFTS;
    lc_engine *engine = open_engine(t, (manner){NULL, 2, 0, 0}, 16, true);
    lc_session *session = open_session(engine);
    answer want, got;
    answer_init(&want, engine);
    answer_init(&got, engine);
    int32_t list[MAX_LENGTH];
    memcpy(list, t->s->tokens, length * sizeof *list);
    size_t count = most;
    for (int round = 0; round < rounds; round++) {
        uint64_t random = lc_rng(7, 0, (uint64_t)round).word[0];
        ask(session, list, count, &got);
        reused += lc_session_reused(session);
        lc_session *fresh = open_session(engine);
        ask(fresh, list, count, &want);
        lc_session_close(fresh);
        if (memcmp(want.logits, got.logits, want.vocab * sizeof *want.logits))
            fail_msg("%s %s: round %d, %zu tokens: logits differ", t->s->name, t->compute, round,
                     count);
        if (memcmp(want.logits, got.logits, (1 + DRAFTS) * want.vocab * sizeof *want.logits) ||
            memcmp(want.tokens, got.tokens, sizeof want.tokens) ||
            memcmp(want.sets, got.sets, DRAFTS * want.topk * sizeof *want.sets))
            fail_msg("%s %s: round %d, %zu tokens (%zu reused): drafts differ", t->s->name,
                     t->compute, round, count, lc_session_reused(session));
        switch (round % 6) {
        case 0: count = 1 + random % count; break;                               /* cut */
        case 1: count = count + 1 < most ? count + 1 : most; break;              /* go on by one */
        case 2: list[random % count] = t->s->tokens[random / 7 % length]; break; /* change one */
        case 3: count = most; break;                                             /* go on */
        case 4: list[count - 1] = t->s->tokens[random % length]; break; /* change the last */
        default: memcpy(list, t->s->tokens, length * sizeof *list);     /* come back */
        }
    }
    printf("# %s %s: %d lists in one session, %zu tokens reused\n", t->s->name, t->compute, rounds,
           reused);
    assert_true(reused > 0);
    answer_free(&want);
    answer_free(&got);
    lc_session_close(session);
    lc_engine_close(engine);
}

/* ---- kept hashes ---- */

static void hash_of(const lc_eval_entry *e, size_t batch, char hex[65]) {
    lc_hash *h = lc_hash_new(LC_HASH_XXH128);
    assert_non_null(h);
    lc_hash_update(h, e->data, batch * e->rows * e->cols * sizeof(float));
    lc_hash_finish(h, hex);
}

/* hashes.json: {compute: {entry: hash}} for the first KEPT_LENGTH ids of texts 1 and 3. */
static void test_hashes(void **state) {
    const trial *t = *state;
    lc_err err = {0};
    struct json_object *json, *kept, *want;
    assert_ok(lc_json_load("tests/golden/tiny-code/hashes.json", 0, &json, &err), err);
    assert_true(json_object_object_get_ex(json, t->compute, &kept));
    const char *isas[LC_ISA_COUNT];
    size_t n = isa_names(isas), bad = 0;
    for (size_t i = GOLDEN_SANITIZED ? n - 1 : 0; i < n; i++) {
        lc_eval_result result;
        run(t, (manner){isas[i], 2, 64, 2}, &result);
        json_object_object_foreach(kept, entry, value) {
            char hex[65];
            want = value;
            assert_non_null(golden_entry(&result, entry));
            hash_of(golden_entry(&result, entry), t->s->batch, hex);
            if (!strcmp(hex, json_object_get_string(want))) continue;
            printf("# %s %s %s: hash %s, kept is %s\n", t->compute, entry, isas[i], hex,
                   json_object_get_string(want));
            bad++;
        }
        lc_eval_free(&result);
    }
    json_object_put(json);
    assert_int_equal(bad, 0);
}

/* ---- the list of tests ---- */

/* The golden sequences of a case, or for the bundled model the starts of texts 1 and 3. */
static void load_tokens(subject *s, size_t length) {
    golden g;
    bool tiny = !strcmp(s->dir, TINY);
    golden_open(&g, s->dir);
    if (!tiny) {
        const lc_tensor *ids = golden_get(&g, "input_ids");
        s->batch = ids->shape[0];
        s->length = ids->shape[1];
        s->tokens = golden_ids(ids);
    } else {
        s->batch = 2;
        s->length = length;
        int32_t *a = golden_ids(golden_get(&g, "1.ids")), *b = golden_ids(golden_get(&g, "3.ids"));
        s->tokens = lc_calloc(2 * length, sizeof *s->tokens);
        if (!s->tokens) abort();
        memcpy(s->tokens, a, length * sizeof *a);
        memcpy(s->tokens + length, b, length * sizeof *b);
        lc_free(a);
        lc_free(b);
    }
    if (s->length > MAX_LENGTH) abort();
    golden_close(&g);
}

int main(void) {
    static const char *const computes[] = {"f32", "bf16"};
    static trial trials[2 * (N_SUBJECTS + 1)];
    static subject kept = {.name = "tiny", .dir = TINY, .drafts = true};
    golden_tests tests = {0};
    load_tokens(&kept, KEPT_LENGTH);
    for (size_t i = 0; i < N_SUBJECTS; i++) load_tokens(&subjects[i], TINY_LENGTH);
    for (size_t i = 0; i < 2 * (N_SUBJECTS + 1); i++) {
        trial *t = &trials[i];
        *t = (trial){i / 2 < N_SUBJECTS ? &subjects[i / 2] : &kept, computes[i % 2]};
        if (t->s == &kept) {
            golden_add(&tests, test_hashes, t, "kept hashes %s", t->compute);
            continue;
        }
        const char *name = t->s->name;
        golden_add(&tests, test_manners, t, "%s %s: threads, chunks, isas", name, t->compute);
        golden_add(&tests, test_batch, t, "%s %s: batches", name, t->compute);
        golden_add(&tests, test_decode, t, "%s %s: decoding", name, t->compute);
        golden_add(&tests, test_reuse, t, "%s %s: reuse", name, t->compute);
    }
    int failed = golden_run(&tests, "permutations");
    for (size_t i = 0; i < N_SUBJECTS; i++) lc_free(subjects[i].tokens);
    lc_free(kept.tokens);
    return failed;
}
