/*
 * jinja.h: a sandboxed interpreter of the part of Jinja 2 that chat templates use, with the
 * environment of the reference runtime: trim_blocks and lstrip_blocks, lenient undefined values, no
 * escaping, the immutable sandbox, {% break %}, {% continue %} and {% generation %}.
 *
 * A template is a stranger's program. It sees only the values that the caller gives it, can change
 * none of them, and stops at limits on steps, memory, output and nesting. What Jinja has and this
 * interpreter lacks is LC_EUNSUPPORTED with the feature's name; it never prints another text.
 * Values print as in Python (True, None, 1e+16, ['a']). chat.h puts the rules of chat templates
 * around it.
 */
#ifndef LC_TEXT_JINJA_H
#define LC_TEXT_JINJA_H

#include "base/json.h"

/* What went wrong, after Python's exceptions. The status code in brackets. */
typedef enum lc_jinja_kind {
    LC_JINJA_NONE,
    LC_JINJA_SYNTAX,        /* found when compiling (LC_EFORMAT) */
    LC_JINJA_UNDEFINED,     /* use of something undefined (LC_EINVAL, as all down to RAISED) */
    LC_JINJA_TYPE,          /* TypeError */
    LC_JINJA_VALUE,         /* ValueError */
    LC_JINJA_ZERO_DIVISION, /* ZeroDivisionError */
    LC_JINJA_SECURITY,      /* what the sandbox forbids */
    LC_JINJA_RUNTIME,       /* other errors of a render */
    LC_JINJA_RAISED,        /* the template called raise_exception */
    LC_JINJA_LIMIT,         /* LC_ELIMIT */
    LC_JINJA_UNSUPPORTED,   /* LC_EUNSUPPORTED */
    LC_JINJA_MEMORY,        /* LC_ENOMEM */
} lc_jinja_kind;

/* "syntax", "zero_division" and so on. Never NULL. */
const char *lc_jinja_kind_name(lc_jinja_kind kind);

/* A failure in full, for callers that answer a client: lc_err holds the same, cut to its size, as
 * "name:line: kind: message". Zero it before use; free it with lc_jinja_fault_free. */
typedef struct lc_jinja_fault {
    lc_jinja_kind kind;
    uint32_t line; /* of the template, from 1; 0 = unknown */
    lc_buf message;
} lc_jinja_fault;
void lc_jinja_fault_free(lc_jinja_fault *fault);

/* A compiled template: immutable, may be shared by threads. */
typedef struct lc_jinja lc_jinja;

/* source: UTF-8, at most 8 MiB, copied. name is used in messages only. fault may be NULL. */
int lc_jinja_compile(const char *source, size_t len, const char *name, lc_jinja **out,
                     lc_jinja_fault *fault, lc_err *err);
void lc_jinja_free(lc_jinja *tmpl);

/* The template's own text: what stands outside of tags and its string literals, with a NUL between
 * each two. */
const char *lc_jinja_literals(const lc_jinja *tmpl, size_t *len);

typedef struct lc_jinja_var {
    const char *name;
    struct json_object *value; /* NULL is None */
} lc_jinja_var;

typedef struct lc_jinja_limits { /* 0 = the default */
    uint64_t steps;              /* nodes evaluated, items visited, bytes worked on; 20 M */
    size_t memory;               /* bytes allocated by the render, output included; 128 MiB */
    size_t output;               /* bytes of text; 32 MiB */
} lc_jinja_limits;

typedef struct lc_jinja_job {
    const lc_jinja_var *vars; /* of one name, the last counts */
    size_t n_vars;
    lc_jinja_limits limits;
    int64_t now; /* what strftime_now shows, seconds since 1970 (UTC); 0 = the present, local */
    /* Code points first..first+count-1 are marks that the caller put into strings: repr and
     * tojson(ensure_ascii=true) leave them as they are. count 0 = none. */
    uint32_t marks_first, marks_count;
    lc_jinja_fault *fault; /* or NULL */
} lc_jinja_job;

/* Appends the rendered text to out; on failure out is as it was. Needs at most 1 MiB of stack. */
int lc_jinja_render(const lc_jinja *tmpl, const lc_jinja_job *job, lc_buf *out, lc_err *err);

#endif
