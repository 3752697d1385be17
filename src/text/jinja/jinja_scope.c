/*
 * jinja_scope.c: which variable a name means, decided when compiling as the reference does.
 *
 * A frame is a stretch of template with variables of its own: the root, a loop's body, a macro, a
 * {% set %} block and so on; {% if %} has none. Before a frame's statements are bound, they are
 * looked through without going into frames inside (analyse_*): a name that is read first and known
 * nowhere further out comes from the context; one that is assigned is the frame's own and starts as
 * a copy of the outer variable of that name, or unset. A name assigned only in a branch of an
 * {% if %} starts as what it was outside. So {% set %} in a loop never reaches out of it.
 *
 * Names become slots of the function they belong to (root, macro, call block, recursive loop).
 * Here unknown filters and tests are refused too, unless they stand in an {% if %} or an inline if:
 * templates use that to ask for what a runtime may lack.
 */
#include "text/jinja/jinja_internal.h"

typedef struct binding {
    struct binding *below; /* the same name further out */
    struct symbols *owner;
    struct name *name;
    uint32_t slot;
    lcj_load_kind kind;
    lcj_ref from;
    bool stored;
} binding;

typedef struct name {
    struct name *next; /* in its bucket */
    lcj_str text;
    uint32_t context; /* index in tmpl->names + 1 */
    binding *top;     /* innermost */
} name;

typedef struct bindings {
    binding **list;
    uint32_t len, cap;
} bindings;

typedef struct symbols {
    struct symbols *parent;
    lcj_func *func;
    uint32_t func_depth;
    bindings own, stores; /* stores: in the order of their first assignment */
} symbols;

enum { BUCKETS = 4096, MAX_NAMES = 10000 };

typedef struct binder {
    lcj_comp *comp;
    symbols *now;
    name **buckets;
    uint32_t n_names, names_cap;
    uint32_t in_for; /* loops around, through macros too */
} binder;

static bool push(lcj_comp *comp, bindings *list, binding *b) {
    if (list->len == list->cap) {
        uint32_t cap = list->cap ? 2 * list->cap : 8;
        binding **grown = lcj_comp_alloc(comp, cap * sizeof(binding *));
        if (!grown) return false;
        if (list->len) memcpy(grown, list->list, list->len * sizeof(binding *));
        list->list = grown;
        list->cap = cap;
    }
    list->list[list->len++] = b;
    return true;
}

static name *intern(binder *b, lcj_str text) {
    uint32_t h = 2166136261u;
    for (uint32_t i = 0; i < text.len; i++) h = (h ^ (unsigned char)text.s[i]) * 16777619u;
    name **bucket = &b->buckets[(h ^ h >> 15) % BUCKETS];
    for (name *n = *bucket; n; n = n->next)
        if (lcj_str_eq(n->text, text)) return n;
    if (b->n_names == MAX_NAMES) { /* chains stay short whatever the names are */
        lcj_comp_fail(b->comp, LC_JINJA_LIMIT, 0, "more than the limit of %d names", MAX_NAMES);
        return NULL;
    }
    name *n = lcj_comp_alloc(b->comp, sizeof *n);
    if (!n) return NULL;
    b->n_names++;
    n->text = text;
    n->next = *bucket;
    return *bucket = n;
}

/* The index of a name that the template asks the context for, + 1; 0 after a failure. */
static uint32_t context_index(binder *b, name *n) {
    lc_jinja *tmpl = b->comp->tmpl;
    if (n->context) return n->context;
    if (tmpl->n_names == b->names_cap) {
        b->names_cap = b->names_cap ? 2 * b->names_cap : 16;
        lcj_str *grown = lcj_comp_alloc(b->comp, b->names_cap * sizeof *grown);
        if (!grown) return 0;
        if (tmpl->n_names) memcpy(grown, tmpl->names, tmpl->n_names * sizeof *grown);
        tmpl->names = grown;
    }
    tmpl->names[tmpl->n_names++] = n->text;
    return n->context = tmpl->n_names;
}

static lcj_ref ref_to(const binder *b, const binding *target) {
    return (lcj_ref){b->now->func_depth - target->owner->func_depth, target->slot};
}

/* ---- what the frame knows ---- */

