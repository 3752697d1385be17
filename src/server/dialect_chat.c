/*
 * dialect_chat.c: OpenAI chat completions, as LongCat's platform, DeepSeek's and vLLM's extensions
 * speak it (reasoning_content, thinking, chat_template_kwargs).
 */
#include "server/canonical.h"
#include "server/sse.h"

#include "base/err.h"

#include <stdio.h>
#include <string.h>

/* ---- request ---- */

static const char *const text_parts[] = {"text", "input_text", "output_text", "refusal", NULL};

static void read_calls(lc_talk *t, struct json_object *from, struct json_object *message) {
    struct json_object *calls = NULL;
    if (!lc_field_list(t->f, from, "tool_calls", LC_API_BLOCKS, &calls) || !calls) return;
    for (size_t i = 0; i < json_object_array_length(calls) && !lc_fields_failed(t->f); i++) {
        struct json_object *call = json_object_array_get_idx(calls, i), *function = NULL;
        size_t mark = lc_fields_enter(t->f, "tool_calls", i);
        if (lc_talk_block(t) && lc_field_object(t->f, call, "function", &function)) {
            if (!function) lc_fields_refuse(t->f, "function", "is required");
            lc_fields_enter(t->f, "function", SIZE_MAX);
            lc_talk_call(t, message, lc_field(call, "id"), lc_field(function, "name"),
                         lc_field(function, "arguments"), "arguments");
        }
        lc_fields_leave(t->f, mark);
    }
}

static void read_assistant(lc_talk *t, struct json_object *from) {
    struct json_object *text = lc_talk_text(t, from, "content", text_parts, LC_JOIN_ANSWER);
    struct json_object *reasoning = NULL, *message = lc_talk_add(t, "assistant", text);
    lc_field_string(t->f, from, "reasoning_content", &reasoning);
    if (!reasoning) lc_field_string(t->f, from, "reasoning", &reasoning);
    if (reasoning && json_object_get_string_len(reasoning))
        lc_put(t->f, message, "reasoning_content", json_object_get(reasoning));
    read_calls(t, from, message);
    /* Each message of this dialect is a turn of its own. */
    lc_talk_end(t);
}

static void read_message(lc_talk *t, struct json_object *from) {
    struct json_object *role = NULL, *message, *id = NULL;
    if (json_object_get_type(from) != json_type_object) {
        lc_fields_refuse(t->f, NULL, "must be an object");
        return;
    }
    if (!lc_field_string(t->f, from, "role", &role)) return;
    if (lc_field_is(role, "assistant")) {
        read_assistant(t, from);
    } else if (lc_field_is(role, "system") || lc_field_is(role, "developer")) {
        lc_talk_add(t, "system", lc_talk_text(t, from, "content", text_parts, LC_JOIN_PARTS));
    } else if (lc_field_is(role, "user")) {
        lc_talk_add(t, "user", lc_talk_text(t, from, "content", text_parts, LC_JOIN_PARTS));
    } else if (lc_field_is(role, "tool")) {
        message =
            lc_talk_add(t, "tool", lc_talk_text(t, from, "content", text_parts, LC_JOIN_PARTS));
        if (lc_field_string(t->f, from, "tool_call_id", &id) && id)
            lc_put(t->f, message, "tool_call_id", json_object_get(id));
    } else {
        lc_fields_refuse(t->f, "role", "must be system, developer, user, assistant or tool");
    }
}

static void read_messages(lc_fields *f, struct json_object *body, lc_api_request *r) {
    lc_talk t = {.f = f, .r = r};
    struct json_object *messages = NULL;
    if (!lc_field_list(f, body, "messages", LC_API_MESSAGES, &messages)) return;
    size_t n = messages ? json_object_array_length(messages) : 0;
    if (!n) lc_fields_refuse(f, "messages", "at least one message is required");
    for (size_t i = 0; i < n && !lc_fields_failed(f); i++) {
        size_t mark = lc_fields_enter(f, "messages", i);
        read_message(&t, json_object_array_get_idx(messages, i));
        lc_fields_leave(f, mark);
    }
    lc_talk_end(&t);
}

