/*
 * chat_internal.h: what chat.c and chat_encode.c share.
 */
#ifndef LC_TEXT_CHAT_INTERNAL_H
#define LC_TEXT_CHAT_INTERNAL_H

#include "text/chat.h"

enum { LC_CHAT_TOKENS = 7 };

struct lc_chat_template {
    lc_jinja *main, *tool_use; /* tool_use is NULL for most */
    struct json_object *tokens[LC_CHAT_TOKENS];
};

/* The template that serves the conversation. */
const lc_jinja *lc_chat_jinja(const lc_chat_template *tmpl, const lc_chat *chat);

/* lc_chat_render of a conversation whose strings hold marks (jinja.h). */
int lc_chat_render_marked(const lc_chat_template *tmpl, const lc_chat *chat, uint32_t marks_first,
                          uint32_t marks_count, lc_buf *out, lc_err *err);

#endif
