/*
 * jinja_eval.c: expressions. A tree walk; depth and steps are counted at each node.
 *
 * Operands are evaluated in the order of the reference, left before right and callee before
 * arguments, so that of two errors the same one is reported.
 */
#include "text/jinja/jinja_internal.h"

static bool eval_items(lcj_rt *rt, lcj_act *act, const lcj_nodes *nodes, lcj_val **out) {
    *out = lcj_alloc(rt, (size_t)nodes->len * sizeof **out);
    if (!*out) return false;
    for (uint32_t i = 0; i < nodes->len; i++)
        if (!lcj_eval(rt, act, nodes->list[i], &(*out)[i])) return false;
    return true;
}

static bool eval_list(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    lcj_val *items;
    lcj_type type = node->kind == LCJ_N_LIST ? LCJ_LIST : LCJ_TUPLE;
    return eval_items(rt, act, &node->items, &items) &&
           lcj_list_new(rt, type, items, node->items.len, out);
}

static bool eval_dict(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    if (!lcj_dict_new(rt, node->items.len, out)) return false;
    for (uint32_t i = 0; i < node->items.len; i++) {
        lcj_val key, value;
        if (!lcj_eval(rt, act, node->items.list[i], &key) ||
            !lcj_eval(rt, act, node->more.list[i], &value) ||
            !lcj_dict_set(rt, out->u.dict, key, value))
            return false;
    }
    return true;
}

static bool eval_name(lcj_act *act, const lcj_node *node, lcj_val *out) {
    *out = *lcj_slot(act, node->ref);
    if (out->type == LCJ_MISSING) *out = lcj_undefined_name(node->name);
    return true;
}

static bool eval_concat(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    lcj_val *parts, text;
    if (!eval_items(rt, act, &node->items, &parts)) return false;
    if (!lcj_to_str(rt, parts[0], out)) return false;
    for (uint32_t i = 1; i < node->items.len; i++)
        if (!lcj_to_str(rt, parts[i], &text) || !lcj_concat(rt, *out, text, out)) return false;
    return true;
}

static bool eval_compare(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    lcj_val left, right;
    bool holds = true;
    if (!lcj_eval(rt, act, node->a, &left)) return false;
    for (uint32_t i = 0; i < node->items.len && holds; i++) {
        const lcj_node *operand = node->items.list[i];
        if (!lcj_eval(rt, act, operand->a, &right) ||
            !lcj_compare(rt, (lcj_op)operand->op, left, right, &holds))
            return false;
        left = right;
    }
    *out = lcj_bool(holds);
    return true;
}

static bool eval_cond(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    lcj_val test;
    bool yes;
    if (!lcj_eval(rt, act, node->a, &test) || !lcj_truth(rt, test, &yes)) return false;
    if (yes) return lcj_eval(rt, act, node->b, out);
    if (node->c) return lcj_eval(rt, act, node->c, out);
    *out = lcj_undefined_hint(
        "the inline if-expression evaluated to false and no else section was defined.");
    return true;
}

static bool can_slice(lcj_val obj, const lcj_val bounds[3]) {
    for (int i = 0; i < 3; i++)
        if (bounds[i].type != LCJ_NONE && !lcj_is_integer(bounds[i])) return false;
    return lcj_is_string(obj) || lcj_is_seq(obj) || obj.type == LCJ_RANGE_OBJ ||
           lcj_is_undefined(obj);
}

static bool eval_getitem(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    lcj_val obj, key;
    const lcj_node *b = node->b;
    if (!lcj_eval(rt, act, node->a, &obj)) return false;
    if (b->kind != LCJ_N_SLICE) return lcj_eval(rt, act, b, &key) && lcj_getitem(rt, obj, key, out);
    lcj_val bounds[3] = {lcj_none(), lcj_none(), lcj_none()};
    if ((b->a && !lcj_eval(rt, act, b->a, &bounds[0])) ||
        (b->b && !lcj_eval(rt, act, b->b, &bounds[1])) ||
        (b->c && !lcj_eval(rt, act, b->c, &bounds[2])))
        return false;
    if (node->op && !can_slice(obj, bounds)) return lcj_undefined_item(rt, obj, bounds[0], out);
    return lcj_slice(rt, obj, bounds, out);
}

