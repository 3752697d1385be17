/*
 * tokenizer_train.c: see tokenizer_train.h. The pre-tokenizer that the file names is the one that
 * cuts the corpus: a file without merges is written first and loaded through text/tokenizer.h.
 */
#include "train/tokenizer_train.h"

#include "base/file.h"
#include "train/bpe_train.h"

#include <string.h>

#define DEFAULT_MEMORY ((size_t)1000000000)

const char *const lc_family_tokens[] = {
    "<longcat_unk>",
    "<longcat_s>",
    "</longcat_s>",
    "<longcat_pad>",
    "<longcat_system>",
    "<longcat_user>",
    "<longcat_assistant>",
    "<longcat_think>",
    "</longcat_think>",
    "<longcat_tool_declare>",
    "</longcat_tool_declare>",
    "<longcat_tool_call>",
    "</longcat_tool_call>",
    "<longcat_arg_key>",
    "</longcat_arg_key>",
    "<longcat_arg_value>",
    "</longcat_arg_value>",
    "<longcat_tool_response>",
    "</longcat_tool_response>",
    "<longcat_files>",
    "</longcat_files>",
    "<longcat_observation>",
};
const size_t lc_family_n_tokens = sizeof lc_family_tokens / sizeof *lc_family_tokens;

/* spec 4.1: three isolating splits, then the byte alphabet. JSON text. */
static const char pre_tokenizer[] =
    "{\"type\": \"Sequence\", \"pretokenizers\": [\n"
    "    {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"
    "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, \"behavior\": \"Isolated\", \"invert\": "
    "false},\n"
    "    {\"type\": \"Split\", \"pattern\": {\"Regex\": \" ?[\\uff01-\\uff0f\\uff1a-\\uff5e"
    "\\u2018-\\u201f\\u3000-\\u3002\\u300a\\u300b\\u300c\\u300d\\u3010\\u3011]+\"}, "
    "\"behavior\": \"Isolated\", \"invert\": false},\n"
    "    {\"type\": \"Split\", \"pattern\": {\"Regex\": \"[\\u4e00-\\u9fa5\\u0800-\\u4e00"
    "\\uac00-\\ud7ff]+\"}, \"behavior\": \"Isolated\", \"invert\": false},\n"
    "    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
    "\"use_regex\": false}]}";

/* ---- writing ---- */

static void put_string(lc_buf *out, const char *text) {
    lc_buf_putc(out, '"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            lc_buf_printf(out, "\\%c", c);
        else if (c < 0x20)
            lc_buf_printf(out, "\\u%04x", c);
        else
            lc_buf_putc(out, (char)c);
    }
    lc_buf_putc(out, '"');
}

static void put_added(lc_buf *out, const lc_bpe_options *o) {
    for (size_t i = 0; i < o->n_special; i++) {
        lc_buf_printf(out, "%s  {\"id\": %zu, \"content\": ", i ? ",\n" : "\n", i);
        put_string(out, o->special[i]);
        lc_buf_puts(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                         "\"normalized\": false, \"special\": true}");
    }
}

static void put_json(lc_buf *out, const lc_bpe_options *o, const lc_bpe_model *m) {
    lc_buf_puts(out, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n"
                     " \"added_tokens\": [");
    put_added(out, o);
    lc_buf_printf(out, "],\n \"normalizer\": null,\n \"pre_tokenizer\": %s,\n", pre_tokenizer);
    lc_buf_puts(out, " \"post_processor\": null,\n \"decoder\": {\"type\": \"ByteLevel\", "
                     "\"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true},\n"
                     " \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
                     "\"continuing_subword_prefix\": null,\n  \"end_of_word_suffix\": null, "
                     "\"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false,\n"
                     "  \"vocab\": {");
    for (size_t i = 0; i < m->vocab; i++) {
        lc_buf_puts(out, i ? ",\n   " : "\n   ");
        put_string(out, lc_bpe_model_content(m, i));
        lc_buf_printf(out, ": %zu", i);
    }
    lc_buf_puts(out, "},\n  \"merges\": [");
    for (size_t i = 0; i < m->n_merges; i++) {
        lc_buf_puts(out, i ? ",\n   [" : "\n   [");
        put_string(out, lc_bpe_model_content(m, m->merges[i].left));
        lc_buf_puts(out, ", ");
        put_string(out, lc_bpe_model_content(m, m->merges[i].right));
        lc_buf_putc(out, ']');
    }
    lc_buf_puts(out, "]}}\n");
}

/* The file's text, and the tokenizer that it makes, which is also a check of it. */
static int make_file(const lc_bpe_options *o, const lc_bpe_model *model, lc_buf *text,
                     lc_tokenizer **tokenizer, lc_err *err) {
    put_json(text, o, model);
    if (text->failed) return lc_fail(err, LC_ENOMEM, "tokenizer: out of memory");
    return lc_tokenizer_parse(text->data, text->len, "the new tokenizer", tokenizer, err);
}

/* ---- steps ---- */

