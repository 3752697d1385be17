/*
 * bpe_train.c: see bpe_train.h.
 *
 * Pieces are lists of ids in one array. A heap holds candidates (count, pair, the pieces that hold
 * it); counts change while a candidate waits, so one whose count is out of date goes back with the
 * present one. Counts only fall while a pair waits, hence the top of the heap with a true count is
 * the best pair. A merge visits the pieces of its pair only and notes which new pairs it made
 * where; these become candidates afterwards. Positions live in one array that only grows: each step
 * of a merge takes a symbol away, so it is bounded by the length of all pieces.
 */
#include "train/bpe_train.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>
#include <xxhash.h>

enum { PROGRESS_STEP = 64, CODES = 0x144 /* the byte alphabet's characters are below */ };

typedef struct word {
    size_t at; /* of its first symbol */
    uint32_t len;
    uint64_t count;
} word;

typedef struct candidate {
    int64_t count;
    uint64_t pair;
    size_t at; /* its pieces: places[at..at + n) */
    uint32_t n;
} candidate;

typedef struct pair_slot {
    uint64_t pair; /* left << 32 | right */
    int64_t count;
    uint32_t touched; /* place in the list of pairs that the present step has made, + 1 */
    bool used, merged;
} pair_slot;

/* A pair that the present step made, and in how many pieces. */
typedef struct touch {
    uint64_t pair;
    uint32_t last, n, filled;
    size_t at;
} touch;

typedef struct note { /* pair number `touch` is in piece `word` */
    uint32_t touch, word;
} note;

typedef struct trainer {
    const lc_bpe_options *options;
    lc_bpe_model *model;
    word *words;
    size_t n_words;
    uint32_t *symbols;
    pair_slot *pairs;
    size_t n_pairs, pair_mask;
    candidate *heap;
    size_t n_heap, cap_heap;
    uint32_t *places;
    size_t n_places, cap_places;
    touch *touches;
    size_t n_touches, cap_touches;
    note *notes;
    size_t n_notes, cap_notes;
    uint32_t *ids; /* hash of contents: id + 1 */
    size_t id_mask;
    bool failed;
} trainer;

/* Room for one more element; false and t->failed when memory is short. */
static bool room(trainer *t, void *list, size_t n, size_t *cap, size_t size) {
    if (n < *cap) return true;
    size_t more = *cap + *cap / 2 + 1024;
    void *block, *grown;
    memcpy(&block, list, sizeof block);
    grown = t->failed ? NULL : lc_realloc(block, more, size);
    if (!grown) {
        t->failed = true;
        return false;
    }
    memcpy(list, &grown, sizeof grown);
    *cap = more;
    return true;
}

/* ---- contents and ids ---- */

static uint32_t *id_slot(const trainer *t, const char *text, size_t len) {
    size_t at = (size_t)XXH3_64bits(text, len) & t->id_mask;
    while (t->ids[at] && strcmp(lc_bpe_model_content(t->model, t->ids[at] - 1), text))
        at = (at + 1) & t->id_mask;
    return &t->ids[at];
}

/* The id of a content, a new one if there is none. text must not be inside the model. */
static uint32_t id_of(trainer *t, const char *text, size_t len) {
    lc_bpe_model *m = t->model;
    uint32_t *slot = id_slot(t, text, len);
    if (*slot) return *slot - 1;
    m->offset[m->vocab] = m->text.len;
    if (!lc_buf_append(&m->text, text, len) || !lc_buf_putc(&m->text, 0)) {
        t->failed = true;
        return 0;
    }
    *slot = (uint32_t)++m->vocab;
    return (uint32_t)m->vocab - 1;
}

/* The 256 characters that stand for bytes. */
static bool in_alphabet(uint32_t code) {
    return (code >= 0x21 && code <= 0x7E) || (code >= 0xA1 && code != 0xAD);
}

