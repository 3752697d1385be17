/* quantize_plan.c: what becomes of each tensor of a checkpoint, and in which shard it goes. */
#include "format/quantize_internal.h"

#include "base/err.h"
#include "format/stored.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_SHARDS = 9999 };

typedef struct planning {
    lc_quantize_plan *plan;
    bool *taken; /* [tensors] that belong to a weight that is written */
    lc_err *err;
} planning;

static lc_quantize_item *push(planning *p) {
    lc_quantize_plan *plan = p->plan;
    if (plan->count == plan->cap) {
        size_t cap = plan->cap ? plan->cap + plan->cap / 2 : 256;
        lc_quantize_item *items = lc_realloc(plan->items, cap, sizeof *items);
        if (!items) return NULL;
        plan->items = items;
        plan->cap = cap;
    }
    lc_quantize_item *item = &plan->items[plan->count++];
    *item = (lc_quantize_item){0};
    return item;
}

static bool is_wanted(const lc_quantize_options *o, const lc_name *n) {
    if (n->rank != 2 || o->type == LC_QUANTIZE_NONE) return false;
    switch (n->part) {
    case LC_PART_EMBEDDING:
    case LC_PART_NGRAM_TABLES:
    case LC_PART_NGRAM_PROJECTIONS: return o->embeddings;
    case LC_PART_HEAD: return o->head;
    case LC_PART_MTP: return o->mtp && (n->weight == LC_WEIGHT_PROJ || n->weight == LC_WEIGHT_FFN);
    case LC_PART_MTP_NGRAM: return false;
    default: return n->weight == LC_WEIGHT_PROJ || n->weight == LC_WEIGHT_FFN;
    }
}

/* Tables whose rows are looked up one at a time: in strips a row would be spread over 16 times as
 * many pages. */
static bool is_table(const lc_name *n) {
    return n->part == LC_PART_EMBEDDING || n->part == LC_PART_NGRAM_TABLES ||
           n->part == LC_PART_MTP_NGRAM || !strcmp(n->name, "model.mtp.embed_tokens.weight");
}

/* Whether products read BF16 values of the matrix where they lie: routers and index weights are
 * products in fp32, kv_b is packed when a model is opened. */
static bool is_read_in_place(const lc_name *n, const lc_mat *mat) {
    return mat->type == LC_BF16 && mat->scaling == LC_SCALE_NONE && n->rank == 2 &&
           n->weight != LC_WEIGHT_F32 && !n->packed;
}

/* The wanted group, or the largest smaller one down to 32 that divides the width. */
static size_t group_for(size_t cols, size_t wanted) {
    for (size_t g = wanted; g >= 32; g /= 2)
        if (cols % g == 0) return g;
    return 0;
}

static void choose(const lc_quantize_options *o, const lc_name *n, lc_quantize_item *item) {
    bool four =
        o->type == LC_QUANTIZE_INT4 || (o->type == LC_QUANTIZE_MIXED && n->part == LC_PART_EXPERTS);
    size_t wanted = four ? (o->group ? o->group : 64) : o->type == LC_QUANTIZE_INT8 ? o->group : 0;
    item->group = wanted ? group_for(item->cols, wanted) : 0;
    item->by_row = wanted && !item->group;
    item->bits = four && item->group ? 4 : 8;
    item->scale_type = item->bits == 4 ? LC_BF16 : LC_F32;
    item->strips = o->strips && !is_table(n) && lc_quantize_strips_fit(item->cols, item->group);
}

static void take(planning *p, const lc_stored *s) {
    for (int i = 0; i < s->n_parts; i++)
        p->taken[s->parts[i] - lc_tensors_at(p->plan->tensors, 0)] = true;
    for (int i = 0; i < 2 && s->kind == LC_STORED_SPLIT; i++) {
        lc_stored half;
        if (lc_stored_find(p->plan->tensors, s->split[i], &half, p->err) == LC_OK) take(p, &half);
    }
}

/* gate_proj and up_proj must have codes of one kind, and unsigned bytes become signed ones; BF16
 * values of both must lie in strips, or of neither. The name of the other one, or "". */
static void name_partner(const char *name, char out[256]) {
    static const char *const pair[2] = {"gate_proj.weight", "up_proj.weight"};
    size_t len = strlen(name);
    *out = 0;
    for (int i = 0; i < 2; i++) {
        size_t tail = strlen(pair[i]);
        if (len > tail && len < 256 - 2 && !strcmp(name + len - tail, pair[i]))
            snprintf(out, 256, "%.*s%s", (int)(len - tail), name, pair[1 - i]);
    }
}

