/*
 * recipe.c: reads recipes: lines, a table of keys, then the checks that need several of them.
 */
#include "train/recipe.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RECIPE = 1 << 20, MAX_NAME = 64, MAX_STEPS = 99999999 };

typedef enum section { NONE, MODEL, DATA, STAGE, TRAIN } section;
typedef enum value_type {
    PATH,   /* char *, relative to the recipe's folder */
    WHOLE,  /* uint64_t; k, M and B stand for thousands, millions, thousand millions */
    NUMBER, /* double */
    CHOICE, /* int: place in the list of words */
    YES,    /* bool: yes or no */
    SOURCE, /* FOLDER WEIGHT [whole] */
} value_type;

typedef struct key {
    section where;
    const char *name;
    value_type type;
    size_t offset; /* in lc_recipe, or lc_recipe_stage */
    double min, max;
    const char *words; /* CHOICE: "a|b" */
    bool free;         /* doesn't decide the weights */
} key;

#define R(member) offsetof(lc_recipe, member)
#define S(member) offsetof(lc_recipe_stage, member)
static const key keys[] = {
    {MODEL, "config", PATH, R(config), 0, 0, NULL, false},
    {MODEL, "start", PATH, R(start), 0, 0, NULL, false},
    {MODEL, "tokenizer", PATH, R(tokenizer), 0, 0, NULL, true},
    {MODEL, "std", NUMBER, R(init.std), 0, 10, NULL, false},
    {MODEL, "embedding_std", NUMBER, R(init.embedding), 0, 10, NULL, false},
    {MODEL, "ngram_std", NUMBER, R(init.ngram), 0, 10, NULL, false},
    {MODEL, "width_scale", NUMBER, R(init.width_scale), 0, 1000, NULL, false},
    {MODEL, "target_experts", NUMBER, R(target_experts), 0, 1000, NULL, false},
    {DATA, "source", SOURCE, R(sources), 0, 0, NULL, false},
    {STAGE, "source", SOURCE, S(sources), 0, 0, NULL, false},
    {STAGE, "context", WHOLE, S(context), 2, LC_TRAIN_LENGTH_MAX, NULL, false},
    {STAGE, "tokens", WHOLE, S(tokens), 1, 1e15, NULL, false},
    {STAGE, "batch", WHOLE, S(batch), 1, 1 << 20, NULL, false},
    {STAGE, "schedule", CHOICE, S(schedule.kind), 0, 0, "constant|cosine|wsd", false},
    {STAGE, "lr", NUMBER, S(schedule.lr), 0, 10, NULL, false},
    {STAGE, "lr_end", NUMBER, S(schedule.lr_end), 0, 10, NULL, false},
    {STAGE, "warmup", WHOLE, S(schedule.warmup), 0, 1e9, NULL, false},
    {STAGE, "cooldown", WHOLE, S(schedule.cooldown), 0, 1e9, NULL, false},
    {STAGE, "lm", NUMBER, S(lm), 0, 1000, NULL, false},
    {STAGE, "mtp", NUMBER, S(mtp), 0, 1000, NULL, false},
    {STAGE, "balance", NUMBER, S(balance), 0, 1000, NULL, false},
    {STAGE, "router_z", NUMBER, S(router_z), 0, 1000, NULL, false},
    {STAGE, "hidden_z", NUMBER, S(hidden_z), 0, 1000, NULL, false},
    {STAGE, "kl", NUMBER, S(kl), 0, 1000, NULL, false},
    {STAGE, "kl_stage", CHOICE, S(kl_stage), 0, 0, "off|warmup|sparse", false},
    {STAGE, "attention", CHOICE, S(dense), 0, 0, "sparse|dense", false},
    {TRAIN, "out", PATH, R(out), 0, 0, NULL, true},
    {TRAIN, "seed", WHOLE, R(seed), 0, 9e15, NULL, false},
    {TRAIN, "lanes", WHOLE, R(lanes), 1, LC_RECIPE_LANES_MAX, NULL, false},
    {TRAIN, "keep", WHOLE, R(keep), 1, 1e6, NULL, true},
    {TRAIN, "checkpoint", WHOLE, R(interval), 1, 1e9, NULL, true},
    {TRAIN, "compute", CHOICE, R(bf16), 0, 0, "f32|bf16", false},
    {TRAIN, "recompute", YES, R(recompute), 0, 0, NULL, true},
    {TRAIN, "optimizer", CHOICE, R(optim.muon), 0, 0, "adamw|muon", false},
    {TRAIN, "beta1", NUMBER, R(optim.beta1), 0, 0.99999, NULL, false},
    {TRAIN, "beta2", NUMBER, R(optim.beta2), 0, 0.9999999, NULL, false},
    {TRAIN, "eps", NUMBER, R(optim.eps), 0, 1, NULL, false},
    {TRAIN, "momentum", NUMBER, R(optim.momentum), 0, 0.99999, NULL, false},
    {TRAIN, "decay", NUMBER, R(optim.decay), 0, 10, NULL, false},
    {TRAIN, "clip", NUMBER, R(optim.clip), 0, 1e9, NULL, false},
    {TRAIN, "embedding_rate", NUMBER, R(optim.embedding_rate), 0, 1000, NULL, false},
    {TRAIN, "bias_rate", NUMBER, R(bias_rate), 0, 10, NULL, false},
    {TRAIN, "bias_halving", WHOLE, R(bias_halving), 0, 1e9, NULL, false},
    {TRAIN, "bias_floor", NUMBER, R(bias_floor), 0, 10, NULL, false},
};
#undef R
#undef S
enum { N_KEYS = sizeof keys / sizeof *keys };

