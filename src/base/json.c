/*
 * json.c: strict parsing through json-c.
 *
 * json-c 0.16 reads the escaped surrogate pairs of 32,768 characters wrongly: where
 * the low 16 bits of the character look like a surrogate themselves (U+1D800, CJK extension F,
 * ...), it takes the character for one and puts U+FFFD. Such pairs are rewritten as UTF-8 before it
 * sees them; texts without any are passed on as they are.
 */
#include "base/json.h"

#include "base/err.h"
#include "base/utf8.h"

#include <limits.h>
#include <string.h>

static bool only_space(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (!strchr(" \t\r\n", text[i]) || !text[i]) return false;
    return true;
}

/* The value of \uHHHH at text, -1 if it is none. */
static int32_t unicode_escape(const char *text, size_t len) {
    int32_t code = 0;
    if (len < 6 || text[0] != '\\' || text[1] != 'u') return -1;
    for (size_t i = 2; i < 6; i++) {
        char c = text[i];
        int32_t digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
        if (digit < 0) return -1;
        code = code << 4 | digit;
    }
    return code;
}

/* The next escaped pair, from text[at], that json-c misreads; len if there is none. */
static size_t find_misread_pair(const char *text, size_t len, size_t at, uint32_t *code) {
    while (at < len) {
        const char *escape = memchr(text + at, '\\', len - at);
        if (!escape) break;
        at = (size_t)(escape - text);
        int32_t high = unicode_escape(text + at, len - at);
        int32_t low = high < 0 ? -1 : unicode_escape(text + at + 6, len - at - 6);
        if (high >= 0xD800 && high < 0xDC00 && low >= 0xDC00 && low < 0xE000) {
            *code = 0x10000u + ((uint32_t)(high - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
            if ((*code & 0xF800) == 0xD800) return at;
            at += 12;
        } else {
            at += 2; /* a backslash and what it escapes */
        }
    }
    return len;
}

static bool rewrite_pairs(const char *text, size_t len, lc_buf *out) {
    uint32_t code = 0;
    for (size_t at = 0, pair; at < len; at = pair + 12) {
        char utf8[4];
        pair = find_misread_pair(text, len, at, &code);
        lc_buf_append(out, text + at, pair - at);
        if (pair == len) break;
        lc_buf_append(out, utf8, lc_utf8_encode(code, utf8));
    }
    return !out->failed;
}

static int parse(const char *text, size_t len, const char *name, struct json_object **out,
                 lc_err *err) {
    struct json_tokener *tok = json_tokener_new_ex(LC_JSON_DEPTH);
    if (!tok) return lc_fail(err, LC_ENOMEM, "%s: out of memory", name);
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8 |
                                    JSON_TOKENER_ALLOW_TRAILING_CHARS);
    struct json_object *value = json_tokener_parse_ex(tok, text, (int)len);
    enum json_tokener_error code = json_tokener_get_error(tok);
    if (code ==
        json_tokener_continue) { /* a bare number ends only with the text: show json-c the end */
        value = json_tokener_parse_ex(tok, "", 1);
        code = json_tokener_get_error(tok);
        if (code == json_tokener_success) {
            json_tokener_free(tok);
            *out = value;
            return LC_OK;
        }
    }
    size_t end = json_tokener_get_parse_end(tok);
    int status = LC_OK;
    if (code == json_tokener_continue)
        status = lc_fail(err, LC_EFORMAT, "%s: JSON ends too early (%zu bytes)", name, len);
    else if (code == json_tokener_error_depth)
        status = lc_fail(err, LC_ELIMIT, "%s: JSON nested deeper than %d at byte %zu", name,
                         LC_JSON_DEPTH, end);
    else if (code != json_tokener_success)
        status = lc_fail(err, LC_EFORMAT, "%s: %s at byte %zu", name, json_tokener_error_desc(code),
                         end);
    else if (!only_space(text + end, len - end))
        status = lc_fail(err, LC_EFORMAT, "%s: text after the JSON value at byte %zu", name, end);
    json_tokener_free(tok);
    if (status != LC_OK) {
        json_object_put(value);
        return status;
    }
    *out = value;
    return LC_OK;
}

int lc_json_parse(const char *text, size_t len, const char *name, struct json_object **out,
                  lc_err *err) {
    uint32_t code;
    *out = NULL;
    if (len > INT_MAX) return lc_fail(err, LC_ELIMIT, "%s: JSON larger than 2 GiB", name);
    if (find_misread_pair(text, len, 0, &code) == len) return parse(text, len, name, out, err);
    lc_buf clean = {0};
    int status = rewrite_pairs(text, len, &clean)
                     ? parse(clean.data, clean.len, name, out, err)
                     : lc_fail(err, LC_ENOMEM, "%s: out of memory", name);
    lc_buf_free(&clean);
    return status;
}

int lc_json_load(const char *path, size_t limit, struct json_object **out, lc_err *err) {
    lc_buf buf = {0};
    *out = NULL;
    int status = lc_file_read(path, limit, &buf, err);
    if (status == LC_OK) status = lc_json_parse(buf.data, buf.len, path, out, err);
    lc_buf_free(&buf);
    return status;
}
