/*
 * hub_net.c: one HTTP request with libcurl. Redirects are followed here, hop by hop, so that the
 * rules don't depend on libcurl's version: http and https only, never from https down to http, and
 * the bearer token goes to the endpoint's own scheme, host and port and nowhere else (the hub's
 * files come from a CDN on another host).
 */
#include "format/hub_internal.h"

#include "base/err.h"
#include "base/rng.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    MAX_REDIRECTS = 10,
    MAX_URL = 16384,
    CONNECT_SECONDS = 30,
    LOW_SPEED = 32,     /* bytes a second: less is a dead line */
    ERROR_BODY = 65536, /* of an answer that nobody reads */
    MAX_BACKOFF_MS = 60000,
    MAX_RETRY_AFTER = 600, /* seconds */
    BUFFER_SIZE = 256 * 1024,
};

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- URLs ---- */

/* One part of a URL, or NULL; freed with curl_free. */
static char *url_part(CURLU *url, CURLUPart part) {
    char *text = NULL;
    if (curl_url_get(url, part, &text, part == CURLUPART_PORT ? CURLU_DEFAULT_PORT : 0) != 0)
        return NULL;
    return text;
}

static CURLU *url_parse(const char *text) {
    CURLU *url = curl_url();
    if (url && curl_url_set(url, CURLUPART_URL, text, 0) == 0) return url;
    curl_url_cleanup(url);
    return NULL;
}

static bool same_part(CURLU *a, CURLU *b, CURLUPart part) {
    char *x = url_part(a, part), *y = url_part(b, part);
    bool same = x && y && !strcasecmp(x, y);
    curl_free(x);
    curl_free(y);
    return same;
}

bool hub_same_origin(const char *a, const char *b) {
    CURLU *x = url_parse(a), *y = url_parse(b);
    bool same = x && y && same_part(x, y, CURLUPART_SCHEME) && same_part(x, y, CURLUPART_HOST) &&
                same_part(x, y, CURLUPART_PORT);
    curl_url_cleanup(x);
    curl_url_cleanup(y);
    return same;
}

static bool has_scheme(const char *url, const char *scheme) {
    size_t n = strlen(scheme);
    return !strncasecmp(url, scheme, n) && !strncmp(url + n, "://", 3);
}

bool hub_may_follow(const char *from, const char *to) {
    if (strlen(to) > MAX_URL) return false;
    if (has_scheme(to, "https")) return true;
    return has_scheme(to, "http") && has_scheme(from, "http");
}

void hub_printable(char *out, size_t size, const char *text, size_t len) {
    size_t n = len < size - 1 ? len : size - 1;
    for (size_t i = 0; i < n; i++) out[i] = text[i] >= ' ' && text[i] < 127 ? text[i] : '?';
    out[n] = 0;
}

/* ---- headers ---- */

typedef struct exchange {
    hub_client *client;
    const hub_request *request;
    hub_response *response;
    bool begun;
    size_t ignored; /* bytes of a body that nobody reads */
    uint64_t heard; /* when the last byte came, ms */
    curl_off_t received;
    bool stalled;
    int status; /* what a callback of the request returned */
    lc_err *err;
} exchange;

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* A decimal number at *text, which moves behind it. */
static bool read_number(const char **text, uint64_t *out) {
    uint64_t value = 0;
    if (!isdigit((unsigned char)**text)) return false;
    for (; isdigit((unsigned char)**text); (*text)++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(**text - '0'), &value))
            return false;
    *out = value;
    return true;
}

/* "bytes 5-9/10" or "bytes 5-9/" and a star. */
static void read_range(hub_response *r, const char *text) {
    uint64_t total;
    if (strncasecmp(text, "bytes ", 6) != 0) return;
    text += 6;
    if (!read_number(&text, &r->range_start) || *text++ != '-' ||
        !read_number(&text, &r->range_end) || *text++ != '/' || r->range_end < r->range_start)
        return;
    r->range_total = -1;
    if (*text != '*') {
        if (!read_number(&text, &total) || total > INT64_MAX) return;
        r->range_total = (int64_t)total;
    }
    r->has_range = true;
}

/* <URL>; rel="next", <URL>; rel="prev" */
static void read_link(hub_response *r, const char *text) {
    for (const char *open; (open = strchr(text, '<'));) {
        const char *close = strchr(open, '>');
        if (!close) return;
        const char *following = strchr(close, '<');
        const char *rel = strcasestr(close, "rel=\"next\"");
        if (!rel) rel = strcasestr(close, "rel=next");
        size_t len = (size_t)(close - open) - 1;
        if (rel && (!following || rel < following) && len < sizeof r->next) {
            memcpy(r->next, open + 1, len);
            r->next[len] = 0;
            return;
        }
        text = close;
    }
}

