/*
 * prompt.h: a canonical request (api.h) to the tokens that the model reads: the checkpoint's own
 * chat template, user data sanitized, and the exact tokens of answers that this server gave
 * (replay.h), so that a conversation's next turn extends the last one.
 */
#ifndef LC_SERVER_PROMPT_H
#define LC_SERVER_PROMPT_H

#include "server/api.h"
#include "server/replay.h"
#include "text/chat.h"

typedef struct lc_prompter {
    const lc_chat_template *tmpl; /* NULL: completions only */
    const lc_tokenizer *tokenizer;
    lc_replay *replay;
    const int32_t *eos;
    size_t n_eos;
    int32_t start; /* special token that opens an assistant turn, or -1: then nothing is replayed */
    int32_t think, think_end; /* ids of the tags, or -1 */
} lc_prompter;

/* Finds the ids. Everything is borrowed. */
int lc_prompter_init(lc_prompter *p, const lc_chat_template *tmpl, const lc_tokenizer *tokenizer,
                     lc_replay *replay, const int32_t *eos, size_t n_eos, lc_err *err);

/* Appends the prompt of a chat. plain: reasoning is switched off (answers under a grammar).
 * *head: where, in out, what the template wrote behind the last turn's start begins: a replay is
 * out[head..] and the sampled tokens. LC_EINVAL: the template refuses the conversation. */
int lc_prompt_chat(const lc_prompter *p, uint64_t tenant, const lc_api_request *request, bool plain,
                   lc_ids *out, size_t *head, lc_err *err);
/* Whether the client has written the beginning of the answer: it is continued. */
bool lc_prompt_continues(const lc_api_request *request);
/* Whether the prompt ends inside a think block. */
bool lc_prompt_thinks(const lc_prompter *p, const lc_ids *prompt, size_t head);

#endif
