/*
 * synthetic.c: planning and writing a checkpoint of random weights.
 *
 * The plan is the list of tensors with their files and the law of their values. Files are written
 * one after the other; within one, pieces of all its tensors are made in parallel and written where
 * they belong, so memory is a piece per thread. A value is taken from Philox at (seed, hash of the
 * tensor's name, place), uniform rather than normal: what is measured doesn't depend on it.
 */
#include "engine/synthetic.h"

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/pool.h"
#include "base/rng.h"
#include "format/names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    PIECE = 1 << 20,   /* elements that a task makes: whole random blocks of any element type */
    WAVE = 32,         /* pieces a thread between two reports of progress */
    BATCH = 64,        /* random blocks at a time */
    GROUP = 64,        /* weights of an int4 scale */
    SPARE = 256 << 20, /* bytes of the disk that are left free */
    NAME = 160,
};
static const size_t DEFAULT_SHARD = 4000000000;

/* How a tensor's values come about. */
typedef enum law {
    LAW_ZERO,     /* router bias: no entry is preferred */
    LAW_NEAR_ONE, /* norms: 0.9 .. 1.1 */
    LAW_UNIFORM,  /* -amplitude .. amplitude */
    LAW_CODES,    /* uniform, as codes of FP8, int8 or int4; amplitude is in the scales */
    LAW_SCALES,   /* of codes: amplitude / largest code, times 0.95 .. 1.05 */
} law;

typedef struct recipe {
    law law;
    float amplitude;
    uint64_t stream;
    size_t count, bytes; /* elements; of the tensor */
    size_t file;
} recipe;

typedef struct plan {
    const lc_synthetic *how;
    lc_config config;
    lc_arena *arena;    /* names */
    lc_tensor *tensors; /* [count] */
    recipe *recipes;    /* [count] */
    size_t count, cap, files, file_bytes;
    uint64_t bytes;
    uint8_t f8_codes[256]; /* nearest FP8 code of (i - 127.5) / 127.5 * 448 */
    lc_err *err;
} plan;

static const float F8_MOST = 448.0f, I8_MOST = 127.0f, I4_MOST = 7.0f;

/* ---- values ---- */

static uint64_t hash_name(const char *name) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h;
}

static void fill_f8_codes(uint8_t codes[256]) {
    for (int i = 0; i < 256; i++) {
        float want = ((float)i - 127.5f) / 127.5f * F8_MOST, best = INFINITY;
        for (int code = 0; code < 256; code++) {
            float miss = fabsf(lc_f8_e4m3_to_f32((uint8_t)code) - want);
            if (miss < best) best = miss, codes[i] = (uint8_t)code;
        }
    }
}

/* Random blocks first .. first + n - 1 of a tensor. */
static void random_blocks(const plan *p, const recipe *r, uint64_t first, size_t n,
                          lc_rng_block *out) {
    for (size_t i = 0; i < n; i++) out[i] = lc_rng(p->how->seed, r->stream, first + i);
}

/* Elements at .. at + n - 1 in fp32, 8 a random block; at is a multiple of 8. */
static void make_floats(const plan *p, const recipe *r, size_t at, size_t n, float *out) {
    lc_rng_block blocks[BATCH];
    if (r->law == LAW_ZERO) {
        memset(out, 0, n * sizeof *out);
        return;
    }
    float middle = r->law == LAW_NEAR_ONE ? 1.0f : r->law == LAW_SCALES ? r->amplitude : 0.0f;
    float reach = r->law == LAW_NEAR_ONE ? 0.1f
                  : r->law == LAW_SCALES ? r->amplitude / 20
                                         : r->amplitude;
    for (size_t done = 0; done < n; done += 8 * BATCH) {
        size_t m = n - done < 8 * BATCH ? n - done : 8 * BATCH;
        uint16_t halves[8 * BATCH] = {0};
        random_blocks(p, r, (at + done) / 8, (m + 7) / 8, blocks);
        memcpy(halves, blocks, (m + 7) / 8 * sizeof *blocks);
        for (size_t i = 0; i < m; i++)
            out[done + i] = middle + ((float)halves[i] - 32767.5f) * (reach / 32767.5f);
    }
}

