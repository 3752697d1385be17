/*
 * safetensors.c: one safetensors file: mapping it, reading its header, and the sorted table of
 * tensors. Layout: 8 bytes header length (little endian), JSON header, data.
 *
 * Bargain: the header is trusted in nothing. After a file is accepted, every tensor's bytes lie in
 * the file, they tile the data exactly, and names are unique, so that later code needs no checks.
 * A file that another process truncates while it is mapped is outside of this (SIGBUS).
 * Sharded checkpoints are in shards.c, writing is in safetensors_write.c.
 */
#include "format/tensors.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/pages.h"
#include "base/utf8.h"
#include "format/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PREFIX = 8 };

/* A file on its way into the table. */
typedef struct reader {
    lc_tensors *tensors;
    const char *path;
    const unsigned char *data; /* after the header */
    size_t data_size, first;   /* first = index of its first tensor */
    lc_scan scan;
    lc_err *err;
} reader;

static int bad(reader *r, const char *tensor, const char *problem) {
    return lc_fail(r->err, LC_EFORMAT, "%s: tensor %s: %s", r->path, tensor, problem);
}

/* A problem of the scanner as an error. */
static int bad_text(reader *r) {
    return lc_fail(r->err, LC_EFORMAT, "%s: header: %s at byte %zu", r->path, r->scan.problem,
                   r->scan.pos + PREFIX);
}

bool lc_tensor_name_ok(const char *name) {
    size_t len = strlen(name), used;
    if (!len || len > LC_MAX_NAME) return false;
    for (size_t i = 0; i < len; i += used) {
        int32_t code = lc_utf8_decode(name + i, len - i, &used);
        if (code < 0x20 || (code >= 0x7f && code < 0xa0)) return false;
    }
    return true;
}

static lc_tensor *push(lc_tensors *tensors) {
    if (tensors->count == tensors->cap) {
        size_t cap = tensors->cap ? tensors->cap + tensors->cap / 2 : 256;
        lc_tensor *items = lc_realloc(tensors->items, cap, sizeof *items);
        if (!items) return NULL;
        tensors->items = items;
        tensors->cap = cap;
    }
    lc_tensor *t = &tensors->items[tensors->count++];
    *t = (lc_tensor){0};
    return t;
}

static bool scan_shape(lc_scan *scan, lc_tensor *t) {
    if (!lc_scan_take(scan, '[')) return false;
    if (lc_scan_try(scan, ']')) return true;
    do {
        uint64_t dim;
        if (t->rank == LC_MAX_RANK) return lc_scan_fail(scan, "more than 8 dimensions");
        if (!lc_scan_uint(scan, &dim)) return false;
        if (dim > SIZE_MAX) return lc_scan_fail(scan, "dimension too large");
        t->shape[t->rank++] = (size_t)dim;
    } while (lc_scan_try(scan, ','));
    return lc_scan_take(scan, ']');
}

static bool scan_offsets(lc_scan *scan, uint64_t offsets[2]) {
    return lc_scan_take(scan, '[') && lc_scan_uint(scan, &offsets[0]) && lc_scan_take(scan, ',') &&
           lc_scan_uint(scan, &offsets[1]) && lc_scan_take(scan, ']');
}

