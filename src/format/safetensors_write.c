/*
 * safetensors_write.c: writing one safetensors file, whole or piece by piece.
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

/* A tensor, its place in the caller's order, and its bytes in the data. */
typedef struct item {
    const lc_tensor *tensor;
    size_t order, bytes, offset;
} item;

struct lc_safetensors_writer {
    char *path, *part;
    int fd;
    size_t count;
    size_t *offsets, *bytes; /* of tensor i, in the file */
};

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
static int make_header(const char *path, item *items, size_t count, lc_buf *out, lc_err *err) {
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
        items[i].offset = offset;
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

static bool write_all(int fd, const void *bytes, size_t size, size_t offset) {
    const char *at = bytes;
    while (size) {
        ssize_t n = pwrite(fd, at, size < (1u << 30) ? size : (1u << 30), (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
        offset += (size_t)n;
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

/* The header in `out`, items in file order: *bytes of data behind it. Release items, out. */
static int lay_out(const char *path, const lc_tensor *tensors, size_t count, item **out_items,
                   lc_buf *header, lc_err *err) {
    item *items = *out_items = lc_calloc(count ? count : 1, sizeof *items);
    if (!items) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < count; i++) items[i] = (item){.tensor = &tensors[i], .order = i};
    int status = check(path, items, count, err);
    return status == LC_OK ? make_header(path, items, count, header, err) : status;
}

size_t lc_safetensors_size(const lc_tensor *tensors, size_t count, lc_err *err) {
    lc_buf header = {0};
    item *items;
    size_t size = 0;
    if (lay_out("checkpoint", tensors, count, &items, &header, err) == LC_OK)
        size = header.len + (count ? items[count - 1].offset + items[count - 1].bytes : 0);
    lc_free(items);
    lc_buf_free(&header);
    return size;
}

static int create(lc_safetensors_writer *w, const lc_buf *header, size_t size, lc_err *err) {
    w->fd = open(w->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (w->fd < 0) return lc_fail_errno(err, LC_EIO, "%s", w->part);
    if (!write_all(w->fd, header->data, header->len, 0) || ftruncate(w->fd, (off_t)size))
        return lc_fail_errno(err, LC_EIO, "%s: write failed", w->part);
    return LC_OK;
}

static void free_writer(lc_safetensors_writer *w) {
    lc_free(w->path);
    lc_free(w->part);
    lc_free(w->offsets);
    lc_free(w->bytes);
    lc_free(w);
}

static int start(lc_safetensors_writer *w, const char *path, const lc_tensor *tensors,
                 lc_err *err) {
    lc_buf header = {0}, part = {0};
    item *items = NULL;
    size_t size = 0;
    w->path = lc_strdup(path);
    w->part = lc_buf_printf(&part, "%s.part", path) ? part.data : NULL;
    w->offsets = lc_calloc(w->count + 1, sizeof *w->offsets);
    w->bytes = lc_calloc(w->count + 1, sizeof *w->bytes);
    int status = w->path && w->part && w->offsets && w->bytes
                     ? lay_out(path, tensors, w->count, &items, &header, err)
                     : lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < w->count && status == LC_OK; i++) {
        w->offsets[items[i].order] = header.len + items[i].offset;
        w->bytes[items[i].order] = items[i].bytes;
        size = header.len + items[i].offset + items[i].bytes;
    }
    if (status == LC_OK) status = create(w, &header, w->count ? size : header.len, err);
    lc_free(items);
    lc_buf_free(&header);
    return status;
}

int lc_safetensors_writer_open(const char *path, const lc_tensor *tensors, size_t count,
                               lc_safetensors_writer **out, lc_err *err) {
    lc_safetensors_writer *w = lc_calloc(1, sizeof *w);
    *out = NULL;
    if (!w) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    w->count = count;
    w->fd = -1;
    int status = start(w, path, tensors, err);
    if (status == LC_OK)
        *out = w;
    else
        lc_safetensors_writer_close(w, false, NULL);
    return status;
}

int lc_safetensors_writer_put(lc_safetensors_writer *w, size_t i, size_t offset, const void *data,
                              size_t size, lc_err *err) {
    if (i >= w->count || offset > w->bytes[i] || size > w->bytes[i] - offset)
        return lc_fail(err, LC_EINVAL, "%s: %zu bytes at %zu of tensor %zu are outside", w->path,
                       size, offset, i);
    if (write_all(w->fd, data, size, w->offsets[i] + offset)) return LC_OK;
    return lc_fail_errno(err, LC_EIO, "%s: write failed", w->part);
}

int lc_safetensors_writer_close(lc_safetensors_writer *w, bool keep, lc_err *err) {
    int status = LC_OK;
    bool made = w->fd >= 0;
    if (keep && fsync(w->fd)) status = lc_fail_errno(err, LC_EIO, "%s: write failed", w->part);
    if (made && close(w->fd) && keep && status == LC_OK)
        status = lc_fail_errno(err, LC_EIO, "%s: write failed", w->part);
    if (keep && status == LC_OK && rename(w->part, w->path))
        status = lc_fail_errno(err, LC_EIO, "%s", w->path);
    if (keep && status == LC_OK)
        sync_folder(w->path);
    else if (made)
        unlink(w->part);
    free_writer(w);
    return status;
}

int lc_safetensors_write(const char *path, const lc_tensor *tensors, size_t count, lc_err *err) {
    lc_safetensors_writer *w;
    int status = lc_safetensors_writer_open(path, tensors, count, &w, err);
    if (status != LC_OK) return status;
    for (size_t i = 0; i < count && status == LC_OK; i++) {
        if (w->bytes[i] && !tensors[i].data)
            status = lc_fail(err, LC_EINVAL, "%s: tensor %s has no data", path, tensors[i].name);
        else
            status = lc_safetensors_writer_put(w, i, 0, tensors[i].data, w->bytes[i], err);
    }
    int closed = lc_safetensors_writer_close(w, status == LC_OK, err);
    return status == LC_OK ? closed : status;
}
