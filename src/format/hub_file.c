/*
 * hub_file.c: one file, from FILE.part to FILE. The part only grows at its end, so its length says
 * how far it is; a kill at any moment loses nothing but what was not written yet. Its hash is
 * computed while data arrives (what an earlier run left is read once), and only a file of the
 * stated size and hash is renamed. An answer that doesn't fit the question (a wrong range, length
 * or hash) starts the file again from its first byte, but not forever.
 */
#include "format/hub_internal.h"

#include "base/err.h"
#include "base/file.h"
#include "base/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_BAD_ANSWERS = 3,
    GOOD_PROGRESS = 1 << 20, /* bytes of one attempt after which failures count from 0 again */
    READ_SIZE = 1 << 20,
};

/* ---- names ---- */

typedef struct names {
    lc_buf final, part, folder;
} names;

static void names_free(names *n) {
    lc_buf_free(&n->final);
    lc_buf_free(&n->part);
    lc_buf_free(&n->folder);
}

static int names_make(names *n, const hub_run *run, const hub_file *file, lc_err *err) {
    *n = (names){0};
    lc_buf_printf(&n->final, "%s/%s", run->options->out, file->path);
    lc_buf_printf(&n->part, "%s/%s.part", run->options->out, file->path);
    if (!n->final.failed)
        lc_buf_append(&n->folder, n->final.data,
                      (size_t)(strrchr(n->final.data, '/') - n->final.data));
    if (n->part.data && n->folder.data && !n->folder.failed) return LC_OK;
    names_free(n);
    return lc_fail(err, LC_ENOMEM, "out of memory");
}

/* ---- hashes ---- */

static lc_hash *new_hash(const hub_file *file) {
    char head[32];
    lc_hash *hash = lc_hash_new(file->kind);
    if (hash && file->kind == LC_HASH_SHA1) { /* git hashes a header with the content */
        int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)file->size);
        lc_hash_update(hash, head, (size_t)n + 1);
    }
    return hash;
}

static void drop_hash(lc_hash *hash) {
    char unused[65];
    if (hash) lc_hash_finish(hash, unused);
}