typedef struct reader {
    lc_recipe *r;
    section where;
    int line;
    int run[N_KEYS];                         /* line of a key outside stages, 0 = not given */
    int stage[LC_RECIPE_STAGES_MAX][N_KEYS]; /* and in a stage */
    lc_buf decides;                          /* what the hash is of */
    lc_err *err;
} reader;

__attribute__((format(printf, 3, 4))) static int fail_at(const reader *d, int line, const char *fmt,
                                                         ...) {
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return lc_fail(d->err, LC_EINVAL, "%s:%d: %s", d->r->path, line, text);
}

static int no_memory(const reader *d) {
    return lc_fail(d->err, LC_ENOMEM, "%s: out of memory", d->r->path);
}

/* ---- values ---- */

static char *path_of(const lc_recipe *r, const char *text) {
    const char *slash = strrchr(r->path, '/');
    lc_buf path = {0};
    if (text[0] == '/' || !slash) return lc_strdup(text);
    lc_buf_append(&path, r->path, (size_t)(slash - r->path) + 1);
    lc_buf_puts(&path, text);
    if (path.failed) lc_buf_free(&path);
    return path.data;
}

static bool parse_number(const char *text, bool units, double *out) {
    char *end;
    if (!strchr("0123456789.-+", text[0])) return false; /* no nan, no spaces */
    *out = strtod(text, &end);
    if (units && end > text && *end) {
        static const char letters[] = "kMB";
        const char *unit = strchr(letters, *end);
        for (const char *u = letters; unit && u <= unit; u++) *out *= 1000;
        if (unit) end++;
    }
    return end > text && !*end && isfinite(*out);
}

static int set_number(reader *d, const key *k, const char *text, void *at) {
    double x;
    bool whole = k->type == WHOLE;
    if (!parse_number(text, whole, &x) || (whole && x != floor(x)))
        return fail_at(d, d->line, "%s: \"%s\" is no %snumber", k->name, text,
                       whole ? "whole " : "");
    if (x < k->min || x > k->max)
        return fail_at(d, d->line, "%s: %s is out of range: %g to %g", k->name, text, k->min,
                       k->max);
    if (whole)
        *(uint64_t *)at = (uint64_t)x;
    else
        *(double *)at = x;
    return LC_OK;
}

