/* test_mem.c: checked sizes, counted allocation, failing allocation, arenas. */
#include "base/mem.h"
#include "test.h"

static bool aligned(const void *p) { return (uintptr_t)p % 64 == 0; }

static void sizes_are_checked(void **state) {
    (void)state;
    size_t out = 7;
    assert_true(lc_size_add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX);
    assert_true(lc_size_mul(SIZE_MAX / 3, 3, &out) && out == SIZE_MAX / 3 * 3);
    assert_true(lc_size_align(1, 64, &out) && out == 64);
    assert_true(lc_size_align(64, 64, &out) && out == 64);
    assert_true(lc_size_align(0, 64, &out) && out == 0);
    out = 7;
    assert_false(lc_size_add(SIZE_MAX, 1, &out));
    assert_false(lc_size_mul(SIZE_MAX / 2, 3, &out));
    assert_false(lc_size_mul((size_t)1 << 32, (size_t)1 << 32, &out));
    assert_false(lc_size_align(SIZE_MAX - 62, 64, &out));
}

static void blocks_are_aligned_and_counted(void **state) {
    (void)state;
    size_t start = lc_mem_current();
    char *a = lc_alloc(1000), *b = lc_calloc(10, 100), *empty = lc_alloc(0);
    assert_true(a && b && empty);
    assert_true(aligned(a) && aligned(b) && aligned(empty));
    for (int i = 0; i < 1000; i++) assert_int_equal(b[i], 0);
    assert_int_equal(lc_mem_current(), start + 2000);
    assert_true(lc_mem_peak() >= start + 2000);
    memset(a, 'x', 1000);
    char *grown = lc_realloc(a, 3, 1000);
    assert_true(grown && aligned(grown));
    for (int i = 0; i < 1000; i++) assert_int_equal(grown[i], 'x');
    char *shrunk = lc_realloc(grown, 1, 10);
    assert_non_null(shrunk);
    assert_memory_equal(shrunk, "xxxxxxxxxx", 10);
    assert_int_equal(lc_mem_current(), start + 1010);
    lc_free(shrunk);
    lc_free(b);
    lc_free(empty);
    lc_free(NULL);
    assert_int_equal(lc_mem_current(), start);
}

static void impossible_sizes_give_null(void **state) {
    (void)state;
    size_t start = lc_mem_current();
    char *block = lc_alloc(8);
    assert_non_null(block);
    memcpy(block, "kept", 5);
    assert_null(lc_alloc(SIZE_MAX));
    assert_null(lc_alloc(SIZE_MAX - 100));
    assert_null(lc_calloc(SIZE_MAX / 2, 3));
    assert_null(lc_realloc(block, SIZE_MAX / 2, 3));
    assert_null(lc_strndup("x", SIZE_MAX));
    assert_string_equal(block, "kept"); /* a failed realloc leaves the block */
    lc_free(block);
    assert_int_equal(lc_mem_current(), start);
}

static void strings_are_copied(void **state) {
    (void)state;
    char *whole = lc_strdup("hello"), *part = lc_strndup("hello", 3), *nothing = lc_strdup("");
    assert_string_equal(whole, "hello");
    assert_string_equal(part, "hel");
    assert_string_equal(nothing, "");
    lc_free(whole);
    lc_free(part);
    lc_free(nothing);
}

static void the_nth_allocation_fails_and_all_after_it(void **state) {
    (void)state;
    void *blocks[4];
    lc_mem_fail_after(2);
    for (int i = 0; i < 4; i++) blocks[i] = lc_alloc(1);
    lc_mem_fail_after(-1);
    assert_true(blocks[0] && blocks[1] && !blocks[2] && !blocks[3]);
    lc_free(blocks[0]);
    lc_free(blocks[1]);
    void *after = lc_alloc(1);
    assert_non_null(after);
    lc_free(after);
}

static void arena_blocks_are_separate_and_aligned(void **state) {
    (void)state;
    lc_arena *arena = lc_arena_new(0);
    assert_non_null(arena);
    unsigned char *blocks[200];
    for (size_t i = 0; i < 200; i++) {
        blocks[i] = lc_arena_alloc(arena, i * 17);
        assert_true(blocks[i] && aligned(blocks[i]));
        memset(blocks[i], (int)i, i * 17);
    }
    for (size_t i = 0; i < 200; i++)
        for (size_t b = 0; b < i * 17; b++) assert_int_equal(blocks[i][b], i);
    int *zeros = lc_arena_calloc(arena, 100, sizeof *zeros);
    assert_non_null(zeros);
    for (int i = 0; i < 100; i++) assert_int_equal(zeros[i], 0);
    assert_string_equal(lc_arena_strndup(arena, "hello", 4), "hell");
    assert_null(lc_arena_alloc(arena, SIZE_MAX));
    assert_null(lc_arena_calloc(arena, SIZE_MAX / 2, 3));
    assert_null(lc_arena_strndup(arena, "x", SIZE_MAX));
    lc_arena_free(arena);
    lc_arena_free(NULL);
}

static void arena_has_a_limit(void **state) {
    (void)state;
    lc_arena *arena = lc_arena_new(1024);
    assert_non_null(arena);
    assert_non_null(lc_arena_alloc(arena, 1000));
    assert_null(lc_arena_alloc(arena, 1));
    assert_int_equal(lc_arena_used(arena), 1024);
    lc_arena_reset(arena);
    assert_int_equal(lc_arena_used(arena), 0);
    assert_int_equal(lc_arena_peak(arena), 1024);
    assert_non_null(lc_arena_alloc(arena, 1024));
    assert_null(lc_arena_alloc(arena, 1));
    lc_arena_free(arena);
}

/* After the first step the arena holds one chunk of the step's size: no more allocation. */
static void a_reset_arena_stops_allocating(void **state) {
    (void)state;
    size_t start = lc_mem_current();
    lc_arena *arena = lc_arena_new(0);
    assert_non_null(arena);
    for (int step = 0; step < 4; step++) {
        if (step == 1) lc_mem_fail_after(0);
        for (int i = 0; i < 50; i++) assert_non_null(lc_arena_alloc(arena, 5000));
        lc_arena_reset(arena);
    }
    lc_mem_fail_after(-1);
    lc_arena_free(arena);
    assert_int_equal(lc_mem_current(), start);
}

static void arenas_survive_failing_allocation(void **state) {
    (void)state;
    size_t start = lc_mem_current();
    for (long n = 0; n < 12; n++) {
        lc_mem_fail_after(n);
        lc_arena *arena = lc_arena_new(0);
        for (int i = 0; arena && i < 20; i++) {
            char *block = lc_arena_alloc(arena, 3000);
            if (block) memset(block, 1, 3000);
            if (i == 10) lc_arena_reset(arena);
        }
        lc_arena_free(arena);
        lc_mem_fail_after(-1);
        assert_int_equal(lc_mem_current(), start);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(blocks_are_aligned_and_counted),
        cmocka_unit_test(impossible_sizes_give_null),
        cmocka_unit_test(strings_are_copied),
        cmocka_unit_test(the_nth_allocation_fails_and_all_after_it),
        cmocka_unit_test(arena_blocks_are_separate_and_aligned),
        cmocka_unit_test(arena_has_a_limit),
        cmocka_unit_test(a_reset_arena_stops_allocating),
        cmocka_unit_test(arenas_survive_failing_allocation),
    };
    return test_main(tests);
}
