/*
 * exclude.h: decontamination. No run of 13 words (words.h) that stands in an evaluation text may
 * stand in a training text. As in GPT-3's appendix C, what matches is cut out, with the rest of its
 * lines, and the text falls into parts; that spares files that share a licence header with an
 * evaluation file. Evaluation texts of fewer than 13 words can't be recognised.
 */
#ifndef LC_TRAIN_EXCLUDE_H
#define LC_TRAIN_EXCLUDE_H

#include "train/corpus.h"
#include "train/words.h"

enum {
    LC_EXCLUDE_WORDS = 13,
    LC_EXCLUDE_CUTS_MAX = 10,  /* texts with more matching stretches are dropped whole */
    LC_EXCLUDE_PART_MIN = 200, /* bytes; smaller parts are dropped */
};

typedef struct lc_exclude lc_exclude;

/* Reads the evaluation texts: anything that a corpus can be. 16 to 32 bytes a word. */
int lc_exclude_open(const lc_corpus_options *files, lc_exclude **out, lc_err *err);
void lc_exclude_close(lc_exclude *exclude);
uint64_t lc_exclude_documents(const lc_exclude *exclude);

typedef struct lc_stretch {
    size_t start, end; /* bytes of the text */
} lc_stretch;

typedef struct lc_stretches {
    lc_stretch data[LC_EXCLUDE_CUTS_MAX + 1];
    size_t n;       /* parts that may stay; data[0] is the whole text where nothing matches */
    size_t matches; /* stretches that match; above LC_EXCLUDE_CUTS_MAX n is 0 */
} lc_stretches;

/* The parts of a text that may stay. Threads may call it at once. */
void lc_exclude_cut(const lc_exclude *exclude, const char *text, size_t len, const lc_words *words,
                    lc_stretches *out);

#endif
