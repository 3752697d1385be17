/*
 * dialect_responses.c: requests of OpenAI's Responses dialect, as Codex sends them. Stateless:
 * nothing is stored, what refers to something stored is refused. Replies are in responses_reply.c.
 *
 * Items become messages: reasoning, text and calls that follow each other without anything of
 * another role between them are one turn of the assistant.
 */
#include "server/canonical.h"
#include "server/responses_reply.h"

#include "base/mem.h"

#include <string.h>

static const char *const text_parts[] = {"input_text",   "output_text",    "text", "refusal",
                                         "summary_text", "reasoning_text", NULL};

enum { SPACE_BYTES = 256 };

typedef struct responses_reader {
    lc_talk talk;
    /* Functions of namespaces: the name that the model sees -> [namespace, name], and
     * "namespace\nname" -> the name that the model sees. */
    struct json_object *inner, *shown;
} responses_reader;

static struct json_object *full_name(const char *space, const char *joint,
                                     struct json_object *name) {
    struct json_object *out = NULL;
    lc_buf text = {0};
    lc_buf_puts(&text, space);
    lc_buf_puts(&text, joint);
    lc_buf_puts(&text, json_object_get_string(name));
    if (!text.failed) out = json_object_new_string(text.data);
    lc_buf_free(&text);
    return out;
}

/* ---- input ---- */

static void read_text_item(lc_talk *t, struct json_object *item) {
    struct json_object *role = NULL;
    lc_fields *f = t->f;
    lc_field_string(f, item, "role", &role);
    bool assistant = lc_field_is(role, "assistant");
    if (!lc_field(item, "content")) lc_fields_refuse(f, "content", "is required");
    struct json_object *text =
        lc_talk_text(t, item, "content", text_parts, assistant ? LC_JOIN_ANSWER : LC_JOIN_PARTS);
    if (assistant) {
        /* A second text right behind a first one is another turn. */
        if (t->content.len && !lc_field(t->current, "tool_calls")) lc_talk_end(t);
        lc_talk_assistant(t);
        lc_talk_say(t, text);
        json_object_put(text);
    } else if (lc_field_is(role, "user")) {
        lc_talk_add(t, "user", text);
    } else if (lc_field_is(role, "system") || lc_field_is(role, "developer")) {
        lc_talk_add(t, "system", text);
    } else {
        lc_fields_refuse(f, "role", "must be user, assistant, system or developer");
        json_object_put(text);
    }
}

static bool has_entries(struct json_object *list) {
    return json_object_get_type(list) == json_type_array && json_object_array_length(list) > 0;
}

static void read_reasoning(lc_talk *t, struct json_object *item) {
    struct json_object *signature = NULL;
    bool whole = has_entries(lc_field(item, "content"));
    struct json_object *text =
        lc_talk_text(t, item, whole ? "content" : "summary", text_parts, LC_JOIN_PARTS);
    if (t->content.len || lc_field(t->current, "tool_calls")) lc_talk_end(t);
    struct json_object *message = lc_talk_assistant(t);
    lc_talk_think(t, text);
    json_object_put(text);
    if (lc_field_string(t->f, item, "encrypted_content", &signature) && signature &&
        json_object_get_string_len(signature))
        lc_put(t->f, message, "signature", json_object_get(signature));
}

static void read_output(lc_talk *t, struct json_object *item) {
    struct json_object *id = NULL;
    lc_field_string(t->f, item, "call_id", &id);
    struct json_object *text = lc_talk_text(t, item, "output", text_parts, LC_JOIN_PARTS);
    struct json_object *message = lc_talk_add(t, "tool", text);
    if (id) lc_put(t->f, message, "tool_call_id", json_object_get(id));
}

/* History has a function's own name; the model is shown the one that it has called. */
static void read_call(responses_reader *m, struct json_object *item) {
    struct json_object *name = lc_field(item, "name"), *space = NULL, *key = NULL;
    lc_talk *t = &m->talk;
    lc_field_string(t->f, item, "namespace", &space);
    if (space && json_object_get_type(name) == json_type_string) {
        key = full_name(json_object_get_string(space), "\n", name);
        if (!key) lc_fields_no_memory(t->f);
        struct json_object *shown = key ? lc_field(m->shown, json_object_get_string(key)) : NULL;
        if (shown) name = shown;
    }
    lc_talk_call(t, lc_talk_assistant(t), lc_field(item, "call_id"), name,
                 lc_field(item, "arguments"), "arguments");
    json_object_put(key);
}

