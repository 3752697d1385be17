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
    MOST_FRAMES = 1 << 18,
    MOST_SETS = 1 << 12,
    MOST_MASKS = 64,       /* kept at a time */
    MOST_IN_SET = 1 << 14, /* beyond it only the shortest ways stay */
    MOST_WORK = 1 << 18,   /* frames looked at in one call; beyond it sets stay small */
    FEW_IN_SET = 4,
    DEEP = 100,     /* frames: beyond it only the shortest ways are taken */
    LONGEST = 1024, /* bytes of a token that masks allow */
    NO_FRAME = 0,
    DEAD = 0, /* the empty set */
};

struct lc_grammar {
    const lc_grammar_vocab *vocab;
    lc_rules rules;
};

/* What is to be done behind the present rule: go on at element `at`, which is no END. Frame 0 is
 * the bottom: the end of everything. */
typedef struct frame {
    uint32_t parent, at, count;
    uint32_t rest; /* fewest bytes or tags from here to the end of everything */
    uint32_t depth;
    uint32_t round; /* of the last set in the making that met it */
} frame;

typedef struct set {
    uint32_t first, n; /* members[first .. first + n): frames that wait for a byte or tag */
    bool accepts;      /* the end is possible */
    uint32_t least;    /* fewest bytes or tags to the end */
    uint32_t *next;    /* [256] sets + 1, 0 = not known yet; NULL until asked */
    uint64_t *mask;    /* tokens that may follow, whatever is left; NULL until asked */
    uint32_t farthest; /* greatest `least` behind a token of mask */
} set;

/* A list that grows on demand. */
typedef struct list {
    uint32_t *items;
    size_t n, cap;
} list;

struct lc_grammar_state {
    const lc_grammar *g;
    frame *frames;
    size_t n_frames, cap_frames;
    list frame_table; /* hash table of frame numbers; n: its size, a power of two */
    set *sets;
    size_t n_sets, cap_sets, n_masks;
    list set_table;
    list members;
    uint32_t now; /* the present set */
    bool ended;   /* an EOS was accepted */
    bool crowded; /* sets didn't even fit into empty tables: only few ways and short tokens stay */
    /* a set in the making */
    list found, todo;
    uint32_t round;
    size_t work;
    bool accepts, failed;
};

/* ---- compiling ---- */

static uint32_t expr_json(lc_rules *r, const lc_grammar_spec *spec) {
    lc_schema *s = NULL;
    uint32_t e = 0;
    if (lc_schema_new(r, spec->schema, "schema", LC_FORM_JSON, &s) == LC_OK) {
        e = spec->kind == LC_GRAMMAR_OBJECT ? lc_expr_object(s)
                                            : lc_expr_schema(s, spec->schema, "schema");
        lc_schema_finish(s);
    }
    lc_schema_free(s);
    return e;
}