/* ---- calls ---- */

static bool add_star(lcj_rt *rt, lcj_val list, lcj_call *call) {
    lcj_val all;
    if (!lcj_iterable(list))
        return lcj_fail(rt, LC_JINJA_TYPE, "argument after * must be an iterable, not %s",
                        lcj_type_name(list));
    if (!lcj_to_list(rt, list, LCJ_LIST, &all)) return false;
    lcj_val *args = lcj_alloc(rt, ((size_t)call->n_args + all.u.list->len) * sizeof *args);
    if (!args) return false;
    if (call->n_args) memcpy(args, call->args, call->n_args * sizeof *args);
    if (all.u.list->len)
        memcpy(args + call->n_args, all.u.list->items, all.u.list->len * sizeof *args);
    call->args = args;
    call->n_args += all.u.list->len;
    return true;
}

static bool add_star_star(lcj_rt *rt, lcj_val dict, lcj_call *call) {
    if (dict.type != LCJ_DICT)
        return lcj_fail(rt, LC_JINJA_TYPE, "argument after ** must be a mapping, not %s",
                        lcj_type_name(dict));
    const lcj_dict *d = dict.u.dict;
    lcj_kwarg *all = lcj_alloc(rt, ((size_t)call->n_kwargs + d->len) * sizeof *all);
    if (!all) return false;
    if (call->n_kwargs) memcpy(all, call->kwargs, call->n_kwargs * sizeof *all);
    call->kwargs = all;
    for (uint32_t i = 0; i < d->len; i++) {
        if (!lcj_is_string(d->entries[i].key))
            return lcj_fail(rt, LC_JINJA_TYPE, "keywords must be strings");
        all[call->n_kwargs++] = (lcj_kwarg){lcj_bytes(d->entries[i].key), d->entries[i].value};
    }
    return true;
}

static bool no_duplicates(lcj_rt *rt, const lcj_call *call) {
    if (!lcj_tick(rt, (uint64_t)call->n_kwargs * call->n_kwargs / 2)) return false;
    for (uint32_t i = 1; i < call->n_kwargs; i++)
        for (uint32_t j = 0; j < i; j++)
            if (lcj_str_eq(call->kwargs[i].name, call->kwargs[j].name))
                return lcj_fail(rt, LC_JINJA_TYPE,
                                "got multiple values for keyword argument '%.*s'",
                                (int)call->kwargs[i].name.len, call->kwargs[i].name.s);
    return true;
}

static bool eval_args(lcj_rt *rt, lcj_act *act, const lcj_args *args, const lcj_val *caller,
                      lcj_call *call) {
    lcj_val v;
    if (!args) return true;
    lcj_nodes pos = {args->pos, args->n_pos};
    if (args->n_pos && !eval_items(rt, act, &pos, &call->args)) return false;
    call->n_args = args->n_pos;
    if (args->n_kw || caller) {
        call->kwargs = lcj_alloc(rt, ((size_t)args->n_kw + 1) * sizeof *call->kwargs);
        if (!call->kwargs) return false;
    }
    for (uint32_t i = 0; i < args->n_kw; i++) {
        call->kwargs[i].name = args->kw[i].key;
        if (!lcj_eval(rt, act, args->kw[i].value, &call->kwargs[i].value)) return false;
    }
    call->n_kwargs = args->n_kw;
    if (caller) call->kwargs[call->n_kwargs++] = (lcj_kwarg){LCJ_STR("caller"), *caller};
    if (args->star && (!lcj_eval(rt, act, args->star, &v) || !add_star(rt, v, call))) return false;
    if (args->star2 && (!lcj_eval(rt, act, args->star2, &v) || !add_star_star(rt, v, call)))
        return false;
    return call->n_kwargs < 2 || no_duplicates(rt, call);
}

