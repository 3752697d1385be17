/*
 * words.c: see words.h. A word's hash is XXH3-64 of its lowered bytes; an n-gram's is a polynomial
 * in these, which rolls over the text at two multiplications a word.
 */
#include "train/words.h"

#include "base/mem.h"

#include <xxhash.h>

#define GRAM_BASE 0x9E3779B97F4A7C15u /* odd: multiplication keeps all 64 bits */

static unsigned char lowered(unsigned char c) {
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}
static bool in_word(unsigned char c) {
    return c >= 0x80 || c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
           (c >= 'A' && c <= 'Z');
}

static uint64_t hash_word(const char *text, size_t len) {
    unsigned char low[64];
    if (len > sizeof low) return XXH3_64bits(text, len); /* too long to be worth lowering */
    for (size_t i = 0; i < len; i++) low[i] = lowered((unsigned char)text[i]);
    return XXH3_64bits(low, len);
}

bool lc_words_split(lc_words *words, const char *text, size_t len) {
    words->n = 0;
    for (size_t i = 0; i < len;) {
        if (!in_word((unsigned char)text[i])) {
            i++;
            continue;
        }
        size_t from = i;
        while (i < len && in_word((unsigned char)text[i])) i++;
        if (words->n == words->cap) {
            size_t cap = words->cap * 2 + 256;
            lc_word *more = lc_realloc(words->data, cap, sizeof *more);
            if (!more) return false;
            words->data = more;
            words->cap = cap;
        }
        words->data[words->n++] =
            (lc_word){hash_word(text + from, i - from), (uint32_t)from, (uint32_t)i};
    }
    return true;
}

void lc_words_free(lc_words *words) {
    lc_free(words->data);
    *words = (lc_words){0};
}

uint64_t lc_gram_top(size_t n) {
    uint64_t top = 1;
    while (n-- > 1) top *= GRAM_BASE;
    return top;
}

uint64_t lc_gram_first(const lc_word *words, size_t n) {
    uint64_t gram = 0;
    for (size_t i = 0; i < n; i++) gram = gram * GRAM_BASE + words[i].hash;
    return gram;
}

uint64_t lc_gram_next(uint64_t gram, uint64_t top, const lc_word *left, const lc_word *entered) {
    return (gram - left->hash * top) * GRAM_BASE + entered->hash;
}

uint64_t lc_gram_mix(uint64_t gram) {
    gram ^= gram >> 32;
    gram *= 0xD6E8FEB86659FD93u;
    gram ^= gram >> 32;
    gram *= 0xD6E8FEB86659FD93u;
    return gram ^ gram >> 32;
}

/* ---- set ---- */

static bool put(lc_hash_set *set, uint64_t hash) {
    size_t at = (size_t)hash & set->mask;
    for (; set->slots[at]; at = (at + 1) & set->mask)
        if (set->slots[at] == hash) return false;
    set->slots[at] = hash;
    return true;
}

bool lc_hash_set_add(lc_hash_set *set, uint64_t hash) {
    if (!set->slots || set->n * 2 > set->mask) {
        lc_hash_set bigger = {.mask = set->slots ? set->mask * 2 + 1 : 1023};
        bigger.slots = lc_calloc(bigger.mask + 1, sizeof *bigger.slots);
        if (!bigger.slots) return false;
        for (size_t i = 0; set->slots && i <= set->mask; i++)
            if (set->slots[i]) put(&bigger, set->slots[i]);
        bigger.n = set->n;
        lc_free(set->slots);
        *set = bigger;
    }
    set->n += put(set, hash ? hash : 1);
    return true;
}

bool lc_hash_set_has(const lc_hash_set *set, uint64_t hash) {
    if (!set->slots) return false;
    if (!hash) hash = 1;
    for (size_t at = (size_t)hash & set->mask; set->slots[at]; at = (at + 1) & set->mask)
        if (set->slots[at] == hash) return true;
    return false;
}

void lc_hash_set_free(lc_hash_set *set) {
    lc_free(set->slots);
    *set = (lc_hash_set){0};
}
