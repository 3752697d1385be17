/*
 * Grammars: texts that a schema must admit or not, by table; answers drawn at random from the
 * masks, which must all be valid by another validator (schema_check.h), end within their budget and
 * never meet an empty mask; tool calls, which must be read back by the parser of calls; what must
 * be refused; hostile schemas; speed and memory.
 */
#include "engine/grammar.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "schema_check.h"
#include "test.h"
#include "text/toolcall.h"

#include <time.h>

enum { N_MODELS = 2, MOST_WORDS = 4096 };

static struct model {
    const char *path;
    lc_tokenizer *tokenizer;
    lc_grammar_vocab *vocab;
    size_t size;
} models[N_MODELS] = {{.path = "tests/golden/tiny-code"},
                      {.path = "tests/golden/text/tokenizer.json"}};

static const int32_t eos[] = {2};

static int set_up(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        lc_err err;
        struct model *m = &models[i];
        if (lc_tokenizer_load(m->path, &m->tokenizer, &err) != LC_OK) return -1;
        m->size = lc_tokenizer_vocab_size(m->tokenizer);
        if (lc_grammar_vocab_new(m->tokenizer, m->size, eos, 1, &m->vocab, &err) != LC_OK) {
            print_message("# %s\n", err.text);
            return -1;
        }
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        lc_grammar_vocab_free(models[i].vocab);
        lc_tokenizer_free(models[i].tokenizer);
    }
    return 0;
}

static struct json_object *parse(const char *text) {
    struct json_object *out = NULL;
    lc_err err;
    if (lc_json_parse(text, strlen(text), "test", &out, &err) != LC_OK)
        fail_msg("%s: %s", text, err.text);
    return out;
}

static lc_grammar *compile(const struct model *m, const char *schema) {
    struct json_object *s = parse(schema);
    lc_grammar *g = NULL;
    lc_err err = {0};
    lc_grammar_spec spec = {.kind = LC_GRAMMAR_SCHEMA, .schema = s, .seconds = 5};
    if (lc_grammar_new(m->vocab, &spec, &g, &err) != LC_OK) fail_msg("%s: %s", schema, err.text);
    json_object_put(s);
    return g;
}

static bool in_mask(const uint64_t *mask, int32_t token) {
    return mask[token / 64] >> token % 64 & 1;
}

/* ---- texts by table ---- */

/* The token that is this one byte. */
static int32_t byte_token(const struct model *m, char byte) {
    for (int32_t t = 0; t < (int32_t)m->size; t++) {
        size_t n;
        const char *b = lc_tokenizer_bytes(m->tokenizer, t, &n);
        if (n == 1 && *b == byte) return t;
    }
    return -1;
}

/* Whether a text is an answer, by the tokenizer's tokens or byte by byte; the masks must say the
 * same as accept. */
static bool admits(const struct model *m, const lc_grammar *g, const char *text, bool bytes) {
    lc_grammar_state *s;
    lc_err err;
    lc_ids ids = {0};
    uint64_t mask[MOST_WORDS];
    size_t len = strlen(text);
    assert_ok(lc_grammar_begin(g, &s, &err), err);
    if (bytes)
        for (size_t i = 0; i < len; i++) lc_ids_push(&ids, byte_token(m, text[i]));
    else
        assert_ok(lc_tokenizer_encode(m->tokenizer, text, len, LC_ENCODE_PLAIN, false, &ids, &err),
                  err);
    bool ok = true;
    for (size_t i = 0; i < ids.len && ok; i++) {
        assert_ok(lc_grammar_mask(s, 100000, mask, &err), err);
        bool allowed = in_mask(mask, ids.data[i]);
        ok = lc_grammar_accept(s, ids.data[i], &err) == LC_OK;
        assert_int_equal(ok, allowed);
    }
    assert_ok(lc_grammar_mask(s, 100000, mask, &err), err);
    ok = ok && in_mask(mask, eos[0]);
    lc_ids_free(&ids);
    lc_grammar_state_free(s);
    return ok;
}

