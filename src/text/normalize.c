/*
 * normalize.c: the normalisers of tokenizer.json.
 *
 * Unicode data comes from utf8proc; the canonical ordering is ours, because utf8proc's is quadratic
 * in a run of combining marks. The reference's normalisation tables are those of Unicode 9: for it,
 * what was assigned later is a character that neither decomposes nor composes nor moves. The table
 * `newer` lists these, as far as a newer table treats them otherwise, so that the ids stay equal.
 *
 * Output is limited to a multiple of the input: a file may hold any replacement text.
 */
#include "text/tok.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

typedef enum norm_kind {
    NORM_NFC,
    NORM_NFD,
    NORM_NFKC,
    NORM_NFKD,
    NORM_LOWERCASE,
    NORM_STRIP,
    NORM_REPLACE,
    NORM_PREPEND,
    NORM_BYTE_LEVEL,
} norm_kind;

struct lc_norm_step {
    norm_kind kind;
    bool left, right; /* NORM_STRIP */
    lc_regex *regex;  /* NORM_REPLACE */
    char *text;       /* NORM_REPLACE, NORM_PREPEND */
    size_t len;
};

/* ---- loading ---- */

typedef struct norm_loader {
    lc_normalizer *norm;
    const lc_tok_src *src;
} norm_loader;

static int load_text(const lc_tok_src *src, lc_norm_step *step, lc_str text) {
    step->text = lc_strndup(text.data, text.len);
    step->len = text.len;
    return step->text ? LC_OK : lc_fail(src->err, LC_ENOMEM, "%s: out of memory", src->name);
}

static int load_step(const norm_loader *loader, struct json_object *json, const char *where) {
    static const struct {
        const char *type;
        norm_kind kind;
    } kinds[] = {
        {"NFC", NORM_NFC},
        {"NFD", NORM_NFD},
        {"NFKC", NORM_NFKC},
        {"NFKD", NORM_NFKD},
        {"Lowercase", NORM_LOWERCASE},
        {"Strip", NORM_STRIP},
        {"Replace", NORM_REPLACE},
        {"Prepend", NORM_PREPEND},
        {"ByteLevel", NORM_BYTE_LEVEL},
    };
    const lc_tok_src *src = loader->src;
    lc_normalizer *norm = loader->norm;
    size_t k = 0;
    lc_str type, text;
    int status = lc_tok_string(src, json, where, "type", &type);
    if (status) return status;
    while (k < sizeof kinds / sizeof *kinds && strcmp(kinds[k].type, type.data)) k++;
    lc_quoted quoted = lc_tok_quote(type.data);
    if (k == sizeof kinds / sizeof *kinds)
        return lc_fail(src->err, LC_EUNSUPPORTED, "%s: %s: normalizer \"%s\" is not supported",
                       src->name, where, quoted.text);
    if (norm->n_steps == LC_TOK_STEPS_MAX)
        return lc_fail(src->err, LC_ELIMIT, "%s: normalizer: more than %d members", src->name,
                       LC_TOK_STEPS_MAX);
    lc_norm_step *step = &norm->steps[norm->n_steps++];
    *step = (lc_norm_step){.kind = kinds[k].kind};
    if (step->kind == NORM_STRIP) {
        status = lc_tok_bool(src, json, where, "strip_left", &step->left);
        if (!status) status = lc_tok_bool(src, json, where, "strip_right", &step->right);
    } else if (step->kind == NORM_REPLACE) {
        status = lc_tok_string(src, json, where, "content", &text);
        if (!status) status = load_text(src, step, text);
        if (!status) status = lc_regex_load(src, json, where, &step->regex);
    } else if (step->kind == NORM_PREPEND) {
        status = lc_tok_string(src, json, where, "prepend", &text);
        if (!status) status = load_text(src, step, text);
    } else if (step->kind == NORM_BYTE_LEVEL) {
        norm->byte_level = true;
    }
    return status;
}

