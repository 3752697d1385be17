/*
 * net.c: the forward and the backward pass as lists of operators; reads like docs/model.md 2.4 to
 * 2.7, and backwards.
 *
 * Each layer's input is kept; its other activations either too, or they are computed again from it
 * before the layer's backward (recompute), by the same function and so with the same bits. Index
 * losses are complete behind their layer's forward, since nothing but the indexer learns from them.
 *
 * Every sum over tokens runs sequence by sequence. Head and draft module are used several times for
 * a token, so they take one sequence at a time, forward and backward, between the layers' passes.
 */
#include "train/net.h"

#include "base/err.h"
#include "train/net_parts.h"

#include <string.h>

/* Losses by sequence. */
typedef struct sequence_sums {
    double *balance, *router_z, *kl;
    double *group; /* kl of the present index group */
} sequence_sums;

/* One batch on its way. */
typedef struct pass {
    lc_net *n;
    const lc_batch *batch;
    const lc_loss_weights *weights;
    const lc_counts *totals;
    lc_losses *losses;
    lc_err *err;
    lc_rows rows;
    size_t m;
    size_t at; /* first token of the one sequence of the batch that runs */
    sequence_sums sums;
    bool main_grad; /* something but the indexers learns */
    bool again;     /* the layer's forward is only repeated for its backward */
} pass;

/* ---- the objective ---- */

static double per(double weight, int64_t count) { return weight / ((double)count + 1e-10); }

double lc_losses_reported(const lc_losses *l, const lc_loss_weights *w) {
    double sum = per(1, l->counts.lm) * (double)w->lm * l->lm;
    for (int k = 0; k < LC_MTP_STEPS_MAX; k++)
        sum += per(1, l->counts.mtp[k]) * (double)w->mtp[k] * l->mtp[k];
    double rest = (double)w->balance * l->balance + (double)w->router_z * l->router_z;
    if (w->kl_stage != LC_KL_OFF) rest += (double)w->kl * l->kl;
    return l->counts.tokens ? sum + rest / (double)l->counts.tokens : sum;
}

double lc_losses_objective(const lc_losses *l, const lc_loss_weights *w) {
    double z = l->counts.tokens ? l->hidden_z / (double)l->counts.tokens : 0;
    return lc_losses_reported(l, w) + (double)w->hidden_z * z;
}

/* ---- what is predicted ---- */

static size_t start_of(const lc_batch *b, size_t row) {
    return b->starts ? (size_t)b->starts[row] : 0;
}

/* The token `ahead` rows behind row i, if it is to be predicted there, else -1. */
static int32_t target_of(const lc_batch *b, size_t row, size_t ahead) {
    size_t i = row % b->length, at = row + ahead;
    if (i + ahead >= b->length || start_of(b, at) > i) return -1;
    return !b->mask || b->mask[at] ? b->tokens[at] : -1;
}

void lc_net_count(const lc_net *n, const lc_batch *b, lc_counts *counts) {
    size_t m = b->rows * b->length;
    counts->tokens += (int64_t)m;
    for (size_t i = 0; i < m; i++) {
        counts->lm += target_of(b, i, 1) >= 0;
        for (size_t k = 0; k < n->o.mtp_steps; k++) counts->mtp[k] += target_of(b, i, k + 2) >= 0;
    }
}

static int head_loss(const pass *p, const float *hidden, size_t ahead, float weight, int64_t count,
                     float *dhidden, double *sum) {
    lc_net *n = p->n;
    lc_head_pass head = n->head_pass;
    for (size_t i = 0; i < p->m; i++) n->targets[i] = target_of(p->batch, i, ahead);
    head.w = &n->head;
    head.m = p->m;
    head.hidden = hidden;
    head.targets = n->targets;
    head.scale = (float)per((double)weight, count);
    bool back = p->main_grad && weight != 0;
    if (p->main_grad && !back) memset(dhidden, 0, p->m * n->c->hidden * sizeof *dhidden);
    int status = lc_head_run(&n->tape, &head, back ? dhidden : NULL, sum, p->err);
    lc_tape_lap(&n->tape, LC_LAP_LOSSES);
    return status;
}

/* Weight of a token in losses that are means over tokens. */
static float token_weight(const pass *p, float weight) {
    return (float)((double)weight / (double)p->totals->tokens);
}

/* ---- parts ---- */

