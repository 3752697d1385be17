/* train.h: the subcommands of `longcat train`; one file each, train_NAME.c. */
#ifndef LC_CLI_TRAIN_H
#define LC_CLI_TRAIN_H

#include "cli/cli.h"
#include "cli/progress.h"
#include "train/corpus.h"

enum { TRAIN_PLAIN_MS = 10000 /* between progress lines where there is no terminal */ };

int lc_train_tokenizer_cmd(int argc, char **argv);
int lc_train_data_cmd(int argc, char **argv);
int lc_train_run_cmd(int argc, char **argv);
int lc_train_report_cmd(int argc, char **argv);

/* Lines on stderr about what a corpus had that was left out. */
void lc_train_show_counts(const lc_corpus_counts *counts);

#endif
