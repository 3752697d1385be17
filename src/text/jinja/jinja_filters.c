/*
 * jinja_filters.c: filters on any value: default, length, list, numbers, marks, JSON. The ones on
 * sequences and on text have files of their own; the tables here, there and there are searched in
 * turn. A filter without a function is known to the reference and not supported.
 */
#include "text/jinja/jinja_internal.h"

#include <math.h>
#include <stdio.h>

static bool filter_default(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    bool by_truth = false, truth = true;
    if (call->bound[1].type != LCJ_MISSING && !lcj_truth(rt, call->bound[1], &by_truth))
        return false;
    if (by_truth && !lcj_truth(rt, call->self, &truth)) return false;
    *out = call->self;
    if (!lcj_is_undefined(call->self) && truth) return true;
    *out = call->bound[0].type == LCJ_MISSING ? lcj_text(LCJ_STR("")) : call->bound[0];
    return true;
}

static bool filter_length(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    int64_t len;
    if (!lcj_length(rt, call->self, &len)) return false;
    *out = lcj_int(len);
    return true;
}

static bool filter_list(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_to_list(rt, call->self, LCJ_LIST, out);
}

static bool filter_first(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_iter it;
    if (!lcj_iter_open(rt, call->self, &it)) return false;
    int n = lcj_iter_next(rt, &it, out);
    if (!n) *out = lcj_undefined_hint("No first item, sequence was empty.");
    return n >= 0;
}

static bool filter_last(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val reversed;
    bool ok;
    if (!lcj_reversed(rt, call->self, &ok, &reversed)) return false;
    if (!ok)
        return lcj_fail(rt, LC_JINJA_TYPE, "'%s' object is not reversible",
                        lcj_type_name(call->self));
    int n = lcj_iter_next(rt, reversed.u.iter, out);
    if (!n) *out = lcj_undefined_hint("No last item, sequence was empty.");
    return n >= 0;
}

static bool filter_items(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_iter_value(rt, LCJ_IT_PAIRS, call->self, NULL, out);
}

static bool filter_attr(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val name = call->bound[0];
    if (!lcj_is_string(name))
        return lcj_fail(rt, LC_JINJA_TYPE, "attribute name must be string, not '%s'",
                        lcj_type_name(name));
    if (!lcj_attribute(rt, call->self, lcj_bytes(name), out)) return false;
    return out->type != LCJ_MISSING || lcj_undefined_item(rt, call->self, name, out);
}

/* ---- text and marks ---- */

static bool filter_string(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_soft_str(rt, call->self, out);
}

static bool filter_safe(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    if (!lcj_to_str(rt, call->self, out)) return false;
    out->flags |= LCJ_SAFE;
    return true;
}

static bool filter_escape(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_escape(rt, call->self, out);
}

static bool filter_forceescape(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val text;
    return lcj_to_str(rt, call->self, &text) && lcj_escape(rt, text, out);
}

/* Python's pformat where it is one line for certain. */
static bool filter_pprint(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val v = call->self;
    size_t start = rt->out.len;
    bool simple = v.type == LCJ_NONE || lcj_is_number(v) || (lcj_is_string(v) && v.len <= 16);
    if (!simple || v.flags & LCJ_SAFE) return lcj_unsupported(rt, "pprint of this value");
    return lcj_put_repr(rt, v) && lcj_take(rt, start, out);
}

/* ---- numbers ---- */

/* int(float(value)) or the default, where int(value) was not possible. */
static bool int_by_float(lcj_rt *rt, lcj_call *call, lcj_val fallback, lcj_val *out) {
    bool ok = false;
    double f = 0;
    *out = fallback;
    if (lcj_is_string(call->self) && !lcj_parse_float(rt, lcj_bytes(call->self), &ok, &f))
        return false;
    return !ok || !isfinite(f) || lcj_float_to_int(rt, f, out);
}

