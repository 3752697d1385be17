/*
 * eval_train.c: `longcat eval grad|steps` and the hash of weights: the training arithmetic on a
 * batch that somebody else made, for comparison with other implementations. What goes in and out,
 * the terms of the objective and the rules of a step are those of tests/golden/model/<case>/
 * train.json.
 */
#include "cli/eval.h"
#include "train/bias.h"
#include "train/checkpoint.h"
#include "train/loop.h"
#include "train/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TERMS = LC_MTP_STEPS_MAX + 8 };

typedef struct train_flags {
    lc_engine_flags engine; /* chunk is not used */
    const char *in, *out, *loss, *kl, *optimizer;
    bool recompute;
} train_flags;

/* The coefficients of --loss, with train.json's values. */
typedef struct coefficients {
    double lm, mtp, balance, router_z, hidden_z, kl, topk;
} coefficients;

/* Everything that a run needs, from the model folder and the input file. */
typedef struct job {
    const char *model, *in;
    lc_config config;
    lc_params *params;
    lc_pool *pool;
    const lc_kernels *kernels;
    bool bf16, recompute;
    coefficients by;
    lc_loss_weights weights;
    size_t steps, rows, length; /* [S][B][T]; steps 1 for grad */
    int32_t *tokens;
    uint8_t *mask;
    lc_net *net;
    int64_t *experts; /* [layers][experts + zero] */
    double *groups;   /* [layers + 1] */
} job;

static void job_free(job *j) {
    lc_net_free(j->net);
    lc_free(j->experts);
    lc_free(j->groups);
    lc_free(j->tokens);
    lc_free(j->mask);
    lc_params_free(j->params);
    lc_pool_free(j->pool);
}

/* ---- options ---- */

/* "name=value,...": what isn't named is 0, but for target_topk. */
static int parse_loss(const char *text, coefficients *by, lc_err *err) {
    const struct {
        const char *name;
        double *value;
        double least;
    } keys[] = {
        {"lm_weight", &by->lm, 0},
        {"mtp_weight", &by->mtp, 0},
        {"balance_coeff", &by->balance, 0},
        {"router_z_coeff", &by->router_z, 0},
        {"hidden_z_coeff", &by->hidden_z, 0},
        {"kl_weight", &by->kl, 0},
        {"target_topk", &by->topk, 1e-6},
    };
    enum { N = sizeof keys / sizeof *keys };
    bool seen[N] = {false};
    *by = (coefficients){.lm = 1, .topk = by->topk};
    while (*text) {
        size_t n = strcspn(text, "=,"), i = 0;
        while (i < N && (strlen(keys[i].name) != n || strncmp(keys[i].name, text, n))) i++;
        if (i == N)
            return lc_fail(err, LC_EINVAL,
                           "--loss: \"%.*s\" is unknown; the names are lm_weight, mtp_weight, "
                           "balance_coeff, router_z_coeff, hidden_z_coeff, kl_weight, target_topk",
                           (int)(n < 64 ? n : 64), text);
        if (seen[i]) return lc_fail(err, LC_EINVAL, "--loss: %s is given twice", keys[i].name);
        seen[i] = true;
        char *end = NULL;
        errno = 0;
        double value = text[n] == '=' ? strtod(text + n + 1, &end) : 0;
        if (text[n] != '=' || end == text + n + 1 || errno || !(value >= keys[i].least) ||
            value > 1e6 || (*end && *end != ','))
            return lc_fail(err, LC_EINVAL, "--loss: %s needs a number from %g to 1e6", keys[i].name,
                           keys[i].least);
        *keys[i].value = value;
        text = end + (*end == ',');
    }
    return LC_OK;
}

