/*
 * train_tokenizer.c: `longcat train tokenizer CORPUS... -o tokenizer.json`: options, progress and
 * the closing line; the work is train/tokenizer_train.h.
 */
#include "cli/train.h"

#include "base/clock.h"
#include "base/mem.h"
#include "train/tokenizer_train.h"

typedef struct display {
    lc_progress line;
    bool merging;
} display;

static bool on_progress(void *ctx, const lc_tokenizer_progress *p) {
    display *d = ctx;
    lc_progress *line = &d->line;
    char done[32], all[32], speed[32], left[32];
    if (p->all_ids && !d->merging) line->n_samples = 0; /* ids from here on, not bytes */
    d->merging = p->all_ids > 0;
    double rate = lc_progress_rate(line, p->all_ids ? p->ids : p->bytes);
    if (lc_progress_due(line)) {
        lc_buf text = {0};
        if (p->all_ids)
            lc_buf_printf(&text, "merging  %zu of %zu ids", p->ids, p->all_ids);
        else
            lc_buf_printf(&text, "%3.0f%%  %s of %s read",
                          p->all_bytes ? 100 * (double)p->bytes / (double)p->all_bytes : 100.0,
                          lc_show_bytes(done, (double)p->bytes),
                          lc_show_bytes(all, (double)p->all_bytes));
        uint64_t rest = p->all_ids ? p->all_ids - p->ids : p->all_bytes - p->bytes;
        if (rate >= 1 && !p->all_ids) lc_buf_printf(&text, "  %s/s", lc_show_bytes(speed, rate));
        if (rate >= 1) lc_buf_printf(&text, "  %s left", lc_show_time(left, (double)rest / rate));
        if (!text.failed) lc_progress_draw(line, text.data);
        lc_buf_free(&text);
    }
    return !lc_progress_interrupted(line);
}

static int finish(const lc_tokenizer_options *o, const char *out, const lc_tokenizer_result *r,
                  double seconds) {
    char bytes[32], speed[32], time[32];
    lc_train_show_counts(&r->counts);
    if (r->dropped)
        fprintf(stderr,
                "longcat: the memory limit dropped pieces with at most %llu occurrences (%llu in "
                "all); --memory raises it\n",
                (unsigned long long)r->rarest, (unsigned long long)r->dropped);
    if (r->vocab < o->vocab)
        fprintf(stderr, "longcat: the corpus gives %zu ids only, not %zu\n", r->vocab, o->vocab);
    printf("%s: %zu ids, %zu merges from %llu documents, %s, %zu different pieces, in %s (%s/s)\n",
           out, r->vocab, r->merges, (unsigned long long)r->counts.documents,
           lc_show_bytes(bytes, (double)r->counts.bytes), r->pieces, lc_show_time(time, seconds),
           lc_show_bytes(speed, (double)r->counts.bytes / (seconds > 0 ? seconds : 1)));
    return LC_EXIT_OK;
}

static int train(const lc_tokenizer_options *given, const char *out, int threads) {
    lc_tokenizer_options o = *given;
    lc_tokenizer_result result = {0};
    lc_err err = {0};
    display d = {0};
    uint64_t start = lc_clock_ns();
    lc_progress_begin(&d.line, TRAIN_PLAIN_MS); /* before the threads, which inherit its signals */
    int status = lc_pool_new(threads, &o.pool, &err);
    o.progress = on_progress;
    o.ctx = &d;
    if (!status) status = lc_tokenizer_train(&o, out, &result, &err);
    lc_pool_free(o.pool);
    lc_progress_end(&d.line);
    if (status) return lc_cli_fail(&err);
    return finish(&o, out, &result, (double)(lc_clock_ns() - start) / 1e9);
}

int lc_train_tokenizer_cmd(int argc, char **argv) {
    lc_opt_list special = {0};
    const char *out = NULL;
    int64_t vocab = 8192, threads = 0, memory = 1000, max_file = LC_CORPUS_FILE_MAX;
    lc_tokenizer_options o = {0};
    int n_args;
    const lc_opt options[] = {
        {"output", 'o', LC_OPT_STRING, &out, "FILE", "the tokenizer.json to write", 0, 0},
        {"vocab", 0, LC_OPT_INT, &vocab, "N", "ids, special ones included (default: 8192)", 278,
         1 << 20},
        {"special", 0, LC_OPT_LIST, &special, "TOKEN",
         "another special token; may be repeated (fill in the middle: <fim_prefix>, <fim_suffix>, "
         "<fim_middle>)",
         0, 0},
        {"ext", 0, LC_OPT_STRING, &o.corpus.extensions, "LIST",
         "files to take from folders, such as py,c,md (default: common code and prose)", 0, 0},
        {"max-file", 0, LC_OPT_INT, &max_file, "BYTES",
         "largest file to take from a folder (default: 1048576)", 1, 1 << 30},
        {"memory", 0, LC_OPT_INT, &memory, "MB", "for counts and merges, about (default: 1000)", 16,
         1 << 24},
        {"threads", 't', LC_OPT_INT, &threads, "N", "threads (default: the CPUs that may be used)",
         1, 1024},
        {0},
    };
    const lc_usage usage = {
        "longcat train tokenizer CORPUS... -o tokenizer.json [--vocab N] [options]",
        "Learns byte-level BPE merges, with the pre-tokenizer and the special tokens of the 2.0\n"
        "family. CORPUS: text files, folders, JSONL with \"text\" or \"messages\". The same "
        "corpus\n"
        "gives the same file, whatever the threads. Ties: the pair of lower ids, as in Hugging\n"
        "Face's trainer.",
        options, 1, INT32_MAX};
    const char **args = lc_calloc((size_t)argc, sizeof *args);
    if (!args) return lc_cli_fail(&(lc_err){.text = "out of memory"});
    int code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code < 0) code = lc_cli_need(out, "-o FILE");
    if (code < 0) {
        o.corpus.paths = args;
        o.corpus.n_paths = (size_t)n_args;
        o.corpus.max_file = (size_t)max_file;
        o.vocab = (size_t)vocab;
        o.special = special.items;
        o.n_special = special.count;
        o.memory = (size_t)memory * 1000000;
        code = train(&o, out, (int)threads);
    }
    lc_free(args);
    return code;
}
