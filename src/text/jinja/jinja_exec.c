/*
 * jinja_exec.c: statements: output, branches, loops, assignments, blocks that capture text.
 *
 * A loop's body runs under a mark of the heap. What the body allocates is released after each pass
 * unless it was pinned, so the loop's own state is only written here and in functions that pin.
 */
#include "text/jinja/jinja_internal.h"

lcj_act *lcj_act_new(lcj_rt *rt, lcj_act *parent, const lcj_func *func) {
    lcj_act *act = lcj_alloc(rt, sizeof *act + func->n_slots * sizeof(lcj_val));
    if (!act || !lcj_tick(rt, func->n_slots / 8)) return NULL;
    act->parent = parent;
    for (uint32_t i = 0; i < func->n_slots; i++) act->slots[i] = lcj_missing();
    return act;
}

bool lcj_frame_enter(lcj_rt *rt, lcj_act *act, const lcj_frame *frame) {
    for (uint32_t i = 0; i < frame->n_loads; i++) {
        const lcj_load *load = &frame->loads[i];
        lcj_val *slot = &act->slots[load->slot];
        switch (load->kind) {
        case LCJ_LOAD_CLEAR: *slot = lcj_missing(); break;
        case LCJ_LOAD_ALIAS: *slot = *lcj_slot(act, load->from); break;
        case LCJ_LOAD_CONTEXT: *slot = rt->names[load->context]; break;
        default: break;
        }
    }
    return lcj_tick(rt, frame->n_loads / 4);
}

static void frame_leave(lcj_act *act, const lcj_frame *frame) {
    for (uint32_t i = 0; i < frame->n_loads; i++) act->slots[frame->loads[i].slot] = lcj_missing();
}

/* ---- assignment ---- */

static bool assign_namespace(lcj_rt *rt, lcj_act *act, const lcj_node *target, lcj_val value) {
    lcj_val *slot = lcj_slot(act, target->ref);
    lcj_str name = lcj_bytes(target->value);
    if (slot->type != LCJ_NAMESPACE)
        return lcj_fail(rt, LC_JINJA_RUNTIME, "cannot assign attribute on non-namespace object");
    if (name.len && name.s[0] == '_')
        return lcj_fail(rt, LC_JINJA_SECURITY, "a namespace has no attribute '%.*s'", (int)name.len,
                        name.s);
    size_t before = rt->position;
    if (!lcj_dict_set(rt, slot->u.dict, target->value, value)) return false;
    /* numbers hold no pointers; the table may have grown */
    if (value.type > LCJ_FLOAT || value.type == LCJ_UNDEFINED || rt->position != before) rt->pins++;
    return true;
}

static bool unpack(lcj_rt *rt, lcj_act *act, const lcj_node *target, lcj_val value) {
    lcj_val list;
    if (!lcj_iterable(value))
        return lcj_fail(rt, LC_JINJA_TYPE, "cannot unpack non-iterable %s object",
                        lcj_type_name(value));
    if (!lcj_to_list(rt, value, LCJ_TUPLE, &list)) return false;
    const lcj_list *items = list.u.list;
    if (items->len != target->items.len)
        return lcj_fail(rt, LC_JINJA_VALUE, "%s values to unpack (expected %u)",
                        items->len < target->items.len ? "not enough" : "too many",
                        target->items.len);
    for (uint32_t i = 0; i < items->len; i++)
        if (!lcj_assign(rt, act, target->items.list[i], items->items[i])) return false;
    return true;
}

bool lcj_assign(lcj_rt *rt, lcj_act *act, const lcj_node *target, lcj_val value) {
    switch (target->kind) {
    case LCJ_N_NAME: *lcj_slot(act, target->ref) = value; return true;
    case LCJ_N_NSREF: return assign_namespace(rt, act, target, value);
    default: {
        if (!lcj_enter_eval(rt)) return false;
        bool ok = unpack(rt, act, target, value);
        rt->depth--;
        return ok;
    }
    }
}

/* Namespaces are looked at before the value is evaluated, as in the reference. */
static bool check_namespaces(lcj_rt *rt, lcj_act *act, const lcj_node *target) {
    if (target->kind == LCJ_N_NSREF && lcj_slot(act, target->ref)->type != LCJ_NAMESPACE)
        return lcj_fail(rt, LC_JINJA_RUNTIME, "cannot assign attribute on non-namespace object");
    for (uint32_t i = 0; i < target->items.len; i++)
        if (!check_namespaces(rt, act, target->items.list[i])) return false;
    return true;
}

