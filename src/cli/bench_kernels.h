/* bench_kernels.h: what the parts of `longcat bench kernels` share: bench_kernels.c (products of
 * weights), bench_kernels_ops.c (attention and kernels of rows). */
#ifndef LC_CLI_BENCH_KERNELS_H
#define LC_CLI_BENCH_KERNELS_H

#include "cli/bench.h"
#include "ops/op.h"

typedef struct lc_kernel_bench {
    lc_bench_report report;
    lc_pool *pool;
    size_t repeat;
    double seconds;   /* of a repetition */
    const char *only; /* NULL, or what a name must contain */
    size_t most_rows;
    lc_read_buffer data; /* values that are sane as fp32, BF16, FP8 and int8 */
    double bandwidth;    /* bytes a second */
    lc_isa isas[LC_ISA_COUNT];
    size_t n_isas;
    lc_limits limits;
    float **scratch; /* [threads] */
    size_t scratch_floats;
    size_t differ; /* results whose bits were not the scalar ones */
    lc_err *err;
} lc_kernel_bench;

/* A measured case. */
typedef struct lc_kernel_case {
    const char *name, *type;
    size_t rows, k, columns;  /* 0: doesn't apply */
    bool memory;              /* operands come from memory, else from the caches */
    double operations, bytes; /* of a run; bytes that come from memory if they do */
    lc_peak_kind kind;
    bool unlimited; /* no instruction's rate is its limit */
} lc_kernel_case;

/* Run number i; runs may cycle through copies of their operands. */
typedef void lc_kernel_run(void *ctx, size_t i);

/* Opens the table of all cases. */
void lc_kernel_table(lc_kernel_bench *b);
/* Times a case and adds a row. equal: 1, 0, or -1 where nothing was compared. */
void lc_kernel_measure(lc_kernel_bench *b, const lc_kernel_case *c, lc_isa isa, lc_kernel_run *run,
                       void *ctx, int equal);
/* Whether a case with that name and that many rows is wanted. */
bool lc_kernel_wanted(const lc_kernel_bench *b, const char *name, size_t rows);
/* An operator context for the instruction set; its scratch has at least `floats` a thread. Errors:
 * LC_ENOMEM. */
int lc_kernel_op(lc_kernel_bench *b, lc_isa isa, bool bf16, size_t floats, lc_op *out);

/* `n` floats of the data, about +-0.03; the same ones for the same `from`. */
void lc_kernel_floats(const lc_kernel_bench *b, size_t from, size_t n, float *out);

int lc_bench_attention(lc_kernel_bench *b);
int lc_bench_rows(lc_kernel_bench *b);

#endif
