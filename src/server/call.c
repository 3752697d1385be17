/*
 * call.c: one generation on the loop thread: begun by a request, prepared by a worker, submitted to
 * the scheduler, whose events come back as posts; settled by a worker; ended.
 *
 * A call is freed on the loop thread when its exchange is complete or gone, its tasks have ended
 * and no worker has it. A client that goes away cancels its tasks; what they have used is billed.
 */
#include "server/call.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const double first_ping = 1, next_ping = 5; /* seconds of silence */

static double seconds_since(uint64_t ns) { return (double)(lc_clock_ns() - ns) / 1e9; }

/* ---- life ---- */

static void free_choice(lc_choice *k) {
    lc_toolparser_free(k->parser);
    lc_free(k->pending.tokens);
    lc_free(k->call_ids);
    lc_ids_free(&k->tokens);
}

static void free_call(lc_call *c) {
    lc_service *s = c->service;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->calls = c->next;
    if (c->next) c->next->prev = c->prev;
    s->n_calls--;
    for (size_t i = 0; i < c->n_choices && c->choices; i++) free_choice(&c->choices[i]);
    for (size_t i = 0; i < c->n_prompts && c->prompts; i++) lc_ids_free(&c->prompts[i]);
    if (c->reply) c->dialect->close(c->reply);
    lc_grammar_free(c->grammar);
    lc_api_request_free(&c->request);
    json_object_put(c->headers);
    lc_free(c->choices);
    lc_free(c->prompts);
    lc_free(c->heads);
    lc_free(c->body);
    lc_free(c);
}

/* While a worker has the call there is nothing to cancel, and its choices are the worker's. The
 * scheduler may be gone at the end: then all tasks have ended, though it isn't known here. */
static void cancel_tasks(const lc_call *c) {
    if (!c->running || c->service->closed) return;
    for (size_t i = 0; i < c->n_choices; i++)
        if (c->choices[i].submitted && !c->choices[i].ended)
            lc_sched_cancel(c->service->o.sched, c->choices[i].task);
}

static void on_gone(void *ctx) {
    lc_call *c = ctx;
    c->exchange = NULL;
    cancel_tasks(c);
}

/* ---- replies ---- */

static void write_log(lc_call *c, int status) {
    char details[320];
    const lc_ledger_entry *u = &c->usage;
    double first = c->first_ns ? (double)(c->first_ns - c->began_ns) / 1e6 : -1;
    snprintf(details, sizeof details,
             ",\"dialect\":\"%s\",\"fresh\":%lld,\"cached\":%lld,\"output\":%lld,"
             "\"finish\":\"%s\",\"first_token_ms\":%.1f",
             c->dialect->name, (long long)u->fresh, (long long)u->cached, (long long)u->output,
             u->finish, first);
    lc_visit_done(c->visit, status, details);
    c->visit = NULL;
}

/* The call ends here without a generation's result. */
static void fail_call(lc_call *c) {
    if (c->exchange) {
        lc_exchange *x = c->exchange;
        lc_visit *v = c->visit;
        c->exchange = NULL;
        c->visit = NULL;
        lc_visit_error(v, x, &c->error);
    } else {
        write_log(c, 499);
    }
    c->service->metrics.ends[LC_END_ERROR]++;
    free_call(c);
}

/* No call on the exchange but the last one follows. */
static void end_exchange(lc_call *c) {
    lc_exchange_on_close(c->exchange, NULL, NULL);
    c->exchange = NULL;
}

static void send_event(lc_call *c, const lc_api_event *event) {
    lc_buf out = {0};
    lc_err err = {0};
    if (!c->exchange || !c->reply) return;
    int status = c->dialect->event(c->reply, event, &out, &err);
    c->sent_ns = lc_clock_ns();
    bool last = event->kind == LC_API_USAGE || event->kind == LC_API_ERROR;
    lc_exchange *x = c->exchange;
    if (status != LC_OK || out.failed) {
        lc_log(LC_LOG_ERROR, "%s: reply given up: %s", c->visit->request_id,
               status != LC_OK ? err.text : "out of memory");
        end_exchange(c);
        lc_exchange_abort(x);
        cancel_tasks(c);
    } else if (!c->request.stream) {
        if (last) {
            int code = event->error ? event->error->status : 200;
            end_exchange(c);
            lc_exchange_reply(x, code, "application/json", out.data ? out.data : "", out.len);
        }
    } else {
        if (out.len) lc_exchange_write(x, out.data, out.len); /* given up: on_gone is called */
        if (last && c->exchange) {
            end_exchange(c);
            lc_exchange_end(x);
        }
    }
    lc_buf_free(&out);
}