static int load_any(const norm_loader *loader, struct json_object *json, const char *where,
                    int depth) {
    const lc_tok_src *src = loader->src;
    lc_str type;
    int status = lc_tok_string(src, json, where, "type", &type);
    if (status || strcmp(type.data, "Sequence"))
        return status ? status : load_step(loader, json, where);
    struct json_object *members = lc_tok_field(json, "normalizers");
    if (!json_object_is_type(members, json_type_array))
        return lc_fail(src->err, LC_EFORMAT, "%s: %s.normalizers is missing or no list", src->name,
                       where);
    if (depth == LC_TOK_DEPTH_MAX)
        return lc_fail(src->err, LC_ELIMIT, "%s: %s: Sequences nested deeper than %d", src->name,
                       where, LC_TOK_DEPTH_MAX);
    for (size_t i = 0; i < json_object_array_length(members); i++) {
        char inside[96];
        snprintf(inside, sizeof inside, "%.50s.normalizers[%zu]", where, i);
        status = load_any(loader, json_object_array_get_idx(members, i), inside, depth + 1);
        if (status) return status;
    }
    return LC_OK;
}

int lc_normalizer_load(lc_normalizer *norm, const lc_tok_src *src, struct json_object *json) {
    if (!json) return LC_OK;
    norm->steps = lc_calloc(LC_TOK_STEPS_MAX, sizeof *norm->steps);
    if (!norm->steps) return lc_fail(src->err, LC_ENOMEM, "%s: out of memory", src->name);
    return load_any(&(norm_loader){norm, src}, json, "normalizer", 0);
}

void lc_normalizer_free(lc_normalizer *norm) {
    for (size_t i = 0; i < norm->n_steps; i++) {
        lc_regex_free(norm->steps[i].regex);
        lc_free(norm->steps[i].text);
    }
    lc_free(norm->steps);
    *norm = (lc_normalizer){0};
}

/* ---- running ---- */

typedef struct norm_run {
    lc_norm_work *work;
    lc_regex_work *regex;
    lc_buf *out;
    size_t limit;
    lc_err *err;
} norm_run;

static int out_of_memory(const norm_run *run) {
    return lc_fail(run->err, LC_ENOMEM, "normalizer: out of memory");
}

static int put(const norm_run *run, const char *bytes, size_t len) {
    if (len > run->limit - run->out->len)
        return lc_fail(run->err, LC_ELIMIT, "normalizer: its result is larger than %zu bytes",
                       run->limit);
    return lc_buf_append(run->out, bytes, len) ? LC_OK : out_of_memory(run);
}

static int put_code(const norm_run *run, int32_t code) {
    char utf8[4];
    return put(run, utf8, lc_utf8_encode((uint32_t)code, utf8));
}

/* Characters that Unicode 9 did not have and that later versions reorder, decompose or compose
 * (through Unicode 18), found by comparing the reference with unicodedata. */
