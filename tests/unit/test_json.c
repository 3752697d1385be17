/*
 * test_json.c: which texts are JSON. The rules are RFC 8259's, with Python's three words; the
 * expected trees are what Python's json module gives (as compact text).
 */
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "test.h"

#include <unistd.h>

static const struct {
    const char *text, *printed;
} good[] = {
    {"{}", "{}"},
    {" [ ] \n", "[]"},
    {"[[],{},[{}]]", "[[],{},[{}]]"},
    {"{\"a\" : 1 ,\t\"b\":[true,false,null]}", "{\"a\":1,\"b\":[true,false,null]}"},
    {"{\"b\":1,\"a\":2,\"b\":3}", "{\"b\":3,\"a\":2}"},
    {"[0,-1,10,1.5,-0.25,1e5,1E+5,2.50e-3]", "[0,-1,10,1.5,-0.25,1e5,1E+5,2.50e-3]"},
    {"[9223372036854775807,-9223372036854775808]", "[9223372036854775807,-9223372036854775808]"},
    {"42", "42"},
    {"-7 ", "-7"},
    {"1.0", "1.0"},
    {"\"x\"", "\"x\""},
    {"true", "true"},
    {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\\"\\\\/\\b\\f\\n\\r\\t\""},
    {"\"\\u0041\\u00e9\\u20AC\\ud83d\\ude00\"", "\"A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
    {"\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"",
     "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f\""},
    {"{\"\xc3\xa9\":\"\xc3\xa9\"}", "{\"\xc3\xa9\":\"\xc3\xa9\"}"},
    {"\"a\\u0000b\"", "\"a\\u0000b\""},
    {"[NaN,Infinity,-Infinity]", "[NaN,Infinity,-Infinity]"},
};

static const struct {
    const char *text, *fault;
} bad[] = {
    {"", "ends too early at byte 0"},
    {"  ", "ends too early at byte 2"},
    {"[", "ends too early at byte 1"},
    {"[1", "ends too early at byte 2"},
    {"[1,", "ends too early at byte 3"},
    {"{\"a\"", "ends too early at byte 4"},
    {"{\"a\":", "ends too early at byte 5"},
    {"\"abc", "ends too early at byte 4"},
    {"\"\\", "ends too early at byte 2"},
    {"\"\\u12", "ends too early at byte 5"},
    {"-", "ends too early at byte 1"},
    {"1.", "ends too early at byte 2"},
    {"1e", "ends too early at byte 2"},
    {"1 2", "text after the JSON value at byte 2"},
    {"{} x", "text after the JSON value at byte 3"},
    {"[]]", "text after the JSON value at byte 2"},
    {"01", "text after the JSON value at byte 1"},
    {"[1,]", "unexpected character at byte 3"},
    {"[,1]", "unexpected character at byte 1"},
    {"{\"a\":1,}", "a string is missing at byte 7"},
    {"{,}", "a string is missing at byte 1"},
    {"{a:1}", "a string is missing at byte 1"},
    {"{'a':1}", "a string is missing at byte 1"},
    {"{\"a\" 1}", "a colon is missing at byte 5"},
    {"{\"a\":}", "unexpected character at byte 5"},
    {"[1 2]", "a comma or a closing bracket is missing at byte 3"},
    {"[1}", "a comma or a closing bracket is missing at byte 2"},
    {"{\"a\":1]", "a comma or a closing bracket is missing at byte 6"},
    {"['a']", "unexpected character at byte 1"},
    {"[+1]", "unexpected character at byte 1"},
    {"[.5]", "unexpected character at byte 1"},
    {"[1.e5]", "a digit is missing at byte 3"},
    {"[-a]", "a digit is missing at byte 2"},
    {"[1e+]", "a digit is missing at byte 4"},
    {"[0x10]", "a comma or a closing bracket is missing at byte 2"},
    {"/* c */ 1", "unexpected character at byte 0"},
    {"[True]", "unexpected character at byte 1"},
    {"[nul]", "unexpected character at byte 1"},
    {"[nan]", "unexpected character at byte 1"},
    {"[inf]", "unexpected character at byte 1"},
    {"\xef\xbb\xbf{}", "unexpected character at byte 0"},
    {"\"a\nb\"", "control character in a string at byte 2"},
    {"\"\x1f\"", "control character in a string at byte 1"},
    {"\"\\x41\"", "invalid escape at byte 2"},
    {"\"\\u00g0\"", "invalid escape at byte 5"},
    {"\"a\xff\"", "invalid UTF-8 at byte 2"},
    {"\"\xc0\x80\"", "invalid UTF-8 at byte 1"},
    {"\"\xed\xa0\x80\"", "invalid UTF-8 at byte 1"},
    {"\"\xe2\x82\"", "invalid UTF-8 at byte 1"},
    {"\"\xf4\x90\x80\x80\"", "invalid UTF-8 at byte 1"},
    {"{\"a\\u0000b\":1}", "U+0000 in a key at byte 3"},
};

static void good_texts_are_read(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct json_object *value;
        lc_err err = {0};
        assert_ok(lc_json_parse(good[i].text, strlen(good[i].text), "t", &value, &err), err);
        const int flags = JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE;
        assert_string_equal(json_object_to_json_string_ext(value, flags), good[i].printed);
        json_object_put(value);
    }
    struct json_object *value = (struct json_object *)&good;
    lc_err err = {0};
    assert_ok(lc_json_parse("null", 4, "t", &value, &err), err);
    assert_null(value);
    printf("# %zu texts\n", sizeof good / sizeof *good + 1);
}

