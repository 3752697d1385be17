/*
 * cache_disk.c: blocks as files, one each: FOLDER/ab/ab…….kv. A writer thread does everything that
 * may wait: temporary name, header and payload, fdatasync, rename, fsync of the folder. A file's
 * time is when its block was last used.
 */
#include "store/cache_internal.h"

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { PATH_BYTES = 4400, QUEUE_BYTES = 256 << 20, FOLDERS = 256 };

static const char magic[8] = "LCKV0001";

typedef struct file_header {
    char magic[8];
    uint64_t payload;
    lc_cache_key key, parent;
    uint64_t tenant;
    int32_t tokens[LC_CACHE_BLOCK];
    uint64_t payload_hash[2]; /* XXH3-128 */
    uint64_t header_hash;     /* XXH3-64 of what stands before */
} file_header;

typedef struct work {
    struct work *next;
    lc_disk_what what;
    lc_cache_key key;
    uint64_t used_ns;
    lc_disk_block block; /* WRITE: with a reference to its data */
} work;

struct lc_disk {
    char folder[PATH_BYTES - 128];
    size_t payload;
    pthread_t writer;
    pthread_mutex_t lock;
    pthread_cond_t some, none;
    work *first, *last;
    work *lost;    /* writes that failed, until lc_disk_lost */
    size_t queued; /* bytes */
    bool busy, stop, failed;
    bool told; /* the writer's: of a file that can't be written */
    uint64_t written;
};

/* ---- names ---- */

static void hex_of(const lc_cache_key *key, char out[33]) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 16; i++) {
        out[2 * i] = digits[key->bytes[i] >> 4];
        out[2 * i + 1] = digits[key->bytes[i] & 15];
    }
    out[32] = 0;
}

static void path_of(const lc_disk *d, const lc_cache_key *key, char *path) {
    char hex[33];
    hex_of(key, hex);
    snprintf(path, PATH_BYTES, "%s/%.2s/%s.kv", d->folder, hex, hex);
}

static bool key_of(const char *name, lc_cache_key *key) {
    if (strlen(name) != 35 || strcmp(name + 32, ".kv") != 0) return false;
    for (size_t i = 0; i < 16; i++) {
        unsigned value;
        char digits[3] = {name[2 * i], name[2 * i + 1], 0};
        if (strspn(digits, "0123456789abcdef") != 2 || sscanf(digits, "%x", &value) != 1)
            return false;
        key->bytes[i] = (uint8_t)value;
    }
    return true;
}

/* ---- writing ---- */

static file_header header_of(const lc_disk_block *b, size_t payload) {
    XXH128_hash_t hash = XXH3_128bits(b->data, payload);
    file_header h;
    memset(&h, 0, sizeof h);
    memcpy(h.magic, magic, sizeof magic);
    h.payload = payload;
    h.key = b->key;
    h.parent = b->parent;
    h.tenant = b->tenant;
    memcpy(h.tokens, b->tokens, sizeof h.tokens);
    h.payload_hash[0] = hash.low64;
    h.payload_hash[1] = hash.high64;
    h.header_hash = XXH3_64bits(&h, offsetof(file_header, header_hash));
    return h;
}

static bool write_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

static void set_time(int fd, uint64_t ns) {
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    futimens(fd, (struct timespec[]){t, t});
}

static void folder_of(const char *path, char out[PATH_BYTES]) {
    snprintf(out, PATH_BYTES, "%s", path);
    *strrchr(out, '/') = 0;
}

static bool sync_folder(const char *path) {
    char folder[PATH_BYTES];
    folder_of(path, folder);
    return lc_folder_sync(folder, NULL) == LC_OK;
}

/* Somebody has removed them to free the disk: that is no reason to stop. */
static bool remake_folders(const char *path) {
    char folder[PATH_BYTES];
    folder_of(path, folder);
    return lc_make_folders(folder, 0700, NULL) == LC_OK;
}

static bool write_file(const lc_disk *d, const work *w) {
    char path[PATH_BYTES], temporary[PATH_BYTES + 8];
    file_header header = header_of(&w->block, d->payload);
    path_of(d, &w->key, path);
    snprintf(temporary, sizeof temporary, "%s.part", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 && errno == ENOENT && remake_folders(path))
        fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write_all(fd, (const char *)&header, sizeof header) &&
              write_all(fd, w->block.data, d->payload);
    if (ok) set_time(fd, w->used_ns);
    ok = ok && fdatasync(fd) == 0 && rename(temporary, path) == 0 && sync_folder(path);
    int why = errno;
    if (fd >= 0) close(fd);
    if (ok) return true;
    unlink(temporary);
    errno = why;
    return false;
}

