/*
 * http_head.h: what a complete head means. Its bytes have passed the lexer (http_parse.c): lines
 * end with CR LF, names are tokens, nothing is folded. Here it is cut into strings in place and the
 * rules about single headers are checked: target, version, Host, framing, codings.
 */
#ifndef LC_SERVER_HTTP_HEAD_H
#define LC_SERVER_HTTP_HEAD_H

#include "server/http_parse.h"

/* Fills the parser's request from parser->head. 0, or a status and a constant message. */
int lc_http_head_read(lc_http_parser *parser, const char **message);

/* Whether a valid Host value names this machine (localhost, a loopback address) or one of `names`;
 * its port doesn't matter. */
bool lc_http_host_is_local(const char *host, const char *const *names, size_t n_names);

#endif
