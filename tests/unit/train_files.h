/* train_files.h: folders and files of the training data's tests. */
#ifndef LC_TESTS_TRAIN_FILES_H
#define LC_TESTS_TRAIN_FILES_H

#include "base/buf.h"
#include "base/file.h"
#include "test.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

/* A new folder below the system's folder for temporary files; room for 256 bytes. */
static inline const char *make_folder(char *path) {
    const char *base = getenv("TMPDIR");
    snprintf(path, 256, "%s/longcat-train-XXXXXX", base ? base : P_tmpdir);
    assert_non_null(mkdtemp(path));
    return path;
}

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}
static inline void remove_folder(const char *path) {
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* folder/name in a buffer that lives until the next 64 calls. */
static inline const char *in(const char *folder, const char *name) {
    static char paths[64][600];
    static int next;
    char path[600];
    int len = snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_true(len > 0 && (size_t)len < sizeof path);
    return memcpy(paths[next++ % 64], path, sizeof path);
}

static inline void put_file(const char *path, const char *data, size_t len) {
    FILE *file = fopen(path, "w"); /* not lc_file_write, which waits for the disk */
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}
static inline void put_text(const char *path, const char *text) {
    put_file(path, text, strlen(text));
}

static inline lc_buf get_file(const char *path) {
    lc_err err = {0};
    lc_buf buf = {0};
    assert_ok(lc_file_read(path, 0, &buf, &err), err);
    return buf;
}

static inline bool same_files(const char *a, const char *b) {
    lc_buf x = get_file(a), y = get_file(b);
    bool same = x.len == y.len && (!x.len || !memcmp(x.data, y.data, x.len));
    lc_buf_free(&x);
    lc_buf_free(&y);
    return same;
}

#endif