#include "grammar_cases.h"

static void texts(void **state) {
    (void)state;
    int good = 0, all = 0;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct grammar_case *c = &cases[i];
        struct json_object *schema = parse(c->schema);
        for (int k = 0; k < N_MODELS; k++) {
            lc_grammar *g = compile(&models[k], c->schema);
            for (int j = 0; c->yes[j]; j++) { /* what is to be admitted must be valid, too */
                struct json_object *v = parse(c->yes[j]);
                if (!schema_valid(schema, schema, v)) fail_msg("%s: %s", c->schema, c->yes[j]);
                json_object_put(v);
            }
            for (int j = 0; j < 2 * MOST_TEXTS; j++) {
                const char *text = j < MOST_TEXTS ? c->yes[j] : c->no[j - MOST_TEXTS];
                for (int bytes = 0; text && bytes < 2; bytes++, all++) {
                    bool got = admits(&models[k], g, text, bytes);
                    if (got != (j < MOST_TEXTS))
                        print_message("# %s: %s is %s\n", c->schema, text,
                                      got ? "admitted" : "not admitted");
                    else
                        good++;
                }
            }
            lc_grammar_free(g);
        }
        json_object_put(schema);
    }
    print_message("# texts: %d of %d, %zu schemas\n", good, all, N_CASES);
    assert_int_equal(good, all);
}

/* ---- random answers ---- */

typedef struct draws {
    uint64_t seed, count;
} draws;

static uint32_t draw(draws *d, uint32_t n) { return lc_rng(d->seed, 1, d->count++).word[0] % n; }

/* One of the mask's tokens; short: of those with one byte, if there are any. */
static int32_t pick(const struct model *m, const uint64_t *mask, bool only_short, draws *d) {
    int32_t chosen = -1;
    uint32_t n = 0;
    size_t len;
    for (int32_t t = 0; t < (int32_t)m->size; t++) {
        if (!(t % 64) && !mask[t / 64]) t += 63;
        if (t >= (int32_t)m->size || !in_mask(mask, t)) continue;
        lc_tokenizer_bytes(m->tokenizer, t, &len);
        if (only_short && len > 1) continue;
        if (!draw(d, ++n)) chosen = t;
    }
    return chosen < 0 && only_short ? pick(m, mask, false, d) : chosen;
}

/* An answer of at most `left` tokens; appended to out. */
static void sample(const struct model *m, const lc_grammar *g, size_t left, draws *d, lc_buf *out) {
    lc_grammar_state *s;
    lc_err err = {0};
    uint64_t mask[MOST_WORDS];
    bool ended = false;
    assert_ok(lc_grammar_begin(g, &s, &err), err);
    for (; !ended && !lc_grammar_complete(s); left--) {
        assert_ok(lc_grammar_mask(s, left, mask, &err), err);
        int32_t token = pick(m, mask, draw(d, 2), d);
        if (token < 0) fail_msg("an empty mask with %zu left behind %s", left, out->data);
        size_t len;
        const char *bytes = lc_tokenizer_bytes(m->tokenizer, token, &len);
        ended = token == eos[0];
        if (!ended) lc_buf_append(out, bytes, len);
        assert_ok(lc_grammar_accept(s, token, &err), err);
        if (!left && !ended) fail_msg("longer than it may be: %s", out->data);
        if (!left) break;
    }
    lc_buf_putc(out, 0);
    out->len--;
    lc_grammar_state_free(s);
}

static void check_sample(const char *schema_text, struct json_object *schema, const lc_buf *text) {
    struct json_object *value = NULL;
    lc_err err;
    if (lc_json_parse(text->data, text->len, "answer", &value, &err) != LC_OK)
        fail_msg("%s: %s: %s", schema_text, text->data, err.text);
    if (!schema_valid(schema, schema, value)) fail_msg("%s: %s", schema_text, text->data);
    json_object_put(value);
}

