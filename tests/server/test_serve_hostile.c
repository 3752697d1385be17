/*
 * test_serve_hostile.c: the holes that other servers had (notes on comparable servers: CVE numbers
 * at each test), tried on `longcat serve`: each is refused or harmless, and the server answers as
 * before. uses-threads
 */
#include "serve_kit.h"

#include <pthread.h>
#include <stdatomic.h>

#define ASK "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"temperature\":0"
#define CHAT "/v1/chat/completions"

static const char sane[] = "{" ASK ",\"max_tokens\":6}";

/* What it says when all is well. */
static char *say_sane(const server *s) {
    reply r = post(s, CHAT, sane);
    if (r.status != 200) fail_msg("the server is not well: %ld", r.status);
    char *text = strdup(text_at(&r, "choices.0.message.content"));
    free_reply(&r);
    return text;
}

/* It lives, and says what it said before. */
static void expect_well(const server *s, const char *before) {
    char *now = say_sane(s);
    assert_string_equal(now, before);
    free(now);
}

static long status_for(const server *s, const char *path, const char *body) {
    reply r = post(s, path, body);
    long status = r.status;
    if (status != 200 && status != 400) fail_msg("%s %.200s: %ld", path, body, status);
    free_reply(&r);
    return status;
}

static void expect_status(const server *s, const char *path, const char *body, long status) {
    long got = status_for(s, path, body);
    if (got != status) fail_msg("%s %.300s: %ld, not %ld", path, body, got, status);
}

/* ---- CVE-2026-21869: negative and huge integers ---- */

static void test_cve_2026_21869_integers_out_of_range(void **state) {
    server *s = *state;
    static const char *const fields[] = {"max_tokens", "max_completion_tokens", "n", "top_logprobs",
                                         "top_k"};
    static const char *const values[] = {
        "-2",  "-2147483648", "-2147483649", "-9223372036854775808", "-9223372036854775809", "1e30",
        "1.5", "\"7\"",       "{}"};
    static const char *const bodies[] = {
        "{\"prompt\":[-1],\"max_tokens\":1}",
        "{\"prompt\":[2147483648],\"max_tokens\":1}",
        "{\"prompt\":[18446744073709551617],\"max_tokens\":1}",
        "{\"prompt\":[99999999],\"max_tokens\":1}",
        "{\"prompt\":\"x\",\"logprobs\":-1}",
        "{\"prompt\":\"x\",\"logit_bias\":{\"-1\":1}}",
        "{\"prompt\":\"x\",\"logit_bias\":{\"4294967297\":1}}",
        "{\"prompt\":\"x\",\"logit_bias\":{\"1\":1e9}}",
        "{\"prompt\":\"x\",\"max_tokens\":-1}",
    };
    char body[400];
    start_server(s, "tests/golden/tiny-code", NULL);
    char *before = say_sane(s);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            snprintf(body, sizeof body, "{" ASK ",\"logprobs\":true,\"%s\":%s}", fields[i],
                     values[k]);
            expect_status(s, CHAT, body, 400);
        }
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        expect_status(s, "/v1/completions", bodies[i], 400);
    expect_status(s, "/v1/messages", "{" ASK ",\"max_tokens\":-4}", 400);
    expect_status(s, "/v1/responses", "{\"input\":\"x\",\"max_output_tokens\":-4}", 400);
    expect_well(s, before);
    free(before);
}

/* ---- llama.cpp 27619, 19051: a tool's description crashes the grammar ---- */

