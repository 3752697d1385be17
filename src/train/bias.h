/*
 * bias.h: the controller of expert load (docs/model.md 5.1): after each step the bias of every
 * routed expert moves against its surplus of tokens; identity experts keep theirs, so the mean
 * number of routed experts drifts to its target. Counts are integers until the last step, so ranks
 * may add theirs in any order.
 */
#ifndef LC_TRAIN_BIAS_H
#define LC_TRAIN_BIAS_H

#include "train/params.h"

typedef struct lc_bias_rule {
    double rate;        /* of the first step; 0 = biases stay */
    int64_t half_after; /* steps after which the rate is halved, again and again; 0 = never */
    double floor;       /* it never falls below */
    double target_topk; /* K_e: routed experts a token */
} lc_bias_rule;

double lc_bias_rate(const lc_bias_rule *rule, int64_t step); /* step from 0 */

/* counts [layers][experts + zero]: tokens that chose an entry in this step. Layers without any are
 * left alone. */
void lc_bias_update(lc_params *params, const lc_bias_rule *rule, int64_t step,
                    const int64_t *counts);

/* What counts say, over all layers. */
typedef struct lc_load {
    double routed;  /* mean routed experts a token */
    double highest; /* most loaded routed expert of a layer, over the mean of that layer: the
                       largest over layers */
    double lowest;  /* the same for the least loaded one */
} lc_load;
lc_load lc_load_of(const lc_config *config, const int64_t *counts, int64_t tokens);

#endif
