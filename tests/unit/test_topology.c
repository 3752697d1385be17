/* test_topology.c: which CPUs a pool's threads get, on machines that hwloc simulates, and that a
 * pool binds its workers when it owns a machine of several nodes. */
#include "test.h"

#include "base/cpu.h"
#include "base/pool.h"
#include "base/topology.h"

#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

static void check(const char *machine, int allowed, int threads, const char *want) {
    int cpus[64];
    char got[256] = "none";
    if (lc_topology_spread(machine, allowed, threads, cpus)) {
        int at = 0;
        for (int i = 0; i < threads; i++)
            at += snprintf(got + at, sizeof got - (size_t)at, i ? " %d" : "%d", cpus[i]);
    }
    assert_string_equal(got, want);
}

static void several_nodes_are_filled_one_after_the_other(void **unused) {
    (void)unused;
    check("node:2 core:4 pu:2", 16, 16, "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15");
    /* as Linux numbers two sockets with two threads a core */
    check("node:2 core:2 pu:2(indexes=0,4,1,5,2,6,3,7)", 8, 8, "0 1 4 5 2 3 6 7");
    check("node:2 core:4 pu:1(indexes=0,2,4,6,1,3,5,7)", 8, 8, "0 2 4 6 1 3 5 7");
    check("package:2 node:2 core:2 pu:1", 8, 8, "0 1 2 3 4 5 6 7");
}

static void a_shared_machine_is_left_to_the_system(void **unused) {
    (void)unused;
    check("node:2 core:4 pu:2", 16, 15, "none"); /* fewer threads */
    check("node:2 core:4 pu:2", 8, 8, "none");   /* a mask or a quota */
    check("node:2 core:4 pu:2", 8, 16, "none");  /* more threads */
    check("node:2 core:4 pu:2", 32, 32, "none");
    check("node:1 core:8 pu:2", 16, 16, "none"); /* one node */
    check("core:8 pu:2", 16, 16, "none");
    check("node:2 pu:1", 1, 1, "none");
    check("nonsense", 2, 2, "none");
    /* two kinds of memory at the same CPUs are one place */
    check("package:1 [numa] [numa] core:4 pu:1", 4, 4, "none");
    check("package:2 [numa] [numa] core:2 pu:1", 4, 4, "0 1 2 3");
}

enum { MOST = 64 };
static atomic_int bound[MOST]; /* by thread: CPUs in its mask */
static atomic_int cpu_of[MOST];
static atomic_int arrived;

/* Each thread waits for all, so that each takes a piece. */
static void look(void *ctx, size_t begin, size_t end, int thread) {
    (void)begin, (void)end;
    cpu_set_t mask;
    assert_int_equal(sched_getaffinity(0, sizeof mask, &mask), 0);
    bound[thread] = CPU_COUNT(&mask);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &mask)) cpu_of[thread] = (int)cpu;
    atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < *(int *)ctx) sched_yield();
}

static void run_pool(const char *machine, int threads) {
    lc_pool *pool;
    lc_err err = {0};
    setenv("HWLOC_SYNTHETIC", machine, 1);
    setenv("HWLOC_THISSYSTEM", "1", 1);
    assert_ok(lc_pool_new(threads, &pool, &err), err);
    atomic_store(&arrived, 0);
    lc_pool_for(pool, (size_t)threads, 1, look, &threads);
    lc_pool_free(pool);
    unsetenv("HWLOC_SYNTHETIC");
    unsetenv("HWLOC_THISSYSTEM");
}

/* This machine's CPUs, told to be a node each. The caller's thread is its own. */
static void workers_are_bound(void **unused) {
    (void)unused;
    cpu_set_t mask;
    int cpus = lc_cpu_count();
    char machine[64];
    if (sched_getaffinity(0, sizeof mask, &mask) != 0 || cpus < 2 || cpus > MOST ||
        CPU_COUNT(&mask) != cpus)
        skip();
    if (access("/sys/devices/system/cpu", R_OK) != 0) skip(); /* nothing is bound then */
    for (size_t cpu = 0; cpu < (size_t)cpus; cpu++)
        if (!CPU_ISSET(cpu, &mask)) skip(); /* a part of a machine */
    snprintf(machine, sizeof machine, "node:%d pu:1", cpus);
    run_pool(machine, cpus);
    assert_int_equal(bound[0], cpus);
    for (int i = 1; i < cpus; i++) {
        assert_int_equal(bound[i], 1);
        assert_int_equal(cpu_of[i], i);
    }
    snprintf(machine, sizeof machine, "node:1 pu:%d", cpus);
    run_pool(machine, cpus);
    for (int i = 0; i < cpus; i++) assert_int_equal(bound[i], cpus);
    print_message("# %d CPUs\n", cpus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_nodes_are_filled_one_after_the_other),
        cmocka_unit_test(a_shared_machine_is_left_to_the_system),
        cmocka_unit_test(workers_are_bound),
    };
    return test_main(tests);
}
