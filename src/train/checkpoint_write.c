/*
 * checkpoint_write.c: copies of the state, the writer's thread, the order in which things reach the
 * disk, and which checkpoints stay. See checkpoint.h.
 */
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "format/safetensors.h"
#include "train/checkpoint_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOLDER_MODE = 0777 };

struct lc_checkpoints {
    lc_checkpoint_setup setup;
    lc_optim_state live, copy;
    float *values;    /* copy of params->values */
    int64_t *load;    /* of setup.load */
    int64_t *damaged; /* [n_damaged] steps, until they are written anew */
    size_t n_damaged;
    lc_position position;
    pthread_t thread;
    bool running; /* a thread was started and not yet joined */
    atomic_bool done;
    int status;
    lc_err err;
};

int lc_run_lock(const char *run, int *lock, lc_err *err) {
    *lock = -1;
    int status = lc_make_folders(run, FOLDER_MODE, err);
    return status == LC_OK ? lc_folder_lock(run, lock, err) : status;
}

/* ---- memory ---- */

size_t lc_checkpoints_bytes(const lc_params *params, const lc_optim_options *o) {
    return sizeof(float) * params->floats * (o->average > 0 ? 4 : 3);
}

void lc_checkpoints_close(lc_checkpoints *c) {
    if (!c) return;
    lc_checkpoints_wait(c, NULL);
    lc_free(c->values);
    lc_free(c->load);
    lc_free(c->copy.first);
    lc_free(c->copy.second);
    lc_free(c->copy.average);
    lc_free(c->copy.steps);
    lc_free(c->damaged);
    lc_free(c);
}

/* What is later than where the run goes on was found damaged. */
static int list_damaged(lc_checkpoints *c, lc_err *err) {
    size_t n;
    int status = lc_checkpoint_list(c->setup.run, &c->damaged, &n, err);
    for (size_t i = 0; status == LC_OK && i < n; i++)
        if (c->damaged[i] > c->setup.from) c->damaged[c->n_damaged++] = c->damaged[i];
    return status;
}

int lc_checkpoints_open(const lc_checkpoint_setup *setup, lc_checkpoints **out, lc_err *err) {
    const lc_params *p = setup->params;
    *out = NULL;
    lc_checkpoints *c = lc_calloc(1, sizeof *c);
    if (!c) return lc_fail(err, LC_ENOMEM, "checkpoints: out of memory");
    c->setup = *setup;
    c->live = lc_optim_state_of(setup->optim);
    c->values = lc_params_block(p);
    c->load = lc_calloc(setup->load_count + 1, sizeof *c->load);
    c->copy.first = lc_params_block(p);
    c->copy.second = lc_params_block(p);
    c->copy.average = c->live.average ? lc_params_block(p) : NULL;
    c->copy.steps = lc_calloc(p->count, sizeof *c->copy.steps);
    if (!c->values || !c->load || !c->copy.first || !c->copy.second || !c->copy.steps ||
        (c->live.average && !c->copy.average)) {
        lc_checkpoints_close(c);
        return lc_fail(err, LC_ENOMEM, "checkpoints: no memory for a copy of the state");
    }
    int status = list_damaged(c, err);
    if (status != LC_OK) {
        lc_checkpoints_close(c);
        return status;
    }
    *out = c;
    return LC_OK;
}

/* ---- files ---- */

static lc_tensor tensor_of(const lc_param *p, lc_dtype type) {
    lc_tensor t = {.name = p->name, .dtype = type, .rank = p->rank, .count = p->count};
    t.shape[0] = p->rank == 1 ? p->cols : p->rows;
    t.shape[1] = p->cols;
    return t;
}

/* One tensor of the model file, converted if need be. */
static int put_tensor(lc_safetensors_file *file, size_t i, const lc_param *p, lc_dtype type,
                      const float *values, lc_err *err) {
    enum { PIECE = 65536 };
    if (type == LC_F32)
        return lc_safetensors_put(file, i, 0, values, p->count * sizeof *values, err);
    uint16_t *piece = lc_alloc(PIECE * sizeof *piece);
    int status = piece ? LC_OK : lc_fail(err, LC_ENOMEM, "%s: out of memory", p->name);
    for (size_t at = 0; at < p->count && status == LC_OK; at += PIECE) {
        size_t n = p->count - at < PIECE ? p->count - at : PIECE;
        for (size_t j = 0; j < n; j++) piece[j] = lc_f32_to_bf16(values[at + j]);
        status = lc_safetensors_put(file, i, at * sizeof *piece, piece, n * sizeof *piece, err);
    }
    lc_free(piece);
    return status;
}