/* Codes -7 .. 7 of 4 bits: the middle one takes the place of -8, so the mean is 0. */
static uint8_t balanced_pair(uint8_t pair) {
    uint8_t low = pair & 15u, high = pair >> 4;
    return (uint8_t)((low ? low : 8) | (high ? high : 8) << 4);
}

/* The same as bytes of codes, 16 a random block. */
static void make_codes(const plan *p, const recipe *r, lc_dtype type, size_t at, size_t n,
                       uint8_t *out) {
    lc_rng_block blocks[BATCH];
    for (size_t done = 0; done < n; done += 16 * BATCH) {
        size_t m = n - done < 16 * BATCH ? n - done : 16 * BATCH;
        random_blocks(p, r, (at + done) / 16, (m + 15) / 16, blocks);
        memcpy(out + done, blocks, m);
    }
    for (size_t i = 0; i < n; i++) {
        if (type == LC_I32)
            out[i] = balanced_pair(out[i]);
        else if (type == LC_F8_E4M3)
            out[i] = p->f8_codes[out[i]];
        else if (out[i] == 0x80)
            out[i] = 0x81;
    }
}

/* Elements at .. at + n - 1, n <= PIECE, as stored. floats: PIECE of them. */
static void make_piece(const plan *p, size_t tensor, size_t at, size_t n, float *floats,
                       void *out) {
    const recipe *r = &p->recipes[tensor];
    lc_dtype type = p->tensors[tensor].dtype;
    if (r->law == LAW_CODES) {
        make_codes(p, r, type, at * lc_dtype_size(type), n * lc_dtype_size(type), out);
    } else if (type == LC_F32) {
        make_floats(p, r, at, n, out);
    } else {
        uint16_t *halves = out;
        make_floats(p, r, at, n, floats);
        for (size_t i = 0; i < n; i++) halves[i] = lc_f32_to_bf16(floats[i]);
    }
}

/* ---- plan ---- */

static int out_of_memory(const plan *p) {
    return lc_fail(p->err, LC_ENOMEM, "%s: out of memory", p->how->name);
}

static int add_tensor(plan *p, const char *name, lc_dtype type, const lc_name *n, recipe r) {
    if (p->count == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 1024;
        lc_tensor *tensors = lc_realloc(p->tensors, cap, sizeof *tensors);
        if (tensors) p->tensors = tensors;
        recipe *recipes = tensors ? lc_realloc(p->recipes, cap, sizeof *recipes) : NULL;
        if (!recipes) return out_of_memory(p);
        p->recipes = recipes;
        p->cap = cap;
    }
    lc_tensor *t = &p->tensors[p->count];
    *t = (lc_tensor){.name = lc_arena_strndup(p->arena, name, strlen(name)),
                     .dtype = type,
                     .rank = n->rank,
                     .shape = {n->shape[0], n->shape[1]}};
    if (!t->name) return out_of_memory(p);
    r.count = n->rank == 1 ? n->shape[0] : n->shape[0] * n->shape[1];
    r.bytes = r.count * lc_dtype_size(type);
    r.stream = hash_name(name);
    size_t most = p->how->shard_bytes ? p->how->shard_bytes : DEFAULT_SHARD;
    if (!p->files || (p->file_bytes && p->file_bytes + r.bytes > most)) {
        p->files++;
        p->file_bytes = 0;
    }
    r.file = p->files - 1;
    p->file_bytes += r.bytes;
    p->bytes += r.bytes;
    p->recipes[p->count++] = r;
    return LC_OK;
}

static bool is_quantised(const plan *p, const lc_name *n) {
    if (p->how->type == LC_F8_E4M3 || p->how->type == LC_I32)
        return n->weight == LC_WEIGHT_PROJ || n->weight == LC_WEIGHT_FFN;
    return p->how->type == LC_I8 && n->weight == LC_WEIGHT_FFN;
}

static lc_dtype plain_type(const plan *p, const lc_name *n) {
    return p->how->type == LC_F32 || n->weight == LC_WEIGHT_F32 ? LC_F32 : LC_BF16;
}

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

/* Standard deviation of a matrix. With K columns, outputs have the size of the inputs at 1 /
 * sqrt(K). Latents come scaled by sqrt(H / rank), so what is behind them takes 1 / sqrt(H).
 * Embeddings are large enough for the mean over words and tables to have size 1: a token's own part
 * then outweighs what attention adds to all alike, and routers tell tokens apart. */
