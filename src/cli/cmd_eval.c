/* cmd_eval.c: `longcat eval logits|hash|ppl|kl|draft|grammar`: what checks and comparisons use. */
#include "base/hash.h"
#include "base/json.h"
#include "cli/engine_options.h"
#include "cli/eval_grammar.h"
#include "engine/evaluate.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum { EVAL_CHUNK = 64 };

typedef struct eval_flags {
    lc_engine_flags engine;
    const char *in, *out, *text, *ids, *schema;
    int64_t batch, window, count, seed;
    bool activations, mtp, json;
} eval_flags;

/* ---- input ---- */

typedef struct eval_input {
    lc_tensors *file;
    int32_t *tokens, *document;
    size_t batch, length;
} eval_input;

static void input_free(eval_input *in) {
    lc_tensors_close(in->file);
    lc_free(in->tokens);
    lc_free(in->document);
}

/* A [B][T] (or [T]) tensor of I64 or I32 as int32. */
static int read_ids(const lc_tensor *t, const char *path, int32_t **out, lc_err *err) {
    if ((t->dtype != LC_I64 && t->dtype != LC_I32) || t->rank < 1 || t->rank > 2)
        return lc_fail(err, LC_EFORMAT, "%s: %s must be I64 or I32 [batch][tokens]", path, t->name);
    *out = lc_calloc(t->count ? t->count : 1, sizeof **out);
    if (!*out) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < t->count; i++) {
        int64_t value = 0;
        if (t->dtype == LC_I32)
            memcpy(&(*out)[i], (const char *)t->data + i * 4, 4);
        else
            memcpy(&value, (const char *)t->data + i * 8, 8);
        if (value < INT32_MIN || value > INT32_MAX)
            return lc_fail(err, LC_EFORMAT, "%s: %s[%zu] = %lld is no token id", path, t->name, i,
                           (long long)value);
        if (t->dtype == LC_I64) (*out)[i] = (int32_t)value;
    }
    return LC_OK;
}

static int input_load(const char *path, eval_input *in, lc_err *err) {
    int status = lc_tensors_open(path, &in->file, err);
    if (status != LC_OK) return status;
    const lc_tensor *ids = lc_tensors_find(in->file, "input_ids"),
                    *doc = lc_tensors_find(in->file, "document");
    if (!ids) return lc_fail(err, LC_ENOTFOUND, "%s: tensor input_ids is missing", path);
    if (doc && doc->count != ids->count)
        return lc_fail(err, LC_EFORMAT, "%s: document has %zu elements, input_ids %zu", path,
                       doc->count, ids->count);
    status = read_ids(ids, path, &in->tokens, err);
    if (status == LC_OK && doc) status = read_ids(doc, path, &in->document, err);
    in->batch = ids->rank == 2 ? ids->shape[0] : 1;
    in->length = ids->rank == 2 ? ids->shape[1] : ids->shape[0];
    return status;
}

/* Runs the model over the file's sequences. */
static int evaluate(const char *model, const eval_flags *f, const eval_input *in,
                    lc_eval_result *result, lc_err *err) {
    lc_engine_options options = lc_cli_engine_options(&f->engine);
    if (!options.compute) options.compute = "f32"; /* these numbers are for comparison */
    size_t chunk = f->engine.chunk ? (size_t)f->engine.chunk : EVAL_CHUNK;
    if (in->length && chunk > in->length) chunk = in->length;
    size_t together = f->batch ? (size_t)f->batch : 1;
    if (in->batch && together > in->batch) together = in->batch;
    options.chunk = chunk * together;
    options.drafts = f->mtp;
    options.context = in->length;
    lc_engine *engine = NULL;
    int status = lc_engine_open(model, &options, &engine, err);
    if (status != LC_OK) return status;
    lc_eval_input input = {in->tokens, in->document, in->batch, in->length, chunk, together};
    status = lc_eval_logits(engine, &input, f->activations, f->mtp, result, err);
    lc_engine_close(engine);
    return status;
}

/* ---- eval logits, eval hash ---- */

