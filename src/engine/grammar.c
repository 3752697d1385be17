/*
 * grammar.c: the machine. A state is a set of stacks, kept as a lazily built automaton: stacks are
 * shared frames, equal sets have one number, and where a byte leads is looked up after the first
 * time. So a mask over a whole vocabulary costs a walk through its tree once for each set.
 */
#include "engine/grammar.h"

#include "base/err.h"
#include "base/mem.h"
#include "engine/grammar_vocab.h"

#include <math.h>
#include <string.h>

enum {
    MOST_FRAMES = 1 << 19,
    MOST_SETS = 1 << 13,
    MOST_IN_SET = 1 << 12,
    DEEP = 256, /* frames: beyond it only the shortest ways are taken */
    NO_FRAME = 0,
    DEAD = 0, /* the empty set */
};

struct lc_grammar {
    const lc_grammar_vocab *vocab;
    lc_rules rules;
};

/* What is to be done behind the present rule: go on at element `at`. Frame 0 is the bottom. */
typedef struct frame {
    uint32_t parent, at, count;
    uint32_t rest; /* fewest bytes or tags from here to the end of everything */
    uint32_t depth;
} frame;

typedef struct set {
    uint32_t first, n; /* members[first .. first + n): frames that wait for a byte or tag */
    bool accepts;      /* the end is possible */
    uint32_t least;    /* fewest bytes or tags to the end */
    uint32_t *next;    /* [256] sets + 1, 0 = not known yet; NULL until asked */
    uint64_t *mask;    /* tokens that may follow, whatever is left; NULL until asked */
    uint32_t farthest; /* greatest `least` behind a token of mask */
} set;

struct lc_grammar_state {
    const lc_grammar *g;
    frame *frames;
    size_t n_frames;
    uint32_t *frame_table; /* hash table of frame numbers */
    set *sets;
    size_t n_sets;
    uint32_t *set_table;
    uint32_t *members;
    size_t n_members, cap_members;
    uint32_t now; /* the present set */
    /* a set in the making */
    uint32_t *found;
    size_t n_found;
    bool accepts, failed;
};

/* ---- compiling ---- */

int lc_grammar_new(const lc_grammar_vocab *vocab, const lc_grammar_spec *spec, lc_grammar **out,
                   lc_err *err) {
    lc_grammar *g = lc_calloc(1, sizeof *g);
    lc_schema *s = NULL;
    *out = NULL;
    if (!g) return lc_fail(err, LC_ENOMEM, "grammar: out of memory");
    g->vocab = vocab;
    lc_rules *r = &g->rules;
    lc_rules_init(r, spec->bytes ? spec->bytes : (size_t)64 << 20,
                  spec->seconds > 0 ? spec->seconds : 0.2, err);
    if (spec->kind == LC_GRAMMAR_TOOLS) {
        lc_grammar_build_tools(r, vocab, spec);
    } else if (lc_schema_new(r, spec->schema, "schema", &s) == LC_OK) {
        uint32_t root = lc_rule_new(r);
        lc_rule_set(r, root,
                    spec->kind == LC_GRAMMAR_OBJECT ? lc_expr_object(s)
                                                    : lc_expr_schema(s, spec->schema, "schema"));
    }
    lc_schema_free(s);
    int status = r->status == LC_OK ? lc_rules_flatten(r) : r->status;
    r->err = NULL; /* the caller's */
    if (status == LC_OK)
        *out = g;
    else
        lc_grammar_free(g);
    return status;
}

void lc_grammar_free(lc_grammar *g) {
    if (!g) return;
    lc_rules_free(&g->rules);
    lc_free(g);
}

size_t lc_grammar_shortest(const lc_grammar *g) { return g->rules.rules[0].least; }

/* ---- frames ---- */

static size_t hash_words(const uint32_t *words, size_t n) {
    uint64_t h = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < n; i++) h = (h ^ words[i]) * 0xD6E8FEB86659FD93u, h ^= h >> 32;
    return (size_t)h;
}

static uint32_t clamp(uint64_t n) { return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX; }

