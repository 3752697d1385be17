/*
 * jinja_filters_text.c: filters on text: case, trim, replace, indent, format, and the ones made for
 * web pages.
 */
#include "text/jinja/jinja_internal.h"

#include <stdio.h>

static bool filter_recase(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val text;
    char c = call->def->name[0]; /* upper, lower, capitalize */
    lcj_case mode = c == 'u' ? LCJ_UPPER : c == 'l' ? LCJ_LOWER : LCJ_CAPITALIZE;
    return lcj_soft_str(rt, call->self, &text) && lcj_recase(rt, text, mode, out);
}

static bool splits_words(uint32_t code) {
    return lcj_is_space(code) || code == '-' || code == '(' || code == '{' || code == '[' ||
           code == '<';
}

/* Each word on its own: the first letter in upper case, the rest in lower case. */
static bool filter_title(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val text;
    size_t start, len;
    if (!lcj_to_str(rt, call->self, &text)) return false;
    start = rt->out.len;
    for (size_t i = 0; i < text.len;) {
        size_t from = i;
        while (i < text.len && splits_words(lcj_char_at(text.u.s + i, &len))) i += len;
        if (!lcj_put(rt, text.u.s + from, i - from)) return false;
        if (i == text.len) break;
        lcj_char_at(text.u.s + i, &len);
        size_t rest = i + len, end = rest;
        while (end < text.len && !splits_words(lcj_char_at(text.u.s + end, &len))) end += len;
        if (!lcj_put_recased(rt, lcj_part(text, i, rest - i), LCJ_UPPER) ||
            !lcj_put_recased(rt, lcj_part(text, rest, end - rest), LCJ_LOWER))
            return false;
        i = end;
    }
    return lcj_take(rt, start, out);
}

static bool filter_trim(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val text, chars = call->bound[0];
    if (chars.type == LCJ_MISSING) chars = lcj_none();
    if (!lcj_soft_str(rt, call->self, &text)) return false;
    if (chars.type != LCJ_NONE && !lcj_is_string(chars))
        return lcj_fail(rt, LC_JINJA_TYPE, "strip arg must be None or str");
    return lcj_strip(rt, text, chars, true, true, out);
}

static bool filter_replace(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val text, old, fresh, count = call->bound[2];
    int64_t n = -1;
    if (count.type != LCJ_MISSING && count.type != LCJ_NONE && !lcj_index(rt, count, &n))
        return false;
    return lcj_to_str(rt, call->self, &text) && lcj_to_str(rt, call->bound[0], &old) &&
           lcj_to_str(rt, call->bound[1], &fresh) && lcj_replace(rt, text, old, fresh, n, out);
}

static bool filter_format(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val text, args;
    if (call->n_args && call->n_kwargs)
        return lcj_fail(rt, LC_JINJA_RUNTIME,
                        "can't handle positional and keyword arguments at the same time");
    if (!lcj_soft_str(rt, call->self, &text)) return false;
    if (!call->n_kwargs)
        return lcj_list_new(rt, LCJ_TUPLE, call->args, call->n_args, &args) &&
               lcj_percent(rt, text, args, out);
    if (!lcj_dict_new(rt, call->n_kwargs, &args)) return false;
    for (uint32_t i = 0; i < call->n_kwargs; i++)
        if (!lcj_dict_set(rt, args.u.dict, lcj_text(call->kwargs[i].name), call->kwargs[i].value))
            return false;
    return lcj_percent(rt, text, args, out);
}

static bool truth_or(lcj_rt *rt, lcj_val v, bool *out) {
    *out = false;
    return v.type == LCJ_MISSING || lcj_truth(rt, v, out);
}

static bool indention(lcj_rt *rt, lcj_val width, lcj_val *out) {
    if (width.type == LCJ_MISSING) width = lcj_int(4);
    *out = width;
    return lcj_is_string(width) || lcj_arith(rt, LCJ_MUL, lcj_text(LCJ_STR(" ")), width, out);
}

