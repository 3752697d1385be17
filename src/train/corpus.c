/*
 * corpus.c: from files to documents; see corpus.h. One file is open at a time and is read in
 * pieces, so memory is bounded by the longest line or part, not by the file.
 */
#include "train/corpus_list.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { READ_STEP = 1 << 20 };

struct lc_corpus {
    lc_corpus_list list;
    lc_corpus_counts counts;
    size_t next; /* file that is opened next */
    int fd;      /* -1: no file is open */
    bool jsonl, ended, skipping;
    const lc_corpus_file *file;
    uint64_t line;
    lc_buf data; /* what was read; data[at..] has not been used yet */
    size_t at;
    lc_buf plain; /* text of a chat */
    struct json_object *json;
};

int lc_corpus_open(const lc_corpus_options *options, lc_corpus **out, lc_err *err) {
    lc_corpus *c = lc_calloc(1, sizeof *c);
    *out = NULL;
    if (!c) return lc_fail(err, LC_ENOMEM, "corpus: out of memory");
    c->fd = -1;
    int status = lc_corpus_find(options, &c->list, &c->counts, err);
    if (status)
        lc_corpus_close(c);
    else
        *out = c;
    return status;
}

void lc_corpus_close(lc_corpus *c) {
    if (!c) return;
    if (c->fd >= 0) close(c->fd);
    json_object_put(c->json);
    lc_buf_free(&c->data);
    lc_buf_free(&c->plain);
    lc_corpus_list_free(&c->list);
    lc_free(c);
}

const lc_corpus_counts *lc_corpus_count(const lc_corpus *c) { return &c->counts; }
uint64_t lc_corpus_size(const lc_corpus *c) { return c->list.bytes; }

/* ---- reading ---- */

static int no_memory(const lc_corpus *c, lc_err *err) {
    return lc_fail(err, LC_ENOMEM, "%s: out of memory", c->file->path);
}

static int open_next(lc_corpus *c, lc_err *err) {
    c->file = &c->list.files[c->next++];
    c->fd = open(c->file->path, O_RDONLY | O_CLOEXEC);
    if (c->fd < 0) return lc_fail_errno(err, LC_EIO, "%s", c->file->path);
    c->jsonl = !strcasecmp(c->file->type, "jsonl");
    c->ended = c->skipping = false;
    c->line = 0;
    c->at = 0;
    lc_buf_clear(&c->data);
    c->counts.files++;
    return LC_OK;
}

/* Reads on; moves what is unused to the front first. */
static int read_more(lc_corpus *c, lc_err *err) {
    if (c->at && c->data.data) {
        memmove(c->data.data, c->data.data + c->at, c->data.len - c->at);
        c->data.len -= c->at;
        c->at = 0;
    }
    if (!lc_buf_reserve(&c->data, READ_STEP)) return no_memory(c, err);
    ssize_t n;
    do n = read(c->fd, c->data.data + c->data.len, READ_STEP);
    while (n < 0 && errno == EINTR);
    if (n < 0) return lc_fail_errno(err, LC_EIO, "%s", c->file->path);
    c->data.len += (size_t)n;
    c->counts.bytes += (uint64_t)n;
    c->ended = n == 0;
    return LC_OK;
}

static bool is_utf8(const char *text, size_t len) {
    size_t i = 0, used;
    while (i < len) {
        uint64_t eight;
        if (len - i >= 8 && (memcpy(&eight, text + i, 8), !(eight & 0x8080808080808080u)))
            i += 8;
        else if (!((unsigned char)text[i] & 0x80))
            i++;
        else if (lc_utf8_decode(text + i, len - i, &used) < 0)
            return false;
        else
            i += used;
    }
    return true;
}

static bool is_blank(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (!strchr(" \t\r\n\f\v", text[i])) return false;
    return true;
}

/* ---- text files ---- */

/* Where a part ends: behind its last newline, else before the last character that may be cut. */
static size_t part_end(const char *text, size_t len) {
    const char *newline = memrchr(text + len / 2, '\n', len - len / 2);
    if (newline) return (size_t)(newline - text) + 1;
    size_t end = len;
    while (end > len - 4 && ((unsigned char)text[end] & 0xC0) == 0x80) end--;
    return end;
}

static int next_part(lc_corpus *c, lc_document *doc, bool *found, lc_err *err) {
    int status = LC_OK;
    *found = false;
    while (!c->ended && c->data.len - c->at <= LC_CORPUS_PART_MAX && !status)
        status = read_more(c, err);
    if (status) return status;
    const char *text = c->data.data + c->at;
    size_t len = c->data.len - c->at;
    if (len > LC_CORPUS_PART_MAX) len = part_end(text, LC_CORPUS_PART_MAX);
    c->at += len;
    if (!len || is_blank(text, len)) {
        c->counts.empty += c->at <= len; /* the whole file, or its first part */
    } else if (memchr(text, 0, len)) {
        c->counts.binary++;
        c->at = c->data.len;
        c->ended = true; /* nothing more of this file */
    } else if (!is_utf8(text, len)) {
        c->counts.not_utf8++;
    } else {
        *doc = (lc_document){text, len, NULL, 0, c->file->type, c->file->path, 0};
        *found = true;
    }
    return LC_OK;
}

