/* recipe.c: the parser: lines, sections, keys by table. What values mean together is
 * recipe_check.c. */
#include "train/recipe.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "train/data.h"
#include "train/recipe_internal.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 1 << 20, LINE_MAX_BYTES = 4096 };

/* ---- the keys ---- */

#define AT(field) offsetof(lc_recipe, field)
#define NUMBER(name, field, low, high)                                                             \
    { name, LC_KEY_NUMBER, AT(field), low, high, NULL, false }
#define COUNT(name, field, low, high)                                                              \
    { name, LC_KEY_COUNT, AT(field), low, high, NULL, false }
#define CHOICE(name, field, words)                                                                 \
    { name, LC_KEY_CHOICE, AT(field), 0, 0, words, false }
#define PATH(name, field)                                                                          \
    { name, LC_KEY_PATH, AT(field), 0, 0, NULL, true }
#define FREE_COUNT(name, field, low, high)                                                         \
    { name, LC_KEY_COUNT, AT(field), low, high, NULL, true }
#define FREE_CHOICE(name, field, words)                                                            \
    { name, LC_KEY_CHOICE, AT(field), 0, 0, words, true }

static const lc_key model_keys[] = {
    PATH("config", config),
    PATH("from", from),
    PATH("tokenizer", tokenizer),
    COUNT("grow", grow, 1, 64),
    NUMBER("std", std, 0, 10),
    NUMBER("embedding_std", embedding_std, 0, 10),
    NUMBER("ngram_std", ngram_std, 0, 10),
    COUNT("base_width", base_width, 0, 1 << 20),
};

#define RATE(name, group) NUMBER("rate." name, rates[group], 0, 1000)
static const lc_key train_keys[] = {
    PATH("run", run),
    COUNT("seed", seed, 0, 9007199254740992.0),
    COUNT("window", window, 0, (double)LC_TRAIN_WINDOW_MAX),
    COUNT("lanes", lanes, 1, 65536),
    CHOICE("compute", compute_f32, "bf16 f32"),
    CHOICE("optimizer", optimizer, "adamw muon"),
    NUMBER("beta1", beta1, 0, 0.9999),
    NUMBER("beta2", beta2, 0, 0.99999),
    NUMBER("eps", eps, 1e-30, 1),
    NUMBER("momentum", momentum, 0, 0.9999),
    NUMBER("weight_decay", weight_decay, 0, 100),
    NUMBER("clip", clip, 0, 1e9),
    NUMBER("average", average, 0, 0.999999),
    RATE("matrix", LC_GROUP_MATRIX),
    RATE("projection", LC_GROUP_PROJECTION),
    RATE("embedding", LC_GROUP_EMBEDDING),
    RATE("head", LC_GROUP_HEAD),
    RATE("router", LC_GROUP_ROUTER),
    RATE("indexer", LC_GROUP_INDEXER),
    RATE("index_weights", LC_GROUP_INDEX_WEIGHTS),
    RATE("norm", LC_GROUP_NORM),
    NUMBER("bias_rate", bias_rate, 0, 10),
    NUMBER("bias_floor", bias_floor, 0, 10),
    COUNT("bias_half_after", bias_half_after, 0, 1e12),
    NUMBER("target_topk", target_topk, 0, 1024),
    COUNT("balance_groups", balance_groups, 0, 1 << 20),
    FREE_COUNT("memory", memory, 0, 1e15),
    FREE_COUNT("keep", keep, 1, 1e6),
    FREE_COUNT("checkpoint_tokens", checkpoint_tokens, 0, 1e18),
    {"checkpoint_minutes", LC_KEY_NUMBER, AT(checkpoint_minutes), 0, 1e6, NULL, true},
    FREE_CHOICE("store", store_f32, "bf16 f32"),
    FREE_CHOICE("publish", publish_average, "weights average"),
};

static const lc_key eval_keys[] = {
    PATH("folder", eval_folder),
    FREE_COUNT("sequences", eval_sequences, 1, 1e6),
};

#undef AT
#define AT(field) offsetof(lc_recipe_source, field)
static const lc_key source_keys[] = {
    PATH("folder", folder),
    NUMBER("weight", weight, 0, 1e9),
    CHOICE("whole", whole, "no yes"),
};

