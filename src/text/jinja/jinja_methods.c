/*
 * jinja_methods.c: the methods of strings: search, split, join, strip, replace, predicates. The
 * ones that pad are in jinja_methods_pad.c, with those of lists and dicts.
 *
 * Positions are in characters, as templates see them. A string marked safe (Python's Markup) gives
 * safe strings and escapes what is put into it.
 */
#include "text/jinja/jinja_internal.h"

static bool need_string(lcj_rt *rt, const lcj_call *call, lcj_val v) {
    if (lcj_is_string(v)) return true;
    return lcj_fail(rt, LC_JINJA_TYPE, "%s() argument must be str, not %s", call->def->name,
                    lcj_type_name(v));
}

/* ---- search ---- */

/* The bytes of self[start:end] as the arguments at bound[1] and bound[2] say; *any is false where
 * start lies behind the end, where not even "" is found. */
typedef struct span {
    size_t from, to, chars_before;
    bool any;
} span;

static bool position_arg(lcj_rt *rt, lcj_val v, int64_t none, int64_t len, int64_t *out) {
    *out = none;
    if (v.type == LCJ_MISSING || v.type == LCJ_NONE) return true;
    if (!lcj_index(rt, v, out)) return false;
    if (*out < 0) *out += len;
    if (*out < 0) *out = 0;
    return true;
}

static bool span_of(lcj_rt *rt, const lcj_call *call, span *out) {
    lcj_val s = call->self;
    size_t chars;
    int64_t from, to;
    if (call->bound[1].type == LCJ_MISSING && call->bound[2].type == LCJ_MISSING) {
        *out = (span){0, s.len, 0, true};
        return true;
    }
    if (!lcj_char_count(rt, s, &chars) ||
        !position_arg(rt, call->bound[1], 0, (int64_t)chars, &from) ||
        !position_arg(rt, call->bound[2], (int64_t)chars, (int64_t)chars, &to))
        return false;
    if (to > (int64_t)chars) to = (int64_t)chars;
    *out = (span){.any = from <= to};
    if (!out->any) return true;
    out->from = lcj_char_offset(s, (size_t)from);
    out->to = lcj_char_offset(s, (size_t)to);
    out->chars_before = (size_t)from;
    return true;
}

/* The position in characters of the first or last needle, or -1. */
static bool search(lcj_rt *rt, const lcj_call *call, bool last, int64_t *out) {
    span in;
    *out = -1;
    if (!need_string(rt, call, call->bound[0]) || !span_of(rt, call, &in)) return false;
    if (!in.any) return true;
    lcj_val part = lcj_part(call->self, in.from, in.to - in.from);
    int64_t at;
    if (last) {
        if (!lcj_rfind(rt, part, call->bound[0], &at)) return false;
    } else {
        at = lcj_find(part, call->bound[0], 0);
        if (!lcj_tick_bytes(rt, part.len)) return false;
    }
    if (at >= 0) *out = (int64_t)(in.chars_before + lcj_count_chars(lcj_part(part, 0, (size_t)at)));
    return true;
}

static bool str_find(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    int64_t at;
    if (!search(rt, call, call->def->name[0] == 'r', &at)) return false;
    *out = lcj_int(at);
    return true;
}

static bool str_index(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    int64_t at;
    if (!search(rt, call, call->def->name[0] == 'r', &at)) return false;
    if (at < 0) return lcj_fail(rt, LC_JINJA_VALUE, "substring not found");
    *out = lcj_int(at);
    return true;
}

static bool str_count(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    span in;
    int64_t n = 0;
    if (!need_string(rt, call, call->bound[0]) || !span_of(rt, call, &in)) return false;
    lcj_val part = lcj_part(call->self, in.from, in.any ? in.to - in.from : 0);
    if (!lcj_tick_bytes(rt, part.len)) return false;
    if (!call->bound[0].len) {
        n = in.any ? (int64_t)lcj_count_chars(part) + 1 : 0;
    } else {
        for (int64_t at = -1; (at = lcj_find(part, call->bound[0], (size_t)(at + 1))) >= 0; n++) {
            at += call->bound[0].len - 1;
            if (!lcj_tick(rt, 1)) return false;
        }
    }
    *out = lcj_int(n);
    return true;
}