static int set_choice(reader *d, const key *k, const char *text, void *at, size_t size) {
    const char *word = k->words ? k->words : "no|yes";
    size_t n = strlen(text);
    for (int i = 0; word; i++) {
        const char *bar = strchr(word, '|');
        size_t len = bar ? (size_t)(bar - word) : strlen(word);
        if (len == n && !memcmp(word, text, n)) {
            if (size == sizeof(bool))
                *(bool *)at = i != 0;
            else
                *(int *)at = i;
            return LC_OK;
        }
        word = bar ? bar + 1 : NULL;
    }
    return fail_at(d, d->line, "%s: \"%s\" is none of %s", k->name, text,
                   k->words ? k->words : "no|yes");
}

/* FOLDER WEIGHT [whole]; the folder may have spaces. */
static int add_source(reader *d, char *text, lc_recipe_sources *s) {
    lc_recipe_source x = {.line = d->line};
    char *space = strrchr(text, ' ');
    if (space && !strcmp(space + 1, "whole")) {
        x.whole = true;
        while (space > text && space[-1] == ' ') space--;
        *space = 0;
        space = strrchr(text, ' ');
    }
    if (!space || space == text || !parse_number(space + 1, false, &x.weight) || x.weight <= 0)
        return fail_at(d, d->line,
                       "source: must be FOLDER WEIGHT or FOLDER WEIGHT whole, with a "
                       "weight above 0");
    while (space > text && space[-1] == ' ') space--;
    *space = 0;
    if (s->count == LC_TRAIN_SOURCES_MAX)
        return fail_at(d, d->line, "more than %d sources", LC_TRAIN_SOURCES_MAX);
    lc_recipe_source *list = lc_realloc(s->list, s->count + 1, sizeof *list);
    if (!list) return no_memory(d);
    s->list = list;
    x.folder = path_of(d->r, text);
    if (!x.folder) return no_memory(d);
    s->list[s->count++] = x;
    return LC_OK;
}

static int set_value(reader *d, size_t i, char *text) {
    const key *k = &keys[i];
    lc_recipe *r = d->r;
    bool staged = k->where == STAGE;
    int *line = staged ? &d->stage[r->n_stages - 1][i] : &d->run[i];
    char *at = (staged ? (char *)&r->stages[r->n_stages - 1] : (char *)r) + k->offset;
    if (*line && k->type != SOURCE)
        return fail_at(d, d->line, "%s: line %d has set it", k->name, *line);
    *line = d->line;
    if (!k->free) lc_buf_printf(&d->decides, "%s=%s\n", k->name, text);
    switch (k->type) {
    case PATH:
        *(char **)(void *)at = path_of(r, text);
        return *(char **)(void *)at ? LC_OK : no_memory(d);
    case WHOLE:
    case NUMBER: return set_number(d, k, text, at);
    case CHOICE: {
        bool flag = !strcmp(k->name, "compute") || !strcmp(k->name, "optimizer") ||
                    !strcmp(k->name, "attention");
        return set_choice(d, k, text, at, flag ? sizeof(bool) : sizeof(int));
    }
    case YES: return set_choice(d, k, text, at, sizeof(bool));
    case SOURCE: return add_source(d, text, (lc_recipe_sources *)(void *)at);
    }
    return LC_OK;
}

/* ---- lines ---- */

static char *trim(char *text) {
    while (*text == ' ' || *text == '\t') text++;
    size_t n = strlen(text);
    while (n && strchr(" \t\r", text[n - 1])) text[--n] = 0;
    return text;
}

