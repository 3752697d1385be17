/*
 * sched.c: the scheduler's thread and the calls from other threads: submit, cancel, predictions and
 * statistics. The lock is held for list handling only, never during a step or an event, so a caller
 * waits for microseconds however long a step takes.
 *
 * Who goes next is in sched_queue.c, the step in sched_step.c, a task's life in sched_task.c.
 */
#include "engine/sched_internal.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/err.h"

#include <math.h>
#include <string.h>

enum {
    DEFAULT_RUNNING = 16,
    LIGHT_PLACES = 2,
    DEFAULT_BUDGET = 512,
    DEFAULT_WAITING = 256,
    MOST_WAITING = 1 << 20,
    FADE_SECONDS = 30, /* what moving averages remember */
    FADE_TASKS = 16
};

/* ---- the engine thread ---- */

/* A job of the queue that was cancelled, taken out; NULL if there is none. */
static lc_sched_job *take_cancelled(lc_sched *s) {
    lc_sched_job *found = NULL;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n_queue && !found; i++)
        if (s->closing || s->queue[i]->cancelled) found = s->queue[i];
    if (found) lc_sched_jobs_remove(s->queue, &s->n_queue, found);
    pthread_mutex_unlock(&s->lock);
    if (found && found == s->chosen) s->chosen = NULL;
    return found;
}

static void mark_cancelled(lc_sched *s) {
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n_running; i++) {
        lc_sched_job *job = s->running[i];
        if (job->ended || !(s->closing || job->cancelled)) continue;
        job->ended = true;
        job->end = LC_TASK_CANCELED;
    }
    pthread_mutex_unlock(&s->lock);
}

static void finish_ended(lc_sched *s) {
    for (size_t i = s->n_running; i-- > 0;)
        if (s->running[i]->ended) lc_sched_job_finish(s, s->running[i]);
}

/* Waits for something to do; false: the end. */
static bool wait_for_work(lc_sched *s) {
    pthread_mutex_lock(&s->lock);
    while (!s->closing && !s->n_queue && !s->n_running) pthread_cond_wait(&s->wake, &s->lock);
    bool more = s->n_queue || s->n_running;
    pthread_mutex_unlock(&s->lock);
    return more;
}

static void *engine_thread(void *ctx) {
    lc_sched *s = ctx;
    while (wait_for_work(s)) {
        for (lc_sched_job *job; (job = take_cancelled(s));) {
            job->end = LC_TASK_CANCELED;
            lc_sched_job_finish(s, job);
        }
        mark_cancelled(s);
        finish_ended(s);
        for (lc_sched_job *job; (job = lc_sched_take(s));) lc_sched_job_start(s, job);
        lc_sched_step(s);
        finish_ended(s);
    }
    return NULL;
}

/* ---- statistics ---- */

/* Old amounts fade by exp(-share). */
static void add(lc_fading *f, double amount, double weight, double share) {
    double keep = exp(-share);
    f->amount = f->amount * keep + amount;
    f->weight = f->weight * keep + weight;
}

static double rate(const lc_fading *f) { return f->weight > 0 ? f->amount / f->weight : 0; }

void lc_sched_account(lc_sched *s, const lc_step_account *a) {
    const lc_config *c = &s->engine->model->config;
    size_t entries = c->experts + c->zero_experts, n = a->rows * c->layers;
    double share = a->seconds / FADE_SECONDS;
    pthread_mutex_lock(&s->lock);
    s->stats.busy_s += a->seconds;
    if (a->prompt_rows) add(&s->prefill, (double)a->prompt_rows, a->seconds, share);
    if (a->answers) add(&s->decode, (double)a->answers, a->seconds, share);
    for (size_t i = 0; a->routes && i < n; i++)
        for (size_t k = 0; k < c->topk; k++)
            s->experts[i % c->layers * entries + (size_t)a->routes[i * c->topk + k]]++;
    for (size_t i = 0; i < s->n_running; i++) {
        lc_sched_job *job = s->running[i];
        job->rows_left = job->session && !job->decoding ? job->is.count - job->session->length : 0;
    }
    pthread_mutex_unlock(&s->lock);
}

