/*
 * dialect_messages.c: requests of the Anthropic Messages dialect. What Claude Code changes from
 * turn to turn without meaning it (billing header, cache_control) is dropped, so that a turn is an
 * extension of the last one. Replies are in messages_reply.c.
 */
#include "server/canonical.h"
#include "server/messages_reply.h"

#include "base/mem.h"

#include <limits.h>
#include <string.h>

/* The first API version that refuses citations in what a user says. */
static const char strict_version[] = "2026-10-21";
static const char billing[] = "x-anthropic-billing-header:";

static const char *const text_blocks[] = {"text", NULL};

typedef struct messages_reader {
    lc_talk talk;
    struct json_object *deferred; /* name -> tool as sent: what tool references may name */
    bool strict;
} messages_reader;

/* ---- system ---- */

static void put_system(messages_reader *m, const char *text, size_t len) {
    bool fits = len <= INT_MAX;
    if (!len) return;
    struct json_object *value = fits ? json_object_new_string_len(text, (int)len) : NULL;
    if (value)
        lc_talk_add(&m->talk, "system", value);
    else
        lc_fields_no_memory(m->talk.f);
}

static bool starts_with_billing(const char *text, size_t len) {
    return len >= sizeof billing - 1 && memcmp(text, billing, sizeof billing - 1) == 0;
}

static void append_system_block(messages_reader *m, struct json_object *block, lc_buf *out) {
    struct json_object *type = lc_field(block, "type"), *text = NULL;
    lc_fields *f = m->talk.f;
    if (!lc_field_is(type, "text")) {
        lc_talk_refuse_kind(&m->talk, type);
        return;
    }
    if (!lc_field_string(f, block, "text", &text)) return;
    if (!text) {
        lc_fields_refuse(f, "text", "is required");
        return;
    }
    const char *bytes = json_object_get_string(text);
    size_t len = (size_t)json_object_get_string_len(text);
    if (starts_with_billing(bytes, len)) return;
    if (out->len && len) lc_buf_puts(out, LC_JOIN_PARTS);
    lc_buf_append(out, bytes, len);
}

static void read_system(messages_reader *m, struct json_object *body) {
    struct json_object *system = lc_field(body, "system");
    lc_fields *f = m->talk.f;
    lc_buf out = {0};
    if (json_object_get_type(system) == json_type_string) {
        const char *text = json_object_get_string(system);
        size_t len = (size_t)json_object_get_string_len(system);
        if (starts_with_billing(text, len)) {
            const char *line = memchr(text, '\n', len);
            size_t skip = line ? (size_t)(line - text) + 1 : len;
            text += skip;
            len -= skip;
        }
        put_system(m, text, len);
        return;
    }
    if (!lc_field_list(f, body, "system", LC_API_BLOCKS, &system) || !system) return;
    for (size_t i = 0; i < json_object_array_length(system) && !lc_fields_failed(f); i++) {
        size_t mark = lc_fields_enter(f, "system", i);
        if (lc_talk_block(&m->talk))
            append_system_block(m, json_object_array_get_idx(system, i), &out);
        lc_fields_leave(f, mark);
    }
    if (out.failed)
        lc_fields_no_memory(f);
    else
        put_system(m, out.data, out.len);
    lc_buf_free(&out);
}

/* ---- messages ---- */

/* A search among deferred tools has found one: its definition, which the prompt's head doesn't
 * have, stands in the result; once, or a short request could make an endless prompt. */
