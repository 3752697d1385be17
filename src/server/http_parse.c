/*
 * http_parse.c: the lexer and the framing of one request; see http_parse.h. The head is collected
 * whole, shown to llhttp, and then handed to http_head.c, which cuts it and checks what it means.
 * The body goes through llhttp, which decodes it, while the lexer counts along.
 */
#include "server/http_parse.h"

#include "server/http_head.h"

#include <string.h>

enum state {
    S_START, /* an empty line may come before a request */
    S_START_LF,
    S_LINE,
    S_LINE_LF,
    S_FIELD, /* at the beginning of a header line, or of the empty one */
    S_NAME,
    S_VALUE,
    S_VALUE_LF,
    S_END_LF,
    S_BODY, /* by Content-Length */
    S_SIZE, /* chunks */
    S_EXTENSION,
    S_SIZE_LF,
    S_DATA,
    S_DATA_CR,
    S_DATA_LF,
    S_DONE,
    S_FAILED,
};

static int fail(lc_http_parser *p, int status, const char *message) {
    if (p->state != S_FAILED) {
        p->state = S_FAILED;
        p->status = status;
        p->message = message;
    }
    return -1;
}

static bool token_char(unsigned char c) {
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
    return c && strchr("!#$%&'*+-.^_`|~", c);
}

bool lc_http_is_token(const char *text) {
    if (!*text) return false;
    for (; *text; text++)
        if (!token_char((unsigned char)*text)) return false;
    return true;
}

static bool value_char(unsigned char c) { return c == '\t' || (c >= ' ' && c != 0x7f); }

bool lc_http_is_field_value(const char *text) {
    for (; *text; text++)
        if (!value_char((unsigned char)*text)) return false;
    return true;
}

/* ---- the second reader ---- */

static int on_headers_complete(llhttp_t *second) {
    second->upgrade = 0; /* Upgrade is ignored; CONNECT is refused by the first reader */
    return 0;
}

static int on_body(llhttp_t *second, const char *at, size_t len) {
    lc_http_parser *p = second->data;
    size_t held = p->bodies ? *p->bodies : 0;
    if (len > p->limits->body - p->body.len)
        return fail(p, 413, "the body of the request is too large");
    if (held > p->limits->bodies || len > p->limits->bodies - held)
        return fail(p, 503, "too many large requests at a time");
    if (!lc_buf_append(&p->body, at, len)) return fail(p, 503, "out of memory");
    if (p->bodies) *p->bodies += len;
    return 0;
}

