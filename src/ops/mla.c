/* mla.c: the projections around attend.c. */
#include "ops/mla.h"

#include "ops/attend.h"
#include "ops/kv_b.h"

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

static size_t width_of(const lc_mla_shape *s) { return s->kv_rank + s->rope; }

void lc_mla_floats(const lc_op *op, const lc_mla_shape *s, size_t m,
                   size_t floats[LC_MLA_BUFFERS]) {
    floats[0] = m * s->q_rank;
    floats[1] = lc_operand_floats(op, m, s->q_rank);
    floats[2] = m * s->heads * (s->nope + s->rope);
    floats[3] = m * s->heads * width_of(s);
    floats[4] = m * width_of(s);
    floats[5] = m * s->heads * s->v;
    floats[6] = lc_operand_floats(op, m, s->heads * s->v);
}

size_t lc_mla_scratch(const lc_op *op, const lc_mla_shape *s, size_t m) {
    size_t kv_b = lc_kv_b_scratch(op, s, m), attend = lc_attend_scratch(op, s);
    return kv_b > attend ? kv_b : attend;
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
                        lc_operand *x, const lc_mla_buffers *b, lc_operand *c_q, lc_err *err) {
    int status = lc_linear(op, &w->q_a, x, b->c_q, s->q_rank, err);
    if (status != LC_OK) return status;
    lc_norm norm = {w->q_a_norm, s->norm_eps, 1.0f};
    lc_norm_rows(op, x->left.rows, s->q_rank, b->c_q, s->q_rank, norm, b->c_q, s->q_rank);
    *c_q = lc_operand_of(x->left.rows, s->q_rank, b->c_q, s->q_rank, b->c_q_packed);
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
        t->op->k->scale(s->heads * head_dim, s->q_scale, q);
        for (size_t h = 0; h < s->heads; h++)
            lc_rope_rotate(half, cosines, sines, q + h * head_dim + s->nope);
        t->op->k->rms_norm(s->kv_rank, kv, t->w->kv_a_norm, s->norm_eps, kv);
        t->op->k->scale(s->kv_rank, s->kv_scale, kv);
        lc_rope_rotate(half, cosines, sines, kv + s->kv_rank);
        const lc_row *row = &t->args->rows[i];
        lc_kv_store(t->op, row->kv->layout.element, width, kv,
                    lc_kv_latent(row->kv, t->args->slot, row->pos));
    }
}

int lc_mla(const lc_op *op, const lc_mla_shape *s, const lc_mla_weights *w, lc_operand *x,
           lc_operand *c_q, const lc_mla_args *args, const lc_mla_buffers *b, float *out,
           lc_err *err) {
    size_t m = x->left.rows, v = s->heads * s->v;
    mla_task t = {.op = op, .s = s, .w = w, .args = args, .b = b, .m = m};
    int status = lc_linear(op, &w->q_b, c_q, b->q, s->heads * (s->nope + s->rope), err);
    if (status == LC_OK) status = lc_linear(op, &w->kv_a, x, b->kv, width_of(s), err);
    if (status != LC_OK) return status;
    lc_pool_for(op->pool, m, LC_ROW_GRAIN, finish_rows, &t);
    lc_kv_b_absorb(op, s, &w->kv_b_packed, m, b->q, b->absorbed);
    lc_op_lap(op, LC_STAGE_PROJECT);
    lc_attend(op, s, m, args, b->absorbed);
    lc_op_lap(op, LC_STAGE_ATTEND);
    lc_kv_b_expand(op, s, &w->kv_b_packed, m, b->absorbed, b->heads);
    lc_operand heads = lc_operand_of(m, v, b->heads, v, b->heads_packed);
    return lc_linear(op, &w->o, &heads, out, s->hidden, err);
}
