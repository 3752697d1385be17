/*
 * dedup.h: exact and near duplicates. The first of equal documents stays, so the result depends on
 * the corpus' order and on nothing else.
 *
 * Near duplicates: MinHash (Broder 1997) of 5-word shingles, 112 values in 14 bands of 8 rows.
 * Documents that share a band are compared by all 112 values; from a share of equal values of
 * `threshold` on, which estimates the Jaccard similarity (standard error 0.04), the later one is a
 * duplicate. Pairs at 0.8 are found with 93 %, at 0.9 with 99.9 %. Texts with fewer than
 * LC_NEAR_SHINGLES shingles are compared exactly only.
 */
#ifndef LC_TRAIN_DEDUP_H
#define LC_TRAIN_DEDUP_H

#include "train/words.h"

enum {
    LC_NEAR_BANDS = 14,
    LC_NEAR_ROWS = 8,
    LC_NEAR_VALUES = LC_NEAR_BANDS * LC_NEAR_ROWS,
    LC_NEAR_WORDS = 5,     /* of a shingle */
    LC_NEAR_SHINGLES = 10, /* fewer are no evidence */
};

typedef struct lc_minhash {
    bool usable; /* enough shingles */
    uint32_t value[LC_NEAR_VALUES];
} lc_minhash;

/* A pure function of the words; threads may run it at once. */
void lc_minhash_make(const lc_words *words, lc_minhash *out);

typedef enum lc_dedup_verdict { LC_DEDUP_NEW, LC_DEDUP_EXACT, LC_DEDUP_NEAR } lc_dedup_verdict;

/* Memory: 32 to 64 bytes a kept document for exact, about 1,100 more for near duplicates. */
typedef struct lc_dedup lc_dedup;

/* threshold 0 = only exact duplicates. */
int lc_dedup_new(double threshold, lc_dedup **out, lc_err *err);
void lc_dedup_free(lc_dedup *dedup);

typedef struct lc_fingerprint {
    uint64_t low, high; /* XXH3-128 of the text */
    lc_minhash near;
} lc_fingerprint;
/* The verdict on a document; a new one is remembered. */
int lc_dedup_judge(lc_dedup *dedup, const lc_fingerprint *print, lc_dedup_verdict *verdict,
                   lc_err *err);

#endif
