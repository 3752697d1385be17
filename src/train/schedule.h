/*
 * schedule.h: the learning rate over a stage: warm-up, then a shape. A pure function of the step,
 * the same bits on every machine.
 */
#ifndef LC_TRAIN_SCHEDULE_H
#define LC_TRAIN_SCHEDULE_H

#include <stdint.h>

typedef enum lc_schedule_kind {
    LC_SCHEDULE_CONSTANT,
    LC_SCHEDULE_WSD,    /* constant, then a straight line down over the last share */
    LC_SCHEDULE_COSINE, /* half a cosine from the end of the warm-up to the end */
    LC_SCHEDULE_COUNT,
} lc_schedule_kind;

typedef struct lc_schedule {
    lc_schedule_kind kind;
    double rate;   /* the highest */
    double warmup; /* share of the steps on the way up from (nearly) 0 */
    double decay;  /* wsd: share of the steps on the way down */
    double end;    /* rate at the end, as a share of the highest */
} lc_schedule;

const char *lc_schedule_name(lc_schedule_kind kind); /* "constant", "wsd", "cosine" */

/* Rate of step 0 .. steps - 1. */
double lc_schedule_rate(const lc_schedule *schedule, int64_t step, int64_t steps);

#endif
