/*
 * shard_write.c: writing token shards. Everything goes to <path>.part; the header, which makes the
 * file valid, is written after all else and the file gets its name after it is synced, so a killed
 * writer leaves at most a .part file. The index, and the mask where there is one, wait in memory.
 */
#include "train/shard_internal.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { FLUSH = 1 << 20 };

struct lc_shard_writer {
    int fd;
    char *path, *part;
    lc_shard_head head;
    uint64_t at; /* file position behind what is in `out` */
    lc_buf out, mask, index, row;
};

static int no_memory(const lc_shard_writer *w, lc_err *err) {
    return lc_fail(err, LC_ENOMEM, "%s: out of memory", w->path);
}

static int write_at(const lc_shard_writer *w, const void *data, size_t len, uint64_t offset,
                    lc_err *err) {
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(w->fd, (const char *)data + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return lc_fail_errno(err, LC_EIO, "%s", w->part);
        done += (size_t)n;
    }
    return LC_OK;
}

static int flush(lc_shard_writer *w, lc_err *err) {
    int status = write_at(w, w->out.data, w->out.len, w->at, err);
    w->at += w->out.len;
    lc_buf_clear(&w->out);
    return status;
}

static void writer_free(lc_shard_writer *w) {
    if (w->fd >= 0) close(w->fd);
    lc_buf_free(&w->out);
    lc_buf_free(&w->mask);
    lc_buf_free(&w->index);
    lc_buf_free(&w->row);
    lc_free(w->path);
    lc_free(w->part);
    lc_free(w);
}

void lc_shard_abandon(lc_shard_writer *w) {
    if (!w) return;
    if (w->fd >= 0) unlink(w->part);
    writer_free(w);
}

int lc_shard_create(const char *path, const lc_shard_kind *kind, uint32_t number,
                    lc_shard_writer **out, lc_err *err) {
    lc_shard_writer *w = lc_calloc(1, sizeof *w);
    lc_buf part = {0};
    *out = NULL;
    if (w) *w = (lc_shard_writer){.fd = -1, .at = LC_SHARD_HEADER};
    lc_buf_printf(&part, "%s.part", path);
    if (!w || part.failed || !(w->path = lc_strdup(path)) || !(w->part = lc_strdup(part.data))) {
        lc_buf_free(&part);
        if (w) writer_free(w);
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    }
    lc_buf_free(&part);
    w->head = (lc_shard_head){.version = LC_SHARD_VERSION,
                              .token_bytes = kind->token_bytes,
                              .vocab = kind->vocab,
                              .eos = kind->eos,
                              .number = number};
    memcpy(w->head.magic, LC_SHARD_MAGIC, sizeof w->head.magic);
    memcpy(w->head.tokenizer, kind->tokenizer, sizeof w->head.tokenizer);
    w->fd = open(w->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        int status = lc_fail_errno(err, LC_EIO, "%s", w->part);
        writer_free(w);
        return status;
    }
    *out = w;
    return LC_OK;
}

/* The tokens as they stand on disk, into w->row. */
static int put_row(lc_shard_writer *w, const int32_t *tokens, size_t count, lc_err *err) {
    lc_buf_clear(&w->row);
    if (!lc_buf_reserve(&w->row, count * 4)) return no_memory(w, err);
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= w->head.vocab)
            return lc_fail(err, LC_EINVAL, "%s: token %d is beyond the vocabulary of %u", w->path,
                           tokens[i], w->head.vocab);
        if (w->head.token_bytes == 2) {
            uint16_t narrow = (uint16_t)tokens[i];
            lc_buf_append(&w->row, &narrow, 2);
        } else {
            lc_buf_append(&w->row, &tokens[i], 4);
        }
    }
    return LC_OK;
}

/* From the first mask on, a byte a token; ones for those before. */
static void put_mask(lc_shard_writer *w, const uint8_t *mask, size_t count) {
    if (!mask && !(w->head.flags & LC_SHARD_MASKED)) return;
    size_t missing = (size_t)w->head.tokens - w->mask.len + (mask ? 0 : count);
    if (missing && lc_buf_reserve(&w->mask, missing)) {
        memset(w->mask.data + w->mask.len, 1, missing);
        w->mask.len += missing;
    }
    if (mask) lc_buf_append(&w->mask, mask, count);
    w->head.flags |= LC_SHARD_MASKED;
}

int lc_shard_add(lc_shard_writer *w, const int32_t *tokens, const uint8_t *mask, size_t count,
                 lc_err *err) {
    if (!count || count > LC_SHARD_DOC_MAX)
        return lc_fail(err, LC_ELIMIT, "%s: a document of %zu tokens; 1 to %d are possible",
                       w->path, count, LC_SHARD_DOC_MAX);
    int status = put_row(w, tokens, count, err);
    if (status) return status;
    put_mask(w, mask, count);
    lc_shard_entry entry = {w->head.tokens, lc_shard_sum(w->row.data, w->row.len, mask, count)};
    lc_buf_append(&w->out, w->row.data, w->row.len);
    lc_buf_append(&w->index, &entry, sizeof entry);
    if (w->out.failed || w->row.failed || w->mask.failed || w->index.failed)
        return no_memory(w, err);
    w->head.documents++;
    w->head.tokens += count;
    return w->out.len >= FLUSH ? flush(w, err) : LC_OK;
}

uint64_t lc_shard_written(const lc_shard_writer *w) { return lc_shard_plan(&w->head).end; }

static int put_sections(lc_shard_writer *w, uint64_t *checksum, lc_err *err) {
    lc_shard_head *h = &w->head;
    lc_shard_layout at = lc_shard_plan(h);
    int status = flush(w, err);
    if (!status) status = write_at(w, w->mask.data, w->mask.len, at.mask, err);
    if (!status) status = write_at(w, w->index.data, w->index.len, at.index, err);
    h->index_sum = XXH3_64bits(w->index.data, w->index.len);
    h->sum = *checksum = XXH3_64bits(h, offsetof(lc_shard_head, sum));
    if (!status) status = write_at(w, h, sizeof *h, 0, err);
    if (!status && fsync(w->fd)) status = lc_fail_errno(err, LC_EIO, "%s", w->part);
    return status;
}

int lc_shard_finish(lc_shard_writer *w, uint64_t *checksum, lc_err *err) {
    int status = w->head.documents
                     ? put_sections(w, checksum, err)
                     : lc_fail(err, LC_EINVAL, "%s: a shard without documents", w->path);
    if (!status && rename(w->part, w->path)) status = lc_fail_errno(err, LC_EIO, "%s", w->path);
    if (status)
        lc_shard_abandon(w);
    else
        writer_free(w);
    return status;
}
