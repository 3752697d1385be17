/*
 * schema_check.h: a plain JSON-schema validator for tests of grammars: it says whether a value is
 * valid, keyword by keyword, and shares nothing with what writes the values. Patterns go to PCRE2,
 * anywhere in the text as JSON schema wants it.
 */
#ifndef TESTS_SCHEMA_CHECK_H
#define TESTS_SCHEMA_CHECK_H

#include "base/json.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

static bool schema_valid(struct json_object *root, struct json_object *schema,
                         struct json_object *value);

static struct json_object *schema_get(struct json_object *o, const char *key) {
    return json_object_object_get(o, key);
}

static bool schema_matches(const char *pattern, const char *text, size_t len) {
    int code;
    PCRE2_SIZE at;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    pcre2_set_compile_extra_options(context, PCRE2_EXTRA_ALT_BSUX);
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!re) return false;
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(re, NULL);
    int n = pcre2_match(re, (PCRE2_SPTR)text, len, 0, 0, data, NULL);
    pcre2_match_data_free(data);
    pcre2_code_free(re);
    return n >= 0;
}

static bool schema_is_whole(struct json_object *v) {
    if (json_object_is_type(v, json_type_int)) return true;
    double d = json_object_get_double(v);
    return json_object_is_type(v, json_type_double) && d == floor(d);
}

static bool schema_type_ok(const char *type, struct json_object *v) {
    enum json_type t = json_object_get_type(v);
    if (!strcmp(type, "null")) return t == json_type_null;
    if (!strcmp(type, "boolean")) return t == json_type_boolean;
    if (!strcmp(type, "string")) return t == json_type_string;
    if (!strcmp(type, "array")) return t == json_type_array;
    if (!strcmp(type, "object")) return t == json_type_object;
    if (!strcmp(type, "integer")) return schema_is_whole(v);
    return (t == json_type_int || t == json_type_double) && !strcmp(type, "number");
}

static bool schema_equal(struct json_object *a, struct json_object *b) {
    bool numbers = schema_type_ok("number", a) && schema_type_ok("number", b);
    return numbers ? json_object_get_double(a) == json_object_get_double(b)
                   : json_object_equal(a, b);
}

static size_t schema_characters(struct json_object *v) {
    const char *text = json_object_get_string(v);
    size_t n = 0, len = (size_t)json_object_get_string_len(v);
    for (size_t i = 0; i < len; i++) n += (text[i] & 0xC0) != 0x80;
    return n;
}

/* A count or bound against a keyword; true if the keyword is absent. */
static bool schema_bound(struct json_object *schema, const char *name, double x, int sign,
                         bool strict) {
    struct json_object *v = schema_get(schema, name);
    if (!json_object_is_type(v, json_type_int) && !json_object_is_type(v, json_type_double))
        return true;
    double d = sign * (x - json_object_get_double(v));
    return strict ? d > 0 : d >= 0;
}

static bool schema_number_ok(struct json_object *s, struct json_object *v) {
    double x = json_object_get_double(v);
    bool above = json_object_is_type(schema_get(s, "exclusiveMinimum"), json_type_boolean) &&
                 json_object_get_boolean(schema_get(s, "exclusiveMinimum"));
    bool below = json_object_is_type(schema_get(s, "exclusiveMaximum"), json_type_boolean) &&
                 json_object_get_boolean(schema_get(s, "exclusiveMaximum"));
    struct json_object *step = schema_get(s, "multipleOf");
    return schema_bound(s, "minimum", x, 1, above) && schema_bound(s, "maximum", x, -1, below) &&
           schema_bound(s, "exclusiveMinimum", x, 1, true) &&
           schema_bound(s, "exclusiveMaximum", x, -1, true) &&
           (!step || fmod(x, json_object_get_double(step)) == 0);
}

static bool schema_string_ok(struct json_object *s, struct json_object *v) {
    double n = (double)schema_characters(v);
    struct json_object *pattern = schema_get(s, "pattern");
    return schema_bound(s, "minLength", n, 1, false) &&
           schema_bound(s, "maxLength", n, -1, false) &&
           (!pattern || schema_matches(json_object_get_string(pattern), json_object_get_string(v),
                                       (size_t)json_object_get_string_len(v)));
}

