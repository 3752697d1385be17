/* utf8.c: the decoder's table is the one of the Unicode standard, table 3-7 (well-formed byte
 * sequences). */
#include "base/utf8.h"

#include <string.h>

int32_t lc_utf8_decode(const char *text, size_t len, size_t *used) {
    const unsigned char *s = (const unsigned char *)text;
    unsigned char first = s[0], low = 0x80, high = 0xBF;
    size_t need;
    uint32_t code;
    *used = 1;
    if (first < 0x80) return first;
    if (first >= 0xC2 && first <= 0xDF) {
        need = 2;
        code = first & 0x1Fu;
    } else if (first >= 0xE0 && first <= 0xEF) {
        need = 3;
        code = first & 0x0Fu;
        if (first == 0xE0) low = 0xA0;
        if (first == 0xED) high = 0x9F;
    } else if (first >= 0xF0 && first <= 0xF4) {
        need = 4;
        code = first & 0x07u;
        if (first == 0xF0) low = 0x90;
        if (first == 0xF4) high = 0x8F;
    } else {
        return LC_UTF8_INVALID;
    }
    for (size_t i = 1; i < need; i++) {
        if (i == len) {
            *used = i;
            return LC_UTF8_PARTIAL;
        }
        if (s[i] < low || s[i] > high) {
            *used = i;
            return LC_UTF8_INVALID;
        }
        code = code << 6 | (s[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *used = need;
    return (int32_t)code;
}

size_t lc_utf8_encode(uint32_t code, char out[4]) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

bool lc_utf8_sanitize(lc_buf *out, const char *text, size_t len) {
    for (size_t i = 0, used; i < len; i += used) {
        int32_t code = lc_utf8_decode(text + i, len - i, &used);
        if (code >= 0)
            lc_buf_append(out, text + i, used);
        else
            lc_buf_puts(out, "\xEF\xBF\xBD");
    }
    return !out->failed;
}

/* C0, DEL and C1. */
static bool is_control(int32_t code) { return code < 0x20 || (code >= 0x7F && code < 0xA0); }

void lc_utf8_tame(char *text, bool keep_lines) {
    size_t len = strlen(text);
    for (size_t i = 0, used; i < len; i += used) {
        int32_t code = lc_utf8_decode(text + i, len - i, &used);
        if (code == LC_UTF8_PARTIAL) {
            text[i] = 0;
            return;
        }
        if (keep_lines && (code == '\n' || code == '\t')) continue;
        if (code < 0 || is_control(code)) memset(text + i, '?', used);
    }
}
