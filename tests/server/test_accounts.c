/* test_accounts.c: API keys, limits, ledger, prices. Sums are worked out by hand from the prices.
 */
#include "server/accounts.h"

#include "../unit/train_files.h"
#include "base/file.h"
#include "base/mem.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static lc_err err;
static char folder[256], path[300];

static int set_up(void **state) {
    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/accounts.db", folder);
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static lc_accounts *open_file(void) {
    lc_accounts *a = NULL;
    assert_ok(lc_accounts_open(path, NULL, &a, &err), err);
    return a;
}

static lc_ledger_entry entry(int64_t time, int64_t key, int64_t fresh, int64_t cached,
                             int64_t out) {
    return (lc_ledger_entry){.time = time,
                             .key = key,
                             .request_id = "req_x",
                             .model = "m",
                             .dialect = "chat",
                             .fresh = fresh,
                             .cached = cached,
                             .output = out,
                             .finish = "stop"};
}

static void test_a_key_is_known_by_its_secret_only(void **state) {
    (void)state;
    lc_accounts *a = open_file();
    char secret[128], other[128];
    lc_key key, got;
    double wait = 0;
    struct stat st;
    assert_ok(lc_key_create(a, "ann", secret, sizeof secret, &key, &err), err);
    assert_ok(lc_key_create(a, "bob", other, sizeof other, &got, &err), err);
    assert_true(key.tenant != got.tenant);
    assert_int_equal(strncmp(secret, "sk-lc-", 6), 0);
    assert_int_equal(strlen(secret), 46);
    assert_int_equal(lc_key_begin(a, secret, 100, &got, &wait), LC_KEY_OK);
    assert_int_equal(got.id, key.id);
    assert_int_equal(lc_key_begin(a, "sk-lc-nothing", 100, &got, &wait), LC_KEY_UNKNOWN);
    assert_int_equal(lc_key_begin(a, "", 100, &got, &wait), LC_KEY_UNKNOWN);
    assert_int_equal(lc_key_create(a, "ann", secret, sizeof secret, &key, &err), LC_EINVAL);
    assert_int_equal(lc_key_create(a, "a b", other, sizeof other, &key, &err), LC_EINVAL);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    lc_buf file = {0};
    lc_accounts_close(a);
    assert_ok(lc_file_read(path, 0, &file, &err), err);
    assert_null(memmem(file.data, file.len, secret + 6, 40)); /* only its hash is kept */
    lc_buf_free(&file);
}

static void test_changes_of_another_process_are_seen(void **state) {
    (void)state;
    lc_accounts *server = open_file(), *cli = open_file();
    char secret[128];
    lc_key key, got;
    double wait = 0;
    assert_ok(lc_key_create(cli, "ann", secret, sizeof secret, &key, &err), err);
    assert_int_equal(lc_key_begin(server, secret, 100, &got, &wait), LC_KEY_OK);
    assert_ok(lc_key_revoke(cli, "ann", &err), err);
    assert_int_equal(lc_key_begin(server, secret, 100, &got, &wait), LC_KEY_UNKNOWN);
    assert_int_equal(lc_key_revoke(cli, "nobody", &err), LC_ENOTFOUND);
    lc_accounts_close(server);
    lc_accounts_close(cli);
}

static void test_limits(void **state) {
    (void)state;
    lc_accounts *a = open_file();
    char secret[128];
    lc_key key, got,
        none = {.requests_per_minute = -1,
                .tokens_per_minute = -1,
                .tokens_per_day = -1,
                .concurrent = -1,
                .tokens_total = -1};
    double wait = 0;
    assert_ok(lc_key_create(a, "ann", secret, sizeof secret, &key, &err), err);
    lc_key l = none;
    l.requests_per_minute = 2;
    assert_ok(lc_key_limit(a, "ann", &l, &err), err);
    assert_int_equal(lc_key_begin(a, secret, 6000, &got, &wait), LC_KEY_OK);
    assert_int_equal(lc_key_begin(a, secret, 6010, &got, &wait), LC_KEY_OK);
    assert_int_equal(lc_key_begin(a, secret, 6020, &got, &wait), LC_KEY_RATE);
    assert_true(wait == 40); /* the next minute begins at 6060 */
    assert_int_equal(lc_key_begin(a, secret, 6060, &got, &wait), LC_KEY_OK);
    l = none;
    l.requests_per_minute = 0;
    l.concurrent = 3;
    assert_ok(lc_key_limit(a, "ann", &l, &err), err);
    assert_int_equal(lc_key_begin(a, secret, 6060, &got, &wait), LC_KEY_PARALLEL); /* 3 run */
    lc_key_end(a, key.id);
    assert_int_equal(lc_key_begin(a, secret, 6060, &got, &wait), LC_KEY_OK);
    l = none;
    l.concurrent = 0;
    l.tokens_per_day = 1000;
    assert_ok(lc_key_limit(a, "ann", &l, &err), err);
    lc_ledger_entry e = entry(86400 * 10 + 100, key.id, 500, 400, 100);
    assert_ok(lc_ledger_add(a, &e, &err), err);
    assert_int_equal(lc_key_begin(a, secret, 86400 * 10 + 200, &got, &wait), LC_KEY_RATE);
    assert_true(wait == 86200);
    assert_int_equal(lc_key_begin(a, secret, 86400 * 11, &got, &wait), LC_KEY_OK);
    l = none;
    l.tokens_total = 1000;
    assert_ok(lc_key_limit(a, "ann", &l, &err), err);
    assert_int_equal(lc_key_begin(a, secret, 86400 * 11, &got, &wait), LC_KEY_QUOTA);
    lc_accounts_close(a);
    a = open_file(); /* quotas go on where the ledger stands */
    assert_int_equal(lc_key_begin(a, secret, 86400 * 12, &got, &wait), LC_KEY_QUOTA);
    lc_accounts_close(a);
}

static void test_prices_and_sums(void **state) {
    (void)state;
    lc_accounts *a = open_file();
    lc_ledger_row *rows;
    size_t n;
    /* 2 / 0.04 / 8 yuan per million */
    assert_int_equal(lc_ledger_price(a, "m", 1000000, 1000000, 1000000), 10040000000);
    assert_int_equal(lc_ledger_price(a, "m", 1, 0, 0), 2000);
    assert_int_equal(lc_ledger_price(a, "m", 0, 1, 0), 40);
    for (int64_t i = 0; i < 100; i++) {
        lc_ledger_entry e = entry(i * 43200, 0, i, 2 * i, 3 * i);
        assert_ok(lc_ledger_add(a, &e, &err), err);
    }
    assert_ok(lc_ledger_report(a, &(lc_ledger_query){.by = LC_LEDGER_ALL}, &rows, &n, &err), err);
    assert_int_equal(n, 1);
    assert_int_equal(rows->requests, 100);
    assert_int_equal(rows->fresh, 4950);
    assert_int_equal(rows->nano_yuan, 4950 * 2000 + 9900 * 40 + 14850 * 8000);
    lc_free(rows);
    lc_ledger_query day = {.by = LC_LEDGER_BY_DAY, .from = 86400, .to = 3 * 86400};
    assert_ok(lc_ledger_report(a, &day, &rows, &n, &err), err);
    assert_int_equal(n, 2);
    assert_string_equal(rows[0].label, "1970-01-02");
    assert_int_equal(rows[0].fresh, 2 + 3);
    assert_int_equal(rows[1].cached, 2 * (4 + 5));
    lc_free(rows);
    lc_accounts_close(a);
}

static void test_a_price_file(void **state) {
    (void)state;
    char prices[300];
    snprintf(prices, sizeof prices, "%s/prices.json", folder);
    const char text[] = "{\"default\":{\"fresh\":5,\"cached\":0.1,\"output\":20},"
                        "\"m\":{\"fresh\":1,\"cached\":0,\"output\":2}}";
    put_file(prices, text, sizeof text - 1);
    lc_accounts *a = NULL;
    assert_ok(lc_accounts_open(path, prices, &a, &err), err);
    assert_int_equal(lc_ledger_price(a, "m", 10, 10, 10), 30000);
    assert_int_equal(lc_ledger_price(a, "x", 10, 10, 10), 251000);
    lc_accounts_close(a);
    put_file(prices, "{\"m\":{\"fresh\":-1}}", 18);
    assert_int_equal(lc_accounts_open(path, prices, &a, &err), LC_EINVAL);
    assert_non_null(strstr(err.text, "m.fresh"));
}

/* What lc_ledger_add has confirmed is there after kill -9. */
static void test_nothing_confirmed_is_lost_by_kill(void **state) {
    (void)state;
    for (int round = 0; round < 10; round++) {
        int pipe_fd[2];
        assert_int_equal(pipe(pipe_fd), 0);
        pid_t child = fork();
        if (child == 0) {
            lc_accounts *a = open_file();
            for (;;) {
                lc_ledger_entry e = entry(1, 0, 1, 0, 0);
                if (lc_ledger_add(a, &e, &err) != LC_OK || write(pipe_fd[1], "x", 1) != 1) _exit(1);
            }
        }
        close(pipe_fd[1]);
        usleep((useconds_t)(30000 + 3000 * round));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        static int64_t confirmed;
        char byte;
        while (read(pipe_fd[0], &byte, 1) == 1) confirmed++;
        close(pipe_fd[0]);
        lc_accounts *a = open_file();
        lc_ledger_row *rows = NULL;
        size_t n;
        assert_ok(lc_ledger_report(a, &(lc_ledger_query){.by = LC_LEDGER_ALL}, &rows, &n, &err),
                  err);
        int64_t found = n ? rows->fresh : 0;
        assert_true(found >= confirmed && found <= confirmed + 1);
        confirmed = found; /* one may have been written and not yet told */
        lc_free(rows);
        lc_accounts_close(a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_key_is_known_by_its_secret_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_changes_of_another_process_are_seen, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_limits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_prices_and_sums, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_price_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_confirmed_is_lost_by_kill, set_up, tear_down),
    };
    return test_main(tests);
}
