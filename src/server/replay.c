/* replay.c: one table in SQLite; see replay.h. Failures are silent misses by contract. */
#include "server/replay.h"

#include "base/err.h"
#include "base/log.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { TRIM_EVERY = 256, TOUCH_AFTER = LC_REPLAY_ANSWERS / 16 };

struct lc_replay {
    sqlite3 *db;
    sqlite3_stmt *put, *get, *touch, *trim;
    pthread_mutex_t lock;
    uint64_t identity;
    size_t vocab;
    int64_t clock; /* counts uses: order, not time */
    size_t since_trim;
};

static const char schema[] =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
    "CREATE TABLE IF NOT EXISTS answer(key BLOB PRIMARY KEY, used INTEGER, tokens BLOB)"
    " WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS answer_used ON answer(used);";

static bool prepare(lc_replay *r) {
    const struct {
        sqlite3_stmt **out;
        const char *sql;
    } list[] = {
        {&r->put, "INSERT OR REPLACE INTO answer VALUES(?, ?, ?)"},
        {&r->get, "SELECT tokens, used FROM answer WHERE key = ?"},
        {&r->touch, "UPDATE answer SET used = ? WHERE key = ?"},
        {&r->trim, "DELETE FROM answer WHERE used <= (SELECT used FROM answer ORDER BY used DESC"
                   " LIMIT 1 OFFSET ?)"},
    };
    bool ok = sqlite3_exec(r->db, schema, NULL, NULL, NULL) == SQLITE_OK;
    for (size_t i = 0; ok && i < sizeof list / sizeof *list; i++)
        ok = sqlite3_prepare_v2(r->db, list[i].sql, -1, list[i].out, NULL) == SQLITE_OK;
    return ok;
}

static void finalize(lc_replay *r) {
    sqlite3_finalize(r->put);
    sqlite3_finalize(r->get);
    sqlite3_finalize(r->touch);
    sqlite3_finalize(r->trim);
    sqlite3_close(r->db);
    r->put = r->get = r->touch = r->trim = NULL;
    r->db = NULL;
}

/* SQLITE_OK, or what is wrong, with its text. */
static int open_file(lc_replay *r, const char *path, lc_err *err) {
    sqlite3_stmt *last = NULL;
    mode_t old = umask(0077);
    bool ok = sqlite3_open(path, &r->db) == SQLITE_OK && prepare(r);
    umask(old);
    if (ok &&
        sqlite3_prepare_v2(r->db, "SELECT max(used) FROM answer", -1, &last, NULL) == SQLITE_OK &&
        sqlite3_step(last) == SQLITE_ROW)
        r->clock = sqlite3_column_int64(last, 0);
    sqlite3_finalize(last);
    if (ok) return SQLITE_OK;
    int code = r->db ? sqlite3_errcode(r->db) : SQLITE_NOMEM;
    lc_fail(err, LC_EIO, "%s: %s", path, r->db ? sqlite3_errmsg(r->db) : "out of memory");
    finalize(r);
    return code;
}

int lc_replay_open(const char *path, const char *identity, size_t vocab, lc_replay **out,
                   lc_err *err) {
    lc_replay *r = lc_calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return lc_fail(err, LC_ENOMEM, "answers: out of memory");
    pthread_mutex_init(&r->lock, NULL);
    r->identity = XXH3_64bits(identity, strlen(identity));
    r->vocab = vocab;
    int code = open_file(r, path ? path : ":memory:", err);
    if (path && (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)) {
        lc_log(LC_LOG_WARN, "%s: damaged, begun anew", path);
        unlink(path);
        code = open_file(r, path, err);
    }
    if (code != SQLITE_OK) {
        lc_replay_close(r);
        return LC_EIO;
    }
    *out = r;
    return LC_OK;
}

void lc_replay_close(lc_replay *r) {
    if (!r) return;
    finalize(r);
    pthread_mutex_destroy(&r->lock);
    lc_free(r);
}

/* ---- keys ---- */

static void add_text(XXH3_state_t *state, struct json_object *value) {
    const char *text = json_object_get_string(value);
    uint64_t len = text ? (uint64_t)json_object_get_string_len(value) : 0;
    XXH3_128bits_update(state, &len, sizeof len);
    if (len) XXH3_128bits_update(state, text, len);
}

