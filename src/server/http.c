/*
 * http.c: the server itself: its loop, its listener, limits of numbers, work from other threads.
 * One thread runs everything else; only the queue of posts and the certificate are shared, under
 * one lock. libevent and OpenSSL allocate for themselves; what we keep goes through base/mem.h.
 */
#include "server/http_internal.h"

#include "base/err.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BACKLOG = 1024, MAX_HEADERS = 4096, MAX_SECONDS = 1000000 };

/* ---- options ---- */

static void size_default(size_t *value, size_t standard) {
    if (!*value) *value = standard;
}

static bool seconds_default(double *value, double standard) {
    if (*value == 0) *value = standard;
    return *value > 0 && *value <= MAX_SECONDS; /* false for NaN */
}

static bool fill_limits(lc_http_limits *l) {
    size_default(&l->line, 8 << 10);
    size_default(&l->header, 16 << 10);
    size_default(&l->headers, 64 << 10);
    size_default(&l->n_headers, 128);
    size_default(&l->body, 32 << 20);
    size_default(&l->bodies, 1 << 30);
    size_default(&l->connections, 4096);
    size_default(&l->per_peer, 256);
    size_default(&l->outbound, 1 << 20);
    size_default(&l->per_connection, 1000);
    bool ok = seconds_default(&l->header_s, 10);
    ok &= seconds_default(&l->body_idle_s, 20);
    ok &= seconds_default(&l->body_s, 120);
    ok &= seconds_default(&l->outbound_s, 30);
    ok &= seconds_default(&l->idle_s, 75);
    return ok && l->n_headers <= MAX_HEADERS;
}

/* Replaces an option by a copy, which http->texts owns. */
static bool copy_text(lc_http *http, const char **field) {
    char *copy = *field ? lc_strdup(*field) : NULL;
    bool ok = copy || !*field;
    http->texts[http->n_texts++] = copy;
    *field = copy;
    return ok;
}

static bool copy_options(lc_http *http, const lc_http_options *options) {
    lc_http_options *o = &http->options;
    *o = *options;
    if (!o->host) o->host = "127.0.0.1";
    bool ok = copy_text(http, &o->host);
    ok &= copy_text(http, &o->tls_certificate);
    ok &= copy_text(http, &o->tls_key);
    ok &= copy_text(http, &o->server);
    o->hosts = NULL;
    http->hosts = lc_calloc(o->n_hosts + 1, sizeof *http->hosts);
    for (size_t i = 0; http->hosts && i < o->n_hosts; i++)
        ok &= (http->hosts[i] = lc_strdup(options->hosts[i])) != NULL;
    return ok && http->hosts;
}

static void free_options(lc_http *http) {
    for (size_t i = 0; i < http->n_texts; i++) lc_free(http->texts[i]);
    for (size_t i = 0; http->hosts && i < http->options.n_hosts; i++) lc_free(http->hosts[i]);
    lc_free(http->hosts);
}

/* ---- peers ---- */

