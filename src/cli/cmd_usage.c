/* cmd_usage.c: `longcat usage`: what the server's ledger says, as a table or CSV. */
#include "cli/server_data.h"
#include "server/accounts.h"

#include <string.h>
#include <time.h>

typedef struct usage_flags {
    const char *data, *key, *by, *from, *to;
    bool csv;
} usage_flags;

/* "2026-11-26" in UTC to seconds; 0 for NULL. */
static int day_of(const char *what, const char *text, int64_t *out, lc_err *err) {
    struct tm tm = {0};
    *out = 0;
    if (!text) return LC_OK;
    const char *end = strptime(text, "%Y-%m-%d", &tm);
    if (!end || *end)
        return lc_fail(err, LC_EINVAL, "%s: \"%s\" is no day such as 2026-11-26", what, text);
    *out = (int64_t)timegm(&tm);
    return LC_OK;
}

static void print_rows(const lc_ledger_row *rows, size_t n, bool csv) {
    lc_ledger_row sum = {.label = "all"};
    const char *head = csv ? "%s,%s,%s,%s,%s,%s,%s\n" : "%-24s %9s %14s %14s %12s %12s %14s\n";
    const char *line = csv ? "%s,%lld,%lld,%lld,%lld,%lld,%.9f\n"
                           : "%-24s %9lld %14lld %14lld %12lld %12lld %14.6f\n";
    printf(head, "of", "requests", "fresh tokens", "cached tokens", "output", "reasoning", "yuan");
    for (size_t i = 0; i <= n; i++) {
        const lc_ledger_row *r = i < n ? &rows[i] : &sum;
        if (i == n && (csv || n < 2)) break;
        printf(line, r->label, (long long)r->requests, (long long)r->fresh, (long long)r->cached,
               (long long)r->output, (long long)r->reasoning, (double)r->nano_yuan / 1e9);
        sum.requests += r->requests;
        sum.fresh += r->fresh;
        sum.cached += r->cached;
        sum.output += r->output;
        sum.reasoning += r->reasoning;
        sum.nano_yuan += r->nano_yuan;
    }
}

static int report(const usage_flags *f, lc_err *err) {
    static const char *const names[] = {"day", "key", "model", "all"};
    lc_ledger_query q = {.key = f->key, .by = LC_LEDGER_BY_DAY};
    lc_server_data data;
    lc_accounts *a = NULL;
    lc_ledger_row *rows = NULL;
    size_t n = 0, by = 0;
    char path[4200];
    while (by < 4 && strcmp(f->by, names[by]) != 0) by++;
    if (by == 4) return lc_fail(err, LC_EINVAL, "--by %s: day, key, model or all", f->by);
    q.by = by;
    int status = day_of("--from", f->from, &q.from, err);
    if (status == LC_OK) status = day_of("--to", f->to, &q.to, err);
    if (status == LC_OK) status = lc_server_data_open(f->data, &data, err);
    if (status != LC_OK) return status;
    snprintf(path, sizeof path, "%s/accounts.db", data.folder);
    status = lc_accounts_open(path, NULL, &a, err);
    if (status == LC_OK) status = lc_ledger_report(a, &q, &rows, &n, err);
    if (status == LC_OK) print_rows(rows, n, f->csv);
    lc_free(rows);
    lc_accounts_close(a);
    return status;
}

int lc_cmd_usage(int argc, char **argv) {
    usage_flags f = {.by = "day"};
    const lc_opt options[] = {
        {"data", 0, LC_OPT_STRING, &f.data, "DIR",
         "the server's folder (default ~/.local/share/longcat)", 0, 0},
        {"by", 0, LC_OPT_STRING, &f.by, "WHAT", "day (UTC), key, model or all (default day)", 0, 0},
        {"key", 0, LC_OPT_STRING, &f.key, "NAME", "of this key only", 0, 0},
        {"from", 0, LC_OPT_STRING, &f.from, "DAY", "first day: 2026-11-26 (UTC)", 0, 0},
        {"to", 0, LC_OPT_STRING, &f.to, "DAY", "day behind the last one", 0, 0},
        {"csv", 0, LC_OPT_FLAG, &f.csv, NULL, "comma-separated values", 0, 0},
        {0},
    };
    const lc_usage usage = {
        .synopsis = "longcat usage [options]",
        .description = "Requests, tokens and cost from the ledger of `longcat serve`.",
        .options = options,
        .min_args = 0,
        .max_args = 0,
    };
    int n_args, code = lc_cli_parse(&usage, argc, argv, NULL, &n_args);
    if (code >= 0) return code;
    lc_err err = {0};
    return report(&f, &err) == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
