/*
 * jinja_expr.c: the expression parser, by recursive descent. Precedence is the reference's: unary
 * minus binds tighter than **, which goes from left to right; "~" stands between + and *; filters
 * bind to the operand before them.
 */
#include "text/jinja/jinja_internal.h"

enum { MAX_PARAMS = 255 };

static lcj_node *parse_condexpr(lcj_comp *comp);
static lcj_node *parse_or(lcj_comp *comp);
static lcj_node *parse_unary(lcj_comp *comp, bool with_filter);
static lcj_node *parse_primary(lcj_comp *comp, bool with_namespace);

static lcj_node *fail_unexpected(lcj_comp *comp) {
    lcj_unexpected(comp);
    return NULL;
}

static lcj_node *unary_node(lcj_comp *comp, lcj_kind kind, uint32_t line, lcj_node *a) {
    lcj_node *node = a ? lcj_node_new(comp, kind, line) : NULL;
    if (!node) return NULL;
    node->a = a;
    return lcj_node_deepen(comp, node, a) ? node : NULL;
}

static lcj_node *binary_node(lcj_comp *comp, lcj_kind kind, lcj_node *a, lcj_node *b) {
    lcj_node *node = b ? unary_node(comp, kind, a->line, a) : NULL;
    if (!node) return NULL;
    node->b = b;
    return lcj_node_deepen(comp, node, b) ? node : NULL;
}

static bool add_item(lcj_comp *comp, lcj_node *node, lcj_nodes *list, lcj_node *item) {
    return lcj_nodes_push(comp, list, item) && lcj_node_deepen(comp, node, item);
}

/* ---- arguments ---- */

static bool add_kwarg(lcj_comp *comp, lcj_node *node, lcj_args *args) {
    lcj_str key = comp->tok.text;
    for (uint32_t i = 0; i < args->n_kw && args->n_kw <= MAX_PARAMS; i++)
        if (lcj_str_eq(args->kw[i].key, key))
            return lcj_comp_fail(comp, LC_JINJA_SYNTAX, comp->tok.line,
                                 "keyword argument repeated: %.*s", (int)key.len, key.s);
    if (!lcj_advance(comp) || !lcj_advance(comp)) return false;
    lcj_node *value = lcj_parse_expression(comp);
    if (!value || !lcj_node_deepen(comp, node, value)) return false;
    if (!(args->n_kw & (args->n_kw + 1))) { /* full at 0, 1, 3, 7: room for 1, 3, 7, 15 */
        lcj_kwnode *grown = lcj_comp_alloc(comp, (2 * (size_t)args->n_kw + 1) * sizeof *grown);
        if (!grown) return false;
        if (args->n_kw) memcpy(grown, args->kw, args->n_kw * sizeof *grown);
        args->kw = grown;
    }
    args->kw[args->n_kw++] = (lcj_kwnode){key, value};
    return true;
}

static bool parse_arg(lcj_comp *comp, lcj_node *node, lcj_args *args, lcj_nodes *pos) {
    lcj_token next = {0};
    uint32_t line = comp->tok.line;
    bool ok = true;
    if (lcj_is_op(comp, '*')) {
        ok = !args->star && !args->star2;
        if (ok && (!lcj_advance(comp) || !(args->star = lcj_parse_expression(comp)) ||
                   !lcj_node_deepen(comp, node, args->star)))
            return false;
    } else if (lcj_is_op(comp, LCJ_OP2('*', '*'))) {
        ok = !args->star2;
        if (ok && (!lcj_advance(comp) || !(args->star2 = lcj_parse_expression(comp)) ||
                   !lcj_node_deepen(comp, node, args->star2)))
            return false;
    } else {
        if (comp->tok.type == LCJ_T_NAME && !lcj_peek(comp, &next)) return false;
        if (next.type == LCJ_T_OP && next.op == '=') {
            ok = !args->star2;
            if (ok && !add_kwarg(comp, node, args)) return false;
        } else {
            ok = !args->star && !args->star2 && !args->n_kw;
            if (ok && !add_item(comp, node, pos, lcj_parse_expression(comp))) return false;
        }
    }
    return ok || lcj_comp_fail(comp, LC_JINJA_SYNTAX, line,
                               "invalid syntax for function call expression");
}

