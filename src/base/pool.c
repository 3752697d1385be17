/*
 * pool.c: the parallel loop.
 *
 * A loop is a job that stands in the pool while it is open. `state` holds its number, whether it is
 * open, and how many workers are inside; a worker joins by raising that count and only while the
 * job is open. The caller works too; when no piece is left it waits for the workers inside, closes
 * the job and returns. So a worker that wakes late, or that the system has put aside, delays
 * nobody: it finds the job closed and sleeps on. This matters on machines with more threads than
 * cores.
 *
 * Waiting is a short spin (the next loop of a forward pass comes within microseconds), then a
 * condition variable. With more threads than CPUs there is no spin at all.
 *
 * A pool that has a whole machine of several NUMA nodes to itself binds its workers (topology.h),
 * so that what a thread has touched stays near it. The caller's thread is not ours to bind.
 *
 * Deliberately not here: nesting, futures, task graphs, work stealing.
 */
#include "base/pool.h"
#include "base/cpu.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/topology.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

enum { LC_POOL_MAX = 1024, LC_SPIN_NS = 50000 };

/* Fields of `state`: workers inside, the open flag, the job's number. */
#define STATE_INSIDE UINT64_C(0xffff)
#define STATE_OPEN UINT64_C(0x10000)
#define STATE_JOB UINT64_C(0x20000)

typedef struct worker {
    lc_pool *pool;
    int number, cpu; /* the CPU to run on; -1: any */
    pthread_t thread;
} worker;

struct lc_pool {
    pthread_mutex_t callers; /* held for a whole lc_pool_for */
    pthread_mutex_t lock;    /* for the two conditions only */
    pthread_cond_t wake;     /* a job was opened, or stop */
    pthread_cond_t done;     /* the last worker left a job */
    worker *workers;
    int threads;
    bool spin;
    /* The open job. Written only while no job is open. */
    lc_pool_task *task;
    void *ctx;
    size_t n, grain, pieces;
    /* What several threads write has cache lines of its own. */
    _Alignas(64) _Atomic uint64_t state;
    atomic_bool stop;
    atomic_int sleepers;      /* workers that wait for `wake` or are about to */
    atomic_bool caller_waits; /* the caller waits for `done` or is about to */
    _Alignas(64) atomic_size_t next;
};

static void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What a thread waits for; both read the pool's atomics only. */
typedef bool pool_condition(lc_pool *pool, uint64_t arg);

/* Spins for at most LC_SPIN_NS. Returns whether the condition came true. */
static bool spin_until(lc_pool *pool, pool_condition *condition, uint64_t arg) {
    if (condition(pool, arg)) return true;
    if (!pool->spin) return false;
    uint64_t end = now_ns() + LC_SPIN_NS;
    do {
        for (int i = 0; i < 64; i++) {
            cpu_relax();
            if (condition(pool, arg)) return true;
        }
    } while (now_ns() < end);
    return false;
}

static void run_pieces(lc_pool *pool, int thread) {
    for (;;) {
        size_t piece = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (piece >= pool->pieces) return;
        size_t begin = piece * pool->grain;
        size_t rest = pool->n - begin;
        pool->task(pool->ctx, begin, begin + (rest < pool->grain ? rest : pool->grain), thread);
    }
}

/* A job other than `seen` was opened (it may be closed again by now), or the pool stops. */
static bool job_is_new(lc_pool *pool, uint64_t seen) {
    return (atomic_load(&pool->state) / STATE_JOB) != seen || atomic_load(&pool->stop);
}

static bool job_is_empty(lc_pool *pool, uint64_t unused) {
    (void)unused;
    return (atomic_load(&pool->state) & STATE_INSIDE) == 0;
}

/* Enters the job if it is open, works, leaves. Stores the job's number in *seen. */
static void work(lc_pool *pool, int number, uint64_t *seen) {
    uint64_t state = atomic_load(&pool->state);
    do {
        *seen = state / STATE_JOB;
        if (!(state & STATE_OPEN)) return;
    } while (!atomic_compare_exchange_weak(&pool->state, &state, state + 1));
    run_pieces(pool, number);
    uint64_t before = atomic_fetch_sub(&pool->state, 1);
    if ((before & STATE_INSIDE) == 1 && atomic_load(&pool->caller_waits)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
}

/* Placement is for speed only: a refusal is no error. */
static void bind_thread(int cpu) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET((size_t)cpu, &mask);
    pthread_setaffinity_np(pthread_self(), sizeof mask, &mask);
}

static void *worker_main(void *arg) {
    worker *self = arg;
    lc_pool *pool = self->pool;
    uint64_t seen = 0;
    if (self->cpu >= 0) bind_thread(self->cpu);
    lc_fp_enter(); /* for the life of the thread */
    for (;;) {
        if (!spin_until(pool, job_is_new, seen)) {
            /* First the count, then the look at the state; the caller does it the other way round.
             * So one of the two sees the other (sequentially consistent atomics). */
            pthread_mutex_lock(&pool->lock);
            atomic_fetch_add(&pool->sleepers, 1);
            while (!job_is_new(pool, seen)) pthread_cond_wait(&pool->wake, &pool->lock);
            atomic_fetch_sub(&pool->sleepers, 1);
            pthread_mutex_unlock(&pool->lock);
        }
        if (atomic_load(&pool->stop)) return NULL;
        work(pool, self->number, &seen);
    }
}