int lc_grammar_new(const lc_grammar_vocab *vocab, const lc_grammar_spec *spec, lc_grammar **out,
                   lc_err *err) {
    lc_grammar *g = lc_calloc(1, sizeof *g);
    *out = NULL;
    if (!g) return lc_fail(err, LC_ENOMEM, "grammar: out of memory");
    g->vocab = vocab;
    lc_rules *r = &g->rules;
    lc_rules_init(r, spec->bytes ? spec->bytes : (size_t)64 << 20,
                  spec->seconds > 0 ? spec->seconds : 0.2, err);
    uint32_t root = lc_rule_new(r), e = lc_expr_never(r);
    if (spec->kind != LC_GRAMMAR_TOOLS) e = expr_json(r, spec);
    if (spec->kind == LC_GRAMMAR_TOOLS || spec->tools)
        e = lc_expr_alt(r, e, lc_expr_calls(r, vocab, spec));
    lc_rule_set(r, root, e);
    int status = r->status == LC_OK ? lc_rules_flatten(r) : r->status;
    r->err = NULL; /* the caller's */
    lc_grammar_state *trial = NULL;
    if (status == LC_OK) status = lc_grammar_begin(g, &trial, err);
    lc_grammar_state_free(trial);
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

/* Room for one more of n items; the state has failed if not. */
static bool room(lc_grammar_state *s, void **items, size_t *cap, size_t n, size_t size) {
    if (n < *cap) return true;
    size_t more = *cap ? 2 * *cap : 64;
    void *grown = lc_realloc(*items, more, size);
    if (!grown) s->failed = true;
    if (!grown) return false;
    *items = grown;
    *cap = more;
    return true;
}

static void put(lc_grammar_state *s, list *l, uint32_t item) {
    if (room(s, (void **)&l->items, &l->cap, l->n, sizeof *l->items)) l->items[l->n++] = item;
}

static size_t frame_hash(uint32_t parent, uint32_t at, uint32_t count) {
    return hash_words((const uint32_t[]){parent, at, count}, 3);
}

static size_t set_hash(const uint32_t *members, size_t n, bool accepts) {
    return hash_words(members, n) + accepts;
}

/* Twice the size, empty; false: the old one stays. */
static bool widen(lc_grammar_state *s, list *table) {
    size_t n = table->n ? 2 * table->n : 256;
    uint32_t *items = lc_calloc(n, sizeof *items);
    if (!items) s->failed = true;
    if (!items) return false;
    lc_free(table->items);
    *table = (list){items, n, n};
    return true;
}

static void put_hashed(list *table, size_t hash, uint32_t item) {
    size_t i = hash & (table->n - 1);
    while (table->items[i]) i = (i + 1) & (table->n - 1);
    table->items[i] = item;
}

/* Fewest bytes or tags from element `at`, entered for the count-th time, to its alternative's end.
 */
static uint64_t rest_at(const lc_rules *r, uint32_t at, uint32_t count) {
    const lc_element *e = &r->elements[at];
    if (e->kind != LC_ELEMENT_REPEAT || !count) return e->rest;
    uint32_t done = count < e->min ? count : e->min;
    return e->rest - (uint64_t)done * r->rules[e->a].least;
}

/* The frame with these members, or its parent if nothing is left to do in this one; NO_FRAME after
 * a failure. */
static uint32_t frame_of(lc_grammar_state *s, uint32_t parent, uint32_t at, uint32_t count) {
    if (s->g->rules.elements[at].kind == LC_ELEMENT_END) return parent;
    size_t hash = frame_hash(parent, at, count);
    for (size_t i = hash & (s->frame_table.n - 1); s->frame_table.items[i];
         i = (i + 1) & (s->frame_table.n - 1)) {
        const frame *f = &s->frames[s->frame_table.items[i]];
        if (f->parent == parent && f->at == at && f->count == count) return s->frame_table.items[i];
    }
    if (s->n_frames == MOST_FRAMES) s->failed = true;
    if (s->failed || !room(s, (void **)&s->frames, &s->cap_frames, s->n_frames, sizeof *s->frames))
        return NO_FRAME;
    if (2 * s->n_frames >= s->frame_table.n) {
        if (!widen(s, &s->frame_table)) return NO_FRAME;
        for (uint32_t i = 1; i < s->n_frames; i++) {
            const frame *f = &s->frames[i];
            put_hashed(&s->frame_table, frame_hash(f->parent, f->at, f->count), i);
        }
    }
    const frame *p = &s->frames[parent];
    uint64_t rest = rest_at(&s->g->rules, at, count) + p->rest;
    s->frames[s->n_frames] = (frame){parent, at, count, clamp(rest), p->depth + 1, 0};
    put_hashed(&s->frame_table, hash, (uint32_t)s->n_frames);
    return (uint32_t)s->n_frames++;
}

/* ---- sets ---- */

/* The set in the making gets what can be done from a frame on. */
static void reach(lc_grammar_state *s, uint32_t number) {
    frame *f = &s->frames[number];
    if (s->failed || f->round == s->round) return;
    f->round = s->round;
    if (number == NO_FRAME) {
        s->accepts = true;
        return;
    }
    lc_element_kind kind = s->g->rules.elements[f->at].kind;
    bool waits = kind == LC_ELEMENT_BYTES || kind == LC_ELEMENT_TOKEN;
    put(s, waits ? &s->found : &s->todo, number);
}

/* The alternatives of a rule, with `parent` behind them; in the deep the shortest only. */
static void enter(lc_grammar_state *s, uint32_t rule, uint32_t parent) {
    const lc_rules *r = &s->g->rules;
    bool deep = s->frames[parent].depth > DEEP;
    for (uint32_t k = 0; k < r->rules[rule].n && !s->failed; k++) {
        uint32_t start = r->starts[r->rules[rule].first + k];
        if (r->elements[start].rest == UINT32_MAX) continue; /* never ends */
        if (deep && r->elements[start].rest > r->rules[rule].least) continue;
        reach(s, frame_of(s, parent, start, 0));
    }
}

/* Follows what needs no byte. */
static void follow(lc_grammar_state *s) {
    const lc_rules *r = &s->g->rules;
    while (s->todo.n && !s->failed) {
        frame f = s->frames[s->todo.items[--s->todo.n]];
        const lc_element *e = &r->elements[f.at];
        s->work++;
        if (e->kind == LC_ELEMENT_RULE) {
            enter(s, e->a, frame_of(s, f.parent, f.at + 1, 0));
            continue;
        }
        bool enough = f.count >= e->min, deep = s->frames[f.parent].depth > DEEP;
        if (enough) reach(s, frame_of(s, f.parent, f.at + 1, 0));
        if (f.count >= e->max || (deep && enough)) continue;
        uint32_t next = f.count + 1;
        if (e->max == LC_RULE_UNBOUNDED && next > e->min) next = e->min;
        enter(s, e->a, frame_of(s, f.parent, f.at, next));
    }
}

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int by_rest(const void *a, const void *b, void *frames) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    uint32_t p = ((const frame *)frames)[x].rest, q = ((const frame *)frames)[y].rest;
    return p != q ? (p < q ? -1 : 1) : by_number(a, b);
}

