/*
 * sched_kit.h: what the tests of the scheduler share: an answer that is put together from events,
 * tasks drawn by a seed, and the answers that lc_generate gives to them alone.
 */
#ifndef LC_TESTS_SCHED_KIT_H
#define LC_TESTS_SCHED_KIT_H

#include "golden/golden.h"

#include "base/rng.h"
#include "engine/sched.h"

#include <pthread.h>
#include <unistd.h>

enum { KIT_MOST = 640, KIT_TOP = 5, KIT_PROMPT = 560 };

/* Everything that one task's events said. Written by the engine thread; read after the end. */
typedef struct answer {
    lc_sched *sched;
    uint64_t id;
    lc_buf text;
    int32_t tokens[KIT_MOST]; /* of the token events */
    lc_token_logprob own[KIT_MOST], top[KIT_MOST][KIT_TOP];
    size_t n_top[KIT_MOST], count;
    float routed[KIT_MOST];
    size_t prompts, cached, order, cancel_at, cancel_at_prompt;
    bool started, wrong; /* wrong: an event that must not be */
    lc_task_result result;
    int32_t out[KIT_MOST]; /* the result's tokens */
    char stop_string[64];
    int ended;
} answer;

static pthread_mutex_t kit_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t kit_wake = PTHREAD_COND_INITIALIZER;
static size_t kit_order; /* starts so far */

static inline void kit_started(void *ctx, size_t cached) {
    answer *a = ctx;
    a->wrong |= a->started || a->ended;
    a->started = true;
    a->cached = cached;
    pthread_mutex_lock(&kit_lock);
    a->order = ++kit_order;
    pthread_cond_broadcast(&kit_wake);
    pthread_mutex_unlock(&kit_lock);
}

static inline void kit_prompt(void *ctx, size_t done, size_t count) {
    answer *a = ctx;
    a->wrong |= !a->started || a->ended || done > count;
    if (++a->prompts == a->cancel_at_prompt) lc_sched_cancel(a->sched, a->id);
}

static inline void kit_token(void *ctx, const lc_task_token *t) {
    answer *a = ctx;
    a->wrong |= !a->started || a->ended || strlen(t->text) != t->len;
    lc_buf_append(&a->text, t->text, t->len);
    if (t->token < 0) return;
    if (a->count == KIT_MOST) {
        a->wrong = true;
        return;
    }
    a->tokens[a->count] = t->token;
    a->own[a->count] = t->own;
    a->n_top[a->count] = t->n_top;
    a->routed[a->count] = t->routed;
    for (size_t i = 0; i < t->n_top && i < KIT_TOP; i++) a->top[a->count][i] = t->top[i];
    if (++a->count == a->cancel_at) lc_sched_cancel(a->sched, a->id);
}

static inline void kit_end(void *ctx, const lc_task_result *result) {
    answer *a = ctx;
    a->wrong |= a->ended || result->output_tokens > KIT_MOST;
    a->result = *result;
    if (!a->wrong) memcpy(a->out, result->tokens, result->output_tokens * sizeof *a->out);
    if (result->stop_string)
        snprintf(a->stop_string, sizeof a->stop_string, "%s", result->stop_string);
    pthread_mutex_lock(&kit_lock);
    a->ended++;
    pthread_cond_broadcast(&kit_wake);
    pthread_mutex_unlock(&kit_lock);
}

static inline void kit_events(answer *a, lc_task *task) {
    task->events = (lc_task_events){a, kit_started, kit_prompt, kit_token, kit_end};
}

/* Waits for the end event, and for everything of it to be in order. */
static inline void kit_wait(answer *a) {
    pthread_mutex_lock(&kit_lock);
    while (!a->ended) pthread_cond_wait(&kit_wake, &kit_lock);
    pthread_mutex_unlock(&kit_lock);
    assert_false(a->wrong);
}

static inline void kit_wait_started(answer *a) {
    pthread_mutex_lock(&kit_lock);
    while (!a->order && !a->ended) pthread_cond_wait(&kit_wake, &kit_lock);
    pthread_mutex_unlock(&kit_lock);
}

