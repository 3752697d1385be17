/* batch.c: see batch.h. */
#include "train/batch.h"

#include "base/mem.h"

static int add(lc_batch *b, const lc_document *doc, lc_err *err) {
    if (b->n == b->cap) {
        size_t cap = b->cap * 2 + 256;
        lc_document *more = lc_realloc(b->docs, cap, sizeof *more);
        if (!more) return lc_fail(err, LC_ENOMEM, "%s: out of memory", doc->path);
        b->docs = more;
        b->cap = cap;
    }
    lc_document *copy = &b->docs[b->n];
    *copy = *doc;
    copy->text = lc_arena_strndup(b->arena, doc->text, doc->len);
    if (doc->chat) copy->chat = lc_arena_strndup(b->arena, doc->chat, doc->chat_len);
    if (!copy->text || (doc->chat && !copy->chat))
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", doc->path);
    b->bytes += doc->len + doc->chat_len;
    b->n++;
    return LC_OK;
}

int lc_batch_fill(lc_batch *b, lc_corpus *corpus, lc_err *err) {
    lc_document doc;
    bool more = true;
    int status = LC_OK;
    if (!b->arena && !(b->arena = lc_arena_new(0)))
        return lc_fail(err, LC_ENOMEM, "corpus: out of memory");
    lc_arena_reset(b->arena);
    b->n = b->bytes = 0;
    while (!status && b->bytes < LC_BATCH_BYTES && b->n < LC_BATCH_DOCS) {
        status = lc_corpus_next(corpus, &doc, &more, err);
        if (!status && !more) break;
        if (!status) status = add(b, &doc, err);
    }
    return status;
}

void lc_batch_free(lc_batch *b) {
    lc_free(b->docs);
    lc_arena_free(b->arena);
    *b = (lc_batch){0};
}