static double deviation_of(const lc_config *c, const lc_name *n) {
    if (n->part == LC_PART_EMBEDDING || n->part == LC_PART_NGRAM_TABLES ||
        strstr(n->name, ".embed_tokens."))
        return sqrt((double)(1 + lc_config_ngram_tables(c)));
    bool q = c->mla_scale_q && ends_with(n->name, ".q_b_proj.weight");
    bool kv = c->mla_scale_kv && ends_with(n->name, ".kv_b_proj.weight");
    return 1 / sqrt((double)(q || kv ? c->hidden : n->shape[1]));
}

static recipe recipe_of(const lc_config *c, const lc_name *n) {
    if (n->rank == 1)
        return (recipe){.law = ends_with(n->name, ".weight") ? LAW_NEAR_ONE : LAW_ZERO};
    return (recipe){.law = LAW_UNIFORM, .amplitude = (float)(sqrt(3) * deviation_of(c, n))};
}

/* int4 in compressed-tensors' packing: 8 codes a word, a scale for 64. */
static int plan_int4(plan *p, const lc_name *n, recipe r) {
    char name[NAME];
    recipe scales = {.law = LAW_SCALES, .amplitude = r.amplitude / I4_MOST};
    lc_name words = {.rank = 2, .shape = {n->shape[0], (n->shape[1] + 7) / 8}};
    lc_name grid = {.rank = 2, .shape = {n->shape[0], (n->shape[1] + GROUP - 1) / GROUP}};
    snprintf(name, sizeof name, "%s_packed", n->name);
    r.law = LAW_CODES;
    int status = add_tensor(p, name, LC_I32, &words, r);
    snprintf(name, sizeof name, "%s_scale", n->name);
    return status == LC_OK ? add_tensor(p, name, LC_BF16, &grid, scales) : status;
}

/* A matrix in codes, and its scales. */
static int plan_quantised(plan *p, const lc_name *n, recipe r) {
    char name[NAME];
    if (p->how->type == LC_I32) return plan_int4(p, n, r);
    bool f8 = p->how->type == LC_F8_E4M3;
    recipe scales = {.law = LAW_SCALES, .amplitude = r.amplitude / (f8 ? F8_MOST : I8_MOST)};
    lc_name grid = {.rank = 2, .shape = {n->shape[0], 1}};
    if (f8)
        for (int d = 0; d < 2; d++)
            grid.shape[d] = (n->shape[d] + LC_SCALE_BLOCK_SIZE - 1) / LC_SCALE_BLOCK_SIZE;
    snprintf(name, sizeof name, f8 ? "%s_scale_inv" : "%s_scale", n->name);
    r.law = LAW_CODES;
    int status = add_tensor(p, n->name, p->how->type, n, r);
    return status == LC_OK ? add_tensor(p, name, LC_F32, &grid, scales) : status;
}

static int plan_tensor(void *ctx, const lc_name *n) {
    plan *p = ctx;
    if (n->part == LC_PART_MTP_NGRAM || (n->part == LC_PART_MTP && !p->how->draft)) return LC_OK;
    recipe r = recipe_of(&p->config, n);
    if (is_quantised(p, n)) return plan_quantised(p, n, r);
    return add_tensor(p, n->name, plain_type(p, n), n, r);
}

/* ---- config.json ---- */

static void set_number(struct json_object *o, const char *key, struct json_object *number) {
    if (json_object_object_get_ex(o, key, NULL))
        json_object_object_add(o, key, number);
    else
        json_object_put(number);
}

/* As the published FP8 and INT8 checkpoints say it, and `longcat quantize`. */
static const char *quantization_text(lc_dtype type) {
    if (type == LC_F8_E4M3)
        return "{\"quant_method\":\"fp8\",\"fmt\":\"e4m3\",\"activation_scheme\":\"dynamic\","
               "\"weight_block_size\":[128,128]}";
    if (type == LC_I32)
        return "{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\","
               "\"quantization_status\":\"compressed\",\"config_groups\":{\"group_0\":{\"targets\":"
               "["
               "\"Linear\"],\"weights\":{\"num_bits\":4,\"type\":\"int\",\"symmetric\":true,"
               "\"strategy\":\"group\",\"group_size\":64,\"dynamic\":false}}},"
               "\"ignore\":[\"lm_head\",\"re:.*router.*\",\"re:.*indexer.*\",\"re:.*embed.*\"]}";
    return "{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\","
           "\"quantization_status\":\"compressed\",\"config_groups\":{\"group_0\":{\"targets\":["
           "\"re:.*mlp\\\\.experts\\\\..*\",\"re:.*mlps\\\\..*\","
           "\"re:.*transformer_layer\\\\.mlp\\\\..*\"],\"weights\":{\"num_bits\":8,"
           "\"type\":\"int\",\"symmetric\":true,\"strategy\":\"channel\",\"dynamic\":false}}},"
           "\"ignore\":[\"lm_head\",\"re:.*self_attn.*\",\"re:.*router.*\",\"re:.*embed.*\","
           "\"re:.*eh_proj.*\"]}";
}