static bool filter_int(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val v = call->self;
    lcj_val fallback = call->bound[0].type == LCJ_MISSING ? lcj_int(0) : call->bound[0];
    int64_t base = 10, value;
    bool ok = true;
    if (lcj_is_undefined(v)) return lcj_fail_undefined(rt, v);
    if (lcj_is_string(v)) {
        if (call->bound[1].type == LCJ_INT) base = call->bound[1].u.i;
        if (call->bound[1].type > LCJ_INT) base = -1; /* a TypeError, which is caught */
        if (!lcj_parse_int(rt, lcj_bytes(v), base, &ok, &value)) return false;
        if (!ok) return int_by_float(rt, call, fallback, out);
        *out = lcj_int(value);
        return true;
    }
    *out = fallback;
    if (v.type == LCJ_FLOAT) return isnan(v.u.f) || lcj_float_to_int(rt, v.u.f, out);
    if (lcj_is_integer(v)) *out = v.type == LCJ_BIG ? v : lcj_int(lcj_as_int(v));
    return true;
}

static bool filter_float(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val v = call->self;
    bool ok = true;
    double f = 0;
    if (lcj_is_undefined(v)) return lcj_fail_undefined(rt, v);
    if (lcj_is_string(v)) {
        if (!lcj_parse_float(rt, lcj_bytes(v), &ok, &f)) return false;
    } else if (v.type == LCJ_FLOAT) {
        f = v.u.f;
    } else if (lcj_is_integer(v)) {
        f = lcj_as_double(v);
    } else {
        ok = false;
    }
    *out = ok ? lcj_float(f) : call->bound[0].type == LCJ_MISSING ? lcj_float(0) : call->bound[0];
    return true;
}

static bool filter_abs(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val v = call->self;
    if (v.type == LCJ_FLOAT) {
        *out = lcj_float(fabs(v.u.f));
        return true;
    }
    if (!lcj_is_integer(v))
        return lcj_fail(rt, LC_JINJA_TYPE, "bad operand type for abs(): '%s'", lcj_type_name(v));
    return lcj_negate(rt, v, v.type == LCJ_BIG ? v.u.s[0] == '-' : lcj_as_int(v) < 0, out);
}

/* value to a multiple of 10^digits, half to even */
static bool round_int(lcj_rt *rt, int64_t value, int64_t digits, lcj_val *out) {
    int64_t unit = 1;
    *out = lcj_int(digits > 18 ? 0 : value);
    if (digits <= 0 || digits > 18) return true;
    while (digits--) unit *= 10;
    int64_t rest = value % unit, down = value - rest, half = unit / 2;
    int64_t size = rest < 0 ? -rest : rest;
    bool up = size > half || (size == half && (down / unit) % 2 != 0);
    if (up && __builtin_add_overflow(down, rest < 0 ? -unit : unit, &down))
        return lcj_unsupported(rt, "an integer beyond 64 bits");
    *out = lcj_int(down);
    return true;
}

/* ceil or floor of value * 10^digits, divided by that again */
static bool round_to(lcj_rt *rt, lcj_val value, int64_t digits, bool up, lcj_val *out) {
    lcj_val scale, scaled;
    if (!lcj_arith(rt, LCJ_POW, lcj_int(10), lcj_int(digits), &scale) ||
        !lcj_arith(rt, LCJ_MUL, value, scale, &scaled))
        return false;
    if (scaled.type == LCJ_FLOAT &&
        !lcj_float_to_int(rt, up ? ceil(scaled.u.f) : floor(scaled.u.f), &scaled))
        return false;
    return lcj_arith(rt, LCJ_DIV, scaled, scale, out);
}

static bool filter_round(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val v = call->self, method = call->bound[1];
    int64_t digits = 0;
    char how = 'c';
    if (lcj_is_string(method)) {
        how = 0;
        if (lcj_str_eq(lcj_bytes(method), LCJ_STR("common"))) how = 'c';
        if (lcj_str_eq(lcj_bytes(method), LCJ_STR("ceil"))) how = 'u';
        if (lcj_str_eq(lcj_bytes(method), LCJ_STR("floor"))) how = 'd';
    }
    if (!how || (method.type != LCJ_MISSING && !lcj_is_string(method)))
        return lcj_fail(rt, LC_JINJA_RUNTIME, "method must be common, ceil or floor");
    if (call->bound[0].type == LCJ_NONE) return lcj_unsupported(rt, "round(none)");
    if (call->bound[0].type != LCJ_MISSING && !lcj_index(rt, call->bound[0], &digits)) return false;
    if (!lcj_is_number(v) || v.type == LCJ_BIG)
        return lcj_fail(rt, v.type == LCJ_BIG ? LC_JINJA_UNSUPPORTED : LC_JINJA_TYPE,
                        "type %s doesn't define __round__ method", lcj_type_name(v));
    if (how != 'c') return round_to(rt, v, digits, how == 'u', out);
    if (v.type != LCJ_FLOAT)
        return round_int(rt, lcj_as_int(v), digits < 0 ? (digits < -18 ? 19 : -digits) : 0, out);
    double f;
    if (!lcj_round(rt, v.u.f, digits, &f)) return false;
    *out = lcj_float(f);
    return true;
}