/* Keeps a set small: fewer texts are allowed then, but never none, and the shortest stay. */
static void prune(lc_grammar_state *s) {
    size_t most = s->work > MOST_WORK ? FEW_IN_SET : MOST_IN_SET;
    if (s->found.n > most) {
        qsort_r(s->found.items, s->found.n, sizeof *s->found.items, by_rest, s->frames);
        s->found.n = most;
    }
    qsort(s->found.items, s->found.n, sizeof *s->found.items, by_number);
}

static bool same_set(const lc_grammar_state *s, const set *x) {
    return x->n == s->found.n && x->accepts == s->accepts &&
           (!x->n ||
            !memcmp(s->members.items + x->first, s->found.items, x->n * sizeof *s->found.items));
}

static void begin_set(lc_grammar_state *s) {
    s->found.n = s->todo.n = 0;
    s->accepts = false;
    s->round++;
}

/* The set that was reached since begin_set. */
static uint32_t end_set(lc_grammar_state *s) {
    follow(s);
    if (s->failed || (!s->found.n && !s->accepts)) return DEAD;
    prune(s);
    size_t hash = set_hash(s->found.items, s->found.n, s->accepts);
    for (size_t i = hash & (s->set_table.n - 1); s->set_table.items[i];
         i = (i + 1) & (s->set_table.n - 1))
        if (same_set(s, &s->sets[s->set_table.items[i]])) return s->set_table.items[i];
    if (s->n_sets == MOST_SETS || s->members.n > 4 * (size_t)MOST_FRAMES) s->failed = true;
    if (s->failed || !room(s, (void **)&s->sets, &s->cap_sets, s->n_sets, sizeof *s->sets))
        return DEAD;
    if (2 * s->n_sets >= s->set_table.n) {
        if (!widen(s, &s->set_table)) return DEAD;
        for (uint32_t i = 1; i < s->n_sets; i++) {
            const set *x = &s->sets[i];
            put_hashed(&s->set_table, set_hash(s->members.items + x->first, x->n, x->accepts), i);
        }
    }
    set x = {.first = (uint32_t)s->members.n,
             .n = (uint32_t)s->found.n,
             .accepts = s->accepts,
             .least = s->accepts ? 0 : UINT32_MAX};
    for (size_t k = 0; k < x.n; k++) {
        uint32_t f = s->found.items[k];
        put(s, &s->members, f);
        if (s->frames[f].rest < x.least) x.least = s->frames[f].rest;
    }
    if (s->failed) return DEAD;
    s->sets[s->n_sets] = x;
    put_hashed(&s->set_table, hash, (uint32_t)s->n_sets);
    return (uint32_t)s->n_sets++;
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
    s->work += s->sets[from].n;
    for (uint32_t i = 0; i < s->sets[from].n; i++) {
        frame f = s->frames[s->members.items[s->sets[from].first + i]];
        if (takes(r, &r->elements[f.at], byte)) reach(s, frame_of(s, f.parent, f.at + 1, 0));
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
        frame f = s->frames[s->members.items[s->sets[from].first + i]];
        const lc_element *e = &r->elements[f.at];
        if (e->kind == LC_ELEMENT_TOKEN && e->a == (uint32_t)id)
            reach(s, frame_of(s, f.parent, f.at + 1, 0));
    }
    return end_set(s);
}

