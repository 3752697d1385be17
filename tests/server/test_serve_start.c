/*
 * test_serve_start.c: how `longcat serve` begins and what it says when it can't: its folder, its
 * config file, its names, its first key; and what a load balancer sees while it ends.
 * uses-threads
 */
#include "serve_kit.h"

#include <pthread.h>
#include <sqlite3.h>

static const char model[] = "tests/golden/tiny-code";

/* Output and exit code of `longcat ARGUMENTS --data FOLDER`. */
static int run_cli(const char *folder, const char *arguments, char *out, size_t size) {
    char command[1400];
    int n = snprintf(command, sizeof command, "timeout 60 %s %s --data %s 2>&1", test_program(),
                     arguments, folder);
    assert_true(n > 0 && (size_t)n < sizeof command);
    FILE *f = popen(command, "r");
    out[fread(out, 1, size - 1, f)] = 0;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* `longcat serve` with these arguments ends at once, with words about it. */
static void refuses(const server *s, const char *arguments, int code, const char *words) {
    char command[900], out[2000];
    snprintf(command, sizeof command, "serve %s --port 0 %s", model, arguments);
    int got = run_cli(s->folder, command, out, sizeof out);
    if (got != code || !strstr(out, words))
        fail_msg("%s: exit code %d, not %d, or no \"%s\" in: %s", arguments, got, code, words, out);
}

/* ---- the folder ---- */

static void test_a_torn_secret_is_made_anew(void **state) {
    server *s = *state;
    for (int i = 0; i < 2; i++) {
        put_file(in(s->folder, "secret"), "short", i ? 5 : 0);
        start_server(s, model, NULL);
        stop_server(s, SIGTERM);
        lc_buf secret = get_file(in(s->folder, "secret"));
        assert_int_equal(secret.len, 32);
        start_server(s, model, NULL); /* and then it stays */
        stop_server(s, SIGTERM);
        lc_buf again = get_file(in(s->folder, "secret"));
        assert_memory_equal(again.data, secret.data, 32);
        lc_buf_free(&secret);
        lc_buf_free(&again);
    }
}

static void test_a_folder_has_one_server(void **state) {
    server *s = *state;
    char key[2000], words[400];
    snprintf(words, sizeof words, "%s: another process", s->folder);
    start_server(s, model, NULL);
    refuses(s, "", 1, words);
    assert_int_equal(run_cli(s->folder, "keys create ann", key, sizeof key), 0);
    assert_non_null(strstr(key, "sk-lc-"));
    stop_server(s, SIGKILL);
    start_server(s, model, NULL);
}

static void test_only_a_damaged_file_of_answers_is_begun_anew(void **state) {
    server *s = *state;
    const char *path = in(s->folder, "answers.db");
    struct stat st;
    assert_int_equal(mkdir(path, 0700), 0); /* nothing that SQLite can open */
    refuses(s, "", 1, "answers.db: unable to open database file");
    assert_int_equal(rmdir(path), 0);
    sqlite3 *other;
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "CREATE TABLE t(x); BEGIN EXCLUSIVE", NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(stat(path, &st), 0);
    ino_t before = st.st_ino;
    refuses(s, "", 1, "answers.db: database is locked");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_ino, before);
    sqlite3_close(other);
    put_text(path, "this is no database, but as long as its header must be "
                   "................................................");
    start_server(s, model, NULL);
}

/* ---- the config file ---- */

/* Whether /v1/models names it to a client that calls the server by `host`. */
static bool serves_as(const server *s, const char *host, const char *name) {
    char url[200], header[200];
    lc_buf body = {0};
    request r = {0};
    void *both[] = {&body, &r}, *ctx = both;
    CURL *c = curl_easy_init();
    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1/models", s->port);
    snprintf(header, sizeof header, "host: %s", host);
    struct curl_slist *headers = curl_slist_append(NULL, header);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, ctx);
    curl_easy_perform(c);
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    bool named = body.data && strstr(body.data, name);
    lc_buf_free(&body);
    return named;
}

static void test_the_command_line_replaces_lists_of_the_file(void **state) {
    server *s = *state;
    const char *path = in(s->folder, "serve.conf");
    put_text(path,
             "# of this test\nallow-host = file.example\n allow-host = \"two.example\" # too\n"
             "quiet = false\nname = file\nkeys = false\npin-temperature\n");
    for (int i = 0; i < 2; i++) {
        const char *const extra[] = {"--config", path, "--allow-host", "flag.example", "--name",
                                     "flag",     NULL};
        const char *const alone[] = {"--config", path, NULL};
        static const char *const hosts[] = {"file.example", "two.example", "flag.example"};
        start_server(s, model, i ? extra : alone);
        for (int h = 0; h < 3; h++) {
            bool allowed = (h == 2) == (i == 1);
            assert_int_equal(serves_as(s, hosts[h], i ? "\"flag\"" : "\"file\""), allowed);
        }
        stop_server(s, SIGTERM);
    }
}

