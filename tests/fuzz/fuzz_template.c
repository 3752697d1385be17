/*
 * Chat template interpreter: any text, rendered with a rich context under small limits, must give a
 * text or a failure with a kind and a message, the same again when rendered twice, leave the output
 * alone when it fails, and give back all memory.
 */
#include "base/json.h"
#include "text/jinja/jinja.h"

#include <stdlib.h>
#include <string.h>

static const char context_json[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"Hi "
    "<a>\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
    "\"arguments\":{\"x\":1,\"y\":[true,null,2.5]}}}]}],\"tools\":[{\"type\":\"function\","
    "\"function\":{\"name\":\"f\",\"parameters\":{}}}],\"a\":1,\"b\":\"two\",\"c\":[1,2.5,null,"
    "true,"
    "\"x\"],\"d\":{\"k\":\"v\",\"n\":{\"m\":[]}},\"s\":\"Hello, World\",\"t\":true,\"f\":1.5,"
    "\"z\":0,\"n\":null,\"e\":\"\",\"l\":[3,1,2],\"u\":\"na\\u00efve \\u4e2d\\ud83d\\ude00\","
    "\"big\":18446744073709551615,\"lo\":[{\"n\":\"x\",\"v\":2},{\"n\":\"y\",\"v\":1}]}";

static void must(bool condition) {
    if (!condition) abort();
}

typedef struct outcome {
    int status;
    lc_buf out;
    lc_jinja_fault fault;
} outcome;

static outcome render(const lc_jinja *tmpl, const lc_jinja_var *vars, size_t n_vars) {
    outcome r = {0};
    lc_err err = {0};
    must(lc_buf_puts(&r.out, "kept"));
    lc_jinja_job job = {.vars = vars,
                        .n_vars = n_vars,
                        .limits = {.steps = 20000, .memory = 1 << 20, .output = 1 << 16},
                        .now = 1772600767,
                        .fault = &r.fault};
    r.status = lc_jinja_render(tmpl, &job, &r.out, &err);
    must(!memcmp(r.out.data, "kept", 4));
    must((r.status == LC_OK) == (r.fault.kind == LC_JINJA_NONE));
    must(r.status == LC_OK || (r.out.len == 4 && err.text[0] && err.code == r.status));
    return r;
}

static void free_outcome(outcome *r) {
    lc_buf_free(&r->out);
    lc_jinja_fault_free(&r->fault);
}

static void render_twice(const lc_jinja *tmpl) {
    struct json_object *context;
    lc_jinja_var vars[32];
    size_t n = 0;
    must(lc_json_parse(context_json, sizeof context_json - 1, "context", &context, NULL) == LC_OK);
    json_object_object_foreach(context, name, value) { vars[n++] = (lc_jinja_var){name, value}; }
    outcome first = render(tmpl, vars, n), second = render(tmpl, vars, n);
    must(first.status == second.status && first.out.len == second.out.len);
    must(!memcmp(first.out.data, second.out.data, first.out.len));
    free_outcome(&first);
    free_outcome(&second);
    json_object_put(context);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t before = lc_mem_current();
    lc_jinja *tmpl;
    lc_jinja_fault fault = {0};
    int status = lc_jinja_compile((const char *)data, size, "fuzz", &tmpl, &fault, NULL);
    must((status == LC_OK) == (tmpl != NULL) && (status == LC_OK) == (fault.kind == LC_JINJA_NONE));
    if (tmpl) render_twice(tmpl);
    lc_jinja_free(tmpl);
    lc_jinja_fault_free(&fault);
    must(lc_mem_current() == before);
    return 0;
}
