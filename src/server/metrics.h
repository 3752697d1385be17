/*
 * metrics.h: counters and histograms in Prometheus text, under vLLM's names with a prefix of one's
 * own choice, so that existing dashboards and routers work. On the loop thread only.
 */
#ifndef LC_SERVER_METRICS_H
#define LC_SERVER_METRICS_H

#include "engine/sched.h"

enum { LC_METRIC_BUCKETS = 16 };

typedef struct lc_histogram {
    uint64_t counts[LC_METRIC_BUCKETS + 1], total;
    double sum;
} lc_histogram;

typedef enum lc_metric_end {
    LC_END_STOP,
    LC_END_LENGTH,
    LC_END_CALLS,
    LC_END_ABORT,
    LC_END_ERROR,
    LC_END_COUNT,
} lc_metric_end;

typedef struct lc_metrics {
    lc_histogram first_token, between_tokens, whole, queue, prefill, decode; /* seconds */
    lc_histogram prompt_tokens, output_tokens;
    uint64_t prompt, cached, output; /* tokens */
    uint64_t ends[LC_END_COUNT];
    uint64_t replies[6]; /* by hundreds of the HTTP status */
} lc_metrics;

void lc_metrics_seconds(lc_histogram *h, double seconds);
void lc_metrics_tokens(lc_histogram *h, int64_t tokens);
/* cache may be NULL. */
void lc_metrics_write(const lc_metrics *m, const char *prefix, const char *model,
                      const lc_sched_stats *sched, const lc_cache_stats *cache, lc_buf *out);
const char *lc_metric_end_name(lc_metric_end end);

#endif
