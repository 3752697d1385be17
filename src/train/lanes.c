/*
 * lanes.c: a binary counter of blocks. Level i, when it is full, holds the sum of 2^i lanes; a lane
 * that ends is added to full levels from below, the older sum on the left.
 */
#include "train/lanes.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

enum { MOST_LEVELS = 32, GRAIN = 65536 };

struct lc_lanes {
    size_t floats, lanes, done; /* lanes of a step, complete ones */
    lc_pool *pool;
    float *level[MOST_LEVELS]; /* blocks of the levels that have had one; NULL: not yet needed */
    bool full[MOST_LEVELS];
    float *open;                   /* the present lane's block, or NULL */
    float *spare[MOST_LEVELS + 1]; /* blocks not in use */
    size_t n_spare;
};

int lc_lanes_new(size_t floats, size_t lanes, lc_pool *pool, lc_lanes **out, lc_err *err) {
    *out = NULL;
    if (lanes == 0 || (lanes & (lanes - 1)) || lanes > (size_t)1 << (MOST_LEVELS - 1))
        return lc_fail(err, LC_EINVAL, "%zu lanes: must be a power of two", lanes);
    lc_lanes *x = lc_calloc(1, sizeof *x);
    if (!x) return lc_fail(err, LC_ENOMEM, "gradient lanes: out of memory");
    *x = (lc_lanes){.floats = floats, .lanes = lanes, .pool = pool};
    size_t blocks = 1;
    for (size_t n = lanes; n > 1; n /= 2) blocks++;
    for (; x->n_spare < blocks; x->n_spare++) {
        x->spare[x->n_spare] = lc_alloc_dense(floats * sizeof(float), true);
        if (x->spare[x->n_spare]) continue;
        lc_lanes_free(x);
        return lc_fail(err, LC_ENOMEM, "gradients of %zu lanes: no %zu blocks of %zu bytes left",
                       lanes, blocks, floats * sizeof(float));
    }
    *out = x;
    return LC_OK;
}

void lc_lanes_free(lc_lanes *x) {
    if (!x) return;
    for (size_t i = 0; i < x->n_spare; i++) lc_free(x->spare[i]);
    for (int i = 0; i < MOST_LEVELS; i++)
        if (x->full[i]) lc_free(x->level[i]);
    lc_free(x->open);
    lc_free(x);
}

typedef struct join_task {
    const float *from;
    float *to;
} join_task;

static void join_range(void *ctx, size_t begin, size_t end, int thread) {
    const join_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) t->to[i] += t->from[i];
}

static void clear_range(void *ctx, size_t begin, size_t end, int thread) {
    const join_task *t = ctx;
    (void)thread;
    memset(t->to + begin, 0, (end - begin) * sizeof *t->to);
}

float *lc_lanes_begin(lc_lanes *x) {
    if (x->done == x->lanes) { /* the next step: the sum's block is free again */
        for (int i = 0; i < MOST_LEVELS; i++) {
            if (x->full[i]) x->spare[x->n_spare++] = x->level[i];
            x->full[i] = false;
        }
        x->done = 0;
    }
    if (!x->open) x->open = x->spare[--x->n_spare];
    lc_pool_for(x->pool, x->floats, GRAIN, clear_range, &(join_task){NULL, x->open});
    return x->open;
}

void lc_lanes_end(lc_lanes *x) {
    int i = 0;
    if (!x->open) return;
    for (; x->full[i]; i++) { /* older lanes on the left: level + open */
        lc_pool_for(x->pool, x->floats, GRAIN, join_range, &(join_task){x->open, x->level[i]});
        x->spare[x->n_spare++] = x->open;
        x->open = x->level[i];
        x->full[i] = false;
    }
    x->level[i] = x->open;
    x->full[i] = true;
    x->open = NULL;
    x->done++;
}

float *lc_lanes_sum(lc_lanes *x) {
    if (x->done != x->lanes) return NULL;
    for (int i = 0; i < MOST_LEVELS; i++)
        if (x->full[i]) return x->level[i];
    return NULL;
}
