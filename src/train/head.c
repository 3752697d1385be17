/* head.c: cross entropy fused with the head, and the hidden z-loss (docs/model.md 5.3, 5.4). */
#include "train/head.h"

#include <math.h>
#include <string.h>

size_t lc_head_chunk(size_t vocab) {
    enum { FLOATS = 1 << 21, MOST = 256, STEP = 32 };
    size_t rows = FLOATS / vocab / STEP * STEP;
    return rows < STEP ? STEP : rows > MOST ? MOST : rows;
}

typedef struct head_task {
    const lc_tape *t;
    const lc_head_pass *p;
    const size_t *list;
    float *dhidden;
} head_task;

static void gather_rows(void *ctx, size_t begin, size_t end, int thread) {
    const head_task *k = ctx;
    size_t hidden = k->p->w->cols;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        memcpy(k->p->x + i * hidden, k->p->hidden + k->list[i] * hidden, hidden * sizeof *k->p->x);
}

/* Losses of the chunk's rows; logits become their gradients. */
static void entropy_rows(void *ctx, size_t begin, size_t end, int thread) {
    const head_task *k = ctx;
    size_t vocab = k->p->w->rows;
    const lc_kernels *kernels = k->t->op.k;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float *logits = k->p->logits + i * lc_head_stride(vocab), max = kernels->max(vocab, logits);
        size_t target = (size_t)k->p->targets[k->list[i]];
        double own = (double)logits[target];
        float sum = kernels->exp_sum(vocab, logits, max, logits);
        k->t->sums[i] = (double)max + lc_ln((double)sum) - own;
        if (!k->dhidden) continue;
        kernels->scale(vocab, k->p->scale / sum, logits);
        logits[target] -= k->p->scale;
    }
}

static void scatter_rows(void *ctx, size_t begin, size_t end, int thread) {
    const head_task *k = ctx;
    size_t hidden = k->p->w->cols;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        memcpy(k->dhidden + k->list[i] * hidden, k->p->dx + i * hidden,
               hidden * sizeof *k->dhidden);
}

static int chunk_run(head_task *k, size_t n, double *sum, lc_err *err) {
    const lc_tape *t = k->t;
    const lc_head_pass *p = k->p;
    size_t hidden = p->w->cols, ld = lc_head_stride(p->w->rows);
    lc_matmul products[] = {lc_linear_forward(p->w, n, p->x, hidden, p->logits, ld),
                            {0},
                            lc_linear_to_input(p->w, n, p->logits, ld, p->dx, hidden, false)};
    if (k->dhidden) products[1] = lc_linear_to_weight(t, p->w, n, p->logits, ld, p->x, hidden);
    products[0].before = (lc_rows_step){gather_rows, k, 0};
    products[0].behind = (lc_rows_step){entropy_rows, k, 0};
    products[2].behind = (lc_rows_step){scatter_rows, k, 0};
    products[1].chained = products[2].chained = true;
    int status = lc_matmul_run(&t->op, t->space, products, k->dhidden ? 3 : 1, err);
    for (size_t i = 0; i < n && status == LC_OK; i++) *sum += t->sums[i];
    return status;
}

int lc_head_run(const lc_tape *t, const lc_head_pass *p, float *dhidden, double *sum, lc_err *err) {
    size_t count = 0, chunk = lc_head_chunk(p->w->rows);
    int status = LC_OK;
    for (size_t i = 0; i < p->m; i++)
        if (p->targets[i] >= 0) p->list[count++] = i;
    if (dhidden) memset(dhidden, 0, p->m * p->w->cols * sizeof *dhidden);
    for (size_t at = 0; at < count && status == LC_OK; at += chunk) {
        head_task k = {t, p, p->list + at, dhidden};
        status = chunk_run(&k, count - at < chunk ? count - at : chunk, sum, err);
    }
    return status;
}

/* ---- hidden z ---- */

typedef struct z_task {
    const lc_tape *t;
    size_t hidden;
    const float *z;
    float scale, *dz;
} z_task;

static void z_rows(void *ctx, size_t begin, size_t end, int thread) {
    const z_task *k = ctx;
    float *p = k->t->op.scratch[thread];
    for (size_t i = begin; i < end; i++) {
        const float *z = k->z + i * k->hidden;
        for (size_t j = 0; j < k->hidden; j++) p[j] = fabsf(z[j]);
        float max = k->t->op.k->max(k->hidden, p);
        float sum = k->t->op.k->exp_sum(k->hidden, p, max, p);
        double lse = (double)max + lc_ln((double)sum);
        k->t->sums[i] = lse * lse;
        if (!k->dz) continue;
        float rate = (float)(2.0 * (double)k->scale * lse) / sum, *dz = k->dz + i * k->hidden;
        for (size_t j = 0; j < k->hidden; j++) {
            float d = rate * p[j];
            dz[j] += z[j] < 0 ? -d : d;
        }
    }
}

void lc_hidden_z(const lc_tape *t, size_t m, size_t hidden, const float *z, float scale, float *dz,
                 double *sum) {
    z_task k = {t, hidden, z, scale, dz};
    lc_pool_for(t->op.pool, m, LC_ROW_GRAIN, z_rows, &k);
    for (size_t i = 0; i < m; i++) *sum += t->sums[i];
}
