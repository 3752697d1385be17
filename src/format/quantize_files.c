/*
 * quantize_files.c: what lies beside the shards: the state of an unfinished run, the index, the
 * config with its quantization_config, and copies of the source folder's small files.
 */
#include "format/quantize_internal.h"

#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_COPY = 1 << 30, MAX_STATE = 4 << 20, PIECE = 1 << 20, LAYOUT_VERSION = 3 };

#define STATE_NAME "quantize.state"

static int no_memory(lc_err *err) { return lc_fail(err, LC_ENOMEM, "quantize: out of memory"); }

/* ---- writing ---- */

static int write_file(const char *out, const char *name, const void *data, size_t size,
                      lc_err *err) {
    lc_buf path = {0};
    int status = lc_buf_printf(&path, "%s/%s", out, name)
                     ? lc_file_write(path.data, data, size, err)
                     : no_memory(err);
    lc_buf_free(&path);
    return status;
}

static int write_json(const char *out, const char *name, struct json_object *json, lc_err *err) {
    const char *text = json ? json_object_to_json_string_ext(
                                  json, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE)
                            : NULL;
    return text ? write_file(out, name, text, strlen(text), err) : no_memory(err);
}

/* ---- the state of a run ---- */

int lc_quantize_settings(const lc_quantize_plan *plan, char hex[65], lc_err *err) {
    const lc_quantize_options *o = plan->options;
    lc_hash *h = lc_hash_new(LC_HASH_XXH128);
    lc_buf text = {0};
    struct stat st;
    const char *file = "";
    const lc_quant *q = &plan->config->quant;
    lc_buf_printf(&text, "%d %d %zu %d %d %d %zu %d\n", LAYOUT_VERSION, (int)o->type, o->group,
                  o->embeddings, o->head, o->mtp, o->shard_bytes, o->strips);
    lc_buf_printf(&text, "%d", q->zeros_as_stored);
    for (size_t i = 0; i < q->n_sizes; i++) lc_buf_printf(&text, " %zu", q->sizes[i]);
    lc_buf_printf(&text, "\n");
    for (size_t i = 0; i < lc_tensors_count(plan->tensors); i++) {
        const lc_tensor *t = lc_tensors_at(plan->tensors, i);
        lc_buf_printf(&text, "%s %s %zu %d\n", t->name, t->dtype_name, t->size, t->rank);
        for (int d = 0; d < t->rank; d++) lc_buf_printf(&text, "%zu ", t->shape[d]);
        if (t->file != file && !stat(file = t->file, &st)) /* changes of the source */
            lc_buf_printf(&text, "%lld %lld.%ld\n", (long long)st.st_size,
                          (long long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec);
    }
    bool ok = h && !text.failed;
    if (ok) lc_hash_update(h, text.data, text.len);
    if (h) lc_hash_finish(h, hex);
    lc_buf_free(&text);
    return ok && *hex ? LC_OK : no_memory(err);
}

int lc_quantize_hash_file(const char *path, char hex[65], lc_err *err) {
    unsigned char *piece = lc_alloc(PIECE);
    lc_hash *h = lc_hash_new(LC_HASH_XXH128);
    int fd = open(path, O_RDONLY | O_CLOEXEC), status = LC_OK;
    if (!piece || !h)
        status = no_memory(err);
    else if (fd < 0)
        status = lc_fail_errno(err, errno == ENOENT ? LC_ENOTFOUND : LC_EIO, "%s", path);
    while (status == LC_OK) {
        ssize_t n = read(fd, piece, PIECE);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = lc_fail_errno(err, LC_EIO, "%s: read failed", path);
        if (n <= 0) break;
        lc_hash_update(h, piece, (size_t)n);
    }
    if (fd >= 0) close(fd);
    if (h) lc_hash_finish(h, hex);
    lc_free(piece);
    return status;
}

static bool is_hex(const char *text) {
    size_t n = strspn(text, "0123456789abcdef");
    return n == 32 && !text[n];
}

static const char *text_of(struct json_object *holder, const char *key) {
    struct json_object *value = NULL;
    json_object_object_get_ex(holder, key, &value);
    const char *text =
        json_object_get_type(value) == json_type_string ? json_object_get_string(value) : "";
    return is_hex(text) ? text : "";
}

static int read_state(const lc_quantize_plan *plan, const char *path, lc_quantize_state *state,
                      lc_err *err) {
    struct json_object *json = NULL, *shards = NULL;
    int status = lc_json_load(path, MAX_STATE, &json, err);
    if (status != LC_OK) return status;
    if (json_object_get_type(json) != json_type_object)
        status = lc_fail(err, LC_EFORMAT, "%s: not a JSON object", path);
    else if (strcmp(text_of(json, "settings"), state->settings))
        status = lc_fail(err, LC_EINVAL,
                         "%s: the folder was begun from another model or with other options; "
                         "remove it, or write to another one",
                         path);
    if (status == LC_OK) json_object_object_get_ex(json, "shards", &shards);
    if (json_object_get_type(shards) == json_type_object)
        for (size_t i = 0; i < plan->n_shards; i++)
            snprintf(state->hashes[i], sizeof *state->hashes, "%.64s",
                     text_of(shards, plan->shards[i].file));
    json_object_put(json);
    return status;
}

/* Whether the folder holds nothing but what a kill before the first state may leave. */
static bool is_empty(const char *folder) {
    DIR *dir = opendir(folder);
    bool empty = true;
    for (struct dirent *e; dir && empty && (e = readdir(dir));)
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
                !strcmp(e->d_name, STATE_NAME ".part");
    if (dir) closedir(dir);
    return empty;
}

/* File systems without locks do without. */
static int lock_folder(const char *folder, int *lock, lc_err *err) {
    *lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0) return lc_fail_errno(err, LC_EIO, "%s", folder);
    if (flock(*lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return lc_fail(err, LC_EINVAL, "%s: another process is writing here", folder);
    return LC_OK;
}

int lc_quantize_state_load(const lc_quantize_plan *plan, const char *out, lc_quantize_state *state,
                           lc_err *err) {
    lc_buf path = {0};
    struct stat st;
    state->hashes = lc_calloc(plan->n_shards + 1, sizeof *state->hashes);
    state->lock = -1;
    int status = lc_quantize_settings(plan, state->settings, err);
    if (!state->hashes || !lc_buf_printf(&path, "%s/" STATE_NAME, out)) status = no_memory(err);
    if (status == LC_OK) status = lc_make_folders(out, 0755, err);
    if (status == LC_OK) status = lock_folder(out, &state->lock, err);
    if (status == LC_OK && !stat(path.data, &st))
        status = read_state(plan, path.data, state, err);
    else if (status == LC_OK && !is_empty(out))
        status = lc_fail(err, LC_EINVAL, "%s: the folder is not empty", out);
    else if (status ==
             LC_OK) /* a kill before the first shard is done leaves a folder to go on in */
        status = lc_quantize_state_save(plan, out, state, err);
    lc_buf_free(&path);
    return status;
}

int lc_quantize_state_save(const lc_quantize_plan *plan, const char *out,
                           const lc_quantize_state *state, lc_err *err) {
    struct json_object *json = json_object_new_object(), *shards = json_object_new_object();
    json_object_object_add(json, "settings", json_object_new_string(state->settings));
    for (size_t i = 0; i < plan->n_shards; i++)
        if (state->hashes[i][0])
            json_object_object_add(shards, plan->shards[i].file,
                                   json_object_new_string(state->hashes[i]));
    json_object_object_add(json, "shards", shards);
    int status = write_json(out, STATE_NAME, json, err);
    json_object_put(json);
    return status;
}

/* ---- quantization_config ---- */

/* "model.layers.3.mlps.0.up_proj.weight" -> "re:^model\.layers\.\d+\.mlps\.\d+\.up_proj$" */
static bool pattern_of(const char *name, lc_buf *out) {
    size_t len = strlen(name), tail = strlen(".weight");
    if (len > tail && !strcmp(name + len - tail, ".weight")) len -= tail;
    lc_buf_clear(out);
    lc_buf_puts(out, "re:^");
    for (size_t i = 0; i < len; i++) {
        bool starts = i && name[i - 1] == '.' && name[i] >= '0' && name[i] <= '9';
        size_t digits = starts ? strspn(name + i, "0123456789") : 0;
        if (digits && i + digits <= len && (i + digits == len || name[i + digits] == '.')) {
            lc_buf_puts(out, "\\d+");
            i += digits - 1;
        } else {
            if (name[i] == '.') lc_buf_putc(out, '\\');
            lc_buf_putc(out, name[i]);
        }
    }
    return lc_buf_putc(out, '$');
}

static bool add_once(struct json_object *list, const char *text) {
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (!strcmp(json_object_get_string(json_object_array_get_idx(list, i)), text)) return true;
    return !json_object_array_add(list, json_object_new_string(text));
}

static struct json_object *new_scheme(const lc_quantize_item *item) {
    struct json_object *scheme = json_object_new_object(), *weights = json_object_new_object();
    json_object_object_add(weights, "num_bits", json_object_new_int(item->bits));
    json_object_object_add(weights, "type", json_object_new_string("int"));
    json_object_object_add(weights, "symmetric", json_object_new_boolean(true));
    json_object_object_add(weights, "strategy",
                           json_object_new_string(item->group ? "group" : "channel"));
    json_object_object_add(weights, "group_size",
                           item->group ? json_object_new_int64((int64_t)item->group) : NULL);
    json_object_object_add(weights, "dynamic", json_object_new_boolean(false));
    json_object_object_add(
        scheme, "format",
        json_object_new_string(item->bits == 4 ? "pack-quantized" : "int-quantized"));
    json_object_object_add(scheme, "targets", json_object_new_array());
    json_object_object_add(scheme, "weights", weights);
    json_object_object_add(scheme, "input_activations", NULL);
    json_object_object_add(scheme, "output_activations", NULL);
    return scheme;
}

/* A group of settings for each width and group size; names as patterns of its modules. */
static bool add_target(struct json_object *groups, const lc_quantize_item *item, lc_buf *pattern) {
    char key[48];
    struct json_object *scheme = NULL, *targets = NULL;
    if (item->group)
        snprintf(key, sizeof key, "int%d_group_%zu", item->bits, item->group);
    else
        snprintf(key, sizeof key, "int%d_channel", item->bits);
    if (!json_object_object_get_ex(groups, key, &scheme)) {
        scheme = new_scheme(item);
        json_object_object_add(groups, key, scheme);
    }
    return json_object_object_get_ex(scheme, "targets", &targets) &&
           add_once(targets, pattern->data);
}

static struct json_object *new_quantization(const lc_quantize_plan *plan) {
    struct json_object *q = json_object_new_object(), *groups = json_object_new_object(),
                       *ignore = json_object_new_array();
    lc_buf pattern = {0};
    bool ok = q && groups && ignore;
    bool packed = false, bytes = false;
    for (size_t i = 0; i < plan->count && ok; i++) {
        const lc_quantize_item *item = &plan->items[i];
        bool matrix = !item->source || item->source->rank == 2;
        if (!matrix || !(ok = pattern_of(item->name, &pattern))) continue;
        bool kept = item->source || item->moved;
        packed = packed || (!kept && item->bits == 4);
        bytes = bytes || (!kept && item->bits == 8);
        ok = kept ? add_once(ignore, pattern.data) : add_target(groups, item, &pattern);
    }
    lc_buf_free(&pattern);
    json_object_object_add(q, "quant_method", json_object_new_string("compressed-tensors"));
    json_object_object_add(q, "format",
                           json_object_new_string(packed && bytes ? "mixed-precision"
                                                  : packed        ? "pack-quantized"
                                                                  : "int-quantized"));
    json_object_object_add(q, "quantization_status", json_object_new_string("compressed"));
    json_object_object_add(q, "config_groups", groups);
    json_object_object_add(q, "ignore", ignore);
    json_object_object_add(q, "kv_cache_scheme", NULL);
    if (ok) return q;
    json_object_put(q);
    return NULL;
}

/* What a packed model says; the source's entry, if any, tells what else its tensors need. Takes
 * `source`. */
static struct json_object *new_strips(struct json_object *source) {
    struct json_object *q = json_object_new_object();
    json_object_object_add(q, "quant_method", json_object_new_string(LC_QUANT_STRIPS));
    if (source) json_object_object_add(q, "source", source);
    return q;
}

/* The entry of the source's config.json, MLX's first as lc_quant_read does; ours stays one. */
static struct json_object *packed_entry(struct json_object *config) {
    struct json_object *q = NULL, *method = NULL;
    if (!json_object_object_get_ex(config, "quantization", &q) || !q)
        json_object_object_get_ex(config, "quantization_config", &q);
    json_object_object_get_ex(q, "quant_method", &method);
    json_object_get(q);
    if (method && !strcmp(json_object_get_string(method), LC_QUANT_STRIPS)) return q;
    return new_strips(q);
}

/* NULL without memory. */
static struct json_object *new_entry(const lc_quantize_plan *plan, struct json_object *config) {
    if (plan->options->type == LC_QUANTIZE_NONE) return packed_entry(config);
    struct json_object *q = new_quantization(plan);
    return q && plan->strips ? new_strips(q) : q;
}

static int write_config(const lc_quantize_plan *plan, const char *model, const char *out,
                        lc_err *err) {
    lc_buf path = {0};
    struct json_object *json = NULL, *q = NULL;
    int status = lc_buf_printf(&path, "%s/config.json", model) ? LC_OK : no_memory(err);
    if (status == LC_OK) status = lc_json_load(path.data, MAX_COPY, &json, err);
    if (status == LC_OK && !(q = new_entry(plan, json))) status = no_memory(err);
    if (status == LC_OK) {
        json_object_object_del(json, "quantization");
        json_object_object_add(json, "quantization_config", q);
        status = write_json(out, "config.json", json, err);
    }
    json_object_put(json);
    lc_buf_free(&path);
    return status;
}

/* ---- index and copies ---- */

static int write_index(lc_quantize_plan *plan, const char *out, lc_err *err) {
    struct json_object *json = json_object_new_object(), *map = json_object_new_object(),
                       *meta = json_object_new_object();
    int status = json && map && meta ? LC_OK : no_memory(err);
    for (size_t s = 0; s < plan->n_shards && status == LC_OK; s++)
        for (size_t i = 0; i < plan->shards[s].count && status == LC_OK; i++) {
            lc_tensor outputs[LC_QUANTIZE_OUTPUTS];
            const lc_quantize_item *item = &plan->items[plan->shards[s].first + i];
            int n = lc_quantize_outputs(plan, item, outputs, err);
            if (n < 0) status = n;
            for (int k = 0; k < n; k++)
                json_object_object_add(map, outputs[k].name,
                                       json_object_new_string(plan->shards[s].file));
        }
    json_object_object_add(meta, "total_size", json_object_new_uint64(plan->bytes));
    json_object_object_add(json, "metadata", meta);
    json_object_object_add(json, "weight_map", map);
    if (status == LC_OK) status = write_json(out, "model.safetensors.index.json", json, err);
    json_object_put(json);
    return status;
}

/* Tokenizer, templates, licences, code of other tools: not weights, not what is written here. */
static bool is_copied(const char *name) {
    static const char *const endings[] = {".json",  ".jinja", ".txt",     ".md",
                                          ".model", ".py",    ".tiktoken"};
    static const char *const never[] = {"config.json", "model.safetensors.index.json",
                                        "quantization_config.json"};
    if (name[0] == '.') return false;
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (!strcmp(name, never[i])) return false;
    if (!strncmp(name, "LICENSE", 7) || !strncmp(name, "NOTICE", 6)) return true;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t len = strlen(name), tail = strlen(endings[i]);
        if (len > tail && !strcmp(name + len - tail, endings[i])) return true;
    }
    return false;
}

static int copy_files(const char *model, const char *out, lc_err *err) {
    DIR *dir = opendir(model);
    lc_buf path = {0}, text = {0};
    struct stat st;
    int status = dir ? LC_OK : lc_fail_errno(err, LC_EIO, "%s", model);
    for (struct dirent *e; status == LC_OK && (e = readdir(dir));) {
        if (!is_copied(e->d_name)) continue;
        lc_buf_clear(&path);
        lc_buf_clear(&text);
        if (!lc_buf_printf(&path, "%s/%s", model, e->d_name)) {
            status = no_memory(err);
        } else if (!stat(path.data, &st) && S_ISREG(st.st_mode)) {
            status = lc_file_read(path.data, MAX_COPY, &text, err);
            if (status == LC_OK)
                status = write_file(out, e->d_name, text.data ? text.data : "", text.len, err);
        }
    }
    if (dir) closedir(dir);
    lc_buf_free(&path);
    lc_buf_free(&text);
    return status;
}

int lc_quantize_finish(lc_quantize_plan *plan, const char *model, const char *out, lc_err *err) {
    lc_buf state = {0};
    int status = copy_files(model, out, err);
    if (status == LC_OK && plan->n_shards > 1) status = write_index(plan, out, err);
    if (status == LC_OK) status = write_config(plan, model, out, err);
    if (status == LC_OK && !lc_buf_printf(&state, "%s/" STATE_NAME, out)) status = no_memory(err);
    if (status == LC_OK && unlink(state.data))
        status = lc_fail_errno(err, LC_EIO, "%s", state.data);
    lc_buf_free(&state);
    return status;
}
