/*
 * jinja_text.c: strings by characters: white space, searching, stripping, lines, joining.
 *
 * All strings of a render are valid UTF-8 (the doors check that: the lexer, the conversion of
 * JSON), so characters are read without checks here. Python counts characters, we store bytes: for
 * ASCII strings the two are the same, others are walked, and the walk counts as work.
 */
#include "text/jinja/jinja_internal.h"

enum { LONG_STRING = 1024 }; /* from here on a sum gets room to grow in place */

uint32_t lcj_char_at(const char *s, size_t *len) {
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80) {
        *len = 1;
        return u[0];
    }
    if (u[0] < 0xE0) {
        *len = 2;
        return (u[0] & 0x1Fu) << 6 | (u[1] & 0x3Fu);
    }
    if (u[0] < 0xF0) {
        *len = 3;
        return (u[0] & 0x0Fu) << 12 | (u[1] & 0x3Fu) << 6 | (u[2] & 0x3Fu);
    }
    *len = 4;
    return (u[0] & 0x07u) << 18 | (u[1] & 0x3Fu) << 12 | (u[2] & 0x3Fu) << 6 | (u[3] & 0x3Fu);
}

static uint32_t char_before(const char *start, const char *end, size_t *len) {
    const char *s = end - 1;
    while (s > start && ((unsigned char)*s & 0xC0) == 0x80) s--;
    return lcj_char_at(s, len);
}

bool lcj_is_space(uint32_t code) {
    if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13) || (code >= 28 && code <= 31);
    return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

/* Characters that begin in 8 bytes: all bytes but 10xxxxxx. */
static size_t begins(const char *s) {
    uint64_t word;
    memcpy(&word, s, sizeof word);
    uint64_t inner = word >> 7 & ~word >> 6 & 0x0101010101010101u;
    return 8 - (size_t)__builtin_popcountll(inner);
}

size_t lcj_count_chars(lcj_val s) {
    if (s.flags & LCJ_ASCII) return s.len;
    size_t n = 0, i = 0;
    for (; i + 8 <= s.len; i += 8) n += begins(s.u.s + i);
    for (; i < s.len; i++) n += ((unsigned char)s.u.s[i] & 0xC0) != 0x80;
    return n;
}

/* Pays for a lcj_char_offset that follows, too. */
bool lcj_char_count(lcj_rt *rt, lcj_val s, size_t *out) {
    *out = lcj_count_chars(s);
    return (s.flags & LCJ_ASCII) || lcj_tick(rt, s.len / 16 + 1);
}

size_t lcj_char_offset(lcj_val s, size_t chars) {
    if (s.flags & LCJ_ASCII) return chars < s.len ? chars : s.len;
    size_t i = 0, n = 0; /* n characters begin before byte i */
    for (size_t more; i + 8 <= s.len && n + (more = begins(s.u.s + i)) <= chars; i += 8) n += more;
    for (; i < s.len; i++) {
        bool begin = ((unsigned char)s.u.s[i] & 0xC0) != 0x80;
        if (begin && n == chars) break;
        n += begin;
    }
    return i;
}

/* ---- strip ---- */

typedef struct strip_set {
    lcj_rt *rt;
    lcj_val chars;
    bool ascii[128];
} strip_set;

static bool strips(strip_set *set, const char *s, size_t len, uint32_t code, bool *yes) {
    if (set->chars.type != LCJ_STRING) {
        *yes = lcj_is_space(code);
        return true;
    }
    if (code < 0x80) {
        *yes = set->ascii[code];
        return true;
    }
    *yes = set->chars.len && memmem(set->chars.u.s, set->chars.len, s, len);
    return lcj_tick_bytes(set->rt, set->chars.len);
}

bool lcj_strip(lcj_rt *rt, lcj_val s, lcj_val chars, bool left, bool right, lcj_val *out) {
    strip_set set = {.rt = rt, .chars = chars};
    const char *from = s.u.s, *to = from + s.len;
    size_t len;
    bool yes;
    if (chars.type == LCJ_STRING)
        for (uint32_t i = 0; i < chars.len; i++)
            if ((unsigned char)chars.u.s[i] < 0x80) set.ascii[(unsigned char)chars.u.s[i]] = true;
    while (left && from < to) {
        uint32_t code = lcj_char_at(from, &len);
        if (!strips(&set, from, len, code, &yes)) return false;
        if (!yes) break;
        from += len;
    }
    while (right && to > from) {
        uint32_t code = char_before(from, to, &len);
        if (!strips(&set, to - len, len, code, &yes)) return false;
        if (!yes) break;
        to -= len;
    }
    *out = lcj_part(s, (size_t)(from - s.u.s), (size_t)(to - from));
    return lcj_tick_chars(rt, s.len - out->len);
}

/* ---- search ---- */

int64_t lcj_find(lcj_val s, lcj_val needle, size_t from) {
    if (from > s.len) return -1;
    if (!needle.len) return (int64_t)from;
    const char *at = memmem(s.u.s + from, s.len - from, needle.u.s, needle.len);
    return at ? at - s.u.s : -1;
}

