/*
 * test_serve_fault.c: `longcat serve` when the system fails it: a disk that is full, a cache folder
 * that vanishes, no descriptors, a second SIGTERM in the middle, memory that runs out at any place.
 * Clients get an answer that is right, or an error, always an end; afterwards all is well again.
 * uses-threads: the last test runs the service in this program.
 */
#include "../server/serve_kit.h"

#include "engine/engine.h"
#include "server/service.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>

static const char question[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello, what is this"
                               "?\"}],\"temperature\":0,\"max_tokens\":12}";

static void set_limit(const server *s, __rlimit_resource_t what, rlim_t value, struct rlimit *old) {
    assert_int_equal(prlimit(s->pid, what, NULL, old), 0);
    struct rlimit now = {value, old->rlim_max};
    assert_int_equal(prlimit(s->pid, what, &now, NULL), 0);
}

/* fresh + cached, and output tokens of the whole ledger. */
static void ledger_sums(const server *s, int64_t out[3]) {
    char command[700], line[400] = "";
    snprintf(command, sizeof command, "%s usage --by all --csv --data %s | tail -1", test_program(),
             s->folder);
    FILE *f = popen(command, "r");
    assert_non_null(fgets(line, sizeof line, f));
    pclose(f);
    long long n, fresh, cached, output;
    assert_int_equal(sscanf(line, "%*[^,],%lld,%lld,%lld,%lld", &n, &fresh, &cached, &output), 4);
    out[0] = n;
    out[1] = fresh + cached;
    out[2] = output;
}

/* ---- the disk ---- */

static void test_what_cannot_be_recorded_is_not_answered(void **state) {
    server *s = *state;
    struct rlimit old;
    int64_t sums[3];
    start_server(s, "tests/golden/tiny-code", NULL);
    reply before = post(s, "/v1/chat/completions", question);
    assert_int_equal(before.status, 200);
    set_limit(s, RLIMIT_FSIZE, 0, &old); /* as a full disk: nothing can be written any more */
    static const char *const paths[] = {"/v1/chat/completions", "/v1/messages"};
    for (int i = 0; i < 2; i++) {
        reply r = post(s, paths[i], question);
        assert_int_equal(r.status, 503);
        assert_non_null(strstr(r.body.data, "recorded"));
        free_reply(&r);
    }
    reply probe = get(s, "/health");
    assert_int_equal(probe.status, 200);
    assert_int_equal(prlimit(s->pid, RLIMIT_FSIZE, &old, NULL), 0);
    reply after = post(s, "/v1/chat/completions", question);
    assert_int_equal(after.status, 200);
    assert_string_equal(text_at(&before, "choices.0.message.content"),
                        text_at(&after, "choices.0.message.content"));
    ledger_sums(s, sums);
    assert_int_equal(sums[0], 2);
    assert_int_equal(sums[1], (int64_t)metric(s, "prompt_tokens_total"));
    assert_int_equal(sums[2], (int64_t)metric(s, "generation_tokens_total"));
    free_reply(&before);
    free_reply(&probe);
    free_reply(&after);
}

static void test_a_ledger_that_is_no_database_stops_the_start(void **state) {
    server *s = *state;
    char command[700], text[512] = {0};
    put_text(in(s->folder, "accounts.db"), "this is no database, but as long as its header must be "
                                           "................................................");
    snprintf(command, sizeof command, "%s serve tests/golden/tiny-code --port 0 --data %s 2>&1",
             test_program(), s->folder);
    FILE *f = popen(command, "r");
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    assert_true(pclose(f) != 0);
    assert_non_null(strstr(text, "accounts.db"));
}

static bool has_blocks(const char *folder) {
    bool any = false;
    for (unsigned i = 0; i < 256 && !any; i++) {
        char path[400];
        snprintf(path, sizeof path, "%s/prompts/%02x", folder, i);
        DIR *dir = opendir(path);
        for (struct dirent *e; dir && (e = readdir(dir));) any |= strlen(e->d_name) == 35;
        if (dir) closedir(dir);
    }
    return any;
}

static void test_the_cache_folder_vanishes(void **state) {
    server *s = *state;
    lc_buf body = {0};
    char first[2000] = "";
    start_server(s, "tests/golden/tiny-code", (const char *[]){"--cache-ram", "1M", NULL});
    for (int round = 0; round < 3; round++) {
        lc_buf_clear(&body);
        lc_buf_printf(&body, "{\"prompt\":\"%d ", round == 1);
        for (int i = 0; i < 150; i++) lc_buf_printf(&body, "word%d ", i);
        lc_buf_puts(&body, "\",\"temperature\":0,\"max_tokens\":8}");
        reply r = post(s, "/v1/completions", body.data);
        assert_int_equal(r.status, 200);
        if (!round) snprintf(first, sizeof first, "%s", text_at(&r, "choices.0.text"));
        if (round == 2) assert_string_equal(text_at(&r, "choices.0.text"), first);
        free_reply(&r);
        if (!round) remove_folder(in(s->folder, "prompts"));
    }
    bool any = false;
    for (int i = 0; i < 100 && !any; i++) {
        usleep(50000);
        any = has_blocks(s->folder);
    }
    assert_true(any); /* it was made again */
    reply status = get(s, "/v1/longcat/status");
    assert_false(json_object_get_boolean(at(status.json, "cache.disk_failed")));
    free_reply(&status);
    lc_buf_free(&body);
}

/* ---- descriptors ---- */

static size_t open_files(const server *s) {
    char path[64];
    size_t n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)s->pid);
    DIR *dir = opendir(path);
    while (dir && readdir(dir)) n++;
    closedir(dir);
    return n - 2;
}

