/*
 * test_serve_kill.c: `longcat serve` killed at random moments while clients are busy, and with
 * damaged files. Whatever was answered completely is in the ledger, and equals what a server
 * without any cache says; nothing half-written is ever used. LONGCAT_KILLS sets the number of kills
 * (20).
 */
#include "../server/serve_kit.h"

#include "base/clock.h"

#include <dirent.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

enum { QUESTIONS = 24, CLIENTS = 4, KILLS = 20, DAMAGED = 100, MOST_DONE = 100000 };

/* An answer that came completely. */
typedef struct done {
    char id[40];
    int64_t fresh, cached, output;
} done;

typedef struct campaign {
    server *s;
    char *expected[QUESTIONS];
    pthread_mutex_t lock;
    done *done;
    size_t n_done, wrong, cut, streamed;
    int64_t cached;
    atomic_bool stop;
    unsigned seed;
} campaign;

typedef struct killed_client {
    campaign *c;
    unsigned seed;
} killed_client;

/* ---- one request, as a client that knows when it was cut ---- */

typedef struct fetched {
    lc_buf body;
    char id[40];
    bool whole; /* the HTTP message came to its end with status 200 */
} fetched;

static size_t keep_body(char *data, size_t size, size_t n, void *ctx) {
    lc_buf_append(ctx, data, size * n);
    return size * n;
}

static size_t keep_id(char *line, size_t size, size_t n, void *ctx) {
    char text[200];
    size_t len = size * n < sizeof text ? size * n : sizeof text - 1;
    memcpy(text, line, len);
    text[len] = 0;
    if (!strncasecmp(text, "request-id: ", 12)) sscanf(text + 12, "%39s", (char *)ctx);
    return size * n;
}

static fetched fetch(int port, const char *path, const char *body) {
    fetched out = {0};
    char url[300];
    long status = 0;
    CURL *c = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "content-type: application/json");
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", port, path);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)REPLY_S);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, keep_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &out.body);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, keep_id);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, (void *)out.id);
    CURLcode code = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    out.whole = code == CURLE_OK && status == 200;
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    return out;
}

/* Question q; the longer ones begin as the shorter ones do, so that they share blocks. */
static void question(int q, bool stream, lc_buf *out) {
    lc_buf_printf(out, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 20 + 12 * (q / 3); i++) lc_buf_printf(out, "item %d, ", i * (q % 3 + 3));
    lc_buf_printf(out, "what is number %d?\"}],\"temperature\":0.8,\"seed\":%d,\"max_tokens\":%d",
                  q, q, 4 + q);
    if (stream) lc_buf_puts(out, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    lc_buf_puts(out, "}");
}

static void take_usage(struct json_object *usage, done *d) {
    struct json_object *details = json_object_object_get(usage, "prompt_tokens_details");
    d->cached = json_object_get_int64(json_object_object_get(details, "cached_tokens"));
    d->fresh = json_object_get_int64(json_object_object_get(usage, "prompt_tokens")) - d->cached;
    d->output = json_object_get_int64(json_object_object_get(usage, "completion_tokens"));
}

static void take_chunk(const char *line, size_t len, lc_buf *text, done *d) {
    struct json_object *chunk = NULL;
    lc_err err = {0};
    assert_ok(lc_json_parse(line, len, "chunk", &chunk, &err), err);
    struct json_object *choices = json_object_object_get(chunk, "choices");
    struct json_object *usage = json_object_object_get(chunk, "usage");
    if (json_object_array_length(choices)) {
        struct json_object *delta =
            json_object_object_get(json_object_array_get_idx(choices, 0), "delta");
        struct json_object *content = json_object_object_get(delta, "content");
        struct json_object *thought = json_object_object_get(delta, "reasoning_content");
        if (thought) lc_buf_puts(text, json_object_get_string(thought));
        if (content) lc_buf_puts(text, json_object_get_string(content));
    }
    if (usage) take_usage(usage, d);
    json_object_put(chunk);
}

/* What the answer says; false: it isn't whole. */
static bool read_answer(const fetched *f, bool stream, lc_buf *text, done *d) {
    lc_buf_puts(text, ""); /* an empty answer is one */
    if (!f->whole) return false;
    if (stream) {
        for (const char *p = f->body.data; p && (p = strstr(p, "data: "));) {
            p += 6;
            if (!strncmp(p, "[DONE]", 6)) return true;
            take_chunk(p, strcspn(p, "\n"), text, d);
        }
        return false;
    }
    struct json_object *json = NULL;
    lc_err err = {0};
    assert_ok(lc_json_parse(f->body.data, f->body.len, "answer", &json, &err), err);
    struct json_object *message = at(json, "choices.0.message");
    struct json_object *thought = json_object_object_get(message, "reasoning_content");
    if (thought) lc_buf_puts(text, json_object_get_string(thought));
    lc_buf_puts(text, json_object_get_string(at(message, "content")));
    take_usage(at(json, "usage"), d);
    json_object_put(json);
    return true;
}

static void ask_one(campaign *c, int q, bool stream) {
    lc_buf body = {0}, text = {0};
    done d = {0};
    question(q, stream, &body);
    fetched f = fetch(c->s->port, "/v1/chat/completions", body.data);
    bool whole = read_answer(&f, stream, &text, &d);
    memcpy(d.id, f.id, sizeof d.id);
    pthread_mutex_lock(&c->lock);
    if (!whole) {
        c->cut++;
    } else if (!c->expected[q]) {
        c->expected[q] = strdup(text.data);
    } else {
        c->wrong += strcmp(c->expected[q], text.data) != 0;
        c->streamed += stream;
        c->cached += d.cached;
        if (c->n_done < MOST_DONE) c->done[c->n_done++] = d;
    }
    pthread_mutex_unlock(&c->lock);
    lc_buf_free(&body);
    lc_buf_free(&text);
    lc_buf_free(&f.body);
}

static void *be_killed_client(void *ctx) {
    killed_client *k = ctx;
    while (!atomic_load(&k->c->stop)) {
        int r = rand_r(&k->seed);
        ask_one(k->c, r % QUESTIONS, r / QUESTIONS % 2);
    }
    return NULL;
}

/* ---- the campaign ---- */

static double start_timed(server *s, const char *const *extra) {
    uint64_t from = lc_clock_ns();
    start_server(s, "tests/golden/tiny-code", extra);
    return (double)(lc_clock_ns() - from) / 1e9;
}

/* Serves until it is killed after some milliseconds. */
static void one_round(campaign *c, unsigned ms) {
    pthread_t threads[CLIENTS];
    killed_client clients[CLIENTS];
    atomic_store(&c->stop, false);
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (killed_client){c, c->seed * 31 + i};
        pthread_create(&threads[i], NULL, be_killed_client, &clients[i]);
    }
    usleep(ms * 1000);
    atomic_store(&c->stop, true);
    stop_server(c->s, SIGKILL);
    for (int i = 0; i < CLIENTS; i++) pthread_join(threads[i], NULL);
    c->seed++;
}

