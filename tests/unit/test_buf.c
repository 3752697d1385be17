/* test_buf.c: byte strings, id lists, whole files, and the texts of errors. */
#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static void bytes_are_appended(void **state) {
    (void)state;
    lc_buf buf = {0}, expected = {0};
    for (int i = 0; i < 1000; i++) {
        assert_true(lc_buf_puts(&buf, "ab"));
        assert_true(lc_buf_putc(&buf, 0));
        assert_true(lc_buf_printf(&buf, "%d", i % 10));
    }
    assert_int_equal(buf.len, 4000);
    for (size_t i = 0; i < 4000; i += 4) {
        char piece[4] = {'a', 'b', 0, (char)('0' + i / 4 % 10)};
        assert_memory_equal(buf.data + i, piece, 4);
    }
    assert_int_equal(buf.data[4000], 0);
    assert_true(lc_buf_append(&expected, buf.data, buf.len));
    assert_memory_equal(buf.data, expected.data, 4001);
    lc_buf_clear(&buf);
    assert_int_equal(buf.len, 0);
    assert_string_equal(buf.data, "");
    assert_true(lc_buf_append(&buf, NULL, 0));
    assert_true(lc_buf_printf(&buf, "%s", ""));
    lc_buf_free(&buf);
    assert_null(buf.data);
    lc_buf_free(&expected);
}

static void long_prints_fit(void **state) {
    (void)state;
    lc_buf buf = {0};
    char *text = malloc(100001);
    assert_non_null(text);
    memset(text, 'y', 100000);
    text[100000] = 0;
    assert_true(lc_buf_printf(&buf, "<%s>", text));
    assert_int_equal(buf.len, 100002);
    assert_int_equal(buf.data[100001], '>');
    free(text);
    lc_buf_free(&buf);
}

static void limits_and_short_memory_stick(void **state) {
    (void)state;
    lc_buf buf = {.limit = 4};
    assert_true(lc_buf_puts(&buf, "abcd"));
    assert_false(lc_buf_putc(&buf, 'e'));
    assert_true(buf.failed);
    assert_false(lc_buf_puts(&buf, ""));
    assert_string_equal(buf.data, "abcd");
    lc_buf_clear(&buf);
    assert_true(lc_buf_puts(&buf, "x"));
    assert_false(lc_buf_reserve(&buf, SIZE_MAX));
    lc_buf_free(&buf);
    assert_int_equal(buf.limit, 4);
    lc_mem_fail_after(0);
    lc_buf none = {0};
    assert_false(lc_buf_puts(&none, "a"));
    assert_true(none.failed && !none.data);
    lc_ids ids = {0};
    assert_false(lc_ids_push(&ids, 1));
    lc_mem_fail_after(-1);
    assert_false(lc_ids_push(&ids, 1)); /* it stays failed, so one check at the end is enough */
    lc_ids_free(&ids);
    assert_true(lc_ids_push(&ids, 1));
    lc_ids_free(&ids);
}

static void ids_are_appended(void **state) {
    (void)state;
    lc_ids ids = {0};
    for (int32_t i = 0; i < 1000; i++) assert_true(lc_ids_push(&ids, i - 500));
    int32_t three[3] = {7, 8, 9};
    assert_true(lc_ids_append(&ids, three, 3));
    assert_true(lc_ids_append(&ids, NULL, 0));
    assert_int_equal(ids.len, 1003);
    for (int32_t i = 0; i < 1000; i++) assert_int_equal(ids.data[i], i - 500);
    assert_memory_equal(ids.data + 1000, three, sizeof three);
    lc_ids_free(&ids);
    assert_int_equal(ids.len, 0);
}

static void files_are_read_whole(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 200000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char path[] = "/tmp/longcat-buf-XXXXXX";
        int fd = mkstemp(path);
        char *bytes = malloc(sizes[i] + 1);
        assert_true(fd >= 0 && bytes);
        for (size_t b = 0; b < sizes[i]; b++) bytes[b] = (char)(b * 7);
        assert_int_equal(write(fd, bytes, sizes[i]), sizes[i]);
        close(fd);
        lc_buf buf = {0};
        lc_err err = {0};
        assert_true(lc_buf_puts(&buf, "head"));
        assert_ok(lc_file_read(path, sizes[i] ? sizes[i] : 1, &buf, &err), err);
        assert_int_equal(buf.len, 4 + sizes[i]);
        assert_memory_equal(buf.data, "head", 4);
        assert_memory_equal(buf.data + 4, bytes, sizes[i]);
        assert_int_equal(buf.data[buf.len], 0);
        if (sizes[i] > 1) assert_int_equal(lc_file_read(path, sizes[i] - 1, &buf, &err), LC_ELIMIT);
        lc_buf_free(&buf);
        free(bytes);
        unlink(path);
    }
    lc_buf buf = {0};
    lc_err err = {0};
    assert_int_equal(lc_file_read("models/none", 0, &buf, &err), LC_ENOTFOUND);
    assert_string_equal(err.text, "models/none: No such file or directory");
    assert_int_equal(lc_file_read("models", 0, &buf, &err), LC_EIO);
    assert_non_null(strstr(err.text, "models: "));
    lc_buf_free(&buf);
}