/* Fewest bytes or tags from element `at`, entered for the count-th time, to its alternative's end.
 */
static uint64_t rest_at(const lc_rules *r, uint32_t at, uint32_t count) {
    const lc_element *e = &r->elements[at];
    if (e->kind != LC_ELEMENT_REPEAT || !count) return e->rest;
    uint32_t done = count < e->min ? count : e->min;
    return e->rest - (uint64_t)done * r->rules[e->a].least;
}

/* The frame with these members; NO_FRAME after a failure. */
static uint32_t frame_of(lc_grammar_state *s, uint32_t parent, uint32_t at, uint32_t count) {
    const uint32_t words[] = {parent, at, count};
    size_t i = hash_words(words, 3) % (2 * MOST_FRAMES);
    for (; s->frame_table[i]; i = (i + 1) % (2 * MOST_FRAMES)) {
        const frame *f = &s->frames[s->frame_table[i]];
        if (f->parent == parent && f->at == at && f->count == count) return s->frame_table[i];
    }
    if (s->n_frames == MOST_FRAMES) {
        s->failed = true;
        return NO_FRAME;
    }
    const frame *p = &s->frames[parent];
    uint64_t rest = rest_at(&s->g->rules, at, count) + p->rest;
    s->frames[s->n_frames] = (frame){parent, at, count, clamp(rest), p->depth + 1};
    return s->frame_table[i] = (uint32_t)s->n_frames++;
}

/* ---- sets ---- */

static void found(lc_grammar_state *s, uint32_t f) {
    for (size_t i = 0; i < s->n_found; i++)
        if (s->found[i] == f) return;
    if (s->n_found == MOST_IN_SET)
        s->failed = true;
    else
        s->found[s->n_found++] = f;
}

static void go_on(lc_grammar_state *s, uint32_t parent, uint32_t at, uint32_t count);

/* The alternatives of a rule, with `parent` behind them; in the deep the shortest only. */
static void enter(lc_grammar_state *s, uint32_t rule, uint32_t parent) {
    const lc_rules *r = &s->g->rules;
    bool deep = s->frames[parent].depth > DEEP;
    for (uint32_t k = 0; k < r->rules[rule].n && !s->failed; k++) {
        uint32_t start = r->starts[r->rules[rule].first + k];
        if (r->elements[start].rest == UINT32_MAX) continue; /* never ends */
        if (deep && r->elements[start].rest > r->rules[rule].least) continue;
        go_on(s, parent, start, 0);
    }
}

/* Follows everything that needs no byte from element `at` on. */
static void go_on(lc_grammar_state *s, uint32_t parent, uint32_t at, uint32_t count) {
    const lc_rules *r = &s->g->rules;
    const lc_element *e = &r->elements[at];
    if (s->failed) return;
    switch (e->kind) {
    case LC_ELEMENT_BYTES:
    case LC_ELEMENT_TOKEN: found(s, frame_of(s, parent, at, 0)); break;
    case LC_ELEMENT_END:
        if (parent == NO_FRAME)
            s->accepts = true;
        else
            go_on(s, s->frames[parent].parent, s->frames[parent].at, s->frames[parent].count);
        break;
    case LC_ELEMENT_RULE: {
        bool last = r->elements[at + 1].kind == LC_ELEMENT_END;
        enter(s, e->a, last ? parent : frame_of(s, parent, at + 1, 0));
        break;
    }
    case LC_ELEMENT_REPEAT: {
        bool deep = s->frames[parent].depth > DEEP;
        if (count >= e->min) go_on(s, parent, at + 1, 0);
        if (count >= e->max || (deep && count >= e->min)) break;
        uint32_t next = count + 1;
        if (e->max == LC_RULE_UNBOUNDED && next > e->min) next = e->min;
        enter(s, e->a, frame_of(s, parent, at, next));
        break;
    }
    }
}

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static bool same_set(const lc_grammar_state *s, const set *x) {
    return x->n == s->n_found && x->accepts == s->accepts &&
           !memcmp(s->members + x->first, s->found, x->n * sizeof *s->found);
}