/* How many complete answers the ledger doesn't hold as they were told. */
static size_t not_in_ledger(const campaign *c, int64_t *rows) {
    sqlite3 *db;
    sqlite3_stmt *find, *count;
    size_t missing = 0;
    assert_int_equal(sqlite3_open(in(c->s->folder, "accounts.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE INDEX by_id ON usage(request_id)", 0, 0, 0), 0);
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT fresh, cached, output FROM usage WHERE request_id = ?", -1,
                           &find, NULL),
        SQLITE_OK);
    for (size_t i = 0; i < c->n_done; i++) {
        const done *d = &c->done[i];
        sqlite3_bind_text(find, 1, d->id, -1, SQLITE_STATIC);
        missing += sqlite3_step(find) != SQLITE_ROW || sqlite3_column_int64(find, 0) != d->fresh ||
                   sqlite3_column_int64(find, 1) != d->cached ||
                   sqlite3_column_int64(find, 2) != d->output || sqlite3_step(find) != SQLITE_DONE;
        sqlite3_reset(find);
    }
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM usage", -1, &count, NULL), 0);
    assert_int_equal(sqlite3_step(count), SQLITE_ROW);
    *rows = sqlite3_column_int64(count, 0);
    sqlite3_finalize(find);
    sqlite3_finalize(count);
    sqlite3_close(db);
    return missing;
}

