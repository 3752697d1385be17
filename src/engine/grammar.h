/*
 * grammar.h: which tokens may come next, so that an answer is valid whatever the weights: JSON by a
 * schema, any JSON object, or tool calls in the model's own tags with arguments by their schemas.
 *
 * A grammar is compiled once from untrusted input (bounded in time and memory, fails closed), is
 * immutable afterwards and may be shared by threads. A state walks along one answer. Everything is
 * in bytes; the vocabulary enters through its tokens' bytes only, tags of the model are matched by
 * id.
 *
 * An answer always ends in time: the caller says how many tokens are left, and tokens behind which
 * the shortest way to the end would be longer than that aren't allowed.
 */
#ifndef LC_ENGINE_GRAMMAR_H
#define LC_ENGINE_GRAMMAR_H

#include "base/json.h"
#include "text/tokenizer.h"

/* The bytes of all tokens as a tree. One for a tokenizer; immutable. LC_EUNSUPPORTED: a byte has no
 * token of its own (then an answer could get stuck). */
typedef struct lc_grammar_vocab lc_grammar_vocab;
int lc_grammar_vocab_new(const lc_tokenizer *tokenizer, size_t vocab, const int32_t *eos,
                         size_t n_eos, lc_grammar_vocab **out, lc_err *err);
void lc_grammar_vocab_free(lc_grammar_vocab *vocab);

typedef enum lc_grammar_kind {
    LC_GRAMMAR_OBJECT, /* any JSON object */
    LC_GRAMMAR_SCHEMA, /* JSON that validates against `schema` */
    LC_GRAMMAR_TOOLS,  /* one or more calls of `tools`, in tags */
} lc_grammar_kind;

typedef struct lc_grammar_spec {
    lc_grammar_kind kind;
    struct json_object *schema; /* SCHEMA; borrowed during the call */
    /* Array of {"type":"function","function":{...}}. With the other kinds NULL, or calls may stand
     * in place of the JSON. */
    struct json_object *tools;
    const char *tool; /* only this one; NULL = any */
    bool parallel;    /* more than one call may follow */
    bool text_before; /* TOOLS: free text may come first, and no call need follow */
    double seconds;   /* limit of compilation, processor time; 0 = 0.2 s */
    size_t bytes;     /* 0 = 64 MiB */
} lc_grammar_spec;

typedef struct lc_grammar lc_grammar;
/* LC_EINVAL / LC_EUNSUPPORTED name the place in the schema ("schema.properties.a.pattern") and the
 * keyword; LC_ELIMIT the limit. Which keywords are enforced, and which are known and not enforced,
 * is in docs/grammar.md; any other is refused. */
int lc_grammar_new(const lc_grammar_vocab *vocab, const lc_grammar_spec *spec, lc_grammar **out,
                   lc_err *err);
void lc_grammar_free(lc_grammar *grammar);
/* Tokens that the shortest answer takes at most. */
size_t lc_grammar_shortest(const lc_grammar *grammar);

typedef struct lc_grammar_state lc_grammar_state;
int lc_grammar_begin(const lc_grammar *grammar, lc_grammar_state **out, lc_err *err);
void lc_grammar_state_free(lc_grammar_state *state);
/* mask [ceil(V/64)]: bit of each token that may follow when `left` tokens may still be generated;
 * EOS tokens where the answer may end. At least one bit is set as long as left never was below
 * lc_grammar_shortest at the beginning. */
int lc_grammar_mask(lc_grammar_state *state, size_t left, uint64_t *mask, lc_err *err);
/* The token was chosen. LC_EINVAL if the grammar doesn't allow it. */
int lc_grammar_accept(lc_grammar_state *state, int32_t token, lc_err *err);
bool lc_grammar_complete(const lc_grammar_state *state); /* only an EOS may follow */

#endif
