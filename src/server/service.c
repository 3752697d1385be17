/* service.c: threads, routes, keys, draining; see service.h. */
#include "server/service_internal.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "engine/engine.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { SMALL_JOB = 1 << 20 }; /* bytes: what a worker does within a second */

static const double tick = 0.25; /* seconds between looks at pings and draining */

/* ---- workers ---- */

/* The first job of at most so many bytes, or NULL. */
static lc_job *take_job(lc_workers *w, size_t most) {
    lc_job **at = &w->first;
    while (*at && (*at)->bytes > most) at = &(*at)->next;
    lc_job *job = *at;
    if (!job) return NULL;
    *at = job->next;
    if (w->last == &job->next) w->last = at;
    return job;
}

/* One of the threads leaves large jobs to the others, so that small ones never wait for them. */
static void *work(void *ctx) {
    lc_workers *w = ctx;
    pthread_mutex_lock(&w->lock);
    size_t most = w->quick ? SIZE_MAX : SMALL_JOB;
    w->quick = true;
    for (;;) {
        lc_job *job;
        while (!(job = take_job(w, most)) && !w->stop) pthread_cond_wait(&w->some, &w->lock);
        pthread_mutex_unlock(&w->lock);
        if (!job) return NULL;
        job->run(job);
        pthread_mutex_lock(&w->lock);
    }
}

void lc_service_submit(lc_service *s, lc_job *job, size_t bytes) {
    lc_workers *w = &s->workers;
    if (s->closed) {
        job->run(job);
        return;
    }
    job->next = NULL;
    job->bytes = bytes;
    pthread_mutex_lock(&w->lock);
    *w->last = job;
    w->last = &job->next;
    pthread_cond_broadcast(&w->some);
    pthread_mutex_unlock(&w->lock);
}

static int start_workers(lc_workers *w, lc_err *err) {
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->some, NULL);
    w->last = &w->first;
    for (; w->n < LC_WORKERS; w->n++)
        if (pthread_create(&w->threads[w->n], NULL, work, w) != 0)
            return lc_fail(err, LC_ENOMEM, "service: no thread for a worker");
    return LC_OK;
}

static void stop_workers(lc_workers *w) {
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->some);
    pthread_mutex_unlock(&w->lock);
    for (size_t i = 0; i < w->n; i++) pthread_join(w->threads[i], NULL);
    pthread_cond_destroy(&w->some);
    pthread_mutex_destroy(&w->lock);
}

/* ---- names and routes ---- */

void lc_random_letters(char *out, size_t n) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
    unsigned char bytes[64] = {0};
    if (getrandom(bytes, n, 0) != (ssize_t)n) /* can't happen for up to 256 bytes; stays unique */
        snprintf((char *)bytes, sizeof bytes, "%llx", (unsigned long long)lc_clock_ns());
    for (size_t i = 0; i < n; i++) out[i] = letters[bytes[i] % 32];
    out[n] = 0;
}

static const char *behind(const char *path, const char *prefix) {
    size_t n = strlen(prefix);
    return strncmp(path, prefix, n) == 0 && path[n] == '/' ? path + n : NULL;
}

const char *lc_route_of(const char *path) {
    const char *rest = behind(path, "/openai");
    if (!rest) rest = behind(path, "/anthropic");
    if (rest) path = rest;
    while ((rest = behind(path, "/v1"))) path = rest;
    return path;
}

/* By the route, and elsewhere by what Anthropic's clients say. */
static const lc_dialect *dialect_of(const lc_exchange *x) {
    const char *path = lc_exchange_path(x), *route = path ? lc_route_of(path) : "";
    if (!strncmp(route, "/messages", 9)) return &lc_dialect_messages;
    if (!strncmp(route, "/responses", 10)) return &lc_dialect_responses;
    if (!strcmp(route, "/completions")) return &lc_dialect_completions;
    bool theirs = lc_exchange_get(x, "anthropic-version") || (path && behind(path, "/anthropic"));
    return theirs && strcmp(route, "/chat/completions") != 0 ? &lc_dialect_messages
                                                             : &lc_dialect_chat;
}

/* Generations: POST to one of these. */
static bool generates(const char *route) {
    static const char *const list[] = {"/chat/completions", "/completions", "/responses",
                                       "/messages"};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (!strcmp(route, list[i])) return true;
    return false;
}

/* What is answered without a key: the page, probes, what describes the service. */
static bool is_public(const char *method, const char *path) {
    static const char *const list[] = {"/",         "/health",       "/live",
                                       "/ready",    "/version",      "/page.js",
                                       "/page.css", "/openapi.json", "/api/hello"};
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) return false;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (!strcmp(path, list[i])) return true;
    return false;
}

/* ---- visits ---- */