static int choose_weights(job *j, const train_flags *f, lc_err *err) {
    const lc_config *c = &j->config;
    lc_param_counts counts;
    lc_config_count(c, &counts);
    j->by = (coefficients){.lm = 1, /* train.json's */
                           .mtp = 0.3,
                           .balance = 0.02,
                           .router_z = 0.004,
                           .hidden_z = 0.01,
                           .kl = 1,
                           .topk = counts.average_experts};
    int status = f->loss ? parse_loss(f->loss, &j->by, err) : LC_OK;
    if (status != LC_OK) return status;
    if (j->by.topk > (double)c->topk)
        return lc_fail(err, LC_EINVAL, "--loss: target_topk = %g: %s chooses %zu entries a token",
                       j->by.topk, j->model, c->topk);
    if (f->kl && strcmp(f->kl, "warmup") && strcmp(f->kl, "sparse"))
        return lc_fail(err, LC_EINVAL, "--kl %s: warmup or sparse", f->kl);
    if (f->kl && !c->index_heads)
        return lc_fail(err, LC_EINVAL, "--kl: %s has no indexer", j->model);
    lc_loss_weights *w = &j->weights;
    *w = (lc_loss_weights){.lm = (float)j->by.lm,
                           .balance = (float)j->by.balance,
                           .router_z = (float)j->by.router_z,
                           .hidden_z = (float)j->by.hidden_z,
                           .balance_form.target_topk = j->by.topk};
    for (size_t k = 0; k < c->mtp_steps; k++) w->mtp[k] = (float)(j->by.mtp / (double)c->mtp_steps);
    if (c->index_heads) {
        w->kl = (float)j->by.kl;
        w->kl_stage = f->kl && !strcmp(f->kl, "warmup") ? LC_KL_WARMUP : LC_KL_SPARSE;
    }
    return LC_OK;
}

static int choose_machine(job *j, const train_flags *f, lc_err *err) {
    int status = lc_kernels_named(f->engine.isa, &j->kernels, err);
    if (status != LC_OK) return status;
    const char *compute = f->engine.compute ? f->engine.compute : "f32";
    j->bf16 = !strcmp(compute, "bf16");
    if (!j->bf16 && strcmp(compute, "f32"))
        return lc_fail(err, LC_EINVAL, "--compute %s: bf16 or f32", compute);
    j->recompute = f->recompute;
    return lc_pool_new((int)f->engine.threads, &j->pool, err);
}

/* ---- model and input ---- */

static int load_params(const char *model, lc_opt_list switches, lc_config *config,
                       lc_params **params, lc_err *err) {
    lc_tensors *tensors = NULL;
    int status = lc_config_load(model, config, err);
    for (size_t i = 0; i < switches.count && status == LC_OK; i++)
        status = lc_config_set(config, switches.items[i], err);
    if (status == LC_OK) status = lc_tensors_open(model, &tensors, err);
    if (status == LC_OK) {
        lc_tensors_set_quant(tensors, &config->quant);
        status = lc_params_load(config, tensors, params, err);
    }
    lc_tensors_close(tensors);
    return status;
}

int lc_eval_hash_weights(const char *model, char hex[65], lc_err *err) {
    lc_config config;
    lc_params *params = NULL;
    lc_buf state = {0};
    lc_buf_printf(&state, "%s/state.safetensors", model);
    if (state.failed) return lc_fail(err, LC_ENOMEM, "%s: out of memory", model);
    int status;
    if (access(state.data, F_OK))
        status = load_params(model, (lc_opt_list){.count = 0}, &config, &params, err);
    else {
        status = lc_config_load(model, &config, err);
        if (status == LC_OK) status = lc_checkpoint_params(model, &config, &params, err);
    }
    if (status == LC_OK) status = lc_params_hash(params, hex, err);
    lc_params_free(params);
    lc_buf_free(&state);
    return status;
}

static int check_input(const job *j, const lc_tensor *ids, const lc_tensor *mask, int rank,
                       lc_err *err) {
    const char *shape = rank == 3 ? "[steps][batch][tokens]" : "[batch][tokens]";
    if (!ids) return lc_fail(err, LC_ENOTFOUND, "%s: tensor ids is missing", j->in);
    if (!mask) return lc_fail(err, LC_ENOTFOUND, "%s: tensor mask is missing", j->in);
    if (ids->rank != rank || !ids->count)
        return lc_fail(err, LC_EFORMAT, "%s: ids must be %s and not empty", j->in, shape);
    if (mask->dtype != LC_U8)
        return lc_fail(err, LC_EFORMAT, "%s: mask is %s, must be U8", j->in, mask->dtype_name);
    if (mask->rank != rank || memcmp(mask->shape, ids->shape, (size_t)rank * sizeof *ids->shape))
        return lc_fail(err, LC_EFORMAT, "%s: mask has another shape than ids", j->in);
    if (ids->shape[rank - 1] > j->config.max_positions)
        return lc_fail(err, LC_ELIMIT, "%s: sequences of %zu tokens, %s allows %zu", j->in,
                       ids->shape[rank - 1], j->model, j->config.max_positions);
    return LC_OK;
}

