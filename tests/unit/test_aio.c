/*
 * test_aio.c: asynchronous reads against pread. uses-threads
 *
 * The program defines pread itself and passes it on to the kernel, so that it can cut reads short
 * and interrupt them, which no ordinary file does at will.
 */
#undef _FORTIFY_SOURCE
#include "base/aio.h"
#include "base/mem.h"
#include "base/rng.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILE_SIZE = 1 << 20 };

static atomic_size_t piece_limit = SIZE_MAX; /* most bytes that one pread returns */
static atomic_bool interrupt_often;
static atomic_bool direct_rules; /* as O_DIRECT: an offset inside a block is refused */
static atomic_long preads;
static atomic_long hold_ns; /* each pread takes at least this long */

ssize_t pread(int fd, void *buffer, size_t size, off_t offset) {
    long n = preads++;
    if (hold_ns > 0) nanosleep(&(struct timespec){.tv_nsec = hold_ns}, NULL);
    if (interrupt_often && n % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    if (direct_rules && offset % 512 != 0) {
        errno = EINVAL;
        return -1;
    }
    if (size > piece_limit) size = piece_limit;
    return syscall(SYS_pread64, fd, buffer, size, offset);
}

/* A file of known bytes, deleted already. */
typedef struct fixture {
    int fd;
    unsigned char *bytes;
} fixture;

static int set_up(void **state) {
    static fixture f;
    char path[] = "/tmp/longcat-aio-XXXXXX";
    f.bytes = malloc(FILE_SIZE);
    f.fd = mkstemp(path);
    if (!f.bytes || f.fd < 0 || unlink(path) != 0) return -1;
    for (uint32_t i = 0; i < FILE_SIZE; i += 16) {
        lc_rng_block block = lc_rng(1, 2, i);
        memcpy(f.bytes + i, &block, 16);
    }
    *state = &f;
    return write(f.fd, f.bytes, FILE_SIZE) == FILE_SIZE ? 0 : -1;
}

static int tear_down(void **state) {
    fixture *f = *state;
    close(f->fd);
    free(f->bytes);
    return 0;
}

typedef struct reader {
    lc_aio *aio;
    lc_aio_queue *queue;
} reader;

static reader reader_new(int threads, size_t depth) {
    reader r;
    lc_err err = {0};
    assert_ok(lc_aio_new(threads, &r.aio, &err), err);
    assert_ok(lc_aio_queue_new(r.aio, depth, &r.queue, &err), err);
    return r;
}

static void reader_free(reader r) {
    lc_aio_queue_free(r.queue);
    lc_aio_free(r.aio);
}

/* One read from submission to completion. */
static lc_aio_done read_one(reader r, lc_aio_read read) {
    lc_aio_done done;
    read.user = &done;
    assert_int_equal(lc_aio_submit(r.queue, &read, 1), 1);
    assert_int_equal(lc_aio_pending(r.queue), 1);
    assert_int_equal(lc_aio_wait(r.queue, 1, &done, 1), 1);
    assert_ptr_equal(done.user, &done);
    assert_int_equal(lc_aio_pending(r.queue), 0);
    return done;
}

enum { SMALL_READS = 20000, DEPTH = 64, SLOT_BYTES = 4096 };

typedef struct small_read {
    size_t offset, size;
    bool in_use;
    unsigned char *buffer;
} small_read;

/* Random small reads with the queue kept full; returns how many came back equal to the file. For
 * use from several threads at once, so no asserts. */
static int many_small_reads(const fixture *f, lc_aio_queue *queue, uint64_t seed, int count) {
    small_read slots[DEPTH] = {0};
    unsigned char *memory = malloc((size_t)DEPTH * SLOT_BYTES);
    int begun = 0, right = 0, ended = 0;
    while (memory && ended < count) {
        lc_aio_read reads[DEPTH];
        size_t n = 0;
        for (int i = 0; i < DEPTH && begun < count; i++) {
            small_read *s = &slots[i];
            if (s->in_use) continue;
            lc_rng_block rnd = lc_rng(seed, 7, (uint64_t)begun++);
            s->size = 1 + rnd.word[0] % SLOT_BYTES;
            s->offset = rnd.word[1] % (FILE_SIZE - s->size + 1);
            s->buffer = memory + (size_t)i * SLOT_BYTES;
            s->in_use = true;
            reads[n++] = (lc_aio_read){f->fd, s->offset, s->size, s->buffer, s};
        }
        if (lc_aio_submit(queue, reads, n) != n) break;
        lc_aio_done done[5];
        size_t got = lc_aio_wait(queue, 1, done, 5);
        for (size_t i = 0; i < got; i++, ended++) {
            small_read *s = done[i].user;
            bool good = done[i].error == 0 && done[i].size == s->size && s->in_use;
            right += good && memcmp(s->buffer, f->bytes + s->offset, s->size) == 0;
            s->in_use = false;
        }
    }
    free(memory);
    return right;
}

static void many_small_reads_equal_the_file(void **state) {
    for (int threads = 1; threads <= 8; threads += 7) {
        reader r = reader_new(threads, DEPTH);
        assert_int_equal(many_small_reads(*state, r.queue, 3, SMALL_READS), SMALL_READS);
        reader_free(r);
    }
    printf("# %d random reads\n", 2 * SMALL_READS);
}

static void short_and_interrupted_reads_are_completed(void **state) {
    fixture *f = *state;
    reader r = reader_new(4, DEPTH);
    piece_limit = 1000;
    interrupt_often = true;
    unsigned char *buffer = calloc(1, FILE_SIZE);
    assert_non_null(buffer);
    long before = preads;
    lc_aio_done done = read_one(r, (lc_aio_read){f->fd, 0, FILE_SIZE, buffer, NULL});
    assert_int_equal(done.error, 0);
    assert_int_equal(done.size, FILE_SIZE);
    assert_memory_equal(buffer, f->bytes, FILE_SIZE);
    assert_in_range(preads - before, FILE_SIZE / 1000 * 4 / 3, FILE_SIZE / 1000 * 2);
    assert_int_equal(many_small_reads(f, r.queue, 5, 2000), 2000);
    piece_limit = SIZE_MAX;
    interrupt_often = false;
    free(buffer);
    reader_free(r);
}

static void the_end_of_the_file_shortens_a_read(void **state) {
    fixture *f = *state;
    reader r = reader_new(2, 4);
    static const struct {
        uint64_t offset;
        size_t size, got;
    } cases[] = {
        {FILE_SIZE - 10, 100, 10},
        {FILE_SIZE - 1, 1, 1},
        {FILE_SIZE, 1, 0},
        {FILE_SIZE + 12345, 4096, 0},
        {INT64_MAX - 4096, 4096, 0},
        {0, 0, 0},
        {(uint64_t)FILE_SIZE - 4096, 4096, 4096},
    };
    unsigned char buffer[4096];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(buffer, 0xee, sizeof buffer);
        lc_aio_done done =
            read_one(r, (lc_aio_read){f->fd, cases[i].offset, cases[i].size, buffer, NULL});
        assert_int_equal(done.error, 0);
        assert_int_equal(done.size, cases[i].got);
        assert_memory_equal(buffer, f->bytes + (FILE_SIZE - cases[i].got), cases[i].got);
        for (size_t b = cases[i].got; b < sizeof buffer; b++) assert_int_equal(buffer[b], 0xee);
    }
    reader_free(r);
}

