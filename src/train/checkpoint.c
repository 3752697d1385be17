/*
 * checkpoint.c: folders and manifests of checkpoints. Only entries with our own names (step-*) are
 * ever removed.
 */
#include "train/checkpoint_parts.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT "longcat-train-checkpoint"
#define MANIFEST "manifest.json"
enum {
    VERSION = 1,
    MAX_MANIFEST = 1 << 20,
    MAX_CONFIG = 1 << 24,
    MAX_COPY = 1 << 26,
    PATH_ROOM = 4096,
    FILES_MAX = 64,
    PIECE = 1 << 20
};

__attribute__((format(printf, 2, 3))) static int join(char out[PATH_ROOM], const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(out, PATH_ROOM, fmt, args);
    va_end(args);
    return n > 0 && n < PATH_ROOM ? LC_OK : LC_ELIMIT;
}

/* "step-00000012" and nothing behind it but, if asked for, ".part". */
static bool is_step(const char *name, bool part, uint64_t *step) {
    unsigned long long n;
    int end = 0;
    if (sscanf(name, "step-%8llu%n", &n, &end) != 1 || end < 13) return false;
    *step = n;
    return !strcmp(name + end, part ? ".part" : "");
}

static void remove_folder(const char *path) {
    char file[PATH_ROOM];
    DIR *dir = opendir(path);
    for (const struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") &&
            join(file, "%s/%s", path, e->d_name) == LC_OK)
            unlink(file);
    if (dir) closedir(dir);
    rmdir(path);
}

static int sync_folder(const char *path, lc_err *err) {
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int status = dir < 0 || fsync(dir) ? lc_fail_errno(err, LC_EIO, "%s", path) : LC_OK;
    if (dir >= 0) close(dir);
    return status;
}

static int newest_first(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Steps of finished (or unfinished: part) checkpoints, newest first. */
static int list_steps(const char *out, bool part, uint64_t **steps, size_t *count, lc_err *err) {
    DIR *dir = opendir(out);
    size_t room = 0;
    int status = LC_OK;
    *steps = NULL;
    *count = 0;
    if (!dir) return lc_fail_errno(err, LC_EIO, "%s", out);
    for (const struct dirent *e; status == LC_OK && (e = readdir(dir));) {
        uint64_t step;
        if (!is_step(e->d_name, part, &step)) continue;
        if (*count == room) {
            room = room ? 2 * room : 64;
            uint64_t *list = lc_realloc(*steps, room, sizeof *list);
            if (list)
                *steps = list;
            else
                status = lc_fail(err, LC_ENOMEM, "%s: out of memory", out);
        }
        if (status == LC_OK) (*steps)[(*count)++] = step;
    }
    closedir(dir);
    if (*count) qsort(*steps, *count, sizeof **steps, newest_first);
    return status;
}

/* ---- the run's folder ---- */

int lc_checkpoint_lock(const char *out, int *lock, lc_err *err) {
    char path[PATH_ROOM];
    uint64_t *steps = NULL;
    size_t count = 0;
    *lock = -1;
    if (join(path, "%s/lock", out) != LC_OK) return lc_fail(err, LC_ELIMIT, "%s: too long", out);
    if (mkdir(out, 0777) && errno != EEXIST) return lc_fail_errno(err, LC_EIO, "%s", out);
    *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*lock < 0) return lc_fail_errno(err, LC_EIO, "%s", path);
    int status = LC_OK;
    if (flock(*lock, LOCK_EX | LOCK_NB))
        status = lc_fail(err, LC_EINVAL, "%s: another process trains here", out);
    if (status == LC_OK) status = list_steps(out, true, &steps, &count, err);
    for (size_t i = 0; i < count && status == LC_OK; i++)
        if (join(path, "%s/step-%08llu.part", out, (unsigned long long)steps[i]) == LC_OK)
            remove_folder(path);
    lc_free(steps);
    if (status != LC_OK) {
        lc_checkpoint_unlock(*lock);
        *lock = -1;
    }
    return status;
}

void lc_checkpoint_unlock(int lock) {
    if (lock >= 0) close(lock);
}

/* ---- hashes ---- */

static int hash_file(const char *path, char hex[65], uint64_t *bytes, lc_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return lc_fail_errno(err, LC_EIO, "%s", path);
    lc_hash *hash = lc_hash_new(LC_HASH_XXH128);
    char *piece = lc_alloc(PIECE);
    ssize_t n = -1;
    *bytes = 0;
    while (hash && piece && (n = read(fd, piece, PIECE)) > 0) {
        lc_hash_update(hash, piece, (size_t)n);
        *bytes += (uint64_t)n;
    }
    int status = LC_OK;
    if (!hash || !piece)
        status = lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    else if (n < 0)
        status = lc_fail_errno(err, LC_EIO, "%s", path);
    if (hash) lc_hash_finish(hash, hex);
    close(fd);
    lc_free(piece);
    return status;
}

