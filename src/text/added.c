/*
 * added.c: added tokens: finding them in a text, and what their flags do to a match.
 *
 * The rule is leftmost, and the longest at one place; a match that a flag refuses hides shorter
 * ones and what it covers, as in the reference. A trie that starts again at each position is
 * quadratic on a long token's prefix, and so is an automaton that starts again behind each match.
 * Therefore the strings stand reversed in an Aho-Corasick automaton that reads the text from right
 * to left: at each position it knows the longest token that begins there. A second pass from left
 * to right then picks. Both are linear, whatever the tokens and the text.
 */
#include "text/tok.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

/* ---- the automaton ---- */

static uint32_t trie_child(const lc_trie *trie, uint32_t node, uint8_t byte) {
    if (!node) return trie->root[byte];
    uint32_t child = trie->nodes[node].child;
    while (child && trie->nodes[child].byte != byte) child = trie->nodes[child].sibling;
    return child;
}

static uint32_t trie_add_node(lc_trie *trie, uint32_t parent, uint8_t byte) {
    if (trie->n_nodes == trie->cap) {
        size_t cap = trie->cap + trie->cap / 2 + 256;
        lc_trie_node *nodes = lc_realloc(trie->nodes, cap, sizeof *nodes);
        if (!nodes) return 0;
        trie->nodes = nodes;
        trie->cap = cap;
    }
    uint32_t node = (uint32_t)trie->n_nodes++;
    trie->nodes[node] = (lc_trie_node){.byte = byte};
    if (parent) {
        trie->nodes[node].sibling = trie->nodes[parent].child;
        trie->nodes[parent].child = node;
    } else {
        trie->root[byte] = node;
    }
    return node;
}

/* A string that is there already (two contents may normalise to one) keeps its first token. */
static int trie_add(lc_trie *trie, lc_str text, uint32_t token) {
    uint32_t node = 0;
    if (!text.len) return LC_OK;
    if (!trie->n_nodes) {
        trie_add_node(trie, 0, 0); /* the root; no byte leads to it */
        trie->root[0] = 0;
        if (!trie->n_nodes) return LC_ENOMEM;
    }
    for (size_t i = text.len; i-- > 0;) {
        uint8_t byte = (uint8_t)text.data[i];
        uint32_t child = trie_child(trie, node, byte);
        if (!child && !(child = trie_add_node(trie, node, byte))) return LC_ENOMEM;
        node = child;
    }
    if (trie->nodes[node].output) return LC_OK;
    trie->nodes[node].output = token + 1;
    trie->nodes[node].length = (uint32_t)text.len;
    trie->any = true;
    return LC_OK;
}

/* The state after `byte`: the longest node whose string ends the text read so far. */
static uint32_t trie_step(const lc_trie *trie, uint32_t node, uint8_t byte) {
    uint32_t next;
    while (!(next = trie_child(trie, node, byte)) && node) node = trie->nodes[node].fail;
    return next;
}

/* Failure links, in order of depth; a node without an output takes that of its failure link. */
static int trie_finish(lc_trie *trie) {
    if (!trie->any) return LC_OK;
    uint32_t *queue = lc_calloc(trie->n_nodes, sizeof *queue);
    size_t head = 0, tail = 0;
    if (!queue) return LC_ENOMEM;
    for (size_t byte = 0; byte < 256; byte++)
        if (trie->root[byte]) queue[tail++] = trie->root[byte];
    while (head < tail) {
        uint32_t node = queue[head++];
        for (uint32_t c = trie->nodes[node].child; c; c = trie->nodes[c].sibling) {
            lc_trie_node *child = &trie->nodes[c];
            child->fail = trie_step(trie, trie->nodes[node].fail, child->byte);
            if (!child->output) {
                child->output = trie->nodes[child->fail].output;
                child->length = trie->nodes[child->fail].length;
            }
            queue[tail++] = c;
        }
    }
    lc_free(queue);
    return LC_OK;
}

/* For each position where tokens begin, from right to left, the longest one; id = token's index. */
static bool trie_find(const lc_trie *trie, lc_str text, lc_spans *hits) {
    uint32_t node = 0;
    for (size_t i = text.len; i-- > 0;) {
        node = trie_step(trie, node, (uint8_t)text.data[i]);
        const lc_trie_node *state = &trie->nodes[node];
        if (state->output && !lc_spans_push(hits, i, state->length, (int32_t)state->output - 1))
            return false;
    }
    return true;
}

/* ---- loading ---- */

typedef struct added_loader {
    lc_added *added;
    const lc_normalizer *norm;
    const lc_tok_src *src;
    lc_norm_work norm_work;
    lc_regex_work *regex;
    size_t bytes;
} added_loader;

