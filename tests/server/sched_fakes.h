/*
 * sched_fakes.h: a prompt cache and a grammar as small as their contracts allow, for tests of the
 * scheduler alone. The cache keeps whole copies; the grammar wants a fixed list of tokens.
 */
#ifndef LC_TESTS_SCHED_FAKES_H
#define LC_TESTS_SCHED_FAKES_H

#include "base/err.h"
#include "engine/sched.h"

#include <string.h>

enum { FAKE_ENTRIES = 64 };

struct lc_cache {
    struct fake_entry {
        uint64_t tenant;
        lc_ids tokens;
        lc_kv kv;
    } entries[FAKE_ENTRIES];
    size_t count;
    size_t saves, loads;
};

int lc_cache_open(const lc_cache_options *options, lc_cache **out, lc_err *err) {
    (void)options;
    *out = lc_calloc(1, sizeof **out);
    return *out ? LC_OK : lc_fail(err, LC_ENOMEM, "cache");
}

void lc_cache_close(lc_cache *cache) {
    if (!cache) return;
    for (size_t i = 0; i < cache->count; i++) {
        lc_ids_free(&cache->entries[i].tokens);
        lc_kv_free(&cache->entries[i].kv);
    }
    lc_free(cache);
}

static size_t fake_find(lc_cache *cache, uint64_t tenant, const int32_t *tokens, size_t count,
                        size_t *which) {
    size_t best = 0;
    for (size_t i = 0; i < cache->count; i++) {
        const struct fake_entry *e = &cache->entries[i];
        size_t n = 0;
        if (e->tenant != tenant) continue;
        while (n < count && n < e->tokens.len && tokens[n] == e->tokens.data[n]) n++;
        if (n > best) {
            best = n;
            *which = i;
        }
    }
    return best;
}

size_t lc_cache_match(lc_cache *cache, uint64_t tenant, const int32_t *tokens, size_t count) {
    size_t which = 0, n = count ? fake_find(cache, tenant, tokens, count - 1, &which) : 0;
    return n / LC_CACHE_BLOCK * LC_CACHE_BLOCK;
}

int lc_cache_load(lc_cache *cache, uint64_t tenant, const int32_t *tokens, size_t count, lc_kv *kv,
                  size_t *loaded, lc_err *err) {
    size_t which = 0;
    fake_find(cache, tenant, tokens, count - 1, &which);
    *loaded = lc_cache_match(cache, tenant, tokens, count);
    if (!*loaded) return LC_OK;
    cache->loads++;
    int status = lc_kv_reserve(kv, *loaded, err);
    for (size_t i = 0; status == LC_OK && i < *loaded / LC_KV_BLOCK; i++)
        memcpy(kv->blocks[i], cache->entries[which].kv.blocks[i], lc_kv_block_bytes(&kv->layout));
    return status;
}

int lc_cache_save(lc_cache *cache, uint64_t tenant, const int32_t *tokens, size_t count,
                  const lc_kv *kv, lc_err *err) {
    size_t which = 0;
    count = count / LC_CACHE_BLOCK * LC_CACHE_BLOCK;
    cache->saves++;
    if (!count || cache->count == FAKE_ENTRIES ||
        fake_find(cache, tenant, tokens, count, &which) == count)
        return LC_OK;
    struct fake_entry *e = &cache->entries[cache->count++];
    e->tenant = tenant;
    lc_kv_init(&e->kv, &kv->layout);
    int status = lc_ids_append(&e->tokens, tokens, count) ? LC_OK : LC_ENOMEM;
    if (status == LC_OK) status = lc_kv_reserve(&e->kv, count, err);
    for (size_t i = 0; status == LC_OK && i < count / LC_KV_BLOCK; i++)
        memcpy(e->kv.blocks[i], kv->blocks[i], lc_kv_block_bytes(&kv->layout));
    return status;
}

/* A grammar that allows one list of tokens. */
struct lc_grammar {
    const int32_t *tokens;
    size_t count, vocab;
};

struct lc_grammar_state {
    const lc_grammar *grammar;
    size_t at;
};

int lc_grammar_begin(const lc_grammar *grammar, lc_grammar_state **out, lc_err *err) {
    *out = lc_calloc(1, sizeof **out);
    if (!*out) return lc_fail(err, LC_ENOMEM, "grammar");
    (*out)->grammar = grammar;
    return LC_OK;
}

void lc_grammar_state_free(lc_grammar_state *state) { lc_free(state); }

int lc_grammar_mask(lc_grammar_state *state, size_t left, uint64_t *mask, lc_err *err) {
    (void)left;
    const lc_grammar *g = state->grammar;
    if (state->at >= g->count) return lc_fail(err, LC_EINVAL, "the grammar is over");
    memset(mask, 0, (g->vocab + 63) / 64 * sizeof *mask);
    mask[g->tokens[state->at] / 64] |= (uint64_t)1 << g->tokens[state->at] % 64;
    return LC_OK;
}

int lc_grammar_accept(lc_grammar_state *state, int32_t token, lc_err *err) {
    if (state->at >= state->grammar->count || token != state->grammar->tokens[state->at])
        return lc_fail(err, LC_EINVAL, "token %d is not allowed", token);
    state->at++;
    return LC_OK;
}

bool lc_grammar_complete(const lc_grammar_state *state) {
    return state->at == state->grammar->count;
}

#endif
