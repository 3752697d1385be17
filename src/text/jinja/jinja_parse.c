/*
 * jinja_parse.c: tokens to statements, and what both parsers share: the token stream, node lists,
 * the limit on nesting. Expressions are in jinja_expr.c.
 *
 * Statements that load other templates, {% block %} and {% autoescape true %} are read and become
 * an error when they are reached.
 */
#include "text/jinja/jinja_internal.h"

/* ---- shared ---- */

bool lcj_advance(lcj_comp *comp) {
    if (comp->has_ahead) {
        comp->tok = comp->ahead;
        comp->has_ahead = false;
        return true;
    }
    return lcj_lex_next(comp, &comp->tok);
}

bool lcj_peek(lcj_comp *comp, lcj_token *out) {
    if (!comp->has_ahead && !lcj_lex_next(comp, &comp->ahead)) return false;
    comp->has_ahead = true;
    *out = comp->ahead;
    return true;
}

bool lcj_is_op(const lcj_comp *comp, uint16_t op) {
    return comp->tok.type == LCJ_T_OP && comp->tok.op == op;
}

static bool token_is(const lcj_token *tok, const char *name) {
    return tok->type == LCJ_T_NAME && strlen(name) == tok->text.len &&
           !memcmp(name, tok->text.s, tok->text.len);
}

bool lcj_is_name(const lcj_comp *comp, const char *name) { return token_is(&comp->tok, name); }

bool lcj_unexpected(lcj_comp *comp) {
    const lcj_token *tok = &comp->tok;
    static const char *const names[] = {"end of template",          "template data",
                                        "begin of print statement", "end of print statement",
                                        "begin of statement block", "end of statement block"};
    int len = tok->text.len > 80 ? 80 : (int)tok->text.len;
    if (tok->type <= LCJ_T_BLOCK_END)
        return lcj_comp_fail(comp, LC_JINJA_SYNTAX, tok->line, "unexpected %s", names[tok->type]);
    if (tok->type == LCJ_T_OP)
        return lcj_comp_fail(comp, LC_JINJA_SYNTAX, tok->line, "unexpected '%s%c'",
                             tok->op > 255 ? (char[]){(char)(tok->op >> 8), 0} : "",
                             (char)(tok->op & 255));
    if (tok->type == LCJ_T_INTEGER || tok->type == LCJ_T_FLOAT)
        return lcj_comp_fail(comp, LC_JINJA_SYNTAX, tok->line, "unexpected number");
    return lcj_comp_fail(comp, LC_JINJA_SYNTAX, tok->line, "unexpected %s '%.*s'",
                         tok->type == LCJ_T_NAME ? "name" : "string", len, tok->text.s);
}

bool lcj_expect_op(lcj_comp *comp, uint16_t op) {
    return lcj_is_op(comp, op) ? lcj_advance(comp) : lcj_unexpected(comp);
}

static bool expect_name(lcj_comp *comp, const char *name) {
    return lcj_is_name(comp, name) ? lcj_advance(comp) : lcj_unexpected(comp);
}

bool lcj_enter(lcj_comp *comp) {
    if (comp->nest >= LCJ_NEST)
        return lcj_comp_fail(comp, LC_JINJA_LIMIT, comp->tok.line,
                             "the template is nested deeper than the limit of %d levels", LCJ_NEST);
    comp->nest++;
    return true;
}

lcj_node *lcj_node_new(lcj_comp *comp, lcj_kind kind, uint32_t line) {
    lcj_node *node = lcj_comp_alloc(comp, sizeof *node);
    if (!node) return NULL;
    node->kind = (uint8_t)kind;
    node->line = line;
    node->depth = 1;
    return node;
}

