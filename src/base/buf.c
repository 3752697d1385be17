/* buf.c: growable byte strings, id lists. */
#include "base/buf.h"

#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool lc_buf_reserve(lc_buf *buf, size_t extra) {
    size_t need;
    if (buf->failed) return false;
    if (!lc_size_add(buf->len, extra, &need) || (buf->limit && need > buf->limit) ||
        !lc_size_add(need, 1, &need)) {
        buf->failed = true;
        return false;
    }
    if (need <= buf->cap) return true;
    size_t cap = buf->cap ? buf->cap + buf->cap / 2 : 64;
    if (cap < need) cap = need;
    char *data = lc_realloc(buf->data, cap, 1);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    buf->data[buf->len] = 0;
    return true;
}

bool lc_buf_append(lc_buf *buf, const void *bytes, size_t len) {
    if (!lc_buf_reserve(buf, len)) return false;
    if (len) memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = 0;
    return true;
}

bool lc_buf_puts(lc_buf *buf, const char *text) { return lc_buf_append(buf, text, strlen(text)); }
bool lc_buf_putc(lc_buf *buf, char c) { return lc_buf_append(buf, &c, 1); }

bool lc_buf_printf(lc_buf *buf, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    bool ok = len >= 0 && lc_buf_reserve(buf, (size_t)len);
    if (ok) {
        vsnprintf(buf->data + buf->len, (size_t)len + 1, fmt, again);
        buf->len += (size_t)len;
    }
    va_end(again);
    return ok;
}

void lc_buf_clear(lc_buf *buf) {
    buf->len = 0;
    buf->failed = false;
    if (buf->data) buf->data[0] = 0;
}

void lc_buf_free(lc_buf *buf) {
    lc_free(buf->data);
    *buf = (lc_buf){.limit = buf->limit};
}

bool lc_ids_append(lc_ids *ids, const int32_t *data, size_t len) {
    size_t need;
    if (ids->failed || !lc_size_add(ids->len, len, &need)) {
        ids->failed = true;
        return false;
    }
    if (need > ids->cap) {
        size_t cap = ids->cap ? ids->cap + ids->cap / 2 : 64;
        if (cap < need) cap = need;
        int32_t *grown = lc_realloc(ids->data, cap, sizeof *grown);
        if (!grown) {
            ids->failed = true;
            return false;
        }
        ids->data = grown;
        ids->cap = cap;
    }
    if (len) memcpy(ids->data + ids->len, data, len * sizeof *data);
    ids->len = need;
    return true;
}

bool lc_ids_push(lc_ids *ids, int32_t id) { return lc_ids_append(ids, &id, 1); }

void lc_ids_free(lc_ids *ids) {
    lc_free(ids->data);
    *ids = (lc_ids){0};
}
