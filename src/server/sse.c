/* sse.c: JSON text and event frames; see sse.h. */
#include "server/sse.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FRAGMENT = 256 };

static void put_key(lc_buf *out, const char *key) {
    char last = out->len ? out->data[out->len - 1] : ' ';
    if (last != '{' && last != '[' && last != ':' && last != ' ') lc_buf_putc(out, ',');
    if (!key) return;
    lc_buf_putc(out, '"');
    lc_buf_puts(out, key);
    lc_buf_puts(out, "\":");
}

void lc_out_open(lc_buf *out, const char *key, char bracket) {
    put_key(out, key);
    lc_buf_putc(out, bracket);
}

void lc_out_close(lc_buf *out, char bracket) { lc_buf_putc(out, bracket); }

static void escape(lc_buf *out, unsigned char c) {
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *at = c ? strchr(plain, c) : NULL;
    if (at) {
        lc_buf_putc(out, '\\');
        lc_buf_putc(out, letters[at - plain]);
    } else {
        lc_buf_printf(out, "\\u%04x", c);
    }
}

void lc_out_escaped(lc_buf *out, const char *text, size_t len) {
    size_t from = 0, used;
    for (size_t i = 0; i < len; i += used) {
        unsigned char c = (unsigned char)text[i];
        used = 1;
        if (c >= 0x20 && c < 0x7F && c != '"' && c != '\\') continue;
        int32_t code = c < 0x80 ? c : lc_utf8_decode(text + i, len - i, &used);
        if (code >= 0x80) continue;
        lc_buf_append(out, text + from, i - from);
        from = i + used;
        if (code < 0)
            lc_buf_puts(out, "\xEF\xBF\xBD");
        else
            escape(out, c);
    }
    if (len > from) lc_buf_append(out, text + from, len - from);
}

void lc_out_text(lc_buf *out, const char *key, const char *text, size_t len) {
    put_key(out, key);
    lc_buf_putc(out, '"');
    lc_out_escaped(out, text, len);
    lc_buf_putc(out, '"');
}

void lc_out_string(lc_buf *out, const char *key, const char *text) {
    if (text)
        lc_out_text(out, key, text, strlen(text));
    else
        lc_out_raw(out, key, "null", 4);
}

void lc_out_id(lc_buf *out, const char *key, const char *prefix, const char *id) {
    put_key(out, key);
    lc_buf_putc(out, '"');
    lc_buf_puts(out, prefix);
    lc_out_escaped(out, id, strlen(id));
    lc_buf_putc(out, '"');
}

void lc_out_int(lc_buf *out, const char *key, int64_t value) {
    put_key(out, key);
    lc_buf_printf(out, "%" PRId64, value);
}

void lc_out_number(lc_buf *out, const char *key, double value, int digits) {
    char text[64];
    if (!isfinite(value)) {
        lc_out_raw(out, key, "null", 4);
        return;
    }
    snprintf(text, sizeof text, "%.*g", digits < 17 ? digits : 17, value);
    put_key(out, key);
    for (const char *p = text; *p;) { /* the locale's point, of any length, becomes '.' */
        size_t n = strspn(p, "0123456789+-e");
        lc_buf_append(out, p, n);
        p += n;
        if (*p) lc_buf_putc(out, '.');
        p += strcspn(p, "0123456789+-e");
    }
}

void lc_out_bool(lc_buf *out, const char *key, bool value) {
    put_key(out, key);
    lc_buf_puts(out, value ? "true" : "false");
}

void lc_out_raw(lc_buf *out, const char *key, const char *json, size_t len) {
    put_key(out, key);
    lc_buf_append(out, json, len);
}