/* ---- the life of a state ---- */

static void drop_masks(lc_grammar_state *s) {
    for (size_t i = 0; i < s->n_sets; i++) {
        lc_free(s->sets[i].mask);
        s->sets[i].mask = NULL;
    }
    s->n_masks = 0;
}

static void drop_sets(lc_grammar_state *s) {
    drop_masks(s);
    for (size_t i = 0; i < s->n_sets; i++) lc_free(s->sets[i].next);
    s->n_sets = 0;
}

/* No frames but the bottom, no sets but the empty one. */
static void reset(lc_grammar_state *s) {
    drop_sets(s);
    s->failed = false;
    s->n_frames = s->members.n = 0;
    s->round = 0;
    if (!s->frame_table.n) widen(s, &s->frame_table);
    if (!s->set_table.n) widen(s, &s->set_table);
    room(s, (void **)&s->frames, &s->cap_frames, 0, sizeof *s->frames);
    room(s, (void **)&s->sets, &s->cap_sets, 0, sizeof *s->sets);
    if (s->failed) return;
    memset(s->frame_table.items, 0, s->frame_table.n * sizeof *s->frame_table.items);
    memset(s->set_table.items, 0, s->set_table.n * sizeof *s->set_table.items);
    s->frames[s->n_frames++] = (frame){0};
    s->sets[s->n_sets++] = (set){.least = UINT32_MAX};
}

int lc_grammar_begin(const lc_grammar *g, lc_grammar_state **out, lc_err *err) {
    lc_grammar_state *s = lc_calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return lc_fail(err, LC_ENOMEM, "grammar: out of memory");
    s->g = g;
    reset(s);
    if (!s->failed) {
        begin_set(s);
        enter(s, 0, NO_FRAME);
        s->now = end_set(s);
    }
    if (s->failed) {
        bool full = s->n_frames == MOST_FRAMES;
        lc_grammar_state_free(s);
        return full ? lc_fail(err, LC_ELIMIT, "grammar: too many ways to begin")
                    : lc_fail(err, LC_ENOMEM, "grammar: out of memory");
    }
    *out = s;
    return LC_OK;
}

