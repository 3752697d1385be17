/* eval_text.c: `longcat eval ppl|kl`: how well a model predicts a text, and how far it is from
 * another model there. */
#include "base/file.h"
#include "cli/eval.h"
#include "engine/evaluate.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

typedef struct text_flags {
    lc_engine_flags engine;
    const char *text;
    int64_t window;
    bool json;
} text_flags;

/* ---- eval ppl ---- */

static void show_progress(void *ctx, const lc_eval_nll *n) {
    const size_t *total = ctx;
    if (isatty(STDERR_FILENO) && n->predicted)
        fprintf(stderr, "\r%zu of %zu tokens, %.4f nats/token ", n->tokens, *total,
                n->nats / (double)n->predicted);
}

/* Opens the model and encodes the text. */
static int open_text(const char *model, const text_flags *f, lc_engine **engine, lc_buf *text,
                     lc_ids *ids, lc_err *err) {
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

static int eval_ppl(const char *model, const text_flags *f, lc_err *err) {
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

static int eval_kl(const char *model, const char *reference, const text_flags *f, lc_err *err) {
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

/* ---- options ---- */

static int text_cmd(int argc, char **argv, bool kl) {
    text_flags f = {.window = 512};
    const lc_opt options[] = {
        {"text", 0, LC_OPT_STRING, &f.text, "FILE", "the text", 0, 0},
        {"window", 0, LC_OPT_INT, &f.window, "N",
         "tokens of a window, each a sequence of its own (default 512)", 2, 1 << 24},
        {"json", 0, LC_OPT_FLAG, &f.json, NULL, "print JSON", 0, 0},
        LC_ENGINE_OPTIONS(f.engine),
        {0},
    };
    const lc_usage usage = {kl ? "longcat eval kl MODEL REFERENCE --text FILE [options]"
                               : "longcat eval ppl MODEL --text FILE [options]",
                            kl ? "How far MODEL's predictions are from REFERENCE's on a text: mean "
                                 "divergence, share of "
                                 "positions\nwith the same likeliest token."
                               : "Perplexity of a text: nats per token, bits per byte.",
                            options, kl ? 2 : 1, kl ? 2 : 1};
    const char *args[2];
    int n_args, code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code < 0) code = lc_cli_need(f.text, "--text");
    if (code >= 0) return code;
    lc_err err = {0};
    int status = kl ? eval_kl(args[0], args[1], &f, &err) : eval_ppl(args[0], &f, &err);
    return status == LC_OK ? LC_EXIT_OK : lc_cli_fail(&err);
}

int lc_eval_ppl_cmd(int argc, char **argv) { return text_cmd(argc, argv, false); }
int lc_eval_kl_cmd(int argc, char **argv) { return text_cmd(argc, argv, true); }