void lc_calls_ping(lc_service *s) {
    for (lc_call *c = s->calls; c; c = c->next) {
        if (!c->sent_ns || !c->request.stream || !c->exchange) continue;
        double wait =
            seconds_since(c->began_ns) > next_ping || c->first_ns ? next_ping : first_ping;
        if (seconds_since(c->sent_ns) >= wait) send_event(c, &(lc_api_event){.kind = LC_API_PING});
    }
}

void lc_calls_cancel(lc_service *s) {
    for (lc_call *c = s->calls; c; c = c->next) cancel_tasks(c);
}

/* ---- text as it becomes certain ---- */

/* Log probabilities and routed experts of the tokens behind a piece of text. */
typedef struct attached {
    lc_api_logprob *own, *top;
    const lc_api_logprob **tops;
    size_t *n_tops;
    float *routed;
    uint8_t *layers;
} attached;

static lc_api_logprob logprob_of(const lc_call *c, lc_token_logprob from) {
    lc_api_logprob p = {.token = from.token, .logprob = (double)from.logprob};
    p.text = lc_tokenizer_bytes(c->service->prompter.tokenizer, p.token, &p.len);
    return p;
}

static void free_attached(attached *a) {
    lc_free(a->own);
    lc_free(a->top);
    lc_free(a->tops);
    lc_free(a->n_tops);
    lc_free(a->routed);
    lc_free(a->layers);
}

static void attach_layers(const lc_choice *k, lc_api_event *event, attached *a) {
    const lc_task_token *tokens = k->pending.tokens;
    size_t n = k->pending.n, layers = tokens[0].n_layers;
    for (size_t i = 1; i < n; i++)
        if (tokens[i].n_layers != layers) return; /* of one of them nothing is known */
    if (!layers) return;
    a->layers = lc_calloc(n, layers);
    for (size_t i = 0; a->layers && i < n; i++)
        memcpy(a->layers + i * layers, tokens[i].routed_by_layer, layers);
    event->routed_layers = a->layers;
    event->n_layers = layers;
}

/* Moves the pending tokens into the event. Without memory the text goes without numbers. */
static void attach(lc_choice *k, lc_api_event *event, attached *a) {
    const lc_call *c = k->call;
    size_t n = k->pending.n;
    *a = (attached){0};
    if (!n) return;
    a->routed = lc_calloc(n, sizeof *a->routed);
    for (size_t i = 0; a->routed && i < n; i++) a->routed[i] = k->pending.tokens[i].routed;
    event->routed = a->routed;
    event->n_routed = a->routed ? n : 0;
    if (c->request.routed) attach_layers(k, event, a);
    if (c->request.logprobs) {
        a->own = lc_calloc(n, sizeof *a->own);
        a->top = lc_calloc(n * LC_TOP_LOGPROBS, sizeof *a->top);
        a->tops = lc_calloc(n, sizeof *a->tops);
        a->n_tops = lc_calloc(n, sizeof *a->n_tops);
        bool ok = a->own && a->top && a->tops && a->n_tops;
        for (size_t i = 0; ok && i < n; i++) {
            const lc_task_token *t = &k->pending.tokens[i];
            a->own[i] = logprob_of(c, (lc_token_logprob){t->token, t->own.logprob});
            a->tops[i] = a->top + i * LC_TOP_LOGPROBS;
            a->n_tops[i] = t->n_top;
            for (size_t j = 0; j < t->n_top; j++)
                a->top[i * LC_TOP_LOGPROBS + j] = logprob_of(c, t->top[j]);
        }
        if (ok) {
            event->logprobs = a->own;
            event->tops = a->tops;
            event->n_tops = a->n_tops;
            event->n_logprobs = n;
        }
    }
    k->pending.n = 0;
}

static void send_text(lc_choice *k, lc_api_event_kind kind, const char *text, size_t len) {
    lc_api_event event = {.kind = kind, .choice = k->index, .text = text, .len = len};
    attached a;
    attach(k, &event, &a);
    send_event(k->call, &event);
    free_attached(&a);
}

