/* loop.c: stages and steps; see loop.h. What surrounds a step (feed.h, checkpoint.h, runlog.h) has
 * files of its own; here is the order in which things happen. */
#include "train/loop.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "train/checkpoint.h"
#include "train/feed.h"
#include "train/lanes.h"
#include "train/runlog.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct loop {
    lc_recipe *r;
    const lc_loop_options *o;
    lc_err *err;
    lc_config config;
    lc_beside beside;
    lc_params *params;
    lc_optim *optim;
    lc_optim_options optim_options;
    lc_checkpoints *checkpoints;
    lc_runlog *log;
    lc_lanes *lanes;
    lc_position at;
    int64_t steps, first; /* of the whole run; done when this process began */
    size_t entries;
    int64_t *experts; /* [layers][entries] of the present step */
    /* The same of the step before, and its tokens behind them: what the balance loss goes by. The
     * step's own are known only at its end. Zero in the first step. */
    int64_t *load;
    bool *learns; /* [params] */
    /* of the stage */
    const lc_recipe_stage *stage;
    lc_feed *feed, *held_out;
    lc_net *net;
    size_t micro; /* sequences that run together: no bit depends on it */
    lc_loss_weights weights;
    lc_schedule schedule;
    /* since the last checkpoint */
    uint64_t saved_ns;
    int64_t saved_tokens, saved_step;
    double lm_sum;
    int64_t lm_steps;
    bool saving;     /* a checkpoint is on its way */
    int64_t pending; /* its step */
    int lock;        /* of the run's folder */
} loop;

