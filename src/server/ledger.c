/* ledger.c: what was used and what it costs. Each entry is a transaction of its own, on the disk
 * when lc_ledger_add returns. Amounts are integers: sums are exact in any order. */
#include "server/accounts_internal.h"

#include "base/err.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MILLION = 1000000 };

/* ---- prices ---- */

static int read_price(const char *path, const char *model, struct json_object *o, lc_price *out,
                      lc_err *err) {
    const struct {
        const char *name;
        int64_t *to;
    } fields[] = {{"fresh", &out->fresh}, {"cached", &out->cached}, {"output", &out->output}};
    snprintf(out->model, sizeof out->model, "%s", model);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct json_object *v = json_object_object_get(o, fields[i].name);
        double yuan = v ? json_object_get_double(v) : NAN;
        if (!(yuan >= 0 && yuan <= 1e6))
            return lc_fail(err, LC_EINVAL,
                           "%s: %s.%s: a price from 0 to 1,000,000 yuan per million tokens is "
                           "needed",
                           path, model, fields[i].name);
        *fields[i].to = llround(yuan * 1e9);
    }
    return LC_OK;
}

int lc_prices_load(const char *path, lc_prices *out, lc_err *err) {
    struct json_object *file = NULL;
    *out = (lc_prices){.n = 1};
    out->list[0] = (lc_price){"default", 2000000000, 40000000, 8000000000};
    if (!path) return LC_OK;
    int status = lc_json_load(path, 1 << 20, &file, err);
    if (status == LC_OK && json_object_get_type(file) != json_type_object)
        status = lc_fail(err, LC_EINVAL, "%s: an object of models is needed", path);
    if (status == LC_OK) {
        json_object_object_foreach(file, model, prices) {
            bool rest = !strcmp(model, "default");
            if (!rest && out->n == LC_PRICES)
                status = lc_fail(err, LC_ELIMIT, "%s: more than %d models", path, LC_PRICES - 1);
            if (status == LC_OK)
                status = read_price(path, model, prices, &out->list[rest ? 0 : out->n++], err);
            if (status != LC_OK) break;
        }
    }
    json_object_put(file);
    return status;
}

int64_t lc_ledger_price(const lc_accounts *a, const char *model, int64_t fresh, int64_t cached,
                        int64_t output) {
    const lc_price *p = &a->prices.list[0];
    for (size_t i = 1; i < a->prices.n; i++)
        if (!strcmp(a->prices.list[i].model, model)) p = &a->prices.list[i];
    __int128 sum =
        (__int128)fresh * p->fresh + (__int128)cached * p->cached + (__int128)output * p->output;
    return (int64_t)(sum / MILLION);
}

/* ---- entries ---- */

int lc_ledger_add(lc_accounts *a, lc_ledger_entry *e, lc_err *err) {
    e->nano_yuan = lc_ledger_price(a, e->model, e->fresh, e->cached, e->output);
    pthread_mutex_lock(&a->ledger_lock);
    int status = LC_OK;
    if (!a->insert &&
        sqlite3_prepare_v2(a->ledger,
                           "INSERT INTO usage VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", -1,
                           &a->insert, NULL) != SQLITE_OK)
        status = lc_fail(err, LC_EIO, "%s: %s", a->path, sqlite3_errmsg(a->ledger));
    if (status == LC_OK) {
        sqlite3_stmt *s = a->insert;
        sqlite3_bind_int64(s, 1, e->time);
        sqlite3_bind_int64(s, 2, e->key);
        sqlite3_bind_text(s, 3, e->request_id, -1, SQLITE_STATIC);
        sqlite3_bind_text(s, 4, e->model, -1, SQLITE_STATIC);
        sqlite3_bind_text(s, 5, e->dialect, -1, SQLITE_STATIC);
        sqlite3_bind_int64(s, 6, e->fresh);
        sqlite3_bind_int64(s, 7, e->cached);
        sqlite3_bind_int64(s, 8, e->output);
        sqlite3_bind_int64(s, 9, e->reasoning);
        sqlite3_bind_int64(s, 10, e->nano_yuan);
        sqlite3_bind_int64(s, 11, e->milliseconds);
        sqlite3_bind_text(s, 12, e->finish, -1, SQLITE_STATIC);
        if (sqlite3_step(s) != SQLITE_DONE)
            status = lc_fail(err, LC_EIO, "%s: %s", a->path, sqlite3_errmsg(a->ledger));
        sqlite3_reset(s);
    }
    pthread_mutex_unlock(&a->ledger_lock);
    lc_accounts_count(a, e);
    return status;
}

int lc_ledger_report(lc_accounts *a, const lc_ledger_query *q, lc_ledger_row **out, size_t *n,
                     lc_err *err) {
    static const char *const labels[] = {"date(usage.time, 'unixepoch')",
                                         "coalesce(key.name, '(no key)')", "usage.model", "'all'"};
    char sql[640];
    sqlite3_stmt *s;
    size_t cap = 0;
    *out = NULL;
    *n = 0;
    snprintf(sql, sizeof sql,
             "SELECT %s AS label, count(*), sum(fresh), sum(cached), sum(output), sum(reasoning),"
             " sum(nano_yuan) FROM usage LEFT JOIN key ON key.id = usage.key"
             " WHERE usage.time >= ?1 AND (?2 = 0 OR usage.time < ?2)"
             " AND (?3 IS NULL OR key.name = ?3) GROUP BY label ORDER BY label",
             labels[q->by]);
    int status = lc_accounts_prepare(a, sql, &s, err);
    if (status != LC_OK) return status;
    sqlite3_bind_int64(s, 1, q->from);
    sqlite3_bind_int64(s, 2, q->to);
    if (q->key) sqlite3_bind_text(s, 3, q->key, -1, SQLITE_STATIC);
    int code;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        if (*n == cap) {
            cap = cap ? 2 * cap : 64;
            lc_ledger_row *grown = lc_realloc(*out, cap, sizeof **out);
            if (!grown) break;
            *out = grown;
        }
        lc_ledger_row *r = &(*out)[(*n)++];
        snprintf(r->label, sizeof r->label, "%s", (const char *)sqlite3_column_text(s, 0));
        r->requests = sqlite3_column_int64(s, 1);
        r->fresh = sqlite3_column_int64(s, 2);
        r->cached = sqlite3_column_int64(s, 3);
        r->output = sqlite3_column_int64(s, 4);
        r->reasoning = sqlite3_column_int64(s, 5);
        r->nano_yuan = sqlite3_column_int64(s, 6);
    }
    if (code != SQLITE_DONE)
        status = code == SQLITE_ROW ? lc_fail(err, LC_ENOMEM, "ledger: out of memory")
                                    : lc_accounts_fail(a, err);
    sqlite3_finalize(s);
    if (status == LC_OK) return LC_OK;
    lc_free(*out);
    *out = NULL;
    return status;
}