static lc_norm_pass norm_of(const pass *p, const lc_weight *w, const float *x) {
    return (lc_norm_pass){w, p->m, (float)p->n->c->norm_eps, 1.0f, x, w->cols};
}

static void normed(const pass *p, const lc_weight *w, const float *x, float *y) {
    lc_norm_pass norm = norm_of(p, w, x);
    lc_norm_run(&p->n->tape, &norm, y, w->cols);
    lc_tape_lap(&p->n->tape, LC_LAP_NORMS);
}

static void norm_back(const pass *p, const lc_weight *w, const float *x, const float *dy,
                      float *dx) {
    lc_norm_pass norm = norm_of(p, w, x);
    lc_norm_back(&p->n->tape, &norm, dy, w->cols, dx, w->cols);
    lc_tape_lap(&p->n->tape, LC_LAP_NORMS);
}

/* Rows of the residual stream: out = a + b (+ c), then perhaps its norm. */
typedef struct sum_step {
    const lc_kernels *k;
    size_t width;
    const float *a, *b, *c; /* c may be NULL */
    float *out;
    lc_norm_step *norm; /* of out, or NULL */
} sum_step;

static void sum_rows(void *ctx, size_t begin, size_t end, int thread) {
    const sum_step *s = ctx;
    size_t at = begin * s->width, n = (end - begin) * s->width;
    s->k->add(n, s->a + at, s->b + at, s->out + at);
    if (s->c) s->k->add(n, s->out + at, s->c + at, s->out + at);
    if (s->norm) lc_norm_forward_rows(s->norm, begin, end, thread);
}

static sum_step sum_of(const pass *p, const float *a, const float *b, float *out) {
    return (sum_step){.k = p->n->o.kernels, .width = p->n->c->hidden, .a = a, .b = b, .out = out};
}

static lc_norm_step norm_step(const pass *p, const lc_weight *w, const float *x, float *y) {
    return (lc_norm_step){.t = &p->n->tape, .n = norm_of(p, w, x), .y = y, .ldy = w->cols};
}

/* dx += gradient through a norm of x, from dy = p->n->dx. */
static lc_norm_step norm_back_step(const pass *p, const lc_weight *w, const float *x, float *dx) {
    return (lc_norm_step){.t = &p->n->tape,
                          .n = norm_of(p, w, x),
                          .dy = p->n->dx,
                          .lddy = w->cols,
                          .dx = dx,
                          .lddx = w->cols,
                          .rates = p->n->tape.rates[2]};
}

static void clear(const pass *p, float *x) { memset(x, 0, p->m * p->n->c->hidden * sizeof *x); }

static lc_mla_pass attention_of(const pass *p, const lc_block_net *w, const lc_block_state *s,
                                const uint64_t *chosen) {
    bool sparse = p->n->sparse && p->weights->kl_stage != LC_KL_WARMUP;
    return (lc_mla_pass){
        &p->n->mla, &w->attn, &p->rows, &s->mla, &p->n->mla_work, sparse ? chosen : NULL, {0}, {0}};
}

/* ---- indexers ---- */

static lc_index_pass index_of(const pass *p, const lc_index_net *w, size_t group) {
    lc_net *n = p->n;
    size_t ld = lc_index_stride(p->batch->length);
    float *targets = n->index_scores + p->m * ld;
    return (lc_index_pass){&n->index,       w,       &p->rows, &n->index_state,
                           n->index_scores, targets, ld,       n->chosen[group]};
}

/* Scores of a group; the choice too, unless attention is dense. */
static int index_forward(const pass *p, const lc_index_net *w, size_t group,
                         const lc_block_state *s) {
    lc_net *n = p->n;
    if (!n->sparse || p->again) return LC_OK;
    lc_index_pass group_pass = index_of(p, w, group);
    int status = lc_index_run(&n->tape, &group_pass, s->normed, s->mla.cq, p->err);
    if (status == LC_OK && p->weights->kl_stage != LC_KL_WARMUP)
        lc_index_choose(&n->tape, &group_pass);
    return status;
}

