/*
 * work.h: the memory of a step. Every buffer that the operators need is cut from one block whose
 * size follows from the config, the rows of a step, the longest context and the number of threads,
 * so it can be printed before loading.
 */
#ifndef LC_MODEL_WORK_H
#define LC_MODEL_WORK_H

#include "model/model.h"

typedef struct lc_work_size {
    size_t rows;    /* most rows of a step */
    size_t context; /* longest context of a row */
    int threads;
    const lc_kernels *kernels;
    bool bf16; /* compute type */
} lc_work_size;

typedef struct lc_work {
    lc_op op;
    lc_work_size size;
    void *block;
    float *h;       /* [M][H] residual stream */
    float *norm;    /* [M][H] a normed input in fp32 */
    float *operand; /* the same, packed; room for rows of 2H (draft module's eh_proj) */
    float *sub;     /* [M][H] a sublayer's output */
    float *moe_out; /* [M][H] the shortcut branch */
    float *pair;    /* [M][2H] the draft module's joined input */
    float *hidden;  /* [M][H] after the final norm */
    float *gather;  /* n-gram rows */
    lc_ffn_buffers ffn;
    float *cosines, *sines; /* [M][rope/2] */
    lc_mla_buffers mla;
    lc_index_buffers index;
    lc_moe_buffers moe;
    float **scratch; /* [threads] */
    int32_t *routes; /* [M][L][topk] chosen entries of the main pass's rows; not kept if NULL. Of
                      * whoever sets it */
} lc_work;

size_t lc_work_bytes(const lc_config *config, lc_work_size size);

/* Rows of a step unless somebody asks for others: the more tokens pass a weight together, the more
 * often it is used for each time that memory brings it. 2048, or as much less, down to 256,
 * as keeps the step's memory below an eighth of the machine's (`memory` bytes). size.rows is
 * ignored. */
size_t lc_work_default_rows(const lc_config *config, lc_work_size size, size_t memory);

/* kernels and pool are borrowed; the pool has size.threads threads. */
int lc_work_new(const lc_model *model, lc_work_size size, lc_pool *pool, lc_work **out,
                lc_err *err);
void lc_work_free(lc_work *work);

#endif
