/*
 * evaluate_kl.c: how far a model's predictions are from a reference's on the same text: the
 * divergence of a quantised model from the one it was made of. Sums are in float64 and use the C
 * library's exp and log; they are statistics, not part of a token's path.
 */
#include "engine/evaluate.h"

#include "base/err.h"

#include <math.h>

/* One of the two models at work. */
typedef struct side {
    lc_engine *e;
    lc_kv kv;
} side;

static int forward(side *s, const int32_t *tokens, size_t t, size_t m, lc_err *err) {
    lc_engine *e = s->e;
    for (size_t i = 0; i < m; i++) {
        e->rows[i] = (lc_row){&s->kv, t + i, 0, tokens, t + i};
        e->logit_rows[i] = i;
    }
    lc_step step = {e->rows, m, e->logit_rows, m, e->logits, NULL};
    return lc_forward(e->model, e->work, &step, err);
}

/* log of the sum of exp(logits). */
static double log_total(const float *logits, size_t vocab) {
    size_t best = (size_t)lc_argmax(logits, vocab);
    double max = (double)logits[best], sum = 1;
    for (size_t i = 0; i < vocab; i++)
        if (i != best) sum += exp((double)logits[i] - max);
    return max + log(sum);
}

/* Row q of the model against row p of the reference; target < 0: there is no next token. */
static void compare(const float *q, const float *p, size_t vocab, int32_t target, lc_eval_kl *out) {
    double log_q = log_total(q, vocab), log_p = log_total(p, vocab), kl = 0;
    for (size_t i = 0; i < vocab; i++) {
        double lp = (double)p[i] - log_p, lq = (double)q[i] - log_q;
        kl += exp(lp) * (lp - lq);
    }
    if (kl < 0) kl = 0; /* rounding, where both are equal */
    out->nats += kl;
    if (kl > out->worst) out->worst = kl;
    out->same_top += lc_argmax(q, vocab) == lc_argmax(p, vocab);
    out->positions++;
    if (target < 0) return;
    out->nll += log_q - (double)q[target];
    out->nll_reference += log_p - (double)p[target];
    out->predicted++;
}

static int compare_window(side s[2], const int32_t *tokens, size_t n, lc_eval_kl *out,
                          lc_err *err) {
    size_t vocab = lc_engine_vocab(s[0].e);
    size_t chunk = s[0].e->chunk < s[1].e->chunk ? s[0].e->chunk : s[1].e->chunk;
    int status = lc_kv_reserve(&s[0].kv, 0, n, err);
    if (status == LC_OK) status = lc_kv_reserve(&s[1].kv, 0, n, err);
    for (size_t t = 0; t < n && status == LC_OK;) {
        size_t m = n - t < chunk ? n - t : chunk;
        status = forward(&s[0], tokens, t, m, err);
        if (status == LC_OK) status = forward(&s[1], tokens, t, m, err);
        for (size_t i = 0; i < m && status == LC_OK; i++)
            compare(s[0].e->logits + i * vocab, s[1].e->logits + i * vocab, vocab,
                    t + i + 1 < n ? tokens[t + i + 1] : -1, out);
        t += m;
    }
    return status;
}

static int check(const lc_engine *e, const int32_t *tokens, size_t count, size_t window,
                 lc_err *err) {
    if (window < 2 || window > e->context)
        return lc_fail(err, LC_ELIMIT, "window of %zu tokens: 2 to %zu are possible", window,
                       e->context);
    for (size_t i = 0; i < count; i++)
        if (tokens[i] < 0 || (size_t)tokens[i] >= e->model->config.vocab)
            return lc_fail(err, LC_EINVAL, "token %d is outside the vocabulary", tokens[i]);
    return LC_OK;
}

int lc_eval_kl_windows(lc_engine *model, lc_engine *reference, const lc_eval_text *text,
                       lc_eval_kl *out, lc_err *err) {
    side s[2] = {{.e = model}, {.e = reference}};
    *out = (lc_eval_kl){0};
    if (lc_engine_vocab(model) != lc_engine_vocab(reference))
        return lc_fail(err, LC_EINVAL, "vocabularies of %zu and %zu tokens can't be compared",
                       lc_engine_vocab(model), lc_engine_vocab(reference));
    int status = LC_OK;
    for (int i = 0; i < 2 && status == LC_OK; i++) {
        status = check(s[i].e, text->tokens, text->count, text->window, err);
        if (status == LC_OK) status = lc_engine_logits(s[i].e, s[i].e->chunk, err);
    }
    for (int i = 0; i < 2; i++) {
        lc_kv_layout layout = lc_model_kv_layout(s[i].e->model, s[i].e->bf16);
        lc_kv_init(&s[i].kv, &layout);
    }
    for (size_t at = 0; at < text->count && status == LC_OK; at += text->window) {
        size_t n = text->count - at < text->window ? text->count - at : text->window;
        status = compare_window(s, text->tokens + at, n, out, err);
        out->tokens += n;
        if (text->progress && status == LC_OK) text->progress(text->ctx, out);
    }
    for (int i = 0; i < 2; i++) lc_kv_free(&s[i].kv);
    return status;
}
