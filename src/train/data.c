/*
 * data.c: from the number of a sequence to its tokens; see data.h for the rules.
 *
 * number -> (source, k): the mix. (source, k) -> place: for a cut source the place is token
 * start + k*T of the endless stream of its epochs; a table with every 64th document's place in the
 * stream finds the document, and a walk over at most 64 lengths the token. For a whole source the
 * places of sequences depend on all documents before, so they are walked once, and every 64th is
 * kept. Both tables are built when first needed, by lengths alone, and are pure functions of the
 * spec: they are caches, not state.
 */
#include "train/data.h"

#include "base/mem.h"
#include "train/shuffle.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <xxhash.h>

enum { STEP = 64, EPOCHS_KEPT = 2 };

/* The streams of random numbers: purpose in the high bits. */
enum { STREAM_MIX = 1, STREAM_EPOCH = 2, STREAM_ORDER = 3 };
static uint64_t stream(uint64_t purpose, uint64_t source, uint64_t n) {
    return purpose << 56 | source << 40 | (n & 0xFFFFFFFFFFu);
}

/* An epoch of a cut source: at[j] = tokens before the document in place 64*j of its permutation. */
typedef struct epoch_table {
    uint64_t epoch, used; /* used: when, for replacing the oldest; 0 = empty */
    uint64_t *at;
} epoch_table;

typedef struct source {
    lc_shardset *set;
    uint64_t documents, tokens, start;
    uint32_t key; /* of its permutations, from 0 */
    bool whole;
    uint32_t quota, quota_from; /* its part of a block of the mix */
    epoch_table epochs[EPOCHS_KEPT];
    uint64_t *opens; /* whole: document number (through all epochs) that opens sequence 64*j */
    size_t n_opens, cap_opens;
} source;

/* A block of the mix, worked out: the source of each number and how many of it come before. */
typedef struct mix_block {
    uint64_t block;
    bool ready;
    uint16_t source[LC_TRAIN_MIX_BLOCK], rank[LC_TRAIN_MIX_BLOCK];
} mix_block;

struct lc_train_data {
    source *sources;
    size_t n_sources, length, extra, window;
    uint64_t seed, checksum, clock;
    mix_block mix;
    pthread_mutex_t lock; /* guards the tables */
};

/* ---- places ---- */

static int no_memory(const source *s, lc_err *err) {
    return lc_fail(err, LC_ENOMEM, "training data \"%s\": out of memory", lc_shardset_name(s->set));
}

static size_t index_of(const lc_train_data *data, const source *s) {
    return (size_t)(s - data->sources);
}

static void start_epoch(const lc_train_data *data, const source *s, uint64_t epoch,
                        lc_shuffle *shuffle) {
    lc_shuffle_init(shuffle, s->documents, data->seed, stream(STREAM_EPOCH, s->key, epoch));
}

/* A walk over the documents of a source, through all epochs. */
typedef struct walk {
    const lc_train_data *data;
    const source *s;
    lc_shuffle shuffle;
    uint64_t epoch, place; /* place in the epoch's permutation */
    uint64_t doc;          /* the document there */
    uint32_t length;       /* its tokens */
} walk;

static void walk_to(walk *w, uint64_t epoch, uint64_t place) {
    bool other = epoch != w->epoch;
    if (place == w->s->documents) {
        epoch++;
        place = 0;
        other = true;
    }
    if (other || !w->shuffle.n) start_epoch(w->data, w->s, epoch, &w->shuffle);
    w->epoch = epoch;
    w->place = place;
    w->doc = lc_shuffle_at(&w->shuffle, place);
    w->length = lc_shardset_length(w->s->set, w->doc);
}

static walk walk_start(const lc_train_data *data, const source *s, uint64_t epoch, uint64_t place) {
    walk w = {.data = data, .s = s};
    walk_to(&w, epoch, place);
    return w;
}

static void walk_next(walk *w) { walk_to(w, w->epoch, w->place + 1); }

