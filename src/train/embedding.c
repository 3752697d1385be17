/* embedding.c: looked-up rows forward; backward, a stable radix sort of the rows' ids gives every
 * row its tokens in order, and tables are independent. */
#include "train/embedding.h"

#include <string.h>

typedef struct embed_task {
    const lc_tape *t;
    const lc_embed_pass *p;
    size_t hidden, width;
    float *out;
    const float *x;
    float factor;
} embed_task;

static size_t rows_of(const lc_embed_pass *p) { return p->rows * p->length; }

static embed_task task_of(const lc_tape *t, const lc_embed_pass *p) {
    size_t hidden = p->w->words.cols;
    return (embed_task){
        .t = t, .p = p, .hidden = hidden, .width = p->w->n_tables ? hidden / p->w->n_tables : 0};
}

/* Items are (word or table, row): ids, and the rows that they name. */
static void look_up(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *k = ctx;
    const lc_embed_pass *p = k->p;
    size_t m = rows_of(p);
    (void)thread;
    for (size_t item = begin; item < end; item++) {
        size_t which = item / m, i = item % m, at = i % p->length;
        const int32_t *tokens = p->tokens + (i - at);
        if (which == 0) {
            p->ids[i] = tokens[at];
            memcpy(k->out + i * k->hidden, p->w->words.values + (size_t)tokens[at] * k->hidden,
                   k->hidden * sizeof *k->out);
            continue;
        }
        const lc_weight *rows = &p->w->table_rows[which - 1];
        int64_t id = lc_ngram_row(&p->w->tables[which - 1], tokens, at, p->w->eos_reset, p->w->eos);
        p->ids[item] = id;
        memcpy(p->gathered + (item - m) * k->width, rows->values + (size_t)id * k->width,
               k->width * sizeof *k->out);
    }
}

static void add_range(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *k = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) k->out[i] += k->x[i];
}

static void scale_range(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *k = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) k->out[i] = k->x[i] * k->factor;
}

static void divide_range(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *k = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) k->out[i] = k->x[i] / k->factor;
}

enum { GRAIN = 16384 };

int lc_embed_run(const lc_tape *t, const lc_embed_pass *p, float *out, lc_err *err) {
    size_t m = rows_of(p), tables = p->w->n_tables;
    embed_task k = task_of(t, p);
    k.out = out;
    lc_pool_for(t->op.pool, m * (1 + tables), 64, look_up, &k);
    if (!tables) return LC_OK;
    size_t count = m * k.hidden;
    k.factor = (float)(1 + tables);
    k.x = out;
    if (p->w->full_word) lc_pool_for(t->op.pool, count, GRAIN, scale_range, &k);
    k.x = p->sum;
    for (size_t i = 0; i < tables; i++) { /* one table after another, in index order */
        int status =
            lc_linear_run(t, &p->w->projections[i], m, p->gathered + i * m * k.width, p->sum, err);
        if (status != LC_OK) return status;
        lc_pool_for(t->op.pool, count, GRAIN, add_range, &k);
    }
    k.x = out;
    lc_pool_for(t->op.pool, count, GRAIN, divide_range, &k);
    return LC_OK;
}

/* Token indices sorted by id, stable: 11 bits at a time. Returns the half of order that has them.
 */
static const uint32_t *sort_ids(size_t m, const int64_t *ids, size_t rows, uint32_t *order) {
    enum { BITS = 11, DIGITS = 1 << BITS };
    uint32_t *from = order, *to = order + m, start[DIGITS + 1];
    for (size_t i = 0; i < m; i++) from[i] = (uint32_t)i;
    for (int shift = 0; (rows - 1) >> shift; shift += BITS) {
        memset(start, 0, sizeof start);
        for (size_t i = 0; i < m; i++) start[(ids[i] >> shift & (DIGITS - 1)) + 1]++;
        for (size_t d = 0; d < DIGITS; d++) start[d + 1] += start[d];
        for (size_t i = 0; i < m; i++) to[start[ids[from[i]] >> shift & (DIGITS - 1)]++] = from[i];
        uint32_t *t = from;
        from = to;
        to = t;
    }
    return from;
}

/* Items are the word table and the n-gram tables. k->x: the words' gradients. */
static void scatter_tables(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *k = ctx;
    const lc_embed_pass *p = k->p;
    size_t m = rows_of(p);
    (void)thread;
    for (size_t which = begin; which < end; which++) {
        const lc_weight *w = which ? &p->w->table_rows[which - 1] : &p->w->words;
        const float *x = which ? p->gathered + (which - 1) * m * k->width : k->x;
        const int64_t *ids = p->ids + which * m;
        const uint32_t *order = sort_ids(m, ids, w->rows, p->order + which * 2 * m);
        for (size_t i = 0; i < m; i++)
            k->t->op.k->add_scaled(w->cols, 1.0f, x + order[i] * w->cols,
                                   lc_weight_grad(k->t, w) + (size_t)ids[order[i]] * w->cols);
    }
}

int lc_embed_back(const lc_tape *t, const lc_embed_pass *p, const float *dout, lc_err *err) {
    size_t m = rows_of(p), tables = p->w->n_tables;
    embed_task k = task_of(t, p);
    k.out = p->sum;
    k.x = dout;
    if (tables) {
        k.factor = (float)(1 + tables);
        lc_pool_for(t->op.pool, m * k.hidden, GRAIN, divide_range, &k);
        for (size_t i = 0; i < tables; i++) {
            p->products[i] = lc_linear_to_weight(t, &p->w->projections[i], m, p->sum, k.hidden,
                                                 p->gathered + i * m * k.width, k.width);
            p->products[i].chained = i % LC_CHAIN_MAX != 0;
        }
        int status = lc_matmul_run(&t->op, t->space, p->products, tables, err);
        if (status != LC_OK) return status;
        for (size_t i = 0; i < tables; i++) {
            p->products[i] = lc_linear_to_input(&p->w->projections[i], m, p->sum, k.hidden,
                                                p->gathered + i * m * k.width, k.width, false);
            p->products[i].chained = i % LC_CHAIN_MAX != 0;
        }
        status = lc_matmul_run(&t->op, t->space, p->products, tables, err);
        if (status != LC_OK) return status;
        if (!p->w->full_word) k.x = p->sum;
    }
    lc_pool_for(t->op.pool, 1 + tables, 1, scatter_tables, &k);
    return LC_OK;
}
