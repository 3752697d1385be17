/*
 * sse.h: writing replies: JSON straight into a buffer, and the frames of a server-sent event
 * stream. The writer keeps no state: a comma is due unless the buffer ends with an opening bracket,
 * a colon or the space of a frame's head. Numbers never go through the locale.
 */
#ifndef LC_SERVER_SSE_H
#define LC_SERVER_SSE_H

#include "base/buf.h"
#include "server/api.h"

/* key NULL: an entry of a list. */
void lc_out_open(lc_buf *out, const char *key, char bracket); /* '{' or '[' */
void lc_out_close(lc_buf *out, char bracket);                 /* '}' or ']' */
void lc_out_text(lc_buf *out, const char *key, const char *text, size_t len);
void lc_out_string(lc_buf *out, const char *key, const char *text); /* NULL: null */
void lc_out_id(lc_buf *out, const char *key, const char *prefix, const char *id);
void lc_out_int(lc_buf *out, const char *key, int64_t value);
/* Not finite: null. digits: significant ones, at most 17. */
void lc_out_number(lc_buf *out, const char *key, double value, int digits);
void lc_out_bool(lc_buf *out, const char *key, bool value);
void lc_out_raw(lc_buf *out, const char *key, const char *json, size_t len);
void lc_out_json(lc_buf *out, const char *key, struct json_object *value); /* NULL: null */
/* The inside of a string, without quotes: pieces of a text may follow each other. Invalid UTF-8
 * becomes U+FFFD. */
void lc_out_escaped(lc_buf *out, const char *text, size_t len);

/* "event: NAME\n" (NULL: none) and "data: "; then one JSON value; then end. */
void lc_frame_begin(lc_buf *out, const char *event);
void lc_frame_end(lc_buf *out);
void lc_frame_comment(lc_buf *out); /* ": ping" */

/* How much of text to send as one fragment: at most 256 bytes, whole characters. */
size_t lc_fragment(const char *text, size_t len);

/* Shared by dialects. */
void lc_out_timings(lc_buf *out, const lc_api_usage *usage); /* "longcat":{"queue_ms",...} */
/* "usage" of chat and completions, and the timings. */
void lc_out_openai_usage(lc_buf *out, const lc_api_usage *usage);
/* token, logprob, bytes; without the closing bracket. */
void lc_out_logprob(lc_buf *out, const lc_api_logprob *p);
/* Entries of a "content" list with their top_logprobs. */
void lc_out_logprobs(lc_buf *out, const lc_api_event *event);
/* {"error":{"message","type","param","code"}} */
void lc_openai_error(const lc_api_error *error, const char *request_id, lc_buf *out);
const char *lc_openai_error_type(int status);

#endif
