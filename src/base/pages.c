/* pages.c: advice to Linux. */
#include "base/pages.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LARGE = 2 << 20 };

void lc_pages_want(const void *at, size_t bytes, bool large) {
#ifdef MADV_HUGEPAGE
    size_t page = large ? LARGE : (size_t)sysconf(_SC_PAGESIZE);
    size_t before = (page - (uintptr_t)at % page) % page;
    if (bytes < before + page) return;
    char *first;
    memcpy(&first, &at, sizeof first); /* advice changes nothing that `at` points to */
    madvise(first + before, (bytes - before) / page * page,
            large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#else
    (void)at, (void)bytes, (void)large;
#endif
}

void lc_pages_forget(int fd, uint64_t bytes) {
#ifdef POSIX_FADV_DONTNEED
    if (bytes >= LARGE) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
#else
    (void)fd, (void)bytes;
#endif
}

uint64_t lc_pages_large(void) {
    char line[128];
    unsigned long long kilobytes = 0;
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "FilePmdMapped: %llu kB", &kilobytes) == 1) break;
    if (f) fclose(f);
    return (uint64_t)kilobytes << 10;
}
