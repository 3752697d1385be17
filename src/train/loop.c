/* loop.c: the run: where it begins, its steps, its checkpoints. */
#include "train/loop_parts.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void lc_run_note(const lc_run *run, const char *fmt, ...) {
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    run->o->note(run->o->ctx, text);
}

/* ---- where a run begins ---- */

static int load_params(lc_run *run, const char *folder) {
    lc_tensors *tensors = NULL;
    int status = lc_tensors_open(folder, &tensors, run->err);
    if (status != LC_OK) return status;
    lc_config own; /* how this checkpoint's numbers are stored */
    status = lc_config_load(folder, &own, run->err);
    if (status == LC_OK) {
        lc_tensors_set_quant(tensors, &own.quant);
        status = lc_params_load(&run->r->model, tensors, &run->params, run->err);
    }
    lc_tensors_close(tensors);
    return status == LC_OK ? LC_OK : lc_err_prefix(run->err, "%s", folder);
}

static int check_same(const lc_run *run, const char *path) {
    if (run->o->changed || !strcmp(run->at.recipe, run->r->hash)) return LC_OK;
    return lc_fail(run->err, LC_EINVAL,
                   "%s: was made with another recipe (out, keep, checkpoint, recompute and "
                   "tokenizer may change); choose another out, or give --changed to go on with "
                   "this recipe",
                   path);
}

static int begin(lc_run *run) {
    const lc_recipe *r = run->r;
    char *path = NULL;
    int status = lc_checkpoint_find(r->out, run->o->note, run->o->ctx, &path, &run->at, run->err);
    run->tried = UINT64_MAX;
    if (status == LC_OK && path) {
        run->tried = run->at.total;
        snprintf(run->result->checkpoint, sizeof run->result->checkpoint, "%s", path);
        status = check_same(run, path);
    } else {
        run->at = (lc_checkpoint_place){0};
    }
    if (status == LC_OK)
        status = path       ? load_params(run, path)
                 : r->start ? load_params(run, r->start)
                            : lc_params_new(&r->model, &r->init, &run->params, run->err);
    lc_optim_options o = r->optim;
    o.kernels = run->o->kernels;
    o.pool = run->o->pool;
    if (status == LC_OK) status = lc_optim_new(run->params, &o, &run->optim, run->err);
    if (status == LC_OK && path) status = lc_checkpoint_load(path, run->optim, run->err);
    lc_free(path);
    memcpy(run->at.recipe, r->hash, sizeof run->at.recipe);
    if (status == LC_OK)
        status = lc_lanes_new(run->params->floats, r->lanes, run->o->pool, &run->lanes, run->err);
    if (status == LC_OK) status = lc_stage_check_all(run);
    return status == LC_OK ? lc_log_open(run) : status;
}

/* ---- steps ---- */

/* Failures are told and the run goes on. */
static void save(lc_run *run) {
    const lc_recipe *r = run->r;
    lc_err err = {0};
    if (run->tried == run->at.total) return;
    run->tried = run->at.total;
    lc_checkpoint_run to = {.out = r->out,
                            .config = r->config ? r->config : r->start,
                            .tokenizer = r->tokenizer ? r->tokenizer : r->start,
                            .bf16 = r->bf16,
                            .keep = r->keep};
    if (lc_checkpoint_write(&to, run->optim, &run->at, &err) != LC_OK) {
        lc_run_note(run, "no checkpoint at step %llu: %s", (unsigned long long)run->at.total,
                    err.text);
        return;
    }
    snprintf(run->result->checkpoint, sizeof run->result->checkpoint, "%s/step-%08llu", r->out,
             (unsigned long long)run->at.total);
}

/* Gradient of the step, the lanes joined; valid until the next. */
static int gradient(lc_run *run, lc_stage *x, lc_losses *losses, const float **grad) {
    const lc_config *c = &run->params->config;
    lc_counts totals = {0};
    int status = lc_stage_read(run, x);
    memset(x->experts, 0, c->layers * (c->experts + c->zero_experts) * sizeof *x->experts);
    for (size_t lane = 0; lane < run->r->lanes && status == LC_OK; lane++) {
        lc_batch b = lc_stage_batch(x, lane);
        lc_net_count(x->net, &b, &totals);
    }
    for (size_t lane = 0; lane < run->r->lanes && status == LC_OK; lane++) {
        lc_batch b = lc_stage_batch(x, lane);
        float *block = lc_lanes_begin(run->lanes);
        status = lc_net_run(x->net, &b, &x->weights, &totals, block, losses, run->err);
        lc_lanes_end(run->lanes);
    }
    *grad = lc_lanes_sum(run->lanes);
    return status;
}

