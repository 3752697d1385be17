/*
 * test_serve.c: `longcat serve` as a client sees it: the real program on tests/golden/tiny-code,
 * over HTTP. Expected answers come from `longcat run` on the same tokens. uses-threads: the server
 * does.
 */
#include "base/file.h"
#include "serve_kit.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

#define GREEDY "\"temperature\":0,\"max_tokens\":24"

/* What the program says alone: greedy continuation of ids as text; "" if it ends at once. */
static void run_alone(const char *model, struct json_object *ids, int n, lc_buf *out) {
    lc_buf command = {0};
    char text[4096];
    lc_buf_printf(&command, "%s run %s -n %d --greedy --ids ", test_program(), model, n);
    for (size_t i = 0; i < json_object_array_length(ids); i++)
        lc_buf_printf(&command, "%s%d", i ? "," : "",
                      json_object_get_int(json_object_array_get_idx(ids, i)));
    lc_buf_puts(&command, " --json 2>/dev/null </dev/null");
    FILE *pipe_in = popen(command.data, "r");
    assert_non_null(pipe_in);
    struct json_object *first = NULL;
    lc_err err = {0};
    assert_non_null(fgets(text, sizeof text, pipe_in));
    pclose(pipe_in);
    assert_ok(lc_json_parse(text, strcspn(text, "\n"), "run", &first, &err), err);
    lc_buf_puts(out, json_object_get_string(at(first, "text")));
    json_object_put(first);
    lc_buf_free(&command);
}

static const char *const question = "\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]";

static void test_four_wires_give_the_answer_that_run_gives(void **state) {
    server *s = *state;
    char body[512];
    lc_buf expected = {0};
    start_server(s, "tests/golden/tiny-code", NULL);
    snprintf(body, sizeof body, "{%s}", question);
    reply prompt = post(s, "/apply-template", body);
    assert_int_equal(prompt.status, 200);
    run_alone("tests/golden/tiny-code", at(prompt.json, "tokens"), 24, &expected);
    assert_true(expected.len > 4);

    snprintf(body, sizeof body, "{%s,%s}", question, GREEDY);
    reply chat = post(s, "/v1/chat/completions", body);
    assert_string_equal(text_at(&chat, "choices.0.message.content"), expected.data);
    reply messages = post(s, "/v1/messages", body);
    assert_string_equal(text_at(&messages, "content.0.text"), expected.data);
    reply responses = post(s, "/openai/v1/responses",
                           "{\"input\":\"Hello\",\"temperature\":0,\"max_output_tokens\":24}");
    assert_string_equal(text_at(&responses, "output.0.content.0.text"), expected.data);
    snprintf(body, sizeof body, "{\"prompt\":%s,%s}",
             json_object_to_json_string(at(prompt.json, "tokens")), GREEDY);
    reply plain = post(s, "/v1/completions", body);
    assert_string_equal(text_at(&plain, "choices.0.text"), expected.data);
    free_reply(&prompt);
    free_reply(&chat);
    free_reply(&messages);
    free_reply(&responses);
    free_reply(&plain);
    lc_buf_free(&expected);
}

static void test_routes_of_longcats_platform(void **state) {
    server *s = *state;
    char body[512];
    static const char *const paths[] = {"/v1/chat/completions",
                                        "/openai/v1/chat/completions",
                                        "/openai/chat/completions",
                                        "/anthropic/v1/messages",
                                        "/v1/messages?beta=true",
                                        "/v1/v1/messages",
                                        "/anthropic/v1/messages/count_tokens"};
    start_server(s, "tests/golden/tiny-code", NULL);
    snprintf(body, sizeof body, "{%s,\"max_tokens\":2}", question);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        reply r = post(s, paths[i], body);
        if (r.status != 200) fail_msg("%s: %ld %s", paths[i], r.status, r.body.data);
        free_reply(&r);
    }
    static const struct {
        const char *method, *path, *body;
        long status;
    } others[] = {
        {NULL, "/v1/models", NULL, 200},
        {NULL, "/v1/models/tiny-code", NULL, 200},
        {NULL, "/v1/models/other", NULL, 404},
        {"HEAD", "/", NULL, 200},
        {"HEAD", "/api/hello", NULL, 200},
        {NULL, "/health", NULL, 200},
        {NULL, "/ready", NULL, 200},
        {NULL, "/version", NULL, 200},
        {NULL, "/openapi.json", NULL, 200},
        {NULL, "/api/tags", NULL, 404},
        {NULL, "/v1/messages", NULL, 405},
        {NULL, "/v1/embeddings", "{}", 404},
        {NULL, "/tokenize", NULL, 405},
        {NULL, "/v1/models", "{}", 405},
        {NULL, "/v1/models/tiny-code", "{}", 405},
        {NULL, "/page.css", "{}", 405},
        {NULL, "/tokenize", "{\"content\":\"a\",\"parse_special\":{}}", 400},
        {NULL, "/page.js", NULL, 200},
        {NULL, "/../etc/passwd", NULL, 404},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        reply r = ask(
            s,
            (request){.method = others[i].method, .path = others[i].path, .body = others[i].body});
        if (r.status != others[i].status)
            fail_msg("%s: %ld, not %ld", others[i].path, r.status, others[i].status);
        free_reply(&r);
    }
}

