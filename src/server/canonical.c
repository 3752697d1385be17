/*
 * canonical.c: fields that dialects share; see canonical.h. The conversation is in talk.c.
 */
#include "server/canonical.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    NAME_BYTES = 256,
    MODEL_BYTES = 256,
    SCHEMA_BYTES = 256 << 10,
    SCHEMAS_BYTES = 4 << 20,
    SCHEMA_DEPTH = 32,
};

static const int64_t most_tokens = (int64_t)1 << 53;

void lc_request_init(lc_api_request *r) {
    *r = (lc_api_request){.parallel = true,
                          .temperature = NAN,
                          .top_p = NAN,
                          .min_p = NAN,
                          .repetition_penalty = NAN,
                          .presence_penalty = NAN,
                          .frequency_penalty = NAN,
                          .top_k = -1,
                          .max_tokens = -1,
                          .n = 1};
}

/* ---- sampling and the like ---- */

static void read_seed(lc_fields *f, struct json_object *body, lc_api_request *r) {
    struct json_object *seed = lc_field(body, "seed");
    if (!seed) return;
    if (json_object_get_type(seed) != json_type_int) {
        lc_fields_refuse(f, "seed", "must be an integer of 64 bits");
        return;
    }
    int64_t low = json_object_get_int64(seed);
    r->has_seed = true;
    r->seed = low < 0 ? (uint64_t)low : json_object_get_uint64(seed);
}

static void read_bias(lc_fields *f, struct json_object *body, lc_api_request *r) {
    struct json_object *bias = NULL;
    if (!lc_field_object(f, body, "logit_bias", &bias) || !bias) return;
    if (json_object_object_length(bias) > LC_API_BIASES) {
        lc_fields_refuse(f, "logit_bias", "has more than %d entries", LC_API_BIASES);
        return;
    }
    size_t mark = lc_fields_enter(f, "logit_bias", SIZE_MAX);
    json_object_object_foreach(bias, key, unused) {
        double value = 0;
        int64_t token = 0;
        size_t digits = strspn(key, "0123456789");
        (void)unused;
        for (size_t i = 0; i < digits && i < 11; i++) token = token * 10 + (key[i] - '0');
        if (!digits || key[digits] || digits > 10 || token > INT32_MAX)
            lc_fields_refuse(f, NULL, "keys must be token ids");
        if (!lc_field_number(f, bias, key, -100, 100, &value)) break;
        r->biases[r->n_biases++] = (lc_logit_bias){.token = (int32_t)token, .bias = (float)value};
    }
    lc_fields_leave(f, mark);
}

static void read_sampling(lc_fields *f, struct json_object *body, lc_api_request *r) {
    lc_field_number(f, body, "temperature", 0, 2, &r->temperature);
    lc_field_number(f, body, "top_p", 0, 1, &r->top_p);
    lc_field_number(f, body, "min_p", 0, 1, &r->min_p);
    lc_field_number(f, body, "repetition_penalty", 0.01, 10, &r->repetition_penalty);
    lc_field_number(f, body, "presence_penalty", -2, 2, &r->presence_penalty);
    lc_field_number(f, body, "frequency_penalty", -2, 2, &r->frequency_penalty);
    int64_t top_k = 0;
    if (lc_field_int(f, body, "top_k", -1, INT32_MAX, &top_k) && lc_field(body, "top_k"))
        r->top_k = top_k < 0 ? 0 : top_k; /* -1 is how vLLM says all */
    read_seed(f, body, r);
    read_bias(f, body, r);
    lc_field_bool(f, body, "ignore_eos", &r->ignore_eos);
}

void lc_read_common(lc_fields *f, struct json_object *body, lc_header_fn *header, void *ctx,
                    lc_api_request *r) {
    struct json_object *options = NULL;
    lc_field_copy(f, body, "model", MODEL_BYTES, &r->model);
    lc_field_bool(f, body, "stream", &r->stream);
    if (lc_field_object(f, body, "stream_options", &options) && options) {
        size_t mark = lc_fields_enter(f, "stream_options", SIZE_MAX);
        lc_field_bool(f, options, "include_usage", &r->include_usage);
        lc_fields_leave(f, mark);
    }
    read_sampling(f, body, r);
    lc_field_bool(f, body, "longcat_routed", &r->routed);
    const char *routed = header(ctx, "x-longcat-routed");
    if (routed && !strcmp(routed, "1")) r->routed = true;
}

