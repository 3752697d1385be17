/*
 * grammar_rules.h: rules of a grammar: how they are built (expressions), and what the machine of
 * grammar.c runs (elements).
 *
 * Expressions are small trees, made by functions that return an index; 0 is the empty text, and
 * stands for everything once the builder has failed (status). lc_rules_flatten turns the tree into
 * alternatives of element sequences.
 */
#ifndef LC_ENGINE_GRAMMAR_RULES_H
#define LC_ENGINE_GRAMMAR_RULES_H

#include "base/json.h"

enum { LC_RULE_UNBOUNDED = UINT32_MAX };

typedef struct lc_byte_set {
    uint64_t bits[4];
} lc_byte_set;

typedef enum lc_element_kind {
    LC_ELEMENT_END,    /* of an alternative */
    LC_ELEMENT_BYTES,  /* a: index of the set */
    LC_ELEMENT_TOKEN,  /* a: id */
    LC_ELEMENT_RULE,   /* a: rule */
    LC_ELEMENT_REPEAT, /* a: rule, min..max times */
} lc_element_kind;

typedef struct lc_element {
    lc_element_kind kind;
    uint32_t a, min, max;
    uint32_t rest; /* fewest bytes or tags from here to the end of the alternative */
} lc_element;

typedef struct lc_rule {
    uint32_t expr;     /* while building */
    uint32_t first, n; /* alternatives: starts[first .. first + n) */
    uint32_t least;    /* fewest bytes or tags; UINT32_MAX: it can't end */
} lc_rule;

typedef enum lc_expr_kind {
    LC_EXPR_EMPTY,
    LC_EXPR_BYTES,
    LC_EXPR_TOKEN,
    LC_EXPR_SEQ,
    LC_EXPR_ALT,
    LC_EXPR_REPEAT,
    LC_EXPR_RULE,
    LC_EXPR_NEVER, /* no text at all: an alternative that vanishes */
} lc_expr_kind;

typedef struct lc_expr {
    lc_expr_kind kind;
    uint32_t a, b; /* SEQ, ALT: parts; BYTES: set; TOKEN: id; RULE: rule; REPEAT: a */
    uint32_t min, max;
} lc_expr;

typedef struct lc_rules {
    lc_expr *exprs;
    size_t n_exprs, cap_exprs;
    lc_byte_set *sets;
    size_t n_sets, cap_sets;
    lc_rule *rules;
    size_t n_rules, cap_rules;
    lc_element *elements;
    size_t n_elements, cap_elements;
    uint32_t *starts;
    size_t n_starts, cap_starts;
    size_t limit;         /* bytes for all of it */
    uint64_t deadline_ns; /* of the thread's processor time */
    int status;
    lc_err *err;
} lc_rules;

