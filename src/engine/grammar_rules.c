/* grammar_rules.c: building and flattening; see grammar_rules.h. */
#include "engine/grammar_rules.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- the builder ---- */

/* Of this thread: a busy machine must not make a schema fail. */
static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint32_t lc_rules_fail(lc_rules *r, int status, const char *fmt, ...) {
    va_list args;
    if (r->status != LC_OK) return 0;
    r->status = status;
    if (!r->err) return 0;
    r->err->code = status;
    va_start(args, fmt);
    vsnprintf(r->err->text, sizeof r->err->text, fmt, args);
    va_end(args);
    return 0;
}

bool lc_rules_in_time(lc_rules *r) {
    if (r->status == LC_OK && cpu_ns() > r->deadline_ns)
        lc_rules_fail(r, LC_ELIMIT, "grammar: compilation takes too long");
    return r->status == LC_OK;
}

static size_t bytes_of(const lc_rules *r) {
    return r->cap_exprs * sizeof *r->exprs + r->cap_sets * sizeof *r->sets +
           r->cap_rules * sizeof *r->rules + r->cap_elements * sizeof *r->elements +
           r->cap_starts * sizeof *r->starts;
}

/* Room for one more item of a list; NULL after a failure. */
static bool grow(lc_rules *r, void **list, size_t *cap, size_t n, size_t size) {
    if (r->status != LC_OK) return false;
    if (n < *cap) return true;
    size_t more = *cap ? 2 * *cap : 64;
    if (bytes_of(r) + (more - *cap) * size > r->limit)
        return lc_rules_fail(r, LC_ELIMIT, "grammar: more than %zu MiB of rules", r->limit >> 20);
    if (!lc_rules_in_time(r)) return false;
    void *grown = lc_realloc(*list, more, size);
    if (!grown) return lc_rules_fail(r, LC_ENOMEM, "grammar: out of memory");
    *list = grown;
    *cap = more;
    return true;
}