static bool filter_indent(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val s = call->self, by, line;
    bool first, blank, any = false;
    size_t pos = 0, from, to;
    if (!indention(rt, call->bound[0], &by) || !truth_or(rt, call->bound[1], &first) ||
        !truth_or(rt, call->bound[2], &blank))
        return false;
    /* as in the reference, which relies on a newline behind the last line */
    if (!lcj_arith(rt, LCJ_ADD, s, lcj_text(LCJ_STR("\n")), &line)) return false;
    size_t start = rt->out.len;
    if (first && !lcj_put(rt, by.u.s, by.len)) return false;
    for (; lcj_next_line(line, &pos, &from, &to); any = true) {
        bool indents = any && (blank || to > from);
        if ((any && !lcj_putc(rt, '\n')) || (indents && !lcj_put(rt, by.u.s, by.len)) ||
            !lcj_put(rt, line.u.s + from, to - from) || !lcj_tick(rt, 1))
            return false;
    }
    if (!lcj_tick_chars(rt, s.len) || !lcj_take(rt, start, out)) return false;
    out->flags |= s.flags & LCJ_SAFE;
    return true;
}

/* ---- cutting and filling ---- */

static bool filter_center(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val text;
    int64_t width = 80;
    if (call->bound[0].type != LCJ_MISSING && !lcj_index(rt, call->bound[0], &width)) return false;
    return lcj_soft_str(rt, call->self, &text) &&
           lcj_center(rt, text, width, lcj_text(LCJ_STR(" ")), 'c', out);
}

static bool filter_truncate(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val s = call->self, end = lcj_text(LCJ_STR("...")), part;
    int64_t length = 255, leeway = 5, chars, end_chars, space;
    bool kill;
    if (call->bound[0].type != LCJ_MISSING && !lcj_index(rt, call->bound[0], &length)) return false;
    if (!truth_or(rt, call->bound[1], &kill)) return false;
    if (call->bound[2].type != LCJ_MISSING) end = call->bound[2];
    if (call->bound[3].type != LCJ_MISSING && call->bound[3].type != LCJ_NONE &&
        !lcj_index(rt, call->bound[3], &leeway))
        return false;
    if (!lcj_length(rt, end, &end_chars)) return false;
    if (length < end_chars || leeway < 0)
        return lcj_fail(rt, LC_JINJA_RUNTIME, "truncate: length or leeway is too small");
    if (!lcj_length(rt, s, &chars)) return false;
    *out = s;
    if (chars - leeway <= length) return true;
    if (!lcj_is_string(s) || !lcj_is_string(end))
        return lcj_fail(rt, LC_JINJA_TYPE, "truncate needs strings");
    part = lcj_part(s, 0, lcj_char_offset(s, (size_t)(length - end_chars)));
    if (!kill) {
        if (!lcj_rfind(rt, part, lcj_text(LCJ_STR(" ")), &space)) return false;
        if (space >= 0) part = lcj_part(part, 0, (size_t)space);
    }
    return lcj_arith(rt, LCJ_ADD, part, end, out);
}

/* Words that Python's textwrap would not break or glue: letters and digits with simple signs. */
static bool is_plain_word(lcj_val s, size_t from, size_t to, int64_t width) {
    for (size_t i = from; i < to; i++) {
        unsigned char c = (unsigned char)s.u.s[i];
        if (c >= 0x80 || (!lcj_is_word(c) && !strchr(".,;:!?'\"", c)) || !c) return false;
    }
    return (int64_t)(to - from) <= width;
}

static bool wrap_line(lcj_rt *rt, lcj_val s, int64_t width, lcj_val newline) {
    int64_t column = 0;
    for (size_t i = 0; i < s.len;) {
        size_t to = i;
        while (to < s.len && s.u.s[to] != ' ') to++;
        if (to == i || !is_plain_word(s, i, to, width) || to + 1 == s.len)
            return lcj_unsupported(rt, "wordwrap of this text");
        int64_t len = (int64_t)(to - i);
        bool fits = column && column + 1 + len <= width;
        if (column && !(fits ? lcj_putc(rt, ' ') : lcj_put_str(rt, newline))) return false;
        if (!lcj_put(rt, s.u.s + i, to - i)) return false;
        column = fits ? column + 1 + len : len;
        i = to + 1;
    }
    return true;
}

