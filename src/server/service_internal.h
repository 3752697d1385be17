/* service_internal.h: what service.c (threads, routes), call.c (one generation) and routes.c (light
 * requests) share. */
#ifndef LC_SERVER_SERVICE_INTERNAL_H
#define LC_SERVER_SERVICE_INTERNAL_H

#include "server/api.h"
#include "server/metrics.h"
#include "server/service.h"

#include <pthread.h>

enum { LC_WORKERS = 2, LC_ID_LETTERS = 24 };

/* Work for a worker thread; run owns it. */
typedef struct lc_job {
    struct lc_job *next;
    void (*run)(struct lc_job *job);
    size_t bytes; /* of text that it works on */
} lc_job;

typedef struct lc_workers {
    pthread_t threads[LC_WORKERS];
    size_t n;
    pthread_mutex_t lock;
    pthread_cond_t some;
    lc_job *first, **last; /* where the next one is linked */
    bool quick;            /* a thread has taken it on to do small jobs only */
    bool stop;
} lc_workers;

typedef struct lc_call lc_call;

struct lc_service {
    lc_service_options o;
    lc_http *http;
    lc_workers workers;
    lc_prompter prompter;
    lc_grammar_vocab *vocab;
    lc_metrics metrics;
    lc_call *calls; /* all that live */
    size_t n_calls;
    bool draining, closed; /* closed: scheduler and workers are gone */
    uint64_t drain_until, opened_ns;
    int64_t started;     /* seconds since 1970 */
    size_t most_answers; /* of one request: workers may outlive the scheduler that knows it */
};

/* One request from its head to its last byte. */
typedef struct lc_visit {
    lc_service *service;
    lc_key key;                    /* id 0: none */
    char request_id[32], what[96]; /* method and path */
    uint64_t began_ns;
    const lc_dialect *dialect; /* of a generation; elsewhere the shape of errors */
} lc_visit;

/* Run at once when there are no workers. bytes: of text that the job works on. */
void lc_service_submit(lc_service *s, lc_job *job, size_t bytes);
/* The reply's last word on the log and the counters; ends the visit. */
void lc_visit_done(lc_visit *v, int status, const char *details);
void lc_visit_error(lc_visit *v, lc_exchange *x, const lc_api_error *error);
/* The path without the prefixes by which the same routes are known. */
const char *lc_route_of(const char *path);
void lc_random_letters(char *out, size_t n); /* NUL-terminated */

/* call.c */
void lc_call_begin(lc_visit *v, lc_exchange *x);
void lc_calls_ping(lc_service *s);
void lc_calls_cancel(lc_service *s);

/* routes.c: answers, or returns false: no such route. */
bool lc_route_light(lc_visit *v, lc_exchange *x, const char *method, const char *route);
/* The methods of a route that has any here, for Allow; NULL: no such route. */
const char *lc_route_allows(const lc_service *s, const char *route);

#endif
