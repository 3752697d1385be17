/*
 * test_dialect_messages.c: the Anthropic Messages dialect. Expected values are written from
 * Anthropic's documents and from requests of Claude Code as measured (notes on serving), not from
 * this program's output.
 */
#include "dialects.h"

#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define ONE(text) "\"messages\":[" USER(text) "]"

static const lc_dialect *const d = &lc_dialect_messages;

static const request_case requests[] = {
    {"{\"model\":\"LongCat-2.0\",\"max_tokens\":64," ONE("Hi") "}",
     "{\"model\":\"LongCat-2.0\",\"max_tokens\":64," ONE("Hi") "}"},
    /* counting tokens: no max_tokens */
    {"{" ONE("Hi") "}", "{" ONE("Hi") "}"},
    /* Claude Code's system: a billing block, cache_control; text parts equal a string */
    {"{\"system\":[{\"type\":\"text\",\"text\":\"x-anthropic-billing-header: "
     "cc_version=2.1.330.a1f; "
     "cc_entrypoint=cli;\"},{\"type\":\"text\",\"text\":\"You are Claude Code.\",\"cache_control\":"
     "{\"type\":\"ephemeral\"}},{\"type\":\"text\",\"text\":\"Rules.\"}],\"messages\":[{\"role\":"
     "\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\",\"cache_control\":{\"type\":"
     "\"ephemeral\"}}]}]}",
     "{\"messages\":[{\"role\":\"system\",\"content\":\"You are Claude Code.\\nRules.\"}," USER(
         "Hi") "]}"},
    {"{\"system\":\"Be brief.\"," ONE("Hi") "}",
     "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"}," USER("Hi") "]}"},
    {"{\"system\":\"x-anthropic-billing-header: a=b;\\nBe brief.\"," ONE("Hi") "}",
     "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"}," USER("Hi") "]}"},
    {"{\"system\":[{\"type\":\"text\",\"text\":\"x-anthropic-billing-header: a=b;\"}]," ONE(
         "Hi") "}",
     "{" ONE("Hi") "}"},
    /* a system message in the middle stays there */
    {"{\"messages\":[" USER("A") ",{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":"
                                 "\"Note\"}]}," USER("B") "]}",
     "{\"messages\":[" USER("A") ",{\"role\":\"system\",\"content\":\"Note\"}," USER("B") "]}"},
    /* a whole tool loop: thinking, text, two calls, two results, then words */
    {"{\"messages\":[" USER(
         "List") ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"I "
                 "look.\",\"signature\":\"SIG\"},{\"type\":\"redacted_thinking\",\"data\":\"x\"},"
                 "{\"type\":\"text\",\"text\":\"Let me \"},{\"type\":\"text\",\"text\":\"see.\"},"
                 "{\"type\":\"tool_use\",\"id\":\"call_1\",\"name\":\"Bash\",\"input\":{"
                 "\"command\":"
                 "\"ls\",\"n\":1.0}},{\"type\":\"tool_use\",\"id\":\"call_2\",\"name\":\"Read\","
                 "\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
                 "\"tool_use_id\":\"call_1\",\"content\":\"a\\nb\"},{\"type\":\"tool_result\","
                 "\"tool_use_id\":\"call_2\",\"is_error\":true,\"content\":[{\"type\":\"text\","
                 "\"text\":\"no\"},{\"type\":\"text\",\"text\":\"file\"}]},{\"type\":\"text\","
                 "\"text\":\"Go on\"},{\"type\":\"text\",\"text\":\"now\"}]}]}",
     "{\"messages\":[" USER(
         "List") ",{\"role\":\"assistant\",\"content\":\"Let me see.\",\"reasoning_content\":\"I "
                 "look.\",\"signature\":\"SIG\",\"tool_calls\":[{\"id\":\"call_1\",\"type\":"
                 "\"function\",\"function\":{\"name\":\"Bash\",\"arguments\":{\"command\":\"ls\","
                 "\"n\":1.0}}},{\"id\":\"call_2\",\"type\":\"function\",\"function\":{\"name\":"
                 "\"Read\",\"arguments\":{}}}]},{\"role\":\"tool\",\"content\":\"a\\nb\","
                 "\"tool_call_id\":\"call_1\"},{\"role\":\"tool\",\"content\":\"no\\nfile\","
                 "\"tool_call_id\":\"call_2\",\"is_error\":true},{\"role\":\"user\",\"content\":"
                 "\"Go on\\nnow\"}]}"},
    /* tools: deferred ones, the placeholder and the vendor's own are not rendered */
    {"{\"tools\":[{\"name\":\"Bash\",\"description\":\"Runs\",\"input_schema\":{\"type\":"
     "\"object\","
     "\"properties\":{\"b\":{},\"a\":{}}},\"cache_control\":{\"type\":\"ephemeral\"}},{\"name\":"
     "\"Deep\",\"input_schema\":{\"type\":\"object\"},\"defer_loading\":true},{\"name\":"
     "\"DeferredToolPlaceholder\",\"input_schema\":{\"type\":\"object\"}},{\"type\":"
     "\"web_search_20250305\",\"name\":\"web_search\"},{\"type\":\"custom\",\"name\":\"Edit\","
     "\"strict\":true,\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{\"type\":\"auto\","
     "\"disable_parallel_tool_use\":true},"
     "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":"
     "\"t\",\"content\":[{\"type\":\"tool_reference\",\"tool_name\":\"Deep\"},{\"type\":"
     "\"tool_reference\",\"tool_name\":\"Deep\"}]}]}]}",
     "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"Bash\",\"description\":\"Runs\","
     "\"parameters\":{\"type\":\"object\",\"properties\":{\"b\":{},\"a\":{}}}}},{\"type\":"
     "\"function\",\"function\":{\"name\":\"Edit\",\"parameters\":{\"type\":\"object\"}}}],"
     "\"strict\":true,\"parallel\":false,\"messages\":[{\"role\":\"tool\",\"tool_call_id\":\"t\","
     "\"content\":\"{\\\"name\\\":\\\"Deep\\\",\\\"input_schema\\\":{\\\"type\\\":\\\"object\\\"}}"
     "\\n{\\\"name\\\":\\\"Deep\\\"}\"}]}"},
    {"{\"tools\":[{\"name\":\"A\",\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{"
     "\"type\":"
     "\"tool\",\"name\":\"A\"}," ONE("Hi") "}",
     "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"A\",\"parameters\":{\"type\":"
     "\"object\"}}}],\"choice\":\"named\",\"tool\":\"A\"," ONE("Hi") "}"},
    {"{\"tools\":[{\"name\":\"A\",\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{"
     "\"type\":"
     "\"any\"}," ONE("Hi") "}",
     "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"A\",\"parameters\":{\"type\":"
     "\"object\"}}}],\"choice\":\"required\"," ONE("Hi") "}"},
    /* a strict schema beside tools that must not be used: Claude Code's title call */
    {"{\"tools\":[{\"name\":\"A\",\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{"
     "\"type\":"
     "\"none\"},\"output_config\":{\"effort\":\"high\",\"format\":{\"type\":\"json_schema\","
     "\"schema\":{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\"}}}}}," ONE(
         "Hi") "}",
     "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"A\",\"parameters\":{\"type\":"
     "\"object\"}}}],\"choice\":\"none\",\"format\":\"schema\",\"schema\":{\"type\":\"object\","
     "\"properties\":{\"title\":{\"type\":\"string\"}}}," ONE("Hi") "}"},
    /* what Claude Code adds and this server ignores */
    {"{\"thinking\":{\"type\":\"adaptive\",\"display\":\"omitted\"},\"context_management\":{"
     "\"edits\":"
     "[{\"type\":\"clear_thinking_20251015\"}]},\"safeguards\":{\"x\":[1]},\"metadata\":{\"user_"
     "id\":"
     "\"{\\\"device\\\":\\\"d\\\"}\"},\"stream\":true,\"temperature\":1,\"top_k\":40,\"top_p\":0.5,"
     "\"stop_sequences\":[\"END\"]," ONE("Hi") "}",
     "{\"hide_reasoning\":true,\"stream\":true,"
     "\"temperature\":1,\"top_k\":40,\"top_p\":0.5,\"stops\":[\"END\"]," ONE("Hi") "}"},
    {"{\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":16000}," ONE("Hi") "}",
     "{\"thinking\":\"on\"," ONE("Hi") "}"},
    {"{\"thinking\":{\"type\":\"disabled\"}," ONE("Hi") "}",
     "{\"thinking\":\"off\"," ONE("Hi") "}"},
    /* the beginning of the answer, written by the client */
    {"{\"messages\":[" USER("Hi") ",{\"role\":\"assistant\",\"content\":\"I say\"}]}",
     "{\"messages\":[" USER("Hi") ",{\"role\":\"assistant\",\"content\":\"I say\"}]}"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "{\"messages\":[" USER("") "]}"},
};

