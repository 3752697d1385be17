/*
 * sched_internal.h: what the scheduler's files share: sched.c (threads, calls from outside),
 * sched_queue.c (who goes next), sched_step.c (one step of the engine), sched_task.c (one task's
 * life).
 *
 * Two worlds: what `lock` guards is read and written by any thread; everything else belongs to the
 * engine thread. A task is in the queue first, then running, then gone; only the engine thread
 * moves it, so what it found in the queue stays valid until it takes it out itself.
 */
#ifndef LC_ENGINE_SCHED_INTERNAL_H
#define LC_ENGINE_SCHED_INTERNAL_H

#include "engine/emit.h"
#include "engine/engine.h"
#include "engine/sched.h"

#include <pthread.h>

/* A submitted task. */
typedef struct lc_sched_job {
    lc_task is; /* its lists live in arena */
    lc_arena *arena;
    uint64_t id, submitted; /* when, ns */
    bool cancelled;         /* lock */
    size_t kv_bytes;        /* of the longest list that it may get */
    size_t rows_left;       /* lock: prompt rows to compute, 0 when it is decoding */
    /* in the queue */
    size_t cached; /* tokens of the prompt that the cache knows; then those that came from it */
    uint64_t matched_at; /* lc_sched.saves when this was found out, plus 1 */
    size_t passed;       /* times that a later task of its key was taken first */
    /* running */
    uint64_t started, first; /* when: out of the queue, first token; ns */
    lc_session *session;
    lc_grammar_state *grammar;
    lc_emitter text, echo;
    lc_ids list;   /* prompt and answer */
    size_t saved;  /* positions that the cache was given */
    size_t wanted; /* positions that a waiting task shares and wants in the cache */
    bool decoding; /* the prompt is done */
    bool ended;    /* as: */
    lc_task_end end;
    lc_err err;
    lc_task_token token; /* being told */
} lc_sched_job;

/* A key's place in the round. */
typedef struct lc_fair_key {
    uint64_t key;
    int64_t deficit;     /* tokens that it may still have in this round; negative: had too many */
    lc_sched_job *first; /* its task that goes next, NULL if none waits; during a choice */
    bool live;           /* during a choice: something waits or runs */
    size_t seen;         /* during a choice: its tasks so far */
} lc_fair_key;

/* A sum of amounts and of time that fade, so that their ratio is a recent rate. */
typedef struct lc_fading {
    double amount, weight;
} lc_fading;

struct lc_sched {
    lc_engine *engine;
    lc_sched_options options; /* defaults filled in */
    size_t places;            /* options.running, and those for light ones only */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* lock */
    bool closing;
    uint64_t last_id;
    lc_sched_job **queue; /* [options.waiting], in order of arrival */
    size_t n_queue;
    lc_sched_job **running; /* [places], in order of start; the engine thread's for reading */
    size_t n_running;
    lc_sched_stats stats;
    uint64_t *experts;                      /* [layers][entries] */
    lc_fading prefill, decode, reuse, life; /* rows, tokens, cached prompt tokens, tasks' seconds */
    /* engine thread */
    lc_sched_job **view;  /* [options.waiting] the queue as it was */
    lc_sched_job *chosen; /* goes next, when there is memory for it */
    lc_fair_key *keys;    /* [options.waiting + places] */
    size_t n_keys, turn;
    lc_step_part *parts; /* [places] */
    lc_sched_job **in_step;
    uint64_t *mask; /* [ceil(V/64)] */
    uint64_t saves; /* beginnings saved in the cache */
};

static inline void lc_sched_jobs_remove(lc_sched_job **jobs, size_t *count,
                                        const lc_sched_job *job) {
    size_t n = 0;
    for (size_t i = 0; i < *count; i++)
        if (jobs[i] != job) jobs[n++] = jobs[i];
    *count = n;
}

/* ---- sched.c ---- */

/* Takes a job out of the running ones, if it is there, and adds its result to the statistics. */
void lc_sched_retire(lc_sched *sched, lc_sched_job *job, const lc_task_result *result);
/* What a step did. */
typedef struct lc_step_account {
    size_t rows, prompt_rows, answers; /* answers: jobs that got a token or ended */
    double seconds;
    const int32_t *routes; /* [rows][layers][topk], or NULL */
} lc_step_account;
void lc_sched_account(lc_sched *sched, const lc_step_account *account);

/* ---- sched_queue.c ---- */

/* Moves the task that goes next from the queue to the running ones; NULL if none waits or the next
 * one has no room yet. */
lc_sched_job *lc_sched_take(lc_sched *sched);
/* A key had tokens beyond its prompt. */
void lc_sched_charge(lc_sched *sched, uint64_t key, size_t tokens);

/* ---- sched_task.c ---- */

int lc_sched_job_new(lc_sched *sched, const lc_task *task, lc_sched_job **out, lc_err *err);
void lc_sched_job_free(lc_sched_job *job);
void lc_sched_job_start(lc_sched *sched, lc_sched_job *job);
/* The job's part of a step was computed. */
void lc_sched_job_advance(lc_sched *sched, lc_sched_job *job, const lc_step_part *part);
/* Whether the logits of all its prompt rows are needed. */
bool lc_sched_job_wants_rows(const lc_sched_job *job);
void lc_sched_job_fail(lc_sched_job *job, const lc_err *err);
/* Tells the end and frees the job. */
void lc_sched_job_finish(lc_sched *sched, lc_sched_job *job);

/* ---- sched_step.c ---- */

/* One step for all running jobs that haven't ended. */
void lc_sched_step(lc_sched *sched);

#endif
