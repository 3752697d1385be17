/*
 * cmd_train.c: `longcat train SUBCOMMAND`: the table of subcommands and what they share.
 */
#include "cli/train.h"

#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"tokenizer", lc_train_tokenizer_cmd, "learn a tokenizer.json from a corpus"},
    {"data", lc_train_data_cmd, "turn a corpus into token shards"},
    {"run", lc_train_run_cmd, "train a model as a recipe says, or go on with it"},
    {"report", lc_train_report_cmd, "a run's curves as one HTML page"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_commands(FILE *out) {
    fputs("usage: longcat train SUBCOMMAND [arguments]\n\nsubcommands:\n", out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].help);
    fputs(
        "\n`longcat train SUBCOMMAND --help` explains one. docs/training.md shows them at work.\n",
        out);
}

int lc_cmd_train(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) {
        print_commands(stderr);
        return LC_EXIT_USAGE;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
        print_commands(stdout);
        return LC_EXIT_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(name, commands[i].name)) return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "longcat: train: no subcommand \"%s\"; `longcat train --help` lists them\n",
            name);
    return LC_EXIT_USAGE;
}

void lc_train_show_counts(const lc_corpus_counts *counts) {
    const struct {
        uint64_t n;
        const char *text;
    } lines[] = {
#define LINE(name, text) {counts->name, text},
        LC_CORPUS_COUNTS(LINE)
#undef LINE
    };
    for (size_t i = 3; i < sizeof lines / sizeof *lines; i++) /* behind files, bytes, documents */
        if (lines[i].n)
            fprintf(stderr, "longcat: left out: %llu %s\n", (unsigned long long)lines[i].n,
                    lines[i].text);
}