/* Lists double; their capacity is the power of two that holds them. */
bool lcj_nodes_push(lcj_comp *comp, lcj_nodes *list, lcj_node *node) {
    if (!node) return false;
    if (!(list->len & (list->len - 1)) && (list->len == 0 || list->len >= 4)) {
        uint32_t cap = list->len ? list->len * 2 : 4;
        lcj_node **grown = lcj_comp_alloc(comp, cap * sizeof *grown);
        if (!grown) return false;
        if (list->len) memcpy(grown, list->list, list->len * sizeof *grown);
        list->list = grown;
    }
    list->list[list->len++] = node;
    return true;
}

bool lcj_node_deepen(lcj_comp *comp, lcj_node *node, const lcj_node *child) {
    if (!child || child->depth < node->depth) return true;
    if (child->depth >= LCJ_NEST)
        return lcj_comp_fail(comp, LC_JINJA_LIMIT, node->line,
                             "an expression is deeper than the limit of %d levels", LCJ_NEST);
    node->depth = (uint16_t)(child->depth + 1);
    return true;
}

bool lcj_keep_literal(lcj_comp *comp, lcj_str text) {
    lc_buf *out = &comp->tmpl->literals;
    if (lc_buf_append(out, text.s, text.len) && lc_buf_putc(out, 0)) return true;
    return lcj_comp_fail(comp, LC_JINJA_MEMORY, 0, "out of memory");
}

/* ---- statements ---- */

static bool subparse(lcj_comp *comp, lcj_nodes *body, const char *const *ends);

static bool at_end_tag(const lcj_comp *comp, const char *const *ends) {
    for (; ends && *ends; ends++)
        if (lcj_is_name(comp, *ends)) return true;
    return false;
}

/* The rest of the opening tag, then statements up to one of the tags `ends`, whose name is then the
 * current token. */
static bool parse_body(lcj_comp *comp, lcj_nodes *body, const char *const *ends) {
    if (lcj_is_op(comp, ':') && !lcj_advance(comp)) return false;
    if (comp->tok.type != LCJ_T_BLOCK_END) return lcj_unexpected(comp);
    if (comp->blocks >= LCJ_BLOCKS)
        return lcj_comp_fail(comp, LC_JINJA_LIMIT, comp->tok.line,
                             "more than the limit of %d statements inside statements", LCJ_BLOCKS);
    if (!lcj_advance(comp)) return false;
    comp->blocks++;
    bool ok = subparse(comp, body, ends);
    comp->blocks--;
    if (ok && comp->tok.type == LCJ_T_EOF)
        return lcj_comp_fail(comp, LC_JINJA_SYNTAX, comp->tok.line,
                             "Unexpected end of template: '%s' is missing", ends[0]);
    return ok;
}

static bool parse_body_to(lcj_comp *comp, lcj_nodes *body, const char *end) {
    const char *const ends[] = {end, NULL};
    return parse_body(comp, body, ends) && lcj_advance(comp);
}

static bool new_scope(lcj_comp *comp, lcj_node *node) {
    node->scope = lcj_comp_alloc(comp, sizeof *node->scope);
    return node->scope != NULL;
}

static lcj_node *parse_for(lcj_comp *comp) {
    static const char *const ends[] = {"endfor", "else", NULL};
    lcj_node *node = lcj_node_new(comp, LCJ_N_FOR, comp->tok.line);
    if (!node || !new_scope(comp, node) || !lcj_advance(comp)) return NULL;
    node->a = lcj_parse_target(comp, false);
    if (!node->a || !expect_name(comp, "in")) return NULL;
    node->b = lcj_parse_tuple(comp, LCJ_TUPLE_NOCOND);
    if (!node->b) return NULL;
    if (lcj_is_name(comp, "if")) {
        if (!lcj_advance(comp) || !(node->c = lcj_parse_expression(comp))) return NULL;
    }
    if (lcj_is_name(comp, "recursive")) {
        node->scope->func = lcj_comp_alloc(comp, sizeof *node->scope->func);
        if (!node->scope->func || !lcj_advance(comp)) return NULL;
    }
    comp->loops++;
    bool ok = parse_body(comp, &node->body, ends);
    comp->loops--;
    if (!ok) return NULL;
    bool has_else = lcj_is_name(comp, "else");
    if (!lcj_advance(comp)) return NULL;
    uint32_t loops = comp->loops;
    if (node->scope->func) comp->loops = 0; /* a function: loops around are not its own */
    ok = !has_else || parse_body_to(comp, &node->orelse, "endfor");
    comp->loops = loops;
    return ok ? node : NULL;
}

