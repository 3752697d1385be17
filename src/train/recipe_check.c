/* recipe_check.c: what a recipe's values mean together: limits, lists of groups, mixes; its hash;
 * the structs that the parts of a run take. */
#include "train/recipe.h"

#include "base/err.h"
#include "base/hash.h"
#include "train/recipe_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuse(const lc_recipe *r, int line, lc_err *err) {
    if (line)
        lc_err_prefix(err, "%s:%d", r->path, line);
    else
        lc_err_prefix(err, "%s", r->path);
    return err ? err->code : LC_EFORMAT;
}
#define REFUSE(r, line, err, ...)                                                                  \
    ((void)lc_fail(err, LC_EFORMAT, __VA_ARGS__), refuse(r, line, err))

/* ---- lists of groups ---- */

/* Calls for each word of "a, b c"; false ends. */
static const char *next_word(const char *text, char word[64]) {
    text += strspn(text, " \t,");
    size_t n = strcspn(text, " \t,");
    if (!n) return NULL;
    snprintf(word, 64, "%.*s", n < 63 ? (int)n : 63, text);
    return text + n;
}

static const char *group_word(int group) {
    return group == LC_GROUP_INDEX_WEIGHTS ? "index_weights"
                                           : lc_param_group_name((lc_param_group)group);
}

static bool set_group(lc_recipe_stage *s, const char *word, bool learns) {
    bool known = false;
    for (int g = 0; g < LC_GROUP_BIAS; g++) {
        bool all = !strcmp(word, "all");
        bool indexer = !strcmp(word, "indexer") && g == LC_GROUP_INDEX_WEIGHTS;
        if (!all && !indexer && strcmp(word, group_word(g))) continue;
        s->learns[g] = learns;
        known = true;
    }
    if (strcmp(word, "draft") || learns) return known; /* can be frozen only */
    s->learns_draft = false;
    return true;
}

static int set_groups(const lc_recipe *r, lc_recipe_stage *s, const char *list, bool learns,
                      lc_err *err) {
    char word[64];
    for (const char *at = list ? list : ""; (at = next_word(at, word));)
        if (!set_group(s, word, learns))
            return REFUSE(r, s->line, err,
                          "stage %s: %s: no group \"%s\"; there are all, matrix, projection, "
                          "embedding, head, router, indexer, index_weights, norm%s",
                          s->name, learns ? "learn" : "freeze", word, learns ? "" : ", draft");
    return LC_OK;
}

/* ---- mixes ---- */

static int set_mix(const lc_recipe *r, lc_recipe_stage *s, lc_err *err) {
    char name[64], number[64];
    double sum = 0;
    for (size_t i = 0; i < r->n_sources; i++) s->weights[i] = s->mix ? 0 : r->sources[i].weight;
    for (const char *at = s->mix ? s->mix : ""; (at = next_word(at, name));) {
        size_t i = 0;
        char *end;
        for (; i < r->n_sources && strcmp(r->sources[i].name, name); i++) {
        }
        if (i == r->n_sources)
            return REFUSE(r, s->line, err, "stage %s: mix: no source \"%s\"", s->name, name);
        if (!(at = next_word(at, number)) || !((s->weights[i] = strtod(number, &end)) > 0) ||
            *end || !(s->weights[i] < 1e9))
            return REFUSE(r, s->line, err, "stage %s: mix: a weight above 0 must follow \"%s\"",
                          s->name, name);
    }
    for (size_t i = 0; i < r->n_sources; i++) sum += s->weights[i];
    if (!(sum > 0)) return REFUSE(r, s->line, err, "stage %s: the mix is empty", s->name);
    return LC_OK;
}

/* ---- stages ---- */

static int settle_steps(const lc_recipe *r, lc_recipe_stage *s, lc_err *err) {
    int64_t share = s->batch / r->lanes, step;
    if (!s->context || !s->tokens || !s->batch || !(s->rate > 0))
        return REFUSE(r, s->line, err, "stage %s: %s is not given", s->name,
                      !s->context  ? "context"
                      : !s->tokens ? "tokens"
                      : !s->batch  ? "batch"
                                   : "rate");
    if (s->batch % r->lanes)
        return REFUSE(r, s->line, err, "stage %s: batch %lld is no multiple of the %lld lanes",
                      s->name, (long long)s->batch, (long long)r->lanes);
    if (s->micro > share)
        return REFUSE(r, s->line, err,
                      "stage %s: micro %lld is above a lane's share of %lld sequences", s->name,
                      (long long)s->micro, (long long)share);
    if (__builtin_mul_overflow(s->batch, s->context, &step) || step > INT32_MAX)
        return REFUSE(r, s->line, err, "stage %s: batch times context is above 2^31 tokens",
                      s->name);
    s->steps = (s->tokens - 1) / step + 1;
    if (s->steps > (int64_t)1 << 36 || s->steps * s->batch >= (int64_t)1 << 36)
        return REFUSE(r, s->line, err, "stage %s: 2^36 sequences or more", s->name);
    return LC_OK;
}

