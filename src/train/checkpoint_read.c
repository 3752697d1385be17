/* checkpoint_read.c: finding, checking and reading checkpoints; see checkpoint.h. */
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "format/safetensors.h"
#include "train/checkpoint_internal.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MANIFEST_MOST = 1 << 20 };

/* ---- folders ---- */

static int by_number(const void *a, const void *b) {
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static bool step_of(const char *name, int64_t *out) {
    char again[LC_STEP_NAME];
    long long step;
    if (sscanf(name, "step-%lld", &step) != 1 || step < 0) return false;
    *out = step;
    return !strcmp(lc_step_name(step, again), name);
}

int lc_checkpoint_list(const char *run, int64_t **steps, size_t *count, lc_err *err) {
    int64_t step;
    size_t room = 0;
    int status = LC_OK;
    *steps = NULL;
    *count = 0;
    DIR *dir = opendir(run);
    if (!dir) return errno == ENOENT ? LC_OK : lc_fail_errno(err, LC_EIO, "%s", run);
    for (const struct dirent *e; status == LC_OK && (e = readdir(dir));) {
        if (!step_of(e->d_name, &step)) continue;
        if (*count == room) {
            room = room ? 2 * room : 64;
            int64_t *more = lc_realloc(*steps, room, sizeof *more);
            if (!more)
                status = lc_fail(err, LC_ENOMEM, "%s: out of memory", run);
            else
                *steps = more;
        }
        if (status == LC_OK) (*steps)[(*count)++] = step;
    }
    closedir(dir);
    if (*count) qsort(*steps, *count, sizeof **steps, by_number);
    return status;
}

/* ---- the manifest ---- */

static bool get_count(struct json_object *json, const char *key, int64_t *out) {
    struct json_object *value;
    if (!json_object_object_get_ex(json, key, &value) || !json_object_is_type(value, json_type_int))
        return false;
    *out = json_object_get_int64(value);
    return *out >= 0;
}

static bool get_number(struct json_object *json, const char *key, double *out) {
    struct json_object *value;
    if (!json_object_object_get_ex(json, key, &value) ||
        (!json_object_is_type(value, json_type_double) &&
         !json_object_is_type(value, json_type_int)))
        return false;
    *out = json_object_get_double(value);
    return isfinite(*out);
}

static const char *get_text(struct json_object *json, const char *key) {
    struct json_object *value;
    return json_object_object_get_ex(json, key, &value) &&
                   json_object_is_type(value, json_type_string)
               ? json_object_get_string(value)
               : NULL;
}

/* The manifest's own hash, its last entry. */
static bool is_whole(const lc_buf *text) {
    static const char mark[] = LC_MANIFEST_CHECK;
    const size_t tail = sizeof mark - 1 + 32 + 3; /* mark, hash, "}\n */
    char hex[65];
    if (text->len < tail) return false;
    const char *at = text->data + text->len - tail;
    lc_hash *hash = strncmp(at, mark, sizeof mark - 1) ? NULL : lc_hash_new(LC_HASH_XXH128);
    if (!hash) return false;
    lc_hash_update(hash, text->data, (size_t)(at - text->data));
    lc_hash_finish(hash, hex);
    return *hex && !strncmp(at + sizeof mark - 1, hex, 32);
}

static bool read_position(struct json_object *json, lc_position *p) {
    const char *format = get_text(json, "format"), *data = get_text(json, "data"),
               *recipe = get_text(json, "recipe");
    int64_t version;
    *p = (lc_position){0};
    if (!format || strcmp(format, LC_MANIFEST_FORMAT) || !get_count(json, "version", &version) ||
        version != LC_MANIFEST_VERSION || !data || !recipe || strlen(recipe) >= sizeof p->recipe)
        return false;
    p->data = strtoull(data, NULL, 16);
    snprintf(p->recipe, sizeof p->recipe, "%s", recipe);
    return get_count(json, "step", &p->step) && get_count(json, "stage", &p->stage) &&
           get_count(json, "stage_step", &p->stage_step) && get_count(json, "tokens", &p->tokens) &&
           get_number(json, "loss", &p->loss) && get_number(json, "seconds", &p->seconds);
}

int lc_manifest_read(const char *folder, lc_position *out, struct json_object **files,
                     lc_err *err) {
    lc_buf path = {0}, text = {0};
    struct json_object *json = NULL, *list;
    *files = NULL;
    if (!lc_buf_printf(&path, "%s/" LC_MANIFEST_NAME, folder))
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
    int status = lc_file_read(path.data, MANIFEST_MOST, &text, err);
    if (status == LC_OK && !is_whole(&text))
        status = lc_fail(err, LC_EFORMAT, "%s: damaged: its hash differs", path.data);
    if (status == LC_OK) status = lc_json_parse(text.data, text.len, path.data, &json, err);
    if (status == LC_OK &&
        (!json_object_is_type(json, json_type_object) || !read_position(json, out) ||
         !json_object_object_get_ex(json, "files", &list) ||
         !json_object_is_type(list, json_type_array)))
        status = lc_fail(err, LC_EFORMAT, "%s: not a checkpoint's manifest", path.data);
    if (status == LC_OK) *files = json_object_get(list);
    json_object_put(json);
    lc_buf_free(&text);
    lc_buf_free(&path);
    return status;
}

static int verify_file(const char *folder, struct json_object *entry, lc_err *err) {
    const char *name = get_text(entry, "name"), *want = get_text(entry, "xxh3");
    int64_t size;
    uint64_t bytes;
    char hex[65];
    lc_buf path = {0};
    if (!name || strchr(name, '/') || !want || !get_count(entry, "bytes", &size))
        return lc_fail(err, LC_EFORMAT, "%s: manifest: an entry of files is malformed", folder);
    if (!lc_buf_printf(&path, "%s/%s", folder, name))
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
    int status = lc_file_hash(path.data, &bytes, hex, err);
    if (status == LC_OK && bytes != (uint64_t)size)
        status = lc_fail(err, LC_EFORMAT, "%s: %llu bytes, %lld were written", path.data,
                         (unsigned long long)bytes, (long long)size);
    else if (status == LC_OK && strcmp(hex, want))
        status = lc_fail(err, LC_EFORMAT, "%s: damaged: its hash differs", path.data);
    lc_buf_free(&path);
    return status;
}

int lc_checkpoint_verify(const char *path, lc_position *position, lc_err *err) {
    struct json_object *files;
    int status = lc_manifest_read(path, position, &files, err);
    for (size_t i = 0; status == LC_OK && i < json_object_array_length(files); i++)
        status = verify_file(path, json_object_array_get_idx(files, i), err);
    json_object_put(files);
    return status;
}

/* A folder without a manifest was never finished: not worth a word. */
static bool has_manifest(const char *folder) {
    lc_buf path = {0};
    FILE *file =
        lc_buf_printf(&path, "%s/" LC_MANIFEST_NAME, folder) ? fopen(path.data, "re") : NULL;
    lc_buf_free(&path);
    if (file) fclose(file);
    return file != NULL;
}

int lc_checkpoint_find(const char *run, lc_checkpoint_found *out, lc_err *err) {
    int64_t *steps = NULL;
    size_t n = 0;
    lc_err why = {0};
    *out = (lc_checkpoint_found){0};
    int status = lc_checkpoint_list(run, &steps, &n, err);
    while (status == LC_OK && n-- > 0) {
        lc_buf path = {0};
        char name[LC_STEP_NAME];
        if (!lc_buf_printf(&path, "%s/%s", run, lc_step_name(steps[n], name))) {
            status = lc_fail(err, LC_ENOMEM, "%s: out of memory", run);
        } else if (has_manifest(path.data)) {
            int bad = lc_checkpoint_verify(path.data, &out->position, &why);
            if (bad == LC_OK) {
                out->path = path.data;
                break;
            }
            if (bad == LC_ENOMEM) {
                status = bad;
                if (err) *err = why;
            }
            out->damaged++;
            lc_log(LC_LOG_ERROR, "%s is damaged and left out, the one before it is used: %s",
                   path.data, why.text);
        }
        lc_buf_free(&path);
    }
    lc_free(steps);
    if (status == LC_OK && !out->path && out->damaged)
        status = lc_fail(err, LC_EFORMAT, "%s: all %zu checkpoints are damaged; the last: %s", run,
                         out->damaged, why.text);
    return status;
}

/* ---- the state ---- */

/* Fills a tensor's place in a block; `missing` as status if it isn't there. */
static int take(const lc_tensors *tensors, const char *kind, const lc_param *p, float *block,
                int missing, lc_err *err) {
    char name[256];
    snprintf(name, sizeof name, "%s.%s", kind, p->name);
    const lc_tensor *t = lc_tensors_find(tensors, name);
    if (!t) return missing == LC_OK ? LC_OK : lc_fail(err, missing, LC_STATE_NAME ": no %s", name);
    if (t->dtype != LC_F32 || t->count != p->count)
        return lc_fail(err, LC_EFORMAT, LC_STATE_NAME ": %s has another shape or type", name);
    memcpy(block + p->offset, t->data, p->count * sizeof(float));
    return LC_OK;
}

static int open_file(const char *folder, const char *name, lc_tensors **out, lc_err *err) {
    lc_buf path = {0};
    *out = NULL;
    int status = lc_buf_printf(&path, "%s/%s", folder, name)
                     ? lc_tensors_open(path.data, out, err)
                     : lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
    lc_buf_free(&path);
    return status;
}

int lc_checkpoint_params(const char *path, const lc_config *config, lc_params **out, lc_err *err) {
    lc_tensors *model = NULL, *state = NULL;
    *out = NULL;
    int status = open_file(path, LC_MODEL_NAME, &model, err);
    if (status == LC_OK) status = open_file(path, LC_STATE_NAME, &state, err);
    if (status == LC_OK) status = lc_params_load(config, model, out, err);
    for (size_t i = 0; status == LC_OK && i < (*out)->count; i++)
        status = take(state, "master", &(*out)->list[i], (*out)->values, LC_EFORMAT, err);
    if (status != LC_OK) {
        lc_params_free(*out);
        *out = NULL;
    }
    lc_tensors_close(model);
    lc_tensors_close(state);
    return status;
}

int lc_checkpoint_load(const char *path, int64_t *load, size_t count, lc_err *err) {
    lc_tensors *state = NULL;
    int status = open_file(path, LC_STATE_NAME, &state, err);
    const lc_tensor *t = status == LC_OK ? lc_tensors_find(state, LC_LOAD_NAME) : NULL;
    if (t && (t->dtype != LC_I64 || t->count != count))
        status =
            lc_fail(err, LC_EFORMAT, LC_STATE_NAME ": %s has another shape or type", LC_LOAD_NAME);
    else if (t)
        memcpy(load, t->data, count * sizeof *load);
    lc_tensors_close(state);
    return status;
}

int lc_checkpoint_optim(const char *path, const lc_params *params, lc_optim *optim, lc_err *err) {
    lc_optim_state s = lc_optim_state_of(optim);
    lc_tensors *state = NULL;
    int status = open_file(path, LC_STATE_NAME, &state, err);
    for (size_t i = 0; status == LC_OK && i < params->count; i++) {
        const lc_param *p = &params->list[i];
        status = take(state, "first", p, s.first, LC_EFORMAT, err);
        if (status == LC_OK && !lc_optim_is_muon(optim, p))
            status = take(state, "second", p, s.second, LC_EFORMAT, err);
        if (status == LC_OK && s.average) status = take(state, "average", p, s.average, LC_OK, err);
    }
    const lc_tensor *steps = status == LC_OK ? lc_tensors_find(state, "updates") : NULL;
    if (status == LC_OK && (!steps || steps->dtype != LC_I64 || steps->count != params->count))
        status = lc_fail(err, LC_EFORMAT, LC_STATE_NAME ": no counts of updates");
    if (status == LC_OK) memcpy(s.steps, steps->data, params->count * sizeof *s.steps);
    lc_tensors_close(state);
    return status;
}

/* ---- the model's config ---- */

static void drop_type(struct json_object *config) {
    if (!json_object_is_type(config, json_type_object)) return;
    json_object_object_del(config, "dtype");
    json_object_object_del(config, "torch_dtype");
}

int lc_checkpoint_same_model(const char *path, const lc_buf *config, bool *same, lc_err *err) {
    struct json_object *then = NULL, *now = NULL;
    lc_buf name = {0};
    int status = lc_buf_printf(&name, "%s/config.json", path)
                     ? lc_json_load(name.data, 0, &then, err)
                     : lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    if (status == LC_OK)
        status = lc_json_parse(config->data, config->len, "config.json", &now, err);
    drop_type(then);
    drop_type(now);
    *same = json_object_equal(then, now);
    json_object_put(then);
    json_object_put(now);
    lc_buf_free(&name);
    return status;
}
