/*
 * jinja_internal.h: what the files of the interpreter share. Nobody else includes it.
 *
 *   source -> jinja_lex -> jinja_parse, jinja_expr -> nodes -> jinja_scope (names to slots)
 *   nodes + values -> jinja_exec (statements), jinja_eval (expressions) -> text
 *
 * Everything that a render allocates lives on one heap with a limit (jinja_heap.c) and goes at
 * once, so values hold plain pointers. Lists, tuples, dicts and strings never change after they are
 * built; only namespaces, loops, iterators, cyclers and joiners do.
 *
 * Calls that can fail return false after storing the failure in the runtime (lcj_fail).
 */
#ifndef LC_TEXT_JINJA_INTERNAL_H
#define LC_TEXT_JINJA_INTERNAL_H

#include "base/err.h"
#include "base/utf8.h"
#include "text/jinja/jinja.h"

#include <string.h>

enum {
    LCJ_NEST = 400,        /* nodes inside nodes, values inside values */
    LCJ_BLOCKS = 100,      /* statements inside statements */
    LCJ_DEPTH = 3000,      /* evaluations inside evaluations */
    LCJ_CALLS = 250,       /* macro calls inside macro calls */
    LCJ_RANGE = 100000,    /* longest range, as in the reference's sandbox */
    LCJ_MESSAGE = 1 << 16, /* longest message of a failure */
    LCJ_PARAMS = 8,        /* most parameters of a built-in filter, test or method */
    LCJ_FLOAT_STEPS = 400, /* what it may take to print or round a float */
};

typedef struct lcj_rt lcj_rt;
typedef struct lcj_node lcj_node;
typedef struct lcj_def lcj_def;

typedef struct lcj_str {
    const char *s;
    uint32_t len;
} lcj_str;
#define LCJ_STR(literal) ((lcj_str){literal, sizeof(literal) - 1})

static inline bool lcj_str_eq(lcj_str a, lcj_str b) {
    return a.len == b.len && (a.s == b.s || !memcmp(a.s, b.s, a.len));
}

/* ---- values ---- */

typedef enum lcj_type {
    LCJ_MISSING,   /* a slot without a value, an argument not given; templates never see it */
    LCJ_UNDEFINED, /* u.s, len: a name or message; sub: lcj_undef; aux: type of the owner */
    LCJ_NONE,
    LCJ_BOOL,      /* u.b */
    LCJ_INT,       /* u.i */
    LCJ_BIG,       /* u.s, len: an integer of JSON beyond int64_t, as text; it only prints */
    LCJ_FLOAT,     /* u.f */
    LCJ_STRING,    /* u.s, len bytes of UTF-8, flags */
    LCJ_LIST,      /* u.list */
    LCJ_TUPLE,     /* u.list */
    LCJ_DICT,      /* u.dict */
    LCJ_RANGE_OBJ, /* u.range */
    LCJ_VIEW,      /* u.dict, sub: 'k', 'v' or 'i' */
    LCJ_ITER,      /* u.iter: a generator or another iterator that is used up */
    LCJ_NAMESPACE, /* u.dict, which changes */
    LCJ_FUNC,      /* u.def: a global function */
    LCJ_METHOD,    /* u.bound */
    LCJ_MACRO,     /* u.macro */
    LCJ_LOOP,      /* u.loop */
    LCJ_CYCLER,    /* u.cycler */
    LCJ_JOINER,    /* u.cycler */
} lcj_type;

enum { LCJ_SAFE = 1, LCJ_ASCII = 2 }; /* flags of strings: marked safe, known to be ASCII */

typedef enum lcj_undef {
    LCJ_UNDEF_NAME,  /* 'x' is undefined */
    LCJ_UNDEF_ATTR,  /* 'dict object' has no attribute 'x' */
    LCJ_UNDEF_ITEM,  /* list object has no element 3 */
    LCJ_UNDEF_HINT,  /* the text is the message */
    LCJ_UNDEF_PARAM, /* parameter 'x' was not provided */
    LCJ_UNDEF_UNSAFE,
} lcj_undef;

typedef struct lcj_list lcj_list;
typedef struct lcj_dict lcj_dict;
typedef struct lcj_range lcj_range;
typedef struct lcj_iter lcj_iter;
typedef struct lcj_bound lcj_bound;
typedef struct lcj_macro lcj_macro;
typedef struct lcj_loop lcj_loop;
typedef struct lcj_cycler lcj_cycler;

typedef struct lcj_val {
    uint8_t type, flags, sub, aux;
    uint32_t len;
    union {
        bool b;
        int64_t i;
        double f;
        const char *s;
        lcj_list *list;
        lcj_dict *dict;
        lcj_range *range;
        lcj_iter *iter;
        lcj_bound *bound;
        lcj_macro *macro;
        lcj_loop *loop;
        lcj_cycler *cycler;
        const lcj_def *def;
    } u;
} lcj_val;

