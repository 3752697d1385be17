/*
 * decode.c: ids to text, whole and streaming.
 *
 * Each id stands for fixed bytes, worked out when the file is loaded: characters of the byte
 * alphabet back to their bytes; a token with any other character is its own UTF-8. The text is the
 * UTF-8 reading of all bytes together, with U+FFFD for each maximal invalid part. Whole decoding is
 * streaming decoding of all ids at once, so that both give the same text by construction.
 */
#include "text/tok.h"

#include "base/utf8.h"

#include <string.h>

/* ---- loading ---- */

static bool append_token(lc_buf *out, lc_str content) {
    size_t from = out->len;
    for (size_t i = 0, used; i < content.len; i += used) {
        int byte = lc_alphabet_byte(lc_utf8_decode(content.data + i, content.len - i, &used));
        if (byte < 0) {
            out->len = from;
            return lc_buf_append(out, content.data, content.len);
        }
        if (!lc_buf_putc(out, (char)byte)) return false;
    }
    return true;
}

/* ByteLevel, alone or in a Sequence with Fuse, which joins what is joined already. */
static int check_decoder(const lc_tok_src *src, struct json_object *json, int depth) {
    lc_str type;
    if (!json)
        return lc_fail(src->err, LC_EUNSUPPORTED,
                       "%s: decoder is missing; only \"ByteLevel\" is supported", src->name);
    int status = lc_tok_string(src, json, "decoder", "type", &type);
    if (status || !strcmp(type.data, "ByteLevel") || (depth && !strcmp(type.data, "Fuse")))
        return status;
    struct json_object *members = lc_tok_field(json, "decoders");
    size_t n =
        json_object_is_type(members, json_type_array) ? json_object_array_length(members) : 0;
    lc_quoted quoted = lc_tok_quote(type.data);
    if (strcmp(type.data, "Sequence") || !n || depth)
        return lc_fail(src->err, LC_EUNSUPPORTED, "%s: decoder \"%s\" is not supported", src->name,
                       quoted.text);
    for (size_t i = 0; i < n && !status; i++)
        status = check_decoder(src, json_object_array_get_idx(members, i), 1);
    return status;
}

typedef struct piece_loader {
    const lc_tokenizer *tokenizer;
    lc_norm_work norm_work;
    lc_regex_work *regex;
    uint32_t *added; /* [n_ids] index of the added token + 1 */
    lc_buf bytes;
} piece_loader;

static int append_id(piece_loader *loader, const lc_tok_src *src, size_t id) {
    const lc_vocab *vocab = &loader->tokenizer->vocab;
    if (!vocab->flags[id]) return LC_OK;
    lc_str content = {lc_vocab_content(vocab, (int32_t)id), vocab->length[id]};
    uint32_t added = loader->added[id];
    if (added && loader->tokenizer->added.tokens[added - 1].normalized) {
        /* what the text held when the token was found in it */
        int status = lc_normalize(&loader->tokenizer->norm, &loader->norm_work, loader->regex,
                                  content, &content, src->err);
        if (status) return status;
    }
    return append_token(&loader->bytes, content)
               ? LC_OK
               : lc_fail(src->err, LC_ENOMEM, "%s: out of memory", src->name);
}

int lc_pieces_load(lc_pieces *pieces, const lc_tokenizer *tokenizer, const lc_tok_src *src,
                   struct json_object *decoder) {
    size_t n = tokenizer->vocab.n_ids;
    int status = check_decoder(src, decoder, 0);
    if (status) return status;
    piece_loader loader = {.tokenizer = tokenizer,
                           .regex = lc_regex_work_new(),
                           .added = lc_calloc(n, sizeof *loader.added)};
    pieces->offset = lc_calloc(n + 1, sizeof *pieces->offset);
    if (!loader.regex || !loader.added || !pieces->offset)
        status = lc_fail(src->err, LC_ENOMEM, "%s: out of memory", src->name);
    for (size_t i = 0; !status && i < tokenizer->added.count; i++)
        loader.added[tokenizer->added.tokens[i].id] = (uint32_t)i + 1;
    for (size_t id = 0; !status && id < n; id++) {
        status = append_id(&loader, src, id);
        if (loader.bytes.len > UINT32_MAX)
            status = lc_fail(src->err, LC_ELIMIT, "%s: more than 4 GiB of tokens", src->name);
        pieces->offset[id + 1] = (uint32_t)loader.bytes.len;
    }
    pieces->bytes = loader.bytes.data;
    lc_free(loader.added);
    lc_norm_work_free(&loader.norm_work);
    lc_regex_work_free(loader.regex);
    return status;
}

