/*
 * jinja_format.c: numbers and strings by a format specification, and "%s" % args.
 *
 * The C library rounds floats as Python does (exactly, half to even), so %e, %f and %g are its own.
 * Widths and precisions come from templates: they are bounded by the limit of output before
 * anything is written.
 */
#include "text/jinja/jinja_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { MAX_PRECISION = 1000 };

/* ---- one value ---- */

bool lcj_put_padded(lcj_rt *rt, lcj_val s, const lcj_spec *spec, char align) {
    size_t chars;
    char fill[4] = {' '};
    size_t fill_len = spec->fill ? lc_utf8_encode(spec->fill, fill) : 1;
    if (!lcj_char_count(rt, s, &chars)) return false;
    int64_t pad = spec->width > (int64_t)chars ? spec->width - (int64_t)chars : 0, left = 0;
    if (align == '>') left = pad;
    if (align == '^') left = pad / 2;
    return lcj_put_repeat(rt, fill, fill_len, left) && lcj_put(rt, s.u.s, s.len) &&
           lcj_put_repeat(rt, fill, fill_len, pad - left);
}

/* Digits of an unsigned number in base 2, 8, 10 or 16, at the end of text. */
static char *digits_of(uint64_t value, unsigned base, bool upper, char *end) {
    const char *set = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    do *--end = set[value % base];
    while (value /= base);
    return end;
}

/* A number in parts: sign, prefix such as 0x, digits with what follows. */
typedef struct number {
    char sign, prefix[3];
    const char *body;
    size_t len;
    size_t whole; /* leading digits that may be grouped */
    unsigned group;
} number;

static bool put_grouped(lcj_rt *rt, const number *n, char separator) {
    if (!separator) return lcj_put(rt, n->body, n->len);
    for (size_t i = 0; i < n->whole; i++)
        if ((i && (n->whole - i) % n->group == 0 && !lcj_putc(rt, separator)) ||
            !lcj_putc(rt, n->body[i]))
            return false;
    return lcj_put(rt, n->body + n->whole, n->len - n->whole);
}

static bool put_number_parts(lcj_rt *rt, const number *n, const lcj_spec *spec) {
    size_t start = rt->out.len;
    lcj_val text;
    bool zeros = spec->zero || (spec->align == '=' && spec->fill == '0');
    if (n->sign && !lcj_putc(rt, n->sign)) return false;
    if (!lcj_put(rt, n->prefix, strlen(n->prefix))) return false;
    if (zeros || spec->align == '=') {
        char fill[4] = {'0'};
        size_t fill_len = zeros || !spec->fill ? 1 : lc_utf8_encode(spec->fill, fill);
        if (!zeros && !spec->fill) fill[0] = ' ';
        int64_t used = (int64_t)(rt->out.len - start + n->len);
        if (spec->group) return lcj_unsupported(rt, "grouping with padding inside a number");
        return lcj_put_repeat(rt, fill, fill_len, spec->width - used) &&
               lcj_put(rt, n->body, n->len);
    }
    return put_grouped(rt, n, spec->group) && lcj_take(rt, start, &text) &&
           lcj_put_padded(rt, text, spec, spec->align ? spec->align : '>');
}

static char sign_of(bool minus, const lcj_spec *spec) {
    return minus ? '-' : spec->sign == '-' ? 0 : spec->sign;
}

static bool put_integer(lcj_rt *rt, lcj_val v, const lcj_spec *spec) {
    char text[80], *end = text + sizeof text;
    bool big = v.type == LCJ_BIG, minus = big ? v.u.s[0] == '-' : lcj_as_int(v) < 0;
    unsigned base = spec->type == 'b'                        ? 2
                    : spec->type == 'o'                      ? 8
                    : spec->type == 'x' || spec->type == 'X' ? 16
                                                             : 10;
    number n = {.sign = sign_of(minus, spec), .group = base == 10 ? 3 : 4};
    if (big && base != 10) return lcj_unsupported(rt, "an integer beyond 64 bits");
    if (big) {
        n.body = v.u.s + minus;
        n.len = n.whole = v.len - minus;
    } else {
        uint64_t size = minus ? 0 - (uint64_t)lcj_as_int(v) : (uint64_t)lcj_as_int(v);
        n.body = digits_of(size, base, spec->type == 'X', end);
        n.len = n.whole = (size_t)(end - n.body);
    }
    if (spec->alt && base != 10) {
        n.prefix[0] = '0';
        n.prefix[1] = spec->type;
    }
    if (spec->precision > (int64_t)n.len) { /* "%.5d": leading zeros */
        size_t start = rt->out.len;
        lcj_val padded;
        if (!lcj_put_repeat(rt, "0", 1, spec->precision - (int64_t)n.len) ||
            !lcj_put(rt, n.body, n.len) || !lcj_take(rt, start, &padded))
            return false;
        n.body = padded.u.s;
        n.len = n.whole = padded.len;
    }
    return put_number_parts(rt, &n, spec);
}

