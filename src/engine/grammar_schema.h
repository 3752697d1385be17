/* grammar_schema.h: what grammar_schema.c (values) and grammar_merge.c (several schemas that bind
 * together) share. */
#ifndef LC_ENGINE_GRAMMAR_SCHEMA_H
#define LC_ENGINE_GRAMMAR_SCHEMA_H

#include "engine/grammar_rules.h"

enum { MOST_DEPTH = 32, MOST_DEFINITIONS = 1024, PLACE = 400 };

typedef struct definition {
    struct json_object *schema;
    uint32_t rule;
} definition;

struct lc_schema {
    lc_rules *r;
    struct json_object *root;
    const char *place;
    lc_text_form form; /* of strings in JSON */
    definition *known; /* schemas that were reached by $ref */
    size_t n_known, n_done;
    uint32_t value, object, string; /* rules of any value, object, string; 0 = not made yet */
    uint32_t character[LC_FORM_RAW + 1];
    int depth;
};

enum { /* types of a keyword's value, as bits of json_type */
       IS_BOOL = 1 << json_type_boolean,
       IS_NUMBER = 1 << json_type_int | 1 << json_type_double,
       IS_OBJECT = 1 << json_type_object,
       IS_ARRAY = 1 << json_type_array,
       IS_STRING = 1 << json_type_string,
       IS_ANY = ~0,
       IS_SCHEMA = IS_OBJECT | IS_BOOL,
};

static inline struct json_object *get(struct json_object *o, const char *key) {
    return json_object_object_get(o, key);
}

static inline bool is(struct json_object *o, enum json_type type) {
    return json_object_is_type(o, type);
}

/* Members of an array, 0 for anything else. */
static inline size_t length_of(struct json_object *list) {
    return is(list, json_type_array) ? json_object_array_length(list) : 0;
}

static inline bool is_true(struct json_object *v) {
    return is(v, json_type_boolean) && json_object_get_boolean(v);
}

static inline uint32_t refuse(lc_schema *s, const char *place, const char *keyword,
                              const char *why) {
    return lc_rules_fail(s->r, LC_EUNSUPPORTED, "%s.%s: %s", place, keyword, why);
}

/* Every keyword must be known and have a value of its type. */
void lc_schema_check(lc_schema *s, struct json_object *schema, const char *place);
/* A keyword that is harmless with this value. */
bool lc_schema_says_nothing(const char *name, struct json_object *value);
/* The type that is meant where none is named, or NULL. */
const char *lc_schema_implied(struct json_object *schema);
/* Whether a list (enum) has a value. */
bool lc_schema_listed(struct json_object *list, struct json_object *value);

/* "#", "#/$defs/name": the schema there. NULL after a failure. */
struct json_object *lc_schema_target(lc_schema *s, struct json_object *ref, const char *place);
/* Fails unless no value that is written by one schema of the list is valid by another. */
void lc_schema_apart(lc_schema *s, struct json_object *list, const char *place);

#endif
