/*
 * messages_reply.c: replies of the Anthropic Messages dialect. Usage comes late: message_start goes
 * out before the prompt was read and has zeros, message_delta has the numbers.
 *
 * Not streamed, the blocks are written as JSON piece by piece, so that both ways open, fill and
 * close the same blocks.
 */
#include "server/messages_reply.h"

#include "base/err.h"
#include "server/sse.h"

#include <string.h>

typedef enum block_kind { BLOCK_NONE, BLOCK_THINKING, BLOCK_TEXT } block_kind;

struct lc_api_reply {
    const lc_api_request *request;
    const lc_api_reply_info *info;
    block_kind block; /* that is open */
    size_t n_blocks;  /* begun */
    lc_buf content;   /* not streamed: inside of the list of blocks */
    lc_api_reason reason;
    char *stop_string;
    bool finished, ended;
};

static const char *error_type(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 402: return "billing_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 409: return "conflict_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503:
    case 529: return "overloaded_error";
    case 504: return "timeout_error";
    default: return status >= 500 ? "api_error" : "invalid_request_error";
    }
}

void lc_messages_error(const lc_api_error *error, const char *request_id, lc_buf *out) {
    lc_out_open(out, NULL, '{');
    lc_out_string(out, "type", "error");
    lc_out_open(out, "error", '{');
    lc_out_string(out, "type", error_type(error->status));
    lc_out_string(out, "message", error->text);
    lc_out_close(out, '}');
    lc_out_string(out, "request_id", request_id);
    lc_out_close(out, '}');
}

int lc_messages_open(const lc_api_request *request, const lc_api_reply_info *info,
                     lc_api_reply **out, lc_err *err) {
    lc_api_reply *r = lc_calloc(1, sizeof *r);
    if (!r) return lc_fail(err, LC_ENOMEM, "reply: out of memory");
    r->request = request;
    r->info = info;
    *out = r;
    return LC_OK;
}

void lc_messages_close(lc_api_reply *r) {
    if (!r) return;
    lc_buf_free(&r->content);
    lc_free(r->stop_string);
    lc_free(r);
}

static const char *signature_of(const lc_api_reply *r) {
    return r->info->request_id ? r->info->request_id : "";
}

/* ---- frames ---- */

static void begin(lc_buf *out, const char *type) {
    lc_frame_begin(out, type);
    lc_out_open(out, NULL, '{');
    lc_out_string(out, "type", type);
}

static void end(lc_buf *out) {
    lc_out_close(out, '}');
    lc_frame_end(out);
}

static void out_usage(lc_buf *out, const lc_api_usage *u) {
    lc_out_open(out, "usage", '{');
    lc_out_int(out, "input_tokens", u->prompt - u->cached);
    lc_out_int(out, "cache_creation_input_tokens", 0);
    lc_out_int(out, "cache_read_input_tokens", u->cached);
    lc_out_int(out, "output_tokens", u->output);
    lc_out_open(out, "output_tokens_details", '{');
    lc_out_int(out, "thinking_tokens", u->reasoning);
    lc_out_close(out, '}');
    lc_out_close(out, '}');
}

/* A message up to the inside of its content. */
static void open_message(const lc_api_reply *r, const char *key, lc_buf *out) {
    lc_out_open(out, key, '{');
    lc_out_id(out, "id", "msg_", r->info->id);
    lc_out_string(out, "type", "message");
    lc_out_string(out, "role", "assistant");
    lc_out_string(out, "model", r->info->model);
    lc_out_open(out, "content", '[');
}

static void message_start(const lc_api_reply *r, lc_buf *out) {
    begin(out, "message_start");
    open_message(r, "message", out);
    lc_out_close(out, ']');
    lc_out_raw(out, "stop_reason", "null", 4);
    lc_out_raw(out, "stop_sequence", "null", 4);
    out_usage(out, &(lc_api_usage){0});
    lc_out_close(out, '}');
    end(out);
}

