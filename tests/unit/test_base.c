/*
 * test_base.c: the ground that everything stands on: UTF-8, growable buffers, allocation with its
 * counters and faults, arenas. (JSON, hashes, threads, files and random numbers have their own.)
 */
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "test.h"

#include <unistd.h>

/* ---- UTF-8 ---- */

static void test_utf8_round_trip(void **state) {
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        char utf8[4];
        size_t used = 0;
        if (code >= 0xD800 && code <= 0xDFFF) continue;
        size_t len = lc_utf8_encode(code, utf8);
        size_t want = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        if (len != want || lc_utf8_decode(utf8, len, &used) != (int32_t)code || used != len)
            fail_msg("U+%04X", (unsigned)code);
        for (size_t cut = 1; cut < len; cut++)
            if (lc_utf8_decode(utf8, cut, &used) != LC_UTF8_PARTIAL || used != cut)
                fail_msg("U+%04X cut to %zu bytes", (unsigned)code, cut);
    }
}

/* What is accepted encodes to the same bytes, so overlong forms and surrogates are not. */
static void test_utf8_all_short_strings(void **state) {
    static const unsigned char third[] = {0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xFF};
    size_t valid = 0;
    (void)state;
    for (unsigned i = 0; i < 0x10000 * 36; i++) {
        unsigned char s[4] = {(unsigned char)(i & 0xFF), (unsigned char)(i >> 8 & 0xFF),
                              third[(i >> 16) % 6], third[(i >> 16) / 6]};
        char again[4];
        size_t used = 0;
        int32_t code = lc_utf8_decode((char *)s, 4, &used);
        if (code == LC_UTF8_PARTIAL || used < 1 || used > 4) fail_msg("%08x", i);
        if (code < 0) {
            if (used > 3 || s[0] < 0x80) fail_msg("%08x: %zu invalid bytes", i, used);
            continue;
        }
        valid++;
        if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF) ||
            lc_utf8_encode((uint32_t)code, again) != used || memcmp(again, s, used) != 0)
            fail_msg("%08x is accepted as U+%04X", i, (unsigned)code);
    }
    /* First bytes 00-7F with any rest; C2-DF, E0-EF, F0-F4 with those of table 3-7. */
    size_t two = 30 * 64, three = 64 * 14 + 32 + 32, four = 48 + 3 * 64 + 16;
    assert_int_equal(valid, 128 * 256 * 36 + two * 36 + three * 2 * 6 + four * 2 * 2);
}

/* The Unicode standard's own examples, tables 3-8 to 3-11. */
static void test_utf8_maximal_parts(void **state) {
    static const struct {
        const char *bytes, *text; /* '?' stands for U+FFFD */
    } cases[] = {
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "????????A"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "????????A"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "?????A??B"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "????A"},
        {"\xF0\x9F\x98", "?"},
        {"", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lc_buf got = {0}, want = {0};
        for (const char *c = cases[i].text; *c; c++)
            *c == '?' ? lc_buf_puts(&want, "\xEF\xBF\xBD") : lc_buf_putc(&want, *c);
        assert_true(lc_utf8_sanitize(&got, cases[i].bytes, strlen(cases[i].bytes)));
        assert_int_equal(got.len, want.len);
        if (want.len) assert_string_equal(got.data, want.data);
        lc_buf_free(&got);
        lc_buf_free(&want);
    }
}

/* ---- buffers ---- */