/* {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, in any order, each once. */
static bool scan_entry(lc_scan *scan, lc_tensor *t, uint64_t offsets[2]) {
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4, ALL = 7 };
    int seen = 0, field;
    bool ok = lc_scan_take(scan, '{');
    while (ok) {
        const char *key;
        size_t used = scan->used;
        if (!lc_scan_string(scan, &key) || !lc_scan_take(scan, ':')) return false;
        if (!strcmp(key, "dtype"))
            field = DTYPE;
        else if (!strcmp(key, "shape"))
            field = SHAPE;
        else if (!strcmp(key, "data_offsets"))
            field = OFFSETS;
        else
            return lc_scan_fail(scan, "unknown key in a tensor's entry");
        if (seen & field) return lc_scan_fail(scan, "key given twice in a tensor's entry");
        seen |= field;
        scan->used = used; /* the key is no longer needed */
        if (field == DTYPE) {
            ok = lc_scan_string(scan, &t->dtype_name);
            if (ok && !lc_dtype_from_name(t->dtype_name, &t->dtype)) t->dtype = LC_DTYPE_COUNT;
        } else if (field == SHAPE) {
            ok = scan_shape(scan, t);
        } else {
            ok = scan_offsets(scan, offsets);
        }
        if (ok && !lc_scan_try(scan, ',')) {
            if (!lc_scan_take(scan, '}')) return false;
            return seen == ALL || lc_scan_fail(scan, "tensor without dtype, shape or data_offsets");
        }
    }
    return false;
}

/* Checks sizes and places the tensor in the file. */
static int place(reader *r, lc_tensor *t, const uint64_t offsets[2]) {
    size_t bytes;
    t->count = 1;
    for (int i = 0; i < t->rank; i++)
        if (!lc_size_mul(t->count, t->shape[i], &t->count))
            return bad(r, t->name, "its shape has 2^64 or more elements");
    if (offsets[0] > offsets[1] || offsets[1] > r->data_size)
        return lc_fail(r->err, LC_EFORMAT,
                       "%s: tensor %s: data_offsets [%llu, %llu] do not lie in the %zu bytes of "
                       "data (is the file cut off?)",
                       r->path, t->name, (unsigned long long)offsets[0],
                       (unsigned long long)offsets[1], r->data_size);
    t->size = (size_t)(offsets[1] - offsets[0]);
    t->data = r->data + offsets[0];
    t->file = r->path;
    if (t->dtype == LC_DTYPE_COUNT) {
        if (!lc_tensor_name_ok(t->dtype_name)) return bad(r, t->name, "dtype is not a name");
        return LC_OK; /* only refused when it is asked for */
    }
    t->dtype_name = lc_dtype_name(t->dtype);
    if (!lc_size_mul(t->count, lc_dtype_size(t->dtype), &bytes))
        return bad(r, t->name, "its shape has 2^64 or more bytes");
    if (bytes != t->size)
        return lc_fail(r->err, LC_EFORMAT,
                       "%s: tensor %s: shape and dtype %s need %zu bytes, data_offsets hold %zu",
                       r->path, t->name, t->dtype_name, bytes, t->size);
    return LC_OK;
}

/* "__metadata__": a flat object of strings; nothing here reads it. */
static bool scan_metadata(lc_scan *scan) {
    if (!lc_scan_take(scan, '{')) return false;
    if (lc_scan_try(scan, '}')) return true;
    do {
        if (!lc_scan_string(scan, NULL) || !lc_scan_take(scan, ':') || !lc_scan_string(scan, NULL))
            return false;
    } while (lc_scan_try(scan, ','));
    return lc_scan_take(scan, '}');
}

static int read_entries(reader *r) {
    bool metadata = false;
    if (!lc_scan_take(&r->scan, '{')) return bad_text(r);
    if (lc_scan_try(&r->scan, '}')) return lc_scan_end(&r->scan) ? LC_OK : bad_text(r);
    do {
        const char *name;
        uint64_t offsets[2] = {0};
        if (!lc_scan_string(&r->scan, &name) || !lc_scan_take(&r->scan, ':')) return bad_text(r);
        if (!strcmp(name, "__metadata__")) {
            if (metadata)
                return lc_fail(r->err, LC_EFORMAT, "%s: __metadata__ is given twice", r->path);
            metadata = true;
            if (!scan_metadata(&r->scan)) return bad_text(r);
            continue;
        }
        if (!lc_tensor_name_ok(name))
            return lc_fail(r->err, LC_EFORMAT,
                           "%s: header: a tensor's name before byte %zu is empty, longer than %d "
                           "bytes or has control characters",
                           r->path, r->scan.pos + PREFIX, LC_MAX_NAME);
        lc_tensor *t = push(r->tensors);
        if (!t) return lc_fail(r->err, LC_ENOMEM, "%s: out of memory", r->path);
        t->name = name;
        if (!scan_entry(&r->scan, t, offsets)) {
            bad_text(r);
            lc_err_prefix(r->err, "tensor %s", name);
            return LC_EFORMAT;
        }
        int status = place(r, t, offsets);
        if (status != LC_OK) return status;
    } while (lc_scan_try(&r->scan, ','));
    return lc_scan_take(&r->scan, '}') && lc_scan_end(&r->scan) ? LC_OK : bad_text(r);
}

