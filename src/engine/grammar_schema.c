/*
 * grammar_schema.c: JSON schema (2020-12 and what came before) as a grammar that writes a subset of
 * the valid values: properties in the order of the schema, no whitespace but one space behind ':'
 * and ',', keys that aren't named only where none is.
 *
 * Keywords are in three lists: enforced, known annotations that don't bind (title, format names
 * that have no pattern here, ...), and everything else, which is refused by name.
 */
#include "engine/grammar_rules.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_DEPTH = 32, MOST_DEFINITIONS = 1024, PLACE = 400, MOST_LENGTH = 1 << 20 };

typedef struct definition {
    struct json_object *schema;
    uint32_t rule;
} definition;

struct lc_schema {
    lc_rules *r;
    struct json_object *root;
    const char *place;
    definition *known; /* schemas that were reached by $ref */
    size_t n_known;
    uint32_t value, object, string; /* rules of any value, object, string; 0 = not made yet */
    int depth;
};

int lc_schema_new(lc_rules *r, struct json_object *root, const char *place, lc_schema **out) {
    lc_schema *s = lc_calloc(1, sizeof *s);
    *out = s;
    if (!s) {
        lc_rules_fail(r, LC_ENOMEM, "grammar: out of memory");
        return r->status;
    }
    *s = (lc_schema){.r = r, .root = root, .place = place};
    s->known = lc_calloc(MOST_DEFINITIONS, sizeof *s->known);
    if (!s->known) lc_rules_fail(r, LC_ENOMEM, "grammar: out of memory");
    return r->status;
}

void lc_schema_free(lc_schema *s) {
    if (!s) return;
    lc_free(s->known);
    lc_free(s);
}

/* ---- shorthands ---- */

static struct json_object *get(struct json_object *o, const char *key) {
    return json_object_object_get(o, key);
}

static bool is(struct json_object *o, enum json_type type) { return json_object_is_type(o, type); }

static uint32_t text(lc_schema *s, const char *t) { return lc_expr_text(s->r, t, strlen(t)); }
static uint32_t seq(lc_schema *s, uint32_t a, uint32_t b) { return lc_expr_seq(s->r, a, b); }
static uint32_t alt(lc_schema *s, uint32_t a, uint32_t b) { return lc_expr_alt(s->r, a, b); }

/* ':' or ',', with a space or without. */
static uint32_t mark(lc_schema *s, const char *t) {
    return seq(s, text(s, t), lc_expr_optional(s->r, text(s, " ")));
}

static uint32_t quoted(lc_schema *s, uint32_t inside) {
    return seq(s, text(s, "\""), seq(s, inside, text(s, "\"")));
}

static uint32_t refuse(lc_schema *s, const char *place, const char *keyword, const char *why) {
    return lc_rules_fail(s->r, LC_EUNSUPPORTED, "%s.%s: %s", place, keyword, why);
}

static void child_place(char *out, const char *place, const char *name) {
    snprintf(out, PLACE, "%.300s.%.80s", place, name);
}

/* ---- any value ---- */

static uint32_t characters(lc_schema *s, uint32_t min, uint32_t max) {
    return lc_expr_repeat(s->r, lc_expr_any(s->r, LC_FORM_JSON), min, max);
}

static uint32_t any_string(lc_schema *s) {
    if (!s->string) {
        s->string = lc_rule_new(s->r);
        lc_rule_set(s->r, s->string, quoted(s, characters(s, 0, LC_RULE_UNBOUNDED)));
    }
    return lc_expr_rule(s->r, s->string);
}

/* first (, first)* between brackets, min..max of them. */
static uint32_t list_of(lc_schema *s, const char *open, uint32_t item, uint32_t min, uint32_t max,
                        const char *close) {
    uint32_t rest = max == LC_RULE_UNBOUNDED ? max : max ? max - 1 : 0;
    uint32_t some =
        seq(s, item, lc_expr_repeat(s->r, seq(s, mark(s, ","), item), min ? min - 1 : 0, rest));
    uint32_t inside = !max ? 0 : min ? some : lc_expr_optional(s->r, some);
    return seq(s, text(s, open), seq(s, inside, text(s, close)));
}