/* An answer of which a part is missing must not pass for a whole one. */
static void lose(lc_choice *k) {
    atomic_store(&k->lost, true);
    if (k->submitted && !k->ended && !k->call->service->closed)
        lc_sched_cancel(k->call->service->o.sched, k->task);
}

static void send_call(lc_choice *k, const lc_toolcall *call) {
    size_t at = k->n_call_ids;
    void *grown = lc_realloc(k->call_ids, at + 1, sizeof *k->call_ids);
    if (!grown) {
        lose(k);
        return;
    }
    k->call_ids = grown;
    memcpy(k->call_ids[at], "call_", 5);
    lc_random_letters(k->call_ids[at] + 5, LC_ID_LETTERS);
    k->n_call_ids++;
    send_event(k->call, &(lc_api_event){.kind = LC_API_CALL,
                                        .choice = k->index,
                                        .call_id = k->call_ids[at],
                                        .name = call->name,
                                        .arguments = json_object_to_json_string_ext(
                                            call->arguments, JSON_C_TO_STRING_PLAIN)});
    k->pending.n = 0;
}

/* Sends what the parser has become certain of. */
static void send_parsed(lc_choice *k) {
    lc_parsed p = lc_toolparser_result(k->parser);
    if (p.reasoning_len > k->reasoning_sent)
        send_text(k, LC_API_REASONING, p.reasoning + k->reasoning_sent,
                  p.reasoning_len - k->reasoning_sent);
    k->reasoning_sent = p.reasoning_len;
    if (p.content_len > k->content_sent)
        send_text(k, LC_API_CONTENT, p.content + k->content_sent, p.content_len - k->content_sent);
    k->content_sent = p.content_len;
    for (; k->calls_sent < p.n_calls; k->calls_sent++) send_call(k, &p.calls[k->calls_sent]);
}

/* ---- from the scheduler ---- */

typedef struct token_post {
    lc_choice *choice;
    lc_task_token token;
    char text[];
} token_post;

static void note_pending(lc_choice *k, const lc_task_token *token) {
    lc_pending *p = &k->pending;
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 16;
        void *grown = lc_realloc(p->tokens, cap, sizeof *p->tokens);
        if (!grown) {
            lose(k);
            return;
        }
        p->tokens = grown;
        p->cap = cap;
    }
    p->tokens[p->n++] = *token;
}

static void take_token(void *ctx) {
    token_post *post = ctx;
    lc_choice *k = post->choice;
    lc_call *c = k->call;
    lc_task_token *t = &post->token;
    t->text = post->text;
    if (t->token >= 0) note_pending(k, t);
    if (k->prompt_left && t->token >= 0) {
        k->prompt_left--;
        send_text(k, LC_API_PROMPT, t->text, t->len);
        lc_free(post);
        return;
    }
    uint64_t now = lc_clock_ns();
    if (!c->first_ns) {
        c->first_ns = now;
        lc_metrics_seconds(&c->service->metrics.first_token, (double)(now - c->began_ns) / 1e9);
    } else if (t->token >= 0) {
        lc_metrics_seconds(&c->service->metrics.between_tokens, (double)(now - c->last_ns) / 1e9);
    }
    c->last_ns = now;
    if (t->token >= 0 && !lc_ids_push(&k->tokens, t->token)) lose(k);
    if (!k->parser) {
        if (t->len) send_text(k, LC_API_CONTENT, t->text, t->len);
    } else if (lc_toolparser_push(k->parser, t->text, t->len, &k->err) == LC_OK) {
        lc_parsed p = lc_toolparser_result(k->parser);
        if (t->token >= 0 && p.has_reasoning && !p.content_len && !p.n_calls) k->reasoning_tokens++;
        send_parsed(k);
    } else {
        lose(k);
    }
    lc_free(post);
}

/* On the engine's thread, as on_end. */
static void on_token(void *ctx, const lc_task_token *token) {
    lc_choice *k = ctx;
    token_post *post = lc_alloc(sizeof *post + token->len + 1);
    if (post) {
        post->choice = k;
        post->token = *token;
        if (token->len) memcpy(post->text, token->text, token->len);
        post->text[token->len] = 0;
        if (lc_http_post(k->call->service->http, take_token, post) == LC_OK) return;
        lc_free(post);
    }
    atomic_store(&k->lost, true);
    lc_sched_cancel(k->call->service->o.sched, k->task);
}

