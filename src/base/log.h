/*
 * log.h: messages for the person who runs the program. The library says nothing by itself: a text
 * goes to the sink that the program has set (the command line's writes to stderr), and to nobody
 * when there is none. Results and errors don't pass here; those are return values and lc_err.
 */
#ifndef LC_BASE_LOG_H
#define LC_BASE_LOG_H

#include "longcat.h"

typedef enum lc_log_level { LC_LOG_ERROR, LC_LOG_WARN, LC_LOG_INFO, LC_LOG_DEBUG } lc_log_level;

/* One message without a newline, valid UTF-8. Control characters in it are replaced by '?', since
 * names from files stand in it and it may end on a terminal. Called by any thread, but one call at
 * a time; must not log itself. */
typedef void lc_log_sink(void *ctx, lc_log_level level, const char *text);

/* Messages up to level `most` go to sink from now on. A NULL sink switches the log off. */
void lc_log_set(lc_log_level most, lc_log_sink *sink, void *ctx);

/* Whether a message of this level would reach anyone; for messages that are dear to make. */
bool lc_log_enabled(lc_log_level level);

/* Formats and delivers a message; more than 1,023 bytes are cut. */
void lc_log(lc_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

const char *lc_log_level_name(lc_log_level level); /* "error", "warn", "info", "debug" */

#endif
