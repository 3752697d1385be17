/* scan.c: the strict JSON scanner of scan.h. */
#include "format/scan.h"

#include "base/utf8.h"

#include <string.h>

bool lc_scan_fail(lc_scan *scan, const char *problem) {
    if (!scan->problem) scan->problem = problem;
    return false;
}

char lc_scan_peek(lc_scan *scan) {
    while (scan->pos < scan->len) {
        char c = scan->text[scan->pos];
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return c;
        scan->pos++;
    }
    return 0;
}

bool lc_scan_try(lc_scan *scan, char c) {
    if (lc_scan_peek(scan) != c || scan->pos >= scan->len) return false;
    scan->pos++;
    return true;
}

bool lc_scan_take(lc_scan *scan, char c) {
    if (lc_scan_try(scan, c)) return true;
    switch (c) {
    case '{': return lc_scan_fail(scan, "expected {");
    case '}': return lc_scan_fail(scan, "expected , or }");
    case '[': return lc_scan_fail(scan, "expected [");
    case ']': return lc_scan_fail(scan, "expected , or ]");
    case ':': return lc_scan_fail(scan, "expected :");
    default: return lc_scan_fail(scan, "unexpected character");
    }
}

/* Four hex digits at pos. */
static bool hex4(lc_scan *scan, uint32_t *out) {
    uint32_t value = 0;
    if (scan->len - scan->pos < 4) return lc_scan_fail(scan, "text ends inside an escape");
    for (int i = 0; i < 4; i++) {
        char c = scan->text[scan->pos];
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            digit = (uint32_t)((c | 32) - 'a') + 10;
        else
            return lc_scan_fail(scan, "bad \\u escape");
        value = value << 4 | digit;
        scan->pos++;
    }
    *out = value;
    return true;
}

/* What follows a backslash; pos stands on the letter. */
static bool escape(lc_scan *scan, char out[4], size_t *len) {
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (scan->pos >= scan->len) return lc_scan_fail(scan, "text ends inside a string");
    char c = scan->text[scan->pos++];
    const char *found = c ? strchr(letters, c) : NULL;
    if (found) {
        out[0] = values[found - letters];
        *len = 1;
        return true;
    }
    if (c != 'u') return lc_scan_fail(scan, "unknown escape");
    uint32_t code = 0, low = 0;
    if (!hex4(scan, &code)) return false;
    if (code >= 0xD800 && code < 0xDC00) {
        if (scan->len - scan->pos < 2 || memcmp(scan->text + scan->pos, "\\u", 2))
            return lc_scan_fail(scan, "half a surrogate pair");
        scan->pos += 2;
        if (!hex4(scan, &low)) return false;
        if (low < 0xDC00 || low > 0xDFFF) return lc_scan_fail(scan, "half a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
        return lc_scan_fail(scan, "half a surrogate pair");
    }
    if (!code) return lc_scan_fail(scan, "U+0000 in a string");
    *len = lc_utf8_encode(code, out);
    return true;
}

bool lc_scan_string(lc_scan *scan, const char **out) {
    if (!lc_scan_try(scan, '"')) return lc_scan_fail(scan, "expected a string");
    char *start = out ? scan->pool + scan->used : NULL;
    /* Never longer than the JSON text it comes from, so a pool of len bytes is enough. */
    for (;;) {
        if (scan->pos >= scan->len) return lc_scan_fail(scan, "text ends inside a string");
        const char *at = scan->text + scan->pos;
        unsigned char c = (unsigned char)*at;
        char bytes[4];
        size_t n = 1;
        if (c == '"') break;
        if (c < 0x20) return lc_scan_fail(scan, "control character in a string");
        if (c == '\\') {
            scan->pos++;
            if (!escape(scan, bytes, &n)) return false;
            at = bytes;
        } else {
            if (c >= 0x80 && lc_utf8_decode(at, scan->len - scan->pos, &n) < 0)
                return lc_scan_fail(scan, "invalid UTF-8 in a string");
            scan->pos += n;
        }
        if (out) {
            memcpy(scan->pool + scan->used, at, n);
            scan->used += n;
        }
    }
    scan->pos++;
    if (out) {
        scan->pool[scan->used++] = 0;
        *out = start;
    }
    return true;
}

bool lc_scan_uint(lc_scan *scan, uint64_t *out) {
    uint64_t value = 0;
    char c = lc_scan_peek(scan);
    size_t start = scan->pos;
    if (c < '0' || c > '9') return lc_scan_fail(scan, "expected a whole number");
    for (; scan->pos < scan->len; scan->pos++) {
        c = scan->text[scan->pos];
        if (c < '0' || c > '9') break;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(c - '0'), &value))
            return lc_scan_fail(scan, "number of 2^64 or more");
    }
    if (scan->pos - start > 1 && scan->text[start] == '0')
        return lc_scan_fail(scan, "number with a leading zero");
    if (scan->pos < scan->len && (c == '.' || c == 'e' || c == 'E'))
        return lc_scan_fail(scan, "number with a fraction or exponent");
    *out = value;
    return true;
}

/* A number, true, false or null; its value is of no interest, but its extent must be clear. */
static bool skip_word(lc_scan *scan) {
    static const char *const words[] = {"true", "false", "null"};
    const char *at = scan->text + scan->pos;
    size_t left = scan->len - scan->pos;
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (left >= n && !memcmp(at, words[i], n)) {
            scan->pos += n;
            return true;
        }
    }
    size_t n = 0, digits = 0;
    while (n < left && at[n] && strchr("0123456789+-.eE", at[n]))
        if (strchr("0123456789", at[n++])) digits++;
    if (!digits) return lc_scan_fail(scan, "expected a value");
    scan->pos += n;
    return true;
}

static bool skip_key(lc_scan *scan) {
    return lc_scan_string(scan, NULL) && lc_scan_take(scan, ':');
}

bool lc_scan_skip(lc_scan *scan) {
    char closing[LC_SCAN_DEPTH];
    int depth = 0;
    for (;;) {
        char c = lc_scan_peek(scan);
        bool done = true; /* a whole value was read */
        if (c == '{' || c == '[') {
            if (depth == LC_SCAN_DEPTH) return lc_scan_fail(scan, "nested too deeply");
            scan->pos++;
            closing[depth++] = c == '{' ? '}' : ']';
            done = lc_scan_try(scan, closing[depth - 1]);
            if (done)
                depth--;
            else if (c == '{' && !skip_key(scan))
                return false;
        } else if (c == '"') {
            if (!lc_scan_string(scan, NULL)) return false;
        } else if (!skip_word(scan)) {
            return false;
        }
        while (done && depth) {
            if (lc_scan_try(scan, ',')) {
                if (closing[depth - 1] == '}' && !skip_key(scan)) return false;
                done = false;
            } else if (lc_scan_take(scan, closing[depth - 1])) {
                depth--;
            } else {
                return false;
            }
        }
        if (done) return true;
    }
}

bool lc_scan_end(lc_scan *scan) {
    lc_scan_peek(scan);
    return scan->pos == scan->len || lc_scan_fail(scan, "text after the end");
}
