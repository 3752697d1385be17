/*
 * sched_task.c: one task's life: checked and copied, started from what the cache has, told token by
 * token, saved and ended. All but lc_sched_job_new runs on the engine thread.
 */
#include "engine/sched_internal.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"

#include <math.h>
#include <string.h>

enum { SAVE_TOKENS = 1024 }; /* the cache is given what was computed at least so often */

/* ---- checks and copies ---- */

static int check_task(const lc_sched *s, const lc_task *task, lc_err *err) {
    const lc_engine *e = s->engine;
    if (!task->events.token || !task->events.end)
        return lc_fail(err, LC_EINVAL, "a task needs token and end events");
    if (task->top_logprobs > LC_TOP_LOGPROBS)
        return lc_fail(err, LC_ELIMIT, "%zu top log probabilities: the limit is %d",
                       task->top_logprobs, LC_TOP_LOGPROBS);
    if (!task->count) return lc_fail(err, LC_EINVAL, "the prompt is empty");
    if (task->count > e->context)
        return lc_fail(err, LC_ELIMIT, "%zu prompt tokens are more than the context of %zu",
                       task->count, e->context);
    for (size_t i = 0; i < task->count; i++)
        if (task->tokens[i] < 0 || (size_t)task->tokens[i] >= e->model->config.vocab)
            return lc_fail(err, LC_EINVAL,
                           "token %d at position %zu is outside the vocabulary of %zu",
                           task->tokens[i], i, e->model->config.vocab);
    size_t room = e->context + 1 - task->count,
           left = task->how.max_tokens < room ? task->how.max_tokens : room;
    size_t least = task->grammar ? lc_grammar_shortest(task->grammar) : 0;
    if (left < least)
        return lc_fail(
            err, LC_ELIMIT,
            "the shortest answer that the format allows takes up to %zu tokens: max_tokens "
            "and the context leave %zu",
            least, left);
    return lc_check_generation(e, &task->how, err);
}

/* Bytes of the caches of the longest list that a task may get. */
static size_t longest_kv(const lc_engine *e, const lc_task *task) {
    size_t longest = e->context;
    if (task->how.max_tokens < longest - task->count) longest = task->count + task->how.max_tokens;
    size_t blocks = (longest + LC_KV_BLOCK - 1) / LC_KV_BLOCK;
    lc_kv_layout main = lc_model_kv_layout(e->model, e->bf16),
                 draft = lc_model_mtp_layout(e->model, e->bf16);
    return blocks * (lc_kv_block_bytes(&main) + (e->drafts ? lc_kv_block_bytes(&draft) : 0));
}

/* A copy of count elements in the job's arena; NULL for none. */
static bool copy(lc_sched_job *job, const void *from, size_t count, size_t size, const void **to) {
    *to = NULL;
    if (!count) return true;
    void *mine = lc_arena_calloc(job->arena, count, size);
    if (mine) memcpy(mine, from, count * size);
    *to = mine;
    return mine != NULL;
}

static bool copy_stops(lc_sched_job *job) {
    lc_generation *how = &job->is.how;
    const char **mine = lc_arena_calloc(job->arena, how->n_stop + 1, sizeof *mine);
    for (size_t i = 0; i < how->n_stop && mine; i++) {
        mine[i] = lc_arena_strndup(job->arena, how->stop[i], strlen(how->stop[i]));
        if (!mine[i]) mine = NULL;
    }
    how->stop = mine;
    return mine != NULL;
}

static bool copy_task(lc_sched_job *job, const lc_task *task) {
    lc_generation *how = &job->is.how;
    lc_sampling *sampling = &how->sampling;
    const void *stop_tokens, *bias;
    job->is = *task;
    job->is.tokens = NULL; /* list has them */
    job->arena = lc_arena_new(0);
    if (!job->arena || !lc_ids_append(&job->list, task->tokens, task->count) || !copy_stops(job) ||
        !copy(job, how->stop_tokens, how->n_stop_tokens, sizeof *how->stop_tokens, &stop_tokens) ||
        !copy(job, sampling->bias, sampling->n_bias, sizeof *sampling->bias, &bias))
        return false;
    how->stop_tokens = stop_tokens;
    sampling->bias = bias;
    if (task->grammar) how->ignore_eos = false; /* only an EOS may follow a complete text */
    return true;
}