static const refusal_case refusals[] = {
    {"{}", "messages: at least one message"},
    {"{\"messages\":[]}", "messages: at least one message"},
    {"{\"messages\":{}}", "messages: must be a list"},
    {"{\"messages\":[1]}", "messages[0]: must be an object"},
    {"{\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}", "messages[0].role"},
    {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content: is required"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{}}]}]}",
     "messages[0].content[0]: this model takes text only, no image"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":"
     "\"document\"}]}]}",
     "messages[0].content[1]: this model takes text only, no document"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"document\"}]}]}",
     "text only"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"content\":[{"
     "\"type\":"
     "\"image\"}]}]}]}",
     "messages[0].content[0].content[0]: this model takes text only, no image"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"server_tool_use\"}]}]}",
     "content of type server_tool_use is not supported"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"name\":\"A\","
     "\"input\":\"{\"}]}]}",
     "messages[0].content[0].input: must be a JSON object"},
    {"{\"max_tokens\":0," ONE("x") "}", "max_tokens: must be from 1"},
    {"{\"max_tokens\":\"9\"," ONE("x") "}", "max_tokens: must be an integer"},
    {"{\"max_tokens\":1.5," ONE("x") "}", "max_tokens: must be an integer"},
    {"{\"max_tokens\":1e300," ONE("x") "}", "max_tokens: must be from 1"},
    {"{\"max_tokens\":-9223372036854775808," ONE("x") "}", "max_tokens: must be from 1"},
    {"{\"top_k\":99999999999999999999," ONE("x") "}", "top_k: must be from"},
    {"{\"temperature\":NaN," ONE("x") "}", "temperature: must be from 0 to 2"},
    {"{\"temperature\":2.1," ONE("x") "}", "temperature: must be from 0 to 2"},
    {"{\"temperature\":\"1\"," ONE("x") "}", "temperature: must be a number"},
    {"{\"stream\":1," ONE("x") "}", "stream: must be true or false"},
    {"{\"stop_sequences\":[\"\"]," ONE("x") "}", "stop_sequences: a stop string"},
    {"{\"stop_sequences\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\","
     "\"12\","
     "\"13\",\"14\",\"15\",\"16\",\"17\"]," ONE("x") "}",
     "stop_sequences: has more than 16"},
    {"{\"thinking\":{\"type\":\"on\"}," ONE("x") "}", "thinking.type"},
    {"{\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":-1}," ONE("x") "}",
     "thinking.budget_tokens"},
    {"{\"tools\":[{\"input_schema\":{}}]," ONE("x") "}", "tools[0].name: is required"},
    {"{\"tools\":[{\"name\":\"a b\",\"input_schema\":{}}]," ONE("x") "}",
     "tools[0].name: must have"},
    {"{\"tools\":[{\"name\":\"a</x>\",\"input_schema\":{}}]," ONE("x") "}", "tools[0].name"},
    {"{\"tools\":[{\"name\":\"a\",\"input_schema\":[]}]," ONE("x") "}", "schema of the parameters"},
    {"{\"tools\":[{\"name\":\"a\"},{\"name\":\"a\"}]," ONE("x") "}", "tools[1].name: tool names"},
    {"{\"tools\":[7]," ONE("x") "}", "tools[0]: must be an object"},
    {"{\"tool_choice\":{\"type\":\"tool\",\"name\":\"b\"},\"tools\":[{\"name\":\"a\"}]," ONE(
         "x") "}",
     "there is no tool called b"},
    {"{\"tool_choice\":{\"type\":\"any\"}," ONE("x") "}", "tool_choice: asks for a tool"},
    {"{\"tool_choice\":7," ONE("x") "}", "tool_choice"},
    {"{\"output_config\":{\"format\":{\"type\":\"json_schema\"}}," ONE("x") "}",
     "output_config.format.schema: is missing"},
    {"{\"output_config\":{\"format\":{\"type\":\"xml\"}}," ONE("x") "}",
     "output_config.format.type"},
    {"{\"system\":[{\"type\":\"image\"}]," ONE("x") "}", "system[0]: this model takes text only"},
    {"{\"system\":7," ONE("x") "}", "system: must be a list"},
};

