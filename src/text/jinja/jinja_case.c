/*
 * jinja_case.c: upper, lower, title and folded case of whole strings as Python has them, and the
 * character properties behind them.
 *
 * Simple mappings and categories come from utf8proc. What it lacks stands in the tables below,
 * which hold facts of the Unicode Character Database: characters whose upper or title case is
 * longer than one character (SpecialCasing.txt), and the letters that are lower or upper case by
 * the properties Other_Lowercase and Other_Uppercase only.
 */
#include "text/jinja/jinja_internal.h"

#include <utf8proc.h>

typedef struct special {
    uint32_t code;
    char upper[8], title[8]; /* UTF-8 */
} special;

static const uint32_t other_lower[][2] = {
    {0x00AA, 0x00AA},   {0x00BA, 0x00BA},   {0x02B0, 0x02B8},   {0x02C0, 0x02C1},
    {0x02E0, 0x02E4},   {0x0345, 0x0345},   {0x037A, 0x037A},   {0x1D2C, 0x1D6A},
    {0x1D78, 0x1D78},   {0x1D9B, 0x1DBF},   {0x2071, 0x2071},   {0x207F, 0x207F},
    {0x2090, 0x209C},   {0x2170, 0x217F},   {0x24D0, 0x24E9},   {0x2C7C, 0x2C7D},
    {0xA69C, 0xA69D},   {0xA770, 0xA770},   {0xA7F8, 0xA7F9},   {0xAB5C, 0xAB5F},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA},
};
static const uint32_t other_upper[][2] = {
    {0x2160, 0x216F}, {0x24B6, 0x24CF}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189},
};
static const special special_cases[] = {
    {0x00DF, "SS", "Ss"},
    {0x0149, "\u02BCN", "\u02BCN"},
    {0x01F0, "J\u030C", "J\u030C"},
    {0x0390, "\u0399\u0308\u0301", "\u0399\u0308\u0301"},
    {0x03B0, "\u03A5\u0308\u0301", "\u03A5\u0308\u0301"},
    {0x0587, "\u0535\u0552", "\u0535\u0582"},
    {0x1E96, "H\u0331", "H\u0331"},
    {0x1E97, "T\u0308", "T\u0308"},
    {0x1E98, "W\u030A", "W\u030A"},
    {0x1E99, "Y\u030A", "Y\u030A"},
    {0x1E9A, "A\u02BE", "A\u02BE"},
    {0x1F50, "\u03A5\u0313", "\u03A5\u0313"},
    {0x1F52, "\u03A5\u0313\u0300", "\u03A5\u0313\u0300"},
    {0x1F54, "\u03A5\u0313\u0301", "\u03A5\u0313\u0301"},
    {0x1F56, "\u03A5\u0313\u0342", "\u03A5\u0313\u0342"},
    {0x1F80, "\u1F08\u0399", "\u1F88"},
    {0x1F81, "\u1F09\u0399", "\u1F89"},
    {0x1F82, "\u1F0A\u0399", "\u1F8A"},
    {0x1F83, "\u1F0B\u0399", "\u1F8B"},
    {0x1F84, "\u1F0C\u0399", "\u1F8C"},
    {0x1F85, "\u1F0D\u0399", "\u1F8D"},
    {0x1F86, "\u1F0E\u0399", "\u1F8E"},
    {0x1F87, "\u1F0F\u0399", "\u1F8F"},
    {0x1F88, "\u1F08\u0399", "\u1F88"},
    {0x1F89, "\u1F09\u0399", "\u1F89"},
    {0x1F8A, "\u1F0A\u0399", "\u1F8A"},
    {0x1F8B, "\u1F0B\u0399", "\u1F8B"},
    {0x1F8C, "\u1F0C\u0399", "\u1F8C"},
    {0x1F8D, "\u1F0D\u0399", "\u1F8D"},
    {0x1F8E, "\u1F0E\u0399", "\u1F8E"},
    {0x1F8F, "\u1F0F\u0399", "\u1F8F"},
    {0x1F90, "\u1F28\u0399", "\u1F98"},
    {0x1F91, "\u1F29\u0399", "\u1F99"},
    {0x1F92, "\u1F2A\u0399", "\u1F9A"},
    {0x1F93, "\u1F2B\u0399", "\u1F9B"},
    {0x1F94, "\u1F2C\u0399", "\u1F9C"},
    {0x1F95, "\u1F2D\u0399", "\u1F9D"},
    {0x1F96, "\u1F2E\u0399", "\u1F9E"},
    {0x1F97, "\u1F2F\u0399", "\u1F9F"},
    {0x1F98, "\u1F28\u0399", "\u1F98"},
    {0x1F99, "\u1F29\u0399", "\u1F99"},
    {0x1F9A, "\u1F2A\u0399", "\u1F9A"},
    {0x1F9B, "\u1F2B\u0399", "\u1F9B"},
    {0x1F9C, "\u1F2C\u0399", "\u1F9C"},
    {0x1F9D, "\u1F2D\u0399", "\u1F9D"},
    {0x1F9E, "\u1F2E\u0399", "\u1F9E"},
    {0x1F9F, "\u1F2F\u0399", "\u1F9F"},
    {0x1FA0, "\u1F68\u0399", "\u1FA8"},
    {0x1FA1, "\u1F69\u0399", "\u1FA9"},
    {0x1FA2, "\u1F6A\u0399", "\u1FAA"},
    {0x1FA3, "\u1F6B\u0399", "\u1FAB"},
    {0x1FA4, "\u1F6C\u0399", "\u1FAC"},
    {0x1FA5, "\u1F6D\u0399", "\u1FAD"},
    {0x1FA6, "\u1F6E\u0399", "\u1FAE"},
    {0x1FA7, "\u1F6F\u0399", "\u1FAF"},
    {0x1FA8, "\u1F68\u0399", "\u1FA8"},
    {0x1FA9, "\u1F69\u0399", "\u1FA9"},
    {0x1FAA, "\u1F6A\u0399", "\u1FAA"},
    {0x1FAB, "\u1F6B\u0399", "\u1FAB"},
    {0x1FAC, "\u1F6C\u0399", "\u1FAC"},
    {0x1FAD, "\u1F6D\u0399", "\u1FAD"},
    {0x1FAE, "\u1F6E\u0399", "\u1FAE"},
    {0x1FAF, "\u1F6F\u0399", "\u1FAF"},
    {0x1FB2, "\u1FBA\u0399", "\u1FBA\u0345"},
    {0x1FB3, "\u0391\u0399", "\u1FBC"},
    {0x1FB4, "\u0386\u0399", "\u0386\u0345"},
    {0x1FB6, "\u0391\u0342", "\u0391\u0342"},
    {0x1FB7, "\u0391\u0342\u0399", "\u0391\u0342\u0345"},
    {0x1FBC, "\u0391\u0399", "\u1FBC"},
    {0x1FC2, "\u1FCA\u0399", "\u1FCA\u0345"},
    {0x1FC3, "\u0397\u0399", "\u1FCC"},
    {0x1FC4, "\u0389\u0399", "\u0389\u0345"},
    {0x1FC6, "\u0397\u0342", "\u0397\u0342"},
    {0x1FC7, "\u0397\u0342\u0399", "\u0397\u0342\u0345"},
    {0x1FCC, "\u0397\u0399", "\u1FCC"},
    {0x1FD2, "\u0399\u0308\u0300", "\u0399\u0308\u0300"},
    {0x1FD3, "\u0399\u0308\u0301", "\u0399\u0308\u0301"},
    {0x1FD6, "\u0399\u0342", "\u0399\u0342"},
    {0x1FD7, "\u0399\u0308\u0342", "\u0399\u0308\u0342"},
    {0x1FE2, "\u03A5\u0308\u0300", "\u03A5\u0308\u0300"},
    {0x1FE3, "\u03A5\u0308\u0301", "\u03A5\u0308\u0301"},
    {0x1FE4, "\u03A1\u0313", "\u03A1\u0313"},
    {0x1FE6, "\u03A5\u0342", "\u03A5\u0342"},
    {0x1FE7, "\u03A5\u0308\u0342", "\u03A5\u0308\u0342"},
    {0x1FF2, "\u1FFA\u0399", "\u1FFA\u0345"},
    {0x1FF3, "\u03A9\u0399", "\u1FFC"},
    {0x1FF4, "\u038F\u0399", "\u038F\u0345"},
    {0x1FF6, "\u03A9\u0342", "\u03A9\u0342"},
    {0x1FF7, "\u03A9\u0342\u0399", "\u03A9\u0342\u0345"},
    {0x1FFC, "\u03A9\u0399", "\u1FFC"},
    {0xFB00, "FF", "Ff"},
    {0xFB01, "FI", "Fi"},
    {0xFB02, "FL", "Fl"},
    {0xFB03, "FFI", "Ffi"},
    {0xFB04, "FFL", "Ffl"},
    {0xFB05, "ST", "St"},
    {0xFB06, "ST", "St"},
    {0xFB13, "\u0544\u0546", "\u0544\u0576"},
    {0xFB14, "\u0544\u0535", "\u0544\u0565"},
    {0xFB15, "\u0544\u053B", "\u0544\u056B"},
    {0xFB16, "\u054E\u0546", "\u054E\u0576"},
    {0xFB17, "\u0544\u053D", "\u0544\u056D"},
};
static const uint32_t digits_other[][2] = {
    {0x00B2, 0x00B3},   {0x00B9, 0x00B9},   {0x1369, 0x1371},   {0x19DA, 0x19DA},
    {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
    {0x2474, 0x247C},   {0x2488, 0x2490},   {0x24EA, 0x24EA},   {0x24F5, 0x24FD},
    {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},   {0x278A, 0x2792},
    {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A},
};

static bool in_ranges(const uint32_t ranges[][2], size_t count, uint32_t code) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > ranges[middle][1])
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && code >= ranges[low][0];
}
#define IN(table, code) in_ranges(table, sizeof(table) / sizeof *(table), code)