static int write_result(const char *path, const eval_input *in, const lc_eval_result *result,
                        lc_err *err) {
    lc_tensor *tensors = lc_calloc(result->count, sizeof *tensors);
    if (!tensors) return lc_fail(err, LC_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < result->count; i++) {
        const lc_eval_entry *e = &result->entries[i];
        size_t count = in->batch * e->rows * e->cols;
        tensors[i] = (lc_tensor){.name = e->name,
                                 .dtype = e->type,
                                 .rank = 3,
                                 .shape = {in->batch, e->rows, e->cols},
                                 .count = count,
                                 .data = e->data,
                                 .size = count * lc_dtype_size(e->type)};
    }
    int status = lc_safetensors_write(path, tensors, result->count, err);
    lc_free(tensors);
    return status;
}

static int eval_logits(const char *model, const eval_flags *f, bool hash, lc_err *err) {
    if (!f->in || (!hash && !f->out))
        return lc_fail(err, LC_EINVAL, "--in FILE%s needed", hash ? " is" : " and --out FILE are");
    eval_input in = {0};
    lc_eval_result result = {0};
    int status = input_load(f->in, &in, err);
    if (status == LC_OK) status = evaluate(model, f, &in, &result, err);
    if (status == LC_OK && !hash) status = write_result(f->out, &in, &result, err);
    if (status == LC_OK && hash) {
        const lc_eval_entry *e = &result.entries[0];
        for (size_t i = 0; i < result.count; i++)
            if (!strcmp(result.entries[i].name, "logits")) e = &result.entries[i];
        lc_hash *h = lc_hash_new(LC_HASH_XXH128);
        char hex[65];
        if (!h)
            status = lc_fail(err, LC_ENOMEM, "hash: out of memory");
        else {
            lc_hash_update(h, e->data, in.batch * e->rows * e->cols * sizeof(float));
            lc_hash_finish(h, hex);
            puts(hex);
        }
    }
    lc_eval_free(&result);
    input_free(&in);
    return status;
}

/* ---- eval ppl ---- */

static void show_progress(void *ctx, const lc_eval_nll *n) {
    const size_t *total = ctx;
    if (isatty(STDERR_FILENO) && n->predicted)
        fprintf(stderr, "\r%zu of %zu tokens, %.4f nats/token ", n->tokens, *total,
                n->nats / (double)n->predicted);
}

/* Opens the model and encodes the text. */
static int open_text(const char *model, const eval_flags *f, lc_engine **engine, lc_buf *text,
                     lc_ids *ids, lc_err *err) {
    if (!f->text) return lc_fail(err, LC_EINVAL, "--text FILE is needed");
    lc_engine_options options = lc_cli_engine_options(&f->engine);
    int status = lc_file_read(f->text, 0, text, err);
    if (status == LC_OK) status = lc_engine_open(model, &options, engine, err);
    if (status == LC_OK && !(*engine)->tokenizer)
        status = lc_fail(err, LC_ENOTFOUND, "%s: tokenizer.json is missing", model);
    if (status == LC_OK)
        status = lc_tokenizer_encode((*engine)->tokenizer, text->data, text->len, LC_ENCODE_ALL,
                                     false, ids, err);
    return status;
}

static int eval_ppl(const char *model, const eval_flags *f, lc_err *err) {
    lc_engine *engine = NULL;
    lc_buf text = {0};
    lc_ids ids = {0};
    lc_eval_nll n = {0};
    int status = open_text(model, f, &engine, &text, &ids, err);
    size_t window = (size_t)f->window;
    if (status == LC_OK && window > lc_engine_context(engine)) window = lc_engine_context(engine);
    if (status == LC_OK)
        status = lc_eval_nll_windows(engine, ids.data, ids.len, window, show_progress, &ids.len, &n,
                                     err);
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\n");
    if (status == LC_OK && !n.predicted)
        status = lc_fail(err, LC_EINVAL, "%s: fewer than two tokens", f->text);
    if (status == LC_OK) {
        double per_token = n.nats / (double)n.predicted;
        double bytes = (double)text.len * (double)n.predicted / (double)n.tokens;
        double bits_per_byte = n.nats / M_LN2 / bytes;
        if (f->json)
            printf("{\"nats_per_token\":%.9g,\"bits_per_byte\":%.9g,\"perplexity\":%.9g,\"nll_"
                   "total_nats\":%.12g,"
                   "\"tokens\":%zu,\"predicted_tokens\":%zu,\"bytes\":%zu,\"window\":%zu}\n",
                   per_token, bits_per_byte, exp(per_token), n.nats, n.tokens, n.predicted,
                   text.len, window);
        else
            printf("nats per token    %12.4f\nbits per byte     %12.4f\nperplexity        %12.2f\n"
                   "total NLL, nats   %12.2f\ntokens            %12zu\npredicted tokens  %12zu\n"
                   "bytes             %12zu\nwindow, tokens    %12zu\n",
                   per_token, bits_per_byte, exp(per_token), n.nats, n.tokens, n.predicted,
                   text.len, window);
    }
    lc_ids_free(&ids);
    lc_buf_free(&text);
    lc_engine_close(engine);
    return status;
}

