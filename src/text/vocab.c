/*
 * vocab.c: token contents and ids, both ways.
 *
 * One table holds the model's vocabulary and the added tokens; flags tell which of the two an id
 * belongs to, because the model must not find tokens that were only added. Every id has at most one
 * content and every content one id: a file that says otherwise is refused, since its embedding rows
 * would be ambiguous (the reference warns and renumbers).
 *
 * The hash table is open addressing with linear probing at half load. Honest files never come near
 * LC_TOK_PROBES_MAX steps; a file made of colliding contents is refused, so that loading and
 * looking up stay linear.
 */
#include "text/tok.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

typedef struct vocab_size {
    size_t n_ids, entries, bytes;
} vocab_size;

static void count(vocab_size *size, int32_t id, size_t len) {
    if ((size_t)id >= size->n_ids) size->n_ids = (size_t)id + 1;
    size->entries++;
    size->bytes += len + 1; /* cannot overflow: all of it was in a file of LC_TOK_FILE_MAX bytes */
}

static int measure(vocab_size *size, const lc_tok_src *src, struct json_object *model_vocab,
                   struct json_object *added_tokens) {
    char where[64];
    int32_t id;
    int status;
    if (model_vocab) {
        json_object_object_foreach(model_vocab, key, value) {
            if ((status = lc_tok_id(src, value, NULL, &id))) {
                lc_quoted quoted = lc_tok_quote(key);
                return lc_fail(src->err, status,
                               "%s: model.vocab: the id of \"%s\" is not an integer from 0 to %d",
                               src->name, quoted.text, LC_TOK_ID_LIMIT - 1);
            }
            count(size, id, strlen(key));
        }
    }
    size_t n_added = added_tokens ? json_object_array_length(added_tokens) : 0;
    for (size_t i = 0; i < n_added; i++) {
        struct json_object *token = json_object_array_get_idx(added_tokens, i);
        lc_str content;
        snprintf(where, sizeof where, "added_tokens[%zu]", i);
        if ((status = lc_tok_string(src, token, where, "content", &content))) return status;
        snprintf(where, sizeof where, "added_tokens[%zu].id", i);
        if ((status = lc_tok_id(src, lc_tok_field(token, "id"), where, &id))) return status;
        count(size, id, content.len);
    }
    return LC_OK;
}

static int allocate(lc_vocab *vocab, const lc_tok_src *src, const vocab_size *size) {
    size_t slots = 16;
    while (slots < 2 * size->entries) slots *= 2;
    vocab->n_ids = size->n_ids;
    vocab->mask = slots - 1;
    vocab->offset = lc_calloc(size->n_ids, sizeof *vocab->offset);
    vocab->length = lc_calloc(size->n_ids, sizeof *vocab->length);
    vocab->flags = lc_calloc(size->n_ids, sizeof *vocab->flags);
    vocab->slots = lc_calloc(slots, sizeof *vocab->slots);
    vocab->text = lc_alloc(size->bytes + 1);
    if (!vocab->offset || !vocab->length || !vocab->flags || !vocab->slots || !vocab->text)
        return lc_fail(src->err, LC_ENOMEM, "%s: out of memory for %zu tokens", src->name,
                       size->entries);
    return LC_OK;
}

static size_t home(const lc_vocab *vocab, const char *content, size_t len) {
    return (size_t)XXH3_64bits(content, len) & vocab->mask;
}

int32_t lc_vocab_find(const lc_vocab *vocab, const char *content, size_t len, int flags) {
    if (!vocab->slots) return -1;
    size_t at = home(vocab, content, len);
    for (uint32_t step = 0; step <= vocab->longest; step++, at = (at + 1) & vocab->mask) {
        uint32_t slot = vocab->slots[at];
        if (!slot) return -1;
        uint32_t id = slot - 1;
        if (vocab->length[id] == len && !memcmp(vocab->text + vocab->offset[id], content, len))
            return vocab->flags[id] & flags ? (int32_t)id : -1;
    }
    return -1;
}

