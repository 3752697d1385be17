/*
 * names.h: the tensors that a checkpoint of a config holds (docs/model.md 3), and a checkpoint
 * compared with that list. The model binds what it needs by itself; this list serves `inspect`,
 * estimates from a bare config.json, and tests.
 */
#ifndef LC_FORMAT_NAMES_H
#define LC_FORMAT_NAMES_H

#include "base/buf.h"
#include "format/config.h"
#include "format/mat.h"

/* Parts as in spec 1.2: latent norms count to attention. */
typedef enum lc_part {
    LC_PART_EMBEDDING,
    LC_PART_NGRAM_TABLES,
    LC_PART_NGRAM_PROJECTIONS,
    LC_PART_ATTENTION,
    LC_PART_DENSE,
    LC_PART_EXPERTS,
    LC_PART_ROUTERS,
    LC_PART_INDEXERS,
    LC_PART_NORMS,
    LC_PART_HEAD,
    LC_PART_MTP,       /* draft module; parts from here on may be absent as a whole */
    LC_PART_MTP_NGRAM, /* its own n-gram tables: in 2.0's checkpoint, normally unused */
    LC_PART_COUNT,
} lc_part;

const char *lc_part_name(lc_part part); /* "routed experts" */
const char *lc_part_key(lc_part part);  /* "experts", for JSON */

/* What quantised checkpoints do with a weight. */
typedef enum lc_weight_class {
    LC_WEIGHT_BF16, /* embeddings, head, norms: never quantised */
    LC_WEIGHT_F32,  /* router and indexer weights: F32 even in BF16 checkpoints */
    LC_WEIGHT_PROJ, /* attention projections and eh_proj: FP8 in FP8 checkpoints */
    LC_WEIGHT_FFN,  /* experts and dense FFNs: quantised in all */
} lc_weight_class;

typedef struct lc_name {
    const char *name; /* valid during the call */
    int rank;
    size_t shape[2]; /* [rows][cols], or [cols] */
    lc_part part;
    lc_weight_class weight;
    bool packed; /* kv_b: products keep it packed in RAM (lc_model_pack) */
} lc_name;

/* Called for every tensor, main model first, layer by layer; any value but LC_OK ends the walk and
 * is returned. The draft module is always listed, its n-gram tables when the config has
 * oe_* n-gram tables. */
typedef int lc_name_visit(void *ctx, const lc_name *name);
int lc_names_expected(const lc_config *config, lc_name_visit *visit, void *ctx);

typedef struct lc_part_sum {
    uint64_t tensors, elements, bytes;
    /* Of those that are packed: elements that become values, and those of `bytes` that no token
     * reads for that reason; bytes of codes that stay codes. */
    uint64_t packed, replaced, packed_codes;
} lc_part_sum;

/* Adds a weight of so many stored bytes. codes: products take them as they are. */
void lc_part_add(lc_part_sum *sum, const lc_name *name, uint64_t bytes, bool codes);

/* Ways to store a checkpoint, for estimates. Scales are counted. */
typedef enum lc_storage {
    LC_STORE_BF16,
    LC_STORE_FP8,  /* projections and FFNs e4m3 with an F32 scale per 128x128 block */
    LC_STORE_INT8, /* FFNs with an F32 scale per row */
    LC_STORE_INT4, /* projections and FFNs with a BF16 scale per 64 values */
    LC_STORE_COUNT,
} lc_storage;

const char *lc_storage_name(lc_storage storage); /* "BF16" */
/* The draft module is left out if the config declares none, its n-gram tables except for 2.0. */
void lc_names_estimate(const lc_config *config, lc_storage storage, lc_part_sum out[LC_PART_COUNT]);

enum { LC_LISTED = 1000 };

typedef struct lc_inventory {
    lc_part_sum parts[LC_PART_COUNT];         /* found, with their scales */
    uint64_t dtype_bytes[LC_DTYPE_COUNT + 1]; /* of the known ones; last: unknown dtypes */
    uint64_t misaligned;                      /* bytes that must be copied to RAM to be used */
    /* main tensors that aren't there, and of the draft module if it is there in part */
    uint64_t n_missing, n_unknown, n_wrong;
    /* NUL-terminated texts one after the other, of at most LC_LISTED each */
    lc_buf missing, unknown; /* names */
    lc_buf wrong;            /* messages: wrong shape or dtype, scales missing or extra */
} lc_inventory;

/* Compares; only LC_ENOMEM is an error. Release with lc_inventory_free. */
int lc_inventory_take(const lc_config *config, const lc_tensors *tensors, lc_inventory *out,
                      lc_err *err);
void lc_inventory_free(lc_inventory *inventory);

#endif
