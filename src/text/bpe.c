/*
 * bpe.c: byte-pair encoding of one piece.
 *
 * The pair of lowest rank is merged first, the leftmost one among equals. A heap of (rank,
 * position) holds the candidates and a linked list the symbols, so a piece of n characters takes
 * O(n log n) however long it is: each merge removes a symbol and adds at most two candidates, so
 * there are fewer than 3n of them. A candidate whose symbols have changed meanwhile is skipped when
 * it comes up.
 *
 * Characters without a token: the reference takes unk_token if there is one, else it drops them
 * silently; so do we. With a byte alphabet this only happens to incomplete vocabularies.
 */
#include "text/tok.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

/* ---- loading ---- */

static size_t pair_home(const lc_bpe *bpe, int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 32) & bpe->mask;
}

static inline const lc_pair_slot *find_pair(const lc_bpe *bpe, int32_t left, int32_t right) {
    size_t at = pair_home(bpe, left, right);
    for (uint32_t step = 0; step <= bpe->longest; step++, at = (at + 1) & bpe->mask) {
        const lc_pair_slot *slot = &bpe->slots[at];
        if (slot->left == left && slot->right == right) return slot;
        if (slot->left < 0) return NULL;
    }
    return NULL;
}

/* A pair that occurs twice keeps its last rank, as in the reference. */
static bool add_pair(lc_bpe *bpe, int32_t left, int32_t right, uint32_t rank) {
    size_t at = pair_home(bpe, left, right);
    uint32_t step = 0;
    for (; bpe->slots[at].left >= 0; at = (at + 1) & bpe->mask) {
        if (bpe->slots[at].left == left && bpe->slots[at].right == right) break;
        if (++step > LC_TOK_PROBES_MAX) return false;
    }
    if (step > bpe->longest) bpe->longest = step;
    bpe->slots[at] = (lc_pair_slot){left, right, rank};
    return true;
}

/* The two sides of a merge: ["a", "b"] or "a b". */
static bool merge_sides(struct json_object *merge, lc_str side[2]) {
    if (json_object_is_type(merge, json_type_array)) {
        if (json_object_array_length(merge) != 2) return false;
        for (size_t i = 0; i < 2; i++) {
            struct json_object *text = json_object_array_get_idx(merge, i);
            if (!json_object_is_type(text, json_type_string)) return false;
            side[i] =
                (lc_str){json_object_get_string(text), (size_t)json_object_get_string_len(text)};
        }
        return true;
    }
    if (!json_object_is_type(merge, json_type_string)) return false;
    const char *text = json_object_get_string(merge);
    size_t len = (size_t)json_object_get_string_len(merge);
    const char *space = memchr(text, ' ', len);
    if (!space) return false;
    size_t first = (size_t)(space - text);
    side[0] = (lc_str){text, first};
    side[1] = (lc_str){space + 1, len - first - 1};
    return !memchr(side[1].data, ' ', side[1].len);
}

typedef struct merge_reader {
    lc_bpe *bpe;
    const lc_vocab *vocab;
    const lc_tok_src *src;
    lc_buf joined;
} merge_reader;

static int missing_token(const merge_reader *r, size_t i, lc_str content) {
    char copy[48];
    snprintf(copy, sizeof copy, "%.*s", (int)(content.len < 47 ? content.len : 47), content.data);
    lc_quoted quoted = lc_tok_quote(copy);
    return lc_fail(r->src->err, LC_EFORMAT,
                   "%s: model.merges[%zu]: \"%s\" is not in the vocabulary", r->src->name, i,
                   quoted.text);
}

static int add_merge(merge_reader *r, size_t i, struct json_object *merge) {
    lc_bpe *bpe = r->bpe;
    lc_str side[2];
    if (!merge_sides(merge, side))
        return lc_fail(r->src->err, LC_EFORMAT,
                       "%s: model.merges[%zu] is neither \"a b\" nor [\"a\", \"b\"]", r->src->name,
                       i);
    lc_buf_clear(&r->joined);
    lc_buf_append(&r->joined, side[0].data, side[0].len);
    if (!lc_buf_append(&r->joined, side[1].data, side[1].len))
        return lc_fail(r->src->err, LC_ENOMEM, "%s: out of memory", r->src->name);
    lc_str joined = {r->joined.data, r->joined.len};
    int32_t left = lc_vocab_find(r->vocab, side[0].data, side[0].len, LC_IN_MODEL);
    int32_t right = lc_vocab_find(r->vocab, side[1].data, side[1].len, LC_IN_MODEL);
    int32_t result = lc_vocab_find(r->vocab, joined.data, joined.len, LC_IN_MODEL);
    if (left < 0) return missing_token(r, i, side[0]);
    if (right < 0) return missing_token(r, i, side[1]);
    if (result < 0) return missing_token(r, i, joined);
    bpe->merges[bpe->n_merges] = (lc_merge){left, right, result};
    if (!add_pair(bpe, left, right, (uint32_t)bpe->n_merges))
        return lc_fail(r->src->err, LC_ELIMIT,
                       "%s: model.merges: more than %d pairs collide in the hash table",
                       r->src->name, LC_TOK_PROBES_MAX);
    bpe->n_merges++;
    return LC_OK;
}

