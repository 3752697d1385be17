/*
 * jinja_call.c: calls: arguments to parameters of built-ins, macros and everything else that can
 * be called.
 */
#include "text/jinja/jinja_internal.h"

const lcj_def *lcj_find_def(const lcj_def *table, lcj_str name) {
    if (!name.len) return NULL;
    for (const lcj_def *def = table; def->name; def++)
        if (def->name[0] == *name.s && strlen(def->name) == name.len &&
            !memcmp(def->name, name.s, name.len))
            return def;
    return NULL;
}

const lcj_def *lcj_find_filter(lcj_str name) {
    const lcj_def *const tables[] = {lcj_filters, lcj_seq_filters, lcj_text_filters};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        const lcj_def *def = lcj_find_def(tables[i], name);
        if (def) return def;
    }
    return NULL;
}

const lcj_def *lcj_find_test(lcj_str name) { return lcj_find_def(lcj_tests, name); }

/* ---- built-ins ---- */

typedef struct param {
    lcj_str name;
    bool optional, positional;
} param;

/* The next parameter of a list like "sep? maxsplit?"; false at its end. */
static bool next_param(const char **at, param *out) {
    while (**at == ' ') ++*at;
    if (!**at) return false;
    const char *start = *at;
    while (**at && **at != ' ') ++*at;
    size_t len = (size_t)(*at - start);
    *out = (param){.optional = false};
    for (; len && (start[len - 1] == '?' || start[len - 1] == '-'); len--) {
        if (start[len - 1] == '?') out->optional = true;
        if (start[len - 1] == '-') out->positional = true;
    }
    out->name = (lcj_str){start, (uint32_t)len};
    return true;
}

static const lcj_val *kwarg_of(const lcj_call *call, const param *p) {
    for (uint32_t i = 0; i < call->n_kwargs; i++)
        if (lcj_str_eq(call->kwargs[i].name, p->name)) return &call->kwargs[i].value;
    return NULL;
}

bool lcj_bind(lcj_rt *rt, lcj_call *call) {
    const char *at = call->def->params, *name = call->def->name;
    uint32_t n = 0, by_name = 0;
    for (param p; next_param(&at, &p); n++) {
        const lcj_val *named = p.positional ? NULL : kwarg_of(call, &p);
        if (named) by_name++;
        if (n < call->n_args && named)
            return lcj_fail(rt, LC_JINJA_TYPE, "%s() got multiple values for argument '%.*s'", name,
                            (int)p.name.len, p.name.s);
        call->bound[n] = n < call->n_args ? call->args[n] : named ? *named : lcj_missing();
        if (call->bound[n].type == LCJ_MISSING && !p.optional)
            return lcj_fail(rt, LC_JINJA_TYPE, "%s() missing required argument '%.*s'", name,
                            (int)p.name.len, p.name.s);
    }
    if (call->n_args > n)
        return lcj_fail(rt, LC_JINJA_TYPE, "%s() takes at most %u arguments (%u given)", name, n,
                        call->n_args);
    if (call->n_kwargs > by_name)
        return lcj_fail(rt, LC_JINJA_TYPE, "%s() got an unexpected keyword argument", name);
    return true;
}

bool lcj_call_def(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    if (!call->def->fn)
        return lcj_fail(rt, LC_JINJA_UNSUPPORTED, "%s is not supported", call->def->name);
    if (call->def->params[0] != '*' && !lcj_bind(rt, call)) return false;
    if (!lcj_enter_eval(rt)) return false;
    bool ok = call->def->fn(rt, call, out);
    rt->depth--;
    return ok;
}

/* ---- macros ---- */

/* Takes a keyword argument out of the call. */
static bool pop_kwarg(lcj_call *call, lcj_str name, lcj_val *out) {
    for (uint32_t i = 0; i < call->n_kwargs; i++)
        if (lcj_str_eq(call->kwargs[i].name, name)) {
            *out = call->kwargs[i].value;
            memmove(&call->kwargs[i], &call->kwargs[i + 1],
                    (call->n_kwargs - i - 1) * sizeof *call->kwargs);
            call->n_kwargs--;
            return true;
        }
    return false;
}

