/*
 * jinja_gen.c: the steps of lazy filters: map, select and its kin, unique, batch, slice, items.
 *
 * They are generators in the reference: nothing happens, not even an error, before the first item
 * is asked for. A falsy value gives map and select nothing to do, whatever its type.
 */
#include "text/jinja/jinja_internal.h"

static bool find_kwarg(const lcj_gen *gen, lcj_str name, lcj_val *out) {
    for (uint32_t i = 0; i < gen->n_kwargs; i++)
        if (lcj_str_eq(gen->kwargs[i].name, name)) {
            *out = gen->kwargs[i].value;
            return true;
        }
    return false;
}

static bool start_map_attribute(lcj_rt *rt, lcj_gen *gen, lcj_val attribute) {
    bool has_default = find_kwarg(gen, LCJ_STR("default"), &gen->fallback);
    if (!has_default) gen->fallback = lcj_none();
    for (uint32_t i = 0; i < gen->n_kwargs; i++) {
        lcj_str name = gen->kwargs[i].name;
        if (!lcj_str_eq(name, LCJ_STR("attribute")) && !lcj_str_eq(name, LCJ_STR("default")))
            return lcj_fail(rt, LC_JINJA_RUNTIME, "Unexpected keyword argument '%.*s'",
                            (int)name.len, name.s);
    }
    gen->has_path = true;
    return lcj_path_new(rt, attribute, &gen->path, &gen->path_len);
}

/* The filter or test that is named by the argument at `at`; what follows are its arguments. */
static bool take_name(lcj_rt *rt, lcj_gen *gen, uint32_t at, bool is_filter) {
    lcj_val name = gen->args[at];
    if (lcj_is_string(name))
        gen->def = is_filter ? lcj_find_filter(lcj_bytes(name)) : lcj_find_test(lcj_bytes(name));
    if (!gen->def) {
        size_t start = rt->out.len;
        lcj_val shown;
        if (!lcj_put_repr(rt, name) || !lcj_take(rt, start, &shown)) return false;
        return lcj_fail(rt, LC_JINJA_RUNTIME, "No %s named %.*s.", is_filter ? "filter" : "test",
                        (int)shown.len, shown.u.s);
    }
    gen->args += at + 1;
    gen->n_args -= at + 1;
    return true;
}

static bool start_map(lcj_rt *rt, lcj_gen *gen) {
    lcj_val attribute;
    if (!gen->n_args && find_kwarg(gen, LCJ_STR("attribute"), &attribute))
        return start_map_attribute(rt, gen, attribute);
    if (!gen->n_args) return lcj_fail(rt, LC_JINJA_RUNTIME, "map requires a filter argument");
    return take_name(rt, gen, 0, true);
}

static bool start_select(lcj_rt *rt, lcj_gen *gen) {
    uint32_t at = 0;
    gen->fallback = lcj_none();
    if (gen->by_attribute) {
        if (!gen->n_args)
            return lcj_fail(rt, LC_JINJA_RUNTIME, "Missing parameter for attribute name");
        if (!lcj_path_new(rt, gen->args[0], &gen->path, &gen->path_len)) return false;
        gen->has_path = true;
        at = 1;
    }
    return gen->n_args <= at || take_name(rt, gen, at, false);
}

static bool start_slice(lcj_rt *rt, lcj_iter *it) {
    if (!lcj_to_list(rt, it->src, LCJ_LIST, &it->gen->list)) return false;
    if (!it->gen->count) return lcj_fail(rt, LC_JINJA_ZERO_DIVISION, "division by zero");
    return true;
}

/* Opens the source; *empty where there is nothing to do. */
static bool start(lcj_rt *rt, lcj_iter *it, bool *empty) {
    bool truth = true;
    lcj_val src = it->src;
    it->started = true;
    if (it->kind == LCJ_IT_MAP || it->kind == LCJ_IT_SELECT)
        if (!lcj_truth(rt, src, &truth)) return false;
    if (it->kind == LCJ_IT_PAIRS) {
        truth = !lcj_is_undefined(src);
        if (truth && src.type != LCJ_DICT)
            return lcj_fail(rt, LC_JINJA_TYPE, "Can only get item pairs from a mapping.");
        if (truth) src = (lcj_val){.type = LCJ_VIEW, .sub = 'i', .u.dict = src.u.dict};
    }
    *empty = !truth;
    if (!truth) return true;
    if (it->kind == LCJ_IT_MAP && !start_map(rt, it->gen)) return false;
    if (it->kind == LCJ_IT_SELECT && !start_select(rt, it->gen)) return false;
    if (it->kind == LCJ_IT_SLICE) return start_slice(rt, it);
    it->inner = lcj_alloc(rt, sizeof *it->inner);
    return it->inner && lcj_iter_open(rt, src, it->inner);
}

