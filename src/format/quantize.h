/*
 * quantize.h: a checkpoint in a smaller one: projections and FFNs as int4 in groups or int8, all
 * else as it is. The layout is that of compressed-tensors (docs/formats.md), so the same reader
 * serves both; or, with the same codes, the one that products read from end to end (strips), also
 * for a checkpoint that any tool has quantised, and for BF16 weights.
 *
 * Bargain: shard by shard. A shard takes its name when it is whole and synced, and its hash goes
 * into OUT/quantize.state; after a kill the same call checks the shards that are there and goes on.
 * Memory is a few megabytes a thread, never a tensor. The result is a pure function of the weights
 * and options.
 */
#ifndef LC_FORMAT_QUANTIZE_H
#define LC_FORMAT_QUANTIZE_H

#include "base/pool.h"
#include "kernels/kernels.h"

typedef enum lc_quantize_type {
    LC_QUANTIZE_INT8,  /* a scale a row, or groups */
    LC_QUANTIZE_INT4,  /* groups */
    LC_QUANTIZE_MIXED, /* routed experts int4, the rest int8 a row */
    LC_QUANTIZE_NONE,  /* nothing: with strips, the weights are laid out in them as they are */
} lc_quantize_type;

/* "int8", "int4", "mixed" */
bool lc_quantize_type_from_name(const char *name, lc_quantize_type *out);

typedef struct lc_quantize_progress {
    uint64_t bytes, done, kept; /* of the source; kept: of shards that an earlier call made */
    size_t shards, shards_done;
    const char *shard; /* the one at work, or checked if `checking` */
    bool checking;
} lc_quantize_progress;

typedef struct lc_quantize_options {
    lc_quantize_type type;
    size_t group;               /* 32, 64 or 128; 0: 64 with int4, whole rows with int8 */
    bool embeddings, head, mtp; /* quantise these too: word and n-gram tables with their
                                   projections; lm_head; the draft module */
    bool strips;                /* all codes and BF16 matrices that can be, in strips */
    size_t shard_bytes;         /* 0: 4 GiB */
    lc_pool *pool;              /* or NULL */
    const lc_kernels *kernels;
    bool (*progress)(void *ctx, const lc_quantize_progress *p); /* false ends the run; or NULL */
    void *ctx;
} lc_quantize_options;

typedef struct lc_quantize_result {
    size_t tensors, quantised,
        by_row;                   /* weights; quantised ones; those whose width no group fits */
    size_t packed, unpacked;      /* laid out in strips; those that can't be, if asked for */
    uint64_t source_bytes, bytes; /* of tensors */
    size_t shards, kept;          /* kept: made by an earlier call */
    size_t done;                  /* shards that are finished, after an error too */
    double error, power;          /* sums of squares over the quantised weights: of the error,
                                     of the weights; of shards of this call only */
} lc_quantize_result;

/* Errors: LC_EINVAL for options, for weights that are quantised or in strips already, and with
 * LC_QUANTIZE_NONE where there are none left that can be packed; LC_ENOTFOUND for a
 * checkpoint that isn't whole, LC_ELIMIT for a disk that is too small, LC_ECANCELED. */
int lc_quantize(const char *model, const char *out, const lc_quantize_options *options,
                lc_quantize_result *result, lc_err *err);

#endif
