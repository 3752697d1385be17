/*
 * corpus_list.h: the files of a corpus, found once when it is opened; inside of corpus.h.
 */
#ifndef LC_TRAIN_CORPUS_LIST_H
#define LC_TRAIN_CORPUS_LIST_H

#include "train/corpus.h"

typedef struct lc_corpus_file {
    char *path;
    const char *type; /* into path, or "" */
} lc_corpus_file;

typedef struct lc_corpus_list {
    lc_corpus_file *files;
    size_t n, cap;
    uint64_t bytes;
} lc_corpus_list;

/* Lists the files of the options, in the order of corpus.h; counts what is left out. */
int lc_corpus_find(const lc_corpus_options *options, lc_corpus_list *list, lc_corpus_counts *counts,
                   lc_err *err);
void lc_corpus_list_free(lc_corpus_list *list);

#endif