static bool affixed(lcj_val s, lcj_val affix, bool at_end) {
    if (affix.len > s.len) return false;
    size_t from = at_end ? s.len - affix.len : 0;
    return !affix.len || !memcmp(s.u.s + from, affix.u.s, affix.len);
}

/* startswith and endswith: a string or a tuple of strings */
static bool str_affix(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val affix = call->bound[0];
    bool at_end = call->def->name[0] == 'e', yes = false;
    span in;
    if (!span_of(rt, call, &in)) return false;
    lcj_val part = lcj_part(call->self, in.from, in.any ? in.to - in.from : 0);
    if (affix.type == LCJ_TUPLE) {
        for (uint32_t i = 0; i < affix.u.list->len && !yes; i++) {
            lcj_val one = affix.u.list->items[i];
            if (!need_string(rt, call, one) || !lcj_tick_bytes(rt, one.len)) return false;
            yes = in.any && affixed(part, one, at_end);
        }
    } else {
        if (!need_string(rt, call, affix) || !lcj_tick_bytes(rt, affix.len)) return false;
        yes = in.any && affixed(part, affix, at_end);
    }
    *out = lcj_bool(yes);
    return true;
}

static bool str_remove_affix(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val s = call->self, affix = call->bound[0];
    bool at_end = call->def->name[6] == 's'; /* removesuffix */
    if (!need_string(rt, call, affix)) return false;
    *out = s;
    if (affixed(s, affix, at_end)) *out = lcj_part(s, at_end ? 0 : affix.len, s.len - affix.len);
    return true;
}

/* ---- split ---- */

typedef struct splitter {
    lcj_rt *rt;
    lcj_items items;
    lcj_val s;
    int64_t left; /* splits that are still allowed, < 0 = any number */
} splitter;

static bool split_by(splitter *sp, lcj_val sep) {
    size_t from = 0;
    for (; sp->left != 0; sp->left--) {
        int64_t at = lcj_find(sp->s, sep, from);
        if (at < 0) break;
        if (!lcj_items_push(sp->rt, &sp->items, lcj_part(sp->s, from, (size_t)at - from)))
            return false;
        from = (size_t)at + sep.len;
    }
    return lcj_items_push(sp->rt, &sp->items, lcj_part(sp->s, from, sp->s.len - from));
}

static bool split_space(splitter *sp) {
    lcj_val s = sp->s;
    for (size_t i = 0, len;;) {
        while (i < s.len && lcj_is_space(lcj_char_at(s.u.s + i, &len))) i += len;
        if (i >= s.len) return true;
        size_t from = i;
        if (sp->left == 0)
            return lcj_items_push(sp->rt, &sp->items, lcj_part(s, from, s.len - from));
        sp->left--;
        while (i < s.len && !lcj_is_space(lcj_char_at(s.u.s + i, &len))) i += len;
        if (!lcj_items_push(sp->rt, &sp->items, lcj_part(s, from, i - from))) return false;
    }
}

static bool rsplit_by(splitter *sp, lcj_val sep) {
    size_t to = sp->s.len;
    for (; sp->left != 0; sp->left--) {
        int64_t at;
        if (!lcj_rfind(sp->rt, lcj_part(sp->s, 0, to), sep, &at)) return false;
        if (at < 0) break;
        size_t from = (size_t)at + sep.len;
        if (!lcj_items_push(sp->rt, &sp->items, lcj_part(sp->s, from, to - from))) return false;
        to = (size_t)at;
    }
    return lcj_items_push(sp->rt, &sp->items, lcj_part(sp->s, 0, to));
}

/* The start of the last character before byte `to`. */
static size_t before(lcj_val s, size_t to) {
    do to--;
    while (to > 0 && ((unsigned char)s.u.s[to] & 0xC0) == 0x80);
    return to;
}

static bool rsplit_space(splitter *sp) {
    lcj_val s = sp->s;
    size_t len;
    for (size_t to = s.len;;) {
        while (to > 0 && lcj_is_space(lcj_char_at(s.u.s + before(s, to), &len))) to = before(s, to);
        if (!to) return true;
        if (sp->left == 0) return lcj_items_push(sp->rt, &sp->items, lcj_part(s, 0, to));
        sp->left--;
        size_t end = to;
        while (to > 0 && !lcj_is_space(lcj_char_at(s.u.s + before(s, to), &len)))
            to = before(s, to);
        if (!lcj_items_push(sp->rt, &sp->items, lcj_part(s, to, end - to))) return false;
    }
}