#undef AT
#define AT(field) offsetof(lc_recipe_stage, field)
static const lc_key stage_keys[] = {
    COUNT("context", context, 2, 1 << 24),
    COUNT("tokens", tokens, 1, 1e18),
    COUNT("batch", batch, 1, 1 << 20),
    FREE_COUNT("micro", micro, 1, 1 << 20),
    CHOICE("schedule", schedule_kind, "constant wsd cosine"),
    NUMBER("rate", rate, 1e-12, 100),
    NUMBER("warmup", warmup, 0, 1),
    NUMBER("decay", decay, 0, 1),
    NUMBER("end", end, 0, 1),
    NUMBER("lm", lm, 0, 1000),
    NUMBER("mtp", mtp, 0, 1000),
    NUMBER("balance", balance, 0, 1000),
    NUMBER("router_z", router_z, 0, 1000),
    NUMBER("hidden_z", hidden_z, 0, 1000),
    NUMBER("kl", kl, 0, 1000),
    CHOICE("index", index, "sparse dense warmup"),
    {"learn", LC_KEY_TEXT, AT(learn), 0, 0, NULL, false},
    {"freeze", LC_KEY_TEXT, AT(freeze), 0, 0, NULL, false},
    {"mix", LC_KEY_TEXT, AT(mix), 0, 0, NULL, false},
};

#define SECTION(name, named, keys)                                                                 \
    { name, named, keys, sizeof(keys) / sizeof *(keys) }
const lc_section lc_recipe_sections[LC_SECTION_COUNT] = {
    SECTION("model", false, model_keys), SECTION("train", false, train_keys),
    SECTION("eval", false, eval_keys),   SECTION("source", true, source_keys),
    SECTION("stage", true, stage_keys),
};
enum { KEYS_MAX = 64 };

/* ---- values ---- */

typedef struct parser {
    lc_recipe *r;
    int line;
    const lc_section *section; /* NULL before the first */
    char *base;                /* the struct that its keys go to */
    int seen[KEYS_MAX];        /* lines of the section's keys */
    int opened[LC_SECTION_COUNT];
    lc_err *err;
} parser;

#define REFUSE(p, code, ...) refuse(p, lc_fail((p)->err, code, __VA_ARGS__))
static int refuse(const parser *p, int code) {
    lc_err_prefix(p->err, "%s:%d", p->r->path, p->line);
    return code;
}

static char *trim(char *text) {
    while (isspace((unsigned char)*text)) text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1])) end--;
    *end = 0;
    return text;
}

static bool read_number(const char *text, double *out) {
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    if (end == text || !isfinite(x) || strpbrk(text, "xXnN")) return false;
    if (*end == 'K')
        x *= 1e3, end++;
    else if (*end == 'M')
        x *= 1e6, end++;
    else if (*end == 'G')
        x *= 1e9, end++;
    *out = x;
    return !*end;
}

static int set_text(parser *p, const lc_key *k, const char *value) {
    char **to = (char **)(void *)(p->base + k->offset);
    const char *slash = strrchr(p->r->path, '/');
    lc_buf full = {0};
    if (k->kind == LC_KEY_PATH && *value != '/' && slash)
        lc_buf_append(&full, p->r->path, (size_t)(slash - p->r->path) + 1);
    lc_buf_puts(&full, value);
    *to = full.failed ? NULL : lc_strdup(full.data);
    lc_buf_free(&full);
    return *to ? LC_OK : lc_fail(p->err, LC_ENOMEM, "%s: out of memory", p->r->path);
}

static int set_choice(parser *p, const lc_key *k, const char *value) {
    int64_t *to = (int64_t *)(void *)(p->base + k->offset);
    size_t n = strlen(value);
    *to = 0;
    for (const char *word = k->words; *word; ++*to) {
        size_t len = strcspn(word, " ");
        if (len == n && !strncmp(word, value, n)) return LC_OK;
        word += len + (word[len] == ' ');
    }
    return REFUSE(p, LC_EFORMAT, "%s: \"%s\" is none of: %s", k->name, value, k->words);
}

