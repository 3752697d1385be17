/* checkpoint_parts.h: between checkpoint.c (folders, manifests) and checkpoint_tensors.c. Not for
 * other files. */
#ifndef LC_TRAIN_CHECKPOINT_PARTS_H
#define LC_TRAIN_CHECKPOINT_PARTS_H

#include "train/checkpoint.h"

#define LC_CHECKPOINT_MODEL "model.safetensors"
#define LC_CHECKPOINT_STATE "state.safetensors"

int lc_checkpoint_put_model(const char *path, const lc_params *params, bool bf16, lc_err *err);
int lc_checkpoint_put_state(const char *path, const lc_optim *optim, lc_err *err);
int lc_checkpoint_get_state(const char *path, lc_optim *optim, lc_err *err);

#endif