/* ---- cut sources ---- */

static int fill_table(const lc_train_data *data, const source *s, epoch_table *t, uint64_t epoch,
                      lc_err *err) {
    size_t n = (size_t)(s->documents / STEP + 1);
    lc_shuffle shuffle;
    uint64_t sum = 0;
    t->used = 0;
    if (!t->at) t->at = lc_calloc(n, sizeof *t->at);
    if (!t->at) return no_memory(s, err);
    start_epoch(data, s, epoch, &shuffle);
    for (uint64_t i = 0; i < s->documents; i++) {
        if (i % STEP == 0) t->at[i / STEP] = sum;
        sum += lc_shardset_length(s->set, lc_shuffle_at(&shuffle, i));
    }
    t->epoch = epoch;
    return LC_OK;
}

static int find_table(lc_train_data *data, source *s, uint64_t epoch, const epoch_table **out,
                      lc_err *err) {
    epoch_table *t = &s->epochs[0];
    for (size_t i = 0; i < EPOCHS_KEPT; i++) {
        epoch_table *e = &s->epochs[i];
        if (e->used && e->epoch == epoch) {
            e->used = ++data->clock;
            *out = e;
            return LC_OK;
        }
        if (e->used < t->used) t = e;
    }
    int status = fill_table(data, s, t, epoch, err);
    t->used = status ? 0 : ++data->clock;
    *out = t;
    return status;
}

/* The document that holds token `at` of the stream, and where in it. */
static int place_cut(lc_train_data *data, source *s, uint64_t at, walk *w, size_t *skip,
                     lc_err *err) {
    const epoch_table *t;
    uint64_t epoch = at / s->tokens, offset = at % s->tokens;
    int status = find_table(data, s, epoch, &t, err);
    if (status) return status;
    uint64_t low = 0, high = (s->documents - 1) / STEP + 1;
    while (high - low > 1) {
        uint64_t mid = (low + high) / 2;
        if (t->at[mid] <= offset)
            low = mid;
        else
            high = mid;
    }
    offset -= t->at[low];
    *w = walk_start(data, s, epoch, low * STEP);
    while (offset >= w->length) {
        offset -= w->length;
        walk_next(w);
    }
    *skip = (size_t)offset;
    return LC_OK;
}

/* Sequences of a cut source that change places with each other. */
static uint64_t window_of(const lc_train_data *data) {
    return data->window > data->length ? data->window / data->length : 1;
}

/* The k-th sequence in the order of reading -> in the order of the stream. */
static uint64_t shuffled(const lc_train_data *data, const source *s, uint64_t k) {
    uint64_t window = window_of(data), block = k / window;
    lc_shuffle shuffle;
    lc_shuffle_init(&shuffle, window, data->seed, stream(STREAM_ORDER, s->key, block));
    return block * window + lc_shuffle_at(&shuffle, k % window);
}

/* ---- whole sources ---- */

/* Moves over the documents of one sequence: as many as fit into T + extra, but at least one. */
static void pass_sequence(walk *w, size_t room) {
    size_t filled = 0;
    do {
        filled += w->length;
        walk_next(w);
    } while (filled < room && w->length <= room - filled);
}

static uint64_t doc_number(const walk *w) { return w->epoch * w->s->documents + w->place; }

static int note_open(source *s, uint64_t number, lc_err *err) {
    if (s->n_opens == s->cap_opens) {
        size_t cap = s->cap_opens * 2 + 64;
        uint64_t *more = lc_realloc(s->opens, cap, sizeof *more);
        if (!more) return no_memory(s, err);
        s->opens = more;
        s->cap_opens = cap;
    }
    s->opens[s->n_opens++] = number;
    return LC_OK;
}

