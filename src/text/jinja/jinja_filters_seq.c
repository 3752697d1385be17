/*
 * jinja_filters_seq.c: filters on sequences: map, select and kin (whose steps are in jinja_gen.c),
 * sort, group, join, min, max, sum.
 */
#include "text/jinja/jinja_internal.h"

#include <math.h>

/* ---- lazy ones ---- */

static lcj_gen *gen_new(lcj_rt *rt, const lcj_call *call) {
    lcj_gen *gen = lcj_alloc(rt, sizeof *gen);
    if (!gen) return NULL;
    *gen = (lcj_gen){.args = call->args,
                     .n_args = call->n_args,
                     .kwargs = call->kwargs,
                     .n_kwargs = call->n_kwargs,
                     .fallback = lcj_none(),
                     .fill = lcj_none()};
    return gen;
}

static bool filter_map(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_gen *gen = gen_new(rt, call);
    return gen && lcj_iter_value(rt, LCJ_IT_MAP, call->self, gen, out);
}

/* select, selectattr, reject, rejectattr */
static bool filter_select(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_gen *gen = gen_new(rt, call);
    if (!gen) return false;
    gen->negate = call->def->name[0] == 'r';
    gen->by_attribute = strlen(call->def->name) > 6;
    return lcj_iter_value(rt, LCJ_IT_SELECT, call->self, gen, out);
}

static bool optional_truth(lcj_rt *rt, lcj_val v, bool *out) {
    *out = false;
    return v.type == LCJ_MISSING || lcj_truth(rt, v, out);
}

static bool filter_unique(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_gen *gen = gen_new(rt, call);
    lcj_val seen;
    if (!gen || !optional_truth(rt, call->bound[0], &gen->case_sensitive) ||
        !lcj_path_new(rt, call->bound[1], &gen->path, &gen->path_len) ||
        !lcj_dict_new(rt, 0, &seen))
        return false;
    gen->has_path = gen->path_len != 0;
    gen->seen = seen.u.dict;
    return lcj_iter_value(rt, LCJ_IT_UNIQUE, call->self, gen, out);
}

static bool filter_pieces(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_gen *gen = gen_new(rt, call);
    bool batch = call->def->name[0] == 'b';
    if (!gen || !lcj_index(rt, call->bound[0], &gen->count)) return false;
    if (batch && gen->count < 1) return lcj_unsupported(rt, "batch of fewer than one");
    if (call->bound[1].type != LCJ_MISSING) gen->fill = call->bound[1];
    return lcj_iter_value(rt, batch ? LCJ_IT_BATCH : LCJ_IT_SLICE, call->self, gen, out);
}

static bool filter_reverse(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    const lcj_val backwards[3] = {lcj_none(), lcj_none(), lcj_int(-1)};
    bool ok;
    if (lcj_is_string(call->self)) return lcj_slice(rt, call->self, backwards, out);
    if (!lcj_reversed(rt, call->self, &ok, out)) return false;
    if (ok) return true;
    if (!lcj_iterable(call->self))
        return lcj_fail(rt, LC_JINJA_RUNTIME, "argument must be iterable");
    return lcj_to_list(rt, call->self, LCJ_LIST, out) && lcj_slice(rt, *out, backwards, out);
}

/* ---- keys ---- */

/* How a filter looks at its items. */
typedef struct keying {
    lcj_val *path;
    uint32_t path_len;
    bool case_sensitive;
    lcj_val fallback;
} keying;

static bool keying_new(lcj_rt *rt, lcj_val case_sensitive, lcj_val attribute, keying *out) {
    out->fallback = lcj_none();
    return optional_truth(rt, case_sensitive, &out->case_sensitive) &&
           lcj_path_new(rt, attribute, &out->path, &out->path_len);
}

static bool key_of(lcj_rt *rt, const keying *k, lcj_val item, lcj_val *out) {
    if (!lcj_path_get(rt, k->path, k->path_len, item, k->fallback, out)) return false;
    return k->case_sensitive || !lcj_is_string(*out) || lcj_recase(rt, *out, LCJ_LOWER, out);
}

static bool keys_of(lcj_rt *rt, const keying *k, const lcj_list *list, lcj_val **out) {
    *out = lcj_alloc(rt, (size_t)list->len * sizeof **out);
    if (!*out) return false;
    for (uint32_t i = 0; i < list->len; i++)
        if (!key_of(rt, k, list->items[i], &(*out)[i])) return false;
    return true;
}

/* A list of its own, which may be sorted in place. */
static bool own_list(lcj_rt *rt, lcj_val src, lcj_val *out) {
    return lcj_to_list(rt, src, LCJ_LIST, out) &&
           lcj_list_new(rt, LCJ_LIST, out->u.list->items, out->u.list->len, out);
}

/* ---- sorting ---- */

