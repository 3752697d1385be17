/*
 * config_count.c: what follows from a config by arithmetic: n-gram table sizes, parameter counts
 * (docs/model.md 1.2) and bytes of context. Nothing overflows: config.c's ranges see to it.
 */
#include "format/config.h"

#include <math.h>

const char *lc_member_name(lc_member member) {
    switch (member) {
    case LC_MEMBER_FLASH: return "LongCat-Flash";
    case LC_MEMBER_LITE: return "LongCat-Flash-Lite";
    case LC_MEMBER_SPARSE: return "LongCat-Flash-Lite-Sparse";
    case LC_MEMBER_TWO: return "LongCat-2.0";
    }
    return "unknown";
}

size_t lc_config_ngram_rows(const lc_config *c, size_t table) {
    return (size_t)floor(c->ngram_ratio * (double)c->vocab + (double)(2 * table + 1));
}

/* One attention sublayer with its two latent norms. */
static uint64_t attention(const lc_config *c) {
    uint64_t h = c->hidden, q = c->q_rank, r = c->kv_rank;
    return h * q + q + q * c->heads * (c->nope_dim + c->rope_dim) + h * (r + c->rope_dim) + r +
           r * c->heads * (c->nope_dim + c->v_dim) + c->heads * c->v_dim * h;
}

static uint64_t indexer(const lc_config *c) {
    if (!c->index_heads) return 0;
    uint64_t h = c->hidden, d = c->index_dim;
    return c->q_rank * c->index_heads * d + h * d + d + h * c->index_heads;
}

static uint64_t swiglu(const lc_config *c, uint64_t width) { return 3 * c->hidden * width; }

/* The published design is 8 routed experts of 12 choices for every member (spec 1.2); for other K
 * the share of routed entries. */
static double average_experts(const lc_config *c) {
    if (c->topk == 12 && c->experts >= 8) return 8;
    return (double)c->topk * (double)c->experts / (double)(c->experts + c->zero_experts);
}

static void count_ngram(const lc_config *c, lc_param_counts *out) {
    size_t tables = lc_config_ngram_tables(c);
    uint64_t rows = 0;
    for (size_t i = 0; i < tables; i++) rows += lc_config_ngram_rows(c, i);
    if (!tables) return;
    out->ngram_tables = rows * (c->hidden / tables);
    out->ngram_projections = (uint64_t)c->hidden * c->hidden; /* T of [H][H/T] */
}

static void count_mtp(const lc_config *c, lc_param_counts *out) {
    if (!c->mtp_steps) return;
    uint64_t h = c->hidden, norms = 5 * h; /* enorm, hnorm, two of the layer, the final one */
    out->mtp = c->vocab * h + norms + 2 * h * h + attention(c) + swiglu(c, c->ffn) + indexer(c);
    if (c->member == LC_MEMBER_TWO) out->mtp_ngram = out->ngram_tables + out->ngram_projections;
}

void lc_config_count(const lc_config *c, lc_param_counts *out) {
    uint64_t layers = c->layers, h = c->hidden, entries = c->experts + c->zero_experts;
    uint64_t expert = swiglu(c, c->expert_ffn);
    *out = (lc_param_counts){
        .attention = 2 * layers * attention(c),
        .dense_ffn = 2 * layers * swiglu(c, c->ffn),
        .experts = layers * c->experts * expert,
        .routers = layers * (entries * h + entries),
        .norms = layers * 4 * h + h,
        .embedding = c->vocab * h,
        .head = c->tie_embeddings ? 0 : c->vocab * h,
        .indexers = layers * indexer(c),
        .average_experts = average_experts(c),
    };
    count_ngram(c, out);
    count_mtp(c, out);
    out->total = out->attention + out->dense_ffn + out->experts + out->routers + out->norms +
                 out->embedding + out->head + out->ngram_tables + out->ngram_projections +
                 out->indexers;
    out->active_zero = out->attention + out->dense_ffn + out->routers + out->norms + c->vocab * h +
                       out->ngram_projections + out->indexers;
    uint64_t most = c->topk < c->experts ? c->topk : c->experts;
    out->active_average =
        out->active_zero + (uint64_t)llround((double)(layers * expert) * out->average_experts);
    out->active_all = out->active_zero + layers * expert * most;
}

size_t lc_config_kv_bytes(const lc_config *c, size_t element) {
    size_t values = 2 * c->layers * (c->kv_rank + c->rope_dim);
    if (c->index_heads) values += c->layers * c->index_dim;
    return values * element;
}