/* Ready for another task. */
static inline void kit_clear(answer *a) {
    lc_buf_free(&a->text);
    memset(a, 0, sizeof *a);
}

static inline void kit_submit(lc_sched *sched, lc_task task, answer *a) {
    lc_err err = {0};
    size_t cancel_at = a->cancel_at, cancel_at_prompt = a->cancel_at_prompt;
    kit_clear(a);
    a->cancel_at = cancel_at;
    a->cancel_at_prompt = cancel_at_prompt;
    a->sched = sched;
    kit_events(a, &task);
    assert_ok(lc_sched_submit(sched, &task, &a->id, &err), err);
}

static inline lc_sched *kit_sched(lc_engine *engine, lc_sched_options options) {
    lc_err err = {0};
    lc_sched *sched = NULL;
    assert_ok(lc_sched_open(engine, &options, &sched, &err), err);
    return sched;
}

/* ---- tasks by a seed ---- */

/* A task with memory for its lists. */
typedef struct drawn {
    lc_task task;
    int32_t prompt[KIT_PROMPT];
    lc_logit_bias bias[8];
    int32_t stop_tokens[2];
    char stop[3][8];
    const char *stops[3];
} drawn;

static inline size_t draw(uint64_t seed, uint64_t *counter, size_t below) {
    return (size_t)(lc_rng_uniform(seed, 7, (*counter)++) * (double)below);
}

static inline void draw_task(uint64_t seed, const lc_engine *engine, const int32_t *text,
                             size_t n_text, drawn *d) {
    uint64_t at = 0;
    size_t vocab = lc_engine_vocab(engine), context = lc_engine_context(engine);
    memset(d, 0, sizeof *d);
    size_t most = context < KIT_PROMPT ? context : KIT_PROMPT;
    size_t count = draw(seed, &at, 2) ? 1 + draw(seed, &at, 60) : 1 + draw(seed, &at, most);
    if (count > most) count = most;
    size_t from = n_text > count && draw(seed, &at, 2) ? draw(seed, &at, n_text - count) : 0;
    for (size_t i = 0; i < count; i++)
        d->prompt[i] = n_text > count ? text[from + i] : (int32_t)draw(seed, &at, vocab);
    lc_generation *how = &d->task.how;
    how->max_tokens = 1 + draw(seed, &at, 48);
    how->ignore_eos = draw(seed, &at, 2);
    lc_sampling *s = &how->sampling;
    s->seed = seed;
    if (draw(seed, &at, 3)) s->temperature = 0.4f + (float)draw(seed, &at, 10) * 0.1f;
    if (!draw(seed, &at, 3)) s->top_k = 1 + (int32_t)draw(seed, &at, 50);
    if (!draw(seed, &at, 3)) s->top_p = 0.7f;
    if (!draw(seed, &at, 3)) s->min_p = 0.02f;
    if (!draw(seed, &at, 3)) s->repetition_penalty = 1.2f;
    if (!draw(seed, &at, 3)) s->presence_penalty = 0.5f;
    if (!draw(seed, &at, 3)) s->frequency_penalty = 0.3f;
    s->n_bias = draw(seed, &at, 2) * 8;
    for (size_t i = 0; i < s->n_bias; i++)
        d->bias[i] = (lc_logit_bias){(int32_t)draw(seed, &at, vocab), (float)i - 3};
    s->bias = d->bias;
    how->n_stop_tokens = draw(seed, &at, 2) * 2;
    for (size_t i = 0; i < how->n_stop_tokens; i++)
        d->stop_tokens[i] = (int32_t)draw(seed, &at, vocab);
    how->stop_tokens = d->stop_tokens;
    if (engine->tokenizer && draw(seed, &at, 2)) {
        static const char *const ends[] = {";\n", "}", "re", "(x", "\n\n", " the", "if"};
        for (size_t i = 0; i < 3; i++) {
            snprintf(d->stop[i], sizeof d->stop[i], "%s", ends[draw(seed, &at, 7)]);
            d->stops[i] = d->stop[i];
        }
        how->n_stop = 3;
    }
    how->stop = d->stops;
    d->task.tokens = d->prompt;
    d->task.count = count;
    d->task.logprobs = draw(seed, &at, 2);
    d->task.top_logprobs = draw(seed, &at, 2) * KIT_TOP;
    d->task.key = draw(seed, &at, 4);
    d->task.tenant = draw(seed, &at, 2);
    d->task.light = !draw(seed, &at, 4);
    d->task.echo = !draw(seed, &at, 4) && count + how->max_tokens < KIT_MOST;
}

