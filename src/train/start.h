/*
 * start.h: the model that a run begins with: new numbers, a checkpoint's, or a checkpoint's layers
 * stacked several times (growth, docs/model.md 5.5); and the small files that stand beside the
 * weights in every checkpoint of the run.
 */
#ifndef LC_TRAIN_START_H
#define LC_TRAIN_START_H

#include "base/buf.h"
#include "train/recipe.h"

enum { LC_BESIDE_MAX = 8 };

/* config.json as checkpoints hold it, and what comes with the tokenizer; read once, so that later
 * changes of the originals don't show. */
typedef struct lc_beside {
    size_t count;
    struct {
        const char *name;
        lc_buf data;
    } files[LC_BESIDE_MAX];
} lc_beside;

int lc_beside_load(const lc_recipe *recipe, lc_config *config, lc_beside *out, lc_err *err);
void lc_beside_free(lc_beside *beside);
const lc_buf *lc_beside_find(const lc_beside *beside, const char *name); /* NULL if absent */

/* Weights before the first step. Tensors that `from` lacks get new numbers; *anew counts them (0
 * without from). */
int lc_start_params(const lc_recipe *recipe, const lc_config *config, lc_params **out, size_t *anew,
                    lc_err *err);

#endif