static bool parse_args(lcj_comp *comp, lcj_node *node) {
    lcj_nodes pos = {0};
    lcj_args *args = lcj_comp_alloc(comp, sizeof *args);
    if (!args || !lcj_expect_op(comp, '(')) return false;
    for (bool first = true; !lcj_is_op(comp, ')'); first = false) {
        if (!first) {
            if (!lcj_expect_op(comp, ',')) return false;
            if (lcj_is_op(comp, ')')) break;
        }
        if (!parse_arg(comp, node, args, &pos)) return false;
    }
    args->pos = pos.list;
    args->n_pos = pos.len;
    node->args = args;
    return lcj_expect_op(comp, ')');
}

lcj_node *lcj_parse_plain_name(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_NAME, comp->tok.line);
    static const char *const reserved[] = {"true", "false", "none", "True", "False", "None"};
    if (!node) return NULL;
    if (comp->tok.type != LCJ_T_NAME) return fail_unexpected(comp);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (lcj_is_name(comp, reserved[i])) {
            lcj_comp_fail(comp, LC_JINJA_SYNTAX, comp->tok.line, "can't assign to '%s'",
                          reserved[i]);
            return NULL;
        }
    node->name = comp->tok.text;
    return lcj_advance(comp) ? node : NULL;
}

bool lcj_parse_signature(lcj_comp *comp, lcj_node *node) {
    if (!lcj_expect_op(comp, '(')) return false;
    while (!lcj_is_op(comp, ')')) {
        if (node->items.len && !lcj_expect_op(comp, ',')) return false;
        lcj_node *param = lcj_parse_plain_name(comp);
        if (!param) return false;
        param->op = LCJ_PARAM;
        for (uint32_t i = 0; i < node->items.len; i++)
            if (lcj_str_eq(node->items.list[i]->name, param->name))
                return lcj_comp_fail(comp, LC_JINJA_SYNTAX, param->line,
                                     "duplicate argument '%.*s'", (int)param->name.len,
                                     param->name.s);
        if (node->items.len == MAX_PARAMS)
            return lcj_comp_fail(comp, LC_JINJA_LIMIT, param->line,
                                 "more than the limit of %d parameters", MAX_PARAMS);
        if (lcj_is_op(comp, '=')) {
            if (!lcj_advance(comp) ||
                !lcj_nodes_push(comp, &node->more, lcj_parse_expression(comp)))
                return false;
        } else if (node->more.len) {
            return lcj_comp_fail(comp, LC_JINJA_SYNTAX, param->line,
                                 "non-default argument follows default argument");
        }
        if (!lcj_nodes_push(comp, &node->items, param)) return false;
    }
    return lcj_advance(comp);
}

/* ---- postfix ---- */

static lcj_node *parse_slice_part(lcj_comp *comp) {
    lcj_node *node;
    lcj_node *from = NULL;
    uint32_t line = comp->tok.line;
    if (!lcj_is_op(comp, ':')) {
        from = lcj_parse_expression(comp);
        if (!from || !lcj_is_op(comp, ':')) return from;
    }
    node = lcj_node_new(comp, LCJ_N_SLICE, line);
    if (!node || !lcj_advance(comp)) return NULL;
    node->a = from;
    if (!lcj_is_op(comp, ':') && !lcj_is_op(comp, ']') && !lcj_is_op(comp, ',') &&
        !(node->b = lcj_parse_expression(comp)))
        return NULL;
    if (lcj_is_op(comp, ':')) {
        if (!lcj_advance(comp)) return NULL;
        if (!lcj_is_op(comp, ']') && !lcj_is_op(comp, ',') &&
            !(node->c = lcj_parse_expression(comp)))
            return NULL;
    }
    bool ok = lcj_node_deepen(comp, node, node->a) && lcj_node_deepen(comp, node, node->b) &&
              lcj_node_deepen(comp, node, node->c);
    return ok ? node : NULL;
}

