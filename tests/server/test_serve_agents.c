/*
 * test_serve_agents.c: what coding agents do all day, against the real program on models/nano: long
 * tool loops, a hundred counts at once, filling in the middle. Expected numbers are identities: a
 * turn's prompt holds the last one's and its answer. uses-threads: the server does.
 */
#include "serve_kit.h"

#include "text/tokenizer.h"

#include <pthread.h>

#define MODEL "models/nano"
enum { TURNS = 200, COUNTS = 100, BLOCK = 64 };

static void push(struct json_object *list, const char *text) {
    struct json_object *value = NULL;
    lc_err err = {0};
    assert_ok(lc_json_parse(text, strlen(text), "message", &value, &err), err);
    json_object_array_add(list, value);
}

/* One turn: the reply's call goes into the conversation, and what the tool says. */
static void take_call(struct json_object *messages, const reply *r, int turn) {
    struct json_object *message = at(r->json, "choices.0.message");
    struct json_object *arguments = NULL;
    const char *text = text_at(r, "choices.0.message.tool_calls.0.function.arguments");
    char result[200];
    lc_err err = {0};
    assert_string_equal(text_at(r, "choices.0.finish_reason"), "tool_calls");
    assert_int_equal(json_object_array_length(at(message, "tool_calls")), 1);
    assert_ok(lc_json_parse(text, strlen(text), "arguments", &arguments, &err), err);
    assert_non_null(strstr("north south east west", json_object_get_string(at(arguments, "way"))));
    json_object_put(arguments);
    json_object_array_add(messages, json_object_get(message));
    snprintf(result, sizeof result,
             "{\"role\":\"tool\",\"tool_call_id\":\"%s\",\"content\":\"room %d, two doors\"}",
             text_at(r, "choices.0.message.tool_calls.0.id"), turn);
    push(messages, result);
}

static reply ask_for_call(const server *s, struct json_object *messages) {
    lc_buf body = {0};
    lc_buf_printf(
        &body,
        "{\"messages\":%s,\"max_tokens\":200,\"temperature\":1,\"seed\":3,"
        "\"tool_choice\":\"required\",\"parallel_tool_calls\":false,"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"go\",\"parameters\":{"
        "\"type\":\"object\",\"required\":[\"way\"],\"additionalProperties\":false,"
        "\"properties\":{\"way\":{\"enum\":[\"north\",\"south\",\"east\",\"west\"]}}}}}]}",
        json_object_to_json_string_ext(messages, JSON_C_TO_STRING_PLAIN));
    reply r = post(s, "/v1/chat/completions", body.data);
    if (r.status != 200) fail_msg("%ld %s", r.status, r.body.data);
    lc_buf_free(&body);
    return r;
}

static void test_two_hundred_turns_of_a_tool_loop(void **state) {
    server *s = *state;
    struct json_object *messages = json_object_new_array();
    int64_t known = 0, prompt = 0, cached = 0;
    start_server(s, MODEL, NULL);
    push(messages, "{\"role\":\"user\",\"content\":\"Find the way out of the maze.\"}");
    for (int turn = 0; turn < TURNS; turn++) {
        reply r = ask_for_call(s, messages);
        prompt = number_at(&r, "usage.prompt_tokens");
        cached = number_at(&r, "usage.prompt_tokens_details.cached_tokens");
        if (cached < known / BLOCK * BLOCK - BLOCK || prompt <= known)
            fail_msg("turn %d: %lld of %lld cached, %lld known before", turn, (long long)cached,
                     (long long)prompt, (long long)known);
        known = number_at(&r, "usage.total_tokens");
        take_call(messages, &r, turn);
        free_reply(&r);
        if (turn != TURNS / 2) continue;
        stop_server(s, SIGTERM); /* the next turn comes to a new process */
        start_server(s, MODEL, NULL);
    }
    printf("# turn %d: %lld of %lld prompt tokens cached\n", TURNS, (long long)cached,
           (long long)prompt);
    assert_true(cached * 100 >= prompt * 95);
    json_object_put(messages);
}

/* ---- counts ---- */

static const char *const counted =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"How many tokens?\"}],\"max_tokens\":400}";