static void files_are_written_whole(void **state) {
    (void)state;
    char folder[] = "/tmp/longcat-buf-XXXXXX", path[64], part[80];
    lc_buf back = {0};
    lc_err err = {0};
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(part, sizeof part, "%s.part", path);
    assert_ok(lc_file_write(path, "an older, longer text", 21, &err), err);
    assert_ok(lc_file_write(path, "a\0b", 3, &err), err);
    assert_ok(lc_file_read(path, 0, &back, &err), err);
    assert_int_equal(back.len, 3);
    assert_memory_equal(back.data, "a\0b", 3);
    assert_int_equal(access(part, F_OK), -1);
    if (!access("/dev/full", W_OK)) { /* a full disk: the old file stays */
        assert_int_equal(symlink("/dev/full", part), 0);
        assert_int_equal(lc_file_write(path, "new", 3, &err), LC_EIO);
        assert_non_null(strstr(err.text, "file.part: write failed"));
        assert_int_equal(access(part, F_OK), -1);
        lc_buf_clear(&back);
        assert_ok(lc_file_read(path, 0, &back, &err), err);
        assert_memory_equal(back.data, "a\0b", 3);
    }
    unlink(path);
    rmdir(folder);
    assert_int_equal(lc_file_write(path, "x", 1, &err), LC_EIO);
    lc_buf_free(&back);
}

static void a_folder_is_held_once(void **state) {
    (void)state;
    char folder[] = "/tmp/longcat-lock-XXXXXX", path[64];
    int first, second;
    lc_err err = {0};
    assert_non_null(mkdtemp(folder));
    assert_ok(lc_folder_lock(folder, &first, &err), err);
    assert_int_equal(lc_folder_lock(folder, &second, &err), LC_EINVAL);
    assert_int_equal(second, -1);
    assert_non_null(strstr(err.text, folder));
    close(first);
    assert_ok(lc_folder_lock(folder, &second, &err), err);
    close(second);
    snprintf(path, sizeof path, "%s/lock", folder);
    unlink(path);
    rmdir(folder);
    assert_int_equal(lc_folder_lock(folder, &first, &err), LC_EIO);
}

static void errors_carry_code_and_text(void **state) {
    (void)state;
    lc_err err = {0};
    assert_int_equal(lc_fail(&err, LC_EFORMAT, "%s: tensor %d", "a.bin", 3), LC_EFORMAT);
    assert_int_equal(err.code, LC_EFORMAT);
    assert_string_equal(err.text, "a.bin: tensor 3");
    assert_int_equal(lc_err_prefix(&err, "%s/%s", "dir", "sub"), LC_EFORMAT);
    assert_string_equal(err.text, "dir/sub: a.bin: tensor 3");
    errno = ENOSPC;
    assert_int_equal(lc_fail_errno(&err, LC_EIO, "writing %s", "x"), LC_EIO);
    assert_string_equal(err.text, "writing x: No space left on device");
    assert_int_equal(lc_fail(NULL, LC_EIO, "nobody listens"), LC_EIO);
    assert_int_equal(lc_fail_errno(NULL, LC_EIO, "nobody listens"), LC_EIO);
    assert_int_equal(lc_err_prefix(NULL, "nobody listens"), LC_EINVAL);
}

static void long_error_texts_are_cut(void **state) {
    (void)state;
    char text[1000];
    memset(text, 'z', sizeof text - 1);
    text[sizeof text - 1] = 0;
    for (int len = 470; len < 490; len++) {
        lc_err err = {0};
        lc_fail(&err, LC_EIO, "%.*s", len, text);
        assert_int_equal(strlen(err.text), len < 479 ? len : 479);
        lc_err_prefix(&err, "%s", text);
        assert_int_equal(strlen(err.text), 479);
        lc_fail_errno(&err, LC_EIO, "%.*s", len, text);
        assert_int_equal(strlen(err.text), 479);
        lc_fail(&err, LC_EIO, "tail");
        lc_err_prefix(&err, "%.*s", len, text);
        int whole = len + 6;
        assert_int_equal(strlen(err.text), whole < 479 ? whole : 479);
    }
}

static void error_texts_are_clean(void **state) {
    (void)state;
    lc_err err = {0};
    lc_fail(&err, LC_EFORMAT, "%s", "a\x1b[2J\tb\nc\xff \xc2\x9b \xc3\xa9");
    assert_string_equal(err.text, "a?[2J\tb\nc? ?? \xc3\xa9");
    lc_err_prefix(&err, "%s", "x\x7f");
    assert_string_equal(err.text, "x?: a?[2J\tb\nc? ?? \xc3\xa9");
    char text[600] = {0};
    for (size_t i = 0; i < 598; i += 2) memcpy(text + i, "\xc3\xa9", 2);
    lc_fail(&err, LC_EFORMAT, "%s", text);
    assert_int_equal(strlen(err.text), 478); /* not half a character at the end */
}

static void statuses_have_texts(void **state) {
    (void)state;
    assert_string_equal(lc_status_text(LC_OK), "success");
    assert_string_equal(lc_status_text(LC_ENOMEM), "out of memory");
    assert_string_equal(lc_status_text(12345), "unknown status");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_appended),
        cmocka_unit_test(long_prints_fit),
        cmocka_unit_test(limits_and_short_memory_stick),
        cmocka_unit_test(ids_are_appended),
        cmocka_unit_test(files_are_read_whole),
        cmocka_unit_test(files_are_written_whole),
        cmocka_unit_test(a_folder_is_held_once),
        cmocka_unit_test(errors_carry_code_and_text),
        cmocka_unit_test(long_error_texts_are_cut),
        cmocka_unit_test(error_texts_are_clean),
        cmocka_unit_test(statuses_have_texts),
    };
    return test_main(tests);
}
