/*
 * canonical.h: what the dialects' parsers share: sampling and other common fields, tools, answer
 * formats, and the conversation in canonical form (api.h). Everything reports through lc_fields and
 * goes on harmlessly after a fault.
 */
#ifndef LC_SERVER_CANONICAL_H
#define LC_SERVER_CANONICAL_H

#include "server/fields.h"

enum { LC_API_MESSAGES = 20000, LC_API_BLOCKS = 100000, LC_API_TOOLS = 512 };

typedef const char *lc_header_fn(void *ctx, const char *name);

/* Everything not given. */
void lc_request_init(lc_api_request *r);

/* model, sampling, seed, bias, stream, affinity, user, extensions. */
void lc_read_common(lc_fields *f, struct json_object *body, lc_header_fn *header, void *ctx,
                    lc_api_request *r);
/* A string or a list of them. */
void lc_read_stops(lc_fields *f, struct json_object *body, const char *key, lc_api_request *r);
/* max_tokens, max_completion_tokens, max_output_tokens: the ones in keys, NULL-terminated. */
void lc_read_max_tokens(lc_fields *f, struct json_object *body, const char *const *keys,
                        int64_t low, lc_api_request *r);
/* thinking, enable_thinking, reasoning_effort, reasoning, chat_template_kwargs. */
void lc_read_thinking(lc_fields *f, struct json_object *body, lc_api_request *r);
/* obj.key: {type: text | json_object | json_schema, ...} in any dialect's spelling. */
void lc_read_format(lc_fields *f, struct json_object *obj, const char *key, lc_api_request *r);

/* ---- tools ---- */

typedef struct lc_tool_source {
    struct json_object *name, *description, *schema; /* NULL: not given */
    bool strict;
} lc_tool_source;
/* Adds {"type":"function","function":{...}} to r->tools; *schema_bytes counts what all have. */
void lc_add_tool(lc_fields *f, const lc_tool_source *tool, size_t *schema_bytes, lc_api_request *r);
/* body.tool_choice and parallel_tool_calls in any spelling; the last thing to read: it also checks
 * choice, tools and format against each other. */
void lc_read_choice(lc_fields *f, struct json_object *body, lc_api_request *r);
bool lc_has_tool(const lc_api_request *r, const char *name);

/* ---- the conversation ---- */

/* What texts of one content are joined with: parts of a question are separate texts, parts of an
 * answer are one text that was cut. */
#define LC_JOIN_PARTS "\n"
#define LC_JOIN_ANSWER ""

typedef struct lc_talk {
    lc_fields *f;
    lc_api_request *r;
    size_t blocks;               /* so far, of all messages */
    struct json_object *current; /* assistant message that is being put together, or NULL */
    lc_buf content, reasoning;   /* of it, so far */
} lc_talk;

/* A new message; content (taken over) may be NULL: "". Ends the one before. */
struct json_object *lc_talk_add(lc_talk *t, const char *role, struct json_object *content);
/* The assistant message at the end, made if there is none. */
struct json_object *lc_talk_assistant(lc_talk *t);
/* Appends text (borrowed) to what that message says or thinks. */
void lc_talk_say(lc_talk *t, struct json_object *text);
void lc_talk_think(lc_talk *t, struct json_object *text);
/* Completes the last message. Always call it, after faults too. */
void lc_talk_end(lc_talk *t);
/* Adds a call to an assistant message. arguments: an object, or a string that holds one. */
void lc_talk_call(lc_talk *t, struct json_object *message, struct json_object *id,
                  struct json_object *name, struct json_object *arguments,
                  const char *arguments_key);
bool lc_talk_block(lc_talk *t); /* counts one; false past the limit */
/* obj.key, a string or parts whose type is one of `types` (NULL-terminated) with their text in
 * .text: the joined string, owned by the caller; NULL after a fault. Absent: "". */
struct json_object *lc_talk_text(lc_talk *t, struct json_object *obj, const char *key,
                                 const char *const *types, const char *joint);
/* 400 for content of a kind that this model doesn't read. */
bool lc_talk_refuse_kind(lc_talk *t, struct json_object *type);

#endif
