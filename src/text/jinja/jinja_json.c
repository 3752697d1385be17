/*
 * jinja_json.c: JSON values to values, and the filter tojson, which is Python's json.dumps.
 *
 * Strings of the context are used where json-c has them. They are checked to be UTF-8, since a
 * program may build JSON objects of its own; what is broken becomes U+FFFD.
 */
#include "text/jinja/jinja_internal.h"

#include <math.h>

/* ---- in ---- */

static bool text_from_json(lcj_rt *rt, const char *s, size_t len, lcj_val *out) {
    size_t used;
    if (len > UINT32_MAX / 4) return lcj_limit(rt, "memory");
    *out = lcj_string(s, len);
    if (out->flags & LCJ_ASCII) return lcj_tick_bytes(rt, len);
    if (!lcj_tick_chars(rt, len)) return false;
    for (size_t i = 0; i < len; i += used) {
        if (lc_utf8_decode(s + i, len - i, &used) >= 0) continue;
        lc_buf clean = {.limit = rt->limit};
        bool ok = lc_utf8_sanitize(&clean, s, len);
        char *copy = ok ? lcj_alloc(rt, clean.len) : NULL;
        if (copy) {
            memcpy(copy, clean.data, clean.len);
            *out = lcj_string(copy, clean.len);
        }
        lc_buf_free(&clean);
        if (!ok) lcj_fail(rt, LC_JINJA_MEMORY, "out of memory");
        return copy != NULL;
    }
    return true;
}

/* A number whose text is that of an integer, which base/json.h keeps beyond 64 bits too. */
static bool big_from_json(lcj_rt *rt, struct json_object *json, lcj_val *out) {
    const char *text = json_object_to_json_string(json);
    if (!text) return lcj_fail(rt, LC_JINJA_MEMORY, "out of memory");
    size_t len = strlen(text), digits = strspn(text + (*text == '-'), "0123456789");
    if (digits + (*text == '-') != len) return true;
    char *copy = len < rt->out_limit ? lcj_alloc(rt, len + 1) : NULL;
    if (!copy) return lcj_limit(rt, "memory");
    memcpy(copy, text, len + 1);
    *out = (lcj_val){.type = LCJ_BIG, .len = (uint32_t)len, .u.s = copy};
    return lcj_tick_bytes(rt, len);
}

static bool dict_from_json(lcj_rt *rt, struct json_object *json, uint32_t depth, lcj_val *out) {
    if (!lcj_dict_new(rt, (uint32_t)json_object_object_length(json), out)) return false;
    json_object_object_foreach(json, name, member) {
        lcj_val key = lcj_none(), value = lcj_none();
        if (!text_from_json(rt, name, strlen(name), &key) ||
            !lcj_from_json(rt, member, depth + 1, &value) ||
            !lcj_dict_set(rt, out->u.dict, key, value))
            return false;
    }
    return true;
}

static bool list_from_json(lcj_rt *rt, struct json_object *json, uint32_t depth, lcj_val *out) {
    lcj_items items = {0};
    size_t len = json_object_array_length(json);
    for (size_t i = 0; i < len; i++) {
        lcj_val v = lcj_none();
        if (!lcj_from_json(rt, json_object_array_get_idx(json, i), depth + 1, &v) ||
            !lcj_items_push(rt, &items, v))
            return false;
    }
    return lcj_items_list(rt, &items, LCJ_LIST, out);
}

bool lcj_from_json(lcj_rt *rt, struct json_object *json, uint32_t depth, lcj_val *out) {
    if (depth > LCJ_NEST) return lcj_limit(rt, "nesting of values");
    if (!lcj_tick(rt, 1)) return false;
    switch (json_object_get_type(json)) {
    case json_type_boolean: *out = lcj_bool(json_object_get_boolean(json)); return true;
    case json_type_double:
        *out = lcj_float(json_object_get_double(json));
        return fabs(out->u.f) < 9e18 || big_from_json(rt, json, out);
    case json_type_int:
        *out = lcj_int(json_object_get_int64(json));
        return out->u.i != INT64_MAX || json_object_get_uint64(json) == INT64_MAX ||
               big_from_json(rt, json, out);
    case json_type_string:
        return text_from_json(rt, json_object_get_string(json),
                              (size_t)json_object_get_string_len(json), out);
    case json_type_array: return list_from_json(rt, json, depth, out);
    case json_type_object: return dict_from_json(rt, json, depth, out);
    default: *out = lcj_none(); return true;
    }
}

