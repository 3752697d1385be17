/*
 * sched_step.c: one step. Each answer has its row; what is left of the budget goes to prompts in
 * equal shares, and what short ones don't need to the longer: a short prompt is never behind a long
 * one, and a long one always moves.
 */
#include "engine/sched_internal.h"

#include "base/clock.h"

enum { ECHO_ROWS = 64 }; /* prompt rows of a step whose logits are all wanted: bounds the buffer */

static size_t rows_left(const lc_sched_job *job) {
    return job->session->tokens.len - job->session->length;
}

static size_t most_rows(const lc_sched_job *job) {
    size_t left = rows_left(job);
    return lc_sched_job_wants_rows(job) && left > ECHO_ROWS ? ECHO_ROWS : left;
}

/* Puts a part behind the first n, ordered from `from` on by rising rows. */
static void insert_part(lc_sched *s, size_t from, size_t n, lc_sched_job *job, size_t rows) {
    size_t at = n;
    for (; at > from && s->parts[at - 1].rows > rows; at--) {
        s->parts[at] = s->parts[at - 1];
        s->in_step[at] = s->in_step[at - 1];
    }
    s->parts[at] = (lc_step_part){
        .session = job->session, .rows = rows, .all_logits = lc_sched_job_wants_rows(job)};
    s->in_step[at] = job;
}

/* Fills parts and in_step; *answers of them come first and have a row each. */
static size_t choose_parts(lc_sched *s, size_t *answers) {
    size_t n = 0;
    for (size_t i = 0; i < s->n_running; i++) {
        lc_sched_job *job = s->running[i];
        if (job->ended || !job->decoding) continue;
        s->parts[n] = (lc_step_part){.session = job->session, .rows = 1};
        s->in_step[n++] = job;
    }
    *answers = n;
    for (size_t i = 0; i < s->n_running; i++) {
        lc_sched_job *job = s->running[i];
        if (job->ended || job->decoding) continue;
        insert_part(s, *answers, n, job, most_rows(job));
        n++;
    }
    size_t budget = s->options.budget - *answers; /* at least a row for each prompt */
    for (size_t i = *answers; i < n; i++) {
        size_t share = budget / (n - i);
        if (s->parts[i].rows > share) s->parts[i].rows = share;
        budget -= s->parts[i].rows;
    }
    return n;
}

void lc_sched_step(lc_sched *s) {
    lc_err err = {0};
    size_t answers, n = choose_parts(s, &answers);
    if (!n) return;
    uint64_t begin = lc_clock_ns();
    int status = lc_step_batch(s->engine, s->parts, n, s->options.budget, &err);
    lc_step_account account = {.answers = answers};
    for (size_t i = 0; i < n && status == LC_OK; i++) {
        account.rows += s->parts[i].n;
        if (i >= answers) account.prompt_rows += s->parts[i].n;
        lc_sched_job_advance(s, s->in_step[i], &s->parts[i]);
    }
    for (size_t i = 0; i < n && status != LC_OK; i++) lc_sched_job_fail(s->in_step[i], &err);
    if (status == LC_OK) account.routes = s->engine->routes;
    account.seconds = (double)(lc_clock_ns() - begin) * 1e-9;
    lc_sched_account(s, &account);
}