/* ---- blocks ---- */

static void begin_block_frame(lc_buf *out, const char *type, size_t index) {
    begin(out, type);
    lc_out_int(out, "index", (int64_t)index);
}

static void begin_delta(const lc_api_reply *r, const char *type, lc_buf *out) {
    begin_block_frame(out, "content_block_delta", r->n_blocks - 1);
    lc_out_open(out, "delta", '{');
    lc_out_string(out, "type", type);
}

static void end_delta(lc_buf *out) {
    lc_out_close(out, '}');
    end(out);
}

static void stop_block(const lc_api_reply *r, lc_buf *out) {
    begin_block_frame(out, "content_block_stop", r->n_blocks - 1);
    end(out);
}

static void close_block(lc_api_reply *r, lc_buf *out) {
    bool thinking = r->block == BLOCK_THINKING;
    if (r->block == BLOCK_NONE) return;
    r->block = BLOCK_NONE;
    if (!r->request->stream) {
        lc_buf_putc(&r->content, '"');
        if (thinking) lc_out_string(&r->content, "signature", signature_of(r));
        lc_out_close(&r->content, '}');
        return;
    }
    if (thinking) {
        begin_delta(r, "signature_delta", out);
        lc_out_string(out, "signature", signature_of(r));
        end_delta(out);
    }
    stop_block(r, out);
}

/* Text so far is "", in both ways. */
static void open_block(lc_api_reply *r, block_kind kind, lc_buf *out) {
    const char *name = kind == BLOCK_THINKING ? "thinking" : "text";
    if (r->block == kind) return;
    close_block(r, out);
    r->block = kind;
    r->n_blocks++;
    if (!r->request->stream) {
        lc_out_open(&r->content, NULL, '{');
        lc_out_string(&r->content, "type", name);
        lc_buf_printf(&r->content, ",\"%s\":\"", name);
        return;
    }
    begin_block_frame(out, "content_block_start", r->n_blocks - 1);
    lc_out_open(out, "content_block", '{');
    lc_out_string(out, "type", name);
    lc_out_string(out, name, "");
    if (kind == BLOCK_THINKING) lc_out_string(out, "signature", "");
    end_delta(out);
}

static void add_text(lc_api_reply *r, block_kind kind, const lc_api_event *e, lc_buf *out) {
    bool thinking = kind == BLOCK_THINKING;
    if (!e->len) return;
    open_block(r, kind, out);
    if (thinking && r->request->hide_reasoning) return;
    if (!r->request->stream) {
        lc_out_escaped(&r->content, e->text, e->len);
        return;
    }
    begin_delta(r, thinking ? "thinking_delta" : "text_delta", out);
    lc_out_text(out, thinking ? "thinking" : "text", e->text, e->len);
    end_delta(out);
}

/* Up to and with the name; the input follows. */
static void open_call(const lc_api_event *e, const char *key, lc_buf *out) {
    lc_out_open(out, key, '{');
    lc_out_string(out, "type", "tool_use");
    lc_out_string(out, "id", e->call_id);
    lc_out_string(out, "name", e->name);
}

static void stream_call(const lc_api_reply *r, const lc_api_event *e, lc_buf *out) {
    begin_block_frame(out, "content_block_start", r->n_blocks - 1);
    open_call(e, "content_block", out);
    lc_out_raw(out, "input", "{}", 2);
    end_delta(out);
    begin_delta(r, "input_json_delta", out);
    lc_out_string(out, "partial_json", "");
    end_delta(out);
    const char *rest = e->arguments;
    for (size_t left = strlen(rest), n; left; left -= n, rest += n) {
        n = lc_fragment(rest, left);
        begin_delta(r, "input_json_delta", out);
        lc_out_text(out, "partial_json", rest, n);
        end_delta(out);
    }
    stop_block(r, out);
}

