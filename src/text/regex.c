/*
 * regex.c: the patterns of tokenizer.json on PCRE2.
 *
 * The reference compiles them with Oniguruma's Ruby syntax. What means the same in both is passed
 * on; what differs is rewritten (\s and \w: PCRE2's \s has U+180E, its \w has other marks and
 * numbers; \uHHHH; script names); what can't be is refused by name, so a pattern never splits
 * differently without a word.
 *
 * Matching is JIT code on the small default stack. Where that is too small, or where there is no
 * JIT, the interpreter does the match on the heap. A limit on backtracking, linear in the length of
 * the text, stops patterns that explode.
 */
#include "text/tok.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define NO_SPACES                                                                                  \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-"         \
    "\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"        \
    "\\x{3001}-\\x{10ffff}"
/* Oniguruma's \w: alphabetic, marks, decimal digits, connectors; outside of classes also Latin-1's
 * other numbers. */
#define WORD                                                                                       \
    "\\p{L}\\p{M}\\p{Nd}\\p{Pc}\\p{Nl}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"                    \
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define WORD_ALONE WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

/* From 10.40 on a bare script name means Script_Extensions. */
#if PCRE2_MAJOR > 10 || PCRE2_MINOR >= 40
#define SCRIPT "sc:"
#else
#define SCRIPT ""
#endif

struct lc_regex {
    pcre2_code *code;
    char where[96];
};

struct lc_regex_work {
    pcre2_match_data *data;
    pcre2_match_context *context;
};

/* ---- memory ---- */

static void *pcre_alloc(size_t size, void *ctx) {
    (void)ctx;
    return lc_alloc(size);
}

static void pcre_free(void *block, void *ctx) {
    (void)ctx;
    lc_free(block);
}

static pcre2_general_context *general_context(void) {
    return pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
}

/* ---- translation ---- */

typedef struct pattern {
    const lc_tok_src *src;
    const lc_regex_spec *spec;
    const char *s;
    size_t len, i;
    lc_buf out;
} pattern;

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_hex(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
static char peek(const pattern *p, size_t ahead) {
    return p->i + ahead < p->len ? p->s[p->i + ahead] : 0;
}

static int unsupported(const pattern *p, const char *what) {
    return lc_fail(p->src->err, LC_EUNSUPPORTED, "%s: %s: pattern: %s at byte %zu is not supported",
                   p->src->name, p->spec->where, what, p->i);
}

/* \p{Name}: PCRE2 takes a script's name for its extensions, Oniguruma for the script itself. */
static int property(pattern *p) {
    static const char *const known[][2] = {
        {"Letter", "L"},         {"Mark", "M"},   {"Number", "N"},
        {"Punctuation", "P"},    {"Symbol", "S"}, {"Separator", "Z"},
        {"Other", "C"},          {"Any", "Any"},  {"Alphabetic", "Alphabetic"},
        {"Alpha", "Alphabetic"},
    };
    char name[40];
    const char *end = memchr(p->s + p->i, '}', p->len - p->i);
    if (peek(p, 2) != '{' || !end) return unsupported(p, "\\p without {name}");
    bool negated = peek(p, 3) == '^';
    const char *begin = p->s + p->i + 3 + negated;
    size_t len = (size_t)(end - begin);
    if (end < begin || !len || len >= sizeof name) return unsupported(p, "this \\p{name}");
    memcpy(name, begin, len);
    name[len] = 0;
    for (size_t i = 0; i < len; i++)
        if (!is_letter(name[i]) && name[i] != '_') return unsupported(p, "this \\p{name}");
    const char *prefix = len > 2 ? SCRIPT : "", *pass = name;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i][0], name)) {
            prefix = "";
            pass = known[i][1];
        }
    lc_buf_printf(&p->out, "\\%c{%s%s%s}", peek(p, 1), negated ? "^" : "", prefix, pass);
    p->i = (size_t)(end - p->s) + 1;
    return LC_OK;
}

