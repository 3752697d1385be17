/*
 * kv_b.h: attention's way into the latent space and out of it: q_nope W_kvb_k of a row's queries
 * and context W_kvb_v, head by head.
 *
 * Bargain: kv_b is a few hundredths of the weights, stored in anything, and every token passes it
 * in two directions. So it is packed once for both, in memory of our own: codes without zero points
 * of their own as codes, all else as BF16 or fp32 values for op's path.
 */
#ifndef LC_OPS_KV_B_H
#define LC_OPS_KV_B_H

#include "ops/mla.h"

/* Packs kv_b, rows as in lc_mla_weights. Errors: LC_ENOMEM, LC_EIO of a streamed weight. */
int lc_kv_b_pack(const lc_op *op, const lc_mla_shape *s, const lc_mat *kv_b, lc_kv_b *out,
                 lc_err *err);
void lc_kv_b_free(lc_kv_b *kv_b);

/* q [m][heads * (nope + rope)], rotated -> absorbed [heads][m][W]: q_nope W_kvb_k, then the rope
 * part as it is. */
void lc_kv_b_absorb(const lc_op *op, const lc_mla_shape *s, const lc_kv_b *kv_b, size_t m,
                    const float *q, float *absorbed);

/* context [heads][m][W], of which the first R of a row count -> heads [m][heads * v]. */
void lc_kv_b_expand(const lc_op *op, const lc_mla_shape *s, const lc_kv_b *kv_b, size_t m,
                    const float *context, float *heads);

/* Floats of a thread's scratch for up to m rows. */
size_t lc_kv_b_scratch(const lc_op *op, const lc_mla_shape *s, size_t m);

#endif
