/* test_cmd_chat.c: `longcat chat` on a terminal. */
#include "test.h"

#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the program says until `mark`, or its end. */
static void read_until(int terminal, const char *mark, char *text, size_t size) {
    size_t len = 0;
    ssize_t n;
    do {
        n = read(terminal, text + len, size - 1 - len);
        if (n > 0) len += (size_t)n;
        text[len] = 0;
    } while (n > 0 && len < size - 1 && !strstr(text, mark));
}

/* All that is typed arrives, in every locale: the context is too small for it, and says so. */
static void letters_arrive(void **state) {
    (void)state;
    static const char *const locales[] = {"C", "C.UTF-8"};
    for (size_t i = 0; i < 2; i++) {
        char text[4096];
        int terminal;
        pid_t pid = forkpty(&terminal, NULL, NULL, NULL);
        assert_true(pid >= 0);
        if (!pid) {
            setenv("LC_ALL", locales[i], 1);
            execl(test_program(), "longcat", "chat", "models/nano", "--context", "4", (char *)NULL);
            _exit(127);
        }
        read_until(terminal, "> ", text, sizeof text);
        static const char line[] = "h\u00e9llo \u4f60\u597d\n";
        assert_int_equal(write(terminal, line, sizeof line - 1), sizeof line - 1);
        read_until(terminal, "are more than", text, sizeof text);
        const char *count = strstr(text, "longcat: ");
        assert_non_null(count);
        assert_int_equal(atoi(count + 9), 12); /* as when the line comes from a pipe */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(terminal);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(letters_arrive)};
    return test_main(tests);
}
