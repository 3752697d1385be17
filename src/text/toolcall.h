/*
 * toolcall.h: what the model wrote -> reasoning, content and tool calls; whole or streaming,
 * lenient (rules: docs/formats.md). What has been emitted as reasoning or content is at all times a
 * beginning of the final result.
 */
#ifndef LC_TEXT_TOOLCALL_H
#define LC_TEXT_TOOLCALL_H

#include "base/json.h"

typedef struct lc_toolparser lc_toolparser;

/* tools: array of {"type":"function","function":{"name","parameters"}} (or bare functions), or
 * NULL; read once, not kept. An empty array is the same as NULL. thinking_open: the prompt ended
 * inside a think block. */
int lc_toolparser_new(struct json_object *tools, bool thinking_open, lc_toolparser **out,
                      lc_err *err);
void lc_toolparser_free(lc_toolparser *parser);
/* End tags are left out, and what stands behind them is read as if they weren't there. */
void lc_toolparser_pass_end(lc_toolparser *parser);

/* Feeds the next piece (any cut, even inside a character; then what is certain may end inside one
 * too). Text is passed on byte by byte, UTF-8 is not checked. After LC_ENOMEM the parser takes no
 * more text. */
int lc_toolparser_push(lc_toolparser *parser, const char *text, size_t len, lc_err *err);
/* The text is complete. Once; no push afterwards. LC_FINISH_LENGTH: an open call is dropped and
 * reported as unfinished. */
int lc_toolparser_finish(lc_toolparser *parser, lc_finish finish, lc_err *err);

typedef struct lc_toolcall {
    const char *name;
    struct json_object *arguments; /* object, owned by the parser */
} lc_toolcall;

/* What is certain so far; grows with each push, complete after finish. Pointers live until the next
 * push. */
typedef struct lc_parsed {
    bool has_reasoning;
    const char *reasoning, *content; /* NUL-terminated, never NULL */
    size_t reasoning_len, content_len;
    const lc_toolcall *calls;
    size_t n_calls;
    bool unfinished;
} lc_parsed;
lc_parsed lc_toolparser_result(const lc_toolparser *parser);

#endif
