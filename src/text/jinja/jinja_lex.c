/*
 * jinja_lex.c: template text to tokens, with the white space rules of trim_blocks and
 * lstrip_blocks.
 *
 * Outside of tags everything up to the next tag is one DATA token; the sign behind a tag's opening
 * and before its closing decides about the white space around it. {% raw %} gives data too. The
 * source has been brought to plain "\n" newlines before, without the last one (jinja.c).
 */
#include "text/jinja/jinja_internal.h"

#include <stdlib.h>

enum { ROOT, IN_VAR, IN_BLOCK };

static bool at(const lcj_lexer *lex, size_t pos, const char *text) {
    size_t len = strlen(text);
    return pos <= lex->len && lex->len - pos >= len && !memcmp(lex->src + pos, text, len);
}

static void advance_to(lcj_lexer *lex, size_t to) {
    for (const char *s = lex->src + lex->pos, *end = lex->src + to; s < end; s++)
        if (*s == '\n') lex->line++;
    lex->pos = to;
}

static size_t skip_space(const lcj_lexer *lex, size_t pos) {
    while (pos < lex->len) {
        size_t len;
        if (!lcj_is_space(lcj_char_at(lex->src + pos, &len))) break;
        pos += len;
    }
    return pos;
}

/* The end of data that stands before a tag with the given sign. */
static size_t data_end(const lcj_lexer *lex, size_t start, size_t end, char sign, bool is_var) {
    if (sign == '-') {
        while (end > start) {
            size_t len, from = end - 1;
            while (from > start && ((unsigned char)lex->src[from] & 0xC0) == 0x80) from--;
            if (!lcj_is_space(lcj_char_at(lex->src + from, &len))) break;
            end = from;
        }
    } else if (sign != '+' && !is_var) {
        const char *newline = end > start ? memrchr(lex->src + start, '\n', end - start) : NULL;
        size_t line = newline ? (size_t)(newline - lex->src) + 1 : start;
        bool line_starts = newline || start == 0 || lex->src[start - 1] == '\n';
        if (line_starts && skip_space(lex, line) >= end) end = line;
    }
    return end;
}

static char sign_at(const lcj_lexer *lex, size_t pos) {
    char c = pos < lex->len ? lex->src[pos] : 0;
    return c == '-' || c == '+' ? c : 0;
}

/* Behind a closing "}": trim_blocks takes a newline, a "-" before it takes all white space. */
static size_t after_close(const lcj_lexer *lex, size_t pos, char sign, bool trims) {
    if (sign == '-') return skip_space(lex, pos);
    if (trims && sign != '+' && at(lex, pos, "\n")) return pos + 1;
    return pos;
}

/* "{%- raw -%}" at pos: the position behind it, else 0. */
static size_t raw_begin(const lcj_lexer *lex, size_t pos) {
    pos += 2;
    if (sign_at(lex, pos)) pos++;
    pos = skip_space(lex, pos);
    if (!at(lex, pos, "raw")) return 0;
    pos = skip_space(lex, pos + 3);
    if (at(lex, pos, "-%}")) return skip_space(lex, pos + 3);
    return at(lex, pos, "%}") ? pos + 2 : 0;
}

/* "{% endraw %}" at pos: the position behind it, else 0. */
static size_t raw_end(const lcj_lexer *lex, size_t pos) {
    pos += 2;
    if (sign_at(lex, pos)) pos++;
    pos = skip_space(lex, pos);
    if (!at(lex, pos, "endraw")) return 0;
    pos = skip_space(lex, pos + 6);
    char sign = sign_at(lex, pos);
    if (sign) pos++;
    return at(lex, pos, "%}") ? after_close(lex, pos + 2, sign, true) : 0;
}

static const char *find(const lcj_lexer *lex, size_t from, const char *text) {
    return from <= lex->len ? memmem(lex->src + from, lex->len - from, text, strlen(text)) : NULL;
}

