/*
 * kv_b.c: both products are packed head by head, the keys of all heads first, then the values.
 *
 * Codes lie in strips of 16 outputs (kernels.h). The values' products contract over the latent, as
 * the groups of codes lie. The keys' contract over a head's rows, whose scales differ: a group of
 * latent columns is a product of its own, of codes alone, whose left rows are multiplied by the
 * rows' scales in that group before they are quantised (numerics.md 1).
 */
#include "ops/kv_b.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

enum { ROWS = 128 /* queries that pass a head's keys together */ };

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }
static size_t head_rows(const lc_mla_shape *s) { return s->nope + s->v; }
static size_t width_of(const lc_mla_shape *s) { return s->kv_rank + s->rope; }

/* ---- plain: for op's path ---- */

static size_t plain_keys_at(const lc_gemm_path *path, const lc_mla_shape *s, size_t head) {
    return head * lc_right_bytes(path, s->nope, s->kv_rank);
}

static size_t plain_values_at(const lc_gemm_path *path, const lc_mla_shape *s, size_t head) {
    return plain_keys_at(path, s, s->heads) + head * lc_right_bytes(path, s->kv_rank, s->v);
}

/* ---- codes ---- */

/* Bytes of n outputs in strips, contracted over k. */
static size_t strips_bytes(lc_code_kind kind, size_t n, size_t k) {
    size_t strips = lc_ceil_div(n, LC_STRIP_ROWS) * LC_STRIP_ROWS;
    return strips * lc_pad_k(k) / (kind == LC_CODES_U4 ? 2 : 1);
}

/* Where the parts begin: ones for the codes of keys, the scales of the keys' rows [head][group]
 * [nope], those of the values [head][strip][group][16], codes [head], last their end. */
typedef struct coded_places {
    size_t groups, value_numbers; /* scales of a head's values */
    size_t key_scales, value_scales, keys, values, end;
} coded_places;

static coded_places places_of(const lc_mla_shape *s, const lc_kv_b *b) {
    coded_places p = {.groups = lc_ceil_div(s->kv_rank, b->size)};
    p.value_numbers = lc_ceil_div(s->v, LC_STRIP_ROWS) * LC_STRIP_ROWS * p.groups;
    p.key_scales = lc_ceil_div(s->kv_rank, LC_STRIP_ROWS) * LC_STRIP_ROWS * sizeof(float);
    p.value_scales = p.key_scales + s->heads * p.groups * s->nope * sizeof(float);
    size_t scales = p.value_scales + s->heads * p.value_numbers * sizeof(float);
    p.keys = lc_ceil_div(scales, 64) * 64;
    p.values = p.keys + s->heads * strips_bytes(b->kind, s->kv_rank, s->nope);
    p.end = p.values + s->heads * strips_bytes(b->kind, s->v, s->kv_rank);
    return p;
}

static const float *floats_at(const lc_kv_b *b, size_t at) {
    return (const float *)(const void *)(b->packed + at);
}

/* n outputs over k: code(output, i) is codes[output * step + i * along]. */
typedef struct code_block {
    const int8_t *codes;
    size_t step, along, n, k;
} code_block;

static void fill_strips(const code_block *c, lc_code_kind kind, char *out) {
    bool halves = kind == LC_CODES_U4;
    size_t each = halves ? 8 : 4, strip = strips_bytes(kind, 1, c->k);
    memset(out, halves ? 0x88 : 0, strips_bytes(kind, c->n, c->k)); /* zeros */
    for (size_t j = 0; j < c->n; j++) {
        char *lane = out + j / LC_STRIP_ROWS * strip + j % LC_STRIP_ROWS * 4;
        const int8_t *code = c->codes + j * c->step;
        for (size_t i = 0; i < c->k; i++, code += c->along) {
            char *word = lane + i / each * 4 * LC_STRIP_ROWS;
            if (halves) /* 8 more is the highest bit turned */
                word[i % 8 / 2] ^= (char)((*code & 15) << i % 2 * 4);
            else
                word[i % 4] = *code;
        }
    }
}

