/*
 * runlog.h: RUN/log.jsonl: a line a step, for `longcat train report` and whatever else reads JSON.
 * A run that goes on from a checkpoint drops the lines behind it first.
 */
#ifndef LC_TRAIN_RUNLOG_H
#define LC_TRAIN_RUNLOG_H

#include "train/loop.h"

#define LC_RUNLOG_NAME "log.jsonl"

typedef struct lc_runlog lc_runlog;

/* Keeps lines with a step up to `step`. */
int lc_runlog_open(const char *run, int64_t step, lc_runlog **out, lc_err *err);
void lc_runlog_close(lc_runlog *log);
/* Every `LC_RUNLOG_LOADS`th step also has the experts' loads. Failures are told once in the log of
 * the program, never returned: training doesn't stop for them. */
enum { LC_RUNLOG_LOADS = 20 };
void lc_runlog_step(lc_runlog *log, const lc_step_report *report);
void lc_runlog_eval(lc_runlog *log, int64_t step, double loss);

#endif
