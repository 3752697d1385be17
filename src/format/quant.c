/*
 * quant.c: the quantisation entry of a config.json. Which weight is stored how is told by the
 * tensors; here stand the group sizes, one detail of GPTQ's zero points, and what is refused.
 */
#include "format/quant.h"

#include "base/err.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>

enum { MAX_SIZE = 1 << 20 };

typedef struct reading {
    const char *name; /* of the file */
    lc_quant *out;
    lc_err *err;
} reading;

static struct json_object *get(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    return json_object_object_get_ex(object, key, &value) ? value : NULL;
}

static const char *text_at(struct json_object *object, const char *key) {
    struct json_object *value = get(object, key);
    return json_object_get_type(value) == json_type_string ? json_object_get_string(value) : "";
}

static int unsupported(const reading *r, const char *key, const char *value, const char *known) {
    return lc_fail(r->err, LC_EUNSUPPORTED, "%s: quantization: %s is \"%.40s\"; supported: %s",
                   r->name, key, value, known);
}

static int wrong(const reading *r, const char *key, const char *must) {
    return lc_fail(r->err, LC_EFORMAT, "%s: %s must be %s", r->name, key, must);
}

/* -1 means one group a row and adds nothing. */
static int add_size(const reading *r, struct json_object *holder) {
    struct json_object *value = get(holder, "group_size");
    lc_quant *q = r->out;
    if (!value) return LC_OK;
    int64_t size = json_object_get_type(value) == json_type_int ? json_object_get_int64(value) : 0;
    if (size == -1) return LC_OK;
    if (size < 1 || size > MAX_SIZE)
        return wrong(r, "quantization: group_size", "-1 or a whole number from 1 to 1048576");
    for (size_t i = 0; i < q->n_sizes; i++)
        if (q->sizes[i] == (size_t)size) return LC_OK;
    if (q->n_sizes == LC_QUANT_SIZES)
        return lc_fail(r->err, LC_ELIMIT, "%s: quantization: more than %d group sizes", r->name,
                       LC_QUANT_SIZES);
    q->sizes[q->n_sizes++] = (size_t)size;
    return LC_OK;
}

/* ---- compressed-tensors ---- */

static int check_format(const reading *r, const char *format) {
    static const char *const known[] = {"pack-quantized", "int-quantized", "dense",
                                        "mixed-precision", "naive-quantized"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!*format || !strcmp(format, known[i])) return LC_OK;
    return unsupported(r, "format", format, "pack-quantized, int-quantized");
}

/* An empty object or list counts as absent. */
static bool is_set(struct json_object *value) {
    if (json_object_get_type(value) == json_type_object) return json_object_object_length(value);
    if (json_object_get_type(value) == json_type_array) return json_object_array_length(value);
    return value != NULL;
}

static int read_compressed(const reading *r, struct json_object *q) {
    struct json_object *groups = get(q, "config_groups"), *sparsity = get(q, "sparsity_config");
    int status = check_format(r, text_at(q, "format"));
    if (status == LC_OK && is_set(get(q, "transform_config")))
        status = unsupported(r, "transform_config", "set", "none");
    const char *sparse = text_at(sparsity, "format");
    if (status == LC_OK && *sparse && strcmp(sparse, "dense"))
        status = unsupported(r, "sparsity_config.format", sparse, "dense");
    if (status != LC_OK || !groups) return status;
    if (json_object_get_type(groups) != json_type_object)
        return wrong(r, "quantization_config.config_groups", "an object");
    json_object_object_foreach(groups, key, group) {
        struct json_object *weights = get(group, "weights");
        (void)key;
        status = check_format(r, text_at(group, "format"));
        if (status == LC_OK) status = add_size(r, weights);
        if (status != LC_OK) return status;
    }
    return LC_OK;
}

/* ---- GPTQ and AutoRound ---- */

static int read_gptq(const reading *r, struct json_object *q) {
    static const char *const keys[] = {"checkpoint_format", "format"};
    for (size_t i = 0; i < 2; i++) {
        const char *format = text_at(q, keys[i]);
        if (!strcmp(format, "gptq_v2"))
            r->out->zeros_as_stored = true;
        else if (*format && strcmp(format, "gptq"))
            return unsupported(r, keys[i], format, "gptq, gptq_v2");
    }
    return add_size(r, q);
}

/* Packing "auto_round:auto_gptq" is GPTQ's own; the others keep zero points as they are. Layers
 * with other bits or groups stand in extra_config. */