/* ---- writing ---- */

/* The source's config, with the type that the weights have now and no quantisation. */
static int put_config(const lc_checkpoint_run *run, const char *folder, lc_err *err) {
    char from[PATH_ROOM], to[PATH_ROOM];
    struct stat st;
    struct json_object *json = NULL;
    bool nested = !stat(run->config, &st) && S_ISDIR(st.st_mode);
    if (join(from, nested ? "%s/config.json" : "%s", run->config) != LC_OK ||
        join(to, "%s/config.json", folder) != LC_OK)
        return lc_fail(err, LC_ELIMIT, "%s: too long", folder);
    int status = lc_json_load(from, MAX_CONFIG, &json, err);
    if (status != LC_OK) return status;
    json_object_object_del(json, "quantization_config");
    json_object_object_del(json, "quantization");
    struct json_object *type = json_object_new_string(run->bf16 ? "bfloat16" : "float32");
    if (type) json_object_object_add(json, "torch_dtype", type);
    const char *text = json_object_to_json_string_ext(json, JSON_C_TO_STRING_PRETTY |
                                                                JSON_C_TO_STRING_NOSLASHESCAPE);
    status = type && text ? lc_file_write(to, text, strlen(text), err)
                          : lc_fail(err, LC_ENOMEM, "%s: out of memory", to);
    json_object_put(json);
    return status;
}

static int put_tokenizer(const lc_checkpoint_run *run, const char *folder, lc_err *err) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja", "special_tokens_map.json",
                                        "generation_config.json"};
    int status = LC_OK;
    for (size_t i = 0; run->tokenizer && i < sizeof names / sizeof *names && status == LC_OK; i++) {
        char from[PATH_ROOM], to[PATH_ROOM];
        lc_buf text = {0};
        if (join(from, "%s/%s", run->tokenizer, names[i]) != LC_OK ||
            join(to, "%s/%s", folder, names[i]) != LC_OK)
            return lc_fail(err, LC_ELIMIT, "%s: too long", folder);
        if (access(from, F_OK)) continue;
        status = lc_file_read(from, MAX_COPY, &text, err);
        if (status == LC_OK) status = lc_file_write(to, text.data ? text.data : "", text.len, err);
        lc_buf_free(&text);
    }
    return status;
}

static int add_files(const char *folder, lc_buf *text, lc_err *err) {
    DIR *dir = opendir(folder);
    int status = dir ? LC_OK : lc_fail_errno(err, LC_EIO, "%s", folder);
    bool first = true;
    for (const struct dirent *e; status == LC_OK && (e = readdir(dir));) {
        char path[PATH_ROOM], hex[65];
        uint64_t bytes;
        if (e->d_name[0] == '.') continue;
        if (join(path, "%s/%s", folder, e->d_name) != LC_OK) continue;
        status = hash_file(path, hex, &bytes, err);
        if (status == LC_OK)
            lc_buf_printf(text, "%s\n    {\"file\": \"%s\", \"bytes\": %llu, \"xxh3\": \"%s\"}",
                          first ? "" : ",", e->d_name, (unsigned long long)bytes, hex);
        first = false;
    }
    if (dir) closedir(dir);
    return status;
}

static int put_manifest(const char *folder, const lc_optim *o, const lc_checkpoint_place *at,
                        lc_err *err) {
    char path[PATH_ROOM];
    lc_buf text = {0};
    if (join(path, "%s/" MANIFEST, folder) != LC_OK)
        return lc_fail(err, LC_ELIMIT, "%s: too long", folder);
    lc_buf_printf(&text,
                  "{\n  \"format\": \"" FORMAT "\",\n  \"version\": %d,\n  \"stage\": %llu,\n"
                  "  \"step\": %llu,\n  \"total\": %llu,\n  \"tokens\": %llu,\n"
                  "  \"next_sequence\": %llu,\n  \"recipe\": \"%s\",\n  \"data\": \"%016llx\",\n",
                  VERSION, (unsigned long long)at->stage, (unsigned long long)at->step,
                  (unsigned long long)at->total, (unsigned long long)at->tokens,
                  (unsigned long long)at->next, at->recipe, (unsigned long long)at->data);
    lc_buf_puts(&text, "  \"optimizer_steps\": [");
    for (int i = 0; i < LC_OPTIM_PARTS; i++)
        lc_buf_printf(&text, "%s%llu", i ? ", " : "", (unsigned long long)o->steps[i]);
    lc_buf_puts(&text, "],\n  \"files\": [");
    int status = add_files(folder, &text, err);
    lc_buf_puts(&text, "\n  ]\n}\n");
    if (status == LC_OK && text.failed) status = lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    if (status == LC_OK) status = lc_file_write(path, text.data, text.len, err);
    lc_buf_free(&text);
    return status;
}