static int load_input(job *j, int rank, lc_err *err) {
    lc_tensors *file;
    int status = lc_tensors_open(j->in, &file, err);
    if (status != LC_OK) return status;
    const lc_tensor *ids = lc_tensors_find(file, "ids"), *mask = lc_tensors_find(file, "mask");
    status = check_input(j, ids, mask, rank, err);
    if (status == LC_OK) status = lc_eval_read_ids(ids, j->in, &j->tokens, err);
    for (size_t i = 0; status == LC_OK && i < ids->count; i++) {
        if (j->tokens[i] < 0 || (size_t)j->tokens[i] >= j->config.vocab)
            status = lc_fail(err, LC_EINVAL, "%s: ids[%zu] = %d: %s has ids from 0 to %zu", j->in,
                             i, j->tokens[i], j->model, j->config.vocab - 1);
        else if (((const uint8_t *)mask->data)[i] > 1)
            status = lc_fail(err, LC_EINVAL, "%s: mask[%zu] = %d: must be 0 or 1", j->in, i,
                             ((const uint8_t *)mask->data)[i]);
    }
    if (status == LC_OK && !(j->mask = lc_alloc(mask->count)))
        status = lc_fail(err, LC_ENOMEM, "%s: out of memory", j->in);
    if (status == LC_OK) {
        memcpy(j->mask, mask->data, mask->count);
        j->steps = rank == 3 ? ids->shape[0] : 1;
        j->rows = ids->shape[rank - 2];
        j->length = ids->shape[rank - 1];
    }
    lc_tensors_close(file);
    return status;
}

static int job_open(job *j, const char *model, const train_flags *f, int rank, lc_err *err) {
    *j = (job){.model = model, .in = f->in};
    int status = load_params(model, f->engine.settings, &j->config, &j->params, err);
    if (status == LC_OK) status = choose_weights(j, f, err);
    if (status == LC_OK) status = load_input(j, rank, err);
    if (status == LC_OK) status = choose_machine(j, f, err);
    if (status != LC_OK) return status;
    lc_net_options options = {.kernels = j->kernels,
                              .pool = j->pool,
                              .bf16 = j->bf16,
                              .tokens = j->rows * j->length,
                              .length = j->length,
                              .mtp_steps = j->params->mtp ? j->config.mtp_steps : 0,
                              .recompute = j->recompute};
    status = lc_net_new(j->params, &options, &j->net, err);
    if (status != LC_OK) return status;
    j->experts = lc_calloc(j->config.layers * (j->config.experts + j->config.zero_experts) + 1,
                           sizeof *j->experts);
    j->groups = lc_calloc(j->config.layers + 1, sizeof *j->groups);
    return j->experts && j->groups ? LC_OK : lc_fail(err, LC_ENOMEM, "%s: out of memory", model);
}

/* Losses and gradient of step s under these weights; grad is a zeroed block. */
static int job_run(job *j, size_t s, const lc_loss_weights *weights, float *grad, lc_losses *losses,
                   lc_err *err) {
    size_t at = s * j->rows * j->length;
    lc_batch batch = {
        .rows = j->rows, .length = j->length, .tokens = j->tokens + at, .mask = j->mask + at};
    lc_counts totals = {0};
    lc_net_count(j->net, &batch, &totals);
    memset(j->experts, 0,
           j->config.layers * (j->config.experts + j->config.zero_experts) * sizeof *j->experts);
    memset(j->groups, 0, (j->config.layers + 1) * sizeof *j->groups);
    *losses = (lc_losses){.experts = j->experts, .kl_groups = j->groups};
    return lc_net_run(j->net, &batch, weights, &totals, grad, losses, err);
}

