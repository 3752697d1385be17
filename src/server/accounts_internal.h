/* accounts_internal.h: what accounts.c (keys) and ledger.c (usage, prices) share. */
#ifndef LC_SERVER_ACCOUNTS_INTERNAL_H
#define LC_SERVER_ACCOUNTS_INTERNAL_H

#include "server/accounts.h"

#include <pthread.h>
#include <sqlite3.h>

enum { LC_PRICES = 32 };

/* Nanoyuan per million tokens of a model; the first entry is for all that aren't named. */
typedef struct lc_price {
    char model[96];
    int64_t fresh, cached, output;
} lc_price;

typedef struct lc_prices {
    lc_price list[LC_PRICES];
    size_t n;
} lc_prices;

typedef struct lc_known_key {
    lc_key key;
    char hash[65]; /* SHA-256 of the secret, hex */
    /* counted in this process */
    bool counted;
    int64_t running, minute, minute_requests, minute_tokens, day, day_tokens, all_tokens;
} lc_known_key;

struct lc_accounts {
    char path[4300];
    sqlite3 *db, *ledger; /* two connections: checks don't wait behind the ledger's fsync */
    sqlite3_stmt *version, *insert;
    pthread_mutex_t lock, ledger_lock;
    lc_known_key *keys;
    size_t n_keys;
    int64_t seen_version;
    lc_prices prices;
};

int lc_accounts_fail(lc_accounts *a, lc_err *err);
int lc_accounts_prepare(lc_accounts *a, const char *sql, sqlite3_stmt **out, lc_err *err);
/* Adds a ledger entry to its key's counts. */
void lc_accounts_count(lc_accounts *a, const lc_ledger_entry *e);

/* ledger.c. path NULL: LongCat's own prices. */
int lc_prices_load(const char *path, lc_prices *out, lc_err *err);

#endif