/* Items may be shared by several lists: a slice points into its source, and a + b extends a's
 * array where a ends at the array's end. */
typedef struct lcj_array {
    uint32_t used, cap;
    lcj_val items[];
} lcj_array;
struct lcj_list {
    lcj_val *items;
    uint32_t len;
    lcj_array *array; /* NULL for fixed items */
};

typedef struct lcj_entry {
    lcj_val key, value;
    uint64_t hash;
} lcj_entry;
struct lcj_dict { /* in order of insertion */
    lcj_entry *entries;
    uint32_t len, cap;
    uint32_t *index; /* entry + 1, open addressing; NULL while small */
    uint32_t index_size;
};

struct lcj_range {
    int64_t start, stop, step, len;
};

struct lcj_bound {
    lcj_val self;
    const lcj_def *def; /* fn NULL: known to Python, not to us */
    lcj_str name;
};

/* The variables of a running function: the root, a macro, a call block, a recursive loop. */
typedef struct lcj_act {
    struct lcj_act *parent; /* of the function around it in the template */
    lcj_val slots[];
} lcj_act;

struct lcj_macro {
    const lcj_node *node;
    lcj_act *act; /* where it was defined */
};

typedef enum lcj_iter_kind {
    LCJ_IT_EMPTY,
    LCJ_IT_ITEMS,    /* list, tuple */
    LCJ_IT_REVERSED, /* list, tuple, range, dict and views, backwards */
    LCJ_IT_CHARS,
    LCJ_IT_DICT, /* sub: 'k', 'v', 'i' */
    LCJ_IT_RANGE,
    LCJ_IT_SHARED, /* src is an LCJ_ITER: its own state moves on */
    LCJ_IT_MAP,
    LCJ_IT_SELECT, /* select, reject, selectattr, rejectattr */
    LCJ_IT_UNIQUE,
    LCJ_IT_BATCH,
    LCJ_IT_SLICE,
    LCJ_IT_PAIRS, /* the filter items */
    LCJ_IT_TEST,  /* for ... if */
} lcj_iter_kind;

struct lcj_iter {
    uint8_t kind, sub;
    bool started, done;
    uint32_t pos;
    lcj_val src;
    lcj_iter *inner; /* of generators, once started */
    struct lcj_gen *gen;
    lcj_loop *loop; /* LCJ_IT_TEST */
    size_t born;    /* heap position at creation */
};

/* What a generator filter was called with, and what its first step makes of that. */
typedef struct lcj_gen {
    lcj_val *args;
    uint32_t n_args;
    struct lcj_kwarg *kwargs;
    uint32_t n_kwargs;
    bool by_attribute, negate; /* selectattr, rejectattr; reject, rejectattr */
    bool has_path;
    struct lcj_val *path; /* parts of the attribute's path */
    uint32_t path_len;
    const lcj_def *def; /* the filter or test to apply, NULL for none */
    lcj_val fallback, fill, list;
    lcj_dict *seen; /* unique */
    int64_t count;  /* batch, slice: the argument */
    bool case_sensitive;
} lcj_gen;

struct lcj_loop {
    const lcj_node *node;
    lcj_act *act;   /* of the function in which the loop runs */
    lcj_val source; /* for length */
    lcj_iter iter;
    int64_t index0, length; /* length -1 = unknown */
    lcj_val after, current, before, changed;
    uint32_t depth0;
};

struct lcj_cycler {
    lcj_list items;
    uint32_t pos;
    bool used; /* joiner */
};

/* ---- calls ---- */

typedef struct lcj_kwarg {
    lcj_str name;
    lcj_val value;
} lcj_kwarg;

typedef struct lcj_call {
    lcj_val self; /* the value of a filter, test or method */
    lcj_val *args;
    uint32_t n_args;
    lcj_kwarg *kwargs;
    uint32_t n_kwargs;
    const lcj_def *def;
    lcj_val bound[LCJ_PARAMS]; /* arguments by parameter, LCJ_MISSING where not given */
} lcj_call;

typedef bool (*lcj_fn)(lcj_rt *rt, lcj_call *call, lcj_val *out);

/* A built-in. params: names separated by spaces, in order; "?" behind a name makes it optional, "-"
 * behind it bars use by keyword; "*" takes all arguments as they are (call->bound is not filled).
 * kind: what a method may not do (LCJ_DEF_CHANGES) or which type it belongs to. */