static size_t on_header(char *data, size_t size, size_t count, void *ctx) {
    exchange *x = ctx;
    hub_response *r = x->response;
    char line[2048];
    size_t len = size * count, n = len < sizeof line - 1 ? len : sizeof line - 1;
    memcpy(line, data, n);
    while (n && is_space(line[n - 1])) n--;
    line[n] = 0;
    if (!strncmp(line, "HTTP/",
                 5)) { /* a new answer: what an earlier one (100, 103) said is void */
        *r = (hub_response){.length = -1, .range_total = -1};
        return len;
    }
    char *value = strchr(line, ':');
    if (!value) return len;
    *value++ = 0;
    while (is_space(*value)) value++;
    if (!strcasecmp(line, "content-range")) read_range(r, value);
    if (!strcasecmp(line, "link")) read_link(r, value);
    if (!strcasecmp(line, "x-error-message"))
        hub_printable(r->message, sizeof r->message, value, strlen(value));
    return len;
}

/* ---- the body ---- */

static bool is_body(const hub_response *r) { return r->status == 200 || r->status == 206; }

/* Reads what curl knows of the answer and calls `begin`. */
static int begin_body(exchange *x) {
    hub_response *r = x->response;
    curl_off_t length = -1, retry_after = 0;
    CURL *curl = x->client->curl;
    x->begun = true;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &r->status);
    curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry_after);
    r->length = length;
    r->retry_after = retry_after > 0 ? (uint64_t)retry_after : 0;
    if (!is_body(r)) return LC_OK;
    return x->request->begin(x->request->ctx, r, x->err);
}

static size_t on_data(char *data, size_t size, size_t count, void *ctx) {
    exchange *x = ctx;
    size_t len = size * count;
    if (!x->begun) x->status = begin_body(x);
    if (x->status == LC_OK && is_body(x->response))
        x->status = x->request->data(x->request->ctx, data, len, x->err);
    else if (x->status == LC_OK && (x->ignored += len) > ERROR_BODY)
        return 0;
    return x->status == LC_OK ? len : 0;
}

/* Called about once a second even if nothing comes. libcurl's own low-speed limit looks at an
 * average over some seconds; this notices silence. */
static int on_progress(void *ctx, curl_off_t total, curl_off_t received, curl_off_t a,
                       curl_off_t b) {
    exchange *x = ctx;
    uint64_t now = now_ms();
    (void)total, (void)a, (void)b;
    if (received != x->received) {
        x->received = received;
        x->heard = now;
    }
    x->stalled = now - x->heard >= (uint64_t)x->client->net->stall_seconds * 1000;
    return x->client->alive(x->client->ctx) && !x->stalled ? 0 : 1;
}

/* ---- one hop ---- */

static void set_options(exchange *x, const char *url, bool with_token) {
    hub_client *c = x->client;
    CURL *curl = c->curl;
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, with_token ? c->token_headers : c->plain_headers);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "longcat/" LC_VERSION);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, (long)BUFFER_SIZE);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, x->request->max_seconds);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, (long)LOW_SPEED);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)c->net->stall_seconds);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, x);
    if (x->request->last) {
        char range[64];
        snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)x->request->first,
                 (unsigned long long)x->request->last);
        curl_easy_setopt(curl, CURLOPT_RANGE, range);
    }
}

/* libcurl's verdict on a transfer as ours. */
static int curl_error(exchange *x, CURLcode code, const char *url) {
    char host[200] = "?";
    CURLU *parsed = url_parse(url);
    char *name = parsed ? url_part(parsed, CURLUPART_HOST) : NULL;
    if (name) hub_printable(host, sizeof host, name, strlen(name));
    curl_free(name);
    curl_url_cleanup(parsed);
    switch (code) {
    case CURLE_ABORTED_BY_CALLBACK:
        if (x->stalled) break;
        return lc_fail(x->err, LC_ECANCELED, "stopped");
    case CURLE_OUT_OF_MEMORY: return lc_fail(x->err, LC_ENOMEM, "out of memory");
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT: return lc_fail(x->err, LC_EINVAL, "not a usable URL: %s", host);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return lc_fail(x->err, LC_EINVAL, "%s: %s", host, curl_easy_strerror(code));
    case CURLE_OPERATION_TIMEDOUT: break;
    default: return lc_fail(x->err, LC_ENET, "%s: %s", host, curl_easy_strerror(code));
    }
    return lc_fail(x->err, LC_ENET, "%s: no data for too long (limit %d s)", host,
                   x->client->net->stall_seconds);
}

static int one_hop(exchange *x, const char *url, char **redirect) {
    hub_client *c = x->client;
    char *target = NULL;
    bool home = hub_same_origin(url, c->net->endpoint);
    *x->response = (hub_response){.length = -1, .range_total = -1};
    x->begun = false;
    x->ignored = 0;
    x->status = LC_OK;
    x->heard = now_ms();
    x->received = 0;
    x->stalled = false;
    set_options(x, url, home && c->net->token);
    CURLcode code = curl_easy_perform(c->curl);
    if (x->status != LC_OK) return x->status;
    bool ignored = code == CURLE_WRITE_ERROR && x->ignored > ERROR_BODY;
    if (code != CURLE_OK && !ignored) return curl_error(x, code, url);
    if (!x->begun) x->status = begin_body(x);
    x->response->elsewhere = !home;
    *redirect = NULL;
    long status = x->response->status;
    if (x->status != LC_OK || status < 300 || status > 399 || status == 304) return x->status;
    curl_easy_getinfo(c->curl, CURLINFO_REDIRECT_URL, &target);
    if (!target)
        return lc_fail(x->err, LC_EFORMAT, "a redirect (HTTP %ld) without a target", status);
    if (!hub_may_follow(url, target)) {
        char shown[100];
        hub_printable(shown, sizeof shown, target, strlen(target));
        return lc_fail(x->err, LC_EFORMAT, "refused a redirect (HTTP %ld) to %s", status, shown);
    }
    *redirect = lc_strdup(target);
    return *redirect ? LC_OK : lc_fail(x->err, LC_ENOMEM, "out of memory");
}