/* codes [nope + v][R] and scales [nope + v][groups] of a head. */
static void pack_codes(const lc_mla_shape *s, const lc_kv_b *b, size_t head, const int8_t *codes,
                       const float *scales) {
    coded_places p = places_of(s, b);
    float *keys = (float *)(void *)(b->packed + p.key_scales) + head * p.groups * s->nope;
    float *values = (float *)(void *)(b->packed + p.value_scales) + head * p.value_numbers;
    for (size_t g = 0; g < p.groups; g++) {
        for (size_t i = 0; i < s->nope; i++) keys[g * s->nope + i] = scales[i * p.groups + g];
        for (size_t j = 0; j < s->v; j++)
            values[(j / LC_STRIP_ROWS * p.groups + g) * LC_STRIP_ROWS + j % LC_STRIP_ROWS] =
                scales[(s->nope + j) * p.groups + g];
    }
    code_block key = {codes, 1, s->kv_rank, s->kv_rank, s->nope};
    code_block value = {codes + s->nope * s->kv_rank, s->kv_rank, 1, s->v, s->kv_rank};
    fill_strips(&key, b->kind,
                b->packed + p.keys + head * strips_bytes(b->kind, s->kv_rank, s->nope));
    fill_strips(&value, b->kind,
                b->packed + p.values + head * strips_bytes(b->kind, s->v, s->kv_rank));
}

/* ---- packing ---- */

typedef struct pack_task {
    const lc_op *op;
    const lc_mla_shape *s;
    const lc_mat *mat;
    const lc_kv_b *b;
} pack_task;

static void pack_plain(const pack_task *t, size_t head, float *rows) {
    const lc_mla_shape *s = t->s;
    const lc_gemm_path *path = t->op->path;
    size_t n = head_rows(s);
    lc_mat_rows_f32(t->op->k, t->mat, head * n, n, rows, s->kv_rank);
    if (t->op->round_quantised && t->mat->scaling != LC_SCALE_NONE)
        t->op->k->round_bf16(n * s->kv_rank, rows, rows);
    lc_right keys = {s->nope, s->kv_rank, 0, s->nope, rows, s->kv_rank, true};
    lc_right values = {s->kv_rank, s->v, 0, s->kv_rank, rows + s->nope * s->kv_rank,
                       s->kv_rank, false};
    path->pack_right(&keys, t->b->packed + plain_keys_at(path, s, head));
    path->pack_right(&values, t->b->packed + plain_values_at(path, s, head));
}

static void pack_heads(void *ctx, size_t begin, size_t end, int thread) {
    const pack_task *t = ctx;
    size_t n = head_rows(t->s), groups = t->b->coded ? places_of(t->s, t->b).groups : 0;
    float *scratch = t->op->scratch[thread];
    int8_t *codes = (int8_t *)(void *)(scratch + n * groups);
    for (size_t h = begin; h < end; h++) {
        if (t->b->coded) {
            lc_mat_signed_codes(t->mat, h * n, n, codes, scratch);
            pack_codes(t->s, t->b, h, codes, scratch);
        } else {
            pack_plain(t, h, scratch);
        }
    }
}

int lc_kv_b_pack(const lc_op *op, const lc_mla_shape *s, const lc_mat *kv_b, lc_kv_b *out,
                 lc_err *err) {
    int status = lc_mat_acquire(kv_b, err);
    if (status != LC_OK) return status;
    lc_form form = lc_form_of(op, kv_b);
    *out = (lc_kv_b){.coded = form.coded && lc_mat_symmetric(kv_b),
                     .kind = form.kind == LC_CODES_U4 ? LC_CODES_U4 : LC_CODES_I8,
                     .size = form.size};
    out->bytes = out->coded ? places_of(s, out).end : plain_values_at(op->path, s, s->heads);
    out->packed = lc_alloc_dense(out->bytes, false);
    if (!out->packed)
        status = lc_fail(err, LC_ENOMEM, "tensor %s, packed: out of memory", kv_b->name);
    else
        lc_pool_for(op->pool, s->heads, 1, pack_heads, &(pack_task){op, s, kv_b, out});
    if (out->packed && out->coded)
        for (size_t i = 0; i < s->kv_rank; i++) ((float *)(void *)out->packed)[i] = 1.0f;
    lc_mat_release(kv_b);
    return status;
}