static bool is_version_line(struct json_object *merge) {
    return json_object_is_type(merge, json_type_string) &&
           !strncmp(json_object_get_string(merge), "#version", 8);
}

static int load_merges(merge_reader *r, struct json_object *merges) {
    lc_bpe *bpe = r->bpe;
    if (!json_object_is_type(merges, json_type_array))
        return lc_fail(r->src->err, LC_EFORMAT, "%s: model.merges is missing or no list",
                       r->src->name);
    size_t n = json_object_array_length(merges), slots = 16;
    if (n >= LC_TOK_ID_LIMIT)
        return lc_fail(r->src->err, LC_ELIMIT, "%s: model.merges: more than %d merges",
                       r->src->name, LC_TOK_ID_LIMIT - 1);
    while (slots < 2 * n) slots *= 2;
    bpe->mask = slots - 1;
    bpe->merges = lc_calloc(n + 1, sizeof *bpe->merges);
    bpe->slots = lc_alloc(slots * sizeof *bpe->slots);
    if (!bpe->merges || !bpe->slots)
        return lc_fail(r->src->err, LC_ENOMEM, "%s: out of memory for %zu merges", r->src->name, n);
    for (size_t i = 0; i < slots; i++) bpe->slots[i] = (lc_pair_slot){-1, -1, 0};
    for (size_t i = 0; i < n; i++) {
        struct json_object *merge = json_object_array_get_idx(merges, i);
        if (is_version_line(merge)) continue;
        int status = add_merge(r, i, merge);
        if (status) return status;
    }
    return LC_OK;
}

/* Options of the reference's BPE that byte-level models leave unset. */
static int refuse_options(const lc_tok_src *src, struct json_object *model) {
    static const char *const texts[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct json_object *value = lc_tok_field(model, texts[i]);
        if (value && json_object_get_string_len(value) > 0)
            return lc_fail(src->err, LC_EUNSUPPORTED, "%s: model.%s is not supported", src->name,
                           texts[i]);
    }
    bool fallback = false;
    int status = lc_tok_bool(src, model, "model", "byte_fallback", &fallback);
    if (status) return status;
    if (fallback)
        return lc_fail(src->err, LC_EUNSUPPORTED,
                       "%s: model.byte_fallback is not supported (byte-level BPE only)", src->name);
    struct json_object *dropout = lc_tok_field(model, "dropout");
    if (dropout && json_object_get_double(dropout) != 0)
        return lc_fail(src->err, LC_EUNSUPPORTED, "%s: model.dropout is not supported", src->name);
    return LC_OK;
}

int lc_bpe_load(lc_bpe *bpe, const lc_vocab *vocab, const lc_tok_src *src,
                struct json_object *model) {
    int status = refuse_options(src, model);
    if (!status) status = lc_tok_bool(src, model, "model", "fuse_unk", &bpe->fuse_unk);
    if (!status) status = lc_tok_bool(src, model, "model", "ignore_merges", &bpe->ignore_merges);
    if (status) return status;
    bpe->unk = -1;
    if (lc_tok_field(model, "unk_token")) {
        lc_str unk;
        if ((status = lc_tok_string(src, model, "model", "unk_token", &unk))) return status;
        bpe->unk = lc_vocab_find(vocab, unk.data, unk.len, LC_IN_MODEL);
        if (bpe->unk < 0)
            return lc_fail(src->err, LC_EFORMAT, "%s: model.unk_token is not in the vocabulary",
                           src->name);
    }
    for (uint32_t code = 0; code < LC_ALPHABET_END; code++) {
        char utf8[4];
        bpe->char_id[code] = lc_vocab_find(vocab, utf8, lc_utf8_encode(code, utf8), LC_IN_MODEL);
    }
    merge_reader reader = {bpe, vocab, src, {0}};
    status = load_merges(&reader, lc_tok_field(model, "merges"));
    lc_buf_free(&reader.joined);
    return status;
}

