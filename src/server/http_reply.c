/*
 * http_reply.c: an exchange as the handler sees it, and the bytes of replies. Nothing here closes a
 * connection at once: the handler may be running in the middle of the connection's own work, so
 * the loop is asked to do it (lc_http_conn_doom).
 */
#include "server/http_internal.h"

#include "base/err.h"

#include <string.h>
#include <strings.h>
#include <time.h>

lc_exchange *lc_exchange_new(lc_http_conn *conn) {
    lc_exchange *x = lc_calloc(1, sizeof *x);
    if (!x) return NULL;
    x->conn = conn;
    lc_http_parser_init(&x->parser, &conn->http->options.limits, &conn->http->bodies);
    return x;
}

void lc_exchange_free(lc_exchange *x) {
    if (!x) return;
    if (x->counted) atomic_fetch_sub(&x->conn->http->n_exchanges, 1);
    lc_http_parser_free(&x->parser);
    lc_buf_free(&x->headers);
    lc_free(x);
}

/* ---- the request ---- */

const char *lc_exchange_method(const lc_exchange *x) { return x->parser.method; }
const char *lc_exchange_path(const lc_exchange *x) { return x->parser.path; }
const char *lc_exchange_query(const lc_exchange *x) { return x->parser.query; }
const char *lc_exchange_peer(const lc_exchange *x) { return x->conn->name; }
void lc_exchange_user(lc_exchange *x, void *user) { x->user = user; }
void *lc_exchange_get_user(const lc_exchange *x) { return x->user; }

const char *lc_exchange_get(const lc_exchange *x, const char *name) {
    return lc_http_parser_get(&x->parser, name);
}

const char *lc_exchange_body(const lc_exchange *x, size_t *len) {
    *len = x->parser.body.len;
    return x->parser.body.data ? x->parser.body.data : "";
}

void lc_exchange_on_close(lc_exchange *x, void (*fn)(void *ctx), void *ctx) {
    x->on_close = fn;
    x->on_close_ctx = ctx;
}

void lc_exchange_lost(lc_exchange *x) {
    void (*fn)(void *ctx) = x->on_close;
    x->on_close = NULL;
    if (fn && !x->ended) fn(x->on_close_ctx);
}

/* ---- the head of a reply ---- */

const char *lc_http_reason(int status) {
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {529, "Overloaded"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status) return reasons[i].text;
    return "Other";
}

int lc_exchange_header(lc_exchange *x, const char *name, const char *value, lc_err *err) {
    static const char *const own[] = {"content-length", "transfer-encoding", "connection", "date",
                                      "server",         "content-type"};
    if (x->begun || x->ended) return lc_fail(err, LC_EINVAL, "the reply has begun already");
    if (!lc_http_is_token(name)) return lc_fail(err, LC_EINVAL, "invalid name of a header");
    if (!lc_http_is_field_value(value))
        return lc_fail(err, LC_EINVAL, "header %s: control character in its value", name);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcasecmp(name, own[i]) == 0)
            return lc_fail(err, LC_EINVAL, "header %s is set by the server itself", name);
    size_t before = x->headers.len;
    if (lc_buf_puts(&x->headers, name) && lc_buf_puts(&x->headers, ": ") &&
        lc_buf_puts(&x->headers, value) && lc_buf_puts(&x->headers, "\r\n"))
        return LC_OK;
    x->headers.failed = false;
    x->headers.len = before;
    return lc_fail(err, LC_ENOMEM, "header %s: out of memory", name);
}

/* IMF-fixdate; made once a second. */
static const char *date_now(lc_http *http) {
    time_t now = time(NULL);
    if (now != http->date_at) {
        static const char days[] = "SunMonTueWedThuFriSat";
        static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        struct tm t;
        gmtime_r(&now, &t);
        lc_buf text = {0};
        lc_buf_printf(&text, "%.3s, %02d %.3s %d %02d:%02d:%02d GMT", days + t.tm_wday * 3,
                      t.tm_mday, months + t.tm_mon * 3, t.tm_year + 1900, t.tm_hour, t.tm_min,
                      t.tm_sec);
        if (text.len && text.len < sizeof http->date) memcpy(http->date, text.data, text.len + 1);
        lc_buf_free(&text);
        http->date_at = now;
    }
    return http->date;
}

/* A reply without a body of its own: nothing may follow its head. */
static bool bodyless(int status) { return status == 204 || status == 304 || status < 200; }