static bool define(binder *b, name *n, lcj_load_kind kind) {
    binding *made = lcj_comp_alloc(b->comp, sizeof *made);
    if (!made || !push(b->comp, &b->now->own, made)) return false;
    *made = (binding){.below = n->top, .owner = b->now, .name = n, .kind = kind};
    made->slot = b->now->func->n_slots++;
    if (kind == LCJ_LOAD_ALIAS) made->from = ref_to(b, n->top);
    if (kind == LCJ_LOAD_CONTEXT && !context_index(b, n)) return false;
    n->top = made;
    return true;
}

static bool is_own(const binder *b, const name *n) { return n->top && n->top->owner == b->now; }

static bool load_name(binder *b, lcj_str text) {
    name *n = intern(b, text);
    return n && (n->top || define(b, n, LCJ_LOAD_CONTEXT));
}

static bool mark_stored(binder *b, binding *own) {
    if (own->stored) return true;
    own->stored = true;
    return push(b->comp, &b->now->stores, own);
}

static bool store_name(binder *b, lcj_str text) {
    name *n = intern(b, text);
    if (!n) return false;
    if (!is_own(b, n) && !define(b, n, n->top ? LCJ_LOAD_ALIAS : LCJ_LOAD_CLEAR)) return false;
    return mark_stored(b, n->top);
}

static bool declare_param(binder *b, lcj_str text, lcj_ref *ref) {
    name *n = intern(b, text);
    if (!n) return false;
    if (!is_own(b, n) && !define(b, n, LCJ_LOAD_PARAM)) return false;
    n->top->kind = LCJ_LOAD_PARAM;
    if (ref) *ref = ref_to(b, n->top);
    return mark_stored(b, n->top);
}

/* What was first assigned since `count` was assigned in a branch only. */
static bool branch_update(binder *b, uint32_t count) {
    for (uint32_t i = count; i < b->now->stores.len; i++) {
        binding *own = b->now->stores.list[i];
        own->kind = own->below ? LCJ_LOAD_ALIAS : LCJ_LOAD_CONTEXT;
        if (own->below)
            own->from = ref_to(b, own->below);
        else if (!context_index(b, own->name))
            return false;
    }
    return true;
}

/* func: the function that the frame is, NULL for a part of the function around it. */
static bool enter_frame(binder *b, lcj_func *func) {
    symbols *s = lcj_comp_alloc(b->comp, sizeof *s);
    if (!s) return false;
    s->parent = b->now;
    s->func = func;
    if (b->now && !func) s->func = b->now->func;
    if (b->now) s->func_depth = b->now->func_depth + (func != NULL);
    b->now = s;
    return true;
}

static bool leave_frame(binder *b, lcj_frame *out) {
    symbols *s = b->now;
    out->n_loads = s->own.len;
    out->loads = lcj_comp_alloc(b->comp, s->own.len * sizeof *out->loads);
    if (!out->loads) return false;
    for (uint32_t i = 0; i < s->own.len; i++) {
        binding *own = s->own.list[i];
        out->loads[i] = (lcj_load){own->kind, own->slot, own->from, own->name->context - 1};
        own->name->top = own->below;
    }
    b->now = s->parent;
    return true;
}

/* ---- looking through a frame ---- */

static bool analyse_expr(binder *b, const lcj_node *node);

static bool analyse_exprs(binder *b, const lcj_nodes *nodes) {
    for (uint32_t i = 0; i < nodes->len; i++)
        if (!analyse_expr(b, nodes->list[i])) return false;
    return true;
}

static bool analyse_args(binder *b, const lcj_args *args) {
    lcj_nodes pos = {args->pos, args->n_pos};
    if (!analyse_exprs(b, &pos)) return false;
    for (uint32_t i = 0; i < args->n_kw; i++)
        if (!analyse_expr(b, args->kw[i].value)) return false;
    return analyse_expr(b, args->star) && analyse_expr(b, args->star2);
}

static bool analyse_expr(binder *b, const lcj_node *node) {
    if (!node) return true;
    if (node->kind == LCJ_N_NAME)
        return node->op == LCJ_STORE   ? store_name(b, node->name)
               : node->op == LCJ_PARAM ? declare_param(b, node->name, NULL)
                                       : load_name(b, node->name);
    if (node->kind == LCJ_N_NSREF) return load_name(b, node->name);
    return analyse_expr(b, node->a) && analyse_expr(b, node->b) && analyse_expr(b, node->c) &&
           analyse_exprs(b, &node->items) && analyse_exprs(b, &node->more) &&
           (!node->args || analyse_args(b, node->args));
}

