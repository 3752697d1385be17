/*
 * tok.h: the inside of the tokenizer, shared by the files that tokenizer.h's contract is split
 * over:
 *
 *   tokenizer_load.c  tokenizer.json -> lc_tokenizer, the readers of JSON fields, post-processors
 *   tokenizer.c       the public calls; encode as a list of the steps below
 *   vocab.c           contents and ids
 *   added.c           added tokens: finding all of them in one pass, their flags
 *   normalize.c       normalisers
 *   pretok.c          pre-tokenizers, and the byte alphabet
 *   regex.c           patterns of the file, translated for PCRE2
 *   bpe.c             merges
 *   decode.c          ids -> text
 *
 * Everything here is immutable once loaded; what one encode call writes to stands in lc_tok_work.
 */
#ifndef LC_TEXT_TOK_H
#define LC_TEXT_TOK_H

#include "base/err.h"
#include "base/json.h"
#include "text/tokenizer.h"

/* Limits for what comes from outside. Real files: 33 MB, 262,144 ids, a handful of steps. */
enum {
    LC_TOK_FILE_MAX = 128 << 20, /* bytes of tokenizer.json */
    LC_TOK_ID_LIMIT = 1 << 22,   /* ids are below this */
    LC_TOK_TEXT_MAX = 1 << 30,   /* bytes of one text */
    LC_TOK_ADDED_MAX = 4 << 20,  /* bytes of all added tokens together */
    LC_TOK_STEPS_MAX = 64,       /* members of a Sequence, nested ones included */
    LC_TOK_DEPTH_MAX = 8,        /* Sequences inside Sequences */
    LC_TOK_PATTERN_MAX = 65536,  /* bytes of one pattern */
    LC_TOK_PROBES_MAX = 256,     /* steps of a hash look-up; never reached but by design */
    LC_ALPHABET_END = 0x144,     /* the byte alphabet's characters are below this */
};

/* ---- reading JSON (tokenizer_load.c) ---- */

/* What the readers need for a message. */
typedef struct lc_tok_src {
    const char *name; /* file */
    lc_err *err;
} lc_tok_src;

typedef struct lc_str {
    const char *data; /* NUL-terminated, but may hold NULs */
    size_t len;
} lc_str;

/* A member of an object; NULL if absent, null, or if `object` is no object. */
struct json_object *lc_tok_field(struct json_object *object, const char *key);
/* Optional boolean; *out keeps its value if the key is absent or null. */
int lc_tok_bool(const lc_tok_src *src, struct json_object *object, const char *where,
                const char *key, bool *out);
/* Required string, without NUL characters. */
int lc_tok_string(const lc_tok_src *src, struct json_object *object, const char *where,
                  const char *key, lc_str *out);
/* Required id of a token: an integer from 0 to LC_TOK_ID_LIMIT - 1. where NULL: no message. */
int lc_tok_id(const lc_tok_src *src, struct json_object *value, const char *where, int32_t *out);
/* A token's content for a message: at most 40 bytes, no control characters. */
typedef struct lc_quoted {
    char text[48];
} lc_quoted;
lc_quoted lc_tok_quote(const char *content);

/* ---- lists of pieces ---- */

/* A part of a text: bytes [start, start + len). id >= 0: an added token instead of text. */
typedef struct lc_span {
    size_t start, len;
    int32_t id;
} lc_span;

typedef struct lc_spans {
    lc_span *data;
    size_t len, cap;
} lc_spans;
bool lc_spans_push(lc_spans *spans, size_t start, size_t len, int32_t id);
void lc_spans_free(lc_spans *spans);

/* ---- vocab.c ---- */

enum { LC_IN_MODEL = 1, LC_IN_ADDED = 2, LC_IS_SPECIAL = 4 };

typedef struct lc_vocab {
    size_t n_ids;     /* highest id + 1 */
    uint32_t *offset; /* [n_ids] into text */
    uint32_t *length; /* [n_ids] */
    uint8_t *flags;   /* [n_ids] LC_IN_...; 0 = unused id */
    char *text;       /* all contents, each with a NUL */
    uint32_t *slots;  /* hash of contents: id + 1, 0 = free */
    size_t mask;      /* slots - 1 */
    size_t text_len;
    uint32_t longest; /* the furthest that an entry is from its home slot */
} lc_vocab;

