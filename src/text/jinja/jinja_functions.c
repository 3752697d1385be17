/*
 * jinja_functions.c: the global functions: range, dict, namespace, cycler, joiner, raise_exception
 * and strftime_now.
 */
#include "text/jinja/jinja_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

/* ---- range, dict, namespace ---- */

static bool make_range(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    int64_t v[3] = {0, 0, 1};
    uint64_t len = 0;
    for (int i = 0; i < 3; i++)
        if (call->bound[i].type != LCJ_MISSING && !lcj_index(rt, call->bound[i], &v[i]))
            return false;
    if (call->bound[1].type == LCJ_MISSING) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (!v[2]) return lcj_fail(rt, LC_JINJA_VALUE, "range() arg 3 must not be zero");
    if (v[2] > 0 && v[0] < v[1]) len = ((uint64_t)v[1] - (uint64_t)v[0] - 1) / (uint64_t)v[2] + 1;
    if (v[2] < 0 && v[1] < v[0])
        len = ((uint64_t)v[0] - (uint64_t)v[1] - 1) / (0 - (uint64_t)v[2]) + 1;
    if (len > LCJ_RANGE)
        return lcj_fail(rt, LC_JINJA_LIMIT, "Range too big. The limit of items in a range is %d",
                        LCJ_RANGE);
    lcj_range *range = lcj_alloc(rt, sizeof *range);
    if (!range) return false;
    *range = (lcj_range){v[0], v[1], v[2], (int64_t)len};
    *out = (lcj_val){.type = LCJ_RANGE_OBJ, .u.range = range};
    return true;
}

static bool add_pair(lcj_rt *rt, lcj_dict *dict, lcj_val pair) {
    lcj_val list;
    if (!lcj_iterable(pair))
        return lcj_fail(rt, LC_JINJA_TYPE,
                        "cannot convert dictionary update sequence element to a sequence");
    if (!lcj_to_list(rt, pair, LCJ_LIST, &list)) return false;
    if (list.u.list->len != 2)
        return lcj_fail(rt, LC_JINJA_VALUE,
                        "dictionary update sequence element has length %u; 2 is required",
                        list.u.list->len);
    return lcj_dict_set(rt, dict, list.u.list->items[0], list.u.list->items[1]);
}

static bool add_all(lcj_rt *rt, lcj_dict *dict, lcj_val src) {
    lcj_iter it;
    lcj_val pair;
    if (src.type == LCJ_DICT) {
        for (uint32_t i = 0; i < src.u.dict->len; i++)
            if (!lcj_dict_set(rt, dict, src.u.dict->entries[i].key, src.u.dict->entries[i].value))
                return false;
        return true;
    }
    if (lcj_is_undefined(src)) return lcj_fail_undefined(rt, src); /* Python asks it for keys */
    if (!lcj_iter_open(rt, src, &it)) return false;
    for (int n; (n = lcj_iter_next(rt, &it, &pair)) != 0;)
        if (n < 0 || !add_pair(rt, dict, pair)) return false;
    return true;
}

static bool make_dict(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    if (call->n_args > 1)
        return lcj_fail(rt, LC_JINJA_TYPE, "dict expected at most 1 argument, got %u",
                        call->n_args);
    if (!lcj_dict_new(rt, call->n_kwargs, out)) return false;
    if (call->n_args && !add_all(rt, out->u.dict, call->args[0])) return false;
    for (uint32_t i = 0; i < call->n_kwargs; i++)
        if (!lcj_dict_set(rt, out->u.dict, lcj_text(call->kwargs[i].name), call->kwargs[i].value))
            return false;
    return true;
}

static bool dict_fromkeys(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val key, value = call->bound[1].type == LCJ_MISSING ? lcj_none() : call->bound[1];
    lcj_iter it;
    if (!lcj_dict_new(rt, 0, out) || !lcj_iter_open(rt, call->bound[0], &it)) return false;
    for (int n; (n = lcj_iter_next(rt, &it, &key)) != 0;)
        if (n < 0 || !lcj_dict_set(rt, out->u.dict, key, value)) return false;
    return true;
}

/* The reference's dict is no class but an object with these two abilities. */
const lcj_def lcj_dict_attributes[] = {
    {"fromkeys", dict_fromkeys, "iterable- value?-", LCJ_DEF_PLAIN}, {NULL, NULL, NULL, 0}};

static bool make_namespace(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    if (!make_dict(rt, call, out)) return false;
    for (uint32_t i = 0; i < out->u.dict->len; i++) {
        lcj_val key = out->u.dict->entries[i].key;
        if (lcj_is_string(key) && key.len && key.u.s[0] == '_')
            return lcj_fail(rt, LC_JINJA_SECURITY, "a namespace has no attribute '%.*s'",
                            key.len > 80 ? 80 : (int)key.len, key.u.s);
    }
    out->type = LCJ_NAMESPACE;
    return true;
}

/* ---- cycler, joiner ---- */