static int set_number(parser *p, const lc_key *k, const char *value) {
    double x;
    if (!read_number(value, &x))
        return REFUSE(p, LC_EFORMAT, "%s: \"%s\" is not a number", k->name, value);
    if (!(x >= k->min && x <= k->max))
        return REFUSE(p, LC_EFORMAT, "%s: %s is not between %g and %g", k->name, value, k->min,
                      k->max);
    if (k->kind == LC_KEY_NUMBER) {
        *(double *)(void *)(p->base + k->offset) = x;
        return LC_OK;
    }
    if (x != floor(x) || x > 9e18)
        return REFUSE(p, LC_EFORMAT, "%s: %s is not a whole number", k->name, value);
    *(int64_t *)(void *)(p->base + k->offset) = (int64_t)x;
    return LC_OK;
}

static int set_key(parser *p, const char *name, const char *value) {
    const lc_section *s = p->section;
    if (!s) return REFUSE(p, LC_EFORMAT, "\"%s\" stands before the first [section]", name);
    for (size_t i = 0; i < s->count; i++) {
        const lc_key *k = &s->keys[i];
        if (strcmp(k->name, name)) continue;
        if (p->seen[i])
            return REFUSE(p, LC_EFORMAT, "%s is given twice; before in line %d", name, p->seen[i]);
        p->seen[i] = p->line;
        if (!*value) return REFUSE(p, LC_EFORMAT, "%s: no value", name);
        switch (k->kind) {
        case LC_KEY_TEXT:
        case LC_KEY_PATH: return set_text(p, k, value);
        case LC_KEY_CHOICE: return set_choice(p, k, value);
        default: return set_number(p, k, value);
        }
    }
    lc_buf known = {0};
    for (size_t i = 0; i < s->count; i++) lc_buf_printf(&known, i ? ", %s" : "%s", s->keys[i].name);
    int status = REFUSE(p, LC_EFORMAT, "[%s] has no key \"%s\"; it has %s", s->name, name,
                        known.data ? known.data : "");
    lc_buf_free(&known);
    return status;
}

/* ---- sections ---- */

static int check_name(const parser *p, const char *name) {
    size_t n = strlen(name);
    if (!n || n >= LC_RECIPE_NAME ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRST"
                     "UVWXYZ0123456789_-.") != n)
        return REFUSE(p, LC_EFORMAT,
                      "[%s NAME]: a name has 1 to %d letters, digits, '_', '-' and '.'",
                      p->section->name, LC_RECIPE_NAME - 1);
    return LC_OK;
}

static int open_source(parser *p, const char *name) {
    lc_recipe *r = p->r;
    for (size_t i = 0; i < r->n_sources; i++)
        if (!strcmp(r->sources[i].name, name))
            return REFUSE(p, LC_EFORMAT, "source \"%s\" is given twice; before in line %d", name,
                          r->sources[i].line);
    if (r->n_sources == LC_RECIPE_SOURCES)
        return REFUSE(p, LC_ELIMIT, "more than %d sources", LC_RECIPE_SOURCES);
    lc_recipe_source *s = &r->sources[r->n_sources++];
    *s = (lc_recipe_source){.line = p->line, .weight = 1};
    snprintf(s->name, sizeof s->name, "%s", name);
    p->base = (char *)s;
    return LC_OK;
}

static int open_stage(parser *p, const char *name) {
    lc_recipe *r = p->r;
    for (size_t i = 0; i < r->n_stages; i++)
        if (!strcmp(r->stages[i].name, name))
            return REFUSE(p, LC_EFORMAT, "stage \"%s\" is given twice; before in line %d", name,
                          r->stages[i].line);
    if (r->n_stages == LC_RECIPE_STAGES)
        return REFUSE(p, LC_ELIMIT, "more than %d stages", LC_RECIPE_STAGES);
    lc_recipe_stage *s = &r->stages[r->n_stages++];
    *s = (lc_recipe_stage){
        .line = p->line, .schedule_kind = LC_SCHEDULE_WSD, .warmup = 0.01, .decay = 0.2, .lm = 1};
    snprintf(s->name, sizeof s->name, "%s", name);
    p->base = (char *)s;
    return LC_OK;
}

