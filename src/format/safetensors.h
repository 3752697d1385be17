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

/* Writes one file: header padded with spaces to 8 bytes, tensors in the given order after sorting
 * by descending element size (so all are aligned); name, dtype, rank, shape and data of each are
 * used. Written to path.part, synced, renamed. */
int lc_safetensors_write(const char *path, const lc_tensor *tensors, size_t count, lc_err *err);

/* The same for data that comes in pieces, in any order: path.part is made at its full size, holes
 * are zeros. `tensors` (without data) and their names are not needed after the call. */
typedef struct lc_safetensors_writer lc_safetensors_writer;
int lc_safetensors_writer_open(const char *path, const lc_tensor *tensors, size_t count,
                               lc_safetensors_writer **out, lc_err *err);
/* Bytes offset .. offset+size-1 of tensor i. Several threads may write different bytes. */
int lc_safetensors_writer_put(lc_safetensors_writer *writer, size_t i, size_t offset,
                              const void *data, size_t size, lc_err *err);
/* Frees the writer. keep: syncs and renames, or fails; else path.part is removed. */
int lc_safetensors_writer_close(lc_safetensors_writer *writer, bool keep, lc_err *err);
/* Size of the file that writer_open makes; 0 after an error. */
size_t lc_safetensors_size(const lc_tensor *tensors, size_t count, lc_err *err);

#endif
