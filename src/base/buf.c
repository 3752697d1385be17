/* buf.c: growable byte strings, id lists, whole files read and written, folders made. */
#include "base/buf.h"

#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

bool lc_buf_reserve(lc_buf *buf, size_t extra) {
    size_t need;
    if (buf->failed) return false;
    if (!lc_size_add(buf->len, extra, &need) || (buf->limit && need > buf->limit) ||
        !lc_size_add(need, 1, &need)) {
        buf->failed = true;
        return false;
    }
    if (need <= buf->cap) return true;
    size_t cap = buf->cap ? buf->cap + buf->cap / 2 : 64;
    if (cap < need) cap = need;
    char *data = lc_realloc(buf->data, cap, 1);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    buf->data[buf->len] = 0;
    return true;
}

bool lc_buf_append(lc_buf *buf, const void *bytes, size_t len) {
    if (!lc_buf_reserve(buf, len)) return false;
    if (len) memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = 0;
    return true;
}

bool lc_buf_puts(lc_buf *buf, const char *text) { return lc_buf_append(buf, text, strlen(text)); }
bool lc_buf_putc(lc_buf *buf, char c) { return lc_buf_append(buf, &c, 1); }

bool lc_buf_printf(lc_buf *buf, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    bool ok = len >= 0 && lc_buf_reserve(buf, (size_t)len);
    if (ok) {
        vsnprintf(buf->data + buf->len, (size_t)len + 1, fmt, again);
        buf->len += (size_t)len;
    }
    va_end(again);
    return ok;
}

void lc_buf_clear(lc_buf *buf) {
    buf->len = 0;
    buf->failed = false;
    if (buf->data) buf->data[0] = 0;
}

void lc_buf_free(lc_buf *buf) {
    lc_free(buf->data);
    *buf = (lc_buf){.limit = buf->limit};
}

bool lc_ids_append(lc_ids *ids, const int32_t *data, size_t len) {
    size_t need;
    if (ids->failed || !lc_size_add(ids->len, len, &need)) {
        ids->failed = true;
        return false;
    }
    if (need > ids->cap) {
        size_t cap = ids->cap ? ids->cap + ids->cap / 2 : 64;
        if (cap < need) cap = need;
        int32_t *grown = lc_realloc(ids->data, cap, sizeof *grown);
        if (!grown) {
            ids->failed = true;
            return false;
        }
        ids->data = grown;
        ids->cap = cap;
    }
    if (len) memcpy(ids->data + ids->len, data, len * sizeof *data);
    ids->len = need;
    return true;
}

bool lc_ids_push(lc_ids *ids, int32_t id) { return lc_ids_append(ids, &id, 1); }

void lc_ids_free(lc_ids *ids) {
    lc_free(ids->data);
    *ids = (lc_ids){0};
}

int lc_file_read(const char *path, size_t limit, lc_buf *buf, lc_err *err) {
    if (!limit) limit = (size_t)1 << 30;
    FILE *file = fopen(path, "rb");
    if (!file) return lc_fail_errno(err, errno == ENOENT ? LC_ENOTFOUND : LC_EIO, "%s", path);
    size_t start = buf->len;
    int status = LC_OK;
    for (;;) {
        if (!lc_buf_reserve(buf, 65536)) {
            status = lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
            break;
        }
        size_t got = fread(buf->data + buf->len, 1, 65536, file);
        buf->len += got;
        buf->data[buf->len] = 0;
        if (buf->len - start > limit) {
            status = lc_fail(err, LC_ELIMIT, "%s: larger than the limit of %zu bytes", path, limit);
            break;
        }
        if (got < 65536) {
            if (ferror(file)) status = lc_fail_errno(err, LC_EIO, "%s: read failed", path);
            break;
        }
    }
    fclose(file);
    return status;
}

int lc_file_write(const char *path, const char *data, size_t len, lc_err *err) {
    lc_buf part = {0};
    if (!lc_buf_printf(&part, "%s.part", path))
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    FILE *file = fopen(part.data, "wb");
    int status = file ? LC_OK : lc_fail_errno(err, LC_EIO, "%s", part.data);
    if (file) {
        bool ok = fwrite(data, 1, len, file) == len && !fflush(file) && !fsync(fileno(file));
        if (fclose(file)) ok = false;
        if (!ok) status = lc_fail_errno(err, LC_EIO, "%s: write failed", part.data);
        if (status == LC_OK && rename(part.data, path))
            status = lc_fail_errno(err, LC_EIO, "%s", path);
        if (status != LC_OK) unlink(part.data);
    }
    lc_buf_free(&part);
    return status;
}

int lc_file_ready(const char *path, lc_err *err) {
    struct stat st;
    lc_buf part = {0};
    int status = lc_make_parents(path, 0777, err);
    if (status != LC_OK) return status;
    if (!stat(path, &st) && S_ISDIR(st.st_mode))
        return lc_fail(err, LC_EIO, "%s: is a folder", path);
    if (!lc_buf_printf(&part, "%s.part", path))
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    FILE *file = fopen(part.data, "wb");
    if (!file) status = lc_fail_errno(err, LC_EIO, "%s", part.data);
    if (file) {
        fclose(file);
        unlink(part.data);
    }
    lc_buf_free(&part);
    return status;
}

static int make_folder(const char *path, unsigned mode, lc_err *err) {
    if (!mkdir(path, mode) || errno == EEXIST) return LC_OK;
    return lc_fail_errno(err, LC_EIO, "%s: can't make the folder", path);
}

int lc_make_parents(const char *path, unsigned mode, lc_err *err) {
    char *copy = lc_strdup(path);
    if (!copy) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    int status = LC_OK;
    for (char *p = copy + strspn(copy, "/"); status == LC_OK && (p = strchr(p, '/')); p++) {
        if (!p[strspn(p, "/")]) break; /* slashes at the end */
        *p = 0;
        status = make_folder(copy, mode, err);
        *p = '/';
    }
    lc_free(copy);
    return status;
}

int lc_make_folders(const char *path, unsigned mode, lc_err *err) {
    int status = lc_make_parents(path, mode, err);
    return status == LC_OK ? make_folder(path, mode, err) : status;
}

int lc_folder_lock(const char *folder, int *lock, lc_err *err) {
    lc_buf path = {0};
    *lock = -1;
    if (!lc_buf_printf(&path, "%s/lock", folder))
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
    int status = LC_OK;
    *lock = open(path.data, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*lock < 0) {
        status = lc_fail_errno(err, LC_EIO, "%s", path.data);
    } else if (flock(*lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
        status = lc_fail(err, LC_EINVAL, "%s: another process works in this folder", folder);
        close(*lock);
        *lock = -1;
    }
    lc_buf_free(&path);
    return status;
}