int lc_rules_init(lc_rules *r, size_t limit, double seconds, lc_err *err);
void lc_rules_free(lc_rules *r);
/* Sets the builder's failure, if it is the first; returns 0, the empty expression. */
uint32_t lc_rules_fail(lc_rules *r, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Fails when the deadline has passed; to be asked wherever input makes long work. */
bool lc_rules_in_time(lc_rules *r);

uint32_t lc_expr_never(lc_rules *r);
uint32_t lc_expr_set(lc_rules *r, const lc_byte_set *set);
uint32_t lc_expr_bytes(lc_rules *r, unsigned low, unsigned high); /* one byte, low..high */
uint32_t lc_expr_text(lc_rules *r, const char *text, size_t len);
uint32_t lc_expr_token(lc_rules *r, int32_t id);
uint32_t lc_expr_seq(lc_rules *r, uint32_t a, uint32_t b);
uint32_t lc_expr_alt(lc_rules *r, uint32_t a, uint32_t b);
uint32_t lc_expr_repeat(lc_rules *r, uint32_t a, uint32_t min, uint32_t max);
uint32_t lc_expr_optional(lc_rules *r, uint32_t a);
uint32_t lc_expr_rule(lc_rules *r, uint32_t rule);
/* A rule whose expression is set later (recursion). */
uint32_t lc_rule_new(lc_rules *r);
void lc_rule_set(lc_rules *r, uint32_t rule, uint32_t expr);

/* All rules to elements, shortest lengths, and the checks that the machine relies on: the first
 * rule can end, nothing is left-recursive, what is repeated isn't empty. */
int lc_rules_flatten(lc_rules *r);

/* ---- texts: how characters are written ---- */

typedef enum lc_text_form {
    LC_FORM_JSON,   /* inside a JSON string: escapes for what needs them */
    LC_FORM_TAGGED, /* the same between tags: '<', which begins tags, is escaped too */
    LC_FORM_RAW,    /* as they are, without '<' */
} lc_text_form;

typedef struct lc_range {
    uint32_t low, high; /* code points */
} lc_range;

/* One character of the ranges (sorted, apart), in the form. */
uint32_t lc_expr_class(lc_rules *r, const lc_range *ranges, size_t n, lc_text_form form);
uint32_t lc_expr_any(lc_rules *r, lc_text_form form); /* any character */
uint32_t lc_expr_literal(lc_rules *r, const char *text, size_t len, lc_text_form form);
/* Any text in which no tag begins ("<longcat_", "</longcat_"); '<' stands in it as it is, TAGGED
 * too. */
uint32_t lc_expr_untagged(lc_rules *r, lc_text_form form);

/* grammar_pattern.c: an ECMA regular expression as JSON schema has them (it may match anywhere,
 * unless anchored), the text min..max characters long. LC_EUNSUPPORTED names what isn't regular.
 * place: for messages. */
typedef struct lc_pattern {
    const char *text, *place;
    lc_text_form form;
    uint32_t min, max; /* max: maybe LC_RULE_UNBOUNDED */
} lc_pattern;
uint32_t lc_expr_pattern(lc_rules *r, const lc_pattern *pattern);

/* grammar_number.c: whole numbers low..high; numbers between bounds, each excluded or not. */
uint32_t lc_expr_integer(lc_rules *r, int64_t low, int64_t high);
typedef struct lc_bounds {
    double low, high;  /* -INFINITY, INFINITY: none */
    bool above, below; /* excluded */
} lc_bounds;
bool lc_bounds_hold(const lc_bounds *bounds, double x);
uint32_t lc_expr_number(lc_rules *r, const lc_bounds *bounds);

/* grammar_schema.c: JSON values by a schema. */
typedef struct lc_schema lc_schema;
int lc_schema_new(lc_rules *r, struct json_object *root, const char *place, lc_text_form form,
                  lc_schema **out);
/* Compiles what was referred to; to be called when everything else has been. */
void lc_schema_finish(lc_schema *schema);
void lc_schema_free(lc_schema *schema);
uint32_t lc_expr_schema(lc_schema *s, struct json_object *schema, const char *place);
uint32_t lc_expr_object(lc_schema *s); /* any JSON object */

/* The members of an object with named properties. */
typedef struct lc_property {
    const char *name;           /* borrowed from the schema */
    struct json_object *schema; /* NULL: any value */
    bool required;
} lc_property;
/* The properties of an object schema, those that are only required included; a new list, the
 * caller's. NULL and *n = 0 if none is named, or after a failure. */
lc_property *lc_schema_properties(lc_schema *s, struct json_object *schema, const char *place,
                                  size_t *n);
/* A tool's parameters as a plain object schema, $ref and allOf resolved: the caller's
 * (json_object_put). NULL after a failure. */
struct json_object *lc_schema_flat(lc_schema *s, struct json_object *schema, const char *place);
/* A parameter's value between tags: JSON, or raw, the text of a string as it stands. */
uint32_t lc_expr_argument(lc_schema *s, const lc_property *property, bool raw, const char *place);

#endif