static int set_quantization(const plan *p, struct json_object *o) {
    lc_dtype type = p->how->type;
    struct json_object *quantization;
    json_object_object_del(o, "quantization_config");
    if (type != LC_F8_E4M3 && type != LC_I8 && type != LC_I32) return LC_OK;
    const char *text = quantization_text(type);
    int status = lc_json_parse(text, strlen(text), p->how->name, &quantization, p->err);
    if (status == LC_OK) json_object_object_add(o, "quantization_config", quantization);
    return status;
}

static int change_config(const plan *p, struct json_object *o) {
    const lc_synthetic *how = p->how;
    static const char *const ratios[] = {"ngram_vocab_size_ratio", "oe_vocab_size_ratio",
                                         "emb_vocab_size_ratio"};
    if (json_object_get_type(o) != json_type_object)
        return lc_fail(p->err, LC_EFORMAT, "%s: not a JSON object", how->name);
    if (how->layers) {
        set_number(o, "num_layers", json_object_new_uint64(how->layers));
        set_number(o, "num_hidden_layers", json_object_new_uint64(2 * how->layers));
    }
    if (how->vocab) set_number(o, "vocab_size", json_object_new_uint64(how->vocab));
    for (size_t i = 0; how->ngram_ratio > 0 && i < sizeof ratios / sizeof *ratios; i++)
        set_number(o, ratios[i], json_object_new_double(how->ngram_ratio));
    if (!how->draft) {
        json_object_object_del(o, "mtp_num_layers");
        json_object_object_del(o, "num_nextn_predict_layers");
    }
    set_number(o, "torch_dtype",
               json_object_new_string(how->type == LC_F32 ? "float32" : "bfloat16"));
    return set_quantization(p, o);
}

/* The changed config as text, and parsed into p->config. */
static int make_config(plan *p, lc_buf *text) {
    struct json_object *o;
    int status = lc_json_parse(p->how->config, p->how->config_len, p->how->name, &o, p->err);
    if (status != LC_OK) return status;
    status = change_config(p, o);
    if (status == LC_OK) {
        const char *json = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY |
                                                                 JSON_C_TO_STRING_NOSLASHESCAPE);
        if (!json || !lc_buf_puts(text, json) || !lc_buf_putc(text, '\n'))
            status = out_of_memory(p);
    }
    json_object_put(o);
    if (status == LC_OK)
        status = lc_config_parse(text->data, text->len, p->how->name, &p->config, p->err);
    return status;
}

/* ---- writing ---- */

