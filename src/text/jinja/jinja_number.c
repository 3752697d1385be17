/*
 * jinja_number.c: numbers as in Python: int, bool and float, their operators, their text.
 *
 * Integers have 64 bits; a result beyond that is "not supported", never a wrong number. Longer
 * integers of a JSON document can be printed and compared, no more (LCJ_BIG). Operators on
 * strings and lists end here too, since + * % are one operator for all types.
 */
#include "text/jinja/jinja_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bool too_big(lcj_rt *rt) { return lcj_unsupported(rt, "an integer beyond 64 bits"); }

/* ---- text ---- */

/* Shortest digits that read back as f (f finite, not 0): digits without trailing zeros, the
 * exponent of the first. */
static int shortest(double f, char digits[24], int *exponent) {
    char text[40];
    bool normal = fabs(f) >= 2.2250738585072014e-308;
    int ignored;
    bool power_of_two = frexp(fabs(f), &ignored) == 0.5;
    for (int precision = normal ? 14 : 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, fabs(f));
        if (strtod(text, NULL) != fabs(f)) {
            /* above a power of two numbers are sparser than below: the next longer text may do */
            char *last = text + precision + (precision ? 1 : 0);
            if (!power_of_two || *last == '9') continue;
            ++*last;
            if (strtod(text, NULL) != fabs(f)) continue;
        }
        break;
    }
    int len = 0;
    for (const char *c = text; *c != 'e'; c++)
        if (*c != '.') digits[len++] = *c;
    *exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    while (len > 1 && digits[len - 1] == '0') len--;
    digits[len] = 0;
    return len;
}

size_t lcj_float_repr(double f, char out[32]) {
    char digits[24];
    int exponent, n = 0;
    if (isnan(f)) return (size_t)snprintf(out, 32, "nan");
    if (isinf(f)) return (size_t)snprintf(out, 32, f < 0 ? "-inf" : "inf");
    if (f == 0) return (size_t)snprintf(out, 32, signbit(f) ? "-0.0" : "0.0");
    int len = shortest(f, digits, &exponent);
    if (f < 0) out[n++] = '-';
    size_t room = 32 - (size_t)n;
    if (exponent < -4 || exponent >= 16)
        n += snprintf(out + n, room, "%c%s%se%c%02d", digits[0], len > 1 ? "." : "", digits + 1,
                      exponent < 0 ? '-' : '+', abs(exponent));
    else if (exponent < 0)
        n += snprintf(out + n, room, "0.%.*s%s", -exponent - 1, "000", digits);
    else
        n += snprintf(out + n, room, "%.*s%.*s.%s", exponent + 1, digits,
                      exponent + 1 > len ? exponent + 1 - len : 0, "000000000000000",
                      len > exponent + 1 ? digits + exponent + 1 : "0");
    return (size_t)n;
}

bool lcj_put_float(lcj_rt *rt, double f) {
    char text[32];
    bool rare = f != 0 && (fabs(f) < 1e-30 || fabs(f) > 1e30); /* printf works with long numbers */
    return lcj_tick(rt, rare ? LCJ_FLOAT_STEPS : 20) && lcj_put(rt, text, lcj_float_repr(f, text));
}

static lcj_str stripped(lcj_rt *rt, lcj_str text) {
    lcj_val v;
    if (!lcj_strip(rt, lcj_text(text), lcj_none(), true, true, &v)) return (lcj_str){"", 0};
    return lcj_bytes(v);
}

static int digit_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'z') return c - 'a' + 10;
    if (c >= 'A' && c <= 'Z') return c - 'A' + 10;
    return 99;
}

static bool only_ascii(lcj_rt *rt, lcj_str s) {
    for (uint32_t i = 0; i < s.len; i++)
        if ((unsigned char)s.s[i] >= 0x80) {
            size_t len;
            if (lcj_is_decimal(lcj_char_at(s.s + i, &len)))
                return lcj_unsupported(rt, "a number with digits that are not ASCII");
            return true;
        }
    return true;
}

/* Skips "0x" and so on where base allows it; base 0 becomes the base found. */
static uint32_t skip_prefix(lcj_str s, uint32_t i, int64_t *base) {
    if (s.len - i >= 2 && s.s[i] == '0') {
        char c = (char)(s.s[i + 1] | 0x20);
        int64_t found = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        if (found && (*base == 0 || *base == found)) {
            *base = found;
            return s.len - i > 2 && s.s[i + 2] == '_' ? i + 3 : i + 2;
        }
    }
    return i;
}

