/*
 * quantize.c: runs a plan: shard by shard, weight by weight, a block of rows at a time over all
 * threads.
 */
#include "format/quantize.h"

#include "base/err.h"
#include "format/quantize_internal.h"

#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { BLOCK_BYTES = 8 << 20, REPORT_BYTES = 64 << 20 };

typedef struct run {
    const lc_quantize_options *o;
    lc_quantize_plan *plan;
    lc_quantize_state state;
    lc_quantize_progress progress;
    lc_quantize_result *result;
    uint64_t reported;
    lc_err *err;
} run;

/* One block of rows of a weight. */
typedef struct block {
    run *r;
    const lc_quantize_item *item;
    const lc_mat *mat;
    size_t row, n;
    unsigned char *codes, *scales; /* [n] rows */
    unsigned char *strips[2];      /* of the same, or NULL */
    float *scratch;                /* a thread's w and work */
    size_t scratch_floats;
    double *sums;     /* [n][2]: error, power */
    bool *not_finite; /* [n] */
} block;

bool lc_quantize_type_from_name(const char *name, lc_quantize_type *out) {
    static const char *const names[] = {"int8", "int4", "mixed"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i])) continue;
        *out = (lc_quantize_type)i;
        return true;
    }
    return false;
}

static int report(run *r, uint64_t more, bool now) {
    r->progress.done += more;
    if (!now && r->progress.done - r->reported < REPORT_BYTES) return LC_OK;
    r->reported = r->progress.done;
    if (!r->o->progress || r->o->progress(r->o->ctx, &r->progress)) return LC_OK;
    return lc_fail(r->err, LC_ECANCELED, "cancelled");
}

/* ---- a weight ---- */

static void encode_rows(void *ctx, size_t begin, size_t end, int thread) {
    const block *b = ctx;
    const lc_quantize_item *item = b->item;
    float *w = b->scratch + (size_t)thread * b->scratch_floats;
    for (size_t i = begin; i < end; i++) {
        lc_quantize_row row = {.cols = item->cols,
                               .group = item->group,
                               .bits = item->bits,
                               .w = w,
                               .work = w + item->cols + 16,
                               .codes = b->codes + i * lc_quantize_code_bytes(item),
                               .scales = b->scales + i * lc_quantize_scale_bytes(item)};
        lc_mat_rows_f32(b->r->o->kernels, b->mat, b->row + i, 1, w, item->cols);
        b->not_finite[i] = !lc_quantize_encode(&row);
        b->sums[2 * i] = row.error;
        b->sums[2 * i + 1] = row.power;
    }
}

/* Strips from rows that are encoded, or taken here from the source; BF16 values have no scales. */
static void lay_out(void *ctx, size_t begin, size_t end, int thread) {
    const block *b = ctx;
    const lc_quantize_item *item = b->item;
    size_t code = lc_quantize_code_bytes(item), scale = lc_quantize_scale_bytes(item);
    size_t number = lc_dtype_size(item->scale_type);
    (void)thread;
    for (size_t i = begin * LC_STRIP_ROWS; i < end * LC_STRIP_ROWS && i < b->n;
         i += LC_STRIP_ROWS) {
        size_t n = b->n - i < LC_STRIP_ROWS ? b->n - i : LC_STRIP_ROWS;
        unsigned char *codes = b->codes + i * code, *scales = b->scales + i * scale;
        if (item->moved) lc_quantize_take_rows(item, b->mat, b->row + i, n, codes, scales);
        lc_quantize_strip(codes, n, code / 4, 4, b->strips[0] + i * code);
        if (scale) lc_quantize_strip(scales, n, scale / number, number, b->strips[1] + i * scale);
    }
}