/* A loop's target is assigned by the loop itself. */
static bool analyse_target(binder *b, const lcj_node *target) {
    if (target->kind == LCJ_N_NAME) return declare_param(b, target->name, NULL);
    for (uint32_t i = 0; i < target->items.len; i++)
        if (!analyse_target(b, target->items.list[i])) return false;
    return true;
}

static bool analyse_body(binder *b, const lcj_nodes *body);

static bool analyse_if(binder *b, const lcj_node *node) {
    if (!analyse_expr(b, node->a)) return false;
    uint32_t count = b->now->stores.len;
    return analyse_body(b, &node->body) && analyse_body(b, &node->more) &&
           analyse_body(b, &node->orelse) && branch_update(b, count);
}

static bool analyse_body(binder *b, const lcj_nodes *body) {
    for (uint32_t i = 0; i < body->len; i++) {
        const lcj_node *node = body->list[i];
        bool ok = true;
        switch (node->kind) {
        case LCJ_N_OUTPUT: ok = analyse_exprs(b, &node->items); break;
        case LCJ_N_IF: ok = analyse_if(b, node); break;
        case LCJ_N_FOR: ok = analyse_expr(b, node->b); break;
        case LCJ_N_SET: ok = analyse_expr(b, node->b) && analyse_expr(b, node->a); break;
        case LCJ_N_SETBLOCK:
        case LCJ_N_CALLBLOCK: ok = analyse_expr(b, node->a); break;
        case LCJ_N_MACRO: ok = store_name(b, node->name); break;
        case LCJ_N_FILTERBLOCK: ok = analyse_expr(b, node->b); break;
        case LCJ_N_WITH: ok = analyse_exprs(b, &node->more); break;
        default: break;
        }
        if (!ok) return false;
    }
    return true;
}

/* ---- names used without being assigned before ---- */

typedef struct wanted {
    lcj_str names[3];
    bool active[3], found[3];
    uint32_t count;
} wanted;

static void want(wanted *w, const lcj_node *node);

static void want_all(wanted *w, const lcj_nodes *nodes) {
    for (uint32_t i = 0; i < nodes->len; i++) want(w, nodes->list[i]);
}

static void want_args(wanted *w, const lcj_args *args) {
    for (uint32_t i = 0; i < args->n_pos; i++) want(w, args->pos[i]);
    for (uint32_t i = 0; i < args->n_kw; i++) want(w, args->kw[i].value);
    if (args->star) want(w, args->star);
    if (args->star2) want(w, args->star2);
}

static void want_name(wanted *w, const lcj_node *node) {
    for (uint32_t i = 0; i < w->count; i++)
        if (lcj_str_eq(w->names[i], node->name)) {
            if (node->op == LCJ_LOAD)
                w->found[i] |= w->active[i];
            else
                w->active[i] = false;
        }
}

static void want(wanted *w, const lcj_node *node) {
    if (node->kind == LCJ_N_NAME) {
        want_name(w, node);
        return;
    }
    if (node->a) want(w, node->a);
    if (node->b && node->kind != LCJ_N_FILTERBLOCK) want(w, node->b);
    want_all(w, &node->items);
    if (node->kind != LCJ_N_IF) want_all(w, &node->more);
    want_all(w, &node->body);
    if (node->kind == LCJ_N_IF) want_all(w, &node->more);
    if (node->b && node->kind == LCJ_N_FILTERBLOCK) want(w, node->b);
    want_all(w, &node->orelse);
    if (node->c) want(w, node->c);
    if (node->args) want_args(w, node->args);
}

static bool uses(const lcj_nodes *body, lcj_str text) {
    wanted w = {.names = {text}, .active = {true}, .count = 1};
    want_all(&w, body);
    return w.found[0];
}

/* ---- binding ---- */

static bool bind_expr(binder *b, lcj_node *node, bool soft);
static bool bind_body(binder *b, lcj_nodes *body, bool soft);

static bool bind_exprs(binder *b, lcj_nodes *nodes, bool soft) {
    for (uint32_t i = 0; i < nodes->len; i++)
        if (!bind_expr(b, nodes->list[i], soft)) return false;
    return true;
}