static void note(const loop *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(const loop *l, const char *fmt, ...) {
    char text[512];
    va_list args;
    if (!l->o->hooks.on_note) return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    l->o->hooks.on_note(l->o->hooks.ctx, text);
}

static bool stopped(const loop *l) {
    if (l->o->most_steps && l->at.step - l->first >= l->o->most_steps) return true;
    return l->o->hooks.stop && l->o->hooks.stop(l->o->hooks.ctx);
}

int lc_params_hash(const lc_params *params, char hex[65], lc_err *err) {
    lc_hash *hash = lc_hash_new(LC_HASH_XXH128);
    if (!hash) return lc_fail(err, LC_ENOMEM, "hash of weights: out of memory");
    for (size_t i = 0; i < params->count; i++) {
        const lc_param *p = params->sorted[i];
        lc_hash_update(hash, p->name, strlen(p->name) + 1);
        lc_hash_update(hash, lc_param_values(params, p), p->count * sizeof(float));
    }
    lc_hash_finish(hash, hex);
    return *hex ? LC_OK : lc_fail(err, LC_ENOMEM, "hash of weights: out of memory");
}

/* ---- cost ---- */

/* Parameters that take part in the products of a token, `routed` experts being chosen. */
static double active_of(const lc_config *c, double routed) {
    lc_param_counts n;
    lc_config_count(c, &n);
    double experts = (double)(n.active_all - n.active_zero) /
                     (double)(c->topk < c->experts ? c->topk : c->experts);
    return (double)n.active_zero + experts * routed;
}

/* Multiplications and additions of the products of a step: 2 forward and 4 backward for each
 * weight and token; attention's scores and sums by the keys that are seen. */
static double operations_of(const loop *l, double routed, double tokens) {
    const lc_config *c = &l->config;
    bool sparse = c->index_heads && l->stage->index == LC_INDEX_SPARSE;
    double keys = lc_feed_keys(l->feed, sparse ? c->index_topk : SIZE_MAX);
    double attention = 2 * (double)c->heads * (double)(c->nope_dim + c->rope_dim + c->v_dim) * keys;
    double forward = 2 * active_of(c, routed) + 2 * (double)c->layers * attention;
    double h = (double)c->hidden;
    if (l->stage->mtp > 0) { /* one block and the head, for each draft step */
        double block =
            (double)(c->layers ? (active_of(c, 0) - (double)c->vocab * h) / (2 * (double)c->layers)
                               : 0);
        forward +=
            (double)c->mtp_steps * (2 * (block + (double)c->vocab * h + 2 * h * h) + attention);
    }
    return 3 * forward * tokens;
}

/* ---- memory ---- */

static size_t fixed_bytes(const loop *l) {
    size_t blocks = 2; /* weights, the open lane */
    for (int64_t n = l->r->lanes; n > 1; n /= 2) blocks++;
    return blocks * l->params->floats * sizeof(float) +
           lc_optim_bytes(l->params, &l->optim_options) +
           lc_checkpoints_bytes(l->params, &l->optim_options);
}

static size_t share_of(const loop *l) { return (size_t)(l->stage->batch / l->r->lanes); }

/* Sequences to begin with: the recipe's, or the largest power of two with at most 4,096 tokens. A
 * tied head has two uses with all of the net between them: its sum needs one sequence at a time. */
static size_t first_micro(const loop *l) {
    enum { TOKENS = 4096 };
    size_t micro = 1, share = share_of(l), wanted = (size_t)l->stage->micro;
    if (l->config.tie_embeddings) return 1;
    if (wanted) return wanted < share ? wanted : share;
    while (2 * micro <= share && 2 * micro * (size_t)l->stage->context <= TOKENS) micro *= 2;
    return micro;
}

/* Whether the net fits; halves the sequences that run together until it does, if it may. */
static bool fit_net(const loop *l, lc_net_options *n, size_t limit, size_t *micro) {
    for (*micro = first_micro(l);; *micro /= 2) {
        n->tokens = *micro * (size_t)l->stage->context;
        size_t bytes = lc_net_bytes(l->params, n);
        if (bytes <= limit && fixed_bytes(l) <= limit - bytes) return true;
        if (l->stage->micro || *micro == 1) return false;
    }
}

/* Fills net options for the stage; micro and recompute follow from the memory. */
static int plan_net(const loop *l, lc_net_options *n, size_t *micro, lc_err *err) {
    const lc_recipe_stage *s = l->stage;
    size_t limit = l->r->memory ? (size_t)l->r->memory : lc_cpu_memory() / 4 * 3;
    *n = (lc_net_options){.kernels = l->o->kernels,
                          .pool = l->o->pool,
                          .bf16 = !l->r->compute_f32,
                          .length = (size_t)s->context,
                          .mtp_steps =
                              l->params->mtp && (s->mtp > 0 || s->kl > 0) ? l->config.mtp_steps : 0,
                          .recompute = l->o->recompute == LC_RECOMPUTE_ON,
                          .profile = l->o->profile};
    bool fits = fit_net(l, n, limit, micro);
    if (!fits && l->o->recompute == LC_RECOMPUTE_AUTO) {
        n->recompute = true;
        fits = fit_net(l, n, limit, micro);
    }
    if (fits) return LC_OK;
    double bytes = (double)lc_net_bytes(l->params, n), fixed = (double)fixed_bytes(l);
    return lc_fail(err, LC_ELIMIT,
                   "%s:%d: stage %s needs %.0f MB, of which %.0f MB for micro * context = %zu "
                   "tokens at a time; memory is %.0f MB",
                   l->r->path, s->line, s->name, (bytes + fixed) / 1e6, bytes / 1e6, n->tokens,
                   (double)limit / 1e6);
}

/* ---- stages ---- */

static void close_stage(loop *l) {
    lc_feed_close(l->feed);
    lc_feed_close(l->held_out);
    lc_net_free(l->net);
    l->feed = l->held_out = NULL;
    l->net = NULL;
}

static int open_feeds(loop *l, int64_t stage) {
    lc_feed_options f = {.recipe = l->r,
                         .stage = (size_t)stage,
                         .vocab = l->config.vocab,
                         .tokenizer = lc_beside_find(&l->beside, "tokenizer.json"),
                         .pool = l->o->pool};
    int status = lc_feed_open(&f, &l->feed, l->err);
    if (status == LC_OK && l->r->eval_folder)
        status = lc_feed_open_folder(&f, l->r->eval_folder, (size_t)l->r->eval_sequences,
                                     &l->held_out, l->err);
    if (status == LC_OK && l->held_out) status = lc_feed_read(l->held_out, 0, l->err);
    return status;
}

static int check_data(loop *l) {
    uint64_t now = lc_train_data_checksum(l->feed->data);
    if (l->at.stage_step > 0 && l->at.data != now && !l->o->accept_changes)
        return lc_fail(l->err, LC_EINVAL,
                       "%s: stage %s has begun with other training data; --changed goes on "
                       "nevertheless",
                       l->r->path, l->stage->name);
    l->at.data = now;
    return LC_OK;
}

static int set_stage(loop *l, int64_t stage, size_t *learning, size_t *numbers) {
    l->stage = &l->r->stages[stage];
    l->params->config.switches.dense_attention =
        l->config.switches.dense_attention || l->stage->index == LC_INDEX_DENSE;
    l->weights = lc_recipe_losses(l->r, l->stage, &l->config);
    l->schedule = lc_recipe_schedule(l->stage);
    lc_recipe_learns(l->stage, l->params, l->learns);
    *learning = *numbers = 0;
    for (size_t i = 0; i < l->params->count; i++)
        if (l->learns[i]) ++*learning, *numbers += l->params->list[i].count;
    if (*learning) return LC_OK;
    return lc_fail(l->err, LC_EINVAL, "%s:%d: stage %s: every tensor is frozen or in no loss",
                   l->r->path, l->stage->line, l->stage->name);
}

/* What later stages lack is said before hours of work, not after them. */
static int check_later_stages(loop *l) {
    int status = LC_OK;
    for (int64_t i = l->at.stage + 1; i < (int64_t)l->r->n_stages && status == LC_OK; i++) {
        lc_net_options n;
        size_t learning, numbers, micro;
        status = set_stage(l, i, &learning, &numbers);
        if (status == LC_OK) status = open_feeds(l, i);
        if (status == LC_OK) status = plan_net(l, &n, &micro, l->err);
        close_stage(l);
    }
    return status;
}

static int open_stage(loop *l) {
    lc_net_options n;
    size_t learning, numbers;
    int status = set_stage(l, l->at.stage, &learning, &numbers);
    if (status == LC_OK) status = open_feeds(l, l->at.stage);
    if (status == LC_OK) status = check_data(l);
    if (status == LC_OK) status = plan_net(l, &n, &l->micro, l->err);
    if (status == LC_OK) status = lc_net_new(l->params, &n, &l->net, l->err);
    if (status == LC_OK)
        note(l, "stage %s: %lld steps of %lld x %lld tokens, %.1f M numbers in %zu tensors learn%s",
             l->stage->name, (long long)l->stage->steps, (long long)l->stage->batch,
             (long long)l->stage->context, (double)numbers / 1e6, learning,
             n.recompute ? ", activations are computed twice" : "");
    return status;
}

/* ---- checkpoints ---- */

/* Mean cross entropy of the held-out sequences. */
static int evaluate(loop *l, double *out) {
    lc_feed *f = l->held_out;
    lc_losses losses = {0};
    lc_counts totals = {0};
    lc_loss_weights only = {.lm = 1};
    lc_batch all = lc_feed_batch(f, 0, f->sequences);
    only.balance_form = l->weights.balance_form;
    if (l->weights.kl_stage == LC_KL_WARMUP) only.kl_stage = LC_KL_WARMUP; /* dense attention */
    lc_net_count(l->net, &all, &totals);
    int status = LC_OK;
    for (size_t i = 0; i < f->sequences && status == LC_OK; i++) {
        lc_batch one = lc_feed_batch(f, i, 1);
        status = lc_net_run(l->net, &one, &only, &totals, NULL, &losses, l->err);
    }
    *out = losses.lm / ((double)totals.lm + 1e-10);
    return status;
}

static void report_saved(loop *l) {
    lc_err err = {0};
    int status = lc_checkpoints_wait(l->checkpoints, &err);
    l->saving = false;
    if (status == LC_OK) {
        note(l, "checkpoint of step %lld is complete", (long long)l->pending);
        l->saved_step = l->pending;
        return;
    }
    lc_log(LC_LOG_ERROR, "the checkpoint of step %lld was not written: %s", (long long)l->pending,
           err.text);
    if (l->saved_step > 0)
        lc_log(LC_LOG_ERROR, "training goes on; the last checkpoint is that of step %lld",
               (long long)l->saved_step);
    else
        lc_log(LC_LOG_ERROR, "training goes on; there is no checkpoint yet");
}

/* The copy is made now; the writing goes on beside the training. */
static int save(loop *l, bool measure) {
    size_t stages = (size_t)l->at.stage + (l->at.stage_step > 0);
    int status = LC_OK;
    if (l->saving) report_saved(l);
    l->at.loss = 0;
    if (l->held_out && measure && l->net) {
        status = evaluate(l, &l->at.loss);
        lc_runlog_eval(l->log, l->at.step, l->at.loss);
        note(l, "step %lld: held-out loss %.4f", (long long)l->at.step, l->at.loss);
    } else if (!l->r->eval_folder && l->lm_steps) {
        l->at.loss = l->lm_sum / (double)l->lm_steps;
    }
    if (!isfinite(l->at.loss)) l->at.loss = 0;
    if (status == LC_OK) status = lc_recipe_hash(l->r, stages, l->at.recipe, l->err);
    if (status == LC_OK) status = lc_checkpoints_begin(l->checkpoints, &l->at, l->err);
    l->saving = status == LC_OK;
    l->pending = l->at.step;
    l->saved_ns = lc_clock_ns();
    l->saved_tokens = l->at.tokens;
    l->lm_sum = 0;
    l->lm_steps = 0;
    return status;
}

static bool save_is_due(const loop *l) {
    double minutes = (double)(lc_clock_ns() - l->saved_ns) / 6e10;
    if (l->r->checkpoint_minutes > 0 && minutes >= l->r->checkpoint_minutes) return true;
    return l->r->checkpoint_tokens > 0 && l->at.tokens - l->saved_tokens >= l->r->checkpoint_tokens;
}

/* The last one of a run or a sitting: its failure is the run's. */
static int save_last(loop *l, bool measure) {
    if (l->saving) report_saved(l);
    if (l->saved_step == l->at.step) return LC_OK;
    int status = save(l, measure);
    if (status != LC_OK) return status;
    l->saving = false;
    status = lc_checkpoints_wait(l->checkpoints, l->err);
    if (status != LC_OK)
        lc_err_prefix(l->err, "the checkpoint of step %lld was not written", (long long)l->at.step);
    else
        l->saved_step = l->at.step;
    return status;
}

/* ---- a step ---- */

/* Gradients and losses. *dropped: the step was interrupted. */
static int run_lanes(loop *l, const lc_counts *totals, lc_losses *losses, bool *dropped) {
    size_t share = share_of(l);
    int status = LC_OK;
    *dropped = false;
    for (size_t lane = 0; lane < (size_t)l->r->lanes && status == LC_OK; lane++) {
        float *grad = lc_lanes_begin(l->lanes);
        lc_profile_lap(l->o->profile, LC_LAP_LANES, NULL);
        for (size_t i = 0; i < share && status == LC_OK; i += l->micro) {
            if ((*dropped = l->o->hooks.stop && l->o->hooks.stop(l->o->hooks.ctx))) return LC_OK;
            size_t rows = share - i < l->micro ? share - i : l->micro;
            lc_batch batch = lc_feed_batch(l->feed, lane * share + i, rows);
            batch.balance_counts = l->load;
            batch.balance_tokens = l->load[l->config.layers * l->entries];
            status = lc_net_run(l->net, &batch, &l->weights, totals, grad, losses, l->err);
        }
        lc_lanes_end(l->lanes);
        lc_profile_lap(l->o->profile, LC_LAP_LANES, NULL);
    }
    return status;
}

static void report_step(loop *l, const lc_losses *losses, double rate, double norm,
                        double seconds) {
    double tokens = (double)losses->counts.tokens;
    lc_step_report r = {.step = l->at.step,
                        .steps = l->steps,
                        .stage = l->stage->name,
                        .stage_step = l->at.stage_step,
                        .stage_steps = l->stage->steps,
                        .tokens = l->at.tokens,
                        .all_tokens = lc_recipe_tokens(l->r),
                        .rate = rate,
                        .norm = norm,
                        .objective = lc_losses_objective(losses, &l->weights),
                        .reported = lc_losses_reported(losses, &l->weights),
                        .lm = losses->lm / ((double)losses->counts.lm + 1e-10),
                        .balance = losses->balance / tokens,
                        .router_z = losses->router_z / tokens,
                        .hidden_z = losses->hidden_z / tokens,
                        .kl = losses->kl / tokens,
                        .mtp_steps = l->stage->mtp > 0 ? l->config.mtp_steps : 0,
                        .load = lc_load_of(&l->config, l->experts, losses->counts.tokens),
                        .seconds = seconds,
                        .step_tokens = tokens,
                        .experts = l->experts,
                        .layers = l->config.layers,
                        .entries = l->entries};
    for (size_t k = 0; k < r.mtp_steps; k++)
        r.mtp[k] = losses->mtp[k] / ((double)losses->counts.mtp[k] + 1e-10);
    r.active = active_of(&l->config, r.load.routed);
    r.operations = operations_of(l, r.load.routed, tokens);
    l->lm_sum += r.lm;
    l->lm_steps++;
    lc_runlog_step(l->log, &r);
    if (l->o->hooks.on_step) l->o->hooks.on_step(l->o->hooks.ctx, &r);
}

static int finish_step(loop *l, lc_losses *losses, uint64_t begin) {
    double norm, rate = lc_schedule_rate(&l->schedule, l->at.stage_step, l->stage->steps);
    lc_update update = {rate, l->learns, lc_lanes_sum(l->lanes)};
    lc_bias_rule rule = {l->r->bias_rate, l->r->bias_half_after, l->r->bias_floor,
                         l->r->target_topk};
    int status = lc_optim_step(l->optim, &update, &norm, l->err);
    if (status != LC_OK) {
        lc_err_prefix(l->err, "step %lld", (long long)l->at.step + 1);
        return status;
    }
    if (l->weights.lm > 0) lc_bias_update(l->params, &rule, l->at.step, l->experts);
    lc_optim_average(l->optim, l->at.step);
    lc_net_refresh(l->net);
    lc_profile_lap(l->o->profile, LC_LAP_AFTER, NULL);
    size_t count = l->config.layers * l->entries;
    memcpy(l->load, l->experts, count * sizeof *l->load);
    l->load[count] = losses->counts.tokens;
    l->at.step++;
    l->at.stage_step++;
    l->at.tokens += losses->counts.tokens;
    double seconds = (double)(lc_clock_ns() - begin) / 1e9;
    l->at.seconds += seconds;
    report_step(l, losses, rate, norm, seconds);
    return LC_OK;
}

static int step(loop *l, bool *dropped) {
    lc_losses losses = {.experts = l->experts};
    lc_counts totals = {0};
    uint64_t begin = lc_clock_ns();
    lc_profile_start(l->o->profile);
    memset(l->experts, 0, l->config.layers * l->entries * sizeof *l->experts);
    int status = lc_feed_read(l->feed, (uint64_t)(l->at.stage_step * l->stage->batch), l->err);
    if (status != LC_OK) return status;
    lc_batch all = lc_feed_batch(l->feed, 0, (size_t)l->stage->batch);
    lc_net_count(l->net, &all, &totals);
    lc_profile_lap(l->o->profile, LC_LAP_DATA, NULL);
    status = run_lanes(l, &totals, &losses, dropped);
    return status == LC_OK && !*dropped ? finish_step(l, &losses, begin) : status;
}

/* Until the end of the stage, an interruption or an error. */
static int run_stage(loop *l, bool *interrupted) {
    int status = open_stage(l);
    while (status == LC_OK && l->at.stage_step < l->stage->steps) {
        bool dropped = false;
        if ((*interrupted = stopped(l))) return LC_OK;
        status = step(l, &dropped);
        if ((*interrupted = dropped)) return status;
        if (lc_checkpoints_done(l->checkpoints)) report_saved(l);
        bool last =
            l->at.stage_step == l->stage->steps; /* saved below, as the next stage's start */
        if (status == LC_OK && !last && save_is_due(l)) status = save(l, true);
    }
    if (status != LC_OK) return status;
    l->at.stage++;
    l->at.stage_step = 0;
    /* Measured with the stage's own net, before it goes. */
    return l->at.stage < (int64_t)l->r->n_stages ? save(l, true) : save_last(l, true);
}

/* ---- the run ---- */

static int check_recipe(loop *l) {
    char now[65];
    size_t stages = (size_t)l->at.stage + (l->at.stage_step > 0);
    if (stages > l->r->n_stages ||
        (l->at.stage_step > 0 && l->at.stage_step >= l->r->stages[l->at.stage].steps))
        return lc_fail(l->err, LC_EINVAL, "%s: has fewer stages or steps than %s has done",
                       l->r->path, l->r->run);
    int status = lc_recipe_hash(l->r, stages, now, l->err);
    if (status != LC_OK || !strcmp(now, l->at.recipe) || l->o->accept_changes) return status;
    return lc_fail(l->err, LC_EINVAL,
                   "%s: has changed since the last checkpoint in %s, in what is done already or in "
                   "the present stage; --changed goes on nevertheless, another `run` begins anew",
                   l->r->path, l->r->run);
}

/* The model's config decides as the recipe does. */
static int check_config(loop *l, const char *checkpoint) {
    bool same;
    const lc_buf *config = lc_beside_find(&l->beside, "config.json");
    int status = lc_checkpoint_same_model(checkpoint, config, &same, l->err);
    if (status != LC_OK || same || l->o->accept_changes) return status;
    return lc_fail(l->err, LC_EINVAL,
                   "%s: the model's config.json has changed since %s; --changed goes on "
                   "nevertheless, another `run` begins anew",
                   l->r->path, checkpoint);
}

static int make_optim(loop *l) {
    l->optim_options = lc_recipe_optim(l->r, &l->config);
    l->optim_options.kernels = l->o->kernels;
    l->optim_options.pool = l->o->pool;
    l->optim_options.profile = l->o->profile;
    return lc_optim_new(l->params, &l->optim_options, &l->optim, l->err);
}

static int begin_anew(loop *l) {
    size_t anew;
    int status = lc_start_params(l->r, &l->config, &l->params, &anew, l->err);
    if (status == LC_OK) status = make_optim(l);
    if (status == LC_OK && l->r->from)
        note(l, "weights of %s%s", l->r->from, l->r->grow > 1 ? ", layers stacked" : "");
    if (status == LC_OK && anew && l->r->from)
        lc_log(LC_LOG_WARN, "%s lacks %zu tensors of the model: they begin with new numbers",
               l->r->from, anew);
    return status;
}

static int resume(loop *l, const lc_checkpoint_found *found) {
    l->at = found->position;
    int status = check_recipe(l);
    if (status == LC_OK) status = check_config(l, found->path);
    if (status == LC_OK) status = lc_checkpoint_params(found->path, &l->config, &l->params, l->err);
    if (status == LC_OK) status = make_optim(l);
    if (status == LC_OK) status = lc_checkpoint_optim(found->path, l->params, l->optim, l->err);
    if (status == LC_OK)
        status =
            lc_checkpoint_load(found->path, l->load, l->config.layers * l->entries + 1, l->err);
    if (status == LC_OK) note(l, "goes on from %s", found->path);
    l->saved_step = l->at.step;
    return status;
}

static int make_counts(loop *l) {
    l->entries = l->config.experts + l->config.zero_experts;
    l->experts = lc_calloc(l->config.layers * l->entries + 1, sizeof *l->experts);
    l->load = lc_calloc(l->config.layers * l->entries + 1, sizeof *l->load);
    return l->experts && l->load ? LC_OK : lc_fail(l->err, LC_ENOMEM, "training: out of memory");
}

static int open_rest(loop *l) {
    lc_checkpoint_setup setup = {.run = l->r->run,
                                 .from = l->at.step,
                                 .params = l->params,
                                 .optim = l->optim,
                                 .beside = &l->beside,
                                 .keep = (size_t)l->r->keep,
                                 .f32 = l->r->store_f32,
                                 .average = l->r->publish_average,
                                 .load = l->load,
                                 .load_count = l->config.layers * l->entries + 1};
    l->learns = lc_calloc(l->params->count, sizeof *l->learns);
    if (!l->learns) return lc_fail(l->err, LC_ENOMEM, "training: out of memory");
    int status =
        lc_lanes_new(l->params->floats, (size_t)l->r->lanes, l->o->pool, &l->lanes, l->err);
    if (status == LC_OK) status = lc_checkpoints_open(&setup, &l->checkpoints, l->err);
    if (status == LC_OK) status = check_later_stages(l);
    if (status == LC_OK) status = lc_runlog_open(l->r->run, l->at.step, &l->log, l->err);
    return status;
}

/* The model's files, and whether the recipe fits them. */
static int load_model(loop *l) {
    int status = lc_beside_load(l->r, &l->config, &l->beside, l->err);
    return status == LC_OK ? lc_recipe_check(l->r, &l->config, l->config.mtp_steps > 0, l->err)
                           : status;
}

static int begin(loop *l, lc_loop_result *result) {
    lc_checkpoint_found found = {0};
    if (!l->r->run) return lc_fail(l->err, LC_EINVAL, "%s: no folder for the run", l->r->path);
    int status = load_model(l);
    if (status == LC_OK) status = make_counts(l);
    if (status == LC_OK) status = lc_run_lock(l->r->run, &l->lock, l->err);
    if (status == LC_OK) status = lc_checkpoint_find(l->r->run, &found, l->err);
    result->resumed = found.path != NULL;
    if (status == LC_OK) status = found.path ? resume(l, &found) : begin_anew(l);
    lc_free(found.path);
    if (status == LC_OK) status = open_rest(l);
    l->steps = lc_recipe_steps(l->r);
    l->first = l->at.step;
    l->saved_ns = lc_clock_ns();
    l->saved_tokens = l->at.tokens;
    return status;
}

static void end(loop *l) {
    close_stage(l);
    lc_checkpoints_close(l->checkpoints);
    lc_runlog_close(l->log);
    lc_lanes_free(l->lanes);
    lc_optim_free(l->optim);
    lc_params_free(l->params);
    lc_beside_free(&l->beside);
    lc_free(l->experts);
    lc_free(l->load);
    lc_free(l->learns);
    if (l->lock >= 0) close(l->lock);
    lc_free(l);
}

static loop *new_loop(lc_recipe *recipe, const lc_loop_options *options, lc_err *err) {
    loop *l = lc_calloc(1, sizeof *l);
    if (!l) {
        lc_fail(err, LC_ENOMEM, "training: out of memory");
        return NULL;
    }
    l->r = recipe;
    l->lock = -1;
    l->o = options;
    l->err = err;
    return l;
}

int lc_loop_check(lc_recipe *recipe, lc_pool *pool, lc_err *err) {
    lc_err own = {0};
    lc_loop_options options = {.pool = pool};
    loop *l = new_loop(recipe, &options, err ? err : &own);
    if (!l) return LC_ENOMEM;
    int status = load_model(l);
    for (int64_t i = 0; i < (int64_t)recipe->n_stages && status == LC_OK; i++) {
        status = open_feeds(l, i);
        close_stage(l);
    }
    end(l);
    return status;
}

int lc_loop_run(lc_recipe *recipe, const lc_loop_options *options, lc_loop_result *result,
                lc_err *err) {
    lc_err own = {0};
    *result = (lc_loop_result){0};
    loop *l = new_loop(recipe, options, err ? err : &own);
    if (!l) return LC_ENOMEM;
    bool interrupted = false;
    int status = begin(l, result);
    while (status == LC_OK && !interrupted && l->at.stage < (int64_t)recipe->n_stages) {
        status = run_stage(l, &interrupted);
        close_stage(l);
    }
    if (l->saving && status != LC_OK) report_saved(l); /* what was begun is still of use */
    if (status == LC_OK && l->at.step > 0) status = save_last(l, false);
    if (status == LC_OK) status = lc_params_hash(l->params, result->hash, l->err);
    result->step = l->at.step;
    result->steps = l->steps;
    result->complete = l->at.stage == (int64_t)recipe->n_stages;
    end(l);
    return status;
}