static int write_block(const block *b, lc_safetensors_file *file) {
    const lc_quantize_item *item = b->item;
    size_t code = lc_quantize_code_bytes(item), scale = lc_quantize_scale_bytes(item);
    size_t rows = lc_quantize_rows(item, b->n);
    const unsigned char *codes = item->strips ? b->strips[0] : b->codes;
    const unsigned char *scales = item->strips ? b->strips[1] : b->scales;
    lc_err *err = b->r->err;
    for (size_t i = 0; i < b->n; i++)
        if (b->not_finite[i])
            return lc_fail(err, LC_EFORMAT, "tensor %s: row %zu holds an infinity or NaN",
                           item->name, b->row + i);
    int status =
        lc_safetensors_put(file, item->first_output, b->row * code, codes, rows * code, err);
    if (status == LC_OK && scale)
        status = lc_safetensors_put(file, item->first_output + 1, b->row * scale, scales,
                                    rows * scale, err);
    for (size_t i = 0; i < b->n; i++) {
        b->r->result->error += b->sums[2 * i];
        b->r->result->power += b->sums[2 * i + 1];
    }
    return status;
}

static int each_block(block *b, size_t rows, lc_safetensors_file *file) {
    const lc_quantize_item *item = b->item;
    run *r = b->r;
    int status = LC_OK;
    for (b->row = 0; b->row < item->rows && status == LC_OK; b->row += b->n) {
        b->n = item->rows - b->row < rows ? item->rows - b->row : rows;
        if (!item->moved) lc_pool_for(r->o->pool, b->n, 4, encode_rows, b);
        if (item->strips)
            lc_pool_for(r->o->pool, lc_quantize_rows(item, b->n) / LC_STRIP_ROWS, 1, lay_out, b);
        status = write_block(b, file);
        if (status == LC_OK)
            status = report(r,
                            item->source_bytes * (b->row + b->n) / item->rows -
                                item->source_bytes * b->row / item->rows,
                            false);
    }
    return status;
}

/* Space for blocks of up to `rows` rows. */
static bool allocate(block *b, size_t rows, size_t threads) {
    const lc_quantize_item *item = b->item;
    size_t code = lc_quantize_code_bytes(item), scale = lc_quantize_scale_bytes(item);
    size_t written = lc_quantize_rows(item, rows);
    b->scratch_floats = 2 * (item->cols + 16);
    b->codes = lc_calloc(rows, code);
    b->scales = lc_calloc(rows, scale);
    b->strips[0] = item->strips ? lc_calloc(written, code) : NULL;
    b->strips[1] = item->strips ? lc_calloc(written, scale) : NULL;
    b->scratch = item->moved ? NULL : lc_calloc(threads * b->scratch_floats, sizeof *b->scratch);
    b->sums = lc_calloc(rows, 2 * sizeof *b->sums);
    b->not_finite = lc_calloc(rows, sizeof *b->not_finite);
    return b->codes && b->scales && (b->scratch || item->moved) && b->sums && b->not_finite &&
           ((b->strips[0] && b->strips[1]) || !item->strips);
}

static void release(block *b) {
    lc_free(b->codes);
    lc_free(b->scales);
    lc_free(b->strips[0]);
    lc_free(b->strips[1]);
    lc_free(b->scratch);
    lc_free(b->sums);
    lc_free(b->not_finite);
}

static int write_weight(run *r, const lc_quantize_item *item, lc_safetensors_file *file) {
    lc_mat mat;
    size_t threads = r->o->pool ? (size_t)lc_pool_threads(r->o->pool) : 1;
    size_t rows = BLOCK_BYTES / (item->cols * sizeof(float)) + 4 * threads;
    rows = lc_quantize_rows(item, rows); /* so blocks begin with a strip */
    if (rows > item->rows) rows = item->rows;
    int status = lc_mat_bind(r->plan->tensors, item->name, item->rows, item->cols, &mat, r->err);
    if (status != LC_OK) return status;
    block b = {.r = r, .item = item, .mat = &mat};
    if (!allocate(&b, rows, threads))
        status = lc_fail(r->err, LC_ENOMEM, "tensor %s: out of memory", item->name);
    else
        status = each_block(&b, rows, file);
    if (status == LC_OK && item->bits == 4 && !item->strips) {
        int64_t shape[2] = {(int64_t)item->rows, (int64_t)item->cols};
        status = lc_safetensors_put(file, item->first_output + 2, 0, shape, sizeof shape, r->err);
    }
    release(&b);
    lc_mat_unbind(&mat);
    return status;
}

