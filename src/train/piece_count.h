/*
 * piece_count.h: how often each piece (pre-token) stands in a corpus, counted by all threads. The
 * counts are a multiset: neither the number of threads nor the order of documents shows in them.
 *
 * Memory is bounded: when the table outgrows its limit at the end of a batch, the rarest pieces go,
 * until it is at most half full. That is a function of the documents read so far, so the result
 * then depends on the corpus' order, and still not on threads. What was dropped is counted.
 */
#ifndef LC_TRAIN_PIECE_COUNT_H
#define LC_TRAIN_PIECE_COUNT_H

#include "base/pool.h"
#include "text/tokenizer.h"
#include "train/batch.h"

typedef struct lc_piece {
    uint64_t hash, count; /* count 0 = free slot */
    size_t at;            /* its bytes in the table's text */
    uint32_t len;
} lc_piece;

typedef struct lc_piece_table {
    lc_piece *slots;
    size_t n, mask;
    lc_buf text;
} lc_piece_table;

enum { LC_PIECE_PARTS = 16 };

typedef struct lc_piece_counts {
    lc_piece_table parts[LC_PIECE_PARTS]; /* by the highest bits of the hash */
    lc_piece_table *local;                /* [threads] counts of the batch in work */
    int threads;
    size_t limit;             /* bytes of the parts; 0 = none */
    uint64_t dropped, rarest; /* occurrences of dropped pieces; they had up to `rarest` each */
    size_t peak;              /* bytes */
} lc_piece_counts;

int lc_piece_counts_init(lc_piece_counts *counts, int threads, size_t limit, lc_err *err);
void lc_piece_counts_free(lc_piece_counts *counts);
/* Counts the pieces of a batch. pool has the threads of init. */
int lc_piece_counts_add(lc_piece_counts *counts, const lc_tokenizer *tokenizer,
                        const lc_batch *batch, lc_pool *pool, lc_err *err);
size_t lc_piece_counts_size(const lc_piece_counts *counts); /* different pieces */

#endif
