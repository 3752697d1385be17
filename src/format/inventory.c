/*
 * inventory.c: a checkpoint compared with the tensors that its config asks for. Nothing is loaded
 * or copied; names are walked once and looked up.
 */
#include "format/names.h"

#include "base/err.h"
#include "base/mem.h"
#include "format/stored.h"

#include <stdio.h>

typedef struct taking {
    const lc_config *c;
    const lc_tensors *tensors;
    lc_inventory *out;
    bool *known;                 /* [tensors] */
    bool present[LC_PART_COUNT]; /* parts of which at least one tensor is there */
} taking;

static void list(lc_buf *texts, uint64_t *count, const char *text) {
    if ((*count)++ < LC_LISTED) lc_buf_append(texts, text, strlen(text) + 1);
}

static void mark(taking *k, const lc_tensor *t, lc_dtype type) {
    bool *known = &k->known[t - lc_tensors_at(k->tensors, 0)];
    if (!*known) k->out->dtype_bytes[type] += t->size;
    *known = true;
}

static void mark_parts(taking *k, const lc_stored *stored) {
    bool values = stored->kind == LC_STORED_STRIPS && !stored->scales; /* BF16 in words of I32 */
    for (int i = 0; i < stored->n_parts; i++)
        mark(k, stored->parts[i], values ? LC_BF16 : stored->parts[i]->dtype);
}

/* All tensors that carry the weight, whether they fit it or not. */
static void mark_stored(taking *k, const char *name) {
    lc_stored stored;
    lc_err err;
    (void)lc_stored_find(k->tensors, name, &stored, &err); /* the binding has told what is wrong */
    mark_parts(k, &stored);
    for (int i = 0; i < 2 && stored.kind == LC_STORED_SPLIT; i++) {
        lc_stored half;
        if (lc_stored_find(k->tensors, stored.split[i], &half, &err) == LC_OK) mark_parts(k, &half);
    }
}

/* Whether any tensor of the weight is there. */
static bool is_stored(const taking *k, const char *name) {
    lc_stored stored;
    lc_err err;
    return lc_stored_find(k->tensors, name, &stored, &err) != LC_ENOTFOUND;
}

static int find_parts(void *ctx, const lc_name *n) {
    taking *k = ctx;
    if (n->part >= LC_PART_MTP && !k->present[n->part]) k->present[n->part] = is_stored(k, n->name);
    return LC_OK;
}

static int compare(void *ctx, const lc_name *n) {
    taking *k = ctx;
    lc_mat mat;
    lc_err err;
    size_t rows = n->rank == 1 ? 1 : n->shape[0], cols = n->rank == 1 ? n->shape[0] : n->shape[1];
    if (n->part >= LC_PART_MTP && !k->present[n->part]) return LC_OK;
    int status = lc_mat_probe(k->tensors, n->name, rows, cols, &mat, &err);
    if (status == LC_ENOTFOUND) {
        list(&k->out->missing, &k->out->n_missing, n->name);
        return LC_OK;
    }
    mark_stored(k, n->name);
    if (status != LC_OK) {
        list(&k->out->wrong, &k->out->n_wrong, err.text);
        return LC_OK;
    }
    lc_part_add(&k->out->parts[n->part], n, lc_mat_bytes(&mat),
                n->packed && lc_mat_symmetric(&mat));
    k->out->misaligned += lc_mat_misaligned(&mat);
    return LC_OK;
}

int lc_inventory_take(const lc_config *config, const lc_tensors *tensors, lc_inventory *out,
                      lc_err *err) {
    size_t count = lc_tensors_count(tensors);
    *out = (lc_inventory){0};
    taking k = {.c = config, .tensors = tensors, .out = out, .known = lc_calloc(count + 1, 1)};
    if (!k.known) return lc_fail(err, LC_ENOMEM, "out of memory");
    lc_names_expected(config, find_parts, &k);
    lc_names_expected(config, compare, &k);
    for (size_t i = 0; i < count; i++)
        if (!k.known[i]) list(&out->unknown, &out->n_unknown, lc_tensors_at(tensors, i)->name);
    lc_free(k.known);
    if (!out->missing.failed && !out->unknown.failed && !out->wrong.failed) return LC_OK;
    lc_inventory_free(out);
    return lc_fail(err, LC_ENOMEM, "out of memory");
}

void lc_inventory_free(lc_inventory *inventory) {
    lc_buf_free(&inventory->missing);
    lc_buf_free(&inventory->unknown);
    lc_buf_free(&inventory->wrong);
}