static bool bind_args(binder *b, lcj_args *args, bool soft) {
    lcj_nodes pos = {args->pos, args->n_pos};
    if (!bind_exprs(b, &pos, soft)) return false;
    for (uint32_t i = 0; i < args->n_kw; i++)
        if (!bind_expr(b, args->kw[i].value, soft)) return false;
    return bind_expr(b, args->star, soft) && bind_expr(b, args->star2, soft);
}

/* 1 or 0 for an expression of constants, as far as that decides over dead code; -1 otherwise. */
static int static_truth(const lcj_node *node) {
    int a, c;
    switch (node->kind) {
    case LCJ_N_CONST:
        switch (node->value.type) {
        case LCJ_NONE: return 0;
        case LCJ_BOOL: return node->value.u.b;
        case LCJ_INT: return node->value.u.i != 0;
        case LCJ_FLOAT: return node->value.u.f != 0;
        default: return node->value.len != 0;
        }
    case LCJ_N_NOT: a = static_truth(node->a); return a < 0 ? a : !a;
    case LCJ_N_AND:
    case LCJ_N_OR:
        a = static_truth(node->a);
        if (a < 0 || a == (node->kind == LCJ_N_OR)) return a;
        c = static_truth(node->b);
        return c;
    default: return -1;
    }
}

static bool bind_name(binder *b, lcj_node *node) {
    name *n = intern(b, node->name);
    if (!n) return false;
    if (node->op == LCJ_STORE && b->in_for && lcj_str_eq(node->name, LCJ_STR("loop")))
        return lcj_comp_fail(b->comp, LC_JINJA_SYNTAX, node->line,
                             "Can't assign to special loop variable in for-loop target");
    if (!n->top && !define(b, n, LCJ_LOAD_CONTEXT)) return false;
    node->ref = ref_to(b, n->top);
    return true;
}

static bool bind_expr(binder *b, lcj_node *node, bool soft) {
    if (!node) return true;
    bool soft_a = soft, soft_b = soft;
    switch (node->kind) {
    case LCJ_N_NAME:
    case LCJ_N_NSREF: return bind_name(b, node);
    case LCJ_N_FILTER:
    case LCJ_N_TEST:
        if (!node->def && !soft)
            return lcj_comp_fail(b->comp, LC_JINJA_SYNTAX, node->line, "No %s named '%.*s'.",
                                 node->kind == LCJ_N_FILTER ? "filter" : "test",
                                 node->name.len > 80 ? 80 : (int)node->name.len, node->name.s);
        break;
    case LCJ_N_COND: soft_a = soft_b = soft = true; break;
    case LCJ_N_AND: soft_b |= static_truth(node->a) == 0; break;
    case LCJ_N_OR: soft_b |= static_truth(node->a) == 1; break;
    default: break;
    }
    return bind_expr(b, node->a, soft_a) && bind_expr(b, node->b, soft_b) &&
           bind_expr(b, node->c, soft) && bind_exprs(b, &node->items, soft) &&
           bind_exprs(b, &node->more, soft) && (!node->args || bind_args(b, node->args, soft));
}

/* Whether the reference computes an expression when compiling. */
static bool is_constant(const lcj_node *node) {
    if (!node) return true;
    if (node->kind == LCJ_N_NAME || node->kind == LCJ_N_CALL) return false;
    if (node->kind == LCJ_N_FILTER &&
        (!node->def || !strcmp(node->def->name, "map") || strstr(node->def->name, "select") ||
         strstr(node->def->name, "reject")))
        return false;
    for (uint32_t i = 0; i < node->items.len; i++)
        if (!is_constant(node->items.list[i])) return false;
    for (uint32_t i = 0; i < node->more.len; i++)
        if (!is_constant(node->more.list[i])) return false;
    for (uint32_t i = 0; node->args && i < node->args->n_pos; i++)
        if (!is_constant(node->args->pos[i])) return false;
    for (uint32_t i = 0; node->args && i < node->args->n_kw; i++)
        if (!is_constant(node->args->kw[i].value)) return false;
    if (node->args && (node->args->star || node->args->star2)) return false;
    return is_constant(node->a) && is_constant(node->b) && is_constant(node->c);
}

