/*
 * replay.h: the exact tokens of answers that were given, found again by what a client sends back of
 * them. A client returns its history as JSON; rendering that anew may differ from what was sampled
 * by a token, and the prompt cache would end there. So an assistant message that equals an answer
 * byte for byte (reasoning, content, calls with their unguessable ids) takes the answer's own
 * tokens.
 *
 * An answer belongs to one tokenizer and template (identity) and carries a checksum.
 * Bounded: the least recently used answers go first. Kept in an SQLite file beside the prompt
 * cache, which it only makes warmer: a lost or damaged file costs hits, never a right answer.
 */
#ifndef LC_SERVER_REPLAY_H
#define LC_SERVER_REPLAY_H

#include "base/json.h"

enum { LC_REPLAY_ANSWERS = 100000 };

typedef struct lc_replay lc_replay;
typedef struct lc_replay_key {
    uint64_t low, high;
} lc_replay_key;

/* path NULL: in memory. A file that can't be used is replaced, with a message in the log.
 * identity: what gives the tokens their meaning, as text; answers of others in the same file are
 * not found. vocab: ids are below it. */
int lc_replay_open(const char *path, const char *identity, size_t vocab, lc_replay **out,
                   lc_err *err);
void lc_replay_close(lc_replay *replay);

/* Of an assistant message in the form of api.h, for one tenant of the prompt cache. */
int lc_replay_key_of(const lc_replay *replay, uint64_t tenant, struct json_object *message,
                     lc_replay_key *out, lc_err *err);

/* tokens: what stands between the turn's first special token and its EOS. Any thread. */
void lc_replay_put(lc_replay *replay, lc_replay_key key, const int32_t *tokens, size_t count);
/* Appends the tokens; false if the answer isn't known. Any thread. */
bool lc_replay_get(lc_replay *replay, lc_replay_key key, lc_ids *out);

#endif