static uint32_t any_value(lc_schema *s);

uint32_t lc_expr_object(lc_schema *s) {
    if (s->r->status != LC_OK) return 0; /* no rule would be made, and this would not end */
    if (!s->object) {
        s->object = lc_rule_new(s->r);
        uint32_t pair = seq(s, any_string(s), seq(s, mark(s, ":"), any_value(s)));
        lc_rule_set(s->r, s->object, list_of(s, "{", pair, 0, LC_RULE_UNBOUNDED, "}"));
    }
    return lc_expr_rule(s->r, s->object);
}

static uint32_t any_number(lc_schema *s) {
    return lc_expr_number(s->r, &(lc_bounds){.low = -INFINITY, .high = INFINITY}, s->place);
}

static uint32_t any_value(lc_schema *s) {
    if (s->r->status != LC_OK) return 0;
    if (!s->value) {
        s->value = lc_rule_new(s->r);
        uint32_t e = alt(s, any_string(s), any_number(s));
        e = alt(s, e, alt(s, text(s, "true"), alt(s, text(s, "false"), text(s, "null"))));
        e = alt(s, e, lc_expr_object(s));
        e = alt(s, e, list_of(s, "[", lc_expr_rule(s->r, s->value), 0, LC_RULE_UNBOUNDED, "]"));
        lc_rule_set(s->r, s->value, e);
    }
    return lc_expr_rule(s->r, s->value);
}

/* ---- keywords ---- */

static const char *const enforced[] = {"type",
                                       "enum",
                                       "const",
                                       "anyOf",
                                       "oneOf",
                                       "allOf",
                                       "properties",
                                       "required",
                                       "additionalProperties",
                                       "propertyNames",
                                       "items",
                                       "prefixItems",
                                       "minItems",
                                       "maxItems",
                                       "minLength",
                                       "maxLength",
                                       "pattern",
                                       "minimum",
                                       "maximum",
                                       "exclusiveMinimum",
                                       "exclusiveMaximum",
                                       "$ref",
                                       "nullable",
                                       "maxProperties",
                                       "patternProperties",
                                       NULL};

/* Known, and binding nobody or only readers. uniqueItems, multipleOf and minProperties do bind, and
 * are refused below unless they say nothing. */
static const char *const annotations[] = {
    "$schema",         "$id",       "$comment",    "$defs",
    "definitions",     "title",     "description", "default",
    "examples",        "example",   "format",      "deprecated",
    "readOnly",        "writeOnly", "$anchor",     "contentMediaType",
    "contentEncoding", "strict",    NULL};

static bool listed(const char *const *list, const char *name) {
    while (*list && strcmp(*list, name) != 0) list++;
    return *list;
}

/* A keyword that is harmless with this value. */
static bool says_nothing(const char *name, struct json_object *value) {
    if (!strcmp(name, "uniqueItems")) return !json_object_get_boolean(value);
    if (!strcmp(name, "minProperties")) return json_object_get_int64(value) <= 0;
    if (!strcmp(name, "multipleOf"))
        return is(value, json_type_int) && json_object_get_int64(value) == 1;
    return !strncmp(name, "x-", 2);
}

static void check_keywords(lc_schema *s, struct json_object *schema, const char *place) {
    json_object_object_foreach(schema, name, value) {
        if (listed(enforced, name) || listed(annotations, name) || says_nothing(name, value))
            continue;
        refuse(s, place, name, "this keyword can't be enforced");
        return;
    }
}

/* A whole number from 0 to most; `otherwise` if absent. */
static uint32_t count(lc_schema *s, struct json_object *schema, const char *place, const char *name,
                      uint32_t otherwise) {
    struct json_object *v = get(schema, name);
    if (!json_object_object_get_ex(schema, name, NULL)) return otherwise;
    double d = is(v, json_type_int) || is(v, json_type_double) ? json_object_get_double(v) : -1;
    if (!(d >= 0 && d <= 1e15 && d == floor(d)))
        return lc_rules_fail(s->r, LC_EINVAL, "%s.%s: a whole number is needed", place, name);
    return d > MOST_LENGTH ? MOST_LENGTH : (uint32_t)d;
}

