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
    return probs[a] > probs[b] || (probs[a] == probs[b] && a < b);
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
 * to the array's end: the j-th best stands at heap[vocab - 1 - j]. Returns their number; *mass is
 * their sum. */
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

int32_t lc_sample(const lc_sampling *s, const lc_sample_args *a) {
    apply_penalties(s, a);
    if (s->temperature <= 0) return lc_argmax(a->logits, a->vocab);
    for (size_t i = 0; i < a->vocab; i++) a->logits[i] /= s->temperature;
    a->kernels->exp_sum(a->vocab, a->logits, a->kernels->max(a->vocab, a->logits), a->probs);
    double mass = 0;
    for (size_t i = 0; i < a->vocab; i++) {
        mass += (double)a->probs[i];
        a->heap[i] = (int32_t)i;
    }
    for (size_t i = a->vocab / 2; i-- > 0;) sift_down(a->probs, a->heap, a->vocab, i);

    double u = lc_rng_uniform(s->seed, 0, a->count);
    size_t most = s->top_k > 0 ? (size_t)s->top_k : a->vocab;
    float least = s->min_p > 0 ? s->min_p * a->probs[a->heap[0]] : 0.0f;
    bool nucleus = s->top_p > 0 && s->top_p < 1;
    size_t kept;
    if (s->top_k > 0 || least > 0) { /* cut, then the nucleus of what is left */
        kept = pop_best(a, most, INFINITY, least, &mass);
    } else { /* stop where the nucleus, or the draw itself, ends */
        double enough = (nucleus ? (double)s->top_p : u) * mass;
        double kept_mass;
        kept = pop_best(a, most, nucleus ? enough : nextafter(enough, INFINITY), 0.0f, &kept_mass);
        if (nucleus) mass = kept_mass;
    }
    if (nucleus && (s->top_k > 0 || least > 0)) {
        double enough = (double)s->top_p * mass, sum = 0;
        size_t n = 0;
        while (n < kept && (n == 0 || sum < enough))
            sum += (double)a->probs[a->heap[a->vocab - 1 - n++]];
        kept = n;
        mass = sum;
    }
    double target = u * mass, sum = 0;
    for (size_t j = 0; j < kept; j++) {
        sum += (double)a->probs[a->heap[a->vocab - 1 - j]];
        if (sum > target) return a->heap[a->vocab - 1 - j];
    }
    return a->heap[a->vocab - kept];
}
