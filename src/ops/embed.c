/*
 * embed.c: word rows, hashed n-gram rows and their projections. All tables' rows are gathered
 * first; then a thread takes 16 output columns and adds the tables' projections in index order, so
 * no sum is cut.
 */
#include "ops/embed.h"

#include <string.h>

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
    return n_tables ? n_tables * rows * lc_pad_k(hidden / n_tables) : 0;
}

typedef struct embed_task {
    const lc_op *op;
    const lc_embedding *e;
    size_t m, hidden, width, stride; /* width = H/T */
    const lc_row *rows;
    float *gather, *out;
} embed_task;

static void gather_rows(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const lc_row *row = &t->rows[i];
        lc_weight_row(t->op, t->e->words, (size_t)row->tokens[row->at], t->out + i * t->hidden);
        for (size_t n = 0; n < t->e->n_tables; n++) {
            const lc_ngram_table *table = &t->e->tables[n];
            int64_t id = lc_ngram_row(table, row->tokens, row->at, t->e->eos_reset, t->e->eos);
            float *x = t->gather + (n * t->m + i) * t->stride;
            lc_mat_row_f32(&table->rows, (size_t)id, x);
            lc_operand_row(t->op, t->width, x, x);
        }
    }
}

static void add_tables(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *t = ctx;
    const lc_kernels *k = t->op->k;
    float *panel = t->op->scratch[thread], *product = panel + LC_LANES * t->stride;
    float *decoded = product + LC_LANES * t->m;
    float divisor = (float)(1 + t->e->n_tables);
    for (size_t p = begin; p < end; p++) {
        size_t column = p * LC_LANES,
               n = t->hidden - column < LC_LANES ? t->hidden - column : LC_LANES;
        float *out = t->out + column;
        if (t->e->full_word) /* E + sum/(1+T): scale E up so that the one division below restores it
                              */
            for (size_t i = 0; i < t->m; i++)
                for (size_t j = 0; j < n; j++) out[i * t->hidden + j] *= divisor;
        for (size_t table = 0; table < t->e->n_tables; table++) {
            lc_panel_pack(t->op, &t->e->tables[table].projection, column, n, panel, decoded);
            k->gemm(&(lc_gemm){.rows = t->m,
                               .k = t->stride,
                               .a = t->gather + table * t->m * t->stride,
                               .lda = t->stride,
                               .panel = panel,
                               .ldp = LC_LANES,
                               .c = product,
                               .ldc = LC_LANES,
                               .columns = n});
            for (size_t i = 0; i < t->m; i++)
                for (size_t j = 0; j < n; j++) out[i * t->hidden + j] += product[i * LC_LANES + j];
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
    if (e->n_tables) {
        t.width = t.hidden / e->n_tables;
        t.stride = lc_pad_k(t.width);
    }
    lc_pool_for(op->pool, m, LC_ROW_GRAIN, gather_rows, &t);
    if (e->n_tables) lc_pool_for(op->pool, lc_ceil_div(t.hidden, LC_LANES), 1, add_tables, &t);
    release_all(e, e->n_tables);
    return LC_OK;
}