typedef struct job {
    const lc_tokenizer_options *options;
    lc_bpe_options bpe;
    const char *special[LC_TOKENIZER_SPECIAL_MAX];
    lc_piece_counts counts;
    lc_tokenizer_progress progress;
    lc_err *err;
} job;

static bool report(job *j) {
    const lc_tokenizer_options *o = j->options;
    return !o->progress || o->progress(o->ctx, &j->progress);
}

static bool on_merge(void *ctx, size_t ids) {
    job *j = ctx;
    j->progress.ids = ids;
    return report(j);
}

static int collect_special(job *j) {
    const lc_tokenizer_options *o = j->options;
    size_t n = lc_family_n_tokens;
    if (o->n_special > LC_TOKENIZER_SPECIAL_MAX - n)
        return lc_fail(j->err, LC_ELIMIT, "tokenizer: %zu special tokens are too many",
                       o->n_special);
    memcpy(j->special, lc_family_tokens, sizeof lc_family_tokens);
    for (size_t i = 0; i < o->n_special; i++) {
        if (!o->special[i][0])
            return lc_fail(j->err, LC_EINVAL, "tokenizer: a special token is empty");
        j->special[n++] = o->special[i];
    }
    j->bpe = (lc_bpe_options){j->special, n, o->vocab, on_merge, j};
    return LC_OK;
}

/* A tokenizer without merges, for its pre-tokenizer. */
static int make_cutter(job *j, lc_tokenizer **out) {
    lc_bpe_options o = j->bpe;
    lc_bpe_model model = {0};
    lc_piece_counts none = {0};
    lc_buf text = {0};
    o.vocab = o.n_special + 256;
    int status = lc_bpe_train(&none, &o, &model, j->err);
    if (!status) status = make_file(&o, &model, &text, out, j->err);
    lc_bpe_model_free(&model);
    lc_buf_free(&text);
    return status;
}

static int count_corpus(job *j, const lc_tokenizer *cutter, lc_tokenizer_result *result) {
    lc_corpus *corpus;
    lc_batch batch = {0};
    int status = lc_corpus_open(&j->options->corpus, &corpus, j->err);
    if (status) return status;
    j->progress.all_bytes = lc_corpus_size(corpus);
    do {
        status = lc_batch_fill(&batch, corpus, j->err);
        if (!status)
            status = lc_piece_counts_add(&j->counts, cutter, &batch, j->options->pool, j->err);
        j->progress.bytes = lc_corpus_count(corpus)->bytes;
        if (!status && !report(j)) status = lc_fail(j->err, LC_ECANCELED, "tokenizer: stopped");
    } while (!status && batch.n);
    result->counts = *lc_corpus_count(corpus);
    result->pieces = lc_piece_counts_size(&j->counts);
    result->dropped = j->counts.dropped;
    result->rarest = j->counts.rarest;
    if (!status && !result->pieces)
        status =
            lc_fail(j->err, LC_EINVAL, "%s: no text to learn from", j->options->corpus.paths[0]);
    lc_batch_free(&batch);
    lc_corpus_close(corpus);
    return status;
}

static int merge_and_write(job *j, const char *path, lc_tokenizer_result *result) {
    lc_bpe_model model = {0};
    lc_tokenizer *check = NULL;
    lc_buf text = {0};
    j->progress.all_ids = j->bpe.vocab;
    int status = lc_bpe_train(&j->counts, &j->bpe, &model, j->err);
    if (!status) status = make_file(&j->bpe, &model, &text, &check, j->err);
    if (!status) status = lc_file_write(path, text.data, text.len, j->err);
    result->vocab = model.vocab;
    result->merges = model.n_merges;
    lc_tokenizer_free(check);
    lc_bpe_model_free(&model);
    lc_buf_free(&text);
    return status;
}

int lc_tokenizer_train(const lc_tokenizer_options *options, const char *path,
                       lc_tokenizer_result *result, lc_err *err) {
    job j = {.options = options, .err = err};
    lc_tokenizer *cutter = NULL;
    int threads = options->pool ? lc_pool_threads(options->pool) : 1;
    *result = (lc_tokenizer_result){0};
    int status = collect_special(&j);
    if (!status && options->vocab < j.bpe.n_special + 256)
        status = lc_fail(err, LC_EINVAL,
                         "tokenizer: vocab %zu is below %zu, which %zu special "
                         "tokens and 256 bytes need",
                         options->vocab, j.bpe.n_special + 256, j.bpe.n_special);
    if (!status) status = make_cutter(&j, &cutter);
    if (!status)
        status = lc_piece_counts_init(
            &j.counts, threads, (options->memory ? options->memory : DEFAULT_MEMORY) / 3, err);
    if (!status) status = lc_file_ready(path, err);
    if (!status) status = count_corpus(&j, cutter, result);
    if (!status) status = merge_and_write(&j, path, result);
    lc_piece_counts_free(&j.counts);
    lc_tokenizer_free(cutter);
    return status;
}