static void random_answers(void **state) {
    (void)state;
    size_t n = 0, longest = 0;
    for (size_t i = 0; i < N_CASES; i++) {
        struct json_object *schema = parse(cases[i].schema);
        for (int k = 0; k < N_MODELS; k++) {
            lc_grammar *g = compile(&models[k], cases[i].schema);
            size_t shortest = lc_grammar_shortest(g);
            for (uint64_t j = 0; j < 12; j++, n++) {
                static const size_t more[] = {0, 1, 2, 5, 10, 30, 100};
                lc_buf text = {0};
                draws d = {.seed = j + 100 * i};
                sample(&models[k], g, shortest + more[j % 7], &d, &text);
                check_sample(cases[i].schema, schema, &text);
                if (text.len > longest) longest = text.len;
                lc_buf_free(&text);
            }
            lc_grammar_free(g);
        }
        json_object_put(schema);
    }
    print_message("# random answers: %zu valid, the longest %zu bytes\n", n, longest);
}

/* Any object: nesting stays within what readers of JSON take. */
static void random_objects(void **state) {
    (void)state;
    const struct model *m = &models[0];
    lc_grammar_spec spec = {.kind = LC_GRAMMAR_OBJECT};
    lc_grammar *g;
    lc_err err;
    assert_ok(lc_grammar_new(m->vocab, &spec, &g, &err), err);
    assert_int_equal(lc_grammar_shortest(g), 2);
    for (uint64_t j = 0; j < 40; j++) {
        lc_buf text = {0};
        struct json_object *value;
        draws d = {.seed = j};
        sample(m, g, 2 + 10 * j, &d, &text);
        assert_ok(lc_json_parse(text.data, text.len, "answer", &value, &err), err);
        assert_true(json_object_is_type(value, json_type_object));
        json_object_put(value);
        lc_buf_free(&text);
    }
    /* as deep as it goes */
    lc_grammar_state *s;
    uint64_t mask[MOST_WORDS];
    lc_buf text = {0};
    assert_ok(lc_grammar_begin(g, &s, &err), err);
    const char *start = "{\"a\":";
    for (; *start; start++) {
        lc_buf_putc(&text, *start);
        assert_ok(lc_grammar_accept(s, byte_token(m, *start), &err), err);
    }
    int32_t open = byte_token(m, '[');
    while (lc_grammar_accept(s, open, &err) == LC_OK) lc_buf_putc(&text, '[');
    size_t depth = text.len;
    draws d = {.seed = 1};
    while (!lc_grammar_complete(s)) {
        assert_ok(lc_grammar_mask(s, 1000, mask, &err), err);
        int32_t t = pick(m, mask, true, &d);
        size_t len;
        const char *bytes = lc_tokenizer_bytes(m->tokenizer, t, &len);
        lc_buf_append(&text, bytes, len);
        assert_ok(lc_grammar_accept(s, t, &err), err);
    }
    struct json_object *value;
    if (lc_json_parse(text.data, text.len, "deep", &value, &err) != LC_OK)
        fail_msg("%s: %.*s", err.text, (int)text.len, text.data);
    print_message("# deepest array: %zu\n", depth - 5);
    json_object_put(value);
    lc_buf_free(&text);
    lc_grammar_state_free(s);
    lc_grammar_free(g);
}

/* ---- tool calls ---- */

