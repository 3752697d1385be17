/* cmd_eval.c: `longcat eval SUBCOMMAND`: the table of subcommands and what they share. */
#include "cli/eval.h"

#include <string.h>

static const lc_subcommand commands[] = {
    {"ppl", lc_eval_ppl_cmd, "perplexity of a text: nats per token, bits per byte"},
    {"kl", lc_eval_kl_cmd, "how far a model's predictions are from another one's on a text"},
    {"needle", lc_eval_needle_cmd, "a key found again in long filler text, by length and depth"},
    {"complete", lc_eval_complete_cmd, "greedy completions of the beginnings of files"},
    {"logits", lc_eval_logits_cmd, "logits and activations of token ids, as safetensors"},
    {"hash", lc_eval_hash_cmd, "one hash of the bits of those logits, or of all weights"},
    {"grammar", lc_eval_grammar_cmd, "answers that a JSON schema admits, drawn at random"},
    {"draft", lc_eval_draft_cmd, "the draft module's chain behind token ids"},
    {"grad", lc_eval_grad_cmd, "losses and gradients of a batch, as safetensors"},
    {"steps", lc_eval_steps_cmd, "a few optimiser steps: losses and weights after each"},
    {0},
};

int lc_cmd_eval(int argc, char **argv) {
    return lc_cli_subcommand("eval", commands, "", argc, argv);
}

int lc_eval_read_ids(const lc_tensor *t, const char *path, int32_t **out, lc_err *err) {
    *out = NULL;
    if (t->dtype != LC_I64 && t->dtype != LC_I32)
        return lc_fail(err, LC_EFORMAT, "%s: %s is %s, must be I64 or I32", path, t->name,
                       t->dtype_name);
    *out = lc_calloc(t->count ? t->count : 1, sizeof **out);
    if (!*out) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < t->count; i++) {
        int64_t value = 0;
        if (t->dtype == LC_I32)
            memcpy(&(*out)[i], (const char *)t->data + i * 4, 4);
        else
            memcpy(&value, (const char *)t->data + i * 8, 8);
        if (value < INT32_MIN || value > INT32_MAX)
            return lc_fail(err, LC_EFORMAT, "%s: %s[%zu] = %lld is no token id", path, t->name, i,
                           (long long)value);
        if (t->dtype == LC_I64) (*out)[i] = (int32_t)value;
    }
    return LC_OK;
}
