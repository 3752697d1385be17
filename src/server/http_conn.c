/*
 * http_conn.c: one connection. It is always in one phase (http_internal.h), has one timer, which
 * means what the phase says, and works on one exchange. All calls of libevent are deferred, so no
 * call into a stream comes back here before it returns; handlers never close a connection
 * themselves, they doom it. So a connection lives as long as any function here uses it.
 */
#include "server/http_internal.h"

#include "base/clock.h"
#include "server/http_head.h"

#include <event2/bufferevent_ssl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const double linger_s = 1;

static void deadline(lc_http_conn *c, double seconds) {
    if (seconds < 0.001) seconds = 0.001;
    struct timeval t = {.tv_sec = (time_t)seconds};
    t.tv_usec = (suseconds_t)((seconds - (double)t.tv_sec) * 1e6);
    event_add(c->timer, &t);
}

static const lc_http_limits *limits_of(const lc_http_conn *c) { return &c->http->options.limits; }

/* ---- the end ---- */

void lc_http_conn_doom(lc_http_conn *c) {
    c->doomed = true;
    event_active(c->timer, EV_TIMEOUT, 0);
}

static void forget_exchange(lc_http_conn *c) {
    lc_exchange_free(c->exchange);
    c->exchange = NULL;
    if (c->closed) event_free(c->closed);
    c->closed = NULL;
    if (c->paused && !c->ended) bufferevent_enable(c->stream, EV_READ);
    c->paused = false;
}

static void on_progress(struct evbuffer *out, const struct evbuffer_cb_info *info, void *ctx);

void lc_http_conn_close(lc_http_conn *c) {
    lc_http *http = c->http;
    if (c->link) {
        *c->link = c->next;
        if (c->next) c->next->link = c->link;
        if (c->refused)
            http->n_refused--;
        else
            atomic_fetch_sub(&http->n_connections, 1);
    }
    c->link = NULL;
    if (c->exchange) lc_exchange_lost(c->exchange);
    forget_exchange(c);
    if (c->stream) {
        evbuffer_remove_cb(bufferevent_get_output(c->stream), on_progress, c);
        if (c->tls) lc_http_tls_end(c->tls);
        bufferevent_disable(c->stream, EV_READ | EV_WRITE);
        bufferevent_free(c->stream);
    }
    if (c->tls) SSL_free(c->tls);
    if (c->timer) event_free(c->timer);
    if (c->peer) lc_http_peer_leave(http, c->peer);
    lc_free(c);
}

/* All is sent. Closing now, with bytes of the client unread, would reset the connection and could
 * cost it our last reply: say that nothing more comes, and wait for its end for a moment. */
static void linger(lc_http_conn *c) {
    c->phase = LC_PHASE_LINGER;
    if (c->tls) lc_http_tls_end(c->tls);
    shutdown(bufferevent_getfd(c->stream), SHUT_WR);
    struct evbuffer *in = bufferevent_get_input(c->stream);
    evbuffer_drain(in, evbuffer_get_length(in));
    deadline(c, linger_s);
}

/* ---- replies going out ---- */

static size_t unsent(const lc_http_conn *c) {
    return evbuffer_get_length(bufferevent_get_output(c->stream));
}

void lc_http_conn_sending(lc_http_conn *c) {
    if (c->phase != LC_PHASE_REPLY || c->doomed) return;
    if (!unsent(c))
        bufferevent_trigger(c->stream, EV_WRITE, BEV_OPT_DEFER_CALLBACKS);
    else if (!event_pending(c->timer, EV_TIMEOUT, NULL))
        deadline(c, limits_of(c)->outbound_s);
}

static void on_progress(struct evbuffer *out, const struct evbuffer_cb_info *info, void *ctx) {
    lc_http_conn *c = ctx;
    if (!info->n_deleted || c->phase != LC_PHASE_REPLY || c->doomed) return;
    if (evbuffer_get_length(out))
        deadline(c, limits_of(c)->outbound_s);
    else
        event_del(c->timer);
}

/* Answers with an error of http's own; the handler, if it knows of the exchange, is told. */
static void fail(lc_http_conn *c, int status, const char *message) {
    c->phase = LC_PHASE_REPLY;
    event_del(c->timer);
    lc_exchange_fail(c->exchange, status, message, false);
}

/* ---- requests coming in ---- */

