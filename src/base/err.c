/* err.c: status texts and error contexts. Two names stand in brackets because err.h makes macros of
 * them for clang's analyser. */
#include "base/err.h"
#include "base/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *lc_status_text(int status) {
    switch (status) {
#define LC_STATUS_CASE(name, value, text)                                                          \
    case name: return text;
        LC_STATUS_LIST(LC_STATUS_CASE)
#undef LC_STATUS_CASE
    default: return "unknown status";
    }
}

/* Names and texts from files stand in messages, and messages end on terminals. */
static void format(lc_err *err, const char *fmt, va_list args) {
    vsnprintf(err->text, sizeof err->text, fmt, args);
    lc_utf8_tame(err->text, true);
}

/* Appends to err->text; what doesn't fit is cut. */
static void append(lc_err *err, const char *text) {
    size_t used = strlen(err->text), room = sizeof err->text - 1 - used;
    size_t len = strnlen(text, room);
    memcpy(err->text + used, text, len);
    err->text[used + len] = 0;
    lc_utf8_tame(err->text, true);
}

int(lc_fail)(lc_err *err, int code, const char *fmt, ...) {
    if (err) {
        va_list args;
        va_start(args, fmt);
        err->code = code;
        format(err, fmt, args);
        va_end(args);
    }
    return code;
}

int(lc_fail_errno)(lc_err *err, int code, const char *fmt, ...) {
    int saved = errno;
    if (err) {
        va_list args;
        va_start(args, fmt);
        err->code = code;
        format(err, fmt, args);
        va_end(args);
        append(err, ": ");
        append(err, strerror(saved));
    }
    return code;
}

int lc_err_prefix(lc_err *err, const char *fmt, ...) {
    if (!err) return LC_EINVAL;
    char text[sizeof err->text];
    memcpy(text, err->text, sizeof text);
    va_list args;
    va_start(args, fmt);
    format(err, fmt, args);
    va_end(args);
    append(err, ": ");
    append(err, text);
    return err->code;
}
