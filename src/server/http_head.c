/* http_head.c: request line and headers of one request; see http_head.h. */
#include "server/http_head.h"

#include "base/utf8.h"

#include <string.h>
#include <strings.h>

typedef struct head_reader {
    lc_http_parser *p;
    const char **message;
    size_t hosts, lengths, codings; /* how often the header was there */
    bool close, keep_alive;         /* tokens of Connection */
} head_reader;

static int refuse(head_reader *r, int status, const char *message) {
    *r->message = message;
    return status;
}

/* ---- request line ---- */

static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"};

static int read_version(head_reader *r, const char *text) {
    bool form = strlen(text) == 8 && strncmp(text, "HTTP/", 5) == 0 && text[6] == '.' &&
                text[5] >= '0' && text[5] <= '9' && text[7] >= '0' && text[7] <= '9';
    if (!form) return refuse(r, 400, "malformed request line");
    if (text[5] != '1' || text[7] > '1')
        return refuse(r, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    r->p->minor = text[7] - '0';
    return 0;
}

static int read_method(head_reader *r, const char *text) {
    if (!lc_http_is_token(text)) return refuse(r, 400, "malformed request line");
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (strcmp(methods[i], text) != 0) continue;
        r->p->method = methods[i];
        return 0;
    }
    return refuse(r, 501, "the method is not known");
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* In place. Control characters stay out: paths appear in messages and logs. */
static bool decode_path(char *path) {
    char *out = path;
    for (const char *in = path; *in; in++) {
        char c = *in;
        if (c == '%') {
            int high = hex_value(in[1]), low = high < 0 ? -1 : hex_value(in[2]);
            if (low < 0) return false;
            c = (char)(high * 16 + low);
            in += 2;
        }
        if ((unsigned char)c < ' ' || c == 0x7f) return false;
        *out++ = c;
    }
    *out = 0;
    for (size_t used, len = (size_t)(out - path); len; path += used, len -= used)
        if (lc_utf8_decode(path, len, &used) < 0) return false;
    return true;
}

static bool valid_authority(const char *text) {
    size_t name;
    if (*text == '[') {
        name = strspn(text + 1, "0123456789abcdefABCDEF:.") + 1;
        if (name == 1 || text[name++] != ']') return false;
    } else {
        name = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_~");
        if (name == 0) return false;
    }
    if (text[name] == 0) return true;
    size_t digits = text[name] == ':' ? strspn(text + name + 1, "0123456789") : 0;
    return text[name] == ':' && digits <= 5 && text[name + 1 + digits] == 0;
}

/* "/path?query" or "http://host/path?query". The bytes of an absolute target move, so that the
 * authority can be ended by a NUL. */
static int read_target(head_reader *r, char *target) {
    lc_http_parser *p = r->p;
    if (strchr(target, '#')) return refuse(r, 400, "the target has a fragment");
    size_t scheme = strncasecmp(target, "http://", 7) == 0    ? 7
                    : strncasecmp(target, "https://", 8) == 0 ? 8
                                                              : 0;
    if (scheme) {
        size_t len = strcspn(target + scheme, "/?");
        memmove(target, target + scheme, len);
        char *rest = target + scheme + len;
        target[len] = 0;
        p->authority = target;
        if (!valid_authority(target)) return refuse(r, 400, "malformed target");
        target = rest;
    }
    char *query = strchr(target, '?');
    if (query) *query++ = 0;
    p->query = query ? query : "";
    if (scheme && !*target) {
        p->path = "/";
        return 0;
    }
    if (*target != '/') return refuse(r, 400, "the target must be a path or an http address");
    if (!decode_path(target)) return refuse(r, 400, "the path has an invalid escape or character");
    p->path = target;
    return 0;
}

static int read_line(head_reader *r, char *line) {
    char *target = strchr(line, ' '), *version = strrchr(line, ' ');
    if (!target || target == version) return refuse(r, 400, "malformed request line");
    *target++ = 0;
    *version++ = 0;
    if (!*target || strchr(target, ' ')) return refuse(r, 400, "malformed request line");
    int status = read_version(r, version);
    if (!status) status = read_method(r, line);
    return status ? status : read_target(r, target);
}

/* ---- headers ---- */

static int read_length(head_reader *r, const char *value) {
    lc_http_parser *p = r->p;
    if (++r->lengths > 1) return refuse(r, 400, "more than one Content-Length");
    size_t digits = strspn(value, "0123456789"), total = 0;
    if (!digits || value[digits]) return refuse(r, 400, "invalid Content-Length");
    for (const char *c = value; *c; c++) {
        size_t digit = (size_t)(*c - '0');
        if (total > p->limits->body / 10 || total * 10 + digit > p->limits->body)
            return refuse(r, 413, "the body of the request is too large");
        total = total * 10 + digit;
    }
    p->announced = total;
    p->has_body = total > 0;
    return 0;
}

static int read_coding(head_reader *r, const char *value) {
    if (++r->codings > 1) return refuse(r, 400, "more than one Transfer-Encoding");
    if (r->p->minor == 0) return refuse(r, 400, "Transfer-Encoding in an HTTP/1.0 request");
    if (strcasecmp(value, "chunked") != 0)
        return refuse(r, 501, "no Transfer-Encoding but chunked is known");
    r->p->chunked = r->p->has_body = true;
    return 0;
}

static int read_host(head_reader *r, const char *value) {
    if (++r->hosts > 1) return refuse(r, 400, "more than one Host header");
    if (!valid_authority(value)) return refuse(r, 400, "invalid Host header");
    r->p->host = value;
    return 0;
}

static void read_connection(head_reader *r, const char *value) {
    while (*value) {
        value += strspn(value, " \t,");
        size_t len = strcspn(value, " \t,");
        r->close |= len == 5 && strncasecmp(value, "close", len) == 0;
        r->keep_alive |= len == 10 && strncasecmp(value, "keep-alive", len) == 0;
        value += len;
    }
}

static int read_field(head_reader *r, const lc_http_field *field) {
    const char *name = field->name, *value = field->value;
    if (!strcmp(name, "host")) return read_host(r, value);
    if (!strcmp(name, "content-length")) return read_length(r, value);
    if (!strcmp(name, "transfer-encoding")) return read_coding(r, value);
    if (!strcmp(name, "connection")) read_connection(r, value);
    if (!strcmp(name, "content-encoding") && strcasecmp(value, "identity") != 0)
        return refuse(r, 415, "the body must not have a Content-Encoding");
    if (!strcmp(name, "expect")) {
        if (strcasecmp(value, "100-continue") != 0)
            return refuse(r, 417, "no expectation but 100-continue is known");
        r->p->expects_continue = r->p->minor > 0;
    }
    return 0;
}

/* Cuts "Name: value" in place. */
static void cut_field(char *line, lc_http_field *field) {
    char *colon = strchr(line, ':');
    for (char *c = line; c < colon; c++)
        if (*c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
    *colon = 0;
    char *value = colon + 1 + strspn(colon + 1, " \t");
    size_t len = strlen(value);
    while (len && (value[len - 1] == ' ' || value[len - 1] == '\t')) len--;
    value[len] = 0;
    *field = (lc_http_field){.name = line, .value = value};
}

/* Joins the values of later fields of the same name to fields[i]. */
static bool join_field(lc_http_field *fields, size_t n, size_t i) {
    lc_buf joined = {0};
    for (size_t j = i + 1; j < n; j++) {
        if (!fields[j].name || strcmp(fields[j].name, fields[i].name) != 0) continue;
        if (!joined.data) lc_buf_puts(&joined, fields[i].value);
        lc_buf_puts(&joined, ", ");
        lc_buf_puts(&joined, fields[j].value);
        fields[j].name = NULL;
    }
    if (joined.failed) {
        lc_buf_free(&joined);
        return false;
    }
    if (joined.data) fields[i].value = fields[i].joined = joined.data;
    return true;
}

/* Ends the line at `line` and returns the next one. */
static char *next_line(char *line) {
    char *end = strstr(line, "\r\n");
    *end = 0;
    return end + 2;
}

static int read_fields(head_reader *r, char *line) {
    lc_http_parser *p = r->p;
    p->fields = lc_calloc(p->n_lines ? p->n_lines : 1, sizeof *p->fields);
    if (!p->fields) return refuse(r, 503, "out of memory");
    while (*line != '\r') {
        char *next = next_line(line);
        cut_field(line, &p->fields[p->n_fields++]);
        line = next;
    }
    for (size_t i = 0; i < p->n_fields; i++) {
        int status = read_field(r, &p->fields[i]);
        if (status) return status;
    }
    for (size_t i = 0; i < p->n_fields; i++)
        if (p->fields[i].name && !join_field(p->fields, p->n_fields, i))
            return refuse(r, 503, "out of memory");
    return 0;
}

int lc_http_head_read(lc_http_parser *p, const char **message) {
    head_reader r = {.p = p, .message = message};
    char *line = p->head.data, *fields = next_line(line);
    int status = read_line(&r, line);
    if (!status) status = read_fields(&r, fields);
    if (status) return status;
    if (r.lengths && r.codings) return refuse(&r, 400, "both Content-Length and Transfer-Encoding");
    if (!r.hosts && p->minor > 0) return refuse(&r, 400, "the Host header is missing");
    if (p->authority && p->host && strcasecmp(p->authority, p->host) != 0)
        return refuse(&r, 400, "the target and the Host header differ");
    p->keep_alive = !r.close && (p->minor > 0 || r.keep_alive);
    return 0;
}

/* ---- whose name a Host is ---- */

static bool same_name(const char *host, size_t len, const char *name) {
    return strlen(name) == len && strncasecmp(host, name, len) == 0;
}

/* 127.a.b.c in decimal; "127.0.0.1.example.com" has other characters or more parts. */
static bool is_loopback_v4(const char *host, size_t len) {
    size_t dots = 0;
    for (size_t i = 0; i < len; i++) {
        if (host[i] == '.')
            dots++;
        else if (host[i] < '0' || host[i] > '9')
            return false;
    }
    return dots == 3 && strncmp(host, "127.", 4) == 0;
}

bool lc_http_host_is_local(const char *host, const char *const *names, size_t n_names) {
    size_t len = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    if (same_name(host, len, "[::1]") || is_loopback_v4(host, len)) return true;
    for (size_t i = 0; i < n_names; i++)
        if (same_name(host, len, names[i])) return true;
    if (len > 1 && host[len - 1] == '.') len--; /* a name that is spelled to the root */
    static const char suffix[] = ".localhost";
    size_t n = sizeof suffix - 1;
    return same_name(host, len, "localhost") ||
           (len > n && strncasecmp(host + len - n, suffix, n) == 0);
}
