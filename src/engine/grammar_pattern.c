/*
 * grammar_pattern.c: regular expressions of JSON schema (ECMA-262) as grammar expressions: never
 * matched, only generated, so there is no backtracking. What isn't regular (look-around, back
 * references, word boundaries, anchors inside) is refused by name.
 */
#include "engine/grammar_rules.h"

#include "base/err.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_RANGES = 512, MOST_DEPTH = 48, MOST_COUNT = 100000 };

typedef struct parser {
    lc_rules *r;
    const char *at, *end, *place;
    lc_text_form form;
    int depth;
} parser;

typedef struct class_set {
    lc_range list[MOST_RANGES];
    size_t n;
} class_set;

static uint32_t refuse(const parser *p, const char *what) {
    return lc_rules_fail(p->r, LC_EUNSUPPORTED, "%s: pattern: %s", p->place, what);
}

static bool more(const parser *p) { return p->r->status == LC_OK && p->at < p->end; }
static bool sees(const parser *p, char c) { return more(p) && *p->at == c; }

static uint32_t next_code(parser *p) {
    size_t used;
    int32_t code = lc_utf8_decode(p->at, (size_t)(p->end - p->at), &used);
    p->at += used;
    return code < 0 ? LC_REPLACEMENT : (uint32_t)code;
}

/* ---- classes ---- */

static void put_range(const parser *p, class_set *c, uint32_t low, uint32_t high) {
    if (c->n == MOST_RANGES)
        refuse(p, "a class of more than 512 ranges");
    else
        c->list[c->n++] = (lc_range){low, high};
}

static int by_low(const void *a, const void *b) {
    const lc_range *x = a, *y = b;
    return x->low < y->low ? -1 : x->low > y->low;
}

static void normalize(class_set *c) {
    size_t n = 0;
    qsort(c->list, c->n, sizeof *c->list, by_low);
    for (size_t i = 0; i < c->n; i++) {
        lc_range x = c->list[i];
        if (n && x.low <= c->list[n - 1].high + 1) {
            if (x.high > c->list[n - 1].high) c->list[n - 1].high = x.high;
        } else {
            c->list[n++] = x;
        }
    }
    c->n = n;
}

static void negate(const parser *p, class_set *c) {
    class_set out = {.n = 0};
    uint32_t low = 0;
    normalize(c);
    for (size_t i = 0; i < c->n; i++) {
        if (c->list[i].low > low) put_range(p, &out, low, c->list[i].low - 1);
        low = c->list[i].high + 1;
    }
    if (low <= 0x10FFFF) put_range(p, &out, low, 0x10FFFF);
    *c = out;
}

/* \d \w \s and their opposites. false: none of these. */
static bool put_shorthand(const parser *p, class_set *c, char letter) {
    class_set s = {.n = 0};
    switch (letter | 0x20) {
    case 'd': put_range(p, &s, '0', '9'); break;
    case 'w':
        put_range(p, &s, '0', '9');
        put_range(p, &s, 'A', 'Z');
        put_range(p, &s, '_', '_');
        put_range(p, &s, 'a', 'z');
        break;
    case 's':
        put_range(p, &s, '\t', '\r');
        put_range(p, &s, ' ', ' ');
        break;
    default: return false;
    }
    if (letter < 'a') negate(p, &s);
    for (size_t i = 0; i < s.n; i++) put_range(p, c, s.list[i].low, s.list[i].high);
    return true;
}

static uint32_t hex_code(parser *p, size_t n) {
    char text[9] = {0};
    char *end;
    if ((size_t)(p->end - p->at) < n) return refuse(p, "a cut escape");
    memcpy(text, p->at, n);
    p->at += n;
    unsigned long value = strtoul(text, &end, 16);
    return end == text + n ? (uint32_t)value : refuse(p, "an escape without hexadecimal digits");
}

/* Behind a backslash, for a single character. */
static uint32_t escaped_code(parser *p) {
    static const char letters[] = "nrtfv0", codes[] = "\n\r\t\f\v";
    if (!more(p)) return refuse(p, "a backslash at the end");
    char c = *p->at;
    const char *at = strchr(letters, c);
    if (at) {
        p->at++;
        return at - letters < 5 ? (uint32_t)codes[at - letters] : 0;
    }
    if (c == 'x' || c == 'u') {
        p->at++;
        if (c == 'u' && sees(p, '{')) {
            const char *close = memchr(p->at, '}', (size_t)(p->end - p->at));
            if (!close || close - p->at > 7) return refuse(p, "\\u{...}");
            p->at++;
            uint32_t code = hex_code(p, (size_t)(close - p->at));
            p->at++;
            return code <= 0x10FFFF ? code : refuse(p, "\\u{...} above U+10FFFF");
        }
        return hex_code(p, c == 'x' ? 2 : 4);
    }
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9'))
        return refuse(p, "an escape that is no character (\\b, \\p, a back reference, ...)");
    return next_code(p);
}

/* One member of a [class]: a shorthand (true, put), or a character in *code. */
static bool class_member(parser *p, class_set *c, uint32_t *code) {
    if (!sees(p, '\\')) {
        *code = next_code(p);
        return false;
    }
    p->at++;
    if (more(p) && put_shorthand(p, c, *p->at)) {
        p->at++;
        return true;
    }
    if (sees(p, 'b')) {
        p->at++;
        *code = '\b';
        return false;
    }
    *code = escaped_code(p);
    return false;
}