bool lcj_parse_int(lcj_rt *rt, lcj_str text, int64_t base, bool *ok, int64_t *out) {
    lcj_str s = stripped(rt, text);
    *ok = false;
    if (!lcj_tick_chars(rt, s.len) || !only_ascii(rt, s)) return false;
    uint32_t i = 0;
    bool minus = false, any = false, zero_first = false, auto_base = base == 0;
    if (i < s.len && (s.s[i] == '+' || s.s[i] == '-')) minus = s.s[i++] == '-';
    i = skip_prefix(s, i, &base);
    bool prefixed = auto_base && base != 0;
    if (base == 0) base = 10;
    if (base < 2 || base > 36) return true;
    zero_first = auto_base && !prefixed && i < s.len && s.s[i] == '0';
    int64_t value = 0;
    bool overflow = false;
    for (bool digit = false; i < s.len; i++) {
        if (s.s[i] == '_' && digit && i + 1 < s.len) {
            digit = false;
            continue;
        }
        int d = digit_value(s.s[i]);
        if (d >= base || (zero_first && d)) return true;
        digit = any = true;
        overflow |= __builtin_mul_overflow(value, base, &value) ||
                    __builtin_add_overflow(value, minus ? -d : d, &value);
    }
    if (!any) return true;
    if (overflow) return too_big(rt);
    *ok = true;
    *out = value;
    return true;
}

static bool is_word(const char *text, const char *word) { return !strcasecmp(text, word); }

/* digits with single _ between them; returns the end. */
static const char *skip_digits(const char *s, bool *any) {
    *any = false;
    while ((*s >= '0' && *s <= '9') || (*s == '_' && *any && s[1] >= '0' && s[1] <= '9')) {
        *any = true;
        s++;
    }
    return s;
}

static bool is_float_text(const char *s) {
    bool whole, part = false, exponent;
    if (*s == '+' || *s == '-') s++;
    if (is_word(s, "inf") || is_word(s, "infinity") || is_word(s, "nan")) return true;
    s = skip_digits(s, &whole);
    if (*s == '.') s = skip_digits(s + 1, &part);
    if (!whole && !part) return false;
    if (*s == 'e' || *s == 'E') {
        s++;
        if (*s == '+' || *s == '-') s++;
        s = skip_digits(s, &exponent);
        if (!exponent) return false;
    }
    return !*s;
}

bool lcj_parse_float(lcj_rt *rt, lcj_str text, bool *ok, double *out) {
    lcj_str s = stripped(rt, text);
    *ok = false;
    if (!lcj_tick_chars(rt, s.len) || !only_ascii(rt, s)) return false;
    if (!s.len || memchr(s.s, 0, s.len)) return true;
    char *copy = lcj_alloc(rt, s.len + 1);
    if (!copy) return false;
    memcpy(copy, s.s, s.len);
    copy[s.len] = 0;
    if (!is_float_text(copy)) return true;
    char *to = copy;
    for (const char *from = copy; *from; from++)
        if (*from != '_') *to++ = *from;
    *to = 0;
    *ok = true;
    *out = strtod(copy, NULL);
    return lcj_tick(rt, s.len);
}

/* ---- conversion and order ---- */

bool lcj_index(lcj_rt *rt, lcj_val v, int64_t *out) {
    if (v.type == LCJ_BIG) return too_big(rt);
    if (v.type != LCJ_INT && v.type != LCJ_BOOL)
        return lcj_fail(rt, LC_JINJA_TYPE, "'%s' object cannot be interpreted as an integer",
                        lcj_type_name(v));
    *out = lcj_as_int(v);
    return true;
}

bool lcj_float_to_int(lcj_rt *rt, double f, lcj_val *out) {
    if (isnan(f)) return lcj_fail(rt, LC_JINJA_VALUE, "cannot convert float NaN to integer");
    if (isinf(f)) return lcj_fail(rt, LC_JINJA_RUNTIME, "cannot convert float infinity to integer");
    if (f < -9223372036854775808.0 || f >= 9223372036854775808.0) return too_big(rt);
    *out = lcj_int((int64_t)f);
    return true;
}