static int settle_losses(const lc_recipe *r, const lc_recipe_stage *s, lc_err *err) {
    if (s->warmup + (s->schedule_kind == LC_SCHEDULE_WSD ? s->decay : 0) > 1)
        return REFUSE(r, s->line, err, "stage %s: warmup and decay are more than the whole stage",
                      s->name);
    if (s->kl > 0 && s->index == LC_INDEX_DENSE)
        return REFUSE(r, s->line, err, "stage %s: kl needs index = warmup or sparse", s->name);
    if (s->index == LC_INDEX_WARMUP && !(s->kl > 0))
        return REFUSE(r, s->line, err, "stage %s: index = warmup needs kl above 0", s->name);
    if (!(s->lm > 0 || s->mtp > 0 || s->kl > 0))
        return REFUSE(r, s->line, err, "stage %s: lm, mtp and kl are all 0: nothing is learned",
                      s->name);
    return LC_OK;
}

static int settle_stage(const lc_recipe *r, lc_recipe_stage *s, lc_err *err) {
    int status = settle_steps(r, s, err);
    if (status == LC_OK) status = settle_losses(r, s, err);
    for (int g = 0; g < LC_GROUP_COUNT; g++) s->learns[g] = !s->learn;
    s->learns_draft = true;
    if (status == LC_OK) status = set_groups(r, s, s->learn, true, err);
    if (status == LC_OK) status = set_groups(r, s, s->freeze, false, err);
    return status == LC_OK ? set_mix(r, s, err) : status;
}

int lc_recipe_settle(lc_recipe *r, lc_err *err) {
    if (!r->config && !r->from)
        return REFUSE(r, r->model_line, err, "[model] has neither config nor from");
    if (r->grow > 1 && !r->from) return REFUSE(r, r->model_line, err, "[model] grow needs from");
    if (r->grow > 1 && r->config)
        return REFUSE(r, r->model_line, err, "[model] grow makes the config from that of `from`");
    if (r->lanes & (r->lanes - 1))
        return REFUSE(r, r->train_line, err, "[train] lanes = %lld is not a power of two",
                      (long long)r->lanes);
    if (r->publish_average && !(r->average > 0))
        return REFUSE(r, r->train_line, err, "[train] publish = average needs average above 0");
    if (!r->n_sources) return REFUSE(r, 0, err, "no [source NAME]");
    if (!r->n_stages) return REFUSE(r, 0, err, "no [stage NAME]");
    for (size_t i = 0; i < r->n_sources; i++)
        if (!r->sources[i].folder)
            return REFUSE(r, r->sources[i].line, err, "source %s: folder is not given",
                          r->sources[i].name);
    for (size_t i = 0; i < r->n_stages; i++) {
        int status = settle_stage(r, &r->stages[i], err);
        if (status != LC_OK) return status;
    }
    return LC_OK;
}

int lc_recipe_check(lc_recipe *r, const lc_config *c, bool mtp, lc_err *err) {
    if (!(r->target_topk > 0)) {
        lc_param_counts counts;
        lc_config_count(c, &counts);
        r->target_topk = counts.average_experts;
    }
    double least = c->zero_experts ? 0 : (double)c->topk;
    if (r->target_topk > (double)c->topk || r->target_topk < least)
        return REFUSE(r, r->train_line, err,
                      "[train] target_topk = %g: the model chooses %zu entries a token",
                      r->target_topk, c->topk);
    if (r->balance_groups && c->experts % (size_t)r->balance_groups)
        return REFUSE(r, r->train_line, err,
                      "[train] balance_groups = %lld doesn't divide %zu experts",
                      (long long)r->balance_groups, c->experts);
    for (size_t i = 0; i < r->n_stages; i++) {
        const lc_recipe_stage *s = &r->stages[i];
        if ((size_t)s->context > c->max_positions)
            return REFUSE(r, s->line, err, "stage %s: context %lld; the model allows %zu", s->name,
                          (long long)s->context, c->max_positions);
        if (s->mtp > 0 && (!mtp || c->mtp_steps > LC_MTP_STEPS_MAX))
            return REFUSE(r, s->line, err, "stage %s: mtp: the model has %s", s->name,
                          mtp ? "too many draft steps" : "no draft module");
        if ((s->kl > 0 || s->index != LC_INDEX_SPARSE) && !c->index_heads)
            return REFUSE(r, s->line, err, "stage %s: %s: the model has no indexer", s->name,
                          s->kl > 0 ? "kl" : "index");
    }
    return LC_OK;
}

/* ---- the hash ---- */