static void test_buf(void **state) {
    lc_buf buf = {0};
    (void)state;
    assert_true(lc_buf_append(&buf, "a\0b", 3));
    assert_int_equal(buf.len, 3);
    assert_memory_equal(buf.data, "a\0b", 4);
    lc_buf_clear(&buf);
    for (int i = 0; i < 1000; i++) assert_true(lc_buf_printf(&buf, "%d,", i));
    assert_int_equal(buf.len, 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(buf.data[buf.len], 0);
    assert_memory_equal(buf.data + buf.len - 8, "998,999,", 8);
    assert_true(lc_buf_reserve(&buf, 100000));
    assert_true(buf.cap > buf.len + 100000);
    assert_false(lc_buf_reserve(&buf, SIZE_MAX));
    assert_true(buf.failed);
    assert_false(lc_buf_putc(&buf, 'x')); /* and so on until it is cleared */
    lc_buf_clear(&buf);
    assert_true(lc_buf_puts(&buf, "fresh"));
    assert_string_equal(buf.data, "fresh");
    lc_buf_free(&buf);
    assert_null(buf.data);
    buf.limit = 10;
    assert_true(lc_buf_puts(&buf, "0123456789"));
    assert_false(lc_buf_putc(&buf, 'x'));
    assert_string_equal(buf.data, "0123456789");
    lc_buf_free(&buf);
    assert_int_equal(buf.limit, 10);
    assert_int_equal(lc_mem_current(), 0);
}

static void test_ids(void **state) {
    lc_ids ids = {0};
    (void)state;
    for (int32_t i = 0; i < 1000; i++) assert_true(lc_ids_push(&ids, i));
    assert_true(lc_ids_append(&ids, (int32_t[]){-1, INT32_MAX}, 2));
    assert_true(lc_ids_append(&ids, NULL, 0));
    assert_int_equal(ids.len, 1002);
    assert_int_equal(ids.data[999], 999);
    assert_int_equal(ids.data[1001], INT32_MAX);
    lc_mem_fail_after(0);
    size_t cap = ids.cap;
    while (ids.len < cap) assert_true(lc_ids_push(&ids, 7));
    assert_false(lc_ids_push(&ids, 7));
    lc_mem_fail_after(-1);
    assert_true(ids.failed);
    assert_false(lc_ids_push(&ids, 7));
    assert_int_equal(ids.len, cap);
    lc_ids_free(&ids);
    assert_int_equal(lc_mem_current(), 0);
}

static void test_file_read(void **state) {
    char path[] = "/tmp/longcat-base-XXXXXX";
    int fd = mkstemp(path);
    lc_buf buf = {0}, big = {0};
    lc_err err;
    (void)state;
    for (int i = 0; i < 50000; i++) lc_buf_printf(&big, "%d\n", i);
    assert_true(fd >= 0 && write(fd, big.data, big.len) == (ssize_t)big.len && !close(fd));
    assert_true(lc_buf_puts(&buf, "before"));
    assert_ok(lc_file_read(path, 0, &buf, &err), err);
    assert_int_equal(buf.len, big.len + 6);
    assert_memory_equal(buf.data + 6, big.data, big.len + 1);
    lc_buf_clear(&buf);
    assert_ok(lc_file_read(path, big.len, &buf, &err), err);
    lc_buf_clear(&buf);
    assert_int_equal(lc_file_read(path, big.len - 1, &buf, &err), LC_ELIMIT);
    assert_non_null(strstr(err.text, path));
    lc_buf_free(&buf);
    lc_mem_fail_after(0);
    assert_int_equal(lc_file_read(path, 0, &buf, &err), LC_ENOMEM);
    lc_mem_fail_after(-1);
    unlink(path);
    assert_int_equal(lc_file_read(path, 0, &buf, &err), LC_ENOTFOUND);
    lc_buf_clear(&buf);
    assert_int_equal(lc_file_read("/tmp", 0, &buf, &err), LC_EIO);
    lc_buf_free(&buf);
    lc_buf_free(&big);
    assert_int_equal(lc_mem_current(), 0);
}

/* ---- memory ---- */

static void test_sizes(void **state) {
    size_t out = 7;
    (void)state;
    assert_true(lc_size_add(SIZE_MAX - 1, 1, &out));
    assert_true(out == SIZE_MAX);
    assert_false(lc_size_add(SIZE_MAX, 1, &out));
    assert_false(lc_size_mul(SIZE_MAX / 2 + 1, 2, &out));
    assert_true(out == SIZE_MAX); /* untouched */
    assert_true(lc_size_mul(SIZE_MAX, 0, &out) && out == 0);
    assert_true(lc_size_align(65, 64, &out) && out == 128);
    assert_true(lc_size_align(64, 64, &out) && out == 64);
    assert_true(lc_size_align(0, 64, &out) && out == 0);
    assert_false(lc_size_align(SIZE_MAX - 62, 64, &out));
}

static void test_alloc(void **state) {
    (void)state;
    assert_int_equal(lc_mem_current(), 0);
    char *block = lc_alloc(100);
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % 64, 0);
    assert_int_equal(lc_mem_current(), 100);
    memset(block, 'x', 100);
    block = lc_realloc(block, 50, 4);
    assert_non_null(block);
    assert_true(block[0] == 'x' && block[99] == 'x');
    assert_int_equal(lc_mem_current(), 200);
    assert_true(lc_mem_peak() >= 200);
    assert_null(lc_realloc(block, SIZE_MAX, 2)); /* the old block stays valid */
    assert_int_equal(block[99], 'x');
    lc_free(block);
    lc_free(NULL);
    assert_null(lc_alloc(SIZE_MAX));
    assert_null(lc_alloc(SIZE_MAX - 64));
    assert_null(lc_calloc(SIZE_MAX / 8 + 1, 8));
    int32_t *zero = lc_calloc(1000, sizeof *zero);
    for (int i = 0; i < 1000; i++) assert_int_equal(zero[i], 0);
    lc_free(zero);
    char *text = lc_strdup("text"), *cut = lc_strndup("a\0bcd", 4);
    assert_string_equal(text, "text");
    assert_memory_equal(cut, "a\0bc", 5);
    lc_free(text);
    lc_free(cut);
    assert_int_equal(lc_mem_current(), 0);
}

