/*
 * batch.h: documents in hand: as many as fit, copied, so that threads can work on them at once.
 */
#ifndef LC_TRAIN_BATCH_H
#define LC_TRAIN_BATCH_H

#include "train/corpus.h"

enum { LC_BATCH_BYTES = 32 << 20, LC_BATCH_DOCS = 1 << 16 };

/* Zero-initialise. Holds the documents of a corpus up to the limits (the last may exceed them). */
typedef struct lc_batch {
    lc_document *docs; /* their paths and types are the corpus' */
    size_t n, cap;
    size_t bytes;
    lc_arena *arena;
} lc_batch;

/* Replaces the batch by the next documents; n = 0 at the end. */
int lc_batch_fill(lc_batch *batch, lc_corpus *corpus, lc_err *err);
void lc_batch_free(lc_batch *batch);

#endif
