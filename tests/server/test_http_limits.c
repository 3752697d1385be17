/*
 * test_http_limits.c: limits of the HTTP server (uses-threads): sizes, times, numbers of
 * connections, slow readers, lack of memory and of descriptors; and TLS with certificates made
 * here. Every limit is set small, met exactly where that says something, and then exceeded.
 */
#include "http_client.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define H "Host: localhost\r\n"
#define END H "Connection: close\r\n\r\n"
#define POST "POST /echo HTTP/1.1\r\n"

static void expect_text(const toy *t, const char *text, int status, const char *part) {
    expect_reply(t, text, strlen(text), status, part);
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits until the server holds this many connections. */
static void await_connections(const toy *t, size_t n) {
    for (int i = 0; i < PATIENCE_MS && lc_http_connections(t->http) != n; i++) sleep_ms(1);
    assert_int_equal(lc_http_connections(t->http), n);
}

/* ---- sizes ---- */

static void sizes_of_heads(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){
                      .limits = {.line = 40, .header = 30, .headers = 119, .n_headers = 5}});
    /* "GET /echo?... HTTP/1.1" of 40 bytes, then of 41 */
    expect_text(&t, "GET /echo?01234567890123456789 HTTP/1.1\r\n" END, 200, NULL);
    expect_text(&t, "GET /echo?0123456789012345678901 HTTP/1.1\r\n" END, 414, "(unknown)");
    /* headers of 30 and 31 bytes */
    expect_text(&t, "GET / HTTP/1.1\r\nX-Test: 0123456789012345678901\r\n" END, 200, NULL);
    expect_text(&t, "GET / HTTP/1.1\r\nX-Test: 01234567890123456789012\r\n" END, 431, NULL);
    /* all together: 119 bytes with their line ends, then 120 */
#define THREE "A: 0123456789012345678901\r\nB: 0123456789012345678901\r\nC: 0123456789012345678901"
    expect_text(&t, "GET / HTTP/1.1\r\n" THREE "\r\n" END, 200, NULL);
    expect_text(&t, "GET / HTTP/1.1\r\n" THREE "2\r\n" END, 431, "too long");
    expect_text(&t, "GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\n" END, 200, NULL);
    expect_text(&t, "GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\nd:\r\n" END, 431, "too many");
    /* trailers count as well */
    expect_text(
        &t, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END "0\r\na:\r\nb:\r\nc:\r\n\r\n",
        431, "too many");
    toy_stop(&t);
}

/* The rows of serving.md 6.2: 300 kB in one header, 20,000 headers, at the default limits. */
static void huge_heads(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){0});
    lc_buf text = {0};
    lc_buf_puts(&text, "GET / HTTP/1.1\r\n" H "X-Test: ");
    for (int i = 0; i < 300000; i++) lc_buf_putc(&text, 'x');
    expect_reply(&t, text.data, text.len, 431, NULL);
    lc_buf_clear(&text);
    lc_buf_puts(&text, "GET / HTTP/1.1\r\n" H);
    for (int i = 0; i < 20000; i++) lc_buf_printf(&text, "X-%d: a\r\n", i);
    expect_reply(&t, text.data, text.len, 431, NULL);
    lc_buf_clear(&text);
    for (int i = 0; i < 300000; i++) lc_buf_putc(&text, 'G');
    expect_reply(&t, text.data, text.len, 414, NULL);
    lc_buf_free(&text);
    toy_stop(&t);
}

static void sizes_of_bodies(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits = {.body = 10, .header = 40}});
    expect_text(&t, POST "Content-Length: 10\r\n" END "0123456789", 200, "|0123456789");
    expect_text(&t, POST "Content-Length: 11\r\n" END, 413, "/echo"); /* before it is there */
    expect_text(&t, POST "Content-Length: 11\r\nExpect: 100-continue\r\n" END, 413, NULL);
#define CHUNKED POST "Transfer-Encoding: chunked\r\n" END
    expect_text(&t, CHUNKED "5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n", 200, "|0123456789");
    expect_text(&t, CHUNKED "5\r\n01234\r\n6\r\n", 413, "/echo");
    expect_text(&t, CHUNKED "ffffffffffffffff\r\n", 413, NULL);
    expect_text(&t, CHUNKED "1;01234567890123456789012345678901234567890", 400, "extensions");
    toy_stop(&t);
}

