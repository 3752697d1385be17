/*
 * http_client.h: what the tests of the HTTP server share: a server on a thread with a toy handler,
 * and a client that sends raw bytes. Times are short: a test waits for what it expects, at most
 * PATIENCE_MS.
 */
#ifndef LC_TESTS_HTTP_CLIENT_H
#define LC_TESTS_HTTP_CLIENT_H

#include "server/http.h"
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000, WAITING = 4 };

typedef struct toy {
    lc_http *http;
    lc_http_options options;
    pthread_t thread;
    atomic_int requests, heads, closes, errors, waiting, written, given_up, head_status;
    lc_exchange *held[WAITING]; /* of /wait, on the loop thread */
    lc_exchange *flood;
    bool flooding;
} toy;

static inline void sleep_ms(int ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

/* Waits until a counter has at least this value. */
static inline void await(atomic_int *counter, int value) {
    for (int i = 0; i < PATIENCE_MS && atomic_load(counter) < value; i++) sleep_ms(1);
    assert_true(atomic_load(counter) >= value);
}

/* ---- the handler: routes are named by what they do ---- */

static inline void toy_lost(void *ctx) { atomic_fetch_add((atomic_int *)ctx, 1); }

static inline void toy_echo(lc_exchange *x) {
    lc_buf out = {0};
    size_t len;
    const char *body = lc_exchange_body(x, &len), *value = lc_exchange_get(x, "x-test");
    lc_buf_printf(&out, "%s|%s|%s|%s|", lc_exchange_method(x), lc_exchange_path(x),
                  lc_exchange_query(x), value ? value : "(none)");
    lc_buf_append(&out, body, len);
    lc_exchange_reply(x, 200, "text/plain", out.data, out.len);
    lc_buf_free(&out);
}

static inline void toy_pump(void *ctx) {
    toy *t = ctx;
    static const char data[16384] = {0};
    if (!t->flooding) return;
    if (lc_exchange_write(t->flood, data, sizeof data)) {
        atomic_fetch_add(&t->written, 1);
        lc_http_post(t->http, toy_pump, t);
    } else {
        t->flooding = false;
        atomic_fetch_add(&t->given_up, 1);
    }
}

static inline void toy_flood_lost(void *ctx) {
    toy *t = ctx;
    t->flooding = false;
    atomic_fetch_add(&t->closes, 1);
}

static inline void toy_flood(toy *t, lc_exchange *x) {
    lc_exchange_on_close(x, toy_flood_lost, t);
    lc_exchange_begin(x, 200, "text/event-stream");
    t->flood = x;
    t->flooding = true;
    lc_http_post(t->http, toy_pump, t);
}

static inline void toy_request(void *ctx, lc_exchange *x) {
    toy *t = ctx;
    const char *path = lc_exchange_path(x);
    atomic_fetch_add(&t->requests, 1);
    if (!strcmp(path, "/wait") && t->waiting < WAITING) {
        lc_exchange_on_close(x, toy_lost, &t->closes);
        t->held[atomic_load(&t->waiting)] = x;
        atomic_fetch_add(&t->waiting, 1);
    } else if (!strcmp(path, "/stream")) {
        lc_exchange_begin(x, 200, "text/plain");
        lc_exchange_write(x, "one", 3);
        lc_exchange_write(x, "", 0);
        lc_exchange_write(x, "twenty-two bytes long.", 22);
        lc_exchange_end(x);
    } else if (!strcmp(path, "/burst")) { /* before the loop can send anything */
        char *data = calloc(1, 4 << 20);
        lc_exchange_begin(x, 200, "text/plain");
        lc_exchange_write(x, data, 4 << 20);
        lc_exchange_write(x, "more", 4);
        lc_exchange_write(x, data, 4 << 20);
        lc_exchange_end(x);
        free(data);
    } else if (!strcmp(path, "/empty")) {
        lc_exchange_reply(x, 204, NULL, NULL, 0);
    } else if (!strcmp(path, "/peer")) {
        lc_exchange_reply(x, 200, "text/plain", lc_exchange_peer(x), strlen(lc_exchange_peer(x)));
    } else if (!strcmp(path, "/abort")) {
        lc_exchange_on_close(x, toy_lost, &t->closes);
        lc_exchange_abort(x);
    } else if (!strcmp(path, "/flood")) {
        toy_flood(t, x);
    } else if (!strcmp(path, "/large")) {
        char *data = calloc(1, 4 << 20);
        lc_exchange_reply(x, 200, "application/octet-stream", data, 4 << 20);
        free(data);
    } else {
        toy_echo(x);
    }
}

static inline int toy_head(void *ctx, lc_exchange *x) {
    toy *t = ctx;
    atomic_fetch_add(&t->heads, 1);
    if (!strcmp(lc_exchange_path(x), "/own")) {
        lc_exchange_reply(x, 403, "text/plain", "by head", 7);
        return 403;
    }
    if (!strcmp(lc_exchange_path(x), "/watched")) lc_exchange_on_close(x, toy_lost, &t->closes);
    int status = atomic_load(&t->head_status);
    if (status) lc_exchange_header(x, "WWW-Authenticate", "Bearer", NULL);
    return status;
}

static inline void toy_error(void *ctx, lc_exchange *x, int status, const char *message,
                             lc_buf *out) {
    toy *t = ctx;
    const char *path = lc_exchange_path(x);
    atomic_fetch_add(&t->errors, 1);
    lc_buf_printf(out, "{\"status\":%d,\"message\":\"%s\",\"path\":\"%s\"}", status, message,
                  path ? path : "(unknown)");
}

static inline void *toy_thread(void *ctx) {
    toy *t = ctx;
    lc_err err = {0};
    if (lc_http_run(t->http, &err)) fprintf(stderr, "%s\n", err.text);
    return NULL;
}

static inline void toy_start(toy *t, lc_http_options options) {
    lc_err err = {0};
    t->options = options;
    t->options.ctx = t;
    t->options.request = toy_request;
    t->options.head = toy_head;
    t->options.error = toy_error;
    assert_ok(lc_http_open(&t->options, &t->http, &err), err);
    assert_int_equal(pthread_create(&t->thread, NULL, toy_thread, t), 0);
}

static inline void toy_stop(toy *t) {
    lc_http_quit(t->http);
    pthread_join(t->thread, NULL);
    lc_http_free(t->http);
}

/* ---- the client ---- */

typedef struct client {
    int fd;
    char *data; /* received and not yet taken */
    size_t len, cap;
    bool reset; /* the connection ended with an error */
} client;

static inline client client_open_sized(const toy *t, int receive_buffer) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)lc_http_port(t->http)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    client c = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    int on = 1;
    assert_true(c.fd >= 0);
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_buffer)
        setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    assert_int_equal(connect(c.fd, (struct sockaddr *)&address, sizeof address), 0);
    return c;
}