/* The set that was found since begin_set. */
static uint32_t end_set(lc_grammar_state *s) {
    if (s->failed || (!s->n_found && !s->accepts)) return DEAD;
    qsort(s->found, s->n_found, sizeof *s->found, by_number);
    size_t i = (hash_words(s->found, s->n_found) + s->accepts) % (2 * MOST_SETS);
    for (; s->set_table[i]; i = (i + 1) % (2 * MOST_SETS))
        if (same_set(s, &s->sets[s->set_table[i]])) return s->set_table[i];
    if (s->n_members + s->n_found > s->cap_members) {
        size_t cap = 2 * (s->n_members + s->n_found) + 1024;
        void *grown = lc_realloc(s->members, cap, sizeof *s->members);
        if (!grown) s->failed = true;
        if (!grown) return DEAD;
        s->members = grown;
        s->cap_members = cap;
    }
    if (s->n_sets == MOST_SETS) {
        s->failed = true;
        return DEAD;
    }
    set x = {.first = (uint32_t)s->n_members,
             .n = (uint32_t)s->n_found,
             .accepts = s->accepts,
             .least = s->accepts ? 0 : UINT32_MAX};
    for (size_t k = 0; k < s->n_found; k++) {
        s->members[s->n_members++] = s->found[k];
        if (s->frames[s->found[k]].rest < x.least) x.least = s->frames[s->found[k]].rest;
    }
    s->sets[s->n_sets] = x;
    return s->set_table[i] = (uint32_t)s->n_sets++;
}

static void begin_set(lc_grammar_state *s) {
    s->n_found = 0;
    s->accepts = false;
}

static bool takes(const lc_rules *r, const lc_element *e, unsigned byte) {
    return e->kind == LC_ELEMENT_BYTES && r->sets[e->a].bits[byte / 64] >> byte % 64 & 1;
}

/* Where a byte leads. */
static uint32_t step(lc_grammar_state *s, uint32_t from, unsigned byte) {
    const lc_rules *r = &s->g->rules;
    if (from == DEAD) return DEAD;
    if (!s->sets[from].next) s->sets[from].next = lc_calloc(256, sizeof(uint32_t));
    if (!s->sets[from].next) {
        s->failed = true;
        return DEAD;
    }
    if (s->sets[from].next[byte]) return s->sets[from].next[byte] - 1;
    begin_set(s);
    for (uint32_t i = 0; i < s->sets[from].n; i++) {
        frame f = s->frames[s->members[s->sets[from].first + i]];
        if (takes(r, &r->elements[f.at], byte)) go_on(s, f.parent, f.at + 1, 0);
    }
    uint32_t to = end_set(s);
    if (!s->failed) s->sets[from].next[byte] = to + 1;
    return to;
}

/* Where a tag leads. */
static uint32_t step_tag(lc_grammar_state *s, uint32_t from, int32_t id) {
    const lc_rules *r = &s->g->rules;
    begin_set(s);
    for (uint32_t i = 0; i < s->sets[from].n; i++) {
        frame f = s->frames[s->members[s->sets[from].first + i]];
        const lc_element *e = &r->elements[f.at];
        if (e->kind == LC_ELEMENT_TOKEN && e->a == (uint32_t)id) go_on(s, f.parent, f.at + 1, 0);
    }
    return end_set(s);
}

/* ---- the life of a state ---- */

static void free_sets(lc_grammar_state *s) {
    for (size_t i = 0; i < s->n_sets; i++) {
        lc_free(s->sets[i].next);
        lc_free(s->sets[i].mask);
    }
    s->n_sets = 0;
}

static void reset(lc_grammar_state *s) {
    free_sets(s);
    memset(s->frame_table, 0, 2 * MOST_FRAMES * sizeof *s->frame_table);
    memset(s->set_table, 0, 2 * MOST_SETS * sizeof *s->set_table);
    s->n_members = 0;
    s->frames[NO_FRAME] = (frame){0};
    s->n_frames = 1;
    s->sets[DEAD] = (set){.least = UINT32_MAX};
    s->n_sets = 1;
    s->failed = false;
}

