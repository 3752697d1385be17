/*
 * jinja_tests.c: what may stand behind "is". The same table serves select, reject and their kin,
 * where a test may be named by an operator.
 */
#include "text/jinja/jinja_internal.h"

static bool say(lcj_val *out, bool yes) {
    *out = lcj_bool(yes);
    return true;
}

#define TEST(name, condition)                                                                      \
    static bool name(lcj_rt *rt, lcj_call *call, lcj_val *out) {                                   \
        lcj_val v = call->self;                                                                    \
        (void)rt;                                                                                  \
        return say(out, condition);                                                                \
    }

TEST(test_defined, v.type != LCJ_UNDEFINED)
TEST(test_undefined, v.type == LCJ_UNDEFINED)
TEST(test_none, v.type == LCJ_NONE)
TEST(test_boolean, v.type == LCJ_BOOL)
TEST(test_true, v.type == LCJ_BOOL && v.u.b)
TEST(test_false, v.type == LCJ_BOOL && !v.u.b)
TEST(test_integer, v.type == LCJ_INT || v.type == LCJ_BIG)
TEST(test_float, v.type == LCJ_FLOAT)
TEST(test_number, lcj_is_number(v))
TEST(test_string, v.type == LCJ_STRING)
TEST(test_mapping, v.type == LCJ_DICT)
TEST(test_iterable, lcj_iterable(v))
TEST(test_escaped, v.type == LCJ_STRING && v.flags & LCJ_SAFE)
TEST(test_callable, v.type == LCJ_FUNC || v.type == LCJ_METHOD || v.type == LCJ_MACRO ||
                        v.type == LCJ_LOOP || v.type == LCJ_JOINER || v.type == LCJ_UNDEFINED)
/* len() and [] */
TEST(test_sequence, v.type == LCJ_STRING || lcj_is_seq(v) || v.type == LCJ_DICT ||
                        v.type == LCJ_RANGE_OBJ || v.type == LCJ_UNDEFINED)
TEST(test_sameas, lcj_identical(v, call->bound[0]))

static bool test_odd_even(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val rest;
    bool equal;
    int64_t want = call->def->name[0] == 'o';
    if (lcj_is_string(call->self)) /* "%" would format it */
        return lcj_fail(rt, LC_JINJA_TYPE, "not all arguments converted during string formatting");
    return lcj_arith(rt, LCJ_MOD, call->self, lcj_int(2), &rest) &&
           lcj_equal(rt, rest, lcj_int(want), &equal) && say(out, equal);
}

static bool test_divisibleby(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val rest;
    bool equal;
    return lcj_arith(rt, LCJ_MOD, call->self, call->bound[0], &rest) &&
           lcj_equal(rt, rest, lcj_int(0), &equal) && say(out, equal);
}

static bool test_compare(lcj_rt *rt, lcj_call *call, lcj_val *out, lcj_op op) {
    bool yes;
    return lcj_compare(rt, op, call->self, call->bound[0], &yes) && say(out, yes);
}

#define COMPARISON(name, op)                                                                       \
    static bool name(lcj_rt *rt, lcj_call *call, lcj_val *out) {                                   \
        return test_compare(rt, call, out, op);                                                    \
    }

COMPARISON(test_eq, LCJ_EQ)
COMPARISON(test_ne, LCJ_NE)
COMPARISON(test_lt, LCJ_LT)
COMPARISON(test_le, LCJ_LE)
COMPARISON(test_gt, LCJ_GT)
COMPARISON(test_ge, LCJ_GE)
COMPARISON(test_in, LCJ_IN)

static bool test_case(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val text;
    bool yes;
    return lcj_to_str(rt, call->self, &text) &&
           lcj_str_is_case(rt, text, call->def->name[0] == 'u', &yes) && say(out, yes);
}

static bool test_filter(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    bool named = lcj_is_string(call->self);
    (void)rt;
    return say(out, named && lcj_find_filter(lcj_bytes(call->self)));
}

static bool test_test(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    bool named = lcj_is_string(call->self);
    (void)rt;
    return say(out, named && lcj_find_test(lcj_bytes(call->self)));
}

const lcj_def lcj_tests[] = {{"defined", test_defined, "", LCJ_DEF_PLAIN},
                             {"undefined", test_undefined, "", LCJ_DEF_PLAIN},
                             {"none", test_none, "", LCJ_DEF_PLAIN},
                             {"string", test_string, "", LCJ_DEF_PLAIN},
                             {"mapping", test_mapping, "", LCJ_DEF_PLAIN},
                             {"iterable", test_iterable, "", LCJ_DEF_PLAIN},
                             {"sequence", test_sequence, "", LCJ_DEF_PLAIN},
                             {"boolean", test_boolean, "", LCJ_DEF_PLAIN},
                             {"true", test_true, "", LCJ_DEF_PLAIN},
                             {"false", test_false, "", LCJ_DEF_PLAIN},
                             {"integer", test_integer, "", LCJ_DEF_PLAIN},
                             {"float", test_float, "", LCJ_DEF_PLAIN},
                             {"number", test_number, "", LCJ_DEF_PLAIN},
                             {"odd", test_odd_even, "", LCJ_DEF_PLAIN},
                             {"even", test_odd_even, "", LCJ_DEF_PLAIN},
                             {"divisibleby", test_divisibleby, "num", LCJ_DEF_PLAIN},
                             {"sameas", test_sameas, "other", LCJ_DEF_PLAIN},
                             {"escaped", test_escaped, "", LCJ_DEF_PLAIN},
                             {"callable", test_callable, "", LCJ_DEF_PLAIN},
                             {"lower", test_case, "", LCJ_DEF_PLAIN},
                             {"upper", test_case, "", LCJ_DEF_PLAIN},
                             {"filter", test_filter, "", LCJ_DEF_PLAIN},
                             {"test", test_test, "", LCJ_DEF_PLAIN},
                             {"in", test_in, "seq", LCJ_DEF_PLAIN},
                             {"==", test_eq, "other-", LCJ_DEF_PLAIN},
                             {"eq", test_eq, "other-", LCJ_DEF_PLAIN},
                             {"equalto", test_eq, "other-", LCJ_DEF_PLAIN},
                             {"!=", test_ne, "other-", LCJ_DEF_PLAIN},
                             {"ne", test_ne, "other-", LCJ_DEF_PLAIN},
                             {">", test_gt, "other-", LCJ_DEF_PLAIN},
                             {"gt", test_gt, "other-", LCJ_DEF_PLAIN},
                             {"greaterthan", test_gt, "other-", LCJ_DEF_PLAIN},
                             {">=", test_ge, "other-", LCJ_DEF_PLAIN},
                             {"ge", test_ge, "other-", LCJ_DEF_PLAIN},
                             {"<", test_lt, "other-", LCJ_DEF_PLAIN},
                             {"lt", test_lt, "other-", LCJ_DEF_PLAIN},
                             {"lessthan", test_lt, "other-", LCJ_DEF_PLAIN},
                             {"<=", test_le, "other-", LCJ_DEF_PLAIN},
                             {"le", test_le, "other-", LCJ_DEF_PLAIN},
                             {NULL, NULL, NULL, 0}};
