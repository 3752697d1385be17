/*
 * forward.c: the forward pass as a list of operators; reads like docs/model.md 2.4 to 2.7.
 *
 * A layer (ScMoE): the mixture of experts branches off behind the first attention and lands behind
 * the second dense FFN.
 */
#include "model/forward.h"

#include "base/cpu.h"

#include <stdio.h>
#include <string.h>

typedef struct pass {
    const lc_model *m;
    lc_work *w;
    const lc_step *step;
    lc_err *err;
} pass;

/* ---- probes ---- */

/* A part outside of the layers, or of one: "layers.3.moe". */
enum { NO_LAYER = -1 };

static void emit(const pass *p, lc_dtype type, size_t cols, const void *data, int layer,
                 const char *part) {
    if (!p->step->probe || !p->step->probe->emit) return;
    char name[64];
    if (layer == NO_LAYER)
        snprintf(name, sizeof name, "%s", part);
    else
        snprintf(name, sizeof name, "layers.%d.%s", layer, part);
    p->step->probe->emit(p->step->probe->ctx, name, type, p->step->m, cols, cols, data);
}

static void emit_hidden(const pass *p, const float *data, int layer, const char *part) {
    emit(p, LC_F32, p->m->config.hidden, data, layer, part);
}

static void emit_index(const pass *p, const char *prefix) {
    const lc_probe *probe = p->step->probe;
    if (!probe || !probe->emit) return;
    char name[64];
    size_t topk = p->m->index.topk;
    for (size_t i = 0; i < p->step->m; i++)
        for (size_t j = p->w->index.count[i]; j < topk; j++) p->w->index.list[i * topk + j] = -1;
    snprintf(name, sizeof name, "%sindex.selected", prefix);
    probe->emit(probe->ctx, name, LC_I32, p->step->m, topk, topk, p->w->index.list);
    snprintf(name, sizeof name, "%sindex.scores", prefix);
    if (probe->scores)
        probe->emit(probe->ctx, name, LC_F32, p->step->m, probe->ld_scores, probe->ld_scores,
                    probe->scores);
}

static void emit_router(const pass *p, size_t layer) {
    const lc_moe_buffers *b = &p->w->moe;
    size_t entries = p->m->moe.experts + p->m->moe.zero_experts, k = p->m->moe.topk;
    emit(p, LC_F32, entries, b->logits, (int)layer, "router.logits");
    emit(p, LC_F32, entries, b->probs, (int)layer, "router.probs");
    emit(p, LC_I32, k, b->ids, (int)layer, "router.ids");
    emit(p, LC_F32, k, b->weights, (int)layer, "router.weights");
}

/* ---- parts ---- */

static void lap(const pass *p, lc_stage stage) { lc_op_lap(&p->w->op, stage); }

/* work->norm = norm(h); returns it as operand. */
static lc_operand normed(const pass *p, const float *h, const float *weight) {
    size_t hidden = p->m->config.hidden;
    lc_work *w = p->w;
    lc_norm norm = {weight, (float)p->m->config.norm_eps, 1.0f};
    lc_norm_rows(&w->op, p->step->m, hidden, h, hidden, norm, w->norm, hidden);
    lap(p, LC_STAGE_NORM);
    return lc_operand_of(p->step->m, hidden, w->norm, hidden, w->operand);
}

static lc_rope_rows rope_rows(const pass *p) { return (lc_rope_rows){p->w->cosines, p->w->sines}; }

static int choose_keys(const pass *p, const lc_indexer_weights *weights, size_t indexer,
                       lc_operand *x, lc_operand *c_q) {
    lc_index_args args = {
        .rows = p->step->rows,
        .rope = rope_rows(p),
        .indexer = indexer,
        .x = x,
        .c_q = c_q,
        .context = p->w->size.context,
        .force_lists = p->step->probe != NULL,
        .probe = p->step->probe,
    };
    int status = lc_index(&p->w->op, &p->m->index, weights, &args, &p->w->index, p->err);
    lap(p, LC_STAGE_INDEX);
    return status;
}

static lc_keys chosen_keys(const pass *p) {
    if (!p->m->sparse) return (lc_keys){0};
    return (lc_keys){p->w->index.list, p->m->index.topk, p->w->index.count};
}

/* work->sub = attention of the normed input x over the given keys. */
static int attention(const pass *p, const lc_mla_weights *weights, size_t slot, lc_operand *x,
                     lc_operand *c_q, lc_keys keys) {
    lc_mla_args args = {p->step->rows, rope_rows(p), slot, keys};
    int status =
        lc_mla(&p->w->op, &p->m->mla, weights, x, c_q, &args, &p->w->mla, p->w->sub, p->err);
    lap(p, LC_STAGE_PROJECT); /* attention itself has its own, in lc_mla */
    return status;
}

