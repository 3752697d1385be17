/*
 * HTTP requests: any bytes must give the same requests whole and in pieces of sizes that the input
 * chooses, within the limits, and what is accepted must look like a request. The first bytes choose
 * the pieces; the rest is what a client sends, one request after the other.
 */
#include "server/http_head.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD = 4, MAX_REQUESTS = 16 };

static const lc_http_limits limits = {
    .line = 100, .header = 60, .headers = 300, .n_headers = 8, .body = 200, .bodies = 10000};

static void must(bool condition) {
    if (!condition) abort();
}

/* What one reading of the input has found: texts of all accepted requests. */
typedef struct reading {
    lc_buf accepted;
    bool refused;
    size_t end; /* of the last accepted request */
} reading;

static void note(lc_buf *out, const char *text) {
    lc_buf_puts(out, text ? text : "(null)");
    lc_buf_putc(out, '\n');
}

static void check_head(const lc_http_parser *p) {
    must(p->method && p->path && p->query && p->path[0] == '/');
    must(p->n_fields <= limits.n_headers && (p->host || p->minor == 0));
    must(!lc_http_parser_get(p, "transfer-encoding") == !p->chunked);
    must(!p->chunked || !lc_http_parser_get(p, "content-length"));
    for (size_t i = 0; i < p->n_fields; i++) {
        if (!p->fields[i].name) continue;
        must(lc_http_is_token(p->fields[i].name) && lc_http_is_field_value(p->fields[i].value));
        must(strlen(p->fields[i].value) <= limits.headers);
    }
    for (const char *c = p->path; *c; c++) must((unsigned char)*c >= ' ' && *c != 0x7f);
    if (p->host) lc_http_host_is_local(p->host, NULL, 0);
}

static void note_request(reading *r, const lc_http_parser *p) {
    must(p->body.len <= limits.body && p->body.len == p->announced);
    note(&r->accepted, p->method);
    note(&r->accepted, p->path);
    note(&r->accepted, p->query);
    note(&r->accepted, p->keep_alive ? "keep" : "close");
    for (size_t i = 0; i < p->n_fields; i++) {
        note(&r->accepted, p->fields[i].name);
        note(&r->accepted, p->fields[i].value);
    }
    lc_buf_append(&r->accepted, p->body.data, p->body.len);
}

/* Reads one request from *at on; false at the end of the input or after an error. */
static bool read_request(reading *r, const char *data, size_t len, size_t *at, const uint8_t *cuts,
                         size_t *bodies) {
    lc_http_parser p;
    lc_http_parser_init(&p, &limits, bodies);
    bool head = false, done = false;
    for (size_t i = 0; !done && (*at < len || head); i++) {
        size_t piece = len - *at, used;
        if (cuts && piece > (size_t)cuts[i % HEAD] % 31 + 1)
            piece = (size_t)cuts[i % HEAD] % 31 + 1;
        lc_parse result = lc_http_parser_feed(&p, data + *at, piece, &used);
        must(used <= piece);
        *at += used;
        if (result == LC_PARSE_HEAD) {
            must(!head);
            check_head(&p);
            head = true;
        } else if (result == LC_PARSE_DONE) {
            must(head);
            note_request(r, &p);
            r->end = *at;
            done = true;
        } else if (result == LC_PARSE_ERROR) {
            must(p.status >= 400 && p.status < 600 && p.message);
            r->refused = true;
            break;
        } else {
            must(used == piece);
            if (*at == len) break;
        }
    }
    must(p.head.len <= limits.line + limits.headers + 4);
    lc_http_parser_free(&p);
    return done;
}

static reading read_all(const char *data, size_t len, const uint8_t *cuts) {
    reading r = {0};
    size_t at = 0, bodies = 0;
    for (size_t n = 0; n < MAX_REQUESTS && at < len; n++)
        if (!read_request(&r, data, len, &at, cuts, &bodies)) break;
    must(bodies == 0 && !r.accepted.failed);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < HEAD) return 0;
    const char *text = (const char *)data + HEAD;
    reading whole = read_all(text, size - HEAD, NULL), pieces = read_all(text, size - HEAD, data);
    must(whole.refused == pieces.refused && whole.end == pieces.end);
    must(whole.accepted.len == pieces.accepted.len);
    if (whole.accepted.len)
        must(!memcmp(whole.accepted.data, pieces.accepted.data, whole.accepted.len));
    lc_buf_free(&whole.accepted);
    lc_buf_free(&pieces.accepted);
    return 0;
}