static lcj_node *parse_subscript(lcj_comp *comp, lcj_node *obj) {
    lcj_node *node = unary_node(comp, LCJ_N_GETITEM, comp->tok.line, obj);
    lcj_nodes parts = {0};
    if (!node || !lcj_advance(comp)) return NULL;
    while (!lcj_is_op(comp, ']')) {
        if (parts.len && !lcj_expect_op(comp, ',')) return NULL;
        if (!lcj_nodes_push(comp, &parts, parse_slice_part(comp))) return NULL;
    }
    if (!lcj_advance(comp)) return NULL;
    if (parts.len == 1) {
        node->b = parts.list[0];
        return lcj_node_deepen(comp, node, node->b) ? node : NULL;
    }
    lcj_node *tuple = lcj_node_new(comp, LCJ_N_TUPLE, node->line);
    if (!tuple) return NULL;
    tuple->items = parts;
    for (uint32_t i = 0; i < parts.len; i++) {
        if (parts.list[i]->kind == LCJ_N_SLICE) {
            lcj_comp_fail(comp, LC_JINJA_SYNTAX, node->line, "a slice in a tuple");
            return NULL;
        }
        if (!lcj_node_deepen(comp, tuple, parts.list[i])) return NULL;
    }
    node->b = tuple;
    return lcj_node_deepen(comp, node, tuple) ? node : NULL;
}

static lcj_node *parse_dot(lcj_comp *comp, lcj_node *obj) {
    lcj_node *node = unary_node(comp, LCJ_N_GETATTR, comp->tok.line, obj);
    if (!node || !lcj_advance(comp)) return NULL;
    if (comp->tok.type == LCJ_T_NAME) {
        node->name = comp->tok.text;
    } else if (comp->tok.type == LCJ_T_INTEGER) {
        node->kind = LCJ_N_GETITEM;
        node->b = lcj_node_new(comp, LCJ_N_CONST, comp->tok.line);
        if (!node->b) return NULL;
        node->b->value = comp->tok.value;
    } else {
        lcj_comp_fail(comp, LC_JINJA_SYNTAX, comp->tok.line, "expected name or number");
        return NULL;
    }
    return lcj_advance(comp) ? node : NULL;
}

static lcj_node *parse_call(lcj_comp *comp, lcj_node *callee) {
    lcj_node *node = unary_node(comp, LCJ_N_CALL, comp->tok.line, callee);
    return node && parse_args(comp, node) ? node : NULL;
}

static lcj_node *parse_postfix(lcj_comp *comp, lcj_node *node) {
    while (node) {
        if (lcj_is_op(comp, '.'))
            node = parse_dot(comp, node);
        else if (lcj_is_op(comp, '['))
            node = parse_subscript(comp, node);
        else if (lcj_is_op(comp, '('))
            node = parse_call(comp, node);
        else
            break;
    }
    return node;
}

/* A name with dots; the last token is left behind. */
static bool parse_dotted(lcj_comp *comp, lcj_str *out) {
    if (comp->tok.type != LCJ_T_NAME) return lcj_unexpected(comp);
    *out = comp->tok.text;
    if (!lcj_advance(comp)) return false;
    while (lcj_is_op(comp, '.')) {
        if (!lcj_advance(comp)) return false;
        if (comp->tok.type != LCJ_T_NAME) return lcj_unexpected(comp);
        /* no filter or test has a dot in its name: the text from first to last will do */
        out->len = (uint32_t)(comp->tok.text.s + comp->tok.text.len - out->s);
        if (!lcj_advance(comp)) return false;
    }
    return true;
}