static bool filter_wordwrap(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val s = call->self, newline = lcj_text(LCJ_STR("\n"));
    int64_t width = 79;
    size_t start = rt->out.len, pos = 0, from, to;
    if (call->bound[0].type != LCJ_MISSING && !lcj_index(rt, call->bound[0], &width)) return false;
    if (call->bound[2].type != LCJ_MISSING && call->bound[2].type != LCJ_NONE)
        newline = call->bound[2];
    if (!lcj_is_string(s) || s.flags & LCJ_SAFE || !lcj_is_string(newline))
        return lcj_unsupported(rt, "wordwrap of this value");
    for (bool any = false; lcj_next_line(s, &pos, &from, &to); any = true)
        if ((any && !lcj_put_str(rt, newline)) ||
            !wrap_line(rt, lcj_part(s, from, to - from), width, newline))
            return false;
    return lcj_tick_chars(rt, s.len) && lcj_take(rt, start, out);
}

static bool filter_wordcount(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val text;
    int64_t n = 0;
    bool inside = false;
    if (!lcj_to_str(rt, call->self, &text)) return false;
    for (size_t i = 0, len; i < text.len; i += len) {
        bool word = lcj_is_word(lcj_char_at(text.u.s + i, &len));
        n += word && !inside;
        inside = word;
    }
    *out = lcj_int(n);
    return lcj_tick_chars(rt, text.len);
}

/* ---- web ---- */

/* The five basic entities; others would need the table of HTML. */
static bool put_unescaped(lcj_rt *rt, lcj_val s) {
    static const char *const entities[][2] = {{"&amp;", "&"},   {"&lt;", "<"},  {"&gt;", ">"},
                                              {"&quot;", "\""}, {"&#39;", "'"}, {"&#34;", "\""}};
    for (size_t i = 0; i < s.len;) {
        size_t e = 0, n = sizeof entities / sizeof *entities;
        if (s.u.s[i] != '&') {
            if (!lcj_putc(rt, s.u.s[i++])) return false;
            continue;
        }
        while (e < n && (s.len - i < strlen(entities[e][0]) ||
                         memcmp(s.u.s + i, entities[e][0], strlen(entities[e][0]))))
            e++;
        unsigned char next = i + 1 < s.len ? (unsigned char)s.u.s[i + 1] : 0;
        if (e == n && (next == '#' || next >= 0x80 || (next != '_' && lcj_is_word(next))))
            return lcj_unsupported(rt, "this HTML entity");
        if (!lcj_put(rt, e == n ? "&" : entities[e][1], 1)) return false;
        i += e == n ? 1 : strlen(entities[e][0]);
    }
    return true;
}

static bool put_without_tags(lcj_rt *rt, lcj_val s) {
    size_t pos = 0;
    for (;;) {
        int64_t open = lcj_find(s, lcj_text(LCJ_STR("<")), pos), close;
        if (open < 0) break;
        bool comment = s.len - (size_t)open >= 4 && !memcmp(s.u.s + open, "<!--", 4);
        if (comment)
            close = lcj_find(s, lcj_text(LCJ_STR("-->")), (size_t)open + 4);
        else
            close = lcj_find(s, lcj_text(LCJ_STR(">")), (size_t)open);
        if (close < 0) break;
        if (!lcj_put(rt, s.u.s + pos, (size_t)open - pos) || !lcj_tick(rt, 1)) return false;
        pos = (size_t)close + (comment ? 3 : 1);
    }
    return lcj_put(rt, s.u.s + pos, s.len - pos);
}

static bool filter_striptags(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val s;
    size_t start = rt->out.len, len;
    if (!lcj_to_str(rt, call->self, &s) || !put_without_tags(rt, s) || !lcj_take(rt, start, &s))
        return false;
    bool any = false;
    if (!lcj_tick_chars(rt, s.len)) return false;
    for (size_t i = 0; i < s.len;) { /* " ".join(s.split()) */
        while (i < s.len && lcj_is_space(lcj_char_at(s.u.s + i, &len))) i += len;
        size_t from = i;
        while (i < s.len && !lcj_is_space(lcj_char_at(s.u.s + i, &len))) i += len;
        if (i == from) break;
        if ((any && !lcj_putc(rt, ' ')) || !lcj_put(rt, s.u.s + from, i - from)) return false;
        any = true;
    }
    return lcj_take(rt, start, &s) && put_unescaped(rt, s) && lcj_take(rt, start, out);
}

static bool put_quoted(lcj_rt *rt, lcj_val v, bool query) {
    lcj_val s;
    if (!lcj_to_str(rt, v, &s)) return false;
    for (uint32_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.u.s[i];
        char text[4];
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                     (c && strchr("_.-~", c)) || (c == '/' && !query);
        if (plain || (query && c == ' ')) {
            if (!lcj_putc(rt, plain ? (char)c : '+')) return false;
            continue;
        }
        snprintf(text, sizeof text, "%%%02X", c);
        if (!lcj_put(rt, text, 3)) return false;
    }
    return lcj_tick_chars(rt, s.len);
}

