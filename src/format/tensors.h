/*
 * tensors.h: inside of lc_tensors, shared by safetensors.c (one file) and shards.c (index and
 * folder). Not for other folders.
 *
 * Tensors are one array, sorted by name when all files are in; names and file paths live in blocks
 * that the files own, so pointers to them stay valid while the array grows.
 */
#ifndef LC_FORMAT_TENSORS_H
#define LC_FORMAT_TENSORS_H

#include "format/safetensors.h"

enum { LC_MAX_HEADER = 100000000, LC_MAX_NAME = 1000 };

/* Names are shown in terminals: 1 to LC_MAX_NAME bytes of UTF-8 without control
 * characters (C0, DEL, C1). */
bool lc_tensor_name_ok(const char *name);

typedef struct lc_tensor_file {
    char *path;
    void *map; /* NULL for lc_tensors_parse, whose bytes are the caller's */
    size_t size;
    char *pool; /* names */
} lc_tensor_file;

struct lc_tensors {
    lc_tensor *items;
    size_t count, cap;
    lc_tensor_file *files;
    size_t n_files, cap_files;
    size_t bytes; /* of all tensors */
    lc_quant quant;
    char *aliases; /* names that aliases.c made, or NULL */
};

/* aliases.c: gives MLX's tensors the names that the rest of the program knows. After
 * lc_tensors_finish, which it repeats. */
int lc_tensors_alias(lc_tensors *tensors, lc_err *err);

/* Maps one safetensors file and adds its tensors. On failure the file is closed with the rest. */
int lc_tensors_add_file(lc_tensors *tensors, const char *path, lc_err *err);
/* Sorts by name and refuses duplicates. */
int lc_tensors_finish(lc_tensors *tensors, lc_err *err);

/* A shard index: entry i says that tensor names[i] is in shards[i]. */
typedef struct lc_shard_index {
    struct lc_shard_entry {
        const char *tensor, *shard;
    } * entries;
    size_t count, cap;
    char *pool;
} lc_shard_index;

/* Reads an index from memory and sorts it by shard; shard names are plain file names. Release with
 * lc_shard_index_free, also after a failure. */
int lc_shard_index_parse(const char *text, size_t len, const char *name, lc_shard_index *out,
                         lc_err *err);
void lc_shard_index_free(lc_shard_index *index);

#endif