static int connect_to(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    close(fd);
    return -1;
}

static void test_no_descriptors_are_left(void **state) {
    server *s = *state;
    struct rlimit old;
    int fds[40];
    start_server(s, "tests/golden/tiny-code", NULL);
    reply before = post(s, "/v1/chat/completions", question);
    size_t files = open_files(s);
    set_limit(s, RLIMIT_NOFILE, files + 4, &old);
    for (int i = 0; i < 40; i++) fds[i] = connect_to(s->port);
    usleep(300000);
    for (int i = 0; i < 40; i++)
        if (fds[i] >= 0) close(fds[i]);
    for (int i = 0; i < 100 && open_files(s) > files + 1; i++) usleep(20000);
    reply after = post(s, "/v1/chat/completions", question); /* with the few that it has */
    assert_int_equal(after.status, 200);
    assert_string_equal(text_at(&before, "choices.0.message.content"),
                        text_at(&after, "choices.0.message.content"));
    free_reply(&before);
    free_reply(&after);
}

/* ---- the end in the middle ---- */

static void *long_stream(void *ctx) {
    static const char body[] = "{\"prompt\":\"def\",\"stream\":true,\"max_tokens\":3000,\"n\":2,"
                               "\"ignore_eos\":true,\"logit_bias\":{\"2\":-100}}";
    reply r = post(ctx, "/v1/completions", body);
    free_reply(&r);
    return NULL;
}

static void test_a_second_sigterm_ends_at_once(void **state) {
    server *s = *state;
    pthread_t threads[6];
    int64_t sums[3];
    start_server(s, "tests/golden/tiny-code", NULL);
    for (int i = 0; i < 6; i++) pthread_create(&threads[i], NULL, long_stream, s);
    for (int i = 0; i < 200 && metric(s, "num_requests_running") < 6; i++) usleep(10000);
    kill(s->pid, SIGTERM);
    usleep(100000);
    int status = stop_server(s, SIGTERM);
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    ledger_sums(s, sums); /* what was cut is billed */
    assert_int_equal(sums[0], 6);
    assert_true(sums[2] > 0);
}