/* model.vocab and added_tokens (either may be NULL) into one table. */
int lc_vocab_load(lc_vocab *vocab, const lc_tok_src *src, struct json_object *model_vocab,
                  struct json_object *added_tokens);
void lc_vocab_free(lc_vocab *vocab);
/* Bytes of text of the longest token, the model's being in the byte alphabet. */
size_t lc_vocab_longest(const lc_vocab *vocab);
/* The id of a content, -1 if there is none with one of `flags`. */
int32_t lc_vocab_find(const lc_vocab *vocab, const char *content, size_t len, int flags);
static inline const char *lc_vocab_content(const lc_vocab *vocab, int32_t id) {
    return vocab->text + vocab->offset[id];
}

/* ---- bpe.c ---- */

typedef struct lc_merge {
    int32_t left, right, result;
} lc_merge;

typedef struct lc_pair_slot {
    int32_t left, right; /* left -1 = free */
    uint32_t rank;
} lc_pair_slot;

typedef struct lc_bpe {
    lc_merge *merges; /* [n_merges] by rank */
    size_t n_merges;
    lc_pair_slot *slots;
    size_t mask;
    uint32_t longest;
    int32_t char_id[LC_ALPHABET_END]; /* id of a one-character token, -1 if none */
    int32_t unk; /* -1: unknown characters are dropped, as the reference does */
    bool fuse_unk, ignore_merges;
} lc_bpe;

typedef struct lc_bpe_symbol {
    int32_t id; /* -1: merged into the one before */
    int32_t prev, next;
} lc_bpe_symbol;

typedef struct lc_bpe_work {
    lc_bpe_symbol *symbols;
    uint64_t *heap; /* rank << 32 | position */
    size_t n_symbols, n_heap, cap;
} lc_bpe_work;

int lc_bpe_load(lc_bpe *bpe, const lc_vocab *vocab, const lc_tok_src *src,
                struct json_object *model);
void lc_bpe_free(lc_bpe *bpe);
/* Appends the ids of one piece (valid UTF-8, at most 2^31 - 1 characters). false: out of memory. */
bool lc_bpe_encode(const lc_bpe *bpe, const lc_vocab *vocab, lc_bpe_work *work, lc_str piece,
                   lc_ids *out);
void lc_bpe_work_free(lc_bpe_work *work);

/* ---- regex.c ---- */

typedef struct lc_regex lc_regex;
typedef struct lc_regex_work lc_regex_work; /* match data; one for a thread */

typedef struct lc_regex_spec {
    const char *where; /* "pre_tokenizer.pretokenizers[0]", for messages */
    lc_str pattern;
    bool literal; /* the pattern is plain text */
} lc_regex_spec;

int lc_regex_new(const lc_tok_src *src, const lc_regex_spec *spec, lc_regex **out);
void lc_regex_free(lc_regex *regex);
/* Reads {"Regex": "..."} or {"String": "..."} in object.pattern. */
int lc_regex_load(const lc_tok_src *src, struct json_object *object, const char *where,
                  lc_regex **out);

lc_regex_work *lc_regex_work_new(void); /* NULL: out of memory */
void lc_regex_work_free(lc_regex_work *work);

/* Iterates over the matches in text (valid UTF-8), as the reference's find_iter does: an empty
 * match right after a match is none. Start with {.regex, .work, .text}. */
typedef struct lc_regex_iter {
    const lc_regex *regex;
    lc_regex_work *work;
    lc_str text;
    size_t at; /* where the next search begins */
    bool any;  /* there was a match, which ended at `last` */
    size_t last;
} lc_regex_iter;
/* *found tells whether [*start, *end) is a match. Errors: LC_ELIMIT when the pattern needs too many
 * steps on this text, LC_ENOMEM. */
int lc_regex_next(lc_regex_iter *iter, lc_span *match, bool *found, lc_err *err);

/* ---- normalize.c ---- */

typedef struct lc_norm_step lc_norm_step;
typedef struct lc_normalizer {
    lc_norm_step *steps;
    size_t n_steps;
    bool byte_level; /* a step maps to the byte alphabet */
} lc_normalizer;