/* ---- JSONL ---- */

static struct json_object *member(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    if (json_object_is_type(object, json_type_object))
        json_object_object_get_ex(object, key, &value);
    return value;
}

static void put_line(lc_buf *out, struct json_object *value) {
    if (!json_object_is_type(value, json_type_string)) return;
    lc_buf_append(out, json_object_get_string(value), (size_t)json_object_get_string_len(value));
    lc_buf_putc(out, '\n');
}

/* The texts of a conversation: contents (strings or lists of {"text": ...}) and reasoning. */
static void put_messages(lc_buf *out, struct json_object *messages) {
    for (size_t i = 0; i < json_object_array_length(messages); i++) {
        struct json_object *message = json_object_array_get_idx(messages, i);
        struct json_object *content = member(message, "content");
        put_line(out, member(message, "reasoning_content"));
        put_line(out, content);
        if (!json_object_is_type(content, json_type_array)) continue;
        for (size_t j = 0; j < json_object_array_length(content); j++)
            put_line(out, member(json_object_array_get_idx(content, j), "text"));
    }
}

static int take_line(lc_corpus *c, const char *line, size_t len, lc_document *doc, bool *found,
                     lc_err *err) {
    lc_err ignored = {0};
    json_object_put(c->json);
    c->json = NULL;
    if (is_blank(line, len)) return LC_OK;
    if (!is_utf8(line, len)) {
        c->counts.not_utf8++;
        return LC_OK;
    }
    int status = lc_json_parse(line, len, c->file->path, &c->json, &ignored);
    if (status == LC_ENOMEM) return no_memory(c, err);
    struct json_object *messages = member(c->json, "messages"), *text = member(c->json, "text");
    *doc = (lc_document){.type = c->file->type, .path = c->file->path, .line = c->line};
    if (json_object_is_type(messages, json_type_array)) {
        lc_buf_clear(&c->plain);
        put_messages(&c->plain, messages);
        lc_buf_reserve(&c->plain, 0);
        if (c->plain.failed) return no_memory(c, err);
        doc->text = c->plain.data;
        doc->len = c->plain.len;
        doc->chat = line;
        doc->chat_len = len;
    } else if (json_object_is_type(text, json_type_string)) {
        doc->text = json_object_get_string(text);
        doc->len = (size_t)json_object_get_string_len(text);
    } else {
        c->counts.bad_line++;
        return LC_OK;
    }
    bool empty = doc->chat ? !json_object_array_length(messages)
                           : !doc->len || is_blank(doc->text, doc->len);
    if (empty)
        c->counts.empty++;
    else
        *found = true;
    return LC_OK;
}

static int next_line(lc_corpus *c, lc_document *doc, bool *found, lc_err *err) {
    size_t seen = 0;
    *found = false;
    for (;;) {
        size_t len = c->data.len - c->at;
        const char *text = c->data.data ? c->data.data + c->at : "";
        const char *end = len > seen ? memchr(text + seen, '\n', len - seen) : NULL;
        seen = len;
        if (!end && !c->ended && len > LC_CORPUS_LINE_MAX) {
            c->skipping = true;
            c->at = c->data.len;
            seen = 0;
        }
        if (!end && !c->ended) {
            int status = read_more(c, err);
            if (status) return status;
            continue;
        }
        size_t used = end ? (size_t)(end - text) : len;
        c->at += used + (end ? 1 : 0);
        c->line++;
        bool whole = !c->skipping && used <= LC_CORPUS_LINE_MAX;
        c->skipping = false;
        if (whole) return take_line(c, text, used, doc, found, err);
        c->counts.too_large++;
        return LC_OK;
    }
}

/* ---- documents ---- */

int lc_corpus_next(lc_corpus *c, lc_document *doc, bool *more, lc_err *err) {
    bool found = false;
    int status = LC_OK;
    *more = false;
    while (!found && !status) {
        if (c->fd >= 0 && c->ended && c->at == c->data.len) {
            close(c->fd);
            c->fd = -1;
        }
        if (c->fd < 0 && c->next == c->list.n) return LC_OK;
        if (c->fd < 0) status = open_next(c, err);
        if (!status)
            status = c->jsonl ? next_line(c, doc, &found, err) : next_part(c, doc, &found, err);
    }
    c->counts.documents += found;
    *more = found;
    return status;
}
