/*
 * net.h: forward and backward of the whole model on a batch of sequences (docs/model.md 2 and 5).
 *
 * A batch is the smallest unit of work: `rows` sequences of equal length that run together. Its
 * losses and its gradient are a pure function of weights and batch, on any number of threads and
 * every instruction set, with recompute on or off. Sums run sequence by sequence: one batch leaves
 * the same bits as its sequences in several calls, if the balance counts are given and the head
 * isn't tied to the embedding. lanes.h joins what different lanes have added.
 *
 * Losses are given as sums, so that a step may consist of any number of batches: the caller counts
 * first (lc_net_count over all batches of the step), then every call scales by the totals.
 */
#ifndef LC_TRAIN_NET_H
#define LC_TRAIN_NET_H

#include "kernels/kernels.h"
#include "train/experts.h"
#include "train/params.h"
#include "train/profile.h"

enum { LC_MTP_STEPS_MAX = 8 };

typedef struct lc_batch {
    size_t rows, length;   /* B sequences of T tokens; rows * length <= the net's limit */
    const int32_t *tokens; /* [B][T], each 0 <= id < vocab */
    const uint8_t *mask; /* [B][T] or NULL (all): whether a token is predicted (its loss counts) */
    /* [B][T] or NULL (one document each): index of the first token of the token's document inside
     * its row. Attention and index stay inside a document, rotary positions run on over the row;
     * n-gram look-back is cut by EOS. A token is never predicted from another document. */
    const int32_t *starts;
    /* [layers][experts + zero] chosen counts of the whole step, and its tokens, for the balance
     * loss; NULL: the batch's own, which is the rule of spec 5.2 when the batch is the step. */
    const int64_t *balance_counts;
    int64_t balance_tokens;
} lc_batch;

typedef enum lc_kl_stage {
    LC_KL_OFF,
    LC_KL_WARMUP, /* dense attention; target and index over every causal key */
    LC_KL_SPARSE, /* attention, target and index over the chosen keys */
} lc_kl_stage;

/* The objective: sum of weight * term. A term with weight 0 is still measured, where that costs
 * little. With every weight but kl zero only indexers get gradients, and nothing else is
 * propagated: the warm-up stage. */
typedef struct lc_loss_weights {
    float lm;
    float mtp[LC_MTP_STEPS_MAX]; /* of draft step k + 1: train.json's mtp_weight / steps */
    float balance, router_z, hidden_z, kl;
    /* LSA models: OFF = sparse attention, nothing for indexers. */
    lc_kl_stage kl_stage;
    lc_balance_form balance_form;
} lc_loss_weights;

/* What the sums of a step are divided by. */
typedef struct lc_counts {
    int64_t lm, mtp[LC_MTP_STEPS_MAX]; /* predicted tokens */
    int64_t tokens;                    /* all */
} lc_counts;

/* Sums over the batches that were run; divide lm and mtp by (count + 1e-10), the others by tokens.
 */
typedef struct lc_losses {
    lc_counts counts;
    double lm, mtp[LC_MTP_STEPS_MAX];
    double balance;  /* batch value times its tokens, summed over layers */
    double router_z; /* summed over layers */
    double hidden_z;
    double kl;         /* summed over index groups and their members; 0 without a stage */
    double *kl_groups; /* NULL or [layers + 1], the caller's: kl by group, the draft module last */
    int64_t *experts; /* NULL or [layers][experts + zero], the caller's: tokens that chose an entry,
                         added to */
} lc_losses;

typedef struct lc_net lc_net;

typedef struct lc_net_options {
    const lc_kernels *kernels; /* borrowed */
    lc_pool *pool;             /* borrowed; may be NULL */
    bool bf16;                 /* operands of products are rounded to BF16; else all fp32 */
    size_t tokens;             /* most rows * length of a batch */
    size_t length;             /* longest sequence */
    size_t mtp_steps;          /* draft steps to train, 0 .. LC_MTP_STEPS_MAX; needs params->mtp */
    bool recompute;      /* keep only each layer's input and run it again in the backward pass: less
                            memory, a third more time, the same bits */
    lc_profile *profile; /* borrowed: where the time goes; NULL: nobody measures */
} lc_net_options;

/* Bytes that lc_net_new will take, for plans. Packed operands of products, and with indexers two
 * [tokens][length] arrays of scores, come on top at the first run. SIZE_MAX: too large. */
size_t lc_net_bytes(const lc_params *params, const lc_net_options *options);
/* params is borrowed. LC_EINVAL names what the options ask for and the model lacks. */
int lc_net_new(const lc_params *params, const lc_net_options *options, lc_net **out, lc_err *err);
void lc_net_free(lc_net *net);

/* Products read copies of the weights in the compute type. Call after every change of
 * params->values. lc_net_new does it once. */
void lc_net_refresh(lc_net *net);

/* Adds the batch's counts to *counts. */
void lc_net_count(const lc_net *net, const lc_batch *batch, lc_counts *counts);

/* Forward, and backward with grad: adds d objective / d parameter to grad, a block of params'
 * layout. grad NULL: losses only. totals: of the whole step. Adds to *losses. */
int lc_net_run(lc_net *net, const lc_batch *batch, const lc_loss_weights *weights,
               const lc_counts *totals, float *grad, lc_losses *losses, lc_err *err);

/* The objective's value, hidden z included, and without it (what is reported): train.json. */
double lc_losses_objective(const lc_losses *losses, const lc_loss_weights *weights);
double lc_losses_reported(const lc_losses *losses, const lc_loss_weights *weights);

#endif