static void tool_calls(void **state) {
    (void)state;
    lc_err err;
    struct json_object *tools = parse(tools_text);
    size_t n_calls = 0, n_texts = 0, n_answers = 0;
    for (int k = 0; k < N_MODELS; k++)
        for (int way = 0; way < 4; way++) {
            lc_grammar_spec spec = {.kind = LC_GRAMMAR_TOOLS,
                                    .tools = tools,
                                    .tool = way == 1 ? "Edit" : NULL,
                                    .parallel = way >= 2,
                                    .text_before = way == 3,
                                    .seconds = 5};
            lc_grammar *g;
            assert_ok(lc_grammar_new(models[k].vocab, &spec, &g, &err), err);
            for (uint64_t j = 0; j < 60; j++, n_answers++) {
                lc_buf text = {0};
                draws d = {.seed = j};
                sample(&models[k], g, lc_grammar_shortest(g) + j * 4, &d, &text);
                lc_toolparser *parser;
                assert_ok(lc_toolparser_new(tools, false, &parser, &err), err);
                assert_ok(lc_toolparser_push(parser, text.data, text.len, &err), err);
                assert_ok(lc_toolparser_finish(parser, LC_FINISH_STOP, &err), err);
                lc_parsed got = lc_toolparser_result(parser);
                if (got.unfinished || (way != 3 && (!got.n_calls || got.content_len)) ||
                    (way < 2 && got.n_calls != 1))
                    fail_msg("%zu calls, content \"%s\" in %s", got.n_calls, got.content,
                             text.data);
                n_texts += got.content_len > 0;
                for (size_t i = 0; i < got.n_calls; i++, n_calls++) {
                    struct json_object *of = NULL;
                    for (size_t t = 0; t < json_object_array_length(tools); t++) {
                        struct json_object *f =
                            schema_get(json_object_array_get_idx(tools, t), "function");
                        if (!strcmp(json_object_get_string(schema_get(f, "name")),
                                    got.calls[i].name))
                            of = schema_get(f, "parameters");
                    }
                    if (way == 1) assert_string_equal(got.calls[i].name, "Edit");
                    if (of && !schema_valid(of, of, got.calls[i].arguments))
                        fail_msg("%s%s from %s", got.calls[i].name,
                                 json_object_to_json_string(got.calls[i].arguments), text.data);
                }
                lc_toolparser_free(parser);
                lc_buf_free(&text);
            }
            lc_grammar_free(g);
        }
    json_object_put(tools);
    print_message("# tool calls: %zu valid in %zu answers, %zu with text\n", n_calls, n_answers,
                  n_texts);
}

/* A schema beside tools: the JSON, or calls, never both or anything else. */
static void json_or_calls(void **state) {
    (void)state;
    lc_err err;
    static const char text_of[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},"
        "\"required\":[\"a\"],\"additionalProperties\":false}";
    struct json_object *tools = parse(tools_text), *schema = parse(text_of);
    size_t n_calls = 0, n_json = 0;
    for (int k = 0; k < N_MODELS; k++) {
        lc_grammar_spec spec = {.kind = LC_GRAMMAR_SCHEMA,
                                .schema = schema,
                                .tools = tools,
                                .parallel = true,
                                .seconds = 5};
        lc_grammar *g;
        assert_ok(lc_grammar_new(models[k].vocab, &spec, &g, &err), err);
        for (uint64_t j = 0; j < 60; j++) {
            lc_buf text = {0};
            draws d = {.seed = j};
            sample(&models[k], g, lc_grammar_shortest(g) + 100 + j * 4, &d, &text);
            lc_toolparser *parser;
            assert_ok(lc_toolparser_new(tools, false, &parser, &err), err);
            assert_ok(lc_toolparser_push(parser, text.data, text.len, &err), err);
            assert_ok(lc_toolparser_finish(parser, LC_FINISH_STOP, &err), err);
            lc_parsed got = lc_toolparser_result(parser);
            assert_true(!got.unfinished && !got.n_calls == (got.content_len > 0));
            if (!got.n_calls) check_sample(text_of, schema, &text);
            n_json += !got.n_calls;
            n_calls += got.n_calls > 0;
            lc_toolparser_free(parser);
            lc_buf_free(&text);
        }
        lc_grammar_free(g);
    }
    json_object_put(schema);
    json_object_put(tools);
    print_message("# %zu answers in JSON, %zu with calls\n", n_json, n_calls);
    assert_true(n_json > 10 && n_calls > 10);
}

