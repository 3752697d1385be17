/*
 * sched.h: many answers at once on one engine. One thread owns the engine; everybody else submits
 * tasks and gets events.
 *
 * Each step runs, together in one forward pass, one row for each answer that is being generated and
 * prompt rows up to the step's token budget (decode first). Waiting tasks: deficit round robin over
 * keys; inside a key the longest cached beginning first, with ageing. The bits of an answer never
 * depend on what else runs.
 *
 * Networks, JSON and money are elsewhere.
 */
#ifndef LC_ENGINE_SCHED_H
#define LC_ENGINE_SCHED_H

#include "engine/grammar.h"
#include "store/cache.h"

enum { LC_TOP_LOGPROBS = 20, LC_ROUTED_LAYERS = 64 };

typedef struct lc_token_logprob {
    int32_t token;
    float
        logprob; /* natural logarithm, of the model's own distribution (before sampling filters) */
} lc_token_logprob;

/* One token of an answer, or of an echoed prompt. */
typedef struct lc_task_token {
    int32_t token;    /* -1: only the rest of the text */
    const char *text; /* has become certain; len bytes, whole characters */
    size_t len;
    lc_token_logprob own; /* token -1 if not asked for, and for the first of an echoed prompt */
    lc_token_logprob top[LC_TOP_LOGPROBS];
    size_t n_top;
    float routed; /* routed experts of the row that predicted it, mean over layers; 0 for the first
                   * of an echoed prompt and where that row came from the cache */
    uint8_t routed_by_layer[LC_ROUTED_LAYERS];
    size_t n_layers; /* 0: not known, or a model with more layers than that */
} lc_task_token;

typedef enum lc_task_end {
    LC_TASK_STOP,   /* EOS or a stop token */
    LC_TASK_STRING, /* a stop string */
    LC_TASK_LENGTH, /* max_tokens or the context */
    LC_TASK_CANCELED,
    LC_TASK_FAILED,
} lc_task_end;

typedef struct lc_task_result {
    lc_task_end end;
    const char *stop_string; /* STRING: which; borrowed from the task's */
    lc_err err;              /* FAILED */
    size_t prompt_tokens;    /* computed or cached: fewer than `count` only if it ended early */
    size_t cached_tokens, output_tokens;
    const int32_t *tokens; /* [output_tokens]; valid during the call */
    double queue_s, prefill_s, decode_s;
} lc_task_result;

/* Called on the engine thread; must not block and must not call the scheduler, except cancel. */
typedef struct lc_task_events {
    void *ctx;
    void (*started)(void *ctx,
                    size_t cached); /* left the queue; cached prompt tokens; may be NULL */
    void (*prompt)(void *ctx, size_t done, size_t count); /* prefill progress; may be NULL */
    void (*token)(void *ctx, const lc_task_token *token);
    void (*end)(void *ctx, const lc_task_result *result); /* last call, exactly one */
} lc_task_events;

typedef struct lc_task {
    const int32_t *tokens; /* prompt; copied */
    size_t count;
    lc_generation how;         /* on_token unused; strings and lists are copied */
    const lc_grammar *grammar; /* borrowed until the end event, or NULL */
    size_t top_logprobs;       /* 0..LC_TOP_LOGPROBS */
    bool logprobs;
    bool echo;       /* token events (with log probabilities) for the prompt first */
    uint64_t tenant; /* of the prompt cache */
    uint64_t key;    /* of fairness */
    bool light;      /* short: goes before others of its key (titles) */
    lc_task_events events;
} lc_task;

typedef struct lc_sched_options {
    size_t running;  /* answers generated at a time, default 16; and two light ones more */
    size_t budget;   /* rows of a step, default 512 */
    size_t waiting;  /* queue, default 256 tasks */
    size_t kv_bytes; /* memory of running sessions, each counted with all of its max_tokens; 0 =
                      * a quarter of the machine's */
    lc_cache *cache; /* borrowed, or NULL */
} lc_sched_options;

typedef struct lc_sched lc_sched;
/* The engine is borrowed and must not be used by others meanwhile. */
int lc_sched_open(lc_engine *engine, const lc_sched_options *options, lc_sched **out, lc_err *err);
/* Cancels everything and waits. */
void lc_sched_close(lc_sched *sched);

/* LC_ELIMIT: the queue is full (*id is LC_SCHED_FULL then: it may work later), or the prompt
 * doesn't fit the context or the memory (text says which). *id names the task for cancel and is set
 * before its first event. Any thread. */
#define LC_SCHED_FULL UINT64_MAX
int lc_sched_submit(lc_sched *sched, const lc_task *task, uint64_t *id, lc_err *err);
/* Tasks that can wait at a time. */
size_t lc_sched_waiting(const lc_sched *sched);
/* Ends the task within a step, with LC_TASK_CANCELED; unknown ids are ignored. Any thread. */
void lc_sched_cancel(lc_sched *sched, uint64_t id);
/* Seconds until a prompt of `count` tokens submitted now would give its first token, from measured
 * rates and what waits. Any thread. */
double lc_sched_predict(lc_sched *sched, size_t count);

typedef struct lc_sched_stats {
    size_t running, waiting, kv_bytes;
    double prefill_rate, decode_rate; /* tokens/s, moving averages */
    uint64_t prompt_tokens, cached_tokens, output_tokens, tasks[LC_TASK_FAILED + 1];
    double busy_s;
    size_t layers, entries; /* of lc_sched_experts; entries: experts and identity ones */
} lc_sched_stats;
void lc_sched_stats_get(lc_sched *sched, lc_sched_stats *out); /* any thread */
/* Tokens that chose an entry since the start: [layers][entries]. Any thread. */
void lc_sched_experts(lc_sched *sched, uint64_t *out);

#endif
