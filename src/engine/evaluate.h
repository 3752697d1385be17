/* evaluate.h: whole sequences through the model: logits and activations for comparison, perplexity
 * for quality. */
#ifndef LC_ENGINE_EVALUATE_H
#define LC_ENGINE_EVALUATE_H

#include "engine/engine.h"

typedef struct lc_eval_input {
    const int32_t *tokens;   /* [B][T] */
    const int32_t *document; /* [B][T] or NULL; tokens see only their own document, ids don't fall
                                inside a row */
    size_t batch, length;
    size_t chunk;    /* positions of a sequence per step */
    size_t together; /* sequences in a step */
} lc_eval_input;

/* A result under its name in tests/golden/model: data [B][T'][cols], T' = T less the draft step for
 * mtp.k.*. */
typedef struct lc_eval_entry {
    char name[64];
    lc_dtype type;     /* F32 or I32 */
    size_t rows, cols; /* T', cols */
    void *data;        /* [B][rows][cols] */
} lc_eval_entry;

typedef struct lc_eval_result {
    lc_eval_entry *entries;
    size_t count, cap;
} lc_eval_result;

/* logits always; activations and the draft module's teacher-forced steps on request. Free the
 * result in any case. */
int lc_eval_logits(lc_engine *engine, const lc_eval_input *input, bool activations, bool mtp,
                   lc_eval_result *out, lc_err *err);
void lc_eval_free(lc_eval_result *result);

typedef struct lc_eval_nll {
    double nats;      /* total */
    size_t predicted; /* tokens that have a predecessor in their window */
    size_t tokens;
} lc_eval_nll;

/* -log softmax(logits)[target] of one row [V], which becomes scratch. */
double lc_eval_nll_row(const lc_kernels *kernels, size_t vocab, float *logits, int32_t target);

/* Negative log-likelihood of a text in windows of `window` tokens, each a sequence of its own.
 * progress may be NULL. */
int lc_eval_nll_windows(lc_engine *engine, const int32_t *tokens, size_t count, size_t window,
                        void (*progress)(void *ctx, const lc_eval_nll *so_far), void *ctx,
                        lc_eval_nll *out, lc_err *err);

/* ---- evaluate_kl.c: a model against a reference ---- */

typedef struct lc_eval_kl {
    double nats;                /* sum of KL(reference || model) over the positions */
    double worst;               /* of a position */
    double nll, nll_reference;  /* nats, totals over the predicted tokens */
    size_t positions, same_top; /* same_top: the likeliest token is the same */
    size_t predicted, tokens;
} lc_eval_kl;

typedef struct lc_eval_text {
    const int32_t *tokens;
    size_t count, window;
    void (*progress)(void *ctx, const lc_eval_kl *so_far); /* or NULL */
    void *ctx;
} lc_eval_text;

/* Both models over the same text, in windows as above. LC_EINVAL if their vocabularies differ. */
int lc_eval_kl_windows(lc_engine *model, lc_engine *reference, const lc_eval_text *text,
                       lc_eval_kl *out, lc_err *err);

#endif
