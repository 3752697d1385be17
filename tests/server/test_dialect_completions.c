/*
 * test_dialect_completions.c: OpenAI's legacy completions, echo and log probabilities included.
 * Expected values are written from OpenAI's documents and from what lm-eval's local-completions
 * reads, not from this program's output.
 */
#include "dialects.h"

static const lc_dialect *const d = &lc_dialect_completions;

static const request_case requests[] = {
    {"{\"model\":\"m\",\"prompt\":\"Once\"}",
     "{\"model\":\"m\",\"prompts\":[\"Once\"],\"max_tokens\":16}"},
    {"{\"prompt\":\"a\\u0000b\"}", "{\"prompts\":[\"a\\u0000b\"],\"max_tokens\":16}"},
    {"{\"prompt\":\"\"}", "{\"prompts\":[\"\"],\"max_tokens\":16}"},
    {"{\"prompt\":[\"a\",\"b\"]}", "{\"prompts\":[\"a\",\"b\"],\"max_tokens\":16}"},
    {"{\"prompt\":[1,2,3]}", "{\"prompts\":[[1,2,3]],\"max_tokens\":16}"},
    {"{\"prompt\":[[1,2],[2147483647]]}", "{\"prompts\":[[1,2],[2147483647]],\"max_tokens\":16}"},
    {"{\"prompt\":[\"a\",[4]]}", "{\"prompts\":[\"a\",[4]],\"max_tokens\":16}"},
    /* lm-eval */
    {"{\"model\":\"m\",\"prompt\":[[1,2]],\"max_tokens\":1,\"logprobs\":1,\"echo\":true,\"seed\":"
     "1234,\"temperature\":0}",
     "{\"model\":\"m\",\"prompts\":[[1,2]],\"max_tokens\":1,\"logprobs\":true,\"top_logprobs\":1,"
     "\"echo\":true,\"seed\":1234,\"temperature\":0}"},
    {"{\"prompt\":\"a\",\"max_tokens\":0,\"logprobs\":0,\"suffix\":\"\",\"best_of\":2,\"n\":2,"
     "\"stop\":[\"\\n\\n\"],\"stream\":true}",
     "{\"prompts\":[\"a\"],\"max_tokens\":0,\"logprobs\":true,\"n\":2,\"stops\":[\"\\n\\n\"],"
     "\"stream\":true}"},
    {"{\"prompt\":[\"a\",\"b\"],\"suffix\":\"z\"}",
     "{\"prompts\":[\"a\",\"b\"],\"suffix\":\"z\",\"max_tokens\":16}"},
    {"{\"prompt\":\"a\",\"logprobs\":null,\"max_tokens\":null}",
     "{\"prompts\":[\"a\"],\"max_tokens\":16}"},
};

static const refusal_case refusals[] = {
    {"{}", "prompt: is required"},
    {"{\"prompt\":[]}", "prompt: is required"},
    {"{\"prompt\":7}", "prompt: must be text"},
    {"{\"prompt\":{}}", "prompt: must be text"},
    {"{\"prompt\":[{}]}", "prompt: must be text"},
    {"{\"prompt\":[[]]}", "prompt: must be text"},
    {"{\"prompt\":[[[1]]]}", "prompt: must be text"},
    {"{\"prompt\":[[\"a\"]]}", "prompt: must be text"},
    {"{\"prompt\":[1,-1]}", "prompt: entry 1 of a list of tokens is no token id"},
    {"{\"prompt\":[1,\"a\"]}", "prompt: entry 1"},
    {"{\"prompt\":[1,1.5]}", "prompt: entry 1"},
    {"{\"prompt\":[2147483648]}", "prompt: entry 0"},
    {"{\"prompt\":[18446744073709551615]}", "prompt: entry 0"},
    {"{\"prompt\":\"a\",\"n\":5}", "n: must be from 1 to 4"},
    {"{\"prompt\":\"a\",\"best_of\":2}", "best_of: must equal n"},
    {"{\"prompt\":\"a\",\"best_of\":1000000}", "best_of: must be from 1 to 4"},
    {"{\"prompt\":\"a\",\"logprobs\":21}", "logprobs: must be from 0 to 20"},
    {"{\"prompt\":\"a\",\"logprobs\":true}", "logprobs: must be an integer"},
    {"{\"prompt\":\"a\",\"max_tokens\":-1}", "max_tokens: must be from 0"},
    {"{\"prompt\":\"a\",\"echo\":1}", "echo: must be true or false"},
    {"{\"prompt\":\"a\",\"suffix\":\"z\",\"echo\":true}", "echo: can't be combined with suffix"},
    {"{\"prompt\":\"a\",\"suffix\":7}", "suffix: must be a string"},
};

static void reads_requests(void **state) {
    (void)state;
    check_requests(d, requests, COUNT(requests));
}