/* ---- strings ---- */

/* Patterns for formats that have a simple one. */
static const char *format_pattern(const char *format) {
    static const char *const list[][2] = {
        {"date", "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$"},
        {"time", "^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?Z$"},
        {"date-time", "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
                      "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?Z$"},
        {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
        {"ipv4", "^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}"
                 "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])$"},
        {"email", "^[a-z0-9]{1,32}(\\.[a-z0-9]{1,16}){0,3}@[a-z0-9]{1,32}(\\.[a-z]{2,8}){1,2}$"},
    };
    for (size_t i = 0; format && i < sizeof list / sizeof *list; i++)
        if (!strcmp(list[i][0], format)) return list[i][1];
    return NULL;
}

/* What stands inside the quotes, or between the tags. */
static uint32_t string_inside(lc_schema *s, struct json_object *schema, const char *place,
                              lc_text_form form) {
    const char *pattern = json_object_get_string(get(schema, "pattern"));
    const char *format = json_object_get_string(get(schema, "format"));
    bool bounded = get(schema, "minLength") || get(schema, "maxLength");
    uint32_t min = count(s, schema, place, "minLength", 0);
    uint32_t max = count(s, schema, place, "maxLength", LC_RULE_UNBOUNDED);
    if (pattern) {
        if (bounded && (min > 0 || max < MOST_LENGTH))
            return refuse(s, place, "pattern", "can't be enforced together with a length");
        return lc_expr_pattern(s->r, pattern, form, place);
    }
    if (!bounded && format_pattern(format))
        return lc_expr_pattern(s->r, format_pattern(format), form, place);
    if (min > max) return lc_expr_never(s->r);
    return lc_expr_repeat(s->r, lc_expr_any(s->r, form), min, max);
}

static uint32_t string_value(lc_schema *s, struct json_object *schema, const char *place) {
    bool free = !get(schema, "pattern") && !get(schema, "minLength") && !get(schema, "maxLength") &&
                !format_pattern(json_object_get_string(get(schema, "format")));
    return free ? any_string(s) : quoted(s, string_inside(s, schema, place, LC_FORM_JSON));
}

/* ---- numbers ---- */

static double bound(struct json_object *schema, const char *name, double otherwise) {
    struct json_object *v = get(schema, name);
    bool number = is(v, json_type_int) || is(v, json_type_double);
    return number ? json_object_get_double(v) : otherwise;
}

static lc_bounds bounds_of(struct json_object *schema) {
    lc_bounds b = {.low = bound(schema, "minimum", -INFINITY),
                   .high = bound(schema, "maximum", INFINITY)};
    double above = bound(schema, "exclusiveMinimum", -INFINITY);
    double below = bound(schema, "exclusiveMaximum", INFINITY);
    /* draft 4: booleans that say so of minimum and maximum */
    b.above = is(get(schema, "exclusiveMinimum"), json_type_boolean) &&
              json_object_get_boolean(get(schema, "exclusiveMinimum"));
    b.below = is(get(schema, "exclusiveMaximum"), json_type_boolean) &&
              json_object_get_boolean(get(schema, "exclusiveMaximum"));
    if (above >= b.low && above > -INFINITY) b.low = above, b.above = true;
    if (below <= b.high && below < INFINITY) b.high = below, b.below = true;
    return b;
}

static uint32_t integer_value(lc_schema *s, struct json_object *schema) {
    lc_bounds b = bounds_of(schema);
    double low = ceil(b.low), high = floor(b.high);
    if (b.above && low == b.low) low++;
    if (b.below && high == b.high) high--;
    if (low < -1e18) low = -1e18;
    if (high > 1e18) high = 1e18;
    return low > high ? lc_expr_never(s->r) : lc_expr_integer(s->r, (int64_t)low, (int64_t)high);
}

/* ---- arrays and objects ---- */

static uint32_t array_value(lc_schema *s, struct json_object *schema, const char *place) {
    struct json_object *items = get(schema, "items"), *first = get(schema, "prefixItems");
    uint32_t min = count(s, schema, place, "minItems", 0);
    uint32_t max = count(s, schema, place, "maxItems", LC_RULE_UNBOUNDED);
    char below[PLACE];
    child_place(below, place, "items");
    if (is(items, json_type_array)) first = items, items = NULL; /* before 2020-12 */
    size_t n = is(first, json_type_array) ? json_object_array_length(first) : 0;
    if (min > max) return lc_expr_never(s->r);
    if (!n) {
        bool none = is(items, json_type_boolean) && !json_object_get_boolean(items);
        uint32_t item = items ? lc_expr_schema(s, items, below) : any_value(s);
        return list_of(s, "[", none ? 0 : item, min, none ? 0 : max, "]");
    }
    if (min > n || max < n)
        return refuse(s, place, "prefixItems", "needs as many items as it describes");
    uint32_t e = 0;
    for (size_t i = 0; i < n; i++) {
        if (i) e = seq(s, e, mark(s, ","));
        e = seq(s, e, lc_expr_schema(s, json_object_array_get_idx(first, i), below));
    }
    return seq(s, text(s, "["), seq(s, e, text(s, "]")));
}

static bool is_required(struct json_object *required, const char *name) {
    for (size_t i = 0; is(required, json_type_array) && i < json_object_array_length(required);
         i++) {
        const char *r = json_object_get_string(json_object_array_get_idx(required, i));
        if (r && !strcmp(r, name)) return true;
    }
    return false;
}

/* Keys of any name: additionalProperties' values, propertyNames' or patternProperties' keys. */
static uint32_t map_value(lc_schema *s, struct json_object *schema, const char *place) {
    struct json_object *values = get(schema, "additionalProperties");
    struct json_object *names = get(schema, "propertyNames"),
                       *patterns = get(schema, "patternProperties");
    uint32_t max = count(s, schema, place, "maxProperties", LC_RULE_UNBOUNDED), key;
    char below[PLACE];
    child_place(below, place, "propertyNames");
    key = names ? lc_expr_schema(s, names, below) : any_string(s);
    if (patterns && json_object_object_length(patterns) > 0) {
        if (names || json_object_object_length(patterns) != 1)
            return refuse(s, place, "patternProperties", "only one pattern can be enforced");
        json_object_object_foreach(patterns, pattern, of_pattern) {
            child_place(below, place, "patternProperties");
            key = quoted(s, lc_expr_pattern(s->r, pattern, LC_FORM_JSON, below));
            values = of_pattern;
        }
    }
    if (is(values, json_type_boolean) && !json_object_get_boolean(values)) max = 0;
    child_place(below, place, "additionalProperties");
    uint32_t value = is(values, json_type_object) ? lc_expr_schema(s, values, below) : any_value(s);
    return list_of(s, "{", seq(s, key, seq(s, mark(s, ":"), value)), 0, max, "}");
}

typedef struct property {
    const char *name;
    struct json_object *schema; /* NULL: anything */
    bool required;
} property;

/* Properties from i on: `begun` says whether one stands before. Each is a rule of its own, so that
 * the whole is linear in their number. */
static uint32_t properties_from(lc_schema *s, const property *list, size_t n, const char *place) {
    uint32_t begun = 0, fresh = 0; /* behind the last one */
    for (size_t i = n; i-- > 0 && s->r->status == LC_OK;) {
        const property *p = &list[i];
        char below[PLACE];
        snprintf(below, sizeof below, "%.250s.properties.%.80s", place, p->name);
        uint32_t key = quoted(s, lc_expr_literal(s->r, p->name, strlen(p->name), LC_FORM_JSON));
        uint32_t value = p->schema ? lc_expr_schema(s, p->schema, below) : any_value(s);
        uint32_t rule = lc_rule_new(s->r);
        lc_rule_set(s->r, rule, seq(s, key, seq(s, mark(s, ":"), value)));
        uint32_t pair = lc_expr_rule(s->r, rule);
        uint32_t with = seq(s, mark(s, ","), seq(s, pair, begun)), first = seq(s, pair, begun);
        uint32_t next_begun = p->required ? with : alt(s, with, begun);
        uint32_t next_fresh = p->required ? first : alt(s, first, fresh);
        uint32_t rules[2] = {lc_rule_new(s->r), lc_rule_new(s->r)};
        lc_rule_set(s->r, rules[0], next_begun);
        lc_rule_set(s->r, rules[1], next_fresh);
        begun = lc_expr_rule(s->r, rules[0]);
        fresh = lc_expr_rule(s->r, rules[1]);
    }
    return fresh;
}

static uint32_t object_value(lc_schema *s, struct json_object *schema, const char *place) {
    struct json_object *properties = get(schema, "properties"), *required = get(schema, "required");
    size_t n = is(properties, json_type_object) ? (size_t)json_object_object_length(properties) : 0;
    size_t n_required = is(required, json_type_array) ? json_object_array_length(required) : 0;
    if (!n && !n_required) return map_value(s, schema, place);
    if (get(schema, "maxProperties") && count(s, schema, place, "maxProperties", 0) < n)
        return refuse(s, place, "maxProperties", "can't be enforced beside named properties");
    property *list = lc_calloc(n + n_required, sizeof *list);
    if (!list) return lc_rules_fail(s->r, LC_ENOMEM, "grammar: out of memory");
    size_t used = 0;
    if (n) {
        json_object_object_foreach(properties, name, value) list[used++] =
            (property){name, value, is_required(required, name)};
    }
    for (size_t i = 0; i < n_required; i++) { /* required, not described */
        const char *name = json_object_get_string(json_object_array_get_idx(required, i));
        bool known = !name || (n && json_object_object_get_ex(properties, name, NULL));
        for (size_t j = n; j < used && !known; j++) known = !strcmp(list[j].name, name);
        if (!known) list[used++] = (property){name, NULL, true};
    }
    uint32_t inside = properties_from(s, list, used, place);
    lc_free(list);
    return seq(s, text(s, "{"), seq(s, inside, text(s, "}")));
}

/* ---- composition ---- */

static uint32_t literal_value(lc_schema *s, struct json_object *value) {
    return text(s, json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN |
                                                             JSON_C_TO_STRING_NOSLASHESCAPE));
}

