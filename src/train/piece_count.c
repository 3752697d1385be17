/*
 * piece_count.c: see piece_count.h. Each thread counts into a table of its own; after a batch every
 * part of the common table takes its share of all of them, parts side by side, so nothing is
 * locked.
 */
#include "train/piece_count.h"

#include "base/mem.h"

#include <string.h>
#include <xxhash.h>

enum { FIRST_SLOTS = 4096 };

/* ---- one table ---- */

static bool table_reserve(lc_piece_table *t, size_t slots) {
    lc_piece *bigger = lc_calloc(slots, sizeof *bigger);
    if (!bigger) return false;
    for (size_t i = 0; t->slots && i <= t->mask; i++) {
        if (!t->slots[i].count) continue;
        size_t at = (size_t)t->slots[i].hash & (slots - 1);
        while (bigger[at].count) at = (at + 1) & (slots - 1);
        bigger[at] = t->slots[i];
    }
    lc_free(t->slots);
    t->slots = bigger;
    t->mask = slots - 1;
    return true;
}

typedef struct counted {
    const char *text;
    uint32_t len;
    uint64_t hash, count;
} counted;

static bool table_add(lc_piece_table *t, const counted *p) {
    if (!t->slots || t->n * 3 > t->mask * 2)
        if (!table_reserve(t, t->slots ? (t->mask + 1) * 2 : FIRST_SLOTS)) return false;
    size_t at = (size_t)p->hash & t->mask;
    for (; t->slots[at].count; at = (at + 1) & t->mask) {
        lc_piece *slot = &t->slots[at];
        if (slot->hash == p->hash && slot->len == p->len && t->text.data &&
            !memcmp(t->text.data + slot->at, p->text, p->len)) {
            slot->count += p->count;
            return true;
        }
    }
    t->slots[at] = (lc_piece){p->hash, p->count, t->text.len, p->len};
    t->n++;
    return lc_buf_append(&t->text, p->text, p->len);
}

static void table_clear(lc_piece_table *t) {
    if (t->slots) memset(t->slots, 0, (t->mask + 1) * sizeof *t->slots);
    lc_buf_clear(&t->text);
    t->n = 0;
}

static void table_free(lc_piece_table *t) {
    lc_free(t->slots);
    lc_buf_free(&t->text);
    *t = (lc_piece_table){0};
}

/* A copy without the pieces of at most `rarest` occurrences. */
static bool table_prune(lc_piece_table *t, uint64_t rarest, uint64_t *dropped) {
    lc_piece_table kept = {0};
    bool ok = true;
    for (size_t i = 0; ok && t->slots && i <= t->mask; i++) {
        const lc_piece *p = &t->slots[i];
        if (p->count > rarest)
            ok = table_add(&kept, &(counted){t->text.data + p->at, p->len, p->hash, p->count});
        else
            *dropped += p->count;
    }
    table_free(ok ? t : &kept);
    if (ok) *t = kept;
    return ok;
}

/* ---- counting ---- */

int lc_piece_counts_init(lc_piece_counts *c, int threads, size_t limit, lc_err *err) {
    *c = (lc_piece_counts){.threads = threads, .limit = limit};
    c->local = lc_calloc((size_t)threads, sizeof *c->local);
    return c->local ? LC_OK : lc_fail(err, LC_ENOMEM, "pieces: out of memory");
}

void lc_piece_counts_free(lc_piece_counts *c) {
    for (size_t i = 0; i < LC_PIECE_PARTS; i++) table_free(&c->parts[i]);
    for (int i = 0; c->local && i < c->threads; i++) table_free(&c->local[i]);
    lc_free(c->local);
    *c = (lc_piece_counts){0};
}

size_t lc_piece_counts_size(const lc_piece_counts *c) {
    size_t n = 0;
    for (size_t i = 0; i < LC_PIECE_PARTS; i++) n += c->parts[i].n;
    return n;
}

typedef struct count_job {
    lc_piece_counts *counts;
    const lc_tokenizer *tokenizer;
    const lc_batch *batch;
    int *status; /* [threads] the first failure of each */
    lc_err *err; /* [threads] */
} count_job;