static lcj_node *parse_if(lcj_comp *comp) {
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    lcj_node *result = lcj_node_new(comp, LCJ_N_IF, comp->tok.line), *node = result;
    if (!node || !lcj_advance(comp)) return NULL;
    for (;;) {
        node->a = lcj_parse_tuple(comp, LCJ_TUPLE_NOCOND);
        if (!node->a || !parse_body(comp, &node->body, ends)) return NULL;
        bool is_elif = lcj_is_name(comp, "elif"), is_else = lcj_is_name(comp, "else");
        uint32_t line = comp->tok.line;
        if (!lcj_advance(comp)) return NULL;
        if (is_elif) {
            node = lcj_node_new(comp, LCJ_N_IF, line);
            if (!lcj_nodes_push(comp, &result->more, node)) return NULL;
            continue;
        }
        return !is_else || parse_body_to(comp, &result->orelse, "endif") ? result : NULL;
    }
}

static lcj_node *parse_set(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_SET, comp->tok.line);
    if (!node || !lcj_advance(comp)) return NULL;
    node->a = lcj_parse_target(comp, true);
    if (!node->a) return NULL;
    if (lcj_is_op(comp, '=')) {
        if (!lcj_advance(comp)) return NULL;
        node->b = lcj_parse_tuple(comp, LCJ_TUPLE_FULL);
        return node->b ? node : NULL;
    }
    node->kind = LCJ_N_SETBLOCK;
    if (!new_scope(comp, node)) return NULL;
    if (lcj_is_op(comp, '|') && !(node->b = lcj_parse_filters(comp, NULL, false))) return NULL;
    return parse_body_to(comp, &node->body, "endset") ? node : NULL;
}

/* Macros and call blocks are functions: a loop around them is not theirs. */
static bool parse_function_body(lcj_comp *comp, lcj_node *node, const char *end) {
    uint32_t loops = comp->loops;
    if (!new_scope(comp, node)) return false;
    node->scope->func = lcj_comp_alloc(comp, sizeof *node->scope->func);
    if (!node->scope->func) return false;
    comp->loops = 0;
    bool ok = parse_body_to(comp, &node->body, end);
    comp->loops = loops;
    return ok;
}

static lcj_node *parse_macro(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_MACRO, comp->tok.line);
    if (!node || !lcj_advance(comp)) return NULL;
    lcj_node *name = lcj_parse_plain_name(comp);
    if (!name || !lcj_parse_signature(comp, node)) return NULL;
    node->name = name->name;
    return parse_function_body(comp, node, "endmacro") ? node : NULL;
}

static lcj_node *parse_call_block(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_CALLBLOCK, comp->tok.line);
    if (!node || !lcj_advance(comp)) return NULL;
    if (lcj_is_op(comp, '(') && !lcj_parse_signature(comp, node)) return NULL;
    node->a = lcj_parse_expression(comp);
    if (!node->a) return NULL;
    if (node->a->kind != LCJ_N_CALL) {
        lcj_comp_fail(comp, LC_JINJA_SYNTAX, node->line, "expected call");
        return NULL;
    }
    return parse_function_body(comp, node, "endcall") ? node : NULL;
}

static lcj_node *parse_generation(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_CALLBLOCK, comp->tok.line);
    if (!node || !lcj_advance(comp)) return NULL;
    return parse_function_body(comp, node, "endgeneration") ? node : NULL;
}

static lcj_node *parse_filter_block(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_FILTERBLOCK, comp->tok.line);
    if (!node || !new_scope(comp, node) || !lcj_advance(comp)) return NULL;
    node->b = lcj_parse_filters(comp, NULL, true);
    if (!node->b) return NULL;
    return parse_body_to(comp, &node->body, "endfilter") ? node : NULL;
}

