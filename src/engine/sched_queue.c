/*
 * sched_queue.c: which waiting task goes next.
 *
 * Between keys: deficit round robin in tokens. A key may start a task when its deficit covers the
 * prompt tokens that must be computed; if no key can, all that wait get the same number of quanta,
 * the fewest that let one start. Generated tokens are charged as they come, so long answers count
 * too. Several that can start take turns.
 * Inside a key: light ones, then the longest cached beginning, then the oldest; a task that others
 * have passed PASSES times goes before all of them.
 *
 * A task whose beginning is just being computed for another waits for that: then the cache has it.
 *
 * The chosen task keeps its turn until it fits into the memory. As every task fits alone and every
 * running one ends, it does so at last; nothing passes it meanwhile, so nothing starves. When all
 * places are taken, light tasks have a few of their own.
 */
#include "engine/sched_internal.h"

#include <string.h>

enum {
    QUANTUM = 512,
    PASSES = 8,
    LOOKAHEAD = 16, /* oldest tasks of a key whose cached beginnings are compared */
};

static lc_fair_key *find_key(lc_sched *s, uint64_t key) {
    for (size_t i = 0; i < s->n_keys; i++)
        if (s->keys[i].key == key) return &s->keys[i];
    return NULL;
}

void lc_sched_charge(lc_sched *s, uint64_t key, size_t tokens) {
    lc_fair_key *k = find_key(s, key);
    if (k) k->deficit -= (int64_t)tokens;
}

static int64_t cost(const lc_sched_job *job) { return (int64_t)(job->is.count - job->cached); }

/* Drops keys of which nothing waits or runs, and forgets their accounts. */
static void drop_idle_keys(lc_sched *s, size_t n_view) {
    for (size_t i = 0; i < s->n_keys; i++) {
        s->keys[i].live = false;
        s->keys[i].first = NULL;
        s->keys[i].seen = 0;
    }
    for (size_t i = 0; i < n_view + s->n_running; i++) {
        const lc_sched_job *job = i < n_view ? s->view[i] : s->running[i - n_view];
        lc_fair_key *k = find_key(s, job->is.key);
        if (k) k->live = true;
    }
    size_t kept = 0, turn = s->turn;
    for (size_t i = 0; i < s->n_keys; i++) {
        if (s->keys[i].live)
            s->keys[kept++] = s->keys[i];
        else if (i < s->turn)
            turn--;
    }
    s->n_keys = kept;
    s->turn = turn;
}

/* Whether a goes before b, which arrived earlier. */
static bool goes_before(const lc_sched_job *a, const lc_sched_job *b) {
    bool old_a = a->passed >= PASSES, old_b = b->passed >= PASSES;
    if (old_a || old_b) return !old_b;
    if (a->is.light != b->is.light) return a->is.light;
    return a->cached > b->cached;
}

/* Whole blocks of tokens that both prompts begin with. */
static size_t shared(const lc_sched_job *a, const lc_sched_job *b) {
    size_t most = a->is.count < b->is.count ? a->is.count : b->is.count, n = 0;
    while (n < most && a->list.data[n] == b->list.data[n]) n++;
    if (n == a->is.count) n--; /* its last token is computed in any case */
    return n - n % LC_CACHE_BLOCK;
}

/* Whether a running task is about to compute half or more of what the job would have to. */
static bool in_the_making(lc_sched *s, const lc_sched_job *job) {
    for (size_t i = 0; i < s->n_running; i++) {
        lc_sched_job *other = s->running[i];
        if (other->decoding || other->ended || other->is.tenant != job->is.tenant) continue;
        size_t n = shared(job, other);
        if (n <= other->saved || n <= job->cached) continue;
        if (2 * (int64_t)(n - job->cached) < cost(job)) continue;
        if (n > other->wanted) other->wanted = n;
        return true;
    }
    return false;
}

/* The first of each key's tasks, in view[]. */
static void find_firsts(lc_sched *s, size_t n_view) {
    for (size_t i = 0; i < n_view; i++) {
        lc_sched_job *job = s->view[i];
        lc_fair_key *k = find_key(s, job->is.key);
        if (!k) {
            k = &s->keys[s->n_keys++];
            *k = (lc_fair_key){.key = job->is.key, .live = true};
        }
        if (k->seen++ >= LOOKAHEAD && !job->is.light) continue;
        if (s->options.cache && job->matched_at != s->saves + 1) {
            job->cached =
                lc_cache_match(s->options.cache, job->is.tenant, job->list.data, job->is.count);
            job->matched_at = s->saves + 1;
        }
        if (s->options.cache && in_the_making(s, job)) continue;
        if (!k->first || goes_before(job, k->first)) k->first = job;
    }
}

/* Quanta until the key can start its first task. */
static int64_t rounds_needed(const lc_fair_key *k) {
    int64_t missing = cost(k->first) - k->deficit;
    return missing > 0 ? (missing + QUANTUM - 1) / QUANTUM : 0;
}

static lc_sched_job *choose(lc_sched *s, size_t n_view) {
    drop_idle_keys(s, n_view);
    find_firsts(s, n_view);
    size_t best = s->n_keys;
    for (size_t i = 0; i < s->n_keys; i++) {
        size_t at = (s->turn + i) % s->n_keys;
        if (!s->keys[at].first) continue;
        if (best == s->n_keys || rounds_needed(&s->keys[at]) < rounds_needed(&s->keys[best]))
            best = at;
    }
    if (best == s->n_keys) return NULL;
    int64_t rounds = rounds_needed(&s->keys[best]);
    for (size_t i = 0; i < s->n_keys; i++)
        if (s->keys[i].first) s->keys[i].deficit += rounds * QUANTUM;
    s->turn = (best + 1) % s->n_keys;
    lc_sched_job *job = s->keys[best].first;
    for (size_t i = 0; i < n_view && s->view[i] != job; i++)
        if (s->view[i]->is.key == job->is.key) s->view[i]->passed++;
    return job;
}

static size_t look_at_queue(lc_sched *s) {
    pthread_mutex_lock(&s->lock);
    size_t n_view = s->n_queue;
    memcpy(s->view, s->queue, n_view * sizeof(lc_sched_job *));
    pthread_mutex_unlock(&s->lock);
    return n_view;
}

/* Makes the job a running one if there is memory for it. */
static bool admit(lc_sched *s, lc_sched_job *job) {
    pthread_mutex_lock(&s->lock);
    bool fits = job->kv_bytes <= s->options.kv_bytes - s->stats.kv_bytes;
    if (fits) {
        lc_sched_jobs_remove(s->queue, &s->n_queue, job);
        s->running[s->n_running++] = job;
        s->stats.kv_bytes += job->kv_bytes;
        job->rows_left = (size_t)cost(job);
    }
    pthread_mutex_unlock(&s->lock);
    if (fits) lc_sched_charge(s, job->is.key, (size_t)cost(job));
    return fits;
}

/* The oldest light task that fits, for the places of their own. */
static lc_sched_job *take_light(lc_sched *s) {
    size_t n_view = look_at_queue(s);
    for (size_t i = 0; i < n_view; i++)
        if (s->view[i]->is.light && admit(s, s->view[i])) return s->view[i];
    return NULL;
}

lc_sched_job *lc_sched_take(lc_sched *s) {
    if (s->n_running >= s->options.running)
        return s->n_running < s->places && !s->chosen ? take_light(s) : NULL;
    if (!s->chosen) s->chosen = choose(s, look_at_queue(s));
    lc_sched_job *job = s->chosen;
    if (!job || !admit(s, job)) return NULL;
    s->chosen = NULL;
    return job;
}
