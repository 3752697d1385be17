/*
 * loop.h: a training run: the stages of a recipe one after the other, from nothing, from a
 * checkpoint's weights, or from where the run's folder stands.
 *
 * Weights after a step are a pure function of recipe, data and first weights: the sequences of a
 * step are spread over the recipe's lanes by their number, each lane's run together, and the lanes'
 * gradients join in a tree. Threads, instruction sets, recompute, and how often the run was stopped
 * don't show in them.
 */
#ifndef LC_TRAIN_LOOP_H
#define LC_TRAIN_LOOP_H

#include "train/recipe.h"

typedef struct lc_train_progress {
    uint64_t step, steps;        /* done, of all stages */
    uint64_t tokens, all_tokens; /* done, of all stages */
    const char *stage;
    double loss, lr, norm; /* of the step: what is reported, rate, gradient before clipping */
    double routed;         /* mean routed experts a token and layer */
} lc_train_progress;

typedef struct lc_train_run_options {
    const lc_kernels *kernels; /* borrowed */
    lc_pool *pool;             /* borrowed; may be NULL */
    bool changed;              /* go on although recipe or data differ from the checkpoint's */
    /* After each step; false: write a checkpoint and stop. */
    bool (*progress)(void *ctx, const lc_train_progress *progress);
    /* Something that a person should know: a damaged checkpoint, one that couldn't be written. */
    void (*note)(void *ctx, const char *text);
    void *ctx;
} lc_train_run_options;

typedef struct lc_train_run_result {
    bool finished;              /* else stopped by progress */
    uint64_t resumed;           /* step that this call has begun at */
    uint64_t steps, tokens;     /* of the run, in all */
    double loss;                /* of the last step of this call; 0 if it had none */
    char checkpoint[4096 + 32]; /* the newest, "" if none could be written */
} lc_train_run_result;

int lc_train_run(const lc_recipe *recipe, const lc_train_run_options *options,
                 lc_train_run_result *result, lc_err *err);

#endif
