/* talk.c: a conversation in canonical form, message by message; see canonical.h. */
#include "server/canonical.h"

#include "base/mem.h"

#include <limits.h>
#include <string.h>

static void put_text(lc_talk *t, const char *key, lc_buf *text) {
    bool good = !text->failed && text->len <= INT_MAX;
    if (good && text->len && t->current)
        lc_put(t->f, t->current, key, json_object_new_string_len(text->data, (int)text->len));
    else if (!good)
        lc_fields_no_memory(t->f);
    lc_buf_free(text);
}

void lc_talk_end(lc_talk *t) {
    put_text(t, "content", &t->content);
    put_text(t, "reasoning_content", &t->reasoning);
    t->current = NULL;
}

struct json_object *lc_talk_add(lc_talk *t, const char *role, struct json_object *content) {
    lc_api_request *r = t->r;
    lc_talk_end(t);
    if (!r->messages) r->messages = json_object_new_array();
    if (r->messages && json_object_array_length(r->messages) >= LC_API_MESSAGES)
        lc_fields_refuse(t->f, NULL, "more than %d messages", LC_API_MESSAGES);
    struct json_object *message = json_object_new_object();
    lc_put(t->f, message, "role", json_object_new_string(role));
    lc_put(t->f, message, "content", content ? content : json_object_new_string(""));
    if (!lc_push(t->f, r->messages, message)) return NULL;
    if (!strcmp(role, "assistant")) t->current = message;
    return message;
}

struct json_object *lc_talk_assistant(lc_talk *t) {
    return t->current ? t->current : lc_talk_add(t, "assistant", NULL);
}

static void collect(lc_talk *t, lc_buf *out, struct json_object *text) {
    if (!text || !lc_talk_assistant(t)) return;
    lc_buf_append(out, json_object_get_string(text), (size_t)json_object_get_string_len(text));
}

void lc_talk_say(lc_talk *t, struct json_object *text) { collect(t, &t->content, text); }

void lc_talk_think(lc_talk *t, struct json_object *text) { collect(t, &t->reasoning, text); }

/* An object, new or shared; NULL after a fault. Clients write no arguments as "" too. */
static struct json_object *read_arguments(lc_talk *t, struct json_object *value, const char *key) {
    struct json_object *parsed = NULL;
    lc_err err = {0};
    if (json_object_get_type(value) == json_type_object) return json_object_get(value);
    bool is_string = json_object_get_type(value) == json_type_string;
    if (!value || (is_string && json_object_get_string_len(value) == 0))
        return json_object_new_object();
    if (is_string &&
        lc_json_parse(json_object_get_string(value), (size_t)json_object_get_string_len(value),
                      "text", &parsed, &err) == LC_OK &&
        json_object_get_type(parsed) == json_type_object)
        return parsed;
    json_object_put(parsed);
    if (err.code == LC_ENOMEM)
        lc_fields_no_memory(t->f);
    else
        lc_fields_refuse(t->f, key, "must be a JSON object, or a string that holds one%s%s",
                         err.code ? ": " : "", err.text);
    return NULL;
}

void lc_talk_call(lc_talk *t, struct json_object *message, struct json_object *id,
                  struct json_object *name, struct json_object *arguments,
                  const char *arguments_key) {
    if (lc_fields_failed(t->f)) return;
    if (json_object_get_type(name) != json_type_string) {
        lc_fields_refuse(t->f, "name", name ? "must be a string" : "is required");
        return;
    }
    struct json_object *parsed = read_arguments(t, arguments, arguments_key);
    if (!parsed) {
        lc_fields_no_memory(t->f); /* or what was said already */
        return;
    }
    struct json_object *calls = lc_field(message, "tool_calls");
    if (!calls) {
        calls = json_object_new_array();
        if (!lc_put(t->f, message, "tool_calls", calls)) calls = NULL;
    }
    struct json_object *call = json_object_new_object(), *function = json_object_new_object();
    if (json_object_get_type(id) == json_type_string) lc_put(t->f, call, "id", json_object_get(id));
    lc_put(t->f, call, "type", json_object_new_string("function"));
    lc_put(t->f, function, "name", json_object_get(name));
    lc_put(t->f, function, "arguments", parsed);
    lc_put(t->f, call, "function", function);
    lc_push(t->f, calls, call);
}

bool lc_talk_block(lc_talk *t) {
    if (++t->blocks <= LC_API_BLOCKS) return true;
    return lc_fields_refuse(t->f, NULL, "more than %d content blocks", LC_API_BLOCKS);
}

bool lc_talk_refuse_kind(lc_talk *t, struct json_object *type) {
    static const char *const media[] = {"image", "audio", "video", "document", "file", "pdf"};
    if (json_object_get_type(type) != json_type_string)
        return lc_fields_refuse(t->f, "type", type ? "must be a string" : "is required");
    const char *text = json_object_get_string(type);
    for (size_t i = 0; i < sizeof media / sizeof *media; i++)
        if (strstr(text, media[i]))
            return lc_fields_refuse(t->f, NULL, "this model takes text only, no %.40s", text);
    return lc_fields_refuse(t->f, NULL, "content of type %.40s is not supported here", text);
}

static void append_part(lc_talk *t, struct json_object *part, const char *const *types,
                        const char *joint, lc_buf *out) {
    struct json_object *type = lc_field(part, "type"), *text = NULL;
    if (json_object_get_type(part) == json_type_string) {
        text = part;
    } else {
        while (*types && !lc_field_is(type, *types)) types++;
        if (!*types) {
            lc_talk_refuse_kind(t, type);
            return;
        }
        const char *key = lc_field_is(type, "refusal") ? "refusal" : "text";
        if (!lc_field_string(t->f, part, key, &text)) return;
        if (!text) {
            lc_fields_refuse(t->f, key, "is required");
            return;
        }
    }
    size_t len = (size_t)json_object_get_string_len(text);
    if (out->len && len) lc_buf_puts(out, joint);
    lc_buf_append(out, json_object_get_string(text), len);
}

struct json_object *lc_talk_text(lc_talk *t, struct json_object *obj, const char *key,
                                 const char *const *types, const char *joint) {
    struct json_object *content = lc_field(obj, key), *joined = NULL;
    lc_buf out = {0};
    if (lc_fields_failed(t->f)) return NULL;
    if (!content) return json_object_new_string("");
    if (json_object_get_type(content) == json_type_string) return json_object_get(content);
    if (json_object_get_type(content) != json_type_array) {
        lc_fields_refuse(t->f, key, "must be a string or a list of parts");
        return NULL;
    }
    for (size_t i = 0; i < json_object_array_length(content) && !lc_fields_failed(t->f); i++) {
        size_t mark = lc_fields_enter(t->f, key, i);
        if (lc_talk_block(t))
            append_part(t, json_object_array_get_idx(content, i), types, joint, &out);
        lc_fields_leave(t->f, mark);
    }
    if (!lc_fields_failed(t->f)) {
        if (!out.failed && out.len <= INT_MAX)
            joined = json_object_new_string_len(out.data ? out.data : "", (int)out.len);
        if (!joined) lc_fields_no_memory(t->f);
    }
    lc_buf_free(&out);
    return joined;
}
