/*
 * fuzz_shard.c: first byte 1: the rest is a manifest.json beside a good shard; else it is a shard.
 * Where the lowest bit but one of it is set, the checksums of header, index and documents are made
 * right first, since no fuzzer finds them. What is accepted must keep the bargain of shard.h.
 */
#include "base/mem.h"
#include "train/data.h"
#include "train/shard_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok) {
    if (!ok) abort();
}

static const char *folder(void) {
    static char path[] = "/tmp/longcat-fuzz-XXXXXX";
    static bool made;
    if (!made) require(mkdtemp(path) != NULL);
    made = true;
    return path;
}

static void put(const char *name, const void *data, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}

/* Right checksums wherever the numbers allow it. */
static void mend(uint8_t *file, size_t size) {
    lc_shard_head h;
    if (size < sizeof h) return;
    memcpy(&h, file, sizeof h);
    if (h.documents < 1 << 20 && h.tokens < 1 << 20 && h.token_bytes <= 8) {
        lc_shard_layout at = lc_shard_plan(&h);
        size_t index = h.documents * sizeof(lc_shard_entry);
        if (at.index <= size && index <= size - at.index)
            h.index_sum = XXH3_64bits(file + at.index, index);
    }
    h.sum = XXH3_64bits(&h, offsetof(lc_shard_head, sum));
    memcpy(file, &h, sizeof h);
}

static void use_shard(const uint8_t *data, size_t size, bool mended) {
    lc_shard *s;
    lc_err err = {0};
    char path[128];
    uint8_t *copy = malloc(size + 1);
    if (!copy) return;
    memcpy(copy, data, size);
    if (mended) mend(copy, size);
    put("f.tokens", copy, size);
    free(copy);
    snprintf(path, sizeof path, "%s/f.tokens", folder());
    if (lc_shard_open(path, &s, &err) != LC_OK) {
        require(s == NULL && err.text[0]);
        return;
    }
    uint64_t sum = 0;
    for (uint64_t d = 0; d < lc_shard_documents(s); d++) {
        size_t n = lc_shard_length(s, d);
        int32_t *tokens = malloc(n * sizeof *tokens);
        uint8_t *mask = malloc(n);
        require(n > 0 && n <= size && tokens && mask);
        lc_shard_part part = {d, 0, n, tokens, mask};
        if (lc_shard_read(s, &part, &err) == LC_OK)
            for (size_t i = 0; i < n; i++)
                require(tokens[i] >= 0 && (uint32_t)tokens[i] < lc_shard_what(s)->vocab &&
                        mask[i] <= 1);
        free(tokens);
        free(mask);
        sum += n;
    }
    require(sum == lc_shard_tokens(s));
    lc_shard_close(s);
}

static void use_manifest(const uint8_t *data, size_t size) {
    static const int32_t tokens[] = {5, 6, 2};
    const lc_shard_kind kind = {2, 10, 2, {0}};
    const lc_train_source source = {folder(), 1, false, 0};
    const lc_train_spec spec = {&source, 1, 1, 8, 1, 16};
    lc_train_data *train;
    lc_shard_writer *w;
    lc_err err = {0};
    uint64_t checksum;
    char path[128];
    snprintf(path, sizeof path, "%s/0.tokens", folder());
    if (access(path, F_OK)) {
        require(lc_shard_create(path, &kind, 0, &w, &err) == LC_OK);
        require(lc_shard_add(w, tokens, NULL, 3, &err) == LC_OK);
        require(lc_shard_finish(w, &checksum, &err) == LC_OK);
    }
    put("manifest.json", data, size);
    if (lc_train_data_open(&spec, &train, &err) == LC_OK) {
        int32_t ids[9], starts[9];
        uint8_t mask[9];
        lc_train_row row = {.tokens = ids, .starts = starts, .mask = mask};
        require(lc_train_sequence(train, 77, &row, &err) == LC_OK);
    }
    lc_train_data_close(train);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    if (data[0] & 1)
        use_manifest(data + 1, size - 1);
    else
        use_shard(data + 1, size - 1, data[0] & 2);
    require(lc_mem_current() == 0);
    return 0;
}