static bool can_pack(const planning *p, const lc_mat *mat, const char *name,
                     lc_quantize_item *item) {
    char partner[256];
    lc_quantize_item made = {0};
    lc_mat other;
    lc_err err;
    bool both = mat->scaling == LC_SCALE_NONE ||
                (mat->scaling == LC_SCALE_GROUP && mat->groups.kind == LC_CODES_U8);
    if (!lc_quantize_can_pack(mat, item)) return false;
    if (!both) return true;
    name_partner(name, partner);
    if (!*partner ||
        lc_mat_probe(p->plan->tensors, partner, mat->rows, mat->cols, &other, &err) != LC_OK)
        return true;
    return lc_quantize_can_pack(&other, &made) && made.bits == item->bits;
}

/* A weight that isn't to be quantised: whether it is to be laid out in strips. */
static void look_at_layout(planning *p, const lc_name *n, const lc_stored *stored,
                           const lc_mat *mat, lc_quantize_item *item) {
    bool codes = mat->scaling == LC_SCALE_ROW || mat->scaling == LC_SCALE_GROUP;
    if (stored->kind == LC_STORED_STRIPS) {
        p->plan->strips = true;
        return;
    }
    if (!p->plan->options->strips || is_table(n) || !(codes || is_read_in_place(n, mat))) return;
    item->moved =
        n->rank == 2 && stored->kind != LC_STORED_SPLIT && can_pack(p, mat, n->name, item);
    item->strips = item->moved;
    p->plan->unpacked += !item->moved;
}

/* What is in groups would only lose by a second rounding; strips have a source that isn't packed.
 */
static int check_wanted(const lc_mat *mat, lc_err *err) {
    if (mat->scaling == LC_SCALE_GROUP)
        return lc_fail(err, LC_EINVAL,
                       "tensor %s is quantised in groups already: start from "
                       "the BF16 or FP8 checkpoint",
                       mat->name);
    if (lc_mat_in_strips(mat))
        return lc_fail(err, LC_EINVAL,
                       "tensor %s is packed: quantise the checkpoint that it was packed from, "
                       "with --pack if the codes are to be packed",
                       mat->name);
    return LC_OK;
}

static int add_weight(void *ctx, const lc_name *n) {
    planning *p = ctx;
    lc_stored stored;
    lc_mat mat;
    size_t rows = n->rank == 1 ? 1 : n->shape[0], cols = n->rank == 1 ? n->shape[0] : n->shape[1];
    int status = lc_stored_find(p->plan->tensors, n->name, &stored, p->err);
    if (status == LC_ENOTFOUND && n->part >= LC_PART_MTP) return LC_OK;
    if (status == LC_OK) status = lc_mat_probe(p->plan->tensors, n->name, rows, cols, &mat, p->err);
    if (status != LC_OK) return status;
    bool wanted = is_wanted(p->plan->options, n);
    lc_quantize_item made = {.rows = rows, .cols = cols, .source_bytes = lc_mat_bytes(&mat)};
    if (!wanted) {
        look_at_layout(p, n, &stored, &mat, &made);
        if (!made.moved) return LC_OK;
    } else {
        status = check_wanted(&mat, p->err);
        if (status != LC_OK) return status;
        choose(p->plan->options, n, &made);
        p->plan->unpacked += p->plan->options->strips && !made.strips && !is_table(n);
    }
    made.name = lc_arena_strndup(p->plan->arena, n->name, strlen(n->name));
    lc_quantize_item *item = push(p);
    if (!item) return lc_fail(p->err, LC_ENOMEM, "plan: out of memory");
    *item = made;
    p->plan->strips = p->plan->strips || item->strips;
    take(p, &stored);
    return item->name ? LC_OK : lc_fail(p->err, LC_ENOMEM, "plan: out of memory");
}

static int add_copies(planning *p) {
    for (size_t i = 0; i < lc_tensors_count(p->plan->tensors); i++) {
        const lc_tensor *t = lc_tensors_at(p->plan->tensors, i);
        if (p->taken[i]) continue;
        if (t->dtype == LC_DTYPE_COUNT)
            return lc_fail(p->err, LC_EUNSUPPORTED, "%s: tensor %s: dtype %.16s", t->file, t->name,
                           t->dtype_name);
        lc_quantize_item *item = push(p);
        if (!item) return lc_fail(p->err, LC_ENOMEM, "plan: out of memory");
        item->name = t->name;
        item->source = t;
        item->source_bytes = t->size;
    }
    return LC_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const lc_quantize_item *)a)->name, ((const lc_quantize_item *)b)->name);
}

static uint64_t written_bytes(const lc_quantize_item *item) {
    if (item->source) return item->source->size;
    uint64_t row = lc_quantize_code_bytes(item) + lc_quantize_scale_bytes(item);
    return lc_quantize_rows(item, item->rows) * row + (item->bits == 4 && !item->strips ? 16 : 0);
}

