/*
 * accounts.h: API keys, their limits, and the ledger of what was used, in one SQLite file (WAL).
 * A key is shown once; only its SHA-256 is kept and compared in constant time. A ledger row is on
 * the disk before its answer's last byte is sent: what was answered is never lost.
 *
 * Prices come from a price file (JSON, per million tokens; default LongCat's: 2 fresh, 0.04 cached,
 * 8 output, in yuan); amounts are kept in integers of 1e-9 yuan.
 */
#ifndef LC_SERVER_ACCOUNTS_H
#define LC_SERVER_ACCOUNTS_H

#include "base/buf.h"

enum { LC_KEYS_ACTIVE = 100, LC_KEYS_EVER = 200, LC_KEY_NAME = 64 };

typedef struct lc_accounts lc_accounts;
/* path: made if absent (mode 0600). prices: file or NULL. lc_keys_active, lc_key_begin, lc_key_end,
 * lc_ledger_add and lc_ledger_price from any thread; begin and end never wait for the ledger's
 * disk. */
int lc_accounts_open(const char *path, const char *prices, lc_accounts **out, lc_err *err);
void lc_accounts_close(lc_accounts *accounts);

typedef struct lc_key {
    int64_t id;
    char name[LC_KEY_NAME];
    char prefix[16];            /* first characters, for lists */
    uint64_t tenant;            /* of the prompt cache */
    int64_t created, last_used; /* seconds since 1970; 0 = never */
    bool revoked;
    /* 0 = none */
    int64_t requests_per_minute, tokens_per_minute, tokens_per_day, concurrent;
    int64_t tokens_total; /* quota for ever: 402 beyond it */
} lc_key;

/* secret: at least 64 bytes; receives "sk-lc-..." */
int lc_key_create(lc_accounts *accounts, const char *name, char *secret, size_t size, lc_key *out,
                  lc_err *err);
int lc_key_list(lc_accounts *accounts, lc_key **out, size_t *n, lc_err *err); /* lc_free */
int lc_key_revoke(lc_accounts *accounts, const char *name, lc_err *err);
/* Sets what isn't -1. */
int lc_key_limit(lc_accounts *accounts, const char *name, const lc_key *limits, lc_err *err);

/* Whether there is a key that isn't revoked. From any thread. */
bool lc_keys_active(lc_accounts *accounts);

typedef enum lc_key_verdict {
    LC_KEY_OK,
    LC_KEY_UNKNOWN,  /* 401 */
    LC_KEY_RATE,     /* 429, *retry_after set */
    LC_KEY_QUOTA,    /* 402 */
    LC_KEY_PARALLEL, /* 429 */
} lc_key_verdict;
/* Checks a secret and begins a request of it (counts for rates and concurrency). */
lc_key_verdict lc_key_begin(lc_accounts *accounts, const char *secret, int64_t now, lc_key *out,
                            double *retry_after);
void lc_key_end(lc_accounts *accounts, int64_t key);

typedef struct lc_ledger_entry {
    int64_t time, key; /* key 0: none was needed */
    char request_id[40], model[96], dialect[16];
    int64_t fresh, cached, output, reasoning; /* tokens; output includes reasoning */
    int64_t nano_yuan;                        /* filled by lc_ledger_add */
    int64_t milliseconds;
    char finish[16];
} lc_ledger_entry;
int lc_ledger_add(lc_accounts *accounts, lc_ledger_entry *usage, lc_err *err);

typedef struct lc_ledger_query {
    int64_t from, to; /* seconds, 0 = open */
    const char *key;  /* name, or NULL */
    enum { LC_LEDGER_BY_DAY, LC_LEDGER_BY_KEY, LC_LEDGER_BY_MODEL, LC_LEDGER_ALL } by;
} lc_ledger_query;
typedef struct lc_ledger_row {
    char label[96];
    int64_t requests, fresh, cached, output, reasoning, nano_yuan;
} lc_ledger_row;
int lc_ledger_report(lc_accounts *accounts, const lc_ledger_query *query, lc_ledger_row **out,
                     size_t *n, lc_err *err); /* lc_free */
/* Nanoyuan of a usage by the price file. */
int64_t lc_ledger_price(const lc_accounts *accounts, const char *model, int64_t fresh,
                        int64_t cached, int64_t output);

#endif