bool lcj_rfind(lcj_rt *rt, lcj_val s, lcj_val needle, int64_t *out) {
    *out = -1;
    if (needle.len > s.len) return true;
    if (!needle.len) {
        *out = s.len;
        return true;
    }
    size_t room = s.len - needle.len + 1;
    while (room) {
        const char *at = memrchr(s.u.s, needle.u.s[0], room);
        if (!at) break;
        if (!lcj_tick_bytes(rt, needle.len)) return false;
        if (!memcmp(at, needle.u.s, needle.len)) {
            *out = at - s.u.s;
            return true;
        }
        room = (size_t)(at - s.u.s);
    }
    return lcj_tick_bytes(rt, s.len);
}

/* ---- lines ---- */

bool lcj_next_line(lcj_val s, size_t *pos, size_t *start, size_t *end) {
    if (*pos >= s.len) return false;
    *start = *pos;
    for (size_t i = *pos, len; i < s.len; i += len) {
        uint32_t code = lcj_char_at(s.u.s + i, &len);
        bool breaks = (code >= 10 && code <= 13) || (code >= 28 && code <= 30) || code == 0x85 ||
                      code == 0x2028 || code == 0x2029;
        if (!breaks) continue;
        *end = i;
        *pos = i + len;
        if (code == '\r' && *pos < s.len && s.u.s[*pos] == '\n') ++*pos;
        return true;
    }
    *end = *pos = s.len;
    return true;
}

/* ---- joining ---- */

static bool extend(lcj_rt *rt, lcj_val a, lcj_val b, lcj_val *out) {
    for (size_t i = 0; i < LCJ_GROWING; i++) {
        const char *end = rt->growing[i].end;
        if (!end || end != a.u.s + a.len || (size_t)(rt->growing[i].limit - end) < b.len) continue;
        memcpy((char *)a.u.s + a.len, b.u.s, b.len);
        rt->growing[i].end += b.len;
        *out = a;
        out->len += b.len;
        if (!(b.flags & LCJ_ASCII)) out->flags &= (uint8_t)~LCJ_ASCII;
        return true;
    }
    return false;
}

bool lcj_concat(lcj_rt *rt, lcj_val a, lcj_val b, lcj_val *out) {
    size_t len = (size_t)a.len + b.len;
    if (len > rt->out_limit) return lcj_limit(rt, "output");
    if (!b.len || !a.len) {
        uint8_t safe = a.flags & LCJ_SAFE;
        *out = a.len ? a : b;
        out->flags = (uint8_t)((out->flags & ~LCJ_SAFE) | safe);
        return true;
    }
    if (!lcj_tick_bytes(rt, b.len)) return false;
    if (a.len >= LONG_STRING && extend(rt, a, b, out)) return true;
    if (!lcj_tick_bytes(rt, a.len)) return false;
    size_t room = a.len >= LONG_STRING ? 2 * len : len;
    char *s = lcj_alloc(rt, room);
    if (!s) return false;
    memcpy(s, a.u.s, a.len);
    memcpy(s + a.len, b.u.s, b.len);
    if (room > len) {
        size_t slot = ++rt->serial % LCJ_GROWING;
        rt->growing[slot].end = s + len;
        rt->growing[slot].limit = s + room;
        rt->growing[slot].serial = rt->serial;
    }
    *out = a;
    out->u.s = s;
    out->len = (uint32_t)len;
    if (!(b.flags & LCJ_ASCII)) out->flags &= (uint8_t)~LCJ_ASCII;
    return true;
}

bool lcj_escape(lcj_rt *rt, lcj_val v, lcj_val *out) {
    lcj_val text;
    size_t start = rt->out.len;
    if (lcj_is_string(v) && v.flags & LCJ_SAFE) {
        *out = v;
        return true;
    }
    if (!lcj_to_str(rt, v, &text) || !lcj_put_escaped(rt, text) || !lcj_take(rt, start, out))
        return false;
    out->flags |= LCJ_SAFE;
    return true;
}

static bool replace_empty(lcj_rt *rt, lcj_val s, lcj_val fresh, int64_t count) {
    size_t i = 0, len;
    for (; count != 0; count--) {
        if (!lcj_put(rt, fresh.u.s, fresh.len) || !lcj_tick(rt, 1)) return false;
        if (i == s.len) return true;
        lcj_char_at(s.u.s + i, &len);
        if (!lcj_put(rt, s.u.s + i, len)) return false;
        i += len;
    }
    return lcj_put(rt, s.u.s + i, s.len - i);
}

bool lcj_replace(lcj_rt *rt, lcj_val s, lcj_val old, lcj_val fresh, int64_t count, lcj_val *out) {
    size_t start = rt->out.len, from = 0;
    if (!lcj_tick_bytes(rt, s.len)) return false;
    if (!old.len) {
        if (!replace_empty(rt, s, fresh, count)) return false;
    } else {
        int64_t at = lcj_find(s, old, 0);
        if (at < 0 || !count) {
            *out = s;
            return true;
        }
        for (; at >= 0 && count != 0; count--) {
            if (!lcj_put(rt, s.u.s + from, (size_t)at - from) ||
                !lcj_put(rt, fresh.u.s, fresh.len) || !lcj_tick(rt, 1))
                return false;
            from = (size_t)at + old.len;
            at = lcj_find(s, old, from);
        }
        if (!lcj_put(rt, s.u.s + from, s.len - from)) return false;
    }
    if (!lcj_take(rt, start, out)) return false;
    out->flags |= s.flags & LCJ_SAFE;
    return true;
}