/* The loss of a group, whose index input was in block state `s`. */
static int index_loss(const pass *p, const lc_index_net *w, size_t group, const lc_block_state *s,
                      const lc_index_member *members, size_t n_members) {
    lc_net *n = p->n;
    if (!n->sparse || p->again || p->weights->kl_stage == LC_KL_OFF) return LC_OK;
    lc_index_pass group_pass = index_of(p, w, group);
    size_t sequences = p->batch->rows;
    memset(p->sums.group, 0, sequences * sizeof *p->sums.group);
    lc_index_loss_begin(&n->tape, &group_pass);
    for (size_t i = 0; i < n_members; i++) lc_index_loss_add(&n->tape, &group_pass, &members[i]);
    int status = lc_index_loss_end(
        &n->tape, &group_pass, members, n_members, p->weights->kl_stage == LC_KL_SPARSE,
        token_weight(p, p->weights->kl), s->normed, s->mla.cq, p->sums.group, p->err);
    for (size_t i = 0; i < sequences; i++) {
        p->sums.kl[i] += p->sums.group[i];
        if (p->losses->kl_groups) p->losses->kl_groups[group] += p->sums.group[i];
    }
    return status;
}

/* ---- forward ---- */

/* s->mid = s->in + attention(norm(s->in)), s->post = norm(s->mid). index: NULL if this block has
 * none. */
static int attention_forward(const pass *p, const lc_block_net *w, const lc_block_state *s,
                             const lc_index_net *index, size_t group) {
    lc_net *n = p->n;
    lc_mla_pass attention = attention_of(p, w, s, n->chosen[group]);
    lc_norm_step in = norm_step(p, &w->norm_in, s->in, s->normed);
    lc_norm_step post = norm_step(p, &w->norm_post, s->mid, s->post);
    sum_step sum = sum_of(p, s->in, n->out, s->mid);
    sum.norm = &post;
    attention.before = (lc_rows_step){lc_norm_forward_rows, &in, 0};
    attention.behind = (lc_rows_step){sum_rows, &sum, 0};
    int status = lc_mla_latent_run(&n->tape, &attention, s->normed, p->err);
    if (status == LC_OK && index) status = index_forward(p, index, group, s);
    lc_tape_lap(&n->tape, LC_LAP_INDEX);
    return status == LC_OK ? lc_mla_run(&n->tape, &attention, s->normed, n->out, p->err) : status;
}

/* out = s->mid + FFN(s->post) (+ more, if not NULL). */
static int ffn_forward(const pass *p, const lc_block_net *w, const lc_block_state *s,
                       const float *more, float *out) {
    sum_step sum = sum_of(p, s->mid, p->n->out, out);
    sum.c = more;
    lc_ffn_pass ffn = {
        .w = &w->ffn, .m = p->m, .x = s->post, .s = &s->ffn, .behind = {sum_rows, &sum, 0}};
    int status = lc_ffn_run(&p->n->tape, &ffn, p->n->out, p->err);
    lc_tape_lap(&p->n->tape, LC_LAP_DENSE);
    return status;
}

static int moe_forward(const pass *p, size_t layer) {
    lc_net *n = p->n;
    const lc_layer_state *s = &n->states[layer];
    size_t entries = n->moe.experts + n->moe.zero_experts;
    memset(n->counts, 0, entries * sizeof *n->counts);
    int status = lc_moe_run(&n->tape, &n->moe, &n->layers[layer].moe, p->m, s->half[0].post,
                            &s->moe, n->counts, n->moe_out, p->err);
    if (status != LC_OK) return status;
    const int64_t *counts = p->batch->balance_counts;
    lc_balance_shares(&n->moe, counts ? counts + layer * entries : n->counts,
                      counts ? p->batch->balance_tokens : (int64_t)p->m, p->weights->balance_form,
                      s->moe.shares);
    if (p->again) return LC_OK;
    lc_router_losses(&n->tape, &n->moe, p->m, &s->moe, p->sums.balance, p->sums.router_z);
    for (size_t e = 0; p->losses->experts && e < entries; e++)
        p->losses->experts[layer * entries + e] += n->counts[e];
    return LC_OK;
}

static int layer_forward(const pass *p, size_t layer) {
    lc_net *n = p->n;
    const lc_layer_net *w = &n->layers[layer];
    const lc_block_state *first = &n->states[layer].half[0], *second = first + 1;
    float *out = n->inputs[layer + 1];
    int status = attention_forward(p, &w->half[0], first, n->sparse ? &w->index : NULL, layer);
    if (status == LC_OK) status = moe_forward(p, layer);
    if (status == LC_OK) status = ffn_forward(p, &w->half[0], first, NULL, second->in);
    if (status == LC_OK) status = attention_forward(p, &w->half[1], second, NULL, layer);
    if (status != LC_OK) return status;
    lc_mla_pass attention[2] = {attention_of(p, &w->half[0], first, n->chosen[layer]),
                                attention_of(p, &w->half[1], second, n->chosen[layer])};
    lc_index_member members[2] = {{&attention[0], 0}, {&attention[1], 0}};
    status = index_loss(p, &w->index, layer, first, members, 2);
    lc_tape_lap(&n->tape, LC_LAP_INDEX);
    return status == LC_OK ? ffn_forward(p, &w->half[1], second, n->moe_out, out) : status;
}

