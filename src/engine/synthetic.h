/*
 * synthetic.h: checkpoints of full shape with random weights, for measurements without a download.
 *
 * They have the family's config.json and tensor names, so every reader takes them. Weights are
 * scaled so that activations keep about unit size from layer to layer, and the router's entries
 * are alike, so a token goes to about topk * E / (E + Z) routed experts and all are used equally.
 * There is no tokenizer. The same arguments give the same bytes on every machine and for any
 * number of threads: a number is a function of seed, tensor name and place only.
 */
#ifndef LC_ENGINE_SYNTHETIC_H
#define LC_ENGINE_SYNTHETIC_H

#include "base/buf.h"
#include "format/dtype.h"

/* Appends the config.json of "flash", "lite", "sparse" or "2.0" as published. Errors: LC_ENOTFOUND.
 */
int lc_synthetic_shape(const char *name, lc_buf *out, lc_err *err);

typedef struct lc_synthetic_progress {
    uint64_t bytes, done; /* of tensors */
    size_t files, files_done;
} lc_synthetic_progress;

typedef struct lc_synthetic {
    const char *config; /* text of a config.json; name is used in messages */
    size_t config_len;
    const char *name;
    size_t layers, vocab; /* 0 = as in the config */
    double ngram_ratio;   /* rows of an n-gram table / vocab; 0 = as in the config */
    bool draft;           /* with the draft module */
    lc_dtype type; /* LC_F32, LC_BF16, LC_F8_E4M3 (projections and FFNs), LC_I8 (FFNs) or LC_I32:
                      int4 in groups of 64 (projections and FFNs); what is not quantised is BF16,
                      routers and index weights F32 */
    uint64_t seed;
    size_t shard_bytes; /* a new file begins where one would exceed this; 0 = 4 GB */
    int threads;        /* 0 = the CPUs of this process */
    /* Called often, from the calling thread; false cancels. May be NULL. */
    bool (*progress)(void *ctx, const lc_synthetic_progress *progress);
    void *ctx;
} lc_synthetic;

/*
 * Writes a checkpoint into the folder `out`, which must not exist or be empty. Memory: the list of
 * names and a few MiB per thread. Errors: LC_EINVAL (arguments, a folder in use), LC_ELIMIT (the
 * disk has too little room: nothing is written), LC_EIO, LC_ECANCELED; then everything that was
 * written is removed again. *bytes: of tensors; may be NULL.
 */
int lc_synthetic_write(const lc_synthetic *how, const char *out, uint64_t *bytes, lc_err *err);

#endif
