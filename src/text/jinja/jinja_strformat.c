/*
 * jinja_strformat.c: "{}".format(...) and format_map, as Python's string.Formatter does it in the
 * sandbox: fields look up attributes and items by the template's own rules.
 */
#include "text/jinja/jinja_internal.h"

typedef struct formatter {
    lcj_rt *rt;
    const lcj_call *call;
    lcj_val mapping; /* format_map's argument, or LCJ_MISSING */
    bool safe, manual, automatic;
    uint32_t next;
} formatter;

static bool value_error(lcj_rt *rt, const char *text) {
    return lcj_fail(rt, LC_JINJA_VALUE, "%s", text);
}

static bool put_fields(formatter *f, lcj_str text, int depth);

/* ---- which value ---- */

static bool keyword(formatter *f, lcj_str name, lcj_val *out) {
    *out = lcj_missing();
    if (f->mapping.type == LCJ_DICT) {
        if (!lcj_dict_get_str(f->rt, f->mapping.u.dict, name, out)) return false;
    } else {
        for (uint32_t i = 0; i < f->call->n_kwargs; i++)
            if (lcj_str_eq(f->call->kwargs[i].name, name)) *out = f->call->kwargs[i].value;
    }
    if (out->type != LCJ_MISSING) return true;
    return lcj_fail(f->rt, LC_JINJA_VALUE, "no argument '%.*s' for a format",
                    name.len > 80 ? 80 : (int)name.len, name.s);
}

static bool is_digits(lcj_str s) {
    for (uint32_t i = 0; i < s.len; i++)
        if (s.s[i] < '0' || s.s[i] > '9') return false;
    return s.len != 0;
}

static bool argument(formatter *f, lcj_str name, lcj_val *out) {
    int64_t index = f->next;
    bool ok = true;
    if (name.len && !is_digits(name)) return keyword(f, name, out);
    if (name.len) {
        f->manual = true;
        if (!lcj_parse_int(f->rt, name, 10, &ok, &index)) return false;
    } else {
        f->automatic = true;
        f->next++;
    }
    if (f->manual && f->automatic)
        return value_error(f->rt, "cannot switch between manual field specification and automatic "
                                  "field numbering");
    if (f->mapping.type != LCJ_MISSING || index >= f->call->n_args)
        return value_error(f->rt, "Replacement index out of range for positional args tuple");
    *out = f->call->args[index];
    return true;
}

static bool lookup(formatter *f, lcj_str field, lcj_val *out) {
    uint32_t i = 0;
    *out = lcj_none();
    while (i < field.len && field.s[i] != '.' && field.s[i] != '[') i++;
    if (!argument(f, (lcj_str){field.s, i}, out)) return false;
    while (i < field.len) {
        bool attribute = field.s[i++] == '.';
        uint32_t from = i;
        while (i < field.len &&
               (attribute ? field.s[i] != '.' && field.s[i] != '[' : field.s[i] != ']'))
            i++;
        lcj_str part = {field.s + from, i - from};
        if (!part.len) return value_error(f->rt, "Empty attribute in format string");
        if (attribute) {
            if (!lcj_getattr(f->rt, *out, part, out)) return false;
            continue;
        }
        if (i == field.len) return value_error(f->rt, "Missing ']' in format string");
        i++;
        if (i < field.len && field.s[i] != '.' && field.s[i] != '[')
            return value_error(f->rt, "Only '.' or '[' may follow ']' in format field specifier");
        lcj_val key = lcj_text(part);
        bool ok;
        if (is_digits(part)) {
            key = lcj_int(0);
            if (!lcj_parse_int(f->rt, part, 10, &ok, &key.u.i)) return false;
        }
        if (!lcj_getitem(f->rt, *out, key, out)) return false;
    }
    return true;
}

/* ---- how it looks ---- */

static bool read_digits(lcj_rt *rt, lcj_str s, uint32_t *i, int64_t *out) {
    for (*out = 0; *i < s.len && s.s[*i] >= '0' && s.s[*i] <= '9'; ++*i) {
        *out = *out * 10 + (s.s[*i] - '0');
        if (*out > UINT32_MAX) return lcj_limit(rt, "output");
    }
    return true;
}

static bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

static bool read_spec(lcj_rt *rt, lcj_str s, lcj_spec *spec) {
    uint32_t i = 0;
    size_t len = 1;
    *spec = (lcj_spec){.precision = -1};
    if (s.len) lcj_char_at(s.s, &len);
    if (len < s.len && is_align(s.s[len])) {
        spec->fill = lcj_char_at(s.s, &len);
        spec->align = s.s[len];
        i = (uint32_t)len + 1;
    } else if (s.len && is_align(s.s[0])) {
        spec->align = s.s[i++];
    }
    if (i < s.len && (s.s[i] == '+' || s.s[i] == '-' || s.s[i] == ' ')) {
        spec->sign = s.s[i++];
    }
    if (i < s.len && s.s[i] == '#') spec->alt = true, i++;
    if (i < s.len && s.s[i] == '0') {
        if (!spec->align) spec->zero = true;
        if (!spec->fill) spec->fill = '0';
        i++;
    }
    if (!read_digits(rt, s, &i, &spec->width)) return false;
    if (i < s.len && (s.s[i] == ',' || s.s[i] == '_')) spec->group = s.s[i++];
    if (i < s.len && s.s[i] == '.') {
        uint32_t from = ++i;
        if (!read_digits(rt, s, &i, &spec->precision)) return false;
        if (i == from) return value_error(rt, "Format specifier missing precision");
    }
    if (i < s.len) spec->type = s.s[i++];
    return i == s.len || value_error(rt, "Invalid format specifier");
}

static bool put_string(lcj_rt *rt, lcj_val s, const lcj_spec *spec) {
    size_t chars;
    if (spec->type && spec->type != 's')
        return value_error(rt, "Unknown format code for object of type 'str'");
    if (spec->sign || spec->alt || spec->group || spec->align == '=')
        return value_error(rt, "a format option is not allowed for strings");
    if (spec->width > (int64_t)rt->out_limit) return lcj_limit(rt, "output");
    if (!lcj_char_count(rt, s, &chars)) return false;
    if (spec->precision >= 0 && spec->precision < (int64_t)chars)
        s = lcj_part(s, 0, lcj_char_offset(s, (size_t)spec->precision));
    return lcj_put_padded(rt, s, spec, spec->align ? spec->align : '<');
}

static bool put_formatted_number(lcj_rt *rt, lcj_val v, lcj_spec *spec) {
    bool is_float = v.type == LCJ_FLOAT, as_float = spec->type && strchr("eEfFgG%", spec->type);
    if (spec->type == 'n' || spec->type == 'c' || (is_float && !spec->type && spec->precision >= 0))
        return lcj_unsupported(rt, "this number format");
    bool known = as_float || !spec->type || (!is_float && strchr("bdoxX", spec->type));
    if (!known) return value_error(rt, "Unknown format code for a number");
    if (!is_float && !as_float && spec->precision >= 0)
        return value_error(rt, "Precision not allowed in integer format specifier");
    if (spec->group == ',' && spec->type && strchr("boxX", spec->type))
        return value_error(rt, "Cannot specify ',' with this type");
    if (spec->group == '_' && (is_float || as_float))
        return lcj_unsupported(rt, "grouping of a float by _");
    if (!is_float && !as_float && !spec->type) spec->type = 'd';
    return lcj_put_number(rt, v, spec);
}

/* format(v, text) */
static bool put_formatted(lcj_rt *rt, lcj_val v, lcj_str text) {
    lcj_spec spec;
    if (!text.len) return lcj_put_str(rt, v);
    if (!lcj_is_string(v) && !lcj_is_number(v))
        return lcj_fail(rt, LC_JINJA_TYPE, "unsupported format string passed to %s.__format__",
                        lcj_type_name(v));
    if (!read_spec(rt, text, &spec)) return false;
    return lcj_is_string(v) ? put_string(rt, v, &spec) : put_formatted_number(rt, v, &spec);
}

