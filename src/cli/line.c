/*
 * line.c: see line.h. While a line is edited Ctrl-C is a key like others: as a signal it would be
 * lost between two reads, and what was typed before it with it.
 */
#include "cli/line.h"

#include "base/mem.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>

enum { HISTORY = 1000 }; /* lines */

struct lc_line {
    EditLine *editor;
    History *history;
    const char *prompt;
    bool cleared;
};

static const char *prompt_of(EditLine *editor) {
    lc_line *line;
    el_get(editor, EL_CLIENTDATA, &line);
    return line->prompt;
}

static unsigned char on_ctrl_c(EditLine *editor, int key) {
    lc_line *line;
    (void)key;
    el_get(editor, EL_CLIENTDATA, &line);
    line->cleared = true;
    return CC_EOF;
}

int lc_line_open(lc_line **out, lc_err *err) {
    HistEvent event;
    lc_line *line = lc_calloc(1, sizeof *line);
    *out = line;
    if (!line) return lc_fail(err, LC_ENOMEM, "out of memory");
    setlocale(LC_CTYPE, "C.UTF-8"); /* else what isn't ASCII is dropped */
    line->history = history_init();
    line->editor = el_init("longcat", stdin, stdout, stderr);
    if (!line->history || !line->editor) {
        lc_line_close(line);
        *out = NULL;
        return lc_fail(err, LC_ENOMEM, "out of memory");
    }
    history(line->history, &event, H_SETSIZE, HISTORY);
    el_set(line->editor, EL_CLIENTDATA, line);
    el_set(line->editor, EL_HIST, history, line->history);
    el_set(line->editor, EL_PROMPT, prompt_of);
    el_set(line->editor, EL_EDITOR, "emacs");
    el_set(line->editor, EL_SIGNAL, 1);
    el_set(line->editor, EL_BIND, "^I", "ed-insert", NULL);
    el_set(line->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(line->editor, NULL); /* the person's own keys, ~/.editrc */
    el_set(line->editor, EL_ADDFN, "clear-line", "drop what was typed", on_ctrl_c);
    el_set(line->editor, EL_BIND, "^C", "clear-line", NULL);
    /* no signal from a key: now, and when the terminal's keys are read again */
    el_set(line->editor, EL_SETTY, "-d", "intr=", "-intr", NULL);
    return LC_OK;
}

void lc_line_close(lc_line *line) {
    if (!line) return;
    if (line->editor) el_end(line->editor);
    if (line->history) history_end(line->history);
    lc_free(line);
}

lc_line_end lc_line_read(lc_line *line, const char *prompt, lc_buf *out) {
    HistEvent event;
    int len = 0;
    line->prompt = prompt;
    line->cleared = false;
    const char *text = el_gets(line->editor, &len);
    /* on a terminal whose interrupt key is another one, that is a signal */
    if (line->cleared || (len < 0 && errno == EINTR)) return LC_LINE_CLEARED;
    if (!text || len <= 0) return LC_LINE_OVER;
    if (len > 1) history(line->history, &event, H_ENTER, text);
    lc_buf_append(out, text, (size_t)len - (text[len - 1] == '\n'));
    return LC_LINE_TYPED;
}