static void refuses(void **state) {
    (void)state;
    check_refusals(d, refusals, COUNT(refusals));
}

static void keeps_limits(void **state) {
    (void)state;
    lc_buf body = {0};
    lc_api_request r = {0};
    lc_api_error e;
    lc_buf_puts(&body, "{\"prompt\":[\"a\"");
    for (int i = 0; i < 128; i++) lc_buf_puts(&body, ",\"a\"");
    lc_buf_puts(&body, "]}");
    assert_int_not_equal(parse_text(d, body.data, NULL, &r, &e), LC_OK);
    assert_string_equal(e.text, "prompt: has more than 128 entries");
    lc_api_request_free(&r);
    lc_buf_free(&body);
}

static void survives_lack_of_memory(void **state) {
    (void)state;
    size_t before = lc_mem_current();
    for (size_t i = 0; i < COUNT(requests); i++) {
        struct json_object *body = test_json(requests[i].body);
        for (long n = 0; n < 8; n++) {
            lc_api_request r = {0};
            lc_api_error e = {0};
            lc_mem_fail_after(n);
            int status = d->parse(body, test_header, NULL, &r, &e);
            lc_mem_fail_after(-1);
            assert_true(status == LC_OK ? e.status == 0 : e.status == 503);
            lc_api_request_free(&r);
        }
        json_object_put(body);
    }
    assert_int_equal(lc_mem_current(), before);
}

/* ---- replies ---- */

#define HEAD                                                                                       \
    "{\"id\":\"cmpl-ID\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":"         \
    "\"LongCat-2.0\",\"choices\":["
#define CHUNK(i, text, logprobs, finish)                                                           \
    "data: " HEAD "{\"index\":" i ",\"text\":\"" text "\",\"logprobs\":" logprobs                  \
    ",\"finish_reason\":" finish "}]}\n\n"
#define DONE "data: [DONE]\n\n"
#define USAGE_JSON                                                                                 \
    "\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":20,\"total_tokens\":120,"              \
    "\"prompt_tokens_details\":{\"cached_tokens\":60},\"completion_tokens_details\":{"             \
    "\"reasoning_tokens\":5}}"

static void streams(void **state) {
    (void)state;
    static const lc_api_event events[] = {
        BEGIN,
        PING,
        CONTENT("A\"\xE7\x8C\xAB"),
        {.kind = LC_API_CONTENT, .choice = 1, TEXT_OF("b")},
        FINISH(LC_REASON_LENGTH),
        {.kind = LC_API_FINISH, .choice = 1, .reason = LC_REASON_STOP_STRING, .stop_string = "x"},
        USAGE};
    check_bytes(d, "{\"prompt\":[\"p\",\"q\"],\"stream\":true}", events, COUNT(events),
                ": ping\n\n" CHUNK("0", "A\\\"\xE7\x8C\xAB", "null", "null")
                    CHUNK("1", "b", "null", "null") CHUNK("0", "", "null", "\"length\"")
                        CHUNK("1", "", "null", "\"stop\"") DONE);
    check_body(d, "{\"prompt\":\"p\",\"n\":2}", events, COUNT(events),
               HEAD "{\"index\":0,\"text\":\"A\\\"\xE7\x8C\xAB\",\"logprobs\":null,"
                    "\"finish_reason\":\"length\"},{\"index\":1,\"text\":\"b\",\"logprobs\":null,"
                    "\"finish_reason\":\"stop\"}]," USAGE_JSON "," LONGCAT_JSON "}");
}

static void tells_usage(void **state) {
    (void)state;
    static const lc_api_event events[] = {BEGIN, FINISH(LC_REASON_STOP), USAGE};
    check_bytes(d, "{\"prompt\":\"p\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
                events, COUNT(events),
                "data: " HEAD "{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":"
                "\"stop\"}],\"usage\":null}\n\ndata: " HEAD "]," USAGE_JSON "," LONGCAT_JSON
                "}\n\n" DONE);
}

/* Two prompt tokens, the halves of a character as answer, an end without text. */
static const lc_api_logprob first = {1, NAN, "Hi", 2}, second = {2, -0.25, " \xC3\xA9", 3},
                            third = {3, -2, "\xC3", 1}, fourth = {4, -0.125, "\xA9", 1},
                            last = {5, -0.5, "", 0}, other = {9, -0.75, "x", 1};
static const lc_api_logprob best[] = {{2, -0.25, " \xC3\xA9", 3}, {9, -0.75, "x", 1}};
static const lc_api_logprob *const best_list = best, *const other_list = &other;
static const size_t two = 2, one = 1;

#define TOKEN(k, t, own, list, n)                                                                  \
    { .kind = (k), TEXT_OF(t), .logprobs = (own), .tops = (list), .n_tops = (n), .n_logprobs = 1 }