static void append_reference(messages_reader *m, struct json_object *block, lc_buf *out) {
    static const char *const keys[] = {"name", "description", "input_schema"};
    struct json_object *name = NULL, *shown = json_object_new_object();
    lc_fields *f = m->talk.f;
    if (!lc_field_string(f, block, "tool_name", &name) || !name) {
        json_object_put(shown);
        lc_fields_refuse(f, "tool_name", "is required");
        return;
    }
    struct json_object *tool = lc_field(m->deferred, json_object_get_string(name));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct json_object *value = lc_field(tool, keys[i]);
        if (value) lc_put(f, shown, keys[i], json_object_get(value));
    }
    if (!tool) lc_put(f, shown, "name", json_object_get(name));
    if (out->len) lc_buf_puts(out, LC_JOIN_PARTS);
    const char *text = json_object_to_json_string_ext(shown, JSON_C_TO_STRING_PLAIN |
                                                                 JSON_C_TO_STRING_NOSLASHESCAPE);
    lc_buf_puts(out, text ? text : "");
    json_object_put(shown);
    if (tool) json_object_object_del(m->deferred, json_object_get_string(name));
}

/* The text of a block of type text, or NULL after a fault. */
static struct json_object *text_of(messages_reader *m, struct json_object *block, const char *key) {
    struct json_object *text = NULL;
    if (lc_field_string(m->talk.f, block, key, &text) && !text)
        lc_fields_refuse(m->talk.f, key, "is required");
    return text;
}

static void append_text(lc_buf *out, struct json_object *text) {
    size_t len = (size_t)json_object_get_string_len(text);
    if (!text || !len) return;
    if (out->len) lc_buf_puts(out, LC_JOIN_PARTS);
    lc_buf_append(out, json_object_get_string(text), len);
}

static void append_result_block(messages_reader *m, struct json_object *block, lc_buf *out) {
    struct json_object *type = lc_field(block, "type");
    if (lc_field_is(type, "text"))
        append_text(out, text_of(m, block, "text"));
    else if (lc_field_is(type, "tool_reference"))
        append_reference(m, block, out);
    else
        lc_talk_refuse_kind(&m->talk, type);
}

static struct json_object *new_text(lc_fields *f, lc_buf *text) {
    struct json_object *value =
        text->failed || text->len > INT_MAX
            ? NULL
            : json_object_new_string_len(text->data ? text->data : "", (int)text->len);
    if (!value) lc_fields_no_memory(f);
    lc_buf_free(text);
    return value;
}

static struct json_object *result_text(messages_reader *m, struct json_object *block) {
    struct json_object *content = lc_field(block, "content");
    lc_fields *f = m->talk.f;
    lc_buf out = {0};
    if (json_object_get_type(content) == json_type_string) return json_object_get(content);
    if (lc_field_list(f, block, "content", LC_API_BLOCKS, &content))
        for (size_t i = 0; content && i < json_object_array_length(content); i++) {
            size_t mark = lc_fields_enter(f, "content", i);
            if (lc_talk_block(&m->talk))
                append_result_block(m, json_object_array_get_idx(content, i), &out);
            lc_fields_leave(f, mark);
            if (lc_fields_failed(f)) break;
        }
    return new_text(f, &out);
}

static void read_result(messages_reader *m, struct json_object *block) {
    struct json_object *id = NULL;
    lc_fields *f = m->talk.f;
    bool is_error = false;
    lc_field_string(f, block, "tool_use_id", &id);
    lc_field_bool(f, block, "is_error", &is_error);
    struct json_object *message = lc_talk_add(&m->talk, "tool", result_text(m, block));
    if (id) lc_put(f, message, "tool_call_id", json_object_get(id));
    if (is_error) lc_put(f, message, "is_error", json_object_new_boolean(true));
}

static void end_user_text(messages_reader *m, lc_buf *text) {
    if (text->len || text->failed) lc_talk_add(&m->talk, "user", new_text(m->talk.f, text));
}

static void check_citations(messages_reader *m, struct json_object *block) {
    struct json_object *citations = lc_field(block, "citations");
    bool some = json_object_get_type(citations) == json_type_array &&
                json_object_array_length(citations) > 0;
    if (some && m->strict)
        lc_fields_refuse(m->talk.f, "citations", "must be empty in what a user says");
}

