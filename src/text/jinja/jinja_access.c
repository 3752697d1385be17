/*
 * jinja_access.c: x.name, x[key], x[a:b:c] and attribute paths, with the sandbox's rules.
 *
 * x.name looks for an attribute first and for a key then; x[key] the other way round. Attributes
 * of built-in types are their methods (tables in jinja_methods.c). What begins with "_" and what
 * would change a list or dict gives an undefined value whose use is a security error. An attribute
 * that Python has and we lack can be asked for but not called.
 */
#include "text/jinja/jinja_internal.h"

/* What every Python object has, nearly. */
static const char *const dunders[] = {
    "__class__",  "__delattr__",   "__dir__",         "__doc__",
    "__eq__",     "__format__",    "__ge__",          "__getattribute__",
    "__gt__",     "__hash__",      "__init__",        "__init_subclass__",
    "__le__",     "__lt__",        "__ne__",          "__new__",
    "__reduce__", "__reduce_ex__", "__repr__",        "__setattr__",
    "__sizeof__", "__str__",       "__subclasshook__"};

static const lcj_def int_attributes[] = {
    {"as_integer_ratio", NULL, "", LCJ_DEF_PLAIN}, {"bit_count", NULL, "", LCJ_DEF_PLAIN},
    {"bit_length", NULL, "", LCJ_DEF_PLAIN},       {"conjugate", NULL, "", LCJ_DEF_PLAIN},
    {"denominator", NULL, "", LCJ_DEF_PROPERTY},   {"from_bytes", NULL, "*", LCJ_DEF_PLAIN},
    {"imag", NULL, "", LCJ_DEF_PROPERTY},          {"is_integer", NULL, "", LCJ_DEF_PLAIN},
    {"numerator", NULL, "", LCJ_DEF_PROPERTY},     {"real", NULL, "", LCJ_DEF_PROPERTY},
    {"to_bytes", NULL, "*", LCJ_DEF_PLAIN},        {NULL, NULL, NULL, 0}};
static const lcj_def float_attributes[] = {
    {"as_integer_ratio", NULL, "", LCJ_DEF_PLAIN}, {"conjugate", NULL, "", LCJ_DEF_PLAIN},
    {"fromhex", NULL, "*", LCJ_DEF_PLAIN},         {"hex", NULL, "", LCJ_DEF_PLAIN},
    {"imag", NULL, "", LCJ_DEF_PROPERTY},          {"is_integer", NULL, "", LCJ_DEF_PLAIN},
    {"real", NULL, "", LCJ_DEF_PROPERTY},          {NULL, NULL, NULL, 0}};
static const lcj_def range_attributes[] = {{"count", NULL, "*", LCJ_DEF_PLAIN},
                                           {"index", NULL, "*", LCJ_DEF_PLAIN},
                                           {NULL, NULL, NULL, 0}};
static const lcj_def view_attributes[] = {{"isdisjoint", NULL, "*", LCJ_DEF_PLAIN},
                                          {"mapping", NULL, "", LCJ_DEF_PROPERTY},
                                          {NULL, NULL, NULL, 0}};
static const lcj_def generator_attributes[] = {
    {"close", NULL, "*", LCJ_DEF_PLAIN},          {"gi_code", NULL, "", LCJ_DEF_CHANGES},
    {"gi_frame", NULL, "", LCJ_DEF_CHANGES},      {"gi_running", NULL, "", LCJ_DEF_PROPERTY},
    {"gi_yieldfrom", NULL, "", LCJ_DEF_PROPERTY}, {"send", NULL, "*", LCJ_DEF_PLAIN},
    {"throw", NULL, "*", LCJ_DEF_PLAIN},          {NULL, NULL, NULL, 0}};
static bool is_dunder(lcj_str name) {
    if (name.len < 5 || name.s[0] != '_' || name.s[1] != '_') return false;
    for (size_t i = 0; i < sizeof dunders / sizeof *dunders; i++)
        if (strlen(dunders[i]) == name.len && !memcmp(dunders[i], name.s, name.len)) return true;
    return false;
}