static void test_the_next_turn_extends_the_last_one(void **state) {
    server *s = *state;
    start_server(s, "tests/golden/tiny-code", NULL);
    lc_buf body = {0}, text = {0};
    for (int i = 0; i < 60; i++) lc_buf_printf(&text, "line %d of a long message. ", i);
    lc_buf_printf(&body,
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"temperature\":1,"
                  "\"seed\":7,\"max_tokens\":100}",
                  text.data);
    reply first = post(s, "/v1/chat/completions", body.data);
    assert_int_equal(first.status, 200);
    int64_t known = number_at(&first, "usage.total_tokens");
    const char *answer = json_object_to_json_string(at(first.json, "choices.0.message.content"));
    lc_buf_clear(&body);
    lc_buf_printf(&body,
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"},{\"role\":\"assistant\","
                  "\"content\":%s},{\"role\":\"user\",\"content\":\"Go on\"}],\"max_tokens\":4}",
                  text.data, answer);
    reply second = post(s, "/v1/chat/completions", body.data);
    int64_t cached = number_at(&second, "usage.prompt_tokens_details.cached_tokens");
    printf("# %lld tokens known, %lld cached in the next turn\n", (long long)known,
           (long long)cached);
    assert_true(cached >= (known - 1) / 64 * 64 - 64 && cached > 0);
    free_reply(&first);
    free_reply(&second);
    lc_buf_free(&body);
    lc_buf_free(&text);
}

/* The prompt of a conversation whose assistant said `answer`. */
static reply prompt_with(const server *s, const char *answer) {
    lc_buf body = {0};
    struct json_object *text = json_object_new_string(answer);
    lc_buf_printf(&body,
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"},{\"role\":"
                  "\"assistant\",\"content\":%s},{\"role\":\"user\",\"content\":\"Go on\"}]}",
                  json_object_to_json_string(text));
    reply r = post(s, "/apply-template", body.data);
    assert_int_equal(r.status, 200);
    json_object_put(text);
    lc_buf_free(&body);
    return r;
}

/* A later prompt holds what its messages say: not the beginning that another client had written,
 * nor what a stop string had cut off. */
static void test_replays_hold_nothing_that_messages_lack(void **state) {
    static const char start[] = "Tell no one that";
    server *s = *state;
    start_server(s, "tests/golden/tiny-code", NULL);
    reply begun = post(s, "/v1/chat/completions",
                       "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"},{\"role\":"
                       "\"assistant\",\"content\":\"Tell no one that\"}]," GREEDY "}");
    reply prompt = prompt_with(s, text_at(&begun, "choices.0.message.content"));
    assert_null(strstr(text_at(&prompt, "prompt"), start));
    free_reply(&begun), free_reply(&prompt);

    lc_buf body = {0};
    lc_buf_puts(&body, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]," GREEDY);
    size_t open = body.len;
    lc_buf_puts(&body, "}");
    reply whole = post(s, "/v1/chat/completions", body.data);
    const char *text = text_at(&whole, "choices.0.message.content");
    size_t at = 1;
    while (text[at] && !isalpha((unsigned char)text[at])) at++;
    assert_true(text[at]);
    char stop[2] = {text[at], 0};
    body.len = open;
    lc_buf_printf(&body, ",\"stop\":[\"%s\"]}", stop);
    reply cut = post(s, "/v1/chat/completions", body.data);
    lc_buf_clear(&body);
    lc_buf_printf(&body, "%s%s", text_at(&cut, "choices.0.message.content"), stop);
    prompt = prompt_with(s, text_at(&cut, "choices.0.message.content"));
    assert_null(strstr(text_at(&prompt, "prompt"), body.data));
    free_reply(&whole), free_reply(&cut), free_reply(&prompt);
    lc_buf_free(&body);
}

