/* engine.c: opening a model with its threads, kernels and step memory. */
#include "engine/engine.h"

#include "base/err.h"

#include <stdio.h>
#include <sys/stat.h>

/* Weights stored in fp32 are not rounded unless somebody asks for it. */
static int choose_compute(lc_engine *e, const char *compute, lc_err *err) {
    e->bf16 = compute ? !strcmp(compute, "bf16") : e->model->words.type != LC_F32;
    if (compute && !e->bf16 && strcmp(compute, "f32") != 0)
        return lc_fail(err, LC_EINVAL, "compute type \"%s\" is unknown: bf16 or f32", compute);
    return LC_OK;
}

static int choose_context(lc_engine *e, size_t context, lc_err *err) {
    size_t most = e->model->config.max_positions;
    if (context > most)
        return lc_fail(err, LC_ELIMIT, "context of %zu tokens: the model's config allows %zu",
                       context, most);
    e->context = context ? context : most;
    return LC_OK;
}

static int load_tokenizer(lc_engine *e, const char *path, lc_err *err) {
    char file[4096];
    struct stat st;
    snprintf(file, sizeof file, "%s/tokenizer.json", path);
    if (stat(file, &st) != 0) return LC_OK;
    return lc_tokenizer_load(file, &e->tokenizer, err);
}

static int allocate(lc_engine *e, size_t chunk, lc_err *err) {
    const lc_config *config = &e->model->config;
    lc_work_size size = {0, e->context, lc_pool_threads(e->pool), e->kernels, e->bf16};
    size.rows = chunk ? chunk : lc_work_default_rows(config, size, lc_cpu_memory());
    e->chunk = size.rows;
    e->rows = lc_calloc(e->chunk, sizeof *e->rows);
    e->logit_rows = lc_calloc(e->chunk, sizeof *e->logit_rows);
    e->previous = e->drafts ? lc_calloc(e->chunk * config->hidden, sizeof *e->previous) : NULL;
    if (!e->rows || !e->logit_rows || (e->drafts && !e->previous))
        return lc_fail(err, LC_ENOMEM, "engine: out of memory");
    int status = lc_work_new(e->model, size, e->pool, &e->work, err);
    return status == LC_OK ? lc_model_pack(e->model, &e->work->op, err) : status;
}

int lc_engine_open(const char *path, const lc_engine_options *options, lc_engine **out,
                   lc_err *err) {
    static const lc_engine_options defaults;
    if (!options) options = &defaults;
    *out = NULL;
    lc_engine *e = lc_calloc(1, sizeof *e);
    if (!e) return lc_fail(err, LC_ENOMEM, "engine: out of memory");
    e->drafts = options->drafts;
    int status = lc_kernels_named(options->isa, &e->kernels, err);
    if (status == LC_OK) status = lc_pool_new(options->threads, &e->pool, err);
    if (status == LC_OK)
        status = lc_model_open(path, options->settings, options->n_settings, &e->model, err);
    if (status == LC_OK) status = choose_compute(e, options->compute, err);
    if (status == LC_OK && e->drafts && !e->model->mtp)
        status = lc_fail(err, LC_ENOTFOUND, "%s: the checkpoint has no draft module (model.mtp.*)",
                         path);
    if (status == LC_OK) status = choose_context(e, options->context, err);
    if (status == LC_OK) status = load_tokenizer(e, path, err);
    if (status == LC_OK) status = allocate(e, options->chunk, err);
    if (status != LC_OK) {
        lc_engine_close(e);
        return status;
    }
    *out = e;
    return LC_OK;
}

void lc_engine_close(lc_engine *e) {
    if (!e) return;
    lc_work_free(e->work);
    lc_free(e->rows);
    lc_free(e->logit_rows);
    lc_free(e->logits);
    lc_free(e->previous);
    lc_free(e->routes);
    lc_tokenizer_free(e->tokenizer);
    lc_model_close(e->model);
    lc_pool_free(e->pool);
    lc_free(e);
}

size_t lc_engine_vocab(const lc_engine *e) { return e->model->config.vocab; }
size_t lc_engine_context(const lc_engine *e) { return e->context; }

int lc_engine_logits(lc_engine *e, size_t n, lc_err *err) {
    if (n <= e->cap_logits) return LC_OK;
    float *grown = lc_realloc(e->logits, n, e->model->config.vocab * sizeof *grown);
    if (!grown) return lc_fail(err, LC_ENOMEM, "logits of %zu rows: out of memory", n);
    e->logits = grown;
    e->cap_logits = n;
    return LC_OK;
}

int lc_engine_keep_routes(lc_engine *e, lc_err *err) {
    const lc_config *c = &e->model->config;
    if (!e->routes) e->routes = lc_calloc(e->chunk * c->layers * c->topk, sizeof *e->routes);
    if (!e->routes) return lc_fail(err, LC_ENOMEM, "routes of %zu rows: out of memory", e->chunk);
    e->work->routes = e->routes;
    return LC_OK;
}