static void add_call(lc_api_reply *r, const lc_api_event *e, lc_buf *out) {
    close_block(r, out);
    r->n_blocks++;
    if (r->request->stream) {
        stream_call(r, e, out);
        return;
    }
    open_call(e, NULL, &r->content);
    lc_out_raw(&r->content, "input", e->arguments, strlen(e->arguments));
    lc_out_close(&r->content, '}');
}

/* ---- the end ---- */

static const char *stop_reason(lc_api_reason reason) {
    switch (reason) {
    case LC_REASON_STOP_STRING: return "stop_sequence";
    case LC_REASON_LENGTH: return "max_tokens";
    case LC_REASON_CALLS: return "tool_use";
    default: return "end_turn";
    }
}

static void out_reason(const lc_api_reply *r, lc_buf *out) {
    lc_out_string(out, "stop_reason", stop_reason(r->reason));
    lc_out_string(out, "stop_sequence", r->reason == LC_REASON_STOP_STRING ? r->stop_string : NULL);
}

static void stream_end(const lc_api_reply *r, const lc_api_usage *usage, lc_buf *out) {
    begin(out, "message_delta");
    lc_out_open(out, "delta", '{');
    out_reason(r, out);
    lc_out_close(out, '}');
    out_usage(out, usage);
    lc_out_timings(out, usage);
    end(out);
    begin(out, "message_stop");
    end(out);
}

static void whole(const lc_api_reply *r, const lc_api_usage *usage, lc_buf *out) {
    if (r->content.failed) out->failed = true;
    open_message(r, NULL, out);
    if (r->content.len) lc_buf_append(out, r->content.data, r->content.len);
    lc_out_close(out, ']');
    out_reason(r, out);
    out_usage(out, usage);
    lc_out_timings(out, usage);
    lc_out_close(out, '}');
}

static int finish(lc_api_reply *r, const lc_api_event *e, lc_buf *out) {
    close_block(r, out);
    r->finished = true;
    r->reason = e->reason;
    if (e->stop_string) r->stop_string = lc_strdup(e->stop_string);
    return e->stop_string && !r->stop_string ? LC_ENOMEM : LC_OK;
}

static void fail_reply(lc_api_reply *r, const lc_api_error *error, lc_buf *out) {
    r->ended = true;
    if (r->request->stream) lc_frame_begin(out, "error");
    lc_messages_error(error, r->info->request_id, out);
    if (r->request->stream) lc_frame_end(out);
}

static void ping(lc_buf *out) {
    begin(out, "ping");
    end(out);
}

int lc_messages_event(lc_api_reply *r, const lc_api_event *e, lc_buf *out, lc_err *err) {
    bool stream = r->request->stream;
    int status = LC_OK;
    bool content = e->kind == LC_API_REASONING || e->kind == LC_API_CONTENT ||
                   e->kind == LC_API_CALL || e->kind == LC_API_FINISH;
    if (r->ended || (content && (r->finished || e->choice)))
        return lc_fail(err, LC_EINVAL, "reply: an event after its end, or of no choice");
    switch (e->kind) {
    case LC_API_BEGIN:
        if (stream) message_start(r, out);
        break;
    case LC_API_PING:
        if (stream) ping(out);
        break;
    case LC_API_REASONING: add_text(r, BLOCK_THINKING, e, out); break;
    case LC_API_CONTENT: add_text(r, BLOCK_TEXT, e, out); break;
    case LC_API_CALL: add_call(r, e, out); break;
    case LC_API_FINISH: status = finish(r, e, out); break;
    case LC_API_USAGE:
        r->ended = true;
        if (stream)
            stream_end(r, &e->usage, out);
        else
            whole(r, &e->usage, out);
        break;
    case LC_API_ERROR: fail_reply(r, e->error, out); break;
    default: break;
    }
    if (status != LC_OK || out->failed) return lc_fail(err, LC_ENOMEM, "reply: out of memory");
    return LC_OK;
}
