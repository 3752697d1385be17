/*
 * shards.c: opening a checkpoint: a single file, a model.safetensors.index.json with its shards, or
 * a folder that holds either.
 *
 * Bargain: the index only says which files belong to the checkpoint and where each tensor must be;
 * what is in a shard is the shard's own word. So every entry is checked against the shards, names
 * of shards are plain file names in the index's folder, and tensors of a shard that the index does
 * not mention are kept (loaders of the ecosystem do so too).
 */
#include "format/tensors.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "format/scan.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { MAX_SHARDS = 10000, MAX_INDEX = 256 << 20 };

#define INDEX_NAME "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"

static bool shard_name_ok(const char *name) {
    size_t len = strlen(name);
    if (!len || len > NAME_MAX || name[0] == '.') return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == '/' || name[i] == '\\') return false;
    return true;
}

static int push_entry(lc_shard_index *index, const char *tensor, const char *shard) {
    if (index->count == index->cap) {
        size_t cap = index->cap ? index->cap + index->cap / 2 : 256;
        struct lc_shard_entry *entries = lc_realloc(index->entries, cap, sizeof *entries);
        if (!entries) return LC_ENOMEM;
        index->entries = entries;
        index->cap = cap;
    }
    index->entries[index->count++] = (struct lc_shard_entry){tensor, shard};
    return LC_OK;
}

static int read_map(lc_scan *scan, const char *name, lc_shard_index *out, lc_err *err) {
    if (!lc_scan_take(scan, '{')) return LC_EFORMAT;
    if (lc_scan_try(scan, '}')) return LC_OK;
    do {
        const char *tensor, *shard;
        if (!lc_scan_string(scan, &tensor) || !lc_scan_take(scan, ':') ||
            !lc_scan_string(scan, &shard))
            return LC_EFORMAT;
        if (!shard_name_ok(shard))
            return lc_fail(err, LC_EFORMAT,
                           "%s: tensor %s: \"%s\" is not the name of a file beside the index", name,
                           tensor, shard);
        if (push_entry(out, tensor, shard) != LC_OK)
            return lc_fail(err, LC_ENOMEM, "%s: out of memory", name);
    } while (lc_scan_try(scan, ','));
    return lc_scan_take(scan, '}') ? LC_OK : LC_EFORMAT;
}

static int read_index(lc_scan *scan, const char *name, lc_shard_index *out, lc_err *err) {
    bool found = false;
    if (!lc_scan_take(scan, '{')) return LC_EFORMAT;
    if (!lc_scan_try(scan, '}')) {
        do {
            const char *key;
            if (!lc_scan_string(scan, &key) || !lc_scan_take(scan, ':')) return LC_EFORMAT;
            if (strcmp(key, "weight_map")) {
                if (!lc_scan_skip(scan)) return LC_EFORMAT;
                continue;
            }
            if (found) return lc_fail(err, LC_EFORMAT, "%s: weight_map is given twice", name);
            found = true;
            int status = read_map(scan, name, out, err);
            if (status != LC_OK) return status;
        } while (lc_scan_try(scan, ','));
        if (!lc_scan_take(scan, '}')) return LC_EFORMAT;
    }
    if (!lc_scan_end(scan)) return LC_EFORMAT;
    return LC_OK;
}

static int by_tensor(const void *a, const void *b) {
    const struct lc_shard_entry *x = a, *y = b;
    return strcmp(x->tensor, y->tensor);
}

static int by_shard(const void *a, const void *b) {
    const struct lc_shard_entry *x = a, *y = b;
    int order = strcmp(x->shard, y->shard);
    return order ? order : by_tensor(a, b);
}

int lc_shard_index_parse(const char *text, size_t len, const char *name, lc_shard_index *out,
                         lc_err *err) {
    *out = (lc_shard_index){.pool = lc_alloc(len + 1)};
    if (!out->pool) return lc_fail(err, LC_ENOMEM, "%s: out of memory", name);
    lc_scan scan = {.text = text, .len = len, .pool = out->pool};
    int status = read_index(&scan, name, out, err);
    if (scan.problem)
        return lc_fail(err, LC_EFORMAT, "%s: %s at byte %zu", name, scan.problem, scan.pos);
    if (status != LC_OK) return status;
    if (!out->count) return lc_fail(err, LC_EFORMAT, "%s: no weight_map with tensors", name);
    qsort(out->entries, out->count, sizeof *out->entries, by_tensor);
    for (size_t i = 1; i < out->count; i++)
        if (!strcmp(out->entries[i - 1].tensor, out->entries[i].tensor))
            return lc_fail(err, LC_EFORMAT, "%s: tensor %s is given twice", name,
                           out->entries[i].tensor);
    qsort(out->entries, out->count, sizeof *out->entries, by_shard);
    return LC_OK;
}

