/* cmd_bench.c: `longcat bench PART`: the parts stand in bench_PART.c. */
#include "cli/bench.h"

#include <string.h>

static const lc_subcommand parts[] = {
    {"machine", lc_bench_machine, "limits: memory, instructions, disk"},
    {"kernels", lc_bench_kernels, "products and attention of each instruction set, against them"},
    {"model", lc_bench_model, "prefill and decode of a model, and where the time goes"},
    {"make", lc_bench_make, "write a checkpoint of full shape with random weights"},
    {0},
};

int lc_cmd_bench(int argc, char **argv) {
    return lc_cli_subcommand("bench", parts, "docs/performance.md says what the columns mean.",
                             argc, argv);
}
