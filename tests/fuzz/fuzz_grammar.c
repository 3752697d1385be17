/*
 * Grammars: any JSON as a schema or as a tool's parameters, compiled with the service's limits,
 * then a random walk through the masks. The first bytes choose kind, budget and draws; the rest is
 * the schema. A mask is never empty, the answer ends within its budget, and an answer by a schema
 * is JSON.
 */
#include "base/rng.h"
#include "engine/grammar.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HEAD = 4, MOST_WORDS = 128, MOST_STEPS = 200 };
enum { TOOLS = 1, PARALLEL = 2, TEXT_BEFORE = 4, EITHER = 8 }; /* bits of the first byte */

static void must(bool condition) {
    if (!condition) abort();
}

static lc_tokenizer *tokenizer;
static lc_grammar_vocab *vocab;
static size_t size;

static void load(void) {
    static const int32_t eos[] = {2};
    must(lc_tokenizer_load("tests/golden/tiny-code", &tokenizer, NULL) == LC_OK);
    size = lc_tokenizer_vocab_size(tokenizer);
    must(lc_grammar_vocab_new(tokenizer, size, eos, 1, &vocab, NULL) == LC_OK);
}

static lc_grammar *compile(const uint8_t *head, struct json_object *schema) {
    struct json_object *tools = json_object_new_array(), *tool = json_object_new_object();
    lc_grammar_spec spec = {.kind = head[0] & TOOLS ? LC_GRAMMAR_TOOLS : LC_GRAMMAR_SCHEMA,
                            .schema = schema,
                            .tools = head[0] & (TOOLS | EITHER) ? tools : NULL,
                            .parallel = head[0] & PARALLEL,
                            .text_before = head[0] & TEXT_BEFORE};
    lc_grammar *g = NULL;
    must(tools && tool);
    json_object_object_add(tool, "name", json_object_new_string("f"));
    json_object_object_add(tool, "parameters", json_object_get(schema));
    json_object_array_add(tools, tool);
    clock_t start = clock(); /* of this process: the machine may be busy with others */
    lc_err err = {0};
    int status = lc_grammar_new(vocab, &spec, &g, &err);
    must(clock() - start < 5 * CLOCKS_PER_SEC);
    must((status == LC_OK) == (g != NULL) && (status == LC_OK || err.text[0]));
    json_object_put(tools);
    return g;
}

/* Any token of the mask. */
static int32_t pick(const uint64_t *mask, uint32_t random) {
    uint32_t first = random % (uint32_t)size;
    for (uint32_t i = 0; i < size; i++) {
        uint32_t t = (first + i) % (uint32_t)size;
        if (mask[t / 64] >> t % 64 & 1) return (int32_t)t;
    }
    return -1;
}

static void walk(const lc_grammar *g, const uint8_t *head) {
    lc_grammar_state *s;
    lc_buf text = {0};
    uint64_t mask[MOST_WORDS];
    size_t left = lc_grammar_shortest(g) + head[1], len;
    must(lc_grammar_begin(g, &s, NULL) == LC_OK);
    bool ended = false;
    for (uint32_t i = 0; i < MOST_STEPS && !lc_grammar_complete(s) && !ended; i++, left--) {
        must(lc_grammar_mask(s, left, mask, NULL) == LC_OK);
        uint32_t random = lc_rng(head[2] | (uint64_t)head[3] << 8, 0, i).word[0];
        int32_t token = pick(mask, random);
        must(token >= 0);
        ended = token == 2;
        must(left > 0 || ended);
        const char *bytes = lc_tokenizer_bytes(tokenizer, token, &len);
        if (!ended) lc_buf_append(&text, bytes, len);
        must(lc_grammar_accept(s, token, NULL) == LC_OK);
    }
    if (lc_grammar_complete(s) && !(head[0] & (TOOLS | EITHER))) {
        struct json_object *value = NULL;
        int status = lc_json_parse(text.data, text.len, "answer", &value, NULL);
        must(status == LC_OK || status == LC_ELIMIT);
        json_object_put(value);
    }
    lc_buf_free(&text);
    lc_grammar_state_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
    struct json_object *schema = NULL;
    if (!vocab) load();
    if (length < HEAD) return 0;
    if (lc_json_parse((const char *)data + HEAD, length - HEAD, "schema", &schema, NULL) != LC_OK)
        return 0;
    lc_grammar *g = compile(data, schema);
    if (g) walk(g, data);
    lc_grammar_free(g);
    json_object_put(schema);
    return 0;
}
