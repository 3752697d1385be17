/*
 * test_jinja_limits.c: that the interpreter's limits bound time, memory and stack whatever a
 * template does (uses-threads: renders on a small stack). Each template of the first list repeats
 * one operation on large values until the steps are used up; a step must not take long in any.
 */
#include "test.h"
#include "text/jinja/jinja.h"

#include <pthread.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1, STACK = 8 << 20 };
#else
enum { SANITIZED = 0, STACK = 1 << 20 };
#endif

enum { STEPS = SANITIZED ? 50000 : 1000000, MAX_MS = 200, MEMORY = 64 << 20 };

/* s: 1 MB outside of ASCII, a: 1 MB, sp: words, r: 99,999 numbers, l: 1,000 strings. */
static const char prelude[] =
    "{% set s = 'é' * 500000 %}{% set a = 'ab' * 500000 %}{% set sp = ' é' * 300000 %}"
    "{% set r = range(99999) %}{% set l = r[:1000] | map('string') | list %}";

static const char *const operations[] = {
    "s[-1]",
    "s[499999]",
    "s | length",
    "s[::-1]",
    "a[::-1]",
    "s.upper()",
    "a.upper()",
    "s.title()",
    "s | title",
    "s.swapcase()",
    "a.split('b')",
    "a.split()",
    "sp.split()",
    "sp.rsplit()",
    "a.replace('a', '')",
    "a.replace('b', 'cc')",
    "s.strip('é')",
    "a.strip('ab')",
    "s.find('x')",
    "a.rfind('ba' * 400000)",
    "a.count('b')",
    "'x' in a",
    "a == a ~ ''",
    "a ~ 'x'",
    "a + s",
    "[a] | string",
    "[s] | string",
    "a | tojson",
    "s | tojson(ensure_ascii=true)",
    "a | list",
    "s | list",
    "a | indent",
    "a | wordcount",
    "s.isalpha()",
    "s.islower()",
    "a.splitlines()",
    "'%s' | format(a)",
    "'{}'.format(a)",
    "a | escape",
    "a | urlencode",
    "a | striptags",
    "r | list | sort",
    "r | map('string') | list",
    "r | sum",
    "r | unique | list",
    "l | map('upper') | join",
    "l | sort | reverse | list",
    "[a, a] | join",
    "a.expandtabs()",
    "a.partition('bab')",
    "a < a ~ 'b'",
    "a | truncate(99999)",
    "s.center(900000)",
    "a.zfill(2000000)",
    "s | first",
    "s | last",
    "{a: 1}[a]",
    "r[::2] | list",
    "(r | list)[::2]",
    "(r | list) + [1]",
    "(r | list) == (r | list)",
    "99998 in r",
    "s.startswith('é', 400000)",
    "[1] * 500000",
    "a | int",
    "('1' * 300) | float",
    "1.5 | round(300)",
    "'%.1000f' % 1e300",
    "9.87654321e-310 ~ ''",
    "1e300 ~ ''",
    "1.1 ~ ''",
    "strftime_now('%c' * 1000)",
    "m(1, 2, 3)",
    "{'a': 1, 'b': 2}",
    "namespace(a=a)",
    "(a | safe) + a",
    "a.join(['', ''])",
};

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The status of a render under small limits; the time it took. */
static int run(const char *source, size_t len, double *seconds, lc_err *err) {
    lc_jinja *tmpl;
    lc_buf out = {0};
    lc_jinja_job job = {.limits = {.steps = STEPS, .memory = MEMORY}, .now = 1000};
    double start = seconds_now();
    int status = lc_jinja_compile(source, len, "limits", &tmpl, NULL, err);
    if (status == LC_OK) status = lc_jinja_render(tmpl, &job, &out, err);
    lc_jinja_free(tmpl);
    lc_buf_free(&out);
    *seconds = seconds_now() - start;
    return status;
}

static void steps_take_no_longer_than_they_may(void **state) {
    (void)state;
    double slowest = 0;
    const char *which = "";
    size_t n = sizeof operations / sizeof *operations;
    for (size_t i = 0; i < n; i++) {
        lc_buf source = {0};
        lc_err err = {0};
        double seconds = 1e9;
        lc_buf_printf(&source,
                      "%s{%% macro m(a, b, c) %%}{%% endmacro %%}{%% for i in r %%}{%% for j in r "
                      "%%}{%% if %s %%}{%% endif %%}{%% endfor %%}{%% endfor %%}",
                      prelude, operations[i]);
        for (int again = 0; again < 3 && seconds * 1000 > MAX_MS; again++) { /* a busy machine */
            double now;
            int status = run(source.data, source.len, &now, &err);
            if (status != LC_ELIMIT) fail_msg("%s: %s", operations[i], err.text);
            if (now < seconds) seconds = now;
        }
        if (seconds > slowest) {
            slowest = seconds;
            which = operations[i];
        }
        lc_buf_free(&source);
    }
    printf("# %zu operations, slowest %.0f ns a step: %s\n", n, slowest / STEPS * 1e9, which);
    assert_true(SANITIZED || slowest * 1000 <= MAX_MS);
}

