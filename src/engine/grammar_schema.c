/*
 * grammar_schema.c: JSON schema (2020-12 and what came before) as a grammar that writes a subset of
 * the valid values: properties in the order of the schema, no whitespace but one space behind ':'
 * and ',', keys that aren't named only where none is.
 *
 * Keywords are in three lists: enforced, known annotations that don't bind (title, format names
 * that have no pattern here, ...), and everything else, which is refused by name.
 */
#include "engine/grammar_schema.h"

#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_LENGTH = 1 << 20 };

int lc_schema_new(lc_rules *r, struct json_object *root, const char *place, lc_text_form form,
                  lc_schema **out) {
    lc_schema *s = lc_calloc(1, sizeof *s);
    *out = s;
    if (!s) {
        lc_rules_fail(r, LC_ENOMEM, "grammar: out of memory");
        return r->status;
    }
    *s = (lc_schema){.r = r, .root = root, .place = place, .form = form};
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

static void child_place(char *out, const char *place, const char *name) {
    snprintf(out, PLACE, "%.300s.%.80s", place, name);
}

/* ---- any value ---- */

static uint32_t any_character(lc_schema *s, lc_text_form form) {
    if (!s->character[form]) {
        s->character[form] = lc_rule_new(s->r);
        lc_rule_set(s->r, s->character[form], lc_expr_any(s->r, form));
    }
    return lc_expr_rule(s->r, s->character[form]);
}

static uint32_t any_string(lc_schema *s) {
    if (!s->string) {
        s->string = lc_rule_new(s->r);
        if (s->r->status != LC_OK) return 0;
        uint32_t any = s->form == LC_FORM_TAGGED
                           ? lc_expr_untagged(s->r, s->form)
                           : lc_expr_repeat(s->r, any_character(s, s->form), 0, LC_RULE_UNBOUNDED);
        lc_rule_set(s->r, s->string, quoted(s, any));
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
    return lc_expr_number(s->r, &(lc_bounds){.low = -INFINITY, .high = INFINITY});
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

static const struct keyword {
    const char *name;
    int types;
} enforced[] = {
    {"type", IS_STRING | IS_ARRAY},
    {"enum", IS_ARRAY},
    {"const", IS_ANY},
    {"anyOf", IS_ARRAY},
    {"oneOf", IS_ARRAY},
    {"allOf", IS_ARRAY},
    {"$ref", IS_STRING},
    {"nullable", IS_BOOL},
    {"properties", IS_OBJECT},
    {"required", IS_ARRAY},
    {"additionalProperties", IS_SCHEMA},
    {"propertyNames", IS_SCHEMA},
    {"patternProperties", IS_OBJECT},
    {"minProperties", IS_NUMBER},
    {"maxProperties", IS_NUMBER},
    {"items", IS_SCHEMA | IS_ARRAY},
    {"prefixItems", IS_ARRAY},
    {"minItems", IS_NUMBER},
    {"maxItems", IS_NUMBER},
    {"minLength", IS_NUMBER},
    {"maxLength", IS_NUMBER},
    {"pattern", IS_STRING},
    {"minimum", IS_NUMBER},
    {"maximum", IS_NUMBER},
    {"exclusiveMinimum", IS_NUMBER | IS_BOOL},
    {"exclusiveMaximum", IS_NUMBER | IS_BOOL},
    {"multipleOf", IS_NUMBER}, /* 1 only */
};

/* Known, and binding nobody or only readers. */
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

static double number_of(struct json_object *v) {
    return is(v, json_type_int) || is(v, json_type_double) ? json_object_get_double(v) : NAN;
}

/* A keyword that is harmless with this value. */
bool lc_schema_says_nothing(const char *name, struct json_object *value) {
    if (listed(annotations, name) || !strncmp(name, "x-", 2)) return true;
    if (!strcmp(name, "uniqueItems"))
        return is(value, json_type_boolean) && !json_object_get_boolean(value);
    if (!strcmp(name, "minProperties")) return number_of(value) == 0;
    if (!strcmp(name, "additionalProperties") || !strcmp(name, "unevaluatedProperties"))
        return is(value, json_type_boolean) && json_object_get_boolean(value);
    return false;
}

static bool has_nul(struct json_object *text) {
    size_t len = (size_t)json_object_get_string_len(text);
    return strlen(json_object_get_string(text)) != len;
}

static void check_keyword(lc_schema *s, const char *name, struct json_object *value,
                          const char *place) {
    size_t i = 0, n = sizeof enforced / sizeof *enforced;
    while (i < n && strcmp(enforced[i].name, name) != 0) i++;
    if (i == n) {
        if (!lc_schema_says_nothing(name, value))
            refuse(s, place, name, "this keyword can't be enforced");
        return;
    }
    enum json_type type = json_object_get_type(value);
    if (!((unsigned)enforced[i].types >> type & 1))
        lc_rules_fail(s->r, LC_EINVAL, "%s.%s: a value of this type has no meaning", place, name);
    else if (type == json_type_string && enforced[i].types != IS_ANY && has_nul(value))
        refuse(s, place, name, "has a U+0000");
    else if (type == json_type_double && !isfinite(json_object_get_double(value)) &&
             enforced[i].types != IS_ANY)
        refuse(s, place, name, "isn't a finite number");
    else if (!strcmp(name, "multipleOf") && number_of(value) != 1)
        refuse(s, place, name, "can't be enforced");
}

void lc_schema_check(lc_schema *s, struct json_object *schema, const char *place) {
    json_object_object_foreach(schema, name, value) check_keyword(s, name, value, place);
    struct json_object *required = get(schema, "required");
    for (size_t i = 0; required && i < length_of(required); i++) {
        struct json_object *one = json_object_array_get_idx(required, i);
        if (!is(one, json_type_string) || has_nul(one)) {
            lc_rules_fail(s->r, LC_EINVAL, "%s.required: names are needed", place);
            return;
        }
    }
}

/* A whole number from 0 to most; `otherwise` if absent. */
static uint32_t count(lc_schema *s, struct json_object *schema, const char *place, const char *name,
                      uint32_t otherwise) {
    if (!json_object_object_get_ex(schema, name, NULL)) return otherwise;
    double d = number_of(get(schema, name));
    if (!(d >= 0 && d <= 1e15 && d == floor(d)))
        return lc_rules_fail(s->r, LC_EINVAL, "%s.%s: a whole number is needed", place, name);
    if (d > MOST_LENGTH && name[1] == 'i') /* a minimum */
        return lc_rules_fail(s->r, LC_ELIMIT, "%s.%s: above %d", place, name, MOST_LENGTH);
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

/* Whether anything is asked of a string. */
static bool is_free(struct json_object *schema) {
    return !get(schema, "pattern") && !get(schema, "minLength") && !get(schema, "maxLength") &&
           !format_pattern(json_object_get_string(get(schema, "format")));
}

/* What stands inside the quotes, or between the tags. */
static uint32_t string_inside(lc_schema *s, struct json_object *schema, const char *place,
                              lc_text_form form) {
    const char *text = json_object_get_string(get(schema, "pattern"));
    bool bounded = get(schema, "minLength") || get(schema, "maxLength");
    uint32_t min = count(s, schema, place, "minLength", 0);
    uint32_t max = count(s, schema, place, "maxLength", LC_RULE_UNBOUNDED);
    if (min > max) return lc_expr_never(s->r);
    if (!text && !bounded) text = format_pattern(json_object_get_string(get(schema, "format")));
    if (text) return lc_expr_pattern(s->r, &(lc_pattern){text, place, form, min, max});
    return lc_expr_repeat(s->r, any_character(s, form), min, max);
}

static uint32_t string_value(lc_schema *s, struct json_object *schema, const char *place) {
    return is_free(schema) ? any_string(s) : quoted(s, string_inside(s, schema, place, s->form));
}

/* ---- numbers ---- */

static double bound(struct json_object *schema, const char *name, double otherwise) {
    double x = number_of(get(schema, name));
    return isnan(x) ? otherwise : x;
}

static lc_bounds bounds_of(struct json_object *schema) {
    lc_bounds b = {.low = bound(schema, "minimum", -INFINITY),
                   .high = bound(schema, "maximum", INFINITY)};
    double above = bound(schema, "exclusiveMinimum", -INFINITY);
    double below = bound(schema, "exclusiveMaximum", INFINITY);
    /* draft 4: booleans that say so of minimum and maximum */
    b.above = is_true(get(schema, "exclusiveMinimum"));
    b.below = is_true(get(schema, "exclusiveMaximum"));
    if (above >= b.low && above > -INFINITY) b.low = above, b.above = true;
    if (below <= b.high && below < INFINITY) b.high = below, b.below = true;
    return b;
}

/* A bound as a whole number: exact where it is written as one. least: round up. */
static int64_t whole_bound(struct json_object *schema, const char *name, bool least) {
    struct json_object *v = get(schema, name);
    const int64_t most = 1000000000000000000;
    double x = bound(schema, name, least ? -INFINITY : INFINITY);
    x = least ? ceil(x) : floor(x);
    if (x > 1e18 || x < -1e18) return x > 0 ? most : -most;
    return is(v, json_type_int) ? json_object_get_int64(v) : (int64_t)x;
}

static uint32_t integer_value(lc_schema *s, struct json_object *schema) {
    int64_t low = whole_bound(schema, "minimum", true);
    int64_t high = whole_bound(schema, "maximum", false);
    int64_t above = whole_bound(schema, "exclusiveMinimum", false) + 1;
    int64_t below = whole_bound(schema, "exclusiveMaximum", true) - 1;
    bool is_low = !isnan(number_of(get(schema, "exclusiveMinimum")));
    bool is_high = !isnan(number_of(get(schema, "exclusiveMaximum")));
    if (is_low && above > low) low = above;
    if (is_high && below < high) high = below;
    if (is_true(get(schema, "exclusiveMinimum")) && (double)low == bound(schema, "minimum", NAN))
        low++;
    if (is_true(get(schema, "exclusiveMaximum")) && (double)high == bound(schema, "maximum", NAN))
        high--;
    return lc_expr_integer(s->r, low, high);
}

static uint32_t number_value(lc_schema *s, struct json_object *schema) {
    lc_bounds b = bounds_of(schema);
    return get(schema, "multipleOf") ? integer_value(s, schema) : lc_expr_number(s->r, &b);
}

/* ---- arrays and objects ---- */

static uint32_t key_value(lc_schema *s, struct json_object *names, const char *place);

static uint32_t array_value(lc_schema *s, struct json_object *schema, const char *place) {
    struct json_object *items = get(schema, "items"), *first = get(schema, "prefixItems");
    uint32_t min = count(s, schema, place, "minItems", 0);
    uint32_t max = count(s, schema, place, "maxItems", LC_RULE_UNBOUNDED);
    char below[PLACE];
    child_place(below, place, "items");
    if (is(items, json_type_array)) first = items, items = NULL; /* before 2020-12 */
    size_t n = is(first, json_type_array) ? length_of(first) : 0;
    if (min > max) return lc_expr_never(s->r);
    if (!n) {
        bool none = is(items, json_type_boolean) && !json_object_get_boolean(items);
        uint32_t item = items ? lc_expr_schema(s, items, below) : any_value(s);
        if (none && min > 0) return lc_expr_never(s->r);
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

/* Keys of any name: additionalProperties' values, propertyNames' or patternProperties' keys. */
static uint32_t map_value(lc_schema *s, struct json_object *schema, const char *place) {
    struct json_object *values = get(schema, "additionalProperties");
    struct json_object *names = get(schema, "propertyNames"),
                       *patterns = get(schema, "patternProperties");
    uint32_t min = count(s, schema, place, "minProperties", 0);
    uint32_t max = count(s, schema, place, "maxProperties", LC_RULE_UNBOUNDED), key;
    char below[PLACE];
    /* keys may come twice: more than one can't be promised */
    if (min > 1) return refuse(s, place, "minProperties", "above 1 can't be enforced");
    if (min > max) return lc_expr_never(s->r);
    child_place(below, place, "propertyNames");
    key = names ? key_value(s, names, below) : any_string(s);
    if (patterns && json_object_object_length(patterns) > 0) {
        if (names || json_object_object_length(patterns) != 1)
            return refuse(s, place, "patternProperties", "only one pattern can be enforced");
        json_object_object_foreach(patterns, pattern, of_pattern) {
            child_place(below, place, "patternProperties");
            key = quoted(s, lc_expr_pattern(s->r, &(lc_pattern){pattern, below, s->form, 0,
                                                                LC_RULE_UNBOUNDED}));
            values = of_pattern;
        }
    }
    bool none = is(values, json_type_boolean) && !json_object_get_boolean(values);
    if (none && min) return lc_expr_never(s->r);
    child_place(below, place, "additionalProperties");
    uint32_t value = is(values, json_type_object) ? lc_expr_schema(s, values, below) : any_value(s);
    return list_of(s, "{", seq(s, key, seq(s, mark(s, ":"), value)), min, none ? 0 : max, "}");
}

static struct json_object *name_set(struct json_object *required) {
    struct json_object *set = json_object_new_object();
    for (size_t i = 0; set && required && i < length_of(required); i++)
        json_object_object_add(set, json_object_get_string(json_object_array_get_idx(required, i)),
                               json_object_new_boolean(true));
    return set;
}

/* What can't be enforced beside named properties. */
static void check_named(lc_schema *s, struct json_object *schema, const char *place, size_t n,
                        size_t n_required) {
    struct json_object *names = get(schema, "propertyNames");
    struct json_object *patterns = get(schema, "patternProperties");
    const char *type = json_object_get_string(get(names, "type"));
    bool any = is_true(names) || (is(names, json_type_object) && type && !strcmp(type, "string") &&
                                  json_object_object_length(names) == 1);
    if (names && !any)
        refuse(s, place, "propertyNames", "can't be enforced beside named properties");
    if (patterns && json_object_object_length(patterns) > 0)
        refuse(s, place, "patternProperties", "can't be enforced beside named properties");
    if (count(s, schema, place, "maxProperties", LC_RULE_UNBOUNDED) < n)
        refuse(s, place, "maxProperties", "can't be enforced beside named properties");
    if (count(s, schema, place, "minProperties", 0) > n_required)
        refuse(s, place, "minProperties", "can't be enforced beside named properties");
}

lc_property *lc_schema_properties(lc_schema *s, struct json_object *schema, const char *place,
                                  size_t *n) {
    struct json_object *properties = get(schema, "properties"), *required = get(schema, "required");
    struct json_object *others = get(schema, "additionalProperties");
    size_t most = (properties ? (size_t)json_object_object_length(properties) : 0) +
                  (required ? length_of(required) : 0);
    *n = 0;
    if (!most || s->r->status != LC_OK) return NULL;
    lc_property *list = lc_calloc(most, sizeof *list);
    struct json_object *names = name_set(required);
    size_t used = 0;
    if (!list || !names) {
        lc_free(list);
        list = NULL;
        lc_rules_fail(s->r, LC_ENOMEM, "grammar: out of memory");
    } else {
        size_t n_required = (size_t)json_object_object_length(names);
        if (properties) {
            json_object_object_foreach(properties, name, value) {
                bool is_required = json_object_object_get_ex(names, name, NULL);
                if (!is_required && is(value, json_type_boolean) && !is_true(value)) continue;
                if (!value) lc_rules_fail(s->r, LC_EINVAL, "%s.%s: no schema", place, name);
                list[used++] = (lc_property){name, value, is_required};
                json_object_object_del(names, name);
            }
        }
        for (size_t i = 0; required && i < length_of(required); i++) {
            const char *name = json_object_get_string(json_object_array_get_idx(required, i));
            if (!json_object_object_get_ex(names, name, NULL)) continue;
            json_object_object_del(names, name);
            list[used++] = (lc_property){name, others, true};
        }
        check_named(s, schema, place, used, n_required);
    }
    json_object_put(names);
    *n = used;
    return list;
}

/* Properties from i on: `begun` says whether one stands before. Each is a rule of its own, so that
 * the whole is linear in their number. */
static uint32_t properties_from(lc_schema *s, const lc_property *list, size_t n,
                                const char *place) {
    uint32_t begun = 0, fresh = 0; /* behind the last one */
    for (size_t i = n; i-- > 0 && s->r->status == LC_OK;) {
        const lc_property *p = &list[i];
        char below[PLACE];
        snprintf(below, sizeof below, "%.250s.properties.%.80s", place, p->name);
        uint32_t key = quoted(s, lc_expr_literal(s->r, p->name, strlen(p->name), s->form));
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
    size_t n;
    lc_property *list = lc_schema_properties(s, schema, place, &n);
    if (!list) return s->r->status == LC_OK ? map_value(s, schema, place) : 0;
    uint32_t inside = properties_from(s, list, n, place);
    lc_free(list);
    return seq(s, text(s, "{"), seq(s, inside, text(s, "}")));
}

/* ---- listed values ---- */

static int by_text(const void *a, const void *b) {
    const lc_buf *x = a, *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    int order = n ? memcmp(x->data, y->data, n) : 0;
    return order ? order : x->len < y->len ? -1 : x->len > y->len;
}

/* One of the sorted texts from `at` on, told apart byte by byte, so that a long list opens few
 * ways. */
static uint32_t tree(lc_schema *s, const lc_buf *list, size_t n, size_t at, int depth) {
    uint32_t out = lc_expr_never(s->r);
    if (depth > 512) return lc_rules_fail(s->r, LC_ELIMIT, "grammar: enum too deep");
    for (size_t i = 0, end; i < n && s->r->status == LC_OK; i = end) {
        end = i + 1;
        if (list[i].len == at) {
            out = alt(s, out, 0);
            while (end < n && list[end].len == at) end++;
            continue;
        }
        while (end < n && list[end].data[at] == list[i].data[at]) end++;
        size_t shared = at + 1; /* first and last share what all do */
        const lc_buf *first = &list[i], *last = &list[end - 1];
        while (shared < first->len && shared < last->len &&
               first->data[shared] == last->data[shared])
            shared++;
        uint32_t rest = end - i > 1 ? tree(s, list + i, end - i, shared, depth + 1)
                                    : lc_expr_text(s->r, first->data + shared, first->len - shared);
        out = alt(s, out, seq(s, lc_expr_text(s->r, first->data + at, shared - at), rest));
    }
    return out;
}

/* A value's JSON in the form of the answer. */
static bool put_value(lc_schema *s, struct json_object *value, lc_buf *out) {
    const char *t = json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN |
                                                              JSON_C_TO_STRING_NOSLASHESCAPE);
    for (; t && *t; t++) {
        if (*t == '<' && s->form == LC_FORM_TAGGED)
            lc_buf_puts(out, "\\u003c");
        else
            lc_buf_putc(out, *t);
    }
    return t && !out->failed;
}

/* Whether a value has one of the types that a schema names. */
static bool type_admits(struct json_object *schema, struct json_object *value) {
    struct json_object *type = get(schema, "type");
    static const char *const names[] = {"null",   "boolean", "number", "integer",
                                        "object", "array",   "string"};
    const char *of = names[json_object_get_type(value)];
    if (!type || (!value && is_true(get(schema, "nullable")))) return true;
    for (size_t i = 0; i < (is(type, json_type_array) ? length_of(type) : 1); i++) {
        const char *t = json_object_get_string(
            is(type, json_type_array) ? json_object_array_get_idx(type, i) : type);
        if (t && (!strcmp(t, of) || (!strcmp(t, "number") && !strcmp(of, "integer")))) return true;
    }
    return false;
}

bool lc_schema_listed(struct json_object *list, struct json_object *value) {
    size_t i = 0, n = length_of(list);
    while (i < n && !json_object_equal(json_object_array_get_idx(list, i), value)) i++;
    return i < n;
}

/* Whether nothing but `name` is said. */
static bool alone(struct json_object *schema, const char *name) {
    json_object_object_foreach(schema, key, value) {
        if (strcmp(key, name) != 0 && !lc_schema_says_nothing(key, value)) return false;
    }
    return true;
}

/* A list beside anything but a type would need its values checked. */
static void check_list(lc_schema *s, struct json_object *schema, const char *place) {
    static const char *const fine[] = {"enum", "const", "type", "nullable", NULL};
    json_object_object_foreach(schema, key, value) {
        if (!listed(fine, key) && !lc_schema_says_nothing(key, value))
            refuse(s, place, key, "can't be enforced beside enum or const");
    }
}

/* enum and const: their values as JSON, or as they are (raw), where no tag may be in them. */
static uint32_t listed_values(lc_schema *s, struct json_object *schema, const char *place,
                              bool raw) {
    struct json_object *list = get(schema, "enum"), *only = NULL;
    bool constant = json_object_object_get_ex(schema, "const", &only);
    size_t n = constant ? 1 : length_of(list), used = 0;
    check_list(s, schema, place);
    lc_buf *texts = lc_calloc(n + 1, sizeof *texts);
    if (!texts) return lc_rules_fail(s->r, LC_ENOMEM, "grammar: out of memory");
    for (size_t i = 0; i < n && s->r->status == LC_OK; i++) {
        struct json_object *value = constant ? only : json_object_array_get_idx(list, i);
        if (!type_admits(schema, value) || (constant && list && !lc_schema_listed(list, value)))
            continue;
        bool ok = true;
        if (!raw)
            ok = put_value(s, value, &texts[used++]);
        else if (!has_nul(value) && !strstr(json_object_get_string(value), "<longcat_") &&
                 !strstr(json_object_get_string(value), "</longcat_"))
            ok = lc_buf_puts(&texts[used++], json_object_get_string(value));
        if (!ok) lc_rules_fail(s->r, LC_ENOMEM, "grammar: out of memory");
    }
    qsort(texts, used, sizeof *texts, by_text);
    uint32_t e = s->r->status == LC_OK ? tree(s, texts, used, 0, 0) : 0;
    for (size_t i = 0; i < used; i++) lc_buf_free(&texts[i]);
    lc_free(texts);
    return e;
}

/* ---- composition ---- */

/* A rule for what is referred to; lc_schema_finish fills it. */
static uint32_t reference(lc_schema *s, struct json_object *ref, const char *place) {
    struct json_object *target = lc_schema_target(s, ref, place);
    if (!target) return 0;
    for (size_t i = 0; i < s->n_known; i++)
        if (s->known[i].schema == target) return lc_expr_rule(s->r, s->known[i].rule);
    if (s->n_known == MOST_DEFINITIONS)
        return lc_rules_fail(s->r, LC_ELIMIT, "%s: more than %d definitions", place,
                             MOST_DEFINITIONS);
    s->known[s->n_known] = (definition){target, lc_rule_new(s->r)};
    return lc_expr_rule(s->r, s->known[s->n_known++].rule);
}

void lc_schema_finish(lc_schema *s) {
    char place[PLACE];
    for (; s->n_done < s->n_known && s->r->status == LC_OK; s->n_done++) {
        definition d = s->known[s->n_done];
        child_place(place, s->place, "$ref");
        lc_rule_set(s->r, d.rule, lc_expr_schema(s, d.schema, place));
    }
}

/* A branch with the keywords beside the union. */
static struct json_object *with_base(struct json_object *base, struct json_object *branch) {
    struct json_object *out = json_object_new_object(), *parts = json_object_new_array();
    if (out && parts) {
        json_object_array_add(parts, json_object_get(base));
        json_object_array_add(parts, json_object_get(branch));
        json_object_object_add(out, "allOf", json_object_get(parts));
    }
    json_object_put(parts);
    return out;
}

static uint32_t one_of(lc_schema *s, struct json_object *schema, const char *name,
                       const char *place) {
    struct json_object *list = get(schema, name), *base = json_object_new_object();
    uint32_t e = lc_expr_never(s->r);
    char below[PLACE];
    child_place(below, place, name);
    if (!length_of(list)) e = lc_rules_fail(s->r, LC_EINVAL, "%s: is empty", below);
    if (!base) e = lc_rules_fail(s->r, LC_ENOMEM, "grammar: out of memory");
    if (s->r->status == LC_OK) {
        json_object_object_foreach(schema, key, value) {
            if (strcmp(key, name) != 0 && !lc_schema_says_nothing(key, value))
                json_object_object_add(base, key, json_object_get(value));
        }
    }
    if (!strcmp(name, "oneOf")) lc_schema_apart(s, list, below);
    for (size_t i = 0; i < length_of(list) && s->r->status == LC_OK; i++) {
        struct json_object *branch = json_object_array_get_idx(list, i);
        snprintf(below, sizeof below, "%.250s.%s[%zu]", place, name, i);
        if (!json_object_object_length(base)) {
            e = alt(s, e, lc_expr_schema(s, branch, below));
            continue;
        }
        struct json_object *both = with_base(base, branch);
        e = alt(s, e, lc_expr_schema(s, both, below));
        json_object_put(both);
    }
    json_object_put(base);
    return e;
}

static uint32_t typed_value(lc_schema *s, struct json_object *schema, const char *type,
                            const char *place) {
    if (!strcmp(type, "string")) return string_value(s, schema, place);
    if (!strcmp(type, "integer")) return integer_value(s, schema);
    if (!strcmp(type, "number")) return number_value(s, schema);
    if (!strcmp(type, "boolean")) return alt(s, text(s, "true"), text(s, "false"));
    if (!strcmp(type, "null")) return text(s, "null");
    if (!strcmp(type, "array")) return array_value(s, schema, place);
    if (!strcmp(type, "object")) return object_value(s, schema, place);
    return lc_rules_fail(s->r, LC_EINVAL, "%s.type: \"%.40s\" is no JSON type", place, type);
}

/* Without "type": the type that the keywords are about. */
const char *lc_schema_implied(struct json_object *schema) {
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
    /* others, such as int32, are of numbers too */
    return format_pattern(json_object_get_string(get(schema, "format"))) ? "string" : NULL;
}

static uint32_t by_type(lc_schema *s, struct json_object *schema, const char *place) {
    struct json_object *type = get(schema, "type");
    const char *implied = lc_schema_implied(schema);
    uint32_t e = lc_expr_never(s->r);
    if (is(type, json_type_string))
        e = typed_value(s, schema, json_object_get_string(type), place);
    else if (is(type, json_type_array))
        for (size_t i = 0; i < length_of(type); i++) {
            const char *t = json_object_get_string(json_object_array_get_idx(type, i));
            e = alt(s, e, typed_value(s, schema, t ? t : "", place));
        }
    else
        e = implied ? typed_value(s, schema, implied, place) : any_value(s);
    if (is_true(get(schema, "nullable"))) e = alt(s, e, text(s, "null"));
    return e;
}

/* Keys: strings by a schema, which need not say that they are. */
static uint32_t key_value(lc_schema *s, struct json_object *names, const char *place) {
    if (is(names, json_type_boolean)) return is_true(names) ? any_string(s) : lc_expr_never(s->r);
    struct json_object *flat = lc_schema_flat(s, names, place);
    const char *type = json_object_get_string(get(flat, "type"));
    uint32_t e = 0;
    if (get(flat, "anyOf") || get(flat, "oneOf") || (type && strcmp(type, "string") != 0)) {
        refuse(s, place, type ? "type" : "anyOf", "keys are strings");
    } else if (flat) {
        json_object_object_add(flat, "type", json_object_new_string("string"));
        bool list = json_object_object_get_ex(flat, "const", NULL) || get(flat, "enum");
        e = list ? listed_values(s, flat, place, false) : string_value(s, flat, place);
    }
    json_object_put(flat);
    return e;
}

static uint32_t composed(lc_schema *s, struct json_object *schema, const char *place) {
    bool listed_ones = json_object_object_get_ex(schema, "const", NULL) || get(schema, "enum");
    struct json_object *ref = get(schema, "$ref");
    if (get(schema, "allOf") || (ref && !alone(schema, "$ref"))) {
        struct json_object *whole = lc_schema_flat(s, schema, place);
        uint32_t e = whole ? lc_expr_schema(s, whole, place) : 0;
        json_object_put(whole);
        return e;
    }
    if (ref) return reference(s, ref, place);
    if (get(schema, "anyOf")) return one_of(s, schema, "anyOf", place);
    if (get(schema, "oneOf")) return one_of(s, schema, "oneOf", place);
    return listed_ones ? listed_values(s, schema, place, false) : by_type(s, schema, place);
}

uint32_t lc_expr_schema(lc_schema *s, struct json_object *schema, const char *place) {
    if (!lc_rules_in_time(s->r)) return 0;
    if (is(schema, json_type_boolean))
        return json_object_get_boolean(schema) ? any_value(s) : lc_expr_never(s->r);
    if (!is(schema, json_type_object))
        return lc_rules_fail(s->r, LC_EINVAL, "%s: no schema", place);
    if (++s->depth > MOST_DEPTH)
        return lc_rules_fail(s->r, LC_ELIMIT, "%s: nested more than %d deep", place, MOST_DEPTH);
    lc_schema_check(s, schema, place);
    uint32_t e = s->r->status == LC_OK ? composed(s, schema, place) : 0;
    s->depth--;
    return e;
}

/* ---- arguments between tags ---- */

/* A string between tags, of a schema that admits nothing else. */
static uint32_t raw_value(lc_schema *s, struct json_object *schema, const char *place) {
    static const char *const unions[] = {"anyOf", "oneOf"};
    if (s->r->status != LC_OK) return 0;
    if (!is(schema, json_type_object)) return refuse(s, place, "anyOf", "no schema of strings");
    if (++s->depth > MOST_DEPTH)
        return lc_rules_fail(s->r, LC_ELIMIT, "%s: nested more than %d deep", place, MOST_DEPTH);
    lc_schema_check(s, schema, place);
    uint32_t e = lc_expr_never(s->r);
    for (size_t i = 0; i < 2 && s->r->status == LC_OK; i++) {
        struct json_object *list = get(schema, unions[i]);
        if (!list) continue;
        if (!alone(schema, unions[i]))
            return refuse(s, place, unions[i], "can't be enforced beside other keywords");
        if (i) lc_schema_apart(s, list, place);
        for (size_t k = 0; k < length_of(list); k++)
            e = alt(s, e, raw_value(s, json_object_array_get_idx(list, k), place));
        s->depth--;
        return e;
    }
    if (get(schema, "allOf") || get(schema, "$ref"))
        return refuse(s, place, "type", "string beside $ref or allOf can't be enforced");
    if (json_object_object_get_ex(schema, "const", NULL) || get(schema, "enum"))
        e = listed_values(s, schema, place, true);
    else
        e = is_free(schema) ? lc_expr_untagged(s->r, LC_FORM_RAW)
                            : string_inside(s, schema, place, LC_FORM_RAW);
    s->depth--;
    return e;
}

uint32_t lc_expr_argument(lc_schema *s, const lc_property *p, bool raw, const char *place) {
    if (raw) return raw_value(s, p->schema, place);
    return p->schema ? lc_expr_schema(s, p->schema, place) : any_value(s);
}
