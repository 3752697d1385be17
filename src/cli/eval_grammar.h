/* eval_grammar.h: `longcat eval grammar`. */
#ifndef LC_CLI_EVAL_GRAMMAR_H
#define LC_CLI_EVAL_GRAMMAR_H

#include "base/err.h"

#include <stdint.h>

typedef struct lc_eval_grammar {
    const char *model, *schema; /* folder or tokenizer.json; JSON file */
    int64_t count, tokens;      /* answers, and the most tokens of each beyond the shortest */
    int64_t seed;
} lc_eval_grammar;
/* Prints answers that the schema admits, drawn at random, one JSON text a line. */
int lc_eval_grammar_run(const lc_eval_grammar *how, lc_err *err);

#endif
