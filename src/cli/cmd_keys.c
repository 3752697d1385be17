/* cmd_keys.c: `longcat keys`: API keys of the server. */
#include "cli/server_data.h"
#include "server/accounts.h"

#include <string.h>
#include <time.h>

typedef struct keys_flags {
    const char *data;
    int64_t requests, tokens, day, parallel, total;
} keys_flags;

static int open_accounts(const char *folder, lc_accounts **out, lc_err *err) {
    lc_server_data data;
    char path[4200];
    int status = lc_server_data_open(folder, &data, err);
    if (status != LC_OK) return status;
    snprintf(path, sizeof path, "%s/accounts.db", data.folder);
    return lc_accounts_open(path, NULL, out, err);
}

static void print_limit(int64_t value) {
    if (value)
        printf("  %10lld", (long long)value);
    else
        printf("  %10s", "-");
}

static void print_day(int64_t seconds) {
    char text[32] = "never";
    time_t t = (time_t)seconds;
    struct tm utc;
    if (seconds && gmtime_r(&t, &utc)) strftime(text, sizeof text, "%Y-%m-%d", &utc);
    printf("  %-10s", text);
}

static int list(lc_accounts *a, lc_err *err) {
    lc_key *keys = NULL;
    size_t n = 0;
    int status = lc_key_list(a, &keys, &n, err);
    if (status != LC_OK) return status;
    printf("%-20s  %-10s  %-10s  %-10s  %10s  %10s  %10s  %10s  %10s\n", "name", "key", "created",
           "last used", "req/min", "tok/min", "tok/day", "at a time", "tok total");
    for (size_t i = 0; i < n; i++) {
        const lc_key *k = &keys[i];
        printf("%-20s  %-10s", k->name, k->revoked ? "revoked" : k->prefix);
        print_day(k->created);
        print_day(k->last_used);
        print_limit(k->requests_per_minute);
        print_limit(k->tokens_per_minute);
        print_limit(k->tokens_per_day);
        print_limit(k->concurrent);
        print_limit(k->tokens_total);
        printf("\n");
    }
    lc_free(keys);
    return LC_OK;
}

static int create(lc_accounts *a, const char *name, const lc_key *limits, lc_err *err) {
    char secret[128];
    lc_key key;
    int status = lc_key_create(a, name, secret, sizeof secret, &key, err);
    if (status == LC_OK) status = lc_key_limit(a, name, limits, err);
    if (status != LC_OK) return status;
    printf("%s\n", secret);
    fprintf(stderr, "This is the key \"%s\". It is shown this once only.\n", key.name);
    return LC_OK;
}

static int run(const char *const *args, int n_args, const keys_flags *f, lc_err *err) {
    lc_accounts *a = NULL;
    const char *what = args[0], *name = n_args > 1 ? args[1] : NULL;
    bool known = !strcmp(what, "create") || !strcmp(what, "list") || !strcmp(what, "revoke") ||
                 !strcmp(what, "limit");
    if (!known) return lc_fail(err, LC_EINVAL, "keys %s: create, list, revoke or limit", what);
    if (!name && strcmp(what, "list") != 0)
        return lc_fail(err, LC_EINVAL, "keys %s: a NAME is needed", what);
    lc_key limits = {.requests_per_minute = f->requests,
                     .tokens_per_minute = f->tokens,
                     .tokens_per_day = f->day,
                     .concurrent = f->parallel,
                     .tokens_total = f->total};
    bool limited =
        f->requests >= 0 || f->tokens >= 0 || f->day >= 0 || f->parallel >= 0 || f->total >= 0;
    if (limited && (!strcmp(what, "list") || !strcmp(what, "revoke")))
        return lc_fail(err, LC_EINVAL, "keys %s: limits go with create and limit only", what);
    if (!limited && !strcmp(what, "limit"))
        return lc_fail(err, LC_EINVAL,
                       "keys limit: a limit is needed, such as --requests-per-minute 60");
    int status = open_accounts(f->data, &a, err);
    if (status != LC_OK) return status;
    if (!strcmp(what, "create")) status = create(a, name, &limits, err);
    if (!strcmp(what, "list")) status = list(a, err);
    if (!strcmp(what, "revoke")) status = lc_key_revoke(a, name, err);
    if (!strcmp(what, "limit")) status = lc_key_limit(a, name, &limits, err);
    lc_accounts_close(a);
    return status;
}

int lc_cmd_keys(int argc, char **argv) {
    keys_flags f = {.requests = -1, .tokens = -1, .day = -1, .parallel = -1, .total = -1};
    const double most = 9e15;
    const lc_opt options[] = {
        {"data", 0, LC_OPT_STRING, &f.data, "DIR",
         "the server's folder (default ~/.local/share/longcat)", 0, 0},
        {"requests-per-minute", 0, LC_OPT_INT, &f.requests, "N", "limit: 0 = none", 0, most},
        {"tokens-per-minute", 0, LC_OPT_INT, &f.tokens, "N", "limit: 0 = none", 0, most},
        {"tokens-per-day", 0, LC_OPT_INT, &f.day, "N", "limit: 0 = none", 0, most},
        {"concurrent", 0, LC_OPT_INT, &f.parallel, "N", "limit: requests at a time, 0 = none", 0,
         most},
        {"tokens-total", 0, LC_OPT_INT, &f.total, "N", "limit: quota for ever, 0 = none", 0, most},
        {0},
    };
    const lc_usage usage = {
        .synopsis = "longcat keys create NAME [limits] | list | revoke NAME | limit NAME [limits]",
        .description = "API keys of `longcat serve`. A running server sees changes at once. A new "
                       "key is printed once;\nonly its hash is kept.",
        .options = options,
        .min_args = 1,
        .max_args = 2,
    };
    const char *args[2] = {0};
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    lc_err err = {0};
    return run(args, n_args, &f, &err) == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