static int place_whole(lc_train_data *data, source *s, uint64_t k, walk *w, lc_err *err) {
    size_t room = data->length + data->extra;
    int status = s->n_opens ? LC_OK : note_open(s, s->start, err);
    if (status) return status;
    uint64_t j = k / STEP < s->n_opens ? k / STEP : s->n_opens - 1;
    *w = walk_start(data, s, s->opens[j] / s->documents, s->opens[j] % s->documents);
    for (uint64_t i = j * STEP; i < k && !status; i++) {
        pass_sequence(w, room);
        if ((i + 1) % STEP == 0 && (i + 1) / STEP == s->n_opens)
            status = note_open(s, doc_number(w), err);
    }
    return status;
}

/* ---- sequences ---- */

/* The block that holds a number. The lock is held. */
static const mix_block *mix_of(lc_train_data *data, uint64_t number) {
    mix_block *m = &data->mix;
    uint64_t block = number / LC_TRAIN_MIX_BLOCK;
    uint16_t count[LC_TRAIN_SOURCES_MAX] = {0};
    lc_shuffle shuffle;
    if (m->ready && m->block == block) return m;
    lc_shuffle_init(&shuffle, LC_TRAIN_MIX_BLOCK, data->seed, stream(STREAM_MIX, 0, block));
    for (size_t i = 0; i < LC_TRAIN_MIX_BLOCK; i++) {
        uint64_t at = lc_shuffle_at(&shuffle, i);
        uint16_t k = 0;
        while (at >= data->sources[k].quota_from + data->sources[k].quota) k++;
        m->source[i] = k;
        m->rank[i] = count[k]++;
    }
    m->block = block;
    m->ready = true;
    return m;
}

/* Source and its k for the sequence `number`. */
static source *pick(lc_train_data *data, uint64_t number, uint64_t *k) {
    const mix_block *m = mix_of(data, number);
    size_t i = number % LC_TRAIN_MIX_BLOCK;
    source *s = &data->sources[m->source[i]];
    *k = number / LC_TRAIN_MIX_BLOCK * s->quota + m->rank[i];
    return s;
}

/* The row's arrays from `filled` on get a part of the document under the walk. */
static int put_part(const walk *w, size_t skip, size_t filled, size_t count, lc_train_row *row,
                    lc_err *err) {
    lc_shard_part part = {w->doc, skip, count, row->tokens + filled, row->mask + filled};
    int status = lc_shardset_read(w->s->set, &part, err);
    for (size_t i = 0; i < count; i++) row->starts[filled + i] = (int32_t)filled;
    row->mask[filled] = 0; /* nothing before it says what it will be */
    row->documents++;
    return status;
}

static int fill_row(walk *w, size_t skip, size_t room, lc_train_row *row, lc_err *err) {
    size_t filled = 0;
    int status = LC_OK;
    while (filled < room && !status) {
        size_t count = w->length - skip;
        if (w->s->whole && filled && count > room - filled) break;
        if (count > room - filled) count = room - filled;
        status = put_part(w, skip, filled, count, row, err);
        filled += count;
        skip = 0;
        if (filled < room) walk_next(w);
    }
    for (size_t from = filled; filled < room; filled++) {
        row->tokens[filled] = (int32_t)lc_shardset_what(w->s->set)->eos;
        row->starts[filled] = (int32_t)from;
        row->mask[filled] = 0;
    }
    return status;
}

int lc_train_sequence(lc_train_data *data, uint64_t number, lc_train_row *row, lc_err *err) {
    uint64_t k, at;
    size_t skip = 0;
    walk w;
    if (number >> LC_TRAIN_NUMBER_BITS)
        return lc_fail(err, LC_ELIMIT, "training data: sequence %llu is out of range",
                       (unsigned long long)number);
    pthread_mutex_lock(&data->lock);
    source *s = pick(data, number, &k);
    if (!s->whole) k = shuffled(data, s, k);
    at = s->start + k * data->length; /* below 2^56 + 2^37 * 2^24 */
    int status =
        s->whole ? place_whole(data, s, k, &w, err) : place_cut(data, s, at, &w, &skip, err);
    pthread_mutex_unlock(&data->lock);
    if (status) return status;
    row->source = index_of(data, s);
    row->epoch = w.epoch;
    row->documents = 0;
    status = fill_row(&w, skip, data->length + data->extra, row, err);
    return status ? lc_err_prefix(err, "sequence %llu", (unsigned long long)number) : LC_OK;
}