static void add_to_residual(const pass *p, const float *x) {
    lc_add(&p->w->op, p->step->m * p->m->config.hidden, x, p->w->h);
    lap(p, LC_STAGE_NORM);
}

/* The query latent, which the indexer needs before attention. */
static int query_latent(const pass *p, const lc_mla_weights *weights, lc_operand *x,
                        lc_operand *c_q) {
    int status = lc_mla_query_latent(&p->w->op, &p->m->mla, weights, x, &p->w->mla, c_q, p->err);
    lap(p, LC_STAGE_PROJECT);
    return status;
}

/* work->sub = FFN(x). */
static int dense_ffn(const pass *p, const lc_ffn_weights *weights, lc_operand *x) {
    int status = lc_ffn(&p->w->op, weights, x, &p->w->ffn, p->w->sub, p->err);
    lap(p, LC_STAGE_DENSE);
    return status;
}

static void fill_rope_rows(const pass *p) {
    lc_rope_rows_fill(&p->w->op, &p->m->rope, p->step->m, p->step->rows, p->w->cosines,
                      p->w->sines);
    lap(p, LC_STAGE_NORM);
}

/* h += Attn(n_in(h)): sublayer 0 also chooses the keys of both. */
static int attention_sublayer(const pass *p, size_t layer, int sub) {
    const lc_layer *l = &p->m->layers[layer];
    lc_operand x = normed(p, p->w->h, l->norm_in[sub]), c_q;
    int status = query_latent(p, &l->attn[sub], &x, &c_q);
    if (status == LC_OK && sub == 0 && p->m->sparse) {
        status = choose_keys(p, &l->index, layer, &x, &c_q);
        char prefix[32];
        snprintf(prefix, sizeof prefix, "layers.%zu.", layer);
        if (status == LC_OK) emit_index(p, prefix);
    }
    if (status == LC_OK)
        status = attention(p, &l->attn[sub], 2 * layer + (size_t)sub, &x, &c_q, chosen_keys(p));
    if (status != LC_OK) return status;
    emit_hidden(p, p->w->sub, (int)layer, sub ? "attn.1" : "attn.0");
    add_to_residual(p, p->w->sub);
    return LC_OK;
}

/* h += FFN(x) for the normed input x. */
static int ffn_sublayer(const pass *p, size_t layer, int sub, lc_operand *x) {
    int status = dense_ffn(p, &p->m->layers[layer].ffn[sub], x);
    if (status != LC_OK) return status;
    emit_hidden(p, p->w->sub, (int)layer, sub ? "ffn.1" : "ffn.0");
    add_to_residual(p, p->w->sub);
    return LC_OK;
}

static void keep_routes(const pass *p, size_t layer) {
    size_t topk = p->m->moe.topk, layers = p->m->config.layers;
    if (!p->w->routes) return;
    for (size_t i = 0; i < p->step->m; i++)
        memcpy(p->w->routes + (i * layers + layer) * topk, p->w->moe.ids + i * topk,
               topk * sizeof *p->w->routes);
}

/* work->moe_out = MoE(u), the shortcut branch. */
static int moe_branch(const pass *p, size_t layer) {
    const lc_moe_weights *moe = &p->m->layers[layer].moe;
    int status = lc_route(&p->w->op, &p->m->moe, moe, p->step->m, p->w->norm, &p->w->moe, p->err);
    if (status != LC_OK) return status;
    emit_router(p, layer);
    keep_routes(p, layer);
    lap(p, LC_STAGE_ROUTE);
    status = lc_moe(&p->w->op, &p->m->moe, moe, p->step->m, p->w->norm, &p->w->moe, p->w->moe_out,
                    p->err);
    lap(p, LC_STAGE_EXPERTS);
    if (status == LC_OK) emit_hidden(p, p->w->moe_out, (int)layer, "moe");
    return status;
}

static int layer_forward(const pass *p, size_t layer) {
    const lc_layer *l = &p->m->layers[layer];
    int status = attention_sublayer(p, layer, 0);
    if (status != LC_OK) return status;
    lc_operand u = normed(p, p->w->h, l->norm_post[0]);
    status = moe_branch(p, layer);
    if (status == LC_OK) status = ffn_sublayer(p, layer, 0, &u);
    if (status == LC_OK) status = attention_sublayer(p, layer, 1);
    if (status != LC_OK) return status;
    u = normed(p, p->w->h, l->norm_post[1]);
    status = ffn_sublayer(p, layer, 1, &u);
    if (status != LC_OK) return status;
    add_to_residual(p, p->w->moe_out);
    emit_hidden(p, p->w->h, (int)layer, "out");
    return LC_OK;
}

