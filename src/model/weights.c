/*
 * weights.c: binds the tensors of a checkpoint (names: docs/model.md 3) and checks every shape.
 * Matrices stay mapped; only vectors (norm weights, router bias) are decoded to fp32.
 */
#include "model/model.h"

#include "base/err.h"
#include "ops/kv_b.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct binder {
    lc_model *m;
    lc_err *err;
    int status;
} binder;

/* Binds [rows][cols] under a formatted name; does nothing after the first failure. */
static void bind(binder *b, lc_mat *out, size_t rows, size_t cols, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
static void bind(binder *b, lc_mat *out, size_t rows, size_t cols, const char *fmt, ...) {
    char name[256];
    if (b->status != LC_OK) return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    b->status = lc_mat_bind(b->m->tensors, name, rows, cols, out, b->err);
}

static const float *vector(binder *b, size_t n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static const float *vector(binder *b, size_t n, const char *fmt, ...) {
    char name[256];
    lc_mat mat;
    if (b->status != LC_OK) return NULL;
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    b->status = lc_mat_bind(b->m->tensors, name, 1, n, &mat, b->err);
    if (b->status != LC_OK) return NULL;
    float *values = lc_arena_calloc(b->m->arena, n, sizeof *values);
    if (values)
        lc_mat_row_f32(&mat, 0, values);
    else
        b->status = lc_fail(b->err, LC_ENOMEM, "%s: out of memory", name);
    lc_mat_unbind(&mat);
    return values;
}

static void *allocate(binder *b, size_t count, size_t size) {
    void *block = b->status == LC_OK ? lc_arena_calloc(b->m->arena, count, size) : NULL;
    if (!block && b->status == LC_OK)
        b->status = lc_fail(b->err, LC_ENOMEM, "model: out of memory");
    return block;
}

static void bind_attention(binder *b, lc_mla_weights *w, const char *at) {
    const lc_config *c = &b->m->config;
    bind(b, &w->q_a, c->q_rank, c->hidden, "%s.q_a_proj.weight", at);
    w->q_a_norm = vector(b, c->q_rank, "%s.q_a_layernorm.weight", at);
    bind(b, &w->q_b, c->heads * (c->nope_dim + c->rope_dim), c->q_rank, "%s.q_b_proj.weight", at);
    bind(b, &w->kv_a, c->kv_rank + c->rope_dim, c->hidden, "%s.kv_a_proj_with_mqa.weight", at);
    w->kv_a_norm = vector(b, c->kv_rank, "%s.kv_a_layernorm.weight", at);
    bind(b, &w->kv_b, c->heads * (c->nope_dim + c->v_dim), c->kv_rank, "%s.kv_b_proj.weight", at);
    bind(b, &w->o, c->hidden, c->heads * c->v_dim, "%s.o_proj.weight", at);
}

static void bind_indexer(binder *b, lc_indexer_weights *w, const char *at) {
    const lc_config *c = &b->m->config;
    bind(b, &w->wq_b, c->index_heads * c->index_dim, c->q_rank, "%s.indexer.wq_b.weight", at);
    bind(b, &w->wk, c->index_dim, c->hidden, "%s.indexer.wk.weight", at);
    bind(b, &w->weights, c->index_heads, c->hidden, "%s.indexer.weights_proj.weight", at);
    w->k_norm = vector(b, c->index_dim, "%s.indexer.k_norm.weight", at);
}

static bool has_value_strips(const lc_mat *w) { return w->type == LC_BF16 && lc_mat_in_strips(w); }

static void bind_ffn(binder *b, lc_ffn_weights *w, size_t ffn, const char *at) {
    size_t hidden = b->m->config.hidden;
    bind(b, &w->gate, ffn, hidden, "%s.gate_proj.weight", at);
    bind(b, &w->up, ffn, hidden, "%s.up_proj.weight", at);
    bind(b, &w->down, hidden, ffn, "%s.down_proj.weight", at);
    if (b->status == LC_OK && !lc_mat_same_groups(&w->gate, &w->up))
        b->status = lc_fail(b->err, LC_EFORMAT,
                            "%s: gate_proj and up_proj must be quantised in the same groups", at);
    if (b->status == LC_OK && has_value_strips(&w->gate) != has_value_strips(&w->up))
        b->status = lc_fail(b->err, LC_EFORMAT,
                            "%s: of gate_proj and up_proj one is BF16 in strips; both must be", at);
}

static void bind_layer(binder *b, lc_layer *l, size_t i) {
    const lc_config *c = &b->m->config;
    char at[128];
    for (int s = 0; s < 2; s++) {
        l->norm_in[s] = vector(b, c->hidden, "model.layers.%zu.input_layernorm.%d.weight", i, s);
        l->norm_post[s] =
            vector(b, c->hidden, "model.layers.%zu.post_attention_layernorm.%d.weight", i, s);
        snprintf(at, sizeof at, "model.layers.%zu.self_attn.%d", i, s);
        bind_attention(b, &l->attn[s], at);
        if (s == 0 && b->m->sparse) bind_indexer(b, &l->index, at);
        snprintf(at, sizeof at, "model.layers.%zu.mlps.%d", i, s);
        bind_ffn(b, &l->ffn[s], c->ffn, at);
    }
    size_t entries = c->experts + c->zero_experts;
    bind(b, &l->moe.router, entries, c->hidden, "model.layers.%zu.mlp.router.classifier.weight", i);
    l->moe.router_bias =
        vector(b, entries, "model.layers.%zu.mlp.router.e_score_correction_bias", i);
    lc_ffn_weights *experts = allocate(b, c->experts, sizeof *experts);
    l->moe.experts = experts;
    for (size_t e = 0; e < c->experts && b->status == LC_OK; e++) {
        snprintf(at, sizeof at, "model.layers.%zu.mlp.experts.%zu", i, e);
        bind_ffn(b, &experts[e], c->expert_ffn, at);
    }
}

/* tables_at and projections_at are formats with one %zu. */
static void bind_ngrams(binder *b, lc_embedding *e, const char *prefix, bool lite_names) {
    const lc_config *c = &b->m->config;
    size_t n = lc_config_ngram_tables(c);
    if (n == 0) return;
    e->tables = allocate(b, n, sizeof *e->tables);
    if (!e->tables) return;
    e->n_tables = n;
    for (size_t i = 0; i < n && b->status == LC_OK; i++) {
        lc_ngram_table *t = &e->tables[i];
        lc_ngram_table_init(t, c, i);
        size_t width = c->hidden / n, rows = (size_t)t->modulus;
        if (lite_names) {
            bind(b, &t->rows, rows, width, "%s.ngram_embeddings.embedders.%zu.weight", prefix, i);
            bind(b, &t->projection, c->hidden, width, "%s.ngram_embeddings.post_projs.%zu.weight",
                 prefix, i);
        } else {
            bind(b, &t->rows, rows, width, "%s.oe_embed_tokens%zu.weight", prefix, i);
            bind(b, &t->projection, c->hidden, width, "%s.oe_embed_proj%zu.weight", prefix, i);
        }
        if (b->status == LC_OK) lc_mat_scattered(&t->rows);
    }
}

static lc_embedding embedding_of(const lc_config *c, const lc_mat *words) {
    return (lc_embedding){.words = words,
                          .full_word = c->switches.ngram_full_word,
                          .eos_reset = c->switches.ngram_eos_reset,
                          .eos = c->eos};
}

static void bind_mtp(binder *b) {
    lc_model *m = b->m;
    const lc_config *c = &m->config;
    const char *block = "model.mtp.layers.0";
    lc_mat eh_proj;
    lc_err ignored;
    if (b->status != LC_OK ||
        lc_mat_probe(m->tensors, "model.mtp.layers.0.eh_proj.weight", c->hidden, 2 * c->hidden,
                     &eh_proj, &ignored) == LC_ENOTFOUND)
        return;
    lc_mtp_weights *w = allocate(b, 1, sizeof *w);
    if (!w) return;
    m->mtp = w;
    bind(b, &w->words, c->vocab, c->hidden, "model.mtp.embed_tokens.weight");
    if (b->status == LC_OK) lc_mat_scattered(&w->words);
    bind(b, &w->eh_proj, c->hidden, 2 * c->hidden, "%s.eh_proj.weight", block);
    w->embedding = embedding_of(c, &w->words);
    if (c->switches.mtp_ngram) bind_ngrams(b, &w->embedding, "model.mtp", !c->ngram_oe_names);
    w->enorm = vector(b, c->hidden, "%s.enorm.m.weight", block);
    w->hnorm = vector(b, c->hidden, "%s.hnorm.m.weight", block);
    w->norm_in = vector(b, c->hidden, "%s.input_layernorm.weight", block);
    w->norm_post = vector(b, c->hidden, "%s.post_attention_layernorm.weight", block);
    w->norm = vector(b, c->hidden, "model.mtp.norm.weight");
    bind_attention(b, &w->attn, "model.mtp.layers.0.self_attn");
    if (m->sparse) bind_indexer(b, &w->index, "model.mtp.layers.0.self_attn");
    bind_ffn(b, &w->ffn, c->ffn, "model.mtp.layers.0.transformer_layer.mlp");
}

static int bind_model(lc_model *m, lc_err *err) {
    const lc_config *c = &m->config;
    binder b = {m, err, LC_OK};
    bind(&b, &m->words, c->vocab, c->hidden, "model.embed_tokens.weight");
    bind(&b, &m->head, c->vocab, c->hidden,
         c->tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    if (b.status == LC_OK && !c->tie_embeddings) lc_mat_scattered(&m->words);
    m->norm = vector(&b, c->hidden, "model.norm.weight");
    m->embedding = embedding_of(c, &m->words);
    bind_ngrams(&b, &m->embedding, "model", !c->ngram_oe_names);
    m->layers = allocate(&b, c->layers, sizeof *m->layers);
    for (size_t i = 0; i < c->layers && b.status == LC_OK; i++) bind_layer(&b, &m->layers[i], i);
    bind_mtp(&b);
    return b.status;
}

int lc_model_open(const char *path, const char *const *settings, size_t n_settings, lc_model **out,
                  lc_err *err) {
    *out = NULL;
    lc_model *m = lc_calloc(1, sizeof *m);
    if (!m) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    m->arena = lc_arena_new(0);
    int status = m->arena ? LC_OK : lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    if (status == LC_OK) status = lc_config_want_folder(path, err);
    if (status == LC_OK) status = lc_config_load(path, &m->config, err);
    for (size_t i = 0; i < n_settings && status == LC_OK; i++)
        status = lc_config_set(&m->config, settings[i], err);
    if (status == LC_OK) {
        m->sparse = m->config.index_heads > 0 && !m->config.switches.dense_attention;
        lc_mla_shape_init(&m->mla, &m->config);
        lc_index_shape_init(&m->index, &m->config);
        lc_moe_shape_init(&m->moe, &m->config);
        status = lc_rope_init(&m->rope, &m->config, err);
    }
    if (status == LC_OK) status = lc_tensors_open(path, &m->tensors, err);
    if (status == LC_OK) {
        lc_tensors_set_quant(m->tensors, &m->config.quant);
        status = bind_model(m, err);
    }
    if (status != LC_OK) {
        lc_model_close(m);
        return status;
    }
    *out = m;
    return LC_OK;
}

static int pack_attention(const lc_op *op, const lc_mla_shape *s, lc_mla_weights *w, lc_err *err) {
    return lc_kv_b_pack(op, s, &w->kv_b, &w->kv_b_packed, err);
}

int lc_model_pack(lc_model *m, const lc_op *op, lc_err *err) {
    int status = m->mtp ? pack_attention(op, &m->mla, &m->mtp->attn, err) : LC_OK;
    for (size_t i = 0; i < 2 * m->config.layers && status == LC_OK; i++)
        status = pack_attention(op, &m->mla, &m->layers[i / 2].attn[i % 2], err);
    return status;
}

/* ---- closing: matrices with resident copies and packed ones own memory ---- */

static void unbind_attention(lc_mla_weights *w) {
    lc_mat *mats[] = {&w->q_a, &w->q_b, &w->kv_a, &w->kv_b, &w->o};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++) lc_mat_unbind(mats[i]);
    lc_kv_b_free(&w->kv_b_packed);
}

static void unbind_indexer(lc_indexer_weights *w) {
    lc_mat_unbind(&w->wq_b);
    lc_mat_unbind(&w->wk);
    lc_mat_unbind(&w->weights);
}

static void unbind_ffn(lc_ffn_weights *w) {
    lc_mat_unbind(&w->gate);
    lc_mat_unbind(&w->up);
    lc_mat_unbind(&w->down);
}

static void unbind_embedding(lc_embedding *e) {
    for (size_t i = 0; i < e->n_tables; i++) {
        lc_mat_unbind(&e->tables[i].rows);
        lc_mat_unbind(&e->tables[i].projection);
    }
}

void lc_model_close(lc_model *m) {
    if (!m) return;
    for (size_t i = 0; m->layers && i < m->config.layers; i++) {
        lc_layer *l = &m->layers[i];
        for (int s = 0; s < 2; s++) {
            unbind_attention(&l->attn[s]);
            unbind_ffn(&l->ffn[s]);
        }
        unbind_indexer(&l->index);
        lc_mat_unbind(&l->moe.router);
        for (size_t e = 0; l->moe.experts && e < m->config.experts; e++)
            unbind_ffn((lc_ffn_weights *)&l->moe.experts[e]);
    }
    if (m->mtp) {
        lc_mat_unbind(&m->mtp->words);
        lc_mat_unbind(&m->mtp->eh_proj);
        unbind_embedding(&m->mtp->embedding);
        unbind_attention(&m->mtp->attn);
        unbind_indexer(&m->mtp->index);
        unbind_ffn(&m->mtp->ffn);
    }
    lc_mat_unbind(&m->words);
    lc_mat_unbind(&m->head);
    unbind_embedding(&m->embedding);
    lc_rope_free(&m->rope);
    lc_tensors_close(m->tensors);
    lc_arena_free(m->arena);
    lc_free(m);
}

static lc_kv_layout layout(const lc_model *m, size_t slots, size_t indexers, bool bf16) {
    const lc_config *c = &m->config;
    return (lc_kv_layout){slots, c->kv_rank + c->rope_dim, m->sparse ? indexers : 0, c->index_dim,
                          bf16 ? sizeof(uint16_t) : sizeof(float)};
}

lc_kv_layout lc_model_kv_layout(const lc_model *m, bool bf16) {
    return layout(m, 2 * m->config.layers, m->config.layers, bf16);
}
lc_kv_layout lc_model_mtp_layout(const lc_model *m, bool bf16) { return layout(m, 1, 1, bf16); }