static int step(lc_run *run, lc_stage *x, lc_train_progress *p) {
    uint64_t start = lc_clock_ns();
    lc_losses losses = {.experts = x->experts};
    const float *grad;
    double load;
    int status = gradient(run, x, &losses, &grad);
    p->lr = lc_schedule_rate(&x->s->schedule, run->at.step);
    if (status == LC_OK)
        status = lc_optim_step(run->optim, grad, x->trained, p->lr, &p->norm, run->err);
    if (status != LC_OK)
        return lc_err_prefix(run->err, "step %llu", (unsigned long long)run->at.total + 1);
    if (x->trained[LC_OPTIM_MAIN])
        lc_bias_update(run->params, x->experts, run->r->target_experts,
                       lc_bias_rate(run->r->bias_rate, run->r->bias_halving, run->r->bias_floor,
                                    run->at.total));
    lc_net_refresh(x->net);
    run->at.step++;
    run->at.total++;
    run->at.next += x->s->batch;
    run->at.tokens += x->s->batch * x->s->context;
    p->step = run->at.total;
    p->tokens = run->at.tokens;
    p->loss = run->result->loss = lc_losses_reported(&losses, &x->weights);
    p->routed = lc_stage_routed(run, x, &load);
    lc_log_step(run, x, p, &losses, (double)(lc_clock_ns() - start) / 1e9);
    return LC_OK;
}

static int run_stage(lc_run *run, lc_train_progress *p, bool *stop) {
    lc_stage x;
    int status = lc_stage_open(run, run->at.stage, &x);
    uint64_t data = status == LC_OK ? lc_train_data_checksum(x.data) : 0;
    if (status == LC_OK && run->at.step && data != run->at.data && !run->o->changed)
        status = lc_fail(run->err, LC_EINVAL,
                         "stage %s: the data isn't what the checkpoint was made with; --changed "
                         "goes on with it",
                         x.s->name);
    run->at.data = data;
    p->stage = run->r->stages[run->at.stage].name;
    while (status == LC_OK && !*stop && run->at.step < x.s->steps) {
        status = step(run, &x, p);
        if (status != LC_OK) break;
        *stop = !run->o->progress(run->o->ctx, p);
        if (run->at.total % run->r->interval == 0) save(run);
    }
    lc_stage_close(&x);
    return status;
}

static int run_stages(lc_run *run) {
    const lc_recipe *r = run->r;
    lc_train_progress p = {.steps = lc_recipe_steps(r)};
    bool stop = false;
    int status = LC_OK;
    for (size_t i = 0; i < r->n_stages; i++)
        p.all_tokens += r->stages[i].steps * r->stages[i].batch * r->stages[i].context;
    while (status == LC_OK && !stop && run->at.stage < r->n_stages) {
        if (run->at.step < r->stages[run->at.stage].steps) status = run_stage(run, &p, &stop);
        if (status != LC_OK || run->at.step < r->stages[run->at.stage].steps) break;
        if (run->at.stage + 1 == r->n_stages) break;
        run->at.stage++;
        run->at.step = run->at.next = run->at.data = 0;
    }
    if (status == LC_OK) save(run);
    run->result->steps = run->at.total;
    run->result->tokens = run->at.tokens;
    run->result->finished =
        run->at.stage + 1 == r->n_stages && run->at.step >= r->stages[run->at.stage].steps;
    return status;
}

int lc_train_run(const lc_recipe *recipe, const lc_train_run_options *options,
                 lc_train_run_result *result, lc_err *err) {
    lc_run run = {.r = recipe, .o = options, .result = result, .err = err, .lock = -1, .log = -1};
    *result = (lc_train_run_result){0};
    int status = lc_checkpoint_lock(recipe->out, &run.lock, err);
    if (status == LC_OK) status = begin(&run);
    if (status == LC_OK && run.at.stage >= recipe->n_stages)
        status = lc_fail(err, LC_EINVAL, "%s: the checkpoint is in stage %llu, the recipe has %zu",
                         recipe->path, (unsigned long long)run.at.stage + 1, recipe->n_stages);
    result->resumed = run.at.total;
    if (status == LC_OK) status = run_stages(&run);
    lc_lanes_free(run.lanes);
    lc_optim_free(run.optim);
    lc_params_free(run.params);
    lc_free(run.uses);
    if (run.log >= 0) close(run.log);
    lc_checkpoint_unlock(run.lock);
    return status;
}