/* What lies in the way of one file says nothing about the others. */
static bool is_of_one_file(const lc_disk *d, int why) {
    if (why == EACCES || why == EPERM) return access(d->folder, W_OK | X_OK) == 0;
    return why == EISDIR || why == ENOTDIR || why == EEXIST || why == ENOTEMPTY || why == ELOOP;
}

static void note_failure(lc_disk *d, const char *path, int why) {
    if (is_of_one_file(d, why)) {
        if (!d->told)
            lc_log(LC_LOG_WARN, "%s: %s; this block is kept in memory only", path, strerror(why));
        d->told = true;
        return;
    }
    pthread_mutex_lock(&d->lock);
    bool first = !d->failed;
    d->failed = true;
    pthread_mutex_unlock(&d->lock);
    if (first)
        lc_log(LC_LOG_ERROR, "%s: %s; prompts are kept in memory only", d->folder, strerror(why));
}

/* False: a write that failed. */
static bool do_work(lc_disk *d, const work *w) {
    char path[PATH_BYTES];
    path_of(d, &w->key, path);
    if (w->what == LC_DISK_WRITE) {
        if (!write_file(d, w)) {
            note_failure(d, path, errno);
            return false;
        }
        pthread_mutex_lock(&d->lock);
        d->written++;
        d->failed = false;
        pthread_mutex_unlock(&d->lock);
    } else if (w->what == LC_DISK_REMOVE) {
        unlink(path);
    } else {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) set_time(fd, w->used_ns);
        if (fd >= 0) close(fd);
    }
    return true;
}

static size_t size_of(const lc_disk *d, const work *w) {
    return sizeof *w + (w->what == LC_DISK_WRITE ? d->payload : 0);
}

static void *write_queue(void *ctx) {
    lc_disk *d = ctx;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        while (!d->first && !d->stop) {
            pthread_cond_broadcast(&d->none);
            pthread_cond_wait(&d->some, &d->lock);
        }
        work *w = d->first;
        if (!w) break;
        if (!(d->first = w->next)) d->last = NULL;
        d->busy = true;
        pthread_mutex_unlock(&d->lock);
        bool done = do_work(d, w);
        size_t size = size_of(d, w);
        lc_kv_block_drop(w->block.data);
        if (done) lc_free(w);
        pthread_mutex_lock(&d->lock);
        if (!done) {
            w->next = d->lost;
            d->lost = w;
        }
        d->queued -= size;
        d->busy = false;
    }
    pthread_cond_broadcast(&d->none);
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static bool enqueue(lc_disk *d, work job) {
    size_t size = size_of(d, &job);
    bool write = job.what == LC_DISK_WRITE;
    pthread_mutex_lock(&d->lock);
    bool full = write && d->queued + size > QUEUE_BYTES; /* the others are small, and needed */
    pthread_mutex_unlock(&d->lock);
    work *w = full ? NULL : lc_alloc(sizeof *w);
    if (!w) return false;
    *w = job;
    if (write) lc_kv_block_share(w->block.data);
    pthread_mutex_lock(&d->lock);
    if (d->last)
        d->last->next = w;
    else
        d->first = w;
    d->last = w;
    d->queued += size;
    pthread_cond_signal(&d->some);
    pthread_mutex_unlock(&d->lock);
    return true;
}

bool lc_disk_write(lc_disk *d, const lc_disk_block *block, uint64_t used_ns) {
    return enqueue(
        d, (work){.what = LC_DISK_WRITE, .key = block->key, .used_ns = used_ns, .block = *block});
}

void lc_disk_touch(lc_disk *d, const lc_cache_key *key, uint64_t used_ns) {
    enqueue(d, (work){.what = LC_DISK_TOUCH, .key = *key, .used_ns = used_ns});
}

void lc_disk_remove(lc_disk *d, const lc_cache_key *key) {
    enqueue(d, (work){.what = LC_DISK_REMOVE, .key = *key});
}

bool lc_disk_lost(lc_disk *d, lc_cache_key *key) {
    pthread_mutex_lock(&d->lock);
    work *w = d->lost;
    if (w) d->lost = w->next;
    pthread_mutex_unlock(&d->lock);
    if (!w) return false;
    *key = w->key;
    lc_free(w);
    return true;
}

void lc_disk_flush(lc_disk *d) {
    pthread_mutex_lock(&d->lock);
    while (d->first || d->busy) pthread_cond_wait(&d->none, &d->lock);
    pthread_mutex_unlock(&d->lock);
}