static void set_param(lcj_node *target) {
    target->op = LCJ_PARAM;
    for (uint32_t i = 0; i < target->items.len; i++) set_param(target->items.list[i]);
}

static lcj_node *parse_with(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_WITH, comp->tok.line);
    if (!node || !new_scope(comp, node) || !lcj_advance(comp)) return NULL;
    while (comp->tok.type != LCJ_T_BLOCK_END) {
        if (node->items.len && !lcj_expect_op(comp, ',')) return NULL;
        lcj_node *target = lcj_parse_target(comp, false);
        if (!target) return NULL;
        set_param(target);
        if (!lcj_nodes_push(comp, &node->items, target) || !lcj_expect_op(comp, '=') ||
            !lcj_nodes_push(comp, &node->more, lcj_parse_expression(comp)))
            return NULL;
    }
    return parse_body_to(comp, &node->body, "endwith") ? node : NULL;
}

static lcj_node *parse_print(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_OUTPUT, comp->tok.line);
    if (!node || !lcj_advance(comp)) return NULL;
    while (comp->tok.type != LCJ_T_BLOCK_END) {
        if (node->items.len && !lcj_expect_op(comp, ',')) return NULL;
        if (!lcj_nodes_push(comp, &node->items, lcj_parse_expression(comp))) return NULL;
    }
    return node;
}

static lcj_node *parse_jump(lcj_comp *comp, lcj_kind kind) {
    lcj_node *node = lcj_node_new(comp, kind, comp->tok.line);
    if (!comp->loops) {
        lcj_comp_fail(comp, LC_JINJA_SYNTAX, comp->tok.line, "'%s' outside loop",
                      kind == LCJ_N_BREAK ? "break" : "continue");
        return NULL;
    }
    return node && lcj_advance(comp) ? node : NULL;
}

static lcj_node *parse_autoescape(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_SCOPE, comp->tok.line);
    if (!node || !new_scope(comp, node) || !lcj_advance(comp)) return NULL;
    lcj_node *mode = lcj_parse_expression(comp);
    if (!mode || !parse_body_to(comp, &node->body, "endautoescape")) return NULL;
    if (mode->kind == LCJ_N_CONST && mode->value.type == LCJ_BOOL && !mode->value.u.b) return node;
    node->kind = LCJ_N_UNSUPPORTED;
    node->name = LCJ_STR("{% autoescape true %}");
    return node;
}

/* Reads over a statement that becomes an error when reached. */
static lcj_node *parse_unsupported(lcj_comp *comp, lcj_str what, const char *end) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_UNSUPPORTED, comp->tok.line);
    lcj_nodes body = {0};
    if (!node) return NULL;
    node->name = what;
    bool any = false;
    while (lcj_advance(comp) && comp->tok.type != LCJ_T_BLOCK_END) {
        if (comp->tok.type == LCJ_T_EOF) break;
        any = true;
    }
    if (comp->fault->kind != LC_JINJA_NONE) return NULL;
    if (!any || comp->tok.type == LCJ_T_EOF) {
        lcj_unexpected(comp);
        return NULL;
    }
    if (!end) return node;
    uint32_t loops = comp->loops;
    comp->loops = 0;
    bool ok = parse_body_to(comp, &body, end);
    comp->loops = loops;
    if (ok && comp->tok.type == LCJ_T_NAME) ok = lcj_advance(comp); /* {% endblock name %} */
    return ok ? node : NULL;
}

