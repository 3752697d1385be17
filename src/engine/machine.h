/*
 * machine.h: the limits of this machine, measured: how fast memory is read, how fast instructions
 * run on registers, how fast a disk delivers. Every other measurement is stated as a share of one
 * of these, taken in the same run with the same threads.
 */
#ifndef LC_ENGINE_MACHINE_H
#define LC_ENGINE_MACHINE_H

#include "base/pool.h"
#include "kernels/peak.h"

/* Smallest, middle and largest of some repetitions. */
typedef struct lc_spread {
    double min, median, max;
    size_t count;
} lc_spread;

/* Sorts values; the median of an even number is the mean of the middle two. All 0 for n = 0. */
lc_spread lc_spread_of(double *values, size_t n);

/* ---- memory ---- */

/* Memory to read from. */
typedef struct lc_read_buffer {
    char *data;
    size_t bytes;
} lc_read_buffer;

/* bytes 0: far beyond the caches, that is four times the largest cache, at least 1 GiB, at most an
 * eighth of RAM. All pages are touched, by the pool's threads. */
int lc_read_buffer_new(size_t bytes, lc_pool *pool, lc_read_buffer *out, lc_err *err);
void lc_read_buffer_free(lc_read_buffer *buffer);
/* Bytes a second of one pass over the buffer with the pool's threads (NULL = one thread). Two ways
 * of walking it are tried, the better one counts. */
double lc_read_rate(const lc_read_buffer *buffer, lc_pool *pool);

/* ---- instructions ---- */

/* Operations a second of all threads of the pool (NULL = one) over about `seconds`. */
double lc_peak_rate(const lc_peak *peak, lc_pool *pool, double seconds);

/* What each instruction of this processor reaches. */
typedef struct lc_limits {
    const lc_peak *peaks[LC_PEAKS];
    double rates[LC_PEAKS]; /* operations a second */
    size_t n;
} lc_limits;
/* The best of three times `seconds`, for one instruction and for each. */
double lc_peak_best(const lc_peak *peak, lc_pool *pool, double seconds);
void lc_limits_measure(lc_pool *pool, double seconds, lc_limits *out);

/* The best of them for the kernels of an instruction set. Products of BF16 and of bytes may also be
 * done as those of a wider type. name NULL: there is none. */
typedef struct lc_limit {
    const char *name; /* instruction */
    double rate;      /* operations a second */
    const lc_peak *peak;
} lc_limit;
lc_limit lc_limits_of(const lc_limits *limits, lc_isa isa, lc_peak_kind kind);

/* ---- disk ---- */

typedef struct lc_disk_read {
    uint64_t bytes; /* read in one repetition */
    bool direct;    /* O_DIRECT was possible: the page cache had no part in it */
    lc_spread rate; /* bytes a second */
} lc_disk_read;

/* Reads the file, or the largest files of the folder, from the start, at most `most` bytes, with 16
 * reads of 1 MiB in flight, `repeat` times (at most 64). */
int lc_disk_read_rate(const char *path, uint64_t most, size_t repeat, lc_disk_read *out,
                      lc_err *err);

#endif
