/*
 * attention.h: multi-head latent attention of the training net in expanded form (docs/model.md
 * 2.3): keys and values of every head are computed from the latent, scores and probabilities exist
 * for 64 queries of one head at a time and are computed again in the backward pass.
 *
 * Sparse attention is the same with a set of chosen keys for every query, as bits.
 */
#ifndef LC_TRAIN_ATTENTION_H
#define LC_TRAIN_ATTENTION_H

#include "ops/mla.h"
#include "train/tape.h"

/* The rows of a batch: B sequences of T tokens, M = B T. */
typedef struct lc_rows {
    size_t rows, length;
    const int32_t *starts;                /* [M] first visible position, or NULL: 0 */
    const float *cosines, *sines, *minus; /* [T][rope/2]; minus = -sines */
} lc_rows;
static inline size_t lc_rows_count(const lc_rows *r) { return r->rows * r->length; }
static inline size_t lc_rows_start(const lc_rows *r, size_t row) {
    return r->starts ? (size_t)r->starts[row] : 0;
}

/* Chosen keys of a row: bit s of row t's lc_choice_words(length) words. */
static inline size_t lc_choice_words(size_t length) { return (length + 63) / 64; }

/* on[s] = not 0 where key s of first .. end-1 is chosen. on: [length rounded up to 8]. */
void lc_choice_bytes(const uint64_t *words, size_t first, size_t end, uint8_t *on);

typedef struct lc_mla_net {
    lc_weight q_a, q_a_norm, q_b, kv_a, kv_a_norm, kv_b, o;
} lc_mla_net;

/* What the forward keeps. */
typedef struct lc_mla_state {
    float *qa, *cq;       /* [M][q_rank] before and after the norm */
    float *q;             /* [M][N][nope+rope] scaled and rotated */
    float *kv;            /* [M][R+rope] before norm and rotation */
    float *latent;        /* [M][R] */
    float *key;           /* [M][rope] rotated, shared by heads */
    float *kvb;           /* [M][N][nope+v] */
    float *heads;         /* [M][N][v] */
    float *max, *inverse; /* [M][N] of the softmax; inverse of the sum */
} lc_mla_state;

/* Scratch, shared by all layers; see lc_mla_scratch_floats. */
typedef struct lc_mla_work {
    float *dq, *dkvb, *dheads, *dcq, *dqa, *dlatent, *dkv;
    float *dkey; /* [N][M][rope] */
    void *keys;  /* elements, [B][N][T][nope+rope], for the index loss */
} lc_mla_work;

typedef struct lc_mla_pass {
    const lc_mla_shape *shape;
    const lc_mla_net *w;
    const lc_rows *rows;
    const lc_mla_state *s;
    const lc_mla_work *work;
    const uint64_t *chosen; /* [M][words], or NULL: every causal key of the document */
    /* For rows before lc_mla_latent_run reads them, and when lc_mla_run's result, or lc_mla_back's,
     * for them is there. */
    lc_rows_step before, behind;
} lc_mla_pass;

/* qa and cq from the normed input x [M][H]: the indexer needs them before keys are chosen. */
int lc_mla_latent_run(const lc_tape *t, const lc_mla_pass *p, const float *x, lc_err *err);
/* The rest: out [M][H]. */
int lc_mla_run(const lc_tape *t, const lc_mla_pass *p, const float *x, float *out, lc_err *err);
/* dx = gradient of the normed input (overwritten), from dout [M][H]. */
int lc_mla_back(const lc_tape *t, const lc_mla_pass *p, const float *x, const float *dout,
                float *dx, lc_err *err);

/* ---- the core, for the index loss too ---- */

/* work->keys from the state, for lc_attention_probs. */
void lc_attention_prepare(const lc_tape *t, const lc_mla_pass *p);

enum { LC_QUERY_TILE = 64 };

/* Queries [begin, end) of sequence `row`, at most a tile, and the keys they may see: positions
 * [first, end). */
typedef struct lc_query_tile {
    size_t row, begin, end, first;
} lc_query_tile;
lc_query_tile lc_query_tile_of(const lc_rows *rows, size_t tile); /* tile < lc_query_tiles */
size_t lc_query_tiles(const lc_rows *rows);

/* Probabilities of a tile for a head: probs [end-begin][ld], ld >= end-first; zero where a key is
 * not seen. scratch: lc_attention_floats floats, after lc_attention_prepare. */
void lc_attention_probs(const lc_tape *t, const lc_mla_pass *p, const lc_query_tile *tile,
                        size_t head, float *probs, size_t ld, float *scratch);

/* Floats of a thread's scratch for sequences of `length`. */
size_t lc_attention_floats(const lc_op *op, const lc_mla_shape *s, size_t length);
/* Bytes of elements of keys. */
size_t lc_attention_key_bytes(const lc_op *op, const lc_mla_shape *s, size_t m);

#endif
