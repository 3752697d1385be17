/* test_cli.c: what the commands share: help, wrong arguments, folders that aren't there yet,
 * files in place of models, progress on a narrow terminal. */
#include "base/file.h"
#include "quantize_runs.h"

#include "../../src/cli/progress.c"
#include "train/checkpoint.h"

#include <pty.h>

#define SOURCE "tests/golden/quant/source"

static void drop_all(const char *folder) {
    char line[256];
    snprintf(line, sizeof line, "rm -rf %s", folder);
    assert_int_equal(system(line), 0);
}

static int run_in(const char *format, const char *a, const char *b) {
    char line[400];
    snprintf(line, sizeof line, format, a, b);
    return run_command(line);
}

/* ---- help ---- */

/* Subcommands that the help of `command` lists, one by one; 0 at the end. */
static bool next_entry(const char **at, char name[64]) {
    if (!*at || strncmp(*at, "\n  ", 3) != 0 || sscanf(*at, "%63s", name) != 1) return false;
    *at = strchr(*at + 1, '\n');
    return true;
}

static void read_stdout(lc_buf *text) {
    lc_err err = {0};
    lc_buf_clear(text);
    assert_ok(lc_file_read(in_scratch("stdout"), 0, text, &err), err);
}

static void check_columns(const char *command, const lc_buf *text) {
    for (const char *p = text->data; *p;) {
        size_t n = strcspn(p, "\n");
        if (n > 80) fail_msg("%s: %zu columns: %.*s", command, n, (int)n, p);
        p += n + (p[n] == '\n');
    }
}

/* Help of a command, and of the subcommands that it lists; their number. */
static size_t check_help(const char *command) {
    lc_buf text = {0};
    char name[64], line[200];
    size_t n = 0;
    snprintf(line, sizeof line, "%s --help", command);
    assert_int_equal(run_command(line), 0);
    read_stdout(&text);
    check_columns(command, &text);
    const char *at = strstr(text.data, "commands:\n");
    for (at = at ? strchr(at, '\n') : NULL; next_entry(&at, name); n++) {
        snprintf(line, sizeof line, "%s %s", command, name);
        check_help(line);
    }
    lc_buf_free(&text);
    return n;
}

static void help_is_narrow(void **state) {
    (void)state;
    assert_int_equal(check_help(""), 15);
    assert_int_equal(check_help("train"), 4);
}

static void help_and_version(void **state) {
    (void)state;
    assert_int_equal(run_command("help run"), 0);
    said("stdout", "usage: longcat run MODEL");
    assert_int_equal(run_command("help train data"), 0);
    said("stdout", "usage: longcat train data CORPUS");
    assert_int_equal(run_command("help"), 0);
    said("stdout", "commands:");
    assert_int_equal(run_command("help no-such"), 2);
    said("stderr", "no command \"no-such\"");
    assert_int_equal(run_command("version"), 0);
    said("stdout", "longcat " LC_VERSION "\n");
}

/* ---- arguments ---- */

static void lists_of_numbers(void **state) {
    (void)state;
    static const char *const wrong[] = {"1,,2", ",1", "1,x", "-1", "1;2", "4294967296"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(run_in("run models/nano --ids '%s'%s", wrong[i], ""), 1);
        said("stderr", "--ids: \"");
        said("stderr", wrong[i]);
        said("stderr", "numbers such as 1,2,3");
    }
    assert_int_equal(run_command("run models/nano --ids '5, 6 7' -n 1"), 0);
    assert_int_equal(run_command("run models/nano text --ids 1,2"), 2);
    said("stderr", "either a text or --ids");
    assert_int_equal(run_command("bench model " SOURCE " --prefill abc"), 1);
    said("stderr", "--prefill: \"abc\"");
    assert_int_equal(run_command("bench model " SOURCE " --depths 1,,2"), 1);
    said("stderr", "--depths: \"1,,2\"");
}

static void file_for_a_model(void **state) {
    (void)state;
    static const char *const commands[] = {
        "run %s text",
        "chat %s%s",
        "inspect %s%s",
        "bench model %s",
        "eval ppl %s --text README.md",
        "pack %s %s",
        "quantize %s %s --type int8",
    };
    static const char *const files[] = {"README.md", "models/nano/model.safetensors",
                                        "models/nano/config.json"};
    const char *out = in_scratch("unwanted");
    for (size_t f = 0; f < 3; f++)
        for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
            if (f == 2 && strstr(commands[i], "inspect")) continue; /* takes a config.json */
            char line[300];
            snprintf(line, sizeof line, commands[i], files[f], i < 5 ? "" : out);
            assert_int_equal(run_command(line), 1);
            said("stderr", files[f]);
            said("stderr", "not a folder; a model is a folder with config.json and *.safetensors");
        }
    assert_false(exists(out, ""));
}