/* ---- reading ---- */

static bool read_all(int fd, void *data, size_t size) {
    char *at = data;
    while (size) {
        ssize_t n = read(fd, at, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static bool header_holds(const lc_disk *d, const file_header *h, const lc_cache_key *key) {
    return !memcmp(h->magic, magic, sizeof magic) && h->payload == d->payload &&
           !memcmp(&h->key, key, sizeof *key) &&
           h->header_hash == XXH3_64bits(h, offsetof(file_header, header_hash));
}

bool lc_disk_read(lc_disk *d, const lc_cache_key *key, lc_disk_block *block, bool *damaged) {
    char path[PATH_BYTES];
    file_header h;
    struct stat st;
    *damaged = false;
    path_of(d, key, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = read_all(fd, &h, sizeof h) && header_holds(d, &h, key) &&
              read_all(fd, block->data, d->payload) && fstat(fd, &st) == 0 &&
              st.st_size == (off_t)(sizeof h + d->payload);
    close(fd);
    if (ok) {
        XXH128_hash_t hash = XXH3_128bits(block->data, d->payload);
        ok = hash.low64 == h.payload_hash[0] && hash.high64 == h.payload_hash[1];
    }
    if (!ok) {
        *damaged = true;
        lc_log(LC_LOG_WARN, "%s: damaged, removed", path);
        unlink(path);
        return false;
    }
    block->key = h.key;
    block->parent = h.parent;
    block->tenant = h.tenant;
    memcpy(block->tokens, h.tokens, sizeof block->tokens);
    return true;
}

/* ---- opening ---- */

static void scan_folder(lc_disk *d, const char *folder,
                        void (*found)(void *ctx, const lc_cache_key *key, uint64_t used_ns),
                        void *ctx) {
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        lc_cache_key key;
        struct stat st;
        size_t n = strlen(e->d_name);
        if (n > 5 && !strcmp(e->d_name + n - 5, ".part")) {
            unlinkat(dirfd(dir), e->d_name, 0);
        } else if (key_of(e->d_name, &key) && fstatat(dirfd(dir), e->d_name, &st, 0) == 0) {
            if (st.st_size == (off_t)lc_disk_file_bytes(d))
                found(ctx, &key,
                      (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec);
            else if (time(NULL) - st.st_mtim.tv_sec > 30L * 24 * 3600) /* another model's, unused */
                unlinkat(dirfd(dir), e->d_name, 0);
        }
    }
    if (dir) closedir(dir);
}

int lc_disk_open(const char *folder, size_t payload,
                 void (*found)(void *ctx, const lc_cache_key *key, uint64_t used_ns), void *ctx,
                 lc_disk **out, lc_err *err) {
    lc_disk *d = lc_calloc(1, sizeof *d);
    *out = NULL;
    if (!d) return lc_fail(err, LC_ENOMEM, "prompt cache: out of memory");
    d->payload = payload;
    int n = snprintf(d->folder, sizeof d->folder, "%s", folder);
    int status = n > 0 && (size_t)n < sizeof d->folder
                     ? lc_make_folders(folder, 0700, err)
                     : lc_fail(err, LC_EINVAL, "prompt cache: the folder's path is too long");
    for (unsigned i = 0; i < FOLDERS && status == LC_OK; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/%02x", folder, i);
        status = lc_make_folders(path, 0700, err);
        if (status == LC_OK) scan_folder(d, path, found, ctx);
    }
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->some, NULL);
    pthread_cond_init(&d->none, NULL);
    if (status == LC_OK && pthread_create(&d->writer, NULL, write_queue, d) != 0)
        status = lc_fail(err, LC_ENOMEM, "prompt cache: no thread for the writer");
    if (status == LC_OK)
        *out = d;
    else
        lc_free(d);
    return status;
}

void lc_disk_close(lc_disk *d) {
    if (!d) return;
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    pthread_cond_signal(&d->some);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->writer, NULL);
    for (lc_cache_key key; lc_disk_lost(d, &key);) continue;
    pthread_cond_destroy(&d->some);
    pthread_cond_destroy(&d->none);
    pthread_mutex_destroy(&d->lock);
    lc_free(d);
}

size_t lc_disk_file_bytes(const lc_disk *d) { return sizeof(file_header) + d->payload; }

uint64_t lc_disk_written(lc_disk *d, bool *failed) {
    pthread_mutex_lock(&d->lock);
    uint64_t n = d->written;
    *failed = d->failed;
    pthread_mutex_unlock(&d->lock);
    return n;
}
