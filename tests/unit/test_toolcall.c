/*
 * The tool-call parser where the golden cases don't reach: lenient values one by one, schema types,
 * rules on which few golden cases stand, linear time on hostile text, failing allocations. The
 * expected values follow from the written rules (tests/golden/text/README.md, section 4).
 */
#include "base/json.h"
#include "test.h"
#include "text/lenient.h"
#include "text/toolcall.h"
#include "text/tooltypes.h"

#include <time.h>

#define CALL "<longcat_tool_call>"
#define END_CALL "</longcat_tool_call>"
#define KEY "<longcat_arg_key>"
#define END_KEY "</longcat_arg_key>"
#define VALUE "<longcat_arg_value>"
#define END_VALUE "</longcat_arg_value>"
#define PAIR(k, v) KEY k END_KEY VALUE v END_VALUE

/* The JSON of a lenient text, "-" if it is none. The caller frees it. */
static char *lenient(const char *text, size_t len) {
    struct json_object *value;
    int status = lc_lenient_parse(text, len, &value);
    assert_true(status == LC_OK || status == LC_EFORMAT);
    char *json = lc_strdup(status == LC_OK
                               ? json_object_to_json_string_ext(
                                     value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
                               : "-");
    json_object_put(value);
    return json;
}

static void lenient_values(void **state) {
    static const char *const cases[][2] = {
        {"7", "7"},
        {" \t\r\n\v\f7 ", "7"},
        {"+5", "5"},
        {"-0", "0"},
        {"-0.0", "-0.0"},
        {".5", "0.5"},
        {"-.5", "-0.5"},
        {"5.", "5.0"},
        {"5.e2", "5.0e2"},
        {"1e+3", "1e+3"},
        {"1E-07", "1E-07"},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"18446744073709551615", "18446744073709551615"},
        {"18446744073709551616", "18446744073709551616"},
        {"-123456789012345678901234567890", "-123456789012345678901234567890"},
        {"1.7976931348623157e309", "1.7976931348623157e309"},
        {"007", "-"},
        {"-01", "-"},
        {"00", "-"},
        {"0x1f", "-"},
        {"1_000", "-"},
        {"1,234", "-"},
        {"NaN", "-"},
        {"Infinity", "-"},
        {"-Infinity", "-"},
        {"-", "-"},
        {"+", "-"},
        {".", "-"},
        {"1e", "-"},
        {"1e+", "-"},
        {"1.2.3", "-"},
        {"--1", "-"},
        {"1 2", "-"},
        {"", "-"},
        {"  ", "-"},
        {"true", "true"},
        {"True", "true"},
        {"False", "false"},
        {"null", "null"},
        {"None", "null"},
        {"TRUE", "-"},
        {"truex", "-"},
        {"none", "-"},
        {"nul", "-"},
        {"abc", "-"},
        {"\"a\"", "\"a\""},
        {"'a\"b'", "\"a\\\"b\""},
        {"'it\\'s'", "\"it's\""},
        {"\"open", "-"},
        {"'a' 'b'", "-"},
        {"''", "\"\""},
        {"\"\\u00e9\\ud83d\\ude00\"", "\"\xC3\xA9\xF0\x9F\x98\x80\""},
        {"'\\xe9\\v\\0'", "\"\xC3\xA9\\u000b\\u0000\""},
        {"'\\ud800'", "\"\xEF\xBF\xBD\""},
        {"'\\ud800\\u0041'", "\"\xEF\xBF\xBD"
                             "A\""},
        {"'\\udc00'", "\"\xEF\xBF\xBD\""},
        {"'a\\\nb\\\r\nc'", "\"abc\""},
        {"'\\d\\q'", "\"\\\\d\\\\q\""},
        {"'\\u12'", "\"\\\\u12\""},
        {"'\\x4'", "\"\\\\x4\""},
        {"'\\\\'", "\"\\\\\""},
        {"'\\b\\f\\n\\r\\t\\/'", "\"\\b\\f\\n\\r\\t/\""},
        {"[]", "[]"},
        {"()", "[]"},
        {"(1, 2)", "[1,2]"},
        {"(1,)", "[1]"},
        {"[1, 2,]", "[1,2]"},
        {"[,]", "-"},
        {"[1,,2]", "-"},
        {"[1 2]", "-"},
        {"[1", "-"},
        {"[1)", "-"},
        {"]", "-"},
        {"[true, None, [[]], {}]", "[true,null,[[]],{}]"},
        {"{}", "{}"},
        {"{'a': 1,}", "{\"a\":1}"},
        {"{a: 1, $b_2: 'x'}", "{\"a\":1,\"$b_2\":\"x\"}"},
        {"{1: 2, -3: 4}", "{\"1\":2,\"-3\":4}"},
        {"{1.5: 2}", "-"},
        {"{a-b: 1}", "-"},
        {"{\xE5\x9F\x8E: 1}", "{\"\xE5\x9F\x8E\":1}"},
        {"{\xE2\x80\x9C"
         "a\xE2\x80\x9D: 1}",
         "-"},
        {"{None: 1}", "{\"None\":1}"},
        {"{'a': 1, 'a': [2]}", "{\"a\":[2]}"},
        {"{a}", "-"},
        {"{a: }", "-"},
        {"{,}", "-"},
        {"{'a' 1}", "-"},
        {"{'a': 1} x", "-"},
        {"{[1]: 2}", "-"},
        {"{'a\\0b': 1}", "{\"a\xEF\xBF\xBD"
                         "b\":1}"},
        {"{\"a\": {\"b\": [1]}}", "{\"a\":{\"b\":[1]}}"},
    };
    (void)state;
    int good = 0, n = sizeof cases / sizeof *cases;
    for (int i = 0; i < n; i++) {
        char *got = lenient(cases[i][0], strlen(cases[i][0]));
        if (strcmp(got, cases[i][1]))
            print_message("# %s: expected %s, got %s\n", cases[i][0], cases[i][1], got);
        else
            good++;
        lc_free(got);
    }
    print_message("# lenient values: %d of %d\n", good, n);
    assert_int_equal(good, n);
}

