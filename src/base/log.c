/*
 * log.c: the sink and its lock. The highest level stands in an atomic of its own, so that a message
 * that nobody wants costs one load.
 */
#include "base/log.h"
#include "base/utf8.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

static struct {
    pthread_mutex_t lock; /* for sink and ctx, and held while the sink runs */
    lc_log_sink *sink;
    void *ctx;
    atomic_int most; /* -1 = off */
} log_state = {.lock = PTHREAD_MUTEX_INITIALIZER, .most = -1};

void lc_log_set(lc_log_level most, lc_log_sink *sink, void *ctx) {
    pthread_mutex_lock(&log_state.lock);
    log_state.sink = sink;
    log_state.ctx = ctx;
    atomic_store(&log_state.most, sink ? (int)most : -1);
    pthread_mutex_unlock(&log_state.lock);
}

bool lc_log_enabled(lc_log_level level) {
    return (int)level <= atomic_load_explicit(&log_state.most, memory_order_relaxed);
}

void lc_log(lc_log_level level, const char *fmt, ...) {
    if (!lc_log_enabled(level)) return;
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    lc_utf8_tame(text, false);
    pthread_mutex_lock(&log_state.lock);
    if (log_state.sink && lc_log_enabled(level)) log_state.sink(log_state.ctx, level, text);
    pthread_mutex_unlock(&log_state.lock);
}

const char *lc_log_level_name(lc_log_level level) {
    static const char *const names[] = {"error", "warn", "info", "debug"};
    return (unsigned)level <= LC_LOG_DEBUG ? names[level] : "unknown";
}
