/*
 * pretok.c: pre-tokenizers: cutting a text into the pieces that merges never cross.
 *
 * The members of the file's Sequence are flattened to three primitive steps: split by a pattern,
 * put a space in front, write the bytes in the byte alphabet. Each step is applied to each piece of
 * the one before, as if the piece were alone: patterns never look past its ends. ByteLevel, Digits
 * and Punctuation are made of these steps; other pre-tokenizers belong to models that are not
 * byte-level and are refused by name.
 */
#include "text/tok.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

typedef enum pretok_kind { PRETOK_SPLIT, PRETOK_SPACE, PRETOK_BYTES } pretok_kind;

typedef enum split_behavior {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_CONTIGUOUS,
    SPLIT_WITH_PREVIOUS,
    SPLIT_WITH_NEXT,
} split_behavior;

struct lc_pretok_step {
    pretok_kind kind;
    lc_regex *regex;
    split_behavior behavior;
    bool invert; /* the gaps are the matches */
};

#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* ---- the byte alphabet ---- */

static bool stands_for_itself(int32_t code) {
    return (code >= 0x21 && code <= 0x7E) || (code >= 0xA1 && code <= 0xFF && code != 0xAD);
}

/* Bytes 00-20 are U+0100-0120, 7F-A0 are U+0121-0142, AD is U+0143. */
bool lc_bytes_to_alphabet(lc_buf *out, const char *bytes, size_t len) {
    size_t most;
    if (!lc_size_mul(len, 2, &most) || !lc_buf_reserve(out, most)) {
        out->failed = true;
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char b = (unsigned char)bytes[i];
        uint32_t code = stands_for_itself(b) ? b
                        : b <= 0x20          ? 0x100u + b
                        : b <= 0xA0          ? 0x121u + b - 0x7Fu
                                             : 0x143u;
        out->len += lc_utf8_encode(code, out->data + out->len);
    }
    out->data[out->len] = 0;
    return true;
}

int lc_alphabet_byte(int32_t code) {
    if (stands_for_itself(code)) return code;
    if (code >= 0x100 && code <= 0x120) return code - 0x100;
    if (code >= 0x121 && code <= 0x142) return code - 0x121 + 0x7F;
    return code == 0x143 ? 0xAD : -1;
}

/* ---- loading ---- */

typedef struct pretok_loader {
    lc_pretok *pretok;
    const lc_tok_src *src;
    const char *where; /* of the member that is being read */
} pretok_loader;

static int add_step(const pretok_loader *loader, pretok_kind kind, lc_pretok_step **out) {
    lc_pretok *pretok = loader->pretok;
    if (pretok->n_steps == LC_TOK_STEPS_MAX)
        return lc_fail(loader->src->err, LC_ELIMIT, "%s: pre_tokenizer: more than %d steps",
                       loader->src->name, LC_TOK_STEPS_MAX);
    *out = &pretok->steps[pretok->n_steps++];
    **out = (lc_pretok_step){.kind = kind};
    return LC_OK;
}

static int add_split(const pretok_loader *loader, const char *text, split_behavior behavior) {
    lc_regex_spec spec = {.where = loader->where, .pattern = {text, strlen(text)}};
    lc_pretok_step *step;
    int status = add_step(loader, PRETOK_SPLIT, &step);
    if (status) return status;
    step->behavior = behavior;
    return lc_regex_new(loader->src, &spec, &step->regex);
}

static int load_byte_level(const pretok_loader *loader, struct json_object *json) {
    bool prefix = true, use_regex = true;
    lc_pretok_step *step;
    int status = lc_tok_bool(loader->src, json, loader->where, "add_prefix_space", &prefix);
    if (!status) status = lc_tok_bool(loader->src, json, loader->where, "use_regex", &use_regex);
    if (!status && prefix) status = add_step(loader, PRETOK_SPACE, &step);
    if (!status && use_regex) status = add_split(loader, GPT2_PATTERN, SPLIT_ISOLATED);
    if (!status) status = add_step(loader, PRETOK_BYTES, &step);
    loader->pretok->byte_level = true;
    return status;
}

static int load_behavior(const pretok_loader *loader, struct json_object *json,
                         split_behavior *out) {
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    lc_str name;
    int status = lc_tok_string(loader->src, json, loader->where, "behavior", &name);
    if (status) return status;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], name.data)) {
            *out = (split_behavior)i;
            return LC_OK;
        }
    lc_quoted quoted = lc_tok_quote(name.data);
    return lc_fail(loader->src->err, LC_EUNSUPPORTED, "%s: %s.behavior: \"%s\" is not supported",
                   loader->src->name, loader->where, quoted.text);
}

