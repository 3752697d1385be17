/* grammar_number.c: decimal numbers between bounds, as alternatives of digits. */
#include "engine/grammar_rules.h"

#include "base/err.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_DIGITS = 18, FRACTION = 15 };
static const int64_t largest = 999999999999999999; /* 18 digits: exact in int64 */

static uint32_t digits(lc_rules *r, unsigned low, unsigned high) {
    return lc_expr_bytes(r, '0' + low, '0' + high);
}

static uint32_t any_digits(lc_rules *r, uint32_t n) {
    return lc_expr_repeat(r, digits(r, 0, 9), n, n);
}

static bool all_are(const char *text, size_t n, char c) {
    return strspn(text, (char[]){c, 0}) >= n;
}

/* Numbers of n digits from low to high. */
static uint32_t same_length(lc_rules *r, const char *low, const char *high, size_t n) {
    static const char zeros[] = "000000000000000000", nines[] = "999999999999999999";
    if (n == 0) return 0;
    unsigned l = (unsigned)(*low - '0'), h = (unsigned)(*high - '0');
    if (l == h) return lc_expr_seq(r, digits(r, l, l), same_length(r, low + 1, high + 1, n - 1));
    uint32_t out = lc_expr_never(r);
    if (!all_are(low + 1, n - 1, '0')) {
        out = lc_expr_seq(r, digits(r, l, l), same_length(r, low + 1, nines, n - 1));
        l++;
    }
    if (!all_are(high + 1, n - 1, '9')) {
        uint32_t e = lc_expr_seq(r, digits(r, h, h), same_length(r, zeros, high + 1, n - 1));
        out = lc_expr_alt(r, out, e);
        h--;
    }
    if (l > h) return out;
    return lc_expr_alt(r, out, lc_expr_seq(r, digits(r, l, h), any_digits(r, (uint32_t)n - 1)));
}

/* 0 <= low <= high, without leading zeros. */
static uint32_t positive(lc_rules *r, int64_t low, int64_t high) {
    uint32_t out = lc_expr_never(r);
    int64_t first = 0, last = 9; /* of the numbers with n digits */
    for (size_t n = 1; n <= MOST_DIGITS && first <= high; n++) {
        int64_t l = low > first ? low : first, h = high < last ? high : last;
        if (l <= h) {
            char a[24], b[24];
            snprintf(a, sizeof a, "%lld", (long long)l);
            snprintf(b, sizeof b, "%lld", (long long)h);
            out = lc_expr_alt(r, out, same_length(r, a, b, n));
        }
        first = last + 1;
        last = last * 10 + 9;
    }
    return out;
}

uint32_t lc_expr_integer(lc_rules *r, int64_t low, int64_t high) {
    uint32_t out = lc_expr_never(r);
    if (low < -largest) low = -largest;
    if (high > largest) high = largest;
    if (high >= 0 && low <= high) out = positive(r, low > 0 ? low : 0, high);
    if (low < 0 && low <= high) {
        int64_t nearest = high < 0 ? -high : 1;
        out = lc_expr_alt(r, out,
                          lc_expr_seq(r, lc_expr_text(r, "-", 1), positive(r, nearest, -low)));
    }
    return out;
}

/* A fraction above 0: its last digit isn't 0. */
static uint32_t fraction(lc_rules *r) {
    uint32_t e =
        lc_expr_seq(r, lc_expr_repeat(r, digits(r, 0, 9), 0, FRACTION - 1), digits(r, 1, 9));
    return lc_expr_seq(r, lc_expr_text(r, ".", 1), e);
}

static int64_t whole(double x) {
    return x > (double)largest ? largest : x < -(double)largest ? -largest : (int64_t)x;
}

/* n.f between whole numbers that are themselves inside: |number| from low to high, low >= 0. */
static uint32_t fractions(lc_rules *r, double low, double high) {
    int64_t first = whole(ceil(low)), last = whole(floor(high)) - 1;
    if (first > last) return lc_expr_never(r);
    return lc_expr_seq(r, positive(r, first, last), fraction(r));
}

uint32_t lc_expr_number(lc_rules *r, const lc_bounds *b, const char *place) {
    double low = ceil(b->low), high = floor(b->high);
    if (b->above && low == b->low) low++;
    if (b->below && high == b->high) high--;
    bool unbounded = isinf(b->low) && isinf(b->high);
    uint32_t out = lc_expr_integer(r, whole(low), low <= high ? whole(high) : whole(low) - 1);
    if (b->high > 0) out = lc_expr_alt(r, out, fractions(r, b->low > 0 ? b->low : 0, b->high));
    if (b->low < 0) {
        uint32_t e = fractions(r, b->high < 0 ? -b->high : 0, -b->low);
        out = lc_expr_alt(r, out, lc_expr_seq(r, lc_expr_text(r, "-", 1), e));
    }
    if (unbounded) { /* at most two digits: every reader holds it */
        uint32_t e = lc_expr_seq(r, lc_expr_optional(r, lc_expr_text(r, "-", 1)),
                                 lc_expr_repeat(r, digits(r, 0, 9), 1, 2));
        out = lc_expr_seq(r, out, lc_expr_optional(r, lc_expr_seq(r, lc_expr_text(r, "e", 1), e)));
    }
    if (r->status == LC_OK && r->exprs[out].kind == LC_EXPR_NEVER)
        return lc_rules_fail(r, LC_EUNSUPPORTED, "%s: no whole number lies between the bounds",
                             place);
    return out;
}
