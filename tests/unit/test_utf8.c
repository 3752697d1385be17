/*
 * test_utf8.c: the decoder over the whole code space, and the repair of invalid text against what
 * Python's bytes.decode("utf-8", "replace") gives (the rule of the WHATWG and of Unicode's 3.9).
 */
#include "base/mem.h"
#include "base/utf8.h"
#include "test.h"

#define R "\xef\xbf\xbd"

static const struct {
    const char *text, *repaired;
} cases[] = {
    {"", ""},
    {"\x61\x62\x63", "\x61\x62\x63"},
    {"\xff", R},
    {"\xc3", R},
    {"\xc3\x28", R "\x28"},
    {"\xe2\x82", R},
    {"\xe2\x82\x28", R "\x28"},
    {"\xe2\x28\xa1", R "\x28" R},
    {"\xf0\x9f\x98", R},
    {"\xf0\x9f\x98\x28", R "\x28"},
    {"\xf0\x9f\x28\x80", R "\x28" R},
    {"\xf0\x28\x8c\xbc", R "\x28" R R},
    {"\xc0\x80", R R},
    {"\xe0\x80\x80", R R R},
    {"\xe0\x9f\xbf", R R R},
    {"\xed\xa0\x80", R R R},
    {"\xed\xbf\xbf", R R R},
    {"\xf0\x80\x80\x80", R R R R},
    {"\xf4\x90\x80\x80", R R R R},
    {"\xf5\x80\x80\x80", R R R R},
    {"\x80\x80\x80", R R R},
    {"\x01\x80\x02\xc3\xa9\xe2\x03", "\x01" R "\x02\xc3\xa9" R "\x03"},
    {"\xf0\x9f\x98\x80\xf0\x9f\x98", "\xf0\x9f\x98\x80" R},
    {"\xfe\xff\xfb\xbf\xbf\xbf\xbf", R R R R R R R},
    {"\xc3\xa9\xcc\x81\xe4\xbd\xa0", "\xc3\xa9\xcc\x81\xe4\xbd\xa0"},
    {"\xef\x9f\xc2\xf4", R R R},
    {"\xef\xf4\x80\xdf\x9f\x80\x8f", R R "\xdf\x9f" R R},
    {"\xdf\x80\xa0\x80\xe1\xf0", "\xdf\x80" R R R R},
    {"\xe1\xf4\x90\xf0\xa0", R R R R},
    {"\xdf\xa0\xbf\xe0\xe1\x80\xa0", "\xdf\xa0" R R "\xe1\x80\xa0"},
    {"\xdf\xe1\xbf\xa0\x9f\xef\xa0\x9f\x90", R "\xe1\xbf\xa0" R "\xef\xa0\x9f" R},
    {"\xed\x8f\xe1\xed\x90\xbf\x9f", R R "\xed\x90\xbf" R},
    {"\xed\xdf\x8f\x90\x8f\xf1\x80\xbf\x80", R "\xdf\x8f" R R "\xf1\x80\xbf\x80"},
    {"\xf4\x90\xbf\xef\xa0\x9f\x80\xdf\x9f\xbf", R R R "\xef\xa0\x9f" R "\xdf\x9f" R},
    {"\xdf\xed\x90\xbf\x9f\xef", R "\xed\x90\xbf" R R},
    {"\xf1\x8f\xa0\xdf\x80\x8f\x90\xe0\x9f", R "\xdf\x80" R R R R},
    {"\xf0\x80\x8f\x9f\xf0\x8f\x9f\xf4\xbf\x9f", R R R R R R R R R R},
    {"\xef\x8f\x8f\x80\xe0\x8f\xe1", "\xef\x8f\x8f" R R R R},
    {"\xf1\x90\xed\xe0\xa0\x90\xa0", R R "\xe0\xa0\x90" R},
    {"\xef\xbf\xf4\xf1\x9f\x9f\x9f", R R "\xf1\x9f\x9f\x9f"},
    {"\xdf\xbf\x9f\x80\xe1\xe1\x8f\x80\x90", "\xdf\xbf" R R R "\xe1\x8f\x80" R},
    {"\xc2\xc2\xa0\xdf\xa0\x80", R "\xc2\xa0\xdf\xa0" R},
    {"\xdf\xa0\xf0\xbf\xed\xa0\x90", "\xdf\xa0" R R R R},
    {"\xf1\xdf\x9f\x9f\x9f\xed", R "\xdf\x9f" R R R},
    {"\xe0\xef\x9f\xbf\xe0", R "\xef\x9f\xbf" R},
    {"\xe1\x8f\xbf\xf4\xf4\xbf\x80", "\xe1\x8f\xbf" R R R R},
    {"\xed\x8f\x90\xe1\xbf\x8f\xe1\x9f", "\xed\x8f\x90\xe1\xbf\x8f" R},
    {"\xe1\xa0\xf1\xbf\x80\xc2\x9f\x90", R R "\xc2\x9f" R},
    {"\xe1\x9f\xbf\xef\x80\x8f\xdf\x9f", "\xe1\x9f\xbf\xef\x80\x8f\xdf\x9f"},
    {"\xe1\x8f\x9f\xc2\xbf\x90\xbf\xdf", "\xe1\x8f\x9f\xc2\xbf" R R R},
    {"\xf0\x9f\xe0\xbf\x90\x80\xf0\x9f\xbf\x80", R "\xe0\xbf\x90" R "\xf0\x9f\xbf\x80"},
    {"\xe0\x8f\xc2\xa0\xf1\xa0", R R "\xc2\xa0" R},
    {"\xf1\x8f\xa0\xf4\x80\xc2", R R R},
    {"\xf4\x9f\xe1\x80\xed\x90", R R R R},
    {"\xf4\xa0\xef\xa0\x9f\xe0", R R "\xef\xa0\x9f" R},
    {"\xef\xbf\xa0\xa0\xf0\xa0\xe0", "\xef\xbf\xa0" R R R},
    {"\xf1\xa0\xc2\x8f\xe0\xa0\xbf\x80", R "\xc2\x8f\xe0\xa0\xbf" R},
};

