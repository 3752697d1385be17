/* net_plan.c: the memory of a training net: one block, whose size follows from config and options
 * alone. */
#include "train/net_parts.h"

#include "base/err.h"

#include <string.h>

/* Cuts pieces from a block; without one it only counts. */
typedef struct cutter {
    char *base;
    size_t used;
    bool overflow;
} cutter;

static void *take(cutter *cut, size_t count, size_t size) {
    size_t bytes = 0, end, at = cut->used;
    if (!lc_size_mul(count, size, &bytes) || !lc_size_align(bytes, 64, &bytes) ||
        !lc_size_add(at, bytes, &end))
        cut->overflow = true;
    else
        cut->used = end;
    return cut->base ? cut->base + at : NULL;
}

static float *floats(cutter *cut, size_t rows, size_t cols) {
    size_t count = 0;
    if (!lc_size_mul(rows, cols, &count)) cut->overflow = true;
    return take(cut, count, sizeof(float));
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* ---- kept activations ---- */

static void cut_block(const lc_net *n, cutter *cut, size_t m, lc_block_state *s, bool with_input) {
    const lc_config *c = n->c;
    size_t heads = c->heads;
    if (with_input) s->in = floats(cut, m, c->hidden);
    s->normed = floats(cut, m, c->hidden);
    s->mla.qa = floats(cut, m, c->q_rank);
    s->mla.cq = floats(cut, m, c->q_rank);
    s->mla.q = floats(cut, m, heads * (c->nope_dim + c->rope_dim));
    s->mla.kv = floats(cut, m, c->kv_rank + c->rope_dim);
    s->mla.latent = floats(cut, m, c->kv_rank);
    s->mla.key = floats(cut, m, c->rope_dim);
    s->mla.kvb = floats(cut, m, heads * (c->nope_dim + c->v_dim));
    s->mla.heads = floats(cut, m, heads * c->v_dim);
    s->mla.max = floats(cut, m, heads);
    s->mla.inverse = floats(cut, m, heads);
    s->mid = floats(cut, m, c->hidden);
    s->post = floats(cut, m, c->hidden);
    s->ffn.gate = floats(cut, m, c->ffn);
    s->ffn.up = floats(cut, m, c->ffn);
}

static void cut_moe(const lc_net *n, cutter *cut, lc_moe_state *s) {
    const lc_config *c = n->c;
    size_t m = n->o.tokens, entries = c->experts + c->zero_experts;
    size_t choices = m * c->topk; /* topk and m are bounded by the config's and options' limits */
    s->probs = floats(cut, m, entries);
    s->lse = floats(cut, m, 1);
    s->ids = take(cut, choices, sizeof *s->ids);
    s->weights = floats(cut, choices, 1);
    s->first = take(cut, c->experts + 1, sizeof *s->first);
    s->choices = take(cut, choices, sizeof *s->choices);
    s->place = take(cut, choices, sizeof *s->place);
    s->shares = floats(cut, entries, 1);
    s->gate = floats(cut, choices, c->expert_ffn);
    s->up = floats(cut, choices, c->expert_ffn);
}

static void cut_layers(lc_net *n, cutter *cut) {
    size_t layers = n->c->layers, distinct = n->o.recompute ? 1 : layers;
    n->inputs = take(cut, layers + 1, sizeof *n->inputs);
    n->states = take(cut, layers, sizeof *n->states);
    n->chosen = take(cut, layers + 1, sizeof *n->chosen);
    for (size_t i = 0; i <= layers; i++) {
        float *input = floats(cut, n->o.tokens, n->c->hidden);
        uint64_t *bits =
            n->sparse ? take(cut, n->o.tokens, lc_choice_words(n->o.length) * sizeof *bits) : NULL;
        if (!cut->base) continue;
        n->inputs[i] = input;
        n->chosen[i] = bits;
    }
    lc_layer_state state = {0};
    for (size_t i = 0; i < layers; i++) {
        if (i < distinct) {
            cut_block(n, cut, n->o.tokens, &state.half[0], false);
            cut_block(n, cut, n->o.tokens, &state.half[1], true);
            cut_moe(n, cut, &state.moe);
        }
        if (!cut->base) continue;
        state.half[0].in = n->inputs[i];
        n->states[i] = state;
    }
}

static void cut_drafts(lc_net *n, cutter *cut) {
    size_t m = n->o.length, hidden = n->c->hidden; /* one sequence at a time */
    n->drafts = take(cut, n->o.mtp_steps, sizeof *n->drafts);
    for (size_t i = 0; i < n->o.mtp_steps; i++) {
        lc_draft_state s = {0};
        s.tokens = take(cut, m, sizeof *s.tokens);
        s.ids = take(cut, m, sizeof *s.ids);
        s.words = floats(cut, m, hidden);
        s.pair = floats(cut, m, 2 * hidden);
        cut_block(n, cut, m, &s.block, true);
        s.out = floats(cut, m, hidden);
        s.hidden = floats(cut, m, hidden);
        s.dhidden = floats(cut, m, hidden);
        if (cut->base) n->drafts[i] = s;
    }
}

/* ---- scratch ---- */

static void cut_attention(lc_net *n, cutter *cut) {
    const lc_config *c = n->c;
    size_t m = n->o.tokens, dim = c->heads * (c->nope_dim + c->rope_dim);
    lc_mla_work *w = &n->mla_work;
    w->dq = floats(cut, m, dim);
    w->dqa = floats(cut, m, c->q_rank);
    w->dkvb = floats(cut, m, c->heads * (c->nope_dim + c->v_dim));
    w->dheads = floats(cut, m, c->heads * c->v_dim);
    w->dcq = floats(cut, m, c->q_rank);
    w->dlatent = floats(cut, m, c->kv_rank);
    w->dkv = floats(cut, m, c->kv_rank + c->rope_dim);
    w->dkey = floats(cut, c->heads * m, c->rope_dim);
    w->keys = take(cut, 1, lc_attention_key_bytes(&n->tape.op, &n->mla, m));
}

static void cut_index(lc_net *n, cutter *cut) {
    const lc_config *c = n->c;
    size_t m = n->o.tokens, heads = c->index_heads, dim = c->index_dim;
    size_t row = lc_pad_k(dim) * n->tape.op.path->element;
    lc_index_state *s = &n->index_state;
    s->q = floats(cut, m, heads * dim);
    s->raw = floats(cut, m, dim);
    s->k = floats(cut, m, dim);
    s->weights = floats(cut, m, heads);
    s->keys = take(cut, m, row);
    s->queries = take(cut, m * heads, row);
    s->entropy = take(cut, m, sizeof *s->entropy);
    s->dq = floats(cut, m, heads * dim);
    s->dk = floats(cut, m, heads * dim);
    s->dweights = floats(cut, m, heads);
    n->index_scores = floats(cut, 2 * m, lc_index_stride(n->o.length));
}

/* What all layers' feed-forward parts share. */
static void cut_ffn_scratch(lc_net *n, cutter *cut) {
    const lc_config *c = n->c;
    size_t m = n->o.tokens, choices = m * c->topk, hidden = c->hidden;
    size_t widest = larger(m * c->ffn, choices * c->expert_ffn);
    lc_moe_state moe = {.logits = floats(cut, m, c->experts + c->zero_experts),
                        .dweights = floats(cut, choices, 1),
                        .x = floats(cut, choices, hidden),
                        .y = floats(cut, choices, hidden),
                        .act = floats(cut, widest, 1),
                        .dact = floats(cut, widest, 1),
                        .products = take(cut, 6 * c->experts, sizeof *moe.products),
                        .cuts = take(cut, choices + 1, sizeof *moe.cuts),
                        .first_cut = take(cut, c->experts + 1, sizeof *moe.first_cut)};
    if (!cut->base) return;
    for (size_t i = 0; i < c->layers + n->o.mtp_steps; i++) {
        lc_layer_state *layer = i < c->layers ? &n->states[i] : NULL;
        lc_block_state *blocks = layer ? layer->half : &n->drafts[i - c->layers].block;
        for (int half = 0; half < (layer ? 2 : 1); half++) {
            blocks[half].ffn.act = moe.act;
            blocks[half].ffn.dact = moe.dact;
        }
        if (!layer) continue;
        layer->moe.logits = moe.logits;
        layer->moe.dweights = moe.dweights;
        layer->moe.x = moe.x;
        layer->moe.y = moe.y;
        layer->moe.act = moe.act;
        layer->moe.dact = moe.dact;
        layer->moe.products = moe.products;
        layer->moe.cuts = moe.cuts;
        layer->moe.first_cut = moe.first_cut;
    }
}

static void cut_ends(lc_net *n, cutter *cut) {
    const lc_config *c = n->c;
    size_t m = n->o.tokens, hidden = c->hidden, tables = lc_config_ngram_tables(c);
    size_t chunk = lc_head_chunk(c->vocab);
    n->embed.ids = take(cut, (1 + tables) * m, sizeof *n->embed.ids);
    n->embed.gathered = floats(cut, tables ? m : 0, tables ? hidden / tables * tables : 0);
    n->embed.sum = floats(cut, tables ? m : 0, hidden);
    n->embed.order = take(cut, (1 + tables) * 2 * m, sizeof *n->embed.order);
    n->embed.products = take(cut, tables, sizeof *n->embed.products);
    n->head_pass.x = floats(cut, chunk, hidden);
    n->head_pass.dx = floats(cut, chunk, hidden);
    n->head_pass.logits = floats(cut, chunk, lc_head_stride(c->vocab));
    n->head_pass.list = take(cut, m, sizeof *n->head_pass.list);
    n->targets = take(cut, m, sizeof *n->targets);
}

static size_t scratch_floats(const lc_net *n) {
    size_t most = larger(lc_attention_floats(&n->tape.op, &n->mla, n->o.length), n->c->hidden);
    if (n->sparse)
        most = larger(most, lc_index_loss_floats(&n->tape.op, &n->mla, &n->index, n->o.length));
    return most;
}

static void cut_all(lc_net *n, cutter *cut) {
    const lc_config *c = n->c;
    size_t m = n->o.tokens, hidden = c->hidden, half = c->rope_dim / 2;
    size_t threads = n->o.pool ? (size_t)lc_pool_threads(n->o.pool) : 1;
    n->cosines = floats(cut, n->o.length, half);
    n->sines = floats(cut, n->o.length, half);
    n->minus = floats(cut, n->o.length, half);
    n->hidden = floats(cut, m, hidden);
    n->dhidden = floats(cut, m, hidden);
    cut_layers(n, cut);
    cut_drafts(n, cut);
    cut_attention(n, cut);
    if (n->sparse) cut_index(n, cut);
    cut_ffn_scratch(n, cut);
    cut_ends(n, cut);
    n->out = floats(cut, m, hidden);
    n->moe_out = floats(cut, m, hidden);
    n->dmoe = floats(cut, m, hidden);
    n->dh = floats(cut, m, hidden);
    n->dx = floats(cut, m, hidden);
    n->dpair = floats(cut, n->o.mtp_steps ? n->o.length : 0, 2 * hidden);
    n->cuts = take(cut, m + 1, sizeof *n->cuts);
    n->sums = take(cut, 4 * m, sizeof *n->sums);
    n->counts = take(cut, c->experts + c->zero_experts, sizeof *n->counts);
    for (int i = 0; i < LC_NORMS; i++) n->tape.rates[i] = floats(cut, m, 1);
    n->tape.sums = take(cut, 2 * m, sizeof *n->tape.sums);
    float **scratch = take(cut, threads, sizeof *scratch);
    size_t size = scratch_floats(n);
    for (size_t t = 0; t < threads; t++) {
        float *piece = floats(cut, size, 1);
        if (cut->base) scratch[t] = piece;
    }
    n->tape.op.scratch = n->tape.exact.scratch = scratch;
}

/* What cut_all reads of a net. */
static void describe(lc_net *n, const lc_params *params, const lc_net_options *o) {
    n->params = params;
    n->c = &params->config;
    n->o = *o;
    n->sparse = n->c->index_heads > 0 && !n->c->switches.dense_attention;
    lc_mla_shape_init(&n->mla, n->c);
    lc_index_shape_init(&n->index, n->c);
    lc_moe_shape_init(&n->moe, n->c);
    n->tape.op = (lc_op){
        .k = o->kernels, .path = o->bf16 ? &o->kernels->bf16 : &o->kernels->f32, .pool = o->pool};
    n->tape.exact = n->tape.op;
    n->tape.exact.path = &o->kernels->f32;
    n->tape.space = &n->space;
    n->tape.profile = o->profile;
}

size_t lc_net_plan_bytes(const lc_params *params, const lc_net_options *o) {
    lc_net n = {0};
    cutter cut = {0};
    describe(&n, params, o);
    cut_all(&n, &cut);
    return cut.overflow ? SIZE_MAX : cut.used;
}

int lc_net_plan(lc_net *n, lc_err *err) {
    lc_net_options o = n->o;
    size_t bytes = lc_net_plan_bytes(n->params, &o);
    describe(n, n->params, &o);
    n->block = bytes < SIZE_MAX ? lc_alloc_dense(bytes, false) : NULL;
    if (!n->block)
        return lc_fail(err, LC_ENOMEM, "training net for %zu tokens: no %zu bytes left", o.tokens,
                       bytes);
    cutter cut = {.base = n->block};
    cut_all(n, &cut);
    return LC_OK;
}

size_t lc_net_bytes(const lc_params *params, const lc_net_options *o) {
    size_t total = lc_net_plan_bytes(params, o);
    if (!lc_size_add(total, lc_net_copy_bytes(params, o), &total)) return SIZE_MAX;
    return total;
}