double lcj_as_double(lcj_val v) {
    if (v.type == LCJ_BIG) return strtod(v.u.s, NULL); /* has a NUL behind it */
    return v.type == LCJ_FLOAT ? v.u.f : (double)lcj_as_int(v);
}

static int int_float_cmp(lcj_val i, double f, bool *unordered) {
    if (isnan(f)) {
        *unordered = true;
        return 1;
    }
    if (i.type == LCJ_BIG) { /* as far as doubles tell them apart */
        double d = lcj_as_double(i);
        return d < f ? -1 : d > f;
    }
    if (f >= 9223372036854775808.0) return -1;
    if (f < -9223372036854775808.0) return 1;
    int64_t a = lcj_as_int(i), whole = (int64_t)floor(f);
    if (a != whole) return a < whole ? -1 : 1;
    return f > (double)whole ? -1 : 0;
}

/* Of two texts of integers without leading zeros. */
static int big_cmp(lcj_val a, lcj_val b) {
    bool minus = a.u.s[0] == '-';
    if (minus != (b.u.s[0] == '-')) return minus ? -1 : 1;
    int order = a.len != b.len ? (a.len < b.len ? -1 : 1) : memcmp(a.u.s, b.u.s, a.len);
    return minus ? -order : order;
}

int lcj_number_cmp(lcj_val a, lcj_val b, bool *unordered) {
    if (a.type == LCJ_FLOAT && b.type == LCJ_FLOAT) {
        *unordered = isnan(a.u.f) || isnan(b.u.f);
        return a.u.f < b.u.f ? -1 : a.u.f > b.u.f;
    }
    if (b.type == LCJ_FLOAT) return int_float_cmp(a, b.u.f, unordered);
    if (a.type == LCJ_FLOAT) return -int_float_cmp(b, a.u.f, unordered);
    if (a.type == LCJ_BIG && b.type == LCJ_BIG) return big_cmp(a, b);
    if (a.type == LCJ_BIG) return a.u.s[0] == '-' ? -1 : 1;
    if (b.type == LCJ_BIG) return b.u.s[0] == '-' ? 1 : -1;
    int64_t x = lcj_as_int(a), y = lcj_as_int(b);
    return x < y ? -1 : x > y;
}

/* ---- arithmetic ---- */

static bool zero_division(lcj_rt *rt, const char *what) {
    return lcj_fail(rt, LC_JINJA_ZERO_DIVISION, "%s", what);
}

/* a / b rounded once, as Python divides integers. */
static double divide_ints(int64_t a, int64_t b) {
    const int64_t exact = (int64_t)1 << 53;
    if (a >= -exact && a <= exact && b >= -exact && b <= exact) return (double)a / (double)b;
    bool minus = (a < 0) != (b < 0);
    uint64_t x = a < 0 ? 0 - (uint64_t)a : (uint64_t)a, y = b < 0 ? 0 - (uint64_t)b : (uint64_t)b;
    if (!x) return minus ? -0.0 : 0.0;
    /* a quotient of 55 to 64 bits, its last bit 1 if a remainder is left */
    int shift = 55 - (__builtin_clzll(y) - __builtin_clzll(x));
    if (shift < 0) shift = 0;
    unsigned __int128 wide = (unsigned __int128)x << shift;
    uint64_t q = (uint64_t)(wide / y) | (wide % y != 0);
    int drop = 64 - __builtin_clzll(q) - 53;
    if (drop > 0) {
        uint64_t rest = q & (((uint64_t)1 << drop) - 1), half = (uint64_t)1 << (drop - 1);
        q >>= drop;
        if (rest > half || (rest == half && q & 1)) q++;
    } else {
        drop = 0;
    }
    double f = ldexp((double)q, drop - shift);
    return minus ? -f : f;
}

static bool int_pow(lcj_rt *rt, int64_t a, int64_t b, lcj_val *out) {
    if (b < 0) {
        if (!a) return zero_division(rt, "0.0 cannot be raised to a negative power");
        *out = lcj_float(pow((double)a, (double)b));
        return true;
    }
    int64_t result = 1;
    while (b) {
        if (b & 1 && __builtin_mul_overflow(result, a, &result)) return too_big(rt);
        b >>= 1;
        if (b && __builtin_mul_overflow(a, a, &a)) return too_big(rt);
    }
    *out = lcj_int(result);
    return true;
}

