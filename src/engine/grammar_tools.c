/* grammar_tools.c: tool calls in the model's own form (spec/model.md 4.3): name, then keys and
 * values between tags, in the order of the tool's schema. */
#include "engine/grammar_vocab.h"

#include "base/err.h"

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

static uint32_t argument(const tools *t, lc_schema *s, const char *name, struct json_object *schema,
                         const char *place) {
    const uint32_t parts[] = {
        tag(t, LC_TAG_KEY),
        text(t, name),
        tag(t, LC_TAG_KEY_END),
        text(t, "\n"),
        tag(t, LC_TAG_VALUE),
        lc_expr_argument(s, schema, place, lc_tag_texts[LC_TAG_VALUE_END]),
        tag(t, LC_TAG_VALUE_END),
        text(t, "\n"),
    };
    return join(t, parts, sizeof parts / sizeof *parts);
}

static bool is_required(struct json_object *required, const char *name) {
    for (size_t i = 0;
         json_object_is_type(required, json_type_array) && i < json_object_array_length(required);
         i++) {
        const char *r = json_object_get_string(json_object_array_get_idx(required, i));
        if (r && !strcmp(r, name)) return true;
    }
    return false;
}

static uint32_t arguments(const tools *t, const char *tool, struct json_object *parameters) {
    struct json_object *properties = json_object_object_get(parameters, "properties");
    struct json_object *required = json_object_object_get(parameters, "required");
    lc_schema *s = NULL;
    uint32_t e = 0;
    if (!json_object_is_type(properties, json_type_object)) return 0;
    if (lc_schema_new(t->r, parameters, tool, &s) == LC_OK) {
        json_object_object_foreach(properties, name, schema) {
            char place[256];
            snprintf(place, sizeof place, "%.80s.properties.%.80s", tool, name);
            uint32_t one = argument(t, s, name, schema, place);
            if (!is_required(required, name)) one = lc_expr_optional(t->r, one);
            e = lc_expr_seq(t->r, e, one);
        }
    }
    lc_schema_free(s);
    return e;
}

static uint32_t call(const tools *t, struct json_object *tool, const char *only) {
    struct json_object *function = json_object_object_get(tool, "function");
    const char *name = json_object_get_string(json_object_object_get(function, "name"));
    if (!name || (only && strcmp(name, only) != 0)) return lc_expr_never(t->r);
    const uint32_t parts[] = {
        tag(t, LC_TAG_CALL),     text(t, name),
        text(t, "\n"),           arguments(t, name, json_object_object_get(function, "parameters")),
        tag(t, LC_TAG_CALL_END), text(t, "\n"),
    };
    return join(t, parts, sizeof parts / sizeof *parts);
}

void lc_grammar_build_tools(lc_rules *r, const lc_grammar_vocab *vocab,
                            const lc_grammar_spec *spec) {
    tools t = {r, vocab};
    uint32_t root = lc_rule_new(r), one = lc_expr_never(r);
    for (size_t i = 0; spec->tools && i < json_object_array_length(spec->tools); i++)
        one = lc_expr_alt(r, one, call(&t, json_object_array_get_idx(spec->tools, i), spec->tool));
    if (r->status == LC_OK && r->exprs[one].kind == LC_EXPR_NEVER) {
        lc_rules_fail(r, LC_EINVAL, "tool_choice: there is no tool \"%.80s\"",
                      spec->tool ? spec->tool : "");
        return;
    }
    uint32_t calls = lc_expr_repeat(r, one, 1, spec->parallel ? LC_RULE_UNBOUNDED : 1);
    if (spec->text_before) {
        uint32_t free = lc_expr_repeat(
            r, lc_expr_class(r, &(lc_range){1, 0x10FFFF}, 1, LC_FORM_RAW), 0, LC_RULE_UNBOUNDED);
        calls = lc_expr_seq(r, free, lc_expr_optional(r, calls));
    }
    lc_rule_set(r, root, calls);
}
