/* cmd_bench.c: `longcat bench PART`: the parts stand in bench_PART.c. */
#include "cli/bench.h"

#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} parts[] = {
    {"machine", lc_bench_machine, "limits: memory, instructions, disk"},
    {"kernels", lc_bench_kernels, "products and attention of each instruction set, against them"},
    {"model", lc_bench_model, "prefill and decode of a model, and where the time goes"},
    {"make", lc_bench_make, "write a checkpoint of full shape with random weights"},
};
enum { PARTS = sizeof parts / sizeof *parts };

static void print_parts(FILE *out) {
    fprintf(out, "usage: longcat bench PART [arguments]\n\n");
    for (int i = 0; i < PARTS; i++) fprintf(out, "  %-9s %s\n", parts[i].name, parts[i].help);
    fprintf(out, "\n`longcat bench PART --help` explains one; docs/performance.md what the columns "
                 "mean.\n");
}

int lc_cmd_bench(int argc, char **argv) {
    if (argc < 2) {
        print_parts(stderr);
        return LC_EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_parts(stdout);
        return LC_EXIT_OK;
    }
    for (int i = 0; i < PARTS; i++)
        if (!strcmp(argv[1], parts[i].name)) return parts[i].run(argc - 1, argv + 1);
    fprintf(stderr, "longcat: bench has no part \"%s\"; `longcat bench --help` lists them\n",
            argv[1]);
    return LC_EXIT_USAGE;
}