static bool apply(lcj_rt *rt, const lcj_gen *gen, lcj_val item, lcj_val *out) {
    if (!gen->def) {
        *out = item;
        return true;
    }
    lcj_call call = {.self = item,
                     .args = gen->args,
                     .n_args = gen->n_args,
                     .kwargs = gen->kwargs,
                     .n_kwargs = gen->n_kwargs,
                     .def = gen->def};
    return lcj_call_def(rt, &call, out);
}

static int next_map(lcj_rt *rt, lcj_iter *it, lcj_val *out) {
    const lcj_gen *gen = it->gen;
    lcj_val item;
    int n = lcj_iter_next(rt, it->inner, &item);
    if (n <= 0) return n;
    bool ok = gen->has_path ? lcj_path_get(rt, gen->path, gen->path_len, item, gen->fallback, out)
                            : apply(rt, gen, item, out);
    return ok ? 1 : -1;
}

static int next_select(lcj_rt *rt, lcj_iter *it, lcj_val *out) {
    const lcj_gen *gen = it->gen;
    for (;;) {
        lcj_val item, tested;
        bool yes;
        int n = lcj_iter_next(rt, it->inner, &item);
        if (n <= 0) return n;
        tested = item;
        if (gen->has_path &&
            !lcj_path_get(rt, gen->path, gen->path_len, item, gen->fallback, &tested))
            return -1;
        if (!apply(rt, gen, tested, &tested) || !lcj_truth(rt, tested, &yes)) return -1;
        if (yes == gen->negate) continue;
        *out = item;
        return 1;
    }
}

static int next_unique(lcj_rt *rt, lcj_iter *it, lcj_val *out) {
    lcj_gen *gen = it->gen;
    for (;;) {
        lcj_val item, key, known;
        int n = lcj_iter_next(rt, it->inner, &item);
        if (n <= 0) return n;
        key = item;
        if (gen->has_path && !lcj_path_get(rt, gen->path, gen->path_len, item, lcj_none(), &key))
            return -1;
        if (!gen->case_sensitive && lcj_is_string(key) && !lcj_recase(rt, key, LCJ_LOWER, &key))
            return -1;
        if (!lcj_dict_get(rt, gen->seen, key, &known)) return -1;
        if (known.type != LCJ_MISSING) continue;
        if (!lcj_dict_set(rt, gen->seen, key, lcj_none())) return -1;
        *out = item;
        return 1;
    }
}

static int next_batch(lcj_rt *rt, lcj_iter *it, lcj_val *out) {
    const lcj_gen *gen = it->gen;
    lcj_items items = {0};
    lcj_val v;
    int n = 1;
    while ((int64_t)items.len != gen->count || !items.len) {
        n = lcj_iter_next(rt, it->inner, &v);
        if (n < 0) return -1;
        if (!n) break;
        if (!lcj_items_push(rt, &items, v)) return -1;
    }
    if (!items.len) return 0;
    while (!n && gen->fill.type != LCJ_NONE && (int64_t)items.len < gen->count)
        if (!lcj_items_push(rt, &items, gen->fill)) return -1;
    return lcj_items_list(rt, &items, LCJ_LIST, out) ? 1 : -1;
}

static int next_slice(lcj_rt *rt, lcj_iter *it, lcj_val *out) {
    const lcj_gen *gen = it->gen;
    const lcj_list *list = gen->list.u.list;
    int64_t at = it->pos++;
    if (at >= gen->count) return 0;
    int64_t each = list->len / gen->count, extra = list->len % gen->count;
    int64_t from = at * each + (at < extra ? at : extra);
    int64_t len = each + (at < extra);
    lcj_items items = {0};
    for (int64_t i = 0; i < len; i++)
        if (!lcj_items_push(rt, &items, list->items[from + i])) return -1;
    if (gen->fill.type != LCJ_NONE && at >= extra && !lcj_items_push(rt, &items, gen->fill))
        return -1;
    return lcj_items_list(rt, &items, LCJ_LIST, out) ? 1 : -1;
}

static int next_tested(lcj_rt *rt, lcj_iter *it, lcj_val *out) {
    for (;;) {
        bool keep;
        int n = lcj_iter_next(rt, it->inner, out);
        if (n <= 0) return n;
        if (!lcj_loop_test(rt, it, out, &keep)) return -1;
        if (keep) return 1;
    }
}

int lcj_gen_next(lcj_rt *rt, lcj_iter *it, lcj_val *out) {
    bool empty = false;
    if (!it->started && !start(rt, it, &empty)) return -1;
    if (empty) return 0;
    switch (it->kind) {
    case LCJ_IT_MAP: return next_map(rt, it, out);
    case LCJ_IT_SELECT: return next_select(rt, it, out);
    case LCJ_IT_UNIQUE: return next_unique(rt, it, out);
    case LCJ_IT_BATCH: return next_batch(rt, it, out);
    case LCJ_IT_SLICE: return next_slice(rt, it, out);
    case LCJ_IT_TEST: return next_tested(rt, it, out);
    default: return lcj_iter_next(rt, it->inner, out);
    }
}
