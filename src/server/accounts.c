/*
 * accounts.c: keys and their limits. The table of keys is in memory, read again when another
 * connection, the ledger's or another process's, has changed the database (SQLite's data_version);
 * checks never wait for a disk. The ledger is in ledger.c.
 */
#include "server/accounts_internal.h"

#include "base/err.h"
#include "base/hash.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

enum { SECRET_LETTERS = 40, MINUTE = 60, DAY = 86400 };

static const char schema[] =
    "PRAGMA busy_timeout=10000; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
    "CREATE TABLE IF NOT EXISTS key(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL,"
    " hash TEXT NOT NULL, prefix TEXT NOT NULL, tenant INTEGER NOT NULL, created INTEGER NOT NULL,"
    " revoked INTEGER NOT NULL, requests_per_minute INTEGER NOT NULL,"
    " tokens_per_minute INTEGER NOT NULL, tokens_per_day INTEGER NOT NULL,"
    " concurrent INTEGER NOT NULL, tokens_total INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS usage(id INTEGER PRIMARY KEY, time INTEGER NOT NULL,"
    " key INTEGER NOT NULL, request_id TEXT NOT NULL, model TEXT NOT NULL, dialect TEXT NOT NULL,"
    " fresh INTEGER NOT NULL, cached INTEGER NOT NULL, output INTEGER NOT NULL,"
    " reasoning INTEGER NOT NULL, nano_yuan INTEGER NOT NULL, milliseconds INTEGER NOT NULL,"
    " finish TEXT NOT NULL);"
    "CREATE INDEX IF NOT EXISTS usage_time ON usage(time);"
    "CREATE INDEX IF NOT EXISTS usage_key ON usage(key, time);";

static const char select_keys[] =
    "SELECT id, name, hash, prefix, tenant, created,"
    " (SELECT coalesce(max(time), 0) FROM usage WHERE usage.key = key.id), revoked,"
    " requests_per_minute, tokens_per_minute, tokens_per_day, concurrent, tokens_total"
    " FROM key ORDER BY id";

int lc_accounts_fail(lc_accounts *a, lc_err *err) {
    return lc_fail(err, LC_EIO, "%s: %s", a->path, sqlite3_errmsg(a->db));
}

int lc_accounts_prepare(lc_accounts *a, const char *sql, sqlite3_stmt **out, lc_err *err) {
    return sqlite3_prepare_v2(a->db, sql, -1, out, NULL) == SQLITE_OK ? LC_OK
                                                                      : lc_accounts_fail(a, err);
}

/* Runs a statement that gives no rows, and frees it. */
static int finish(lc_accounts *a, sqlite3_stmt *s, lc_err *err) {
    int code = sqlite3_step(s);
    int status = code == SQLITE_DONE ? LC_OK : lc_accounts_fail(a, err);
    sqlite3_finalize(s);
    return status;
}

/* ---- keys in memory ---- */

static void hash_of(const char *secret, char hex[65]) {
    lc_hash *h = lc_hash_new(LC_HASH_SHA256);
    *hex = 0;
    if (!h) return;
    lc_hash_update(h, secret, strlen(secret));
    lc_hash_finish(h, hex);
}

static void copy_text(char *to, size_t size, sqlite3_stmt *s, int column) {
    const char *text = (const char *)sqlite3_column_text(s, column);
    snprintf(to, size, "%s", text ? text : "");
}

static void read_row(sqlite3_stmt *s, lc_known_key *out) {
    lc_key *k = &out->key;
    k->id = sqlite3_column_int64(s, 0);
    copy_text(k->name, sizeof k->name, s, 1);
    copy_text(out->hash, sizeof out->hash, s, 2);
    copy_text(k->prefix, sizeof k->prefix, s, 3);
    k->tenant = (uint64_t)sqlite3_column_int64(s, 4);
    k->created = sqlite3_column_int64(s, 5);
    k->last_used = sqlite3_column_int64(s, 6);
    k->revoked = sqlite3_column_int(s, 7) != 0;
    k->requests_per_minute = sqlite3_column_int64(s, 8);
    k->tokens_per_minute = sqlite3_column_int64(s, 9);
    k->tokens_per_day = sqlite3_column_int64(s, 10);
    k->concurrent = sqlite3_column_int64(s, 11);
    k->tokens_total = sqlite3_column_int64(s, 12);
}