int lc_grammar_begin(const lc_grammar *g, lc_grammar_state **out, lc_err *err) {
    lc_grammar_state *s = lc_calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return lc_fail(err, LC_ENOMEM, "grammar: out of memory");
    s->g = g;
    s->frames = lc_calloc(MOST_FRAMES, sizeof *s->frames);
    s->frame_table = lc_calloc(2 * MOST_FRAMES, sizeof *s->frame_table);
    s->sets = lc_calloc(MOST_SETS, sizeof *s->sets);
    s->set_table = lc_calloc(2 * MOST_SETS, sizeof *s->set_table);
    s->found = lc_calloc(MOST_IN_SET, sizeof *s->found);
    if (!s->frames || !s->frame_table || !s->sets || !s->set_table || !s->found) {
        lc_grammar_state_free(s);
        return lc_fail(err, LC_ENOMEM, "grammar: out of memory");
    }
    reset(s);
    begin_set(s);
    enter(s, 0, NO_FRAME);
    s->now = end_set(s);
    *out = s;
    return LC_OK;
}

void lc_grammar_state_free(lc_grammar_state *s) {
    if (!s) return;
    if (s->sets) free_sets(s);
    lc_free(s->frames);
    lc_free(s->frame_table);
    lc_free(s->sets);
    lc_free(s->set_table);
    lc_free(s->members);
    lc_free(s->found);
    lc_free(s);
}

/* Copies a frame and what is below it into the tables after a reset. */
static uint32_t copy_frame(lc_grammar_state *s, const frame *old, uint32_t f) {
    if (f == NO_FRAME) return NO_FRAME;
    return frame_of(s, copy_frame(s, old, old[f].parent), old[f].at, old[f].count);
}

/* The tables are full: begins them anew with the present set alone. */
static int collect(lc_grammar_state *s, lc_err *err) {
    const set *now = &s->sets[s->now];
    size_t n = now->n;
    bool accepts = now->accepts;
    frame *old = lc_calloc(s->n_frames, sizeof *old);
    uint32_t *members = lc_calloc(n + 1, sizeof *members);
    if (!old || !members) {
        lc_free(old);
        lc_free(members);
        return lc_fail(err, LC_ENOMEM, "grammar: out of memory");
    }
    memcpy(old, s->frames, s->n_frames * sizeof *old);
    memcpy(members, s->members + now->first, n * sizeof *members);
    reset(s);
    begin_set(s);
    for (size_t i = 0; i < n; i++) found(s, copy_frame(s, old, members[i]));
    s->accepts = accepts;
    s->now = end_set(s);
    lc_free(old);
    lc_free(members);
    return s->failed ? lc_fail(err, LC_ELIMIT, "grammar: too many ways to go on") : LC_OK;
}

/* ---- masks ---- */

static void allow(uint64_t *mask, int32_t token) { mask[token / 64] |= (uint64_t)1 << token % 64; }

/* All tokens that keep the answer alive and can end with `left - 1` more; *farthest: the longest of
 * the shortest ways behind them. */
static void walk(lc_grammar_state *s, uint32_t from, size_t left, uint64_t *mask,
                 uint32_t *farthest) {
    const lc_grammar_vocab *v = s->g->vocab;
    uint32_t sets[1024]; /* behind the bytes of the present path */
    uint32_t ends[1024];
    size_t depth = 0;
    for (uint32_t i = 0; i < v->n_nodes && !s->failed;) {
        const lc_vocab_node *node = &v->nodes[i];
        while (depth && i >= ends[depth - 1]) depth--;
        uint32_t to = depth < 1024 ? step(s, depth ? sets[depth - 1] : from, node->byte) : DEAD;
        if (to == DEAD) {
            i = node->end;
            continue;
        }
        uint32_t least = s->sets[to].least;
        for (int32_t t = node->token; t >= 0; t = v->same[t]) {
            if (least > left - 1) break;
            allow(mask, t);
            if (least > *farthest) *farthest = least;
        }
        sets[depth] = to;
        ends[depth++] = node->end;
        i++;
    }
}