static void errors_are_reported_per_read(void **state) {
    fixture *f = *state;
    reader r = reader_new(2, 8);
    unsigned char buffer[64];
    int closed = dup(f->fd), directory = open("/", O_RDONLY), pipes[2];
    assert_true(closed >= 0 && directory >= 0 && pipe(pipes) == 0);
    close(closed);
    const struct {
        lc_aio_read read;
        int error;
        size_t size;
    } cases[] = {
        {{closed, 0, 64, buffer, NULL}, EBADF, 0},
        {{-1, 0, 64, buffer, NULL}, EBADF, 0},
        {{directory, 0, 64, buffer, NULL}, EISDIR, 0},
        {{pipes[0], 0, 64, buffer, NULL}, ESPIPE, 0},
        {{f->fd, UINT64_MAX - 10, 64, buffer, NULL}, EINVAL, 0},
        {{f->fd, INT64_MAX, 64, buffer, NULL}, EINVAL, 0},
        {{f->fd, 0, SIZE_MAX, buffer, NULL}, EINVAL, 0},
        {{f->fd, 128, 64, buffer, NULL}, 0, 64}, /* the queue is fine afterwards */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lc_aio_done done = read_one(r, cases[i].read);
        assert_int_equal(done.error, cases[i].error);
        assert_int_equal(done.size, cases[i].size);
    }
    assert_memory_equal(buffer, f->bytes + 128, 64);
    close(directory);
    close(pipes[0]);
    close(pipes[1]);
    reader_free(r);
}