static int start_model(trainer *t, uint32_t byte_id[CODES], lc_err *err) {
    const lc_bpe_options *o = t->options;
    size_t n = o->vocab + 1;
    if (o->vocab < o->n_special + 256)
        return lc_fail(
            err, LC_EINVAL,
            "tokenizer: %zu ids are too few: %zu special tokens and 256 bytes need theirs",
            o->vocab, o->n_special);
    t->id_mask = 1023;
    while (t->id_mask < 4 * n) t->id_mask = t->id_mask * 2 + 1;
    t->model->offset = lc_calloc(n, sizeof *t->model->offset);
    t->model->merges = lc_calloc(n, sizeof *t->model->merges);
    t->ids = lc_calloc(t->id_mask + 1, sizeof *t->ids);
    if (!t->model->offset || !t->model->merges || !t->ids)
        return lc_fail(err, LC_ENOMEM, "tokenizer: out of memory");
    for (size_t i = 0; i < o->n_special; i++) id_of(t, o->special[i], strlen(o->special[i]));
    if (!t->failed && t->model->vocab != o->n_special)
        return lc_fail(err, LC_EINVAL, "tokenizer: a special token is named twice");
    for (uint32_t code = 0; code < CODES; code++) {
        char text[5] = {0};
        byte_id[code] = UINT32_MAX;
        if (!in_alphabet(code)) continue;
        byte_id[code] = id_of(t, text, lc_utf8_encode(code, text));
    }
    return t->failed ? lc_fail(err, LC_ENOMEM, "tokenizer: out of memory") : LC_OK;
}

/* ---- pieces to lists of ids ---- */

static void take_piece(trainer *t, const char *text, const lc_piece *piece,
                       const uint32_t byte_id[CODES], size_t *at) {
    word *w = &t->words[t->n_words++];
    *w = (word){.at = *at, .count = piece->count};
    for (size_t i = 0, used; i < piece->len; i += used) {
        int32_t code = lc_utf8_decode(text + i, piece->len - i, &used);
        bool known = code >= 0 && code < CODES;
        t->symbols[w->at + w->len++] = known ? byte_id[code] : 0;
    }
    *at += w->len;
}

static int take_pieces(trainer *t, lc_piece_counts *counts, const uint32_t *byte_id, lc_err *err) {
    size_t bytes = 0, at = 0;
    for (size_t k = 0; k < LC_PIECE_PARTS; k++) bytes += counts->parts[k].text.len;
    t->words = lc_calloc(lc_piece_counts_size(counts) + 1, sizeof *t->words);
    t->symbols = lc_calloc(bytes + 1, sizeof *t->symbols);
    if (!t->words || !t->symbols || lc_piece_counts_size(counts) >= UINT32_MAX)
        return lc_fail(err, LC_ENOMEM, "tokenizer: no memory for %zu pieces",
                       lc_piece_counts_size(counts));
    for (size_t k = 0; k < LC_PIECE_PARTS; k++) {
        const lc_piece_table *p = &counts->parts[k];
        for (size_t i = 0; p->slots && i <= p->mask; i++)
            if (p->slots[i].count)
                take_piece(t, p->text.data + p->slots[i].at, &p->slots[i], byte_id, &at);
    }
    lc_piece_counts_free(counts);
    return LC_OK;
}

/* ---- pairs ---- */

static size_t pair_home(uint64_t pair, size_t mask) {
    uint64_t h = pair * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 32) & mask;
}

static bool grow_pairs(trainer *t) {
    size_t mask = t->pairs ? t->pair_mask * 2 + 1 : 65535;
    pair_slot *bigger = lc_calloc(mask + 1, sizeof *bigger);
    if (!bigger) {
        t->failed = true;
        return false;
    }
    for (size_t i = 0; t->pairs && i <= t->pair_mask; i++) {
        if (!t->pairs[i].used) continue;
        size_t at = pair_home(t->pairs[i].pair, mask);
        while (bigger[at].used) at = (at + 1) & mask;
        bigger[at] = t->pairs[i];
    }
    lc_free(t->pairs);
    t->pairs = bigger;
    t->pair_mask = mask;
    return true;
}

