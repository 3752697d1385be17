/*
 * tokenizer.h: tokenizer.json as Hugging Face `tokenizers` reads it: byte-level BPE with its
 * normalisers, pre-tokenizers, added tokens and decoder. A tokenizer is immutable after loading and
 * may be shared by threads.
 */
#ifndef LC_TEXT_TOKENIZER_H
#define LC_TEXT_TOKENIZER_H

#include "base/buf.h"

typedef struct lc_tokenizer lc_tokenizer;

/* path: a tokenizer.json or a folder that holds one. */
int lc_tokenizer_load(const char *path, lc_tokenizer **out, lc_err *err);
int lc_tokenizer_parse(const char *json, size_t len, const char *name, lc_tokenizer **out,
                       lc_err *err);
void lc_tokenizer_free(lc_tokenizer *tokenizer);

typedef enum lc_encode_mode {
    LC_ENCODE_ALL,        /* added tokens in the text are recognised */
    LC_ENCODE_NO_SPECIAL, /* only added tokens with special: false are */
    LC_ENCODE_PLAIN,      /* none is: the way to encode text from strangers */
} lc_encode_mode;

/* Appends the ids of text (any bytes; each maximal invalid UTF-8 part counts as U+FFFD). add_bos
 * applies the file's post-processor template. With out->most set, a text gives LC_ELIMIT at once
 * if its length says that it has more tokens, and otherwise when twice as many are there: callers
 * may know shorter tokens for a part of it. Time is linear up to a log factor in len, whatever
 * the text. */
int lc_tokenizer_encode(const lc_tokenizer *tokenizer, const char *text, size_t len,
                        lc_encode_mode mode, bool add_bos, lc_ids *out, lc_err *err);

/* Tokens that a text of so many bytes has at least: none is longer than the longest of the
 * vocabulary. 0 where the file's rules may drop text. */
size_t lc_tokenizer_least(const lc_tokenizer *tokenizer, size_t len);

/* Calls `piece` with each piece that merges never cross, in the byte alphabet, in order: text taken
 * as in LC_ENCODE_PLAIN, which must be valid UTF-8. A non-zero result of piece stops and is
 * returned. For training a tokenizer. */
typedef int lc_piece_sink(void *ctx, const char *piece, size_t len);
int lc_tokenizer_pieces(const lc_tokenizer *tokenizer, const char *text, size_t len,
                        lc_piece_sink *piece, void *ctx, lc_err *err);

/* Appends the text of ids; skip_special drops tokens with special: true. Unknown ids are LC_EINVAL.
 */
int lc_tokenizer_decode(const lc_tokenizer *tokenizer, const int32_t *ids, size_t count,
                        bool skip_special, lc_buf *out, lc_err *err);

/* Streaming decode: zero-initialise with skip_special set. Each push appends the text that has
 * become certain; never half a character. finish appends what was held back as U+FFFD. */
typedef struct lc_decode_stream {
    bool skip_special;
    char held[4];
    size_t n_held;
} lc_decode_stream;
int lc_decode_push(const lc_tokenizer *tokenizer, lc_decode_stream *stream, int32_t id, lc_buf *out,
                   lc_err *err);
bool lc_decode_finish(lc_decode_stream *stream, lc_buf *out);

size_t lc_tokenizer_vocab_size(const lc_tokenizer *tokenizer); /* highest id + 1 */
int32_t lc_tokenizer_id(const lc_tokenizer *tokenizer,
                        const char *content); /* exact token or added token; -1 */

/* The tokens around the parts of a text whose middle is to be filled in, prefix first, in the
 * spellings that tokenizers use. false: there are none. */
typedef struct lc_fim_tokens {
    int32_t prefix, suffix, middle;
} lc_fim_tokens;
bool lc_tokenizer_fim(const lc_tokenizer *tokenizer, lc_fim_tokens *out);

/* Raw content of a token as in the file (not decoded); NULL for an unused id. */
const char *lc_tokenizer_content(const lc_tokenizer *tokenizer, int32_t id);
bool lc_tokenizer_is_special(const lc_tokenizer *tokenizer, int32_t id);
/* The bytes that a token stands for, maybe part of a character; "" with *len 0 for an unused id. */
const char *lc_tokenizer_bytes(const lc_tokenizer *tokenizer, int32_t id, size_t *len);

/* Added tokens, in file order, for callers that must find tags in text (chat sanitising). */
size_t lc_tokenizer_added_count(const lc_tokenizer *tokenizer);
const char *lc_tokenizer_added(const lc_tokenizer *tokenizer, size_t i, int32_t *id, bool *special);

#endif
