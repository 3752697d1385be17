/* start.c: the first weights of a run and the files beside them; see start.h. */
#include "train/start.h"

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_MOST = 64 << 20 };

/* ---- files ---- */

static bool is_folder(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static int add_file(lc_beside *b, const char *path, const char *name, bool needed, lc_err *err) {
    struct stat st;
    if (!needed && stat(path, &st)) return LC_OK;
    if (b->count == LC_BESIDE_MAX) return lc_fail(err, LC_ELIMIT, "%s: too many files", path);
    b->files[b->count].name = name;
    return lc_file_read(path, FILE_MOST, &b->files[b->count++].data, err);
}

static int add_tokenizer(const lc_recipe *r, lc_beside *b, lc_err *err) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "chat_template.jinja",
                                        "generation_config.json"};
    const char *from = r->tokenizer ? r->tokenizer : r->from;
    if (!from) return LC_OK;
    if (!is_folder(from)) return add_file(b, from, names[0], true, err);
    int status = LC_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && status == LC_OK; i++) {
        lc_buf path = {0};
        if (!lc_buf_printf(&path, "%s/%s", from, names[i]))
            status = lc_fail(err, LC_ENOMEM, "%s: out of memory", from);
        else
            status = add_file(b, path.data, names[i], i == 0 && r->tokenizer != NULL, err);
        lc_buf_free(&path);
    }
    return status;
}

static void multiply_key(struct json_object *json, const char *key, int64_t by) {
    struct json_object *value;
    if (json_object_object_get_ex(json, key, &value) && value)
        json_object_object_add(json, key, json_object_new_int64(json_object_get_int64(value) * by));
}

/* config.json of the run: layers multiplied by `grow`, the stored type, no quantisation. */
static int make_config(const lc_recipe *r, const char *path, lc_buf *out, lc_err *err) {
    struct json_object *json, *old;
    const char *type = r->store_f32 ? "float32" : "bfloat16";
    int status = lc_json_load(path, FILE_MOST, &json, err);
    if (status != LC_OK) return status;
    if (!json_object_is_type(json, json_type_object)) {
        json_object_put(json);
        return lc_fail(err, LC_EFORMAT, "%s: not a JSON object", path);
    }
    if (r->grow > 1) {
        multiply_key(json, "num_layers", r->grow);
        multiply_key(json, "num_hidden_layers", r->grow);
    }
    json_object_object_del(json, "quantization_config");
    json_object_object_del(json, "quantization");
    bool newer = json_object_object_get_ex(json, "dtype", &old);
    json_object_object_add(json, newer ? "dtype" : "torch_dtype", json_object_new_string(type));
    const char *text = json_object_to_json_string_ext(json, JSON_C_TO_STRING_PRETTY |
                                                                JSON_C_TO_STRING_NOSLASHESCAPE);
    if (!text || !lc_buf_puts(out, text) || !lc_buf_putc(out, '\n'))
        status = lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    json_object_put(json);
    return status;
}

int lc_beside_load(const lc_recipe *r, lc_config *config, lc_beside *out, lc_err *err) {
    const char *from = r->config ? r->config : r->from;
    lc_buf path = {0};
    *out = (lc_beside){.count = 1, .files[0].name = "config.json"};
    lc_buf_printf(&path, is_folder(from) ? "%s/config.json" : "%s", from);
    int status = path.failed ? lc_fail(err, LC_ENOMEM, "%s: out of memory", from)
                             : make_config(r, path.data, &out->files[0].data, err);
    if (status == LC_OK)
        status = lc_config_parse(out->files[0].data.data, out->files[0].data.len, path.data, config,
                                 err);
    if (status == LC_OK) status = add_tokenizer(r, out, err);
    lc_buf_free(&path);
    if (status != LC_OK) lc_beside_free(out);
    return status;
}

void lc_beside_free(lc_beside *b) {
    for (size_t i = 0; i < b->count; i++) lc_buf_free(&b->files[i].data);
    *b = (lc_beside){0};
}

const lc_buf *lc_beside_find(const lc_beside *b, const char *name) {
    for (size_t i = 0; i < b->count; i++)
        if (!strcmp(b->files[i].name, name)) return &b->files[i].data;
    return NULL;
}

/* ---- weights ---- */

/* The name in a model of `layers` layers that the tensor of a grown one comes from. */
static void source_name(const char *name, size_t layers, char out[256]) {
    size_t layer;
    int end = 0;
    if (sscanf(name, "model.layers.%zu.%n", &layer, &end) == 1 && end)
        snprintf(out, 256, "model.layers.%zu.%s", layer % layers, name + end);
    else
        snprintf(out, 256, "%s", name);
}

static int take_values(lc_params *to, const lc_params *from, const char *path, size_t *anew,
                       lc_err *err) {
    for (size_t i = 0; i < to->count; i++) {
        const lc_param *p = &to->list[i];
        char name[256];
        source_name(p->name, from->config.layers, name);
        const lc_param *q = lc_params_find(from, name);
        if (q && (q->rows != p->rows || q->cols != p->cols))
            return lc_fail(err, LC_EFORMAT,
                           "%s: %s is %zu x %zu there; the run's config wants "
                           "%zu x %zu",
                           path, name, q->rows, q->cols, p->rows, p->cols);
        if (q)
            memcpy(lc_param_values(to, p), lc_param_values(from, q), p->count * sizeof(float));
        else
            ++*anew;
    }
    return LC_OK;
}

static int take_from(const lc_recipe *r, lc_params *params, size_t *anew, lc_err *err) {
    lc_config *config = lc_calloc(1, sizeof *config);
    lc_tensors *tensors = NULL;
    lc_params *from = NULL;
    if (!config) return lc_fail(err, LC_ENOMEM, "%s: out of memory", r->from);
    int status = lc_config_load(r->from, config, err);
    if (status == LC_OK) status = lc_tensors_open(r->from, &tensors, err);
    if (status == LC_OK) {
        lc_tensors_set_quant(tensors, &config->quant);
        status = lc_params_load(config, tensors, &from, err);
    }
    if (status == LC_OK && params->config.layers % config->layers)
        status = lc_fail(err, LC_EFORMAT, "%s: %zu layers; the run's config wants %zu", r->from,
                         config->layers, params->config.layers);
    if (status == LC_OK) status = take_values(params, from, r->from, anew, err);
    lc_params_free(from);
    lc_tensors_close(tensors);
    lc_free(config);
    return status;
}

int lc_start_params(const lc_recipe *r, const lc_config *config, lc_params **out, size_t *anew,
                    lc_err *err) {
    lc_params_init init = {.seed = (uint64_t)r->seed,
                           .std = r->std,
                           .embedding = r->embedding_std,
                           .ngram = r->ngram_std,
                           .width_scale =
                               r->base_width ? (double)config->hidden / (double)r->base_width : 0};
    *anew = 0;
    int status = lc_params_new(config, &init, out, err);
    if (status == LC_OK && r->from) status = take_from(r, *out, anew, err);
    if (status != LC_OK) {
        lc_params_free(*out);
        *out = NULL;
    }
    return status;
}
