/* test_log.c: the log and its sink. */
#include "base/log.h"
#include "test.h"

typedef struct captured {
    int calls;
    lc_log_level level;
    char text[2048];
} captured;

static void capture(void *ctx, lc_log_level level, const char *text) {
    captured *c = ctx;
    c->calls++;
    c->level = level;
    snprintf(c->text, sizeof c->text, "%s", text);
}

static void nothing_happens_without_a_sink(void **state) {
    (void)state;
    for (lc_log_level level = LC_LOG_ERROR; level <= LC_LOG_DEBUG; level++) {
        assert_false(lc_log_enabled(level));
        lc_log(level, "lost %d", 1);
    }
}

static void levels_are_filtered(void **state) {
    (void)state;
    for (lc_log_level most = LC_LOG_ERROR; most <= LC_LOG_DEBUG; most++) {
        captured got = {0};
        lc_log_set(most, capture, &got);
        for (lc_log_level level = LC_LOG_ERROR; level <= LC_LOG_DEBUG; level++) {
            assert_int_equal(lc_log_enabled(level), level <= most);
            lc_log(level, "%s %d", lc_log_level_name(level), (int)level);
        }
        assert_int_equal(got.calls, (int)most + 1);
        assert_int_equal(got.level, most);
        char last[32];
        snprintf(last, sizeof last, "%s %d", lc_log_level_name(most), (int)most);
        assert_string_equal(got.text, last);
        lc_log_set(LC_LOG_DEBUG, NULL, NULL);
        lc_log(LC_LOG_ERROR, "lost");
        assert_int_equal(got.calls, (int)most + 1);
    }
}

static void control_characters_never_reach_the_sink(void **state) {
    (void)state;
    captured got = {0};
    lc_log_set(LC_LOG_INFO, capture, &got);
    lc_log(LC_LOG_INFO, "%s",
           "a\x1b[2Jb\nc\x7f\xc2\x9b"
           "d \xc3\xa9 \xe2\x9b\x80");
    assert_string_equal(got.text, "a?[2Jb?c???d \xc3\xa9 \xe2\x9b\x80");
    lc_log_set(LC_LOG_INFO, NULL, NULL);
}

static void long_messages_are_cut(void **state) {
    (void)state;
    captured got = {0};
    char *text = malloc(5000);
    assert_non_null(text);
    memset(text, 'x', 4999);
    text[4999] = 0;
    lc_log_set(LC_LOG_INFO, capture, &got);
    lc_log(LC_LOG_INFO, "%s", text);
    assert_int_equal(strlen(got.text), 1023);
    lc_log_set(LC_LOG_INFO, NULL, NULL);
    free(text);
}

static void levels_have_names(void **state) {
    (void)state;
    assert_string_equal(lc_log_level_name(LC_LOG_ERROR), "error");
    assert_string_equal(lc_log_level_name(LC_LOG_WARN), "warn");
    assert_string_equal(lc_log_level_name(LC_LOG_INFO), "info");
    assert_string_equal(lc_log_level_name(LC_LOG_DEBUG), "debug");
    assert_string_equal(lc_log_level_name((lc_log_level)9), "unknown");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_happens_without_a_sink),
        cmocka_unit_test(levels_are_filtered),
        cmocka_unit_test(control_characters_never_reach_the_sink),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(levels_have_names),
    };
    return test_main(tests);
}
