/*
 * json.c: a strict check of the text, then json-c builds the tree.
 *
 * What json-c accepts differs from release to release: 0.18 with its strict flag refuses every
 * string that isn't ASCII (json-c issue 892), others without it accept comments, single quotes and
 * trailing commas. So the grammar, UTF-8 and the depth are checked here, with the byte
 * offset for the message, and json-c only sees text that all its releases read alike. The check is
 * one pass without recursion.
 *
 * json-c 0.16 reads the escaped surrogate pairs of 32,768 characters wrongly: where the
 * low 16 bits of the character look like a surrogate themselves (U+1D800, CJK extension F, ...),
 * it takes the character for one and puts U+FFFD. Such pairs are rewritten as UTF-8 before it sees
 * them; texts without any are passed on as they are.
 *
 * json-c reads a whole number beyond 64 bits as the nearest one that fits. Such numbers get an
 * exponent before it sees them, so that it keeps their text, and lose it again in the tree.
 */
#include "base/json.h"

#include "base/err.h"
#include "base/file.h"
#include "base/utf8.h"

#include <limits.h>
#include <string.h>

typedef struct scanner {
    const char *text;
    size_t len, at;
    const char *fault; /* what is wrong at `at` */
    bool big;          /* a whole number beyond 64 bits was among them */
} scanner;

static const char *const ends_early = "ends too early";

static bool fail(scanner *s, const char *fault) {
    s->fault = s->at < s->len ? fault : ends_early;
    return false;
}

/* The byte at the current place, 0 at the end (a NUL byte is valid nowhere). */
static char peek(const scanner *s) { return s->at < s->len ? s->text[s->at] : 0; }

static bool take(scanner *s, char c) {
    if (peek(s) != c || s->at >= s->len) return false;
    s->at++;
    return true;
}

static void skip_space(scanner *s) {
    while (peek(s) == ' ' || peek(s) == '\n' || peek(s) == '\r' || peek(s) == '\t') s->at++;
}

static bool digit(char c) { return c >= '0' && c <= '9'; }

static bool scan_digits(scanner *s) {
    if (!digit(peek(s))) return fail(s, "a digit is missing");
    while (digit(peek(s))) s->at++;
    return true;
}

static bool scan_word(scanner *s, const char *word) {
    size_t n = strlen(word);
    if (s->len - s->at < n || memcmp(s->text + s->at, word, n) != 0)
        return fail(s, "unexpected character");
    s->at += n;
    return true;
}

/* Whether digits with an optional minus stand for a number that neither int64_t nor uint64_t holds.
 */
static bool beyond_64_bits(const char *text, size_t len) {
    bool minus = len && text[0] == '-';
    const char *most = minus ? "9223372036854775808" : "18446744073709551615";
    size_t digits = len - minus, room = strlen(most);
    return digits > room || (digits == room && memcmp(text + minus, most, room) > 0);
}

static bool scan_number(scanner *s) {
    size_t start = s->at;
    take(s, '-');
    if (peek(s) == 'I') return scan_word(s, "Infinity");
    if (!take(s, '0') && !scan_digits(s)) return false;
    if (peek(s) != '.' && peek(s) != 'e' && peek(s) != 'E')
        s->big |= beyond_64_bits(s->text + start, s->at - start);
    if (take(s, '.') && !scan_digits(s)) return false;
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '-')) take(s, '+');
        return scan_digits(s);
    }
    return true;
}

/* After a backslash. *code gets the value of a \u escape. */
static bool scan_escape(scanner *s, unsigned *code) {
    static const char simple[] = "\"\\/bfnrt", hex[] = "0123456789abcdef0123456789ABCDEF";
    char c = peek(s);
    if (c && strchr(simple, c)) {
        s->at++;
        return true;
    }
    if (!take(s, 'u')) return fail(s, "invalid escape");
    *code = 0;
    for (int i = 0; i < 4; i++) {
        const char *h = peek(s) ? strchr(hex, peek(s)) : NULL;
        if (!h) return fail(s, "invalid escape");
        *code = *code << 4 | ((unsigned)(h - hex) & 15);
        s->at++;
    }
    return true;
}

