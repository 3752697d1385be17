/*
 * dialects.h: what the tests of the dialects share: a request in canonical form as JSON (what isn't
 * given is left out), tables of requests and refusals, and replies made of a list of events.
 */
#ifndef LC_TESTS_DIALECTS_H
#define LC_TESTS_DIALECTS_H

#include "test.h"

#include "server/api.h"

#include <math.h>

typedef struct request_case {
    const char *body, *expected; /* JSON; expected as dump_request makes it */
} request_case;

typedef struct refusal_case {
    const char *body, *text; /* text: part of the message */
} refusal_case;

/* Headers of test requests: name, value, name, value, NULL. */
static inline const char *test_header(void *ctx, const char *name) {
    for (const char *const *h = ctx; h && *h; h += 2)
        if (strcmp(h[0], name) == 0) return h[1];
    return NULL;
}

static inline struct json_object *test_json(const char *text) {
    struct json_object *value = NULL;
    lc_err err = {0};
    if (lc_json_parse(text, strlen(text), "test", &value, &err) != LC_OK)
        fail_msg("%s in %s", err.text, text);
    return value;
}

static inline void dump_text(struct json_object *o, const char *key, const char *text) {
    if (text) json_object_object_add(o, key, json_object_new_string(text));
}
static inline void dump_json(struct json_object *o, const char *key, struct json_object *value) {
    if (value) json_object_object_add(o, key, json_object_get(value));
}
static inline void dump_number(struct json_object *o, const char *key, double value) {
    if (!isnan(value)) json_object_object_add(o, key, json_object_new_double(value));
}
static inline void dump_int(struct json_object *o, const char *key, int64_t value, int64_t usual) {
    if (value != usual) json_object_object_add(o, key, json_object_new_int64(value));
}
static inline void dump_bool(struct json_object *o, const char *key, bool value, bool usual) {
    if (value != usual) json_object_object_add(o, key, json_object_new_boolean(value));
}

static inline void dump_lists(struct json_object *o, const lc_api_request *r) {
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < r->n_stops; i++)
        json_object_array_add(list, json_object_new_string(r->stops[i]));
    if (r->n_stops) dump_json(o, "stops", list);
    json_object_put(list);
    list = json_object_new_object();
    for (size_t i = 0; i < r->n_biases; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", (int)r->biases[i].token);
        json_object_object_add(list, key, json_object_new_double((double)r->biases[i].bias));
    }
    if (r->n_biases) dump_json(o, "biases", list);
    json_object_put(list);
    list = json_object_new_array();
    for (size_t i = 0; i < r->n_prompts; i++) {
        const lc_api_prompt *p = &r->prompts[i];
        struct json_object *ids = json_object_new_array();
        for (size_t j = 0; j < p->count; j++)
            json_object_array_add(ids, json_object_new_int(p->ids[j]));
        if (p->text) {
            json_object_put(ids);
            ids = json_object_new_string_len(p->text, (int)p->len);
        }
        json_object_array_add(list, ids);
    }
    if (r->n_prompts) dump_json(o, "prompts", list);
    dump_text(o, "suffix", r->suffix.text);
    json_object_put(list);
}

static inline struct json_object *dump_request(const lc_api_request *r) {
    static const char *const choices[] = {NULL, "none", "required", "named"};
    static const char *const formats[] = {NULL, "object", "schema"};
    static const char *const thinking[] = {NULL, "on", "off"};
    struct json_object *o = json_object_new_object();
    dump_text(o, "model", r->model);
    dump_json(o, "messages", r->messages);
    dump_json(o, "tools", r->tools);
    dump_text(o, "choice", choices[r->choice]);
    dump_text(o, "tool", r->tool);
    dump_bool(o, "parallel", r->parallel, true);
    dump_bool(o, "strict", r->strict_tools, false);
    dump_text(o, "format", formats[r->format]);
    dump_json(o, "schema", r->schema);
    dump_text(o, "thinking", thinking[r->thinking]);
    dump_bool(o, "keep_reasoning", r->keep_reasoning, false);
    dump_number(o, "temperature", r->temperature);
    dump_number(o, "top_p", r->top_p);
    dump_number(o, "min_p", r->min_p);
    dump_number(o, "repetition_penalty", r->repetition_penalty);
    dump_number(o, "presence_penalty", r->presence_penalty);
    dump_number(o, "frequency_penalty", r->frequency_penalty);
    dump_int(o, "top_k", r->top_k, -1);
    dump_int(o, "max_tokens", r->max_tokens, -1);
    if (r->has_seed) json_object_object_add(o, "seed", json_object_new_uint64(r->seed));
    dump_int(o, "n", (int64_t)r->n, 1);
    dump_lists(o, r);
    dump_bool(o, "logprobs", r->logprobs, false);
    dump_int(o, "top_logprobs", (int64_t)r->top_logprobs, 0);
    dump_bool(o, "echo", r->echo, false);
    dump_bool(o, "ignore_eos", r->ignore_eos, false);
    dump_bool(o, "stream", r->stream, false);
    dump_bool(o, "include_usage", r->include_usage, false);
    dump_bool(o, "hide_reasoning", r->hide_reasoning, false);
    dump_bool(o, "encrypted", r->wants_encrypted, false);
    dump_bool(o, "routed", r->routed, false);
    return o;
}

