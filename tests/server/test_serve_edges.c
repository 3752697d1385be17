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

/* The end of the turn is token 2: the bias makes it one of eight here. */
static void test_ignore_eos_hides_nothing_that_it_bills(void **state) {
    server *s = *state;
    start_server(s, "tests/golden/tiny-code", NULL);
    reply r = post(s, "/v1/chat/completions",
                   "{" HELLO ",\"temperature\":1,\"seed\":5,\"max_tokens\":200,\"ignore_eos\":true,"
                   "\"logprobs\":true,\"logit_bias\":{\"2\":6}}");
    assert_int_equal(r.status, 200);
    assert_int_equal(number_at(&r, "usage.completion_tokens"), 200);
    assert_string_equal(text_at(&r, "choices.0.finish_reason"), "length");
    struct json_object *tokens = at(r.json, "choices.0.logprobs.content");
    size_t ends = 0, text = 0, n = json_object_array_length(tokens);
    for (size_t i = 0; i < n; i++) {
        struct json_object *token = at(json_object_array_get_idx(tokens, i), "token");
        bool end = !strcmp(json_object_get_string(token), "</longcat_s>");
        ends += end;
        text += end ? 0 : (size_t)json_object_get_string_len(token);
    }
    printf("# %zu tokens, %zu of them ends of the turn\n", n, ends);
    assert_int_equal(n, 200);
    assert_in_range(ends, 5, 195);
    const char *content = text_at(&r, "choices.0.message.content");
    assert_null(strstr(content, "</longcat_s>"));
    assert_in_range(strlen(content), text * 8 / 10, text); /* white space at the ends is cut */
    free_reply(&r);
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
        clients[i] = (hasty){s, body.data, 40 * (i + 1)};
        pthread_create(&threads[i], NULL, hang_up, &clients[i]);
    }
    usleep(200000);
    kill(s->pid, SIGTERM);
    usleep(20000);
    kill(s->pid, SIGTERM); /* the second one cancels what is there */
    for (int i = 0; i < CLIENTS; i++) pthread_join(threads[i], NULL);
    int status = end_of(s->pid);
    s->pid = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    lc_buf_free(&body);
}

/* ---- large requests beside small ones ---- */

static void *tokenize_much(void *ctx) {
    static reply r;
    lc_buf body = {0};
    lc_buf_puts(&body, "{\"content\":\"");
    repeat(&body, 400000, "0123456789");
    lc_buf_puts(&body, "\"}");
    r = post(ctx, "/tokenize", body.data);
    lc_buf_free(&body);
    return &r;
}

static void test_a_long_list_of_tokens_keeps_nobody_waiting(void **state) {
    server *s = *state;
    pthread_t thread;
    void *got;
    double longest = 0;
    start_server(s, "tests/golden/tiny-code", NULL);
    pthread_create(&thread, NULL, tokenize_much, s);
    while (pthread_tryjoin_np(thread, &got) != 0) {
        reply r = get(s, "/health");
        assert_int_equal(r.status, 200);
        if (r.total_s > longest) longest = r.total_s;
        free_reply(&r);
        usleep(5000);
    }
    const reply *r = got;
    assert_int_equal(number_at(r, "count"), 4000000);
    printf("# %.1f s, nobody waited longer than %.3f s\n", r->total_s, longest);
    assert_true(longest < r->total_s / 10);
    free_reply(got);
}

static int64_t number_behind(const char *text, const char *words) {
    const char *at = strstr(text, words);
    if (!at) fail_msg("no \"%s\" in %s", words, text);
    return atoll(at + strlen(words));
}

