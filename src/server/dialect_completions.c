/*
 * dialect_completions.c: OpenAI's legacy completions: prompts as text or token ids, echo and log
 * probabilities, which make a server a target of evaluation harnesses, and `suffix`, which editors
 * use to fill in the middle.
 */
#include "server/canonical.h"
#include "server/sse.h"

#include "base/err.h"
#include "base/utf8.h"

#include <limits.h>
#include <math.h>
#include <string.h>

enum { PROMPTS = 128 };

/* ---- request ---- */

static void take_text(lc_fields *f, struct json_object *value, lc_api_prompt *out) {
    size_t len = (size_t)json_object_get_string_len(value);
    char *text = lc_alloc(len + 1);
    if (!text) {
        lc_fields_no_memory(f);
        return;
    }
    memcpy(text, json_object_get_string(value), len);
    text[len] = 0;
    out->text = text;
    out->len = len;
}

static void take_ids(lc_fields *f, struct json_object *list, lc_api_prompt *out) {
    size_t n = json_object_array_length(list);
    int32_t *ids = lc_calloc(n + 1, sizeof *ids);
    if (!ids) {
        lc_fields_no_memory(f);
        return;
    }
    out->ids = ids;
    out->count = n;
    for (size_t i = 0; i < n; i++) {
        struct json_object *id = json_object_array_get_idx(list, i);
        int64_t value = json_object_get_type(id) == json_type_int ? json_object_get_int64(id) : -1;
        if (value < 0 || value > INT32_MAX) {
            lc_fields_refuse(f, "prompt", "entry %zu of a list of tokens is no token id", i);
            return;
        }
        ids[i] = (int32_t)value;
    }
}

static bool is_ids(struct json_object *list) {
    return json_object_array_length(list) > 0 &&
           json_object_get_type(json_object_array_get_idx(list, 0)) == json_type_int;
}

static void take_prompt(lc_fields *f, struct json_object *value, lc_api_request *r) {
    lc_api_prompt *out = &r->prompts[r->n_prompts++];
    if (json_object_get_type(value) == json_type_string)
        take_text(f, value, out);
    else if (json_object_get_type(value) == json_type_array && is_ids(value))
        take_ids(f, value, out);
    else
        lc_fields_refuse(f, "prompt", "must be text, a list of token ids, or a list of those");
}

static void read_prompts(lc_fields *f, struct json_object *body, lc_api_request *r) {
    struct json_object *prompt = lc_field(body, "prompt");
    bool many = json_object_get_type(prompt) == json_type_array && !is_ids(prompt);
    size_t n = many ? json_object_array_length(prompt) : 1;
    if (lc_fields_failed(f)) return;
    if (!prompt || !n) {
        lc_fields_refuse(f, "prompt", "is required");
        return;
    }
    if (n > PROMPTS) {
        lc_fields_refuse(f, "prompt", "has more than %d entries", PROMPTS);
        return;
    }
    r->prompts = lc_calloc(n, sizeof *r->prompts);
    if (!r->prompts) {
        lc_fields_no_memory(f);
        return;
    }
    for (size_t i = 0; i < n && !lc_fields_failed(f); i++)
        take_prompt(f, many ? json_object_array_get_idx(prompt, i) : prompt, r);
}

static void read_numbers(lc_fields *f, struct json_object *body, lc_api_request *r) {
    int64_t n = 1, best = 1, tops = 0;
    struct json_object *suffix = NULL;
    lc_field_int(f, body, "n", 1, LC_API_CHOICES, &n);
    best = n;
    lc_field_int(f, body, "best_of", 1, LC_API_CHOICES, &best);
    if (best != n) lc_fields_refuse(f, "best_of", "must equal n: answers are not ranked here");
    lc_field_int(f, body, "logprobs", 0, 20, &tops);
    r->n = (size_t)n;
    r->logprobs = lc_field(body, "logprobs") != NULL;
    r->top_logprobs = (size_t)tops;
    lc_field_bool(f, body, "echo", &r->echo);
    if (lc_field_string(f, body, "suffix", &suffix) && suffix && json_object_get_string_len(suffix))
        take_text(f, suffix, &r->suffix);
    if (r->suffix.text && r->echo) lc_fields_refuse(f, "echo", "can't be combined with suffix");
}

static int parse(struct json_object *body, lc_header_fn *header, void *ctx, lc_api_request *r,
                 lc_api_error *error) {
    static const char *const limits[] = {"max_tokens", "max_completion_tokens", NULL};
    lc_fields f = {.error = error};
    lc_request_init(r);
    r->max_tokens = 16; /* what this API means by silence */
    lc_read_common(&f, body, header, ctx, r);
    lc_read_max_tokens(&f, body, limits, 0, r);
    lc_read_stops(&f, body, "stop", r);
    lc_read_format(&f, body, "response_format", r);
    read_numbers(&f, body, r);
    read_prompts(&f, body, r);
    return lc_fields_failed(&f) ? LC_EINVAL : LC_OK;
}

