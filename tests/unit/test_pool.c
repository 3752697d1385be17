/* test_pool.c: the parallel loop. uses-threads */
#include "base/cpu.h"
#include "base/mem.h"
#include "base/pool.h"
#include "test.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { MAX_ITEMS = 4099, MAX_THREADS = 8 };

/* What a run of a loop did. Counts are not atomic on purpose: no item and no per-thread slot may be
 * touched by two threads, which ThreadSanitizer checks too. */
typedef struct loop_log {
    int seen[MAX_ITEMS];
    size_t per_thread[MAX_THREADS];
    size_t n, grain;
    int threads;
    atomic_int wrong;
} loop_log;

static void log_items(void *ctx, size_t begin, size_t end, int thread) {
    loop_log *log = ctx;
    bool good = begin < end && end <= log->n && begin % log->grain == 0 &&
                end - begin <= log->grain && thread >= 0 && thread < log->threads;
    if (!good) {
        log->wrong++;
        return;
    }
    for (size_t i = begin; i < end; i++) log->seen[i]++;
    log->per_thread[thread] += end - begin;
}

static void check_loop(lc_pool *pool, loop_log *log, size_t n, size_t grain) {
    memset(log, 0, sizeof *log);
    log->n = n;
    log->grain = grain;
    log->threads = lc_pool_threads(pool);
    lc_pool_for(pool, n, grain, log_items, log);
    size_t total = 0;
    for (int t = 0; t < MAX_THREADS; t++) total += log->per_thread[t];
    assert_int_equal(log->wrong, 0);
    assert_int_equal(total, n);
    for (size_t i = 0; i < MAX_ITEMS; i++) assert_int_equal(log->seen[i], i < n);
}

static void every_item_runs_once(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 7, 8, 9, 64, 101, 1000, MAX_ITEMS};
    static const size_t grains[] = {1, 2, 3, 7, 64, 1000, 5000};
    static loop_log log;
    int loops = 0;
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
        lc_pool *pool;
        lc_err err = {0};
        assert_ok(lc_pool_new(threads, &pool, &err), err);
        assert_int_equal(lc_pool_threads(pool), threads);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++, loops++)
                check_loop(pool, &log, sizes[s], grains[g]);
        lc_pool_free(pool);
    }
    printf("# %d loops with 1 to %d threads\n", loops, MAX_THREADS);
}

static void without_a_pool_the_loop_is_serial(void **state) {
    (void)state;
    static loop_log log;
    assert_int_equal(lc_pool_threads(NULL), 1);
    check_loop(NULL, &log, 1000, 7);
    check_loop(NULL, &log, 0, 1);
    assert_int_equal(log.per_thread[0], 0);
    lc_pool_free(NULL);
}