static void reverse(lcj_items *items) {
    for (uint32_t i = 0, j = items->len; i + 1 < j; i++) {
        lcj_val v = items->array->items[i];
        items->array->items[i] = items->array->items[--j];
        items->array->items[j] = v;
    }
}

static bool str_split(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val sep = call->bound[0];
    splitter sp = {.rt = rt, .s = call->self, .left = -1};
    bool from_right = call->def->name[0] == 'r';
    bool by_space = sep.type == LCJ_MISSING || sep.type == LCJ_NONE;
    if (call->bound[1].type != LCJ_MISSING && !lcj_index(rt, call->bound[1], &sp.left))
        return false;
    if (!by_space && !lcj_is_string(sep))
        return lcj_fail(rt, LC_JINJA_TYPE, "must be str or None, not %s", lcj_type_name(sep));
    if (!by_space && !sep.len) return lcj_fail(rt, LC_JINJA_VALUE, "empty separator");
    if (!(by_space ? lcj_tick_chars(rt, sp.s.len) : lcj_tick_bytes(rt, sp.s.len))) return false;
    bool ok = from_right ? (by_space ? rsplit_space(&sp) : rsplit_by(&sp, sep))
                         : (by_space ? split_space(&sp) : split_by(&sp, sep));
    if (!ok) return false;
    if (from_right) reverse(&sp.items);
    return lcj_items_list(rt, &sp.items, LCJ_LIST, out);
}

static bool str_splitlines(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_items items = {0};
    int64_t keep = 0;
    if (call->bound[0].type != LCJ_MISSING && !lcj_index(rt, call->bound[0], &keep)) return false;
    for (size_t pos = 0, from, to; lcj_next_line(call->self, &pos, &from, &to);)
        if (!lcj_items_push(rt, &items, lcj_part(call->self, from, (keep ? pos : to) - from)))
            return false;
    return lcj_tick_chars(rt, call->self.len) && lcj_items_list(rt, &items, LCJ_LIST, out);
}

static bool str_partition(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val s = call->self, sep = call->bound[0], parts[3];
    bool last = call->def->name[0] == 'r';
    int64_t at;
    if (!need_string(rt, call, sep)) return false;
    if (!sep.len) return lcj_fail(rt, LC_JINJA_VALUE, "empty separator");
    if (last) {
        if (!lcj_rfind(rt, s, sep, &at)) return false;
    } else {
        at = lcj_find(s, sep, 0);
    }
    if (at < 0) {
        parts[0] = last ? lcj_part(s, 0, 0) : s;
        parts[1] = lcj_part(s, 0, 0);
        parts[2] = last ? s : lcj_part(s, 0, 0);
    } else {
        size_t end = (size_t)at + sep.len;
        parts[0] = lcj_part(s, 0, (size_t)at);
        parts[1] = lcj_part(s, (size_t)at, sep.len);
        parts[2] = lcj_part(s, end, s.len - end);
    }
    return lcj_tick_bytes(rt, s.len) && lcj_list_new(rt, LCJ_TUPLE, parts, 3, out);
}

/* ---- join, strip, replace, case ---- */

static bool str_join(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val sep = call->self, item;
    size_t start = rt->out.len;
    lcj_iter it;
    bool safe = sep.flags & LCJ_SAFE;
    if (!lcj_iter_open(rt, call->bound[0], &it)) return false;
    for (int64_t i = 0, n; (n = lcj_iter_next(rt, &it, &item)) != 0; i++) {
        if (n < 0) return false;
        if (safe && !lcj_escape(rt, item, &item)) return false;
        if (!lcj_is_string(item))
            return lcj_fail(rt, LC_JINJA_TYPE,
                            "sequence item %lld: expected str instance, %s found", (long long)i,
                            lcj_type_name(item));
        if ((i && !lcj_put(rt, sep.u.s, sep.len)) || !lcj_put(rt, item.u.s, item.len)) return false;
    }
    if (!lcj_take(rt, start, out)) return false;
    out->flags |= sep.flags & LCJ_SAFE;
    return true;
}

static bool str_strip(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val chars = call->bound[0];
    char kind = call->def->name[0]; /* strip, lstrip, rstrip */
    if (chars.type == LCJ_MISSING) chars = lcj_none();
    if (chars.type != LCJ_NONE && !lcj_is_string(chars))
        return lcj_fail(rt, LC_JINJA_TYPE, "%s arg must be None or str", call->def->name);
    return lcj_strip(rt, call->self, chars, kind != 'r', kind != 'l', out);
}