static void put_keys(lc_buf *out, const lc_section *s, const char *base) {
    for (size_t i = 0; i < s->count; i++) {
        const lc_key *k = &s->keys[i];
        const void *at = base + k->offset;
        if (k->free) continue;
        lc_buf_printf(out, "%s.%s=", s->name, k->name);
        if (k->kind == LC_KEY_NUMBER)
            lc_buf_printf(out, "%a\n", *(const double *)at);
        else if (k->kind == LC_KEY_TEXT)
            lc_buf_printf(out, "%s\n", *(char *const *)at ? *(char *const *)at : "");
        else
            lc_buf_printf(out, "%lld\n", (long long)*(const int64_t *)at);
    }
}

int lc_recipe_hash(const lc_recipe *r, size_t stages, char hex[65], lc_err *err) {
    lc_buf text = {0};
    put_keys(&text, &lc_recipe_sections[LC_SECTION_MODEL], (const char *)r);
    put_keys(&text, &lc_recipe_sections[LC_SECTION_TRAIN], (const char *)r);
    for (size_t i = 0; i < r->n_sources; i++)
        put_keys(&text, &lc_recipe_sections[LC_SECTION_SOURCE], (const char *)&r->sources[i]);
    for (size_t i = 0; i < stages && i < r->n_stages; i++)
        put_keys(&text, &lc_recipe_sections[LC_SECTION_STAGE], (const char *)&r->stages[i]);
    lc_hash *hash = text.failed ? NULL : lc_hash_new(LC_HASH_XXH128);
    if (hash) {
        lc_hash_update(hash, text.data, text.len);
        lc_hash_finish(hash, hex);
    }
    lc_buf_free(&text);
    return hash && *hex ? LC_OK : lc_fail(err, LC_ENOMEM, "%s: out of memory", r->path);
}

/* ---- parts of a run ---- */

lc_optim_options lc_recipe_optim(const lc_recipe *r, const lc_config *c) {
    lc_optim_options o = {.kind = (lc_optim_kind)r->optimizer,
                          .beta1 = r->beta1,
                          .beta2 = r->beta2,
                          .eps = r->eps,
                          .momentum = r->momentum,
                          .decay = r->weight_decay,
                          .clip = r->clip,
                          .average = r->average,
                          .bf16 = !r->compute_f32};
    memcpy(o.rates, r->rates, sizeof o.rates);
    if (!r->base_width) return o;
    /* Spec 5.5: embeddings and vectors keep the rate found at the base width, hidden matrices and
     * the head take it divided by the ratio of widths. */
    double ratio = (double)c->hidden / (double)r->base_width;
    for (int g = 0; g < LC_GROUP_COUNT; g++)
        if (g != LC_GROUP_EMBEDDING && g != LC_GROUP_PROJECTION && g != LC_GROUP_NORM)
            o.rates[g] /= ratio;
    return o;
}

lc_schedule lc_recipe_schedule(const lc_recipe_stage *s) {
    return (lc_schedule){(lc_schedule_kind)s->schedule_kind, s->rate, s->warmup, s->decay, s->end};
}

lc_loss_weights lc_recipe_losses(const lc_recipe *r, const lc_recipe_stage *s, const lc_config *c) {
    lc_loss_weights w = {.lm = (float)s->lm,
                         .balance = (float)s->balance,
                         .router_z = (float)s->router_z,
                         .hidden_z = (float)s->hidden_z,
                         .kl = (float)s->kl,
                         .balance_form = {(size_t)r->balance_groups, r->target_topk}};
    for (size_t k = 0; s->mtp > 0 && k < c->mtp_steps && k < LC_MTP_STEPS_MAX; k++)
        w.mtp[k] = (float)(s->mtp / (double)c->mtp_steps);
    if (c->index_heads && s->index == LC_INDEX_WARMUP) w.kl_stage = LC_KL_WARMUP;
    if (c->index_heads && s->index == LC_INDEX_SPARSE && s->kl > 0) w.kl_stage = LC_KL_SPARSE;
    return w;
}

void lc_recipe_learns(const lc_recipe_stage *s, const lc_params *params, bool *learns) {
    bool main_loss = s->lm > 0 || s->mtp > 0;
    for (size_t i = 0; i < params->count; i++) {
        const lc_param *p = &params->list[i];
        bool draft = p->part == LC_PART_MTP || p->part == LC_PART_MTP_NGRAM;
        bool reached = p->indexer ? s->kl > 0 : draft ? s->mtp > 0 : main_loss;
        learns[i] = p->gradient && reached && s->learns[p->group] && (!draft || s->learns_draft);
    }
}

int64_t lc_recipe_steps(const lc_recipe *r) {
    int64_t sum = 0;
    for (size_t i = 0; i < r->n_stages; i++) sum += r->stages[i].steps;
    return sum;
}

double lc_recipe_tokens(const lc_recipe *r) {
    double sum = 0;
    for (size_t i = 0; i < r->n_stages; i++)
        sum +=
            (double)r->stages[i].steps * (double)r->stages[i].batch * (double)r->stages[i].context;
    return sum;
}
