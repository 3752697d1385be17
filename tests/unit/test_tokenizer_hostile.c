/*
 * test_tokenizer_hostile.c: tokenizer files and texts made to break or to stall: each file gives a
 * clear error of the right kind or works, each text of a megabyte is done in well under the time
 * limit (quadratic code would take minutes), and every allocation may fail.
 */
#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "test.h"
#include "text/tokenizer.h"

#include <time.h>

#define GOLDEN "tests/golden/text/"

enum { MEGABYTE = 1000000 };
/* CPU time for one megabyte. It takes 0.05 to 0.4 s; the rest is for sanitizers and slow machines.
 */
static const double seconds_limit = 5;

static lc_err err;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the least number of tokens ---- */

static size_t tokens_of(const lc_tokenizer *t, const lc_buf *text, lc_encode_mode mode) {
    lc_ids ids = {0};
    assert_ok(lc_tokenizer_encode(t, text->data, text->len, mode, false, &ids, &err), err);
    size_t n = ids.len;
    lc_ids_free(&ids);
    return n;
}

/* No text has fewer tokens than its length says: each token's own text, many times over, is what
 * comes closest, and the longest one's reaches it. */
static void test_no_text_has_fewer_tokens_than_the_least(void **state) {
    static const char *const models[] = {"models/nano", "tests/golden/tiny-code"};
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        lc_tokenizer *t;
        bool reached = false;
        assert_ok(lc_tokenizer_load(models[m], &t, &err), err);
        assert_true(lc_tokenizer_least(t, MEGABYTE) > 0);
        for (size_t id = 0; id < lc_tokenizer_vocab_size(t); id++) {
            lc_buf text = {0};
            size_t len;
            const char *bytes = lc_tokenizer_bytes(t, (int32_t)id, &len);
            for (int i = 0; len && i < 8; i++) {
                lc_buf_append(&text, bytes, len);
                for (int mode = LC_ENCODE_ALL; mode <= LC_ENCODE_PLAIN; mode++) {
                    size_t n = tokens_of(t, &text, (lc_encode_mode)mode);
                    size_t least = lc_tokenizer_least(t, text.len);
                    if (n < least) fail_msg("token %zu: %zu, not %zu", id, n, least);
                    reached = reached || (n == least && len > 8);
                }
            }
            lc_buf_free(&text);
        }
        assert_true(reached);
        lc_tokenizer_free(t);
    }
}

static void test_texts_beyond_the_most_are_given_up(void **state) {
    lc_tokenizer *t;
    lc_buf text = {0};
    (void)state;
    assert_ok(lc_tokenizer_load("tests/golden/tiny-code", &t, &err), err);
    for (int i = 0; i < 2000; i++) lc_buf_puts(&text, "word ");
    size_t whole = tokens_of(t, &text, LC_ENCODE_PLAIN), least = lc_tokenizer_least(t, text.len);
    const size_t limits[] = {whole, whole / 2 + 1, whole / 4, least, least - 1};
    for (size_t i = 0; i < 5; i++) {
        lc_ids ids = {.most = limits[i]};
        int status =
            lc_tokenizer_encode(t, text.data, text.len, LC_ENCODE_PLAIN, false, &ids, &err);
        assert_int_equal(status, i < 2 ? LC_OK : LC_ELIMIT);
        assert_int_equal(ids.len, i < 2 ? whole : 0);
        assert_true(i < 2 || (ids.least > limits[i] && ids.least <= whole));
        if (i == 4) assert_int_equal(ids.least, least);
        lc_ids_free(&ids);
    }
    lc_buf_free(&text);
    lc_tokenizer_free(t);
}

/* ---- files ---- */

/* A tokenizer with the tokens a, b, c, ab, bc, abc (0 to 5) and one part replaced. */
typedef struct file_parts {
    const char *vocab, *merges, *model, *added, *normalizer, *pre_tokenizer, *post, *decoder;
} file_parts;

#define VOCAB "\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4,\"abc\":5"
#define BYTE_LEVEL                                                                                 \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":"      \
    "false}"

static const char *part(const char *text, const char *fallback) { return text ? text : fallback; }

