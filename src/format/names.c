/* names.c: every tensor of a config by name and shape, and what they would weigh. */
#include "format/names.h"

#include <stdarg.h>
#include <stdio.h>

static const struct {
    const char *key, *name;
} parts[LC_PART_COUNT] = {
    [LC_PART_EMBEDDING] = {"embedding", "word embedding"},
    [LC_PART_NGRAM_TABLES] = {"ngram_tables", "n-gram tables"},
    [LC_PART_NGRAM_PROJECTIONS] = {"ngram_projections", "n-gram projections"},
    [LC_PART_ATTENTION] = {"attention", "attention"},
    [LC_PART_DENSE] = {"dense_ffn", "dense FFNs"},
    [LC_PART_EXPERTS] = {"experts", "routed experts"},
    [LC_PART_ROUTERS] = {"routers", "routers"},
    [LC_PART_INDEXERS] = {"indexers", "indexers"},
    [LC_PART_NORMS] = {"norms", "norms"},
    [LC_PART_HEAD] = {"head", "head"},
    [LC_PART_MTP] = {"mtp", "draft module (MTP)"},
    [LC_PART_MTP_NGRAM] = {"mtp_ngram", "MTP's n-gram tables"},
};

const char *lc_part_name(lc_part part) {
    return part < LC_PART_COUNT ? parts[part].name : "unknown";
}

const char *lc_part_key(lc_part part) { return part < LC_PART_COUNT ? parts[part].key : "unknown"; }

const char *lc_storage_name(lc_storage storage) {
    static const char *const names[LC_STORE_COUNT] = {"BF16", "FP8", "INT8", "INT4"};
    return storage < LC_STORE_COUNT ? names[storage] : "unknown";
}

/* A walk over the names. emit1 and emit2 do nothing after a visitor has stopped it. */
typedef struct walk {
    const lc_config *c;
    lc_name_visit *visit;
    void *ctx;
    int status;
    char prefix[64]; /* of the names to come */
    lc_part part;
    lc_weight_class weight;
    bool packed;
} walk;

static void emit(walk *w, const char *name, int rank, size_t rows, size_t cols) {
    char text[128];
    if (w->status != LC_OK) return;
    snprintf(text, sizeof text, "%s%s", w->prefix, name);
    lc_name n = {text, rank, .part = w->part, .weight = w->weight, .packed = w->packed};
    n.shape[0] = rank == 1 ? cols : rows;
    n.shape[1] = rank == 1 ? 0 : cols;
    w->status = w->visit(w->ctx, &n);
}

static void emit1(walk *w, const char *name, size_t len) { emit(w, name, 1, 1, len); }
static void emit2(walk *w, const char *name, size_t rows, size_t cols) {
    emit(w, name, 2, rows, cols);
}

/* A numbered name: fmt has one %zu. */
__attribute__((format(printf, 2, 5))) static void emit_at(walk *w, const char *fmt, size_t rows,
                                                          size_t cols, ...) {
    char text[64];
    va_list args;
    va_start(args, cols);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    emit2(w, text, rows, cols);
}

__attribute__((format(printf, 4, 5))) static void
enter(walk *w, lc_part part, lc_weight_class weight, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(w->prefix, sizeof w->prefix, fmt, args);
    va_end(args);
    w->part = part;
    w->weight = weight;
}

/* The seven MLA tensors; the prefix ends in self_attn.N. */
static void attention(walk *w) {
    const lc_config *c = w->c;
    emit2(w, "q_a_proj.weight", c->q_rank, c->hidden);
    emit2(w, "q_b_proj.weight", c->heads * (c->nope_dim + c->rope_dim), c->q_rank);
    emit2(w, "kv_a_proj_with_mqa.weight", c->kv_rank + c->rope_dim, c->hidden);
    w->packed = true;
    emit2(w, "kv_b_proj.weight", c->heads * (c->nope_dim + c->v_dim), c->kv_rank);
    w->packed = false;
    emit2(w, "o_proj.weight", c->hidden, c->heads * c->v_dim);
    w->weight = LC_WEIGHT_BF16;
    emit1(w, "q_a_layernorm.weight", c->q_rank);
    emit1(w, "kv_a_layernorm.weight", c->kv_rank);
}

