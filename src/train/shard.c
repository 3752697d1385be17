/*
 * shard.c: reading token shards; see shard.h for the format.
 *
 * Files are read with pread, not mapped: a file that shrinks while it is in use is then an error
 * with a name and not a signal. Only the places of the documents stay in memory.
 */
#include "train/shard_internal.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { INDEX_STEP = 4096 }; /* entries read at once */

struct lc_shard {
    int fd;
    char *path;
    lc_shard_head head;
    lc_shard_layout at;
    lc_shard_kind kind;
    bool masked;
    uint64_t *first; /* [documents + 1] */
};

static int read_at(const lc_shard *s, void *out, size_t len, uint64_t offset, lc_err *err) {
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(s->fd, (char *)out + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return lc_fail_errno(err, LC_EIO, "%s: byte %llu", s->path,
                                 (unsigned long long)(offset + done));
        if (n == 0)
            return lc_fail(err, LC_EFORMAT, "%s: ends at byte %llu, in the middle of its data",
                           s->path, (unsigned long long)(offset + done));
        done += (size_t)n;
    }
    return LC_OK;
}

/* ---- opening ---- */

static int check_values(const lc_shard *s, lc_err *err) {
    const lc_shard_head *h = &s->head;
    static const uint8_t zero[sizeof h->zero];
    if (h->token_bytes != 2 && h->token_bytes != 4)
        return lc_fail(err, LC_EFORMAT, "%s: %u bytes a token, not 2 or 4", s->path,
                       h->token_bytes);
    if (h->flags > LC_SHARD_MASKED || memcmp(h->zero, zero, sizeof zero))
        return lc_fail(err, LC_EUNSUPPORTED, "%s: flags %#x are not known", s->path, h->flags);
    if (!h->vocab || h->vocab > LC_SHARD_VOCAB_MAX || h->eos >= h->vocab ||
        (h->token_bytes == 2 && h->vocab > 65536))
        return lc_fail(err, LC_EFORMAT, "%s: vocabulary of %u with EOS %u is out of range", s->path,
                       h->vocab, h->eos);
    if (!h->documents || h->documents > h->tokens || h->tokens >> 48)
        return lc_fail(err, LC_EFORMAT, "%s: %llu documents with %llu tokens are out of range",
                       s->path, (unsigned long long)h->documents, (unsigned long long)h->tokens);
    return LC_OK;
}

static int check_head(lc_shard *s, lc_err *err) {
    lc_shard_head *h = &s->head;
    struct stat st;
    if (fstat(s->fd, &st)) return lc_fail_errno(err, LC_EIO, "%s", s->path);
    if (!S_ISREG(st.st_mode) || st.st_size < LC_SHARD_HEADER)
        return lc_fail(err, LC_EFORMAT, "%s: no token shard, shorter than its header", s->path);
    int status = read_at(s, h, sizeof *h, 0, err);
    if (status) return status;
    if (memcmp(h->magic, LC_SHARD_MAGIC, sizeof h->magic))
        return lc_fail(err, LC_EFORMAT, "%s: no token shard, the magic bytes are missing", s->path);
    if (h->version != LC_SHARD_VERSION)
        return lc_fail(err, LC_EUNSUPPORTED, "%s: version %u is not supported, only %d is", s->path,
                       h->version, LC_SHARD_VERSION);
    if (h->sum != XXH3_64bits(h, offsetof(lc_shard_head, sum)))
        return lc_fail(err, LC_EFORMAT, "%s: header: checksum is wrong", s->path);
    if ((status = check_values(s, err))) return status;
    s->at = lc_shard_plan(h);
    if ((uint64_t)st.st_size != s->at.end)
        return lc_fail(err, LC_EFORMAT, "%s: has %lld bytes, its header says %llu", s->path,
                       (long long)st.st_size, (unsigned long long)s->at.end);
    s->kind = (lc_shard_kind){h->token_bytes, h->vocab, h->eos, {0}};
    s->masked = h->flags & LC_SHARD_MASKED;
    memcpy(s->kind.tokenizer, h->tokenizer, sizeof h->tokenizer);
    return LC_OK;
}

static int take_entries(lc_shard *s, const lc_shard_entry *e, uint64_t from, size_t n,
                        lc_err *err) {
    for (size_t i = 0; i < n; i++) {
        uint64_t doc = from + i, before = doc ? s->first[doc - 1] : 0;
        bool ok =
            doc ? e[i].first > before && e[i].first - before <= LC_SHARD_DOC_MAX : e[i].first == 0;
        if (!ok || e[i].first >= s->head.tokens)
            return lc_fail(err, LC_EFORMAT, "%s: index: document %llu begins at token %llu",
                           s->path, (unsigned long long)doc, (unsigned long long)e[i].first);
        s->first[doc] = e[i].first;
    }
    return LC_OK;
}

static int read_index(lc_shard *s, lc_err *err) {
    uint64_t n = s->head.documents;
    lc_shard_entry *step = lc_calloc(INDEX_STEP, sizeof *step);
    XXH3_state_t *hash = XXH3_createState();
    size_t count;
    int status = LC_OK;
    s->first = lc_size_add((size_t)n, 1, &count) ? lc_calloc(count, sizeof *s->first) : NULL;
    if (!step || !hash || !s->first || XXH3_64bits_reset(hash) != XXH_OK)
        status = lc_fail(err, LC_ENOMEM, "%s: no memory for the places of %llu documents", s->path,
                         (unsigned long long)n);
    for (uint64_t i = 0; i < n && !status; i += INDEX_STEP) {
        size_t m = n - i < INDEX_STEP ? (size_t)(n - i) : INDEX_STEP;
        status = read_at(s, step, m * sizeof *step, s->at.index + i * sizeof *step, err);
        if (status) break;
        XXH3_64bits_update(hash, step, m * sizeof *step);
        status = take_entries(s, step, i, m, err);
    }
    if (!status && XXH3_64bits_digest(hash) != s->head.index_sum)
        status = lc_fail(err, LC_EFORMAT, "%s: index: checksum is wrong", s->path);
    if (!status) {
        s->first[n] = s->head.tokens;
        if (s->first[n] - s->first[n - 1] > LC_SHARD_DOC_MAX)
            status = lc_fail(err, LC_EFORMAT, "%s: index: the last document is too long", s->path);
    }
    XXH3_freeState(hash);
    lc_free(step);
    return status;
}