static void read_user_block(messages_reader *m, struct json_object *block, lc_buf *text) {
    struct json_object *type = lc_field(block, "type");
    if (lc_field_is(type, "text")) {
        check_citations(m, block);
        append_text(text, text_of(m, block, "text"));
    } else if (lc_field_is(type, "tool_result")) {
        end_user_text(m, text);
        read_result(m, block);
    } else if (lc_field_is(type, "tool_reference")) {
        append_reference(m, block, text);
    } else {
        lc_talk_refuse_kind(&m->talk, type);
    }
}

static void read_assistant_block(messages_reader *m, struct json_object *block) {
    struct json_object *type = lc_field(block, "type"), *signature = NULL;
    lc_talk *t = &m->talk;
    struct json_object *message = lc_talk_assistant(t);
    if (lc_field_is(type, "text")) {
        lc_talk_say(t, text_of(m, block, "text"));
    } else if (lc_field_is(type, "thinking")) {
        lc_talk_think(t, text_of(m, block, "thinking"));
        if (lc_field_string(t->f, block, "signature", &signature) && signature &&
            json_object_get_string_len(signature))
            lc_put(t->f, message, "signature", json_object_get(signature));
    } else if (lc_field_is(type, "tool_use")) {
        lc_talk_call(t, message, lc_field(block, "id"), lc_field(block, "name"),
                     lc_field(block, "input"), "input");
    } else if (!lc_field_is(type, "redacted_thinking")) {
        lc_talk_refuse_kind(t, type);
    }
}

static size_t count_messages(const messages_reader *m) {
    return m->talk.r->messages ? json_object_array_length(m->talk.r->messages) : 0;
}

static void read_blocks(messages_reader *m, struct json_object *message, bool assistant) {
    struct json_object *content = lc_field(message, "content");
    lc_fields *f = m->talk.f;
    lc_buf text = {0};
    size_t before = count_messages(m);
    if (!content) lc_fields_refuse(f, "content", "is required");
    if (json_object_get_type(content) == json_type_string) {
        lc_talk_add(&m->talk, assistant ? "assistant" : "user", json_object_get(content));
    } else if (lc_field_list(f, message, "content", LC_API_BLOCKS, &content)) {
        if (assistant) lc_talk_add(&m->talk, "assistant", NULL);
        for (size_t i = 0; i < json_object_array_length(content) && !lc_fields_failed(f); i++) {
            struct json_object *block = json_object_array_get_idx(content, i);
            size_t mark = lc_fields_enter(f, "content", i);
            if (!lc_talk_block(&m->talk))
                break;
            else if (assistant)
                read_assistant_block(m, block);
            else
                read_user_block(m, block, &text);
            lc_fields_leave(f, mark);
        }
        end_user_text(m, &text);
    }
    lc_talk_end(&m->talk);
    if (!lc_fields_failed(f) && count_messages(m) == before)
        lc_talk_add(&m->talk, "user", NULL); /* nothing was said, but a turn it is */
    lc_buf_free(&text);
}

static void read_message(messages_reader *m, struct json_object *message) {
    struct json_object *role = NULL;
    lc_fields *f = m->talk.f;
    if (json_object_get_type(message) != json_type_object) {
        lc_fields_refuse(f, NULL, "must be an object");
        return;
    }
    lc_field_string(f, message, "role", &role);
    if (lc_field_is(role, "user") || lc_field_is(role, "assistant"))
        read_blocks(m, message, lc_field_is(role, "assistant"));
    else if (lc_field_is(role, "system"))
        lc_talk_add(&m->talk, "system",
                    lc_talk_text(&m->talk, message, "content", text_blocks, LC_JOIN_PARTS));
    else
        lc_fields_refuse(f, "role", "must be user, assistant or system");
}