static inline client client_open(const toy *t) { return client_open_sized(t, 0); }

static inline void client_close(client *c) {
    if (c->fd >= 0) close(c->fd);
    free(c->data);
    *c = (client){.fd = -1};
}

/* A server that has closed already is not an error here. */
static inline void client_send(client *c, const char *bytes, size_t len) {
    while (len) {
        ssize_t n = send(c->fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0) return;
        bytes += n;
        len -= (size_t)n;
    }
}

static inline void client_puts(client *c, const char *text) { client_send(c, text, strlen(text)); }

/* Receives something. 0: the server has closed; -1: nothing came in time. */
static inline int client_receive(client *c, int ms) {
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    if (poll(&p, 1, ms) <= 0) return -1;
    if (c->cap - c->len < 65537) {
        c->cap = c->cap * 2 + 131072;
        c->data = realloc(c->data, c->cap);
        assert_non_null(c->data);
    }
    ssize_t n = recv(c->fd, c->data + c->len, 65536, 0);
    c->reset = n < 0;
    if (n <= 0) return 0;
    c->len += (size_t)n;
    c->data[c->len] = 0;
    return 1;
}

/* Everything until the server closes. */
static inline const char *client_rest(client *c) {
    int code;
    while ((code = client_receive(c, PATIENCE_MS)) > 0) continue;
    assert_int_equal(code, 0);
    return c->len ? c->data : "";
}

/* Waits until this text has arrived. */
static inline void client_expect(client *c, const char *text) {
    while (!c->len || !strstr(c->data, text))
        if (client_receive(c, PATIENCE_MS) <= 0)
            fail_msg("\"%s\" did not come, but: %s", text, c->len ? c->data : "nothing");
}

static inline void client_forget(client *c) {
    c->len = 0;
    if (c->data) c->data[0] = 0;
}

static inline int status_of(const char *reply) {
    return strncmp(reply, "HTTP/1.1 ", 9) == 0 ? atoi(reply + 9) : 0;
}

static inline size_t replies_in(const char *text) {
    size_t n = 0;
    for (; (text = strstr(text, "HTTP/1.1 ")); text += 9) n += text[9] >= '0' && text[9] <= '9';
    return n;
}

/* Sends bytes, reads to the end, checks that there was one reply of this status. */
static inline void expect_reply(const toy *t, const char *bytes, size_t len, int status,
                                const char *part) {
    client c = client_open(t);
    client_send(&c, bytes, len);
    const char *reply = client_rest(&c);
    if (status_of(reply) != status || replies_in(reply) != 1 || (part && !strstr(reply, part)))
        fail_msg("expected one reply %d with \"%s\", got: %s", status, part ? part : "", reply);
    client_close(&c);
}

#endif