int lc_shard_open(const char *path, lc_shard **out, lc_err *err) {
    lc_shard *s = lc_calloc(1, sizeof *s);
    *out = NULL;
    if (s) s->fd = -1;
    if (!s || !(s->path = lc_strdup(path))) {
        lc_free(s);
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    }
    int status = LC_OK;
    s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (s->fd < 0) status = lc_fail_errno(err, errno == ENOENT ? LC_ENOTFOUND : LC_EIO, "%s", path);
    if (!status) status = check_head(s, err);
    if (!status) status = read_index(s, err);
    if (status)
        lc_shard_close(s);
    else
        *out = s;
    return status;
}

void lc_shard_close(lc_shard *s) {
    if (!s) return;
    if (s->fd >= 0) close(s->fd);
    lc_free(s->first);
    lc_free(s->path);
    lc_free(s);
}

const lc_shard_kind *lc_shard_what(const lc_shard *s) { return &s->kind; }
uint64_t lc_shard_documents(const lc_shard *s) { return s->head.documents; }
uint64_t lc_shard_tokens(const lc_shard *s) { return s->head.tokens; }
uint64_t lc_shard_checksum(const lc_shard *s) { return s->head.sum; }
uint32_t lc_shard_length(const lc_shard *s, uint64_t doc) {
    return (uint32_t)(s->first[doc + 1] - s->first[doc]);
}

/* ---- documents ---- */

static int copy_tokens(const lc_shard *s, const lc_shard_part *part, const uint8_t *raw,
                       lc_err *err) {
    uint32_t most = 0;
    if (s->kind.token_bytes == 2) {
        const uint16_t *from = (const uint16_t *)(const void *)raw + part->first;
        for (size_t i = 0; i < part->count; i++) {
            part->tokens[i] = from[i];
            most = from[i] > most ? from[i] : most;
        }
    } else {
        const uint32_t *from = (const uint32_t *)(const void *)raw + part->first;
        for (size_t i = 0; i < part->count; i++) {
            part->tokens[i] = (int32_t)from[i];
            most = from[i] > most ? from[i] : most;
        }
    }
    if (most >= s->kind.vocab)
        return lc_fail(err, LC_EFORMAT,
                       "%s: document %llu: token %u is beyond the vocabulary of %u", s->path,
                       (unsigned long long)part->doc, most, s->kind.vocab);
    return LC_OK;
}

static int copy_mask(const lc_shard *s, const lc_shard_part *part, const uint8_t *mask,
                     lc_err *err) {
    if (!part->mask) return LC_OK;
    if (!s->masked) {
        memset(part->mask, 1, part->count);
        return LC_OK;
    }
    for (size_t i = 0; i < part->count; i++) {
        part->mask[i] = mask[part->first + i];
        if (part->mask[i] > 1)
            return lc_fail(err, LC_EFORMAT, "%s: document %llu: mask value %u is neither 0 nor 1",
                           s->path, (unsigned long long)part->doc, part->mask[i]);
    }
    return LC_OK;
}

static int check_document(const lc_shard *s, uint64_t doc, const uint8_t *raw, size_t len,
                          lc_err *err) {
    size_t bytes = len * s->kind.token_bytes;
    lc_shard_entry entry;
    int status = read_at(s, &entry, sizeof entry, s->at.index + doc * sizeof entry, err);
    if (status) return status;
    uint64_t sum = lc_shard_sum(raw, bytes, s->masked ? raw + bytes : NULL, len);
    if (entry.first != s->first[doc] || entry.sum != sum)
        return lc_fail(err, LC_EFORMAT, "%s: document %llu (tokens from %llu): checksum is wrong",
                       s->path, (unsigned long long)doc, (unsigned long long)s->first[doc]);
    return LC_OK;
}

int lc_shard_read(const lc_shard *s, const lc_shard_part *part, lc_err *err) {
    if (part->doc >= s->head.documents)
        return lc_fail(err, LC_EINVAL, "%s: document %llu of %llu", s->path,
                       (unsigned long long)part->doc, (unsigned long long)s->head.documents);
    size_t len = lc_shard_length(s, part->doc), width = s->kind.token_bytes;
    if (part->first > len || part->count > len - part->first)
        return lc_fail(err, LC_EINVAL, "%s: document %llu: tokens %zu + %zu of %zu", s->path,
                       (unsigned long long)part->doc, part->first, part->count, len);
    uint64_t first = s->first[part->doc];
    size_t bytes = len * width, all = bytes + (s->masked ? len : 0);
    uint8_t *raw = lc_alloc(all);
    if (!raw)
        return lc_fail(err, LC_ENOMEM, "%s: no memory for a document of %zu tokens", s->path, len);
    int status = read_at(s, raw, bytes, LC_SHARD_HEADER + first * width, err);
    if (!status && s->masked) status = read_at(s, raw + bytes, len, s->at.mask + first, err);
    if (!status) status = check_document(s, part->doc, raw, len, err);
    if (!status) status = copy_tokens(s, part, raw, err);
    if (!status) status = copy_mask(s, part, raw + bytes, err);
    lc_free(raw);
    return status;
}
