/* params.c: the list of tensors with their places in a block; initial values; reading
 * checkpoints. */
#include "train/params.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16 }; /* floats */

const char *lc_param_group_name(lc_param_group group) {
    static const char *const names[LC_GROUP_COUNT] = {
        "matrix",  "projection",    "embedding", "head", "router",
        "indexer", "index weights", "norm",      "bias", "unused"};
    return group < LC_GROUP_COUNT ? names[group] : "unknown";
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static lc_param_group group_of(const lc_name *n) {
    if (n->part == LC_PART_MTP_NGRAM) return LC_GROUP_UNUSED;
    if (ends_with(n->name, "e_score_correction_bias")) return LC_GROUP_BIAS;
    if (n->rank == 1) return LC_GROUP_NORM;
    if (n->part == LC_PART_HEAD) return LC_GROUP_HEAD;
    if (n->part == LC_PART_ROUTERS) return LC_GROUP_ROUTER;
    if (n->part == LC_PART_NGRAM_PROJECTIONS) return LC_GROUP_PROJECTION;
    if (n->part == LC_PART_EMBEDDING || n->part == LC_PART_NGRAM_TABLES ||
        ends_with(n->name, "embed_tokens.weight"))
        return LC_GROUP_EMBEDDING;
    if (ends_with(n->name, "indexer.weights_proj.weight")) return LC_GROUP_INDEX_WEIGHTS;
    return strstr(n->name, ".indexer.") ? LC_GROUP_INDEXER : LC_GROUP_MATRIX;
}

/* ---- the list ---- */

typedef struct lister {
    lc_params *p;
    const lc_tensors *tensors; /* NULL: new parameters */
    bool mtp;
    size_t room;
    lc_err *err;
} lister;

static bool wanted(const lister *l, const lc_name *n) {
    if (n->part < LC_PART_MTP) return true;
    if (!l->mtp) return false;
    if (n->part == LC_PART_MTP_NGRAM) return l->tensors && lc_tensors_find(l->tensors, n->name);
    return true;
}

static int add_param(void *ctx, const lc_name *n) {
    lister *l = ctx;
    lc_params *p = l->p;
    if (!wanted(l, n)) return LC_OK;
    if (p->count == l->room) {
        size_t room = l->room ? 2 * l->room : 256;
        lc_param *list = lc_realloc(p->list, room, sizeof *list);
        if (!list) return lc_fail(l->err, LC_ENOMEM, "parameters: out of memory");
        p->list = list;
        l->room = room;
    }
    lc_param x = {.rank = n->rank,
                  .rows = n->rank == 1 ? 1 : n->shape[0],
                  .cols = n->rank == 1 ? n->shape[0] : n->shape[1],
                  .offset = p->floats,
                  .group = group_of(n),
                  .part = n->part,
                  .weight = n->weight,
                  .indexer = strstr(n->name, ".indexer.") != NULL};
    x.gradient = x.group != LC_GROUP_BIAS && x.group != LC_GROUP_UNUSED;
    x.decay = x.gradient && x.rank == 2;
    size_t end;
    if (!lc_size_mul(x.rows, x.cols, &x.count) || !lc_size_add(x.offset, x.count, &end) ||
        !lc_size_align(end, ALIGN, &p->floats) || p->floats > SIZE_MAX / sizeof(float))
        return lc_fail(l->err, LC_ELIMIT, "%s: too many parameters", n->name);
    x.name = lc_strdup(n->name);
    if (!x.name) return lc_fail(l->err, LC_ENOMEM, "parameters: out of memory");
    p->list[p->count++] = x;
    return LC_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const lc_param *const *)a)->name, (*(const lc_param *const *)b)->name);
}

static int name_of(const void *name, const void *param) {
    return strcmp(name, (*(const lc_param *const *)param)->name);
}

const lc_param *lc_params_find(const lc_params *p, const char *name) {
    const lc_param **found = bsearch(name, p->sorted, p->count, sizeof *p->sorted, name_of);
    return found ? *found : NULL;
}

static int sort_names(lc_params *p, lc_err *err) {
    p->sorted = lc_calloc(p->count, sizeof *p->sorted);
    if (!p->sorted) return lc_fail(err, LC_ENOMEM, "parameters: out of memory");
    for (size_t i = 0; i < p->count; i++) p->sorted[i] = &p->list[i];
    qsort(p->sorted, p->count, sizeof *p->sorted, by_name);
    return LC_OK;
}

