/*
 * scan.h: a strict pull scanner for the two JSON texts whose duplicates matter and which are long:
 * the safetensors header and the shard index (json-c keeps the last of two equal keys silently and
 * builds a tree of all of them). One pass, no recursion, no allocation. Everything else is read
 * through base/json.h.
 */
#ifndef LC_FORMAT_SCAN_H
#define LC_FORMAT_SCAN_H

#include "longcat.h"

enum { LC_SCAN_DEPTH = 64 };

typedef struct lc_scan {
    const char *text;
    size_t len, pos;
    char *pool; /* strings go here, decoded and NUL-terminated: at least len bytes, the caller's */
    size_t used;
    const char *problem; /* after a failure: what is wrong at byte pos */
} lc_scan;

/* The next byte that isn't white space, 0 at the end of the text. */
char lc_scan_peek(lc_scan *scan);
/* Takes the byte c (white space before it is skipped) or fails. */
bool lc_scan_take(lc_scan *scan, char c);
/* Takes c if it comes next. */
bool lc_scan_try(lc_scan *scan, char c);
/* A string in quotes with its escapes: checked UTF-8 without U+0000. out NULL = not kept. */
bool lc_scan_string(lc_scan *scan, const char **out);
/* A whole number without sign, fraction, exponent or leading zero, below 2^64. */
bool lc_scan_uint(lc_scan *scan, uint64_t *out);
/* Any value, nested at most LC_SCAN_DEPTH deep; not kept. */
bool lc_scan_skip(lc_scan *scan);
/* Only white space is left. */
bool lc_scan_end(lc_scan *scan);
/* Sets the problem and returns false. */
bool lc_scan_fail(lc_scan *scan, const char *problem);

#endif
