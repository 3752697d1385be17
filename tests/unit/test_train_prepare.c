/*
 * test_train_prepare.c: `longcat train data`: from corpora made here to shards, read back and
 * decoded. What is kept, dropped, cut and masked; same bytes for any threads; kill -9; folders that
 * aren't ours; refused memory. uses-threads
 */
#include "text/chat.h"
#include "train/prepare.h"
#include "train/shardset.h"
#include "train_files.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#define TOKENIZER "tests/golden/tiny-code/tokenizer.json" /* <longcat_assistant> 6, EOS 2 */

static lc_err err;
static char folder[256], corpus[300], out[300];
static lc_tokenizer *tokenizer;
static lc_prepare_result result;

static int set_up(void **state) {
    (void)state;
    make_folder(folder);
    snprintf(corpus, sizeof corpus, "%s/c", folder);
    snprintf(out, sizeof out, "%s/out", folder);
    mkdir(corpus, 0777);
    return lc_tokenizer_load(TOKENIZER, &tokenizer, &err);
}
static int tear_down(void **state) {
    (void)state;
    lc_tokenizer_free(tokenizer);
    remove_folder(folder);
    return 0;
}

static const char *corpora[1] = {corpus};

static lc_prepare_options options(void) {
    return (lc_prepare_options){.corpus = {.paths = corpora, .n_paths = 1},
                                .out = out,
                                .tokenizer = TOKENIZER,
                                .near = 0.75};
}

static lc_shardset *prepare(const lc_prepare_options *o) {
    lc_shardset *set;
    assert_ok(lc_prepare(o, &result, &err), err);
    assert_ok(lc_shardset_open(out, &set, &err), err);
    assert_int_equal(lc_shardset_documents(set), result.documents);
    assert_int_equal(lc_shardset_tokens(set), result.tokens);
    return set;
}

/* Text of a document with its EOS left out; the mask with '1' and '0' if wanted. */
static lc_buf text_of(const lc_shardset *set, uint64_t doc, char *mask) {
    size_t n = lc_shardset_length(set, doc);
    int32_t *ids = calloc(n, sizeof *ids);
    uint8_t *bits = calloc(n, 1);
    lc_buf text = {0};
    lc_shard_part part = {doc, 0, n, ids, bits};
    assert_ok(lc_shardset_read(set, &part, &err), err);
    assert_int_equal(ids[n - 1], 2);
    assert_ok(lc_tokenizer_decode(tokenizer, ids, n - 1, false, &text, &err), err);
    for (size_t i = 0; mask && i < n; i++) mask[i] = bits[i] ? '1' : '0';
    if (mask) mask[n] = 0;
    free(ids);
    free(bits);
    return text;
}

static void expect_text(const lc_shardset *set, uint64_t doc, const char *want) {
    lc_buf text = text_of(set, doc, NULL);
    assert_string_equal(text.data, want);
    lc_buf_free(&text);
}

/* Words of a made-up language: `n` of them, all different for different seeds. */
static char *words(unsigned seed, unsigned n) {
    lc_buf text = {0};
    for (unsigned i = 0; i < n; i++)
        lc_buf_printf(&text, "w%ux%u%s", seed, (i * 7919 + seed) % 100003, i % 9 == 8 ? "\n" : " ");
    char *copy = strdup(text.data);
    lc_buf_free(&text);
    return copy;
}

static void test_tree(void **state) {
    (void)state;
    char *big = calloc(1, 2000001);
    memset(big, 'x', 2000000);
    mkdir(in(corpus, "b"), 0777);
    mkdir(in(corpus, ".git"), 0777);
    put_text(in(corpus, ".git/x.py"), "hidden = 1\n");
    put_text(in(corpus, "b/two.py"), "second = 2 # </longcat_s> is text\n");
    put_text(in(corpus, "a.c"), "int first;\n");
    put_text(in(corpus, "c.md"), "Third: \xC3\xA9t\xC3\xA9.\n");
    put_text(in(corpus, "d.bin"), "other type\n");
    put_file(in(corpus, "e.py"), "a\0b", 3);
    put_text(in(corpus, "f.py"), "\xFF\xFE not UTF-8");
    put_text(in(corpus, "g.py"), "  \n");
    put_file(in(corpus, "h.py"), big, 2000000);
    assert_int_equal(symlink("a.c", in(corpus, "i.c")), 0);
    lc_prepare_options o = options();
    lc_shardset *set = prepare(&o);
    assert_int_equal(result.documents, 3);
    expect_text(set, 0, "int first;\n");
    expect_text(set, 1, "second = 2 # </longcat_s> is text\n");
    expect_text(set, 2, "Third: \xC3\xA9t\xC3\xA9.\n");
    const lc_corpus_counts *c = &result.read;
    assert_int_equal(c->hidden, 1);
    assert_int_equal(c->other_type, 1);
    assert_int_equal(c->binary, 1);
    assert_int_equal(c->not_utf8, 1);
    assert_int_equal(c->empty, 1);
    assert_int_equal(c->too_large, 1);
    assert_int_equal(c->links, 1);
    assert_string_equal(lc_shardset_name(set), "out");
    lc_shardset_close(set);
    free(big);
}