/* Some file systems refuse the offset that follows a short direct read instead of reading nothing
 * there; a read that makes no progress at all has failed, though. */
static void direct_reads_end_at_the_end_of_the_file(void **state) {
    fixture *f = *state;
    reader r = reader_new(1, 1);
    unsigned char buffer[1024];
    direct_rules = true;
    piece_limit = 700;
    lc_aio_done done = read_one(r, (lc_aio_read){f->fd, 512, 1024, buffer, NULL});
    assert_int_equal(done.error, 0);
    assert_int_equal(done.size, 700);
    assert_memory_equal(buffer, f->bytes + 512, 700);
    done = read_one(r, (lc_aio_read){f->fd, 100, 1024, buffer, NULL});
    assert_int_equal(done.error, EINVAL);
    assert_int_equal(done.size, 0);
    direct_rules = false;
    piece_limit = SIZE_MAX;
    reader_free(r);
}

static void depth_bounds_the_queue(void **state) {
    fixture *f = *state;
    reader r = reader_new(2, 3);
    unsigned char buffers[5][16];
    lc_aio_read reads[5];
    lc_aio_done done[5];
    assert_int_equal(lc_aio_wait(r.queue, 1, done, 5), 0); /* nothing to wait for */
    for (size_t i = 0; i < 5; i++)
        reads[i] = (lc_aio_read){f->fd, 16 * i, 16, buffers[i], buffers[i]};
    assert_int_equal(lc_aio_submit(r.queue, reads, 0), 0);
    assert_int_equal(lc_aio_submit(r.queue, reads, 5), 3);
    assert_int_equal(lc_aio_submit(r.queue, reads + 3, 2), 0);
    assert_int_equal(lc_aio_pending(r.queue), 3);
    assert_int_equal(lc_aio_wait(r.queue, 2, done, 2), 2);
    assert_int_equal(lc_aio_submit(r.queue, reads + 3, 2), 2);
    assert_int_equal(lc_aio_wait(r.queue, 5, done, 5), 3); /* min is lowered to what is inside */
    assert_int_equal(lc_aio_wait(r.queue, 0, done, 5), 0);
    assert_int_equal(lc_aio_pending(r.queue), 0);
    for (size_t i = 0; i < 5; i++) assert_memory_equal(buffers[i], f->bytes + 16 * i, 16);
    reader_free(r);
}

typedef struct user {
    const fixture *f;
    lc_aio_queue *queue;
    uint64_t seed;
    int right;
    pthread_t thread;
} user;

static void *user_main(void *arg) {
    user *u = arg;
    u->right = many_small_reads(u->f, u->queue, u->seed, 3000);
    return NULL;
}

static void users_get_their_own_completions(void **state) {
    enum { USERS = 4 };
    user users[USERS];
    lc_aio *aio;
    lc_err err = {0};
    assert_ok(lc_aio_new(0, &aio, &err), err);
    for (int i = 0; i < USERS; i++) {
        users[i] = (user){.f = *state, .seed = 100 + (uint64_t)i};
        assert_ok(lc_aio_queue_new(aio, DEPTH, &users[i].queue, &err), err);
        assert_int_equal(pthread_create(&users[i].thread, NULL, user_main, &users[i]), 0);
    }
    for (int i = 0; i < USERS; i++) {
        pthread_join(users[i].thread, NULL);
        assert_int_equal(users[i].right, 3000);
        lc_aio_queue_free(users[i].queue);
    }
    lc_aio_free(aio);
}