/* ---- loops ---- */

static int loop_next(lcj_rt *rt, lcj_loop *loop, lcj_val *item) {
    int n = 1;
    if (loop->after.type != LCJ_MISSING) {
        *item = loop->after;
        loop->after = lcj_missing();
    } else {
        n = lcj_iter_next(rt, &loop->iter, item);
    }
    if (n <= 0) return n;
    loop->index0++;
    loop->before = loop->current;
    loop->current = *item;
    return 1;
}

static bool loop_peek(lcj_rt *rt, lcj_loop *loop, bool *has) {
    *has = true;
    if (loop->after.type != LCJ_MISSING) return true;
    size_t before = rt->position;
    lcj_val item;
    int n = lcj_iter_next(rt, &loop->iter, &item);
    if (n < 0) return false;
    if (rt->position != before) rt->pins++; /* the item is kept beyond this pass */
    *has = n > 0;
    if (n > 0) loop->after = item;
    return true;
}

bool lcj_loop_length(lcj_rt *rt, lcj_loop *loop, int64_t *out) {
    lcj_val rest;
    if (loop->length < 0 && loop->source.type != LCJ_ITER) {
        if (!lcj_length(rt, loop->source, &loop->length)) return false;
    } else if (loop->length < 0) { /* a generator is used up to count it */
        lcj_items items = {0};
        lcj_val v;
        for (int n; (n = lcj_iter_next(rt, &loop->iter, &v)) != 0;)
            if (n < 0 || !lcj_items_push(rt, &items, v)) return false;
        if (!lcj_items_list(rt, &items, LCJ_LIST, &rest) || !lcj_iter_open(rt, rest, &loop->iter))
            return false;
        loop->length = items.len + loop->index0 + 1 + (loop->after.type != LCJ_MISSING);
        rt->pins++;
    }
    *out = loop->length;
    return true;
}

static bool loop_is(lcj_str name, const char *text) {
    return strlen(text) == name.len && !memcmp(text, name.s, name.len);
}

static bool loop_cycle(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    if (!call->n_args || call->n_kwargs)
        return lcj_fail(rt, LC_JINJA_TYPE, "no items for cycling given");
    *out = call->args[call->self.u.loop->index0 % call->n_args];
    return true;
}

static bool loop_changed(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_loop *loop = call->self.u.loop;
    lcj_val now;
    bool same = false;
    if (call->n_kwargs) return lcj_fail(rt, LC_JINJA_TYPE, "loop.changed() takes no keywords");
    if (!lcj_list_new(rt, LCJ_TUPLE, call->args, call->n_args, &now)) return false;
    if (loop->changed.type != LCJ_MISSING && !lcj_equal(rt, loop->changed, now, &same))
        return false;
    if (!same) {
        loop->changed = now;
        rt->pins++;
    }
    *out = lcj_bool(!same);
    return true;
}

static const lcj_def loop_methods[] = {{"cycle", loop_cycle, "*", LCJ_DEF_PLAIN},
                                       {"changed", loop_changed, "*", LCJ_DEF_PLAIN},
                                       {NULL, NULL, NULL, 0}};

bool lcj_loop_attr(lcj_rt *rt, lcj_loop *loop, lcj_str name, lcj_val *out) {
    int64_t length;
    bool more;
    if (loop_is(name, "index0")) {
        *out = lcj_int(loop->index0);
    } else if (loop_is(name, "index")) {
        *out = lcj_int(loop->index0 + 1);
    } else if (loop_is(name, "first")) {
        *out = lcj_bool(!loop->index0);
    } else if (loop_is(name, "last") || loop_is(name, "nextitem")) {
        if (!loop_peek(rt, loop, &more)) return false;
        *out = name.s[0] == 'l' ? lcj_bool(!more)
               : more           ? loop->after
                                : lcj_undefined_hint("there is no next item");
    } else if (loop_is(name, "previtem")) {
        *out = loop->index0 ? loop->before : lcj_undefined_hint("there is no previous item");
    } else if (loop_is(name, "length") || loop_is(name, "revindex") || loop_is(name, "revindex0")) {
        if (!lcj_loop_length(rt, loop, &length)) return false;
        if (name.s[0] == 'r') length -= loop->index0 + (name.len > 8);
        *out = lcj_int(length);
    } else if (loop_is(name, "depth")) {
        *out = lcj_int(loop->depth0 + 1);
    } else if (loop_is(name, "depth0")) {
        *out = lcj_int(loop->depth0);
    } else {
        const lcj_def *def = lcj_find_def(loop_methods, name);
        lcj_bound *bound = def ? lcj_alloc(rt, sizeof *bound) : NULL;
        if (!bound) return !def;
        *bound = (lcj_bound){{.type = LCJ_LOOP, .u.loop = loop}, def, name};
        *out = (lcj_val){.type = LCJ_METHOD, .u.bound = bound};
    }
    return true;
}

