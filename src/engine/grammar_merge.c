/*
 * grammar_merge.c: schemas that bind together: $ref, allOf and keywords beside them become one flat
 * schema, or are refused where one schema can't say it; and whether the branches of oneOf exclude
 * each other, as far as types, listed values and names of properties show it.
 */
#include "engine/grammar_schema.h"

#include "base/err.h"

#include <string.h>

/* ---- references and allOf ---- */

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
        bool index = n > 0 && n < 10 && strspn(name, "0123456789") == n;
        at = is(at, json_type_object) ? get(at, name)
             : is(at, json_type_array) && index
                 ? json_object_array_get_idx(at, strtoul(name, NULL, 10))
                 : NULL;
    }
    return *ref ? NULL : at;
}

struct json_object *lc_schema_target(lc_schema *s, struct json_object *ref, const char *place) {
    struct json_object *target = resolve(s, json_object_get_string(ref));
    if (!target)
        lc_rules_fail(s->r, LC_EINVAL, "%s.$ref: \"%.80s\" isn't in this schema", place,
                      json_object_get_string(ref));
    return target;
}

enum { MOST_CLOSED = 16, MOST_PARTS = 256 };

/* Schemas that all bind become one. */
typedef struct merging {
    lc_schema *s;
    const char *place;
    struct json_object *out, *properties, *required;
    struct json_object *closed[MOST_CLOSED]; /* parts that say something of further properties */
    size_t n_closed, n_parts;
} merging;

static void merge(merging *m, struct json_object *part, int depth);

static void merge_properties(merging *m, struct json_object *properties) {
    json_object_object_foreach(properties, key, child) {
        struct json_object *old;
        if (json_object_object_get_ex(m->properties, key, &old) && !json_object_equal(old, child))
            refuse(m->s, m->place, "allOf", "describes a property twice");
        json_object_object_add(m->properties, key, json_object_get(child));
    }
}

static void merge_keyword(merging *m, const char *name, struct json_object *value, int depth) {
    struct json_object *old;
    size_t n = is(value, json_type_array) ? length_of(value) : 0;
    if (!strcmp(name, "$ref")) {
        merge(m, lc_schema_target(m->s, value, m->place), depth + 1);
    } else if (!strcmp(name, "allOf")) {
        for (size_t i = 0; i < n; i++) merge(m, json_object_array_get_idx(value, i), depth + 1);
    } else if (!strcmp(name, "properties")) {
        merge_properties(m, value);
    } else if (!strcmp(name, "required")) {
        for (size_t i = 0; i < n; i++)
            json_object_array_add(m->required,
                                  json_object_get(json_object_array_get_idx(value, i)));
    } else if (!strcmp(name, "format")) {
        if (!get(m->out, name)) json_object_object_add(m->out, name, json_object_get(value));
    } else if (!lc_schema_says_nothing(name, value) && strcmp(name, "nullable") != 0) {
        if (json_object_object_get_ex(m->out, name, &old) && !json_object_equal(old, value))
            refuse(m->s, m->place, "allOf", "parts that bind the same keyword differently");
        json_object_object_add(m->out, name, json_object_get(value));
    }
}

static void merge(merging *m, struct json_object *part, int depth) {
    if (!lc_rules_in_time(m->s->r) || is_true(part)) return;
    if (depth > MOST_DEPTH || ++m->n_parts > MOST_PARTS) {
        lc_rules_fail(m->s->r, LC_ELIMIT, "%s.allOf: too many parts", m->place);
        return;
    }
    if (!is(part, json_type_object)) {
        refuse(m->s, m->place, "allOf", "a part is no object");
        return;
    }
    lc_schema_check(m->s, part, m->place);
    if (m->s->r->status != LC_OK) return;
    struct json_object *others = get(part, "additionalProperties");
    if (others && !is_true(others)) {
        if (m->n_closed == MOST_CLOSED)
            refuse(m->s, m->place, "allOf", "too many closed parts");
        else
            m->closed[m->n_closed++] = part;
    }
    json_object_object_foreach(part, name, value) merge_keyword(m, name, value, depth);
}

/* What one part says of properties that it doesn't name, others may name. */
static void check_merged(merging *m) {
    for (size_t i = 0; i < m->n_closed; i++) {
        struct json_object *own = get(m->closed[i], "properties");
        json_object_object_foreach(m->properties, key, child) {
            (void)child;
            if (!json_object_object_get_ex(own, key, NULL))
                refuse(m->s, m->place, "allOf", "additionalProperties beside others' properties");
        }
    }
    if (m->n_parts > 2 && (get(m->out, "patternProperties") || get(m->out, "prefixItems")))
        refuse(m->s, m->place, "allOf", "patternProperties and prefixItems can't be enforced here");
}

struct json_object *lc_schema_flat(lc_schema *s, struct json_object *schema, const char *place) {
    merging m = {.s = s, .place = place};
    m.out = json_object_new_object();
    m.properties = json_object_new_object();
    m.required = json_object_new_array();
    if (!m.out || !m.properties || !m.required)
        lc_rules_fail(s->r, LC_ENOMEM, "grammar: out of memory");
    merge(&m, schema, 0);
    if (s->r->status == LC_OK) check_merged(&m);
    if (s->r->status == LC_OK && json_object_object_length(m.properties))
        json_object_object_add(m.out, "properties", json_object_get(m.properties));
    if (s->r->status == LC_OK && length_of(m.required))
        json_object_object_add(m.out, "required", json_object_get(m.required));
    json_object_put(m.properties);
    json_object_put(m.required);
    if (s->r->status == LC_OK) return m.out;
    json_object_put(m.out);
    return NULL;
}

