/*
 * test_sample.c: sampling as a pure function, against a slow and plain reference: double
 * precision, a full sort, every cut written as its sentence in longcat.h.
 */
#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "engine/engine.h"

#include <math.h>

enum { VOCAB = 50, MOST_TOKENS = 40 };

static const lc_kernels *kernels;

/* What lc_sample works on. Scratch is filled with rubbish: it must not matter. */
typedef struct bench {
    float logits[VOCAB], probs[VOCAB];
    int32_t heap[VOCAB], tokens[MOST_TOKENS];
    size_t count, generated_from;
} bench;

static void fill(bench *b, uint64_t seed, double spread) {
    for (size_t i = 0; i < VOCAB; i++)
        b->logits[i] = (float)((lc_rng_uniform(seed, 1, i) - 0.5) * spread);
    for (size_t i = 0; i < MOST_TOKENS; i++)
        b->tokens[i] = (int32_t)(lc_rng_uniform(seed, 2, i) * VOCAB);
    b->count = 30;
    b->generated_from = 12;
}

/* b's logits stay as they are unless `after` wants to see what became of them. */
static int32_t draw(const bench *b, const lc_sampling *s, float *after) {
    bench work = *b;
    memset(work.probs, 0xa5, sizeof work.probs);
    memset(work.heap, 0x5a, sizeof work.heap);
    lc_sample_args args = {kernels,   VOCAB,       work.logits, work.probs,
                           work.heap, work.tokens, work.count,  work.generated_from};
    uint64_t fp = lc_fp_enter();
    int32_t token = lc_sample(s, &args);
    lc_fp_leave(fp);
    if (after) memcpy(after, work.logits, sizeof work.logits);
    assert_true(token >= 0 && token < VOCAB);
    return token;
}

/* ---- the reference ---- */

static void penalise(const bench *b, const lc_sampling *s, double out[VOCAB]) {
    for (size_t id = 0; id < VOCAB; id++) {
        size_t seen = 0, generated = 0;
        for (size_t i = 0; i < b->count; i++) {
            seen += b->tokens[i] == (int32_t)id;
            generated += i >= b->generated_from && b->tokens[i] == (int32_t)id;
        }
        double x = (double)b->logits[id], p = (double)s->repetition_penalty;
        if (seen && p > 0) x = x > 0 ? x / p : x * p;
        if (generated) x -= (double)s->presence_penalty;
        x -= (double)s->frequency_penalty * (double)generated;
        for (size_t i = 0; i < s->n_bias; i++)
            if (s->bias[i].token == (int32_t)id) x += (double)s->bias[i].bias;
        out[id] = x;
    }
}

/* Tokens that may be drawn, best first, with their probabilities. */
typedef struct cut {
    size_t n;
    int32_t ids[VOCAB];
    double probs[VOCAB];
    double closest; /* of the decisions made here: how near to a limit one was */
} cut;

static void normalise(cut *c) {
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) sum += c->probs[i];
    for (size_t i = 0; i < c->n; i++) c->probs[i] /= sum;
}

static void cut_reference(const bench *b, const lc_sampling *s, cut *c) {
    double x[VOCAB], max = -INFINITY;
    penalise(b, s, x);
    for (size_t i = 0; i < VOCAB; i++) max = fmax(max, x[i]);
    c->n = VOCAB;
    c->closest = 1;
    for (size_t i = 0; i < VOCAB; i++) { /* insertion sort: equal ones keep the order of ids */
        double p = exp((x[i] - max) / (double)s->temperature);
        size_t at = i;
        for (; at > 0 && c->probs[at - 1] < p; at--) {
            c->probs[at] = c->probs[at - 1];
            c->ids[at] = c->ids[at - 1];
        }
        c->probs[at] = p;
        c->ids[at] = (int32_t)i;
    }
    if (s->top_k > 0 && (size_t)s->top_k < c->n) c->n = (size_t)s->top_k;
    normalise(c);
    if (s->top_p > 0 && s->top_p < 1) { /* the smallest set of best tokens with this mass */
        double mass = 0;
        size_t n = 0;
        while (n < c->n && mass < (double)s->top_p) {
            mass += c->probs[n++];
            c->closest = fmin(c->closest, fabs(mass - (double)s->top_p));
        }
        c->n = n;
    }
    if (s->min_p > 0) { /* at least this share of the best one's probability */
        size_t n = 0;
        for (; n < c->n; n++) {
            double share = c->probs[n] / c->probs[0];
            if (n > 0) c->closest = fmin(c->closest, fabs(share - (double)s->min_p));
            if (share < (double)s->min_p) break;
        }
        c->n = n;
    }
    normalise(c);
}

/* ---- tests ---- */

