/*
 * test_nano.c: the bundled model is the one that its card speaks of: better than the reference's
 * tiny-code on text that neither was trained on (tests/golden/tiny-code/README.md has that figure,
 * from PyTorch), and it answers and ends.
 */
#include "base/json.h"
#include "test.h"

#include <sys/wait.h>

#define MODEL "models/nano"
#define HELDOUT "tests/golden/tiny-code/heldout.txt"
static const double tiny_code_bits = 1.9647; /* a byte, windows of 512 */

/* The first line that the program writes. */
static struct json_object *run(const char *args) {
    char command[400], line[1 << 16];
    struct json_object *o = NULL;
    lc_err err = {0};
    snprintf(command, sizeof command, "%s %s 2>/dev/null </dev/null", test_program(), args);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(line, sizeof line, pipe));
    int status = pclose(pipe);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_ok(lc_json_parse(line, strlen(line), "output", &o, &err), err);
    return o;
}

static void test_predicts_code_better_than_tiny_code(void **state) {
    (void)state;
    struct json_object *o = run("eval ppl " MODEL " --text " HELDOUT " --window 512 --json");
    double bits = json_object_get_double(json_object_object_get(o, "bits_per_byte"));
    printf("# %.4f bits a byte\n", bits);
    assert_true(bits > 0.5 && bits < tiny_code_bits);
    json_object_put(o);
}

static void test_answers_and_ends(void **state) {
    (void)state;
    static const char *const questions[] = {"Hello", "Who are you?", "Thank you!"};
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        char args[300];
        snprintf(args, sizeof args,
                 "run " MODEL " '<longcat_user>%s<longcat_assistant>' --greedy -n 96 --json",
                 questions[i]);
        struct json_object *o = run(args);
        const char *text = json_object_get_string(json_object_object_get(o, "text"));
        const char *finish = json_object_get_string(json_object_object_get(o, "finish"));
        printf("# %s -> %s\n", questions[i], text);
        assert_string_equal(finish, "stop");
        assert_true(strlen(text) > 1);
        json_object_put(o);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_predicts_code_better_than_tiny_code),
        cmocka_unit_test(test_answers_and_ends),
    };
    return test_main(tests);
}