const lcj_def *lcj_find_method(lcj_val obj, lcj_str name) {
    switch (obj.type) {
    case LCJ_STRING: return lcj_find_def(lcj_str_methods, name);
    case LCJ_DICT: return lcj_find_def(lcj_dict_methods, name);
    case LCJ_LIST: return lcj_find_def(lcj_list_methods, name);
    case LCJ_TUPLE: {
        const lcj_def *def = lcj_find_def(lcj_list_methods, name);
        bool has = def && (!strcmp(def->name, "count") || !strcmp(def->name, "index"));
        return has ? def : NULL;
    }
    case LCJ_BOOL:
    case LCJ_INT:
    case LCJ_BIG: return lcj_find_def(int_attributes, name);
    case LCJ_FLOAT: return lcj_find_def(float_attributes, name);
    case LCJ_RANGE_OBJ: return lcj_find_def(range_attributes, name);
    case LCJ_VIEW: return lcj_find_def(view_attributes, name);
    case LCJ_ITER: return lcj_find_def(generator_attributes, name);
    case LCJ_CYCLER: return lcj_find_def(lcj_cycler_methods, name);
    case LCJ_FUNC:
        return strcmp(obj.u.def->name, "dict") ? NULL : lcj_find_def(lcj_dict_attributes, name);
    default: return NULL;
    }
}

static lcj_val unsafe(lcj_val obj, lcj_str name) {
    return (lcj_val){.type = LCJ_UNDEFINED,
                     .sub = LCJ_UNDEF_UNSAFE,
                     .aux = obj.type,
                     .len = name.len,
                     .u.s = name.s};
}

static bool bind_method(lcj_rt *rt, lcj_val obj, const lcj_def *def, lcj_str name, lcj_val *out) {
    if (def->kind == LCJ_DEF_CHANGES) {
        *out = unsafe(obj, name);
        return true;
    }
    if (def->kind == LCJ_DEF_PROPERTY)
        return lcj_fail(rt, LC_JINJA_UNSUPPORTED, "the attribute %s of %s is not supported",
                        def->name, lcj_type_name(obj));
    lcj_bound *bound = lcj_alloc(rt, sizeof *bound);
    if (!bound) return false;
    *bound = (lcj_bound){obj, def, {def->name, (uint32_t)strlen(def->name)}};
    *out = (lcj_val){.type = LCJ_METHOD, .u.bound = bound};
    return true;
}

static bool is(lcj_str name, const char *text) {
    return strlen(text) == name.len && !memcmp(text, name.s, name.len);
}

static bool macro_attr(lcj_rt *rt, const lcj_macro *macro, lcj_str name, lcj_val *out) {
    const lcj_node *node = macro->node;
    if (is(name, "name")) {
        *out = node->kind == LCJ_N_MACRO ? lcj_text(node->name) : lcj_none();
        return true;
    }
    if (is(name, "arguments")) {
        lcj_items items = {0};
        for (uint32_t i = 0; i < node->items.len; i++)
            if (!lcj_items_push(rt, &items, lcj_text(node->items.list[i]->name))) return false;
        return lcj_items_list(rt, &items, LCJ_TUPLE, out);
    }
    if (is(name, "catch_kwargs"))
        *out = lcj_bool(node->scope->func->uses_kwargs);
    else if (is(name, "catch_varargs"))
        *out = lcj_bool(node->scope->func->uses_varargs);
    else if (is(name, "caller"))
        *out = lcj_bool(node->scope->func->uses_caller);
    return true;
}