/* sort(attribute="a,b"): the key of an item is the list of its keys, which compare as lists do. */
static bool sort_keys(lcj_rt *rt, lcj_call *call, const lcj_list *list, lcj_val *keys) {
    lcj_val attribute = call->bound[2], part = attribute;
    bool many = lcj_is_string(attribute);
    lcj_items *all = lcj_alloc(rt, (size_t)list->len * sizeof *all);
    if (!all) return false;
    memset(all, 0, (size_t)list->len * sizeof *all);
    for (size_t from = 0;;) {
        int64_t comma = many ? lcj_find(attribute, lcj_text(LCJ_STR(",")), from) : -1;
        keying k;
        if (many)
            part = lcj_part(attribute, from, (comma < 0 ? attribute.len : (size_t)comma) - from);
        if (!keying_new(rt, call->bound[1], part, &k)) return false;
        for (uint32_t i = 0; i < list->len; i++) {
            lcj_val key;
            if (!key_of(rt, &k, list->items[i], &key) || !lcj_items_push(rt, &all[i], key))
                return false;
        }
        if (comma < 0) break;
        from = (size_t)comma + 1;
    }
    for (uint32_t i = 0; i < list->len; i++)
        if (!lcj_items_list(rt, &all[i], LCJ_LIST, &keys[i])) return false;
    return true;
}

/* sorted() wants a number here */
static bool reverse_flag(lcj_rt *rt, lcj_val v, bool *out) {
    int64_t number = 0;
    if (v.type != LCJ_MISSING && !lcj_index(rt, v, &number)) return false;
    *out = number != 0;
    return true;
}

static bool filter_sort(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    bool reverse;
    if (!reverse_flag(rt, call->bound[0], &reverse) || !own_list(rt, call->self, out)) return false;
    const lcj_list *list = out->u.list;
    lcj_val *keys = lcj_alloc(rt, (size_t)list->len * sizeof *keys);
    return keys && sort_keys(rt, call, list, keys) &&
           lcj_sort(rt, list->items, keys, list->len, reverse);
}

static bool filter_dictsort(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val self = call->self, by = call->bound[1], pairs;
    bool by_value = false, reverse;
    keying k;
    if (by.type != LCJ_MISSING) {
        by_value = lcj_is_string(by) && lcj_str_eq(lcj_bytes(by), LCJ_STR("value"));
        if (!by_value && (!lcj_is_string(by) || !lcj_str_eq(lcj_bytes(by), LCJ_STR("key"))))
            return lcj_fail(rt, LC_JINJA_RUNTIME,
                            "You can only sort by either \"key\" or \"value\"");
    }
    if (lcj_is_undefined(self)) return lcj_fail_undefined(rt, self);
    if (self.type != LCJ_DICT)
        return lcj_fail(rt, LC_JINJA_RUNTIME, "'%s' object has no attribute 'items'",
                        lcj_type_name(self));
    pairs = (lcj_val){.type = LCJ_VIEW, .sub = 'i', .u.dict = self.u.dict};
    if (!keying_new(rt, call->bound[0], lcj_none(), &k) ||
        !reverse_flag(rt, call->bound[2], &reverse) || !own_list(rt, pairs, out))
        return false;
    lcj_list *list = out->u.list;
    lcj_val *keys = lcj_alloc(rt, (size_t)list->len * sizeof *keys);
    if (!keys) return false;
    for (uint32_t i = 0; i < list->len; i++)
        if (!key_of(rt, &k, list->items[i].u.list->items[by_value], &keys[i])) return false;
    return lcj_sort(rt, list->items, keys, list->len, reverse);
}

/* The runs of equal keys of a sorted list, as (key, items). */
static bool group_runs(lcj_rt *rt, const keying *k, const lcj_list *list, const lcj_val *keys,
                       lcj_val *out) {
    lcj_items groups = {0};
    keying original = *k;
    original.case_sensitive = true;
    for (uint32_t i = 0, end; i < list->len; i = end) {
        lcj_val pair[2], tuple;
        bool same = true;
        for (end = i + 1; end < list->len; end++) {
            if (!lcj_equal(rt, keys[i], keys[end], &same)) return false;
            if (!same) break;
        }
        if (!key_of(rt, &original, list->items[i], &pair[0]) ||
            !lcj_list_new(rt, LCJ_LIST, list->items + i, end - i, &pair[1]) ||
            !lcj_list_new(rt, LCJ_TUPLE, pair, 2, &tuple))
            return false;
        tuple.sub = 'g';
        if (!lcj_items_push(rt, &groups, tuple)) return false;
    }
    return lcj_items_list(rt, &groups, LCJ_LIST, out);
}

static bool filter_groupby(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val list, *keys;
    keying k;
    if (!keying_new(rt, call->bound[2], call->bound[0], &k)) return false;
    if (call->bound[1].type != LCJ_MISSING) k.fallback = call->bound[1];
    return own_list(rt, call->self, &list) && keys_of(rt, &k, list.u.list, &keys) &&
           lcj_sort(rt, list.u.list->items, keys, list.u.list->len, false) &&
           group_runs(rt, &k, list.u.list, keys, out);
}

/* ---- down to one value ---- */