/* The number in the message says how far it was counted: not the 3 million tokens of this text. */
static void test_texts_that_cannot_fit_are_refused_before_they_are_tokens(void **state) {
    enum { WORDS = 3000000 };
    server *s = *state;
    lc_buf body = {0};
    start_server(s, "tests/golden/tiny-code", NULL);
    lc_buf_puts(&body, "{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"");
    repeat(&body, WORDS, "word ");
    lc_buf_puts(&body, "\"}]}");
    reply chat = post(s, "/v1/chat/completions", body.data);
    reply messages = post(s, "/v1/messages", body.data);
    lc_buf_clear(&body);
    lc_buf_puts(&body, "{\"max_tokens\":1,\"prompt\":[\"a\",\"");
    repeat(&body, 20000, "word ");
    lc_buf_puts(&body, "\"]}");
    reply plain = post(s, "/v1/completions", body.data);
    assert_int_equal(chat.status, 400);
    assert_int_equal(messages.status, 400);
    assert_int_equal(plain.status, 400);
    assert_string_equal(text_at(&chat, "error.code"), "context_length_exceeded");
    assert_string_equal(text_at(&plain, "error.code"), "context_length_exceeded");
    assert_in_range(number_behind(chat.body.data, "resulted in "), 4097, WORDS / 2);
    assert_in_range(number_behind(messages.body.data, "prompt is too long: "), 4097, WORDS / 2);
    assert_in_range(number_behind(plain.body.data, "resulted in "), 4097, 2 * 4096 + 2);
    free_reply(&chat), free_reply(&messages), free_reply(&plain);
    lc_buf_free(&body);
}

/* 128 prompts with 4 answers each. */
static void test_more_answers_than_ever_wait_are_refused(void **state) {
    server *s = *state;
    const char *more[] = {"--waiting", "512", NULL};
    lc_buf body = {0};
    lc_buf_puts(&body, "{\"max_tokens\":1,\"n\":4,\"prompt\":[\"a\"");
    repeat(&body, 127, ",\"b\"");
    lc_buf_puts(&body, "]}");
    start_server(s, "tests/golden/tiny-code", NULL);
    reply r = post(s, "/v1/completions", body.data);
    assert_int_equal(r.status, 400);
    assert_string_equal(text_at(&r, "error.message"),
                        "512 answers (prompts times n): this server takes 256 at a time");
    free_reply(&r);
    stop_server(s, SIGTERM);
    start_server(s, "tests/golden/tiny-code", more);
    r = post(s, "/v1/completions", body.data);
    assert_int_equal(r.status, 200);
    assert_int_equal(json_object_array_length(at(r.json, "choices")), 512);
    free_reply(&r);
    lc_buf_free(&body);
}

/* ---- errors ---- */

static void make_key(const server *s, char key[128]) {
    char command[700];
    snprintf(command, sizeof command, "%s keys create ann --data %s 2>/dev/null", test_program(),
             s->folder);
    FILE *f = popen(command, "r");
    assert_non_null(fgets(key, 128, f));
    key[strcspn(key, "\n")] = 0;
    pclose(f);
}

#define VERSION "anthropic-version: 2023-06-01"

static void test_anthropics_clients_get_their_errors(void **state) {
    server *s = *state;
    static const struct {
        const char *path, *header;
        bool anthropic;
    } cases[] = {
        {"/v1/models", NULL, false},
        {"/v1/models", VERSION, true},
        {"/anthropic/v1/models", NULL, true},
        {"/v1/nothing", NULL, false},
        {"/v1/nothing", VERSION, true},
        {"/anthropic/v1/nothing", NULL, true},
        {"/anthropicx/v1/nothing", NULL, false},
        {"/openai/v1/nothing", NULL, false},
        {"/v1/messages", NULL, true},
        {"/anthropic/v1/chat/completions", VERSION, false},
        {"/anthropic/v1/responses", VERSION, false},
        {"/anthropic/v1/completions", VERSION, false},
    };
    char key[128], out[4096];
    make_key(s, key);
    start_server(s, "tests/golden/tiny-code", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int known = 0; known < 2; known++) {
            reply r = ask(s, (request){.path = cases[i].path,
                                       .header = cases[i].header,
                                       .method = "DELETE",
                                       .key = known ? key : NULL});
            long expected = !known ? 401 : strstr(cases[i].path, "nothing") ? 404 : 405;
            assert_int_equal(r.status, expected);
            bool is_theirs = !strncmp(r.body.data, "{\"type\":\"error\"", 15);
            if (is_theirs != cases[i].anthropic) fail_msg("%s: %s", cases[i].path, r.body.data);
            free_reply(&r);
        }
    reply prompt = ask(s, (request){.path = "/anthropic/apply-template", /* still a chat request */
                                    .body = "{" HELLO "}",
                                    .header = VERSION,
                                    .key = key});
    assert_int_equal(prompt.status, 200);
    free_reply(&prompt);
    static const char large[] =
        "POST /v1/x HTTP/1.1\r\nHost: localhost\r\n" VERSION "\r\nContent-Length: 99999999\r\n\r\n";
    assert_int_equal(send_raw(s->port, large, sizeof large - 1, out), 413);
    assert_non_null(strstr(out, "{\"type\":\"error\""));
}

static void test_the_access_log_has_http_errors(void **state) {
    server *s = *state;
#define POST_HEAD "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n"
    static const struct {
        const char *bytes;
        int status;
        const char *route;
    } cases[] = {
        {POST_HEAD "Content-Length: 99999999\r\n\r\n", 413, "POST /v1/messages"},
        {POST_HEAD "Transfer-Encoding: chunked\r\n\r\nffffffff\r\n", 413, "POST /v1/messages"},
        {POST_HEAD "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, "POST /v1/messages"},
        {"GET /live HTTP/1.1\r\nHost: example.com\r\n\r\n", 421, "GET /live"},
        {"GET /live HTTP/1.1\r\nno header\r\n\r\n", 400, "- -"},
        {"GET /live HTTP/1.1\r\n", 408, "- -"}, /* 10 seconds */
    };
    char out[4096], line[200];
    start_server(s, "tests/golden/tiny-code", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(send_raw(s->port, cases[i].bytes, strlen(cases[i].bytes), out),
                         cases[i].status);
        const char *id = strstr(out, "\r\nrequest-id: ");
        assert_non_null(id);
        snprintf(line, sizeof line, "\"request_id\":\"%.28s\",\"route\":\"%s\",\"status\":%d,",
                 id + 14, cases[i].route, cases[i].status);
        lc_buf log = get_file(s->log);
        if (!strstr(log.data, line)) fail_msg("no %s in %s", line, log.data);
        assert_null(strstr(log.data, "\"status\":499"));
        lc_buf_free(&log);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_server, end_server)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_calls_that_max_tokens_cut_end_by_length),
        TEST(test_ignore_eos_hides_nothing_that_it_bills),
        TEST(test_clients_that_leave_during_preparation),
        TEST(test_a_long_list_of_tokens_keeps_nobody_waiting),
        TEST(test_texts_that_cannot_fit_are_refused_before_they_are_tokens),
        TEST(test_more_answers_than_ever_wait_are_refused),
        TEST(test_anthropics_clients_get_their_errors),
        TEST(test_the_access_log_has_http_errors),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return test_main(tests);
}
