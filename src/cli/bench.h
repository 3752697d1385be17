/*
 * bench.h: what the parts of `longcat bench` share: one report that is shown as tables or as JSON,
 * from the same cells. A report opens with the machine, so that no number stands without it.
 */
#ifndef LC_CLI_BENCH_H
#define LC_CLI_BENCH_H

#include "base/json.h"
#include "cli/cli.h"
#include "engine/machine.h"

int lc_bench_make(int argc, char **argv);
int lc_bench_machine(int argc, char **argv);
int lc_bench_kernels(int argc, char **argv);
int lc_bench_model(int argc, char **argv);

typedef struct lc_column {
    const char *key;   /* in JSON; NULL: not there */
    const char *title; /* in the table; NULL: not there */
    int width;         /* characters; negative: to the left */
    int decimals;      /* of numbers in the table */
    double unit;       /* by which the table divides them; 0 = 1 */
} lc_column;

/* A text, or a number if text is NULL; NAN is "-", null in JSON. */
typedef struct lc_cell {
    const char *text;
    double number;
} lc_cell;

typedef struct lc_bench_report {
    bool json;
    struct json_object *root, *rows; /* rows: of the open table */
    const lc_column *columns;
    size_t n_columns;
} lc_bench_report;

/* Begins a report; prints the machine. what: "bench machine"; threads: those that are measured. */
int lc_bench_begin(lc_bench_report *r, bool json, const char *what, int threads, lc_err *err);
/* A number of the report outside of tables: "label: text" and key: value in JSON. */
void lc_bench_fact(lc_bench_report *r, const char *key, double value, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* A sentence for people; in JSON an entry of "notes". */
void lc_bench_note(lc_bench_report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The limits that the report's shares refer to. */
void lc_bench_limits(lc_bench_report *r, double read_rate, const lc_limits *limits);
/* Opens a table; columns must live until the next one. A NULL title prints none. */
void lc_bench_table(lc_bench_report *r, const char *key, const char *title,
                    const lc_column *columns, size_t n);
/* A row: as many cells as columns. */
void lc_bench_row(lc_bench_report *r, const lc_cell *cells);
/* Prints the JSON if that is wanted, and frees the report. */
void lc_bench_end(lc_bench_report *r);

/* "#####     " : value / full of `width` characters. */
const char *lc_bench_bar(char *out, size_t width, double value, double full);

#endif
