/*
 * recipe.h: what a training run does, as one commented text file (docs/training.md has all keys).
 *
 *     [model]
 *     config = config.json      # relative paths are relative to the recipe's folder
 *
 * Everything is checked when the file is read: unknown keys, doubled ones, values out of range, and
 * what the model can't do are errors with file and line. Opening the data is data.h's part.
 */
#ifndef LC_TRAIN_RECIPE_H
#define LC_TRAIN_RECIPE_H

#include "train/data.h"
#include "train/net.h"
#include "train/optim.h"
#include "train/schedule.h"

enum { LC_RECIPE_STAGES_MAX = 64, LC_RECIPE_LANES_MAX = 4096 };

typedef struct lc_recipe_source {
    char *folder; /* owned */
    double weight;
    bool whole;
    int line;
} lc_recipe_source;

typedef struct lc_recipe_sources {
    lc_recipe_source *list;
    size_t count;
} lc_recipe_sources;

typedef struct lc_recipe_stage {
    char *name;                             /* owned */
    uint64_t context, tokens, batch, steps; /* steps: tokens / (context * batch), rounded up */
    lc_schedule schedule;
    double lm, mtp, balance, router_z, hidden_z, kl; /* weights of losses; mtp: of the mean */
    lc_kl_stage kl_stage;
    bool dense;                /* an LSA model attends to every key, its indexers rest */
    lc_recipe_sources sources; /* its own, or none: the recipe's */
    int line;
} lc_recipe_stage;

typedef struct lc_recipe {
    char *path; /* owned, as given */
    /* [model] */
    char *config;          /* config.json or a folder; or NULL: of start */
    char *start;           /* checkpoint whose weights are the first; or NULL: new values */
    char *tokenizer;       /* folder whose small files checkpoints get; or NULL */
    lc_params_init init;   /* seed: of the run */
    double target_experts; /* K_e */
    lc_config model;
    /* [data] */
    lc_recipe_sources sources;
    /* [stage NAME] */
    lc_recipe_stage *stages;
    size_t n_stages;
    /* [train] */
    char *out; /* folder of checkpoints and log.jsonl */
    uint64_t seed, lanes, keep, interval;
    bool bf16, recompute;
    lc_optim_options optim; /* without kernels and pool */
    double bias_rate, bias_floor;
    uint64_t bias_halving;
    char hash[65]; /* of what decides the weights: all but out, keep, checkpoint and recompute */
} lc_recipe;

int lc_recipe_load(const char *path, lc_recipe **out, lc_err *err);
void lc_recipe_free(lc_recipe *recipe);

/* Steps of all stages. */
uint64_t lc_recipe_steps(const lc_recipe *recipe);
static inline const lc_recipe_sources *lc_recipe_sources_of(const lc_recipe *r, size_t stage) {
    const lc_recipe_stage *s = &r->stages[stage];
    return s->sources.count ? &s->sources : &r->sources;
}

#endif