/* IPv4 as mapped IPv6; of IPv6 the network only, since a client has all of its addresses. */
static void peer_address(const struct sockaddr *sa, unsigned char out[16]) {
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    memset(out, 0, 16);
    if (sa->sa_family == AF_INET) {
        memcpy(out, mapped, 12);
        memcpy(out + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
    } else if (sa->sa_family == AF_INET6) {
        const unsigned char *in =
            ((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr;
        memcpy(out, in, memcmp(in, mapped, 12) ? 8 : 16);
    }
}

static lc_http_peer **peer_bucket(lc_http *http, const unsigned char address[16]) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < 16; i++) hash = (hash ^ address[i]) * 16777619u;
    return &http->peers[(hash ^ hash >> 16) % LC_HTTP_PEER_BUCKETS];
}

/* NULL: over the limit, or no memory. */
static lc_http_peer *peer_enter(lc_http *http, const struct sockaddr *sa) {
    unsigned char address[16];
    peer_address(sa, address);
    lc_http_peer **bucket = peer_bucket(http, address), *peer = *bucket;
    while (peer && memcmp(peer->address, address, 16) != 0) peer = peer->next;
    if (!peer) {
        peer = lc_calloc(1, sizeof *peer);
        if (!peer) return NULL;
        memcpy(peer->address, address, 16);
        peer->next = *bucket;
        *bucket = peer;
    }
    if (peer->count >= http->options.limits.per_peer) return NULL;
    peer->count++;
    return peer;
}

void lc_http_peer_leave(lc_http *http, lc_http_peer *peer) {
    if (--peer->count) return;
    lc_http_peer **at = peer_bucket(http, peer->address);
    while (*at != peer) at = &(*at)->next;
    *at = peer->next;
    lc_free(peer);
}

/* ---- listening ---- */

static void peer_name(const struct sockaddr *sa, socklen_t len, char out[64]) {
    char host[INET6_ADDRSTRLEN + 16], port[8];
    if (getnameinfo(sa, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        memcpy(out, "?", 2);
        return;
    }
    evutil_snprintf(out, 64, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *sa,
                      int len, void *ctx) {
    (void)listener;
    lc_http *http = ctx;
    const lc_http_limits *l = &http->options.limits;
    int on = 1;
    unsigned timeout_ms = (unsigned)(l->outbound_s * 1000); /* of what the client doesn't take */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
    lc_http_peer *peer =
        atomic_load(&http->n_connections) < l->connections ? peer_enter(http, sa) : NULL;
    if (!peer && http->n_refused >= LC_HTTP_REFUSED) {
        close(fd);
        return;
    }
    char name[64];
    peer_name(sa, (socklen_t)len, name);
    lc_http_conn_open(http, fd, name, peer, peer == NULL);
}

static void on_resume(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    lc_http *http = ctx;
    if (http->listener) evconnlistener_enable(http->listener);
}

/* No descriptor is left: without one the waiting client could not even be turned away, and the
 * loop would spin on it. One is kept for that. */
static void on_accept_error(struct evconnlistener *listener, void *ctx) {
    static const char text[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                               "Retry-After: 1\r\nConnection: close\r\n\r\n";
    lc_http *http = ctx;
    int fd = -1;
    if ((errno == EMFILE || errno == ENFILE) && http->spare >= 0) {
        close(http->spare);
        http->spare = -1;
        fd = accept4(evconnlistener_get_fd(listener), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    if (fd >= 0) {
        char dropped[4096];
        if (!http->tls) send(fd, text, sizeof text - 1, MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
        for (int i = 0; i < 16 && recv(fd, dropped, sizeof dropped, 0) > 0; i++) continue;
        close(fd);
    } else { /* memory is short, or the client has gone: not at full speed again */
        struct timeval pause = {.tv_usec = 100000};
        evconnlistener_disable(listener);
        event_base_once(http->base, -1, EV_TIMEOUT, on_resume, http, &pause);
    }
    if (http->spare < 0) http->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static bool is_loopback(const struct sockaddr *sa) {
    unsigned char a[16];
    static const unsigned char one[16] = {[15] = 1};
    if (sa->sa_family == AF_INET6)
        memcpy(a, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
    else
        peer_address(sa, a);
    return memcmp(a, one, 16) == 0 || (a[10] == 0xff && a[11] == 0xff && a[12] == 127);
}

static int listen_on(lc_http *http, lc_err *err) {
    const lc_http_options *o = &http->options;
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char port[8];
    evutil_snprintf(port, sizeof port, "%d", o->port);
    int code = getaddrinfo(o->host, port, &hints, &found);
    if (code) return lc_fail(err, LC_EINVAL, "host %s: %s", o->host, gai_strerror(code));
    http->loopback = is_loopback(found->ai_addr);
    http->listener =
        evconnlistener_new_bind(http->base, on_accept, http,
                                LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                BACKLOG, found->ai_addr, (int)found->ai_addrlen);
    int reason = errno;
    freeaddrinfo(found);
    errno = reason;
    if (!http->listener) return lc_fail_errno(err, LC_ENET, "%s port %d", o->host, o->port);
    evconnlistener_set_error_cb(http->listener, on_accept_error);
    int fd = evconnlistener_get_fd(http->listener), size = LC_HTTP_SEND_BUFFER;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size); /* accepted sockets inherit it */
    struct sockaddr_in6 bound = {0}; /* IPv4 is shorter and has its port at the same place */
    socklen_t len = sizeof bound;
    if (getsockname(fd, (struct sockaddr *)&bound, &len) != 0)
        return lc_fail_errno(err, LC_ENET, "%s port %d", o->host, o->port);
    http->port = ntohs(bound.sin6_port);
    return LC_OK;
}

int lc_http_port(const lc_http *http) { return http->port; }

/* ---- work from other threads ---- */

static void wake(lc_http *http) {
    uint64_t one = 1;
    ssize_t written = write(http->wake_fd, &one, sizeof one);
    (void)written; /* a full counter wakes as well */
}

static void queue_post(lc_http *http, lc_http_posted *posted) {
    pthread_mutex_lock(&http->lock);
    bool first = !http->first;
    *http->last = posted;
    http->last = &posted->next;
    pthread_mutex_unlock(&http->lock);
    if (first) wake(http);
}

int lc_http_post(lc_http *http, void (*fn)(void *ctx), void *ctx) {
    lc_http_posted *posted = lc_alloc(sizeof *posted);
    if (!posted) return LC_ENOMEM;
    *posted = (lc_http_posted){.fn = fn, .ctx = ctx, .ours = true};
    queue_post(http, posted);
    return LC_OK;
}

void lc_http_post_kept(lc_http *http, lc_http_posted *posted, void (*fn)(void *ctx), void *ctx) {
    *posted = (lc_http_posted){.fn = fn, .ctx = ctx};
    queue_post(http, posted);
}

static bool run_posted(lc_http *http) {
    pthread_mutex_lock(&http->lock);
    lc_http_posted *posted = http->first;
    http->first = NULL;
    http->last = &http->first;
    pthread_mutex_unlock(&http->lock);
    bool any = posted != NULL;
    while (posted) {
        lc_http_posted it = *posted; /* what is kept may be gone when fn returns */
        it.fn(it.ctx);
        if (it.ours) lc_free(posted);
        posted = it.next;
    }
    return any;
}

void lc_http_run_posted(lc_http *http) {
    while (run_posted(http)) continue;
}

static void on_wake(evutil_socket_t fd, short what, void *ctx) {
    (void)what;
    lc_http *http = ctx;
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof count);
    (void)got;
    run_posted(http);
    if (atomic_load(&http->quit)) event_base_loopbreak(http->base);
}

void lc_http_quit(lc_http *http) {
    atomic_store(&http->quit, true);
    wake(http);
}

/* ---- timers and signals ---- */

static void on_hook(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    lc_http_hook *hook = ctx;
    hook->fn(hook->ctx);
}

static int add_hook(lc_http *http, int fd, short what, const struct timeval *every,
                    lc_http_hook what_to_do, lc_err *err) {
    lc_http_hook *hook = lc_alloc(sizeof *hook);
    if (!hook) return lc_fail(err, LC_ENOMEM, "out of memory");
    *hook = what_to_do;
    hook->event = event_new(http->base, fd, (short)(what | EV_PERSIST), on_hook, hook);
    if (!hook->event || event_add(hook->event, every) != 0) {
        if (hook->event) event_free(hook->event);
        lc_free(hook);
        return lc_fail(err, LC_ENOMEM, "a timer or signal could not be set up");
    }
    hook->next = http->hooks;
    http->hooks = hook;
    return LC_OK;
}

int lc_http_signal(lc_http *http, int signal_number, void (*fn)(void *ctx), void *ctx,
                   lc_err *err) {
    return add_hook(http, signal_number, EV_SIGNAL, NULL, (lc_http_hook){.fn = fn, .ctx = ctx},
                    err);
}

int lc_http_every(lc_http *http, double seconds, void (*fn)(void *ctx), void *ctx, lc_err *err) {
    if (!(seconds >= 0.001 && seconds <= MAX_SECONDS))
        return lc_fail(err, LC_EINVAL, "a timer's period is from a millisecond to %d seconds",
                       MAX_SECONDS);
    struct timeval every = {.tv_sec = (time_t)seconds};
    every.tv_usec = (suseconds_t)((seconds - (double)every.tv_sec) * 1e6);
    return add_hook(http, -1, 0, &every, (lc_http_hook){.fn = fn, .ctx = ctx}, err);
}

/* ---- life ---- */

static void on_log(int severity, const char *text) {
    static const lc_log_level levels[] = {LC_LOG_DEBUG, LC_LOG_INFO, LC_LOG_WARN, LC_LOG_ERROR};
    lc_log(severity >= 0 && severity < 4 ? levels[severity] : LC_LOG_ERROR, "libevent: %s", text);
}

static int start(lc_http *http, lc_err *err) {
    const lc_http_options *o = &http->options;
    if (o->port < 0 || o->port > 65535) return lc_fail(err, LC_EINVAL, "port %d", o->port);
    if (!o->tls_certificate != !o->tls_key)
        return lc_fail(err, LC_EINVAL, "TLS needs both a certificate and a key");
    if (o->server && !lc_http_is_field_value(o->server))
        return lc_fail(err, LC_EINVAL, "the server's name has a control character");
    if (o->tls_certificate) {
        int code = lc_http_tls_load(o->tls_certificate, o->tls_key, &http->tls, err);
        if (code) return code;
    }
    struct event_config *config = event_config_new();
    if (config) event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    http->base = config ? event_base_new_with_config(config) : NULL;
    if (config) event_config_free(config);
    http->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    http->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!http->base || http->wake_fd < 0 || http->spare < 0)
        return lc_fail_errno(err, LC_EIO, "the event loop could not be set up");
    http->wake = event_new(http->base, http->wake_fd, EV_READ | EV_PERSIST, on_wake, http);
    if (!http->wake || event_add(http->wake, NULL) != 0)
        return lc_fail(err, LC_ENOMEM, "out of memory");
    return listen_on(http, err);
}

int lc_http_open(const lc_http_options *options, lc_http **out, lc_err *err) {
    lc_http *http = lc_calloc(1, sizeof *http);
    *out = NULL;
    if (!http) return lc_fail(err, LC_ENOMEM, "out of memory");
    event_set_log_callback(on_log);
    pthread_mutex_init(&http->lock, NULL);
    http->last = &http->first;
    http->wake_fd = http->spare = -1;
    int code = LC_OK;
    if (!copy_options(http, options))
        code = lc_fail(err, LC_ENOMEM, "out of memory");
    else if (!fill_limits(&http->options.limits))
        code = lc_fail(err, LC_EINVAL, "a limit of the HTTP server is out of its range");
    else
        code = start(http, err);
    if (code)
        lc_http_free(http);
    else
        *out = http;
    return code;
}

/* Writing to a client that has gone must not end the process, and which signals a program ignores
 * is not for a library to decide: the loop's thread alone holds SIGPIPE back, and takes it away. */
static bool block_sigpipe(sigset_t *pipe_only) {
    sigset_t old;
    sigemptyset(pipe_only);
    sigaddset(pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, pipe_only, &old);
    return !sigismember(&old, SIGPIPE);
}

static void unblock_sigpipe(const sigset_t *pipe_only) {
    struct timespec now = {0};
    while (sigtimedwait(pipe_only, NULL, &now) > 0) continue;
    pthread_sigmask(SIG_UNBLOCK, pipe_only, NULL);
}

static void close_listener(lc_http *http) {
    if (http->listener) evconnlistener_free(http->listener);
    http->listener = NULL;
}

int lc_http_run(lc_http *http, lc_err *err) {
    sigset_t pipe_only;
    bool unblock = block_sigpipe(&pipe_only);
    int code = event_base_dispatch(http->base);
    if (unblock) unblock_sigpipe(&pipe_only);
    if (http->draining) close_listener(http);
    atomic_store(&http->quit, false);
    return code < 0 ? lc_fail(err, LC_EIO, "the event loop failed") : LC_OK;
}

void lc_http_free(lc_http *http) {
    if (!http) return;
    sigset_t pipe_only;
    bool unblock = block_sigpipe(&pipe_only);
    close_listener(http);
    lc_http_drain(http);
    run_posted(http);
    while (http->conns) lc_http_conn_close(http->conns);
    while (run_posted(http)) continue; /* what closing has caused */
    for (lc_http_hook *hook = http->hooks, *next; hook; hook = next) {
        next = hook->next;
        event_free(hook->event);
        lc_free(hook);
    }
    if (http->wake) event_free(http->wake);
    if (http->base) { /* closed streams are freed by the loop */
        event_base_loop(http->base, EVLOOP_NONBLOCK);
        event_base_free(http->base);
    }
    if (unblock) unblock_sigpipe(&pipe_only);
    if (http->wake_fd >= 0) close(http->wake_fd);
    if (http->spare >= 0) close(http->spare);
    SSL_CTX_free(http->tls);
    free_options(http);
    pthread_mutex_destroy(&http->lock);
    lc_free(http);
}

void lc_http_drain(lc_http *http) {
    http->draining = true;
    for (lc_http_conn *c = http->conns, *next; c; c = next) {
        next = c->next;
        lc_http_conn_drain(c);
    }
}

size_t lc_http_open_exchanges(const lc_http *http) { return atomic_load(&http->n_exchanges); }
size_t lc_http_connections(const lc_http *http) { return atomic_load(&http->n_connections); }
