/*
 * tokenizer.c: the public calls, and encoding as a list of its steps:
 *
 *   bytes -> valid UTF-8 -> cut out added tokens -> normalise -> cut out normalised added tokens
 *         -> pre-tokenize -> merge each piece
 *
 * All scratch memory of a call is in one tok_work on its stack; a tokenizer itself never changes,
 * so threads share it without locks.
 */
#include "text/tok.h"

#include "base/utf8.h"

#include <string.h>

bool lc_spans_push(lc_spans *spans, size_t start, size_t len, int32_t id) {
    if (spans->len == spans->cap) {
        size_t cap = spans->cap + spans->cap / 2 + 64;
        lc_span *data = lc_realloc(spans->data, cap, sizeof *data);
        if (!data) return false;
        spans->data = data;
        spans->cap = cap;
    }
    spans->data[spans->len++] = (lc_span){start, len, id};
    return true;
}

void lc_spans_free(lc_spans *spans) {
    lc_free(spans->data);
    *spans = (lc_spans){0};
}

void lc_tokenizer_free(lc_tokenizer *tokenizer) {
    if (!tokenizer) return;
    lc_vocab_free(&tokenizer->vocab);
    lc_bpe_free(&tokenizer->bpe);
    lc_normalizer_free(&tokenizer->norm);
    lc_pretok_free(&tokenizer->pretok);
    lc_added_free(&tokenizer->added);
    lc_pieces_free(&tokenizer->pieces);
    lc_ids_free(&tokenizer->before);
    lc_ids_free(&tokenizer->after);
    lc_free(tokenizer);
}

/* ---- encode ---- */

typedef struct tok_work {
    const lc_tokenizer *tokenizer;
    lc_encode_mode mode;
    lc_ids *out;
    lc_err *err;
    lc_buf clean;                   /* the text with U+FFFD for what is not UTF-8 */
    lc_spans raw, normalized, hits; /* cut by added tokens */
    lc_norm_work norm;
    lc_pretok_work pretok;
    lc_bpe_work bpe;
    lc_regex_work *regex;
} tok_work;

static void work_free(tok_work *work) {
    lc_buf_free(&work->clean);
    lc_spans_free(&work->raw);
    lc_spans_free(&work->normalized);
    lc_spans_free(&work->hits);
    lc_norm_work_free(&work->norm);
    lc_pretok_work_free(&work->pretok);
    lc_bpe_work_free(&work->bpe);
    lc_regex_work_free(work->regex);
}

static int out_of_memory(const tok_work *work, size_t len) {
    return lc_fail(work->err, LC_ENOMEM, "out of memory while encoding %zu bytes", len);
}

static int too_many(const tok_work *work, size_t least) {
    work->out->least = least;
    return lc_fail(work->err, LC_ELIMIT, "the text has at least %zu tokens, the limit is %zu",
                   least, work->out->most);
}

static int encode_pieces(tok_work *work, lc_str text) {
    const lc_tokenizer *t = work->tokenizer;
    int status = lc_pretok_split(&t->pretok, &work->pretok, work->regex, text, &text, work->err);
    if (status) return status;
    for (size_t i = 0; i < work->pretok.pieces.len; i++) {
        lc_span span = work->pretok.pieces.data[i];
        lc_str piece = {text.data + span.start, span.len};
        if (!lc_bpe_encode(&t->bpe, &t->vocab, &work->bpe, piece, work->out))
            return out_of_memory(work, piece.len);
        if (work->out->most && work->out->len / 2 > work->out->most)
            return too_many(work, work->out->len);
    }
    return LC_OK;
}

static int split_added(tok_work *work, bool normalized, lc_str text, lc_spans *spans) {
    spans->len = 0;
    if (work->mode == LC_ENCODE_PLAIN) {
        bool ok = !text.len || lc_spans_push(spans, 0, text.len, -1);
        return ok ? LC_OK : out_of_memory(work, text.len);
    }
    lc_added_query query = {.added = &work->tokenizer->added,
                            .normalized = normalized,
                            .no_special = work->mode == LC_ENCODE_NO_SPECIAL,
                            .hits = &work->hits};
    return lc_added_split(&query, text, spans, work->err);
}

/* A part of the text between the tokens with normalized: false. */
static int encode_part(tok_work *work, lc_str text) {
    int status =
        lc_normalize(&work->tokenizer->norm, &work->norm, work->regex, text, &text, work->err);
    if (!status) status = split_added(work, true, text, &work->normalized);
    for (size_t i = 0; !status && i < work->normalized.len; i++) {
        lc_span span = work->normalized.data[i];
        if (span.id < 0)
            status = encode_pieces(work, (lc_str){text.data + span.start, span.len});
        else if (!lc_ids_push(work->out, span.id))
            status = out_of_memory(work, text.len);
    }
    return status;
}

static int encode_text(tok_work *work, lc_str text) {
    int status = split_added(work, false, text, &work->raw);
    for (size_t i = 0; !status && i < work->raw.len; i++) {
        lc_span span = work->raw.data[i];
        if (span.id < 0)
            status = encode_part(work, (lc_str){text.data + span.start, span.len});
        else if (!lc_ids_push(work->out, span.id))
            status = out_of_memory(work, text.len);
    }
    return status;
}