/* work->hidden = final norm; logits of the wanted rows. */
static int output(const pass *p, const float *weight) {
    size_t hidden = p->m->config.hidden, vocab = p->m->config.vocab, n = p->step->n_logits;
    lc_norm norm = {weight, (float)p->m->config.norm_eps, 1.0f};
    lc_work *w = p->w;
    lc_norm_rows(&w->op, p->step->m, hidden, w->h, hidden, norm, w->hidden, hidden);
    lap(p, LC_STAGE_NORM);
    if (!n) return LC_OK;
    for (size_t i = 0; i < n; i++)
        memcpy(w->sub + i * hidden, w->hidden + p->step->logit_rows[i] * hidden,
               hidden * sizeof *w->sub);
    lc_operand x = lc_operand_of(n, hidden, w->sub, hidden, w->operand);
    int status = lc_linear(&w->op, &p->m->head, &x, p->step->logits, vocab, p->err);
    lap(p, LC_STAGE_HEAD);
    return status;
}

/* ---- the two passes ---- */

static int main_pass(const pass *p) {
    const lc_model *m = p->m;
    lc_work *w = p->w;
    lc_op_start(&w->op);
    fill_rope_rows(p);
    int status =
        lc_embed(&w->op, &m->embedding, p->step->m, p->step->rows, w->gather, w->h, p->err);
    lap(p, LC_STAGE_EMBED);
    if (status == LC_OK) emit_hidden(p, w->h, NO_LAYER, "embed");
    for (size_t l = 0; l < m->config.layers && status == LC_OK; l++) status = layer_forward(p, l);
    if (status == LC_OK) status = output(p, m->norm);
    if (status == LC_OK) emit_hidden(p, w->hidden, NO_LAYER, "norm");
    return status;
}

/* work->h = eh_proj [RMS(embedding); RMS(previous hidden)], in the order that the switch mtp_concat
 * says. */
static int draft_input(const pass *p, const lc_draft *d) {
    const lc_mtp_weights *mtp = p->m->mtp;
    lc_work *w = p->w;
    size_t m = p->step->m, hidden = p->m->config.hidden;
    float eps = (float)p->m->config.norm_eps;
    lc_norm enorm = {mtp->enorm, eps, 1.0f}, hnorm = {mtp->hnorm, eps, 1.0f};
    bool he = p->m->config.switches.mtp_concat_he;
    int status = lc_embed(&w->op, &mtp->embedding, m, p->step->rows, w->gather, w->norm, p->err);
    if (status != LC_OK) return status;
    float *e = w->pair + (he ? hidden : 0), *h = w->pair + (he ? 0 : hidden);
    lc_norm_rows(&w->op, m, hidden, w->norm, hidden, enorm, e, 2 * hidden);
    lc_norm_rows(&w->op, m, hidden, d->previous, hidden, hnorm, h, 2 * hidden);
    lc_operand pair = lc_operand_of(m, 2 * hidden, w->pair, 2 * hidden, w->operand);
    return lc_linear(&w->op, &mtp->eh_proj, &pair, w->h, hidden, p->err);
}

static int draft_pass(const pass *p, const lc_draft *d) {
    const lc_mtp_weights *mtp = p->m->mtp;
    lc_work *w = p->w;
    lc_op_start(&w->op);
    fill_rope_rows(p);
    int status = draft_input(p, d);
    lap(p, LC_STAGE_EMBED);
    if (status != LC_OK) return status;
    lc_operand x = normed(p, w->h, mtp->norm_in), c_q;
    status = query_latent(p, &mtp->attn, &x, &c_q);
    if (status == LC_OK && !d->keys && p->m->sparse) {
        status = choose_keys(p, &mtp->index, 0, &x, &c_q);
        if (status == LC_OK) emit_index(p, "mtp.");
    }
    if (status == LC_OK)
        status = attention(p, &mtp->attn, 0, &x, &c_q, d->keys ? *d->keys : chosen_keys(p));
    if (status != LC_OK) return status;
    add_to_residual(p, w->sub);
    x = normed(p, w->h, mtp->norm_post);
    status = dense_ffn(p, &mtp->ffn, &x);
    if (status != LC_OK) return status;
    add_to_residual(p, w->sub);
    return output(p, mtp->norm);
}

int lc_forward(const lc_model *model, lc_work *work, const lc_step *step, lc_err *err) {
    pass p = {model, work, step, err};
    uint64_t fp = lc_fp_enter();
    int status = main_pass(&p);
    lc_fp_leave(fp);
    return status;
}

int lc_mtp_forward(const lc_model *model, lc_work *work, const lc_step *step, const lc_draft *draft,
                   lc_err *err) {
    pass p = {model, work, step, err};
    uint64_t fp = lc_fp_enter();
    int status = draft_pass(&p, draft);
    lc_fp_leave(fp);
    return status;
}