void lc_grammar_state_free(lc_grammar_state *s) {
    if (!s) return;
    drop_sets(s);
    lc_free(s->frames);
    lc_free(s->frame_table.items);
    lc_free(s->sets);
    lc_free(s->set_table.items);
    lc_free(s->members.items);
    lc_free(s->found.items);
    lc_free(s->todo.items);
    lc_free(s);
}

/* Makes the members of a set of `old` frames anew; numbers[f]: of frame f, 1 = wanted. A frame's
 * parent has a lower number than it. */
static void copy_set(lc_grammar_state *s, const frame *old, size_t n, uint32_t *numbers) {
    begin_set(s);
    for (size_t i = n; i-- > 1;)
        if (numbers[i] && !numbers[old[i].parent]) numbers[old[i].parent] = 2;
    for (size_t i = 1; i < n && !s->failed; i++) {
        bool member = numbers[i] == 1;
        if (!numbers[i]) continue;
        uint32_t parent = old[i].parent ? numbers[old[i].parent] : NO_FRAME;
        numbers[i] = frame_of(s, parent, old[i].at, old[i].count);
        if (member) reach(s, numbers[i]);
    }
}

/* The tables are full: begins them anew with the present set alone. */
static int collect(lc_grammar_state *s, lc_err *err) {
    const set now = s->sets[s->now];
    size_t n = s->n_frames;
    frame *old = lc_calloc(n, sizeof *old);
    uint32_t *numbers = lc_calloc(n, sizeof *numbers);
    bool ok = old && numbers;
    if (ok) {
        memcpy(old, s->frames, n * sizeof *old);
        for (uint32_t i = 0; i < now.n; i++) numbers[s->members.items[now.first + i]] = 1;
        reset(s);
        s->work = s->crowded ? MOST_WORK + 1 : 0;
        copy_set(s, old, n, numbers);
        s->accepts = now.accepts;
        s->now = end_set(s);
        ok = !s->failed;
    }
    lc_free(old);
    lc_free(numbers);
    return ok ? LC_OK : lc_fail(err, LC_ENOMEM, "grammar: out of memory");
}

/* ---- masks ---- */

static void allow(uint64_t *mask, int32_t token) { mask[token / 64] |= (uint64_t)1 << token % 64; }

/* All tokens of at most `longest` bytes that keep the answer alive and can end with `left - 1`
 * more; *farthest: the longest of the shortest ways behind them. */