/* ---- terms ---- */

typedef struct terms {
    size_t count;
    struct {
        char name[48]; /* "loss.lm" */
        double value;
    } list[MAX_TERMS];
} terms;

static void add_term(terms *t, const char *name, double value) {
    snprintf(t->list[t->count].name, sizeof t->list->name, "loss.%s", name);
    t->list[t->count++].value = value;
}

static void list_terms(const job *j, const lc_losses *l, terms *t) {
    double tokens = (double)l->counts.tokens;
    t->count = 0;
    add_term(t, "lm", l->lm / ((double)l->counts.lm + 1e-10));
    for (size_t k = 0; k < j->config.mtp_steps && j->params->mtp; k++) {
        char name[32];
        snprintf(name, sizeof name, "mtp.%zu", k + 1);
        add_term(t, name, l->mtp[k] / ((double)l->counts.mtp[k] + 1e-10));
    }
    add_term(t, "balance", l->balance / tokens);
    add_term(t, "router_z", l->router_z / tokens);
    add_term(t, "hidden_z", l->hidden_z / tokens);
    if (j->config.index_heads) add_term(t, "kl", l->kl / tokens);
    add_term(t, "objective", lc_losses_objective(l, &j->weights));
    add_term(t, "reported", lc_losses_reported(l, &j->weights));
}

/* ---- eval grad ---- */

/* A list of tensors to write, with names of its own. */
typedef struct output {
    lc_tensor *list;
    char **names;
    size_t count, room;
} output;

static int output_open(output *o, size_t room, lc_err *err) {
    *o = (output){.list = lc_calloc(room, sizeof *o->list),
                  .names = lc_calloc(room, sizeof *o->names),
                  .room = room};
    return o->list && o->names ? LC_OK : lc_fail(err, LC_ENOMEM, "output: out of memory");
}

static void output_free(output *o) {
    for (size_t i = 0; i < o->count; i++) lc_free(o->names[i]);
    lc_free(o->names);
    lc_free(o->list);
}

/* Room for it must have been asked for. */
static int output_add(output *o, const char *prefix, lc_tensor tensor, lc_err *err) {
    lc_buf name = {0};
    lc_buf_printf(&name, "%s%s", prefix, tensor.name);
    if (name.failed) {
        lc_buf_free(&name);
        return lc_fail(err, LC_ENOMEM, "output: out of memory");
    }
    o->names[o->count] = name.data;
    tensor.name = name.data;
    tensor.size = tensor.count * lc_dtype_size(tensor.dtype);
    o->list[o->count++] = tensor;
    return LC_OK;
}

/* The tensor p of a block. */
static lc_tensor tensor_of(const lc_param *p, const float *block) {
    lc_tensor t = {.name = p->name,
                   .dtype = LC_F32,
                   .rank = p->rank,
                   .count = p->count,
                   .data = block ? block + p->offset : NULL};
    t.shape[0] = p->rank == 1 ? p->cols : p->rows;
    t.shape[1] = p->cols;
    return t;
}

/* The index loss alone, as train.json has it: a sum over tokens, by group. grad: a zeroed block. */
static int add_index_loss(job *j, const char *stage, float *grad, output *o, lc_err *err) {
    lc_loss_weights alone = {.kl = (float)(j->rows * j->length),
                             .kl_stage = j->weights.kl_stage,
                             .balance_form.target_topk = j->weights.balance_form.target_topk};
    lc_losses losses;
    char prefix[32];
    int status = job_run(j, 0, &alone, grad, &losses, err);
    snprintf(prefix, sizeof prefix, "kl.%s.", stage);
    size_t groups = j->config.layers + (j->params->mtp && j->config.mtp_steps ? 1 : 0);
    lc_tensor sums = {.name = "sums",
                      .dtype = LC_F64,
                      .rank = 1,
                      .shape = {groups},
                      .count = groups,
                      .data = j->groups};
    if (status == LC_OK) status = output_add(o, prefix, sums, err);
    snprintf(prefix, sizeof prefix, "kl.%s.grad.", stage);
    for (size_t i = 0; i < j->params->count && status == LC_OK; i++)
        if (j->params->list[i].indexer)
            status = output_add(o, prefix, tensor_of(&j->params->list[i], grad), err);
    return status;
}