/* ---- the end ---- */

/* Calls in front of a cut aren't all that the model would have said. */
static lc_api_reason reason_of(const lc_choice *k) {
    if (k->end == LC_TASK_LENGTH) return LC_REASON_LENGTH;
    if (k->calls_sent) return LC_REASON_CALLS;
    return k->end == LC_TASK_STRING ? LC_REASON_STOP_STRING : LC_REASON_STOP;
}

static lc_metric_end end_of(const lc_call *c) {
    lc_metric_end end = LC_END_STOP;
    for (size_t i = 0; i < c->n_choices; i++) {
        const lc_choice *k = &c->choices[i];
        if (k->end == LC_TASK_FAILED) return LC_END_ERROR;
        if (k->end == LC_TASK_CANCELED) return LC_END_ABORT;
        if (k->end == LC_TASK_LENGTH)
            end = LC_END_LENGTH;
        else if (k->calls_sent)
            end = LC_END_CALLS;
    }
    return end;
}

static void sum_usage(lc_call *c) {
    lc_service *s = c->service;
    lc_api_usage *out = &c->totals;
    *out = (lc_api_usage){0};
    for (size_t i = 0; i < c->n_choices; i++) {
        const lc_choice *k = &c->choices[i];
        const lc_task_result *r = &k->result;
        if (i % c->request.n == 0) { /* answers to the same prompt share it */
            out->prompt += (int64_t)r->prompt_tokens;
            out->cached += (int64_t)r->cached_tokens;
        }
        out->output += (int64_t)r->output_tokens;
        out->reasoning += (int64_t)k->reasoning_tokens;
        if (r->queue_s > out->queue_s) out->queue_s = r->queue_s;
        if (r->prefill_s > out->prefill_s) out->prefill_s = r->prefill_s;
        if (r->decode_s > out->decode_s) out->decode_s = r->decode_s;
    }
    lc_ledger_entry *u = &c->usage;
    u->time = time(NULL);
    u->key = c->visit->key.id;
    u->fresh = out->prompt - out->cached;
    u->cached = out->cached;
    u->output = out->output;
    u->reasoning = out->reasoning;
    u->milliseconds = (int64_t)(seconds_since(c->began_ns) * 1e3);
    snprintf(u->request_id, sizeof u->request_id, "%s", c->visit->request_id);
    snprintf(u->model, sizeof u->model, "%s", s->o.model);
    snprintf(u->dialect, sizeof u->dialect, "%s", c->dialect->name);
    snprintf(u->finish, sizeof u->finish, "%s", lc_metric_end_name(end_of(c)));
    if (s->o.accounts)
        out->cost_yuan =
            (double)lc_ledger_price(s->o.accounts, u->model, u->fresh, u->cached, u->output) / 1e9;
}

/* Only what is in the ledger: the two agree. */
static void count_metrics(lc_call *c) {
    lc_metrics *m = &c->service->metrics;
    const lc_api_usage *u = &c->totals;
    m->ends[c->unbilled ? LC_END_ERROR : end_of(c)]++;
    if (c->unbilled) return;
    m->prompt += (uint64_t)u->prompt;
    m->cached += (uint64_t)u->cached;
    m->output += (uint64_t)u->output;
    lc_metrics_seconds(&m->whole, seconds_since(c->began_ns));
    lc_metrics_seconds(&m->queue, u->queue_s);
    lc_metrics_seconds(&m->prefill, u->prefill_s);
    lc_metrics_seconds(&m->decode, u->decode_s);
    lc_metrics_tokens(&m->prompt_tokens, u->prompt);
    lc_metrics_tokens(&m->output_tokens, u->output);
}

static void set_error(lc_call *c, int status, const char *code, const char *text) {
    c->error.status = status;
    snprintf(c->error.code, sizeof c->error.code, "%s", code);
    snprintf(c->error.text, sizeof c->error.text, "%s", text);
}

/* What keeps the call from being an answer; false: nothing. */
static bool find_error(lc_call *c) {
    const lc_choice *failed = NULL;
    for (size_t i = 0; i < c->n_choices && !failed; i++)
        if (c->choices[i].end == LC_TASK_FAILED || c->choices[i].end == LC_TASK_CANCELED)
            failed = &c->choices[i];
    if (failed && failed->end == LC_TASK_CANCELED)
        set_error(c, 503, "shutting_down", "the server is shutting down");
    else if (failed)
        set_error(c, 500, "internal_error", failed->err.text);
    else if (c->unbilled) /* what isn't in the ledger isn't answered */
        set_error(c, 503, "ledger_unavailable",
                  "the usage can't be recorded: see the server's log");
    return failed || c->unbilled;
}

