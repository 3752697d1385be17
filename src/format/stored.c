/*
 * stored.c: finds the tensors that carry a weight, by names and dtypes. A weight must be stored in
 * one way only: leftovers of another way are an error, not a guess.
 */
#include "format/stored.h"

#include "base/err.h"

#include <stdio.h>

enum { MAX_TEXT = 1100 }; /* names are at most 1,000 bytes */

typedef struct finding {
    const lc_tensors *tensors;
    const char *name;
    size_t module; /* length of the name without ".weight" */
    lc_stored *out;
    lc_err *err;
} finding;

static const lc_tensor *find(const finding *f, size_t length, const char *suffix) {
    char text[MAX_TEXT];
    int len = snprintf(text, sizeof text, "%.*s%s", (int)length, f->name, suffix);
    return len > 0 && (size_t)len < sizeof text ? lc_tensors_find(f->tensors, text) : NULL;
}

static const lc_tensor *beside(const finding *f, const char *suffix) {
    return find(f, strlen(f->name), suffix);
}
static const lc_tensor *of_module(const finding *f, const char *suffix) {
    return find(f, f->module, suffix);
}

static const lc_tensor *take(finding *f, const lc_tensor *t) {
    if (t) f->out->parts[f->out->n_parts++] = t;
    return t;
}

static int missing(const finding *f, const char *companion) {
    const lc_tensor *t = f->out->codes;
    return lc_fail(f->err, LC_EFORMAT, "%s: tensor %s is %s, but %s is missing", t->file, t->name,
                   t->dtype_name, companion);
}

static int needs(const finding *f, const lc_tensor *t, size_t length, const char *suffix) {
    char text[MAX_TEXT];
    if (t) return LC_OK;
    snprintf(text, sizeof text, "%.*s%s", (int)length, f->name, suffix);
    return missing(f, text);
}

/* The tensor of that very name: a plain one, FP8, INT8 or MLX. */
static int find_own(finding *f, const lc_tensor *t) {
    lc_stored *s = f->out;
    size_t all = strlen(f->name);
    s->codes = take(f, t);
    if (t->dtype == LC_F8_E4M3) {
        s->kind = LC_STORED_BLOCKS;
        s->scales = take(f, beside(f, "_scale_inv"));
        return needs(f, s->scales, all, "_scale_inv");
    }
    if (t->dtype == LC_I8) {
        s->kind = LC_STORED_INT8;
        s->scales = take(f, beside(f, "_scale"));
        s->zeros = take(f, beside(f, "_zero_point"));
        s->order = take(f, beside(f, "_g_idx"));
        return needs(f, s->scales, all, "_scale");
    }
    if (t->dtype == LC_U32) {
        s->kind = LC_STORED_AFFINE;
        s->scales = take(f, of_module(f, ".scales"));
        s->biases = take(f, of_module(f, ".biases"));
        int status = needs(f, s->scales, f->module, ".scales");
        return status == LC_OK ? needs(f, s->biases, f->module, ".biases") : status;
    }
    static const char *const companions[] = {"_scale_inv", "_scale"};
    for (size_t i = 0; i < 2; i++) {
        const lc_tensor *c = beside(f, companions[i]);
        if (c)
            return lc_fail(f->err, LC_EFORMAT, "%s: tensor %s is %s, but has scales %s (%s)",
                           t->file, t->name, t->dtype_name, c->name, c->file);
    }
    const lc_tensor *scales = of_module(f, ".scales");
    if (scales && f->module < all)
        return lc_fail(f->err, LC_EFORMAT, "%s: tensor %s is %s, but has scales %s (%s)", t->file,
                       t->name, t->dtype_name, scales->name, scales->file);
    return LC_OK;
}

static int find_packed(finding *f, const lc_tensor *t) {
    lc_stored *s = f->out;
    s->kind = LC_STORED_PACKED;
    s->codes = take(f, t);
    s->scales = take(f, beside(f, "_scale"));
    s->shape = take(f, beside(f, "_shape"));
    s->zeros = take(f, beside(f, "_zero_point"));
    s->order = take(f, beside(f, "_g_idx"));
    return needs(f, s->scales, strlen(f->name), "_scale");
}

/* Scales or none: whether the words are codes or BF16 is told by the shape. */
static int find_strips(finding *f, const lc_tensor *t) {
    f->out->kind = LC_STORED_STRIPS;
    f->out->codes = take(f, t);
    f->out->scales = take(f, beside(f, "_strip_scale"));
    return LC_OK;
}

static int find_gptq(finding *f, const lc_tensor *t) {
    lc_stored *s = f->out;
    s->kind = LC_STORED_GPTQ;
    s->codes = take(f, t);
    s->scales = take(f, of_module(f, ".scales"));
    s->zeros = take(f, of_module(f, ".qzeros"));
    s->order = take(f, of_module(f, ".g_idx"));
    return needs(f, s->scales, f->module, ".scales");
}

/* kv_b_proj split in two: whether there is a first half, in any storing. */
static bool find_split(const finding *f) {
    static const char kv_b[] = "kv_b_proj.weight";
    static const char *const halves[2] = {"embed_q.weight", "unembed_out.weight"};
    size_t all = strlen(f->name), tail = sizeof kv_b - 1;
    if (all < tail || strcmp(f->name + all - tail, kv_b)) return false;
    lc_stored *s = f->out;
    for (int i = 0; i < 2; i++) {
        int len = snprintf(s->split[i], sizeof s->split[i], "%.*s%s", (int)(all - tail), f->name,
                           halves[i]);
        if (len < 0 || (size_t)len >= sizeof s->split[i]) return false;
    }
    s->kind = LC_STORED_SPLIT;
    return lc_tensors_find(f->tensors, s->split[0]) != NULL;
}

static int find_one(finding *f) {
    const lc_tensor *own = lc_tensors_find(f->tensors, f->name);
    const lc_tensor *packed = beside(f, "_packed");
    const lc_tensor *strips = beside(f, "_strips");
    const lc_tensor *gptq = f->module < strlen(f->name) ? of_module(f, ".qweight") : NULL;
    const lc_tensor *ways[] = {own, packed, strips, gptq}, *first = NULL, *second = NULL;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (first && !second) second = ways[i];
        if (!first) first = ways[i];
    }
    if (second)
        return lc_fail(f->err, LC_EFORMAT, "%s: tensor %s: the same weight is also stored as %s",
                       first->file, first->name, second->name);
    if (own) return find_own(f, own);
    if (packed) return find_packed(f, packed);
    if (strips) return find_strips(f, strips);
    if (gptq) return find_gptq(f, gptq);
    if (find_split(f)) return LC_OK;
    return lc_fail(f->err, LC_ENOTFOUND, "tensor %s is missing in the checkpoint", f->name);
}

int lc_stored_find(const lc_tensors *tensors, const char *name, lc_stored *out, lc_err *err) {
    static const char weight[] = ".weight";
    size_t all = strlen(name), tail = sizeof weight - 1;
    bool has_module = all > tail && !strcmp(name + all - tail, weight);
    finding f = {tensors, name, has_module ? all - tail : all, out, err};
    *out = (lc_stored){.kind = LC_STORED_PLAIN};
    return find_one(&f);
}
