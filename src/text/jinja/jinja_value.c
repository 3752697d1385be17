/*
 * jinja_value.c: what values are: lists, dicts, truth, equality, order and hashing, after Python.
 *
 * Dicts keep the order of insertion; 1, 1.0 and true are one key. Everything that walks through a
 * value counts steps and stops at LCJ_NEST levels, since a template can build values that hold
 * themselves (through a namespace) or that have 2^40 leaves.
 */
#include "text/jinja/jinja_internal.h"

#include <math.h>

lcj_val lcj_string(const char *s, size_t len) {
    uint64_t seen = 0, word;
    size_t i = 0;
    for (; i + 8 <= len && !(seen & 0x8080808080808080u); i += 8) {
        memcpy(&word, s + i, sizeof word);
        seen |= word;
    }
    for (; i < len && !(seen & 0x8080808080808080u); i++) seen |= (unsigned char)s[i];
    return (lcj_val){.type = LCJ_STRING,
                     .flags = seen & 0x8080808080808080u ? 0 : LCJ_ASCII,
                     .len = (uint32_t)len,
                     .u.s = s};
}

lcj_val lcj_undefined_name(lcj_str name) {
    return (lcj_val){.type = LCJ_UNDEFINED, .sub = LCJ_UNDEF_NAME, .len = name.len, .u.s = name.s};
}

lcj_val lcj_undefined_hint(const char *literal) {
    return (lcj_val){.type = LCJ_UNDEFINED,
                     .sub = LCJ_UNDEF_HINT,
                     .len = (uint32_t)strlen(literal),
                     .u.s = literal};
}

bool lcj_undefined_item(lcj_rt *rt, lcj_val owner, lcj_val key, lcj_val *out) {
    lcj_val v = {.type = LCJ_UNDEFINED, .sub = LCJ_UNDEF_ATTR, .aux = owner.type};
    if (lcj_is_string(key)) {
        v.len = key.len;
        v.u.s = key.u.s;
    } else {
        size_t start = rt->out.len;
        lcj_val text;
        if (!lcj_put_repr(rt, key) || !lcj_take(rt, start, &text)) return false;
        v.sub = LCJ_UNDEF_ITEM;
        v.len = text.len;
        v.u.s = text.u.s;
    }
    *out = v;
    return true;
}

static const char *type_name(uint8_t type) {
    switch (type) {
    case LCJ_UNDEFINED: return "Undefined";
    case LCJ_NONE: return "NoneType";
    case LCJ_BOOL: return "bool";
    case LCJ_INT:
    case LCJ_BIG: return "int";
    case LCJ_FLOAT: return "float";
    case LCJ_STRING: return "str";
    case LCJ_LIST: return "list";
    case LCJ_TUPLE: return "tuple";
    case LCJ_DICT: return "dict";
    case LCJ_RANGE_OBJ: return "range";
    case LCJ_VIEW: return "dict view";
    case LCJ_ITER: return "generator";
    case LCJ_NAMESPACE: return "Namespace";
    case LCJ_FUNC: return "function";
    case LCJ_METHOD: return "builtin_function_or_method";
    case LCJ_MACRO: return "Macro";
    case LCJ_LOOP: return "LoopContext";
    case LCJ_CYCLER: return "Cycler";
    case LCJ_JOINER: return "Joiner";
    default: return "missing";
    }
}

const char *lcj_type_name(lcj_val v) { return type_name(v.type); }

