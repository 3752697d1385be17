/*
 * schedule.h: rates over the steps of a stage, and of the expert-bias controller. Pure functions of
 * step numbers, with the same bits on every machine (no libm).
 */
#ifndef LC_TRAIN_SCHEDULE_H
#define LC_TRAIN_SCHEDULE_H

#include "longcat.h"

typedef enum lc_schedule_kind {
    LC_SCHEDULE_CONSTANT,
    LC_SCHEDULE_COSINE, /* half a cosine from lr to lr_end */
    LC_SCHEDULE_WSD,    /* lr, and over the last `cooldown` steps linearly to lr_end */
} lc_schedule_kind;

typedef struct lc_schedule {
    lc_schedule_kind kind;
    double lr, lr_end;
    uint64_t steps;    /* of the stage */
    uint64_t warmup;   /* rises linearly over these; the first step has lr / warmup */
    uint64_t cooldown; /* WSD only */
} lc_schedule;

/* Of step 0 .. steps - 1. */
double lc_schedule_rate(const lc_schedule *schedule, uint64_t step);

/* first, halved every `halving` steps (0 = never), not below floor. step: of the run. */
double lc_bias_rate(double first, uint64_t halving, double floor, uint64_t step);

#endif
