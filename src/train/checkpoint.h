/*
 * checkpoint.h: a run's checkpoints, a folder each:
 *
 *   RUN/step-000001200/   config.json, model.safetensors, tokenizer files: a model as any other
 *                         state.safetensors: fp32 weights, moments, averages, counts of updates
 *                         manifest.json: where the run stands, and the XXH3-128 of every file
 *   RUN/latest, RUN/best  symbolic links
 *
 * Writing: begin copies the state and returns; a thread writes, syncs and hashes the files, and
 * renames the manifest into place last, so a folder without one is none. Only then do older
 * checkpoints go, but for the last `keep` and the best. A failure (a full disk) removes what was
 * written, is told once, and leaves the run as it was.
 *
 * Reading: every file is hashed before anything of it is believed. A damaged checkpoint is named
 * in the log, and the one before it is taken.
 */
#ifndef LC_TRAIN_CHECKPOINT_H
#define LC_TRAIN_CHECKPOINT_H

#include "train/optim.h"
#include "train/start.h"

/* Where a run stands: all that is needed to go on besides weights and optimiser. */
typedef struct lc_position {
    int64_t step;              /* steps done in all */
    int64_t stage, stage_step; /* the stage of the next step, and how many of it are done */
    int64_t tokens;            /* trained on so far */
    uint64_t data;             /* lc_train_data_checksum of the stage */
    char recipe[65];           /* lc_recipe_hash up to the stage */
    double loss;               /* what `best` compares: the lower the better; 0: not measured */
    double seconds;            /* of training so far */
} lc_position;

/* Makes the run's folder if need be and holds it: lc_folder_lock. */
int lc_run_lock(const char *run, int *lock, lc_err *err);

/* ---- writing ---- */

typedef struct lc_checkpoints lc_checkpoints;

/* Everything is borrowed. Takes memory for the copies at once. */
typedef struct lc_checkpoint_setup {
    const char *run; /* folder, held by lc_run_lock */
    int64_t from;    /* the step that the run goes on from: later ones it has are damaged */
    const lc_params *params;
    lc_optim *optim;
    const lc_beside *beside;
    size_t keep;
    bool f32;            /* model.safetensors in F32, else BF16 (router and indexer weights F32) */
    bool average;        /* model.safetensors holds the average */
    const int64_t *load; /* [load_count] integers of the loop's that are kept too */
    size_t load_count;
} lc_checkpoint_setup;
int lc_checkpoints_open(const lc_checkpoint_setup *setup, lc_checkpoints **out, lc_err *err);
void lc_checkpoints_close(lc_checkpoints *checkpoints); /* waits */
size_t lc_checkpoints_bytes(const lc_params *params, const lc_optim_options *options);

/* Waits for the one before, copies, starts the thread. LC_EIO etc. only if that can't be started.
 */
int lc_checkpoints_begin(lc_checkpoints *c, const lc_position *position, lc_err *err);

/* Waits for the thread; its result: LC_OK too if nothing was begun since the last call. */
int lc_checkpoints_wait(lc_checkpoints *c, lc_err *err);
/* Whether it is done, so that wait returns at once. */
bool lc_checkpoints_done(const lc_checkpoints *c);

/* ---- reading ---- */

typedef struct lc_checkpoint_found {
    char *path; /* NULL: the run has none; lc_free */
    lc_position position;
    size_t damaged; /* newer ones that had to be left out */
} lc_checkpoint_found;

/* The newest undamaged checkpoint of a run. If all are damaged: LC_EFORMAT. */
int lc_checkpoint_find(const char *run, lc_checkpoint_found *out, lc_err *err);
/* The weights alone, fp32; `config` as in the checkpoint. */
int lc_checkpoint_params(const char *path, const lc_config *config, lc_params **out, lc_err *err);
/* The optimiser's state, for the same params. A missing average starts as the weights. */
int lc_checkpoint_optim(const char *path, const lc_params *params, lc_optim *optim, lc_err *err);
/* lc_checkpoint_setup's load; left as it is if the state has none. */
int lc_checkpoint_load(const char *path, int64_t *load, size_t count, lc_err *err);
/* Whether the checkpoint's config.json says what `config` (a JSON text) does, but for the type in
 * which weights are stored. */
int lc_checkpoint_same_model(const char *path, const lc_buf *config, bool *same, lc_err *err);
/* Hashes every file; LC_EFORMAT names the damaged one. */
int lc_checkpoint_verify(const char *path, lc_position *position, lc_err *err);

#endif
