/*
 * Tool-call parser: any text must give the same result whole and under cuts that the input chooses,
 * and what has been emitted must be a beginning of the final result. The first bytes choose tools,
 * think block, finish and cuts; the rest is the text.
 */
#include "base/json.h"
#include "text/toolcall.h"

#include <stdlib.h>
#include <string.h>

static const char tools_json[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{"
    "\"s\":{\"type\":\"string\"},\"i\":{\"type\":\"integer\"},\"e\":{\"enum\":[1,\"a\"]}}}}}]";

enum { HEAD = 4 };

static void must(bool condition) {
    if (!condition) abort();
}

static lc_toolparser *new_parser(const uint8_t *head) {
    struct json_object *tools = NULL;
    lc_toolparser *parser;
    if (head[0] & 1)
        must(lc_json_parse(tools_json, sizeof tools_json - 1, "tools", &tools, NULL) == LC_OK);
    must(lc_toolparser_new(tools, head[0] & 2, &parser, NULL) == LC_OK);
    json_object_put(tools);
    return parser;
}

static void check_prefix(lc_parsed part, lc_parsed whole) {
    must(part.reasoning_len <= whole.reasoning_len && part.content_len <= whole.content_len);
    must(!memcmp(part.reasoning, whole.reasoning, part.reasoning_len));
    must(!memcmp(part.content, whole.content, part.content_len));
    must(part.n_calls <= whole.n_calls);
}

static void check_equal(lc_parsed a, lc_parsed b) {
    check_prefix(a, b);
    check_prefix(b, a);
    must(a.has_reasoning == b.has_reasoning && a.unfinished == b.unfinished);
    for (size_t i = 0; i < a.n_calls; i++) {
        must(!strcmp(a.calls[i].name, b.calls[i].name));
        const char *left = json_object_to_json_string(a.calls[i].arguments);
        must(!strcmp(left, json_object_to_json_string(b.calls[i].arguments)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < HEAD) return 0;
    const char *text = (const char *)data + HEAD;
    size_t len = size - HEAD;
    lc_finish finish = data[0] & 4 ? LC_FINISH_LENGTH : LC_FINISH_STOP;
    lc_toolparser *whole = new_parser(data), *parts = new_parser(data);
    must(lc_toolparser_push(whole, text, len, NULL) == LC_OK);
    must(lc_toolparser_finish(whole, finish, NULL) == LC_OK);
    uint32_t random = (uint32_t)data[1] << 8 | data[2];
    for (size_t at = 0, n; at < len; at += n) {
        random = random * 1664525u + 1013904223u;
        n = 1 + (random >> 16) % (1u + data[3]);
        if (n > len - at) n = len - at;
        must(lc_toolparser_push(parts, text + at, n, NULL) == LC_OK);
        check_prefix(lc_toolparser_result(parts), lc_toolparser_result(whole));
    }
    must(lc_toolparser_finish(parts, finish, NULL) == LC_OK);
    check_equal(lc_toolparser_result(parts), lc_toolparser_result(whole));
    lc_toolparser_free(whole);
    lc_toolparser_free(parts);
    return 0;
}