/* What is counted of a key in this process stays with it when the table is read again. */
static void keep_counts(const lc_accounts *a, lc_known_key *k) {
    for (size_t i = 0; i < a->n_keys; i++) {
        const lc_known_key *old = &a->keys[i];
        if (old->key.id != k->key.id) continue;
        k->running = old->running;
        k->minute = old->minute;
        k->minute_requests = old->minute_requests;
        k->minute_tokens = old->minute_tokens;
        k->day = old->day;
        k->day_tokens = old->day_tokens;
        k->all_tokens = old->all_tokens;
        k->counted = old->counted;
    }
}

/* Tokens that the ledger holds for a key since `from`. */
static int64_t tokens_since(lc_accounts *a, int64_t key, int64_t from) {
    sqlite3_stmt *s;
    lc_err err = {0};
    int64_t sum = 0;
    if (lc_accounts_prepare(
            a, "SELECT sum(fresh + cached + output) FROM usage WHERE key = ? AND time >= ?", &s,
            &err) != LC_OK)
        return 0;
    sqlite3_bind_int64(s, 1, key);
    sqlite3_bind_int64(s, 2, from);
    if (sqlite3_step(s) == SQLITE_ROW) sum = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return sum;
}

/* Counts of a key that was not seen before go on where the ledger stands. */
static void start_counts(lc_accounts *a, lc_known_key *k, int64_t now) {
    if (k->counted) return;
    k->counted = true;
    k->day = now / DAY;
    k->day_tokens = tokens_since(a, k->key.id, k->day * DAY);
    k->all_tokens = tokens_since(a, k->key.id, 0);
}

static int read_keys(lc_accounts *a, lc_err *err) {
    sqlite3_stmt *s;
    size_t n = 0;
    lc_known_key *list = lc_calloc(LC_KEYS_EVER, sizeof *list);
    int status = list ? lc_accounts_prepare(a, select_keys, &s, err)
                      : lc_fail(err, LC_ENOMEM, "keys: out of memory");
    if (status != LC_OK) {
        lc_free(list);
        return status;
    }
    int code;
    while ((code = sqlite3_step(s)) == SQLITE_ROW && n < LC_KEYS_EVER) {
        read_row(s, &list[n]);
        keep_counts(a, &list[n]);
        start_counts(a, &list[n++], time(NULL));
    }
    if (code != SQLITE_ROW && code != SQLITE_DONE) status = lc_accounts_fail(a, err);
    sqlite3_finalize(s);
    if (status != LC_OK) { /* half a table is no table: keys must not vanish for a bad read */
        lc_free(list);
        return status;
    }
    lc_free(a->keys);
    a->keys = list;
    a->n_keys = n;
    return LC_OK;
}

/* Another process has changed the file: `longcat keys` beside a running server. */
static void refresh(lc_accounts *a) {
    sqlite3_step(a->version);
    int64_t version = sqlite3_column_int64(a->version, 0);
    sqlite3_reset(a->version);
    lc_err err = {0};
    if (version != a->seen_version && read_keys(a, &err) == LC_OK) a->seen_version = version;
}

/* ---- opening ---- */

int lc_accounts_open(const char *path, const char *prices, lc_accounts **out, lc_err *err) {
    lc_accounts *a = lc_calloc(1, sizeof *a);
    *out = NULL;
    if (!a) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    snprintf(a->path, sizeof a->path, "%s", path);
    pthread_mutex_init(&a->lock, NULL);
    pthread_mutex_init(&a->ledger_lock, NULL);
    mode_t old = umask(0077);
    bool ok = sqlite3_open(path, &a->db) == SQLITE_OK &&
              sqlite3_exec(a->db, schema, NULL, NULL, NULL) == SQLITE_OK &&
              sqlite3_open(path, &a->ledger) == SQLITE_OK &&
              sqlite3_exec(a->ledger, "PRAGMA synchronous=FULL; PRAGMA busy_timeout=10000", NULL,
                           NULL, NULL) == SQLITE_OK;
    umask(old);
    int status = ok ? LC_OK : lc_accounts_fail(a, err);
    if (status == LC_OK) status = lc_accounts_prepare(a, "PRAGMA data_version", &a->version, err);
    if (status == LC_OK) status = read_keys(a, err);
    if (status == LC_OK) status = lc_prices_load(prices, &a->prices, err);
    if (status != LC_OK) {
        lc_accounts_close(a);
        return status;
    }
    refresh(a);
    *out = a;
    return LC_OK;
}