static int put_all(const lc_checkpoint_run *run, const char *folder, const lc_optim *o,
                   const lc_checkpoint_place *place, lc_err *err) {
    char model[PATH_ROOM], state[PATH_ROOM];
    if (join(model, "%s/" LC_CHECKPOINT_MODEL, folder) != LC_OK ||
        join(state, "%s/" LC_CHECKPOINT_STATE, folder) != LC_OK)
        return lc_fail(err, LC_ELIMIT, "%s: too long", folder);
    int status = put_config(run, folder, err);
    if (status == LC_OK) status = put_tokenizer(run, folder, err);
    if (status == LC_OK) status = lc_checkpoint_put_model(model, o->params, run->bf16, err);
    if (status == LC_OK) status = lc_checkpoint_put_state(state, o, err);
    if (status == LC_OK) status = put_manifest(folder, o, place, err);
    return status == LC_OK ? sync_folder(folder, err) : status;
}

/* Older ones beyond `keep`. Newer ones are damaged, and stay until their step comes again. */
static void prune(const lc_checkpoint_run *run, uint64_t newest) {
    uint64_t *steps = NULL, kept = 0;
    size_t count = 0;
    char path[PATH_ROOM];
    if (list_steps(run->out, false, &steps, &count, NULL) == LC_OK)
        for (size_t i = 0; i < count; i++)
            if (steps[i] <= newest && ++kept > run->keep &&
                join(path, "%s/step-%08llu", run->out, (unsigned long long)steps[i]) == LC_OK)
                remove_folder(path);
    lc_free(steps);
}

int lc_checkpoint_write(const lc_checkpoint_run *run, const lc_optim *o,
                        const lc_checkpoint_place *place, lc_err *err) {
    char part[PATH_ROOM], name[PATH_ROOM];
    if (join(name, "%s/step-%08llu", run->out, (unsigned long long)place->total) != LC_OK ||
        join(part, "%s.part", name) != LC_OK)
        return lc_fail(err, LC_ELIMIT, "%s: too long", run->out);
    remove_folder(part);
    if (mkdir(part, 0777)) return lc_fail_errno(err, LC_EIO, "%s", part);
    int status = put_all(run, part, o, place, err);
    if (status == LC_OK) {
        remove_folder(name); /* a damaged one of the same step */
        if (rename(part, name)) status = lc_fail_errno(err, LC_EIO, "%s", name);
    }
    if (status == LC_OK) status = sync_folder(run->out, err);
    if (status == LC_OK)
        prune(run, place->total);
    else
        remove_folder(part);
    return status;
}

/* ---- reading ---- */

static int manifest_number(struct json_object *json, const char *path, const char *name,
                           uint64_t *out, lc_err *err) {
    struct json_object *x = NULL;
    if (!json_object_object_get_ex(json, name, &x) || !json_object_is_type(x, json_type_int) ||
        json_object_get_int64(x) < 0)
        return lc_fail(err, LC_EFORMAT, "%s: %s must be a whole number", path, name);
    *out = (uint64_t)json_object_get_int64(x);
    return LC_OK;
}

static const char *manifest_text(struct json_object *json, const char *name) {
    struct json_object *x = NULL;
    if (!json_object_object_get_ex(json, name, &x) || !json_object_is_type(x, json_type_string))
        return "";
    return json_object_get_string(x);
}

static int check_file(struct json_object *file, const char *folder, lc_err *err) {
    char path[PATH_ROOM], hex[65];
    const char *name = manifest_text(file, "file");
    uint64_t bytes, want;
    if (!*name || strchr(name, '/') || join(path, "%s/%s", folder, name) != LC_OK)
        return lc_fail(err, LC_EFORMAT, "%s: names no file", folder);
    int status = manifest_number(file, folder, "bytes", &want, err);
    if (status == LC_OK) status = hash_file(path, hex, &bytes, err);
    if (status != LC_OK) return status;
    if (bytes != want)
        return lc_fail(err, LC_EFORMAT, "%s: has %llu bytes, not %llu", path,
                       (unsigned long long)bytes, (unsigned long long)want);
    if (strcmp(hex, manifest_text(file, "xxh3")))
        return lc_fail(err, LC_EFORMAT, "%s: its bytes have changed", path);
    return LC_OK;
}