static int open_section(parser *p, char *text) {
    char *end = text + strlen(text);
    if (end[-1] != ']') return REFUSE(p, LC_EFORMAT, "\"%s\": ']' is missing", text);
    end[-1] = 0;
    char *name = trim(text + 1), *rest = name + strcspn(name, " \t");
    if (*rest) *rest++ = 0;
    rest = trim(rest);
    memset(p->seen, 0, sizeof p->seen);
    for (int i = 0; i < LC_SECTION_COUNT; i++) {
        const lc_section *s = &lc_recipe_sections[i];
        if (strcmp(s->name, name)) continue;
        p->section = s;
        p->base = (char *)p->r;
        if (s->named) {
            int status = check_name(p, rest);
            if (status != LC_OK) return status;
            return i == LC_SECTION_STAGE ? open_stage(p, rest) : open_source(p, rest);
        }
        if (*rest) return REFUSE(p, LC_EFORMAT, "[%s] takes no name", name);
        if (p->opened[i])
            return REFUSE(p, LC_EFORMAT, "[%s] is given twice; before in line %d", name,
                          p->opened[i]);
        p->opened[i] = p->line;
        if (i == LC_SECTION_MODEL) p->r->model_line = p->line;
        if (i == LC_SECTION_TRAIN) p->r->train_line = p->line;
        return LC_OK;
    }
    return REFUSE(p, LC_EFORMAT, "no section [%s]; there are model, train, eval, source, stage",
                  name);
}

static int take_line(parser *p, char *line) {
    char *comment = strchr(line, '#');
    if (comment) *comment = 0;
    line = trim(line);
    if (!*line) return LC_OK;
    if (*line == '[') return open_section(p, line);
    char *equals = strchr(line, '=');
    if (!equals)
        return REFUSE(p, LC_EFORMAT, "\"%s\" is neither a [section] nor key = value", line);
    *equals = 0;
    return set_key(p, trim(line), trim(equals + 1));
}

/* ---- the file ---- */

static void set_defaults(lc_recipe *r) {
    lc_optim_options o = lc_optim_defaults();
    r->grow = 1;
    r->window = 1 << 20;
    r->std = 0.02;
    r->embedding_std = 0.02;
    r->ngram_std = 0.02;
    r->lanes = 1;
    r->optimizer = LC_OPTIM_MUON;
    r->beta1 = o.beta1;
    r->beta2 = o.beta2;
    r->eps = o.eps;
    r->momentum = o.momentum;
    r->weight_decay = o.decay;
    r->clip = o.clip;
    memcpy(r->rates, o.rates, sizeof r->rates);
    r->bias_rate = 0.1;
    r->bias_floor = 0.01;
    r->bias_half_after = 1000;
    r->keep = 3;
    r->checkpoint_minutes = 30;
    r->eval_sequences = 16;
}

static int parse_lines(parser *p, const char *text, size_t len) {
    char line[LINE_MAX_BYTES];
    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end ? (size_t)(end - text) - at : len - at;
        p->line++;
        if (n >= sizeof line || memchr(text + at, 0, n))
            return REFUSE(p, LC_EFORMAT, "longer than %d bytes, or no text", LINE_MAX_BYTES - 1);
        memcpy(line, text + at, n);
        line[n] = 0;
        int status = take_line(p, line);
        if (status != LC_OK) return status;
        at += n + 1;
    }
    return LC_OK;
}

int lc_recipe_parse(const char *text, size_t len, const char *path, lc_recipe **out, lc_err *err) {
    *out = NULL;
    lc_recipe *r = lc_calloc(1, sizeof *r);
    if (!r || !(r->path = lc_strdup(path))) {
        lc_free(r);
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    }
    set_defaults(r);
    parser p = {.r = r, .err = err};
    int status = parse_lines(&p, text, len);
    if (status == LC_OK) status = lc_recipe_settle(r, err);
    if (status == LC_OK)
        *out = r;
    else
        lc_recipe_free(r);
    return status;
}

int lc_recipe_load(const char *path, lc_recipe **out, lc_err *err) {
    lc_buf text = {0};
    *out = NULL;
    int status = lc_file_read(path, TEXT_MAX, &text, err);
    if (status == LC_OK) status = lc_recipe_parse(text.data, text.len, path, out, err);
    lc_buf_free(&text);
    return status;
}

void lc_recipe_free(lc_recipe *r) {
    if (!r) return;
    char *texts[] = {r->path, r->config, r->from, r->tokenizer, r->run, r->eval_folder};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) lc_free(texts[i]);
    for (size_t i = 0; i < r->n_sources; i++) lc_free(r->sources[i].folder);
    for (size_t i = 0; i < r->n_stages; i++) {
        lc_free(r->stages[i].learn);
        lc_free(r->stages[i].freeze);
        lc_free(r->stages[i].mix);
    }
    lc_free(r);
}