void lc_visit_done(lc_visit *v, int status, const char *details) {
    lc_service *s = v->service;
    lc_buf line = {0};
    char when[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    if (status >= 100 && status < 600) s->metrics.replies[status / 100]++;
    lc_buf_printf(&line,
                  "{\"time\":\"%s\",\"request_id\":\"%s\",\"route\":\"%s\",\"status\":%d,"
                  "\"key\":%lld,\"ms\":%.1f%s}",
                  when, v->request_id, v->what, status, (long long)v->key.id,
                  (double)(lc_clock_ns() - v->began_ns) / 1e6, details ? details : "");
    if (s->o.access && !line.failed) s->o.access(s->o.access_ctx, line.data);
    lc_buf_free(&line);
    if (v->key.id && s->o.accounts) lc_key_end(s->o.accounts, v->key.id);
    lc_free(v);
}

void lc_visit_error(lc_visit *v, lc_exchange *x, const lc_api_error *e) {
    lc_buf body = {0};
    char seconds[32];
    lc_err err = {0};
    if (e->retry_after > 0) {
        snprintf(seconds, sizeof seconds, "%.0f", e->retry_after < 1 ? 1 : e->retry_after);
        lc_exchange_header(x, "retry-after", seconds, &err);
    }
    v->dialect->error(e, v->request_id, &body);
    lc_exchange_user(x, NULL);
    lc_exchange_on_close(x, NULL, NULL);
    lc_visit_done(v, e->status, NULL);
    bool whole = body.data && !body.failed;
    lc_exchange_reply(x, e->status, "application/json", whole ? body.data : "",
                      whole ? body.len : 0);
    lc_buf_free(&body);
}

static void visit_closed(void *ctx) { lc_visit_done(ctx, 499, NULL); }

static const char *secret_of(const lc_exchange *x) {
    const char *bearer = lc_exchange_get(x, "authorization");
    if (bearer && !strncasecmp(bearer, "bearer ", 7)) return bearer + 7 + strspn(bearer + 7, " ");
    const char *key = lc_exchange_get(x, "x-api-key");
    return key ? key : "";
}

/* Whether the key allows it; fills the error otherwise. */
static bool admit(lc_visit *v, const lc_exchange *x, lc_api_error *e) {
    lc_service *s = v->service;
    /* From the first key on; revoking all of them opens nothing. */
    if (!s->o.keys && s->o.accounts) s->o.keys = lc_keys_active(s->o.accounts);
    if (!s->o.keys) return true;
    double wait = 0;
    switch (lc_key_begin(s->o.accounts, secret_of(x), time(NULL), &v->key, &wait)) {
    case LC_KEY_OK: return true;
    case LC_KEY_UNKNOWN:
        *e = (lc_api_error){.status = 401,
                            .code = "invalid_api_key",
                            .text = "this server needs a valid API key (longcat keys create)"};
        break;
    case LC_KEY_QUOTA:
        *e = (lc_api_error){.status = 402,
                            .code = "insufficient_quota",
                            .text = "the quota of this key is used up"};
        break;
    case LC_KEY_RATE:
        *e = (lc_api_error){.status = 429,
                            .code = "rate_limit_exceeded",
                            .text = "the rate limit of this key is reached",
                            .retry_after = wait};
        break;
    case LC_KEY_PARALLEL:
        *e = (lc_api_error){.status = 429,
                            .code = "rate_limit_exceeded",
                            .text = "too many requests of this key at a time",
                            .retry_after = 1};
        break;
    }
    v->key.id = 0;
    return false;
}

/* NULL: out of memory. */
static lc_visit *begin_visit(lc_service *s, lc_exchange *x) {
    const char *method = lc_exchange_method(x), *path = lc_exchange_path(x);
    lc_visit *v = lc_calloc(1, sizeof *v);
    if (!v) return NULL;
    *v = (lc_visit){.service = s, .began_ns = lc_clock_ns(), .dialect = dialect_of(x)};
    snprintf(v->what, sizeof v->what, "%s %.64s", method ? method : "-", path ? path : "-");
    for (char *p = v->what; *p; p++)
        if (*p < ' ' || *p == '"' || *p == '\\' || *p == 0x7f) *p = '?';
    memcpy(v->request_id, "req_", 4);
    lc_random_letters(v->request_id + 4, LC_ID_LETTERS);
    lc_err err = {0};
    lc_exchange_header(x, "request-id", v->request_id, &err);
    lc_exchange_header(x, "x-request-id", v->request_id, &err);
    lc_exchange_user(x, v);
    lc_exchange_on_close(x, visit_closed, v);
    return v;
}

/* Before the body is read. */
static int on_head(void *ctx, lc_exchange *x) {
    lc_service *s = ctx;
    lc_visit *v = begin_visit(s, x);
    lc_api_error e = {0};
    if (!v) return 503;
    bool open = is_public(lc_exchange_method(x), lc_exchange_path(x));
    if (!open && s->draining) {
        e = (lc_api_error){.status = 503,
                           .code = "shutting_down",
                           .text = "the server is shutting down",
                           .retry_after = 5};
        lc_visit_error(v, x, &e);
        return -1;
    }
    if (open || admit(v, x, &e)) return 0;
    lc_visit_error(v, x, &e);
    return -1;
}

static void on_request(void *ctx, lc_exchange *x) {
    (void)ctx;
    lc_visit *v = lc_exchange_get_user(x);
    const char *method = lc_exchange_method(x), *path = lc_exchange_path(x);
    const char *route = lc_route_of(path);
    if (!strcmp(method, "POST") && generates(route)) {
        lc_call_begin(v, x);
        return;
    }
    if (lc_route_light(v, x, method, route)) return;
    lc_api_error e = {.status = 404, .code = "not_found"};
    const char *allow = generates(route) ? "POST" : lc_route_allows(v->service, route);
    if (allow) {
        lc_err err = {0};
        e = (lc_api_error){.status = 405, .code = "method_not_allowed"};
        lc_exchange_header(x, "allow", allow, &err);
    }
    snprintf(e.text, sizeof e.text, "%s %.200s: %s", method, path,
             allow ? "not this method" : "no such route");
    lc_visit_error(v, x, &e);
}

static void on_http_error(void *ctx, lc_exchange *x, int status, const char *message, lc_buf *out) {
    lc_api_error e = {.status = status};
    lc_visit *v = lc_exchange_get_user(x);
    if (!v) v = begin_visit(ctx, x);
    if (!v) return;
    snprintf(e.text, sizeof e.text, "%s", message);
    v->dialect->error(&e, v->request_id, out);
    lc_exchange_user(x, NULL);
    lc_exchange_on_close(x, NULL, NULL);
    lc_visit_done(v, status, NULL);
}

/* ---- life ---- */

static void drain(void *ctx) {
    lc_service *s = ctx;
    if (s->draining) { /* the second time: now */
        lc_calls_cancel(s);
        lc_http_quit(s->http);
        return;
    }
    s->draining = true;
    s->drain_until = lc_clock_ns() + (uint64_t)(s->o.drain * 1e9);
    lc_log(LC_LOG_INFO, "shutting down: %zu answers are running, they get %.0f s", s->n_calls,
           s->o.drain);
    lc_http_drain(s->http);
}

static void reload(void *ctx) {
    lc_service *s = ctx;
    lc_err err = {0};
    if (lc_http_reload(s->http, &err) != LC_OK)
        lc_log(LC_LOG_ERROR, "certificate not changed: %s", err.text);
    else
        lc_log(LC_LOG_INFO, "certificate read again");
}

static void on_tick(void *ctx) {
    lc_service *s = ctx;
    lc_calls_ping(s);
    if (!s->draining) return;
    if (lc_clock_ns() > s->drain_until) lc_calls_cancel(s);
    if (!s->n_calls && !lc_http_open_exchanges(s->http)) lc_http_quit(s->http);
    if (lc_clock_ns() > s->drain_until + 2000000000u) lc_http_quit(s->http);
}

static int open_http(lc_service *s, lc_err *err) {
    lc_http_options http = s->o.http;
    http.ctx = s;
    http.request = on_request;
    http.head = on_head;
    http.error = on_http_error;
    http.server = "longcat/" LC_VERSION;
    int status = lc_http_open(&http, &s->http, err);
    if (status == LC_OK) status = lc_http_signal(s->http, SIGTERM, drain, s, err);
    if (status == LC_OK) status = lc_http_signal(s->http, SIGINT, drain, s, err);
    if (status == LC_OK) status = lc_http_signal(s->http, SIGHUP, reload, s, err);
    if (status == LC_OK) status = lc_http_every(s->http, tick, on_tick, s, err);
    return status;
}

int lc_service_open(const lc_service_options *options, lc_service **out, lc_err *err) {
    const lc_engine *e = options->engine;
    const lc_config *c = &e->model->config;
    lc_service *s = lc_calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return lc_fail(err, LC_ENOMEM, "service: out of memory");
    s->o = *options;
    s->started = time(NULL);
    s->opened_ns = lc_clock_ns();
    s->most_answers = lc_sched_waiting(options->sched);
    int status = start_workers(&s->workers, err);
    if (status == LC_OK)
        status = lc_prompter_init(&s->prompter, options->tmpl, e->tokenizer, options->replay,
                                  c->eos_ids, c->n_eos, err);
    if (status == LC_OK)
        status = lc_grammar_vocab_new(e->tokenizer, c->vocab, c->eos_ids, c->n_eos, &s->vocab, err);
    if (status == LC_OK) status = open_http(s, err);
    if (status != LC_OK) {
        lc_service_free(s);
        return status;
    }
    *out = s;
    return LC_OK;
}

int lc_service_port(const lc_service *s) { return lc_http_port(s->http); }

int lc_service_run(lc_service *s, lc_err *err) { return lc_http_run(s->http, err); }

void lc_service_stop(lc_service *s) { lc_http_post(s->http, drain, s); }

void lc_service_free(lc_service *s) {
    if (!s) return;
    s->closed = true;
    stop_workers(&s->workers);                /* what they were given is done */
    if (s->http) lc_http_run_posted(s->http); /* all tasks have ended: so do all calls */
    lc_http_free(s->http);
    lc_grammar_vocab_free(s->vocab);
    lc_free(s);
}
