/*
 * test_dialect_responses.c: OpenAI's Responses, as Codex speaks it. Expected values are written
 * from OpenAI's documents and from Codex's requests as measured, not from this program's output.
 */
#include "dialects.h"

#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define ONE(text) "\"messages\":[" USER(text) "]"
#define TOOL(name)                                                                                 \
    "{\"type\":\"function\",\"function\":{\"name\":\"" name                                        \
    "\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}"

static const lc_dialect *const d = &lc_dialect_responses;

static const request_case requests[] = {
    {"{\"model\":\"m\",\"input\":\"Hi\"}", "{\"model\":\"m\"," ONE("Hi") "}"},
    {"{\"instructions\":\"Be brief.\",\"input\":[{\"role\":\"user\",\"content\":\"Hi\"}]}",
     "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"}," USER("Hi") "]}"},
    /* Codex: developer items, text parts, fields that mean nothing here */
    {"{\"input\":[{\"type\":\"message\",\"role\":\"developer\",\"content\":[{\"type\":"
     "\"input_text\",\"text\":\"Rules\"},{\"type\":\"input_text\",\"text\":\"More\"}]},{\"type\":"
     "\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"Hi\"}]}],"
     "\"store\":false,\"stream\":true,\"include\":[\"reasoning.encrypted_content\"],"
     "\"prompt_cache_key\":\"k\",\"client_metadata\":{\"a\":\"b\"},\"reasoning\":{\"summary\":"
     "\"auto\"},\"parallel_tool_calls\":true}",
     "{\"messages\":[{\"role\":\"system\",\"content\":\"Rules\\nMore\"}," USER(
         "Hi") "],\"stream\":true,\"encrypted\":true}"},
    /* a tool loop: reasoning, text and two calls are one turn */
    {"{\"input\":[" USER(
         "List") ",{\"type\":\"reasoning\",\"id\":\"rs\",\"summary\":[],\"content\":[{\"type\":"
                 "\"reasoning_text\",\"text\":\"I look.\"}],\"encrypted_content\":\"SIG\"},{"
                 "\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":"
                 "\"output_text\",\"text\":\"Let me \"},{\"type\":\"output_text\",\"text\":"
                 "\"see.\"}]},{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"ls\","
                 "\"arguments\":\"{\\\"p\\\":1}\"},{\"type\":\"function_call\",\"call_id\":\"c2\","
                 "\"name\":\"pwd\",\"arguments\":\"{}\"},{\"type\":\"function_call_output\","
                 "\"call_id\":\"c1\",\"output\":\"a\"},{\"type\":\"function_call_output\","
                 "\"call_id\":\"c2\",\"output\":[{\"type\":\"input_text\",\"text\":\"b\"},{"
                 "\"type\":\"input_text\",\"text\":\"c\"}]},{\"type\":\"message\",\"role\":"
                 "\"assistant\",\"content\":\"Done\"}," USER("Go") "]}",
     "{\"messages\":[" USER(
         "List") ",{\"role\":\"assistant\",\"content\":\"Let me see.\",\"reasoning_content\":\"I "
                 "look.\",\"signature\":\"SIG\",\"tool_calls\":[{\"id\":\"c1\",\"type\":"
                 "\"function\",\"function\":{\"name\":\"ls\",\"arguments\":{\"p\":1}}},{\"id\":"
                 "\"c2\",\"type\":\"function\",\"function\":{\"name\":\"pwd\",\"arguments\":{}}}]},"
                 "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"a\"},{\"role\":\"tool\","
                 "\"tool_call_id\":\"c2\",\"content\":\"b\\nc\"},{\"role\":\"assistant\","
                 "\"content\":\"Done\"}," USER("Go") "]}"},
    /* turns that follow each other stay apart; a summary stands for reasoning without content */
    {"{\"input\":[{\"role\":\"assistant\",\"content\":\"A\"},{\"role\":\"assistant\",\"content\":"
     "\"B\"},{\"type\":\"reasoning\",\"summary\":[{\"type\":\"summary_text\",\"text\":\"C\"}]},{"
     "\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\",\"arguments\":\"\"}]}",
     "{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\"},{\"role\":\"assistant\","
     "\"content\":\"B\"},{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"C\","
     "\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\","
     "\"arguments\":{}}}]}]}"},
    /* Codex's tools: flat functions, a namespace, the vendor's own; a name that is taken */
    {"{\"input\":[" USER("x") ",{\"type\":\"function_call\",\"call_id\":\"c\",\"namespace\":\"b\","
                              "\"name\":\"find\",\"arguments\":\"{}\"},{\"type\":\"function_call\","
                              "\"call_id\":\"e\",\"namespace\":\"a\",\"name\":\"find\","
                              "\"arguments\":\"{}\"}],"
                              "\"tools\":[{\"type\":\"function\",\"name\":\"shell\","
                              "\"description\":\"Runs\",\"strict\":false,\"parameters\":{\"type\":"
                              "\"object\"}},{\"type\":\"namespace\",\"name\":\"a\",\"tools\":[{"
                              "\"type\":\"function\",\"name\":\"find\"}]},{\"type\":\"namespace\","
                              "\"name\":\"b\",\"tools\":[{\"type\":\"function\",\"name\":\"find\"},"
                              "{\"type\":\"custom\",\"name\":\"z\"}]},{\"type\":\"web_search\"},{"
                              "\"type\":\"function\",\"name\":\"late\",\"defer_loading\":true}]}",
     "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"shell\",\"description\":\"Runs\","
     "\"parameters\":{\"type\":\"object\"}}}," TOOL("find") "," TOOL(
         "b__find") "],\"messages\":[" USER("x") ",{\"role\":\"assistant\",\"content\":\"\",\"tool_"
                                                 "calls\":[{\"id\":\"c\","
                                                 "\"type\":\"function\",\"function\":{\"name\":\"b_"
                                                 "_find\",\"arguments\":{}}},{"
                                                 "\"id\":\"e\",\"type\":\"function\",\"function\":{"
                                                 "\"name\":\"find\","
                                                 "\"arguments\":{}}}]}]}"},
    {"{\"input\":\"x\",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"strict\":true}],"
     "\"tool_choice\":{\"type\":\"function\",\"name\":\"f\"},\"parallel_tool_calls\":false}",
     "{\"tools\":[" TOOL("f") "],\"strict\":true,\"choice\":\"named\",\"tool\":\"f\",\"parallel\":"
                              "false," ONE("x") "}"},
    {"{\"input\":\"x\",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"strict\":true}],"
     "\"tool_choice\":\"none\",\"text\":{\"verbosity\":\"low\",\"format\":{\"type\":\"json_schema\""
     ",\"name\":\"t\",\"strict\":true,\"schema\":{\"type\":\"object\"}}}}",
     "{\"tools\":[" TOOL("f") "],\"choice\":\"none\",\"format\":\"schema\",\"schema\":{\"type\":"
                              "\"object\"}," ONE("x") "}"},
    {"{\"input\":\"x\",\"text\":{\"format\":{\"type\":\"json_object\"}},\"max_output_tokens\":7,"
     "\"reasoning\":{\"effort\":\"none\"},\"top_logprobs\":3,\"include\":["
     "\"message.output_text.logprobs\"],\"temperature\":0,\"top_p\":1}",
     "{\"format\":\"object\",\"max_tokens\":7,\"thinking\":\"off\",\"top_logprobs\":3,\"logprobs\":"
     "true,\"temperature\":0,\"top_p\":1," ONE("x") "}"},
};