/* ---- reply ---- */

typedef struct lists { /* insides of the lists of "logprobs" */
    lc_buf tokens, logprobs, tops, offsets;
} lists;

typedef struct choice {
    lc_buf text;    /* not streamed */
    lists lists;    /* not streamed: of the whole text; else of the chunk */
    int64_t offset; /* characters so far */
    bool any;       /* a token was shown */
    bool finished;
    lc_api_reason reason;
} choice;

struct lc_api_reply {
    const lc_api_request *request;
    const lc_api_reply_info *info;
    bool ended;
    size_t n;
    choice choices[];
};

static int open_reply(const lc_api_request *request, const lc_api_reply_info *info,
                      lc_api_reply **out, lc_err *err) {
    size_t n = request->n * request->n_prompts;
    lc_api_reply *r = lc_calloc(1, sizeof *r + n * sizeof *r->choices);
    if (!r) return lc_fail(err, LC_ENOMEM, "reply: out of memory");
    r->request = request;
    r->info = info;
    r->n = n;
    *out = r;
    return LC_OK;
}

static void close_reply(lc_api_reply *r) {
    if (!r) return;
    for (size_t i = 0; i < r->n; i++) {
        choice *c = &r->choices[i];
        lc_buf_free(&c->text);
        lc_buf_free(&c->lists.tokens);
        lc_buf_free(&c->lists.logprobs);
        lc_buf_free(&c->lists.tops);
        lc_buf_free(&c->lists.offsets);
    }
    lc_free(r);
}

static bool is_text(const lc_api_logprob *p) {
    for (size_t i = 0, used; i < p->len; i += used)
        if (lc_utf8_decode(p->text + i, p->len - i, &used) < 0) return false;
    return true;
}

/* A token as a string of its own; parts of characters as this API writes them: bytes:\xe7\x8c. As
 * key: the colon follows. */
static void out_token(lc_buf *out, const lc_api_logprob *p, bool key) {
    if (!p->text || is_text(p)) {
        lc_out_text(out, NULL, p->text ? p->text : "", p->text ? p->len : 0);
    } else {
        lc_buf text = {0};
        lc_buf_puts(&text, "bytes:");
        for (size_t i = 0; i < p->len; i++)
            lc_buf_printf(&text, "\\x%02x", (unsigned char)p->text[i]);
        if (text.failed) out->failed = true;
        lc_out_text(out, NULL, text.data, text.len);
        lc_buf_free(&text);
    }
    if (key) lc_buf_putc(out, ':');
}

static void out_logprob(lc_buf *out, double logprob) {
    lc_out_number(out, NULL, logprob > -9999 ? logprob : -9999, 9);
}

/* The best tokens, and the one that was taken if it isn't among them. */
static void out_tops(const lc_api_event *e, size_t i, lc_buf *out) {
    const lc_api_logprob *own = &e->logprobs[i];
    bool among = false;
    lc_out_open(out, NULL, '{');
    for (size_t j = 0; e->tops && j < e->n_tops[i]; j++) {
        const lc_api_logprob *p = &e->tops[i][j];
        if (p->token == own->token) among = true;
        out_token(out, p, true);
        out_logprob(out, p->logprob);
    }
    if (!among) {
        out_token(out, own, true);
        out_logprob(out, own->logprob);
    }
    lc_out_close(out, '}');
}

/* The first token of a prompt follows nothing: it has no probability. */
static void add_logprobs(choice *c, const lc_api_event *e) {
    lists *l = &c->lists;
    for (size_t i = 0; i < e->n_logprobs; i++) {
        const lc_api_logprob *p = &e->logprobs[i];
        bool first = e->kind == LC_API_PROMPT && !c->any;
        c->any = true;
        out_token(&l->tokens, p, false);
        lc_out_int(&l->offsets, NULL, c->offset);
        if (first) {
            lc_out_raw(&l->logprobs, NULL, "null", 4);
            lc_out_raw(&l->tops, NULL, "null", 4);
        } else {
            out_logprob(&l->logprobs, p->logprob);
            out_tops(e, i, &l->tops);
        }
        for (size_t j = 0; p->text && j < p->len; j++)
            if (((unsigned char)p->text[j] & 0xC0) != 0x80) c->offset++;
    }
}

static void out_list(lc_buf *out, const char *key, const lc_buf *inside) {
    lc_out_open(out, key, '[');
    if (inside->failed) out->failed = true;
    if (inside->len) lc_buf_append(out, inside->data, inside->len);
    lc_out_close(out, ']');
}

static void out_logprobs(lc_buf *out, const lists *l) {
    lc_out_open(out, "logprobs", '{');
    out_list(out, "tokens", &l->tokens);
    out_list(out, "token_logprobs", &l->logprobs);
    out_list(out, "top_logprobs", &l->tops);
    out_list(out, "text_offset", &l->offsets);
    lc_out_close(out, '}');
}