static bool skip_comment(lcj_comp *comp) {
    lcj_lexer *lex = &comp->lex;
    size_t from = lex->pos + 2;
    if (sign_at(lex, from)) from++;
    if (from >= lex->len) { /* nothing behind the opening: the reference lets that pass */
        advance_to(lex, lex->len);
        return true;
    }
    const char *close = find(lex, from, "#}");
    if (!close)
        return lcj_comp_fail(comp, LC_JINJA_SYNTAX, lex->line, "Missing end of comment tag");
    size_t end = (size_t)(close - lex->src);
    /* the sign must not be the one of the opening: "{#-#}" has one sign, at the opening */
    char sign = end > from ? sign_at(lex, end - 1) : 0;
    advance_to(lex, after_close(lex, end + 2, sign, true));
    return true;
}

/* In a raw block: its text. */
static bool raw_text(lcj_comp *comp, lcj_token *out) {
    lcj_lexer *lex = &comp->lex;
    size_t start = lex->pos;
    *out = (lcj_token){.type = LCJ_T_EOF, .line = lex->line};
    if (start >= lex->len) return true; /* as with comments */
    for (const char *tag; (tag = find(lex, lex->pos, "{%"));
         lex->pos = (size_t)(tag - lex->src) + 2) {
        size_t tag_at = (size_t)(tag - lex->src), end = raw_end(lex, tag_at);
        if (!end) continue;
        size_t stop = data_end(lex, start, tag_at, sign_at(lex, tag_at + 2), false);
        *out = (lcj_token){.type = LCJ_T_DATA,
                           .line = lex->line,
                           .text = {lex->src + start, (uint32_t)(stop - start)}};
        lex->pos = start;
        advance_to(lex, end);
        return true;
    }
    return lcj_comp_fail(comp, LC_JINJA_SYNTAX, lex->line, "Missing end of raw directive");
}

/* Data up to the next tag, or the opening of that tag. *again: neither, only a comment. */
static bool lex_root(lcj_comp *comp, lcj_token *out, bool *again) {
    lcj_lexer *lex = &comp->lex;
    size_t start = lex->pos, tag = start;
    for (; tag < lex->len; tag++) { /* the next "{{", "{%" or "{#" */
        const char *brace = memchr(lex->src + tag, '{', lex->len - tag);
        tag = brace ? (size_t)(brace - lex->src) : lex->len;
        if (tag + 1 < lex->len && strchr("{%#", lex->src[tag + 1]) && lex->src[tag + 1]) break;
    }
    if (tag > lex->len) tag = lex->len;
    bool has_tag = tag < lex->len, is_var = has_tag && lex->src[tag + 1] == '{';
    if (tag > start) {
        size_t end = has_tag ? data_end(lex, start, tag, sign_at(lex, tag + 2), is_var) : tag;
        *out = (lcj_token){.type = LCJ_T_DATA,
                           .line = lex->line,
                           .text = {lex->src + start, (uint32_t)(end - start)}};
        advance_to(lex, tag);
        return true;
    }
    *out = (lcj_token){.type = LCJ_T_EOF, .line = lex->line};
    if (!has_tag) return true;
    if (lex->src[tag + 1] == '#') {
        *again = true;
        return skip_comment(comp);
    }
    size_t raw = is_var ? 0 : raw_begin(lex, tag);
    if (raw) {
        advance_to(lex, raw);
        return raw_text(comp, out);
    }
    out->type = is_var ? LCJ_T_VAR_BEGIN : LCJ_T_BLOCK_BEGIN;
    lex->state = is_var ? IN_VAR : IN_BLOCK;
    lex->pos += sign_at(lex, tag + 2) ? 3 : 2;
    return true;
}

/* ---- inside tags ---- */

