/*
 * fuzz_cache.c: a file of the prompt cache with any content. It must be refused and removed, or be
 * the whole block: what is accepted has its key, its length and the hashes that it states.
 */
#include "store/cache_internal.h"

#include "base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PAYLOAD = 256 };

static void ignore(void *ctx, const lc_cache_key *key, uint64_t used_ns) {
    (void)ctx, (void)key, (void)used_ns;
}

static char folder[] = "/tmp/longcat-fuzz-XXXXXX", path[100];

static void remove_folder(void) {
    char sub[64];
    unlink(path);
    for (unsigned i = 0; i < 256; i++) {
        snprintf(sub, sizeof sub, "%s/%02x", folder, i);
        rmdir(sub);
    }
    rmdir(folder);
}

static lc_disk *open_disk(void) {
    lc_disk *disk = NULL;
    lc_err err = {0};
    if (!mkdtemp(folder) || lc_disk_open(folder, PAYLOAD, ignore, NULL, &disk, &err) != LC_OK)
        abort();
    atexit(remove_folder);
    snprintf(path, sizeof path, "%s/00/00000000000000000000000000000000.kv", folder);
    return disk;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static lc_disk *disk;
    if (!disk) disk = open_disk();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    close(fd);
    const lc_cache_key key = {{0}};
    lc_disk_block block = {.data = lc_alloc(PAYLOAD)};
    bool damaged = false;
    bool whole = lc_disk_read(disk, &key, &block, &damaged);
    if (whole == damaged) abort();                   /* one of the two */
    if (damaged && access(path, F_OK) == 0) abort(); /* and removed */
    if (whole && size != lc_disk_file_bytes(disk)) abort();
    lc_free(block.data);
    return 0;
}
