/*
 * lenient.c: an incremental reader of lenient JSON. It keeps no text: the caller hands in all bytes
 * since the value's start, and the reader looks at each of them once, so that a value that grows by
 * single bytes costs linear time. Containers are hung into their parents when they open; the stack
 * only borrows them, and freeing the root frees all.
 *
 * Elsewhere: tags, blocks and schemas (toolcall.c, tooltypes.c); strict JSON (base/json.h).
 */
#include "text/lenient.h"

#include "base/utf8.h"

#include <limits.h>
#include <locale.h>
#include <string.h>
#include <utf8proc.h>

enum {
    AT_VALUE, /* a value must come */
    AT_ITEM,  /* a list's item, or its end */
    AT_KEY,   /* an object's key, or its end */
    AT_COLON,
    AT_NEXT, /* a comma, or the end of the container */
    IN_STRING,
    IN_NUMBER,
    IN_WORD,
};

bool lc_lenient_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static bool in_number(char c) {
    return is_digit(c) || c == '+' || c == '-' || c == '.' || c == 'e' || c == 'E';
}

static bool starts_word(char c) { return is_letter(c) || c == '_' || c == '$' || (c & 0x80); }
static bool in_word(char c) { return starts_word(c) || is_digit(c); }

bool lc_lenient_in_string(const lc_lenient *r) { return r->state == IN_STRING; }

void lc_lenient_reset(lc_lenient *r) {
    json_object_put(r->value);
    lc_free(r->key);
    r->pos = 0;
    r->value = NULL;
    r->state = AT_VALUE;
    r->depth = 0;
    r->key = NULL;
}

/* ---- strings ---- */

static int hex_value(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* n hex digits at text, or -1. */
static int32_t hex_number(const char *text, size_t len, size_t n) {
    int32_t code = 0;
    if (len < n) return -1;
    for (size_t i = 0; i < n; i++) {
        int digit = hex_value(text[i]);
        if (digit < 0) return -1;
        code = code << 4 | digit;
    }
    return code;
}

static void put_code(lc_buf *out, int32_t code) {
    char bytes[4];
    lc_buf_append(out, bytes, lc_utf8_encode((uint32_t)code, bytes));
}

/* A \u escape whose digits start at text; returns the bytes used behind the 'u', 0 if it is none.
 * Half of a surrogate pair without the other becomes U+FFFD. */
static size_t put_unicode(lc_buf *out, const char *text, size_t len) {
    int32_t code = hex_number(text, len, 4);
    if (code < 0) return 0;
    if (code < 0xD800 || code > 0xDFFF) {
        put_code(out, code);
        return 4;
    }
    int32_t low = -1;
    if (code < 0xDC00 && len >= 10 && text[4] == '\\' && text[5] == 'u')
        low = hex_number(text + 6, len - 6, 4);
    if (low < 0xDC00 || low > 0xDFFF) {
        put_code(out, LC_REPLACEMENT);
        return 4;
    }
    put_code(out, 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00));
    return 10;
}

/* The escape behind a backslash; returns the bytes used. Unknown ones stay as they are. */
static size_t put_escape(lc_buf *out, const char *text, size_t len) {
    static const char from[] = "\"\\/'bfnrtv0";
    static const char to[] = {'"', '\\', '/', '\'', '\b', '\f', '\n', '\r', '\t', '\v', 0};
    const char *known = text[0] ? strchr(from, text[0]) : NULL;
    size_t used;
    if (known) {
        lc_buf_putc(out, to[known - from]);
        return 1;
    }
    if (text[0] == '\n') return 1;
    if (text[0] == '\r') return len > 1 && text[1] == '\n' ? 2 : 1;
    if (text[0] == 'u' && (used = put_unicode(out, text + 1, len - 1))) return used + 1;
    if (text[0] == 'x' && len > 2 && hex_number(text + 1, len - 1, 2) >= 0) {
        put_code(out, hex_number(text + 1, len - 1, 2));
        return 3;
    }
    lc_buf_putc(out, '\\');
    return 0;
}