/* The end of the tag, where no bracket is open: "-}}", "}}", "-%}", "+%}", "%}". */
static bool lex_close(lcj_lexer *lex, lcj_token *out) {
    bool block = lex->state == IN_BLOCK;
    const char *close = block ? "%}" : "}}";
    char sign = lex->pos < lex->len ? lex->src[lex->pos] : 0;
    if (sign != '-' && !(sign == '+' && block)) sign = 0;
    size_t end = lex->pos + (sign != 0);
    if (lex->n_open || !at(lex, end, close)) return false;
    *out = (lcj_token){.type = block ? LCJ_T_BLOCK_END : LCJ_T_VAR_END, .line = lex->line};
    advance_to(lex, after_close(lex, end + 2, sign, block));
    lex->state = ROOT;
    return true;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* (\d+_)*\d+ from pos; the end, pos where there is none. */
static size_t digits(const lcj_lexer *lex, size_t pos) {
    size_t end = pos;
    while (pos < lex->len && is_digit(lex->src[pos])) {
        while (pos < lex->len && is_digit(lex->src[pos])) pos++;
        end = pos;
        if (pos < lex->len && lex->src[pos] == '_') pos++;
    }
    return end;
}

static size_t float_end(const lcj_lexer *lex) {
    size_t pos = lex->pos, whole = digits(lex, pos), end = whole;
    if (pos && lex->src[pos - 1] == '.') return pos;
    bool part = false;
    if (end < lex->len && lex->src[end] == '.') {
        size_t after = digits(lex, end + 1);
        part = after > end + 1;
        if (part) end = after;
    }
    if (end < lex->len && (lex->src[end] | 0x20) == 'e') {
        size_t e = end + 1;
        if (e < lex->len && (lex->src[e] == '+' || lex->src[e] == '-')) e++;
        size_t after = digits(lex, e);
        if (after > e) return after;
    }
    return part ? end : pos;
}

static bool is_base_digit(char c, char base) {
    if (base == 'b') return c == '0' || c == '1';
    if (base == 'o') return c >= '0' && c <= '7';
    if (base == 'x') return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
    return base == '0' ? c == '0' : is_digit(c);
}

static size_t integer_end(const lcj_lexer *lex) {
    size_t pos = lex->pos;
    char first = lex->src[pos], base = 'd';
    if (first == '0') {
        char c = pos + 1 < lex->len ? (char)(lex->src[pos + 1] | 0x20) : 0;
        size_t digit = pos + 2;
        if (digit < lex->len && lex->src[digit] == '_') digit++;
        bool prefix = (c == 'b' || c == 'o' || c == 'x') && digit < lex->len &&
                      is_base_digit(lex->src[digit], c);
        base = prefix ? c : '0';
        pos = prefix ? digit : pos;
    }
    size_t end = pos + 1;
    for (;;) {
        size_t next = end;
        if (next < lex->len && lex->src[next] == '_') next++;
        if (next >= lex->len || !is_base_digit(lex->src[next], base)) return end;
        end = next + 1;
    }
}

static bool lex_number(lcj_comp *comp, lcj_token *out) {
    lcj_lexer *lex = &comp->lex;
    size_t end = float_end(lex), from = lex->pos;
    bool is_float = end > from;
    if (!is_float) end = integer_end(lex);
    if (end - from > 400)
        return lcj_comp_fail(comp, LC_JINJA_UNSUPPORTED, lex->line,
                             "a number of more than 400 digits is not supported");
    char text[408];
    size_t n = 0;
    for (size_t i = from; i < end; i++)
        if (lex->src[i] != '_') text[n++] = lex->src[i];
    text[n] = 0;
    *out = (lcj_token){.type = is_float ? LCJ_T_FLOAT : LCJ_T_INTEGER, .line = lex->line};
    lex->pos = end;
    if (is_float) {
        out->value = lcj_float(strtod(text, NULL));
        return true;
    }
    char kind = n > 1 ? (char)(text[1] | 0x20) : 0;
    int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
    int64_t value = 0;
    for (const char *c = text + (base == 10 ? 0 : 2); *c; c++) {
        int d = is_digit(*c) ? *c - '0' : (*c | 0x20) - 'a' + 10;
        if (__builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, d, &value))
            return lcj_comp_fail(comp, LC_JINJA_UNSUPPORTED, lex->line,
                                 "an integer beyond 64 bits is not supported");
    }
    out->value = lcj_int(value);
    return true;
}