/* type may be NULL. len < 0: unknown, streamed. */
static bool send_head(lc_exchange *x, int status, const char *type, int64_t len) {
    lc_http *http = x->conn->http;
    lc_buf head = {0};
    bool head_only = x->parser.method && strcmp(x->parser.method, "HEAD") == 0;
    bool old = x->parser.minor == 0;
    x->begun = true;
    x->mute = head_only || bodyless(status);
    x->chunked = len < 0 && !x->mute && !old;
    x->keep = x->keep && !http->draining && !(len < 0 && old && !x->mute);
    lc_buf_printf(&head, "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, lc_http_reason(status),
                  date_now(http));
    if (http->options.server) lc_buf_printf(&head, "Server: %s\r\n", http->options.server);
    if (type && lc_http_is_field_value(type)) lc_buf_printf(&head, "Content-Type: %s\r\n", type);
    if (len >= 0 && !bodyless(status))
        lc_buf_printf(&head, "Content-Length: %lld\r\n", (long long)len);
    if (len < 0 && !bodyless(status) && !old) lc_buf_puts(&head, "Transfer-Encoding: chunked\r\n");
    if (!x->keep)
        lc_buf_puts(&head, "Connection: close\r\n");
    else if (old)
        lc_buf_puts(&head, "Connection: keep-alive\r\n");
    lc_buf_append(&head, x->headers.data, x->headers.len);
    lc_buf_puts(&head, "\r\n");
    bool ok = !head.failed && bufferevent_write(x->conn->stream, head.data, head.len) == 0;
    lc_buf_free(&head);
    return ok;
}

/* ---- replies ---- */

void lc_exchange_reply(lc_exchange *x, int status, const char *type, const char *body, size_t len) {
    if (x->ended) return;
    if (x->begun || x->given_up) {
        lc_exchange_abort(x);
        return;
    }
    bool ok = send_head(x, status, type, (int64_t)len);
    if (ok && !x->mute && len) ok = bufferevent_write(x->conn->stream, body, len) == 0;
    x->ended = true;
    if (ok)
        lc_http_conn_sending(x->conn);
    else
        lc_http_conn_doom(x->conn);
}

/* The reply won't be finished; on_close is called by the loop. */
static bool give_up(lc_exchange *x) {
    x->given_up = true;
    lc_http_conn_doom(x->conn);
    return false;
}

void lc_exchange_begin(lc_exchange *x, int status, const char *type) {
    if (x->ended || x->begun || x->given_up) return;
    if (!send_head(x, status, type, -1))
        give_up(x);
    else
        lc_http_conn_sending(x->conn);
}

bool lc_exchange_write(lc_exchange *x, const char *data, size_t len) {
    if (x->ended || !x->begun || x->given_up) return false;
    if (!len || x->mute) return true;
    struct evbuffer *out = bufferevent_get_output(x->conn->stream);
    size_t most = x->conn->http->options.limits.outbound + x->largest;
    if (evbuffer_get_length(out) > most) return give_up(x);
    if (len > x->largest) x->largest = len;
    bool ok = true;
    if (x->chunked) ok = evbuffer_add_printf(out, "%zx\r\n", len) > 0;
    ok = ok && evbuffer_add(out, data, len) == 0;
    if (x->chunked) ok = ok && evbuffer_add(out, "\r\n", 2) == 0;
    if (!ok) return give_up(x);
    lc_http_conn_sending(x->conn);
    return true;
}

void lc_exchange_end(lc_exchange *x) {
    if (x->ended) return;
    if (!x->begun || x->given_up) {
        lc_exchange_abort(x);
        return;
    }
    x->ended = true;
    if (x->chunked && bufferevent_write(x->conn->stream, "0\r\n\r\n", 5) != 0)
        lc_http_conn_doom(x->conn);
    else
        lc_http_conn_sending(x->conn);
}

void lc_exchange_abort(lc_exchange *x) {
    if (x->ended) return;
    x->ended = true;
    lc_http_conn_doom(x->conn);
}

void lc_exchange_fail(lc_exchange *x, int status, const char *message, bool keep) {
    lc_http *http = x->conn->http;
    lc_buf body = {0};
    if (http->options.error)
        http->options.error(http->options.ctx, x, status, message, &body);
    else
        lc_buf_printf(&body, "{\"error\":{\"code\":%d,\"message\":\"%s\"}}\n", status, message);
    lc_exchange_lost(x);
    x->keep = x->keep && keep;
    bool told = x->headers.data && strcasestr(x->headers.data, "retry-after:");
    if (status == 503 && !told) lc_exchange_header(x, "Retry-After", "1", NULL);
    lc_exchange_reply(x, status, "application/json", body.failed ? "" : body.data,
                      body.failed ? 0 : body.len);
    lc_buf_free(&body);
}