static bool schema_array_ok(struct json_object *root, struct json_object *s,
                            struct json_object *v) {
    size_t n = json_object_array_length(v), first = 0;
    struct json_object *items = schema_get(s, "items"), *prefix = schema_get(s, "prefixItems");
    if (json_object_is_type(items, json_type_array)) prefix = items, items = NULL;
    if (prefix) first = json_object_array_length(prefix);
    for (size_t i = 0; i < n; i++) {
        struct json_object *of = i < first ? json_object_array_get_idx(prefix, i) : items;
        if (of && !schema_valid(root, of, json_object_array_get_idx(v, i))) return false;
    }
    return schema_bound(s, "minItems", (double)n, 1, false) &&
           schema_bound(s, "maxItems", (double)n, -1, false);
}

static bool schema_object_ok(struct json_object *root, struct json_object *s,
                             struct json_object *v) {
    struct json_object *named = schema_get(s, "properties"),
                       *names = schema_get(s, "propertyNames");
    struct json_object *patterns = schema_get(s, "patternProperties");
    struct json_object *others = schema_get(s, "additionalProperties");
    struct json_object *required = schema_get(s, "required");
    for (size_t i = 0; required && i < json_object_array_length(required); i++)
        if (!json_object_object_get_ex(
                v, json_object_get_string(json_object_array_get_idx(required, i)), NULL))
            return false;
    json_object_object_foreach(v, key, value) {
        struct json_object *of;
        bool known = false;
        if (named && json_object_object_get_ex(named, key, &of)) {
            known = true;
            if (!schema_valid(root, of, value)) return false;
        }
        if (patterns) {
            json_object_object_foreach(patterns, pattern, of_pattern) {
                if (!schema_matches(pattern, key, strlen(key))) continue;
                known = true;
                if (!schema_valid(root, of_pattern, value)) return false;
            }
        }
        if (!known && others && !schema_valid(root, others, value)) return false;
        struct json_object *name = json_object_new_string(key);
        bool ok = !names || schema_valid(root, names, name);
        json_object_put(name);
        if (!ok) return false;
    }
    double n = json_object_object_length(v);
    return schema_bound(s, "minProperties", n, 1, false) &&
           schema_bound(s, "maxProperties", n, -1, false);
}

static bool schema_types_ok(struct json_object *s, struct json_object *v) {
    struct json_object *type = schema_get(s, "type"), *list = schema_get(s, "enum"), *only;
    bool ok = !type;
    if (json_object_is_type(type, json_type_string))
        ok = schema_type_ok(json_object_get_string(type), v);
    for (size_t i = 0;
         json_object_is_type(type, json_type_array) && !ok && i < json_object_array_length(type);
         i++)
        ok = schema_type_ok(json_object_get_string(json_object_array_get_idx(type, i)), v);
    if (!ok) return false;
    if (json_object_object_get_ex(s, "const", &only) && !schema_equal(only, v)) return false;
    if (!list) return true;
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (schema_equal(json_object_array_get_idx(list, i), v)) return true;
    return false;
}

static size_t schema_count(struct json_object *root, struct json_object *list,
                           struct json_object *v) {
    size_t n = 0;
    for (size_t i = 0; list && i < json_object_array_length(list); i++)
        n += schema_valid(root, json_object_array_get_idx(list, i), v);
    return n;
}

static struct json_object *schema_at(struct json_object *root, const char *ref) {
    char name[64];
    struct json_object *at = root;
    for (ref++; *ref == '/';) {
        size_t n = strcspn(++ref, "/");
        snprintf(name, sizeof name, "%.*s", (int)n, ref);
        at = schema_get(at, name);
        ref += n;
    }
    return at;
}

static bool schema_valid(struct json_object *root, struct json_object *s, struct json_object *v) {
    if (json_object_is_type(s, json_type_boolean)) return json_object_get_boolean(s);
    if (!v && json_object_get_boolean(schema_get(s, "nullable"))) return true;
    struct json_object *ref = schema_get(s, "$ref"), *all = schema_get(s, "allOf");
    if (ref && !schema_valid(root, schema_at(root, json_object_get_string(ref)), v)) return false;
    if (all && schema_count(root, all, v) != json_object_array_length(all)) return false;
    if (schema_get(s, "anyOf") && !schema_count(root, schema_get(s, "anyOf"), v)) return false;
    if (schema_get(s, "oneOf") && schema_count(root, schema_get(s, "oneOf"), v) != 1) return false;
    if (!schema_types_ok(s, v)) return false;
    switch (json_object_get_type(v)) {
    case json_type_int:
    case json_type_double: return schema_number_ok(s, v);
    case json_type_string: return schema_string_ok(s, v);
    case json_type_array: return schema_array_ok(root, s, v);
    case json_type_object: return schema_object_ok(root, s, v);
    default: return true;
    }
}

#endif