static bool unescape(lc_buf *out, const char *text, size_t len) {
    for (size_t i = 0; i < len;) {
        const char *slash = memchr(text + i, '\\', len - i);
        size_t plain = slash ? (size_t)(slash - text) - i : len - i;
        lc_buf_append(out, text + i, plain);
        i += plain;
        if (slash) i += 1 + put_escape(out, text + i + 1, len - i - 1);
    }
    return lc_buf_reserve(out, 0);
}

/* ---- numbers ---- */

typedef struct number_parts {
    bool negative;
    size_t whole, n_whole;       /* digits before the point */
    size_t fraction, n_fraction; /* behind it */
    size_t exponent, n_exponent; /* with its letter */
    bool is_integer;
} number_parts;

static size_t skip_digits(const char *text, size_t len, size_t i) {
    while (i < len && is_digit(text[i])) i++;
    return i;
}

static bool split_number(const char *text, size_t len, number_parts *n) {
    size_t i = 0;
    *n = (number_parts){.is_integer = true};
    if (i < len && (text[i] == '+' || text[i] == '-')) n->negative = text[i++] == '-';
    n->whole = i;
    i = skip_digits(text, len, i);
    n->n_whole = i - n->whole;
    if (n->n_whole > 1 && text[n->whole] == '0') return false;
    if (i < len && text[i] == '.') {
        n->is_integer = false;
        n->fraction = ++i;
        i = skip_digits(text, len, i);
        n->n_fraction = i - n->fraction;
    }
    if (n->n_whole + n->n_fraction == 0) return false;
    if (i < len && (text[i] == 'e' || text[i] == 'E')) {
        n->is_integer = false;
        n->exponent = i++;
        if (i < len && (text[i] == '+' || text[i] == '-')) i++;
        size_t digits = i;
        i = skip_digits(text, len, i);
        if (i == digits) return false;
        n->n_exponent = i - n->exponent;
    }
    return i == len;
}

/* The same number as JSON spells it. */
static bool spell_number(lc_buf *out, const char *text, const number_parts *n) {
    if (n->negative) lc_buf_putc(out, '-');
    if (n->n_whole)
        lc_buf_append(out, text + n->whole, n->n_whole);
    else
        lc_buf_putc(out, '0');
    if (n->fraction) {
        lc_buf_putc(out, '.');
        if (n->n_fraction)
            lc_buf_append(out, text + n->fraction, n->n_fraction);
        else
            lc_buf_putc(out, '0');
    }
    lc_buf_append(out, text + n->exponent, n->n_exponent);
    return lc_buf_reserve(out, 0);
}

/* A number with its own text, for what no C integer holds. The C locale: a point is a point. */
static struct json_object *number_as_text(const char *text, const number_parts *n) {
    lc_buf spelled = {0};
    struct json_object *value = NULL;
    if (spell_number(&spelled, text, n)) {
        locale_t c_locale = newlocale(LC_ALL_MASK, "C", NULL);
        if (c_locale) {
            value = json_object_new_double_s(strtod_l(spelled.data, NULL, c_locale), spelled.data);
            freelocale(c_locale);
        }
    }
    lc_buf_free(&spelled);
    return value;
}

static struct json_object *new_number(const char *text, const number_parts *n) {
    if (!n->is_integer) return number_as_text(text, n);
    uint64_t value = 0;
    for (size_t i = 0; i < n->n_whole; i++) {
        uint64_t digit = (uint64_t)(text[n->whole + i] - '0');
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, digit, &value))
            return number_as_text(text, n);
    }
    if (!n->negative) return json_object_new_uint64(value);
    if (value > INT64_MAX) return number_as_text(text, n);
    return json_object_new_int64(-(int64_t)value);
}

bool lc_lenient_is_integer(struct json_object *value) {
    if (json_object_get_type(value) == json_type_int) return true;
    return json_object_get_type(value) == json_type_double &&
           !strpbrk(json_object_to_json_string(value), ".eE");
}

/* ---- the reader ---- */