static void wake_all(lc_pool *pool) {
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

/* Waits until no worker is inside, then closes the job. No piece is left by now, so a worker that
 * still joins leaves at once. */
static void close_job(lc_pool *pool) {
    for (;;) {
        if (!spin_until(pool, job_is_empty, 0)) {
            pthread_mutex_lock(&pool->lock);
            atomic_store(&pool->caller_waits, true);
            while (!job_is_empty(pool, 0)) pthread_cond_wait(&pool->done, &pool->lock);
            atomic_store(&pool->caller_waits, false);
            pthread_mutex_unlock(&pool->lock);
        }
        uint64_t state = atomic_load(&pool->state);
        if ((state & STATE_INSIDE) == 0 &&
            atomic_compare_exchange_strong(&pool->state, &state, state & ~STATE_OPEN))
            return;
    }
}

static void run_serial(size_t n, size_t grain, lc_pool_task *task, void *ctx) {
    for (size_t begin = 0; begin < n;) {
        size_t end = n - begin < grain ? n : begin + grain;
        task(ctx, begin, end, 0);
        begin = end;
    }
}

static void run_parallel(lc_pool *pool, size_t n, size_t grain, lc_pool_task *task, void *ctx) {
    pool->task = task;
    pool->ctx = ctx;
    pool->n = n;
    pool->grain = grain;
    pool->pieces = n / grain + (n % grain != 0);
    atomic_store(&pool->next, 0);
    uint64_t state = atomic_load(&pool->state);
    atomic_store(&pool->state, (state | STATE_OPEN) + STATE_JOB);
    wake_all(pool);
    run_pieces(pool, 0);
    close_job(pool);
}

void lc_pool_for(lc_pool *pool, size_t n, size_t grain, lc_pool_task *task, void *ctx) {
    if (n == 0) return;
    if (grain == 0) grain = 1;
    if (pool) pthread_mutex_lock(&pool->callers);
    uint64_t fp = lc_fp_enter();
    if (!pool || pool->threads == 1 || n <= grain)
        run_serial(n, grain, task, ctx);
    else
        run_parallel(pool, n, grain, task, ctx);
    lc_fp_leave(fp);
    if (pool) pthread_mutex_unlock(&pool->callers);
}

/* Ends the first `started` workers. */
static void stop_workers(lc_pool *pool, int started) {
    atomic_store(&pool->stop, true);
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < started; i++) pthread_join(pool->workers[i].thread, NULL);
}

static void pool_release(lc_pool *pool) {
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->callers);
    lc_free(pool->workers);
    lc_free(pool);
}

/* Starts threads - 1 workers. They take no signals, which are for the program's own threads, but
 * those of their own faults, so that a handler for these (a sanitizer's, a test's) sees them. */
static int start_workers(lc_pool *pool, int allowed, lc_err *err) {
    static const int faults[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV};
    sigset_t others, old;
    int cpus[LC_POOL_MAX];
    bool bind = lc_topology_spread(NULL, allowed, pool->threads, cpus);
    sigfillset(&others);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&others, faults[i]);
    pthread_sigmask(SIG_SETMASK, &others, &old);
    int started = 0, code = 0;
    for (; started < pool->threads - 1; started++) {
        worker *w = &pool->workers[started];
        w->pool = pool;
        w->number = started + 1;
        w->cpu = bind ? cpus[w->number] : -1;
        code = pthread_create(&w->thread, NULL, worker_main, w);
        if (code != 0) break;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (code == 0) return LC_OK;
    stop_workers(pool, started);
    errno = code;
    return lc_fail_errno(err, LC_ELIMIT, "thread pool: starting thread %d of %d", started + 2,
                         pool->threads);
}

int lc_pool_new(int threads, lc_pool **out, lc_err *err) {
    *out = NULL;
    if (threads < 0 || threads > LC_POOL_MAX)
        return lc_fail(err, LC_EINVAL, "thread pool: %d threads; 0 to %d are possible", threads,
                       LC_POOL_MAX);
    int cpus = lc_cpu_count();
    if (threads == 0) threads = cpus < LC_POOL_MAX ? cpus : LC_POOL_MAX;
    lc_pool *pool = lc_calloc(1, sizeof *pool);
    if (!pool) return lc_fail(err, LC_ENOMEM, "thread pool: out of memory");
    pool->threads = threads;
    pool->spin = threads <= cpus;
    pthread_mutex_init(&pool->callers, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->workers = lc_calloc((size_t)threads, sizeof *pool->workers);
    int code = pool->workers ? start_workers(pool, cpus, err)
                             : lc_fail(err, LC_ENOMEM, "thread pool: out of memory");
    if (code != LC_OK) {
        pool_release(pool);
        return code;
    }
    *out = pool;
    return LC_OK;
}

void lc_pool_free(lc_pool *pool) {
    if (!pool) return;
    stop_workers(pool, pool->threads - 1);
    pool_release(pool);
}

int lc_pool_threads(const lc_pool *pool) { return pool ? pool->threads : 1; }
