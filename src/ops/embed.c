/*
 * embed.c: word rows, hashed n-gram rows and their projections. All tables' rows are gathered
 * first; then a thread takes 16 output columns and adds the tables' projections in index order, so
 * no sum is cut.
 */
#include "ops/embed.h"

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

size_t lc_embed_gather_floats(const lc_op *op, size_t rows, size_t hidden, size_t n_tables) {
    return n_tables ? n_tables * lc_operand_floats(op, rows, hidden / n_tables) : 0;
}

size_t lc_embed_scratch(const lc_op *op, size_t rows, size_t hidden, size_t n_tables) {
    if (!n_tables) return 0;
    size_t width = hidden / n_tables, gather = LC_PACK_ROWS * width;
    size_t add = lc_columns_floats(op, rows, width) + rows * lc_columns_most(op, rows);
    return add > gather ? add : gather;
}

typedef struct embed_task {
    const lc_op *op;
    const lc_embedding *e;
    size_t m, hidden, width; /* width = H/T */
    size_t panel;            /* columns of a task */
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

/* A table's packed n-gram rows. */
static lc_left table_rows(const embed_task *t, size_t table) {
    return (lc_left){lc_form_of(t->op, &t->e->tables[table].projection), t->m, t->width,
                     t->gather + table * lc_operand_floats(t->op, t->m, t->width)};
}

/* Items are (table, group of 16 rows): looks up their n-gram rows and packs them. */
static void gather_groups(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *t = ctx;
    float *looked_up = t->op->scratch[thread];
    size_t groups = lc_ceil_div(t->m, LC_PACK_ROWS);
    for (size_t item = begin; item < end; item++) {
        const lc_ngram_table *table = &t->e->tables[item / groups];
        size_t first = item % groups * LC_PACK_ROWS,
               n = t->m - first < LC_PACK_ROWS ? t->m - first : LC_PACK_ROWS;
        for (size_t i = 0; i < n; i++) {
            const lc_row *row = &t->rows[first + i];
            int64_t id = lc_ngram_row(table, row->tokens, row->at, t->e->eos_reset, t->e->eos);
            lc_mat_row_f32(&table->rows, (size_t)id, looked_up + i * t->width);
        }
        lc_left left = table_rows(t, item / groups);
        char *to = (char *)left.data + lc_form_bytes(t->op, left.form, first, t->width);
        lc_form_pack(t->op, left.form, n, t->width, looked_up, t->width, to);
    }
}

static void add_tables(void *ctx, size_t begin, size_t end, int thread) {
    const embed_task *t = ctx;
    float *scratch = t->op->scratch[thread];
    float *product = scratch + lc_columns_floats(t->op, t->m, t->width);
    float divisor = (float)(1 + t->e->n_tables);
    for (size_t p = begin; p < end; p++) {
        size_t column = p * t->panel, left = t->hidden - column;
        size_t n = left < t->panel ? left : t->panel;
        float *out = t->out + column;
        if (t->e->full_word) /* E + sum/(1+T): scaled up here, the one division below restores E */
            for (size_t i = 0; i < t->m; i++) t->op->k->scale(n, divisor, out + i * t->hidden);
        for (size_t table = 0; table < t->e->n_tables; table++) {
            lc_left rows = table_rows(t, table);
            lc_columns(t->op, &t->e->tables[table].projection, &rows, column, n, product, n,
                       scratch);
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
        lc_pool_for(op->pool, e->n_tables * lc_ceil_div(m, LC_PACK_ROWS), 1, gather_groups, &t);
        lc_form form = lc_form_of(op, &e->tables[0].projection);
        t.panel = lc_columns_width(op, form, m, t.hidden);
        lc_pool_for(op->pool, lc_ceil_div(t.hidden, t.panel), 1, add_tables, &t);
    }
    release_all(e, e->n_tables);
    return LC_OK;
}