typedef struct counter {
    const server *s;
    int64_t tokens;
} counter;

static void *count(void *ctx) {
    counter *c = ctx;
    reply r = post(c->s, "/v1/messages/count_tokens", counted);
    c->tokens = r.status == 200 ? number_at(&r, "input_tokens") : -r.status;
    free_reply(&r);
    return NULL;
}

static void *answer(void *ctx) {
    static reply r;
    r = post(ctx, "/v1/messages", counted);
    return &r;
}

static void test_a_hundred_counts_at_once_beside_an_answer(void **state) {
    server *s = *state;
    pthread_t threads[COUNTS], busy;
    counter counters[COUNTS];
    void *got;
    start_server(s, MODEL, NULL);
    pthread_create(&busy, NULL, answer, s);
    for (int i = 0; i < COUNTS; i++) {
        counters[i] = (counter){.s = s};
        assert_int_equal(pthread_create(&threads[i], NULL, count, &counters[i]), 0);
    }
    for (int i = 0; i < COUNTS; i++) pthread_join(threads[i], NULL);
    pthread_join(busy, &got);
    assert_int_equal(((reply *)got)->status, 200);
    for (int i = 0; i < COUNTS; i++)
        assert_int_equal(counters[i].tokens, number_at(got, "usage.input_tokens"));
    free_reply(got);
}

/* ---- editors ---- */

static void add_ids(struct json_object *list, const lc_tokenizer *t, const char *text) {
    lc_ids ids = {0};
    lc_err err = {0};
    assert_ok(lc_tokenizer_encode(t, text, strlen(text), LC_ENCODE_PLAIN, false, &ids, &err), err);
    for (size_t i = 0; i < ids.len; i++)
        json_object_array_add(list, json_object_new_int(ids.data[i]));
    lc_ids_free(&ids);
}

static void test_a_suffix_is_filled_in_front_of(void **state) {
    static const char *const before = "def add(a, b):\n    return ", *const after =
                                                                         "\n\nadd(1, 2)\n";
    server *s = *state;
    lc_tokenizer *t = NULL;
    lc_fim_tokens fim;
    lc_err err = {0};
    assert_ok(lc_tokenizer_load(MODEL, &t, &err), err);
    assert_true(lc_tokenizer_fim(t, &fim));
    struct json_object *ids = json_object_new_array(), *body = json_object_new_object();
    json_object_array_add(ids, json_object_new_int(fim.prefix));
    add_ids(ids, t, before);
    json_object_array_add(ids, json_object_new_int(fim.suffix));
    add_ids(ids, t, after);
    json_object_array_add(ids, json_object_new_int(fim.middle));
    start_server(s, MODEL, NULL);
    json_object_object_add(body, "temperature", json_object_new_int(0));
    json_object_object_add(body, "prompt", ids);
    reply expected = post(s, "/v1/completions", json_object_to_json_string(body));
    json_object_object_add(body, "prompt", json_object_new_string(before));
    json_object_object_add(body, "suffix", json_object_new_string(after));
    reply r = post(s, "/v1/completions", json_object_to_json_string(body));
    assert_string_equal(text_at(&r, "choices.0.text"), text_at(&expected, "choices.0.text"));
    assert_int_equal(number_at(&r, "usage.prompt_tokens"),
                     number_at(&expected, "usage.prompt_tokens"));
    free_reply(&r);
    free_reply(&expected);
    json_object_put(body);
    lc_tokenizer_free(t);
}

static void test_a_suffix_needs_a_model_that_knows_it(void **state) {
    server *s = *state;
    start_server(s, "tests/golden/tiny-code", NULL);
    reply r = post(s, "/v1/completions", "{\"prompt\":\"a\",\"suffix\":\"z\"}");
    assert_int_equal(r.status, 400);
    assert_non_null(strstr(text_at(&r, "error.message"), "suffix: this model has no tokens"));
    free_reply(&r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_server, end_server)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_two_hundred_turns_of_a_tool_loop),
        TEST(test_a_hundred_counts_at_once_beside_an_answer),
        TEST(test_a_suffix_is_filled_in_front_of),
        TEST(test_a_suffix_needs_a_model_that_knows_it),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return test_main(tests);
}
