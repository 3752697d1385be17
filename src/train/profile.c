/* profile.c: names of the parts. */
#include "train/profile.h"

const char *lc_lap_name(lc_lap part) {
    static const char *const names[LC_LAPS] = {
        "data",      "embedding",       "norms, residual", "attention projections",
        "attention", "indexer",         "dense FFN",       "router, gather",
        "experts",   "head, losses",    "gradient lanes",  "norm, AdamW",
        "Muon",      "average, copies",
    };
    return part < LC_LAPS ? names[part] : "unknown";
}
