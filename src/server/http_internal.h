/*
 * http_internal.h: what the files of the HTTP server share: the server, a connection, an exchange.
 *   http.c        loop, listener, timers, posts, limits of numbers
 *   http_conn.c   one connection: its phases, deadlines, reading, closing
 *   http_reply.c  lc_exchange_*: what the handler sees and says
 *   http_tls.c    certificate and TLS streams
 *   http_parse.c, http_head.c   bytes to a request (http_parse.h)
 * A connection works on one exchange at a time: the next request isn't read before the reply is
 * sent, so pipelined requests are answered in order and unsent replies can't pile up.
 */
#ifndef LC_SERVER_HTTP_INTERNAL_H
#define LC_SERVER_HTTP_INTERNAL_H

#include "server/http_parse.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    LC_HTTP_READ_AHEAD = 64 << 10,   /* bytes read before they are wanted */
    LC_HTTP_SEND_BUFFER = 256 << 10, /* of the kernel, per connection */
    LC_HTTP_REFUSED = 64,            /* connections over the limit that are told so at a time */
    LC_HTTP_PEER_BUCKETS = 1024,
};

typedef struct lc_http_peer {
    unsigned char address[16]; /* IPv6 or mapped IPv4 */
    size_t count;
    struct lc_http_peer *next;
} lc_http_peer;

typedef struct lc_http_hook { /* of lc_http_every and lc_http_signal */
    struct event *event;
    void (*fn)(void *ctx);
    void *ctx;
    struct lc_http_hook *next;
} lc_http_hook;

typedef enum lc_http_phase {
    LC_PHASE_HANDSHAKE, /* TLS */
    LC_PHASE_IDLE,      /* between requests */
    LC_PHASE_HEAD,
    LC_PHASE_BODY,
    LC_PHASE_REPLY,  /* the handler has the request; ends when the reply is sent */
    LC_PHASE_LINGER, /* all is said; bytes of the client are dropped until it closes */
} lc_http_phase;

typedef struct lc_http_conn {
    lc_http *http;
    struct bufferevent *stream;
    SSL *tls; /* a reference of its own; NULL: plain */
    struct event *timer;
    struct event *closed; /* sees a client's end behind unread bytes; NULL until needed */
    lc_http_phase phase;
    lc_exchange *exchange;
    lc_http_peer *peer;
    size_t requests;
    uint64_t body_deadline; /* ns */
    bool paused;            /* enough is read ahead */
    bool refused;           /* over the limit of connections */
    bool doomed;            /* to be closed by the loop, not by who is using it now */
    bool ended;             /* the client has sent its last byte */
    char name[64];          /* peer's address and port */
    struct lc_http_conn *next, **link;
} lc_http_conn;

struct lc_exchange {
    lc_http_conn *conn;
    lc_http_parser parser;
    lc_buf headers; /* of the reply, as they are sent */
    void *user;
    void (*on_close)(void *ctx);
    void *on_close_ctx;
    bool counted; /* among the open exchanges */
    bool begun, ended, given_up;
    size_t largest;     /* write so far: the client gets time for it beside limits.outbound */
    bool keep;          /* the connection may go on after the reply */
    bool chunked, mute; /* mute: the reply has no body (HEAD, 204) */
};

struct lc_http {
    lc_http_options options; /* hosts is NULL here, other strings are those of texts */
    char *texts[4];
    size_t n_texts;
    char **hosts; /* [options.n_hosts] */
    struct event_base *base;
    struct evconnlistener *listener;
    int port;
    bool loopback, draining;
    int spare; /* a descriptor for the moment when there are no others */
    SSL_CTX *tls;
    pthread_mutex_t lock; /* tls, and the queue of posts */
    lc_http_posted *first, **last;
    struct event *wake;
    int wake_fd;
    atomic_bool quit;
    atomic_size_t n_connections, n_exchanges;
    size_t n_refused, bodies;
    lc_http_conn *conns;
    lc_http_peer *peers[LC_HTTP_PEER_BUCKETS];
    lc_http_hook *hooks;
    time_t date_at;
    char date[40];
};

/* http.c */
void lc_http_peer_leave(lc_http *http, lc_http_peer *peer);

/* http_conn.c */
/* Takes the socket, whatever happens. peer: counted already, or NULL; refused: it gets a 503. */
void lc_http_conn_open(lc_http *http, int fd, const char *name, lc_http_peer *peer, bool refused);
/* Closes at once; the handler is told if it has an open exchange. Not from a handler's call. */
void lc_http_conn_close(lc_http_conn *conn);
/* The same from the loop, as soon as the caller is done. */
void lc_http_conn_doom(lc_http_conn *conn);
/* Bytes were given to the stream: watch that they go out. */
void lc_http_conn_sending(lc_http_conn *conn);
/* The connection is closed if nothing is going on in it. */
void lc_http_conn_drain(lc_http_conn *conn);

/* http_reply.c */
lc_exchange *lc_exchange_new(lc_http_conn *conn);
void lc_exchange_free(lc_exchange *x);
/* Tells the handler, if it wants to know, that the exchange ends without it. */
void lc_exchange_lost(lc_exchange *x);
/* A reply of http's own, of which the handler is told; the connection ends with it unless `keep`.
 */
void lc_exchange_fail(lc_exchange *x, int status, const char *message, bool keep);
const char *lc_http_reason(int status);

/* http_tls.c */
int lc_http_tls_load(const char *certificate, const char *key, SSL_CTX **out, lc_err *err);
/* A stream over an accepted socket and a reference to its TLS side. NULL: memory is short. */
struct bufferevent *lc_http_tls_stream(lc_http *http, int fd, SSL **tls);
/* Says goodbye on the TLS level, as far as that goes without waiting. */
void lc_http_tls_end(SSL *tls);

#endif