static void memory_is_bounded(void **state) {
    (void)state;
    static const char *const sources[] = {
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}"
        "{% endfor %}",
        "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}"
        "{% endfor %}",
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% for j in range(99999) %}"
        "{% set ns.l = [ns.l, 'x' ~ i] %}{% endfor %}{% endfor %}",
        "{% macro f(x) %}{{ f(x ~ 'aaaaaaaa' * 10000) }}{% endmacro %}{{ f('') }}",
        "{{ range(99999) | map('string') | list | map('list') | list | string | length }}",
    };
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        lc_err err = {0};
        double seconds;
        size_t before = lc_mem_current();
        int status = run(sources[i], strlen(sources[i]), &seconds, &err);
        if (status != LC_ELIMIT) fail_msg("%s: %d %s", sources[i], status, err.text);
        assert_int_equal(lc_mem_current(), before);
    }
    assert_true(lc_mem_peak() < (size_t)2 * MEMORY);
}

/* ---- the stack ---- */

/* before, times times; middle; after, times times; end */
typedef struct nest {
    const char *start, *before, *middle, *after, *end;
    int times;
} nest;

static const nest nests[] = {
    {"{% macro f(x) %}{{ ", "[", "f(x)", "]", " }}{% endmacro %}{{ f(1) }}", 300},
    {"{% macro f(x) %}{{ ", "(", "f(x)", ")", " }}{% endmacro %}{{ f(1) }}", 300},
    {"{% macro f(x) %}{{ ", "not ", "f(x)", "", " }}{% endmacro %}{{ f(1) }}", 390},
    {"{% macro f(x) %}", "{% if x %}", "{{ f(x) }}", "{% endif %}", "{% endmacro %}{{ f(1) }}", 95},
    {"{{ ", "[", "", "]", " | tojson }}", 390},
    {"{{ ", "[", "", "]", " == [1] }}", 390},
    {"{{ ", "{1: ", "2", "}", " | string }}", 390},
    {"{{ 1", " + 1", "", "", " }}", 390},
    {"{{ 'a'", " | upper", "", "", " }}", 390},
    {"{{ ", "a if b else ", "c", "", " }}", 390},
    {"", "{% for a in [1] %}", "x", "{% endfor %}", "", 100},
    {"{{ ", "-", "1", "", " }}", 390},
    {"{% for ", "(", "a", ",)", " in [] %}{% endfor %}", 390},
    {"{% set g = [1] %}", "{% set g = g | map('string') %}", "{{ g | list }}", "", "", 2000},
    {"{% set ns = namespace(l=()) %}{% for i in range(390) %}{% set ns.l = (ns.l,) %}{% endfor %}"
     "{{ {ns.l: 1} }}{{ ns.l | string | length }}{{ ns.l < ns.l }}",
     "", "", "", "", 0},
    {"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "", "", "", "", 0},
    {"{{ '{0", "[0]", "}'.format(1)", "", " }}", 1000},
};

static void *render_nests(void *unused) {
    (void)unused;
    for (size_t i = 0; i < sizeof nests / sizeof *nests; i++) {
        const nest *n = &nests[i];
        lc_buf source = {0};
        lc_err err = {0};
        double seconds;
        lc_buf_puts(&source, n->start);
        for (int k = 0; k < n->times; k++) lc_buf_puts(&source, n->before);
        lc_buf_puts(&source, n->middle);
        for (int k = 0; k < n->times; k++) lc_buf_puts(&source, n->after);
        lc_buf_puts(&source, n->end);
        run(source.data, source.len, &seconds, &err); /* any result: it must come back */
        lc_buf_free(&source);
    }
    return NULL;
}

static void a_small_stack_is_enough(void **state) {
    (void)state;
    pthread_attr_t attributes;
    pthread_t thread;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attributes, render_nests, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
    printf("# %zu ways of nesting on %d KiB of stack\n", sizeof nests / sizeof *nests, STACK >> 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_take_no_longer_than_they_may),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(a_small_stack_is_enough),
    };
    return test_main(tests);
}
