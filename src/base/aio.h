/*
 * aio.h: asynchronous file reads, for weights, n-gram rows and KV pages that live on the disk.
 *
 * One lc_aio serves the process. Each user (the expert cache, the row cache, ...) has a queue of
 * its own: it submits reads, goes on computing, and later takes the completions of its own reads
 * only. Waiting reads of several queues are served in turn, so a long queue doesn't starve a short
 * one.
 *
 * The contract is what an io_uring gives as well as a pool of pread threads: no order among
 * completions, a fixed depth, no allocation after creation, one thread at a time on a queue.
 * Writes, cancellation of single reads and priorities are deliberately not here.
 */
#ifndef LC_BASE_AIO_H
#define LC_BASE_AIO_H

#include "longcat.h"

typedef struct lc_aio lc_aio;
typedef struct lc_aio_queue lc_aio_queue;

typedef struct lc_aio_read {
    int fd; /* must stay open, and buffer valid and untouched, until the completion was taken */
    uint64_t offset;
    size_t size;
    void *buffer;
    void *user; /* handed back in the completion */
} lc_aio_read;

typedef struct lc_aio_done {
    void *user;
    size_t size; /* bytes in the buffer; less than asked for means end of file, or an error */
    int error;   /* 0 or an errno value */
} lc_aio_done;

/* threads = reads in flight at the disk, 1 to 256; 0 = 16, about what a consumer NVMe needs for its
 * full rate. All queues must be freed before the lc_aio is. */
int lc_aio_new(int threads, lc_aio **out, lc_err *err);
void lc_aio_free(lc_aio *aio);

/* depth = reads that were submitted and whose completions were not taken yet; 1 to 65,536. */
int lc_aio_queue_new(lc_aio *aio, size_t depth, lc_aio_queue **out, lc_err *err);
/* Drops reads that were not begun and waits for those that were; completions not taken are lost. */
void lc_aio_queue_free(lc_aio_queue *queue);

/* Submits the first reads of a list and returns how many fitted into the queue. Never blocks. Bad
 * reads (closed fd, bad offset) are accepted and fail in their completion. */
size_t lc_aio_submit(lc_aio_queue *queue, const lc_aio_read *reads, size_t n);

/* Takes up to `max` completions, blocking until at least `min` can be returned; min is lowered to
 * max and to what is in the queue, so waiting for nothing returns at once. Short reads were
 * completed already: a read ends when it is full, at the end of the file, or with an error. With
 * O_DIRECT a read that ends inside a block of the disk counts as the end of the file. */
size_t lc_aio_wait(lc_aio_queue *queue, size_t min, lc_aio_done *done, size_t max);

/* Submitted and not taken. */
size_t lc_aio_pending(const lc_aio_queue *queue);

#endif