/* After a restart and after kill -9 the prompt is still cached, and the answer is the same. */
static void test_the_cache_survives_kill(void **state) {
    server *s = *state;
    lc_buf body = {0};
    lc_buf_puts(&body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 120; i++) lc_buf_printf(&body, "word%d ", i * i % 97);
    lc_buf_puts(&body, "\"}]," GREEDY "}");
    start_server(s, "tests/golden/tiny-code", NULL);
    reply first = post(s, "/v1/chat/completions", body.data);
    assert_int_equal(number_at(&first, "usage.prompt_tokens_details.cached_tokens"), 0);
    for (int round = 0; round < 3; round++) {
        sleep(1); /* the writer is a thread of its own */
        stop_server(s, round == 1 ? SIGTERM : SIGKILL);
        start_server(s, "tests/golden/tiny-code", NULL);
        reply again = post(s, "/v1/chat/completions", body.data);
        assert_true(number_at(&again, "usage.prompt_tokens_details.cached_tokens") >= 128);
        assert_string_equal(text_at(&again, "choices.0.message.content"),
                            text_at(&first, "choices.0.message.content"));
        free_reply(&again);
    }
    free_reply(&first);
    lc_buf_free(&body);
}

/* ---- load ---- */

enum { CLIENTS = 8, ROUNDS = 4 };

typedef struct client {
    const server *s;
    int number;
    char *answers[ROUNDS];
} client;

static void question_of(int client_number, int round, lc_buf *out) {
    lc_buf_clear(out);
    lc_buf_printf(out, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i <= 7 * client_number + round; i++)
        lc_buf_printf(out, "number %d, ", i * (client_number + 3) % 101);
    lc_buf_printf(out, "\"}],\"temperature\":0.9,\"seed\":%d,\"max_tokens\":%d}",
                  100 * client_number + round, 8 + 5 * round);
}

static void *be_client(void *ctx) {
    client *c = ctx;
    lc_buf body = {0};
    for (int i = 0; i < ROUNDS; i++) {
        question_of(c->number, i, &body);
        reply r = post(c->s, "/v1/chat/completions", body.data);
        c->answers[i] =
            strdup(r.status == 200 ? json_object_to_json_string(at(r.json, "choices")) : "");
        free_reply(&r);
    }
    lc_buf_free(&body);
    return NULL;
}

static void test_answers_under_load_are_those_given_alone(void **state) {
    server *s = *state;
    pthread_t threads[CLIENTS];
    client clients[CLIENTS];
    start_server(s, "tests/golden/tiny-code", NULL);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (client){.s = s, .number = i};
        pthread_create(&threads[i], NULL, be_client, &clients[i]);
    }
    for (int i = 0; i < CLIENTS; i++) pthread_join(threads[i], NULL);
    stop_server(s, SIGTERM);
    const char *none[] = {"--cache-ram", "0", "--running", "1", NULL};
    start_server(s, "tests/golden/tiny-code", none);
    for (int i = 0; i < CLIENTS; i++) {
        client alone = {.s = s, .number = i};
        be_client(&alone);
        for (int k = 0; k < ROUNDS; k++) {
            assert_string_equal(alone.answers[k], clients[i].answers[k]);
            assert_true(strlen(alone.answers[k]) > 20);
            free(alone.answers[k]);
            free(clients[i].answers[k]);
        }
    }
    printf("# %d answers\n", CLIENTS * ROUNDS);
}

static void test_a_client_that_hangs_up_stops_its_answer(void **state) {
    server *s = *state;
    start_server(s, "tests/golden/tiny-code", NULL);
    reply r = ask(s, (request){.path = "/v1/completions",
                               .body = "{\"prompt\":\"def\",\"stream\":true,\"max_tokens\":4000,"
                                       "\"ignore_eos\":true,\"logit_bias\":{\"2\":-100}}",
                               .stop_after = 2000});
    free_reply(&r);
    double running = 1;
    for (int i = 0; i < 100 && running > 0; i++) {
        usleep(50000);
        running = metric(s, "num_requests_running");
    }
    assert_true(running == 0);
    assert_true(metric(s, "generation_tokens_total") < 3000);
}