static int copy_tensor(run *r, const lc_quantize_item *item, lc_safetensors_file *file) {
    const lc_tensor *t = item->source;
    int status = LC_OK;
    for (size_t at = 0; at < t->size && status == LC_OK;) {
        size_t n = t->size - at < BLOCK_BYTES ? t->size - at : BLOCK_BYTES;
        status =
            lc_safetensors_put(file, item->first_output, at, (const char *)t->data + at, n, r->err);
        if (status == LC_OK) status = report(r, n, false);
        at += n;
    }
    return status;
}

/* ---- a shard ---- */

static int write_items(run *r, const lc_quantize_shard *shard, const char *path) {
    size_t count = 0;
    lc_tensor *outputs = lc_calloc(LC_QUANTIZE_OUTPUTS * (shard->count + 1), sizeof *outputs);
    int status = outputs ? LC_OK : lc_fail(r->err, LC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < shard->count && status == LC_OK; i++) {
        lc_quantize_item *item = &r->plan->items[shard->first + i];
        item->first_output = count;
        int n = lc_quantize_outputs(r->plan, item, outputs + count, r->err);
        if (n < 0)
            status = n;
        else
            count += (size_t)n;
    }
    lc_safetensors_file *file = NULL;
    if (status == LC_OK) status = lc_safetensors_create(path, outputs, count, &file, r->err);
    for (size_t i = 0; i < shard->count && status == LC_OK; i++) {
        const lc_quantize_item *item = &r->plan->items[shard->first + i];
        status = item->source ? copy_tensor(r, item, file) : write_weight(r, item, file);
    }
    lc_free(outputs);
    if (!file) return status;
    if (status == LC_OK) return lc_safetensors_commit(file, r->err);
    lc_safetensors_discard(file);
    return status;
}

/* Whether an earlier call made the shard, and nothing has happened to it since. */
static int is_done(run *r, size_t i, const char *path, bool *done) {
    char hex[65];
    lc_err ignored;
    *done = false;
    if (!r->state.hashes[i][0]) return LC_OK;
    r->progress.checking = true;
    int status = report(r, 0, true);
    *done = lc_quantize_hash_file(path, hex, &ignored) == LC_OK && !strcmp(hex, r->state.hashes[i]);
    r->progress.checking = false;
    r->state.hashes[i][0] = 0;
    if (*done) memcpy(r->state.hashes[i], hex, sizeof hex);
    return status;
}

static int make_shard(run *r, const char *out, size_t i) {
    const lc_quantize_shard *shard = &r->plan->shards[i];
    lc_buf path = {0};
    bool done = false;
    if (!lc_buf_printf(&path, "%s/%s", out, shard->file))
        return lc_fail(r->err, LC_ENOMEM, "%s: out of memory", out);
    r->progress.shard = shard->file;
    int status = is_done(r, i, path.data, &done);
    if (status == LC_OK && done) {
        r->progress.kept += shard->bytes;
        r->result->kept++;
        r->progress.done += shard->bytes;
    } else if (status == LC_OK) {
        status = report(r, 0, true);
        if (status == LC_OK) status = write_items(r, shard, path.data);
        if (status == LC_OK) status = lc_quantize_hash_file(path.data, r->state.hashes[i], r->err);
        if (status == LC_OK) status = lc_quantize_state_save(r->plan, out, &r->state, r->err);
    }
    lc_buf_free(&path);
    if (status != LC_OK) return status;
    r->progress.shards_done++;
    return report(r, 0, true);
}

