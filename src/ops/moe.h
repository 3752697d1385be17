/*
 * moe.h: SwiGLU feed-forward layers, dense and expert, and the router over routed and identity
 * experts (docs/model.md 2.5). An identity expert returns its input and costs no matrix product.
 */
#ifndef LC_OPS_MOE_H
#define LC_OPS_MOE_H

#include "format/config.h"
#include "ops/linear.h"

/* gate and up are stored in one form (lc_form_of), and so are all experts. */
typedef struct lc_ffn_weights {
    lc_mat gate, up; /* [F][H] */
    lc_mat down;     /* [H][F] */
} lc_ffn_weights;

/* Buffers of a feed-forward layer on `rows` rows. */
typedef struct lc_ffn_buffers {
    float *hidden; /* [rows][F] */
    float *packed; /* lc_operand_floats(op, rows, F) */
} lc_ffn_buffers;

/* out [M][H] = down(silu(gate x) * (up x)). */
int lc_ffn(const lc_op *op, const lc_ffn_weights *w, lc_operand *x, const lc_ffn_buffers *b,
           float *out, lc_err *err);
/* Scratch floats of a thread for M rows. */
size_t lc_ffn_scratch(const lc_op *op, size_t hidden, size_t ffn, size_t m);

typedef struct lc_moe_shape {
    size_t hidden, ffn; /* expert width */
    size_t experts, zero_experts, topk;
    float routed_scale;
    bool identity_scaled; /* switch: identity experts get routed_scale too */
} lc_moe_shape;
void lc_moe_shape_init(lc_moe_shape *shape, const lc_config *config);

typedef struct lc_moe_weights {
    lc_mat router;                 /* [E+Z][H] */
    const float *router_bias;      /* [E+Z] e_score_correction_bias */
    const lc_ffn_weights *experts; /* [E] */
} lc_moe_weights;

typedef struct lc_moe_buffers {
    float *logits;        /* [M][E+Z] */
    float *probs;         /* [M][E+Z] */
    int32_t *ids;         /* [M][K], best p + bias first */
    float *weights;       /* [M][K] p * routed_scale, in the order of ids */
    float *x;             /* router input, packed in fp32: lc_left_floats(M, H) */
    size_t *first;        /* [E+1] start of each expert's tokens in tokens */
    int32_t *tokens;      /* [M*K] rows, grouped by expert */
    float *token_weights; /* [M*K] */
    float *gathered;      /* the experts' packed inputs: lc_operand_floats(op, M*K, H) */
    lc_ffn_buffers ffn;   /* for M*K rows */
} lc_moe_buffers;

/* Fills logits, probs, ids and weights from the fp32 input u [M][H]. */
int lc_route(const lc_op *op, const lc_moe_shape *s, const lc_moe_weights *w, size_t m,
             const float *u, const lc_moe_buffers *b, lc_err *err);
/* Router choice for one row: probs [n], bias [n] -> ids and weights [k]. Equal scores go to the
 * lower index. */
void lc_route_row(size_t n, size_t k, const float *probs, const float *bias, float scale,
                  int32_t *ids, float *weights);

/* Scratch floats of a thread for M rows. */
size_t lc_moe_scratch(const lc_op *op, const lc_moe_shape *s, size_t m);

/* After lc_route: out [M][H] = sum over chosen experts in increasing id of weight * expert(u),
 * identity experts last, summed in fp32. */
int lc_moe(const lc_op *op, const lc_moe_shape *s, const lc_moe_weights *w, size_t m,
           const float *u, const lc_moe_buffers *b, float *out, lc_err *err);

#endif