static uint32_t one_of(lc_schema *s, struct json_object *list, const char *place) {
    uint32_t e = lc_expr_never(s->r);
    if (!is(list, json_type_array) || !json_object_array_length(list))
        return lc_rules_fail(s->r, LC_EINVAL, "%s: a list of schemas is needed", place);
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        char below[PLACE];
        snprintf(below, sizeof below, "%.300s[%zu]", place, i);
        e = alt(s, e, lc_expr_schema(s, json_object_array_get_idx(list, i), below));
    }
    return e;
}

/* "#", "#/$defs/name": the schema there; names may hold ~0, ~1 and nothing else special. */
static struct json_object *resolve(lc_schema *s, const char *ref) {
    struct json_object *at = s->root;
    char name[256];
    if (*ref++ != '#') return NULL;
    while (*ref == '/' && at) {
        size_t n = 0;
        for (ref++; *ref && *ref != '/' && n + 1 < sizeof name; ref++) {
            bool coded = *ref == '~' && (ref[1] == '0' || ref[1] == '1');
            name[n++] = !coded ? *ref : ref[1] == '0' ? '~' : '/';
            if (coded) ref++;
        }
        name[n] = 0;
        at = is(at, json_type_object)  ? get(at, name)
             : is(at, json_type_array) ? json_object_array_get_idx(at, strtoul(name, NULL, 10))
                                       : NULL;
    }
    return *ref ? NULL : at;
}