/* A file that is named may be large; it is cut at lines, and nothing is lost. */
static void test_large_file(void **state) {
    (void)state;
    lc_buf text = {0}, back = {0};
    for (unsigned i = 0; text.len < 20u << 20; i++) lc_buf_printf(&text, "line %u of a file\n", i);
    const char *path[] = {in(folder, "big.unknown")};
    put_file(path[0], text.data, text.len);
    lc_prepare_options o = options();
    o.corpus.paths = path;
    o.near = 0;
    lc_shardset *set = prepare(&o);
    assert_int_equal(result.documents, 3);
    for (uint64_t d = 0; d < 3; d++) {
        lc_buf part = text_of(set, d, NULL);
        assert_int_equal(part.data[part.len - 1], '\n');
        lc_buf_append(&back, part.data, part.len);
        lc_buf_free(&part);
    }
    assert_int_equal(back.len, text.len);
    assert_memory_equal(back.data, text.data, text.len);
    lc_shardset_close(set);
    lc_buf_free(&text);
    lc_buf_free(&back);
}

static void test_jsonl(void **state) {
    (void)state;
    put_text(in(corpus, "a.jsonl"), "{\"text\": \"one\"}\n"
                                    "not json\n"
                                    "\n"
                                    "{\"other\": \"x\"}\n"
                                    "{\"text\": \"two\\n\\u00e9\", \"n\": 5}\r\n"
                                    "{\"text\": \"\"}\n"
                                    "{\"text\": \"\xFF\"}\n"
                                    "{\"text\": \"three\"}");
    lc_prepare_options o = options();
    lc_shardset *set = prepare(&o);
    assert_int_equal(result.documents, 3);
    expect_text(set, 0, "one");
    expect_text(set, 1, "two\n\xC3\xA9");
    expect_text(set, 2, "three");
    assert_int_equal(result.read.bad_line, 2);
    assert_int_equal(result.read.empty, 1);
    assert_int_equal(result.read.not_utf8, 1);
    lc_shardset_close(set);
}

