/*
 * safetensors_write.c: writing one safetensors file.
 *
 * Bargain: a reader sees the old file or the whole new one: data goes to <path>.part, is synced,
 * and takes the name at the end. What is written passes our own reader's checks, because the same
 * rules are checked here first.
 */
#include "format/safetensors.h"

#include "base/buf.h"
#include "base/err.h"
#include "format/tensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A tensor and its place in the caller's order. */
typedef struct item {
    const lc_tensor *tensor;
    size_t order, bytes;
} item;

static int by_alignment(const void *a, const void *b) {
    const item *x = a, *y = b;
    size_t p = lc_dtype_size(x->tensor->dtype), q = lc_dtype_size(y->tensor->dtype);
    if (p != q) return p > q ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const item *)a)->tensor->name, ((const item *)b)->tensor->name);
}

static int check(const char *path, item *items, size_t count, lc_err *err) {
    for (size_t i = 0; i < count; i++) {
        const lc_tensor *t = items[i].tensor;
        size_t n = lc_dtype_size(t->dtype);
        if (!lc_tensor_name_ok(t->name) || !strcmp(t->name, "__metadata__"))
            return lc_fail(err, LC_EINVAL, "%s: tensor %zu has no usable name", path, i);
        if (!n) return lc_fail(err, LC_EINVAL, "%s: tensor %s: unknown dtype", path, t->name);
        if (t->rank < 0 || t->rank > LC_MAX_RANK)
            return lc_fail(err, LC_EINVAL, "%s: tensor %s: %d dimensions", path, t->name, t->rank);
        for (int d = 0; d < t->rank; d++)
            if (!lc_size_mul(n, t->shape[d], &n))
                return lc_fail(err, LC_ELIMIT, "%s: tensor %s: too large", path, t->name);
        if (n && !t->data)
            return lc_fail(err, LC_EINVAL, "%s: tensor %s has no data", path, t->name);
        items[i].bytes = n;
    }
    if (count) qsort(items, count, sizeof *items, by_name);
    for (size_t i = 1; i < count; i++)
        if (!by_name(&items[i - 1], &items[i]))
            return lc_fail(err, LC_EINVAL, "%s: tensor %s is given twice", path,
                           items[i].tensor->name);
    if (count) qsort(items, count, sizeof *items, by_alignment);
    return LC_OK;
}

/* Length, JSON, and spaces up to a multiple of 8. */
static int make_header(const char *path, const item *items, size_t count, lc_buf *out,
                       lc_err *err) {
    size_t offset = 0, end;
    lc_buf_append(out, "\0\0\0\0\0\0\0\0{", 9);
    for (size_t i = 0; i < count; i++) {
        const lc_tensor *t = items[i].tensor;
        lc_buf_puts(out, i ? ",\"" : "\"");
        for (const char *c = t->name; *c; c++) { /* no control characters: these two suffice */
            if (*c == '"' || *c == '\\') lc_buf_putc(out, '\\');
            lc_buf_putc(out, *c);
        }
        lc_buf_printf(out, "\":{\"dtype\":\"%s\",\"shape\":[", lc_dtype_name(t->dtype));
        for (int d = 0; d < t->rank; d++) lc_buf_printf(out, d ? ",%zu" : "%zu", t->shape[d]);
        if (!lc_size_add(offset, items[i].bytes, &end))
            return lc_fail(err, LC_ELIMIT, "%s: too large", path);
        lc_buf_printf(out, "],\"data_offsets\":[%zu,%zu]}", offset, end);
        offset = end;
    }
    lc_buf_putc(out, '}');
    while (out->len % 8 && lc_buf_putc(out, ' ')) {
    }
    if (out->failed) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    if (out->len - 8 > LC_MAX_HEADER)
        return lc_fail(err, LC_ELIMIT, "%s: header above %d bytes", path, LC_MAX_HEADER);
    for (int i = 0; i < 8; i++) out->data[i] = (char)((uint64_t)(out->len - 8) >> 8 * i);
    return LC_OK;
}

static bool write_all(int fd, const void *bytes, size_t size) {
    const char *at = bytes;
    while (size) {
        ssize_t n = write(fd, at, size < (1u << 30) ? size : (1u << 30));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

/* The new name must survive a power cut too: sync the folder. */
static void sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash > path ? lc_strndup(path, (size_t)(slash - path)) : NULL;
    int fd = open(folder ? folder : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd); /* not every file system can: the file itself is synced */
        close(fd);
    }
    lc_free(folder);
}

static int write_file(const char *path, const char *part, const lc_buf *header, const item *items,
                      size_t count, lc_err *err) {
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return lc_fail_errno(err, LC_EIO, "%s", part);
    bool ok = write_all(fd, header->data, header->len);
    for (size_t i = 0; i < count && ok; i++)
        ok = write_all(fd, items[i].tensor->data, items[i].bytes);
    ok = ok && !fsync(fd);
    int status = ok ? LC_OK : lc_fail_errno(err, LC_EIO, "%s: write failed", part);
    if (close(fd) && status == LC_OK) status = lc_fail_errno(err, LC_EIO, "%s: write failed", part);
    if (status == LC_OK && rename(part, path)) status = lc_fail_errno(err, LC_EIO, "%s", path);
    if (status != LC_OK)
        unlink(part);
    else
        sync_folder(path);
    return status;
}

int lc_safetensors_write(const char *path, const lc_tensor *tensors, size_t count, lc_err *err) {
    lc_buf header = {0}, part = {0};
    item *items = lc_calloc(count ? count : 1, sizeof *items);
    if (!items || !lc_buf_printf(&part, "%s.part", path)) {
        lc_free(items);
        lc_buf_free(&part);
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    }
    for (size_t i = 0; i < count; i++) items[i] = (item){.tensor = &tensors[i], .order = i};
    int status = check(path, items, count, err);
    if (status == LC_OK) status = make_header(path, items, count, &header, err);
    if (status == LC_OK) status = write_file(path, part.data, &header, items, count, err);
    lc_buf_free(&header);
    lc_buf_free(&part);
    lc_free(items);
    return status;
}