static int load_split(const pretok_loader *loader, struct json_object *json) {
    lc_pretok_step *step;
    int status = add_step(loader, PRETOK_SPLIT, &step);
    if (!status) status = load_behavior(loader, json, &step->behavior);
    if (!status && step->behavior == SPLIT_REMOVED) loader->pretok->drops = true;
    if (!status) status = lc_tok_bool(loader->src, json, loader->where, "invert", &step->invert);
    return status ? status : lc_regex_load(loader->src, json, loader->where, &step->regex);
}

static int load_digits(const pretok_loader *loader, struct json_object *json) {
    bool individual = false;
    int status = lc_tok_bool(loader->src, json, loader->where, "individual_digits", &individual);
    return status ? status
                  : add_split(loader, "\\p{N}", individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
}

static int load_punctuation(const pretok_loader *loader, struct json_object *json) {
    split_behavior behavior = SPLIT_ISOLATED;
    int status = lc_tok_field(json, "behavior") ? load_behavior(loader, json, &behavior) : LC_OK;
    return status ? status : add_split(loader, "[!-\\/:-@\\[-`{-~\\p{P}]", behavior);
}

static int load_any(pretok_loader *loader, struct json_object *json, int depth) {
    const lc_tok_src *src = loader->src;
    const char *where = loader->where;
    lc_str type;
    int status = lc_tok_string(src, json, where, "type", &type);
    if (status) return status;
    if (!strcmp(type.data, "Split")) return load_split(loader, json);
    if (!strcmp(type.data, "ByteLevel")) return load_byte_level(loader, json);
    if (!strcmp(type.data, "Digits")) return load_digits(loader, json);
    if (!strcmp(type.data, "Punctuation")) return load_punctuation(loader, json);
    lc_quoted quoted = lc_tok_quote(type.data);
    if (strcmp(type.data, "Sequence"))
        return lc_fail(src->err, LC_EUNSUPPORTED, "%s: %s: pre-tokenizer \"%s\" is not supported",
                       src->name, where, quoted.text);
    struct json_object *members = lc_tok_field(json, "pretokenizers");
    if (!json_object_is_type(members, json_type_array))
        return lc_fail(src->err, LC_EFORMAT, "%s: %s.pretokenizers is missing or no list",
                       src->name, where);
    if (depth == LC_TOK_DEPTH_MAX)
        return lc_fail(src->err, LC_ELIMIT, "%s: %s: Sequences nested deeper than %d", src->name,
                       where, LC_TOK_DEPTH_MAX);
    for (size_t i = 0; i < json_object_array_length(members) && !status; i++) {
        char inside[96];
        snprintf(inside, sizeof inside, "%.50s.pretokenizers[%zu]", where, i);
        pretok_loader member = {loader->pretok, src, inside};
        status = load_any(&member, json_object_array_get_idx(members, i), depth + 1);
    }
    return status;
}

int lc_pretok_load(lc_pretok *pretok, const lc_tok_src *src, struct json_object *json) {
    if (!json) return LC_OK;
    pretok->steps = lc_calloc(LC_TOK_STEPS_MAX, sizeof *pretok->steps);
    if (!pretok->steps) return lc_fail(src->err, LC_ENOMEM, "%s: out of memory", src->name);
    return load_any(&(pretok_loader){pretok, src, "pre_tokenizer"}, json, 0);
}

void lc_pretok_free(lc_pretok *pretok) {
    for (size_t i = 0; i < pretok->n_steps; i++) lc_regex_free(pretok->steps[i].regex);
    lc_free(pretok->steps);
    *pretok = (lc_pretok){0};
}

/* ---- running ---- */

typedef struct pretok_run {
    lc_pretok_work *work;
    lc_regex_work *regex;
    size_t limit; /* bytes that the text may grow to */
    lc_err *err;
} pretok_run;

static int out_of_memory(const pretok_run *run) {
    return lc_fail(run->err, LC_ENOMEM, "pre_tokenizer: out of memory");
}

/* Matches and gaps of one piece in order; id 1 = match, 0 = gap. Empty matches count. */
static int find_matches(const pretok_run *run, const lc_pretok_step *step, lc_str text) {
    lc_spans *matches = &run->work->matches;
    lc_regex_iter iter = {.regex = step->regex, .work = run->regex, .text = text};
    size_t done = 0;
    lc_span match;
    bool found, ok = true;
    int status;
    matches->len = 0;
    while (!(status = lc_regex_next(&iter, &match, &found, run->err)) && found) {
        if (match.start != done)
            ok = lc_spans_push(matches, done, match.start - done, step->invert);
        ok = ok && lc_spans_push(matches, match.start, match.len, !step->invert);
        if (!ok) return out_of_memory(run);
        done = match.start + match.len;
    }
    if (!status && done != text.len && !lc_spans_push(matches, done, text.len - done, step->invert))
        return out_of_memory(run);
    return status;
}

/* Joins matches and gaps to pieces, as the reference's split() does; pieces[from..] are this
 * text's. */
static bool join_matches(lc_spans *matches, split_behavior behavior, lc_spans *pieces) {
    size_t n = matches->len, from = pieces->len;
    bool backwards = behavior == SPLIT_WITH_NEXT, previous = false;
    for (size_t i = 0; i < n; i++) {
        lc_span m = matches->data[backwards ? n - 1 - i : i];
        bool match = m.id != 0, join = pieces->len > from;
        if (behavior == SPLIT_REMOVED && match) continue;
        if (behavior == SPLIT_ISOLATED || behavior == SPLIT_REMOVED)
            join = false;
        else if (behavior == SPLIT_CONTIGUOUS)
            join = join && match == previous;
        else
            join = join && match && !previous;
        previous = match;
        lc_span *last = join ? &pieces->data[pieces->len - 1] : NULL;
        if (last && backwards) last->start = m.start;
        if (last)
            last->len += m.len;
        else if (!lc_spans_push(pieces, m.start, m.len, -1))
            return false;
    }
    for (size_t i = from, j = pieces->len; backwards && i + 1 < j; i++) {
        lc_span swap = pieces->data[i];
        pieces->data[i] = pieces->data[--j];
        pieces->data[j] = swap;
    }
    return true;
}

static int split_pieces(const pretok_run *run, const lc_pretok_step *step, lc_str text) {
    lc_spans *pieces = &run->work->pieces, *next = &run->work->next;
    next->len = 0;
    for (size_t i = 0; i < pieces->len; i++) {
        lc_span piece = pieces->data[i];
        size_t from = next->len, kept = from;
        int status = find_matches(run, step, (lc_str){text.data + piece.start, piece.len});
        if (status) return status;
        if (!join_matches(&run->work->matches, step->behavior, next)) return out_of_memory(run);
        for (size_t j = from; j < next->len; j++) { /* empty pieces are dropped at last */
            lc_span part = next->data[j];
            if (part.len) next->data[kept++] = (lc_span){piece.start + part.start, part.len, -1};
        }
        next->len = kept;
    }
    lc_spans swap = *pieces;
    *pieces = *next;
    *next = swap;
    return LC_OK;
}

/* PRETOK_SPACE and PRETOK_BYTES: the pieces, changed, into another buffer. */
static int rewrite_pieces(const pretok_run *run, const lc_pretok_step *step, lc_str *text) {
    lc_buf *out = text->data == run->work->a.data ? &run->work->b : &run->work->a;
    lc_spans *pieces = &run->work->pieces;
    lc_buf_clear(out);
    if (!lc_buf_reserve(out, 0)) return out_of_memory(run);
    for (size_t i = 0; i < pieces->len; i++) {
        lc_span *piece = &pieces->data[i];
        const char *from = text->data + piece->start;
        size_t start = out->len;
        if (step->kind == PRETOK_BYTES) {
            lc_bytes_to_alphabet(out, from, piece->len);
        } else {
            if (*from != ' ') lc_buf_putc(out, ' ');
            lc_buf_append(out, from, piece->len);
        }
        *piece = (lc_span){start, out->len - start, -1};
        if (out->len > run->limit)
            return lc_fail(run->err, LC_ELIMIT,
                           "pre_tokenizer: its result is larger than %zu bytes", run->limit);
    }
    if (out->failed) return out_of_memory(run);
    *text = (lc_str){out->data, out->len};
    return LC_OK;
}

int lc_pretok_split(const lc_pretok *pretok, lc_pretok_work *work, lc_regex_work *regex,
                    lc_str text, lc_str *out, lc_err *err) {
    pretok_run run = {work, regex, ((size_t)1 << 20) + 32 * text.len, err};
    work->pieces.len = 0;
    if (text.len && !lc_spans_push(&work->pieces, 0, text.len, -1)) return out_of_memory(&run);
    for (size_t i = 0; i < pretok->n_steps; i++) {
        const lc_pretok_step *step = &pretok->steps[i];
        int status = step->kind == PRETOK_SPLIT ? split_pieces(&run, step, text)
                                                : rewrite_pieces(&run, step, &text);
        if (status) return status;
    }
    *out = text;
    return LC_OK;
}

void lc_pretok_work_free(lc_pretok_work *work) {
    lc_buf_free(&work->a);
    lc_buf_free(&work->b);
    lc_spans_free(&work->pieces);
    lc_spans_free(&work->next);
    lc_spans_free(&work->matches);
    *work = (lc_pretok_work){0};
}