static void lenient_depth(void **state) {
    (void)state;
    char text[2 * LC_LENIENT_DEPTH + 2];
    for (int depth = LC_LENIENT_DEPTH; depth <= LC_LENIENT_DEPTH + 1; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        struct json_object *value;
        int status = lc_lenient_parse(text, 2 * (size_t)depth, &value);
        assert_int_equal(status, depth <= LC_LENIENT_DEPTH ? LC_OK : LC_EFORMAT);
        json_object_put(value);
    }
}

/* Parses a whole text; the caller frees the parser. */
static lc_toolparser *parse(const char *tools, const char *text, size_t len, lc_finish finish) {
    struct json_object *list = NULL;
    lc_toolparser *parser;
    lc_err err;
    if (tools) assert_ok(lc_json_parse(tools, strlen(tools), "tools", &list, &err), err);
    assert_ok(lc_toolparser_new(list, false, &parser, &err), err);
    json_object_put(list);
    assert_ok(lc_toolparser_push(parser, text, len, &err), err);
    assert_ok(lc_toolparser_finish(parser, finish, &err), err);
    return parser;
}

/* "content|name{arguments}|..." of a text, with "!" at the end if it is unfinished. */
static void expect(const char *tools, const char *text, lc_finish finish, const char *want) {
    lc_toolparser *parser = parse(tools, text, strlen(text), finish);
    lc_parsed r = lc_toolparser_result(parser);
    lc_buf got = {0};
    lc_buf_append(&got, r.content, r.content_len);
    for (size_t i = 0; i < r.n_calls; i++)
        lc_buf_printf(&got, "|%s%s", r.calls[i].name,
                      json_object_to_json_string_ext(r.calls[i].arguments,
                                                     JSON_C_TO_STRING_PLAIN |
                                                         JSON_C_TO_STRING_NOSLASHESCAPE));
    if (r.unfinished) lc_buf_putc(&got, '!');
    assert_string_equal(got.data, want);
    lc_buf_free(&got);
    lc_toolparser_free(parser);
}

