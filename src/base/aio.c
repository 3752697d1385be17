/*
 * aio.c: asynchronous reads by a pool of threads that call pread. This works on every kernel and
 * file system, also where containers forbid io_uring; what it costs is one thread per read in
 * flight.
 *
 * One lock guards everything: a read takes microseconds at least, taking it from a list
 * nanoseconds. A queue's reads live in slots that were allocated with it; a slot is on exactly one
 * of three lists of its queue (free, waiting, finished) or in the hands of one thread. Queues with
 * waiting reads stand in a ring: a thread takes the first read of the first queue and puts that
 * queue at the ring's end.
 */
#include "base/aio.h"
#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

enum { LC_AIO_THREADS = 16, LC_AIO_MAX_THREADS = 256, LC_AIO_MAX_DEPTH = 65536 };

typedef struct slot {
    struct slot *next;
    lc_aio_read read;
    size_t got;
    int error;
} slot;

typedef struct slot_list {
    slot *first, *last;
    size_t count;
} slot_list;

struct lc_aio_queue {
    lc_aio *aio;
    slot *slots;
    slot_list idle, waiting, finished;
    size_t depth, reading; /* reading = slots that threads hold */
    pthread_cond_t done;
    lc_aio_queue *ring_next; /* NULL while not in the ring */
};

struct lc_aio {
    pthread_mutex_t lock;
    pthread_cond_t work;
    lc_aio_queue *ring_last; /* of a circular list; NULL = empty */
    bool stop;
    int threads;
    pthread_t ids[LC_AIO_MAX_THREADS];
};

static void list_push(slot_list *list, slot *s) {
    s->next = NULL;
    if (list->last)
        list->last->next = s;
    else
        list->first = s;
    list->last = s;
    list->count++;
}

static slot *list_pop(slot_list *list) {
    slot *s = list->first;
    if (!s) return NULL;
    list->first = s->next;
    if (!list->first) list->last = NULL;
    list->count--;
    return s;
}

static void ring_push(lc_aio *aio, lc_aio_queue *queue) {
    lc_aio_queue *last = aio->ring_last;
    queue->ring_next = last ? last->ring_next : queue;
    if (last) last->ring_next = queue;
    aio->ring_last = queue;
}

/* Takes out the queue after `before`. */
static lc_aio_queue *ring_take(lc_aio *aio, lc_aio_queue *before) {
    lc_aio_queue *queue = before->ring_next;
    before->ring_next = queue->ring_next;
    if (aio->ring_last == queue) aio->ring_last = queue == before ? NULL : before;
    queue->ring_next = NULL;
    return queue;
}

static void ring_remove(lc_aio *aio, lc_aio_queue *queue) {
    if (!queue->ring_next) return;
    lc_aio_queue *before = queue;
    while (before->ring_next != queue) before = before->ring_next;
    ring_take(aio, before);
}

/* Reads until full, end of file or error. */
static void read_slot(slot *s) {
    const lc_aio_read *r = &s->read;
    s->got = 0;
    s->error = 0;
    if (r->offset > (uint64_t)INT64_MAX || r->size > (uint64_t)INT64_MAX - r->offset) {
        s->error = EINVAL;
        return;
    }
    while (s->got < r->size) {
        off_t offset = (off_t)(r->offset + s->got);
        ssize_t n = pread(r->fd, (char *)r->buffer + s->got, r->size - s->got, offset);
        if (n < 0 && errno == EINTR) continue;
        /* After a short read with O_DIRECT the next offset is not aligned, which the kernel refuses
         * instead of saying that the file has ended. */
        bool direct_end = n < 0 && errno == EINVAL && s->got > 0;
        if (n < 0 && !direct_end) s->error = errno;
        if (n <= 0) return;
        s->got += (size_t)n;
    }
}

static void *reader_main(void *arg) {
    lc_aio *aio = arg;
    pthread_mutex_lock(&aio->lock);
    for (;;) {
        while (!aio->ring_last && !aio->stop) pthread_cond_wait(&aio->work, &aio->lock);
        if (aio->stop) break;
        lc_aio_queue *queue = ring_take(aio, aio->ring_last);
        slot *s = list_pop(&queue->waiting);
        if (queue->waiting.first) ring_push(aio, queue);
        queue->reading++;
        pthread_mutex_unlock(&aio->lock);
        read_slot(s);
        pthread_mutex_lock(&aio->lock);
        list_push(&queue->finished, s);
        queue->reading--;
        pthread_cond_signal(&queue->done);
    }
    pthread_mutex_unlock(&aio->lock);
    return NULL;
}

