/*
 * jinja.c: the interpreter's doors: compile and render, the failures they report, the limits they
 * set. The parts behind them are listed in jinja_internal.h.
 */
#include "text/jinja/jinja.h"

#include "text/jinja/jinja_internal.h"

#include <stdarg.h>
#include <stdio.h>

enum {
    MAX_SOURCE = 8 << 20,
    COMPILE_MEMORY = 128 << 20,
    DEFAULT_STEPS = 20000000,
    DEFAULT_MEMORY = 128 << 20,
    DEFAULT_OUTPUT = 32 << 20,
};

/* ---- failures ---- */

const char *lc_jinja_kind_name(lc_jinja_kind kind) {
    switch (kind) {
    case LC_JINJA_SYNTAX: return "syntax";
    case LC_JINJA_UNDEFINED: return "undefined";
    case LC_JINJA_TYPE: return "type";
    case LC_JINJA_VALUE: return "value";
    case LC_JINJA_ZERO_DIVISION: return "zero_division";
    case LC_JINJA_SECURITY: return "security";
    case LC_JINJA_RUNTIME: return "runtime";
    case LC_JINJA_RAISED: return "raised";
    case LC_JINJA_LIMIT: return "limit";
    case LC_JINJA_UNSUPPORTED: return "unsupported";
    case LC_JINJA_MEMORY: return "memory";
    default: return "none";
    }
}

void lc_jinja_fault_free(lc_jinja_fault *fault) {
    lc_buf_free(&fault->message);
    *fault = (lc_jinja_fault){.kind = LC_JINJA_NONE};
}

static int status_of(lc_jinja_kind kind) {
    switch (kind) {
    case LC_JINJA_NONE: return LC_OK;
    case LC_JINJA_SYNTAX: return LC_EFORMAT;
    case LC_JINJA_LIMIT: return LC_ELIMIT;
    case LC_JINJA_UNSUPPORTED: return LC_EUNSUPPORTED;
    case LC_JINJA_MEMORY: return LC_ENOMEM;
    default: return LC_EINVAL;
    }
}

/* Turns a stored failure into an lc_err and a status. */
static int report(const char *name, const lc_jinja_fault *fault, lc_err *err) {
    int code = status_of(fault->kind);
    const char *message = fault->message.data ? fault->message.data : "";
    if (fault->line)
        return lc_fail(err, code, "%s:%u: %s: %s", name, fault->line,
                       lc_jinja_kind_name(fault->kind), message);
    return lc_fail(err, code, "%s: %s: %s", name, lc_jinja_kind_name(fault->kind), message);
}

/* Gives the failure to the caller or frees it. */
static void hand_over(lc_jinja_fault *from, lc_jinja_fault *to) {
    if (!to) {
        lc_jinja_fault_free(from);
        return;
    }
    lc_jinja_fault_free(to);
    *to = *from;
}

bool lcj_comp_fail(lcj_comp *comp, lc_jinja_kind kind, uint32_t line, const char *fmt, ...) {
    if (comp->fault->kind != LC_JINJA_NONE) return false;
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    comp->fault->kind = kind;
    comp->fault->line = line;
    lc_buf_puts(&comp->fault->message, text);
    return false;
}

void *lcj_comp_alloc(lcj_comp *comp, size_t size) {
    void *p = lc_arena_calloc(comp->arena, 1, size);
    if (p) return p;
    if (lc_arena_used(comp->arena) + size > COMPILE_MEMORY)
        lcj_comp_fail(comp, LC_JINJA_LIMIT, 0, "the template needs more than the limit of %d MiB",
                      COMPILE_MEMORY >> 20);
    else
        lcj_comp_fail(comp, LC_JINJA_MEMORY, 0, "out of memory");
    return NULL;
}

/* ---- compiling ---- */

/* "\r\n" and "\r" become "\n"; the last newline goes. */
static bool normalise(lcj_comp *comp, const char *source, size_t len) {
    char *to = lcj_comp_alloc(comp, len + 1);
    size_t n = 0;
    if (!to) return false;
    for (size_t i = 0; i < len; i++) {
        to[n++] = source[i] == '\r' ? '\n' : source[i];
        if (source[i] == '\r' && i + 1 < len && source[i + 1] == '\n') i++;
    }
    if (n && to[n - 1] == '\n') n--;
    comp->lex = (lcj_lexer){.src = to, .len = n, .line = 1};
    return true;
}

