/*
 * bench.h: measured runs of an engine: prefill and decode with random tokens, with the time of each
 * stage and what the run had to read and compute. Tokens are a function of their position, so all
 * repetitions, engines and machines run the same.
 */
#ifndef LC_ENGINE_BENCH_H
#define LC_ENGINE_BENCH_H

#include "engine/cost.h"
#include "engine/engine.h"

typedef struct lc_bench_run {
    size_t tokens; /* of all sequences */
    double seconds;
    lc_op_times times; /* its stages add up to nearly all of the seconds */
    lc_cost cost;
    char logits[33]; /* XXH128 of the last logits of all sequences, in hex */
} lc_bench_run;

/* Reads every page of the checkpoint once, so that none is missing from the page tables. Does
 * nothing if the checkpoint is larger than RAM. */
void lc_bench_warm(lc_engine *engine);

/* Gives the session a list of n tokens whose cache entries are random numbers of the size that real
 * ones have: a deep context in no time. What it has of such tokens already is kept. */
int lc_bench_fill(lc_session *session, size_t n, lc_err *err);

/* Adds to *run: a new session takes n tokens. */
int lc_bench_prefill(lc_engine *engine, size_t n, lc_bench_run *run, lc_err *err);

/* Adds to *run: n sessions of the engine, at `depth` tokens each, take `steps` more, one a step. */
int lc_bench_decode(lc_session *const *sessions, size_t n, size_t depth, size_t steps,
                    lc_bench_run *run, lc_err *err);

const char *lc_stage_name(lc_stage stage); /* "routed experts" */

#endif
