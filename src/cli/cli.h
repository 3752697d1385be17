/*
 * cli.h: what every subcommand shares: its entry in the table of main.c, option parsing with a
 * generated --help, and the way to report failure. Only code in cli/ prints or exits.
 */
#ifndef LC_CLI_CLI_H
#define LC_CLI_CLI_H

#include "base/buf.h"
#include "base/err.h"

#include <stdio.h>

enum { LC_EXIT_OK = 0, LC_EXIT_FAILED = 1, LC_EXIT_USAGE = 2 };

typedef enum lc_opt_kind {
    LC_OPT_FLAG,   /* bool *, set to true */
    LC_OPT_STRING, /* const char ** */
    LC_OPT_INT,    /* int64_t *, min <= value <= max */
    LC_OPT_FLOAT,  /* double *, min <= value <= max */
    LC_OPT_LIST,   /* lc_opt_list *, may be repeated */
} lc_opt_kind;

typedef struct lc_opt_list {
    const char *items[64];
    size_t count;
    bool closed; /* nothing is added any more */
} lc_opt_list;

typedef struct lc_opt {
    const char *name; /* "max-tokens"; a table ends with a NULL name */
    char letter;      /* 'n' for -n, 0 for none */
    lc_opt_kind kind;
    void *target;
    const char *arg;  /* shown in help: "N"; NULL for flags */
    const char *help; /* one sentence; the default value belongs in it */
    double min, max;  /* INT and FLOAT only */
} lc_opt;

typedef struct lc_usage {
    const char
        *synopsis; /* "longcat tokenize MODEL|tokenizer.json --jsonl [--decode [--stream]]" */
    const char *description; /* paragraphs for --help */
    const lc_opt *options;
    int min_args, max_args; /* positional arguments */
} lc_usage;

/*
 * Parses argv (argv[0] is the subcommand's name). Positional arguments may stand anywhere; "--"
 * ends options. Fills the targets and args[0..*n_args). Returns -1 to go on, else an exit code: 0
 * after --help, LC_EXIT_USAGE after an error.
 */
int lc_cli_parse(const lc_usage *usage, int argc, char **argv, const char **args, int *n_args);

/* Puts a value into an option's target: text NULL for a flag that was given. False after a message
 * "WHERENAME: ..." about what is no such value. */
bool lc_cli_store(const lc_opt *option, const char *where, const char *text);

/* The check of a required option ("--out"): -1 if it was given, else a message and LC_EXIT_USAGE.
 */
int lc_cli_need(const char *value, const char *option);

/* Prints "longcat: text" to stderr and returns LC_EXIT_FAILED. */
int lc_cli_fail(const lc_err *err);

/* All of standard input, at most `limit` bytes, appended to text. */
int lc_cli_stdin(size_t limit, lc_buf *text, lc_err *err);

/* Appends text as a JSON string with its quotes; UTF-8 stays as it is. */
bool lc_cli_put_json(lc_buf *out, const char *text, size_t len);

/*
 * A filter over lines of JSON: calls `answer` for each line of standard input and prints what it
 * appended to `out` (empty at the call) and a newline, at once, since a caller may wait for it.
 * Where answer fails, the line printed is
 * {"error":TEXT} unless it left something in out, and the run goes on. Returns the exit code.
 */
typedef int lc_cli_answer(void *ctx, const lc_buf *line, lc_buf *out, lc_err *err);
int lc_cli_filter(lc_cli_answer *answer, void *ctx);

/* Reads one line of any length from a stream, without its newline. false at the end. buf is reused.
 */
bool lc_cli_line(FILE *file, lc_buf *buf);

/* Appends the numbers of "1,2,3" (a comma or spaces between them). LC_EINVAL names `what`, such as
 * an option. */
int lc_cli_ids(const char *what, const char *text, lc_ids *out, lc_err *err);

/* A command with subcommands: `longcat PARENT NAME ...`. The table ends with a NULL name. Runs the
 * one that argv[1] names, or prints the table; hint: a last sentence of it, or "". Returns the exit
 * code. */
typedef struct lc_subcommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} lc_subcommand;
int lc_cli_subcommand(const char *parent, const lc_subcommand *table, const char *hint, int argc,
                      char **argv);

int lc_cmd_run(int argc, char **argv);
int lc_cmd_chat(int argc, char **argv);
int lc_cmd_inspect(int argc, char **argv);
int lc_cmd_tokenize(int argc, char **argv);
int lc_cmd_template(int argc, char **argv);
int lc_cmd_parse(int argc, char **argv);
int lc_cmd_eval(int argc, char **argv);
int lc_cmd_pull(int argc, char **argv);
int lc_cmd_quantize(int argc, char **argv);
int lc_cmd_pack(int argc, char **argv);
int lc_cmd_bench(int argc, char **argv);
int lc_cmd_train(int argc, char **argv);
int lc_cmd_serve(int argc, char **argv);
int lc_cmd_keys(int argc, char **argv);
int lc_cmd_usage(int argc, char **argv);

#endif
