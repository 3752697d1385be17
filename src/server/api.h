/*
 * api.h: one internal request and one internal stream of events, and the dialects that translate
 * between them and the wires: OpenAI chat completions, OpenAI completions, OpenAI Responses,
 * Anthropic messages. Dialects are pure functions of bytes: no network, no engine, no clock.
 *
 * A dialect canonicalises, so that the next turn of every client extends the last one: billing
 * headers dropped, cache_control ignored, string and text-part contents equal, tools in the order
 * and form sent.
 */
#ifndef LC_SERVER_API_H
#define LC_SERVER_API_H

#include "base/json.h"

enum { LC_API_CHOICES = 4, LC_API_STOPS = 16, LC_API_STOP_BYTES = 256, LC_API_BIASES = 1024 };

typedef enum lc_api_choice {
    LC_TOOLS_AUTO,
    LC_TOOLS_NONE,
    LC_TOOLS_REQUIRED,
    LC_TOOLS_NAMED
} lc_api_choice;
typedef enum lc_api_format { LC_FORMAT_TEXT, LC_FORMAT_OBJECT, LC_FORMAT_SCHEMA } lc_api_format;
typedef enum lc_api_thinking { LC_THINK_DEFAULT, LC_THINK_ON, LC_THINK_OFF } lc_api_thinking;

/* A prompt of the completions dialect: text, or token ids. */
typedef struct lc_api_prompt {
    char *text; /* NUL-terminated, may hold NUL inside: len; NULL: ids */
    size_t len;
    int32_t *ids;
    size_t count;
} lc_api_prompt;

/* Everything in it belongs to it (lc_api_request_free). */
typedef struct lc_api_request {
    char *model;
    /* Chat: messages as chat templates take them: {"role": system|user|assistant|tool, "content":
     * string, "reasoning_content": string, "tool_calls":
     * [{"id","type":"function","function":{"name", "arguments": object}}], "tool_call_id",
     * "signature" of the reasoning, "is_error": true}. tools:
     * [{"type":"function","function":{"name", "description","parameters"}}] or NULL. */
    struct json_object *messages, *tools;
    lc_api_prompt *prompts; /* completions only */
    size_t n_prompts;
    lc_api_prompt suffix; /* completions: what follows the middle to be filled in, or no text */

    lc_api_choice choice;
    char *tool; /* NAMED */
    bool parallel;
    bool strict_tools; /* arguments must follow the schemas though the choice is auto */
    lc_api_format format;
    struct json_object *schema;

    lc_api_thinking thinking;
    bool keep_reasoning; /* save_reasoning_content */

    /* NAN / -1: not given */
    double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, max_tokens;
    bool has_seed;
    uint64_t seed;
    size_t n; /* answers */
    char *stops[LC_API_STOPS];
    size_t n_stops;
    lc_logit_bias biases[LC_API_BIASES];
    size_t n_biases;
    bool logprobs, echo, ignore_eos;
    size_t top_logprobs;

    bool stream, include_usage;
    bool hide_reasoning;  /* the client doesn't want to see it (display omitted) */
    bool wants_encrypted; /* Responses: include reasoning.encrypted_content */
    bool routed;          /* chat chunks say how many routed experts their tokens used: extension */
    /* What the reply repeats of the request (Responses: instructions, tools, metadata, ...), or
     * NULL */
    struct json_object *echoed;
} lc_api_request;
void lc_api_request_free(lc_api_request *request);

/* ---- errors ---- */

typedef struct lc_api_error {
    int status;     /* HTTP */
    char code[48];  /* "context_length_exceeded", "invalid_api_key", ... or "" */
    char param[96]; /* field, or "" */
    char text[480];
    double retry_after; /* seconds, 0 = not said */
} lc_api_error;

/* ---- the stream ---- */

typedef enum lc_api_event_kind {
    LC_API_BEGIN,     /* may be rendered before prefill begins */
    LC_API_PING,      /* nothing has happened for a while */
    LC_API_PROMPT,    /* completions with echo: a prompt token: text, logprob */
    LC_API_REASONING, /* text */
    LC_API_CONTENT,   /* text, logprob; no text where a token alone has none */
    LC_API_CALL,      /* a tool call: call_id, name, arguments (JSON text) */
    LC_API_FINISH,    /* of one choice: reason, stop_string */
    LC_API_USAGE,     /* after the last FINISH: the numbers; the reply is complete */
    LC_API_ERROR,     /* after BEGIN: ends the reply */
} lc_api_event_kind;

typedef enum lc_api_reason {
    LC_REASON_STOP,
    LC_REASON_STOP_STRING,
    LC_REASON_LENGTH,
    LC_REASON_CALLS,
} lc_api_reason;

typedef struct lc_api_logprob {
    int32_t token;
    double logprob;
    const char *text; /* bytes of the token, may be part of a character */
    size_t len;
} lc_api_logprob;

typedef struct lc_api_usage {
    int64_t prompt, cached, output, reasoning; /* tokens; prompt includes cached */
    double queue_s, prefill_s, decode_s, cost_yuan;
} lc_api_usage;

typedef struct lc_api_event {
    lc_api_event_kind kind;
    size_t choice;    /* 0 .. n * prompts - 1 */
    const char *text; /* valid UTF-8 */
    size_t len;
    const lc_api_logprob *logprobs; /* of each token in text */
    const lc_api_logprob *const *tops;
    const size_t *n_tops;
    size_t n_logprobs;
    const float *routed; /* [n_routed] routed experts of each token in text, or NULL: extension */
    size_t n_routed;
    const uint8_t *routed_layers; /* [n_routed][n_layers] the same by layer, or NULL */
    size_t n_layers;
    const char *call_id, *name, *arguments;
    lc_api_reason reason;
    const char *stop_string;
    lc_api_usage usage;
    const lc_api_error *error;
} lc_api_event;

/* What identifies a reply; the caller keeps the strings. */
typedef struct lc_api_reply_info {
    const char *id;    /* 24 random letters and digits; dialects put their prefix before it */
    const char *model; /* as served */
    const char *request_id;
    int64_t created; /* seconds since 1970 */
} lc_api_reply_info;

typedef struct lc_api_reply lc_api_reply; /* a reply being rendered */

typedef struct lc_dialect {
    const char *name;
    /* LC_OK, or the error is filled (status 400 mostly). body: parsed JSON, not kept. header:
     * lookup of request headers in lower case, NULL if absent. */
    int (*parse)(struct json_object *body, const char *(*header)(void *ctx, const char *name),
                 void *ctx, lc_api_request *out, lc_api_error *error);
    /* Error body before a reply has begun. */
    void (*error)(const lc_api_error *error, const char *request_id, lc_buf *out);
    int (*open)(const lc_api_request *request, const lc_api_reply_info *info, lc_api_reply **out,
                lc_err *err); /* request and info outlive the reply */
    /* Appends bytes to send: frames of a stream, or at USAGE the whole body (not streamed). */
    int (*event)(lc_api_reply *reply, const lc_api_event *event, lc_buf *out, lc_err *err);
    void (*close)(lc_api_reply *reply);
    const char *stream_type; /* "text/event-stream; charset=utf-8" */
} lc_dialect;

extern const lc_dialect lc_dialect_chat, lc_dialect_completions, lc_dialect_responses,
    lc_dialect_messages;

#endif