static uint32_t parse_class(parser *p) {
    class_set c = {.n = 0};
    bool opposite = sees(p, '^');
    if (opposite) p->at++;
    while (more(p) && *p->at != ']') {
        uint32_t low, high;
        if (class_member(p, &c, &low)) continue;
        high = low;
        if (sees(p, '-') && p->end - p->at > 1 && p->at[1] != ']') {
            p->at++;
            if (class_member(p, &c, &high)) return refuse(p, "a range that ends in a class");
            if (high < low) return refuse(p, "a range that runs backwards");
        }
        put_range(p, &c, low, high);
    }
    if (!sees(p, ']')) return refuse(p, "[ without ]");
    p->at++;
    if (opposite)
        negate(p, &c);
    else
        normalize(&c);
    return p->r->status == LC_OK ? lc_expr_class(p->r, c.list, c.n, p->form) : 0;
}

/* ---- the rest ---- */

static uint32_t parse_alternatives(parser *p, bool top);

static uint32_t parse_group(parser *p) {
    if (sees(p, '?')) {
        if (p->end - p->at < 2 || p->at[1] != ':') return refuse(p, "(?...) other than (?:...)");
        p->at += 2;
    }
    if (++p->depth > MOST_DEPTH) return refuse(p, "more than 48 nested groups");
    uint32_t e = parse_alternatives(p, false);
    p->depth--;
    if (!sees(p, ')')) return refuse(p, "( without )");
    p->at++;
    return e;
}

static uint32_t parse_atom(parser *p) {
    class_set c = {.n = 0};
    char first = *p->at;
    if (strchr("*+?^$", first))
        return refuse(p, first == '^' || first == '$' ? "an anchor inside" : "nothing to repeat");
    if (first == '(' || first == '[') {
        p->at++;
        return first == '(' ? parse_group(p) : parse_class(p);
    }
    if (first == '.') {
        p->at++;
        put_range(p, &c, '\n', '\n');
        put_range(p, &c, '\r', '\r');
        put_range(p, &c, 0x2028, 0x2029);
        negate(p, &c);
    } else if (first == '\\') {
        p->at++;
        if (more(p) && put_shorthand(p, &c, *p->at)) {
            p->at++;
            normalize(&c);
        } else {
            uint32_t code = escaped_code(p);
            put_range(p, &c, code, code);
        }
    } else {
        uint32_t code = next_code(p);
        put_range(p, &c, code, code);
    }
    return p->r->status == LC_OK ? lc_expr_class(p->r, c.list, c.n, p->form) : 0;
}

/* {m}, {m,}, {m,n}: at the brace; false: it is a character like any other. */
static bool parse_counts(parser *p, uint32_t *min, uint32_t *max) {
    const char *at = p->at + 1;
    char *end;
    if (at >= p->end || *at < '0' || *at > '9') return false;
    unsigned long low = strtoul(at, &end, 10), high = low;
    if (*end == ',') {
        at = end + 1;
        high = LC_RULE_UNBOUNDED;
        if (*at >= '0' && *at <= '9')
            high = strtoul(at, &end, 10);
        else
            end++;
    }
    if (*end != '}') return false;
    if (low > MOST_COUNT || (high > MOST_COUNT && high != LC_RULE_UNBOUNDED) || high < low)
        refuse(p, "counts above 100,000 or in the wrong order");
    *min = (uint32_t)low;
    *max = (uint32_t)high;
    p->at = end + 1;
    return true;
}

static uint32_t parse_quantified(parser *p) {
    uint32_t e = parse_atom(p), min = 1, max = 1;
    if (!more(p)) return e;
    if (*p->at == '*' || *p->at == '+' || *p->at == '?') {
        min = *p->at == '+';
        max = *p->at == '?' ? 1 : LC_RULE_UNBOUNDED;
        p->at++;
    } else if (*p->at != '{' || !parse_counts(p, &min, &max)) {
        return e;
    }
    if (sees(p, '?')) p->at++; /* lazy: the same set of texts */
    return lc_expr_repeat(p->r, e, min, max);
}

static uint32_t anything(const parser *p) {
    return lc_expr_repeat(p->r, lc_expr_any(p->r, p->form), 0, LC_RULE_UNBOUNDED);
}

/* top: unanchored ends let any text stand there. */
static uint32_t parse_sequence(parser *p, bool top) {
    uint32_t e = 0;
    bool starts = sees(p, '^'), ends = false;
    if (starts && top) p->at++;
    while (more(p) && *p->at != '|' && *p->at != ')') {
        if (top && *p->at == '$' && (p->at + 1 == p->end || p->at[1] == '|')) {
            p->at++;
            ends = true;
            break;
        }
        e = lc_expr_seq(p->r, e, parse_quantified(p));
    }
    if (top && !starts) e = lc_expr_seq(p->r, anything(p), e);
    if (top && !ends) e = lc_expr_seq(p->r, e, anything(p));
    return e;
}

static uint32_t parse_alternatives(parser *p, bool top) {
    uint32_t e = parse_sequence(p, top);
    while (sees(p, '|')) {
        p->at++;
        e = lc_expr_alt(p->r, e, parse_sequence(p, top));
    }
    return e;
}

uint32_t lc_expr_pattern(lc_rules *r, const char *pattern, lc_text_form form, const char *place) {
    parser p = {
        .r = r, .at = pattern, .end = pattern + strlen(pattern), .place = place, .form = form};
    uint32_t e = parse_alternatives(&p, true);
    if (more(&p)) return refuse(&p, ") without (");
    return r->status == LC_OK ? e : 0;
}