void lc_shard_index_free(lc_shard_index *index) {
    lc_free(index->entries);
    lc_free(index->pool);
    *index = (lc_shard_index){0};
}

/* Opens each shard of the index once. */
static int open_shards(lc_tensors *tensors, const lc_shard_index *index, const char *path,
                       lc_err *err) {
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    lc_buf file = {0};
    int status = LC_OK;
    for (size_t i = 0; i < index->count && status == LC_OK; i++) {
        const char *shard = index->entries[i].shard;
        if (i && !strcmp(index->entries[i - 1].shard, shard)) continue;
        if (tensors->n_files == MAX_SHARDS) {
            status = lc_fail(err, LC_ELIMIT, "%s: more than %d shards", path, MAX_SHARDS);
            break;
        }
        lc_buf_clear(&file);
        if (!lc_buf_printf(&file, "%.*s%s", folder, path, shard)) {
            status = lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
            break;
        }
        status = lc_tensors_add_file(tensors, file.data, err);
        if (status == LC_ENOTFOUND)
            status = lc_fail(err, LC_ENOTFOUND, "%s: shard %s is missing", path, shard);
    }
    lc_buf_free(&file);
    return status;
}

/* Every entry's tensor must be in the shard that the index names. */
static int check_index(const lc_tensors *tensors, const lc_shard_index *index, const char *path,
                       lc_err *err) {
    for (size_t i = 0; i < index->count; i++) {
        const struct lc_shard_entry *e = &index->entries[i];
        const lc_tensor *t = lc_tensors_find(tensors, e->tensor);
        const char *base = t ? strrchr(t->file, '/') : NULL;
        base = base ? base + 1 : t ? t->file : "";
        if (strcmp(base, e->shard))
            return lc_fail(err, LC_EFORMAT, "%s: tensor %s is not in its shard %s", path, e->tensor,
                           e->shard);
    }
    return LC_OK;
}

static int open_index(lc_tensors *tensors, const char *path, lc_err *err) {
    lc_buf text = {0};
    lc_shard_index index = {0};
    int status = lc_file_read(path, MAX_INDEX, &text, err);
    if (status == LC_OK) status = lc_shard_index_parse(text.data, text.len, path, &index, err);
    if (status == LC_OK) status = open_shards(tensors, &index, path, err);
    if (status == LC_OK) status = lc_tensors_finish(tensors, err);
    if (status == LC_OK) status = check_index(tensors, &index, path, err);
    lc_shard_index_free(&index);
    lc_buf_free(&text);
    return status;
}

static int open_single(lc_tensors *tensors, const char *path, lc_err *err) {
    int status = lc_tensors_add_file(tensors, path, err);
    return status == LC_OK ? lc_tensors_finish(tensors, err) : status;
}

/* The file to open in a folder: the index if there is one. false when memory is short; empty text
 * if there is neither. */
static bool choose(const char *folder, lc_buf *file) {
    struct stat st;
    static const char *const names[] = {INDEX_NAME, SINGLE_NAME};
    for (int i = 0; i < 2; i++) {
        lc_buf_clear(file);
        if (!lc_buf_printf(file, "%s/%s", folder, names[i])) return false;
        if (!stat(file->data, &st)) return true;
    }
    lc_buf_clear(file);
    return true;
}

bool lc_tensors_exist(const char *folder) {
    lc_buf file = {0};
    bool found = choose(folder, &file) && file.len;
    lc_buf_free(&file);
    return found;
}

static int open_path(lc_tensors *tensors, const char *path, lc_err *err) {
    size_t len = strlen(path);
    if (len > 5 && !strcmp(path + len - 5, ".json")) return open_index(tensors, path, err);
    return open_single(tensors, path, err);
}

static int open_folder(lc_tensors *tensors, const char *path, lc_err *err) {
    lc_buf file = {0};
    int status;
    if (!choose(path, &file))
        status = lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    else if (!file.len)
        status = lc_fail(err, LC_ENOTFOUND, "%s: neither " SINGLE_NAME " nor " INDEX_NAME, path);
    else
        status = open_path(tensors, file.data, err);
    lc_buf_free(&file);
    return status;
}

int lc_tensors_open(const char *path, lc_tensors **out, lc_err *err) {
    struct stat st;
    *out = NULL;
    if (stat(path, &st)) return lc_fail_errno(err, LC_ENOTFOUND, "%s", path);
    lc_tensors *tensors = lc_calloc(1, sizeof *tensors);
    if (!tensors) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    int status =
        S_ISDIR(st.st_mode) ? open_folder(tensors, path, err) : open_path(tensors, path, err);
    if (status == LC_OK) status = lc_tensors_alias(tensors, err);
    if (status != LC_OK) {
        lc_tensors_close(tensors);
        return status;
    }
    *out = tensors;
    return LC_OK;
}