int hub_get(hub_client *c, const hub_request *request, hub_response *response, lc_err *err) {
    exchange x = {.client = c, .request = request, .response = response, .err = err};
    char *url = lc_strdup(request->url), *redirect = NULL;
    int status = LC_OK;
    if (!url) return lc_fail(err, LC_ENOMEM, "out of memory");
    for (int hop = 0; status == LC_OK; hop++) {
        status = one_hop(&x, url, &redirect);
        if (status != LC_OK || !redirect) break;
        lc_free(url);
        url = redirect;
        redirect = NULL;
        if (hop == MAX_REDIRECTS)
            status = lc_fail(err, LC_EFORMAT, "more than %d redirects", MAX_REDIRECTS);
    }
    lc_free(url);
    return status;
}

/* ---- clients, waiting, verdicts ---- */

int hub_client_new(hub_client *c, const hub_net *net, lc_err *err) {
    static const char *const headers[] = {"Accept-Encoding: identity", "Accept: */*"};
    lc_buf bearer = {0};
    bool ok = true;
    *c = (hub_client){.net = net, .alive = c->alive, .ctx = c->ctx, .curl = curl_easy_init()};
    if (net->token) lc_buf_printf(&bearer, "Authorization: Bearer %s", net->token);
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        struct curl_slist *plain = curl_slist_append(c->plain_headers, headers[i]);
        struct curl_slist *token = curl_slist_append(c->token_headers, headers[i]);
        ok = ok && plain && token;
        if (plain) c->plain_headers = plain;
        if (token) c->token_headers = token;
    }
    if (net->token) {
        struct curl_slist *token =
            bearer.failed ? NULL : curl_slist_append(c->token_headers, bearer.data);
        ok = ok && token;
        if (token) c->token_headers = token;
    }
    lc_buf_free(&bearer);
    if (ok && c->curl) return LC_OK;
    hub_client_free(c);
    return lc_fail(err, LC_ENOMEM, "out of memory");
}

void hub_client_free(hub_client *c) {
    curl_easy_cleanup(c->curl);
    curl_slist_free_all(c->plain_headers);
    curl_slist_free_all(c->token_headers);
    c->curl = NULL;
    c->plain_headers = c->token_headers = NULL;
}

bool hub_is_temporary(const hub_response *r) {
    /* A CDN's 403 is an expired signed URL: the next attempt gets a new one from the hub. */
    return r->status == 408 || r->status == 425 || r->status == 429 || r->status >= 500 ||
           (r->elsewhere && (r->status == 403 || r->status == 400));
}

int hub_status_error(const hub_response *r, const char *what, lc_err *err) {
    const char *sep = r->message[0] ? ": " : "";
    switch (r->status) {
    case 401:
        return lc_fail(err, LC_ENET, "%s: needs a token, or does not exist (HTTP 401%s%s)", what,
                       sep, r->message);
    case 403:
        return lc_fail(err, LC_ENET, "%s: access refused (HTTP 403%s%s)", what, sep, r->message);
    case 404:
        return lc_fail(err, LC_ENOTFOUND, "%s: not found (HTTP 404%s%s)", what, sep, r->message);
    default: return lc_fail(err, LC_ENET, "%s: HTTP %ld%s%s", what, r->status, sep, r->message);
    }
}

uint64_t hub_backoff(const hub_net *net, int n, uint64_t retry_after, uint64_t salt) {
    uint64_t wait = (uint64_t)net->backoff_ms << (n < 16 ? n - 1 : 15);
    if (wait > MAX_BACKOFF_MS) wait = MAX_BACKOFF_MS;
    /* Spread over the upper half, so that parallel files don't come back at the same moment. */
    wait -= (uint64_t)((double)wait * 0.5 * lc_rng_uniform(salt, 0, (uint64_t)n));
    if (retry_after > MAX_RETRY_AFTER) retry_after = MAX_RETRY_AFTER;
    return retry_after * 1000 > wait ? retry_after * 1000 : wait;
}

bool hub_sleep(hub_client *c, uint64_t milliseconds) {
    for (uint64_t end = now_ms() + milliseconds, now; (now = now_ms()) < end;) {
        uint64_t slice = end - now < 50 ? end - now : 50;
        struct timespec wait = {0, (long)slice * 1000000};
        if (!c->alive(c->ctx)) return false;
        nanosleep(&wait, NULL);
    }
    return c->alive(c->ctx);
}