static const refusal_case refusals[] = {
    {"{}", "input: is required"},
    {"{\"input\":[]}", "input: is required"},
    {"{\"input\":7}", "input: must be a list"},
    {"{\"input\":[7]}", "input[0]: must be an object"},
    {"{\"input\":[{}]}", "input[0].type: is required"},
    {"{\"input\":[{\"role\":\"user\"}]}", "input[0].content: is required"},
    {"{\"input\":[{\"role\":\"king\",\"content\":\"x\"}]}", "input[0].role"},
    {"{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}]}",
     "input[0].content[0]: this model takes text only, no input_image"},
    {"{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_file\"}]}]}", "text only"},
    {"{\"input\":[{\"type\":\"function_call_output\",\"output\":[{\"type\":\"input_image\"}]}]}",
     "input[0].output[0]: this model takes text only"},
    {"{\"input\":[{\"type\":\"item_reference\",\"id\":\"x\"}]}", "items are not stored"},
    {"{\"input\":[{\"type\":\"local_shell_call\"}]}",
     "content of type local_shell_call is not supported"},
    {"{\"input\":[{\"type\":\"function_call\",\"name\":\"f\",\"arguments\":\"{\"}]}",
     "input[0].arguments: must be a JSON object"},
    {"{\"input\":[{\"type\":\"function_call\",\"arguments\":\"{}\"}]}", "input[0].name"},
    {"{\"input\":\"x\",\"previous_response_id\":\"resp_1\"}", "previous_response_id: nothing is"},
    {"{\"input\":\"x\",\"conversation\":{\"id\":\"c\"}}", "conversation: nothing is stored"},
    {"{\"input\":\"x\",\"background\":true}", "background: is not supported"},
    {"{\"input\":\"x\",\"max_output_tokens\":0}", "max_output_tokens: must be from 1"},
    {"{\"input\":\"x\",\"top_logprobs\":21}", "top_logprobs: must be from 0 to 20"},
    {"{\"input\":\"x\",\"instructions\":7}", "instructions: must be a string"},
    {"{\"input\":\"x\",\"include\":7}", "include: must be a list"},
    {"{\"input\":\"x\",\"text\":7}", "text: must be an object"},
    {"{\"input\":\"x\",\"text\":{\"format\":{\"type\":\"json_schema\"}}}",
     "text.format.schema: is missing"},
    {"{\"input\":\"x\",\"tools\":[{\"name\":\"f\"}]}", "tools[0].type: is required"},
    /* LongCat's platform says the same of functions nested as in chat */
    {"{\"input\":\"x\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}",
     "tools[0].name: is required"},
    {"{\"input\":\"x\",\"tools\":[{\"type\":\"namespace\",\"name\":\"n\",\"tools\":[{\"type\":"
     "\"function\"}]}]}",
     "tools[0].tools[0].name: is required"},
    {"{\"input\":\"x\",\"reasoning\":\"high\"}", "reasoning: must be an object"},
};