static bool bind_rest(lcj_rt *rt, const lcj_node *node, lcj_call *call, lcj_act *act) {
    const lcj_func *func = node->scope->func;
    uint32_t n = node->items.len;
    const char *name = node->kind == LCJ_N_MACRO ? node->name.s : "None";
    int len = node->kind == LCJ_N_MACRO ? (int)node->name.len : 4;
    if (func->uses_kwargs) {
        lcj_val dict;
        if (!lcj_dict_new(rt, call->n_kwargs, &dict)) return false;
        for (uint32_t i = 0; i < call->n_kwargs; i++)
            if (!lcj_dict_set(rt, dict.u.dict, lcj_text(call->kwargs[i].name),
                              call->kwargs[i].value))
                return false;
        *lcj_slot(act, func->kwargs) = dict;
    } else if (call->n_kwargs) {
        return lcj_fail(rt, LC_JINJA_TYPE, "macro '%.*s' takes no keyword argument '%.*s'", len,
                        name, (int)call->kwargs[0].name.len, call->kwargs[0].name.s);
    }
    uint32_t extra = call->n_args > n ? call->n_args - n : 0;
    if (func->uses_varargs) {
        const lcj_val *rest = extra ? call->args + n : NULL;
        return lcj_list_new(rt, LCJ_TUPLE, rest, extra, lcj_slot(act, func->varargs));
    }
    if (extra)
        return lcj_fail(rt, LC_JINJA_TYPE, "macro '%.*s' takes not more than %u argument(s)", len,
                        name, n);
    return true;
}

static bool bind_macro(lcj_rt *rt, const lcj_node *node, lcj_call *call, lcj_act *act) {
    const lcj_func *func = node->scope->func;
    bool found_caller = false, explicit_caller = false;
    for (uint32_t i = 0; i < node->items.len; i++) {
        const lcj_node *p = node->items.list[i];
        bool is_caller = lcj_str_eq(p->name, LCJ_STR("caller"));
        lcj_val *slot = lcj_slot(act, p->ref);
        explicit_caller |= is_caller;
        if (i < call->n_args) {
            *slot = call->args[i];
        } else {
            found_caller |= is_caller;
            if (!pop_kwarg(call, p->name, slot)) *slot = lcj_missing();
        }
    }
    if (call->n_args >= node->items.len) found_caller = explicit_caller;
    if (func->uses_caller && !found_caller) {
        lcj_val caller = lcj_none();
        pop_kwarg(call, LCJ_STR("caller"), &caller);
        if (caller.type == LCJ_NONE) caller = lcj_undefined_hint("No caller defined");
        *lcj_slot(act, func->caller) = caller;
    }
    return bind_rest(rt, node, call, act);
}

static bool fill_defaults(lcj_rt *rt, const lcj_node *node, lcj_act *act) {
    uint32_t n = node->items.len, first_default = n - node->more.len;
    for (uint32_t i = 0; i < n; i++) {
        lcj_val *slot = lcj_slot(act, node->items.list[i]->ref), v;
        if (slot->type != LCJ_MISSING) continue;
        v = lcj_undefined_name(node->items.list[i]->name);
        v.sub = LCJ_UNDEF_PARAM;
        if (i >= first_default && !lcj_eval(rt, act, node->more.list[i - first_default], &v))
            return false;
        *slot = v;
    }
    return true;
}

bool lcj_call_macro(lcj_rt *rt, const lcj_macro *macro, lcj_call *call, lcj_val *out) {
    const lcj_node *node = macro->node;
    if (rt->calls >= LCJ_CALLS) return lcj_limit(rt, "macro calls inside macro calls");
    lcj_act *act = lcj_act_new(rt, macro->act, node->scope->func);
    if (!act || !bind_macro(rt, node, call, act)) return false;
    rt->calls++;
    size_t start = rt->out.len;
    bool ok = lcj_frame_enter(rt, act, &node->scope->frame) && fill_defaults(rt, node, act) &&
              lcj_exec(rt, act, &node->body) != LCJ_GO_FAIL && lcj_take(rt, start, out);
    rt->calls--;
    return ok;
}

/* ---- anything ---- */

static bool call_joiner(lcj_rt *rt, lcj_cycler *joiner, const lcj_call *call, lcj_val *out) {
    if (call->n_args || call->n_kwargs)
        return lcj_fail(rt, LC_JINJA_TYPE, "a joiner takes no arguments");
    *out = joiner->used ? joiner->items.items[0] : lcj_text(LCJ_STR(""));
    joiner->used = true;
    return true;
}

bool lcj_call_value(lcj_rt *rt, lcj_val callee, lcj_call *call, lcj_val *out) {
    switch (callee.type) {
    case LCJ_FUNC:
        call->def = callee.u.def;
        call->self = callee;
        return lcj_call_def(rt, call, out);
    case LCJ_METHOD:
        call->def = callee.u.bound->def;
        call->self = callee.u.bound->self;
        return lcj_call_def(rt, call, out);
    case LCJ_MACRO: return lcj_call_macro(rt, callee.u.macro, call, out);
    case LCJ_LOOP:
        if (call->n_args != 1 || call->n_kwargs)
            return lcj_fail(rt, LC_JINJA_TYPE, "loop() takes one argument");
        return lcj_loop_recurse(rt, callee.u.loop, call->args[0], out);
    case LCJ_JOINER: return call_joiner(rt, callee.u.cycler, call, out);
    case LCJ_UNDEFINED: return lcj_fail_undefined(rt, callee);
    default:
        return lcj_fail(rt, LC_JINJA_TYPE, "'%s' object is not callable", lcj_type_name(callee));
    }
}