lcj_node *lcj_parse_filters(lcj_comp *comp, lcj_node *value, bool start_inline) {
    while (start_inline || lcj_is_op(comp, '|')) {
        if (!start_inline && !lcj_advance(comp)) return NULL;
        start_inline = false;
        lcj_node *node = lcj_node_new(comp, LCJ_N_FILTER, comp->tok.line);
        if (!node || !parse_dotted(comp, &node->name)) return NULL;
        node->a = value;
        node->def = lcj_find_filter(node->name);
        if (!lcj_node_deepen(comp, node, value)) return NULL;
        if (lcj_is_op(comp, '(') && !parse_args(comp, node)) return NULL;
        value = node;
    }
    return value;
}

static bool starts_operand(const lcj_comp *comp) {
    switch (comp->tok.type) {
    case LCJ_T_NAME:
        return !lcj_is_name(comp, "else") && !lcj_is_name(comp, "or") && !lcj_is_name(comp, "and");
    case LCJ_T_STRING:
    case LCJ_T_INTEGER:
    case LCJ_T_FLOAT: return true;
    default: return lcj_is_op(comp, '[') || lcj_is_op(comp, '{');
    }
}

static lcj_node *parse_test(lcj_comp *comp, lcj_node *value) {
    lcj_node *node = unary_node(comp, LCJ_N_TEST, comp->tok.line, value);
    if (!node || !lcj_advance(comp)) return NULL;
    bool negated = lcj_is_name(comp, "not");
    if ((negated && !lcj_advance(comp)) || !parse_dotted(comp, &node->name)) return NULL;
    node->def = lcj_find_test(node->name);
    if (lcj_is_op(comp, '(')) {
        if (!parse_args(comp, node)) return NULL;
    } else if (starts_operand(comp)) {
        lcj_nodes pos = {0};
        if (lcj_is_name(comp, "is")) {
            lcj_comp_fail(comp, LC_JINJA_SYNTAX, comp->tok.line,
                          "You cannot chain multiple tests with is");
            return NULL;
        }
        lcj_node *arg = parse_primary(comp, false);
        node->args = lcj_comp_alloc(comp, sizeof *node->args);
        if (!node->args || !add_item(comp, node, &pos, parse_postfix(comp, arg))) return NULL;
        node->args->pos = pos.list;
        node->args->n_pos = 1;
    }
    return negated ? unary_node(comp, LCJ_N_NOT, node->line, node) : node;
}

static lcj_node *parse_filter_expr(lcj_comp *comp, lcj_node *node) {
    while (node) {
        if (lcj_is_op(comp, '|'))
            node = lcj_parse_filters(comp, node, false);
        else if (lcj_is_name(comp, "is"))
            node = parse_test(comp, node);
        else if (lcj_is_op(comp, '('))
            node = parse_call(comp, node);
        else
            break;
    }
    return node;
}

/* ---- operands ---- */

static lcj_node *parse_strings(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_CONST, comp->tok.line);
    lcj_str all = comp->tok.text;
    size_t cap = 0;
    char *joined = NULL;
    if (!node || !lcj_advance(comp)) return NULL;
    while (comp->tok.type == LCJ_T_STRING) {
        lcj_str part = comp->tok.text;
        size_t len = (size_t)all.len + part.len;
        if (len > cap) {
            cap = 2 * len;
            char *grown = lcj_comp_alloc(comp, cap);
            if (!grown) return NULL;
            memcpy(grown, all.s, all.len);
            joined = grown;
        }
        if (joined) {
            memcpy(joined + all.len, part.s, part.len);
            all = (lcj_str){joined, (uint32_t)len};
        }
        if (!lcj_advance(comp)) return NULL;
    }
    node->value = lcj_text(all);
    return lcj_keep_literal(comp, all) ? node : NULL;
}

static lcj_node *parse_list(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_LIST, comp->tok.line);
    if (!node || !lcj_advance(comp)) return NULL;
    while (!lcj_is_op(comp, ']')) {
        if (node->items.len && !lcj_expect_op(comp, ',')) return NULL;
        if (lcj_is_op(comp, ']')) break;
        if (!add_item(comp, node, &node->items, lcj_parse_expression(comp))) return NULL;
    }
    return lcj_advance(comp) ? node : NULL;
}