/* ---- the same alone ---- */

/* Log probability by its definition: doubles, summed in the order of ids, rounded once. */
static inline float kit_logprob(const float *logits, size_t vocab, int32_t token) {
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < vocab; i++) max = fmax(max, (double)logits[i]);
    for (size_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - max);
    return (float)((double)logits[token] - (max + log(sum)));
}

typedef struct alone {
    lc_session *session;
    lc_buf text;
    int32_t out[KIT_MOST];
    float own[KIT_MOST];
    int32_t best[KIT_MOST]; /* highest logit */
    size_t told, count;
    lc_finish finish;
} alone;

static inline int alone_token(void *ctx, int32_t token, const char *text, size_t len) {
    alone *a = ctx;
    lc_buf_append(&a->text, text ? text : "", len);
    if (token < 0) return 0;
    size_t vocab = lc_engine_vocab(a->session->engine);
    const float *logits = lc_session_logits(a->session);
    a->own[a->told] = kit_logprob(logits, vocab, token);
    a->best[a->told++] = lc_argmax(logits, vocab);
    return 0;
}

static inline void alone_run(lc_engine *engine, const lc_task *task, alone *a) {
    lc_err err = {0};
    memset(a, 0, sizeof *a);
    assert_ok(lc_session_open(engine, &a->session, &err), err);
    lc_generation how = task->how;
    how.on_token = alone_token;
    how.ctx = a;
    assert_ok(lc_generate(a->session, task->tokens, task->count, &how, a->out, &a->count,
                          &a->finish, &err),
              err);
    lc_session_close(a->session);
    a->session = NULL;
}

/* The answer, whole or cut by a cancellation, is the one that the task has alone. */
static inline void kit_compare(const drawn *d, const answer *got, const alone *want) {
    const lc_task_result *r = &got->result;
    bool cut = r->end == LC_TASK_CANCELED;
    size_t echoed = d->task.echo ? d->task.count : 0;
    if (r->end == LC_TASK_FAILED) fail_msg("failed: %s", r->err.text);
    assert_int_equal(got->ended, 1);
    if (cut)
        assert_true(r->output_tokens <= want->count);
    else {
        assert_int_equal(r->output_tokens, want->count);
        assert_int_equal(r->end == LC_TASK_LENGTH, want->finish == LC_FINISH_LENGTH);
        assert_int_equal(r->prompt_tokens, d->task.count);
        assert_int_equal(got->count, echoed + want->count);
    }
    assert_memory_equal(got->out, want->out, r->output_tokens * sizeof *got->out);
    size_t told = got->count > echoed ? got->count - echoed : 0;
    assert_true(told <= want->told);
    assert_memory_equal(got->tokens + echoed, want->out, told * sizeof *got->tokens);
    if (!d->task.echo && got->text.len)
        assert_memory_equal(got->text.data, want->text.data, got->text.len);
    if (!cut && !d->task.echo) assert_int_equal(got->text.len, want->text.len);
    assert_int_equal(r->stop_string != NULL, r->end == LC_TASK_STRING);
    for (size_t i = 0; i < told; i++) {
        const lc_token_logprob *own = &got->own[echoed + i];
        assert_int_equal(own->token, d->task.logprobs ? want->out[i] : -1);
        if (d->task.logprobs) assert_memory_equal(&own->logprob, &want->own[i], sizeof(float));
        assert_int_equal(got->n_top[echoed + i], d->task.top_logprobs);
        if (d->task.top_logprobs) assert_int_equal(got->top[echoed + i][0].token, want->best[i]);
    }
}

#endif
