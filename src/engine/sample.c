/*
 * sample.c: from logits to a token. Candidates are taken from a heap in falling probability, equal
 * ones in rising id, and sums run in that order, so the choice is a pure function of its inputs.
 */
#include "engine/engine.h"

#include "base/rng.h"

#include <math.h>

int32_t lc_argmax(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

static void apply_penalties(const lc_sampling *s, const lc_sample_args *a) {
    float repetition = s->repetition_penalty;
    float *counts = a->probs; /* free until the softmax */
    if (repetition > 0 && repetition != 1.0f) {
        memset(counts, 0, a->vocab * sizeof *counts);
        for (size_t i = 0; i < a->count; i++) {
            int32_t t = a->tokens[i];
            if (counts[t]++ > 0) continue;
            a->logits[t] = a->logits[t] > 0 ? a->logits[t] / repetition : a->logits[t] * repetition;
        }
    }
    if (s->presence_penalty != 0 || s->frequency_penalty != 0) {
        memset(counts, 0, a->vocab * sizeof *counts);
        for (size_t i = a->generated_from; i < a->count; i++) {
            int32_t t = a->tokens[i];
            if (counts[t]++ == 0) a->logits[t] -= s->presence_penalty;
            a->logits[t] -= s->frequency_penalty;
        }
    }
    for (size_t i = 0; i < s->n_bias; i++) a->logits[s->bias[i].token] += s->bias[i].bias;
}

static bool before(const float *probs, int32_t a, int32_t b) {
    return probs[a] > probs[b] || (a < b && probs[a] == probs[b]);
}

static void sift_down(const float *probs, int32_t *heap, size_t n, size_t i) {
    for (;;) {
        size_t top = i, left = 2 * i + 1, right = left + 1;
        if (left < n && before(probs, heap[left], heap[top])) top = left;
        if (right < n && before(probs, heap[right], heap[top])) top = right;
        if (top == i) return;
        int32_t t = heap[i];
        heap[i] = heap[top];
        heap[top] = t;
        i = top;
    }
}

/* Moves the n best candidates, or fewer if `enough` mass is reached or the next is below `least`,
 * to the array's end: the j-th best stands at heap[vocab - 1 - j]. Returns their number, at least
 * 1; *mass is their sum. */
static size_t pop_best(const lc_sample_args *a, size_t n, double enough, float least,
                       double *mass) {
    size_t left = a->vocab, taken = 0;
    *mass = 0;
    while (taken < n && left > 0 &&
           (taken == 0 || (*mass < enough && a->probs[a->heap[0]] >= least))) {
        int32_t id = a->heap[0];
        a->heap[0] = a->heap[--left];
        a->heap[left] = id;
        sift_down(a->probs, a->heap, left, 0);
        *mass += (double)a->probs[id];
        taken++;
    }
    return taken;
}

static float best_prob(const lc_sample_args *a, size_t j) {
    return a->probs[a->heap[a->vocab - 1 - j]];
}

/* The same limits on the `kept` candidates that were moved already. */
static size_t cut_best(const lc_sample_args *a, size_t kept, double enough, float least,
                       double *mass) {
    size_t n = 0;
    for (*mass = 0; n < kept && (n == 0 || (*mass < enough && best_prob(a, n) >= least)); n++)
        *mass += (double)best_prob(a, n);
    return n;
}

/* Moves the candidates that top_k, top_p and min_p leave, in this order; without a cut only so many
 * as the draw u needs. Returns their number; *mass is what u is a share of. */
static size_t candidates(const lc_sampling *s, const lc_sample_args *a, double u, double *mass) {
    bool nucleus = s->top_p > 0 && s->top_p < 1;
    float least = s->min_p > 0 ? s->min_p * a->probs[a->heap[0]] : 0.0f;
    double popped;
    if (s->top_k > 0) { /* top_p is a share of what top_k left */
        size_t kept = pop_best(a, (size_t)s->top_k, INFINITY, 0.0f, mass);
        double enough = nucleus ? (double)s->top_p * *mass : INFINITY;
        return cut_best(a, kept, enough, least, mass);
    }
    if (nucleus || least > 0)
        return pop_best(a, a->vocab, nucleus ? (double)s->top_p * *mass : INFINITY, least, mass);
    return pop_best(a, a->vocab, nextafter(u * *mass, INFINITY), 0.0f, &popped);
}

int32_t lc_sample(const lc_sampling *s, const lc_sample_args *a) {
    apply_penalties(s, a);
    float max = a->kernels->max(a->vocab, a->logits);
    if (s->temperature <= 0 || !isfinite(max)) return lc_argmax(a->logits, a->vocab);
    for (size_t i = 0; i < a->vocab; i++) /* below 0 first: no temperature makes it overflow */
        a->logits[i] = (a->logits[i] - max) / s->temperature;
    a->kernels->exp_sum(a->vocab, a->logits, 0.0f, a->probs);
    double mass = 0;
    for (size_t i = 0; i < a->vocab; i++) {
        mass += (double)a->probs[i];
        a->heap[i] = (int32_t)i;
    }
    for (size_t i = a->vocab / 2; i-- > 0;) sift_down(a->probs, a->heap, a->vocab, i);

    double u = lc_rng_uniform(s->seed, 0, a->count), sum = 0;
    size_t kept = candidates(s, a, u, &mass), last = 0;
    double target = u * mass;
    for (size_t j = 0; j < kept && best_prob(a, j) > 0; j++) { /* never one without probability */
        last = j;
        sum += (double)best_prob(a, j);
        if (sum > target) break;
    }
    return a->heap[a->vocab - 1 - last];
}