static void add_stop(lc_fields *f, const char *key, struct json_object *value, lc_api_request *r) {
    if (json_object_get_type(value) != json_type_string) {
        lc_fields_refuse(f, key, "must be a string or a list of strings");
        return;
    }
    size_t len = (size_t)json_object_get_string_len(value);
    const char *text = json_object_get_string(value);
    if (!len || len > LC_API_STOP_BYTES || memchr(text, 0, len)) {
        lc_fields_refuse(f, key, "a stop string must have 1 to %d bytes and no NUL character",
                         LC_API_STOP_BYTES);
        return;
    }
    r->stops[r->n_stops] = lc_strndup(text, len);
    if (r->stops[r->n_stops])
        r->n_stops++;
    else
        lc_fields_no_memory(f);
}

void lc_read_stops(lc_fields *f, struct json_object *body, const char *key, lc_api_request *r) {
    struct json_object *stop = lc_field(body, key);
    if (!stop || lc_fields_failed(f)) return;
    if (json_object_get_type(stop) != json_type_array) {
        add_stop(f, key, stop, r);
        return;
    }
    size_t n = json_object_array_length(stop);
    if (n > LC_API_STOPS) {
        lc_fields_refuse(f, key, "has more than %d entries", LC_API_STOPS);
        return;
    }
    for (size_t i = 0; i < n && !lc_fields_failed(f); i++)
        add_stop(f, key, json_object_array_get_idx(stop, i), r);
}

void lc_read_max_tokens(lc_fields *f, struct json_object *body, const char *const *keys,
                        int64_t low, lc_api_request *r) {
    for (; *keys; keys++) lc_field_int(f, body, *keys, low, most_tokens, &r->max_tokens);
}

/* ---- thinking ---- */

static void set_thinking(lc_api_request *r, bool on) {
    r->thinking = on ? LC_THINK_ON : LC_THINK_OFF;
}

/* Any other word than these leaves the choice to the model's template. */
static void read_effort(lc_fields *f, struct json_object *obj, const char *key, lc_api_request *r) {
    static const char *const on[] = {"low", "medium", "high", "xhigh", "max"};
    struct json_object *effort = NULL;
    if (!lc_field_string(f, obj, key, &effort) || !effort) return;
    if (lc_field_is(effort, "none") || lc_field_is(effort, "minimal")) set_thinking(r, false);
    for (size_t i = 0; i < sizeof on / sizeof *on; i++)
        if (lc_field_is(effort, on[i])) set_thinking(r, true);
}

static void read_switch(lc_fields *f, struct json_object *obj, const char *key, lc_api_request *r) {
    bool on = false;
    if (lc_field_bool(f, obj, key, &on) && lc_field(obj, key)) set_thinking(r, on);
}

/* {"type": enabled | disabled | adaptive, "display"} or true or false. Adaptive: the template's
 * own way. */
static void read_thinking_object(lc_fields *f, struct json_object *body, lc_api_request *r) {
    struct json_object *thinking = lc_field(body, "thinking"), *type = NULL, *display = NULL;
    int64_t budget = 0;
    if (json_object_get_type(thinking) == json_type_boolean) {
        read_switch(f, body, "thinking", r);
        return;
    }
    if (!lc_field_object(f, body, "thinking", &thinking) || !thinking) return;
    size_t mark = lc_fields_enter(f, "thinking", SIZE_MAX);
    lc_field_string(f, thinking, "type", &type);
    lc_field_string(f, thinking, "display", &display);
    lc_field_int(f, thinking, "budget_tokens", 0, most_tokens, &budget);
    if (lc_field_is(type, "enabled"))
        set_thinking(r, true);
    else if (lc_field_is(type, "disabled"))
        set_thinking(r, false);
    else if (!lc_field_is(type, "adaptive") && !lc_field_is(type, "auto"))
        lc_fields_refuse(f, "type", "must be enabled, disabled or adaptive");
    if (lc_field_is(display, "omitted")) r->hide_reasoning = true;
    lc_fields_leave(f, mark);
}