/* \xHH, \x{H...}, \uHHHH. Oniguruma takes \x80 and above as single bytes of UTF-8. */
static int code_point(pattern *p) {
    bool braces = peek(p, 1) == 'x' && peek(p, 2) == '{';
    size_t digits = 0, at = braces ? 3 : 2, most = braces ? 8 : peek(p, 1) == 'u' ? 4 : 2;
    uint32_t code = 0;
    for (char c; digits < most && is_hex(c = peek(p, at + digits)); digits++)
        code = code << 4 | (uint32_t)(is_digit(c) ? c - '0' : (c | 32) - 'a' + 10);
    bool closed = !braces || peek(p, at + digits) == '}';
    if (!digits || !closed || (peek(p, 1) == 'u' && digits != 4) ||
        (peek(p, 1) == 'x' && !braces && code > 0x7F))
        return unsupported(p, "this \\x or \\u");
    lc_buf_printf(&p->out, "\\x{%x}", (unsigned)code);
    p->i += at + digits + braces;
    return LC_OK;
}

/* The escapes that stand for a set of characters. NULL: can't be written there. */
static const char *set_escape(char c, bool in_class) {
    switch (c) {
    case 's': return in_class ? SPACES : "[" SPACES "]";
    case 'S': return in_class ? NO_SPACES : "[^" SPACES "]";
    case 'w': return in_class ? WORD : "[" WORD_ALONE "]";
    case 'W': return in_class ? NULL : "[^" WORD_ALONE "]";
    case 'd': return "\\p{Nd}";
    case 'D': return "\\P{Nd}";
    default: return NULL;
    }
}

static int escape(pattern *p, bool in_class) {
    char c = peek(p, 1), name[8] = {'\\', c, 0};
    const char *set = set_escape(c, in_class);
    if (set) {
        lc_buf_puts(&p->out, set);
        p->i += 2;
        return LC_OK;
    }
    if (c == 'p' || c == 'P') return property(p);
    if (c == 'x' || c == 'u') return code_point(p);
    if (c == 'v') { /* Oniguruma: the character; PCRE2: vertical white space */
        lc_buf_puts(&p->out, "\\x{b}");
    } else if (c && strchr(in_class ? "rntfae" : "rntfaeAzZ", c)) {
        lc_buf_append(&p->out, p->s + p->i, 2);
    } else if (!c || is_letter(c) || is_digit(c)) {
        return unsupported(p, name);
    } else {
        lc_buf_append(&p->out, p->s + p->i, 2);
    }
    p->i += 2;
    return LC_OK;
}

static int class(pattern *p) {
    bool after_set = false;
    lc_buf_putc(&p->out, '[');
    p->i++;
    if (peek(p, 0) == '^') lc_buf_putc(&p->out, p->s[p->i++]);
    for (bool first = true;; first = false) {
        char c = peek(p, 0), next = peek(p, 1), after = peek(p, 2);
        if (p->i >= p->len) return unsupported(p, "a class without end");
        if (c == ']' && !first) break;
        if (c == '[') return unsupported(p, "a class inside a class");
        if (c == '&' && next == '&') return unsupported(p, "&& in a class");
        bool is_set = c == '\\' && next && strchr("sSwWdDpP", next);
        if (c == '\\') {
            int status = escape(p, true);
            if (status) return status;
        } else if (c == ']' || (c == '-' && (after_set || (next == '\\' && after &&
                                                           strchr("sSwWdDpP", after))))) {
            lc_buf_printf(&p->out, "\\%c", c); /* a literal, whatever stands beside it */
            p->i++;
        } else {
            lc_buf_putc(&p->out, c);
            p->i++;
        }
        after_set = is_set;
    }
    lc_buf_putc(&p->out, ']');
    p->i++;
    return LC_OK;
}