/* Adds the first `size` bytes of an open file to a hash; file->done follows. */
static int hash_content(hub_client *c, int fd, uint64_t size, hub_file *file, lc_hash *hash,
                        lc_err *err) {
    char *block = lc_alloc(READ_SIZE);
    int status = block ? LC_OK : lc_fail(err, LC_ENOMEM, "out of memory");
    for (uint64_t at = 0; status == LC_OK && at < size;) {
        size_t want = size - at < READ_SIZE ? (size_t)(size - at) : READ_SIZE;
        ssize_t got = pread(fd, block, want, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            status = lc_fail_errno(err, LC_EIO, "read failed");
        else if (got == 0)
            status = lc_fail(err, LC_EIO, "became shorter while it was read");
        else if (!c->alive(c->ctx))
            status = lc_fail(err, LC_ECANCELED, "stopped");
        else
            lc_hash_update(hash, block, (size_t)got);
        if (status == LC_OK) at += (uint64_t)got;
        atomic_store(&file->done, at);
    }
    lc_free(block);
    return status;
}

/* ---- files that are already here ---- */

int hub_file_check(hub_client *c, hub_run *run, hub_file *file, lc_err *err) {
    names n;
    struct stat info;
    char hex[65] = "";
    int status = names_make(&n, run, file, err);
    if (status != LC_OK) return status;
    int fd = open(n.final.data, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool fits = fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
                (uint64_t)info.st_size == file->size;
    if (fits && file->hash[0]) {
        lc_hash *hash = new_hash(file);
        status = hash ? hash_content(c, fd, file->size, file, hash, err)
                      : lc_fail(err, LC_ENOMEM, "out of memory");
        if (hash) lc_hash_finish(hash, hex);
    }
    if (fd >= 0) close(fd);
    file->kept = fits && status == LC_OK && !strcmp(hex, file->hash);
    atomic_store(&file->done, file->kept ? file->size : 0);
    atomic_store(&file->state, file->kept ? HUB_DONE : HUB_WAITING);
    names_free(&n);
    if (status != LC_OK) lc_err_prefix(err, "%s", file->path);
    return status;
}

uint64_t hub_file_missing(const hub_run *run, const hub_file *file) {
    names n;
    struct stat info;
    uint64_t here = 0;
    if (file->kept || names_make(&n, run, file, NULL) != LC_OK) return 0;
    if (stat(n.part.data, &info) == 0 && S_ISREG(info.st_mode)) here = (uint64_t)info.st_size;
    names_free(&n);
    return here < file->size ? file->size - here : 0;
}

/* ---- a transfer ---- */

typedef struct transfer {
    hub_run *run;
    hub_client *client;
    hub_file *file;
    names names;
    int fd;
    uint64_t offset, end; /* bytes in the part; where the current answer ends */
    lc_hash *hash;
    bool bad_answer; /* the last attempt failed because of what the server said */
    bool refused;    /* 401 or 403 */
} transfer;

/* Keeps the first `size` bytes of the part and drops the rest. */
static int restart_at(transfer *t, uint64_t size, lc_err *err) {
    drop_hash(t->hash);
    t->hash = new_hash(t->file);
    t->offset = size;
    atomic_store(&t->file->done, 0);
    if (!t->hash) return lc_fail(err, LC_ENOMEM, "out of memory");
    if (ftruncate(t->fd, (off_t)size) != 0)
        return lc_fail_errno(err, LC_EIO, "the .part file: can't be shortened");
    return hash_content(t->client, t->fd, size, t->file, t->hash, err);
}

static int open_part(transfer *t, lc_err *err) {
    struct stat info;
    int status = lc_make_folders(t->names.folder.data, 0777, err);
    if (status != LC_OK) return status;
    t->fd = open(t->names.part.data, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
    if (t->fd < 0 || fstat(t->fd, &info) != 0)
        return lc_fail_errno(err, LC_EIO, "the .part file: can't be opened");
    if (!S_ISREG(info.st_mode)) return lc_fail(err, LC_EIO, "the .part file is not a regular file");
    if (flock(t->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return lc_fail(err, LC_EIO, "another process is downloading it");
    uint64_t here = (uint64_t)info.st_size;
    status = restart_at(t, here <= t->file->size && t->file->hash[0] ? here : 0, err);
    return status;
}

static int bad_answer(transfer *t, lc_err *err, const char *problem) {
    t->bad_answer = true;
    return lc_fail(err, LC_ENET, "%s", problem);
}

/* Before an answer's first byte: does it fit the question? */
static int begin(void *ctx, const hub_response *r, lc_err *err) {
    transfer *t = ctx;
    if (r->status == 206) {
        if (!r->has_range || r->range_start != t->offset || r->range_end + 1 != t->end ||
            (r->range_total >= 0 && (uint64_t)r->range_total != t->file->size))
            return bad_answer(t, err, "the server sent another range than was asked for");
    } else {
        t->end = t->file->size;
        /* The server knows no ranges: the whole file comes again. */
        int status = t->offset > 0 ? restart_at(t, 0, err) : LC_OK;
        if (status != LC_OK) return status;
    }
    uint64_t expected = t->end - t->offset;
    if (r->length >= 0 && (uint64_t)r->length != expected) {
        char text[120];
        snprintf(text, sizeof text, "the server sends %lld bytes where the hub's list means %llu",
                 (long long)r->length, (unsigned long long)expected);
        return bad_answer(t, err, text);
    }
    return LC_OK;
}

static int write_data(transfer *t, const char *data, size_t len, lc_err *err) {
    for (size_t at = 0; at < len;) {
        ssize_t n = pwrite(t->fd, data + at, len - at, (off_t)(t->offset + at));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return lc_fail_errno(err, LC_EIO, "the .part file: write failed");
        at += (size_t)n;
    }
    return LC_OK;
}

static int data(void *ctx, const char *bytes, size_t len, lc_err *err) {
    transfer *t = ctx;
    if (len > t->end - t->offset)
        return bad_answer(t, err, "the server sends more bytes than it should");
    int status = write_data(t, bytes, len, err);
    if (status != LC_OK) return status;
    lc_hash_update(t->hash, bytes, len);
    t->offset += len;
    atomic_store(&t->file->done, t->offset);
    atomic_fetch_add(&t->run->received, len);
    return LC_OK;
}

/* One request for what is missing, or for the next range of a very large file. *again: another
 * attempt may help. */
static int attempt(transfer *t, const char *url, hub_response *r, bool *again, lc_err *err) {
    uint64_t missing = t->file->size - t->offset, most = t->run->options->max_request;
    hub_request request = {.url = url, .begin = begin, .data = data, .ctx = t};
    t->end = t->offset + (missing < most ? missing : most);
    if (t->offset > 0 || missing > most) {
        request.first = t->offset;
        request.last = t->end - 1;
    }
    t->bad_answer = false;
    int status = hub_get(t->client, &request, r, err);
    *again = status == LC_ENET;
    if (status != LC_OK) return status;
    *again = true;
    if (r->status == 200 || r->status == 206) {
        if (t->offset == t->end) return LC_OK;
        return lc_fail(err, LC_ENET, "the answer ended early");
    }
    if (r->status == 416) return bad_answer(t, err, "the server does not have the missing bytes");
    *again = hub_is_temporary(r);
    return hub_status_error(r, "the hub", err);
}

/* ---- the end of a file ---- */

/* All bytes are there. *right: they are what the hub states, and the file has its name now. */
static int complete(transfer *t, bool *right, lc_err *err) {
    char hex[65];
    const hub_file *file = t->file;
    lc_hash_finish(t->hash, hex);
    t->hash = NULL;
    *right = !file->hash[0] || !strcmp(hex, file->hash);
    if (!*right)
        return lc_fail(err, LC_EFORMAT, "the %s is %s, the hub states %s",
                       file->kind == LC_HASH_SHA256 ? "sha256" : "git hash", hex, file->hash);
    if (fsync(t->fd) != 0) return lc_fail_errno(err, LC_EIO, "the .part file: can't be synced");
    if (rename(t->names.part.data, t->names.final.data) != 0)
        return lc_fail_errno(err, LC_EIO, "the .part file: can't be renamed");
    lc_pages_forget(t->fd, file->size);
    return lc_folder_sync(t->names.folder.data, err);
}

/* Tells of a failure, makes the part usable again and waits. */
static int prepare_again(transfer *t, int failures, uint64_t retry_after, lc_err *err) {
    hub_run *run = t->run;
    uint64_t salt = (uint64_t)(t->file - run->list.files) + 1;
    uint64_t wait = hub_backoff(t->client->net, failures, retry_after, salt);
    pthread_mutex_lock(&run->lock);
    snprintf(run->note, sizeof run->note, "%.80s: %.160s; again in %.1f s", t->file->path,
             err->text, (double)wait / 1000);
    run->has_note = true;
    pthread_mutex_unlock(&run->lock);
    int status = t->bad_answer ? restart_at(t, 0, err) : LC_OK;
    if (status == LC_OK && !hub_sleep(t->client, wait))
        status = lc_fail(err, LC_ECANCELED, "stopped");
    return status;
}

/* Until the file is complete, or there have been too many failures in a row. */
static int transfer_all(transfer *t, const char *url, lc_err *err) {
    uint64_t best = t->offset; /* failures count from 0 again when it has grown well */
    for (int failures = 0, bad = 0;;) {
        hub_response r = {0};
        bool again = true, right = false, whole = t->offset == t->file->size;
        int status = whole ? complete(t, &right, err) : attempt(t, url, &r, &again, err);
        if (whole && right) return status;
        if (whole) t->bad_answer = true;
        if (t->offset >= best + GOOD_PROGRESS) {
            best = t->offset;
            failures = 0;
        }
        if (status == LC_OK) continue;
        t->refused = r.status == 401 || r.status == 403;
        if (!again) return status;
        if (t->bad_answer && ++bad == MAX_BAD_ANSWERS) {
            unlink(t->names.part.data);
            return err->code = LC_EFORMAT;
        }
        if (++failures >= t->client->net->retries) {
            lc_err_prefix(err, "gave up after %d failures", failures);
            return LC_ENET;
        }
        status = prepare_again(t, failures, r.retry_after, err);
        if (status != LC_OK) return status;
    }
}

static void make_url(lc_buf *url, const hub_run *run, const hub_file *file) {
    const lc_hub_options *o = run->options;
    lc_buf_printf(url, "%s/", run->net.endpoint);
    hub_escape(url, o->repo, true);
    lc_buf_puts(url, "/resolve/");
    hub_escape(url, run->list.commit[0] ? run->list.commit : o->revision, false);
    lc_buf_putc(url, '/');
    hub_escape(url, file->path, true);
}

int hub_file_fetch(hub_client *c, hub_run *run, hub_file *file, bool *refused, lc_err *err) {
    transfer t = {.run = run, .client = c, .file = file, .fd = -1};
    lc_buf url = {0};
    make_url(&url, run, file);
    int status = names_make(&t.names, run, file, err);
    if (status == LC_OK && url.failed) status = lc_fail(err, LC_ENOMEM, "out of memory");
    if (status == LC_OK) status = open_part(&t, err);
    if (status == LC_OK) status = transfer_all(&t, url.data, err);
    if (status != LC_OK) lc_err_prefix(err, "%s", file->path);
    *refused = t.refused;
    atomic_store(&file->state, status == LC_OK ? HUB_DONE : HUB_FAILED);
    if (t.fd >= 0) close(t.fd);
    drop_hash(t.hash);
    names_free(&t.names);
    lc_buf_free(&url);
    return status;
}