static void test_a_full_queue_takes_all_answers_or_none(void **state) {
    server *s = *state;
    pthread_t thread;
    start_server(s, "tests/golden/tiny-code",
                 (const char *[]){"--running", "1", "--waiting", "2", NULL});
    pthread_create(&thread, NULL, long_stream, s); /* two answers: one runs, one waits */
    for (int i = 0; i < 200 && metric(s, "num_requests_waiting") < 1; i++) usleep(10000);
    reply r = post(s, "/v1/completions", "{\"prompt\":\"x\",\"n\":2,\"max_tokens\":300}");
    assert_int_equal(r.status, 429);
    assert_true(metric(s, "num_requests_waiting") == 1);
    free_reply(&r);
    stop_server(s, SIGKILL);
    pthread_join(thread, NULL);
}

/* ---- memory: the service in this program ---- */

typedef struct inside {
    lc_engine *engine;
    lc_cache *cache;
    lc_chat_template *tmpl;
    lc_replay *replay;
    lc_accounts *accounts;
    lc_sched *sched;
    lc_service *service;
    pthread_t thread;
} inside;

static void *run_inside(void *ctx) {
    inside *i = ctx;
    lc_err err = {0};
    assert_ok(lc_service_run(i->service, &err), err);
    return NULL;
}

static void open_inside(inside *i, const char *folder) {
    lc_err err = {0};
    lc_engine_options engine = {.threads = 1};
    char cache_folder[300];
    snprintf(cache_folder, sizeof cache_folder, "%s/prompts", folder);
    assert_ok(lc_engine_open("tests/golden/tiny-code", &engine, &i->engine, &err), err);
    assert_ok(lc_chat_template_load("tests/golden/tiny-code", &i->tmpl, &err), err);
    lc_cache_options cache = {.layout = lc_model_kv_layout(i->engine->model, i->engine->bf16),
                              .identity = "x",
                              .identity_size = 1,
                              .ram_bytes = 1 << 20,
                              .folder = cache_folder,
                              .disk_bytes = 8 << 20};
    assert_ok(lc_cache_open(&cache, &i->cache, &err), err);
    assert_ok(lc_replay_open(in(folder, "answers.db"), "x",
                             lc_tokenizer_vocab_size(i->engine->tokenizer), &i->replay, &err),
              err);
    assert_ok(lc_accounts_open(in(folder, "accounts.db"), NULL, &i->accounts, &err), err);
    lc_sched_options sched = {.cache = i->cache};
    assert_ok(lc_sched_open(i->engine, &sched, &i->sched, &err), err);
    lc_service_options o = {.engine = i->engine,
                            .sched = i->sched,
                            .cache = i->cache,
                            .tmpl = i->tmpl,
                            .replay = i->replay,
                            .accounts = i->accounts,
                            .model = "tiny",
                            .metrics_prefix = "longcat:",
                            .sampling = {.temperature = 0.7f, .top_p = 0.95f},
                            .longest_wait = 300,
                            .drain = 5};
    assert_ok(lc_service_open(&o, &i->service, &err), err);
    pthread_create(&i->thread, NULL, run_inside, i);
}

static void close_inside(inside *i) {
    lc_service_stop(i->service);
    pthread_join(i->thread, NULL);
    lc_sched_close(i->sched);
    lc_service_free(i->service);
    lc_replay_close(i->replay);
    lc_cache_close(i->cache);
    lc_accounts_close(i->accounts);
    lc_chat_template_free(i->tmpl);
    lc_engine_close(i->engine);
}

/* A request without any allocation of ours: the answer's bytes up to the connection's end. -1: no
 * end came in half a minute. brief: the fault is over after some milliseconds. */
static int ask_plainly(int port, const char *path, const char *body, bool brief, char *out,
                       size_t size) {
    char head[300];
    size_t len = 0;
    struct timeval patience = {.tv_sec = 30};
    int fd = connect_to(port);
    out[0] = 0;
    if (fd < 0) return 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int n = snprintf(head, sizeof head,
                     "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: "
                     "application/json\r\nContent-Length: %zu\r\n\r\n",
                     path, strlen(body));
    bool sent = send(fd, head, (size_t)n, MSG_NOSIGNAL) == n &&
                send(fd, body, strlen(body), MSG_NOSIGNAL) == (ssize_t)strlen(body);
    ssize_t got = 0;
    if (brief) usleep(4000);
    if (brief) lc_mem_fail_after(-1);
    while (sent && len < size - 1 && (got = recv(fd, out + len, size - 1 - len, 0)) > 0)
        len += (size_t)got;
    bool waited = sent && got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    out[len] = 0;
    close(fd);
    return waited ? -1 : strncmp(out, "HTTP/1.1 ", 9) == 0 ? atoi(out + 9) : 0;
}

