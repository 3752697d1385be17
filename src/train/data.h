/*
 * data.h: what a training run reads. Sequence `number` of a run is a pure function of the shard
 * sets, the recipe's weights, the seed and the number: there is no cursor but the number itself,
 * any rank reads its own sequences without the others', and a checkpoint stores one integer.
 *
 *   mix      Every 4,096 sequences hold each source in proportion to its weight (largest remainder,
 *            at least one), in an order shuffled anew each time.
 *   shuffle  A source's documents run through a new permutation in each epoch (shuffle.h, keyed by
 *            seed, epoch and source). Sources repeat without end.
 *   packing  Documents stand one behind the other, each ended by its EOS. Sequence k of a source
 *            takes the next T tokens, cutting documents at both ends. Sequences are shuffled
 *            within windows: neighbours are parts of one document, and a step should see many
 *            documents. A source with `whole` set is
 *            never cut: a document that doesn't fit opens the next sequence, the rest of this one
 * is filled with EOS that nobody learns, and a document longer than T + extra loses its tail. For
 * conversations.
 *
 * Memory: 8 bytes a document for the shards, and 8 bytes for each 64 documents of an epoch in use.
 * The corpus itself is never held.
 */
#ifndef LC_TRAIN_DATA_H
#define LC_TRAIN_DATA_H

#include "train/shardset.h"

enum {
    LC_TRAIN_SOURCES_MAX = 256,
    LC_TRAIN_MIX_BLOCK = 4096,
    LC_TRAIN_LENGTH_MAX = 1 << 24,
    LC_TRAIN_NUMBER_BITS = 36, /* sequence numbers are below 2^36 */
};
#define LC_TRAIN_WINDOW_MAX ((size_t)1 << 40)

typedef struct lc_train_source {
    const char *folder; /* written by `longcat train data` */
    double weight;      /* > 0; share of the tokens, relative to the others' */
    bool whole;         /* never cut documents */
    uint64_t start;     /* where an earlier stage has stopped: lc_train_used; 0 = the beginning */
    uint32_t key; /* names its permutations, so that a list that changes between stages doesn't
                     change them; 0 = its place in the list, counted from 1 */
} lc_train_source;

typedef struct lc_train_spec {
    const lc_train_source *sources;
    size_t n_sources;
    uint64_t seed;
    size_t length; /* T: rows of a sequence */
    size_t extra;  /* tokens beyond them, targets only: 1 + draft steps */
    size_t window; /* tokens of a source within which its sequences are shuffled */
} lc_train_spec;

typedef struct lc_train_data lc_train_data;

/* Refuses sources of different tokenizers, and T + extra beyond the limit. Strings may go after. */
int lc_train_data_open(const lc_train_spec *spec, lc_train_data **out, lc_err *err);
void lc_train_data_close(lc_train_data *data);
const lc_shard_kind *lc_train_data_what(const lc_train_data *data);
const lc_shardset *lc_train_data_set(const lc_train_data *data, size_t source);
/* Changes with any byte of any shard, the weights, the seed, the lengths: for a checkpoint, which
 * refuses to go on with other data than it began with. */
uint64_t lc_train_data_checksum(const lc_train_data *data);

/* One sequence. The caller owns the arrays, each of T + extra elements. */
typedef struct lc_train_row {
    int32_t *tokens;
    int32_t *starts; /* where this token's document begins in the sequence: lc_row.start. Token i
                        may see tokens starts[i]..i */
    uint8_t *mask;   /* 1: token i is a target of the rows before it that have the same start. 0 at
                        a document's first token, at what a loss mask leaves out, in filling */
    size_t source, documents; /* out: where it comes from, how many documents it touches */
    uint64_t epoch;           /* out: of its first token, from 0 */
} lc_train_row;

/* Any number, any thread, any order; costs the reading of the documents it touches. Row i of draft
 * step k learns tokens[i + k + 1] if mask[i + k + 1] and starts[i + k + 1] == starts[i] (k = 0: the
 * main model, spec: golden/model's train.json). Errors name the damaged shard. */
int lc_train_sequence(lc_train_data *data, uint64_t number, lc_train_row *row, lc_err *err);

/* Where each source stands after sequences 0..number-1, as the `start` of a following stage (which
 * may have other lengths and weights): tokens, to the end of the window that was begun, or
 * documents of a `whole` source. used: [n_sources]. */
int lc_train_used(lc_train_data *data, uint64_t number, uint64_t *used, lc_err *err);

#endif