static void add_call(XXH3_state_t *state, struct json_object *call) {
    struct json_object *function = json_object_object_get(call, "function");
    const char *arguments = json_object_to_json_string_ext(
        json_object_object_get(function, "arguments"), JSON_C_TO_STRING_PLAIN);
    add_text(state, json_object_object_get(call, "id"));
    add_text(state, json_object_object_get(function, "name"));
    XXH3_128bits_update(state, arguments, strlen(arguments) + 1);
}

int lc_replay_key_of(const lc_replay *r, uint64_t tenant, struct json_object *message,
                     lc_replay_key *out, lc_err *err) {
    XXH3_state_t *state = XXH3_createState();
    struct json_object *calls = json_object_object_get(message, "tool_calls");
    if (!state) return lc_fail(err, LC_ENOMEM, "answers: out of memory");
    XXH3_128bits_reset_withSeed(state, tenant);
    XXH3_128bits_update(state, &r->identity, sizeof r->identity);
    add_text(state, json_object_object_get(message, "reasoning_content"));
    add_text(state, json_object_object_get(message, "content"));
    for (size_t i = 0; calls && i < json_object_array_length(calls); i++)
        add_call(state, json_object_array_get_idx(calls, i));
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    *out = (lc_replay_key){hash.low64, hash.high64};
    return LC_OK;
}

/* ---- the table ---- */

static void bind_key(sqlite3_stmt *s, int place, const lc_replay_key *key) {
    sqlite3_bind_blob(s, place, key, sizeof *key, SQLITE_STATIC);
}

/* A row's blob: the tokens, and 8 bytes of checksum over them and the key. */
static uint64_t checksum(const lc_replay_key *key, const int32_t *tokens, size_t count) {
    return XXH3_64bits_withSeed(tokens, count * sizeof *tokens, key->low ^ key->high);
}

static bool append_checked(const lc_replay *r, const lc_replay_key *key, const void *blob,
                           size_t bytes, lc_ids *out) {
    uint64_t sum;
    size_t before = out->len;
    if (!blob || bytes < sizeof sum || (bytes - sizeof sum) % sizeof *out->data) return false;
    size_t count = (bytes - sizeof sum) / sizeof *out->data;
    memcpy(&sum, (const char *)blob + count * sizeof *out->data, sizeof sum);
    if (!lc_ids_append(out, blob, count)) return false;
    bool good = sum == checksum(key, out->data + before, count);
    for (size_t i = before; good && i < out->len; i++)
        good = out->data[i] >= 0 && (size_t)out->data[i] < r->vocab;
    if (!good) out->len = before;
    return good;
}

void lc_replay_put(lc_replay *r, lc_replay_key key, const int32_t *tokens, size_t count) {
    if (count > INT32_MAX / sizeof *tokens - 2) return;
    uint64_t sum = checksum(&key, tokens, count);
    size_t bytes = count * sizeof *tokens;
    char *blob = lc_alloc(bytes + sizeof sum);
    if (!blob) return;
    memcpy(blob, tokens, bytes);
    memcpy(blob + bytes, &sum, sizeof sum);
    pthread_mutex_lock(&r->lock);
    bind_key(r->put, 1, &key);
    sqlite3_bind_int64(r->put, 2, ++r->clock);
    sqlite3_bind_blob(r->put, 3, blob, (int)(bytes + sizeof sum), SQLITE_STATIC);
    sqlite3_step(r->put);
    sqlite3_reset(r->put);
    if (++r->since_trim >= TRIM_EVERY) {
        r->since_trim = 0;
        sqlite3_bind_int(r->trim, 1, LC_REPLAY_ANSWERS);
        sqlite3_step(r->trim);
        sqlite3_reset(r->trim);
    }
    pthread_mutex_unlock(&r->lock);
    lc_free(blob);
}

bool lc_replay_get(lc_replay *r, lc_replay_key key, lc_ids *out) {
    bool found = false, old = false;
    pthread_mutex_lock(&r->lock);
    bind_key(r->get, 1, &key);
    if (sqlite3_step(r->get) == SQLITE_ROW) {
        const void *blob = sqlite3_column_blob(r->get, 0);
        found = append_checked(r, &key, blob, (size_t)sqlite3_column_bytes(r->get, 0), out);
        old = r->clock - sqlite3_column_int64(r->get, 1) > TOUCH_AFTER;
    }
    sqlite3_reset(r->get);
    if (found && old) { /* a write each time would cost more than the order is worth */
        sqlite3_bind_int64(r->touch, 1, ++r->clock);
        bind_key(r->touch, 2, &key);
        sqlite3_step(r->touch);
        sqlite3_reset(r->touch);
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}