static void read_tools(lc_fields *f, struct json_object *body, lc_api_request *r) {
    struct json_object *tools = NULL;
    size_t bytes = 0;
    if (!lc_field_list(f, body, "tools", LC_API_TOOLS, &tools) || !tools) return;
    for (size_t i = 0; i < json_object_array_length(tools) && !lc_fields_failed(f); i++) {
        struct json_object *tool = json_object_array_get_idx(tools, i);
        struct json_object *function = lc_field(tool, "function"), *type = lc_field(tool, "type");
        if (type && !lc_field_is(type, "function")) continue; /* a tool that runs elsewhere */
        size_t mark = lc_fields_enter(f, "tools", i);
        if (json_object_get_type(function) != json_type_object)
            lc_fields_refuse(f, "function", "is required");
        lc_fields_enter(f, "function", SIZE_MAX);
        lc_tool_source source = {.name = lc_field(function, "name"),
                                 .schema = lc_field(function, "parameters")};
        lc_field_string(f, function, "description", &source.description);
        lc_field_bool(f, function, "strict", &source.strict);
        lc_add_tool(f, &source, &bytes, r);
        lc_fields_leave(f, mark);
    }
}

static int parse(struct json_object *body, lc_header_fn *header, void *ctx, lc_api_request *r,
                 lc_api_error *error) {
    static const char *const limits[] = {"max_tokens", "max_completion_tokens", NULL};
    lc_fields f = {.error = error};
    int64_t n = 1, tops = 0;
    lc_request_init(r);
    lc_read_common(&f, body, header, ctx, r);
    lc_read_max_tokens(&f, body, limits, 1, r);
    lc_read_stops(&f, body, "stop", r);
    lc_field_int(&f, body, "n", 1, LC_API_CHOICES, &n);
    lc_field_bool(&f, body, "logprobs", &r->logprobs);
    lc_field_int(&f, body, "top_logprobs", 0, 20, &tops);
    if (tops && !r->logprobs) lc_fields_refuse(&f, "top_logprobs", "needs logprobs to be true");
    r->n = (size_t)n;
    r->top_logprobs = (size_t)tops;
    lc_read_thinking(&f, body, r);
    lc_read_format(&f, body, "response_format", r);
    read_tools(&f, body, r);
    lc_read_choice(&f, body, r);
    read_messages(&f, body, r);
    return lc_fields_failed(&f) ? LC_EINVAL : LC_OK;
}

/* ---- reply ---- */

typedef struct choice {
    lc_buf reasoning, content, calls, logprobs; /* not streamed: texts, and inner JSON of lists */
    size_t n_calls;
    lc_api_reason reason;
    bool finished;
} choice;

struct lc_api_reply {
    const lc_api_request *request;
    const lc_api_reply_info *info;
    bool ended;
    choice choices[LC_API_CHOICES];
};

static int open_reply(const lc_api_request *request, const lc_api_reply_info *info,
                      lc_api_reply **out, lc_err *err) {
    lc_api_reply *r = lc_calloc(1, sizeof *r);
    if (!r) return lc_fail(err, LC_ENOMEM, "reply: out of memory");
    r->request = request;
    r->info = info;
    *out = r;
    return LC_OK;
}

static void close_reply(lc_api_reply *r) {
    if (!r) return;
    for (size_t i = 0; i < LC_API_CHOICES; i++) {
        lc_buf_free(&r->choices[i].reasoning);
        lc_buf_free(&r->choices[i].content);
        lc_buf_free(&r->choices[i].calls);
        lc_buf_free(&r->choices[i].logprobs);
    }
    lc_free(r);
}

static const char *finish_name(lc_api_reason reason) {
    switch (reason) {
    case LC_REASON_LENGTH: return "length";
    case LC_REASON_CALLS: return "tool_calls";
    default: return "stop";
    }
}

static void head(const lc_api_reply *r, const char *object, lc_buf *out) {
    lc_out_open(out, NULL, '{');
    lc_out_id(out, "id", "chatcmpl-", r->info->id);
    lc_out_string(out, "object", object);
    lc_out_int(out, "created", r->info->created);
    lc_out_string(out, "model", r->info->model);
}

/* A frame up to the inside of its delta. */
static void begin_chunk(const lc_api_reply *r, size_t index, lc_buf *out) {
    lc_frame_begin(out, NULL);
    head(r, "chat.completion.chunk", out);
    lc_out_open(out, "choices", '[');
    lc_out_open(out, NULL, '{');
    lc_out_int(out, "index", (int64_t)index);
    lc_out_open(out, "delta", '{');
}