static char *build(const file_parts *p) {
    lc_buf buf = {0};
    lc_buf_printf(&buf, "{\"version\":\"1.0\",\"added_tokens\":[%s],", part(p->added, ""));
    lc_buf_printf(&buf, "\"normalizer\":%s,\"pre_tokenizer\":%s,", part(p->normalizer, "null"),
                  part(p->pre_tokenizer, BYTE_LEVEL));
    lc_buf_printf(&buf, "\"post_processor\":%s,\"decoder\":%s,", part(p->post, "null"),
                  part(p->decoder, BYTE_LEVEL));
    lc_buf_printf(&buf, "\"model\":{\"type\":\"BPE\",%s\"vocab\":{%s},\"merges\":[%s]}}",
                  part(p->model, ""), part(p->vocab, VOCAB), part(p->merges, ""));
    assert_false(buf.failed);
    return buf.data;
}

static int parse(const char *json, lc_tokenizer **t) {
    err = (lc_err){0};
    return lc_tokenizer_parse(json, strlen(json), "hostile", t, &err);
}

static void test_rules_that_drop_text_give_no_least(void **state) {
#define DROPPING "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"invert\":false,\"behavior\":"
    static const file_parts files[] = {
        {0}, /* bytes without a token are dropped */
        {.normalizer = "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}"},
        {.pre_tokenizer =
             "{\"type\":\"Sequence\",\"pretokenizers\":[" DROPPING "\"Removed\"}," BYTE_LEVEL "]}"},
        {.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[" DROPPING
                          "\"Isolated\"}," BYTE_LEVEL "]}"},
        {.added = "{\"id\":600,\"content\":\"<x>\",\"special\":true,\"lstrip\":true,\"rstrip\":"
                  "false,\"single_word\":false,\"normalized\":false}"},
        {.normalizer = BYTE_LEVEL},
    };
    static const size_t least[] = {0, 0, 0, 4, 0, 4}; /* of 10 bytes: "abc" is the longest */
    lc_buf vocab = {0};
    (void)state;
    lc_buf_puts(&vocab, "\"abc\":256");
    for (int code = 0, id = 0; code < 0x144; code++) {
        bool itself = (code > 0x20 && code < 0x7F) || (code > 0xA0 && code != 0xAD);
        if (itself) lc_buf_printf(&vocab, ",\"\\u%04x\":%d", (unsigned)code, id++);
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        file_parts parts = files[i];
        lc_tokenizer *t;
        if (i) parts.vocab = vocab.data;
        char *json = build(&parts);
        assert_ok(parse(json, &t), err);
        assert_int_equal(lc_tokenizer_least(t, 10), least[i]);
        lc_tokenizer_free(t);
        lc_free(json);
    }
    lc_buf_free(&vocab);
}

/* code, a word of the message, the file. */
static const struct {
    int code;
    const char *word;
    file_parts parts;
} refused[] = {
    {LC_EFORMAT, "merges[0]", {.merges = "[\"a\",\"x\"]"}},
    {LC_EFORMAT, "merges[1]", {.merges = "[\"a\",\"b\"],[\"c\",\"a\"]"}},
    {LC_EFORMAT, "merges[0]", {.merges = "\"a  b\""}},
    {LC_EFORMAT, "merges[0]", {.merges = "\"ab\""}},
    {LC_EFORMAT, "merges[0]", {.merges = "[\"a\"]"}},
    {LC_EFORMAT, "merges[0]", {.merges = "[\"a\",\"b\",\"c\"]"}},
    {LC_EFORMAT, "merges[0]", {.merges = "[[],[]]"}},
    {LC_EFORMAT, "merges[0]", {.merges = "7"}},
    {LC_EFORMAT, "\"a\" is not an integer", {.vocab = "\"a\":-1"}},
    {LC_EFORMAT, "4194303", {.vocab = "\"a\":4194304"}},
    {LC_EFORMAT, "4194303", {.vocab = "\"a\":99999999999999999999999"}},
    {LC_EFORMAT, "\"a\" is not an integer", {.vocab = "\"a\":1.5"}},
    {LC_EFORMAT, "\"a\" is not an integer", {.vocab = "\"a\":\"0\""}},
    {LC_EFORMAT, "\"a\" is not an integer", {.vocab = "\"a\":null"}},
    {LC_EFORMAT, "same id 0", {.vocab = "\"a\":0,\"b\":0"}},
    {LC_EFORMAT, "same id 5", {.added = "{\"id\":5,\"content\":\"<x>\"}"}},
    {LC_EFORMAT, "already has id 0", {.added = "{\"id\":9,\"content\":\"a\"}"}},
    {LC_EFORMAT,
     "already has id 9",
     {.added = "{\"id\":9,\"content\":\"<x>\"},{\"id\":10,\"content\":\"<x>\"}"}},
    {LC_EFORMAT, "added_tokens[0].id", {.added = "{\"id\":4194304,\"content\":\"<x>\"}"}},
    {LC_EFORMAT, "added_tokens[0].id", {.added = "{\"content\":\"<x>\"}"}},
    {LC_EFORMAT, "added_tokens[0].content", {.added = "{\"id\":9}"}},
    {LC_EFORMAT, "added_tokens[0].content", {.added = "{\"id\":9,\"content\":\"a\\u0000b\"}"}},
    {LC_EFORMAT,
     "added_tokens[0].lstrip",
     {.added = "{\"id\":9,\"content\":\"<x>\",\"lstrip\":1}"}},
    {LC_EFORMAT, "added_tokens[0]", {.added = "[]"}},
    {LC_EUNSUPPORTED, "byte_fallback", {.model = "\"byte_fallback\":true,"}},
    {LC_EUNSUPPORTED, "dropout", {.model = "\"dropout\":0.1,"}},
    {LC_EUNSUPPORTED, "end_of_word_suffix", {.model = "\"end_of_word_suffix\":\"</w>\","}},
    {LC_EUNSUPPORTED, "continuing_sub", {.model = "\"continuing_subword_prefix\":\"##\","}},
    {LC_EUNSUPPORTED, "\"Unigram\"", {.model = "\"type\":\"Unigram\","}},
    {LC_EUNSUPPORTED, "\"WordPiece\"", {.model = "\"type\":\"WordPiece\","}},
    {LC_EFORMAT, "unk_token", {.model = "\"unk_token\":\"<unk>\","}},
    {LC_EUNSUPPORTED, "\"Metaspace\"", {.pre_tokenizer = "{\"type\":\"Metaspace\"}"}},
    {LC_EUNSUPPORTED, "ByteLevel", {.pre_tokenizer = "null"}},
    {LC_EFORMAT, "pre_tokenizer.type", {.pre_tokenizer = "{}"}},
    {LC_EFORMAT, "pre_tokenizer.type", {.pre_tokenizer = "[1]"}},
    {LC_EUNSUPPORTED, "\"Precompiled\"", {.normalizer = "{\"type\":\"Precompiled\"}"}},
    {LC_EFORMAT, "normalizer.prepend", {.normalizer = "{\"type\":\"Prepend\"}"}},
    {LC_EFORMAT,
     "pattern",
     {.normalizer = "{\"type\":\"Replace\",\"content\":\"x\",\"pattern\":{}}"}},
    {LC_EUNSUPPORTED, "\"WordPiece\"", {.decoder = "{\"type\":\"WordPiece\"}"}},
    {LC_EUNSUPPORTED, "decoder", {.decoder = "null"}},
    {LC_EFORMAT, "single", {.post = "{\"type\":\"TemplateProcessing\"}"}},
    {LC_EFORMAT,
     "id 77",
     {.post = "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}},"
              "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"x\":{\"ids\":[77]}}}"}},
    {LC_EUNSUPPORTED, "\"Zip\"", {.post = "{\"type\":\"Zip\"}"}},
};

static void test_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        lc_tokenizer *t;
        char *json = build(&refused[i].parts);
        int code = parse(json, &t);
        if (code != refused[i].code || !strstr(err.text, refused[i].word) ||
            strncmp(err.text, "hostile: ", 9) != 0)
            fail_msg("file %zu: code %d, \"%s\"", i, code, err.text);
        assert_null(t);
        lc_free(json);
    }
    assert_int_equal(lc_mem_current(), 0);
}