/* Texts in which a tag begins are closed at the last byte of its beginning, wherever they stand. */
static void tags_in_texts(void **state) {
    (void)state;
    static const char tools[] =
        "[{\"name\":\"f\",\"parameters\":{\"properties\":{\"s\":{\"type\":\"string\"},\"l\":{"
        "\"type\":\"array\",\"items\":{\"type\":\"string\"}}}}}]";
    static const char *const before[] = {"", "<>s<><>", "<>l<><>[\""};
    static const char *const words[] = {"a < b <longcat_", "</longcat_", "<<longcat_",
                                        "<lo</longcat_", "</<longcat_"};
    const struct model *m = &models[0];
    struct json_object *list = parse(tools);
    lc_grammar_spec spec = {
        .kind = LC_GRAMMAR_TOOLS, .tools = list, .text_before = true, .seconds = 5};
    static const char *const tags[] = {"<longcat_arg_key>", "</longcat_arg_key>",
                                       "<longcat_arg_value>"};
    lc_grammar *g;
    lc_err err;
    assert_ok(lc_grammar_new(m->vocab, &spec, &g, &err), err);
    for (int i = 0; i < 3; i++)
        for (int w = 0; w < 5; w++) {
            lc_grammar_state *s;
            assert_ok(lc_grammar_begin(g, &s, &err), err);
            if (i > 0) {
                int32_t call = lc_tokenizer_id(m->tokenizer, "<longcat_tool_call>");
                assert_ok(lc_grammar_accept(s, call, &err), err);
                assert_ok(lc_grammar_accept(s, byte_token(m, 'f'), &err), err);
                assert_ok(lc_grammar_accept(s, byte_token(m, '\n'), &err), err);
            }
            int tag = 0;
            for (const char *c = before[i]; *c; c++) {
                if (*c == '<') {
                    int32_t id = lc_tokenizer_id(m->tokenizer, tags[tag]);
                    assert_ok(lc_grammar_accept(s, id, &err), err);
                    if (tag++ == 1) assert_ok(lc_grammar_accept(s, byte_token(m, '\n'), &err), err);
                } else if (*c != '>') {
                    assert_ok(lc_grammar_accept(s, byte_token(m, *c), &err), err);
                }
            }
            const char *c = words[w];
            for (; c[1]; c++) assert_ok(lc_grammar_accept(s, byte_token(m, *c), &err), err);
            assert_int_equal(lc_grammar_accept(s, byte_token(m, *c), &err), LC_EINVAL);
            assert_ok(lc_grammar_accept(s, byte_token(m, '<'), &err), err);
            lc_grammar_state_free(s);
        }
    lc_grammar_free(g);
    json_object_put(list);
}

/* ---- what is refused ---- */

static void refused(void **state) {
    (void)state;
    int good = 0, n = 0;
    for (; refusals[n].schema; n++) {
        struct json_object *schema = parse(refusals[n].schema);
        lc_grammar *g = NULL;
        lc_err err = {0};
        lc_grammar_spec spec = {.kind = LC_GRAMMAR_SCHEMA, .schema = schema, .seconds = 2};
        int status = lc_grammar_new(models[0].vocab, &spec, &g, &err);
        if (status == LC_OK || g || !strstr(err.text, refusals[n].names))
            print_message("# %s: status %d, \"%s\"\n", refusals[n].schema, status, err.text);
        else
            good++;
        lc_grammar_free(g);
        json_object_put(schema);
    }
    print_message("# refused: %d of %d\n", good, n);
    assert_int_equal(good, n);
}

/* ---- speed, memory, hostility ---- */

/* Processor time, since the machine may be busy. */
static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double seconds_since(uint64_t start) { return (double)(now_ns() - start) / 1e9; }

#ifdef __SANITIZE_ADDRESS__
static const double slack = 30;
#else
static const double slack = 1;
#endif