static lcj_node *parse_dict(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_DICT, comp->tok.line);
    if (!node || !lcj_advance(comp)) return NULL;
    while (!lcj_is_op(comp, '}')) {
        if (node->items.len && !lcj_expect_op(comp, ',')) return NULL;
        if (lcj_is_op(comp, '}')) break;
        if (!add_item(comp, node, &node->items, lcj_parse_expression(comp)) ||
            !lcj_expect_op(comp, ':') ||
            !add_item(comp, node, &node->more, lcj_parse_expression(comp)))
            return NULL;
    }
    return lcj_advance(comp) ? node : NULL;
}

static lcj_node *parse_name(lcj_comp *comp, bool with_namespace) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_CONST, comp->tok.line);
    if (!node) return NULL;
    if (lcj_is_name(comp, "true") || lcj_is_name(comp, "True")) {
        node->value = lcj_bool(true);
    } else if (lcj_is_name(comp, "false") || lcj_is_name(comp, "False")) {
        node->value = lcj_bool(false);
    } else if (lcj_is_name(comp, "none") || lcj_is_name(comp, "None")) {
        node->value = lcj_none();
    } else {
        node->kind = LCJ_N_NAME;
        node->name = comp->tok.text;
    }
    if (!lcj_advance(comp)) return NULL;
    if (node->kind != LCJ_N_NAME || !with_namespace || !lcj_is_op(comp, '.')) return node;
    node->kind = LCJ_N_NSREF;
    if (!lcj_advance(comp)) return NULL;
    if (comp->tok.type != LCJ_T_NAME) return fail_unexpected(comp);
    node->value = lcj_text(comp->tok.text);
    return lcj_advance(comp) ? node : NULL;
}

static lcj_node *parse_primary(lcj_comp *comp, bool with_namespace) {
    lcj_node *node;
    switch (comp->tok.type) {
    case LCJ_T_NAME: return parse_name(comp, with_namespace);
    case LCJ_T_STRING: return parse_strings(comp);
    case LCJ_T_INTEGER:
    case LCJ_T_FLOAT:
        node = lcj_node_new(comp, LCJ_N_CONST, comp->tok.line);
        if (!node) return NULL;
        node->value = comp->tok.value;
        return lcj_advance(comp) ? node : NULL;
    default: break;
    }
    if (lcj_is_op(comp, '(')) {
        if (!lcj_advance(comp)) return NULL;
        node = lcj_parse_tuple(comp, LCJ_TUPLE_PAREN);
        return node && lcj_expect_op(comp, ')') ? node : NULL;
    }
    if (lcj_is_op(comp, '[')) return parse_list(comp);
    if (lcj_is_op(comp, '{')) return parse_dict(comp);
    return fail_unexpected(comp);
}

/* ---- operators ---- */

static lcj_node *parse_unary(lcj_comp *comp, bool with_filter) {
    lcj_node *node;
    uint32_t line = comp->tok.line;
    if (lcj_is_op(comp, '-') || lcj_is_op(comp, '+')) {
        uint8_t op = (uint8_t)comp->tok.op;
        if (!lcj_advance(comp) || !lcj_enter(comp)) return NULL;
        node = unary_node(comp, LCJ_N_UNARY, line, parse_unary(comp, false));
        comp->nest--;
        if (node) node->op = op;
    } else {
        node = parse_primary(comp, false);
    }
    node = parse_postfix(comp, node);
    return with_filter ? parse_filter_expr(comp, node) : node;
}

static lcj_node *parse_pow(lcj_comp *comp) {
    lcj_node *left = parse_unary(comp, true);
    while (left && lcj_is_op(comp, LCJ_OP2('*', '*'))) {
        if (!lcj_advance(comp)) return NULL;
        left = binary_node(comp, LCJ_N_BINARY, left, parse_unary(comp, true));
        if (left) left->op = LCJ_POW;
    }
    return left;
}