bool lcj_fail_undefined(lcj_rt *rt, lcj_val v) {
    int len = v.len > 400 ? 400 : (int)v.len;
    const char *owner = v.aux == LCJ_NONE ? "None" : type_name(v.aux);
    const char *object = v.aux == LCJ_NONE ? "" : " object";
    switch (v.sub) {
    case LCJ_UNDEF_NAME: return lcj_fail(rt, LC_JINJA_UNDEFINED, "'%.*s' is undefined", len, v.u.s);
    case LCJ_UNDEF_PARAM:
        return lcj_fail(rt, LC_JINJA_UNDEFINED, "parameter '%.*s' was not provided", len, v.u.s);
    case LCJ_UNDEF_ATTR:
        return lcj_fail(rt, LC_JINJA_UNDEFINED, "'%s%s' has no attribute '%.*s'", owner, object,
                        len, v.u.s);
    case LCJ_UNDEF_ITEM:
        return lcj_fail(rt, LC_JINJA_UNDEFINED, "%s%s has no element %.*s", owner, object, len,
                        v.u.s);
    case LCJ_UNDEF_UNSAFE:
        return lcj_fail(rt, LC_JINJA_SECURITY,
                        "access to attribute '%.*s' of '%s' object is unsafe.", len, v.u.s,
                        type_name(v.aux));
    default: return lcj_fail(rt, LC_JINJA_UNDEFINED, "%.*s", len, v.u.s);
    }
}

/* ---- lists ---- */

static lcj_array *array_new(lcj_rt *rt, size_t cap) {
    size_t size;
    if (cap > UINT32_MAX || !lc_size_mul(cap, sizeof(lcj_val), &size)) {
        lcj_limit(rt, "memory");
        return NULL;
    }
    lcj_array *array = lcj_alloc(rt, sizeof *array + size);
    if (array) *array = (lcj_array){.cap = (uint32_t)cap};
    return array;
}

static bool list_of(lcj_rt *rt, lcj_type type, lcj_array *array, size_t len, lcj_val *out) {
    lcj_list *list = lcj_alloc(rt, sizeof *list);
    if (!list) return false;
    *list = (lcj_list){array ? array->items : NULL, (uint32_t)len, array};
    *out = (lcj_val){.type = (uint8_t)type, .u.list = list};
    return true;
}

bool lcj_list_new(lcj_rt *rt, lcj_type type, const lcj_val *items, size_t len, lcj_val *out) {
    lcj_array *array = array_new(rt, len);
    if (!array || !lcj_tick(rt, len / 4)) return false;
    if (len) memcpy(array->items, items, len * sizeof *items);
    array->used = array->cap;
    return list_of(rt, type, array, len, out);
}

bool lcj_items_push(lcj_rt *rt, lcj_items *items, lcj_val v) {
    if (!items->array || items->len == items->array->cap) {
        size_t cap = items->array ? (size_t)items->array->cap * 2 : 8;
        lcj_array *grown = array_new(rt, cap);
        if (!grown) return false;
        if (items->array) memcpy(grown->items, items->array->items, items->len * sizeof v);
        items->array = grown;
    }
    items->array->items[items->len++] = v;
    return lcj_tick(rt, 1);
}

bool lcj_items_list(lcj_rt *rt, lcj_items *items, lcj_type type, lcj_val *out) {
    if (items->array) items->array->used = items->len;
    return list_of(rt, type, items->array, items->len, out);
}

bool lcj_list_concat(lcj_rt *rt, lcj_val a, lcj_val b, lcj_val *out) {
    lcj_list *left = a.u.list, *right = b.u.list;
    size_t len = (size_t)left->len + right->len;
    lcj_array *array = left->array;
    if (!lcj_tick(rt, right->len)) return false;
    bool in_place = array && left->len && left->items + left->len == array->items + array->used &&
                    array->cap - array->used >= right->len;
    if (!in_place) {
        if (!lcj_tick(rt, left->len)) return false;
        array = array_new(rt, len > 8 ? len * 2 : 8);
        if (!array) return false;
        if (left->len) memcpy(array->items, left->items, left->len * sizeof(lcj_val));
        array->used = left->len;
    }
    if (right->len) memcpy(array->items + array->used, right->items, right->len * sizeof(lcj_val));
    array->used += right->len;
    if (!list_of(rt, a.type, array, len, out)) return false;
    out->u.list->items = array->items + array->used - len;
    return true;
}

/* ---- dicts ---- */