/* How many of the sequences 0..number-1 belong to a source. The lock is held. */
static uint64_t count_of(lc_train_data *data, const source *s, uint64_t number) {
    const mix_block *m = mix_of(data, number);
    uint64_t n = number / LC_TRAIN_MIX_BLOCK * s->quota;
    for (size_t i = 0; i < number % LC_TRAIN_MIX_BLOCK; i++) n += m->source[i] == index_of(data, s);
    return n;
}

int lc_train_used(lc_train_data *data, uint64_t number, uint64_t *used, lc_err *err) {
    int status = LC_OK;
    if (number >> LC_TRAIN_NUMBER_BITS)
        return lc_fail(err, LC_ELIMIT, "training data: sequence %llu is out of range",
                       (unsigned long long)number);
    pthread_mutex_lock(&data->lock);
    for (size_t i = 0; i < data->n_sources && !status; i++) {
        source *s = &data->sources[i];
        uint64_t n = count_of(data, s, number);
        walk w;
        if (s->whole) status = place_whole(data, s, n, &w, err);
        uint64_t window = window_of(data), ends = (n + window - 1) / window * window;
        if (!status) used[i] = s->whole ? doc_number(&w) : s->start + ends * data->length;
    }
    pthread_mutex_unlock(&data->lock);
    return status;
}

/* ---- opening ---- */

/* Largest remainders: the quotas of a block add up to it. Every source gets at least one. */
static void share_block(lc_train_data *data, const lc_train_spec *spec) {
    double sum = 0, rest[LC_TRAIN_SOURCES_MAX];
    uint32_t given = 0, from = 0;
    for (size_t i = 0; i < spec->n_sources; i++) sum += spec->sources[i].weight;
    for (size_t i = 0; i < spec->n_sources; i++) {
        double share = spec->sources[i].weight / sum * LC_TRAIN_MIX_BLOCK;
        uint32_t whole = (uint32_t)share;
        data->sources[i].quota = whole ? whole : 1;
        rest[i] = whole ? share - whole : -1;
        given += data->sources[i].quota;
    }
    while (given != LC_TRAIN_MIX_BLOCK) { /* ties go to the first source */
        size_t best = 0;
        bool add = given < LC_TRAIN_MIX_BLOCK;
        for (size_t i = 1; i < spec->n_sources; i++)
            if (add ? rest[i] > rest[best] : data->sources[i].quota > data->sources[best].quota)
                best = i;
        rest[best] = -1;
        data->sources[best].quota += add ? 1u : -1u;
        given += add ? 1u : -1u;
    }
    for (size_t i = 0; i < spec->n_sources; i++) {
        data->sources[i].quota_from = from;
        from += data->sources[i].quota;
    }
}

static int open_source(lc_train_data *data, const lc_train_source *from, size_t i, lc_err *err) {
    source *s = &data->sources[i];
    int status = lc_shardset_open(from->folder, &s->set, err);
    if (status) return status;
    data->n_sources = i + 1;
    const lc_shard_kind *first = lc_train_data_what(data), *kind = lc_shardset_what(s->set);
    if (memcmp(first->tokenizer, kind->tokenizer, sizeof kind->tokenizer) ||
        first->vocab != kind->vocab || first->eos != kind->eos)
        return lc_fail(err, LC_EINVAL, "%s: was made with another tokenizer than \"%s\"",
                       from->folder, lc_shardset_name(data->sources[0].set));
    s->documents = lc_shardset_documents(s->set);
    s->tokens = lc_shardset_tokens(s->set);
    s->start = from->start;
    s->whole = from->whole;
    s->key = from->key ? from->key - 1 : (uint32_t)i;
    if (s->key >> 16) return lc_fail(err, LC_EINVAL, "%s: key is out of range", from->folder);
    if (s->start >> 56) return lc_fail(err, LC_EINVAL, "%s: start is out of range", from->folder);
    return LC_OK;
}

