/*
 * responses_reply.c: replies of the Responses dialect: items (reasoning, messages, function calls)
 * that open, fill and close. Both ways, streamed or whole, go through the same items; the last
 * event of a stream carries everything that came before it, and so does the body.
 */
#include "server/responses_reply.h"

#include "base/err.h"

#include <stdio.h>
#include <string.h>

typedef enum item_kind { ITEM_NONE, ITEM_REASONING, ITEM_MESSAGE } item_kind;

struct lc_api_reply {
    const lc_api_request *request;
    const lc_api_reply_info *info;
    item_kind item; /* that is open */
    char item_id[64];
    size_t n_items;  /* begun */
    lc_buf text;     /* of the open item */
    lc_buf logprobs; /* inside of its list */
    lc_buf output;   /* inside of the list of complete items */
    int64_t sequence;
    lc_api_reason reason;
    bool finished, ended;
};

/* ---- life ---- */

int lc_responses_open(const lc_api_request *request, const lc_api_reply_info *info,
                      lc_api_reply **out, lc_err *err) {
    lc_api_reply *r = lc_calloc(1, sizeof *r);
    if (!r) return lc_fail(err, LC_ENOMEM, "reply: out of memory");
    r->request = request;
    r->info = info;
    *out = r;
    return LC_OK;
}

void lc_responses_close(lc_api_reply *r) {
    if (!r) return;
    lc_buf_free(&r->text);
    lc_buf_free(&r->logprobs);
    lc_buf_free(&r->output);
    lc_free(r);
}

/* ---- frames ---- */

static void begin(lc_api_reply *r, const char *type, lc_buf *out) {
    lc_frame_begin(out, type);
    lc_out_open(out, NULL, '{');
    lc_out_string(out, "type", type);
    lc_out_int(out, "sequence_number", r->sequence++);
}

static void end(lc_buf *out) {
    lc_out_close(out, '}');
    lc_frame_end(out);
}

/* A frame about the open item. */
static void begin_item_frame(lc_api_reply *r, const char *type, lc_buf *out) {
    begin(r, type, out);
    lc_out_string(out, "item_id", r->item_id);
    lc_out_int(out, "output_index", (int64_t)r->n_items - 1);
}

static void begin_part_frame(lc_api_reply *r, const char *type, lc_buf *out) {
    begin_item_frame(r, type, out);
    lc_out_int(out, "content_index", 0);
}

/* ---- the response object ---- */

static struct json_object *echoed(const lc_api_reply *r, const char *key) {
    struct json_object *value = NULL;
    if (r->request->echoed) json_object_object_get_ex(r->request->echoed, key, &value);
    return value;
}

static void out_echoed(const lc_api_reply *r, const char *key, const char *otherwise, lc_buf *out) {
    struct json_object *value = echoed(r, key);
    if (value)
        lc_out_json(out, key, value);
    else
        lc_out_raw(out, key, otherwise, strlen(otherwise));
}

static void out_request(const lc_api_reply *r, lc_buf *out) {
    out_echoed(r, "instructions", "null", out);
    out_echoed(r, "max_output_tokens", "null", out);
    out_echoed(r, "metadata", "{}", out);
    lc_out_bool(out, "parallel_tool_calls", r->request->parallel);
    lc_out_raw(out, "previous_response_id", "null", 4);
    out_echoed(r, "prompt_cache_key", "null", out);
    out_echoed(r, "reasoning", "{\"effort\":null,\"summary\":null}", out);
    lc_out_bool(out, "store", false);
    out_echoed(r, "temperature", "null", out);
    out_echoed(r, "text", "{\"format\":{\"type\":\"text\"}}", out);
    out_echoed(r, "tool_choice", "\"auto\"", out);
    out_echoed(r, "tools", "[]", out);
    lc_out_int(out, "top_logprobs", (int64_t)r->request->top_logprobs);
    out_echoed(r, "top_p", "null", out);
    out_echoed(r, "truncation", "\"disabled\"", out);
    out_echoed(r, "user", "null", out);
}

