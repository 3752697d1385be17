/*
 * cmd_quantize.c: `longcat quantize MODEL OUT --type ...` and `longcat pack MODEL OUT`: options,
 * progress and the closing line; the work is format/quantize.h.
 */
#include "cli/cli.h"
#include "cli/progress.h"

#include "base/cpu.h"
#include "format/quantize.h"

#include <math.h>
#include <string.h>

enum { PLAIN_MS = 30000 };

#define RUN_OPTIONS(shard_mb, threads)                                                             \
    {"shard-size", 0, LC_OPT_INT, &(shard_mb), "MB", "largest file, MB (default: 4000)", 1,        \
     1000000},                                                                                     \
    {                                                                                              \
        "threads", 't', LC_OPT_INT, &(threads), "N",                                               \
            "threads (default: the CPUs that may be used)", 1, 1024                                \
    }
#define RESUMABLE                                                                                  \
    "OUT must be empty or not exist. Stop it at any time: the same command checks the finished\n"  \
    "shards and goes on."

static bool on_progress(void *ctx, const lc_quantize_progress *p) {
    lc_progress *line = ctx;
    char done[32], all[32], speed[32], left[32];
    lc_buf text = {0};
    double rate = lc_progress_rate(line, p->done - p->kept);
    if (lc_progress_due(line)) {
        lc_buf_printf(&text, "%3.0f%%  %s of %s  shard %zu of %zu",
                      p->bytes ? 100 * (double)p->done / (double)p->bytes : 100.0,
                      lc_show_bytes(done, (double)p->done), lc_show_bytes(all, (double)p->bytes),
                      p->shards_done + (p->shards_done < p->shards), p->shards);
        if (p->checking)
            lc_buf_printf(&text, "  checking %s", p->shard);
        else if (rate >= 1)
            lc_buf_printf(&text, "  %s/s  %s left", lc_show_bytes(speed, rate),
                          lc_show_time(left, (double)(p->bytes - p->done) / rate));
        if (!text.failed) lc_progress_draw(line, text.data);
    }
    lc_buf_free(&text);
    return !lc_progress_interrupted(line);
}

static void print_done(const char *out, bool quantised, const lc_quantize_result *r) {
    char bytes[32], source[32];
    printf("%s: %zu of %zu tensors %s", out, quantised ? r->quantised : r->packed, r->tensors,
           quantised ? "quantised" : "packed");
    if (quantised && r->packed) printf(", %zu packed", r->packed);
    printf(", %s from %s, %zu shard%s", lc_show_bytes(bytes, (double)r->bytes),
           lc_show_bytes(source, (double)r->source_bytes), r->shards, r->shards == 1 ? "" : "s");
    if (r->kept) printf(" (%zu were there)", r->kept);
    if (r->power > 0)
        printf(", error %.3f %% of the weights' RMS", 100 * sqrt(r->error / r->power));
    putchar('\n');
}

static int finish(const char *out, int status, const lc_quantize_options *o,
                  const lc_quantize_result *r, const lc_err *err) {
    if (status != LC_OK) {
        if (status == LC_ECANCELED)
            fprintf(stderr, "longcat: stopped\n");
        else
            lc_cli_fail(err);
        if (r->done && (status == LC_ECANCELED || status == LC_EIO))
            fprintf(stderr,
                    "longcat: finished shards stay in %s, and the same command goes on "
                    "from there\n",
                    out);
        return LC_EXIT_FAILED;
    }
    print_done(out, o->type != LC_QUANTIZE_NONE, r);
    if (r->by_row)
        fprintf(stderr,
                "longcat: %zu weights whose width is no multiple of 32 are int8 with a scale a "
                "row\n",
                r->by_row);
    if (r->unpacked)
        fprintf(stderr,
                "longcat: weights that are not packed: %zu; BF16 and symmetric codes of 4 or 8 "
                "bits whose widths and groups are multiples of 32 can be packed\n",
                r->unpacked);
    return LC_EXIT_OK;
}