/* ---- eval kl ---- */

static void show_kl_progress(void *ctx, const lc_eval_kl *k) {
    const size_t *total = ctx;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%zu of %zu tokens, KL %.5f nats ", k->tokens, *total,
                k->nats / (double)k->positions);
}

static void print_kl(const lc_eval_kl *k, size_t window, bool json) {
    double mean = k->nats / (double)k->positions, n = (double)k->predicted;
    double top = 100 * (double)k->same_top / (double)k->positions;
    printf(json ? "{\"mean_kl_nats\":%.9g,\"max_kl_nats\":%.9g,\"same_top_percent\":%.6g,"
                  "\"perplexity\":%.9g,\"reference_perplexity\":%.9g,\"tokens\":%zu,"
                  "\"window\":%zu}\n"
                : "mean KL, nats     %12.5f\nlargest KL, nats  %12.4f\nsame top token, %% %12.2f\n"
                  "perplexity        %12.3f\nof the reference  %12.3f\ntokens            %12zu\n"
                  "window, tokens    %12zu\n",
           mean, k->worst, top, exp(k->nll / n), exp(k->nll_reference / n), k->tokens, window);
}

static int eval_kl(const char *model, const char *reference, const eval_flags *f, lc_err *err) {
    lc_engine_options options = lc_cli_engine_options(&f->engine);
    lc_engine *engines[2] = {NULL, NULL};
    lc_buf text = {0};
    lc_ids ids = {0};
    lc_eval_kl k = {0};
    size_t window = (size_t)f->window;
    int status = open_text(model, f, &engines[0], &text, &ids, err);
    if (status == LC_OK) status = lc_engine_open(reference, &options, &engines[1], err);
    for (int i = 0; i < 2 && status == LC_OK; i++)
        if (window > lc_engine_context(engines[i])) window = lc_engine_context(engines[i]);
    lc_eval_text input = {ids.data, ids.len, window, show_kl_progress, &ids.len};
    if (status == LC_OK) status = lc_eval_kl_windows(engines[0], engines[1], &input, &k, err);
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\n");
    if (status == LC_OK && !k.predicted)
        status = lc_fail(err, LC_EINVAL, "%s: fewer than two tokens", f->text);
    if (status == LC_OK) print_kl(&k, window, f->json);
    lc_engine_close(engines[0]);
    lc_engine_close(engines[1]);
    lc_ids_free(&ids);
    lc_buf_free(&text);
    return status;
}

/* ---- eval draft ---- */

static int eval_draft(const char *model, const eval_flags *f, lc_err *err) {
    if (!f->ids) return lc_fail(err, LC_EINVAL, "--ids 1,2,3 is needed");
    if (f->count > 64) return lc_fail(err, LC_EINVAL, "--count: at most 64 tokens are drafted");
    lc_engine_options options = lc_cli_engine_options(&f->engine);
    if (!options.compute) options.compute = "f32";
    options.drafts = true;
    lc_engine *engine = NULL;
    lc_session *session = NULL;
    lc_ids ids = {0};
    int32_t next = 0, drafts[64];
    int status = lc_cli_ids(f->ids, &ids, err);
    if (status == LC_OK) status = lc_engine_open(model, &options, &engine, err);
    if (status == LC_OK) status = lc_session_open(engine, &session, err);
    if (status == LC_OK) status = lc_session_sync(session, ids.data, ids.len, err);
    if (status == LC_OK) {
        next = lc_argmax(lc_session_logits(session), lc_engine_vocab(engine));
        status = lc_session_draft(session, next, (size_t)f->count, drafts, err);
    }
    if (status == LC_OK) {
        printf(f->json ? "{\"next\":%d,\"tokens\":[" : "next token  %d\ndrafts      ", next);
        for (int64_t i = 0; i < f->count; i++)
            printf("%s%d", !i ? "" : f->json ? "," : " ", drafts[i]);
        puts(f->json ? "]}" : "");
    }
    lc_session_close(session);
    lc_engine_close(engine);
    lc_ids_free(&ids);
    return status;
}