static int write_model(const lc_checkpoints *c, const char *path, lc_err *err) {
    const lc_params *p = c->setup.params;
    const float *values = c->setup.average ? c->copy.average : c->values;
    lc_safetensors_file *file = NULL;
    lc_tensor *list = lc_calloc(p->count, sizeof *list);
    if (!list) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < p->count; i++)
        list[i] = tensor_of(&p->list[i],
                            c->setup.f32 || p->list[i].weight == LC_WEIGHT_F32 ? LC_F32 : LC_BF16);
    int status = lc_safetensors_create(path, list, p->count, &file, err);
    for (size_t i = 0; i < p->count && status == LC_OK; i++)
        status = put_tensor(file, i, &p->list[i], list[i].dtype, values + p->list[i].offset, err);
    if (status == LC_OK)
        status = lc_safetensors_commit(file, err);
    else
        lc_safetensors_discard(file);
    lc_free(list);
    return status;
}

/* Blocks of the state under "<kind>.<tensor>", and the counts of updates. */
static int write_state(const lc_checkpoints *c, const char *path, lc_err *err) {
    const lc_params *p = c->setup.params;
    const struct {
        const char *name;
        const float *block;
    } blocks[] = {{"master", c->values},
                  {"first", c->copy.first},
                  {"second", c->copy.second},
                  {"average", c->copy.average}};
    enum { BLOCKS = sizeof blocks / sizeof *blocks };
    size_t n = 0, most = BLOCKS * p->count + 2;
    lc_tensor *list = lc_calloc(most, sizeof *list);
    lc_arena *names = lc_arena_new(0);
    lc_buf name = {0};
    bool ok = list && names;
    for (size_t k = 0; k < BLOCKS && ok; k++)
        for (size_t i = 0; i < p->count && ok && blocks[k].block; i++) {
            const lc_param *x = &p->list[i];
            if (k == 2 && lc_optim_is_muon(c->setup.optim, x)) continue; /* has none */
            lc_buf_clear(&name);
            lc_buf_printf(&name, "%s.%s", blocks[k].name, x->name);
            list[n] = tensor_of(x, LC_F32);
            list[n].data = blocks[k].block + x->offset;
            ok = !name.failed && (list[n++].name = lc_arena_strndup(names, name.data, name.len));
        }
    if (ok)
        list[n++] = (lc_tensor){.name = "updates",
                                .dtype = LC_I64,
                                .rank = 1,
                                .shape = {p->count},
                                .count = p->count,
                                .data = c->copy.steps};
    if (ok && c->setup.load_count)
        list[n++] = (lc_tensor){.name = LC_LOAD_NAME,
                                .dtype = LC_I64,
                                .rank = 1,
                                .shape = {c->setup.load_count},
                                .count = c->setup.load_count,
                                .data = c->load};
    int status = ok ? lc_safetensors_write(path, list, n, err)
                    : lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    lc_buf_free(&name);
    lc_arena_free(names);
    lc_free(list);
    return status;
}

/* ---- the manifest ---- */

int lc_file_hash(const char *path, uint64_t *bytes, char hex[65], lc_err *err) {
    enum { PIECE = 1 << 20 };
    int status = LC_OK, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return lc_fail_errno(err, LC_EIO, "%s", path);
    char *piece = lc_alloc(PIECE);
    lc_hash *hash = lc_hash_new(LC_HASH_XXH128);
    *bytes = 0;
    if (!piece || !hash) status = lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    while (status == LC_OK) {
        ssize_t n = read(fd, piece, PIECE);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = lc_fail_errno(err, LC_EIO, "%s", path);
        if (n <= 0) break;
        lc_hash_update(hash, piece, (size_t)n);
        *bytes += (uint64_t)n;
    }
    if (hash) lc_hash_finish(hash, hex);
    lc_free(piece);
    close(fd);
    return status;
}

static void put_position(lc_buf *out, const lc_position *p) {
    lc_buf_printf(out,
                  "{\"format\": \"" LC_MANIFEST_FORMAT "\", \"version\": %d,\n"
                  " \"step\": %lld, \"stage\": %lld, \"stage_step\": %lld, \"tokens\": %lld,\n"
                  " \"data\": \"%016llx\", \"recipe\": \"%s\", \"loss\": %.17g, "
                  "\"seconds\": %.3f,\n \"files\": [",
                  LC_MANIFEST_VERSION, (long long)p->step, (long long)p->stage,
                  (long long)p->stage_step, (long long)p->tokens, (unsigned long long)p->data,
                  p->recipe, p->loss, p->seconds);
}