static int count_piece(void *ctx, const char *piece, size_t len) {
    counted p = {piece, (uint32_t)len, XXH3_64bits(piece, len), 1};
    return table_add(ctx, &p) ? LC_OK : LC_ENOMEM;
}

static void count_docs(void *ctx, size_t begin, size_t end, int thread) {
    count_job *job = ctx;
    for (size_t i = begin; i < end && !job->status[thread]; i++) {
        const lc_document *doc = &job->batch->docs[i];
        lc_err *err = &job->err[thread];
        int status = lc_tokenizer_pieces(job->tokenizer, doc->text, doc->len, count_piece,
                                         &job->counts->local[thread], err);
        if (status && !err->text[0]) lc_fail(err, status, "out of memory");
        if (status) job->status[thread] = lc_err_prefix(err, "%s", doc->path);
    }
}

static void join_parts(void *ctx, size_t begin, size_t end, int thread) {
    count_job *job = ctx;
    lc_piece_counts *c = job->counts;
    for (size_t part = begin; part < end; part++)
        for (int k = 0; k < c->threads; k++) {
            const lc_piece_table *from = &c->local[k];
            for (size_t i = 0; from->slots && i <= from->mask; i++) {
                const lc_piece *p = &from->slots[i];
                if (!p->count || p->hash >> 60 != part) continue;
                counted one = {from->text.data + p->at, p->len, p->hash, p->count};
                if (table_add(&c->parts[part], &one)) continue;
                job->status[thread] =
                    lc_fail(&job->err[thread], LC_ENOMEM, "pieces: out of memory");
                return;
            }
        }
}

/* Bytes that pieces with more than `rarest` occurrences need. */
static size_t bytes_above(const lc_piece_counts *c, uint64_t rarest) {
    size_t bytes = 0;
    for (size_t k = 0; k < LC_PIECE_PARTS; k++)
        for (size_t i = 0; c->parts[k].slots && i <= c->parts[k].mask; i++)
            if (c->parts[k].slots[i].count > rarest)
                bytes += 2 * sizeof(lc_piece) + c->parts[k].slots[i].len;
    return bytes;
}

static int keep_limit(lc_piece_counts *c, lc_err *err) {
    size_t bytes = bytes_above(c, 0);
    if (bytes > c->peak) c->peak = bytes;
    if (!c->limit || bytes <= c->limit) return LC_OK;
    uint64_t rarest = 1;
    while (bytes_above(c, rarest) > c->limit / 2) rarest++;
    for (size_t k = 0; k < LC_PIECE_PARTS; k++)
        if (!table_prune(&c->parts[k], rarest, &c->dropped))
            return lc_fail(err, LC_ENOMEM, "pieces: out of memory");
    if (rarest > c->rarest) c->rarest = rarest;
    return LC_OK;
}

int lc_piece_counts_add(lc_piece_counts *c, const lc_tokenizer *tokenizer, const lc_batch *batch,
                        lc_pool *pool, lc_err *err) {
    count_job job = {c, tokenizer, batch, NULL, NULL};
    int status = LC_OK;
    job.status = lc_calloc((size_t)c->threads, sizeof *job.status);
    job.err = lc_calloc((size_t)c->threads, sizeof *job.err);
    if (!job.status || !job.err) status = lc_fail(err, LC_ENOMEM, "pieces: out of memory");
    for (int i = 0; i < c->threads; i++) table_clear(&c->local[i]);
    if (!status) lc_pool_for(pool, batch->n, 1, count_docs, &job);
    for (int pass = 0; pass < 2 && !status; pass++) {
        for (int i = 0; i < c->threads && !status; i++)
            if ((status = job.status[i]) && err) *err = job.err[i];
        if (!status && !pass) lc_pool_for(pool, LC_PIECE_PARTS, 1, join_parts, &job);
    }
    lc_free(job.status);
    lc_free(job.err);
    return status ? status : keep_limit(c, err);
}