static int begin_stage(reader *d, const char *name) {
    lc_recipe *r = d->r;
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    if (!*name || strlen(name) > MAX_NAME || name[strspn(name, letters)])
        return fail_at(d, d->line,
                       "a stage's name has 1 to %d letters, digits, . _ or -: "
                       "[stage NAME]",
                       MAX_NAME);
    for (size_t i = 0; i < r->n_stages; i++)
        if (!strcmp(r->stages[i].name, name))
            return fail_at(d, d->line, "stage %s: line %d has it", name, r->stages[i].line);
    if (r->n_stages == LC_RECIPE_STAGES_MAX)
        return fail_at(d, d->line, "more than %d stages", LC_RECIPE_STAGES_MAX);
    lc_recipe_stage *s = &r->stages[r->n_stages];
    *s = (lc_recipe_stage){.name = lc_strdup(name), .lm = 1, .line = d->line};
    if (!s->name) return no_memory(d);
    r->n_stages++;
    lc_buf_printf(&d->decides, "stage %s\n", name);
    d->where = STAGE;
    return LC_OK;
}

static int begin_section(reader *d, char *text) {
    size_t n = strlen(text);
    if (text[n - 1] != ']') return fail_at(d, d->line, "\"%s\": no ] at the end", text);
    text[n - 1] = 0;
    char *name = trim(text + 1);
    if (!strncmp(name, "stage", 5) && (name[5] == ' ' || !name[5]))
        return begin_stage(d, trim(name + 5));
    static const char *const names[] = {[MODEL] = "model", [DATA] = "data", [TRAIN] = "train"};
    for (section s = MODEL; s <= TRAIN; s++)
        if (names[s] && !strcmp(name, names[s])) {
            d->where = s;
            return LC_OK;
        }
    return fail_at(d, d->line, "no section [%s]; there are [model], [data], [stage NAME], [train]",
                   name);
}

static int read_line(reader *d, char *text) {
    char *hash = text;
    while ((hash = strchr(hash, '#')) && hash != text && hash[-1] != ' ' && hash[-1] != '\t')
        hash++; /* a # inside a word is part of it */
    if (hash) *hash = 0;
    text = trim(text);
    if (!*text) return LC_OK;
    if (*text == '[') return begin_section(d, text);
    char *equal = strchr(text, '=');
    if (!equal) return fail_at(d, d->line, "\"%s\": must be key = value", text);
    *equal = 0;
    char *name = trim(text), *value = trim(equal + 1);
    if (d->where == NONE) return fail_at(d, d->line, "%s: stands before the first section", name);
    if (!*value) return fail_at(d, d->line, "%s: has no value", name);
    for (size_t i = 0; i < N_KEYS; i++)
        if (keys[i].where == d->where && !strcmp(keys[i].name, name)) return set_value(d, i, value);
    return fail_at(d, d->line, "no key %s in this section", name);
}

static int read_lines(reader *d, lc_buf *text) {
    int status = LC_OK;
    if (strlen(text->data ? text->data : "") != text->len)
        return lc_fail(d->err, LC_EINVAL, "%s: is no text file", d->r->path);
    for (char *at = text->data, *end; at && status == LC_OK; at = end) {
        end = strchr(at, '\n');
        if (end) *end++ = 0;
        d->line++;
        status = read_line(d, at);
    }
    return status;
}

/* ---- checks ---- */

/* Line of a key that was given, or 0. stage SIZE_MAX: outside of stages. */
static int line_of(const reader *d, size_t stage, const char *name) {
    for (size_t i = 0; i < N_KEYS; i++)
        if ((keys[i].where == STAGE) == (stage != SIZE_MAX) && !strcmp(keys[i].name, name))
            return stage == SIZE_MAX ? d->run[i] : d->stage[stage][i];
    return 0;
}

