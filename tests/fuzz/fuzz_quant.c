/*
 * fuzz_quant.c: hostile companions of quantised weights. Byte 0: 16 settings of the config. Bytes 1
 * and 2: a shape to ask for. The rest is a safetensors file. Every weight that its names could mean
 * is bound with shapes that its codes could have; what is accepted must decode within its bytes,
 * one row at a time as in blocks.
 */
#include "base/mem.h"
#include "format/mat.h"
#include "format/tensors.h"

#include <stdlib.h>

enum { MAX_VALUES = 1 << 14, MAX_WEIGHTS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok) {
    if (!ok) abort();
}

static void use(const lc_tensors *tensors, const char *name, size_t rows, size_t cols) {
    lc_mat m, probe;
    lc_err err;
    if (!rows || !cols || cols > MAX_VALUES || rows > MAX_VALUES / cols) return;
    int status = lc_mat_bind(tensors, name, rows, cols, &m, &err);
    require(lc_mat_probe(tensors, name, rows, cols, &probe, &err) == status);
    if (status != LC_OK) {
        require(err.text[0] && !m.data && !m.halves);
        return;
    }
    float *one = malloc(rows * cols * sizeof *one), *all = malloc(rows * cols * sizeof *all);
    const lc_kernels *k = lc_kernels_of(LC_ISA_SCALAR);
    require(one && all);
    for (size_t r = 0; r < rows; r++) lc_mat_row_f32(&m, r, one + r * cols);
    lc_mat_rows_f32(k, &m, 0, rows, all, cols);
    require(!memcmp(one, all, rows * cols * sizeof *one));
    require(lc_mat_bytes(&m) <= lc_tensors_bytes(tensors) * 2);
    free(one);
    free(all);
    lc_mat_unbind(&m);
}

/* The weight that a tensor of codes may carry. */
static bool weight_name(const char *tensor, char out[1100]) {
    static const struct {
        const char *tail, *instead;
    } tails[] = {{"_packed", ""},
                 {"_strips", ""},
                 {".qweight", ".weight"},
                 {"embed_q.weight", "kv_b_proj.weight"},
                 {"", ""}};
    size_t len = strlen(tensor);
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        size_t tail = strlen(tails[i].tail);
        if (len < tail || strcmp(tensor + len - tail, tails[i].tail)) continue;
        int n = snprintf(out, 1100, "%.*s%s", (int)(len - tail), tensor, tails[i].instead);
        return n > 0 && n < 1100;
    }
    return false;
}

static void use_tensor(const lc_tensors *tensors, const lc_tensor *t, size_t rows, size_t cols) {
    char name[1100];
    if (t->rank < 2 || t->rank > 3 || !weight_name(t->name, name)) return;
    size_t a = t->shape[0], b = t->shape[1];
    use(tensors, name, rows, cols);
    use(tensors, name, a, b);
    if (a < MAX_VALUES && b < MAX_VALUES) {
        use(tensors, name, a, 8 * b);
        use(tensors, name, a, 8 * b - b % 8 - 1);
        use(tensors, name, a, 4 * b);
        use(tensors, name, b, 8 * a);
        use(tensors, name, b, 4 * a);
        use(tensors, name, rows, a);
        use(tensors, name, 16 * a - rows % 16, 8 * b); /* strips */
        use(tensors, name, 16 * a - rows % 16, 4 * b);
        use(tensors, name, 16 * a - rows % 16, 2 * b);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const size_t sizes[8] = {0, 8, 16, 32, 64, 128, 24, 7};
    if (size < 3) return 0;
    lc_quant quant = {.zeros_as_stored = data[0] & 8, .n_sizes = 2};
    quant.sizes[0] = sizes[data[0] & 7] ? sizes[data[0] & 7] : 1;
    quant.sizes[1] = sizes[data[0] >> 4 & 7] ? sizes[data[0] >> 4 & 7] : 1000;
    uint8_t *copy = malloc(size > 3 ? size - 3 : 1); /* exactly: reads past the end are seen */
    if (!copy) return 0;
    memcpy(copy, data + 3, size - 3);
    lc_tensors *tensors;
    lc_err err;
    if (lc_tensors_parse(copy, size - 3, "fuzz", &tensors, &err) == LC_OK) {
        lc_tensors_set_quant(tensors, &quant);
        size_t n = lc_tensors_count(tensors);
        for (size_t i = 0; i < n && i < MAX_WEIGHTS; i++)
            use_tensor(tensors, lc_tensors_at(tensors, i), data[1], data[2]);
        lc_tensors_close(tensors);
    }
    free(copy);
    require(lc_mem_current() == 0);
    return 0;
}