/* What a loop with a test yields is a copy of its target: tuples, whatever was unpacked. */
static bool rebuild(lcj_rt *rt, lcj_act *act, const lcj_node *target, lcj_val *out) {
    lcj_items items = {0};
    if (target->kind == LCJ_N_NAME) {
        *out = *lcj_slot(act, target->ref);
        return true;
    }
    for (uint32_t i = 0; i < target->items.len; i++) {
        lcj_val v;
        if (!rebuild(rt, act, target->items.list[i], &v) || !lcj_items_push(rt, &items, v))
            return false;
    }
    return lcj_items_list(rt, &items, LCJ_TUPLE, out);
}

bool lcj_loop_test(lcj_rt *rt, lcj_iter *it, lcj_val *item, bool *keep) {
    const lcj_loop *loop = it->loop;
    const lcj_node *node = loop->node, *target = node->scope->test_target;
    lcj_val test;
    if (!it->sub) { /* once: the variables that the test takes from outside */
        it->sub = 1;
        if (!lcj_frame_enter(rt, loop->act, &node->scope->test)) return false;
    }
    return lcj_assign(rt, loop->act, target, *item) && lcj_eval(rt, loop->act, node->c, &test) &&
           lcj_truth(rt, test, keep) && (!*keep || rebuild(rt, loop->act, target, item));
}

static bool loop_open(lcj_rt *rt, lcj_loop *loop, lcj_val items) {
    loop->source = items;
    if (loop->node->c) {
        if (!lcj_iter_value(rt, LCJ_IT_TEST, items, NULL, &loop->source)) return false;
        loop->source.u.iter->loop = loop;
        if (!lcj_iterable(items)) /* said when the loop starts, and so is this */
            return lcj_fail(rt, LC_JINJA_TYPE, "'%s' object is not iterable", lcj_type_name(items));
    }
    return lcj_iter_open(rt, loop->source, &loop->iter);
}

/* One pass; *stop after {% break %}. The frame is left before its memory goes: a macro that was
 * kept in a namespace may still look at its slots. */
static lcj_flow run_pass(lcj_rt *rt, lcj_act *act, lcj_loop *loop, lcj_val item) {
    const lcj_node *node = loop->node;
    lcj_mark mark = lcj_heap_mark(rt);
    size_t outer = rt->mark_position;
    uint64_t pins = rt->pins;
    rt->mark_position = mark.position;
    lcj_flow flow = LCJ_GO_FAIL;
    if (node->scope->has_loop)
        *lcj_slot(act, node->scope->loop) = (lcj_val){.type = LCJ_LOOP, .u.loop = loop};
    if (lcj_frame_enter(rt, act, &node->scope->frame) && lcj_assign(rt, act, node->a, item))
        flow = lcj_exec(rt, act, &node->body);
    frame_leave(act, &node->scope->frame);
    if (rt->pins == pins) lcj_heap_release(rt, &mark);
    rt->mark_position = outer;
    return flow;
}

static lcj_flow run_loop(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val items,
                         uint32_t depth0) {
    bool any = false; /* a pass reached its end: after break or continue the else part still runs */
    lcj_loop *loop = lcj_alloc(rt, sizeof *loop);
    if (!loop) return LCJ_GO_FAIL;
    *loop = (lcj_loop){.node = node, .act = act, .index0 = -1, .length = -1, .depth0 = depth0};
    if (!loop_open(rt, loop, items)) return LCJ_GO_FAIL;
    for (lcj_flow flow = LCJ_GO_ON; flow != LCJ_GO_BREAK;) {
        lcj_val item;
        int n = loop_next(rt, loop, &item);
        if (n < 0) return LCJ_GO_FAIL;
        if (!n) break;
        flow = run_pass(rt, act, loop, item);
        if (flow == LCJ_GO_FAIL) return LCJ_GO_FAIL;
        any |= flow == LCJ_GO_ON;
    }
    if (any || !node->orelse.len) return LCJ_GO_ON;
    if (!lcj_frame_enter(rt, act, &node->scope->orelse)) return LCJ_GO_FAIL;
    lcj_flow flow = lcj_exec(rt, act, &node->orelse); /* a break here is for a loop further out */
    frame_leave(act, &node->scope->orelse);
    return flow;
}

