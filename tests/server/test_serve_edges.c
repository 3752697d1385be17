/*
 * test_serve_edges.c: `longcat serve` at its edges: answers that are cut, requests that are too
 * large, errors in the shape that the client reads, what the access log says of them.
 * uses-threads: the server does.
 */
#include "serve_kit.h"

#include <pthread.h>

#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]"

static void repeat(lc_buf *out, size_t n, const char *text) {
    while (n--) lc_buf_puts(out, text);
}

/* ---- why an answer ended ---- */

#define NAME "\"name\":\"f\""
#define SCHEMA "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}"
#define CALLS                                                                                      \
    "\"temperature\":0,\"logit_bias\":{\"11\":100}" /* 11 begins a call, which takes 5             \
                                                     */

static void expect_end(const server *s, const char *path, const char *body, const char *where,
                       const char *end) {
    reply r = post(s, path, body);
    assert_int_equal(r.status, 200);
    if (strcmp(text_at(&r, where), end) != 0) fail_msg("%s: %s", path, r.body.data);
    free_reply(&r);
}

/* 4 calls fill 20 tokens; behind 3 of them 17 have room for the end of the turn. */
static void test_calls_that_max_tokens_cut_end_by_length(void **state) {
    server *s = *state;
    char body[800];
    start_server(s, "tests/golden/tiny-code", NULL);
    for (int whole = 0; whole < 2; whole++) {
        int tokens = whole ? 17 : 20;
        snprintf(body, sizeof body,
                 "{" HELLO "," CALLS ",\"max_tokens\":%d,\"tool_choice\":\"required\",\"tools\":[{"
                 "\"type\":\"function\",\"function\":{" NAME ",\"parameters\":" SCHEMA "}}]}",
                 tokens);
        expect_end(s, "/v1/chat/completions", body, "choices.0.finish_reason",
                   whole ? "tool_calls" : "length");
        snprintf(body, sizeof body,
                 "{" HELLO "," CALLS ",\"max_tokens\":%d,\"tool_choice\":{\"type\":\"any\"},"
                 "\"tools\":[{" NAME ",\"input_schema\":" SCHEMA "}]}",
                 tokens);
        expect_end(s, "/v1/messages", body, "stop_reason", whole ? "tool_use" : "max_tokens");
        snprintf(body, sizeof body,
                 "{\"input\":\"Hello\"," CALLS ",\"max_output_tokens\":%d,\"tool_choice\":"
                 "\"required\",\"tools\":[{\"type\":\"function\"," NAME ",\"parameters\":" SCHEMA
                 "}]}",
                 tokens);
        expect_end(s, "/v1/responses", body, "status", whole ? "completed" : "incomplete");
    }
}

/* ---- clients that go away while a worker has their request ---- */

typedef struct hasty {
    const server *s;
    const char *body;
    long ms;
} hasty;

static size_t drop(char *data, size_t size, size_t n, void *ctx) {
    (void)data, (void)ctx;
    return size * n;
}

static void *hang_up(void *ctx) {
    const hasty *h = ctx;
    CURL *c = curl_easy_init();
    char url[200];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1/completions", h->s->port);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_POSTFIELDS, h->body);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, drop);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, h->ms);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_perform(c);
    curl_easy_cleanup(c);
    return NULL;
}

/* For the thread sanitizer; they cost nothing but what had been prepared. */
static void test_clients_that_leave_during_preparation(void **state) {
    enum { CLIENTS = 8 };
    server *s = *state;
    pthread_t threads[CLIENTS];
    lc_buf body = {0};
    start_server(s, "tests/golden/tiny-code", NULL);
    lc_buf_puts(&body, "{\"n\":4,\"max_tokens\":2,\"prompt\":[\"x\"");
    for (int i = 0; i < 60; i++) {
        lc_buf_puts(&body, ",\"");
        repeat(&body, 1000, "word ");
        lc_buf_puts(&body, "\"");
    }
    lc_buf_puts(&body, "]}");
    hasty clients[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (hasty){s, body.data, 20 * (i + 1)};
        pthread_create(&threads[i], NULL, hang_up, &clients[i]);
    }
    for (int i = 0; i < CLIENTS; i++) pthread_join(threads[i], NULL);
    kill(s->pid, SIGTERM); /* and a drain that cancels what is there */
    kill(s->pid, SIGTERM);
    int status;
    waitpid(s->pid, &status, 0);
    s->pid = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    lc_buf_free(&body);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_server, end_server)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_calls_that_max_tokens_cut_end_by_length),
        TEST(test_clients_that_leave_during_preparation),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return test_main(tests);
}