static bool is_newer(int32_t code) {
    static const int32_t newer[][2] = {
        {0x0558, 0x0558},   {0x058B, 0x058C},   {0x05C8, 0x05C9},   {0x07FD, 0x07FD},
        {0x0897, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},
        {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x1715, 0x1715},   {0x1ABF, 0x1AF0},
        {0x1DF6, 0x1DFA},   {0x209D, 0x209F},   {0x32FF, 0x32FF},   {0xA7F1, 0xA7F4},
        {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x105C9, 0x105C9}, {0x105D2, 0x105D2},
        {0x105DA, 0x105DA}, {0x105E4, 0x105E4}, {0x10781, 0x10785}, {0x10787, 0x107B0},
        {0x107B2, 0x107BF}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC},
        {0x10ECB, 0x10ECF}, {0x10EF0, 0x10EFB}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
        {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x11382, 0x11385},
        {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x11391}, {0x113C2, 0x113C2},
        {0x113C5, 0x113C5}, {0x113C7, 0x113C8}, {0x113CE, 0x113D0}, {0x1145E, 0x1145E},
        {0x11839, 0x1183A}, {0x11935, 0x11935}, {0x11938, 0x11938}, {0x1193D, 0x1193E},
        {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
        {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
        {0x11F41, 0x11F42}, {0x1611E, 0x1611E}, {0x16121, 0x16129}, {0x1612F, 0x1612F},
        {0x16D63, 0x16D63}, {0x16D67, 0x16D6A}, {0x16FF0, 0x16FF1}, {0x1B123, 0x1B126},
        {0x1CCD6, 0x1CCF9}, {0x1D127, 0x1D128}, {0x1D250, 0x1D252}, {0x1D25B, 0x1D25C},
        {0x1D25F, 0x1D25F}, {0x1D280, 0x1D281}, {0x1D6A6, 0x1D6A6}, {0x1DF95, 0x1DF95},
        {0x1DFCD, 0x1DFFF}, {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
        {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF},
        {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5},
        {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
    };
    size_t low = 0, high = sizeof newer / sizeof *newer;
    if (code < newer[0][0]) return false;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (code > newer[mid][1])
            low = mid + 1;
        else
            high = mid;
    }
    return low < sizeof newer / sizeof *newer && code >= newer[low][0];
}

static unsigned combining_class(int32_t code) {
    return code < 0x300 ? 0 : (unsigned)utf8proc_get_property(code)->combining_class & 0xFFu;
}

/* Sorts a run of marks by combining class, stably; `spare` has room for n codes. */
static void order_run(int32_t *codes, size_t n, int32_t *spare) {
    size_t at[257] = {0};
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            int32_t code = codes[i];
            size_t j = i;
            for (; j && combining_class(codes[j - 1]) > combining_class(code); j--)
                codes[j] = codes[j - 1];
            codes[j] = code;
        }
        return;
    }
    for (size_t i = 0; i < n; i++) at[combining_class(codes[i]) + 1]++;
    for (size_t c = 1; c < 257; c++) at[c] += at[c - 1];
    for (size_t i = 0; i < n; i++) spare[at[combining_class(codes[i])]++] = codes[i];
    memcpy(codes, spare, n * sizeof *codes);
}

static bool reserve_codes(lc_norm_work *work, size_t n) {
    if (n <= work->cap) return true;
    size_t cap = n + n / 2 + 64;
    int32_t *codes = lc_realloc(work->codes, cap, sizeof *codes);
    if (!codes) return false;
    work->codes = codes;
    work->cap = cap;
    return true;
}

/* Orders, composes and writes n decomposed codes. */
static int flush_codes(const norm_run *run, size_t n, bool compose) {
    if (!n) return LC_OK;
    if (!reserve_codes(run->work, 2 * n)) return out_of_memory(run);
    int32_t *codes = run->work->codes;
    for (size_t i = 0, end; i < n; i = end + 1) {
        end = i;
        while (end < n && combining_class(codes[end])) end++;
        if (end - i > 1) order_run(codes + i, end - i, codes + n);
    }
    utf8proc_ssize_t m = (utf8proc_ssize_t)n;
    if (compose) m = utf8proc_normalize_utf32(codes, m, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < m; i++) {
        int status = put_code(run, codes[i]);
        if (status) return status;
    }
    return LC_OK;
}

/* NFC, NFD, NFKC, NFKD. Between two newer characters lies a text of its own. */
static int to_form(const norm_run *run, lc_str text, norm_kind form) {
    bool compose = form == NORM_NFC || form == NORM_NFKC;
    bool compat = form == NORM_NFKC || form == NORM_NFKD;
    int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0);
    size_t n = 0;
    for (size_t i = 0, used; i < text.len; i += used) {
        int32_t code = lc_utf8_decode(text.data + i, text.len - i, &used);
        if (is_newer(code)) {
            int status = flush_codes(run, n, compose);
            if (!status) status = put_code(run, code);
            if (status) return status;
            n = 0;
            continue;
        }
        if (!reserve_codes(run->work, n + 32)) return out_of_memory(run);
        int boundary = 0;
        utf8proc_ssize_t got = utf8proc_decompose_char(code, run->work->codes + n, 32,
                                                       (utf8proc_option_t)options, &boundary);
        if (got < 0 || got > 32)
            return lc_fail(run->err, LC_EFORMAT, "normalizer: U+%04X: %s", (unsigned)code,
                           utf8proc_errmsg(got));
        n += (size_t)got;
    }
    return flush_codes(run, n, compose);
}