static int check_files(struct json_object *json, const char *folder, lc_err *err) {
    struct json_object *files = NULL;
    bool model = false, state = false;
    json_object_object_get_ex(json, "files", &files);
    if (!json_object_is_type(files, json_type_array) || json_object_array_length(files) > FILES_MAX)
        return lc_fail(err, LC_EFORMAT, "%s/" MANIFEST ": no list of files", folder);
    int status = LC_OK;
    for (size_t i = 0; i < json_object_array_length(files) && status == LC_OK; i++) {
        struct json_object *file = json_object_array_get_idx(files, i);
        model |= !strcmp(manifest_text(file, "file"), LC_CHECKPOINT_MODEL);
        state |= !strcmp(manifest_text(file, "file"), LC_CHECKPOINT_STATE);
        status = check_file(file, folder, err);
    }
    if (status == LC_OK && !(model && state))
        return lc_fail(err, LC_EFORMAT, "%s/" MANIFEST ": lists no model or no state", folder);
    return status;
}

static int load_manifest(const char *folder, struct json_object **json, lc_err *err) {
    char path[PATH_ROOM];
    uint64_t version;
    *json = NULL;
    if (join(path, "%s/" MANIFEST, folder) != LC_OK)
        return lc_fail(err, LC_ELIMIT, "%s: too long", folder);
    int status = lc_json_load(path, MAX_MANIFEST, json, err);
    if (status == LC_OK && strcmp(manifest_text(*json, "format"), FORMAT))
        status = lc_fail(err, LC_EFORMAT, "%s: is no manifest of a checkpoint", path);
    if (status == LC_OK) status = manifest_number(*json, path, "version", &version, err);
    if (status == LC_OK && version != VERSION)
        status = lc_fail(err, LC_EUNSUPPORTED, "%s: version %llu, this program knows %d", path,
                         (unsigned long long)version, VERSION);
    return status;
}

static int read_place(struct json_object *json, const char *folder, lc_checkpoint_place *at,
                      lc_err *err) {
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = {{"stage", &at->stage},
                   {"step", &at->step},
                   {"total", &at->total},
                   {"tokens", &at->tokens},
                   {"next_sequence", &at->next}};
    int status = LC_OK;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && status == LC_OK; i++)
        status = manifest_number(json, folder, numbers[i].name, numbers[i].to, err);
    at->data = strtoull(manifest_text(json, "data"), NULL, 16);
    snprintf(at->recipe, sizeof at->recipe, "%s", manifest_text(json, "recipe"));
    return status;
}

static int examine(const char *folder, lc_checkpoint_place *place, lc_err *err) {
    struct json_object *json = NULL;
    int status = load_manifest(folder, &json, err);
    if (status == LC_OK) status = read_place(json, folder, place, err);
    if (status == LC_OK) status = check_files(json, folder, err);
    json_object_put(json);
    return status;
}

int lc_checkpoint_find(const char *out, lc_checkpoint_note *note, void *ctx, char **path,
                       lc_checkpoint_place *place, lc_err *err) {
    uint64_t *steps = NULL;
    size_t count = 0;
    char folder[PATH_ROOM];
    *path = NULL;
    int status = list_steps(out, false, &steps, &count, err);
    for (size_t i = 0; i < count && status == LC_OK && !*path; i++) {
        lc_err damage = {0};
        lc_buf text = {0};
        if (join(folder, "%s/step-%08llu", out, (unsigned long long)steps[i]) != LC_OK) continue;
        if (examine(folder, place, &damage) == LC_OK) {
            *path = lc_strdup(folder);
            if (!*path) status = lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
        } else if (damage.code == LC_ENOMEM) {
            status = lc_fail(err, LC_ENOMEM, "%s", damage.text);
        } else if (lc_buf_printf(&text, "damaged checkpoint: %s; trying the one before it",
                                 damage.text)) {
            note(ctx, text.data);
        }
        lc_buf_free(&text);
    }
    lc_free(steps);
    if (status == LC_OK && count && !*path)
        return lc_fail(err, LC_EFORMAT, "%s: every checkpoint is damaged", out);
    return status;
}

int lc_checkpoint_load(const char *folder, lc_optim *o, lc_err *err) {
    char path[PATH_ROOM];
    struct json_object *json = NULL, *steps = NULL;
    if (join(path, "%s/" LC_CHECKPOINT_STATE, folder) != LC_OK)
        return lc_fail(err, LC_ELIMIT, "%s: too long", folder);
    int status = load_manifest(folder, &json, err);
    if (status == LC_OK) {
        json_object_object_get_ex(json, "optimizer_steps", &steps);
        if (!json_object_is_type(steps, json_type_array) ||
            json_object_array_length(steps) != LC_OPTIM_PARTS)
            status = lc_fail(err, LC_EFORMAT, "%s: no optimizer_steps", folder);
    }
    for (size_t i = 0; i < LC_OPTIM_PARTS && status == LC_OK; i++)
        o->steps[i] = json_object_get_uint64(json_object_array_get_idx(steps, i));
    json_object_put(json);
    return status == LC_OK ? lc_checkpoint_get_state(path, o, err) : status;
}
