/*
 * jinja_print.c: values as text: str(v) and repr(v) of Python.
 *
 * Everything goes to the end of the output buffer. Objects that Python prints with an address
 * (functions, generators) get a fixed text without one.
 */
#include "text/jinja/jinja_internal.h"

#include <inttypes.h>
#include <stdio.h>

static bool put_repr_at(lcj_rt *rt, lcj_val v, uint32_t nest);

static bool put_text(lcj_rt *rt, const char *text) { return lcj_put(rt, text, strlen(text)); }

bool lcj_put_int(lcj_rt *rt, lcj_val v) {
    char text[32];
    if (v.type == LCJ_BIG) return lcj_put(rt, v.u.s, v.len);
    int len = snprintf(text, sizeof text, "%" PRId64, lcj_as_int(v));
    return lcj_put(rt, text, (size_t)len);
}

static bool is_marked(const lcj_rt *rt, uint32_t code) {
    return code - rt->job->marks_first < rt->job->marks_count;
}

static bool put_escape(lcj_rt *rt, uint32_t code, char quote) {
    char text[12] = "";
    int len;
    if (code == (uint32_t)quote || code == '\\')
        len = snprintf(text, sizeof text, "\\%c", (int)code);
    else if (code == '\n' || code == '\r' || code == '\t')
        len = snprintf(text, sizeof text, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
    else
        len = snprintf(text, sizeof text,
                       code < 0x100     ? "\\x%02x"
                       : code < 0x10000 ? "\\u%04x"
                                        : "\\U%08x",
                       code);
    return lcj_put(rt, text, (size_t)len);
}

static bool put_string_repr(lcj_rt *rt, lcj_val s) {
    bool has_single = s.len && memchr(s.u.s, '\'', s.len);
    bool has_double = s.len && memchr(s.u.s, '"', s.len);
    char quote = has_single && !has_double ? '"' : '\'';
    if (s.flags & LCJ_SAFE && !put_text(rt, "Markup(")) return false;
    if (!lcj_putc(rt, quote) || !lcj_tick_chars(rt, s.len)) return false;
    size_t from = 0;
    for (size_t i = 0, len; i < s.len; i += len) {
        uint32_t code = lcj_char_at(s.u.s + i, &len);
        if (code != (uint32_t)quote && code != '\\' &&
            (lcj_is_printable(code) || is_marked(rt, code)))
            continue;
        if (!lcj_put(rt, s.u.s + from, i - from) || !put_escape(rt, code, quote)) return false;
        from = i + len;
    }
    if (!lcj_put(rt, s.u.s + from, s.len - from) || !lcj_putc(rt, quote)) return false;
    return !(s.flags & LCJ_SAFE) || lcj_putc(rt, ')');
}

static bool put_list(lcj_rt *rt, lcj_val v, uint32_t nest) {
    const lcj_list *list = v.u.list;
    if (!lcj_putc(rt, v.type == LCJ_LIST ? '[' : '(')) return false;
    for (uint32_t i = 0; i < list->len; i++)
        if ((i && !put_text(rt, ", ")) || !put_repr_at(rt, list->items[i], nest + 1)) return false;
    if (v.type == LCJ_LIST) return lcj_putc(rt, ']');
    return put_text(rt, list->len == 1 ? ",)" : ")");
}

static bool put_dict(lcj_rt *rt, const lcj_dict *dict, uint32_t nest) {
    if (!lcj_putc(rt, '{')) return false;
    for (uint32_t i = 0; i < dict->len; i++)
        if ((i && !put_text(rt, ", ")) || !put_repr_at(rt, dict->entries[i].key, nest + 1) ||
            !put_text(rt, ": ") || !put_repr_at(rt, dict->entries[i].value, nest + 1))
            return false;
    return lcj_putc(rt, '}');
}

static bool put_view(lcj_rt *rt, lcj_val v, uint32_t nest) {
    const lcj_dict *dict = v.u.dict;
    if (!put_text(rt, v.sub == 'k'   ? "dict_keys(["
                      : v.sub == 'v' ? "dict_values(["
                                     : "dict_items(["))
        return false;
    for (uint32_t i = 0; i < dict->len; i++) {
        const lcj_entry *e = &dict->entries[i];
        if (i && !put_text(rt, ", ")) return false;
        if (v.sub == 'i' && !lcj_putc(rt, '(')) return false;
        if (v.sub != 'v' && !put_repr_at(rt, e->key, nest + 1)) return false;
        if (v.sub == 'i' && !put_text(rt, ", ")) return false;
        if (v.sub != 'k' && !put_repr_at(rt, e->value, nest + 1)) return false;
        if (v.sub == 'i' && !lcj_putc(rt, ')')) return false;
    }
    return put_text(rt, "])");
}

static bool put_range(lcj_rt *rt, const lcj_range *r) {
    char text[96];
    int len =
        r->step == 1
            ? snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64 ")", r->start, r->stop)
            : snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64 ", %" PRId64 ")", r->start,
                       r->stop, r->step);
    return lcj_put(rt, text, (size_t)len);
}

