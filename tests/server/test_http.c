/*
 * test_http.c: the HTTP server over real sockets (uses-threads): the framing table, row by row and
 * byte by byte, pipelining, streams, HEAD, Expect, targets, Host names, posts, drain. Limits, slow
 * clients and TLS are in test_http_limits.c. Expected values are those of RFC 9110 and 9112, where
 * they leave a choice the stricter one.
 */
#include "http_client.h"
#include "server/http_parse.h"

#include <signal.h>

static toy shared; /* of the rows and other tests that need no options */

static int start_shared(void **state) {
    (void)state;
    toy_start(&shared, (lc_http_options){.server = "toy"});
    return 0;
}

static int stop_shared(void **state) {
    (void)state;
    toy_stop(&shared);
    printf("# %zu bytes of memory left\n", lc_mem_current());
    return lc_mem_current() != 0;
}

/* ---- framing ---- */

typedef struct row {
    const char *name, *bytes;
    size_t len;
    int status;
    const char *part; /* of the reply */
} row;

#define ROW(name, bytes, status, part)                                                             \
    { name, bytes, sizeof bytes - 1, status, part }
#define H "Host: localhost\r\n"
#define END H "Connection: close\r\n\r\n"
#define POST "POST /echo HTTP/1.1\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n" END
#define SMUGGLED "GET /smuggled HTTP/1.1\r\n" END