static bool put_float(lcj_rt *rt, double f, const lcj_spec *spec) {
    char text[1400], format[] = {'%', '#', '.', '*', 'f', 0}, plain[] = {'%', '.', '*', 'f', 0};
    char type = spec->type;
    int precision = spec->precision < 0 ? 6 : (int)spec->precision;
    number n = {.sign = sign_of(signbit(f), spec), .body = text, .group = 3};
    if (spec->precision > MAX_PRECISION) return lcj_limit(rt, "digits of a number");
    if (!lcj_tick(rt, LCJ_FLOAT_STEPS + (uint64_t)precision)) return false;
    if (type == '%') {
        f *= 100;
        type = 'f';
    }
    if (!isfinite(f)) {
        bool upper = type == 'F' || type == 'E' || type == 'G';
        n.sign = isnan(f) ? sign_of(false, spec) : n.sign;
        snprintf(text, sizeof text, "%s",
                 isnan(f) ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf"));
    } else if (!type) {
        text[lcj_float_repr(fabs(f), text)] = 0;
    } else {
        format[4] = plain[3] = type;
        snprintf(text, sizeof text, spec->alt ? format : plain, precision, fabs(f));
    }
    n.len = strlen(text);
    if (spec->type == '%') text[n.len++] = '%';
    while (n.whole < n.len && text[n.whole] >= '0' && text[n.whole] <= '9') n.whole++;
    return put_number_parts(rt, &n, spec);
}

bool lcj_put_number(lcj_rt *rt, lcj_val v, const lcj_spec *spec) {
    if (spec->width > (int64_t)rt->out_limit) return lcj_limit(rt, "output");
    if (v.type == LCJ_FLOAT || (spec->type && strchr("eEfFgG%", spec->type))) {
        return put_float(rt, lcj_as_double(v), spec);
    }
    return put_integer(rt, v, spec);
}

/* ---- "%" ---- */

typedef struct percent {
    lcj_rt *rt;
    lcj_val args;
    const char *s, *end;
    uint32_t next; /* argument of a tuple */
    bool used;     /* the one argument that is no tuple */
    bool safe;
} percent;

static bool next_arg(percent *p, lcj_val *out) {
    if (p->args.type == LCJ_TUPLE) {
        if (p->next < p->args.u.list->len) {
            *out = p->args.u.list->items[p->next++];
            return true;
        }
    } else if (!p->used) {
        p->used = true;
        *out = p->args;
        return true;
    }
    return lcj_fail(p->rt, LC_JINJA_TYPE, "not enough arguments for format string");
}

/* "(key)": the value under the key is the argument. */
static bool keyed_arg(percent *p, lcj_val *out) {
    const char *start = ++p->s;
    for (int open = 1; p->s < p->end; p->s++) {
        if (*p->s == '(') open++;
        if (*p->s == ')' && !--open) break;
    }
    if (p->s == p->end) return lcj_fail(p->rt, LC_JINJA_VALUE, "incomplete format key");
    lcj_str key = {start, (uint32_t)(p->s - start)};
    p->s++;
    p->used = true;
    if (p->args.type != LCJ_DICT)
        return lcj_fail(p->rt, LC_JINJA_TYPE, "format requires a mapping");
    if (!lcj_dict_get_str(p->rt, p->args.u.dict, key, out)) return false;
    if (out->type != LCJ_MISSING) return true;
    return lcj_fail(p->rt, LC_JINJA_RUNTIME, "no key '%.*s' for a format",
                    key.len > 80 ? 80 : (int)key.len, key.s);
}

static bool number_or_star(percent *p, int64_t *out) {
    lcj_val v = lcj_none();
    if (p->s < p->end && *p->s == '*') {
        p->s++;
        if (!next_arg(p, &v)) return false;
        if (v.type != LCJ_INT && v.type != LCJ_BOOL)
            return lcj_fail(p->rt, LC_JINJA_TYPE, "* wants int");
        *out = lcj_as_int(v);
        return true;
    }
    for (*out = 0; p->s < p->end && *p->s >= '0' && *p->s <= '9'; p->s++) {
        *out = *out * 10 + (*p->s - '0');
        if (*out > UINT32_MAX) return lcj_limit(p->rt, "output");
    }
    return true;
}

static bool read_spec(percent *p, lcj_spec *spec) {
    *spec = (lcj_spec){.precision = -1};
    for (; p->s < p->end && *p->s && strchr("-+ #0", *p->s); p->s++) {
        if (*p->s == '-') spec->align = '<';
        if (*p->s == '+') spec->sign = '+';
        if (*p->s == ' ' && !spec->sign) spec->sign = ' ';
        if (*p->s == '#') spec->alt = true;
        if (*p->s == '0') spec->zero = true;
    }
    if (!number_or_star(p, &spec->width)) return false;
    if (spec->width < 0) {
        spec->align = '<';
        spec->width = spec->width == INT64_MIN ? INT64_MAX : -spec->width;
    }
    if (p->s < p->end && *p->s == '.') {
        p->s++;
        if (!number_or_star(p, &spec->precision)) return false;
        if (spec->precision < 0) spec->precision = 0;
    }
    if (p->s < p->end && *p->s && strchr("hlL", *p->s)) p->s++;
    if (p->s == p->end) return lcj_fail(p->rt, LC_JINJA_VALUE, "incomplete format");
    spec->type = *p->s++;
    if (spec->align == '<') spec->zero = false;
    return true;
}

static bool put_percent_text(percent *p, lcj_val v, const lcj_spec *spec) {
    lcj_rt *rt = p->rt;
    lcj_val text;
    size_t start = rt->out.len, chars;
    if (spec->type == 's') {
        if (!lcj_soft_str(rt, v, &text)) return false;
    } else if (!lcj_put_repr(rt, v) || !lcj_take(rt, start, &text)) {
        return false;
    }
    if (p->safe && !lcj_escape(rt, text, &text)) return false;
    if (spec->precision >= 0) {
        if (!lcj_char_count(rt, text, &chars)) return false;
        if (spec->precision < (int64_t)chars)
            text = lcj_part(text, 0, lcj_char_offset(text, (size_t)spec->precision));
    }
    return lcj_put_padded(rt, text, spec, spec->align == '<' ? '<' : '>');
}

static bool put_percent_char(percent *p, lcj_val v, const lcj_spec *spec) {
    char utf8[4];
    size_t chars;
    lcj_val text = v;
    if (v.type == LCJ_INT || v.type == LCJ_BOOL) {
        int64_t code = lcj_as_int(v);
        if (code < 0 || code > 0x10FFFF)
            return lcj_fail(p->rt, LC_JINJA_RUNTIME, "%%c arg not in range(0x110000)");
        if (code >= 0xD800 && code <= 0xDFFF) return lcj_unsupported(p->rt, "a lone surrogate");
        text = lcj_string(utf8, lc_utf8_encode((uint32_t)code, utf8));
    } else if (!lcj_is_string(v) || !lcj_char_count(p->rt, v, &chars) || chars != 1) {
        return lcj_fail(p->rt, LC_JINJA_TYPE, "%%c requires int or char");
    }
    return lcj_put_padded(p->rt, text, spec, spec->align == '<' ? '<' : '>');
}

static bool put_percent_number(percent *p, lcj_val v, lcj_spec *spec) {
    bool whole = strchr("diuoxX", spec->type) != NULL;
    bool decimal = whole && strchr("diu", spec->type);
    if (lcj_is_undefined(v) && !(whole && !decimal)) return lcj_fail_undefined(p->rt, v);
    if (!lcj_is_number(v) || (v.type == LCJ_FLOAT && whole && !decimal))
        return lcj_fail(p->rt, LC_JINJA_TYPE, "%%%c format: %s is required, not %s", spec->type,
                        whole && !decimal ? "an integer" : "a real number", lcj_type_name(v));
    if (decimal) {
        spec->type = 'd';
        if (v.type == LCJ_FLOAT && !lcj_float_to_int(p->rt, v.u.f, &v)) return false;
    }
    return lcj_put_number(p->rt, v, spec);
}

static bool put_conversion(percent *p) {
    lcj_val v = lcj_missing();
    lcj_spec spec;
    if (p->s < p->end && *p->s == '%') {
        p->s++;
        return lcj_putc(p->rt, '%');
    }
    if (p->s < p->end && *p->s == '(' && !keyed_arg(p, &v)) return false;
    if (!read_spec(p, &spec)) return false;
    if (!strchr("diouxXeEfFgGcrsa", spec.type) || !spec.type)
        return lcj_fail(p->rt, LC_JINJA_VALUE, "unsupported format character");
    if (spec.type == 'a') return lcj_unsupported(p->rt, "%a");
    if (v.type == LCJ_MISSING && !next_arg(p, &v)) return false;
    if (spec.type == 's' || spec.type == 'r') return put_percent_text(p, v, &spec);
    if (spec.type == 'c') return put_percent_char(p, v, &spec);
    return put_percent_number(p, v, &spec);
}

bool lcj_percent(lcj_rt *rt, lcj_val format, lcj_val args, lcj_val *out) {
    percent p = {.rt = rt,
                 .args = args,
                 .s = format.u.s,
                 .end = format.u.s + format.len,
                 .safe = format.flags & LCJ_SAFE};
    size_t start = rt->out.len;
    if (!lcj_tick_bytes(rt, format.len)) return false;
    while (p.s < p.end) {
        const char *sign = memchr(p.s, '%', (size_t)(p.end - p.s));
        size_t plain = (size_t)((sign ? sign : p.end) - p.s);
        if (!lcj_put(rt, p.s, plain)) return false;
        p.s += plain;
        if (!sign) break;
        p.s++;
        if (!lcj_tick(rt, 1) || !put_conversion(&p)) return false;
    }
    bool left = args.type == LCJ_TUPLE
                    ? p.next < args.u.list->len
                    : !p.used && args.type != LCJ_DICT && args.type != LCJ_LIST &&
                          args.type != LCJ_UNDEFINED && args.type != LCJ_RANGE_OBJ;
    if (left)
        return lcj_fail(rt, LC_JINJA_TYPE, "not all arguments converted during string formatting");
    if (!lcj_take(rt, start, out)) return false;
    out->flags |= format.flags & LCJ_SAFE;
    return true;
}