/* ---- the whole ---- */

static int check_options(const lc_quantize_options *o, lc_err *err) {
    if (o->group && o->group != 32 && o->group != 64 && o->group != 128)
        return lc_fail(err, LC_EINVAL, "groups of %zu: 32, 64 and 128 are possible", o->group);
    return LC_OK;
}

/* Shards that are to be written must fit the disk, headers and small files included. */
static int check_disk(const run *r, const char *out, lc_err *err) {
    struct statvfs disk;
    uint64_t needed = (uint64_t)32 << 20, done = 0;
    for (size_t i = 0; i < r->plan->n_shards; i++)
        if (r->state.hashes[i][0]) done += r->plan->shards[i].bytes;
    needed += r->plan->source_bytes ? (uint64_t)((double)r->plan->bytes *
                                                 (1 - (double)done / (double)r->plan->source_bytes))
                                    : 0;
    if (statvfs(out, &disk)) return LC_OK; /* not every file system tells */
    uint64_t available = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (available >= needed) return LC_OK;
    return lc_fail(err, LC_ELIMIT, "%s: %llu MB are needed, %llu MB are free", out,
                   (unsigned long long)(needed / 1000000) + 1,
                   (unsigned long long)(available / 1000000));
}

static void count(const lc_quantize_plan *plan, lc_quantize_result *result) {
    result->source_bytes = plan->source_bytes;
    result->bytes = plan->bytes;
    result->shards = plan->n_shards;
    result->tensors = plan->count;
    for (size_t i = 0; i < plan->count; i++) {
        const lc_quantize_item *item = &plan->items[i];
        result->quantised += !item->source && !item->moved;
        result->by_row += item->by_row;
        result->packed += item->strips;
    }
    result->unpacked = plan->unpacked;
}

static int run_plan(run *r, const char *model, const char *out) {
    int status = lc_quantize_state_load(r->plan, out, &r->state, r->err);
    if (status == LC_OK) status = check_disk(r, out, r->err);
    r->progress.bytes = r->plan->source_bytes;
    r->progress.shards = r->plan->n_shards;
    for (size_t i = 0; i < r->plan->n_shards && status == LC_OK; i++)
        status = make_shard(r, out, i);
    if (status == LC_OK) status = lc_quantize_finish(r->plan, model, out, r->err);
    for (size_t i = 0; r->state.hashes && i < r->plan->n_shards; i++)
        r->result->done += r->state.hashes[i][0] != 0;
    lc_free(r->state.hashes);
    if (r->state.lock >= 0) close(r->state.lock);
    return status;
}

int lc_quantize(const char *model, const char *out, const lc_quantize_options *options,
                lc_quantize_result *result, lc_err *err) {
    lc_config config;
    lc_tensors *tensors = NULL;
    *result = (lc_quantize_result){0};
    int status = check_options(options, err);
    if (status == LC_OK) status = lc_config_want_folder(model, err);
    if (status == LC_OK) status = lc_config_load(model, &config, err);
    if (status == LC_OK) status = lc_tensors_open(model, &tensors, err);
    if (status != LC_OK) return status;
    lc_tensors_set_quant(tensors, &config.quant);
    lc_quantize_plan plan = {.config = &config, .tensors = tensors, .options = options};
    run r = {.o = options, .plan = &plan, .result = result, .err = err};
    status = lc_quantize_plan_make(&plan, err);
    if (status == LC_OK) count(&plan, result);
    if (status == LC_OK && options->type == LC_QUANTIZE_NONE && !result->packed)
        status = lc_fail(err, LC_EINVAL,
                         plan.strips ? "%s: is packed already"
                                     : "%s: holds no weights that can be packed",
                         model);
    if (status == LC_OK) status = run_plan(&r, model, out);
    lc_quantize_plan_free(&plan);
    lc_tensors_close(tensors);
    return status;
}
