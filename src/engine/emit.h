/*
 * emit.h: text of an answer, token by token. Text is handed out only when it is whole characters
 * and no stop string can begin in it any more; the text ends before the first stop string.
 */
#ifndef LC_ENGINE_EMIT_H
#define LC_ENGINE_EMIT_H

#include "text/tokenizer.h"

enum { LC_MAX_STOPS = 16 };

/* As lc_generation's on_token: text is NULL without a tokenizer, otherwise "" if nothing became
 * certain; token -1 brings the rest. Non-zero cancels. */
typedef int lc_emit_sink(void *ctx, int32_t token, const char *text, size_t len);

typedef struct lc_emitter {
    const lc_tokenizer *tokenizer; /* or NULL */
    const char *const *stop;       /* [n_stop], borrowed */
    size_t n_stop;
    lc_emit_sink *sink; /* or NULL */
    void *ctx;
    lc_decode_stream stream;
    lc_buf held;       /* decoded, not yet handed out */
    bool stopped;      /* a stop string was met, */
    size_t stopped_by; /* this one */
} lc_emitter;

/* Takes stop strings and special_text from how; the caller sets sink and ctx. */
void lc_emitter_init(lc_emitter *emitter, const lc_tokenizer *tokenizer, const lc_generation *how);
void lc_emitter_free(lc_emitter *emitter);
/* LC_ECANCELED if the sink says so. */
int lc_emit_token(lc_emitter *emitter, int32_t token, lc_err *err);
/* What was held back, unless a stop string was met; one may be met in it. */
int lc_emit_rest(lc_emitter *emitter, lc_err *err);

#endif
