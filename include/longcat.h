/*
 * longcat.h: the public API of the library. A program that embeds longcat includes this file only.
 *
 * This part holds status codes and errors, which every layer shares. Every call that can fail
 * returns an lc_status (0 or a negative code) and, through an optional `lc_err *`, a text that
 * names the file, tensor, field and limit. Nothing in the library prints, exits or keeps a pointer
 * to caller memory beyond a call unless a comment says so.
 */
#ifndef LONGCAT_H
#define LONGCAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LC_VERSION "0.1.0"

/* Status codes: name, value, what it means for the caller. */
#define LC_STATUS_LIST(X)                                                                          \
    X(LC_OK, 0, "success")                                                                         \
    X(LC_ENOMEM, -1, "out of memory")                                                              \
    X(LC_EINVAL, -2, "invalid argument")                                                           \
    X(LC_EIO, -3, "input or output failed")                                                        \
    X(LC_EFORMAT, -4, "malformed data")                                                            \
    X(LC_ELIMIT, -5, "a limit was exceeded")                                                       \
    X(LC_ENOTFOUND, -6, "not found")                                                               \
    X(LC_EUNSUPPORTED, -7, "not supported")                                                        \
    X(LC_ENET, -8, "network failure")                                                              \
    X(LC_ECANCELED, -9, "cancelled")

typedef enum lc_status {
#define LC_STATUS_ENUM(name, value, text) name = (value),
    LC_STATUS_LIST(LC_STATUS_ENUM)
#undef LC_STATUS_ENUM
} lc_status;

/* Error context. The caller owns it; zero it (or call nothing) before use. text is NUL-terminated
 * UTF-8. */
typedef struct lc_err {
    int code;
    char text[480];
} lc_err;

/* "malformed data" and so on for a status code. Never NULL. */
const char *lc_status_text(int status);

/* ---- engine: one loaded model ---- */

typedef struct lc_engine lc_engine;

/* Zero-initialise: 0 and NULL mean the default. */
typedef struct lc_engine_options {
    const char *compute; /* "bf16": products of BF16 values, fp32 sums and residual; "f32": all
                          * fp32; default: bf16, f32 for a checkpoint that is stored in F32 */
    const char *isa;     /* highest instruction set to use: "scalar", "neon", "neonbf16",
                          * "avx2", "avx512", "avx512bf16", "amx"; default: what is fastest here */
    int threads;         /* default: the CPUs this process may use */
    size_t context;      /* longest sequence, tokens; default: what the config allows */
    size_t chunk;        /* rows of a forward step, default 2048, less where memory is short; the
                          * result never depends on it */
    bool drafts;         /* keep the draft module's cache too, for lc_session_draft */
    const char *const
        *settings; /* "switch=value", see docs/formats.md; strings must live during the call only */
    size_t n_settings;
} lc_engine_options;

/* path: a model folder (config.json, safetensors, and tokenizer.json where text is used). */
int lc_engine_open(const char *path, const lc_engine_options *options, lc_engine **out,
                   lc_err *err);
void lc_engine_close(lc_engine *engine); /* after all its sessions are closed */
size_t lc_engine_vocab(const lc_engine *engine);
size_t lc_engine_context(const lc_engine *engine);

/* ---- session: one timeline of tokens ---- */

typedef struct lc_session lc_session;

int lc_session_open(lc_engine *engine, lc_session **out, lc_err *err);
void lc_session_close(lc_session *session);

/* The caller hands over the full token list; the session keeps what it already has in common, drops
 * what diverged and computes the rest. count >= 1. Afterwards lc_session_logits holds the logits
 * [V] that follow the last token. Errors: LC_EINVAL names a token out of range, LC_ELIMIT the
 * context; the session stays usable after any error. */
int lc_session_sync(lc_session *session, const int32_t *tokens, size_t count, lc_err *err);

/* The same for several sessions of one engine in common steps. No session may appear twice. The
 * bits of each are those that it would have alone. */
typedef struct lc_prompt {
    lc_session *session;
    const int32_t *tokens;
    size_t count;
} lc_prompt;
int lc_sync_batch(lc_engine *engine, const lc_prompt *prompts, size_t count, lc_err *err);

const float *lc_session_logits(const lc_session *session);
const int32_t *lc_session_tokens(const lc_session *session, size_t *count);
size_t lc_session_reused(const lc_session *session); /* tokens that the last sync did not compute */

/* Greedy draft chain of `count` tokens after the synced list and `next`. Needs options.drafts and a
 * draft module. The session's state is as before afterwards. */
int lc_session_draft(lc_session *session, int32_t next, size_t count, int32_t *out, lc_err *err);

/* ---- sampling: a pure function of logits, token list, seed and position ---- */

typedef struct lc_logit_bias {
    int32_t token;
    float bias;
} lc_logit_bias;

/* Zero-initialise: greedy, nothing filtered. Applied in this order. */
typedef struct lc_sampling {
    float repetition_penalty; /* 0 or 1 = off; over all tokens so far: logit > 0 ? logit / p : logit
                               * p */
    float presence_penalty;   /* subtracted once from each token generated so far */
    float frequency_penalty;  /* subtracted for each time it was generated */
    const lc_logit_bias *bias; /* added */
    size_t n_bias;
    float temperature; /* 0 = greedy: the highest logit, ties to the lower id */
    int32_t top_k;     /* 0 = off */
    float top_p;       /* 0 or 1 = off: smallest set of best tokens with at least this mass */
    float min_p;       /* 0 = off: tokens with at least this share of the best one's probability */
    uint64_t seed;
} lc_sampling;

/* Picks the token that follows the session's list. generated_from: index of the first generated
 * token in the list (for presence and frequency penalties). */
int lc_session_sample(lc_session *session, const lc_sampling *sampling, size_t generated_from,
                      int32_t *token, lc_err *err);

/* ---- generation: sample, stop, decode ---- */

typedef struct lc_generation {
    lc_sampling sampling;
    size_t max_tokens;
    bool ignore_eos;
    bool special_text; /* special tokens (think and tool tags) appear in the text; default: they are
                          left out */
    const char *const *stop;    /* stop strings: the text ends before one; it is not emitted */
    size_t n_stop;              /* at most 16 */
    const int32_t *stop_tokens; /* besides the model's own EOS tokens */
    size_t n_stop_tokens;
    /* Called for each token with the text that has become certain ("" if none; text is
     * NULL-terminated, len bytes; NULL without a tokenizer), and once with token -1 for the rest. A
     * non-zero result cancels: LC_ECANCELED. May be NULL. */
    int (*on_token)(void *ctx, int32_t token, const char *text, size_t len);
    void *ctx;
} lc_generation;

typedef enum lc_finish {
    LC_FINISH_STOP,   /* an EOS, stop token or stop string */
    LC_FINISH_LENGTH, /* max_tokens or the context limit */
} lc_finish;

/* Continues prompt. Writes the new tokens to out_tokens, an array of max_tokens ids (an EOS or stop
 * token isn't among them, those of a stop string are); *out_count is set even on error. */
int lc_generate(lc_session *session, const int32_t *prompt, size_t count, const lc_generation *how,
                int32_t *out_tokens, size_t *out_count, lc_finish *finish, lc_err *err);

#endif
