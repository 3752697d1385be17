/* loop_parts.h: between loop.c (the run), loop_stage.c (a stage's net and data) and loop_log.c. Not
 * for other files. */
#ifndef LC_TRAIN_LOOP_PARTS_H
#define LC_TRAIN_LOOP_PARTS_H

#include "train/checkpoint.h"
#include "train/lanes.h"
#include "train/loop.h"

/* A stage at work. */
typedef struct lc_stage {
    const lc_recipe_stage *s;
    lc_train_data *data;
    lc_net *net;
    lc_loss_weights weights;
    bool trained[LC_OPTIM_PARTS];
    size_t mtp_steps, rows;   /* rows: of a lane */
    int32_t *tokens, *starts; /* [batch][context] */
    uint8_t *mask;
    int64_t *experts; /* [layers][experts + zero] of a step */
} lc_stage;

/* Where the sources of earlier stages have stopped. */
typedef struct lc_source_use {
    const char *folder;
    bool whole;
    uint64_t used;
} lc_source_use;

typedef struct lc_run {
    const lc_recipe *r;
    const lc_train_run_options *o;
    lc_params *params;
    lc_optim *optim;
    lc_lanes *lanes;
    lc_checkpoint_place at;
    lc_source_use *uses;
    size_t n_uses, chained; /* stages that uses has */
    int lock, log;
    bool log_failed;
    uint64_t tried; /* step of the newest checkpoint, written or not; UINT64_MAX: none */
    lc_train_run_result *result;
    lc_err *err;
} lc_run;

void lc_run_note(const lc_run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Opens the data of every stage and compares it with the model: before anything runs. */
int lc_stage_check_all(lc_run *run);
int lc_stage_open(lc_run *run, size_t stage, lc_stage *out);
void lc_stage_close(lc_stage *stage);
/* Reads the sequences of the step that run->at is before. */
int lc_stage_read(lc_run *run, lc_stage *stage);
lc_batch lc_stage_batch(const lc_stage *stage, size_t lane);

/* Opens log.jsonl and cuts what lies behind step run->at.total. */
int lc_log_open(lc_run *run);
void lc_log_step(lc_run *run, const lc_stage *stage, const lc_train_progress *p,
                 const lc_losses *losses, double seconds);
/* Mean routed experts a token and layer; *load: the busiest expert's tokens over the mean. */
double lc_stage_routed(const lc_run *run, const lc_stage *stage, double *load);

#endif