static lc_embed_pass words_of(const pass *p) {
    lc_embed_pass words = p->n->embed;
    words.w = &p->n->words;
    words.rows = p->batch->rows;
    words.length = p->batch->length;
    words.tokens = p->batch->tokens;
    return words;
}

static int main_forward(const pass *p) {
    lc_net *n = p->n;
    size_t layers = n->c->layers;
    lc_embed_pass words = words_of(p);
    int status = lc_embed_run(&n->tape, &words, n->inputs[0], p->err);
    lc_tape_lap(&n->tape, LC_LAP_EMBED);
    for (size_t i = 0; i < layers && status == LC_OK; i++) status = layer_forward(p, i);
    if (status == LC_OK) normed(p, &n->norm, n->inputs[layers], n->hidden);
    return status;
}

/* ---- draft steps (spec 2.7), teacher-forced: row i of step k takes token i + k ---- */

static lc_embed_pass draft_words(const pass *p, size_t step) {
    lc_embed_pass words = words_of(p);
    words.w = &p->n->draft.words;
    words.tokens = p->n->drafts[step].tokens;
    words.ids = p->n->drafts[step].ids;
    return words;
}

/* The parts of a pair: columns of the embedding and of the hidden. */
static size_t word_column(const pass *p) {
    return p->n->c->switches.mtp_concat_he ? p->n->c->hidden : 0;
}

static float *previous_hidden(const pass *p, size_t step) {
    lc_net *n = p->n;
    return step ? n->drafts[step - 1].hidden : n->hidden + p->at * n->c->hidden;
}

static int draft_input(const pass *p, size_t step) {
    lc_net *n = p->n;
    lc_draft_state *s = &n->drafts[step];
    size_t hidden = n->c->hidden, length = p->batch->length, column = word_column(p);
    for (size_t i = 0; i < p->m; i++) { /* behind the end: rows that predict nothing */
        size_t ahead = i % length + step + 1 < length ? step + 1 : length - 1 - i % length;
        s->tokens[i] = p->batch->tokens[i + ahead];
    }
    lc_embed_pass words = draft_words(p, step);
    int status = lc_embed_run(&n->tape, &words, s->words, p->err);
    if (status != LC_OK) return status;
    lc_norm_pass e = norm_of(p, &n->draft.enorm, s->words),
                 h = norm_of(p, &n->draft.hnorm, previous_hidden(p, step));
    lc_norm_run(&n->tape, &e, s->pair + column, 2 * hidden);
    lc_norm_run(&n->tape, &h, s->pair + (hidden - column), 2 * hidden);
    status = lc_linear_run(&n->tape, &n->draft.eh_proj, p->m, s->pair, s->block.in, p->err);
    lc_tape_lap(&n->tape, LC_LAP_EMBED);
    return status;
}

static int draft_forward(const pass *p, size_t step) {
    lc_net *n = p->n;
    lc_draft_state *s = &n->drafts[step];
    const lc_block_net *w = &n->draft.block;
    bool chooses = n->sparse && step == 0; /* later steps share the first one's keys */
    int status = draft_input(p, step);
    if (status == LC_OK)
        status = attention_forward(p, w, &s->block, chooses ? &n->draft.index : NULL, n->c->layers);
    if (status == LC_OK) status = ffn_forward(p, w, &s->block, NULL, s->out);
    if (status != LC_OK) return status;
    normed(p, &n->draft.norm, s->out, s->hidden);
    return head_loss(p, s->hidden, step + 2, p->weights->mtp[step], p->totals->mtp[step],
                     s->dhidden, &p->losses->mtp[step]);
}

