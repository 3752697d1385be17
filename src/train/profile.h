/*
 * profile.h: where the time of a training step goes. The clock is read between operators, by the
 * thread that runs them, and only when somebody measures; the time since the lap before belongs to
 * the part that is named. Products count their own operations (lc_space), which join the part of
 * the next lap.
 */
#ifndef LC_TRAIN_PROFILE_H
#define LC_TRAIN_PROFILE_H

#include "base/clock.h"

#include <stdbool.h>

typedef enum lc_lap {
    LC_LAP_DATA,    /* sequences of the step */
    LC_LAP_EMBED,   /* word and n-gram rows, their projections, a draft step's input */
    LC_LAP_NORMS,   /* norms, and sums of the residual stream */
    LC_LAP_PROJECT, /* attention's projections, norms and rotation */
    LC_LAP_ATTEND,  /* scores, softmax and context */
    LC_LAP_INDEX,   /* choice of keys, and the indexer's loss */
    LC_LAP_DENSE,
    LC_LAP_ROUTE,   /* router, choice, gathering and adding up of experts' rows */
    LC_LAP_EXPERTS, /* products and activation */
    LC_LAP_LOSSES,  /* head, cross entropy, hidden z */
    LC_LAP_LANES,   /* clearing and adding up gradients */
    LC_LAP_ADAM,    /* norm of the gradient, and AdamW */
    LC_LAP_MUON,
    LC_LAP_AFTER, /* averages of weights, weights in the compute type */
    LC_LAPS,
} lc_lap;

typedef struct lc_profile {
    bool back;     /* what is timed belongs to the backward pass */
    uint64_t last; /* clock at the end of the lap before */
    struct {
        uint64_t ns;
        double operations; /* multiplications and additions of products */
    } of[2][LC_LAPS];      /* forward and what is neither; backward */
} lc_profile;

const char *lc_lap_name(lc_lap part);

/* The clock starts; nothing is counted. profile may be NULL in all of these. */
static inline void lc_profile_start(lc_profile *profile) {
    if (profile) profile->last = lc_clock_ns();
}
/* *operations joins the part and becomes 0; NULL: none. */
static inline void lc_profile_lap(lc_profile *profile, lc_lap part, double *operations) {
    if (!profile) return;
    uint64_t now = lc_clock_ns();
    profile->of[profile->back][part].ns += now - profile->last;
    profile->last = now;
    if (!operations) return;
    profile->of[profile->back][part].operations += *operations;
    *operations = 0;
}
static inline void lc_profile_turn(lc_profile *profile, bool back) {
    if (profile) profile->back = back;
}

#endif
