/*
 * params.h: the trained numbers: every tensor of a checkpoint under its name, as fp32 master
 * values in one block. Gradients, moments and averages are blocks of the same layout
 * (lc_params_floats floats, a tensor at its offset, gaps zero), so that sums over whole models are
 * sums over one array.
 *
 * Writing checkpoints, optimiser groups and schedules are elsewhere.
 */
#ifndef LC_TRAIN_PARAMS_H
#define LC_TRAIN_PARAMS_H

#include "base/pool.h"
#include "format/config.h"
#include "format/names.h"

/* What an optimiser tells apart (docs/model.md 5.5, 5.6). */
typedef enum lc_param_group {
    LC_GROUP_MATRIX,     /* hidden matrices: attention, dense FFNs, experts, eh_proj */
    LC_GROUP_PROJECTION, /* n-gram projections: matrices with "embedding" rates */
    LC_GROUP_EMBEDDING,  /* word and n-gram tables */
    LC_GROUP_HEAD,
    LC_GROUP_ROUTER,        /* router.classifier */
    LC_GROUP_INDEXER,       /* the indexer's wq_b and wk */
    LC_GROUP_INDEX_WEIGHTS, /* the indexer's weights_proj */
    LC_GROUP_NORM,          /* norm weights, the indexer's too */
    LC_GROUP_BIAS,          /* e_score_correction_bias: no gradient, moved by the load controller */
    LC_GROUP_UNUSED, /* in no objective (2.0's n-gram tables of the draft module): never touched */
    LC_GROUP_COUNT,
} lc_param_group;

const char *lc_param_group_name(lc_param_group group); /* "matrix", ... */

typedef struct lc_param {
    char *name;           /* owned by the lc_params */
    int rank;             /* 1 or 2 */
    size_t rows, cols;    /* rank 1: rows 1 */
    size_t offset, count; /* in floats; offset is a multiple of 16 */
    lc_param_group group;
    lc_part part;
    lc_weight_class weight; /* LC_WEIGHT_F32: stored as F32 in BF16 checkpoints */
    bool gradient;          /* gets one: all but biases and unused */
    bool decay;             /* rank 2 with gradient: weight decay applies */
    bool indexer;           /* learns from the index KL alone, all of its tensors */
} lc_param;

typedef struct lc_params {
    lc_config config;
    size_t count;
    lc_param *list;          /* [count], in the order of lc_names_expected */
    const lc_param **sorted; /* [count], in name order */
    size_t floats;           /* of a block, a multiple of 16 */
    float *values;           /* [floats] */
    bool mtp;                /* the draft module is there */
} lc_params;

/* Initial values: normal numbers (sums of 8 uniforms), norms 1, biases 0. The numbers are a pure
 * function of seed, tensor name and element. */
typedef struct lc_params_init {
    uint64_t seed;
    double std;         /* of matrices, the head, the router and the indexer */
    double embedding;   /* of the word tables */
    double ngram;       /* of the n-gram tables */
    double width_scale; /* s of spec 5.5: hidden and head variance divided by s; 0 or 1 = none */
} lc_params_init;

/* The draft module is made if the config declares steps, never its own n-gram tables. */
int lc_params_new(const lc_config *config, const lc_params_init *init, lc_params **out,
                  lc_err *err);
/* From a checkpoint of any storage (values are decoded). The draft module is taken if it is there;
 * main tensors must be. config: of that checkpoint. */
int lc_params_load(const lc_config *config, const lc_tensors *tensors, lc_params **out,
                   lc_err *err);
void lc_params_free(lc_params *params);

/* NULL if absent. */
const lc_param *lc_params_find(const lc_params *params, const char *name);
static inline float *lc_param_values(const lc_params *params, const lc_param *p) {
    return params->values + p->offset;
}
/* A zeroed block of the same layout (lc_free). */
float *lc_params_block(const lc_params *params);

#endif