static int drafts_forward(const pass *p) {
    lc_net *n = p->n;
    size_t steps = n->o.mtp_steps;
    int status = LC_OK;
    for (size_t k = 0; k < steps && status == LC_OK; k++) status = draft_forward(p, k);
    if (status != LC_OK || !steps) return status;
    lc_mla_pass attention[LC_MTP_STEPS_MAX];
    lc_index_member members[LC_MTP_STEPS_MAX];
    for (size_t k = 0; k < steps; k++) {
        attention[k] =
            attention_of(p, &n->draft.block, &n->drafts[k].block, n->chosen[n->c->layers]);
        members[k] = (lc_index_member){&attention[k], k + 1};
    }
    status = index_loss(p, &n->draft.index, n->c->layers, &n->drafts[0].block, members, steps);
    lc_tape_lap(&n->tape, LC_LAP_INDEX);
    return status;
}

/* ---- backward ---- */

/* dh: gradient of what follows attention -> gradient of s->in. */
static int attention_back(const pass *p, const lc_block_net *w, const lc_block_state *s,
                          size_t group) {
    lc_net *n = p->n;
    lc_mla_pass attention = attention_of(p, w, s, n->chosen[group]);
    lc_norm_step norm = norm_back_step(p, &w->norm_in, s->in, n->dh);
    attention.behind = (lc_rows_step){lc_norm_back_rows, &norm, 0};
    int status = lc_mla_back(&n->tape, &attention, s->normed, n->dh, n->dx, p->err);
    if (status == LC_OK) lc_norm_weights_back(&norm, 1);
    lc_tape_lap(&n->tape, LC_LAP_NORMS);
    return status;
}

/* dx = gradient of s->post through the FFN; with `norm`, dh becomes the gradient of s->mid. */
static int ffn_back(const pass *p, const lc_block_net *w, const lc_block_state *s, bool norm) {
    lc_net *n = p->n;
    lc_norm_step step = norm_back_step(p, &w->norm_post, s->mid, n->dh);
    lc_ffn_pass ffn = {.w = &w->ffn, .m = p->m, .x = s->post, .s = &s->ffn};
    if (norm) ffn.behind = (lc_rows_step){lc_norm_back_rows, &step, 0};
    int status = lc_ffn_back(&n->tape, &ffn, n->dh, n->dx, p->err);
    lc_tape_lap(&n->tape, LC_LAP_DENSE);
    if (norm && status == LC_OK) lc_norm_weights_back(&step, 1);
    lc_tape_lap(&n->tape, LC_LAP_NORMS);
    return status;
}

/* dh: gradient of the layer's output -> of its input. */
static int layer_back(const pass *p, size_t layer) {
    lc_net *n = p->n;
    const lc_layer_net *w = &n->layers[layer];
    const lc_block_state *first = &n->states[layer].half[0], *second = first + 1;
    lc_router_weights losses = {token_weight(p, p->weights->balance),
                                token_weight(p, p->weights->router_z)};
    memcpy(n->dmoe, n->dh, p->m * n->c->hidden * sizeof *n->dmoe);
    int status = ffn_back(p, &w->half[1], second, true);
    if (status == LC_OK) status = attention_back(p, &w->half[1], second, layer);
    if (status == LC_OK) status = ffn_back(p, &w->half[0], first, false);
    if (status == LC_OK)
        status = lc_moe_back(&n->tape, &n->moe, &w->moe, p->m, first->post, &n->states[layer].moe,
                             losses, n->dmoe, n->dx, p->err);
    if (status != LC_OK) return status;
    norm_back(p, &w->half[0].norm_post, first->mid, n->dx, n->dh);
    return attention_back(p, &w->half[0], first, layer);
}

static float *previous_gradient(const pass *p, size_t step) {
    lc_net *n = p->n;
    return step ? n->drafts[step - 1].dhidden : n->dhidden + p->at * n->c->hidden;
}

static int draft_back(const pass *p, size_t step) {
    lc_net *n = p->n;
    lc_draft_state *s = &n->drafts[step];
    const lc_block_net *w = &n->draft.block;
    size_t hidden = n->c->hidden, column = word_column(p);
    clear(p, n->dh);
    norm_back(p, &n->draft.norm, s->out, s->dhidden, n->dh);
    int status = ffn_back(p, w, &s->block, true);
    if (status == LC_OK) status = attention_back(p, w, &s->block, n->c->layers);
    if (status == LC_OK)
        status = lc_linear_back(&n->tape, &n->draft.eh_proj, p->m, n->dh, s->pair, n->dpair, false,
                                p->err);
    if (status != LC_OK) return status;
    lc_norm_pass e = norm_of(p, &n->draft.enorm, s->words),
                 h = norm_of(p, &n->draft.hnorm, previous_hidden(p, step));
    lc_norm_back(&n->tape, &h, n->dpair + (hidden - column), 2 * hidden, previous_gradient(p, step),
                 hidden);
    clear(p, n->dx);
    lc_norm_back(&n->tape, &e, n->dpair + column, 2 * hidden, n->dx, hidden);
    lc_embed_pass words = draft_words(p, step);
    status = lc_embed_back(&n->tape, &words, n->dx, p->err);
    lc_tape_lap(&n->tape, LC_LAP_EMBED);
    return status;
}