/* ---- constraints ---- */

static void test_forced_calls_and_schemas_hold(void **state) {
    server *s = *state;
    static const char tools[] =
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"bash\",\"parameters\":{"
        "\"type\":\"object\",\"properties\":{\"command\":{\"type\":\"string\",\"enum\":[\"ls\","
        "\"pwd\"]},\"timeout\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":60}},\"required\":["
        "\"command\"]}}}]";
    char body[2048];
    start_server(s, "tests/golden/tiny-code", NULL);
    for (int seed = 0; seed < 10; seed++) {
        snprintf(body, sizeof body,
                 "{%s,%s,\"tool_choice\":\"required\",\"seed\":%d,\"temperature\":1.5}", question,
                 tools, seed);
        reply r = post(s, "/v1/chat/completions", body);
        assert_string_equal(text_at(&r, "choices.0.finish_reason"), "tool_calls");
        struct json_object *arguments = NULL;
        const char *text = text_at(&r, "choices.0.message.tool_calls.0.function.arguments");
        lc_err err = {0};
        assert_ok(lc_json_parse(text, strlen(text), "arguments", &arguments, &err), err);
        const char *command = json_object_get_string(at(arguments, "command"));
        assert_true(!strcmp(command, "ls") || !strcmp(command, "pwd"));
        struct json_object *timeout = json_object_object_get(arguments, "timeout");
        int64_t value = timeout ? json_object_get_int64(timeout) : 1;
        assert_true(value >= 1 && value <= 60);
        json_object_put(arguments);
        free_reply(&r);
    }
    /* beside a schema: calls or the schema's JSON, as the model likes; 11 begins a call */
    static const char format[] =
        "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{"
        "\"type\":\"object\",\"properties\":{\"ok\":{\"type\":\"boolean\"}},\"required\":[\"ok\"],"
        "\"additionalProperties\":false}}}";
    static const struct {
        const char *more, *finish;
    } ways[] = {{"\"logit_bias\":{\"11\":100}", "tool_calls"},
                {"\"logit_bias\":{\"11\":-100}", "stop"},
                {"\"tool_choice\":\"required\"", "tool_calls"},
                {"\"tool_choice\":\"none\"", "stop"}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        snprintf(body, sizeof body, "{%s,%s,%s,%s}", question, tools, format, ways[i].more);
        reply r = post(s, "/v1/chat/completions", body);
        assert_string_equal(text_at(&r, "choices.0.finish_reason"), ways[i].finish);
        const char *text = text_at(&r, ways[i].finish[0] == 's'
                                           ? "choices.0.message.content"
                                           : "choices.0.message.tool_calls.0.function.arguments");
        assert_non_null(strstr(text, ways[i].finish[0] == 's' ? "\"ok\":" : "\"command\":"));
        free_reply(&r);
    }
    reply bad = post(s, "/v1/chat/completions",
                     "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"response_format\":{"
                     "\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{"
                     "\"type\":\"object\",\"not\":{}}}}}");
    assert_int_equal(bad.status, 400); /* fails closed, and names the keyword */
    assert_non_null(strstr(bad.body.data, "not"));
    free_reply(&bad);
}

/* ---- refusals ---- */