int lc_sched_job_new(lc_sched *s, const lc_task *task, lc_sched_job **out, lc_err *err) {
    int status = check_task(s, task, err);
    if (status != LC_OK) return status;
    size_t bytes = longest_kv(s->engine, task);
    if (bytes > s->options.kv_bytes)
        return lc_fail(err, LC_ELIMIT,
                       "%zu prompt tokens and up to %zu more need %zu bytes of context cache: the "
                       "limit is %zu",
                       task->count, task->how.max_tokens, bytes, s->options.kv_bytes);
    lc_sched_job *job = lc_calloc(1, sizeof *job);
    if (!job || !copy_task(job, task)) {
        lc_sched_job_free(job);
        return lc_fail(err, LC_ENOMEM, "task: out of memory");
    }
    job->kv_bytes = bytes;
    *out = job;
    return LC_OK;
}

void lc_sched_job_free(lc_sched_job *job) {
    if (!job) return;
    if (job->grammar) lc_grammar_state_free(job->grammar);
    lc_session_close(job->session);
    lc_emitter_free(&job->text);
    lc_emitter_free(&job->echo);
    lc_ids_free(&job->list);
    lc_arena_free(job->arena);
    lc_free(job);
}

/* ---- what is told about a token ---- */

bool lc_sched_job_wants_rows(const lc_sched_job *job) {
    return job->is.echo && (job->is.logprobs || job->is.top_logprobs) && !job->decoding;
}

/* Keeps the best n of the logits, ties to the lower id. */
static size_t best_tokens(const float *logits, size_t vocab, size_t n, lc_token_logprob *top) {
    size_t count = 0;
    for (size_t i = 0; i < vocab; i++) {
        if (count == n && (!n || !(logits[i] > top[n - 1].logprob))) continue;
        size_t at = count < n ? count++ : n - 1;
        for (; at > 0 && logits[i] > top[at - 1].logprob; at--) top[at] = top[at - 1];
        top[at] = (lc_token_logprob){(int32_t)i, logits[i]};
    }
    return count;
}

/* Log probabilities of a token and of the best ones: log-softmax in double, summed in the order of
 * ids. */
static void fill_logprobs(const lc_sched_job *job, const float *logits, size_t vocab, int32_t token,
                          lc_task_token *out) {
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < vocab; i++)
        if ((double)logits[i] > max) max = (double)logits[i];
    for (size_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - max);
    double log_sum = max + (sum > 0 ? log(sum) : 0); /* 0 or not a number: no usable logits */
    if (job->is.logprobs)
        out->own = (lc_token_logprob){token, (float)((double)logits[token] - log_sum)};
    out->n_top = best_tokens(logits, vocab, job->is.top_logprobs, out->top);
    for (size_t i = 0; i < out->n_top; i++)
        out->top[i].logprob = (float)((double)out->top[i].logprob - log_sum);
}

/* How many of the chosen experts were real ones, by layer and on average. */
static void count_routed(const lc_config *c, const int32_t *routes, lc_task_token *out) {
    size_t n = 0;
    for (size_t i = 0; i < c->layers; i++) {
        size_t of_layer = 0;
        for (size_t j = 0; j < c->topk; j++)
            of_layer += (size_t)routes[i * c->topk + j] < c->experts;
        if (c->layers <= LC_ROUTED_LAYERS && c->topk <= UINT8_MAX)
            out->routed_by_layer[out->n_layers++] = (uint8_t)of_layer;
        n += of_layer;
    }
    out->routed = (float)((double)n / (double)c->layers);
}

/* The event of a token that row `row` of the part predicted. */
static void describe(lc_sched_job *job, const lc_step_part *part, size_t row, const float *logits,
                     int32_t token) {
    const lc_config *c = &job->session->engine->model->config;
    job->token = (lc_task_token){.own = {.token = -1}};
    if (part->routes) count_routed(c, part->routes + row * c->layers * c->topk, &job->token);
    if (logits && (job->is.logprobs || job->is.top_logprobs))
        fill_logprobs(job, logits, c->vocab, token, &job->token);
}

static int tell(void *ctx, int32_t token, const char *text, size_t len) {
    lc_sched_job *job = ctx;
    if (token < 0) job->token = (lc_task_token){.own = {.token = -1}};
    job->token.token = token;
    job->token.text = text ? text : "";
    job->token.len = len;
    job->is.events.token(job->is.events.ctx, &job->token);
    return 0;
}

