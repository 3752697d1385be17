/*
 * safetensors.h: reading and writing safetensors, single files and sharded checkpoints. Files are
 * hostile input: every size is checked against the file before use. Data is memory-mapped,
 * read-only, and never copied here.
 *
 * Refused with a clear error: header longer than 100 MB or than the file, duplicate names, unknown
 * dtypes of tensors that are asked for, shape products that overflow, offsets that overlap, leave
 * gaps, or differ from shape x dtype, index entries that name a missing shard or a shard outside
 * the folder.
 *
 * Checkpoints of mlx-lm keep some tensors under other names, experts stacked in one: they are
 * listed as in all other checkpoints (aliases.c), a stacked expert as a tensor of its own.
 */
#ifndef LC_FORMAT_SAFETENSORS_H
#define LC_FORMAT_SAFETENSORS_H

#include "format/dtype.h"
#include "format/quant.h"

enum { LC_MAX_RANK = 8 };

typedef struct lc_tensor {
    const char *name;       /* without control characters */
    lc_dtype dtype;         /* LC_DTYPE_COUNT: one that this program doesn't read */
    const char *dtype_name; /* as spelled in the file; not used by lc_safetensors_write */
    int rank;
    size_t shape[LC_MAX_RANK];
    size_t count;     /* elements */
    const void *data; /* mapped; may be unaligned */
    size_t size;      /* bytes */
    const char *file; /* path of the file that holds it */
} lc_tensor;

typedef struct lc_tensors lc_tensors;

/* path: a .safetensors file, a model.safetensors.index.json, or a folder that holds either. *out
 * owned by the caller; lc_tensor pointers and their data live until lc_tensors_close. */
int lc_tensors_open(const char *path, lc_tensors **out, lc_err *err);
/* Whether the folder holds a file that lc_tensors_open would take. */
bool lc_tensors_exist(const char *folder);
/* lc_tensors_open for one file that is already in memory; bytes must outlive *out. name is used in
 * messages and as the tensors' file. */
int lc_tensors_parse(const void *bytes, size_t size, const char *name, lc_tensors **out,
                     lc_err *err);
void lc_tensors_close(lc_tensors *tensors);
size_t lc_tensors_count(const lc_tensors *tensors);
/* In name order; all are elements of one array. */
const lc_tensor *lc_tensors_at(const lc_tensors *tensors, size_t i);
const lc_tensor *lc_tensors_find(const lc_tensors *tensors, const char *name); /* NULL if absent */
size_t lc_tensors_bytes(const lc_tensors *tensors); /* sum over all files */
/* What the checkpoint's config says about quantised weights; for binding them. */
void lc_tensors_set_quant(lc_tensors *tensors, const lc_quant *quant);

/* Writes one file: header padded with spaces, so that data begins at a multiple of 64 bytes;
 * tensors by descending power of two that divides their size, up to 64, then in the given order: so
 * each begins at a multiple of it; name, dtype, rank, shape and data of each are used. Written to
 * path.part, synced, renamed. */
int lc_safetensors_write(const char *path, const lc_tensor *tensors, size_t count, lc_err *err);

/*
 * The same file in pieces, for what is larger than memory. create writes the header (the tensors'
 * data is not used, their names and shapes only during the call); put writes bytes offset ..
 * offset + size - 1 of the tensor at that place of the list, in any order, from several threads at
 * a time; commit fails with LC_EINVAL unless as many bytes were put as the tensors have, syncs and
 * renames. commit and discard both free the file; discard leaves nothing behind.
 */
typedef struct lc_safetensors_file lc_safetensors_file;
int lc_safetensors_create(const char *path, const lc_tensor *tensors, size_t count,
                          lc_safetensors_file **out, lc_err *err);
int lc_safetensors_put(lc_safetensors_file *file, size_t tensor, size_t offset, const void *data,
                       size_t size, lc_err *err);
int lc_safetensors_commit(lc_safetensors_file *file, lc_err *err);
void lc_safetensors_discard(lc_safetensors_file *file);

#endif