int lc_normalizer_load(lc_normalizer *norm, const lc_tok_src *src, struct json_object *json);
void lc_normalizer_free(lc_normalizer *norm);
/* The normalised text in *out, which points to `text` itself or into a or b. */
typedef struct lc_norm_work {
    lc_buf a, b;
    int32_t *codes; /* one text as code points */
    size_t cap;
} lc_norm_work;
int lc_normalize(const lc_normalizer *norm, lc_norm_work *work, lc_regex_work *regex, lc_str text,
                 lc_str *out, lc_err *err);
void lc_norm_work_free(lc_norm_work *work);

/* ---- pretok.c ---- */

typedef struct lc_pretok_step lc_pretok_step;
typedef struct lc_pretok {
    lc_pretok_step *steps;
    size_t n_steps;
    bool byte_level;
    bool drops; /* a step removes text */
} lc_pretok;

typedef struct lc_pretok_work {
    lc_buf a, b;
    lc_spans pieces, next, matches;
} lc_pretok_work;

int lc_pretok_load(lc_pretok *pretok, const lc_tok_src *src, struct json_object *json);
void lc_pretok_free(lc_pretok *pretok);
/* Cuts text into work->pieces, which are parts of *out. */
int lc_pretok_split(const lc_pretok *pretok, lc_pretok_work *work, lc_regex_work *regex,
                    lc_str text, lc_str *out, lc_err *err);
void lc_pretok_work_free(lc_pretok_work *work);

/* The byte alphabet (GPT-2): printable Latin-1 stands for itself, the other 68 bytes are U+0100 and
 * following in byte order. */
bool lc_bytes_to_alphabet(lc_buf *out, const char *bytes, size_t len);
int lc_alphabet_byte(int32_t code); /* -1 if the character is not in the alphabet */

/* ---- added.c ---- */

typedef struct lc_added_token {
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
} lc_added_token;

/* A trie over reversed strings with failure links: one pass from right to left finds the longest
 * string that begins at each position. */
typedef struct lc_trie_node {
    uint32_t child, sibling, fail;
    uint32_t output; /* longest string that ends here: token index + 1, 0 = none */
    uint32_t length; /* of that string */
    uint8_t byte;
} lc_trie_node;

typedef struct lc_trie {
    lc_trie_node *nodes; /* node 0 is the root */
    size_t n_nodes, cap;
    uint32_t root[256]; /* children of the root; 0 = none */
    bool any;
} lc_trie;

typedef struct lc_added {
    lc_added_token *tokens; /* file order */
    size_t count;
    lc_trie raw, normalized;
} lc_added;

int lc_added_load(lc_added *added, const lc_normalizer *norm, const lc_tok_src *src,
                  struct json_object *json);
void lc_added_free(lc_added *added);

typedef struct lc_added_query {
    const lc_added *added;
    bool normalized; /* tokens with normalized: true, else the others */
    bool no_special; /* leave special tokens in the text */
    lc_spans *hits;  /* scratch */
} lc_added_query;
/* Cuts text into added tokens (id >= 0) and what is between them (id -1), appended to out. */
int lc_added_split(const lc_added_query *query, lc_str text, lc_spans *out, lc_err *err);

/* ---- decode.c ---- */

/* The bytes that each id stands for in decoded text. */
typedef struct lc_pieces {
    char *bytes;
    uint32_t *offset; /* [n_ids + 1] */
} lc_pieces;

int lc_pieces_load(lc_pieces *pieces, const lc_tokenizer *tokenizer, const lc_tok_src *src,
                   struct json_object *decoder);
void lc_pieces_free(lc_pieces *pieces);

/* ---- the whole ---- */

struct lc_tokenizer {
    lc_vocab vocab;
    lc_bpe bpe;
    lc_normalizer norm;
    lc_pretok pretok;
    lc_added added;
    lc_pieces pieces;
    lc_ids before, after; /* what the post-processor puts around a text */
    size_t longest;       /* bytes of text that a token stands for at most; 0: not known */
};

static inline bool lc_is_space(int32_t code) { /* the White_Space property, 25 characters */
    return (code >= 9 && code <= 13) || code == 0x20 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

#endif