/* Pausing keeps llhttp from reading what follows as another request. */
static int on_message_complete(llhttp_t *second) {
    lc_http_parser *p = second->data;
    p->second_complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t second_settings = {
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* Shows bytes to llhttp; `end`: the request must be complete after them, and not before. */
static int second_read(lc_http_parser *p, const char *data, size_t len, bool end) {
    llhttp_errno_t code = llhttp_execute(&p->second, data, len);
    if (p->state == S_FAILED) return -1;
    if (code != (end ? HPE_PAUSED : HPE_OK) || p->second_complete != end ||
        (end && p->body.len != p->announced))
        return fail(p, 400, "malformed request");
    return 0;
}

/* ---- life ---- */

void lc_http_parser_init(lc_http_parser *p, const lc_http_limits *limits, size_t *bodies) {
    *p = (lc_http_parser){.limits = limits, .bodies = bodies, .state = S_START};
    llhttp_init(&p->second, HTTP_REQUEST, &second_settings);
    p->second.data = p;
}

void lc_http_parser_free(lc_http_parser *p) {
    for (size_t i = 0; i < p->n_fields; i++) lc_free(p->fields[i].joined);
    lc_free(p->fields);
    lc_buf_free(&p->head);
    if (p->bodies) *p->bodies -= p->body.len;
    lc_buf_free(&p->body);
    p->fields = NULL;
    p->n_fields = 0;
}

bool lc_http_parser_begun(const lc_http_parser *p) { return p->state > S_START_LF; }

const char *lc_http_parser_get(const lc_http_parser *p, const char *name) {
    for (size_t i = 0; i < p->n_fields; i++)
        if (p->fields[i].name && strcmp(p->fields[i].name, name) == 0) return p->fields[i].value;
    return NULL;
}

/* ---- lines ---- */

static int line_byte(lc_http_parser *p, unsigned char c) {
    if (c == '\r') {
        p->state = S_LINE_LF;
        return 0;
    }
    if (++p->line_bytes > p->limits->line) return fail(p, 414, "the request line is too long");
    if (c < ' ' || c >= 0x7f) return fail(p, 400, "invalid character in the request line");
    return 0;
}

static int field_start(lc_http_parser *p, unsigned char c) {
    if (c == '\r') {
        p->state = S_END_LF;
        return 0;
    }
    if (c == ' ' || c == '\t') return fail(p, 400, "a header is folded over several lines");
    if (!token_char(c)) return fail(p, 400, "invalid character in a header's name");
    if (++p->n_lines > p->limits->n_headers) return fail(p, 431, "too many headers");
    p->field_bytes = 1;
    p->state = S_NAME;
    return 0;
}

static int field_byte(lc_http_parser *p, unsigned char c) {
    if (p->state == S_VALUE && c == '\r') {
        p->state = S_VALUE_LF;
        return 0;
    }
    if (++p->field_bytes > p->limits->header) return fail(p, 431, "a header is too long");
    if (p->state == S_VALUE)
        return value_char(c) ? 0 : fail(p, 400, "invalid character in a header's value");
    if (c == ':')
        p->state = S_VALUE;
    else if (!token_char(c))
        return fail(p, 400, "invalid character in a header's name");
    return 0;
}

static int line_feed(lc_http_parser *p, unsigned char c, int next) {
    if (c != '\n') return fail(p, 400, "a line does not end with CR and LF");
    p->state = next;
    return 0;
}

/* One byte of request line, headers or trailers. 1: the last one. */
static int head_byte(lc_http_parser *p, unsigned char c) {
    if (p->state >= S_FIELD && ++p->fields_bytes > p->limits->headers)
        return fail(p, 431, "the headers are too long");
    switch (p->state) {
    case S_LINE: return line_byte(p, c);
    case S_LINE_LF: return line_feed(p, c, S_FIELD);
    case S_FIELD: return field_start(p, c);
    case S_VALUE_LF: return line_feed(p, c, S_FIELD);
    case S_END_LF: return line_feed(p, c, S_DONE) ? -1 : 1;
    default: return field_byte(p, c);
    }
}

/* Bytes before a request: at most one empty line, as old clients send after a body. */
static int start_byte(lc_http_parser *p, unsigned char c) {
    if (p->state == S_START_LF) {
        p->blank_line = true;
        return line_feed(p, c, S_START);
    }
    if (c == '\r' && !p->blank_line)
        p->state = S_START_LF;
    else
        p->state = S_LINE;
    return 0;
}

static lc_parse head_complete(lc_http_parser *p) {
    llhttp_errno_t code = llhttp_execute(&p->second, p->head.data, p->head.len);
    const char *message = NULL;
    int status = lc_http_head_read(p, &message);
    if (status) return fail(p, status, message), LC_PARSE_ERROR;
    bool agrees = code == (p->has_body ? HPE_OK : HPE_PAUSED) &&
                  p->second_complete == !p->has_body &&
                  p->chunked == !!(p->second.flags & F_CHUNKED) &&
                  (p->chunked || p->second.content_length == p->announced);
    if (!agrees) return fail(p, 400, "malformed request"), LC_PARSE_ERROR;
    p->remaining = p->announced;
    p->state = !p->has_body ? S_DONE : p->chunked ? S_SIZE : S_BODY;
    return LC_PARSE_HEAD;
}

static lc_parse feed_head(lc_http_parser *p, const char *data, size_t len, size_t *used) {
    size_t i = 0, start;
    while (i < len && p->state <= S_START_LF) {
        if (start_byte(p, (unsigned char)data[i])) return LC_PARSE_ERROR;
        if (p->state != S_LINE) i++;
    }
    int end = 0;
    for (start = i; i < len && !end; i++) end = head_byte(p, (unsigned char)data[i]);
    if (end < 0) return LC_PARSE_ERROR;
    if (!lc_buf_append(&p->head, data + start, i - start))
        return fail(p, 503, "out of memory"), LC_PARSE_ERROR;
    *used = i;
    return end ? head_complete(p) : LC_PARSE_MORE;
}

/* ---- bodies ---- */

static lc_parse feed_length(lc_http_parser *p, const char *data, size_t len, size_t *used) {
    size_t n = len < p->remaining ? len : p->remaining;
    bool end = n == p->remaining;
    if (second_read(p, data, n, end)) return LC_PARSE_ERROR;
    p->remaining -= n;
    *used = n;
    if (!end) return LC_PARSE_MORE;
    p->state = S_DONE;
    return LC_PARSE_DONE;
}

static int hex_digit(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static int size_byte(lc_http_parser *p, unsigned char c) {
    int digit = hex_digit(c);
    if (digit < 0) {
        if (!p->digits || (c != ';' && c != '\r')) return fail(p, 400, "invalid chunk size");
        p->state = c == ';' ? S_EXTENSION : S_SIZE_LF;
        return 0;
    }
    if (++p->digits > 16) return fail(p, 400, "invalid chunk size");
    size_t room = p->limits->body - p->announced;
    if (p->remaining > room / 16 || p->remaining * 16 + (size_t)digit > room)
        return fail(p, 413, "the body of the request is too large");
    p->remaining = p->remaining * 16 + (size_t)digit;
    return 0;
}

static int extension_byte(lc_http_parser *p, unsigned char c) {
    if (c == '\r') {
        p->state = S_SIZE_LF;
        return 0;
    }
    if (++p->extension_bytes > p->limits->header)
        return fail(p, 400, "chunk extensions are too long");
    return value_char(c) ? 0 : fail(p, 400, "invalid character in a chunk extension");
}

static int size_complete(lc_http_parser *p, unsigned char c) {
    if (line_feed(p, c, p->remaining ? S_DATA : S_FIELD)) return -1;
    p->announced += p->remaining;
    p->digits = 0;
    p->trailers = p->remaining == 0;
    return 0;
}

/* One byte of a chunked body but for its data. 1: the last one. */
static int chunk_byte(lc_http_parser *p, unsigned char c) {
    switch (p->state) {
    case S_SIZE: return size_byte(p, c);
    case S_EXTENSION: return extension_byte(p, c);
    case S_SIZE_LF: return size_complete(p, c);
    case S_DATA_CR:
        if (c != '\r') return fail(p, 400, "a chunk does not end with CR and LF");
        p->state = S_DATA_LF;
        return 0;
    case S_DATA_LF: return line_feed(p, c, S_SIZE);
    default: return head_byte(p, c);
    }
}

static lc_parse feed_chunks(lc_http_parser *p, const char *data, size_t len, size_t *used) {
    size_t i = 0;
    int end = 0;
    while (i < len && !end) {
        if (p->state != S_DATA) {
            end = chunk_byte(p, (unsigned char)data[i++]);
            continue;
        }
        size_t n = len - i < p->remaining ? len - i : p->remaining;
        i += n;
        p->remaining -= n;
        if (!p->remaining) p->state = S_DATA_CR;
    }
    if (end < 0 || second_read(p, data, i, end)) return LC_PARSE_ERROR;
    *used = i;
    return end ? LC_PARSE_DONE : LC_PARSE_MORE;
}

lc_parse lc_http_parser_feed(lc_http_parser *p, const char *data, size_t len, size_t *used) {
    *used = 0;
    if (p->state == S_FAILED) return LC_PARSE_ERROR;
    if (p->state == S_DONE) return LC_PARSE_DONE;
    if (len == 0) return LC_PARSE_MORE;
    if (p->state == S_BODY) return feed_length(p, data, len, used);
    if (p->state > S_BODY || p->trailers) return feed_chunks(p, data, len, used);
    return feed_head(p, data, len, used);
}
