/* progress.c: progress of long commands; see progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { REDRAW_MS = 200, RATE_MS = 10000 };

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

const char *lc_show_bytes(char out[32], double bytes) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    for (; bytes >= 1000 && unit < 4; unit++) bytes /= 1000;
    snprintf(out, 32, unit && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

const char *lc_show_time(char out[32], double seconds) {
    if (seconds > 360000) {
        snprintf(out, 32, "days");
        return out;
    }
    unsigned long long s = (unsigned long long)seconds;
    if (s >= 3600)
        snprintf(out, 32, "%llu:%02llu:%02llu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 32, "%llu:%02llu", s / 60, s % 60);
    return out;
}

void lc_progress_begin(lc_progress *p, uint64_t plain_ms) {
    *p = (lc_progress){.terminal = isatty(STDERR_FILENO) == 1, .plain = plain_ms};
    sigemptyset(&p->signals);
    sigaddset(&p->signals, SIGINT);
    sigaddset(&p->signals, SIGTERM);
    sigaddset(&p->signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &p->signals, &p->before);
}

void lc_progress_clear(lc_progress *p) {
    if (p->line_open) fputs("\r\033[K", stderr);
    p->line_open = false;
}

void lc_progress_end(lc_progress *p) {
    lc_progress_clear(p);
    sigprocmask(SIG_SETMASK, &p->before, NULL);
}

double lc_progress_rate(lc_progress *p, uint64_t done) {
    uint64_t now = now_ms();
    size_t old = p->n_samples == LC_PROGRESS_SAMPLES; /* one sample older than the window is kept */
    while (old + 1 < p->n_samples && now - p->samples[old + 1].time > RATE_MS) old++;
    p->n_samples -= old;
    memmove(p->samples, p->samples + old, p->n_samples * sizeof *p->samples);
    p->samples[p->n_samples].time = now;
    p->samples[p->n_samples++].done = done;
    uint64_t time = now - p->samples[0].time;
    return time ? 1000 * (double)(done - p->samples[0].done) / (double)time : 0;
}

bool lc_progress_due(const lc_progress *p) {
    return !p->drawn || now_ms() - p->drawn >= (p->terminal ? (uint64_t)REDRAW_MS : p->plain);
}

static char *last_gap(char *line, size_t len) {
    while (len-- > 1)
        if (line[len - 1] == ' ' && line[len] == ' ') return line + len - 1;
    return NULL;
}

/* Drops fields, the one before the last first, until the line fits. */
static void fit(char *line, size_t columns) {
    while (strlen(line) > columns) {
        char *last = last_gap(line, strlen(line));
        char *before = last ? last_gap(line, (size_t)(last - line)) : NULL;
        if (!before || before == line) return;
        memmove(before, last, strlen(last) + 1);
    }
}

void lc_progress_draw(lc_progress *p, const char *text) {
    struct winsize size;
    p->drawn = now_ms();
    if (!p->terminal) {
        lc_progress_print(p, text);
        return;
    }
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    char line[512];
    snprintf(line, sizeof line, "%s", text);
    fit(line, (size_t)columns - 1);
    /* Cut by bytes: a name in another script may lose more than needed, never less. */
    fprintf(stderr, "\r%.*s\033[K", columns - 1, line);
    fflush(stderr);
    p->line_open = true;
}

void lc_progress_print(lc_progress *p, const char *text) {
    fprintf(stderr, "%s%s%s\n", p->line_open ? "\r" : "", text, p->terminal ? "\033[K" : "");
    p->line_open = false;
}

bool lc_progress_interrupted(const lc_progress *p) {
    const struct timespec now = {0, 0};
    return sigtimedwait(&p->signals, NULL, &now) > 0;
}