/* Attributes that are values, not methods; *out stays LCJ_MISSING where there is none. */
static bool value_attr(lcj_rt *rt, lcj_val obj, lcj_str name, lcj_val *out) {
    *out = lcj_missing();
    switch (obj.type) {
    case LCJ_NAMESPACE: return lcj_dict_get_str(rt, obj.u.dict, name, out);
    case LCJ_LOOP: return lcj_loop_attr(rt, obj.u.loop, name, out);
    case LCJ_MACRO: return macro_attr(rt, obj.u.macro, name, out);
    case LCJ_CYCLER:
        if (is(name, "current")) *out = obj.u.cycler->items.items[obj.u.cycler->pos];
        return true;
    case LCJ_RANGE_OBJ:
        if (is(name, "start")) *out = lcj_int(obj.u.range->start);
        if (is(name, "stop")) *out = lcj_int(obj.u.range->stop);
        if (is(name, "step")) *out = lcj_int(obj.u.range->step);
        return true;
    case LCJ_TUPLE: /* of the filter groupby */
        if (obj.sub == 'g' && is(name, "grouper")) *out = obj.u.list->items[0];
        if (obj.sub == 'g' && is(name, "list")) *out = obj.u.list->items[1];
        return true;
    default: return true;
    }
}

/* Python's getattr; *out stays LCJ_MISSING for an AttributeError. */
bool lcj_attribute(lcj_rt *rt, lcj_val obj, lcj_str name, lcj_val *out) {
    *out = lcj_missing();
    if (is_dunder(name)) {
        *out = unsafe(obj, name);
        return true;
    }
    if (lcj_is_undefined(obj)) return lcj_fail_undefined(rt, obj);
    if (!value_attr(rt, obj, name, out)) return false;
    if (out->type != LCJ_MISSING) return true;
    const lcj_def *def = lcj_find_method(obj, name);
    return !def || bind_method(rt, obj, def, name, out);
}

bool lcj_getattr(lcj_rt *rt, lcj_val obj, lcj_str name, lcj_val *out) {
    if (!lcj_attribute(rt, obj, name, out)) return false;
    if (out->type != LCJ_MISSING) return true;
    if (obj.type == LCJ_DICT && !lcj_dict_get_str(rt, obj.u.dict, name, out)) return false;
    if (out->type == LCJ_MISSING) return lcj_undefined_item(rt, obj, lcj_text(name), out);
    return true;
}

/* A position in a sequence of len items; false where there is none. */
static bool position(lcj_val key, int64_t len, int64_t *at) {
    if (key.type != LCJ_INT && key.type != LCJ_BOOL) return false;
    *at = lcj_as_int(key);
    if (*at < 0) *at += len;
    return *at >= 0 && *at < len;
}

/* Python's obj[key]; *out stays LCJ_MISSING for a TypeError or LookupError. */
static bool item(lcj_rt *rt, lcj_val obj, lcj_val key, lcj_val *out) {
    int64_t at;
    size_t chars, len;
    *out = lcj_missing();
    switch (obj.type) {
    case LCJ_UNDEFINED: return lcj_fail_undefined(rt, obj);
    case LCJ_DICT: return !lcj_hashable(key) || lcj_dict_get(rt, obj.u.dict, key, out);
    case LCJ_LIST:
    case LCJ_TUPLE:
        if (position(key, obj.u.list->len, &at)) *out = obj.u.list->items[at];
        return true;
    case LCJ_RANGE_OBJ:
        if (position(key, obj.u.range->len, &at))
            *out = lcj_int(obj.u.range->start + at * obj.u.range->step);
        return true;
    case LCJ_STRING:
        if (key.type != LCJ_INT && key.type != LCJ_BOOL) return true;
        if (!lcj_char_count(rt, obj, &chars)) return false;
        if (position(key, (int64_t)chars, &at)) {
            size_t from = lcj_char_offset(obj, (size_t)at);
            lcj_char_at(obj.u.s + from, &len);
            *out = lcj_part(obj, from, len);
        }
        return true;
    default: return true;
    }
}

