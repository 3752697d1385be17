/*
 * serve_kit.h: what tests of `longcat serve` share: the real program on a free port with a folder
 * of its own, and a client on libcurl.
 */
#ifndef LC_TESTS_SERVE_KIT_H
#define LC_TESTS_SERVE_KIT_H

#include "../unit/train_files.h"
#include "base/json.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { START_MS = 60000, REPLY_S = 120 };

typedef struct server {
    char folder[256], log[300];
    int port;
    pid_t pid;
} server;

/* Starts it on tests/golden/tiny-code (or MODEL); extra: more arguments, NULL-terminated, or NULL.
 */
static inline void start_server(server *s, const char *model, const char *const *extra) {
    const char *args[32] = {test_program(), "serve", model, "--port", "0", "--data", s->folder};
    int out[2], n = 7, log;
    for (; extra && *extra && n < 31; extra++) args[n++] = *extra;
    assert_int_equal(pipe(out), 0);
    s->pid = fork();
    if (s->pid == 0) {
        dup2(out[1], 1);
        log = open(s->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(log, 2);
        close(out[0]);
        execv(args[0], (char *const *)(uintptr_t)args);
        _exit(127);
    }
    close(out[1]);
    char text[2048];
    size_t len = 0;
    ssize_t got;
    s->port = 0;
    while (len < sizeof text - 1 && (got = read(out[0], text + len, sizeof text - 1 - len)) > 0) {
        len += (size_t)got;
        text[len] = 0;
        const char *at = strstr(text, "://");
        const char *colon = at ? strchr(at + 3, ':') : NULL;
        if (colon && strchr(colon, ',')) {
            s->port = atoi(colon + 1);
            break;
        }
    }
    close(out[0]);
    assert_true(s->port > 0);
}

static inline int stop_server(server *s, int signal_number) {
    pid_t pid = s->pid;
    kill(pid, signal_number);
    s->pid = 0;
    return end_of(pid);
}

static inline int new_server(void **state) {
    server *s = calloc(1, sizeof *s);
    make_folder(s->folder);
    snprintf(s->log, sizeof s->log, "%s/log", s->folder);
    *state = s;
    return 0;
}

/* What sanitizers have written; leaks are looked for when the program ends by itself. */
static inline int check_log(server *s) {
    int bad = 0;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    for (int i = 0; s->pid && i < 300; i++) { /* the second one doesn't wait for answers */
        kill(s->pid, SIGTERM);
        usleep(100000);
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) s->pid = 0;
    }
#endif
    char line[400];
    FILE *log = fopen(s->log, "r");
    while (log && fgets(line, sizeof line, log)) {
        bad |= strstr(line, "Sanitizer") || strstr(line, "runtime error:");
        if (bad) printf("# server: %s", line);
    }
    if (log) fclose(log);
    return bad;
}

static inline int end_server(void **state) {
    server *s = *state;
    int bad = check_log(s);
    if (s->pid) stop_server(s, SIGKILL);
    remove_folder(s->folder);
    free(s);
    return bad;
}

/* ---- the client ---- */

typedef struct reply {
    long status;
    lc_buf body;
    struct json_object *json; /* NULL if the body isn't JSON */
    double first_s, total_s;
} reply;

typedef struct request {
    const char *method; /* NULL: POST with a body, else GET */
    const char *path, *body, *key, *header;
    size_t stop_after; /* hang up after so many bytes; 0 = never */
} request;

static inline size_t take_body(char *data, size_t size, size_t n, void *ctx) {
    void **both = ctx;
    lc_buf *body = both[0];
    const request *r = both[1];
    lc_buf_append(body, data, size * n);
    return r->stop_after && body->len >= r->stop_after ? 0 : size * n;
}

static inline reply ask(const server *s, request r) {
    reply out = {0};
    char url[512], auth[200];
    struct curl_slist *headers = curl_slist_append(NULL, "content-type: application/json");
    CURL *c = curl_easy_init();
    void *both[] = {&out.body, &r};
    lc_err err = {0};
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", s->port, r.path);
    if (r.key) {
        snprintf(auth, sizeof auth, "authorization: Bearer %s", r.key);
        headers = curl_slist_append(headers, auth);
    }
    if (r.header) headers = curl_slist_append(headers, r.header);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)REPLY_S);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, both);
    if (r.body) curl_easy_setopt(c, CURLOPT_POSTFIELDS, r.body);
    if (r.method && !strcmp(r.method, "HEAD"))
        curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
    else if (r.method)
        curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, r.method);
    curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &out.status);
    curl_easy_getinfo(c, CURLINFO_STARTTRANSFER_TIME, &out.first_s);
    curl_easy_getinfo(c, CURLINFO_TOTAL_TIME, &out.total_s);
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    if (out.body.data && lc_json_parse(out.body.data, out.body.len, "reply", &out.json, &err) != 0)
        out.json = NULL;
    return out;
}

static inline reply post(const server *s, const char *path, const char *body) {
    return ask(s, (request){.path = path, .body = body});
}

static inline reply get(const server *s, const char *path) {
    return ask(s, (request){.path = path});
}

static inline void free_reply(reply *r) {
    json_object_put(r->json);
    lc_buf_free(&r->body);
}

/* The value at "choices.0.message.content"; fails the test if it isn't there. */
static inline struct json_object *at(struct json_object *json, const char *path) {
    char copy[256], *rest = copy;
    snprintf(copy, sizeof copy, "%s", path);
    for (char *name; (name = strsep(&rest, "."));) {
        struct json_object *next = json_object_is_type(json, json_type_array)
                                       ? json_object_array_get_idx(json, (size_t)atoi(name))
                                       : json_object_object_get(json, name);
        if (!next) fail_msg("no %s in %s", path, json_object_to_json_string(json));
        json = next;
    }
    return json;
}
static inline const char *text_at(const reply *r, const char *path) {
    return json_object_get_string(at(r->json, path));
}
static inline int64_t number_at(const reply *r, const char *path) {
    return json_object_get_int64(at(r->json, path));
}

/* Sends bytes as they are. The reply's status, 0 if there is none; its text in out[4096]. */
static inline int send_raw(int port, const char *bytes, size_t len, char *out) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_sec = 20};
    size_t got = 0;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    for (size_t sent = 0; sent < len;) {
        ssize_t n = send(fd, bytes + sent, len - sent, MSG_NOSIGNAL);
        if (n <= 0) break; /* it has answered already */
        sent += (size_t)n;
    }
    for (ssize_t n; got < 4095 && (n = recv(fd, out + got, 4095 - got, 0)) > 0;) got += (size_t)n;
    out[got] = 0;
    close(fd);
    return strncmp(out, "HTTP/1.1 ", 9) == 0 ? atoi(out + 9) : 0;
}

/* A sample of /metrics, 0 if it isn't there. */
static inline double metric(const server *s, const char *name) {
    reply r = get(s, "/metrics");
    char line[200];
    snprintf(line, sizeof line, "\nlongcat:%s{", name);
    const char *found = strstr(r.body.data, line);
    double value = found ? atof(strchr(found, '}') + 1) : 0;
    free_reply(&r);
    return value;
}

#endif