/* Head and draft steps of one sequence, forward and backward. */
static int ends(const pass *p) {
    lc_net *n = p->n;
    size_t at = p->at * n->c->hidden;
    int status = head_loss(p, n->hidden + at, 1, p->weights->lm, p->totals->lm, n->dhidden + at,
                           &p->losses->lm);
    if (status == LC_OK) status = drafts_forward(p);
    lc_profile_turn(n->tape.profile, true);
    for (size_t k = n->o.mtp_steps; p->main_grad && k-- > 0 && status == LC_OK;)
        status = draft_back(p, k);
    lc_profile_turn(n->tape.profile, false);
    return status;
}

/* One sequence after the other: a weight's sum of its several uses doesn't cross sequences. */
static int all_ends(const pass *p) {
    lc_net *n = p->n;
    const lc_batch *b = p->batch;
    const size_t *cuts = n->tape.cuts;
    int status = LC_OK;
    n->tape.cuts = NULL;
    for (size_t i = 0; i < b->rows && status == LC_OK; i++) {
        lc_batch batch = *b;
        pass one = *p;
        one.batch = &batch;
        one.at = i * b->length;
        one.m = b->length;
        one.sums.kl += i;
        batch.rows = one.rows.rows = 1;
        batch.tokens += one.at;
        if (b->mask) batch.mask += one.at;
        if (b->starts) batch.starts += one.at;
        one.rows.starts = batch.starts;
        status = ends(&one);
    }
    n->tape.cuts = cuts;
    return status;
}

static int main_back(const pass *p) {
    lc_net *n = p->n;
    size_t layers = n->c->layers;
    int status = LC_OK;
    pass again = *p;
    again.again = true;
    clear(p, n->dh);
    norm_back(p, &n->norm, n->inputs[layers], n->dhidden, n->dh);
    double ignored = 0;
    lc_hidden_z(&n->tape, p->m, n->c->hidden, n->inputs[layers],
                token_weight(p, p->weights->hidden_z), n->dh, &ignored);
    lc_tape_lap(&n->tape, LC_LAP_LOSSES);
    for (size_t i = layers; i-- > 0 && status == LC_OK;) {
        if (n->o.recompute && i + 1 < layers) status = layer_forward(&again, i);
        if (status == LC_OK) status = layer_back(p, i);
    }
    lc_embed_pass words = words_of(p);
    if (status == LC_OK) status = lc_embed_back(&n->tape, &words, n->dh, p->err);
    lc_tape_lap(&n->tape, LC_LAP_EMBED);
    return status;
}

static int run_pass(const pass *p) {
    lc_net *n = p->n;
    int status = main_forward(p);
    if (status == LC_OK) status = all_ends(p);
    if (status != LC_OK) return status;
    lc_hidden_z(&n->tape, p->m, n->c->hidden, n->inputs[n->c->layers], 0, NULL,
                &p->losses->hidden_z);
    lc_tape_lap(&n->tape, LC_LAP_LOSSES);
    for (size_t i = 0; i < p->batch->rows; i++) {
        p->losses->balance += p->sums.balance[i];
        p->losses->router_z += p->sums.router_z[i];
        p->losses->kl += p->sums.kl[i];
    }
    if (!p->main_grad) return LC_OK;
    lc_profile_turn(n->tape.profile, true);
    status = main_back(p);
    lc_profile_turn(n->tape.profile, false);
    return status;
}

/* Cuts and sums by sequence. */
static void divide(lc_net *n, pass *p) {
    size_t rows = p->batch->rows;
    for (size_t i = 0; i <= rows; i++) n->cuts[i] = i * p->batch->length;
    n->tape.cuts = rows > 1 ? n->cuts : NULL;
    n->tape.pieces = rows;
    memset(n->sums, 0, 4 * rows * sizeof *n->sums);
    p->sums = (sequence_sums){n->sums, n->sums + rows, n->sums + 2 * rows, n->sums + 3 * rows};
}