void lc_out_json(lc_buf *out, const char *key, struct json_object *value) {
    size_t len = 0;
    const char *text = json_object_to_json_string_length(
        value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
    if (!value)
        lc_out_raw(out, key, "null", 4);
    else if (text)
        lc_out_raw(out, key, text, len);
    else
        out->failed = true;
}

void lc_frame_begin(lc_buf *out, const char *event) {
    if (event) lc_buf_printf(out, "event: %s\n", event);
    lc_buf_puts(out, "data: ");
}

void lc_frame_end(lc_buf *out) { lc_buf_puts(out, "\n\n"); }

void lc_frame_comment(lc_buf *out) { lc_buf_puts(out, ": ping\n\n"); }

size_t lc_fragment(const char *text, size_t len) {
    if (len <= FRAGMENT) return len;
    size_t n = FRAGMENT;
    while (n > FRAGMENT - 4 && ((unsigned char)text[n] & 0xC0) == 0x80) n--;
    return n;
}

/* ---- shared by dialects ---- */

static double milliseconds(double seconds) { return round(seconds * 1e6) / 1e3; }

void lc_out_timings(lc_buf *out, const lc_api_usage *u) {
    lc_out_open(out, "longcat", '{');
    lc_out_number(out, "queue_ms", milliseconds(u->queue_s), 12);
    lc_out_number(out, "prefill_ms", milliseconds(u->prefill_s), 12);
    lc_out_number(out, "decode_ms", milliseconds(u->decode_s), 12);
    lc_out_number(out, "cost_yuan", u->cost_yuan, 12);
    lc_out_close(out, '}');
}

void lc_out_openai_usage(lc_buf *out, const lc_api_usage *u) {
    lc_out_open(out, "usage", '{');
    lc_out_int(out, "prompt_tokens", u->prompt);
    lc_out_int(out, "completion_tokens", u->output);
    lc_out_int(out, "total_tokens", u->prompt + u->output);
    lc_out_open(out, "prompt_tokens_details", '{');
    lc_out_int(out, "cached_tokens", u->cached);
    lc_out_close(out, '}');
    lc_out_open(out, "completion_tokens_details", '{');
    lc_out_int(out, "reasoning_tokens", u->reasoning);
    lc_out_close(out, '}');
    lc_out_close(out, '}');
    lc_out_timings(out, u);
}

void lc_out_logprob(lc_buf *out, const lc_api_logprob *p) {
    lc_out_open(out, NULL, '{');
    lc_out_text(out, "token", p->text ? p->text : "", p->text ? p->len : 0);
    /* OpenAI's number for "less than can be said"; JSON has no infinity. */
    lc_out_number(out, "logprob", p->logprob > -9999 ? p->logprob : -9999, 9);
    lc_out_open(out, "bytes", '[');
    for (size_t i = 0; p->text && i < p->len; i++) lc_out_int(out, NULL, (unsigned char)p->text[i]);
    lc_out_close(out, ']');
}

void lc_out_logprobs(lc_buf *out, const lc_api_event *event) {
    for (size_t i = 0; i < event->n_logprobs; i++) {
        lc_out_logprob(out, &event->logprobs[i]);
        lc_out_open(out, "top_logprobs", '[');
        for (size_t j = 0; event->tops && j < event->n_tops[i]; j++) {
            lc_out_logprob(out, &event->tops[i][j]);
            lc_out_close(out, '}');
        }
        lc_out_close(out, ']');
        lc_out_close(out, '}');
    }
}

const char *lc_openai_error_type(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 402:
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static const char *default_code(int status) {
    switch (status) {
    case 400: return "invalid_parameter";
    case 401: return "invalid_api_key";
    case 402: return "insufficient_quota";
    case 404: return "not_found";
    case 429: return "rate_limit_exceeded";
    case 500: return "internal_error";
    default: return NULL;
    }
}

void lc_openai_error(const lc_api_error *e, const char *request_id, lc_buf *out) {
    lc_out_open(out, NULL, '{');
    lc_out_open(out, "error", '{');
    lc_out_string(out, "message", e->text);
    lc_out_string(out, "type", lc_openai_error_type(e->status));
    lc_out_string(out, "param", e->param[0] ? e->param : NULL);
    lc_out_string(out, "code", e->code[0] ? e->code : default_code(e->status));
    if (e->retry_after > 0) lc_out_number(out, "retry_after", ceil(e->retry_after), 12);
    lc_out_close(out, '}');
    if (request_id) lc_out_string(out, "request_id", request_id);
    lc_out_close(out, '}');
}
