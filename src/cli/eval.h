/* eval.h: the subcommands of `longcat eval`, in files eval_*.c, and what they share. */
#ifndef LC_CLI_EVAL_H
#define LC_CLI_EVAL_H

#include "cli/engine_options.h"
#include "engine/engine.h"
#include "format/safetensors.h"

int lc_eval_logits_cmd(int argc, char **argv);
int lc_eval_hash_cmd(int argc, char **argv);
int lc_eval_draft_cmd(int argc, char **argv);
int lc_eval_ppl_cmd(int argc, char **argv);
int lc_eval_kl_cmd(int argc, char **argv);
int lc_eval_grad_cmd(int argc, char **argv);
int lc_eval_steps_cmd(int argc, char **argv);
int lc_eval_needle_cmd(int argc, char **argv);
int lc_eval_complete_cmd(int argc, char **argv);
int lc_eval_grammar_cmd(int argc, char **argv);

/* A tensor of I64 or I32 as int32 (lc_free). path is for messages. */
int lc_eval_read_ids(const lc_tensor *t, const char *path, int32_t **out, lc_err *err);

/* One hash of all weights of a model folder, decoded to fp32: a training checkpoint's own fp32
 * weights, where it has them. */
int lc_eval_hash_weights(const char *model, char hex[65], lc_err *err);

/* ---- greedy answers ---- */

enum { LC_EVAL_DRAFTS = 8 };

/* How often draft step k + 1 was right, of the places where the steps before it were. */
typedef struct lc_eval_drafts {
    size_t asked[LC_EVAL_DRAFTS], right[LC_EVAL_DRAFTS];
} lc_eval_drafts;

typedef struct lc_eval_greedy {
    size_t max_tokens;
    bool one_line;          /* stop behind a newline */
    size_t drafts;          /* draft steps behind each token, up to LC_EVAL_DRAFTS; needs an engine
                               with drafts */
    lc_eval_drafts *counts; /* added to; may be NULL */
} lc_eval_greedy;

typedef struct lc_eval_answer {
    lc_ids ids;
    lc_buf text;                   /* data is NULL if nothing came */
    bool ended;                    /* by the model's own end of text */
    int32_t *drafts;               /* [max_tokens][drafts], -1 where none was made */
    double seconds, first_seconds; /* in all; until the first token */
    uint64_t prefilled;
} lc_eval_answer;

/* Free the answer in any case. The engine has a tokenizer. */
int lc_eval_greedy_answer(lc_session *session, const lc_ids *prompt, const lc_eval_greedy *how,
                          lc_eval_answer *answer, lc_err *err);
void lc_eval_answer_free(lc_eval_answer *answer);

#endif
