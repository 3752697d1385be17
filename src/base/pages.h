/*
 * pages.h: what is read from end to end should lie in large pages (2 MB on x86): small ones cost a
 * walk through tables every 4 KB, and a thread then reads 20 to 25 GB/s instead of 33 (decision
 * 017). A file that is mapped has them where the page cache has: if it was read from disk in such
 * pieces, not if it was written in small ones. All of this is advice; where the system knows none,
 * nothing happens.
 */
#ifndef LC_BASE_PAGES_H
#define LC_BASE_PAGES_H

#include "longcat.h"

/* Of memory or a part of a mapping: it will be read from end to end, large pages are wanted where
 * whole ones fit; or its rows are looked up here and there, and a row should not bring 2 MB with
 * it. */
void lc_pages_want(const void *at, size_t bytes, bool large);

/* A file of that size was written and synced: if it is large it leaves the page cache, so that
 * whoever reads it next gets large pages. */
void lc_pages_forget(int fd, uint64_t bytes);

/* Bytes of mapped files that this process has in large pages, 0 if the system doesn't tell. */
uint64_t lc_pages_large(void);

#endif
