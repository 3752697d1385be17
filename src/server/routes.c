/* routes.c: everything but generations: models, tokens, health, numbers, the page. What needs a
 * tokenizer or a template runs on a worker. */
#include "server/service_internal.h"

#include "base/clock.h"
#include "base/err.h"
#include "engine/engine.h"
#include "server/page.h"

#include <stdio.h>
#include <string.h>

static void reply(lc_visit *v, lc_exchange *x, int status, const char *type, const lc_buf *body) {
    lc_exchange_on_close(x, NULL, NULL);
    lc_visit_done(v, body->failed ? 503 : status, NULL);
    lc_exchange_reply(x, body->failed ? 503 : status, type, body->data ? body->data : "",
                      body->failed ? 0 : body->len);
}

static void reply_text(lc_visit *v, lc_exchange *x, int status, const char *json) {
    lc_buf body = {0};
    lc_buf_puts(&body, json);
    reply(v, x, status, "application/json", &body);
    lc_buf_free(&body);
}

/* The value's text; it is given up. */
static void write_json(struct json_object *value, lc_buf *out) {
    lc_buf_puts(out, json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
    json_object_put(value);
}

static void reply_json(lc_visit *v, lc_exchange *x, struct json_object *value) {
    lc_buf body = {0};
    write_json(value, &body);
    reply(v, x, 200, "application/json", &body);
    lc_buf_free(&body);
}

/* ---- state ---- */

static struct json_object *number(double value) { return json_object_new_double(value); }
static struct json_object *count(uint64_t value) { return json_object_new_uint64(value); }

static void health(lc_visit *v, lc_exchange *x) { reply_text(v, x, 200, "{\"status\":\"ok\"}"); }

static void ready(lc_visit *v, lc_exchange *x) {
    bool draining = v->service->draining;
    reply_text(v, x, draining ? 503 : 200,
               draining ? "{\"status\":\"draining\"}" : "{\"status\":\"ok\"}");
}

static void version(lc_visit *v, lc_exchange *x) {
    reply_text(v, x, 200, "{\"version\":\"" LC_VERSION "\"}");
}

static void metrics(lc_visit *v, lc_exchange *x) {
    const lc_service *s = v->service;
    lc_sched_stats sched;
    lc_cache_stats cache = {0};
    lc_buf body = {0};
    lc_sched_stats_get(s->o.sched, &sched);
    if (s->o.cache) lc_cache_stats_get(s->o.cache, &cache);
    lc_metrics_write(&s->metrics, s->o.metrics_prefix, s->o.model, &sched,
                     s->o.cache ? &cache : NULL, &body);
    reply(v, x, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
    lc_buf_free(&body);
}

static struct json_object *cache_state(lc_cache *cache) {
    lc_cache_stats c;
    struct json_object *out = json_object_new_object();
    lc_cache_stats_get(cache, &c);
    json_object_object_add(out, "ram_bytes", count(c.ram_bytes));
    json_object_object_add(out, "disk_bytes", count(c.disk_bytes));
    json_object_object_add(out, "hit_tokens", count(c.hits));
    json_object_object_add(out, "disk_hit_tokens", count(c.hits_disk));
    json_object_object_add(out, "query_tokens", count(c.queries));
    json_object_object_add(out, "damaged", count(c.damaged));
    json_object_object_add(out, "disk_failed", json_object_new_boolean(c.disk_failed));
    return out;
}

static void state(lc_visit *v, lc_exchange *x) {
    const lc_service *s = v->service;
    lc_sched_stats n;
    struct json_object *out = json_object_new_object();
    lc_sched_stats_get(s->o.sched, &n);
    json_object_object_add(out, "model", json_object_new_string(s->o.model));
    json_object_object_add(out, "context", count(lc_engine_context(s->o.engine)));
    json_object_object_add(out, "uptime_s", number((double)(lc_clock_ns() - s->opened_ns) / 1e9));
    json_object_object_add(out, "running", count(n.running));
    json_object_object_add(out, "waiting", count(n.waiting));
    json_object_object_add(out, "prefill_tokens_per_s", number(n.prefill_rate));
    json_object_object_add(out, "decode_tokens_per_s", number(n.decode_rate));
    json_object_object_add(out, "prompt_tokens", count(n.prompt_tokens));
    json_object_object_add(out, "cached_tokens", count(n.cached_tokens));
    json_object_object_add(out, "output_tokens", count(n.output_tokens));
    if (s->o.cache) json_object_object_add(out, "cache", cache_state(s->o.cache));
    reply_json(v, x, out);
}

static void experts(lc_visit *v, lc_exchange *x) {
    const lc_service *s = v->service;
    const lc_config *c = &s->o.engine->model->config;
    lc_sched_stats n;
    lc_sched_stats_get(s->o.sched, &n);
    uint64_t *counts = lc_calloc(n.layers * n.entries + 1, sizeof *counts);
    struct json_object *out = json_object_new_object(), *rows = json_object_new_array();
    if (counts) lc_sched_experts(s->o.sched, counts);
    for (size_t i = 0; counts && i < n.layers; i++) {
        struct json_object *row = json_object_new_array();
        for (size_t j = 0; j < n.entries; j++)
            json_object_array_add(row, count(counts[i * n.entries + j]));
        json_object_array_add(rows, row);
    }
    lc_free(counts);
    json_object_object_add(out, "experts", count(c->experts));
    json_object_object_add(out, "zero_experts", count(n.entries - c->experts));
    json_object_object_add(out, "per_token", count(c->topk));
    lc_param_counts params;
    lc_config_count(c, &params);
    double most = (double)(c->topk < c->experts ? c->topk : c->experts); /* routed at a time */
    json_object_object_add(out, "active_base", number((double)params.active_zero));
    json_object_object_add(out, "active_per_expert",
                           number((double)(params.active_all - params.active_zero) / most));
    json_object_object_add(out, "counts", rows);
    reply_json(v, x, out);
}

/* ---- models: one body that the SDKs of both vendors parse ---- */

static struct json_object *model_entry(const lc_service *s) {
    struct json_object *m = json_object_new_object();
    char when[32];
    time_t started = (time_t)s->started;
    struct tm utc;
    gmtime_r(&started, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    json_object_object_add(m, "id", json_object_new_string(s->o.model));
    json_object_object_add(m, "object", json_object_new_string("model"));
    json_object_object_add(m, "type", json_object_new_string("model"));
    json_object_object_add(m, "display_name", json_object_new_string(s->o.model));
    json_object_object_add(m, "created", json_object_new_int64(s->started));
    json_object_object_add(m, "created_at", json_object_new_string(when));
    json_object_object_add(m, "owned_by", json_object_new_string("longcat"));
    json_object_object_add(m, "max_model_len", count(lc_engine_context(s->o.engine)));
    return m;
}

static bool models(lc_visit *v, lc_exchange *x, const char *route) {
    const lc_service *s = v->service;
    if (!strncmp(route, "/models/", 8)) {
        if (strcmp(route + 8, s->o.model) != 0) return false;
        reply_json(v, x, model_entry(s));
        return true;
    }
    if (strcmp(route, "/models") != 0) return false;
    struct json_object *out = json_object_new_object(), *list = json_object_new_array();
    json_object_array_add(list, model_entry(s));
    json_object_object_add(out, "object", json_object_new_string("list"));
    json_object_object_add(out, "data", list);
    json_object_object_add(out, "has_more", json_object_new_boolean(false));
    json_object_object_add(out, "first_id", json_object_new_string(s->o.model));
    json_object_object_add(out, "last_id", json_object_new_string(s->o.model));
    reply_json(v, x, out);
    return true;
}

/* ---- text and tokens, on a worker ---- */

typedef struct light {
    lc_job job;
    lc_http_posted post;
    lc_visit *visit;
    lc_exchange *exchange; /* NULL: gone */
    char *body;
    size_t len;
    void (*make)(struct light *l, struct json_object *body);
    struct json_object *out;
    lc_buf text; /* of out */
    lc_api_error error;
} light;

static void refuse(light *l, const lc_err *err) {
    l->error.status = err->code == LC_ENOMEM ? 503 : 400;
    snprintf(l->error.code, sizeof l->error.code, "invalid_parameter");
    snprintf(l->error.text, sizeof l->error.text, "%s", err->text);
}

static struct json_object *ids_json(const lc_ids *ids) {
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < ids->len; i++)
        json_object_array_add(list, json_object_new_int(ids->data[i]));
    return list;
}

static int read_flag(struct json_object *body, const char *name, bool *out, lc_err *err) {
    struct json_object *value = json_object_object_get(body, name);
    if (value && json_object_get_type(value) != json_type_boolean)
        return lc_fail(err, LC_EINVAL, "%s: true or false is needed", name);
    *out = json_object_get_boolean(value);
    return LC_OK;
}

/* {content | prompt, add_special, parse_special} -> {tokens, count} */
static void make_tokens(light *l, struct json_object *body) {
    const lc_service *s = l->visit->service;
    struct json_object *text = json_object_object_get(body, "content");
    lc_ids ids = {0};
    lc_err err = {0};
    if (!text) text = json_object_object_get(body, "prompt");
    int status = json_object_get_type(text) == json_type_string
                     ? LC_OK
                     : lc_fail(&err, LC_EINVAL, "content: a string is needed");
    bool special = false, parse = false;
    if (status == LC_OK) status = read_flag(body, "add_special", &special, &err);
    if (status == LC_OK) status = read_flag(body, "parse_special", &parse, &err);
    if (status == LC_OK)
        status =
            lc_tokenizer_encode(s->prompter.tokenizer, json_object_get_string(text),
                                (size_t)json_object_get_string_len(text),
                                parse ? LC_ENCODE_ALL : LC_ENCODE_NO_SPECIAL, special, &ids, &err);
    if (status == LC_OK) {
        l->out = json_object_new_object();
        json_object_object_add(l->out, "tokens", ids_json(&ids));
        json_object_object_add(l->out, "count", count(ids.len));
    } else {
        refuse(l, &err);
    }
    lc_ids_free(&ids);
}

/* {tokens} -> {content} */
static void make_text(light *l, struct json_object *body) {
    struct json_object *list = json_object_object_get(body, "tokens");
    size_t vocab = l->visit->service->o.engine->model->config.vocab;
    lc_ids ids = {0};
    lc_buf text = {0};
    lc_err err = {0};
    int status = json_object_get_type(list) == json_type_array
                     ? LC_OK
                     : lc_fail(&err, LC_EINVAL, "tokens: an array of ids is needed");
    for (size_t i = 0; status == LC_OK && i < json_object_array_length(list); i++) {
        struct json_object *id = json_object_array_get_idx(list, i);
        int64_t value = json_object_get_int64(id);
        if (json_object_get_type(id) != json_type_int || value < 0 || value >= (int64_t)vocab)
            status = lc_fail(&err, LC_EINVAL, "tokens[%zu]: an id from 0 to %zu is needed", i,
                             vocab - 1);
        else
            lc_ids_push(&ids, (int32_t)value);
    }
    if (ids.failed) status = lc_fail(&err, LC_ENOMEM, "tokens: out of memory");
    if (status == LC_OK)
        status = lc_tokenizer_decode(l->visit->service->prompter.tokenizer, ids.data, ids.len,
                                     false, &text, &err);
    if (status == LC_OK) {
        l->out = json_object_new_object();
        json_object_object_add(
            l->out, "content",
            json_object_new_string_len(text.data ? text.data : "", (int)text.len));
    } else {
        refuse(l, &err);
    }
    lc_ids_free(&ids);
    lc_buf_free(&text);
}

static const char *no_header(void *ctx, const char *name) {
    (void)ctx, (void)name;
    return NULL;
}

/* The prompt that a request of the dialect would give. */
static bool make_prompt(light *l, const lc_dialect *dialect, struct json_object *body,
                        lc_ids *ids) {
    lc_api_request r = {0};
    lc_err err = {0};
    size_t head;
    dialect->parse(body, no_header, NULL, &r, &l->error);
    if (!l->error.status && lc_prompt_chat(&l->visit->service->prompter, l->visit->key.tenant, &r,
                                           false, ids, &head, &err) != LC_OK)
        refuse(l, &err);
    lc_api_request_free(&r);
    return !l->error.status;
}

/* {messages, ...} -> {input_tokens} */
static void make_count(light *l, struct json_object *body) {
    lc_ids ids = {0};
    if (!json_object_object_get(body, "max_tokens")) /* not asked for here */
        json_object_object_add(body, "max_tokens", json_object_new_int(1));
    if (make_prompt(l, &lc_dialect_messages, body, &ids)) {
        l->out = json_object_new_object();
        json_object_object_add(l->out, "input_tokens", count(ids.len));
    }
    lc_ids_free(&ids);
}

/* {messages, ...} -> {prompt, tokens} */
static void make_template(light *l, struct json_object *body) {
    lc_ids ids = {0};
    lc_buf text = {0};
    lc_err err = {0};
    if (make_prompt(l, &lc_dialect_chat, body, &ids)) {
        if (lc_tokenizer_decode(l->visit->service->prompter.tokenizer, ids.data, ids.len, false,
                                &text, &err) == LC_OK) {
            l->out = json_object_new_object();
            json_object_object_add(
                l->out, "prompt",
                json_object_new_string_len(text.data ? text.data : "", (int)text.len));
            json_object_object_add(l->out, "tokens", ids_json(&ids));
        } else {
            refuse(l, &err);
        }
    }
    lc_ids_free(&ids);
    lc_buf_free(&text);
}

static void light_gone(void *ctx) { ((light *)ctx)->exchange = NULL; }

static void light_done(void *ctx) {
    light *l = ctx;
    if (!l->exchange)
        lc_visit_done(l->visit, 499, NULL);
    else if (l->error.status)
        lc_visit_error(l->visit, l->exchange, &l->error);
    else
        reply(l->visit, l->exchange, 200, "application/json", &l->text);
    lc_buf_free(&l->text);
    lc_free(l->body);
    lc_free(l);
}

static void light_run(lc_job *job) {
    light *l = (light *)(void *)job; /* job is its first member */
    struct json_object *body = NULL;
    lc_err err = {0};
    if (lc_json_parse(l->body, l->len, "body", &body, &err) != LC_OK)
        refuse(l, &err);
    else if (json_object_get_type(body) != json_type_object)
        refuse(l, (lc_fail(&err, LC_EINVAL, "body: not a JSON object"), &err));
    else
        l->make(l, body);
    json_object_put(body);
    if (!l->error.status) write_json(l->out, &l->text); /* large: not on the loop's thread */
    lc_http_post_kept(l->visit->service->http, &l->post, light_done, l);
}

static void start_light(lc_visit *v, lc_exchange *x,
                        void (*make)(light *l, struct json_object *body)) {
    light *l = lc_calloc(1, sizeof *l);
    size_t len;
    const char *body = lc_exchange_body(x, &len);
    char *copy = l ? lc_alloc(len + 1) : NULL;
    if (!copy) {
        lc_free(l);
        lc_visit_error(v, x, &(lc_api_error){.status = 503, .text = "out of memory"});
        return;
    }
    memcpy(copy, body, len);
    copy[len] = 0;
    *l = (light){
        .job.run = light_run, .visit = v, .exchange = x, .body = copy, .len = len, .make = make};
    lc_exchange_on_close(x, light_gone, l);
    lc_service_submit(v->service, &l->job, len);
}

/* ---- the table ---- */

static void page(lc_visit *v, lc_exchange *x, const lc_page_file *file) {
    lc_err err = {0};
    lc_buf body = {0};
    lc_exchange_header(x, "content-security-policy",
                       "default-src 'none'; script-src 'self'; style-src 'self'; connect-src "
                       "'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
                       "frame-ancestors 'none'",
                       &err);
    lc_exchange_header(x, "x-content-type-options", "nosniff", &err);
    lc_exchange_header(x, "cache-control", "no-cache", &err);
    lc_buf_append(&body, file->data, file->len);
    reply(v, x, 200, file->type, &body);
    lc_buf_free(&body);
}

static const struct {
    const char *route;
    void (*answer)(lc_visit *v, lc_exchange *x);
} gets[] = {
    {"/health", health},           {"/live", health},
    {"/api/hello", health},        {"/ready", ready},
    {"/version", version},         {"/metrics", metrics},
    {"/longcat/experts", experts}, {"/longcat/status", state},
};

static const struct {
    const char *route;
    void (*make)(light *l, struct json_object *body);
} posts[] = {
    {"/tokenize", make_tokens},
    {"/detokenize", make_text},
    {"/messages/count_tokens", make_count},
    {"/apply-template", make_template},
};

static bool get_route(lc_visit *v, lc_exchange *x, const char *route) {
    for (size_t i = 0; i < sizeof gets / sizeof *gets; i++) {
        if (strcmp(route, gets[i].route) != 0) continue;
        gets[i].answer(v, x);
        return true;
    }
    lc_page_file file;
    if (!lc_page_find(route, &file)) return models(v, x, route);
    page(v, x, &file);
    return true;
}

bool lc_route_light(lc_visit *v, lc_exchange *x, const char *method, const char *route) {
    if (!strcmp(method, "GET") || !strcmp(method, "HEAD")) return get_route(v, x, route);
    for (size_t i = 0; i < sizeof posts / sizeof *posts && !strcmp(method, "POST"); i++) {
        if (strcmp(route, posts[i].route) != 0) continue;
        start_light(v, x, posts[i].make);
        return true;
    }
    return false;
}

const char *lc_route_allows(const lc_service *s, const char *route) {
    lc_page_file file;
    for (size_t i = 0; i < sizeof posts / sizeof *posts; i++)
        if (!strcmp(route, posts[i].route)) return "POST";
    for (size_t i = 0; i < sizeof gets / sizeof *gets; i++)
        if (!strcmp(route, gets[i].route)) return "GET, HEAD";
    bool model = !strncmp(route, "/models/", 8) && !strcmp(route + 8, s->o.model);
    return model || !strcmp(route, "/models") || lc_page_find(route, &file) ? "GET, HEAD" : NULL;
}