static int check_losses(const reader *d, size_t i) {
    const lc_recipe_stage *s = &d->r->stages[i];
    const lc_config *c = &d->r->model;
    if (s->mtp > 0 && !c->mtp_steps)
        return fail_at(d, line_of(d, i, "mtp"), "mtp: the model has no draft module");
    if (s->mtp > 0 && c->mtp_steps > LC_MTP_STEPS_MAX)
        return fail_at(d, line_of(d, i, "mtp"), "mtp: %zu draft steps, at most %d can be trained",
                       c->mtp_steps, LC_MTP_STEPS_MAX);
    if (s->kl_stage != LC_KL_OFF && !c->index_heads)
        return fail_at(d, line_of(d, i, "kl_stage"), "kl_stage: the model has no indexer");
    if (s->kl > 0 && s->kl_stage == LC_KL_OFF)
        return fail_at(d, line_of(d, i, "kl"), "kl: has no effect without kl_stage");
    if (s->dense && !c->index_heads)
        return fail_at(d, line_of(d, i, "attention"), "attention: the model's is always dense");
    if (s->dense && s->kl_stage != LC_KL_OFF)
        return fail_at(d, line_of(d, i, "attention"),
                       "attention = dense: not with kl_stage, which says what attention sees");
    if (s->lm + s->mtp + s->balance + s->router_z + s->hidden_z + s->kl <= 0)
        return fail_at(d, s->line, "stage %s: every loss has weight 0", s->name);
    return LC_OK;
}

static int check_stage(const reader *d, size_t i) {
    static const char *const needed[] = {"context", "tokens", "batch", "lr"};
    lc_recipe_stage *s = &d->r->stages[i];
    const lc_config *c = &d->r->model;
    for (size_t k = 0; k < sizeof needed / sizeof *needed; k++)
        if (!line_of(d, i, needed[k]))
            return fail_at(d, s->line, "stage %s: %s is missing", s->name, needed[k]);
    if (!lc_recipe_sources_of(d->r, i)->count)
        return fail_at(d, s->line, "stage %s: neither it nor [data] has a source", s->name);
    if (s->context > c->max_positions)
        return fail_at(d, line_of(d, i, "context"), "context: the model has %zu positions",
                       c->max_positions);
    if (s->batch % d->r->lanes)
        return fail_at(d, line_of(d, i, "batch"),
                       "batch: %llu sequences can't be spread over %llu lanes evenly",
                       (unsigned long long)s->batch, (unsigned long long)d->r->lanes);
    if (s->context * (s->batch / d->r->lanes) > INT32_MAX / c->topk)
        return fail_at(
            d, line_of(d, i, "batch"), "batch: %llu x %llu tokens of a lane are too many",
            (unsigned long long)(s->batch / d->r->lanes), (unsigned long long)s->context);
    uint64_t step = s->context * s->batch;
    s->steps = s->schedule.steps = (s->tokens + step - 1) / step;
    if (s->schedule.kind != LC_SCHEDULE_WSD && s->schedule.cooldown)
        return fail_at(d, line_of(d, i, "cooldown"), "cooldown: only with schedule = wsd");
    if (s->schedule.warmup + s->schedule.cooldown > s->steps)
        return fail_at(d, s->line, "stage %s: warmup and cooldown are longer than its %llu steps",
                       s->name, (unsigned long long)s->steps);
    return check_losses(d, i);
}

static int check_model(reader *d) {
    lc_recipe *r = d->r;
    lc_param_counts counts;
    if (!r->config && !r->start) return fail_at(d, d->line, "[model] needs config or start");
    int line = line_of(d, SIZE_MAX, r->config ? "config" : "start");
    if (lc_config_load(r->config ? r->config : r->start, &r->model, d->err) != LC_OK)
        return lc_err_prefix(d->err, "%s:%d", r->path, line);
    static const char *const news[] = {"std", "embedding_std", "ngram_std", "width_scale"};
    for (size_t i = 0; r->start && i < sizeof news / sizeof *news; i++)
        if (line_of(d, SIZE_MAX, news[i]))
            return fail_at(d, line_of(d, SIZE_MAX, news[i]), "%s: has no effect with start",
                           news[i]);
    if (!line_of(d, SIZE_MAX, "target_experts")) {
        lc_config_count(&r->model, &counts);
        r->target_experts = counts.average_experts;
    }
    if (r->target_experts > (double)r->model.topk)
        return fail_at(d, line_of(d, SIZE_MAX, "target_experts"),
                       "target_experts: the model chooses %zu entries", r->model.topk);
    return LC_OK;
}

