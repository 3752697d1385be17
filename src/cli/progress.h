/*
 * progress.h: progress of long commands on stderr, and stopping them. On a terminal one line is
 * redrawn; elsewhere a line is printed now and then. SIGINT, SIGTERM and SIGHUP are held back
 * between begin and end, so that the command can clean up: it asks lc_progress_interrupted.
 */
#ifndef LC_CLI_PROGRESS_H
#define LC_CLI_PROGRESS_H

#include "longcat.h"

#include <signal.h>

enum { LC_PROGRESS_SAMPLES = 50 };

typedef struct lc_progress {
    bool terminal;
    bool line_open; /* the cursor stands behind a line that may be redrawn */
    uint64_t drawn; /* ms of the last line */
    uint64_t plain; /* ms between lines where there is no terminal */
    sigset_t signals, before;
    struct {
        uint64_t time, done;
    } samples[LC_PROGRESS_SAMPLES]; /* of the last seconds, oldest first */
    size_t n_samples;
} lc_progress;

void lc_progress_begin(lc_progress *p, uint64_t plain_ms);
void lc_progress_clear(lc_progress *p); /* removes the open line */
void lc_progress_end(lc_progress *p);

/* Notes that `done` bytes are done now; bytes a second over the last ten seconds, 0 while nothing
 * is known. */
double lc_progress_rate(lc_progress *p, uint64_t done);
/* Whether it is time for another line. */
bool lc_progress_due(const lc_progress *p);
/* Redraws the line, or prints one. Its fields lie two spaces apart; a narrow terminal doesn't show
 * those before the last one, which should be the time left. */
void lc_progress_draw(lc_progress *p, const char *text);
/* Prints a line that stays. */
void lc_progress_print(lc_progress *p, const char *text);
/* True if one of the signals has come. */
bool lc_progress_interrupted(const lc_progress *p);

/* "1.2 GB"; "1:02:03" or "2:03". */
const char *lc_show_bytes(char out[32], double bytes);
const char *lc_show_time(char out[32], double seconds);

#endif