/* A client that sends on regardless must still be able to read the refusal. */
static void refusals_reach_clients_that_send_on(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits.body = 1000});
    for (int i = 0; i < 10; i++) {
        client c = client_open(&t);
        char *body = calloc(1, 2 << 20);
        client_puts(&c, POST "Content-Length: 2097152\r\n" H "\r\n");
        client_send(&c, body, 2 << 20);
        assert_int_equal(status_of(client_rest(&c)), 413);
        assert_false(c.reset);
        client_close(&c);
        free(body);
    }
    toy_stop(&t);
}

static void bodies_together(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits.bodies = 150});
    char text[512];
    snprintf(text, sizeof text, POST "Content-Length: 100\r\n" END "%0100d", 7);
    client half = client_open(&t);
    client_send(&half, text, strlen(text) - 1);
    sleep_ms(50);
    expect_text(&t, text, 503, "Retry-After");
    client_puts(&half, "7");
    assert_int_equal(status_of(client_rest(&half)), 200);
    client_close(&half);
    expect_text(&t, text, 200, NULL);
    toy_stop(&t);
}

static void memory_grows_with_what_arrives(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){0});
    size_t before = lc_mem_current();
    client c[8];
    for (size_t i = 0; i < 8; i++) {
        c[i] = client_open(&t);
        client_puts(&c[i], POST "Content-Length: 30000000\r\n" H "\r\nabc");
    }
    await(&t.heads, 8);
    sleep_ms(20);
    assert_true(lc_mem_current() - before < 8 * 8192);
    for (size_t i = 0; i < 8; i++) client_close(&c[i]);
    toy_stop(&t);
}

/* ---- times ---- */

static void expect_timeout(const toy *t, const char *text, int status) {
    client c = client_open(t);
    int64_t start = now_ms();
    client_puts(&c, text);
    const char *reply = client_rest(&c);
    assert_int_equal(status_of(reply), status);
    if (status) assert_non_null(strstr(reply, "Connection: close\r\n"));
    assert_in_range(now_ms() - start, 90, 5000);
    client_close(&c);
}

static void slow_requests(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits = {.header_s = 0.1, .body_idle_s = 0.1}});
    expect_timeout(&t, "", 0);
    expect_timeout(&t, "\r\n", 0);
    expect_timeout(&t, "G", 408);
    expect_timeout(&t, "GET / HTTP/1.1\r\nX-Test: a\r\n", 408);
    expect_timeout(&t, POST "Content-Length: 3\r\n" H "\r\n", 408);
    expect_timeout(&t, POST "Content-Length: 3\r\n" H "\r\nab", 408);
    expect_timeout(&t, POST "Transfer-Encoding: chunked\r\n" H "\r\n3\r\na", 408);
    assert_int_equal(atomic_load(&t.closes), 0);
    expect_timeout(&t, "POST /watched HTTP/1.1\r\nContent-Length: 3\r\n" H "\r\nab", 408);
    assert_int_equal(atomic_load(&t.closes), 1); /* head knew of it */
    toy_stop(&t);
}

static void trickling_requests(void **state) {
    (void)state;
    static const char *const heads[] = {"GET / HTTP/1.1\r\nX-Test: ",
                                        POST "Content-Length: 1000\r\n" H "\r\n"};
    toy t = {0};
    toy_start(&t,
              (lc_http_options){.limits = {.header_s = 0.15, .body_idle_s = 0.1, .body_s = 0.15}});
    for (size_t i = 0; i < 2; i++) {
        client c = client_open(&t);
        client_puts(&c, heads[i]);
        int n = 0;
        while (client_receive(&c, 10) < 0 && n++ < 500) client_puts(&c, "a");
        assert_int_equal(status_of(client_rest(&c)), 408);
        assert_in_range(n, 2, 100);
        client_close(&c);
    }
    toy_stop(&t);
}