static void out_usage(const lc_api_usage *u, lc_buf *out) {
    lc_out_open(out, "usage", '{');
    lc_out_int(out, "input_tokens", u->prompt);
    lc_out_open(out, "input_tokens_details", '{');
    lc_out_int(out, "cached_tokens", u->cached);
    lc_out_int(out, "cache_write_tokens", 0);
    lc_out_close(out, '}');
    lc_out_int(out, "output_tokens", u->output);
    lc_out_open(out, "output_tokens_details", '{');
    lc_out_int(out, "reasoning_tokens", u->reasoning);
    lc_out_close(out, '}');
    lc_out_int(out, "total_tokens", u->prompt + u->output);
    lc_out_close(out, '}');
    lc_out_timings(out, u);
}

static void out_failure(const lc_api_error *e, lc_buf *out) {
    lc_out_open(out, "error", '{');
    lc_out_string(out, "code", e->status == 429 ? "rate_limit_exceeded" : "server_error");
    lc_out_string(out, "message", e->text);
    lc_out_close(out, '}');
}

/* usage: NULL while it is under way or when it failed. */
static void out_response(const lc_api_reply *r, const char *key, const char *status,
                         const lc_api_usage *usage, const lc_api_error *error, lc_buf *out) {
    lc_out_open(out, key, '{');
    lc_out_id(out, "id", "resp_", r->info->id);
    lc_out_string(out, "object", "response");
    lc_out_int(out, "created_at", r->info->created);
    lc_out_string(out, "status", status);
    lc_out_bool(out, "background", false);
    if (error)
        out_failure(error, out);
    else
        lc_out_raw(out, "error", "null", 4);
    if (!strcmp(status, "incomplete")) {
        lc_out_open(out, "incomplete_details", '{');
        lc_out_string(out, "reason", "max_output_tokens");
        lc_out_close(out, '}');
    } else {
        lc_out_raw(out, "incomplete_details", "null", 4);
    }
    lc_out_string(out, "model", r->info->model);
    lc_out_open(out, "output", '[');
    if (r->output.failed) out->failed = true;
    if (r->output.len) lc_buf_append(out, r->output.data, r->output.len);
    lc_out_close(out, ']');
    out_request(r, out);
    if (usage)
        out_usage(usage, out);
    else
        lc_out_raw(out, "usage", "null", 4);
    lc_out_close(out, '}');
}

static void stream_response(lc_api_reply *r, const char *type, const char *status,
                            const lc_api_usage *usage, const lc_api_error *error, lc_buf *out) {
    begin(r, type, out);
    out_response(r, "response", status, usage, error, out);
    end(out);
}

/* ---- items ---- */

static void out_part(const lc_api_reply *r, bool full, lc_buf *out) {
    bool reasoning = r->item == ITEM_REASONING;
    lc_out_string(out, "type", reasoning ? "reasoning_text" : "output_text");
    lc_out_text(out, "text", r->text.data, full ? r->text.len : 0);
    if (reasoning) return;
    lc_out_open(out, "annotations", '[');
    lc_out_close(out, ']');
    lc_out_open(out, "logprobs", '[');
    if (full && r->logprobs.len) lc_buf_append(out, r->logprobs.data, r->logprobs.len);
    lc_out_close(out, ']');
}

static bool hidden(const lc_api_reply *r) {
    return r->item == ITEM_REASONING && r->request->hide_reasoning;
}

static void out_content(const lc_api_reply *r, bool full, lc_buf *out) {
    lc_out_open(out, "content", '[');
    if (full && !hidden(r)) {
        lc_out_open(out, NULL, '{');
        out_part(r, true, out);
        lc_out_close(out, '}');
    }
    lc_out_close(out, ']');
}

/* The open item as it begins or as it is in the end. */
static void out_item(const lc_api_reply *r, const char *key, const char *status, lc_buf *out) {
    bool full = strcmp(status, "in_progress") != 0;
    lc_out_open(out, key, '{');
    lc_out_string(out, "id", r->item_id);
    if (r->item == ITEM_REASONING) {
        const char *signature = r->info->request_id;
        lc_out_string(out, "type", "reasoning");
        lc_out_open(out, "summary", '[');
        lc_out_close(out, ']');
        out_content(r, full, out);
        if (r->request->wants_encrypted)
            lc_out_string(out, "encrypted_content", full && signature ? signature : "");
    } else {
        lc_out_string(out, "type", "message");
        lc_out_string(out, "role", "assistant");
        out_content(r, full, out);
    }
    lc_out_string(out, "status", status);
    lc_out_close(out, '}');
}

