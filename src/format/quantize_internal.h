/*
 * quantize_internal.h: the parts of quantize.c: what becomes of each weight (quantize_plan.c), a
 * row's codes (quantize_code.c), strips (quantize_strips.c), the folder's other files
 * (quantize_files.c).
 */
#ifndef LC_FORMAT_QUANTIZE_INTERNAL_H
#define LC_FORMAT_QUANTIZE_INTERNAL_H

#include "base/buf.h"
#include "format/config.h"
#include "format/names.h"
#include "format/quantize.h"

/* A weight to quantise or that is laid out anew, or a tensor to copy. */
typedef struct lc_quantize_item {
    const char *name;        /* sorted by it; lives as long as the plan */
    const lc_tensor *source; /* to copy; NULL: the weight is written */
    size_t rows, cols;
    int bits;            /* 4 or 8; LC_QUANTIZE_VALUES: BF16, without scales */
    size_t group;        /* 0: a scale a row */
    lc_dtype scale_type; /* as written */
    bool by_row;         /* for lack of a group that fits */
    bool moved;          /* the source's codes and scales or BF16 values, laid out anew */
    bool strips;
    uint64_t source_bytes;
    size_t first_output; /* in the shard: codes, scales, and shape of int4 by row */
} lc_quantize_item;

enum { LC_QUANTIZE_VALUES = 16 };

typedef struct lc_quantize_shard {
    size_t first, count; /* items */
    uint64_t bytes;      /* of the source */
    char file[80];
} lc_quantize_shard;

typedef struct lc_quantize_plan {
    const lc_config *config;
    const lc_tensors *tensors;
    const lc_quantize_options *options;
    lc_arena *arena; /* names */
    lc_quantize_item *items;
    size_t count, cap;
    lc_quantize_shard *shards;
    size_t n_shards;
    uint64_t source_bytes, bytes; /* of tensors; bytes: as written */
    size_t unpacked;              /* weights that should be in strips and can't be */
    bool strips;                  /* whether any tensor is in strips, copied ones included */
} lc_quantize_plan;

/* Release with lc_quantize_plan_free, also after a failure. */
int lc_quantize_plan_make(lc_quantize_plan *plan, lc_err *err);
void lc_quantize_plan_free(lc_quantize_plan *plan);

enum { LC_QUANTIZE_OUTPUTS = 3 };
/* The tensors that an item becomes, without data: how many. Names come from the plan's arena. */
int lc_quantize_outputs(lc_quantize_plan *plan, const lc_quantize_item *item,
                        lc_tensor out[LC_QUANTIZE_OUTPUTS], lc_err *err);

/* A row of weights w[cols] (room for 16 more values behind) -> codes and scales. int4: offset by 8
 * in 32-bit words, BF16 scales; int8: bytes, F32 scales. work: cols +
 * 16 floats. Returns false if a weight isn't finite. *error and *power grow by the sums of squares.
 */
typedef struct lc_quantize_row {
    size_t cols, group; /* group 0: the whole row */
    int bits;
    float *w, *work;
    unsigned char *codes;
    void *scales;
    double error, power;
} lc_quantize_row;
bool lc_quantize_encode(lc_quantize_row *row);
/* Bytes of a row's codes and scales. The rows that are written are whole strips in strips. */
size_t lc_quantize_code_bytes(const lc_quantize_item *item);
size_t lc_quantize_scale_bytes(const lc_quantize_item *item);
size_t lc_quantize_groups(const lc_quantize_item *item);
size_t lc_quantize_rows(const lc_quantize_item *item, size_t rows);

/* Whether such codes can lie in strips. */
bool lc_quantize_strips_fit(size_t cols, size_t group);
/* Whether the weight is codes that can, with the zero points that strips have, or BF16 values.
 * Fills bits, group, scale_type. */
bool lc_quantize_can_pack(const lc_mat *mat, lc_quantize_item *item);
/* Rows row .. row+n-1 of such a weight, at most 16: codes and scales by row, as lc_quantize_encode
 * would lay them out, or values. */
void lc_quantize_take_rows(const lc_quantize_item *item, const lc_mat *mat, size_t row, size_t n,
                           unsigned char *codes, unsigned char *scales);
/* n rows of `numbers` numbers each -> [numbers][16], zero from row n on. size: bytes of a number, 2
 * or 4. */
void lc_quantize_strip(const unsigned char *rows, size_t n, size_t numbers, size_t size,
                       unsigned char *out);

/* Hash of all that the result depends on, as hex. */
int lc_quantize_settings(const lc_quantize_plan *plan, char hex[65], lc_err *err);
/* quantize.state: the settings and a line a finished shard. */
typedef struct lc_quantize_state {
    char settings[65];
    char (*hashes)[65]; /* [n_shards], "" if not finished */
    int lock;           /* of the folder, which holds it for this process; or -1 */
} lc_quantize_state;
/* Makes the folder, or finds what was finished in it. The caller closes the lock and frees the
 * hashes, after errors too. */
int lc_quantize_state_load(const lc_quantize_plan *plan, const char *out, lc_quantize_state *state,
                           lc_err *err);
int lc_quantize_state_save(const lc_quantize_plan *plan, const char *out,
                           const lc_quantize_state *state, lc_err *err);
int lc_quantize_hash_file(const char *path, char hex[65], lc_err *err);
/* Index, config.json and copies of what else lies in the model's folder; removes the state. */
int lc_quantize_finish(lc_quantize_plan *plan, const char *model, const char *out, lc_err *err);

#endif