static int write_manifest(const lc_checkpoints *c, const char *folder, lc_err *err) {
    const lc_beside *b = c->setup.beside;
    lc_buf text = {0}, path = {0};
    int status = LC_OK;
    put_position(&text, &c->position);
    for (size_t i = 0; i < b->count + 2 && status == LC_OK; i++) {
        const char *name = i < b->count    ? b->files[i].name
                           : i == b->count ? LC_MODEL_NAME
                                           : LC_STATE_NAME;
        char hex[65];
        uint64_t bytes;
        lc_buf_clear(&path);
        status = lc_buf_printf(&path, "%s/%s", folder, name)
                     ? lc_file_hash(path.data, &bytes, hex, err)
                     : lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
        if (status != LC_OK) break;
        lc_buf_printf(&text, "%s\n  {\"name\": \"%s\", \"bytes\": %llu, \"xxh3\": \"%s\"}",
                      i ? "," : "", name, (unsigned long long)bytes, hex);
    }
    lc_buf_puts(&text, "]");
    lc_hash *hash = lc_hash_new(LC_HASH_XXH128);
    if (hash && !text.failed) {
        char hex[65];
        lc_hash_update(hash, text.data, text.len);
        lc_hash_finish(hash, hex);
        lc_buf_printf(&text, LC_MANIFEST_CHECK "%s\"}\n", hex);
    }
    lc_buf_clear(&path);
    lc_buf_printf(&path, "%s/" LC_MANIFEST_NAME, folder);
    if (status == LC_OK && (!hash || text.failed || path.failed))
        status = lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
    if (status == LC_OK) status = lc_folder_sync(folder, err);
    if (status == LC_OK) status = lc_file_write(path.data, text.data, text.len, err);
    if (status == LC_OK) status = lc_folder_sync(folder, err);
    if (status == LC_OK) status = lc_folder_sync(c->setup.run, err);
    lc_buf_free(&text);
    lc_buf_free(&path);
    return status;
}

/* ---- which ones stay ---- */

/* The manifest first: a folder that is half gone is no checkpoint. */
static void remove_checkpoint(const char *run, int64_t step) {
    lc_buf path = {0};
    char name[LC_STEP_NAME];
    lc_step_name(step, name);
    if (lc_buf_printf(&path, "%s/%s/" LC_MANIFEST_NAME, run, name)) unlink(path.data);
    lc_buf_clear(&path);
    DIR *dir = lc_buf_printf(&path, "%s/%s", run, name) ? opendir(path.data) : NULL;
    for (const struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) unlinkat(dirfd(dir), e->d_name, 0);
    if (dir) closedir(dir);
    if (!path.failed) rmdir(path.data);
    lc_buf_free(&path);
}

/* step -1: to none. */
static void point(const char *run, const char *link, int64_t step) {
    lc_buf path = {0}, part = {0};
    char name[LC_STEP_NAME];
    lc_buf_printf(&path, "%s/%s", run, link);
    lc_buf_printf(&part, "%s/%s.part", run, link);
    if (!path.failed && !part.failed) {
        unlink(part.data);
        /* A convenience only: file systems without links do without it. */
        if (step < 0)
            unlink(path.data);
        else if (!symlink(lc_step_name(step, name), part.data) && rename(part.data, path.data))
            unlink(part.data);
    }
    lc_buf_free(&path);
    lc_buf_free(&part);
}

static bool is_damaged(const lc_checkpoints *c, int64_t step) {
    for (size_t i = 0; i < c->n_damaged; i++)
        if (c->damaged[i] == step) return true;
    return false;
}

static void forget_damaged(lc_checkpoints *c, int64_t step) {
    for (size_t i = 0; i < c->n_damaged; i++)
        if (c->damaged[i] == step) c->damaged[i] = c->damaged[--c->n_damaged];
}

/* LC_OK if the step's checkpoint counts; LC_ENOTFOUND, LC_EFORMAT: it is only a leftover. */
static int position_of(const lc_checkpoints *c, int64_t step, lc_position *out) {
    lc_buf path = {0};
    char name[LC_STEP_NAME];
    struct json_object *files = NULL;
    if (is_damaged(c, step)) return LC_EINVAL;
    int status = lc_buf_printf(&path, "%s/%s", c->setup.run, lc_step_name(step, name))
                     ? lc_manifest_read(path.data, out, &files, NULL)
                     : LC_ENOMEM;
    json_object_put(files);
    lc_buf_free(&path);
    return status;
}

/* Removes leftovers, and what is neither one of the last `keep` nor the best. What couldn't be read
 * this time stays, and so does what is damaged until the run comes to its step again. */