static const special *find_special(uint32_t code) {
    size_t low = 0, high = sizeof special_cases / sizeof *special_cases;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > special_cases[middle].code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof special_cases / sizeof *special_cases && special_cases[low].code == code
               ? &special_cases[low]
               : NULL;
}

static utf8proc_category_t category(uint32_t code) {
    return utf8proc_category((utf8proc_int32_t)code);
}

bool lcj_is_lower(uint32_t code) {
    return category(code) == UTF8PROC_CATEGORY_LL || IN(other_lower, code);
}

bool lcj_is_upper(uint32_t code) {
    return category(code) == UTF8PROC_CATEGORY_LU || IN(other_upper, code);
}

bool lcj_is_cased(uint32_t code) {
    return lcj_is_lower(code) || lcj_is_upper(code) || category(code) == UTF8PROC_CATEGORY_LT;
}

bool lcj_is_alpha(uint32_t code) {
    utf8proc_category_t c = category(code);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool lcj_is_decimal(uint32_t code) { return category(code) == UTF8PROC_CATEGORY_ND; }

bool lcj_is_digit(uint32_t code) { return lcj_is_decimal(code) || IN(digits_other, code); }

bool lcj_is_numeric(uint32_t code) {
    utf8proc_category_t c = category(code);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

bool lcj_is_word(uint32_t code) {
    return code == '_' || lcj_is_alpha(code) || lcj_is_numeric(code);
}

bool lcj_is_mark(uint32_t code) {
    utf8proc_category_t c = category(code);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC;
}

bool lcj_is_printable(uint32_t code) {
    if (code < 0x7F) return code >= 0x20;
    switch (category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

/* The property Case_Ignorable: does not end a word for the final sigma. */
static bool is_ignorable(uint32_t code) {
    switch (code) { /* Word_Break MidLetter, MidNumLet and Single_Quote */
    case 0x27:
    case 0x2E:
    case 0x3A:
    case 0xB7:
    case 0x387:
    case 0x55F:
    case 0x5F4:
    case 0x2018:
    case 0x2019:
    case 0x2024:
    case 0x2027:
    case 0xFE13:
    case 0xFE52:
    case 0xFE55:
    case 0xFF07:
    case 0xFF0E:
    case 0xFF1A: return true;
    default: break;
    }
    switch (category(code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: return false;
    }
}

/* Whether the sigma at byte `at` ends a word: a cased letter before it and none behind it. */
static bool is_final_sigma(lcj_val s, size_t at, size_t sigma_len) {
    bool before = false;
    size_t len;
    for (size_t i = at; i > 0;) {
        do i--;
        while (i > 0 && ((unsigned char)s.u.s[i] & 0xC0) == 0x80);
        uint32_t code = lcj_char_at(s.u.s + i, &len);
        if (is_ignorable(code)) continue;
        before = lcj_is_cased(code);
        break;
    }
    if (!before) return false;
    for (size_t i = at + sigma_len; i < s.len; i += len) {
        uint32_t code = lcj_char_at(s.u.s + i, &len);
        if (!is_ignorable(code)) return !lcj_is_cased(code);
    }
    return true;
}

static bool put_lower(lcj_rt *rt, lcj_val s, size_t at, size_t len, uint32_t code) {
    if (code == 0x130) return lcj_put(rt, "i\xCC\x87", 3);
    if (code == 0x3A3) return lcj_put_code(rt, is_final_sigma(s, at, len) ? 0x3C2 : 0x3C3);
    return lcj_put_code(rt, (uint32_t)utf8proc_tolower((utf8proc_int32_t)code));
}

static bool put_upper(lcj_rt *rt, uint32_t code) {
    const special *found = find_special(code);
    if (found) return lcj_put(rt, found->upper, strlen(found->upper));
    return lcj_put_code(rt, (uint32_t)utf8proc_toupper((utf8proc_int32_t)code));
}

static bool put_title(lcj_rt *rt, uint32_t code) {
    const special *found = find_special(code);
    if (found) return lcj_put(rt, found->title, strlen(found->title));
    return lcj_put_code(rt, (uint32_t)utf8proc_totitle((utf8proc_int32_t)code));
}

static bool put_folded(lcj_rt *rt, uint32_t code) {
    utf8proc_int32_t folded[8];
    int boundary = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)code, folded, 8, UTF8PROC_CASEFOLD, &boundary);
    if (n < 0 || n > 8) return lcj_put_code(rt, code);
    for (utf8proc_ssize_t i = 0; i < n; i++)
        if (!lcj_put_code(rt, (uint32_t)folded[i])) return false;
    return true;
}

static char ascii_recased(char c, lcj_case mode, bool first, bool in_word) {
    bool upper = c >= 'A' && c <= 'Z', lower = c >= 'a' && c <= 'z';
    bool raise = mode == LCJ_UPPER || (mode == LCJ_SWAP && lower) ||
                 (mode == LCJ_CAPITALIZE && first) || (mode == LCJ_TITLE && !in_word);
    if (raise) return lower ? (char)(c - 32) : c;
    return upper ? (char)(c + 32) : c;
}

static bool put_ascii_recased(lcj_rt *rt, lcj_val s, lcj_case mode) {
    size_t start = rt->out.len;
    bool in_word = false;
    if (!lcj_tick_chars(rt, s.len) || !lcj_put(rt, s.u.s, s.len)) return false;
    for (char *c = rt->out.data + start, *end = c + s.len, *begin = c; c < end; c++) {
        bool letter = (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z');
        *c = ascii_recased(*c, mode, c == begin, in_word);
        in_word = letter;
    }
    return true;
}

bool lcj_put_recased(lcj_rt *rt, lcj_val s, lcj_case mode) {
    bool in_word = false, first = true;
    if (s.flags & LCJ_ASCII) return !s.len || put_ascii_recased(rt, s, mode);
    if (!lcj_tick(rt, s.len / 2)) return false;
    for (size_t i = 0, len; i < s.len; i += len, first = false) {
        uint32_t code = lcj_char_at(s.u.s + i, &len);
        bool ok;
        switch (mode) {
        case LCJ_LOWER: ok = put_lower(rt, s, i, len, code); break;
        case LCJ_UPPER: ok = put_upper(rt, code); break;
        case LCJ_CAPITALIZE:
            ok = first ? put_title(rt, code) : put_lower(rt, s, i, len, code);
            break;
        case LCJ_TITLE:
            ok = in_word ? put_lower(rt, s, i, len, code) : put_title(rt, code);
            in_word = lcj_is_cased(code);
            break;
        case LCJ_SWAP:
            ok = lcj_is_upper(code)   ? put_lower(rt, s, i, len, code)
                 : lcj_is_lower(code) ? put_upper(rt, code)
                                      : lcj_put(rt, s.u.s + i, len);
            break;
        default: ok = put_folded(rt, code); break;
        }
        if (!ok) return false;
    }
    return true;
}

bool lcj_recase(lcj_rt *rt, lcj_val s, lcj_case mode, lcj_val *out) {
    size_t start = rt->out.len;
    if (!lcj_put_recased(rt, s, mode) || !lcj_take(rt, start, out)) return false;
    out->flags |= s.flags & LCJ_SAFE;
    return true;
}
