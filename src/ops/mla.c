/* mla.c: the projections around attend.c. */
#include "ops/mla.h"

#include "ops/attend.h"

#include <math.h>
#include <string.h>

void lc_mla_shape_init(lc_mla_shape *s, const lc_config *c) {
    double h = (double)c->hidden;
    *s = (lc_mla_shape){
        .hidden = c->hidden,
        .heads = c->heads,
        .q_rank = c->q_rank,
        .kv_rank = c->kv_rank,
        .nope = c->nope_dim,
        .rope = c->rope_dim,
        .v = c->v_dim,
        .norm_eps = (float)c->switches.mla_eps,
        .q_scale = c->mla_scale_q ? (float)sqrt(h / (double)c->q_rank) : 1.0f,
        .kv_scale = c->mla_scale_kv ? (float)sqrt(h / (double)c->kv_rank) : 1.0f,
        .softmax_scale = lc_rope_softmax_scale(c),
    };
}

static size_t padded_width(const lc_mla_shape *s) { return lc_pad_k(s->kv_rank + s->rope); }

void lc_mla_floats(const lc_mla_shape *s, size_t m, size_t floats[6]) {
    floats[0] = m * s->q_rank;
    floats[1] = m * lc_pad_k(s->q_rank);
    floats[2] = m * s->heads * (s->nope + s->rope);
    floats[3] = m * s->heads * padded_width(s);
    floats[4] = m * (s->kv_rank + s->rope);
    floats[5] = m * lc_pad_k(s->heads * s->v);
}

static size_t absorb_scratch(const lc_mla_shape *s, size_t m) {
    size_t nope = lc_pad_k(s->nope), columns = lc_ceil_div(s->kv_rank, LC_LANES) * LC_LANES;
    return m * nope + nope * columns;
}

size_t lc_mla_scratch(const lc_mla_shape *s, size_t m) {
    size_t a = absorb_scratch(s, m), b = lc_attend_scratch(s);
    size_t c = lc_linear_scratch(s->kv_rank) + m * lc_pad_k(s->kv_rank);
    return a > b ? (a > c ? a : c) : (b > c ? b : c);
}

void lc_kv_gather(const lc_op *op, size_t element, size_t width, const char *const *from, size_t n,
                  size_t stride, float *out) {
    for (size_t i = 0; i < n; i++, out += stride) {
        if (element == sizeof(float))
            memcpy(out, from[i], width * sizeof *out);
        else
            op->k->widen_bf16(width, (const uint16_t *)(const void *)from[i], out);
        memset(out + width, 0, (stride - width) * sizeof *out);
    }
}

void lc_kv_store(const lc_op *op, size_t element, size_t width, const float *x, char *to) {
    if (element == sizeof(float))
        memcpy(to, x, width * sizeof *x);
    else
        op->k->narrow_bf16(width, x, (uint16_t *)(void *)to);
}

typedef struct mla_task {
    const lc_op *op;
    const lc_mla_shape *s;
    const lc_mla_weights *w;
    const lc_mla_args *args;
    const lc_mla_buffers *b;
    const lc_rope *rope;
    const lc_row *rows;
    size_t m;
    float *cosines, *sines;
} mla_task;

static void fill_tables(void *ctx, size_t begin, size_t end, int thread) {
    const mla_task *t = ctx;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        lc_rope_table(t->rope, t->rows[i].pos, t->cosines + i * t->rope->half,
                      t->sines + i * t->rope->half);
}

void lc_rope_rows_fill(const lc_op *op, const lc_rope *rope, size_t m, const lc_row *rows,
                       float *cosines, float *sines) {
    mla_task t = {.rope = rope, .rows = rows, .cosines = cosines, .sines = sines};
    lc_pool_for(op->pool, m, LC_ROW_GRAIN, fill_tables, &t);
}

int lc_mla_query_latent(const lc_op *op, const lc_mla_shape *s, const lc_mla_weights *w,
                        lc_operand x, const lc_mla_buffers *b, lc_err *err) {
    int status = lc_linear(op, &w->q_a, x, b->c_q, s->q_rank, err);
    if (status != LC_OK) return status;
    lc_norm_rows(op, x.rows, s->q_rank, b->c_q, s->q_rank, w->q_a_norm, s->norm_eps, 1.0f, b->c_q,
                 s->q_rank);
    lc_operand_prepare(op, x.rows, s->q_rank, b->c_q, s->q_rank, b->c_q_op);
    return LC_OK;
}

/* Scales and rotates the rows' queries; norms, rotates and stores their cache entries. */
static void finish_rows(void *ctx, size_t begin, size_t end, int thread) {
    const mla_task *t = ctx;
    const lc_mla_shape *s = t->s;
    size_t head_dim = s->nope + s->rope, half = s->rope / 2, width = s->kv_rank + s->rope;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const float *cosines = t->args->rope.cosines + i * half,
                    *sines = t->args->rope.sines + i * half;
        float *q = t->b->q + i * s->heads * head_dim, *kv = t->b->kv + i * width;
        for (size_t j = 0; j < s->heads * head_dim; j++) q[j] *= s->q_scale;
        for (size_t h = 0; h < s->heads; h++)
            lc_rope_rotate(half, cosines, sines, q + h * head_dim + s->nope);
        t->op->k->rms_norm(s->kv_rank, kv, t->w->kv_a_norm, s->norm_eps, kv);
        for (size_t j = 0; j < s->kv_rank; j++) kv[j] *= s->kv_scale;
        lc_rope_rotate(half, cosines, sines, kv + s->kv_rank);
        const lc_row *row = &t->args->rows[i];
        lc_kv_store(t->op, row->kv->layout.element, width, kv,
                    lc_kv_latent(row->kv, t->args->slot, row->pos));
    }
}