static bool int_arith(lcj_rt *rt, lcj_op op, int64_t a, int64_t b, lcj_val *out) {
    int64_t r = 0;
    bool overflow = false;
    switch (op) {
    case LCJ_ADD: overflow = __builtin_add_overflow(a, b, &r); break;
    case LCJ_SUB: overflow = __builtin_sub_overflow(a, b, &r); break;
    case LCJ_MUL: overflow = __builtin_mul_overflow(a, b, &r); break;
    case LCJ_DIV:
        if (!b) return zero_division(rt, "division by zero");
        *out = lcj_float(divide_ints(a, b));
        return true;
    case LCJ_FLOORDIV:
        if (!b) return zero_division(rt, "integer division or modulo by zero");
        overflow = a == INT64_MIN && b == -1;
        if (!overflow) r = a / b - (a % b != 0 && (a < 0) != (b < 0));
        break;
    case LCJ_MOD:
        if (!b) return zero_division(rt, "integer modulo by zero");
        r = b == -1 ? 0 : a % b;
        if (r && (r < 0) != (b < 0)) r += b;
        break;
    default: return int_pow(rt, a, b, out);
    }
    if (overflow) return too_big(rt);
    *out = lcj_int(r);
    return true;
}

/* The remainder with b's sign, and *div = the floor of a / b, as Python computes both. */
static double float_mod(double a, double b, double *div) {
    double mod = fmod(a, b);
    *div = (a - mod) / b;
    if (mod != 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            *div -= 1;
        }
    } else {
        mod = copysign(0, b);
    }
    if (*div != 0) {
        double whole = floor(*div);
        *div = *div - whole > 0.5 ? whole + 1 : whole;
    } else {
        *div = copysign(0, a / b);
    }
    return mod;
}

static bool float_pow(lcj_rt *rt, double a, double b, lcj_val *out) {
    if (a == 0 && b < 0) return zero_division(rt, "0.0 cannot be raised to a negative power");
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
        return lcj_unsupported(rt, "a complex number");
    double r = pow(a, b);
    if (isinf(r) && isfinite(a) && isfinite(b))
        return lcj_fail(rt, LC_JINJA_RUNTIME, "Numerical result out of range");
    *out = lcj_float(r);
    return true;
}

static bool float_arith(lcj_rt *rt, lcj_op op, double a, double b, lcj_val *out) {
    double div;
    switch (op) {
    case LCJ_ADD: *out = lcj_float(a + b); return true;
    case LCJ_SUB: *out = lcj_float(a - b); return true;
    case LCJ_MUL: *out = lcj_float(a * b); return true;
    case LCJ_POW: return float_pow(rt, a, b, out);
    default: break;
    }
    if (b == 0)
        return zero_division(rt, op == LCJ_DIV ? "float division by zero"
                                               : "float floor division or modulo by zero");
    if (op == LCJ_DIV) {
        *out = lcj_float(a / b);
        return true;
    }
    double mod = float_mod(a, b, &div);
    *out = lcj_float(op == LCJ_MOD ? mod : div);
    return true;
}

static const char *op_name(lcj_op op) {
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    return names[op];
}

static bool repeat(lcj_rt *rt, lcj_val seq, lcj_val times, lcj_val *out) {
    int64_t count = times.type != LCJ_BIG ? lcj_as_int(times)
                    : times.u.s[0] == '-' ? INT64_MIN
                                          : INT64_MAX;
    if (lcj_is_string(seq)) {
        size_t start = rt->out.len;
        if (!lcj_put_repeat(rt, seq.u.s, seq.len, count) || !lcj_take(rt, start, out)) return false;
        out->flags |= seq.flags & LCJ_SAFE;
        return true;
    }
    size_t len = seq.u.list->len, total;
    if (count < 0) count = 0;
    if (!lc_size_mul(len, (size_t)count, &total) || total > rt->limit / sizeof(lcj_val))
        return lcj_limit(rt, "memory");
    lcj_val *items = lcj_alloc(rt, total * sizeof *items);
    if (!items || !lcj_tick(rt, total / 4)) return false;
    for (size_t i = 0; i < total; i++) items[i] = seq.u.list->items[i % len];
    return lcj_list_new(rt, seq.type, items, total, out);
}

static bool add_strings(lcj_rt *rt, lcj_val a, lcj_val b, lcj_val *out) {
    if (!((a.flags | b.flags) & LCJ_SAFE)) return lcj_concat(rt, a, b, out);
    return lcj_escape(rt, a, &a) && lcj_escape(rt, b, &b) && lcj_concat(rt, a, b, out);
}