static void bad_texts_are_refused_with_the_place(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct json_object *value = (struct json_object *)&bad;
        lc_err err = {0};
        /* A copy without a NUL, so that ASan sees a step past the end. */
        size_t len = strlen(bad[i].text);
        char *copy = malloc(len ? len : 1);
        assert_non_null(copy);
        memcpy(copy, bad[i].text, len);
        assert_int_equal(lc_json_parse(copy, len, "file.json", &value, &err), LC_EFORMAT);
        free(copy);
        assert_null(value);
        assert_int_equal(err.code, LC_EFORMAT);
        assert_int_equal(strncmp(err.text, "file.json: ", 11), 0);
        if (!strstr(err.text, bad[i].fault)) fail_msg("%s: %s", bad[i].text, err.text);
    }
    struct json_object *value;
    lc_err err = {0};
    assert_int_equal(lc_json_parse("[1,\0]", 5, "t", &value, &err), LC_EFORMAT);
    assert_int_equal(lc_json_parse("1\0", 2, "t", &value, &err), LC_EFORMAT);
    assert_int_equal(lc_json_parse("\"a\0b\"", 5, "t", &value, NULL), LC_EFORMAT);
    printf("# %zu texts\n", sizeof bad / sizeof *bad + 3);
}

/* depth opening brackets, or an object in an object in ... */
static int parse_nested(int depth, bool objects, struct json_object **value, lc_err *err) {
    lc_buf text = {0};
    for (int i = 0; i < depth; i++) lc_buf_puts(&text, objects ? "{\"a\":" : "[");
    lc_buf_puts(&text, "1");
    for (int i = 0; i < depth; i++) lc_buf_puts(&text, objects ? "}" : "]");
    assert_false(text.failed);
    int code = lc_json_parse(text.data, text.len, "deep", value, err);
    lc_buf_free(&text);
    return code;
}

static void depth_is_limited(void **state) {
    (void)state;
    for (int objects = 0; objects < 2; objects++) {
        struct json_object *value;
        lc_err err = {0};
        assert_ok(parse_nested(LC_JSON_DEPTH, objects, &value, &err), err);
        json_object_put(value);
        assert_int_equal(parse_nested(LC_JSON_DEPTH + 1, objects, &value, &err), LC_ELIMIT);
        assert_null(value);
        assert_non_null(strstr(err.text, "deep: JSON nested deeper than 128 at byte"));
        assert_int_equal(parse_nested(1000000, objects, &value, &err), LC_ELIMIT);
    }
}

static void files_are_read_up_to_a_limit(void **state) {
    (void)state;
    struct json_object *value;
    lc_err err = {0};
    assert_ok(lc_json_load("tests/golden/tiny-code/config.json", 0, &value, &err), err);
    assert_true(json_object_is_type(value, json_type_object));
    json_object_put(value);
    assert_int_equal(lc_json_load("tests/golden/tiny-code/config.json", 100, &value, &err),
                     LC_ELIMIT);
    assert_null(value);
    assert_int_equal(lc_json_load("models/none.json", 0, &value, &err), LC_ENOTFOUND);
    assert_non_null(strstr(err.text, "models/none.json: "));
    size_t before = lc_mem_current();
    lc_mem_fail_after(0);
    assert_int_equal(lc_json_load("tests/golden/tiny-code/config.json", 0, &value, &err),
                     LC_ENOMEM);
    lc_mem_fail_after(-1);
    assert_int_equal(lc_mem_current(), before);
}

/* Whole numbers of any size keep their text; json-c alone would cut them to 64 bits. */
static void long_numbers_keep_their_text(void **state) {
    (void)state;
    static const char text[] =
        "{\"a\":[18446744073709551616,-9223372036854775809,\"18446744073709551616\",1e30],"
        "\"n\":123456789012345678901234567890,\"s\":\"\\\"99999999999999999999\","
        "\"u\":18446744073709551615,\"i\":-9223372036854775808,\"f\":99999999999999999999.5}";
    struct json_object *value, *member;
    lc_err err = {0};
    assert_ok(lc_json_parse(text, sizeof text - 1, "long", &value, &err), err);
    assert_string_equal(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN), text);
    assert_true(json_object_object_get_ex(value, "n", &member));
    assert_true(json_object_is_type(member, json_type_double));
    assert_true(json_object_get_double(member) == 123456789012345678901234567890.0);
    assert_true(json_object_object_get_ex(value, "u", &member));
    assert_true(json_object_get_uint64(member) == UINT64_MAX);
    json_object_put(value);
    assert_ok(lc_json_parse("-99999999999999999999", 21, "root", &value, &err), err);
    assert_string_equal(json_object_to_json_string(value), "-99999999999999999999");
    json_object_put(value);
    size_t before = lc_mem_current();
    for (long n = 0;; n++) {
        lc_mem_fail_after(n);
        int code = lc_json_parse(text, sizeof text - 1, "short", &value, &err);
        lc_mem_fail_after(-1);
        json_object_put(value);
        assert_int_equal(lc_mem_current(), before);
        if (code == LC_OK) break;
        assert_int_equal(code, LC_ENOMEM);
        assert_null(value);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_texts_are_read),
        cmocka_unit_test(bad_texts_are_refused_with_the_place),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(long_numbers_keep_their_text),
        cmocka_unit_test(files_are_read_up_to_a_limit),
    };
    return test_main(tests);
}