static void routed_by_layer(const lc_api_event *event, lc_buf *out) {
    lc_out_open(out, "routed_layers", '[');
    for (size_t i = 0; i < event->n_routed; i++) {
        lc_out_open(out, NULL, '[');
        for (size_t j = 0; j < event->n_layers; j++)
            lc_out_int(out, NULL, event->routed_layers[i * event->n_layers + j]);
        lc_out_close(out, ']');
    }
    lc_out_close(out, ']');
}

/* event: whose log probabilities belong to the chunk, or NULL. */
static void end_chunk(const lc_api_reply *r, const lc_api_event *event, const char *finish,
                      lc_buf *out) {
    lc_out_close(out, '}');
    if (event && event->n_logprobs) {
        lc_out_open(out, "logprobs", '{');
        lc_out_open(out, "content", '[');
        lc_out_logprobs(out, event);
        lc_out_close(out, ']');
        lc_out_raw(out, "refusal", "null", 4);
        lc_out_close(out, '}');
    } else {
        lc_out_raw(out, "logprobs", "null", 4);
    }
    lc_out_string(out, "finish_reason", finish);
    lc_out_close(out, '}');
    lc_out_close(out, ']');
    if (r->request->include_usage) lc_out_raw(out, "usage", "null", 4);
    if (event && event->n_routed && r->request->routed) {
        lc_out_open(out, "longcat", '{');
        lc_out_open(out, "routed", '[');
        for (size_t i = 0; i < event->n_routed; i++)
            lc_out_number(out, NULL, (double)event->routed[i], 5);
        lc_out_close(out, ']');
        if (event->routed_layers) routed_by_layer(event, out);
        lc_out_close(out, '}');
    }
    lc_out_close(out, '}');
    lc_frame_end(out);
}

static void stream_begin(const lc_api_reply *r, lc_buf *out) {
    for (size_t i = 0; i < r->request->n; i++) {
        begin_chunk(r, i, out);
        lc_out_string(out, "role", "assistant");
        lc_out_string(out, "content", "");
        end_chunk(r, NULL, NULL, out);
    }
}

static void stream_text(const lc_api_reply *r, const lc_api_event *e, const char *key,
                        bool logprobs, lc_buf *out) {
    lc_api_event shown = *e;
    if (!logprobs) shown.n_logprobs = 0;
    begin_chunk(r, e->choice, out);
    lc_out_text(out, key, e->text ? e->text : "", e->text ? e->len : 0);
    end_chunk(r, &shown, NULL, out);
}

static void open_call(const lc_api_event *e, size_t index, bool streamed, lc_buf *out) {
    lc_out_open(out, NULL, '{');
    if (streamed) lc_out_int(out, "index", (int64_t)index);
    lc_out_string(out, "id", e->call_id);
    lc_out_string(out, "type", "function");
    lc_out_open(out, "function", '{');
    lc_out_string(out, "name", e->name);
    lc_out_string(out, "arguments", streamed ? "" : e->arguments);
    lc_out_close(out, '}');
    lc_out_close(out, '}');
}

static void stream_call(const lc_api_reply *r, const lc_api_event *e, size_t index, lc_buf *out) {
    begin_chunk(r, e->choice, out);
    lc_out_open(out, "tool_calls", '[');
    open_call(e, index, true, out);
    lc_out_close(out, ']');
    end_chunk(r, NULL, NULL, out);
    const char *rest = e->arguments;
    for (size_t left = strlen(rest), n; left; left -= n, rest += n) {
        n = lc_fragment(rest, left);
        begin_chunk(r, e->choice, out);
        lc_out_open(out, "tool_calls", '[');
        lc_out_open(out, NULL, '{');
        lc_out_int(out, "index", (int64_t)index);
        lc_out_open(out, "function", '{');
        lc_out_text(out, "arguments", rest, n);
        lc_out_close(out, '}');
        lc_out_close(out, '}');
        lc_out_close(out, ']');
        end_chunk(r, NULL, NULL, out);
    }
}

static void stream_end(const lc_api_reply *r, const lc_api_usage *u, lc_buf *out) {
    if (r->request->include_usage) {
        lc_frame_begin(out, NULL);
        head(r, "chat.completion.chunk", out);
        lc_out_open(out, "choices", '[');
        lc_out_close(out, ']');
        lc_out_openai_usage(out, u);
        lc_out_close(out, '}');
        lc_frame_end(out);
    }
    lc_buf_puts(out, "data: [DONE]\n\n");
}

