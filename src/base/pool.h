/*
 * pool.h: persistent worker threads and one parallel loop. Work is split over independent items
 * only (rows, columns, heads), so a result never depends on the number of threads. Every thread,
 * the caller's included, runs items with flush-to-zero and denormals-are-zero on
 * (docs/numerics.md); the caller's state is restored afterwards.
 */
#ifndef LC_BASE_POOL_H
#define LC_BASE_POOL_H

#include "longcat.h"

typedef struct lc_pool lc_pool;

/* threads includes the calling thread; 0 = the CPUs this process may use. At most 1,024. Workers
 * are bound to CPUs if topology.h says so. */
int lc_pool_new(int threads, lc_pool **out, lc_err *err);
void lc_pool_free(lc_pool *pool);
int lc_pool_threads(const lc_pool *pool);

/* Items [begin, end) on thread 0..threads-1 (for per-thread scratch). */
typedef void lc_pool_task(void *ctx, size_t begin, size_t end, int thread);

/* Runs items 0..n in pieces of `grain` (>= 1), handed out dynamically; returns when all are done.
 * Not reentrant: a task must not call it. pool NULL = serial, on thread 0. Calls from several
 * threads on one pool are serialised. */
void lc_pool_for(lc_pool *pool, size_t n, size_t grain, lc_pool_task *task, void *ctx);

#endif