static bool scan_string(scanner *s, bool key) {
    if (!take(s, '"')) return fail(s, "a string is missing");
    while (s->at < s->len) {
        unsigned char c = (unsigned char)s->text[s->at];
        size_t used = 1;
        unsigned code = 1;
        if (c == '"') {
            s->at++;
            return true;
        }
        if (c < 0x20) return fail(s, "control character in a string");
        if (c >= 0x80 && lc_utf8_decode(s->text + s->at, s->len - s->at, &used) < 0)
            return fail(s, "invalid UTF-8");
        size_t start = s->at;
        s->at += used;
        if (c == '\\' && !scan_escape(s, &code)) return false;
        if (key && code == 0) { /* json-c's keys are C strings: "a\u0000b" would become "a" */
            s->at = start;
            return fail(s, "U+0000 in a key");
        }
    }
    return fail(s, ends_early);
}

static bool scan_scalar(scanner *s) {
    switch (peek(s)) {
    case '"': return scan_string(s, false);
    case 't': return scan_word(s, "true");
    case 'f': return scan_word(s, "false");
    case 'n': return scan_word(s, "null");
    case 'N': return scan_word(s, "NaN");
    case 'I':
    case '-': return scan_number(s);
    default: return digit(peek(s)) ? scan_number(s) : fail(s, "unexpected character");
    }
}

/* "key" and the colon. */
static bool scan_key(scanner *s) {
    skip_space(s);
    if (!scan_string(s, true)) return false;
    skip_space(s);
    return take(s, ':') || fail(s, "a colon is missing");
}

/* One value with everything inside it. *deep: the fault is the depth. */
static bool scan_value(scanner *s, bool *deep) {
    bool is_object[LC_JSON_DEPTH];
    int depth = 0;
    for (;;) {
        skip_space(s);
        char c = peek(s);
        if (c == '{' || c == '[') {
            *deep = depth == LC_JSON_DEPTH;
            if (*deep) return fail(s, "nested too deep");
            s->at++;
            is_object[depth++] = c == '{';
            skip_space(s);
            if (peek(s) != (c == '{' ? '}' : ']')) {
                if (c == '{' && !scan_key(s)) return false;
                continue;
            }
        } else if (!scan_scalar(s)) {
            return false;
        }
        /* A value has ended, or an empty container stands before its closing bracket. */
        for (skip_space(s); depth > 0 && take(s, is_object[depth - 1] ? '}' : ']'); skip_space(s))
            depth--;
        if (depth == 0) return true;
        if (!take(s, ',')) return fail(s, "a comma or a closing bracket is missing");
        if (is_object[depth - 1] && !scan_key(s)) return false;
    }
}

