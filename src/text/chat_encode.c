/*
 * chat_encode.c: a rendered conversation to token ids, in which tags inside data stay plain text.
 *
 * Before rendering, each tag in a string of the data (messages, tools, arguments; not their keys)
 * gets a mark on both sides: private characters that say which tag it is. They are chosen from
 * plane 16 so that the data holds none of them: nobody can forge a mark. The template works with
 * the tags as ever, since they are still there. In the rendered text a tag between its marks is
 * encoded alone as plain text; the text on each side is encoded apart; marks vanish.
 *
 * A template may cut a string between tag and mark. One of its marks is enough to keep a special
 * token plain; other tags need both, since templates take reasoning apart at them and write the
 * tags anew. U+F0000 is taken out of the data's strings, since the reference does so.
 */
#include "text/chat_internal.h"

#include "base/err.h"
#include "base/utf8.h"

#include <string.h>

enum { MAX_TAGS = 4096, PLANE = 0x100000, PLANE_SIZE = 0xFFFE, DROPPED = 0xF0000 };

typedef struct tag {
    const char *text;
    size_t len;
    bool special;
} tag;

typedef struct sanitizer {
    const lc_tokenizer *tokenizer;
    tag *tags; /* longest first */
    size_t n_tags;
    bool starts[256];    /* first bytes of tags */
    uint32_t first;      /* first + 2k stands before tag k, first + 2k + 1 behind it */
    lc_buf text, marked; /* scratch */
    lc_ids *out;
    lc_err *err;
} sanitizer;

static int no_memory(lc_err *err) { return lc_fail(err, LC_ENOMEM, "chat: out of memory"); }

/* ---- tags ---- */

/* Whether the template writes an added token, which then is a tag. One of white space only is not:
 * templates hold it as ordinary text. */
static bool template_writes(const lc_jinja *jinja, const char *text) {
    size_t len;
    const char *literals = lc_jinja_literals(jinja, &len);
    return text[strspn(text, " \t\n\r\v\f")] && memmem(literals, len, text, strlen(text)) != NULL;
}

static int longer_first(const void *a, const void *b) {
    const tag *x = a, *y = b;
    return x->len > y->len ? -1 : x->len < y->len;
}

/* Special tokens, and other added tokens that the template writes. */
static int collect_tags(sanitizer *s, const lc_jinja *jinja) {
    size_t count = lc_tokenizer_added_count(s->tokenizer);
    s->tags = lc_calloc(count + 1, sizeof *s->tags);
    if (!s->tags) return no_memory(s->err);
    for (size_t i = 0; i < count; i++) {
        int32_t id;
        bool special;
        const char *text = lc_tokenizer_added(s->tokenizer, i, &id, &special);
        if (!*text || !(special || template_writes(jinja, text))) continue;
        if (s->n_tags == MAX_TAGS)
            return lc_fail(s->err, LC_ELIMIT, "chat: more than %d added tokens to look for",
                           MAX_TAGS);
        s->tags[s->n_tags++] = (tag){text, strlen(text), special};
        s->starts[(unsigned char)*text] = true;
    }
    qsort(s->tags, s->n_tags, sizeof *s->tags, longer_first);
    return LC_OK;
}

/* The longest tag at text, or n_tags. */
static size_t tag_at(const sanitizer *s, const char *text, size_t len) {
    size_t k = 0;
    if (!s->starts[(unsigned char)*text]) return s->n_tags;
    while (k < s->n_tags &&
           (s->tags[k].len > len || memcmp(text, s->tags[k].text, s->tags[k].len) != 0))
        k++;
    return k;
}

/* ---- marks that the data does not hold ---- */

/* Notes the characters of plane 16 in a text: F4 80..8F xx xx. */
static void note_private(uint8_t *used, const char *text, size_t len) {
    const char *end = text + len;
    while ((text = memchr(text, 0xF4, (size_t)(end - text)))) {
        size_t n;
        int32_t code = lc_utf8_decode(text, (size_t)(end - text), &n);
        if (code >= PLANE) used[(code - PLANE) / 8] |= (uint8_t)(1u << (code & 7));
        text += n;
        if (text >= end) break;
    }
}

/* false where the data is nested deeper than JSON may be (base/json.h). */
static bool note_all(uint8_t *used, struct json_object *value, int depth) {
    bool ok = depth <= LC_JSON_DEPTH;
    switch (json_object_get_type(value)) {
    case json_type_string:
        note_private(used, json_object_get_string(value),
                     (size_t)json_object_get_string_len(value));
        return ok;
    case json_type_array:
        for (size_t i = 0; ok && i < json_object_array_length(value); i++)
            ok = note_all(used, json_object_array_get_idx(value, i), depth + 1);
        return ok;
    case json_type_object: {
        json_object_object_foreach(value, key, child) {
            note_private(used, key, strlen(key));
            ok = ok && note_all(used, child, depth + 1);
        }
        return ok;
    }
    default: return ok;
    }
}