static int run(const char *model, const char *out, const lc_quantize_options *given, int threads) {
    lc_quantize_options o = *given;
    lc_quantize_result result = {0};
    lc_err err = {0};
    lc_progress line;
    lc_progress_begin(&line, PLAIN_MS); /* before the threads, which inherit the held signals */
    int status = lc_pool_new(threads, &o.pool, &err);
    o.kernels = lc_kernels_best(LC_ISA_COUNT - 1, NULL);
    o.progress = on_progress;
    o.ctx = &line;
    if (status == LC_OK) status = lc_quantize(model, out, &o, &result, &err);
    lc_pool_free(o.pool);
    lc_progress_end(&line);
    return finish(out, status, &o, &result, &err);
}

int lc_cmd_quantize(int argc, char **argv) {
    lc_quantize_options o = {0};
    const char *type = NULL, *args[2];
    int64_t group = 0, threads = 0, shard_mb = 4000;
    int n_args;
    const lc_opt options[] = {
        {"type", 0, LC_OPT_STRING, &type, "TYPE",
         "int8, int4, or mixed: routed experts int4, the rest int8", 0, 0},
        {"group", 0, LC_OPT_INT, &group, "N",
         "weights that share a scale: 32, 64 or 128 (default: 64 with int4, a whole row with int8)",
         32, 128},
        {"embeddings", 0, LC_OPT_FLAG, &o.embeddings, NULL,
         "also the word and n-gram tables and the n-gram projections", 0, 0},
        {"head", 0, LC_OPT_FLAG, &o.head, NULL, "also the output head", 0, 0},
        {"mtp", 0, LC_OPT_FLAG, &o.mtp, NULL, "also the draft module", 0, 0},
        {"pack", 0, LC_OPT_FLAG, &o.strips, NULL,
         "lay weights out as `longcat pack` does: faster, for longcat only", 0, 0},
        RUN_OPTIONS(shard_mb, threads),
        {0},
    };
    const lc_usage usage = {
        "longcat quantize MODEL OUT --type int8|int4|mixed [--group N] [options]",
        "Writes a smaller checkpoint: attention projections, FFNs and experts as int4 or int8 "
        "with\n"
        "scales of least squared error. Routers, norms and indexer weights stay as they are; so "
        "do\n"
        "embeddings, head and draft module unless an option says otherwise. OUT has the layout of\n"
        "compressed-tensors, with the source's tokenizer and templates "
        "(docs/formats.md).\n\n" RESUMABLE,
        options, 2, 2};
    int code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    if (!type || !lc_quantize_type_from_name(type, &o.type)) {
        if (type)
            fprintf(stderr, "longcat: --type: \"%s\" is neither int8, int4 nor mixed\n", type);
        else
            fprintf(stderr, "longcat: --type int8, int4 or mixed is needed\n");
        return LC_EXIT_USAGE;
    }
    if (group && group != 32 && group != 64 && group != 128) {
        fprintf(stderr, "longcat: --group: %d is neither 32, 64 nor 128\n", (int)group);
        return LC_EXIT_USAGE;
    }
    o.group = (size_t)group;
    o.shard_bytes = (size_t)shard_mb * 1000000;
    return run(args[0], args[1], &o, (int)threads);
}

int lc_cmd_pack(int argc, char **argv) {
    lc_quantize_options o = {.type = LC_QUANTIZE_NONE, .strips = true};
    const char *args[2];
    int64_t threads = 0, shard_mb = 4000;
    int n_args;
    const lc_opt options[] = {
        RUN_OPTIONS(shard_mb, threads),
        {0},
    };
    const lc_usage usage = {
        "longcat pack MODEL OUT [options]",
        "Writes a checkpoint again, its weights in the order in which products read them: the "
        "same\n"
        "values, faster, for longcat only (docs/formats.md). BF16 matrices, and symmetric int4 "
        "and\n"
        "int8 of any tool, are packed; all else is copied. To quantise, start from the checkpoint\n"
        "that isn't packed.\n\n" RESUMABLE,
        options, 2, 2};
    int code = lc_cli_parse(&usage, argc, argv, args, &n_args);
    if (code >= 0) return code;
    o.shard_bytes = (size_t)shard_mb * 1000000;
    return run(args[0], args[1], &o, (int)threads);
}