static uint32_t reference(lc_schema *s, const char *ref, const char *place) {
    struct json_object *target = resolve(s, ref);
    if (!target)
        return lc_rules_fail(s->r, LC_EINVAL, "%s.$ref: \"%.80s\" isn't in this schema", place,
                             ref);
    for (size_t i = 0; i < s->n_known; i++)
        if (s->known[i].schema == target) return lc_expr_rule(s->r, s->known[i].rule);
    if (s->n_known == MOST_DEFINITIONS)
        return lc_rules_fail(s->r, LC_ELIMIT, "%s: more than %d definitions", place,
                             MOST_DEFINITIONS);
    uint32_t rule = lc_rule_new(s->r);
    s->known[s->n_known++] = (definition){target, rule};
    int depth = s->depth;
    s->depth = 0; /* of what is written there, not of who refers to it */
    lc_rule_set(s->r, rule, lc_expr_schema(s, target, ref));
    s->depth = depth;
    return lc_expr_rule(s->r, rule);
}

/* Object schemas of allOf, and the schema that holds it, become one. */
static struct json_object *merged(lc_schema *s, struct json_object *schema, const char *place) {
    struct json_object *out = json_object_new_object(), *list = get(schema, "allOf");
    struct json_object *properties = json_object_new_object(), *required = json_object_new_array();
    size_t n = json_object_array_length(list);
    bool described = false;
    for (size_t i = 0; i <= n; i++) {
        struct json_object *part = i < n ? json_object_array_get_idx(list, i) : schema;
        const char *ref = json_object_get_string(get(part, "$ref"));
        if (ref && i < n) part = resolve(s, ref);
        if (!is(part, json_type_object)) continue;
        json_object_object_foreach(part, name, value) {
            if (!strcmp(name, "allOf") || (!strcmp(name, "$ref") && i < n)) continue;
            if (!strcmp(name, "properties") && is(value, json_type_object)) {
                described = true;
                json_object_object_foreach(value, key, child) {
                    if (json_object_object_get_ex(properties, key, NULL))
                        refuse(s, place, "allOf", "describes a property twice");
                    json_object_object_add(properties, key, json_object_get(child));
                }
            } else if (!strcmp(name, "required") && is(value, json_type_array)) {
                for (size_t k = 0; k < json_object_array_length(value); k++)
                    json_object_array_add(required,
                                          json_object_get(json_object_array_get_idx(value, k)));
            } else if (!listed(annotations, name)) {
                struct json_object *old = get(out, name);
                if (old && !json_object_equal(old, value))
                    refuse(s, place, "allOf", "parts that bind the same keyword differently");
                json_object_object_add(out, name, json_object_get(value));
            }
        }
    }
    if (described) json_object_object_add(out, "properties", json_object_get(properties));
    if (json_object_array_length(required))
        json_object_object_add(out, "required", json_object_get(required));
    json_object_put(properties);
    json_object_put(required);
    return out;
}