int lc_cmd_eval(int argc, char **argv) {
    eval_flags f = {.window = 512, .count = 3};
    const lc_opt options[] = {
        {"in", 0, LC_OPT_STRING, &f.in, "FILE",
         "safetensors with input_ids [B][T] and, if wanted, document [B][T]", 0, 0},
        {"out", 0, LC_OPT_STRING, &f.out, "FILE",
         "safetensors to write: logits [B][T][V] and what else was asked for", 0, 0},
        {"activations", 0, LC_OPT_FLAG, &f.activations, NULL,
         "also write every part's output, router and index choices", 0, 0},
        {"mtp", 0, LC_OPT_FLAG, &f.mtp, NULL, "also write the draft module's teacher-forced steps",
         0, 0},
        {"batch", 0, LC_OPT_INT, &f.batch, "N",
         "sequences in one step (default 1); never changes a result", 1, 1024},
        {"text", 0, LC_OPT_STRING, &f.text, "FILE", "text for ppl and kl", 0, 0},
        {"window", 0, LC_OPT_INT, &f.window, "N",
         "ppl, kl: tokens of a window, each a sequence of its own (default 512)", 2, 1 << 24},
        {"ids", 0, LC_OPT_STRING, &f.ids, "LIST", "token ids for draft: 1,2,3", 0, 0},
        {"schema", 0, LC_OPT_STRING, &f.schema, "FILE", "JSON schema for grammar", 0, 0},
        {"count", 'n', LC_OPT_INT, &f.count, "N",
         "draft: tokens to draft, at most 64; grammar: answers (default 3)", 1, 1000000},
        {"seed", 0, LC_OPT_INT, &f.seed, "N", "grammar: of the draws (default 0)", 0, 1e15},
        {"json", 0, LC_OPT_FLAG, &f.json, NULL, "print JSON", 0, 0},
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {
        .synopsis =
            "longcat eval logits|hash|ppl|draft|grammar MODEL [options]\n       longcat eval kl "
            "MODEL REFERENCE --text FILE [options]",
        .description =
            "logits  runs the token ids of --in and writes the logits to --out\n"
            "hash    prints one hash of the bits of those logits\n"
            "ppl     perplexity of --text: nats per token, bits per byte\n"
            "kl      how far MODEL's predictions are from REFERENCE's on --text: mean divergence,\n"
            "        share of positions with the same likeliest token\n"
            "draft   the greedy token after --ids and the draft module's chain behind it\n"
            "grammar answers that --schema admits, drawn at random, one a line (no weights "
            "used)\n\n"
            "logits, hash and draft compute in f32 unless --compute says otherwise.",
        .options = options,
        .min_args = 2,
        .max_args = 3,
    };
    const char *args[3];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    lc_err err = {0};
    int status;
    bool kl = !strcmp(args[0], "kl");
    if (n_args != (kl ? 3 : 2)) {
        fprintf(stderr, "longcat: too %s arguments\nusage: %s\n", kl ? "few" : "many",
                usage.synopsis);
        return LC_EXIT_USAGE;
    }
    if (kl)
        status = eval_kl(args[1], args[2], &f, &err);
    else if (!strcmp(args[0], "logits"))
        status = eval_logits(args[1], &f, false, &err);
    else if (!strcmp(args[0], "hash"))
        status = eval_logits(args[1], &f, true, &err);
    else if (!strcmp(args[0], "ppl"))
        status = eval_ppl(args[1], &f, &err);
    else if (!strcmp(args[0], "draft"))
        status = eval_draft(args[1], &f, &err);
    else if (!strcmp(args[0], "grammar"))
        status =
            lc_eval_grammar_run(&(lc_eval_grammar){args[1], f.schema, f.count, 120, f.seed}, &err);
    else {
        fprintf(stderr, "longcat: eval \"%s\" is unknown\nusage: %s\n", args[0], usage.synopsis);
        return LC_EXIT_USAGE;
    }
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}