/* Ends the first `started` threads and frees everything. */
static void aio_release(lc_aio *aio, int started) {
    pthread_mutex_lock(&aio->lock);
    aio->stop = true;
    pthread_cond_broadcast(&aio->work);
    pthread_mutex_unlock(&aio->lock);
    for (int i = 0; i < started; i++) pthread_join(aio->ids[i], NULL);
    pthread_cond_destroy(&aio->work);
    pthread_mutex_destroy(&aio->lock);
    lc_free(aio);
}

int lc_aio_new(int threads, lc_aio **out, lc_err *err) {
    *out = NULL;
    if (threads < 0 || threads > LC_AIO_MAX_THREADS)
        return lc_fail(err, LC_EINVAL, "asynchronous reads: %d threads; 0 to %d are possible",
                       threads, LC_AIO_MAX_THREADS);
    lc_aio *aio = lc_calloc(1, sizeof *aio);
    if (!aio) return lc_fail(err, LC_ENOMEM, "asynchronous reads: out of memory");
    aio->threads = threads ? threads : LC_AIO_THREADS;
    pthread_mutex_init(&aio->lock, NULL);
    pthread_cond_init(&aio->work, NULL);
    sigset_t all, old; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int started = 0, code = 0;
    while (started < aio->threads &&
           (code = pthread_create(&aio->ids[started], NULL, reader_main, aio)) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (code != 0) {
        aio_release(aio, started);
        errno = code;
        return lc_fail_errno(err, LC_ELIMIT, "asynchronous reads: starting thread %d", started + 1);
    }
    *out = aio;
    return LC_OK;
}

void lc_aio_free(lc_aio *aio) {
    if (aio) aio_release(aio, aio->threads);
}

int lc_aio_queue_new(lc_aio *aio, size_t depth, lc_aio_queue **out, lc_err *err) {
    *out = NULL;
    if (depth < 1 || depth > LC_AIO_MAX_DEPTH)
        return lc_fail(err, LC_EINVAL, "asynchronous reads: a depth of %zu; 1 to %d are possible",
                       depth, LC_AIO_MAX_DEPTH);
    lc_aio_queue *queue = lc_calloc(1, sizeof *queue);
    slot *slots = lc_calloc(depth, sizeof *slots);
    if (!queue || !slots) {
        lc_free(slots);
        lc_free(queue);
        return lc_fail(err, LC_ENOMEM, "asynchronous reads: out of memory");
    }
    queue->aio = aio;
    queue->slots = slots;
    queue->depth = depth;
    for (size_t i = 0; i < depth; i++) list_push(&queue->idle, &slots[i]);
    pthread_cond_init(&queue->done, NULL);
    *out = queue;
    return LC_OK;
}

void lc_aio_queue_free(lc_aio_queue *queue) {
    if (!queue) return;
    lc_aio *aio = queue->aio;
    pthread_mutex_lock(&aio->lock);
    ring_remove(aio, queue);
    while (queue->reading > 0) pthread_cond_wait(&queue->done, &aio->lock);
    pthread_mutex_unlock(&aio->lock);
    pthread_cond_destroy(&queue->done);
    lc_free(queue->slots);
    lc_free(queue);
}

size_t lc_aio_submit(lc_aio_queue *queue, const lc_aio_read *reads, size_t n) {
    lc_aio *aio = queue->aio;
    size_t taken = 0;
    pthread_mutex_lock(&aio->lock);
    for (slot *s; taken < n && (s = list_pop(&queue->idle)); taken++) {
        s->read = reads[taken];
        list_push(&queue->waiting, s);
    }
    if (taken > 0) {
        if (!queue->ring_next) ring_push(aio, queue);
        if (taken == 1)
            pthread_cond_signal(&aio->work);
        else
            pthread_cond_broadcast(&aio->work);
    }
    pthread_mutex_unlock(&aio->lock);
    return taken;
}

size_t lc_aio_wait(lc_aio_queue *queue, size_t min, lc_aio_done *done, size_t max) {
    lc_aio *aio = queue->aio;
    pthread_mutex_lock(&aio->lock);
    size_t inside = queue->depth - queue->idle.count;
    if (min > max) min = max;
    if (min > inside) min = inside;
    while (queue->finished.count < min) pthread_cond_wait(&queue->done, &aio->lock);
    size_t taken = 0;
    for (slot *s; taken < max && (s = list_pop(&queue->finished)); taken++) {
        done[taken] = (lc_aio_done){.user = s->read.user, .size = s->got, .error = s->error};
        list_push(&queue->idle, s);
    }
    pthread_mutex_unlock(&aio->lock);
    return taken;
}

size_t lc_aio_pending(const lc_aio_queue *queue) {
    lc_aio *aio = queue->aio;
    pthread_mutex_lock(&aio->lock);
    size_t pending = queue->depth - queue->idle.count;
    pthread_mutex_unlock(&aio->lock);
    return pending;
}
