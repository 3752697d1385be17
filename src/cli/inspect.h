/*
 * inspect.h: the facts that `longcat inspect` gathers (cmd_inspect.c) and its two ways to show them
 * (inspect_print.c). Both show the same facts.
 */
#ifndef LC_CLI_INSPECT_H
#define LC_CLI_INSPECT_H

#include "base/json.h"
#include "format/names.h"
#include "kernels/kernels.h"

#include <stdio.h>

enum { LC_REPORT_CONTEXTS = 3 };
/* 8K, 256K, 1M tokens */
static const uint64_t lc_report_contexts[LC_REPORT_CONTEXTS] = {8192, 262144, 1048576};

/* Weights in one way of storing them, and how they fit. */
typedef struct lc_fit {
    const char *name;  /* "as stored", "BF16" */
    uint64_t weights;  /* bytes that a run uses, draft module included */
    uint64_t copied;   /* of these, held in RAM of our own: misaligned in the files */
    uint64_t packed;   /* held in RAM besides: kv_b for this machine */
    uint64_t token;    /* bytes of weights that a token reads, average experts */
    uint64_t together; /* weights, also packed ones, context in BF16 and step memory */
    bool fits;
    uint64_t room; /* tokens of context (BF16) beside the weights, at most max_positions */
} lc_fit;

typedef struct lc_report {
    const char *path;
    lc_config config;
    lc_param_counts counts;
    bool checkpoint;                  /* weights are there */
    uint64_t n_tensors;               /* in the files */
    lc_inventory inventory;           /* of a checkpoint */
    lc_part_sum parts[LC_PART_COUNT]; /* found, or in BF16 */
    uint64_t kv[2];            /* bytes of context per token in BF16 and F32, draft module's not */
    uint64_t kv_mtp[2];        /* the draft module's own */
    uint64_t memory, context;  /* bytes of RAM; tokens */
    uint64_t step;             /* bytes of a step's buffers: BF16, default chunk, this machine */
    const lc_kernels *kernels; /* what a model would run on here */
    bool memory_given;
    lc_fit fits[LC_STORE_COUNT]; /* one for a checkpoint */
    int n_fits;
} lc_report;

void lc_report_print(const lc_report *report, FILE *out);
/* NULL when memory is short; the caller's. */
struct json_object *lc_report_json(const lc_report *report);

#endif