void lc_sched_retire(lc_sched *s, lc_sched_job *job, const lc_task_result *r) {
    pthread_mutex_lock(&s->lock);
    size_t before = s->n_running;
    lc_sched_jobs_remove(s->running, &s->n_running, job);
    if (s->n_running < before) s->stats.kv_bytes -= job->kv_bytes;
    s->stats.prompt_tokens += r->prompt_tokens;
    s->stats.cached_tokens += r->cached_tokens;
    s->stats.output_tokens += r->output_tokens;
    s->stats.tasks[r->end]++;
    if (job->started) {
        double life = r->prefill_s + r->decode_s;
        add(&s->life, life, 1, 1.0 / FADE_TASKS);
        add(&s->reuse, (double)r->cached_tokens, (double)r->prompt_tokens, 1.0 / FADE_TASKS);
    }
    pthread_mutex_unlock(&s->lock);
}

void lc_sched_stats_get(lc_sched *s, lc_sched_stats *out) {
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    out->running = s->n_running;
    out->waiting = s->n_queue;
    out->prefill_rate = rate(&s->prefill);
    out->decode_rate = rate(&s->decode);
    pthread_mutex_unlock(&s->lock);
}

void lc_sched_experts(lc_sched *s, uint64_t *out) {
    pthread_mutex_lock(&s->lock);
    memcpy(out, s->experts, s->stats.layers * s->stats.entries * sizeof *out);
    pthread_mutex_unlock(&s->lock);
}

/* The prompt's own rows come after those of all others, and after a place among the running ones
 * has become free: one of them ends every (their mean life / their number) seconds. */
double lc_sched_predict(lc_sched *s, size_t count) {
    pthread_mutex_lock(&s->lock);
    double fresh = 1 - rate(&s->reuse), rows = 0, speed = rate(&s->prefill);
    for (size_t i = 0; i < s->n_queue; i++) rows += (double)s->queue[i]->is.count * fresh;
    for (size_t i = 0; i < s->n_running; i++) rows += (double)s->running[i]->rows_left;
    size_t ahead = s->n_queue + s->n_running + 1, places = s->options.running;
    double places_s =
        ahead > places ? (double)(ahead - places) * rate(&s->life) / (double)places : 0;
    pthread_mutex_unlock(&s->lock);
    if (speed <= 0) return places_s; /* nothing is known yet */
    double before_s = rows / speed, own_s = (double)count * fresh / speed;
    return (before_s > places_s ? before_s : places_s) + own_s;
}

/* ---- submit and cancel ---- */

