/*
 * emit.c: decoding and stop strings of an answer, for one answer alone (generate.c) and for many
 * (sched_task.c). Sampling and stop tokens are the callers'.
 */
#include "engine/emit.h"

#include "base/err.h"

#include <string.h>

void lc_emitter_init(lc_emitter *e, const lc_tokenizer *tokenizer, const lc_generation *how) {
    *e = (lc_emitter){.tokenizer = tokenizer,
                      .stop = how->stop,
                      .n_stop = how->n_stop,
                      .stream = {.skip_special = !how->special_text}};
}

void lc_emitter_free(lc_emitter *e) { lc_buf_free(&e->held); }

/* Hands out held[0..len). */
static int hand_out(lc_emitter *e, int32_t token, size_t len, lc_err *err) {
    static const char nothing[1] = "";
    if (!e->sink) return LC_OK;
    char after = 0;
    if (len) {
        after = e->held.data[len];
        e->held.data[len] = 0;
    }
    const char *text = !e->tokenizer ? NULL : len ? e->held.data : nothing;
    int cancelled = e->sink(e->ctx, token, text, len);
    if (len) e->held.data[len] = after;
    return cancelled ? lc_fail(err, LC_ECANCELED, "cancelled") : LC_OK;
}

static void drop_held(lc_emitter *e, size_t len) {
    if (!len) return;
    memmove(e->held.data, e->held.data + len, e->held.len - len + 1);
    e->held.len -= len;
}

/* Where the first complete stop string begins in the held text, which is stopped_by; held.len if
 * there is none. */
static size_t first_stop(lc_emitter *e) {
    size_t first = e->held.len;
    for (size_t i = 0; i < e->n_stop; i++) {
        const char *stop = e->stop[i];
        const char *found = *stop ? memmem(e->held.data, e->held.len, stop, strlen(stop)) : NULL;
        if (!found || (size_t)(found - e->held.data) >= first) continue;
        first = (size_t)(found - e->held.data);
        e->stopped_by = i;
    }
    return first;
}

/* Bytes of the held text that can be handed out: up to the first stop string, which sets stopped,
 * or to where one may have begun. */
static size_t safe_length(lc_emitter *e) {
    if (!e->held.len) return 0;
    size_t safe = first_stop(e);
    e->stopped = safe < e->held.len;
    for (size_t i = 0; i < e->n_stop && !e->stopped; i++) {
        size_t n = strlen(e->stop[i]), at = e->held.len < n ? 0 : e->held.len - n + 1;
        while (at < safe && memcmp(e->held.data + at, e->stop[i], e->held.len - at)) at++;
        if (at < safe) safe = at;
    }
    return safe;
}

int lc_emit_token(lc_emitter *e, int32_t token, lc_err *err) {
    if (!e->tokenizer) return hand_out(e, token, 0, err);
    int status = LC_OK;
    if (lc_tokenizer_content(e->tokenizer,
                             token)) /* a model may have more ids than its tokenizer */
        status = lc_decode_push(e->tokenizer, &e->stream, token, &e->held, err);
    if (status != LC_OK) return status;
    size_t len = safe_length(e);
    status = hand_out(e, token, len, err);
    drop_held(e, len);
    return status;
}

int lc_emit_rest(lc_emitter *e, lc_err *err) {
    if (!e->tokenizer || e->stopped) return LC_OK;
    if (!lc_decode_finish(&e->stream, &e->held))
        return lc_fail(err, LC_ENOMEM, "generation: out of memory");
    size_t len = safe_length(e);
    if (!e->stopped) len = e->held.len;
    return len ? hand_out(e, -1, len, err) : LC_OK;
}