static bool put_loop(lcj_rt *rt, lcj_loop *loop) {
    char text[64];
    int64_t length;
    if (!lcj_loop_length(rt, loop, &length)) return false;
    int len = snprintf(text, sizeof text, "<LoopContext %" PRId64 "/%" PRId64 ">", loop->index0 + 1,
                       length);
    return lcj_put(rt, text, (size_t)len);
}

static bool put_named(lcj_rt *rt, const char *before, lcj_str name, const char *after) {
    return put_text(rt, before) && lcj_put(rt, name.s, name.len) && put_text(rt, after);
}

static bool put_macro(lcj_rt *rt, const lcj_macro *macro) {
    if (macro->node->kind == LCJ_N_CALLBLOCK) return put_text(rt, "<Macro anonymous>");
    return put_named(rt, "<Macro '", macro->node->name, "'>");
}

static bool put_repr_at(lcj_rt *rt, lcj_val v, uint32_t nest) {
    if (nest > LCJ_NEST) return lcj_limit(rt, "nesting of values");
    if (!lcj_tick(rt, 1)) return false;
    switch (v.type) {
    case LCJ_UNDEFINED: return put_text(rt, "Undefined");
    case LCJ_NONE: return put_text(rt, "None");
    case LCJ_BOOL: return put_text(rt, v.u.b ? "True" : "False");
    case LCJ_INT:
    case LCJ_BIG: return lcj_put_int(rt, v);
    case LCJ_FLOAT: return lcj_put_float(rt, v.u.f);
    case LCJ_STRING: return put_string_repr(rt, v);
    case LCJ_LIST:
    case LCJ_TUPLE: return put_list(rt, v, nest);
    case LCJ_DICT: return put_dict(rt, v.u.dict, nest);
    case LCJ_VIEW: return put_view(rt, v, nest);
    case LCJ_RANGE_OBJ: return put_range(rt, v.u.range);
    case LCJ_NAMESPACE:
        return put_text(rt, "<Namespace ") && put_dict(rt, v.u.dict, nest + 1) && lcj_putc(rt, '>');
    case LCJ_FUNC:
        return put_named(rt, "<function ",
                         (lcj_str){v.u.def->name, (uint32_t)strlen(v.u.def->name)}, ">");
    case LCJ_METHOD: return put_named(rt, "<built-in method ", v.u.bound->name, ">");
    case LCJ_MACRO: return put_macro(rt, v.u.macro);
    case LCJ_LOOP: return put_loop(rt, v.u.loop);
    case LCJ_ITER: return put_text(rt, "<generator object>");
    case LCJ_CYCLER: return put_text(rt, "<jinja2.utils.Cycler object>");
    case LCJ_JOINER: return put_text(rt, "<jinja2.utils.Joiner object>");
    default: return put_text(rt, "missing");
    }
}

bool lcj_put_repr(lcj_rt *rt, lcj_val v) { return put_repr_at(rt, v, 0); }

bool lcj_put_str(lcj_rt *rt, lcj_val v) {
    if (v.type == LCJ_STRING) return lcj_put(rt, v.u.s, v.len);
    if (v.type == LCJ_UNDEFINED) return true;
    return put_repr_at(rt, v, 0);
}

bool lcj_to_str(lcj_rt *rt, lcj_val v, lcj_val *out) {
    if (v.type == LCJ_STRING) {
        *out = v;
        out->flags &= (uint8_t)~LCJ_SAFE;
        return true;
    }
    size_t start = rt->out.len;
    return lcj_put_str(rt, v) && lcj_take(rt, start, out);
}

bool lcj_soft_str(lcj_rt *rt, lcj_val v, lcj_val *out) {
    if (v.type != LCJ_STRING) return lcj_to_str(rt, v, out);
    *out = v;
    return true;
}