static void name_item(lc_api_reply *r, const char *prefix) {
    snprintf(r->item_id, sizeof r->item_id, "%s%s_%zu", prefix, r->info->id, r->n_items++);
}

static void begin_part(lc_api_reply *r, const char *type, bool full, lc_buf *out) {
    begin_part_frame(r, type, out);
    lc_out_open(out, "part", '{');
    out_part(r, full, out);
    lc_out_close(out, '}');
    end(out);
}

static void out_inner_logprobs(const lc_api_reply *r, const lc_buf *inside, lc_buf *out) {
    if (r->item != ITEM_MESSAGE) return;
    lc_out_open(out, "logprobs", '[');
    if (inside->len) lc_buf_append(out, inside->data, inside->len);
    lc_out_close(out, ']');
}

static void stream_part_end(lc_api_reply *r, lc_buf *out) {
    begin_part_frame(
        r, r->item == ITEM_REASONING ? "response.reasoning_text.done" : "response.output_text.done",
        out);
    lc_out_text(out, "text", r->text.data, r->text.len);
    out_inner_logprobs(r, &r->logprobs, out);
    end(out);
    begin_part(r, "response.content_part.done", true, out);
}

static void stream_item(lc_api_reply *r, const char *type, const char *status, lc_buf *out) {
    begin(r, type, out);
    lc_out_int(out, "output_index", (int64_t)r->n_items - 1);
    out_item(r, "item", status, out);
    end(out);
}

static void close_item(lc_api_reply *r, const char *status, lc_buf *out) {
    if (r->item == ITEM_NONE) return;
    if (r->text.failed || r->logprobs.failed) out->failed = true;
    if (r->request->stream) {
        if (!hidden(r)) stream_part_end(r, out);
        stream_item(r, "response.output_item.done", status, out);
    }
    out_item(r, NULL, status, &r->output);
    lc_buf_clear(&r->text);
    lc_buf_clear(&r->logprobs);
    r->item = ITEM_NONE;
}

static void open_item(lc_api_reply *r, item_kind kind, lc_buf *out) {
    if (r->item == kind) return;
    close_item(r, "completed", out);
    r->item = kind;
    name_item(r, kind == ITEM_REASONING ? "rs_" : "msg_");
    if (!r->request->stream) return;
    stream_item(r, "response.output_item.added", "in_progress", out);
    if (!hidden(r)) begin_part(r, "response.content_part.added", false, out);
}

static void add_text(lc_api_reply *r, item_kind kind, const lc_api_event *e, lc_buf *out) {
    lc_buf logprobs = {0};
    if (!e->len && !e->n_logprobs) return;
    open_item(r, kind, out);
    if (hidden(r)) return;
    if (e->len) lc_buf_append(&r->text, e->text, e->len);
    if (kind == ITEM_MESSAGE) {
        lc_out_logprobs(&logprobs, e);
        if (logprobs.len) lc_out_raw(&r->logprobs, NULL, logprobs.data, logprobs.len);
    }
    if (r->request->stream) {
        begin_part_frame(r,
                         kind == ITEM_REASONING ? "response.reasoning_text.delta"
                                                : "response.output_text.delta",
                         out);
        lc_out_text(out, "delta", e->text ? e->text : "", e->text ? e->len : 0);
        out_inner_logprobs(r, &logprobs, out);
        end(out);
    }
    if (logprobs.failed) out->failed = true;
    lc_buf_free(&logprobs);
}

/* ---- calls ---- */

/* [namespace, name] of a function that stands in one. */
static struct json_object *pair_of(const lc_api_reply *r, const char *name) {
    struct json_object *inner = echoed(r, LC_RESPONSES_INNER), *pair = NULL;
    if (inner) json_object_object_get_ex(inner, name, &pair);
    return pair;
}

static void out_name(const lc_api_reply *r, const lc_api_event *e, lc_buf *out) {
    struct json_object *pair = pair_of(r, e->name);
    if (pair)
        lc_out_json(out, "name", json_object_array_get_idx(pair, 1));
    else
        lc_out_string(out, "name", e->name);
}