void lc_accounts_close(lc_accounts *a) {
    if (!a) return;
    sqlite3_finalize(a->version);
    sqlite3_finalize(a->insert);
    sqlite3_close(a->db);
    sqlite3_close(a->ledger);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->ledger_lock);
    lc_free(a->keys);
    lc_free(a);
}

/* ---- the command line's part ---- */

static bool name_is_fine(const char *name) {
    size_t n = strlen(name);
    return n > 0 && n < LC_KEY_NAME &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@") == n;
}

static bool make_secret(char *out, size_t size) {
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    unsigned char bytes[SECRET_LETTERS];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return false;
    size_t n = (size_t)snprintf(out, size, "sk-lc-");
    for (size_t i = 0; i < SECRET_LETTERS && n + 1 < size; i++) out[n++] = letters[bytes[i] % 64];
    out[n] = 0;
    return true;
}

int lc_key_create(lc_accounts *a, const char *name, char *secret, size_t size, lc_key *out,
                  lc_err *err) {
    size_t active = 0;
    sqlite3_stmt *s;
    char hex[65];
    if (!name_is_fine(name))
        return lc_fail(err, LC_EINVAL,
                       "key name \"%.80s\": 1 to %d letters, digits, or - _ . @ are needed", name,
                       LC_KEY_NAME - 1);
    for (size_t i = 0; i < a->n_keys; i++) {
        if (!strcmp(a->keys[i].key.name, name))
            return lc_fail(err, LC_EINVAL, "there is a key \"%s\" already", name);
        active += !a->keys[i].key.revoked;
    }
    if (active >= LC_KEYS_ACTIVE || a->n_keys >= LC_KEYS_EVER)
        return lc_fail(err, LC_ELIMIT, "at most %d active keys and %d in all", LC_KEYS_ACTIVE,
                       LC_KEYS_EVER);
    if (!make_secret(secret, size)) return lc_fail(err, LC_EIO, "keys: no random numbers");
    hash_of(secret, hex);
    int status = lc_accounts_prepare(
        a, "INSERT INTO key VALUES(NULL, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0)", &s, err);
    if (status != LC_OK) return status;
    char prefix[16];
    uint64_t tenant = 0;
    snprintf(prefix, sizeof prefix, "%.9s", secret);
    if (getrandom(&tenant, sizeof tenant, 0) != sizeof tenant) tenant = (uint64_t)time(NULL);
    sqlite3_bind_text(s, 1, name, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(s, 2, hex, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(s, 3, prefix, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int64(s, 4, (int64_t)tenant);
    sqlite3_bind_int64(s, 5, time(NULL));
    status = finish(a, s, err);
    if (status == LC_OK) status = read_keys(a, err);
    if (status == LC_OK) *out = a->keys[a->n_keys - 1].key;
    return status;
}

int lc_key_list(lc_accounts *a, lc_key **out, size_t *n, lc_err *err) {
    pthread_mutex_lock(&a->lock);
    refresh(a);
    *n = a->n_keys;
    *out = lc_calloc(a->n_keys + 1, sizeof **out);
    for (size_t i = 0; *out && i < a->n_keys; i++) (*out)[i] = a->keys[i].key;
    pthread_mutex_unlock(&a->lock);
    return *out ? LC_OK : lc_fail(err, LC_ENOMEM, "keys: out of memory");
}

static int change(lc_accounts *a, const char *sql, const char *name, int64_t value, lc_err *err) {
    sqlite3_stmt *s;
    int status = lc_accounts_prepare(a, sql, &s, err);
    if (status != LC_OK) return status;
    sqlite3_bind_int64(s, 1, value);
    sqlite3_bind_text(s, 2, name, -1, SQLITE_TRANSIENT);
    status = finish(a, s, err);
    if (status == LC_OK && sqlite3_changes(a->db) == 0)
        status = lc_fail(err, LC_ENOTFOUND, "there is no key \"%.80s\"", name);
    return status == LC_OK ? read_keys(a, err) : status;
}

int lc_key_revoke(lc_accounts *a, const char *name, lc_err *err) {
    return change(a, "UPDATE key SET revoked = ? WHERE name = ?", name, 1, err);
}

int lc_key_limit(lc_accounts *a, const char *name, const lc_key *limits, lc_err *err) {
    const struct {
        const char *sql;
        int64_t value;
    } list[] = {
        {"UPDATE key SET requests_per_minute = ? WHERE name = ?", limits->requests_per_minute},
        {"UPDATE key SET tokens_per_minute = ? WHERE name = ?", limits->tokens_per_minute},
        {"UPDATE key SET tokens_per_day = ? WHERE name = ?", limits->tokens_per_day},
        {"UPDATE key SET concurrent = ? WHERE name = ?", limits->concurrent},
        {"UPDATE key SET tokens_total = ? WHERE name = ?", limits->tokens_total},
    };
    int status = LC_OK;
    for (size_t i = 0; i < sizeof list / sizeof *list && status == LC_OK; i++)
        if (list[i].value >= 0) status = change(a, list[i].sql, name, list[i].value, err);
    return status;
}

/* ---- the server's part ---- */

/* Compares with every key, always to the end. */
static lc_known_key *find_secret(lc_accounts *a, const char *secret) {
    lc_known_key *found = NULL;
    char hex[65];
    hash_of(secret, hex);
    for (size_t i = 0; i < a->n_keys && *hex; i++)
        if (CRYPTO_memcmp(a->keys[i].hash, hex, 64) == 0 && !a->keys[i].key.revoked)
            found = &a->keys[i];
    return found;
}

static lc_known_key *find_id(lc_accounts *a, int64_t id) {
    for (size_t i = 0; i < a->n_keys; i++)
        if (a->keys[i].key.id == id) return &a->keys[i];
    return NULL;
}

static void turn_clock(lc_known_key *k, int64_t now) {
    if (k->minute != now / MINUTE) {
        k->minute = now / MINUTE;
        k->minute_requests = k->minute_tokens = 0;
    }
    if (k->day != now / DAY) {
        k->day = now / DAY;
        k->day_tokens = 0;
    }
}

static bool over(int64_t limit, int64_t count) { return limit && count >= limit; }

static lc_key_verdict judge(lc_known_key *k, int64_t now, double *retry_after) {
    const lc_key *l = &k->key;
    turn_clock(k, now);
    if (over(l->tokens_total, k->all_tokens)) return LC_KEY_QUOTA;
    if (over(l->tokens_per_day, k->day_tokens)) {
        *retry_after = (double)(DAY - now % DAY);
        return LC_KEY_RATE;
    }
    if (over(l->requests_per_minute, k->minute_requests) ||
        over(l->tokens_per_minute, k->minute_tokens)) {
        *retry_after = (double)(MINUTE - now % MINUTE);
        return LC_KEY_RATE;
    }
    return over(l->concurrent, k->running) ? LC_KEY_PARALLEL : LC_KEY_OK;
}

bool lc_keys_active(lc_accounts *a) {
    bool active = false;
    pthread_mutex_lock(&a->lock);
    refresh(a);
    for (size_t i = 0; i < a->n_keys; i++) active |= !a->keys[i].key.revoked;
    pthread_mutex_unlock(&a->lock);
    return active;
}

lc_key_verdict lc_key_begin(lc_accounts *a, const char *secret, int64_t now, lc_key *out,
                            double *retry_after) {
    pthread_mutex_lock(&a->lock);
    refresh(a);
    lc_known_key *k = find_secret(a, secret);
    lc_key_verdict verdict = k ? judge(k, now, retry_after) : LC_KEY_UNKNOWN;
    if (verdict == LC_KEY_OK) {
        k->running++;
        k->minute_requests++;
        *out = k->key;
    }
    pthread_mutex_unlock(&a->lock);
    return verdict;
}

void lc_key_end(lc_accounts *a, int64_t id) {
    pthread_mutex_lock(&a->lock);
    lc_known_key *k = find_id(a, id);
    if (k && k->running) k->running--;
    pthread_mutex_unlock(&a->lock);
}

void lc_accounts_count(lc_accounts *a, const lc_ledger_entry *e) {
    pthread_mutex_lock(&a->lock);
    lc_known_key *k = find_id(a, e->key);
    if (k) {
        int64_t tokens = e->fresh + e->cached + e->output;
        turn_clock(k, e->time);
        k->minute_tokens += tokens;
        k->day_tokens += tokens;
        k->all_tokens += tokens;
    }
    pthread_mutex_unlock(&a->lock);
}