static int read_auto_round(const reading *r, struct json_object *q) {
    const char *packing = text_at(q, "packing_format");
    if (!*packing) packing = text_at(q, "backend");
    static const char *const raw[] = {"auto_round", "auto_round:gptqmodel",
                                      "auto_round:auto_round"};
    bool known = !*packing || !strcmp(packing, "auto_round:auto_gptq");
    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++)
        if (!strcmp(packing, raw[i])) r->out->zeros_as_stored = known = true;
    if (!known)
        return unsupported(r, "packing_format", packing, "auto_round, auto_round:auto_gptq");
    struct json_object *extra = get(q, "extra_config");
    int status = add_size(r, q);
    if (json_object_get_type(extra) != json_type_object) return status;
    json_object_object_foreach(extra, key, layer) {
        (void)key;
        if (status == LC_OK && json_object_get_type(layer) == json_type_object)
            status = add_size(r, layer);
    }
    return status;
}

/* ---- MLX ---- */

static int check_mode(const reading *r, struct json_object *q) {
    const char *mode = text_at(q, "mode");
    if (*mode && strcmp(mode, "affine")) return unsupported(r, "mode", mode, "affine");
    return add_size(r, q);
}

/* {"group_size": 64, "bits": 4, "model.layers.0...": false or {...}} */
static int read_mlx(const reading *r, struct json_object *q) {
    int status = check_mode(r, q);
    json_object_object_foreach(q, key, layer) {
        (void)key;
        if (status == LC_OK && json_object_get_type(layer) == json_type_object)
            status = check_mode(r, layer);
    }
    return status;
}

/* ---- FP8 ---- */

/* Scales are read as 128x128 blocks; which weights are FP8 is decided by the tensors. */
static int read_blocks(const reading *r, struct json_object *q) {
    struct json_object *block = get(q, "weight_block_size");
    if (!block) return LC_OK;
    bool ok = json_object_get_type(block) == json_type_array &&
              json_object_array_length(block) == 2 &&
              json_object_get_int64(json_object_array_get_idx(block, 0)) == 128 &&
              json_object_get_int64(json_object_array_get_idx(block, 1)) == 128;
    return ok ? LC_OK : wrong(r, "weight_block_size", "[128, 128]");
}

static int read_method(const reading *r, struct json_object *q, const char *method) {
    if (!strcmp(method, "compressed-tensors")) return read_compressed(r, q);
    if (!strcmp(method, "gptq")) return read_gptq(r, q);
    if (!strcmp(method, "auto-round") || !strcmp(method, "intel/auto-round"))
        return read_auto_round(r, q);
    if (!strcmp(method, "fp8")) return LC_OK;
    return unsupported(r, "quant_method", method,
                       "compressed-tensors, gptq, auto-round, fp8, " LC_QUANT_STRIPS);
}

static bool is_strips(struct json_object *q) {
    return !strcmp(text_at(q, "quant_method"), LC_QUANT_STRIPS);
}

/* What a model was before `longcat pack`: MLX's entry has no method. */
static int find_source(const reading *r, struct json_object **q) {
    struct json_object *source = get(*q, "source");
    r->out->strips = true;
    if (source && json_object_get_type(source) != json_type_object)
        return wrong(r, "quantization_config.source", "an object");
    if (is_strips(source))
        return wrong(r, "quantization_config.source", "of another method than " LC_QUANT_STRIPS);
    *q = source;
    return LC_OK;
}

int lc_quant_read(struct json_object *root, const char *name, lc_quant *out, lc_err *err) {
    reading r = {name, out, err};
    *out = (lc_quant){0};
    struct json_object *mlx = get(root, "quantization"), *q = get(root, "quantization_config");
    if (mlx && json_object_get_type(mlx) != json_type_object)
        return wrong(&r, "quantization", "an object");
    if (q && json_object_get_type(q) != json_type_object)
        return wrong(&r, "quantization_config", "an object");
    if (!mlx && is_strips(q) && find_source(&r, &q) != LC_OK) return LC_EFORMAT;
    const char *method = text_at(q, "quant_method");
    if (!mlx && q && !*method && get(q, "bits")) mlx = q;
    if (mlx) method = "mlx";
    snprintf(out->method, sizeof out->method, "%s", method);
    if (mlx) return read_mlx(&r, mlx);
    if (!q) return LC_OK;
    int status = read_blocks(&r, q);
    return status == LC_OK && *method ? read_method(&r, q, method) : status;
}

size_t lc_quant_group(const lc_quant *q, size_t cols, size_t count) {
    size_t found = 0;
    if (!count || count > cols) return 0;
    if (count == 1) return cols;
    for (size_t i = 0; q && i < q->n_sizes; i++) {
        size_t size = q->sizes[i];
        if ((cols - 1) / size + 1 != count) continue;
        if (found && cols % size && cols % found == 0) continue; /* the even one is meant */
        if (found && !(cols % found && cols % size == 0)) return 0;
        found = size;
    }
    if (!found && cols % count == 0) found = cols / count;
    return found;
}