static void walk_tags(lc_grammar_state *s, uint32_t from, size_t left, uint64_t *mask,
                      uint32_t *farthest) {
    const lc_rules *r = &s->g->rules;
    for (uint32_t i = 0; i < s->sets[from].n && !s->failed; i++) {
        const lc_element *e = &r->elements[s->frames[s->members[s->sets[from].first + i]].at];
        if (e->kind != LC_ELEMENT_TOKEN) continue;
        uint32_t to = step_tag(s, from, (int32_t)e->a);
        if (to == DEAD || s->sets[to].least > left - 1) continue;
        allow(mask, (int32_t)e->a);
        if (s->sets[to].least > *farthest) *farthest = s->sets[to].least;
    }
}

static size_t words_of(const lc_grammar_state *s) { return (s->g->vocab->vocab + 63) / 64; }

static void fill(lc_grammar_state *s, size_t left, uint64_t *mask, uint32_t *farthest) {
    const lc_grammar_vocab *v = s->g->vocab;
    memset(mask, 0, words_of(s) * sizeof *mask);
    *farthest = 0;
    if (left > 0) walk(s, s->now, left, mask, farthest);
    if (left > 0) walk_tags(s, s->now, left, mask, farthest);
    for (size_t i = 0; i < v->n_eos && s->sets[s->now].accepts; i++) allow(mask, v->eos[i]);
}

int lc_grammar_mask(lc_grammar_state *s, size_t left, uint64_t *mask, lc_err *err) {
    size_t words = words_of(s);
    for (int tries = 0; tries < 2; tries++) {
        set *now = &s->sets[s->now];
        if (now->mask && now->farthest < left) {
            memcpy(mask, now->mask, words * sizeof *mask);
            return LC_OK;
        }
        uint32_t farthest = 0;
        bool whole = !now->mask; /* first the mask without a limit, to be kept */
        fill(s, whole ? SIZE_MAX : left, mask, &farthest);
        if (!s->failed) {
            if (!whole) return LC_OK;
            now = &s->sets[s->now];
            now->mask = lc_calloc(words, sizeof *mask);
            if (!now->mask) return lc_fail(err, LC_ENOMEM, "grammar: out of memory");
            memcpy(now->mask, mask, words * sizeof *mask);
            now->farthest = farthest;
            if (farthest < left) return LC_OK;
            fill(s, left, mask, &farthest);
            if (!s->failed) return LC_OK;
        }
        int status = collect(s, err);
        if (status != LC_OK) return status;
    }
    return lc_fail(err, LC_ELIMIT, "grammar: too many ways to go on");
}

static uint32_t step_token(lc_grammar_state *s, int32_t token) {
    const lc_grammar_vocab *v = s->g->vocab;
    size_t len;
    if (token < 0 || (size_t)token >= v->vocab) return DEAD;
    if (v->apart[token]) return step_tag(s, s->now, token);
    const char *bytes = lc_tokenizer_bytes(v->tokenizer, token, &len);
    uint32_t at = len ? s->now : DEAD;
    for (size_t i = 0; i < len && !s->failed; i++) at = step(s, at, (unsigned char)bytes[i]);
    return at;
}

int lc_grammar_accept(lc_grammar_state *s, int32_t token, lc_err *err) {
    uint32_t to = step_token(s, token);
    if (s->failed) {
        int status = collect(s, err);
        if (status != LC_OK) return status;
        to = step_token(s, token);
        if (s->failed) return lc_fail(err, LC_ELIMIT, "grammar: too many ways to go on");
    }
    if (to == DEAD) return lc_fail(err, LC_EINVAL, "grammar: token %d isn't allowed here", token);
    s->now = to;
    return LC_OK;
}

bool lc_grammar_complete(const lc_grammar_state *s) {
    return s->sets[s->now].accepts && !s->sets[s->now].n;
}