static void every_character_round_trips(void **state) {
    (void)state;
    int count = 0;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        if (code >= 0xD800 && code <= 0xDFFF) continue;
        char bytes[4];
        size_t len = lc_utf8_encode(code, bytes), used;
        size_t expected = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        if (len != expected || lc_utf8_decode(bytes, len, &used) != (int32_t)code || used != len)
            fail_msg("U+%04X", code);
        for (size_t part = 1; part < len; part++)
            if (lc_utf8_decode(bytes, part, &used) != LC_UTF8_PARTIAL || used != part)
                fail_msg("U+%04X cut after %zu bytes", code, part);
        count++;
    }
    assert_int_equal(count, 0x110000 - 0x800);
    printf("# %d characters\n", count);
}

/* Distinct characters have distinct forms (above), so if no more sequences are valid than there are
 * characters, exactly the right ones are. All sequences of three bytes, and of four with the last
 * two from the edges of their range. */
static void nothing_else_is_valid(void **state) {
    (void)state;
    static const unsigned char edges[] = {0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xff};
    int counts[5] = {0};
    size_t used;
    for (uint32_t n = 0; n < 1 << 24; n++) {
        char s[3] = {(char)(n >> 16), (char)(n >> 8), (char)n};
        if (lc_utf8_decode(s, 3, &used) >= 0 && used == 3) counts[3]++;
        if (n < 1 << 16 && lc_utf8_decode(s + 1, 2, &used) >= 0 && used == 2) counts[2]++;
        if (n < 1 << 8 && lc_utf8_decode(s + 2, 1, &used) >= 0) counts[1]++;
    }
    for (uint32_t n = 0; n < 1 << 16; n++)
        for (size_t i = 0; i < 6; i++)
            for (size_t j = 0; j < 6; j++) {
                char s[4] = {(char)(n >> 8), (char)n, (char)edges[i], (char)edges[j]};
                if (lc_utf8_decode(s, 4, &used) >= 0 && used == 4) counts[4]++;
            }
    assert_int_equal(counts[1], 0x80);
    assert_int_equal(counts[2], 0x800 - 0x80);
    assert_int_equal(counts[3], 0x10000 - 0x800 - 0x800);
    assert_int_equal(counts[4], 0x100000 / 4096 * 2 * 2);
}

static void invalid_text_is_repaired_as_python_does(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i].text);
        char *copy = malloc(len ? len : 1); /* no NUL: ASan sees a step past the end */
        assert_non_null(copy);
        memcpy(copy, cases[i].text, len);
        lc_buf out = {0};
        assert_true(lc_utf8_sanitize(&out, copy, len));
        assert_string_equal(out.data ? out.data : "", cases[i].repaired);
        lc_buf_free(&out);
        free(copy);
    }
    printf("# %zu texts\n", sizeof cases / sizeof *cases);
}

static void a_full_buffer_is_reported(void **state) {
    (void)state;
    lc_buf out = {.limit = 5};
    assert_false(lc_utf8_sanitize(&out, "ab\xff\xff", 4));
    assert_true(out.failed);
    lc_buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_character_round_trips),
        cmocka_unit_test(nothing_else_is_valid),
        cmocka_unit_test(invalid_text_is_repaired_as_python_does),
        cmocka_unit_test(a_full_buffer_is_reported),
    };
    return test_main(tests);
}
