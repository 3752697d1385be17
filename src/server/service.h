/*
 * service.h: `longcat serve`: HTTP on one side (http.h), answers on the other (engine/sched.h), and
 * between them dialects (api.h), prompts (prompt.h), accounts (accounts.h) and numbers (metrics.h).
 *
 * Three kinds of threads: the loop (sockets, rendering), workers (JSON, templates, tokens,
 * grammars, the ledger), the scheduler's engine thread. None waits for another.
 */
#ifndef LC_SERVER_SERVICE_H
#define LC_SERVER_SERVICE_H

#include "engine/sched.h"
#include "server/accounts.h"
#include "server/http.h"
#include "server/prompt.h"

typedef struct lc_service_options {
    lc_engine *engine; /* with a tokenizer */
    lc_sched *sched;
    lc_cache *cache;              /* NULL: none */
    const lc_chat_template *tmpl; /* NULL: completions only */
    lc_replay *replay;
    lc_accounts *accounts; /* NULL: no ledger, no keys */
    bool keys;             /* requests need a key */
    const char *model;     /* the id that is served; requests may name any other */
    const char *metrics_prefix;
    lc_sampling sampling; /* where a request says nothing */
    bool pin_temperature; /* LongCat's platform: 1.0 while thinking, 0.7 otherwise, whatever is
                             asked */
    double longest_wait;  /* seconds in the queue: beyond it 429 */
    double drain;         /* seconds that running answers get after SIGTERM */
    lc_http_options http; /* address, TLS, limits */
    void (*access)(void *ctx, const char *json_line); /* one line a request, on the loop thread */
    void *access_ctx;
} lc_service_options;

typedef struct lc_service lc_service;
/* Everything in options is borrowed. It listens when this returns. */
int lc_service_open(const lc_service_options *options, lc_service **out, lc_err *err);
int lc_service_port(const lc_service *service);
/* Serves until SIGTERM or SIGINT (drains; a second one stops at once) or lc_service_stop. SIGHUP
 * reads the TLS certificate again. */
int lc_service_run(lc_service *service, lc_err *err);
void lc_service_stop(lc_service *service); /* any thread: as SIGTERM */
void lc_service_free(lc_service *service); /* after run, and after the scheduler is closed */

#endif