/* Patterns that Oniguruma and PCRE2 read differently, and patterns that are wrong. */
static void test_refused_patterns(void **state) {
    static const char *const patterns[] = {
        "[a[bc]]", "[[:alpha:]]", "[a&&b]",        "\\\\h",       "\\\\R",   "\\\\1",
        "\\\\b",   "(*ACCEPT)",   "(?<n>a)",       "(?R)",        "(?C1)",   "(?m:a)",
        "a(?i)b",  "(?x) a",      "a{2}+",         "a{,3}",       "(",       ")",
        "[a",      "a**",         "\\\\p{Foo}",    "\\\\pL",      "\\\\xff", "\\\\",
        "[\\\\W]", "(?<=a*)b",    "\\\\p{",        "\\\\Qa\\\\E", "\\\\u12", "[z-a]",
        "\\\\K",   "(?#note)a",   "\\\\x{110000}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        lc_tokenizer *t;
        lc_buf split = {0};
        lc_buf_printf(&split,
                      "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                      "{\"Regex\":\"%s\"},\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL
                      "]}",
                      patterns[i]);
        char *json = build(&(file_parts){.pre_tokenizer = split.data});
        if (parse(json, &t) != LC_EUNSUPPORTED ||
            !strstr(err.text, "pre_tokenizer.pretokenizers[0]"))
            fail_msg("pattern %s: \"%s\"", patterns[i], err.text);
        lc_free(json);
        lc_buf_free(&split);
    }
    assert_int_equal(lc_mem_current(), 0);
}

/* Every file cut short, and nonsense of all JSON types in place of each member. */
static void test_cut_files(void **state) {
    lc_buf file = {0};
    lc_tokenizer *t;
    (void)state;
    assert_ok(lc_file_read(GOLDEN "tokenizer_llama3.json", 0, &file, &err), err);
    for (size_t len = 0; len < file.len; len += 1 + len / 50) {
        assert_int_not_equal(lc_tokenizer_parse(file.data, len, "cut", &t, &err), LC_OK);
        assert_null(t);
    }
    static const char *const members[] = {"added_tokens",   "normalizer", "pre_tokenizer",
                                          "post_processor", "decoder",    "model"};
    static const char *const values[] = {"1", "\"x\"", "true", "[[]]", "{\"type\":1}", "-1e999"};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        for (size_t j = 0; j < sizeof values / sizeof *values; j++) {
            struct json_object *json = NULL;
            lc_buf text = {0};
            char *whole = build(&(file_parts){0});
            lc_buf_printf(&text, "%.*s,\"%s\":%s}", (int)strlen(whole) - 1, whole, members[i],
                          values[j]);
            (void)json;
            assert_int_not_equal(parse(text.data, &t), LC_OK);
            assert_true(err.text[0]);
            lc_free(whole);
            lc_buf_free(&text);
        }
    lc_buf_free(&file);
    assert_int_equal(lc_mem_current(), 0);
}

/* Sequences nested and repeated beyond the limits. */
static void test_bombs(void **state) {
    lc_tokenizer *t;
    lc_buf deep = {0}, wide = {0}, ids = {0};
    (void)state;
    for (int i = 0; i < 20; i++) lc_buf_puts(&deep, "{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (int i = 0; i < 20; i++) lc_buf_puts(&deep, "]}");
    char *json = build(&(file_parts){.pre_tokenizer = deep.data});
    assert_int_equal(parse(json, &t), LC_ELIMIT);
    lc_free(json);
    lc_buf_puts(&wide, "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL);
    for (int i = 0; i < 100; i++) lc_buf_puts(&wide, "," BYTE_LEVEL);
    lc_buf_puts(&wide, "]}");
    json = build(&(file_parts){.pre_tokenizer = wide.data});
    assert_int_equal(parse(json, &t), LC_ELIMIT);
    lc_free(json);
    /* 60 byte levels double a text 60 times */
    wide.len -= 41 * strlen("," BYTE_LEVEL) + 2;
    lc_buf_puts(&wide, "]}");
    json = build(&(file_parts){.pre_tokenizer = wide.data});
    assert_ok(parse(json, &t), err);
    lc_ids got = {0};
    assert_int_equal(lc_tokenizer_encode(t, "\xFF\xFF", 2, LC_ENCODE_ALL, false, &got, &err),
                     LC_ELIMIT);
    lc_tokenizer_free(t);
    lc_free(json);
    /* a normalizer whose text is a megabyte for each character */
    lc_buf_puts(&ids, "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"");
    for (int i = 0; i < MEGABYTE / 10; i++) lc_buf_puts(&ids, "aaaaaaaaaa");
    lc_buf_puts(&ids, "\"}");
    json = build(&(file_parts){.normalizer = ids.data});
    assert_ok(parse(json, &t), err);
    assert_int_equal(lc_tokenizer_encode(t, "bbbb", 4, LC_ENCODE_ALL, false, &got, &err),
                     LC_ELIMIT);
    assert_int_equal(got.len, 0);
    lc_tokenizer_free(t);
    lc_free(json);
    lc_ids_free(&got);
    lc_buf_free(&deep);
    lc_buf_free(&wide);
    lc_buf_free(&ids);
    assert_int_equal(lc_mem_current(), 0);
}

static void assert_ids(const lc_tokenizer *t, const char *text, const int32_t *want, size_t n) {
    lc_ids got = {0};
    assert_ok(lc_tokenizer_encode(t, text, strlen(text), LC_ENCODE_ALL, false, &got, &err), err);
    if (got.len != n || memcmp(got.data, want, n * sizeof *want) != 0)
        fail_msg("\"%s\" gives %zu ids", text, got.len);
    lc_ids_free(&got);
}

/* Odd merges that the reference takes: an empty token (its "cycle"), one pair twice, "#version". */
static void test_odd_merges(void **state) {
    lc_tokenizer *t;
    (void)state;
    char *json = build(&(file_parts){.vocab = VOCAB ",\"\":6",
                                     .merges = "\"#version: 0.2\",[\"\",\"a\"],[\"a\",\"\"],"
                                               "[\"\",\"\"],\"b c\",\"a b\",\"a bc\",\"ab c\""});
    assert_ok(parse(json, &t), err);
    assert_ids(t, "abc", (int32_t[]){5}, 1); /* bc, then a bc */
    assert_ids(t, "ab", (int32_t[]){3}, 1);
    assert_ids(t, "aabcb", (int32_t[]){0, 5, 1}, 3);
    assert_ids(t, "axb", (int32_t[]){3}, 1); /* no token for x: dropped, as there */
    lc_tokenizer_free(t);
    lc_free(json);
    /* the pair (b, c) gets its last rank: a b comes first */
    json = build(&(file_parts){.merges = "\"b c\",\"a b\",\"b c\""});
    assert_ok(parse(json, &t), err);
    assert_ids(t, "abc", (int32_t[]){3, 2}, 2);
    lc_tokenizer_free(t);
    lc_free(json);
    json = build(&(file_parts){.model = "\"unk_token\":\"c\",\"fuse_unk\":true,"});
    assert_ok(parse(json, &t), err);
    assert_ids(t, "axyb!", (int32_t[]){0, 2, 1, 2}, 4);
    lc_tokenizer_free(t);
    lc_free(json);
    assert_int_equal(lc_mem_current(), 0);
}

/* ---- texts ---- */

typedef struct timed {
    double seconds;
    size_t n_ids;
    bool same; /* decodes to the text */
} timed;

static timed encode_repeated(const lc_tokenizer *t, const char *unit, size_t bytes) {
    lc_buf text = {0}, back = {0};
    lc_ids ids = {0};
    timed result = {0};
    while (text.len < bytes) lc_buf_puts(&text, unit);
    double start = now();
    assert_ok(lc_tokenizer_encode(t, text.data, text.len, LC_ENCODE_ALL, false, &ids, &err), err);
    assert_ok(lc_tokenizer_decode(t, ids.data, ids.len, false, &back, &err), err);
    result.seconds = now() - start;
    result.n_ids = ids.len;
    result.same = back.len == text.len && !memcmp(back.data, text.data, text.len);
    lc_buf_free(&text);
    lc_buf_free(&back);
    lc_ids_free(&ids);
    return result;
}

static const struct {
    const char *file;
    bool exact; /* no normalizer: ids decode to the same text */
} tokenizers[] = {
    {"tests/golden/tiny-code/tokenizer.json", true},
    {GOLDEN "tokenizer.json", true},
    {GOLDEN "tokenizer_gpt2.json", true},
    {GOLDEN "tokenizer_llama3.json", true},
    {GOLDEN "tokenizer_qwen.json", false},
    {GOLDEN "tokenizer_case.json", false},
};

/* One character, marks to reorder, prefixes of added tokens, white space, capitals (which the
 * case-aware pattern reads twice). */
static const char *const units[] = {
    "a",
    "A",
    " ",
    "\n",
    " \n",
    "\t ",
    "aA",
    "1",
    "'",
    "'s",
    "\u4e2d",
    "\u0301",
    "!",
    "\u0316\u0301",
    "\u0301\u0316\u0334",
    "<longcat_",
    "<longcat_s>",
    " <test_both> ",
    "<",
    "e ",
    "\u00e9",
    "\U0001F600",
    "<over><la",
    "\u3000",
};

static void test_long_texts(void **state) {
    double worst = 0;
    (void)state;
    for (size_t i = 0; i < sizeof tokenizers / sizeof *tokenizers; i++) {
        lc_tokenizer *t;
        assert_ok(lc_tokenizer_load(tokenizers[i].file, &t, &err), err);
        for (size_t j = 0; j < sizeof units / sizeof *units; j++) {
            timed r = encode_repeated(t, units[j], MEGABYTE / 4);
            if (r.seconds > seconds_limit / 4)
                fail_msg("%s: a text of \"%s\": %.1f s", tokenizers[i].file, units[j], r.seconds);
            if (tokenizers[i].exact && !r.same && !strstr(units[j], "<test_both>"))
                fail_msg("%s: a text of \"%s\" decodes to another", tokenizers[i].file, units[j]);
            if (r.seconds > worst) worst = r.seconds;
        }
        lc_tokenizer_free(t);
    }
    printf("# worst of %zu texts: %.2f s for a megabyte\n",
           sizeof tokenizers / sizeof *tokenizers * (sizeof units / sizeof *units), 4 * worst);
    assert_int_equal(lc_mem_current(), 0);
}

/* 1 MB of letters in one piece, and of what is nearly an added token of 100,000 letters, with
 * shorter added tokens at every place: tries that begin again are quadratic here. */
static void test_long_pieces(void **state) {
    lc_tokenizer *t;
    lc_buf added = {0};
    (void)state;
    char *json = build(&(file_parts){
        .vocab = VOCAB ",\"aa\":6,\"aaaa\":7,\"aaaaaaaa\":8",
        .merges = "\"a a\",\"aa aa\",\"aaaa aaaa\",\"a b\",\"b c\"",
        .model = "\"ignore_merges\":true,",
    });
    assert_ok(parse(json, &t), err);
    timed r = encode_repeated(t, "a", MEGABYTE);
    assert_int_equal(r.n_ids, MEGABYTE / 8);
    assert_true(r.same && r.seconds < seconds_limit);
    r = encode_repeated(t, "abc", 999999);
    assert_int_equal(r.n_ids, 666666);
    assert_true(r.same && r.seconds < seconds_limit);
    lc_tokenizer_free(t);
    lc_free(json);
    lc_buf_puts(&added, "{\"id\":9,\"content\":\"a\",\"lstrip\":true,\"rstrip\":true},"
                        "{\"id\":11,\"content\":\" \",\"rstrip\":true,\"lstrip\":true,"
                        "\"normalized\":false},{\"id\":10,\"normalized\":false,\"content\":\"");
    for (int i = 0; i < 10000; i++) lc_buf_puts(&added, "aaaaaaaaaa");
    lc_buf_puts(&added, "b\"}");
    json = build(&(file_parts){.vocab = "\"b\":1", .added = added.data});
    assert_ok(parse(json, &t), err);
    r = encode_repeated(t, "a", MEGABYTE);
    assert_int_equal(r.n_ids, MEGABYTE);
    assert_true(r.same && r.seconds < seconds_limit);
    r = encode_repeated(t, " ", MEGABYTE); /* each takes all white space behind it */
    assert_true(r.n_ids > 0 && r.seconds < seconds_limit);
    lc_tokenizer_free(t);
    lc_free(json);
    lc_buf_free(&added);
    assert_int_equal(lc_mem_current(), 0);
}

/* A pattern that backtracks exponentially ends in an error, not in a hang. */
static void test_exploding_pattern(void **state) {
    lc_tokenizer *t;
    lc_ids ids = {0};
    char text[64];
    (void)state;
    char *json = build(&(file_parts){
        .pre_tokenizer =
            "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
            "{\"Regex\":\"(?:(?:a|b|ab)+)+c\"},\"behavior\":\"Isolated\","
            "\"invert\":false}," BYTE_LEVEL "]}"});
    assert_ok(parse(json, &t), err);
    for (size_t i = 0; i < sizeof text; i++) text[i] = "ab"[i % 2];
    memcpy(text + sizeof text - 2, " c", 2); /* without a c PCRE2 would not even begin */
    double start = now();
    assert_int_equal(lc_tokenizer_encode(t, text, sizeof text, LC_ENCODE_ALL, false, &ids, &err),
                     LC_ELIMIT);
    assert_true(now() - start < seconds_limit);
    assert_non_null(strstr(err.text, "pre_tokenizer.pretokenizers[0]"));
    assert_int_equal(ids.len, 0);
    /* a group that runs long needs a stack that grows with the text */
    timed r = encode_repeated(t, "abab c", 200000);
    assert_true(r.seconds < seconds_limit);
    lc_tokenizer_free(t);
    lc_free(json);
    json = build(&(file_parts){
        .pre_tokenizer =
            "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
            "{\"Regex\":\"(?:a|b)+c?\"},\"behavior\":\"Isolated\","
            "\"invert\":false}," BYTE_LEVEL "]}"});
    assert_ok(parse(json, &t), err);
    r = encode_repeated(t, "ab", 200000);
    assert_true(r.same && r.n_ids == 200000 && r.seconds < seconds_limit);
    lc_tokenizer_free(t);
    lc_free(json);
    lc_ids_free(&ids);
    assert_int_equal(lc_mem_current(), 0);
}

/* Files with colliding contents can't be had cheaply; many tokens, and a large id, can. */
static void test_large_vocab(void **state) {
    lc_tokenizer *t;
    lc_buf vocab = {0};
    (void)state;
    lc_buf_puts(&vocab, VOCAB ",\"far\":4194303");
    for (int i = 0; i < 200000; i++) lc_buf_printf(&vocab, ",\"x%d\":%d", i, i + 6);
    char *json = build(&(file_parts){.vocab = vocab.data});
    double start = now();
    assert_ok(parse(json, &t), err);
    assert_true(now() - start < seconds_limit);
    assert_int_equal(lc_tokenizer_vocab_size(t), 4194304);
    assert_int_equal(lc_tokenizer_id(t, "x199999"), 200005);
    assert_int_equal(lc_tokenizer_id(t, "x200000"), -1);
    assert_string_equal(lc_tokenizer_content(t, 4194303), "far");
    assert_null(lc_tokenizer_content(t, 4194302));
    assert_null(lc_tokenizer_content(t, -1));
    assert_null(lc_tokenizer_content(t, INT32_MAX));
    lc_buf out = {0};
    assert_int_equal(lc_tokenizer_decode(t, (int32_t[]){4194302}, 1, false, &out, &err), LC_EINVAL);
    assert_int_equal(lc_tokenizer_decode(t, (int32_t[]){-1}, 1, false, &out, &err), LC_EINVAL);
    lc_buf_free(&out);
    lc_tokenizer_free(t);
    lc_free(json);
    lc_buf_free(&vocab);
    assert_int_equal(lc_mem_current(), 0);
}

/* ---- memory ---- */

static int load_and_use(const char *path) {
    lc_tokenizer *t;
    lc_ids ids = {0};
    lc_buf text = {0};
    int code = lc_tokenizer_load(path, &t, &err);
    if (!code)
        code = lc_tokenizer_encode(t, "Caf\u00e9 \xFF<|im_start|>\uFB01 e\u0301\u0316x", 28,
                                   LC_ENCODE_ALL, true, &ids, &err);
    if (!code) code = lc_tokenizer_decode(t, ids.data, ids.len, true, &text, &err);
    lc_tokenizer_free(t);
    lc_ids_free(&ids);
    lc_buf_free(&text);
    return code;
}

static void test_allocation_failures(void **state) {
    static const char *const files[] = {GOLDEN "tokenizer_qwen.json", GOLDEN "tokenizer_case.json",
                                        GOLDEN "tokenizer_llama3.json"};
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        int code = LC_ENOMEM;
        long n = 0;
        for (; code; n++) {
            lc_mem_fail_after(n);
            code = load_and_use(files[i]);
            lc_mem_fail_after(-1);
            if (code && code != LC_ENOMEM) fail_msg("allocation %ld: %d, %s", n, code, err.text);
            assert_int_equal(lc_mem_current(), 0);
        }
        printf("# %s: %ld allocations fail in turn\n", files[i], n - 1);
        assert_true(n > 20);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_text_has_fewer_tokens_than_the_least),
        cmocka_unit_test(test_texts_beyond_the_most_are_given_up),
        cmocka_unit_test(test_rules_that_drop_text_give_no_least),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_patterns),
        cmocka_unit_test(test_cut_files),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_odd_merges),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_long_pieces),
        cmocka_unit_test(test_exploding_pattern),
        cmocka_unit_test(test_large_vocab),
        cmocka_unit_test(test_allocation_failures),
    };
    return test_main(tests);
}
