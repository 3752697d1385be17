/*
 * embed.c: word rows, hashed n-gram rows and their projections. All tables' rows are gathered
 * first; then a thread takes 16 output columns and adds the tables' projections in index order, so
 * no sum is cut.
 */
#include "ops/embed.h"

enum { GROUP = 16 }; /* left rows that are packed together */

void lc_ngram_table_init(lc_ngram_table *t, const lc_config *c, size_t index) {
    t->modulus = (int64_t)lc_config_ngram_rows(c, index);
    t->order = index / c->ngram_splits + 2;
    t->power[0] = 1 % t->modulus;
    for (size_t d = 1; d < t->order; d++)
        t->power[d] = t->power[d - 1] * (int64_t)c->vocab % t->modulus;
}

int64_t lc_ngram_row(const lc_ngram_table *t, const int32_t *tokens, size_t at, bool eos_reset,
                     int32_t eos) {
    int64_t sum = tokens[at] * t->power[0];
    for (size_t d = 1; d < t->order && d <= at; d++) {
        int32_t token = tokens[at - d];
        if (eos_reset && token == eos) break; /* an EOS behind us closed another segment */
        sum += token * t->power[d];
    }
    return sum % t->modulus;
}

size_t lc_embed_gather_floats(size_t rows, size_t hidden, size_t n_tables) {
    return n_tables ? n_tables * lc_left_floats(rows, hidden / n_tables) : 0;
}

size_t lc_embed_scratch(const lc_op *op, size_t rows, size_t hidden, size_t n_tables) {
    if (!n_tables) return 0;
    size_t width = hidden / n_tables, gather = GROUP * width;
    size_t add = lc_linear_floats(op, rows, width) + rows * lc_panel(op->path, rows);
    return add > gather ? add : gather;
}

typedef struct embed_task {
    const lc_op *op;
    const lc_embedding *e;
    size_t m, hidden, width; /* width = H/T */
    const lc_row *rows;
    float *gather, *out;
} embed_task;

static void word_rows(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        lc_mat_row_f32(t->e->words, (size_t)t->rows[i].tokens[t->rows[i].at],
                       t->out + i * t->hidden);
}

/* Items are (table, group of 16 rows): looks up their n-gram rows and packs them. */
static void gather_groups(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *t = ctx;
    float *looked_up = t->op->scratch[thread];
    size_t groups = lc_ceil_div(t->m, GROUP), table_floats = lc_left_floats(t->m, t->width);
    for (size_t item = begin; item < end; item++) {
        const lc_ngram_table *table = &t->e->tables[item / groups];
        size_t first = item % groups * GROUP, n = t->m - first < GROUP ? t->m - first : GROUP;
        for (size_t i = 0; i < n; i++) {
            const lc_row *row = &t->rows[first + i];
            int64_t id = lc_ngram_row(table, row->tokens, row->at, t->e->eos_reset, t->e->eos);
            lc_mat_row_f32(&table->rows, (size_t)id, looked_up + i * t->width);
        }
        t->op->path->pack_nk(n, t->width, looked_up, t->width,
                             t->gather + item / groups * table_floats +
                                 lc_left_floats(first, t->width));
    }
}

static void add_tables(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *t = ctx;
    const lc_gemm_path *path = t->op->path;
    float *scratch = t->op->scratch[thread];
    float *rows = scratch + lc_product_floats(t->op, t->m, t->width);
    size_t panel = lc_panel(path, t->m);
    float *product = rows + lc_right_floats(panel, t->width);
    float divisor = (float)(1 + t->e->n_tables);
    for (size_t p = begin; p < end; p++) {
        size_t column = p * panel, ld, n = t->hidden - column < panel ? t->hidden - column : panel;
        float *out = t->out + column;
        if (t->e->full_word) /* E + sum/(1+T): scaled up here, the one division below restores E */
            for (size_t i = 0; i < t->m; i++)
                for (size_t j = 0; j < n; j++) out[i * t->hidden + j] *= divisor;
        for (size_t table = 0; table < t->e->n_tables; table++) {
            const void *right =
                lc_right_rows(t->op, &t->e->tables[table].projection, column, n, rows, &ld);
            const float *left = t->gather + table * lc_left_floats(t->m, t->width);
            path->multiply_nk(&(lc_product){.rows = t->m,
                                            .k = t->width,
                                            .columns = n,
                                            .left = left,
                                            .right = right,
                                            .ld = ld,
                                            .c = product,
                                            .ldc = n,
                                            .scratch = scratch});
            for (size_t i = 0; i < t->m; i++)
                for (size_t j = 0; j < n; j++) out[i * t->hidden + j] += product[i * n + j];
        }
        for (size_t i = 0; i < t->m; i++)
            for (size_t j = 0; j < n; j++) out[i * t->hidden + j] /= divisor;
    }
}

static void release_all(const lc_embedding *e, size_t n_tables) {
    for (size_t i = 0; i < n_tables; i++) {
        lc_mat_release(&e->tables[i].rows);
        lc_mat_release(&e->tables[i].projection);
    }
    lc_mat_release(e->words);
}

int lc_embed(const lc_op *op, const lc_embedding *e, size_t m, const lc_row *rows, float *gather,
             float *out, lc_err *err) {
    int status = lc_mat_acquire(e->words, err);
    if (status != LC_OK) return status;
    for (size_t i = 0; i < e->n_tables; i++) {
        status = lc_mat_acquire(&e->tables[i].rows, err);
        if (status == LC_OK) {
            status = lc_mat_acquire(&e->tables[i].projection, err);
            if (status != LC_OK) lc_mat_release(&e->tables[i].rows);
        }
        if (status != LC_OK) {
            release_all(e, i);
            return status;
        }
    }
    embed_task t = {.op = op,
                    .e = e,
                    .m = m,
                    .hidden = e->words->cols,
                    .rows = rows,
                    .gather = gather,
                    .out = out};
    lc_pool_for(op->pool, m, LC_ROW_GRAIN, word_rows, &t);
    if (e->n_tables) {
        t.width = t.hidden / e->n_tables;
        lc_pool_for(op->pool, e->n_tables * lc_ceil_div(m, GROUP), 1, gather_groups, &t);
        lc_pool_for(op->pool, lc_ceil_div(t.hidden, lc_panel(op->path, m)), 1, add_tables, &t);
    }
    release_all(e, e->n_tables);
    return LC_OK;
}