static int choose_marks(sanitizer *s, const lc_chat *chat) {
    uint8_t *used = lc_calloc(0x10000 / 8, 1);
    if (!used) return no_memory(s->err);
    bool ok = note_all(used, chat->messages, 0) && note_all(used, chat->tools, 0) &&
              note_all(used, chat->arguments, 0);
    size_t run = 0, at = 0;
    for (; at < PLANE_SIZE && run < 2 * s->n_tags; at++)
        run = used[at / 8] >> (at & 7) & 1 ? 0 : run + 1;
    lc_free(used);
    if (!ok) return lc_fail(s->err, LC_ELIMIT, "chat: nested deeper than %d", LC_JSON_DEPTH);
    if (run < 2 * s->n_tags)
        return lc_fail(s->err, LC_ELIMIT, "chat: the data uses all private characters of plane 16");
    s->first = (uint32_t)(PLANE + at - run);
    return LC_OK;
}

/* ---- marking ---- */

static bool put_mark(lc_buf *out, uint32_t code) {
    char utf8[4];
    return lc_buf_append(out, utf8, lc_utf8_encode(code, utf8));
}

/* text without U+F0000, in s->text. */
static bool drop_reserved(sanitizer *s, const char *text, size_t len) {
    static const char reserved[] = "\xF3\xB0\x80\x80";
    lc_buf_clear(&s->text);
    for (const char *end = text + len, *at; text < end; text = at + 4) {
        at = memmem(text, (size_t)(end - text), reserved, 4);
        if (!at) return lc_buf_append(&s->text, text, (size_t)(end - text));
        lc_buf_append(&s->text, text, (size_t)(at - text));
    }
    return lc_buf_reserve(&s->text, 0);
}

static bool put_marked(sanitizer *s, const char *text, size_t len, bool *any) {
    size_t from = 0;
    lc_buf_clear(&s->marked);
    for (size_t i = 0; i < len;) {
        size_t k = tag_at(s, text + i, len - i);
        if (k == s->n_tags) {
            i++;
            continue;
        }
        *any = true;
        lc_buf_append(&s->marked, text + from, i - from);
        put_mark(&s->marked, s->first + 2 * (uint32_t)k);
        lc_buf_append(&s->marked, s->tags[k].text, s->tags[k].len);
        put_mark(&s->marked, s->first + 2 * (uint32_t)k + 1);
        from = i += s->tags[k].len;
    }
    return lc_buf_append(&s->marked, text + from, len - from);
}

static struct json_object *mark_string(sanitizer *s, struct json_object *value) {
    const char *text = json_object_get_string(value);
    size_t len = (size_t)json_object_get_string_len(value);
    bool changed = memmem(text, len, "\xF3\xB0\x80\x80", 4) != NULL;
    if (changed) {
        if (!drop_reserved(s, text, len)) return NULL;
        text = s->text.data;
        len = s->text.len;
    }
    if (!put_marked(s, text, len, &changed) || s->marked.len > INT32_MAX) return NULL;
    if (!changed) return json_object_get(value);
    return json_object_new_string_len(s->marked.data, (int)s->marked.len);
}

/* A copy with marked strings; strings without tags are shared. *ok turns false when memory is
 * short. The depth has been checked by choose_marks. */
static struct json_object *mark_value(sanitizer *s, struct json_object *value, bool *ok) {
    struct json_object *copy = NULL;
    enum json_type type = json_object_get_type(value);
    if (!*ok || type == json_type_null) return NULL;
    if (type == json_type_string) {
        copy = mark_string(s, value);
        *ok = copy != NULL;
    } else if (type == json_type_array) {
        copy = json_object_new_array();
        *ok = copy != NULL;
        for (size_t i = 0; *ok && i < json_object_array_length(value); i++) {
            struct json_object *child = mark_value(s, json_object_array_get_idx(value, i), ok);
            if (!*ok || json_object_array_add(copy, child) == 0) continue;
            json_object_put(child);
            *ok = false;
        }
    } else if (type == json_type_object) {
        copy = json_object_new_object();
        *ok = copy != NULL;
        json_object_object_foreach(value, key, child) {
            struct json_object *marked = *ok ? mark_value(s, child, ok) : NULL;
            if (!*ok || json_object_object_add(copy, key, marked) == 0) continue;
            json_object_put(marked);
            *ok = false;
        }
    } else {
        copy = json_object_get(value);
    }
    if (*ok) return copy;
    json_object_put(copy);
    return NULL;
}