/* ---- out ---- */

typedef struct dump {
    lcj_rt *rt;
    bool ascii, sort, has_indent;
    lcj_val indent, item_separator, key_separator;
} dump;

static bool put_value(const dump *d, lcj_val v, uint32_t nest);

static bool put_text(lcj_rt *rt, const char *text) { return lcj_put(rt, text, strlen(text)); }

static bool put_unit(lcj_rt *rt, uint32_t unit) {
    char text[6] = "\\u";
    for (int i = 0; i < 4; i++) text[2 + i] = "0123456789abcdef"[unit >> (12 - 4 * i) & 15];
    return lcj_put(rt, text, sizeof text);
}

static bool put_json_escape(lcj_rt *rt, uint32_t code) {
    switch (code) {
    case '"': return put_text(rt, "\\\"");
    case '\\': return put_text(rt, "\\\\");
    case '\n': return put_text(rt, "\\n");
    case '\r': return put_text(rt, "\\r");
    case '\t': return put_text(rt, "\\t");
    case '\f': return put_text(rt, "\\f");
    case '\b': return put_text(rt, "\\b");
    default: break;
    }
    if (code < 0x10000) return put_unit(rt, code);
    code -= 0x10000;
    return put_unit(rt, 0xD800 + (code >> 10)) && put_unit(rt, 0xDC00 + (code & 0x3FF));
}

static bool put_json_string(const dump *d, lcj_val s) {
    lcj_rt *rt = d->rt;
    size_t from = 0;
    if (!lcj_putc(rt, '"') || !lcj_tick_chars(rt, s.len)) return false;
    for (size_t i = 0, len; i < s.len; i += len) {
        uint32_t code = lcj_char_at(s.u.s + i, &len);
        bool plain = code >= 0x20 && code != '"' && code != '\\' && (code < 0x7F || !d->ascii);
        if (plain || code - rt->job->marks_first < rt->job->marks_count) continue;
        if (!lcj_put(rt, s.u.s + from, i - from) || !put_json_escape(rt, code)) return false;
        from = i + len;
    }
    return lcj_put(rt, s.u.s + from, s.len - from) && lcj_putc(rt, '"');
}

static bool put_json_float(lcj_rt *rt, double f) {
    if (isnan(f)) return put_text(rt, "NaN");
    if (isinf(f)) return put_text(rt, f > 0 ? "Infinity" : "-Infinity");
    return lcj_put_float(rt, f);
}

/* Numbers, true, false and null; *done false for other values. */
static bool put_scalar(lcj_rt *rt, lcj_val v, bool *done) {
    *done = true;
    switch (v.type) {
    case LCJ_NONE: return put_text(rt, "null");
    case LCJ_BOOL: return put_text(rt, v.u.b ? "true" : "false");
    case LCJ_INT:
    case LCJ_BIG: return lcj_put_int(rt, v);
    case LCJ_FLOAT: return put_json_float(rt, v.u.f);
    default: *done = false; return true;
    }
}

static bool put_break(const dump *d, uint32_t level) {
    if (!d->has_indent) return true;
    return lcj_putc(d->rt, '\n') &&
           lcj_put_repeat(d->rt, d->indent.u.s, d->indent.len, (int64_t)level);
}

static bool put_array(const dump *d, const lcj_list *list, uint32_t nest) {
    if (!list->len) return put_text(d->rt, "[]");
    if (!lcj_putc(d->rt, '[')) return false;
    for (uint32_t i = 0; i < list->len; i++)
        if ((i && !lcj_put_str(d->rt, d->item_separator)) || !put_break(d, nest + 1) ||
            !put_value(d, list->items[i], nest + 1))
            return false;
    return put_break(d, nest) && lcj_putc(d->rt, ']');
}

static bool put_key(const dump *d, lcj_val key) {
    bool done;
    if (lcj_is_string(key)) return put_json_string(d, key);
    if (!lcj_putc(d->rt, '"') || !put_scalar(d->rt, key, &done)) return false;
    if (!done)
        return lcj_fail(d->rt, LC_JINJA_TYPE, "keys must be str, int, float, bool or None, not %s",
                        lcj_type_name(key));
    return lcj_putc(d->rt, '"');
}

