/*
 * jinja_methods_pad.c: string methods that pad, and the methods of lists, tuples and dicts. What
 * would change a list or dict is named here so that the sandbox refuses it.
 */
#include "text/jinja/jinja_internal.h"

/* ---- padding ---- */

static bool fill_char(lcj_rt *rt, lcj_val v, lcj_val *out) {
    size_t chars;
    *out = lcj_text(LCJ_STR(" "));
    if (v.type == LCJ_MISSING) return true;
    if (!lcj_is_string(v) || !lcj_char_count(rt, v, &chars) || chars != 1)
        return lcj_fail(rt, LC_JINJA_TYPE, "The fill character must be exactly one character long");
    *out = v;
    return true;
}

bool lcj_center(lcj_rt *rt, lcj_val s, int64_t width, lcj_val fill, char how, lcj_val *out) {
    size_t chars, start = rt->out.len;
    if (!lcj_char_count(rt, s, &chars)) return false;
    *out = s;
    if (width <= (int64_t)chars) return true;
    int64_t pad = width - (int64_t)chars, left = how == 'l' ? 0 : pad;
    if (how == 'c') left = pad / 2 + (pad & width & 1);
    if (!lcj_put_repeat(rt, fill.u.s, fill.len, left) || !lcj_put_str(rt, s) ||
        !lcj_put_repeat(rt, fill.u.s, fill.len, pad - left) || !lcj_take(rt, start, out))
        return false;
    out->flags |= s.flags & LCJ_SAFE;
    return true;
}

bool lcj_str_pad(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    int64_t width;
    lcj_val fill;
    return lcj_index(rt, call->bound[0], &width) && fill_char(rt, call->bound[1], &fill) &&
           lcj_center(rt, call->self, width, fill, call->def->name[0], out);
}

bool lcj_str_zfill(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val s = call->self;
    int64_t width;
    size_t chars, start = rt->out.len;
    if (!lcj_index(rt, call->bound[0], &width) || !lcj_char_count(rt, s, &chars)) return false;
    *out = s;
    if (width <= (int64_t)chars) return true;
    size_t sign = s.len && (s.u.s[0] == '+' || s.u.s[0] == '-');
    if (!lcj_put(rt, s.u.s, sign) || !lcj_put_repeat(rt, "0", 1, width - (int64_t)chars) ||
        !lcj_put(rt, s.u.s + sign, s.len - sign) || !lcj_take(rt, start, out))
        return false;
    out->flags |= s.flags & LCJ_SAFE;
    return true;
}

bool lcj_str_expandtabs(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val s = call->self;
    int64_t tab = 8, column = 0;
    size_t start = rt->out.len, from = 0;
    if (call->bound[0].type != LCJ_MISSING && !lcj_index(rt, call->bound[0], &tab)) return false;
    for (size_t i = 0, len; i < s.len; i += len) {
        uint32_t code = lcj_char_at(s.u.s + i, &len);
        if (code != '\t') {
            column = code == '\n' || code == '\r' ? 0 : column + 1;
            continue;
        }
        int64_t spaces = tab > 0 ? tab - column % tab : 0;
        if (!lcj_put(rt, s.u.s + from, i - from) || !lcj_put_repeat(rt, " ", 1, spaces))
            return false;
        column += spaces;
        from = i + 1;
    }
    if (!lcj_put(rt, s.u.s + from, s.len - from) || !lcj_tick_chars(rt, s.len) ||
        !lcj_take(rt, start, out))
        return false;
    out->flags |= s.flags & LCJ_SAFE;
    return true;
}

/* ---- dicts ---- */

static bool dict_get(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    if (!lcj_dict_get(rt, call->self.u.dict, call->bound[0], out)) return false;
    if (out->type == LCJ_MISSING) *out = call->bound[1];
    if (out->type == LCJ_MISSING) *out = lcj_none();
    return true;
}

/* keys, values, items */
static bool dict_view(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    (void)rt;
    *out = (lcj_val){
        .type = LCJ_VIEW, .sub = (uint8_t)call->def->name[0], .u.dict = call->self.u.dict};
    return true;
}

static bool dict_copy(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_dict *copy = lcj_alloc(rt, sizeof *copy); /* neither will change: the entries are shared */
    if (!copy) return false;
    *copy = *call->self.u.dict;
    *out = (lcj_val){.type = LCJ_DICT, .u.dict = copy};
    return true;
}

const lcj_def lcj_dict_methods[] = {{"get", dict_get, "key- default?-", LCJ_DEF_PLAIN},
                                    {"items", dict_view, "", LCJ_DEF_PLAIN},
                                    {"keys", dict_view, "", LCJ_DEF_PLAIN},
                                    {"values", dict_view, "", LCJ_DEF_PLAIN},
                                    {"copy", dict_copy, "", LCJ_DEF_PLAIN},
                                    {"clear", NULL, "", LCJ_DEF_CHANGES},
                                    {"pop", NULL, "*", LCJ_DEF_CHANGES},
                                    {"popitem", NULL, "", LCJ_DEF_CHANGES},
                                    {"setdefault", NULL, "*", LCJ_DEF_CHANGES},
                                    {"update", NULL, "*", LCJ_DEF_CHANGES},
                                    {"fromkeys", NULL, "*", LCJ_DEF_PLAIN},
                                    {NULL, NULL, NULL, 0}};

/* ---- lists, tuples ---- */

static bool list_index(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    const lcj_list *list = call->self.u.list;
    int64_t range[2] = {0, list->len};
    for (int i = 0; i < 2; i++) {
        if (call->bound[1 + i].type == LCJ_MISSING) continue;
        if (!lcj_index(rt, call->bound[1 + i], &range[i])) return false;
        if (range[i] < 0) range[i] += list->len;
        if (range[i] < 0) range[i] = 0;
    }
    for (int64_t i = range[0]; i < range[1] && i < list->len; i++) {
        bool same;
        if (!lcj_equal(rt, list->items[i], call->bound[0], &same)) return false;
        if (same) {
            *out = lcj_int(i);
            return true;
        }
    }
    return lcj_fail(rt, LC_JINJA_VALUE, "the value is not in the list");
}

static bool list_count(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    const lcj_list *list = call->self.u.list;
    int64_t n = 0;
    for (uint32_t i = 0; i < list->len; i++) {
        bool same;
        if (!lcj_equal(rt, list->items[i], call->bound[0], &same)) return false;
        n += same;
    }
    *out = lcj_int(n);
    return true;
}

static bool list_copy(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    return lcj_to_list(rt, call->self, LCJ_LIST, out);
}

const lcj_def lcj_list_methods[] = {{"index", list_index, "value- start?- stop?-", LCJ_DEF_PLAIN},
                                    {"count", list_count, "value-", LCJ_DEF_PLAIN},
                                    {"copy", list_copy, "", LCJ_DEF_PLAIN},
                                    {"append", NULL, "*", LCJ_DEF_CHANGES},
                                    {"clear", NULL, "", LCJ_DEF_CHANGES},
                                    {"extend", NULL, "*", LCJ_DEF_CHANGES},
                                    {"insert", NULL, "*", LCJ_DEF_CHANGES},
                                    {"pop", NULL, "*", LCJ_DEF_CHANGES},
                                    {"remove", NULL, "*", LCJ_DEF_CHANGES},
                                    {"reverse", NULL, "", LCJ_DEF_CHANGES},
                                    {"sort", NULL, "*", LCJ_DEF_CHANGES},
                                    {NULL, NULL, NULL, 0}};