static int cut_shards(lc_quantize_plan *plan, lc_err *err) {
    uint64_t limit = plan->options->shard_bytes ? plan->options->shard_bytes : (uint64_t)4 << 30;
    uint64_t filled = 0;
    plan->shards = lc_calloc(plan->count ? plan->count : 1, sizeof *plan->shards);
    if (!plan->shards) return lc_fail(err, LC_ENOMEM, "plan: out of memory");
    for (size_t i = 0; i < plan->count; i++) {
        uint64_t bytes = written_bytes(&plan->items[i]);
        if (!plan->n_shards || filled + bytes > limit) {
            plan->shards[plan->n_shards++].first = i;
            filled = 0;
        }
        lc_quantize_shard *s = &plan->shards[plan->n_shards - 1];
        s->count++;
        s->bytes += plan->items[i].source_bytes;
        filled += bytes;
        plan->bytes += bytes;
        plan->source_bytes += plan->items[i].source_bytes;
    }
    if (plan->n_shards > MAX_SHARDS)
        return lc_fail(err, LC_ELIMIT, "%zu shards, at most %d are possible: choose larger ones",
                       plan->n_shards, MAX_SHARDS);
    for (size_t i = 0; i < plan->n_shards; i++) {
        if (plan->n_shards == 1)
            snprintf(plan->shards[i].file, sizeof plan->shards[i].file, "model.safetensors");
        else
            snprintf(plan->shards[i].file, sizeof plan->shards[i].file,
                     "model-%05zu-of-%05zu.safetensors", i + 1, plan->n_shards);
    }
    return LC_OK;
}

int lc_quantize_plan_make(lc_quantize_plan *plan, lc_err *err) {
    planning p = {.plan = plan, .err = err};
    plan->arena = lc_arena_new(0);
    p.taken = lc_calloc(lc_tensors_count(plan->tensors) + 1, sizeof *p.taken);
    int status = plan->arena && p.taken ? LC_OK : lc_fail(err, LC_ENOMEM, "plan: out of memory");
    if (status == LC_OK) status = lc_names_expected(plan->config, add_weight, &p);
    if (status == LC_OK) status = add_copies(&p);
    if (status == LC_OK && plan->count)
        qsort(plan->items, plan->count, sizeof *plan->items, by_name);
    if (status == LC_OK) status = cut_shards(plan, err);
    lc_free(p.taken);
    return status;
}

void lc_quantize_plan_free(lc_quantize_plan *plan) {
    lc_arena_free(plan->arena);
    lc_free(plan->items);
    lc_free(plan->shards);
}

static bool name_output(lc_quantize_plan *plan, const char *name, const char *suffix,
                        lc_tensor *out) {
    size_t size = strlen(name) + strlen(suffix) + 1;
    char *text = lc_arena_alloc(plan->arena, size);
    if (text) snprintf(text, size, "%s%s", name, suffix);
    out->name = text;
    return text != NULL;
}

static int no_names(lc_err *err) { return lc_fail(err, LC_ENOMEM, "plan: out of memory"); }

static int strip_outputs(lc_quantize_plan *plan, const lc_quantize_item *item, lc_tensor *out,
                         lc_err *err) {
    size_t strips = lc_quantize_rows(item, item->rows) / LC_STRIP_ROWS;
    out[0] = (lc_tensor){.dtype = LC_I32, .rank = 3};
    out[1] = (lc_tensor){.dtype = item->scale_type, .rank = 3};
    out[0].shape[0] = out[1].shape[0] = strips;
    out[0].shape[1] = lc_quantize_code_bytes(item) / 4;
    out[1].shape[1] = lc_quantize_groups(item);
    out[0].shape[2] = out[1].shape[2] = LC_STRIP_ROWS;
    if (name_output(plan, item->name, "_strips", &out[0]) &&
        name_output(plan, item->name, "_strip_scale", &out[1]))
        return item->bits == LC_QUANTIZE_VALUES ? 1 : 2;
    return no_names(err);
}

int lc_quantize_outputs(lc_quantize_plan *plan, const lc_quantize_item *item,
                        lc_tensor out[LC_QUANTIZE_OUTPUTS], lc_err *err) {
    if (item->source) {
        out[0] = *item->source;
        return 1;
    }
    if (item->strips) return strip_outputs(plan, item, out, err);
    bool four = item->bits == 4;
    out[0] = (lc_tensor){.dtype = four ? LC_I32 : LC_I8, .rank = 2};
    out[0].shape[0] = item->rows;
    out[0].shape[1] = four ? (item->cols + 7) / 8 : item->cols;
    out[1] = (lc_tensor){.dtype = item->scale_type, .rank = 2};
    out[1].shape[0] = item->rows;
    out[1].shape[1] = lc_quantize_groups(item);
    out[2] = (lc_tensor){.dtype = LC_I64, .rank = 1, .shape = {2}};
    if (name_output(plan, item->name, four ? "_packed" : "", &out[0]) &&
        name_output(plan, item->name, "_scale", &out[1]) &&
        name_output(plan, item->name, "_shape", &out[2]))
        return four ? 3 : 2;
    return no_names(err);
}