static bool filter_urlencode(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val v = call->self, pair, list;
    size_t start = rt->out.len;
    lcj_iter it;
    if (lcj_is_string(v) || !lcj_iterable(v))
        return put_quoted(rt, v, false) && lcj_take(rt, start, out);
    if (v.type == LCJ_DICT) v = (lcj_val){.type = LCJ_VIEW, .sub = 'i', .u.dict = v.u.dict};
    if (!lcj_iter_open(rt, v, &it)) return false;
    bool any = false;
    for (int n; (n = lcj_iter_next(rt, &it, &pair)) != 0; any = true) {
        if (n < 0) return false;
        if (!lcj_is_seq(pair) || pair.u.list->len != 2)
            return lcj_unsupported(rt, "urlencode of this value");
        list = pair;
        if ((any && !lcj_putc(rt, '&')) || !put_quoted(rt, list.u.list->items[0], true) ||
            !lcj_putc(rt, '=') || !put_quoted(rt, list.u.list->items[1], true))
            return false;
    }
    return lcj_take(rt, start, out);
}

static bool filter_xmlattr(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val v = call->self, key, value;
    bool space = true;
    size_t start = rt->out.len;
    if (call->bound[0].type != LCJ_MISSING && !lcj_truth(rt, call->bound[0], &space)) return false;
    if (lcj_is_undefined(v)) return lcj_fail_undefined(rt, v);
    if (v.type != LCJ_DICT)
        return lcj_fail(rt, LC_JINJA_RUNTIME, "'%s' object has no attribute 'items'",
                        lcj_type_name(v));
    for (uint32_t i = 0; i < v.u.dict->len; i++) {
        const lcj_entry *e = &v.u.dict->entries[i];
        if (e->value.type == LCJ_NONE || lcj_is_undefined(e->value)) continue;
        if (!lcj_is_string(e->key))
            return lcj_fail(rt, LC_JINJA_TYPE, "expected string or bytes-like object");
        for (uint32_t k = 0; k < e->key.len; k++)
            if (e->key.u.s[k] && strchr(" \t\n\r\f\v/>=", e->key.u.s[k]))
                return lcj_fail(rt, LC_JINJA_VALUE, "Invalid character in attribute name");
        bool first = rt->out.len == start;
        if ((!first || space) && !lcj_putc(rt, ' ')) return false;
        if (!lcj_escape(rt, e->key, &key) || !lcj_put_str(rt, key) || !lcj_put(rt, "=\"", 2) ||
            !lcj_escape(rt, e->value, &value) || !lcj_put_str(rt, value) || !lcj_putc(rt, '"'))
            return false;
    }
    return lcj_take(rt, start, out);
}

const lcj_def lcj_text_filters[] = {
    {"upper", filter_recase, "", LCJ_DEF_PLAIN},
    {"lower", filter_recase, "", LCJ_DEF_PLAIN},
    {"capitalize", filter_recase, "", LCJ_DEF_PLAIN},
    {"title", filter_title, "", LCJ_DEF_PLAIN},
    {"trim", filter_trim, "chars?", LCJ_DEF_PLAIN},
    {"replace", filter_replace, "old new count?", LCJ_DEF_PLAIN},
    {"format", filter_format, "*", LCJ_DEF_PLAIN},
    {"indent", filter_indent, "width? first? blank?", LCJ_DEF_PLAIN},
    {"center", filter_center, "width?", LCJ_DEF_PLAIN},
    {"truncate", filter_truncate, "length? killwords? end? leeway?", LCJ_DEF_PLAIN},
    {"wordwrap", filter_wordwrap, "width? break_long_words? wrapstring? break_on_hyphens?",
     LCJ_DEF_PLAIN},
    {"wordcount", filter_wordcount, "", LCJ_DEF_PLAIN},
    {"striptags", filter_striptags, "", LCJ_DEF_PLAIN},
    {"urlencode", filter_urlencode, "", LCJ_DEF_PLAIN},
    {"xmlattr", filter_xmlattr, "autospace?", LCJ_DEF_PLAIN},
    {NULL, NULL, NULL, 0}};