static void indexer(walk *w) {
    const lc_config *c = w->c;
    w->weight = LC_WEIGHT_BF16;
    emit2(w, "indexer.wq_b.weight", c->index_heads * c->index_dim, c->q_rank);
    emit2(w, "indexer.wk.weight", c->index_dim, c->hidden);
    emit1(w, "indexer.k_norm.weight", c->index_dim);
    w->weight = LC_WEIGHT_F32;
    emit2(w, "indexer.weights_proj.weight", c->index_heads, c->hidden);
}

static void swiglu(walk *w, size_t width) {
    emit2(w, "gate_proj.weight", width, w->c->hidden);
    emit2(w, "up_proj.weight", width, w->c->hidden);
    emit2(w, "down_proj.weight", w->c->hidden, width);
}

static void ngram(walk *w, lc_part tables_part, lc_part projections_part, const char *prefix) {
    const lc_config *c = w->c;
    size_t tables = lc_config_ngram_tables(c);
    for (size_t i = 0; i < tables; i++) {
        size_t width = c->hidden / tables, rows = lc_config_ngram_rows(c, i);
        enter(w, tables_part, LC_WEIGHT_BF16, "%s", prefix);
        if (c->ngram_oe_names)
            emit_at(w, "oe_embed_tokens%zu.weight", rows, width, i);
        else
            emit_at(w, "ngram_embeddings.embedders.%zu.weight", rows, width, i);
        w->part = projections_part;
        if (c->ngram_oe_names)
            emit_at(w, "oe_embed_proj%zu.weight", c->hidden, width, i);
        else
            emit_at(w, "ngram_embeddings.post_projs.%zu.weight", c->hidden, width, i);
    }
}

static void layer(walk *w, size_t l) {
    const lc_config *c = w->c;
    size_t entries = c->experts + c->zero_experts;
    for (int s = 0; s < 2; s++) {
        enter(w, LC_PART_NORMS, LC_WEIGHT_BF16, "model.layers.%zu.", l);
        emit1(w, s ? "input_layernorm.1.weight" : "input_layernorm.0.weight", c->hidden);
        emit1(w, s ? "post_attention_layernorm.1.weight" : "post_attention_layernorm.0.weight",
              c->hidden);
        enter(w, LC_PART_ATTENTION, LC_WEIGHT_PROJ, "model.layers.%zu.self_attn.%d.", l, s);
        attention(w);
        enter(w, LC_PART_DENSE, LC_WEIGHT_FFN, "model.layers.%zu.mlps.%d.", l, s);
        swiglu(w, c->ffn);
    }
    if (c->index_heads) {
        enter(w, LC_PART_INDEXERS, LC_WEIGHT_BF16, "model.layers.%zu.self_attn.0.", l);
        indexer(w);
    }
    enter(w, LC_PART_ROUTERS, LC_WEIGHT_F32, "model.layers.%zu.mlp.router.", l);
    emit2(w, "classifier.weight", entries, c->hidden);
    emit1(w, "e_score_correction_bias", entries);
    for (size_t e = 0; e < c->experts && w->status == LC_OK; e++) {
        enter(w, LC_PART_EXPERTS, LC_WEIGHT_FFN, "model.layers.%zu.mlp.experts.%zu.", l, e);
        swiglu(w, c->expert_ffn);
    }
}