static void on_closed(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    lc_http_conn *c = ctx;
    if (c->phase == LC_PHASE_REPLY && c->exchange && !c->exchange->ended) lc_http_conn_close(c);
}

/* Enough is read ahead: stop, but see the client's end all the same, if its kernel can tell us. (A
 * full buffer must not be left to libevent's watermark, which calls on_read again and again.) */
static void pause_reading(lc_http_conn *c) {
    if (c->phase != LC_PHASE_REPLY || c->paused || c->doomed ||
        evbuffer_get_length(bufferevent_get_input(c->stream)) < LC_HTTP_READ_AHEAD)
        return;
    c->paused = true;
    bufferevent_disable(c->stream, EV_READ);
    c->closed = event_new(c->http->base, bufferevent_getfd(c->stream), EV_CLOSED, on_closed, c);
    if (c->closed) event_add(c->closed, NULL);
}

static void body_deadline(lc_http_conn *c) {
    uint64_t now = lc_clock_ns();
    double left = now < c->body_deadline ? (double)(c->body_deadline - now) / 1e9 : 0;
    double idle = limits_of(c)->body_idle_s;
    deadline(c, idle < left ? idle : left);
}

static bool host_allowed(const lc_http *http, const lc_http_parser *p) {
    const char *host = p->authority ? p->authority : p->host;
    return !http->loopback || !host ||
           lc_http_host_is_local(host, (const char *const *)http->hosts, http->options.n_hosts);
}

/* The head is valid. Asks the handler whether to go on. */
static void head_arrived(lc_http_conn *c) {
    lc_exchange *x = c->exchange;
    lc_http *http = c->http;
    const lc_http_parser *p = &x->parser;
    x->counted = true;
    atomic_fetch_add(&http->n_exchanges, 1);
    bool keep = p->keep_alive && c->requests < limits_of(c)->per_connection;
    x->keep = keep && !p->has_body; /* after a reply now, a body would be in the way */
    if (!host_allowed(http, p)) {
        fail(c, 421, "the Host header names another host");
        return;
    }
    c->phase = LC_PHASE_REPLY;
    event_del(c->timer);
    int status = http->options.head ? http->options.head(http->options.ctx, x) : 0;
    if (c->doomed) return;
    if (status && !x->ended) {
        x->on_close = NULL;
        lc_exchange_fail(x, status, lc_http_reason(status), true);
    }
    if (x->ended) return;
    x->keep = keep;
    c->phase = LC_PHASE_BODY;
    c->body_deadline = lc_clock_ns() + (uint64_t)(limits_of(c)->body_s * 1e9);
    body_deadline(c);
    if (p->expects_continue && p->has_body &&
        !evbuffer_get_length(bufferevent_get_input(c->stream))) {
        static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
        if (bufferevent_write(c->stream, text, sizeof text - 1) != 0) lc_http_conn_doom(c);
    }
}

static void request_arrived(lc_http_conn *c) {
    c->phase = LC_PHASE_REPLY;
    event_del(c->timer);
    c->http->options.request(c->http->options.ctx, c->exchange);
}

static bool begin_request(lc_http_conn *c) {
    c->exchange = lc_exchange_new(c);
    if (!c->exchange) {
        lc_http_conn_doom(c);
        return false;
    }
    c->requests++;
    c->phase = LC_PHASE_HEAD;
    deadline(c, limits_of(c)->header_s);
    return true;
}

/* Reads what has arrived, up to the end of one request. */
static void advance(lc_http_conn *c) {
    struct evbuffer *in = bufferevent_get_input(c->stream);
    while (!c->doomed && c->phase >= LC_PHASE_IDLE && c->phase <= LC_PHASE_BODY) {
        struct evbuffer_iovec piece = {0};
        size_t used = 0;
        if (evbuffer_peek(in, -1, NULL, &piece, 1) <= 0) piece.iov_len = 0;
        if (c->phase == LC_PHASE_IDLE && (!piece.iov_len || !begin_request(c))) return;
        lc_http_parser *p = &c->exchange->parser;
        lc_parse result = lc_http_parser_feed(p, piece.iov_base, piece.iov_len, &used);
        evbuffer_drain(in, used);
        switch (result) {
        case LC_PARSE_HEAD: head_arrived(c); break;
        case LC_PARSE_DONE: request_arrived(c); break;
        case LC_PARSE_ERROR: fail(c, p->status, p->message); break;
        case LC_PARSE_MORE:
            if (!used) return;
            if (c->phase == LC_PHASE_BODY) body_deadline(c);
        }
    }
}

