/*
 * test_dialect_chat.c: OpenAI chat completions. Expected values are written from OpenAI's
 * documents, LongCat's platform and requests of real clients as measured, not from this program's
 * output.
 */
#include "dialects.h"

#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define ONE(text) "\"messages\":[" USER(text) "]"
#define TOOL(name)                                                                                 \
    "{\"type\":\"function\",\"function\":{\"name\":\"" name                                        \
    "\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}"

static const lc_dialect *const d = &lc_dialect_chat;

static const request_case requests[] = {
    {"{\"model\":\"LongCat-2.0\"," ONE("Hi") "}", "{\"model\":\"LongCat-2.0\"," ONE("Hi") "}"},
    /* null is the same as absent; what is unknown is ignored */
    {"{\"temperature\":null,\"stop\":null,\"tools\":null,\"response_format\":null,\"n\":null,"
     "\"store\":false,\"metadata\":{},\"what\":[{}]," ONE("Hi") "}",
     "{" ONE("Hi") "}"},
    /* parts equal a string; developer is system */
    {"{\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"Be\"},{"
     "\"type\":\"text\",\"text\":\"brief\"}]},{\"role\":\"user\",\"content\":[{\"type\":\"text\","
     "\"text\":\"Hi\"}]}]}",
     "{\"messages\":[{\"role\":\"system\",\"content\":\"Be\\nbrief\"}," USER("Hi") "]}"},
    /* a tool loop, with reasoning sent back and arguments as strings and as objects */
    {"{\"messages\":[" USER(
         "List") ",{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"I look.\","
                 "\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":"
                 "\"ls\",\"arguments\":\"{\\\"p\\\": [1, 2.50], \\\"q\\\":\\\"x\\\"}\"}},{\"id\":"
                 "\"c2\",\"type\":\"function\",\"function\":{\"name\":\"pwd\",\"arguments\":\"\"}},"
                 "{\"id\":\"c3\",\"function\":{\"name\":\"id\",\"arguments\":{\"u\":null}}}]},{"
                 "\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"a\"},{\"role\":\"tool\","
                 "\"tool_call_id\":\"c2\",\"content\":[{\"type\":\"text\",\"text\":\"b\"}]}]}",
     "{\"messages\":[" USER(
         "List") ",{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"I look.\","
                 "\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":"
                 "\"ls\",\"arguments\":{\"p\":[1,2.5],\"q\":\"x\"}}},{\"id\":\"c2\",\"type\":"
                 "\"function\",\"function\":{\"name\":\"pwd\",\"arguments\":{}}},{\"id\":\"c3\","
                 "\"type\":\"function\",\"function\":{\"name\":\"id\",\"arguments\":{\"u\":null}}}]"
                 "},{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"a\"},{\"role\":"
                 "\"tool\",\"tool_call_id\":\"c2\",\"content\":\"b\"}]}"},
    /* both spellings of the limit */
    {"{\"max_tokens\":8000," ONE("Hi") "}", "{\"max_tokens\":8000," ONE("Hi") "}"},
    {"{\"max_completion_tokens\":9007199254740992," ONE("Hi") "}",
     "{\"max_tokens\":9007199254740992," ONE("Hi") "}"},
    {"{\"max_tokens\":16.0," ONE("Hi") "}", "{\"max_tokens\":16," ONE("Hi") "}"},
    /* sampling */
    {"{\"temperature\":0.5,\"top_p\":0.9,\"top_k\":-1,\"min_p\":0.1,\"seed\":-1,\"stop\":\"END\","
     "\"presence_penalty\":-2,\"frequency_penalty\":2,\"repetition_penalty\":1.1,\"n\":4,"
     "\"logit_bias\":{\"5\":-100,\"2147483647\":1.5},\"logprobs\":true,\"top_logprobs\":20,"
     "\"ignore_eos\":true," ONE("Hi") "}",
     "{\"temperature\":0.5,\"top_p\":0.9,\"top_k\":0,\"min_p\":0.1,\"seed\":18446744073709551615,"
     "\"stops\":[\"END\"],\"presence_penalty\":-2,\"frequency_penalty\":2,\"repetition_penalty\":"
     "1.1,\"n\":4,\"biases\":{\"5\":-100,\"2147483647\":1.5},\"logprobs\":true,\"top_logprobs\":"
     "20,\"ignore_eos\":true," ONE("Hi") "}"},
    {"{\"stop\":[\"a\",\"b\"],\"stream\":true,\"stream_options\":{\"include_usage\":true},"
     "\"prompt_cache_key\":\"k\",\"user\":\"u\",\"longcat_routed\":true," ONE("Hi") "}",
     "{\"stops\":[\"a\",\"b\"],\"stream\":true,\"include_usage\":true,\"routed\":true," ONE(
         "Hi") "}"},
    /* thinking in every spelling */
    {"{\"thinking\":{\"type\":\"enabled\"}," ONE("x") "}", "{\"thinking\":\"on\"," ONE("x") "}"},
    {"{\"thinking\":{\"type\":\"disabled\"}," ONE("x") "}", "{\"thinking\":\"off\"," ONE("x") "}"},
    {"{\"enable_thinking\":true," ONE("x") "}", "{\"thinking\":\"on\"," ONE("x") "}"},
    {"{\"enable_thinking\":false," ONE("x") "}", "{\"thinking\":\"off\"," ONE("x") "}"},
    {"{\"reasoning_effort\":\"none\"," ONE("x") "}", "{\"thinking\":\"off\"," ONE("x") "}"},
    {"{\"reasoning_effort\":\"high\"," ONE("x") "}", "{\"thinking\":\"on\"," ONE("x") "}"},
    {"{\"reasoning\":{\"effort\":\"low\",\"exclude\":true}," ONE("x") "}",
     "{\"thinking\":\"on\",\"hide_reasoning\":true," ONE("x") "}"},
    {"{\"chat_template_kwargs\":{\"enable_thinking\":false,\"save_reasoning_content\":true,"
     "\"messages\":[],\"tokenize\":true}," ONE("x") "}",
     "{\"thinking\":\"off\",\"keep_reasoning\":true," ONE("x") "}"},
    /* tools; a tool that runs elsewhere is ignored */
    {"{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"ls\",\"description\":\"Lists\","
     "\"parameters\":{\"type\":\"object\"},\"strict\":true}},{\"type\":\"web_search\"},{\"type\":"
     "\"function\",\"function\":{\"name\":\"pwd\"}}],\"parallel_tool_calls\":false," ONE("x") "}",
     "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"ls\",\"description\":\"Lists\","
     "\"parameters\":{\"type\":\"object\"}}}," TOOL(
         "pwd") "],\"strict\":true,\"parallel\":false," ONE("x") "}"},
    {"{\"tools\":[" TOOL("a") "],\"tool_choice\":\"required\"," ONE("x") "}",
     "{\"tools\":[" TOOL("a") "],\"choice\":\"required\"," ONE("x") "}"},
    {"{\"tools\":[" TOOL("a") "],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"
                              "\"a\"}}," ONE("x") "}",
     "{\"tools\":[" TOOL("a") "],\"choice\":\"named\",\"tool\":\"a\"," ONE("x") "}"},
    {"{\"tools\":[" TOOL("a") "],\"tool_choice\":\"auto\"," ONE("x") "}",
     "{\"tools\":[" TOOL("a") "]," ONE("x") "}"},
    /* a strict schema beside tools that must not be used */
    {"{\"tools\":[" TOOL("a") "],\"tool_choice\":\"none\",\"response_format\":{\"type\":"
                              "\"json_schema\",\"json_schema\":{\"name\":\"t\",\"strict\":true,"
                              "\"schema\":{\"type\":\"object\"}}}," ONE("x") "}",
     "{\"tools\":[" TOOL("a") "],\"choice\":\"none\",\"format\":\"schema\",\"schema\":{\"type\":"
                              "\"object\"}," ONE("x") "}"},
    /* a forced call leaves no text for a format */
    {"{\"tools\":[" TOOL("a") "],\"tool_choice\":\"required\",\"response_format\":{\"type\":"
                              "\"json_object\"}," ONE("x") "}",
     "{\"tools\":[" TOOL("a") "],\"choice\":\"required\"," ONE("x") "}"},
    {"{\"response_format\":{\"type\":\"json_object\"}," ONE("x") "}",
     "{\"format\":\"object\"," ONE("x") "}"},
    {"{\"response_format\":{\"type\":\"text\"}," ONE("x") "}", "{" ONE("x") "}"},
};