static bool is_repeatable(lcj_val v) { return lcj_is_string(v) || lcj_is_seq(v); }

bool lcj_arith(lcj_rt *rt, lcj_op op, lcj_val a, lcj_val b, lcj_val *out) {
    if (lcj_is_number(a) && lcj_is_number(b)) {
        if (a.type == LCJ_FLOAT || b.type == LCJ_FLOAT)
            return float_arith(rt, op, lcj_as_double(a), lcj_as_double(b), out);
        if (a.type == LCJ_BIG || b.type == LCJ_BIG) return too_big(rt);
        return int_arith(rt, op, lcj_as_int(a), lcj_as_int(b), out);
    }
    if (op == LCJ_MOD && lcj_is_string(a)) return lcj_percent(rt, a, b, out);
    if (lcj_is_undefined(a)) return lcj_fail_undefined(rt, a);
    if (lcj_is_undefined(b)) return lcj_fail_undefined(rt, b);
    if (op == LCJ_ADD) {
        if (lcj_is_string(a) && lcj_is_string(b)) return add_strings(rt, a, b, out);
        if (lcj_is_seq(a) && a.type == b.type) return lcj_list_concat(rt, a, b, out);
        if (is_repeatable(a))
            return lcj_fail(rt, LC_JINJA_TYPE, "can only concatenate %s (not \"%s\") to %s",
                            lcj_type_name(a), lcj_type_name(b), lcj_type_name(a));
    }
    if (op == LCJ_MUL && is_repeatable(a) && lcj_is_integer(b)) return repeat(rt, a, b, out);
    if (op == LCJ_MUL && is_repeatable(b) && lcj_is_integer(a)) return repeat(rt, b, a, out);
    if (a.type == LCJ_VIEW || b.type == LCJ_VIEW)
        return lcj_unsupported(rt, "arithmetic on dict views");
    return lcj_fail(rt, LC_JINJA_TYPE, "unsupported operand type(s) for %s: '%s' and '%s'",
                    op_name(op), lcj_type_name(a), lcj_type_name(b));
}

bool lcj_negate(lcj_rt *rt, lcj_val a, bool minus, lcj_val *out) {
    switch (a.type) {
    case LCJ_FLOAT: *out = lcj_float(minus ? -a.u.f : a.u.f); return true;
    case LCJ_BOOL:
    case LCJ_INT:
        if (minus && lcj_as_int(a) == INT64_MIN) return too_big(rt);
        *out = lcj_int(minus ? -lcj_as_int(a) : lcj_as_int(a));
        return true;
    case LCJ_BIG:
        if (minus) return too_big(rt);
        *out = a;
        return true;
    case LCJ_UNDEFINED: return lcj_fail_undefined(rt, a);
    default:
        return lcj_fail(rt, LC_JINJA_TYPE, "bad operand type for unary %s: '%s'", minus ? "-" : "+",
                        lcj_type_name(a));
    }
}

/* ---- rounding ---- */

/* To a multiple of 10^k, k > 0, half to even on the exact value. */
static double round_up_there(double f, int k) {
    char text[400];
    snprintf(text, sizeof text, "%.20e", f);
    int places = (int)strtol(strchr(text, 'e') + 1, NULL, 10) + 1 - k; /* digits that stay */
    if (places < 0) return copysign(0, f);
    if (places == 0) {
        double unit = pow(10, k);
        return copysign(fabs(f) > unit / 2 ? unit : 0, f);
    }
    snprintf(text, sizeof text, "%.*e", places - 1, f);
    return strtod(text, NULL);
}

bool lcj_round(lcj_rt *rt, double f, int64_t digits, double *out) {
    char text[700];
    *out = f;
    if (!isfinite(f) || digits > 323) return true;
    if (!lcj_tick(rt, LCJ_FLOAT_STEPS)) return false;
    if (digits < -308)
        *out = copysign(0, f);
    else if (digits < 0)
        *out = round_up_there(f, (int)-digits);
    else {
        snprintf(text, sizeof text, "%.*f", (int)digits, f);
        *out = strtod(text, NULL);
    }
    if (isinf(*out)) return lcj_fail(rt, LC_JINJA_RUNTIME, "rounded value too large to represent");
    return true;
}