static bool str_replace(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val fresh = call->bound[1];
    int64_t count = -1;
    if (!need_string(rt, call, call->bound[0])) return false;
    if (call->self.flags & LCJ_SAFE && !lcj_escape(rt, fresh, &fresh)) return false;
    if (!need_string(rt, call, fresh)) return false;
    if (call->bound[2].type != LCJ_MISSING && !lcj_index(rt, call->bound[2], &count)) return false;
    return lcj_replace(rt, call->self, call->bound[0], fresh, count, out);
}

static bool str_upper(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_recase(rt, call->self, LCJ_UPPER, out);
}

static bool str_lower(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_recase(rt, call->self, LCJ_LOWER, out);
}

static bool str_title(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_recase(rt, call->self, LCJ_TITLE, out);
}

static bool str_capitalize(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_recase(rt, call->self, LCJ_CAPITALIZE, out);
}

static bool str_swapcase(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_recase(rt, call->self, LCJ_SWAP, out);
}

static bool str_casefold(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_recase(rt, call->self, LCJ_FOLD, out);
}

/* ---- predicates ---- */

static bool is_alnum(uint32_t code) { return lcj_is_alpha(code) || lcj_is_numeric(code); }

/* All characters and at least one. */
static bool all_are(lcj_rt *rt, lcj_val s, bool (*is)(uint32_t), bool empty, lcj_val *out) {
    bool yes = s.len || empty;
    for (size_t i = 0, len; i < s.len && yes; i += len) yes = is(lcj_char_at(s.u.s + i, &len));
    *out = lcj_bool(yes);
    return lcj_tick_chars(rt, s.len);
}

static bool str_isalpha(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return all_are(rt, call->self, lcj_is_alpha, false, out);
}

/* Some ideographs are numbers, which the tables do not say. */
static bool no_ideographs(lcj_rt *rt, lcj_val s) {
    for (size_t i = 0, len; i < s.len; i += len) {
        uint32_t code = lcj_char_at(s.u.s + i, &len);
        if (code >= 0x3400 && lcj_is_alpha(code) && !lcj_is_cased(code))
            return lcj_unsupported(rt, "isnumeric() of ideographs");
    }
    return true;
}

static bool str_isnumeric(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return no_ideographs(rt, call->self) && all_are(rt, call->self, lcj_is_numeric, false, out);
}

static bool str_isalnum(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return all_are(rt, call->self, is_alnum, false, out);
}

static bool str_isdigit(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return all_are(rt, call->self, lcj_is_digit, false, out);
}

static bool str_isdecimal(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return all_are(rt, call->self, lcj_is_decimal, false, out);
}

static bool str_isspace(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return all_are(rt, call->self, lcj_is_space, false, out);
}

static bool str_isprintable(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return all_are(rt, call->self, lcj_is_printable, true, out);
}

static bool str_isascii(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    *out = lcj_bool(lcj_string(call->self.u.s, call->self.len).flags & LCJ_ASCII);
    return lcj_tick_bytes(rt, call->self.len);
}

static bool str_isidentifier(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val s = call->self;
    bool yes = s.len != 0;
    if (!(s.flags & LCJ_ASCII)) return lcj_unsupported(rt, "isidentifier() outside of ASCII");
    for (uint32_t i = 0; i < s.len && yes; i++) {
        unsigned char c = (unsigned char)s.u.s[i];
        yes = lcj_is_word(c) && (i || c < '0' || c > '9');
    }
    *out = lcj_bool(yes);
    return lcj_tick_bytes(rt, s.len);
}

bool lcj_str_is_case(lcj_rt *rt, lcj_val s, bool upper, bool *out) {
    bool any = false;
    *out = false;
    for (size_t i = 0, len; i < s.len; i += len) {
        uint32_t code = lcj_char_at(s.u.s + i, &len);
        if (!lcj_is_cased(code)) continue;
        if (upper ? !lcj_is_upper(code) : !lcj_is_lower(code)) return lcj_tick_chars(rt, i);
        any = true;
    }
    *out = any;
    return lcj_tick_chars(rt, s.len);
}