static bool is_utf8(const char *text, size_t len) {
    for (size_t i = 0, used; i < len; i += used)
        if ((unsigned char)text[i] < 0x80)
            used = 1;
        else if (lc_utf8_decode(text + i, len - i, &used) < 0)
            return false;
    return true;
}

int lc_tokenizer_encode(const lc_tokenizer *tokenizer, const char *text, size_t len,
                        lc_encode_mode mode, bool add_bos, lc_ids *out, lc_err *err) {
    tok_work work = {.tokenizer = tokenizer, .mode = mode, .out = out, .err = err};
    lc_str clean = {text, len};
    size_t before = out->len;
    int status = LC_OK;
    if (len > LC_TOK_TEXT_MAX)
        return lc_fail(err, LC_ELIMIT, "text to encode is longer than %d bytes", LC_TOK_TEXT_MAX);
    if (!is_utf8(text, len)) {
        if (!lc_utf8_sanitize(&work.clean, text, len)) status = out_of_memory(&work, len);
        clean = (lc_str){work.clean.data, work.clean.len};
    }
    size_t least = lc_tokenizer_least(tokenizer, clean.len);
    if (!status && out->most && least > out->most) status = too_many(&work, least);
    if (!status && !(work.regex = lc_regex_work_new())) status = out_of_memory(&work, len);
    if (!status && add_bos) lc_ids_append(out, tokenizer->before.data, tokenizer->before.len);
    if (!status) status = encode_text(&work, clean);
    if (!status && add_bos) lc_ids_append(out, tokenizer->after.data, tokenizer->after.len);
    if (!status && out->failed) status = out_of_memory(&work, len);
    if (status) out->len = before;
    work_free(&work);
    return status;
}

size_t lc_tokenizer_least(const lc_tokenizer *tokenizer, size_t len) {
    size_t longest = tokenizer->longest;
    return longest ? len / longest + (len % longest != 0) : 0;
}

static int give_pieces(tok_work *work, lc_str text, lc_piece_sink *piece, void *ctx) {
    const lc_tokenizer *t = work->tokenizer;
    int status = lc_normalize(&t->norm, &work->norm, work->regex, text, &text, work->err);
    if (!status)
        status = lc_pretok_split(&t->pretok, &work->pretok, work->regex, text, &text, work->err);
    for (size_t i = 0; !status && i < work->pretok.pieces.len; i++) {
        lc_span span = work->pretok.pieces.data[i];
        status = piece(ctx, text.data + span.start, span.len);
    }
    return status;
}

int lc_tokenizer_pieces(const lc_tokenizer *tokenizer, const char *text, size_t len,
                        lc_piece_sink *piece, void *ctx, lc_err *err) {
    tok_work work = {.tokenizer = tokenizer, .err = err};
    if (len > LC_TOK_TEXT_MAX)
        return lc_fail(err, LC_ELIMIT, "text to cut is longer than %d bytes", LC_TOK_TEXT_MAX);
    if (!is_utf8(text, len)) return lc_fail(err, LC_EINVAL, "text to cut is not valid UTF-8");
    work.regex = lc_regex_work_new();
    int status = work.regex ? give_pieces(&work, (lc_str){text, len}, piece, ctx)
                            : out_of_memory(&work, len);
    work_free(&work);
    return status;
}

/* ---- look-ups ---- */

size_t lc_tokenizer_vocab_size(const lc_tokenizer *tokenizer) { return tokenizer->vocab.n_ids; }

int32_t lc_tokenizer_id(const lc_tokenizer *tokenizer, const char *content) {
    return lc_vocab_find(&tokenizer->vocab, content, strlen(content), LC_IN_MODEL | LC_IN_ADDED);
}

bool lc_tokenizer_fim(const lc_tokenizer *tokenizer, lc_fim_tokens *out) {
    static const char *const names[][3] = {
        {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
        {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
        {"<longcat_fim_prefix>", "<longcat_fim_suffix>", "<longcat_fim_middle>"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *out = (lc_fim_tokens){.prefix = lc_tokenizer_id(tokenizer, names[i][0]),
                               .suffix = lc_tokenizer_id(tokenizer, names[i][1]),
                               .middle = lc_tokenizer_id(tokenizer, names[i][2])};
        if (out->prefix >= 0 && out->suffix >= 0 && out->middle >= 0) return true;
    }
    return false;
}

static bool is_known(const lc_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && (size_t)id < tokenizer->vocab.n_ids && tokenizer->vocab.flags[id];
}

const char *lc_tokenizer_content(const lc_tokenizer *tokenizer, int32_t id) {
    return is_known(tokenizer, id) ? lc_vocab_content(&tokenizer->vocab, id) : NULL;
}

bool lc_tokenizer_is_special(const lc_tokenizer *tokenizer, int32_t id) {
    return is_known(tokenizer, id) && tokenizer->vocab.flags[id] & LC_IS_SPECIAL;
}

size_t lc_tokenizer_added_count(const lc_tokenizer *tokenizer) { return tokenizer->added.count; }

const char *lc_tokenizer_added(const lc_tokenizer *tokenizer, size_t i, int32_t *id,
                               bool *special) {
    if (i >= tokenizer->added.count) return NULL;
    const lc_added_token *token = &tokenizer->added.tokens[i];
    if (id) *id = token->id;
    if (special) *special = token->special;
    return lc_vocab_content(&tokenizer->vocab, token->id);
}
