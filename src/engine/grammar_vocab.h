/* grammar_vocab.h: a vocabulary as a tree of bytes; what grammar.c and grammar_tools.c see of it.
 */
#ifndef LC_ENGINE_GRAMMAR_VOCAB_H
#define LC_ENGINE_GRAMMAR_VOCAB_H

#include "engine/grammar.h"
#include "engine/grammar_rules.h"

/* In depth-first order: a node's children begin behind it, its subtree ends at `end`. */
typedef struct lc_vocab_node {
    uint8_t byte;
    uint32_t end;
    int32_t token; /* the first token that ends here, or -1 */
} lc_vocab_node;

typedef enum lc_tag {
    LC_TAG_CALL,
    LC_TAG_CALL_END,
    LC_TAG_KEY,
    LC_TAG_KEY_END,
    LC_TAG_VALUE,
    LC_TAG_VALUE_END,
    LC_TAG_COUNT,
} lc_tag;
extern const char *const lc_tag_texts[LC_TAG_COUNT];

struct lc_grammar_vocab {
    const lc_tokenizer *tokenizer;
    size_t vocab;
    lc_vocab_node *nodes;
    size_t n_nodes;
    int32_t *same;              /* [vocab] the next token with the same bytes, or -1 */
    uint8_t *apart;             /* [vocab] added tokens: not by their bytes */
    int32_t tags[LC_TAG_COUNT]; /* ids, or -1 */
    int32_t *eos;
    size_t n_eos;
};

/* grammar_tools.c: calls in tags. */
uint32_t lc_expr_calls(lc_rules *r, const lc_grammar_vocab *vocab, const lc_grammar_spec *spec);

#endif