static int group(pattern *p) {
    static const char *const allowed[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    size_t len = 1;
    if (peek(p, 1) == '*') return unsupported(p, "(*");
    if (peek(p, 1) == '?') {
        len = 0;
        for (size_t i = 0; i < sizeof allowed / sizeof *allowed && !len; i++)
            if (p->len - p->i >= strlen(allowed[i]) &&
                !memcmp(p->s + p->i, allowed[i], strlen(allowed[i])))
                len = strlen(allowed[i]);
        if (!len && peek(p, 2) == 'i' && (peek(p, 3) == ':' || (peek(p, 3) == ')' && p->i == 0)))
            len = 4; /* elsewhere (?i) also changes how Oniguruma reads alternatives */
        if (!len) return unsupported(p, "this (?");
    }
    lc_buf_append(&p->out, p->s + p->i, len);
    p->i += len;
    return LC_OK;
}

/* {n}, {n,} and {n,m} are the same in both, unless a + follows (possessive or repeated). */
static int brace(pattern *p) {
    size_t n = 1;
    if (peek(p, 1) == ',') return unsupported(p, "{,");
    while (is_digit(peek(p, n))) n++;
    if (n > 1 && peek(p, n) == ',') n++;
    while (is_digit(peek(p, n))) n++;
    bool quantifier = n > 1 && peek(p, n) == '}';
    if (quantifier && peek(p, n + 1) == '+') return unsupported(p, "{n}+");
    n = quantifier ? n + 1 : 1;
    lc_buf_append(&p->out, p->s + p->i, n);
    p->i += n;
    return LC_OK;
}

static int translate(pattern *p) {
    while (p->i < p->len) {
        char c = p->s[p->i];
        int status = LC_OK;
        if (c == '\\')
            status = escape(p, false);
        else if (c == '[')
            status = class(p);
        else if (c == '(')
            status = group(p);
        else if (c == '{')
            status = brace(p);
        else
            lc_buf_putc(&p->out, p->s[p->i++]);
        if (status) return status;
        if (p->out.failed)
            return lc_fail(p->src->err, LC_ENOMEM, "%s: out of memory", p->src->name);
    }
    return LC_OK;
}

/* ---- compiling ---- */

static int compile(const lc_tok_src *src, const lc_regex_spec *spec, lc_str text,
                   pcre2_code **code) {
    pcre2_general_context *general = general_context();
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    int problem = PCRE2_ERROR_HEAP_FAILED;
    size_t offset = 0;
    uint32_t options = spec->literal
                           ? PCRE2_LITERAL | PCRE2_UTF
                           : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    *code = NULL;
    if (context) {
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        pcre2_set_parens_nest_limit(context, 100);
        *code = pcre2_compile((PCRE2_SPTR)text.data, text.len, options, &problem, &offset, context);
        /* Without JIT (a hardened kernel, an unknown CPU) matching is only slower. */
        if (*code) pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE);
    }
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    if (*code) return LC_OK;
    if (problem == PCRE2_ERROR_HEAP_FAILED)
        return lc_fail(src->err, LC_ENOMEM, "%s: %s: out of memory", src->name, spec->where);
    PCRE2_UCHAR why[160] = "";
    pcre2_get_error_message(problem, why, sizeof why);
    return lc_fail(src->err, LC_EUNSUPPORTED, "%s: %s: pattern: %s at byte %zu", src->name,
                   spec->where, (const char *)why, offset);
}

int lc_regex_new(const lc_tok_src *src, const lc_regex_spec *spec, lc_regex **out) {
    *out = NULL;
    if (spec->pattern.len > LC_TOK_PATTERN_MAX)
        return lc_fail(src->err, LC_ELIMIT, "%s: %s: pattern longer than %d bytes", src->name,
                       spec->where, LC_TOK_PATTERN_MAX);
    pattern p = {.src = src, .spec = spec, .s = spec->pattern.data, .len = spec->pattern.len};
    if (!lc_buf_reserve(&p.out, p.len))
        return lc_fail(src->err, LC_ENOMEM, "%s: %s: out of memory", src->name, spec->where);
    int status = spec->literal ? LC_OK : translate(&p);
    lc_regex *regex = status ? NULL : lc_calloc(1, sizeof *regex);
    if (!status && !regex)
        status = lc_fail(src->err, LC_ENOMEM, "%s: %s: out of memory", src->name, spec->where);
    if (!status) {
        lc_str text = spec->literal ? spec->pattern : (lc_str){p.out.data, p.out.len};
        snprintf(regex->where, sizeof regex->where, "%s", spec->where);
        status = compile(src, spec, text, &regex->code);
    }
    lc_buf_free(&p.out);
    if (status)
        lc_regex_free(regex);
    else
        *out = regex;
    return status;
}