/* The slot of a pair, made if there is none; NULL when memory is short. */
static pair_slot *pair_of(trainer *t, uint64_t pair) {
    if ((!t->pairs || t->n_pairs * 2 > t->pair_mask) && !grow_pairs(t)) return NULL;
    size_t at = pair_home(pair, t->pair_mask);
    for (; t->pairs[at].used; at = (at + 1) & t->pair_mask)
        if (t->pairs[at].pair == pair) return &t->pairs[at];
    t->pairs[at] = (pair_slot){.pair = pair, .used = true};
    t->n_pairs++;
    return &t->pairs[at];
}

static uint64_t pair(uint32_t left, uint32_t right) { return (uint64_t)left << 32 | right; }

static void lower(trainer *t, uint64_t p, uint64_t count) {
    pair_slot *slot = pair_of(t, p);
    if (slot) slot->count -= (int64_t)count;
}

/* A pair has come up in a piece. */
static void raise(trainer *t, uint64_t p, uint32_t in) {
    pair_slot *slot = pair_of(t, p);
    if (!slot) return;
    slot->count += (int64_t)t->words[in].count;
    if (!slot->touched) {
        if (!room(t, &t->touches, t->n_touches, &t->cap_touches, sizeof *t->touches)) return;
        t->touches[t->n_touches++] = (touch){.pair = p, .last = UINT32_MAX};
        slot->touched = (uint32_t)t->n_touches;
    }
    touch *made = &t->touches[slot->touched - 1];
    if (made->last == in) return;
    if (!room(t, &t->notes, t->n_notes, &t->cap_notes, sizeof *t->notes)) return;
    made->last = in;
    made->n++;
    t->notes[t->n_notes++] = (note){slot->touched - 1, in};
}

/* ---- heap ---- */

static bool better(const candidate *a, const candidate *b) {
    return a->count != b->count ? a->count > b->count : a->pair < b->pair;
}

