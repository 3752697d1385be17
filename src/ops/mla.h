/*
 * mla.h: multi-head latent attention (docs/model.md 2.3) in absorbed form over a latent cache: a
 * cached row is [latent R | rotated rope key], the query is carried into latent space (q_nope
 * W_kvb_k), and the context is carried out of it (W_kvb_v). Prefill, decode, cached and drafted
 * rows use one formula, so they give one result.
 */
#ifndef LC_OPS_MLA_H
#define LC_OPS_MLA_H

#include "ops/linear.h"
#include "ops/rope.h"

/* kv_b, packed (kv_b.h). */
typedef struct lc_kv_b {
    char *packed; /* owned */
    size_t bytes;
    bool coded; /* as codes: signed bytes, or of 4 bits with a zero point of 8 */
    lc_code_kind kind;
    size_t size; /* latent columns of a group of codes */
} lc_kv_b;

typedef struct lc_mla_weights {
    lc_mat q_a, q_b; /* [q_rank][H], [N*(nope+rope)][q_rank] */
    lc_mat kv_a,
        kv_b; /* [R+rope][H], [N*(nope+v)][R], rows grouped head by head: nope keys, then v */
    lc_mat o; /* [H][N*v] */
    const float *q_a_norm, *kv_a_norm;
    lc_kv_b kv_b_packed; /* what products read: lc_kv_b_pack, before lc_mla */
} lc_mla_weights;

/* Sizes and constants of a model's attention, the same in every sublayer. */
typedef struct lc_mla_shape {
    size_t hidden, heads, q_rank, kv_rank, nope, rope, v;
    float norm_eps, q_scale, kv_scale; /* sqrt(H/rank) or 1 */
    float softmax_scale;
} lc_mla_shape;
void lc_mla_shape_init(lc_mla_shape *shape, const lc_config *config);

/* Step buffers; sizes from lc_mla_floats. */
typedef struct lc_mla_buffers {
    float *c_q;          /* [M][q_rank] normed query latent, fp32 */
    float *c_q_packed;   /* lc_operand_floats(op, M, q_rank) */
    float *q;            /* [M][N*(nope+rope)] */
    float *absorbed;     /* [N][M][W]; reused for the context */
    float *kv;           /* [M][R+rope] */
    float *heads;        /* [M][N*v] */
    float *heads_packed; /* lc_operand_floats(op, M, N*v) */
} lc_mla_buffers;

/* Which keys each row attends to. list NULL or count[i] == every causal key: all of start..pos. */
typedef struct lc_keys {
    const int32_t *list; /* [M][stride], ascending positions */
    size_t stride;
    const size_t *count; /* [M] */
} lc_keys;

/* cos and sin of every row's position: [M][rope/2] each. */
typedef struct lc_rope_rows {
    const float *cosines, *sines;
} lc_rope_rows;
void lc_rope_rows_fill(const lc_op *op, const lc_rope *rope, size_t m, const lc_row *rows,
                       float *cosines, float *sines);

/* *c_q = the normed query latent of the normed input x, in b. The indexer needs it before
 * attention.
 */
int lc_mla_query_latent(const lc_op *op, const lc_mla_shape *s, const lc_mla_weights *w,
                        lc_operand *x, const lc_mla_buffers *b, lc_operand *c_q, lc_err *err);

typedef struct lc_mla_args {
    const lc_row *rows; /* [M] */
    lc_rope_rows rope;
    size_t slot; /* cache slot: layer * 2 + sublayer */
    lc_keys keys;
} lc_mla_args;

/* After lc_mla_query_latent: writes the rows' cache entries, attends, out [M][H]. The cache must
 * have blocks for every row's position. */
int lc_mla(const lc_op *op, const lc_mla_shape *s, const lc_mla_weights *w, lc_operand *x,
           lc_operand *c_q, const lc_mla_args *args, const lc_mla_buffers *b, float *out,
           lc_err *err);

/* Floats of the buffers above for M rows, and of a thread's scratch. */
enum { LC_MLA_BUFFERS = 7 };
void lc_mla_floats(const lc_op *op, const lc_mla_shape *s, size_t m, size_t floats[LC_MLA_BUFFERS]);
size_t lc_mla_scratch(const lc_op *op, const lc_mla_shape *s, size_t m);

/* Writes one cache row in the cache's element type. */
void lc_kv_store(const lc_op *op, size_t element, size_t width, const float *x, char *to);

#endif
