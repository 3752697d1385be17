/*
 * http_tls.c: the certificate and the TLS side of a connection. TLS 1.2 and 1.3, OpenSSL's own
 * choice of ciphers, HTTP/1.1 only (ALPN). A new certificate serves new connections; old ones keep
 * theirs, since OpenSSL counts the references.
 */
#include "server/http_internal.h"

#include "base/err.h"

#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>

static int tls_fail(SSL_CTX *context, lc_err *err, const char *what, const char *path) {
    char reason[160];
    ERR_error_string_n(ERR_peek_last_error(), reason, sizeof reason);
    ERR_clear_error();
    SSL_CTX_free(context);
    return lc_fail(err, LC_EINVAL, "%s: %s: %s", path, what, reason);
}

/* A key with a passphrase is refused instead of asking on the terminal. */
static int no_passphrase(char *out, int size, int writing, void *ctx) {
    (void)out, (void)size, (void)writing, (void)ctx;
    return 0;
}

static int choose_protocol(SSL *tls, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *ctx) {
    (void)tls, (void)ctx;
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *choice;
    if (SSL_select_next_proto(&choice, out_len, ours, sizeof ours - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = choice;
    return SSL_TLSEXT_ERR_OK;
}

int lc_http_tls_load(const char *certificate, const char *key, SSL_CTX **out, lc_err *err) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context) return lc_fail(err, LC_ENOMEM, "TLS: out of memory");
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        return tls_fail(context, err, "not a usable certificate", certificate);
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        return tls_fail(context, err, "not a usable key", key);
    if (SSL_CTX_check_private_key(context) != 1)
        return tls_fail(context, err, "does not belong to the certificate", key);
    *out = context;
    return LC_OK;
}

struct bufferevent *lc_http_tls_stream(lc_http *http, int fd, SSL **tls) {
    pthread_mutex_lock(&http->lock);
    *tls = SSL_new(http->tls);
    pthread_mutex_unlock(&http->lock);
    if (!*tls) return NULL;
    SSL_up_ref(*tls); /* one for the stream, one for the connection */
    struct bufferevent *stream =
        bufferevent_openssl_socket_new(http->base, fd, *tls, BUFFEREVENT_SSL_ACCEPTING,
                                       BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    if (!stream) {
        SSL_free(*tls);
        return NULL;
    }
    bufferevent_openssl_set_allow_dirty_shutdown(stream, 1);
    return stream;
}

void lc_http_tls_end(SSL *tls) {
    if (SSL_in_init(tls)) return;
    ERR_clear_error();
    SSL_shutdown(tls);
    ERR_clear_error();
}

int lc_http_reload(lc_http *http, lc_err *err) {
    if (!http->options.tls_certificate)
        return lc_fail(err, LC_EINVAL, "this server has no certificate to read again");
    SSL_CTX *fresh = NULL;
    int code = lc_http_tls_load(http->options.tls_certificate, http->options.tls_key, &fresh, err);
    if (code) return code;
    pthread_mutex_lock(&http->lock);
    SSL_CTX *old = http->tls;
    http->tls = fresh;
    pthread_mutex_unlock(&http->lock);
    SSL_CTX_free(old);
    return LC_OK;
}
