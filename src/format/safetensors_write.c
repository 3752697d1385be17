/*
 * safetensors_write.c: writing one safetensors file, at once or in pieces.
 *
 * Bargain: a reader sees the old file or the whole new one: data goes to <path>.part, is synced,
 * and takes the name at the end. What is written passes our own reader's checks, because the same
 * rules are checked here first. Every tensor's place is known from the start, so pieces may come in
 * any order and from several threads.
 */
#include "format/safetensors.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/pages.h"
#include "format/tensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ALIGNED = 64 }; /* bytes of a cache line */

/* A tensor and its place in the caller's order. */
typedef struct item {
    const lc_tensor *tensor;
    size_t order, bytes;
} item;

/* The largest power of two that divides the size, at most a cache line. */
static size_t alignment(const item *i) {
    size_t least = i->bytes & (~i->bytes + 1);
    return least && least < ALIGNED ? least : ALIGNED;
}

/* Descending: so a tensor begins at a multiple of its alignment, which its elements' size divides.
 */
static int by_alignment(const void *a, const void *b) {
    const item *x = a, *y = b;
    size_t p = alignment(x), q = alignment(y);
    if (p != q) return p > q ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

struct lc_safetensors_file {
    char *path, *part;
    int fd;
    size_t count, bytes; /* tensors; of all tensors */
    struct {
        size_t at, bytes; /* place in the file */
    } * tensors;          /* [count], in the caller's order */
    atomic_size_t written;
};

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

/* Length, JSON, and spaces up to a multiple of 64. */
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
    while (out->len % ALIGNED && lc_buf_putc(out, ' ')) {
    }
    if (out->failed) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    if (out->len - 8 > LC_MAX_HEADER)
        return lc_fail(err, LC_ELIMIT, "%s: header above %d bytes", path, LC_MAX_HEADER);
    if (!lc_size_add(offset, out->len, &end) || end > INT64_MAX)
        return lc_fail(err, LC_ELIMIT, "%s: too large", path);
    for (int i = 0; i < 8; i++) out->data[i] = (char)((uint64_t)(out->len - 8) >> 8 * i);
    return LC_OK;
}

static bool write_all(int fd, const void *bytes, size_t size, size_t at) {
    const char *from = bytes;
    while (size) {
        ssize_t n = pwrite(fd, from, size < (1u << 30) ? size : (1u << 30), (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        from += n;
        at += (size_t)n;
        size -= (size_t)n;
    }
    return true;
}

/* The new name must survive a power cut too: sync the folder. */
static void sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash > path ? lc_strndup(path, (size_t)(slash - path)) : NULL;
    lc_folder_sync(folder ? folder : slash ? "/" : ".", NULL); /* the file itself is synced */
    lc_free(folder);
}

static void release(lc_safetensors_file *f) {
    if (f->fd >= 0) close(f->fd);
    lc_free(f->path);
    lc_free(f->part);
    lc_free(f->tensors);
    lc_free(f);
}

void lc_safetensors_discard(lc_safetensors_file *f) {
    if (!f) return;
    if (f->fd >= 0) unlink(f->part);
    release(f);
}

/* The file's struct with both names and the tensors' places behind `start` bytes of header. */
static lc_safetensors_file *new_file(const char *path, const item *items, size_t count,
                                     size_t start) {
    lc_safetensors_file *f = lc_calloc(1, sizeof *f);
    if (!f) return NULL;
    f->fd = -1;
    f->count = count;
    f->path = lc_strdup(path);
    f->part = lc_alloc(strlen(path) + sizeof ".part");
    f->tensors = lc_calloc(count ? count : 1, sizeof *f->tensors);
    if (!f->path || !f->part || !f->tensors) {
        release(f);
        return NULL;
    }
    memcpy(f->part, path, strlen(path));
    memcpy(f->part + strlen(path), ".part", sizeof ".part");
    for (size_t i = 0; i < count; i++) {
        f->tensors[items[i].order].at = start + f->bytes;
        f->tensors[items[i].order].bytes = items[i].bytes;
        f->bytes += items[i].bytes;
    }
    return f;
}

static int begin_file(lc_safetensors_file *f, const lc_buf *header, lc_err *err) {
    f->fd = open(f->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (f->fd < 0) return lc_fail_errno(err, LC_EIO, "%s", f->part);
    if (!write_all(f->fd, header->data, header->len, 0))
        return lc_fail_errno(err, LC_EIO, "%s: write failed", f->part);
    return LC_OK;
}

int lc_safetensors_create(const char *path, const lc_tensor *tensors, size_t count,
                          lc_safetensors_file **out, lc_err *err) {
    *out = NULL;
    lc_buf header = {0};
    item *items = lc_calloc(count ? count : 1, sizeof *items);
    if (!items) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < count; i++) items[i] = (item){.tensor = &tensors[i], .order = i};
    int status = check(path, items, count, err);
    if (status == LC_OK) status = make_header(path, items, count, &header, err);
    lc_safetensors_file *f = status == LC_OK ? new_file(path, items, count, header.len) : NULL;
    if (status == LC_OK && !f) status = lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    if (status == LC_OK) status = begin_file(f, &header, err);
    lc_buf_free(&header);
    lc_free(items);
    if (status == LC_OK)
        *out = f;
    else
        lc_safetensors_discard(f);
    return status;
}

int lc_safetensors_put(lc_safetensors_file *f, size_t tensor, size_t offset, const void *data,
                       size_t size, lc_err *err) {
    if (tensor >= f->count || offset > f->tensors[tensor].bytes ||
        size > f->tensors[tensor].bytes - offset)
        return lc_fail(err, LC_EINVAL, "%s: %zu bytes at %zu are not inside of tensor %zu", f->path,
                       size, offset, tensor);
    if (!write_all(f->fd, data, size, f->tensors[tensor].at + offset))
        return lc_fail_errno(err, LC_EIO, "%s: write failed", f->part);
    atomic_fetch_add(&f->written, size);
    return LC_OK;
}

int lc_safetensors_commit(lc_safetensors_file *f, lc_err *err) {
    int status = LC_OK;
    if (atomic_load(&f->written) != f->bytes)
        status = lc_fail(err, LC_EINVAL, "%s: %zu of %zu bytes were written", f->path,
                         atomic_load(&f->written), f->bytes);
    if (status == LC_OK && fsync(f->fd))
        status = lc_fail_errno(err, LC_EIO, "%s: write failed", f->part);
    int fd = f->fd;
    f->fd = -1;
    lc_pages_forget(fd, f->bytes);
    if (close(fd) && status == LC_OK)
        status = lc_fail_errno(err, LC_EIO, "%s: write failed", f->part);
    if (status == LC_OK && rename(f->part, f->path))
        status = lc_fail_errno(err, LC_EIO, "%s", f->path);
    if (status == LC_OK)
        sync_folder(f->path);
    else
        unlink(f->part);
    release(f);
    return status;
}

int lc_safetensors_write(const char *path, const lc_tensor *tensors, size_t count, lc_err *err) {
    lc_safetensors_file *f;
    int status = lc_safetensors_create(path, tensors, count, &f, err);
    if (status != LC_OK) return status;
    for (size_t i = 0; i < count && status == LC_OK; i++) {
        size_t bytes = f->tensors[i].bytes;
        if (bytes && !tensors[i].data)
            status = lc_fail(err, LC_EINVAL, "%s: tensor %s has no data", path, tensors[i].name);
        else
            status = lc_safetensors_put(f, i, 0, tensors[i].data, bytes, err);
    }
    if (status == LC_OK) return lc_safetensors_commit(f, err);
    lc_safetensors_discard(f);
    return status;
}