/* With one thread, a queue with one read is served second however long the other queue is. */
static void queues_are_served_in_turn(void **state) {
    fixture *f = *state;
    reader r = reader_new(1, 100);
    lc_aio_queue *second;
    lc_err err = {0};
    assert_ok(lc_aio_queue_new(r.aio, 1, &second, &err), err);
    unsigned char buffer[101];
    lc_aio_read reads[100];
    for (size_t i = 0; i < 100; i++) reads[i] = (lc_aio_read){f->fd, i, 1, buffer + i, NULL};
    lc_aio_read last = {f->fd, 100, 1, buffer + 100, NULL};
    lc_aio_done done[100];
    hold_ns = 2000000;
    assert_int_equal(lc_aio_submit(r.queue, reads, 100), 100);
    assert_int_equal(lc_aio_submit(second, &last, 1), 1);
    assert_int_equal(lc_aio_wait(second, 1, done, 1), 1);
    size_t before = lc_aio_wait(r.queue, 0, done, 100);
    hold_ns = 0;
    assert_in_range(before, 0, 50); /* 1 or 2 when this thread gets its turn at once */
    lc_aio_queue_free(second);
    assert_int_equal(lc_aio_wait(r.queue, 100, done, 100), 100 - before);
    reader_free(r);
}

static void freeing_drops_what_was_not_begun(void **state) {
    fixture *f = *state;
    reader r = reader_new(1, 1000);
    unsigned char *buffer = malloc(1000);
    assert_non_null(buffer);
    lc_aio_read reads[1000];
    for (size_t i = 0; i < 1000; i++) reads[i] = (lc_aio_read){f->fd, i, 1, buffer + i, NULL};
    hold_ns = 1000000;
    long before = preads;
    assert_int_equal(lc_aio_submit(r.queue, reads, 1000), 1000);
    while (preads == before) sched_yield(); /* one read is on its way */
    lc_aio_queue_free(r.queue);
    assert_in_range(preads - before, 1, 900);
    long after = preads;
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_int_equal(preads, after);
    hold_ns = 0;
    free(buffer); /* nobody writes there any more */
    lc_aio_free(r.aio);
    lc_aio_free(NULL);
    lc_aio_queue_free(NULL);
}

static void limits_and_failures(void **state) {
    (void)state;
    lc_err err = {0};
    lc_aio *aio = (lc_aio *)&err;
    lc_aio_queue *queue = (lc_aio_queue *)&err;
    assert_int_equal(lc_aio_new(-1, &aio, &err), LC_EINVAL);
    assert_null(aio);
    assert_int_equal(lc_aio_new(257, &aio, &err), LC_EINVAL);
    size_t before = lc_mem_current();
    lc_mem_fail_after(0);
    assert_int_equal(lc_aio_new(1, &aio, &err), LC_ENOMEM);
    lc_mem_fail_after(-1);
    assert_ok(lc_aio_new(1, &aio, &err), err);
    assert_int_equal(lc_aio_queue_new(aio, 0, &queue, &err), LC_EINVAL);
    assert_null(queue);
    assert_int_equal(lc_aio_queue_new(aio, 65537, &queue, &err), LC_EINVAL);
    for (long n = 0; n < 2; n++) {
        lc_mem_fail_after(n);
        assert_int_equal(lc_aio_queue_new(aio, 4, &queue, &err), LC_ENOMEM);
    }
    lc_mem_fail_after(-1);
    lc_aio_free(aio);
    assert_int_equal(lc_mem_current(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_small_reads_equal_the_file),
        cmocka_unit_test(short_and_interrupted_reads_are_completed),
        cmocka_unit_test(the_end_of_the_file_shortens_a_read),
        cmocka_unit_test(errors_are_reported_per_read),
        cmocka_unit_test(direct_reads_end_at_the_end_of_the_file),
        cmocka_unit_test(depth_bounds_the_queue),
        cmocka_unit_test(users_get_their_own_completions),
        cmocka_unit_test(queues_are_served_in_turn),
        cmocka_unit_test(freeing_drops_what_was_not_begun),
        cmocka_unit_test(limits_and_failures),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
