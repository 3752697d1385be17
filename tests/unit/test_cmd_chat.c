/* test_cmd_chat.c: `longcat chat` on a terminal and on a pipe. */
#include "test.h"

#include <poll.h>
#include <pty.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { WAIT_MS = 60000, SHORT_MS = 300 };

typedef struct chat {
    pid_t pid;
    int terminal;
    char text[8192]; /* what it said last */
} chat;

/* Starts a conversation with models/nano, long answers, and `option value`. */
static void start(chat *c, const char *locale, const char *option, const char *value) {
    c->pid = forkpty(&c->terminal, NULL, NULL, NULL);
    assert_true(c->pid >= 0);
    if (c->pid) return;
    setenv("LC_ALL", locale, 1);
    execl(test_program(), "longcat", "chat", "models/nano", "-n", "100000", option, value,
          (char *)NULL);
    _exit(127);
}

/* What the program says until `mark`. */
static void read_until(chat *c, const char *mark) {
    size_t len = 0;
    struct pollfd poll_it = {.fd = c->terminal, .events = POLLIN};
    ssize_t n;
    c->text[0] = 0;
    do {
        if (poll(&poll_it, 1, WAIT_MS) != 1) fail_msg("no \"%s\" in \"%s\"", mark, c->text);
        n = read(c->terminal, c->text + len, sizeof c->text - 1 - len);
        if (n > 0) len += (size_t)n;
        c->text[len] = 0;
        if (n <= 0) fail_msg("it ended without \"%s\": \"%s\"", mark, c->text);
        if (len > sizeof c->text / 2) { /* a long answer: its end is enough */
            memmove(c->text, c->text + len / 2, len - len / 2 + 1);
            len -= len / 2;
        }
    } while (!strstr(c->text, mark));
}

static void type(const chat *c, const char *keys) {
    assert_int_equal(write(c->terminal, keys, strlen(keys)), (ssize_t)strlen(keys));
}

/* A prompt, at which keys are what they are at any time: the editor has taken the terminal. */
static void read_prompt(chat *c, const char *mark) {
    struct termios mode;
    read_until(c, mark);
    for (int ms = 0; ms < WAIT_MS; ms++) {
        assert_int_equal(tcgetattr(c->terminal, &mode), 0);
        if (!(mode.c_lflag & ICANON)) return;
        usleep(1000);
    }
    fail_msg("the line is not edited");
}

/* It ends by itself. */
static void ends(chat *c) {
    int how = end_of(c->pid);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    close(c->terminal);
}

static void said(const chat *c, const char *words) {
    if (!strstr(c->text, words)) fail_msg("no \"%s\" in \"%s\"", words, c->text);
}

static void kill_it(chat *c) {
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
    close(c->terminal);
}

/* All that is typed arrives, in every locale: the context is too small for it, and says so. */
static void letters_arrive(void **state) {
    (void)state;
    static const char *const locales[] = {"C", "C.UTF-8"};
    for (size_t i = 0; i < 2; i++) {
        chat c;
        start(&c, locales[i], "--context", "4");
        read_prompt(&c, "> ");
        type(&c, "h\u00e9llo \u4f60\u597d\n");
        read_prompt(&c, "starts over\r\n> ");
        said(&c, "/reset");
        const char *count = strstr(c.text, "longcat: ");
        assert_non_null(count);
        assert_int_equal(atoi(count + 9), 12); /* as when the line comes from a pipe */
        kill_it(&c);
    }
}

/* Each line has tokens of its own, so that their number tells whether both were taken as one. */
static void lines_join(void **state) {
    (void)state;
    chat c;
    start(&c, "C", "--context", "1");
    read_prompt(&c, "> ");
    type(&c, "one\n");
    read_prompt(&c, "starts over\r\n> ");
    int one = atoi(strstr(c.text, "longcat: ") + 9);
    type(&c, "one\\\n");
    read_prompt(&c, "\r\n. ");
    type(&c, "one\n");
    read_prompt(&c, "starts over\r\n> ");
    assert_true(atoi(strstr(c.text, "longcat: ") + 9) > one);
    type(&c, "one\\\n");
    read_prompt(&c, "\r\n. ");
    type(&c, "\x03"); /* drops the first line too */
    read_prompt(&c, "> ");
    type(&c, "one\n");
    read_prompt(&c, "starts over\r\n> ");
    assert_int_equal(atoi(strstr(c.text, "longcat: ") + 9), one);
    kill_it(&c);
}