static const char tool_f[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{"
    "\"s\":{\"type\":\"string\"},\"i\":{\"type\":\"integer\"},\"n\":{\"type\":\"number\"},"
    "\"c\":{\"const\":\"x\"},\"k\":{\"const\":null},\"e\":{\"enum\":[1,\"a\"]},"
    "\"o\":{\"oneOf\":[{\"type\":\"object\"},{\"anyOf\":[{\"type\":\"string\"}]}]},"
    "\"z\":{\"type\":\"what\"},\"t\":true,\"ns\":{\"type\":[\"number\",\"string\"]}}}}},"
    "{\"name\":\"functions.g\"},{\"name\":\"two words\"},{\"type\":\"search\"}]";

static void schema_types(void **state) {
    static const char *const cases[][3] = {
        {"s", " 5 ", "\" 5 \""},
        {"c", "5", "\"5\""},
        {"i", " 5 ", "5"},
        {"i", "x", "\"x\""},
        {"i", "5.0", "5.0"},
        {"i", "\"5\"", "\"5\""},
        {"n", "5", "5"},
        {"k", "None", "null"},
        {"k", "x", "\"x\""},
        {"e", "1", "1"},
        {"e", "a", "\"a\""},
        {"e", "1.5", "\"1.5\""},
        {"e", "[1]", "\"[1]\""},
        {"o", "{}", "{}"},
        {"o", "[]", "\"[]\""},
        {"z", "[1]", "[1]"},
        {"t", "1", "1"},
        {"ns", "7", "7"},
        {"ns", "true", "\"true\""},
        {"ns", "123456789012345678901234567890", "123456789012345678901234567890"},
        {"e", "123456789012345678901234567890", "123456789012345678901234567890"},
        {"unknown", "{a: 1}", "{\"a\":1}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lc_buf text = {0}, want = {0};
        lc_buf_printf(&text, CALL "f\n" KEY "%s" END_KEY VALUE "%s" END_VALUE END_CALL, cases[i][0],
                      cases[i][1]);
        lc_buf_printf(&want, "|f{\"%s\":%s}", cases[i][0], cases[i][2]);
        expect(tool_f, text.data, LC_FINISH_STOP, want.data);
        lc_buf_free(&text);
        lc_buf_free(&want);
    }
}

static void rules(void **state) {
    (void)state;
    /* 1: the end tag wins everywhere, and then nothing counts as cut off */
    expect(tool_f, CALL "f{\"a\": \"</longcat_s>\"}" END_CALL, LC_FINISH_STOP, CALL "f{\"a\": \"");
    expect(tool_f, "a <longcat_tool</longcat_s>", LC_FINISH_STOP, "a <longcat_tool");
    expect(tool_f, "a </longcat_s", LC_FINISH_STOP, "a ");
    expect(NULL, "a </longcat_s", LC_FINISH_STOP, "a ");
    expect(NULL, "a <longcat_tool_cal", LC_FINISH_STOP, "a <longcat_tool_cal");
    expect("[]", "a " CALL "f" END_CALL, LC_FINISH_STOP, "a " CALL "f" END_CALL);
    /* one tag at most is cut off */
    expect(tool_f, "a <longcat_tool</longcat_", LC_FINISH_STOP, "a <longcat_tool");
    expect(tool_f, CALL "f\n" KEY "a" END_KEY VALUE "1<longcat_arg_v", LC_FINISH_STOP,
           "|f{\"a\":1}");
    /* 4 */
    expect(tool_f, CALL "[ {'name': 'f'}, {name: 'g', parameters: '{a: 1}'} ] junk" END_CALL,
           LC_FINISH_STOP, "|f{}|g{\"a\":1}");
    expect(tool_f, CALL "[{'name': 'f'}, 1]" END_CALL, LC_FINISH_STOP,
           CALL "[{'name': 'f'}, 1]" END_CALL);
    expect(tool_f, CALL "f ( {\"a\": 1} ) junk" END_CALL, LC_FINISH_STOP, "|f{\"a\":1}");
    expect(tool_f, CALL "f ( )" END_CALL "x", LC_FINISH_STOP, "x|f{}");
    expect(tool_f, CALL "f(" END_CALL, LC_FINISH_STOP, CALL "f(" END_CALL);
    expect(tool_f, CALL "f\n" KEY " {\"a\": 1, s: '" END_CALL "'}" END_KEY PAIR("b", "2") END_CALL,
           LC_FINISH_STOP, "|f{\"a\":1,\"s\":\"" END_CALL "\",\"b\":2}");
    expect(tool_f, CALL "f\n" KEY "{a" END_KEY END_CALL, LC_FINISH_STOP,
           CALL "f\n" KEY "{a" END_KEY END_CALL);
    expect(tool_f, CALL "f\n" KEY "a" KEY "b" END_KEY VALUE "1" VALUE "2" END_VALUE END_CALL,
           LC_FINISH_STOP, "|f{\"b\":\"1" VALUE "2\"}");
    /* 5 */
    expect(tool_f, CALL "functions.g" END_CALL, LC_FINISH_STOP, "|functions.g{}");
    expect(tool_f, CALL "two words" END_CALL, LC_FINISH_STOP, "|two words{}");
    expect(tool_f, CALL "functions.functions.h" END_CALL, LC_FINISH_STOP, "|functions.h{}");
    expect(tool_f, CALL "functions." END_CALL, LC_FINISH_STOP, CALL "functions." END_CALL);
    /* 9: an unclosed string ends at the next closer, whatever the finish */
    expect(tool_f, CALL "{\"a\": \"b " END_CALL " c " CALL "f" END_CALL, LC_FINISH_LENGTH,
           CALL "{\"a\": \"b " END_CALL " c|f{}");
    expect(tool_f, CALL "{\"a" END_CALL CALL "{'\\\"" END_CALL CALL "f" END_CALL, LC_FINISH_STOP,
           CALL "{\"a" END_CALL CALL "{'\\\"" END_CALL "|f{}");
    expect(tool_f, "a " CALL "f" END_CALL " b " CALL "f(", LC_FINISH_LENGTH, "a\nb|f{}!");
    /* 10: a malformed block belongs to the text around it */
    expect(tool_f, "a " CALL END_CALL " b " CALL "f" END_CALL " c " CALL "f" END_CALL " \n",
           LC_FINISH_STOP, "a " CALL END_CALL " b\nc|f{}|f{}");
}

static void odd_bytes(void **state) {
    (void)state;
    static const char text[] = "\xFF\0" CALL "f\n" PAIR("a\0b", "\"x\0y\"") END_CALL "\xC3";
    lc_toolparser *parser = parse(tool_f, text, sizeof text - 1, LC_FINISH_STOP);
    lc_parsed r = lc_toolparser_result(parser);
    assert_int_equal(r.content_len, 4);
    assert_memory_equal(r.content, "\xFF\0\n\xC3", 4);
    assert_int_equal(r.n_calls, 1);
    struct json_object *value;
    assert_true(json_object_object_get_ex(r.calls[0].arguments,
                                          "a\xEF\xBF\xBD"
                                          "b",
                                          &value));
    assert_int_equal(json_object_get_string_len(value), 3);
    lc_err err;
    assert_int_equal(lc_toolparser_push(parser, "x", 1, &err), LC_EINVAL);
    assert_int_equal(lc_toolparser_finish(parser, LC_FINISH_STOP, &err), LC_EINVAL);
    lc_toolparser_free(parser);
    static const char nul_name[] = CALL "f\0g" END_CALL;
    parser = parse(tool_f, nul_name, sizeof nul_name - 1, LC_FINISH_STOP);
    assert_int_equal(lc_toolparser_result(parser).n_calls, 0);
    lc_toolparser_free(parser);
    struct json_object *wrong = json_object_new_object();
    assert_int_equal(lc_toolparser_new(wrong, false, &parser, &err), LC_EINVAL);
    json_object_put(wrong);
}

/* Seconds for one text, fed in pieces. */
static double seconds(const lc_buf *text, size_t piece) {
    lc_toolparser *parser;
    lc_err err;
    struct json_object *tools = NULL;
    struct timespec start, end;
    assert_ok(lc_json_parse(tool_f, strlen(tool_f), "tools", &tools, &err), err);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    assert_ok(lc_toolparser_new(tools, false, &parser, &err), err);
    for (size_t at = 0; at < text->len; at += piece) {
        size_t left = text->len - at;
        assert_ok(lc_toolparser_push(parser, text->data + at, left < piece ? left : piece, &err),
                  err);
    }
    assert_ok(lc_toolparser_finish(parser, LC_FINISH_STOP, &err), err);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    lc_toolparser_free(parser);
    json_object_put(tools);
    return (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}

/* 1 MB of each, whole and by single bytes. A quadratic loop would take minutes. */
static void hostile_texts(void **state) {
    static const struct {
        const char *head, *unit;
    } texts[] = {
        {"", "<"},
        {"", "<longcat_tool_"},
        {"", "</longcat_"},
        {"", " "},
        {"", "a "},
        {"", CALL},
        {"", CALL END_CALL},
        {"", CALL "f" END_CALL},
        {"", CALL "f" END_CALL "x "},
        {CALL, "{"},
        {CALL, "["},
        {CALL, " "},
        {CALL "[", " "},
        {CALL, "n"},
        {CALL, "<longcat "},
        {CALL "f(", " "},
        {CALL "f\n", KEY},
        {CALL "f\n", VALUE},
        {CALL "f\n" KEY, " "},
        {CALL "f\n", PAIR("a", "1")},
        {CALL "f\n", PAIR("i", "{a: 'b'}")},
        {CALL "f\n" KEY "a" END_KEY VALUE, "["},
        {CALL "f\n" KEY "a" END_KEY VALUE, "<longcat_arg"},
        {CALL "f\n", KEY "{"},
        {CALL "{\"a\": \"", "x"},
        {CALL "{\"a\": \"", "\\"},
        {CALL "{\"a\": [", "1,"},
        {CALL "{\"a\": ", "9"},
        {CALL "{\"a\": ", "{\"a\":"},
        {"", CALL "{\\\"" END_CALL},
        {"", CALL "{\"a\": \"b' \\\"" END_CALL},
        {"", CALL "{'\\\"" END_CALL CALL "{\"\\'" END_CALL},
        {CALL "[", "{},"},
        {CALL "[", "{name:'f'},"},
        {"<longcat_think>", " "},
        {"<longcat_think>", "</longcat_thin"},
    };
    (void)state;
    double slowest = 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        lc_buf text = {0};
        lc_buf_puts(&text, texts[i].head);
        while (text.len < (1u << 20)) lc_buf_puts(&text, texts[i].unit);
        for (size_t piece = 1; piece <= text.len; piece += text.len - 1) {
            double time = seconds(&text, piece);
            if (time > slowest) slowest = time;
            if (time > 10) fail_msg("1 MB of %s%s...: %.1f s", texts[i].head, texts[i].unit, time);
        }
        lc_buf_free(&text);
    }
    print_message("# hostile texts of 1 MB: %zu, slowest %.2f s\n", sizeof texts / sizeof *texts,
                  slowest);
}

/* Each allocation fails once: always LC_ENOMEM, never a crash or a leak. */
static void failing_memory(void **state) {
    static const char text[] = "<longcat_think> a \n b</longcat_think> text \n" CALL
                               "f\n" PAIR("a", "[1, {b: 'c'}]") PAIR("i", "x") END_CALL
        " \n b " CALL "{'name': 'f', 'arguments': '{a: 1}'}" END_CALL CALL "bad name" END_CALL;
    (void)state;
    lc_err err;
    struct json_object *tools = NULL;
    assert_ok(lc_json_parse(tool_f, strlen(tool_f), "tools", &tools, &err), err);
    size_t before = lc_mem_current();
    long n = 0;
    for (int status = LC_ENOMEM; status != LC_OK; n++) {
        lc_toolparser *parser;
        lc_mem_fail_after(n);
        status = lc_toolparser_new(tools, false, &parser, &err);
        for (size_t i = 0; status == LC_OK && i < sizeof text - 1; i += 7)
            status = lc_toolparser_push(parser, text + i,
                                        sizeof text - 1 - i < 7 ? sizeof text - 1 - i : 7, &err);
        if (status == LC_OK) status = lc_toolparser_finish(parser, LC_FINISH_STOP, &err);
        lc_mem_fail_after(-1);
        if (status != LC_OK) assert_int_equal(status, LC_ENOMEM);
        lc_toolparser_free(parser);
        assert_int_equal(lc_mem_current(), before);
    }
    json_object_put(tools);
    print_message("# allocations that failed in turn: %ld\n", n - 1);
    assert_true(n > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lenient_values), cmocka_unit_test(lenient_depth),
        cmocka_unit_test(schema_types),   cmocka_unit_test(rules),
        cmocka_unit_test(odd_bytes),      cmocka_unit_test(hostile_texts),
        cmocka_unit_test(failing_memory),
    };
    return test_main(tests);
}