struct lcj_def {
    const char *name;
    lcj_fn fn; /* NULL: known to the reference, not supported */
    const char *params;
    uint8_t kind;
};
enum { LCJ_DEF_PLAIN, LCJ_DEF_CHANGES, LCJ_DEF_PROPERTY };

/* ---- nodes ---- */

typedef enum lcj_kind {
    /* expressions */
    LCJ_N_CONST,   /* value */
    LCJ_N_NAME,    /* name, ref; op: lcj_ctx */
    LCJ_N_NSREF,   /* name, attr in value, ref */
    LCJ_N_LIST,    /* items */
    LCJ_N_TUPLE,   /* items */
    LCJ_N_DICT,    /* items: keys, more: values */
    LCJ_N_UNARY,   /* op '-' or '+'; a */
    LCJ_N_NOT,     /* a */
    LCJ_N_BINARY,  /* op lcj_op; a, b */
    LCJ_N_AND,     /* a, b */
    LCJ_N_OR,      /* a, b */
    LCJ_N_CONCAT,  /* items */
    LCJ_N_COMPARE, /* a, items, each an LCJ_N_OPERAND */
    LCJ_N_OPERAND, /* op lcj_op; a */
    LCJ_N_COND,    /* a: test, b: then, c: else or NULL */
    LCJ_N_GETATTR, /* a, name */
    LCJ_N_GETITEM, /* a, b: expression or slice; op 1: a slice that fails is undefined */
    LCJ_N_SLICE,   /* a, b, c, each may be NULL */
    LCJ_N_CALL,    /* a, args */
    LCJ_N_FILTER,  /* a (NULL: the text of the block), name, def (NULL: unknown), args */
    LCJ_N_TEST,    /* a, name, def, args */
    /* statements */
    LCJ_N_OUTPUT,      /* items; constants are text */
    LCJ_N_IF,          /* a: test, body, more: elif as LCJ_N_IF, orelse */
    LCJ_N_FOR,         /* a: target, b: iterable, c: test, body, orelse, frame, func if recursive */
    LCJ_N_SET,         /* a: target, b: value */
    LCJ_N_SETBLOCK,    /* a: target, b: filter or NULL, body, frame */
    LCJ_N_MACRO,       /* name, ref, items: parameters, more: defaults, body, frame, func */
    LCJ_N_CALLBLOCK,   /* a: call (NULL: generation), else as LCJ_N_MACRO */
    LCJ_N_FILTERBLOCK, /* b: filter, body, frame */
    LCJ_N_WITH,        /* items: targets, more: values, body, frame */
    LCJ_N_SCOPE,       /* body, frame */
    LCJ_N_BREAK,
    LCJ_N_CONTINUE,
    LCJ_N_UNSUPPORTED, /* name: the statement; an error when reached */
} lcj_kind;

typedef enum lcj_op {
    LCJ_ADD,
    LCJ_SUB,
    LCJ_MUL,
    LCJ_DIV,
    LCJ_FLOORDIV,
    LCJ_MOD,
    LCJ_POW,
    LCJ_EQ,
    LCJ_NE,
    LCJ_LT,
    LCJ_LE,
    LCJ_GT,
    LCJ_GE,
    LCJ_IN,
    LCJ_NOTIN,
} lcj_op;

typedef enum lcj_ctx { LCJ_LOAD, LCJ_STORE, LCJ_PARAM } lcj_ctx;

/* Where a variable is: in the slots of the function `hops` functions further out. */
typedef struct lcj_ref {
    uint32_t hops, slot;
} lcj_ref;

/* What happens to a slot when a frame is entered. */
typedef enum lcj_load_kind {
    LCJ_LOAD_PARAM, /* nothing: assigned otherwise */
    LCJ_LOAD_CLEAR,
    LCJ_LOAD_ALIAS,   /* starts as the variable of that name further out */
    LCJ_LOAD_CONTEXT, /* starts as what the caller of the render gave */
} lcj_load_kind;
typedef struct lcj_load {
    lcj_load_kind kind;
    uint32_t slot;
    lcj_ref from;     /* ALIAS */
    uint32_t context; /* CONTEXT: index in the template's names */
} lcj_load;

typedef struct lcj_frame {
    lcj_load *loads;
    uint32_t n_loads;
} lcj_frame;

typedef struct lcj_func {
    uint32_t n_slots;
    bool uses_caller, uses_kwargs, uses_varargs;
    lcj_ref caller, kwargs, varargs;
} lcj_func;

/* Filled by jinja_scope.c for statements with variables of their own. */
typedef struct lcj_scope {
    lcj_frame frame, orelse, test; /* orelse and test: of loops */
    lcj_func *func;                /* the function that the node is, or NULL */
    bool has_loop;                 /* the body uses `loop` */
    lcj_ref loop;
    lcj_node *test_target; /* the loop's target in the test's frame */
} lcj_scope;

