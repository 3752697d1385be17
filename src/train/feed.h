/*
 * feed.h: the sequences of a stage's steps, all those of one step at a time, and where sources
 * stand when a stage begins.
 */
#ifndef LC_TRAIN_FEED_H
#define LC_TRAIN_FEED_H

#include "base/pool.h"
#include "train/data.h"
#include "train/recipe.h"

typedef struct lc_feed {
    lc_train_data *data;
    size_t sequences, length; /* of a step */
    int32_t *tokens, *starts; /* [sequences][length] */
    uint8_t *mask;
    lc_pool *pool;
} lc_feed;

/* Opens the data of a stage: earlier stages' use of the sources is worked out. Refuses data of
 * another tokenizer than `tokenizer` (the bytes of tokenizer.json, or NULL) and ids beyond vocab.
 */
typedef struct lc_feed_options {
    const lc_recipe *recipe;
    size_t stage, vocab;
    const lc_buf *tokenizer;
    lc_pool *pool;
} lc_feed_options;
int lc_feed_open(const lc_feed_options *options, lc_feed **out, lc_err *err);
/* The first `sequences` of one folder, at the length given; for evaluations. */
int lc_feed_open_folder(const lc_feed_options *options, const char *folder, size_t sequences,
                        lc_feed **out, lc_err *err);
void lc_feed_close(lc_feed *feed);

/* Reads sequences first .. first + sequences - 1. */
int lc_feed_read(lc_feed *feed, uint64_t first, lc_err *err);
lc_batch lc_feed_batch(const lc_feed *feed, size_t row, size_t rows);
/* Mean number of earlier tokens and itself that a token sees, at most `most`. */
double lc_feed_keys(const lc_feed *feed, size_t most);

#endif