#define GROW(r, list)                                                                              \
    grow(r, (void **)&(r)->list, &(r)->cap_##list, (r)->n_##list, sizeof *(r)->list)

static uint32_t add_expr(lc_rules *r, lc_expr e) {
    if (!GROW(r, exprs)) return 0;
    r->exprs[r->n_exprs] = e;
    return (uint32_t)r->n_exprs++;
}

int lc_rules_init(lc_rules *r, size_t limit, double seconds, lc_err *err) {
    *r =
        (lc_rules){.limit = limit, .deadline_ns = cpu_ns() + (uint64_t)(seconds * 1e9), .err = err};
    add_expr(r, (lc_expr){LC_EXPR_EMPTY, 0, 0, 0, 0});
    add_expr(r, (lc_expr){LC_EXPR_NEVER, 0, 0, 0, 0});
    return r->status;
}

void lc_rules_free(lc_rules *r) {
    lc_free(r->exprs);
    lc_free(r->sets);
    lc_free(r->rules);
    lc_free(r->elements);
    lc_free(r->starts);
    *r = (lc_rules){0};
}

uint32_t lc_expr_never(lc_rules *r) { return r->status == LC_OK; /* the second one: see init */ }

uint32_t lc_expr_set(lc_rules *r, const lc_byte_set *set) {
    if (!(set->bits[0] | set->bits[1] | set->bits[2] | set->bits[3])) return lc_expr_never(r);
    if (!GROW(r, sets)) return 0;
    r->sets[r->n_sets] = *set;
    return add_expr(r, (lc_expr){LC_EXPR_BYTES, (uint32_t)r->n_sets++, 0, 0, 0});
}

uint32_t lc_expr_bytes(lc_rules *r, unsigned low, unsigned high) {
    lc_byte_set set = {{0}};
    for (unsigned b = low; b <= high; b++) set.bits[b / 64] |= (uint64_t)1 << b % 64;
    return lc_expr_set(r, &set);
}

uint32_t lc_expr_text(lc_rules *r, const char *text, size_t len) {
    uint32_t e = 0;
    for (size_t i = len; i-- > 0;) {
        unsigned byte = (unsigned char)text[i];
        e = lc_expr_seq(r, lc_expr_bytes(r, byte, byte), e);
    }
    return e;
}

uint32_t lc_expr_token(lc_rules *r, int32_t id) {
    return add_expr(r, (lc_expr){LC_EXPR_TOKEN, (uint32_t)id, 0, 0, 0});
}

static bool is_kind(const lc_rules *r, uint32_t e, lc_expr_kind kind) {
    return r->status == LC_OK && r->exprs[e].kind == kind;
}

uint32_t lc_expr_seq(lc_rules *r, uint32_t a, uint32_t b) {
    if (!a) return b;
    if (!b) return a;
    if (is_kind(r, a, LC_EXPR_NEVER) || is_kind(r, b, LC_EXPR_NEVER)) return lc_expr_never(r);
    return add_expr(r, (lc_expr){LC_EXPR_SEQ, a, b, 0, 0});
}

uint32_t lc_expr_alt(lc_rules *r, uint32_t a, uint32_t b) {
    if (is_kind(r, a, LC_EXPR_NEVER)) return b;
    if (is_kind(r, b, LC_EXPR_NEVER)) return a;
    return add_expr(r, (lc_expr){LC_EXPR_ALT, a, b, 0, 0});
}

uint32_t lc_expr_repeat(lc_rules *r, uint32_t a, uint32_t min, uint32_t max) {
    if (!a || !max) return 0;
    if (is_kind(r, a, LC_EXPR_NEVER)) return min ? a : 0;
    if (min == 1 && max == 1) return a;
    if (min == 0 && max == 1) return lc_expr_optional(r, a);
    return add_expr(r, (lc_expr){LC_EXPR_REPEAT, a, 0, min, max});
}

uint32_t lc_expr_optional(lc_rules *r, uint32_t a) { return a ? lc_expr_alt(r, a, 0) : 0; }

uint32_t lc_expr_rule(lc_rules *r, uint32_t rule) {
    return add_expr(r, (lc_expr){LC_EXPR_RULE, rule, 0, 0, 0});
}

uint32_t lc_rule_new(lc_rules *r) {
    if (!GROW(r, rules)) return 0;
    r->rules[r->n_rules] = (lc_rule){.expr = 1};
    return (uint32_t)r->n_rules++;
}

void lc_rule_set(lc_rules *r, uint32_t rule, uint32_t expr) {
    if (r->status == LC_OK) r->rules[rule].expr = expr;
}

/* ---- flattening ---- */

static void put_element(lc_rules *r, lc_element e) {
    if (GROW(r, elements)) r->elements[r->n_elements++] = e;
}

/* A rule for an expression inside a sequence; it is flattened when its turn comes. */
static uint32_t inner_rule(lc_rules *r, uint32_t expr) {
    uint32_t rule = lc_rule_new(r);
    lc_rule_set(r, rule, expr);
    return rule;
}

/* Sequences lean to the right, so that texts of any length need no depth. */
static void put_sequence(lc_rules *r, uint32_t e, int depth) {
    if (depth > 4096) {
        lc_rules_fail(r, LC_ELIMIT, "grammar: nested too deep");
        return;
    }
    for (; r->status == LC_OK && is_kind(r, e, LC_EXPR_SEQ); e = r->exprs[e].b)
        put_sequence(r, r->exprs[e].a, depth + 1);
    if (r->status != LC_OK) return;
    lc_expr x = r->exprs[e];
    switch (x.kind) {
    case LC_EXPR_BYTES: put_element(r, (lc_element){LC_ELEMENT_BYTES, x.a, 0, 0, 0}); break;
    case LC_EXPR_TOKEN: put_element(r, (lc_element){LC_ELEMENT_TOKEN, x.a, 0, 0, 0}); break;
    case LC_EXPR_RULE: put_element(r, (lc_element){LC_ELEMENT_RULE, x.a, 0, 0, 0}); break;
    case LC_EXPR_ALT:
        put_element(r, (lc_element){LC_ELEMENT_RULE, inner_rule(r, e), 0, 0, 0});
        break;
    case LC_EXPR_REPEAT:
        put_element(
            r, (lc_element){LC_ELEMENT_REPEAT,
                            is_kind(r, x.a, LC_EXPR_RULE) ? r->exprs[x.a].a : inner_rule(r, x.a),
                            x.min, x.max, 0});
        break;
    case LC_EXPR_EMPTY:
    case LC_EXPR_NEVER:
    case LC_EXPR_SEQ: break;
    }
}

static void put_alternatives(lc_rules *r, uint32_t e, int depth) {
    if (depth > 4096) {
        lc_rules_fail(r, LC_ELIMIT, "grammar: nested too deep");
        return;
    }
    for (; r->status == LC_OK && is_kind(r, e, LC_EXPR_ALT); e = r->exprs[e].a)
        put_alternatives(r, r->exprs[e].b, depth + 1);
    if (r->status != LC_OK || is_kind(r, e, LC_EXPR_NEVER) || !GROW(r, starts)) return;
    r->starts[r->n_starts++] = (uint32_t)r->n_elements;
    put_sequence(r, e, 0);
    put_element(r, (lc_element){LC_ELEMENT_END, 0, 0, 0, 0});
}

static uint64_t least_of(const lc_rules *r, const lc_element *e) {
    switch (e->kind) {
    case LC_ELEMENT_BYTES:
    case LC_ELEMENT_TOKEN: return 1;
    case LC_ELEMENT_RULE: return r->rules[e->a].least;
    case LC_ELEMENT_REPEAT: return e->min ? (uint64_t)e->min * r->rules[e->a].least : 0;
    case LC_ELEMENT_END: break;
    }
    return 0;
}

static uint32_t clamp(uint64_t n) { return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX; }

/* Sums of an alternative from its end. */
static uint32_t measure(lc_rules *r, uint32_t start) {
    uint32_t end = start;
    uint64_t rest = 0;
    while (r->elements[end].kind != LC_ELEMENT_END) end++;
    r->elements[end].rest = 0;
    for (uint32_t i = end; i-- > start;) {
        rest += least_of(r, &r->elements[i]);
        r->elements[i].rest = clamp(rest);
        rest = r->elements[i].rest == UINT32_MAX ? UINT32_MAX : rest;
    }
    return r->elements[start].rest;
}

static bool measure_rule(lc_rules *r, lc_rule *rule) {
    bool changed = false;
    for (uint32_t k = 0; k < rule->n; k++) {
        uint32_t least = measure(r, r->starts[rule->first + k]);
        if (least >= rule->least) continue;
        rule->least = least;
        changed = true;
    }
    return changed;
}

/* Shortest lengths: down from "never" until nothing changes; up and down in turn, since long chains
 * of rules run either way. */
static void measure_all(lc_rules *r) {
    bool changed = true;
    for (size_t i = 0; i < r->n_rules; i++) r->rules[i].least = UINT32_MAX;
    for (bool up = false; changed && lc_rules_in_time(r); up = !up) {
        changed = false;
        for (size_t i = 0; i < r->n_rules; i++)
            changed |= measure_rule(r, &r->rules[up ? i : r->n_rules - 1 - i]);
    }
}

/* How much a rule opens before any byte. */
typedef struct opening {
    bool begun, done;
    uint32_t k, at; /* the next alternative and element to look at */
    uint64_t ways;
} opening;

enum { MOST_WAYS = 1 << 16 };

/* One step on rule `rule`: a rule that must be looked at first, or UINT32_MAX. */
static uint32_t open_rule(lc_rules *r, uint32_t rule, opening *all) {
    opening *o = &all[rule];
    for (; o->k < r->rules[rule].n; o->k++, o->at = 0) {
        for (;; o->at++) {
            const lc_element *e = &r->elements[r->starts[r->rules[rule].first + o->k] + o->at];
            bool inner = e->kind == LC_ELEMENT_RULE || e->kind == LC_ELEMENT_REPEAT;
            if (inner && !all[e->a].done) return e->a;
            o->ways += 1 + (inner ? all[e->a].ways : 0);
            if (o->ways > MOST_WAYS) o->ways = MOST_WAYS + 1;
            if (!inner || least_of(r, e) > 0) break;
        }
    }
    o->done = true;
    return UINT32_MAX;
}

/* Whether a rule can reach itself before any byte, and whether one opens too many ways. */
static void check_openings(lc_rules *r) {
    opening *all = lc_calloc(r->n_rules, sizeof *all);
    uint32_t *stack = lc_calloc(r->n_rules, sizeof *stack);
    if (!all || !stack) lc_rules_fail(r, LC_ENOMEM, "grammar: out of memory");
    for (uint32_t i = 0; all && stack && i < r->n_rules && lc_rules_in_time(r); i++) {
        size_t depth = 0;
        if (!all[i].done) stack[depth++] = i;
        while (depth && r->status == LC_OK) {
            uint32_t top = stack[depth - 1], first;
            all[top].begun = true;
            first = open_rule(r, top, all);
            if (first == UINT32_MAX)
                depth--;
            else if (all[first].begun)
                lc_rules_fail(r, LC_EUNSUPPORTED, "grammar: a definition begins with itself");
            else
                stack[depth++] = first;
        }
        if (r->status == LC_OK && all[i].ways > MOST_WAYS)
            lc_rules_fail(r, LC_ELIMIT, "grammar: more than %d ways to begin a part", MOST_WAYS);
    }
    lc_free(all);
    lc_free(stack);
}

/* What may be empty can be repeated without a limit only: then all the empty ones are the same. */
static void check_repeats(lc_rules *r) {
    for (size_t i = 0; i < r->n_elements; i++) {
        const lc_element *e = &r->elements[i];
        if (e->kind == LC_ELEMENT_REPEAT && r->rules[e->a].least == 0 &&
            (e->max != LC_RULE_UNBOUNDED || e->min > 1))
            lc_rules_fail(r, LC_EUNSUPPORTED, "grammar: a counted part may be empty");
    }
}

int lc_rules_flatten(lc_rules *r) {
    for (size_t i = 0; i < r->n_rules && r->status == LC_OK;
         i++) { /* inner rules join on the way */
        uint32_t first = (uint32_t)r->n_starts;
        put_alternatives(r, r->rules[i].expr, 0);
        r->rules[i].first = first;
        r->rules[i].n = (uint32_t)r->n_starts - first;
    }
    if (r->status == LC_OK) measure_all(r);
    if (r->status != LC_OK) return r->status;
    if (!r->n_rules || r->rules[0].least == UINT32_MAX)
        lc_rules_fail(r, LC_EINVAL, "grammar: no answer can satisfy it");
    check_repeats(r);
    if (r->status == LC_OK) check_openings(r);
    return r->status;
}

/* ---- characters ---- */

static bool all_are(const uint8_t *bytes, int n, uint8_t value) {
    while (n > 0 && bytes[n - 1] == value) n--;
    return n == 0;
}

/* UTF-8 of n bytes from low to high: its order is that of the code points. */
static uint32_t coded_range(lc_rules *r, const uint8_t *low, const uint8_t *high, int n) {
    static const uint8_t least[4] = {0x80, 0x80, 0x80, 0x80}, most[4] = {0xBF, 0xBF, 0xBF, 0xBF};
    uint32_t out = lc_expr_never(r);
    unsigned l = *low, h = *high;
    if (n == 1) return lc_expr_bytes(r, l, h);
    if (l == h)
        return lc_expr_seq(r, lc_expr_bytes(r, l, l), coded_range(r, low + 1, high + 1, n - 1));
    if (!all_are(low + 1, n - 1, 0x80)) {
        out = lc_expr_seq(r, lc_expr_bytes(r, l, l), coded_range(r, low + 1, most, n - 1));
        l++;
    }
    if (!all_are(high + 1, n - 1, 0xBF)) {
        uint32_t e = lc_expr_seq(r, lc_expr_bytes(r, h, h), coded_range(r, least, high + 1, n - 1));
        out = lc_expr_alt(r, out, e);
        h--;
    }
    if (l > h) return out;
    uint32_t e = lc_expr_bytes(r, l, h);
    for (int i = 1; i < n; i++) e = lc_expr_seq(r, e, lc_expr_bytes(r, 0x80, 0xBF));
    return lc_expr_alt(r, out, e);
}

/* Cut where the length changes, and around surrogates, which UTF-8 hasn't. */
static uint32_t utf8_range(lc_rules *r, uint32_t low, uint32_t high) {
    static const lc_range parts[] = {
        {0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};
    uint32_t out = lc_expr_never(r);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        uint32_t l = low > parts[i].low ? low : parts[i].low;
        uint32_t h = high < parts[i].high ? high : parts[i].high;
        char first[4], last[4];
        if (l > h) continue;
        int n = (int)lc_utf8_encode(l, first);
        lc_utf8_encode(h, last);
        out = lc_expr_alt(r, out, coded_range(r, (const uint8_t *)first, (const uint8_t *)last, n));
    }
    return out;
}

/* How JSON writes a character that can't stand in a string as it is. */
static uint32_t escape(lc_rules *r, uint32_t code) {
    static const char plain[] = "\"\\\b\f\n\r\t", written[] = "\"\\bfnrt";
    char text[8];
    const char *at = code ? strchr(plain, (int)code) : NULL;
    int n = at ? snprintf(text, sizeof text, "\\%c", written[at - plain])
               : snprintf(text, sizeof text, "\\u%04x", (unsigned)code);
    return lc_expr_text(r, text, (size_t)n);
}

static bool stands_alone(uint32_t code, lc_text_form form) {
    if (!code || (code == '<' && form != LC_FORM_JSON)) return false;
    return form == LC_FORM_RAW || (code >= 0x20 && code != '"' && code != '\\');
}

/* A character that doesn't stand as it is. U+0000 isn't written at all: too many readers end there,
 * and in keys ours refuses it. */
static uint32_t escaped(lc_rules *r, uint32_t code, lc_text_form form) {
    return !code || form == LC_FORM_RAW ? lc_expr_never(r) : escape(r, code);
}

uint32_t lc_expr_class(lc_rules *r, const lc_range *ranges, size_t n, lc_text_form form) {
    uint32_t out = lc_expr_never(r);
    for (size_t i = 0; i < n && r->status == LC_OK; i++) {
        uint32_t low = ranges[i].low;
        for (uint32_t c = low; c <= ranges[i].high && c < 0x80; c++) { /* exceptions are ASCII */
            if (stands_alone(c, form)) continue;
            if (low < c) out = lc_expr_alt(r, out, utf8_range(r, low, c - 1));
            out = lc_expr_alt(r, out, escaped(r, c, form));
            low = c + 1;
        }
        if (low <= ranges[i].high) out = lc_expr_alt(r, out, utf8_range(r, low, ranges[i].high));
    }
    return out;
}

uint32_t lc_expr_any(lc_rules *r, lc_text_form form) {
    return lc_expr_class(r, &(lc_range){1, 0x10FFFF}, 1, form);
}

uint32_t lc_expr_literal(lc_rules *r, const char *text, size_t len, lc_text_form form) {
    uint32_t e = 0;
    for (size_t i = len; i-- > 0 && r->status == LC_OK;) {
        unsigned char c = (unsigned char)text[i];
        bool alone = c >= 0x80 || stands_alone(c, form);
        e = lc_expr_seq(r, alone ? lc_expr_bytes(r, c, c) : escaped(r, c, form), e);
    }
    return e;
}

/* ---- texts without the beginnings of tags ---- */

typedef struct way {
    unsigned char byte;
    uint32_t to;
} way;

/* A state of such a text, which may end here: n ways (bytes rising), '<' leads to `less`, any other
 * character to less - 1, which is the beginning. A way to 0 is closed. */
static uint32_t state(lc_rules *r, const way *ways, size_t n, uint32_t less, lc_text_form form) {
    lc_range others[4];
    size_t k = 0;
    uint32_t low = 1,
             e = lc_expr_alt(r, 0, lc_expr_seq(r, lc_expr_text(r, "<", 1), lc_expr_rule(r, less)));
    for (unsigned c = 1; c < 0x80; c++) {
        size_t i = 0;
        while (i < n && ways[i].byte != c) i++;
        if (i == n && c != '<') continue;
        if (low < c) others[k++] = (lc_range){low, c - 1};
        low = c + 1;
        if (i == n || !ways[i].to) continue;
        e = lc_expr_alt(r, e, lc_expr_seq(r, lc_expr_bytes(r, c, c), lc_expr_rule(r, ways[i].to)));
    }
    others[k++] = (lc_range){low, 0x10FFFF};
    uint32_t any = lc_expr_seq(r, lc_expr_class(r, others, k, form), lc_expr_rule(r, less - 1));
    return lc_expr_alt(r, e, any);
}

uint32_t lc_expr_untagged(lc_rules *r, lc_text_form form) {
    static const char word[] = "longcat_";
    enum { LENGTH = sizeof word - 1 };
    if (form == LC_FORM_TAGGED) form = LC_FORM_JSON;
    uint32_t first = lc_rule_new(r), less = lc_rule_new(r), seen[LENGTH];
    for (size_t i = 0; i < LENGTH; i++)
        seen[i] = lc_rule_new(r); /* i bytes of it, behind < or </ */
    lc_rule_set(r, first, state(r, NULL, 0, less, form));
    lc_rule_set(r, less, state(r, (way[]){{'/', seen[0]}, {'l', seen[1]}}, 2, less, form));
    for (size_t i = 0; i < LENGTH; i++) {
        const way on = {(unsigned char)word[i], i + 1 < LENGTH ? seen[i + 1] : 0};
        uint32_t e = state(r, &on, 1, less, form);
        lc_rule_set(r, seen[i], e);
    }
    return lc_expr_rule(r, first);
}