static void draft(walk *w) {
    const lc_config *c = w->c;
    enter(w, LC_PART_MTP, LC_WEIGHT_BF16, "model.mtp.");
    emit2(w, "embed_tokens.weight", c->vocab, c->hidden);
    emit1(w, "norm.weight", c->hidden);
    emit1(w, "layers.0.enorm.m.weight", c->hidden);
    emit1(w, "layers.0.hnorm.m.weight", c->hidden);
    emit1(w, "layers.0.input_layernorm.weight", c->hidden);
    emit1(w, "layers.0.post_attention_layernorm.weight", c->hidden);
    w->weight = LC_WEIGHT_PROJ;
    emit2(w, "layers.0.eh_proj.weight", c->hidden, 2 * c->hidden);
    enter(w, LC_PART_MTP, LC_WEIGHT_PROJ, "model.mtp.layers.0.self_attn.");
    attention(w);
    if (c->index_heads) indexer(w);
    enter(w, LC_PART_MTP, LC_WEIGHT_FFN, "model.mtp.layers.0.transformer_layer.mlp.");
    swiglu(w, c->ffn);
    if (c->ngram_oe_names) ngram(w, LC_PART_MTP_NGRAM, LC_PART_MTP_NGRAM, "model.mtp.");
}

int lc_names_expected(const lc_config *config, lc_name_visit *visit, void *ctx) {
    walk w = {.c = config, .visit = visit, .ctx = ctx};
    enter(&w, LC_PART_EMBEDDING, LC_WEIGHT_BF16, "model.");
    emit2(&w, "embed_tokens.weight", config->vocab, config->hidden);
    ngram(&w, LC_PART_NGRAM_TABLES, LC_PART_NGRAM_PROJECTIONS, "model.");
    for (size_t l = 0; l < config->layers && w.status == LC_OK; l++) layer(&w, l);
    enter(&w, LC_PART_NORMS, LC_WEIGHT_BF16, "model.");
    emit1(&w, "norm.weight", config->hidden);
    enter(&w, LC_PART_HEAD, LC_WEIGHT_BF16, "%s", "");
    if (!config->tie_embeddings) emit2(&w, "lm_head.weight", config->vocab, config->hidden);
    draft(&w);
    return w.status;
}

void lc_part_add(lc_part_sum *sum, const lc_name *n, uint64_t bytes, bool codes) {
    uint64_t elements = n->rank == 1 ? n->shape[0] : (uint64_t)n->shape[0] * n->shape[1];
    sum->tensors++;
    sum->elements += elements;
    sum->bytes += bytes;
    if (!n->packed) return;
    if (codes) {
        sum->packed_codes += bytes;
        return;
    }
    sum->packed += elements;
    sum->replaced += bytes;
}

typedef struct estimate {
    const lc_config *c;
    lc_storage storage;
    lc_part_sum *out;
} estimate;

static uint64_t stored_bytes(const lc_name *n, lc_storage storage) {
    uint64_t rows = n->rank == 1 ? 1 : n->shape[0], cols = n->rank == 1 ? n->shape[0] : n->shape[1];
    uint64_t count = rows * cols, block = LC_SCALE_BLOCK_SIZE;
    bool ffn = n->weight == LC_WEIGHT_FFN, proj = ffn || n->weight == LC_WEIGHT_PROJ;
    if (storage == LC_STORE_FP8 && proj)
        return count + 4 * ((rows + block - 1) / block) * ((cols + block - 1) / block);
    if (storage == LC_STORE_INT8 && ffn) return count + 4 * rows;
    if (storage == LC_STORE_INT4 && proj)
        return rows * ((cols + 1) / 2) + 2 * rows * ((cols + 63) / 64);
    return count * (n->weight == LC_WEIGHT_F32 ? 4 : 2);
}

static int add_estimate(void *ctx, const lc_name *n) {
    const estimate *e = ctx;
    if (n->part >= LC_PART_MTP && !e->c->mtp_steps) return LC_OK;
    if (n->part == LC_PART_MTP_NGRAM && e->c->member != LC_MEMBER_TWO) return LC_OK;
    lc_part_add(&e->out[n->part], n, stored_bytes(n, e->storage), e->storage == LC_STORE_INT4);
    return LC_OK;
}

void lc_names_estimate(const lc_config *config, lc_storage storage,
                       lc_part_sum out[LC_PART_COUNT]) {
    estimate e = {config, storage, out};
    memset(out, 0, LC_PART_COUNT * sizeof *out);
    (void)lc_names_expected(config, add_estimate, &e); /* the visitor never stops it */
}
