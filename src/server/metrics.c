/* metrics.c: see metrics.h. Bucket bounds are vLLM's for times, powers of four for tokens. */
#include "server/metrics.h"

static const double seconds_bounds[LC_METRIC_BUCKETS] = {
    0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.25, 2.5, 5, 10, 30, 120, 600};
static const double token_bounds[LC_METRIC_BUCKETS] = {
    1, 4, 16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 1048576};

static void observe(lc_histogram *h, const double *bounds, double value) {
    size_t i = 0;
    while (i < LC_METRIC_BUCKETS && value > bounds[i]) i++;
    h->counts[i]++;
    h->total++;
    h->sum += value;
}

void lc_metrics_seconds(lc_histogram *h, double seconds) { observe(h, seconds_bounds, seconds); }
void lc_metrics_tokens(lc_histogram *h, int64_t tokens) {
    observe(h, token_bounds, (double)tokens);
}

const char *lc_metric_end_name(lc_metric_end end) {
    static const char *const names[] = {"stop", "length", "tool_calls", "abort", "error"};
    return names[end];
}

/* Where lines go, and what stands in all of them. */
typedef struct writer {
    lc_buf *out;
    const char *prefix, *model;
} writer;

static void head(const writer *w, const char *name, const char *type, const char *help) {
    lc_buf_printf(w->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", w->prefix, name, help, w->prefix,
                  name, type);
}

static void value(const writer *w, const char *name, const char *type, const char *help,
                  double number) {
    head(w, name, type, help);
    lc_buf_printf(w->out, "%s%s{model_name=\"%s\"} %.17g\n", w->prefix, name, w->model, number);
}

static void histogram(const writer *w, const char *name, const char *help, const lc_histogram *h,
                      const double *bounds) {
    uint64_t below = 0;
    head(w, name, "histogram", help);
    for (size_t i = 0; i <= LC_METRIC_BUCKETS; i++) {
        below += h->counts[i];
        lc_buf_printf(w->out, "%s%s_bucket{model_name=\"%s\",le=\"", w->prefix, name, w->model);
        if (i < LC_METRIC_BUCKETS)
            lc_buf_printf(w->out, "%g", bounds[i]);
        else
            lc_buf_puts(w->out, "+Inf");
        lc_buf_printf(w->out, "\"} %llu\n", (unsigned long long)below);
    }
    lc_buf_printf(w->out, "%s%s_sum{model_name=\"%s\"} %.17g\n", w->prefix, name, w->model, h->sum);
    lc_buf_printf(w->out, "%s%s_count{model_name=\"%s\"} %llu\n", w->prefix, name, w->model,
                  (unsigned long long)h->total);
}

static void write_times(const lc_metrics *m, const writer *w) {
    const struct {
        const char *name, *help;
        const lc_histogram *h;
    } list[] = {
        {"time_to_first_token_seconds", "Time to the first token.", &m->first_token},
        {"inter_token_latency_seconds", "Time between tokens.", &m->between_tokens},
        {"e2e_request_latency_seconds", "Time of a whole request.", &m->whole},
        {"request_queue_time_seconds", "Time in the queue.", &m->queue},
        {"request_prefill_time_seconds", "Time of the prompt.", &m->prefill},
        {"request_decode_time_seconds", "Time of generation.", &m->decode},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        histogram(w, list[i].name, list[i].help, list[i].h, seconds_bounds);
    histogram(w, "request_prompt_tokens", "Prompt tokens of a request.", &m->prompt_tokens,
              token_bounds);
    histogram(w, "request_generation_tokens", "Generated tokens of a request.", &m->output_tokens,
              token_bounds);
}

void lc_metrics_write(const lc_metrics *m, const char *prefix, const char *model,
                      const lc_sched_stats *sched, const lc_cache_stats *cache, lc_buf *out) {
    writer w = {out, prefix, model};
    value(&w, "num_requests_running", "gauge", "Answers being generated.", (double)sched->running);
    value(&w, "num_requests_waiting", "gauge", "Requests in the queue.", (double)sched->waiting);
    value(&w, "kv_cache_bytes", "gauge", "Memory of running sessions.", (double)sched->kv_bytes);
    value(&w, "prompt_tokens_total", "counter", "Prompt tokens, cached ones included.",
          (double)m->prompt);
    value(&w, "cached_prompt_tokens_total", "counter", "Prompt tokens found in the cache.",
          (double)m->cached);
    value(&w, "generation_tokens_total", "counter", "Generated tokens.", (double)m->output);
    if (cache) {
        value(&w, "prefix_cache_queries", "counter", "Prompt tokens looked up in the cache.",
              (double)cache->queries);
        value(&w, "prefix_cache_hits", "counter", "Prompt tokens found in the cache.",
              (double)cache->hits);
        value(&w, "prefix_cache_disk_hits", "counter", "Of these, from the disk.",
              (double)cache->hits_disk);
        value(&w, "prefix_cache_ram_bytes", "gauge", "Memory of the prompt cache.",
              (double)cache->ram_bytes);
        value(&w, "prefix_cache_disk_bytes", "gauge", "Disk space of the prompt cache.",
              (double)cache->disk_bytes);
        value(&w, "prefix_cache_damaged", "counter", "Damaged cache files met.",
              (double)cache->damaged);
    }
    head(&w, "request_success_total", "counter", "Requests by how they ended.");
    for (int i = 0; i < LC_END_COUNT; i++)
        lc_buf_printf(
            out, "%srequest_success_total{model_name=\"%s\",finished_reason=\"%s\"} %llu\n", prefix,
            model, lc_metric_end_name((lc_metric_end)i), (unsigned long long)m->ends[i]);
    head(&w, "http_replies_total", "counter", "Replies by status class.");
    for (int i = 1; i < 6; i++)
        lc_buf_printf(out, "%shttp_replies_total{model_name=\"%s\",status=\"%dxx\"} %llu\n", prefix,
                      model, i, (unsigned long long)m->replies[i]);
    write_times(m, &w);
}
