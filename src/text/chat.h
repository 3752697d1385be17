/*
 * chat.h: chat templates: the Jinja environment of the reference runtime around jinja.h, and the
 * encoding of a rendered conversation in which tags inside user data stay plain text.
 */
#ifndef LC_TEXT_CHAT_H
#define LC_TEXT_CHAT_H

#include "base/json.h"
#include "text/jinja/jinja.h"
#include "text/tokenizer.h"

typedef struct lc_chat_template lc_chat_template;

/* path: a .jinja file, a tokenizer_config.json with chat_template, or a model folder
 * (chat_template.jinja first). Special token strings (bos_token, ...) come from
 * tokenizer_config.json beside it when it exists. Where a checkpoint names several templates, the
 * one called tool_use serves conversations with tools and the one called default all others. */
int lc_chat_template_load(const char *path, lc_chat_template **out, lc_err *err);
int lc_chat_template_parse(const char *source, size_t len, const char *name, lc_chat_template **out,
                           lc_err *err);
void lc_chat_template_free(lc_chat_template *tmpl);

typedef struct lc_chat {
    struct json_object *messages;  /* array; not changed */
    struct json_object *tools;     /* array or NULL */
    struct json_object *arguments; /* object: other template variables (add_generation_prompt, ...),
                                      or NULL */
    int64_t now; /* clock of strftime_now, seconds since 1970 (UTC); 0 = the present, local time */
    lc_jinja_fault *fault; /* what went wrong in the template, in full (jinja.h), or NULL */
} lc_chat;

/* Appends the text to out; on failure out is as it was. */
int lc_chat_render(const lc_chat_template *tmpl, const lc_chat *chat, lc_buf *out, lc_err *err);

/* Renders and encodes. sanitize (the default everywhere): each special token, and each other added
 * token that the template itself names, that stands in a string of messages, tools or arguments is
 * encoded as plain text, so that data can't act as a tag (golden/text/README.md 2). The template
 * sees such a token with a private character on each side; U+F0000 in data is dropped. */
int lc_chat_encode(const lc_chat_template *tmpl, const lc_chat *chat, const lc_tokenizer *tokenizer,
                   bool sanitize, lc_ids *out, lc_err *err);

#endif