typedef struct lcj_kwnode {
    lcj_str key;
    lcj_node *value;
} lcj_kwnode;

typedef struct lcj_args {
    lcj_node **pos;
    uint32_t n_pos;
    lcj_kwnode *kw;
    uint32_t n_kw;
    lcj_node *star, *star2; /* *args and **kwargs or NULL */
} lcj_args;

typedef struct lcj_nodes {
    lcj_node **list;
    uint32_t len;
} lcj_nodes;

struct lcj_node {
    uint8_t kind, op;
    uint16_t depth; /* 1 + the largest of its expressions */
    uint32_t line;
    lcj_str name;
    lcj_ref ref;
    lcj_val value;
    lcj_node *a, *b, *c;
    lcj_nodes items, more, body, orelse;
    lcj_args *args;
    const lcj_def *def;
    lcj_scope *scope;
};

struct lc_jinja {
    lc_arena *arena;
    char *name;
    lcj_nodes body;
    lcj_scope root;
    lcj_str *names; /* that the template asks the context for */
    uint32_t n_names;
    lc_buf literals;
};

/* ---- compiling ---- */

typedef enum lcj_tok {
    LCJ_T_EOF,
    LCJ_T_DATA,
    LCJ_T_VAR_BEGIN,
    LCJ_T_VAR_END,
    LCJ_T_BLOCK_BEGIN,
    LCJ_T_BLOCK_END,
    LCJ_T_NAME,
    LCJ_T_STRING,
    LCJ_T_INTEGER,
    LCJ_T_FLOAT,
    LCJ_T_OP, /* op: the character, or a two-character code, see LCJ_OP2 */
} lcj_tok;
#define LCJ_OP2(a, b) ((uint16_t)((a) << 8 | (b)))

typedef struct lcj_token {
    lcj_tok type;
    uint16_t op;
    uint32_t line;
    lcj_str text; /* data and strings: the value */
    lcj_val value;
} lcj_token;

typedef struct lcj_lexer {
    const char *src;
    size_t len, pos;
    uint32_t line;
    int state; /* see jinja_lex.c */
    uint32_t n_open;
    char open[LCJ_NEST]; /* closers that are awaited */
} lcj_lexer;

/* A compilation. A failure is stored once, in fault. */
typedef struct lcj_comp {
    lc_arena *arena;
    lcj_lexer lex;
    lcj_token tok, ahead;
    bool has_ahead;
    uint32_t nest, blocks, loops; /* expressions, statements and loops around */
    lc_jinja *tmpl;
    lc_jinja_fault *fault;
} lcj_comp;

