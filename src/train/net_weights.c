/* net_weights.c: binds tensors by meaning, and keeps every matrix packed in the compute type, once
 * for the way forward and once for the way back, as products want it. */
#include "train/net_parts.h"

#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool exact(const lc_param *x) {
    return x->group == LC_GROUP_ROUTER || x->group == LC_GROUP_INDEX_WEIGHTS;
}

static bool multiplied(const lc_params *p, const lc_param *x) {
    if (x->rank == 1 || x->group == LC_GROUP_UNUSED) return false;
    if (x->group != LC_GROUP_EMBEDDING) return true;
    return p->config.tie_embeddings && x->part == LC_PART_EMBEDDING;
}

static const lc_gemm_path *path_of(const lc_net_options *o, const lc_param *x) {
    return o->bf16 && !exact(x) ? &o->kernels->bf16 : &o->kernels->f32;
}

/* Bytes of a tensor's two packed sides; SIZE_MAX: too large. */
static size_t copy_bytes(const lc_params *p, const lc_param *x, const lc_net_options *o) {
    size_t bytes;
    if (!multiplied(p, x)) return 0;
    if (!lc_size_mul(x->rows + 64, x->cols + 64, &bytes) || bytes > SIZE_MAX / 16) return SIZE_MAX;
    return lc_weight_forward_bytes(path_of(o, x), x->rows, x->cols) +
           lc_weight_back_bytes(path_of(o, x), x->rows, x->cols);
}

size_t lc_net_copy_bytes(const lc_params *p, const lc_net_options *o) {
    size_t total = 0;
    for (size_t i = 0; i < p->count; i++)
        if (!lc_size_add(total, copy_bytes(p, &p->list[i], o), &total)) return SIZE_MAX;
    return total;
}

/* ---- copies ---- */

static lc_weight weight_of(const lc_net *net, const lc_param *x, void *place) {
    size_t forward = lc_weight_forward_bytes(path_of(&net->o, x), x->rows, x->cols);
    return (lc_weight){.rows = x->rows,
                       .cols = x->cols,
                       .values = lc_param_values(net->params, x),
                       .forward = place,
                       .back = place ? (char *)place + forward : NULL,
                       .at = x->offset};
}

/* Items are tensors. */
static void refresh_tensors(void *ctx, size_t begin, size_t end, int thread) {
    const lc_net *net = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const lc_param *x = &net->params->list[i];
        if (!net->places[i]) continue;
        lc_weight w = weight_of(net, x, net->places[i]);
        lc_weight_pack_forward(path_of(&net->o, x), &w, 0, w.cols);
        lc_weight_pack_back(path_of(&net->o, x), &w, 0, w.rows);
    }
}

void lc_net_refresh(lc_net *net) {
    lc_pool_for(net->o.pool, net->params->count, 1, refresh_tensors, net);
}

/* Where a tensor's copy is, for all tensors: [count], NULL without one. */
static void **copy_places(lc_net *net) {
    const lc_params *p = net->params;
    void **places = lc_calloc(p->count, sizeof *places);
    char *at = net->copies;
    for (size_t i = 0; places && i < p->count; i++) {
        size_t bytes = copy_bytes(p, &p->list[i], &net->o);
        places[i] = bytes ? at : NULL;
        at += bytes;
    }
    return places;
}

/* ---- binding ---- */

typedef struct binder {
    lc_net *net;
    lc_err *err;
    int status; /* nothing is done after a failure */
} binder;

__attribute__((format(printf, 3, 4))) static void bind(binder *b, lc_weight *out, const char *fmt,
                                                       ...) {
    char name[256];
    va_list args;
    if (b->status != LC_OK) return;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    const lc_params *p = b->net->params;
    const lc_param *x = lc_params_find(p, name);
    if (!x) {
        b->status = lc_fail(b->err, LC_ENOTFOUND, "training net: no tensor %s", name);
        return;
    }
    *out = weight_of(b->net, x, b->net->places[x - p->list]);
}

static void *allocate(binder *b, size_t count, size_t size) {
    void *block = b->status == LC_OK ? lc_arena_calloc(b->net->arena, count, size) : NULL;
    if (!block && b->status == LC_OK)
        b->status = lc_fail(b->err, LC_ENOMEM, "training net: out of memory");
    return block;
}

static void bind_attention(binder *b, lc_mla_net *w, const char *at) {
    bind(b, &w->q_a, "%s.q_a_proj.weight", at);
    bind(b, &w->q_a_norm, "%s.q_a_layernorm.weight", at);
    bind(b, &w->q_b, "%s.q_b_proj.weight", at);
    bind(b, &w->kv_a, "%s.kv_a_proj_with_mqa.weight", at);
    bind(b, &w->kv_a_norm, "%s.kv_a_layernorm.weight", at);
    bind(b, &w->kv_b, "%s.kv_b_proj.weight", at);
    bind(b, &w->o, "%s.o_proj.weight", at);
}

static void bind_index(binder *b, lc_index_net *w, const char *at) {
    bind(b, &w->wq_b, "%s.indexer.wq_b.weight", at);
    bind(b, &w->wk, "%s.indexer.wk.weight", at);
    bind(b, &w->k_norm, "%s.indexer.k_norm.weight", at);
    bind(b, &w->weights, "%s.indexer.weights_proj.weight", at);
}