void lc_read_thinking(lc_fields *f, struct json_object *body, lc_api_request *r) {
    struct json_object *reasoning = NULL, *arguments = NULL;
    bool shown = true;
    read_effort(f, body, "reasoning_effort", r);
    if (lc_field_object(f, body, "reasoning", &reasoning) && reasoning) {
        size_t mark = lc_fields_enter(f, "reasoning", SIZE_MAX);
        read_effort(f, reasoning, "effort", r);
        read_switch(f, reasoning, "enabled", r);
        lc_field_bool(f, reasoning, "exclude", &r->hide_reasoning);
        lc_fields_leave(f, mark);
    }
    read_thinking_object(f, body, r);
    read_switch(f, body, "enable_thinking", r);
    lc_field_bool(f, body, "save_reasoning_content", &r->keep_reasoning);
    lc_field_bool(f, body, "include_reasoning", &shown);
    if (!shown) r->hide_reasoning = true;
    /* Template arguments can change what a prompt means: only these pass. */
    if (lc_field_object(f, body, "chat_template_kwargs", &arguments) && arguments) {
        size_t mark = lc_fields_enter(f, "chat_template_kwargs", SIZE_MAX);
        read_switch(f, arguments, "enable_thinking", r);
        lc_field_bool(f, arguments, "save_reasoning_content", &r->keep_reasoning);
        lc_fields_leave(f, mark);
    }
}

/* ---- schemas ---- */

/* About as many bytes as its compact text has, at most a little over `most`. -1: too deep. */
static int64_t size_of(struct json_object *value, int depth, int64_t most) {
    int64_t total = 2;
    if (depth > SCHEMA_DEPTH) return -1;
    switch (json_object_get_type(value)) {
    case json_type_string: return json_object_get_string_len(value) + 2;
    case json_type_array:
        for (size_t i = 0; i < json_object_array_length(value) && total <= most; i++) {
            int64_t n = size_of(json_object_array_get_idx(value, i), depth + 1, most - total);
            if (n < 0) return -1;
            total += n + 1;
        }
        return total;
    case json_type_object: {
        json_object_object_foreach(value, key, child) {
            int64_t n = size_of(child, depth + 1, most - total);
            if (n < 0) return -1;
            total += n + (int64_t)strlen(key) + 4;
            if (total > most) break;
        }
        return total;
    }
    default: return 4;
    }
}

static size_t check_schema(lc_fields *f, const char *key, struct json_object *schema) {
    int64_t size = size_of(schema, 1, SCHEMA_BYTES);
    if (size < 0)
        lc_fields_refuse(f, key, "schema nested deeper than %d", SCHEMA_DEPTH);
    else if (size > SCHEMA_BYTES)
        lc_fields_refuse(f, key, "schema larger than %d KiB", SCHEMA_BYTES >> 10);
    return size < 0 ? 0 : (size_t)size;
}

static void take_schema(lc_fields *f, struct json_object *format, lc_api_request *r) {
    struct json_object *nested = NULL, *schema = NULL;
    if (!lc_field_object(f, format, "json_schema", &nested)) return;
    size_t mark = f->len;
    if (nested) mark = lc_fields_enter(f, "json_schema", SIZE_MAX);
    if (lc_field_object(f, nested ? nested : format, "schema", &schema)) {
        if (!schema)
            lc_fields_refuse(f, "schema", "is missing");
        else
            check_schema(f, "schema", schema);
    }
    lc_fields_leave(f, mark);
    if (lc_fields_failed(f)) return;
    r->format = LC_FORMAT_SCHEMA;
    r->schema = json_object_get(schema);
}

void lc_read_format(lc_fields *f, struct json_object *obj, const char *key, lc_api_request *r) {
    struct json_object *format = NULL, *type = NULL;
    if (!lc_field_object(f, obj, key, &format) || !format || r->schema) return;
    size_t mark = lc_fields_enter(f, key, SIZE_MAX);
    lc_field_string(f, format, "type", &type);
    if (lc_field_is(type, "json_schema"))
        take_schema(f, format, r);
    else if (lc_field_is(type, "json_object"))
        r->format = LC_FORMAT_OBJECT;
    else if (!lc_field_is(type, "text"))
        lc_fields_refuse(f, "type", "must be text, json_object or json_schema");
    lc_fields_leave(f, mark);
}

/* ---- tools ---- */

bool lc_has_tool(const lc_api_request *r, const char *name) {
    for (size_t i = 0; r->tools && i < json_object_array_length(r->tools); i++) {
        struct json_object *tool = json_object_array_get_idx(r->tools, i);
        if (lc_field_is(lc_field(lc_field(tool, "function"), "name"), name)) return true;
    }
    return false;
}

/* Names go into the model's tags and back out of them. */
static bool check_name(lc_fields *f, struct json_object *name) {
    if (json_object_get_type(name) != json_type_string)
        return lc_fields_refuse(f, "name", name ? "must be a string" : "is required");
    size_t len = (size_t)json_object_get_string_len(name);
    const char *text = json_object_get_string(name);
    bool plain = len > 0 && len <= NAME_BYTES;
    for (size_t i = 0; i < len && plain; i++)
        plain = (unsigned char)text[i] > ' ' && text[i] != '<' && text[i] != '>' && text[i] != 127;
    return plain || lc_fields_refuse(f, "name",
                                     "must have 1 to %d bytes, without spaces, control "
                                     "characters, '<' and '>'",
                                     NAME_BYTES);
}