static void test_descriptions_of_tools_never_reach_the_grammar(void **state) {
    server *s = *state;
    static const char *const texts[] = {"root ::= \\\"a\\\" | (", "%s%n\\n\\t\\u0000|*+?[](){}",
                                        "</longcat_tool_call><longcat_think>", "\\\\\\\"\\\"\\\"",
                                        "\\ud83d\\ude00\\u202e\\ufeff"};
    lc_buf body = {0};
    start_server(s, "tests/golden/tiny-code", NULL);
    for (int i = 0; i < 6; i++) {
        lc_buf_clear(&body);
        lc_buf_puts(&body, "{" ASK ",\"max_tokens\":80,\"tool_choice\":\"required\",\"tools\":[{"
                           "\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"");
        for (int k = 0; k < (i == 5 ? 2000 : 1); k++) lc_buf_puts(&body, texts[i % 5]);
        lc_buf_printf(
            &body,
            "\",\"parameters\":{\"type\":\"object\",\"description\":\"%s\",\"properties\":"
            "{\"x\":{\"description\":\"%s\",\"enum\":[1,2]}},\"required\":[\"x\"]}}}]}",
            texts[i % 5], texts[i % 5]);
        reply r = post(s, CHAT, body.data);
        if (i == 5 && r.status == 400) { /* longer than this model's context: that's told */
            free_reply(&r);
            continue;
        }
        assert_int_equal(r.status, 200);
        assert_string_equal(text_at(&r, "choices.0.finish_reason"), "tool_calls");
        free_reply(&r);
    }
    lc_buf_free(&body);
}

/* ---- CVE-2025-48956: one GET with a huge header ---- */

static long resident_kib(const server *s) {
    char path[64], line[200];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)s->pid);
    FILE *f = fopen(path, "r");
    while (fgets(line, sizeof line, f)) sscanf(line, "VmRSS: %ld", &kib);
    fclose(f);
    return kib;
}

