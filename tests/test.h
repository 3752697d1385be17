/*
 * test.h: what every test program includes. Programs use cmocka, print TAP, and run from the
 * project's root, so data paths are relative ("tests/golden/..."). test_main(tests) is main's body.
 */
#ifndef LC_TESTS_TEST_H
#define LC_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The program under test; tests/run sets it to the right build. */
static inline const char *test_program(void) {
    const char *path = getenv("LONGCAT");
    return path ? path : "build/longcat";
}

/* How a child ended (waitpid's status). One that goes on for a minute is killed and fails the test,
 * so that the others are run. */
static inline int end_of(pid_t child) {
    int status = 0;
    for (int ms = 0; ms < 60000; ms++) {
        if (waitpid(child, &status, WNOHANG) == child) return status;
        usleep(1000);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    fail_msg("process %d went on for a minute", (int)child);
    return status;
}

#define test_main(tests)                                                                           \
    (cmocka_set_message_output(CM_OUTPUT_TAP), cmocka_run_group_tests(tests, NULL, NULL))

/* assert_ok(call, err): a call must return LC_OK; shows the error text otherwise. */
#define assert_ok(call, err)                                                                       \
    do {                                                                                           \
        if ((call) != 0) fail_msg("%s", (err).text);                                               \
    } while (0)

#endif