static void read_item(responses_reader *m, struct json_object *item) {
    struct json_object *type = lc_field(item, "type");
    lc_talk *t = &m->talk;
    if (json_object_get_type(item) != json_type_object)
        lc_fields_refuse(t->f, NULL, "must be an object");
    else if (!lc_talk_block(t))
        return;
    else if (lc_field_is(type, "message") || (!type && lc_field(item, "role")))
        read_text_item(t, item);
    else if (lc_field_is(type, "function_call"))
        read_call(m, item);
    else if (lc_field_is(type, "function_call_output"))
        read_output(t, item);
    else if (lc_field_is(type, "reasoning"))
        read_reasoning(t, item);
    else if (lc_field_is(type, "item_reference"))
        lc_fields_refuse(t->f, NULL, "items are not stored here: send the item itself");
    else
        lc_talk_refuse_kind(t, type);
}

static void read_input(responses_reader *m, struct json_object *body) {
    struct json_object *input = lc_field(body, "input");
    lc_talk *t = &m->talk;
    lc_fields *f = t->f;
    if (json_object_get_type(input) == json_type_string) {
        lc_talk_add(t, "user", json_object_get(input));
    } else if (lc_field_list(f, body, "input", LC_API_BLOCKS, &input)) {
        size_t n = input ? json_object_array_length(input) : 0;
        if (!n) lc_fields_refuse(f, "input", "is required");
        for (size_t i = 0; i < n && !lc_fields_failed(f); i++) {
            size_t mark = lc_fields_enter(f, "input", i);
            read_item(m, json_object_array_get_idx(input, i));
            lc_fields_leave(f, mark);
        }
    }
}

static void read_conversation(responses_reader *m, struct json_object *body) {
    struct json_object *instructions = NULL;
    lc_talk *t = &m->talk;
    if (lc_field_string(t->f, body, "instructions", &instructions) && instructions &&
        json_object_get_string_len(instructions))
        lc_talk_add(t, "system", json_object_get(instructions));
    read_input(m, body);
    lc_talk_end(t);
}

/* ---- tools ---- */

/* name: what the model sees. */
static void read_function(responses_reader *m, struct json_object *tool, struct json_object *name,
                          size_t *bytes) {
    lc_fields *f = m->talk.f;
    lc_tool_source source = {.name = name, .schema = lc_field(tool, "parameters")};
    bool deferred = false;
    lc_field_string(f, tool, "description", &source.description);
    lc_field_bool(f, tool, "strict", &source.strict);
    lc_field_bool(f, tool, "defer_loading", &deferred);
    if (!deferred) lc_add_tool(f, &source, bytes, m->talk.r);
}

static void note_inner(responses_reader *m, const char *space, struct json_object *own,
                       struct json_object *shown) {
    lc_fields *f = m->talk.f;
    struct json_object *pair = json_object_new_array(), *key = full_name(space, "\n", own);
    lc_push(f, pair, json_object_new_string(space));
    lc_push(f, pair, json_object_get(own));
    lc_put(f, m->inner, json_object_get_string(shown), pair);
    if (key)
        lc_put(f, m->shown, json_object_get_string(key), json_object_get(shown));
    else
        lc_fields_no_memory(f);
    json_object_put(key);
}

/* Its functions stand among the others under their own names, or, where a name is taken, with the
 * namespace's in front. */
static void read_namespace(responses_reader *m, struct json_object *tool, size_t *bytes) {
    struct json_object *list = NULL, *space = NULL;
    lc_fields *f = m->talk.f;
    if (!lc_field_string(f, tool, "name", &space) ||
        !lc_field_list(f, tool, "tools", LC_API_TOOLS, &list) || !list)
        return;
    if (space && json_object_get_string_len(space) > SPACE_BYTES) {
        lc_fields_refuse(f, "name", "is longer than %d bytes", SPACE_BYTES);
        return;
    }
    const char *space_name = space ? json_object_get_string(space) : "";
    for (size_t i = 0; i < json_object_array_length(list) && !lc_fields_failed(f); i++) {
        struct json_object *entry = json_object_array_get_idx(list, i);
        struct json_object *own = lc_field(entry, "name"), *shown = NULL;
        if (!lc_field_is(lc_field(entry, "type"), "function")) continue;
        size_t mark = lc_fields_enter(f, "tools", i);
        bool named = json_object_get_type(own) == json_type_string;
        shown = named && lc_has_tool(m->talk.r, json_object_get_string(own))
                    ? full_name(space_name, "__", own)
                    : json_object_get(own);
        if (named && !shown) lc_fields_no_memory(f);
        read_function(m, entry, shown, bytes);
        if (named && shown && !lc_fields_failed(f)) note_inner(m, space_name, own, shown);
        json_object_put(shown);
        lc_fields_leave(f, mark);
    }
}

