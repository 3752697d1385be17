/*
 * cmd_train.c: `longcat train SUBCOMMAND`: the table of subcommands and what they share.
 */
#include "cli/train.h"

#include <string.h>

static const lc_subcommand commands[] = {
    {"tokenizer", lc_train_tokenizer_cmd, "learn a tokenizer.json from a corpus"},
    {"data", lc_train_data_cmd, "turn a corpus into token shards"},
    {"run", lc_train_run_cmd, "train a model as a recipe says, or go on with it"},
    {"report", lc_train_report_cmd, "a run's curves as one HTML page"},
    {0},
};

int lc_cmd_train(int argc, char **argv) {
    return lc_cli_subcommand("train", commands, "docs/training.md shows them at work.", argc, argv);
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
