/* optim_parts.h: between optim.c and muon.c. Not for other files. */
#ifndef LC_TRAIN_OPTIM_PARTS_H
#define LC_TRAIN_OPTIM_PARTS_H

#include "train/optim.h"

enum { LC_OPTIM_PIECE = 4096 }; /* elements that are summed in a row */

static inline size_t lc_optim_pieces(size_t n) { return (n + LC_OPTIM_PIECE - 1) / LC_OPTIM_PIECE; }
/* Sum of squares; sums: room for lc_optim_pieces(n). */
double lc_optim_squares(lc_pool *pool, size_t n, const float *x, double *sums);
bool lc_optim_trains(const lc_param *param, const bool trained[LC_OPTIM_PARTS]);
bool lc_optim_by_muon(const lc_optim *optim, const lc_param *param);
double lc_optim_rate(const lc_optim *optim, const lc_param *param, double lr);

typedef struct lc_muon_step {
    const float *grad;
    const bool *trained;
    double scale, lr;
} lc_muon_step;

/* All of Muon's tensors. Products may run out of memory: then weights may have moved in part.  */
int lc_muon(lc_optim *optim, const lc_muon_step *step, lc_err *err);

#endif