/* Tools of other types run at the vendor's; they are ignored. */
static void read_tools(responses_reader *m, struct json_object *body) {
    struct json_object *tools = NULL;
    lc_fields *f = m->talk.f;
    size_t bytes = 0;
    if (!lc_field_list(f, body, "tools", LC_API_TOOLS, &tools) || !tools) return;
    for (size_t i = 0; i < json_object_array_length(tools) && !lc_fields_failed(f); i++) {
        struct json_object *tool = json_object_array_get_idx(tools, i);
        size_t mark = lc_fields_enter(f, "tools", i);
        if (lc_field_is(lc_field(tool, "type"), "function"))
            read_function(m, tool, lc_field(tool, "name"), &bytes);
        else if (lc_field_is(lc_field(tool, "type"), "namespace"))
            read_namespace(m, tool, &bytes);
        else if (!lc_field(tool, "type"))
            lc_fields_refuse(f, "type", "is required");
        lc_fields_leave(f, mark);
    }
}

/* ---- the whole ---- */

static void refuse_state(lc_fields *f, struct json_object *body) {
    static const char *const keys[] = {"previous_response_id", "conversation", "prompt"};
    bool background = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (lc_field(body, keys[i]))
            lc_fields_refuse(f, keys[i],
                             "nothing is stored here: send the whole conversation as input");
    lc_field_bool(f, body, "background", &background);
    if (background) lc_fields_refuse(f, "background", "is not supported");
}

static void read_include(lc_fields *f, struct json_object *body, lc_api_request *r) {
    struct json_object *include = NULL;
    if (!lc_field_list(f, body, "include", 64, &include) || !include) return;
    for (size_t i = 0; i < json_object_array_length(include); i++) {
        struct json_object *entry = json_object_array_get_idx(include, i);
        if (lc_field_is(entry, "reasoning.encrypted_content")) r->wants_encrypted = true;
        if (lc_field_is(entry, "message.output_text.logprobs")) r->logprobs = true;
    }
}

static void keep_echoed(responses_reader *m, struct json_object *body) {
    lc_api_request *r = m->talk.r;
    lc_fields *f = m->talk.f;
    static const char *const keys[] = {"instructions", "max_output_tokens",
                                       "metadata",     "prompt_cache_key",
                                       "reasoning",    "temperature",
                                       "text",         "tools",
                                       "tool_choice",  "top_p",
                                       "truncation",   "user"};
    r->echoed = json_object_new_object();
    if (!r->echoed) lc_fields_no_memory(f);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct json_object *value = lc_field(body, keys[i]);
        if (value) lc_put(f, r->echoed, keys[i], json_object_get(value));
    }
    if (m->inner) lc_put(f, r->echoed, LC_RESPONSES_INNER, json_object_get(m->inner));
}

static void read_body(responses_reader *m, struct json_object *body, lc_api_request *r) {
    static const char *const limits[] = {"max_tokens", "max_output_tokens", NULL};
    struct json_object *text = NULL;
    lc_fields *f = m->talk.f;
    int64_t tops = 0;
    lc_read_max_tokens(f, body, limits, 1, r);
    lc_read_thinking(f, body, r);
    lc_field_int(f, body, "top_logprobs", 0, 20, &tops);
    r->top_logprobs = (size_t)tops;
    read_include(f, body, r);
    if (lc_field_object(f, body, "text", &text) && text) {
        size_t mark = lc_fields_enter(f, "text", SIZE_MAX);
        lc_read_format(f, text, "format", r);
        lc_fields_leave(f, mark);
    }
    read_tools(m, body);
    lc_read_choice(f, body, r);
    read_conversation(m, body);
    keep_echoed(m, body);
}

static int parse(struct json_object *body, lc_header_fn *header, void *ctx, lc_api_request *r,
                 lc_api_error *error) {
    lc_fields f = {.error = error};
    responses_reader m = {.talk = {.f = &f, .r = r},
                          .inner = json_object_new_object(),
                          .shown = json_object_new_object()};
    lc_request_init(r);
    if (!m.inner || !m.shown) lc_fields_no_memory(&f);
    refuse_state(&f, body);
    lc_read_common(&f, body, header, ctx, r);
    read_body(&m, body, r);
    json_object_put(m.inner);
    json_object_put(m.shown);
    return lc_fields_failed(&f) ? LC_EINVAL : LC_OK;
}

const lc_dialect lc_dialect_responses = {
    .name = "responses",
    .parse = parse,
    .error = lc_openai_error,
    .open = lc_responses_open,
    .event = lc_responses_event,
    .close = lc_responses_close,
    .stream_type = "text/event-stream; charset=utf-8",
};
