/*
 * eval_grammar.c: answers by a JSON schema, drawn at random from the masks of its grammar: shows
 * what a schema admits, and feeds validators of others. The tokenizer is all it needs of a model.
 */
#include "cli/eval.h"

#include "base/mem.h"
#include "base/rng.h"
#include "engine/grammar.h"

#include <stdio.h>

enum { MORE_TOKENS = 120 }; /* of an answer, beyond the shortest, at most */

typedef struct grammar_flags {
    const char *model, *schema; /* folder or tokenizer.json; JSON file */
    int64_t count, seed;
} grammar_flags;

typedef struct drawing {
    lc_tokenizer *tokenizer;
    lc_grammar_vocab *vocab;
    lc_grammar *grammar;
    struct json_object *schema;
    uint64_t *mask;
    size_t size;
    int32_t eos;
    uint64_t seed, draws;
} drawing;

static uint32_t draw(drawing *d, uint32_t n) {
    return (uint32_t)(lc_rng_uniform(d->seed, 0, d->draws++) * n);
}

/* One token of the mask; in every second case one of a single byte, if there is any: long tokens
 * would drown what shapes the answer. -1: the mask is empty. */
static int32_t pick(drawing *d) {
    int32_t any = -1, small = -1;
    uint32_t n = 0, n_small = 0;
    for (size_t t = 0; t < d->size; t++) {
        size_t len;
        if (!(d->mask[t / 64] >> t % 64 & 1)) continue;
        (void)lc_tokenizer_bytes(d->tokenizer, (int32_t)t, &len);
        if (!draw(d, ++n)) any = (int32_t)t;
        if (len < 2 && !draw(d, ++n_small)) small = (int32_t)t;
    }
    return small >= 0 && draw(d, 2) ? small : any;
}

static int draw_answer(drawing *d, size_t left, lc_buf *out, lc_err *err) {
    lc_grammar_state *s = NULL;
    int32_t token = 0;
    int status = lc_grammar_begin(d->grammar, &s, err);
    for (; status == LC_OK && !lc_grammar_complete(s); left--) {
        size_t len;
        status = lc_grammar_mask(s, left, d->mask, err);
        if (status != LC_OK) break;
        token = pick(d);
        if (token < 0 || token == d->eos) break;
        const char *bytes = lc_tokenizer_bytes(d->tokenizer, token, &len);
        lc_buf_append(out, bytes, len);
        status = lc_grammar_accept(s, token, err);
    }
    lc_grammar_state_free(s);
    if (status == LC_OK && out->failed) return lc_fail(err, LC_ENOMEM, "grammar: out of memory");
    return status;
}

static int open_drawing(const grammar_flags *how, drawing *d, lc_err *err) {
    if (!how->schema) return lc_fail(err, LC_EINVAL, "--schema FILE is needed");
    int status = lc_json_load(how->schema, 0, &d->schema, err);
    if (status == LC_OK) status = lc_tokenizer_load(how->model, &d->tokenizer, err);
    if (status != LC_OK) return status;
    d->size = lc_tokenizer_vocab_size(d->tokenizer);
    d->eos = lc_tokenizer_id(d->tokenizer, "</longcat_s>");
    d->mask = lc_calloc((d->size + 63) / 64, sizeof *d->mask);
    if (!d->mask) return lc_fail(err, LC_ENOMEM, "grammar: out of memory");
    lc_grammar_spec spec = {.kind = LC_GRAMMAR_SCHEMA, .schema = d->schema};
    status = lc_grammar_vocab_new(d->tokenizer, d->size, &d->eos, d->eos >= 0, &d->vocab, err);
    if (status == LC_OK) status = lc_grammar_new(d->vocab, &spec, &d->grammar, err);
    return status;
}

static int run(const grammar_flags *how, lc_err *err) {
    drawing d = {.seed = (uint64_t)how->seed};
    int status = open_drawing(how, &d, err);
    for (int64_t i = 0; i < how->count && status == LC_OK; i++) {
        lc_buf text = {0};
        size_t more = draw(&d, MORE_TOKENS + 1);
        status = draw_answer(&d, lc_grammar_shortest(d.grammar) + more, &text, err);
        if (status == LC_OK) printf("%.*s\n", (int)text.len, text.data);
        lc_buf_free(&text);
    }
    lc_grammar_free(d.grammar);
    lc_grammar_vocab_free(d.vocab);
    lc_tokenizer_free(d.tokenizer);
    json_object_put(d.schema);
    lc_free(d.mask);
    return status;
}

int lc_eval_grammar_cmd(int argc, char **argv) {
    grammar_flags f = {.count = 3};
    const lc_opt options[] = {
        {"schema", 0, LC_OPT_STRING, &f.schema, "FILE", "the JSON schema", 0, 0},
        {"count", 'n', LC_OPT_INT, &f.count, "N", "answers (default 3)", 1, 1000000},
        {"seed", 0, LC_OPT_INT, &f.seed, "N", "of the draws (default 0)", 0, 1e15},
        {0},
    };
    const lc_usage usage = {"longcat eval grammar MODEL|tokenizer.json --schema FILE [options]",
                            "Answers that a schema admits under the grammar of `longcat serve`, "
                            "one JSON text a line. No "
                            "weights\nare used. docs/grammar.md lists the keywords.",
                            options, 1, 1};
    int n_args, code = lc_cli_parse(&usage, argc, argv, &f.model, &n_args);
    if (code >= 0) return code;
    lc_err err = {0};
    return run(&f, &err) == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