void lc_kv_b_free(lc_kv_b *kv_b) {
    lc_free(kv_b->packed);
    kv_b->packed = NULL;
}

/* ---- products ---- */

typedef struct product_task {
    const lc_op *op;
    const lc_mla_shape *s;
    const lc_kv_b *b;
    size_t m;
    const float *in;
    float *out;
} product_task;

/* Left rows of codes [m][k] times n outputs in strips; scales [strip][group][16]. */
static void multiply_codes(const product_task *t, size_t k, size_t size, const void *left, size_t m,
                           const char *codes, const float *scales, size_t n, float *c, size_t ldc,
                           void *scratch) {
    bool halves = t->b->kind == LC_CODES_U4;
    t->op->k->coded.multiply(&(lc_coded_product){.rows = m,
                                                 .k = lc_pad_k(k),
                                                 .columns = n,
                                                 .left = left,
                                                 .right = {.kind = t->b->kind,
                                                           .layout = LC_CODES_IN_STRIPS,
                                                           .codes = (const uint8_t *)codes,
                                                           .stride = strips_bytes(t->b->kind, 1, k),
                                                           .size = size < k ? size : lc_pad_k(k),
                                                           .scale_type = LC_SCALES_F32,
                                                           .scales = scales,
                                                           .zero = halves ? 8 : 0},
                                                 .c = c,
                                                 .ldc = ldc,
                                                 .scratch = scratch});
}

/* m <= ROWS rows of a head's queries, q [m][nope] -> out [m][W], group by group. */
static void absorb_codes(const product_task *t, size_t head, size_t m, const float *q, float *out,
                         float *scratch) {
    const lc_mla_shape *s = t->s;
    const lc_coded_path *coded = &t->op->k->coded;
    coded_places p = places_of(s, t->b);
    const float *scales = floats_at(t->b, p.key_scales) + head * p.groups * s->nope;
    const char *keys = t->b->packed + p.keys + head * strips_bytes(t->b->kind, s->kv_rank, s->nope);
    float *left = scratch + lc_left_floats(m, s->nope);
    char *space = (char *)left + coded->left_bytes(m, s->nope, s->nope);
    for (size_t g = 0; g < p.groups; g++, scales += s->nope) {
        size_t column = g * t->b->size, n = s->kv_rank - column;
        for (size_t i = 0; i < m; i++)
            t->op->k->mul(s->nope, q + i * s->nope, scales, scratch + i * s->nope);
        coded->pack(t->b->kind, s->nope, m, s->nope, scratch, s->nope, left);
        multiply_codes(t, s->nope, s->nope, left, m,
                       keys + strips_bytes(t->b->kind, column, s->nope), floats_at(t->b, 0),
                       n < t->b->size ? n : t->b->size, out + column, width_of(s), space);
    }
}

/* Rows x [m][ldx] times n outputs that are packed for op's path. */
static void multiply_plain(const product_task *t, size_t k, const float *x, size_t ldx,
                           const char *right, size_t n, float *c, size_t ldc, float *scratch) {
    const lc_gemm_path *path = t->op->path;
    path->pack_kn(t->m, k, x, ldx, scratch);
    path->multiply(&(lc_product){.rows = t->m,
                                 .k = k,
                                 .columns = n,
                                 .left = scratch,
                                 .right = right,
                                 .c = c,
                                 .ldc = ldc,
                                 .scratch = scratch + lc_left_floats(t->m, k)});
}

static void absorb_heads(void *ctx, size_t begin, size_t end, int thread) {
    const product_task *t = ctx;
    const lc_mla_shape *s = t->s;
    size_t head_dim = s->nope + s->rope, ld = s->heads * head_dim, width = width_of(s);
    float *scratch = t->op->scratch[thread];
    for (size_t h = begin; h < end; h++) {
        const float *q = t->in + h * head_dim;
        float *out = t->out + h * t->m * width;
        if (!t->b->coded)
            multiply_plain(t, s->nope, q, ld, t->b->packed + plain_keys_at(t->op->path, s, h),
                           s->kv_rank, out, width, scratch);
        for (size_t row = 0; t->b->coded && row < t->m; row += ROWS) {
            size_t n = t->m - row < ROWS ? t->m - row : ROWS;
            for (size_t i = 0; i < n; i++)
                memcpy(scratch + i * s->nope, q + (row + i) * ld, s->nope * sizeof *q);
            absorb_codes(t, h, n, scratch, out + row * width, scratch + ROWS * s->nope);
        }
        for (size_t i = 0; i < t->m; i++)
            memcpy(out + i * width + s->kv_rank, q + i * ld + s->nope, s->rope * sizeof *q);
    }
}