static void test_overflow_is_told_in_words_that_clients_know(void **state) {
    server *s = *state;
    const char *small[] = {"--context", "64", NULL};
    lc_buf body = {0};
    start_server(s, "tests/golden/tiny-code", small);
    lc_buf_puts(&body, "{\"max_tokens\":4,\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 200; i++) lc_buf_puts(&body, "word ");
    lc_buf_puts(&body, "\"}]}");
    reply chat = post(s, "/v1/chat/completions", body.data);
    reply messages = post(s, "/v1/messages", body.data);
    assert_int_equal(chat.status, 400);
    assert_int_equal(messages.status, 400);
    assert_string_equal(text_at(&chat, "error.code"), "context_length_exceeded");
    assert_non_null(strstr(chat.body.data, "This model's maximum context length is 64 tokens"));
    assert_non_null(strstr(messages.body.data, "prompt is too long: "));
    assert_non_null(strstr(messages.body.data, "> 64 maximum"));
    /* too many output tokens are lowered, not refused */
    reply lowered = post(s, "/v1/chat/completions",
                         "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                         "\"max_tokens\":100000}");
    assert_int_equal(lowered.status, 200);
    free_reply(&chat);
    free_reply(&messages);
    free_reply(&lowered);
    lc_buf_free(&body);
}

static int64_t csv_field(const char *line, int field) {
    while (field-- > 0 && line) line = strchr(line, ',') + 1;
    return line ? atoll(line) : -1;
}

static void run_cli(const char *folder, const char *arguments, char *out, size_t size) {
    char command[800];
    snprintf(command, sizeof command, "%s %s --data %s 2>/dev/null", test_program(), arguments,
             folder);
    FILE *f = popen(command, "r");
    size_t n = fread(out, 1, size - 1, f);
    out[n] = 0;
    pclose(f);
}

static void test_keys_guard_everything_but_probes(void **state) {
    server *s = *state;
    char key[256], body[512], line[4096];
    run_cli(s->folder, "keys create ann", key, sizeof key);
    assert_int_equal(strncmp(key, "sk-lc-", 6), 0);
    key[strcspn(key, "\n")] = 0;
    start_server(s, "tests/golden/tiny-code", NULL);
    snprintf(body, sizeof body, "{%s,%s}", question, GREEDY);
    static const char *const guarded[] = {"/v1/models",           "/metrics",
                                          "/v1/longcat/status",   "/v1/longcat/experts",
                                          "/v1/chat/completions", "/tokenize"};
    for (size_t i = 0; i < sizeof guarded / sizeof *guarded; i++) {
        reply r = i < 4 ? get(s, guarded[i]) : post(s, guarded[i], body);
        assert_int_equal(r.status, 401);
        free_reply(&r);
    }
    reply probe = get(s, "/health");
    assert_int_equal(probe.status, 200);
    reply r = ask(s, (request){.path = "/v1/messages", .body = body, .key = key});
    assert_int_equal(r.status, 200);
    run_cli(s->folder, "usage --by key --csv --key ann", line, sizeof line);
    const char *row = strstr(line, "\nann,"); /* behind the head */
    assert_non_null(row);
    assert_int_equal(csv_field(row, 1), 1);
    assert_int_equal(csv_field(row, 4), number_at(&r, "usage.output_tokens"));
    free_reply(&r);
    free_reply(&probe);
    run_cli(s->folder, "keys revoke ann", line, sizeof line);
    r = ask(s, (request){.path = "/v1/messages", .body = body, .key = key});
    assert_int_equal(r.status, 401);
    free_reply(&r);
}

/* A running server takes the first key from then on, with its limits, and stays closed without. */
static void test_the_first_key_counts_at_once(void **state) {
    server *s = *state;
    char key[256], line[4096];
    start_server(s, "tests/golden/tiny-code", NULL);
    reply r = get(s, "/v1/models");
    assert_int_equal(r.status, 200);
    free_reply(&r);
    run_cli(s->folder, "keys create ann --requests-per-minute 1", key, sizeof key);
    key[strcspn(key, "\n")] = 0;
    static const long expected[] = {401, 200, 429};
    for (int i = 0; i < 3; i++) {
        r = ask(s, (request){.path = "/v1/models", .key = i ? key : NULL});
        assert_int_equal(r.status, expected[i]);
        free_reply(&r);
    }
    run_cli(s->folder, "keys revoke ann", line, sizeof line);
    r = get(s, "/v1/models");
    assert_int_equal(r.status, 401);
    free_reply(&r);
}

static void test_other_addresses_need_a_key(void **state) {
    server *s = *state;
    char command[700], text[512] = {0};
    snprintf(command, sizeof command,
             "%s serve tests/golden/tiny-code --host 0.0.0.0 --port 0 --data %s 2>&1",
             test_program(), s->folder);
    FILE *f = popen(command, "r");
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    assert_true(pclose(f) != 0);
    assert_non_null(strstr(text, "longcat keys create"));
}

/* ---- numbers ---- */

static void test_replies_metrics_and_ledger_agree(void **state) {
    server *s = *state;
    char body[512], line[1024], command[700];
    int64_t fresh = 0, cached = 0, output = 0;
    start_server(s, "tests/golden/tiny-code", NULL);
    for (int i = 0; i < 12; i++) {
        snprintf(body, sizeof body,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"%s tell %d\"}],\"n\":%d,"
                 "\"max_tokens\":%d,\"temperature\":1}",
                 "A rather long sentence that is the same in every request, so that its beginning "
                 "can be found again in the cache after the first one, since it is longer than a "
                 "block of tokens of that cache is, which holds sixty-four of them.",
                 i % 3, 1 + i % 3, 5 + i);
        reply r = post(s, "/v1/chat/completions", body);
        int64_t hit = number_at(&r, "usage.prompt_tokens_details.cached_tokens");
        fresh += number_at(&r, "usage.prompt_tokens") - hit;
        cached += hit;
        output += number_at(&r, "usage.completion_tokens");
        free_reply(&r);
    }
    assert_true((int64_t)metric(s, "prompt_tokens_total") == fresh + cached);
    assert_true((int64_t)metric(s, "cached_prompt_tokens_total") == cached);
    assert_true((int64_t)metric(s, "generation_tokens_total") == output);
    stop_server(s, SIGKILL); /* what was answered is in the ledger */
    snprintf(command, sizeof command, "%s usage --by all --csv --data %s | tail -1", test_program(),
             s->folder);
    FILE *f = popen(command, "r");
    assert_non_null(fgets(line, sizeof line, f));
    pclose(f);
    assert_int_equal(csv_field(line, 1), 12);
    assert_int_equal(csv_field(line, 2), fresh);
    assert_int_equal(csv_field(line, 3), cached);
    assert_int_equal(csv_field(line, 4), output);
    printf("# %lld fresh, %lld cached, %lld output tokens in all three\n", (long long)fresh,
           (long long)cached, (long long)output);
}

/* ---- the end ---- */

static void *long_answer(void *ctx) {
    static reply r;
    r = post(ctx, "/v1/completions",
             "{\"prompt\":\"def\",\"max_tokens\":300,\"logit_bias\":{\"2\":-100}}");
    return &r;
}

static void test_sigterm_lets_answers_finish(void **state) {
    server *s = *state;
    pthread_t thread;
    void *got;
    start_server(s, "tests/golden/tiny-code", NULL);
    pthread_create(&thread, NULL, long_answer, s);
    for (int i = 0; i < 100 && metric(s, "num_requests_running") < 1; i++) usleep(10000);
    kill(s->pid, SIGTERM);
    pthread_join(thread, &got);
    const reply *r = got;
    assert_int_equal(r->status, 200);
    assert_int_equal(number_at(r, "usage.completion_tokens"), 300);
    free_reply(got);
    int status = end_of(s->pid);
    s->pid = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_bodies_are_never_logged(void **state) {
    server *s = *state;
    lc_buf log = {0};
    lc_err err = {0};
    start_server(s, "tests/golden/tiny-code", NULL);
    reply r = post(s, "/v1/chat/completions",
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"a-secret-word\"}],"
                   "\"max_tokens\":4}");
    free_reply(&r);
    r = post(s, "/v1/chat/completions", "{\"messages\":\"another-secret\"}");
    assert_int_equal(r.status, 400);
    free_reply(&r);
    stop_server(s, SIGTERM);
    assert_ok(lc_file_read(s->log, 0, &log, &err), err);
    assert_non_null(strstr(log.data, "chat/completions"));
    assert_null(strstr(log.data, "secret"));
    lc_buf_free(&log);
}

static void test_what_it_keeps_is_the_owners_alone(void **state) {
    server *s = *state;
    static const char *const names[] = {"accounts.db", "answers.db", "secret", "prompts"};
    start_server(s, "tests/golden/tiny-code", NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[400];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", s->folder, names[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0077, 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_server, end_server)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_four_wires_give_the_answer_that_run_gives),
        TEST(test_routes_of_longcats_platform),
        TEST(test_the_next_turn_extends_the_last_one),
        TEST(test_replays_hold_nothing_that_messages_lack),
        TEST(test_the_cache_survives_kill),
        TEST(test_answers_under_load_are_those_given_alone),
        TEST(test_a_client_that_hangs_up_stops_its_answer),
        TEST(test_forced_calls_and_schemas_hold),
        TEST(test_overflow_is_told_in_words_that_clients_know),
        TEST(test_keys_guard_everything_but_probes),
        TEST(test_the_first_key_counts_at_once),
        TEST(test_other_addresses_need_a_key),
        TEST(test_replies_metrics_and_ledger_agree),
        TEST(test_sigterm_lets_answers_finish),
        TEST(test_bodies_are_never_logged),
        TEST(test_what_it_keeps_is_the_owners_alone),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return test_main(tests);
}