static int write_grad(job *j, const char *path, const char *stage, lc_err *err) {
    output o = {0};
    terms t = {0};
    lc_losses losses;
    float *grad = lc_params_block(j->params), *index = stage ? lc_params_block(j->params) : NULL;
    int status = output_open(&o, 2 * j->params->count + MAX_TERMS + 1, err);
    if (status == LC_OK && (!grad || (stage && !index)))
        status = lc_fail(err, LC_ENOMEM, "%s: out of memory", j->model);
    if (status == LC_OK) status = job_run(j, 0, &j->weights, grad, &losses, err);
    if (status == LC_OK) list_terms(j, &losses, &t);
    for (size_t i = 0; i < t.count && status == LC_OK; i++) {
        lc_tensor x = {
            .name = t.list[i].name, .dtype = LC_F64, .count = 1, .data = &t.list[i].value};
        status = output_add(&o, "", x, err);
    }
    for (size_t i = 0; i < j->params->count && status == LC_OK; i++)
        if (j->params->list[i].gradient)
            status = output_add(&o, "grad.", tensor_of(&j->params->list[i], grad), err);
    if (status == LC_OK && stage) status = add_index_loss(j, stage, index, &o, err);
    if (status == LC_OK) status = lc_safetensors_write(path, o.list, o.count, err);
    output_free(&o);
    lc_free(grad);
    lc_free(index);
    return status;
}

/* ---- eval steps ---- */

/* The file: every parameter after every step, then the terms, [S] each. */
typedef struct steps_file {
    lc_safetensors_file *file;
    size_t first_term, n_terms;
} steps_file;

static int steps_create(const job *j, const char *path, const terms *t, steps_file *out,
                        lc_err *err) {
    size_t room;
    output o = {0};
    if (!lc_size_mul(j->steps, j->params->count, &room) || !lc_size_add(room, MAX_TERMS, &room))
        return lc_fail(err, LC_ELIMIT, "%s: too many steps", j->in);
    int status = output_open(&o, room, err);
    for (size_t s = 0; s < j->steps && status == LC_OK; s++) {
        char prefix[40];
        snprintf(prefix, sizeof prefix, "step%zu.", s + 1);
        for (size_t i = 0; i < j->params->count && status == LC_OK; i++)
            status = output_add(&o, prefix, tensor_of(&j->params->list[i], NULL), err);
    }
    out->first_term = o.count;
    out->n_terms = t->count;
    for (size_t i = 0; i < t->count && status == LC_OK; i++) {
        lc_tensor x = {.name = t->list[i].name,
                       .dtype = LC_F64,
                       .rank = 1,
                       .shape = {j->steps},
                       .count = j->steps};
        status = output_add(&o, "", x, err);
    }
    if (status == LC_OK) status = lc_safetensors_create(path, o.list, o.count, &out->file, err);
    output_free(&o);
    return status;
}

static int steps_put(const job *j, steps_file *f, size_t s, const terms *t, lc_err *err) {
    int status = LC_OK;
    for (size_t i = 0; i < j->params->count && status == LC_OK; i++) {
        const lc_param *p = &j->params->list[i];
        status = lc_safetensors_put(f->file, s * j->params->count + i, 0,
                                    lc_param_values(j->params, p), p->count * sizeof(float), err);
    }
    for (size_t i = 0; i < f->n_terms && status == LC_OK; i++)
        status = lc_safetensors_put(f->file, f->first_term + i, s * sizeof(double),
                                    &t->list[i].value, sizeof(double), err);
    return status;
}

typedef struct stepper {
    lc_optim *optim;
    float *grad;
    bool *learns;
} stepper;

