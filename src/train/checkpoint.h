/*
 * checkpoint.h: a training run on disk. Each checkpoint is a folder step-NNNNNNNN of the run's
 * folder:
 *
 *   config.json, model.safetensors, tokenizer files    the model, as every program loads it
 *   state.safetensors    fp32 values, moments: value.<tensor>, first.<tensor>, second.<tensor>
 *   manifest.json        size and XXH3-128 of every file; counters; hashes of recipe and data
 *
 * It is written to step-NNNNNNNN.part, every file synced, and renamed last: a folder with its own
 * name is whole. Readers check every byte all the same.
 */
#ifndef LC_TRAIN_CHECKPOINT_H
#define LC_TRAIN_CHECKPOINT_H

#include "train/optim.h"

/* Where a run stands: `step` steps of stage `stage` are done. */
typedef struct lc_checkpoint_place {
    uint64_t stage, step;
    uint64_t total;  /* steps of the run */
    uint64_t tokens; /* of the run */
    uint64_t next;   /* number of the stage's next sequence */
    uint64_t data;   /* lc_train_data_checksum of the stage */
    char recipe[65]; /* its hash */
} lc_checkpoint_place;

typedef struct lc_checkpoint_run {
    const char *out;       /* the run's folder */
    const char *config;    /* config.json, or its folder, that the model's is made from */
    const char *tokenizer; /* folder whose tokenizer files are copied, or NULL */
    bool bf16;             /* model.safetensors in BF16 (F32 where checkpoints have it) */
    uint64_t keep;         /* checkpoints that stay */
} lc_checkpoint_run;

typedef void lc_checkpoint_note(void *ctx, const char *text);

/* Makes the run's folder if need be and takes its lock: LC_EINVAL if another process has it. Leaves
 * *lock < 0 on failure. Removes unfinished checkpoints. */
int lc_checkpoint_lock(const char *out, int *lock, lc_err *err);
void lc_checkpoint_unlock(int lock);

/* Afterwards the oldest beyond `keep` are removed. On failure nothing is left of this one. */
int lc_checkpoint_write(const lc_checkpoint_run *run, const lc_optim *optim,
                        const lc_checkpoint_place *place, lc_err *err);

/* The newest whole checkpoint: *path owned by the caller; NULL if the run has none. Damaged ones
 * are named through note. All damaged: LC_EFORMAT. */
int lc_checkpoint_find(const char *out, lc_checkpoint_note *note, void *ctx, char **path,
                       lc_checkpoint_place *place, lc_err *err);

/* Values, moments and counts of a checkpoint that was found, into an optimiser of the same model.
 */
int lc_checkpoint_load(const char *path, lc_optim *optim, lc_err *err);

#endif