static int check_text(const char *text, size_t len, const char *name, bool *big, lc_err *err) {
    scanner s = {.text = text, .len = len};
    bool deep = false;
    bool good = scan_value(&s, &deep);
    *big = s.big;
    if (good && s.at == len) return LC_OK;
    if (deep)
        return lc_fail(err, LC_ELIMIT, "%s: JSON nested deeper than %d at byte %zu", name,
                       LC_JSON_DEPTH, s.at);
    if (good)
        return lc_fail(err, LC_EFORMAT, "%s: text after the JSON value at byte %zu", name, s.at);
    return lc_fail(err, LC_EFORMAT, "%s: JSON: %s at byte %zu", name, s.fault, s.at);
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

/* The end of the number or string at text[at]; at + 1 for anything else. */
static size_t token_end(const char *text, size_t len, size_t at) {
    size_t end = at + 1;
    if (text[at] == '"') {
        while (end < len && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
        return end < len ? end + 1 : len;
    }
    if (text[at] != '-' && !digit(text[at])) return end;
    while (end < len && (digit(text[end]) || strchr("+-.eE", text[end])) && text[end]) end++;
    return end;
}

/* Appends "e0" to whole numbers beyond 64 bits. */
static bool rewrite_numbers(const char *text, size_t len, lc_buf *out) {
    for (size_t at = 0, end; at < len; at = end) {
        end = token_end(text, len, at);
        lc_buf_append(out, text + at, end - at);
        bool whole = digit(text[end - 1]) && (text[at] == '-' || digit(text[at]));
        for (size_t i = at; whole && i < end; i++) whole = !strchr(".eE", text[i]);
        if (whole && beyond_64_bits(text + at, end - at)) lc_buf_puts(out, "e0");
    }
    return !out->failed;
}

/* A double whose text is a whole number with "e0" behind it -> one without. */
static bool restore_number(struct json_object **value) {
    const char *text = json_object_to_json_string(*value);
    size_t len = text ? strlen(text) : 0;
    if (len < 20 || strcmp(text + len - 2, "e0") != 0 || memchr(text, '.', len)) return true;
    char *digits = lc_strndup(text, len - 2);
    struct json_object *fresh =
        digits ? json_object_new_double_s(json_object_get_double(*value), digits) : NULL;
    lc_free(digits);
    json_object_put(*value);
    *value = fresh;
    return fresh != NULL;
}

/* The same for everything in a tree, as deep as the check allows. */
static bool restore_numbers(struct json_object **value) {
    bool ok = true;
    switch (json_object_get_type(*value)) {
    case json_type_double: return restore_number(value);
    case json_type_array:
        for (size_t i = 0; ok && i < json_object_array_length(*value); i++) {
            struct json_object *item = json_object_get(json_object_array_get_idx(*value, i));
            ok = restore_numbers(&item) && json_object_array_put_idx(*value, i, item) == 0;
            if (!ok) json_object_put(item);
        }
        return ok;
    case json_type_object: {
        json_object_object_foreach(*value, key, child) {
            struct json_object *item = ok ? json_object_get(child) : NULL;
            ok = ok && restore_numbers(&item) && json_object_object_add(*value, key, item) == 0;
            if (!ok) json_object_put(item);
        }
        return ok;
    }
    default: return true;
    }
}

/* Builds the tree of a text that has passed the check. */
static int build(const char *text, size_t len, const char *name, struct json_object **out,
                 lc_err *err) {
    int status = LC_OK;
    struct json_tokener *tok = json_tokener_new_ex(LC_JSON_DEPTH + 2);
    if (!tok) return lc_fail(err, LC_ENOMEM, "%s: out of memory", name);
    struct json_object *value = json_tokener_parse_ex(tok, text, (int)len);
    /* A bare number ends only with the text: show json-c the end. */
    if (json_tokener_get_error(tok) == json_tokener_continue)
        value = json_tokener_parse_ex(tok, "", 1);
    enum json_tokener_error code = json_tokener_get_error(tok);
    if (code != json_tokener_success) {
        json_object_put(value);
        value = NULL;
        status = lc_fail(err, LC_EFORMAT, "%s: JSON: %s", name, json_tokener_error_desc(code));
    }
    json_tokener_free(tok);
    *out = value;
    return status;
}

int lc_json_parse(const char *text, size_t len, const char *name, struct json_object **out,
                  lc_err *err) {
    uint32_t code;
    bool big, ok = true;
    lc_buf pairs = {0}, numbers = {0};
    *out = NULL;
    if (len > INT_MAX) return lc_fail(err, LC_ELIMIT, "%s: JSON larger than 2 GiB", name);
    int status = check_text(text, len, name, &big, err);
    if (status != LC_OK) return status;
    if (find_misread_pair(text, len, 0, &code) != len) {
        ok = rewrite_pairs(text, len, &pairs);
        text = pairs.data;
        len = pairs.len;
    }
    if (ok && big) {
        ok = rewrite_numbers(text, len, &numbers) && numbers.len <= INT_MAX;
        text = numbers.data;
        len = numbers.len;
    }
    if (ok) status = build(text, len, name, out, err);
    if (ok && status == LC_OK && big) ok = restore_numbers(out);
    if (!ok) {
        json_object_put(*out);
        *out = NULL;
        status = lc_fail(err, LC_ENOMEM, "%s: out of memory", name);
    }
    lc_buf_free(&pairs);
    lc_buf_free(&numbers);
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