/* Many short loops in a row with pauses: the workers pass from spinning to sleeping and back. */
static void short_loops_with_pauses(void **state) {
    (void)state;
    static loop_log log;
    lc_pool *pool;
    lc_err err = {0};
    assert_ok(lc_pool_new(3, &pool, &err), err);
    for (int i = 0; i < 3000; i++) {
        check_loop(pool, &log, 5, 1);
        if (i % 100 == 0) nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    lc_pool_free(pool);
}

/* All threads must be in the loop at once, or it would not end: each waits for the others. */
static void wait_for_all(void *ctx, size_t begin, size_t end, int thread) {
    (void)begin, (void)end, (void)thread;
    atomic_int *missing = ctx;
    (*missing)--;
    while (*missing > 0) sched_yield();
}

static void threads_work_at_the_same_time(void **state) {
    (void)state;
    lc_pool *pool;
    lc_err err = {0};
    assert_ok(lc_pool_new(4, &pool, &err), err);
    for (int round = 0; round < 20; round++) {
        atomic_int missing = 4;
        lc_pool_for(pool, 4, 1, wait_for_all, &missing);
        assert_int_equal(missing, 0);
    }
    lc_pool_free(pool);
}

typedef struct fp_log {
    atomic_int missing; /* as in wait_for_all, so that every thread has an item */
    volatile float tiny, denormal;
    float product[4], scaled[4];
} fp_log;

/* 2^-100 * 2^-30 has a denormal result; 2^-140 * 2^100 a denormal operand. */
static void multiply(void *ctx, size_t begin, size_t end, int thread) {
    (void)end;
    fp_log *log = ctx;
    log->product[begin] = log->tiny * 0x1p-30f;
    log->scaled[begin] = log->denormal * 0x1p100f;
    wait_for_all(&log->missing, begin, end, thread);
}

static void check_fp(lc_pool *pool, size_t n) {
    fp_log log = {.missing = (int)n, .tiny = 0x1p-100f, .denormal = 0x1p-140f};
    lc_pool_for(pool, n, 1, multiply, &log);
    for (size_t i = 0; i < n; i++) {
        assert_true(log.product[i] == 0.0f);
        assert_true(log.scaled[i] == 0.0f);
    }
    assert_true(log.tiny * 0x1p-30f == 0x1p-130f); /* the caller's own mode is back */
    assert_true(log.denormal * 0x1p100f == 0x1p-40f);
}

static void denormals_are_flushed_inside_only(void **state) {
    (void)state;
#if defined(__x86_64__) || defined(__aarch64__)
    lc_pool *pool;
    lc_err err = {0};
    assert_ok(lc_pool_new(4, &pool, &err), err);
    check_fp(pool, 4);
    check_fp(pool, 1); /* the short path without workers */
    check_fp(NULL, 1);
    lc_pool_free(pool);
#else
    skip();
#endif
}

enum { CALLERS = 4, CALLS = 200 };

typedef struct shared_loop {
    lc_pool *pool;
    atomic_int inside; /* loops that run now, seen by their items */
    atomic_int overlaps;
    atomic_long items;
} shared_loop;

typedef struct caller {
    shared_loop *shared;
    atomic_int begun, running;
    pthread_t thread;
} caller;

static void count_overlap(void *ctx, size_t begin, size_t end, int thread) {
    (void)thread;
    caller *self = ctx;
    shared_loop *shared = self->shared;
    /* The first item of a loop to start counts it in, the last to end counts it out. */
    if (self->begun++ == 0) shared->inside++;
    if (shared->inside > 1) shared->overlaps++;
    shared->items += (long)(end - begin);
    if (--self->running == 0) shared->inside--;
}

static void *call_loops(void *arg) {
    caller *self = arg;
    for (int i = 0; i < CALLS; i++) {
        self->begun = 0;
        self->running = 16;
        lc_pool_for(self->shared->pool, 16, 1, count_overlap, self);
    }
    return NULL;
}

static void calls_from_several_threads_are_serialised(void **state) {
    (void)state;
    shared_loop shared = {0};
    lc_err err = {0};
    assert_ok(lc_pool_new(3, &shared.pool, &err), err);
    caller callers[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        callers[i].shared = &shared;
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_loops, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) pthread_join(callers[i].thread, NULL);
    assert_int_equal(shared.items, (long)CALLERS * CALLS * 16);
    assert_int_equal(shared.overlaps, 0);
    lc_pool_free(shared.pool);
}

static void limits_and_failures(void **state) {
    (void)state;
    lc_err err = {0};
    lc_pool *pool = (lc_pool *)&err;
    assert_int_equal(lc_pool_new(-1, &pool, &err), LC_EINVAL);
    assert_null(pool);
    assert_non_null(strstr(err.text, "-1 threads; 0 to 1024"));
    assert_int_equal(lc_pool_new(1025, &pool, &err), LC_EINVAL);
    assert_int_equal(lc_pool_new(1025, &pool, NULL), LC_EINVAL);
    assert_ok(lc_pool_new(0, &pool, &err), err);
    int expected = lc_cpu_count() < 1024 ? lc_cpu_count() : 1024;
    assert_int_equal(lc_pool_threads(pool), expected);
    lc_pool_free(pool);
    size_t before = lc_mem_current();
    for (long n = 0; n < 2; n++) {
        lc_mem_fail_after(n);
        assert_int_equal(lc_pool_new(4, &pool, &err), LC_ENOMEM);
        assert_null(pool);
    }
    lc_mem_fail_after(-1);
    assert_int_equal(lc_mem_current(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_runs_once),
        cmocka_unit_test(without_a_pool_the_loop_is_serial),
        cmocka_unit_test(short_loops_with_pauses),
        cmocka_unit_test(threads_work_at_the_same_time),
        cmocka_unit_test(denormals_are_flushed_inside_only),
        cmocka_unit_test(calls_from_several_threads_are_serialised),
        cmocka_unit_test(limits_and_failures),
    };
    return test_main(tests);
}
