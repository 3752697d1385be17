/*
 * http_parse.h: bytes to one HTTP request, without sockets or clocks. Two readers see every byte: a
 * strict lexer of ours, which decides what is a line, a field, a chunk and where the message ends,
 * and llhttp. A request passes only when both agree; what one of them would let through (a space
 * before a colon, a folded line, a bare LF) is refused by the other.
 *
 * Nothing is stored before its limit is checked, and nothing is reserved because a Content-Length
 * says so: buffers grow with what has arrived.
 */
#ifndef LC_SERVER_HTTP_PARSE_H
#define LC_SERVER_HTTP_PARSE_H

#include "server/http.h"

#include <llhttp.h>

typedef enum lc_parse {
    LC_PARSE_MORE,  /* all bytes used, the request is not complete */
    LC_PARSE_HEAD,  /* the head is complete and valid: said once, before the body is read */
    LC_PARSE_DONE,  /* the request is complete; bytes after it are not used */
    LC_PARSE_ERROR, /* status and message say why; said from then on */
} lc_parse;

typedef struct lc_http_field {
    const char *name; /* in lower case; NULL: joined to an earlier field of the same name */
    const char *value;
    char *joined; /* owns value, or NULL */
} lc_http_field;

typedef struct lc_http_parser {
    const lc_http_limits *limits; /* every value set; outlives the parser */
    size_t *bodies;               /* body bytes held by all parsers together, or NULL */
    int state;
    bool trailers, blank_line;
    lc_buf head; /* as received; cut into strings when it is complete */
    size_t line_bytes, field_bytes, fields_bytes, n_lines; /* headers and trailers */
    size_t remaining;                                      /* bytes of the body, or of this chunk */
    size_t announced;               /* bytes of the body so far as lengths have said */
    size_t digits, extension_bytes; /* of this chunk's size; of all chunks' extensions */
    llhttp_t second;
    bool second_complete;

    /* Valid from LC_PARSE_HEAD on. */
    const char *method, *path, *query;
    const char *host, *authority; /* Host header, host of an absolute target; or NULL */
    lc_http_field *fields;
    size_t n_fields;
    int minor;       /* HTTP/1.minor */
    bool keep_alive; /* as far as the client is concerned */
    bool has_body, chunked, expects_continue;
    /* Complete at LC_PARSE_DONE. */
    lc_buf body;
    /* Valid from LC_PARSE_ERROR on; the message is a constant. */
    int status;
    const char *message;
} lc_http_parser;

void lc_http_parser_init(lc_http_parser *parser, const lc_http_limits *limits, size_t *bodies);
void lc_http_parser_free(lc_http_parser *parser);
/* Reads up to len bytes and says in *used how many. len may be 0 (after HEAD). */
lc_parse lc_http_parser_feed(lc_http_parser *parser, const char *data, size_t len, size_t *used);
/* Whether bytes of a request have been seen. */
bool lc_http_parser_begun(const lc_http_parser *parser);

/* A header of the request by its lower-case name, or NULL. */
const char *lc_http_parser_get(const lc_http_parser *parser, const char *name);

/* Parts that replies need too. */
bool lc_http_is_token(const char *text);       /* a name of a header: not empty */
bool lc_http_is_field_value(const char *text); /* no control characters but tab */

#endif