static void greedy_takes_the_best_and_lowest(void **unused) {
    (void)unused;
    bench b;
    lc_sampling s = {0};
    fill(&b, 1, 10);
    b.logits[31] = b.logits[17] = b.logits[40] = 7;
    assert_int_equal(draw(&b, &s, NULL), 17);
    b.logits[40] = 7.0001f;
    assert_int_equal(draw(&b, &s, NULL), 40);
    for (size_t i = 0; i < VOCAB; i++) b.logits[i] = i % 2 ? 0.0f : -0.0f;
    assert_int_equal(draw(&b, &s, NULL), 0); /* 0.0 and -0.0 are equal */
    for (size_t i = 0; i < VOCAB; i++) b.logits[i] = -INFINITY;
    b.logits[23] = -1e30f;
    assert_int_equal(draw(&b, &s, NULL), 23);
    float lone = 3;
    assert_int_equal(lc_argmax(&lone, 1), 0);
}

/* Draws at 40,000 positions against the softmax: chi-square with K - 1 degrees of freedom has mean
 * K - 1 and variance 2 (K - 1); five deviations are allowed. The draws are the same in every run.
 */
static void draws_follow_the_softmax(void **unused) {
    (void)unused;
    enum { DRAWS = 40000 };
    static const float temperatures[] = {0.5f, 1.0f, 1.7f};
    for (size_t t = 0; t < 3; t++) {
        bench b;
        cut want;
        size_t seen[VOCAB] = {0};
        lc_sampling s = {.temperature = temperatures[t], .seed = 99 + t};
        fill(&b, 3, 6);
        cut_reference(&b, &s, &want);
        for (b.count = 1; b.count <= DRAWS; b.count++) seen[draw(&b, &s, NULL)]++;
        double chi = 0, rest = 0, rest_seen = 0, classes = 0;
        for (size_t i = 0; i < want.n; i++) {
            double expected = want.probs[i] * DRAWS, n = (double)seen[want.ids[i]];
            if (expected >= 10) {
                chi += (n - expected) * (n - expected) / expected;
                classes++;
            } else {
                rest += expected;
                rest_seen += n;
            }
        }
        if (rest >= 10) {
            chi += (rest_seen - rest) * (rest_seen - rest) / rest;
            classes++;
        }
        printf("# temperature %.1f: chi-square %.1f with %.0f classes\n", (double)temperatures[t],
               chi, classes);
        assert_true(classes > 10 && chi < classes - 1 + 5 * sqrt(2 * (classes - 1)));
        assert_true(chi > classes - 1 - 5 * sqrt(2 * (classes - 1)));
    }
}

/* Each setting at many positions: the token is the one that inverting the reference's cumulative
 * distribution at the same random number gives. */
static void check_cuts(const lc_sampling *base, size_t *compared, size_t *near) {
    for (uint64_t seed = 0; seed < 40; seed++) {
        bench b;
        cut want;
        lc_sampling s = *base;
        s.seed = seed;
        fill(&b, 100 + seed, 8);
        for (b.count = b.generated_from + 1; b.count < MOST_TOKENS; b.count += 3) {
            cut_reference(&b, &s, &want);
            double u = lc_rng_uniform(seed, 0, b.count), sum = 0, closest = want.closest;
            size_t at = 0;
            for (size_t i = 0; i < want.n; i++) {
                sum += want.probs[i];
                closest = fmin(closest, fabs(sum - u));
                if (sum <= u) at = i + 1;
            }
            int32_t token = draw(&b, &s, NULL);
            if (closest < 1e-5) { /* fp32 may decide otherwise */
                ++*near;
                continue;
            }
            assert_true(at < want.n);
            if (token != want.ids[at])
                fail_msg("k %d p %g min %g t %g: seed %d position %zu drew %d, expected %d",
                         s.top_k, (double)s.top_p, (double)s.min_p, (double)s.temperature,
                         (int)seed, b.count, token, want.ids[at]);
            ++*compared;
        }
    }
}

static void cuts_are_their_sentences(void **unused) {
    (void)unused;
    static const lc_logit_bias bias[] = {{3, 2.5f}, {20, -1}, {3, 0.25f}, {44, -INFINITY}};
    static const lc_sampling settings[] = {
        {.temperature = 1},
        {.temperature = 0.3f},
        {.temperature = 1, .top_k = 1},
        {.temperature = 1, .top_k = 5},
        {.temperature = 2, .top_k = 1000},
        {.temperature = 1, .top_p = 0.5f},
        {.temperature = 1.5f, .top_p = 0.95f},
        {.temperature = 1, .top_p = 1},
        {.temperature = 1, .top_p = 1e-6f},
        {.temperature = 1, .min_p = 0.2f},
        {.temperature = 1, .min_p = 1},
        {.temperature = 1, .top_k = 8, .top_p = 0.7f},
        {.temperature = 1.2f, .top_k = 8, .min_p = 0.1f},
        {.temperature = 1.5f, .top_p = 0.6f, .min_p = 0.3f},
        {.temperature = 1.5f, .top_k = 12, .top_p = 0.8f, .min_p = 0.15f},
        {.temperature = 0.9f, .repetition_penalty = 1.3f, .top_p = 0.9f},
        {.temperature = 1, .presence_penalty = 0.7f, .frequency_penalty = 0.4f, .top_k = 20},
        {.temperature = 1,
         .repetition_penalty = 0.8f,
         .frequency_penalty = -0.2f,
         .bias = bias,
         .n_bias = 4,
         .min_p = 0.02f},
    };
    size_t compared = 0, near = 0, n = sizeof settings / sizeof *settings;
    for (size_t i = 0; i < n; i++) check_cuts(&settings[i], &compared, &near);
    printf("# %zu settings: %zu draws equal, %zu too near a limit to compare\n", n, compared, near);
    assert_true(near * 50 < compared);
}

