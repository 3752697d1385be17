/*
 * machine.c: read bandwidth and instruction peaks.
 *
 * A read is a sum over 64-bit words by vector loads, handed out in pieces of 4 MiB, as weights
 * are. One walk goes straight on, the other through four places of the piece at a time, as
 * products read several rows; which one is faster differs among machines.
 */
#include "engine/machine.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/err.h"
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { PIECE = 4 << 20 };
static const size_t LEAST_BUFFER = (size_t)1 << 30;

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

lc_spread lc_spread_of(double *values, size_t n) {
    if (!n) return (lc_spread){0};
    qsort(values, n, sizeof *values, compare);
    double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    return (lc_spread){values[0], median, values[n - 1], n};
}

/* ---- memory ---- */

static size_t default_bytes(void) {
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t want = cache > 0 ? 4 * (size_t)cache : 0, most = lc_cpu_memory() / 8;
    if (want < LEAST_BUFFER) want = LEAST_BUFFER;
    if (want > most) want = most;
    return want < PIECE ? PIECE : want / PIECE * PIECE;
}

static void touch(void *ctx, size_t begin, size_t end, int thread) {
    char *data = ctx;
    (void)thread;
    for (size_t i = begin * PIECE; i < end * PIECE; i++) data[i] = (char)(i * 7);
}

int lc_read_buffer_new(size_t bytes, lc_pool *pool, lc_read_buffer *out, lc_err *err) {
    if (!bytes) bytes = default_bytes();
    bytes = (bytes + PIECE - 1) / PIECE * PIECE;
    *out = (lc_read_buffer){lc_alloc_dense(bytes, false), bytes};
    if (!out->data)
        return lc_fail(err, LC_ENOMEM, "read benchmark: no %zu bytes of memory left", bytes);
    lc_pool_for(pool, bytes / PIECE, 1, touch, out->data);
    return LC_OK;
}

void lc_read_buffer_free(lc_read_buffer *buffer) {
    lc_free(buffer->data);
    *buffer = (lc_read_buffer){0};
}

typedef uint64_t words __attribute__((vector_size(16)));

/* The four loads of a cache line. */
static inline words sum_line(const words *x) { return (x[0] + x[1]) + (x[2] + x[3]); }

/* n: words, a multiple of 16. Several sums, so that no addition waits for another. */
static words sum_straight(const words *x, size_t n) {
    words a = {0}, b = {0};
    for (const words *end = x + n; x < end; x += 8) {
        a += sum_line(x);
        b += sum_line(x + 4);
    }
    return a + b;
}

static words sum_streams(const words *x, size_t n) {
    words a = {0}, b = {0}, c = {0}, d = {0};
    size_t part = n / 4;
    for (const words *end = x + part; x < end; x += 4) {
        a += sum_line(x);
        b += sum_line(x + part);
        c += sum_line(x + 2 * part);
        d += sum_line(x + 3 * part);
    }
    return (a + b) + (c + d);
}

typedef struct read_task {
    const lc_read_buffer *buffer;
    bool streams;
    atomic_ullong sum; /* keeps the loads alive */
} read_task;

static void read_pieces(void *ctx, size_t begin, size_t end, int thread) {
    read_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const words *data = (const words *)(const void *)(t->buffer->data + i * PIECE);
        size_t n = PIECE / sizeof *data;
        words sum = t->streams ? sum_streams(data, n) : sum_straight(data, n);
        atomic_fetch_add_explicit(&t->sum, sum[0] ^ sum[1], memory_order_relaxed);
    }
}

double lc_read_rate(const lc_read_buffer *buffer, lc_pool *pool) {
    double best = 0;
    for (int way = 0; way < 2; way++) {
        read_task t = {.buffer = buffer, .streams = way == 1};
        uint64_t begin = lc_clock_ns();
        lc_pool_for(pool, buffer->bytes / PIECE, 1, read_pieces, &t);
        double rate = (double)buffer->bytes * 1e9 / (double)(lc_clock_ns() - begin + 1);
        if (rate > best) best = rate;
    }
    return best;
}

/* ---- instructions ---- */

typedef struct peak_task {
    const lc_peak *peak;
    size_t rounds;
} peak_task;

static void run_peak(void *ctx, size_t begin, size_t end, int thread) {
    const peak_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) t->peak->run(t->rounds);
}

static double time_peak(const peak_task *t, lc_pool *pool, size_t pieces) {
    uint64_t begin = lc_clock_ns();
    lc_pool_for(pool, pieces, 1, run_peak, (void *)t);
    return (double)(lc_clock_ns() - begin + 1) / 1e9;
}

double lc_peak_rate(const lc_peak *peak, lc_pool *pool, double seconds) {
    enum {
        PIECES = 16
    }; /* a thread: short enough for a fair share, long enough to be undisturbed */
    peak_task t = {peak, 1000};
    size_t pieces = (size_t)lc_pool_threads(pool) * PIECES;
    time_peak(&t, NULL, 1); /* warms up */
    double piece = time_peak(&t, NULL, 1), wanted = seconds / PIECES;
    if (piece < wanted) t.rounds = (size_t)((double)t.rounds * wanted / piece);
    double taken = time_peak(&t, pool, pieces);
    return peak->operations * (double)t.rounds * (double)pieces / taken;
}

double lc_peak_best(const lc_peak *peak, lc_pool *pool, double seconds) {
    double best = 0;
    for (int repeat = 0; repeat < 3; repeat++) {
        double rate = lc_peak_rate(peak, pool, seconds);
        if (rate > best) best = rate;
    }
    return best;
}

void lc_limits_measure(lc_pool *pool, double seconds, lc_limits *out) {
    out->n = lc_peaks(out->peaks);
    for (size_t i = 0; i < out->n; i++) out->rates[i] = lc_peak_best(out->peaks[i], pool, seconds);
}

lc_limit lc_limits_of(const lc_limits *limits, lc_isa isa, lc_peak_kind kind) {
    lc_limit best = {0};
    for (size_t i = 0; i < limits->n; i++)
        if (limits->peaks[i]->isa <= isa && limits->peaks[i]->kind <= kind &&
            limits->rates[i] > best.rate)
            best = (lc_limit){limits->peaks[i]->name, limits->rates[i], limits->peaks[i]};
    return best;
}