static void commands(void **state) {
    (void)state;
    chat c;
    start(&c, "C", "--context", "4");
    read_prompt(&c, "> ");
    type(&c, "/help\n");
    read_prompt(&c, "\r\n> ");
    said(&c, "/reset ");
    said(&c, "/exit ");
    said(&c, "Ctrl-C");
    said(&c, "backslash");
    type(&c, "/rest now\n");
    read_prompt(&c, "\r\n> ");
    said(&c, "/rest is no command; /help lists them");
    type(&c, "\x10\n"); /* the line before */
    read_prompt(&c, "\r\n> ");
    said(&c, "/rest is no command; /help lists them");
    type(&c, "/usr/bin is what?\n");
    read_prompt(&c, "\r\n> ");
    said(&c, "are more than");
    type(&c, "/reset\n");
    read_prompt(&c, "\r\n> ");
    type(&c, "/exit\n");
    ends(&c);
}

/* A key like others: none is lost, before it or behind it, however fast they come. */
static void ctrl_c_at_the_prompt(void **state) {
    (void)state;
    chat c;
    start(&c, "C", "--context", "4");
    read_prompt(&c, "> ");
    for (int i = 0; i < 20; i++) {
        type(&c, "/exit\x03");
        read_prompt(&c, "\r\n> ");
    }
    type(&c, "/exit\x03/help\n");
    read_prompt(&c, "in the next one.\r\n> ");
    type(&c, "/reset\x03\x04");
    ends(&c);
}

/* A prompt that takes seconds. */
static void ctrl_c_in_the_prompt(void **state) {
    (void)state;
    static const char words[] = "The word. ";
    enum { TIMES = 12000 };
    char *text = calloc(TIMES, sizeof words);
    assert_non_null(text);
    for (size_t i = 0; i < TIMES; i++) memcpy(text + i * (sizeof words - 1), words, sizeof words);
    chat c;
    start(&c, "C", "--system", text);
    read_prompt(&c, "> ");
    type(&c, "hello\n");
    read_until(&c, "hello\r\n");
    usleep(SHORT_MS * 1000);
    type(&c, "\x03");
    read_prompt(&c, "> ");
    said(&c, "longcat: stopped");
    assert_null(strstr(c.text, "cut off"));
    type(&c, "/help\n"); /* and it goes on */
    read_prompt(&c, "\r\n> ");
    said(&c, "/exit");
    kill_it(&c);
    free(text);
}

/* So hot that it goes on until it is stopped. */
static void ctrl_c_in_an_answer(void **state) {
    (void)state;
    chat c;
    start(&c, "C", "--temperature", "20");
    read_prompt(&c, "> ");
    type(&c, "hello\n");
    read_until(&c, "hello\r\n");
    struct pollfd answer = {.fd = c.terminal, .events = POLLIN};
    assert_int_equal(poll(&answer, 1, WAIT_MS), 1); /* it has begun */
    type(&c, "\x03");
    read_prompt(&c, "[cut off]\r\n> ");
    type(&c, "/help\n");
    read_until(&c, "/exit");
    kill_it(&c);
}

static int run_on_pipe(const char *input, const char *options) {
    char line[512];
    snprintf(line, sizeof line, "printf '%s' | %s chat models/nano %s >/dev/null 2>&1", input,
             test_program(), options);
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void pipe_fails(void **state) {
    (void)state;
    assert_int_equal(run_on_pipe("a long line for so small a context\\n", "--context 4"), 1);
    assert_int_equal(run_on_pipe("/reset\\n/help\\n", "--context 4"), 0);
    assert_int_equal(run_on_pipe("hello\\n/exit\\n", "-n 2"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_arrive),
        cmocka_unit_test(lines_join),
        cmocka_unit_test(commands),
        cmocka_unit_test(ctrl_c_at_the_prompt),
        cmocka_unit_test(ctrl_c_in_the_prompt),
        cmocka_unit_test(ctrl_c_in_an_answer),
        cmocka_unit_test(pipe_fails),
    };
    return test_main(tests);
}