/* ---- folders ---- */

static void parents_are_made(void **state) {
    (void)state;
    const char *root = in_scratch("parents"), *tokenizer = in_scratch("parents/a/tok/t.json");
    lc_err err = {0};
    int lock;
    assert_int_equal(
        run_in("train tokenizer README.md CONTRIBUTING.md -o %s --vocab %s", tokenizer, "300"), 0);
    assert_int_equal(run_in("train data README.md -o %s --tokenizer %s",
                            in_scratch("parents/b/shards/x"), tokenizer),
                     0);
    assert_int_equal(
        run_in("quantize " SOURCE " %s --type int4 --group %s", in_scratch("parents/c/d/q"), "32"),
        0);
    assert_int_equal(
        run_in("pack %s %s", "tests/golden/model/two-tiny-bf16", in_scratch("parents/e/f/p/")), 0);
    assert_int_equal(
        run_in("bench make --shape " SOURCE "/config.json %s%s", in_scratch("parents/g//h/m"), ""),
        0);
    assert_ok(lc_run_lock(in_scratch("parents/i/j"), &lock, &err), err);
    close(lock);
    static const char log[] = "{\"step\":1,\"tokens\":8,\"lm\":2.5}\n";
    assert_ok(lc_file_write(in_scratch("parents/i/j/log.jsonl"), log, sizeof log - 1, &err), err);
    assert_int_equal(run_in("train report %s -o %s", in_scratch("parents/i/j"),
                            in_scratch("parents/k/l/report.html")),
                     0);
    drop_all(root);
}

/* A place that can't be written to is found before the corpus is read: there is none. */
static void unwritable_is_found_first(void **state) {
    (void)state;
    const char *file = in_scratch("file");
    lc_err err = {0};
    assert_ok(lc_file_write(file, "x", 1, &err), err);
    assert_int_equal(
        run_in("train tokenizer no-such-corpus -o %s/a/t.json --vocab %s", file, "300"), 1);
    said("stderr", "Not a directory");
    assert_int_equal(run_in("train tokenizer no-such-corpus -o %s --vocab %s", scratch, "300"), 1);
    said("stderr", "is a folder");
    assert_int_equal(
        run_in("train tokenizer no-such-corpus -o %s/t.json --vocab %s", scratch, "300"), 1);
    said("stderr", "no-such-corpus");
    assert_false(exists(scratch, "t.json.part"));
    assert_int_equal(run_in("quantize " SOURCE " %s/a/q --type %s", file, "int8"), 1);
    said("stderr", "Not a directory");
    assert_false(says("stderr", "finished shards")); /* there are none */
    unlink(file);
}

/* ---- progress ---- */

/* What stands on a terminal of so many columns. */
static void draw(unsigned short columns, const char *text, char *shown, size_t size) {
    int master, slave, saved = dup(STDERR_FILENO);
    struct winsize window = {.ws_row = 24, .ws_col = columns};
    lc_progress line;
    assert_int_equal(openpty(&master, &slave, NULL, NULL, &window), 0);
    dup2(slave, STDERR_FILENO);
    lc_progress_begin(&line, 1000);
    lc_progress_draw(&line, text);
    lc_progress_end(&line);
    dup2(saved, STDERR_FILENO);
    ssize_t n = read(master, shown, size - 1);
    assert_true(n > 1);
    shown[n] = 0;
    *strchr(shown, '\033') = 0;
    memmove(shown, shown + 1, strlen(shown)); /* the carriage return */
    close(saved);
    close(slave);
    close(master);
}

static void time_left_stays(void **state) {
    (void)state;
    static const char text[] = "long  step 3238 of 5667  loss 2.0893  6317 tokens/s  23.0 M tokens"
                               "  9 % of peak  2.02 experts  1:09:36 left";
    char shown[512];
    draw(80, text, shown, sizeof shown);
    assert_string_equal(shown, "long  step 3238 of 5667  loss 2.0893  6317 tokens/s  1:09:36 left");
    draw(140, text, shown, sizeof shown);
    assert_string_equal(shown, text);
    draw(30, text, shown, sizeof shown);
    assert_string_equal(shown, "long  1:09:36 left");
    draw(10, text, shown, sizeof shown);
    assert_string_equal(shown, "long  1:0");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_is_narrow),   cmocka_unit_test(help_and_version),
        cmocka_unit_test(lists_of_numbers), cmocka_unit_test(file_for_a_model),
        cmocka_unit_test(parents_are_made), cmocka_unit_test(unwritable_is_found_first),
        cmocka_unit_test(time_left_stays),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, make_scratch, drop_scratch);
}