static lcj_node *parse_product(lcj_comp *comp) {
    lcj_node *left = parse_pow(comp);
    while (left && comp->tok.type == LCJ_T_OP) {
        uint8_t op;
        switch (comp->tok.op) {
        case '*': op = LCJ_MUL; break;
        case '/': op = LCJ_DIV; break;
        case LCJ_OP2('/', '/'): op = LCJ_FLOORDIV; break;
        case '%': op = LCJ_MOD; break;
        default: return left;
        }
        if (!lcj_advance(comp)) return NULL;
        left = binary_node(comp, LCJ_N_BINARY, left, parse_pow(comp));
        if (left) left->op = op;
    }
    return left;
}

static lcj_node *parse_concat(lcj_comp *comp) {
    lcj_node *first = parse_product(comp);
    if (!first || !lcj_is_op(comp, '~')) return first;
    lcj_node *node = lcj_node_new(comp, LCJ_N_CONCAT, first->line);
    if (!node || !add_item(comp, node, &node->items, first)) return NULL;
    while (lcj_is_op(comp, '~'))
        if (!lcj_advance(comp) || !add_item(comp, node, &node->items, parse_product(comp)))
            return NULL;
    return node;
}

static lcj_node *parse_sum(lcj_comp *comp) {
    lcj_node *left = parse_concat(comp);
    while (left && (lcj_is_op(comp, '+') || lcj_is_op(comp, '-'))) {
        uint8_t op = lcj_is_op(comp, '+') ? LCJ_ADD : LCJ_SUB;
        if (!lcj_advance(comp)) return NULL;
        left = binary_node(comp, LCJ_N_BINARY, left, parse_concat(comp));
        if (left) left->op = op;
    }
    return left;
}

/* The comparison at the current token, which is left behind; *found false where there is none. */
static bool comparison(lcj_comp *comp, uint8_t *op, bool *found) {
    lcj_token next = {0};
    *found = true;
    if (lcj_is_name(comp, "in")) {
        *op = LCJ_IN;
        return lcj_advance(comp);
    }
    if (lcj_is_name(comp, "not")) {
        if (!lcj_peek(comp, &next)) return false;
        *op = LCJ_NOTIN;
        *found = next.type == LCJ_T_NAME && lcj_str_eq(next.text, LCJ_STR("in"));
        return !*found || (lcj_advance(comp) && lcj_advance(comp));
    }
    switch (comp->tok.type == LCJ_T_OP ? comp->tok.op : 0) {
    case LCJ_OP2('=', '='): *op = LCJ_EQ; break;
    case LCJ_OP2('!', '='): *op = LCJ_NE; break;
    case LCJ_OP2('<', '='): *op = LCJ_LE; break;
    case LCJ_OP2('>', '='): *op = LCJ_GE; break;
    case '<': *op = LCJ_LT; break;
    case '>': *op = LCJ_GT; break;
    default: *found = false; return true;
    }
    return lcj_advance(comp);
}

static lcj_node *parse_compare(lcj_comp *comp) {
    lcj_node *first = parse_sum(comp), *node = NULL;
    uint8_t op;
    bool found;
    while (first) {
        if (!comparison(comp, &op, &found)) return NULL;
        if (!found) return node ? node : first;
        if (!node && !(node = unary_node(comp, LCJ_N_COMPARE, first->line, first))) return NULL;
        lcj_node *operand = unary_node(comp, LCJ_N_OPERAND, comp->tok.line, parse_sum(comp));
        if (!operand || !add_item(comp, node, &node->items, operand)) return NULL;
        operand->op = op;
    }
    return NULL;
}

static lcj_node *parse_not(lcj_comp *comp) {
    uint32_t line = comp->tok.line;
    if (!lcj_is_name(comp, "not")) return parse_compare(comp);
    if (!lcj_advance(comp) || !lcj_enter(comp)) return NULL;
    lcj_node *node = unary_node(comp, LCJ_N_NOT, line, parse_not(comp));
    comp->nest--;
    return node;
}