static int stepper_open(job *j, lc_optim_kind kind, stepper *s, lc_err *err) {
    lc_optim_options o = lc_optim_defaults();
    o.kind = kind;
    o.kernels = j->kernels;
    o.pool = j->pool;
    o.bf16 = j->bf16;
    int status = lc_optim_new(j->params, &o, &s->optim, err);
    if (status != LC_OK) return status;
    s->grad = lc_params_block(j->params);
    s->learns = lc_calloc(j->params->count, sizeof *s->learns);
    if (!s->grad || !s->learns) return lc_fail(err, LC_ENOMEM, "%s: out of memory", j->model);
    for (size_t i = 0; i < j->params->count; i++) s->learns[i] = j->params->list[i].gradient;
    return LC_OK;
}

/* Step i with train.json's rate, and its rule for the biases of routers. */
static int stepper_run(job *j, stepper *s, size_t i, terms *t, lc_err *err) {
    lc_losses losses;
    double norm;
    lc_bias_rule rule = {.rate = 0.1, .target_topk = j->weights.balance_form.target_topk};
    memset(s->grad, 0, j->params->floats * sizeof *s->grad);
    int status = job_run(j, i, &j->weights, s->grad, &losses, err);
    lc_update update = {1e-3, s->learns, s->grad};
    if (status == LC_OK) status = lc_optim_step(s->optim, &update, &norm, err);
    if (status != LC_OK) return status;
    lc_bias_update(j->params, &rule, (int64_t)i, j->experts);
    lc_net_refresh(j->net);
    list_terms(j, &losses, t);
    add_term(t, "grad_norm", norm);
    return LC_OK;
}

static int write_steps(job *j, const char *path, lc_optim_kind kind, lc_err *err) {
    stepper s = {0};
    steps_file file = {0};
    terms t = {0};
    int status = stepper_open(j, kind, &s, err);
    for (size_t i = 0; i < j->steps && status == LC_OK; i++) {
        status = stepper_run(j, &s, i, &t, err);
        if (status == LC_OK && !file.file) status = steps_create(j, path, &t, &file, err);
        if (status == LC_OK) status = steps_put(j, &file, i, &t, err);
    }
    if (status == LC_OK)
        status = lc_safetensors_commit(file.file, err);
    else if (file.file)
        lc_safetensors_discard(file.file);
    lc_optim_free(s.optim);
    lc_free(s.grad);
    lc_free(s.learns);
    return status;
}

/* ---- options ---- */

#define TRAIN_OPTIONS(f)                                                                           \
    {"loss",                                                                                       \
     0,                                                                                            \
     LC_OPT_STRING,                                                                                \
     &(f).loss,                                                                                    \
     "NAME=X,...",                                                                                 \
     "lm_weight (1), mtp_weight, balance_coeff, router_z_coeff, hidden_z_coeff, kl_weight; the "   \
     "others are 0. target_topk: wanted routed experts a token (the model's own)",                 \
     0,                                                                                            \
     0},                                                                                           \
        {"compute",                                                                                \
         0,                                                                                        \
         LC_OPT_STRING,                                                                            \
         &(f).engine.compute,                                                                      \
         "TYPE",                                                                                   \
         "f32 (default), or bf16: products of BF16 values",                                        \
         0,                                                                                        \
         0},                                                                                       \
        {"threads",  't',                                                                          \
         LC_OPT_INT, &(f).engine.threads,                                                          \
         "N",        "threads to use (default: the CPUs of this process); never changes a result", \
         1,          1024},                                                                        \
        {"isa",                                                                                    \
         0,                                                                                        \
         LC_OPT_STRING,                                                                            \
         &(f).engine.isa,                                                                          \
         "NAME",                                                                                   \
         "highest instruction set; never changes a result",                                        \
         0,                                                                                        \
         0},                                                                                       \
        {"recompute", 0,                                                                           \
         LC_OPT_FLAG, &(f).recompute,                                                              \
         NULL,        "compute activations again in the backward pass; never changes a result",    \
         0,           0},                                                                          \
    {                                                                                              \
        "set", 0, LC_OPT_LIST, &(f).engine.settings, "SWITCH=VALUE",                               \
            "override a model switch (docs/formats.md lists them); may be repeated", 0, 0          \
    }

