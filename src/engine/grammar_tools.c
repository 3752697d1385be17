/* grammar_tools.c: tool calls in the model's own form (docs/model.md 4.3): name, then keys and
 * values between tags, in the order of the tool's schema. */
#include "engine/grammar_vocab.h"

#include "base/err.h"
#include "base/mem.h"
#include "text/tooltypes.h"

#include <stdio.h>
#include <string.h>

typedef struct tools {
    lc_rules *r;
    const lc_grammar_vocab *vocab;
} tools;

static uint32_t tag(const tools *t, lc_tag which) {
    int32_t id = t->vocab->tags[which];
    const char *text = lc_tag_texts[which];
    return id >= 0 ? lc_expr_token(t->r, id) : lc_expr_text(t->r, text, strlen(text));
}

static uint32_t text(const tools *t, const char *s) { return lc_expr_text(t->r, s, strlen(s)); }

static uint32_t join(const tools *t, const uint32_t *parts, size_t n) {
    uint32_t e = 0;
    while (n-- > 0) e = lc_expr_seq(t->r, parts[n], e);
    return e;
}

/* A text that the reader of calls gives back as it is: white space around it would be stripped. */
static bool stands(const char *s) {
    size_t n = strlen(s);
    return n > 0 && n <= 256 && !strpbrk(s, "<>{}()[]\"'`,; \t\n\v\f\r");
}

static uint32_t argument(const tools *t, lc_schema *s, const lc_property *p, bool raw,
                         const char *place) {
    if (!stands(p->name))
        return lc_rules_fail(t->r, LC_EUNSUPPORTED, "%s: the name can't stand between tags", place);
    const uint32_t parts[] = {
        tag(t, LC_TAG_KEY),       text(t, p->name),
        tag(t, LC_TAG_KEY_END),   text(t, "\n"),
        tag(t, LC_TAG_VALUE),     lc_expr_argument(s, p, raw, place),
        tag(t, LC_TAG_VALUE_END), text(t, "\n"),
    };
    return join(t, parts, sizeof parts / sizeof *parts);
}

/* Parameters are an object by its named properties, and nothing else may bind. */
static void check_parameters(const tools *t, struct json_object *flat, const char *place) {
    static const char *const fine[] = {"type",          "properties",    "required",     "format",
                                       "maxProperties", "minProperties", "propertyNames"};
    const char *type = json_object_get_string(json_object_object_get(flat, "type"));
    if (type && strcmp(type, "object") != 0)
        lc_rules_fail(t->r, LC_EINVAL, "%s.type: parameters are an object", place);
    json_object_object_foreach(flat, name, value) {
        size_t i = 0, n = sizeof fine / sizeof *fine;
        (void)value;
        while (i < n && strcmp(fine[i], name) != 0) i++;
        if (i == n && strcmp(name, "additionalProperties") != 0)
            lc_rules_fail(t->r, LC_EUNSUPPORTED, "%s.%s: can't be enforced on parameters", place,
                          name);
    }
    if (!json_object_object_get(flat, "properties") && !json_object_object_get(flat, "required") &&
        json_object_get_double(json_object_object_get(flat, "minProperties")) > 0)
        lc_rules_fail(t->r, LC_EUNSUPPORTED, "%s.minProperties: no property is named", place);
}

/* read: the properties that the reader of calls goes by. */
static uint32_t arguments(const tools *t, lc_schema *s, struct json_object *flat,
                          struct json_object *read, const char *tool) {
    size_t n;
    uint32_t e = 0;
    check_parameters(t, flat, tool);
    lc_property *list = lc_schema_properties(s, flat, tool, &n);
    for (size_t i = n; i-- > 0 && t->r->status == LC_OK;) {
        char place[256];
        snprintf(place, sizeof place, "%.80s.properties.%.80s", tool, list[i].name);
        bool raw = lc_tooltypes_is_text(json_object_object_get(read, list[i].name));
        uint32_t one = argument(t, s, &list[i], raw, place);
        e = lc_expr_seq(t->r, list[i].required ? one : lc_expr_optional(t->r, one), e);
    }
    lc_free(list);
    return e;
}

static uint32_t parameters(const tools *t, const char *tool, struct json_object *schema) {
    lc_schema *s = NULL;
    uint32_t e = 0;
    if (!schema) return 0;
    if (!json_object_is_type(schema, json_type_object))
        return lc_rules_fail(t->r, LC_EINVAL, "%.80s.parameters: no schema", tool);
    if (lc_schema_new(t->r, schema, tool, LC_FORM_TAGGED, &s) == LC_OK) {
        struct json_object *flat = lc_schema_flat(s, schema, tool);
        struct json_object *read = json_object_object_get(schema, "properties");
        if (flat) e = arguments(t, s, flat, read, tool);
        lc_schema_finish(s);
        json_object_put(flat);
    }
    lc_schema_free(s);
    return e;
}

/* The name of a function, in either form; NULL if it has none. */
static const char *name_of(struct json_object *tool, struct json_object **function) {
    *function = json_object_object_get(tool, "function");
    if (!*function) *function = tool;
    struct json_object *name = json_object_object_get(*function, "name");
    return json_object_is_type(name, json_type_string) ? json_object_get_string(name) : NULL;
}

static uint32_t call(const tools *t, const char *name, struct json_object *function) {
    if (!stands(name))
        return lc_rules_fail(t->r, LC_EUNSUPPORTED, "tools: \"%.80s\" can't be called by a tag",
                             name);
    const uint32_t parts[] = {
        tag(t, LC_TAG_CALL),
        text(t, name),
        text(t, "\n"),
        parameters(t, name, json_object_object_get(function, "parameters")),
        tag(t, LC_TAG_CALL_END),
        text(t, "\n"),
    };
    return join(t, parts, sizeof parts / sizeof *parts);
}

/* A call of any tool, or of the one that is named; of tools with one name the first counts. */
static uint32_t any_call(const tools *t, const lc_grammar_spec *spec) {
    struct json_object *seen = json_object_new_object(), *function;
    uint32_t e = lc_expr_never(t->r);
    if (!seen) return lc_rules_fail(t->r, LC_ENOMEM, "grammar: out of memory");
    if (!json_object_is_type(spec->tools, json_type_array)) {
        json_object_put(seen);
        return lc_rules_fail(t->r, LC_EINVAL, "tools: a list is needed");
    }
    for (size_t i = 0; i < json_object_array_length(spec->tools); i++) {
        const char *name = name_of(json_object_array_get_idx(spec->tools, i), &function);
        if (!name || (spec->tool && strcmp(name, spec->tool) != 0) ||
            json_object_object_get_ex(seen, name, NULL))
            continue;
        json_object_object_add(seen, name, json_object_new_boolean(true));
        e = lc_expr_alt(t->r, e, call(t, name, function));
    }
    json_object_put(seen);
    return e;
}

uint32_t lc_expr_calls(lc_rules *r, const lc_grammar_vocab *vocab, const lc_grammar_spec *spec) {
    tools t = {r, vocab};
    uint32_t one = any_call(&t, spec);
    if (r->status == LC_OK && r->exprs[one].kind == LC_EXPR_NEVER)
        return lc_rules_fail(r, LC_EINVAL,
                             "tool_choice: there is no tool \"%.80s\" that can be called",
                             spec->tool ? spec->tool : "");
    uint32_t calls = lc_expr_repeat(r, one, 1, spec->parallel ? LC_RULE_UNBOUNDED : 1);
    if (spec->text_before)
        calls = lc_expr_seq(r, lc_expr_untagged(r, LC_FORM_RAW), lc_expr_optional(r, calls));
    return calls;
}
