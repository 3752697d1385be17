/*
 * prepare_folder.c: the folder of a shard set while it is made; see prepare_internal.h.
 *
 * A file "unfinished" marks a folder as ours and is locked while a run works in it; the system
 * drops the lock with the process. manifest.json, written last, makes the set valid. A run that
 * finds another's leftovers removes them: only files with our names, only beside the marker.
 */
#include "train/prepare_internal.h"

#include "base/err.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define MARKER "unfinished"
#define MANIFEST "manifest.json"

static bool is_ours(const char *name) {
    unsigned number;
    int end = 0;
    if (!strcmp(name, MARKER) || !strcmp(name, MANIFEST ".part")) return true;
    return sscanf(name, LC_PREPARE_SHARD "%n", &number, &end) == 1 && end &&
           (!name[end] || !strcmp(name + end, ".part"));
}

typedef int entry_action(int folder, const char *name);

static int remove_shard(int folder, const char *name) {
    if (!strcmp(name, MARKER)) return 0;
    return unlinkat(folder, name, 0);
}

/* Calls action for each entry. An entry that isn't ours is an error. */
static int each_entry(const char *path, entry_action *action, bool *any, lc_err *err) {
    DIR *dir = opendir(path);
    int status = LC_OK;
    if (!dir) return lc_fail_errno(err, LC_EIO, "%s", path);
    for (const struct dirent *e; !status && (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (!strcmp(e->d_name, MANIFEST))
            status = lc_fail(err, LC_EINVAL,
                             "%s: holds finished training data; choose another folder, or remove "
                             "this one first",
                             path);
        else if (!is_ours(e->d_name))
            status = lc_fail(err, LC_EINVAL,
                             "%s: holds \"%s\", which is no training data; choose another folder",
                             path, e->d_name);
        else if (action && action(dirfd(dir), e->d_name))
            status = lc_fail_errno(err, LC_EIO, "%s/%s", path, e->d_name);
        *any = true;
    }
    closedir(dir);
    return status;
}

static int take_lock(lc_prepare_folder *f, bool fresh, lc_err *err) {
    static const char text[] =
        "`longcat train data` works here, or was stopped before it had finished. The same command\n"
        "starts over and removes this file when the data is complete.\n";
    lc_buf path = {0};
    if (!lc_buf_printf(&path, "%s/" MARKER, f->path))
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", f->path);
    int status = LC_OK;
    f->lock = open(path.data, O_RDWR | O_CLOEXEC | (fresh ? O_CREAT : 0), 0666);
    if (f->lock < 0 && errno == ENOENT)
        status = lc_fail(err, LC_EINVAL,
                         "%s: holds shards but no file \"" MARKER "\" or " MANIFEST
                         "; choose another folder, or remove this one first",
                         f->path);
    else if (f->lock < 0)
        status = lc_fail_errno(err, LC_EIO, "%s", path.data);
    else if (flock(f->lock, LOCK_EX | LOCK_NB))
        status = lc_fail(err, LC_EINVAL, "%s: another run is writing here", f->path);
    else if (fresh && write(f->lock, text, sizeof text - 1) < 0)
        status = lc_fail_errno(err, LC_EIO, "%s", path.data);
    lc_buf_free(&path);
    return status;
}

int lc_prepare_folder_begin(lc_prepare_folder *f, const char *path, lc_err *err) {
    bool any = false;
    *f = (lc_prepare_folder){path, -1};
    int status = lc_make_folders(path, 0777, err);
    if (!status) status = each_entry(path, NULL, &any, err);
    if (!status) status = take_lock(f, !any, err);
    if (!status) status = each_entry(path, remove_shard, &any, err);
    if (status) lc_prepare_folder_leave(f);
    return status;
}

void lc_prepare_folder_leave(lc_prepare_folder *f) {
    if (f->lock >= 0) close(f->lock);
    f->lock = -1;
}

int lc_prepare_folder_sync(const lc_prepare_folder *f, lc_err *err) {
    int dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int status = dir < 0 || fsync(dir) ? lc_fail_errno(err, LC_EIO, "%s", f->path) : LC_OK;
    if (dir >= 0) close(dir);
    return status;
}

int lc_prepare_folder_end(lc_prepare_folder *f, lc_err *err) {
    int status = LC_OK, dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || (unlinkat(dir, MARKER, 0) && errno != ENOENT) || fsync(dir))
        status = lc_fail_errno(err, LC_EIO, "%s", f->path);
    if (dir >= 0) close(dir);
    lc_prepare_folder_leave(f);
    return status;
}

/* ---- manifest ---- */

/* Values that json-c could not make are found by `failed`. */
typedef struct builder {
    bool failed;
} builder;