static int by_place(const void *a, const void *b) {
    const lc_tensor *x = a, *y = b;
    const unsigned char *p = x->data, *q = y->data;
    if (p != q) return p < q ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const lc_tensor *)a)->name, ((const lc_tensor *)b)->name);
}

/* The tensors of the file must tile its data: no overlap, no gap, nothing left over. */
static int check_tiling(reader *r) {
    size_t n = r->tensors->count - r->first;
    lc_tensor *items = n ? r->tensors->items + r->first : NULL;
    const unsigned char *end = r->data, *last = r->data + r->data_size;
    if (n) qsort(items, n, sizeof *items, by_place);
    for (size_t i = 0; i < n; i++) {
        const unsigned char *begin = items[i].data;
        if (begin < end) return bad(r, items[i].name, "its data overlaps another tensor's");
        if (begin > end) return bad(r, items[i].name, "there is a gap in the data before it");
        end = begin + items[i].size;
        r->tensors->bytes += items[i].size;
    }
    if (end != last)
        return lc_fail(r->err, LC_EFORMAT, "%s: %zu bytes after the last tensor's data", r->path,
                       (size_t)(last - end));
    return LC_OK;
}

/* Adds the tensors of a file image whose path and size are already in `file`. */
static int read_image(lc_tensors *tensors, lc_tensor_file *file, const unsigned char *bytes,
                      lc_err *err) {
    uint64_t header = 0;
    if (file->size < PREFIX)
        return lc_fail(err, LC_EFORMAT, "%s: %zu bytes are too few for a safetensors file",
                       file->path, file->size);
    for (int i = 0; i < PREFIX; i++) header |= (uint64_t)bytes[i] << 8 * i;
    if (header > LC_MAX_HEADER)
        return lc_fail(err, LC_EFORMAT, "%s: header length %llu is above the limit of %d bytes",
                       file->path, (unsigned long long)header, LC_MAX_HEADER);
    if (header > file->size - PREFIX)
        return lc_fail(err, LC_EFORMAT, "%s: header length %llu is larger than the file (%zu)",
                       file->path, (unsigned long long)header, file->size);
    size_t length = (size_t)header;
    file->pool = lc_alloc(length + 1);
    if (!file->pool) return lc_fail(err, LC_ENOMEM, "%s: out of memory", file->path);
    reader r = {
        .tensors = tensors,
        .path = file->path,
        .data = bytes + PREFIX + length,
        .data_size = file->size - PREFIX - length,
        .first = tensors->count,
        .scan = {.text = (const char *)bytes + PREFIX, .len = length, .pool = file->pool},
        .err = err,
    };
    int status = read_entries(&r);
    return status == LC_OK ? check_tiling(&r) : status;
}

static lc_tensor_file *push_file(lc_tensors *tensors, const char *path) {
    if (tensors->n_files == tensors->cap_files) {
        size_t cap = tensors->cap_files ? 2 * tensors->cap_files : 8;
        lc_tensor_file *files = lc_realloc(tensors->files, cap, sizeof *files);
        if (!files) return NULL;
        tensors->files = files;
        tensors->cap_files = cap;
    }
    lc_tensor_file *file = &tensors->files[tensors->n_files];
    *file = (lc_tensor_file){.path = lc_strdup(path)};
    if (!file->path) return NULL;
    tensors->n_files++;
    return file;
}