/* ---- unions ---- */

/* Types of JSON as bits of json_type; whole numbers are `int`, others `double`. */
static int named_type(const char *name) {
    static const char *const names[] = {"null",   "boolean", "?",     "integer",
                                        "object", "array",   "string"};
    if (!strcmp(name, "number")) return IS_NUMBER;
    for (int i = 0; i < 7; i++)
        if (!strcmp(name, names[i])) return 1 << i;
    return 0;
}

static int listed_types(struct json_object *list) {
    int types = 0;
    for (size_t i = 0; i < length_of(list); i++) {
        struct json_object *value = json_object_array_get_idx(list, i);
        enum json_type type = json_object_get_type(value);
        types |= type == json_type_double ? IS_NUMBER : 1 << type; /* 1.0 is whole */
    }
    return types;
}

/* Types that a flat schema admits; written: of what is written by it. */
static int types_of(struct json_object *schema, bool written) {
    struct json_object *type = get(schema, "type"), *list = get(schema, "enum"), *only;
    int types = 0;
    if (json_object_object_get_ex(schema, "const", &only)) {
        enum json_type t = json_object_get_type(only);
        types = t == json_type_double ? IS_NUMBER : 1 << t;
    } else if (list) {
        types = listed_types(list);
    } else if (is(type, json_type_string)) {
        types = named_type(json_object_get_string(type));
    } else if (is(type, json_type_array)) {
        for (size_t i = 0; i < length_of(type); i++) {
            const char *t = json_object_get_string(json_object_array_get_idx(type, i));
            types |= named_type(t ? t : "");
        }
    } else if (get(schema, "anyOf") || get(schema, "oneOf")) {
        types = IS_ANY;
    } else {
        const char *implied = written ? lc_schema_implied(schema) : NULL;
        types = implied ? named_type(implied) : IS_ANY;
    }
    return is_true(get(schema, "nullable")) ? types | 1 : types;
}

static bool requires(struct json_object *schema, const char *name) {
    struct json_object *required = get(schema, "required");
    for (size_t i = 0; required && i < length_of(required); i++)
        if (!strcmp(json_object_get_string(json_object_array_get_idx(required, i)), name))
            return true;
    return false;
}

/* Whether two lists (enum or const) have no value in common. */
static bool lists_apart(lc_schema *s, struct json_object *a, struct json_object *b) {
    struct json_object *of[2] = {get(a, "enum"), get(b, "enum")}, *only[2];
    for (int i = 0; i < 2; i++) {
        if (json_object_object_get_ex(i ? b : a, "const", &only[i]))
            of[i] = NULL;
        else if (!of[i])
            return false;
    }
    size_t n = of[0] ? length_of(of[0]) : 1;
    for (size_t i = 0; i < n; i++) {
        struct json_object *value = of[0] ? json_object_array_get_idx(of[0], i) : only[0];
        if (is(value, json_type_double) || !lc_rules_in_time(s->r)) return false; /* 1.0 is 1 */
        if (of[1] ? lc_schema_listed(of[1], value) : json_object_equal(only[1], value))
            return false;
    }
    return true;
}

/* Whether an object that is written by `a` is never one of `b`. */
static bool objects_apart(lc_schema *s, struct json_object *a, struct json_object *b) {
    struct json_object *mine = get(a, "properties"), *theirs = get(b, "properties");
    struct json_object *required = get(b, "required"), *others = get(b, "additionalProperties");
    if (!mine) return false; /* it may have any key */
    for (size_t i = 0; required && i < length_of(required); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(required, i));
        if (!lc_rules_in_time(s->r)) return false;
        if (!json_object_object_get_ex(mine, name, NULL) && !requires(a, name)) return true;
    }
    json_object_object_foreach(mine, key, child) {
        struct json_object *other = get(theirs, key);
        if (!lc_rules_in_time(s->r)) return false;
        bool closed = is(others, json_type_boolean) && !is_true(others);
        if (!other && requires(a, key) && closed) return true;
        bool there = requires(a, key) || requires(b, key);
        if (there && is(child, json_type_object) && is(other, json_type_object) &&
            lists_apart(s, child, other))
            return true;
    }
    return false;
}

/* Whether what is written by `a` is never valid by `b`, as far as is seen at once. */
static bool apart(lc_schema *s, struct json_object *a, struct json_object *b) {
    int types = types_of(a, true) & types_of(b, false);
    if (!types || lists_apart(s, a, b)) return true;
    return types == IS_OBJECT && objects_apart(s, a, b);
}

enum { MOST_BRANCHES = 64 };

/* oneOf: no value may be valid by two of the branches. */
void lc_schema_apart(lc_schema *s, struct json_object *list, const char *place) {
    struct json_object *flat[MOST_BRANCHES];
    size_t n = length_of(list), made = 0;
    if (n > MOST_BRANCHES) {
        lc_rules_fail(s->r, LC_ELIMIT, "%s: more than %d branches", place, MOST_BRANCHES);
        return;
    }
    for (; made < n; made++) {
        flat[made] = lc_schema_flat(s, json_object_array_get_idx(list, made), place);
        if (!flat[made]) break;
    }
    for (size_t i = 0; i < made && s->r->status == LC_OK; i++)
        for (size_t j = 0; j < n; j++)
            if (i != j && !apart(s, flat[i], flat[j])) {
                lc_rules_fail(s->r, LC_EUNSUPPORTED, "%s: branches %zu and %zu may overlap", place,
                              i, j);
                break;
            }
    while (made > 0) json_object_put(flat[--made]);
}
