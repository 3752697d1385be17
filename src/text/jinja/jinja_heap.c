/*
 * jinja_heap.c: the memory of a render, its limits, its failure, and the growing output.
 *
 * The heap is a stack of blocks: allocation moves a pointer, nothing is freed alone. A loop marks
 * the heap before each pass through its body and releases it afterwards, unless something older got
 * a pointer to something newer meanwhile (lcj_pin), so that long conversations do not add up.
 * Under AddressSanitizer released memory is poisoned: a pointer that escaped is found by the tests.
 *
 * The output is one buffer used as a stack too: a macro or a filter remembers the length, appends,
 * and takes what is above as a string.
 */
#include "text/jinja/jinja_internal.h"

#include <stdarg.h>
#include <stdio.h>

#if defined(__SANITIZE_ADDRESS__)
#define LCJ_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LCJ_POISONS 1
#endif
#endif
#ifdef LCJ_POISONS
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

enum { SMALL_BLOCK = 32 << 10, LARGE = 4 << 10 };

bool lcj_fail(lcj_rt *rt, lc_jinja_kind kind, const char *fmt, ...) {
    if (rt->kind != LC_JINJA_NONE) return false;
    rt->kind = kind;
    rt->fault_line = rt->line;
    rt->message.limit = LCJ_MESSAGE;
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    size_t len = need < 0 ? 0 : (size_t)need;
    if (len > LCJ_MESSAGE) len = LCJ_MESSAGE;
    if (lc_buf_reserve(&rt->message, len)) {
        vsnprintf(rt->message.data, len + 1, fmt, again);
        rt->message.len = len;
    }
    va_end(again);
    return false;
}

bool lcj_limit(lcj_rt *rt, const char *what) {
    return lcj_fail(rt, LC_JINJA_LIMIT, "the limit of %s is exceeded", what);
}

bool lcj_unsupported(lcj_rt *rt, const char *what) {
    return lcj_fail(rt, LC_JINJA_UNSUPPORTED, "%s is not supported", what);
}

static lcj_block *block_new(lcj_rt *rt, size_t size) {
    size_t total = size + sizeof(lcj_block);
    if (size > rt->limit || total > rt->limit - rt->memory) {
        lcj_limit(rt, "memory");
        return NULL;
    }
    lcj_block *block = lc_alloc(total);
    if (!block) {
        lcj_fail(rt, LC_JINJA_MEMORY, "out of memory");
        return NULL;
    }
    rt->memory += total;
    *block = (lcj_block){.size = size};
    POISON(block->data, size);
    return block;
}

static void block_free(lcj_rt *rt, lcj_block *block) {
    rt->memory -= block->size + sizeof *block;
    UNPOISON(block->data, block->size);
    lc_free(block);
}

void *lcj_alloc(lcj_rt *rt, size_t size) {
    if (size > rt->limit) {
        lcj_limit(rt, "memory");
        return NULL;
    }
    size = size ? (size + 15) & ~(size_t)15 : 16;
    lcj_block *block = rt->small;
    if (size > LARGE) { /* fresh pages cost time */
        block = lcj_tick(rt, size / 128) ? block_new(rt, size) : NULL;
        if (!block) return NULL;
        block->next = rt->large;
        rt->large = block;
    } else if (!block || block->size - block->used < size) {
        block = block_new(rt, SMALL_BLOCK);
        if (!block) return NULL;
        block->next = rt->small;
        rt->small = block;
    }
    void *p = block->data + block->used;
    block->used += size;
    rt->position += size;
    UNPOISON(p, size);
    return p;
}

lcj_mark lcj_heap_mark(lcj_rt *rt) {
    return (lcj_mark){.small = rt->small,
                      .large = rt->large,
                      .used = rt->small ? rt->small->used : 0,
                      .position = rt->position,
                      .serial = rt->serial};
}