static bool str_is_case(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    bool yes;
    if (!lcj_str_is_case(rt, call->self, call->def->name[2] == 'u', &yes)) return false;
    *out = lcj_bool(yes);
    return true;
}

const lcj_def lcj_str_methods[] = {
    {"split", str_split, "sep? maxsplit?", LCJ_DEF_PLAIN},
    {"strip", str_strip, "chars?-", LCJ_DEF_PLAIN},
    {"lstrip", str_strip, "chars?-", LCJ_DEF_PLAIN},
    {"rstrip", str_strip, "chars?-", LCJ_DEF_PLAIN},
    {"startswith", str_affix, "prefix- start?- end?-", LCJ_DEF_PLAIN},
    {"endswith", str_affix, "suffix- start?- end?-", LCJ_DEF_PLAIN},
    {"replace", str_replace, "old- new- count?-", LCJ_DEF_PLAIN},
    {"join", str_join, "iterable-", LCJ_DEF_PLAIN},
    {"upper", str_upper, "", LCJ_DEF_PLAIN},
    {"lower", str_lower, "", LCJ_DEF_PLAIN},
    {"title", str_title, "", LCJ_DEF_PLAIN},
    {"capitalize", str_capitalize, "", LCJ_DEF_PLAIN},
    {"swapcase", str_swapcase, "", LCJ_DEF_PLAIN},
    {"casefold", str_casefold, "", LCJ_DEF_PLAIN},
    {"format", lcj_str_format, "*", LCJ_DEF_PLAIN},
    {"format_map", lcj_str_format, "*", LCJ_DEF_PLAIN},
    {"find", str_find, "sub- start?- end?-", LCJ_DEF_PLAIN},
    {"rfind", str_find, "sub- start?- end?-", LCJ_DEF_PLAIN},
    {"index", str_index, "sub- start?- end?-", LCJ_DEF_PLAIN},
    {"rindex", str_index, "sub- start?- end?-", LCJ_DEF_PLAIN},
    {"count", str_count, "sub- start?- end?-", LCJ_DEF_PLAIN},
    {"rsplit", str_split, "sep? maxsplit?", LCJ_DEF_PLAIN},
    {"splitlines", str_splitlines, "keepends?", LCJ_DEF_PLAIN},
    {"partition", str_partition, "sep-", LCJ_DEF_PLAIN},
    {"rpartition", str_partition, "sep-", LCJ_DEF_PLAIN},
    {"removeprefix", str_remove_affix, "prefix-", LCJ_DEF_PLAIN},
    {"removesuffix", str_remove_affix, "suffix-", LCJ_DEF_PLAIN},
    {"center", lcj_str_pad, "width- fillchar?-", LCJ_DEF_PLAIN},
    {"ljust", lcj_str_pad, "width- fillchar?-", LCJ_DEF_PLAIN},
    {"rjust", lcj_str_pad, "width- fillchar?-", LCJ_DEF_PLAIN},
    {"zfill", lcj_str_zfill, "width-", LCJ_DEF_PLAIN},
    {"expandtabs", lcj_str_expandtabs, "tabsize?", LCJ_DEF_PLAIN},
    {"isalpha", str_isalpha, "", LCJ_DEF_PLAIN},
    {"isalnum", str_isalnum, "", LCJ_DEF_PLAIN},
    {"isdigit", str_isdigit, "", LCJ_DEF_PLAIN},
    {"isdecimal", str_isdecimal, "", LCJ_DEF_PLAIN},
    {"isnumeric", str_isnumeric, "", LCJ_DEF_PLAIN},
    {"isspace", str_isspace, "", LCJ_DEF_PLAIN},
    {"islower", str_is_case, "", LCJ_DEF_PLAIN},
    {"isupper", str_is_case, "", LCJ_DEF_PLAIN},
    {"isascii", str_isascii, "", LCJ_DEF_PLAIN},
    {"isprintable", str_isprintable, "", LCJ_DEF_PLAIN},
    {"isidentifier", str_isidentifier, "", LCJ_DEF_PLAIN},
    {"istitle", NULL, "", LCJ_DEF_PLAIN},
    {"encode", NULL, "*", LCJ_DEF_PLAIN},
    {"maketrans", NULL, "*", LCJ_DEF_PLAIN},
    {"translate", NULL, "*", LCJ_DEF_PLAIN},
    {NULL, NULL, NULL, 0}};