/* The first model's tokens and as many pairs of them as make 131,072: about as a big vocabulary
 * shares its beginnings. */
static lc_grammar_vocab *big_vocab(lc_tokenizer **out) {
    enum { SMALL = 4096, BIG = 131072 };
    struct json_object *file;
    lc_err err;
    assert_ok(lc_json_load("tests/golden/tiny-code/tokenizer.json", 0, &file, &err), err);
    struct json_object *model = schema_get(file, "model"), *vocab = schema_get(model, "vocab");
    const char *texts[SMALL] = {0};
    json_object_object_foreach(vocab, key, id) {
        if (json_object_get_int(id) >= 300) texts[json_object_get_int(id)] = key;
    }
    char pair[600];
    draws d = {.seed = 7};
    int n = SMALL;
    while (n < BIG) {
        const char *a = texts[draw(&d, SMALL)], *b = texts[draw(&d, SMALL)];
        if (!a || !b || strlen(a) + strlen(b) > 64) continue;
        snprintf(pair, sizeof pair, "%s%s", a, b);
        if (json_object_object_get_ex(vocab, pair, NULL)) continue;
        json_object_object_add(vocab, pair, json_object_new_int(n++));
    }
    size_t len;
    const char *text = json_object_to_json_string_length(file, JSON_C_TO_STRING_PLAIN, &len);
    assert_ok(lc_tokenizer_parse(text, len, "big", out, &err), err);
    json_object_put(file);
    lc_grammar_vocab *v;
    uint64_t start = now_ns();
    assert_ok(lc_grammar_vocab_new(*out, lc_tokenizer_vocab_size(*out), eos, 1, &v, &err), err);
    print_message("# vocabulary of %zu: %.0f ms\n", lc_tokenizer_vocab_size(*out),
                  (double)(now_ns() - start) / 1e6);
    return v;
}

static void speed(void **state) {
    (void)state;
    static const struct {
        const char *schema, *before;
    } places[] = {
        {"{\"type\":\"object\"}", ""},
        {"{\"type\":\"object\"}", "{"},
        {"{\"type\":\"object\"}", "{\"a\": "},
        {"{\"type\":\"object\"}", "{\"a\": \"b"},
        {"{\"type\":\"object\"}", "{\"a\": [[[1"},
        {"{\"type\":\"string\",\"maxLength\":400}", "\"b"},
        {"{\"type\":\"string\",\"pattern\":\"^[a-z]+(-[a-z0-9]+)*$\"}", "\"b"},
        {"{\"properties\":{\"path\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\",\"minimum\":"
         "1}},\"required\":[\"path\"]}",
         "{\"path\": \"x"},
    };
    lc_tokenizer *tokenizer;
    struct model m = {.size = 131072, .vocab = big_vocab(&tokenizer)};
    m.tokenizer = tokenizer;
    double slowest = 0, cached = 0;
    size_t most = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        lc_grammar *g = compile(&m, places[i].schema);
        uint64_t mask[MOST_WORDS];
        double first = 1, again = 1;
        for (int round = 0; round < 3; round++) {
            lc_grammar_state *s;
            lc_err err;
            size_t before = lc_mem_current();
            assert_ok(lc_grammar_begin(g, &s, &err), err);
            for (const char *c = places[i].before; *c; c++)
                assert_ok(lc_grammar_accept(s, byte_token(&m, *c), &err), err);
            size_t small = lc_mem_current() - before;
            uint64_t start = now_ns();
            assert_ok(lc_grammar_mask(s, 1000, mask, &err), err);
            if (seconds_since(start) < first) first = seconds_since(start);
            for (int k = 0; k < 5; k++) {
                start = now_ns();
                assert_ok(lc_grammar_mask(s, 1000, mask, &err), err);
                if (seconds_since(start) < again) again = seconds_since(start);
            }
            if (lc_mem_current() - before > most) most = lc_mem_current() - before;
            assert_true(small < 100000);
            lc_grammar_state_free(s);
        }
        print_message("# behind %-14s first mask %.2f ms, then %.4f ms\n", places[i].before,
                      1e3 * first, 1e3 * again);
        if (first > slowest) slowest = first;
        if (again > cached) cached = again;
        lc_grammar_free(g);
    }
    lc_grammar_vocab_free(m.vocab);
    lc_tokenizer_free(tokenizer);
    print_message("# a state after its first mask: at most %zu KiB\n", most >> 10);
    assert_true(slowest < 0.04 * slack && cached < 0.0002 * slack); /* measured: 0.012, 1e-7 */
    assert_true(most < 3 << 20);
}

