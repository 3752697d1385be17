/*
 * buf.h: growable byte strings and id lists. A failed append sets `failed` and later appends do
 * nothing, so callers check once at the end.
 */
#ifndef LC_BASE_BUF_H
#define LC_BASE_BUF_H

#include "base/mem.h"

/* Zero-initialise. data is NUL-terminated whenever it is not NULL. limit 0 = unlimited bytes. */
typedef struct lc_buf {
    char *data;
    size_t len, cap, limit;
    bool failed;
} lc_buf;

bool lc_buf_reserve(lc_buf *buf, size_t extra);
bool lc_buf_append(lc_buf *buf, const void *bytes, size_t len);
bool lc_buf_puts(lc_buf *buf, const char *text);
bool lc_buf_putc(lc_buf *buf, char c);
bool lc_buf_printf(lc_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void lc_buf_clear(lc_buf *buf); /* keeps the memory, resets failed */
void lc_buf_free(lc_buf *buf);

/* Token ids. Zero-initialise. */
typedef struct lc_ids {
    int32_t *data;
    size_t len, cap;
    bool failed;
    size_t most;  /* encoding gives up (LC_ELIMIT) on what has more for certain; 0: never */
    size_t least; /* then: how many it has at least */
} lc_ids;

bool lc_ids_push(lc_ids *ids, int32_t id);
bool lc_ids_append(lc_ids *ids, const int32_t *data, size_t len);
void lc_ids_free(lc_ids *ids);

#endif
