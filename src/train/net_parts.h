/*
 * net_parts.h: what net.c (the passes), net_weights.c (tensors by meaning and their copies) and
 * net_plan.c (memory) share.
 */
#ifndef LC_TRAIN_NET_PARTS_H
#define LC_TRAIN_NET_PARTS_H

#include "base/mem.h"
#include "train/attention.h"
#include "train/embedding.h"
#include "train/experts.h"
#include "train/head.h"
#include "train/index.h"
#include "train/net.h"

/* ---- weights ---- */

/* Half of a layer, and the draft module's block: attention and dense FFN. */
typedef struct lc_block_net {
    lc_weight norm_in, norm_post;
    lc_mla_net attn;
    lc_ffn_net ffn;
} lc_block_net;

typedef struct lc_layer_net {
    lc_block_net half[2];
    lc_moe_net moe;
    lc_index_net index; /* LSA only */
} lc_layer_net;

typedef struct lc_draft_net {
    lc_embed_net words;
    lc_weight enorm, hnorm, eh_proj, norm;
    lc_block_net block;
    lc_index_net index;
} lc_draft_net;

/* ---- activations ---- */

typedef struct lc_block_state {
    float *in;     /* [M][H] residual stream; a layer's first half: net->inputs */
    float *normed; /* [M][H] */
    lc_mla_state mla;
    float *mid;  /* [M][H] behind attention */
    float *post; /* [M][H] normed */
    lc_ffn_state ffn;
} lc_block_state;

typedef struct lc_layer_state {
    lc_block_state half[2];
    lc_moe_state moe;
} lc_layer_state;

/* Of one sequence of T tokens. */
typedef struct lc_draft_state {
    int32_t *tokens; /* [T] token i + k of row i */
    int64_t *ids;    /* [T] */
    float *words;    /* [T][H] looked-up rows */
    float *pair;     /* [T][2H] */
    lc_block_state block;
    float *out, *hidden; /* [T][H] before and after the module's norm */
    float *dhidden;      /* [T][H] */
} lc_draft_state;

struct lc_net {
    const lc_params *params;
    const lc_config *c;
    lc_net_options o;
    bool sparse;         /* has indexers */
    lc_arena *arena;     /* the structs of weights */
    char *copies;        /* weights in the compute type */
    void **places;       /* [params] a tensor's part of them, or NULL */
    char *block;         /* activations and scratch */
    lc_space space;      /* of products */
    float *index_scores; /* and targets behind them: [2][M][lc_index_stride(T)] */
    lc_tape tape;
    lc_rope rope;
    lc_mla_shape mla;
    lc_moe_shape moe;
    lc_index_shape index;

    lc_embed_net words;
    lc_weight norm, head;
    lc_layer_net *layers; /* [L] */
    lc_draft_net draft;

    float *cosines, *sines, *minus; /* [length][rope/2] */
    float **inputs;                 /* [L + 1] [M][H]: what enters each layer; last: leaves them */
    lc_layer_state *states;         /* [L]; with recompute all are the same memory */
    uint64_t **chosen;              /* [L + 1] key sets by index group, the draft module's last */
    float *hidden, *dhidden;        /* [M][H] behind the final norm */
    lc_draft_state *drafts;         /* [mtp_steps] */
    /* scratch */
    lc_mla_work mla_work;
    lc_index_state index_state;
    lc_embed_pass embed; /* of the main model; drafts take its scratch but ids */
    lc_head_pass head_pass;
    int32_t *targets;      /* [M] */
    float *out;            /* [M][H] a part's output */
    float *moe_out, *dmoe; /* [M][H] */
    float *dh, *dx;        /* [M][H] gradients of the residual stream, of a normed input */
    float *dpair;          /* [T][2H] */
    size_t *cuts;          /* [M + 1] where sequences begin, for the tape */
    double *sums;          /* [4][B] losses by sequence */
    int64_t *counts;       /* [E+Z] of a layer */
};

/* net_weights.c: binds every tensor; makes room for the copies. */
int lc_net_bind(lc_net *net, lc_err *err);
size_t lc_net_copy_bytes(const lc_params *params, const lc_net_options *o);

/* net_plan.c: cuts every buffer from one block, which it allocates. */
int lc_net_plan(lc_net *net, lc_err *err);
size_t lc_net_plan_bytes(const lc_params *params, const lc_net_options *o);

#endif