static bool filter_filesizeformat(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    static const double decimal[] = {1e6, 1e9, 1e12, 1e15, 1e18, 1e21, 1e24, 1e27};
    bool binary = false;
    char text[400];
    size_t start = rt->out.len;
    lcj_val number = call->self;
    if (call->bound[0].type != LCJ_MISSING && !lcj_truth(rt, call->bound[0], &binary)) return false;
    if (lcj_is_string(number) || !lcj_is_number(number) || number.type == LCJ_BIG)
        return lcj_unsupported(rt, "filesizeformat of this value");
    double bytes = number.type == LCJ_FLOAT ? number.u.f : (double)lcj_as_int(number);
    double base = binary ? 1024 : 1000;
    if (!isfinite(bytes)) return lcj_unsupported(rt, "filesizeformat of this value");
    if (bytes == 1) {
        snprintf(text, sizeof text, "1 Byte");
    } else if (bytes < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
    } else {
        int i = 0;
        double unit = 0;
        for (;; i++) {
            unit = binary ? ldexp(1, 10 * (i + 2)) : decimal[i];
            if (bytes < unit || i == 7) break;
        }
        snprintf(text, sizeof text, "%.1f %c%sB", base * bytes / unit,
                 (binary ? "KMGTPEZY" : "kMGTPEZY")[i], binary ? "i" : "");
    }
    return lcj_put(rt, text, strlen(text)) && lcj_take(rt, start, out);
}

const lcj_def lcj_filters[] = {
    {"default", filter_default, "default_value? boolean?", LCJ_DEF_PLAIN},
    {"d", filter_default, "default_value? boolean?", LCJ_DEF_PLAIN},
    {"tojson", lcj_tojson, "ensure_ascii? indent? separators? sort_keys?", LCJ_DEF_PLAIN},
    {"length", filter_length, "", LCJ_DEF_PLAIN},
    {"count", filter_length, "", LCJ_DEF_PLAIN},
    {"list", filter_list, "", LCJ_DEF_PLAIN},
    {"first", filter_first, "", LCJ_DEF_PLAIN},
    {"last", filter_last, "", LCJ_DEF_PLAIN},
    {"items", filter_items, "", LCJ_DEF_PLAIN},
    {"attr", filter_attr, "name", LCJ_DEF_PLAIN},
    {"string", filter_string, "", LCJ_DEF_PLAIN},
    {"safe", filter_safe, "", LCJ_DEF_PLAIN},
    {"escape", filter_escape, "", LCJ_DEF_PLAIN},
    {"e", filter_escape, "", LCJ_DEF_PLAIN},
    {"forceescape", filter_forceescape, "", LCJ_DEF_PLAIN},
    {"pprint", filter_pprint, "", LCJ_DEF_PLAIN},
    {"int", filter_int, "default? base?", LCJ_DEF_PLAIN},
    {"float", filter_float, "default?", LCJ_DEF_PLAIN},
    {"abs", filter_abs, "", LCJ_DEF_PLAIN},
    {"round", filter_round, "precision? method?", LCJ_DEF_PLAIN},
    {"filesizeformat", filter_filesizeformat, "binary?", LCJ_DEF_PLAIN},
    {"random", NULL, "", LCJ_DEF_PLAIN},
    {"urlize", NULL, "*", LCJ_DEF_PLAIN},
    {NULL, NULL, NULL, 0}};
