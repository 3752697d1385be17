/*
 * words.h: texts as lists of word hashes, the common ground of near-duplicate removal and
 * decontamination. A word is a run of ASCII letters, digits, underscores and bytes above 0x7F;
 * ASCII letters are lowered; everything else separates words. So spacing, punctuation and case
 * don't count.
 */
#ifndef LC_TRAIN_WORDS_H
#define LC_TRAIN_WORDS_H

#include "base/buf.h"

typedef struct lc_word {
    uint64_t hash;
    uint32_t start, end; /* bytes of the text */
} lc_word;

typedef struct lc_words {
    lc_word *data;
    size_t n, cap;
} lc_words;

/* Replaces the list. len below 4 GiB. false: out of memory. */
bool lc_words_split(lc_words *words, const char *text, size_t len);
void lc_words_free(lc_words *words);

/* Hash of n words from word i on, n-grams of equal words being equal. lc_gram_next moves on by one
 * word. `top` is lc_gram_top(n). */
uint64_t lc_gram_top(size_t n);
uint64_t lc_gram_first(const lc_word *words, size_t n);
uint64_t lc_gram_next(uint64_t gram, uint64_t top, const lc_word *left, const lc_word *entered);
/* The polynomial's low bits are weak; this is what tables take. */
uint64_t lc_gram_mix(uint64_t gram);

/* ---- a set of 64-bit hashes ---- */

typedef struct lc_hash_set {
    uint64_t *slots; /* 0 = free; a hash of 0 is stored as 1 */
    size_t n, mask;
} lc_hash_set;

bool lc_hash_set_add(lc_hash_set *set, uint64_t hash); /* false: out of memory */
bool lc_hash_set_has(const lc_hash_set *set, uint64_t hash);
void lc_hash_set_free(lc_hash_set *set);

#endif
