/*
 * grammar_pattern.c: regular expressions of JSON schema (ECMA-262) as grammar expressions: never
 * matched, only generated, so there is no backtracking. What isn't regular (look-around, back
 * references, word boundaries, anchors inside) is refused by name. Where a length is asked for too,
 * the repeated parts share what is left of it.
 */
#include "engine/grammar_rules.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_RANGES = 512, MOST_DEPTH = 48, MOST_COUNT = 100000 };

/* An expression, and how many characters its texts have. */
typedef struct piece {
    uint32_t e;
    uint64_t min, max; /* up to ENDLESS */
} piece;

static const uint64_t ENDLESS = UINT32_MAX;

/* A piece and how often it stands. */
typedef struct part {
    piece what;
    uint32_t min, max;
} part;

typedef struct parser {
    lc_rules *r;
    const lc_pattern *pattern;
    const char *at, *end;
    lc_text_form form;
    int depth;
    part *parts; /* of the sequence outside all groups */
    size_t n_parts, cap_parts;
} parser;

typedef struct class_set {
    lc_range list[MOST_RANGES];
    size_t n;
} class_set;

static uint32_t refuse(const parser *p, const char *what) {
    return lc_rules_fail(p->r, LC_EUNSUPPORTED, "%s: pattern: %s", p->pattern->place, what);
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

/* Readers differ on white space. wide: all that any of them takes for it; otherwise what all do. */
static void put_spaces(const parser *p, class_set *c, bool wide) {
    static const lc_range more[] = {
        {0x1C, 0x1F},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
        {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    put_range(p, c, '\t', '\r');
    put_range(p, c, ' ', ' ');
    for (size_t i = 0; wide && i < sizeof more / sizeof *more; i++)
        put_range(p, c, more[i].low, more[i].high);
}

/* \d \w \s and their opposites, in a class of which the opposite is meant or not. false: none of
 * these. */
static bool put_shorthand(const parser *p, class_set *c, char letter, bool opposite) {
    class_set s = {.n = 0};
    switch (letter | 0x20) {
    case 'd': put_range(p, &s, '0', '9'); break;
    case 'w':
        put_range(p, &s, '0', '9');
        put_range(p, &s, 'A', 'Z');
        put_range(p, &s, '_', '_');
        put_range(p, &s, 'a', 'z');
        break;
    case 's': put_spaces(p, &s, opposite != (letter < 'a')); break;
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
static bool class_member(parser *p, class_set *c, bool opposite, uint32_t *code) {
    if (!sees(p, '\\')) {
        *code = next_code(p);
        return false;
    }
    p->at++;
    if (more(p) && put_shorthand(p, c, *p->at, opposite)) {
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

static piece bad(const parser *p, const char *what) { return (piece){refuse(p, what), 0, 0}; }

static piece class_piece(const parser *p, const class_set *c) {
    return (piece){p->r->status == LC_OK ? lc_expr_class(p->r, c->list, c->n, p->form) : 0, 1, 1};
}

static piece parse_class(parser *p) {
    class_set c = {.n = 0};
    bool opposite = sees(p, '^');
    if (opposite) p->at++;
    while (more(p) && *p->at != ']') {
        uint32_t low, high;
        if (class_member(p, &c, opposite, &low)) continue;
        high = low;
        if (sees(p, '-') && p->end - p->at > 1 && p->at[1] != ']') {
            p->at++;
            if (class_member(p, &c, opposite, &high)) return bad(p, "a range that ends in a class");
            if (high < low) return bad(p, "a range that runs backwards");
        }
        put_range(p, &c, low, high);
    }
    if (!sees(p, ']')) return bad(p, "[ without ]");
    p->at++;
    if (opposite)
        negate(p, &c);
    else
        normalize(&c);
    return class_piece(p, &c);
}

/* ---- the rest ---- */

static piece parse_alternatives(parser *p, bool top);

static piece parse_group(parser *p) {
    if (sees(p, '?')) {
        if (p->end - p->at < 2 || p->at[1] != ':') return bad(p, "(?...) other than (?:...)");
        p->at += 2;
    }
    if (++p->depth > MOST_DEPTH) return bad(p, "more than 48 nested groups");
    piece inner = parse_alternatives(p, false);
    p->depth--;
    if (!sees(p, ')')) return bad(p, "( without )");
    p->at++;
    return inner;
}

static piece parse_atom(parser *p) {
    class_set c = {.n = 0};
    char first = *p->at;
    if (strchr("*+?^$", first))
        return bad(p, first == '^' || first == '$' ? "an anchor inside" : "nothing to repeat");
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
        if (more(p) && put_shorthand(p, &c, *p->at, false)) {
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
    return class_piece(p, &c);
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

static part parse_quantified(parser *p) {
    part one = {parse_atom(p), 1, 1};
    if (!more(p)) return one;
    if (*p->at == '*' || *p->at == '+' || *p->at == '?') {
        one.min = *p->at == '+';
        one.max = *p->at == '?' ? 1 : LC_RULE_UNBOUNDED;
        p->at++;
    } else if (*p->at != '{' || !parse_counts(p, &one.min, &one.max)) {
        return one;
    }
    if (sees(p, '?')) p->at++; /* lazy: the same set of texts */
    return one;
}

static uint64_t clamp(uint64_t n) { return n < ENDLESS ? n : ENDLESS; }

static uint64_t times(uint64_t length, uint32_t count) {
    return !length || !count ? 0 : count == LC_RULE_UNBOUNDED ? ENDLESS : clamp(length * count);
}

static piece join(const parser *p, piece a, const part *b) {
    return (piece){lc_expr_seq(p->r, a.e, lc_expr_repeat(p->r, b->what.e, b->min, b->max)),
                   clamp(a.min + times(b->what.min, b->min)),
                   clamp(a.max + times(b->what.max, b->max))};
}

static part anything(const parser *p) {
    return (part){{lc_expr_any(p->r, p->form), 1, 1}, 0, LC_RULE_UNBOUNDED};
}

static void put_part(parser *p, part one) {
    if (p->n_parts == p->cap_parts) {
        size_t cap = p->cap_parts ? 2 * p->cap_parts : 16;
        part *grown = lc_realloc(p->parts, cap, sizeof *grown);
        if (!grown) {
            lc_rules_fail(p->r, LC_ENOMEM, "grammar: out of memory");
            return;
        }
        p->parts = grown;
        p->cap_parts = cap;
    }
    p->parts[p->n_parts++] = one;
}

/* Lets the parts be repeated only so often that the whole has min..max characters: each repeated
 * part gets an equal share of what the pattern leaves. false: the lengths don't allow it. */
static bool fit(parser *p) {
    uint64_t least = 0, most = 0, floating = 0;
    for (size_t i = 0; i < p->n_parts; i++) {
        const part *x = &p->parts[i];
        least = clamp(least + times(x->what.min, x->min));
        most = clamp(most + times(x->what.max, x->max));
        floating += x->min < x->max;
    }
    if (least >= p->pattern->min && most <= p->pattern->max) return true;
    if (least > p->pattern->max || most < p->pattern->min) return false;
    uint64_t share = floating ? (p->pattern->max - least) / floating : 0, total = 0;
    part *last = NULL;
    for (size_t i = 0; i < p->n_parts; i++) {
        part *x = &p->parts[i];
        if (x->what.min != x->what.max && x->max > x->min && x->min == 0) x->max = 0;
        if (x->what.min != x->what.max && x->max > 0) {
            refuse(p, "can't be enforced together with this length");
            return false;
        }
        if (x->min == x->max || !x->what.max) continue;
        uint64_t room = x->min + share / x->what.max;
        if (room < x->max) x->max = (uint32_t)room;
        last = x->what.max == 1 && (!last || x->max - x->min > last->max - last->min) ? x : last;
        total += (uint64_t)(x->max - x->min) * x->what.max;
    }
    if (least >= p->pattern->min) return true;
    uint64_t missing = p->pattern->min - least;
    if (!last || missing > last->max - last->min) {
        refuse(p, "can't be enforced together with this length");
        return false;
    }
    last->min += (uint32_t)missing;
    return total > 0;
}

/* Outside groups: ends that aren't anchored let any text stand there. */
static piece parse_top(parser *p) {
    piece whole = {0, 0, 0};
    bool ends = false;
    p->n_parts = 0;
    if (sees(p, '^'))
        p->at++;
    else
        put_part(p, anything(p));
    while (more(p) && *p->at != '|' && *p->at != ')' && !ends) {
        ends = *p->at == '$' && (p->at + 1 == p->end || p->at[1] == '|');
        if (ends)
            p->at++;
        else
            put_part(p, parse_quantified(p));
    }
    if (!ends) put_part(p, anything(p));
    if (p->r->status == LC_OK && !fit(p)) whole.e = lc_expr_never(p->r);
    for (size_t i = 0; i < p->n_parts; i++) whole = join(p, whole, &p->parts[i]);
    return whole;
}

static piece parse_sequence(parser *p) {
    piece whole = {0, 0, 0};
    while (more(p) && *p->at != '|' && *p->at != ')') {
        part one = parse_quantified(p);
        whole = join(p, whole, &one);
    }
    return whole;
}

static piece parse_alternatives(parser *p, bool top) {
    piece all = top ? parse_top(p) : parse_sequence(p);
    while (sees(p, '|')) {
        p->at++;
        piece other = top ? parse_top(p) : parse_sequence(p);
        all.e = lc_expr_alt(p->r, all.e, other.e);
        if (other.min < all.min) all.min = other.min;
        if (other.max > all.max) all.max = other.max;
    }
    return all;
}

uint32_t lc_expr_pattern(lc_rules *r, const lc_pattern *pattern) {
    parser p = {.r = r,
                .pattern = pattern,
                .at = pattern->text,
                .end = pattern->text + strlen(pattern->text),
                .form = pattern->form};
    uint32_t e = parse_alternatives(&p, true).e;
    lc_free(p.parts);
    if (more(&p)) return refuse(&p, ") without (");
    return r->status == LC_OK ? e : 0;
}