static void reads_requests(void **state) {
    (void)state;
    check_requests(d, requests, COUNT(requests));
}

static void refuses(void **state) {
    (void)state;
    check_refusals(d, refusals, COUNT(refusals));
}

static void survives_lack_of_memory(void **state) {
    (void)state;
    size_t before = lc_mem_current();
    for (size_t i = 0; i < COUNT(requests); i++) {
        struct json_object *body = test_json(requests[i].body);
        for (long n = 0; n < 30; n++) {
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

#define STREAM "{\"stream\":true,\"input\":\"Hi\"}"
#define PLAIN "{\"input\":\"Hi\"}"
#define FRAME(name, n, rest)                                                                       \
    "event: " name "\ndata: {\"type\":\"" name "\",\"sequence_number\":" n rest "}\n\n"
#define RESPONSE(status, details, output, usage)                                                   \
    "{\"id\":\"resp_ID\",\"object\":\"response\",\"created_at\":1700000000,\"status\":\"" status   \
    "\",\"background\":false,\"error\":null,\"incomplete_details\":" details                       \
    ",\"model\":\"LongCat-2.0\",\"output\":[" output                                               \
    "],\"instructions\":null,\"max_output_tokens\":null,\"metadata\":{},"                          \
    "\"parallel_tool_calls\":true,\"previous_response_id\":null,\"prompt_cache_key\":null,"        \
    "\"reasoning\":{\"effort\":null,\"summary\":null},\"store\":false,\"temperature\":null,"       \
    "\"text\":{\"format\":{\"type\":\"text\"}},\"tool_choice\":\"auto\",\"tools\":[],"             \
    "\"top_logprobs\":0,\"top_p\":null,\"truncation\":\"disabled\",\"user\":null,\"usage\":" usage \
    "}"
#define USAGE_JSON                                                                                 \
    "{\"input_tokens\":100,\"input_tokens_details\":{\"cached_tokens\":60,"                        \
    "\"cache_write_tokens\":0},\"output_tokens\":20,\"output_tokens_details\":{"                   \
    "\"reasoning_tokens\":5},\"total_tokens\":120}," LONGCAT_JSON
#define START                                                                                      \
    FRAME("response.created", "0", ",\"response\":" RESPONSE("in_progress", "null", "", "null"))   \
    FRAME("response.in_progress", "1", ",\"response\":" RESPONSE("in_progress", "null", "", "null"))
#define ITEM(id, index) ",\"item_id\":\"" id "\",\"output_index\":" index
#define PART(id, index) ITEM(id, index) ",\"content_index\":0"
#define THOUGHT(status, text)                                                                      \
    "{\"id\":\"rs_ID_0\",\"type\":\"reasoning\",\"summary\":[],\"content\":[" text                 \
    "],\"status\":\"" status "\"}"
#define THOUGHT_PART(text) "{\"type\":\"reasoning_text\",\"text\":\"" text "\"}"
#define MESSAGE(id, status, part)                                                                  \
    "{\"id\":\"" id "\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[" part            \
    "],\"status\":\"" status "\"}"
#define TEXT_PART(text)                                                                            \
    "{\"type\":\"output_text\",\"text\":\"" text "\",\"annotations\":[],\"logprobs\":[]}"
#define CALL_ITEM(id, status, call, name, arguments)                                               \
    "{\"id\":\"" id "\",\"type\":\"function_call\",\"status\":\"" status "\",\"call_id\":\"" call  \
    "\",\"name\":\"" name "\",\"arguments\":\"" arguments "\"}"
#define ARGUMENTS "{\\\"p\\\":1}"

static const lc_api_event loop[] = {
    BEGIN,
    PING,
    REASONING("I"),
    REASONING(" see"),
    CONTENT("A"),
    CONTENT("\n\xE7\x8C\xAB"),
    CALL("call_1", "ls", "{\"p\":1}"),
    FINISH(LC_REASON_CALLS),
    USAGE,
};

#define LOOP_OUTPUT                                                                                \
    THOUGHT("completed", THOUGHT_PART("I see"))                                                    \
    "," MESSAGE("msg_ID_1", "completed", TEXT_PART("A\\n\xE7\x8C\xAB")) "," CALL_ITEM(             \
        "fc_ID_2", "completed", "call_1", "ls", ARGUMENTS)

/* One frame a line, so that a failure can be read. */
static const char *const loop_frames[] = {
    START,
    ": ping\n\n",
    FRAME("response.output_item.added", "2",
          ",\"output_index\":0,\"item\":" THOUGHT("in_progress", "")),
    FRAME("response.content_part.added", "3", PART("rs_ID_0", "0") ",\"part\":" THOUGHT_PART("")),
    FRAME("response.reasoning_text.delta", "4", PART("rs_ID_0", "0") ",\"delta\":\"I\""),
    FRAME("response.reasoning_text.delta", "5", PART("rs_ID_0", "0") ",\"delta\":\" see\""),
    FRAME("response.reasoning_text.done", "6", PART("rs_ID_0", "0") ",\"text\":\"I see\""),
    FRAME("response.content_part.done", "7",
          PART("rs_ID_0", "0") ",\"part\":" THOUGHT_PART("I see")),
    FRAME("response.output_item.done", "8",
          ",\"output_index\":0,\"item\":" THOUGHT("completed", THOUGHT_PART("I see"))),
    FRAME("response.output_item.added", "9",
          ",\"output_index\":1,\"item\":" MESSAGE("msg_ID_1", "in_progress", "")),
    FRAME("response.content_part.added", "10", PART("msg_ID_1", "1") ",\"part\":" TEXT_PART("")),
    FRAME("response.output_text.delta", "11",
          PART("msg_ID_1", "1") ",\"delta\":\"A\",\"logprobs\":[]"),
    FRAME("response.output_text.delta", "12",
          PART("msg_ID_1", "1") ",\"delta\":\"\\n\xE7\x8C\xAB\",\"logprobs\":[]"),
    FRAME("response.output_text.done", "13",
          PART("msg_ID_1", "1") ",\"text\":\"A\\n\xE7\x8C\xAB\",\"logprobs\":[]"),
    FRAME("response.content_part.done", "14",
          PART("msg_ID_1", "1") ",\"part\":" TEXT_PART("A\\n\xE7\x8C\xAB")),
    FRAME("response.output_item.done", "15",
          ",\"output_index\":1,\"item\":" MESSAGE("msg_ID_1", "completed",
                                                  TEXT_PART("A\\n\xE7\x8C\xAB"))),
    FRAME("response.output_item.added", "16",
          ",\"output_index\":2,\"item\":" CALL_ITEM("fc_ID_2", "in_progress", "call_1", "ls", "")),
    FRAME("response.function_call_arguments.delta", "17",
          ITEM("fc_ID_2", "2") ",\"delta\":\"" ARGUMENTS "\""),
    FRAME("response.function_call_arguments.done", "18",
          ITEM("fc_ID_2", "2") ",\"name\":\"ls\",\"arguments\":\"" ARGUMENTS "\""),
    FRAME("response.output_item.done", "19",
          ",\"output_index\":2,\"item\":" CALL_ITEM("fc_ID_2", "completed", "call_1", "ls",
                                                    ARGUMENTS)),
    FRAME("response.completed", "20",
          ",\"response\":" RESPONSE("completed", "null", LOOP_OUTPUT, USAGE_JSON)),
};

static void streams(void **state) {
    (void)state;
    lc_buf expected = {0};
    for (size_t i = 0; i < COUNT(loop_frames); i++) lc_buf_puts(&expected, loop_frames[i]);
    check_bytes(d, STREAM, loop, COUNT(loop), expected.data);
    lc_buf_free(&expected);
}

static void answers_whole(void **state) {
    (void)state;
    check_body(d, PLAIN, loop, COUNT(loop), RESPONSE("completed", "null", LOOP_OUTPUT, USAGE_JSON));
}

static void says_what_was_cut(void **state) {
    (void)state;
    static const lc_api_event events[] = {BEGIN, CONTENT("A"), FINISH(LC_REASON_LENGTH), USAGE};
#define CUT                                                                                        \
    RESPONSE("incomplete", "{\"reason\":\"max_output_tokens\"}",                                   \
             MESSAGE("msg_ID_0", "incomplete", TEXT_PART("A")), USAGE_JSON)
    check_body(d, PLAIN, events, COUNT(events), CUT);
    lc_buf out = render(d, STREAM, events, COUNT(events));
    const char *end = FRAME("response.incomplete", "8", ",\"response\":" CUT);
    assert_true(out.len > strlen(end));
    assert_string_equal(out.data + out.len - strlen(end), end);
    lc_buf_free(&out);
}

/* encrypted_content if asked for; reasoning that isn't shown has no content. */
static void signs_reasoning(void **state) {
    (void)state;
    lc_buf out = render(d,
                        "{\"input\":\"Hi\",\"include\":[\"reasoning.encrypted_content\"],"
                        "\"reasoning\":{\"exclude\":true}}",
                        loop, COUNT(loop));
    assert_non_null(strstr(out.data, "{\"id\":\"rs_ID_0\",\"type\":\"reasoning\",\"summary\":[],"
                                     "\"content\":[],\"encrypted_content\":\"req_1\",\"status\":"
                                     "\"completed\"}"));
    assert_null(strstr(out.data, "I see"));
    lc_buf_free(&out);
}

static void names_namespaces(void **state) {
    (void)state;
    static const lc_api_event events[] = {BEGIN, CALL("c1", "find", "{}"),
                                          CALL("c2", "b__find", "{}"), FINISH(LC_REASON_CALLS),
                                          USAGE};
    lc_buf out = render(d,
                        "{\"input\":\"x\",\"tools\":[{\"type\":\"namespace\",\"name\":\"a\","
                        "\"tools\":[{\"type\":\"function\",\"name\":\"find\"}]},{\"type\":"
                        "\"namespace\",\"name\":\"b\",\"tools\":[{\"type\":\"function\",\"name\":"
                        "\"find\"}]}]}",
                        events, COUNT(events));
    static const char *const parts[] = {
        "\"call_id\":\"c1\",\"name\":\"find\",\"namespace\":\"a\",\"arguments\":\"{}\"",
        "\"call_id\":\"c2\",\"name\":\"find\",\"namespace\":\"b\",\"arguments\":\"{}\""};
    check_order(out.data, parts, COUNT(parts));
    assert_null(strstr(out.data, "longcat_inner"));
    lc_buf_free(&out);
}

static void repeats_the_request(void **state) {
    (void)state;
    static const lc_api_event events[] = {BEGIN, FINISH(LC_REASON_STOP), USAGE};
    lc_buf out = render(d,
                        "{\"input\":\"x\",\"instructions\":\"Be \\\"brief\\\".\",\"metadata\":{"
                        "\"a\":\"b\"},\"temperature\":0.7,\"max_output_tokens\":9,"
                        "\"parallel_tool_calls\":false,\"text\":{\"verbosity\":\"low\"}}",
                        events, COUNT(events));
    static const char *const parts[] = {"\"instructions\":\"Be \\\"brief\\\".\"",
                                        "\"max_output_tokens\":9",
                                        "\"metadata\":{\"a\":\"b\"}",
                                        "\"parallel_tool_calls\":false",
                                        "\"temperature\":0.7",
                                        "\"text\":{\"verbosity\":\"low\"}"};
    check_order(out.data, parts, COUNT(parts));
    lc_buf_free(&out);
}

static void gives_logprobs(void **state) {
    (void)state;
    static const lc_api_logprob own[] = {{7, -0.5, "A", 1}}, top[] = {{8, -1.5, "b", 1}};
    static const lc_api_logprob *const tops = top;
    static const size_t n = 1;
    static const lc_api_event events[] = {BEGIN,
                                          {.kind = LC_API_CONTENT,
                                           TEXT_OF("A"),
                                           .logprobs = own,
                                           .tops = &tops,
                                           .n_tops = &n,
                                           .n_logprobs = 1},
                                          FINISH(LC_REASON_STOP),
                                          USAGE};
#define LOGPROB                                                                                    \
    "\"logprobs\":[{\"token\":\"A\",\"logprob\":-0.5,\"bytes\":[65],\"top_logprobs\":[{\"token\":" \
    "\"b\",\"logprob\":-1.5,\"bytes\":[98]}]}]"
    lc_buf out = render(d,
                        "{\"input\":\"x\",\"stream\":true,\"include\":["
                        "\"message.output_text.logprobs\"],\"top_logprobs\":1}",
                        events, COUNT(events));
    static const char *const parts[] = {
        "output_text.delta\"",  LOGPROB, "output_text.done\"", LOGPROB,
        "content_part.done\"",  LOGPROB, "output_item.done\"", LOGPROB,
        "response.completed\"", LOGPROB};
    check_order(out.data, parts, COUNT(parts));
    lc_buf_free(&out);
}

static void tells_errors(void **state) {
    (void)state;
    static const lc_api_error broken = {.status = 503, .text = "stopping"};
    static const lc_api_event events[] = {BEGIN, {.kind = LC_API_ERROR, .error = &broken}};
    lc_buf out = render(d, STREAM, events, COUNT(events));
    static const char *const parts[] = {
        "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":2,",
        "\"status\":\"failed\"", "\"error\":{\"code\":\"server_error\",\"message\":\"stopping\"}"};
    check_order(out.data, parts, COUNT(parts));
    lc_buf_free(&out);
    check_body(d, PLAIN, events, COUNT(events),
               "{\"error\":{\"message\":\"stopping\",\"type\":\"server_error\",\"param\":null,"
               "\"code\":null},\"request_id\":\"req_1\"}");
}

static void replies_short_of_memory(void **state) {
    (void)state;
    check_short_of_memory(d, PLAIN, loop, COUNT(loop));
    check_short_of_memory(d, STREAM, loop, COUNT(loop));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_requests),
        cmocka_unit_test(refuses),
        cmocka_unit_test(survives_lack_of_memory),
        cmocka_unit_test(streams),
        cmocka_unit_test(answers_whole),
        cmocka_unit_test(says_what_was_cut),
        cmocka_unit_test(signs_reasoning),
        cmocka_unit_test(names_namespaces),
        cmocka_unit_test(repeats_the_request),
        cmocka_unit_test(gives_logprobs),
        cmocka_unit_test(tells_errors),
        cmocka_unit_test(replies_short_of_memory),
    };
    return test_main(tests);
}
