/*
 * model.h: LongCat as weights bound by meaning and one forward pass as a list of operators. Loading
 * checks that every tensor of docs/model.md 3 is there with the right shape; weights stay where the
 * checkpoint maps them.
 */
#ifndef LC_MODEL_MODEL_H
#define LC_MODEL_MODEL_H

#include "base/mem.h"
#include "ops/embed.h"
#include "ops/indexer.h"
#include "ops/mla.h"
#include "ops/moe.h"

/* A shortcut-connected layer: two attention sublayers, two dense FFNs, one mixture of experts. */
typedef struct lc_layer {
    const float *norm_in[2], *norm_post[2];
    lc_mla_weights attn[2];
    lc_ffn_weights ffn[2];
    lc_moe_weights moe;
    lc_indexer_weights index; /* bound with LSA only */
} lc_layer;

/* The draft module (spec 2.7): one dense block with its own word table and indexer. */
typedef struct lc_mtp_weights {
    lc_mat words, eh_proj; /* [V][H], [H][2H] */
    lc_embedding embedding;
    const float *enorm, *hnorm, *norm_in, *norm_post, *norm;
    lc_mla_weights attn;
    lc_ffn_weights ffn;
    lc_indexer_weights index;
} lc_mtp_weights;

typedef struct lc_model {
    lc_config config;
    lc_tensors *tensors;
    lc_arena *arena; /* process lifetime: structs and fp32 vectors */
    lc_mat words, head;
    lc_embedding embedding;
    const float *norm;
    lc_layer *layers;    /* [L] */
    lc_mtp_weights *mtp; /* NULL if the checkpoint has none */
    bool sparse;         /* LSA in force */
    lc_rope rope;
    lc_mla_shape mla;
    lc_index_shape index;
    lc_moe_shape moe;
} lc_model;

/* path: a model folder. settings: n_settings switch assignments ("mla_eps=1e-2") over the config's
 * own. The switch values are part of the model: two models may be opened from one folder with
 * different ones. */
int lc_model_open(const char *path, const char *const *settings, size_t n_settings, lc_model **out,
                  lc_err *err);
void lc_model_close(lc_model *model);

/* Packs what products of op's path need packed (lc_kv_b_pack); before the first pass. */
int lc_model_pack(lc_model *model, const lc_op *op, lc_err *err);

lc_kv_layout lc_model_kv_layout(const lc_model *model, bool bf16);
/* The draft module's cache: one sublayer, one indexer. */
lc_kv_layout lc_model_mtp_layout(const lc_model *model, bool bf16);

#endif
