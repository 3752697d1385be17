/*
 * inventory.c: a checkpoint compared with the tensors that its config asks for. Nothing is loaded
 * or copied; names are walked once and looked up.
 */
#include "format/names.h"

#include "base/err.h"
#include "base/mem.h"

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

static void mark(taking *k, const char *name) {
    const lc_tensor *t = lc_tensors_find(k->tensors, name);
    if (!t) return;
    k->known[t - lc_tensors_at(k->tensors, 0)] = true;
    k->out->dtype_bytes[t->dtype] += t->size;
}

static int find_parts(void *ctx, const lc_name *n) {
    taking *k = ctx;
    if (n->part >= LC_PART_MTP && !k->present[n->part])
        k->present[n->part] = lc_tensors_find(k->tensors, n->name) != NULL;
    return LC_OK;
}

static int compare(void *ctx, const lc_name *n) {
    taking *k = ctx;
    lc_mat mat;
    lc_err err;
    char scales[160];
    size_t rows = n->rank == 1 ? 1 : n->shape[0], cols = n->rank == 1 ? n->shape[0] : n->shape[1];
    if (n->part >= LC_PART_MTP && !k->present[n->part]) return LC_OK;
    int status = lc_mat_probe(k->tensors, n->name, rows, cols, &mat, &err);
    if (status == LC_ENOTFOUND) {
        list(&k->out->missing, &k->out->n_missing, n->name);
        return LC_OK;
    }
    mark(k, n->name);
    snprintf(scales, sizeof scales, "%s_scale_inv", n->name);
    mark(k, scales);
    snprintf(scales, sizeof scales, "%s_scale", n->name);
    mark(k, scales);
    if (status != LC_OK) {
        list(&k->out->wrong, &k->out->n_wrong, err.text);
        return LC_OK;
    }
    lc_part_sum *sum = &k->out->parts[n->part];
    sum->tensors++;
    sum->elements += (uint64_t)rows * cols;
    sum->bytes += lc_mat_bytes(&mat);
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