enum { LINEAR = 8 }; /* entries that are searched without an index */

static bool hash_of(lcj_rt *rt, lcj_val v, uint32_t nest, uint64_t *out);

static uint64_t mix(uint64_t h, uint64_t v) {
    h ^= v;
    h *= 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static uint64_t hash_bytes(lcj_str s) {
    uint64_t h = s.len;
    size_t i = 0;
    for (uint64_t word; i + 8 <= s.len; i += 8) {
        memcpy(&word, s.s + i, 8);
        h = mix(h, word);
    }
    uint64_t tail = 0;
    if (i < s.len) memcpy(&tail, s.s + i, s.len - i);
    return mix(h, tail);
}

static uint64_t hash_float(double f) {
    if (f >= -9223372036854775808.0 && f < 9223372036854775808.0 && f == floor(f))
        return mix(1, (uint64_t)(int64_t)f);
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    return mix(2, bits);
}

static bool hash_items(lcj_rt *rt, const lcj_list *list, uint32_t nest, uint64_t *out) {
    uint64_t h = 3;
    for (uint32_t i = 0; i < list->len; i++) {
        uint64_t one = 0;
        if (!hash_of(rt, list->items[i], nest + 1, &one)) return false;
        h = mix(h, one);
    }
    *out = h;
    return true;
}

static bool hash_of(lcj_rt *rt, lcj_val v, uint32_t nest, uint64_t *out) {
    if (nest > LCJ_NEST) return lcj_limit(rt, "nesting of values");
    if (!lcj_tick(rt, 1)) return false;
    switch (v.type) {
    case LCJ_BOOL:
    case LCJ_INT: *out = mix(1, (uint64_t)lcj_as_int(v)); return true;
    case LCJ_BIG:
    case LCJ_FLOAT: *out = hash_float(lcj_as_double(v)); return true;
    case LCJ_STRING: *out = hash_bytes(lcj_bytes(v)); return lcj_tick_bytes(rt, v.len);
    case LCJ_NONE:
    case LCJ_UNDEFINED: *out = mix(4, v.type); return true;
    case LCJ_TUPLE: return hash_items(rt, v.u.list, nest, out);
    case LCJ_LIST:
    case LCJ_DICT:
    case LCJ_VIEW: return lcj_fail(rt, LC_JINJA_TYPE, "unhashable type: '%s'", lcj_type_name(v));
    case LCJ_RANGE_OBJ: *out = mix(5, (uint64_t)v.u.range->len); return true;
    default: *out = mix(v.type, (uint64_t)(uintptr_t)v.u.list); return true;
    }
}

bool lcj_hashable(lcj_val v) {
    if (v.type == LCJ_TUPLE) { /* flat: deeper ones fail in hash_of */
        for (uint32_t i = 0; i < v.u.list->len; i++) {
            uint8_t type = v.u.list->items[i].type;
            if (type == LCJ_LIST || type == LCJ_DICT || type == LCJ_VIEW) return false;
        }
        return true;
    }
    return v.type != LCJ_LIST && v.type != LCJ_DICT && v.type != LCJ_VIEW;
}

bool lcj_dict_new(lcj_rt *rt, uint32_t cap, lcj_val *out) {
    lcj_dict *dict = lcj_alloc(rt, sizeof *dict);
    if (!dict) return false;
    *dict = (lcj_dict){.cap = cap};
    if (cap) {
        dict->entries = lcj_alloc(rt, (size_t)cap * sizeof(lcj_entry));
        if (!dict->entries) return false;
    }
    *out = (lcj_val){.type = LCJ_DICT, .u.dict = dict};
    return true;
}

static void index_add(lcj_dict *dict, uint32_t entry) {
    uint32_t mask = dict->index_size - 1, at = (uint32_t)dict->entries[entry].hash & mask;
    while (dict->index[at]) at = (at + 1) & mask;
    dict->index[at] = entry + 1;
}

static bool dict_grow(lcj_rt *rt, lcj_dict *dict) {
    if (dict->len == dict->cap) {
        uint32_t cap = dict->cap ? dict->cap * 2 : 4;
        lcj_entry *grown = lcj_alloc(rt, (size_t)cap * sizeof *grown);
        if (!grown) return false;
        if (dict->len) memcpy(grown, dict->entries, dict->len * sizeof *grown);
        dict->entries = grown;
        dict->cap = cap;
        if (!lcj_tick(rt, dict->len)) return false;
    }
    if (dict->len >= LINEAR && dict->index_size < 2 * (dict->len + 1)) {
        uint32_t size = dict->index_size ? dict->index_size * 2 : 4 * LINEAR;
        while (size < 2 * (dict->len + 1)) size *= 2;
        dict->index = lcj_alloc(rt, (size_t)size * sizeof *dict->index);
        if (!dict->index) return false;
        memset(dict->index, 0, (size_t)size * sizeof *dict->index);
        dict->index_size = size;
        for (uint32_t i = 0; i < dict->len; i++) index_add(dict, i);
    }
    return true;
}

static bool same_key(lcj_rt *rt, const lcj_entry *e, lcj_val key, uint64_t hash, bool *same) {
    *same = false;
    if (e->hash != hash) return true;
    if (lcj_is_string(e->key) && lcj_is_string(key)) {
        *same = lcj_str_eq(lcj_bytes(e->key), lcj_bytes(key));
        return true;
    }
    return lcj_equal(rt, e->key, key, same);
}

static bool dict_find(lcj_rt *rt, const lcj_dict *dict, lcj_val key, uint64_t hash,
                      lcj_entry **out) {
    bool same;
    *out = NULL;
    if (!dict->index) {
        for (uint32_t i = 0; i < dict->len; i++) {
            if (!same_key(rt, &dict->entries[i], key, hash, &same)) return false;
            if (same) {
                *out = &dict->entries[i];
                return true;
            }
        }
        return true;
    }
    uint32_t mask = dict->index_size - 1;
    for (uint32_t at = (uint32_t)hash & mask; dict->index[at]; at = (at + 1) & mask) {
        lcj_entry *e = &dict->entries[dict->index[at] - 1];
        if (!lcj_tick(rt, 1) || !same_key(rt, e, key, hash, &same)) return false;
        if (same) {
            *out = e;
            return true;
        }
    }
    return true;
}

bool lcj_dict_set(lcj_rt *rt, lcj_dict *dict, lcj_val key, lcj_val value) {
    uint64_t hash = 0;
    lcj_entry *found;
    if (!hash_of(rt, key, 0, &hash) || !dict_find(rt, dict, key, hash, &found)) return false;
    if (found) {
        found->value = value;
        return true;
    }
    if (!dict_grow(rt, dict)) return false;
    dict->entries[dict->len++] = (lcj_entry){key, value, hash};
    if (dict->index) index_add(dict, dict->len - 1);
    return true;
}

bool lcj_dict_get(lcj_rt *rt, const lcj_dict *dict, lcj_val key, lcj_val *out) {
    uint64_t hash = 0;
    lcj_entry *found;
    *out = lcj_missing();
    if (!hash_of(rt, key, 0, &hash) || !dict_find(rt, dict, key, hash, &found)) return false;
    if (found) *out = found->value;
    return true;
}

bool lcj_dict_get_str(lcj_rt *rt, const lcj_dict *dict, lcj_str key, lcj_val *out) {
    lcj_entry *found;
    lcj_val text = {.type = LCJ_STRING, .len = key.len, .u.s = key.s};
    *out = lcj_missing();
    if (!dict_find(rt, dict, text, hash_bytes(key), &found)) return false;
    if (found) *out = found->value;
    return true;
}

/* ---- truth, length ---- */

bool lcj_truth(lcj_rt *rt, lcj_val v, bool *out) {
    int64_t len;
    switch (v.type) {
    case LCJ_UNDEFINED:
    case LCJ_NONE: *out = false; return true;
    case LCJ_BOOL: *out = v.u.b; return true;
    case LCJ_INT: *out = v.u.i != 0; return true;
    case LCJ_FLOAT: *out = v.u.f != 0; return true;
    case LCJ_STRING: *out = v.len != 0; return true;
    case LCJ_LIST:
    case LCJ_TUPLE: *out = v.u.list->len != 0; return true;
    case LCJ_DICT:
    case LCJ_VIEW: *out = v.u.dict->len != 0; return true;
    case LCJ_RANGE_OBJ: *out = v.u.range->len != 0; return true;
    case LCJ_LOOP:
        if (!lcj_loop_length(rt, v.u.loop, &len)) return false;
        *out = len != 0;
        return true;
    default: *out = true; return true;
    }
}

bool lcj_length(lcj_rt *rt, lcj_val v, int64_t *out) {
    size_t n;
    switch (v.type) {
    case LCJ_UNDEFINED: *out = 0; return true;
    case LCJ_STRING:
        if (!lcj_char_count(rt, v, &n)) return false;
        *out = (int64_t)n;
        return true;
    case LCJ_LIST:
    case LCJ_TUPLE: *out = v.u.list->len; return true;
    case LCJ_DICT:
    case LCJ_VIEW: *out = v.u.dict->len; return true;
    case LCJ_RANGE_OBJ: *out = v.u.range->len; return true;
    case LCJ_LOOP: return lcj_loop_length(rt, v.u.loop, out);
    default:
        return lcj_fail(rt, LC_JINJA_TYPE, "object of type '%s' has no len()", lcj_type_name(v));
    }
}

/* ---- equality and order ---- */

bool lcj_identical(lcj_val a, lcj_val b) {
    if (a.type != b.type) return false;
    switch (a.type) {
    case LCJ_NONE: return true;
    case LCJ_BOOL: return a.u.b == b.u.b;
    case LCJ_INT: return a.u.i == b.u.i && a.u.i >= -5 && a.u.i <= 256; /* CPython's cache */
    case LCJ_STRING: return a.u.s == b.u.s && a.len == b.len;
    case LCJ_FLOAT:
    case LCJ_BIG:
    case LCJ_UNDEFINED:
    case LCJ_VIEW:
    case LCJ_METHOD: return false; /* made anew at each use */
    default: return a.u.list == b.u.list;
    }
}

static bool equal_at(lcj_rt *rt, lcj_val a, lcj_val b, uint32_t nest, bool *out);

static bool equal_items(lcj_rt *rt, const lcj_list *a, const lcj_list *b, uint32_t nest,
                        bool *out) {
    *out = a->len == b->len;
    if (a == b || (*out && a->items == b->items)) return true;
    for (uint32_t i = 0; i < a->len && *out; i++)
        if (!equal_at(rt, a->items[i], b->items[i], nest + 1, out)) return false;
    return true;
}

static bool equal_dicts(lcj_rt *rt, const lcj_dict *a, const lcj_dict *b, uint32_t nest,
                        bool *out) {
    *out = a->len == b->len;
    if (a == b) return true;
    for (uint32_t i = 0; i < a->len && *out; i++) {
        lcj_entry *other;
        if (!dict_find(rt, b, a->entries[i].key, a->entries[i].hash, &other)) return false;
        *out = other != NULL;
        if (other && !equal_at(rt, a->entries[i].value, other->value, nest + 1, out)) return false;
    }
    return true;
}

static bool equal_ranges(const lcj_range *a, const lcj_range *b) {
    return a->len == b->len &&
           (!a->len || (a->start == b->start && (a->len == 1 || a->step == b->step)));
}

static bool equal_at(lcj_rt *rt, lcj_val a, lcj_val b, uint32_t nest, bool *out) {
    bool unordered = false;
    if (nest > LCJ_NEST) return lcj_limit(rt, "nesting of values");
    if (!lcj_tick(rt, 1)) return false;
    if (lcj_is_number(a) && lcj_is_number(b)) {
        *out = lcj_number_cmp(a, b, &unordered) == 0 && !unordered;
        return true;
    }
    *out = false;
    if (a.type != b.type) return true;
    switch (a.type) {
    case LCJ_UNDEFINED:
    case LCJ_NONE: *out = true; return true;
    case LCJ_STRING:
        *out = lcj_str_eq(lcj_bytes(a), lcj_bytes(b));
        return a.len != b.len || lcj_tick_bytes(rt, a.len);
    case LCJ_LIST:
    case LCJ_TUPLE: return equal_items(rt, a.u.list, b.u.list, nest, out);
    case LCJ_DICT: return equal_dicts(rt, a.u.dict, b.u.dict, nest, out);
    case LCJ_RANGE_OBJ: *out = equal_ranges(a.u.range, b.u.range); return true;
    case LCJ_VIEW:
        if (a.sub != 'v' && b.sub != 'v') return lcj_unsupported(rt, "comparison of dict views");
        return true;
    case LCJ_METHOD:
        *out = a.u.bound->def == b.u.bound->def && lcj_identical(a.u.bound->self, b.u.bound->self);
        return true;
    default: *out = a.u.list == b.u.list; return true;
    }
}

bool lcj_equal(lcj_rt *rt, lcj_val a, lcj_val b, bool *out) { return equal_at(rt, a, b, 0, out); }

static const char *op_text(lcj_op op) {
    return op == LCJ_LT ? "<" : op == LCJ_LE ? "<=" : op == LCJ_GT ? ">" : ">=";
}

static bool holds(lcj_op op, int order) {
    return op == LCJ_LT   ? order < 0
           : op == LCJ_LE ? order <= 0
           : op == LCJ_GT ? order > 0
                          : order >= 0;
}

static bool order_at(lcj_rt *rt, lcj_op op, lcj_val a, lcj_val b, uint32_t nest, bool *out) {
    if (nest > LCJ_NEST) return lcj_limit(rt, "nesting of values");
    if (!lcj_tick(rt, 1)) return false;
    if (lcj_is_number(a) && lcj_is_number(b)) {
        bool unordered = false;
        int order = lcj_number_cmp(a, b, &unordered);
        *out = !unordered && holds(op, order);
        return true;
    }
    if (lcj_is_undefined(a)) return lcj_fail_undefined(rt, a);
    if (lcj_is_undefined(b)) return lcj_fail_undefined(rt, b);
    if (lcj_is_string(a) && lcj_is_string(b)) { /* the order of UTF-8 is that of code points */
        uint32_t len = a.len < b.len ? a.len : b.len;
        int order = len ? memcmp(a.u.s, b.u.s, len) : 0;
        if (!order) order = a.len < b.len ? -1 : a.len > b.len;
        *out = holds(op, order);
        return lcj_tick_bytes(rt, len);
    }
    if (lcj_is_seq(a) && a.type == b.type) {
        const lcj_list *x = a.u.list, *y = b.u.list;
        uint32_t len = x->len < y->len ? x->len : y->len;
        for (uint32_t i = 0; i < len; i++) {
            bool same;
            if (!equal_at(rt, x->items[i], y->items[i], nest + 1, &same)) return false;
            if (!same) return order_at(rt, op, x->items[i], y->items[i], nest + 1, out);
        }
        *out = holds(op, x->len < y->len ? -1 : x->len > y->len);
        return true;
    }
    if (a.type == LCJ_VIEW && b.type == LCJ_VIEW)
        return lcj_unsupported(rt, "comparison of dict views");
    return lcj_fail(rt, LC_JINJA_TYPE, "'%s' not supported between instances of '%s' and '%s'",
                    op_text(op), lcj_type_name(a), lcj_type_name(b));
}

bool lcj_compare(lcj_rt *rt, lcj_op op, lcj_val a, lcj_val b, bool *out) {
    switch (op) {
    case LCJ_EQ: return lcj_equal(rt, a, b, out);
    case LCJ_NE:
        if (!lcj_equal(rt, a, b, out)) return false;
        *out = !*out;
        return true;
    case LCJ_IN: return lcj_contains(rt, b, a, out);
    case LCJ_NOTIN:
        if (!lcj_contains(rt, b, a, out)) return false;
        *out = !*out;
        return true;
    default: return order_at(rt, op, a, b, 0, out);
    }
}

static bool contains_by_iteration(lcj_rt *rt, lcj_val container, lcj_val item, bool *out) {
    lcj_iter it;
    lcj_val v;
    *out = false;
    if (!lcj_iter_open(rt, container, &it)) return false;
    for (int got; (got = lcj_iter_next(rt, &it, &v)) != 0;) {
        if (got < 0) return false;
        *out = lcj_identical(v, item);
        if (!*out && !lcj_equal(rt, v, item, out)) return false;
        if (*out) return true;
    }
    return true;
}

bool lcj_contains(lcj_rt *rt, lcj_val container, lcj_val item, bool *out) {
    lcj_val found;
    if (container.type == LCJ_STRING) {
        if (!lcj_is_string(item))
            return lcj_fail(rt, LC_JINJA_TYPE,
                            "'in <string>' requires string as left operand, not %s",
                            lcj_type_name(item));
        *out = lcj_find(container, item, 0) >= 0;
        return lcj_tick_bytes(rt, container.len);
    }
    if (container.type == LCJ_DICT || (container.type == LCJ_VIEW && container.sub == 'k')) {
        if (!lcj_dict_get(rt, container.u.dict, item, &found)) return false;
        *out = found.type != LCJ_MISSING;
        return true;
    }
    if (!lcj_iterable(container))
        return lcj_fail(rt, LC_JINJA_TYPE, "argument of type '%s' is not iterable",
                        lcj_type_name(container));
    return contains_by_iteration(rt, container, item, out);
}

/* ---- sorting ---- */

typedef struct sorting {
    lcj_rt *rt;
    lcj_val *items, *keys, *items2, *keys2;
    bool reverse;
} sorting;

static bool merge(const sorting *s, size_t from, size_t middle, size_t to) {
    size_t left = from, right = middle, at = from;
    while (left < middle && right < to) {
        bool take_right = false;
        const lcj_val *a = &s->keys[right], *b = &s->keys[left];
        if (s->reverse) { /* equal keys stay in order here too */
            a = &s->keys[left];
            b = &s->keys[right];
        }
        if (!lcj_compare(s->rt, LCJ_LT, *a, *b, &take_right)) return false;
        size_t *next = take_right ? &right : &left;
        s->items2[at] = s->items[*next];
        s->keys2[at++] = s->keys[(*next)++];
    }
    for (; left < middle; left++, at++)
        s->items2[at] = s->items[left], s->keys2[at] = s->keys[left];
    for (; right < to; right++, at++)
        s->items2[at] = s->items[right], s->keys2[at] = s->keys[right];
    return true;
}

bool lcj_sort(lcj_rt *rt, lcj_val *items, lcj_val *keys, size_t len, bool reverse) {
    if (len < 2) return true;
    lcj_array *spare = array_new(rt, 2 * len);
    if (!spare) return false;
    sorting s = {rt, items, keys, spare->items, spare->items + len, reverse};
    for (size_t width = 1; width < len; width *= 2) {
        for (size_t from = 0; from < len; from += 2 * width) {
            size_t middle = from + width < len ? from + width : len;
            size_t to = middle + width < len ? middle + width : len;
            if (!merge(&s, from, middle, to)) return false;
        }
        memcpy(items, s.items2, len * sizeof *items);
        memcpy(keys, s.keys2, len * sizeof *keys);
        if (!lcj_tick(rt, len)) return false;
    }
    return true;
}