static lcj_node *parse_and(lcj_comp *comp) {
    lcj_node *left = parse_not(comp);
    while (left && lcj_is_name(comp, "and")) {
        if (!lcj_advance(comp)) return NULL;
        left = binary_node(comp, LCJ_N_AND, left, parse_not(comp));
    }
    return left;
}

static lcj_node *parse_or(lcj_comp *comp) {
    if (!lcj_enter(comp)) return NULL;
    lcj_node *left = parse_and(comp);
    while (left && lcj_is_name(comp, "or")) {
        if (!lcj_advance(comp)) break;
        left = binary_node(comp, LCJ_N_OR, left, parse_and(comp));
    }
    comp->nest--;
    return comp->fault->kind == LC_JINJA_NONE ? left : NULL;
}

static lcj_node *parse_condexpr(lcj_comp *comp) {
    lcj_node *value = parse_or(comp);
    while (value && lcj_is_name(comp, "if")) {
        if (!lcj_advance(comp)) return NULL;
        lcj_node *test = parse_or(comp);
        if (!test) return NULL;
        lcj_node *node = binary_node(comp, LCJ_N_COND, test, value);
        if (!node) return NULL;
        if (lcj_is_name(comp, "else")) {
            if (!lcj_advance(comp) || !lcj_enter(comp)) return NULL;
            node->c = parse_condexpr(comp);
            comp->nest--;
            if (!node->c || !lcj_node_deepen(comp, node, node->c)) return NULL;
        }
        value = node;
    }
    return value;
}

lcj_node *lcj_parse_expression(lcj_comp *comp) { return parse_condexpr(comp); }

static bool ends_tuple(const lcj_comp *comp) {
    return comp->tok.type == LCJ_T_VAR_END || comp->tok.type == LCJ_T_BLOCK_END ||
           lcj_is_op(comp, ')');
}

static lcj_node *tuple_item(lcj_comp *comp, lcj_tuple_mode mode) {
    switch (mode) {
    case LCJ_TUPLE_NOCOND: return parse_or(comp);
    case LCJ_TUPLE_TARGET: return parse_primary(comp, false);
    case LCJ_TUPLE_TARGET_NS: return parse_primary(comp, true);
    default: return parse_condexpr(comp);
    }
}

lcj_node *lcj_parse_tuple(lcj_comp *comp, lcj_tuple_mode mode) {
    lcj_node *tuple = lcj_node_new(comp, LCJ_N_TUPLE, comp->tok.line);
    bool is_tuple = false;
    if (!tuple) return NULL;
    for (;;) {
        if (tuple->items.len && !lcj_expect_op(comp, ',')) return NULL;
        if (ends_tuple(comp)) break;
        if (!add_item(comp, tuple, &tuple->items, tuple_item(comp, mode))) return NULL;
        if (!lcj_is_op(comp, ',')) break;
        is_tuple = true;
    }
    if (is_tuple) return tuple;
    if (tuple->items.len) return tuple->items.list[0];
    return mode == LCJ_TUPLE_PAREN ? tuple : fail_unexpected(comp);
}

static bool set_store(lcj_comp *comp, lcj_node *target) {
    if (target->kind == LCJ_N_NSREF) return true;
    if (target->kind == LCJ_N_NAME) {
        target->op = LCJ_STORE;
        return true;
    }
    if (target->kind != LCJ_N_TUPLE)
        return lcj_comp_fail(comp, LC_JINJA_SYNTAX, target->line, "can't assign to an expression");
    for (uint32_t i = 0; i < target->items.len; i++)
        if (!set_store(comp, target->items.list[i])) return false;
    return true;
}

lcj_node *lcj_parse_target(lcj_comp *comp, bool with_namespace) {
    lcj_node *target =
        lcj_parse_tuple(comp, with_namespace ? LCJ_TUPLE_TARGET_NS : LCJ_TUPLE_TARGET);
    return target && set_store(comp, target) ? target : NULL;
}