/* model.safetensors, or model-00001-of-00009.safetensors. */
static void file_name(const plan *p, size_t file, char out[64]) {
    if (p->files == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05zu-of-%05zu.safetensors", file + 1, p->files);
}

typedef struct piece {
    size_t tensor, at; /* first element */
} piece;

/* A wave of pieces of one file. */
typedef struct wave {
    const plan *p;
    lc_safetensors_file *file;
    size_t first; /* tensor of the plan that is the file's tensor 0 */
    piece *pieces;
    char **buffers; /* [threads]: PIECE floats, then PIECE elements of 4 bytes */
    atomic_bool failed;
    lc_err err; /* of whoever set failed */
    int status;
} wave;

static size_t piece_length(const plan *p, const piece *at) {
    size_t left = p->recipes[at->tensor].count - at->at;
    return left < PIECE ? left : PIECE;
}

static void write_pieces(void *ctx, size_t begin, size_t end, int thread) {
    wave *w = ctx;
    lc_err err;
    float *floats = (float *)(void *)w->buffers[thread];
    for (size_t i = begin; i < end && !atomic_load(&w->failed); i++) {
        const piece *at = &w->pieces[i];
        size_t size = lc_dtype_size(w->p->tensors[at->tensor].dtype), n = piece_length(w->p, at);
        make_piece(w->p, at->tensor, at->at, n, floats, floats + PIECE);
        int status = lc_safetensors_put(w->file, at->tensor - w->first, at->at * size,
                                        floats + PIECE, n * size, &err);
        if (status != LC_OK && !atomic_exchange(&w->failed, true)) {
            w->err = err;
            w->status = status;
        }
    }
}

static bool report(const plan *p, uint64_t done, size_t files_done) {
    lc_synthetic_progress progress = {p->bytes, done, p->files, files_done};
    return !p->how->progress || p->how->progress(p->how->ctx, &progress);
}

/* Runs the waves of tensors [w->first, last). */
static int write_waves(wave *w, size_t last, lc_pool *pool, uint64_t *done) {
    const plan *p = w->p;
    size_t most = (size_t)lc_pool_threads(pool) * WAVE, n = 0;
    for (size_t t = w->first; t < last; t++) {
        for (size_t at = 0; at < p->recipes[t].count; at += PIECE) {
            w->pieces[n++] = (piece){t, at};
            *done += piece_length(p, &w->pieces[n - 1]) * lc_dtype_size(p->tensors[t].dtype);
            bool end = t + 1 == last && at + PIECE >= p->recipes[t].count;
            if (n < most && !end) continue;
            lc_pool_for(pool, n, 1, write_pieces, w);
            n = 0;
            if (w->status != LC_OK) {
                if (p->err) *p->err = w->err;
                return w->status;
            }
            if (!report(p, *done, p->recipes[w->first].file))
                return lc_fail(p->err, LC_ECANCELED, "cancelled");
        }
    }
    return LC_OK;
}

/* Tensors [first, last) are one file. */
static int write_file(wave *w, const char *path, size_t last, lc_pool *pool, uint64_t *done) {
    const plan *p = w->p;
    int status =
        lc_safetensors_create(path, p->tensors + w->first, last - w->first, &w->file, p->err);
    if (status != LC_OK) return status;
    status = write_waves(w, last, pool, done);
    if (status == LC_OK) return lc_safetensors_commit(w->file, p->err);
    lc_safetensors_discard(w->file);
    return status;
}

static int write_index(const plan *p, const char *path) {
    lc_buf text = {0};
    char file[64];
    lc_buf_printf(&text, "{\"metadata\":{\"total_size\":%llu},\n\"weight_map\":{",
                  (unsigned long long)p->bytes);
    for (size_t i = 0; i < p->count; i++) {
        file_name(p, p->recipes[i].file, file);
        lc_buf_printf(&text, "%s\n\"%s\":\"%s\"", i ? "," : "", p->tensors[i].name, file);
    }
    lc_buf_puts(&text, "\n}}\n");
    int status = text.failed ? out_of_memory(p) : lc_file_write(path, text.data, text.len, p->err);
    lc_buf_free(&text);
    return status;
}

static const char *in_folder(lc_buf *path, const char *out, const char *name) {
    lc_buf_clear(path);
    return lc_buf_printf(path, "%s/%s", out, name) ? path->data : NULL;
}

static int write_files(const plan *p, const char *out, lc_pool *pool, wave *w) {
    lc_buf path = {0};
    char name[64];
    uint64_t done = 0;
    int status = LC_OK;
    for (size_t file = 0, last = 0; file < p->files && status == LC_OK; file++) {
        w->first = last;
        while (last < p->count && p->recipes[last].file == file) last++;
        file_name(p, file, name);
        status = in_folder(&path, out, name) ? write_file(w, path.data, last, pool, &done)
                                             : out_of_memory(p);
    }
    if (status == LC_OK && !report(p, done, p->files))
        status = lc_fail(p->err, LC_ECANCELED, "cancelled");
    if (status == LC_OK && p->files > 1)
        status = in_folder(&path, out, "model.safetensors.index.json") ? write_index(p, path.data)
                                                                       : out_of_memory(p);
    lc_buf_free(&path);
    return status;
}

/* Allocates what the threads need, and writes all tensors. */
static int write_tensors(const plan *p, const char *out) {
    lc_pool *pool;
    int status = lc_pool_new(p->how->threads, &pool, p->err);
    if (status != LC_OK) return status;
    size_t threads = (size_t)lc_pool_threads(pool), buffer = 2 * PIECE * sizeof(float);
    wave w = {.p = p};
    w.pieces = lc_calloc(threads * WAVE, sizeof *w.pieces);
    w.buffers = lc_calloc(threads, sizeof *w.buffers);
    char *block = lc_calloc(threads, buffer);
    if (w.pieces && w.buffers && block) {
        for (size_t t = 0; t < threads; t++) w.buffers[t] = block + t * buffer;
        status = write_files(p, out, pool, &w);
    } else {
        status = out_of_memory(p);
    }
    lc_free(w.pieces);
    lc_free(w.buffers);
    lc_free(block);
    lc_pool_free(pool);
    return status;
}

/* ---- the folder ---- */

/* Makes the folder, or takes an empty one; *made: it wasn't there. */
static int take_folder(const char *out, bool *made, lc_err *err) {
    *made = false;
    int status = lc_make_parents(out, 0777, err);
    if (status != LC_OK) return status;
    *made = !mkdir(out, 0777);
    if (*made) return LC_OK;
    if (errno != EEXIST) return lc_fail_errno(err, LC_EIO, "%s", out);
    DIR *dir = opendir(out);
    if (!dir) return lc_fail_errno(err, LC_EIO, "%s", out);
    size_t entries = 0;
    for (const struct dirent *e; (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) entries++;
    closedir(dir);
    return entries ? lc_fail(err, LC_EINVAL, "%s: exists and isn't empty", out) : LC_OK;
}

static int check_room(const char *out, uint64_t bytes, lc_err *err) {
    struct statvfs disk;
    if (statvfs(out, &disk)) return lc_fail_errno(err, LC_EIO, "%s", out);
    uint64_t room = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (room >= bytes && room - bytes >= SPARE) return LC_OK;
    return lc_fail(err, LC_ELIMIT,
                   "%s: the checkpoint takes %.2f GB, the disk has %.2f GB free (%d MB stay free)",
                   out, (double)bytes / 1e9, (double)room / 1e9, SPARE >> 20);
}

/* Removes what an unfinished run has left; allocates nothing, since memory may be what is short. */
static void clean_up(const plan *p, const char *out, bool made) {
    char name[64];
    int dir = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) return;
    for (size_t file = 0; file < p->files; file++) {
        file_name(p, file, name);
        unlinkat(dir, name, 0);
    }
    unlinkat(dir, "model.safetensors.index.json", 0);
    unlinkat(dir, "config.json", 0);
    close(dir);
    if (made) rmdir(out);
}

/* config.json comes last: a folder that has one is complete. */
static int write_all(const plan *p, const char *out, const lc_buf *config) {
    lc_buf path = {0};
    bool made;
    int status = take_folder(out, &made, p->err);
    if (status != LC_OK) return status;
    status = check_room(out, p->bytes, p->err);
    if (status == LC_OK) status = write_tensors(p, out);
    if (status == LC_OK)
        status = in_folder(&path, out, "config.json")
                     ? lc_file_write(path.data, config->data, config->len, p->err)
                     : out_of_memory(p);
    if (status != LC_OK) clean_up(p, out, made);
    lc_buf_free(&path);
    return status;
}

int lc_synthetic_write(const lc_synthetic *how, const char *out, uint64_t *bytes, lc_err *err) {
    plan p = {.how = how, .err = err};
    lc_buf config = {0};
    if (how->type != LC_F32 && how->type != LC_BF16 && how->type != LC_F8_E4M3 &&
        how->type != LC_I8 && how->type != LC_I32)
        return lc_fail(err, LC_EINVAL, "%s: weights of type %s can't be made", how->name,
                       lc_dtype_name(how->type));
    fill_f8_codes(p.f8_codes);
    p.arena = lc_arena_new(0);
    int status = p.arena ? make_config(&p, &config) : out_of_memory(&p);
    if (status == LC_OK) status = lc_names_expected(&p.config, plan_tensor, &p);
    if (status == LC_OK) status = write_all(&p, out, &config);
    if (status == LC_OK && bytes) *bytes = p.bytes;
    lc_buf_free(&config);
    lc_free(p.tensors);
    lc_free(p.recipes);
    lc_arena_free(p.arena);
    return status;
}
