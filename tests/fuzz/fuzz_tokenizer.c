/*
 * fuzz_tokenizer.c: an input that begins with { is a tokenizer.json, which may be refused with a
 * message or must work on a short text. Any other input is a text for golden tokenizers. In both
 * cases: ids are known ones, decoding id by id gives the same text as decoding at once, and where
 * nothing normalises or strips, that text is the input.
 */
#include "base/mem.h"
#include "base/utf8.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok) {
    if (!ok) abort();
}

static bool same(const lc_buf *a, const lc_buf *b) {
    return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

static void check_decode(const lc_tokenizer *t, const lc_ids *ids, bool skip_special, lc_buf *out) {
    lc_decode_stream stream = {.skip_special = skip_special};
    lc_buf pieces = {0};
    lc_err err;
    lc_buf_clear(out);
    require(lc_tokenizer_decode(t, ids->data, ids->len, skip_special, out, &err) == LC_OK);
    for (size_t i = 0; i < ids->len; i++) {
        size_t from = pieces.len;
        require(ids->data[i] >= 0 && (size_t)ids->data[i] < lc_tokenizer_vocab_size(t));
        require(lc_tokenizer_content(t, ids->data[i]) != NULL);
        require(lc_decode_push(t, &stream, ids->data[i], &pieces, &err) == LC_OK);
        for (size_t used; from < pieces.len; from += used) /* never half a character */
            require(lc_utf8_decode(pieces.data + from, pieces.len - from, &used) >= 0);
    }
    require(lc_decode_finish(&stream, &pieces));
    require(same(&pieces, out));
    lc_buf_free(&pieces);
}

static void check_text(const lc_tokenizer *t, const char *text, size_t len, bool exact) {
    static const lc_encode_mode modes[] = {LC_ENCODE_ALL, LC_ENCODE_NO_SPECIAL, LC_ENCODE_PLAIN};
    lc_buf clean = {0}, out = {0};
    require(lc_utf8_sanitize(&clean, text, len));
    for (size_t i = 0; i < 3; i++) {
        lc_ids ids = {0};
        lc_err err = {0};
        int code = lc_tokenizer_encode(t, text, len, modes[i], i == 1, &ids, &err);
        require(code == LC_OK || code == LC_ELIMIT);
        require(code == LC_OK || (ids.len == 0 && err.text[0]));
        for (size_t j = 0; modes[i] == LC_ENCODE_PLAIN && exact && j < ids.len; j++)
            require(!lc_tokenizer_is_special(t, ids.data[j]));
        check_decode(t, &ids, true, &out);
        check_decode(t, &ids, false, &out);
        require(!exact || same(&clean, &out));
        lc_ids_free(&ids);
    }
    lc_buf_free(&clean);
    lc_buf_free(&out);
}

static const struct {
    const char *path;
    bool exact;
} golden[] = {
    {"tests/golden/text/tokenizer_gpt2.json", true},
    {"tests/golden/text/tokenizer_qwen.json", false},
    {"tests/golden/text/tokenizer_case.json", false},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char sample[] =
        "ab'S Caf\xC3\xA9 e\xCC\x81\xCC\x96 12345  \r\n<x> \xE4\xB8\xAD\xFF_";
    static lc_tokenizer *loaded[3];
    const char *text = size ? (const char *)data : "";
    lc_err err = {0};
    for (size_t i = 0; i < 3 && !loaded[i]; i++)
        require(lc_tokenizer_load(golden[i].path, &loaded[i], &err) == LC_OK);
    size_t before = lc_mem_current();
    if (text[0] == '{') {
        lc_tokenizer *t;
        if (lc_tokenizer_parse(text, size, "fuzz", &t, &err) == LC_OK) {
            check_text(t, sample, sizeof sample - 1, false);
            lc_tokenizer_free(t);
        } else {
            require(!t && err.text[0]);
        }
    } else {
        for (size_t i = 0; i < 3; i++) check_text(loaded[i], text, size, golden[i].exact);
    }
    require(lc_mem_current() == before);
    return 0;
}