bool lcj_eval_call(lcj_rt *rt, lcj_act *act, const lcj_node *node, const lcj_val *caller,
                   lcj_val *out) {
    lcj_val callee;
    lcj_call call = {.n_args = 0};
    return lcj_eval(rt, act, node->a, &callee) && eval_args(rt, act, node->args, caller, &call) &&
           lcj_call_value(rt, callee, &call, out);
}

static bool unknown(lcj_rt *rt, const lcj_node *node) {
    return lcj_fail(rt, LC_JINJA_RUNTIME, "No %s named '%.*s' found.",
                    node->kind == LCJ_N_FILTER ? "filter" : "test", (int)node->name.len,
                    node->name.s);
}

bool lcj_eval_filter(lcj_rt *rt, lcj_act *act, const lcj_node *node, const lcj_val *block_text,
                     lcj_val *out) {
    lcj_call call = {.def = node->def};
    if (!node->a)
        call.self = block_text ? *block_text : lcj_none();
    else if (node->a->kind == LCJ_N_FILTER && block_text) {
        if (!lcj_eval_filter(rt, act, node->a, block_text, &call.self)) return false;
    } else if (!lcj_eval(rt, act, node->a, &call.self)) {
        return false;
    }
    if (!eval_args(rt, act, node->args, NULL, &call)) return false;
    rt->line = node->line;
    return node->def ? lcj_call_def(rt, &call, out) : unknown(rt, node);
}

static bool eval_binary(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    lcj_val a, b;
    return lcj_eval(rt, act, node->a, &a) && lcj_eval(rt, act, node->b, &b) &&
           lcj_arith(rt, (lcj_op)node->op, a, b, out);
}

static bool eval_logic(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    bool truth;
    if (!lcj_eval(rt, act, node->a, out) || !lcj_truth(rt, *out, &truth)) return false;
    if (truth == (node->kind == LCJ_N_OR)) return true;
    return lcj_eval(rt, act, node->b, out);
}

static bool eval_unary(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    bool truth;
    lcj_val v;
    if (!lcj_eval(rt, act, node->a, &v)) return false;
    if (node->kind == LCJ_N_UNARY) return lcj_negate(rt, v, node->op == '-', out);
    if (!lcj_truth(rt, v, &truth)) return false;
    *out = lcj_bool(!truth);
    return true;
}

static bool eval_node(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    lcj_val v;
    switch (node->kind) {
    case LCJ_N_CONST: *out = node->value; return true;
    case LCJ_N_NAME: return eval_name(act, node, out);
    case LCJ_N_LIST:
    case LCJ_N_TUPLE: return eval_list(rt, act, node, out);
    case LCJ_N_DICT: return eval_dict(rt, act, node, out);
    case LCJ_N_UNARY:
    case LCJ_N_NOT: return eval_unary(rt, act, node, out);
    case LCJ_N_BINARY: return eval_binary(rt, act, node, out);
    case LCJ_N_AND:
    case LCJ_N_OR: return eval_logic(rt, act, node, out);
    case LCJ_N_CONCAT: return eval_concat(rt, act, node, out);
    case LCJ_N_COMPARE: return eval_compare(rt, act, node, out);
    case LCJ_N_COND: return eval_cond(rt, act, node, out);
    case LCJ_N_GETATTR:
        return lcj_eval(rt, act, node->a, &v) && lcj_getattr(rt, v, node->name, out);
    case LCJ_N_GETITEM: return eval_getitem(rt, act, node, out);
    case LCJ_N_CALL: return lcj_eval_call(rt, act, node, NULL, out);
    default: return lcj_eval_filter(rt, act, node, NULL, out); /* tests too */
    }
}

bool lcj_eval(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    if (!lcj_enter_eval(rt)) return false;
    if (node->line) rt->line = node->line;
    bool ok = eval_node(rt, act, node, out);
    rt->depth--;
    return ok;
}