static const row rows[] = {
    ROW("plain GET", "GET /echo HTTP/1.1\r\n" END, 200, "GET|/echo||(none)|"),
    ROW("plain POST", POST "Content-Length: 5\r\n" END "hello", 200, "|hello"),
    ROW("Content-Length 0", POST "Content-Length: 0\r\n" END, 200, "(none)|"),
    ROW("POST without a length", POST END, 200, "(none)|"),
    ROW("GET with a body", "GET /echo HTTP/1.1\r\nContent-Length: 2\r\n" END "hi", 200, "|hi"),
    ROW("one empty line first", "\r\nGET /echo HTTP/1.1\r\n" END, 200, NULL),
    ROW("two empty lines first", "\r\n\r\nGET /echo HTTP/1.1\r\n" END, 400, NULL),
    ROW("duplicate Content-Length, same",
        POST "Content-Length: 2\r\nContent-Length: 2\r\n" END "hi", 400, NULL),
    ROW("duplicate Content-Length, different",
        POST "Content-Length: 2\r\nContent-Length: 60\r\n" END "hi" SMUGGLED, 400, NULL),
    ROW("Content-Length list", POST "Content-Length: 2, 2\r\n" END "hi", 400, NULL),
    ROW("Content-Length and chunked",
        POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END "0\r\n\r\n" SMUGGLED, 400,
        NULL),
    ROW("chunked and Content-Length",
        POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" END "0\r\n\r\n" SMUGGLED, 400,
        NULL),
    ROW("Content-Length overflow", POST "Content-Length: 18446744073709551618\r\n" END "hi", 413,
        NULL),
    ROW("Content-Length +2", POST "Content-Length: +2\r\n" END "hi", 400, NULL),
    ROW("Content-Length -2", POST "Content-Length: -2\r\n" END "hi", 400, NULL),
    ROW("Content-Length 0x2", POST "Content-Length: 0x2\r\n" END "hi", 400, NULL),
    ROW("Content-Length 2 2", POST "Content-Length: 2 2\r\n" END "hi", 400, NULL),
    ROW("Content-Length empty", POST "Content-Length:\r\n" END "hi", 400, NULL),
    ROW("Transfer-Encoding xchunked", POST "Transfer-Encoding: xchunked\r\n" END "0\r\n\r\n", 501,
        NULL),
    ROW("Transfer-Encoding gzip, chunked", POST "Transfer-Encoding: gzip, chunked\r\n" END, 501,
        NULL),
    ROW("Transfer-Encoding chunked, chunked", POST "Transfer-Encoding: chunked, chunked\r\n" END,
        501, NULL),
    ROW("Transfer-Encoding identity", POST "Transfer-Encoding: identity\r\n" END, 501, NULL),
    ROW("Transfer-Encoding twice",
        POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" END, 400, NULL),
    ROW("Transfer-Encoding with vertical tab",
        POST "Transfer-Encoding: \x0b"
             "chunked\r\n" END,
        400, NULL),
    ROW("Transfer-Encoding Chunked", POST "Transfer-Encoding: Chunked\r\n" END "0\r\n\r\n", 200,
        NULL),
    ROW("Transfer-Encoding in HTTP/1.0",
        "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" END "0\r\n\r\n", 400, NULL),
    ROW("bare LF in the request line", "GET /echo HTTP/1.1\n" END, 400, NULL),
    ROW("bare LF after a header", "GET /echo HTTP/1.1\r\nX-Test: a\n" END, 400, NULL),
    ROW("bare LF at the end of the head", "GET /echo HTTP/1.1\r\n" H "\n", 400, NULL),
    ROW("bare CR in a header", "GET /echo HTTP/1.1\r\nX-Test: a\rb\r\n" END, 400, NULL),
    ROW("bare CR between headers", "GET /echo HTTP/1.1\r\nX-Test: a\rX-B: c\r\n" END, 400, NULL),
    ROW("space before the colon", "GET /echo HTTP/1.1\r\nX-Test : a\r\n" END, 400, NULL),
    ROW("space before the colon of Content-Length", POST "Content-Length : 60\r\n" END "" SMUGGLED,
        400, NULL),
    ROW("tab before the colon", "GET /echo HTTP/1.1\r\nX-Test\t: a\r\n" END, 400, NULL),
    ROW("folded line", "GET /echo HTTP/1.1\r\nX-Test: a\r\n b\r\n" END, 400, NULL),
    ROW("folded line with a tab", "GET /echo HTTP/1.1\r\nX-Test: a\r\n\tb\r\n" END, 400, NULL),
    ROW("folded first header", "GET /echo HTTP/1.1\r\n X-Test: a\r\n" END, 400, NULL),
    ROW("NUL in a value", "GET /echo HTTP/1.1\r\nX-Test: a\0b\r\n" END, 400, NULL),
    ROW("NUL in a name", "GET /echo HTTP/1.1\r\nX-\0Test: a\r\n" END, 400, NULL),
    ROW("NUL in the target", "GET /ec\0ho HTTP/1.1\r\n" END, 400, NULL),
    ROW("control byte in a value", "GET /echo HTTP/1.1\r\nX-Test: a\x01\r\n" END, 400, NULL),
    ROW("DEL in a value", "GET /echo HTTP/1.1\r\nX-Test: a\x7f\r\n" END, 400, NULL),
    ROW("tab in a value", "GET /echo HTTP/1.1\r\nX-Test: a\tb\r\n" END, 200, "|a\tb|"),
    ROW("spaces around a value", "GET /echo HTTP/1.1\r\nX-Test: \t a b \t\r\n" END, 200, "|a b|"),
    ROW("empty value", "GET /echo HTTP/1.1\r\nX-Test:\r\n" END, 200, "|||"),
    ROW("UTF-8 in a value", "GET /echo HTTP/1.1\r\nX-Test: \xc3\xa9\r\n" END, 200, "|\xc3\xa9|"),
    ROW("bracket in a name", "GET /echo HTTP/1.1\r\nX[Test]: a\r\n" END, 400, NULL),
    ROW("non-ASCII byte in a name", "GET /echo HTTP/1.1\r\nX-T\xc3\xa9st: a\r\n" END, 400, NULL),
    ROW("empty name", "GET /echo HTTP/1.1\r\n: a\r\n" END, 400, NULL),
    ROW("line without a colon", "GET /echo HTTP/1.1\r\nX-Test\r\n" END, 400, NULL),
    ROW("repeated header is joined",
        "GET /echo HTTP/1.1\r\nX-Test: a\r\nx-test: b\r\nX-TEST: c\r\n" END, 200, "|a, b, c|"),
    ROW("no Host", "GET /echo HTTP/1.1\r\nConnection: close\r\n\r\n", 400, NULL),
    ROW("two Hosts", "GET /echo HTTP/1.1\r\nHost: localhost\r\n" END, 400, NULL),
    ROW("empty Host", "GET /echo HTTP/1.1\r\nHost:\r\n\r\n", 400, NULL),
    ROW("Host with user", "GET /echo HTTP/1.1\r\nHost: a@localhost\r\n\r\n", 400, NULL),
    ROW("Host with path", "GET /echo HTTP/1.1\r\nHost: localhost/x\r\n\r\n", 400, NULL),
    ROW("Host with letters as port", "GET /echo HTTP/1.1\r\nHost: localhost:x\r\n\r\n", 400, NULL),
    ROW("Host list", "GET /echo HTTP/1.1\r\nHost: localhost, localhost\r\n\r\n", 400, NULL),
    ROW("no Host in HTTP/1.0", "GET /echo HTTP/1.0\r\n\r\n", 200, "Connection: close"),
    ROW("foreign Host", "GET /echo HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, NULL),
    ROW("foreign Host that begins like ours",
        "GET /echo HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 421, NULL),
    ROW("foreign Host that ends like ours", "GET /echo HTTP/1.1\r\nHost: evillocalhost\r\n\r\n",
        421, NULL),
    ROW("foreign Host in an absolute target",
        "GET http://evil.example/echo HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, NULL),
    ROW("Host by address and port",
        "GET /echo HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\n\r\n", 200, NULL),
    ROW("Host by IPv6 address",
        "GET /echo HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: close\r\n\r\n", 200, NULL),
    ROW("Host in capitals", "GET /echo HTTP/1.1\r\nHost: LOCALHOST\r\nConnection: close\r\n\r\n",
        200, NULL),
    ROW("absolute target", "GET http://localhost/echo?q HTTP/1.1\r\n" END, 200, "|/echo|q|"),
    ROW("absolute target without a path", "GET http://localhost HTTP/1.1\r\n" END, 200, "|/||"),
    ROW("absolute target with query only", "GET http://localhost?a HTTP/1.1\r\n" END, 200, "|/|a|"),
    ROW("absolute target against Host", "GET http://127.0.0.1/echo HTTP/1.1\r\n" END, 400, NULL),
    ROW("absolute target with user", "GET http://a@localhost/ HTTP/1.1\r\n" END, 400, NULL),
    ROW("absolute target without host", "GET http:///echo HTTP/1.1\r\n" END, 400, NULL),
    ROW("another scheme", "GET ftp://localhost/echo HTTP/1.1\r\n" END, 400, NULL),
    ROW("target without a slash", "GET echo HTTP/1.1\r\n" END, 400, NULL),
    ROW("asterisk", "OPTIONS * HTTP/1.1\r\n" END, 400, NULL),
    ROW("CONNECT", "CONNECT localhost:80 HTTP/1.1\r\n" END, 501, NULL),
    ROW("TRACE", "TRACE /echo HTTP/1.1\r\n" END, 501, NULL),
    ROW("unknown method", "BREW /echo HTTP/1.1\r\n" END, 501, NULL),
    ROW("method in small letters", "get /echo HTTP/1.1\r\n" END, 501, NULL),
    ROW("method that is no token", "G@T /echo HTTP/1.1\r\n" END, 400, NULL),
    ROW("percent-decoding", "GET /%65cho%2Fx%20y%C3%A9?a%20b HTTP/1.1\r\n" END, 200,
        "|/echo/x y\xc3\xa9|a%20b|"),
    ROW("%00 in the path", "GET /echo%00 HTTP/1.1\r\n" END, 400, NULL),
    ROW("%0A in the path", "GET /echo%0a HTTP/1.1\r\n" END, 400, NULL),
    ROW("bad escape", "GET /echo%zz HTTP/1.1\r\n" END, 400, NULL),
    ROW("cut escape", "GET /echo%4 HTTP/1.1\r\n" END, 400, NULL),
    ROW("escape that is no UTF-8", "GET /echo%ff HTTP/1.1\r\n" END, 400, NULL),
    ROW("non-ASCII target", "GET /\xc3\xa9 HTTP/1.1\r\n" END, 400, NULL),
    ROW("braces, quotes and bars in a query", "GET /echo?a={\"b\"}|[c]^`\\ HTTP/1.1\r\n" END, 200,
        "|a={\"b\"}|[c]^`\\|"),
    ROW("fragment", "GET /echo#x HTTP/1.1\r\n" END, 400, NULL),
    ROW("space in the target", "GET /echo x HTTP/1.1\r\n" END, 400, NULL),
    ROW("two spaces in the request line", "GET  /echo HTTP/1.1\r\n" END, 400, NULL),
    ROW("tab in the request line", "GET\t/echo HTTP/1.1\r\n" END, 400, NULL),
    ROW("HTTP/0.9", "GET /echo\r\n\r\n", 400, NULL),
    ROW("HTTP/1.0", "GET /echo HTTP/1.0\r\n" H "\r\n", 200, "Connection: close"),
    ROW("HTTP/1.2", "GET /echo HTTP/1.2\r\n" END, 505, NULL),
    ROW("HTTP/2.0", "GET /echo HTTP/2.0\r\n" END, 505, NULL),
    ROW("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, NULL),
    ROW("http/1.1", "GET /echo http/1.1\r\n" END, 400, NULL),
    ROW("HTTP/1.1x", "GET /echo HTTP/1.1x\r\n" END, 400, NULL),
    ROW("TLS hello on a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, NULL),
    ROW("Upgrade is ignored",
        "GET /echo HTTP/1.1\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n" H "\r\n", 200, NULL),
    ROW("Upgrade with a body",
        POST "Connection: Upgrade, close\r\nUpgrade: websocket\r\nContent-Length: 2\r\n" H "\r\nhi",
        200, "|hi"),
    ROW("Content-Encoding gzip", POST "Content-Encoding: gzip\r\nContent-Length: 2\r\n" END "hi",
        415, NULL),
    ROW("Content-Encoding identity",
        POST "Content-Encoding: identity\r\nContent-Length: 2\r\n" END "hi", 200, "|hi"),
    ROW("unknown expectation", POST "Expect: tea\r\nContent-Length: 2\r\n" END "hi", 417, NULL),
    ROW("chunks", CHUNKED "3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n", 200, "|abc0123456789"),
    ROW("chunk extensions", CHUNKED "3;a=b\r\nabc\r\n0;x\r\n\r\n", 200, "|abc"),
    ROW("trailers are dropped", CHUNKED "3\r\nabc\r\n0\r\nX-Test: late\r\n\r\n", 200, "(none)|abc"),
    ROW("no chunks", CHUNKED "0\r\n\r\n", 200, "(none)|"),
    ROW("chunk size with 0x", CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", 400, NULL),
    ROW("chunk size +3", CHUNKED "+3\r\nabc\r\n0\r\n\r\n", 400, NULL),
    ROW("chunk size -3", CHUNKED "-3\r\nabc\r\n0\r\n\r\n", 400, NULL),
    ROW("chunk size with space", CHUNKED "3 \r\nabc\r\n0\r\n\r\n", 400, NULL),
    ROW("chunk size missing", CHUNKED "\r\nabc\r\n0\r\n\r\n", 400, NULL),
    ROW("chunk size overflow", CHUNKED "10000000000000003\r\nabc\r\n0\r\n\r\n", 413, NULL),
    ROW("chunk size with leading zeros", CHUNKED "00000000000000003\r\nabc\r\n0\r\n\r\n", 400,
        NULL),
    ROW("chunk size ends with LF", CHUNKED "3\nabc\r\n0\r\n\r\n", 400, NULL),
    ROW("chunk extension with LF", CHUNKED "3;a\nabc\r\n0\r\n\r\n", 400, NULL),
    ROW("chunk data too long", CHUNKED "3\r\nabcd\r\n0\r\n\r\n", 400, NULL),
    ROW("chunk data ends with LF", CHUNKED "3\r\nabc\n0\r\n\r\n", 400, NULL),
    ROW("chunk data ends with other bytes", CHUNKED "3\r\nabcXX0\r\n\r\n", 400, NULL),
    ROW("trailer with space before the colon", CHUNKED "0\r\nX : a\r\n\r\n", 400, NULL),
    ROW("folded trailer", CHUNKED "0\r\nX: a\r\n b\r\n\r\n", 400, NULL),
    ROW("trailer with bare LF", CHUNKED "0\r\nX: a\n\r\n", 400, NULL),
    ROW("header with LF CR (CVE-2023-30589)",
        "GET /echo HTTP/1.1\r\nX-Test: a\r\rContent-Length: 60\r\n" END, 400, NULL),
    ROW("chunked after CR (CVE-2022-35256)",
        POST "Transfer-Encoding: chunked\r, identity\r\n" END "0\r\n\r\n", 400, NULL),
};

static lc_http_limits parser_limits(void) {
    return (lc_http_limits){.line = 8192,
                            .header = 16384,
                            .headers = 65536,
                            .n_headers = 128,
                            .body = 1 << 20,
                            .bodies = 1 << 30};
}

/* The status that the parser alone gives when the bytes come in pieces; 421 needs the server. */
static int parsed_status(const row *r, size_t piece) {
    lc_http_limits limits = parser_limits();
    lc_http_parser p;
    lc_http_parser_init(&p, &limits, NULL);
    lc_parse result = LC_PARSE_MORE;
    for (size_t at = 0; at < r->len || result == LC_PARSE_HEAD;) {
        size_t n = r->len - at < piece ? r->len - at : piece, used;
        result = lc_http_parser_feed(&p, r->bytes + at, n, &used);
        at += used;
        if (result == LC_PARSE_DONE || result == LC_PARSE_ERROR) break;
    }
    int status = result == LC_PARSE_DONE ? 200 : result == LC_PARSE_ERROR ? p.status : 0;
    lc_http_parser_free(&p);
    return status;
}

static void framing(void **state) {
    const row *r = *state;
    for (size_t piece = 1; piece < 9; piece++) {
        int status = parsed_status(r, piece);
        assert_int_equal(status, r->status == 421 ? 200 : r->status);
    }
    int before = atomic_load(&shared.requests);
    expect_reply(&shared, r->bytes, r->len, r->status, r->part);
    assert_int_equal(atomic_load(&shared.requests) - before, r->status == 200);
}

/* ---- replies ---- */

static void pipelined_requests_are_answered_in_order(void **state) {
    (void)state;
    client c = client_open(&shared);
    lc_buf all = {0};
    enum { N = 50 };
    for (int i = 0; i < N; i++)
        lc_buf_printf(&all, "POST /echo?%d HTTP/1.1\r\n" H "Content-Length: 2\r\n%s\r\nab", i,
                      i == N - 1 ? "Connection: close\r\n" : "");
    client_send(&c, all.data, all.len);
    const char *at = client_rest(&c);
    assert_int_equal(replies_in(at), N);
    for (int i = 0; i < N; i++) {
        char want[32];
        snprintf(want, sizeof want, "|/echo|%d|", i);
        at = strstr(at, want);
        assert_non_null(at);
    }
    lc_buf_free(&all);
    client_close(&c);
}

static void streamed_replies_are_chunked(void **state) {
    (void)state;
    client c = client_open(&shared);
    client_puts(&c, "GET /stream HTTP/1.1\r\n" H "\r\n");
    client_expect(&c, "\r\n\r\n3\r\none\r\n16\r\ntwenty-two bytes long.\r\n0\r\n\r\n");
    assert_non_null(strstr(c.data, "Transfer-Encoding: chunked\r\n"));
    assert_null(strstr(c.data, "Content-Length"));
    client_forget(&c); /* the connection goes on */
    client_puts(&c, "GET /stream HTTP/1.0\r\n\r\n");
    const char *old = client_rest(&c);
    assert_non_null(strstr(old, "\r\n\r\nonetwenty-two bytes long."));
    assert_null(strstr(old, "chunked"));
    client_close(&c);
}

static void head_gets_no_body(void **state) {
    (void)state;
    client c = client_open(&shared);
    client_puts(&c, "HEAD /echo HTTP/1.1\r\n" H "\r\nHEAD /stream HTTP/1.1\r\n" H "\r\n"
                    "GET /empty HTTP/1.1\r\n" H "\r\nHEAD /x%00 HTTP/1.1\r\n" H "\r\n");
    const char *all = client_rest(&c);
    assert_int_equal(replies_in(all), 4);
    assert_non_null(strstr(all, "Content-Length: 19\r\n")); /* HEAD|/echo||(none)| */
    assert_null(strstr(all, "HEAD|"));
    assert_null(strstr(all, "twenty"));
    assert_non_null(strstr(all, "HTTP/1.1 204 No Content\r\n"));
    const char *last = strstr(all, "HTTP/1.1 400");
    assert_non_null(last);
    assert_string_equal(strstr(last, "\r\n\r\n"), "\r\n\r\n");
    client_close(&c);
}

static void replies_have_date_server_and_type(void **state) {
    (void)state;
    client c = client_open(&shared);
    client_puts(&c, "GET /echo HTTP/1.1\r\n" END);
    const char *reply = client_rest(&c), *date = strstr(reply, "Date: ");
    assert_non_null(date);
    struct tm t = {0};
    assert_non_null(strptime(date, "Date: %a, %d %b %Y %H:%M:%S GMT", &t));
    assert_true(labs((long)(timegm(&t) - time(NULL))) < 5);
    assert_non_null(strstr(reply, "Server: toy\r\n"));
    assert_non_null(strstr(reply, "Content-Type: text/plain\r\n"));
    assert_non_null(strstr(reply, "Connection: close\r\n"));
    assert_null(strstr(reply, "Access-Control"));
    client_close(&c);
}

static void http_1_0_keeps_the_connection_when_asked(void **state) {
    (void)state;
    client c = client_open(&shared);
    for (int i = 0; i < 2; i++) {
        client_puts(&c, "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        client_expect(&c, "GET|/echo||(none)|");
        assert_non_null(strstr(c.data, "Connection: keep-alive\r\n"));
        client_forget(&c);
    }
    client_close(&c);
}

static void expect_100_continue(void **state) {
    (void)state;
    client c = client_open(&shared);
    client_puts(&c, POST "Expect: 100-continue\r\nContent-Length: 2\r\n" END);
    client_expect(&c, "HTTP/1.1 100 Continue\r\n\r\n");
    client_forget(&c);
    client_puts(&c, "hi");
    const char *reply = client_rest(&c);
    assert_int_equal(status_of(reply), 200);
    assert_non_null(strstr(reply, "|hi"));
    client_close(&c);
    /* With the body already there, or from an old client, none is sent. */
    expect_reply(&shared, POST "Expect: 100-continue\r\nContent-Length: 2\r\n" END "hi",
                 sizeof POST "Expect: 100-continue\r\nContent-Length: 2\r\n" END "hi" - 1, 200,
                 "|hi");
}

static void head_hook_refuses_before_the_body(void **state) {
    (void)state;
    atomic_store(&shared.head_status, 401);
    int requests = atomic_load(&shared.requests);
    client c = client_open(&shared);
    client_puts(&c, POST "Expect: 100-continue\r\nContent-Length: 2\r\n" H "\r\n");
    const char *reply = client_rest(&c);
    assert_int_equal(status_of(reply), 401);
    assert_non_null(strstr(reply, "WWW-Authenticate: Bearer\r\n"));
    assert_non_null(strstr(reply, "\"path\":\"/echo\""));
    client_close(&c);
    c = client_open(&shared); /* without a body the connection goes on */
    for (int i = 0; i < 2; i++) {
        client_puts(&c, "GET /echo HTTP/1.1\r\n" H "\r\n");
        client_expect(&c, "\"path\":\"/echo\"");
        client_forget(&c);
    }
    client_close(&c);
    atomic_store(&shared.head_status, 0);
    static const char own[] = "POST /own HTTP/1.1\r\nContent-Length: 9\r\n" H "\r\n";
    expect_reply(&shared, own, sizeof own - 1, 403, "Connection: close\r\n\r\nby head");
    assert_int_equal(atomic_load(&shared.requests), requests);
}

static void begin_held(void *ctx) { lc_exchange_begin(((toy *)ctx)->held[0], 200, "text/plain"); }
static void end_held(void *ctx) {
    toy *t = ctx;
    lc_exchange_write(t->held[0], "", 0);
    lc_exchange_end(t->held[0]);
    atomic_store(&t->waiting, 0);
}

/* The end of these sends no byte, after all others have gone out. */
static void replies_may_end_without_a_byte(void **state) {
    (void)state;
    static const char *const requests[] = {"HEAD /wait HTTP/1.1\r\n" H "\r\n",
                                           "GET /wait HTTP/1.0\r\n\r\n"};
    client c = client_open(&shared);
    for (size_t i = 0; i < 2; i++) {
        client_puts(&c, requests[i]);
        await(&shared.waiting, 1);
        lc_http_post(shared.http, begin_held, &shared);
        client_expect(&c, "\r\n\r\n");
        client_forget(&c);
        sleep_ms(20);
        lc_http_post(shared.http, end_held, &shared);
        for (int n = 0; n < PATIENCE_MS && atomic_load(&shared.waiting); n++) sleep_ms(1);
    }
    assert_string_equal(client_rest(&c), "");
    client_close(&c);
}

static void large_replies_arrive_whole(void **state) {
    (void)state;
    client c = client_open(&shared);
    client_puts(&c, "GET /large HTTP/1.1\r\n" END);
    client_rest(&c);
    const char *body = strstr(c.data, "\r\n\r\n") + 4;
    assert_int_equal(c.len - (size_t)(body - c.data), 4 << 20);
    client_close(&c);
}

static void a_client_may_end_its_side_after_a_request(void **state) {
    (void)state;
    client c = client_open(&shared);
    client_puts(&c, "GET /large HTTP/1.1\r\n" H "\r\n");
    shutdown(c.fd, SHUT_WR);
    client_rest(&c);
    assert_true(c.len > 4 << 20);
    client_close(&c);
}

static void aborted_exchanges_cut_the_connection(void **state) {
    (void)state;
    int closes = atomic_load(&shared.closes);
    client c = client_open(&shared);
    client_puts(&c, "GET /abort HTTP/1.1\r\n" H "\r\n");
    assert_string_equal(client_rest(&c), "");
    client_close(&c);
    assert_int_equal(atomic_load(&shared.closes), closes);
}

static int header_codes[6];
static void try_headers(void *ctx) {
    toy *t = ctx;
    static const char *const pairs[][2] = {{"X-Ok", "fine"},   {"X-Bad", "a\r\nX-In: b"},
                                           {"X Bad", "a"},     {"Content-Length", "3"},
                                           {"X-Nul", "a\x01"}, {"", "a"}};
    for (size_t i = 0; i < 6; i++)
        header_codes[i] = lc_exchange_header(t->held[0], pairs[i][0], pairs[i][1], NULL);
    lc_exchange_reply(t->held[0], 200, "text/plain", "done", 4);
    atomic_store(&t->waiting, 0);
}

static void reply_headers_are_checked(void **state) {
    (void)state;
    client c = client_open(&shared);
    client_puts(&c, "GET /wait HTTP/1.1\r\n" END);
    await(&shared.waiting, 1);
    lc_http_post(shared.http, try_headers, &shared);
    const char *reply = client_rest(&c);
    assert_non_null(strstr(reply, "X-Ok: fine\r\n"));
    assert_null(strstr(reply, "X-In"));
    assert_int_equal(header_codes[0], LC_OK);
    for (size_t i = 1; i < 6; i++) assert_int_equal(header_codes[i], LC_EINVAL);
    client_close(&c);
}

/* ---- clients that go away ---- */

static void disconnect_is_noticed_while_a_reply_is_pending(void **state) {
    (void)state;
    int closes = atomic_load(&shared.closes);
    client c = client_open(&shared);
    client_puts(&c, "GET /wait HTTP/1.1\r\n" H "\r\n");
    await(&shared.waiting, 1);
    client_close(&c);
    await(&shared.closes, closes + 1);
    atomic_store(&shared.waiting, 0);
    for (int i = 0; i < PATIENCE_MS && lc_http_open_exchanges(shared.http); i++) sleep_ms(1);
    assert_int_equal(lc_http_open_exchanges(shared.http), 0);
}

static void disconnect_is_noticed_behind_unread_bytes(void **state) {
    (void)state;
    int closes = atomic_load(&shared.closes);
    client c = client_open(&shared);
    char *more = calloc(1, 100000);
    client_puts(&c, "GET /wait HTTP/1.1\r\n" H "\r\n");
    client_send(&c, more, 100000);
    await(&shared.waiting, 1);
    sleep_ms(50); /* what it reads ahead is full */
    client_close(&c);
    await(&shared.closes, closes + 1);
    atomic_store(&shared.waiting, 0);
    free(more);
}

static void answer_wait(void *ctx) {
    toy *t = ctx;
    lc_exchange_reply(t->held[0], 200, "text/plain", "late", 4);
    atomic_store(&t->waiting, 0);
}

static void reading_goes_on_after_a_pause(void **state) {
    (void)state;
    enum { N = 3, SIZE = 50000 };
    client c = client_open(&shared);
    client_puts(&c, "GET /wait HTTP/1.1\r\n" H "\r\n");
    lc_buf body = {0};
    for (size_t i = 0; i < SIZE; i++) lc_buf_putc(&body, 'x');
    for (size_t i = 0; i < N; i++) {
        client_puts(&c, POST "Content-Length: 50000\r\n" H);
        client_puts(&c, i == N - 1 ? "Connection: close\r\n\r\n" : "\r\n");
        client_send(&c, body.data, body.len);
    }
    lc_buf_free(&body);
    await(&shared.waiting, 1);
    sleep_ms(50); /* what it reads ahead is full */
    lc_http_post(shared.http, answer_wait, &shared);
    client_rest(&c);
    assert_int_equal(replies_in(c.data), 1 + N);
    assert_true(c.len > (size_t)N * SIZE);
    client_close(&c);
}

static void disconnect_within_a_request_is_silent(void **state) {
    (void)state;
    static const char *const parts[] = {"", "GET /echo HT", POST "Content-Length: 9\r\n" H "\r\nhi",
                                        CHUNKED "3\r\na"};
    int requests = atomic_load(&shared.requests);
    for (size_t i = 0; i < 4; i++) {
        client c = client_open(&shared);
        client_puts(&c, parts[i]);
        shutdown(c.fd, SHUT_WR);
        assert_string_equal(client_rest(&c), "");
        client_close(&c);
    }
    assert_int_equal(atomic_load(&shared.requests), requests);
}

/* ---- posts, timers, signals, drain ---- */

enum { POSTERS = 4, POSTS = 2000 };
static struct {
    int next[POSTERS], wrong;
    atomic_int done;
} posts;

static void posted(void *ctx) {
    int value = (int)(intptr_t)ctx, who = value / POSTS;
    if (posts.next[who]++ != value % POSTS) posts.wrong++;
    atomic_fetch_add(&posts.done, 1);
}

static void *poster(void *ctx) {
    int who = (int)(intptr_t)ctx;
    for (int i = 0; i < POSTS; i++)
        lc_http_post(shared.http, posted, (void *)(intptr_t)(who * POSTS + i));
    return NULL;
}

static void posts_from_threads_run_in_order(void **state) {
    (void)state;
    pthread_t threads[POSTERS];
    for (int i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, poster, (void *)(intptr_t)i), 0);
    for (int i = 0; i < POSTERS; i++) pthread_join(threads[i], NULL);
    await(&posts.done, POSTERS * POSTS);
    assert_int_equal(posts.wrong, 0);
    printf("# posts: %d of %d in order\n", posts.done, POSTERS * POSTS);
}

static void tick(void *ctx) { atomic_fetch_add((atomic_int *)ctx, 1); }

static void timers_and_signals_run_on_the_loop(void **state) {
    (void)state;
    atomic_int ticks = 0, signals = 0;
    toy t = {0};
    lc_err err = {0};
    t.options.request = toy_request;
    assert_ok(lc_http_open(&t.options, &t.http, &err), err);
    assert_ok(lc_http_every(t.http, 0.002, tick, &ticks, &err), err);
    assert_ok(lc_http_signal(t.http, SIGUSR1, tick, &signals, &err), err);
    assert_int_equal(lc_http_every(t.http, 0, tick, &ticks, &err), LC_EINVAL);
    assert_int_equal(pthread_create(&t.thread, NULL, toy_thread, &t), 0);
    await(&ticks, 5);
    kill(getpid(), SIGUSR1);
    await(&signals, 1);
    toy_stop(&t);
}

static void quit_before_run_is_not_lost(void **state) {
    (void)state;
    atomic_int ran = 0;
    toy t = {0};
    lc_err err = {0};
    t.options.request = toy_request;
    assert_ok(lc_http_open(&t.options, &t.http, &err), err);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(lc_http_post(t.http, tick, &ran), LC_OK);
        lc_http_quit(t.http);
        assert_ok(lc_http_run(t.http, &err), err);
        assert_int_equal(ran, i);
    }
    assert_int_equal(lc_http_post(t.http, tick, &ran), LC_OK);
    lc_http_free(t.http);
    assert_int_equal(ran, 3);
}

static void drain_now(void *ctx) { lc_http_drain(((toy *)ctx)->http); }
static void answer_held(void *ctx) {
    toy *t = ctx;
    lc_exchange_reply(t->held[0], 200, "text/plain", "late", 4);
}

static void drain_ends_idle_connections_and_finishes_others(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){0});
    client idle = client_open(&t), busy = client_open(&t), fresh = client_open(&t);
    client_puts(&idle, "GET /echo HTTP/1.1\r\n" H "\r\n");
    client_expect(&idle, "GET|/echo");
    client_forget(&idle);
    client_puts(&busy, "GET /wait HTTP/1.1\r\n" H "\r\n");
    await(&t.waiting, 1);
    while (lc_http_connections(t.http) < 3) usleep(1000);
    lc_http_post(t.http, drain_now, &t);
    assert_string_equal(client_rest(&idle), "");
    assert_int_equal(lc_http_open_exchanges(t.http), 1);
    client late = client_open(&t); /* a probe, say */
    for (int i = 0; i < 2; i++) {
        client *c = i ? &late : &fresh;
        client_puts(c, "GET /echo HTTP/1.1\r\n" H "\r\n");
        const char *told = client_rest(c);
        assert_int_equal(status_of(told), 200);
        assert_non_null(strstr(told, "Connection: close\r\n"));
        client_close(c);
    }
    lc_http_post(t.http, answer_held, &t);
    const char *reply = client_rest(&busy);
    assert_int_equal(status_of(reply), 200);
    assert_non_null(strstr(reply, "Connection: close\r\n"));
    client_close(&idle);
    client_close(&busy);
    toy_stop(&t);
}

static void freeing_a_busy_server_tells_its_handlers(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){0});
    client c = client_open(&t);
    client_puts(&c, "GET /wait HTTP/1.1\r\n" H "\r\n");
    await(&t.waiting, 1);
    toy_stop(&t);
    assert_int_equal(atomic_load(&t.closes), 1);
    client_close(&c);
}

static void hosts_can_be_named(void **state) {
    (void)state;
    static const char *const hosts[] = {"box.example"};
    toy t = {0};
    toy_start(&t, (lc_http_options){.hosts = hosts, .n_hosts = 1});
    static const char good[] =
        "GET /echo HTTP/1.1\r\nHost: Box.example:99\r\nConnection: close\r\n\r\n";
    static const char bad[] = "GET /echo HTTP/1.1\r\nHost: a.box.example\r\n\r\n";
    expect_reply(&t, good, sizeof good - 1, 200, NULL);
    expect_reply(&t, bad, sizeof bad - 1, 421, NULL);
    toy_stop(&t);
    t = (toy){0};
    toy_start(&t, (lc_http_options){.host = "0.0.0.0"}); /* any name may lead here */
    static const char any[] =
        "GET /echo HTTP/1.1\r\nHost: a.box.example\r\nConnection: close\r\n\r\n";
    expect_reply(&t, any, sizeof any - 1, 200, NULL);
    toy_stop(&t);
}

static void ipv6_is_served(void **state) {
    (void)state;
    toy t = {0};
    lc_http *probe;
    lc_err err = {0};
    if (lc_http_open(&(lc_http_options){.host = "::1"}, &probe, &err)) {
        printf("# no IPv6 here: %s\n", err.text);
        skip();
    }
    lc_http_free(probe);
    toy_start(&t, (lc_http_options){.host = "::1"});
    struct sockaddr_in6 address = {.sin6_family = AF_INET6,
                                   .sin6_port = htons((uint16_t)lc_http_port(t.http)),
                                   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    client c = {.fd = socket(AF_INET6, SOCK_STREAM, 0)};
    assert_int_equal(connect(c.fd, (struct sockaddr *)&address, sizeof address), 0);
    client_puts(&c, "GET /peer HTTP/1.1\r\n" H "\r\n");
    client_expect(&c, "\r\n\r\n[::1]:");
    client_forget(&c);
    client_puts(&c, "GET /echo HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_int_equal(status_of(client_rest(&c)), 421);
    client_close(&c);
    toy_stop(&t);
    expect_reply(&shared, "GET /peer HTTP/1.1\r\n" END, sizeof "GET /peer HTTP/1.1\r\n" END - 1,
                 200, "\r\n\r\n127.0.0.1:");
}

static void bad_options_are_refused(void **state) {
    (void)state;
    lc_http *http;
    lc_err err = {0};
    lc_http_options bad[] = {{.port = 70000},         {.tls_key = "key.pem"},
                             {.host = "300.1.2.3.4"}, {.server = "a\r\nB: c"},
                             {.limits.idle_s = -1},   {.limits.n_headers = 1 << 20}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_not_equal(lc_http_open(&bad[i], &http, &err), LC_OK);
        assert_null(http);
    }
    lc_http_options taken = {.port = lc_http_port(shared.http)};
    assert_int_equal(lc_http_open(&taken, &http, &err), LC_ENET);
}

int main(void) {
    enum { ROWS = sizeof rows / sizeof *rows };
    const struct CMUnitTest others[] = {
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(streamed_replies_are_chunked),
        cmocka_unit_test(head_gets_no_body),
        cmocka_unit_test(replies_have_date_server_and_type),
        cmocka_unit_test(http_1_0_keeps_the_connection_when_asked),
        cmocka_unit_test(expect_100_continue),
        cmocka_unit_test(head_hook_refuses_before_the_body),
        cmocka_unit_test(replies_may_end_without_a_byte),
        cmocka_unit_test(large_replies_arrive_whole),
        cmocka_unit_test(a_client_may_end_its_side_after_a_request),
        cmocka_unit_test(aborted_exchanges_cut_the_connection),
        cmocka_unit_test(reply_headers_are_checked),
        cmocka_unit_test(disconnect_is_noticed_while_a_reply_is_pending),
        cmocka_unit_test(disconnect_is_noticed_behind_unread_bytes),
        cmocka_unit_test(reading_goes_on_after_a_pause),
        cmocka_unit_test(disconnect_within_a_request_is_silent),
        cmocka_unit_test(posts_from_threads_run_in_order),
        cmocka_unit_test(timers_and_signals_run_on_the_loop),
        cmocka_unit_test(quit_before_run_is_not_lost),
        cmocka_unit_test(drain_ends_idle_connections_and_finishes_others),
        cmocka_unit_test(freeing_a_busy_server_tells_its_handlers),
        cmocka_unit_test(hosts_can_be_named),
        cmocka_unit_test(ipv6_is_served),
        cmocka_unit_test(bad_options_are_refused),
    };
    enum { OTHERS = sizeof others / sizeof *others };
    struct CMUnitTest tests[ROWS + OTHERS];
    for (size_t i = 0; i < ROWS; i++)
        tests[i] = (struct CMUnitTest){.name = rows[i].name,
                                       .test_func = framing,
                                       .initial_state = (void *)(uintptr_t)&rows[i]};
    memcpy(tests + ROWS, others, sizeof others);
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, start_shared, stop_shared);
}