static void expand_codes(const product_task *t, size_t head, const float *context, float *out,
                         float *scratch) {
    const lc_mla_shape *s = t->s;
    const lc_coded_path *coded = &t->op->k->coded;
    coded_places p = places_of(s, t->b);
    char *space = (char *)scratch + coded->left_bytes(t->m, s->kv_rank, t->b->size);
    coded->pack(t->b->kind, t->b->size, t->m, s->kv_rank, context, width_of(s), scratch);
    multiply_codes(t, s->kv_rank, t->b->size, scratch, t->m,
                   t->b->packed + p.values + head * strips_bytes(t->b->kind, s->v, s->kv_rank),
                   floats_at(t->b, p.value_scales) + head * p.value_numbers, s->v, out,
                   s->heads * s->v, space);
}

static void expand_heads(void *ctx, size_t begin, size_t end, int thread) {
    const product_task *t = ctx;
    const lc_mla_shape *s = t->s;
    float *scratch = t->op->scratch[thread];
    for (size_t h = begin; h < end; h++) {
        const float *context = t->in + h * t->m * width_of(s);
        float *out = t->out + h * s->v;
        if (t->b->coded)
            expand_codes(t, h, context, out, scratch);
        else
            multiply_plain(t, s->kv_rank, context, width_of(s),
                           t->b->packed + plain_values_at(t->op->path, s, h), s->v, out,
                           s->heads * s->v, scratch);
    }
}

/* Heads of a task. With few rows memory binds, and likes neighbours. */
static size_t heads_grain(const lc_op *op, const lc_mla_shape *s, size_t m) {
    return m > LC_FEW_ROWS ? 1 : lc_ceil_div(s->heads, 4 * (size_t)lc_pool_threads(op->pool));
}

void lc_kv_b_absorb(const lc_op *op, const lc_mla_shape *s, const lc_kv_b *kv_b, size_t m,
                    const float *q, float *absorbed) {
    product_task t = {op, s, kv_b, m, q, absorbed};
    lc_pool_for(op->pool, s->heads, heads_grain(op, s, m), absorb_heads, &t);
}

void lc_kv_b_expand(const lc_op *op, const lc_mla_shape *s, const lc_kv_b *kv_b, size_t m,
                    const float *context, float *heads) {
    product_task t = {op, s, kv_b, m, context, heads};
    lc_pool_for(op->pool, s->heads, heads_grain(op, s, m), expand_heads, &t);
}

/* Of m rows of k in groups of `size`: packed, and what their product needs. */
static size_t coded_floats(const lc_op *op, size_t m, size_t k, size_t size) {
    const lc_coded_path *coded = &op->k->coded;
    return lc_ceil_div(coded->left_bytes(m, k, size), sizeof(float)) +
           lc_ceil_div(coded->scratch_bytes(m, lc_pad_k(k), size), sizeof(float));
}

size_t lc_kv_b_scratch(const lc_op *op, const lc_mla_shape *s, size_t m) {
    size_t some = m < ROWS ? m : ROWS;
    size_t head = head_rows(s) * (s->kv_rank + 1); /* its rows, or codes and scales */
    size_t absorb = lc_left_floats(m, s->nope) + lc_product_floats(op, m, s->nope);
    size_t expand = lc_left_floats(m, s->kv_rank) + lc_product_floats(op, m, s->kv_rank);
    size_t absorb_coded =
        ROWS * s->nope + lc_left_floats(some, s->nope) + coded_floats(op, some, s->nope, s->nope);
    size_t expand_coded = coded_floats(op, m, s->kv_rank, LC_K_BLOCK);
    size_t products = larger(larger(absorb, expand), larger(absorb_coded, expand_coded));
    return larger(head, products);
}