int lc_tensors_add_file(lc_tensors *tensors, const char *path, lc_err *err) {
    struct stat st;
    lc_tensor_file *file = push_file(tensors, path);
    if (!file) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block */
    if (fd < 0) return lc_fail_errno(err, errno == ENOENT ? LC_ENOTFOUND : LC_EIO, "%s", path);
    int status = LC_OK;
    if (fstat(fd, &st))
        status = lc_fail_errno(err, LC_EIO, "%s", path);
    else if (!S_ISREG(st.st_mode))
        status = lc_fail(err, LC_EFORMAT, "%s: not a regular file", path);
    else if (st.st_size < PREFIX)
        status = lc_fail(err, LC_EFORMAT, "%s: %lld bytes are too few for a safetensors file", path,
                         (long long)st.st_size);
    else if ((uint64_t)st.st_size > SIZE_MAX / 2)
        status = lc_fail(err, LC_ELIMIT, "%s: too large to map", path);
    if (status == LC_OK) {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            status = lc_fail_errno(err, LC_EIO, "%s: cannot be mapped", path);
        } else {
            lc_pages_want(map, (size_t)st.st_size, true);
            file->map = map;
            file->size = (size_t)st.st_size;
        }
    }
    close(fd);
    return status == LC_OK ? read_image(tensors, file, file->map, err) : status;
}

int lc_tensors_finish(lc_tensors *tensors, lc_err *err) {
    if (tensors->count) qsort(tensors->items, tensors->count, sizeof *tensors->items, by_name);
    for (size_t i = 1; i < tensors->count; i++) {
        const lc_tensor *a = &tensors->items[i - 1], *b = &tensors->items[i];
        if (!strcmp(a->name, b->name))
            return lc_fail(err, LC_EFORMAT, "%s: tensor %s is given twice%s%s", a->file, a->name,
                           a->file == b->file ? "" : ", also in ",
                           a->file == b->file ? "" : b->file);
    }
    return LC_OK;
}

int lc_tensors_parse(const void *bytes, size_t size, const char *name, lc_tensors **out,
                     lc_err *err) {
    *out = NULL;
    lc_tensors *tensors = lc_calloc(1, sizeof *tensors);
    lc_tensor_file *file = tensors ? push_file(tensors, name) : NULL;
    if (!file) {
        lc_tensors_close(tensors);
        return lc_fail(err, LC_ENOMEM, "%s: out of memory", name);
    }
    file->size = size;
    int status = read_image(tensors, file, bytes, err);
    if (status == LC_OK) status = lc_tensors_finish(tensors, err);
    if (status == LC_OK) status = lc_tensors_alias(tensors, err);
    if (status != LC_OK) {
        lc_tensors_close(tensors);
        return status;
    }
    *out = tensors;
    return LC_OK;
}

void lc_tensors_close(lc_tensors *tensors) {
    if (!tensors) return;
    for (size_t i = 0; i < tensors->n_files; i++) {
        lc_tensor_file *file = &tensors->files[i];
        if (file->map) munmap(file->map, file->size);
        lc_free(file->path);
        lc_free(file->pool);
    }
    lc_free(tensors->files);
    lc_free(tensors->items);
    lc_free(tensors->aliases);
    lc_free(tensors);
}

size_t lc_tensors_count(const lc_tensors *tensors) { return tensors->count; }
size_t lc_tensors_bytes(const lc_tensors *tensors) { return tensors->bytes; }
void lc_tensors_set_quant(lc_tensors *tensors, const lc_quant *quant) { tensors->quant = *quant; }

const lc_tensor *lc_tensors_at(const lc_tensors *tensors, size_t i) { return &tensors->items[i]; }

const lc_tensor *lc_tensors_find(const lc_tensors *tensors, const char *name) {
    size_t low = 0, high = tensors->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, tensors->items[middle].name);
        if (!order) return &tensors->items[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}