/* There a slice of what has none is undefined, at run time it is an error. */
static void soften_slices(lcj_node *node) {
    if (!node) return;
    if (node->kind == LCJ_N_GETITEM && node->b->kind == LCJ_N_SLICE) node->op = 1;
    for (uint32_t i = 0; i < node->items.len; i++) soften_slices(node->items.list[i]);
    for (uint32_t i = 0; i < node->more.len; i++) soften_slices(node->more.list[i]);
    for (uint32_t i = 0; node->args && i < node->args->n_pos; i++)
        soften_slices(node->args->pos[i]);
    soften_slices(node->a);
    soften_slices(node->b);
    soften_slices(node->c);
}

static bool bind_output(binder *b, lcj_node *node, bool soft) {
    for (uint32_t i = 0; i < node->items.len; i++)
        if (is_constant(node->items.list[i])) soften_slices(node->items.list[i]);
    return bind_exprs(b, &node->items, soft);
}

static lcj_node *copy_target(lcj_comp *comp, const lcj_node *target) {
    lcj_node *copy = lcj_node_new(comp, (lcj_kind)target->kind, target->line);
    if (!copy) return NULL;
    copy->name = target->name;
    copy->op = target->op;
    for (uint32_t i = 0; i < target->items.len; i++)
        if (!lcj_nodes_push(comp, &copy->items, copy_target(comp, target->items.list[i])))
            return NULL;
    return copy;
}

static bool bind_loop_test(binder *b, lcj_node *node) {
    lcj_node *target = copy_target(b->comp, node->a);
    if (!target || !enter_frame(b, NULL)) return false;
    node->scope->test_target = target;
    return analyse_target(b, target) && analyse_expr(b, node->c) && bind_expr(b, target, false) &&
           bind_expr(b, node->c, false) && leave_frame(b, &node->scope->test);
}

static bool bind_loop_body(binder *b, lcj_node *node) {
    lcj_scope *scope = node->scope;
    if (!enter_frame(b, NULL)) return false;
    scope->has_loop = scope->func || uses(&node->body, LCJ_STR("loop"));
    if (scope->has_loop && !declare_param(b, LCJ_STR("loop"), &scope->loop)) return false;
    if (!analyse_target(b, node->a) || !analyse_body(b, &node->body) ||
        !bind_expr(b, node->a, false) || !bind_body(b, &node->body, false) ||
        !leave_frame(b, &scope->frame))
        return false;
    return enter_frame(b, NULL) && analyse_body(b, &node->orelse) &&
           bind_body(b, &node->orelse, false) && leave_frame(b, &scope->orelse);
}

/* A recursive loop is a function around all of its frames, without variables of its own. */
static bool bind_for(binder *b, lcj_node *node, bool soft) {
    lcj_frame none;
    bool recursive = node->scope->func != NULL;
    if (!bind_expr(b, node->b, soft)) return false;
    if (recursive && !enter_frame(b, node->scope->func)) return false;
    b->in_for++;
    bool ok = (!node->c || bind_loop_test(b, node)) && bind_loop_body(b, node);
    b->in_for--;
    return ok && (!recursive || leave_frame(b, &none));
}

static bool bind_function(binder *b, lcj_node *node) {
    lcj_func *func = node->scope->func;
    wanted w = {.names = {LCJ_STR("caller"), LCJ_STR("kwargs"), LCJ_STR("varargs")},
                .active = {true, true, true},
                .count = 3};
    bool explicit_caller = false, named[3] = {false};
    if (!enter_frame(b, func)) return false;
    for (uint32_t i = 0; i < node->items.len; i++) {
        if (!declare_param(b, node->items.list[i]->name, &node->items.list[i]->ref)) return false;
        for (uint32_t k = 0; k < 3; k++)
            named[k] |= lcj_str_eq(node->items.list[i]->name, w.names[k]);
        if (named[0] && !explicit_caller) {
            explicit_caller = true;
            if (i < node->items.len - node->more.len) w.found[0] = true; /* without a default */
        }
    }
    bool no_default = w.found[0];
    w.found[0] = false;
    want_all(&w, &node->body);
    if (w.found[0] && no_default)
        return lcj_comp_fail(b->comp, LC_JINJA_SYNTAX, node->line,
                             "the special \"caller\" argument must be omitted or be given a "
                             "default");
    func->uses_caller = w.found[0];
    func->uses_kwargs = w.found[1] && !named[1];
    func->uses_varargs = w.found[2] && !named[2];
    if (!analyse_exprs(b, &node->more) || !analyse_body(b, &node->body)) return false;
    if ((func->uses_caller && !declare_param(b, w.names[0], &func->caller)) ||
        (func->uses_kwargs && !declare_param(b, w.names[1], &func->kwargs)) ||
        (func->uses_varargs && !declare_param(b, w.names[2], &func->varargs)))
        return false;
    return bind_exprs(b, &node->more, false) && bind_body(b, &node->body, false) &&
           leave_frame(b, &node->scope->frame);
}

