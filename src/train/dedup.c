/*
 * dedup.c: see dedup.h. MinHash value j of a text is the smallest of (a_j * shingle) >> 32 over its
 * shingles, a_j odd numbers from base/rng.h. Bands are hash tables from a band's hash to the last
 * document that has it; documents with equal bands are chained.
 */
#include "train/dedup.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"

#include <string.h>
#include <xxhash.h>

enum { SEED = 20, STREAM = 3, CHAIN_MAX = 64, DOCS_MAX = 1 << 30 };

typedef struct kept {
    uint32_t value[LC_NEAR_VALUES];
    uint32_t chain[LC_NEAR_BANDS]; /* the document before with an equal band, + 1; 0 = none */
} kept;

typedef struct band_table {
    uint64_t *key; /* 0 = free */
    uint32_t *doc; /* last document with this band */
    size_t n, mask;
} band_table;

struct lc_dedup {
    double threshold;
    lc_hash_set low; /* of the texts' hashes; the halves are looked up one after the other */
    lc_hash_set high;
    kept *docs;
    size_t n, cap;
    band_table bands[LC_NEAR_BANDS];
};

/* ---- MinHash ---- */

static void multipliers(uint64_t a[LC_NEAR_VALUES]) {
    for (uint32_t j = 0; j < LC_NEAR_VALUES; j++) {
        lc_rng_block r = lc_rng(SEED, STREAM, j);
        a[j] = ((uint64_t)r.word[0] << 32 | r.word[1]) | 1;
    }
}

static void lower_all(const uint64_t a[LC_NEAR_VALUES], uint64_t shingle,
                      uint32_t value[LC_NEAR_VALUES]) {
    for (size_t j = 0; j < LC_NEAR_VALUES; j++) {
        uint32_t v = (uint32_t)(a[j] * shingle >> 32);
        value[j] = v < value[j] ? v : value[j];
    }
}

void lc_minhash_make(const lc_words *words, lc_minhash *out) {
    uint64_t a[LC_NEAR_VALUES], top = lc_gram_top(LC_NEAR_WORDS);
    out->usable = words->n >= LC_NEAR_SHINGLES + LC_NEAR_WORDS - 1;
    memset(out->value, 0xFF, sizeof out->value);
    if (!out->usable) return;
    multipliers(a);
    uint64_t gram = lc_gram_first(words->data, LC_NEAR_WORDS);
    lower_all(a, lc_gram_mix(gram), out->value);
    for (size_t i = LC_NEAR_WORDS; i < words->n; i++) {
        gram = lc_gram_next(gram, top, &words->data[i - LC_NEAR_WORDS], &words->data[i]);
        lower_all(a, lc_gram_mix(gram), out->value);
    }
}

/* ---- tables ---- */

int lc_dedup_new(double threshold, lc_dedup **out, lc_err *err) {
    *out = lc_calloc(1, sizeof **out);
    if (!*out) return lc_fail(err, LC_ENOMEM, "duplicates: out of memory");
    (*out)->threshold = threshold;
    return LC_OK;
}

void lc_dedup_free(lc_dedup *d) {
    if (!d) return;
    for (size_t i = 0; i < LC_NEAR_BANDS; i++) {
        lc_free(d->bands[i].key);
        lc_free(d->bands[i].doc);
    }
    lc_hash_set_free(&d->low);
    lc_hash_set_free(&d->high);
    lc_free(d->docs);
    lc_free(d);
}

static size_t band_slot(const band_table *t, uint64_t key) {
    size_t at = (size_t)key & t->mask;
    while (t->key[at] && t->key[at] != key) at = (at + 1) & t->mask;
    return at;
}

static bool band_grow(band_table *t) {
    band_table b = {.n = t->n, .mask = t->key ? t->mask * 2 + 1 : 1023};
    b.key = lc_calloc(b.mask + 1, sizeof *b.key);
    b.doc = lc_calloc(b.mask + 1, sizeof *b.doc);
    if (!b.key || !b.doc) {
        lc_free(b.key);
        lc_free(b.doc);
        return false;
    }
    for (size_t i = 0; t->key && i <= t->mask; i++) {
        if (!t->key[i]) continue;
        size_t at = band_slot(&b, t->key[i]);
        b.key[at] = t->key[i];
        b.doc[at] = t->doc[i];
    }
    lc_free(t->key);
    lc_free(t->doc);
    *t = b;
    return true;
}

static uint64_t band_key(const lc_minhash *m, size_t band) {
    uint64_t key = XXH3_64bits(m->value + band * LC_NEAR_ROWS, LC_NEAR_ROWS * sizeof *m->value);
    return key ? key : 1;
}

static bool similar(const lc_dedup *d, const lc_minhash *m, const kept *doc) {
    size_t equal = 0;
    for (size_t j = 0; j < LC_NEAR_VALUES; j++) equal += m->value[j] == doc->value[j];
    return (double)equal >= d->threshold * LC_NEAR_VALUES;
}

/* Looks through the documents that share a band, at most CHAIN_MAX of each: a band that so many
 * have is boilerplate, and the time stays linear. */
static bool find_near(const lc_dedup *d, const lc_minhash *m) {
    for (size_t b = 0; b < LC_NEAR_BANDS; b++) {
        const band_table *t = &d->bands[b];
        size_t at = t->key ? band_slot(t, band_key(m, b)) : 0;
        uint32_t doc = t->key && t->key[at] ? t->doc[at] + 1 : 0;
        for (int i = 0; doc && i < CHAIN_MAX; i++, doc = d->docs[doc - 1].chain[b])
            if (similar(d, m, &d->docs[doc - 1])) return true;
    }
    return false;
}

static bool remember_near(lc_dedup *d, const lc_minhash *m) {
    if (d->n == d->cap) {
        size_t cap = d->cap + d->cap / 2 + 256;
        kept *more = cap > DOCS_MAX ? NULL : lc_realloc(d->docs, cap, sizeof *more);
        if (!more) return false;
        d->docs = more;
        d->cap = cap;
    }
    kept *doc = &d->docs[d->n];
    memcpy(doc->value, m->value, sizeof doc->value);
    for (size_t b = 0; b < LC_NEAR_BANDS; b++) {
        band_table *t = &d->bands[b];
        if ((!t->key || t->n * 2 > t->mask) && !band_grow(t)) return false;
        size_t at = band_slot(t, band_key(m, b));
        doc->chain[b] = t->key[at] ? t->doc[at] + 1 : 0;
        t->n += !t->key[at];
        t->key[at] = band_key(m, b);
        t->doc[at] = (uint32_t)d->n;
    }
    d->n++;
    return true;
}

int lc_dedup_judge(lc_dedup *d, const lc_fingerprint *print, lc_dedup_verdict *verdict,
                   lc_err *err) {
    /* Both halves known, of two documents and not of one, happens once in 2^64 / n^2 corpora. */
    bool exact = lc_hash_set_has(&d->low, print->low) && lc_hash_set_has(&d->high, print->high);
    bool near = !exact && d->threshold > 0 && print->near.usable && find_near(d, &print->near);
    *verdict = exact ? LC_DEDUP_EXACT : near ? LC_DEDUP_NEAR : LC_DEDUP_NEW;
    if (exact || near) return LC_OK;
    bool ok = lc_hash_set_add(&d->low, print->low) && lc_hash_set_add(&d->high, print->high);
    if (ok && d->threshold > 0 && print->near.usable) ok = remember_near(d, &print->near);
    return ok ? LC_OK : lc_fail(err, LC_ENOMEM, "duplicates: no memory for %zu documents", d->n);
}