static void test_faults(void **state) {
    void *blocks[4];
    (void)state;
    lc_mem_fail_after(2);
    for (int i = 0; i < 4; i++) blocks[i] = lc_alloc(10);
    char *again = lc_realloc(blocks[0], 20, 1);
    assert_null(lc_strdup("x"));
    lc_mem_fail_after(-1);
    assert_true(blocks[0] && blocks[1] && !blocks[2] && !blocks[3] && !again);
    lc_free(blocks[0]);
    lc_free(blocks[1]);
    assert_int_equal(lc_mem_current(), 0);
}

static void test_arena(void **state) {
    lc_arena *arena = lc_arena_new(0);
    char *last = NULL;
    (void)state;
    for (size_t i = 1; i < 2000; i++) {
        char *block = lc_arena_alloc(arena, i);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        memset(block, (int)i & 0x7F, i);
        if (last) assert_int_equal(last[0], (int)(i - 1) & 0x7F);
        last = block;
    }
    size_t used = lc_arena_used(arena);
    assert_true(used >= 1999 * 1000 && used <= 1999 * 1064);
    assert_int_equal(lc_arena_peak(arena), used);
    lc_arena_reset(arena);
    assert_int_equal(lc_arena_used(arena), 0);
    /* One chunk as large as the peak is kept: the same work again allocates nothing. */
    lc_mem_fail_after(0);
    for (size_t i = 1; i < 2000; i++) assert_non_null(lc_arena_alloc(arena, i));
    assert_null(lc_arena_alloc(arena, 1 << 20));
    lc_mem_fail_after(-1);
    assert_non_null(lc_arena_alloc(arena, 200 << 20)); /* larger than any chunk */
    assert_string_equal(lc_arena_strndup(arena, "abcdef", 3), "abc");
    assert_null(lc_arena_alloc(arena, SIZE_MAX));
    assert_null(lc_arena_calloc(arena, SIZE_MAX / 2, 3));
    assert_null(lc_arena_strndup(arena, "", SIZE_MAX));
    int64_t *zero = lc_arena_calloc(arena, 100, sizeof *zero);
    for (int i = 0; i < 100; i++) assert_int_equal(zero[i], 0);
    lc_arena_free(arena);
    lc_arena_free(NULL);
    assert_int_equal(lc_mem_current(), 0);
}

static void test_arena_limit(void **state) {
    lc_arena *arena = lc_arena_new(1000);
    (void)state;
    assert_non_null(lc_arena_alloc(arena, 900));
    assert_null(lc_arena_alloc(arena, 65)); /* 960 + 128 */
    assert_int_equal(lc_arena_used(arena), 960);
    lc_arena_reset(arena);
    assert_non_null(lc_arena_alloc(arena, 960));
    lc_arena_free(arena);
    for (long n = 0; n < 2; n++) {
        lc_mem_fail_after(n);
        arena = lc_arena_new(0);
        if (arena) assert_null(lc_arena_alloc(arena, 1));
        lc_mem_fail_after(-1);
        if (arena) assert_non_null(lc_arena_alloc(arena, 1));
        lc_arena_free(arena);
    }
    assert_int_equal(lc_mem_current(), 0);
}

/* ---- errors ---- */

static void test_err(void **state) {
    lc_err err = {0};
    char long_text[2000];
    (void)state;
    assert_int_equal(lc_fail(&err, LC_ELIMIT, "%s: %d", "file", 7), LC_ELIMIT);
    assert_int_equal(err.code, LC_ELIMIT);
    assert_string_equal(err.text, "file: 7");
    assert_int_equal(lc_err_prefix(&err, "model %s", "x"), LC_ELIMIT);
    assert_string_equal(err.text, "model x: file: 7");
    assert_int_equal(lc_fail(NULL, LC_EIO, "nobody listens"), LC_EIO);
    memset(long_text, 'y', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    lc_fail(&err, LC_EIO, "%s", long_text);
    assert_true(strlen(err.text) < sizeof err.text && strlen(err.text) > 400);
    lc_err_prefix(&err, "%s", long_text);
    assert_true(strlen(err.text) < sizeof err.text);
    for (int code = LC_ECANCELED; code <= LC_OK; code++)
        assert_string_not_equal(lc_status_text(code), "unknown status");
    assert_string_equal(lc_status_text(-99), "unknown status");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_round_trip),
        cmocka_unit_test(test_utf8_all_short_strings),
        cmocka_unit_test(test_utf8_maximal_parts),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_file_read),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_arena_limit),
        cmocka_unit_test(test_err),
    };
    return test_main(tests);
}