/* Text with `n` times `unit` (a %d is its number) between head and tail. */
static struct json_object *repeated(const char *head, const char *unit, const char *tail, int n) {
    lc_buf text = {0};
    struct json_object *out;
    lc_err err;
    lc_buf_puts(&text, head);
    for (int i = 0; i < n; i++) {
        if (i && *unit != '(' && *unit != '.') lc_buf_putc(&text, ',');
        lc_buf_printf(&text, unit, i, i);
    }
    lc_buf_puts(&text, tail);
    if (lc_json_parse(text.data, text.len, "hostile", &out, &err) != LC_OK)
        fail_msg("%s: %s", head, err.text);
    lc_buf_free(&text);
    return out;
}

static void hostile(void **state) {
    (void)state;
    static const struct {
        const char *head, *unit, *tail;
        int n;
    } schemas[] = {
        {"{\"enum\":[", "\"value %d\"", "]}", 20000},
        {"{\"enum\":[", "%d", "]}", 100000},
        {"{\"properties\":{", "\"p%d\":{\"type\":\"integer\"}", "}}", 2000},
        {"{\"properties\":{", "\"p%d\":{\"type\":\"integer\"}", "}}", 100000},
        {"{\"required\":[", "\"p%d\"", "]}", 5000},
        {"{\"anyOf\":[", "{\"type\":\"string\",\"minLength\":%d}", "]}", 20000},
        {"{\"anyOf\":[", "{\"$ref\":\"#/anyOf/%d\"}", "]}", 3000},
        {"{\"$defs\":{", "\"d%d\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/d%d\"}}",
         "},\"$ref\":\"#/$defs/d0\"}", 900},
        {"{\"type\":\"string\",\"pattern\":\"^", "(a|b)?", "$\"}", 4000},
        {"{\"type\":\"string\",\"pattern\":\"^", "(a?b?c?)*", "$\"}", 2000},
        {"{\"type\":\"string\",\"pattern\":\"^.*a", ".", "$\"}", 3000},
        {"{\"type\":\"string\",\"pattern\":\"^(a|b)*a", "(a|b)", "$\"}", 3000},
        {"{\"type\":\"string\",\"pattern\":\"^.*a.{5000}\"", "", "}", 1},
        {"{\"type\":\"string\",\"pattern\":\"^(.{0,300}){300}$\"", "", "}", 1},
        {"{\"type\":\"string\",\"pattern\":\"^(.{1,300}){1,300}$\"", "", "}", 1},
        {"{\"type\":\"string\",\"pattern\":\"(((a{1000}){1000}){1000})\"", "", "}", 1},
        {"{\"type\":\"array\",\"minItems\":1000000,\"items\":{\"minLength\":1000000}", "", "}", 1},
        {"{\"allOf\":[", "{\"allOf\":[{\"minimum\":%d}]}", "]}", 2000},
        {"{\"oneOf\":[", "{\"const\":%d}", "]}", 64},
    };
    const struct model *m = &models[1];
    double slowest_new = 0, slowest_mask = 0;
    size_t compiled = 0, n = sizeof schemas / sizeof *schemas;
    for (size_t i = 0; i < n; i++) {
        struct json_object *schema =
            repeated(schemas[i].head, schemas[i].unit, schemas[i].tail, schemas[i].n);
        lc_grammar_spec spec = {.kind = LC_GRAMMAR_SCHEMA, .schema = schema};
        lc_grammar *g;
        lc_grammar_state *s;
        lc_err err = {0};
        size_t before = lc_mem_current();
        uint64_t start = now_ns(), mask[MOST_WORDS];
        int status = lc_grammar_new(m->vocab, &spec, &g, &err);
        double t = seconds_since(start), worst = 0;
        if (t > slowest_new) slowest_new = t;
        assert_true(lc_mem_current() - before < (size_t)70 << 20);
        json_object_put(schema);
        if (status != LC_OK) {
            print_message("# %.50s: %.2f s, %s\n", schemas[i].head, t, err.text);
            continue;
        }
        compiled++;
        assert_ok(lc_grammar_begin(g, &s, &err), err);
        draws d = {.seed = i};
        size_t left = lc_grammar_shortest(g) + 40;
        int k = 0;
        for (; k < 60 && !lc_grammar_complete(s); k++, left--) {
            start = now_ns();
            assert_ok(lc_grammar_mask(s, left, mask, &err), err);
            if (seconds_since(start) > worst) worst = seconds_since(start);
            int32_t token = pick(m, mask, false, &d);
            if (token < 0) fail_msg("%s: an empty mask", schemas[i].head);
            assert_ok(lc_grammar_accept(s, token, &err), err);
        }
        print_message("# %.50s: %.2f s, shortest %zu, %d masks, slowest %.0f ms, %zu KiB\n",
                      schemas[i].head, t, lc_grammar_shortest(g), k, 1e3 * worst,
                      (lc_mem_current() - before) >> 10);
        if (worst > slowest_mask) slowest_mask = worst;
        lc_grammar_state_free(s);
        lc_grammar_free(g);
    }
    print_message("# hostile: %zu of %zu compiled, slowest %.2f s, slowest mask %.0f ms\n",
                  compiled, n, slowest_new, 1e3 * slowest_mask);
    assert_true(slowest_new < 1 * slack && slowest_mask < 1 * slack);
}