static bool new_cycler(lcj_rt *rt, lcj_type type, const lcj_val *items, size_t len, lcj_val *out) {
    lcj_val list;
    lcj_cycler *cycler = lcj_alloc(rt, sizeof *cycler);
    if (!cycler || !lcj_list_new(rt, LCJ_LIST, items, len, &list)) return false;
    *cycler = (lcj_cycler){.items = *list.u.list};
    *out = (lcj_val){.type = (uint8_t)type, .u.cycler = cycler};
    return true;
}

static bool make_cycler(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    if (call->n_kwargs) return lcj_fail(rt, LC_JINJA_TYPE, "cycler() takes no keyword arguments");
    if (!call->n_args)
        return lcj_fail(rt, LC_JINJA_RUNTIME, "at least one item has to be provided");
    return new_cycler(rt, LCJ_CYCLER, call->args, call->n_args, out);
}

static bool cycler_next(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_cycler *cycler = call->self.u.cycler;
    (void)rt;
    *out = cycler->items.items[cycler->pos];
    cycler->pos = (cycler->pos + 1) % cycler->items.len;
    return true;
}

static bool cycler_reset(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    (void)rt;
    call->self.u.cycler->pos = 0;
    *out = lcj_none();
    return true;
}

const lcj_def lcj_cycler_methods[] = {{"next", cycler_next, "", LCJ_DEF_PLAIN},
                                      {"reset", cycler_reset, "", LCJ_DEF_PLAIN},
                                      {NULL, NULL, NULL, 0}};

static bool make_joiner(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val sep = call->bound[0];
    if (sep.type == LCJ_MISSING) sep = lcj_text(LCJ_STR(", "));
    return new_cycler(rt, LCJ_JOINER, &sep, 1, out);
}

/* ---- raise_exception, strftime_now ---- */

static bool raise_exception(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    lcj_val text;
    (void)out;
    if (!lcj_to_str(rt, call->bound[0], &text)) return false;
    int len = text.len > LCJ_MESSAGE ? LCJ_MESSAGE : (int)text.len;
    return lcj_fail(rt, LC_JINJA_RAISED, "%.*s", len, text.u.s);
}

static bool put_number(lcj_rt *rt, int64_t value, int width, char pad, char flag) {
    char text[32];
    if (flag == '_') pad = ' ';
    if (flag == '0') pad = '0';
    int len = flag == '-'  ? snprintf(text, sizeof text, "%" PRId64, value)
              : pad == '0' ? snprintf(text, sizeof text, "%0*" PRId64, width, value)
                           : snprintf(text, sizeof text, "%*" PRId64, width, value);
    return lcj_put(rt, text, (size_t)len);
}

/* flags as in glibc: "^" is upper case, "#" too but for AM and PM */
static bool put_word(lcj_rt *rt, const char *word, size_t len, char flag) {
    if (flag != '^' && flag != '#') return lcj_put(rt, word, len);
    bool lower = flag == '#' && word[1] == 'M';
    return lcj_put_recased(rt, lcj_string(word, len), lower ? LCJ_LOWER : LCJ_UPPER);
}

/* ISO 8601 week and its year. */
static int iso_week(const struct tm *tm, int *year) {
    int day = (tm->tm_wday + 6) % 7; /* Monday = 0 */
    int week = (tm->tm_yday - day + 10) / 7;
    *year = tm->tm_year + 1900;
    bool leap_before = (*year - 1) % 4 == 0 && ((*year - 1) % 100 != 0 || (*year - 1) % 400 == 0);
    bool leap = *year % 4 == 0 && (*year % 100 != 0 || *year % 400 == 0);
    if (week < 1) {
        --*year;
        int days = tm->tm_yday + 365 + leap_before;
        return (days - day + 10) / 7;
    }
    if (week == 53 && tm->tm_yday - day + 3 >= 365 + leap) {
        ++*year;
        return 1;
    }
    return week;
}

static bool put_directive(lcj_rt *rt, const struct tm *tm, char c, char flag);

static bool put_composed(lcj_rt *rt, const struct tm *tm, const char *parts) {
    for (; *parts; parts++) {
        bool ok = *parts == '%' ? put_directive(rt, tm, *++parts, 0) : lcj_putc(rt, *parts);
        if (!ok) return false;
    }
    return true;
}

