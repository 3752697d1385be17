/* checkpoint_tensors.c: the two safetensors files of a checkpoint. */
#include "train/checkpoint_parts.h"

#include "base/err.h"
#include "base/mem.h"
#include "format/safetensors.h"
#include "train/optim_parts.h"

#include <string.h>

static void shape_of(const lc_param *p, lc_dtype type, const char *name, lc_tensor *out) {
    *out = (lc_tensor){.name = name,
                       .dtype = type,
                       .rank = p->rank,
                       .shape = {p->rank == 1 ? p->cols : p->rows, p->cols},
                       .count = p->count,
                       .size = p->count * lc_dtype_size(type)};
    if (p->rank == 1) out->shape[1] = 0;
}

static lc_dtype type_of(const lc_param *p, bool bf16) {
    return bf16 && p->weight != LC_WEIGHT_F32 ? LC_BF16 : LC_F32;
}

static int put_model(const lc_params *p, bool bf16, lc_safetensors_file *file, uint16_t *narrow,
                     lc_err *err) {
    const lc_kernels *k = lc_kernels_of(LC_ISA_SCALAR);
    int status = LC_OK;
    for (size_t i = 0; i < p->count && status == LC_OK; i++) {
        const lc_param *x = &p->list[i];
        const float *values = lc_param_values(p, x);
        bool half = type_of(x, bf16) == LC_BF16;
        if (half) k->narrow_bf16(x->count, values, narrow);
        status = half ? lc_safetensors_put(file, i, 0, narrow, x->count * sizeof *narrow, err)
                      : lc_safetensors_put(file, i, 0, values, x->count * sizeof *values, err);
    }
    return status;
}

int lc_checkpoint_put_model(const char *path, const lc_params *p, bool bf16, lc_err *err) {
    lc_safetensors_file *file = NULL;
    lc_tensor *list = lc_calloc(p->count, sizeof *list);
    size_t most = 1;
    for (size_t i = 0; i < p->count; i++)
        if (p->list[i].count > most) most = p->list[i].count;
    uint16_t *narrow = lc_alloc(most * sizeof *narrow);
    int status = list && narrow ? LC_OK : lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < p->count && status == LC_OK; i++)
        shape_of(&p->list[i], type_of(&p->list[i], bf16), p->list[i].name, &list[i]);
    if (status == LC_OK) status = lc_safetensors_create(path, list, p->count, &file, err);
    if (status == LC_OK) status = put_model(p, bf16, file, narrow, err);
    if (file && status == LC_OK) {
        status = lc_safetensors_commit(file, err);
        file = NULL;
    }
    if (file) lc_safetensors_discard(file);
    lc_free(narrow);
    lc_free(list);
    return status;
}

/* ---- state ---- */

enum { KINDS = 3 };

static float *block_of(const lc_optim *o, int kind) {
    return kind == 0 ? o->params->values : kind == 1 ? o->first : o->second;
}

/* Whether a tensor has that kind of state. */
static bool has(const lc_optim *o, const lc_param *p, int kind) {
    if (kind == 0) return true;
    return p->gradient && (kind == 1 || !lc_optim_by_muon(o, p));
}

/* Calls visit(ctx, name, param, values) for everything that is kept. */
typedef int state_visit(void *ctx, const char *name, const lc_param *p, float *values);

static int each_state(const lc_optim *o, state_visit *visit, void *ctx) {
    static const char *const prefix[KINDS] = {"value", "first", "second"};
    lc_buf name = {0};
    int status = LC_OK;
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < o->params->count && status == LC_OK; i++) {
            const lc_param *p = &o->params->list[i];
            if (!has(o, p, kind)) continue;
            lc_buf_clear(&name);
            lc_buf_printf(&name, "%s.%s", prefix[kind], p->name);
            status =
                name.failed ? LC_ENOMEM : visit(ctx, name.data, p, block_of(o, kind) + p->offset);
        }
    lc_buf_free(&name);
    return status;
}

typedef struct saver {
    lc_tensor *list;
    size_t count;
    lc_arena *names;
    lc_safetensors_file *file;
    size_t put;
    lc_err *err;
} saver;

static int list_state(void *ctx, const char *name, const lc_param *p, float *values) {
    saver *s = ctx;
    (void)values;
    char *kept = lc_arena_strndup(s->names, name, strlen(name));
    if (!kept) return LC_ENOMEM;
    shape_of(p, LC_F32, kept, &s->list[s->count++]);
    return LC_OK;
}

static int put_state(void *ctx, const char *name, const lc_param *p, float *values) {
    saver *s = ctx;
    (void)name;
    return lc_safetensors_put(s->file, s->put++, 0, values, p->count * sizeof *values, s->err);
}

int lc_checkpoint_put_state(const char *path, const lc_optim *o, lc_err *err) {
    saver s = {.names = lc_arena_new(0), .err = err};
    s.list = lc_calloc(KINDS * o->params->count, sizeof *s.list);
    int status = s.names && s.list ? each_state(o, list_state, &s) : LC_ENOMEM;
    if (status != LC_OK) lc_fail(err, status, "%s: out of memory", path);
    if (status == LC_OK) status = lc_safetensors_create(path, s.list, s.count, &s.file, err);
    if (status == LC_OK) status = each_state(o, put_state, &s);
    if (status == LC_OK) {
        status = lc_safetensors_commit(s.file, err);
        s.file = NULL;
    }
    if (s.file) lc_safetensors_discard(s.file);
    if (s.names) lc_arena_free(s.names);
    lc_free(s.list);
    return status;
}

typedef struct loader {
    const lc_tensors *tensors;
    const char *path;
    lc_err *err;
} loader;

static int get_state(void *ctx, const char *name, const lc_param *p, float *values) {
    const loader *l = ctx;
    const lc_tensor *t = lc_tensors_find(l->tensors, name);
    if (!t) return lc_fail(l->err, LC_EFORMAT, "%s: no tensor %s", l->path, name);
    if (t->dtype != LC_F32 || t->count != p->count)
        return lc_fail(l->err, LC_EFORMAT, "%s: %s must be %zu F32 values", l->path, name,
                       p->count);
    memcpy(values, t->data, t->size);
    return LC_OK;
}

int lc_checkpoint_get_state(const char *path, lc_optim *o, lc_err *err) {
    lc_tensors *tensors = NULL;
    int status = lc_tensors_open(path, &tensors, err);
    if (status != LC_OK) return status;
    loader l = {tensors, path, err};
    status = each_state(o, get_state, &l);
    if (status == LC_ENOMEM) lc_fail(err, status, "%s: out of memory", path);
    lc_tensors_close(tensors);
    return status;
}
