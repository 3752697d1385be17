/*
 * loop_stage.c: what a stage works with: its data, which goes on where earlier stages have stopped,
 * and a net for its context and losses.
 */
#include "train/loop_parts.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

/* ---- data ---- */

static lc_source_use *use_of(lc_run *run, const lc_recipe_source *s) {
    for (size_t i = 0; i < run->n_uses; i++)
        if (run->uses[i].whole == s->whole && !strcmp(run->uses[i].folder, s->folder))
            return &run->uses[i];
    return NULL;
}

static int add_use(lc_run *run, const lc_recipe_source *s, uint64_t used) {
    lc_source_use *u = use_of(run, s);
    if (!u) {
        u = lc_realloc(run->uses, run->n_uses + 1, sizeof *u);
        if (!u) return lc_fail(run->err, LC_ENOMEM, "training data: out of memory");
        run->uses = u;
        u = &run->uses[run->n_uses++];
        *u = (lc_source_use){.folder = s->folder, .whole = s->whole};
    }
    u->used = used;
    return LC_OK;
}

static int open_data(lc_run *run, size_t stage, lc_train_data **out) {
    const lc_recipe_sources *s = lc_recipe_sources_of(run->r, stage);
    lc_train_source list[LC_TRAIN_SOURCES_MAX];
    for (size_t i = 0; i < s->count; i++) {
        const lc_source_use *u = use_of(run, &s->list[i]);
        list[i] = (lc_train_source){.folder = s->list[i].folder,
                                    .weight = s->list[i].weight,
                                    .whole = s->list[i].whole,
                                    .start = u ? u->used : 0};
    }
    lc_train_spec spec = {.sources = list,
                          .n_sources = s->count,
                          .seed = run->r->seed,
                          .length = run->r->stages[stage].context};
    return lc_train_data_open(&spec, out, run->err);
}

/* Follows the sources through the stages before this one. */
static int chain(lc_run *run, size_t stage) {
    int status = LC_OK;
    for (; run->chained < stage && status == LC_OK; run->chained++) {
        const lc_recipe_stage *s = &run->r->stages[run->chained];
        const lc_recipe_sources *sources = lc_recipe_sources_of(run->r, run->chained);
        uint64_t used[LC_TRAIN_SOURCES_MAX];
        lc_train_data *data = NULL;
        status = open_data(run, run->chained, &data);
        if (status == LC_OK) status = lc_train_used(data, s->steps * s->batch, used, run->err);
        for (size_t i = 0; i < sources->count && status == LC_OK; i++)
            status = add_use(run, &sources->list[i], used[i]);
        if (data) lc_train_data_close(data);
    }
    return status;
}

int lc_stage_check_all(lc_run *run) {
    const lc_recipe *r = run->r;
    for (size_t i = 0; i < r->n_stages; i++) {
        lc_train_data *data = NULL;
        int line = lc_recipe_sources_of(r, i)->list[0].line;
        if (r->stages[i].mtp > 0 && !run->params->mtp)
            return lc_fail(run->err, LC_EINVAL,
                           "%s:%d: mtp: the checkpoint to start from has no draft module", r->path,
                           r->stages[i].line);
        int status = open_data(run, i, &data);
        if (status != LC_OK) return lc_err_prefix(run->err, "%s:%d", r->path, line);
        uint32_t vocab = lc_train_data_what(data)->vocab;
        lc_train_data_close(data);
        if (vocab > r->model.vocab)
            return lc_fail(run->err, LC_EINVAL,
                           "%s:%d: the data has a vocabulary of %u ids, the model one of %zu",
                           r->path, line, vocab, r->model.vocab);
    }
    return LC_OK;
}

/* ---- the stage ---- */

static void set_weights(lc_run *run, lc_stage *x) {
    const lc_recipe_stage *s = x->s;
    const lc_config *c = &run->params->config;
    bool kl = s->kl_stage != LC_KL_OFF && s->kl > 0;
    x->mtp_steps = run->params->mtp && (s->mtp > 0 || kl) ? c->mtp_steps : 0;
    x->weights = (lc_loss_weights){.lm = (float)s->lm,
                                   .balance = (float)s->balance,
                                   .router_z = (float)s->router_z,
                                   .hidden_z = (float)s->hidden_z,
                                   .kl = (float)s->kl,
                                   .kl_stage = s->kl_stage,
                                   .target_topk = run->r->target_experts};
    for (size_t k = 0; k < x->mtp_steps; k++)
        x->weights.mtp[k] = (float)(s->mtp / (double)x->mtp_steps);
    x->trained[LC_OPTIM_MAIN] = s->lm + s->mtp + s->balance + s->router_z + s->hidden_z > 0;
    x->trained[LC_OPTIM_DRAFT] = s->mtp > 0;
    x->trained[LC_OPTIM_INDEXER] = kl;
    x->trained[LC_OPTIM_DRAFT_INDEXER] = kl && x->mtp_steps > 0;
}

static int make_net(lc_run *run, lc_stage *x) {
    lc_net_options o = {.kernels = run->o->kernels,
                        .pool = run->o->pool,
                        .bf16 = run->r->bf16,
                        .tokens = x->rows * x->s->context,
                        .length = x->s->context,
                        .mtp_steps = x->mtp_steps,
                        .recompute = run->r->recompute};
    run->params->config.switches.dense_attention = x->s->dense;
    return lc_net_new(run->params, &o, &x->net, run->err);
}

int lc_stage_open(lc_run *run, size_t stage, lc_stage *x) {
    const lc_config *c = &run->params->config;
    *x = (lc_stage){.s = &run->r->stages[stage]};
    x->rows = x->s->batch / run->r->lanes;
    size_t tokens = x->s->batch * x->s->context;
    int status = chain(run, stage);
    if (status == LC_OK) status = open_data(run, stage, &x->data);
    if (status != LC_OK) return status;
    set_weights(run, x);
    x->tokens = lc_calloc(tokens, sizeof *x->tokens);
    x->starts = lc_calloc(tokens, sizeof *x->starts);
    x->mask = lc_calloc(tokens, 1);
    x->experts = lc_calloc(c->layers * (c->experts + c->zero_experts), sizeof *x->experts);
    if (!x->tokens || !x->starts || !x->mask || !x->experts)
        return lc_fail(run->err, LC_ENOMEM, "stage %s: no memory for %zu tokens", x->s->name,
                       tokens);
    status = make_net(run, x);
    return status == LC_OK ? LC_OK : lc_err_prefix(run->err, "stage %s", x->s->name);
}

void lc_stage_close(lc_stage *x) {
    lc_net_free(x->net);
    if (x->data) lc_train_data_close(x->data);
    lc_free(x->tokens);
    lc_free(x->starts);
    lc_free(x->mask);
    lc_free(x->experts);
    *x = (lc_stage){0};
}

int lc_stage_read(lc_run *run, lc_stage *x) {
    size_t n = x->s->context;
    int status = LC_OK;
    for (size_t i = 0; i < x->s->batch && status == LC_OK; i++) {
        lc_train_row row = {
            .tokens = x->tokens + i * n, .starts = x->starts + i * n, .mask = x->mask + i * n};
        status = lc_train_sequence(x->data, run->at.next + i, &row, run->err);
    }
    return status;
}

lc_batch lc_stage_batch(const lc_stage *x, size_t lane) {
    size_t first = lane * x->rows * x->s->context;
    return (lc_batch){.rows = x->rows,
                      .length = x->s->context,
                      .tokens = x->tokens + first,
                      .mask = x->mask + first,
                      .starts = x->starts + first};
}