static const refusal_case refusals[] = {
    {"{}", "messages: at least one message"},
    {"{\"messages\":\"x\"}", "messages: must be a list"},
    {"{\"messages\":[null]}", "messages[0]: must be an object"},
    {"{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role"},
    {"{\"messages\":[{\"role\":1}]}", "messages[0].role: must be a string"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":7}]}", "messages[0].content: must be a string"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}",
     "messages[0].content[0]: this model takes text only, no image_url"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]}", "text only"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\"}]}]}", "text only"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"dance\"}]}]}",
     "content of type dance is not supported"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
     "messages[0].content[0].text: is required"},
    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
     "\"arguments\":\"{\\\"a\\\":\"}}]}]}",
     "messages[0].tool_calls[0].function.arguments: must be a JSON object"},
    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
     "\"arguments\":\"[1]\"}}]}]}",
     "arguments: must be a JSON object"},
    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
     "\"arguments\":7}}]}]}",
     "arguments: must be a JSON object"},
    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}", "function: is required"},
    {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}]}",
     "function.name: is required"},
    {"{\"n\":5," ONE("x") "}", "n: must be from 1 to 4"},
    {"{\"n\":0," ONE("x") "}", "n: must be from 1 to 4"},
    {"{\"n\":1e9," ONE("x") "}", "n: must be from 1 to 4"},
    {"{\"n\":\"1\"," ONE("x") "}", "n: must be an integer"},
    {"{\"top_logprobs\":21,\"logprobs\":true," ONE("x") "}", "top_logprobs: must be from 0 to 20"},
    {"{\"top_logprobs\":2," ONE("x") "}", "top_logprobs: needs logprobs"},
    {"{\"top_p\":1.01," ONE("x") "}", "top_p: must be from 0 to 1"},
    {"{\"min_p\":-0.1," ONE("x") "}", "min_p: must be from 0 to 1"},
    {"{\"repetition_penalty\":0," ONE("x") "}", "repetition_penalty"},
    {"{\"presence_penalty\":3," ONE("x") "}", "presence_penalty: must be from -2 to 2"},
    {"{\"frequency_penalty\":Infinity," ONE("x") "}", "frequency_penalty"},
    {"{\"top_k\":-2," ONE("x") "}", "top_k: must be from -1"},
    {"{\"top_k\":2147483648," ONE("x") "}", "top_k: must be from -1"},
    {"{\"seed\":1.5," ONE("x") "}", "seed: must be an integer"},
    {"{\"seed\":99999999999999999999," ONE("x") "}", "seed: must be an integer of 64 bits"},
    {"{\"logit_bias\":{\"x\":1}," ONE("x") "}", "logit_bias: keys must be token ids"},
    {"{\"logit_bias\":{\"-1\":1}," ONE("x") "}", "logit_bias: keys must be token ids"},
    {"{\"logit_bias\":{\"2147483648\":1}," ONE("x") "}", "logit_bias: keys must be token ids"},
    {"{\"logit_bias\":{\"99999999999999999999999\":1}," ONE("x") "}", "must be token ids"},
    {"{\"logit_bias\":{\"5\":101}," ONE("x") "}", "logit_bias.5: must be from -100 to 100"},
    {"{\"logit_bias\":[]," ONE("x") "}", "logit_bias: must be an object"},
    {"{\"stop\":7," ONE("x") "}", "stop: must be a string"},
    {"{\"stop\":[[]]," ONE("x") "}", "stop: must be a string"},
    {"{\"stop\":\"a\\u0000b\"," ONE("x") "}", "no NUL character"},
    {"{\"model\":7," ONE("x") "}", "model: must be a string"},
    {"{\"model\":\"a\\u0000b\"," ONE("x") "}", "model: holds a NUL"},
    {"{\"stream_options\":[]," ONE("x") "}", "stream_options: must be an object"},
    {"{\"tools\":{}," ONE("x") "}", "tools: must be a list"},
    {"{\"tools\":[{\"type\":\"function\",\"name\":\"f\"}]," ONE("x") "}",
     "tools[0].function: is required"},
    {"{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":7}}]," ONE("x") "}",
     "tools[0].function.name: must be a string"},
    {"{\"tool_choice\":\"maybe\"," ONE("x") "}", "tool_choice: must be auto"},
    {"{\"tool_choice\":\"required\"," ONE("x") "}", "tool_choice: asks for a tool"},
    {"{\"tools\":[" TOOL("a") "],\"tool_choice\":{\"type\":\"function\",\"function\":{}}," ONE(
         "x") "}",
     "tool_choice.name: is required"},
    {"{\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}," ONE("x") "}",
     "response_format.json_schema.schema: is missing"},
    {"{\"response_format\":\"json\"," ONE("x") "}", "response_format: must be an object"},
    {"{\"response_format\":{\"type\":\"grammar\"}," ONE("x") "}", "response_format.type"},
    {"{\"enable_thinking\":\"yes\"," ONE("x") "}", "enable_thinking: must be true or false"},
    {"{\"chat_template_kwargs\":{\"enable_thinking\":1}," ONE("x") "}",
     "chat_template_kwargs.enable_thinking"},
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
    lc_buf_puts(&body, "{" ONE("x") ",\"logit_bias\":{\"0\":1");
    for (int i = 1; i <= LC_API_BIASES; i++) lc_buf_printf(&body, ",\"%d\":1", i);
    lc_buf_puts(&body, "}}");
    assert_int_not_equal(parse_text(d, body.data, NULL, &r, &e), LC_OK);
    assert_string_equal(e.text, "logit_bias: has more than 1024 entries");
    lc_api_request_free(&r);
    lc_buf_clear(&body);
    lc_buf_puts(&body, "{" ONE("x") ",\"stop\":\"");
    for (int i = 0; i <= LC_API_STOP_BYTES; i++) lc_buf_puts(&body, "x");
    lc_buf_puts(&body, "\"}");
    assert_int_not_equal(parse_text(d, body.data, NULL, &r, &e), LC_OK);
    assert_string_equal(e.param, "stop");
    lc_api_request_free(&r);
    lc_buf_free(&body);
}