static inline int parse_text(const lc_dialect *d, const char *text, const char *const *headers,
                             lc_api_request *out, lc_api_error *error) {
    struct json_object *body = test_json(text);
    *error = (lc_api_error){0};
    int status = d->parse(body, test_header, (void *)(uintptr_t)headers, out, error);
    json_object_put(body);
    return status;
}

/* Numbers are compared by value: 1 and 1.0 are the same. */
static inline bool same_json(struct json_object *a, struct json_object *b) {
    enum json_type x = json_object_get_type(a), y = json_object_get_type(b);
    bool numbers = (x == json_type_int || x == json_type_double) &&
                   (y == json_type_int || y == json_type_double);
    if (numbers) return fabs(json_object_get_double(a) - json_object_get_double(b)) < 1e-6;
    if (x != y) return false;
    if (x == json_type_array) {
        size_t n = json_object_array_length(a);
        if (n != json_object_array_length(b)) return false;
        for (size_t i = 0; i < n; i++)
            if (!same_json(json_object_array_get_idx(a, i), json_object_array_get_idx(b, i)))
                return false;
        return true;
    }
    if (x != json_type_object) return json_object_equal(a, b);
    if (json_object_object_length(a) != json_object_object_length(b)) return false;
    json_object_object_foreach(a, key, value) {
        struct json_object *other = NULL;
        if (!json_object_object_get_ex(b, key, &other) || !same_json(value, other)) return false;
    }
    return true;
}

/* A long text as one line of TAP. */
static inline void show(const char *what, const char *text) {
    printf("# %s ", what);
    for (size_t i = 0; text && text[i] && i < 2000; i++) putchar(text[i] == '\n' ? '|' : text[i]);
    printf("\n");
}

static inline void check_json(struct json_object *got, const char *expected) {
    struct json_object *want = test_json(expected);
    if (!same_json(got, want)) {
        show("got ", json_object_to_json_string_ext(got, JSON_C_TO_STRING_PLAIN));
        show("want", expected);
        fail();
    }
    json_object_put(want);
}

static inline void check_request(const lc_dialect *d, const char *const *headers,
                                 const request_case *c) {
    lc_api_request r = {0};
    lc_api_error e;
    if (parse_text(d, c->body, headers, &r, &e) != LC_OK) fail_msg("%s in %s", e.text, c->body);
    struct json_object *got = dump_request(&r);
    check_json(got, c->expected);
    json_object_put(got);
    lc_api_request_free(&r);
}

static inline void check_requests(const lc_dialect *d, const request_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++) check_request(d, NULL, &cases[i]);
    printf("# %s: %zu of %zu requests\n", d->name, n, n);
}

static inline void check_refusals(const lc_dialect *d, const refusal_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        lc_api_request r = {0};
        lc_api_error e;
        int status = parse_text(d, cases[i].body, NULL, &r, &e);
        if (status == LC_OK || e.status != 400) fail_msg("accepted: %s", cases[i].body);
        if (!strstr(e.text, cases[i].text))
            fail_msg("%s: got \"%s\", want \"%s\"", cases[i].body, e.text, cases[i].text);
        lc_api_request_free(&r);
    }
    printf("# %s: %zu of %zu refusals\n", d->name, n, n);
}

/* ---- replies ---- */

static const lc_api_reply_info test_info = {
    .id = "ID", .model = "LongCat-2.0", .request_id = "req_1", .created = 1700000000};

/* Shorthands for events. */
#define TEXT_OF(t) .text = (t), .len = sizeof(t) - 1
#define BEGIN                                                                                      \
    { .kind = LC_API_BEGIN }
#define PING                                                                                       \
    { .kind = LC_API_PING }
#define CONTENT(t)                                                                                 \
    { .kind = LC_API_CONTENT, TEXT_OF(t) }
#define REASONING(t)                                                                               \
    { .kind = LC_API_REASONING, TEXT_OF(t) }
