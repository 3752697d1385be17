/*
 * machine_disk.c: sequential reads of files as streaming weights does them: past the page cache,
 * many in flight. Nothing is written.
 */
#include "base/aio.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "engine/machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, DEPTH = 16, MAX_FILES = 64, MAX_REPEAT = 64, ALIGN = 4096 };

typedef struct disk_file {
    char *path;
    uint64_t size;
    int fd;
} disk_file;

typedef struct disk_run {
    disk_file files[MAX_FILES]; /* largest first */
    size_t n_files;
    uint64_t most; /* bytes in all */
    bool direct;
    char *block, *buffers; /* DEPTH blocks, aligned within the allocated block */
    lc_aio *aio;
    lc_err *err;
} disk_run;

static int add_file(disk_run *d, const char *path) {
    struct stat st;
    if (stat(path, &st)) return lc_fail_errno(d->err, LC_EIO, "%s", path);
    if (!S_ISREG(st.st_mode) || st.st_size == 0) return LC_OK;
    size_t at = d->n_files;
    while (at > 0 && d->files[at - 1].size < (uint64_t)st.st_size) at--;
    if (at == MAX_FILES) return LC_OK;
    char *copy = lc_strdup(path);
    if (!copy) return lc_fail(d->err, LC_ENOMEM, "%s: out of memory", path);
    if (d->n_files == MAX_FILES) lc_free(d->files[--d->n_files].path);
    memmove(d->files + at + 1, d->files + at, (d->n_files - at) * sizeof *d->files);
    d->files[at] = (disk_file){copy, (uint64_t)st.st_size, -1};
    d->n_files++;
    return LC_OK;
}

static int list_files(disk_run *d, const char *path) {
    lc_buf file = {0};
    int status = LC_OK;
    DIR *dir = opendir(path);
    if (!dir && errno != ENOTDIR) return lc_fail_errno(d->err, LC_ENOTFOUND, "%s", path);
    if (!dir) status = add_file(d, path);
    for (const struct dirent *e; dir && status == LC_OK && (e = readdir(dir));) {
        lc_buf_clear(&file);
        status = lc_buf_printf(&file, "%s/%s", path, e->d_name)
                     ? add_file(d, file.data)
                     : lc_fail(d->err, LC_ENOMEM, "%s: out of memory", path);
    }
    if (dir) closedir(dir);
    lc_buf_free(&file);
    if (status == LC_OK && !d->n_files)
        status = lc_fail(d->err, LC_ENOTFOUND, "%s: no file to read", path);
    return status;
}

/* Opens past the page cache, or where that isn't possible drops what it holds of the file. */
static int open_files(disk_run *d) {
    d->direct = true;
    for (size_t i = 0; i < d->n_files; i++) {
        disk_file *f = &d->files[i];
        f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_DIRECT);
        if (f->fd < 0 && errno == EINVAL) {
            d->direct = false;
            f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
        }
        if (f->fd < 0) return lc_fail_errno(d->err, LC_EIO, "%s", f->path);
        posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    return LC_OK;
}

/* Reads `size` bytes of a file with DEPTH blocks in flight. */
static int read_file(const disk_run *d, lc_aio_queue *queue, const disk_file *f, uint64_t size) {
    uint64_t next = 0, done = 0;
    size_t in_flight = 0, fresh = 0; /* fresh: buffers that were never used */
    while (done < size) {
        lc_aio_done finished = {0};
        char *buffer = d->buffers + fresh * BLOCK;
        if (in_flight == DEPTH || fresh == DEPTH || next >= size) {
            lc_aio_wait(queue, 1, &finished, 1);
            in_flight--;
            if (finished.error || !finished.size) {
                errno = finished.error ? finished.error : EIO;
                return lc_fail_errno(d->err, LC_EIO, "%s: read failed", f->path);
            }
            done += finished.size;
            buffer = finished.user;
        } else {
            fresh++;
        }
        if (next >= size) continue;
        lc_aio_read read = {f->fd, next, BLOCK, buffer, buffer};
        in_flight += lc_aio_submit(queue, &read, 1);
        next += BLOCK;
    }
    return LC_OK;
}

static int read_all(const disk_run *d, uint64_t *bytes, double *rate) {
    lc_aio_queue *queue;
    int status = lc_aio_queue_new(d->aio, DEPTH, &queue, d->err);
    if (status != LC_OK) return status;
    uint64_t begin = lc_clock_ns();
    *bytes = 0;
    for (size_t i = 0; i < d->n_files && *bytes < d->most && status == LC_OK; i++) {
        uint64_t size = d->files[i].size, left = d->most - *bytes;
        if (size > left) size = left;
        status = read_file(d, queue, &d->files[i], size);
        *bytes += size;
    }
    *rate = (double)*bytes * 1e9 / (double)(lc_clock_ns() - begin + 1);
    lc_aio_queue_free(queue);
    return status;
}

int lc_disk_read_rate(const char *path, uint64_t most, size_t repeat, lc_disk_read *out,
                      lc_err *err) {
    double rates[MAX_REPEAT] = {0};
    disk_run d = {.err = err, .most = (most + BLOCK - 1) / BLOCK * BLOCK};
    *out = (lc_disk_read){0};
    if (repeat < 1) repeat = 1;
    if (repeat > MAX_REPEAT) repeat = MAX_REPEAT;
    int status = list_files(&d, path);
    if (status == LC_OK) status = open_files(&d);
    if (status == LC_OK) status = lc_aio_new(DEPTH, &d.aio, err);
    if (status == LC_OK) {
        d.block = lc_alloc((size_t)DEPTH * BLOCK + ALIGN);
        if (d.block)
            d.buffers = d.block + (ALIGN - (uintptr_t)d.block % ALIGN) % ALIGN;
        else
            status = lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    }
    for (size_t i = 0; i < repeat && status == LC_OK; i++)
        status = read_all(&d, &out->bytes, &rates[i]);
    if (status == LC_OK) out->rate = lc_spread_of(rates, repeat);
    out->direct = d.direct;
    lc_aio_free(d.aio);
    lc_free(d.block);
    for (size_t i = 0; i < d.n_files; i++) {
        if (d.files[i].fd >= 0) close(d.files[i].fd);
        lc_free(d.files[i].path);
    }
    return status;
}