static void test_cve_2025_48956_huge_headers(void **state) {
    server *s = *state;
    char out[4096];
    start_server(s, "tests/golden/tiny-code", NULL);
    char *before = say_sane(s);
    lc_buf one = {0}, many = {0}, line = {0};
    lc_buf_puts(&one, "GET /health HTTP/1.1\r\nHost: localhost\r\nX: ");
    for (int i = 0; i < 1 << 16; i++) lc_buf_puts(&one, "aaaaaaaaaaaaaaaa");
    lc_buf_puts(&one, "\r\n\r\n");
    lc_buf_puts(&many, "GET /health HTTP/1.1\r\nHost: localhost\r\n");
    for (int i = 0; i < 10000; i++) lc_buf_printf(&many, "X-%d: y\r\n", i);
    lc_buf_puts(&many, "\r\n");
    lc_buf_puts(&line, "GET /");
    for (int i = 0; i < 1 << 14; i++) lc_buf_puts(&line, "aaaaaaaa");
    lc_buf_puts(&line, " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    long memory = resident_kib(s);
    for (int i = 0; i < 20; i++) {
        int status = send_raw(s->port, one.data, one.len, out);
        assert_true(status == 431 || status == 0); /* 0: reset while it was still sending */
        status = send_raw(s->port, many.data, many.len, out);
        assert_true(status == 431 || status == 0);
        status = send_raw(s->port, line.data, line.len, out);
        assert_true(status == 414 || status == 0);
    }
    long more = resident_kib(s) - memory;
    printf("# 60 of them, %zu MB in all: %ld KiB more resident\n",
           20 * (one.len + many.len + line.len) >> 20, more);
#ifndef __SANITIZE_ADDRESS__ /* which keeps freed memory for a while */
    assert_true(more < 8192);
#endif
    expect_well(s, before);
    free(before);
    lc_buf_free(&one);
    lc_buf_free(&many);
    lc_buf_free(&line);
}

/* ---- CVE-2025-52887, CVE-2025-53628, CVE-2026-29076: headers and lines of a body ---- */

static void repeat(lc_buf *out, size_t n, const char *text) {
    while (n--) lc_buf_puts(out, text);
}

static void test_cve_2025_53628_lines_without_end(void **state) {
    static const char head[] =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    enum { SIZE = 1 << 20 };
    server *s = *state;
    char out[4096];
    start_server(s, "tests/golden/tiny-code", NULL);
    char *before = say_sane(s);
    lc_buf bodies[4] = {0};
    for (int i = 0; i < 3; i++) lc_buf_puts(&bodies[i], head);
    repeat(&bodies[0], SIZE, "0"); /* a chunk's size */
    lc_buf_puts(&bodies[1], "2;");
    repeat(&bodies[1], SIZE, "a"); /* a chunk's extension */
    lc_buf_puts(&bodies[2], "2\r\n{}\r\n0\r\n");
    repeat(&bodies[2], SIZE / 8, "A: bcd\r\n"); /* trailers */
    lc_buf_puts(&bodies[2], "\r\n");
    lc_buf_printf(&bodies[3],
                  "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                  "Content-Type: multipart/form-data; boundary=b\r\n"
                  "Content-Length: %d\r\n\r\n--b\r\nContent-Disposition: form-data; "
                  "filename*=\"",
                  SIZE);
    repeat(&bodies[3], SIZE, "a''%");
    long memory = resident_kib(s);
    for (int round = 0; round < 20; round++)
        for (int i = 0; i < 4; i++) {
            int status = send_raw(s->port, bodies[i].data, bodies[i].len, out);
            /* 0: reset while it was still sending */
            if (status && (status < 400 || status >= 500)) fail_msg("body %d: %d", i, status);
        }
    long more = resident_kib(s) - memory;
    printf("# 80 bodies of 1 MB and more: %ld KiB more resident\n", more);
#ifndef __SANITIZE_ADDRESS__
    assert_true(more < 8192);
#endif
    expect_well(s, before);
    free(before);
    for (int i = 0; i < 4; i++) lc_buf_free(&bodies[i]);
}

/* ---- CVE-2026-34756: unbounded n ---- */

static void test_cve_2026_34756_unbounded_counts(void **state) {
    server *s = *state;
    static const char *const chat[] = {"{" ASK ",\"n\":5}", "{" ASK ",\"n\":1000000000}",
                                       "{" ASK ",\"n\":0}",
                                       "{" ASK ",\"logprobs\":true,\"top_logprobs\":21}"};
    start_server(s, "tests/golden/tiny-code", NULL);
    char *before = say_sane(s);
    for (size_t i = 0; i < sizeof chat / sizeof *chat; i++) expect_status(s, CHAT, chat[i], 400);
    expect_status(s, "/v1/completions", "{\"prompt\":\"x\",\"best_of\":1000000}", 400);
    expect_status(s, "/v1/completions", "{\"prompt\":\"x\",\"n\":100}", 400);
    lc_buf stops = {0}, biases = {0}, prompts = {0};
    lc_buf_puts(&stops, "{" ASK ",\"stop\":[\"a\"");
    for (int i = 0; i < 16; i++) lc_buf_puts(&stops, ",\"b\"");
    lc_buf_puts(&stops, "]}");
    lc_buf_puts(&biases, "{" ASK ",\"logit_bias\":{\"0\":1");
    for (int i = 1; i < 1025; i++) lc_buf_printf(&biases, ",\"%d\":1", i);
    lc_buf_puts(&biases, "}}");
    lc_buf_puts(&prompts, "{\"prompt\":[\"a\"");
    for (int i = 0; i < 128; i++) lc_buf_puts(&prompts, ",\"b\"");
    lc_buf_puts(&prompts, "]}");
    expect_status(s, CHAT, stops.data, 400);
    expect_status(s, CHAT, biases.data, 400);
    expect_status(s, "/v1/completions", prompts.data, 400);
    expect_well(s, before);
    free(before);
    lc_buf_free(&stops);
    lc_buf_free(&biases);
    lc_buf_free(&prompts);
}

/* ---- CVE-2025-48942, 48943, 48944: schemas and patterns that end the engine ---- */

static void test_cve_2025_48942_schemas_and_patterns(void **state) {
    server *s = *state;
    static const char *const bad[] = {
        "{\"type\":\"string\",\"pattern\":\"((((((\"}",
        "{\"type\":\"string\",\"pattern\":\"[z-a]\"}",
        "{\"type\":\"string\",\"pattern\":\"(?=x)y\"}",
        "{\"type\":\"string\",\"pattern\":\"(a)\\\\1\"}",
        "{\"type\":\"string\",\"pattern\":\"a{2000000000}\"}",
        "{\"type\":\"string\",\"pattern\":7}",
        "{\"type\":1}",
        "{\"type\":\"nonsense\"}",
        "{\"type\":[]}",
        "{\"$ref\":\"#/nowhere\"}",
        "{\"$ref\":\"http://localhost/x\"}",
        "{\"enum\":[]}",
        "{\"enum\":7}",
        "{\"anyOf\":[]}",
        "{\"type\":\"string\",\"minLength\":-1}",
        "{\"type\":\"array\",\"minItems\":\"x\"}",
        "{\"type\":\"object\",\"properties\":[]}",
        "{\"type\":\"object\",\"required\":7}",
        "{\"not\":{}}",
        "[]",
        "7",
        "null",
    };
    static const char *const either[] = {
        "{\"type\":\"string\",\"pattern\":\"^(a+)+$\"}",
        "{\"type\":\"string\",\"pattern\":\"^(a|aa)*b{0,999}$\"}",
        "{\"$ref\":\"#\"}",
        "{\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}},\"$ref\":\"#/"
        "$defs/a\"}",
        "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"minItems\":1}",
        "{\"type\":\"string\",\"minLength\":1000000000}",
        "{\"type\":\"array\",\"minItems\":1000000000}",
        "{\"type\":\"integer\",\"minimum\":1e308,\"maximum\":-1e308}",
    };
    lc_buf body = {0};
    start_server(s, "tests/golden/tiny-code", NULL);
    char *before = say_sane(s);
    for (size_t i = 0; i < sizeof bad / sizeof *bad + sizeof either / sizeof *either; i++) {
        size_t n_bad = sizeof bad / sizeof *bad;
        const char *schema = i < n_bad ? bad[i] : either[i - n_bad];
        lc_buf_clear(&body);
        lc_buf_printf(&body,
                      "{" ASK ",\"max_tokens\":40,\"response_format\":{\"type\":\"json_schema\","
                      "\"json_schema\":{\"name\":\"n\",\"schema\":%s}}}",
                      schema);
        if (i < n_bad)
            expect_status(s, CHAT, body.data, 400);
        else
            status_for(s, CHAT, body.data);
        lc_buf_clear(&body);
        lc_buf_printf(&body,
                      "{" ASK
                      ",\"max_tokens\":60,\"tool_choice\":\"required\",\"tools\":[{\"type\":"
                      "\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":"
                      "\"object\",\"properties\":{\"x\":%s},\"required\":[\"x\"]}}}]}",
                      schema);
        if (i < n_bad)
            expect_status(s, CHAT, body.data, 400);
        else
            status_for(s, CHAT, body.data);
    }
    lc_buf_clear(&body);
    lc_buf_puts(&body, "{" ASK ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{"
                       "\"name\":\"n\",\"schema\":");
    for (int i = 0; i < 60; i++) lc_buf_puts(&body, "{\"type\":\"array\",\"items\":");
    lc_buf_puts(&body, "{}");
    for (int i = 0; i < 60; i++) lc_buf_puts(&body, "}");
    lc_buf_puts(&body, "}}}");
    expect_status(s, CHAT, body.data, 400);
    expect_well(s, before);
    free(before);
    lc_buf_free(&body);
}

/* ---- CVE-2025-62426: arguments of the chat template ---- */

static void test_cve_2025_62426_template_arguments(void **state) {
    server *s = *state;
    static const char *const more[] = {
        "\"chat_template_kwargs\":{\"chat_template\":\"{% for i in range(99999999) %}x{% endfor "
        "%}\"}",
        "\"chat_template_kwargs\":{\"messages\":[],\"tools\":[{}],\"add_generation_prompt\":false}",
        "\"chat_template_kwargs\":{\"tokenize\":true,\"bos_token\":\"x\",\"eos_token\":\"y\"}",
        "\"chat_template_kwargs\":{\"continue_final_message\":true,\"tool_choice\":\"none\"}",
        "\"chat_template\":\"{{ 1 / 0 }}\"",
    };
    char body[600];
    start_server(s, "tests/golden/tiny-code", NULL);
    reply plain = post(s, "/apply-template", "{" ASK "}");
    assert_int_equal(plain.status, 200);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        snprintf(body, sizeof body, "{" ASK ",%s}", more[i]);
        reply r = post(s, "/apply-template", body);
        assert_int_equal(r.status, 200);
        assert_string_equal(text_at(&r, "prompt"), text_at(&plain, "prompt"));
        free_reply(&r);
    }
    free_reply(&plain);
}

/* ---- CVE-2026-44223: penalties with everything else ---- */

static void test_cve_2026_44223_penalties_with_everything(void **state) {
    server *s = *state;
    static const char *const penalties[] = {"\"presence_penalty\":2",
                                            "\"presence_penalty\":-2,\"frequency_penalty\":-2",
                                            "\"frequency_penalty\":2", "\"repetition_penalty\":2",
                                            "\"repetition_penalty\":0.1,\"presence_penalty\":2"};
    static const char *const others[] = {
        "\"logprobs\":true,\"top_logprobs\":20",
        "\"n\":4",
        "\"response_format\":{\"type\":\"json_object\"},\"max_tokens\":30",
        "\"logit_bias\":{\"5\":100,\"6\":-100}",
        "\"top_k\":1",
        "\"top_p\":0.01,\"min_p\":0.9",
        "\"temperature\":2,\"seed\":-1",
        "\"stop\":[\"a\",\"e\",\" \"]",
        "\"tool_choice\":\"required\",\"max_tokens\":60,\"tools\":[{\"type\":\"function\","
        "\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}]",
    };
    char body[800];
    int n = 0;
    start_server(s, "tests/golden/tiny-code", NULL);
    char *before = say_sane(s);
    for (size_t i = 0; i < sizeof penalties / sizeof *penalties; i++)
        for (size_t k = 0; k < sizeof others / sizeof *others; k++, n++) {
            bool length = strstr(others[k], "max_tokens") != NULL;
            snprintf(body, sizeof body,
                     "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],%s%s,%s}",
                     length ? "" : "\"max_tokens\":8,", penalties[i], others[k]);
            expect_status(s, CHAT, body, 200);
        }
    printf("# %d combinations\n", n);
    expect_well(s, before);
    free(before);
}

/* ---- keys: CVE-2025-59425, and routes that other servers leave open ---- */

static void make_key(const server *s, const char *name, char key[128]) {
    char command[700];
    snprintf(command, sizeof command, "%s keys create %s --data %s 2>/dev/null", test_program(),
             name, s->folder);
    FILE *f = popen(command, "r");
    assert_non_null(fgets(key, 128, f));
    key[strcspn(key, "\r\n ")] = 0;
    pclose(f);
    assert_int_equal(strncmp(key, "sk-lc-", 6), 0);
}

static long status_with(const server *s, const char *method, const char *path, const char *key) {
    reply r = ask(s, (request){.method = method,
                               .path = path,
                               .key = key,
                               .body = !strcmp(method, "POST") ? sane : NULL});
    long status = r.status;
    free_reply(&r);
    return status;
}

static void test_cve_2025_59425_keys_that_are_almost_right(void **state) {
    server *s = *state;
    char key[128], other[140];
    make_key(s, "ann", key);
    start_server(s, "tests/golden/tiny-code", NULL);
    size_t n = strlen(key);
    assert_int_equal(status_with(s, "GET", "/v1/models", key), 200);
    for (size_t i = 0; i < n; i++) { /* each beginning, and each with one wrong letter */
        snprintf(other, sizeof other, "%.*s", (int)i, key);
        assert_int_equal(status_with(s, "GET", "/v1/models", other), 401);
        snprintf(other, sizeof other, "%s", key);
        other[i] = other[i] == 'x' ? 'y' : 'x';
        assert_int_equal(status_with(s, "GET", "/v1/models", other), 401);
    }
    snprintf(other, sizeof other, "%sx", key);
    assert_int_equal(status_with(s, "GET", "/v1/models", other), 401);
    /* what is compared are digests of one length, by a function that doesn't stop early */
    lc_buf source = get_file("src/server/accounts.c");
    assert_non_null(strstr(source.data, "CRYPTO_memcmp(a->keys[i].hash, hex, 64)"));
    lc_buf_free(&source);
}

static void test_every_route_needs_a_key(void **state) {
    server *s = *state;
    static const char *const spelled[] = {
        "/metrics/",
        "//metrics",
        "/v1/metrics",
        "/openai/metrics",
        "/METRICS",
        "/health/../metrics",
        "/v1/../metrics",
        "/%6detrics",
        "/metrics?x=/",
        "/health/%2e%2e/metrics",
        "/invocations",
        "/pause",
        "/anthropic/v1/models",
        "/openai/v1/longcat/status",
        "/v1/v1/models",
        "/health/x",
    };
    char key[128];
    int n = 0;
    make_key(s, "ann", key);
    start_server(s, "tests/golden/tiny-code", NULL);
    reply described = get(s, "/openapi.json");
    assert_int_equal(described.status, 200);
    json_object_object_foreach(at(described.json, "paths"), path, methods) {
        bool open =
            !strcmp(path, "/health") || !strcmp(path, "/ready") || !strcmp(path, "/version");
        json_object_object_foreach(methods, method, unused) {
            (void)unused;
            if (strcmp(method, "get") != 0 && strcmp(method, "post") != 0) continue;
            const char *verb = *method == 'g' ? "GET" : "POST";
            long status = status_with(s, verb, path, NULL);
            if (status != (open ? 200 : 401)) fail_msg("%s %s: %ld", verb, path, status);
            n++;
        }
    }
    for (size_t i = 0; i < sizeof spelled / sizeof *spelled; i++, n++) {
        long status = status_with(s, "GET", spelled[i], NULL);
        if (status != 401 && status != 400) fail_msg("GET %s: %ld", spelled[i], status);
    }
    for (int i = 0; i < 3; i++, n++) {
        static const char *const verbs[] = {"PUT", "DELETE", "PATCH"};
        assert_int_equal(status_with(s, verbs[i], "/v1/models", NULL), 401);
    }
    printf("# %d routes and spellings\n", n);
    free_reply(&described);
}

/* ---- CVE-2025-46570: what another tenant asked isn't faster ---- */

static void test_cve_2025_46570_tenants_share_no_cache(void **state) {
    server *s = *state;
    char ann[128], bob[128];
    lc_buf body = {0};
    make_key(s, "ann", ann);
    make_key(s, "bob", bob);
    lc_buf_puts(&body, "{\"temperature\":0,\"max_tokens\":4,\"cache_salt\":\"x\",\"messages\":[{"
                       "\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 200; i++) lc_buf_printf(&body, "secret%d ", i);
    lc_buf_puts(&body, "\"}]}");
    start_server(s, "tests/golden/tiny-code", NULL);
    const char *const keys[] = {ann, ann, bob, bob};
    int64_t cached[4];
    for (int i = 0; i < 4; i++) {
        reply r = ask(s, (request){.path = CHAT, .body = body.data, .key = keys[i]});
        assert_int_equal(r.status, 200);
        cached[i] = number_at(&r, "usage.prompt_tokens_details.cached_tokens");
        free_reply(&r);
    }
    assert_int_equal(cached[0], 0);
    assert_true(cached[1] >= 64);
    assert_int_equal(cached[2], 0);
    assert_int_equal(cached[3], cached[1]);
    lc_buf_free(&body);
}

/* ---- CVE-2025-49847, 52566: hostile text and ids at the tokenizer ---- */

static void test_cve_2025_49847_hostile_text(void **state) {
    server *s = *state;
    static const char *const texts[] = {"a",
                                        " ",
                                        "\\u0000",
                                        "\\u0301",
                                        "\\ud83d\\ude00",
                                        "\\u202e",
                                        "<longcat_think>",
                                        "</longcat_tool_call>",
                                        "9",
                                        "\\n"};
    static const char *const ids[] = {"-1",      "2147483648", "4294967297", "18446744073709551616",
                                      "1.5",     "\"1\"",      "null",       "[1]",
                                      "99999999"};
    char body[200];
    lc_buf long_one = {0};
    start_server(s, "tests/golden/tiny-code", NULL);
    char *before = say_sane(s);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        lc_buf_clear(&long_one);
        lc_buf_puts(&long_one, "{\"content\":\"");
        for (int k = 0; k < 40000; k++) lc_buf_puts(&long_one, texts[i]);
        lc_buf_puts(&long_one, "\"}");
        reply r = post(s, "/tokenize", long_one.data);
        assert_int_equal(r.status, 200);
        lc_buf back = {0};
        lc_buf_printf(&back, "{\"tokens\":%s}", json_object_to_json_string(at(r.json, "tokens")));
        reply text = post(s, "/detokenize", back.data);
        assert_int_equal(text.status, 200);
        struct json_object *sent = NULL;
        lc_err err = {0};
        assert_ok(lc_json_parse(long_one.data, long_one.len, "sent", &sent, &err), err);
        struct json_object *a = at(sent, "content"), *b = at(text.json, "content");
        assert_int_equal(json_object_get_string_len(a), json_object_get_string_len(b));
        assert_memory_equal(json_object_get_string(a), json_object_get_string(b),
                            (size_t)json_object_get_string_len(a));
        json_object_put(sent);
        lc_buf_free(&back);
        free_reply(&text);
        free_reply(&r);
    }
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        snprintf(body, sizeof body, "{\"tokens\":[1,%s]}", ids[i]);
        expect_status(s, "/detokenize", body, 400);
    }
    expect_status(s, "/tokenize", "{\"content\":\"\xff\xfe\"}", 400);
    status_for(s, "/tokenize", "{\"content\":\"\\ud800\"}"); /* a replacement character */
    expect_well(s, before);
    free(before);
    lc_buf_free(&long_one);
}

