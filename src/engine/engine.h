/*
 * engine.h: the inside of engines and sessions, for src/engine and the evaluation commands. Users
 * include longcat.h.
 */
#ifndef LC_ENGINE_ENGINE_H
#define LC_ENGINE_ENGINE_H

#include "model/forward.h"
#include "store/kv.h"
#include "text/tokenizer.h"

struct lc_engine {
    lc_model *model;
    lc_tokenizer *tokenizer; /* NULL if the folder has no tokenizer.json */
    lc_pool *pool;
    const lc_kernels *kernels;
    lc_work *work;
    bool bf16, drafts;
    size_t context, chunk;
    /* step lists, [chunk] each */
    lc_row *rows;
    size_t *logit_rows;
    float *logits; /* [cap_logits][V] */
    size_t cap_logits;
    float *previous; /* [chunk][H] hidden rows for the draft module */
    int32_t *routes; /* [chunk][layers][topk], or NULL */
};

struct lc_session {
    lc_engine *engine;
    lc_ids tokens;
    size_t length; /* positions whose cache entries are valid; tokens.len after a successful sync */
    size_t reused;
    lc_kv kv;
    float *logits; /* [V], of the last token; valid if has_logits */
    bool has_logits;
    /* sampling */
    float *probs;
    int32_t *heap; /* [V] */
    /* draft module: rows 0..length-2 are in mtp_kv; row length-1 waits for its next token, and
     * needs last_hidden then, which is there if has_hidden. Without it the next sync computes the
     * last position again. */
    lc_kv mtp_kv;
    float *last_hidden; /* [H] of position length-1 */
    bool has_hidden;
};

/* Computes a token for nothing, and with a small model some more, so that the first real ones find
 * weights and work memory in place; not for a model that is larger than RAM. */
int lc_engine_warm_up(lc_engine *engine, lc_err *err);
/* Grows the engine's logits buffer to n rows. */
int lc_engine_logits(lc_engine *engine, size_t n, lc_err *err);
/* From now on steps keep which entries their rows chose (lc_step_part.routes). */
int lc_engine_keep_routes(lc_engine *engine, lc_err *err);

/* ---- steps: what lc_sync_batch is made of ---- */

/* A session's share of one step. The caller sets the first three. */
typedef struct lc_step_part {
    lc_session *session;
    size_t rows;     /* most rows to run; what the session has left is the other limit */
    bool all_logits; /* of every row, not of the list's last one only */
    /* what happened */
    size_t n;              /* rows run, for positions length - n .. length - 1 */
    const float *logits;   /* all_logits: [n][V], else NULL; valid until the next step */
    const int32_t *routes; /* [n][layers][topk], or NULL; valid until the next step */
} lc_step_part;

/* Sets the session's token list and keeps what both lists have in common; computes nothing. */
int lc_session_begin(lc_session *session, const int32_t *tokens, size_t count, lc_err *err);
/* The same for a new session whose kv was filled with the first `loaded` < count positions from
 * elsewhere. LC_EINVAL with a draft module, whose cache doesn't come with it. */
int lc_session_adopt_prefix(lc_session *session, const int32_t *tokens, size_t count, size_t loaded,
                            lc_err *err);
/* Appends a token to the list of a session that has nothing left to compute. */
int lc_session_push(lc_session *session, int32_t token, lc_err *err);
/* Runs one step over the parts, in order, at most `budget` rows (and the engine's chunk). Sessions
 * whose list is computed have logits then. No session may appear twice. After an error sessions of
 * the parts with rows left must be closed, or forgotten about by lc_session_abandon. */
int lc_step_batch(lc_engine *engine, lc_step_part *parts, size_t count, size_t budget, lc_err *err);
/* Cuts the list to what is computed for sure. */
void lc_session_abandon(lc_session *session);

/* ---- pieces of generation ---- */

/* Whether sampling numbers are usable with any logits; LC_EINVAL names the first that isn't. */
int lc_check_sampling(const lc_sampling *sampling, size_t vocab, lc_err *err);
/* Sampling, and stop strings against their limits. */
int lc_check_generation(const lc_engine *engine, const lc_generation *how, lc_err *err);
/* As lc_session_sample. mask [ceil(V/64)]: bits of the tokens to choose from, or NULL; it also wins
 * over biases of minus infinity. */
int lc_session_sample_masked(lc_session *session, const lc_sampling *sampling,
                             size_t generated_from, const uint64_t *mask, int32_t *token,
                             lc_err *err);
/* An EOS of the model, unless ignored, or one of how's stop tokens. */
bool lc_is_stop_token(const lc_engine *engine, const lc_generation *how, int32_t token);

/* What a draft chain can hand out besides its tokens, for comparison with other implementations.
 * NULL members are skipped. */
typedef struct lc_draft_trace {
    int32_t *sets; /* [count][index_topk] keys that each new row attends to, -1 pads */
    float *logits; /* [count][V] */
} lc_draft_trace;

/* As lc_session_draft. */
int lc_session_draft_traced(lc_session *session, int32_t next, size_t count, int32_t *out,
                            const lc_draft_trace *trace, lc_err *err);

/* Index of the largest value, ties to the lower. */
int32_t lc_argmax(const float *logits, size_t n);

/* Next token from logits [V] (overwritten); probs and heap are [V]. counts of penalties come from
 * tokens. */
typedef struct lc_sample_args {
    const lc_kernels *kernels;
    size_t vocab;
    float *logits, *probs;
    int32_t *heap;
    const int32_t *tokens; /* the whole list */
    size_t count, generated_from;
} lc_sample_args;
int32_t lc_sample(const lc_sampling *sampling, const lc_sample_args *args);

#endif