static bool check_source(lcj_comp *comp, const char *source, size_t len) {
    size_t used;
    if (len > MAX_SOURCE)
        return lcj_comp_fail(comp, LC_JINJA_LIMIT, 0,
                             "the template is larger than the limit of %d MiB", MAX_SOURCE >> 20);
    for (size_t i = 0; i < len; i += used)
        if (lc_utf8_decode(source + i, len - i, &used) < 0)
            return lcj_comp_fail(comp, LC_JINJA_SYNTAX, 0, "no valid UTF-8 at byte %zu", i);
    return true;
}

int lc_jinja_compile(const char *source, size_t len, const char *name, lc_jinja **out,
                     lc_jinja_fault *fault, lc_err *err) {
    lc_jinja_fault failure = {.kind = LC_JINJA_NONE};
    lcj_comp comp = {.fault = &failure};
    *out = NULL;
    lc_jinja *tmpl = lc_calloc(1, sizeof *tmpl);
    if (tmpl) {
        tmpl->name = lc_strdup(name);
        tmpl->arena = lc_arena_new(COMPILE_MEMORY);
    }
    comp.tmpl = tmpl;
    comp.arena = tmpl ? tmpl->arena : NULL;
    bool ok = tmpl && tmpl->name && tmpl->arena;
    if (!ok) lcj_comp_fail(&comp, LC_JINJA_MEMORY, 0, "out of memory");
    ok = ok && check_source(&comp, source, len) && normalise(&comp, source, len) &&
         lcj_parse_template(&comp) && lcj_scope_template(&comp);
    if (ok) {
        *out = tmpl;
        return LC_OK;
    }
    lc_jinja_free(tmpl);
    int status = report(name, &failure, err);
    hand_over(&failure, fault);
    return status;
}

void lc_jinja_free(lc_jinja *tmpl) {
    if (!tmpl) return;
    lc_arena_free(tmpl->arena);
    lc_buf_free(&tmpl->literals);
    lc_free(tmpl->name);
    lc_free(tmpl);
}

const char *lc_jinja_literals(const lc_jinja *tmpl, size_t *len) {
    *len = tmpl->literals.len;
    return tmpl->literals.data ? tmpl->literals.data : "";
}

/* ---- rendering ---- */

/* The value of a name: what the caller gave, else a global function, else nothing. */
static bool resolve(lcj_rt *rt, lcj_str name, lcj_val *out) {
    for (size_t i = rt->job->n_vars; i > 0; i--) {
        const lc_jinja_var *var = &rt->job->vars[i - 1];
        if (strlen(var->name) == name.len && !memcmp(var->name, name.s, name.len))
            return lcj_from_json(rt, var->value, 0, out);
    }
    const lcj_def *def = lcj_find_def(lcj_functions, name);
    *out = def ? (lcj_val){.type = LCJ_FUNC, .u.def = def} : lcj_missing();
    return true;
}

static bool run(lcj_rt *rt) {
    const lc_jinja *tmpl = rt->tmpl;
    rt->names = lcj_alloc(rt, tmpl->n_names * sizeof *rt->names);
    if (!rt->names) return false;
    for (uint32_t i = 0; i < tmpl->n_names; i++)
        if (!resolve(rt, tmpl->names[i], &rt->names[i])) return false;
    lcj_act *act = lcj_act_new(rt, NULL, tmpl->root.func);
    return act && lcj_frame_enter(rt, act, &tmpl->root.frame) &&
           lcj_exec(rt, act, &tmpl->body) != LCJ_GO_FAIL;
}

static void hand_output(lcj_rt *rt, lc_buf *out) {
    if (lc_buf_append(out, rt->out.data, rt->out.len)) return;
    out->failed = false;
    lcj_fail(rt, LC_JINJA_MEMORY, "out of memory");
}

int lc_jinja_render(const lc_jinja *tmpl, const lc_jinja_job *job, lc_buf *out, lc_err *err) {
    const lc_jinja_limits *limits = &job->limits;
    lcj_rt rt = {.tmpl = tmpl,
                 .job = job,
                 .limit = limits->memory ? limits->memory : DEFAULT_MEMORY,
                 .out_limit = limits->output ? limits->output : DEFAULT_OUTPUT,
                 .steps = limits->steps ? limits->steps : DEFAULT_STEPS};
    if (rt.out_limit > UINT32_MAX / 2) rt.out_limit = UINT32_MAX / 2; /* lengths have 32 bits */
    if (run(&rt)) hand_output(&rt, out);
    lcj_heap_free(&rt);
    if (rt.kind == LC_JINJA_NONE) return LC_OK;
    lc_jinja_fault failure = {rt.kind, rt.fault_line, rt.message};
    int status = report(tmpl->name, &failure, err);
    hand_over(&failure, job->fault);
    return status;
}