static void penalties_in_their_order(void **unused) {
    (void)unused;
    static const lc_logit_bias bias[] = {{0, 1}, {1, -1.5f}, {7, 0.5f}, {7, 0.5f}};
    static const lc_sampling settings[] = {
        {.repetition_penalty = 1.7f},
        {.presence_penalty = 0.6f},
        {.frequency_penalty = 0.25f},
        {.bias = bias, .n_bias = 4},
        {.repetition_penalty = 0.5f,
         .presence_penalty = -1,
         .frequency_penalty = 0.3f,
         .bias = bias,
         .n_bias = 4},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        bench b;
        double want[VOCAB];
        float got[VOCAB];
        fill(&b, 50 + i, 12);
        penalise(&b, &settings[i], want);
        draw(&b, &settings[i], got); /* greedy: the logits are left as penalised */
        for (size_t id = 0; id < VOCAB; id++) assert_true(fabs((double)got[id] - want[id]) <= 1e-5);
    }
    bench b;
    float got[VOCAB];
    lc_sampling off = {.repetition_penalty = 1};
    fill(&b, 60, 12);
    draw(&b, &off, got);
    assert_memory_equal(got, b.logits, sizeof got);
    b.generated_from = b.count; /* nothing generated: only repetition counts the prompt */
    lc_sampling presence = {.presence_penalty = 3, .frequency_penalty = 2};
    draw(&b, &presence, got);
    assert_memory_equal(got, b.logits, sizeof got);
}

/* The same seed, position and logits give the same token, on every instruction set; another seed or
 * position gives another stream. */
static void a_draw_is_a_pure_function(void **unused) {
    (void)unused;
    const lc_kernels *best = kernels;
    lc_sampling s = {.temperature = 1.3f, .top_p = 0.97f, .seed = 5};
    bench b;
    int32_t first[200];
    fill(&b, 9, 6);
    for (int isa = 0; isa < LC_ISA_COUNT; isa++) {
        kernels = lc_kernels_of((lc_isa)isa);
        if (!kernels) continue;
        for (size_t i = 0; i < 200; i++) {
            b.count = 1 + (i * 37) % 200; /* not in order: there is no state */
            int32_t token = draw(&b, &s, NULL);
            if (isa == LC_ISA_SCALAR) first[b.count - 1] = token;
            assert_int_equal(token, first[b.count - 1]);
        }
    }
    kernels = best;
    size_t same_seed = 0, same_position = 0;
    s.seed = 6;
    for (b.count = 1; b.count <= 200; b.count++)
        same_seed += draw(&b, &s, NULL) == first[b.count - 1];
    for (size_t i = 1; i < 200; i++) same_position += first[i] == first[i - 1];
    assert_true(same_seed < 100 && same_position < 100);
}

/* Tokens without probability are never drawn, and no temperature breaks the arithmetic. */
static void extremes(void **unused) {
    (void)unused;
    static const float temperatures[] = {1e-38f, 2e-38f, 1e-30f, 1e-5f, 1, 1e5f, 1e30f, 3e38f};
    for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++) {
        bench b;
        size_t seen[VOCAB] = {0}, kinds = 0;
        fill(&b, 20, 200);
        for (size_t i = 0; i < VOCAB; i += 2) b.logits[i] = -INFINITY;
        lc_sampling s = {.temperature = temperatures[t]};
        for (s.seed = 0; s.seed < 2000; s.seed++) seen[draw(&b, &s, NULL)]++;
        for (size_t i = 0; i < VOCAB; i++) kinds += seen[i] > 0;
        for (size_t i = 0; i < VOCAB; i += 2) assert_int_equal(seen[i], 0);
        if (temperatures[t] < 1e-3f) assert_int_equal(seen[lc_argmax(b.logits, VOCAB)], 2000);
        if (temperatures[t] >= 1e5f) assert_int_equal(kinds, VOCAB / 2); /* nearly uniform */
    }
    bench b;
    lc_sampling s = {.temperature = 1};
    for (size_t i = 0; i < VOCAB; i++) b.logits[i] = -INFINITY;
    b.count = b.generated_from = 0;
    draw(&b, &s, NULL); /* every token forbidden: any, but no crash */
    fill(&b, 21, 4);
    b.logits[5] = INFINITY;
    assert_int_equal(draw(&b, &s, NULL), 5);
}

int main(void) {
    kernels = lc_kernels_best((lc_isa)(LC_ISA_COUNT - 1), NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_best_and_lowest),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(cuts_are_their_sentences),
        cmocka_unit_test(penalties_in_their_order),
        cmocka_unit_test(a_draw_is_a_pure_function),
        cmocka_unit_test(extremes),
    };
    return test_main(tests);
}