static bool lex_name(lcj_comp *comp, lcj_token *out) {
    lcj_lexer *lex = &comp->lex;
    size_t from = lex->pos, pos = from, len;
    bool valid = true;
    for (uint32_t code; pos < lex->len; pos += len) {
        code = lcj_char_at(lex->src + pos, &len);
        if (!lcj_is_word(code) && !(pos > from && lcj_is_mark(code))) break;
        /* str.isidentifier: no digit first, no numbers like "½" */
        if (pos == from && lcj_is_decimal(code)) valid = false;
        if (code >= 0x80 && lcj_is_numeric(code) && !lcj_is_decimal(code)) valid = false;
    }
    *out = (lcj_token){
        .type = LCJ_T_NAME, .line = lex->line, .text = {lex->src + from, (uint32_t)(pos - from)}};
    lex->pos = pos;
    return valid ||
           lcj_comp_fail(comp, LC_JINJA_SYNTAX, lex->line, "Invalid character in identifier");
}

static bool lex_string(lcj_comp *comp, lcj_token *out) {
    lcj_lexer *lex = &comp->lex;
    char quote = lex->src[lex->pos];
    size_t from = lex->pos + 1, pos = from;
    while (pos < lex->len && lex->src[pos] != quote) pos += lex->src[pos] == '\\' ? 2 : 1;
    if (pos >= lex->len)
        return lcj_comp_fail(comp, LC_JINJA_SYNTAX, lex->line, "unexpected char '%c'", quote);
    *out = (lcj_token){.type = LCJ_T_STRING, .line = lex->line};
    lcj_str raw = {lex->src + from, (uint32_t)(pos - from)};
    advance_to(lex, pos + 1);
    return lcj_unescape(comp, raw, out->line, &out->text);
}

static bool balance(lcj_comp *comp, char c) {
    lcj_lexer *lex = &comp->lex;
    const char *opens = strchr("{([", c), *closes = strchr("})]", c);
    if (opens) {
        if (lex->n_open == sizeof lex->open)
            return lcj_comp_fail(comp, LC_JINJA_LIMIT, lex->line, "more than %zu open brackets",
                                 sizeof lex->open);
        lex->open[lex->n_open++] = *opens == '{' ? '}' : *opens == '(' ? ')' : ']';
    } else if (closes) {
        if (!lex->n_open)
            return lcj_comp_fail(comp, LC_JINJA_SYNTAX, lex->line, "unexpected '%c'", c);
        if (lex->open[--lex->n_open] != c)
            return lcj_comp_fail(comp, LC_JINJA_SYNTAX, lex->line, "unexpected '%c', expected '%c'",
                                 c, lex->open[lex->n_open]);
    }
    return true;
}

static bool lex_operator(lcj_comp *comp, lcj_token *out) {
    static const char *const doubles[] = {"//", "**", "==", "!=", ">=", "<="};
    lcj_lexer *lex = &comp->lex;
    char c = lex->src[lex->pos];
    *out = (lcj_token){.type = LCJ_T_OP, .line = lex->line};
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++)
        if (at(lex, lex->pos, doubles[i])) {
            out->op = LCJ_OP2((uint16_t)doubles[i][0], (uint16_t)doubles[i][1]);
            lex->pos += 2;
            return true;
        }
    if (!c || !strchr("+-/*%~[](){}><=.:|,;", c))
        return lcj_comp_fail(comp, LC_JINJA_SYNTAX, lex->line, "unexpected char '%c' at %zu",
                             c >= ' ' && c < 0x7F ? c : '?', lex->pos);
    out->op = (uint16_t)(unsigned char)c;
    lex->pos++;
    return balance(comp, c);
}

static bool lex_tag(lcj_comp *comp, lcj_token *out) {
    lcj_lexer *lex = &comp->lex;
    if (lex_close(lex, out)) return true;
    advance_to(lex, skip_space(lex, lex->pos));
    *out = (lcj_token){.type = LCJ_T_EOF, .line = lex->line};
    if (lex->pos >= lex->len || lex_close(lex, out)) return true;
    size_t len;
    char c = lex->src[lex->pos];
    if (is_digit(c)) return lex_number(comp, out);
    if (lcj_is_word(lcj_char_at(lex->src + lex->pos, &len))) return lex_name(comp, out);
    if (c == '\'' || c == '"') return lex_string(comp, out);
    return lex_operator(comp, out);
}