static void prune(const lc_checkpoints *c) {
    int64_t *steps = NULL, best = -1;
    double lowest = 0;
    size_t n = 0, whole = 0;
    if (lc_checkpoint_list(c->setup.run, &steps, &n, NULL) != LC_OK) return;
    for (size_t i = n; i-- > 0;) {
        lc_position p;
        if (position_of(c, steps[i], &p) != LC_OK || !(p.loss > 0)) continue;
        if (best < 0 || p.loss < lowest) {
            best = steps[i];
            lowest = p.loss;
        }
    }
    for (size_t i = n; i-- > 0;) {
        lc_position p;
        int status = position_of(c, steps[i], &p);
        bool leftover = status == LC_ENOTFOUND || status == LC_EFORMAT;
        bool goes = status == LC_OK && whole++ >= c->setup.keep && steps[i] != best;
        if (leftover || goes) remove_checkpoint(c->setup.run, steps[i]);
    }
    point(c->setup.run, "latest", c->position.step);
    point(c->setup.run, "best", best);
    lc_free(steps);
}

/* ---- the thread ---- */

static int write_files(const lc_checkpoints *c, const char *folder, lc_err *err) {
    const lc_beside *b = c->setup.beside;
    lc_buf path = {0};
    int status = LC_OK;
    for (size_t i = 0; i < b->count + 2 && status == LC_OK; i++) {
        const char *name = i < b->count    ? b->files[i].name
                           : i == b->count ? LC_MODEL_NAME
                                           : LC_STATE_NAME;
        lc_buf_clear(&path);
        if (!lc_buf_printf(&path, "%s/%s", folder, name))
            status = lc_fail(err, LC_ENOMEM, "%s: out of memory", folder);
        else if (i < b->count)
            status = lc_file_write(path.data, b->files[i].data.data ? b->files[i].data.data : "",
                                   b->files[i].data.len, err);
        else
            status =
                i == b->count ? write_model(c, path.data, err) : write_state(c, path.data, err);
    }
    lc_buf_free(&path);
    return status;
}

static int write_checkpoint(lc_checkpoints *c, lc_err *err) {
    lc_buf folder = {0};
    char name[LC_STEP_NAME];
    int status = LC_OK;
    remove_checkpoint(c->setup.run, c->position.step); /* a leftover, or one found damaged */
    forget_damaged(c, c->position.step);
    if (!lc_buf_printf(&folder, "%s/%s", c->setup.run, lc_step_name(c->position.step, name)))
        status = lc_fail(err, LC_ENOMEM, "%s: out of memory", c->setup.run);
    else if (mkdir(folder.data, FOLDER_MODE) && errno != EEXIST)
        status = lc_fail_errno(err, LC_EIO, "%s", folder.data);
    if (status == LC_OK) status = write_files(c, folder.data, err);
    if (status == LC_OK) status = write_manifest(c, folder.data, err);
    if (status == LC_OK)
        prune(c);
    else
        remove_checkpoint(c->setup.run, c->position.step);
    lc_buf_free(&folder);
    return status;
}

static void *writer(void *ctx) {
    lc_checkpoints *c = ctx;
    c->status = write_checkpoint(c, &c->err);
    atomic_store(&c->done, true);
    return NULL;
}

int lc_checkpoints_begin(lc_checkpoints *c, const lc_position *position, lc_err *err) {
    const lc_params *p = c->setup.params;
    size_t bytes = p->floats * sizeof(float);
    int status = lc_checkpoints_wait(c, err);
    if (status != LC_OK) return status;
    c->position = *position;
    memcpy(c->values, p->values, bytes);
    if (c->setup.load_count) memcpy(c->load, c->setup.load, c->setup.load_count * sizeof *c->load);
    memcpy(c->copy.first, c->live.first, bytes);
    memcpy(c->copy.second, c->live.second, bytes);
    if (c->live.average) memcpy(c->copy.average, c->live.average, bytes);
    memcpy(c->copy.steps, c->live.steps, p->count * sizeof *c->copy.steps);
    atomic_store(&c->done, false);
    int failed = pthread_create(&c->thread, NULL, writer, c);
    if (failed) {
        errno = failed;
        return lc_fail_errno(err, LC_ELIMIT, "checkpoints: no thread");
    }
    c->running = true;
    return LC_OK;
}

bool lc_checkpoints_done(const lc_checkpoints *c) { return c->running && atomic_load(&c->done); }

int lc_checkpoints_wait(lc_checkpoints *c, lc_err *err) {
    if (!c->running) return LC_OK;
    pthread_join(c->thread, NULL);
    c->running = false;
    if (c->status != LC_OK && err) *err = c->err;
    return c->status;
}
