/* grammar_vocab.c: sorts a vocabulary's bytes into a tree. */
#include "engine/grammar_vocab.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

const char *const lc_tag_texts[LC_TAG_COUNT] = {"<longcat_tool_call>", "</longcat_tool_call>",
                                                "<longcat_arg_key>",   "</longcat_arg_key>",
                                                "<longcat_arg_value>", "</longcat_arg_value>"};

typedef struct piece {
    const char *bytes;
    size_t len;
    int32_t token;
} piece;

static int by_bytes(const void *a, const void *b) {
    const piece *x = a, *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    int order = memcmp(x->bytes, y->bytes, n);
    if (order) return order;
    if (x->len != y->len) return x->len < y->len ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

static size_t common(const piece *a, const piece *b) {
    size_t n = 0;
    while (n < a->len && n < b->len && a->bytes[n] == b->bytes[n]) n++;
    return n;
}

/* Nodes of the pieces in order; open[d] is the node at depth d on the way to the last piece. */
static void make_tree(lc_grammar_vocab *v, const piece *list, size_t n, uint32_t *open) {
    size_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        size_t shared = i ? common(&list[i - 1], &list[i]) : 0;
        for (; depth > shared; depth--) v->nodes[open[depth - 1]].end = (uint32_t)v->n_nodes;
        for (; depth < list[i].len; depth++) {
            open[depth] = (uint32_t)v->n_nodes;
            v->nodes[v->n_nodes++] = (lc_vocab_node){(uint8_t)list[i].bytes[depth], 0, -1};
        }
        int32_t *place = &v->nodes[open[depth - 1]].token;
        while (*place >= 0) place = &v->same[*place];
        *place = list[i].token;
    }
    for (; depth > 0; depth--) v->nodes[open[depth - 1]].end = (uint32_t)v->n_nodes;
}

static int check_bytes(const lc_grammar_vocab *v, lc_err *err) {
    uint8_t seen[256] = {0};
    for (uint32_t i = 0; i < v->n_nodes; i = v->nodes[i].end)
        seen[v->nodes[i].byte] = v->nodes[i].token >= 0;
    for (unsigned b = 0; b < 256; b++)
        if (!seen[b] && b != 0xC0 && b != 0xC1 && b < 0xF5) /* others never stand in UTF-8 */
            return lc_fail(err, LC_EUNSUPPORTED, "grammars: byte 0x%02x has no token of its own",
                           b);
    return LC_OK;
}

int lc_grammar_vocab_new(const lc_tokenizer *tokenizer, size_t vocab, const int32_t *eos,
                         size_t n_eos, lc_grammar_vocab **out, lc_err *err) {
    size_t n = 0, bytes = 0, longest = 0;
    lc_grammar_vocab *v = lc_calloc(1, sizeof *v);
    piece *list = lc_calloc(vocab + 1, sizeof *list);
    uint32_t *open = NULL;
    *out = NULL;
    for (size_t i = 0; i < n_eos; i++)
        if (eos[i] < 0 || (size_t)eos[i] >= vocab) {
            lc_free(v);
            lc_free(list);
            return lc_fail(err, LC_EINVAL, "grammars: no token %d of an end", eos[i]);
        }
    bool ok = v && list;
    if (ok) {
        *v = (lc_grammar_vocab){.tokenizer = tokenizer, .vocab = vocab, .n_eos = n_eos};
        v->same = lc_calloc(vocab + 1, sizeof *v->same);
        v->apart = lc_calloc(vocab + 1, 1);
        v->eos = lc_calloc(n_eos + 1, sizeof *v->eos);
        ok = v->same && v->apart && v->eos;
    }
    if (ok) {
        memcpy(v->eos, eos, n_eos * sizeof *eos);
        for (size_t i = 0; i < lc_tokenizer_added_count(tokenizer); i++) {
            int32_t id;
            bool special;
            lc_tokenizer_added(tokenizer, i, &id, &special);
            if (id >= 0 && (size_t)id < vocab) v->apart[id] = 1;
        }
        for (size_t i = 0; i < vocab; i++) {
            size_t len;
            const char *text = lc_tokenizer_bytes(tokenizer, (int32_t)i, &len);
            v->same[i] = -1;
            if (!len || v->apart[i]) continue;
            list[n++] = (piece){text, len, (int32_t)i};
            bytes += len;
            if (len > longest) longest = len;
        }
        qsort(list, n, sizeof *list, by_bytes);
        v->nodes = lc_calloc(bytes + 1, sizeof *v->nodes);
        open = lc_calloc(longest + 1, sizeof *open);
        ok = v->nodes && open;
    }
    int status = ok ? LC_OK : lc_fail(err, LC_ENOMEM, "grammars: out of memory");
    if (status == LC_OK) {
        make_tree(v, list, n, open);
        for (int i = 0; i < LC_TAG_COUNT; i++)
            v->tags[i] = lc_tokenizer_id(tokenizer, lc_tag_texts[i]);
        status = check_bytes(v, err);
    }
    lc_free(open);
    lc_free(list);
    if (status == LC_OK)
        *out = v;
    else
        lc_grammar_vocab_free(v);
    return status;
}

void lc_grammar_vocab_free(lc_grammar_vocab *v) {
    if (!v) return;
    lc_free(v->nodes);
    lc_free(v->same);
    lc_free(v->apart);
    lc_free(v->eos);
    lc_free(v);
}