static uint32_t typed_value(lc_schema *s, struct json_object *schema, const char *type,
                            const char *place) {
    if (!strcmp(type, "string")) return string_value(s, schema, place);
    if (!strcmp(type, "integer")) return integer_value(s, schema);
    if (!strcmp(type, "number")) {
        lc_bounds b = bounds_of(schema);
        return lc_expr_number(s->r, &b, place);
    }
    if (!strcmp(type, "boolean")) return alt(s, text(s, "true"), text(s, "false"));
    if (!strcmp(type, "null")) return text(s, "null");
    if (!strcmp(type, "array")) return array_value(s, schema, place);
    if (!strcmp(type, "object")) return object_value(s, schema, place);
    return lc_rules_fail(s->r, LC_EINVAL, "%s.type: \"%.40s\" is no JSON type", place, type);
}

/* Without "type": the type that the keywords are about. */
static const char *implied_type(struct json_object *schema) {
    static const char *const list[][2] = {{"properties", "object"},
                                          {"required", "object"},
                                          {"additionalProperties", "object"},
                                          {"propertyNames", "object"},
                                          {"patternProperties", "object"},
                                          {"items", "array"},
                                          {"prefixItems", "array"},
                                          {"minItems", "array"},
                                          {"maxItems", "array"},
                                          {"minLength", "string"},
                                          {"maxLength", "string"},
                                          {"pattern", "string"},
                                          {"minimum", "number"},
                                          {"maximum", "number"},
                                          {"exclusiveMinimum", "number"},
                                          {"exclusiveMaximum", "number"}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (get(schema, list[i][0])) return list[i][1];
    return NULL;
}

/* Whether a listed value has one of the schema's types. */
static bool type_admits(struct json_object *schema, struct json_object *value) {
    struct json_object *type = get(schema, "type");
    static const char *const names[] = {"null",   "boolean", "number", "integer",
                                        "object", "array",   "string"};
    const char *of = names[json_object_get_type(value)];
    if (!type) return true;
    for (size_t i = 0; i < (is(type, json_type_array) ? json_object_array_length(type) : 1); i++) {
        const char *t = json_object_get_string(
            is(type, json_type_array) ? json_object_array_get_idx(type, i) : type);
        if (t && (!strcmp(t, of) || (!strcmp(t, "number") && !strcmp(of, "integer")))) return true;
    }
    return json_object_get_boolean(get(schema, "nullable")) && !value;
}

static uint32_t listed_values(lc_schema *s, struct json_object *schema, const char *place) {
    struct json_object *list = get(schema, "enum"), *only;
    uint32_t e = lc_expr_never(s->r);
    if (json_object_object_get_ex(schema, "const", &only)) return literal_value(s, only);
    if (!is(list, json_type_array) || !json_object_array_length(list))
        return lc_rules_fail(s->r, LC_EINVAL, "%s.enum: a list of values is needed", place);
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *value = json_object_array_get_idx(list, i);
        if (type_admits(schema, value)) e = alt(s, e, literal_value(s, value));
    }
    return e;
}