/* ---- entry ---- */

static int check_batch(const lc_net *n, const lc_batch *b, lc_err *err) {
    size_t m;
    if (!b->rows || b->length < 2 || !lc_size_mul(b->rows, b->length, &m) || m > n->o.tokens ||
        b->length > n->o.length)
        return lc_fail(err, LC_EINVAL,
                       "batch of %zu x %zu tokens: the net was made for %zu tokens, %zu in a row",
                       b->rows, b->length, n->o.tokens, n->o.length);
    for (size_t i = 0; i < m; i++) {
        size_t at = i % b->length;
        if (b->tokens[i] < 0 || (size_t)b->tokens[i] >= n->c->vocab)
            return lc_fail(err, LC_EINVAL, "batch: token %d at %zu is not below %zu", b->tokens[i],
                           i, n->c->vocab);
        if (!b->starts) continue;
        int32_t start = b->starts[i], before = at ? b->starts[i - 1] : 0;
        if (start != (int32_t)at && (start != before || at == 0))
            return lc_fail(err, LC_EINVAL,
                           "batch: document start %d at %zu must be %d or the token's own place",
                           start, i, before);
    }
    return LC_OK;
}

static bool main_learns(const lc_loss_weights *w) {
    bool any = w->lm != 0 || w->balance != 0 || w->router_z != 0 || w->hidden_z != 0;
    for (int k = 0; k < LC_MTP_STEPS_MAX; k++) any |= w->mtp[k] != 0;
    return any;
}

int lc_net_run(lc_net *n, const lc_batch *batch, const lc_loss_weights *weights,
               const lc_counts *totals, float *grad, lc_losses *losses, lc_err *err) {
    int status = check_batch(n, batch, err);
    if (status != LC_OK) return status;
    pass p = {.n = n,
              .batch = batch,
              .weights = weights,
              .totals = totals,
              .losses = losses,
              .err = err,
              .rows = {batch->rows, batch->length, batch->starts, n->cosines, n->sines, n->minus},
              .m = batch->rows * batch->length,
              .main_grad = grad && main_learns(weights)};
    n->tape.grad = grad;
    divide(n, &p);
    lc_net_count(n, batch, &losses->counts);
    return run_pass(&p);
}

int lc_net_new(const lc_params *params, const lc_net_options *o, lc_net **out, lc_err *err) {
    const lc_config *c = &params->config;
    *out = NULL;
    if (o->mtp_steps > LC_MTP_STEPS_MAX || (o->mtp_steps && !params->mtp))
        return lc_fail(err, LC_EINVAL, "%zu draft steps: the model has %s draft module",
                       o->mtp_steps, params->mtp ? "one, at most 8 steps of its" : "no");
    if (c->switches.mtp_ngram && o->mtp_steps)
        return lc_fail(err, LC_EINVAL,
                       "mtp_ngram: the draft module's n-gram tables aren't trained");
    if (!o->tokens || !o->length || o->length > o->tokens || o->tokens > INT32_MAX / c->topk)
        return lc_fail(err, LC_EINVAL, "training net for %zu tokens, %zu in a row", o->tokens,
                       o->length);
    lc_net *n = lc_calloc(1, sizeof *n);
    if (!n) return lc_fail(err, LC_ENOMEM, "training net: out of memory");
    n->params = params;
    n->o = *o;
    n->arena = lc_arena_new(0);
    int status = n->arena ? lc_net_plan(n, err) : lc_fail(err, LC_ENOMEM, "training net: memory");
    if (status == LC_OK) status = lc_net_bind(n, err);
    if (status == LC_OK) status = lc_rope_init(&n->rope, c, err);
    if (status != LC_OK) {
        lc_net_free(n);
        return status;
    }
    for (size_t i = 0; i < o->length; i++) {
        size_t half = n->rope.half;
        lc_rope_table(&n->rope, i, n->cosines + i * half, n->sines + i * half);
        for (size_t j = 0; j < half; j++) n->minus[i * half + j] = -n->sines[i * half + j];
    }
    lc_net_refresh(n);
    *out = n;
    return LC_OK;
}

void lc_net_free(lc_net *n) {
    if (!n) return;
    lc_rope_free(&n->rope);
    lc_space_free(&n->space);
    lc_free(n->copies);
    lc_free(n->places);
    lc_free(n->block);
    lc_arena_free(n->arena);
    lc_free(n);
}
