/* line.h: lines that a person types at a terminal, with editing and history. */
#ifndef LC_CLI_LINE_H
#define LC_CLI_LINE_H

#include "base/buf.h"
#include "base/err.h"

typedef struct lc_line lc_line;

typedef enum lc_line_end {
    LC_LINE_TYPED,
    LC_LINE_CLEARED, /* Ctrl-C: what was typed is dropped */
    LC_LINE_OVER,    /* Ctrl-D at an empty line, or the terminal is gone */
} lc_line_end;

/* For standard input and output, which must be terminals. Sets the locale's characters to UTF-8.
 * LC_ENOMEM */
int lc_line_open(lc_line **out, lc_err *err);
void lc_line_close(lc_line *line); /* NULL is fine */

/* Appends what was typed, without a newline, to `out`; nothing unless LC_LINE_TYPED. */
lc_line_end lc_line_read(lc_line *line, const char *prompt, lc_buf *out);

#endif
