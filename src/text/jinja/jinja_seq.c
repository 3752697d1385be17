/*
 * jinja_seq.c: iteration over everything that Python would iterate over.
 *
 * An lcj_iter lives on the C stack of who iterates. Generators and reversed sequences are values of
 * their own (LCJ_ITER): their state is shared by all who hold them, and they are used up once, as
 * in Python. What generators do at each step is in jinja_gen.c.
 */
#include "text/jinja/jinja_internal.h"

bool lcj_iterable(lcj_val v) {
    switch (v.type) {
    case LCJ_UNDEFINED:
    case LCJ_STRING:
    case LCJ_LIST:
    case LCJ_TUPLE:
    case LCJ_DICT:
    case LCJ_VIEW:
    case LCJ_RANGE_OBJ:
    case LCJ_ITER:
    case LCJ_LOOP: return true;
    default: return false;
    }
}

bool lcj_iter_open(lcj_rt *rt, lcj_val src, lcj_iter *it) {
    *it = (lcj_iter){.src = src, .born = rt->position};
    switch (src.type) {
    case LCJ_UNDEFINED: it->kind = LCJ_IT_EMPTY; return true;
    case LCJ_STRING: it->kind = LCJ_IT_CHARS; return true;
    case LCJ_LIST:
    case LCJ_TUPLE: it->kind = LCJ_IT_ITEMS; return true;
    case LCJ_DICT:
        it->kind = LCJ_IT_DICT;
        it->sub = 'k';
        return true;
    case LCJ_VIEW:
        it->kind = LCJ_IT_DICT;
        it->sub = src.sub;
        return true;
    case LCJ_RANGE_OBJ: it->kind = LCJ_IT_RANGE; return true;
    case LCJ_ITER: it->kind = LCJ_IT_SHARED; return true;
    case LCJ_LOOP: return lcj_unsupported(rt, "iteration over loop");
    default: return lcj_fail(rt, LC_JINJA_TYPE, "'%s' object is not iterable", lcj_type_name(src));
    }
}

static bool entry_value(lcj_rt *rt, const lcj_entry *e, uint8_t what, lcj_val *out) {
    if (what == 'i') return lcj_list_new(rt, LCJ_TUPLE, (lcj_val[]){e->key, e->value}, 2, out);
    *out = what == 'k' ? e->key : e->value;
    return true;
}

static int got(bool ok) { return ok ? 1 : -1; }

static int next_reversed(lcj_rt *rt, lcj_iter *it, lcj_val *out) {
    const lcj_val *src = &it->src;
    uint32_t at = it->pos++;
    switch (src->type) {
    case LCJ_LIST:
    case LCJ_TUPLE:
        if (at >= src->u.list->len) return 0;
        *out = src->u.list->items[src->u.list->len - 1 - at];
        return 1;
    case LCJ_DICT:
    case LCJ_VIEW:
        if (at >= src->u.dict->len) return 0;
        return got(entry_value(rt, &src->u.dict->entries[src->u.dict->len - 1 - at],
                               src->type == LCJ_DICT ? 'k' : src->sub, out));
    case LCJ_RANGE_OBJ:
        if (at >= src->u.range->len) return 0;
        *out = lcj_int(src->u.range->start + (src->u.range->len - 1 - at) * src->u.range->step);
        return 1;
    case LCJ_STRING: { /* pos counts bytes here */
        size_t len = 1;
        if (at >= src->len) return 0;
        while (((unsigned char)src->u.s[src->len - at - len] & 0xC0) == 0x80) len++;
        *out = lcj_part(*src, src->len - at - len, len);
        it->pos = at + (uint32_t)len;
        return 1;
    }
    default: return 0;
    }
}

int lcj_iter_next(lcj_rt *rt, lcj_iter *it, lcj_val *out) {
    size_t len;
    if (it->done) return 0;
    if (!lcj_tick(rt, 1)) return -1;
    switch (it->kind) {
    case LCJ_IT_EMPTY: return 0;
    case LCJ_IT_ITEMS:
        if (it->pos >= it->src.u.list->len) return 0;
        *out = it->src.u.list->items[it->pos++];
        return 1;
    case LCJ_IT_CHARS:
        if (it->pos >= it->src.len) return 0;
        lcj_char_at(it->src.u.s + it->pos, &len);
        *out = lcj_part(it->src, it->pos, len);
        out->flags &= (uint8_t)~LCJ_SAFE; /* iteration over Markup gives plain strings */
        it->pos += (uint32_t)len;
        return 1;
    case LCJ_IT_DICT:
        if (it->pos >= it->src.u.dict->len) return 0;
        return got(entry_value(rt, &it->src.u.dict->entries[it->pos++], it->sub, out));
    case LCJ_IT_RANGE:
        if (it->pos >= it->src.u.range->len) return 0;
        *out = lcj_int(it->src.u.range->start + it->pos++ * it->src.u.range->step);
        return 1;
    case LCJ_IT_REVERSED: return next_reversed(rt, it, out);
    default: break;
    }
    /* generators call each other: the depth counts, and so does what they allocate */
    size_t before = rt->position;
    if (!lcj_enter_eval(rt)) return -1;
    int n = it->kind == LCJ_IT_SHARED ? lcj_iter_next(rt, it->src.u.iter, out)
                                      : lcj_gen_next(rt, it, out);
    rt->depth--;
    if (n <= 0) it->done = true;
    if (rt->position != before) lcj_pin(rt, it->born);
    return n;
}

bool lcj_iter_value(lcj_rt *rt, lcj_iter_kind kind, lcj_val src, lcj_gen *gen, lcj_val *out) {
    lcj_iter *it = lcj_alloc(rt, sizeof *it);
    if (!it) return false;
    *it = (lcj_iter){.kind = (uint8_t)kind, .src = src, .gen = gen, .born = rt->position};
    *out = (lcj_val){.type = LCJ_ITER, .u.iter = it};
    return true;
}

bool lcj_to_list(lcj_rt *rt, lcj_val src, lcj_type type, lcj_val *out) {
    lcj_iter it;
    lcj_items items = {0};
    lcj_val v;
    if (lcj_is_seq(src)) {
        lcj_list *copy = lcj_alloc(rt, sizeof *copy); /* shares the items */
        if (!copy) return false;
        *copy = *src.u.list;
        *out = (lcj_val){.type = (uint8_t)type, .u.list = copy};
        return true;
    }
    if (!lcj_iter_open(rt, src, &it)) return false;
    for (int n; (n = lcj_iter_next(rt, &it, &v)) != 0;)
        if (n < 0 || !lcj_items_push(rt, &items, v)) return false;
    return lcj_items_list(rt, &items, type, out);
}

bool lcj_reversed(lcj_rt *rt, lcj_val src, bool *ok, lcj_val *out) {
    *ok = lcj_is_seq(src) || src.type == LCJ_DICT || src.type == LCJ_VIEW ||
          src.type == LCJ_RANGE_OBJ || src.type == LCJ_STRING || src.type == LCJ_UNDEFINED;
    return !*ok || lcj_iter_value(rt, LCJ_IT_REVERSED, src, NULL, out);
}
