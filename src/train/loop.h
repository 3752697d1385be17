/*
 * loop.h: a training run: stages and steps of a recipe, from nothing, from a checkpoint, or from
 * where its run folder stands.
 *
 * What a step computes is a pure function of the recipe, the data and the number of the step:
 * sequence i of a step belongs to lane i / (batch / lanes); `micro` sequences run together, batches
 * of a lane add up in order, lanes in the tree of lanes.h. Threads, instruction set, recompute,
 * checkpoints and interruptions don't show in the weights.
 *
 * A step that is interrupted is dropped; the checkpoint is that of the step before.
 */
#ifndef LC_TRAIN_LOOP_H
#define LC_TRAIN_LOOP_H

#include "train/bias.h"
#include "train/recipe.h"

/* What a finished step tells. */
typedef struct lc_step_report {
    int64_t step, steps; /* done, of the whole run */
    const char *stage;
    int64_t stage_step, stage_steps;
    int64_t tokens; /* trained on so far */
    double all_tokens, rate, norm;
    double objective, reported, lm, mtp[LC_MTP_STEPS_MAX], balance, router_z, hidden_z, kl;
    size_t mtp_steps;
    lc_load load;
    double active;                  /* parameters of a token, on average */
    double seconds;                 /* of this step */
    double step_tokens, operations; /* of this step; multiplications and additions of products */
    const int64_t *experts;         /* [layers][entries] */
    size_t layers, entries;
} lc_step_report;

typedef struct lc_loop_hooks {
    void *ctx;
    void (*on_step)(void *ctx, const lc_step_report *report);
    void (*on_note)(void *ctx, const char *text); /* stages, checkpoints, evaluations */
    bool (*stop)(void *ctx);                      /* asked between batches */
} lc_loop_hooks;

typedef enum lc_recompute { LC_RECOMPUTE_AUTO, LC_RECOMPUTE_OFF, LC_RECOMPUTE_ON } lc_recompute;

typedef struct lc_loop_options {
    const lc_kernels *kernels;
    lc_pool *pool;          /* may be NULL */
    lc_recompute recompute; /* AUTO: if the memory asks for it */
    bool accept_changes;    /* go on though recipe or data have changed */
    int64_t most_steps;     /* then stop as if interrupted; 0 = no limit */
    lc_profile *profile;    /* where the time of steps goes; NULL: nobody measures */
    lc_loop_hooks hooks;    /* any may be NULL */
} lc_loop_options;

typedef struct lc_loop_result {
    int64_t step, steps; /* done, of the whole run */
    bool resumed, complete;
    char hash[65]; /* XXH3-128 of all weights by name, fp32 */
} lc_loop_result;

/* Stopped by the hook: LC_OK with complete = false, and a checkpoint was written. */
int lc_loop_run(lc_recipe *recipe, const lc_loop_options *options, lc_loop_result *result,
                lc_err *err);

/* Whether the recipe fits its model, and every stage's data is there. Writes nothing. */
int lc_loop_check(lc_recipe *recipe, lc_pool *pool, lc_err *err);

/* The hash of weights: name and values of each tensor in name order. */
int lc_params_hash(const lc_params *params, char hex[65], lc_err *err);

#endif
