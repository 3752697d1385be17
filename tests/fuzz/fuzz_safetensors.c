/*
 * fuzz_safetensors.c: first byte even: the rest is a safetensors file, else a shard index. What is
 * accepted must keep the bargain of safetensors.c, and every tensor must be bindable or refused.
 */
#include "base/mem.h"
#include "format/mat.h"
#include "format/tensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok) {
    if (!ok) abort();
}

static void use_file(const uint8_t *bytes, size_t size) {
    lc_tensors *tensors;
    lc_err err;
    if (lc_tensors_parse(bytes, size, "fuzz", &tensors, &err) != LC_OK) {
        require(tensors == NULL && err.text[0]);
        return;
    }
    size_t sum = 0;
    for (size_t i = 0; i < lc_tensors_count(tensors); i++) {
        const lc_tensor *t = lc_tensors_at(tensors, i);
        const uint8_t *p = t->data;
        require(p >= bytes && t->size <= size && p + t->size <= bytes + size);
        require(lc_tensors_find(tensors, t->name) == t);
        sum += t->size;
        size_t rows = t->rank == 2 ? t->shape[0] : 1, cols = t->rank ? t->shape[t->rank - 1] : 1;
        lc_mat mat;
        if (lc_mat_bind(tensors, t->name, rows, cols, &mat, &err) != LC_OK) continue;
        float *row = malloc(cols * sizeof *row);
        for (size_t r = 0; row && r < rows; r++) lc_mat_row_f32(&mat, r, row);
        require(lc_mat_bytes(&mat) >= t->size);
        free(row);
        lc_mat_unbind(&mat);
    }
    require(sum == lc_tensors_bytes(tensors) && sum < size);
    lc_tensors_close(tensors);
}

static void use_index(const char *text, size_t size) {
    lc_shard_index index;
    lc_err err;
    if (lc_shard_index_parse(text, size, "fuzz", &index, &err) == LC_OK)
        for (size_t i = 0; i < index.count; i++)
            require(!strchr(index.entries[i].shard, '/') && index.entries[i].shard[0] != '.');
    lc_shard_index_free(&index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    uint8_t *copy = malloc(size); /* exactly: reads past the end are seen */
    if (!copy) return 0;
    memcpy(copy, data + 1, size - 1);
    if (data[0] & 1)
        use_index((const char *)copy, size - 1);
    else
        use_file(copy, size - 1);
    free(copy);
    require(lc_mem_current() == 0);
    return 0;
}