void lc_pieces_free(lc_pieces *pieces) {
    lc_free(pieces->bytes);
    lc_free(pieces->offset);
    *pieces = (lc_pieces){0};
}

const char *lc_tokenizer_bytes(const lc_tokenizer *t, int32_t id, size_t *len) {
    bool known = id >= 0 && (size_t)id < t->vocab.n_ids;
    *len = known ? t->pieces.offset[id + 1] - t->pieces.offset[id] : 0;
    return *len ? t->pieces.bytes + t->pieces.offset[id] : "";
}

/* ---- decoding ---- */

static bool put_replacement(lc_buf *out) { return lc_buf_puts(out, "\xEF\xBF\xBD"); }

/* lc_utf8_decode, but a surrogate's first two bytes (ED A0..BF) wait for a third byte although they
 * are broken already: the reference, Python's incremental decoder, does so. */
static int32_t decode_waiting(const char *bytes, size_t len, size_t *used) {
    const unsigned char *s = (const unsigned char *)bytes;
    if (len == 2 && s[0] == 0xED && s[1] >= 0xA0 && s[1] <= 0xBF) {
        *used = 2;
        return LC_UTF8_PARTIAL;
    }
    return lc_utf8_decode(bytes, len, used);
}

/* Appends what bytes[0..len) settle, keeps an unfinished character at their end in the stream. */
static bool put_settled(lc_decode_stream *stream, const char *bytes, size_t len, lc_buf *out) {
    stream->n_held = 0;
    for (size_t i = 0, used; i < len; i += used) {
        int32_t code = decode_waiting(bytes + i, len - i, &used);
        if (code == LC_UTF8_PARTIAL) {
            memmove(stream->held, bytes + i, used);
            stream->n_held = used;
        } else if (code < 0 ? !put_replacement(out) : !lc_buf_append(out, bytes + i, used)) {
            return false;
        }
    }
    return true;
}

/* The held bytes are few, so they are looked at together with the first new ones. */
static bool push_bytes(lc_decode_stream *stream, const char *bytes, size_t len, lc_buf *out) {
    char head[8];
    while (stream->n_held && len) {
        memcpy(head, stream->held, stream->n_held);
        head[stream->n_held] = *bytes++;
        len--;
        if (!put_settled(stream, head, stream->n_held + 1, out)) return false;
    }
    return len == 0 || put_settled(stream, bytes, len, out);
}

int lc_decode_push(const lc_tokenizer *tokenizer, lc_decode_stream *stream, int32_t id, lc_buf *out,
                   lc_err *err) {
    const lc_vocab *vocab = &tokenizer->vocab;
    if (id < 0 || (size_t)id >= vocab->n_ids || !vocab->flags[id])
        return lc_fail(err, LC_EINVAL, "token id %d is not in the vocabulary (%zu ids)", id,
                       vocab->n_ids);
    if (stream->skip_special && vocab->flags[id] & LC_IS_SPECIAL) return LC_OK;
    const lc_pieces *pieces = &tokenizer->pieces;
    uint32_t from = pieces->offset[id], to = pieces->offset[id + 1];
    if (to > from && !push_bytes(stream, pieces->bytes + from, to - from, out))
        return lc_fail(err, LC_ENOMEM, "out of memory for the text of token %d", id);
    return LC_OK;
}

bool lc_decode_finish(lc_decode_stream *stream, lc_buf *out) {
    bool ok = true;
    for (size_t i = 0, used; i < stream->n_held && ok; i += used) {
        lc_utf8_decode(stream->held + i, stream->n_held - i, &used);
        ok = put_replacement(out);
    }
    stream->n_held = 0;
    return ok;
}

int lc_tokenizer_decode(const lc_tokenizer *tokenizer, const int32_t *ids, size_t count,
                        bool skip_special, lc_buf *out, lc_err *err) {
    lc_decode_stream stream = {.skip_special = skip_special};
    for (size_t i = 0; i < count; i++) {
        int status = lc_decode_push(tokenizer, &stream, ids[i], out, err);
        if (status) return status;
    }
    return lc_decode_finish(&stream, out) ? LC_OK : lc_fail(err, LC_ENOMEM, "out of memory");
}
