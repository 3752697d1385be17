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

/* Grows the engine's logits buffer to n rows. */
int lc_engine_logits(lc_engine *engine, size_t n, lc_err *err);

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