static bool sorted_entries(lcj_rt *rt, const lcj_dict *dict, lcj_val **order) {
    lcj_val *keys = lcj_alloc(rt, 2 * (size_t)dict->len * sizeof *keys);
    if (!keys) return false;
    *order = keys + dict->len;
    for (uint32_t i = 0; i < dict->len; i++) {
        keys[i] = dict->entries[i].key;
        (*order)[i] = lcj_int(i);
    }
    return lcj_sort(rt, *order, keys, dict->len, false);
}

static bool put_object(const dump *d, const lcj_dict *dict, uint32_t nest) {
    lcj_val *order = NULL;
    if (!dict->len) return put_text(d->rt, "{}");
    if (d->sort && !sorted_entries(d->rt, dict, &order)) return false;
    if (!lcj_putc(d->rt, '{')) return false;
    for (uint32_t i = 0; i < dict->len; i++) {
        const lcj_entry *e = &dict->entries[order ? order[i].u.i : i];
        if ((i && !lcj_put_str(d->rt, d->item_separator)) || !put_break(d, nest + 1) ||
            !put_key(d, e->key) || !lcj_put_str(d->rt, d->key_separator) ||
            !put_value(d, e->value, nest + 1))
            return false;
    }
    return put_break(d, nest) && lcj_putc(d->rt, '}');
}

static bool put_value(const dump *d, lcj_val v, uint32_t nest) {
    bool done;
    if (nest > LCJ_NEST) return lcj_limit(d->rt, "nesting of values");
    if (!lcj_tick(d->rt, 1)) return false;
    if (lcj_is_string(v)) return put_json_string(d, v);
    if (lcj_is_seq(v)) return put_array(d, v.u.list, nest);
    if (v.type == LCJ_DICT) return put_object(d, v.u.dict, nest);
    if (!put_scalar(d->rt, v, &done)) return false;
    if (done) return true;
    return lcj_fail(d->rt, LC_JINJA_TYPE, "Object of type %s is not JSON serializable",
                    lcj_type_name(v));
}

static bool read_indent(dump *d, lcj_val v) {
    if (v.type == LCJ_MISSING || v.type == LCJ_NONE) return true;
    d->has_indent = true;
    d->indent = v;
    if (lcj_is_string(v)) return true;
    return lcj_arith(d->rt, LCJ_MUL, lcj_text(LCJ_STR(" ")), v, &d->indent);
}

static bool read_separators(dump *d, lcj_val v) {
    d->item_separator = lcj_text(d->has_indent ? LCJ_STR(",") : LCJ_STR(", "));
    d->key_separator = lcj_text(LCJ_STR(": "));
    if (v.type == LCJ_MISSING || v.type == LCJ_NONE) return true;
    lcj_val pair;
    if (!lcj_iterable(v))
        return lcj_fail(d->rt, LC_JINJA_TYPE, "cannot unpack non-iterable %s object",
                        lcj_type_name(v));
    if (!lcj_to_list(d->rt, v, LCJ_LIST, &pair)) return false;
    const lcj_list *list = pair.u.list;
    if (list->len != 2) return lcj_fail(d->rt, LC_JINJA_VALUE, "separators are not two values");
    if (!lcj_is_string(list->items[0]) || !lcj_is_string(list->items[1]))
        return lcj_fail(d->rt, LC_JINJA_TYPE, "separators must be two strings");
    d->item_separator = list->items[0];
    d->key_separator = list->items[1];
    return true;
}

bool lcj_tojson(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    dump d = {.rt = rt};
    size_t start = rt->out.len;
    const lcj_val *a = call->bound; /* ensure_ascii, indent, separators, sort_keys */
    if (a[0].type != LCJ_MISSING && !lcj_truth(rt, a[0], &d.ascii)) return false;
    if (a[3].type != LCJ_MISSING && !lcj_truth(rt, a[3], &d.sort)) return false;
    return read_indent(&d, a[1]) && read_separators(&d, a[2]) && put_value(&d, call->self, 0) &&
           lcj_take(rt, start, out);
}