/* Every allocation fails once: an error, never a crash, nothing lost. */
static void survives_lack_of_memory(void **state) {
    (void)state;
    size_t before = lc_mem_current();
    for (size_t i = 0; i < COUNT(requests); i++) {
        struct json_object *body = test_json(requests[i].body);
        for (long n = 0; n < 12; n++) {
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

#define PLAIN "{" ONE("Hi") "}"
#define STREAM "{\"stream\":true," ONE("Hi") "}"
#define STREAM_USAGE "{\"stream\":true,\"stream_options\":{\"include_usage\":true}," ONE("Hi") "}"
#define HEAD(object)                                                                               \
    "{\"id\":\"chatcmpl-ID\",\"object\":\"" object                                                 \
    "\",\"created\":1700000000,\"model\":\"LongCat-2.0\""
#define CHUNK_REST(i, delta, logprobs, finish, rest)                                               \
    "data: " HEAD("chat.completion.chunk") ",\"choices\":[{\"index\":" i ",\"delta\":{" delta      \
                                           "},\"logprobs\":" logprobs ",\"finish_reason\":" finish \
                                           "}]" rest "}\n\n"
#define CHUNK(i, delta, finish) CHUNK_REST(i, delta, "null", finish, "")
#define CHUNK_U(i, delta, finish) CHUNK_REST(i, delta, "null", finish, ",\"usage\":null")
#define ROLE "\"role\":\"assistant\",\"content\":\"\""
#define DONE "data: [DONE]\n\n"
#define USAGE_JSON                                                                                 \
    "\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":20,\"total_tokens\":120,"              \
    "\"prompt_tokens_details\":{\"cached_tokens\":60},\"completion_tokens_details\":{"             \
    "\"reasoning_tokens\":5}}"

static const lc_api_event loop[] = {
    BEGIN,
    PING,
    REASONING("I see"),
    CONTENT("A\"\n\xE7\x8C\xAB"),
    CALL("call_1", "ls", "{\"p\":1}"),
    CALL("call_2", "now", "{}"),
    FINISH(LC_REASON_CALLS),
    USAGE,
};

static void streams(void **state) {
    (void)state;
    check_bytes(
        d, STREAM_USAGE, loop, COUNT(loop),
        CHUNK_U("0", ROLE, "null") ": ping\n\n" CHUNK_U(
            "0", "\"reasoning_content\":\"I see\"",
            "null") CHUNK_U("0", "\"content\":\"A\\\"\\n\xE7\x8C\xAB\"",
                            "null") CHUNK_U("0",
                                            "\"tool_calls\":[{\"index\":0,\"id\":\"call_1\","
                                            "\"type\":\"function\",\"function\":{\"name\":\"ls\","
                                            "\"arguments\":\"\"}}]",
                                            "null")
            CHUNK_U("0",
                    "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"p\\\":1}\"}}]",
                    "null")
                CHUNK_U("0",
                        "\"tool_calls\":[{\"index\":1,\"id\":\"call_2\",\"type\":\"function\","
                        "\"function\":{\"name\":\"now\",\"arguments\":\"\"}}]",
                        "null")
                    CHUNK_U("0",
                            "\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"{}\"}}]",
                            "null")
                        CHUNK_U("0", "", "\"tool_calls\"") "data: " HEAD(
                            "chat."
                            "completion."
                            "chunk") ",\"choices\":[]," USAGE_JSON "," LONGCAT_JSON "}"
                                     "\n\n" DONE);
}

static void streams_without_usage(void **state) {
    (void)state;
    static const lc_api_event events[] = {BEGIN, CONTENT("x"), FINISH(LC_REASON_LENGTH), USAGE};
    check_bytes(d, STREAM, events, COUNT(events),
                CHUNK("0", ROLE, "null") CHUNK("0", "\"content\":\"x\"", "null")
                    CHUNK("0", "", "\"length\"") DONE);
}

static void answers_whole(void **state) {
    (void)state;
    check_body(
        d, PLAIN, loop, COUNT(loop),
        HEAD(
            "chat.completion") ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                               "\"content\":\"A\\\"\\n\xE7\x8C\xAB\",\"refusal\":null,"
                               "\"reasoning_content\":\"I see\",\"tool_calls\":[{\"id\":"
                               "\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"ls\","
                               "\"arguments\":\"{\\\"p\\\":1}\"}},{\"id\":\"call_2\",\"type\":"
                               "\"function\",\"function\":{\"name\":\"now\",\"arguments\":\"{}\"}}"
                               "]},\"logprobs\":null,\"finish_reason\":\"tool_calls\"}]," USAGE_JSON
                               "," LONGCAT_JSON "}");
    static const lc_api_event called[] = {BEGIN, CALL("c", "f", "{}"), FINISH(LC_REASON_CALLS),
                                          USAGE};
    check_body(
        d, PLAIN, called, COUNT(called),
        HEAD("chat.completion") ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                                "\"content\":null,\"refusal\":null,\"tool_calls\":[{\"id\":\"c\","
                                "\"type\":\"function\",\"function\":{\"name\":\"f\","
                                "\"arguments\":\"{}\"}}]},\"logprobs\":null,\"finish_reason\":"
                                "\"tool_calls\"}]," USAGE_JSON "," LONGCAT_JSON "}");
}

static void answers_twice(void **state) {
    (void)state;
    static const lc_api_event events[] = {
        BEGIN,
        {.kind = LC_API_CONTENT, .choice = 1, TEXT_OF("b")},
        {.kind = LC_API_CONTENT, .choice = 0, TEXT_OF("a")},
        {.kind = LC_API_FINISH, .choice = 0, .reason = LC_REASON_STOP},
        {.kind = LC_API_FINISH, .choice = 1, .reason = LC_REASON_STOP_STRING, .stop_string = "x"},
        USAGE};
    check_bytes(d, "{\"n\":2,\"stream\":true," ONE("Hi") "}", events, COUNT(events),
                CHUNK("0", ROLE, "null") CHUNK("1", ROLE, "null")
                    CHUNK("1", "\"content\":\"b\"", "null") CHUNK("0", "\"content\":\"a\"", "null")
                        CHUNK("0", "", "\"stop\"") CHUNK("1", "", "\"stop\"") DONE);
    check_body(
        d, "{\"n\":2," ONE("Hi") "}", events, COUNT(events),
        HEAD("chat.completion") ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                                "\"content\":\"a\",\"refusal\":null},\"logprobs\":null,"
                                "\"finish_reason\":\"stop\"},{\"index\":1,\"message\":{\"role\":"
                                "\"assistant\",\"content\":\"b\",\"refusal\":null},\"logprobs\":"
                                "null,\"finish_reason\":\"stop\"}]," USAGE_JSON "," LONGCAT_JSON
                                "}");
}

static const lc_api_logprob own[] = {{7, -0.5, "\xE7\x8C", 2}, {8, -INFINITY, "\xAB", 1}};
static const lc_api_logprob tops[] = {{7, -0.5, "\xE7\x8C", 2}, {9, -1.25, "a", 1}};
static const lc_api_logprob *const top_lists[] = {tops, tops};
static const size_t top_counts[] = {2, 0};
static const float routed[] = {3.5f, 12};
static const uint8_t routed_layers[] = {3, 4, 12, 12};

#define LOGPROBS                                                                                   \
    "{\"content\":[{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-0.5,\"bytes\":[231,140],"              \
    "\"top_logprobs\":[{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-0.5,\"bytes\":[231,140]},{"        \
    "\"token\":\"a\",\"logprob\":-1.25,\"bytes\":[97]}]},{\"token\":\"\xEF\xBF\xBD\",\"logprob\""  \
    ":-9999,\"bytes\":[171],\"top_logprobs\":[]}],\"refusal\":null}"

static void gives_logprobs(void **state) {
    (void)state;
    const lc_api_event events[] = {BEGIN,
                                   {.kind = LC_API_CONTENT,
                                    TEXT_OF("\xE7\x8C\xAB"),
                                    .logprobs = own,
                                    .tops = top_lists,
                                    .n_tops = top_counts,
                                    .n_logprobs = 2,
                                    .routed = routed,
                                    .n_routed = 2,
                                    .routed_layers = routed_layers,
                                    .n_layers = 2},
                                   FINISH(LC_REASON_STOP),
                                   USAGE};
    check_bytes(
        d,
        "{\"stream\":true,\"logprobs\":true,\"top_logprobs\":2,\"longcat_routed\":true," ONE(
            "Hi") "}",
        events, COUNT(events),
        CHUNK("0", ROLE, "null")
            CHUNK_REST("0", "\"content\":\"\xE7\x8C\xAB\"", LOGPROBS, "null",
                       ",\"longcat\":{\"routed\":[3.5,12],\"routed_layers\":[[3,4],[12,12]]}")
                CHUNK("0", "", "\"stop\"") DONE);
    check_body(
        d, "{\"logprobs\":true,\"top_logprobs\":2," ONE("Hi") "}", events, COUNT(events),
        HEAD("chat.completion") ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                                "\"content\":\"\xE7\x8C\xAB\",\"refusal\":null},"
                                "\"logprobs\":" LOGPROBS ",\"finish_reason\":\"stop\"}]," USAGE_JSON
                                "," LONGCAT_JSON "}");
}

static void hides_reasoning(void **state) {
    (void)state;
    static const lc_api_event events[] = {BEGIN, REASONING("secret"), FINISH(LC_REASON_STOP),
                                          USAGE};
    check_bytes(d, "{\"stream\":true,\"reasoning\":{\"exclude\":true}," ONE("Hi") "}", events,
                COUNT(events), CHUNK("0", ROLE, "null") CHUNK("0", "", "\"stop\"") DONE);
}

static void tells_errors(void **state) {
    (void)state;
    static const struct {
        lc_api_error error;
        const char *body;
    } cases[] = {
        {{.status = 401, .text = "no"},
         "{\"error\":{\"message\":\"no\",\"type\":\"authentication_error\",\"param\":null,"
         "\"code\":\"invalid_api_key\"}}"},
        {{.status = 402, .text = "no"},
         "{\"error\":{\"message\":\"no\",\"type\":\"permission_error\",\"param\":null,\"code\":"
         "\"insufficient_quota\"}}"},
        {{.status = 400, .code = "context_length_exceeded", .param = "messages", .text = "long"},
         "{\"error\":{\"message\":\"long\",\"type\":\"invalid_request_error\",\"param\":"
         "\"messages\",\"code\":\"context_length_exceeded\"}}"},
        {{.status = 429, .retry_after = 1.5, .text = "slow"},
         "{\"error\":{\"message\":\"slow\",\"type\":\"rate_limit_error\",\"param\":null,\"code\":"
         "\"rate_limit_exceeded\",\"retry_after\":2}}"},
        {{.status = 500, .text = "x"},
         "{\"error\":{\"message\":\"x\",\"type\":\"server_error\",\"param\":null,\"code\":"
         "\"internal_error\"}}"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        lc_buf out = {0};
        d->error(&cases[i].error, NULL, &out);
        assert_string_equal(out.data, cases[i].body);
        lc_buf_free(&out);
    }
    const lc_api_event events[] = {BEGIN, {.kind = LC_API_ERROR, .error = &cases[4].error}};
    check_bytes(d, STREAM, events, COUNT(events),
                CHUNK("0", ROLE, "null") "data: {\"error\":{\"message\":\"x\",\"type\":"
                                         "\"server_error\",\"param\":null,\"code\":"
                                         "\"internal_error\"},\"request_id\":\"req_1\"}\n\n");
}

static void ends_once(void **state) {
    (void)state;
    lc_api_request r = {0};
    lc_api_error e;
    lc_err err = {0};
    lc_api_reply *reply = NULL;
    lc_buf out = {0};
    assert_int_equal(parse_text(d, STREAM, NULL, &r, &e), LC_OK);
    assert_ok(d->open(&r, &test_info, &reply, &err), err);
    const lc_api_event finish = FINISH(LC_REASON_STOP), more = CONTENT("x"),
                       other = {.kind = LC_API_CONTENT, .choice = 1, TEXT_OF("x")};
    assert_int_not_equal(d->event(reply, &other, &out, &err), LC_OK);
    assert_ok(d->event(reply, &finish, &out, &err), err);
    assert_int_not_equal(d->event(reply, &more, &out, &err), LC_OK);
    assert_int_not_equal(d->event(reply, &finish, &out, &err), LC_OK);
    d->close(reply);
    lc_api_request_free(&r);
    lc_buf_free(&out);
}

static void replies_short_of_memory(void **state) {
    (void)state;
    check_short_of_memory(d, PLAIN, loop, COUNT(loop));
    check_short_of_memory(d, STREAM_USAGE, loop, COUNT(loop));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_requests), cmocka_unit_test(refuses),
        cmocka_unit_test(keeps_limits),   cmocka_unit_test(survives_lack_of_memory),
        cmocka_unit_test(streams),        cmocka_unit_test(streams_without_usage),
        cmocka_unit_test(answers_whole),  cmocka_unit_test(answers_twice),
        cmocka_unit_test(gives_logprobs), cmocka_unit_test(hides_reasoning),
        cmocka_unit_test(tells_errors),   cmocka_unit_test(replies_short_of_memory),
        cmocka_unit_test(ends_once),
    };
    return test_main(tests);
}