static void finish_call(void *ctx) {
    lc_call *c = ctx;
    bool failed = find_error(c);
    count_metrics(c);
    int status = !c->exchange ? 499 : failed ? c->error.status : 200;
    if (failed) {
        send_event(c, &(lc_api_event){.kind = LC_API_ERROR, .error = &c->error});
    } else {
        for (size_t i = 0; i < c->n_choices; i++)
            send_event(c, &(lc_api_event){.kind = LC_API_FINISH,
                                          .choice = i,
                                          .reason = reason_of(&c->choices[i]),
                                          .stop_string = c->choices[i].result.stop_string});
        send_event(c, &(lc_api_event){.kind = LC_API_USAGE, .usage = c->totals});
    }
    write_log(c, status);
    free_call(c);
}

static void settle(lc_job *job) {
    lc_call *c = (lc_call *)(void *)((char *)job - offsetof(lc_call, job));
    lc_call_settle(c);
    lc_http_post_kept(c->service->http, &c->post, finish_call, c);
}

static void take_end(void *ctx) {
    lc_choice *k = ctx;
    lc_call *c = k->call;
    const lc_task_result *r = &k->result;
    k->ended = true;
    k->end = r->end;
    if (r->end == LC_TASK_FAILED) k->err = r->err;
    if (k->parser) {
        lc_finish finish =
            r->end == LC_TASK_STOP || r->end == LC_TASK_STRING ? LC_FINISH_STOP : LC_FINISH_LENGTH;
        if (lc_toolparser_finish(k->parser, finish, &k->err) == LC_OK)
            send_parsed(k);
        else
            lose(k);
    } else if (k->pending.n) { /* last tokens that gave no text have log probabilities */
        send_text(k, LC_API_CONTENT, "", 0);
    }
    if (atomic_load(&k->lost)) {
        k->end = LC_TASK_FAILED;
        lc_fail(&k->err, LC_ENOMEM, "out of memory");
    }
    if (--c->running) return;
    if (c->refused) {
        fail_call(c);
        return;
    }
    sum_usage(c);
    c->job.run = settle;
    lc_service_submit(c->service, &c->job, 0);
}

static void on_end(void *ctx, const lc_task_result *result) {
    lc_choice *k = ctx;
    const lc_api_request *r = &k->call->request;
    k->result = *result;
    k->result.tokens = NULL; /* they and the string are the task's, which ends now */
    k->result.stop_string = NULL;
    for (size_t i = 0; i < r->n_stops && result->stop_string; i++)
        if (!strcmp(r->stops[i], result->stop_string)) k->result.stop_string = r->stops[i];
    lc_http_post_kept(k->call->service->http, &k->end_post, take_end, k);
}

/* ---- the beginning ---- */

static int submit(lc_choice *k, lc_err *err) {
    lc_call *c = k->call;
    const lc_api_request *r = &c->request;
    const lc_ids *prompt = &c->prompts[k->prompt];
    lc_task task = {
        .tokens = prompt->data,
        .count = prompt->len,
        .how = {.sampling = c->sampling,
                .max_tokens = (size_t)r->max_tokens,
                .ignore_eos = r->ignore_eos,
                .special_text = r->messages != NULL,
                .stop = (const char *const *)r->stops,
                .n_stop = r->n_stops},
        .grammar = c->grammar,
        .logprobs = r->logprobs,
        .top_logprobs = r->top_logprobs,
        .echo = r->echo,
        .tenant = c->visit->key.tenant,
        .key = (uint64_t)c->visit->key.id,
        .light = prompt->len < 1024 && r->max_tokens <= 256,
        .events = {.ctx = k, .token = on_token, .end = on_end},
    };
    task.how.sampling.seed += k->index;
    int status = lc_sched_submit(c->service->o.sched, &task, &k->task, err);
    k->submitted = status == LC_OK;
    if (k->submitted) c->running++;
    return status;
}

