/* file.c: whole files read and written, folders made, held and synced. */
#include "base/file.h"

#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

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

int lc_folder_sync(const char *folder, lc_err *err) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL);
    int status = ok ? LC_OK : lc_fail_errno(err, LC_EIO, "the folder %s can't be synced", folder);
    if (fd >= 0) close(fd);
    return status;
}
