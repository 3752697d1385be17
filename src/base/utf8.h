/* utf8.h: strict UTF-8 (no overlong forms, no surrogates, at most U+10FFFF), as the WHATWG decoder
 * sees it. */
#ifndef LC_BASE_UTF8_H
#define LC_BASE_UTF8_H

#include "base/buf.h"

enum { LC_UTF8_INVALID = -1, LC_UTF8_PARTIAL = -2, LC_REPLACEMENT = 0xFFFD };

/*
 * Decodes one character at text[0..len), len >= 1. Returns its code point and stores the bytes used
 * in *used. LC_UTF8_INVALID: *used = length of the maximal invalid part (>= 1), which stands for
 * one U+FFFD. LC_UTF8_PARTIAL: the text ends inside a character that may still become valid; *used
 * = the bytes of it.
 */
int32_t lc_utf8_decode(const char *text, size_t len, size_t *used);

/* Writes the UTF-8 form of a code point (<= U+10FFFF, no surrogate) to out; returns its 1 to 4
 * bytes. */
size_t lc_utf8_encode(uint32_t code, char out[4]);

/* Appends text with each maximal invalid part replaced by U+FFFD (Python's errors="replace"). */
bool lc_utf8_sanitize(lc_buf *out, const char *text, size_t len);

/* Makes a message safe for a terminal, in place: each byte of a control character or of invalid
 * UTF-8 becomes '?', a character cut off at the end is dropped. keep_lines spares \n and \t. */
void lc_utf8_tame(char *text, bool keep_lines);

#endif