static int load_token(added_loader *loader, struct json_object *json, size_t i) {
    const lc_tok_src *src = loader->src;
    lc_added_token *token = &loader->added->tokens[i];
    char where[64];
    lc_str text = {0};
    snprintf(where, sizeof where, "added_tokens[%zu]", i);
    token->id = json_object_get_int(lc_tok_field(json, "id")); /* vocab.c has checked it */
    int status = lc_tok_bool(src, json, where, "special", &token->special);
    if (!status) status = lc_tok_bool(src, json, where, "single_word", &token->single_word);
    if (!status) status = lc_tok_bool(src, json, where, "lstrip", &token->lstrip);
    if (!status) status = lc_tok_bool(src, json, where, "rstrip", &token->rstrip);
    token->normalized = !token->special;
    if (!status) status = lc_tok_bool(src, json, where, "normalized", &token->normalized);
    if (!status) status = lc_tok_string(src, json, where, "content", &text);
    if (!status && token->normalized)
        status =
            lc_normalize(loader->norm, &loader->norm_work, loader->regex, text, &text, src->err);
    if (status) return status;
    loader->bytes += text.len;
    if (loader->bytes > LC_TOK_ADDED_MAX)
        return lc_fail(src->err, LC_ELIMIT, "%s: added_tokens: more than %d bytes together",
                       src->name, LC_TOK_ADDED_MAX);
    lc_trie *trie = token->normalized ? &loader->added->normalized : &loader->added->raw;
    status = trie_add(trie, text, (uint32_t)i);
    return status ? lc_fail(src->err, status, "%s: out of memory", src->name) : LC_OK;
}

int lc_added_load(lc_added *added, const lc_normalizer *norm, const lc_tok_src *src,
                  struct json_object *json) {
    size_t n = json ? json_object_array_length(json) : 0;
    if (!n) return LC_OK;
    added_loader loader = {.added = added, .norm = norm, .src = src};
    added->tokens = lc_calloc(n, sizeof *added->tokens);
    loader.regex = lc_regex_work_new();
    int status = LC_OK;
    if (!added->tokens || !loader.regex)
        status = lc_fail(src->err, LC_ENOMEM, "%s: out of memory", src->name);
    for (; !status && added->count < n; added->count++)
        status = load_token(&loader, json_object_array_get_idx(json, added->count), added->count);
    if (!status && (trie_finish(&added->raw) || trie_finish(&added->normalized)))
        status = lc_fail(src->err, LC_ENOMEM, "%s: out of memory", src->name);
    lc_norm_work_free(&loader.norm_work);
    lc_regex_work_free(loader.regex);
    return status;
}

void lc_added_free(lc_added *added) {
    lc_free(added->tokens);
    lc_free(added->raw.nodes);
    lc_free(added->normalized.nodes);
    *added = (lc_added){0};
}

/* ---- matching ---- */

/* \w of the reference: alphabetic, marks, decimal digits, connectors, joiners. */
static bool is_word(int32_t code) {
    if (code < 0) return false;
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC: return true;
    default: break;
    }
    return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9) ||
           (code >= 0x1F130 && code <= 0x1F149) || (code >= 0x1F150 && code <= 0x1F169) ||
           (code >= 0x1F170 && code <= 0x1F189);
}

/* The character that ends before text[at], at > 0; *start is where it begins. */
static int32_t code_before(lc_str text, size_t at, size_t *start) {
    size_t used;
    *start = at - 1;
    while (*start && ((unsigned char)text.data[*start] & 0xC0) == 0x80) --*start;
    return lc_utf8_decode(text.data + *start, at - *start, &used);
}

static bool touches_word(lc_str text, size_t start, size_t end) {
    size_t at;
    if (start && is_word(code_before(text, start, &at))) return true;
    return end < text.len && is_word(lc_utf8_decode(text.data + end, text.len - end, &at));
}

typedef struct added_scan {
    lc_str text;
    size_t done;      /* what the list of pieces covers */
    size_t space_end; /* white space up to here was seen by an rstrip */
} added_scan;

static size_t strip_left(const added_scan *scan, size_t start) {
    size_t at;
    while (start > scan->done && lc_is_space(code_before(scan->text, start, &at))) start = at;
    return start > scan->done ? start : scan->done;
}

static size_t strip_right(added_scan *scan, size_t end) {
    const lc_str text = scan->text;
    if (end < scan->space_end) return scan->space_end; /* inside a run that was seen before */
    size_t used;
    while (end < text.len && lc_is_space(lc_utf8_decode(text.data + end, text.len - end, &used)))
        end += used;
    scan->space_end = end;
    return end;
}

static bool take_match(added_scan *scan, const lc_added_token *token, lc_span hit, lc_spans *out) {
    size_t start = hit.start, end = hit.start + hit.len;
    if (token->single_word && touches_word(scan->text, start, end)) return true;
    if (token->lstrip) start = strip_left(scan, start);
    if (token->rstrip) end = strip_right(scan, end);
    if (scan->done < start && !lc_spans_push(out, scan->done, start - scan->done, -1)) return false;
    scan->done = end;
    return start >= end || lc_spans_push(out, start, end - start, token->id);
}

int lc_added_split(const lc_added_query *query, lc_str text, lc_spans *out, lc_err *err) {
    const lc_added *added = query->added;
    const lc_trie *trie = query->normalized ? &added->normalized : &added->raw;
    lc_spans *hits = query->hits;
    added_scan scan = {.text = text};
    bool ok = true;
    hits->len = 0;
    if (trie->any) ok = trie_find(trie, text, hits);
    size_t matched = 0;
    for (size_t i = ok ? hits->len : 0; i-- > 0 && ok;) {
        lc_span hit = hits->data[i];
        if (hit.start < matched) continue;
        matched = hit.start + hit.len;
        const lc_added_token *token = &added->tokens[hit.id];
        if (!(query->no_special && token->special)) ok = take_match(&scan, token, hit, out);
    }
    if (ok && scan.done < text.len) ok = lc_spans_push(out, scan.done, text.len - scan.done, -1);
    return ok ? LC_OK : lc_fail(err, LC_ENOMEM, "added_tokens: out of memory");
}