#define CALL(i, n, a)                                                                              \
    { .kind = LC_API_CALL, .call_id = (i), .name = (n), .arguments = (a) }
#define FINISH(why)                                                                                \
    { .kind = LC_API_FINISH, .reason = (why) }
#define USAGE                                                                                      \
    {                                                                                              \
        .kind = LC_API_USAGE, .usage = {                                                           \
            .prompt = 100,                                                                         \
            .cached = 60,                                                                          \
            .output = 20,                                                                          \
            .reasoning = 5,                                                                        \
            .queue_s = 0.001,                                                                      \
            .prefill_s = 0.25,                                                                     \
            .decode_s = 1.5,                                                                       \
            .cost_yuan = 0.0002424                                                                 \
        }                                                                                          \
    }
#define LONGCAT_JSON                                                                               \
    "\"longcat\":{\"queue_ms\":1,\"prefill_ms\":250,\"decode_ms\":1500,\"cost_yuan\":0.0002424}"

/* The bytes that events become; the caller frees. request: JSON. */
static inline lc_buf render(const lc_dialect *d, const char *request, const lc_api_event *events,
                            size_t n) {
    lc_api_request r = {0};
    lc_api_error e;
    lc_err err = {0};
    lc_api_reply *reply = NULL;
    lc_buf out = {0};
    if (parse_text(d, request, NULL, &r, &e) != LC_OK) fail_msg("%s in %s", e.text, request);
    assert_ok(d->open(&r, &test_info, &reply, &err), err);
    for (size_t i = 0; i < n; i++) assert_ok(d->event(reply, &events[i], &out, &err), err);
    /* Nothing comes after the end. */
    lc_api_event_kind last = events[n - 1].kind;
    if (last == LC_API_USAGE || last == LC_API_ERROR) {
        size_t len = out.len;
        lc_api_event more = CONTENT("more");
        assert_int_not_equal(d->event(reply, &more, &out, &err), LC_OK);
        assert_int_equal(out.len, len);
    }
    d->close(reply);
    lc_api_request_free(&r);
    return out;
}

static inline void check_bytes(const lc_dialect *d, const char *request, const lc_api_event *events,
                               size_t n, const char *expected) {
    lc_buf out = render(d, request, events, n);
    if (!out.data || strcmp(out.data, expected) != 0) {
        size_t at = 0;
        while (out.data && out.data[at] && out.data[at] == expected[at]) at++;
        show("got ", out.data ? out.data + at : "");
        show("want", expected + at);
        fail_msg("differs at %zu", at);
    }
    lc_buf_free(&out);
}

static inline void check_body(const lc_dialect *d, const char *request, const lc_api_event *events,
                              size_t n, const char *expected) {
    lc_buf out = render(d, request, events, n);
    struct json_object *got = test_json(out.data);
    check_json(got, expected);
    json_object_put(got);
    lc_buf_free(&out);
}

/* With each allocation failing once, a reply is an error or what it would have been: never less. */
static inline void check_short_of_memory(const lc_dialect *d, const char *request,
                                         const lc_api_event *events, size_t n) {
    lc_buf expected = render(d, request, events, n);
    size_t before = lc_mem_current();
    lc_api_request r = {0};
    lc_api_error e;
    lc_err err = {0};
    if (parse_text(d, request, NULL, &r, &e) != LC_OK) fail_msg("%s", e.text);
    for (long fault = 0; fault < 60; fault++) {
        lc_api_reply *reply = NULL;
        lc_buf out = {0};
        lc_mem_fail_after(fault);
        int status = d->open(&r, &test_info, &reply, &err);
        for (size_t i = 0; status == LC_OK && i < n; i++)
            status = d->event(reply, &events[i], &out, &err);
        lc_mem_fail_after(-1);
        if (status == LC_OK)
            assert_string_equal(out.data, expected.data);
        else
            assert_int_equal(status, LC_ENOMEM);
        if (reply) d->close(reply);
        lc_buf_free(&out);
    }
    lc_api_request_free(&r);
    assert_int_equal(lc_mem_current(), before);
    lc_buf_free(&expected);
}

/* Whether every part stands in the text, in this order. */
static inline void check_order(const char *text, const char *const *parts, size_t n) {
    const char *at = text;
    for (size_t i = 0; i < n; i++) {
        const char *found = strstr(at, parts[i]);
        if (!found) {
            show("got ", text);
            fail_msg("%s isn't in its place", parts[i]);
        }
        at = found + strlen(parts[i]);
    }
}

#define COUNT(list) (sizeof(list) / sizeof *(list))

#endif