static void test_what_is_wrong_in_a_config_file_is_named(void **state) {
    server *s = *state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"port = 80\n\nprot = 8080\n", "serve.conf:3: there is no option \"prot\""},
        {"keys = yes\n", "serve.conf:1: keys: \"yes\" is neither true nor false"},
        {"quiet = true\nrunning = 0\n", "serve.conf:2: running: \"0\" is not a whole number"},
        {"drain = soon\n", "serve.conf:1: drain: \"soon\" is not a number"},
        {"name\n", "serve.conf:1: name needs a value"},
        {"config = other\n", "serve.conf:1: there is no option \"config\""},
        {"= 3\n", "serve.conf:1: there is no option \"\""},
    };
    char arguments[400];
    snprintf(arguments, sizeof arguments, "--config %s", in(s->folder, "serve.conf"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text(in(s->folder, "serve.conf"), cases[i].text);
        refuses(s, arguments, 2, cases[i].words);
    }
}

/* ---- keys and names ---- */

static void test_the_first_key_is_asked_for_in_commands(void **state) {
    server *s = *state;
    char words[400];
    snprintf(words, sizeof words, "`longcat keys create NAME --data %s`", s->folder);
    refuses(s, "--host 0.0.0.0", 1, words);
    refuses(s, "--keys", 1, words);
}

static void test_limits_are_set_for_keys_that_exist(void **state) {
    server *s = *state;
    char out[1000];
    assert_int_equal(run_cli(s->folder, "keys limit ann", out, sizeof out), 1);
    assert_non_null(strstr(out, "a limit is needed"));
    assert_int_equal(run_cli(s->folder, "keys limit ann --concurrent 2", out, sizeof out), 1);
    assert_non_null(strstr(out, "there is no key \"ann\""));
    assert_int_equal(run_cli(s->folder, "keys create bob", out, sizeof out), 0);
    assert_int_equal(run_cli(s->folder, "keys limit ann --concurrent 2", out, sizeof out), 1);
    assert_int_equal(run_cli(s->folder, "keys limit bob --concurrent 2", out, sizeof out), 0);
}

static void test_names_are_checked(void **state) {
    server *s = *state;
    refuses(s, "--metrics-prefix ''", 1, "--metrics-prefix: \"\"");
    refuses(s, "--metrics-prefix 9x", 1, "--metrics-prefix: \"9x\"");
    refuses(s, "--metrics-prefix long-cat:", 1, "--metrics-prefix: \"long-cat:\"");
    refuses(s, "--name ''", 1, "--name: \"\"");
    refuses(s, "--name 'a\"b'", 1, "a quote");
    refuses(s, "--name \"$(printf 'a\\tb')\"", 1, "--name");
    refuses(s, "--name \"$(printf 'a\\377')\"", 1, "--name");
    start_server(s, model,
                 (const char *[]){"--metrics-prefix", "vllm:_9", "--name", "ä b/c", NULL});
    reply r = get(s, "/metrics");
    assert_non_null(strstr(r.body.data, "\nvllm:_9num_requests_running{"));
    free_reply(&r);
}

/* ---- the end ---- */

static void *long_answer(void *ctx) {
    static reply r;
    r = post(ctx, "/v1/completions",
             "{\"prompt\":\"def\",\"max_tokens\":2000,\"logit_bias\":{\"2\":-100}}");
    return &r;
}

static void test_ready_says_that_it_drains(void **state) {
    server *s = *state;
    pthread_t thread;
    void *got;
    start_server(s, model, (const char *[]){"--drain", "100", NULL});
    reply r = get(s, "/ready");
    assert_int_equal(r.status, 200);
    free_reply(&r);
    pthread_create(&thread, NULL, long_answer, s);
    for (int i = 0; i < 100 && metric(s, "num_requests_running") < 1; i++) usleep(10000);
    kill(s->pid, SIGTERM);
    for (int i = 0; i < 100; i++, free_reply(&r)) {
        r = get(s, "/ready");
        if (r.status != 200) break;
    }
    assert_int_equal(r.status, 503);
    assert_string_equal(text_at(&r, "status"), "draining");
    free_reply(&r);
    r = post(s, "/v1/completions", "{\"prompt\":\"def\",\"max_tokens\":2}");
    assert_int_equal(r.status, 503);
    assert_string_equal(text_at(&r, "error.code"), "shutting_down");
    free_reply(&r);
    pthread_join(thread, &got);
    assert_int_equal(((reply *)got)->status, 200);
    free_reply(got);
    int status = end_of(s->pid);
    s->pid = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    r = get(s, "/ready");
    assert_int_equal(r.status, 0); /* nobody listens */
    free_reply(&r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_server, end_server)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_a_torn_secret_is_made_anew),
        TEST(test_a_folder_has_one_server),
        TEST(test_only_a_damaged_file_of_answers_is_begun_anew),
        TEST(test_the_command_line_replaces_lists_of_the_file),
        TEST(test_what_is_wrong_in_a_config_file_is_named),
        TEST(test_the_first_key_is_asked_for_in_commands),
        TEST(test_limits_are_set_for_keys_that_exist),
        TEST(test_names_are_checked),
        TEST(test_ready_says_that_it_drains),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return test_main(tests);
}