static void put(builder *b, struct json_object *object, const char *key,
                struct json_object *value) {
    if (object && value && !json_object_object_add(object, key, value)) return;
    json_object_put(value);
    b->failed = true;
}
static void put_number(builder *b, struct json_object *object, const char *key, uint64_t value) {
    put(b, object, key, json_object_new_uint64(value));
}
static void put_text(builder *b, struct json_object *object, const char *key, const char *value) {
    put(b, object, key, json_object_new_string(value));
}

static struct json_object *shards_json(builder *b, const lc_manifest *m) {
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; list && i < m->result->shards; i++) {
        struct json_object *entry = json_object_new_object();
        char file[32], sum[20];
        snprintf(file, sizeof file, LC_PREPARE_SHARD, (unsigned)i);
        snprintf(sum, sizeof sum, "%016llx", (unsigned long long)m->shards[i].checksum);
        put_text(b, entry, "file", file);
        put_number(b, entry, "documents", m->shards[i].documents);
        put_number(b, entry, "tokens", m->shards[i].tokens);
        put_number(b, entry, "bytes", m->shards[i].bytes);
        put_text(b, entry, "xxh3", sum);
        if (!entry || json_object_array_add(list, entry)) b->failed = true;
    }
    return list;
}

static struct json_object *types_json(builder *b, const lc_prepare_result *r) {
    struct json_object *types = json_object_new_object();
    for (size_t i = 0; i < r->n_types; i++) {
        struct json_object *entry = json_object_new_object();
        put_number(b, entry, "documents", r->types[i].documents);
        put_number(b, entry, "bytes", r->types[i].bytes);
        put_number(b, entry, "tokens", r->types[i].tokens);
        put(b, types, r->types[i].name[0] ? r->types[i].name : "(none)", entry);
    }
    return types;
}

static struct json_object *settings_json(builder *b, const lc_manifest *m) {
    const lc_prepare_options *o = m->options;
    struct json_object *s = json_object_new_object(), *paths = json_object_new_array();
    for (size_t i = 0; paths && i < o->corpus.n_paths; i++)
        if (json_object_array_add(paths, json_object_new_string(o->corpus.paths[i])))
            b->failed = true;
    put(b, s, "corpus", paths);
    put_text(b, s, "extensions",
             o->corpus.extensions ? o->corpus.extensions : LC_CORPUS_EXTENSIONS);
    put_number(b, s, "max_file", o->corpus.max_file ? o->corpus.max_file : LC_CORPUS_FILE_MAX);
    put(b, s, "near", json_object_new_double(o->near));
    put(b, s, "fim", json_object_new_double(o->fim));
    put_number(b, s, "seed", o->seed);
    put_number(b, s, "exclude_documents", m->exclude_documents);
    return s;
}

static struct json_object *counts_json(builder *b, const lc_prepare_result *r) {
    struct json_object *counts = json_object_new_object();
#define READ(field, text) put_number(b, counts, #field, r->read.field);
    LC_CORPUS_COUNTS(READ)
#undef READ
    struct json_object *all = json_object_new_object();
    put(b, all, "read", counts);
    counts = json_object_new_object();
#define MADE(field, text) put_number(b, counts, #field, r->field);
    LC_PREPARE_COUNTS(MADE)
#undef MADE
    put(b, all, "written", counts);
    return all;
}

static struct json_object *manifest_json(builder *b, const lc_manifest *m) {
    struct json_object *json = json_object_new_object(), *tok = json_object_new_object();
    char hex[65];
    for (size_t i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", m->kind->tokenizer[i]);
    put_text(b, json, "format", LC_SHARDSET_FORMAT);
    put_number(b, json, "version", LC_SHARDSET_VERSION);
    put_text(b, json, "name", m->name);
    put_text(b, tok, "sha256", hex);
    put_number(b, tok, "vocab", m->kind->vocab);
    put_number(b, tok, "eos", m->kind->eos);
    put_number(b, tok, "bytes", m->kind->token_bytes);
    put(b, json, "tokenizer", tok);
    put_number(b, json, "documents", m->result->documents);
    put_number(b, json, "tokens", m->result->tokens);
    put_number(b, json, "text_bytes", m->result->text_bytes);
    put(b, json, "shards", shards_json(b, m));
    put(b, json, "counts", counts_json(b, m->result));
    put(b, json, "types", types_json(b, m->result));
    put(b, json, "settings", settings_json(b, m));
    return json;
}

int lc_manifest_write(const lc_manifest *m, lc_err *err) {
    builder b = {0};
    lc_buf path = {0};
    struct json_object *json = manifest_json(&b, m);
    const char *text = json_object_to_json_string_ext(
        json, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE);
    lc_buf_printf(&path, "%s/" MANIFEST, m->options->out);
    int status = json && text && !b.failed && !path.failed
                     ? lc_file_write(path.data, text, strlen(text), err)
                     : lc_fail(err, LC_ENOMEM, "%s: out of memory", m->options->out);
    lc_buf_free(&path);
    json_object_put(json);
    return status;
}