static void read_messages(messages_reader *m, struct json_object *body) {
    struct json_object *messages = NULL;
    lc_fields *f = m->talk.f;
    if (lc_field_list(f, body, "messages", LC_API_MESSAGES, &messages)) {
        size_t n = messages ? json_object_array_length(messages) : 0;
        if (!n) lc_fields_refuse(f, "messages", "at least one message is required");
        for (size_t i = 0; i < n && !lc_fields_failed(f); i++) {
            size_t mark = lc_fields_enter(f, "messages", i);
            read_message(m, json_object_array_get_idx(messages, i));
            lc_fields_leave(f, mark);
        }
    }
    lc_talk_end(&m->talk);
}

/* ---- tools ---- */

/* Deferred tools are found by searching; the placeholder stands for them; other types than custom
 * name tools that run at the vendor's. */
static bool skipped(struct json_object *tool, bool deferred) {
    struct json_object *type = lc_field(tool, "type");
    return deferred || lc_field_is(lc_field(tool, "name"), "DeferredToolPlaceholder") ||
           (type && !lc_field_is(type, "custom"));
}

static void read_tools(messages_reader *m, struct json_object *body) {
    struct json_object *tools = NULL;
    lc_fields *f = m->talk.f;
    size_t bytes = 0;
    if (!lc_field_list(f, body, "tools", LC_API_TOOLS, &tools) || !tools) return;
    for (size_t i = 0; i < json_object_array_length(tools) && !lc_fields_failed(f); i++) {
        struct json_object *tool = json_object_array_get_idx(tools, i);
        bool deferred = false;
        size_t mark = lc_fields_enter(f, "tools", i);
        if (json_object_get_type(tool) != json_type_object)
            lc_fields_refuse(f, NULL, "must be an object");
        lc_field_bool(f, tool, "defer_loading", &deferred);
        lc_tool_source source = {.name = lc_field(tool, "name"),
                                 .schema = lc_field(tool, "input_schema")};
        lc_field_string(f, tool, "description", &source.description);
        lc_field_bool(f, tool, "strict", &source.strict);
        if (!skipped(tool, deferred))
            lc_add_tool(f, &source, &bytes, m->talk.r);
        else if (deferred && json_object_get_type(source.name) == json_type_string)
            lc_put(f, m->deferred, json_object_get_string(source.name), json_object_get(tool));
        lc_fields_leave(f, mark);
    }
}

/* ---- the whole ---- */

/* max_tokens may be absent: counting tokens needs none. */
static int parse(struct json_object *body, lc_header_fn *header, void *ctx, lc_api_request *r,
                 lc_api_error *error) {
    static const char *const limits[] = {"max_tokens", NULL};
    lc_fields f = {.error = error};
    messages_reader m = {.talk = {.f = &f, .r = r}};
    struct json_object *output = NULL;
    lc_request_init(r);
    m.deferred = json_object_new_object();
    if (!m.deferred) lc_fields_no_memory(&f);
    const char *version = header(ctx, "anthropic-version");
    m.strict = version && strcmp(version, strict_version) >= 0;
    lc_read_common(&f, body, header, ctx, r);
    lc_read_max_tokens(&f, body, limits, 1, r);
    lc_read_stops(&f, body, "stop_sequences", r);
    lc_read_thinking(&f, body, r);
    if (lc_field_object(&f, body, "output_config", &output) && output) {
        size_t mark = lc_fields_enter(&f, "output_config", SIZE_MAX);
        lc_read_format(&f, output, "format", r);
        lc_fields_leave(&f, mark);
    }
    lc_read_format(&f, body, "output_format", r);
    read_tools(&m, body);
    lc_read_choice(&f, body, r);
    read_system(&m, body);
    read_messages(&m, body);
    json_object_put(m.deferred);
    return lc_fields_failed(&f) ? LC_EINVAL : LC_OK;
}

const lc_dialect lc_dialect_messages = {
    .name = "messages",
    .parse = parse,
    .error = lc_messages_error,
    .open = lc_messages_open,
    .event = lc_messages_event,
    .close = lc_messages_close,
    .stream_type = "text/event-stream; charset=utf-8",
};