static void reads_requests(void **state) {
    (void)state;
    check_requests(d, requests, COUNT(requests));
    const char *const headers[] = {"x-longcat-routed", "1", NULL};
    check_request(d, headers,
                  &(request_case){"{" ONE("Hi") "}", "{\"routed\":true," ONE("Hi") "}"});
}

static void refuses(void **state) {
    (void)state;
    check_refusals(d, refusals, COUNT(refusals));
}

/* Citations of users are refused from API version 2026-10-21 on. */
static void minds_the_version(void **state) {
    (void)state;
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\","
        "\"citations\":[{\"type\":\"char_location\"}]}]}]}";
    const char *headers[] = {"anthropic-version", "2023-06-01", NULL};
    lc_api_request r = {0};
    lc_api_error e;
    assert_int_equal(parse_text(d, body, headers, &r, &e), LC_OK);
    lc_api_request_free(&r);
    headers[1] = "2026-10-21";
    assert_int_not_equal(parse_text(d, body, headers, &r, &e), LC_OK);
    assert_string_equal(e.param, "messages[0].content[0].citations");
    lc_api_request_free(&r);
}

/* Counts beyond the limits: messages, blocks, tools, schemas. */
static void keeps_limits(void **state) {
    (void)state;
    static const struct {
        const char *before, *unit, *after, *fault;
        int count;
    } cases[] = {
        {"{\"messages\":[", USER("x"), "]}", "messages: has more than 20000", 20001},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[", "{\"type\":\"text\",\"text\":\"x\"}",
         "]}]}", "has more than 100000", 100001},
        {"{" ONE("x") ",\"tools\":[", "{\"name\":\"a\"}", "]}", "tools: has more than 512", 513},
        {"{" ONE("x") ",\"tools\":[{\"name\":\"a\",\"input_schema\":{\"enum\":[", "\"0123456789\"",
         "]}}]}", "larger than 256 KiB", 25000},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        lc_buf body = {0};
        lc_api_request r = {0};
        lc_api_error e;
        lc_buf_puts(&body, cases[i].before);
        for (int j = 0; j < cases[i].count; j++) {
            if (j) lc_buf_putc(&body, ',');
            lc_buf_puts(&body, cases[i].unit);
        }
        lc_buf_puts(&body, cases[i].after);
        assert_int_not_equal(parse_text(d, body.data, NULL, &r, &e), LC_OK);
        if (!strstr(e.text, cases[i].fault)) fail_msg("%s, not %s", e.text, cases[i].fault);
        lc_api_request_free(&r);
        lc_buf_free(&body);
    }
}

static void refuses_deep_schemas(void **state) {
    (void)state;
    lc_buf body = {0};
    lc_api_request r = {0};
    lc_api_error e;
    lc_buf_puts(&body, "{" ONE("x") ",\"tools\":[{\"name\":\"a\",\"input_schema\":");
    for (int i = 0; i < 33; i++) lc_buf_puts(&body, "{\"items\":");
    lc_buf_puts(&body, "1");
    for (int i = 0; i < 33; i++) lc_buf_puts(&body, "}");
    lc_buf_puts(&body, "}]}");
    assert_int_not_equal(parse_text(d, body.data, NULL, &r, &e), LC_OK);
    assert_non_null(strstr(e.text, "nested deeper than 32"));
    lc_api_request_free(&r);
    lc_buf_free(&body);
}

/* ---- replies ---- */

#define PLAIN "{" ONE("Hi") "}"
#define STREAM "{\"stream\":true," ONE("Hi") "}"
#define FRAME(name, rest) "event: " name "\ndata: {\"type\":\"" name "\"" rest "}\n\n"
#define START                                                                                      \
    FRAME("message_start",                                                                         \
          ",\"message\":{\"id\":\"msg_ID\",\"type\":\"message\",\"role\":\"assistant\",\"model\":" \
          "\"LongCat-2.0\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{" \
          "\"input_tokens\":0,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,"    \
          "\"output_tokens\":0,\"output_tokens_details\":{\"thinking_tokens\":0}}}")
#define USAGE_JSON                                                                                 \
    "\"usage\":{\"input_tokens\":40,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\"" \
    ":60,\"output_tokens\":20,\"output_tokens_details\":{\"thinking_tokens\":5}}"
#define END(reason, sequence)                                                                      \
    FRAME("message_delta", ",\"delta\":{\"stop_reason\":\"" reason                                 \
                           "\",\"stop_sequence\":" sequence "}," USAGE_JSON "," LONGCAT_JSON)      \
    FRAME("message_stop", "")
#define BLOCK_START(i, block)                                                                      \
    FRAME("content_block_start", ",\"index\":" i ",\"content_block\":{" block "}")
#define DELTA(i, delta) FRAME("content_block_delta", ",\"index\":" i ",\"delta\":{" delta "}")
#define STOP(i) FRAME("content_block_stop", ",\"index\":" i)

static const lc_api_event loop[] = {
    BEGIN,
    PING,
    REASONING("I"),
    REASONING(" see"),
    CONTENT("A\"\n\xE7\x8C\xAB"),
    CALL("call_1", "Bash", "{\"command\":\"ls\"}"),
    CALL("call_2", "Now", "{}"),
    FINISH(LC_REASON_CALLS),
    USAGE,
};

static void streams(void **state) {
    (void)state;
    check_bytes(
        d, STREAM, loop, COUNT(loop),
        START FRAME("ping", "")
            BLOCK_START("0", "\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"") DELTA(
                "0", "\"type\":\"thinking_delta\",\"thinking\":\"I\"")
                DELTA("0", "\"type\":\"thinking_delta\",\"thinking\":\" see\"") DELTA(
                    "0", "\"type\":\"signature_delta\",\"signature\":\"req_1\"") STOP("0")
                    BLOCK_START("1", "\"type\":\"text\",\"text\":\"\"") DELTA(
                        "1", "\"type\":\"text_delta\",\"text\":\"A\\\"\\n\xE7\x8C\xAB\"") STOP("1")
                        BLOCK_START("2", "\"type\":\"tool_use\",\"id\":\"call_1\",\"name\":"
                                         "\"Bash\",\"input\":{}")
                            DELTA("2", "\"type\":\"input_json_delta\",\"partial_json\":\"\"")
                                DELTA("2", "\"type\":\"input_json_delta\",\"partial_json\":"
                                           "\"{\\\"command\\\":\\\"ls\\\"}\"") STOP("2")
                                    BLOCK_START("3", "\"type\":\"tool_use\",\"id\":\"call_2\","
                                                     "\"name\":\"Now\",\"input\":{}")
                                        DELTA("3",
                                              "\"type\":\"input_json_delta\",\"partial_json\":\"\"")
                                            DELTA("3", "\"type\":\"input_json_delta\","
                                                       "\"partial_json\":\"{}\"") STOP("3")
                                                END("tool_use", "null"));
}

static void answers_whole(void **state) {
    (void)state;
    check_body(d, PLAIN, loop, COUNT(loop),
               "{\"id\":\"msg_ID\",\"type\":\"message\",\"role\":\"assistant\",\"model\":"
               "\"LongCat-2.0\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"I see\","
               "\"signature\":\"req_1\"},{\"type\":\"text\",\"text\":\"A\\\"\\n\xE7\x8C\xAB\"},{"
               "\"type\":\"tool_use\",\"id\":\"call_1\",\"name\":\"Bash\",\"input\":{\"command\":"
               "\"ls\"}},{\"type\":\"tool_use\",\"id\":\"call_2\",\"name\":\"Now\",\"input\":{}}],"
               "\"stop_reason\":\"tool_use\",\"stop_sequence\":null," USAGE_JSON "," LONGCAT_JSON
               "}");
    static const lc_api_event empty[] = {BEGIN, FINISH(LC_REASON_STOP), USAGE};
    check_body(d, PLAIN, empty, COUNT(empty),
               "{\"id\":\"msg_ID\",\"type\":\"message\",\"role\":\"assistant\",\"model\":"
               "\"LongCat-2.0\",\"content\":[],\"stop_reason\":\"end_turn\",\"stop_sequence\":null"
               "," USAGE_JSON "," LONGCAT_JSON "}");
}

static void says_why_it_ended(void **state) {
    (void)state;
    static const lc_api_event cut[] = {BEGIN, FINISH(LC_REASON_LENGTH), USAGE};
    static const lc_api_event stopped[] = {
        BEGIN,
        {.kind = LC_API_FINISH, .reason = LC_REASON_STOP_STRING, .stop_string = "E\"D"},
        USAGE};
    check_bytes(d, STREAM, cut, COUNT(cut), START END("max_tokens", "null"));
    check_bytes(d, STREAM, stopped, COUNT(stopped), START END("stop_sequence", "\"E\\\"D\""));
}

/* display omitted: a signature without words. */
static void hides_reasoning(void **state) {
    (void)state;
    static const lc_api_event events[] = {BEGIN, REASONING("secret"), CONTENT("x"),
                                          FINISH(LC_REASON_STOP), USAGE};
    check_bytes(
        d,
        "{\"stream\":true,\"thinking\":{\"type\":\"adaptive\",\"display\":\"omitted\"}," ONE(
            "Hi") "}",
        events, COUNT(events),
        START BLOCK_START("0", "\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"")
            DELTA("0", "\"type\":\"signature_delta\",\"signature\":\"req_1\"") STOP("0")
                BLOCK_START("1", "\"type\":\"text\",\"text\":\"\"")
                    DELTA("1", "\"type\":\"text_delta\",\"text\":\"x\"") STOP("1")
                        END("end_turn", "null"));
}

/* Fragments of long arguments join to the whole and end between characters. */
static void splits_arguments(void **state) {
    (void)state;
    lc_buf arguments = {0};
    lc_buf_puts(&arguments, "{\"a\":\"");
    for (int i = 0; i < 400; i++) lc_buf_puts(&arguments, "\xE7\x8C\xAB");
    lc_buf_puts(&arguments, "\"}");
    lc_api_event events[] = {CALL("c", "f", arguments.data)};
    lc_buf out = render(d, STREAM, events, 1), joined = {0};
    size_t fragments = 0;
    for (char *line = out.data; (line = strstr(line, "data: ")); line += 6) {
        char *end = strchr(line, '\n');
        *end = 0;
        struct json_object *frame = test_json(line + 6);
        struct json_object *part =
            json_object_object_get(json_object_object_get(frame, "delta"), "partial_json");
        if (part) lc_buf_puts(&joined, json_object_get_string(part));
        if (part) fragments++;
        json_object_put(frame);
        *end = '\n';
    }
    assert_string_equal(joined.data, arguments.data);
    assert_true(fragments > 4);
    lc_buf_free(&joined);
    lc_buf_free(&out);
    lc_buf_free(&arguments);
}

static void tells_errors(void **state) {
    (void)state;
    static const struct {
        int status;
        const char *type;
    } types[] = {
        {400, "invalid_request_error"}, {401, "authentication_error"}, {402, "billing_error"},
        {403, "permission_error"},      {404, "not_found_error"},      {409, "conflict_error"},
        {413, "request_too_large"},     {429, "rate_limit_error"},     {500, "api_error"},
        {503, "overloaded_error"},      {504, "timeout_error"},        {529, "overloaded_error"}};
    for (size_t i = 0; i < COUNT(types); i++) {
        char expected[256];
        lc_buf out = {0};
        lc_api_error e = {.status = types[i].status, .text = "No \"x\"\xFF"};
        d->error(&e, "req_9", &out);
        snprintf(expected, sizeof expected,
                 "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"No \\\"x\\\""
                 "\xEF\xBF\xBD\"},\"request_id\":\"req_9\"}",
                 types[i].type);
        assert_string_equal(out.data, expected);
        lc_buf_free(&out);
    }
    static const lc_api_error broken = {.status = 503, .text = "stopping"};
    static const lc_api_event events[] = {
        BEGIN, CONTENT("x"), {.kind = LC_API_ERROR, .error = &broken}};
    check_bytes(d, STREAM, events, COUNT(events),
                START BLOCK_START("0", "\"type\":\"text\",\"text\":\"\"")
                    DELTA("0", "\"type\":\"text_delta\",\"text\":\"x\"")
                        FRAME("error", ",\"error\":{\"type\":\"overloaded_error\",\"message\":"
                                       "\"stopping\"},\"request_id\":\"req_1\""));
}

static void replies_short_of_memory(void **state) {
    (void)state;
    check_short_of_memory(d, PLAIN, loop, COUNT(loop));
    check_short_of_memory(d, STREAM, loop, COUNT(loop));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_requests),       cmocka_unit_test(refuses),
        cmocka_unit_test(minds_the_version),    cmocka_unit_test(keeps_limits),
        cmocka_unit_test(refuses_deep_schemas), cmocka_unit_test(streams),
        cmocka_unit_test(answers_whole),        cmocka_unit_test(says_why_it_ended),
        cmocka_unit_test(hides_reasoning),      cmocka_unit_test(splits_arguments),
        cmocka_unit_test(tells_errors),         cmocka_unit_test(replies_short_of_memory),
    };
    return test_main(tests);
}
