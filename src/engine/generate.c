/*
 * generate.c: the loop of sampling, stopping and decoding. Text is handed out only when no stop
 * string can begin in it any more.
 */
#include "engine/engine.h"

#include "base/err.h"

#include <math.h>

enum { MAX_STOPS = 16 };

static int check_sampling(const lc_sampling *s, size_t vocab, lc_err *err) {
    const struct {
        const char *name;
        float value;
    } numbers[] = {
        {"repetition_penalty", s->repetition_penalty},
        {"presence_penalty", s->presence_penalty},
        {"frequency_penalty", s->frequency_penalty},
        {"temperature", s->temperature},
        {"top_p", s->top_p},
        {"min_p", s->min_p},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!isfinite(numbers[i].value))
            return lc_fail(err, LC_EINVAL, "%s is not a finite number", numbers[i].name);
    for (size_t i = 0; i < s->n_bias; i++) {
        if (s->bias[i].token < 0 || (size_t)s->bias[i].token >= vocab)
            return lc_fail(err, LC_EINVAL, "logit bias: token %d is outside the vocabulary of %zu",
                           s->bias[i].token, vocab);
        if (!(s->bias[i].bias < INFINITY)) /* minus infinity forbids a token */
            return lc_fail(err, LC_EINVAL, "logit bias of token %d is not a finite number",
                           s->bias[i].token);
    }
    return LC_OK;
}

int lc_session_sample(lc_session *s, const lc_sampling *sampling, size_t generated_from,
                      int32_t *token, lc_err *err) {
    size_t vocab = s->engine->model->config.vocab;
    if (!s->has_logits) return lc_fail(err, LC_EINVAL, "nothing is synced yet");
    int status = check_sampling(sampling, vocab, err);
    if (status != LC_OK) return status;
    float *logits = lc_alloc(vocab * sizeof *logits);
    if (!logits) return lc_fail(err, LC_ENOMEM, "sampling: out of memory");
    memcpy(logits, s->logits, vocab * sizeof *logits);
    lc_sample_args args = {s->engine->kernels, vocab,         logits,        s->probs, s->heap,
                           s->tokens.data,     s->tokens.len, generated_from};
    uint64_t fp = lc_fp_enter();
    *token = lc_sample(sampling, &args);
    lc_fp_leave(fp);
    lc_free(logits);
    return LC_OK;
}

typedef struct emitter {
    const lc_generation *how;
    const lc_tokenizer *tokenizer;
    lc_decode_stream stream;
    lc_buf held;  /* decoded, not yet handed out */
    bool stopped; /* a stop string was met */
} emitter;

/* Hands out held[0..len). */
static int hand_out(emitter *e, int32_t token, size_t len, lc_err *err) {
    static const char nothing[1] = "";
    if (!e->how->on_token) return LC_OK;
    char after = 0;
    if (len) {
        after = e->held.data[len];
        e->held.data[len] = 0;
    }
    const char *text = !e->tokenizer ? NULL : len ? e->held.data : nothing;
    int cancelled = e->how->on_token(e->how->ctx, token, text, len);
    if (len) e->held.data[len] = after;
    return cancelled ? lc_fail(err, LC_ECANCELED, "cancelled") : LC_OK;
}

static void drop_held(emitter *e, size_t len) {
    if (!len) return;
    memmove(e->held.data, e->held.data + len, e->held.len - len + 1);
    e->held.len -= len;
}

/* Where the first complete stop string begins in the held text; held.len if there is none. */
static size_t first_stop(const emitter *e) {
    size_t first = e->held.len;
    for (size_t i = 0; i < e->how->n_stop; i++) {
        const char *stop = e->how->stop[i];
        const char *found = *stop ? memmem(e->held.data, e->held.len, stop, strlen(stop)) : NULL;
        if (found && (size_t)(found - e->held.data) < first) first = (size_t)(found - e->held.data);
    }
    return first;
}

/* Bytes of the held text that can be handed out: up to the first stop string, which sets stopped,
 * or to where one may have begun. */
