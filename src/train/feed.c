/* feed.c: sequences for the loop; see feed.h. */
#include "train/feed.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* ---- opening ---- */

static int check_kind(const lc_feed_options *o, const lc_train_data *data, lc_err *err) {
    const lc_shard_kind *kind = lc_train_data_what(data);
    const char *name = lc_shardset_name(lc_train_data_set(data, 0));
    char want[65], got[65];
    if (kind->vocab > o->vocab)
        return lc_fail(err, LC_EINVAL, "training data \"%s\": %u ids; the model has %zu", name,
                       kind->vocab, o->vocab);
    if (!o->tokenizer) return LC_OK;
    lc_hash *hash = lc_hash_new(LC_HASH_SHA256);
    if (!hash) return lc_fail(err, LC_ENOMEM, "training data: out of memory");
    lc_hash_update(hash, o->tokenizer->data, o->tokenizer->len);
    lc_hash_finish(hash, got);
    for (int i = 0; i < 32; i++) snprintf(want + 2 * i, 3, "%02x", kind->tokenizer[i]);
    return strcmp(want, got) ? lc_fail(err, LC_EINVAL,
                                       "training data \"%s\" was made with another tokenizer than "
                                       "the run's",
                                       name)
                             : LC_OK;
}

static int make_feed(const lc_feed_options *o, const lc_train_spec *spec, size_t sequences,
                     lc_feed **out, lc_err *err) {
    lc_feed *f = *out = lc_calloc(1, sizeof *f);
    if (!f) return lc_fail(err, LC_ENOMEM, "training data: out of memory");
    size_t n = sequences * spec->length;
    *f = (lc_feed){.sequences = sequences, .length = spec->length, .pool = o->pool};
    f->tokens = lc_calloc(n, sizeof *f->tokens);
    f->starts = lc_calloc(n, sizeof *f->starts);
    f->mask = lc_calloc(n, 1);
    int status = f->tokens && f->starts && f->mask
                     ? LC_OK
                     : lc_fail(err, LC_ENOMEM, "training data: no memory for %zu tokens", n);
    if (status == LC_OK) status = lc_train_data_open(spec, &f->data, err);
    if (status == LC_OK) status = check_kind(o, f->data, err);
    if (status != LC_OK) {
        lc_feed_close(f);
        *out = NULL;
    }
    return status;
}

/* The spec of a stage; sources [LC_RECIPE_SOURCES], place[k]: which source of the recipe it is. */
static lc_train_spec spec_of(const lc_recipe *r, size_t stage, const uint64_t *used,
                             lc_train_source *sources, size_t *place) {
    const lc_recipe_stage *s = &r->stages[stage];
    size_t n = 0;
    for (size_t i = 0; i < r->n_sources; i++)
        if (s->weights[i] > 0) {
            place[n] = i;
            sources[n++] = (lc_train_source){.folder = r->sources[i].folder,
                                             .weight = s->weights[i],
                                             .whole = r->sources[i].whole,
                                             .key = (uint32_t)i + 1,
                                             .start = used[i]};
        }
    return (lc_train_spec){.sources = sources,
                           .n_sources = n,
                           .seed = (uint64_t)r->seed,
                           .length = (size_t)s->context,
                           .window = (size_t)r->window};
}

/* Moves `used` past a whole stage. */
static int pass_stage(const lc_recipe *r, size_t stage, uint64_t *used, lc_err *err) {
    lc_train_source sources[LC_RECIPE_SOURCES];
    size_t place[LC_RECIPE_SOURCES];
    uint64_t now[LC_RECIPE_SOURCES];
    lc_train_data *data;
    lc_train_spec spec = spec_of(r, stage, used, sources, place);
    int status = lc_train_data_open(&spec, &data, err);
    if (status != LC_OK) return status;
    uint64_t n = (uint64_t)r->stages[stage].steps * (uint64_t)r->stages[stage].batch;
    status = lc_train_used(data, n, now, err);
    for (size_t k = 0; k < spec.n_sources && status == LC_OK; k++) used[place[k]] = now[k];
    lc_train_data_close(data);
    return status;
}

int lc_feed_open(const lc_feed_options *o, lc_feed **out, lc_err *err) {
    uint64_t used[LC_RECIPE_SOURCES] = {0};
    lc_train_source sources[LC_RECIPE_SOURCES];
    size_t place[LC_RECIPE_SOURCES];
    int status = LC_OK;
    *out = NULL;
    for (size_t i = 0; i < o->stage && status == LC_OK; i++)
        status = pass_stage(o->recipe, i, used, err);
    if (status != LC_OK) return status;
    lc_train_spec spec = spec_of(o->recipe, o->stage, used, sources, place);
    return make_feed(o, &spec, (size_t)o->recipe->stages[o->stage].batch, out, err);
}

int lc_feed_open_folder(const lc_feed_options *o, const char *folder, size_t sequences,
                        lc_feed **out, lc_err *err) {
    lc_train_source source = {.folder = folder, .weight = 1};
    lc_train_spec spec = {.sources = &source,
                          .n_sources = 1,
                          .length = (size_t)o->recipe->stages[o->stage].context,
                          .window = (size_t)o->recipe->window};
    return make_feed(o, &spec, sequences, out, err);
}

void lc_feed_close(lc_feed *f) {
    if (!f) return;
    if (f->data) lc_train_data_close(f->data);
    lc_free(f->tokens);
    lc_free(f->starts);
    lc_free(f->mask);
    lc_free(f);
}

/* ---- reading ---- */

typedef struct reading {
    lc_feed *feed;
    uint64_t first;
    pthread_mutex_t lock;
    size_t failed; /* lowest sequence that failed */
    int status;
    lc_err err;
} reading;

static void read_rows(void *ctx, size_t begin, size_t end, int thread) {
    reading *r = ctx;
    lc_feed *f = r->feed;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        lc_err err = {0};
        lc_train_row row = {.tokens = f->tokens + i * f->length,
                            .starts = f->starts + i * f->length,
                            .mask = f->mask + i * f->length};
        int status = lc_train_sequence(f->data, r->first + i, &row, &err);
        if (status == LC_OK) continue;
        pthread_mutex_lock(&r->lock);
        if (i < r->failed) {
            r->failed = i;
            r->status = status;
            r->err = err;
        }
        pthread_mutex_unlock(&r->lock);
    }
}

int lc_feed_read(lc_feed *f, uint64_t first, lc_err *err) {
    reading r = {.feed = f, .first = first, .failed = f->sequences};
    pthread_mutex_init(&r.lock, NULL);
    lc_pool_for(f->pool, f->sequences, 1, read_rows, &r);
    pthread_mutex_destroy(&r.lock);
    if (r.status != LC_OK && err) *err = r.err;
    return r.status;
}

lc_batch lc_feed_batch(const lc_feed *f, size_t row, size_t rows) {
    size_t at = row * f->length;
    return (lc_batch){.rows = rows,
                      .length = f->length,
                      .tokens = f->tokens + at,
                      .mask = f->mask + at,
                      .starts = f->starts + at};
}

double lc_feed_keys(const lc_feed *f, size_t most) {
    uint64_t sum = 0;
    for (size_t i = 0; i < f->sequences * f->length; i++) {
        size_t seen = i % f->length - (size_t)f->starts[i] + 1;
        sum += seen < most ? seen : most;
    }
    return (double)sum / (double)(f->sequences * f->length);
}