bool lcj_comp_fail(lcj_comp *comp, lc_jinja_kind kind, uint32_t line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void *lcj_comp_alloc(lcj_comp *comp, size_t size); /* zeroed; NULL after a stored failure */

bool lcj_lex_next(lcj_comp *comp, lcj_token *out);
bool lcj_unescape(lcj_comp *comp, lcj_str raw, uint32_t line, lcj_str *out);

/* Token stream and small helpers (jinja_parse.c). */
bool lcj_advance(lcj_comp *comp);
bool lcj_peek(lcj_comp *comp, lcj_token *out);
bool lcj_is_op(const lcj_comp *comp, uint16_t op);
bool lcj_is_name(const lcj_comp *comp, const char *name);
bool lcj_expect_op(lcj_comp *comp, uint16_t op);
bool lcj_unexpected(lcj_comp *comp);
bool lcj_enter(lcj_comp *comp);
lcj_node *lcj_node_new(lcj_comp *comp, lcj_kind kind, uint32_t line);
bool lcj_nodes_push(lcj_comp *comp, lcj_nodes *list, lcj_node *node);
bool lcj_node_deepen(lcj_comp *comp, lcj_node *node, const lcj_node *child);
bool lcj_keep_literal(lcj_comp *comp, lcj_str text);

/* Expressions (jinja_expr.c). */
typedef enum lcj_tuple_mode {
    LCJ_TUPLE_FULL,
    LCJ_TUPLE_PAREN,  /* in parentheses: may be empty */
    LCJ_TUPLE_NOCOND, /* no a if b else c */
    LCJ_TUPLE_TARGET, /* names only */
    LCJ_TUPLE_TARGET_NS,
} lcj_tuple_mode;
lcj_node *lcj_parse_expression(lcj_comp *comp);
lcj_node *lcj_parse_tuple(lcj_comp *comp, lcj_tuple_mode mode);
lcj_node *lcj_parse_filters(lcj_comp *comp, lcj_node *node, bool start_inline);
lcj_node *lcj_parse_target(lcj_comp *comp, bool with_namespace);
lcj_node *lcj_parse_plain_name(lcj_comp *comp);
bool lcj_parse_signature(lcj_comp *comp, lcj_node *node);

bool lcj_parse_template(lcj_comp *comp);
bool lcj_scope_template(lcj_comp *comp);

/* ---- runtime ---- */

typedef struct lcj_block {
    struct lcj_block *next;
    size_t size, used;
    char data[] __attribute__((aligned(16)));
} lcj_block;

typedef struct lcj_mark {
    lcj_block *small, *large;
    size_t used, position;
    uint32_t serial;
} lcj_mark;

enum { LCJ_GROWING = 8 };

struct lcj_rt {
    const lc_jinja *tmpl;
    const lc_jinja_job *job;
    lcj_block *small, *large; /* newest first; large ones hold one allocation each */
    size_t memory, limit;     /* bytes now allocated, output included */
    size_t position;          /* bytes of the heap that were given out and not released */
    size_t mark_position;     /* of the innermost mark */
    uint64_t pins;            /* something older may now point to something newer */
    struct {
        const char *end, *limit;
        uint32_t serial;
    } growing[LCJ_GROWING]; /* ends of long strings that + and ~ may extend in place */
    uint32_t serial;
    lc_buf out;
    size_t out_limit;
    uint64_t steps; /* that are left */
    uint32_t depth, calls, line;
    lcj_val *names; /* values of tmpl->names */
    lc_jinja_kind kind;
    uint32_t fault_line;
    lc_buf message;
};

/* Stores a failure (the first one counts) and returns false. */
bool lcj_fail(lcj_rt *rt, lc_jinja_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool lcj_limit(lcj_rt *rt, const char *what);
bool lcj_unsupported(lcj_rt *rt, const char *what);

static inline bool lcj_tick(lcj_rt *rt, uint64_t n) {
    if (rt->steps < n) return lcj_limit(rt, "steps");
    rt->steps -= n;
    return true;
}
/* For bytes that are moved, compared or searched, and for such that are looked at one by one. A
 * step is meant to take some 20 ns whatever it does: tests/unit/test_jinja_limits.c measures that.
 */
static inline bool lcj_tick_bytes(lcj_rt *rt, size_t n) { return lcj_tick(rt, n / 32 + 1); }
static inline bool lcj_tick_chars(lcj_rt *rt, size_t n) { return lcj_tick(rt, n / 4 + 1); }

static inline bool lcj_enter_eval(lcj_rt *rt) {
    if (rt->depth >= LCJ_DEPTH) return lcj_limit(rt, "nesting");
    rt->depth++;
    return lcj_tick(rt, 1);
}

/* 16-byte aligned, contents undefined. */
void *lcj_alloc(lcj_rt *rt, size_t size);
/* Everything allocated since the mark goes, unless something was pinned (rt->pins moved). */
lcj_mark lcj_heap_mark(lcj_rt *rt);
void lcj_heap_release(lcj_rt *rt, const lcj_mark *mark);
void lcj_heap_free(lcj_rt *rt);
/* An object born at `born` is about to point to newer memory. */
static inline void lcj_pin(lcj_rt *rt, size_t born) {
    if (born <= rt->mark_position) rt->pins++;
}

/* The output is also where strings are built: remember rt->out.len, put, take. */
bool lcj_put(lcj_rt *rt, const char *bytes, size_t len);
bool lcj_putc(lcj_rt *rt, char c);
bool lcj_put_code(lcj_rt *rt, uint32_t code);
bool lcj_put_repeat(lcj_rt *rt, const char *bytes, size_t len, int64_t count);
bool lcj_put_escaped(lcj_rt *rt, lcj_val string); /* & < > ' " as HTML entities */
bool lcj_take(lcj_rt *rt, size_t start, lcj_val *out);

/* values (jinja_value.c) */
static inline lcj_val lcj_none(void) { return (lcj_val){.type = LCJ_NONE}; }
static inline lcj_val lcj_missing(void) { return (lcj_val){.type = LCJ_MISSING}; }
static inline lcj_val lcj_bool(bool b) { return (lcj_val){.type = LCJ_BOOL, .u.b = b}; }
static inline lcj_val lcj_int(int64_t i) { return (lcj_val){.type = LCJ_INT, .u.i = i}; }
static inline lcj_val lcj_float(double f) { return (lcj_val){.type = LCJ_FLOAT, .u.f = f}; }
lcj_val lcj_string(const char *s, size_t len); /* looks for ASCII */
static inline lcj_val lcj_text(lcj_str s) { return lcj_string(s.s, s.len); }
static inline lcj_str lcj_bytes(lcj_val v) { return (lcj_str){v.u.s, v.len}; }
/* A part of a string. */
static inline lcj_val lcj_part(lcj_val v, size_t from, size_t len) {
    v.u.s += from;
    v.len = (uint32_t)len;
    return v;
}
static inline bool lcj_is_string(lcj_val v) { return v.type == LCJ_STRING; }
static inline bool lcj_is_undefined(lcj_val v) { return v.type == LCJ_UNDEFINED; }
static inline bool lcj_is_seq(lcj_val v) { return v.type == LCJ_LIST || v.type == LCJ_TUPLE; }
static inline bool lcj_is_number(lcj_val v) { return v.type >= LCJ_BOOL && v.type <= LCJ_FLOAT; }
/* int, bool or an integer beyond int64_t */
static inline bool lcj_is_integer(lcj_val v) { return v.type >= LCJ_BOOL && v.type <= LCJ_BIG; }
static inline int64_t lcj_as_int(lcj_val v) { return v.type == LCJ_BOOL ? v.u.b : v.u.i; }
lcj_val lcj_undefined_name(lcj_str name);
lcj_val lcj_undefined_hint(const char *literal);
bool lcj_undefined_item(lcj_rt *rt, lcj_val owner, lcj_val key, lcj_val *out);
bool lcj_fail_undefined(lcj_rt *rt, lcj_val undefined);
const char *lcj_type_name(lcj_val v); /* "str", "NoneType", "dict" */

bool lcj_list_new(lcj_rt *rt, lcj_type type, const lcj_val *items, size_t len, lcj_val *out);
/* An array that grows while a list is built. */
typedef struct lcj_items {
    lcj_array *array;
    uint32_t len;
} lcj_items;
bool lcj_items_push(lcj_rt *rt, lcj_items *items, lcj_val v);
bool lcj_items_list(lcj_rt *rt, lcj_items *items, lcj_type type, lcj_val *out);
bool lcj_list_concat(lcj_rt *rt, lcj_val a, lcj_val b, lcj_val *out);

bool lcj_dict_new(lcj_rt *rt, uint32_t cap, lcj_val *out);
bool lcj_dict_set(lcj_rt *rt, lcj_dict *dict, lcj_val key, lcj_val value);
/* *out is LCJ_MISSING where the key is absent. Fails for keys that cannot be hashed. */
bool lcj_dict_get(lcj_rt *rt, const lcj_dict *dict, lcj_val key, lcj_val *out);
bool lcj_dict_get_str(lcj_rt *rt, const lcj_dict *dict, lcj_str key, lcj_val *out);

bool lcj_hashable(lcj_val v);
bool lcj_truth(lcj_rt *rt, lcj_val v, bool *out);
bool lcj_length(lcj_rt *rt, lcj_val v, int64_t *out);
bool lcj_equal(lcj_rt *rt, lcj_val a, lcj_val b, bool *out);
bool lcj_identical(lcj_val a, lcj_val b);
bool lcj_compare(lcj_rt *rt, lcj_op op, lcj_val a, lcj_val b, bool *out);
bool lcj_contains(lcj_rt *rt, lcj_val container, lcj_val item, bool *out);
/* Stable merge sort by keys[i]; items move along. */
bool lcj_sort(lcj_rt *rt, lcj_val *items, lcj_val *keys, size_t len, bool reverse);

/* numbers (jinja_number.c) */
bool lcj_arith(lcj_rt *rt, lcj_op op, lcj_val a, lcj_val b, lcj_val *out);
bool lcj_negate(lcj_rt *rt, lcj_val a, bool minus, lcj_val *out);
int lcj_number_cmp(lcj_val a, lcj_val b, bool *unordered);
double lcj_as_double(lcj_val v); /* of a number */
size_t lcj_float_repr(double f, char out[32]);
bool lcj_put_float(lcj_rt *rt, double f);
bool lcj_parse_int(lcj_rt *rt, lcj_str text, int64_t base, bool *ok, int64_t *out);
bool lcj_parse_float(lcj_rt *rt, lcj_str text, bool *ok, double *out);
/* An int or bool argument, "what" for the message; None and others fail with TypeError. */
bool lcj_index(lcj_rt *rt, lcj_val v, int64_t *out);
bool lcj_float_to_int(lcj_rt *rt, double f, lcj_val *out);
/* f to `digits` after the point as Python's round; false only with a stored failure. */
bool lcj_round(lcj_rt *rt, double f, int64_t digits, double *out);

/* iteration (jinja_seq.c) */
bool lcj_iter_open(lcj_rt *rt, lcj_val src, lcj_iter *it);
/* 1: *out is the next item, 0: the end, -1: failed. */
int lcj_iter_next(lcj_rt *rt, lcj_iter *it, lcj_val *out);
bool lcj_iterable(lcj_val v);
bool lcj_to_list(lcj_rt *rt, lcj_val src, lcj_type type, lcj_val *out);
bool lcj_reversed(lcj_rt *rt, lcj_val src, bool *ok, lcj_val *out);
bool lcj_iter_value(lcj_rt *rt, lcj_iter_kind kind, lcj_val src, lcj_gen *gen, lcj_val *out);
int lcj_gen_next(lcj_rt *rt, lcj_iter *it, lcj_val *out); /* of generator filters (jinja_gen.c) */

/* text (jinja_text.c) */
bool lcj_is_space(uint32_t code); /* Python's str.isspace */
/* The character at s, which is valid UTF-8; *len = its bytes. */
uint32_t lcj_char_at(const char *s, size_t *len);
size_t lcj_count_chars(lcj_val s);
bool lcj_char_count(lcj_rt *rt, lcj_val s, size_t *out); /* counted as work */
size_t lcj_char_offset(lcj_val s, size_t chars);         /* bytes of the first `chars` characters */
/* chars: a string, or LCJ_NONE for white space. */
bool lcj_strip(lcj_rt *rt, lcj_val s, lcj_val chars, bool left, bool right, lcj_val *out);
/* Byte offset of the first needle from byte `from` on, or of the last one; -1 without one. */
int64_t lcj_find(lcj_val s, lcj_val needle, size_t from);
bool lcj_rfind(lcj_rt *rt, lcj_val s, lcj_val needle, int64_t *out);
/* The next line of s from *pos as splitlines sees it: [start, *end), *pos behind its ending. */
bool lcj_next_line(lcj_val s, size_t *pos, size_t *start, size_t *end);
bool lcj_concat(lcj_rt *rt, lcj_val a, lcj_val b, lcj_val *out); /* strings, flags of a */
bool lcj_escape(lcj_rt *rt, lcj_val v, lcj_val *out);            /* markupsafe.escape */
bool lcj_replace(lcj_rt *rt, lcj_val s, lcj_val old, lcj_val fresh, int64_t count, lcj_val *out);

/* case and character properties (jinja_case.c) */
bool lcj_is_word(uint32_t code); /* \w of Python's re */
bool lcj_is_mark(uint32_t code); /* Mn, Mc: may follow in an identifier */
bool lcj_is_printable(uint32_t code);
bool lcj_is_lower(uint32_t code); /* the properties Lowercase and Uppercase */
bool lcj_is_upper(uint32_t code);
bool lcj_is_cased(uint32_t code); /* either of them, or a title case letter */
bool lcj_is_alpha(uint32_t code);
bool lcj_is_decimal(uint32_t code);
bool lcj_is_digit(uint32_t code);
bool lcj_is_numeric(uint32_t code); /* by category: ideographs that are numbers are missing */
typedef enum lcj_case {
    LCJ_LOWER,
    LCJ_UPPER,
    LCJ_TITLE,      /* str.title */
    LCJ_CAPITALIZE, /* str.capitalize */
    LCJ_SWAP,
    LCJ_FOLD,
} lcj_case;
bool lcj_recase(lcj_rt *rt, lcj_val s, lcj_case mode, lcj_val *out);
bool lcj_put_recased(lcj_rt *rt, lcj_val s, lcj_case mode);

/* printing (jinja_print.c) */
bool lcj_put_str(lcj_rt *rt, lcj_val v);                /* str(v) */
bool lcj_put_repr(lcj_rt *rt, lcj_val v);               /* repr(v) */
bool lcj_to_str(lcj_rt *rt, lcj_val v, lcj_val *out);   /* str(v), never marked safe */
bool lcj_soft_str(lcj_rt *rt, lcj_val v, lcj_val *out); /* a string as it is, else str(v) */
bool lcj_put_int(lcj_rt *rt, lcj_val v);

/* access (jinja_access.c) */
bool lcj_getattr(lcj_rt *rt, lcj_val obj, lcj_str name, lcj_val *out);
/* The attribute alone, without keys; *out is LCJ_MISSING where there is none. */
bool lcj_attribute(lcj_rt *rt, lcj_val obj, lcj_str name, lcj_val *out);
bool lcj_getitem(lcj_rt *rt, lcj_val obj, lcj_val key, lcj_val *out);
bool lcj_slice(lcj_rt *rt, lcj_val obj, const lcj_val bounds[3], lcj_val *out);
/* A filter's attribute argument "a.b.0" as obj["a"]["b"][0]; its parts prepared once. fallback (or
 * LCJ_NONE) stands for what is undefined on the way. */
bool lcj_path_new(lcj_rt *rt, lcj_val attribute, lcj_val **parts, uint32_t *len);
bool lcj_path_get(lcj_rt *rt, const lcj_val *parts, uint32_t len, lcj_val item, lcj_val fallback,
                  lcj_val *out);
/* The method `name` of obj's type, NULL if there is none. */
const lcj_def *lcj_find_method(lcj_val obj, lcj_str name);
extern const lcj_def lcj_str_methods[], lcj_dict_methods[], lcj_list_methods[],
    lcj_cycler_methods[], lcj_dict_attributes[];

/* string methods that others use too (jinja_methods.c, jinja_methods_pad.c) */
bool lcj_str_is_case(lcj_rt *rt, lcj_val s, bool upper, bool *out);
bool lcj_center(lcj_rt *rt, lcj_val s, int64_t width, lcj_val fill, char how, lcj_val *out);
bool lcj_str_pad(lcj_rt *rt, lcj_call *call, lcj_val *out);
bool lcj_str_zfill(lcj_rt *rt, lcj_call *call, lcj_val *out);
bool lcj_str_expandtabs(lcj_rt *rt, lcj_call *call, lcj_val *out);

/* calls (jinja_call.c) */
bool lcj_bind(lcj_rt *rt, lcj_call *call);
bool lcj_call_def(lcj_rt *rt, lcj_call *call, lcj_val *out); /* binds, then calls def->fn */
bool lcj_call_value(lcj_rt *rt, lcj_val callee, lcj_call *call, lcj_val *out);
bool lcj_call_macro(lcj_rt *rt, const lcj_macro *macro, lcj_call *call, lcj_val *out);
const lcj_def *lcj_find_def(const lcj_def *table, lcj_str name);
extern const lcj_def lcj_filters[], lcj_seq_filters[], lcj_text_filters[], lcj_tests[],
    lcj_functions[];
const lcj_def *lcj_find_filter(lcj_str name);
const lcj_def *lcj_find_test(lcj_str name);

/* "%s" % args and "{}".format(args) (jinja_format.c, jinja_strformat.c) */
bool lcj_percent(lcj_rt *rt, lcj_val format, lcj_val args, lcj_val *out);
bool lcj_str_format(lcj_rt *rt, lcj_call *call, lcj_val *out);
/* A number by a specification; used by both. */
typedef struct lcj_spec {
    char type, align,
        sign; /* type 0: none given; align '<', '>', '^', '=' or 0; sign '+', '-', ' ' or 0 */
    bool alt, zero;
    char group; /* ',' or '_' or 0 */
    uint32_t fill;
    int64_t width, precision; /* precision -1 = none */
} lcj_spec;
bool lcj_put_number(lcj_rt *rt, lcj_val v, const lcj_spec *spec);
bool lcj_put_padded(lcj_rt *rt, lcj_val s, const lcj_spec *spec, char align);

/* running (jinja_eval.c, jinja_exec.c) */
bool lcj_eval(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out);
bool lcj_eval_call(lcj_rt *rt, lcj_act *act, const lcj_node *node, const lcj_val *caller,
                   lcj_val *out);
bool lcj_eval_filter(lcj_rt *rt, lcj_act *act, const lcj_node *node, const lcj_val *block_text,
                     lcj_val *out);
static inline lcj_val *lcj_slot(lcj_act *act, lcj_ref ref) {
    for (uint32_t i = 0; i < ref.hops; i++) act = act->parent;
    return &act->slots[ref.slot];
}
bool lcj_assign(lcj_rt *rt, lcj_act *act, const lcj_node *target, lcj_val value);
typedef enum lcj_flow { LCJ_GO_ON, LCJ_GO_BREAK, LCJ_GO_CONTINUE, LCJ_GO_FAIL } lcj_flow;
lcj_flow lcj_exec(lcj_rt *rt, lcj_act *act, const lcj_nodes *body);
bool lcj_frame_enter(lcj_rt *rt, lcj_act *act, const lcj_frame *frame);
lcj_act *lcj_act_new(lcj_rt *rt, lcj_act *parent, const lcj_func *func);
bool lcj_loop_recurse(lcj_rt *rt, lcj_loop *loop, lcj_val items, lcj_val *out);
bool lcj_loop_test(lcj_rt *rt, lcj_iter *it, lcj_val *item, bool *keep);
bool lcj_loop_attr(lcj_rt *rt, lcj_loop *loop, lcj_str name, lcj_val *out); /* MISSING: none */
bool lcj_loop_length(lcj_rt *rt, lcj_loop *loop, int64_t *out);

/* tojson, the conversion of JSON values */
bool lcj_tojson(lcj_rt *rt, lcj_call *call, lcj_val *out);
bool lcj_from_json(lcj_rt *rt, struct json_object *json, uint32_t depth, lcj_val *out);

#endif
