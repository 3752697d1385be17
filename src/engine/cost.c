/* cost.c: counting bytes and operations; the formulas are the shapes of docs/model.md 2 and 3. */
#include "engine/cost.h"

#include "format/mat.h"

typedef struct counter {
    const lc_model *m;
    lc_cost *out;
    size_t element;
    double rows; /* of the step */
} counter;

static bool computes_bf16(const counter *c) { return c->element == sizeof(uint16_t); }

/* Of the compute type. */
static double *operations(const counter *c, lc_stage stage) {
    return &c->out->operations[computes_bf16(c) ? LC_PEAK_BF16 : LC_PEAK_F32][stage];
}

/* With codes, which meet left rows of int8. */
static double *coded_operations(const counter *c, lc_stage stage, lc_code_kind kind) {
    return &c->out->operations[kind == LC_CODES_U4 ? LC_PEAK_INT4 : LC_PEAK_INT8][stage];
}

static double *operations_with(const counter *c, lc_stage stage, const lc_mat *w) {
    lc_code_kind kind;
    size_t size;
    bool coded = computes_bf16(c) && lc_mat_groups(w, &kind, &size);
    return coded ? coded_operations(c, stage, kind) : operations(c, stage);
}

/* A weight that all rows of the step pass. */
static void weight(const counter *c, lc_stage stage, const lc_mat *w) {
    c->out->bytes[stage] += (double)lc_mat_bytes(w);
    *operations_with(c, stage, w) += 2 * c->rows * (double)w->rows * (double)w->cols;
}

/* The same in fp32. */
static void exact_weight(const counter *c, lc_stage stage, const lc_mat *w) {
    c->out->bytes[stage] += (double)lc_mat_bytes(w);
    c->out->operations[LC_PEAK_F32][stage] += 2 * c->rows * (double)w->rows * (double)w->cols;
}

/* The absorbed form passes kv_b as it is packed, in two halves: as many operations as one product.
 */
static void attention_weights(const counter *c, const lc_mla_weights *w) {
    weight(c, LC_STAGE_PROJECT, &w->q_a);
    weight(c, LC_STAGE_PROJECT, &w->q_b);
    weight(c, LC_STAGE_PROJECT, &w->kv_a);
    const lc_kv_b *b = &w->kv_b_packed;
    double *kv_b = computes_bf16(c) && b->coded ? coded_operations(c, LC_STAGE_PROJECT, b->kind)
                                                : operations(c, LC_STAGE_PROJECT);
    c->out->bytes[LC_STAGE_PROJECT] += (double)b->bytes;
    *kv_b += 2 * c->rows * (double)(w->kv_b.rows * w->kv_b.cols);
    weight(c, LC_STAGE_PROJECT, &w->o);
}

static void ffn_weights(const counter *c, const lc_ffn_weights *w) {
    weight(c, LC_STAGE_DENSE, &w->gate);
    weight(c, LC_STAGE_DENSE, &w->up);
    weight(c, LC_STAGE_DENSE, &w->down);
}

static void layer_weights(const counter *c, const lc_layer *l) {
    for (int s = 0; s < 2; s++) {
        attention_weights(c, &l->attn[s]);
        ffn_weights(c, &l->ffn[s]);
    }
    exact_weight(c, LC_STAGE_ROUTE, &l->moe.router);
    if (!c->m->sparse) return;
    weight(c, LC_STAGE_INDEX, &l->index.wq_b);
    weight(c, LC_STAGE_INDEX, &l->index.wk);
    exact_weight(c, LC_STAGE_INDEX, &l->index.weights);
}

/* A looked-up row a token, and what projects it. */
static void embedding(const counter *c, const lc_embedding *e) {
    double *bytes = &c->out->bytes[LC_STAGE_EMBED];
    *bytes += c->rows * (double)lc_mat_bytes(e->words) / (double)e->words->rows;
    for (size_t i = 0; i < e->n_tables; i++) {
        const lc_mat *rows = &e->tables[i].rows;
        *bytes += c->rows * (double)lc_mat_bytes(rows) / (double)rows->rows;
        weight(c, LC_STAGE_EMBED, &e->tables[i].projection);
    }
}

/* Of a layer's two sublayers over the cache of one sequence. */
static void cached_rows(const counter *c, const lc_cost_rows *s) {
    const lc_mla_shape *a = &c->m->mla;
    const lc_index_shape *x = &c->m->index;
    double width = (double)(a->kv_rank + a->rope), rank = (double)a->kv_rank, keys = 0, scored = 0;
    size_t end = s->start + s->rows, most = c->m->sparse ? x->topk : SIZE_MAX;
    for (size_t pos = s->start; pos < end; pos++) {
        keys += (double)(pos + 1 < most ? pos + 1 : most);
        if (pos + 1 > most) scored += (double)(pos + 1);
    }
    /* Chosen keys differ from row to row, but no key is needed twice from memory. */
    double read = keys < (double)end ? keys : (double)end;
    c->out->bytes[LC_STAGE_ATTEND] += 2 * read * width * (double)c->element;
    *operations(c, LC_STAGE_ATTEND) += 2 * 2 * (double)a->heads * keys * (width + rank);
    if (scored == 0) return;
    c->out->bytes[LC_STAGE_INDEX] += (double)(end * x->dim * c->element);
    *operations(c, LC_STAGE_INDEX) += 2 * (double)(x->heads * x->dim) * scored;
}

void lc_cost_step(const lc_model *m, size_t element, const lc_cost_rows *sequences, size_t n,
                  size_t logits, lc_cost *cost) {
    counter c = {m, cost, element, 0}, head = {m, cost, element, (double)logits};
    for (size_t i = 0; i < n; i++) c.rows += (double)sequences[i].rows;
    embedding(&c, &m->embedding);
    for (size_t l = 0; l < m->config.layers; l++) {
        layer_weights(&c, &m->layers[l]);
        for (size_t i = 0; i < n; i++) cached_rows(&c, &sequences[i]);
    }
    if (logits) weight(&head, LC_STAGE_HEAD, &m->head);
}

void lc_cost_experts(const lc_model *m, size_t element, const lc_op_times *times, lc_cost *cost) {
    counter c = {m, cost, element, (double)times->expert_rows};
    double expert = 3.0 * (double)m->moe.hidden * (double)m->moe.ffn;
    cost->bytes[LC_STAGE_EXPERTS] += (double)times->expert_bytes;
    *operations_with(&c, LC_STAGE_EXPERTS, &m->layers[0].moe.experts[0].gate) +=
        2 * expert * c.rows;
}

double lc_cost_bytes(const lc_cost *cost) {
    double sum = 0;
    for (int s = 0; s < LC_STAGE_COUNT; s++) sum += cost->bytes[s];
    return sum;
}

double lc_cost_operations(const lc_cost *cost) {
    double sum = 0;
    for (int kind = 0; kind < LC_PEAK_KINDS; kind++)
        for (int s = 0; s < LC_STAGE_COUNT; s++) sum += cost->operations[kind][s];
    return sum;
}