static void clear_lists(lists *l) {
    lc_buf_clear(&l->tokens);
    lc_buf_clear(&l->logprobs);
    lc_buf_clear(&l->tops);
    lc_buf_clear(&l->offsets);
}

static void head(const lc_api_reply *r, lc_buf *out) {
    lc_out_open(out, NULL, '{');
    lc_out_id(out, "id", "cmpl-", r->info->id);
    lc_out_string(out, "object", "text_completion");
    lc_out_int(out, "created", r->info->created);
    lc_out_string(out, "model", r->info->model);
    lc_out_open(out, "choices", '[');
}

static void out_choice(const lc_api_reply *r, size_t index, const char *text, size_t len,
                       const char *finish, lc_buf *out) {
    const choice *c = &r->choices[index];
    lc_out_open(out, NULL, '{');
    lc_out_int(out, "index", (int64_t)index);
    lc_out_text(out, "text", text ? text : "", text ? len : 0);
    if (r->request->logprobs && (!r->request->stream || c->lists.tokens.len))
        out_logprobs(out, &c->lists);
    else
        lc_out_raw(out, "logprobs", "null", 4);
    lc_out_string(out, "finish_reason", finish);
    lc_out_close(out, '}');
}

static void chunk(lc_api_reply *r, size_t index, const char *text, size_t len, const char *finish,
                  lc_buf *out) {
    lc_frame_begin(out, NULL);
    head(r, out);
    out_choice(r, index, text, len, finish, out);
    lc_out_close(out, ']');
    if (r->request->include_usage) lc_out_raw(out, "usage", "null", 4);
    lc_out_close(out, '}');
    lc_frame_end(out);
    clear_lists(&r->choices[index].lists);
}

static const char *finish_name(lc_api_reason reason) {
    return reason == LC_REASON_LENGTH ? "length" : "stop";
}

static int choice_event(lc_api_reply *r, const lc_api_event *e, lc_buf *out, lc_err *err) {
    bool stream = r->request->stream;
    if (e->choice >= r->n || r->choices[e->choice].finished)
        return lc_fail(err, LC_EINVAL, "reply: choice %zu is complete or doesn't exist", e->choice);
    choice *c = &r->choices[e->choice];
    switch (e->kind) {
    case LC_API_PROMPT:
    case LC_API_CONTENT:
        if (r->request->logprobs) add_logprobs(c, e);
        if (stream)
            chunk(r, e->choice, e->text, e->len, NULL, out);
        else if (e->len)
            lc_buf_append(&c->text, e->text, e->len);
        break;
    case LC_API_FINISH:
        c->finished = true;
        c->reason = e->reason;
        if (stream) chunk(r, e->choice, NULL, 0, finish_name(e->reason), out);
        break;
    default: return lc_fail(err, LC_EINVAL, "reply: completions have text only");
    }
    return LC_OK;
}

static void stream_end(const lc_api_reply *r, const lc_api_usage *usage, lc_buf *out) {
    if (r->request->include_usage) {
        lc_frame_begin(out, NULL);
        head(r, out);
        lc_out_close(out, ']');
        lc_out_openai_usage(out, usage);
        lc_out_close(out, '}');
        lc_frame_end(out);
    }
    lc_buf_puts(out, "data: [DONE]\n\n");
}

static void whole(const lc_api_reply *r, const lc_api_usage *usage, lc_buf *out) {
    head(r, out);
    for (size_t i = 0; i < r->n; i++) {
        const choice *c = &r->choices[i];
        if (c->text.failed) out->failed = true;
        out_choice(r, i, c->text.data, c->text.len, finish_name(c->reason), out);
    }
    lc_out_close(out, ']');
    lc_out_openai_usage(out, usage);
    lc_out_close(out, '}');
}

static int event(lc_api_reply *r, const lc_api_event *e, lc_buf *out, lc_err *err) {
    int status = LC_OK;
    bool stream = r->request->stream;
    if (r->ended) return lc_fail(err, LC_EINVAL, "reply: an event after its end");
    switch (e->kind) {
    case LC_API_BEGIN: break;
    case LC_API_PING:
        if (stream) lc_frame_comment(out);
        break;
    case LC_API_ERROR:
        r->ended = true;
        if (stream) lc_frame_begin(out, NULL);
        lc_openai_error(e->error, r->info->request_id, out);
        if (stream) lc_frame_end(out);
        break;
    case LC_API_USAGE:
        r->ended = true;
        if (stream)
            stream_end(r, &e->usage, out);
        else
            whole(r, &e->usage, out);
        break;
    default: status = choice_event(r, e, out, err);
    }
    if (status == LC_OK && out->failed) return lc_fail(err, LC_ENOMEM, "reply: out of memory");
    return status;
}

const lc_dialect lc_dialect_completions = {
    .name = "completions",
    .parse = parse,
    .error = lc_openai_error,
    .open = open_reply,
    .event = event,
    .close = close_reply,
    .stream_type = "text/event-stream; charset=utf-8",
};