bool lcj_getitem(lcj_rt *rt, lcj_val obj, lcj_val key, lcj_val *out) {
    if (!item(rt, obj, key, out)) return false;
    if (out->type == LCJ_MISSING && lcj_is_string(key) &&
        !lcj_attribute(rt, obj, lcj_bytes(key), out))
        return false;
    return out->type != LCJ_MISSING || lcj_undefined_item(rt, obj, key, out);
}

/* ---- slices ---- */

typedef struct cut {
    int64_t from, to, step, len;
} cut;

static bool bound(lcj_rt *rt, lcj_val v, int64_t none, int64_t *out) {
    if (v.type == LCJ_NONE) {
        *out = none;
        return true;
    }
    if (v.type == LCJ_BIG) {
        *out = v.u.s[0] == '-' ? INT64_MIN : INT64_MAX;
        return true;
    }
    if (v.type != LCJ_INT && v.type != LCJ_BOOL)
        return lcj_fail(rt, LC_JINJA_TYPE,
                        "slice indices must be integers or None or have an __index__ method");
    *out = lcj_as_int(v);
    return true;
}

static int64_t clamp(int64_t at, int64_t len, bool backwards) {
    if (at < 0) {
        at += len;
        if (at < 0) at = backwards ? -1 : 0;
    } else if (at >= len) {
        at = backwards ? len - 1 : len;
    }
    return at;
}

static bool cut_of(lcj_rt *rt, const lcj_val bounds[3], int64_t len, cut *c) {
    if (!bound(rt, bounds[2], 1, &c->step)) return false;
    if (!c->step) return lcj_fail(rt, LC_JINJA_VALUE, "slice step cannot be zero");
    if (c->step == INT64_MIN) c->step = -INT64_MAX;
    bool back = c->step < 0;
    if (!bound(rt, bounds[0], back ? INT64_MAX : 0, &c->from) ||
        !bound(rt, bounds[1], back ? INT64_MIN : INT64_MAX, &c->to))
        return false;
    c->from = clamp(c->from, len, back);
    c->to = clamp(c->to, len, back);
    c->len = 0;
    if (!back && c->from < c->to) c->len = (c->to - c->from - 1) / c->step + 1;
    if (back && c->to < c->from) c->len = (c->from - c->to - 1) / -c->step + 1;
    return true;
}

static bool slice_list(lcj_rt *rt, lcj_val obj, const cut *c, lcj_val *out) {
    lcj_items items = {0};
    const lcj_list *list = obj.u.list;
    if (c->step == 1) {
        lcj_list *part = lcj_alloc(rt, sizeof *part);
        if (!part) return false;
        *part = (lcj_list){list->items + c->from, (uint32_t)c->len, list->array};
        if (!c->len) part->array = NULL;
        *out = (lcj_val){.type = obj.type, .u.list = part};
        return true;
    }
    for (int64_t i = 0; i < c->len; i++)
        if (!lcj_items_push(rt, &items, list->items[c->from + i * c->step])) return false;
    return lcj_items_list(rt, &items, obj.type, out);
}

static bool slice_string(lcj_rt *rt, lcj_val s, const cut *c, lcj_val *out) {
    size_t start = rt->out.len, len;
    if (c->step == 1) {
        size_t from = lcj_char_offset(s, (size_t)c->from);
        lcj_val rest = lcj_part(s, from, s.len - from);
        *out = lcj_part(s, from, lcj_char_offset(rest, (size_t)c->len));
        return true;
    }
    size_t *offsets = NULL; /* of characters; ASCII needs none */
    if (!(s.flags & LCJ_ASCII)) {
        size_t n = 0;
        offsets = lcj_alloc(rt, lcj_count_chars(s) * sizeof *offsets);
        if (!offsets) return false;
        for (size_t i = 0; i < s.len; i += len) {
            offsets[n++] = i;
            lcj_char_at(s.u.s + i, &len);
        }
    }
    for (int64_t i = 0; i < c->len; i++) {
        int64_t at = c->from + i * c->step;
        const char *from = s.u.s + (offsets ? offsets[at] : (size_t)at);
        lcj_char_at(from, &len);
        if (!lcj_put(rt, from, len)) return false;
    }
    if (!lcj_tick_chars(rt, s.len) || !lcj_take(rt, start, out)) return false;
    out->flags |= s.flags & LCJ_SAFE;
    return true;
}