static int check(reader *d) {
    lc_recipe *r = d->r;
    if (!r->out) return fail_at(d, d->line, "[train] needs out, the folder of the run");
    if (!r->n_stages) return fail_at(d, d->line, "there is no [stage NAME]");
    if (r->lanes & (r->lanes - 1))
        return fail_at(d, line_of(d, SIZE_MAX, "lanes"), "lanes: must be a power of two");
    int status = check_model(d);
    for (size_t i = 0; i < r->n_stages && status == LC_OK; i++) status = check_stage(d, i);
    if (status == LC_OK && lc_recipe_steps(r) > MAX_STEPS)
        return fail_at(d, r->stages[0].line, "the stages have more than %d steps", MAX_STEPS);
    return status;
}

/* ---- entry ---- */

static lc_recipe *new_recipe(const char *path) {
    lc_recipe *r = lc_calloc(1, sizeof *r);
    if (!r) return NULL;
    r->path = lc_strdup(path);
    r->stages = lc_calloc(LC_RECIPE_STAGES_MAX, sizeof *r->stages);
    r->init = (lc_params_init){.std = 0.02, .embedding = 0.02, .ngram = 0.02};
    r->seed = r->lanes = 1;
    r->keep = 3;
    r->interval = 500;
    r->bf16 = true;
    r->optim = (lc_optim_options){.muon = true,
                                  .beta1 = 0.9,
                                  .beta2 = 0.95,
                                  .eps = 1e-16,
                                  .momentum = 0.95,
                                  .decay = 0.1,
                                  .clip = 1,
                                  .embedding_rate = 1};
    r->bias_rate = 0.1;
    r->bias_halving = 1000;
    r->bias_floor = 0.01;
    if (r->path && r->stages) return r;
    lc_recipe_free(r);
    return NULL;
}

int lc_recipe_load(const char *path, lc_recipe **out, lc_err *err) {
    lc_buf text = {0};
    lc_recipe *r = *out = new_recipe(path);
    reader *d = lc_calloc(1, sizeof *d);
    int status = r && d ? lc_file_read(path, MAX_RECIPE, &text, err)
                        : lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    if (status == LC_OK) {
        d->r = r;
        d->err = err;
        status = read_lines(d, &text);
    }
    if (status == LC_OK) status = check(d);
    if (status == LC_OK) {
        r->init.seed = r->seed;
        r->optim.bf16 = r->bf16;
        lc_hash *hash = lc_hash_new(LC_HASH_XXH128);
        if (!hash || d->decides.failed) status = no_memory(d);
        if (hash) lc_hash_update(hash, d->decides.data, d->decides.len);
        if (hash) lc_hash_finish(hash, r->hash);
    }
    if (d) lc_buf_free(&d->decides);
    lc_free(d);
    lc_buf_free(&text);
    if (status != LC_OK) {
        lc_recipe_free(r);
        *out = NULL;
    }
    return status;
}

static void free_sources(lc_recipe_sources *s) {
    for (size_t i = 0; i < s->count; i++) lc_free(s->list[i].folder);
    lc_free(s->list);
}

void lc_recipe_free(lc_recipe *r) {
    if (!r) return;
    for (size_t i = 0; i < r->n_stages; i++) {
        lc_free(r->stages[i].name);
        free_sources(&r->stages[i].sources);
    }
    free_sources(&r->sources);
    lc_free(r->stages);
    lc_free(r->path);
    lc_free(r->config);
    lc_free(r->start);
    lc_free(r->tokenizer);
    lc_free(r->out);
    lc_free(r);
}

uint64_t lc_recipe_steps(const lc_recipe *r) {
    uint64_t steps = 0;
    for (size_t i = 0; i < r->n_stages; i++) steps += r->stages[i].steps;
    return steps;
}