static struct json_object *empty_schema(lc_fields *f) {
    struct json_object *schema = json_object_new_object();
    lc_put(f, schema, "type", json_object_new_string("object"));
    lc_put(f, schema, "properties", json_object_new_object());
    return schema;
}

void lc_add_tool(lc_fields *f, const lc_tool_source *tool, size_t *schema_bytes,
                 lc_api_request *r) {
    struct json_object *schema = tool->schema;
    if (lc_fields_failed(f) || !check_name(f, tool->name)) return;
    if (schema && json_object_get_type(schema) != json_type_object) {
        lc_fields_refuse(f, NULL, "the schema of the parameters must be an object");
        return;
    }
    if (lc_has_tool(r, json_object_get_string(tool->name))) {
        lc_fields_refuse(f, "name", "tool names must be unique");
        return;
    }
    if (r->tools && json_object_array_length(r->tools) >= LC_API_TOOLS) {
        lc_fields_refuse(f, NULL, "more than %d tools", LC_API_TOOLS);
        return;
    }
    *schema_bytes += check_schema(f, NULL, schema);
    if (*schema_bytes > SCHEMAS_BYTES)
        lc_fields_refuse(f, NULL, "the schemas of all tools are larger than %d MiB",
                         SCHEMAS_BYTES >> 20);
    if (!r->tools) r->tools = json_object_new_array();
    struct json_object *entry = json_object_new_object(), *function = json_object_new_object();
    lc_put(f, function, "name", json_object_get(tool->name));
    if (tool->description) lc_put(f, function, "description", json_object_get(tool->description));
    lc_put(f, function, "parameters", schema ? json_object_get(schema) : empty_schema(f));
    lc_put(f, entry, "type", json_object_new_string("function"));
    lc_put(f, entry, "function", function);
    lc_push(f, r->tools, entry);
    if (tool->strict) r->strict_tools = true;
}

static void choose(lc_fields *f, struct json_object *choice, lc_api_request *r) {
    static const struct {
        const char *word;
        lc_api_choice choice;
    } words[] = {{"auto", LC_TOOLS_AUTO},
                 {"none", LC_TOOLS_NONE},
                 {"required", LC_TOOLS_REQUIRED},
                 {"any", LC_TOOLS_REQUIRED}};
    bool is_object = json_object_get_type(choice) == json_type_object;
    struct json_object *word = is_object ? lc_field(choice, "type") : choice;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!lc_field_is(word, words[i].word)) continue;
        r->choice = words[i].choice;
        return;
    }
    size_t mark = lc_fields_enter(f, "tool_choice", SIZE_MAX);
    if (is_object && (lc_field_is(word, "function") || lc_field_is(word, "tool"))) {
        struct json_object *function = lc_field(choice, "function");
        r->choice = LC_TOOLS_NAMED;
        lc_field_copy(f, function ? function : choice, "name", NAME_BYTES, &r->tool);
        if (!r->tool) lc_fields_refuse(f, "name", "is required");
    } else {
        lc_fields_refuse(f, NULL, "must be auto, none, required or one function's name");
    }
    lc_fields_leave(f, mark);
}

void lc_read_choice(lc_fields *f, struct json_object *body, lc_api_request *r) {
    struct json_object *choice = lc_field(body, "tool_choice");
    bool serial = false;
    if (choice) choose(f, choice, r);
    lc_field_bool(f, body, "parallel_tool_calls", &r->parallel);
    if (json_object_get_type(choice) == json_type_object) {
        lc_field_bool(f, choice, "disable_parallel_tool_use", &serial);
        if (serial) r->parallel = false;
    }
    bool forced = r->choice == LC_TOOLS_REQUIRED || r->choice == LC_TOOLS_NAMED;
    if (forced && !r->tools) lc_fields_refuse(f, "tool_choice", "asks for a tool; there is none");
    if (r->tool && !lc_fields_failed(f) && !lc_has_tool(r, r->tool))
        lc_fields_refuse(f, "tool_choice", "there is no tool called %s", r->tool);
    /* A forced call leaves no text that could follow a format. */
    if (forced) {
        r->format = LC_FORMAT_TEXT;
        json_object_put(r->schema);
        r->schema = NULL;
    }
    if (r->choice == LC_TOOLS_NONE) r->strict_tools = false;
}
