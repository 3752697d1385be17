/* forward.h: the one forward pass, of the main model and of the draft module. */
#ifndef LC_MODEL_FORWARD_H
#define LC_MODEL_FORWARD_H

#include "model/work.h"

typedef struct lc_step {
    const lc_row *rows; /* [m], m <= work->size.rows; the rows of one sequence stand together,
                           positions increasing */
    size_t m;
    const size_t *logit_rows; /* rows whose logits are wanted, [n_logits] */
    size_t n_logits;
    float *logits;         /* [n_logits][V] */
    const lc_probe *probe; /* may be NULL */
} lc_step;

/* Runs the rows through the model; work->hidden then holds [m][H] after the final norm. Caches must
 * have blocks for all positions, and hold all earlier ones. Errors: LC_EIO from streamed weights.
 */
int lc_forward(const lc_model *model, lc_work *work, const lc_step *step, lc_err *err);

/* One draft step (spec 2.7). step->rows: tokens[at] is the token after the row's hidden; caches of
 * the draft module. */
typedef struct lc_draft {
    const float *previous; /* [m][H] hidden of the main model, or of the draft step before */
    const lc_keys *keys;   /* NULL: step 1, the module's indexer chooses (work->index then holds the
                            * choice);   else the choice to use; keys->list NULL: every causal key */
} lc_draft;
int lc_mtp_forward(const lc_model *model, lc_work *work, const lc_step *step, const lc_draft *draft,
                   lc_err *err);

#endif