void lc_bpe_free(lc_bpe *bpe) {
    lc_free(bpe->merges);
    lc_free(bpe->slots);
    *bpe = (lc_bpe){0};
}

/* ---- encoding ---- */

static bool reserve(lc_bpe_work *work, size_t n) {
    if (n <= work->cap) return true;
    lc_bpe_work_free(work);
    size_t cap = n + n / 2 + 32, candidates;
    work->symbols =
        lc_size_mul(cap, sizeof *work->symbols, &candidates) ? lc_alloc(candidates) : NULL;
    if (work->symbols && lc_size_mul(cap, 3 * sizeof *work->heap, &candidates))
        work->heap = lc_alloc(candidates);
    if (!work->symbols || !work->heap) return false;
    work->cap = cap;
    return true;
}

void lc_bpe_work_free(lc_bpe_work *work) {
    lc_free(work->symbols);
    lc_free(work->heap);
    *work = (lc_bpe_work){0};
}

static void heap_push(lc_bpe_work *work, uint64_t entry) {
    uint64_t *heap = work->heap;
    size_t i = work->n_heap++;
    while (i && heap[(i - 1) / 2] > entry) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = entry;
}

static uint64_t heap_pop(lc_bpe_work *work) {
    uint64_t *heap = work->heap, top = heap[0], last = heap[--work->n_heap];
    size_t i = 0, n = work->n_heap;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= last) break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

static void push_symbol(lc_bpe_work *work, int32_t id) {
    int32_t at = (int32_t)work->n_symbols++;
    work->symbols[at] = (lc_bpe_symbol){id, at - 1, at + 1};
}

/* The piece's characters as symbols. */
static void start_symbols(const lc_bpe *bpe, const lc_vocab *vocab, lc_bpe_work *work,
                          lc_str piece) {
    bool after_unk = false;
    work->n_symbols = 0;
    for (size_t i = 0, used; i < piece.len; i += used) {
        int32_t code = lc_utf8_decode(piece.data + i, piece.len - i, &used);
        int32_t id = code >= 0 && code < LC_ALPHABET_END
                         ? bpe->char_id[code]
                         : lc_vocab_find(vocab, piece.data + i, used, LC_IN_MODEL);
        if (id >= 0) {
            push_symbol(work, id);
            after_unk = false;
        } else if (bpe->unk >= 0) {
            if (!after_unk || !bpe->fuse_unk) push_symbol(work, bpe->unk);
            after_unk = true;
        }
    }
    if (work->n_symbols) work->symbols[work->n_symbols - 1].next = -1;
}

static inline void push_candidate(const lc_bpe *bpe, lc_bpe_work *work, int32_t left,
                                  int32_t right) {
    const lc_pair_slot *slot = find_pair(bpe, work->symbols[left].id, work->symbols[right].id);
    if (slot) heap_push(work, (uint64_t)slot->rank << 32 | (uint32_t)left);
}

static void merge_all(const lc_bpe *bpe, lc_bpe_work *work) {
    lc_bpe_symbol *symbols = work->symbols;
    work->n_heap = 0;
    for (size_t i = 1; i < work->n_symbols; i++)
        push_candidate(bpe, work, (int32_t)i - 1, (int32_t)i);
    while (work->n_heap) {
        uint64_t top = heap_pop(work);
        const lc_merge *merge = &bpe->merges[top >> 32];
        int32_t at = (int32_t)(uint32_t)top;
        lc_bpe_symbol *left = &symbols[at];
        if (left->id != merge->left || left->next < 0) continue;
        lc_bpe_symbol *right = &symbols[left->next];
        if (right->id != merge->right) continue;
        left->id = merge->result;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) symbols[left->next].prev = at;
        if (left->prev >= 0) push_candidate(bpe, work, left->prev, at);
        if (left->next >= 0) push_candidate(bpe, work, at, left->next);
    }
}

bool lc_bpe_encode(const lc_bpe *bpe, const lc_vocab *vocab, lc_bpe_work *work, lc_str piece,
                   lc_ids *out) {
    if (bpe->ignore_merges) {
        int32_t whole = lc_vocab_find(vocab, piece.data, piece.len, LC_IN_MODEL);
        if (whole >= 0) return lc_ids_push(out, whole);
    }
    if (!reserve(work, piece.len)) return false;
    start_symbols(bpe, vocab, work, piece);
    merge_all(bpe, work);
    for (int32_t i = work->n_symbols ? 0 : -1; i >= 0; i = work->symbols[i].next)
        if (!lc_ids_push(out, work->symbols[i].id)) return false;
    return true;
}