/* A recursive loop is a function: each level has its own variables. */
static bool run_recursive(lcj_rt *rt, lcj_act *parent, const lcj_node *node, lcj_val items,
                          uint32_t depth0) {
    if (rt->calls >= LCJ_CALLS) return lcj_limit(rt, "loops inside recursive loops");
    lcj_act *act = lcj_act_new(rt, parent, node->scope->func);
    if (!act) return false;
    rt->calls++;
    bool ok = run_loop(rt, act, node, items, depth0) != LCJ_GO_FAIL;
    rt->calls--;
    return ok;
}

bool lcj_loop_recurse(lcj_rt *rt, lcj_loop *loop, lcj_val items, lcj_val *out) {
    size_t start = rt->out.len;
    if (!loop->node->scope->func)
        return lcj_fail(rt, LC_JINJA_TYPE,
                        "The loop must have the 'recursive' marker to be called recursively.");
    return run_recursive(rt, loop->act->parent, loop->node, items, loop->depth0 + 1) &&
           lcj_take(rt, start, out);
}

static lcj_flow exec_for(lcj_rt *rt, lcj_act *act, const lcj_node *node) {
    lcj_val items;
    if (!lcj_eval(rt, act, node->b, &items)) return LCJ_GO_FAIL;
    if (!node->scope->func) return run_loop(rt, act, node, items, 0);
    return run_recursive(rt, act, node, items, 0) ? LCJ_GO_ON : LCJ_GO_FAIL;
}

/* ---- other statements ---- */

static bool exec_output(lcj_rt *rt, lcj_act *act, const lcj_node *node) {
    for (uint32_t i = 0; i < node->items.len; i++) {
        const lcj_node *item = node->items.list[i];
        lcj_val v;
        if (!lcj_eval(rt, act, item, &v) || !lcj_put_str(rt, v)) return false;
    }
    return true;
}

static bool test_of(lcj_rt *rt, lcj_act *act, const lcj_node *node, bool *yes) {
    lcj_val v;
    return lcj_eval(rt, act, node, &v) && lcj_truth(rt, v, yes);
}

static lcj_flow exec_if(lcj_rt *rt, lcj_act *act, const lcj_node *node) {
    bool yes;
    if (!test_of(rt, act, node->a, &yes)) return LCJ_GO_FAIL;
    if (yes) return lcj_exec(rt, act, &node->body);
    for (uint32_t i = 0; i < node->more.len; i++) {
        if (!test_of(rt, act, node->more.list[i]->a, &yes)) return LCJ_GO_FAIL;
        if (yes) return lcj_exec(rt, act, &node->more.list[i]->body);
    }
    return lcj_exec(rt, act, &node->orelse);
}

static bool exec_set(lcj_rt *rt, lcj_act *act, const lcj_node *node) {
    lcj_val v;
    return check_namespaces(rt, act, node->a) && lcj_eval(rt, act, node->b, &v) &&
           lcj_assign(rt, act, node->a, v);
}

/* Runs a body and takes its text; a flow other than GO_ON leaves no text behind. */
static lcj_flow capture(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    size_t start = rt->out.len;
    if (!lcj_frame_enter(rt, act, &node->scope->frame)) return LCJ_GO_FAIL;
    lcj_flow flow = lcj_exec(rt, act, &node->body);
    if (flow == LCJ_GO_ON && !lcj_take(rt, start, out)) return LCJ_GO_FAIL;
    if (flow == LCJ_GO_BREAK || flow == LCJ_GO_CONTINUE) rt->out.len = start;
    return flow;
}

static lcj_flow exec_setblock(lcj_rt *rt, lcj_act *act, const lcj_node *node) {
    lcj_val text;
    lcj_flow flow = capture(rt, act, node, &text);
    bool ok = flow != LCJ_GO_ON || ((!node->b || lcj_eval_filter(rt, act, node->b, &text, &text)) &&
                                    lcj_assign(rt, act, node->a, text));
    frame_leave(act, &node->scope->frame);
    return ok ? flow : LCJ_GO_FAIL;
}