static const lc_api_event echoed[] = {BEGIN,
                                      TOKEN(LC_API_PROMPT, "Hi", &first, &other_list, &one),
                                      TOKEN(LC_API_PROMPT, " \xC3\xA9", &second, &best_list, &two),
                                      TOKEN(LC_API_CONTENT, "", &third, &other_list, &one),
                                      TOKEN(LC_API_CONTENT, "\xC3\xA9", &fourth, &other_list, &one),
                                      TOKEN(LC_API_CONTENT, "", &last, &other_list, &one),
                                      FINISH(LC_REASON_STOP),
                                      USAGE};

static void echoes(void **state) {
    (void)state;
    check_body(
        d, "{\"prompt\":\"p\",\"echo\":true,\"logprobs\":2}", echoed, COUNT(echoed),
        HEAD "{\"index\":0,\"text\":\"Hi \xC3\xA9\xC3\xA9\",\"logprobs\":{\"tokens\":[\"Hi\",\" "
             "\xC3\xA9\",\"bytes:\\\\xc3\",\"bytes:\\\\xa9\",\"\"],\"token_logprobs\":[null,-0.25,"
             "-2,-0.125,-0.5],\"top_logprobs\":[null,{\" \xC3\xA9\":-0.25,\"x\":-0.75},{\"x\":"
             "-0.75,\"bytes:\\\\xc3\":-2},{\"x\":-0.75,\"bytes:\\\\xa9\":-0.125},{\"x\":-0.75,\"\":"
             "-0.5}],\"text_offset\":[0,2,4,5,5]},\"finish_reason\":\"stop\"}]," USAGE_JSON
             "," LONGCAT_JSON "}");
    static const lc_api_event part[] = {
        BEGIN, TOKEN(LC_API_PROMPT, "Hi", &first, &other_list, &one),
        TOKEN(LC_API_PROMPT, " \xC3\xA9", &second, &best_list, &two), FINISH(LC_REASON_STOP),
        USAGE};
    check_bytes(
        d, "{\"prompt\":\"p\",\"echo\":true,\"logprobs\":2,\"stream\":true}", part, COUNT(part),
        CHUNK("0", "Hi",
              "{\"tokens\":[\"Hi\"],\"token_logprobs\":[null],\"top_logprobs\":[null],"
              "\"text_offset\":[0]}",
              "null")
            CHUNK("0", " \xC3\xA9",
                  "{\"tokens\":[\" \xC3\xA9\"],\"token_logprobs\":[-0.25],\"top_logprobs\":[{\" "
                  "\xC3\xA9\":-0.25,\"x\":-0.75}],\"text_offset\":[2]}",
                  "null") CHUNK("0", "", "null", "\"stop\"") DONE);
}

static void tells_errors(void **state) {
    (void)state;
    static const lc_api_error broken = {.status = 500, .text = "x"};
    static const lc_api_event events[] = {BEGIN, {.kind = LC_API_ERROR, .error = &broken}};
    check_bytes(d, "{\"prompt\":\"p\",\"stream\":true}", events, COUNT(events),
                "data: {\"error\":{\"message\":\"x\",\"type\":\"server_error\",\"param\":null,"
                "\"code\":\"internal_error\"},\"request_id\":\"req_1\"}\n\n");
}

static void refuses_what_it_has_not(void **state) {
    (void)state;
    lc_api_request r = {0};
    lc_api_error e;
    lc_err err = {0};
    lc_api_reply *reply = NULL;
    lc_buf out = {0};
    assert_int_equal(parse_text(d, "{\"prompt\":\"p\",\"n\":2}", NULL, &r, &e), LC_OK);
    assert_ok(d->open(&r, &test_info, &reply, &err), err);
    const lc_api_event call = CALL("c", "f", "{}"),
                       beyond = {.kind = LC_API_CONTENT, .choice = 2, TEXT_OF("x")};
    assert_int_not_equal(d->event(reply, &call, &out, &err), LC_OK);
    assert_int_not_equal(d->event(reply, &beyond, &out, &err), LC_OK);
    d->close(reply);
    lc_api_request_free(&r);
    lc_buf_free(&out);
}

static void replies_short_of_memory(void **state) {
    (void)state;
    check_short_of_memory(d, "{\"prompt\":\"p\",\"echo\":true,\"logprobs\":2}", echoed,
                          COUNT(echoed));
    check_short_of_memory(d, "{\"prompt\":\"p\",\"logprobs\":2,\"stream\":true}", echoed,
                          COUNT(echoed));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_requests),
        cmocka_unit_test(refuses),
        cmocka_unit_test(keeps_limits),
        cmocka_unit_test(survives_lack_of_memory),
        cmocka_unit_test(streams),
        cmocka_unit_test(tells_usage),
        cmocka_unit_test(echoes),
        cmocka_unit_test(tells_errors),
        cmocka_unit_test(replies_short_of_memory),
        cmocka_unit_test(refuses_what_it_has_not),
    };
    return test_main(tests);
}
