/*
 * quant.h: what config.json says about quantised weights. Tensor shapes decide nearly everything
 * (bits, groups); the config narrows what they leave open and names what would change the
 * arithmetic, which is refused.
 */
#ifndef LC_FORMAT_QUANT_H
#define LC_FORMAT_QUANT_H

#include "longcat.h"

struct json_object;

enum { LC_QUANT_SIZES = 16 };
#define LC_QUANT_STRIPS "longcat-strips" /* quant_method of what `longcat pack` writes */

typedef struct lc_quant {
    char method[32];              /* "compressed-tensors", "gptq", "mlx", ...; "" if none */
    bool strips;                  /* `longcat pack` wrote it; method is of what it was made from */
    size_t sizes[LC_QUANT_SIZES]; /* group sizes that the config mentions, distinct */
    size_t n_sizes;
    bool zeros_as_stored; /* GPTQ: qzeros hold zero points, not zero points less one */
} lc_quant;

/* Reads "quantization_config" and MLX's "quantization" of a config.json; name is used in messages.
 * Refused by name: methods and formats that no reader here knows, transforms, sparsity. Activations
 * stay unquantised whatever the config says about them. */
int lc_quant_read(struct json_object *root, const char *name, lc_quant *out, lc_err *err);

/* Elements of a group along a row of `cols` that has `count` groups (the last may be short); 0 if
 * the sizes of the config and even division leave it open. quant may be NULL. */
size_t lc_quant_group(const lc_quant *quant, size_t cols, size_t count);

#endif