static int by_value(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void test_killed_at_random_moments(void **state) {
    static const char *const bare[] = {"--cache-ram", "0", "-q", NULL};
    static const char *const small[] = {"--cache-ram", "400K", "--cache-disk", "4M", "-q", NULL};
    const char *text = getenv("LONGCAT_KILLS");
    size_t kills = text ? strtoul(text, NULL, 10) : KILLS;
    campaign c = {.s = *state, .lock = PTHREAD_MUTEX_INITIALIZER, .seed = 1};
    c.done = calloc(MOST_DONE, sizeof *c.done);
    double first = start_timed(c.s, bare), *ready = calloc(kills + 1, sizeof *ready), fresh;
    uint64_t begin = lc_clock_ns();
    for (int q = 0; q < QUESTIONS; q++) ask_one(&c, q, false);
    /* as long as some answers take here, with all clients */
    unsigned longest =
        300 + (unsigned)((lc_clock_ns() - begin) / 1000000) * 2 * CLIENTS / QUESTIONS;
    stop_server(c.s, SIGKILL);
    fresh = start_timed(c.s, bare);
    stop_server(c.s, SIGKILL);
    if (fresh > first) fresh = first;
    for (size_t i = 0; i < kills; i++) { /* every other round with tiers that overflow */
        ready[i] = start_timed(c.s, i % 2 ? small : small + 4);
        one_round(&c, 50 + (unsigned)rand_r(&c.seed) % longest);
    }
    int64_t rows = 0;
    size_t missing = not_in_ledger(&c, &rows);
    qsort(ready, kills, sizeof *ready, by_value);
    printf("# %zu kills, %zu whole answers (%zu streamed), %zu cut, %lld tokens from the cache\n",
           kills, c.n_done, c.streamed, c.cut, (long long)c.cached);
    printf("# %zu differ from the cold run; %zu of %lld ledger rows missing or different\n",
           c.wrong, missing, (long long)rows);
    printf("# ready after %.2f s without a cache; after kills: median %.2f, worst %.2f s\n", fresh,
           ready[kills / 2], ready[kills ? kills - 1 : 0]);
    assert_int_equal(c.wrong, 0);
    assert_int_equal(missing, 0);
    assert_true(c.n_done > kills && c.cut > 0 && c.cached > 0);
    assert_true(ready[kills / 2] < fresh + 1);
    for (int q = 0; q < QUESTIONS; q++) free(c.expected[q]);
    free(c.done);
    free(ready);
}

/* ---- damaged files ---- */

static size_t list_files(const char *folder, char (*out)[600], size_t most) {
    size_t n = 0;
    for (unsigned i = 0; i < 256; i++) {
        char path[400];
        snprintf(path, sizeof path, "%s/prompts/%02x", folder, i);
        DIR *dir = opendir(path);
        for (struct dirent *e; dir && (e = readdir(dir));)
            if (strlen(e->d_name) == 35 && n < most)
                snprintf(out[n++], 600, "%s/%.35s", path, e->d_name);
        if (dir) closedir(dir);
    }
    return n;
}

/* A bit, a zeroed piece, another block's file, a shorter and a longer one. */
static void damage(char (*files)[600], size_t n, size_t i, unsigned *seed) {
    lc_buf file = get_file(files[i]), other = get_file(files[(i + 1) % n]);
    size_t at = (size_t)rand_r(seed) % file.len, piece = file.len - at < 64 ? file.len - at : 64;
    switch (i % 5) {
    case 1:
        for (size_t k = 0; k < piece; k++) file.data[at + k] = (char)~file.data[at + k];
        break;
    case 2:
        lc_buf_clear(&file);
        lc_buf_append(&file, other.data, other.len);
        break;
    case 3: file.len = at; break;
    case 4: lc_buf_append(&file, "x", 1); break;
    default: file.data[at] ^= (char)(1 << rand_r(seed) % 8);
    }
    put_file(files[i], file.data, file.len);
    lc_buf_free(&file);
    lc_buf_free(&other);
}

/* One block and a bit more, unlike all others from the first token on. */
static void block_question(int q, lc_buf *out) {
    unsigned seed = (unsigned)q + 1000;
    lc_buf_clear(out);
    lc_buf_puts(out, "{\"prompt\":[");
    for (int i = 0; i < 70; i++) lc_buf_printf(out, "%s%d", i ? "," : "", 10 + rand_r(&seed) % 200);
    lc_buf_puts(out, "],\"temperature\":0,\"max_tokens\":6}");
}

/* All questions; their answers are kept, or compared. */
static int64_t ask_all(const server *s, char **answers) {
    int64_t cached = 0;
    lc_buf body = {0};
    for (int q = 0; q < DAMAGED; q++) {
        block_question(q, &body);
        reply r = post(s, "/v1/completions", body.data);
        assert_int_equal(r.status, 200);
        const char *text = json_object_to_json_string(at(r.json, "choices"));
        cached += number_at(&r, "usage.prompt_tokens_details.cached_tokens");
        if (answers[q]) assert_string_equal(answers[q], text);
        if (!answers[q]) answers[q] = strdup(text);
        free_reply(&r);
    }
    lc_buf_free(&body);
    return cached;
}

static void test_damaged_files_are_never_used(void **state) {
    server *s = *state;
    char *answers[DAMAGED] = {0};
    static char files[2 * DAMAGED][600];
    unsigned seed = 5;
    start_server(s, "tests/golden/tiny-code", NULL);
    assert_int_equal(ask_all(s, answers), 0);
    stop_server(s, SIGTERM); /* writes what is queued */
    size_t n = list_files(s->folder, files, 2 * DAMAGED);
    assert_int_equal(n, DAMAGED);
    start_server(s, "tests/golden/tiny-code", NULL);
    for (size_t i = 0; i < n; i++) damage(files, n, i, &seed);
    assert_int_equal(ask_all(s, answers), 0);
    reply r = get(s, "/v1/longcat/status");
    printf("# %lld of %zu damaged files detected\n", (long long)number_at(&r, "cache.damaged"), n);
    assert_int_equal(number_at(&r, "cache.damaged"), DAMAGED);
    free_reply(&r);
    stop_server(s, SIGTERM);
    start_server(s, "tests/golden/tiny-code", NULL); /* they were written anew */
    assert_int_equal(ask_all(s, answers), 64 * DAMAGED);
    for (int q = 0; q < DAMAGED; q++) free(answers[q]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_server, end_server)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_damaged_files_are_never_used),
        TEST(test_killed_at_random_moments),
    };
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return test_main(tests);
}
