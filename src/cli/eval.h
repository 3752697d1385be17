/* eval.h: the subcommands of `longcat eval`, in files eval_*.c, and what they share. */
#ifndef LC_CLI_EVAL_H
#define LC_CLI_EVAL_H

#include "cli/engine_options.h"
#include "format/safetensors.h"

int lc_eval_logits_cmd(int argc, char **argv);
int lc_eval_hash_cmd(int argc, char **argv);
int lc_eval_draft_cmd(int argc, char **argv);
int lc_eval_ppl_cmd(int argc, char **argv);
int lc_eval_kl_cmd(int argc, char **argv);
int lc_eval_grad_cmd(int argc, char **argv);
int lc_eval_steps_cmd(int argc, char **argv);

/* A tensor of I64 or I32 as int32 (lc_free). path is for messages. */
int lc_eval_read_ids(const lc_tensor *t, const char *path, int32_t **out, lc_err *err);

/* One hash of all weights of a model folder, decoded to fp32: a training checkpoint's own fp32
 * weights, where it has them. */
int lc_eval_hash_weights(const char *model, char hex[65], lc_err *err);

#endif