/* q' = q_nope W_kvb_k for a head: the contraction runs over the weight's rows, so they are a panel
 * as they stand. */
static void absorb_heads(void *ctx, size_t begin, size_t end, int thread) {
    const mla_task *t = ctx;
    const lc_mla_shape *s = t->s;
    size_t nope = lc_pad_k(s->nope), head_dim = s->nope + s->rope, stride = padded_width(s);
    size_t columns = lc_ceil_div(s->kv_rank, LC_LANES) * LC_LANES;
    float *queries = t->op->scratch[thread], *panel = queries + t->m * nope;
    for (size_t h = begin; h < end; h++) {
        memset(panel, 0, nope * columns * sizeof *panel);
        for (size_t d = 0; d < s->nope; d++)
            lc_weight_row(t->op, &t->w->kv_b, h * (s->nope + s->v) + d, panel + d * columns);
        for (size_t i = 0; i < t->m; i++)
            lc_operand_row(t->op, s->nope, t->b->q + (i * s->heads + h) * head_dim,
                           queries + i * nope);
        float *out = t->b->absorbed + h * stride;
        for (size_t c = 0; c < s->kv_rank; c += LC_LANES)
            t->op->k->gemm(
                &(lc_gemm){.rows = t->m,
                           .k = nope,
                           .a = queries,
                           .lda = nope,
                           .panel = panel + c,
                           .ldp = columns,
                           .c = out + c,
                           .ldc = s->heads * stride,
                           .columns = s->kv_rank - c < LC_LANES ? s->kv_rank - c : LC_LANES});
        for (size_t i = 0; i < t->m; i++) {
            float *row = out + i * s->heads * stride;
            memcpy(row + s->kv_rank, t->b->q + (i * s->heads + h) * head_dim + s->nope,
                   s->rope * sizeof *row);
            lc_operand_row(t->op, s->kv_rank + s->rope, row, row);
        }
    }
}

/* heads[.][h*v..] = context W_kvb_v for a head. */
static void expand_heads(void *ctx, size_t begin, size_t end, int thread) {
    const mla_task *t = ctx;
    const lc_mla_shape *s = t->s;
    size_t stride = padded_width(s), k = lc_pad_k(s->kv_rank),
           out_stride = lc_pad_k(s->heads * s->v);
    float *panel = t->op->scratch[thread], *decoded = panel + LC_LANES * k;
    for (size_t h = begin; h < end; h++)
        for (size_t c = 0; c < s->v; c += LC_LANES) {
            size_t n = s->v - c < LC_LANES ? s->v - c : LC_LANES;
            lc_panel_pack(t->op, &t->w->kv_b, h * (s->nope + s->v) + s->nope + c, n, panel,
                          decoded);
            t->op->k->gemm(&(lc_gemm){.rows = t->m,
                                      .k = k,
                                      .a = t->b->absorbed + h * stride,
                                      .lda = s->heads * stride,
                                      .panel = panel,
                                      .ldp = LC_LANES,
                                      .c = t->b->heads + h * s->v + c,
                                      .ldc = out_stride,
                                      .columns = n});
        }
}

int lc_mla(const lc_op *op, const lc_mla_shape *s, const lc_mla_weights *w, lc_operand x,
           const lc_mla_args *args, const lc_mla_buffers *b, float *out, lc_err *err) {
    size_t m = x.rows, width = s->kv_rank + s->rope, v = s->heads * s->v;
    lc_operand c_q = {b->c_q_op, m, s->q_rank, lc_pad_k(s->q_rank)};
    mla_task t = {.op = op, .s = s, .w = w, .args = args, .b = b, .m = m};
    int status = lc_linear(op, &w->q_b, c_q, b->q, s->heads * (s->nope + s->rope), err);
    if (status == LC_OK) status = lc_linear(op, &w->kv_a, x, b->kv, width, err);
    if (status == LC_OK) status = lc_mat_acquire(&w->kv_b, err);
    if (status != LC_OK) return status;
    lc_pool_for(op->pool, m, LC_ROW_GRAIN, finish_rows, &t);
    lc_pool_for(op->pool, s->heads, 1, absorb_heads, &t);
    lc_attend(op, s, m, args, b->absorbed);
    lc_pool_for(op->pool, s->heads, 1, expand_heads, &t);
    lc_mat_release(&w->kv_b);
    lc_operand heads = {b->heads, m, v, lc_pad_k(v)};
    for (size_t i = 0; i < m; i++)
        lc_operand_row(op, v, b->heads + i * heads.stride, b->heads + i * heads.stride);
    return lc_linear(op, &w->o, heads, out, s->hidden, err);
}