bool lcj_lex_next(lcj_comp *comp, lcj_token *out) {
    if (comp->lex.state != ROOT) return lex_tag(comp, out);
    for (bool again = true; again;) {
        again = false;
        if (!lex_root(comp, out, &again)) return false;
    }
    return true;
}

/* ---- string literals ---- */

static int hex(const char *s, size_t count, size_t room, uint32_t *out) {
    *out = 0;
    if (room < count) return -1;
    for (size_t i = 0; i < count; i++) {
        char c = (char)(s[i] | 0x20);
        int d = is_digit(s[i]) ? s[i] - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (d < 0) return -1;
        *out = *out << 4 | (uint32_t)d;
    }
    return 0;
}

/* Python's "unicode-escape" after "backslashreplace": a backslash before a character outside ASCII
 * keeps that character's own escape as text. */
static size_t plain_escape(const char *s, char *to) {
    size_t len;
    uint32_t code = lcj_char_at(s, &len);
    static const char digits16[] = "0123456789abcdef";
    int count = code < 0x100 ? 2 : code < 0x10000 ? 4 : 8;
    size_t n = 0;
    to[n++] = '\\';
    to[n++] = code < 0x100 ? 'x' : code < 0x10000 ? 'u' : 'U';
    for (int i = count - 1; i >= 0; i--) to[n++] = digits16[code >> (4 * i) & 15];
    return n;
}

static char simple_escape(char c) {
    switch (c) {
    case '\\': return '\\';
    case '\'': return '\'';
    case '"': return '"';
    case 'a': return '\a';
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'v': return '\v';
    default: return 0;
    }
}

/* The escape behind a backslash at s; bytes read, 0 after a failure. */
static size_t unescape_one(lcj_comp *comp, const char *s, size_t room, uint32_t line, char *to,
                           size_t *n) {
    char c = s[0];
    uint32_t code = 0;
    size_t used = 1;
    if (c == '\n') return 1;
    if (simple_escape(c)) {
        to[(*n)++] = simple_escape(c);
        return 1;
    }
    if (c >= '0' && c <= '7') {
        for (used = 0; used < 3 && used < room && s[used] >= '0' && s[used] <= '7'; used++)
            code = code * 8 + (uint32_t)(s[used] - '0');
    } else if (c == 'x' || c == 'u' || c == 'U') {
        size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        if (hex(s + 1, count, room - 1, &code) || code > 0x10FFFF) {
            lcj_comp_fail(comp, LC_JINJA_SYNTAX, line, "bad \\%c escape in a string", c);
            return 0;
        }
        used = count + 1;
    } else if (c == 'N') {
        lcj_comp_fail(comp, LC_JINJA_UNSUPPORTED, line, "the escape \\N{...} is not supported");
        return 0;
    } else {
        lcj_char_at(s, &used);
        if (used > 1) {
            *n += plain_escape(s, to + *n);
            return used;
        }
        to[(*n)++] = '\\';
        to[(*n)++] = c;
        return 1;
    }
    if (code >= 0xD800 && code <= 0xDFFF) {
        lcj_comp_fail(comp, LC_JINJA_UNSUPPORTED, line, "a lone surrogate is not supported");
        return 0;
    }
    *n += lc_utf8_encode(code, to + *n);
    return used;
}

bool lcj_unescape(lcj_comp *comp, lcj_str raw, uint32_t line, lcj_str *out) {
    if (!raw.len || !memchr(raw.s, '\\', raw.len)) {
        *out = raw;
        return true;
    }
    /* the longest growth: backslash and 4 bytes become 11 */
    char *to = lcj_comp_alloc(comp, (size_t)raw.len * 3 + 16);
    if (!to) return false;
    size_t n = 0;
    for (size_t i = 0; i < raw.len;) {
        if (raw.s[i] != '\\') {
            to[n++] = raw.s[i++];
            continue;
        }
        size_t used = unescape_one(comp, raw.s + i + 1, raw.len - i - 1, line, to, &n);
        if (!used) return false;
        i += 1 + used;
    }
    *out = (lcj_str){to, (uint32_t)n};
    return true;
}