static bool put_value(formatter *f, lcj_val v, lcj_str spec) {
    lcj_rt *rt = f->rt;
    size_t start = rt->out.len;
    lcj_val text;
    if (!f->safe) return put_formatted(rt, v, spec);
    if (lcj_is_string(v) && v.flags & LCJ_SAFE) {
        if (spec.len) return value_error(rt, "Unsupported format specification for Markup.");
        return lcj_put_str(rt, v);
    }
    return put_formatted(rt, v, spec) && lcj_take(rt, start, &text) && lcj_put_escaped(rt, text);
}

/* ---- the format string ---- */

static bool convert(formatter *f, char how, lcj_val *v) {
    size_t start = f->rt->out.len;
    switch (how) {
    case 0: return true;
    case 's': return lcj_to_str(f->rt, *v, v);
    case 'r': return lcj_put_repr(f->rt, *v) && lcj_take(f->rt, start, v);
    case 'a': return lcj_unsupported(f->rt, "the conversion !a");
    default: return value_error(f->rt, "Unknown conversion specifier");
    }
}

/* What stands between braces: name, conversion, specification. */
static bool put_field(formatter *f, lcj_str field, int depth) {
    uint32_t i = 0;
    int square = 0;
    for (; i < field.len; i++) {
        if (field.s[i] == '[') square++;
        if (field.s[i] == ']') square = 0;
        if (!square && (field.s[i] == '!' || field.s[i] == ':')) break;
    }
    lcj_str name = {field.s, i}, spec = {"", 0};
    char how = 0;
    lcj_val v = lcj_none(), text = v;
    if (i < field.len && field.s[i] == '!') {
        if (i + 1 >= field.len)
            return value_error(f->rt, "end of string while looking for "
                                      "conversion specifier");
        how = field.s[i + 1];
        i += 2;
        if (i < field.len && field.s[i] != ':')
            return value_error(f->rt, "expected ':' after conversion specifier");
    }
    if (i < field.len) spec = (lcj_str){field.s + i + 1, field.len - i - 1};
    if (!lookup(f, name, &v) || !convert(f, how, &v)) return false;
    if (spec.len && memchr(spec.s, '{', spec.len)) {
        size_t start = f->rt->out.len;
        if (depth) return value_error(f->rt, "Max string recursion exceeded");
        bool safe = f->safe; /* the specification is escaped with the rest */
        f->safe = false;
        if (!put_fields(f, spec, depth + 1) || !lcj_take(f->rt, start, &text)) return false;
        f->safe = safe;
        spec = lcj_bytes(text);
    }
    return put_value(f, v, spec);
}

static bool put_fields(formatter *f, lcj_str text, int depth) {
    const char *s = text.s, *end = s + text.len;
    while (s < end) {
        if (!lcj_tick(f->rt, 1)) return false;
        if (s + 1 < end && s[0] == s[1] && (*s == '{' || *s == '}')) {
            if (!lcj_putc(f->rt, *s)) return false;
            s += 2;
            continue;
        }
        if (*s == '}') return value_error(f->rt, "Single '}' encountered in format string");
        if (*s != '{') {
            const char *from = s;
            while (s < end && *s != '{' && *s != '}') s++;
            if (!lcj_put(f->rt, from, (size_t)(s - from))) return false;
            continue;
        }
        const char *from = ++s;
        for (int open = 1; s < end; s++) {
            if (*s == '{') open++;
            if (*s == '}' && !--open) break;
        }
        if (s >= end) return value_error(f->rt, "expected '}' before end of string");
        if (!put_field(f, (lcj_str){from, (uint32_t)(s - from)}, depth)) return false;
        s++;
    }
    return true;
}

bool lcj_str_format(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    formatter f = {.rt = rt, .call = call, .mapping = lcj_missing()};
    size_t start = rt->out.len;
    f.safe = call->self.flags & LCJ_SAFE;
    if (!strcmp(call->def->name, "format_map")) {
        if (call->n_args != 1 || call->n_kwargs)
            return lcj_fail(rt, LC_JINJA_TYPE, "format_map() takes exactly one argument");
        f.mapping = call->args[0];
        if (f.mapping.type != LCJ_DICT) return lcj_unsupported(rt, "format_map of this value");
    }
    if (!put_fields(&f, lcj_bytes(call->self), 0) || !lcj_take(rt, start, out)) return false;
    out->flags |= call->self.flags & LCJ_SAFE;
    return true;
}
