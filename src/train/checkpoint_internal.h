/* checkpoint_internal.h: names and the manifest, for writing and reading. */
#ifndef LC_TRAIN_CHECKPOINT_INTERNAL_H
#define LC_TRAIN_CHECKPOINT_INTERNAL_H

#include "train/checkpoint.h"

#include "base/json.h"

#include <stdio.h>

#define LC_MANIFEST_NAME "manifest.json"
#define LC_MODEL_NAME "model.safetensors"
#define LC_STATE_NAME "state.safetensors"
#define LC_LOAD_NAME "expert_load" /* tensor of the state */
#define LC_MANIFEST_FORMAT "longcat-checkpoint"
/* The manifest ends with the hash of what stands before this. */
#define LC_MANIFEST_CHECK ",\n \"check\": \""

enum { LC_STEP_NAME = 32, LC_MANIFEST_VERSION = 1 };

static inline const char *lc_step_name(int64_t step, char out[LC_STEP_NAME]) {
    snprintf(out, LC_STEP_NAME, "step-%09lld", (long long)step);
    return out;
}

/* XXH3-128 of a file as hex. */
int lc_file_hash(const char *path, uint64_t *bytes, char hex[65], lc_err *err);

/* Folders of a run that have a step's name, in rising order; lc_free(*steps). */
int lc_checkpoint_list(const char *run, int64_t **steps, size_t *count, lc_err *err);
/* Position and list of files, without looking at the files. */
int lc_manifest_read(const char *folder, lc_position *out, struct json_object **files, lc_err *err);

#endif
