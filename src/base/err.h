/*
 * err.h: filling an lc_err. The one way to fail in this code base is
 *     return lc_fail(err, LC_EFORMAT, "%s: tensor %s: ...", path, name);
 */
#ifndef LC_BASE_ERR_H
#define LC_BASE_ERR_H

#include "longcat.h"

/* Stores code and formatted text in *err (if err is not NULL) and returns code. Too long texts are
 * cut; control characters (but newline and tab) and invalid UTF-8 become '?'. */
int lc_fail(lc_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Same for a failed system call: appends ": " and the text of errno. */
int lc_fail_errno(lc_err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__
/* clang's analyser sees one file at a time. It must know that the code comes back, or it follows
 * paths on which a failure looks like success. */
#define lc_fail(err, code, ...) ((lc_fail)(err, code, __VA_ARGS__), (code))
#define lc_fail_errno(err, code, ...) ((lc_fail_errno)(err, code, __VA_ARGS__), (code))
#endif

/* Puts "prefix: " in front of the text already in *err; returns its code. For callers that know the
 * file's name. */
int lc_err_prefix(lc_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