static size_t safe_length(emitter *e) {
    if (!e->held.len) return 0;
    size_t safe = first_stop(e);
    e->stopped = safe < e->held.len;
    for (size_t i = 0; i < e->how->n_stop && !e->stopped; i++) {
        size_t n = strlen(e->how->stop[i]), at = e->held.len < n ? 0 : e->held.len - n + 1;
        while (at < safe && memcmp(e->held.data + at, e->how->stop[i], e->held.len - at)) at++;
        if (at < safe) safe = at;
    }
    return safe;
}

static int emit_token(emitter *e, int32_t token, lc_err *err) {
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

static int emit_rest(emitter *e, lc_err *err) {
    if (!e->tokenizer || e->stopped) return LC_OK;
    if (!lc_decode_finish(&e->stream, &e->held))
        return lc_fail(err, LC_ENOMEM, "generation: out of memory");
    size_t len = safe_length(e);
    if (!e->stopped) len = e->held.len;
    return len ? hand_out(e, -1, len, err) : LC_OK;
}

static bool is_stop_token(const lc_engine *engine, const lc_generation *how, int32_t token) {
    const lc_config *c = &engine->model->config;
    for (size_t i = 0; i < how->n_stop_tokens; i++)
        if (how->stop_tokens[i] == token) return true;
    for (size_t i = 0; i < c->n_eos && !how->ignore_eos; i++)
        if (c->eos_ids[i] == token) return true;
    return false;
}

static int generate(lc_session *s, lc_ids *list, size_t prompt_count, const lc_generation *how,
                    emitter *e, int32_t *out_tokens, size_t *out_count, lc_finish *finish,
                    lc_err *err) {
    *finish = LC_FINISH_LENGTH;
    while (*out_count < how->max_tokens && list->len <= s->engine->context) {
        int32_t token = 0;
        int status = lc_session_sync(s, list->data, list->len, err);
        if (status == LC_OK)
            status = lc_session_sample(s, &how->sampling, prompt_count, &token, err);
        if (status != LC_OK) return status;
        if (is_stop_token(s->engine, how, token)) {
            *finish = LC_FINISH_STOP;
            break;
        }
        out_tokens[(*out_count)++] = token;
        if (!lc_ids_push(list, token)) return lc_fail(err, LC_ENOMEM, "generation: out of memory");
        status = emit_token(e, token, err);
        if (status != LC_OK) return status;
        if (e->stopped) {
            *finish = LC_FINISH_STOP;
            break;
        }
    }
    int status = emit_rest(e, err);
    if (e->stopped) *finish = LC_FINISH_STOP;
    return status;
}

int lc_generate(lc_session *s, const int32_t *prompt, size_t count, const lc_generation *how,
                int32_t *out_tokens, size_t *out_count, lc_finish *finish, lc_err *err) {
    *out_count = 0;
    *finish = LC_FINISH_LENGTH;
    if (how->n_stop > MAX_STOPS)
        return lc_fail(err, LC_ELIMIT, "%zu stop strings: the limit is %d", how->n_stop, MAX_STOPS);
    if (how->n_stop && !s->engine->tokenizer)
        return lc_fail(err, LC_EINVAL, "stop strings need a tokenizer.json in the model folder");
    lc_ids list = {0};
    emitter e = {.how = how,
                 .tokenizer = s->engine->tokenizer,
                 .stream = {.skip_special = !how->special_text}};
    int status = lc_ids_append(&list, prompt, count)
                     ? LC_OK
                     : lc_fail(err, LC_ENOMEM, "generation: out of memory");
    if (status == LC_OK && !count) status = lc_fail(err, LC_EINVAL, "the prompt is empty");
    if (status == LC_OK && count > s->engine->context)
        status = lc_fail(err, LC_ELIMIT, "%zu tokens are more than the context of %zu", count,
                         s->engine->context);
    if (status == LC_OK)
        status = generate(s, &list, count, how, &e, out_tokens, out_count, finish, err);
    lc_ids_free(&list);
    lc_buf_free(&e.held);
    return status;
}