static void idle_connections(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits = {.idle_s = 0.1, .per_connection = 2}});
    client c = client_open(&t);
    client_puts(&c, "GET /echo HTTP/1.1\r\n" H "\r\n");
    client_expect(&c, "GET|/echo");
    assert_null(strstr(c.data, "Connection: close"));
    client_forget(&c);
    assert_string_equal(client_rest(&c), "");
    client_close(&c);
    c = client_open(&t);
    for (int i = 0; i < 3; i++) client_puts(&c, "GET /echo HTTP/1.1\r\n" H "\r\n");
    const char *all = client_rest(&c);
    assert_int_equal(replies_in(all), 2);
    assert_non_null(strstr(strstr(all, "GET|/echo"), "Connection: close"));
    client_close(&c);
    toy_stop(&t);
}

static void answer_held(void *ctx) {
    toy *t = ctx;
    lc_exchange_reply(t->held[0], 200, "text/plain", "late", 4);
}

/* No limit of the request's times holds while the handler thinks. */
static void handlers_may_take_their_time(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits = {.header_s = 0.05,
                                               .body_idle_s = 0.05,
                                               .body_s = 0.05,
                                               .idle_s = 0.05,
                                               .outbound_s = 0.05}});
    client c = client_open(&t);
    client_puts(&c, "GET /wait HTTP/1.1\r\n" END);
    await(&t.waiting, 1);
    sleep_ms(200);
    lc_http_post(t.http, answer_held, &t);
    assert_non_null(strstr(client_rest(&c), "late"));
    client_close(&c);
    toy_stop(&t);
}

/* ---- numbers ---- */

static void too_many(const lc_http_options *options) {
    toy t = {0};
    toy_start(&t, *options);
    client a = client_open(&t), b = client_open(&t);
    await_connections(&t, 2);
    expect_text(&t, "GET / HTTP/1.1\r\n" END, 503, "Retry-After: 1\r\n");
    client_close(&a);
    await_connections(&t, 1);
    expect_text(&t, "GET / HTTP/1.1\r\n" END, 200, NULL);
    client_close(&b);
    await_connections(&t, 0);
    toy_stop(&t);
}

static void number_of_connections(void **state) {
    (void)state;
    too_many(&(lc_http_options){.limits.connections = 2});
    too_many(&(lc_http_options){.limits.per_peer = 2});
}

/* Far more than may be refused politely at a time: all are closed, none hangs. */
static void crowds_are_turned_away(void **state) {
    (void)state;
    enum { CROWD = 200 };
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits.connections = 1});
    client first = client_open(&t), crowd[CROWD];
    await_connections(&t, 1);
    for (size_t i = 0; i < CROWD; i++) crowd[i] = client_open(&t);
    size_t told = 0;
    for (size_t i = 0; i < CROWD; i++) {
        told += status_of(client_rest(&crowd[i])) == 503;
        client_close(&crowd[i]);
    }
    assert_in_range(told, 64, CROWD);
    client_close(&first);
    await_connections(&t, 0);
    toy_stop(&t);
}

static void no_descriptors_left(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){0});
    expect_text(&t, "GET / HTTP/1.1\r\n" END, 200, NULL);
    await_connections(&t, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)lc_http_port(t.http)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    client c[3];
    for (size_t i = 0; i < 3; i++) c[i] = (client){.fd = socket(AF_INET, SOCK_STREAM, 0)};
    struct rlimit old, none;
    getrlimit(RLIMIT_NOFILE, &old);
    int next = dup(0);
    close(next);
    none = (struct rlimit){.rlim_cur = (rlim_t)next, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(connect(c[i].fd, (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(status_of(client_rest(&c[i])), 503);
    }
    setrlimit(RLIMIT_NOFILE, &old);
    for (size_t i = 0; i < 3; i++) client_close(&c[i]);
    expect_text(&t, "GET / HTTP/1.1\r\n" END, 200, NULL);
    toy_stop(&t);
}

/* ---- slow readers ---- */

static void streams_beyond_the_outbound_limit(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits.outbound = 200000});
    client c = client_open_sized(&t, 4096);
    client_puts(&c, "GET /flood HTTP/1.1\r\n" H "\r\n");
    await(&t.given_up, 1);
    await(&t.closes, 1);
    await_connections(&t, 0);
    assert_in_range(atomic_load(&t.written), 200000 / 16384, 500); /* and the kernel's buffers */
    client_close(&c);
    toy_stop(&t);
}