/* Puts a value where it belongs; takes it over. A box stays open on the stack. */
static lc_lenient_status put_value(lc_lenient *r, struct json_object *value, char close) {
    int failed = 0;
    struct json_object *parent = r->depth ? r->stack[r->depth - 1].box : NULL;
    if (!parent) {
        r->value = value;
    } else if (json_object_is_type(parent, json_type_object)) {
        failed = json_object_object_add(parent, r->key, value);
        lc_free(r->key);
        r->key = NULL;
    } else {
        failed = json_object_array_add(parent, value);
    }
    if (failed) {
        json_object_put(value);
        return LC_LENIENT_NOMEM;
    }
    if (close) {
        r->stack[r->depth].box = value;
        r->stack[r->depth++].close = close;
        r->state = close == '}' ? AT_KEY : AT_ITEM;
        return LC_LENIENT_MORE;
    }
    r->state = AT_NEXT;
    return r->depth ? LC_LENIENT_MORE : LC_LENIENT_DONE;
}

static lc_lenient_status open_box(lc_lenient *r, char open) {
    if (r->depth == LC_LENIENT_DEPTH) return LC_LENIENT_BAD;
    struct json_object *box = open == '{' ? json_object_new_object() : json_object_new_array();
    if (!box) return LC_LENIENT_NOMEM;
    r->pos++;
    return put_value(r, box, open == '{' ? '}' : open == '[' ? ']' : ')');
}

static lc_lenient_status close_box(lc_lenient *r, char c) {
    if (r->depth == 0 || r->stack[r->depth - 1].close != c) return LC_LENIENT_BAD;
    r->pos++;
    r->depth--;
    r->state = AT_NEXT;
    return r->depth ? LC_LENIENT_MORE : LC_LENIENT_DONE;
}

/* Keys are C strings in json-c: a NUL becomes U+FFFD. */
static lc_lenient_status take_key(lc_lenient *r, const char *text, size_t len) {
    lc_buf key = {0};
    for (size_t i = 0; i < len; i++) {
        if (text[i])
            lc_buf_putc(&key, text[i]);
        else
            put_code(&key, LC_REPLACEMENT);
    }
    if (!lc_buf_reserve(&key, 0)) {
        lc_buf_free(&key);
        return LC_LENIENT_NOMEM;
    }
    r->key = key.data;
    r->state = AT_COLON;
    return LC_LENIENT_MORE;
}

static lc_lenient_status take_string(lc_lenient *r, const char *text, size_t len) {
    lc_buf plain = {0};
    lc_lenient_status status = LC_LENIENT_NOMEM;
    if (unescape(&plain, text, len) && plain.len < INT_MAX) {
        if (r->is_key) {
            status = take_key(r, plain.data, plain.len);
        } else {
            struct json_object *value = json_object_new_string_len(plain.data, (int)plain.len);
            if (value) status = put_value(r, value, 0);
        }
    }
    lc_buf_free(&plain);
    return status;
}

static lc_lenient_status take_number(lc_lenient *r, const char *text, size_t len) {
    number_parts parts;
    if (!split_number(text, len, &parts)) return LC_LENIENT_BAD;
    if (r->is_key) {
        if (!parts.is_integer) return LC_LENIENT_BAD;
        return text[0] == '+' ? take_key(r, text + 1, len - 1) : take_key(r, text, len);
    }
    struct json_object *value = new_number(text, &parts);
    return value ? put_value(r, value, 0) : LC_LENIENT_NOMEM;
}

/* Unquoted keys: letters, marks and digits of any script; not the typographic quotes. */
static bool is_identifier(const char *text, size_t len) {
    for (size_t i = 0, used; i < len; i += used) {
        int32_t code = lc_utf8_decode(text + i, len - i, &used);
        if (code < 0) return false;
        if (code < 0x80) continue;
        switch (utf8proc_category(code)) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO:
        case UTF8PROC_CATEGORY_MN:
        case UTF8PROC_CATEGORY_MC:
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL: break;
        default: return false;
        }
    }
    return true;
}

static bool is_word(const char *text, size_t len, const char *word) {
    return len == strlen(word) && !memcmp(text, word, len);
}