/* The part of an answer from one text to another, in place; NULL: it isn't there. */
static char *part_of(char *bytes, const char *from, const char *to) {
    char *begin = from ? strstr(bytes, from) : NULL, *last = begin ? strstr(begin, to) : NULL;
    if (last) *last = 0;
    return last ? begin : NULL;
}

static bool says(const char *bytes, const char *text) { return strstr(bytes, text) != NULL; }

static void test_memory_runs_out_anywhere(void **state) {
    server *s = *state;
    inside i = {0};
    static char out[1 << 16], expected[1 << 16];
    static const struct {
        const char *path, *body, *end,
            *from; /* from there to `end` each whole answer is the same */
    } asks[] = {
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"temperature\":0,"
         "\"max_tokens\":9,\"n\":2}",
         "\"usage\"", "\"choices\""},
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"temperature\":0,"
         "\"max_tokens\":5,\"logprobs\":true,\"top_logprobs\":2,\"n\":2}",
         "\"usage\"", NULL},
        {"/v1/messages",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"temperature\":0,"
         "\"max_tokens\":60,\"stream\":true,\"tools\":[{\"name\":\"a\",\"input_schema\":{\"type\":"
         "\"object\",\"properties\":{\"x\":{\"enum\":[1,2]}},\"required\":[\"x\"]}}],"
         "\"tool_choice\":{\"type\":\"tool\",\"name\":\"a\"}}",
         "message_stop", NULL},
        {"/tokenize", "{\"content\":\"Hello there\"}", "\"count\"", "\"tokens\""},
    };
    size_t at_first = lc_mem_current();
    open_inside(&i, s->folder);
    int port = lc_service_port(i.service);
    for (size_t k = 0; k < sizeof asks / sizeof *asks; k++) {
        int status, tries = 0, errors = 0;
        ask_plainly(port, asks[k].path, asks[k].body, false, out, sizeof out);
        char *right = part_of(out, asks[k].from, asks[k].end);
        snprintf(expected, sizeof expected, "%s", right ? right : "");
        for (long n = 0;; n += n < 60 ? 1 : 1 + n / 25, tries++) {
            lc_mem_fail_after(n);
            status = ask_plainly(port, asks[k].path, asks[k].body, tries % 2, out, sizeof out);
            lc_mem_fail_after(-1);
            if (status < 0) fail_msg("%s: no end with allocation %ld failing", asks[k].path, n);
            if (status == 200 && says(out, asks[k].end) && !says(out, "\"error\"") &&
                tries % 2 == 0)
                break; /* with `brief` the fault may have passed before it was met */
            errors += status >= 400;
            assert_true(n < 1000000);
        }
        status = ask_plainly(port, asks[k].path, asks[k].body, false, out, sizeof out);
        assert_int_equal(status, 200);
        assert_true(says(out, asks[k].end));
        printf("# %s: %d places, %d told as errors\n", asks[k].path, tries, errors);
    }
    close_inside(&i);
    assert_int_equal(lc_mem_current(), at_first);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_server, end_server)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_what_cannot_be_recorded_is_not_answered),
        TEST(test_a_ledger_that_is_no_database_stops_the_start),
        TEST(test_the_cache_folder_vanishes),
        TEST(test_no_descriptors_are_left),
        TEST(test_a_second_sigterm_ends_at_once),
        TEST(test_a_full_queue_takes_all_answers_or_none),
        TEST(test_memory_runs_out_anywhere),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return test_main(tests);
}