void lc_regex_free(lc_regex *regex) {
    if (!regex) return;
    pcre2_code_free(regex->code);
    lc_free(regex);
}

int lc_regex_load(const lc_tok_src *src, struct json_object *object, const char *where,
                  lc_regex **out) {
    char inside[96];
    struct json_object *json = lc_tok_field(object, "pattern");
    lc_regex_spec spec = {.where = where, .literal = !lc_tok_field(json, "Regex")};
    snprintf(inside, sizeof inside, "%s.pattern", where);
    *out = NULL;
    int status = lc_tok_string(src, json, inside, spec.literal ? "String" : "Regex", &spec.pattern);
    return status ? status : lc_regex_new(src, &spec, out);
}

/* ---- matching ---- */

lc_regex_work *lc_regex_work_new(void) {
    pcre2_general_context *general = general_context();
    lc_regex_work *work = general ? lc_calloc(1, sizeof *work) : NULL;
    if (work) {
        work->data = pcre2_match_data_create(1, general);
        work->context = pcre2_match_context_create(general);
        if (!work->data || !work->context) {
            lc_regex_work_free(work);
            work = NULL;
        } else {
            pcre2_set_heap_limit(work->context, 65536); /* KiB */
        }
    }
    pcre2_general_context_free(general);
    return work;
}

void lc_regex_work_free(lc_regex_work *work) {
    if (!work) return;
    pcre2_match_data_free(work->data);
    pcre2_match_context_free(work->context);
    lc_free(work);
}

static int match_error(const lc_regex *regex, int code, lc_err *err) {
    PCRE2_UCHAR why[160] = "";
    switch (code) {
    case PCRE2_ERROR_NOMEMORY: return lc_fail(err, LC_ENOMEM, "%s: out of memory", regex->where);
    case PCRE2_ERROR_MATCHLIMIT:
    case PCRE2_ERROR_DEPTHLIMIT:
    case PCRE2_ERROR_HEAPLIMIT:
        return lc_fail(err, LC_ELIMIT, "%s: the pattern takes too many steps on this text",
                       regex->where);
    default:
        pcre2_get_error_message(code, why, sizeof why);
        return lc_fail(err, LC_EFORMAT, "%s: pattern: %s", regex->where, (const char *)why);
    }
}

int lc_regex_next(lc_regex_iter *iter, lc_span *match, bool *found, lc_err *err) {
    const lc_str text = iter->text;
    lc_regex_work *work = iter->work;
    *found = false;
    size_t limit = 1000000 + 16 * text.len;
    pcre2_set_match_limit(work->context, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
    while (iter->at <= text.len) {
        /* Valid UTF-8 is the caller's promise: checking it again for each match is quadratic. */
        int code = pcre2_match(iter->regex->code, (PCRE2_SPTR)text.data, text.len, iter->at,
                               PCRE2_NO_UTF_CHECK, work->data, work->context);
        if (code == PCRE2_ERROR_JIT_STACKLIMIT)
            code = pcre2_match(iter->regex->code, (PCRE2_SPTR)text.data, text.len, iter->at,
                               PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, work->data, work->context);
        if (code == PCRE2_ERROR_NOMATCH) return LC_OK;
        if (code < 0) return match_error(iter->regex, code, err);
        const size_t *pair = pcre2_get_ovector_pointer(work->data);
        if (pair[1] <= pair[0] && iter->any && iter->last == pair[1]) {
            do iter->at++;
            while (iter->at < text.len && ((unsigned char)text.data[iter->at] & 0xC0) == 0x80);
            continue;
        }
        *match = (lc_span){pair[0], pair[1] - pair[0], -1};
        iter->at = iter->last = pair[1];
        iter->any = *found = true;
        return LC_OK;
    }
    return LC_OK;
}
