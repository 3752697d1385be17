/*
 * http.h: HTTP/1.1 over TCP and TLS: libevent's bufferevents, llhttp, OpenSSL. It knows nothing of
 * models: one complete request in, one reply out, whole or streamed.
 *
 * Everything runs on one event loop thread. The handler and all lc_exchange_* functions are called
 * on it only; other threads hand work over with lc_http_post. Framing is strict, every
 * size and time has a limit (docs/api.md), a limit's breach is answered with its own status.
 */
#ifndef LC_SERVER_HTTP_H
#define LC_SERVER_HTTP_H

#include "base/buf.h"

typedef struct lc_http lc_http;
typedef struct lc_exchange lc_exchange; /* one request and its reply */

/* 0 = the default. */
typedef struct lc_http_limits {
    size_t line, header, headers, n_headers; /* bytes: 8 KiB, 16 KiB, 64 KiB; 128 */
    size_t body;                             /* bytes: 32 MiB */
    size_t bodies;                           /* bytes of all bodies held at a time: 1 GiB */
    double header_s, body_idle_s, body_s;    /* 10, 20, 120 */
    size_t connections, per_peer;            /* 4096, 256 */
    size_t outbound;                         /* unsent bytes beside the largest write: 1 MiB ... */
    double outbound_s;                       /* ... or without progress: 30 */
    double idle_s;                           /* keep-alive: 75 */
    size_t per_connection;                   /* requests: 1000 */
} lc_http_limits;

typedef struct lc_http_options {
    const char *host; /* address to listen on, default 127.0.0.1 */
    int port;         /* 0 = any free one */
    const char *tls_certificate,
        *tls_key;             /* PEM files; both or none; lc_http_reload reads them again */
    const char *const *hosts; /* names that the Host header may have besides loopback ones and the
                                 address, where host is a loopback address (DNS rebinding) */
    size_t n_hosts;
    lc_http_limits limits;
    const char *server; /* Server header, or NULL */
    void *ctx;
    /* A whole request has arrived. The exchange lives until it is ended or aborted and its bytes
     * are sent; the request's strings live as long. */
    void (*request)(void *ctx, lc_exchange *exchange);
    /* Before the body of a request is read: 0 to go on, or a status to answer at once (401, 404,
     * 413, 503 ...) with the headers set on the exchange and the body of `error`; or it replies
     * itself and returns any other value. The exchange is over then. May be NULL. */
    int (*head)(void *ctx, lc_exchange *exchange);
    /* Body of an error that http itself answers (400, 408, 413, 431 ...), JSON; NULL: a default
     * one. It may set headers; on_close is called behind it, unless it is unset here. Method and
     * path of the exchange are NULL and its headers absent when they aren't known yet. */
    void (*error)(void *ctx, lc_exchange *exchange, int status, const char *message, lc_buf *out);
} lc_http_options;

int lc_http_open(const lc_http_options *options, lc_http **out, lc_err *err);
/* After lc_http_run has returned. What is posted still runs; open exchanges get their on_close. */
void lc_http_free(lc_http *http);
int lc_http_port(const lc_http *http);
/* Runs the loop until lc_http_quit; the caller's thread becomes the loop thread. */
int lc_http_run(lc_http *http, lc_err *err);
/* From any thread (not from signal handlers; see lc_http_signal). */
void lc_http_quit(lc_http *http);
/* Runs fn(ctx) on the loop thread, in order of the posts. Any thread. LC_ENOMEM. */
int lc_http_post(lc_http *http, void (*fn)(void *ctx), void *ctx);
/* The same with memory of the caller's, which is his again when fn is called: it can't fail. For
 * what must not be lost: ends. */
typedef struct lc_http_posted {
    void (*fn)(void *ctx);
    void *ctx;
    bool ours; /* made by lc_http_post */
    struct lc_http_posted *next;
} lc_http_posted;
void lc_http_post_kept(lc_http *http, lc_http_posted *posted, void (*fn)(void *ctx), void *ctx);
/* Runs what is posted until nothing is, what it posts included; when lc_http_run doesn't run. */
void lc_http_run_posted(lc_http *http);
/* Calls fn(ctx) on the loop thread when the process gets the signal. Before lc_http_run. */
int lc_http_signal(lc_http *http, int signal_number, void (*fn)(void *ctx), void *ctx, lc_err *err);
/* Calls fn(ctx) every `seconds` on the loop thread. Before lc_http_run or on the loop thread. */
int lc_http_every(lc_http *http, double seconds, void (*fn)(void *ctx), void *ctx, lc_err *err);
/* Connections between requests are closed, replies from now on end their connection. Listening goes
 * on until lc_http_run ends, so that probes and new requests are told. */
void lc_http_drain(lc_http *http);
size_t lc_http_open_exchanges(const lc_http *http);
size_t lc_http_connections(const lc_http *http);
/* Reads certificate and key again, for new connections; on failure the old ones stay. Any thread.
 */
int lc_http_reload(lc_http *http, lc_err *err);

/* ---- an exchange ---- */

const char *lc_exchange_method(const lc_exchange *x); /* "GET" ... */
const char *lc_exchange_path(const lc_exchange *x);   /* decoded, without query; begins with '/' */
const char *lc_exchange_query(const lc_exchange *x);  /* raw, "" if none */
/* Value of a header (name in lower case), NULL if absent. Repeated ones are joined by ", ". */
const char *lc_exchange_get(const lc_exchange *x, const char *name);
const char *lc_exchange_body(const lc_exchange *x, size_t *len);
const char *lc_exchange_peer(const lc_exchange *x); /* "127.0.0.1:4711" */
void lc_exchange_user(lc_exchange *x, void *user);
void *lc_exchange_get_user(const lc_exchange *x);
/* Called once, on the loop thread, if the exchange ends otherwise than by a call of reply, end or
 * abort: the client went away (closing its sending side counts) or is too slow, or its body broke a
 * limit or the framing after `head` had let it in.
 * The exchange is gone when fn returns: no call on it afterwards, nor in fn. */
void lc_exchange_on_close(lc_exchange *x, void (*fn)(void *ctx), void *ctx);

/* A header of the reply, before it begins. Values with control characters are refused: LC_EINVAL.
 */
int lc_exchange_header(lc_exchange *x, const char *name, const char *value, lc_err *err);
/* The whole reply; HEAD gets no body. Ends the exchange. */
void lc_exchange_reply(lc_exchange *x, int status, const char *type, const char *body, size_t len);
/* A streamed reply (chunked): begin, any number of writes, end. write returns false when the reply
 * was given up (limits.outbound): on_close will be called, unless end or abort is called first. */
void lc_exchange_begin(lc_exchange *x, int status, const char *type);
bool lc_exchange_write(lc_exchange *x, const char *data, size_t len);
void lc_exchange_end(lc_exchange *x);
/* Cuts the connection: an error that can't be told any more. */
void lc_exchange_abort(lc_exchange *x);

#endif
