/* test_rng.c: Philox against the known answers that Random123 ships (tests/kat_vectors). */
#include "base/rng.h"
#include "test.h"

typedef struct known_answer {
    uint32_t counter[4], key[2], expected[4];
} known_answer;

static const known_answer known[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static uint64_t join(const uint32_t pair[2]) { return (uint64_t)pair[1] << 32 | pair[0]; }

static void equals_the_published_vectors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const known_answer *k = &known[i];
        lc_rng_block block = lc_rng(join(k->key), join(k->counter + 2), join(k->counter));
        for (int w = 0; w < 4; w++) assert_int_equal(block.word[w], k->expected[w]);
    }
    printf("# Random123 vectors: %zu of %zu\n", sizeof known / sizeof *known,
           sizeof known / sizeof *known);
}

static void uniform_uses_53_bits_of_the_first_words(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const known_answer *k = &known[i];
        double u = lc_rng_uniform(join(k->key), join(k->counter + 2), join(k->counter));
        uint64_t bits = join(k->expected) >> 11;
        assert_true(u == (double)bits / 9007199254740992.0);
        assert_true(u >= 0.0 && u < 1.0);
    }
}

/* Mean and variance of 2^16 draws must lie within five standard errors of 1/2 and 1/12. */
static void uniform_has_the_moments_of_a_uniform(void **state) {
    (void)state;
    const int draws = 1 << 16;
    for (uint64_t stream = 0; stream < 4; stream++) {
        double sum = 0, squares = 0;
        for (uint64_t i = 0; i < (uint64_t)draws; i++) {
            double d = lc_rng_uniform(42, stream, i) - 0.5;
            sum += d;
            squares += d * d;
        }
        double mean_error = 5 * 0.28867513 / 256; /* 5 * sqrt(1/12) / sqrt(draws) */
        double var_error = 5 * 0.07453560 / 256;  /* 5 * sqrt(1/180) / sqrt(draws) */
        assert_true(sum / draws < mean_error && sum / draws > -mean_error);
        assert_true(squares / draws - 1.0 / 12 < var_error);
        assert_true(squares / draws - 1.0 / 12 > -var_error);
    }
}

static void seed_stream_and_counter_all_matter(void **state) {
    (void)state;
    for (int bit = 0; bit < 64; bit++) {
        uint64_t one = UINT64_C(1) << bit;
        lc_rng_block base = lc_rng(0, 0, 0);
        lc_rng_block others[] = {lc_rng(one, 0, 0), lc_rng(0, one, 0), lc_rng(0, 0, one)};
        for (int i = 0; i < 3; i++) {
            assert_memory_not_equal(&base, &others[i], sizeof base);
            assert_memory_not_equal(&others[i], &others[(i + 1) % 3], sizeof base);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_published_vectors),
        cmocka_unit_test(uniform_uses_53_bits_of_the_first_words),
        cmocka_unit_test(uniform_has_the_moments_of_a_uniform),
        cmocka_unit_test(seed_stream_and_counter_all_matter),
    };
    return test_main(tests);
}
