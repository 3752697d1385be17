/* call.h: one generation: a request of any dialect, its tasks at the scheduler, its reply. Lives on
 * the loop thread, but for `prepare` and `settle`, which workers run while nobody else touches it.
 */
#ifndef LC_SERVER_CALL_H
#define LC_SERVER_CALL_H

#include "server/service_internal.h"
#include "text/toolcall.h"

#include <stdatomic.h>

/* Log probabilities of tokens whose text isn't sent yet. */
typedef struct lc_pending {
    lc_task_token *tokens;
    size_t n, cap;
} lc_pending;

typedef struct lc_choice {
    lc_call *call;
    size_t index, prompt; /* which of the prompts */
    uint64_t task;
    bool submitted, ended;
    atomic_bool lost;        /* a part of the answer couldn't be kept: memory was short */
    lc_http_posted end_post; /* the end always arrives */
    lc_task_result result;   /* written by the engine thread before it posts the end */
    lc_toolparser *parser;   /* chat dialects */
    size_t reasoning_sent, content_sent, calls_sent;
    size_t prompt_left; /* echoed prompt tokens still to come */
    size_t reasoning_tokens;
    char (*call_ids)[LC_ID_LETTERS + 8];
    size_t n_call_ids;
    lc_pending pending;
    lc_ids tokens; /* of the answer */
    lc_task_end end;
    lc_err err;
} lc_choice;

struct lc_call {
    lc_call *next, *prev; /* in service->calls */
    lc_job job;           /* for workers */
    lc_http_posted post;  /* when a worker is done */
    lc_service *service;
    lc_visit *visit;
    lc_exchange *exchange; /* NULL: the client is gone, or the reply is complete */
    const lc_dialect *dialect;
    char *body;
    size_t body_len;
    struct json_object *headers; /* the few that dialects ask for */

    lc_api_request request;
    lc_api_error error; /* status 0: none */
    lc_api_reply_info info;
    char id[LC_ID_LETTERS + 1];
    lc_api_reply *reply;
    lc_grammar *grammar;
    lc_ids *prompts; /* [n_prompts] */
    size_t *heads, n_prompts;
    bool thinks;
    lc_sampling sampling;

    lc_choice *choices;
    size_t n_choices, running; /* tasks that have not ended */
    bool refused;
    uint64_t began_ns, first_ns, last_ns, sent_ns;
    lc_ledger_entry usage;
    lc_api_usage totals;
    bool unbilled; /* the ledger could not be written */
};

/* call_prepare.c: on a worker: body to request to tokens, grammar, parsers; fills error. */
void lc_call_prepare(lc_call *call);
/* call_settle.c: on a worker: the ledger and the answers for replay. */
void lc_call_settle(lc_call *call);

#endif