static const char loss_text[] =
    "Without --loss the coefficients are mtp_weight=0.3,balance_coeff=0.02,router_z_coeff=0.004,\n"
    "hidden_z_coeff=0.01,kl_weight=1. mtp_weight is shared by the draft steps; kl counts for "
    "models\n"
    "with an indexer only.";

int lc_eval_grad_cmd(int argc, char **argv) {
    train_flags f = {0};
    const lc_opt options[] = {
        {"in", 0, LC_OPT_STRING, &f.in, "FILE",
         "safetensors with ids I64 [B][T] and mask U8 [B][T] (1: the token is predicted)", 0, 0},
        {"out", 0, LC_OPT_STRING, &f.out, "FILE",
         "safetensors to write: loss.TERM F64 and grad.TENSOR F32", 0, 0},
        {"kl", 0, LC_OPT_STRING, &f.kl, "STAGE",
         "index loss: sparse (default) or warmup (dense attention). Then also kl.STAGE.sums and "
         "kl.STAGE.grad.TENSOR, the index loss alone as a sum over tokens",
         0, 0},
        TRAIN_OPTIONS(f),
        {0},
    };
    lc_buf text = {0};
    lc_buf_printf(&text,
                  "Losses of a batch, and the gradient of the objective before clipping.\n\n%s",
                  loss_text);
    const lc_usage usage = {"longcat eval grad MODEL --in FILE --out FILE [options]",
                            text.failed ? loss_text : text.data, options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    lc_buf_free(&text);
    if (code < 0) code = lc_cli_need(f.in, "--in FILE");
    if (code < 0) code = lc_cli_need(f.out, "--out FILE");
    if (code >= 0) return code;
    lc_err err = {0};
    job j;
    int status = job_open(&j, args[0], &f, 2, &err);
    if (status == LC_OK) status = write_grad(&j, f.out, f.kl, &err);
    job_free(&j);
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}

int lc_eval_steps_cmd(int argc, char **argv) {
    train_flags f = {0};
    const lc_opt options[] = {
        {"in", 0, LC_OPT_STRING, &f.in, "FILE",
         "safetensors with ids I64 [S][B][T] and mask U8 [S][B][T]: a batch a step", 0, 0},
        {"out", 0, LC_OPT_STRING, &f.out, "FILE",
         "safetensors to write: loss.TERM F64 [S] before each update, grad_norm too; "
         "step1.TENSOR ... F32 after it",
         0, 0},
        {"optimizer", 0, LC_OPT_STRING, &f.optimizer, "NAME", "adamw or muon", 0, 0},
        TRAIN_OPTIONS(f),
        {0},
    };
    lc_buf text = {0};
    lc_buf_printf(&text,
                  "Optimiser steps from MODEL's weights: rate 0.001, decay 0.1, clipping at 1, "
                  "AdamW 0.9 0.95 1e-16,\nMuon 0.95, biases of routers moved by 0.1 of their "
                  "surplus after each.\n\n%s",
                  loss_text);
    const lc_usage usage = {
        "longcat eval steps MODEL --in FILE --optimizer adamw|muon --out FILE [options]",
        text.failed ? loss_text : text.data, options, 1, 1};
    const char *args[1];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    lc_buf_free(&text);
    if (code < 0) code = lc_cli_need(f.in, "--in FILE");
    if (code < 0) code = lc_cli_need(f.out, "--out FILE");
    if (code < 0) code = lc_cli_need(f.optimizer, "--optimizer NAME");
    if (code >= 0) return code;
    lc_err err = {0};
    job j = {0};
    bool muon = !strcmp(f.optimizer, "muon");
    int status = muon || !strcmp(f.optimizer, "adamw")
                     ? job_open(&j, args[0], &f, 3, &err)
                     : lc_fail(&err, LC_EINVAL, "--optimizer %s: adamw or muon", f.optimizer);
    if (status == LC_OK)
        status = write_steps(&j, f.out, muon ? LC_OPTIM_MUON : LC_OPTIM_ADAMW, &err);
    job_free(&j);
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