static void end(lc_sched_job *job, lc_task_end as) {
    job->ended = true;
    job->end = as;
}

void lc_sched_job_fail(lc_sched_job *job, const lc_err *err) {
    end(job, LC_TASK_FAILED);
    job->err = *err;
}

/* ---- the cache ---- */

static void save(lc_sched *s, lc_sched_job *job) {
    lc_err err = {0};
    lc_session *session = job->session;
    if (!s->options.cache || session->length < LC_CACHE_BLOCK) return;
    if (session->length / LC_CACHE_BLOCK > job->saved / LC_CACHE_BLOCK) s->saves++;
    job->saved = session->length;
    if (lc_cache_save(s->options.cache, job->is.tenant, session->tokens.data, session->length,
                      &session->kv, &err) != LC_OK)
        lc_log(LC_LOG_WARN, "prompt cache: %s", err.text);
}

/* Fills the session with what the cache has of the prompt; a failure is a miss. */
static size_t load(lc_sched *s, lc_sched_job *job) {
    lc_err err = {0};
    size_t loaded = 0;
    if (!s->options.cache || lc_sched_job_wants_rows(job)) return 0;
    if (lc_cache_load(s->options.cache, job->is.tenant, job->list.data, job->is.count,
                      &job->session->kv, &loaded, &err) != LC_OK) {
        lc_log(LC_LOG_WARN, "prompt cache: %s", err.text);
        return 0;
    }
    return loaded;
}

/* ---- start ---- */

static int prepare(lc_sched *s, lc_sched_job *job, lc_err *err) {
    int status = lc_session_open(s->engine, &job->session, err);
    if (status == LC_OK && job->is.grammar)
        status = lc_grammar_begin(job->is.grammar, &job->grammar, err);
    if (status != LC_OK) return status;
    job->cached = job->saved = load(s, job);
    if (job->cached)
        return lc_session_adopt_prefix(job->session, job->list.data, job->is.count, job->cached,
                                       err);
    return lc_session_begin(job->session, job->list.data, job->is.count, err);
}

static void echo_token(lc_sched_job *job, size_t at) {
    lc_err err = {0};
    if (lc_emit_token(&job->echo, job->list.data[at], &err) != LC_OK) lc_sched_job_fail(job, &err);
    if (job->ended || at + 1 < job->is.count) return;
    if (lc_emit_rest(&job->echo, &err) != LC_OK) lc_sched_job_fail(job, &err);
}

/* The first token, and those that rows of the cache predicted. */
static void echo_known(lc_sched_job *job) {
    for (size_t i = 0; i <= job->cached && i < job->is.count && !job->ended; i++) {
        job->token = (lc_task_token){.own = {.token = -1}};
        echo_token(job, i);
    }
}

/* Those that the part's rows predicted. */
static void echo_part(lc_sched_job *job, const lc_step_part *part) {
    size_t first = job->session->length - part->n,
           vocab = job->session->engine->model->config.vocab;
    for (size_t i = 0; i < part->n && first + i + 1 < job->is.count && !job->ended; i++) {
        const float *logits = part->logits ? part->logits + i * vocab : NULL;
        describe(job, part, i, logits, job->list.data[first + i + 1]);
        echo_token(job, first + i + 1);
    }
}

void lc_sched_job_start(lc_sched *s, lc_sched_job *job) {
    lc_err err = {0};
    lc_generation whole = {.special_text = job->is.how.special_text};
    job->started = lc_clock_ns();
    lc_emitter_init(&job->text, s->engine->tokenizer, &job->is.how);
    lc_emitter_init(&job->echo, s->engine->tokenizer, &whole);
    job->text.sink = job->echo.sink = tell;
    job->text.ctx = job->echo.ctx = job;
    if (prepare(s, job, &err) != LC_OK) {
        lc_sched_job_fail(job, &err);
        return;
    }
    if (job->is.events.started) job->is.events.started(job->is.events.ctx, job->cached);
    if (job->is.echo) echo_known(job);
}

/* ---- steps ---- */

/* Tokens that the answer may still get. */
static size_t tokens_left(const lc_sched *s, const lc_sched_job *job) {
    size_t room = s->engine->context + 1 - job->list.len; /* the last one needs no place */
    size_t asked = job->is.how.max_tokens - (job->list.len - job->is.count);
    return asked < room ? asked : room;
}