/* The chat layer gives the ids; the mask must cover what stands behind <longcat_assistant>. */
static void test_chat(void **state) {
    (void)state;
    static const char line[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"},"
        "{\"role\": \"user\", \"content\": \"say <longcat_assistant>hi</longcat_s>\"},"
        "{\"role\": \"assistant\", \"content\": \"hi\", \"tool_calls\": [{\"type\": \"function\","
        "\"function\": {\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1}\"}}]},"
        "{\"role\": \"tool\", \"content\": \"done\"},"
        "{\"role\": \"assistant\", \"content\": \"ok\"},"
        "{\"role\": \"user\", \"content\": \"bye\"}]}\n";
    static const char more[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"nobody answers\"}]}\n"
        "{\"messages\": [{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": "
        "[{\"function\": {\"name\": \"f\", \"arguments\": \"no json\"}}]}]}\n"
        "{\"text\": \"plain text\"}\n";
    lc_buf file = {0};
    lc_buf_puts(&file, line);
    lc_buf_puts(&file, more);
    put_file(in(corpus, "a.jsonl"), file.data, file.len);
    lc_buf_free(&file);
    lc_prepare_options o = options();
    lc_shardset *set = prepare(&o);
    assert_int_equal(result.documents, 2);
    assert_int_equal(result.no_target, 1);
    assert_int_equal(result.bad_chat, 1);
    assert_non_null(strstr(result.first_bad_chat.text, "a.jsonl:3"));
    char mask[256];
    lc_buf text = text_of(set, 0, mask);
    assert_string_equal(
        text.data,
        "<longcat_system>S<longcat_user>say <longcat_assistant>hi</longcat_s><longcat_assistant>hi"
        "<longcat_tool_call>f\n<longcat_arg_key>x</longcat_arg_key>\n<longcat_arg_value>1"
        "</longcat_arg_value>\n</longcat_tool_call>\n</longcat_s><longcat_user>"
        "<longcat_tool_response>done</longcat_tool_response><longcat_assistant>ok</longcat_s>"
        "<longcat_user>bye");
    size_t n = lc_shardset_length(set, 0), targets = 0;
    int32_t ids[256];
    lc_shard_part part = {0, 0, n, ids, NULL};
    assert_ok(lc_shardset_read(set, &part, &err), err);
    /* By special ids, which data can't make: 6 opens, 2 closes, both turns end with EOS. */
    int open = 0, opened = 0, closed = 0;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(mask[i], open ? '1' : '0');
        targets += mask[i] == '1';
        opened += ids[i] == 6;
        closed += ids[i] == 2 && open;
        open = ids[i] == 6 || (open && ids[i] != 2);
    }
    assert_int_equal(opened, 2);
    assert_int_equal(closed, 2);
    lc_buf_free(&text);
    text = text_of(set, 1, mask);
    assert_string_equal(text.data, "plain text");
    assert_null(strchr(mask, '0')); /* a text is a target whole */
    assert_int_equal(result.targets, targets + lc_shardset_length(set, 1));
    lc_buf_free(&text);
    lc_shardset_close(set);
}

static void test_duplicates(void **state) {
    (void)state;
    char *a = words(1, 400), *b = words(2, 400);
    lc_buf near = {0};
    lc_buf_printf(&near, "%s one two three\n", a);
    put_text(in(corpus, "a.txt"), a);
    put_text(in(corpus, "b.txt"), b);
    put_text(in(corpus, "c.txt"), a);
    put_text(in(corpus, "d.txt"), near.data);
    put_text(in(corpus, "e.txt"), "short");
    put_text(in(corpus, "f.txt"), "short!");
    lc_prepare_options o = options();
    lc_shardset *set = prepare(&o);
    assert_int_equal(result.exact_duplicates, 1);
    assert_int_equal(result.near_duplicates, 1);
    assert_int_equal(result.documents, 4);
    expect_text(set, 0, a);
    expect_text(set, 1, b);
    lc_shardset_close(set);
    remove_folder(out);
    o.near = 0;
    lc_shardset_close(prepare(&o));
    assert_int_equal(result.documents, 5);
    lc_buf_free(&near);
    free(a);
    free(b);
}

/* The share of near pairs found, at similarities told by construction: documents of 400 words of
 * which the last k are other ones; J = (396 - k) / (396 + k) over 5-word shingles. */
static void test_near_rates(void **state) {
    (void)state;
    enum { PAIRS = 60 };
    static const unsigned changed[] = {10, 40, 130}; /* J = 0.95, 0.82, 0.51 */
    for (size_t c = 0; c < 3; c++) {
        lc_buf file = {0};
        for (unsigned i = 0; i < PAIRS; i++) {
            char *a = words(1000 + i, 400), *end = words(5000 + i, changed[c]), *at = a;
            lc_buf_printf(&file, "%s", "{\"text\": \"");
            for (char *p = a; *p; p++) *p = *p == '\n' ? ' ' : *p;
            for (char *p = end; *p; p++) *p = *p == '\n' ? ' ' : *p;
            lc_buf_printf(&file, "%s\"}\n", a);
            for (unsigned w = 0; w < 400 - changed[c]; w++) at = strchr(at, ' ') + 1;
            *at = 0;
            lc_buf_printf(&file, "{\"text\": \"%s%s\"}\n", a, end);
            free(a);
            free(end);
        }
        put_file(in(corpus, "a.jsonl"), file.data, file.len);
        lc_buf_free(&file);
        lc_prepare_options o = options();
        remove_folder(out);
        lc_shardset_close(prepare(&o));
        printf("# %u of 400 words changed: %llu of %d found\n", changed[c],
               (unsigned long long)result.near_duplicates, PAIRS);
        if (c == 0) assert_true(result.near_duplicates == PAIRS);
        if (c == 1) assert_true(result.near_duplicates > PAIRS / 2);
        if (c == 2) assert_true(result.near_duplicates == 0);
    }
}

static void test_exclude(void **state) {
    (void)state;
    char *a = words(1, 300), *b = words(2, 300), *secret = words(3, 40);
    lc_buf mixed = {0}, few = {0};
    lc_buf_printf(&mixed, "%s\nhere: %s and on\n%s", a, secret, b);
    const char *exclude[] = {in(folder, "eval.txt")};
    put_text(exclude[0], secret);
    put_text(in(corpus, "a.txt"), mixed.data);
    for (char *p = secret; *p; p++) *p = *p == ' ' ? '\t' : *p == 'w' ? 'W' : *p;
    put_text(in(corpus, "b.txt"), secret); /* other case and spaces: all of it goes */
    *strchr(strchr(strchr(strchr(secret, '\t') + 1, '\t') + 1, '\t') + 1, '\t') = 0;
    lc_buf_printf(&few, "%s is too little to tell", secret);
    put_text(in(corpus, "c.txt"), few.data);
    lc_prepare_options o = options();
    o.exclude = exclude;
    o.n_exclude = 1;
    lc_shardset *set = prepare(&o);
    assert_int_equal(result.contaminated, 1);
    assert_int_equal(result.cut, 1);
    assert_int_equal(result.documents, 3);
    lc_buf_clear(&mixed);
    lc_buf_printf(&mixed, "%s\n", a);
    expect_text(set, 0, mixed.data);
    expect_text(set, 1, b);
    expect_text(set, 2, few.data);
    lc_shardset_close(set);
    lc_buf_free(&mixed);
    lc_buf_free(&few);
    free(a);
    free(b);
    free(secret);
}

/* Each text comes back from its three parts. */
static void test_fill_in_the_middle(void **state) {
    (void)state;
    enum { DOCS = 400 };
    lc_buf file = {0}, tok = get_file(TOKENIZER);
    const char *path = in(folder, "tokenizer.json");
    /* The tiny tokenizer with three of its specials renamed. */
    static const char *const names[][2] = {{"<longcat_files>", "<fim_prefix>"},
                                           {"</longcat_files>", "<fim_suffix>"},
                                           {"<longcat_observation>", "<fim_middle>"}};
    for (size_t i = 0; i < 3; i++)
        for (char *at; (at = strstr(tok.data, names[i][0]));) {
            size_t old = strlen(names[i][0]), new = strlen(names[i][1]);
            memcpy(at, names[i][1], new);
            memmove(at + new, at + old, strlen(at + old) + 1);
        }
    put_text(path, tok.data);
    for (unsigned i = 0; i < DOCS; i++)
        lc_buf_printf(&file, "{\"text\": \"t\xC3\xA9xt %u \xE4\xB8\xAD!\"}\n", i);
    put_file(in(corpus, "a.jsonl"), file.data, file.len);
    lc_prepare_options o = options();
    o.fim = 0.5;
    assert_int_equal(lc_prepare(&o, &result, &err),
                     LC_EINVAL); /* the tiny one has no such tokens */
    assert_non_null(strstr(err.text, "fim_prefix"));
    o.tokenizer = path;
    lc_tokenizer_free(tokenizer);
    assert_ok(lc_tokenizer_load(path, &tokenizer, &err), err);
    lc_shardset *set = prepare(&o);
    size_t moved = 0;
    for (unsigned d = 0; d < DOCS; d++) {
        char want[64];
        lc_buf text = text_of(set, d, NULL), joined = {0};
        snprintf(want, sizeof want, "t\xC3\xA9xt %u \xE4\xB8\xAD!", d);
        if (!strncmp(text.data, "<fim_prefix>", 12)) {
            char *suffix = strstr(text.data, "<fim_suffix>"),
                 *middle = strstr(text.data, "<fim_middle>");
            assert_true(suffix && middle && suffix < middle);
            lc_buf_append(&joined, text.data + 12, (size_t)(suffix - text.data) - 12);
            lc_buf_puts(&joined, middle + 12);
            lc_buf_append(&joined, suffix + 12, (size_t)(middle - suffix) - 12);
            moved++;
        } else {
            lc_buf_puts(&joined, text.data);
        }
        assert_string_equal(joined.data, want);
        lc_buf_free(&text);
        lc_buf_free(&joined);
    }
    assert_int_equal(moved, result.fim);
    assert_true(moved > DOCS / 2 - 60 && moved < DOCS / 2 + 60);
    lc_shardset_close(set);
    lc_buf_free(&file);
    lc_buf_free(&tok);
}

static void test_threads(void **state) {
    (void)state;
    const char *const paths[] = {"docs", "src/text", "tests/golden/train/corpus.jsonl"};
    lc_prepare_options o = options();
    char first[600];
    o.corpus.paths = paths;
    o.corpus.n_paths = 3;
    o.shard_bytes = 200000;
    snprintf(first, sizeof first, "%s", in(folder, "one"));
    for (int threads = 1; threads <= 3; threads++) {
        o.out = threads == 1 ? first : out;
        o.name = "x";
        assert_ok(lc_pool_new(threads, &o.pool, &err), err);
        assert_ok(lc_prepare(&o, &result, &err), err);
        lc_pool_free(o.pool);
        assert_true(result.shards > 2);
        for (size_t i = 0; i < result.shards && threads > 1; i++) {
            char name[40];
            snprintf(name, sizeof name, "shard-%05zu.tokens", i);
            assert_true(same_files(in(first, name), in(out, name)));
        }
        if (threads > 1) {
            assert_true(same_files(in(first, "manifest.json"), in(out, "manifest.json")));
            remove_folder(out);
        }
    }
}

static void test_folders(void **state) {
    (void)state;
    put_text(in(corpus, "a.txt"), "text\n");
    mkdir(out, 0777);
    put_text(in(out, "mine.txt"), "precious\n");
    lc_prepare_options o = options();
    assert_int_equal(lc_prepare(&o, &result, &err), LC_EINVAL);
    assert_true(strstr(err.text, out) && strstr(err.text, "mine.txt"));
    assert_int_equal(access(in(out, "mine.txt"), F_OK), 0);
    unlink(in(out, "mine.txt"));
    put_text(in(out, "shard-00000.tokens"), "no marker beside it\n");
    assert_int_equal(lc_prepare(&o, &result, &err), LC_EINVAL);
    assert_int_equal(access(in(out, "shard-00000.tokens"), F_OK), 0);
    put_text(in(out, "unfinished"), "");
    put_text(in(out, "shard-00007.tokens.part"), "left over\n");
    lc_shardset_close(prepare(&o));
    assert_int_equal(access(in(out, "shard-00007.tokens.part"), F_OK), -1);
    assert_int_equal(access(in(out, "unfinished"), F_OK), -1);
    assert_int_equal(lc_prepare(&o, &result, &err), LC_EINVAL);
    assert_true(strstr(err.text, out) && strstr(err.text, "finished"));
}

/* Killed at any time: either there is no manifest and the next run succeeds, or all is there. */
static void test_kill(void **state) {
    (void)state;
    char *const args[] = {(char *)test_program(), "train", "data", "src",         "docs",
                          "tests/golden/text",    "-o",    out,    "--tokenizer", TOKENIZER,
                          "--shard-size",         "1",     "-t",   "2",           NULL};
    int killed = 0, finished = 0;
    for (unsigned i = 0; i < 12; i++) {
        lc_shardset *set;
        pid_t child = fork();
        if (!child) {
            int null = open("/dev/null", O_WRONLY);
            dup2(null, 1);
            dup2(null, 2);
            execv(args[0], args);
            _exit(9);
        }
        assert_true(child > 0);
        if (i < 11) usleep(20000 * i + 1000);
        if (i < 11) kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        bool done = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        bool there = access(in(out, "manifest.json"), F_OK) == 0;
        killed += !done;
        finished += done;
        assert_true(!done || there);
        if (!there) continue;
        assert_ok(lc_shardset_open(out, &set, &err), err); /* checks each header and index */
        for (uint64_t d = 0; d < lc_shardset_documents(set); d++) {
            lc_buf text = text_of(set, d, NULL);
            lc_buf_free(&text);
        }
        lc_shardset_close(set);
        remove_folder(out);
    }
    printf("# killed %d times, finished %d times\n", killed, finished);
    assert_true(finished > 0);
}

static void test_no_memory(void **state) {
    (void)state;
    put_text(in(corpus, "a.jsonl"),
             "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", "
             "\"content\": \"a\"}]}\n{\"text\": \"some words\"}\n");
    lc_prepare_options o = options();
    size_t before = lc_mem_current();
    long n = 0;
    for (int status = LC_ENOMEM; status; n = n < 300 ? n + 1 : n + n / 50) {
        lc_mem_fail_after(n);
        status = lc_prepare(&o, &result, &err);
        lc_mem_fail_after(-1);
        if (status && status != LC_ENOMEM) fail_msg("allocation %ld: %s", n, err.text);
        assert_int_equal(lc_mem_current(), before);
    }
    printf("# about %ld allocations\n", n);
    assert_int_equal(result.documents, 2);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_tree),       T(test_large_file), T(test_jsonl),   T(test_chat),
        T(test_duplicates), T(test_near_rates), T(test_exclude), T(test_fill_in_the_middle),
        T(test_threads),    T(test_folders),    T(test_kill),    T(test_no_memory),
    };
    return test_main(tests);
}