/* min and max: the first of the best */
static bool filter_best(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_op better = call->def->name[1] == 'i' ? LCJ_LT : LCJ_GT;
    lcj_iter it;
    lcj_val item, key, best_key = lcj_missing();
    keying k;
    if (!lcj_iter_open(rt, call->self, &it)) return false;
    if (!keying_new(rt, call->bound[0], call->bound[1], &k)) return false;
    for (int n; (n = lcj_iter_next(rt, &it, &item)) != 0;) {
        bool wins = best_key.type == LCJ_MISSING;
        if (n < 0 || !key_of(rt, &k, item, &key)) return false;
        if (!wins && !lcj_compare(rt, better, key, best_key, &wins)) return false;
        if (!wins) continue;
        *out = item;
        best_key = key;
    }
    if (best_key.type == LCJ_MISSING)
        *out = lcj_undefined_hint("No aggregated item, sequence was empty.");
    return true;
}

/* Newer Pythons sum floats with compensation, older ones plainly: both must agree. */
typedef struct float_sum {
    double sum, error;
    bool any;
} float_sum;

static void float_sum_add(float_sum *s, lcj_val v) {
    double x = v.type == LCJ_FLOAT ? v.u.f : (double)lcj_as_int(v), t = s->sum + x;
    s->error += fabs(s->sum) >= fabs(x) ? (s->sum - t) + x : (x - t) + s->sum;
    s->sum = t;
    s->any |= v.type == LCJ_FLOAT;
}

static bool filter_sum(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val *path, item, total = call->bound[1].type == LCJ_MISSING ? lcj_int(0) : call->bound[1];
    uint32_t path_len;
    float_sum exact = {0};
    lcj_iter it;
    if (!lcj_iter_open(rt, call->self, &it)) return false;
    if (lcj_is_string(total))
        return lcj_fail(rt, LC_JINJA_TYPE, "sum() can't sum strings [use ''.join(seq) instead]");
    if (!lcj_path_new(rt, call->bound[0], &path, &path_len)) return false;
    if (lcj_is_number(total)) float_sum_add(&exact, total);
    for (int n; (n = lcj_iter_next(rt, &it, &item)) != 0;) {
        if (n < 0 || !lcj_path_get(rt, path, path_len, item, lcj_none(), &item)) return false;
        if (!lcj_arith(rt, LCJ_ADD, total, item, &total)) return false;
        if (lcj_is_number(item)) float_sum_add(&exact, item);
    }
    double compensated = exact.sum + exact.error;
    if (exact.any && total.type == LCJ_FLOAT && isfinite(total.u.f) && total.u.f != compensated)
        return lcj_unsupported(rt, "a sum of floats that depends on the version of Python");
    *out = total;
    return true;
}

static bool filter_join(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val sep = lcj_text(LCJ_STR("")), item, *path, text;
    uint32_t path_len;
    lcj_iter it;
    if (call->bound[0].type != LCJ_MISSING && !lcj_to_str(rt, call->bound[0], &sep)) return false;
    if (!lcj_iter_open(rt, call->self, &it) || !lcj_path_new(rt, call->bound[1], &path, &path_len))
        return false;
    size_t start = rt->out.len;
    bool first = true;
    for (int n; (n = lcj_iter_next(rt, &it, &item)) != 0; first = false) {
        if (n < 0 || !lcj_path_get(rt, path, path_len, item, lcj_none(), &item)) return false;
        if (!first && !lcj_put(rt, sep.u.s, sep.len)) return false;
        if (!lcj_to_str(rt, item, &text) || !lcj_put(rt, text.u.s, text.len)) return false;
    }
    return lcj_take(rt, start, out);
}

const lcj_def lcj_seq_filters[] = {
    {"map", filter_map, "*", LCJ_DEF_PLAIN},
    {"select", filter_select, "*", LCJ_DEF_PLAIN},
    {"selectattr", filter_select, "*", LCJ_DEF_PLAIN},
    {"reject", filter_select, "*", LCJ_DEF_PLAIN},
    {"rejectattr", filter_select, "*", LCJ_DEF_PLAIN},
    {"join", filter_join, "d? attribute?", LCJ_DEF_PLAIN},
    {"sort", filter_sort, "reverse? case_sensitive? attribute?", LCJ_DEF_PLAIN},
    {"dictsort", filter_dictsort, "case_sensitive? by? reverse?", LCJ_DEF_PLAIN},
    {"reverse", filter_reverse, "", LCJ_DEF_PLAIN},
    {"unique", filter_unique, "case_sensitive? attribute?", LCJ_DEF_PLAIN},
    {"min", filter_best, "case_sensitive? attribute?", LCJ_DEF_PLAIN},
    {"max", filter_best, "case_sensitive? attribute?", LCJ_DEF_PLAIN},
    {"sum", filter_sum, "attribute? start?", LCJ_DEF_PLAIN},
    {"groupby", filter_groupby, "attribute default? case_sensitive?", LCJ_DEF_PLAIN},
    {"batch", filter_pieces, "linecount fill_with?", LCJ_DEF_PLAIN},
    {"slice", filter_pieces, "slices fill_with?", LCJ_DEF_PLAIN},
    {NULL, NULL, NULL, 0}};