static void writes_beyond_the_outbound_limit_reach_readers(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits = {.outbound = 100000, .outbound_s = 0.1}});
    client c = client_open(&t);
    client_puts(&c, "GET /burst HTTP/1.1\r\n" END);
    assert_int_equal(status_of(client_rest(&c)), 200);
    assert_true(c.len > 8 << 20);
    assert_memory_equal(c.data + c.len - 7, "\r\n0\r\n\r\n", 7);
    client_close(&c);
    client slow = client_open_sized(&t, 4096); /* it never reads */
    client_puts(&slow, "GET /burst HTTP/1.1\r\n" H "\r\n");
    await(&t.requests, 2);
    await_connections(&t, 0);
    client_close(&slow);
    toy_stop(&t);
}

static void streams_without_progress(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits = {.outbound = 1 << 30, .outbound_s = 0.1}});
    client c = client_open_sized(&t, 4096);
    client_puts(&c, "GET /flood HTTP/1.1\r\n" H "\r\n");
    await(&t.closes, 1);
    await_connections(&t, 0);
    assert_int_equal(atomic_load(&t.given_up), 0);
    client_close(&c);
    toy_stop(&t);
}

static void whole_replies_without_progress(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits = {.outbound = 1000, .outbound_s = 0.1}});
    client c = client_open_sized(&t, 4096);
    client_puts(&c, "GET /large HTTP/1.1\r\n" H "\r\n");
    await(&t.requests, 1);
    await_connections(&t, 0);
    while (client_receive(&c, PATIENCE_MS) > 0) continue;
    assert_true(c.len < 4 << 20);
    client_close(&c);
    toy_stop(&t);
}

static void slow_but_steady_readers_are_served(void **state) {
    (void)state;
    toy t = {0};
    toy_start(&t, (lc_http_options){.limits = {.outbound = 1000, .outbound_s = 0.5}});
    client c = client_open_sized(&t, 32768);
    client_puts(&c, "GET /large HTTP/1.1\r\n" END);
    int64_t start = now_ms();
    while (client_receive(&c, PATIENCE_MS) > 0)
        if (now_ms() - start < 1000) sleep_ms(20);
    assert_true(c.len > 4 << 20);
    client_close(&c);
    toy_stop(&t);
}

/* ---- lack of memory ---- */

static void every_failing_allocation_is_survived(void **state) {
    (void)state;
    static const char text[] =
        POST "X-Test: a\r\nX-Test: b\r\nTransfer-Encoding: chunked\r\n" END "2\r\nhi\r\n0\r\n\r\n";
    toy t = {0};
    toy_start(&t, (lc_http_options){0});
    int answered = 0, n = 0;
    for (; n < 60 && answered < 3; n++) {
        client c = client_open(&t);
        lc_mem_fail_after(n);
        client_puts(&c, text);
        int status = status_of(client_rest(&c));
        lc_mem_fail_after(-1);
        client_close(&c);
        await_connections(&t, 0);
        assert_true(status == 200 || status == 503 || status == 0);
        answered = status == 200 ? answered + 1 : 0;
    }
    printf("# %d places where a request's memory can fail\n", n - answered);
    assert_in_range(n - answered, 6, 50);
    assert_int_equal(answered, 3);
    toy_stop(&t);
    lc_http *http;
    lc_err err = {0};
    lc_http_options options = {.server = "toy", .host = "127.0.0.1", .n_hosts = 0};
    for (n = 0;; n++) {
        lc_mem_fail_after(n);
        int code = lc_http_open(&options, &http, &err);
        lc_mem_fail_after(-1);
        if (!code) break;
        assert_int_equal(code, LC_ENOMEM);
    }
    lc_http_free(http);
    assert_in_range(n, 3, 20);
}

/* ---- TLS ---- */

static char folder[] = "/tmp/longcat-http-XXXXXX";
static char cert_path[64], key_path[64];

static void write_pem(const char *path, X509 *cert, EVP_PKEY *key) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(cert ? PEM_write_X509(file, cert)
                          : PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL),
                     1);
    fclose(file);
}