/* ---- events ---- */

static void on_read(struct bufferevent *stream, void *ctx) {
    lc_http_conn *c = ctx;
    if (c->doomed) return;
    if (c->phase == LC_PHASE_LINGER) {
        struct evbuffer *in = bufferevent_get_input(stream);
        evbuffer_drain(in, evbuffer_get_length(in));
        return;
    }
    advance(c);
    pause_reading(c);
}

static void on_write(struct bufferevent *stream, void *ctx) {
    (void)stream;
    lc_http_conn *c = ctx;
    if (c->doomed || c->phase != LC_PHASE_REPLY || !c->exchange || !c->exchange->ended || unsent(c))
        return;
    bool keep = c->exchange->keep && !c->http->draining;
    forget_exchange(c);
    if (c->ended) {
        lc_http_conn_close(c);
    } else if (!keep) {
        linger(c);
    } else {
        c->phase = LC_PHASE_IDLE;
        deadline(c, limits_of(c)->idle_s);
        advance(c);
        pause_reading(c);
    }
}

static void on_event(struct bufferevent *stream, short what, void *ctx) {
    lc_http_conn *c = ctx;
    if (c->doomed) return;
    if (what & BEV_EVENT_CONNECTED) {
        c->phase = LC_PHASE_IDLE;
        deadline(c, limits_of(c)->header_s);
        return;
    }
    c->ended = true;
    bool answered = c->phase == LC_PHASE_REPLY && c->exchange && c->exchange->ended;
    if ((what & BEV_EVENT_EOF) && answered && !c->tls)
        bufferevent_disable(stream, EV_READ); /* it may still read the rest of the reply */
    else
        lc_http_conn_close(c);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    lc_http_conn *c = ctx;
    bool begun = c->exchange && lc_http_parser_begun(&c->exchange->parser);
    if (!c->doomed && c->phase == LC_PHASE_HEAD && begun)
        fail(c, 408, "the request took too long to arrive");
    else if (!c->doomed && c->phase == LC_PHASE_BODY)
        fail(c, 408, "the body of the request took too long to arrive");
    else
        lc_http_conn_close(c);
}

/* ---- the beginning ---- */

static bool open_stream(lc_http_conn *c, int fd) {
    lc_http *http = c->http;
    c->timer = evtimer_new(http->base, on_timer, c);
    if (!c->timer) return false;
    c->stream = http->tls ? lc_http_tls_stream(http, fd, &c->tls)
                          : bufferevent_socket_new(http->base, fd,
                                                   BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    if (!c->stream) return false;
    bufferevent_setcb(c->stream, on_read, on_write, on_event, c);
    bufferevent_setwatermark(c->stream, EV_READ, 0, LC_HTTP_READ_AHEAD);
    evbuffer_add_cb(bufferevent_get_output(c->stream), on_progress, c);
    return bufferevent_enable(c->stream, EV_READ | EV_WRITE) == 0;
}

void lc_http_conn_open(lc_http *http, int fd, const char *name, lc_http_peer *peer, bool refused) {
    lc_http_conn *c = lc_calloc(1, sizeof *c);
    if (!c || (refused && http->tls)) { /* a handshake is too dear for a refusal */
        lc_free(c);
        close(fd);
        if (peer) lc_http_peer_leave(http, peer);
        return;
    }
    *c = (lc_http_conn){.http = http, .peer = peer, .refused = refused};
    memcpy(c->name, name, strnlen(name, sizeof c->name - 1));
    if (!open_stream(c, fd)) {
        if (!c->stream) close(fd);
        lc_http_conn_close(c);
        return;
    }
    c->next = http->conns;
    c->link = &http->conns;
    if (c->next) c->next->link = &c->next;
    http->conns = c;
    if (refused)
        http->n_refused++;
    else
        atomic_fetch_add(&http->n_connections, 1);
    c->phase = c->tls ? LC_PHASE_HANDSHAKE : LC_PHASE_IDLE;
    deadline(c, limits_of(c)->header_s);
    if (refused && begin_request(c)) fail(c, 503, "too many connections");
}

/* A new connection has its first request on the way: it gets its reply. */
void lc_http_conn_drain(lc_http_conn *c) {
    if (c->phase == LC_PHASE_IDLE && c->requests) lc_http_conn_close(c);
}