static lc_lenient_status take_word(lc_lenient *r, const char *text, size_t len) {
    if (r->is_key) return is_identifier(text, len) ? take_key(r, text, len) : LC_LENIENT_BAD;
    if (is_word(text, len, "null") || is_word(text, len, "None")) return put_value(r, NULL, 0);
    bool yes = is_word(text, len, "true") || is_word(text, len, "True");
    if (!yes && !is_word(text, len, "false") && !is_word(text, len, "False")) return LC_LENIENT_BAD;
    struct json_object *value = json_object_new_boolean(yes);
    return value ? put_value(r, value, 0) : LC_LENIENT_NOMEM;
}

static lc_lenient_status start_token(lc_lenient *r, char c) {
    r->is_key = r->state == AT_KEY;
    r->token = r->pos;
    if (c == '"' || c == '\'') {
        r->pos++;
        r->quote = c;
        r->escaped = false;
        r->state = IN_STRING;
    } else if (is_digit(c) || c == '-' || c == '+' || c == '.') {
        r->state = IN_NUMBER;
    } else if (starts_word(c)) {
        r->state = IN_WORD;
    } else {
        return LC_LENIENT_BAD;
    }
    return LC_LENIENT_MORE;
}

static lc_lenient_status read_string(lc_lenient *r, const char *text, size_t len) {
    size_t i = r->pos;
    bool escaped = r->escaped;
    for (; i < len; i++) {
        if (escaped)
            escaped = false;
        else if (text[i] == '\\')
            escaped = true;
        else if (text[i] == r->quote)
            break;
    }
    r->pos = i;
    r->escaped = escaped;
    if (i == len) return LC_LENIENT_MORE;
    r->pos++;
    return take_string(r, text + r->token + 1, i - r->token - 1);
}

/* Numbers and words end where something else begins, so their end needs one byte more. */
static lc_lenient_status read_run(lc_lenient *r, const char *text, size_t len, bool final) {
    bool number = r->state == IN_NUMBER;
    size_t i = r->pos;
    while (i < len && (number ? in_number(text[i]) : in_word(text[i]))) i++;
    r->pos = i;
    if (i == len && !final) return LC_LENIENT_MORE;
    const char *token = text + r->token;
    return number ? take_number(r, token, i - r->token) : take_word(r, token, i - r->token);
}

static lc_lenient_status read_mark(lc_lenient *r, char c) {
    if (lc_lenient_space(c)) {
        r->pos++;
        return LC_LENIENT_MORE;
    }
    switch (r->state) {
    case AT_ITEM:
        if (c == ']' || c == ')') return close_box(r, c);
        break;
    case AT_KEY: return c == '}' ? close_box(r, c) : start_token(r, c);
    case AT_COLON:
        if (c != ':') return LC_LENIENT_BAD;
        r->pos++;
        r->state = AT_VALUE;
        return LC_LENIENT_MORE;
    case AT_NEXT:
        if (c != ',') return close_box(r, c);
        r->pos++;
        r->state = r->stack[r->depth - 1].close == '}' ? AT_KEY : AT_ITEM;
        return LC_LENIENT_MORE;
    default: break;
    }
    return c == '{' || c == '[' || c == '(' ? open_box(r, c) : start_token(r, c);
}

lc_lenient_status lc_lenient_feed(lc_lenient *r, const char *text, size_t len, bool final) {
    lc_lenient_status status = LC_LENIENT_MORE;
    while (status == LC_LENIENT_MORE && (r->pos < len || (final && r->state > IN_STRING))) {
        if (r->state == IN_STRING)
            status = read_string(r, text, len);
        else if (r->state > IN_STRING)
            status = read_run(r, text, len, final);
        else
            status = read_mark(r, text[r->pos]);
    }
    return status == LC_LENIENT_MORE && final ? LC_LENIENT_BAD : status;
}

int lc_lenient_parse(const char *text, size_t len, struct json_object **out) {
    lc_lenient reader = {0};
    *out = NULL;
    lc_lenient_status status = lc_lenient_feed(&reader, text, len, true);
    if (status == LC_LENIENT_DONE) {
        while (reader.pos < len && lc_lenient_space(text[reader.pos])) reader.pos++;
        if (reader.pos == len) {
            *out = reader.value;
            return LC_OK;
        }
    }
    lc_lenient_reset(&reader);
    return status == LC_LENIENT_NOMEM ? LC_ENOMEM : LC_EFORMAT;
}