/* A self-signed certificate for localhost. */
static void make_certificate(long serial, bool write_key) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    assert_non_null(key);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_set_version(cert, X509_VERSION_3);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    X509_set_pubkey(cert, key);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    write_pem(cert_path, cert, NULL);
    if (write_key) write_pem(key_path, NULL, key);
    X509_free(cert);
    EVP_PKEY_free(key);
}

typedef struct tls_client {
    client plain;
    SSL_CTX *context;
    SSL *ssl;
} tls_client;

static tls_client tls_connect(const toy *t, int max_version) {
    tls_client c = {.plain = client_open(t), .context = SSL_CTX_new(TLS_client_method())};
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    setsockopt(c.plain.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (max_version) SSL_CTX_set_max_proto_version(c.context, max_version);
    c.ssl = SSL_new(c.context);
    SSL_set_fd(c.ssl, c.plain.fd);
    static const unsigned char protocols[] = "\x02h2\x08http/1.1";
    SSL_set_alpn_protos(c.ssl, protocols, sizeof protocols - 1);
    return c;
}

static long tls_serial(const tls_client *c) {
    X509 *cert = SSL_get1_peer_certificate(c->ssl);
    long serial = ASN1_INTEGER_get(X509_get_serialNumber(cert));
    X509_free(cert);
    return serial;
}

static void tls_close(tls_client *c) {
    SSL_free(c->ssl);
    SSL_CTX_free(c->context);
    client_close(&c->plain);
}

/* Sends a request, reads until `text` has come; returns all bytes. */
static size_t tls_talk(tls_client *c, const char *request, const char *text) {
    static char data[1 << 16];
    size_t len = 0, total = 0;
    assert_true(SSL_write(c->ssl, request, (int)strlen(request)) > 0);
    for (;;) {
        if (len > sizeof data / 2) len = 0;
        int n = SSL_read(c->ssl, data + len, (int)(sizeof data - len - 1));
        if (n <= 0) break;
        len += (size_t)n;
        total += (size_t)n;
        data[len] = 0;
        if (text && strstr(data, text)) return total;
    }
    if (text) fail_msg("\"%s\" did not come, but: %s", text, data);
    assert_int_equal(SSL_get_error(c->ssl, 0), SSL_ERROR_ZERO_RETURN); /* a proper end */
    return total;
}

static lc_http_options tls_options(void) {
    return (lc_http_options){.tls_certificate = cert_path, .tls_key = key_path};
}

static int make_folder(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(cert_path, sizeof cert_path, "%s/cert.pem", folder);
    snprintf(key_path, sizeof key_path, "%s/key.pem", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(cert_path);
    unlink(key_path);
    rmdir(folder);
    printf("# %zu bytes of memory left\n", lc_mem_current());
    return lc_mem_current() != 0;
}

static void tls_round_trip(void **state) {
    (void)state;
    make_certificate(1, true);
    toy t = {0};
    toy_start(&t, tls_options());
    static const int versions[] = {TLS1_2_VERSION, 0};
    for (size_t i = 0; i < 2; i++) {
        tls_client c = tls_connect(&t, versions[i]);
        assert_int_equal(SSL_connect(c.ssl), 1);
        const unsigned char *protocol;
        unsigned len;
        SSL_get0_alpn_selected(c.ssl, &protocol, &len);
        assert_int_equal(len, 8);
        assert_memory_equal(protocol, "http/1.1", 8);
        tls_talk(&c, POST "Content-Length: 2\r\n" H "\r\nhi", "POST|/echo||(none)|hi");
        tls_talk(&c, "GET /stream HTTP/1.1\r\n" H "\r\n", "0\r\n\r\n");
        assert_true(tls_talk(&c, "GET /large HTTP/1.1\r\n" END, NULL) > 4 << 20);
        tls_close(&c);
    }
    tls_client old = tls_connect(&t, TLS1_1_VERSION);
    assert_int_not_equal(SSL_connect(old.ssl), 1);
    tls_close(&old);
    tls_client gone = tls_connect(&t, 0);
    assert_int_equal(SSL_connect(gone.ssl), 1);
    assert_true(SSL_write(gone.ssl, "GET /wait HTTP/1.1\r\n" H "\r\n", 39) > 0);
    await(&t.waiting, 1);
    tls_close(&gone);
    await(&t.closes, 1);
    toy_stop(&t);
}

static void plain_text_and_slow_handshakes_on_a_tls_port(void **state) {
    (void)state;
    make_certificate(1, true);
    lc_http_options options = tls_options();
    options.limits.header_s = 0.1;
    toy t = {0};
    toy_start(&t, options);
    client c = client_open(&t);
    client_puts(&c, "GET / HTTP/1.1\r\n" END);
    assert_int_equal(status_of(client_rest(&c)), 0);
    client_close(&c);
    expect_timeout(&t, "", 0);
    expect_timeout(&t, "\x16\x03\x01", 0);
    tls_client slow = tls_connect(&t, 0); /* a handshake, then nothing */
    int64_t start = now_ms();
    assert_int_equal(SSL_connect(slow.ssl), 1);
    char byte;
    assert_true(SSL_read(slow.ssl, &byte, 1) <= 0);
    assert_in_range(now_ms() - start, 90, 5000);
    tls_close(&slow);
    await_connections(&t, 0);
    toy_stop(&t);
}

static void certificates_are_read_again(void **state) {
    (void)state;
    lc_err err = {0};
    make_certificate(1, true);
    toy t = {0};
    toy_start(&t, tls_options());
    tls_client first = tls_connect(&t, 0);
    assert_int_equal(SSL_connect(first.ssl), 1);
    assert_int_equal(tls_serial(&first), 1);
    make_certificate(2, false); /* not for the key on disk */
    assert_int_equal(lc_http_reload(t.http, &err), LC_EINVAL);
    assert_non_null(strstr(err.text, "key.pem"));
    unlink(cert_path);
    assert_int_equal(lc_http_reload(t.http, &err), LC_EINVAL);
    assert_non_null(strstr(err.text, "cert.pem"));
    tls_client second = tls_connect(&t, 0);
    assert_int_equal(SSL_connect(second.ssl), 1);
    assert_int_equal(tls_serial(&second), 1);
    make_certificate(3, true);
    assert_ok(lc_http_reload(t.http, &err), err);
    tls_client third = tls_connect(&t, 0);
    assert_int_equal(SSL_connect(third.ssl), 1);
    assert_int_equal(tls_serial(&third), 3);
    tls_talk(&first, "GET /echo HTTP/1.1\r\n" H "\r\n", "GET|/echo");
    tls_talk(&third, "GET /echo HTTP/1.1\r\n" H "\r\n", "GET|/echo");
    tls_close(&first);
    tls_close(&second);
    tls_close(&third);
    toy_stop(&t);
    t = (toy){0};
    toy_start(&t, (lc_http_options){0});
    assert_int_equal(lc_http_reload(t.http, &err), LC_EINVAL); /* nothing to read */
    toy_stop(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_of_heads),
        cmocka_unit_test(huge_heads),
        cmocka_unit_test(sizes_of_bodies),
        cmocka_unit_test(refusals_reach_clients_that_send_on),
        cmocka_unit_test(bodies_together),
        cmocka_unit_test(memory_grows_with_what_arrives),
        cmocka_unit_test(slow_requests),
        cmocka_unit_test(trickling_requests),
        cmocka_unit_test(idle_connections),
        cmocka_unit_test(handlers_may_take_their_time),
        cmocka_unit_test(number_of_connections),
        cmocka_unit_test(crowds_are_turned_away),
        cmocka_unit_test(no_descriptors_left),
        cmocka_unit_test(streams_beyond_the_outbound_limit),
        cmocka_unit_test(writes_beyond_the_outbound_limit_reach_readers),
        cmocka_unit_test(streams_without_progress),
        cmocka_unit_test(whole_replies_without_progress),
        cmocka_unit_test(slow_but_steady_readers_are_served),
        cmocka_unit_test(every_failing_allocation_is_survived),
        cmocka_unit_test(tls_round_trip),
        cmocka_unit_test(plain_text_and_slow_handshakes_on_a_tls_port),
        cmocka_unit_test(certificates_are_read_again),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
