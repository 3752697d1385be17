/* bias.c: the controller of expert load; see bias.h. */
#include "train/bias.h"

#include <stdio.h>

double lc_bias_rate(const lc_bias_rule *rule, int64_t step) {
    double rate = rule->rate;
    for (int64_t n = rule->half_after ? step / rule->half_after : 0; n > 0 && rate > rule->floor;
         n--)
        rate /= 2;
    return rate < rule->floor ? rule->floor : rate;
}

void lc_bias_update(lc_params *params, const lc_bias_rule *rule, int64_t step,
                    const int64_t *counts) {
    const lc_config *c = &params->config;
    size_t entries = c->experts + c->zero_experts;
    double rate = rule->rate > 0 ? lc_bias_rate(rule, step) : 0;
    double target = rule->target_topk / (double)c->topk / (double)c->experts;
    for (size_t layer = 0; layer < c->layers && rate > 0; layer++) {
        char name[96];
        const int64_t *chosen = counts + layer * entries;
        int64_t sum = 0;
        for (size_t e = 0; e < entries; e++) sum += chosen[e];
        snprintf(name, sizeof name, "model.layers.%zu.mlp.router.e_score_correction_bias", layer);
        const lc_param *p = lc_params_find(params, name);
        if (!p || !sum) continue;
        float *bias = lc_param_values(params, p);
        for (size_t e = 0; e < c->experts; e++)
            bias[e] = (float)((double)bias[e] + rate * (target - (double)chosen[e] / (double)sum));
    }
}

lc_load lc_load_of(const lc_config *c, const int64_t *counts, int64_t tokens) {
    size_t entries = c->experts + c->zero_experts;
    lc_load load = {.lowest = 1};
    int64_t all = 0;
    for (size_t layer = 0; layer < c->layers; layer++) {
        const int64_t *chosen = counts + layer * entries;
        int64_t sum = 0, most = 0, least = INT64_MAX;
        for (size_t e = 0; e < c->experts; e++) {
            sum += chosen[e];
            if (chosen[e] > most) most = chosen[e];
            if (chosen[e] < least) least = chosen[e];
        }
        all += sum;
        double mean = (double)sum / (double)c->experts;
        if (mean > 0 && (double)most / mean > load.highest) load.highest = (double)most / mean;
        if (mean > 0 && (double)least / mean < load.lowest) load.lowest = (double)least / mean;
    }
    if (tokens) load.routed = (double)all / (double)tokens / (double)c->layers;
    return load;
}