static void bind_ffn(binder *b, lc_ffn_net *w, const char *at) {
    bind(b, &w->gate, "%s.gate_proj.weight", at);
    bind(b, &w->up, "%s.up_proj.weight", at);
    bind(b, &w->down, "%s.down_proj.weight", at);
}

static void bind_layer(binder *b, lc_layer_net *l, size_t i) {
    const lc_config *c = b->net->c;
    char at[128];
    for (int s = 0; s < 2; s++) {
        lc_block_net *half = &l->half[s];
        bind(b, &half->norm_in, "model.layers.%zu.input_layernorm.%d.weight", i, s);
        bind(b, &half->norm_post, "model.layers.%zu.post_attention_layernorm.%d.weight", i, s);
        snprintf(at, sizeof at, "model.layers.%zu.self_attn.%d", i, s);
        bind_attention(b, &half->attn, at);
        if (s == 0 && b->net->sparse) bind_index(b, &l->index, at);
        snprintf(at, sizeof at, "model.layers.%zu.mlps.%d", i, s);
        bind_ffn(b, &half->ffn, at);
    }
    lc_weight bias = {0};
    bind(b, &l->moe.router, "model.layers.%zu.mlp.router.classifier.weight", i);
    bind(b, &bias, "model.layers.%zu.mlp.router.e_score_correction_bias", i);
    l->moe.bias = bias.values;
    lc_ffn_net *experts = allocate(b, c->experts, sizeof *experts);
    l->moe.experts = experts;
    for (size_t e = 0; e < c->experts && b->status == LC_OK; e++) {
        snprintf(at, sizeof at, "model.layers.%zu.mlp.experts.%zu", i, e);
        bind_ffn(b, &experts[e], at);
    }
}

static void bind_words(binder *b, lc_embed_net *w, const char *name) {
    const lc_config *c = b->net->c;
    bind(b, &w->words, "%s", name);
    w->full_word = c->switches.ngram_full_word;
    w->eos_reset = c->switches.ngram_eos_reset;
    w->eos = c->eos;
}

static void bind_ngrams(binder *b, lc_embed_net *w) {
    const lc_config *c = b->net->c;
    size_t count = lc_config_ngram_tables(c);
    if (!count) return;
    lc_ngram_table *tables = allocate(b, count, sizeof *tables);
    lc_weight *rows = allocate(b, count, sizeof *rows),
              *projections = allocate(b, count, sizeof *projections);
    w->n_tables = count;
    w->tables = tables;
    w->table_rows = rows;
    w->projections = projections;
    for (size_t i = 0; i < count && b->status == LC_OK; i++) {
        lc_ngram_table_init(&tables[i], c, i);
        if (c->ngram_oe_names) {
            bind(b, &rows[i], "model.oe_embed_tokens%zu.weight", i);
            bind(b, &projections[i], "model.oe_embed_proj%zu.weight", i);
        } else {
            bind(b, &rows[i], "model.ngram_embeddings.embedders.%zu.weight", i);
            bind(b, &projections[i], "model.ngram_embeddings.post_projs.%zu.weight", i);
        }
    }
}

static void bind_draft(binder *b, lc_draft_net *w) {
    const char *at = "model.mtp.layers.0";
    bind_words(b, &w->words, "model.mtp.embed_tokens.weight");
    bind(b, &w->enorm, "%s.enorm.m.weight", at);
    bind(b, &w->hnorm, "%s.hnorm.m.weight", at);
    bind(b, &w->eh_proj, "%s.eh_proj.weight", at);
    bind(b, &w->norm, "model.mtp.norm.weight");
    bind(b, &w->block.norm_in, "%s.input_layernorm.weight", at);
    bind(b, &w->block.norm_post, "%s.post_attention_layernorm.weight", at);
    bind_attention(b, &w->block.attn, "model.mtp.layers.0.self_attn");
    if (b->net->sparse) bind_index(b, &w->index, "model.mtp.layers.0.self_attn");
    bind_ffn(b, &w->block.ffn, "model.mtp.layers.0.transformer_layer.mlp");
}

int lc_net_bind(lc_net *net, lc_err *err) {
    const lc_config *c = net->c;
    size_t bytes = lc_net_copy_bytes(net->params, &net->o);
    net->copies = bytes < SIZE_MAX ? lc_alloc_dense(bytes, false) : NULL;
    binder b = {.net = net, .err = err};
    if (net->copies) net->places = copy_places(net);
    if (!net->places)
        return lc_fail(err, LC_ENOMEM, "training net: no %zu bytes for weights left", bytes);
    bind_words(&b, &net->words, "model.embed_tokens.weight");
    bind_ngrams(&b, &net->words);
    bind(&b, &net->norm, "model.norm.weight");
    bind(&b, &net->head, "%s", c->tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    net->layers = allocate(&b, c->layers, sizeof *net->layers);
    for (size_t i = 0; i < c->layers && b.status == LC_OK; i++) bind_layer(&b, &net->layers[i], i);
    if (net->o.mtp_steps) bind_draft(&b, &net->draft);
    return b.status;
}