static bool put_directive(lcj_rt *rt, const struct tm *tm, char c, char flag) {
    static const char *const days[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                       "Thursday", "Friday", "Saturday"};
    static const char *const months[] = {"January",   "February", "March",    "April",
                                         "May",       "June",     "July",     "August",
                                         "September", "October",  "November", "December"};
    const char *day = days[tm->tm_wday], *month = months[tm->tm_mon];
    int year = tm->tm_year + 1900, hour12 = tm->tm_hour % 12 ? tm->tm_hour % 12 : 12, iso;
    int week = iso_week(tm, &iso);
    switch (c) {
    case 'a': return put_word(rt, day, 3, flag);
    case 'A': return put_word(rt, day, strlen(day), flag);
    case 'b':
    case 'h': return put_word(rt, month, 3, flag);
    case 'B': return put_word(rt, month, strlen(month), flag);
    case 'c': return put_composed(rt, tm, "%a %b %e %H:%M:%S %Y");
    case 'C': return put_number(rt, year / 100, 2, '0', flag);
    case 'd': return put_number(rt, tm->tm_mday, 2, '0', flag);
    case 'D':
    case 'x': return put_composed(rt, tm, "%m/%d/%y");
    case 'e': return put_number(rt, tm->tm_mday, 2, ' ', flag);
    case 'f': return lcj_put(rt, "000000", 6);
    case 'F': return put_composed(rt, tm, "%Y-%m-%d");
    case 'g': return put_number(rt, iso % 100, 2, '0', flag);
    case 'G': return put_number(rt, iso, 4, '0', flag);
    case 'H': return put_number(rt, tm->tm_hour, 2, '0', flag);
    case 'I': return put_number(rt, hour12, 2, '0', flag);
    case 'j': return put_number(rt, tm->tm_yday + 1, 3, '0', flag);
    case 'k': return put_number(rt, tm->tm_hour, 2, ' ', flag);
    case 'l': return put_number(rt, hour12, 2, ' ', flag);
    case 'm': return put_number(rt, tm->tm_mon + 1, 2, '0', flag);
    case 'M': return put_number(rt, tm->tm_min, 2, '0', flag);
    case 'n': return lcj_putc(rt, '\n');
    case 'p': return put_word(rt, tm->tm_hour < 12 ? "AM" : "PM", 2, flag);
    case 'P': return put_word(rt, tm->tm_hour < 12 ? "am" : "pm", 2, flag);
    case 'r': return put_composed(rt, tm, "%I:%M:%S %p");
    case 'R': return put_composed(rt, tm, "%H:%M");
    case 'S': return put_number(rt, tm->tm_sec, 2, '0', flag);
    case 't': return lcj_putc(rt, '\t');
    case 'T':
    case 'X': return put_composed(rt, tm, "%H:%M:%S");
    case 'u': return put_number(rt, tm->tm_wday ? tm->tm_wday : 7, 1, '0', flag);
    case 'U': return put_number(rt, (tm->tm_yday + 7 - tm->tm_wday) / 7, 2, '0', flag);
    case 'V': return put_number(rt, week, 2, '0', flag);
    case 'w': return put_number(rt, tm->tm_wday, 1, '0', flag);
    case 'W': return put_number(rt, (tm->tm_yday + 7 - (tm->tm_wday + 6) % 7) / 7, 2, '0', flag);
    case 'y': return put_number(rt, year % 100, 2, '0', flag);
    case 'Y': return put_number(rt, year, year < 1000 ? 1 : 4, '0', flag);
    case 'z':
    case 'Z': return true; /* the reference's clock has no zone */
    case '%': return lcj_putc(rt, '%');
    default:
        return lcj_fail(rt, LC_JINJA_UNSUPPORTED, "%%%c in strftime_now is not supported",
                        c > ' ' && c < 0x7F ? c : '?');
    }
}

static bool strftime_now(lcj_rt *rt, lcj_call *call, lcj_val *out) {
    struct tm tm;
    lcj_val format = call->bound[0];
    time_t now = (time_t)rt->job->now;
    if (!lcj_is_string(format))
        return lcj_fail(rt, LC_JINJA_TYPE, "strftime() argument 1 must be str, not %s",
                        lcj_type_name(format));
    if (!now) now = time(NULL);
    if (!(rt->job->now ? gmtime_r(&now, &tm) : localtime_r(&now, &tm)) || tm.tm_year > 8099 ||
        tm.tm_year < -1899)
        return lcj_fail(rt, LC_JINJA_VALUE, "the clock is out of range");
    size_t start = rt->out.len;
    for (uint32_t i = 0; i < format.len; i++) {
        char c = format.u.s[i], flag = 0;
        if (c != '%') {
            if (!lcj_putc(rt, c)) return false;
            continue;
        }
        if (++i < format.len && format.u.s[i] && strchr("-_0^#", format.u.s[i]))
            flag = format.u.s[i++];
        c = i < format.len ? format.u.s[i] : 0;
        if (!put_directive(rt, &tm, c, flag)) return false;
    }
    return lcj_tick(rt, format.len) && lcj_take(rt, start, out);
}

const lcj_def lcj_functions[] = {{"range", make_range, "start- stop?- step?-", LCJ_DEF_PLAIN},
                                 {"dict", make_dict, "*", LCJ_DEF_PLAIN},
                                 {"namespace", make_namespace, "*", LCJ_DEF_PLAIN},
                                 {"cycler", make_cycler, "*", LCJ_DEF_PLAIN},
                                 {"joiner", make_joiner, "sep?", LCJ_DEF_PLAIN},
                                 {"raise_exception", raise_exception, "message", LCJ_DEF_PLAIN},
                                 {"strftime_now", strftime_now, "format", LCJ_DEF_PLAIN},
                                 {"lipsum", NULL, "*", LCJ_DEF_PLAIN},
                                 {NULL, NULL, NULL, 0}};