static void out_call(const lc_api_reply *r, const char *key, const lc_api_event *e, bool full,
                     lc_buf *out) {
    struct json_object *pair = pair_of(r, e->name);
    lc_out_open(out, key, '{');
    lc_out_string(out, "id", r->item_id);
    lc_out_string(out, "type", "function_call");
    lc_out_string(out, "status", full ? "completed" : "in_progress");
    lc_out_string(out, "call_id", e->call_id);
    out_name(r, e, out);
    if (pair) lc_out_json(out, "namespace", json_object_array_get_idx(pair, 0));
    lc_out_string(out, "arguments", full ? e->arguments : "");
    lc_out_close(out, '}');
}

static void stream_call_item(lc_api_reply *r, const char *type, const lc_api_event *e, bool full,
                             lc_buf *out) {
    begin(r, type, out);
    lc_out_int(out, "output_index", (int64_t)r->n_items - 1);
    out_call(r, "item", e, full, out);
    end(out);
}

static void stream_call(lc_api_reply *r, const lc_api_event *e, lc_buf *out) {
    stream_call_item(r, "response.output_item.added", e, false, out);
    const char *rest = e->arguments;
    for (size_t left = strlen(rest), n; left; left -= n, rest += n) {
        n = lc_fragment(rest, left);
        begin_item_frame(r, "response.function_call_arguments.delta", out);
        lc_out_text(out, "delta", rest, n);
        end(out);
    }
    begin_item_frame(r, "response.function_call_arguments.done", out);
    out_name(r, e, out);
    lc_out_string(out, "arguments", e->arguments);
    end(out);
    stream_call_item(r, "response.output_item.done", e, true, out);
}

static void add_call(lc_api_reply *r, const lc_api_event *e, lc_buf *out) {
    close_item(r, "completed", out);
    name_item(r, "fc_");
    if (r->request->stream) stream_call(r, e, out);
    out_call(r, NULL, e, true, &r->output);
}

/* ---- events ---- */

static void start(lc_api_reply *r, lc_buf *out) {
    if (!r->request->stream) return;
    stream_response(r, "response.created", "in_progress", NULL, NULL, out);
    stream_response(r, "response.in_progress", "in_progress", NULL, NULL, out);
}

static void finish(lc_api_reply *r, const lc_api_event *e, lc_buf *out) {
    r->finished = true;
    r->reason = e->reason;
    close_item(r, e->reason == LC_REASON_LENGTH ? "incomplete" : "completed", out);
}

static void complete(lc_api_reply *r, const lc_api_usage *usage, lc_buf *out) {
    bool cut = r->reason == LC_REASON_LENGTH;
    const char *status = cut ? "incomplete" : "completed";
    r->ended = true;
    if (r->request->stream)
        stream_response(r, cut ? "response.incomplete" : "response.completed", status, usage, NULL,
                        out);
    else
        out_response(r, NULL, status, usage, NULL, out);
}

static void fail_reply(lc_api_reply *r, const lc_api_error *error, lc_buf *out) {
    r->ended = true;
    if (r->request->stream)
        stream_response(r, "response.failed", "failed", NULL, error, out);
    else
        lc_openai_error(error, r->info->request_id, out);
}

int lc_responses_event(lc_api_reply *r, const lc_api_event *e, lc_buf *out, lc_err *err) {
    bool content = e->kind == LC_API_REASONING || e->kind == LC_API_CONTENT ||
                   e->kind == LC_API_CALL || e->kind == LC_API_FINISH;
    if (r->ended || (content && (r->finished || e->choice)))
        return lc_fail(err, LC_EINVAL, "reply: an event after its end, or of no choice");
    switch (e->kind) {
    case LC_API_BEGIN: start(r, out); break;
    case LC_API_PING:
        if (r->request->stream) lc_frame_comment(out);
        break;
    case LC_API_REASONING: add_text(r, ITEM_REASONING, e, out); break;
    case LC_API_CONTENT: add_text(r, ITEM_MESSAGE, e, out); break;
    case LC_API_CALL: add_call(r, e, out); break;
    case LC_API_FINISH: finish(r, e, out); break;
    case LC_API_USAGE: complete(r, &e->usage, out); break;
    case LC_API_ERROR: fail_reply(r, e->error, out); break;
    default: break;
    }
    if (out->failed) return lc_fail(err, LC_ENOMEM, "reply: out of memory");
    return LC_OK;
}