static uint32_t by_type(lc_schema *s, struct json_object *schema, const char *place) {
    struct json_object *type = get(schema, "type");
    const char *implied = implied_type(schema);
    uint32_t e = lc_expr_never(s->r);
    if (is(type, json_type_string))
        e = typed_value(s, schema, json_object_get_string(type), place);
    else if (is(type, json_type_array))
        for (size_t i = 0; i < json_object_array_length(type); i++) {
            const char *t = json_object_get_string(json_object_array_get_idx(type, i));
            e = alt(s, e, typed_value(s, schema, t ? t : "null", place));
        }
    else if (type)
        return lc_rules_fail(s->r, LC_EINVAL, "%s.type: a name or a list is needed", place);
    else
        e = implied ? typed_value(s, schema, implied, place) : any_value(s);
    if (json_object_get_boolean(get(schema, "nullable"))) e = alt(s, e, text(s, "null"));
    return e;
}

/* A union beside other binding keywords would need their intersection. */
static void check_union(lc_schema *s, struct json_object *schema, const char *place,
                        const char *name) {
    json_object_object_foreach(schema, key, value) {
        (void)value;
        bool alone = !strcmp(key, name) || listed(annotations, key) || says_nothing(key, value);
        if (!alone) refuse(s, place, name, "can't be enforced beside other keywords");
    }
}

static uint32_t composed(lc_schema *s, struct json_object *schema, const char *place) {
    static const char *const unions[] = {"anyOf", "oneOf", "$ref"};
    char below[PLACE];
    if (get(schema, "allOf") && is(get(schema, "allOf"), json_type_array)) {
        struct json_object *whole = merged(s, schema, place);
        uint32_t e = s->r->status == LC_OK ? lc_expr_schema(s, whole, place) : 0;
        json_object_put(whole);
        return e;
    }
    if (json_object_object_get_ex(schema, "const", NULL) || get(schema, "enum"))
        return listed_values(s, schema, place);
    for (size_t i = 0; i < sizeof unions / sizeof *unions; i++) {
        struct json_object *of = get(schema, unions[i]);
        if (!of) continue;
        check_union(s, schema, place, unions[i]);
        child_place(below, place, unions[i]);
        const char *ref = json_object_get_string(of);
        return is(of, json_type_string) ? reference(s, ref, place) : one_of(s, of, below);
    }
    return by_type(s, schema, place);
}