static bool slice_range(lcj_rt *rt, const lcj_range *r, const cut *c, lcj_val *out) {
    lcj_range *part = lcj_alloc(rt, sizeof *part);
    if (!part) return false;
    *part = (lcj_range){r->start + c->from * r->step, r->start + c->to * r->step, 0, c->len};
    if (__builtin_mul_overflow(r->step, c->step, &part->step))
        return lcj_unsupported(rt, "an integer beyond 64 bits");
    *out = (lcj_val){.type = LCJ_RANGE_OBJ, .u.range = part};
    return true;
}

bool lcj_slice(lcj_rt *rt, lcj_val obj, const lcj_val bounds[3], lcj_val *out) {
    cut c = {.step = 1};
    int64_t len;
    switch (obj.type) {
    case LCJ_UNDEFINED: return lcj_fail_undefined(rt, obj);
    case LCJ_DICT: return lcj_fail(rt, LC_JINJA_TYPE, "unhashable type: 'slice'");
    case LCJ_STRING:
    case LCJ_LIST:
    case LCJ_TUPLE:
    case LCJ_RANGE_OBJ: break;
    default:
        return lcj_fail(rt, LC_JINJA_TYPE, "'%s' object is not subscriptable", lcj_type_name(obj));
    }
    if (!lcj_length(rt, obj, &len) || !cut_of(rt, bounds, len, &c)) return false;
    if (lcj_is_seq(obj)) return slice_list(rt, obj, &c, out);
    if (lcj_is_string(obj)) return slice_string(rt, obj, &c, out);
    return slice_range(rt, obj.u.range, &c, out);
}

/* ---- paths ---- */

static bool path_part(lcj_rt *rt, lcj_val text, lcj_val *out) {
    bool digits = text.len != 0, ok;
    int64_t number;
    for (uint32_t i = 0; i < text.len; i++) digits &= text.u.s[i] >= '0' && text.u.s[i] <= '9';
    *out = text;
    if (!digits) return true;
    if (!lcj_parse_int(rt, lcj_bytes(text), 10, &ok, &number)) return false;
    if (ok) *out = lcj_int(number);
    return true;
}

bool lcj_path_new(lcj_rt *rt, lcj_val attribute_name, lcj_val **parts, uint32_t *len) {
    lcj_items items = {0};
    lcj_val v = attribute_name;
    *parts = NULL;
    *len = 0;
    if (v.type == LCJ_MISSING || v.type == LCJ_NONE) return true;
    if (!lcj_is_string(v)) {
        if (!lcj_items_push(rt, &items, v)) return false;
    } else {
        v.flags &= (uint8_t)~LCJ_SAFE;
        for (size_t from = 0; from <= v.len;) {
            int64_t dot = lcj_find(v, lcj_text(LCJ_STR(".")), from);
            size_t to = dot < 0 ? v.len : (size_t)dot;
            lcj_val part;
            if (!path_part(rt, lcj_part(v, from, to - from), &part) ||
                !lcj_items_push(rt, &items, part))
                return false;
            from = to + 1;
        }
    }
    *parts = items.array->items;
    *len = items.len;
    return true;
}

bool lcj_path_get(lcj_rt *rt, const lcj_val *parts, uint32_t len, lcj_val v, lcj_val fallback,
                  lcj_val *out) {
    for (uint32_t i = 0; i < len; i++) {
        if (!lcj_getitem(rt, v, parts[i], &v)) return false;
        if (lcj_is_undefined(v) && fallback.type != LCJ_NONE) v = fallback;
    }
    *out = v;
    return true;
}
