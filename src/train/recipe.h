/*
 * recipe.h: what `longcat train run` is told: one text file of sections and `key = value` lines,
 * `#` begins a comment. docs/training.md lists the keys. Everything is checked before anything
 * runs; errors begin with "file:line: ".
 *
 * Paths are relative to the recipe. Numbers take K, M, G (10^3, 10^6, 10^9).
 */
#ifndef LC_TRAIN_RECIPE_H
#define LC_TRAIN_RECIPE_H

#include "format/config.h"
#include "train/net.h"
#include "train/optim.h"
#include "train/schedule.h"

enum { LC_RECIPE_SOURCES = 64, LC_RECIPE_STAGES = 64, LC_RECIPE_NAME = 32 };

typedef struct lc_recipe_source {
    char name[LC_RECIPE_NAME];
    int line;
    char *folder;
    double weight;
    int64_t whole; /* bool */
} lc_recipe_source;

typedef enum lc_index_mode {
    LC_INDEX_SPARSE, /* attention over the chosen keys; the indexer learns if kl > 0 */
    LC_INDEX_DENSE,  /* every key; the indexer isn't asked */
    LC_INDEX_WARMUP, /* every key; the indexer learns (kl > 0) */
} lc_index_mode;

typedef struct lc_recipe_stage {
    char name[LC_RECIPE_NAME];
    int line;
    int64_t context, tokens, batch, micro; /* micro 0: what fits */
    int64_t steps;                         /* follows: tokens / (batch * context), rounded up */
    int64_t schedule_kind, index;          /* lc_schedule_kind, lc_index_mode */
    double rate, warmup, decay, end;
    double lm, mtp, balance, router_z, hidden_z, kl;
    char *learn, *freeze, *mix; /* as written; NULL: everything, nothing, the sources' weights */
    bool learns[LC_GROUP_COUNT], learns_draft; /* what the lists say of groups, the draft module */
    double weights[LC_RECIPE_SOURCES];         /* of the sources; 0 = not in the mix */
} lc_recipe_stage;

typedef struct lc_recipe {
    char *path;
    int model_line, train_line;      /* where [model] and [train] begin; 0: nowhere */
    char *config, *from, *tokenizer; /* files or folders; NULL: not given */
    int64_t grow; /* copies of from's layers on top of each other; 1 = as it is */
    double std, embedding_std, ngram_std;
    int64_t base_width; /* width at which the rates were found; 0 = this one */

    char *run;
    int64_t seed, window, lanes;
    int64_t compute_f32, optimizer; /* bool; lc_optim_kind */
    double beta1, beta2, eps, momentum, weight_decay, clip, average;
    double rates[LC_GROUP_COUNT];
    double bias_rate, bias_floor, target_topk; /* target 0: the config's */
    int64_t bias_half_after, balance_groups;
    int64_t memory; /* bytes; 0 = three quarters of the machine's */
    int64_t keep, checkpoint_tokens, store_f32, publish_average;
    double checkpoint_minutes;

    char *eval_folder;
    int64_t eval_sequences;

    size_t n_sources, n_stages;
    lc_recipe_source sources[LC_RECIPE_SOURCES];
    lc_recipe_stage stages[LC_RECIPE_STAGES];
} lc_recipe;

int lc_recipe_load(const char *path, lc_recipe **out, lc_err *err);
/* The same from memory; path is for messages and for what is relative to it. */
int lc_recipe_parse(const char *text, size_t len, const char *path, lc_recipe **out, lc_err *err);
void lc_recipe_free(lc_recipe *recipe);

/* What can be said only with the model at hand: contexts, losses and groups that it lacks. Fills
 * target_topk. */
int lc_recipe_check(lc_recipe *recipe, const lc_config *config, bool mtp, lc_err *err);

/* Hash of everything that decides the weights at the end of the first `stages` stages: not of
 * paths, memory, checkpoints, nor of later stages, which may still change. LC_ENOMEM. */
int lc_recipe_hash(const lc_recipe *recipe, size_t stages, char hex[65], lc_err *err);

lc_optim_options lc_recipe_optim(const lc_recipe *recipe, const lc_config *config);
lc_schedule lc_recipe_schedule(const lc_recipe_stage *stage);
lc_loss_weights lc_recipe_losses(const lc_recipe *recipe, const lc_recipe_stage *stage,
                                 const lc_config *config);
/* learns [params->count]: tensors that the stage's losses reach and its lists allow. */
void lc_recipe_learns(const lc_recipe_stage *stage, const lc_params *params, bool *learns);
int64_t lc_recipe_steps(const lc_recipe *recipe);
double lc_recipe_tokens(const lc_recipe *recipe);

#endif