size_t lc_vocab_longest(const lc_vocab *vocab) {
    size_t longest = 0;
    for (size_t id = 0; id < vocab->n_ids; id++) {
        const char *text = lc_vocab_content(vocab, (int32_t)id);
        bool added = vocab->flags[id] & LC_IN_ADDED;
        size_t n = 0;
        for (size_t i = 0; vocab->flags[id] && i < vocab->length[id]; i++)
            n += added || ((unsigned char)text[i] & 0xC0) != 0x80;
        if (n > longest) longest = n;
    }
    return longest;
}

static int insert(lc_vocab *vocab, const lc_tok_src *src, lc_str content, int32_t id) {
    if (vocab->flags[id]) {
        lc_quoted first = lc_tok_quote(lc_vocab_content(vocab, id));
        lc_quoted second = lc_tok_quote(content.data);
        return lc_fail(src->err, LC_EFORMAT, "%s: the tokens \"%s\" and \"%s\" have the same id %d",
                       src->name, first.text, second.text, id);
    }
    size_t at = home(vocab, content.data, content.len);
    uint32_t step = 0;
    for (; vocab->slots[at]; at = (at + 1) & vocab->mask)
        if (++step > LC_TOK_PROBES_MAX)
            return lc_fail(src->err, LC_ELIMIT, "%s: more than %d tokens collide in the hash table",
                           src->name, LC_TOK_PROBES_MAX);
    if (step > vocab->longest) vocab->longest = step;
    vocab->slots[at] = (uint32_t)id + 1;
    vocab->offset[id] = (uint32_t)vocab->text_len;
    vocab->length[id] = (uint32_t)content.len;
    memcpy(vocab->text + vocab->text_len, content.data, content.len + 1);
    vocab->text_len += content.len + 1;
    return LC_OK;
}

static int add_token(lc_vocab *vocab, const lc_tok_src *src, struct json_object *token, size_t i) {
    char where[64];
    lc_str content;
    int32_t id;
    bool special = false;
    int status;
    snprintf(where, sizeof where, "added_tokens[%zu]", i);
    if ((status = lc_tok_string(src, token, where, "content", &content))) return status;
    if ((status = lc_tok_bool(src, token, where, "special", &special))) return status;
    snprintf(where, sizeof where, "added_tokens[%zu].id", i);
    if ((status = lc_tok_id(src, lc_tok_field(token, "id"), where, &id))) return status;
    lc_quoted quoted = lc_tok_quote(content.data);
    int32_t known = lc_vocab_find(vocab, content.data, content.len, LC_IN_MODEL | LC_IN_ADDED);
    if (known >= 0 && (known != id || vocab->flags[id] & LC_IN_ADDED))
        return lc_fail(src->err, LC_EFORMAT, "%s: %s: \"%s\" already has id %d", src->name, where,
                       quoted.text, known);
    if (known < 0 && (status = insert(vocab, src, content, id))) return status;
    vocab->flags[id] |= (uint8_t)(LC_IN_ADDED | (special ? LC_IS_SPECIAL : 0));
    return LC_OK;
}

int lc_vocab_load(lc_vocab *vocab, const lc_tok_src *src, struct json_object *model_vocab,
                  struct json_object *added_tokens) {
    vocab_size size = {0};
    int status = measure(&size, src, model_vocab, added_tokens);
    if (!status) status = allocate(vocab, src, &size);
    if (status) return status;
    if (model_vocab) {
        json_object_object_foreach(model_vocab, key, value) {
            int32_t id = json_object_get_int(value);
            lc_str content = {key, strlen(key)};
            if ((status = insert(vocab, src, content, id))) return status;
            vocab->flags[id] = LC_IN_MODEL;
        }
    }
    size_t n_added = added_tokens ? json_object_array_length(added_tokens) : 0;
    for (size_t i = 0; i < n_added; i++)
        if ((status = add_token(vocab, src, json_object_array_get_idx(added_tokens, i), i)))
            return status;
    return LC_OK;
}

void lc_vocab_free(lc_vocab *vocab) {
    lc_free(vocab->offset);
    lc_free(vocab->length);
    lc_free(vocab->flags);
    lc_free(vocab->text);
    lc_free(vocab->slots);
    *vocab = (lc_vocab){0};
}
