/*
 * prepare_document.c: one document on its way to a shard; see prepare_internal.h. Everything here
 * is a pure function of the document and the options, and runs in any thread.
 */
#include "train/prepare_internal.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"

#include <string.h>
#include <xxhash.h>

enum { STREAM_FIM = 4 };

/* ---- fingerprint and cuts ---- */

void lc_item_scan(const lc_encoder *encoder, lc_item *item, lc_words *words) {
    const lc_document *doc = item->doc;
    /* A conversation is its whole line: roles and tools count. */
    XXH128_hash_t hash =
        doc->chat ? XXH3_128bits(doc->chat, doc->chat_len) : XXH3_128bits(doc->text, doc->len);
    item->print->low = hash.low64;
    item->print->high = hash.high64;
    item->print->near.usable = false;
    item->parts = (lc_stretches){.data = {{0, doc->len}}, .n = 1};
    if (!encoder->near && !encoder->exclude) return;
    if (!lc_words_split(words, doc->text, doc->len)) {
        item->status = lc_fail(&item->err, LC_ENOMEM, "%s: out of memory", doc->path);
        return;
    }
    if (encoder->near) lc_minhash_make(words, &item->print->near);
    if (encoder->exclude)
        lc_exclude_cut(encoder->exclude, doc->text, doc->len, words, &item->parts);
    if (doc->chat && item->parts.matches) item->parts.n = 0;
}

/* ---- texts ---- */

static void encode_plain(const lc_encoder *e, lc_item *item, const char *text, size_t len) {
    if (item->status) return;
    item->status = lc_tokenizer_encode(e->tokenizer, text, len, LC_ENCODE_PLAIN, false, &item->ids,
                                       &item->err);
    if (item->status) lc_err_prefix(&item->err, "%s", item->doc->path);
}

/* A place in a text, moved back to the beginning of a character. */
static size_t place(const char *text, size_t len, uint32_t random) {
    size_t at = (size_t)((uint64_t)random * (len + 1) >> 32);
    while (at && at < len && ((unsigned char)text[at] & 0xC0) == 0x80) at--;
    return at;
}

/* Prefix, suffix, middle (PSM of Bavarian et al. 2022), cut at two random places. */
static void encode_fim(const lc_encoder *e, lc_item *item, const char *text, size_t len,
                       const lc_rng_block *r) {
    size_t a = place(text, len, r->word[2]), b = place(text, len, r->word[3]);
    size_t from = a < b ? a : b, to = a < b ? b : a;
    lc_ids_push(&item->ids, e->fim_tokens.prefix);
    encode_plain(e, item, text, from);
    lc_ids_push(&item->ids, e->fim_tokens.suffix);
    encode_plain(e, item, text + to, len - to);
    lc_ids_push(&item->ids, e->fim_tokens.middle);
    encode_plain(e, item, text + from, to - from);
    item->fim++;
}

static void encode_text(const lc_encoder *e, lc_item *item, const char *text, size_t len) {
    /* The text decides, not its number: the same text is treated alike in any corpus. */
    lc_rng_block r = lc_rng(e->seed, STREAM_FIM, XXH3_64bits(text, len));
    double u = ((double)r.word[0] * 4294967296.0 + r.word[1]) / 18446744073709551616.0;
    if (u < e->fim)
        encode_fim(e, item, text, len, &r);
    else
        encode_plain(e, item, text, len);
}

/* ---- conversations ---- */

static struct json_object *member(struct json_object *object, const char *key) {
    struct json_object *value = NULL;
    if (json_object_is_type(object, json_type_object))
        json_object_object_get_ex(object, key, &value);
    return value;
}

/* Arguments of tool calls may be a JSON text, as in the OpenAI format; templates want the object.
 */
static void open_arguments(struct json_object *messages) {
    for (size_t i = 0; i < json_object_array_length(messages); i++) {
        struct json_object *calls = member(json_object_array_get_idx(messages, i), "tool_calls");
        size_t n =
            json_object_is_type(calls, json_type_array) ? json_object_array_length(calls) : 0;
        for (size_t j = 0; j < n; j++) {
            struct json_object *function = member(json_object_array_get_idx(calls, j), "function");
            struct json_object *text = member(function, "arguments"), *object;
            if (!json_object_is_type(text, json_type_string)) continue;
            lc_err ignored;
            if (!lc_json_parse(json_object_get_string(text),
                               (size_t)json_object_get_string_len(text), "arguments", &object,
                               &ignored))
                json_object_object_add(function, "arguments", object);
        }
    }
}

/* Targets: what the assistant says, with the EOS that closes it, not the tag that opens it. */
static void put_mask(const lc_encoder *e, lc_item *item) {
    bool speaking = false, any = false;
    if (!lc_buf_reserve(&item->mask, item->ids.len)) return;
    for (size_t i = 0; i < item->ids.len; i++) {
        int32_t id = item->ids.data[i];
        lc_buf_putc(&item->mask, speaking);
        any = any || speaking;
        if (id == e->assistant)
            speaking = true;
        else if (id == e->eos)
            speaking = false;
    }
    item->drop = !any;
}

static void encode_chat(const lc_encoder *e, lc_item *item) {
    const lc_document *doc = item->doc;
    struct json_object *json;
    item->status = lc_json_parse(doc->chat, doc->chat_len, doc->path, &json, &item->err);
    if (item->status) return;
    struct json_object *messages = member(json, "messages"), *tools = member(json, "tools");
    struct json_object *arguments = member(json, "chat_template_kwargs");
    bool has_tools = json_object_is_type(tools, json_type_array) && json_object_array_length(tools);
    open_arguments(messages);
    lc_chat chat = {.messages = messages,
                    .tools = has_tools ? tools : NULL,
                    .arguments =
                        json_object_is_type(arguments, json_type_object) ? arguments : NULL,
                    .now = 1 /* a template that shows the date must not show today's */};
    int status = lc_chat_encode(e->chat, &chat, e->tokenizer, true, &item->ids, &item->err);
    json_object_put(json);
    if (status) {
        lc_err_prefix(&item->err, "%s:%llu", doc->path, (unsigned long long)doc->line);
        item->bad_chat = status != LC_ENOMEM;
        item->status = item->bad_chat ? LC_OK : status;
        item->drop = true;
        return;
    }
    if (!item->ids.len || item->ids.data[item->ids.len - 1] != e->eos)
        lc_ids_push(&item->ids, e->eos);
    put_mask(e, item);
    item->ends[item->n_ends++] = item->ids.len;
}

void lc_item_encode(const lc_encoder *e, lc_item *item) {
    if (item->drop) return;
    if (item->doc->chat) encode_chat(e, item);
    for (size_t i = 0; !item->doc->chat && i < item->parts.n && !item->status; i++) {
        const lc_stretch *part = &item->parts.data[i];
        encode_text(e, item, item->doc->text + part->start, part->end - part->start);
        lc_ids_push(&item->ids, e->eos);
        item->ends[item->n_ends++] = item->ids.len;
    }
    if (!item->status && (item->ids.failed || item->mask.failed))
        item->status = lc_fail(&item->err, LC_ENOMEM, "%s: out of memory", item->doc->path);
}

void lc_item_free(lc_item *item) {
    lc_ids_free(&item->ids);
    lc_buf_free(&item->mask);
}