void lcj_heap_release(lcj_rt *rt, const lcj_mark *mark) {
    while (rt->large != mark->large) {
        lcj_block *next = rt->large->next;
        block_free(rt, rt->large);
        rt->large = next;
    }
    while (rt->small != mark->small) {
        lcj_block *next = rt->small->next;
        block_free(rt, rt->small);
        rt->small = next;
    }
    if (rt->small) {
        POISON(rt->small->data + mark->used, rt->small->used - mark->used);
        rt->small->used = mark->used;
    }
    rt->position = mark->position;
    for (size_t i = 0; i < LCJ_GROWING; i++)
        if (rt->growing[i].serial > mark->serial) rt->growing[i].end = NULL;
}

void lcj_heap_free(lcj_rt *rt) {
    lcj_mark empty = {0};
    lcj_heap_release(rt, &empty);
    rt->memory -= rt->out.cap;
    lc_buf_free(&rt->out);
}

static bool out_reserve(lcj_rt *rt, size_t extra) {
    lc_buf *out = &rt->out;
    if (extra < out->cap && out->len < out->cap - extra) return true;
    if (extra > rt->out_limit || out->len > rt->out_limit - extra) return lcj_limit(rt, "output");
    size_t need = out->len + extra + 1, cap = out->cap < 1024 ? 1024 : out->cap + out->cap / 2;
    if (cap < need) cap = need;
    /* lc_realloc holds the old and the new block for a moment */
    if (cap > rt->limit - rt->memory) return lcj_limit(rt, "memory");
    char *data = lc_realloc(out->data, cap, 1);
    if (!data) return lcj_fail(rt, LC_JINJA_MEMORY, "out of memory");
    rt->memory += cap - out->cap;
    out->data = data;
    out->cap = cap;
    return true;
}

bool lcj_put(lcj_rt *rt, const char *bytes, size_t len) {
    if (!out_reserve(rt, len)) return false;
    if (len) memcpy(rt->out.data + rt->out.len, bytes, len);
    rt->out.len += len;
    rt->out.data[rt->out.len] = 0;
    return lcj_tick_bytes(rt, len);
}

bool lcj_putc(lcj_rt *rt, char c) { return lcj_put(rt, &c, 1); }

bool lcj_put_code(lcj_rt *rt, uint32_t code) {
    char utf8[4];
    return lcj_put(rt, utf8, lc_utf8_encode(code, utf8));
}

bool lcj_put_repeat(lcj_rt *rt, const char *bytes, size_t len, int64_t count) {
    if (count <= 0 || !len) return true;
    size_t total;
    if ((uint64_t)count > SIZE_MAX || !lc_size_mul(len, (size_t)count, &total) ||
        total > rt->out_limit)
        return lcj_limit(rt, "output");
    if (!out_reserve(rt, total) || !lcj_tick_bytes(rt, total)) return false;
    char *to = rt->out.data + rt->out.len;
    if (len == 1) {
        memset(to, bytes[0], total);
    } else {
        memcpy(to, bytes, len);
        for (size_t done = len; done < total;) { /* doubles what is there */
            size_t n = done < total - done ? done : total - done;
            memcpy(to + done, to, n);
            done += n;
        }
    }
    rt->out.len += total;
    rt->out.data[rt->out.len] = 0;
    return true;
}

static const char *entity(char c) {
    switch (c) {
    case '&': return "&amp;";
    case '<': return "&lt;";
    case '>': return "&gt;";
    case '\'': return "&#39;";
    case '"': return "&#34;";
    default: return NULL;
    }
}

bool lcj_put_escaped(lcj_rt *rt, lcj_val string) {
    const char *s = string.u.s;
    size_t from = 0;
    for (size_t i = 0; i < string.len; i++) {
        const char *text = entity(s[i]);
        if (!text) continue;
        if (!lcj_put(rt, s + from, i - from) || !lcj_put(rt, text, strlen(text))) return false;
        from = i + 1;
    }
    return lcj_put(rt, s + from, string.len - from);
}

bool lcj_take(lcj_rt *rt, size_t start, lcj_val *out) {
    size_t len = rt->out.len - start;
    char *s = "";
    if (len) {
        s = lcj_alloc(rt, len);
        if (!s) return false;
        memcpy(s, rt->out.data + start, len);
    }
    rt->out.len = start;
    if (rt->out.data) rt->out.data[start] = 0;
    *out = lcj_string(s, len);
    return true;
}
