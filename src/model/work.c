/* work.c: one walk over all buffers, done twice: without memory to learn the size, with memory to
 * cut it. */
#include "model/work.h"

#include "base/err.h"

/* Takes pieces from a block; with base NULL it only counts. */
typedef struct cutter {
    char *base;
    size_t used;
    bool overflow;
} cutter;

static void *take(cutter *c, size_t count, size_t size) {
    size_t bytes, end;
    if (!lc_size_mul(count, size, &bytes) || !lc_size_align(bytes, 64, &bytes) ||
        !lc_size_add(c->used, bytes, &end)) {
        c->overflow = true;
        return NULL;
    }
    void *piece = c->base ? c->base + c->used : NULL;
    c->used = end;
    return piece;
}

static float *take_floats(cutter *c, size_t count) { return take(c, count, sizeof(float)); }

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static lc_op op_of(const lc_config *c, lc_work_size size) {
    return (lc_op){.k = size.kernels,
                   .path = size.bf16 ? &size.kernels->bf16 : &size.kernels->f32,
                   .round_quantised = c->switches.dequantised_to_bf16};
}

static size_t scratch_floats(const lc_config *c, lc_work_size size) {
    lc_op op = op_of(c, size), exact = lc_op_exact(&op);
    lc_mla_shape mla;
    lc_index_shape index;
    lc_moe_shape moe;
    lc_mla_shape_init(&mla, c);
    lc_index_shape_init(&index, c);
    lc_moe_shape_init(&moe, c);
    size_t m = size.rows;
    size_t widest = larger(2 * c->hidden, larger(c->q_rank, c->heads * c->v_dim));
    size_t n = larger(lc_columns_floats(&op, m, widest), lc_columns_floats(&exact, m, c->hidden));
    n = larger(n, lc_ffn_scratch(&op, c->hidden, c->ffn, m));
    n = larger(n, lc_moe_scratch(&op, &moe, m));
    n = larger(n, lc_mla_scratch(&op, &mla, m));
    if (c->index_heads) n = larger(n, lc_index_scratch(&op, &index, size.context));
    return larger(n, lc_embed_scratch(&op, m, c->hidden, lc_config_ngram_tables(c)));
}

static void cut_mla(const lc_config *c, const lc_op *op, size_t m, cutter *cut, lc_mla_buffers *b) {
    lc_mla_shape s;
    size_t n[LC_MLA_BUFFERS];
    lc_mla_shape_init(&s, c);
    lc_mla_floats(op, &s, m, n);
    b->c_q = take_floats(cut, n[0]);
    b->c_q_packed = take_floats(cut, n[1]);
    b->q = take_floats(cut, n[2]);
    b->absorbed = take_floats(cut, n[3]);
    b->kv = take_floats(cut, n[4]);
    b->heads = take_floats(cut, n[5]);
    b->heads_packed = take_floats(cut, n[6]);
}

static void cut_index(const lc_config *c, size_t m, cutter *cut, lc_index_buffers *b) {
    lc_index_shape s;
    size_t n[LC_INDEX_BUFFERS];
    lc_index_shape_init(&s, c);
    lc_index_floats(&s, m, n);
    b->q = take_floats(cut, n[0]);
    b->k = take_floats(cut, n[1]);
    b->weights = take_floats(cut, n[2]);
    b->x = take_floats(cut, n[3]);
    b->list = take(cut, m * c->index_topk, sizeof *b->list);
    b->count = take(cut, m, sizeof *b->count);
}

static void cut_ffn(const lc_op *op, size_t rows, size_t ffn, cutter *cut, lc_ffn_buffers *b) {
    b->hidden = take_floats(cut, rows * ffn);
    b->packed = take_floats(cut, lc_operand_floats(op, rows, ffn));
}

static void cut_moe(const lc_config *c, const lc_op *op, size_t m, cutter *cut, lc_moe_buffers *b) {
    size_t entries = c->experts + c->zero_experts, choices = m * c->topk;
    b->logits = take_floats(cut, m * entries);
    b->probs = take_floats(cut, m * entries);
    b->ids = take(cut, choices, sizeof *b->ids);
    b->weights = take_floats(cut, choices);
    b->x = take_floats(cut, lc_left_floats(m, c->hidden));
    b->first = take(cut, c->experts + 1, sizeof *b->first);
    b->tokens = take(cut, choices, sizeof *b->tokens);
    b->token_weights = take_floats(cut, choices);
    b->gathered = take_floats(cut, lc_operand_floats(op, choices, c->hidden));
    cut_ffn(op, choices, c->expert_ffn, cut, &b->ffn);
}

static void cut_all(const lc_config *c, lc_work_size size, cutter *cut, lc_work *w) {
    lc_op op = op_of(c, size);
    size_t m = size.rows, h = c->hidden;
    w->h = take_floats(cut, m * h);
    w->norm = take_floats(cut, m * h);
    w->operand = take_floats(cut, lc_operand_floats(&op, m, 2 * h));
    w->sub = take_floats(cut, m * h);
    w->moe_out = take_floats(cut, m * h);
    w->pair = take_floats(cut, m * 2 * h);
    w->hidden = take_floats(cut, m * h);
    w->gather = take_floats(cut, lc_embed_gather_floats(&op, m, h, lc_config_ngram_tables(c)));
    w->cosines = take_floats(cut, m * c->rope_dim / 2);
    w->sines = take_floats(cut, m * c->rope_dim / 2);
    cut_ffn(&op, m, c->ffn, cut, &w->ffn);
    cut_mla(c, &op, m, cut, &w->mla);
    if (c->index_heads) cut_index(c, m, cut, &w->index);
    cut_moe(c, &op, m, cut, &w->moe);
    w->scratch = take(cut, (size_t)size.threads, sizeof *w->scratch);
    size_t scratch = scratch_floats(c, size);
    for (int t = 0; t < size.threads; t++) {
        float *piece = take_floats(cut, scratch);
        if (cut->base) w->scratch[t] = piece;
    }
}

size_t lc_work_bytes(const lc_config *config, lc_work_size size) {
    cutter cut = {0};
    lc_work none = {0};
    cut_all(config, size, &cut, &none);
    return cut.overflow ? SIZE_MAX : cut.used;
}

size_t lc_work_default_rows(const lc_config *config, lc_work_size size, size_t memory) {
    size.rows = 2048;
    while (size.rows > 256 && lc_work_bytes(config, size) > memory / 8) size.rows /= 2;
    return size.rows;
}

int lc_work_new(const lc_model *model, lc_work_size size, lc_pool *pool, lc_work **out,
                lc_err *err) {
    *out = NULL;
    size_t bytes = lc_work_bytes(&model->config, size);
    lc_work *w = lc_calloc(1, sizeof *w);
    void *block = w && bytes != SIZE_MAX ? lc_alloc_dense(bytes, false) : NULL;
    if (!block) {
        lc_free(w);
        return lc_fail(err, LC_ENOMEM,
                       "step memory for %zu rows and %zu positions of context: no %zu bytes left",
                       size.rows, size.context, bytes);
    }
    cutter cut = {.base = block};
    cut_all(&model->config, size, &cut, w);
    w->block = block;
    w->size = size;
    w->op = op_of(&model->config, size);
    w->op.pool = pool;
    w->op.scratch = w->scratch;
    *out = w;
    return LC_OK;
}

void lc_work_free(lc_work *work) {
    if (!work) return;
    lc_free(work->block);
    lc_free(work);
}