uint32_t lc_expr_schema(lc_schema *s, struct json_object *schema, const char *place) {
    if (s->r->status != LC_OK) return 0;
    if (is(schema, json_type_boolean))
        return json_object_get_boolean(schema) ? any_value(s) : lc_expr_never(s->r);
    if (!is(schema, json_type_object))
        return lc_rules_fail(s->r, LC_EINVAL, "%s: no schema", place);
    if (++s->depth > MOST_DEPTH)
        return lc_rules_fail(s->r, LC_ELIMIT, "%s: nested more than %d deep", place, MOST_DEPTH);
    check_keywords(s, schema, place);
    uint32_t e = composed(s, schema, place);
    s->depth--;
    return e;
}

/* ---- arguments between tags ---- */

/* Text without end_tag in it: state i has seen its first i bytes. */
static uint32_t text_without(lc_schema *s, const char *tag) {
    lc_rules *r = s->r;
    size_t n = strlen(tag);
    uint32_t first = (uint32_t)r->n_rules;
    for (size_t i = 0; i < n; i++) lc_rule_new(r);
    for (size_t i = 0; i < n && r->status == LC_OK; i++) {
        /* any character but the next of the tag and '<' begins anew; the tag's are ASCII */
        lc_range others[4];
        unsigned char next = (unsigned char)tag[i], low = next < '<' ? next : '<',
                      high = next < '<' ? '<' : next;
        size_t k = 0;
        others[k++] = (lc_range){1, low - 1u};
        if (low + 1 < high) others[k++] = (lc_range){low + 1u, high - 1u};
        others[k++] = (lc_range){high + 1u, 0x10FFFF};
        uint32_t e = 0; /* may end here */
        for (size_t j = 0; j < k; j++)
            e = lc_expr_alt(r, e,
                            lc_expr_seq(r, lc_expr_class(r, &others[j], 1, LC_FORM_RAW),
                                        lc_expr_rule(r, first)));
        if (i + 1 < n)
            e = lc_expr_alt(
                r, e,
                seq(s, lc_expr_bytes(r, next, next), lc_expr_rule(r, first + (uint32_t)i + 1)));
        if (i > 0) e = lc_expr_alt(r, e, seq(s, text(s, "<"), lc_expr_rule(r, first + 1)));
        lc_rule_set(r, first + (uint32_t)i, e);
    }
    return lc_expr_rule(r, first);
}

static bool is_string_type(struct json_object *schema) {
    const char *type = json_object_get_string(get(schema, "type"));
    return type && !strcmp(type, "string");
}

/* A listed string between tags is its own text, if no tag is in it. */
static uint32_t raw_values(lc_schema *s, struct json_object *schema, const char *tag) {
    struct json_object *list = get(schema, "enum"), *only = get(schema, "const");
    uint32_t e = lc_expr_never(s->r);
    size_t n = only ? 1 : json_object_array_length(list);
    for (size_t i = 0; i < n; i++) {
        const char *t = json_object_get_string(only ? only : json_object_array_get_idx(list, i));
        if (t && !strstr(t, tag)) e = alt(s, e, text(s, t));
    }
    return e;
}

uint32_t lc_expr_argument(lc_schema *s, struct json_object *schema, const char *place,
                          const char *end_tag) {
    if (!is(schema, json_type_object) || !is_string_type(schema) ||
        json_object_get_boolean(get(schema, "nullable")))
        return lc_expr_schema(s, schema, place);
    check_keywords(s, schema, place);
    if (get(schema, "const") || is(get(schema, "enum"), json_type_array))
        return raw_values(s, schema, end_tag);
    if (get(schema, "anyOf") || get(schema, "oneOf") || get(schema, "allOf") || get(schema, "$ref"))
        return refuse(s, place, "type", "string beside a union can't be enforced");
    bool free = !get(schema, "pattern") && !get(schema, "minLength") && !get(schema, "maxLength") &&
                !format_pattern(json_object_get_string(get(schema, "format")));
    return free ? text_without(s, end_tag) : string_inside(s, schema, place, LC_FORM_RAW);
}