int lc_sched_submit(lc_sched *s, const lc_task *task, uint64_t *id, lc_err *err) {
    lc_sched_job *job = NULL;
    int status = lc_sched_job_new(s, task, &job, err);
    if (status != LC_OK) return status;
    pthread_mutex_lock(&s->lock);
    if (s->closing)
        status = lc_fail(err, LC_ECANCELED, "the scheduler is closing");
    else if (s->n_queue >= s->options.waiting) {
        status = lc_fail(err, LC_ELIMIT, "the queue is full: %zu tasks wait", s->n_queue);
        if (id) *id = LC_SCHED_FULL;
    }
    if (status == LC_OK) {
        job->id = ++s->last_id;
        job->submitted = lc_clock_ns();
        s->queue[s->n_queue++] = job;
        if (id) *id = job->id;
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    if (status != LC_OK) lc_sched_job_free(job);
    return status;
}

size_t lc_sched_waiting(const lc_sched *s) { return s->options.waiting; }

static void cancel_in(lc_sched_job *const *jobs, size_t count, uint64_t id) {
    for (size_t i = 0; i < count; i++)
        if (jobs[i]->id == id) jobs[i]->cancelled = true;
}

void lc_sched_cancel(lc_sched *s, uint64_t id) {
    pthread_mutex_lock(&s->lock);
    cancel_in(s->queue, s->n_queue, id);
    cancel_in(s->running, s->n_running, id);
    pthread_mutex_unlock(&s->lock);
}

/* ---- opening and closing ---- */

static size_t or_default(size_t value, size_t standard) { return value ? value : standard; }

static void fill_options(lc_sched *s, const lc_sched_options *o) {
    static const lc_sched_options none;
    if (!o) o = &none;
    lc_sched_options *mine = &s->options;
    size_t chunk = s->engine->chunk;
    *mine = *o;
    mine->budget = or_default(o->budget, DEFAULT_BUDGET);
    if (mine->budget > chunk) mine->budget = chunk;
    /* every running one has a row in every step */
    mine->running = or_default(o->running, DEFAULT_RUNNING);
    if (mine->running > mine->budget) mine->running = mine->budget;
    s->places = mine->running + LIGHT_PLACES;
    if (s->places > mine->budget) s->places = mine->budget;
    mine->waiting = or_default(o->waiting, DEFAULT_WAITING);
    mine->kv_bytes = or_default(o->kv_bytes, lc_cpu_memory() / 4);
    if (s->engine->drafts) mine->cache = NULL; /* it doesn't hold the draft module's part */
}

static int allocate(lc_sched *s, lc_err *err) {
    const lc_config *c = &s->engine->model->config;
    size_t waiting = s->options.waiting, running = s->places;
    s->stats.layers = c->layers;
    s->stats.entries = c->experts + c->zero_experts;
    s->queue = lc_calloc(waiting, sizeof(lc_sched_job *));
    s->view = lc_calloc(waiting, sizeof(lc_sched_job *));
    s->running = lc_calloc(running, sizeof(lc_sched_job *));
    s->in_step = lc_calloc(running, sizeof(lc_sched_job *));
    s->keys = lc_calloc(waiting + running, sizeof *s->keys);
    s->parts = lc_calloc(running, sizeof *s->parts);
    s->mask = lc_calloc((c->vocab + 63) / 64, sizeof *s->mask);
    s->experts = lc_calloc(c->layers * s->stats.entries, sizeof *s->experts);
    if (!s->queue || !s->view || !s->running || !s->in_step || !s->keys || !s->parts || !s->mask ||
        !s->experts)
        return lc_fail(err, LC_ENOMEM, "scheduler: out of memory");
    return lc_engine_keep_routes(s->engine, err);
}

static void release(lc_sched *s) {
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    lc_free(s->queue);
    lc_free(s->view);
    lc_free(s->running);
    lc_free(s->in_step);
    lc_free(s->keys);
    lc_free(s->parts);
    lc_free(s->mask);
    lc_free(s->experts);
    lc_free(s);
}

int lc_sched_open(lc_engine *engine, const lc_sched_options *options, lc_sched **out, lc_err *err) {
    *out = NULL;
    if (options && options->waiting > MOST_WAITING)
        return lc_fail(err, LC_ELIMIT, "a queue of %zu tasks: the limit is %d", options->waiting,
                       MOST_WAITING);
    lc_sched *s = lc_calloc(1, sizeof *s);
    if (!s) return lc_fail(err, LC_ENOMEM, "scheduler: out of memory");
    s->engine = engine;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    fill_options(s, options);
    int status = allocate(s, err);
    if (status == LC_OK && pthread_create(&s->thread, NULL, engine_thread, s) != 0)
        status = lc_fail(err, LC_ENOMEM, "scheduler: no thread");
    if (status != LC_OK) {
        release(s);
        return status;
    }
    *out = s;
    return LC_OK;
}

void lc_sched_close(lc_sched *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    release(s);
}
