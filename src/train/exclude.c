/*
 * exclude.c: see exclude.h. The evaluation texts' 13-grams are a set of 64-bit hashes: a training
 * text of a million words is hit by chance once in some 10^7 texts.
 */
#include "train/exclude.h"

#include "base/err.h"
#include "base/mem.h"

#include <string.h>

struct lc_exclude {
    lc_hash_set grams;
    uint64_t documents;
};

static bool add_text(lc_exclude *e, const lc_words *words) {
    uint64_t top = lc_gram_top(LC_EXCLUDE_WORDS), gram = 0;
    for (size_t i = LC_EXCLUDE_WORDS; i <= words->n; i++) {
        const lc_word *w = words->data + i - LC_EXCLUDE_WORDS;
        gram = i == LC_EXCLUDE_WORDS ? lc_gram_first(w, LC_EXCLUDE_WORDS)
                                     : lc_gram_next(gram, top, w - 1, w + LC_EXCLUDE_WORDS - 1);
        if (!lc_hash_set_add(&e->grams, lc_gram_mix(gram))) return false;
    }
    return true;
}

int lc_exclude_open(const lc_corpus_options *files, lc_exclude **out, lc_err *err) {
    lc_exclude *e = lc_calloc(1, sizeof *e);
    lc_corpus *corpus = NULL;
    lc_document doc;
    lc_words words = {0};
    bool more = true;
    *out = NULL;
    int status = e ? lc_corpus_open(files, &corpus, err)
                   : lc_fail(err, LC_ENOMEM, "evaluation texts: out of memory");
    while (!status && !(status = lc_corpus_next(corpus, &doc, &more, err)) && more)
        if (lc_words_split(&words, doc.text, doc.len) && add_text(e, &words))
            e->documents++;
        else
            status = lc_fail(err, LC_ENOMEM, "%s: out of memory", doc.path);
    lc_words_free(&words);
    lc_corpus_close(corpus);
    if (status)
        lc_exclude_close(e);
    else
        *out = e;
    return status;
}

void lc_exclude_close(lc_exclude *e) {
    if (!e) return;
    lc_hash_set_free(&e->grams);
    lc_free(e);
}

uint64_t lc_exclude_documents(const lc_exclude *e) { return e->documents; }

/* A part between two matching stretches: from the line after the one to the line before the other.
 */
static void add_part(const char *text, size_t start, size_t end, bool from_cut, bool to_cut,
                     lc_stretches *out) {
    if (from_cut) {
        const char *newline = memchr(text + start, '\n', end - start);
        start = newline ? (size_t)(newline - text) + 1 : end;
    }
    if (to_cut) {
        const char *newline = memrchr(text + start, '\n', end - start);
        end = newline ? (size_t)(newline - text) + 1 : start;
    }
    bool whole = !from_cut && !to_cut;
    if (whole || end - start >= LC_EXCLUDE_PART_MIN) out->data[out->n++] = (lc_stretch){start, end};
}

void lc_exclude_cut(const lc_exclude *e, const char *text, size_t len, const lc_words *words,
                    lc_stretches *out) {
    uint64_t top = lc_gram_top(LC_EXCLUDE_WORDS), gram = 0;
    size_t from = 0, covered = 0; /* words before `covered` belong to the last stretch */
    out->n = out->matches = 0;
    for (size_t i = LC_EXCLUDE_WORDS; i <= words->n; i++) {
        const lc_word *w = words->data + i - LC_EXCLUDE_WORDS;
        gram = i == LC_EXCLUDE_WORDS ? lc_gram_first(w, LC_EXCLUDE_WORDS)
                                     : lc_gram_next(gram, top, w - 1, w + LC_EXCLUDE_WORDS - 1);
        if (!lc_hash_set_has(&e->grams, lc_gram_mix(gram))) continue;
        if (i - LC_EXCLUDE_WORDS >= covered) { /* a new stretch */
            if (++out->matches > LC_EXCLUDE_CUTS_MAX) {
                out->n = 0;
                return;
            }
            add_part(text, from, w->start, covered > 0, true, out);
        }
        covered = i;
        from = words->data[i - 1].end;
    }
    add_part(text, from, len, covered > 0, false, out);
}