/* Each allocation fails once: LC_ENOMEM, never a crash. */
static void failing_memory(void **state) {
    (void)state;
    struct json_object *schema = parse(cases[N_CASES - 1].schema), *tools = parse(tools_text);
    for (int kind = 0; kind < 2; kind++) {
        lc_grammar_spec spec = {.kind = kind ? LC_GRAMMAR_TOOLS : LC_GRAMMAR_SCHEMA,
                                .schema = schema,
                                .tools = tools,
                                .seconds = 5};
        int status = LC_ENOMEM;
        long n = 0;
        for (; status != LC_OK; n++) {
            lc_grammar *g = NULL;
            lc_grammar_state *s = NULL;
            lc_err err;
            uint64_t mask[MOST_WORDS];
            lc_mem_fail_after(n);
            status = lc_grammar_new(models[0].vocab, &spec, &g, &err);
            if (status == LC_OK) status = lc_grammar_begin(g, &s, &err);
            if (status == LC_OK) status = lc_grammar_mask(s, 500, mask, &err);
            lc_mem_fail_after(-1);
            if (status != LC_OK) assert_int_equal(status, LC_ENOMEM);
            lc_grammar_state_free(s);
            lc_grammar_free(g);
        }
        print_message("# failing allocations: %ld\n", n);
    }
    json_object_put(schema);
    json_object_put(tools);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),          cmocka_unit_test(random_answers),
        cmocka_unit_test(random_objects), cmocka_unit_test(tool_calls),
        cmocka_unit_test(json_or_calls),  cmocka_unit_test(tags_in_texts),
        cmocka_unit_test(refused),        cmocka_unit_test(speed),
        cmocka_unit_test(hostile),        cmocka_unit_test(failing_memory),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