/* ---- encoding ---- */

static int encode(sanitizer *s, const char *text, size_t len, bool plain) {
    if (!len) return LC_OK;
    return lc_tokenizer_encode(s->tokenizer, text, len, plain ? LC_ENCODE_PLAIN : LC_ENCODE_ALL,
                               false, s->out, s->err);
}

/* Text up to a mark. behind: the mark is the one behind that tag, whose other mark is gone. */
static int encode_part(sanitizer *s, const char *text, size_t len, const tag *behind) {
    bool tagged = behind && behind->special && behind->len <= len &&
                  !memcmp(text + len - behind->len, behind->text, behind->len);
    if (!tagged) return encode(s, text, len, false);
    int status = encode(s, text, len - behind->len, false);
    return status == LC_OK ? encode(s, behind->text, behind->len, true) : status;
}

/* The mark at text: its number, DROPPED, or -1 for none. */
static int64_t mark_at(const sanitizer *s, const char *text, size_t len, size_t *used) {
    int32_t code = lc_utf8_decode(text, len, used);
    if (code == DROPPED) return DROPPED;
    int64_t mark = (int64_t)code - (int64_t)s->first;
    return mark >= 0 && mark < 2 * (int64_t)s->n_tags ? mark : -1;
}

/* Behind the first mark of tag k: how many bytes the tag takes with its second mark; 0 if it was
 * cut or must not be taken as data. */
static size_t marked_tag(const sanitizer *s, size_t k, const char *text, size_t len) {
    const tag *t = &s->tags[k];
    size_t used;
    if (t->len > len || memcmp(text, t->text, t->len)) return 0;
    bool whole =
        t->len < len && mark_at(s, text + t->len, len - t->len, &used) == 2 * (int64_t)k + 1;
    return whole ? t->len + used : t->special ? t->len : 0;
}

static int encode_marked(sanitizer *s, const char *text, size_t len) {
    size_t from = 0;
    int status = LC_OK;
    for (size_t i = 0; i < len && status == LC_OK;) {
        size_t used = 1;
        bool wide = (unsigned char)text[i] >= 0xF3; /* U+C0000 and up */
        int64_t mark = wide ? mark_at(s, text + i, len - i, &used) : -1;
        if (mark < 0) {
            i += used;
            continue;
        }
        bool is_tag = mark != DROPPED, first = is_tag && mark % 2 == 0;
        const tag *t = is_tag ? &s->tags[mark / 2] : NULL;
        status = encode_part(s, text + from, i - from, first ? NULL : t);
        i += used;
        size_t taken = first ? marked_tag(s, (size_t)mark / 2, text + i, len - i) : 0;
        if (taken && status == LC_OK) status = encode(s, t->text, t->len, true);
        from = i += taken;
    }
    return status == LC_OK ? encode(s, text + from, len - from, false) : status;
}

static int render_marked(sanitizer *s, const lc_chat_template *tmpl, const lc_chat *chat,
                         lc_buf *text) {
    lc_chat marked = *chat;
    bool ok = true;
    marked.messages = mark_value(s, chat->messages, &ok);
    marked.tools = mark_value(s, chat->tools, &ok);
    marked.arguments = mark_value(s, chat->arguments, &ok);
    int status =
        ok ? lc_chat_render_marked(tmpl, &marked, s->first, 2 * (uint32_t)s->n_tags, text, s->err)
           : no_memory(s->err);
    json_object_put(marked.messages);
    json_object_put(marked.tools);
    json_object_put(marked.arguments);
    return status;
}

int lc_chat_encode(const lc_chat_template *tmpl, const lc_chat *chat, const lc_tokenizer *tokenizer,
                   bool sanitize, lc_ids *out, lc_err *err) {
    sanitizer s = {.tokenizer = tokenizer, .out = out, .err = err};
    lc_buf text = {0};
    int status;
    if (sanitize) {
        status = collect_tags(&s, lc_chat_jinja(tmpl, chat));
        if (status == LC_OK) status = choose_marks(&s, chat);
        if (status == LC_OK) status = render_marked(&s, tmpl, chat, &text);
        if (status == LC_OK) status = encode_marked(&s, text.data, text.len);
    } else {
        status = lc_chat_render(tmpl, chat, &text, err);
        if (status == LC_OK) status = encode(&s, text.data, text.len, false);
    }
    lc_buf_free(&text);
    lc_buf_free(&s.text);
    lc_buf_free(&s.marked);
    lc_free(s.tags);
    return status;
}