/* ---- many large bodies ---- */

typedef struct large {
    const server *s;
    const char *body;
    atomic_int *answered;
} large;

static void *ask_large(void *ctx) {
    const large *l = ctx;
    reply r = post(l->s, "/tokenize", l->body);
    assert_int_equal(r.status, 200);
    atomic_fetch_add(l->answered, 1);
    free_reply(&r);
    return NULL;
}

/* A small request overtakes them. */
static void test_large_bodies_keep_no_small_one_waiting(void **state) {
    server *s = *state;
    enum { LARGE = 4 };
    lc_buf body = {0};
    pthread_t threads[LARGE];
    atomic_int answered = 0;
    start_server(s, "tests/golden/tiny-code", NULL);
    lc_buf_puts(&body, "{\"content\":\"");
    while (body.len < 8 << 20) lc_buf_printf(&body, "int f%zu(void); ", body.len);
    lc_buf_puts(&body, "\"}");
    large l = {s, body.data, &answered};
    for (size_t i = 0; i < LARGE; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_large, &l), 0);
    usleep(500000); /* all workers that may have one have it */
    reply r = post(s, "/tokenize", "{\"content\":\"small\"}");
    assert_int_equal(r.status, 200);
    assert_int_equal(atomic_load(&answered), 0);
    for (size_t i = 0; i < LARGE; i++) pthread_join(threads[i], NULL);
    free_reply(&r);
    lc_buf_free(&body);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_server, end_server)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_cve_2026_21869_integers_out_of_range),
        TEST(test_descriptions_of_tools_never_reach_the_grammar),
        TEST(test_cve_2025_48956_huge_headers),
        TEST(test_cve_2025_53628_lines_without_end),
        TEST(test_cve_2026_34756_unbounded_counts),
        TEST(test_cve_2025_48942_schemas_and_patterns),
        TEST(test_cve_2025_62426_template_arguments),
        TEST(test_cve_2026_44223_penalties_with_everything),
        TEST(test_cve_2025_59425_keys_that_are_almost_right),
        TEST(test_every_route_needs_a_key),
        TEST(test_cve_2025_46570_tenants_share_no_cache),
        TEST(test_cve_2025_49847_hostile_text),
        TEST(test_large_bodies_keep_no_small_one_waiting),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return test_main(tests);
}