static bool bind_setblock(binder *b, lcj_node *node, bool soft) {
    return bind_expr(b, node->a, soft) && enter_frame(b, NULL) && analyse_body(b, &node->body) &&
           bind_body(b, &node->body, false) && bind_expr(b, node->b, false) &&
           leave_frame(b, &node->scope->frame);
}

static bool bind_filterblock(binder *b, lcj_node *node) {
    return enter_frame(b, NULL) && analyse_body(b, &node->body) && analyse_expr(b, node->b) &&
           bind_body(b, &node->body, false) && bind_expr(b, node->b, false) &&
           leave_frame(b, &node->scope->frame);
}

static bool bind_with(binder *b, lcj_node *node, bool soft) {
    return bind_exprs(b, &node->more, soft) && enter_frame(b, NULL) &&
           analyse_exprs(b, &node->items) && analyse_body(b, &node->body) &&
           bind_exprs(b, &node->items, false) && bind_body(b, &node->body, false) &&
           leave_frame(b, &node->scope->frame);
}

static bool bind_scope(binder *b, lcj_node *node) {
    return enter_frame(b, NULL) && analyse_body(b, &node->body) &&
           bind_body(b, &node->body, false) && leave_frame(b, &node->scope->frame);
}

static bool bind_if(binder *b, lcj_node *node) {
    return bind_expr(b, node->a, true) && bind_body(b, &node->body, true) &&
           bind_body(b, &node->more, true) && bind_body(b, &node->orelse, true);
}

static bool bind_macro(binder *b, lcj_node *node) {
    name *n = intern(b, node->name);
    if (!n || !bind_function(b, node)) return false;
    node->ref = ref_to(b, n->top);
    return true;
}

/* soft: inside an {% if %} of this frame. */
static bool bind_body(binder *b, lcj_nodes *body, bool soft) {
    for (uint32_t i = 0; i < body->len; i++) {
        lcj_node *node = body->list[i];
        bool ok = true;
        switch (node->kind) {
        case LCJ_N_OUTPUT: ok = bind_output(b, node, soft); break;
        case LCJ_N_IF: ok = bind_if(b, node); break;
        case LCJ_N_FOR: ok = bind_for(b, node, soft); break;
        case LCJ_N_SET: ok = bind_expr(b, node->b, soft) && bind_expr(b, node->a, soft); break;
        case LCJ_N_SETBLOCK: ok = bind_setblock(b, node, soft); break;
        case LCJ_N_MACRO: ok = bind_macro(b, node); break;
        case LCJ_N_CALLBLOCK: ok = bind_function(b, node) && bind_expr(b, node->a, soft); break;
        case LCJ_N_FILTERBLOCK: ok = bind_filterblock(b, node); break;
        case LCJ_N_WITH: ok = bind_with(b, node, soft); break;
        case LCJ_N_SCOPE: ok = bind_scope(b, node); break;
        default: break;
        }
        if (!ok) return false;
    }
    return true;
}

bool lcj_scope_template(lcj_comp *comp) {
    binder b = {.comp = comp};
    lc_jinja *tmpl = comp->tmpl;
    b.buckets = lcj_comp_alloc(comp, BUCKETS * sizeof *b.buckets);
    tmpl->root.func = lcj_comp_alloc(comp, sizeof *tmpl->root.func);
    if (!b.buckets || !tmpl->root.func || !enter_frame(&b, tmpl->root.func)) return false;
    return analyse_body(&b, &tmpl->body) && bind_body(&b, &tmpl->body, false) &&
           leave_frame(&b, &tmpl->root.frame);
}