static lcj_flow exec_filterblock(lcj_rt *rt, lcj_act *act, const lcj_node *node) {
    lcj_val text;
    lcj_flow flow = capture(rt, act, node, &text);
    bool ok = flow != LCJ_GO_ON ||
              (lcj_eval_filter(rt, act, node->b, &text, &text) && lcj_put_str(rt, text));
    frame_leave(act, &node->scope->frame);
    return ok ? flow : LCJ_GO_FAIL;
}

static lcj_flow exec_with(lcj_rt *rt, lcj_act *act, const lcj_node *node) {
    if (!lcj_frame_enter(rt, act, &node->scope->frame)) return LCJ_GO_FAIL;
    for (uint32_t i = 0; i < node->items.len; i++) {
        lcj_val v;
        if (!lcj_eval(rt, act, node->more.list[i], &v) ||
            !lcj_assign(rt, act, node->items.list[i], v))
            return LCJ_GO_FAIL;
    }
    lcj_flow flow = lcj_exec(rt, act, &node->body);
    frame_leave(act, &node->scope->frame);
    return flow;
}

static bool macro_value(lcj_rt *rt, lcj_act *act, const lcj_node *node, lcj_val *out) {
    lcj_macro *macro = lcj_alloc(rt, sizeof *macro);
    if (!macro) return false;
    *macro = (lcj_macro){node, act};
    *out = (lcj_val){.type = LCJ_MACRO, .u.macro = macro};
    return true;
}

static bool exec_callblock(lcj_rt *rt, lcj_act *act, const lcj_node *node) {
    lcj_val caller, v;
    if (!macro_value(rt, act, node, &caller)) return false;
    if (node->a) return lcj_eval_call(rt, act, node->a, &caller, &v) && lcj_put_str(rt, v);
    lcj_call call = {.n_args = 0}; /* {% generation %} calls its body at once */
    return lcj_call_macro(rt, caller.u.macro, &call, &v) && lcj_put_str(rt, v);
}

static lcj_flow exec_node(lcj_rt *rt, lcj_act *act, const lcj_node *node) {
    lcj_flow flow;
    lcj_val v;
    bool ok;
    switch (node->kind) {
    case LCJ_N_OUTPUT: ok = exec_output(rt, act, node); break;
    case LCJ_N_IF: return exec_if(rt, act, node);
    case LCJ_N_FOR: return exec_for(rt, act, node);
    case LCJ_N_SET: ok = exec_set(rt, act, node); break;
    case LCJ_N_SETBLOCK: return exec_setblock(rt, act, node);
    case LCJ_N_MACRO:
        ok = macro_value(rt, act, node, &v);
        if (ok) *lcj_slot(act, node->ref) = v;
        break;
    case LCJ_N_CALLBLOCK: ok = exec_callblock(rt, act, node); break;
    case LCJ_N_FILTERBLOCK: return exec_filterblock(rt, act, node);
    case LCJ_N_WITH: return exec_with(rt, act, node);
    case LCJ_N_SCOPE:
        if (!lcj_frame_enter(rt, act, &node->scope->frame)) return LCJ_GO_FAIL;
        flow = lcj_exec(rt, act, &node->body);
        frame_leave(act, &node->scope->frame);
        return flow;
    case LCJ_N_BREAK: return LCJ_GO_BREAK;
    case LCJ_N_CONTINUE: return LCJ_GO_CONTINUE;
    default:
        rt->line = node->line;
        lcj_fail(rt, LC_JINJA_UNSUPPORTED, "%.*s is not supported", (int)node->name.len,
                 node->name.s);
        return LCJ_GO_FAIL;
    }
    return ok ? LCJ_GO_ON : LCJ_GO_FAIL;
}

lcj_flow lcj_exec(lcj_rt *rt, lcj_act *act, const lcj_nodes *body) {
    if (!lcj_enter_eval(rt)) return LCJ_GO_FAIL;
    lcj_flow flow = LCJ_GO_ON;
    for (uint32_t i = 0; i < body->len && flow == LCJ_GO_ON; i++) {
        rt->line = body->list[i]->line;
        flow = lcj_tick(rt, 1) ? exec_node(rt, act, body->list[i]) : LCJ_GO_FAIL;
    }
    rt->depth--;
    return flow;
}