static bool too_long(lc_call *c) {
    double wait = lc_sched_predict(c->service->o.sched, 0);
    if (wait <= c->service->o.longest_wait) return false;
    c->error = (lc_api_error){.status = 429, .code = "overloaded", .retry_after = wait / 2};
    snprintf(c->error.text, sizeof c->error.text, "about %.0f s of work are waiting here", wait);
    return true;
}

static void refuse_submit(lc_call *c, int status, bool full, const char *text) {
    if (full) {
        set_error(c, 429, "overloaded", text);
        c->error.retry_after = lc_sched_predict(c->service->o.sched, 0) / 2 + 1;
    } else if (status == LC_ECANCELED) {
        set_error(c, 503, "shutting_down", "the server is shutting down");
    } else if (status == LC_ENOMEM) {
        set_error(c, 503, "internal_error", text);
    } else { /* it will never fit */
        set_error(c, 400, "invalid_parameter", text);
    }
}

/* All answers are in the queue, or none. A 429 says that it may work later. */
static bool submit_all(lc_call *c) {
    lc_err err = {0};
    for (size_t i = 0; i < c->n_choices; i++) {
        int status = submit(&c->choices[i], &err);
        if (status == LC_OK) continue;
        refuse_submit(c, status, c->choices[i].task == LC_SCHED_FULL, err.text);
        cancel_tasks(c);
        return false;
    }
    return true;
}

/* Prepared. The exchange may be gone. */
static void take_prepared(void *ctx) {
    lc_call *c = ctx;
    lc_err err = {0};
    if (c->service->closed) set_error(c, 503, "shutting_down", "the server is shutting down");
    if (!c->exchange || c->error.status || too_long(c)) {
        fail_call(c);
        return;
    }
    c->info.model = c->service->o.model;
    if (c->dialect->open(&c->request, &c->info, &c->reply, &err) != LC_OK) {
        set_error(c, 500, "internal_error", err.text);
        fail_call(c);
        return;
    }
    if (!submit_all(c)) {
        c->refused = true;
        if (!c->running) fail_call(c); /* else when those that were taken have ended */
        return;
    }
    char seed[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)c->sampling.seed);
    lc_exchange_header(c->exchange, "x-longcat-seed", seed, &err);
    if (c->request.stream) {
        lc_exchange_header(c->exchange, "cache-control", "no-cache", &err);
        lc_exchange_begin(c->exchange, 200, c->dialect->stream_type);
    }
    send_event(c, &(lc_api_event){.kind = LC_API_BEGIN});
}

static void prepare(lc_job *job) {
    lc_call *c = (lc_call *)(void *)((char *)job - offsetof(lc_call, job));
    lc_call_prepare(c);
    lc_http_post_kept(c->service->http, &c->post, take_prepared, c);
}

/* Headers that dialects may ask for: the exchange may be gone when they do. */
static struct json_object *copy_headers(const lc_exchange *x) {
    static const char *const names[] = {"anthropic-version", "x-longcat-routed"};
    struct json_object *out = json_object_new_object();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = lc_exchange_get(x, names[i]);
        if (value) json_object_object_add(out, names[i], json_object_new_string(value));
    }
    return out;
}

void lc_call_begin(lc_visit *v, lc_exchange *x) {
    lc_service *s = v->service;
    lc_call *c = lc_calloc(1, sizeof *c);
    size_t len;
    const char *body = lc_exchange_body(x, &len);
    char *copy = c ? lc_alloc(len + 1) : NULL;
    if (!copy) {
        lc_free(c);
        lc_visit_error(v, x, &(lc_api_error){.status = 503, .text = "out of memory"});
        return;
    }
    memcpy(copy, body, len);
    copy[len] = 0;
    *c = (lc_call){.service = s,
                   .visit = v,
                   .exchange = x,
                   .dialect = v->dialect,
                   .body = copy,
                   .body_len = len,
                   .headers = copy_headers(x),
                   .began_ns = v->began_ns,
                   .next = s->calls};
    lc_random_letters(c->id, LC_ID_LETTERS);
    c->info = (lc_api_reply_info){.id = c->id, .request_id = v->request_id, .created = time(NULL)};
    if (s->calls) s->calls->prev = c;
    s->calls = c;
    s->n_calls++;
    lc_exchange_on_close(x, on_gone, c);
    c->job.run = prepare;
    lc_service_submit(s, &c->job, len);
}