/* Texts whose characters are all below U+0300 are NFC; ASCII is in every form. */
static bool is_in_form(lc_str text, norm_kind form) {
    unsigned char limit = form == NORM_NFC ? 0xCC : 0x80; /* U+0300 is CC 80 */
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.data[i] >= limit) return false;
    return true;
}

static int lowercase(const norm_run *run, lc_str text) {
    for (size_t i = 0, used; i < text.len; i += used) {
        int32_t code = lc_utf8_decode(text.data + i, text.len - i, &used);
        int status = code == 0x130 ? put(run, "i\xCC\x87", 3) /* two characters */
                                   : put_code(run, utf8proc_tolower(code));
        if (status) return status;
    }
    return LC_OK;
}

static lc_str strip(lc_str text, const lc_norm_step *step) {
    size_t used;
    while (step->left && text.len && lc_is_space(lc_utf8_decode(text.data, text.len, &used))) {
        text.data += used;
        text.len -= used;
    }
    while (step->right && text.len) {
        size_t at = text.len - 1;
        while (at && ((unsigned char)text.data[at] & 0xC0) == 0x80) at--;
        if (!lc_is_space(lc_utf8_decode(text.data + at, text.len - at, &used))) break;
        text.len = at;
    }
    return text;
}

static int replace(const norm_run *run, lc_str text, const lc_norm_step *step) {
    lc_regex_iter iter = {.regex = step->regex, .work = run->regex, .text = text};
    size_t done = 0;
    lc_span match;
    bool found;
    int status;
    while (!(status = lc_regex_next(&iter, &match, &found, run->err)) && found) {
        status = put(run, text.data + done, match.start - done);
        if (!status) status = put(run, step->text, step->len);
        if (status) return status;
        done = match.start + match.len;
    }
    return status ? status : put(run, text.data + done, text.len - done);
}

static int byte_level(const norm_run *run, lc_str text) {
    for (size_t i = 0; i < text.len; i++) { /* at most two bytes each */
        if (run->limit - run->out->len < 2)
            return lc_fail(run->err, LC_ELIMIT, "normalizer: its result is larger than %zu bytes",
                           run->limit);
        if (!lc_bytes_to_alphabet(run->out, text.data + i, 1)) return out_of_memory(run);
    }
    return LC_OK;
}

/* One step. *text is replaced by the result. */
static int run_step(const norm_run *run, const lc_norm_step *step, lc_str *text) {
    int status = LC_OK;
    switch (step->kind) {
    case NORM_STRIP: *text = strip(*text, step); return LC_OK;
    case NORM_NFC:
    case NORM_NFD:
    case NORM_NFKC:
    case NORM_NFKD:
        if (is_in_form(*text, step->kind)) return LC_OK;
        status = to_form(run, *text, step->kind);
        break;
    case NORM_LOWERCASE: status = lowercase(run, *text); break;
    case NORM_REPLACE: status = replace(run, *text, step); break;
    case NORM_PREPEND:
        if (!text->len) return LC_OK;
        status = put(run, step->text, step->len);
        if (!status) status = put(run, text->data, text->len);
        break;
    case NORM_BYTE_LEVEL: status = byte_level(run, *text); break;
    }
    if (!status) *text = (lc_str){run->out->data, run->out->len};
    return status;
}

int lc_normalize(const lc_normalizer *norm, lc_norm_work *work, lc_regex_work *regex, lc_str text,
                 lc_str *out, lc_err *err) {
    norm_run run = {.work = work, .regex = regex, .out = &work->a, .err = err};
    run.limit = ((size_t)1 << 20) + 32 * text.len;
    for (size_t i = 0; i < norm->n_steps; i++) {
        lc_buf_clear(run.out);
        if (!lc_buf_reserve(run.out, 0)) return out_of_memory(&run);
        int status = run_step(&run, &norm->steps[i], &text);
        if (status) return status;
        if (text.data == run.out->data) /* the next step reads from here */
            run.out = run.out == &work->a ? &work->b : &work->a;
    }
    *out = text;
    return LC_OK;
}

void lc_norm_work_free(lc_norm_work *work) {
    lc_buf_free(&work->a);
    lc_buf_free(&work->b);
    lc_free(work->codes);
    *work = (lc_norm_work){0};
}