/* The list without values. */
static int make_list(const lc_config *config, const lc_tensors *tensors, bool mtp, lc_params **out,
                     lc_err *err) {
    lc_params *p = *out = lc_calloc(1, sizeof *p);
    if (!p) return lc_fail(err, LC_ENOMEM, "parameters: out of memory");
    p->config = *config;
    p->mtp = mtp;
    lister l = {.p = p, .tensors = tensors, .mtp = mtp, .err = err};
    int status = lc_names_expected(config, add_param, &l);
    if (status == LC_OK) status = sort_names(p, err);
    if (status == LC_OK && !(p->values = lc_params_block(p)))
        status =
            lc_fail(err, LC_ENOMEM, "parameters: no %zu bytes left", p->floats * sizeof(float));
    if (status != LC_OK) {
        lc_params_free(p);
        *out = NULL;
    }
    return status;
}

float *lc_params_block(const lc_params *p) {
    return lc_alloc_dense(p->floats * sizeof(float), true);
}

void lc_params_free(lc_params *p) {
    if (!p) return;
    for (size_t i = 0; i < p->count; i++) lc_free(p->list[i].name);
    lc_free(p->list);
    lc_free(p->sorted);
    lc_free(p->values);
    lc_free(p);
}

/* ---- initial values ---- */

/* FNV-1a: a tensor's stream of random numbers. */
static uint64_t stream_of(const char *name) {
    uint64_t hash = 14695981039346656037u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 1099511628211u;
    return hash;
}

/* A sum of 8 uniforms of 16 bits, centred, with variance 1: exact until the last product. */
static double normal(uint64_t seed, uint64_t stream, uint64_t element) {
    int64_t sum = 0;
    lc_rng_block block = lc_rng(seed, stream, element);
    for (int i = 0; i < 4; i++) sum += (block.word[i] & 0xffff) + (block.word[i] >> 16);
    return (double)(sum - 4 * 65535) * (1.2247448713915890 / 65536.0); /* sqrt(12 / 8) */
}

static double std_of(const lc_params_init *init, const lc_param *x) {
    double width = init->width_scale > 0 ? sqrt(init->width_scale) : 1.0;
    if (x->group == LC_GROUP_EMBEDDING)
        return x->part == LC_PART_NGRAM_TABLES ? init->ngram : init->embedding;
    return init->std / width;
}

int lc_params_new(const lc_config *config, const lc_params_init *init, lc_params **out,
                  lc_err *err) {
    int status = make_list(config, NULL, config->mtp_steps > 0, out, err);
    if (status != LC_OK) return status;
    for (size_t i = 0; i < (*out)->count; i++) {
        const lc_param *x = &(*out)->list[i];
        float *values = lc_param_values(*out, x);
        if (x->group == LC_GROUP_BIAS) continue;
        uint64_t stream = stream_of(x->name);
        double std = std_of(init, x);
        for (size_t j = 0; j < x->count; j++)
            values[j] =
                x->group == LC_GROUP_NORM ? 1.0f : (float)(std * normal(init->seed, stream, j));
    }
    return LC_OK;
}

/* However the draft module is stored. What is wrong with it is told when it is bound. */
static bool has_mtp(const lc_config *c, const lc_tensors *tensors) {
    lc_mat eh_proj;
    lc_err ignored;
    return lc_mat_probe(tensors, "model.mtp.layers.0.eh_proj.weight", c->hidden, 2 * c->hidden,
                        &eh_proj, &ignored) != LC_ENOTFOUND;
}

int lc_params_load(const lc_config *config, const lc_tensors *tensors, lc_params **out,
                   lc_err *err) {
    int status = make_list(config, tensors, has_mtp(config, tensors), out, err);
    for (size_t i = 0; status == LC_OK && i < (*out)->count; i++) {
        const lc_param *x = &(*out)->list[i];
        lc_mat mat;
        status = lc_mat_bind(tensors, x->name, x->rows, x->cols, &mat, err);
        if (status != LC_OK) break;
        lc_mat_rows_f32(lc_kernels_of(LC_ISA_SCALAR), &mat, 0, x->rows, lc_param_values(*out, x),
                        x->cols);
        lc_mat_unbind(&mat);
    }
    if (status != LC_OK) {
        lc_params_free(*out);
        *out = NULL;
    }
    return status;
}
