/*
 * stored.h: the tensors that carry one weight. Inside of format/: mat.c checks and uses them,
 * inventory.c counts them.
 */
#ifndef LC_FORMAT_STORED_H
#define LC_FORMAT_STORED_H

#include "format/safetensors.h"

typedef enum lc_storing {
    LC_STORED_PLAIN,  /* <name> F32, F16, BF16 */
    LC_STORED_BLOCKS, /* <name> F8_E4M3, <name>_scale_inv */
    LC_STORED_INT8,   /* <name> I8, <name>_scale, <name>_zero_point: compressed-tensors
                         "int-quantized" and LongCat's own INT8 */
    LC_STORED_PACKED, /* <name>_packed, _scale, _shape, _zero_point: "pack-quantized" */
    LC_STORED_STRIPS, /* <name>_strips, _strip_scale: `longcat pack`; without scales: BF16 */
    LC_STORED_GPTQ,   /* <module>.qweight, .scales, .qzeros, .g_idx */
    LC_STORED_AFFINE, /* <name> U32, <module>.scales, .biases: MLX */
    LC_STORED_SPLIT,  /* kv_b_proj as MLX splits it: embed_q and unembed_out beside it, weights of
                         their own */
} lc_storing;

enum { LC_STORED_PARTS = 5 };

typedef struct lc_stored {
    lc_storing kind;
    const lc_tensor *codes, *scales; /* NULL for what isn't there */
    const lc_tensor *zeros, *biases, *order, *shape;
    const lc_tensor *parts[LC_STORED_PARTS]; /* all of them, the codes first */
    int n_parts;                             /* 0 for LC_STORED_SPLIT */
    char split[2][256];                      /* names of the two halves */
} lc_stored;

/* `name` ends in ".weight" for matrices of modules. LC_ENOTFOUND names the missing tensor;
 * LC_EFORMAT says what is missing or too much. Shapes are not looked at. */
int lc_stored_find(const lc_tensors *tensors, const char *name, lc_stored *out, lc_err *err);

#endif