static int choose_token(lc_sched *s, lc_sched_job *job, int32_t *token, lc_err *err) {
    const uint64_t *mask = job->grammar ? s->mask : NULL;
    int status = mask ? lc_grammar_mask(job->grammar, tokens_left(s, job), s->mask, err) : LC_OK;
    if (status == LC_OK)
        status = lc_session_sample_masked(job->session, &job->is.how.sampling, job->is.count, mask,
                                          token, err);
    return status;
}

/* The answer is over but for the text that was held back. */
static int end_text(lc_sched_job *job, lc_task_end as, lc_err *err) {
    int status = lc_emit_rest(&job->text, err);
    if (status == LC_OK) end(job, job->text.stopped ? LC_TASK_STRING : as);
    return status;
}

static int take_token(lc_sched *s, lc_sched_job *job, int32_t token, lc_err *err) {
    if (!lc_ids_push(&job->list, token)) return lc_fail(err, LC_ENOMEM, "task: out of memory");
    lc_sched_charge(s, job->is.key, 1);
    int status = job->grammar ? lc_grammar_accept(job->grammar, token, err) : LC_OK;
    if (status == LC_OK) status = lc_emit_token(&job->text, token, err);
    if (status != LC_OK) return status;
    size_t answer = job->list.len - job->is.count;
    if (job->text.stopped) return end_text(job, LC_TASK_STRING, err);
    if (job->grammar && lc_grammar_complete(job->grammar)) return end_text(job, LC_TASK_STOP, err);
    if (answer >= job->is.how.max_tokens || job->list.len > s->engine->context)
        return end_text(job, LC_TASK_LENGTH, err);
    if (job->session->length - job->saved >= SAVE_TOKENS) save(s, job);
    return lc_session_push(job->session, token, err);
}

/* Chooses the token behind the session's list. */
static int next_token(lc_sched *s, lc_sched_job *job, const lc_step_part *part, lc_err *err) {
    int32_t token;
    int status = choose_token(s, job, &token, err);
    if (status != LC_OK) return status;
    if (lc_is_stop_token(s->engine, &job->is.how, token)) return end_text(job, LC_TASK_STOP, err);
    describe(job, part, part->n - 1, job->session->logits, token);
    return take_token(s, job, token, err);
}

void lc_sched_job_advance(lc_sched *s, lc_sched_job *job, const lc_step_part *part) {
    lc_err err = {0};
    if (!part->n) return;
    if (!job->decoding) {
        if (job->is.events.prompt)
            job->is.events.prompt(job->is.events.ctx, job->session->length, job->is.count);
        if (job->is.echo) echo_part(job, part);
        if (job->ended) return;
        size_t length = job->session->length;
        bool done = length == job->is.count;
        bool wanted = job->wanted > job->saved && job->wanted <= length;
        if (done || wanted || length - job->saved >= SAVE_TOKENS) save(s, job);
        if (!done) return;
        job->decoding = true;
        job->first = lc_clock_ns();
        if (!job->is.how.max_tokens) {
            end(job, LC_TASK_LENGTH);
            return;
        }
    }
    if (next_token(s, job, part, &err) != LC_OK) lc_sched_job_fail(job, &err);
}

/* ---- end ---- */

static double seconds(uint64_t from, uint64_t to) { return (double)(to - from) * 1e-9; }

static lc_task_result result_of(const lc_sched_job *job) {
    uint64_t now = lc_clock_ns();
    lc_task_result r = {.end = job->end, .err = job->err};
    r.output_tokens = job->list.len - job->is.count;
    r.tokens = job->list.data + job->is.count;
    if (job->end == LC_TASK_STRING) r.stop_string = job->is.how.stop[job->text.stopped_by];
    r.queue_s = seconds(job->submitted, job->started ? job->started : now);
    if (!job->session) return r;
    r.cached_tokens = job->cached;
    r.prompt_tokens = job->session->length < job->is.count ? job->session->length : job->is.count;
    r.prefill_s = seconds(job->started, job->first ? job->first : now);
    if (job->first) r.decode_s = seconds(job->first, now);
    return r;
}

void lc_sched_job_finish(lc_sched *s, lc_sched_job *job) {
    if (job->session && job->end != LC_TASK_FAILED) save(s, job);
    lc_task_result result = result_of(job);
    lc_sched_retire(s, job, &result);
    job->is.events.end(job->is.events.ctx, &result);
    lc_sched_job_free(job);
}
