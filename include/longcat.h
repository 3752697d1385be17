/*
 * longcat.h: the public API of the library. A program that embeds longcat includes this file only.
 *
 * This part holds status codes and errors, which every layer shares. Every call that can fail
 * returns an lc_status (0 or a negative code) and, through an optional `lc_err *`, a text that
 * names the file, tensor, field and limit. Nothing in the library prints, exits or keeps a pointer
 * to caller memory beyond a call unless a comment says so.
 */
#ifndef LONGCAT_H
#define LONGCAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LC_VERSION "0.1.0"

/* Status codes: name, value, what it means for the caller. */
#define LC_STATUS_LIST(X)                                                                          \
    X(LC_OK, 0, "success")                                                                         \
    X(LC_ENOMEM, -1, "out of memory")                                                              \
    X(LC_EINVAL, -2, "invalid argument")                                                           \
    X(LC_EIO, -3, "input or output failed")                                                        \
    X(LC_EFORMAT, -4, "malformed data")                                                            \
    X(LC_ELIMIT, -5, "a limit was exceeded")                                                       \
    X(LC_ENOTFOUND, -6, "not found")                                                               \
    X(LC_EUNSUPPORTED, -7, "not supported")                                                        \
    X(LC_ENET, -8, "network failure")                                                              \
    X(LC_ECANCELED, -9, "cancelled")

typedef enum lc_status {
#define LC_STATUS_ENUM(name, value, text) name = (value),
    LC_STATUS_LIST(LC_STATUS_ENUM)
#undef LC_STATUS_ENUM
} lc_status;

/* Error context. The caller owns it; zero it (or call nothing) before use. text is NUL-terminated
 * UTF-8. */
typedef struct lc_err {
    int code;
    char text[480];
} lc_err;

/* "malformed data" and so on for a status code. Never NULL. */
const char *lc_status_text(int status);

#endif