static void push(trainer *t, candidate c) {
    if (!room(t, &t->heap, t->n_heap, &t->cap_heap, sizeof *t->heap)) return;
    size_t i = t->n_heap++;
    for (; i && better(&c, &t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = c;
}

static candidate pop(trainer *t) {
    candidate top = t->heap[0], last = t->heap[--t->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= t->n_heap) break;
        if (child + 1 < t->n_heap && better(&t->heap[child + 1], &t->heap[child])) child++;
        if (!better(&t->heap[child], &last)) break;
        t->heap[i] = t->heap[child];
        i = child;
    }
    t->heap[i] = last;
    return top;
}

/* The pairs that a step has made become candidates. */
static void push_touched(trainer *t) {
    size_t at = t->n_places;
    for (size_t i = 0; i < t->n_touches; i++) {
        t->touches[i].at = at;
        at += t->touches[i].n;
    }
    while (t->cap_places < at)
        if (!room(t, &t->places, t->cap_places, &t->cap_places, sizeof *t->places)) return;
    t->n_places = at;
    for (size_t i = 0; i < t->n_notes; i++) {
        touch *made = &t->touches[t->notes[i].touch];
        t->places[made->at + made->filled++] = t->notes[i].word;
    }
    for (size_t i = 0; i < t->n_touches && !t->failed; i++) {
        const touch *made = &t->touches[i];
        pair_slot *slot = pair_of(t, made->pair);
        slot->touched = 0;
        if (slot->count > 0) push(t, (candidate){slot->count, made->pair, made->at, made->n});
    }
    t->n_touches = t->n_notes = 0;
}

/* ---- merging ---- */

static void merge_word(trainer *t, uint32_t in, lc_bpe_pair p, uint32_t result) {
    word *w = &t->words[in];
    uint32_t *s = t->symbols + w->at, len = w->len, out = 0;
    for (uint32_t i = 0; i < len; i++) {
        if (s[i] != p.left || i + 1 == len || s[i + 1] != p.right) {
            s[out++] = s[i];
            continue;
        }
        if (out) {
            lower(t, pair(s[out - 1], p.left), w->count);
            raise(t, pair(s[out - 1], result), in);
        }
        if (i + 2 < len) {
            lower(t, pair(p.right, s[i + 2]), w->count);
            raise(t, pair(result, s[i + 2]), in);
        }
        s[out++] = result;
        i++;
    }
    w->len = out;
}

/* The id of left and right joined. */
static uint32_t join_id(trainer *t, lc_bpe_pair p, lc_buf *scratch) {
    lc_buf_clear(scratch);
    lc_buf_puts(scratch, lc_bpe_model_content(t->model, p.left));
    lc_buf_puts(scratch, lc_bpe_model_content(t->model, p.right));
    if (scratch->failed) t->failed = true;
    return t->failed ? 0 : id_of(t, scratch->data, scratch->len);
}

static void merge(trainer *t, const candidate *c, lc_buf *scratch) {
    lc_bpe_pair p = {(uint32_t)(c->pair >> 32), (uint32_t)c->pair};
    pair_slot *slot = pair_of(t, c->pair);
    uint32_t result = join_id(t, p, scratch);
    if (!slot || t->failed) return;
    if (!slot->merged) t->model->merges[t->model->n_merges++] = p;
    slot->merged = true;
    for (uint32_t i = 0; i < c->n && !t->failed; i++)
        merge_word(t, t->places[c->at + i], p, result);
    push_touched(t);
}

static bool go_on(const trainer *t) {
    const lc_bpe_options *o = t->options;
    bool due = t->model->n_merges % PROGRESS_STEP == 0;
    return !due || !o->progress || o->progress(o->ctx, t->model->vocab);
}

static int merge_all(trainer *t, lc_err *err) {
    const size_t wanted = t->options->vocab;
    lc_buf scratch = {0};
    bool more = true;
    while (t->model->vocab < wanted && t->model->n_merges < wanted && t->n_heap && !t->failed &&
           (more = go_on(t))) {
        candidate top = pop(t);
        const pair_slot *slot = pair_of(t, top.pair);
        if (!slot) break;
        int64_t count = slot->count;
        if (top.count == count && count > 0)
            merge(t, &top, &scratch);
        else if (count > 0)
            push(t, (candidate){count, top.pair, top.at, top.n});
    }
    lc_buf_free(&scratch);
    if (t->failed) return lc_fail(err, LC_ENOMEM, "tokenizer: out of memory while merging");
    return more ? LC_OK : lc_fail(err, LC_ECANCELED, "tokenizer: stopped");
}

static void count_pairs(trainer *t) {
    for (size_t i = 0; i < t->n_words && !t->failed; i++) {
        const word *w = &t->words[i];
        for (uint32_t j = 1; j < w->len; j++)
            raise(t, pair(t->symbols[w->at + j - 1], t->symbols[w->at + j]), (uint32_t)i);
    }
    if (!t->failed) push_touched(t);
}

static size_t bytes_in_use(const trainer *t) {
    return t->n_words * sizeof *t->words + t->cap_heap * sizeof *t->heap +
           t->cap_places * sizeof *t->places + t->cap_notes * sizeof *t->notes +
           t->cap_touches * sizeof *t->touches + (t->pair_mask + 1) * sizeof *t->pairs;
}

int lc_bpe_train(lc_piece_counts *counts, const lc_bpe_options *options, lc_bpe_model *out,
                 lc_err *err) {
    trainer t = {.options = options, .model = out};
    uint32_t byte_id[CODES];
    *out = (lc_bpe_model){0};
    int status = start_model(&t, byte_id, err);
    if (!status) status = take_pieces(&t, counts, byte_id, err);
    if (!status) {
        count_pairs(&t);
        status = merge_all(&t, err);
    }
    out->peak = bytes_in_use(&t);
    lc_free(t.words);
    lc_free(t.symbols);
    lc_free(t.pairs);
    lc_free(t.heap);
    lc_free(t.places);
    lc_free(t.touches);
    lc_free(t.notes);
    lc_free(t.ids);
    if (status) lc_bpe_model_free(out);
    return status;
}

void lc_bpe_model_free(lc_bpe_model *model) {
    lc_buf_free(&model->text);
    lc_free(model->offset);
    lc_free(model->merges);
    *model = (lc_bpe_model){0};
}
