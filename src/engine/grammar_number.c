/*
 * grammar_number.c: decimal numbers between bounds, as alternatives of digits. What is written
 * compares with the bounds as a double does: between bounds there are at most 9 digits before the
 * point and 6 behind it, which a double tells apart; whole numbers have up to 18.
 */
#include "engine/grammar_rules.h"

#include "base/err.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_DIGITS = 18, FRACTION = 6, SCALE = 1000000 };
static const int64_t largest = 999999999999999999; /* 18 digits: exact in int64 */
static const int64_t most_whole = 999999999;       /* before a fraction */

static const char zeros[] = "000000000000000000", nines[] = "999999999999999999";

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

/* All numbers of `least` to `most` digits, at least 2. */
static uint32_t any_of_lengths(lc_rules *r, size_t least, size_t most) {
    if (!least) return lc_expr_never(r);
    uint32_t tail = lc_expr_repeat(r, digits(r, 0, 9), (uint32_t)least - 1, (uint32_t)most - 1);
    return lc_expr_seq(r, digits(r, 1, 9), tail);
}

/* 0 <= low <= high, without leading zeros. */
static uint32_t positive(lc_rules *r, int64_t low, int64_t high) {
    uint32_t out = lc_expr_never(r);
    int64_t first = 0, last = 9;   /* of the numbers with n digits */
    size_t least = 0, longest = 0; /* lengths of which all are inside */
    for (size_t n = 1; n <= MOST_DIGITS && first <= high; n++) {
        int64_t l = low > first ? low : first, h = high < last ? high : last;
        if (n > 1 && l == first && h == last) {
            if (!least) least = n;
            longest = n;
        } else if (l <= h) {
            char a[24], b[24];
            snprintf(a, sizeof a, "%lld", (long long)l);
            snprintf(b, sizeof b, "%lld", (long long)h);
            out = lc_expr_alt(r, out, same_length(r, a, b, n));
        }
        first = last + 1;
        if (n < MOST_DIGITS) last = last * 10 + 9;
    }
    return lc_expr_alt(r, out, any_of_lengths(r, least, longest));
}

static uint32_t minus(lc_rules *r) { return lc_expr_text(r, "-", 1); }

uint32_t lc_expr_integer(lc_rules *r, int64_t low, int64_t high) {
    uint32_t out = lc_expr_never(r);
    if (low < -largest) low = -largest;
    if (high > largest) high = largest;
    if (high >= 0 && low <= high) out = positive(r, low > 0 ? low : 0, high);
    if (low < 0 && low <= high)
        out =
            lc_expr_alt(r, out, lc_expr_seq(r, minus(r), positive(r, high < 0 ? -high : 1, -low)));
    return out;
}

/* The digits of a fraction from low to high, of which n are left: at least one, the last one not 0.
 */
static uint32_t fraction(lc_rules *r, const char *low, const char *high, uint32_t n) {
    if (!n) return lc_expr_never(r);
    if (all_are(low, n, '0') && all_are(high, n, '9'))
        return lc_expr_seq(r, lc_expr_repeat(r, digits(r, 0, 9), 0, n - 1), digits(r, 1, 9));
    uint32_t out = lc_expr_never(r);
    for (char d = *low; d <= *high; d++) {
        unsigned digit = (unsigned)(d - '0');
        const char *l = d == *low ? low + 1 : zeros, *h = d == *high ? high + 1 : nines;
        uint32_t rest = fraction(r, l, h, n - 1);
        if (digit && all_are(l, n - 1, '0')) rest = lc_expr_alt(r, 0, rest); /* may end here */
        out = lc_expr_alt(r, out, lc_expr_seq(r, digits(r, digit, digit), rest));
    }
    return out;
}

/* whole.f for whole parts first..last and f from low to high millionths. */
static uint32_t with_fraction(lc_rules *r, int64_t first, int64_t last, int64_t low, int64_t high) {
    char a[24], b[24];
    if (first > last || low > high || high <= 0) return lc_expr_never(r);
    snprintf(a, sizeof a, "%06d", (int)(low > 0 ? low : 1));
    snprintf(b, sizeof b, "%06d", (int)high);
    uint32_t point = lc_expr_text(r, ".", 1);
    if (low <= 1) a[FRACTION - 1] = '0'; /* from 0 on: the last digit isn't 0 anyway */
    return lc_expr_seq(r, positive(r, first, last),
                       lc_expr_seq(r, point, fraction(r, a, b, FRACTION)));
}

bool lc_bounds_hold(const lc_bounds *b, double x) {
    return (b->above ? x > b->low : x >= b->low) && (b->below ? x < b->high : x <= b->high);
}

/* Numbers with a fraction between bounds >= 0. */
static uint32_t fractions(lc_rules *r, const lc_bounds *b) {
    double most = (double)most_whole + 1;
    if (b->low >= most || b->high <= 0) return lc_expr_never(r);
    int64_t low = (int64_t)floor((b->low > 0 ? b->low : 0) * SCALE);
    int64_t high = (int64_t)ceil((b->high < most ? b->high : most) * SCALE);
    /* the products are rounded: go inwards to numbers that hold */
    while (low <= high && !lc_bounds_hold(b, (double)low / SCALE)) low++;
    while (high >= low && !lc_bounds_hold(b, (double)high / SCALE)) high--;
    if (low > high) return lc_expr_never(r);
    int64_t first = low / SCALE, last = high / SCALE;
    if (first == last) return with_fraction(r, first, last, low % SCALE, high % SCALE);
    uint32_t e = with_fraction(r, first, first, low % SCALE, SCALE - 1);
    e = lc_expr_alt(r, e, with_fraction(r, first + 1, last - 1, 0, SCALE - 1));
    return lc_expr_alt(r, e, with_fraction(r, last, last, 0, high % SCALE));
}

static int64_t whole(double x) {
    return x > (double)largest ? largest : x < -(double)largest ? -largest : (int64_t)x;
}

/* [-]n[.f][e[-]x] without bounds: at most two digits of exponent, every reader holds it. */
static uint32_t any_number(lc_rules *r) {
    uint32_t sign = lc_expr_optional(r, minus(r)), some = digits(r, 0, 9);
    uint32_t part = lc_expr_seq(r, lc_expr_text(r, ".", 1), lc_expr_repeat(r, some, 1, 17));
    uint32_t e = lc_expr_seq(r, lc_expr_text(r, "e", 1),
                             lc_expr_seq(r, sign, lc_expr_repeat(r, some, 1, 2)));
    uint32_t tail = lc_expr_seq(r, lc_expr_optional(r, part), lc_expr_optional(r, e));
    return lc_expr_seq(r, sign, lc_expr_seq(r, positive(r, 0, largest), tail));
}

uint32_t lc_expr_number(lc_rules *r, const lc_bounds *b) {
    if (isinf(b->low) && b->low < 0 && isinf(b->high) && b->high > 0) return any_number(r);
    if (!(b->low <= b->high) || b->low > 1e18 || b->high < -1e18) return lc_expr_never(r);
    int64_t low = whole(ceil(b->low)), high = whole(floor(b->high));
    if (b->above && ceil(b->low) == b->low) low++;
    if (b->below && floor(b->high) == b->high) high--;
    uint32_t out = lc_expr_integer(r, low, high);
    out = lc_expr_alt(r, out, fractions(r, b));
    lc_bounds mirror = {-b->high, -b->low, b->below, b->above};
    return lc_expr_alt(r, out, lc_expr_seq(r, minus(r), fractions(r, &mirror)));
}