/* A list whose inside was written already. */
static void out_list(lc_buf *out, const char *key, const lc_buf *inside) {
    lc_out_open(out, key, '[');
    if (inside->len) lc_buf_append(out, inside->data, inside->len);
    lc_out_close(out, ']');
}

static void out_choice(const lc_api_reply *r, size_t index, lc_buf *out) {
    const choice *c = &r->choices[index];
    lc_out_open(out, NULL, '{');
    lc_out_int(out, "index", (int64_t)index);
    lc_out_open(out, "message", '{');
    lc_out_string(out, "role", "assistant");
    if (c->content.len || !c->n_calls)
        lc_out_text(out, "content", c->content.data, c->content.len);
    else
        lc_out_raw(out, "content", "null", 4);
    lc_out_raw(out, "refusal", "null", 4);
    if (c->reasoning.len)
        lc_out_text(out, "reasoning_content", c->reasoning.data, c->reasoning.len);
    if (c->n_calls) out_list(out, "tool_calls", &c->calls);
    lc_out_close(out, '}');
    if (r->request->logprobs) {
        lc_out_open(out, "logprobs", '{');
        out_list(out, "content", &c->logprobs);
        lc_out_raw(out, "refusal", "null", 4);
        lc_out_close(out, '}');
    } else {
        lc_out_raw(out, "logprobs", "null", 4);
    }
    lc_out_string(out, "finish_reason", finish_name(c->reason));
    lc_out_close(out, '}');
}

static void whole(const lc_api_reply *r, const lc_api_usage *u, lc_buf *out) {
    head(r, "chat.completion", out);
    lc_out_open(out, "choices", '[');
    for (size_t i = 0; i < r->request->n; i++) {
        const choice *c = &r->choices[i];
        if (c->reasoning.failed || c->content.failed || c->calls.failed || c->logprobs.failed)
            out->failed = true;
        out_choice(r, i, out);
    }
    lc_out_close(out, ']');
    lc_out_openai_usage(out, u);
    lc_out_close(out, '}');
}

/* Events that belong to one choice. */
static int choice_event(lc_api_reply *r, const lc_api_event *e, lc_buf *out, lc_err *err) {
    bool stream = r->request->stream;
    if (e->choice >= r->request->n || r->choices[e->choice].finished)
        return lc_fail(err, LC_EINVAL, "reply: choice %zu is complete or doesn't exist", e->choice);
    choice *c = &r->choices[e->choice];
    switch (e->kind) {
    case LC_API_REASONING:
        if (r->request->hide_reasoning) break;
        if (stream)
            stream_text(r, e, "reasoning_content", false, out);
        else
            lc_buf_append(&c->reasoning, e->text, e->len);
        break;
    case LC_API_CONTENT:
        if (stream) {
            stream_text(r, e, "content", true, out);
        } else {
            if (e->len) lc_buf_append(&c->content, e->text, e->len);
            lc_out_logprobs(&c->logprobs, e);
        }
        break;
    case LC_API_CALL:
        if (stream)
            stream_call(r, e, c->n_calls, out);
        else
            open_call(e, c->n_calls, false, &c->calls);
        c->n_calls++;
        break;
    case LC_API_FINISH:
        c->reason = e->reason;
        c->finished = true;
        if (stream) {
            begin_chunk(r, e->choice, out);
            end_chunk(r, NULL, finish_name(e->reason), out);
        }
        break;
    default: break;
    }
    return LC_OK;
}

static int event(lc_api_reply *r, const lc_api_event *e, lc_buf *out, lc_err *err) {
    int status = LC_OK;
    bool stream = r->request->stream;
    if (r->ended) return lc_fail(err, LC_EINVAL, "reply: an event after its end");
    switch (e->kind) {
    case LC_API_BEGIN:
        if (stream) stream_begin(r, out);
        break;
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

const lc_dialect lc_dialect_chat = {
    .name = "chat",
    .parse = parse,
    .error = lc_openai_error,
    .open = open_reply,
    .event = event,
    .close = close_reply,
    .stream_type = "text/event-stream; charset=utf-8",
};
