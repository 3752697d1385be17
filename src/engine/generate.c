/*
 * generate.c: the loop of sampling, stopping and decoding for one answer, and the checks and the
 * choice of a token that the scheduler shares with it. Text is emit.c's.
 */
#include "engine/emit.h"
#include "engine/engine.h"

#include "base/err.h"

#include <math.h>

int lc_check_sampling(const lc_sampling *s, size_t vocab, lc_err *err) {
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

int lc_check_generation(const lc_engine *e, const lc_generation *how, lc_err *err) {
    if (how->n_stop > LC_MAX_STOPS)
        return lc_fail(err, LC_ELIMIT, "%zu stop strings: the limit is %d", how->n_stop,
                       LC_MAX_STOPS);
    if (how->n_stop && !e->tokenizer)
        return lc_fail(err, LC_EINVAL, "stop strings need a tokenizer.json in the model folder");
    return lc_check_sampling(&how->sampling, e->model->config.vocab, err);
}

static bool allowed(const uint64_t *mask, size_t token) {
    return mask[token / 64] >> token % 64 & 1;
}

/* The highest logit of the mask's tokens, ties to the lower id. */
static int32_t best_allowed(const float *logits, size_t vocab, const uint64_t *mask) {
    size_t best = vocab;
    for (size_t i = 0; i < vocab; i++)
        if (allowed(mask, i) && (best == vocab || logits[i] > logits[best])) best = i;
    return best == vocab ? -1 : (int32_t)best;
}

int lc_session_sample_masked(lc_session *s, const lc_sampling *sampling, size_t generated_from,
                             const uint64_t *mask, int32_t *token, lc_err *err) {
    size_t vocab = s->engine->model->config.vocab;
    if (!s->has_logits) return lc_fail(err, LC_EINVAL, "nothing is synced yet");
    int status = lc_check_sampling(sampling, vocab, err);
    if (status != LC_OK) return status;
    float *logits = lc_alloc(vocab * sizeof *logits);
    if (!logits) return lc_fail(err, LC_ENOMEM, "sampling: out of memory");
    memcpy(logits, s->logits, vocab * sizeof *logits);
    for (size_t i = 0; mask && i < vocab; i++)
        if (!allowed(mask, i)) logits[i] = -INFINITY;
    lc_sample_args args = {s->engine->kernels, vocab,         logits,        s->probs, s->heap,
                           s->tokens.data,     s->tokens.len, generated_from};
    uint64_t fp = lc_fp_enter();
    *token = lc_sample(sampling, &args);
    lc_fp_leave(fp);
    lc_free(logits);
    if (mask && !allowed(mask, (size_t)*token)) *token = best_allowed(s->logits, vocab, mask);
    if (*token < 0) return lc_fail(err, LC_EINVAL, "no token is allowed");
    return LC_OK;
}

int lc_session_sample(lc_session *s, const lc_sampling *sampling, size_t generated_from,
                      int32_t *token, lc_err *err) {
    return lc_session_sample_masked(s, sampling, generated_from, NULL, token, err);
}

bool lc_is_stop_token(const lc_engine *engine, const lc_generation *how, int32_t token) {
    const lc_config *c = &engine->model->config;
    for (size_t i = 0; i < how->n_stop_tokens; i++)
        if (how->stop_tokens[i] == token) return true;
    for (size_t i = 0; i < c->n_eos && !how->ignore_eos; i++)
        if (c->eos_ids[i] == token) return true;
    return false;
}

static int generate(lc_session *s, lc_ids *list, size_t prompt_count, const lc_generation *how,
                    lc_emitter *e, int32_t *out_tokens, size_t *out_count, lc_finish *finish,
                    lc_err *err) {
    *finish = LC_FINISH_LENGTH;
    while (*out_count < how->max_tokens && list->len <= s->engine->context) {
        int32_t token = 0;
        int status = lc_session_sync(s, list->data, list->len, err);
        if (status == LC_OK)
            status = lc_session_sample(s, &how->sampling, prompt_count, &token, err);
        if (status != LC_OK) return status;
        if (lc_is_stop_token(s->engine, how, token)) {
            *finish = LC_FINISH_STOP;
            break;
        }
        out_tokens[(*out_count)++] = token;
        if (!lc_ids_push(list, token)) return lc_fail(err, LC_ENOMEM, "generation: out of memory");
        status = lc_emit_token(e, token, err);
        if (status != LC_OK) return status;
        if (e->stopped) {
            *finish = LC_FINISH_STOP;
            break;
        }
    }
    int status = lc_emit_rest(e, err);
    if (e->stopped) *finish = LC_FINISH_STOP;
    return status;
}

int lc_generate(lc_session *s, const int32_t *prompt, size_t count, const lc_generation *how,
                int32_t *out_tokens, size_t *out_count, lc_finish *finish, lc_err *err) {
    *out_count = 0;
    *finish = LC_FINISH_LENGTH;
    int status = lc_check_generation(s->engine, how, err);
    if (status != LC_OK) return status;
    lc_ids list = {0};
    lc_emitter e;
    lc_emitter_init(&e, s->engine->tokenizer, how);
    e.sink = how->on_token;
    e.ctx = how->ctx;
    status = lc_ids_append(&list, prompt, count)
                 ? LC_OK
                 : lc_fail(err, LC_ENOMEM, "generation: out of memory");
    if (status == LC_OK && !count) status = lc_fail(err, LC_EINVAL, "the prompt is empty");
    if (status == LC_OK && count > s->engine->context)
        status = lc_fail(err, LC_ELIMIT, "%zu tokens are more than the context of %zu", count,
                         s->engine->context);
    if (status == LC_OK)
        status = generate(s, &list, count, how, &e, out_tokens, out_count, finish, err);
    lc_ids_free(&list);
    lc_emitter_free(&e);
    return status;
}