static lcj_node *parse_statement(lcj_comp *comp) {
    if (comp->tok.type != LCJ_T_NAME) {
        lcj_comp_fail(comp, LC_JINJA_SYNTAX, comp->tok.line, "tag name expected");
        return NULL;
    }
    if (lcj_is_name(comp, "if")) return parse_if(comp);
    if (lcj_is_name(comp, "for")) return parse_for(comp);
    if (lcj_is_name(comp, "set")) return parse_set(comp);
    if (lcj_is_name(comp, "macro")) return parse_macro(comp);
    if (lcj_is_name(comp, "generation")) return parse_generation(comp);
    if (lcj_is_name(comp, "break")) return parse_jump(comp, LCJ_N_BREAK);
    if (lcj_is_name(comp, "continue")) return parse_jump(comp, LCJ_N_CONTINUE);
    if (lcj_is_name(comp, "filter")) return parse_filter_block(comp);
    if (lcj_is_name(comp, "call")) return parse_call_block(comp);
    if (lcj_is_name(comp, "with")) return parse_with(comp);
    if (lcj_is_name(comp, "print")) return parse_print(comp);
    if (lcj_is_name(comp, "autoescape")) return parse_autoescape(comp);
    if (lcj_is_name(comp, "block"))
        return parse_unsupported(comp, LCJ_STR("{% block %}"), "endblock");
    if (lcj_is_name(comp, "include"))
        return parse_unsupported(comp, LCJ_STR("{% include %}"), NULL);
    if (lcj_is_name(comp, "import")) return parse_unsupported(comp, LCJ_STR("{% import %}"), NULL);
    if (lcj_is_name(comp, "from")) return parse_unsupported(comp, LCJ_STR("{% from %}"), NULL);
    if (lcj_is_name(comp, "extends"))
        return parse_unsupported(comp, LCJ_STR("{% extends %}"), NULL);
    lcj_comp_fail(comp, LC_JINJA_SYNTAX, comp->tok.line, "Encountered unknown tag '%.*s'.",
                  comp->tok.text.len > 80 ? 80 : (int)comp->tok.text.len, comp->tok.text.s);
    return NULL;
}

/* Text and {{ }} that follow each other are one output. */
static bool add_output(lcj_comp *comp, lcj_nodes *body, lcj_node **output, lcj_node *item) {
    if (!item) return false;
    if (!*output) {
        *output = lcj_node_new(comp, LCJ_N_OUTPUT, item->line);
        if (!lcj_nodes_push(comp, body, *output)) return false;
    }
    return lcj_nodes_push(comp, &(*output)->items, item);
}

static lcj_node *data_node(lcj_comp *comp) {
    lcj_node *node = lcj_node_new(comp, LCJ_N_CONST, comp->tok.line);
    if (!node || !lcj_keep_literal(comp, comp->tok.text)) return NULL;
    node->value = lcj_text(comp->tok.text);
    return node;
}

static bool subparse(lcj_comp *comp, lcj_nodes *body, const char *const *ends) {
    lcj_node *output = NULL;
    for (;;) {
        switch (comp->tok.type) {
        case LCJ_T_EOF: return true;
        case LCJ_T_DATA:
            if (comp->tok.text.len && !add_output(comp, body, &output, data_node(comp)))
                return false;
            if (!lcj_advance(comp)) return false;
            break;
        case LCJ_T_VAR_BEGIN:
            if (!lcj_advance(comp) ||
                !add_output(comp, body, &output, lcj_parse_tuple(comp, LCJ_TUPLE_FULL)))
                return false;
            if (comp->tok.type != LCJ_T_VAR_END) return lcj_unexpected(comp);
            if (!lcj_advance(comp)) return false;
            break;
        default: /* LCJ_T_BLOCK_BEGIN: the lexer gives nothing else outside of tags */
            output = NULL;
            if (!lcj_advance(comp)) return false;
            if (at_end_tag(comp, ends)) return true;
            if (!lcj_nodes_push(comp, body, parse_statement(comp))) return false;
            if (comp->tok.type != LCJ_T_BLOCK_END) return lcj_unexpected(comp);
            if (!lcj_advance(comp)) return false;
        }
    }
}

bool lcj_parse_template(lcj_comp *comp) {
    return lcj_advance(comp) && subparse(comp, &comp->tmpl->body, NULL);
}