static void walk(lc_grammar_state *s, size_t longest, size_t left, uint64_t *mask,
                 uint32_t *farthest) {
    const lc_grammar_vocab *v = s->g->vocab;
    uint32_t sets[LONGEST]; /* behind the bytes of the present path */
    uint32_t ends[LONGEST];
    size_t depth = 0;
    for (uint32_t i = 0; i < v->n_nodes && !s->failed;) {
        const lc_vocab_node *node = &v->nodes[i];
        while (depth && i >= ends[depth - 1]) depth--;
        uint32_t to =
            depth < longest ? step(s, depth ? sets[depth - 1] : s->now, node->byte) : DEAD;
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

static void walk_tags(lc_grammar_state *s, size_t left, uint64_t *mask, uint32_t *farthest) {
    const lc_rules *r = &s->g->rules;
    uint32_t from = s->now;
    for (uint32_t i = 0; i < s->sets[from].n && !s->failed; i++) {
        const lc_element *e = &r->elements[s->frames[s->members.items[s->sets[from].first + i]].at];
        if (e->kind != LC_ELEMENT_TOKEN) continue;
        uint32_t to = step_tag(s, from, (int32_t)e->a);
        if (to == DEAD || s->sets[to].least > left - 1) continue;
        allow(mask, (int32_t)e->a);
        if (s->sets[to].least > *farthest) *farthest = s->sets[to].least;
    }
}

static size_t words_of(const lc_grammar_state *s) { return (s->g->vocab->vocab + 63) / 64; }

static void fill(lc_grammar_state *s, size_t longest, size_t left, uint64_t *mask,
                 uint32_t *farthest) {
    const lc_grammar_vocab *v = s->g->vocab;
    memset(mask, 0, words_of(s) * sizeof *mask);
    *farthest = 0;
    s->work = 0;
    if (left > 0 && !s->ended) walk(s, longest, left, mask, farthest);
    if (left > 0 && !s->ended) walk_tags(s, left, mask, farthest);
    for (size_t i = 0; i < v->n_eos && (s->sets[s->now].accepts || s->ended); i++)
        allow(mask, v->eos[i]);
}

/* Keeps the mask without a limit; without memory for it, it is made again next time. */
static void keep(lc_grammar_state *s, const uint64_t *mask, uint32_t farthest) {
    size_t size = words_of(s) * sizeof *mask;
    if (s->n_masks == MOST_MASKS) drop_masks(s);
    set *now = &s->sets[s->now];
    now->mask = lc_alloc(size);
    if (!now->mask) return;
    s->n_masks++;
    memcpy(now->mask, mask, size);
    now->farthest = farthest;
}

int lc_grammar_mask(lc_grammar_state *s, size_t left, uint64_t *mask, lc_err *err) {
    for (int tries = 0; tries < 3; tries++) {
        size_t longest = s->crowded ? 1 : LONGEST;
        const set *now = &s->sets[s->now];
        if (!s->ended && now->mask && now->farthest < left) {
            memcpy(mask, now->mask, words_of(s) * sizeof *mask);
            return LC_OK;
        }
        uint32_t farthest;
        if (!s->ended && !now->mask && longest > 1) {
            fill(s, longest, SIZE_MAX, mask, &farthest);
            if (!s->failed) keep(s, mask, farthest);
            if (!s->failed && farthest < left) return LC_OK;
        }
        if (!s->failed) fill(s, longest, left, mask, &farthest);
        if (!s->failed) return LC_OK;
        if (tries > 0) s->crowded = true;
        int status = collect(s, err);
        if (status != LC_OK) return status;
    }
    return lc_fail(err, LC_ELIMIT, "grammar: too many ways to go on");
}

static uint32_t step_token(lc_grammar_state *s, int32_t token) {
    const lc_grammar_vocab *v = s->g->vocab;
    size_t len;
    s->work = 0;
    if (token < 0 || (size_t)token >= v->vocab) return DEAD;
    if (v->apart[token]) return step_tag(s, s->now, token);
    const char *bytes = lc_tokenizer_bytes(v->tokenizer, token, &len);
    uint32_t at = len ? s->now : DEAD;
    for (size_t i = 0; i < len && !s->failed; i++) at = step(s, at, (unsigned char)bytes[i]);
    return at;
}

static bool is_eos(const lc_grammar_vocab *v, int32_t token) {
    size_t i = 0;
    while (i < v->n_eos && v->eos[i] != token) i++;
    return i < v->n_eos;
}

int lc_grammar_accept(lc_grammar_state *s, int32_t token, lc_err *err) {
    if (is_eos(s->g->vocab, token) && (s->ended || s->sets[s->now].accepts)) {
        s->ended = true;
        return LC_OK;
    }
    uint32_t to = s->ended ? DEAD : step_token(s, token);
    for (int tries = 0; s->failed && tries < 2; tries++) {
        if (tries > 0) s->crowded = true;
        int status = collect(s, err);
        if (status != LC_OK) return status;
        to = step_token(s, token);
    }
    if (s->failed) return lc_fail(err, LC_ELIMIT, "grammar: too many ways to go on");
    if (to == DEAD) return lc_fail(err, LC_EINVAL, "grammar: token %d isn't allowed here", token);
    s->now = to;
    return LC_OK;
}

bool lc_grammar_complete(const lc_grammar_state *s) {
    return s->ended || (s->sets[s->now].accepts && !s->sets[s->now].n);
}