static uint64_t checksum(const lc_train_data *data) {
    uint64_t head[5] = {data->seed, data->length, data->extra, data->window, data->n_sources};
    uint64_t sum = XXH3_64bits(head, sizeof head);
    for (size_t i = 0; i < data->n_sources; i++) {
        const source *s = &data->sources[i];
        uint64_t part[6] = {sum,   lc_shardset_checksum(s->set), s->start, s->quota, s->whole,
                            s->key};
        sum = XXH3_64bits(part, sizeof part);
    }
    return sum;
}

static int check_spec(const lc_train_spec *spec, lc_err *err) {
    if (!spec->n_sources || spec->n_sources > LC_TRAIN_SOURCES_MAX)
        return lc_fail(err, LC_EINVAL, "training data: %zu sources; 1 to %d are possible",
                       spec->n_sources, LC_TRAIN_SOURCES_MAX);
    if (spec->window > LC_TRAIN_WINDOW_MAX)
        return lc_fail(err, LC_EINVAL, "training data: windows of %zu tokens; at most %zu",
                       spec->window, LC_TRAIN_WINDOW_MAX);
    if (!spec->length || spec->length > LC_TRAIN_LENGTH_MAX || spec->extra > LC_TRAIN_LENGTH_MAX)
        return lc_fail(err, LC_EINVAL, "training data: sequences of %zu tokens; 1 to %d",
                       spec->length, LC_TRAIN_LENGTH_MAX);
    for (size_t i = 0; i < spec->n_sources; i++)
        if (!(spec->sources[i].weight > 0) || !(spec->sources[i].weight < 1e12))
            return lc_fail(err, LC_EINVAL, "%s: weight %g is not between 0 and 1e12",
                           spec->sources[i].folder, spec->sources[i].weight);
    return LC_OK;
}

int lc_train_data_open(const lc_train_spec *spec, lc_train_data **out, lc_err *err) {
    *out = NULL;
    int status = check_spec(spec, err);
    if (status) return status;
    lc_train_data *data = lc_calloc(1, sizeof *data);
    if (data) data->sources = lc_calloc(spec->n_sources, sizeof *data->sources);
    if (!data || !data->sources) {
        lc_free(data);
        return lc_fail(err, LC_ENOMEM, "training data: out of memory");
    }
    pthread_mutex_init(&data->lock, NULL);
    data->seed = spec->seed;
    data->length = spec->length;
    data->extra = spec->extra;
    data->window = spec->window;
    for (size_t i = 0; i < spec->n_sources && !status; i++)
        status = open_source(data, &spec->sources[i], i, err);
    if (!status) {
        share_block(data, spec);
        data->checksum = checksum(data);
        *out = data;
    } else {
        lc_train_data_close(data);
    }
    return status;
}

void lc_train_data_close(lc_train_data *data) {
    if (!data) return;
    for (size_t i = 0; i < data->n_sources; i++) {
        source *s = &data->sources[i];
        lc_shardset_close(s->set);
        for (size_t j = 0; j < EPOCHS_KEPT; j++) lc_free(s->epochs[j].at);
        lc_free(s->opens);
    }
    pthread_mutex_destroy(&data->lock);
    lc_free(data->sources);
    lc_free(data);
}

const lc_shard_kind *lc_train_data_what(const lc_train_data *data) {
    return lc_shardset_what(data->sources[0].set);
}
const lc_shardset *lc_train_data_set(const lc_train_data *data, size_t i) {
    return data->sources[i].set;
}
uint64_t lc_train_data_checksum(const lc_train_data *data) { return data->checksum; }
